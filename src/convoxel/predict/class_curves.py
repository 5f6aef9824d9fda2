"""Curves of a classification: ROC and precision-recall of each class against the rest, and calibration.

They are stored with an evaluation to be drawn, so each holds at most a few hundred points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from convoxel.predict.classification_metric import BINS, ClassScores, LabelScores, thresholds

_MOST_POINTS = 200
_MOST_CLASSES = 24  # curves of more classes cannot be told apart


class Calibration(TypedDict):
    """A bin of confidence: mean confidence, accuracy, and number of images."""

    confidence: float
    accuracy: float
    images: int


class Curves(TypedDict):
    """Curves by class: ROC points (false positive rate, sensitivity), precision-recall points (recall, precision).

    ``prevalence`` is the share of each class's images, which is the precision of guessing.
    """

    roc: dict[str, list[tuple[float, float]]]
    precision_recall: dict[str, list[tuple[float, float]]]
    prevalence: dict[str, float]
    calibration: list[Calibration]


def trace_curves(scores: ClassScores | LabelScores, classes: Sequence[str]) -> Curves:
    """Return the curves; those of classes that no image or every image has are left out.

    Where images may have several classes there is no single confidence, and no calibration.
    """
    roc, recalls, prevalence = {}, {}, {}
    for number, name in enumerate(classes[:_MOST_CLASSES]):
        own = scores.own[:, number]
        if 0 < own.sum() < len(own):
            hits, alarms = (np.append(0.0, side[0]) for side in thresholds(scores, number, np.ones((1, len(own)))))
            roc[name] = _thin(np.stack([alarms / alarms[-1], hits / hits[-1]], axis=1))
            given = hits + alarms
            precision = np.divide(hits, given, out=np.ones_like(given), where=given > 0)
            recalls[name] = _thin(np.stack([hits / hits[-1], precision], axis=1))
            prevalence[name] = float(own.mean())
    return {"roc": roc, "precision_recall": recalls, "prevalence": prevalence,
            "calibration": _calibration(scores) if isinstance(scores, ClassScores) else []}  # fmt: skip


def _thin(points: NDArray[np.float64]) -> list[tuple[float, float]]:
    """Return at most so many points, both ends among them."""
    kept = np.unique(np.linspace(0, len(points) - 1, min(len(points), _MOST_POINTS)).round().astype(int))
    return [(round(float(x), 6), round(float(y), 6)) for x, y in points[kept]]


def _calibration(scores: ClassScores) -> list[Calibration]:
    found: list[Calibration] = []
    for number in range(BINS):
        inside = scores.bins == number
        if inside.any():
            found.append(
                {
                    "confidence": float(scores.confidence[inside].mean()),
                    "accuracy": float(scores.right[inside].mean()),
                    "images": int(inside.sum()),
                }
            )
    return found
