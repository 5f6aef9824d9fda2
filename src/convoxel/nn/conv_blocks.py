"""Blocks of several layers: separable, depthwise-separable and 2.5-D convolutions, squeeze-and-excitation.

Their parts are convolutions of ``torch.nn``. A block's name in a state dict comes before those of its parts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from convoxel.errors import ConfigError, ShapeError, check_choice
from convoxel.nn.padded_convolution import Conv, Padding
from convoxel.nn.torch_layers import Sizes, check_dims, conv, global_average_pool, padding_pairs, sizes_of
from convoxel.nn.torch_layers import activation as activate


class SeparableConv(nn.Sequential):
    """A convolution written as one along each axis: k×1×1, then 1×k×1, then 1×1×k.

    It costs Σkₐ products for each pair of channels instead of ∏kₐ (K = u vᵀ, I * K = (I * u) * v). Channels change
    in the first part. An axis on which the kernel is 1 has no part, unless all are 1.

    Args:
        bias: whether the last part has a bias (default True).

    Takes ``(n, in_channels, *spatial)``. The parts are called ``0``, ``1``, … in the order of the axes.

    >>> layer = SeparableConv(3, 8, 16, 3, padding="same", bias=False)
    >>> [tuple(part.weight.shape) for part in layer]
    [(16, 8, 3, 1, 1), (16, 16, 1, 3, 1), (16, 16, 1, 1, 3)]
    >>> layer(torch.zeros(1, 8, 5, 6, 7)).shape
    torch.Size([1, 16, 5, 6, 7])
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        *,
        rank: int | None = None,
        stride: Sizes = 1,
        padding: Padding = 0,
        dilation: Sizes = 1,
        bias: bool = True,
    ) -> None:
        kernel = sizes_of(check_dims(dims), kernel_size)
        wide = [axis for axis in range(dims) if kernel[axis] > 1] or [0]
        # A part also strides along the axes that have no part of their own.
        idle = [axis for axis in range(dims) if axis not in wide]
        owners = [(axis, *idle) if axis == wide[0] else (axis,) for axis in wide]
        between = out_channels if rank is None else rank
        channels = [in_channels, *[between] * (len(wide) - 1), out_channels]
        super().__init__(
            *(
                _part(dims, pair, owned, kernel, stride, padding, dilation, bias and owned is owners[-1])
                for pair, owned in zip(pairwise(channels), owners, strict=True)
            )
        )


def _part(
    dims: int,
    channels: Sequence[int],
    axes: Sequence[int],
    kernel: Sequence[int],
    stride: Sizes,
    padding: Padding,
    dilation: Sizes,
    bias: bool,
) -> nn.Module:
    """Return the convolution along ``axes``: kernel, stride, padding and dilation there, 1 and none elsewhere."""

    def own(values: Sequence[int], other: int) -> tuple[int, ...]:
        return tuple(values[axis] if axis in axes else other for axis in range(dims))

    pads = padding
    if not isinstance(padding, str):
        pairs = enumerate(padding_pairs(padding, kernel))
        pads = tuple(pair if axis in axes else (0, 0) for axis, pair in pairs)
    return Conv(
        dims,
        channels[0],
        channels[1],
        own(kernel, 1),
        stride=own(sizes_of(dims, stride), 1),
        padding=pads,  # of a kernel of 1 every word but "same" with a stride pads nothing, and that needs nothing
        dilation=own(sizes_of(dims, dilation), 1),
        bias=bias,
    )


class DepthwiseSeparableConv(nn.Sequential):
    """A kernel for each channel, then a 1×1 convolution: ``depthwise`` and ``pointwise`` (Howard et al. 2017).

    C · ∏k + C · K weights where a convolution has C · K · ∏k (arXiv 1704.04861, §3.1).

    Args:
        in_channels: channels of the input, C.
        out_channels: channels of the output, K.
        multiplier: kernels for each input channel (default 1).
        bias: whether the pointwise part has a bias (default True).

    Takes ``(n, in_channels, *spatial)``.

    >>> count = lambda layer: sum(parameter.numel() for parameter in layer.parameters())
    >>> count(DepthwiseSeparableConv(2, 3, 5, 3, bias=False)), count(DepthwiseSeparableConv(2, 64, 128, 5, bias=False))
    (42, 9792)
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        *,
        multiplier: int = 1,
        stride: Sizes = 1,
        padding: Padding = 0,
        dilation: Sizes = 1,
        bias: bool = True,
    ) -> None:
        inner = in_channels * multiplier
        window = {"stride": stride, "padding": padding, "dilation": dilation}
        depthwise = Conv(dims, in_channels, inner, kernel_size, groups=in_channels, bias=False, **window)  # type: ignore[arg-type]
        pointwise = Conv(dims, inner, out_channels, 1, bias=bias)
        super().__init__(OrderedDict(depthwise=depthwise, pointwise=pointwise))


class InflatedConv(nn.Sequential):
    """A 2.5-D convolution of volumes: 1×k×k in the plane, then d×1×1 through depth (``plane`` and ``depth``).

    Tran et al. 2018 (arXiv 1711.11248) call it (2+1)D, Qiu et al. 2017 (arXiv 1711.10305) pseudo-3D.

    Args:
        kernel_size: k.
        depth_size: d (default: k).
        stride: an int or one for each of (D, H, W) (default 1).
        activation: a key of ``convoxel.nn.ACTIVATIONS`` between the parts, or None.
        bias: whether parts have a bias (default True): both if an activation lies between them, else the last.

    Takes ``(n, in_channels, depth, height, width)``.

    >>> [tuple(p.shape) for p in InflatedConv(8, 16, 3, padding="same", bias=False).parameters()]
    [(16, 8, 1, 3, 3), (16, 16, 3, 1, 1)]
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        depth_size: int | None = None,
        rank: int | None = None,
        stride: Sizes = 1,
        padding: Padding = 0,
        activation: str | None = None,
        bias: bool = True,
    ) -> None:
        kernel = (kernel_size if depth_size is None else depth_size, kernel_size, kernel_size)
        between = out_channels if rank is None else rank
        first = _part(3, (in_channels, between), (1, 2), kernel, stride, padding, 1, bias and activation is not None)
        last = _part(3, (between, out_channels), (0,), kernel, stride, padding, 1, bias)
        middle = [] if activation is None else [("activation", activate(activation))]
        super().__init__(OrderedDict([("plane", first), *middle, ("depth", last)]))


