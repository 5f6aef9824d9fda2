"""Metrics of predictions: confusion, Dice per class and image, accuracy, and the loss of whole images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

Labels = NDArray[np.unsignedinteger[Any]] | NDArray[np.signedinteger[Any]]
Scores = dict[str, float | None]


class SegmentedImage(TypedDict):
    """Metrics of one segmented image: Dice of each class (None where it is neither there nor predicted), their mean."""

    name: str
    dice: Scores
    metric: float | None


class ClassifiedImage(TypedDict):
    """Result of one classified image."""

    name: str
    label: str
    predicted: str
    probability: float
    correct: bool


class Metrics(TypedDict):
    """Metrics of a set of images; ``confusion`` counts rows by true class, columns by predicted class."""

    metric_name: str
    metric: float
    per_class: Scores
    confusion: list[list[int]]
    loss: float
    samples: list[SegmentedImage] | list[ClassifiedImage]


def confusion(truth: Labels, predicted: Labels, classes: int) -> NDArray[np.int64]:
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


class SegmentationLoss:
    """The training loss (cross-entropy and soft Dice) of one image, summed over its pieces."""

    def __init__(self, classes: int) -> None:
        self._entropy, self._voxels = 0.0, 0
        self._sums = torch.zeros(3, classes, dtype=torch.float64)  # of each class: Σ p·y, Σ p, Σ y

    def add(self, logits: torch.Tensor, target: torch.Tensor) -> None:
        """Add a piece: logits (classes, *spatial) float32, target (*spatial) int64."""
        log_p = functional.log_softmax(logits, dim=0)
        self._entropy += functional.nll_loss(log_p[None], target[None], reduction="sum").item()
        self._voxels += target.numel()
        p = log_p.exp_().flatten(1)
        classes, flat = p.shape[0], target.flatten()
        hits = p.gather(0, flat[None])[0].double()
        product = torch.zeros(classes, dtype=torch.float64).index_add_(0, flat, hits)
        truth = torch.bincount(flat, minlength=classes).double()
        self._sums += torch.stack([product, p.sum(dim=1, dtype=torch.float64), truth])

    def value(self) -> float:
        """Return the loss of all pieces together."""
        product, predicted, truth = self._sums[:, 1:] if self._sums.shape[1] > 1 else self._sums
        # The same 1e-5 as the training loss adds, so an absent and unpredicted class costs nothing.
        soft_dice = (2 * product + 1e-5) / (predicted + truth + 1e-5)
        return self._entropy / max(self._voxels, 1) + 1.0 - float(soft_dice.mean())


@dataclass
class Tally:
    """Running metrics of one pass over a split.

    Segmentation: the metric is the mean Dice over images, then over the classes other than the background.
    Classification: the metric is the accuracy; ``per_class`` holds the recognised share of each class.
    """

    task: str
    classes: Sequence[str]
    counts: NDArray[np.int64] = field(init=False)
    segmented: list[SegmentedImage] = field(default_factory=list)
    classified: list[ClassifiedImage] = field(default_factory=list)
    loss: float = 0.0

    def __post_init__(self) -> None:
        self.counts = np.zeros((len(self.classes), len(self.classes)), np.int64)

    def add_volume(self, name: str, counts: NDArray[np.int64], loss: float) -> None:
        """Count one segmented image by its confusion matrix."""
        self.counts += counts
        self.loss += loss
        found = [None if np.isnan(value) else float(value) for value in dice(counts)]
        per_class = dict(zip(self.classes, found, strict=True))
        mean = _mean([per_class[label] for label in self._graded()])
        self.segmented.append({"name": name, "dice": per_class, "metric": mean})

    def add_class(self, name: str, truth: int, predicted: int, probability: float, loss: float) -> None:
        """Count one classified image."""
        self.counts[truth, predicted] += 1
        self.loss += loss
        self.classified.append(
            {
                "name": name,
                "label": self.classes[truth],
                "predicted": self.classes[predicted],
                "probability": round(probability, 6),
                "correct": truth == predicted,
            }
        )

    def metrics(self) -> Metrics:
        """Return the metrics as plain numbers; None where no image has the class."""
        segment = self.task == "segment"
        if segment:
            per_class = {label: _mean([row["dice"][label] for row in self.segmented]) for label in self._graded()}
            metric = _mean(list(per_class.values())) or 0.0
        else:
            rows, hits = self.counts.sum(axis=1), np.diag(self.counts)
            shares = [float(hit / row) if row else None for hit, row in zip(hits, rows, strict=True)]
            per_class = dict(zip(self.classes, shares, strict=True))
            metric = float(np.trace(self.counts) / max(1, self.counts.sum()))
        samples = self.segmented if segment else self.classified
        return {
            "metric_name": "mean Dice" if segment else "accuracy",
            "metric": metric,
            "per_class": per_class,
            "confusion": self.counts.tolist(),
            "loss": self.loss / max(1, len(samples)),
            "samples": samples,
        }

    def _graded(self) -> Sequence[str]:
        return self.classes[1:] if len(self.classes) > 1 else self.classes


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
