"""Figures of a trained run on labelled images: Dice or accuracy, per class and per sample. Writes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convoxel import data
from convoxel.errors import ConfigError, DataError
from convoxel.train.config import TrainConfig
from convoxel.train.inference import Predictor, build_predictor
from convoxel.train.loss import combine_segmentation_loss, overlap_sums
from convoxel.train.metrics import Tally, confusion
from convoxel.train.network import load_model

__all__ = ["evaluate", "load_data", "score_samples"]

_CLASSIFY_BATCH = 64
_SPLITS = ("validation", "train", "test", "all")

OnSample = Callable[[int, Any, Any], None]


def evaluate(
    run_dir: str | Path,
    source: str | Path | None = None,
    *,
    engine: str = "convoxel",
    split: str = "validation",
    which: str = "best",
    on_sample: OnSample | None = None,
) -> dict[str, Any]:
    """Return the figures of a run's network on labelled images.

    Args:
        run_dir: folder that :func:`convoxel.train.fit` wrote.
        source: a data set as for training; the run's own unless given.
        engine: "convoxel" or "torch".
        split: "validation", "train", "test" or "all". Data that the run was not trained on is taken
            whole when "validation" is asked for: nothing of it was seen.
        which: checkpoint, "best" or "last".
        on_sample: called with (index, sample, prediction) after each sample.

    Returns:
        ``metric_name``, ``metric`` (mean Dice without background, or accuracy), ``per_class``,
        ``confusion`` (rows: truth), ``loss``, ``samples`` (one dict each), ``count``, ``seconds``,
        ``engine``, ``split``, ``step``, ``data``.

    Raises:
        CheckpointError: the folder is no run. DataError: the data do not fit the run. ConfigError:
            ``split`` or ``engine`` is unknown.
    """
    if split not in _SPLITS:
        raise ConfigError(f"split: got {split!r}; expected one of {', '.join(_SPLITS)}.")
    model, config, meta = load_model(run_dir, which)
    dataset = load_data(config, source)
    check_fit(dataset, meta)
    foreign = source is not None and dataset.fingerprint != meta["fingerprint"]
    samples, named = _choose(dataset, split, foreign)
    predictor = build_predictor(model, config, meta, engine=engine)
    start = time.perf_counter()
    tally = score_samples(predictor, samples, on_sample)
    return {
        **tally.figures(),
        "count": len(samples),
        "seconds": time.perf_counter() - start,
        "engine": engine,
        "split": named,
        "step": meta["step"],
        "data": dataset.name,
    }


def load_data(config: TrainConfig, source: str | Path | None = None) -> Any:
    """Return the data set of a configuration, or another ``source`` read in the same way."""
    try:
        return data.load(
            str(source) if source is not None else config.data,
            config.task,
            validation=config.validation,
            gap=config.gap,
            seed=config.seed,
            bad=config.on_bad_sample,
        )
    except DataError as error:
        raise DataError(f"data: {error}") from None


def check_fit(dataset: Any, meta: dict[str, Any]) -> None:
    """Raise DataError unless the data have the axes, channels and classes that the run was trained on."""
    for name, have, want in (
        ("spatial axes", dataset.dims, meta["dims"]),
        ("channels", dataset.channels, meta["channels"]),
        ("classes", len(dataset.classes), len(meta["classes"])),
    ):
        if have != want:
            raise DataError(f"data: {dataset.name} has {have} {name}, the run was trained on {want}. "
                            "Give data of the same kind, or train a run on these.")  # fmt: skip
    if dataset.task == "classify" and list(dataset.classes) != list(meta["classes"]):
        have, want = (", ".join(map(str, names)) for names in (dataset.classes, meta["classes"]))
        raise DataError(f"data: {dataset.name} has the classes {have}, the run was trained on {want}. "
                        "Name them alike, or train a run on these.")  # fmt: skip


def _choose(dataset: Any, split: str, foreign: bool) -> tuple[Sequence[Any], str]:
    parts = {"train": dataset.train, "validation": dataset.validation, "test": getattr(dataset, "test", None)}
    if split == "all" or (foreign and split == "validation"):
        return _Joined([part for part in parts.values() if part is not None]), "all"
    chosen = parts[split]
    if chosen is None or len(chosen) == 0:
        there = [name for name, part in parts.items() if part is not None and len(part)]
        raise DataError(f"split: {dataset.name} has no {split} part; it has {', '.join(there)}.")
    return chosen, split


class _Joined(Sequence[Any]):
    """Several splits read one after the other, still lazily."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self._places = [(part, index) for part in parts for index in range(len(part))]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        part, place = self._places[index]
        return part[place]


def score_samples(
    predictor: Predictor,
    samples: Sequence[Any],
    on_sample: OnSample | None = None,
    on_tick: Callable[[], None] | None = None,
) -> Tally:
    """Predict every sample and count; ``on_tick`` is called between samples and may raise to stop.

    Raises:
        DataError: a sample has no label.
    """
    tally = Tally(predictor.config.task, predictor.classes)
    if predictor.config.task == "segment":
        for index in range(len(samples)):
            sample = samples[index]
            prediction = _score_volume(predictor, sample, tally)
            if on_sample is not None:
                on_sample(index, sample, prediction)
            if on_tick is not None:
                on_tick()
        return tally
    for first in range(0, len(samples), _CLASSIFY_BATCH):
        group = [samples[index] for index in range(first, min(first + _CLASSIFY_BATCH, len(samples)))]
        for index, (sample, prediction) in enumerate(_score_classes(predictor, group, tally), first):
            if on_sample is not None:
                on_sample(index, sample, prediction)
        if on_tick is not None:
            on_tick()
    return tally


def _score_volume(predictor: Predictor, sample: Any, tally: Tally) -> Any:
    """Predict one image slab by slab; its logits never lie in memory whole."""
    if sample.label is None:
        raise DataError(f"data: {sample.name} has no label; figures need one for every image.")
    label, classes = sample.label, len(predictor.classes)
    if int(label.max(initial=0)) >= classes:
        raise DataError(f"data: the label of {sample.name} holds class {int(label.max())}, the run knows "
                        f"0 … {classes - 1} ({', '.join(predictor.classes)}).")  # fmt: skip
    prediction = np.empty(label.shape, np.uint8)
    entropy, sums = 0.0, torch.zeros(3, classes, dtype=torch.float64)
    for start, slab in predictor.slabs(sample.image):
        stop = start + slab.shape[1]
        logits = torch.from_numpy(np.ascontiguousarray(slab))
        prediction[start:stop] = logits.argmax(dim=0).numpy()
        part = overlap_sums(logits, torch.from_numpy(label[start:stop].astype(np.int64)))
        entropy, sums = entropy + part[0], sums + part[1]
    loss = combine_segmentation_loss(entropy, sums, label.size)
    tally.add_volume(sample.name, confusion(label, prediction, classes), loss)
    return prediction


def _score_classes(predictor: Predictor, group: list[Any], tally: Tally) -> list[tuple[Any, int]]:
    for sample in group:
        if sample.label is None:
            raise DataError(f"data: {sample.name} has no class; figures need one for every image.")
    log_p = torch.log_softmax(torch.from_numpy(predictor.class_logits([s.image for s in group])), dim=1)
    found = []
    for sample, row in zip(group, log_p, strict=True):
        truth, predicted = int(sample.label), int(row.argmax())
        tally.add_class(sample.name, truth, predicted, float(row[predicted].exp()), float(-row[truth]))
        found.append((sample, predicted))
    return found
