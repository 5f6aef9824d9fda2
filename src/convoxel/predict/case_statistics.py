"""Statistics of a metric over the images that it was measured on: spread, intervals, paired differences.

A mean over a few images says little without its interval, and two means over the same images differ by less than their
intervals tell: what is hard for one network is hard for the other. NumPy and SciPy only.

Intervals come from a bootstrap: the images are drawn anew with replacement, and the statistic is computed again. Images
of one subject are drawn together, since they are no independent cases. An interval speaks of other images of the same
kind. It does not cover what another seed of training would change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Share of repetitions whose interval holds the true value.
LEVEL = 0.95
#: Resamples of a bootstrap.
REPLICATES = 2000
_BLOCKS = 200  # of images left out in turn for the skewness: as many as there are, or this many groups of them
_CHUNK = 2**22  # weights in memory at once

Floats = NDArray[np.float64]
#: A statistic of many weightings of the images: weights (rows, images) → values (rows, columns), NaN where undefined.
Statistic = Callable[[Floats], Floats]


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
        interval: its interval; None of fewer than two subjects.
        images: their number.
        effect: share of evidence for a rise less that for a fall, −1 … 1 (matched-pairs rank-biserial correlation;
            Kerby 2014, doi:10.2466/11.IT.3.1). Of metrics that single images do not have, as of
            :meth:`Resamples.effect`. None where nothing differs.
        p_value: of no difference: Wilcoxon's signed-rank test (1945), or McNemar's exact test (1947) of right and wrong
            answers; of metrics that single images do not have, as of :meth:`Resamples.p_value`. None as the effect.
        test: where the p-value comes from, "Wilcoxon", "McNemar" or "bootstrap"; "" where there is none.
    """

    mean: float
    interval: Interval | None
    images: int
    effect: float | None = None
    p_value: float | None = None
    test: str = ""


class Case(NamedTuple):
    """The metric of one image, and the subject that it shows (by default the image is a subject of its own)."""

    value: float
    subject: str


def read_cases(samples: Sequence[Mapping[str, object]], metric: str = "") -> dict[str, Case]:
    """Return the metric of each image by name, from the ``samples`` of an evaluation.

    Args:
        samples: rows of images, as an evaluation has them.
        metric: one of their further metrics, whose mean over the classes where it is defined is taken (default: the
            metric of the task). That is the mean Dice of the classes that are there or predicted, or 1 for a class that
            was recognised and 0 for one that was not.

    Images where it is undefined are left out.

    >>> read_cases([{"name": "a", "metric": 0.5, "subject": "x"}, {"name": "b", "metric": None}])
    {'a': Case(value=0.5, subject='x')}
    """
    found = {}
    for sample in samples:
        name, value = str(sample.get("name")), sample.get("metric", sample.get("correct"))
        if metric:
            value = _mean_of(sample.get("values"), metric)
        if isinstance(value, (bool, int, float)) and math.isfinite(value):
            found[name] = Case(float(value), str(sample.get("subject") or name))
    return found


def _mean_of(values: object, metric: str) -> float | None:
    """Return the mean of a metric over the classes that have it; None of none, and where JSON holds something else."""
    by_class = values.get(metric) if isinstance(values, Mapping) else None
    known = (
        [value for value in by_class.values() if isinstance(value, (int, float))]
        if isinstance(by_class, Mapping)
        else []
    )
    return float(np.mean(known)) if known else None


