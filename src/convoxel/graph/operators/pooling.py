"""Pooling: maxima and means over windows, and the way back."""

from __future__ import annotations

import math

import numpy as np

from convoxel.arithmetic import Adaptive, Layer, Window
from convoxel.errors import ShapeError, UnsupportedError
from convoxel.graph.ir.graph import Node
from convoxel.graph.ir.size import Shape, Size
from convoxel.graph.operators import index_tables as taps
from convoxel.graph.operators.host import Array, Ints, Pairs, behind_channels, windows
from convoxel.graph.operators.operator import Shapes, row
from convoxel.graph.operators.reads import Along, Applied, Reads, pair
from convoxel.graph.operators.region import Request, Restricted, Span, part_of_tables, part_of_window, refuse_part
from convoxel.graph.operators.rewriter import Rewriter
from convoxel.graph.operators.shape import given, length, operand, pool_length, positive
from convoxel.graph.operators.step import Step
from convoxel.graph.operators.view import spatial
from convoxel.graph.operators.weighted import weighted
from convoxel.native.index_table import TableRule

_WINDOW = "kernel, stride, padding, dilation, ceil=False"


# ---- shapes


def _pool_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """(n, c, …) → (n, c, …), and the places of maxima in the same shape."""
    x = operand(shapes, 0)
    spatial = tuple(
        length(pool_length, *axis, node["ceil"])
        for axis in zip(x[2:], node["kernel"], node["stride"], node["padding"], node["dilation"], strict=True)
    )
    return [positive((*x[:2], *spatial), f"{x}")] * 2


def _adaptive_pool_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """(n, c, …) → (n, c, *size), and the places of maxima in the same shape; a size of 0 keeps the axis."""
    x = operand(shapes, 0)
    spatial = tuple(new or old for new, old in zip(node["size"], x[2:], strict=True))
    return [(*x[:2], *spatial)] * 2


def _fractional_pool_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """The maxima and where they are: (n, c, *size)."""
    x = operand(shapes, 0)
    if any(old < new + k - 1 for old, new, k in zip(x[2:], node["size"], node["kernel"], strict=True)):
        raise ShapeError(f"x {x} is too small for {node['size']} windows of {node['kernel']}")
    return [(*x[:2], *node["size"])] * 2


# ---- native steps


def _lower_max_pool(step: Step) -> None:
    """Maximum over windows; the result's size says how far they go."""
    node = step.node
    kernel, stride, dilation = (spatial(node[key], 1) for key in ("kernel", "stride", "dilation"))
    low = spatial([before for before, _ in node["padding"]], 0)
    add = step.plan.max_pool if node.output.dtype == "float32" else step.plan.max_pool_levels
    add(step.x, step.out, kernel, stride, dilation, low, name=node.name)


def _lower_adaptive_max_pool(step: Step) -> None:
    """Maximum over all positions."""
    step.plan.reduce("max", step.x, step.out, name=step.node.name)


def _average_tables(node: Node) -> list[TableRule]:
    """Mean over windows; the divisor is a product over axes, so each axis has its own table."""
    divisors = [*(1 if node["divisor"] else 0 for _ in node["kernel"][1:]), node["divisor"]]
    windows = zip(node["kernel"], node["stride"], node["padding"], node["dilation"], divisors, strict=True)
    return [taps.average(k, s, low, high, node["count_padding"], by, d) for k, s, (low, high), d, by in windows]


def _adaptive_tables(node: Node) -> list[TableRule]:
    """Mean over windows of nearly equal length; the engine takes that of whole axes at once."""
    return [taps.adaptive_average()] * len(node["size"])


# ---- on arrays


def _max_pool(
    x: Array, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints, ceil: bool, order: str
) -> tuple[Array, Array]:
    """Return the largest element of each window, and where it is.

    Places count in the channel's own space (``order="channel"``), or in the whole tensor, with the last axis running
    fastest (``"row"``) or the first spatial one (``"column"``).
    """
    lowest = np.iinfo(x.dtype).min if x.dtype.kind in "iu" else -np.inf
    seen = windows(x, kernel, stride, dilation, padding, lowest, ceil)
    flat = seen.reshape(*seen.shape[: x.ndim], -1)
    best = np.argmax(flat, axis=-1)[..., None]
    space = x.shape[2:]
    numbers = np.arange(math.prod(space)).reshape(space, order="F" if order == "column" else "C")
    if order == "channel":
        places = np.broadcast_to(numbers, x.shape)
    else:
        first = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *(1,) * len(space)) * numbers.size
        places = first + numbers
    where = windows(np.ascontiguousarray(places), kernel, stride, dilation, padding, -1, ceil)
    where = where.reshape(*where.shape[: x.ndim], -1)
    return np.take_along_axis(flat, best, -1)[..., 0], np.take_along_axis(where, best, -1)[..., 0]


def _adaptive_max_pool(x: Array, size: Ints) -> tuple[Array, Array]:
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
        seen = x[behind_channels(*window)].reshape(*x.shape[:2], -1)
        best = np.argmax(seen, axis=-1)
        values[behind_channels(*place)] = np.take_along_axis(seen, best[..., None], -1)[..., 0]
        places[behind_channels(*place)] = numbers[window].reshape(-1)[best]
    return values, places


def _fractional_max_pool(x: Array, samples: Array, kernel: Ints, size: Ints, width_first: bool) -> tuple[Array, Array]:
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


