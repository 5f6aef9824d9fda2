"""Curves of a training run as SVG text: loss, metric, learning rate and speed over time or steps.

A chart is plain SVG whose colours come from a style sheet, so that one text serves light and dark pages.
Lines differ by marker and dash as well as by colour. No script, no font file, no plotting library.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convoxel.draw.markup import Markup, tag
from convoxel.draw.quantity import duration, figure
from convoxel.draw.style import CHART_STYLE
from convoxel.errors import ConfigError

__all__ = ["Line", "chart", "charts", "curves", "number"]

_WIDTH, _HEIGHT = 480.0, 290.0
_LEFT, _RIGHT, _BOTTOM = 52.0, 14.0, 42.0
_LETTER = 6.3  # mean width of a letter at 12 px; generous, so that legends never overlap
_NAMED = 7  # classes with a colour of their own; more are drawn thin and grey

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: for the legend; empty: not in it.
        points: (x, y), left to right.
        look: its class in the style sheet.
        notes: what each point says when pointed at; empty: markers are left out.
        marker: "circle", "square", "diamond" or "".
    """

    name: str
    points: Sequence[Point]
    look: str
    notes: Sequence[str] = ()
    marker: str = ""


def curves(metrics: Sequence[Mapping[str, Any]], *, over: str = "time", metric_name: str = "metric") -> str:
    """Return one SVG document with the curves of loss, metric, learning rate and speed.

    Args:
        metrics: the rows of ``metrics.jsonl``, in order.
        over: the horizontal axis, "time" or "step".
        metric_name: what the metric is, such as "mean Dice".

    Returns:
        SVG text that stands alone; it follows the reader's light or dark setting.

    Raises:
        ConfigError: ``over`` is neither, or there is no row.

    >>> row = {"step": 10, "time_s": 2.0, "train_loss": 1.0, "validation_loss": 1.2, "metric": 0.5,
    ...        "per_class": {}, "learning_rate": 0.01}
    >>> curves([row, {**row, "step": 20, "time_s": 4.0, "metric": 0.7}])[:4]
    '<svg'
    """
    if not metrics:
        raise ConfigError("curves: metrics is empty; a run has curves after its first validation.")
    drawn = charts(metrics, over=over, metric_name=metric_name)
    placed = [tag("g", svg, transform=f"translate({index * (_WIDTH + 16)} 0)") for index, svg in enumerate(drawn)]
    width = len(drawn) * (_WIDTH + 16) - 16
    return tag(
        "svg",
        tag("style", Markup(CHART_STYLE)),
        *placed,
        xmlns="http://www.w3.org/2000/svg",
        class_="alone",
        viewBox=f"0 0 {width:g} {_HEIGHT:g}",
        width=width,
        height=_HEIGHT,
    )


def charts(metrics: Sequence[Mapping[str, Any]], *, over: str = "time", metric_name: str = "metric") -> list[Markup]:
    """Return the charts of :func:`curves`, each an SVG element; those without a point are left out."""
    if over not in ("time", "step"):
        raise ConfigError(f"curves: over is {over!r}; expected 'time' or 'step'.")
    unit, scale = _time_unit(metrics) if over == "time" else ("", 1.0)
    key, axis = ("time_s", f"training time ({unit})") if over == "time" else ("step", "optimiser steps")
    notes = [_note(row, metric_name) for row in metrics]

    def line(name: str, source: Mapping[int, float | None], look: str, marker: str = "circle") -> Line:
        found = [
            ((x / scale, y), notes[i])
            for i, row in enumerate(metrics)
            if (x := number(row.get(key))) is not None and (y := source.get(i)) is not None
        ]
        return Line(name, [point for point, _ in found], look, [note for _, note in found], marker)

    def column(name: str) -> dict[int, float | None]:
        return {i: number(row.get(name)) for i, row in enumerate(metrics)}

    loss = [
        line("training", column("train_loss"), "train", "square"),
        line("validation", column("validation_loss"), "validation"),
    ]
    metric = [*_class_lines(metrics, line), line(metric_name, column("metric"), "mean")]
    rate = [line("", column("learning_rate"), "rate")]
    speed = [line("", column("samples_per_s"), "speed")]
    return [
        chart(title, [item for item in lines if item.points], axis, **options)
        for title, lines, options in (
            ("Loss", loss, {"logarithmic": True}),
            (f"{metric_name[:1].upper()}{metric_name[1:]} on the validation part", metric, {"share": True}),
            ("Learning rate", rate, {}),
            ("Speed in samples per second", speed, {}),
        )
        if any(item.points for item in lines)
    ]


