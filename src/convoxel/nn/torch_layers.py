"""The layers of ``torch.nn``, chosen by the number of spatial axes.

A network that takes ``dims`` as an argument calls these functions and is thereby written once for 1-D, 2-D
and 3-D. They return plain ``torch.nn`` modules: parameters keep PyTorch's names and shapes, and
``torch.export``, ``state_dict`` and every tool that knows PyTorch work unchanged. No layer is defined here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import nn

from convoxel.arithmetic.argument import as_whole, entries, whole
from convoxel.arithmetic.window import Pair, resolve_padding
from convoxel.errors import ConfigError, check_choice
from convoxel.files.fault import brief

Sizes = int | Sequence[int]

ConvLayer = nn.Conv1d | nn.Conv2d | nn.Conv3d
TransposedLayer = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d

#: PyTorch's convolutions, for ``isinstance``.
CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
CONV_TRANSPOSE = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

# One class a number of axes. PyTorch declares their sizes as tuples of just so many numbers.
_CONV: tuple[Callable[..., ConvLayer], ...] = CONV
_CONV_TRANSPOSE: tuple[Callable[..., TransposedLayer], ...] = CONV_TRANSPOSE
_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_INSTANCE_NORM = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_MAX_POOL: tuple[Callable[..., nn.Module], ...] = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_AVERAGE_POOL: tuple[Callable[..., nn.Module], ...] = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_ADAPTIVE_AVERAGE_POOL: tuple[Callable[..., nn.Module], ...] = (
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
)
_ZERO_PAD: tuple[Callable[..., nn.Module], ...] = (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)
_LARGEST = 2**31 - 1  # what PyTorch takes of a stride, a padding or a dilation
_LINEAR_MODE = ("linear", "bilinear", "trilinear")


def check_dims(dims: int) -> int:
    """Return ``dims`` if it is a number of spatial axes that the layers have.

    Raises:
        ConfigError: ``dims`` is not 1, 2 or 3.

    >>> check_dims(3)
    3
    """
    number = as_whole(dims)
    if number is None or not 1 <= number <= 3:
        raise ConfigError(
            f"dims is {brief(dims)}, but layers have 1, 2 or 3 spatial axes. "
            "Give dims=1 for sequences, 2 for images or 3 for volumes."
        )
    return number


def check_size(name: str, value: int) -> int:
    """Return ``value`` if PyTorch takes it as a size, a stride or a padding of a layer.

    Raises:
        ConfigError: it is no whole number, or too large.
    """
    return whole(name, value, -_LARGEST, _LARGEST)


def sizes_of(dims: int, value: Sizes) -> tuple[int, ...]:
    """Return ``value`` for each of ``dims`` axes: an int means the same on every axis, a sequence names every axis.

    Raises:
        ConfigError: a sequence does not have ``dims`` entries.

    >>> sizes_of(2, 3), sizes_of(2, (1, 3))
    ((3, 3), (1, 3))
    """
    single = as_whole(value)
    if single is not None:
        return (check_size("a size of a layer", single),) * dims
    found = entries("a size of a layer", value)
    if len(found) != dims:
        raise ConfigError(
            f"{brief(value)} has {len(found)} entries, but dims={dims}. Give {dims} entries, or one int for all axes."
        )
    return tuple(check_size("a size of a layer", entry) for entry in found)


def padding_pairs(
    padding: str | int | Sequence[int] | Sequence[Pair],
    kernel: Sequence[int],
    stride: Sizes = 1,
    dilation: Sizes = 1,
    size: Sequence[int] | None = None,
) -> tuple[Pair, ...]:
    """Return the padding of :func:`convoxel.arithmetic.resolve_padding`.

    Raises:
        ConfigError: it is unknown, or more than PyTorch takes.
    """
    pairs = resolve_padding(padding, kernel, stride, dilation, size)
    if not isinstance(padding, str):  # the words follow from sizes, which may be open
        for pair in pairs:
            for side in pair:
                check_size("padding", side)
    return pairs


def conv(
    dims: int,
    in_channels: int,
    out_channels: int,
    kernel_size: Sizes,
    *,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    bias: bool = True,
) -> ConvLayer:
    """Return ``nn.Conv1d``, ``nn.Conv2d`` or ``nn.Conv3d``.

    Takes ``(n, in_channels, *spatial)``. Raises ConfigError when ``dims`` is not 1, 2 or 3.

    >>> conv(3, 1, 8, 3, padding=1).weight.shape
    torch.Size([8, 1, 3, 3, 3])
    """
    return _CONV[check_dims(dims) - 1](
        in_channels,
        out_channels,
        sizes_of(dims, kernel_size),
        stride=sizes_of(dims, stride),
        padding=padding if isinstance(padding, str) else sizes_of(dims, padding),
        dilation=sizes_of(dims, dilation),
        groups=groups,
        bias=bias,
    )


def conv_transpose(
    dims: int,
    in_channels: int,
    out_channels: int,
    kernel_size: Sizes,
    *,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    bias: bool = True,
) -> TransposedLayer:
    """Return ``nn.ConvTranspose1d``, ``2d`` or ``3d``.

    Takes ``(n, in_channels, *spatial)``. Raises ConfigError when ``dims`` is not 1, 2 or 3.

    >>> conv_transpose(2, 8, 4, 2, stride=2).weight.shape
    torch.Size([8, 4, 2, 2])
    """
    return _CONV_TRANSPOSE[check_dims(dims) - 1](
        in_channels,
        out_channels,
        sizes_of(dims, kernel_size),
        stride=sizes_of(dims, stride),
        padding=sizes_of(dims, padding),
        output_padding=sizes_of(dims, output_padding),
        groups=groups,
        bias=bias,
        dilation=sizes_of(dims, dilation),
    )


def batch_norm(dims: int, channels: int, *, eps: float = 1e-5, momentum: float = 0.1) -> nn.Module:
    """Return ``nn.BatchNorm1d``, ``2d`` or ``3d`` with its affine parameters.

    >>> batch_norm(1, 4)  # doctest: +ELLIPSIS
    BatchNorm1d(4, ...)
    """
    return _BATCH_NORM[check_dims(dims) - 1](channels, eps=eps, momentum=momentum)


def instance_norm(dims: int, channels: int, *, eps: float = 1e-5, momentum: float = 0.1) -> nn.Module:
    """Return ``nn.InstanceNorm1d``, ``2d`` or ``3d`` with affine parameters.

    ``momentum`` is accepted and ignored, so that all of ``NORMS`` are called alike.

    >>> instance_norm(3, 4).affine
    True
    """
    return _INSTANCE_NORM[check_dims(dims) - 1](channels, eps=eps, affine=True)


# Eight groups, as 3-D U-Nets use; Wu & He 2018 (arXiv 1803.08494, Table 3) find any number from 2 to 64 about equal.
_GROUPS = 8


def group_norm(dims: int, channels: int, *, eps: float = 1e-5, momentum: float = 0.1) -> nn.Module:
    """Return ``nn.GroupNorm`` with 8 groups, or as many below that as divide ``channels``.

    PyTorch's layer is the same for every ``dims``; ``momentum`` is accepted and ignored.

    >>> group_norm(3, 12).num_groups
    4
    """
    check_dims(dims)
    return nn.GroupNorm(math.gcd(_GROUPS, channels), channels, eps=eps)


NORMS: dict[str, Callable[..., nn.Module] | None] = {
    "batch": batch_norm,
    "instance": instance_norm,
    "group": group_norm,
    "none": None,
}


def norm(kind: str, dims: int, channels: int, *, eps: float = 1e-5, momentum: float = 0.1) -> nn.Module | None:
    """Return the normalisation called ``kind`` (a key of ``NORMS``), or None for ``"none"``.

    Args:
        kind: name of the normalisation.
        eps: number added to the variance before the root (default 1e-5).
        momentum: share of the newest batch in the running statistics of ``"batch"`` (default 0.1).

    Raises:
        ConfigError: ``kind`` is not known.

    >>> norm("none", 2, 16) is None
    True
    """
    check_choice("norm", kind, NORMS)
    make = NORMS[kind]
    return None if make is None else make(dims, channels, eps=eps, momentum=momentum)


# The slope of Maas et al. 2013, of PyTorch and of nnU-Net.
LEAKY_SLOPE = 0.01

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": lambda: nn.ReLU6(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
    "elu": lambda: nn.ELU(inplace=True),
    "silu": lambda: nn.SiLU(inplace=True),
    "gelu": nn.GELU,
    "hard_swish": lambda: nn.Hardswish(inplace=True),
}


def activation(kind: str) -> nn.Module:
    """Return the activation called ``kind`` (a key of ``ACTIVATIONS``).

    Raises:
        ConfigError: ``kind`` is not known.

    >>> activation("relu")
    ReLU(inplace=True)
    """
    check_choice("activation", kind, ACTIVATIONS)
    return ACTIVATIONS[kind]()


def max_pool(
    dims: int, kernel_size: Sizes, *, stride: Sizes | None = None, padding: Sizes = 0, ceil: bool = False
) -> nn.Module:
    """Return ``nn.MaxPool1d``, ``2d`` or ``3d``; ``stride`` is ``kernel_size`` by default.

    With ``ceil`` the last window may reach beyond the end.

    >>> max_pool(2, 2)
    MaxPool2d(kernel_size=(2, 2), stride=(2, 2), padding=(0, 0), dilation=1, ceil_mode=False)
    """
    kernel = sizes_of(check_dims(dims), kernel_size)
    strides = kernel if stride is None else sizes_of(dims, stride)
    return _MAX_POOL[dims - 1](kernel, stride=strides, padding=sizes_of(dims, padding), ceil_mode=ceil)


def average_pool(dims: int, kernel_size: Sizes, *, stride: Sizes | None = None, padding: Sizes = 0) -> nn.Module:
    """Return ``nn.AvgPool1d``, ``2d`` or ``3d``; ``stride`` is ``kernel_size`` by default.

    Padding is zeros, which count. In 3-D it is a separate layer, as PyTorch's pooling refuses an axis that is shorter
    than the kernel even where the padded axis is not.

    >>> average_pool(1, 3, stride=2).stride
    (2,)
    """
    kernel = sizes_of(check_dims(dims), kernel_size)
    strides = kernel if stride is None else sizes_of(dims, stride)
    pads = sizes_of(dims, padding)
    if dims == 3 and any(pads):
        both = tuple(pad for pad in reversed(pads) for _ in range(2))  # the last axis comes first
        return nn.Sequential(_ZERO_PAD[dims - 1](both, 0.0), _AVERAGE_POOL[dims - 1](kernel, stride=strides))
    return _AVERAGE_POOL[dims - 1](kernel, stride=strides, padding=pads)


def adaptive_average_pool(dims: int, size: Sizes) -> nn.Module:
    """Return the average over a grid: ``(n, c, *spatial)`` → ``(n, c, size, …)`` for any spatial size.

    ``size`` is an int, or one for each axis.

    Cell j of an axis of i pixels averages the pixels ⌊j i / size⌋ … ⌈(j + 1) i / size⌉ − 1; an axis with
    fewer pixels than cells repeats them.

    >>> import torch
    >>> adaptive_average_pool(1, 2)(torch.tensor([[[1.0, 3.0, 5.0]]])).tolist()
    [[[2.0, 4.0]]]
    """
    return _ADAPTIVE_AVERAGE_POOL[check_dims(dims) - 1](size if isinstance(size, int) else sizes_of(dims, size))


def global_average_pool(dims: int) -> nn.Module:
    """Return the average over all positions: ``(n, c, *spatial)`` → ``(n, c, 1, …)``.

    >>> global_average_pool(3)
    AdaptiveAvgPool3d(output_size=1)
    """
    return _ADAPTIVE_AVERAGE_POOL[check_dims(dims) - 1](1)


def resize(dims: int, scale: Sizes, mode: str = "linear") -> nn.Module:
    """Return an ``nn.Upsample`` by ``scale``, one factor for all axes or one for each.

    ``"linear"`` means linear along every axis.

    Pixels are areas: the output's pixel o has its centre at ``(o + 1/2) / scale − 1/2`` of the input.

    Raises:
        ConfigError: ``mode`` is neither ``"linear"`` nor ``"nearest"``.

    >>> resize(3, 2).mode
    'trilinear'
    """
    check_choice("mode", mode, ("linear", "nearest"))
    factor = float(scale) if isinstance(scale, int) else tuple(map(float, sizes_of(dims, scale)))
    if mode == "nearest":
        return nn.Upsample(scale_factor=factor, mode="nearest")
    return nn.Upsample(scale_factor=factor, mode=_LINEAR_MODE[check_dims(dims) - 1], align_corners=False)
