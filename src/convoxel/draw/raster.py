"""Shapes as pixels, painted by Pillow: for PNG and GIF files, and pages that show no SVG.

It paints stills only (``Figure.still``), twice as fine as asked and then shrunk, which smooths the edges.
Letters are those of DejaVu Sans where matplotlib brings them, else those of Pillow, which lack some signs.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont

from convoxel.draw.shape import Bitmap, Box, Disc, Group, Line, Look, Point, Shape, Squares, Words
from convoxel.draw.theme import colour
from convoxel.errors import ConfigError

if TYPE_CHECKING:
    from convoxel.draw.figure import Figure

__all__ = ["font", "paint"]

_MOST_PIXELS = 100_000_000
# Signs that Pillow's own font lacks.
_PLAIN = str.maketrans({
    "×": "x", "–": "-", "−": "-", "…": "...", "\u00a0": " ", "\u202f": " ", "→": "->", "·": ".", "⌊": "[", "⌋": "]",
    "⌈": "[", "⌉": "]", "≤": "<=", "≥": ">=", "∥": "||",
})  # fmt: skip


def paint(figure: Figure, *, dark: bool = False, scale: float = 2.0) -> Image.Image:
    """Return a still ``figure`` as a picture of ``scale`` pixels a unit.

    Raises:
        ConfigError: ``scale`` is not positive, or so large that the picture has over 100 million pixels.
    """
    if not scale > 0 or figure.width * figure.height * scale**2 > _MOST_PIXELS:
        raise ConfigError(
            f"scale: got {scale:g}; a picture of {figure.width:.0f} × {figure.height:.0f} can be enlarged by up to "
            f"{math.sqrt(_MOST_PIXELS / (figure.width * figure.height)):.3g}."
        )
    size = (math.ceil(figure.width * scale), math.ceil(figure.height * scale))
    fine = 2.0 * scale
    picture = Image.new("RGB", (2 * size[0], 2 * size[1]), colour("card", dark))
    brush = _Brush(picture, dark, fine)
    for shape in figure.shapes:
        brush.draw(shape, (0.0, 0.0))
    return picture.resize(size, Image.Resampling.BOX)


@cache
def font(size: float, bold: bool) -> tuple[Any, bool]:
    """Return a font, and whether it has all signs."""
    found = importlib.util.find_spec("matplotlib")
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    for folder in (found.submodule_search_locations or ()) if found else ():
        file = Path(folder) / "mpl-data" / "fonts" / "ttf" / name
        if file.is_file():
            return ImageFont.truetype(str(file), size), True
    return ImageFont.load_default(size=size), False


class _Brush:
    """Paints shapes onto a picture; colours with opacity are blended with what is there."""

    def __init__(self, picture: Image.Image, dark: bool, fine: float) -> None:
        self.picture, self.dark, self.fine = picture, dark, fine
        self.canvas = ImageDraw.Draw(picture, "RGBA")

    def draw(self, shape: Shape, move: Point) -> None:
        """Paint ``shape``, moved by ``move``."""
        if isinstance(shape, Group):
            x, y = shape.moves[0]
            for part in shape.shapes:
                self.draw(part, (move[0] + x, move[1] + y))
            return
        _PAINTERS[type(shape)](self, shape, move)

    def ink(self, role: str, look: Look) -> tuple[int, int, int, int] | None:
        """Return the colour of a role with the look's opacity."""
        return (*colour(role, self.dark), round(255 * look.opacity)) if role else None

    def place(self, x: float, y: float, move: Point) -> Point:
        """Return where a point lies among the pixels."""
        return (x + move[0]) * self.fine, (y + move[1]) * self.fine

    def outline(self, points: Sequence[Point], look: Look) -> None:
        """Draw a line, with dashes if the look has them."""
        shade, width = self.ink(look.stroke, look), max(1, round(look.weight * self.fine))
        if shade is None:
            return
        parts = _dashes(points, [length * self.fine for length in look.dash]) if look.dash else [points]
        for part in parts:
            self.canvas.line(list(part), fill=shade, width=width, joint="curve")