def chart(title: str, lines: Sequence[Line], axis: str, *, logarithmic: bool = False, share: bool = False) -> Markup:
    """Return one chart as an SVG element.

    Args:
        title: its heading.
        lines: at least one, with at least one point each; the last is drawn on top.
        axis: what the horizontal axis shows.
        logarithmic: a logarithmic vertical axis, if the values span more than a factor of five.
        share: values lie between 0 and 1 and large is good; the last line's best point is marked.
    """
    ys = [y for line in lines for _, y in line.points]
    low, high, ticks, log = _vertical(ys, logarithmic, share)
    right = max(x for line in lines for x, _ in line.points)
    x_ticks = [t for t in _ticks(0.0, right, 6) if t <= right * 1.0001]
    legend, top = _legend([line for line in lines if line.name] if len(lines) > 1 else [])

    def place(point: Point) -> Point:
        x = _LEFT + point[0] / (right or 1.0) * (_WIDTH - _LEFT - _RIGHT)
        value, first, last = (math.log(v) if log else v for v in (point[1], low, high))
        return x, _HEIGHT - _BOTTOM - (value - first) / (last - first) * (_HEIGHT - _BOTTOM - top)

    parts = [tag("text", title, x=0, y=15, class_="title"), *legend]
    for value in ticks:
        y = place((0.0, value))[1]
        parts.append(tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(tag("text", f"{value:g}", x=_LEFT - 8, y=y + 4, class_="tick end"))
    for value in x_ticks:
        x = place((value, high))[0]
        parts.append(tag("text", _thousands(value), x=x, y=_HEIGHT - _BOTTOM + 17, class_="tick middle"))
    base = _HEIGHT - _BOTTOM
    parts.append(tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=base, y2=base, class_="axis"))
    parts.append(tag("text", axis, x=(_LEFT + _WIDTH - _RIGHT) / 2, y=_HEIGHT - 6, class_="tick middle"))
    parts += [_draw_line(line, [place(point) for point in line.points]) for line in lines]
    if share:
        parts += _mark_best(lines[-1], place)
    return tag(
        "svg", *parts, class_="chart", viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}", width=_WIDTH, height=_HEIGHT,
        role="img", aria_label=_describe(title, lines, axis),
    )  # fmt: skip