class Resamples(NamedTuple):
    """A statistic of images that were drawn anew, and of images without one subject each.

    Attributes:
        point: the statistic of all images.
        drawn: of the resamples, where it is defined.
        left_out: of all images but one subject's, or but one of many blocks of subjects.
        subjects: their number.
    """

    point: float
    drawn: Floats
    left_out: Floats
    subjects: int

    @property
    def defined(self) -> bool:
        """True where the statistic is defined for all images, without any of the subjects, and for enough resamples."""
        return math.isfinite(self.point) and bool(np.isfinite(self.left_out).all()) and len(self.drawn) >= 20

    @property
    def _widening(self) -> float:
        return math.sqrt(self.subjects / (self.subjects - 1))  # a resample of n values spreads too little

    def _corrections(self) -> tuple[float, float]:
        """Return the corrections for bias and skewness of the bootstrap."""
        from scipy.special import ndtri

        below = ((self.drawn < self.point).mean() + (self.drawn <= self.point).mean()) / 2
        if not 0 < below < 1:
            return 0.0, 0.0
        shifts = self.left_out.mean() - self.left_out
        cubes, squares = float((shifts**3).sum()), float((shifts**2).sum())
        return float(ndtri(below)), cubes / (6 * squares**1.5) if squares > 0 else 0.0

    def interval(self) -> Interval | None:
        """Return the interval of :func:`bootstrap`."""
        from scipy.special import ndtr, stdtrit

        if not self.defined:
            return None
        bias, skew = self._corrections()
        wide = self._widening * float(stdtrit(self.subjects - 1, (1 + LEVEL) / 2))  # Student's in place of the normal
        ends = bias + np.array([-wide, wide])
        low, high = np.quantile(self.drawn, ndtr(bias + ends / np.maximum(1 - skew * ends, 1e-9)))
        return Interval(float(low), float(high))

    def p_value(self) -> float | None:
        """Return the p-value of "the statistic is 0": 1 less the largest level whose interval leaves 0 out.

        It is below 1 − LEVEL where :meth:`interval` leaves 0 out, and never below 1 of the number of resamples. None
        where there is no interval, or where no resample differs from 0.
        """
        from scipy.special import ndtri, stdtr

        if not self.defined or not self.drawn.any():
            return None
        bias, skew = self._corrections()
        drawn, least = np.sort(self.drawn), 0.5 / len(self.drawn)
        places = np.linspace(0, 1, len(drawn))
        # The quantiles that are 0: the last of them for an interval above 0, the first for one below.
        last = np.interp(np.nextafter(0, 1), drawn, places)
        first = np.interp(np.nextafter(0, -1), drawn, places)
        wide = 0.0
        for sign, place in ((-1, last), (1, first)):
            shift = float(ndtri(np.clip(place, least, 1 - least))) - bias
            scale = 1 + skew * shift
            wide = max(wide, sign * ((shift / scale if scale > 1e-9 else math.copysign(math.inf, shift)) - bias))
        share = 2 * float(stdtr(self.subjects - 1, -wide / self._widening))
        return min(1.0, max(share, 1 / len(drawn)))

    def effect(self) -> float | None:
        """Return t / √(t² + n − 1) of n subjects, −1 … 1, where t is the statistic over its jackknife error.

        Of the mean of paired differences, this is the correlation that belongs to Student's t (Rosenthal 1991). None
        where there is no interval, or where nothing differs from 0.
        """
        if not self.defined:
            return None
        blocks = len(self.left_out)
        error2 = (blocks - 1) / blocks * float(np.square(self.left_out - self.left_out.mean()).sum())
        size2 = self.point**2 + (self.subjects - 1) * error2
        return self.point / math.sqrt(size2) if size2 > 0 else None


def bootstrap(
    statistic: Statistic, subjects: Sequence[object], *, replicates: int = REPLICATES, seed: int = 0
) -> list[Interval | None]:
    """Return the interval of each column of a statistic.

    The ends are quantiles of the bootstrapped values, corrected for bias and skewness (BCa; Efron 1987,
    doi:10.1080/01621459.1987.10478410) and for few subjects (Hesterberg 2015, doi:10.1080/00031305.2015.1089789):
    otherwise the interval of 8 images would hold the true mean in 88 of 100 repetitions, and so in 93.

    Args:
        statistic: weights (rows, images) → values (rows, columns).
        subjects: the subject of each image; images of one subject are drawn together.
        replicates: number of resamples (default 2000); 0 computes none.
        seed: random seed of the resamples (default 0).

    Returns:
        Intervals; None where there are fewer than two subjects, or where a column is undefined without one of them.

    >>> values = np.array([0.5, 0.7, 0.8, 1.0])
    >>> [interval] = bootstrap(lambda weights: (weights @ values / weights.sum(axis=1))[:, None], range(4))
    >>> [round(end, 1) for end in interval]
    [0.5, 1.0]
    """
    found = resample(statistic, subjects, replicates=replicates, seed=seed)
    return [column and column.interval() for column in found]


def resample(
    statistic: Statistic, subjects: Sequence[object], *, replicates: int = REPLICATES, seed: int = 0
) -> list[Resamples | None]:
    """Return the resamples of each column of a statistic; arguments, and None, as of :func:`bootstrap`."""
    groups = np.unique(np.asarray([str(subject) for subject in subjects]), return_inverse=True)[1]
    count = int(groups.max(initial=-1)) + 1
    point = statistic(np.ones((1, len(groups))))[0]
    if count < 2 or replicates < 1:
        return [None] * len(point)
    drawn = np.concatenate([statistic(weights) for weights in _draw(groups, count, replicates, seed)])
    left_out = np.concatenate([statistic(weights) for weights in _leave_out(groups, count)])
    return [
        Resamples(float(value), values[np.isfinite(values)], without, count)
        for value, values, without in zip(point, drawn.T, left_out.T, strict=True)
    ]


