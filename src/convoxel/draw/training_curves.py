"""Curves of a training run: loss, metric, learning rate and speed over time or steps.

Lines differ by marker and dash as well as by colour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from convoxel.draw.caption import EDGE, legend
from convoxel.draw.chart import Axis, Plot, power_ticks, round_axis, ticks
from convoxel.draw.figure import Figure, beside
from convoxel.draw.letter import fit
from convoxel.draw.quantity import duration, figure, number
from convoxel.draw.scene import Box, Disc, Group, Line, Look, Point, Shape, Words
from convoxel.errors import ConfigError, check_choice

_WIDTH, _HEIGHT, _BOTTOM = 480.0, 290.0, 46.0
_NAMED = 7  # classes with a colour of their own; more are drawn thin and grey
_TRAIN = Look(stroke="c5", weight=1.6, dash=(5, 2.5))
_VALIDATION, _MEAN = Look(stroke="c7", weight=2.2), Look(stroke="ink", weight=2.2)
_RATE, _SPEED = Look(stroke="c3", weight=2), Look(stroke="c6", weight=2)
# Of several runs: blue and orange first, each with a dash of its own.
_ORDER, _DASHES = (7, 1, 3, 6, 5, 2, 4), ((), (6.0, 3.0), (2.0, 2.5))
_FAINT = Look(stroke="faint", opacity=0.55)


@dataclass(frozen=True)
class Curve:
    """One line of a chart.

    Attributes:
        name: text of the legend; empty: not in it.
        points: (x, y), left to right.
        look: colour, weight and dash of the line; markers take its colour.
        notes: what each point says when pointed at; without notes there are no markers.
        marker: "circle", "square", "diamond" or "" (default: none).
    """

    name: str
    points: Sequence[Point]
    look: Look
    notes: Sequence[str] = ()
    marker: str = ""


def curves(metrics: Sequence[Mapping[str, object]], *, over: str = "time", metric_name: str = "metric") -> Figure:
    """Return the curves of loss, metric, learning rate and speed, side by side.

    Args:
        metrics: the rows of ``metrics.jsonl``, in order.
        over: the horizontal axis, "time" or "step" (default "time").
        metric_name: name of the metric, such as "mean Dice".

    Raises:
        ConfigError: ``over`` is neither, or there is no row.

    >>> row = {"step": 10, "time_s": 2.0, "train_loss": 1.0, "validation_loss": 1.2, "metric": 0.5,
    ...        "per_class": {}, "learning_rate": 0.01}
    >>> curves([row, {**row, "step": 20, "time_s": 4.0, "metric": 0.7}]).title
    'Training, 2 validations'
    """
    if not metrics:
        raise ConfigError("curves: metrics is empty; a run has curves after its first validation.")
    title = f"Training, {len(metrics)} validation{'' if len(metrics) == 1 else 's'}"
    return beside(charts(metrics, over=over, metric_name=metric_name), title)


def charts(metrics: Sequence[Mapping[str, object]], *, over: str = "time", metric_name: str = "metric") -> list[Figure]:
    """Return the charts of :func:`curves` one by one; those without a point are left out."""
    check_choice("curves: over", over, ("time", "step"))
    unit, scale = _time_unit(metrics) if over == "time" else ("", 1.0)
    key, axis = ("time_s", f"training time ({unit})") if over == "time" else ("step", "optimiser steps")
    notes = [_note(row, metric_name) for row in metrics]

    def curve(name: str, values: Sequence[float | None], look: Look, marker: str = "circle") -> Curve:
        found = [
            ((x / scale, y), note)
            for row, y, note in zip(metrics, values, notes, strict=True)
            if y is not None and (x := number(row.get(key))) is not None
        ]
        return Curve(name, [point for point, _ in found], look, [note for _, note in found], marker)

    def column(name: str) -> list[float | None]:
        return [number(row.get(name)) for row in metrics]

    drawn: list[tuple[str, list[Curve], dict[str, bool]]] = [
        (
            "Loss",
            [
                curve("training", column("train_loss"), _TRAIN, "square"),
                curve("validation", column("validation_loss"), _VALIDATION),
            ],
            {"logarithmic": True},
        ),
        (
            _metric_title(metric_name),
            [*_class_curves(metrics, curve), curve(metric_name, column("metric"), _MEAN)],
            {"share": True},
        ),
        ("Learning rate", [curve("", column("learning_rate"), _RATE)], {}),
        ("Speed in samples per second", [curve("", column("samples_per_s"), _SPEED)], {}),
    ]
    return [
        line_chart(title, [each for each in lines if each.points], axis, **options)
        for title, lines, options in drawn
        if any(each.points for each in lines)
    ]


def compared_charts(
    runs: Mapping[str, Sequence[Mapping[str, object]]], *, over: str = "time", metric_name: str = "metric"
) -> list[Figure]:
    """Return metric and losses of several runs, a line for each; charts without a point are left out.

    Args:
        runs: the rows of ``metrics.jsonl`` of each run, by its name.
        over: the horizontal axis, "time" or "step" (default "time").
        metric_name: name of the metric, such as "mean Dice".

    Raises:
        ConfigError: ``over`` is neither.

    >>> rows = [{"step": 10, "time_s": 2.0, "metric": 0.5}, {"step": 20, "time_s": 4.0, "metric": 0.7}]
    >>> [chart.title for chart in compared_charts({"small": rows, "large": rows}, metric_name="accuracy")]
    ['Accuracy on the validation part']
    """
    check_choice("compared_charts: over", over, ("time", "step"))
    unit, scale = _time_unit([row for rows in runs.values() for row in rows]) if over == "time" else ("", 1.0)
    key, axis = ("time_s", f"training time ({unit})") if over == "time" else ("step", "optimiser steps")
    drawn: list[tuple[str, str, dict[str, bool]]] = [
        (_metric_title(metric_name), "metric", {"share": True, "marked": False}),
        ("Validation loss", "validation_loss", {"logarithmic": True}),
        ("Training loss", "train_loss", {"logarithmic": True}),
    ]
    found = []
    for title, column, options in drawn:
        lines = []
        for index, (name, rows) in enumerate(runs.items()):
            known = [row for row in rows if number(row.get(key)) is not None and number(row.get(column)) is not None]
            points = [((number(row[key]) or 0.0) / scale, number(row[column]) or 0.0) for row in known]
            look = Look(stroke=f"c{_ORDER[index % 7]}", weight=2.2, dash=_DASHES[index % 3])
            notes = [_note(row, metric_name) for row in known]
            lines += [Curve(name, points, look, notes, ("circle", "square", "diamond")[index % 3])] if points else []
        if lines:
            found.append(line_chart(title, lines, axis, **options))
    return found


def _metric_title(metric_name: str) -> str:
    return f"{metric_name[:1].upper()}{metric_name[1:]} on the validation part"


def line_chart(
    title: str,
    lines: Sequence[Curve],
    axis: str,
    *,
    logarithmic: bool = False,
    share: bool = False,
    marked: bool = True,
) -> Figure:
    """Return one chart.

    Args:
        title: its heading.
        lines: at least one, with at least one point each; the last is drawn on top.
        axis: name of the horizontal axis.
        logarithmic: a logarithmic vertical axis, if the values span more than a factor of five (default False).
        share: values lie between 0 and 1 and large is good (default False).
        marked: mark the best point of the last line's shares (default True).
    """
    right = max(x for line in lines for x, _ in line.points)
    x = Axis(0.0, right, tuple(t for t in ticks(0.0, right, 6) if t <= right * 1.0001), _thousands)
    y = _vertical([y for line in lines for _, y in line.points], logarithmic, share)
    named = [line for line in lines if line.name] if len(lines) > 1 else []
    told, _, top = legend([(_sample(line), fit(line.name, 250)) for line in named], 34, _WIDTH)
    left = EDGE + max(Plot.room(y), 36.0)
    top += 6 if named else -12
    plot = Plot(left, top, _WIDTH - EDGE - left, _HEIGHT - _BOTTOM - top, x, y)
    shapes: list[Shape] = [Words(EDGE, 23, title, look=Look(fill="ink", size=14, bold=True)), *told]
    shapes += plot.axes(axis)
    for line in lines:
        places = tuple(plot.at(*point) for point in line.points)
        shapes.append(Line(places, look=line.look))
        for place, note in zip(places, line.notes, strict=False):
            shapes += _marker(line, place, f"{line.name}: {note}" if line.name else note)
    if share and marked:
        shapes += _mark_best(lines[-1], plot)
    return Figure(title, _told(title, lines, axis), _WIDTH, _HEIGHT, tuple(shapes))


def _class_curves(metrics: Sequence[Mapping[str, object]], curve: Callable[..., Curve]) -> list[Curve]:
    """Return a line for each class, coloured if there are few; one class alone would only repeat the mean."""
    rows = [table if isinstance(table := row.get("per_class"), Mapping) else {} for row in metrics]
    names = list(dict.fromkeys(str(name) for row in rows for name in row))
    if len(names) < 2:
        return []
    values = {name: [number(row.get(name)) for row in rows] for name in names}
    if len(names) > _NAMED:
        return [curve("" if i else "single classes", values[name], _FAINT, "") for i, name in enumerate(names)]
    return [
        curve(name, values[name], Look(stroke=f"c{i + 1}", weight=1.6, dash=(5, 2.5)), ("square", "diamond")[i % 2])
        for i, name in enumerate(names)
    ]


def _time_unit(metrics: Sequence[Mapping[str, object]]) -> tuple[str, float]:
    longest = max((number(row.get("time_s")) or 0.0 for row in metrics), default=0.0)
    return next(((unit, scale) for unit, scale in (("s", 1.0), ("min", 60.0)) if longest <= 120 * scale), ("h", 3600.0))


def _note(row: Mapping[str, object], metric_name: str) -> str:
    words = [f"step {row.get('step', '?')}", f"epoch {row.get('epoch', '?')}"]
    if (time_s := number(row.get("time_s"))) is not None:
        words.append(duration(time_s))
    for key, name in (("train_loss", "training loss"), ("validation_loss", "validation loss")):
        if (value := number(row.get(key))) is not None:
            words.append(f"{name} {value:.4g}")
    words.append(f"{metric_name} {figure(number(row.get('metric')))}")
    return ", ".join(words)


def _vertical(ys: Sequence[float], logarithmic: bool, share: bool) -> Axis:
    low, high = min(ys), max(ys)
    if logarithmic and low > 0 and high / low > 5:
        powers = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)  # of a loss that diverges, too
        steps = [factor * 10.0**power for power in powers for factor in (1, 2, 5, 10)]
        first = max(step for step in steps if step <= low * 1.0001)
        last = min(step for step in steps if step >= high * 0.9999)
        return Axis(first, last, power_ticks(first, last, 9), logarithmic=True)
    if share and low >= 0 and high <= 1:
        return round_axis(0.0, 1.0, 5)  # a part of it would show noise as progress
    low = min(0.0, low)
    return round_axis(low, high if high > low else low + 1.0, 5)


def _thousands(value: float) -> str:
    # A narrow no-break space between thousands: many would read a comma as a decimal point.
    return f"{value:,.0f}".replace(",", "\u202f") if value >= 1000 else f"{value:g}"


def _sample(line: Curve) -> Group:
    """Return a piece of a line with its marker, 24 wide, for the legend."""
    return Group((Line(((0, 6.5), (24, 6.5)), look=line.look), *_marker(line, (12, 6.5), "")))


def _marker(line: Curve, place: Point, note: str) -> Iterator[Shape]:
    (x, y), look = place, Look(fill=line.look.stroke)
    if line.marker == "circle":
        yield Disc(x, y, 3.1, look=look, note=note)
    elif line.marker == "square":
        yield Box(x - 2.6, y - 2.6, 5.2, 5.2, look=look, note=note)
    elif line.marker == "diamond":
        yield Line(((x, y - 3.7), (x + 3.7, y), (x, y + 3.7), (x - 3.7, y)), closed=True, look=look, note=note)


def _mark_best(line: Curve, plot: Plot) -> Iterator[Shape]:
    best = max(line.points, key=lambda point: point[1])
    x, y = plot.at(*best)
    yield Disc(x, y, 7, look=Look(stroke="ink", weight=1.5))
    # Other lines may pass beside the ring, so the number stands above it.
    align, shift = ("end", 6) if x > _WIDTH * 0.6 else ("start", -6) if x < _WIDTH * 0.25 else ("middle", 0)
    look = Look(fill="ink", stroke="card", weight=4, size=12, bold=True, align=align)
    yield Words(x + shift, y - 13, f"best {best[1]:.3f}", look=look)


def _told(title: str, lines: Sequence[Curve], axis: str) -> str:
    """Return the chart in words: the first and last value of each named line."""
    told = [
        f"{line.name or title.lower()} from {line.points[0][1]:.3g} to {line.points[-1][1]:.3g}"
        for line in lines
        if line.name or len(lines) == 1
    ]
    return f"{title} over {axis}: {'; '.join(told)}; {len(lines[-1].points)} points."
