"""Inception-v3: branches whose wide kernels are factorised into one convolution for each axis.

Szegedy et al. 2016, "Rethinking the Inception architecture for computer vision" (arXiv 1512.00567), Table 1 and
Figures 5 to 7, and §4 for the auxiliary head. Input 3 × 299 × 299, 1000 classes; 23 834 568 parameters (27 161 264
with the auxiliary head) and 5 713 216 096 multiply-accumulates.

In 2-D a 7-wide kernel is 1 × 7 and then 7 × 1, and state-dict names and shapes are those of torchvision. With other
numbers of axes there is one such convolution for each axis; where the branches of Figure 7 split over the axes,
the axes share the channels equally. So the feature maps have the same channels for every ``dims``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from convoxel.models.backbone import Output, Published, Window, check_stem, scale_channels, smallest_size
from convoxel.models.layer_factory import LayerFactory
from convoxel.models.pyramid import Trunk
from convoxel.nn import average_pool, global_average_pool, max_pool, start_network


class Variant(NamedTuple):
    """The figures of the published network."""

    published: Published


VARIANTS = {"inception_v3": Variant(Published(299, 23_834_568, 5_713_216_096, 1311, 77.294))}

_UNIT = ("conv", "bn", "relu")
# Kernel, stride and padding of the stem's convolutions and poolings, by their names in state dicts.
_IMAGE_STEM = {
    "Conv2d_1a_3x3": (32, Window(3, 2)),
    "Conv2d_2a_3x3": (32, Window(3)),
    "Conv2d_2b_3x3": (64, Window(3, 1, 1)),
    "maxpool1": (64, Window(3, 2)),
    "Conv2d_3b_1x1": (80, Window(1)),
    "Conv2d_4a_3x3": (192, Window(3)),
    "maxpool2": (192, Window(3, 2)),
}
_SMALL_STEM = {
    "Conv2d_1a_3x3": (32, Window(3, 1, 1)),
    "Conv2d_2a_3x3": (32, Window(3, 1, 1)),
    "Conv2d_2b_3x3": (64, Window(3, 1, 1)),
    "Conv2d_3b_1x1": (80, Window(1)),
    "Conv2d_4a_3x3": (192, Window(3, 1, 1)),
    "maxpool2": (192, Window(3, 2)),
}
_STEMS = {"image": _IMAGE_STEM, "small": _SMALL_STEM}
_REDUCE = Window(3, 2)
# The auxiliary head: an average pooling and a 5-wide convolution, both without padding.
_HEAD = (Window(5, 3), Window(5))


class Layer(NamedTuple):
    """A convolution of a branch.

    Attributes:
        outputs: channels that it returns.
        kernel: kernel size.
        axis: the only axis along which the kernel is longer than 1; None: along all.
        reduce: stride 2 without padding.
    """

    outputs: int
    kernel: int = 1
    axis: int | None = None
    reduce: bool = False


# A branch: layers in a row. A list of layers in it is a fork: all read the same, and are concatenated.
Branch = Sequence["Layer | list[Layer]"]


def _row(channels: int, last: int, size: int, axes: Sequence[int]) -> list[Layer]:
    """Return a ``size``-long convolution along each of ``axes``; the last returns ``last`` channels."""
    return [*(Layer(channels, size, axis) for axis in axes[:-1]), Layer(last, size, axes[-1])]


def _fork(dims: int) -> list[Layer]:
    return [Layer(768 // dims, 3, axis) for axis in reversed(range(dims))]


def _figure_5(pool: int) -> dict[str, Branch]:
    return {
        "branch1x1": [Layer(64)],
        "branch5x5": [Layer(48), Layer(64, 5)],
        "branch3x3dbl": [Layer(64), Layer(96, 3), Layer(96, 3)],
        "branch_pool": [Layer(pool)],
    }


def _reduce_a() -> dict[str, Branch]:
    return {
        "branch3x3": [Layer(384, 3, reduce=True)],
        "branch3x3dbl": [Layer(64), Layer(96, 3), Layer(96, 3, reduce=True)],
        "branch_pool": [],
    }


def _figure_6(dims: int, channels: int) -> dict[str, Branch]:
    axes = list(range(dims))
    return {
        "branch1x1": [Layer(192)],
        "branch7x7": [Layer(channels), *_row(channels, 192, 7, axes[::-1])],
        "branch7x7dbl": [Layer(channels), *_row(channels, 192, 7, axes + axes)],
        "branch_pool": [Layer(192)],
    }


def _reduce_b(dims: int) -> dict[str, Branch]:
    return {
        "branch3x3": [Layer(192), Layer(320, 3, reduce=True)],
        "branch7x7x3": [Layer(192), *_row(192, 192, 7, range(dims)[::-1]), Layer(192, 3, reduce=True)],
        "branch_pool": [],
    }


def _figure_7(dims: int) -> dict[str, Branch]:
    return {
        "branch1x1": [Layer(320)],
        "branch3x3": [Layer(384), _fork(dims)],
        "branch3x3dbl": [Layer(448), Layer(384, 3), _fork(dims)],
        "branch_pool": [Layer(192)],
    }


def _blocks(dims: int) -> dict[str, dict[str, Branch]]:
    """Return the blocks after the stem by their names in state dicts; in those that reduce, the stride is 2."""
    return {
        "Mixed_5b": _figure_5(32),
        "Mixed_5c": _figure_5(64),
        "Mixed_5d": _figure_5(64),
        "Mixed_6a": _reduce_a(),
        "Mixed_6b": _figure_6(dims, 128),
        "Mixed_6c": _figure_6(dims, 160),
        "Mixed_6d": _figure_6(dims, 160),
        "Mixed_6e": _figure_6(dims, 192),
        "Mixed_7a": _reduce_b(dims),
        "Mixed_7b": _figure_7(dims),
        "Mixed_7c": _figure_7(dims),
    }


class Mixed(nn.Module):
    """Branches of one input, concatenated; ``branch_pool`` begins with a pooling, the maximum where the size halves."""

    def __init__(self, factory: LayerFactory, inputs: int, branches: dict[str, Branch], width: float) -> None:
        super().__init__()
        self.reduces = not branches["branch_pool"]
        self.pool = (
            max_pool(factory.dims, _REDUCE.kernel, stride=_REDUCE.stride)
            if self.reduces
            else average_pool(factory.dims, 3, stride=1, padding=1)
        )
        self.branches: list[tuple[str, list[list[str]]]] = []
        self.outputs = 0
        for branch, layers in branches.items():
            channels = inputs
            names = []
            for number, step in enumerate(layers, 1):
                fork = step if isinstance(step, list) else [step]
                stem = branch if len(layers) == 1 else f"{branch}_{number}"
                keys = [stem + (chr(ord("a") + place) if isinstance(step, list) else "") for place in range(len(fork))]
                counts = [scale_channels(layer.outputs, width) for layer in fork]
                for key, layer, outputs in zip(keys, fork, counts, strict=True):
                    self.add_module(key, _convolution(factory, channels, outputs, layer))
                channels = sum(counts)
                names.append(keys)
            self.branches.append((branch, names))
            self.outputs += channels

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(n, outputs, *spatial)``, or half the size where the block reduces."""
        found = []
        for branch, steps in self.branches:
            y = self.pool(x) if branch == "branch_pool" else x
            for keys in steps:
                parts = [getattr(self, key)(y) for key in keys]
                y = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
            found.append(y)
        return torch.cat(found, 1)


