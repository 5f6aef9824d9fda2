"""Normalisation of image intensities, the same in training and prediction.

Ours brings them to mean 0 and standard deviation 1 after an image is resampled. A run whose normalisation has rules for
its channels takes each channel as its rule says, before the image is resampled, as nnU-Net does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

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


_LEAST_STD = 1e-8


@dataclass(frozen=True)
class ChannelRule:
    """The normalisation of one channel by a rule of nnU-Net.

    Attributes:
        kind: "zscore" measures the image, "ct" clips it to ``low`` … ``high`` and takes the ``mean`` and ``std`` of the
            training images, "range" brings its smallest value to 0 and its largest to 1, "bytes" divides by 255, "none"
            leaves it.
        masked: whether "zscore" measures and changes the inside of the body alone, and leaves the zeros around it.
    """

    kind: Literal["zscore", "ct", "range", "bytes", "none"]
    masked: bool = False
    mean: float = 0.0
    std: float = 1.0
    low: float = 0.0
    high: float = 0.0

    def normalise(self, channel: Array, body: NDArray[np.bool_]) -> Array:
        """Return a channel (*spatial) normalised; ``body`` is True where the image is, holes included."""
        if self.kind == "ct":
            found = (np.clip(channel, self.low, self.high) - np.float32(self.mean)) / np.float32(
                max(self.std, _LEAST_STD)
            )
        elif self.kind == "range":
            found = channel - channel.min()
            found /= max(found.max(), np.float32(_LEAST_STD))
        elif self.kind == "zscore":
            inside = channel[body] if self.masked else channel
            if inside.size == 0:
                return channel
            mean, std = inside.mean(dtype=np.float64), max(inside.std(dtype=np.float64), _LEAST_STD)
            found = (channel - np.float32(mean)) / np.float32(std)
            found = np.where(body, found, channel) if self.masked else found
        else:
            found = channel / np.float32(255) if self.kind == "bytes" else channel
        return np.asarray(found, np.float32)


def find_body(image: Array) -> NDArray[np.bool_]:
    """Return True where any channel of an image (channels, *spatial) is not zero, and in the holes of that."""
    from scipy.ndimage import binary_fill_holes

    body = (image != 0).any(axis=0)
    # nnU-Net sees a plane as a volume of one slice, in which no hole is closed.
    return np.asarray(binary_fill_holes(body), bool) if body.ndim == 3 and min(body.shape) > 1 else body


@dataclass(frozen=True)
class Normalisation:
    """The normalisation of a run.

    Attributes:
        kind: "sample" measures each image, "dataset" uses the statistics of the training images, "channels" has rules.
        mean, std: those statistics, one value per channel; empty for the others.
        channels: rules of the channels, which apply before an image is resampled.
    """

    kind: str
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    channels: tuple[ChannelRule, ...] = ()

    def apply_rules(self, image: Array) -> Array:
        """Return an image (channels, *spatial), cut but not resampled, with each channel as its rule says."""
        masked = any(rule.masked for rule in self.channels)
        body = find_body(image) if masked else np.ones(image.shape[1:], bool)
        return np.stack([rule.normalise(each, body) for rule, each in zip(self.channels, image, strict=True)])

    def statistics(self, image: Array) -> Statistics:
        """Return the statistics that normalise ``image`` (channels, *spatial), which may lie in a file.

        Sums are taken slab by slab, so that they need no memory for a second image. Whole numbers as stored are
        counted, and every sum over them is exact up to its last rounding.
        """
        if self.channels:  # applied already; 0 is what tiles hold beyond the image
            zeros = np.zeros(len(self.channels), np.float32)
            return Statistics(zeros, zeros + 1, zeros)
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