def number(value: object) -> float | None:
    """Return a finite number as a float; None for anything else (also NaN, which JSON of old runs may hold)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _class_lines(metrics: Sequence[Mapping[str, Any]], line: Any) -> list[Line]:
    """Return a line a class, coloured if there are few; one class alone would only repeat the mean."""
    tables = [row.get("per_class") for row in metrics]
    rows = [row if isinstance(row, Mapping) else {} for row in tables]
    names = list(dict.fromkeys(str(name) for row in rows for name in row))
    if len(names) < 2:
        return []
    few = len(names) <= _NAMED
    return [
        line(
            name if few else ("single classes" if index == 0 else ""),
            {i: number(row.get(name)) for i, row in enumerate(rows)},
            f"class{index % _NAMED + 1}" if few else "faint",
            ("square", "diamond")[index % 2] if few else "",
        )
        for index, name in enumerate(names)
    ]


def _time_unit(metrics: Sequence[Mapping[str, Any]]) -> tuple[str, float]:
    longest = max((number(row.get("time_s")) or 0.0 for row in metrics), default=0.0)
    for unit, scale in (("s", 1.0), ("min", 60.0)):
        if longest <= 120 * scale:
            return unit, scale
    return "h", 3600.0


def _note(row: Mapping[str, Any], metric_name: str) -> str:
    time_s = number(row.get("time_s"))
    words = [f"step {row.get('step', '?')}", f"epoch {row.get('epoch', '?')}"]
    if time_s is not None:
        words.append(duration(time_s))
    for key, name in (("train_loss", "training loss"), ("validation_loss", "validation loss")):
        if (value := number(row.get(key))) is not None:
            words.append(f"{name} {value:.4g}")
    words.append(f"{metric_name} {figure(number(row.get('metric')))}")
    return ", ".join(words)


def _vertical(ys: Sequence[float], logarithmic: bool, share: bool) -> tuple[float, float, list[float], bool]:
    """Return (lowest, highest, ticks, whether logarithmic) of the vertical axis."""
    low, high = min(ys), max(ys)
    if logarithmic and low > 0 and high / low > 5:
        steps = [m * 10.0**e for e in range(-12, 13) for m in (1, 2, 5)]
        first = max(s for s in steps if s <= low * 1.0001)
        last = min(s for s in steps if s >= high * 0.9999)
        ticks = [s for s in steps if first <= s <= last]
        return first, last, ticks if len(ticks) <= 9 else [t for t in ticks if f"{t:e}"[0] == "1"], True
    if share and low >= 0 and high <= 1:
        floor = next(f for f in (0.9, 0.8, 0.5, 0.0) if low >= f)
        return floor, 1.0, _ticks(floor, 1.0, 5), False
    low = min(0.0, low)
    ticks = _ticks(low, high if high > low else low + 1.0, 5)
    return ticks[0], ticks[-1], ticks, False


def _ticks(low: float, high: float, wanted: int) -> list[float]:
    """Return round values from at most ``low`` to at least ``high``."""
    span = (high - low) or 1.0
    power = 10.0 ** math.floor(math.log10(span / wanted))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if span / (m * power) <= wanted)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _thousands(value: float) -> str:
    # A narrow no-break space between thousands: a comma would read as a decimal point to many.
    return f"{value:,.0f}".replace(",", "\u202f") if value >= 1000 else f"{value:g}"


def _legend(lines: Sequence[Line]) -> tuple[list[Markup], float]:
    """Return the legend under the title, in as many rows as it needs, and where the plot begins."""
    parts: list[Markup] = []
    left, row = 0.0, 36.0
    for line in lines:
        name = line.name if len(line.name) <= 40 else f"{line.name[:39]}…"
        wide = 34 + _LETTER * len(name) + 12
        if left and left + wide > _WIDTH:
            left, row = 0.0, row + 18
        parts.append(_draw_line(Line("", [(left, row), (left + 24, row)], line.look), [(left, row), (left + 24, row)]))
        parts.append(_marker(line.marker, (left + 12, row), line.look))
        parts.append(tag("text", name, x=left + 31, y=row + 4, class_="tick"))
        left += wide
    return parts, (row + 20 if lines else 38.0)


def _draw_line(line: Line, places: Sequence[Point]) -> Markup:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    marks = [
        tag("g", tag("title", f"{line.name}: {note}" if line.name else note), _marker(line.marker, place, line.look))
        for place, note in zip(places, line.notes, strict=False)
        if line.marker
    ]
    return tag("g", tag("polyline", points=path, class_=f"line {line.look}"), *marks)


def _marker(kind: str, place: Point, look: str) -> Markup:
    x, y = place
    if kind == "circle":
        return tag("circle", cx=x, cy=y, r=3.1, class_=f"mark {look}")
    if kind in ("square", "diamond"):
        turn = f"rotate(45 {x:.1f} {y:.1f})" if kind == "diamond" else None
        return tag("rect", x=x - 2.6, y=y - 2.6, width=5.2, height=5.2, transform=turn, class_=f"mark {look}")
    return Markup("")


def _mark_best(line: Line, place: Any) -> list[Markup]:
    best = max(line.points, key=lambda point: point[1])
    x, y = place(best)
    # Beside the ring there may be other lines; above the plot's curves there is always room for a number.
    side = "end" if x > _WIDTH * 0.6 else "start" if x < _WIDTH * 0.25 else "middle"
    shift = {"end": 6, "start": -6, "middle": 0}[side]
    return [
        tag("circle", cx=x, cy=y, r=7, class_="ring"),
        tag("text", f"best {best[1]:.3f}", x=x + shift, y=y - 13, class_=f"best {side}"),
    ]


def _describe(title: str, lines: Sequence[Line], axis: str) -> str:
    """Return the chart in words: each named line's first and last value."""
    told = [
        f"{line.name or title.lower()} from {line.points[0][1]:.3g} to {line.points[-1][1]:.3g}"
        for line in lines
        if line.name or len(lines) == 1
    ]
    return f"{title} over {axis}: {'; '.join(told)}; {len(lines[-1].points)} points."
