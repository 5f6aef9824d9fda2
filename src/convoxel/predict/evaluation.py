"""Metrics of a trained network on labelled images: Dice or accuracy, per class and per sample. Writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from convoxel.data import DataSet, Sample, Split
from convoxel.errors import DataError
from convoxel.predict.inference import Predictor
from convoxel.predict.metrics import Metrics, SegmentationLoss, Tally, confusion

_CLASSIFY_BATCH = 64

# index, sample, prediction: a label map or a class number
OnSample = Callable[[int, Sample, "NDArray[np.uint8] | int"], None]


class Evaluation(Metrics):
    """Metrics of a split and where they come from: engine, split, step of the checkpoint, images, name of the data."""

    engine: str
    split: str
    step: int
    count: int
    data: str


class TimedEvaluation(Evaluation):
    """The same with the time of all predictions."""

    seconds: float


def evaluate_split(predictor: Predictor, dataset: DataSet, split: str, on_sample: OnSample | None = None) -> Evaluation:
    """Return the metrics of one split of a data set, "validation", "train", "test" or "all".

    Raises:
        DataError: the data set has no such split, or a sample has no label or one that the network does not know.
    """
    samples = dataset.split(split)
    metrics = evaluate_samples(predictor, samples, on_sample).metrics()
    return {**metrics, "engine": predictor.engine, "split": split, "step": predictor.run.step, "count": len(samples),
            "data": dataset.name}  # fmt: skip


def evaluate_samples(
    predictor: Predictor,
    samples: Sequence[Sample] | Split,
    on_sample: OnSample | None = None,
    on_tick: Callable[[], None] | None = None,
) -> Tally:
    """Predict every sample and count; ``on_tick`` is called between predictions and may raise to stop.

    Raises:
        DataError: a sample has no label, or one that the network does not know.
    """
    tally = Tally(predictor.run.config.task, predictor.classes)
    segment = tally.task == "segment"
    size = 1 if segment else _CLASSIFY_BATCH
    for first in range(0, len(samples), size):
        group = [samples[index] for index in range(first, min(first + size, len(samples)))]
        found: list[NDArray[np.uint8]] | list[int]
        found = [_add_volume(predictor, group[0], tally)] if segment else _add_classes(predictor, group, tally)
        if on_sample is not None:
            for place, sample in enumerate(group):
                on_sample(first + place, sample, found[place])
        if on_tick is not None:
            on_tick()
    return tally


def _add_volume(predictor: Predictor, sample: Sample, tally: Tally) -> NDArray[np.uint8]:
    """Count one image, predicted slab by slab: its logits are never in memory as a whole."""
    label, classes = sample.label, len(predictor.classes)
    if not isinstance(label, np.ndarray):
        raise DataError(f"data: {sample.name} has no label map; metrics need one for every image.")
    if int(label.max(initial=0)) >= classes:
        raise DataError(
            f"data: the label of {sample.name} holds class {int(label.max())}, the run knows 0 … {classes - 1} "
            f"({', '.join(predictor.classes)})."
        )
    prediction, loss = np.empty(label.shape, np.uint8), SegmentationLoss(classes)
    for start, slab in predictor.slabs(sample.image):
        stop = start + slab.shape[1]
        logits = torch.from_numpy(np.ascontiguousarray(slab))
        prediction[start:stop] = logits.argmax(dim=0).numpy()
        loss.add(logits, torch.from_numpy(label[start:stop].astype(np.int64)))
    tally.add_volume(sample.name, confusion(label, prediction, classes), loss.value())
    return prediction


def _add_classes(predictor: Predictor, group: list[Sample], tally: Tally) -> list[int]:
    for sample in group:
        if not isinstance(sample.label, int):
            raise DataError(f"data: {sample.name} has no class; metrics need one for every image.")
    log_p = torch.log_softmax(torch.from_numpy(predictor.class_logits([sample.image for sample in group])), dim=1)
    found = [int(row.argmax()) for row in log_p]
    for sample, predicted, row in zip(group, found, log_p, strict=True):
        truth = int(sample.label or 0)
        tally.add_class(sample.name, truth, predicted, float(row[predicted].exp()), float(-row[truth]))
    return found