def _draw(groups: NDArray[np.intp], count: int, replicates: int, seed: int) -> Iterator[Floats]:
    """Yield rows of weights: each of the subjects as often as it was drawn."""
    generator, rows = np.random.default_rng(seed), max(1, _CHUNK // len(groups))
    for first in range(0, replicates, rows):
        times = generator.multinomial(count, np.full(count, 1 / count), size=min(rows, replicates - first))
        yield times[:, groups].astype(np.float64)


def _leave_out(groups: NDArray[np.intp], count: int) -> Iterator[Floats]:
    """Yield rows of weights without one subject each, or without one of many blocks of subjects."""
    blocks, rows = groups * min(count, _BLOCKS) // count, max(1, _CHUNK // len(groups))
    for first in range(0, min(count, _BLOCKS), rows):
        gone = np.arange(first, min(first + rows, count, _BLOCKS))
        yield (blocks != gone[:, None]).astype(np.float64)


def column_means(values: Floats) -> Statistic:
    """Return the statistic of the columns' means over the images that have a value, and of the mean of those means.

    Args:
        values: (images, columns), NaN where undefined.

    Returns:
        weights (rows, images) → (rows, 1 + columns), the mean of the means first.

    >>> column_means(np.array([[1.0, 0.0], [0.5, np.nan]]))(np.ones((1, 2))).tolist()
    [[0.375, 0.75, 0.0]]
    """
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)

    def statistic(weights: Floats) -> Floats:
        counts: Floats = weights @ known.astype(np.float64)
        means = np.where(counts > 0, weights @ filled / np.maximum(counts, 1), np.nan)
        return np.asarray(np.concatenate([mean_known(means), means], axis=1), np.float64)

    return statistic


def mean_known(values: Floats) -> Floats:
    """Return the mean of each row's known values, (rows, 1); NaN of none."""
    known = np.isfinite(values)
    total, count = np.where(known, values, 0.0).sum(axis=1, keepdims=True), known.sum(axis=1, keepdims=True)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan), np.float64)


def mean_interval(cases: Sequence[Case], *, seed: int = 0) -> Interval | None:
    """Return the interval of the mean over images; None of fewer than two subjects.

    >>> mean_interval([Case(0.5, "a")]) is None
    True
    """
    if not cases:
        return None
    values = np.array([case.value for case in cases])

    def mean(weights: Floats) -> Floats:
        return np.asarray((weights @ values / weights.sum(axis=1))[:, None], np.float64)

    return bootstrap(mean, [case.subject for case in cases], seed=seed)[0]


def share_interval(count: int, total: int) -> Interval | None:
    """Return the interval of a share of successes among independent images (Wilson 1927); None of none.

    A bootstrap of successes alone would give an interval without width.

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


def accuracy_interval(cases: Sequence[Case]) -> Interval | None:
    """Return the interval of the share of images that are right: Wilson's, or by bootstrap where subjects repeat."""
    if len({case.subject for case in cases}) < len(cases):
        return mean_interval(cases)
    return share_interval(round(sum(case.value for case in cases)), len(cases))


def compare_cases(ours: Mapping[str, Case], theirs: Mapping[str, Case]) -> Difference | None:
    """Return by how much ``ours`` is above ``theirs`` on the images that both have; None where they share none.

    The interval is the bootstrap's over subjects. The test takes one mean difference a subject.

    >>> compare_cases({"a": Case(0.5, "a"), "b": Case(0.75, "b")}, {"b": Case(0.25, "b"), "c": Case(1.0, "c")})
    Difference(mean=0.5, interval=None, images=1, effect=1.0, p_value=1.0, test='Wilcoxon')
    """
    pairs = [Case(case.value - theirs[name].value, case.subject) for name, case in ours.items() if name in theirs]
    if not pairs:
        return None
    by_subject: dict[str, list[float]] = {}
    for pair in pairs:
        by_subject.setdefault(pair.subject, []).append(pair.value)
    tested = _test([float(np.mean(values)) for values in by_subject.values()])
    return Difference(float(np.mean([pair.value for pair in pairs])), mean_interval(pairs), len(pairs), *tested)


def _test(differences: Sequence[float]) -> tuple[float | None, float | None, str]:
    """Return the rank-biserial correlation and the p-value of paired differences, and the test that gives it."""
    from scipy.stats import binomtest, rankdata, wilcoxon

    moved = np.array([value for value in differences if value])
    if not len(moved):
        return None, None, ""
    ranks = rankdata(np.abs(moved))
    effect = float((ranks * np.sign(moved)).sum() / ranks.sum())
    if np.isin(moved, (-1.0, 1.0)).all():
        return effect, float(binomtest(int((moved > 0).sum()), len(moved)).pvalue), "McNemar"
    tied = len(set(np.abs(moved))) < len(moved)
    method = "exact" if len(moved) <= 50 and not tied else "asymptotic"
    return effect, float(wilcoxon(moved, method=method).pvalue), "Wilcoxon"
