"""Rules of the operators that choose: by a condition, an index, an order, a diagonal; and windows as columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from convoxel.files.values import JsonObject
from convoxel.graph.ir.graph import Value
from convoxel.graph.ir.size import Extent, Extents, Size, differ, larger
from convoxel.graph.read.reader import NotNative
from convoxel.graph.read.torch.call import Call, Result, array_of, dtype_name, hand_on, rule


def typed(call: Call, key: str, dtype: str) -> str:
    """Return the name of an argument, a tensor or a number, in another type."""
    return named(call, call[key], key, dtype)


def named(call: Call, term: Any, part: str, dtype: str) -> str:
    """Return the name of a tensor, a number or a size in a type."""
    if isinstance(term, Size):
        size = call.add("sizes", result=(), dtype=term.kind, values=(term,), shape=())
        return size.name if dtype == term.kind else call.add("cast", size.name, result=(), dtype=dtype, to=dtype).name
    if isinstance(term, Value):
        if term.dtype == dtype:
            return term.name
        return call.add("cast", term.name, result=term.shape, dtype=dtype, to=dtype).name
    if isinstance(term, torch.Tensor):
        return call.reader.constant(array_of(term).astype(dtype, copy=False), f"{call.name}.{part}", source=term)
    return call.number(term, part, dtype)


# ---- by a condition --------------------------------------------------------------------------------------


@rule(*(f"aten.where.{overload}" for overload in ("self", "ScalarOther", "ScalarSelf", "Scalar")))
def _where(call: Call) -> Result:
    terms = [typed(call, key, call.dtypes[0]) for key in ("self", "other")]
    return call.add("select", typed(call, "condition", "bool"), *terms)


@rule(*(f"aten.masked_fill{write}.{overload}" for write in ("", "_") for overload in ("Scalar", "Tensor")))
def _masked_fill(call: Call) -> Result:
    terms = [typed(call, key, call.dtypes[0]) for key in ("value", "self")]
    return call.add("select", typed(call, "mask", "bool"), *terms)


@rule("aten.triu.default", "aten.tril.default")
def _triangle(call: Call) -> Result:
    return call.add("triangle", call.any("self"), offset=call["diagonal"], upper=call.function == "triu")


# ---- by an index -----------------------------------------------------------------------------------------


@rule("aten.gather.default")
def _gather(call: Call) -> Result:
    rank = max(len(call.shape), 1)
    if not call.shape:
        raise NotNative("a number by itself")
    return call.add("take_along", call.any("self"), call.any("index"), axis=call["dim"] % rank)


@rule("aten.scatter.src", "aten.scatter.value", "aten.scatter_.src", "aten.scatter_.value")
def _scatter(call: Call) -> Result:
    return _scattered(call, call["src"] if "src" in call.arguments else call["value"], "")


@rule("aten.scatter_add.default", "aten.scatter_add_.default")
def _scatter_add(call: Call) -> Result:
    return _scattered(call, call["src"], "add")


@rule("aten.scatter_reduce.two")
def _scatter_reduce(call: Call) -> Result:
    function = {"sum": "add"}.get(call["reduce"], call["reduce"])
    if not call["include_self"] or function not in ("add", "amax", "amin", "prod"):
        raise NotNative("a mean, or what was there does not count")
    return _scattered(call, call["src"], function)


def _scattered(call: Call, source: Any, function: str) -> Result:
    """Add the node that puts ``source``, a tensor or a number, where an index says."""
    index = call["index"]
    shape, dtype = tuple(index.shape), call.dtypes[0]
    if not shape:
        raise NotNative("a number by itself")
    update = named(call, source, "source", dtype)
    if not isinstance(source, Value | torch.Tensor):
        update = call.add("fill", update, result=shape, dtype=dtype, shape=shape).name
    operands, axis = (typed(call, "self", dtype), call.any("index"), update), call["dim"] % len(shape)
    if function:
        return call.add("scatter_reduce", *operands, axis=axis, function=function)
    return call.add("scatter", *operands, axis=axis)


@rule("aten.index.Tensor")
def _index(call: Call) -> Result:
    axes, indices = _places(call)
    if len(axes) == 1 and not isinstance(indices[0], Value) and indices[0].ndim == 1:
        places = call.reader.constant(array_of(indices[0]).astype(np.int64, copy=False), f"{call.name}.index")
        return call.add("gather", call.any("self"), places, axis=axes[0])
    operands = [named(call, index, "index", "int64") for index in indices]
    return call.add("index", call.any("self"), *operands, axes=axes)


def _places(call: Call) -> tuple[tuple[int, ...], list[Any]]:
    """Return the axes that have an index, and the indices: whole numbers."""
    given = [(axis, index) for axis, index in enumerate(call["indices"]) if index is not None]
    if not given or any(_kind(index) in ("bool", "uint8") for _, index in given):
        raise NotNative("an index of truths")
    return tuple(axis for axis, _ in given), [index for _, index in given]


def _kind(tensor: Any) -> str:
    return tensor.dtype if isinstance(tensor, Value) else dtype_name(tensor.dtype)


@rule("aten.index_put.default", "aten.index_put_.default")
def _index_put(call: Call) -> Result:
    """Numbers written where indices say, or where a mask of the tensor's shape is true."""
    x, values, dtype = call["self"], call["values"], call.dtypes[0]
    mask = call["indices"][0]
    if len(call["indices"]) == 1 and mask is not None and _kind(mask) == "bool" and not call["accumulate"]:
        if any(size != 1 for size in values.shape) or len(mask.shape) > len(x.shape):
            raise NotNative("as many values as a mask is true for")
        behind = (1,) * (len(x.shape) - len(mask.shape))
        if behind and isinstance(mask, Value):
            mask = call.reshaped(mask, (*mask.shape, *behind))
        elif behind:
            mask = mask.reshape(*mask.shape, *behind)
        terms = (named(call, term, "values", dtype) for term in (values, x))
        return call.add("select", named(call, mask, "mask", "bool"), *terms, result=x.shape, dtype=dtype)
    axes, indices = _places(call)
    operands = [typed(call, "self", dtype), typed(call, "values", dtype)]
    operands += [named(call, index, "index", "int64") for index in indices]
    return call.add("write", *operands, result=x.shape, dtype=dtype, axes=axes, add=bool(call["accumulate"]))


