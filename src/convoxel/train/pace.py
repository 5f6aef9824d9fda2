"""The time that the parts of a run take on this machine, measured before its first step.

A run limited by minutes has to end in time: its last validation and the closing evaluation are kept free, and a limit
that has no room for a single step is refused with the least one that has. Both need to know what a step and a
validation take before there was one.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from torch import nn

from convoxel.data import DataSet, Sample
from convoxel.errors import ConfigError
from convoxel.predict.device import synchronise
from convoxel.predict.evaluation import evaluate_samples
from convoxel.predict.inference import Predictor, build_predictor
from convoxel.predict.sliding_window import cut, tile_starts
from convoxel.predict.trained_run import DataFacts, TrainedRun
from convoxel.train.config import TrainConfig
from convoxel.train.training_batch import Batches
from convoxel.train.training_step import build_step_loss, compute_loss, plan_step, watch_memory

#: Validations overlap their tiles by no more than this; the closing evaluation by what the configuration says.
VALIDATION_OVERLAP = 0.25
_LONG_S = 10.0
_TRIED = 8  # images of a trial classification
# The named least is a little more than what was measured, so that a second try fits.
_ROOM = 1.25


class Pace(NamedTuple):
    """Seconds that the parts of a run take: a step, a validation, the closing evaluation, a checkpoint."""

    step_s: float = 0.0
    validation_s: float = 0.0
    evaluation_s: float = 0.0
    save_s: float = 0.0

    @property
    def least_s(self) -> float:
        """Seconds of the shortest run: a step, what validates it, and what closes the run."""
        return sum(self)


def now() -> float:
    """Return the seconds of the clock by which runs are limited."""
    return time.perf_counter()


def measure_pace(config: TrainConfig, dataset: DataSet, facts: DataFacts, model: nn.Module) -> Pace:
    """Return the pace of a run, from a step and a prediction of a copy of its network.

    Predictions are measured on one tile, or on a few images to classify, and scaled to the validation part. The way
    onto the network's grid and back is measured apart: tiles overlap there, and an image returns once.
    """
    trial = copy.deepcopy(model)
    step_s = _measure_step(config, dataset, facts, trial)
    predictor = build_predictor(TrainedRun(trial.eval(), config, facts, 0), computation=plan_step(config))
    samples = dataset.validation
    begun = now()
    stored = samples[len(samples) - 1]  # the last is the least likely to be kept in memory
    sample = facts.rule.sample(stored)
    read_s = (now() - begun) * len(samples)
    if config.task != "segment":
        tried = [samples[index] for index in range(min(_TRIED, len(samples)))]
        times = [_measure_prediction(predictor, tried) * len(samples) / len(tried) + read_s] * 2
    else:
        tile = _tile(predictor, sample.image.shape[1:])
        piece = _piece(sample, tile)
        taken_s = _measure_prediction(predictor, [piece])
        whole_s = read_s + _measure_return(predictor, dataset, stored, tile, taken_s)
        overlaps = min(config.overlap, VALIDATION_OVERLAP), config.overlap
        times = [taken_s * _voxels(predictor, dataset, overlap) / math.prod(tile) + whole_s for overlap in overlaps]
    return Pace(step_s, *times)


def check_budget(config: TrainConfig, pace: Pace, spent_s: float) -> None:
    """Refuse a limit in minutes that has no room for one step, and name the least that has.

    Args:
        config: complete configuration.
        pace: times of the run's parts.
        spent_s: seconds since the run was asked for.

    Raises:
        ConfigError: the time left is too short.
    """
    limit_s = 60.0 * (config.minutes or math.inf)
    if spent_s + pace.least_s <= limit_s:
        return
    least = math.ceil(100.0 * _ROOM * (spent_s + pace.least_s) / 60.0) / 100.0
    parts = (
        (spent_s, "what goes before (reading the data, measuring)"),
        (pace.step_s, "one step"),
        (pace.validation_s, "a validation"),
        (pace.evaluation_s, "the closing evaluation"),
    )
    told = ", ".join(f"{name} {seconds:.2g} s" for seconds, name in parts)
    raise ConfigError(
        f"minutes: {config.minutes:g} is too short for a single step: {told}. "
        f"Give at least minutes={least:g}, or epochs=1."
    )


def _measure_step(config: TrainConfig, dataset: DataSet, facts: DataFacts, model: nn.Module) -> float:
    """Return the time of a step: of the second, unless the first, which also loads packages, took long enough."""
    computation = plan_step(config)
    batches, taken_s = Batches(dataset.train, config, facts, computation), 0.0
    for number in range(2):
        if taken_s > _LONG_S:
            break
        begun = now()
        with watch_memory(config):
            batch = batches.batch(number).moved(computation)
            compute_loss(model.train(), batch, build_step_loss(config, facts), computation).backward()
            synchronise(computation.device)
        taken_s = (now() - begun) * config.accumulate
    return taken_s


def _measure_prediction(predictor: Predictor, samples: list[Sample]) -> float:
    begun = now()
    evaluate_samples(predictor, samples)
    return now() - begun


def _tile(predictor: Predictor, size: tuple[int, ...]) -> tuple[int, ...]:
    """Return the part of an image that one tile predicts."""
    (member,) = predictor.members
    return member.sizes.inner(member.tile(size))


def _piece(sample: Sample, tile: tuple[int, ...]) -> Sample:
    """Return the corner of a labelled image that one tile covers, without its place in space."""
    size = tuple(min(have, want) for have, want in zip(sample.image.shape[1:], tile, strict=True))
    corner = (0,) * len(size)
    label = sample.label
    assert isinstance(label, np.ndarray)  # data to segment
    return Sample(sample.name, cut(sample.image, corner, size), cut(label, corner, size))


def _measure_return(
    predictor: Predictor, dataset: DataSet, stored: Sample, tile: tuple[int, ...], taken_s: float
) -> float:
    """Return the time in which all images of the validation part return to their own grids; 0 where none is resampled.

    Args:
        predictor: the network.
        dataset: the data.
        stored: an image on its own grid.
        tile: the part of an image on the network's grid that one tile predicts.
        taken_s: time of such a tile on the network's grid.
    """
    place = predictor.run.data.rule.place_sample(stored)
    if not place.resamples:
        return 0.0
    samplings = [place.samplings[place.axes.index(axis)] for axis in range(len(tile))]
    widths = [tile[place.axes.index(axis)] for axis in range(len(tile))]
    # Not more than the tile covers, which a second tile would have to.
    size = tuple(
        max(1, min(each.size, wide * each.size // each.count)) for each, wide in zip(samplings, widths, strict=True)
    )
    own = _piece(stored, size)
    found_s = _measure_prediction(predictor, [replace(own, affine=stored.affine, spacing_mm=stored.spacing_mm)])
    voxels = sum(math.prod(entry.shape) for entry in dataset.validation.entries)
    return max(0.0, found_s - taken_s) * voxels / math.prod(size)


def _voxels(predictor: Predictor, dataset: DataSet, overlap: float) -> int:
    """Return the voxels of all tiles that predict the validation part."""
    total = 0
    for entry in dataset.validation.entries:
        size = predictor.run.data.rule.entry(entry).shape
        tile = _tile(predictor, size)
        counts = [len(tile_starts(side, wide, overlap)) for side, wide in zip(size, tile, strict=True)]
        total += math.prod(counts) * math.prod(tile)
    return total
