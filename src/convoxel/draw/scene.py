"""The parts of pictures: boxes, discs, lines, words, bitmaps, and groups that move from frame to frame.

Shapes are data. They name roles instead of colours (``theme``), and ``svg`` writes them. Coordinates are in pixels, y
downwards.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from PIL import Image

Point = tuple[float, float]
Bounds: TypeAlias = tuple[float, float, float, float]  # left, top, right and bottom


@dataclass(frozen=True)
class Look:
    """The look of a shape.

    Attributes:
        fill: role of the inside, or of letters (default: not filled).
        stroke: role of the outline, or of a rim behind letters (default: no outline).
        weight: width of the outline (default 1).
        opacity: opacity of the whole shape (default 1).
        dash: lengths of dashes and gaps (default: a solid line).
        size: size of letters.
        bold: bold letters (default False).
        align: which part of a text lies at its x: "start", "middle" or "end" (default "start").
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
    """The fields of all shapes: a look, a note when pointed at, facts for programs that read the file, and frames.

    The shape is seen in the frames ``when`` (default None: in all of them).
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
    """A picture made of pixels, enlarged with smoothing if ``smooth`` (default False)."""

    x: float
    y: float
    width: float
    height: float
    image: Image.Image
    smooth: bool = False


@dataclass(frozen=True)
class Group(_Drawn):
    """Shapes that move together: by the entry of ``moves`` for the frame, or by its only entry in all frames."""

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
    """The data of a figure, which ``figure.Figure`` describes."""

    title: str
    text: str
    width: float
    height: float
    shapes: tuple[Shape, ...]
    frames: int = 1
    frame_s: float = 0.9
    rest: int = 0
    ground: str = "card"


def seen(shapes: Iterable[Shape], frame: int) -> list[Shape]:
    """Return the shapes that a frame shows, none of them bound to frames any more."""
    return [
        shape if shape.when is None else dataclasses.replace(shape, when=None)
        for shape in shapes
        if shape.when is None or frame in shape.when
    ]


def meet(one: Bounds, other: Bounds) -> bool:
    """Return whether two boxes overlap.

    >>> meet((0, 0, 2, 2), (1, 1, 3, 3)), meet((0, 0, 2, 2), (2, 0, 3, 3))
    (True, False)
    """
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def curve(*points: Point, pieces: int = 16) -> tuple[Point, ...]:
    """Return points of the Bézier curve between the ends of ``points`` (de Casteljau).

    >>> curve((0, 0), (1, 2), (2, 0), pieces=2)
    ((0.0, 0.0), (1.0, 1.0), (2.0, 0.0))
    """
    found = []
    for t in (index / pieces for index in range(pieces + 1)):
        left = list(points)
        while len(left) > 1:
            left = [((1 - t) * x0 + t * x1, (1 - t) * y0 + t * y1) for (x0, y0), (x1, y1) in pairwise(left)]
        found.append(left[0])
    return tuple(found)


def bend(start: Point, end: Point, *, upright: bool = True) -> tuple[Point, ...]:
    """Return points of a smooth line that leaves ``start`` and reaches ``end`` upright, or level.

    >>> bend((0, 0), (0, 10))
    ((0, 0), (0, 10))
    """
    (x0, y0), (x1, y1) = start, end
    if (x0 == x1) if upright else (y0 == y1):
        return (start, end)
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return curve(start, *(((x0, y), (x1, y)) if upright else ((x, y0), (x, y1))), end)


def arrow(points: Sequence[Point], look: Look, *, head: float = 7.0, note: str = "") -> list[Shape]:
    """Return a line through ``points`` with a head at its end."""
    (x0, y0), (x1, y1) = points[-2], points[-1]
    length = math.hypot(x1 - x0, y1 - y0) or 1.0
    ux, uy = (x1 - x0) / length, (y1 - y0) / length
    neck = (x1 - ux * head, y1 - uy * head)
    side = head * 0.45
    tip = ((x1, y1), (neck[0] - uy * side, neck[1] + ux * side), (neck[0] + uy * side, neck[1] - ux * side))
    solid = Look(fill=look.stroke, opacity=look.opacity)
    # Points of a curve that lie beside the head would draw the line back and forth.
    before = [point for point in points[1:-1] if math.dist(point, (x1, y1)) > head]
    return [Line((points[0], *before, neck), look=look, note=note), Line(tip, closed=True, look=solid)]