@rule("aten.index_select.default")
def _index_select(call: Call) -> Result:
    return call.add("gather", call.any("self"), call.any("index"), axis=call["dim"] % max(len(call.shape), 1))


@rule("aten.slice_scatter.default")
def _write_slice(call: Call) -> Result:
    """A copy of ``self`` with a range of one axis replaced: the parts around it and the new one, joined."""
    x, source, axis = call["self"], call["src"], call["dim"] % len(call.shape)
    start, stop, step, end = call["start"] or 0, call["end"], call["step"], 2**63 - 1
    if start == 0 and stop in (None, end) and step == 1:
        return source
    length = x.shape[axis]
    if step != 1 or not all(isinstance(n, int) for n in (length, start, stop or 0)) or not isinstance(x, Value):
        bounds = [(0, None, 1)] * len(x.shape)
        bounds[axis] = (start, None if stop == end else stop, step)
        starts, stops, steps = zip(*bounds, strict=True)
        operands = [typed(call, key, call.dtypes[0]) for key in ("self", "src")]
        return call.add("write_slice", *operands, starts=starts, stops=stops, steps=steps)
    start, stop, _ = slice(start, stop).indices(length)
    pieces = []
    for begin, finish in ((0, start), (start, stop), (stop, length)):
        if begin < finish:
            shape = tuple(finish - begin if i == axis else extent for i, extent in enumerate(x.shape))
            replaced = (begin, finish) == (start, stop)
            part = typed(call, "src", call.dtypes[0]) if replaced else ""
            pieces.append(part or call.narrowed(x, axis, begin, finish, result=shape).name)
    return source if len(pieces) == 1 else call.add("concat", *pieces, axis=axis)


@rule("aten.copy.default", "aten.fill.Tensor", "aten.fill.Scalar", "aten.fill_.Scalar", "aten.fill_.Tensor")
def _copy(call: Call) -> Result:
    """The numbers of another tensor, or one number, in this one's shape and type."""
    source = named(call, call["src" if "src" in call.arguments else "value"], "source", call.dtypes[0])
    return call.add("expand", source, shape=call.shape)


# ---- by order --------------------------------------------------------------------------------------------


@rule("aten.topk.default")
def _top(call: Call) -> Result:
    return _ordered(call, call["k"], bool(call["largest"]))


