"""Metrics of classified images, all of them for many weightings of the images at once.

A bootstrap computes each metric a few thousand times, with some images counted twice and others not at all. So every
metric here is a function of ``weights`` (rows, images): one row of ones gives the figure itself. Scores are sorted once
for all rows, which scikit-learn's functions, one call a row, could not do; the tests hold each against scikit-learn.

A metric returns (rows, classes), one-vs-rest, whose mean over the classes is the figure ("macro"), or (rows, 1) where
it speaks of all classes together. NaN marks what is undefined: a class that no image of the row has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from convoxel.predict.metric import Metric

Floats = NDArray[np.float64]
#: Bins of equal width over the confidence, for calibration.
BINS = 15
#: Of images that may have several classes, the least probability of a class that is predicted unless it is stated.
THRESHOLD = 0.5


class Scores:
    """The predictions of a set of images: which classes each has, and how probable each was found.

    Args:
        own: whether the image is of the class (images, classes).
        shares: predicted probability of each class (images, classes).
        found: the classes that are predicted (images, classes).
    """

    def __init__(self, own: NDArray[np.bool_], shares: Floats, found: NDArray[np.bool_]) -> None:
        self.own, self.shares, self.chosen = own, shares, found

    def __len__(self) -> int:
        return len(self.own)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.shares.shape[1])

    @property
    def counts(self) -> NDArray[np.int64]:
        """The number of images of each class."""
        return np.asarray(self.own.sum(axis=0), np.int64)

    def tally(self, weights: Floats) -> Counts:
        """Return the weighted numbers of images of each class."""
        hits, true, found = (weights @ np.asarray(each, np.float64) for each in
                             (self.own & self.chosen, self.own, self.chosen))  # fmt: skip
        return Counts(hits, true, found, weights.sum(axis=1, keepdims=True))


class LabelScores(Scores):
    """The predictions of images that may have several classes: those whose probability reaches a threshold.

    Args:
        own: whether the image is of the class (images, classes).
        shares: predicted probability of each class (images, classes).
        levels: threshold of each class (default: ½).
    """

    def __init__(self, own: NDArray[np.bool_], shares: Floats, levels: Sequence[float] | None = None) -> None:
        self.thresholds = np.full(own.shape[1], THRESHOLD) if levels is None else np.array(levels, np.float64)
        super().__init__(own, shares, shares >= self.thresholds)


class ClassScores(Scores):
    """The predictions of images of one class each.

    Args:
        truth: true class numbers (images,).
        shares: predicted probability of each class (images, classes).
    """

    def __init__(self, truth: NDArray[np.int64], shares: Floats) -> None:
        self.truth = truth
        self.found = shares.argmax(axis=1)
        numbers = np.arange(shares.shape[1])
        super().__init__(truth[:, None] == numbers, shares, self.found[:, None] == numbers)
        self.right = self.found == truth
        self.confidence = shares[np.arange(len(truth)), self.found]

    @cached_property
    def bins(self) -> NDArray[np.int64]:
        """The bin of each image's confidence: bin k holds the confidences above k/15 and up to (k + 1)/15."""
        return np.asarray(np.clip(np.ceil(self.confidence * BINS) - 1, 0, BINS - 1), np.int64)

    def tally(self, weights: Floats) -> Counts:
        """Return the weighted numbers of images of each class."""
        from scipy.sparse import csr_array

        def count(numbers: NDArray[np.int64], kept: Floats) -> Floats:
            places = (np.arange(len(numbers)), numbers)
            table = csr_array((kept, places), shape=(len(numbers), self.classes))
            return np.asarray((table.T @ weights.T).T)

        ones = np.ones(len(self.truth))
        hits = count(self.truth, self.right.astype(np.float64))
        return Counts(hits, count(self.truth, ones), count(self.found, ones), weights.sum(axis=1, keepdims=True))


class Counts(NamedTuple):
    """Weighted numbers of images (rows, classes): recognised, true, predicted; and of all images (rows, 1)."""

    hits: Floats
    true: Floats
    found: Floats
    all: Floats


Measure = Callable[[ClassScores, Floats], Floats]
ScoreMetric: TypeAlias = Metric[Measure]
LabelMetric: TypeAlias = Metric[Callable[[LabelScores, Floats], Floats]]


def ratios(part: Floats, whole: Floats) -> Floats:
    """Return part / whole, NaN for 0 / 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(whole != 0, part / whole, np.nan))


def accuracy(scores: ClassScores, weights: Floats) -> Floats:
    """Return the share of images whose class was recognised, (rows, 1)."""
    return ratios(*SHARES["accuracy"](scores.tally(weights)))


def sensitivity(scores: Scores, weights: Floats) -> Floats:
    """Return the recognised share of each class's images."""
    return ratios(*SHARES["sensitivity"](scores.tally(weights)))


def specificity(scores: Scores, weights: Floats) -> Floats:
    """Return the share of the other classes' images that were not taken for the class."""
    return ratios(*SHARES["specificity"](scores.tally(weights)))


def precision(scores: Scores, weights: Floats) -> Floats:
    """Return the share of the images given to a class that are of it."""
    return ratios(*SHARES["precision"](scores.tally(weights)))


