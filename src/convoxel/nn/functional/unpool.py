"""Un-pooling: every element goes back to a window, to where it came from or after a rule."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from convoxel.arithmetic.window import Pair, pool_size, resolve_padding, transposed_size
from convoxel.errors import ConfigError, ShapeError
from convoxel.nn.functional.batch import as_batch, check_sizes, count_axes
from convoxel.nn.functional.convolve import Padding, Sizes, conv_transpose

__all__ = ["UNPOOL_MODES", "unpool"]

UNPOOL_MODES = ("indices", "fixed", "nearest", "average")


def unpool(
    x: Tensor,
    kernel_size: Sizes,
    *,
    mode: str = "nearest",
    indices: Tensor | None = None,
    position: Sizes = 0,
    stride: Sizes | None = None,
    padding: Padding = 0,
    output_size: Sizes | None = None,
    dims: int | None = None,
) -> Tensor:
    """Return x spread over the windows of the pooling that it came from.

    - ``"indices"``: to the place of the largest value, zeros elsewhere (Zeiler & Fergus 2014)
    - ``"fixed"``: to ``position`` in the window, zeros elsewhere ("bed of nails")
    - ``"nearest"``: to every place of the window
    - ``"average"``: to every place, divided by their number: the transpose of :func:`average_pool`

    Args:
        x: ``(n, c, *spatial)``, or ``(c, *spatial)`` with ``dims``.
        kernel_size: of the pooling, an int or one for each axis.
        mode: which.
        indices: of :func:`max_pool`, the shape of x; for ``"indices"``.
        position: place in the window, an int or one for each axis, for ``"fixed"``.
        stride: of the pooling; ``kernel_size`` unless given, and nothing else for ``"nearest"``.
        padding: of the pooling.
        output_size: the wanted size; s (i − 1) + k − p_before − p_after unless given.
        dims: spatial axes; all but two of x unless given.

    Returns:
        ``(n, c, *output_size)``.

    Raises:
        ConfigError: the mode is unknown, its arguments are missing, or windows overlap for ``"nearest"``.
        ShapeError: ``indices`` or ``output_size`` do not fit.

    >>> unpool(torch.tensor([[[1.0, 2.0]]]), 2, mode="fixed", position=1).tolist()
    [[[0.0, 1.0, 0.0, 2.0]]]
    """
    if mode not in UNPOOL_MODES:
        raise ConfigError(f"unpool: mode is {mode!r}, but it can be {', '.join(map(repr, UNPOOL_MODES))}.")
    axes = count_axes(x, dims, "unpool")
    batch, batched = as_batch(x, axes)
    kernel = check_sizes("unpool", "kernel_size", kernel_size, axes)
    strides = kernel if stride is None else check_sizes("unpool", "stride", stride, axes)
    if mode == "nearest" and strides != kernel:
        raise ConfigError(
            f"unpool: stride {strides} is not the kernel {kernel}, so 'nearest' is not clear. Use 'average'."
        )
    wanted = None if output_size is None else check_sizes("unpool", "output_size", output_size, axes)
    pairs = resolve_padding(padding, kernel, strides, 1, wanted)
    sizes = _sizes(tuple(batch.shape[2:]), kernel, strides, pairs, wanted)
    if mode == "indices":
        y = _scatter(batch, None if indices is None else as_batch(indices, axes)[0], sizes)
    else:
        window = _window(mode, kernel, position, batch)
        single = batch.reshape(-1, 1, *batch.shape[2:])  # every channel goes the same way
        least = [
            transposed_size(i, k, s, p) for i, k, s, p in zip(batch.shape[2:], kernel, strides, pairs, strict=True)
        ]
        ends = [(before, after - (o - t)) for (before, after), o, t in zip(pairs, sizes, least, strict=True)]
        y = conv_transpose(single, window, stride=strides, padding=ends)
        y = y.reshape(*batch.shape[:2], *y.shape[2:])
    return y if batched else y[0]


def _window(mode: str, kernel: Sequence[int], position: Sizes, x: Tensor) -> Tensor:
    """What one element becomes: ``(1, 1, *kernel)``."""
    if mode != "fixed":
        return x.new_full((1, 1, *kernel), 1.0 if mode == "nearest" else 1.0 / math.prod(kernel))
    places = check_sizes("unpool", "position", position, len(kernel), least=0)
    if any(place >= k for place, k in zip(places, kernel, strict=True)):
        raise ConfigError(f"unpool: position {places} lies outside of the window {tuple(kernel)}. Count from 0.")
    window = x.new_zeros((1, 1, *kernel))
    place: tuple[int, ...] = (0, 0, *places)
    window[place] = 1.0
    return window


def _sizes(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    pairs: Sequence[Pair],
    wanted: Sequence[int] | None,
) -> list[int]:
    axes = list(zip(size, kernel, stride, pairs, strict=True))
    if wanted is None:
        return [transposed_size(i, k, s, p) for i, k, s, p in axes]
    for o, (i, k, s, p) in zip(wanted, axes, strict=True):
        # With `ceil` a pooling makes one more of the same size.
        if i not in (pool_size(o, k, s, p), pool_size(o, k, s, p, ceil=True)):
            raise ShapeError(
                f"unpool: output_size is {tuple(wanted)}, but the pooling makes {pool_size(o, k, s, p)} of {o} "
                f"elements (k={k}, s={s}, p={p}) and x has {i}. Give the size that was pooled."
            )
    return list(wanted)


def _scatter(x: Tensor, indices: Tensor | None, sizes: Sequence[int]) -> Tensor:
    if indices is None or indices.shape != x.shape:
        came = "None" if indices is None else f"of {tuple(indices.shape)}"
        raise ShapeError(
            f"unpool: indices are {came}, but x is {tuple(x.shape)}. Give those of max_pool(…, return_indices=True)."
        )
    total = math.prod(sizes)
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < total:
        raise ShapeError(
            f"unpool: indices go from {int(indices.min())} to {int(indices.max())}, but the output {tuple(sizes)} has "
            f"{total} places. Give output_size= of what was pooled."
        )
    flat = torch.zeros(*x.shape[:2], total, dtype=x.dtype, device=x.device)
    return flat.scatter(2, indices.flatten(2), x.flatten(2)).reshape(*x.shape[:2], *sizes)
