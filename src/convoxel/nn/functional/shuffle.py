"""Channels as pixels and back, along any number of axes."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from convoxel.errors import ShapeError
from convoxel.nn.functional.arguments import as_batch, check_factor, check_sizes, count_axes
from convoxel.nn.functional.correlation import Sizes


def pixel_shuffle(x: Tensor, factor: Sizes, *, dims: int | None = None) -> Tensor:
    """Return ``(n, c ∏r, *spatial)`` as ``(n, c, *(spatial · r))`` (Shi et al. 2016, arXiv 1609.05158).

    y(c, s r + q) = x(c · ∏r + q, s), with q counted over the axes in their order, the last one fastest.

    Args:
        x: ``(n, c ∏r, *spatial)``, or without n with ``dims``.
        factor: r, an int or one for each axis.

    Raises:
        ShapeError: ∏r does not divide the channels. ConfigError: a factor is below 1.

    >>> import torch
    >>> pixel_shuffle(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), 2).tolist()
    [[[1.0, 3.0, 2.0, 4.0]]]
    """
    axes = count_axes(x, dims, "pixel_shuffle")
    factors = check_sizes("pixel_shuffle", "factor", factor, axes)
    y, batched = as_batch(x, axes)
    check_factor("pixel_shuffle", y.shape[1], math.prod(factors), "the product of factors")
    if axes == 2 and factors[0] == factors[1]:  # PyTorch's own, which exports and our engine know by its name
        y = F.pixel_shuffle(y, factors[0])
    else:  # one axis after the other, so that no step has more than five axes
        for axis, r in reversed(list(enumerate(factors))):
            y = _shuffle_axis(y, axis, r) if r > 1 else y
    return y if batched else y[0]


def _shuffle_axis(x: Tensor, axis: int, factor: int) -> Tensor:
    n, channels, *sizes = x.shape
    kept, rows, columns = channels // factor, math.prod(sizes[:axis]), math.prod(sizes[axis + 1 :])
    # (n c, r, rows, size, columns) → (n c, rows, size, r, columns): the factor's channels step along the axis.
    parts = x.reshape(n * kept, factor, rows, sizes[axis], columns).permute(0, 2, 3, 1, 4)
    return parts.reshape(n, kept, *sizes[:axis], sizes[axis] * factor, *sizes[axis + 1 :])


def pixel_unshuffle(x: Tensor, factor: Sizes, *, dims: int | None = None) -> Tensor:
    """Return ``(n, c, *(spatial · r))`` as ``(n, c ∏r, *spatial)``: the inverse of :func:`pixel_shuffle`.

    Args:
        factor: r, an int or one for each axis.

    Raises:
        ShapeError: r does not divide the size of its axis. ConfigError: a factor is below 1.

    >>> import torch
    >>> pixel_unshuffle(torch.tensor([[[1.0, 3.0, 2.0, 4.0]]]), 2).tolist()
    [[[1.0, 2.0], [3.0, 4.0]]]
    """
    axes = count_axes(x, dims, "pixel_unshuffle")
    factors = check_sizes("pixel_unshuffle", "factor", factor, axes)
    x, batched = as_batch(x, axes)
    if any(i % r for i, r in zip(x.shape[2:], factors, strict=True)):
        raise ShapeError(f"pixel_unshuffle: x is {tuple(x.shape)}, which the factors {factors} do not divide. Pad x.")
    sizes = [i // r for i, r in zip(x.shape[2:], factors, strict=True)]
    apart = x.reshape(*x.shape[:2], *(part for pair in zip(sizes, factors, strict=True) for part in pair))
    order = [0, 1, *range(3, 3 + 2 * axes, 2), *range(2, 2 + 2 * axes, 2)]
    y = apart.permute(order).reshape(x.shape[0], x.shape[1] * math.prod(factors), *sizes)
    return y if batched else y[0]
