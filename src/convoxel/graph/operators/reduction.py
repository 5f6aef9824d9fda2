"""Sums, means and extremes along axes, running sums, and the largest elements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from convoxel.graph.ir.graph import Node
from convoxel.graph.ir.size import Shape
from convoxel.graph.operators.host import Array, Ints, wide
from convoxel.graph.operators.operator import Shapes, row
from convoxel.graph.operators.reads import Aligned, Applied, Reads, over
from convoxel.graph.operators.rewriter import Rewriter
from convoxel.graph.operators.shape import operand, same
from convoxel.graph.operators.step import Step


def _reduce_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """The axes go, or stay with size 1."""
    x, axes = operand(shapes, 0), node["axes"]
    if node["keep"]:
        return [tuple(1 if axis in axes else size for axis, size in enumerate(x))]
    return [tuple(size for axis, size in enumerate(x) if axis not in axes)]


def _arg_reduced_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """One axis goes, or stays with size 1."""
    x, one = operand(shapes, 0), node["axis"]
    return [tuple(1 if i == one else s for i, s in enumerate(x) if node["keep"] or i != one)]


def _top_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """Values and indices with ``count`` along one axis."""
    shape = tuple(node["count"] if i == node["axis"] else size for i, size in enumerate(operand(shapes, 0)))
    return [shape, shape]


def _lower_reduce(step: Step) -> None:
    """Mean, maximum or sum over the axes along which the result has size 1."""
    step.plan.reduce(step.node["function"], step.x, step.out, name=step.node.name)


# ---- on arrays


def _log_sum_exp(x: Array, axes: Ints, keep: bool) -> Array:
    x = x.astype(np.float64)
    top = np.max(x, axis=axes, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0)
    result = np.log(np.sum(np.exp(x - top), axis=axes, keepdims=True)) + top
    return result if keep else np.squeeze(result, axes)


def _extreme(function: Any, sign: int) -> Callable[[Array, Ints, bool], Array]:
    def reduced(x: Array, axes: Ints, keep: bool) -> Array:
        if x.dtype.kind in "iu":
            limits = np.iinfo(x.dtype)
            start: Any = limits.min if sign > 0 else limits.max
        elif x.dtype.kind == "b":
            start = sign < 0
        else:
            start = x.dtype.type(-np.inf if sign > 0 else np.inf)
        return function(x, axis=axes, keepdims=keep, initial=start)

    return reduced


REDUCTIONS: Mapping[str, Callable[[Array, Ints, bool], Array]] = {
    "all": lambda x, axes, keep: np.all(x, axis=axes, keepdims=keep),
    "any": lambda x, axes, keep: np.any(x, axis=axes, keepdims=keep),
    "l1": lambda x, axes, keep: np.sum(np.abs(wide(x)), axis=axes, keepdims=keep),
    "l2": lambda x, axes, keep: np.sqrt(np.sum(np.square(wide(x)), axis=axes, keepdims=keep)),
    "log_sum": lambda x, axes, keep: np.log(np.sum(wide(x), axis=axes, keepdims=keep)),
    "log_sum_exp": _log_sum_exp,
    "max": _extreme(np.max, 1),
    "mean": lambda x, axes, keep: np.mean(wide(x), axis=axes, keepdims=keep),
    "min": _extreme(np.min, -1),
    "product": lambda x, axes, keep: np.prod(wide(x), axis=axes, keepdims=keep),
    "sum": lambda x, axes, keep: np.sum(wide(x), axis=axes, keepdims=keep),
    "sum_square": lambda x, axes, keep: np.sum(np.square(wide(x)), axis=axes, keepdims=keep),
}
"""Name and function of (x, axes, whether the axes stay with size 1). The result has the operand's type."""


def _arg_extreme(x: Array, axis: int, keep: bool, last: bool, largest: bool) -> Array:
    """Return where the largest (or smallest) element of an axis is, the first of equals or the ``last``."""
    find = np.argmax if largest else np.argmin
    found = x.shape[axis] - 1 - find(np.flip(x, axis), axis=axis) if last else find(x, axis=axis)
    return np.expand_dims(found, axis) if keep else np.asarray(found)