def _max_unpool(x: Array, index: Array, shape: Ints, order: str) -> Array:
    """Return zeros of ``shape`` with each element of x put where ``index`` says (see ``max_pool``)."""
    if order == "channel":
        result = np.zeros((math.prod(x.shape[:2]), math.prod(shape[2:])), x.dtype)
        np.put_along_axis(result, index.reshape(len(result), -1), x.reshape(len(result), -1), 1)
        return result.reshape(shape)
    flat = np.zeros(math.prod(shape), x.dtype)
    flat[index.reshape(-1)] = x.reshape(-1)
    return flat.reshape(shape)


def _lp_pool(x: Array, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints, ceil: bool, p: int) -> Array:
    """Return (Σ |x|^p)^(1/p) over each window."""
    seen = windows(np.abs(x) ** p, kernel, stride, dilation, padding, 0, ceil)
    return np.sum(seen, axis=tuple(range(x.ndim, seen.ndim))) ** (1.0 / p)


# ---- from arrays to native steps --------------------------------------------------------------------------


def _is_global(site: Rewriter) -> bool:
    return all(new == 1 for new in site.node["size"])


def _equal_windows(site: Rewriter) -> bool:
    """Windows of equal length are those of a plain pooling."""
    if _is_global(site):
        return False
    lengths = []
    for old, new in zip(site.x.shape[2:], site.node["size"], strict=True):
        if new and (isinstance(old, Size) or old % new):
            return False
        lengths.append(old // new if new else 1)
    ones, none = (1,) * len(lengths), ((0, 0),) * len(lengths)
    return site.last("max_pool", site.x.name, kernel=tuple(lengths), stride=tuple(lengths), padding=none, dilation=ones)


# ---- what is read


def _windowed(applied: Applied) -> Reads:
    """A window of every image axis."""
    node = applied.node
    columns = zip(node["kernel"], node["stride"], node["padding"], node["dilation"], strict=True)
    return Along({axis: Window(k, s, pair(p), d, node["ceil"]) for axis, (k, s, p, d) in enumerate(columns, start=2)})


def _adaptive(applied: Applied) -> Reads:
    """Equal parts of an image axis, or all of it."""
    layers: dict[int, Layer] = {axis: Adaptive(o) for axis, o in enumerate(applied.node["size"], start=2) if o}
    return Along(layers, frozenset(axis for axis in layers if applied.outputs[0][axis] == 1))


# ---- parts of the result


def _part_of_max_pool(request: Request) -> Restricted:
    """Maxima of the same windows; places of maxima count in the whole tensor, so there are none."""
    node, box = request.applied.node, request.box
    columns = zip(node["kernel"], node["stride"], node["padding"], node["dilation"], strict=True)
    axes = [
        part_of_window(span, size, out, k, s, low, d)
        for span, size, out, (k, s, (low, _), d) in zip(
            box[2:], request.applied.x[2:], request.out[2:], columns, strict=True
        )
    ]
    read = (*box[:2], *(axis.read for axis in axes))
    return Restricted(box, (read,), {"padding": tuple(axis.padding for axis in axes), "ceil": False})


def _part_of_adaptive_pool(request: Request) -> Restricted:
    """Rows of tables, or all positions where one is left."""
    applied = request.applied
    sizes, results = applied.x[2:], request.out[2:]
    if any(new not in (1, old) for old, new in zip(sizes, results, strict=True)):
        return part_of_tables(request, _adaptive_tables(applied.node))
    spans = [
        span if new == old else Span(0, old, applied.node.name)
        for span, old, new in zip(request.box[2:], sizes, results, strict=True)
    ]
    size = tuple(0 if new == old else 1 for old, new in zip(sizes, results, strict=True))
    return Restricted(request.box, ((*request.box[:2], *spans),), {"size": size})


def _part_of_global_max(request: Request) -> Restricted:
    """All positions of the axes of which one position is left."""
    if any(new not in (1, old) for old, new in zip(request.applied.x[2:], request.out[2:], strict=True)):
        raise UnsupportedError("takes maxima over windows that depend on the size of the image")
    return _part_of_adaptive_pool(request)


ROWS = (
    row(
        f"max_pool(x; {_WINDOW}, order='channel')",
        _pool_shape,
        _max_pool,
        _lower_max_pool,
        reads=_windowed,
        restrict=_part_of_max_pool,
        keeps_indices=True,
    ),
    weighted(
        f"average_pool(x; {_WINDOW}, count_padding=True, divisor=0)", _pool_shape, _average_tables, reads=_windowed
    ),
    weighted(
        "adaptive_average_pool(x; size)",
        _adaptive_pool_shape,
        _adaptive_tables,
        reads=_adaptive,
        restrict=_part_of_adaptive_pool,
    ),
    row(
        "adaptive_max_pool(x; size)",
        _adaptive_pool_shape,
        _adaptive_max_pool,
        _lower_adaptive_max_pool,
        fits=_is_global,
        to_native=_equal_windows,
        reads=_adaptive,
        restrict=_part_of_global_max,
        keeps_indices=True,
    ),
    row(
        "fractional_max_pool(x, samples; kernel, size, width_first)",
        _fractional_pool_shape,
        _fractional_max_pool,
        keeps_indices=True,
    ),
    row(
        f"lp_pool(x; {_WINDOW}, p=2)",
        _pool_shape,
        _lp_pool,
        reads=_windowed,
        restrict=refuse_part("runs in NumPy, whose order of sums depends on the size of the tensor"),
    ),
    row("max_unpool(x, index; shape, order='channel')", given, _max_unpool),
)
