"""MobileNet: depthwise and 1-wide convolutions in place of full ones.

V1: Howard et al. 2017 (arXiv 1704.04861), Table 1. V2: Sandler et al. 2018 (arXiv 1801.04381), Table 2. V3: Howard
et al. 2019, "Searching for MobileNetV3" (arXiv 1905.02244), Tables 1 and 2. Input 3 × 224 × 224, 1000 classes;
parameters and multiply-accumulates of each network are in ``VARIANTS``.

State-dict names and shapes of V2 and V3 in 2-D are those of torchvision, which has no V1.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from convoxel.errors import check_choice
from convoxel.models.backbone import Backbone, Published, check_stem, scale_channels, scale_count
from convoxel.models.layer_factory import LayerFactory
from convoxel.models.pyramid import Pyramid
from convoxel.models.residual import InvertedResidual
from convoxel.nn import SqueezeExcite, global_average_pool, start_network


class Row(NamedTuple):
    """A block: a line of the paper's table.

    Attributes:
        kernel: size of the depthwise kernel.
        outputs: channels that go out.
        stride: stride of the depthwise convolution.
        expanded: channels of the depthwise convolution; 0: ``factor`` times those that come in.
        factor: see ``expanded``; 0: a separable convolution without residual (V1).
        squeeze: whether the block has squeeze-and-excitation.
        activation: activation of the block.
    """

    kernel: int
    outputs: int
    stride: int = 1
    expanded: int = 0
    factor: int = 0
    squeeze: bool = False
    activation: str = "relu"


class Variant(NamedTuple):
    """The numbers in which the networks of the family differ.

    Attributes:
        stages: blocks; ``depth`` makes stages longer or shorter.
        published: figures of the published network.
        first: channels of the stem.
        last: channels of the 1-wide convolution at the end; 0: there is none.
        hidden: width of the linear layer before the last; 0: there is none.
        activation: of the stem and of what follows the stages.
        eps, momentum: of the normalisation.
        dropout: probability with which training drops a value of the classifier.
        name: the name of a block's layers in state dicts.
    """

    stages: tuple[tuple[Row, ...], ...]
    published: Published
    first: int
    last: int = 0
    hidden: int = 0
    activation: str = "relu"
    eps: float = 1e-5
    momentum: float = 0.1
    dropout: float = 0.2
    name: str = "block"


def _separable(outputs: int, stride: int, count: int) -> tuple[Row, ...]:
    return tuple(Row(3, outputs, 1 if number else stride) for number in range(count))


def _inverted(factor: int, outputs: int, count: int, stride: int) -> tuple[Row, ...]:
    return tuple(Row(3, outputs, 1 if number else stride, factor=factor, activation="relu6") for number in range(count))


def _searched(kernel: int, expanded: int, outputs: int, squeeze: bool, activation: str, stride: int) -> Row:
    word = {"RE": "relu", "HS": "hard_swish"}[activation]
    return Row(kernel, outputs, stride, expanded, 0, squeeze, word)


_V1 = (
    _separable(64, 1, 1),
    _separable(128, 2, 2),
    _separable(256, 2, 2),
    _separable(512, 2, 6),
    _separable(1024, 2, 2),
)
_V2 = (
    _inverted(1, 16, 1, 1),
    _inverted(6, 24, 2, 2),
    _inverted(6, 32, 3, 2),
    _inverted(6, 64, 4, 2),
    _inverted(6, 96, 3, 1),
    _inverted(6, 160, 3, 2),
    _inverted(6, 320, 1, 1),
)
_V3_LARGE = (
    (_searched(3, 16, 16, False, "RE", 1),),
    (_searched(3, 64, 24, False, "RE", 2), _searched(3, 72, 24, False, "RE", 1)),
    (_searched(5, 72, 40, True, "RE", 2), *[_searched(5, 120, 40, True, "RE", 1)] * 2),
    (
        _searched(3, 240, 80, False, "HS", 2),
        _searched(3, 200, 80, False, "HS", 1),
        *[_searched(3, 184, 80, False, "HS", 1)] * 2,
    ),
    (_searched(3, 480, 112, True, "HS", 1), _searched(3, 672, 112, True, "HS", 1)),
    (_searched(5, 672, 160, True, "HS", 2), *[_searched(5, 960, 160, True, "HS", 1)] * 2),
)
_V3_SMALL = (
    (_searched(3, 16, 16, True, "RE", 2),),
    (_searched(3, 72, 24, False, "RE", 2), _searched(3, 88, 24, False, "RE", 1)),
    (_searched(5, 96, 40, True, "HS", 2), *[_searched(5, 240, 40, True, "HS", 1)] * 2),
    (_searched(5, 120, 48, True, "HS", 1), _searched(5, 144, 48, True, "HS", 1)),
    (_searched(5, 288, 96, True, "HS", 2), *[_searched(5, 576, 96, True, "HS", 1)] * 2),
)

_HOWARD = "Howard et al. 2017, arXiv 1704.04861"
_SANDLER = "Sandler et al. 2018, arXiv 1801.04381"

VARIANTS = {
    "mobilenet_v1": Variant(_V1, Published(224, 4_231_976, 568_740_352, 315, paper=_HOWARD), first=32, dropout=0.001),
    "mobilenet_v2": Variant(
        _V2,
        Published(224, 3_504_872, 300_774_272, 491, 71.878, _SANDLER),
        first=32,
        last=1280,
        activation="relu6",
        name="conv",
    ),
    "mobilenet_v3_large": Variant(
        _V3_LARGE,
        Published(224, 5_483_032, 216_589_760, 595, 74.042),
        first=16,
        last=960,
        hidden=1280,
        activation="hard_swish",
        eps=1e-3,
        momentum=0.01,
    ),
    "mobilenet_v3_small": Variant(
        _V3_SMALL,
        Published(224, 2_542_856, 56_510_400, 639, 67.668),
        first=16,
        last=576,
        hidden=1024,
        activation="hard_swish",
        eps=1e-3,
        momentum=0.01,
    ),
}


class MobileNet(Backbone):
    """A MobileNet: a 3-wide stem, blocks around depthwise convolutions, global average, linear layers.

    The papers do not state their initial weights. As in torchvision, convolutions start at N(0, 2 / fan-out) (He et al.
    2015, arXiv 1502.01852, eq. 14) and linear layers at N(0, 0.01²).

    Args:
        name: ``"mobilenet_v1"``, ``"mobilenet_v2"``, ``"mobilenet_v3_small"`` or ``"mobilenet_v3_large"``.
        width: factor on all channel counts, which are rounded to multiples of 8: the papers' width multiplier.
        activation: name of the activation, a key of ``convoxel.nn.ACTIVATIONS`` for all layers; None: as published.
        stem: ``"image"`` (stride 2) or ``"small"`` (stride 1).

    Takes ``(n, in_channels, *spatial)`` of any size.
    Returns logits ``(n, num_classes)``.

    >>> sum(p.numel() for p in MobileNet("mobilenet_v2").parameters())
    3504872
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
        activation: str | None = None,
        norm: str = "batch",
        stem: str = "image",
        dropout: float | None = None,
        features_only: bool = False,
    ) -> None:
        variant = VARIANTS[check_choice("name", name, VARIANTS)]
        super().__init__(dims, in_channels, num_classes, features_only)
        reach = 2 if check_stem(stem) == "image" else 1
        factory = LayerFactory(dims, norm, activation or variant.activation, variant.eps, variant.momentum)
        inputs = scale_channels(variant.first, width)
        body = Pyramid()
        body.add(factory.unit(in_channels, inputs, 3, stride=reach), inputs, reach)
        for stage in variant.stages:
            for row in _resize_stage(stage, depth):
                own = factory._replace(activation=activation or row.activation)
                block, outputs = _block(own, inputs, row, width, variant.name)
                body.add(block, outputs, row.stride)
                inputs = outputs
        if variant.last:
            # The paper of V2, §5: a factor below 1 leaves the last convolution alone. V3's is 6 times its input.
            last = inputs * 6 if variant.hidden else scale_channels(variant.last, max(1.0, width))
            body.add(factory.unit(inputs, last, 1), last)
            inputs = last
        self.features = body
        self.feature_strides, self.feature_channels = body.levels.strides, body.levels.channels
        if not features_only:
            self.avgpool = global_average_pool(dims)
            drop = nn.Dropout(variant.dropout if dropout is None else dropout)
            hidden = scale_channels(variant.hidden, width) if variant.hidden else 0
            before = [nn.Linear(inputs, hidden), factory.activate()] if hidden else []
            self.classifier = nn.Sequential(*before, drop, nn.Linear(hidden or inputs, num_classes))
        start_network(self, conv="fan_out", linear=0.01)


def _resize_stage(stage: tuple[Row, ...], depth: float) -> tuple[Row, ...]:
    """Return the stage with ``depth`` times as many blocks: the first of them, or the last one repeated."""
    count = scale_count(len(stage), depth)
    return stage[:count] + (stage[-1]._replace(stride=1),) * (count - len(stage))


def _block(factory: LayerFactory, inputs: int, row: Row, width: float, name: str) -> tuple[nn.Module, int]:
    """Return the block of a row, and its channels."""
    outputs = scale_channels(row.outputs, width)
    if not row.factor and not row.expanded:
        depthwise = factory.unit(inputs, inputs, row.kernel, stride=row.stride, groups=inputs)
        return nn.Sequential(depthwise, factory.unit(inputs, outputs, 1)), outputs
    expanded = scale_channels(row.expanded, width) if row.expanded else inputs * row.factor
    squeeze = None
    if row.squeeze:
        middle = scale_channels(expanded, 0.25)
        squeeze = SqueezeExcite(factory.dims, expanded, middle, gate="hard_sigmoid")
    block = InvertedResidual(
        factory, inputs, expanded, outputs, kernel=row.kernel, stride=row.stride, squeeze=squeeze, name=name
    )
    return block, outputs