class SliceStack(nn.Module):
    """A 2-D network over a volume: each slice with its neighbours as channels (the other meaning of 2.5-D).

    Slice z sees the slices z − r … z + r, each with all channels, slice by slice; beyond the ends the last slice is
    repeated. Every slice becomes one image of the batch.

    Args:
        model: a 2-D network with ``(2 r + 1) · channels`` input channels.
        reach: r, number of slices on each side (default 1).

    Takes ``(n, channels, depth, height, width)``; returns the results of ``model`` stacked along depth:
    ``(n, classes, depth, *rest)``.

    Raises:
        ConfigError: ``reach`` is negative. ShapeError: the input is no volume.

    >>> layer = SliceStack(nn.Conv2d(3, 5, 3, padding=1), reach=1)
    >>> layer(torch.zeros(2, 1, 7, 8, 8)).shape
    torch.Size([2, 5, 7, 8, 8])
    """

    def __init__(self, model: nn.Module, reach: int = 1) -> None:
        super().__init__()
        if isinstance(reach, bool) or not isinstance(reach, int) or reach < 0:
            raise ConfigError(f"reach is {reach!r}, but it must be a whole number of at least 0.")
        self.model, self.reach = model, reach

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(n, classes, depth, *rest)``."""
        if x.dim() != 5:
            raise ShapeError(
                f"SliceStack: x has {x.dim()} axes {tuple(x.shape)}; expected (n, channels, depth, height, width)."
            )
        depth = x.shape[2]
        padded = nn.functional.pad(x, (0, 0, 0, 0, self.reach, self.reach), mode="replicate")
        slices = [padded[:, :, start : start + depth] for start in range(2 * self.reach + 1)]
        images = torch.cat(slices, dim=1).transpose(1, 2).flatten(0, 1)
        found: Tensor = self.model(images).unflatten(0, (-1, depth))
        return found.transpose(1, 2)


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation: channels weighted by the whole image (Hu et al. 2018, arXiv 1709.01507).

    y = x · σ(W₂ δ(W₁ mean(x))).

    State-dict names and shapes in 2-D are those of ``torchvision.ops.SqueezeExcitation`` (``fc1``, ``fc2``).

    Args:
        squeezed: channels between W₁ and W₂ (default: a quarter).
        activation: δ, a key of ``convoxel.nn.ACTIVATIONS`` (default ``"relu"``).
        gate: σ, ``"sigmoid"`` (default) or ``"hard_sigmoid"``.

    Takes and returns ``(n, channels, *spatial)``.

    >>> SqueezeExcite(3, 8)(torch.ones(1, 8, 2, 2, 2)).shape
    torch.Size([1, 8, 2, 2, 2])
    """

    def __init__(
        self, dims: int, channels: int, squeezed: int | None = None, *, activation: str = "relu", gate: str = "sigmoid"
    ) -> None:
        super().__init__()
        gates = {"sigmoid": nn.Sigmoid(), "hard_sigmoid": nn.Hardsigmoid(inplace=True)}
        check_choice("gate", gate, gates)
        inner = max(1, channels // 4) if squeezed is None else squeezed
        self.avgpool = global_average_pool(dims)
        self.fc1 = conv(dims, channels, inner, 1)
        self.activation = activate(activation)
        self.fc2 = conv(dims, inner, channels, 1)
        self.gate = gates[gate]

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with its channels weighted."""
        weights: Tensor = self.gate(self.fc2(self.activation(self.fc1(self.avgpool(x)))))
        return x * weights
