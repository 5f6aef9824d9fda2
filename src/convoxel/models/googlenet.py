"""GoogLeNet: blocks of parallel branches with kernels of several sizes.

Szegedy et al. 2015, "Going deeper with convolutions" (arXiv 1409.4842), Table 1 and §5 for the auxiliary heads,
with batch normalisation after every convolution (Ioffe & Szegedy 2015, arXiv 1502.03167). ``googlenet`` has
3-wide kernels where the paper has 5-wide ones, and 2-wide in the last pooling where it has 3, as the weights in common
use have; ``googlenet_5x5`` is the paper's.
Input 3 × 224 × 224, 1000 classes; counts of both are in ``VARIANTS``.

State-dict names and shapes in 2-D are those of torchvision (its checkpoints hold the auxiliary heads).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from convoxel.errors import check_choice
from convoxel.models.backbone import Output, Published, Window, check_stem, scale_channels
from convoxel.models.layer_factory import LayerFactory
from convoxel.models.pyramid import Trunk
from convoxel.nn import adaptive_average_pool, global_average_pool, max_pool, start_network


class Variant(NamedTuple):
    """The numbers in which the networks of the family differ.

    Attributes:
        kernel: kernel of the third branch.
        published: figures of the published network.
        last_pool: kernel of the last pooling.
    """

    kernel: int
    published: Published
    last_pool: int = 3


VARIANTS = {
    "googlenet": Variant(3, Published(224, 6_624_904, 1_498_376_192, 379, 69.778), last_pool=2),
    "googlenet_5x5": Variant(5, Published(224, 7_005_832, 1_582_671_872, 715)),
}

# Table 1: channels of "#1×1", "#3×3 reduce", "#3×3", "#5×5 reduce", "#5×5", "pool proj"; poolings between.
_BLOCKS: dict[str, tuple[int, ...] | Window] = {
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "maxpool3": Window(3, 2, ceil=True),
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "maxpool4": Window(3, 2, ceil=True),
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}
_POOL = Window(3, 2, ceil=True)
_UNIT = ("conv", "bn", "relu")
_HEADS = {"aux1": "inception4a", "aux2": "inception4d"}


class Inception(nn.Module):
    """Four branches of one input, concatenated."""

    def __init__(self, factory: LayerFactory, inputs: int, channels: tuple[int, ...], kernel: int) -> None:
        super().__init__()
        one, reduce3, three, reduce5, five, pool = channels
        self.branch1 = factory.unit(inputs, one, 1, names=_UNIT)
        self.branch2 = nn.Sequential(
            factory.unit(inputs, reduce3, 1, names=_UNIT), factory.unit(reduce3, three, 3, names=_UNIT)
        )
        self.branch3 = nn.Sequential(
            factory.unit(inputs, reduce5, 1, names=_UNIT), factory.unit(reduce5, five, kernel, names=_UNIT)
        )
        self.branch4 = nn.Sequential(
            max_pool(factory.dims, 3, stride=1, padding=1), factory.unit(inputs, pool, 1, names=_UNIT)
        )
        self.outputs = one + three + five + pool

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(n, outputs, *spatial)``."""
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class Head(nn.Module):
    """An auxiliary classifier: average over a 4-wide grid, 1-wide convolution, two linear layers."""

    def __init__(self, factory: LayerFactory, inputs: int, num_classes: int, width: float) -> None:
        super().__init__()
        channels, hidden = scale_channels(128, width), scale_channels(1024, width)
        self.pool = adaptive_average_pool(factory.dims, 4)
        self.conv = factory.unit(inputs, channels, 1, names=_UNIT)
        self.fc1 = nn.Linear(channels * 4**factory.dims, hidden)
        self.relu = factory.activate()
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(n, num_classes)``."""
        x = torch.flatten(self.conv(self.pool(x)), 1)
        logits: Tensor = self.fc2(self.dropout(self.relu(self.fc1(x))))
        return logits


class GoogLeNet(Trunk):
    """A GoogLeNet: a stem, nine blocks of parallel branches with pooling between them, global average, linear layer.

    The paper does not state its initial weights. Convolutions start at N(0, 2 / fan-in) (He et al. 2015, arXiv
    1502.01852, eq. 10), linear layers uniformly in ±1/√inputs.

    Args:
        name: ``"googlenet"`` or ``"googlenet_5x5"``.
        stem: ``"image"`` (7-wide with stride 2, pooling with stride 2) or ``"small"`` (3-wide with stride 1, no
            first pooling).
        auxiliary: build the two auxiliary heads. In training the module then returns a tuple (logits, those of
            the later head, those of the earlier), whose losses the paper weighs 1, 0.3 and 0.3.

    Takes ``(n, in_channels, *spatial)``, every size at least 15 (``"small"``: 8).
    Returns logits ``(n, num_classes)``.

    >>> GoogLeNet("googlenet", 3, in_channels=1, width=0.25).input_minimum
    15
    """

    aux1: nn.Module
    aux2: nn.Module

    def __init__(
        self,
        name: str,
        dims: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        *,
        width: float = 1.0,
        activation: str = "relu",
        norm: str = "batch",
        stem: str = "image",
        auxiliary: bool = False,
        dropout: float = 0.2,
        features_only: bool = False,
    ) -> None:
        variant = VARIANTS[check_choice("name", name, VARIANTS)]
        image = check_stem(stem) == "image"
        first = Window(7, 2, 3) if image else Window(3, 1, 1)
        blocks = {**_BLOCKS, "maxpool4": Window(variant.last_pool, 2, ceil=True)}
        poolings = [block for block in blocks.values() if isinstance(block, Window)]
        super().__init__(dims, in_channels, num_classes, features_only, [first, *[_POOL] * (1 + image), *poolings])
        factory = LayerFactory(dims, norm, activation, eps=1e-3)
        narrow, wide = scale_channels(64, width), scale_channels(192, width)
        unit = factory.unit(in_channels, narrow, first.kernel, stride=first.stride, names=_UNIT)
        self.append("conv1", unit, narrow, first.stride)
        if image:
            self.append("maxpool1", _max_pool(dims, _POOL), narrow, _POOL.stride)
        self.append("conv2", factory.unit(narrow, narrow, 1, names=_UNIT), narrow)
        self.append("conv3", factory.unit(narrow, wide, 3, names=_UNIT), wide)
        self.append("maxpool2", _max_pool(dims, _POOL), wide, _POOL.stride)
        channels = {"maxpool2": wide}
        inputs = wide
        for name, row in blocks.items():
            if isinstance(row, Window):
                self.append(name, _max_pool(dims, row), inputs, row.stride)
            else:
                block = Inception(factory, inputs, tuple(scale_channels(c, width) for c in row), variant.kernel)
                inputs = channels[name] = block.outputs
                self.append(name, block, inputs)
        self.auxiliary = auxiliary and not features_only
        if self.auxiliary:
            for head, source in _HEADS.items():
                self.add_module(head, Head(factory, channels[source], num_classes, width))
        if not features_only:
            self.avgpool = global_average_pool(dims)
            self.dropout = nn.Dropout(dropout)
            self.fc = nn.Linear(inputs, num_classes)
        start_network(self, conv="fan_in")

    def compute(self, x: Tensor) -> Output:
        """Return logits, feature maps, or in training with auxiliary heads a tuple (logits, aux2's, aux1's)."""
        if not (self.auxiliary and self.training):
            return super().compute(x)
        early, late, last = self.collect(x, (*_HEADS.values(), self.levels.names[-1]))
        return self.classify(last), self.aux2(late), self.aux1(early)


def _max_pool(dims: int, window: Window) -> nn.Module:
    return max_pool(dims, window.kernel, stride=window.stride, padding=window.padding, ceil=window.ceil)
