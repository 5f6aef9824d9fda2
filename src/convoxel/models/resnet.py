"""ResNet: blocks that add what they compute to what came in.

He, Zhang, Ren & Sun 2016, "Deep residual learning for image recognition" (arXiv 1512.03385), Table 1; Xie et al.
2017, "Aggregated residual transformations" (arXiv 1611.05431), Table 1, for ResNeXt; Zagoruyko & Komodakis 2016,
"Wide residual networks" (arXiv 1605.07146). Input 3 × 224 × 224, 1000 classes; parameters and
multiply-accumulates of each network are in ``VARIANTS``.

State-dict names and shapes in 2-D are those of torchvision.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from convoxel.errors import check_choice
from convoxel.models.backbone import Published, check_stem, scale_channels, scale_count
from convoxel.models.layer_factory import LayerFactory
from convoxel.models.pyramid import Trunk
from convoxel.nn import global_average_pool, max_pool, start_network


class Variant(NamedTuple):
    """The numbers in which the networks of the family differ.

    Attributes:
        blocks: blocks of each stage.
        published: figures of the published network.
        bottleneck: blocks of 1-, 3- and 1-wide convolutions in place of two 3-wide ones.
        groups: groups of the 3-wide convolution of a bottleneck.
        group_channels: channels of each group in the first stage, 64 where ``groups`` is 1; they double with
            each stage.
    """

    blocks: tuple[int, int, int, int]
    published: Published
    bottleneck: bool = True
    groups: int = 1
    group_channels: int = 64


_RESNEXT = "Xie et al. 2017, arXiv 1611.05431"
_WIDE = "Zagoruyko & Komodakis 2016, arXiv 1605.07146"

VARIANTS = {
    "resnet18": Variant((2, 2, 2, 2), Published(224, 11_689_512, 1_814_073_344, 435, 69.758), bottleneck=False),
    "resnet34": Variant((3, 4, 6, 3), Published(224, 21_797_672, 3_663_761_408, 899, 73.314), bottleneck=False),
    "resnet50": Variant((3, 4, 6, 3), Published(224, 25_557_032, 4_089_184_256, 427, 76.13)),
    "resnet101": Variant((3, 4, 23, 3), Published(224, 44_549_160, 7_801_405_440, 971, 77.374)),
    "resnet152": Variant((3, 8, 36, 3), Published(224, 60_192_808, 11_513_626_624, 1451, 78.312)),
    "resnext50_32x4d": Variant(
        (3, 4, 6, 3), Published(224, 25_028_904, 4_230_479_872, 427, 77.618, _RESNEXT), groups=32, group_channels=4
    ),
    "resnext101_32x8d": Variant(
        (3, 4, 23, 3), Published(224, 88_791_336, 16_414_015_488, 971, 79.312, _RESNEXT), groups=32, group_channels=8
    ),
    "wide_resnet50_2": Variant(
        (3, 4, 6, 3), Published(224, 68_883_240, 11_398_021_120, 427, 78.468, _WIDE), group_channels=128
    ),
}

_WIDTHS = (64, 128, 256, 512)
_EXPANSION = 4
FORMS = ("v1.5", "v1")
BLOCKS = ("residual", "plain")


class BasicBlock(nn.Module):
    """Two 3-wide convolutions and the shortcut, unless the block is plain."""

    def __init__(self, factory: LayerFactory, inputs: int, outputs: int, stride: int, plain: bool = False) -> None:
        super().__init__()
        self.conv1 = factory.conv(inputs, outputs, 3, stride=stride)
        self.bn1 = factory.normalise(outputs)
        self.relu = factory.activate()
        self.conv2 = factory.conv(outputs, outputs, 3)
        self.bn2 = factory.normalise(outputs)
        self.plain = plain
        self.downsample = None if plain else _shortcut(factory, inputs, outputs, stride)

    @property
    def has_shortcut(self) -> bool:
        """True if the block is added to its input."""
        return not self.plain

    def drop_shortcut(self) -> None:
        """Take the shortcut away, with its convolution."""
        self.plain, self.downsample = True, None

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(n, outputs, *spatial / stride)``."""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if not self.plain:
            y = y + (x if self.downsample is None else self.downsample(x))
        out: Tensor = self.relu(y)
        return out


