"""Charts of a classification: ROC and precision-recall curves of each class, calibration; values of a regression.

The points were measured by others (``convoxel.predict.class_curves``); areas under curves are those of the metrics, not
of the thinned points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from convoxel.draw.caption import EDGE, legend
from convoxel.draw.chart import Axis, Plot, ticks
from convoxel.draw.figure import Figure
from convoxel.draw.letter import fit
from convoxel.draw.quantity import percent
from convoxel.draw.scene import Box, Disc, Group, Line, Look, Point, Shape, Words

_WIDTH, _SIDE = 480.0, 360.0
_NAMED = 7  # classes with a colour of their own; more are drawn thin and grey
_TITLE, _SMALL = Look(fill="ink", size=14, bold=True), Look(fill="soft", size=12)
_GUESS = Look(stroke="faint", weight=1.5, dash=(4, 3))
_FAINT = Look(stroke="faint", opacity=0.55)
_DASHES: tuple[tuple[float, ...], ...] = ((), (7, 3), (2, 2.5), (9, 3, 2, 3))  # colours are not the only difference
_DOT = Look(fill="c1", opacity=0.65)
_AXIS = Axis(0.0, 1.0, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
_BARS = 54.0  # height of the bars that count images


def roc_chart(curves: Mapping[str, Sequence[Point]], areas: Mapping[str, float]) -> Figure:
    """Return the ROC curve of each class against the rest, beside the line of guessing.

    Args:
        curves: points (false positive rate, sensitivity) of each class, from (0, 0) to (1, 1).
        areas: area under each curve, for the legend.

    >>> roc_chart({"cat": [(0.0, 0.0), (0.0, 0.8), (1.0, 1.0)]}, {"cat": 0.9}).title
    'ROC curves'
    """
    return _curves(
        "ROC curves", curves, {name: f"{fit(name, 130)}, area {area:.3f}" for name, area in areas.items()},
        ("false positive rate: share of other images taken for the class", "sensitivity"),
        [Line(((0.0, 0.0), (1.0, 1.0)), look=_GUESS)],
    )  # fmt: skip


def precision_recall_chart(curves: Mapping[str, Sequence[Point]], areas: Mapping[str, float]) -> Figure:
    """Return the precision-recall curve of each class against the rest.

    Args:
        curves: points (recall, precision) of each class, by rising recall.
        areas: average precision of each class, for the legend.

    >>> precision_recall_chart({"cat": [(0.0, 1.0), (1.0, 0.5)]}, {"cat": 0.8}).title
    'Precision and recall'
    """
    return _curves(
        "Precision and recall", curves, {name: f"{fit(name, 130)}, average {area:.3f}" for name, area in areas.items()},
        ("recall: recognised share of the class", "precision"),
    )  # fmt: skip


def value_chart(points: Sequence[tuple[float, float, str]], target: str) -> Figure:
    """Return predicted over true values, beside the line where both are equal.

    Args:
        points: true value, predicted value and name of each image.
        target: name of the value.

    >>> value_chart([(1.0, 1.2, "a"), (2.0, 1.9, "b")], "age").title
    'Predicted and true age'
    """
    values = [value for point in points for value in point[:2]]
    marks = ticks(min(values), max(values), 5)
    axis = Axis(marks[0], marks[-1], marks) if len(marks) > 1 else Axis(marks[0] - 1, marks[0] + 1, marks)
    title, axes = f"Predicted and true {fit(target, 240)}", ("true value", "predicted value")
    shapes, plot, height = _frame(title, [(Group((Disc(12, 6.5, 4, look=_DOT),)), "an image")], axes, axis)
    shapes.append(Line((plot.at(axis.low, axis.low), plot.at(axis.high, axis.high)), look=_GUESS))
    for truth, found, name in points:
        shapes.append(Disc(*plot.at(truth, found), 3.5, look=_DOT, note=f"{name}: {truth:.4g}, predicted {found:.4g}"))
    words = f"{len(points)} images; on the line both are equal."
    return Figure(title, words, _WIDTH, height, tuple(shapes))


def _curves(
    title: str,
    curves: Mapping[str, Sequence[Point]],
    names: Mapping[str, str],
    axes: tuple[str, str],
    guesses: Sequence[Line] = (),
) -> Figure:
    looks = {
        name: Look(stroke=f"c{place + 1}", weight=2, dash=_DASHES[place % 4]) if len(curves) <= _NAMED else _FAINT
        for place, name in enumerate(curves)
    }
    told = [
        (Group((Line(((0, 6.5), (24, 6.5)), look=look),)), names.get(name) or fit(name, 200))
        for name, look in looks.items()
    ][: _NAMED if len(curves) <= _NAMED else 1]
    if len(curves) > _NAMED:
        told = [(told[0][0], f"each of {len(curves)} classes; point at a curve for its name")]
    shapes, plot, height = _frame(title, told, axes)
    for guess in guesses:
        shapes.append(Line(tuple(plot.at(*point) for point in guess.points), look=guess.look))
    for name, points in curves.items():
        shapes.append(Line(tuple(plot.at(*point) for point in points), look=looks[name], note=names.get(name, name)))
    said = "; ".join(names.get(name, name) for name in curves)
    return Figure(title, f"{said}. Across: {axes[0]}; upwards: {axes[1]}.", _WIDTH, height, tuple(shapes))


def calibration_chart(bins: Sequence[tuple[float, float, int]], error: float | None = None) -> Figure:
    """Return the accuracy at each confidence, beside the line where both are equal, and how many images there are.

    Args:
        bins: mean confidence, accuracy and number of images of each bin, by rising confidence.
        error: the expected calibration error, for the title (default: not shown).

    >>> calibration_chart([(0.55, 0.5, 4), (0.95, 0.9, 20)], 0.05).title
    'Calibration, expected error 0.050'
    """
    title = "Calibration" + ("" if error is None else f", expected error {error:.3f}")
    line, look = Look(stroke="c5", weight=2), Look(fill="c5", stroke="card", weight=1.5)
    told: list[tuple[Look | Group, str]] = [
        (Group((Line(((0, 6.5), (24, 6.5)), look=line), Disc(12, 6.5, 4, look=look))), "accuracy"),
        (Group((Line(((0, 6.5), (24, 6.5)), look=_GUESS),)), "as sure as right"),
        (Look(fill="c2", opacity=0.7), "images"),
    ]
    axes = ("confidence: probability of the class given", "accuracy")
    shapes, plot, height = _frame(title, told, axes)
    most = max((images for _, _, images in bins), default=1)
    for confidence, accuracy, images in bins:
        x, tall = plot.at(confidence, 0.0)[0], _BARS * images / most
        note = f"{images} images, {percent(confidence)} sure, {percent(accuracy)} right"
        shapes.append(Box(x - 5, plot.base - tall, 10, tall, look=Look(fill="c2", opacity=0.7), note=note))
    shapes.append(Line((plot.at(0.0, 0.0), plot.at(1.0, 1.0)), look=_GUESS))
    places = [plot.at(confidence, accuracy) for confidence, accuracy, _ in bins]
    shapes.append(Line(tuple(places), look=line))
    for (x, y), (confidence, accuracy, images) in zip(places, bins, strict=True):
        note = f"{images} images, {percent(confidence)} sure, {percent(accuracy)} right"
        shapes.append(Disc(x, y, 4.5, look=look, note=note))
    said = "; ".join(f"{percent(c)} sure: {percent(a)} right of {images}" for c, a, images in bins)
    return Figure(title, f"{said}.", _WIDTH, height, tuple(shapes))


def _frame(
    title: str, told: Sequence[tuple[Look | Group, str]], axes: tuple[str, str], axis: Axis = _AXIS
) -> tuple[list[Shape], Plot, float]:
    """Return the heading, legend and axes of a square chart; its area; the height of the whole."""
    swatches, _, top = legend(told, 34, _WIDTH)
    left = EDGE + Plot.room(axis)
    plot = Plot(left, top + 22, _WIDTH - EDGE - 8 - left, _SIDE, axis, axis)
    shapes: list[Shape] = [Words(EDGE, 23, title, look=_TITLE), *swatches]
    shapes += [Words(EDGE, top + 10, axes[1], look=_SMALL), *plot.axes(axes[0])]
    return shapes, plot, plot.base + 46
