"""The scale of numbers to predict: networks learn them in standard deviations from the mean of the training part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TargetScale:
    """Mean and standard deviation of each target in the training part; a deviation of 0 counts as 1.

    >>> scale = TargetScale.of([(1.0,), (3.0,)])
    >>> scale.standardise([(2.0,), (4.0,)]).tolist(), scale.restore(np.array([[0.0], [2.0]])).tolist()
    ([[0.0], [2.0]], [[2.0], [4.0]])
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[object]) -> TargetScale:
        """Return the scale of the values of samples (samples, targets)."""
        table = np.asarray(values, np.float64)
        spread = table.std(axis=0)
        return cls(tuple(table.mean(axis=0).tolist()), tuple(np.where(spread > 0, spread, 1.0).tolist()))

    def standardise(self, values: object) -> Floats:
        """Return values (…, targets) in standard deviations from the mean."""
        return np.asarray((np.asarray(values, np.float64) - np.array(self.mean)) / np.array(self.std))

    def restore(self, found: Floats) -> Floats:
        """Return the values whose standardised ones a network found (…, targets)."""
        return np.asarray(found * np.array(self.std) + np.array(self.mean))
