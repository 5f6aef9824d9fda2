"""Legends and headings: rows of swatches with words, in as many rows as the width asks for."""

from __future__ import annotations

from collections.abc import Sequence

from convoxel.draw.letter import text_width
from convoxel.draw.scene import Box, Group, Look, Shape, Words

EDGE = 16.0  # room kept free on all sides of a picture
_ROW, _SWATCH, _SAMPLE, _SIZE = 21.0, 13.0, 24.0, 12.0
TITLE = Look(fill="ink", size=15, bold=True)
_LINE = Look(fill="soft", size=12)


def heading(title: str, lines: Sequence[str] = ()) -> tuple[list[Shape], float, float]:
    """Return a title with lines below it, their width, and where the picture may begin.

    >>> heading("Title", ["a line"])[2]
    64.0
    """
    shapes: list[Shape] = [Words(EDGE, 26, title, look=TITLE)]
    shapes += [Words(EDGE, 46 + 18 * index, line, look=_LINE) for index, line in enumerate(lines)]
    wide = max(text_width(title, 15, bold=True), *(text_width(line) for line in lines), 0.0)
    return shapes, wide + 2 * EDGE, 46.0 + 18 * len(lines)


def legend(entries: Sequence[tuple[Look | Group, str]], top: float, width: float) -> tuple[list[Shape], float, float]:
    """Return swatches with words from ``top`` on, in rows of at most ``width``; the width and the end of them.

    Args:
        entries: the look of a swatch, or a group of shapes in its place, with the words beside it.
        top: height at which the first row begins.
        width: width of the picture.
    """
    shapes: list[Shape] = []
    x, y, widest = EDGE, top, 0.0
    for mark, text in entries:
        swatch = _SWATCH if isinstance(mark, Look) else _SAMPLE
        wide = swatch + 7 + text_width(text, _SIZE) + 18
        if x > EDGE and x + wide - 18 > width - EDGE:
            x, y = EDGE, y + _ROW
        if isinstance(mark, Look):
            shapes.append(Box(x, y, swatch, swatch, 3, look=mark))
        else:
            shapes.append(Group(mark.shapes, moves=((x, y),)))
        shapes.append(Words(x + swatch + 7, y + 11, text, look=Look(fill="soft", size=_SIZE)))
        x += wide
        widest = max(widest, x - 18 + EDGE)
    return shapes, widest, y + _ROW
