"""Operators that move, repeat or drop numbers without computing any."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from convoxel.arithmetic import Pad, Resize
from convoxel.errors import ShapeError
from convoxel.graph.ir.graph import Node
from convoxel.graph.ir.size import Extents, Shape, Size, arithmetic, as_whole, differ, kind_of, larger, round_up
from convoxel.graph.operators import index_tables as taps
from convoxel.graph.operators.host import Array, Ints
from convoxel.graph.operators.operator import Shapes, row
from convoxel.graph.operators.reads import Aligned, Along, Applied, Blocks, Reads, crop, pointwise, regrouped, unchanged
from convoxel.graph.operators.region import Request, Restricted, Span, lengths, part_of_blocks, part_of_groups
from convoxel.graph.operators.rewriter import Rewriter
from convoxel.graph.operators.shape import given, operand, positive, range_length, same, stretch
from convoxel.graph.operators.step import Step, copy, refuse
from convoxel.graph.operators.view import alias_reshape, alias_slice, channels_as_positions, full_axis, narrow_view
from convoxel.graph.operators.weighted import lower_tables, restrict_tables
from convoxel.native import View
from convoxel.native.index_table import TableRule

# ---- shapes


def _concat_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """Joined along one axis; the others must agree."""
    first, axis = operand(shapes, 0), node["axis"]
    parts = [operand(shapes, i) for i in range(len(shapes))]
    for part in parts:
        if len(part) != len(first) or any(differ(a, b) for i, (a, b) in enumerate(zip(part, first)) if i != axis):  # noqa: B905
            raise ShapeError(f"cannot join {' and '.join(map(str, parts))} along axis {axis}: the other axes differ")
    return [tuple(sum(p[i] for p in parts) if i == axis else size for i, size in enumerate(first))]


def _not_empty(node: Node, shape: Shape, x: Shape) -> list[Shape]:
    """Return the shape of a result; raise if it is empty but was not recorded as empty."""
    recorded = node.outputs[0].shape if node.outputs else ()
    known = len(recorded) == len(shape) and 0 not in recorded
    return [positive(shape, f"{x}") if known else shape]


def _slice_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """A range of every axis, with a step; bounds are cut off as Python's slices are."""
    x = operand(shapes, 0)
    bounds = zip(x, node["starts"], node["stops"], node["steps"], strict=True)
    return _not_empty(node, tuple(range_length(*bound) for bound in bounds), x)


def _reshape_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """The same number of elements in another shape."""
    x, shape = operand(shapes, 0), tuple(node["shape"])
    if differ(math.prod(x), math.prod(shape)):
        raise ShapeError(f"cannot reshape {x} to {shape}")
    return [shape]


def _pad_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """Every axis longer by its padding."""
    x, mode = operand(shapes, 0), node["mode"]
    for size, (low, high) in zip(x, node["padding"], strict=True):
        if size + min(low, 0) + min(high, 0) < 0:
            raise ShapeError(f"padding of {low} and {high} takes more than the {size} of an axis")
    for size, (low, high) in zip(x, node["padding"], strict=True):
        bounded = node.native or node["once"]
        limit = {"reflect": size - 1, "circular": size}.get(mode) if bounded else None
        if limit is not None and max(low, high) > limit:
            raise ShapeError(f"{mode} padding of {max(low, high)} needs an axis longer than the {size} of x {x}")
    return _not_empty(node, tuple(size + low + high for size, (low, high) in zip(x, node["padding"], strict=True)), x)


def _range_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """As many numbers as there are from ``start`` on, ``step`` apart, before ``stop``."""
    return [(_count(node["start"], node["stop"], node["step"]),)]


