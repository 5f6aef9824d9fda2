"""Statistics of a metric over the images that it was measured on: spread, intervals, paired differences.

A mean over a few images says little without its interval, and two means over the same images differ by less than their
intervals tell: what is hard for one network is hard for the other. NumPy and SciPy only.

An interval speaks of other images of the same kind. It does not cover what another seed of training would change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

#: Share of repetitions whose interval holds the true value.
LEVEL = 0.95


class Interval(NamedTuple):
    """A range that holds the true value in 95 of 100 repetitions."""

    low: float
    high: float


class Spread(NamedTuple):
    """Values of single images: the number of images, mean, standard deviation, quartiles and ends.

    >>> spread = Spread.of([0.5, 0.7, 0.8, 1.0])
    >>> spread.images, round(spread.mean, 3), round(spread.deviation, 3), round(spread.median, 3)
    (4, 0.75, 0.208, 0.75)
    """

    images: int
    mean: float
    deviation: float
    least: float
    quartile_1: float
    median: float
    quartile_3: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """Return the spread of some values; None of none. One value deviates by 0."""
        if not len(values):
            return None
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        ends = (float(value) for value in np.quantile(values, (0.0, 0.25, 0.5, 0.75, 1.0)))
        return cls(len(values), float(np.mean(values)), deviation, *ends)


class Difference(NamedTuple):
    """The mean of paired differences over the images that both have.

    Attributes:
        mean: mean difference.
        interval: its interval; None of fewer than two images.
        images: their number.
    """

    mean: float
    interval: Interval | None
    images: int


def case_values(samples: Sequence[Mapping[str, object]]) -> dict[str, float]:
    """Return the metric of each image by name, from the ``samples`` of an evaluation.

    That is the mean Dice of the classes that are there or predicted, or 1 for a class that was recognised and 0 for one
    that was not. Images without any graded class are left out.

    >>> case_values([{"name": "a", "metric": 0.5}, {"name": "b", "metric": None}, {"name": "c", "correct": True}])
    {'a': 0.5, 'c': 1.0}
    """
    found = {}
    for sample in samples:
        value = sample.get("metric", sample.get("correct"))
        if isinstance(value, (bool, int, float)):
            found[str(sample.get("name"))] = float(value)
    return found


def mean_interval(values: Sequence[float]) -> Interval | None:
    """Return the interval of the mean, x̄ ± t s / √n (Student 1908); None of fewer than two values.

    >>> [round(end, 3) for end in mean_interval([0.5, 0.7, 0.8, 1.0])]
    [0.419, 1.081]
    """
    if len(values) < 2:
        return None
    from scipy.special import stdtrit

    half = float(stdtrit(len(values) - 1, (1 + LEVEL) / 2) * np.std(values, ddof=1) / np.sqrt(len(values)))
    mean = float(np.mean(values))
    return Interval(mean - half, mean + half)


def share_interval(count: int, total: int) -> Interval | None:
    """Return the interval of a share of successes (Wilson 1927); None of none.

    >>> [round(end, 3) for end in share_interval(9, 10)]
    [0.596, 0.982]
    """
    if total < 1:
        return None
    from scipy.special import ndtri

    z2 = float(ndtri((1 + LEVEL) / 2)) ** 2
    share = count / total
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = np.sqrt(z2 * share * (1 - share) / total + z2**2 / (4 * total**2)) / (1 + z2 / total)
    return Interval(float(centre - half), float(centre + half))


def compare_cases(ours: Mapping[str, float], theirs: Mapping[str, float]) -> Difference | None:
    """Return by how much ``ours`` is above ``theirs`` on the images that both have; None where they share none.

    >>> compare_cases({"a": 0.5, "b": 0.75}, {"b": 0.25, "c": 1.0})
    Difference(mean=0.5, interval=None, images=1)
    """
    differences = [value - theirs[name] for name, value in ours.items() if name in theirs]
    if not differences:
        return None
    return Difference(float(np.mean(differences)), mean_interval(differences), len(differences))
