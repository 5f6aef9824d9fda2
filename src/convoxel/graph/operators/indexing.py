"""Elements that indices name, and windows beside one another: numbers move, or are added where they meet."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from convoxel.graph.ir.graph import Node
from convoxel.graph.ir.size import Shape, larger, smaller
from convoxel.graph.operators.host import Array, Ints, Pairs, windows
from convoxel.graph.operators.operator import Shapes, row
from convoxel.graph.operators.reads import Aligned, Applied, Reads, over, unchanged
from convoxel.graph.operators.rewriter import Rewriter
from convoxel.graph.operators.shape import conv_length, length, operand, positive, same, stretch
from convoxel.graph.operators.step import Step, copy
from convoxel.graph.operators.view import full_axis, narrow_view


def _indexed_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """The indices, stretched to one shape, take the place of the axes: in front, unless these are neighbours."""
    x, axes = operand(shapes, 0), node["axes"]
    places = stretch([operand(shapes, i) for i in range(1, len(shapes))])
    kept = [size for axis, size in enumerate(x) if axis not in axes]
    neighbours = list(axes) == list(range(axes[0], axes[0] + len(axes)))
    start = axes[0] if neighbours else 0
    return [(*kept[:start], *places, *kept[start:])]


def _image_to_columns_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """(n, c, …) → (n, c · kernel, windows)."""
    x = operand(shapes, 0)
    columns = zip(x[2:], node["kernel"], node["stride"], node["padding"], node["dilation"], strict=True)
    counts = positive(tuple(length(conv_length, *axis) for axis in columns), f"{x}")
    return [(x[0], x[1] * math.prod(node["kernel"]), math.prod(counts))]


def _windows_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """The axis holds windows, whose positions are a new last axis."""
    x, axis, size = operand(shapes, 0), node["axis"], node["size"]
    count = (x[axis] - size) // node["step"] + 1
    return [(*positive((*x[:axis], count, *x[axis + 1 :]), f"{x}"), size)]


def _diagonal_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """Two axes go; their common part is a new last axis."""
    x, first, second, offset = operand(shapes, 0), node["first"], node["second"], node["offset"]
    common: Any = larger(smaller(x[first] + min(offset, 0), x[second] - max(offset, 0)), 0)
    return [(*(size for axis, size in enumerate(x) if axis not in (first, second)), common)]


# ---- on arrays


def _index(x: Array, *indices: Array, axes: Ints) -> Array:
    """Return the elements at places that one index for each of the ``axes`` gives together."""
    place: list[Any] = [slice(None)] * x.ndim
    for axis, index in zip(axes, indices, strict=True):
        place[axis] = index
    return x[tuple(place)]


def _write(x: Array, update: Array, *indices: Array, axes: Ints, add: bool) -> Array:
    """Return x with the elements at such places replaced, or with ``update`` added to them."""
    place: list[Any] = [slice(None)] * x.ndim
    for axis, index in zip(axes, indices, strict=True):
        place[axis] = index
    result = np.array(x)
    if add:
        np.add.at(result, tuple(place), update)
    else:
        result[tuple(place)] = update
    return result


def _write_slice(x: Array, update: Array, starts: Ints, stops: tuple[int | None, ...], steps: Ints) -> Array:
    """Return x with the ranges start:stop:step, one for each axis, replaced."""
    result = np.array(x)
    result[tuple(slice(*bounds) for bounds in zip(starts, stops, steps, strict=True))] = update
    return result


SCATTERED: Mapping[str, np.ufunc] = {"add": np.add, "amax": np.maximum, "amin": np.minimum, "prod": np.multiply}
"""The functions that combine a scattered number with the one in its place."""


def _scatter_reduce(x: Array, index: Array, update: Array, axis: int, function: str) -> Array:
    """Return x with each element of ``update`` combined with the element that ``index`` names along ``axis``."""
    place: list[Any] = list(np.ogrid[tuple(slice(size) for size in index.shape)])
    place[axis] = index
    result = np.array(x)
    SCATTERED[function].at(result, tuple(place), update[tuple(slice(size) for size in index.shape)])
    return result


def _image_to_columns(x: Array, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints) -> Array:
    """Return (n, c · kernel, windows): what each window sees, beside each other; 0 outside."""
    seen = windows(x, kernel, stride, dilation, padding, 0, False)
    dims = len(kernel)
    order = (0, 1, *range(2 + dims, 2 + 2 * dims), *range(2, 2 + dims))
    return seen.transpose(order).reshape(x.shape[0], x.shape[1] * math.prod(kernel), -1)


def _windows(x: Array, axis: int, size: int, step: int) -> Array:
    """Return the windows of an axis, their positions along a new last axis."""
    seen = np.lib.stride_tricks.sliding_window_view(x, size, axis)
    return np.array(seen[(slice(None),) * axis + (slice(None, None, step),)])


def _triangle(x: Array, offset: int, upper: bool) -> Array:
    """Return the triangle above (or below) a diagonal of the last two axes, and 0 elsewhere."""
    return np.triu(x, offset) if upper else np.tril(x, offset)


def _median(x: Array, axis: int, keep: bool) -> tuple[Array, Array]:
    """Return the middle element of an axis, the lower one of two, and its place; NaN comes first."""
    order = np.argsort(x, axis=axis, kind="stable")
    place = np.take(order, [(x.shape[axis] - 1) // 2], axis)
    if x.dtype.kind == "f":
        missing = np.isnan(x)
        place = np.where(missing.any(axis, keepdims=True), np.argmax(missing, axis, keepdims=True), place)
    value = np.take_along_axis(x, place, axis)
    return (value, place) if keep else (np.squeeze(value, axis), np.squeeze(place, axis))


def _median_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """One axis goes, or stays with size 1; values and places."""
    x, one = operand(shapes, 0), node["axis"]
    return [tuple(1 if i == one else s for i, s in enumerate(x) if node["keep"] or i != one)] * 2


# ---- native steps


def _lower_roll(step: Step) -> None:
    """Both parts of every axis change places, each a copy."""
    rank = len(step.shapes[0] or ())
    moves = []
    for axis, shift in zip(step.node["axis"], step.node["shift"], strict=True):
        whole = full_axis(axis, rank)
        size = step.x.shape[whole]
        cut = shift % size
        parts = ((0, cut, size - cut), (size - cut, 0, cut))
        moves.append([(whole, *part) for part in parts if part[2]])
    for places in itertools.product(*moves):
        source, target = step.x, step.out
        for whole, begin, end, count in places:
            source, target = narrow_view(source, whole, begin, count), narrow_view(target, whole, end, count)
        copy(step.plan, source, target, step.node.name)


def _rolls_once(site: Rewriter) -> bool:
    return len(set(site.node["axis"])) == len(site.node["axis"]) and site.is_beside_native()


# ---- what is read


def _rolled(applied: Applied) -> Reads:
    """Positions from the other end."""
    axes = range(len(applied.x))
    return Aligned([axes], axes, applied.node["axis"][0], "a roll")


def _along(applied: Applied) -> Reads:
    """All positions of the node's axis."""
    return over(applied, [applied.node["axis"]], keep=applied.node["keep"])


ROWS = (
    # What the first three read, indices say.
    row("index(x, indices*; axes)", _indexed_shape, _index),
    row("write(x, update, indices*; axes, add=False)", same, _write),
    row("scatter_reduce(x, index, update; axis, function)", same, _scatter_reduce),
    row("write_slice(x, update; starts, stops, steps)", same, _write_slice),
    row("image_to_columns(x; kernel, stride, padding, dilation)", _image_to_columns_shape, _image_to_columns),
    row("windows(x; axis, size, step)", _windows_shape, _windows),
    row("roll(x; shift, axis)", same, np.roll, _lower_roll, fits=_rolls_once, reads=_rolled),
    row("triangle(x; offset, upper)", same, _triangle, reads=unchanged),
    row(
        "diagonal(x; offset, first, second)",
        _diagonal_shape,
        lambda x, offset, first, second: np.array(np.diagonal(x, offset, first, second)),
    ),
    row("median(x; axis, keep)", _median_shape, _median, reads=_along),
)
