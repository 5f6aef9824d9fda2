"""A picture of comparisons: one bar each, from "as fast as the best peer" outwards, in groups."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from convoxel.bench.comparison import Comparison
from convoxel.draw.caption import EDGE
from convoxel.draw.chart import Axis, mark_below
from convoxel.draw.figure import Figure
from convoxel.draw.letter import fit, text_width, wrap
from convoxel.draw.pixels import load_renderer
from convoxel.draw.scene import Box, Line, Look, Shape, Words
from convoxel.errors import ConfigError

_ENDINGS = (".png", ".svg")
_COLUMN_ROWS = 64  # rows of one column of the page; longer lists take more columns
_ROW, _BAR, _WIDE = 16.0, 12.0, 260.0  # height of a row and of its bar, width of the bars' area
_LABEL, _HEADING, _NUMBER = Look(fill="ink", size=10.5, align="end"), Look(fill="ink", size=11.5, bold=True), 10.0
_NAME = 300.0  # room for a label; a longer one loses its middle
_FASTER, _SLOWER = Look(fill="c7"), Look(fill="c5")
_GRID, _EVEN = Look(stroke="grid"), Look(stroke="ink")

Group = tuple[str, list[Comparison]]  # a heading and what stands under it


def check_plot(path: Path) -> None:
    """Raise ConfigError unless a picture can be made for ``path``; worth asking before minutes of measuring."""
    if path.suffix.lower() not in _ENDINGS:
        raise ConfigError(f"plot: got {path}; expected a name that ends in {' or '.join(_ENDINGS)}.")
    if path.suffix.lower() == ".png":
        load_renderer()


def plot_results(results: Sequence[Comparison], path: Path, title: str) -> None:
    """Write the picture of :func:`draw_results`.

    Args:
        results: in the order in which they are drawn.
        path: ends in .png or .svg.
        title: title of the picture.

    Raises:
        ConfigError: another ending, or nothing had a peer.
    """
    check_plot(path)
    draw_results(results, title).save(path)


def draw_results(results: Sequence[Comparison], title: str) -> Figure:
    """Return a bar for each comparison, by its group, over a logarithmic axis; what had no peer is left out.

    Raises:
        ConfigError: nothing had a peer.
    """
    ratios = _ratios(results)
    if not ratios:
        raise ConfigError("plot: there are no ratios to draw, because no peer took part; install one of them.")
    groups: dict[str, list[Comparison]] = {}
    for result in results:
        if result.ratio is not None:
            groups.setdefault(result.group, []).append(result)
    columns = _fill_columns(groups)
    low, high = min([0.8, *ratios]) * 0.75, max([2.0, *ratios]) * 1.35  # room for the numbers
    marks = tuple(2.0**power for power in range(-3, 6) if low <= 2.0**power <= high)
    axis = Axis(low, high, marks, "{:g}×".format, logarithmic=True)
    labels = [fit(r.label, _NAME, _LABEL.size) for r in results if r.ratio is not None]
    room = max(text_width(label, _LABEL.size) for label in labels) + 10
    step = room + _WIDE + 2 * EDGE
    width = len(columns) * step
    lines = wrap(title, width - 2 * EDGE)
    top = 14 + 17.0 * len(lines)
    rows = max(sum(len(group) + 1 for _, group in column) for column in columns)
    base = top + rows * _ROW + 6
    shapes: list[Shape] = [
        Words(EDGE, 22 + 17 * index, line, look=Look(fill="soft", size=12)) for index, line in enumerate(lines)
    ]
    for number, column in enumerate(columns):
        shapes += _draw_column(column, number * step + EDGE, room, (top + 6, base), axis)
    text = "; ".join(f"{name}: {statistics.geometric_mean(_ratios(group)):.2f}×" for name, group in groups.items())
    return Figure(title, f"Speed by the best peer's. {text}.", width, base + 44, tuple(shapes))


def _fill_columns(groups: dict[str, list[Comparison]]) -> list[list[Group]]:
    """Distribute groups over columns of about equal length, in order; one may go on in the next column."""
    total = sum(len(results) + 1 for results in groups.values())
    room = -(-total // -(-total // _COLUMN_ROWS)) + 1
    columns: list[list[Group]] = [[]]
    used = 0
    for name, results in groups.items():
        heading = f"{name}   {statistics.geometric_mean(_ratios(results)):.2f}×"
        rest = results
        while rest:
            if used + 2 > room and columns[-1]:  # a heading alone says nothing
                columns.append([])
                used = 0
            taken = rest[: max(1, room - used - 1)]
            columns[-1].append((heading, taken))
            heading = f"{name}, continued"
            used += len(taken) + 1
            rest = rest[len(taken) :]
    return columns


def _ratios(results: Sequence[Comparison]) -> list[float]:
    return [result.ratio for result in results if result.ratio is not None]


def _draw_column(
    column: Sequence[Group], left: float, room: float, span: tuple[float, float], axis: Axis
) -> Iterator[Shape]:
    """Yield one column: labels in ``room`` from ``left`` on, bars beside them, between the heights of ``span``."""
    begin, (top, base) = left + room, span

    def x(ratio: float) -> float:
        return begin + axis.share(ratio) * _WIDE

    for mark in axis.marks:
        yield Line(((x(mark), top), (x(mark), base)), look=_EVEN if mark == 1 else _GRID)
    y = top
    for heading, group in column:
        yield Words(left, y + 12, heading, look=_HEADING)
        for result, ratio in zip(group, _ratios(group), strict=True):
            y += _ROW
            faster = ratio >= 1
            yield Words(begin - 8, y + 11.5, fit(result.label, room - 10, _LABEL.size), look=_LABEL)
            bar = sorted((x(1), x(ratio)))
            look = _FASTER if faster else _SLOWER
            yield Box(bar[0], y + 2, bar[1] - bar[0], _BAR, look=look, data={"ratio": f"{ratio:.2f}"})
            number = Look(fill="soft", size=_NUMBER, align="start" if faster else "end")
            yield Words(x(ratio) + (4 if faster else -4), y + 11.5, f"{ratio:.2f}", look=number)
        y += _ROW
    yield Line(((begin, base), (begin + _WIDE, base)), look=Look(stroke="faint"))
    yield from mark_below(axis, begin, _WIDE, base)
    name = Look(fill="soft", size=11, align="middle")
    yield Words(begin + _WIDE / 2, base + 34, "speed by the best peer's", look=name)
