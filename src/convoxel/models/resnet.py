"""ResNet: blocks that add what they compute to what came in (He et al. 2016, arXiv 1512.03385).

State-dict names and shapes in 2-D are those of torchvision, whose form this is: the stride of a bottleneck
block sits in its 3-wide convolution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from convoxel.models.network import Network, scale_channels
from convoxel.nn import activation, batch_norm, conv, global_average_pool, max_pool

__all__ = [
    "VARIANTS",
    "ResNet",
    "Variant",
    "build_resnet",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
]


class BasicBlock(nn.Module):
    """Two 3-wide convolutions and the shortcut."""

    expansion = 1

    def __init__(self, dims: int, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(dims, inputs, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = batch_norm(dims, channels)
        self.relu = activation("relu")
        self.conv2 = conv(dims, channels, channels, 3, padding=1, bias=False)
        self.bn2 = batch_norm(dims, channels)
        self.downsample = _shortcut(dims, inputs, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(n, channels, *spatial / stride)``."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        out: Tensor = self.relu(self.bn2(self.conv2(y)) + shortcut)
        return out


class Bottleneck(nn.Module):
    """1-wide convolution down, 3-wide convolution, 1-wide convolution up, and the shortcut."""

    expansion = 4

    def __init__(self, dims: int, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        outputs = channels * self.expansion
        self.conv1 = conv(dims, inputs, channels, 1, bias=False)
        self.bn1 = batch_norm(dims, channels)
        self.conv2 = conv(dims, channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = batch_norm(dims, channels)
        self.conv3 = conv(dims, channels, outputs, 1, bias=False)
        self.bn3 = batch_norm(dims, outputs)
        self.relu = activation("relu")
        self.downsample = _shortcut(dims, inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(n, 4 channels, *spatial / stride)``."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        out: Tensor = self.relu(self.bn3(self.conv3(y)) + shortcut)
        return out


def _shortcut(dims: int, inputs: int, outputs: int, stride: int) -> nn.Module | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(conv(dims, inputs, outputs, 1, stride=stride, bias=False), batch_norm(dims, outputs))


class Variant(NamedTuple):
    """The numbers in which the networks of the family differ."""

    block: type[BasicBlock] | type[Bottleneck]
    blocks: tuple[int, int, int, int]


VARIANTS = {
    "resnet18": Variant(BasicBlock, (2, 2, 2, 2)),
    "resnet34": Variant(BasicBlock, (3, 4, 6, 3)),
    "resnet50": Variant(Bottleneck, (3, 4, 6, 3)),
    "resnet101": Variant(Bottleneck, (3, 4, 23, 3)),
    "resnet152": Variant(Bottleneck, (3, 8, 36, 3)),
}


class ResNet(Network):
    """A 7-wide stride-2 convolution, a stride-2 pooling, four stages of blocks, global average, linear."""

    def __init__(self, dims: int, in_channels: int, num_classes: int, *, variant: Variant, width: float) -> None:
        super().__init__(dims, in_channels, num_classes)
        inputs = scale_channels(64, width)
        self.conv1 = conv(dims, in_channels, inputs, 7, stride=2, padding=3, bias=False)
        self.bn1 = batch_norm(dims, inputs)
        self.relu = activation("relu")
        self.maxpool = max_pool(dims, 3, stride=2, padding=1)

        def stage(published: int, count: int, stride: int) -> nn.Sequential:
            nonlocal inputs
            channels = scale_channels(published, width)
            blocks = []
            for position in range(count):
                blocks.append(variant.block(dims, inputs, channels, 1 if position else stride))
                inputs = channels * variant.block.expansion
            return nn.Sequential(*blocks)

        counts = variant.blocks
        self.layer1 = stage(64, counts[0], stride=1)
        self.layer2 = stage(128, counts[1], stride=2)
        self.layer3 = stage(256, counts[2], stride=2)
        self.layer4 = stage(512, counts[3], stride=2)
        self.avgpool = global_average_pool(dims)
        self.fc = nn.Linear(inputs, num_classes)
        for layer in self.modules():
            if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
                # He et al. 2015, eq. 14: the backward form, as torchvision's networks start.
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def compute(self, x: Tensor) -> Tensor:
        """Return logits ``(n, num_classes)``."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits


def build_resnet(
    name: str, dims: int = 2, in_channels: int = 3, num_classes: int = 1000, *, width: float = 1.0
) -> ResNet:
    """Return the ResNet called ``name``, a key of ``VARIANTS``.

    Args:
        name: ``"resnet18"``, ``"resnet34"``, ``"resnet50"``, ``"resnet101"`` or ``"resnet152"``.
        dims: spatial axes, 1, 2 or 3.
        in_channels: channels of the input.
        num_classes: number of logits.
        width: factor on all channel counts, which are rounded to multiples of 8.

    Returns:
        A module from ``(n, in_channels, *spatial)`` of any size to logits ``(n, num_classes)``.

    Raises:
        ConfigError: an argument is out of range. The module raises ShapeError for an input that does not fit.

    >>> sum(p.numel() for p in build_resnet("resnet18").parameters())
    11689512
    """
    return ResNet(dims, in_channels, num_classes, variant=VARIANTS[name], width=width)


def _named(name: str) -> Callable[..., ResNet]:
    def build(dims: int = 2, in_channels: int = 3, num_classes: int = 1000, *, width: float = 1.0) -> ResNet:
        return build_resnet(name, dims, in_channels, num_classes, width=width)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"Return {name} for ``dims`` spatial axes; see :func:`build_resnet`."
    return build


resnet18 = _named("resnet18")
resnet34 = _named("resnet34")
resnet50 = _named("resnet50")
resnet101 = _named("resnet101")
resnet152 = _named("resnet152")
