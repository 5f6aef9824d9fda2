"""A picture of comparisons: one bar each, from "as fast as the best peer" outwards, in groups."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convoxel.bench.comparison import Comparison
from convoxel.draw.palette import CLASS_COLOURS, hexadecimal
from convoxel.errors import ConfigError

__all__ = ["check_plot", "plot_results"]

_FASTER, _SLOWER = hexadecimal(CLASS_COLOURS[6]), hexadecimal(CLASS_COLOURS[4])
_ENDINGS = (".png", ".svg")
_COLUMN_ROWS = 64  # rows of one column of the page; longer lists take more columns
_ROW_INCH, _COLUMN_INCH = 0.17, 5.6
_LABEL_PT = 7
_LETTERS_PER_INCH = 14  # of the title

Group = tuple[str, list[Comparison]]  # a heading and what stands under it


def check_plot(path: Path) -> None:
    """Raise ConfigError unless a picture can be made for ``path``; worth asking before minutes of measuring."""
    if path.suffix.lower() not in _ENDINGS:
        raise ConfigError(f"plot: got {path}; expected a name that ends in {' or '.join(_ENDINGS)}.")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise ConfigError("plot: needs matplotlib, which is not installed; pip install 'convoxel[bench]'.") from None


def plot_results(results: Sequence[Comparison], path: Path, title: str) -> None:
    """Write the picture; what had no peer is left out.

    Args:
        results: in the order in which they are drawn.
        path: ends in .png or .svg.
        title: what was compared where.

    Raises:
        ConfigError: another ending, matplotlib is not installed, or nothing had a peer.
    """
    check_plot(path)
    if not _ratios(results):
        raise ConfigError("plot: there are no ratios to draw, because no peer took part; install one of them.")
    from matplotlib.figure import Figure

    groups: dict[str, list[Comparison]] = {}
    for result in results:
        if result.ratio is not None:
            groups.setdefault(result.group, []).append(result)
    columns = _fill_columns(groups)
    rows = max(sum(len(group) + 1 for _, group in column) for column in columns)
    width = _COLUMN_INCH * len(columns)
    lines = textwrap.wrap(title, int(_LETTERS_PER_INCH * width))
    head = 0.15 + 0.17 * len(lines)  # inches above the bars
    height = head + 0.6 + _ROW_INCH * rows
    figure = Figure(figsize=(width, height))
    axes = figure.subplots(1, len(columns), squeeze=False)[0]
    ratios = _ratios(results)
    limits = min([0.8, *ratios]) * 0.75, max([2.0, *ratios]) * 1.35  # room for the numbers
    for axis, column in zip(axes, columns, strict=False):
        _draw_column(axis, column, rows, limits)
    figure.text(0.1 / width, 1 - 0.1 / height, "\n".join(lines), ha="left", va="top", fontsize=9)
    figure.tight_layout(rect=(0, 0, 1, 1 - head / height))
    figure.savefig(path, dpi=130, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)


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


def _draw_column(axis: Any, column: Sequence[Group], rows: int, limits: tuple[float, float]) -> None:
    row, places, labels = 0, [], []
    for heading, group in column:
        axis.text(-0.01, row, heading, transform=axis.get_yaxis_transform(), ha="right", va="center", fontsize=8,
                  fontweight="bold")  # fmt: skip
        row += 1
        for result, ratio in zip(group, _ratios(group), strict=True):
            colour = _FASTER if ratio >= 1 else _SLOWER
            axis.barh(row, ratio - 1, left=1.0, height=0.74, color=colour, hatch="" if ratio >= 1 else "////",
                      edgecolor="white", linewidth=0)  # fmt: skip
            side, shift = ("left", 1.02) if ratio >= 1 else ("right", 1 / 1.02)
            axis.text(ratio * shift, row, f"{ratio:.2f}", va="center", ha=side, fontsize=_LABEL_PT - 1)
            places.append(row)
            labels.append(result.label)
            row += 1
    axis.set_yticks(places, labels, fontsize=_LABEL_PT)
    axis.set_ylim(rows - 0.4, -0.6)
    axis.set_xscale("log", base=2)
    axis.set_xlim(*limits)
    ticks = [2.0**power for power in range(-3, 6) if limits[0] <= 2.0**power <= limits[1]]
    axis.set_xticks(ticks, [f"{tick:g}×" for tick in ticks], fontsize=_LABEL_PT)
    axis.minorticks_off()
    axis.axvline(1.0, color="black", linewidth=0.8)
    axis.grid(axis="x", color="0.9", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(axis="y", length=0)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.set_xlabel("speed by the best peer's", fontsize=_LABEL_PT + 1)
