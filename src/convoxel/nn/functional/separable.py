"""Factorised convolutions: one kernel along each axis, or one kernel for each channel and a mixture of channels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from convoxel.errors import ShapeError
from convoxel.nn.functional.arguments import as_batch, check_sizes, count_axes
from convoxel.nn.functional.correlation import Padding, Sizes, correlate
from convoxel.nn.torch_layers import padding_pairs


def separable(
    x: Tensor,
    kernels: Sequence[Tensor],
    *,
    stride: Sizes = 1,
    padding: Padding = "none",
    dilation: Sizes = 1,
    padding_mode: str = "zeros",
    dims: int | None = None,
) -> Tensor:
    """Return x correlated with one kernel along each axis in turn: x * (u ⊗ v) = (x * u) * v.

    It costs Σkₐ products for each output instead of ∏kₐ.

    Args:
        kernels: one for each axis: ``(k,)`` for all channels, ``(c, k)`` with one for each channel, or
            ``(o, c, k)`` which mixes channels.

    Returns:
        ``(n, c, *output)``, or with the channels of the last kernel that mixes them.

    Raises:
        ShapeError: not one kernel for each axis, or a kernel that does not fit the channels.
        ConfigError: an argument is unknown.

    >>> import torch
    >>> x = torch.arange(9.0).reshape(1, 1, 3, 3)
    >>> sobel = torch.tensor([1.0, 2.0, 1.0]), torch.tensor([1.0, 0.0, -1.0])
    >>> separable(x, sobel), correlate(x, torch.outer(*sobel)[None, None])
    (tensor([[[[-8.]]]]), tensor([[[[-8.]]]]))
    """
    axes = count_axes(x, dims, "separable")
    if len(kernels) != axes or any(kernel.dim() not in (1, 2, 3) for kernel in kernels):
        raise ShapeError(
            f"separable: kernels are {[tuple(kernel.shape) for kernel in kernels]}, but x has {axes} spatial axes. "
            "Give one kernel for each, (k,), (c, k) or (o, c, k)."
        )
    strides = check_sizes("separable", "stride", stride, axes)
    dilations = check_sizes("separable", "dilation", dilation, axes)
    sizes = [kernel.shape[-1] for kernel in kernels]
    pairs = padding_pairs(padding, sizes, strides, dilations, x.shape[x.dim() - axes :])
    y, batched = as_batch(x, axes)
    for axis, kernel in enumerate(kernels):
        channels = y.shape[1]
        mixes = kernel.dim() == 3
        if kernel.dim() == 1:
            kernel = kernel.expand(channels, -1)
        if kernel.shape[-2] != channels:
            raise ShapeError(
                f"separable: kernel {axis} is {tuple(kernel.shape)}, but its input has {channels} channels. Give "
                f"(k,), ({channels}, k) or (o, {channels}, k)."
            )
        w = kernel if mixes else kernel[:, None]
        along = [1] * axes
        along[axis] = kernel.shape[-1]
        y = correlate(
            y,
            w.reshape(*w.shape[:2], *along),
            stride=[s if a == axis else 1 for a, s in enumerate(strides)],
            padding=[pair if a == axis else (0, 0) for a, pair in enumerate(pairs)],
            dilation=dilations,
            groups=1 if mixes else channels,
            padding_mode=padding_mode,
        )
    return y if batched else y[0]


def depthwise_separable(
    x: Tensor,
    depthwise: Tensor,
    pointwise: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sizes = 1,
    padding: Padding = "none",
    dilation: Sizes = 1,
    padding_mode: str = "zeros",
    dims: int | None = None,
) -> Tensor:
    """Return x correlated channel by channel, then mixed by a 1×1 convolution (Howard et al. 2017, §3.1).

    C m ∏k + C m O weights, where one convolution has C O ∏k: 42 against 135 for 3×3×3 → 5.

    Args:
        x: ``(n, c, *spatial)``, or ``(c, *spatial)``.
        depthwise: ``(c · m, 1, *kernel)``, m kernels for each channel.
        pointwise: ``(o, c · m)``, or that with an axis of 1 for each spatial axis.
        stride: stride of the depthwise part, an int or one for each axis (default 1).
        dims: number of spatial axes (default: all axes of ``depthwise`` but two).

    Returns:
        ``(n, o, *output)``, without the axes that x lacks.

    >>> import torch
    >>> depthwise_separable(torch.ones(1, 3, 5, 5), torch.ones(3, 1, 3, 3), torch.ones(5, 3)).shape
    torch.Size([1, 5, 3, 3])
    """
    axes = count_axes(x, depthwise.dim() - 2 if dims is None else dims, "depthwise_separable")
    channels = x.shape[-axes - 1]
    if depthwise.shape[1] != 1 or depthwise.shape[0] % channels or pointwise.numel() % depthwise.shape[0]:
        raise ShapeError(
            f"depthwise_separable: depthwise is {tuple(depthwise.shape)} and pointwise {tuple(pointwise.shape)}, but x "
            f"has {channels} channels. Give ({channels} m, 1, *kernel) and (o, {channels} m)."
        )
    y = correlate(
        x,
        depthwise,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=channels,
        padding_mode=padding_mode,
        dims=axes,
    )
    return correlate(y, pointwise.reshape(-1, depthwise.shape[0], *(1,) * axes), bias, dims=axes)
