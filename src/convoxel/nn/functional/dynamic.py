"""Dynamic convolution: a kernel for each sample, or for each position of its output."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from convoxel.arithmetic.argument import whole
from convoxel.arithmetic.window import conv_size
from convoxel.errors import ShapeError
from convoxel.nn.functional.arguments import as_batch, check_sizes, count_axes
from convoxel.nn.functional.border import check_mode, pad
from convoxel.nn.functional.correlation import Padding, Sizes, correlate
from convoxel.nn.torch_layers import padding_pairs


def dynamic_conv(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sizes = 1,
    padding: Padding = "none",
    dilation: Sizes = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    dims: int | None = None,
) -> Tensor:
    """Return each sample of x correlated with its own kernel, y(i) = Σ_m I(s i + d m − p) K_i(m).

    Jia et al. 2016, "Dynamic filter networks" (arXiv 1605.09673), where another network makes the kernels: one K for a
    sample (their dynamic convolution), or one for every position (their dynamic local filtering).

    Args:
        w: ``(n, o, c / groups, *kernel)``, or ``(n, o, c / groups, *kernel, *output)`` with a kernel for each output;
            without n where x has none.
        bias: ``(o,)``, or ``(n, o)`` for each sample.

    Returns:
        ``(n, o, *output)``, without n where x has none.

    >>> x = torch.ones(2, 1, 3)
    >>> dynamic_conv(x, torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1))[:, 0].tolist()  # a factor for each sample
    [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]
    >>> dynamic_conv(x, torch.arange(6.0).reshape(2, 1, 1, 1, 3))[:, 0].tolist()  # and for each position
    [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    """
    name = "dynamic_conv"
    axes, groups = count_axes(x, dims, name), whole(f"{name}: groups", groups, 1)
    check_mode(padding_mode)
    images, batched = as_batch(x, axes)
    kernels = w if batched else w[None]
    n, channels = images.shape[:2]
    everywhere = kernels.dim() == 3 + axes
    known = everywhere or kernels.dim() == 3 + 2 * axes
    if not known or kernels.shape[0] != n or kernels.shape[2] * groups != channels or kernels.shape[1] % groups:
        raise ShapeError(
            f"{name}: w is {tuple(w.shape)}, but x is {tuple(x.shape)} with groups={groups}; expected "
            f"({n}, o, {channels}/groups, *kernel), or that with {axes} axes of outputs more; without n where x has "
            "none. Give a kernel for each sample."
        )
    size, kernel = images.shape[2:], tuple(kernels.shape[3 : 3 + axes])
    strides, dilations = (check_sizes(name, "stride", stride, axes), check_sizes(name, "dilation", dilation, axes))
    pairs = padding_pairs(padding, kernel, strides, dilations, size)
    output = [conv_size(*window) for window in zip(size, kernel, strides, pairs, dilations, strict=True)]
    if everywhere:
        # Samples are groups of channels of one image, so that each meets its own kernels.
        one = images.reshape(1, n * channels, *size)
        y = correlate(
            one,
            kernels.flatten(0, 1),
            stride=strides,
            padding=pairs,
            dilation=dilations,
            groups=n * groups,
            padding_mode=padding_mode,
        ).reshape(n, kernels.shape[1], *output)
    else:
        y = _local(name, pad(images, pairs, padding_mode), kernels, strides, dilations, groups, output)
    if bias is not None:
        y = y + bias.reshape(-1, kernels.shape[1], *(1,) * axes)
    return y if batched else y[0]


def _local(
    name: str, x: Tensor, w: Tensor, stride: Sequence[int], dilation: Sequence[int], groups: int, output: Sequence[int]
) -> Tensor:
    """Return the sum over the kernel's elements of the input that each output sees there times its weight."""
    axes = len(output)
    if tuple(w.shape[3 + axes :]) != tuple(output):
        raise ShapeError(
            f"{name}: w has kernels for outputs of {tuple(w.shape[3 + axes :])}, but x gives {tuple(output)}. Give one "
            "for each of these."
        )
    n, o, inner = w.shape[:3]
    weights = w.reshape(n, groups, o // groups, inner, *w.shape[3:])
    total: Tensor | None = None
    for tap in itertools.product(*map(range, w.shape[3 : 3 + axes])):
        seen = x
        for axis, (t, d, s, count) in enumerate(zip(tap, dilation, stride, output, strict=True), 2):
            seen = seen[(slice(None),) * axis + (slice(t * d, t * d + (count - 1) * s + 1, s),)]
        own = weights[(slice(None),) * 4 + tap]
        part = torch.einsum("ngc...,ngoc...->ngo...", seen.reshape(n, groups, inner, *output), own)
        total = part if total is None else total + part
    assert total is not None
    return total.reshape(n, o, *output)
