"""Normalisation of image intensities, the same in training and prediction.

Ours brings them to mean 0 and standard deviation 1 after an image is resampled. A run whose normalisation has rules for
its channels takes each channel as its rule says, before the image is resampled, as nnU-Net does, or after it, as its
first version. One that has steps takes them one after the other, before or after that, as pipelines of MONAI do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from convoxel.data.mapped_image import MappedImage, slabs

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Statistics:
    """Mean, standard deviation and smallest value of each channel; arrays (channels,) float32.

    ``low`` and ``high`` cut off what lies beyond them first; None where nothing is cut off.
    """

    mean: Array
    std: Array
    floor: Array
    low: Array | None = None
    high: Array | None = None

    def normalise(self, image: Array) -> Array:
        """Return ``(image − mean) / std`` of an image (channels, *spatial) or of any part of one."""
        shape = (-1, *(1 for _ in image.shape[1:]))
        if self.low is not None and self.high is not None:
            image = np.clip(image, self.low.reshape(shape), self.high.reshape(shape))
        found = image - self.mean.reshape(shape)
        found /= self.std.reshape(shape)
        return found


_LEAST_STD = 1e-8


@dataclass(frozen=True)
class ChannelRule:
    """The normalisation of one channel by a rule of nnU-Net.

    Attributes:
        kind: "zscore" measures the image, "ct" clips it to ``low`` … ``high`` and takes the ``mean`` and ``std`` of the
            training images, "range" brings its smallest value to 0 and its largest to 1, "bytes" divides by 255, "none"
            leaves it.
        masked: whether "zscore" measures the inside of the body alone; around it, the channel is 0 then.
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
            found = np.where(body, found, np.float32(0)) if self.masked else found
        elif self.kind == "range":
            found = channel - channel.min()
            found /= max(found.max(), np.float32(_LEAST_STD))
        elif self.kind == "zscore":
            inside = channel[body] if self.masked else channel
            if inside.size == 0:
                return channel
            mean, std = inside.mean(dtype=np.float64), max(inside.std(dtype=np.float64), _LEAST_STD)
            found = (channel - np.float32(mean)) / np.float32(std)
            found = np.where(body, found, np.float32(0)) if self.masked else found
        else:
            found = channel / np.float32(255) if self.kind == "bytes" else channel
        return np.asarray(found, np.float32)


