"""Normalisation of image intensities to mean 0 and standard deviation 1, the same in training and prediction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Normalisation", "Statistics"]

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
        """Return the statistics that normalise ``image`` (channels, *spatial)."""
        flat = image.reshape(image.shape[0], -1)
        floor = flat.min(axis=1)
        if self.kind == "dataset":
            std = np.asarray([value or 1.0 for value in self.std], np.float32)
            return Statistics(np.asarray(self.mean, np.float32), std, floor)
        pairs = [_measure_body(channel, low) for channel, low in zip(flat, floor, strict=True)]
        mean, std = np.asarray(pairs, np.float32).T
        return Statistics(mean, std, floor)


def _measure_body(channel: Array, floor: np.float32) -> tuple[float, float]:
    """Mean and standard deviation of the voxels above the smallest value.

    Air, a stripped skull and padding share the smallest value. With them, the share of background, which differs from
    one cut of the same head to the next, would move the intensities of the tissue.
    """
    body = channel[channel > floor]
    if body.size == 0:
        return float(floor), 1.0
    std = float(body.std(dtype=np.float64))
    return float(body.mean(dtype=np.float64)), std if std > 0 else 1.0