@rule("aten.sort.default", "aten.sort.stable", "aten.argsort.default", "aten.argsort.stable", "aten.msort.default")
def _sort(call: Call) -> Result:
    found = _ordered(call, None, bool(call.arguments.get("descending", False)))
    return found[1 if call.function == "argsort" else 0] if call.function in ("argsort", "msort") else found


def _ordered(call: Call, count: Extent | None, largest: bool) -> list[Value]:
    x = call.tensor("self")
    if not x.shape:
        raise NotNative("a number by itself")
    axis = call.arguments.get("dim", 0 if call.function == "msort" else -1) % len(x.shape)
    count = x.shape[axis] if count is None else count
    shape = tuple(count if i == axis else extent for i, extent in enumerate(x.shape))
    how = {"count": count, "axis": axis, "largest": largest}
    return list(call.reader.add("top", call.name, (x.name,), (shape, shape), (x.dtype, "int64"), **how))


@rule("aten.median.dim")
def _median(call: Call) -> Result:
    x = call.tensor("self")
    if not x.shape:
        raise NotNative("a number by itself")
    shape, how = call.shapes[0], {"axis": call["dim"] % len(x.shape), "keep": bool(call["keepdim"])}
    return list(call.reader.add("median", call.name, (x.name,), (shape, shape), (x.dtype, "int64"), **how))


# ---- diagonals, windows ----------------------------------------------------------------------------------


@rule("aten.diagonal.default")
def _diagonal(call: Call) -> Result:
    x = call["self"]
    first, second = (call[key] % len(x.shape) for key in ("dim1", "dim2"))
    return call.add("diagonal", call.any("self"), offset=call["offset"], first=first, second=second)


@rule("aten.roll.default")
def _roll(call: Call) -> Result:
    x, shifts, axes = call.tensor("self"), call["shifts"], call["dims"]
    if any(isinstance(shift, Size) for shift in shifts):
        raise NotNative("a shift that depends on the input's size")
    if not axes:
        flat = call.reshaped(x, (_product(x.shape),))
        rolled = call.add("roll", flat.name, result=flat.shape, shift=tuple(shifts), axis=(0,))
        return call.reshaped(rolled, x.shape)
    return call.add("roll", x.name, shift=tuple(shifts), axis=tuple(axis % len(x.shape) for axis in axes))


def _product(shape: Extents) -> Extent:
    result: Extent = 1
    for extent in shape:
        result = result * extent
    return result


def _pairs(numbers: Sequence[int]) -> tuple[int, ...]:
    return tuple(numbers) * (2 if len(numbers) == 1 else 1)


@rule("aten.im2col.default")
def _image_to_columns(call: Call) -> Result:
    x = call.tensor("self")
    how: JsonObject = {key: _pairs(call[key]) for key in ("stride", "dilation")}
    padding = tuple((size, size) for size in _pairs(call["padding"]))
    lifted = x if len(x.shape) == 4 else call.reshaped(x, (1, *x.shape))
    result = call.shape if lifted is x else (1, *call.shape)
    kernel = _pairs(call["kernel_size"])
    columns = call.add("image_to_columns", lifted.name, result=result, kernel=kernel, padding=padding, **how)
    return columns if lifted is x else call.reshaped(columns, call.shape)


@rule("aten.col2im.default")
def _columns_to_image(call: Call) -> Result:
    x = call.tensor("self")
    how: JsonObject = {key: _pairs(call[key]) for key in ("stride", "dilation")}
    padding = tuple((size, size) for size in _pairs(call["padding"]))
    lifted = x if len(x.shape) == 3 else call.reshaped(x, (1, *x.shape))
    result = call.shape if lifted is x else (1, *call.shape)
    sizes: JsonObject = {"shape": tuple(call["output_size"]), "kernel": _pairs(call["kernel_size"])}
    image = call.add("columns_to_image", lifted.name, result=result, padding=padding, **sizes, **how)
    return image if lifted is x else call.reshaped(image, call.shape)


@rule("aten.unfold.default")
def _windows(call: Call) -> Result:
    x = call.tensor("self")
    axis = call["dimension"] % max(len(x.shape), 1)
    if not x.shape or differ(larger(x.shape[axis], call["size"]), x.shape[axis]):
        raise NotNative("windows longer than the axis, which PyTorch refuses")
    return call.add("windows", x.name, axis=axis, size=call["size"], step=call["step"])


hand_on("aten.heaviside.default", "heaviside", "self values")
hand_on("aten.nan_to_num.default", "nan_to_num", "self", nan="nan", high="posinf", low="neginf")
