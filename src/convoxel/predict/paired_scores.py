"""Differences of two runs in metrics that are none of single images, such as AUC or R², over the same images.

The images are drawn anew as for the metric's own interval, the same ones for both runs, and the difference is computed
again: its interval, effect and p-value follow from these. Truth and predictions come from the rows of evaluations, so
that runs of earlier versions compare too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from convoxel.errors import ConfigError
from convoxel.predict.case_statistics import Difference, Floats, mean_known, resample
from convoxel.predict.classification_metric import ClassScores, LabelScores
from convoxel.predict.figures import known
from convoxel.predict.metric import Metric
from convoxel.predict.metric_table import label_metrics, score_metrics, value_metrics
from convoxel.predict.regression_metric import ValueScores

Row = Mapping[str, object]
_Scores = ClassScores | LabelScores | ValueScores


def compare_scores(
    metric: str,
    ours: Mapping[str, object],
    theirs: Mapping[str, object],
    classes: Sequence[str],
    task: str,
    several: bool,
) -> Difference | None:
    """Return by how much a metric of ours is above theirs on the images that both have.

    Interval, effect and p-value are those of the bootstrap over subjects
    (:class:`convoxel.predict.case_statistics.Resamples`).

    Args:
        metric: name of the metric.
        ours, theirs: evaluations as :func:`convoxel.train.evaluate` returns them, or as JSON holds them.
        classes: names of the classes or targets.
        task: "classify" or "regress".
        several: whether an image may have several classes.

    Returns:
        The difference; None where the runs share no image, the metric is undefined, or rows hold no probabilities, as
        of very many classes.
    """
    mine, others = _rows(ours), _rows(theirs)
    names = [name for name in mine if name in others]
    if not names:
        return None
    try:
        find: Callable[[Sequence[str]], Sequence[Metric[Callable[..., Floats]]]] = (
            value_metrics if task == "regress" else label_metrics if several else score_metrics
        )
        of = find([metric])[0].of
        sides = [_read([rows[name] for name in names], whole, classes, task, several)
                 for rows, whole in ((mine, ours), (others, theirs))]  # fmt: skip
    except (ConfigError, KeyError, TypeError, ValueError, AttributeError):
        return None

    def difference(weights: Floats) -> Floats:
        return mean_known(of(sides[0], weights)) - mean_known(of(sides[1], weights))

    value = known(float(difference(np.ones((1, len(names))))[0, 0]))
    subjects = [mine[name].get("subject") or name for name in names]
    if value is None:
        return None
    [found] = resample(difference, subjects)
    if found is None:
        return Difference(value, None, len(names))
    p_value = found.p_value()
    return Difference(value, found.interval(), len(names), found.effect(), p_value, "bootstrap" if p_value else "")


def _rows(evaluation: Mapping[str, object]) -> dict[str, Row]:
    rows = evaluation.get("samples")
    return {str(row.get("name")): row for row in rows if isinstance(row, Mapping)} if isinstance(rows, list) else {}


def _read(rows: Sequence[Row], whole: Row, classes: Sequence[str], task: str, several: bool) -> _Scores:
    """Return truth and predictions of rows; KeyError, TypeError or ValueError where they do not tell them."""

    def table(side: str) -> Floats:
        entries = [row[side] for row in rows]
        return np.array([[each[name] for name in classes] for each in entries], np.float64)  # type: ignore[index]

    if task == "regress":
        return ValueScores(table("truth"), table("predicted"))
    shares, place = table("probabilities"), {name: number for number, name in enumerate(classes)}
    if not several:
        return ClassScores(np.array([place[str(row["label"])] for row in rows], np.int64), shares)
    own = np.zeros(shares.shape, np.bool_)
    for row, held in zip(rows, own, strict=True):
        label = str(row["label"])
        held[[place[name] for name in label.split("; ") if label != "none" or "none" in place]] = True
    levels = whole.get("thresholds")
    used = [levels[name]["threshold"] for name in classes] if isinstance(levels, Mapping) else None
    return LabelScores(own, shares, used)
