"""Metrics of predicted numbers, all of them for many weightings of the images at once, as a bootstrap needs them.

Each metric returns (rows, targets), whose mean over the targets is the figure. NaN marks what is undefined: R² and
correlation of a target that is the same for all images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from convoxel.predict.metric import Metric

Floats = NDArray[np.float64]
#: Of a row, the variance below which a target counts as constant, as a share of its mean square: rounding leaves that.
_CONSTANT = 1e-14


class ValueScores:
    """True and predicted numbers of a set of images.

    Args:
        truth: true values (images, targets).
        found: predicted values (images, targets).
    """

    def __init__(self, truth: Floats, found: Floats) -> None:
        self.truth, self.found = truth, found
        self.error = found - truth

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def counts(self) -> NDArray[np.int64]:
        """The number of images of each target."""
        return np.full(self.truth.shape[1], len(self.truth), np.int64)


ValueMetric: TypeAlias = Metric[Callable[[ValueScores, Floats], Floats]]


def _mean(values: Floats, weights: Floats) -> Floats:
    total = weights.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(total > 0, weights @ values / total, np.nan))


def _moments(values: Floats, others: Floats, weights: Floats) -> Floats:
    """Return the weighted covariance of two columns, whose common mean is taken off first: what is left is small."""
    a, b = values - values.mean(axis=0), others - others.mean(axis=0)
    return np.asarray(_mean(a * b, weights) - _mean(a, weights) * _mean(b, weights))


def _spread(values: Floats, weights: Floats) -> Floats:
    """Return the weighted variance; 0 where only rounding is left of it."""
    found = _moments(values, values, weights)
    centred = values - values.mean(axis=0)
    return np.where(found > _CONSTANT * _mean(centred**2, weights), found, 0.0)


def _ratio(part: Floats, whole: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(whole > 0, part / whole, np.nan))


def mean_absolute_error(scores: ValueScores, weights: Floats) -> Floats:
    """Return the mean of |prediction − truth| of each target."""
    return _mean(np.abs(scores.error), weights)


def root_mean_square_error(scores: ValueScores, weights: Floats) -> Floats:
    """Return the root of the mean squared error of each target."""
    return np.asarray(np.sqrt(_mean(scores.error**2, weights)))


def bias(scores: ValueScores, weights: Floats) -> Floats:
    """Return the mean of prediction − truth of each target."""
    return _mean(scores.error, weights)


def determination(scores: ValueScores, weights: Floats) -> Floats:
    """Return R² = 1 − Σ error² / Σ (truth − its mean)² of each target."""
    return 1.0 - _ratio(_mean(scores.error**2, weights), _spread(scores.truth, weights))


def correlation(scores: ValueScores, weights: Floats) -> Floats:
    """Return Pearson's correlation of truth and prediction of each target."""
    spreads = _spread(scores.truth, weights) * _spread(scores.found, weights)
    return _ratio(_moments(scores.truth, scores.found, weights), np.sqrt(spreads))


_MACRO = "mean over the targets"
#: Metrics of regressions.
VALUE_METRICS: tuple[ValueMetric, ...] = (
    Metric("mae", f"mean |prediction − truth|, {_MACRO}", "Willmott and Matsuura 2005, doi:10.3354/cr030079",
           mean_absolute_error, "lower"),
    Metric("rmse", f"root of the mean squared error, {_MACRO}", "Willmott and Matsuura 2005, doi:10.3354/cr030079",
           root_mean_square_error, "lower"),
    Metric("r2", f"1 − Σ error² / Σ (truth − its mean)², {_MACRO}", "Kvålseth 1985, doi:10.1080/00031305.1985.10479448",
           determination),
    Metric("pearson", f"correlation of truth and prediction, {_MACRO}", "Pearson 1895", correlation),
    Metric("bias", f"mean of prediction − truth, {_MACRO}", "Bland and Altman 1986, doi:10.1016/S0140-6736(86)90837-8",
           bias, "near 0"),
)  # fmt: skip