def _count(start: Any, stop: Any, step: Any) -> Any:
    """Return the length of a range; the bounds may be open."""
    kind = next((kind for kind in ("float64", "float32") if kind in map(kind_of, (start, stop, step))), "")
    if kind:
        return larger(as_whole(round_up(arithmetic("/", arithmetic("-", stop, start, kind), step, kind))), 0)
    count = -(-(stop - start) // step)
    return count if isinstance(count, Size) else max(count, 0)  # an open one below 0 will not be what is recorded


def _expand_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """Repeated along axes of size 1."""
    return [stretch([operand(shapes, 0), tuple(node["shape"])])]


def _zeros_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """Other channels at the same positions."""
    x = operand(shapes, 0)
    return [(x[0], node["channels"], *x[2:])]


def _gather_channels_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """One channel for each number of the index."""
    x, (count,) = operand(shapes, 0), operand(shapes, 1)
    return [(x[0], count, *x[2:])]


def _transpose_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """Axis i of the result is axis axes[i] of the operand."""
    x = operand(shapes, 0)
    if sorted(node["axes"]) != list(range(len(x))):
        raise ShapeError(f"cannot order the axes of {x} as {node['axes']}")
    return [tuple(x[axis] for axis in node["axes"])]


def _gather_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """The index's axes take the place of one axis."""
    x, index, axis = operand(shapes, 0), operand(shapes, 1), node["axis"]
    return [(*x[:axis], *index, *x[axis + 1 :])]


def _gather_points_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """The rows of the index, and what each of them names."""
    x, index = operand(shapes, 0), operand(shapes, 1)
    return [(*index[:-1], *x[node["batch"] + index[-1] :])]


def _indexed_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """The result has the shape of the index."""
    return [operand(shapes, 1)]


def _tile_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """Every axis repeated."""
    return [tuple(size * count for size, count in zip(operand(shapes, 0), node["repeats"], strict=True))]


def _depth_to_space_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """(n, c, …) → (n, c / block^dims, … · block)."""
    n, c, *space = operand(shapes, 0)
    volume = node["block"] ** len(space)
    if c % volume:
        raise ShapeError(f"{c} channels cannot be spread over blocks of {volume}: expected a multiple")
    return [(n, c // volume, *(size * node["block"] for size in space))]


def _space_to_depth_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """(n, c, …) → (n, c · block^dims, … / block)."""
    n, c, *space = operand(shapes, 0)
    block = node["block"]
    for size in space:
        if not isinstance(size, Size) and size % block:
            raise ShapeError(f"an axis of {size} cannot be cut into blocks of {block}: expected a multiple")
    return [(n, c * block ** len(space), *(size // block for size in space))]


# ---- native steps


def _lower_shuffle(step: Step) -> None:
    """Channel (g, i) goes to (i, g)."""
    channels = np.arange(step.x.shape[4]).reshape(step.node["groups"], -1)
    step.plan.permute_channels(step.x, step.out, channels.T.reshape(-1).tolist(), name=step.node.name)


def _lower_gather_channels(step: Step) -> None:
    """The channels that an index names."""
    index = step.constants[1]
    assert index is not None
    step.plan.permute_channels(step.x, step.out, index.reshape(-1).tolist(), name=step.node.name)


def _lower_depth_to_space(step: Step) -> None:
    """Each position of a block is one strided copy, of a run of channels for each pixel."""
    for fine, coarse in _blocks(step, step.out, step.x):
        copy(step.plan, coarse, fine, step.node.name)


def _lower_space_to_depth(step: Step) -> None:
    """The inverse of ``depth_to_space``."""
    for fine, coarse in _blocks(step, step.x, step.out):
        copy(step.plan, fine, coarse, step.node.name)


def _blocks(step: Step, fine: View, coarse: View) -> Iterator[tuple[View, View]]:
    """Yield, for each position of a block, the pixels there and the channels that hold them."""
    if step.node["channels_outside"]:
        refuse(step)  # order_blocks leaves none
    dims, block = len(step.shapes[0] or ()) - 2, step.node["block"]
    blocks = (1,) * (3 - dims) + (block,) * dims
    channels = fine.shape[4]
    shape = (*coarse.shape[:4], channels)
    n, d, h, w = (stride * size for stride, size in zip(fine.strides, (1, *blocks), strict=True))
    for number, place in enumerate(np.ndindex(*blocks)):
        start = fine.offset + sum(p * s for p, s in zip(place, fine.strides[1:], strict=True))
        yield (
            fine._replace(offset=start, shape=shape, strides=(n, d, h, w)),
            coarse._replace(offset=coarse.offset + number * channels, shape=shape),
        )


def _pad_tables(node: Node) -> list[TableRule]:
    """Padding that was not folded into a convolution."""
    return [taps.pad(low, node["mode"]) for low, _ in node["padding"][2:]]


def _lower_swap(step: Step) -> None:
    """Channels of one position become positions of one channel, or the other way round."""
    copy(step.plan, channels_as_positions(step.x), channels_as_positions(step.out), step.node.name)


def _lower_expand(step: Step) -> None:
    """Repetition along axes of size 1, computed as max(x, x) with a stretched operand."""
    step.plan.combine("maximum", step.x, step.x, step.out, name=step.node.name)


def _lower_tile(step: Step) -> None:
    """Each repetition is a copy to its place in the result."""
    rank, repeats = len(step.node["repeats"]), step.node["repeats"]
    for place in np.ndindex(*repeats):
        target = step.out
        for axis, number in enumerate(place):
            whole = full_axis(axis, rank)
            length = step.x.shape[whole]
            target = narrow_view(target, whole, number * length, length)
        copy(step.plan, step.x, target, step.node.name)


def _lower_zeros(step: Step) -> None:
    """Zeros as sums of no taps, for as many channels at a time as the operand has."""
    channels, at_once = step.out.shape[4], step.x.shape[4]
    for start in range(0, channels, at_once):
        count = min(at_once, channels - start)
        source, target = narrow_view(step.x, 4, 0, count), narrow_view(step.out, 4, start, count)
        step.plan.resample(source, target, (taps.none(),) * 3, name=step.node.name)


# ---- on arrays


def _reshape(x: Array, shape: Ints) -> Array:
    """Return the same elements, in channels-first order, in another shape."""
    return np.ascontiguousarray(x).reshape(shape)


def _slice(x: Array, starts: Ints, stops: tuple[int | None, ...], steps: Ints) -> Array:
    """Return the ranges start:stop:step, one for each axis."""
    return np.array(x[tuple(slice(*bounds) for bounds in zip(starts, stops, steps, strict=True))])


def _gather(x: Array, index: Array, axis: int) -> Array:
    """Return the elements of ``axis`` that ``index`` names; its axes take the place of that axis."""
    return np.take(x, np.asarray(index, np.int64), axis=axis)


def _take_along(x: Array, index: Array, axis: int) -> Array:
    """Return, at each position of ``index``, the element that it names along ``axis``."""
    near = tuple(slice(None if other == axis else size) for other, size in enumerate(index.shape))
    return np.take_along_axis(x[near], np.where(index < 0, index + x.shape[axis], index), axis)


def _scatter(x: Array, index: Array, update: Array, axis: int) -> Array:
    """Return x with the elements that ``index`` names along ``axis`` replaced."""
    result = np.array(x)
    near = tuple(slice(None if other == axis else size) for other, size in enumerate(index.shape))
    places = np.where(index < 0, index + x.shape[axis], index)
    np.put_along_axis(result[near], places, update[tuple(map(slice, index.shape))], axis)
    return result


def _gather_points(x: Array, index: Array, batch: int) -> Array:
    """Return the parts of x that each last row of ``index`` names, along the axes behind ``batch`` leading ones."""
    lead = np.indices(x.shape[:batch]).reshape(batch, *x.shape[:batch], *(1,) * (index.ndim - 1 - batch))
    places: tuple[Array, ...] = (*lead, *np.moveaxis(index, -1, 0))
    return x[places]


def _scatter_points(x: Array, index: Array, update: Array, reduction: str) -> Array:
    """Return x with the parts that each last row of ``index`` names replaced, or combined with ``update``."""
    result, places = np.array(x), tuple(np.moveaxis(index, -1, 0))
    if reduction == "none":
        result[places] = update
    else:
        {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}[reduction].at(result, places, update)
    return result


def _expand(x: Array, shape: Ints) -> Array:
    """Return x repeated along its axes of size 1, and along new ones in front, to the stretched shape."""
    return np.array(np.broadcast_to(x, np.broadcast_shapes(x.shape, shape)))


def _pad(x: Array, value: Array | None, padding: tuple[tuple[int, int], ...], mode: str, once: bool) -> Array:
    """Return x longer (or, where negative, shorter) at both ends of every axis.

    ``mode`` is ``"constant"`` (with ``value``, or 0), ``"replicate"``, ``"reflect"`` or ``"circular"``. The last two go
    to and fro as often as they must, or ``once``, as PyTorch does, which refuses more.
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


def _depth_to_space(x: Array, block: int, channels_outside: bool) -> Array:
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


def _space_to_depth(x: Array, block: int, channels_outside: bool) -> Array:
    """Return the inverse of ``depth_to_space``."""
    n, c, *space = x.shape
    dims = len(space)
    parts = x.reshape(n, c, *(part for size in space for part in (size // block, block)))
    outer, inner = [2 + 2 * i for i in range(dims)], [3 + 2 * i for i in range(dims)]
    order = [0, 1, *inner, *outer] if channels_outside else [0, *inner, 1, *outer]
    return parts.transpose(order).reshape(n, c * block**dims, *(size // block for size in space))


def _shuffle(x: Array, groups: int) -> Array:
    """Return x with channel (g, i) at (i, g): the shuffle of ShuffleNet (Zhang et al. 2018)."""
    n, c, *space = x.shape
    return np.swapaxes(x.reshape(n, groups, c // groups, *space), 1, 2).reshape(x.shape)


# ---- from arrays to native steps --------------------------------------------------------------------------

_MOST_COPIES = 64  # repetitions of a tensor, each a step of its own


def _joins_native(site: Rewriter) -> bool:
    return len(site.node.inputs) > 1 and site.is_beside_native()


def _is_view(site: Rewriter) -> bool:
    """Return True if the engine can address the ranges where they lie: channels stay contiguous."""
    steps = site.node["steps"]
    return min(steps) > 0 and steps[1] == 1 and site.is_beside_native()


def _native_slice(site: Rewriter) -> bool:
    """A range of channels with a step names them one by one."""
    channels, starts, stops, steps = site.x.shape[1], *(list(site.node[key]) for key in ("starts", "stops", "steps"))
    bounds = (starts[1], stops[1], steps[1])
    known = not any(isinstance(bound, Size) for bound in bounds)
    if not isinstance(channels, int) or not known or steps[1] == 1:
        return False
    if min(steps[:1] + steps[2:]) < 1 or not site.is_beside_native():
        return False
    starts[1], stops[1], steps[1] = 0, None, 1
    index = site.add(np.arange(channels, dtype=np.int32)[slice(*bounds)], "index")
    rest = any(b != (0, None, 1) for b in zip(starts, stops, steps, strict=True))
    if not rest:
        return site.last("gather_channels", site.x.name, index)
    shape = (site.x.shape[0], site.shape[1], *site.x.shape[2:])
    picked = site.between("gather_channels", site.x.name, index, shape=shape)
    return site.last("slice", picked, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))


def _native_gather(site: Rewriter) -> bool:
    """A single position, which is a range, or channels in any order."""
    index, axis, size = site.constant(1), site.node["axis"], site.x.shape[site.node["axis"]]
    if index is None or index.ndim != 1 or index.size == 0 or not site.is_beside_native():
        return False
    if index.size == 1 and int(index[0]) >= 0:
        bounds: list[tuple[int, int | None, int]] = [(0, None, 1)] * len(site.shape)
        bounds[axis] = (int(index[0]), int(index[0]) + 1, 1)
        starts, stops, steps = zip(*bounds, strict=True)
        return site.last("slice", site.x.name, starts=starts, stops=stops, steps=steps)
    if axis != 1 or not isinstance(size, int):
        return False
    places = np.where(index < 0, index + size, index)
    if places.min() < 0 or places.max() >= size:
        return False
    return site.last("gather_channels", site.x.name, site.add(places.astype(np.int32), "index"))


def _pads_space(site: Rewriter) -> bool:
    padding, value, mode = site.node["padding"], site.constant(1), site.node["mode"]
    zero = not site.node.inputs[1] or (value is not None and not value.any())
    if len(padding) < 3 or padding[:2] != ((0, 0), (0, 0)) or not (zero or mode != "constant"):
        return False
    sizes = zip(site.x.shape, padding, strict=True)
    fits = mode != "reflect" or all(isinstance(size, Size) or max(pair) < size for size, pair in sizes)
    return fits and site.is_beside_native()


def _native_pad(site: Rewriter) -> bool:
    """More channels of one number beside those of x; positions are padded with zeros only."""
    padding, value = site.node["padding"], site.constant(1) if site.node.inputs[1] else np.zeros(1)
    open_or_cut = any(isinstance(side, Size) or side < 0 for side in padding[1])
    around = any(pair != (0, 0) for pair in padding[2:])
    if value is None or padding[0] != (0, 0) or padding[1] == (0, 0) or site.node["mode"] != "constant":
        return _pads_space(site) and site.last("pad", site.x.name, padding=padding, mode=site.node["mode"])
    if open_or_cut or (around and np.any(value)) or not site.is_made_natively():
        return False
    n, _, *space = site.x.shape
    parts = [site.x.name]
    for side, place in zip(padding[1], (0, 2), strict=True):
        if not side:
            continue
        made = (n, side, *space)
        name = site.between("zeros", site.x.name, shape=made, channels=side)
        if np.any(value):
            name = site.between("affine", name, *site.scaling(1.0, value.reshape(-1)), shape=made)
        parts.insert(place, name)
    if not around:
        return site.last("concat", *parts, axis=1)
    whole = site.between("concat", *parts, shape=(n, site.shape[1], *space), axis=1)
    return site.last("pad", whole, padding=((0, 0), (0, 0), *padding[2:]))


def _keeps_places(site: Rewriter) -> bool:
    """Return True if axes of size 1 come and go alone, so that no number moves."""
    return core(site.x.shape) == core(site.shape)


def core(shape: Extents) -> Extents:
    """Return (n, c) and the spatial axes right-aligned to three."""
    return (*shape[:2], *(1,) * (5 - len(shape)), *shape[2:])


def _native_reshape(site: Rewriter) -> bool:
    """A line of channels becomes a line of positions, or the other way round (Wang et al. 2020, "ECA-Net")."""
    before, after = site.x.shape, site.shape
    places = [[axis for axis, size in enumerate(shape) if axis and size != 1] for shape in (before, after)]
    lines = [len(found) for found in places] == [1, 1]
    if not (before and after) or len(after) > 5 or before[0] != after[0] or not lines or not site.is_made_natively():
        return False
    (old,), (new,) = places
    swaps = 1 in (old, new) and old != new and before[old] == after[new]
    return swaps and site.last("swap_channels_space", site.x.name, shape=after)


def _stretches_native(site: Rewriter) -> bool:
    return len(site.x.shape) == len(site.shape) and site.is_beside_native()


def _is_few_copies(site: Rewriter) -> bool:
    repeats = site.node["repeats"]
    known = all(isinstance(count, int) and count > 0 for count in repeats)
    return known and math.prod(repeats) <= _MOST_COPIES and site.is_beside_native()


def _has_known_channels(site: Rewriter) -> bool:
    """Return True if the order of channels can be told, where it matters."""
    return len(site.shape) > 2 and (isinstance(site.x.shape[1], int) or not site.node["channels_outside"])


# ---- what is read


def _padded(applied: Applied) -> Reads:
    """Positions behind the padding."""
    pairs = applied.node["padding"]
    mode = {"edge": "replicate", "wrap": "circular", "constant": "zeros", "zero": "zeros"}
    word = mode.get(applied.node["mode"], applied.node["mode"])
    start = len(applied.x) - len(pairs)
    return Along({axis: Pad(low, high, word) for axis, (low, high) in enumerate(pairs, start) if (low, high) != (0, 0)})


def _joined(applied: Applied) -> Reads:
    """One operand behind the other along an axis."""
    axes = range(len(applied.x))
    return Aligned([axes] * len(applied.inputs), axes, applied.node["axis"] % len(axes))


def _sliced(applied: Applied) -> Reads:
    """A range of every axis."""
    node, axes = applied.node, range(len(applied.x))
    turned = [axis for axis in axes if node["steps"][axis] < 0 and applied.x[axis] > 1]
    if turned:
        return Aligned([axes], axes, turned[0], "reversal")
    parts = map(slice, node["starts"], node["stops"], node["steps"])
    layers = {axis: crop(*each) for axis, each in enumerate(zip(applied.x, parts, applied.outputs[0], strict=True))}
    return Along({axis: layer for axis, layer in layers.items() if layer is not None})


def _repeated(applied: Applied) -> Reads:
    """The same positions once more; an only position stands for all."""
    axes = range(len(applied.x))
    copied = [axis for axis in axes if applied.node["repeats"][axis] > 1 and applied.x[axis] > 1]
    return Aligned([axes], axes, copied[0] if copied else None, "repetition")


def _picked(applied: Applied) -> Reads:
    """The positions that an index names take the place of an axis."""
    axis, axes = applied.node["axis"] % len(applied.x), range(len(applied.x))
    index = applied.inputs[1] or ()
    places = [("index", place) for place in range(len(index))]
    return Aligned([axes, places], [*axes[:axis], *places, *axes[axis + 1 :]], axis, "selection")


def _transposed(applied: Applied) -> Reads:
    """The axes in another order."""
    return Aligned([range(len(applied.x))], applied.node["axes"])


def _spread(applied: Applied) -> Reads:
    """Channels become blocks of positions."""
    block = applied.node["block"]
    return Along({axis: Resize(block) for axis in range(2, len(applied.x))})


def _gathered(applied: Applied) -> Reads:
    """Blocks of positions become channels."""
    block = applied.node["block"]
    return Along({axis: Blocks(block, block) for axis in range(2, len(applied.x))})


# ---- parts of the result


def _part_of_slice(request: Request) -> Restricted:
    """Positions of the operand, taken with the same steps; where all are taken, the node's own range."""
    node, read, made, ranges = request.applied.node, [], [], []
    axes = zip(request.box, request.applied.x, request.out, node["starts"], node["stops"], node["steps"], strict=True)
    for span, size, out, *bounds in axes:
        start, _, step = slice(*bounds).indices(size)
        if span.reader or step < 0 or span.length == out:
            reader = span.reader or (node.name if step < 0 and size > 1 else "")
            made.append(Span(0, out, reader))
            read.append(Span(0, size, reader))
            ranges.append((bounds[0], bounds[1]))
        else:
            made.append(span)
            read.append(Span(start + span.first * step, start + (span.stop - 1) * step + 1))
            ranges.append((0, None))
    starts, stops = zip(*ranges, strict=True)
    return Restricted(tuple(made), (tuple(read),), {"starts": starts, "stops": stops})


def _part_of_reshape(request: Request) -> Restricted:
    """The axes that stay are restricted; the others are read as a whole."""
    made, read = part_of_groups(request)
    return Restricted(made, (read,), {"shape": lengths(made)})


def _part_of_copies(request: Request) -> Restricted:
    """An only position stands for all; repeated positions are read as a whole."""
    node, x, box = request.applied.node, request.applied.x, list(request.box)
    read, lead = [], len(request.box) - len(x)
    for axis, size in enumerate(x):
        span = box[axis + lead]
        if size == 1:
            read.append(Span(0, 1))
        elif size == request.out[axis + lead]:
            read.append(span)
        else:
            box[axis + lead] = Span(0, request.out[axis + lead], node.name)
            read.append(Span(0, size, node.name))
    kept = lengths(tuple(read))
    if "repeats" in node.attributes:
        repeats = tuple(span.length // size for span, size in zip(box, kept, strict=True))
        return Restricted(tuple(box), (tuple(read),), {"repeats": repeats})
    return Restricted(tuple(box), (tuple(read),), {"shape": lengths(tuple(box))})


def _part_of_channels(request: Request) -> Restricted:
    """The same positions of all channels."""
    n, _, *space = request.box
    read = (n, Span(0, request.applied.x[1]), *space)
    return Restricted((n, Span(0, request.out[1]), *space), (read, *(None for _ in request.applied.inputs[1:])))


def _part_of_pad(request: Request) -> Restricted:
    """Rows of tables; with a constant other than zero, the positions that exist and the rest of the padding."""
    node = request.applied.node
    if node.native:
        return restrict_tables(_pad_tables)(request)
    read, padding = [], []
    for span, size, (low, _) in zip(request.box, request.applied.x, node["padding"], strict=True):
        first = min(max(span.first - low, 0), size - 1)
        stop = max(first + 1, min(span.stop - low, size))
        whole = span.reader or (node["mode"] != "constant" and span.length != size)
        first, stop = (0, size) if whole else (first, stop)
        read.append(Span(first, stop, span.reader or (node.name if whole else "")))
        padding.append((first + low - span.first, span.stop - low - stop))
    if node["mode"] != "constant" and any(span.reader for span in read):
        whole_box = tuple(
            Span(0, out, span.reader) if span.reader else each
            for out, span, each in zip(request.out, read, request.box, strict=True)
        )
        pairs = tuple(
            pair if span.reader else own for pair, span, own in zip(node["padding"], read, padding, strict=True)
        )
        return Restricted(whole_box, (tuple(read), None), {"padding": pairs})
    return Restricted(request.box, (tuple(read), None), {"padding": tuple(padding)})


def _part_of_depth_to_space(request: Request) -> Restricted:
    """Whole blocks, and the channels that hold them."""
    pairs = [part_of_blocks(span, request.applied.node["block"]) for span in request.box[2:]]
    n = request.box[0]
    fine, coarse = (n, Span(0, request.out[1])), (n, Span(0, request.applied.x[1]))
    return Restricted((*fine, *(pair[0] for pair in pairs)), ((*coarse, *(pair[1] for pair in pairs)),))


def _part_of_space_to_depth(request: Request) -> Restricted:
    """The positions of the blocks."""
    block, n = request.applied.node["block"], request.box[0]
    read = [Span(span.first * block, span.stop * block, span.reader) for span in request.box[2:]]
    box = (n, Span(0, request.out[1]), *request.box[2:])
    return Restricted(box, ((n, Span(0, request.applied.x[1]), *read),))


ROWS = (
    # The plan gives every part of a concatenation its place, or copies it there.
    row(
        "concat(parts*; axis)",
        _concat_shape,
        lambda *parts, axis: np.concatenate(parts, axis),
        refuse,
        stored="each",
        fits=_joins_native,
        reads=_joined,
    ),
    row(
        "slice(x; starts, stops, steps)",
        _slice_shape,
        _slice,
        alias=alias_slice,
        fits=_is_view,
        to_native=_native_slice,
        reads=_sliced,
        restrict=_part_of_slice,
    ),
    row(
        "reshape(x; shape)",
        _reshape_shape,
        _reshape,
        alias=alias_reshape,
        fits=_keeps_places,
        to_native=_native_reshape,
        reads=regrouped,
        restrict=_part_of_reshape,
    ),
    row("swap_channels_space(x; shape)", _reshape_shape, lower=_lower_swap, reads=regrouped, restrict=_part_of_reshape),
    row(
        "expand(x; shape)",
        _expand_shape,
        _expand,
        _lower_expand,
        fits=_stretches_native,
        reads=pointwise,
        restrict=_part_of_copies,
    ),
    row(
        "tile(x; repeats)",
        _tile_shape,
        lambda x, repeats: np.tile(x, repeats),
        _lower_tile,
        fits=_is_few_copies,
        reads=_repeated,
        restrict=_part_of_copies,
    ),
    row("zeros(x; channels)", _zeros_shape, lower=_lower_zeros, restrict=_part_of_channels),
    row(
        "pad(x, value?; padding, mode='constant', once=False)",
        _pad_shape,
        _pad,
        lower_tables(_pad_tables),
        to_native=_native_pad,
        reads=_padded,
        restrict=_part_of_pad,
    ),
    row("shuffle(x; groups)", same, _shuffle, _lower_shuffle, reads=unchanged),
    row(
        "gather_channels(x, index!)",
        _gather_channels_shape,
        lower=_lower_gather_channels,
        reads=unchanged,
        restrict=_part_of_channels,
    ),
    row(
        "depth_to_space(x; block, channels_outside)",
        _depth_to_space_shape,
        _depth_to_space,
        _lower_depth_to_space,
        fits=_has_known_channels,
        reads=_spread,
        restrict=_part_of_depth_to_space,
    ),
    row(
        "space_to_depth(x; block, channels_outside)",
        _space_to_depth_shape,
        _space_to_depth,
        _lower_space_to_depth,
        fits=_has_known_channels,
        reads=_gathered,
        restrict=_part_of_space_to_depth,
    ),
    row("fill(value; shape)", given, lambda value, shape: np.full(shape, value.reshape(-1)[0], value.dtype)),
    row("gather(x, index; axis)", _gather_shape, _gather, to_native=_native_gather, reads=_picked),
    row("scatter(x, index, update; axis)", same, _scatter),
    row("gather_points(x, index; batch=0)", _gather_points_shape, _gather_points),
    row("scatter_points(x, index, update; reduction='none')", same, _scatter_points),
    row("sizes(; values, shape)", given, lambda values, shape: np.array(values).reshape(shape)),
    row(
        "range(; start, stop, step)",
        _range_shape,
        lambda start, stop, step: start + step * np.arange(_count(start, stop, step)),
    ),
    row("take_along(x, index; axis)", _indexed_shape, _take_along),
    row("transpose(x; axes)", _transpose_shape, lambda x, axes: np.array(x.transpose(axes)), reads=_transposed),
    # The two conversions between arrays and native steps; the plan adds their steps, or finds that none is needed.
    row("channels_last(x)", same, reads=unchanged, stored="float32"),
    row("channels_first(x)", same, reads=unchanged, stored="float32"),
)
