"""Figures as data that a page draws: shapes with their looks, and the frames in which they are seen.

The policy of the page forbids style sheets within the pages, so figures come as data and the page draws them, in
the colours of the theme that it shows. ``static/library/scene.js`` is the other half.
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from convoxel.draw.scene import Bitmap, Box, Disc, Group, Line, Look, Shape, Squares, Words
from convoxel.draw.theme import colour, hexadecimal

if TYPE_CHECKING:
    from convoxel.draw import Figure
    from convoxel.files.values import JsonObject


def scene_data(figure: Figure) -> JsonObject:
    """Return a figure as plain lists and numbers.

    >>> from convoxel import draw
    >>> found = scene_data(draw.conv(4, 3))
    >>> found["frames"], found["title"]
    (2, 'Correlation, kernel 3, stride 1, no padding')
    """
    looks: dict[Look, int] = {}
    shapes = [_shape(shape, looks) for shape in figure.shapes]
    return {
        "title": figure.title, "text": figure.text, "width": figure.width, "height": figure.height,
        "frames": figure.frames, "frame_s": figure.frame_s, "rest": figure.rest,
        "looks": [_look(look) for look in looks], "shapes": shapes,
    }  # fmt: skip


def _look(look: Look) -> JsonObject:
    """Return a look with each colour twice: on light pages and on dark ones."""
    found: JsonObject = {"opacity": look.opacity, "weight": look.weight, "dash": list(look.dash)}
    for name in ("fill", "stroke"):
        role = getattr(look, name)
        found[name] = [hexadecimal(colour(role, dark)) for dark in (False, True)] if role else None
    return {**found, "size": look.size, "bold": look.bold, "align": look.align}


def _shape(shape: Shape, looks: dict[Look, int]) -> JsonObject:
    found: JsonObject = {"look": looks.setdefault(shape.look, len(looks))}
    if shape.when is not None:
        found["when"] = list(shape.when)
    if shape.note:
        found["note"] = shape.note
    if shape.data:
        found["data"] = dict(shape.data)
    match shape:
        case Box(x=x, y=y, width=width, height=height, radius=radius):
            found |= {"box": [x, y, width, height, radius]}
        case Disc(x=x, y=y, radius=radius):
            found |= {"disc": [x, y, radius]}
        case Line(points=points, closed=closed):
            found |= {"line": [round(value, 2) for point in points for value in point], "closed": closed}
        case Squares(corners=corners, side=side):
            found |= {"squares": [round(value, 2) for corner in corners for value in corner], "side": side}
        case Words(x=x, y=y, text=text):
            found |= {"words": text, "at": [x, y]}
        case Bitmap(x=x, y=y, width=width, height=height, image=image, smooth=smooth):
            buffer = io.BytesIO()
            image.save(buffer, format="PNG")
            content = base64.b64encode(buffer.getvalue()).decode("ascii")
            found |= {"bitmap": f"data:image/png;base64,{content}", "box": [x, y, width, height, 0], "smooth": smooth}
        case Group(shapes=parts, moves=moves):
            found |= {"group": [_shape(part, looks) for part in parts], "moves": [list(move) for move in moves]}
    return found