def _convolution(factory: LayerFactory, inputs: int, outputs: int, layer: Layer) -> nn.Module:
    kernel = [layer.kernel if layer.axis in (None, axis) else 1 for axis in range(factory.dims)]
    if layer.reduce:
        return factory.unit(inputs, outputs, kernel, stride=_REDUCE.stride, padding=_REDUCE.padding, names=_UNIT)
    return factory.unit(inputs, outputs, kernel, names=_UNIT)


class Head(nn.Module):
    """The auxiliary classifier on the 17-wide maps."""

    def __init__(self, factory: LayerFactory, inputs: int, num_classes: int, width: float) -> None:
        super().__init__()
        narrow, wide = scale_channels(128, width), scale_channels(768, width)
        self.pool = average_pool(factory.dims, _HEAD[0].kernel, stride=_HEAD[0].stride)
        self.conv0 = factory.unit(inputs, narrow, 1, names=_UNIT)
        self.conv1 = factory.unit(narrow, wide, _HEAD[1].kernel, padding=0, names=_UNIT)
        self.average = global_average_pool(factory.dims)
        self.fc = nn.Linear(wide, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(n, num_classes)``."""
        x = self.average(self.conv1(self.conv0(self.pool(x))))
        logits: Tensor = self.fc(torch.flatten(x, 1))
        return logits


class InceptionV3(Trunk):
    """Inception-v3: a stem, eleven blocks of parallel branches, global average, linear layer.

    The paper does not state its initial weights. As in its authors' later code, convolutions start at N(0, 2 / fan-in)
    (He et al. 2015, arXiv 1502.01852, eq. 10); linear layers start uniformly in ±1/√inputs.

    Args:
        name: ``"inception_v3"``.
        stem: ``"image"``, or ``"small"``: stride 1, padded, without the first pooling.
        auxiliary: build the auxiliary head. In training the module then returns a pair (logits, those of the
            head), whose losses the paper weighs 1 and 0.4, and needs larger inputs.
        features_only: build no head and return the feature maps at strides 2, 4, 8, 16 and 32. Without padding
            they are a little smaller than size / stride.

    Takes ``(n, in_channels, *spatial)``, every size at least 75 (``"small"``: 15).
    Returns logits ``(n, num_classes)``.

    >>> net = InceptionV3(dims=3, in_channels=1, width=0.25, features_only=True)
    >>> net.input_minimum, net.feature_strides, net.feature_channels
    (75, (2, 4, 8, 16, 32), (16, 48, 72, 192, 512))
    """

    def __init__(
        self,
        name: str = "inception_v3",
        dims: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        *,
        width: float = 1.0,
        activation: str = "relu",
        norm: str = "batch",
        stem: str = "image",
        auxiliary: bool = False,
        dropout: float = 0.5,
        features_only: bool = False,
    ) -> None:
        del name  # one variant
        rows = _STEMS[check_stem(stem)]
        windows = [window for _, window in rows.values()]
        super().__init__(dims, in_channels, num_classes, features_only)
        self._least = smallest_size([*windows, _REDUCE, _REDUCE])
        self._least_with_head = smallest_size([*windows, _REDUCE, *_HEAD])
        factory = LayerFactory(dims, norm, activation, eps=1e-3)
        inputs = in_channels
        for name, (channels, (kernel, stride, padding, _)) in rows.items():
            if name.startswith("maxpool"):
                self.append(name, max_pool(dims, kernel, stride=stride), inputs, stride)
                continue
            outputs = scale_channels(channels, width)
            unit = factory.unit(inputs, outputs, kernel, stride=stride, padding=padding, names=_UNIT)
            self.append(name, unit, outputs, stride)
            inputs = outputs
        self.auxiliary = auxiliary and not features_only
        for name, branches in _blocks(dims).items():
            block = Mixed(factory, inputs, branches, width)
            inputs = block.outputs
            self.append(name, block, inputs, 2 if block.reduces else 1)
            if name == "Mixed_6e" and self.auxiliary:
                self.AuxLogits = Head(factory, inputs, num_classes, width)
        if not features_only:
            self.avgpool = global_average_pool(dims)
            self.dropout = nn.Dropout(dropout)
            self.fc = nn.Linear(inputs, num_classes)
        start_network(self, conv="fan_in")
        self.train()

    def train(self, mode: bool = True) -> InceptionV3:
        """Switch to training, where the auxiliary head needs a larger input, or back."""
        super().train(mode)
        self.input_minimum = self._least_with_head if mode and self.auxiliary else self._least
        return self

    def compute(self, x: Tensor) -> Output:
        """Return logits, feature maps, or in training with an auxiliary head a pair (logits, the head's)."""
        if not (self.auxiliary and self.training):
            return super().compute(x)
        middle, last = self.collect(x, ("Mixed_6e", "Mixed_7c"))
        return self.classify(last), self.AuxLogits(middle)
