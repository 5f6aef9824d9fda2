"""Parts of a moving figure that change from one frame to the next, so that a GIF paints nothing twice."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from convoxel.draw.letter import text_width
from convoxel.draw.scene import Bitmap, Bounds, Box, Disc, Group, Line, Point, Scene, Shape, Squares, Words, meet

_BLUR = 1.0  # antialiasing reaches this far beyond an outline


class _Part(NamedTuple):
    """A shape that is no group, with the translation by the groups around it."""

    shape: Shape
    move: Point

    def bounds(self) -> Bounds:
        """Return the box on the page that holds the shape and its outline."""
        (dx, dy), room = self.move, _BLUR + (self.shape.look.weight if self.shape.look.stroke else 0.0)
        left, top, right, bottom = _bounds(self.shape)
        return left + dx - room, top + dy - room, right + dx + room, bottom + dy + room


def changes(scene: Scene, frame: int, scale: float) -> Iterator[tuple[Bounds, tuple[Shape, ...]]]:
    """Yield the regions in which ``frame`` differs from the one before it, and the shapes that are seen there.

    The edges of a region lie between pixels of a picture of ``scale`` pixels a unit. The shapes are moved so that the
    region's corner is the origin.
    """
    before, now = (dict(_parts(scene.shapes, index)) for index in (frame - 1, frame))
    # Where a unit is not a number of whole pixels, the page is painted as a whole.
    unit = 1 if float(scale).is_integer() else math.ceil(max(scene.width, scene.height))
    regions: list[Bounds] = []
    for key in before.keys() ^ now.keys():
        left, top, right, bottom = (now.get(key) or before[key]).bounds()
        region: Bounds = (
            max(math.floor(left / unit) * unit, 0),
            max(math.floor(top / unit) * unit, 0),
            min(math.ceil(right / unit) * unit, math.ceil(scene.width)),
            min(math.ceil(bottom / unit) * unit, math.ceil(scene.height)),
        )
        while met := next((other for other in regions if meet(region, other)), None):
            regions.remove(met)
            (left, top), (right, bottom) = map(min, region[:2], met[:2]), map(max, region[2:], met[2:])
            region = left, top, right, bottom
        if region[0] < region[2] and region[1] < region[3]:  # else it lies beside the page
            regions.append(region)
    for region in regions:
        left, top = region[:2]
        seen = [part for part in now.values() if meet(part.bounds(), region)]
        yield (
            region,
            tuple(
                Group((dataclasses.replace(shape, when=None),), moves=((dx - left, dy - top),))
                for shape, (dx, dy) in seen
            ),
        )


def _parts(shapes: Iterable[Shape], frame: int, x: float = 0.0, y: float = 0.0) -> Iterator[tuple[object, _Part]]:
    """Yield what a frame shows, from the back to the front, each with a key that is equal where nothing changes."""
    for shape in shapes:
        if shape.when is not None and frame not in shape.when:
            continue
        if isinstance(shape, Group):
            dx, dy = shape.moves[frame % len(shape.moves)]
            yield from _parts(shape.shapes, frame, x + dx, y + dy)
        else:
            yield (id(shape), x, y), _Part(shape, (x, y))


def _bounds(shape: Shape) -> Bounds:
    """Return left, top, right and bottom of a shape that is no group, without its outline."""
    match shape:
        case Box(x=x, y=y, width=width, height=height) | Bitmap(x=x, y=y, width=width, height=height):
            return x, y, x + width, y + height
        case Disc(x=x, y=y, radius=radius):
            return x - radius, y - radius, x + radius, y + radius
        case Words(x=x, y=y, text=text, look=look):
            width = text_width(text, look.size, look.bold)
            left = x - {"start": 0.0, "middle": 0.5, "end": 1.0}[look.align] * width
            return left, y - look.size, left + width, y + look.size / 2
        case Line(points=points) | Squares(corners=points):
            side = shape.side if isinstance(shape, Squares) else 0.0
            xs, ys = zip(*points, strict=True)
            return min(xs), min(ys), max(xs) + side, max(ys) + side
        case Group():
            raise AssertionError("groups are taken apart before")
