"""EfficientNet: one searched network, and seven scaled in depth, width and input size together.

Tan & Le 2019, "EfficientNet: rethinking model scaling for convolutional neural networks" (arXiv 1905.11946), Table
1. Width and depth are 1.1^φ and 1.2^φ of B0's, rounded as in the authors' released table. 3 channels in, 1000
classes; input size, parameters and multiply-accumulates of each network are in ``VARIANTS``.

State-dict names and shapes in 2-D are those of torchvision.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import nn

from convoxel.errors import check_choice
from convoxel.models.backbone import Backbone, Published, check_stem, scale_channels, scale_count
from convoxel.models.layer_factory import LayerFactory
from convoxel.models.pyramid import Pyramid
from convoxel.models.residual import InvertedResidual
from convoxel.nn import SqueezeExcite, global_average_pool, start_network


class Variant(NamedTuple):
    """The numbers in which the networks of the family differ: factors, dropout, and the normalisation's numbers."""

    width: float
    depth: float
    dropout: float
    published: Published
    eps: float = 1e-5
    momentum: float = 0.1


VARIANTS = {
    "efficientnet_b0": Variant(1.0, 1.0, 0.2, Published(224, 5_288_548, 385_814_752, 851, 77.692)),
    "efficientnet_b1": Variant(1.0, 1.1, 0.2, Published(240, 7_794_184, 686_802_832, 1183, 78.642)),
    "efficientnet_b2": Variant(1.1, 1.2, 0.3, Published(288, 9_109_994, 1_087_529_456, 1183, 80.608)),
    "efficientnet_b3": Variant(1.2, 1.4, 0.3, Published(300, 12_233_232, 1_827_141_392, 1407, 82.008)),
    "efficientnet_b4": Variant(1.4, 1.8, 0.4, Published(380, 19_341_616, 4_393_771_024, 1799, 83.384)),
    "efficientnet_b5": Variant(1.6, 2.2, 0.4, Published(456, 30_389_784, 10_266_384_752, 2131, 83.444), 1e-3, 0.01),
    "efficientnet_b6": Variant(1.8, 2.6, 0.5, Published(528, 43_040_704, 19_067_593_536, 2523, 84.008), 1e-3, 0.01),
    "efficientnet_b7": Variant(2.0, 3.1, 0.5, Published(600, 66_347_960, 37_745_884_192, 3079, 84.122), 1e-3, 0.01),
}


class Stage(NamedTuple):
    """A line of Table 1: expansion, kernel, stride of the first block, channels, blocks."""

    expansion: int
    kernel: int
    stride: int
    channels: int
    blocks: int


_STAGES = (
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(6, 5, 2, 40, 2),
    Stage(6, 3, 2, 80, 3),
    Stage(6, 5, 1, 112, 3),
    Stage(6, 5, 2, 192, 4),
    Stage(6, 3, 1, 320, 1),
)
_FIRST = 32
# Channels of the last convolution, in units of its input: 1280 for B0.
_LAST = 4


class EfficientNet(Backbone):
    """An EfficientNet: a 3-wide stem, seven stages of inverted residuals with squeeze-and-excitation, global average.

    A linear layer follows. Weights start as in the authors' released code: convolutions at N(0, 2 / fan-out), the
    linear layer uniformly in ±1/√num_classes, biases at 0.

    Args:
        name: ``"efficientnet_b0"`` to ``"efficientnet_b7"``.
        width: factor on all channel counts beside the variant's; they are rounded to multiples of 8.
        depth: factor on the number of blocks of each stage beside the variant's, rounded up.
        stem: ``"image"`` (stride 2) or ``"small"`` (stride 1).
        drop_path: probability with which training leaves out the last block of a sample; earlier ones less.

    Takes ``(n, in_channels, *spatial)`` of any size.
    Returns logits ``(n, num_classes)``.

    >>> sum(p.numel() for p in EfficientNet("efficientnet_b0").parameters())
    5288548
    """

    classifier: nn.Sequential

    def __init__(
        self,
        name: str,
        dims: int = 2,
        in_channels: int = 3,
        num_classes: int = 1000,
        *,
        width: float = 1.0,
        depth: float = 1.0,
        activation: str = "silu",
        norm: str = "batch",
        stem: str = "image",
        dropout: float | None = None,
        drop_path: float = 0.2,
        features_only: bool = False,
    ) -> None:
        variant = VARIANTS[check_choice("name", name, VARIANTS)]
        super().__init__(dims, in_channels, num_classes, features_only)
        reach = 2 if check_stem(stem) == "image" else 1
        factory = LayerFactory(dims, norm, activation, variant.eps, variant.momentum)
        wider, deeper = variant.width * width, variant.depth * depth
        counts = [scale_count(stage.blocks, deeper) for stage in _STAGES]
        inputs = scale_channels(_FIRST, wider)
        body = Pyramid()
        body.add(factory.unit(in_channels, inputs, 3, stride=reach), inputs, reach)
        done = 0
        for stage, count in zip(_STAGES, counts, strict=True):
            outputs = scale_channels(stage.channels, wider)
            blocks = []
            for number in range(count):
                # Blocks are left out the more often the deeper they are.
                drop = drop_path * done / sum(counts)
                blocks.append(_block(factory, inputs, outputs, stage, 1 if number else stage.stride, drop))
                inputs = outputs
                done += 1
            body.add(nn.Sequential(*blocks), outputs, stage.stride)
        body.add(factory.unit(inputs, _LAST * inputs, 1), _LAST * inputs)
        self.features = body
        self.feature_strides, self.feature_channels = body.levels.strides, body.levels.channels
        if not features_only:
            self.avgpool = global_average_pool(dims)
            self.classifier = nn.Sequential(
                nn.Dropout(variant.dropout if dropout is None else dropout), nn.Linear(_LAST * inputs, num_classes)
            )
        _start(self)


def _block(
    factory: LayerFactory, inputs: int, outputs: int, stage: Stage, stride: int, drop: float
) -> InvertedResidual:
    expanded = inputs * stage.expansion
    # A quarter of the block's input, not of the expanded channels.
    squeeze = SqueezeExcite(factory.dims, expanded, max(1, inputs // 4), activation=factory.activation)
    return InvertedResidual(
        factory, inputs, expanded, outputs, kernel=stage.kernel, stride=stride, squeeze=squeeze, drop=drop
    )


def _start(net: EfficientNet) -> None:
    """Draw the weights as the authors' code: N(0, 2 / fan-out) in convolutions, ±1/√outputs in the linear layer."""
    start_network(net, conv="fan_out")
    linear = None if net.features_only else net.classifier[1]
    if isinstance(linear, nn.Linear) and not linear.weight.is_meta:
        bound = 1 / math.sqrt(net.num_classes)
        nn.init.uniform_(linear.weight, -bound, bound)
