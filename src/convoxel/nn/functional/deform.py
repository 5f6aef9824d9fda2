"""Deformable convolution: every kernel element reads from where an offset sends it."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from convoxel.arithmetic.window import conv_size, resolve_padding
from convoxel.errors import ShapeError
from convoxel.nn.functional.batch import as_batch, check_factor, check_sizes, count_axes
from convoxel.nn.functional.convolve import Padding, Sizes

__all__ = ["deform_conv"]


def deform_conv(
    x: Tensor,
    offset: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    stride: Sizes = 1,
    padding: Padding = "none",
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """Return y(o) = Σ_m w(m) · x(s o + d m − p + Δ(o, m)) · mask(o, m), x between its elements taken linearly.

    Dai et al. 2017 (arXiv 1703.06211), and with ``mask`` Zhu et al. 2019 (arXiv 1811.11168), in 1, 2 and 3
    dimensions. Outside of x lie zeros. In 2-D the arguments are laid out as those of ``torchvision.ops.deform_conv2d``.

    Args:
        x: ``(n, c, *spatial)`` or ``(c, *spatial)``.
        offset: ``(n, g · ∏k · dims, *output)`` in elements of x: for each of g groups of channels and each kernel
            element one number for each axis, in the order of the axes.
        w: ``(o, c / groups, *kernel)``.
        bias: ``(o,)``.
        mask: ``(n, g · ∏k, *output)``.
        stride: an int or one for each axis.
        padding: as of :func:`correlate`.
        dilation: an int or one for each axis.
        groups: of channels, for w.

    Returns:
        ``(n, o, *output)``, without n where x has none.

    Raises:
        ShapeError: shapes do not fit. ConfigError: an argument is unknown.

    >>> x, w = torch.arange(6.0).reshape(1, 1, 6), torch.ones(1, 1, 1)
    >>> deform_conv(x, torch.full((1, 1, 6), 0.5), w).tolist()  # half of the last comes from outside
    [[[0.5, 1.5, 2.5, 3.5, 4.5, 2.5]]]
    """
    axes = count_axes(x, w.dim() - 2, "deform_conv")
    (batch, batched), (offsets, _) = as_batch(x, axes), as_batch(offset, axes)
    n, channels, *size = batch.shape
    kernel = tuple(w.shape[2:])
    strides = check_sizes("deform_conv", "stride", stride, axes)
    dilations = check_sizes("deform_conv", "dilation", dilation, axes)
    pairs = resolve_padding(padding, kernel, strides, dilations, size)
    output = [conv_size(*window) for window in zip(size, kernel, strides, pairs, dilations, strict=True)]
    taps = math.prod(kernel)
    if offsets.dim() != axes + 2 or offsets.shape[1] % (taps * axes) or offsets.shape[2:] != torch.Size(output):
        raise ShapeError(
            f"deform_conv: offset is {tuple(offset.shape)}; expected "
            f"(n, g · {taps * axes}, {', '.join(map(str, output))}): {axes} for each of "
            f"{taps} kernel elements and each of g groups of channels."
        )
    parts = offsets.shape[1] // (taps * axes)
    check_factor("deform_conv", channels, parts, "the number of groups of offsets")
    if channels != w.shape[1] * groups or w.shape[0] % groups:
        raise ShapeError(
            f"deform_conv: x has {channels} channels but w expects {w.shape[1] * groups}.\n  x {tuple(x.shape)}, "
            f"w {tuple(w.shape)}, groups={groups}\n  Give x {w.shape[1] * groups} channels, or other weights or groups."
        )
    # Positions (n, g, taps, *output) along each axis: where the convolution reads, and how far from there.
    moved = offsets.reshape(n, parts, taps, axes, *output)
    where = []
    for axis in range(axes):
        tap = torch.arange(kernel[axis], dtype=x.dtype, device=x.device) * dilations[axis] - pairs[axis][0]
        grid = tap.reshape([-1 if a == axis else 1 for a in range(axes)]).expand(kernel).reshape(-1, *(1,) * axes)
        start = torch.arange(output[axis], dtype=x.dtype, device=x.device) * strides[axis]
        where.append(moved[:, :, :, axis] + grid + start.reshape(-1, *(1,) * (axes - 1 - axis)))
    weights = None
    if mask is not None:
        masks = as_batch(mask, axes)[0]
        if masks.shape != (n, parts * taps, *output):
            raise ShapeError(
                f"deform_conv: mask is {tuple(mask.shape)}; expected {(n, parts * taps, *output)}, one for each pair "
                "of kernel element and output."
            )
        weights = masks.reshape(n, parts, taps, *output)
    columns = _sample(batch, where, weights)  # (n, g, taps, pixels, c / g)
    columns = columns.permute(0, 3, 1, 4, 2).reshape(n, math.prod(output), groups, -1)
    mixed = torch.einsum("npgk,gok->ngop", columns, w.reshape(groups, w.shape[0] // groups, -1))
    y = mixed.reshape(n, w.shape[0], *output)
    y = y if bias is None else y + bias.reshape(-1, *(1,) * axes)
    return y if batched else y[0]


def _sample(x: Tensor, where: list[Tensor], mask: Tensor | None) -> Tensor:
    """x at fractional positions, ``(n, g, taps, *output)`` along each axis: ``(n, g, taps, pixels, c / g)``.

    Channels come last, so that one position is one run of memory: gathering from planes, as the published
    algorithm does, fetches a cache line for every number.
    """
    n, parts = where[0].shape[:2]
    size = x.shape[2:]
    rows = x.reshape(n * parts, -1, math.prod(size)).transpose(1, 2).reshape(n * parts * math.prod(size), -1)
    lows, shares = [], []
    for axis, position in enumerate(where):
        held = position.clamp(-1, size[axis])  # beyond a whole element outside all is 0, and integers stay small
        low = held.detach().floor()
        lows.append(low.nan_to_num(0.0).long())
        shares.append(held - low)
    owner = torch.arange(n * parts, device=x.device).reshape(n, parts, *(1,) * (where[0].dim() - 2))
    total: Tensor | None = None
    for corner in itertools.product((0, 1), repeat=len(where)):
        index, weight = owner, mask
        for axis, side in enumerate(corner):
            place = lows[axis] + side
            share = shares[axis] if side else 1 - shares[axis]
            share = share * ((place >= 0) & (place < size[axis]))
            weight = share if weight is None else weight * share
            index = index * size[axis] + place.clamp(0, size[axis] - 1)
        assert weight is not None
        part = rows.index_select(0, index.reshape(-1)) * weight.reshape(-1, 1)
        total = part if total is None else total + part
    assert total is not None
    return total.reshape(n, parts, where[0].shape[2], -1, rows.shape[1])
