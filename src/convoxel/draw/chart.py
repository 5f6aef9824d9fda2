"""The axes of every chart: where numbers stand on the page, with marks, labels and grid lines.

An ``Axis`` is a range of numbers; a ``Plot`` is an area of the page with an axis along each side. What stands in the
area is up to the caller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from convoxel.draw.letter import text_width
from convoxel.draw.scene import Line, Look, Point, Shape, Words

_GRID, _BASE = Look(stroke="grid"), Look(stroke="faint")
_NAME = Look(fill="soft", size=12, align="middle")
_MARK = 11.0  # size of labels


def ticks(low: float, high: float, wanted: int) -> tuple[float, ...]:
    """Return round values from at most ``low`` to at least ``high``, about ``wanted`` of them.

    >>> ticks(0, 9.3, 5)
    (0.0, 2.0, 4.0, 6.0, 8.0, 10.0)
    """
    span = (high - low) or 1.0
    power = 10.0 ** math.floor(math.log10(span / wanted))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if span / (m * power) <= wanted)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(round(i * step, 12) for i in range(first, last + 1))


def power_ticks(low: float, high: float, most: int = 7) -> tuple[float, ...]:
    """Return 1, 2 and 5 times powers of ten between two positive numbers; powers alone where those are too many.

    >>> power_ticks(30, 700)
    (50.0, 100.0, 200.0, 500.0)
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    found = [tick for tick in found if low * 0.9999 <= tick <= high * 1.0001]
    return tuple(found if len(found) <= most else [tick for tick in found if f"{tick:e}"[0] == "1"])


@dataclass(frozen=True)
class Axis:
    """A range of numbers, and the numbers that are marked.

    Attributes:
        low: number at the axis's start.
        high: number at its end.
        marks: the numbers that get a label.
        label: the text of a mark (default: the number).
        logarithmic: equal ratios take equal room (default: equal differences do).

    >>> Axis(1, 100, (1, 10, 100), logarithmic=True).share(10)
    0.5
    """

    low: float
    high: float
    marks: tuple[float, ...]
    label: Callable[[float], str] = "{:g}".format
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Return the place of ``value`` on the axis: 0 at its start, 1 at its end."""
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / ((self.high - self.low) or 1.0)


def round_axis(low: float, high: float, wanted: int, label: Callable[[float], str] = "{:g}".format) -> Axis:
    """Return an axis that begins and ends at round numbers.

    >>> round_axis(0.3, 9.3, 5).high
    10.0
    """
    marks = ticks(low, high, wanted)
    return Axis(marks[0], marks[-1], marks, label)


@dataclass(frozen=True)
class Plot:
    """An area of the page, ``x`` to the right and ``y`` upwards."""

    left: float
    top: float
    width: float
    height: float
    x: Axis
    y: Axis

    @staticmethod
    def room(y: Axis) -> float:
        """Return the room that the labels of the vertical axis take at the left of the area."""
        return max(text_width(y.label(mark), _MARK) for mark in y.marks) + 10

    @property
    def base(self) -> float:
        """Height on the page at which the area ends."""
        return self.top + self.height

    def at(self, x: float, y: float) -> Point:
        """Return the place of a point on the page."""
        return self.left + self.x.share(x) * self.width, self.base - self.y.share(y) * self.height

    def axes(self, x_name: str) -> list[Shape]:
        """Return grid lines with labels, the base line, and the marks and the name of the horizontal axis."""
        shapes: list[Shape] = []
        for mark in self.y.marks:
            (left, height), right = self.at(self.x.low, mark), self.left + self.width
            shapes.append(Line(((left, height), (right, height)), look=_GRID))
            label = Look(fill="soft", size=_MARK, align="end")
            shapes.append(Words(left - 8, height + 4, self.y.label(mark), look=label))
        shapes.append(Line(((self.left, self.base), (self.left + self.width, self.base)), look=_BASE))
        shapes += mark_below(self.x, self.left, self.width, self.base)
        return [*shapes, Words(self.left + self.width / 2, self.base + 37, x_name, look=_NAME)]


def mark_below(axis: Axis, left: float, width: float, base: float) -> Sequence[Shape]:
    """Return the labels of a horizontal axis of ``width`` below the height ``base``."""
    look = Look(fill="soft", size=_MARK, align="middle")
    return [Words(left + axis.share(mark) * width, base + 17, axis.label(mark), look=look) for mark in axis.marks]
