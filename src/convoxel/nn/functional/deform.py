"""Deformable convolution: every kernel element reads from where an offset sends it."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from convoxel.arithmetic.argument import whole
from convoxel.arithmetic.window import conv_size
from convoxel.errors import ShapeError
from convoxel.nn.functional.arguments import as_batch, check_factor, check_sizes, count_axes
from convoxel.nn.functional.correlation import Padding, Sizes
from convoxel.nn.torch_layers import padding_pairs


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
        mask: ``(n, g · ∏k, *output)``.

    Returns:
        ``(n, o, *output)``, without n where x has none.

    >>> x, w = torch.arange(6.0).reshape(1, 1, 6), torch.ones(1, 1, 1)
    >>> deform_conv(x, torch.full((1, 1, 6), 0.5), w).tolist()  # half of the last comes from outside
    [[[0.5, 1.5, 2.5, 3.5, 4.5, 2.5]]]
    """
    axes, groups = count_axes(x, w.dim() - 2, "deform_conv"), whole("deform_conv: groups", groups, 1)
    (batch, batched), (offsets, _) = as_batch(x, axes), as_batch(offset, axes)
    n, channels, *size = batch.shape
    kernel = tuple(w.shape[2:])
    strides = check_sizes("deform_conv", "stride", stride, axes)
    dilations = check_sizes("deform_conv", "dilation", dilation, axes)
    pairs = padding_pairs(padding, kernel, strides, dilations, size)
    output = [conv_size(*window) for window in zip(size, kernel, strides, pairs, dilations, strict=True)]
    taps = math.prod(kernel)
    every = max(taps * axes, 1)
    if (
        offsets.dim() != axes + 2
        or not offsets.shape[1]
        or offsets.shape[1] % every
        or offsets.shape[2:] != torch.Size(output)
    ):
        raise ShapeError(
            f"deform_conv: offset is {tuple(offset.shape)}; expected "
            f"(n, g · {taps * axes}, {', '.join(map(str, output))}): {axes} for each of "
            f"{taps} kernel elements and each of g groups of channels."
        )
    parts = offsets.shape[1] // every
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
    """Return x at fractional positions, ``(n, g, taps, *output)`` along each axis: ``(n, g, taps, pixels, c / g)``.

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
    indices, weights = [], []
    for corner in itertools.product((0, 1), repeat=len(where)):
        index, weight = owner, mask
        for axis, side in enumerate(corner):
            place = lows[axis] + side
            share = shares[axis] if side else 1 - shares[axis]
            share = share * ((place >= 0) & (place < size[axis]))
            weight = share if weight is None else weight * share
            index = index * size[axis] + place.clamp(0, size[axis] - 1)
        assert weight is not None
        indices.append(index.reshape(-1))
        weights.append(weight.reshape(-1))
    sampled: Tensor = _Mixture.apply(rows, torch.stack(indices, 1), torch.stack(weights, 1))  # type: ignore[no-untyped-call]
    return sampled.reshape(n, parts, where[0].shape[2], -1, rows.shape[1])


class _Mixture(torch.autograd.Function):
    """Σ_j weight(i, j) · rows(index(i, j)): embedding bags, which PyTorch sums without keeping their parts.

    The gradient to rows is the transposed sum: bags again, of all places that read a row, found by one sort; PyTorch's
    own way back sorts and then adds row by row, which takes three times as long. A second derivative is asked for
    rarely, and the sum is written out for it.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(rows, index, weight)
        return F.embedding_bag(index, rows, per_sample_weights=weight, mode="sum")

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        rows, index, weight = ctx.saved_tensors
        grad = grads[0].contiguous()
        if torch.is_grad_enabled():
            spread = torch.cat([grad * share[:, None] for share in weight.unbind(1)])
            back = torch.zeros_like(rows).index_add(0, index.T.reshape(-1), spread)
            shares = [(rows.index_select(0, one) * grad).sum(1) for one in index.unbind(1)]
            return back, None, torch.stack(shares, 1)
        wanted = ctx.needs_input_grad
        return (
            _transposed(grad, index, weight, len(rows)) if wanted[0] else None,
            None,
            _shares(grad, index, rows) if wanted[2] else None,
        )


def _transposed(grad: Tensor, index: Tensor, weight: Tensor, count: int) -> Tensor:
    flat = index.reshape(-1)
    flat = flat.int() if count < 1 << 31 else flat  # half as long to sort
    order = flat.argsort(stable=True)
    starts = torch.bincount(flat, minlength=count).cumsum(0).roll(1)
    starts[0] = 0
    read, share = order // index.shape[1], weight.reshape(-1)[order]
    return F.embedding_bag(read, grad, starts, per_sample_weights=share, mode="sum")


def _shares(grad: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """Return ⟨rows(index(i, j)), grad(i)⟩ by the bags' gradient operator, which gathers and multiplies at once."""
    count, width = index.shape
    bags = torch.arange(count, device=index.device)
    found: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        grad, rows, index.reshape(-1), bags * width, bags.repeat_interleave(width), 0
    )
    return found.reshape(count, width)
