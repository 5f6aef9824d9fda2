"""The networks of nnU-Net: U-Nets whose convolutions stride, with a plain or a residual encoder.

Isensee et al. 2021 (arXiv 1904.08128), and for the residual encoder Isensee et al. 2024 (arXiv 2404.09556), whose
blocks are those of ResNet-D (He et al. 2019, arXiv 1812.01187). State-dict names are those of the package
dynamic-network-architectures, without those that name a tensor a second time. ``generic_unet`` is the network of
nnU-Net v1, under the same names.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from convoxel.errors import ConfigError, check_choice
from convoxel.models.backbone import Output, check_count
from convoxel.models.layer_factory import LayerFactory
from convoxel.models.levels import MOST_BLOCKS, MOST_LEVELS, LevelNetwork, PerLevel, per_axis, per_level
from convoxel.nn import LEAKY_SLOPE, average_pool, check_dims, conv, conv_transpose, start_weights

_UNIT = ("conv", "norm", "nonlin")


class Variant(NamedTuple):
    """The numbers in which the two networks differ.

    Attributes:
        residual: whether the encoder has a first convolution and residual blocks, else convolutions alone.
        blocks: blocks (or convolutions) of each stage of the encoder; the last number counts for all further ones.
        decoder: convolutions of each stage of the decoder.
        below: levels below a stage of the decoder from which it has the size of its convolutions.
        linear_bias: whether the layers without an activation have a bias: up-samplings, where convolutions have one,
            and heads.
    """

    residual: bool
    blocks: tuple[int, ...]
    decoder: int
    below: int = 0
    linear_bias: bool = True


VARIANTS = {
    "plain_conv_unet": Variant(False, (2,), 2),
    "residual_encoder_unet": Variant(True, (1, 3, 4, 6), 1),
    "generic_unet": Variant(False, (2,), 2, below=1, linear_bias=False),
}


class NnUNet(LevelNetwork):
    """A U-Net of nnU-Net: strided convolutions go down, transposed convolutions up.

    ``plain_conv_unet`` has convolutions alone, ``residual_encoder_unet`` a first convolution and then residual blocks,
    1, 3, 4 and then 6 in each stage. Each convolution has normalisation and activation after it. ``generic_unet``, of
    nnU-Net v1, is plain; a stage of its decoder has the kernels of the level below it, and neither its up-samplings nor
    its heads have a bias.

    Args:
        width: channels at full resolution, doubled at each level up to 512 (320 in volumes); or the channels of each
            level and the bottom.
        blocks: convolutions (plain) or residual blocks in each stage of the encoder; one number, or one for each level
            and the bottom (default: as above).
        decoder_blocks: convolutions in each stage of the decoder, one number, or one for each level, the finest first
            (default: 2, and 1 beside a residual encoder).
        kernels: size of the convolutions; one number, or for each level and the bottom a number or one an axis.
        strides: factors between levels; one number, or for each of them a number or one an axis.
        bias: whether convolutions have a bias.
        deep_supervision: number of coarser levels that give logits too, in training mode: then the result is a
            list, the full resolution first.

    Attributes:
        channels, kernels, strides: numbers of each level; ``strides[l]`` lies between levels l and l + 1.
        multiples: product of the strides of each axis.

    Takes ``(n, in_channels, *spatial)`` and returns logits ``(n, num_classes, *spatial)``.

    >>> net = NnUNet("plain_conv_unet", 3, levels=2, width=4, strides=[(1, 2, 2), 2]).eval()
    >>> net(torch.zeros(1, 1, 2, 8, 12)).shape, net.multiples
    (torch.Size([1, 2, 2, 8, 12]), (2, 4, 4))
    """

    def __init__(
        self,
        name: str,
        dims: int = 3,
        in_channels: int = 1,
        num_classes: int = 2,
        *,
        levels: int = 5,
        width: int | Sequence[int] = 32,
        blocks: int | Sequence[int] | None = None,
        decoder_blocks: int | Sequence[int] | None = None,
        kernels: PerLevel = 3,
        strides: PerLevel = 2,
        norm: str = "instance",
        activation: str = "leaky_relu",
        bias: bool = True,
        deep_supervision: int = 0,
    ) -> None:
        check_dims(dims)
        check_count("levels", levels, least=1, most=MOST_LEVELS)
        super().__init__(dims, in_channels, num_classes)
        variant = VARIANTS[check_choice("name", name, VARIANTS)]
        self.levels, self.norm = levels, norm
        if not isinstance(width, Sequence):
            most = max(check_count("width", width), 320 if dims == 3 else 512)
            width = [min(width * 2**level, most) for level in range(levels + 1)]
        self.channels = per_level("width", width, levels + 1)
        if blocks is None:
            blocks = [variant.blocks[min(level, len(variant.blocks) - 1)] for level in range(levels + 1)]
        self.blocks = per_level("blocks", blocks, levels + 1, most=MOST_BLOCKS)
        decoder = variant.decoder if decoder_blocks is None else decoder_blocks
        # One entry a step between levels, as strides have.
        self.decoder_blocks = per_level("decoder_blocks", decoder, levels, most=MOST_BLOCKS)
        self.kernels = per_axis("kernels", kernels, levels + 1, dims)
        self.strides = per_axis("strides", strides, levels, dims)
        even = sorted({size for kernel in self.kernels for size in kernel if size % 2 == 0})
        if even:
            raise ConfigError(f"kernels holds {even[0]}, but padding needs odd sizes. Give {even[0] + 1}.")
        check_count("deep_supervision", deep_supervision, least=0)
        if deep_supervision >= levels:
            raise ConfigError(
                f"deep_supervision is {deep_supervision}, but levels={levels} has {levels - 1} coarser levels with a "
                "decoder. Give at most that many, or more levels."
            )
        self.multiples = self.least = tuple(math.prod(axis) for axis in zip(*self.strides, strict=True))
        self.input_multiple = math.lcm(*self.multiples)
        # Instance normalisation needs two positions at the bottom.
        self.input_minimum = max(self.least) * (2 if norm == "instance" else 1)
        self._build(LayerFactory(dims, norm, activation), variant, bias, deep_supervision)

    def _build(self, factory: LayerFactory, variant: Variant, bias: bool, deep_supervision: int) -> None:
        dims, channels, levels = factory.dims, self.channels, self.levels

        def convolutions(
            count: int, inputs: int, level: int, stride: Sequence[int] = (1,) * dims, below: int = 0
        ) -> nn.Sequential:
            outputs, kernel, flat = channels[level], self.kernels[level + below], (1,) * dims
            units = [factory.unit(inputs, outputs, kernel, stride=stride, bias=bias, names=_UNIT)]
            for _ in range(1, count):
                units.append(factory.unit(outputs, outputs, kernel, stride=flat, bias=bias, names=_UNIT))
            return nn.Sequential(OrderedDict(convs=nn.Sequential(*units)))

        def blocks(count: int, inputs: int, level: int, stride: Sequence[int]) -> nn.Sequential:
            outputs, kernel, flat = channels[level], self.kernels[level], (1,) * dims
            made = [ResidualD(factory, inputs, outputs, kernel, stride, bias)]
            made += [ResidualD(factory, outputs, outputs, kernel, flat, bias) for _ in range(1, count)]
            return nn.Sequential(OrderedDict(blocks=nn.Sequential(*made)))

        inputs, stem = self.in_channels, None
        if variant.residual:
            stem, inputs = convolutions(1, inputs, 0), channels[0]
        stages: list[nn.Module] = []
        for level, (count, stride) in enumerate(zip(self.blocks, [(1,) * dims, *self.strides], strict=True)):
            stages.append(
                blocks(count, inputs, level, stride)
                if variant.residual
                else nn.Sequential(convolutions(count, inputs, level, stride))
            )
            inputs = channels[level]
        self.encoder = Encoder(stem, stages)
        ascent = range(levels)[::-1]  # the stages of the decoder, the coarsest first
        up_bias = bias and variant.linear_bias
        self.decoder = Decoder(
            [conv_transpose(dims, channels[level + 1], channels[level], stride, stride=stride, bias=up_bias)
             for level, stride in zip(ascent, self.strides[::-1], strict=True)],
            [convolutions(self.decoder_blocks[level], 2 * channels[level], level, below=variant.below)
             for level in ascent],
            {step: conv(dims, channels[level], self.num_classes, 1, bias=variant.linear_bias)
             for step, level in enumerate(ascent) if level <= deep_supervision},
        )  # fmt: skip
        slope = LEAKY_SLOPE if factory.activation == "leaky_relu" else 0.0
        linear = (*self.decoder.transpconvs.modules(), *self.decoder.seg_layers.modules())
        start_weights(self, negative_slope=slope, linear=linear)

    def compute(self, x: Tensor) -> Output:
        """Return logits ``(n, num_classes, *spatial)``; in training with ``deep_supervision`` a list of them.

        The list holds the logits and then those of coarser levels, the finest first.
        """
        found: Output = self.decoder(self.encoder(x))
        return found


class Encoder(nn.Module):
    """The way down: the feature maps of all stages, the finest first."""

    def __init__(self, stem: nn.Module | None, stages: Sequence[nn.Module]) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return a feature map for each stage."""
        x = x if self.stem is None else self.stem(x)
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


