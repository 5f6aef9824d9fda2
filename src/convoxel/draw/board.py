"""Grids of numbers beside each other, some cells of which are marked from frame to frame.

Layers whose weights do not slide are drawn so: pooling, interpolation, un-pooling, shuffled channels, shifts. Each
picture says which cells of which grid belong together in a frame; where they lie is decided here. A cell without a
number (NaN) is padding. Three axes are drawn as slices beside each other.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convoxel.draw.caption import EDGE, heading, legend
from convoxel.draw.figure import Figure
from convoxel.draw.letter import text_width
from convoxel.draw.quantity import spelled
from convoxel.draw.scene import Box, Group, Look, Point, Shape, Words
from convoxel.errors import ConfigError
from convoxel.files.values import Array

Place = tuple[int, ...]
MOST_FRAMES, MOST_CELLS = 400, 1600
_GAP, _SLICE, _PART, _WIDEST = 4.0, 18.0, 48.0, 1080.0

CELL = Look(fill="c2", opacity=0.3)
PADDING = Look(stroke="faint", dash=(3, 3), opacity=0.55)
TAP = Look(fill="c1", opacity=0.45)
EMPTY = Look(stroke="c3", opacity=0.45)
DONE = Look(fill="c3", opacity=0.3)
NOW = Look(stroke="c3", weight=2.5)


@dataclass(frozen=True)
class Grid:
    """Numbers of one to three axes.

    Attributes:
        name: name above the grid.
        values: the numbers; NaN where there is no cell but padding.
        result: whether cells are empty until the first frame that marks them (default False).
        shown: whether the numbers are written (default True).
        first: position of the first cell, as it is told to readers (default: zeros).
    """

    name: str
    values: Array
    result: bool = False
    shown: bool = True
    first: Place = ()


@dataclass(frozen=True)
class Frame:
    """The marks of a frame, and its sentence.

    Attributes:
        says: sentence of the frame.
        marks: for each grid the cells, with a label for the corner of each ("" for none).
    """

    says: str
    marks: tuple[Mapping[Place, str], ...]


@dataclass
class Board:
    """Grids with their places.

    Attributes:
        title: title of the figure.
        lines: lines below the title.
        grids: the grids, in reading order.
        least_pitch: smallest distance of cells, for long numbers in grids of many cells (default 0).
    """

    title: str
    lines: Sequence[str]
    grids: Sequence[Grid]
    least_pitch: float = 0.0
    pitch: float = field(init=False)
    corners: list[Point] = field(init=False)

    def __post_init__(self) -> None:
        cells = sum(grid.values.size for grid in self.grids)
        if cells > MOST_CELLS:
            raise ConfigError(
                f"{cells} cells are too many to watch; up to {MOST_CELLS} are drawn. Give a smaller size."
            )
        self.head, self.width, top = heading(self.title, self.lines)
        widest = max(max(grid.values.shape[-2:]) for grid in self.grids)
        usual = 46.0 if widest <= 6 else 38.0 if widest <= 9 else 30.0 if widest <= 14 else 22.0
        self.pitch = max(usual, self.least_pitch)
        self._place(top + 26)

    def _place(self, top: float) -> None:
        """Set the corners: images beside each other while they fit, signals and volumes below each other."""
        sizes = [self.extent(grid) for grid in self.grids]
        names = [text_width(grid.name, 12, bold=True) for grid in self.grids]
        wide = [max(size[0], name) for size, name in zip(sizes, names, strict=True)]
        flat = all(grid.values.ndim == 2 for grid in self.grids)
        if flat and sum(wide) + _PART * (len(wide) - 1) <= _WIDEST:
            tall = max(height for _, height in sizes)
            x = EDGE
            self.corners = []
            for (_, height), across in zip(sizes, wide, strict=True):
                self.corners.append((x, top + (tall - height) / 2))
                x += across + _PART
            self.right, self.bottom = x - _PART, top + tall
            return
        y = top
        self.corners = []
        middle = max(width for width, _ in sizes)
        for grid, (width, height) in zip(self.grids, sizes, strict=True):
            self.corners.append((EDGE + (max(0.0, (middle - width) / 2) if grid.values.ndim == 1 else 0.0), y))
            y += height + 40
        self.right, self.bottom = EDGE + max(wide), y - 40

    def extent(self, grid: Grid) -> Point:
        """Return how wide and tall a grid is."""
        deep, tall, wide = (1,) * (3 - grid.values.ndim) + tuple(map(int, grid.values.shape))
        return deep * wide * self.pitch + (deep - 1) * _SLICE - _GAP, tall * self.pitch - _GAP

    @property
    def side(self) -> float:
        """Side of a cell."""
        return self.pitch - _GAP

    def spot(self, number: int, cell: Sequence[float]) -> Point:
        """Return the upper left corner of a cell of grid ``number``; fractions lie between cells."""
        deep, tall, across = (*(0.0,) * (3 - len(cell)), *cell)
        x, y = self.corners[number]
        slices = deep * (self.grids[number].values.shape[-1] * self.pitch + _SLICE)
        return x + slices + across * self.pitch, y + tall * self.pitch

    def figure(
        self,
        frames: Sequence[Frame],
        text: str,
        *,
        entries: Sequence[tuple[Look | Group, str]] = (),
        over: Sequence[Shape] = (),
        step_s: float = 0.9,
        rest: int | None = None,
    ) -> Figure:
        """Return the picture: one frame each.

        Args:
            frames: what is marked.
            text: description in words.
            entries: legend.
            over: shapes that are drawn over the grids.
            step_s: seconds of one frame.
            rest: frame at rest (default: the middle one).

        Raises:
            ConfigError: there are too many frames, or none; or ``step_s`` is not positive.
        """
        if not 1 <= len(frames) <= MOST_FRAMES:
            raise ConfigError(f"{len(frames)} steps cannot be drawn; 1 to {MOST_FRAMES} are. Give a smaller size.")
        if not step_s > 0:
            raise ConfigError(f"step_s: got {step_s:g}; expected seconds above 0.")
        shapes: list[Shape] = list(self.head)
        for number, grid in enumerate(self.grids):
            shapes += self._grid(number, grid, frames)
        shapes += over
        told, wide, end = legend(entries, self.bottom + 44, max(self.width, self.right, 460.0))
        for step, frame in enumerate(frames):
            when = (step,) if len(frames) > 1 else None
            counted = f"step {step + 1} of {len(frames)}:  " if len(frames) > 1 else ""
            shapes.append(Words(EDGE, self.bottom + 28, counted + frame.says, look=_SAYS, when=when))
        says = max(text_width(frame.says, 12) for frame in frames) + 110
        width = max(self.width, self.right + EDGE, wide, says)
        middle = len(frames) // 2 if rest is None else rest
        return Figure(self.title, text, width, end + EDGE - 8, (*shapes, *told), len(frames), step_s, middle)

    def _grid(self, number: int, grid: Grid, frames: Sequence[Frame]) -> Iterator[Shape]:
        x, y = self.corners[number]
        yield Words(x, y - 9, grid.name, look=_NAME)
        marked: dict[Place, list[int]] = defaultdict(list)
        labels: dict[tuple[Place, str], list[int]] = defaultdict(list)
        for step, frame in enumerate(frames):
            for cell, label in frame.marks[number].items():
                marked[cell].append(step)
                if label:
                    labels[cell, label].append(step)
        high, steps = bool(labels), len(frames)

        def during(when: Sequence[int]) -> tuple[int, ...] | None:
            return None if len(when) == steps else tuple(when)

        for cell in itertools.product(*map(range, grid.values.shape)):
            at, value = self.spot(number, cell), grid.values[cell]
            told = tuple(c + f for c, f in zip(cell, grid.first or (0,) * len(cell), strict=True))
            fact = {"grid": str(number), "cell": ",".join(map(str, told))}
            missing = value != value
            seen: tuple[int, ...] | None = None
            if grid.result:
                yield self._box(at, EMPTY, data=fact)
                if not marked[cell]:
                    continue
                seen = during(range(marked[cell][0], steps))
                yield self._box(at, DONE, when=seen)
            else:
                yield self._box(at, PADDING if missing else CELL, data=fact)
            if marked[cell]:
                yield self._box(
                    at, NOW if grid.result else TAP, when=during(marked[cell]), data={"marked": fact["cell"]}
                )
            if grid.shown and not missing:
                yield self._number(at, value, high, seen)
        for (cell, label), when in labels.items():
            px, py = self.spot(number, cell)
            size = min(max(8.0, 0.26 * self.pitch), 1.4 * self.side / max(len(label), 1))
            look = Look(fill="ink", size=size, bold=True, align="end")
            yield Words(px + self.side - 3, py + self.side - 3.5, label, look=look, when=during(when))

    def _box(self, at: Point, look: Look, **more: Any) -> Box:
        return Box(*at, self.side, self.side, 4, look=look, **more)

    def _number(self, at: Point, value: Any, high: bool, when: tuple[int, ...] | None) -> Words:
        text = spelled(value)
        size = min((0.36 if high else 0.42) * self.pitch, 1.45 * self.side / max(len(text), 1))
        x, y = at[0] + (0.44 if high else 0.5) * self.side, at[1] + (0.36 if high else 0.5) * self.side + 0.36 * size
        return Words(x, y, text, look=Look(fill="ink", size=size, align="middle"), when=when)


_SAYS = Look(fill="soft", size=12)
_NAME = Look(fill="ink", size=12, bold=True)


def joined(place: Sequence[int]) -> str:
    """Return a position as pictures write it: 3 or (1, 2)."""
    return str(place[0]) if len(place) == 1 else f"({', '.join(map(str, place))})"


def small_numbers(shape: Sequence[int]) -> Array:
    """Return small whole numbers of a shape, without symmetry, for pictures that got none.

    >>> small_numbers((4,)).tolist()
    [0, 1, 2, 0]
    """
    return ((np.arange(math.prod(shape)) * 5) % 11 % 4).reshape(tuple(shape))