class Bottleneck(nn.Module):
    """1-wide convolution down, 3-wide convolution, 1-wide convolution up, and the shortcut, unless the block is plain.

    The stride sits in the first convolution as published (``strides`` = (s, 1)), or in the second, which then
    reads every pixel (1, s).
    """

    def __init__(
        self,
        factory: LayerFactory,
        inputs: int,
        channels: int,
        outputs: int,
        strides: tuple[int, int],
        groups: int,
        plain: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = factory.conv(inputs, channels, 1, stride=strides[0])
        self.bn1 = factory.normalise(channels)
        self.conv2 = factory.conv(channels, channels, 3, stride=strides[1], groups=groups)
        self.bn2 = factory.normalise(channels)
        self.conv3 = factory.conv(channels, outputs, 1)
        self.bn3 = factory.normalise(outputs)
        self.relu = factory.activate()
        self.plain = plain
        self.downsample = None if plain else _shortcut(factory, inputs, outputs, max(strides))

    @property
    def has_shortcut(self) -> bool:
        """True if the block is added to its input."""
        return not self.plain

    def drop_shortcut(self) -> None:
        """Take the shortcut away, with its convolution."""
        self.plain, self.downsample = True, None

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(n, outputs, *spatial / stride)``."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))
        if not self.plain:
            y = y + (x if self.downsample is None else self.downsample(x))
        out: Tensor = self.relu(y)
        return out


def _shortcut(factory: LayerFactory, inputs: int, outputs: int, stride: int) -> nn.Module | None:
    if stride == 1 and inputs == outputs:
        return None
    return factory.unit(inputs, outputs, 1, stride=stride, active=False)


class ResNet(Trunk):
    """A residual network: a stem, four stages of residual blocks, global average, linear layer.

    Convolutions start at N(0, 2 / fan-out), which keeps the variance of gradients (the paper's reference 13: He et al.
    2015, arXiv 1502.01852, eq. 14); the linear layer starts uniformly in ±1/√inputs.

    Args:
        name: ``"resnet18"``, 34, 50, 101, 152, ``"resnext50_32x4d"``, ``"resnext101_32x8d"`` or
            ``"wide_resnet50_2"``.
        stem: ``"image"`` (7-wide with stride 2, pooling with stride 2) or ``"small"`` (3-wide with stride 1,
            no pooling: the paper's for 32 × 32 inputs).
        form: ``"v1.5"`` puts a bottleneck's stride into its 3-wide convolution, which reads every pixel (as
            torchvision); ``"v1"`` into its first 1-wide one, as the paper. The others have no choice.
        block: ``"residual"``, or ``"plain"``: without shortcuts (the paper's plain networks).

    Takes ``(n, in_channels, *spatial)`` of any size.
    Returns logits ``(n, num_classes)``.

    >>> sum(p.numel() for p in ResNet("resnet18").parameters())
    11689512
    >>> import torch
    >>> net = ResNet("resnet18", 1, width=0.125, features_only=True)
    >>> [tuple(x.shape) for x in net(torch.zeros(2, 3, 64))]
    [(2, 8, 32), (2, 8, 16), (2, 16, 8), (2, 32, 4), (2, 64, 2)]
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
        form: str = "v1.5",
        block: str = "residual",
        features_only: bool = False,
    ) -> None:
        variant = VARIANTS[check_choice("name", name, VARIANTS)]
        super().__init__(dims, in_channels, num_classes, features_only)
        check_choice("form", form, FORMS)
        plain = check_choice("block", block, BLOCKS) == "plain"
        image = check_stem(stem) == "image"
        factory = LayerFactory(dims, norm, activation)
        inputs = scale_channels(64, width)
        reach = 2 if image else 1
        self.append("conv1", factory.conv(in_channels, inputs, 7 if image else 3, stride=reach), inputs, reach)
        self.append("bn1", factory.normalise(inputs), inputs)
        self.append("relu", factory.activate(), inputs)
        if image:
            self.append("maxpool", max_pool(dims, 3, stride=2, padding=1), inputs, 2)
        for number, (base, count) in enumerate(zip(_WIDTHS, variant.blocks, strict=True), 1):
            stride = 1 if number == 1 else 2
            stage = _stage(factory, variant, inputs, base, scale_count(count, depth), width, stride, form, plain)
            inputs = scale_channels(base, width) * (_EXPANSION if variant.bottleneck else 1)
            self.append(f"layer{number}", stage, inputs, stride)
        if not features_only:
            self.avgpool = global_average_pool(dims)
            self.fc = nn.Linear(inputs, num_classes)
        start_network(self, conv="fan_out")


def _stage(
    factory: LayerFactory,
    variant: Variant,
    inputs: int,
    base: int,
    count: int,
    width: float,
    stride: int,
    form: str,
    plain: bool,
) -> nn.Sequential:
    """Return the blocks of the stage whose published width is ``base``; the first has the stride."""
    outputs = scale_channels(base, width)
    blocks: list[nn.Module] = []
    for position in range(count):
        step = 1 if position else stride
        if variant.bottleneck:
            # Groups keep their number and change their width, so that channels divide for any factor.
            per_group = scale_channels(base, width) * variant.group_channels / 64
            channels = variant.groups * max(1, round(per_group))
            strides = (step, 1) if form == "v1" else (1, step)
            blocks.append(Bottleneck(factory, inputs, channels, outputs * _EXPANSION, strides, variant.groups, plain))
            inputs = outputs * _EXPANSION
        else:
            blocks.append(BasicBlock(factory, inputs, outputs, step, plain))
            inputs = outputs
    return nn.Sequential(*blocks)
