"""DenseNet: layers that read the concatenation of all earlier ones in their block.

Huang, Liu, van der Maaten & Weinberger 2017, "Densely connected convolutional networks" (arXiv 1608.06993), Table
1. Input 3 × 224 × 224, 1000 classes; parameters and multiply-accumulates of each network are in ``VARIANTS``.

State-dict names and shapes in 2-D are those of torchvision's module. (Its published files are older and say
``norm.1`` where the module says ``norm1``.)
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor, nn

from convoxel.errors import check_choice
from convoxel.models.backbone import Backbone, Published, Window, check_stem, scale_channels, scale_count
from convoxel.models.layer_factory import LayerFactory
from convoxel.models.pyramid import Pyramid
from convoxel.nn import average_pool, global_average_pool, max_pool, start_network


class Variant(NamedTuple):
    """The numbers in which the networks of the family differ.

    Attributes:
        blocks: layers of each dense block.
        published: figures of the published network.
        growth: channels that each layer adds.
        first: channels of the first convolution.
    """

    blocks: tuple[int, int, int, int]
    published: Published
    growth: int = 32
    first: int = 64


VARIANTS = {
    "densenet121": Variant((6, 12, 24, 16), Published(224, 7_978_856, 2_834_161_664, 2071, 74.434)),
    "densenet161": Variant((6, 12, 36, 24), Published(224, 28_681_000, 7_727_907_072, 2967, 77.138), 48, 96),
    "densenet169": Variant((6, 12, 32, 32), Published(224, 14_149_480, 3_359_843_328, 3351, 75.6)),
    "densenet201": Variant((6, 12, 48, 32), Published(224, 20_013_928, 4_291_365_888, 3863, 76.896)),
}

_STEM = (Window(7, 2, 3), Window(3, 2, 1))
_HALVE = Window(2, 2)
# Channels of a layer's 1-wide convolution, in units of the growth.
_BOTTLENECK = 4


class DenseLayer(nn.Module):
    """Normalisation, activation, 1-wide convolution, and the same with a 3-wide one."""

    def __init__(self, factory: LayerFactory, inputs: int, growth: int) -> None:
        super().__init__()
        middle = _BOTTLENECK * growth
        self.norm1 = factory.normalise(inputs)
        # The input is shared with later layers: without a normalisation in between nothing may change it in place.
        self.relu1 = factory.activate(inplace=factory.norm != "none")
        self.conv1 = factory.conv(inputs, middle, 1)
        self.norm2 = factory.normalise(middle)
        self.relu2 = factory.activate()
        self.conv2 = factory.conv(middle, growth, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return the ``growth`` new channels."""
        x = self.conv1(self.relu1(self.norm1(x)))
        new: Tensor = self.conv2(self.relu2(self.norm2(x)))
        return new


class DenseBlock(nn.Module):
    """Layers that each read what came in and what all earlier layers made."""

    def __init__(self, factory: LayerFactory, inputs: int, count: int, growth: int) -> None:
        super().__init__()
        for number in range(count):
            self.add_module(f"denselayer{number + 1}", DenseLayer(factory, inputs + number * growth, growth))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(n, inputs + layers × growth, *spatial)``."""
        parts = [x]
        for layer in self.children():
            parts.append(layer(torch.cat(parts, 1) if len(parts) > 1 else x))
        return torch.cat(parts, 1)


class DenseNet(Backbone):
    """A DenseNet: a stem, four dense blocks with transitions that halve channels and size, average, linear layer.

    Convolutions start at N(0, 2 / fan-in) (the paper's §4.2: He et al. 2015, arXiv 1502.01852, eq. 10); the linear
    layer starts uniformly in ±1/√inputs.

    Args:
        name: ``"densenet121"``, 161, 169 or 201.
        width: factor on the growth and the first channels, which are rounded to multiples of 8.
        depth: factor on the number of layers of each block, rounded up.
        stem: ``"image"`` (7-wide with stride 2, pooling with stride 2) or ``"small"`` (3-wide with stride 1, no
            pooling: the paper's for 32 × 32 inputs).

    Takes ``(n, in_channels, *spatial)``, every size at least 29 (``"small"``: 8).
    Returns logits ``(n, num_classes)``.

    >>> net = DenseNet("densenet121", 1, width=0.25, features_only=True)
    >>> net.feature_channels, net.input_minimum
    ((16, 64, 128, 256, 256), 29)
    """

    def __init__(
        self,
        name: str,
        dims: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        *,
        width: float = 1.0,
        depth: float = 1.0,
        activation: str = "relu",
        norm: str = "batch",
        stem: str = "image",
        features_only: bool = False,
    ) -> None:
        variant = VARIANTS[check_choice("name", name, VARIANTS)]
        image = check_stem(stem) == "image"
        windows = [*(_STEM if image else ()), *[_HALVE] * (len(variant.blocks) - 1)]
        super().__init__(dims, in_channels, num_classes, features_only, windows)
        factory = LayerFactory(dims, norm, activation)
        growth, channels = scale_channels(variant.growth, width), scale_channels(variant.first, width)
        body = Pyramid()
        reach = 2 if image else 1
        body.add(factory.conv(in_channels, channels, 7 if image else 3, stride=reach), channels, reach, "conv0")
        body.add(factory.normalise(channels), channels, name="norm0")
        body.add(factory.activate(), channels, name="relu0")
        if image:
            body.add(max_pool(dims, 3, stride=2, padding=1), channels, 2, "pool0")
        for number, published in enumerate(variant.blocks, 1):
            count = scale_count(published, depth)
            block = DenseBlock(factory, channels, count, growth)
            channels += count * growth
            body.add(block, channels, name=f"denseblock{number}")
            if number < len(variant.blocks):
                body.add(_transition(factory, channels), channels // 2, _HALVE.stride, f"transition{number}")
                channels //= 2
        body.add(factory.normalise(channels), channels, name="norm5")
        body.add(factory.activate(inplace=norm != "none"), channels, name="relu5")
        self.features = body
        self.feature_strides, self.feature_channels = body.levels.strides, body.levels.channels
        if not features_only:
            self.avgpool = global_average_pool(dims)
            self.classifier = nn.Linear(channels, num_classes)
        start_network(self, conv="fan_in")


def _transition(factory: LayerFactory, inputs: int) -> nn.Module:
    layers = {
        "norm": factory.normalise(inputs),
        "relu": factory.activate(inplace=factory.norm != "none"),
        "conv": factory.conv(inputs, inputs // 2, 1),
        "pool": average_pool(factory.dims, _HALVE.kernel),
    }
    return nn.Sequential(OrderedDict(layers))
