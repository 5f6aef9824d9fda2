"""U-Net with any number of resolution levels, in 1-D, 2-D and 3-D.

Ronneberger, Fischer & Brox 2015 (arXiv 1505.04597), Çiçek et al. 2016 (arXiv 1606.06650) for volumes. The
options reach as far as nnU-Net's networks (Isensee et al. 2021, arXiv 1904.08128): residual stages, strides and
kernels that differ by axis and level, and logits at coarser levels while training.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from convoxel.errors import ConfigError, check_choice
from convoxel.models.backbone import Output, check_count
from convoxel.models.layer_factory import LayerFactory
from convoxel.models.levels import MOST_BLOCKS, MOST_LEVELS, LevelNetwork, PerLevel, per_axis, per_level
from convoxel.models.stage import build_stage, build_up_sampling, crop, pad, trim
from convoxel.nn import LEAKY_SLOPE, check_dims, conv, max_pool, start_weights


class UNet(LevelNetwork):
    """A U-Net: an encoder and a decoder with a skip connection at every resolution.

    By default it is the padded form of the course (Ronneberger et al. 2015, Çiçek et al. 2016): two 3-wide convolutions
    a level, each with normalisation and activation; ``levels`` halvings by max pooling; ``width`` channels at full
    resolution and twice as many after each halving; up-sampling by transposed convolutions; concatenation with the
    encoder's output of equal size, which comes first; and a 1-wide convolution to logits. The papers' own networks are
    :func:`unet_ronneberger` and :func:`unet_cicek`.

    Weights start at N(0, 2 / inputs), the papers' √(2/N) (He et al. 2015, arXiv 1502.01852).

    ``encoder[l]`` works at level l (0: full resolution, the last: the bottom); ``decoder[l]`` and ``up[l]`` produce
    level l.

    Args:
        width: channels at full resolution, doubled at each level; or the channels of each level and the bottom.
        blocks: blocks of two convolutions in each stage; one number, or one for each level and the bottom.
        block: ``"plain"``, or ``"residual"``: every block is added to its input.
        kernels: size of the convolutions; one number, or for each level and the bottom a number or one an axis.
        strides: factors between levels; one number, or for each pooling a number or one an axis: for volumes
            of thick slices ``[(1, 2, 2), (2, 2, 2)]``.
        up: ``"transposed"``, ``"linear"`` or ``"nearest"`` (1-wide convolution, then a resize), or ``"shuffle"``
            (3-wide convolution whose channels become pixels).
        norm: ``"batch"``, ``"instance"``, ``"group"`` or ``"none"``; convolutions have a bias only with ``"none"``.
        activation: a key of ``convoxel.nn.ACTIVATIONS``, such as ``"relu"`` or ``"leaky_relu"``.
        padding: ``"same"`` keeps the spatial size; ``"none"`` loses borders, and skips are cropped.
        sizes: ``"check"`` refuses a size that is no multiple of the strides' product, naming those that fit;
            ``"pad"`` takes any size, with zeros after the end that are cut off again. The first is the default
            because zeros are part of what a network sees: normalisation and the last pixels feel them, and who
            cuts tiles of a large image does better to cut tiles that fit.
        deep_supervision: number of coarser levels that give logits too, in training mode: then the result is a
            list, the full resolution first (Dou et al. 2017).
        widen: ``"after"`` doubles the channels after each pooling, ``"before"`` in the convolution before it.
        up_bias: whether up-samplings have a bias.
        bias: whether convolutions have a bias; None: where no normalisation follows.

    Attributes:
        channels, kernels, strides, blocks: numbers of each level; ``strides[l]`` lies between levels l and l + 1.
        margins: pixels cut off each side of a level's skip; 0 where convolutions are padded.
        borders: pixels that the output lacks at each side of the input, by axis.
        multiples: product of the strides of each axis.

    Takes ``(n, in_channels, *spatial)`` and returns logits ``(n, num_classes, *spatial)``.

    >>> net = UNet(3, in_channels=1, num_classes=3, levels=2, width=4)
    >>> net(torch.zeros(1, 1, 8, 12, 16)).shape
    torch.Size([1, 3, 8, 12, 16])
    >>> net.input_multiple
    4
    >>> UNet(2, levels=2, width=4, sizes="pad")(torch.zeros(1, 1, 5, 7)).shape
    torch.Size([1, 2, 5, 7])
    """

    def __init__(
        self,
        dims: int = 2,
        in_channels: int = 1,
        num_classes: int = 2,
        *,
        levels: int = 4,
        width: int | Sequence[int] = 32,
        blocks: int | Sequence[int] = 1,
        block: str = "plain",
        kernels: PerLevel = 3,
        strides: PerLevel = 2,
        up: str = "transposed",
        norm: str = "batch",
        activation: str = "relu",
        padding: str = "same",
        sizes: str = "check",
        deep_supervision: int = 0,
        widen: str = "after",
        up_bias: bool = True,
        bias: bool | None = None,
    ) -> None:
        check_dims(dims)
        check_count("levels", levels, least=0)
        if levels > MOST_LEVELS:
            raise ConfigError(f"levels is {levels}, but it can be at most {MOST_LEVELS}: sizes double with each.")
        check_choice("padding", padding, ("same", "none"))
        check_choice("sizes", sizes, ("check", "pad"))
        check_choice("widen", widen, ("after", "before"))
        super().__init__(dims, in_channels, num_classes)
        self.levels, self.padding, self.sizes, self.norm = levels, padding, sizes, norm
        if not isinstance(width, Sequence):
            width = [check_count("width", width) * 2**level for level in range(levels + 1)]
        self.channels = per_level("width", width, levels + 1)
        self.blocks = per_level("blocks", blocks, levels + 1, most=MOST_BLOCKS)
        self.kernels = per_axis("kernels", kernels, levels + 1, dims)
        self.strides = per_axis("strides", strides, levels, dims)
        self._check_options(up, deep_supervision)
        self.multiples = tuple(math.prod(axis) for axis in zip(*self.strides, strict=True)) or (1,) * dims
        self.margins, self.borders, least = self._measure()
        if sizes == "check":
            # Sufficient on every axis; check_input asks each axis for its own.
            self.input_multiple, self.input_minimum = math.lcm(*self.multiples), max(least)
        self.least = least
        self._build(
            LayerFactory(dims, norm, activation), block, widen == "before", up, (bias, up_bias), deep_supervision
        )

    def _check_options(self, up: str, deep_supervision: int) -> None:
        """Refuse what does not go together."""
        check_count("deep_supervision", deep_supervision, least=0)
        if deep_supervision and deep_supervision >= self.levels:
            raise ConfigError(
                f"deep_supervision is {deep_supervision}, but levels={self.levels} has {max(self.levels - 1, 0)} "
                "coarser levels with a decoder. Give at most that many, or more levels."
            )
        even = sorted({size for kernel in self.kernels for size in kernel if size % 2 == 0})
        if self.padding == "same" and even:
            raise ConfigError(f"kernels holds {even[0]}, but padding='same' needs odd sizes. Give {even[0] + 1}.")
        if self.padding == "none":
            for name, given in (("sizes", self.sizes == "pad"), ("deep_supervision", deep_supervision),
                                ("up", up == "shuffle")):  # fmt: skip
                if given:
                    raise ConfigError(
                        f"padding is 'none', but {name} "
                        f"{'is given' if name == 'deep_supervision' else 'works'} with padding='same' only. "
                        f"Change padding or {name}."
                    )

    def _measure(self) -> tuple[list[tuple[int, ...]], tuple[int, ...], tuple[int, ...]]:
        """Return the margins of the skips by level, and of each axis the border and the smallest valid size."""
        dims = len(self.multiples)
        least = tuple(next(size for size in itertools.count(1) if self._through(size, axis)) for axis in range(dims))
        pairs = [self._through(size, axis) or [] for axis, size in enumerate(least)]
        margins = [
            tuple((pairs[axis][level][0] - pairs[axis][level][1]) // 2 for axis in range(dims))
            for level in range(self.levels)
        ]
        borders = tuple((size - pairs[axis][-1][0]) // 2 for axis, size in enumerate(least))
        return margins, borders, least

    def _through(self, size: int, axis: int) -> list[tuple[int, int]] | None:
        """Return (skip, up-sampled) sizes of each level, the output's last; None if ``size`` does not fit."""
        lost = [0] * (self.levels + 1)
        if self.padding == "none":
            lost = [2 * count * (kernel[axis] - 1) for count, kernel in zip(self.blocks, self.kernels, strict=True)]
        skips = []
        for level in range(self.levels + 1):
            if level:
                size, rest = divmod(size, self.strides[level - 1][axis])
                if rest:
                    return None
            size -= lost[level]
            if size < 1:
                return None
            skips.append(size)
        pairs = []
        for level in reversed(range(self.levels)):
            size *= self.strides[level][axis]
            pairs.append((skips[level], size))
            size -= lost[level]
            if size < 1:
                return None
        return [*reversed(pairs), (size, size)]

    def _build(
        self,
        factory: LayerFactory,
        block: str,
        before: bool,
        up: str,
        biases: tuple[bool | None, bool],
        deep_supervision: int,
    ) -> None:
        channels = self.channels

        def stage(level: int, inputs: int, middle: int | None = None) -> nn.Sequential:
            return build_stage(
                factory,
                inputs,
                channels[level],
                kernel=self.kernels[level],
                blocks=self.blocks[level],
                block=block,
                middle=middle,
                padded=self.padding == "same",
                bias=biases[0],
            )

        self.encoder = nn.ModuleList(
            stage(level, inputs, max(channels[level] // 2, 1) if before else None)
            for level, inputs in enumerate([self.in_channels, *channels[:-1]])
        )
        self.pools = nn.ModuleList(max_pool(factory.dims, stride) for stride in self.strides)
        # Çiçek et al.: up-samplings keep their channels, "to avoid bottlenecks".
        fine = channels[1:] if before else channels[:-1]
        self.up = nn.ModuleList(
            build_up_sampling(factory.dims, channels[level + 1], fine[level], self.strides[level], up, biases[1])
            for level in range(self.levels)
        )
        self.decoder = nn.ModuleList(stage(level, channels[level] + fine[level]) for level in range(self.levels))
        self.head = conv(factory.dims, channels[0], self.num_classes, 1)
        self.extra_heads = nn.ModuleList(
            conv(factory.dims, channels[level + 1], self.num_classes, 1) for level in range(deep_supervision)
        )
        slope = LEAKY_SLOPE if factory.activation == "leaky_relu" else 0.0
        start_weights(self, negative_slope=slope, linear=(*self.up.modules(), self.head, *self.extra_heads))

    def compute(self, x: Tensor) -> Output:
        """Return logits ``(n, num_classes, *spatial)``; in training with ``deep_supervision`` a list of them.

        The list holds the logits and then those of coarser levels, the finest first; level l has
        ⌈size / stride⌉ pixels along an axis.
        """
        spatial = x.shape[2:]
        if self.sizes == "pad":
            x = pad(x, self.multiples)
        skips = []
        for level, encode in enumerate(self.encoder):
            x = encode(self.pools[level - 1](x) if level else x)
            skips.append(x)
        extras = []
        for level in reversed(range(self.levels)):
            x = self.up[level](x)
            x = self.decoder[level](torch.cat([trim(skips[level], self.margins[level]), x], dim=1))
            if self.training and 0 < level <= len(self.extra_heads):
                extras.append(self.extra_heads[level - 1](x))
        found = [self.head(x), *reversed(extras)]
        if self.sizes == "pad":
            found = [crop(logits, self.coarsened(spatial, level)) for level, logits in enumerate(found)]
        return found if len(found) > 1 else found[0]


def unet_ronneberger(
    dims: int = 2,
    in_channels: int = 1,
    num_classes: int = 2,
    *,
    levels: int = 4,
    width: int = 64,
    norm: str = "none",
    block: str = "plain",
) -> UNet:
    """Return the network of Ronneberger et al. 2015 (Figure 1): no padding, no normalisation, biases.

    31 030 658 parameters in 2-D, 1 channel to 2; 572 pixels give 388. It takes 188 + 16 n pixels and loses 184;
    large images are computed in tiles that overlap by these.

    Args:
        width: channels at full resolution.

    Returns:
        A module from ``(n, in_channels, *spatial)`` to logits ``(n, num_classes, *smaller)``.

    >>> unet_ronneberger(width=2).nearest_sizes(570)
    (556, 572)
    """
    return UNet(dims, in_channels, num_classes, levels=levels, width=width, norm=norm, block=block, padding="none")


def unet_cicek(
    dims: int = 3, in_channels: int = 3, num_classes: int = 3, *, levels: int = 3, width: int = 64, norm: str = "batch"
) -> UNet:
    """Return the 3-D U-Net of Çiçek et al. 2016 (Figure 2): channels double before each pooling.

    19 069 955 parameters in 3-D, 3 channels to 3, batch normalisation not counted; 132 × 132 × 116 voxels give
    44 × 44 × 28. Up-convolutions keep their channels and have no bias; the convolutions have one, before the
    normalisation too.

    Args:
        width: channels at full resolution, after the second convolution; the first has half.

    Returns:
        A module from ``(n, in_channels, *spatial)`` to logits ``(n, num_classes, *smaller)``.

    >>> net = unet_cicek(width=4)
    >>> [net.nearest_sizes(size) for size in (132, 116)]
    [(132,), (116,)]
    """
    return UNet(
        dims, in_channels, num_classes, levels=levels, width=width, widen="before", up_bias=False, bias=True,
        norm=norm, padding="none",
    )  # fmt: skip
