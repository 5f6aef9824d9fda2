"""Columns of bars from zero, and small maps of values, for figures that compare things row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convoxel.draw.chart import Axis, mark_below
from convoxel.draw.letter import text_width
from convoxel.draw.scene import Box, Disc, Line, Look, Point, Shape, Squares, Words
from convoxel.files.values import Array

HEAD = Look(fill="ink", size=12, bold=True)
_BAR, _GAP, _VALUE = 92.0, 30.0, 45.0
_SHADES = 12
_TRACK, _FILL, _SOFT = Look(fill="grid"), Look(fill="c7"), Look(fill="soft", size=12)
_DOT, _RANGE = Look(fill="c5"), Look(stroke="c5", weight=2, opacity=0.55)


class Measure(NamedTuple):
    """A column: which figure of a row, and how it is written and drawn.

    Attributes:
        title: heading of the column.
        value: the figure of a row; None where it is not known.
        text: the figure as it is written.
        share: the figure is a share of 1, drawn as a part of a full bar (default False).
        grade: the figure is a share that is best near 1, drawn as a dot on an axis from 0 to 1 (default False).
        interval: the interval of a grade, drawn as a line through its dot (default: none).
    """

    title: str
    value: Callable[[Any], float | None]
    text: Callable[[float], str]
    share: bool = False
    grade: bool = False
    interval: Callable[[Any], tuple[float, float] | None] = lambda row: None


def draw_bars(
    rows: Sequence[Any], measures: Sequence[Measure], corner: tuple[float, float], middles: Sequence[float]
) -> tuple[list[Shape], float]:
    """Return a column of bars for each measure that some row has, and where the last column ends.

    Args:
        rows: what the measures read.
        measures: the columns.
        corner: left end of the first column, and where headings stand.
        middles: height of each row's middle.
    """
    shapes: list[Shape] = []
    left, top = corner
    for measure in measures:
        values = [measure.value(row) for row in rows]
        known = [value for value in values if value is not None]
        if not known:
            continue
        shapes.append(Words(left, top, measure.title, look=HEAD))
        if measure.grade:
            shapes += _dots(measure, rows, (left, top + 10), middles)
        else:
            most = 1.0 if measure.share else max(known) or 1.0
            for value, middle in zip(values, middles, strict=True):
                shapes += _bar(measure, value, most, left, middle)
        written = max(text_width(measure.text(value), 12) for value in known)
        left += max(_BAR + 11 + max(_VALUE, written), text_width(measure.title, 12, bold=True)) + _GAP
    return shapes, left - _GAP


def _bar(measure: Measure, value: float | None, most: float, left: float, middle: float) -> Iterator[Shape]:
    if value is None:
        yield Words(left, middle + 4, "–", look=_SOFT)
        return
    if measure.share:
        yield Box(left, middle - 6, _BAR, 12, 1.5, look=_TRACK)
    wide = _BAR * value / most
    if wide > 0.02:  # less than that is a rounding error
        yield Box(left, middle - 6, max(wide, 1.5), 12, 1.5, look=_FILL, data={"bar": measure.title})
    yield Words(left + (_BAR if measure.share else wide) + 7, middle + 4, measure.text(value), look=_SOFT)


def _dots(
    measure: Measure, rows: Sequence[Any], corner: tuple[float, float], middles: Sequence[float]
) -> Iterator[Shape]:
    # From 0: an axis that began at the least of them would make noise look like a difference.
    axis, (left, top) = Axis(0.0, 1.0, (0.0, 1.0)), corner
    bottom = middles[-1] + middles[0] - top
    for share in (0, 0.5, 1):
        yield Box(left + share * _BAR - 0.5, top, 1, bottom - top, look=_TRACK)
    yield from mark_below(axis, left, _BAR, bottom)
    for row, middle in zip(rows, middles, strict=True):
        value, interval = measure.value(row), measure.interval(row)
        if interval is not None:
            low, high = (left + axis.share(end) * _BAR for end in interval)
            yield Line(capped((low, middle), (high, middle), 7), look=_RANGE, data={"interval": measure.title})
        if value is not None:
            yield Disc(left + axis.share(value) * _BAR, middle, 4, look=_DOT)
        text = "–" if value is None else measure.text(value)
        yield Words(left + (0 if value is None else _BAR + 11), middle + 4, text, look=_SOFT)


def capped(start: Point, end: Point, half: float) -> tuple[Point, ...]:
    """Return a level or upright line from start to end with a bar of twice ``half`` across either end.

    The bars show an interval that is narrower than the dot on it.
    """
    across = (0.0, half) if start[1] == end[1] else (half, 0.0)
    arms = [((x - across[0], y - across[1]), (x + across[0], y + across[1])) for x, y in (start, end)]
    return (*arms[0], start, end, *arms[1])


def draw_map(
    tone: Array, corner: tuple[float, float], side: float, *, hidden: NDArray[np.bool_] | None = None
) -> Iterator[Shape]:
    """Yield a matrix of values between 0 and 1 as squares of ``side``, those of one shade as one shape.

    ``hidden`` cells are left out.
    """
    shades = np.rint(np.clip(tone, 0.0, 1.0) * _SHADES).astype(int)
    if hidden is not None:
        shades[hidden] = -1
    for shade in np.unique(shades[shades >= 0]).tolist():
        places = np.argwhere(shades == shade).tolist()
        corners = tuple((corner[0] + x * side, corner[1] + y * side) for y, x in places)
        # Squares overlap by a little, so that the page does not show between them.
        yield Squares(corners, side + 0.3, look=Look(fill=f"ramp:{shade / _SHADES:.3g}"), data={"shade": str(shade)})
