"""Quality against cost: labelled points, and the front of those that no other one beats in both."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from convoxel.draw.caption import EDGE, heading, legend
from convoxel.draw.figure import Figure
from convoxel.draw.letter import fit, text_width
from convoxel.draw.quantity import count
from convoxel.draw.shape import Disc, Line, Look, Shape, Words
from convoxel.draw.tick import power_ticks, ticks
from convoxel.errors import ConfigError

__all__ = ["SCATTER", "Entry", "front", "pareto", "scatter"]

SCATTER, _TALL = 560.0, 300.0  # width and height of the plot's area
_NAME = 220.0
_ON, _OFF = Look(fill="c5", stroke="card", weight=1.5), Look(fill="c2", stroke="card", weight=1.5)
_FRONT = Look(stroke="c5", weight=1.5, opacity=0.7)
_GRID = Look(stroke="grid")
_LABEL = 11.5


@dataclass(frozen=True)
class Entry:
    """A point: what it is called, what it costs, how good it is; a quiet one says its name only when pointed at."""

    name: str
    x: float
    y: float
    quiet: bool = False


def front(entries: Sequence[Entry], *, low_x: bool = True, high_y: bool = True) -> list[Entry]:
    """Return the entries that no other one beats in both, by rising x.

    Args:
        entries: the points.
        low_x: a small x is good.
        high_y: a large y is good.

    >>> [e.name for e in front([Entry("a", 1, 1), Entry("b", 2, 3), Entry("c", 3, 2)])]
    ['a', 'b']
    """
    sx, sy = (1 if low_x else -1), (-1 if high_y else 1)
    best, kept = math.inf, []
    for entry in sorted(entries, key=lambda e: (sx * e.x, sy * e.y)):
        if sy * entry.y < best:
            best = sy * entry.y
            kept.append(entry)
    return sorted(kept, key=lambda e: e.x)


def pareto(
    entries: Sequence[Entry],
    *,
    x: str,
    y: str,
    title: str = "",
    low_x: bool = True,
    high_y: bool = True,
    logarithmic: bool | None = None,
) -> Figure:
    """Return a plot of quality over cost, in which the front of the best is joined.

    Args:
        entries: the points.
        x: what the horizontal axis shows.
        y: what the vertical axis shows.
        title: of the plot; "y over x" unless told.
        low_x: a small x is good.
        high_y: a large y is good.
        logarithmic: of the horizontal axis; where costs differ by more than a factor of eight unless told.

    Raises:
        ConfigError: there is no entry, a number is not finite, or a logarithmic axis has numbers up to 0.

    >>> pareto([Entry("a", 1e6, 0.8), Entry("b", 9e6, 0.9)], x="parameters", y="accuracy").title
    'accuracy over parameters'
    """
    if not entries or not all(math.isfinite(e.x) and math.isfinite(e.y) for e in entries):
        raise ConfigError("pareto: entries need at least one point, and finite numbers. Leave out what has no figure.")
    title = title or f"{y} over {x}"
    best = front(entries, low_x=low_x, high_y=high_y)
    says = f"Joined: the {len(best)} of {len(entries)} that no other one beats in both."
    shapes, width, top = heading(title[0].upper() + title[1:], [says])
    parts, left, bottom = scatter(
        entries, x=x, y=y, corner=(EDGE, top + 12), low_x=low_x, high_y=high_y, logarithmic=logarithmic
    )
    right = left + SCATTER + EDGE + 24
    told, least, end = legend([(_ON, "best of its cost"), (_OFF, "beaten")], bottom + 12, max(width, right))
    text = f"{says} " + "; ".join(f"{e.name}: {x} {e.x:.4g}, {y} {e.y:.4g}" for e in entries)
    return Figure(title, text, max(width, right, least), end + EDGE - 8, (*shapes, *parts, *told))


def scatter(
    entries: Sequence[Entry],
    *,
    x: str,
    y: str,
    corner: tuple[float, float],
    low_x: bool = True,
    high_y: bool = True,
    logarithmic: bool | None = None,
) -> tuple[list[Shape], float, float]:
    """Return the points with axes, where the plot's area begins, and where everything ends."""
    costs = [e.x for e in entries]
    wide = logarithmic if logarithmic is not None else min(costs) > 0 and max(costs) > 8 * min(costs)
    if wide and min(costs) <= 0:
        raise ConfigError(f"pareto: {x} of {min(costs):g} has no place on a logarithmic axis. Give logarithmic=False.")
    scale: Callable[[float], float] = math.log if wide else float
    if wide:
        low, high = min(costs) / 1.5, max(costs) * 1.5
        marks = power_ticks(low, high)
    else:
        marks = ticks(min(0.0, *costs), max(costs) * 1.05 or 1.0, 6)
        low, high = marks[0], marks[-1]
    grades = [e.y for e in entries]
    room = (max(grades) - min(grades)) * 0.08 or abs(grades[0]) * 0.05 or 1.0
    lowest = min(grades) - room
    # No room below zero for what is never negative.
    levels = ticks(max(lowest, 0.0) if min(grades) >= 0 else lowest, max(grades) + room, 5)
    labels = [count(level) if max(grades) >= 1000 else f"{level:g}" for level in levels]
    left = corner[0] + max(text_width(label, 11) for label in labels) + 10
    top = corner[1] + 20
    base = top + _TALL

    def place(entry: Entry) -> tuple[float, float]:
        share = (scale(entry.x) - scale(low)) / (scale(high) - scale(low))
        return left + share * SCATTER, base - (entry.y - levels[0]) / (levels[-1] - levels[0]) * _TALL

    shapes: list[Shape] = [Words(corner[0], corner[1] + 4, y, look=Look(fill="soft", size=12))]
    for level, label in zip(levels, labels, strict=True):
        height = place(Entry("", low, level))[1]
        shapes.append(Line(((left, height), (left + SCATTER, height)), look=_GRID))
        shapes.append(Words(left - 8, height + 4, label, look=Look(fill="soft", size=11, align="end")))
    for mark in marks:
        at = place(Entry("", mark, levels[0]))[0]
        said = count(mark) if max(costs) >= 1000 else f"{mark:g}"
        shapes.append(Words(at, base + 17, said, look=Look(fill="soft", size=11, align="middle")))
    shapes.append(Words(left + SCATTER / 2, base + 38, x, look=Look(fill="soft", size=12, align="middle")))
    best = front(entries, low_x=low_x, high_y=high_y)
    if len(best) > 1:
        shapes.append(Line(tuple(place(entry) for entry in best), look=_FRONT))
    spots = [place(entry) for entry in entries]
    for entry, (cx, cy) in zip(entries, spots, strict=True):
        note = f"{entry.name}: {x} {entry.x:.4g}, {y} {entry.y:.4g}"
        shapes.append(Disc(cx, cy, 5.5, look=_ON if entry in best else _OFF, note=note, data={"entry": entry.name}))
    shapes += _names(["" if entry.quiet else entry.name for entry in entries], spots, (left - 40, left + SCATTER + 24))
    return shapes, left, base + 44


def _names(names: Sequence[str], spots: Sequence[tuple[float, float]], limits: tuple[float, float]) -> list[Shape]:
    """Return the points' names, each beside its point where nothing is written yet."""
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in spots]
    shapes: list[Shape] = []
    for name, (x, y) in zip(names, spots, strict=True):
        if not name:
            continue
        text = fit(name, _NAME, _LABEL)
        wide = text_width(text, _LABEL)
        at = min(max(x - wide / 2, limits[0]), limits[1] - wide)
        # Above the point, below it, to either side, else further away.
        tries = [(at, y - 11), (at, y + 19), (x + 10, y + 4), (x - 10 - wide, y + 4)]
        tries += [(at, y + shift) for shift in (-26, 34, -41, 49, -56, 64)]
        boxes = [(a, b - 11, a + wide, b + 4) for a, b in tries if limits[0] <= a and a + wide <= limits[1]]
        free = (box for box in boxes if not any(_meet(box, other) for other in taken))
        box = next(free, boxes[0])
        taken.append(box)
        shapes.append(Words(box[0], box[3] - 4, text, look=Look(fill="ink", size=_LABEL)))
    return shapes


def _meet(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether two boxes (left, top, right, bottom) share a point."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
