"""Normalisation of image intensities to mean 0 and standard deviation 1, the same in training and prediction."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convoxel.data.mapped_image import MappedImage, slabs

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Statistics:
    """Mean, standard deviation and smallest value of each channel; arrays (channels,) float32."""

    mean: Array
    std: Array
    floor: Array

    def normalise(self, image: Array) -> Array:
        """Return ``(image − mean) / std`` of an image (channels, *spatial) or of any part of one."""
        shape = (-1, *(1 for _ in image.shape[1:]))
        return (image - self.mean.reshape(shape)) / self.std.reshape(shape)


@dataclass(frozen=True)
class Normalisation:
    """The normalisation of a run.

    Attributes:
        kind: "sample" measures each image, "dataset" uses the statistics of the training images.
        mean, std: those statistics, one value per channel; empty for "sample".
    """

    kind: str
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def statistics(self, image: Array) -> Statistics:
        """Return the statistics that normalise ``image`` (channels, *spatial), which may lie in a file.

        Sums are taken slab by slab, so that they need no memory for a second image. Whole numbers as stored are
        counted, and every sum over them is exact up to its last rounding.
        """
        axes = tuple(range(1, len(image.shape)))
        counted = image.value_counts() if isinstance(image, MappedImage) else None
        if counted is None:
            floor = np.min([slab.min(axis=axes) for slab in slabs(image)], axis=0)
        else:
            floor = np.array([values.min() for values, _ in counted], np.float32)
        if self.kind == "dataset":
            std = np.asarray([value or 1.0 for value in self.std], np.float32)
            return Statistics(np.asarray(self.mean, np.float32), std, floor)
        if counted is None:
            pairs = [_measure_body(image, channel, low) for channel, low in enumerate(floor)]
        else:
            pairs = [_measure_counts(*channel) for channel in counted]
        mean, std = np.asarray(pairs, np.float32).T
        return Statistics(mean, std, floor)


def _measure_body(image: Array, channel: int, floor: np.float32) -> tuple[float, float]:
    """Mean and standard deviation of the voxels above the smallest value.

    Air, a stripped skull and padding share the smallest value. With them, the share of background, which differs from
    one cut of the same head to the next, would move the intensities of the tissue.
    """

    def bodies() -> Iterator[NDArray[np.float64]]:
        for slab in slabs(image):
            values = slab[channel]
            yield values[values > floor].astype(np.float64)

    sizes, sums = zip(*((body.size, float(body.sum())) for body in bodies()), strict=True)
    count = sum(sizes)
    if count == 0:
        return float(floor), 1.0
    mean = math.fsum(sums) / count
    std = math.sqrt(math.fsum(float(np.square(body - mean).sum()) for body in bodies()) / count)
    return mean, std if std > 0 else 1.0


def _measure_counts(values: Array, counts: NDArray[np.int64]) -> tuple[float, float]:
    """Mean and standard deviation of the values above the smallest, each of which occurs ``counts`` times."""
    body = values > values.min()
    levels, weights = values[body].astype(np.float64), counts[body]
    if not levels.size:
        return float(values.min()), 1.0
    total = int(weights.sum())
    mean = math.fsum(levels * weights) / total
    std = math.sqrt(math.fsum(np.square(levels - mean) * weights) / total)
    return mean, std if std > 0 else 1.0
