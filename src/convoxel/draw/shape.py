"""The shapes of pictures: boxes, discs, lines, words, bitmaps, and groups that move from frame to frame.

Shapes are data. They name roles instead of colours (``theme``), and ``svg`` writes them. Coordinates are in pixels, y
downwards.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from PIL import Image

__all__ = [
    "Bitmap",
    "Box",
    "Disc",
    "Group",
    "Line",
    "Look",
    "Point",
    "Scene",
    "Shape",
    "Squares",
    "Words",
    "arrow",
    "bend",
]

Point = tuple[float, float]


@dataclass(frozen=True)
class Look:
    """The appearance of a shape.

    Attributes:
        fill: role of the inside, or of letters; empty: none.
        stroke: role of the outline; empty: none.
        weight: width of the outline.
        opacity: of all of it.
        dash: lengths of dashes and gaps.
        size: of letters.
        bold: of letters.
        align: "start", "middle" or "end" of a text lies at its x.
    """

    fill: str = ""
    stroke: str = ""
    weight: float = 1.0
    opacity: float = 1.0
    dash: tuple[float, ...] = ()
    size: float = 0.0
    bold: bool = False
    align: str = "start"


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """The base of all shapes: a look, a tooltip, facts for readers of the file, and frames.

    ``when`` are the frames in which the shape is seen; None: in all.
    """

    look: Look = Look()
    note: str = ""
    data: Mapping[str, str] = field(default_factory=dict)
    when: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Box(_Drawn):
    """A rectangle with round corners."""

    x: float
    y: float
    width: float
    height: float
    radius: float = 0.0


@dataclass(frozen=True)
class Squares(_Drawn):
    """Many squares of one look: their upper left corners and their side."""

    corners: tuple[Point, ...]
    side: float


@dataclass(frozen=True)
class Disc(_Drawn):
    """A filled circle."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Line(_Drawn):
    """A line through points, or with ``closed`` the area that it bounds."""

    points: tuple[Point, ...]
    closed: bool = False


@dataclass(frozen=True)
class Words(_Drawn):
    """One line of text; y is where the letters stand."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Bitmap(_Drawn):
    """A picture made of pixels; ``smooth`` says whether they may run into each other when enlarged."""

    x: float
    y: float
    width: float
    height: float
    image: Image.Image
    smooth: bool = False


@dataclass(frozen=True)
class Group(_Drawn):
    """Shapes that are moved together: by ``moves`` of the frame, or by its one entry in all frames."""

    shapes: tuple[Shape, ...]
    moves: tuple[Point, ...] = ((0.0, 0.0),)

    def at(self, frame: int) -> Group:
        """Return the group as it stands in a frame."""
        move = self.moves[frame] if len(self.moves) > 1 else self.moves[0]
        kept = tuple(shape.at(frame) if isinstance(shape, Group) else shape for shape in seen(self.shapes, frame))
        return dataclasses.replace(self, shapes=kept, moves=(move,), when=None)


Shape: TypeAlias = Box | Squares | Disc | Line | Words | Bitmap | Group


@dataclass(frozen=True)
class Scene:
    """Shapes on a page of ``width`` × ``height`` pixels.

    Attributes:
        title: its name, read out by screen readers.
        text: what it shows, in words.
        width: of the page.
        height: of the page.
        shapes: from the back to the front.
        frames: number of frames (default 1, a still).
        frame_s: seconds of one frame (default 0.9).
        rest: the frame that is shown where nothing moves (default 0).
    """

    title: str
    text: str
    width: float
    height: float
    shapes: tuple[Shape, ...]
    frames: int = 1
    frame_s: float = 0.9
    rest: int = 0


def seen(shapes: Iterable[Shape], frame: int) -> list[Shape]:
    """Return the shapes that a frame shows, none of them bound to frames any more."""
    return [
        shape if shape.when is None else dataclasses.replace(shape, when=None)
        for shape in shapes
        if shape.when is None or frame in shape.when
    ]


def bend(start: Point, end: Point, *, upright: bool = True, pieces: int = 16) -> tuple[Point, ...]:
    """Return points of a smooth line that leaves ``start`` and reaches ``end`` upright, or level.

    >>> bend((0, 0), (0, 10))
    ((0, 0), (0, 10))
    """
    (x0, y0), (x1, y1) = start, end
    if (x0 == x1) if upright else (y0 == y1):
        return (start, end)
    half = (y1 - y0) / 2 if upright else (x1 - x0) / 2
    a, b = ((x0, y0 + half), (x1, y1 - half)) if upright else ((x0 + half, y0), (x1 - half, y1))
    shares = [index / pieces for index in range(pieces + 1)]
    return tuple(
        (
            (1 - t) ** 3 * x0 + 3 * (1 - t) ** 2 * t * a[0] + 3 * (1 - t) * t**2 * b[0] + t**3 * x1,
            (1 - t) ** 3 * y0 + 3 * (1 - t) ** 2 * t * a[1] + 3 * (1 - t) * t**2 * b[1] + t**3 * y1,
        )
        for t in shares
    )


def arrow(points: Sequence[Point], look: Look, *, head: float = 7.0, note: str = "") -> list[Shape]:
    """Return a line through ``points`` with a head at its end."""
    (x0, y0), (x1, y1) = points[-2], points[-1]
    length = math.hypot(x1 - x0, y1 - y0) or 1.0
    ux, uy = (x1 - x0) / length, (y1 - y0) / length
    neck = (x1 - ux * head, y1 - uy * head)
    side = head * 0.45
    tip = ((x1, y1), (neck[0] - uy * side, neck[1] + ux * side), (neck[0] + uy * side, neck[1] - ux * side))
    solid = Look(fill=look.stroke, opacity=look.opacity)
    return [Line((*points[:-1], neck), look=look, note=note), Line(tip, closed=True, look=solid)]
