"""The quality of trained runs, compared only where it was measured alike: same metric, same data, same images.

Two runs on other data, or with other images held out, say nothing about each other, so they form groups of their own.
Within a group the images are paired: the difference to the best run is that of the same images.
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from convoxel.draw.comparison_chart import Measured, Quality
from convoxel.draw.quantity import number
from convoxel.predict.case_statistics import (
    Case,
    Difference,
    Interval,
    Spread,
    accuracy_interval,
    compare_cases,
    mean_interval,
    read_cases,
)
from convoxel.predict.paired_scores import compare_scores
from convoxel.report.run_contents import RunFolder, mapping, mappings, read_run
from convoxel.train import evaluate

# Metrics of tasks that are none of single images, by their names among the figures.
_WHOLE = {"mean AUC": "auc", "R²": "r2"}


@dataclass(frozen=True)
class _Measured:
    """The quality that a run's folder tells; runs compare where ``key`` is equal."""

    run: RunFolder
    key: tuple[object, ...]
    metric: float | None
    cases: dict[str, Case]
    basis: str


def compare_quality(
    folders: Sequence[str | Path | None], data: str | Path | None = None, metrics: Sequence[str] | None = None
) -> list[Quality | None]:
    """Return the quality of each run, with its group and its difference to the best run of the group.

    Args:
        folders: folders of runs; None for a network that was not trained.
        data: other labelled images, on which every run is measured now (default: what each run's closing evaluation
            found on the images that it held out).
        metrics: names of the metrics to measure there (default: those that cost nothing beside the prediction).
    """
    runs = [None if folder is None else read_run(folder) for folder in folders]
    for run in runs:
        if run is not None and data is not None:
            found_there = evaluate(run.path, data, metrics=metrics)
            run.evaluation = json.loads(json.dumps(found_there))  # as the closing evaluation is read
    found = [None if run is None else _read(run, data is not None) for run in runs]
    keys = list(dict.fromkeys(each.key for each in found if each is not None))
    return [None if each is None else _judge(each, [other for other in found if other is not None], keys)
            for each in found]  # fmt: skip


def _read(run: RunFolder, elsewhere: bool) -> _Measured:
    samples = mappings(run.evaluation.get("samples"))
    graded = run.task, run.metric_name, tuple(run.classes)  # the mean over labels is not that over regions
    metric = number(run.evaluation.get("metric"))
    data, fingerprint = str(run.data.get("data_name") or "unnamed data"), str(run.data.get("fingerprint"))
    if elsewhere:
        data, fingerprint = f"{run.evaluation.get('data')} ({run.evaluation.get('split')})", ""
    if run.evaluation and samples:
        names = frozenset(str(sample.get("name")) for sample in samples)
        basis = f"{data}, {len(samples)} {'' if elsewhere else 'held-out '}image{'' if len(samples) == 1 else 's'}"
        return _Measured(run, (*graded, fingerprint, names), metric, read_cases(samples), basis)
    # Not closed yet: the best validation so far, whose images follow from these entries.
    split = tuple(str(run.config.get(name)) for name in ("validation", "seed", "gap"))
    metric = metric if metric is not None else number(run.best_row.get("metric"))
    return _Measured(run, (*graded, fingerprint, split), metric, {}, f"{data}, the best validation so far")


def _judge(each: _Measured, others: list[_Measured], keys: list[tuple[object, ...]]) -> Quality:
    rivals = [other for other in others if other.key == each.key and other.metric is not None]
    best = max(rivals, key=lambda other: other.metric or 0.0, default=each)
    run, cases = each.run, list(each.cases.values())
    steps = number(run.last.get("step"))
    return Quality(
        metric_name=run.metric_name.removeprefix("mean ") if run.task == "segment" else run.metric_name,
        metric=each.metric,
        per_class=mapping(run.evaluation.get("per_class")) or mapping(run.best_row.get("per_class")),
        group=_letter(keys.index(each.key)) if len(keys) > 1 else "",
        basis=each.basis,
        best=best is each and sum(other.key == each.key for other in others) > 1,
        interval=_interval(run, cases),
        spread=Spread.of([case.value for case in cases]),
        difference=None if best is each else _differ(each, best),
        measured=_measure(each, best),
        train_s=number(run.last.get("elapsed_s")),
        steps=None if steps is None else int(steps),
    )


def _differ(each: _Measured, best: _Measured) -> Difference | None:
    """Return the difference in the metric of the task over the same images."""
    key = _WHOLE.get(each.run.metric_name)
    return compare_cases(each.cases, best.cases) if key is None else _differ_in(key, each, best)


def _differ_in(metric: str, each: _Measured, best: _Measured) -> Difference | None:
    """Return the difference in a metric over the same images: the mean of theirs, or that of a figure of all."""
    ours, theirs = (read_cases(mappings(run.evaluation.get("samples")), metric) for run in (each.run, best.run))
    if ours or theirs or each.run.task == "segment":
        return compare_cases(ours, theirs)
    run = each.run
    if metric == "accuracy" and run.task == "classify" and not run.multi_label:  # single images are right or wrong
        return compare_cases(each.cases, best.cases)
    return compare_scores(metric, run.evaluation, best.run.evaluation, run.classes, run.task, run.multi_label)


def _interval(run: RunFolder, cases: list[Case]) -> Interval | None:
    key = _WHOLE.get(run.metric_name)
    if key is not None:
        ends = mapping(mapping(run.evaluation.get("figures")).get(key)).get("interval")
        return Interval(float(ends[0]), float(ends[1])) if isinstance(ends, list) and len(ends) == 2 else None
    return accuracy_interval(cases) if run.task == "classify" else mean_interval(cases)


def _measure(each: _Measured, best: _Measured) -> dict[str, Measured]:
    """Return every metric of a run's evaluation, with its mean difference to the best run over the same images."""
    found = {}
    for name, entries in mapping(each.run.evaluation.get("figures")).items():
        entry = mapping(entries)
        ends = entry.get("interval")
        known = [value for end in ends if (value := number(end)) is not None] if isinstance(ends, list) else []
        difference = None if best is each else _differ_in(name, each, best)
        interval = Interval(known[0], known[1]) if len(known) == 2 else None
        found[name] = Measured(str(entry.get("unit") or ""), number(entry.get("value")), interval, difference)
    return found


def _letter(index: int) -> str:
    letters = string.ascii_uppercase
    return letters[index] if index < len(letters) else f"{_letter(index // len(letters) - 1)}{letters[index % 26]}"
