"""Shapes as SVG text: one class for each look, colours for light and dark, motion by style sheet.

Colours stand in the style sheet as plain values, twice: readers that know no ``prefers-color-scheme`` show the light
ones. All names begin with one that is made from the content, so that figures do not disturb each other, or their page,
when they are put into it as they are.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from xml.etree.ElementTree import Element, SubElement, tostring

from convoxel.draw.scene import Bitmap, Box, Disc, Group, Line, Look, Point, Scene, Shape, Squares, Words
from convoxel.draw.theme import colour, hexadecimal

_FONT = 'system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif'
_GLIDE = 0.3  # share of a frame in which moving parts glide to their next place
# Stands for the figure's name until its content is known; XML does not allow it, so texts do not hold it.
_NAME = "\x00"
_UNKNOWN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def write(scene: Scene, theme: str = "auto") -> str:
    """Return ``scene`` as an SVG document; ``theme`` is "auto", "light", "dark" or "page" (as of :class:`Figure`)."""
    size = {"width": f"{scene.width:g}", "height": f"{scene.height:g}"}
    root = Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "class": _NAME,
            "viewBox": f"0 0 {scene.width:g} {scene.height:g}",
            **size,
            "role": "img",
            "aria-labelledby": f"{_NAME}t {_NAME}d",
        },
    )
    SubElement(root, "title", {"id": f"{_NAME}t"}).text = _known(scene.title)
    SubElement(root, "desc", {"id": f"{_NAME}d"}).text = _known(scene.text)
    style = SubElement(root, "style")
    writer = _Writer(scene.frames, scene.frame_s, scene.rest)
    ground = (Box(0, 0, scene.width, scene.height, look=Look(fill=scene.ground)),) if scene.ground else ()
    for shape in (*ground, *scene.shapes):
        writer.add(root, shape)
    style.text = writer.style(theme)
    content = tostring(root, encoding="unicode")
    return content.replace(_NAME, "f" + hashlib.sha256(content.encode()).hexdigest()[:7])


class _Writer:
    """Writes shapes, and remembers which looks and motions the style sheet must hold."""

    def __init__(self, frames: int, frame_s: float, rest: int) -> None:
        self.frames, self.frame_s, self.rest = frames, frame_s, rest
        self.looks: dict[tuple[bool, Look], str] = {}
        self.times: dict[tuple[int, ...], str] = {}
        self.paths: dict[tuple[Point, ...], str] = {}

    def add(self, parent: Element, shape: Shape) -> None:
        """Add the element of one shape to ``parent``."""
        name, attributes = _element(shape)
        text = isinstance(shape, Words)
        names = [] if shape.look == Look() else [self.looks.setdefault((text, shape.look), f"l{len(self.looks)}")]
        if shape.when is not None:
            names.append(self.times.setdefault(tuple(sorted(shape.when)), f"w{len(self.times)}"))
        if isinstance(shape, Group) and len(shape.moves) > 1:
            names.append(self.paths.setdefault(shape.moves, f"m{len(self.paths)}"))
        if names:
            attributes["class"] = " ".join(names)
        attributes.update((f"data-{key}", _known(value)) for key, value in shape.data.items())
        element = SubElement(parent, name, attributes)
        if isinstance(shape, Words):
            element.text = _known(shape.text)
        if shape.note:
            SubElement(element, "title").text = _known(shape.note)
        if isinstance(shape, Group):
            for part in shape.shapes:
                self.add(element, part)

    def style(self, theme: str) -> str:
        """Return the style sheet of everything that was written."""
        base, own = f".{_NAME}", self._colours(theme)
        sheet = [f"{base} text{{font-family:{_FONT};font-variant-numeric:tabular-nums}}", *own]
        sheet += [f"{base} .{name}{{{_form(text, look)}}}" for (text, look), name in self.looks.items()]
        if theme == "auto":
            dark = "".join(self._colours("dark"))
            sheet.append(f"@media (prefers-color-scheme:dark){{{dark}}}")
        motion = [*self._blinks(), *self._glides()]
        if motion:
            sheet += [rule for rule, _ in motion]
            sheet.append(f"@media (prefers-reduced-motion:no-preference){{{''.join(rule for _, rule in motion)}}}")
            sheet.append(f"{base}:hover *{{animation-play-state:paused}}")
        return "".join(sheet)

    def _colours(self, theme: str) -> list[str]:
        rules = []
        for (_, look), name in self.looks.items():
            fill = _paint(look.fill, theme) if look.fill else "none"
            stroke = f";stroke:{_paint(look.stroke, theme)}" if look.stroke else ""
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
                # From its last place to its first it jumps: gliding back would read as a step.
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


def _paint(role: str, theme: str) -> str:
    light, dark = (hexadecimal(colour(role, dark)) for dark in (False, True))
    return f"light-dark({light},{dark})" if theme == "page" else dark if theme == "dark" else light


def _form(text: bool, look: Look) -> str:
    """Return what does not depend on light and dark."""
    parts = []
    if look.opacity != 1.0:
        # A plain "opacity" makes renderers paint the shape on a page of its own, which is slow: only where two parts
        # of one shape overlap.
        part = "" if bool(look.fill) == bool(look.stroke) else "fill-" if look.fill else "stroke-"
        parts.append(f"{part}opacity:{look.opacity:g}")
    if text:
        parts.append(f"font-size:{look.size:g}px")
        if look.stroke:  # a rim behind the letters, so that they can be read over lines
            parts.append(f"paint-order:stroke;stroke-width:{look.weight:g};stroke-linejoin:round")
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


def _known(text: str) -> str:
    """Return ``text`` without the signs that XML does not know."""
    return _UNKNOWN.sub("\ufffd", text)


def _element(shape: Shape) -> tuple[str, dict[str, str]]:
    """Return the name and the geometry of a shape's element."""
    match shape:
        case Box(x=x, y=y, width=width, height=height, radius=radius):
            place = _numbers(x=x, y=y, width=width, height=height)
            return "rect", place | (_numbers(rx=radius) if radius else {})
        case Disc(x=x, y=y, radius=radius):
            return "circle", _numbers(cx=x, cy=y, r=radius)
        case Line(points=points, closed=closed):
            way = " ".join(f"{_number(x)},{_number(y)}" for x, y in points)
            return "polygon" if closed else "polyline", {"points": way}
        case Squares(corners=corners, side=length):
            side = _number(length)
            return "path", {"d": "".join(f"M{_number(x)} {_number(y)}h{side}v{side}h-{side}z" for x, y in corners)}
        case Words(x=x, y=y):
            return "text", _numbers(x=x, y=y)
        case Bitmap(x=x, y=y, width=width, height=height, image=image, smooth=smooth):
            buffer = io.BytesIO()
            image.save(buffer, format="PNG")
            content = base64.b64encode(buffer.getvalue()).decode("ascii")
            rest = {"preserveAspectRatio": "none", "href": f"data:image/png;base64,{content}"}
            rest |= {} if smooth else {"image-rendering": "pixelated"}
            return "image", _numbers(x=x, y=y, width=width, height=height) | rest
        case Group(moves=moves):
            (x, y), *more = moves
            still = not more and (x or y)
            return "g", {"transform": f"translate({_number(x)} {_number(y)})"} if still else {}


def _numbers(**values: float) -> dict[str, str]:
    return {key: _number(value) for key, value in values.items()}
