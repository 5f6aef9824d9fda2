"""Figures of an evaluation: each metric over all images and for each class, with its interval and its unit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from convoxel.predict.case_statistics import (
    LEVEL,
    REPLICATES,
    Interval,
    bootstrap,
    column_means,
    mean_known,
    share_interval,
)
from convoxel.predict.classification_metric import (
    LABEL_SHARES,
    SHARES,
    ClassScores,
    LabelMetric,
    LabelScores,
    ScoreMetric,
)
from convoxel.predict.regression_metric import ValueMetric, ValueScores
from convoxel.predict.segmentation_metric import OverlapMetric

Floats = NDArray[np.float64]


class ClassFigure(TypedDict):
    """A metric of one class: its value (None where undefined) with the interval; over how many images it is the mean.

    ``median``, ``least`` and ``most`` are of single images, and None where the metric is none of single images.
    """

    value: float | None
    interval: Interval | None
    images: int
    median: float | None
    least: float | None
    most: float | None


class Figure(TypedDict):
    """A metric over all images: unit, direction of better values, value, interval, and the figure of each class."""

    unit: str
    better: str
    words: str
    source: str
    value: float | None
    interval: Interval | None
    per_class: dict[str, ClassFigure]


Figures = dict[str, Figure]


class Resampling(TypedDict):
    """The method behind the intervals: level, method in words, resamples, random seed, and the number of subjects."""

    level: float
    method: str
    replicates: int
    seed: int
    subjects: int


def describe_resampling(task: str, subjects: Sequence[str], replicates: int, seed: int) -> Resampling:
    """Return what has to be said beside intervals."""
    method = "BCa bootstrap over subjects with Hesterberg's correction for few"
    if task == "classify" and len(set(subjects)) == len(subjects):
        method += "; shares of images: Wilson"
    return {"level": LEVEL, "method": method, "replicates": replicates, "seed": seed, "subjects": len(set(subjects))}


def overlap_figures(
    metrics: Sequence[OverlapMetric],
    values: Floats,
    classes: Sequence[str],
    subjects: Sequence[str],
    units: Sequence[str],
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Figures:
    """Return the figures of segmentations.

    A class's figure is the mean over the images where it is defined; the metric's is the mean of those.

    Args:
        metrics: the metrics.
        values: (images, metrics, classes), NaN where undefined.
        classes: names of the classes.
        subjects: the subject of each image.
        units: unit of each metric.
        replicates: resamples of the bootstrap (default 2000).
        seed: random seed of the bootstrap (default 0).
    """
    found: Figures = {}
    for place, (metric, unit) in enumerate(zip(metrics, units, strict=True)):
        table = values[:, place]
        statistic = column_means(table)
        means = statistic(np.ones((1, len(table))))[0]
        intervals = bootstrap(statistic, subjects, replicates=replicates, seed=seed)
        per_class = {name: _class_figure(means[1 + c], intervals[1 + c], table[:, c]) for c, name in enumerate(classes)}
        found[metric.name] = _figure(metric, unit, means[0], intervals[0], per_class)
    return found


def score_figures(
    metrics: Sequence[ScoreMetric] | Sequence[LabelMetric] | Sequence[ValueMetric],
    scores: ClassScores | LabelScores | ValueScores,
    classes: Sequence[str],
    subjects: Sequence[str],
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Figures:
    """Return the figures of classifications and regressions; arguments as of :func:`overlap_figures`.

    A metric that is computed for each class against the rest is the mean over the classes where it is defined.
    """
    found: Figures = {}
    independent = len(set(subjects)) == len(subjects)
    known_shares = LABEL_SHARES if isinstance(scores, LabelScores) else SHARES
    counts = scores.counts
    for metric in metrics:

        def statistic(weights: Floats, of: Callable[..., Floats] = metric.of) -> Floats:
            columns = of(scores, weights)
            return columns if columns.shape[1] == 1 else np.concatenate([mean_known(columns), columns], axis=1)

        points = statistic(np.ones((1, len(scores))))[0]
        intervals = bootstrap(statistic, subjects, replicates=replicates, seed=seed)
        if not isinstance(scores, ValueScores) and metric.name in known_shares and independent and replicates:
            shares = known_shares[metric.name](scores.tally(np.ones((1, len(scores)))))
            wilson = [
                share_interval(int(part), int(whole)) for part, whole in zip(shares[0][0], shares[1][0], strict=True)
            ]
            intervals[-len(wilson) :] = wilson
        per_class: dict[str, ClassFigure] = {}
        for number, name in enumerate(classes) if len(points) > 1 else ():
            figure = _class_figure(points[1 + number], intervals[1 + number], np.zeros(0))
            per_class[name] = {**figure, "images": int(counts[number])}
        found[metric.name] = _figure(metric, "", points[0], intervals[0], per_class)
    return found


def _figure(
    metric: OverlapMetric | ScoreMetric | LabelMetric | ValueMetric,
    unit: str,
    value: float,
    interval: Interval | None,
    per_class: dict[str, ClassFigure],
) -> Figure:
    return {"unit": unit, "better": metric.better, "words": metric.words, "source": metric.source,
            "value": known(value), "interval": interval, "per_class": per_class}  # fmt: skip


def _class_figure(value: float, interval: Interval | None, single: Floats) -> ClassFigure:
    single = single[np.isfinite(single)]
    middle, least, most = (
        (float(np.median(single)), float(single.min()), float(single.max())) if len(single) else (None, None, None)
    )
    return {"value": known(value), "interval": interval, "images": len(single),
            "median": middle, "least": least, "most": most}  # fmt: skip


def known(value: float) -> float | None:
    """Return the value, or None where it is undefined: JSON has no NaN.

    >>> known(0.5), known(math.nan)
    (0.5, None)
    """
    return float(value) if math.isfinite(value) else None