def f1(scores: Scores, weights: Floats) -> Floats:
    """Return the harmonic mean of precision and sensitivity of each class."""
    counts = scores.tally(weights)
    return ratios(2 * counts.hits, counts.true + counts.found)


def kappa(scores: ClassScores, weights: Floats) -> Floats:
    """Return the agreement beyond chance, (rows, 1)."""
    counts = scores.tally(weights)
    # Times the square of all images: whole numbers stay whole, so that 0 / 0 is one.
    agreed = counts.hits.sum(axis=1, keepdims=True) * counts.all
    chance = (counts.true * counts.found).sum(axis=1, keepdims=True)
    return ratios(agreed - chance, counts.all**2 - chance)


def correlation(scores: ClassScores, weights: Floats) -> Floats:
    """Return Matthews' correlation of true and predicted classes, (rows, 1)."""
    counts = scores.tally(weights)
    both = counts.all * counts.hits.sum(axis=1, keepdims=True) - (counts.true * counts.found).sum(axis=1, keepdims=True)
    spreads = [counts.all**2 - np.square(side).sum(axis=1, keepdims=True) for side in (counts.true, counts.found)]
    return ratios(both, np.sqrt(spreads[0] * spreads[1]))


def auc(scores: Scores, weights: Floats) -> Floats:
    """Return the area under each class's ROC curve: how often an image of it scores above another; ties count half."""

    def area(hits: Floats, alarms: Floats) -> Floats:
        steps = np.diff(alarms, axis=1, prepend=0.0)
        heights = hits - np.diff(hits, axis=1, prepend=0.0) / 2
        return ratios((steps * heights).sum(axis=1), hits[:, -1] * alarms[:, -1])

    return _one_vs_rest(scores, weights, area)


def average_precision(scores: Scores, weights: Floats) -> Floats:
    """Return Σ (Rᵢ − Rᵢ₋₁) Pᵢ over the thresholds of each class's precision-recall curve."""

    def area(hits: Floats, alarms: Floats) -> Floats:
        steps = np.diff(hits, axis=1, prepend=0.0)
        return ratios((steps * hits / np.maximum(hits + alarms, 1e-300)).sum(axis=1), hits[:, -1])

    return _one_vs_rest(scores, weights, area)


def _one_vs_rest(scores: Scores, weights: Floats, area: Callable[[Floats, Floats], Floats]) -> Floats:
    columns = [area(*thresholds(scores, number, weights)) for number in range(scores.classes)]
    return np.stack(columns, axis=1)


def thresholds(scores: Scores, number: int, weights: Floats) -> tuple[Floats, Floats]:
    """Return how many images of a class, and how many others, score at least as high as each threshold.

    The thresholds are the scores that occur, from the highest down: (rows, thresholds) both.
    """
    score, own = scores.shares[:, number], scores.own[:, number]
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.diff(score[order], append=-np.inf))
    sorted_weights = weights[:, order]
    hits = np.cumsum(sorted_weights * own[order], axis=1)
    alarms = np.cumsum(sorted_weights, axis=1) - hits
    return (hits, alarms) if len(ends) == len(order) else (hits[:, ends], alarms[:, ends])


def calibration_error(scores: ClassScores, weights: Floats) -> Floats:
    """Return the mean distance of confidence and accuracy over bins of confidence, weighted by images, (rows, 1)."""
    gaps = scores.right - scores.confidence
    binned = np.zeros((len(weights), BINS))
    for number in range(BINS):
        inside = scores.bins == number
        binned[:, number] = weights[:, inside] @ gaps[inside]
    return ratios(np.abs(binned).sum(axis=1, keepdims=True), weights.sum(axis=1, keepdims=True))


def brier(scores: ClassScores, weights: Floats) -> Floats:
    """Return the mean squared distance between probabilities and truth, (rows, 1); of two classes that of one."""
    squares = np.square(scores.shares - scores.own).sum(axis=1) / (2 if scores.classes == 2 else 1)
    return ratios((weights @ squares)[:, None], weights.sum(axis=1, keepdims=True))


def log_loss(scores: ClassScores, weights: Floats) -> Floats:
    """Return the mean of −log of the true class's probability, (rows, 1)."""
    true = scores.shares[np.arange(len(scores.truth)), scores.truth]
    losses = -np.log(np.clip(true, np.finfo(np.float64).tiny, 1.0))
    return ratios((weights @ losses)[:, None], weights.sum(axis=1, keepdims=True))


def label_accuracy(scores: LabelScores, weights: Floats) -> Floats:
    """Return the share of images for which each class was told rightly, there or not."""
    return ratios(*LABEL_SHARES["accuracy"](scores.tally(weights)))


def exact_match(scores: LabelScores, weights: Floats) -> Floats:
    """Return the share of images all of whose classes were told rightly, (rows, 1)."""
    right = (scores.own == scores.chosen).all(axis=1)
    return ratios((weights @ right)[:, None], weights.sum(axis=1, keepdims=True))


