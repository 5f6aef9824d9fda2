"""Quality against cost: labelled points, and the front of those that no other one beats in both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from convoxel.draw.bars import capped
from convoxel.draw.caption import EDGE, heading, legend
from convoxel.draw.chart import Axis, Plot, power_ticks, round_axis
from convoxel.draw.figure import Figure
from convoxel.draw.letter import fit, text_width
from convoxel.draw.quantity import count
from convoxel.draw.scene import Disc, Line, Look, Shape, Words, meet
from convoxel.errors import ConfigError

SCATTER, _TALL = 560.0, 300.0  # width and height of the plot's area
_NAME = 220.0
_ON, _OFF = Look(fill="c5", stroke="card", weight=1.5), Look(fill="c2", stroke="card", weight=1.5)
_ON_RANGE, _OFF_RANGE = Look(stroke="c5", weight=2, opacity=0.55), Look(stroke="c2", weight=2, opacity=0.55)
_FRONT = Look(stroke="c5", weight=1.5, opacity=0.7)
_LABEL = 11.5
_SAID = Look(fill="ink", stroke="card", weight=3, size=_LABEL)


@dataclass(frozen=True)
class Entry:
    """A point: its name, its cost and its quality.

    Attributes:
        name: its name.
        x: its cost.
        y: its quality.
        quiet: the name shows only when the point is pointed at (default False).
        interval: range of the quality, drawn as a line through the point (default None).
    """

    name: str
    x: float
    y: float
    quiet: bool = False
    interval: tuple[float, float] | None = None


def front(entries: Sequence[Entry], *, low_x: bool = True, high_y: bool = True) -> list[Entry]:
    """Return the entries that no other one beats in both, by rising x.

    Args:
        entries: the points.
        low_x: a small x is good (default True).
        high_y: a large y is good (default True).

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
    """Return a plot of quality over cost, with a line through the front of the best.

    Args:
        entries: the points.
        x: name of the horizontal axis.
        y: name of the vertical axis.
        title: title of the plot (default: "y over x").
        low_x: a small x is good (default True).
        high_y: a large y is good (default True).
        logarithmic: a logarithmic horizontal axis (default: where costs differ by more than a factor of eight).

    Raises:
        ConfigError: there is no entry, a number is not finite, or a logarithmic axis has numbers up to 0.

    >>> pareto([Entry("a", 1e6, 0.8), Entry("b", 9e6, 0.9)], x="parameters", y="accuracy").title
    'accuracy over parameters'
    """
    if not entries or not all(math.isfinite(e.x) and math.isfinite(e.y) for e in entries):
        raise ConfigError("pareto: entries need at least one point, and finite numbers. Leave out what has no figure.")
    title = title or f"{y} over {x}"
    best = front(entries, low_x=low_x, high_y=high_y)
    says = f"The line joins the {len(best)} of {len(entries)} that no other one beats in both."
    shapes, width, top = heading(title[0].upper() + title[1:], [says])
    parts, left, bottom = scatter(
        entries, x=x, y=y, corner=(EDGE, top + 12), low_x=low_x, high_y=high_y, logarithmic=logarithmic
    )
    right = left + SCATTER + EDGE + 24
    swatches = [(_ON, "best of its cost"), *([(_OFF, "beaten")] if len(best) < len(entries) else [])]
    told, least, end = legend(swatches, bottom + 12, max(width, right))
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
    across = _cost_axis([entry.x for entry in entries], x, logarithmic)
    up = _grade_axis([value for entry in entries for value in (entry.y, *(entry.interval or ()))])
    plot = Plot(corner[0] + Plot.room(up), corner[1] + 20, SCATTER, _TALL, across, up)
    shapes: list[Shape] = [Words(corner[0], corner[1] + 4, y, look=Look(fill="soft", size=12)), *plot.axes(x)]
    best = front(entries, low_x=low_x, high_y=high_y)
    if len(best) > 1:
        shapes.append(Line(tuple(plot.at(entry.x, entry.y) for entry in best), look=_FRONT))
    spots = [plot.at(entry.x, entry.y) for entry in entries]
    for entry, (cx, cy) in zip(entries, spots, strict=True):
        if entry.interval is not None:
            low, high = (plot.at(entry.x, end) for end in entry.interval)
            shapes.append(
                Line(
                    capped(low, high, 8), look=_ON_RANGE if entry in best else _OFF_RANGE, data={"interval": entry.name}
                )
            )
        note = f"{entry.name}: {x} {entry.x:.4g}, {y} {entry.y:.4g}"
        shapes.append(Disc(cx, cy, 5.5, look=_ON if entry in best else _OFF, note=note, data={"entry": entry.name}))
    limits = (plot.left - 40, plot.left + SCATTER + 24)
    shapes += _names(["" if entry.quiet else entry.name for entry in entries], spots, limits)
    return shapes, plot.left, plot.base + 44


def _cost_axis(costs: Sequence[float], name: str, logarithmic: bool | None) -> Axis:
    """Return the horizontal axis, by default logarithmic where costs differ by more than a factor of eight."""
    label = count if max(costs) >= 1000 else "{:g}".format
    if logarithmic is None:
        logarithmic = min(costs) > 0 and max(costs) > 8 * min(costs)
    if not logarithmic:
        return round_axis(min(0.0, *costs), max(costs) * 1.05 or 1.0, 6, label)
    if min(costs) <= 0:
        raise ConfigError(
            f"pareto: {name} of {min(costs):g} has no place on a logarithmic axis. Give logarithmic=False."
        )
    low, high = min(costs) / 1.5, max(costs) * 1.5
    return Axis(low, high, power_ticks(low, high), label, logarithmic=True)


def _grade_axis(grades: Sequence[float]) -> Axis:
    """Return the vertical axis, which includes 0, and of shares 1: a part of it would show noise as a difference."""
    label = count if max(grades) >= 1000 else "{:g}".format
    low, high = min(0.0, *grades), max(0.0, *grades)
    if low == 0.0 and high <= 1.0:
        return round_axis(0.0, 1.0, 5, label)
    room = 0.08 * (high - low)
    return round_axis(low - room if low < 0 else 0.0, high + room if high > 0 else 0.0, 5, label)


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
        free = (box for box in boxes if not any(meet(box, other) for other in taken))
        box = next(free, boxes[0])
        taken.append(box)
        shapes.append(Words(box[0], box[3] - 4, text, look=_SAID))
    return shapes
