"""The slow truth: every operator in N dimensions, float64, by plain loops over kernel offsets.

Written to be read and believed, not to be fast; the engine and the layers are tested against it. It shares no code
with them, deliberately not even the formulas for sizes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Pads = Sequence[tuple[int, int]]


def pad(x: ArrayLike, pads: Pads, value: float = 0.0) -> Array:
    """x ``(n, c, *spatial)`` with (low, high) elements of value added per spatial axis; negative ones crop."""
    x = np.asarray(x, np.float64)
    for axis, (low, high) in enumerate(pads, start=2):
        crop = slice(max(0, -low), x.shape[axis] - max(0, -high))
        x = x[(slice(None),) * axis + (crop,)]
    widths = [(0, 0), (0, 0)] + [(max(0, low), max(0, high)) for low, high in pads]
    return np.pad(x, widths, constant_values=value)


def _at(index: Sequence[int | slice]) -> tuple[int | slice, ...]:
    """The index on the spatial axes, everything on the first two."""
    return (slice(None), slice(None), *index)


def _windows(
    x: Array, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[list[tuple[int, ...]], list[Array]]:
    """For each kernel offset, what all windows of x see there: arrays ``(n, c, *out)``."""
    out = []
    for i, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True):
        positions = range(0, i - d * (k - 1), s)  # where a window may begin
        out.append(len(positions))
    offsets = list(itertools.product(*(range(k) for k in kernel)))
    seen = []
    for offset in offsets:
        index = tuple(
            slice(t * d, t * d + (o - 1) * s + 1, s) if o > 0 else slice(0, 0)
            for t, d, o, s in zip(offset, dilation, out, stride, strict=True)
        )
        seen.append(x[_at(index)])
    return offsets, seen


def conv(
    x: ArrayLike,
    w: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Sequence[int] = (1,),
    pads: Pads = ((0, 0),),
    dilation: Sequence[int] = (1,),
    groups: int = 1,
) -> Array:
    """Σ over channels of the group and kernel offsets of x times w; shapes as in ``convoxel.conv``.

    >>> conv([[[1, 2, 3, 4]]], [[[1, 1]]])[0, 0]
    array([3., 5., 7.])
    """
    w = np.asarray(w, np.float64)
    offsets, seen = _windows(pad(x, pads), w.shape[2:], stride, dilation)
    n, _, *out = seen[0].shape
    y = np.zeros((n, w.shape[0], *out))
    for offset, values in zip(offsets, seen, strict=True):
        taps = w[_at(offset)].reshape(groups, -1, w.shape[1])  # (g, out, in)
        y += (taps @ values.reshape(n, groups, w.shape[1], -1)).reshape(y.shape)  # (n, g, in, pixels)
    return y + _per_channel(bias, y)


def conv_transpose(
    x: ArrayLike,
    w: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Sequence[int] = (1,),
    pads: Pads = ((0, 0),),
    output_padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    groups: int = 1,
) -> Array:
    """Every input adds its value times the kernel to the outputs that a convolution would have read it for.

    >>> conv_transpose([[[1, 2]]], [[[1, 1, 1]]], stride=(2,))[0, 0]
    array([1., 1., 3., 2., 2.])
    """
    x, w = np.asarray(x, np.float64), np.asarray(w, np.float64)
    n, c, *size = x.shape
    full = [
        (i - 1) * s + d * (k - 1) + 1 + e
        for i, s, d, k, e in zip(size, stride, dilation, w.shape[2:], output_padding, strict=True)
    ]
    y = np.zeros((n, w.shape[1] * groups, *full))
    rows = x.reshape(n, groups, c // groups, -1)  # (n, g, in, pixels)
    for offset in itertools.product(*(range(k) for k in w.shape[2:])):
        index = tuple(
            slice(t * d, t * d + (i - 1) * s + 1, s) for t, d, i, s in zip(offset, dilation, size, stride, strict=True)
        )
        taps = w[_at(offset)].reshape(groups, c // groups, -1)  # (g, in, out)
        y[_at(index)] += (taps.transpose(0, 2, 1) @ rows).reshape(n, -1, *size)
    y = pad(y, [(-low, -high) for low, high in pads])  # padding of the convolution crops its transpose
    return y + _per_channel(bias, y)


def max_pool(x: ArrayLike, kernel: Sequence[int], stride: Sequence[int], pads: Pads, dilation: Sequence[int]) -> Array:
    """Largest value of each window; padding never wins; NaN does.

    >>> max_pool([[[1, 5, 2, 3]]], (2,), (2,), ((0, 0),), (1,))[0, 0]
    array([5., 3.])
    """
    _, seen = _windows(pad(x, pads, -np.inf), kernel, stride, dilation)
    return np.asarray(np.stack(seen).max(axis=0))


def average_pool(
    x: ArrayLike, kernel: Sequence[int], stride: Sequence[int], pads: Pads, count_padding: bool = True
) -> Array:
    """Mean of each window; padding counts as zeros, or not at all.

    >>> average_pool([[[1, 5, 2, 4]]], (2,), (2,), ((0, 0),))[0, 0]
    array([3., 3.])
    """
    ones = (1,) * len(kernel)
    _, seen = _windows(pad(x, pads), kernel, stride, ones)
    total = np.stack(seen).sum(axis=0)
    if count_padding:
        return np.asarray(total / len(seen))
    _, inside = _windows(pad(np.ones_like(np.asarray(x, np.float64)), pads), kernel, stride, ones)
    return np.asarray(total / np.stack(inside).sum(axis=0))


def instance_norm(x: ArrayLike, weight: ArrayLike, bias: ArrayLike, eps: float) -> Array:
    """Each channel of each sample minus its mean over its standard deviation, times weight plus bias."""
    x = np.asarray(x, np.float64)
    axes = tuple(range(2, x.ndim))
    centred = x - x.mean(axis=axes, keepdims=True)
    y = centred / np.sqrt((centred**2).mean(axis=axes, keepdims=True) + eps)
    return np.asarray(y * _per_channel(weight, y) + _per_channel(bias, y))


def _per_channel(values: ArrayLike | None, y: Array) -> Array:
    if values is None:
        return np.zeros(1)
    return np.asarray(values, np.float64).reshape(1, -1, *(1,) * (y.ndim - 2))
