"""Metrics of a trained network on labelled images: Dice or accuracy, per class and per sample. Writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from convoxel.data import DataSet, Sample, Split
from convoxel.data.data_set import IGNORED
from convoxel.errors import ConfigError, DataError
from convoxel.predict.case_statistics import REPLICATES
from convoxel.predict.class_curves import Curves, trace_curves
from convoxel.predict.classification_metric import ClassScores, LabelScores
from convoxel.predict.clean_up import AS_FOUND, CleanUp
from convoxel.predict.figures import Figures, Resampling, describe_resampling, overlap_figures, score_figures
from convoxel.predict.inference import Predictor
from convoxel.predict.label_threshold import ClassThreshold, find_best
from convoxel.predict.loss_terms import value_loss
from convoxel.predict.member import MemberFacts
from convoxel.predict.metric_table import label_metrics, overlap_metrics, score_metrics, value_metrics
from convoxel.predict.metrics import Metrics, Row, Tally
from convoxel.predict.regression_metric import ValueScores
from convoxel.predict.segmentation_loss import segmentation_loss
from convoxel.predict.segmentation_metric import EMPTY_RULE, OverlapMetric

_CLASSIFY_BATCH = 64
_MOST_REPLICATES = 100_000

#: A label map (uint8), a class number, the set of an image's class numbers, or its values.
Prediction: TypeAlias = NDArray[np.uint8] | int | frozenset[int] | tuple[float, ...]
# index, sample, prediction, its metrics
OnSample = Callable[[int, Sample, Prediction, Row], None]


class Evaluation(Metrics):
    """Metrics of a split and where they come from: engine, split, step of the checkpoint, images, name of the data.

    ``figures`` holds each metric with its intervals, ``resampling`` how these were found, ``empty_rule`` in words what
    counts where a class is not there, ``curves`` a classification's calibration, ROC and precision-recall curves,
    ``thresholds`` those of images that may have several classes, by class (None of others).
    """

    figures: Figures
    resampling: Resampling
    empty_rule: str
    curves: Curves | None
    thresholds: dict[str, ClassThreshold] | None

    engine: str
    split: str
    step: int
    count: int
    data: str


class RunEvaluation(Evaluation):
    """The same with the time of all predictions, the members, and the images that each of them was trained on."""

    seconds: float
    members: list[MemberFacts]
    seen: dict[str, list[str]]


@dataclass(frozen=True)
class Request:
    """Metrics to compute beside that of the task, and the bootstrap of their intervals.

    Attributes:
        metrics: names of metrics (default: those of the task that cost nothing beside the prediction).
        replicates: resamples of the intervals' bootstrap; 0 leaves intervals out (default 2000).
        seed: random seed of the bootstrap (default 0).
    """

    metrics: Sequence[str] | None = None
    replicates: int = REPLICATES
    seed: int = 0

    def check(self, task: str, multi_label: bool = False) -> None:
        """Raise ConfigError unless the task has these metrics and the number of resamples is one."""
        if not 0 <= self.replicates <= _MOST_REPLICATES:
            raise ConfigError(
                f"bootstrap: got {self.replicates}; expected a number of resamples from 0 (no intervals) to "
                f"{_MOST_REPLICATES}. 2000 is usual."
            )
        tables = {"segment": overlap_metrics, "regress": value_metrics, "classify": score_metrics}
        (label_metrics if multi_label else tables[task])(self.metrics)


def evaluate_split(
    predictor: Predictor,
    dataset: DataSet,
    split: str,
    on_sample: OnSample | None = None,
    request: Request | None = None,
    clean_up: CleanUp = AS_FOUND,
) -> Evaluation:
    """Return the metrics of one split of a data set, "validation", "train", "test" or "all".

    Args:
        predictor: the network.
        dataset: labelled images.
        split: name of the part.
        on_sample: called with index, sample, prediction and its metrics.
        request: what to measure (default: what costs nothing beside the prediction).
        clean_up: rules by which label maps are cleaned up before they are measured (default: none). The loss stays that
            of the network.

    Raises:
        ConfigError: the task has no such metric.
        DataError: the data set has no such split, or a sample has no label or one that the network does not know;
            lengths are asked for, and only some of the images tell their spacing.
    """
    samples, request = dataset.split(split), request or Request()
    task = predictor.run.config.task
    several = predictor.run.data.multi_label
    request.check(task, several)
    overlap = overlap_metrics(request.metrics) if task == "segment" else ()
    units = _units(samples, overlap, dataset)
    tally = evaluate_samples(predictor, samples, on_sample, overlap=overlap, clean_up=clean_up)
    rows: Sequence[Row] = tally.segmented or tally.classified or tally.measured
    subjects = [row["subject"] for row in rows]
    drawing = {"replicates": request.replicates, "seed": request.seed}
    curves, levels = None, None
    scores: ClassScores | LabelScores | ValueScores
    if task == "segment":
        figures = overlap_figures(overlap, tally.values(), tally.graded, subjects, units, **drawing)
    elif task == "regress":
        scores = tally.value_scores()
        figures = score_figures(value_metrics(request.metrics), scores, tally.classes, subjects, **drawing)
    elif several:
        scores = tally.label_scores()
        figures = score_figures(label_metrics(request.metrics), scores, tally.classes, subjects, **drawing)
        levels = find_best(scores, tally.classes)
        curves = trace_curves(scores, tally.classes)
    else:
        scores = tally.scores()
        figures = score_figures(score_metrics(request.metrics), scores, tally.classes, subjects, **drawing)
        curves = trace_curves(scores, tally.classes)
    return {**tally.metrics(), "engine": predictor.engine, "split": split, "step": predictor.run.step,
            "count": len(samples), "data": dataset.name, "figures": figures,
            "resampling": describe_resampling(task, subjects, **drawing), "curves": curves, "thresholds": levels,
            "empty_rule": EMPTY_RULE if task == "segment" else ""}  # fmt: skip


def _units(samples: Split, metrics: Sequence[OverlapMetric], dataset: DataSet) -> list[str]:
    """Return the unit of each metric; DataError where it would differ from image to image."""
    spaced = {entry.spacing_mm is not None for entry in samples.entries}
    asked = [metric.name for metric in metrics if metric.quantity or metric.name.endswith("mm")]
    if asked and spaced != {True}:
        name = next(entry.name for entry in samples.entries if entry.spacing_mm is None)
        millimetres = [name for name in asked if name.endswith("mm")]
        if len(spaced) > 1 or millimetres:
            raise DataError(
                f"data: {name} of {dataset.name} tells no spacing, so {(millimetres or asked)[0]} "
                f"has no unit{' in common' if len(spaced) > 1 else ''}; expected images with a spacing in mm. "
                "Store it in the files, or leave the metric out (nsd@1voxels measures in voxels)."
            )
    return [metric.unit(spaced == {True}, dataset.dims) for metric in metrics]


def evaluate_samples(
    predictor: Predictor,
    samples: Sequence[Sample] | Split,
    on_sample: OnSample | None = None,
    on_tick: Callable[[], None] | None = None,
    overlap: Sequence[OverlapMetric] = (),
    clean_up: CleanUp = AS_FOUND,
) -> Tally:
    """Predict every sample and count; ``on_tick`` is called between predictions and may raise to stop.

    Args:
        predictor: the network.
        samples: labelled images.
        on_sample: called with index, sample, prediction and its metrics.
        on_tick: called after each group of samples.
        overlap: metrics of each class and image to segment, beside Dice.
        clean_up: rules by which label maps are cleaned up before they are measured (default: none).

    Raises:
        DataError: a sample has no label, or one that the network does not know.
    """
    facts = predictor.run.data
    task, terms = predictor.run.config.task, predictor.run.loss
    tally = Tally(task, facts.classes, overlap, facts.multi_label, facts.regions, terms, predictor.thresholds)
    segment = tally.task == "segment"
    size = 1 if segment else _CLASSIFY_BATCH
    subjects = [entry.subject for entry in samples.entries] if isinstance(samples, Split) else [None] * len(samples)
    for first in range(0, len(samples), size):
        group = [(samples[index], subjects[index]) for index in range(first, min(first + size, len(samples)))]
        found: Sequence[tuple[Prediction, Row]]
        add = _add_labels if tally.multi_label else _add_values if tally.task == "regress" else _add_classes
        found = [_add_volume(predictor, *group[0], tally, clean_up)] if segment else add(predictor, group, tally)
        if on_sample is not None:
            for place, (sample, _) in enumerate(group):
                on_sample(first + place, sample, *found[place])
        if on_tick is not None:
            on_tick()
    return tally


def _add_volume(
    predictor: Predictor, sample: Sample, subject: str | None, tally: Tally, clean_up: CleanUp
) -> tuple[NDArray[np.uint8], Row]:
    """Count one image, predicted slab by slab: its logits are never in memory as a whole."""
    label, facts = sample.label, predictor.run.data
    if not isinstance(label, np.ndarray):
        raise DataError(f"data: {sample.name} has no label map; metrics need one for every image.")
    names = facts.value_names
    highest = int(label.max(initial=0, where=label != IGNORED if len(names) <= IGNORED else True))
    if highest >= len(names):
        raise DataError(
            f"data: the label of {sample.name} holds class {highest}, the run knows 0 … {len(names) - 1} "
            f"({', '.join(names)})."
        )
    prediction = np.empty(label.shape, np.uint8)
    loss = segmentation_loss(len(facts.outputs), predictor.run.loss, facts.regions)
    for part, slab in predictor.slabs(sample):
        prediction[part] = facts.decide(slab)
        loss.add(
            torch.from_numpy(np.ascontiguousarray(slab)), torch.from_numpy(np.ascontiguousarray(label[part], np.int64))
        )
    predictor.finish(prediction, sample)
    if clean_up:
        clean_up.apply(prediction, names, sample)
    return prediction, tally.add_volume(sample, label, prediction, loss.value(), subject)


def _add_classes(
    predictor: Predictor, group: Sequence[tuple[Sample, str | None]], tally: Tally
) -> list[tuple[Prediction, Row]]:
    logits = predictor.class_logits([sample for sample, _ in group]).astype(np.float64)
    found: list[tuple[Prediction, Row]] = []
    for (sample, subject), row in zip(group, logits, strict=True):
        if not isinstance(sample.label, int):
            raise DataError(f"data: {sample.name} has no class; metrics need one for every image.")
        found.append((int(row.argmax()), tally.add_class(sample, sample.label, row, subject)))
    return found


def _add_labels(
    predictor: Predictor, group: Sequence[tuple[Sample, str | None]], tally: Tally
) -> list[tuple[Prediction, Row]]:
    logits = predictor.class_logits([sample for sample, _ in group]).astype(np.float64)
    found: list[tuple[Prediction, Row]] = []
    for (sample, subject), row in zip(group, logits, strict=True):
        if not isinstance(sample.label, frozenset):
            raise DataError(f"data: {sample.name} has no set of classes; metrics need one for every image.")
        result = tally.add_labels(sample, sample.label, row, subject)
        found.append((frozenset(map(int, np.flatnonzero(tally.label_scores(last=True).chosen[0]))), result))
    return found


def _add_values(
    predictor: Predictor, group: Sequence[tuple[Sample, str | None]], tally: Tally
) -> list[tuple[Prediction, Row]]:
    scale, terms = predictor.run.data.targets, predictor.run.loss
    assert scale is not None  # a run that regresses has one
    values = predictor.values([sample for sample, _ in group])
    found: list[tuple[Prediction, Row]] = []
    for (sample, subject), row in zip(group, values, strict=True):
        if not isinstance(sample.label, tuple):
            raise DataError(f"data: {sample.name} has no values; metrics need them for every image.")
        error = scale.standardise(row) - scale.standardise(sample.label)
        result = tally.add_values(sample, row, scale, value_loss(terms, error), subject)
        found.append((tuple(row.tolist()), result))
    return found
