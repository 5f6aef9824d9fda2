"""Networks side by side: a table's figures as bars, and quality against cost, as SVG text or as a picture.

The figure is put together once, as shapes; ``SVG`` and pixels are two ways to write them. What the networks
cost, see and reach was measured by others.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from convoxel.draw.markup import Markup, tag
from convoxel.draw.overlay import png
from convoxel.draw.quantity import count, duration
from convoxel.draw.style import CHART_STYLE, light_colour
from convoxel.errors import ConfigError

__all__ = ["Contender", "comparison", "comparison_picture", "save_comparison"]

_ROW, _PANEL, _GAP, _EDGE = 26.0, 178.0, 22.0, 14.0
_TOP = 58.0
_SCATTER = 300.0
_LETTER = 6.6  # mean width of a letter at 12 px, as in ``chart``
_LONGEST = 42  # letters of a name; the rest is an ellipsis
_SCALE = 2  # pixels of the picture per unit of the drawing
# The font that Pillow brings has Latin letters only.
_PLAIN = str.maketrans({"×": "x", "–": "-", "…": "...", "\u00a0": " ", "\u202f": " "})


@dataclass(frozen=True)
class Contender:
    """One network of a comparison.

    Attributes:
        name: what to call it.
        shape: input (n, channels, *spatial) that the figures are for.
        params: parameters.
        macs: multiply-accumulates.
        field: receptive field by axis; empty if unknown.
        whole: whether every output sees the whole image beside that, by global pooling for instance.
        latency_s: time of one run on our engine; None if not measured.
        metric_name: "Dice" or "accuracy"; empty without a training run.
        metric: that, on the validation part.
        per_class: the same for each class.
        train_s: training time.
        steps: optimiser steps.
    """

    name: str
    shape: tuple[int, ...]
    params: int
    macs: int
    field: tuple[int, ...] = ()
    whole: bool = False
    latency_s: float | None = None
    metric_name: str = ""
    metric: float | None = None
    per_class: dict[str, float | None] = dataclasses.field(default_factory=dict)
    train_s: float | None = None
    steps: int | None = None

    @property
    def reach(self) -> float | None:
        """The widest receptive field; None if it is unknown."""
        return float(max(self.field)) if self.field else None

    @property
    def sight(self) -> str:
        """The receptive field in words."""
        size = " × ".join(map(str, self.field)) if len(set(self.field)) != 1 else str(self.field[0])
        return f"{size or '–'} + whole" if self.whole else size or "–"


class _Measure(NamedTuple):
    """A panel: which figure, how it is written, and whether it is a share that is best near 1."""

    title: str
    value: Callable[[Contender], float | None]
    text: Callable[[float], str]
    share: bool = False


class _Shape(NamedTuple):
    """A rectangle, a disc, or a text: where, how large, in which role, and for a text how it is aligned."""

    kind: str
    x: float
    y: float
    width: float = 0.0
    height: float = 0.0
    role: str = ""
    text: str = ""
    align: str = "start"


# Roles: the variable of the style sheet that gives the colour, and for texts whether they are bold, and the size.
_ROLES = {
    "title": ("ink", True, 14),
    "heading": ("ink", True, 12),
    "label": ("ink", False, 12),
    "value": ("soft", False, 12),
    "tick": ("faint", False, 11),
    "track": ("grid", False, 0),
    "bar": ("c7", False, 0),
    "dot": ("c5", False, 0),
}


def _measures(rows: Sequence[Contender]) -> list[_Measure]:
    """The panels that have a figure for at least one row."""
    quality = next((row.metric_name for row in rows if row.metric_name), "metric")
    known = [
        _Measure("parameters", lambda row: float(row.params), count),
        _Measure("multiply–adds", lambda row: float(row.macs), count),
        _Measure("receptive field (pixels)", lambda row: row.reach, lambda value: f"{value:.0f}"),
        _Measure("time of one run", lambda row: row.latency_s, _short_time),
        _Measure(quality, lambda row: row.metric, lambda value: f"{value:.3f}", share=True),
        _Measure("training time", lambda row: row.train_s, duration),
    ]
    return [measure for measure in known if any(measure.value(row) is not None for row in rows)]


def _short_time(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else duration(seconds)


def _compose(rows: Sequence[Contender]) -> tuple[list[_Shape], float, float]:
    """Return the shapes of the figure, its width and its height."""
    if not rows:
        raise ConfigError("comparison: rows is empty; a comparison needs at least one network.")
    names = [_shorten(row.name) for row in rows]
    left = _EDGE + _LETTER * max(map(len, names)) + 16
    measures = _measures(rows)
    shapes = [_Shape("text", _EDGE, 24, role="title", text=_heading(rows))]
    for index, name in enumerate(names):
        shapes.append(_Shape("text", _EDGE, _TOP + (index + 0.5) * _ROW + 4, role="label", text=name))
    for place, measure in enumerate(measures):
        shapes += _draw_panel(rows, measure, left + place * (_PANEL + _GAP))
    width = left + len(measures) * (_PANEL + _GAP) - _GAP + _EDGE
    height = _TOP + len(rows) * _ROW + 26
    scored = [row for row in rows if row.metric is not None]
    if len(scored) > 1:
        shapes += _draw_scatter(scored, left, height + 20, width - left - _EDGE)
        height += 20 + _SCATTER
    return shapes, width, height


def _heading(rows: Sequence[Contender]) -> str:
    """Say what the figures are for, as far as it is one thing."""
    shapes = {row.shape for row in rows}
    if len(shapes) > 1:
        return f"{len(rows)} networks, each on its own input"
    return f"{len(rows)} network{'s' if len(rows) > 1 else ''} on an input of {' × '.join(map(str, rows[0].shape))}"


def _draw_panel(rows: Sequence[Contender], measure: _Measure, left: float) -> list[_Shape]:
    """Bars from zero; a share is a dot between a floor below all of them and 1."""
    values = [measure.value(row) for row in rows]
    known = [value for value in values if value is not None]
    room = _PANEL - 76.0  # the text after the longest bar
    low, high = (_floor(min(known)), 1.0) if measure.share else (0.0, max(known) or 1.0)
    shapes = [_Shape("text", left, _TOP - 10, role="heading", text=measure.title)]
    if measure.share:
        bottom = _TOP + len(rows) * _ROW
        shapes += [_Shape("rect", left + share * room - 0.5, _TOP, 1, bottom - _TOP, "track") for share in (0, 0.5, 1)]
        for share in (0.0, 1.0):
            text = f"{low + share * (high - low):g}"
            shapes.append(_Shape("text", left + share * room, bottom + 15, role="tick", text=text, align="middle"))
    for index, value in enumerate(values):
        middle = _TOP + (index + 0.5) * _ROW
        if value is None:
            shapes.append(_Shape("text", left, middle + 4, role="value", text="–"))
            continue
        end = left + room * (value - low) / (high - low)
        if measure.share:
            shapes.append(_Shape("disc", end, middle, 5, 5, "dot"))
            end = max(end, left + room)
        else:
            shapes.append(_Shape("rect", left, middle - 6, max(end - left, 1.5), 12, "bar"))
        beside = end + (11 if measure.share else 7)
        shapes.append(_Shape("text", beside, middle + 4, role="value", text=measure.text(value)))
    return shapes


def _draw_scatter(rows: Sequence[Contender], left: float, top: float, width: float) -> list[_Shape]:
    """Quality over multiply-adds: up and to the left is better."""
    width = min(width, 620.0)
    base, height = top + _SCATTER - 46, _SCATTER - 80
    low = _floor(min(row.metric or 0.0 for row in rows))
    costs = [row.macs for row in rows]
    # A factor of eight between costs would press all but the dearest into a corner.
    scale: Callable[[float], float] = math.log if max(costs) > 8 * min(costs) > 0 else float
    first, last = (min(costs) / 1.6, max(costs) * 1.6) if scale is math.log else (0.0, max(costs) * 1.15)
    name = next(row.metric_name for row in rows)
    shapes = [_Shape("text", left, top + 14, role="heading", text=f"{name} over multiply–adds")]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = base - share * height
        shapes.append(_Shape("rect", left, y - 0.5, width, 1, "track"))
        text = f"{low + share * (1 - low):g}"
        shapes.append(_Shape("text", left - 8, y + 4, role="tick", text=text, align="end"))
    for tick in _ticks(first, last):
        x = left + (scale(tick) - scale(first)) / (scale(last) - scale(first)) * width
        shapes.append(_Shape("text", x, base + 18, role="tick", text=count(tick), align="middle"))
    dots = [
        (
            left + (scale(row.macs) - scale(first)) / (scale(last) - scale(first)) * width,
            base - ((row.metric or 0.0) - low) / (1 - low) * height,
        )
        for row in rows
    ]
    shapes += [_Shape("disc", x, y, 5, 5, "dot") for x, y in dots]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in dots]
    for row, (x, y) in zip(rows, dots, strict=True):
        text = _shorten(row.name)
        half = _LETTER * len(text) / 2
        # Above the dot, else below it, else further away: wherever nothing is written yet.
        boxes = [(x - half, y + shift - 11, x + half, y + shift + 4) for shift in (-12, 20, -27, 35, -42, 50)]
        box = next((box for box in boxes if not any(_overlap(box, other) for other in taken)), boxes[0])
        taken.append(box)
        shapes.append(_Shape("text", x, box[3] - 4, role="label", text=text, align="middle"))
    return shapes


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether two boxes (left, top, right, bottom) share a point."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _shorten(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _floor(value: float) -> float:
    return next(floor for floor in (0.9, 0.8, 0.5, 0.0, -math.inf) if value >= floor)


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers between ``low`` and ``high``: up to seven from zero on, else 1, 2 and 5 of each power."""
    if low > 0:
        found = [factor * 10.0**power for power in range(16) for factor in (1, 2, 5)]
        found = [tick for tick in found if low <= tick <= high]
        return found if len(found) <= 7 else [tick for tick in found if f"{tick:e}"[0] == "1"]
    power = 10.0 ** math.floor(math.log10(max(high, 1.0)))
    step = next(part * power for part in (0.2, 0.5, 1.0, 2.0) if high / (part * power) <= 7)
    return [index * step for index in range(8) if index * step <= high]


