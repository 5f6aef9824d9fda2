"""Functions that move elements: transposing, slicing, gathering, padding, repeating."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "accumulate",
    "concat",
    "depth_to_space",
    "expand",
    "fill",
    "gather",
    "pad",
    "permute_channels",
    "reshape",
    "scatter",
    "sizes",
    "slice_axes",
    "space_to_depth",
    "take_along",
    "tile",
    "top",
    "transpose",
]

Array = NDArray[Any]
Ints = tuple[int, ...]


def reshape(x: Array, shape: Ints) -> Array:
    """Return the same elements, in channels-first order, in another shape."""
    return np.ascontiguousarray(x).reshape(shape)


def transpose(x: Array, axes: Ints) -> Array:
    """Return x with its axes in another order."""
    return np.array(x.transpose(axes))


def slice_axes(x: Array, starts: Ints, stops: tuple[int | None, ...], steps: Ints) -> Array:
    """Return the ranges start:stop:step, one for each axis."""
    return np.array(x[tuple(slice(*bounds) for bounds in zip(starts, stops, steps, strict=True))])


def gather(x: Array, index: Array, axis: int) -> Array:
    """Return the elements of ``axis`` that ``index`` names; its axes take the place of that axis."""
    return np.take(x, np.asarray(index, np.int64), axis=axis)


def take_along(x: Array, index: Array, axis: int) -> Array:
    """Return, at each position of ``index``, the element that it names along ``axis``."""
    return np.take_along_axis(x, np.where(index < 0, index + x.shape[axis], index), axis)


def scatter(x: Array, index: Array, update: Array, axis: int) -> Array:
    """Return x with the elements that ``index`` names along ``axis`` replaced."""
    result = np.array(x)
    np.put_along_axis(result, np.where(index < 0, index + x.shape[axis], index), update, axis)
    return result


def concat(*parts: Array, axis: int) -> Array:
    """Return the parts joined along an axis."""
    return np.concatenate(parts, axis)


def expand(x: Array, shape: Ints) -> Array:
    """Return x repeated along its axes of size 1, and along new ones in front, to the stretched shape."""
    return np.array(np.broadcast_to(x, np.broadcast_shapes(x.shape, shape)))


def tile(x: Array, repeats: Ints) -> Array:
    """Return x repeated as a whole, so many times along each axis."""
    return np.tile(x, repeats)


def fill(value: Array, shape: Ints) -> Array:
    """Return an array of one value."""
    return np.full(shape, value.reshape(-1)[0], value.dtype)


def sizes(values: Ints, shape: Ints) -> Array:
    """Return sizes of axes as an array."""
    return np.array(values, np.int64).reshape(shape)


def pad(x: Array, value: Array | None, padding: tuple[tuple[int, int], ...], mode: str) -> Array:
    """Return x longer (or, where negative, shorter) at both ends of every axis.

    ``mode`` is ``"constant"`` (with ``value``, or 0), ``"replicate"``, ``"reflect"`` or ``"circular"``.
    """
    inner = tuple(slice(max(-low, 0), size - max(-high, 0)) for (low, high), size in zip(padding, x.shape, strict=True))
    pairs = [(max(low, 0), max(high, 0)) for low, high in padding]
    if mode == "constant":
        filler = x.dtype.type(0) if value is None else value.reshape(-1)[0]
        return np.pad(x[inner], pairs, constant_values=filler)
    kind = {"replicate": "edge", "reflect": "reflect", "circular": "wrap"}[mode]
    return np.array(np.pad(x, pairs, mode=kind)[tuple(  # type: ignore[call-overload]
        slice(max(-low, 0), size + max(low, 0) + max(high, 0) - max(-high, 0))
        for (low, high), size in zip(padding, x.shape, strict=True)
    )])  # fmt: skip


def depth_to_space(x: Array, block: int, channels_outside: bool) -> Array:
    """Return (n, c, …) with blocks of channels spread over space: (n, c / block^dims, … · block).

    The channels of one block are the fastest-running part of the axis if ``channels_outside`` (PyTorch's
    ``pixel_shuffle``), else the slowest.
    """
    n, c, *space = x.shape
    dims = len(space)
    inner = c // block**dims
    if channels_outside:
        parts = x.reshape(n, inner, *(block,) * dims, *space)
        order = [0, 1, *(axis for i in range(dims) for axis in (2 + dims + i, 2 + i))]
    else:
        parts = x.reshape(n, *(block,) * dims, inner, *space)
        order = [0, 1 + dims, *(axis for i in range(dims) for axis in (2 + dims + i, 1 + i))]
    return parts.transpose(order).reshape(n, inner, *(size * block for size in space))


def space_to_depth(x: Array, block: int, channels_outside: bool) -> Array:
    """Return the inverse of ``depth_to_space``."""
    n, c, *space = x.shape
    dims = len(space)
    parts = x.reshape(n, c, *(part for size in space for part in (size // block, block)))
    outer, inner = [2 + 2 * i for i in range(dims)], [3 + 2 * i for i in range(dims)]
    order = [0, 1, *inner, *outer] if channels_outside else [0, *inner, 1, *outer]
    return parts.transpose(order).reshape(n, c * block**dims, *(size // block for size in space))


def permute_channels(x: Array, groups: int) -> Array:
    """Return x with channel (g, i) at (i, g): the shuffle of ShuffleNet (Zhang et al. 2018)."""
    n, c, *space = x.shape
    return np.swapaxes(x.reshape(n, groups, c // groups, *space), 1, 2).reshape(x.shape)


def accumulate(x: Array, axis: int, exclusive: bool, reverse: bool) -> Array:
    """Return running sums along an axis."""
    flipped = np.flip(x, axis) if reverse else x
    total = np.cumsum(flipped, axis=axis, dtype=x.dtype)
    total = total - flipped if exclusive else total
    return np.flip(total, axis) if reverse else total


def top(x: Array, count: int, axis: int, largest: bool) -> tuple[Array, Array]:
    """Return the ``count`` largest (or smallest) elements of an axis in order, and where they are."""
    order = np.argsort(-x if largest and x.dtype.kind == "f" else x, axis=axis, kind="stable")
    if largest and x.dtype.kind != "f":  # the negative of a whole number may not exist
        order = np.flip(x.shape[axis] - 1 - np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)
    index = np.take(order, range(count), axis=axis)
    return np.take_along_axis(x, index, axis), index