class Decoder(nn.Module):
    """The way up: up-samplings, the stages after them, and heads by the number of their stage, the coarsest first."""

    def __init__(
        self, transpconvs: Sequence[nn.Module], stages: Sequence[nn.Module], heads: Mapping[int, nn.Module]
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.transpconvs = nn.ModuleList(transpconvs)
        self.seg_layers = nn.ModuleDict({str(step): head for step, head in heads.items()})

    def forward(self, maps: Sequence[Tensor]) -> Output:
        """Return logits of the finest stage; in training a list of them where more stages than one have a head."""
        *skips, x = maps
        last, found = len(self.stages) - 1, []
        for step, (up, stage) in enumerate(zip(self.transpconvs, self.stages, strict=True)):
            x = stage(torch.cat([up(x), skips[last - step]], dim=1))
            if str(step) in self.seg_layers and (self.training or step == last):
                found.append(self.seg_layers[str(step)](x))
        return found[::-1] if len(found) > 1 else found[0]


class ResidualD(nn.Module):
    """Two convolutions, and a shortcut that is averaged where they stride (He et al. 2019, Figure 2c).

    The shortcut has a 1-wide convolution where the number of channels changes.
    """

    def __init__(
        self, factory: LayerFactory, inputs: int, outputs: int, kernel: Sequence[int], stride: Sequence[int], bias: bool
    ) -> None:
        super().__init__()
        self.conv1 = factory.unit(inputs, outputs, kernel, stride=stride, bias=bias, names=_UNIT)
        self.conv2 = factory.unit(outputs, outputs, kernel, bias=bias, active=False, names=_UNIT)
        self.nonlin2 = factory.activate()
        shortcut: list[nn.Module] = []
        if any(step != 1 for step in stride):
            shortcut.append(average_pool(factory.dims, stride))
        if inputs != outputs:
            shortcut.append(factory.unit(inputs, outputs, 1, bias=False, active=False, names=_UNIT))
        self.skip: nn.Sequential | None = nn.Sequential(*shortcut)

    @property
    def has_shortcut(self) -> bool:
        """True if the block is added to its input."""
        return self.skip is not None

    def drop_shortcut(self) -> None:
        """Take the shortcut away, with its convolution."""
        self.skip = None

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(n, outputs, *spatial)``, with ``spatial`` divided by the stride."""
        y = self.conv2(self.conv1(x))
        out: Tensor = self.nonlin2(y if self.skip is None else y + self.skip(x))
        return out
