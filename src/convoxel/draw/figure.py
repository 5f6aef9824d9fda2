"""A picture, still or moving: shown by notebooks, saved as SVG, PNG, GIF or a web page.

A figure is shapes with a title and a description in words. It is written as one file that needs nothing else: no
script, no font, no address. Moving figures move by style sheets alone, so they also move inside an ``<img>``. A reader
who asked the system for less motion sees one frame.
"""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from convoxel.draw.letter import text_width
from convoxel.draw.motion import changes
from convoxel.draw.pixels import render
from convoxel.draw.scene import Group, Look, Point, Scene, Words
from convoxel.draw.svg import write
from convoxel.errors import ConfigError, check_choice
from convoxel.files.atomic import write_bytes
from convoxel.lazy import LazyModule

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from convoxel.files.values import JsonObject
else:
    np, Image = LazyModule("numpy"), LazyModule("PIL.Image")

_THEMES = {"auto": "light dark", "light": "light", "dark": "dark", "page": "light dark"}
_ENDINGS = (".svg", ".png", ".gif", ".html")
_MOST_PIXELS = 100_000_000
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>:root{{color-scheme:{theme}}}
body{{margin:0;min-height:100vh;display:grid;place-items:center}}svg{{max-width:100%;height:auto}}</style></head>
<body>{svg}</body></html>
"""


class Figure(Scene):
    """A picture of ``width`` × ``height`` pixels.

    Attributes:
        title: name of the figure, read out by screen readers.
        text: description in words.
        width: width of the page in pixels.
        height: height of the page in pixels.
        shapes: the parts, from the back to the front.
        frames: number of frames (default 1, a still).
        frame_s: seconds of one frame (default 0.9).
        rest: the frame that is shown where nothing moves (default 0).
        ground: role of the page's colour (default "card"); "" leaves the page transparent.

    >>> from convoxel.draw.scene import Box
    >>> Figure("square", "One square.", 20, 20, (Box(5, 5, 10, 10, look=Look(fill="c1")),)).svg()[:4]
    '<svg'
    """

    def still(self, frame: int | None = None) -> Figure:
        """Return one frame as a figure of its own (default: the frame of rest).

        Raises:
            ConfigError: there is no such frame.
        """
        frame = self.rest if frame is None else frame
        if not 0 <= frame < self.frames:
            raise ConfigError(f"frame: got {frame}; this figure has the frames 0 to {self.frames - 1}.")
        if self.frames == 1:
            return self
        return dataclasses.replace(self, shapes=(Group(self.shapes).at(frame),), frames=1, rest=0)

    def strip(self, frames: Sequence[int] | int = 6, columns: int | None = None) -> Figure:
        """Return frames side by side as one still figure.

        Args:
            frames: numbers of the frames, or how many, evenly spread (default 6).
            columns: number of frames in a row (default: up to three).

        Raises:
            ConfigError: there is no such frame, or none is asked for.
        """
        if isinstance(frames, int):
            few = min(self.frames, frames)
            frames = [round(index * (self.frames - 1) / max(few - 1, 1)) for index in range(few)]
        if not frames:
            raise ConfigError("frames is empty; give at least one number of a frame.")
        wide = min(columns or 3, len(frames))
        rows = [frames[start : start + wide] for start in range(0, len(frames), wide)]
        shapes = [
            Group(self.still(frame).shapes, moves=((column * self.width, row * self.height),))
            for row, part in enumerate(rows)
            for column, frame in enumerate(part)
        ]
        text = f"{self.text} Frames {', '.join(str(frame + 1) for frame in frames)} of {self.frames}."
        return Figure(self.title, text, wide * self.width, len(rows) * self.height, tuple(shapes))

    def svg(self, theme: str = "auto") -> str:
        """Return the figure as SVG text that stands alone.

        Args:
            theme: "light", "dark", "auto", which follows the reader's setting, or "page", which follows the colour
                scheme of the page that holds the figure (default "auto").

        Raises:
            ConfigError: the theme is none of these.
        """
        return write(self, _known_theme(theme))

    def picture(self, theme: str = "light", scale: float = 2.0) -> Image.Image:
        """Return the figure, at rest, as a picture of ``scale`` pixels a unit (default 2), RGB or RGBA by its ground.

        Raises:
            ConfigError: ``scale`` is not positive, or so large that the picture has over 100 million pixels; the theme
                is not known; or resvg is not installed.
        """
        return Image.open(io.BytesIO(self._png(theme, scale)), formats=["PNG"]).convert(
            "RGB" if self.ground else "RGBA"
        )

    def _png(self, theme: str, scale: float) -> bytes:
        area = self.width * self.height
        if not scale > 0 or area * scale**2 > _MOST_PIXELS:
            raise ConfigError(
                f"scale: got {scale:g}; a picture of {self.width:.0f} × {self.height:.0f} can be enlarged by up to "
                f"{math.sqrt(_MOST_PIXELS / area):.3g}."
            )
        # Pages of whole units: the renderer would stretch others to whole pixels.
        page = dataclasses.replace(self.still(), width=math.ceil(self.width), height=math.ceil(self.height))
        return render(page.svg("dark" if _known_theme(theme) == "dark" else "light"), scale)

    def html(self, theme: str = "auto") -> str:
        """Return a web page that holds the figure and nothing else."""
        return _PAGE.format(title=escape(self.title), theme=_THEMES[_known_theme(theme)], svg=self.svg(theme))

    def save(self, path: str | Path, theme: str | None = None, scale: float = 2.0) -> Path:
        """Write the figure into a file, whole or not at all, and return its path; the ending chooses the format.

        Args:
            path: ends in .svg, .html, .png (a moving figure at rest) or .gif (it moves).
            theme: "auto", "light" or "dark" (default: "auto" for .svg and .html, "light" for .png and .gif).
            scale: pixels a unit, for .png and .gif (default 2).

        Raises:
            ConfigError: another ending, a theme that is not known, or the file cannot be written.
        """
        file = Path(path)
        ending = file.suffix.lower()
        if ending not in _ENDINGS:
            raise ConfigError(f"save: {file.name!r} ends in {ending!r}; a figure is saved as {', '.join(_ENDINGS)}.")
        if ending == ".svg":
            content = self.svg(theme or "auto").encode("utf-8")
        elif ending == ".html":
            content = self.html(theme or "auto").encode("utf-8")
        else:
            content = self._pixels(ending, theme or "light", scale)
        return write_bytes(file, content, ConfigError)

    def _pixels(self, ending: str, theme: str, scale: float) -> bytes:
        if ending == ".png":
            return self._png(theme, scale)
        # One palette for all frames, so that still parts do not flicker.
        first = self.still(0).picture(theme, scale).quantize(256)
        frames = [first]
        for index in range(1, self.frames):
            frames.append(frames[-1].copy())
            for (left, top, right, bottom), shapes in changes(self, index, scale):
                part = Figure("", "", right - left, bottom - top, shapes).picture(theme, scale)
                place = round(left * scale), round(top * scale)
                frames[-1].paste(_in_palette(part, first), place)
        more: JsonObject = {"save_all": True, "append_images": frames[1:]} if len(frames) > 1 else {}
        buffer = io.BytesIO()
        first.save(buffer, format="GIF", duration=round(1000 * self.frame_s), loop=0, **more)
        return buffer.getvalue()

    def _repr_svg_(self) -> str:
        return self.svg()

    def __html__(self) -> str:
        """Return the figure as part of a web page; templates then do not escape it once more."""
        return self.svg()

    def __repr__(self) -> str:
        """Return title and size, not every shape."""
        moving = f", {self.frames} frames" if self.frames > 1 else ""
        return f"Figure({self.title!r}, {self.width:.0f} × {self.height:.0f}{moving})"


def _in_palette(picture: Image.Image, example: Image.Image) -> Image.Image:
    """Return ``picture`` in the colours of ``example``, the nearest to each.

    Pillow's ``quantize(palette=…)`` compares six bits of a colour and takes a near white for white.
    """
    codes, places = np.unique(np.asarray(picture).astype(np.int32) @ (1 << 16, 1 << 8, 1), return_inverse=True)
    shades = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1)
    palette = np.array(example.getpalette(), np.int32).reshape(-1, 3)
    nearest = ((shades[:, None] - palette) ** 2).sum(axis=2).argmin(axis=1).astype(np.uint8)
    return Image.fromarray(nearest[places].reshape(picture.height, picture.width))


def beside(figures: Sequence[Figure], title: str, *, gap: float = 0.0, below: bool = False) -> Figure:
    """Return still figures side by side, or ``below`` each other, under a common title.

    Raises:
        ConfigError: there is none, or one of them moves.
    """
    if not figures or any(figure.frames > 1 for figure in figures):
        raise ConfigError("beside: give at least one figure, each of one frame (figure.still()).")
    top, shapes, place = 34.0, [], 0.0
    for figure in figures:
        move: Point = (0.0, top + place) if below else (place, top)
        shapes.append(Group(figure.shapes, moves=(move,)))
        place += (figure.height if below else figure.width) + gap
    longest, across = place - gap, max((f.width if below else f.height) for f in figures)
    width, height = (across, longest + top) if below else (longest, across + top)
    head = Words(16, 26, title, look=Look(fill="ink", size=15, bold=True))
    width = max(width, 32 + text_width(title, 15, bold=True))
    text = " ".join(f"{figure.title}: {figure.text}" for figure in figures)
    return Figure(title, text, width, height, (head, *shapes))


def _known_theme(theme: str) -> str:
    check_choice("theme", theme, _THEMES)
    return theme
