"""Un-pooling: every element returns to its window, to the place that it came from or to one given by a rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from convoxel.arithmetic.window import Pair, pool_size, transposed_size
from convoxel.errors import ConfigError, ShapeError, check_choice
from convoxel.nn.functional.arguments import as_batch, check_sizes, count_axes
from convoxel.nn.functional.correlation import Padding, Sizes, conv_transpose
from convoxel.nn.torch_layers import padding_pairs

_UNPOOL: tuple[Callable[..., Tensor], ...] = (F.max_unpool1d, F.max_unpool2d, F.max_unpool3d)

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
        kernel_size: kernel size of the pooling, an int or one for each axis.
        mode: one of the words above (default ``"nearest"``).
        indices: indices that :func:`max_pool` returned, of the shape of x; for ``"indices"``.
        position: place in the window, an int or one for each axis, for ``"fixed"``.
        stride: stride of the pooling (default: ``kernel_size``, the only choice for ``"nearest"``).
        padding: padding of the pooling (default 0).
        output_size: wanted size (default: s (i − 1) + k − p_before − p_after).

    Returns:
        ``(n, c, *output_size)``.

    Raises:
        ConfigError: the mode is unknown, its arguments are missing, or windows overlap for ``"nearest"``.
        ShapeError: ``indices`` or ``output_size`` do not fit.

    >>> unpool(torch.tensor([[[1.0, 2.0]]]), 2, mode="fixed", position=1).tolist()
    [[[0.0, 1.0, 0.0, 2.0]]]
    """
    check_choice("unpool: mode", mode, UNPOOL_MODES)
    axes = count_axes(x, dims, "unpool")
    batch, batched = as_batch(x, axes)
    kernel = check_sizes("unpool", "kernel_size", kernel_size, axes)
    strides = kernel if stride is None else check_sizes("unpool", "stride", stride, axes)
    if mode == "nearest" and strides != kernel:
        raise ConfigError(
            f"unpool: stride {strides} is not the kernel {kernel}, so 'nearest' is not clear. Use 'average'."
        )
    wanted = None if output_size is None else check_sizes("unpool", "output_size", output_size, axes)
    pairs = padding_pairs(padding, kernel, strides, 1, wanted)
    tiled = strides == kernel and wanted is None and not any(map(any, pairs))
    if mode == "indices":
        sizes = _sizes(tuple(batch.shape[2:]), kernel, strides, pairs, wanted)
        y = _scatter(batch, None if indices is None else as_batch(indices, axes)[0], sizes, kernel, strides)
    elif tiled and mode != "fixed":
        share = batch / math.prod(kernel) if mode == "average" else batch
        y = F.interpolate(share, scale_factor=[float(k) for k in kernel], mode="nearest")
    elif tiled:
        y = _nail(batch, kernel, _places(position, kernel))
    else:
        y = _spread(batch, _window(mode, kernel, position, batch), strides, pairs, wanted)
    return y if batched else y[0]


def _nail(x: Tensor, kernel: Sequence[int], places: Sequence[int]) -> Tensor:
    """Return each element between zeros, spread along one axis after the other."""
    y = x.flatten(0, 1)  # with one axis more than that, padding still is of five axes, which our engine knows
    for axis, (k, place) in enumerate(zip(kernel, places, strict=True), 1):
        apart = F.pad(y.unsqueeze(axis + 1), (0, 0) * (y.dim() - axis - 1) + (place, k - 1 - place))
        y = apart.flatten(axis, axis + 1)
    nailed: Tensor = y.unflatten(0, (-1, x.shape[1]))
    return nailed


def _spread(
    x: Tensor, window: Tensor, stride: Sequence[int], pairs: Sequence[Pair], wanted: Sequence[int] | None
) -> Tensor:
    """Return each element as a window; windows may overlap, reach beyond the borders or leave a rest at the end."""
    size, kernel = tuple(x.shape[2:]), tuple(window.shape[2:])
    sizes = _sizes(size, kernel, stride, pairs, wanted)
    single = x.reshape(-1, 1, *size)  # every channel goes the same way
    least = [transposed_size(i, k, s, p) for i, k, s, p in zip(size, kernel, stride, pairs, strict=True)]
    ends = [(before, after - (o - t)) for (before, after), o, t in zip(pairs, sizes, least, strict=True)]
    y = conv_transpose(single, window, stride=stride, padding=ends)
    return y.reshape(*x.shape[:2], *y.shape[2:])


def _window(mode: str, kernel: Sequence[int], position: Sizes, x: Tensor) -> Tensor:
    """Return the window that one element becomes: ``(1, 1, *kernel)``."""
    if mode != "fixed":
        return x.new_full((1, 1, *kernel), 1.0 if mode == "nearest" else 1.0 / math.prod(kernel))
    window = x.new_zeros((1, 1, *kernel))
    place: tuple[int, ...] = (0, 0, *_places(position, kernel))
    window[place] = 1.0
    return window


def _places(position: Sizes, kernel: Sequence[int]) -> tuple[int, ...]:
    places = check_sizes("unpool", "position", position, len(kernel), least=0)
    if any(place >= k for place, k in zip(places, kernel, strict=True)):
        raise ConfigError(f"unpool: position {places} lies outside of the window {tuple(kernel)}. Count from 0.")
    return places


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


def _scatter(
    x: Tensor, indices: Tensor | None, sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int]
) -> Tensor:
    if indices is None or indices.shape != x.shape:
        came = "None" if indices is None else f"of {tuple(indices.shape)}"
        raise ShapeError(
            f"unpool: indices are {came}, but x is {tuple(x.shape)}. Give those of max_pool(…, return_indices=True)."
        )
    # What PyTorch has is called by its name, which exports, descriptions and our engine know; it takes sizes less
    # than a stride away from those that fit exactly.
    rest = [o - (i - 1) * s - k for o, i, s, k in zip(sizes, x.shape[2:], stride, kernel, strict=True)]
    if all(abs(more) < s for more, s in zip(rest, stride, strict=True)):
        try:
            return _UNPOOL[x.dim() - 3](x, indices, list(kernel), list(stride), 0, list(sizes))
        except RuntimeError as fault:
            if "invalid max index" not in str(fault):
                raise
            raise _outside(indices, sizes) from None
    total = math.prod(sizes)
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < total:
        raise _outside(indices, sizes)
    flat = torch.zeros(*x.shape[:2], total, dtype=x.dtype, device=x.device)
    return flat.scatter(2, indices.flatten(2), x.flatten(2)).reshape(*x.shape[:2], *sizes)


def _outside(indices: Tensor, sizes: Sequence[int]) -> ShapeError:
    return ShapeError(
        f"unpool: indices go from {int(indices.min())} to {int(indices.max())}, but the output {tuple(sizes)} has "
        f"{math.prod(sizes)} places. Give output_size= of what was pooled."
    )
