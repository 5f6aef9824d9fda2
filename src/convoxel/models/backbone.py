"""The common base of the zoo's networks: attributes and the check of the input.

``Network`` checks its input. ``Backbone`` is a network for classification that can also return its feature maps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from convoxel.arithmetic.argument import whole
from convoxel.errors import ConfigError, ShapeError, check_choice
from convoxel.files.fault import brief
from convoxel.nn import check_dims

#: Logits; or feature maps, or logits of several heads.
Output = Tensor | list[Tensor] | tuple[Tensor, ...]

_WIDEST = 1000  # factor on channels
_DEEPEST = 100  # factor on blocks


class Network(nn.Module):
    """A network over ``dims`` spatial axes that checks its input and names the nearest valid sizes.

    Subclasses define ``compute(x)``, the network proper. The check reads sizes only, and is skipped while the
    network is traced or exported: there sizes may be symbols, and a comparison would bake them into the
    graph.

    Attributes:
        dims: number of spatial axes.
        in_channels: number of channels of the input.
        num_classes: channels of the output (logits).
        input_multiple: every spatial size must be a multiple of this (1: any size).
        input_minimum: the smallest spatial size that gives an output.
    """

    def __init__(
        self, dims: int, in_channels: int, num_classes: int, *, input_multiple: int = 1, input_minimum: int = 1
    ) -> None:
        super().__init__()
        self.dims = check_dims(dims)
        self.in_channels = check_count("in_channels", in_channels)
        self.num_classes = check_count("num_classes", num_classes)
        self.input_multiple = input_multiple
        self.input_minimum = input_minimum

    def forward(self, x: Tensor) -> Output:
        """Return the output of :meth:`compute` for ``(n, in_channels, *spatial)``; ShapeError if ``x`` does not fit."""
        if isinstance(x, Tensor) and not torch.compiler.is_compiling():
            self.check_input(tuple(x.shape))
        return self.compute(x)

    def compute(self, x: Tensor) -> Output:
        """Return logits for an input that has been checked."""
        raise NotImplementedError

    def nearest_sizes(self, size: int, axis: int = 0) -> tuple[int, ...]:
        """Return the valid sizes of a spatial ``axis`` nearest to ``size``: itself, or those below and above."""
        below = size // self.input_multiple * self.input_multiple
        if size >= self.input_minimum and below == size:
            return (size,)
        above = max(-(-size // self.input_multiple) * self.input_multiple, self.input_minimum)
        return (below, above) if below >= self.input_minimum else (above,)

    def check_input(self, shape: tuple[int, ...]) -> None:
        """Raise ShapeError unless the network accepts inputs of ``shape`` (n, in_channels, *spatial)."""
        name = type(self).__name__
        layout = ("n", "in_channels", *("depth", "height", "width")[3 - self.dims :])
        if len(shape) != self.dims + 2:
            raise ShapeError(
                f"{name}: x has {len(shape)} axes {shape}, but dims={self.dims} needs {self.dims + 2}: "
                f"({', '.join(layout)}). "
                "Add the missing axes (for one sample: x[None]), or build with another dims."
            )
        if shape[1] != self.in_channels:
            raise ShapeError(
                f"{name}: x has {shape[1]} channels, but in_channels={self.in_channels}. "
                f"x is {shape}, read as ({', '.join(layout)}). "
                f"Give {self.in_channels} channels, or build with in_channels={shape[1]}."
            )
        wanted = [self.nearest_sizes(size, axis) for axis, size in enumerate(shape[2:])]
        if all(size in fits for size, fits in zip(shape[2:], wanted, strict=True)):
            return
        text = "; ".join(
            f"{axis} {size} → {' or '.join(map(str, fits))}"
            for axis, size, fits in zip(layout[2:], shape[2:], wanted, strict=True)
            if size not in fits
        )
        raise ShapeError(
            f"{name}: x has spatial size {shape[2:]}, but {self.size_rule()}. "
            f"Pad or crop x to the nearest valid sizes: {text}."
        )

    def size_rule(self) -> str:
        """Return in words which spatial sizes are valid."""
        if self.input_multiple == 1:
            return f"every size must be at least {self.input_minimum}"
        return f"every size must be a multiple of {self.input_multiple}"


#: The one way in which every accuracy of the zoo was measured, so that they compare.
ACCURACY_PROTOCOL = "torchvision's weights IMAGENET1K_V1, ImageNet validation images, one centre crop"


class Published(NamedTuple):
    """Figures of a network as published: in 2-D, with its default channels and classes.

    Attributes:
        size: spatial size of the input.
        params: parameters.
        macs: multiply-accumulates for one input.
        field: receptive field of the last feature map, squeeze-and-excitation and global pooling left out.
        top1: ImageNet validation accuracy in percent by ``ACCURACY_PROTOCOL`` at ``size``, or None where that
            protocol has no figure. Papers crop, scale and average in ways of their own, so their figures are not here.
        paper: paper, where it is not that of the whole family.
    """

    size: int
    params: int
    macs: int
    field: int
    top1: float | None = None
    paper: str = ""


class Window(NamedTuple):
    """The numbers of a convolution or pooling that determine the size of an axis."""

    kernel: int
    stride: int = 1
    padding: int = 0
    ceil: bool = False


class Backbone(Network):
    """A classification network, or with ``features_only`` the pyramid of its feature maps.

    Subclasses have ``features(x)``, a method or a module, which returns the last feature map at each stride, finest
    first; and a head: ``avgpool`` and ``classifier``. With ``features_only`` they build no head, and ``forward``
    returns the list. ``windows`` are those that shrink the input, from which the smallest valid size follows.

    Attributes:
        feature_channels: channels of each feature map.
        feature_strides: input pixels per pixel of each feature map. Map i of an input of size s has about
            s / feature_strides[i] pixels along an axis; networks without padding lose a border.
        features_only: whether ``forward`` returns the list.
    """

    feature_channels: tuple[int, ...]
    feature_strides: tuple[int, ...]
    features: Callable[[Tensor], list[Tensor]]
    avgpool: nn.Module
    classifier: nn.Module

    def __init__(
        self, dims: int, in_channels: int, num_classes: int, features_only: bool = False, windows: Sequence[Window] = ()
    ) -> None:
        super().__init__(dims, in_channels, num_classes, input_minimum=smallest_size(windows))
        self.features_only = features_only

    def compute(self, x: Tensor) -> Output:
        """Return logits ``(n, num_classes)``, or with ``features_only`` the feature maps."""
        maps = self.features(x)
        return maps if self.features_only else self.classify(maps[-1])

    def classify(self, x: Tensor) -> Tensor:
        """Return logits ``(n, num_classes)`` from the last feature map."""
        logits: Tensor = self.classifier(torch.flatten(self.avgpool(x), 1))
        return logits


def smallest_size(windows: Sequence[Window], outputs: int = 1) -> int:
    """Return the smallest size of an axis for which ``windows``, one after the other, leave ``outputs`` pixels.

    The inverse of o = ⌊(i + 2p − k) / s⌋ + 1 is i = (o − 1) s + k − 2p. Rounded up, (o − 2) s + k + 1 − 2p
    pixels are enough for a last window that hangs over the end, which must start before the padding after the
    input: i > (o − 1) s − p.

    >>> smallest_size([Window(7, 2, 3), Window(3, 2, 1)]), smallest_size([Window(2, 2)] * 5)
    (1, 32)
    >>> smallest_size([Window(3, 2, ceil=True)]), smallest_size([Window(3, 2)])
    (2, 3)
    """
    for kernel, stride, padding, ceil in reversed(windows):
        least = (outputs - 1) * stride + kernel - 2 * padding
        if ceil:
            least = max(least - stride + 1, (outputs - 1) * stride - padding + 1)
        outputs = max(1, least)
    return outputs


def check_count(name: str, value: int, least: int = 1, most: int = 2**31 - 1) -> int:
    """Return ``value`` if it is a whole number from ``least`` to ``most``; else ConfigError names it."""
    return whole(name, value, least, most)


def check_stem(stem: str) -> str:
    """Return ``stem`` if it is ``"image"`` or, for inputs of few pixels, ``"small"``; else ConfigError lists both."""
    return check_choice("stem", stem, ("image", "small"))


def scale_channels(channels: int, width: float) -> int:
    """Return ``channels × width`` rounded to a multiple of 8, at least 8 and never more than 10 % below.

    The rule of the MobileNet family: kernels work on blocks of 8 channels, so odd counts cost as much as the
    next multiple. ``width`` 1.0 leaves the published counts alone.

    >>> [scale_channels(64, width) for width in (1.0, 0.25, 0.1, 0.3)]
    [64, 16, 8, 24]
    """
    if isinstance(width, bool) or not isinstance(width, (int, float)) or not 0 < width <= _WIDEST:
        raise ConfigError(
            f"width is {brief(width)}, but this network takes a factor above 0, up to {_WIDEST} (1.0: as published)."
        )
    if width == 1:
        return channels
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def scale_count(count: int, depth: float) -> int:
    """Return ``count × depth`` rounded up: how many blocks a stage has (Tan & Le 2019, arXiv 1905.11946).

    >>> [scale_count(3, depth) for depth in (1.0, 0.1, 1.2)]
    [3, 1, 4]
    """
    if isinstance(depth, bool) or not isinstance(depth, (int, float)) or not 0 < depth <= _DEEPEST:
        raise ConfigError(
            f"depth is {brief(depth)}, but this network takes a factor above 0, up to {_DEEPEST} (1.0: as published)."
        )
    return math.ceil(count * depth)