def _dashes(points: Sequence[Point], lengths: Sequence[float]) -> list[list[Point]]:
    """Cut a line into its dashes."""
    parts: list[list[Point]] = [[points[0]]]
    index, left = 0, lengths[0]
    for (x0, y0), (x1, y1) in pairwise(points):
        length, done = math.hypot(x1 - x0, y1 - y0), 0.0
        while length - done > left:
            done += left
            at = (x0 + (x1 - x0) * done / length, y0 + (y1 - y0) * done / length)
            if index % 2 == 0:
                parts[-1].append(at)
            else:
                parts.append([at])
            index += 1
            left = lengths[index % len(lengths)]
        left -= length - done
        if index % 2 == 0:
            parts[-1].append((x1, y1))
    return [part for part in parts if len(part) > 1]


def _paint_box(brush: _Brush, box: Box, move: Point) -> None:
    look = box.look
    x0, y0 = brush.place(box.x, box.y, move)
    x1, y1 = brush.place(box.x + box.width, box.y + box.height, move)
    fill, radius = brush.ink(look.fill, look), box.radius * brush.fine
    x1, y1 = max(x1 - 1, x0), max(y1 - 1, y0)
    if look.dash:
        if fill:
            brush.canvas.rounded_rectangle((x0, y0, x1, y1), radius, fill=fill)
        brush.outline([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)], look)
        return
    # SVG draws half of an outline outside of the box, Pillow all of it inside.
    half = look.weight * brush.fine / 2 if look.stroke else 0.0
    place = (x0 - half, y0 - half, x1 + half, y1 + half)
    stroke = brush.ink(look.stroke, look)
    brush.canvas.rounded_rectangle(place, radius + half, fill=fill, outline=stroke, width=max(1, round(2 * half)))


def _paint_disc(brush: _Brush, disc: Disc, move: Point) -> None:
    look = disc.look
    x, y = brush.place(disc.x, disc.y, move)
    radius = disc.radius * brush.fine + (look.weight * brush.fine / 2 if look.stroke else 0.0)
    brush.canvas.ellipse(
        (x - radius, y - radius, x + radius, y + radius),
        fill=brush.ink(look.fill, look),
        outline=brush.ink(look.stroke, look),
        width=max(1, round(look.weight * brush.fine)) if look.stroke else 0,
    )


def _paint_squares(brush: _Brush, squares: Squares, move: Point) -> None:
    fill, side = brush.ink(squares.look.fill, squares.look), squares.side * brush.fine
    for corner in squares.corners:
        x, y = brush.place(*corner, move)
        brush.canvas.rectangle((round(x), round(y), round(x + side) - 1, round(y + side) - 1), fill=fill)


def _paint_line(brush: _Brush, line: Line, move: Point) -> None:
    points = [brush.place(x, y, move) for x, y in line.points]
    if line.closed:
        fill = brush.ink(line.look.fill, line.look)
        if fill:
            brush.canvas.polygon(points, fill=fill)
        points = [*points, points[0]]
    brush.outline(points, line.look)


def _paint_words(brush: _Brush, words: Words, move: Point) -> None:
    look = words.look
    face, complete = font(look.size * brush.fine, look.bold)
    anchor = {"start": "ls", "middle": "ms", "end": "rs"}[look.align]
    thick = round(brush.fine / 4) if look.bold and not complete else 0
    text = words.text if complete else words.text.translate(_PLAIN)
    place = brush.place(words.x, words.y, move)
    brush.canvas.text(place, text, fill=brush.ink(look.fill, look), font=face, anchor=anchor, stroke_width=thick)


def _paint_bitmap(brush: _Brush, bitmap: Bitmap, move: Point) -> None:
    x0, y0 = brush.place(bitmap.x, bitmap.y, move)
    x1, y1 = brush.place(bitmap.x + bitmap.width, bitmap.y + bitmap.height, move)
    way = Image.Resampling.BICUBIC if bitmap.smooth else Image.Resampling.NEAREST
    image = bitmap.image.convert("RGBA").resize((max(1, round(x1 - x0)), max(1, round(y1 - y0))), way)
    if bitmap.look.opacity != 1.0:
        image.putalpha(image.getchannel("A").point(lambda value: round(value * bitmap.look.opacity)))
    brush.picture.paste(image, (round(x0), round(y0)), image)


_PAINTERS: dict[type, Callable[..., None]] = {
    Box: _paint_box, Disc: _paint_disc, Squares: _paint_squares, Line: _paint_line, Words: _paint_words,
    Bitmap: _paint_bitmap,
}  # fmt: skip