def comparison(rows: Sequence[Contender]) -> str:
    """Return the figure as SVG text that stands alone; it follows the reader's light or dark setting.

    Args:
        rows: the networks, in the order of the picture.

    Raises:
        ConfigError: there is no row.

    >>> small, large = Contender("small", (1, 1, 8, 8), 100, 6400), Contender("large", (1, 1, 8, 8), 400, 25600)
    >>> comparison([small, large])[:4]
    '<svg'
    """
    shapes, width, height = _compose(rows)
    parts = [_as_markup(shape) for shape in shapes]
    told = "; ".join(f"{row.name}: {count(row.params)} parameters, {count(row.macs)} multiply–adds" for row in rows)
    page = tag("rect", width=width, height=height, style="fill:var(--card)")
    return tag(
        "svg", tag("style", Markup(CHART_STYLE)), page, *parts, xmlns="http://www.w3.org/2000/svg", class_="alone",
        viewBox=f"0 0 {width:g} {height:g}", width=width, height=height, role="img",
        aria_label=f"{_heading(rows)}. {told}",
    )  # fmt: skip


def _as_markup(shape: _Shape) -> Markup:
    colour, bold, size = _ROLES[shape.role]
    fill = f"fill:var(--{colour})"
    if shape.kind == "rect":
        return tag("rect", x=shape.x, y=shape.y, width=shape.width, height=shape.height, style=fill)
    if shape.kind == "disc":
        return tag("circle", cx=shape.x, cy=shape.y, r=shape.width, style=fill)
    font = f"font-size:{size}px;{'font-weight:600;' if bold else ''}text-anchor:{shape.align}"
    return tag("text", shape.text, x=shape.x, y=shape.y, style=f"{font};{fill}")


