"""U-Net with any number of resolution levels, in 1-D, 2-D and 3-D.

Ronneberger, Fischer & Brox 2015 (arXiv 1505.04597), Çiçek et al. 2016 (arXiv 1606.06650) for volumes.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from convoxel.errors import ConfigError
from convoxel.models.network import Network, check_count
from convoxel.nn import LEAKY_SLOPE, conv, conv_transpose, max_pool, resize, start_weights
from convoxel.nn import activation as make_activation
from convoxel.nn import norm as make_norm

__all__ = ["UNet", "unet"]


class UNet(Network):
    """Encoder and decoder with a skip connection at every resolution; see :func:`unet`.

    ``encoder[l]`` works at 1/2^l of the resolution (the last is the bottom), ``decoder[l]`` and ``up[l]``
    produce level ``l``. Skips come first in the concatenation: ``cat(skip, up)``.
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        num_classes: int,
        *,
        levels: int = 4,
        width: int = 32,
        up: str = "transposed",
        norm: str = "batch",
        activation: str = "relu",
        padding: str = "same",
    ) -> None:
        check_count("levels", levels, least=0)
        check_count("width", width)
        if up not in ("transposed", "resize"):
            raise ConfigError(f"up is {up!r}, but it can be 'transposed' or 'resize'.")
        if padding not in ("same", "none"):
            raise ConfigError(f"padding is {padding!r}, but it can be 'same' or 'none'.")
        valid = padding == "none"
        # Without padding each level loses 4 pixels in its two convolutions; b pixels at the bottom come from
        # 2^l b + 4 (2^l − 1) at the top and give 2^l (b − 4) − 4 (2^l − 1), which must be at least 1.
        least = 2**levels
        if valid:
            bottom = 4 + -(-(4 * (2**levels - 1) + 1) // 2**levels)
            least = 2**levels * bottom + 4 * (2**levels - 1)
        super().__init__(dims, in_channels, num_classes, input_multiple=2**levels, input_minimum=least)
        self.levels = levels
        self.padding = padding

        def block(inputs: int, outputs: int) -> nn.Sequential:
            return _two_convolutions(dims, inputs, outputs, norm, activation, 0 if valid else 1)

        channels = [width * 2**level for level in range(levels + 1)]
        self.encoder = nn.ModuleList(
            block(inputs, outputs) for inputs, outputs in zip([in_channels, *channels[:-1]], channels, strict=True)
        )
        self.pool = max_pool(dims, 2)
        self.up = nn.ModuleList(_up_sampling(dims, 2 * outputs, outputs, up) for outputs in channels[:-1])
        self.decoder = nn.ModuleList(block(2 * outputs, outputs) for outputs in channels[:-1])
        self.head = conv(dims, width, num_classes, 1)
        slope = LEAKY_SLOPE if activation == "leaky_relu" else 0.0
        start_weights(self, negative_slope=slope, linear=(*self.up.modules(), self.head))

    def compute(self, x: Tensor) -> Tensor:
        """Return logits ``(n, num_classes, *spatial)``."""
        skips = []
        for level, encode in enumerate(self.encoder):
            x = encode(self.pool(x) if level else x)
            skips.append(x)
        for level in reversed(range(self.levels)):
            x = self.up[level](x)
            skip = skips[level]
            x = self.decoder[level](torch.cat([_crop(skip, x) if self.padding == "none" else skip, x], dim=1))
        logits: Tensor = self.head(x)
        return logits

    def nearest_sizes(self, size: int) -> tuple[int, ...]:
        """Return the valid sizes of an axis nearest to ``size``: itself, or those below and above."""
        if self.padding == "same":
            return super().nearest_sizes(size)
        steps = (size - self.input_minimum) // self.input_multiple
        below = self.input_minimum + steps * self.input_multiple
        if steps < 0:
            return (self.input_minimum,)
        return (size,) if below == size else (below, below + self.input_multiple)

    def size_rule(self) -> str:
        """Return in words which spatial sizes are valid."""
        if self.padding == "same":
            return f"{super().size_rule()} (2 to the power of levels={self.levels})"
        return (
            f"every size must be {self.input_minimum} + {self.input_multiple} n "
            f"(levels={self.levels}, padding={self.padding!r})"
        )


def _two_convolutions(dims: int, inputs: int, outputs: int, norm: str, activation: str, padding: int) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for step, channels in ((1, inputs), (2, outputs)):
        normalise = make_norm(norm, dims, outputs)
        # A normalisation subtracts the mean, and with it any bias before it.
        layers[f"conv{step}"] = conv(dims, channels, outputs, 3, padding=padding, bias=normalise is None)
        if normalise is not None:
            layers[f"norm{step}"] = normalise
        layers[f"act{step}"] = make_activation(activation)
    return nn.Sequential(layers)


def _up_sampling(dims: int, inputs: int, outputs: int, up: str) -> nn.Module:
    if up == "transposed":
        return conv_transpose(dims, inputs, outputs, 2, stride=2)
    # The 1×1 convolution commutes with the resize (both are linear, the weights of a resize sum to one), and
    # costs 2^dims times less when it comes first.
    return nn.Sequential(OrderedDict(conv=conv(dims, inputs, outputs, 1), resize=resize(dims, 2)))


def _crop(skip: Tensor, x: Tensor) -> Tensor:
    """Return the centre of ``skip`` that has the spatial size of ``x``."""
    for axis in range(2, x.dim()):
        size = x.shape[axis]
        skip = skip.narrow(axis, (skip.shape[axis] - size) // 2, size)
    return skip


def unet(
    dims: int = 2,
    in_channels: int = 1,
    num_classes: int = 2,
    *,
    levels: int = 4,
    width: int = 32,
    up: str = "transposed",
    norm: str = "batch",
    activation: str = "relu",
    padding: str = "same",
) -> UNet:
    """Return a U-Net: per level two 3-wide convolutions, each with normalisation and activation.

    Ronneberger et al. 2015 and Çiçek et al. 2016, in the padded form of the course: ``levels`` halvings by
    2-wide max pooling, ``width`` channels at full resolution and twice as many after each halving,
    up-sampling by 2-wide stride-2 transposed convolutions, concatenation with the encoder's output of equal
    size, and a 1-wide convolution to logits. ``unet(2, 1, 2, width=64, norm="none", padding="none")`` is the
    paper's 2-D network.

    Args:
        dims: spatial axes, 1, 2 or 3.
        in_channels: channels of the input.
        num_classes: channels of the output.
        levels: number of 2× poolings; every spatial size must be a multiple of 2^levels.
        width: channels at full resolution.
        up: ``"transposed"`` or ``"resize"`` (1-wide convolution, then linear resize ×2).
        norm: ``"batch"``, ``"instance"`` or ``"none"``; convolutions have a bias only with ``"none"``.
        activation: ``"relu"``, ``"leaky_relu"`` (0.01), ``"elu"``, ``"silu"`` or ``"gelu"``.
        padding: ``"same"`` keeps the spatial size; ``"none"`` loses borders, and skips are cropped.

    Returns:
        A module from ``(n, in_channels, *spatial)`` to logits ``(n, num_classes, *spatial)``.

    Raises:
        ConfigError: an argument is out of range. The module raises ShapeError for a size that does not fit.

    >>> import torch
    >>> net = unet(3, in_channels=1, num_classes=3, levels=2, width=4)
    >>> net(torch.zeros(1, 1, 8, 12, 16)).shape
    torch.Size([1, 3, 8, 12, 16])
    >>> net.input_multiple
    4
    """
    return UNet(
        dims,
        in_channels,
        num_classes,
        levels=levels,
        width=width,
        up=up,
        norm=norm,
        activation=activation,
        padding=padding,
    )