_RUNNING: Mapping[str, np.ufunc] = {
    "log_add_exp": np.logaddexp,
    "max": np.maximum,
    "min": np.minimum,
    "product": np.multiply,
    "sum": np.add,
}


def _accumulate(x: Array, axis: int, exclusive: bool, reverse: bool, function: str) -> Array:
    """Return running sums, products, extremes along an axis; ``exclusive`` sums leave their own element out."""
    flipped = np.flip(x, axis) if reverse else x
    total = _RUNNING[function].accumulate(flipped, axis=axis, dtype=x.dtype)
    total = total - flipped if exclusive else total
    return np.flip(total, axis) if reverse else total


def _top(x: Array, count: int, axis: int, largest: bool) -> tuple[Array, Array]:
    """Return the ``count`` largest (or smallest) elements of an axis in order, and where they are; NaN is largest."""
    order = np.argsort(x, axis=axis, kind="stable")
    if largest:  # backwards, and so that the first of equals comes first
        order = np.flip(x.shape[axis] - 1 - np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)
    index = np.take(order, range(count), axis=axis)
    return np.take_along_axis(x, index, axis), index


def _reduce(x: Array, function: str, axes: Ints, keep: bool) -> Array:
    """Return a function of the elements along ``axes``, which go, or stay with size 1."""
    return REDUCTIONS[function](x, axes, keep)


def _stays(site: Rewriter) -> bool:
    return site.node["keep"] and site.node["function"] in ("mean", "max", "sum") and 0 not in site.node["axes"]


def _native_reduction(site: Rewriter) -> bool:
    """In parts: what comes before the sum or maximum, the reduction, what comes behind it."""
    function, axes, keep, source = (*(site.node[key] for key in ("function", "axes", "keep")), site.x.name)
    if _stays(site) or function not in ("mean", "max", "sum", "min", "sum_square") or 0 in axes or not axes:
        return False
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(site.x.shape))
    how = {"function": {"min": "max", "sum_square": "sum"}.get(function, function), "axes": axes, "keep": True}
    if function == "sum_square":
        source = site.between("multiply", source, source, shape=site.x.shape)
    if function == "min":  # −max(−x)
        turn = site.scaling(-1.0, 0.0)
        source = site.between("affine", source, *turn, shape=site.x.shape)
        largest = site.between("reduce", source, shape=kept, **how)
        if keep:
            return site.last("affine", largest, *turn)
        whole = site.between("affine", largest, *turn, shape=kept)
    elif keep:
        return site.last("reduce", source, **how)
    else:
        whole = site.between("reduce", source, shape=kept, **how)
    return site.on_arrays("reshape", whole, shape=site.shape)


# ---- what is read


def _reduced(applied: Applied) -> Reads:
    """All positions of the node's axes."""
    node = applied.node
    axes = [node["axis"]] if "axis" in node.attributes else node["axes"]
    return over(applied, axes, keep=node.attributes.get("keep", True))


def _top_reads(applied: Applied) -> Reads:
    """All positions of an axis, whose results stand in the order of their values."""
    axes = range(len(applied.x))
    return Aligned([axes], ["rank" if axis == applied.node["axis"] % len(axes) else axis for axis in axes])


ROWS = (
    row(
        "reduce(x; function, axes, keep)",
        _reduce_shape,
        _reduce,
        _lower_reduce,
        fits=_stays,
        to_native=_native_reduction,
        reads=_reduced,
    ),
    row("accumulate(x; axis, exclusive=False, reverse=False, function='sum')", same, _accumulate),
    row("arg_extreme(x; axis, keep, last=False, largest=True)", _arg_reduced_shape, _arg_extreme, reads=_reduced),
    row("top(x; count, axis, largest=True)", _top_shape, _top, reads=_top_reads),
)
