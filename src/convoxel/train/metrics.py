"""Counts right and wrong: confusion, Dice per class and case, accuracy. NumPy only; knows no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Tally", "confusion", "dice"]


def confusion(truth: NDArray[Any], predicted: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """Return counts (classes, classes): row = true class, column = predicted class.

    >>> confusion(np.array([0, 1, 1]), np.array([0, 1, 0]), 2).tolist()
    [[1, 0], [1, 1]]
    """
    joint = truth.astype(np.int64).reshape(-1) * classes + predicted.astype(np.int64).reshape(-1)
    return np.bincount(joint, minlength=classes * classes).reshape(classes, classes)


def dice(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return 2·|A∩B| / (|A| + |B|) per class from a confusion matrix; NaN where both are empty.

    >>> dice(np.array([[1, 0], [1, 1]])).round(3).tolist()
    [0.667, 0.667]
    """
    sizes = counts.sum(axis=0) + counts.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(sizes > 0, 2.0 * np.diag(counts) / sizes, np.nan)


@dataclass
class Tally:
    """The running figures of one pass over a split.

    Segmentation: a case is an image; the metric is the mean Dice over cases, then over the classes other
    than the background. Classification: a case is an image; the metric is accuracy, the classes' figures
    are the share of each class that was recognised.
    """

    task: str
    classes: Sequence[str]
    counts: NDArray[np.int64] = field(init=False)
    samples: list[dict[str, Any]] = field(default_factory=list)
    loss: float = 0.0

    def __post_init__(self) -> None:
        self.counts = np.zeros((len(self.classes), len(self.classes)), np.int64)

    def add_volume(self, name: str, counts: NDArray[np.int64], loss: float) -> None:
        """Count one segmented image by its confusion matrix."""
        self.counts += counts
        self.loss += loss
        per_class = {label: _number(value) for label, value in zip(self.classes, dice(counts), strict=True)}
        graded = [per_class[label] for label in self._graded() if per_class[label] is not None]
        mean = float(np.mean(np.asarray(graded, np.float64))) if graded else None
        self.samples.append({"name": name, "dice": per_class, "metric": mean})

    def add_class(self, name: str, truth: int, predicted: int, probability: float, loss: float) -> None:
        """Count one classified image."""
        self.counts[truth, predicted] += 1
        self.loss += loss
        self.samples.append(
            {
                "name": name,
                "label": self.classes[truth],
                "predicted": self.classes[predicted],
                "probability": round(probability, 6),
                "correct": truth == predicted,
            }
        )

    def figures(self) -> dict[str, Any]:
        """Return metric, per_class, confusion, loss and samples as plain numbers; None for "no case"."""
        if self.task == "segment":
            per_class = {label: self._mean_dice(label) for label in self._graded()}
            known = [value for value in per_class.values() if value is not None]
            metric = float(np.mean(known)) if known else 0.0
        else:
            rows = self.counts.sum(axis=1)
            per_class = {
                label: (float(self.counts[i, i] / rows[i]) if rows[i] else None) for i, label in enumerate(self.classes)
            }
            metric = float(np.trace(self.counts) / max(1, self.counts.sum()))
        return {
            "metric_name": "mean Dice" if self.task == "segment" else "accuracy",
            "metric": metric,
            "per_class": per_class,
            "confusion": self.counts.tolist(),
            "loss": self.loss / max(1, len(self.samples)),
            "samples": self.samples,
        }

    def _graded(self) -> Sequence[str]:
        return self.classes[1:] if len(self.classes) > 1 else self.classes

    def _mean_dice(self, label: str) -> float | None:
        values = [case["dice"][label] for case in self.samples if case["dice"][label] is not None]
        return float(np.mean(values)) if values else None


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
