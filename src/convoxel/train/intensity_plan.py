"""The normalisation of a run: its kind, chosen from the values of the training images, and its measured statistics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from convoxel.data import DataSet
from convoxel.data.data_set import IGNORED
from convoxel.errors import ConfigError
from convoxel.predict.normalisation import Normalisation
from convoxel.train.config import TrainConfig

# Air has −1000 Hounsfield units, what lies outside the scanner's circle −1024 or less (12 bits), bone up to some
# thousands. Other scanners' values are not negative, and normalised ones do not reach that far.
_AIR, _OUTSIDE, _SOFT, _METAL = -500.0, -10_000.0, 100.0, 70_000.0
_MOST_SHARE = 0.9
# Of one image's labelled voxels: enough for percentiles of the whole set.
_VOXELS = 50_000
_PERCENTILES = 0.5, 99.5


def plan_normalisation(
    config: TrainConfig, dims: int, count: int, ranges: Sequence[tuple[float, float]] = ()
) -> tuple[str, str]:
    """Return the kind of normalisation, and why this one.

    Args:
        config: configuration; ``normalise`` is kept where it is stated.
        dims: number of spatial axes.
        count: number of training images.
        ranges: least and largest value of each training image (default: not known).
    """
    if config.normalise is not None:
        return config.normalise, "stated"
    if dims != 3 or config.task != "segment":
        return "dataset", "images of one kind share a scale"
    hounsfield = sum(_OUTSIDE <= low <= _AIR and _SOFT <= high <= _METAL for low, high in ranges)
    if ranges and hounsfield >= _MOST_SHARE * len(ranges):
        low, high = (float(np.median(column)) for column in zip(*ranges, strict=True))
        return "ct", (
            f"values of {hounsfield} of {len(ranges)} images reach from {low:.5g} to {high:.5g} (medians) as "
            "Hounsfield units do, whose scale is absolute"
        )
    # Scanners scale volumes differently; a single volume has no such differences, and its own statistics would
    # change with the cut (a slab of the back of a head has less air than one of the front).
    if count > 1:
        return "sample", "scanners scale volumes differently"
    return "dataset", "a single volume has one scale"


def measure_normalisation(config: TrainConfig, dataset: DataSet) -> Normalisation:
    """Return the normalisation of a planned configuration, measured on the training part.

    Raises:
        ConfigError: ``normalise`` is "ct", but no training voxel is labelled.
    """
    if config.normalise == "sample":
        return Normalisation("sample")
    if config.normalise == "ct":
        return _measure_labelled(dataset)
    if dataset.dims != 3:
        return Normalisation("dataset", dataset.intensity.mean, dataset.intensity.std)
    # Of each volume's body, as for single volumes: with the air included, tissues would lie close together.
    measures = [Normalisation("sample").statistics(sample.image) for sample in dataset.train]
    mean, std = (np.mean([getattr(m, name) for m in measures], axis=0) for name in ("mean", "std"))
    return Normalisation("dataset", tuple(map(float, mean)), tuple(map(float, std)))


def _measure_labelled(dataset: DataSet) -> Normalisation:
    """Return mean, deviation and percentiles of the labelled voxels of all training images, nnU-Net's for CT."""
    found = []
    for sample in dataset.train:
        if isinstance(sample.label, np.ndarray):
            places = np.flatnonzero((sample.label != 0) & (sample.label != IGNORED))
            kept = places[np.linspace(0, places.size - 1, min(places.size, _VOXELS)).astype(np.int64)]
            found.append(sample.image.reshape(dataset.channels, -1)[:, kept])
    values = np.concatenate(found, axis=1).astype(np.float64) if found else np.zeros((dataset.channels, 0))
    if not values.shape[1]:
        raise ConfigError(
            "normalise: got 'ct', which measures labelled voxels, but no training image has one. Set normalise=sample."
        )
    low, high = np.percentile(values, _PERCENTILES, axis=1)
    rows = values.mean(axis=1), values.std(axis=1), low, high
    mean, std, low, high = (tuple(map(float, row)) for row in rows)
    return Normalisation("ct", mean, std, low=low, high=high)
