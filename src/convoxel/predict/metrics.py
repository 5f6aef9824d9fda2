"""Metrics of predictions: confusion, Dice per class and image, accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict, final

import numpy as np
from numpy.typing import NDArray

from convoxel.data import Sample
from convoxel.data.data_set import IGNORED, join_names
from convoxel.data.regions import Regions
from convoxel.files.values import JsonObject
from convoxel.predict.classification_metric import ClassScores, LabelScores, auc
from convoxel.predict.figures import known
from convoxel.predict.loss_terms import MULTI_LABEL, LossTerms, class_loss, label_loss
from convoxel.predict.regression_metric import ValueScores, determination
from convoxel.predict.segmentation_metric import Labels, OverlapMetric, overlaps
from convoxel.predict.target_scale import TargetScale

Scores = dict[str, float | None]


@final
class SegmentedImage(TypedDict):
    """Metrics of one segmented image.

    Attributes:
        name, subject: of the image; without a known subject the image is one of its own.
        dice: Dice of each class, None where it is neither there nor predicted.
        metric: mean Dice of the classes other than the background; None where none of them is there or predicted.
        voxels: of each class the number of labelled and of predicted voxels.
        values: further metrics by name, each by class.
        confusion: voxels by true class (rows) and predicted class; empty where classes overlap or are many.
    """

    name: str
    subject: str
    dice: Scores
    metric: float | None
    voxels: dict[str, tuple[int, int]]
    values: dict[str, Scores]
    confusion: list[list[int]]


@final
class ClassifiedImage(TypedDict):
    """Result of one classified image; ``subject`` is the image itself where no subject is known.

    ``probability`` is that of the predicted class; ``probabilities`` are those of all, empty where there are many.
    Where an image may have several classes, ``label`` and ``predicted`` name all ("a; b"), ``correct`` is True where
    they are the same, and ``probability`` is that of the least probable decision, a class's being there or not.
    """

    name: str
    subject: str
    label: str
    predicted: str
    probability: float
    correct: bool
    probabilities: dict[str, float]


@final
class MeasuredImage(TypedDict):
    """Result of one image to regress, by target: true and predicted value; ``subject`` as of the others.

    ``error`` is the mean over the targets of |prediction − truth| in standard deviations of the training part;
    ``values`` holds the absolute error of each target.
    """

    name: str
    subject: str
    truth: dict[str, float]
    predicted: dict[str, float]
    error: float
    values: dict[str, Scores]


Row = SegmentedImage | ClassifiedImage | MeasuredImage


class Metrics(TypedDict):
    """Metrics of a set of images; ``confusion`` counts rows by true class, columns by predicted class.

    It is empty where an image or a voxel may have several classes, and of regressions, whose ``per_class`` is by
    target.

    ``metric`` is None where no image has a class that is there or predicted.
    """

    metric_name: str
    metric: float | None
    per_class: Scores
    confusion: list[list[int]]
    loss: float
    samples: list[SegmentedImage] | list[ClassifiedImage] | list[MeasuredImage]


# A row of more classes lists no probabilities: ten thousand images of a thousand classes would take a gigabyte.
_LISTED = 128
# Nor does the row of a segmented image hold a matrix that no page shows.
_CONFUSED = 24


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


def metric_name(task: str, multi_label: bool = False) -> str:
    """Return the name of the metric that chooses a run's checkpoint.

    >>> metric_name("segment"), metric_name("classify"), metric_name("classify", multi_label=True)
    ('mean Dice', 'accuracy', 'mean AUC')
    """
    if task != "classify":
        return "mean Dice" if task == "segment" else "R²"
    return "mean AUC" if multi_label else "accuracy"


@dataclass
class Tally:
    """Running metrics of one pass over a split.

    Segmentation: the metric is the mean Dice over images, then over the classes other than the background.
    Classification: the metric is the accuracy; ``per_class`` holds the recognised share of each class. Where an image
    may have several classes, it is the mean of the classes' AUC, which needs no threshold; ``per_class`` holds those.
    Regression: the metric is the mean of the targets' R²; ``per_class`` holds those.

    Attributes:
        task: "segment", "classify" or "regress".
        classes: names of the classes.
        overlap: further metrics of each class and image of a segmentation (default: none).
        multi_label: whether an image may have several classes (default False).
        regions: label values of classes that overlap in a segmentation, each compared as a whole (default: none do).
        terms: loss of the run, of which classifications have their mean over images (default: cross-entropy).
        thresholds: least probability of each class where an image may have several (default: ½).
        shares: predicted probability of each class of each classified image.
        loss, norm: sum of the images' losses, and of their weights in its mean.
    """

    task: str
    classes: Sequence[str]
    overlap: Sequence[OverlapMetric] = ()
    multi_label: bool = False
    regions: Regions | None = None
    terms: LossTerms | None = None
    thresholds: tuple[float, ...] | None = None
    counts: NDArray[np.int64] = field(init=False)
    segmented: list[SegmentedImage] = field(default_factory=list)
    classified: list[ClassifiedImage] = field(default_factory=list)
    measured: list[MeasuredImage] = field(default_factory=list)
    truth: list[int] = field(default_factory=list)
    held: list[NDArray[np.bool_]] = field(default_factory=list)
    shares: list[NDArray[np.float64]] = field(default_factory=list)
    loss: float = 0.0
    norm: float = 0.0

    def __post_init__(self) -> None:
        self.counts = np.zeros((len(self.classes), len(self.classes)), np.int64)

    def to_dict(self) -> JsonObject:
        """Return what was counted so far, as JSON holds it."""
        return {
            "counts": self.counts.tolist(),
            "held": [each.tolist() for each in self.held],
            "shares": [each.tolist() for each in self.shares],
            **{name: getattr(self, name) for name in ("segmented", "classified", "measured", "truth", "loss", "norm")},
        }

    def dealt(self, parts: Sequence[JsonObject]) -> Tally:
        """Return the tally of images that were dealt out in turn to several tallies like this one, given as JSON."""
        found = replace(
            self, segmented=[], classified=[], measured=[], truth=[], held=[], shares=[], loss=0.0, norm=0.0
        )
        found._add_dealt(parts)
        return found

    def _add_dealt(self, parts: Sequence[JsonObject]) -> None:
        self.counts += sum(np.array(part["counts"], np.int64) for part in parts)
        for part in parts:
            self._add_loss(part["loss"], part["norm"])
        for name in ("segmented", "classified", "measured", "truth"):
            getattr(self, name).extend(_take_turns([part[name] for part in parts]))
        self.held += [np.array(row, np.bool_) for row in _take_turns([part["held"] for part in parts])]
        self.shares += [np.array(row, np.float64) for row in _take_turns([part["shares"] for part in parts])]

    @property
    def graded(self) -> Sequence[str]:
        """The classes that the metric counts: all but the background of a segmentation."""
        return self.classes[1:] if self.task == "segment" and len(self.classes) > 1 else self.classes

    def add_volume(
        self, sample: Sample, label: Labels, prediction: Labels, loss: float, subject: str | None = None
    ) -> SegmentedImage:
        """Count one segmented image, of a known subject or of one of its own, and return its row.

        Voxels that the label says to ignore do not count: they are background in both maps, and in no number of voxels.
        """
        hidden = label == IGNORED
        ignored = int(np.count_nonzero(hidden)) if self.regions or len(self.classes) <= IGNORED else 0
        if ignored:
            label, prediction = (np.where(hidden, np.uint8(0), array) for array in (label, prediction))
        if self.regions is None:
            counts = confusion(label, prediction, len(self.classes))
            counts[0, 0] -= ignored
            self.counts += counts
            sizes, scores = (counts.sum(axis=1), counts.sum(axis=0)), dice(counts)
            found = overlaps(label, prediction, counts, sample.spacing_mm, self._numbers)
        else:
            counts = self._count_regions(label, prediction, ignored)
            sizes, scores = (
                (counts[:, 1].sum(axis=1), counts[:, :, 1].sum(axis=1)),
                np.array([dice(each)[1] for each in counts]),
            )
            maps = ((row[label], row[prediction]) for row in self.regions.classes[1:])
            found = (
                next(overlaps(truth.view(np.uint8), seen.view(np.uint8), each, sample.spacing_mm, [1]))
                for (truth, seen), each in zip(maps, counts[1:], strict=True)
            )
        self._add_loss(loss)
        per_class = dict(zip(self.classes, map(known, scores), strict=True))
        grades = [[known(metric.of(overlap)) for metric in self.overlap] for overlap in found] if self.overlap else []
        row: SegmentedImage = {
            "name": sample.name,
            "subject": subject or sample.name,
            "dice": per_class,
            "metric": _mean([per_class[name] for name in self.graded]),
            "voxels": {
                name: (int(sizes[0][k]), int(sizes[1][k])) for name, k in zip(self.graded, self._numbers, strict=True)
            },
            "values": {
                metric.name: dict(zip(self.graded, column, strict=True))
                for metric, column in zip(self.overlap, zip(*grades, strict=True), strict=True)
            },
            "confusion": counts.tolist() if self.regions is None and len(counts) <= _CONFUSED else [],
        }
        self.segmented.append(row)
        return row

    def _count_regions(self, label: Labels, prediction: Labels, ignored: int) -> NDArray[np.int64]:
        """Return counts (classes, 2, 2): in the class or not by the label, by the prediction; the background first."""
        assert self.regions is not None
        table = self.regions.classes.astype(np.int64)
        counts = np.zeros((len(table), 2, 2), np.int64)
        joint = confusion(label, prediction, table.shape[1])
        joint[0, 0] -= ignored
        for row, found in zip(table, counts, strict=True):
            inside = np.stack([1 - row, row])
            found[:] = inside @ joint @ inside.T
        return counts

    @property
    def _numbers(self) -> range:
        return range(len(self.classes) - len(self.graded), len(self.classes))

    def _add_loss(self, cost: float, weight: float = 1.0) -> None:
        self.loss += cost
        self.norm += weight

    def add_class(
        self, sample: Sample, truth: int, logits: NDArray[np.float64], subject: str | None = None
    ) -> ClassifiedImage:
        """Count one classified image by the logits of its classes, and return its row."""
        predicted = int(logits.argmax())
        self.counts[truth, predicted] += 1
        cost, weight = class_loss(self.terms or LossTerms("ce", "cross_entropy"), logits, truth)
        self._add_loss(cost, weight)
        self.truth.append(truth)
        self.shares.append(np.exp(logits - np.logaddexp.reduce(logits)))
        names = self.classes[truth], self.classes[predicted]
        return self._add_row(sample, subject, names, float(self.shares[-1][predicted]), truth == predicted)

    def add_labels(
        self, sample: Sample, truth: frozenset[int], logits: NDArray[np.float64], subject: str | None = None
    ) -> ClassifiedImage:
        """Count one image that may have several classes by its logits, and return its row."""
        own = np.isin(np.arange(len(self.classes)), list(truth))
        self._add_loss(label_loss(self.terms or MULTI_LABEL, logits, own))
        shares = np.exp(-np.logaddexp(0.0, -logits))
        self.held.append(own)
        self.shares.append(shares)
        found = self.label_scores(last=True).chosen[0]
        names = [join_names(self.classes, np.flatnonzero(each).tolist()) for each in (own, found)]
        sure = float(np.where(found, shares, 1.0 - shares).min())
        return self._add_row(sample, subject, (names[0], names[1]), sure, bool((own == found).all()))

    def _add_row(
        self, sample: Sample, subject: str | None, names: tuple[str, str], probability: float, correct: bool
    ) -> ClassifiedImage:
        listed = zip(self.classes, self.shares[-1], strict=True) if len(self.classes) <= _LISTED else ()
        row: ClassifiedImage = {
            "name": sample.name,
            "subject": subject or sample.name,
            "label": names[0],
            "predicted": names[1],
            "probability": round(probability, 6),
            "correct": correct,
            "probabilities": {name: round(float(share), 6) for name, share in listed},
        }
        self.classified.append(row)
        return row

    def add_values(
        self, sample: Sample, values: NDArray[np.float64], scale: TargetScale, loss: float, subject: str | None = None
    ) -> MeasuredImage:
        """Count one image by the values that were predicted, and return its row."""
        truth = np.asarray(sample.label, np.float64)
        error = np.abs(values - truth)
        self._add_loss(loss)
        row: MeasuredImage = {
            "name": sample.name,
            "subject": subject or sample.name,
            "truth": dict(zip(self.classes, truth.tolist(), strict=True)),
            "predicted": dict(zip(self.classes, values.tolist(), strict=True)),
            "error": float((error / np.array(scale.std)).mean()),
            "values": {"mae": dict(zip(self.classes, error.tolist(), strict=True))},
        }
        self.measured.append(row)
        return row

    def metrics(self) -> Metrics:
        """Return the metrics as plain numbers; None where no image has the class."""
        segment = self.task == "segment"
        metric: float | None
        if segment:
            per_class = {label: _mean([row["dice"][label] for row in self.segmented]) for label in self.graded}
            metric = _mean(list(per_class.values()))
        elif self.task == "regress":
            shares = determination(self.value_scores(), np.ones((1, len(self.measured))))[0]
            per_class = dict(zip(self.classes, map(known, shares), strict=True))
            metric = _mean(list(per_class.values()))
        elif self.multi_label:
            scores = self.label_scores()
            areas = auc(scores, np.ones((1, len(scores))))[0] if len(scores) else np.full(len(self.classes), np.nan)
            per_class = dict(zip(self.classes, map(known, areas), strict=True))
            metric = _mean(list(per_class.values()))
        else:
            rows, hits = self.counts.sum(axis=1), np.diag(self.counts)
            shares = [float(hit / row) if row else None for hit, row in zip(hits, rows, strict=True)]
            per_class = dict(zip(self.classes, shares, strict=True))
            metric = float(np.trace(self.counts) / max(1, self.counts.sum()))
        samples = self.segmented or self.classified or self.measured
        return {
            "metric_name": metric_name(self.task, self.multi_label),
            "metric": metric,
            "per_class": per_class,
            "confusion": [] if self.multi_label or self.regions or self.task == "regress" else self.counts.tolist(),
            "loss": self.loss / (self.norm or 1.0),
            "samples": samples,
        }

    def values(self) -> NDArray[np.float64]:
        """Return the further metrics (images, metrics, classes), NaN where undefined."""
        rows = [[list(row["values"][m.name].values()) for m in self.overlap] for row in self.segmented]
        return np.array(rows, np.float64).reshape(len(rows), len(self.overlap), len(self.graded))

    def value_scores(self) -> ValueScores:
        """Return true and predicted values of all images."""
        columns = [[list(row[side].values()) for row in self.measured] for side in ("truth", "predicted")]
        size = (len(self.measured), len(self.classes))
        return ValueScores(*(np.array(column, np.float64).reshape(size) for column in columns))

    def label_scores(self, last: bool = False) -> LabelScores:
        """Return truth and probabilities of all images that may have several classes, or of the last one."""
        held, shares = (self.held[-1:], self.shares[-1:]) if last else (self.held, self.shares)
        size = (len(held), len(self.classes))
        return LabelScores(np.array(held, np.bool_).reshape(size), np.array(shares).reshape(size), self.thresholds)

    def scores(self) -> ClassScores:
        """Return truth and probabilities of all classified images."""
        return ClassScores(np.array(self.truth, np.int64), np.array(self.shares).reshape(-1, len(self.classes)))


def _take_turns(parts: Sequence[Sequence[Any]]) -> list[Any]:
    """Return the items of parts that were dealt out in turn.

    >>> _take_turns([["a", "c", "e"], ["b", "d"]])
    ['a', 'b', 'c', 'd', 'e']
    """
    return [part[turn] for turn in range(max(map(len, parts), default=0)) for part in parts if turn < len(part)]


def _mean(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return float(np.mean(found)) if found else None
