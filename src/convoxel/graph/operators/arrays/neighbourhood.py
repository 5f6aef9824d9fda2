"""Windows over space, of any type: convolutions of whole numbers, maxima with their places, deformable windows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoxel.graph.operators.arrays.sampling import bilinear

__all__ = [
    "adaptive_max_pool",
    "columns_to_image",
    "convolution",
    "deformable_convolution",
    "fractional_max_pool",
    "lp_pool",
    "max_pool",
    "max_unpool",
    "transposed_convolution",
]

Array = NDArray[Any]
Ints = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]


def _behind_channels(*places: Any) -> tuple[Any, ...]:
    """Return an index of (n, c, …) that takes all images and channels, and ``places`` of the other axes."""
    return (slice(None), slice(None), *places)


def _windows(x: Array, kernel: Ints, stride: Ints, dilation: Ints, padding: Pairs, fill: Any, ceil: bool) -> Array:
    """Return (n, c, *out, *kernel): what each window sees, ``fill`` outside."""
    dims = len(kernel)
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    pairs, counts = [], []
    for size, span, s, (low, high) in zip(x.shape[2:], spans, stride, padding, strict=True):
        room = size + low + high - span
        count = (-(-room // s) if ceil else room // s) + 1
        if ceil and count > 1 and (count - 1) * s >= size + low:
            count -= 1  # a last window that would begin behind the input is dropped
        counts.append(count)
        pairs.append((low, max(high, (count - 1) * s + span - size - low)))
    inner = tuple(
        slice(max(-low, 0), size - max(-high, 0)) for (low, high), size in zip(pairs, x.shape[2:], strict=True)
    )
    wide = np.pad(
        x[_behind_channels(*inner)],
        [(0, 0), (0, 0), *((max(low, 0), max(high, 0)) for low, high in pairs)],
        constant_values=fill,
    )
    seen = np.lib.stride_tricks.sliding_window_view(wide, spans, axis=tuple(range(2, 2 + dims)))
    steps = [slice(0, (count - 1) * s + 1, s) for count, s in zip(counts, stride, strict=True)]
    return seen[_behind_channels(*steps, *(slice(None, None, d) for d in dilation))]


def convolution(
    x: Array, weight: Array, bias: Array | None, stride: Ints, padding: Pairs, dilation: Ints, groups: int
) -> Array:
    """Return the convolution of (n, c, …) with (k, c/groups, …), whole numbers summed as int32."""
    dims = x.ndim - 2
    if x.dtype.kind in "iu":
        x, weight = x.astype(np.int32), weight.astype(np.int32)
    elif x.dtype.itemsize < 4:
        x, weight = x.astype(np.float32), weight.astype(np.float32)
    windows = _windows(x, weight.shape[2:], stride, dilation, padding, 0, False)
    over = list(range(2 + dims, 2 + 2 * dims))
    parts = []
    for seen, rows in zip(np.split(windows, groups, axis=1), np.split(weight, groups), strict=True):
        product = np.tensordot(seen, rows, axes=([1, *over], list(range(1, 2 + dims))))
        parts.append(np.moveaxis(product, -1, 1))
    result = np.concatenate(parts, axis=1)
    return result if bias is None else result + bias.reshape(-1, *(1,) * dims)


def transposed_convolution(
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: Ints,
    padding: Pairs,
    output_padding: Ints,
    dilation: Ints,
    groups: int,
) -> Array:
    """Return the transposed convolution of (n, c, …) with (c, k/groups, …)."""
    dims, kernel = x.ndim - 2, weight.shape[2:]
    spans = [
        (size - 1) * s + (k - 1) * d + 1 + extra
        for size, s, k, d, extra in zip(x.shape[2:], stride, kernel, dilation, output_padding, strict=True)
    ]
    columns = weight.shape[1]
    canvas = np.zeros((x.shape[0], groups * columns, *(max(s, 1) for s in spans)), np.result_type(x, np.float32))
    for g, (part, rows) in enumerate(zip(np.split(x, groups, axis=1), np.split(weight, groups), strict=True)):
        target = canvas[:, g * columns : (g + 1) * columns]
        for offset in itertools.product(*map(range, kernel)):
            spread = np.moveaxis(np.tensordot(part, rows[_behind_channels(*offset)], axes=(1, 0)), -1, 1)
            place = tuple(
                slice(o * d, o * d + (size - 1) * s + 1, s)
                for o, d, s, size in zip(offset, dilation, stride, x.shape[2:], strict=True)
            )
            target[_behind_channels(*place)] += spread
    # Negative padding adds rows of zeros.
    result = np.pad(canvas, [(0, 0), (0, 0), *((max(-low, 0), max(-high, 0)) for low, high in padding)])
    crop = tuple(
        slice(max(low, 0), size - max(high, 0)) for (low, high), size in zip(padding, result.shape[2:], strict=True)
    )
    result = result[_behind_channels(*crop)]
    return result if bias is None else result + bias.reshape(-1, *(1,) * dims)


def max_pool(
    x: Array, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints, ceil: bool, order: str
) -> tuple[Array, Array]:
    """Return the largest element of each window, and where it is.

    Places count in the channel's own space (``order="channel"``), or in the whole tensor, with the last axis running
    fastest (``"row"``) or the first spatial one (``"column"``).
    """
    lowest = np.iinfo(x.dtype).min if x.dtype.kind in "iu" else -np.inf
    seen = _windows(x, kernel, stride, dilation, padding, lowest, ceil)
    flat = seen.reshape(*seen.shape[: x.ndim], -1)
    best = np.argmax(flat, axis=-1)[..., None]
    space = x.shape[2:]
    numbers = np.arange(math.prod(space)).reshape(space, order="F" if order == "column" else "C")
    if order == "channel":
        places = np.broadcast_to(numbers, x.shape)
    else:
        first = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *(1,) * len(space)) * numbers.size
        places = first + numbers
    where = _windows(np.ascontiguousarray(places), kernel, stride, dilation, padding, -1, ceil)
    where = where.reshape(*where.shape[: x.ndim], -1)
    return np.take_along_axis(flat, best, -1)[..., 0], np.take_along_axis(where, best, -1)[..., 0]


def adaptive_max_pool(x: Array, size: Ints) -> tuple[Array, Array]:
    """Return the largest element of each of ``size`` windows of nearly equal length, and its place in the channel.

    Window i of o begins at ⌊i · n / o⌋ and ends before ⌈(i + 1) · n / o⌉; a size of 0 keeps the axis. A window with NaN
    gives NaN.
    """
    space = x.shape[2:]
    out = tuple(new or old for new, old in zip(size, space, strict=True))
    numbers = np.arange(math.prod(space)).reshape(space)
    values, places = np.empty((*x.shape[:2], *out), x.dtype), np.empty((*x.shape[:2], *out), np.int64)
    for place in np.ndindex(*out):
        window = tuple(slice(i * n // o, -(-(i + 1) * n // o)) for i, n, o in zip(place, space, out, strict=True))
        seen = x[_behind_channels(*window)].reshape(*x.shape[:2], -1)
        best = np.argmax(seen, axis=-1)
        values[_behind_channels(*place)] = np.take_along_axis(seen, best[..., None], -1)[..., 0]
        places[_behind_channels(*place)] = numbers[window].reshape(-1)[best]
    return values, places


def fractional_max_pool(x: Array, samples: Array, kernel: Ints, size: Ints, width_first: bool) -> tuple[Array, Array]:
    """Return the largest element of each of ``size`` windows at steps of uneven length, and its place in the channel.

    Window i of an axis with n elements begins at ⌊(i + u) α⌋ − ⌊u α⌋, α = (n − k) / (out − 1), the last one at n − k; u
    is in ``samples`` (n, c, dims), that of the last axis first if ``width_first`` (Graham 2014, "Fractional
    max-pooling").
    """
    space = x.shape[2:]
    values, places = np.empty((*x.shape[:2], *size), x.dtype), np.empty((*x.shape[:2], *size), np.int64)
    numbers = np.arange(math.prod(space)).reshape(space)
    for image, channel in np.ndindex(*x.shape[:2]):
        shares = samples[image, channel][:: -1 if width_first else 1]
        axes = [_uneven(float(u), n, o, k) for u, n, o, k in zip(shares, space, size, kernel, strict=True)]
        index = np.ix_(*axes)
        seen = np.lib.stride_tricks.sliding_window_view(x[image, channel], kernel)[index].reshape(*size, -1)
        where = np.lib.stride_tricks.sliding_window_view(numbers, kernel)[index].reshape(*size, -1)
        best = np.argmax(seen, axis=-1)[..., None]
        values[image, channel] = np.take_along_axis(seen, best, -1)[..., 0]
        places[image, channel] = np.take_along_axis(where, best, -1)[..., 0]
    return values, places


def _uneven(share: float, size: int, out: int, kernel: int) -> Array:
    """Return where each window of an axis begins; float32, as in PyTorch: another rounding would move windows."""
    if out == 1:
        return np.array([size - kernel])
    alpha, u = np.float32(size - kernel) / np.float32(out - 1), np.float32(share)
    begin = ((np.arange(out, dtype=np.float32) + u) * alpha).astype(np.int64) - int(u * alpha)
    return np.append(begin[:-1], size - kernel)


def max_unpool(x: Array, index: Array, shape: Ints, order: str) -> Array:
    """Return zeros of ``shape`` with each element of x put where ``index`` says (see ``max_pool``)."""
    if order == "channel":
        result = np.zeros((math.prod(x.shape[:2]), math.prod(shape[2:])), x.dtype)
        np.put_along_axis(result, index.reshape(len(result), -1), x.reshape(len(result), -1), 1)
        return result.reshape(shape)
    flat = np.zeros(math.prod(shape), x.dtype)
    flat[index.reshape(-1)] = x.reshape(-1)
    return flat.reshape(shape)


def lp_pool(x: Array, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints, ceil: bool, p: int) -> Array:
    """Return (Σ |x|^p)^(1/p) over each window."""
    seen = _windows(np.abs(x) ** p, kernel, stride, dilation, padding, 0, ceil)
    return np.sum(seen, axis=tuple(range(x.ndim, seen.ndim))) ** (1.0 / p)


def columns_to_image(x: Array, shape: Ints, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints) -> Array:
    """Return (n, c, *shape): the windows in the columns of (n, c · kernel, windows), added where they overlap."""
    n, channels = x.shape[0], x.shape[1] // math.prod(kernel)
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    padded = [size + low + high for size, (low, high) in zip(shape, padding, strict=True)]
    counts = [(size - span) // s + 1 for size, span, s in zip(padded, spans, stride, strict=True)]
    parts = x.reshape(n, channels, *kernel, *counts)
    canvas = np.zeros((n, channels, *padded), x.dtype)
    for offset in itertools.product(*map(range, kernel)):
        place = [
            slice(o * d, o * d + (count - 1) * s + 1, s)
            for o, d, count, s in zip(offset, dilation, counts, stride, strict=True)
        ]
        canvas[_behind_channels(*place)] += parts[_behind_channels(*offset)]
    crop = [slice(low, low + size) for (low, _), size in zip(padding, shape, strict=True)]
    return canvas[_behind_channels(*crop)]


def deformable_convolution(
    x: Array,
    weight: Array,
    offset: Array,
    bias: Array | None,
    mask: Array | None,
    stride: Ints,
    padding: Pairs,
    dilation: Ints,
    groups: int,
    offset_groups: int,
) -> Array:
    """Return the convolution whose taps are moved by ``offset`` and weighted by ``mask`` (Dai et al. 2017; Zhu et
    al. 2019).

    x (n, c, h, w), weight (k, c/groups, kh, kw), offset (n, offset_groups · kh · kw · 2, oh, ow) in pairs (y, x),
    mask (n, offset_groups · kh · kw, oh, ow).
    """
    n, c = x.shape[:2]
    kernel, out = weight.shape[2:], offset.shape[2:]
    taps = math.prod(kernel)
    moved = offset.reshape(n, offset_groups, taps, 2, *out)
    weights = None if mask is None else mask.reshape(n, offset_groups, taps, *out)
    rows, columns = ((np.arange(size) * s - low) for size, s, (low, _) in zip(out, stride, padding, strict=True))
    seen = np.empty((n, c, taps, *out), np.float64)
    per = c // offset_groups
    for image, group, tap in itertools.product(range(n), range(offset_groups), range(taps)):
        ky, kx = divmod(tap, kernel[1])
        y = moved[image, group, tap, 0] + (rows + ky * dilation[0])[:, None]
        xs = moved[image, group, tap, 1] + (columns + kx * dilation[1])[None, :]
        part = slice(group * per, (group + 1) * per)
        values = bilinear(x[image, part], y, xs)
        seen[image, part, tap] = values if weights is None else values * weights[image, group, tap]
    return _grouped_product(seen, weight, bias, groups)


def _grouped_product(seen: Array, weight: Array, bias: Array | None, groups: int) -> Array:
    flat = weight.reshape(*weight.shape[:2], -1)
    parts: Sequence[Array] = [
        np.einsum("nctyx,kct->nkyx", part, rows)
        for part, rows in zip(np.split(seen, groups, axis=1), np.split(flat, groups), strict=True)
    ]
    result = np.concatenate(parts, axis=1)
    return result if bias is None else result + bias.reshape(-1, 1, 1)