@dataclass(frozen=True)
class IntensityStep:
    """One change of the intensities of an image, as MONAI's transforms of dictionaries do it.

    Attributes:
        kind: "range" maps ``low`` … ``high`` to ``first`` … ``last`` (ScaleIntensityRange); "extent" does so with the
            image's least and largest value (ScaleIntensity); "percentiles" with its percentiles ``low`` and ``high``
            (ScaleIntensityRangePercentiles); "standard" takes its mean from it and divides by its standard deviation
            (NormalizeIntensity).
        low, high: see ``kind``.
        first, last: see ``kind``; None leaves values where the others bring ``low`` to 0 and ``high`` to 1.
        clip: whether values beyond ``first`` … ``last`` are cut off.
        each: whether each channel is measured by itself.
        nonzero: whether "standard" measures and changes the voxels alone that are not zero.
        mean, std: of "standard", a number or one a channel; empty: those of the image.
    """

    kind: Literal["range", "extent", "percentiles", "standard"]
    low: float = 0.0
    high: float = 0.0
    first: float | None = None
    last: float | None = None
    clip: bool = False
    each: bool = False
    nonzero: bool = False
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def apply(self, image: Array) -> Array:
        """Return an image (channels, *spatial) after the step."""
        if self.each or len(self.mean) > 1:
            found = [self._change(channel[None], index) for index, channel in enumerate(image)]
            return np.concatenate(found)
        return self._change(image, 0)

    def _change(self, image: Array, index: int) -> Array:
        if self.kind == "standard":
            return self._standardise(image, index)
        low, high = self.low, self.high
        if self.kind == "extent":
            low, high = float(image.min()), float(image.max())
        elif self.kind == "percentiles":
            low, high = map(float, np.percentile(image, [self.low, self.high]))
        if low == high:
            return np.asarray(image - np.float32(low) + np.float32(self.first or 0.0), np.float32)
        found = (image - np.float32(low)) / np.float32(high - low)
        if self.first is not None and self.last is not None:
            found = found * np.float32(self.last - self.first) + np.float32(self.first)
            if self.clip:
                found = np.clip(found, np.float32(self.first), np.float32(self.last))
        return np.asarray(found, np.float32)

    def _standardise(self, image: Array, index: int) -> Array:
        inside = image != 0 if self.nonzero else np.ones(image.shape, bool)
        values = image[inside]
        if values.size == 0:
            return image
        mean = self.mean[min(index, len(self.mean) - 1)] if self.mean else float(values.mean(dtype=np.float64))
        std = self.std[min(index, len(self.std) - 1)] if self.std else float(values.std(dtype=np.float64))
        found: Array = image.copy()
        found[inside] = (values - np.float32(mean)) / np.float32(std or 1.0)
        return found


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
        kind: "sample" measures each image, "dataset" uses the statistics of the training images, "ct" those of their
            labelled voxels, after values beyond ``low`` and ``high`` were cut off, "channels" has rules, "steps" has
            steps.
        mean, std: those statistics, one value per channel; empty for the others.
        low, high: least and largest value of "ct", one per channel; empty for the others.
        channels: rules of the channels.
        resampled: whether these apply after an image is resampled, and not before.
        steps: changes of intensities, one after the other.
        steps_before: how many of them apply before an image is resampled.
    """

    kind: str
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    channels: tuple[ChannelRule, ...] = ()
    steps: tuple[IntensityStep, ...] = ()
    steps_before: int = 0
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    resampled: bool = False

    @property
    def ruled(self) -> bool:
        """True where rules or steps make the network's values, and no statistics."""
        return self.kind in ("channels", "steps")

    def finish(self, image: Any) -> Any:
        """Return an image (channels, *spatial) that has been resampled after the steps that come then."""
        for step in self.steps[self.steps_before :]:
            image = step.apply(image)
        return image

    def apply_rules(self, image: Array) -> Array:
        """Return an image (channels, *spatial), cut but not resampled, after its channels' rules or the first steps."""
        if self.kind == "steps":
            image = np.array(image, np.float32, order="C")
            for step in self.steps[: self.steps_before]:
                image = step.apply(image)
            return image
        return image if self.resampled else self.apply_to(image, self.find_body(image))

    def find_body(self, image: Array) -> NDArray[np.bool_]:
        """Return where an image (channels, *spatial) is not empty, (*spatial), as far as a rule asks for it."""
        masked = any(rule.masked for rule in self.channels)
        return find_body(image) if masked else np.ones(image.shape[1:], bool)

    def apply_to(self, image: Array, body: NDArray[np.bool_]) -> Array:
        """Return an image (channels, *spatial) after its channels' rules; ``body`` as of :meth:`find_body`."""
        return np.stack([rule.normalise(each, body) for rule, each in zip(self.channels, image, strict=True)])

    def statistics(self, image: Array) -> Statistics:
        """Return the statistics that normalise ``image`` (channels, *spatial), which may lie in a file.

        Sums are taken slab by slab, so that they need no memory for a second image. Whole numbers as stored are
        counted, and every sum over them is exact up to its last rounding.
        """
        if self.ruled:  # applied already; 0 is what tiles hold beyond the image
            zeros = np.zeros(len(image), np.float32)
            return Statistics(zeros, zeros + 1, zeros)
        axes = tuple(range(1, len(image.shape)))
        counted = image.value_counts() if isinstance(image, MappedImage) else None
        if counted is None:
            floor = np.min([slab.min(axis=axes) for slab in slabs(image)], axis=0)
        else:
            floor = np.array([values.min() for values, _ in counted], np.float32)
        if self.kind in ("dataset", "ct"):
            std = np.asarray([value or 1.0 for value in self.std], np.float32)
            bounds = [np.asarray(bound, np.float32) if bound else None for bound in (self.low, self.high)]
            return Statistics(np.asarray(self.mean, np.float32), std, floor, *bounds)
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
