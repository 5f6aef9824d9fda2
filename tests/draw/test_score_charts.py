"""Charts of a classification: where points stand, names, and what many classes look like."""

from __future__ import annotations

import numpy as np
import pytest

from convoxel.draw.score_charts import calibration_chart, precision_recall_chart, roc_chart
from convoxel.predict.class_curves import trace_curves
from convoxel.predict.classification_metric import ClassScores, auc, average_precision
from tests.support.drawing import SVG, check_texts, parsed

Lines = list[list[tuple[float, float]]]


def polylines(svg: object) -> Lines:
    found = [e.attrib["points"].split() for e in svg.iter(f"{SVG}polyline")]  # type: ignore[attr-defined]
    return [[tuple(map(float, pair.split(","))) for pair in points] for points in found]  # type: ignore[misc]


def test_curves_stand_where_their_points_say() -> None:
    figure = roc_chart({"cat": [(0.0, 0.0), (0.25, 0.5), (1.0, 1.0)]}, {"cat": 0.9})
    start, middle, end = polylines(parsed(figure))[-1]
    assert middle[0] == pytest.approx(start[0] + (end[0] - start[0]) / 4, abs=0.1)
    assert middle[1] == pytest.approx((start[1] + end[1]) / 2, abs=0.1) and end[1] < start[1]
    assert check_texts(figure) > 10
    assert [start, end] in polylines(parsed(figure))  # the line of guessing
    assert "cat, area 0.900" in {e.text for e in parsed(figure).iter(f"{SVG}text")}


@pytest.mark.parametrize("classes", [2, 7, 8, 20])
def test_few_classes_are_named_and_many_are_pointed_at(classes: int) -> None:
    curves = {f"class number {i}": [(0.0, 0.0), (i / 30, 0.9), (1.0, 1.0)] for i in range(classes)}
    for draw in (roc_chart, precision_recall_chart):
        figure = draw(curves, dict.fromkeys(curves, 0.5))
        assert check_texts(figure) > 10
        named = [e for e in parsed(figure).iter(f"{SVG}text") if (e.text or "").startswith("class number")]
        assert len(named) == (classes if classes <= 7 else 0)
        notes = [e.text or "" for e in parsed(figure).iter(f"{SVG}title")]
        assert sum(note.startswith("class number") for note in notes) == classes


def test_calibration_shows_accuracy_confidence_and_counts() -> None:
    figure = calibration_chart([(0.5, 0.25, 10), (0.9, 1.0, 40)], 0.12)
    svg = parsed(figure)
    assert figure.title == "Calibration, expected error 0.120" and check_texts(figure) > 10
    (low, high) = polylines(svg)[-1]
    guess = polylines(svg)[-2]
    (x0, y0), (x1, y1) = guess
    assert low == pytest.approx((x0 + 0.5 * (x1 - x0), y0 + 0.25 * (y1 - y0)), abs=0.1)
    assert high == pytest.approx((x0 + 0.9 * (x1 - x0), y1), abs=0.1)
    notes = [e.text for e in svg.iter(f"{SVG}title")]
    assert notes.count("10 images, 50.0 % sure, 25.0 % right") == 2
    assert calibration_chart([]).title == "Calibration"


def test_traced_curves_have_the_areas_of_the_metrics() -> None:
    """The area under the points is the metric's, and 5000 images are no more points than can be drawn."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 5000)
    logits = rng.normal(size=(5000, 3)) + np.eye(3)[truth]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    scores, ones = ClassScores(truth, shares), np.ones((1, 5000))
    found = trace_curves(scores, ["a", "b", "c"])
    for number, name in enumerate("abc"):
        roc, recall = np.array(found["roc"][name]), np.array(found["precision_recall"][name])
        assert len(roc) == len(recall) == 200 and roc[0].tolist() == [0, 0] and roc[-1].tolist() == [1, 1]
        assert np.trapezoid(roc[:, 1], roc[:, 0]) == pytest.approx(auc(scores, ones)[0, number], abs=2e-3)
        area = np.trapezoid(recall[:, 1], recall[:, 0])
        assert area == pytest.approx(average_precision(scores, ones)[0, number], abs=0.02)
        assert found["prevalence"][name] == pytest.approx((truth == number).mean())
    bins = found["calibration"]
    assert sum(each["images"] for each in bins) == 5000 and len(bins) <= 15
    lone = trace_curves(ClassScores(np.zeros(4, int), np.array([[0.6, 0.4]] * 4)), ["a", "b"])
    assert lone["roc"] == {} and lone["calibration"] == [
        {"confidence": pytest.approx(0.6), "accuracy": 1.0, "images": 4}
    ]