def comparison_picture(rows: Sequence[Contender]) -> Image.Image:
    """Return the figure as a picture on white, two pixels a unit.

    Args:
        rows: the networks, in the order of the picture.

    Raises:
        ConfigError: there is no row.

    >>> comparison_picture([Contender("small", (1, 1, 8, 8), 100, 6400)]).mode
    'RGB'
    """
    shapes, width, height = _compose(rows)
    # Discs have smooth edges when they are drawn larger and shrunk.
    fine = 2 * _SCALE
    picture = Image.new("RGB", (math.ceil(width * fine), math.ceil(height * fine)), light_colour("card"))
    draw = ImageDraw.Draw(picture)
    for shape in shapes:
        colour = light_colour(_ROLES[shape.role][0])
        x, y, w, h = (fine * value for value in (shape.x, shape.y, shape.width, shape.height))
        if shape.kind == "rect":
            draw.rectangle((x, y, x + w - 1, y + max(h, fine) - 1), fill=colour)
        elif shape.kind == "disc":
            draw.ellipse((x - w, y - w, x + w, y + w), fill=colour)
        else:
            _, bold, size = _ROLES[shape.role]
            anchor = {"start": "ls", "middle": "ms", "end": "rs"}[shape.align]
            font = ImageFont.load_default(size=size * fine)
            draw.text(
                (x, y),
                shape.text.translate(_PLAIN),
                fill=colour,
                font=font,
                anchor=anchor,
                stroke_width=fine // 4 if bold else 0,
            )
    return picture.resize((math.ceil(width * _SCALE), math.ceil(height * _SCALE)), Image.Resampling.LANCZOS)


def save_comparison(rows: Sequence[Contender], path: str | Path) -> tuple[Path, Path]:
    """Write the figure as SVG and as PNG beside each other, and return both paths.

    Args:
        rows: the networks, in the order of the picture.
        path: file to write; its ending, if .svg or .png, is replaced.

    Raises:
        ConfigError: there is no row, or the files cannot be written.
    """
    place = Path(path)
    stem = place.with_suffix("") if place.suffix in (".svg", ".png") else place
    files = (stem.with_name(f"{stem.name}.svg"), stem.with_name(f"{stem.name}.png"))
    contents = (comparison(rows).encode("utf-8"), png(comparison_picture(rows)))
    try:
        for file, content in zip(files, contents, strict=True):
            file.write_bytes(content)
    except OSError as error:
        raise ConfigError(
            f"output: cannot write {error.filename} ({error.strerror or error}). Give another --output."
        ) from None
    return files