def label_brier(scores: LabelScores, weights: Floats) -> Floats:
    """Return the mean squared distance of each class's probability from the truth."""
    return ratios(weights @ np.square(scores.shares - scores.own), weights.sum(axis=1, keepdims=True))


def label_loss(scores: LabelScores, weights: Floats) -> Floats:
    """Return the mean binary cross-entropy of each class."""
    right = np.where(scores.own, scores.shares, 1.0 - scores.shares)
    losses = -np.log(np.clip(right, np.finfo(np.float64).tiny, 1.0))
    return ratios(weights @ losses, weights.sum(axis=1, keepdims=True))


def _recognised(counts: Counts) -> tuple[Floats, Floats]:
    return counts.hits, counts.true


#: Of metrics that are shares of images, the successes and the trials behind each value (rows, classes).
SHARES: dict[str, Callable[[Counts], tuple[Floats, Floats]]] = {
    "accuracy": lambda counts: (counts.hits.sum(axis=1, keepdims=True), counts.all),
    "balanced_accuracy": _recognised,
    "sensitivity": _recognised,
    "specificity": lambda counts: (counts.all - counts.true - counts.found + counts.hits, counts.all - counts.true),
    "precision": lambda counts: (counts.hits, counts.found),
}

#: The same of images that may have several classes, each of which is there or not.
LABEL_SHARES: dict[str, Callable[[Counts], tuple[Floats, Floats]]] = {
    **{name: SHARES[name] for name in ("sensitivity", "specificity", "precision")},
    "accuracy": lambda counts: (
        counts.all - counts.true - counts.found + 2 * counts.hits,
        counts.all + 0 * counts.hits,
    ),
}

_MACRO = "mean over the classes"
_HANLEY = "Hanley and McNeil 1982, doi:10.1148/radiology.143.1.7063747"
_ZHU = "Zhu 2004; as scikit-learn's average_precision_score"
_POWERS = "Powers 2011, arXiv:2010.16061"

#: Metrics of classifications.
SCORE_METRICS: tuple[ScoreMetric, ...] = (
    Metric("accuracy", "share of images whose class was recognised", _POWERS, accuracy),
    Metric("balanced_accuracy", "mean over the classes of the recognised share of their images",
           "Brodersen et al. 2010, doi:10.1109/ICPR.2010.764", sensitivity),
    Metric("sensitivity", f"recognised share of a class's images (recall), {_MACRO}", _POWERS, sensitivity),
    Metric("specificity", f"share of other images that was not taken for the class, {_MACRO}", _POWERS, specificity),
    Metric("precision", f"share of the images given to a class that are of it, {_MACRO}", _POWERS, precision),
    Metric("f1", f"2 TP / (2 TP + FP + FN), {_MACRO}", _POWERS, f1),
    Metric("kappa", "agreement of truth and prediction beyond chance",
           "Cohen 1960, doi:10.1177/001316446002000104", kappa),
    Metric("mcc", "Matthews' correlation of truth and prediction",
           "Gorodkin 2004, doi:10.1016/j.compbiolchem.2004.09.006", correlation),
    Metric("auc", f"area under the ROC curve, each class against the rest, {_MACRO}",
           _HANLEY, auc),
    Metric("ap", f"average precision: area under the precision-recall curve, {_MACRO}",
           _ZHU, average_precision),
    Metric("ece", f"expected calibration error: |accuracy − confidence| over {BINS} bins of confidence",
           "Guo et al. 2017, arXiv:1706.04599", calibration_error, "lower"),
    Metric("brier", "mean squared distance of the probabilities from the truth (two classes: of one of them)",
           "Brier 1950", brier, "lower"),
    Metric("nll", "mean of −log of the true class's probability", "Good 1952", log_loss, "lower"),
)  # fmt: skip

#: Metrics of classifications where an image may have several classes: each class by itself, there or not.
LABEL_METRICS: tuple[LabelMetric, ...] = (
    Metric("auc", f"area under the ROC curve, {_MACRO}", _HANLEY, auc),
    Metric("ap", f"average precision: area under the precision-recall curve, {_MACRO}", _ZHU, average_precision),
    Metric("f1", f"2 TP / (2 TP + FP + FN), {_MACRO}", _POWERS, f1),
    Metric("sensitivity", f"share of the images of a class for which it was found (recall), {_MACRO}", _POWERS,
           sensitivity),
    Metric("specificity", f"share of the images without a class for which it was not found, {_MACRO}", _POWERS,
           specificity),
    Metric("precision", f"share of the images given a class that have it, {_MACRO}", _POWERS, precision),
    Metric("accuracy", f"share of images for which a class was told rightly, there or not, {_MACRO}", _POWERS,
           label_accuracy),
    Metric("exact", "share of images all of whose classes were told rightly",
           "Zhang and Zhou 2014, doi:10.1109/TKDE.2013.39", exact_match),
    Metric("brier", f"mean squared distance of a class's probability from the truth, {_MACRO}", "Brier 1950",
           label_brier, "lower"),
    Metric("nll", f"binary cross-entropy of a class, {_MACRO}", "Good 1952", label_loss, "lower"),
)  # fmt: skip
