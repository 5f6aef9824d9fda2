"""Shapes as SVG text: one class for each look, colours for light and dark, motion by style sheet.

Colours stand in the style sheet as plain values, twice: readers that know no ``prefers-color-scheme`` show
the light ones. All names begin with one that is made from the content, so that figures do not disturb each
other, or their page, when they are put into it as they are.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from convoxel.draw.markup import Markup, tag
from convoxel.draw.palette import hexadecimal
from convoxel.draw.shape import Bitmap, Box, Disc, Group, Line, Look, Point, Shape, Squares, Words
from convoxel.draw.theme import colour

if TYPE_CHECKING:
    from convoxel.draw.figure import Figure

__all__ = ["write"]

_FONT = 'system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif'
_GLIDE = 0.3  # of a frame: how long what moves takes to its next place
# The name that the figure gets once its content is known; no text of a user can hold it.
_NAME = "\x00"


def write(figure: Figure, theme: str = "auto") -> str:
    """Return ``figure`` as an SVG document; ``theme`` is "auto", "light" or "dark"."""
    writer = _Writer(figure.frames, figure.frame_s, figure.rest)
    ground = Box(0, 0, figure.width, figure.height, look=Look(fill="card"))
    body = [writer.element(shape) for shape in (ground, *figure.shapes)]
    content = tag(
        "svg",
        tag("title", figure.title, id=f"{_NAME}t"),
        tag("desc", figure.text, id=f"{_NAME}d"),
        tag("style", Markup(writer.style(theme))),
        *body,
        xmlns="http://www.w3.org/2000/svg",
        class_=_NAME,
        viewBox=f"0 0 {figure.width:g} {figure.height:g}",
        width=f"{figure.width:g}",
        height=f"{figure.height:g}",
        role="img",
        aria_labelledby=f"{_NAME}t {_NAME}d",
    )
    name = "f" + hashlib.sha256(content.encode()).hexdigest()[:7]
    return content.replace(_NAME, name)


class _Writer:
    """Writes shapes, and remembers which looks and motions the style sheet must hold."""

    def __init__(self, frames: int, frame_s: float, rest: int) -> None:
        self.frames, self.frame_s, self.rest = frames, frame_s, rest
        self.looks: dict[tuple[bool, Look], str] = {}
        self.times: dict[tuple[int, ...], str] = {}
        self.paths: dict[tuple[Point, ...], str] = {}

    def element(self, shape: Shape) -> Markup:
        """Return the element of one shape."""
        write, text = _WRITERS[type(shape)], isinstance(shape, Words)
        names = [] if shape.look == Look() else [self.looks.setdefault((text, shape.look), f"l{len(self.looks)}")]
        if shape.when is not None:
            names.append(self.times.setdefault(tuple(sorted(shape.when)), f"w{len(self.times)}"))
        if isinstance(shape, Group) and len(shape.moves) > 1:
            names.append(self.paths.setdefault(shape.moves, f"m{len(self.paths)}"))
        facts: dict[str, object] = {f"data_{key}": value for key, value in shape.data.items()}
        return write(self, shape, {"class_": " ".join(names) or None, **facts})

    def style(self, theme: str) -> str:
        """Return the style sheet of everything that was written."""
        base, own = f".{_NAME}", self._colours(dark=theme == "dark")
        sheet = [f"{base} text{{font-family:{_FONT};font-variant-numeric:tabular-nums}}", *own]
        sheet += [f"{base} .{name}{{{_form(text, look)}}}" for (text, look), name in self.looks.items()]
        if theme == "auto":
            sheet.append(f"@media (prefers-color-scheme:dark){{{''.join(self._colours(dark=True))}}}")
        motion = [*self._blinks(), *self._glides()]
        if motion:
            sheet += [rule for rule, _ in motion]
            sheet.append(f"@media (prefers-reduced-motion:no-preference){{{''.join(rule for _, rule in motion)}}}")
            sheet.append(f"{base}:hover *{{animation-play-state:paused}}")
        return "".join(sheet)

    def _colours(self, dark: bool) -> list[str]:
        rules = []
        for (_, look), name in self.looks.items():
            fill = hexadecimal(colour(look.fill, dark)) if look.fill else "none"
            stroke = f";stroke:{hexadecimal(colour(look.stroke, dark))}" if look.stroke else ""
            rules.append(f".{_NAME} .{name}{{fill:{fill}{stroke}}}")
        return rules

    def _blinks(self) -> Iterable[tuple[str, str]]:
        """Yield for each set of frames the rule at rest, and the one in motion."""
        for when, name in self.times.items():
            stops, last = [], None
            for frame in range(self.frames):
                shown = frame in when
                if shown != last:
                    stops.append(f"{_percent(frame / self.frames)}{{visibility:{'visible' if shown else 'hidden'}}}")
                last = shown
            rest = "visible" if self.rest in when else "hidden"
            yield f".{_NAME} .{name}{{visibility:{rest}}}", self._motion(name, stops, "step-end")

    def _glides(self) -> Iterable[tuple[str, str]]:
        """Yield for each path the rule at rest, and the one in motion: it stands, then it glides on."""
        for moves, name in self.paths.items():
            stops = []
            for move, run in groupby(range(self.frames), key=lambda frame: moves[frame]):
                frames = list(run)
                x, y = move
                start, end = frames[0] / self.frames, (frames[-1] + 1 - _GLIDE) / self.frames
                # It must not glide back through the picture from its last place to its first.
                end = 1.0 if frames[-1] == self.frames - 1 else end
                stops.append(f"{_percent(start)},{_percent(end)}{{transform:translate({x:g}px,{y:g}px)}}")
            x, y = moves[self.rest]
            rest = f".{_NAME} .{name}{{transform:translate({x:g}px,{y:g}px)}}"
            yield rest, self._motion(name, stops, "ease-in-out")

    def _motion(self, name: str, stops: Sequence[str], timing: str) -> str:
        length = f"{self.frames * self.frame_s:g}s"
        return (
            f"@keyframes {_NAME}{name}{{{''.join(stops)}}}"
            f".{_NAME} .{name}{{animation:{_NAME}{name} {length} {timing} infinite}}"
        )


def _form(text: bool, look: Look) -> str:
    """Return what does not depend on light and dark."""
    parts = []
    if look.opacity != 1.0:
        parts.append(f"opacity:{look.opacity:g}")
    if text:
        parts.append(f"font-size:{look.size:g}px")
        if look.bold:
            parts.append("font-weight:600")
        if look.align != "start":
            parts.append(f"text-anchor:{look.align}")
    elif look.stroke:
        parts.append(f"stroke-width:{look.weight:g};stroke-linejoin:round;stroke-linecap:round")
        if look.dash:
            parts.append(f"stroke-linecap:butt;stroke-dasharray:{' '.join(f'{d:g}' for d in look.dash)}")
    return ";".join(parts)


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


Attributes = dict[str, object]


def _with_note(shape: Shape, element: str, attributes: Attributes, **geometry: object) -> Markup:
    return tag(element, tag("title", shape.note) if shape.note else None, **geometry, **attributes)


def _box(_: _Writer, shape: Box, more: Attributes) -> Markup:
    place = {"x": float(shape.x), "y": float(shape.y), "width": float(shape.width), "height": float(shape.height)}
    return _with_note(shape, "rect", more, **place, rx=float(shape.radius) if shape.radius else None)


def _disc(_: _Writer, shape: Disc, more: Attributes) -> Markup:
    return _with_note(shape, "circle", more, cx=float(shape.x), cy=float(shape.y), r=float(shape.radius))


def _line(_: _Writer, shape: Line, more: Attributes) -> Markup:
    points = " ".join(f"{_number(x)},{_number(y)}" for x, y in shape.points)
    return _with_note(shape, "polygon" if shape.closed else "polyline", more, points=points)


def _squares(_: _Writer, shape: Squares, more: Attributes) -> Markup:
    side = _number(shape.side)
    path = "".join(f"M{_number(x)} {_number(y)}h{side}v{side}h-{side}z" for x, y in shape.corners)
    return _with_note(shape, "path", more, d=path)


def _words(_: _Writer, shape: Words, more: Attributes) -> Markup:
    note = tag("title", shape.note) if shape.note else None
    return tag("text", shape.text, note, x=float(shape.x), y=float(shape.y), **more)


def _bitmap(_: _Writer, shape: Bitmap, more: Attributes) -> Markup:
    buffer = io.BytesIO()
    shape.image.save(buffer, format="PNG", optimize=True)
    content = base64.b64encode(buffer.getvalue()).decode("ascii")
    return _with_note(
        shape, "image", more, x=float(shape.x), y=float(shape.y), width=float(shape.width),
        height=float(shape.height), preserveAspectRatio="none", href=f"data:image/png;base64,{content}",
        style=None if shape.smooth else "image-rendering:pixelated",
    )  # fmt: skip


def _group(writer: _Writer, shape: Group, more: Attributes) -> Markup:
    x, y = shape.moves[0]
    moved = f"translate({_number(x)} {_number(y)})" if len(shape.moves) == 1 and (x or y) else None
    return tag("g", *(writer.element(part) for part in shape.shapes), transform=moved, **more)


_WRITERS: dict[type, Callable[..., Markup]] = {
    Box: _box, Disc: _disc, Line: _line, Squares: _squares, Words: _words, Bitmap: _bitmap, Group: _group,
}  # fmt: skip
