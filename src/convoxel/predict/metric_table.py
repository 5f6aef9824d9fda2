"""The metrics of each task: those that a list of names asks for, and all that there are."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from convoxel.errors import ConfigError
from convoxel.predict.classification_metric import LABEL_METRICS, SCORE_METRICS, LabelMetric, ScoreMetric
from convoxel.predict.metric import Metric
from convoxel.predict.regression_metric import VALUE_METRICS, ValueMetric
from convoxel.predict.segmentation_metric import OVERLAP_METRICS, OverlapMetric, find_overlap_metric

#: What is measured where nothing is asked for: whatever counts alone tell.
DEFAULT_OVERLAP = ("dice", "iou", "sensitivity", "precision")
DEFAULT_LABELS = ("auc", "ap", "f1", "precision", "sensitivity", "accuracy")
DEFAULT_VALUES = ("mae", "rmse", "r2", "pearson")
DEFAULT_SCORES = ("accuracy", "balanced_accuracy", "f1", "auc", "ap", "ece", "brier")

_M = TypeVar("_M", ScoreMetric, LabelMetric, ValueMetric)
_SEVERAL = "classify, several classes"


@dataclass(frozen=True)
class MetricRow:
    """A metric with its task, as ``evaluate --metrics list`` shows it."""

    task: str
    name: str
    better: str
    unit: str
    words: str
    source: str


def list_metrics() -> list[MetricRow]:
    """Return every metric of every task.

    >>> [row.name for row in list_metrics() if row.unit == "mm, or voxels"]
    ['hd', 'hd95', 'assd']
    """
    units = {"": "", "length": "mm, or voxels", "volume": "ml (2-D: mm², 1-D: mm), or voxels"}
    tables: tuple[tuple[str, Sequence[Metric[Callable[..., object]]]], ...] = (
        ("segment", OVERLAP_METRICS),
        ("classify", SCORE_METRICS),
        (_SEVERAL, LABEL_METRICS),
        ("regress", VALUE_METRICS),
    )
    return [
        MetricRow(task, metric.name, metric.better, units[metric.quantity], metric.words, metric.source)
        for task, table in tables
        for metric in table
    ]


def overlap_metrics(names: Sequence[str] | None) -> tuple[OverlapMetric, ...]:
    """Return the metrics of segmentations that are asked for, Dice first; None: those that counts alone tell.

    Raises:
        ConfigError: a name is none of theirs; the message lists them.
    """
    asked = _distinct(DEFAULT_OVERLAP if names is None else names)
    known = [metric.name for metric in OVERLAP_METRICS]
    found = [find_overlap_metric(name) or _refuse(name, known, "segment") for name in asked]
    return tuple({metric.name: metric for metric in found}.values())


def score_metrics(names: Sequence[str] | None) -> tuple[ScoreMetric, ...]:
    """Return the metrics of classifications that are asked for; None: the usual ones.

    Raises:
        ConfigError: a name is none of theirs; the message lists them.
    """
    return _find(DEFAULT_SCORES if names is None else names, SCORE_METRICS, "classify")


def label_metrics(names: Sequence[str] | None) -> tuple[LabelMetric, ...]:
    """Return the metrics of classifications of several classes an image that are asked for; None: the usual ones.

    Raises:
        ConfigError: a name is none of theirs; the message lists them.
    """
    return _find(DEFAULT_LABELS if names is None else names, LABEL_METRICS, _SEVERAL)


def value_metrics(names: Sequence[str] | None) -> tuple[ValueMetric, ...]:
    """Return the metrics of regressions that are asked for; None: the usual ones.

    Raises:
        ConfigError: a name is none of theirs; the message lists them.
    """
    return _find(DEFAULT_VALUES if names is None else names, VALUE_METRICS, "regress")


def _find(names: Sequence[str], metrics: Sequence[_M], task: str) -> tuple[_M, ...]:
    table = {metric.name: metric for metric in metrics}
    return tuple(table[name] if name in table else _refuse(name, list(table), task) for name in _distinct(names))


def _distinct(names: Sequence[str]) -> list[str]:
    found = list(dict.fromkeys(name.strip().lower() for name in names))
    if not all(found) or not found:
        raise ConfigError(
            f"metrics: got {','.join(names)!r}; expected names with commas between them, such as dice,hd95."
        )
    return found


def _refuse(name: str, known: list[str], task: str) -> NoReturn:
    there = next((row.task for row in list_metrics() if row.name == name), "")
    told = f", which is one of the task {there!r}" if there else ""
    near = difflib.get_close_matches(name, known, 1)
    raise ConfigError(
        f"metrics: got {name!r}{told}; expected for the task {task!r} some of {', '.join(known)}."
        + (f" Did you mean {near[0]!r}?" if near else "")
    )
