"""Rules of the operators that move, join and combine whole tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from convoxel.graph.ir.graph import Value
from convoxel.graph.ir.size import Extents, Size
from convoxel.graph.read.reader import NotNative
from convoxel.graph.read.torch.call import RANKS, Call, array_of, as_native, rule
from convoxel.graph.read.torch.numeric import affine

# ---- padding, slicing, joining ---------------------------------------------------------------------------

_TO_THE_END = 2**63 - 1  # what torch.export writes for an end that is left out
_PAD_MODES = {"constant": "zero", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}


@rule("aten.pad.default", "aten.constant_pad_nd.default")
def _pad(call: Call) -> Value:
    value = call.arguments.get("value")
    return _padded(call, call["pad"], _PAD_MODES[call.arguments.get("mode", "constant")], value)


@rule(*(f"aten.{mode}_pad{n}d.default" for mode in ("reflection", "replication") for n in (1, 2, 3)))
def _edge_pad(call: Call) -> Value:
    return _padded(call, call["padding"], "reflect" if "reflection" in call.target else "replicate", None)


def _padded(call: Call, flat: Sequence[int], mode: str, value: Any) -> Value:
    """PyTorch lists (low, high) from the last axis to the first."""
    x = call.tensor("self")
    pairs = [(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)]
    pairs += [(0, 0)] * (len(x.shape) - len(pairs))
    pairs.reverse()
    if value not in (None, 0) or pairs[:2] != [(0, 0), (0, 0)]:
        number = call.reader.constant(np.array(value or 0, call.dtypes[0]), f"{call.name}.value")
        kind = "constant" if mode == "zero" else mode
        return call.array("pad", x.name, number, padding=tuple(pairs), mode=kind)
    return call.add("pad", x.name, padding=tuple(pairs[2:]), mode=mode)


@rule("aten.slice.Tensor")
def _slice(call: Call) -> Value:
    start, stop, step = call["start"], call["end"], call["step"]
    return _narrowed(call, call["dim"], start or 0, None if stop == _TO_THE_END else stop, step)


@rule("aten.narrow.default")
def _narrow(call: Call) -> Value:
    start, length = call["start"], call["length"]
    if not (isinstance(start, int) and isinstance(length, int) and start >= 0):
        raise NotNative("a range that depends on the input's size")
    return _narrowed(call, call["dim"], start, start + length, 1)


def _narrowed(call: Call, axis: int, start: Any, stop: Any, step: int) -> Value:
    x = call["self"]
    if not isinstance(x, Value):
        raise NotNative("self is a constant")
    axis %= len(x.shape)
    if not _fits(x) or (axis == 1 and step != 1):
        rank = len(x.shape)
        starts, steps = [0] * rank, [1] * rank
        stops: list[Any] = [None] * rank
        starts[axis], stops[axis], steps[axis] = start, stop, step
        return call.array("slice", x.name, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))
    return call.add("narrow", x.name, axis=axis, start=start, stop=stop, step=step)


@rule("aten.slice_scatter.default")
def _write_slice(call: Call) -> Any:
    """A copy of ``self`` with a range of one axis replaced: the parts around it and the new one, joined."""
    x, source, axis = call.tensor("self"), call.tensor("src"), call["dim"] % len(call.shape)
    length, start, stop = x.shape[axis], call["start"] or 0, call["end"]
    if start == 0 and stop in (None, _TO_THE_END) and call["step"] == 1:
        return source
    if call["step"] != 1 or not all(isinstance(n, int) for n in (length, start, stop or 0)):
        raise NotNative("a range with steps, or one that depends on the input's size")
    start, stop, _ = slice(start, stop).indices(length)
    pieces = []
    for begin, end in ((0, start), (start, stop), (stop, length)):
        if begin < end:
            shape = tuple(end - begin if i == axis else extent for i, extent in enumerate(x.shape))
            replaced = (begin, end) == (start, stop)
            piece = source if replaced else call.add("narrow", x.name, result=shape, axis=axis, start=begin, stop=end)
            pieces.append(piece)
    return source if len(pieces) == 1 else call.add("concat", *(piece.name for piece in pieces), axis=axis)


@rule("aten.select.int")
def _select(call: Call) -> Any:
    x, index = call["self"], call["index"]
    if not isinstance(x, Value) or not isinstance(index, int):
        raise NotNative("an index that depends on the input's size")
    return call.select(x, call["dim"] % len(x.shape), index, call.shape)


@rule("aten.unbind.int")
def _unbind(call: Call) -> Any:
    x = call["self"]
    if not isinstance(x, Value):
        raise NotNative("self is a constant")
    axis = call["dim"] % len(x.shape)
    return [call.select(x, axis, index, shape) for index, shape in enumerate(call.shapes)]


@rule("aten.index.Tensor")
def _index(call: Call) -> Any:
    given = [(axis, index) for axis, index in enumerate(call["indices"]) if index is not None]
    axis, index = given[0]
    if len(given) > 1 or isinstance(index, Value) or index.dtype not in (torch.int64, torch.int32) or index.ndim > 1:
        raise NotNative("several indices, or one that the network computes")
    places = call.reader.constant(array_of(index).astype(np.int64), f"{call.name}.index")
    return call.array("gather", call.any("self"), places, axis=axis)


@rule("aten.chunk.default", "aten.split.Tensor", "aten.split_with_sizes.default", "aten.split.sizes")
def _split(call: Call) -> list[Value]:
    x = call.tensor("self")
    axis, start = call["dim"] % len(x.shape), 0
    lengths = [shape[axis] for shape in call.shapes]
    if not all(isinstance(length, int) for length in lengths):
        raise NotNative("parts that depend on the input's size")
    parts = []
    for shape, length in zip(call.shapes, lengths, strict=True):
        parts.append(call.add("narrow", x.name, result=shape, axis=axis, start=start, stop=start + length))
        start += length
    return parts


@rule("aten.cat.default", "aten.concat.default")
def _concat(call: Call) -> Value:
    parts = []
    for index, part in enumerate(call["tensors"]):
        if not isinstance(part, Value):
            constant = array_of(part).copy()
            if constant.dtype != np.float32 or constant.ndim not in RANKS:
                raise NotNative(f"part {index} is {constant.dtype} with {constant.ndim} axes")
            parts.append(call.reader.constant(constant, f"{call.name}.{index}", owner=part))
        else:
            parts.append(as_native(part).name)
    rank = max(len(part.shape) for part in call["tensors"])
    if len(parts) == 1:
        return call.add("narrow", parts[0], axis=0)
    return call.add("concat", *parts, axis=call.arguments.get("dim", 0) % rank)


def _reshape(call: Call) -> Any:
    x = call["self"]
    if not isinstance(x, Value):
        raise NotNative("self is a constant")
    if x.shape == call.shape:
        return x
    native = x.dtype == "float32" and len(x.shape) in RANKS and len(call.shape) in RANKS
    if native and _core(x.shape) == _core(call.shape) is not None:
        return call.add("squeeze", x.name, shape=call.shape)
    return call.array("reshape", x.name, shape=call.shape)


rule(
    "aten.flatten.using_ints",
    "aten.view.default",
    "aten.reshape.default",
    "aten._unsafe_view.default",
    "aten.squeeze.default",
    "aten.squeeze.dim",
    "aten.squeeze.dims",
    "aten.unsqueeze.default",
    "aten.unflatten.int",
)(_reshape)


def _core(shape: Extents) -> tuple[Any, ...] | None:
    """Return (n, c) and the spatial axes right-aligned to three, None if there are more."""
    spatial = shape[2:]
    return (*shape[:2], *(1,) * (3 - len(spatial)), *spatial) if len(spatial) <= 3 else None


@rule("aten.permute.default", "aten.transpose.int", "aten.t.default", "aten.movedim.int", "aten.movedim.intlist")
def _transpose(call: Call) -> Any:
    x = call["self"]
    if not isinstance(x, Value):
        raise NotNative("self is a constant")
    rank = len(x.shape)
    axes = list(range(rank))
    if "dims" in call.arguments:
        axes = [axis % rank for axis in call["dims"]]
    elif "source" in call.arguments:
        moved = [call[key] if isinstance(call[key], list) else [call[key]] for key in ("source", "destination")]
        order = np.moveaxis(np.empty([i + 2 for i in range(rank)]), *moved).shape
        axes = [length - 2 for length in order]
    else:
        one, two = (call["dim0"] % rank, call["dim1"] % rank) if "dim0" in call.arguments else (0, 1)
        axes[one], axes[two] = axes[two], axes[one]
    return call.array("transpose", x.name, axes=tuple(axes))


@rule("aten.expand.default", "aten.expand_as.default", "aten.repeat.default", "aten.tile.default")
def _repeat(call: Call) -> Any:
    x = call["self"]
    if not isinstance(x, Value):
        raise NotNative("self is a constant")
    if "expand" in call.target:
        if call.stretches_later and len(x.shape) == len(call.shape):
            return x
        return call.array("expand", x.name, shape=call.shape)
    repeats = tuple(call[next(key for key in call.arguments if key != "self")])
    lifted = (1,) * (len(repeats) - len(x.shape)) + tuple(x.shape)
    if len(lifted) != len(x.shape):
        x = call.reader.add("array.reshape", call.name, (x.name,), [lifted], (x.dtype,), shape=lifted)[0]
    return call.array("tile", x.name, repeats=(1,) * (len(lifted) - len(repeats)) + repeats)


@rule("aten.stack.default")
def _stack(call: Call) -> Any:
    parts, axis = call["tensors"], call.arguments.get("dim", 0) % len(call.shape)
    if not all(isinstance(part, Value) for part in parts):
        raise NotNative("a part that is a constant")
    one = tuple(1 if i == axis else extent for i, extent in enumerate(call.shape))
    lifted = [
        call.reader.add("array.reshape", call.name, (part.name,), [one], (part.dtype,), shape=one)[0] for part in parts
    ]
    return call.array("concat", *(part.name for part in lifted), axis=axis)


@rule("aten.flip.default")
def _flip(call: Call) -> Any:
    x = call["self"]
    rank = len(x.shape)
    turned = {axis % rank for axis in call["dims"]}
    starts = tuple(-1 if i in turned else 0 for i in range(rank))
    steps = tuple(-1 if i in turned else 1 for i in range(rank))
    return call.array("slice", x.name, starts=starts, stops=(None,) * rank, steps=steps)


@rule("aten.embedding.default")
def _embedding(call: Call) -> Any:
    """The row of the weights that each index names."""
    return call.array("gather", call.any("weight"), call.any("indices"), axis=0)


@rule("aten.zeros.default", "aten.ones.default", "aten.full.default")
def _filled(call: Call) -> Any:
    """One number everywhere, in a shape that follows the input's."""
    number = call.arguments.get("fill_value", 1 if call.function == "ones" else 0)
    if isinstance(number, Size):
        raise NotNative("a tensor of sizes")
    value = call.reader.constant(np.array(number, call.dtypes[0]), f"{call.name}.value")
    return call.array("fill", value, shape=call.shape)


@rule("aten.cumsum.default")
def _running_sum(call: Call) -> Any:
    x = call["self"]
    if not isinstance(x, Value) or not x.shape:
        raise NotNative("self is a constant, or a number")
    return call.array("accumulate", _cast(call, x.name, x), axis=call["dim"] % len(x.shape))


@rule("aten.bitwise_not.default", "aten.logical_not.default")
def _not(call: Call) -> Any:
    if getattr(call["self"], "dtype", "") != "bool":
        raise NotNative("bits of whole numbers")
    return call.array("not", call.any("self"))


@rule("aten.index_select.default")
def _index_select(call: Call) -> Any:
    return call.array("gather", call.any("self"), call.constant("index"), axis=call["dim"] % len(call.shape))


# ---- arithmetic ------------------------------------------------------------------------------------------


@rule("aten.add.Tensor", "aten.add_.Tensor", "aten.add.Scalar")
def _add(call: Call) -> Value:
    return _sum(call, call["self"], call["other"], call["alpha"])


@rule("aten.sub.Tensor", "aten.sub_.Tensor", "aten.sub.Scalar")
def _subtract(call: Call) -> Value:
    alpha, other = call["alpha"], call["other"]
    if isinstance(other, Value):
        try:
            return _combined(call, "add", call["self"], affine(call, as_native(other), -float(alpha), 0.0))
        except NotNative:
            if alpha != 1:
                raise
            return call.array("subtract", call.any("self"), call.any("other"))
    x = call["self"]
    if alpha == 1 and isinstance(x, Value) and not _fits(x) and not isinstance(other, Size):
        return call.array("subtract", x.name, _named(call, other))
    return _sum(call, x, other, -alpha)


@rule("aten.rsub.Scalar")
def _subtract_from(call: Call) -> Any:
    if call["alpha"] != 1 or isinstance(call["other"], Size):
        raise NotNative("a weighted difference")
    if not _fits(call["self"]):
        return call.array("subtract", _named(call, call["other"]), call["self"].name)
    return affine(call, call.tensor("self"), -1.0, float(call["other"]))


def _sum(call: Call, a: Any, b: Any, alpha: Any) -> Value:
    number = _per_channel(call, b)
    if not isinstance(alpha, int | float):
        raise NotNative("a weight that is a size")
    if number is not None:
        return _scaled(call, a, np.ones(1), number * alpha, b)
    if alpha != 1:
        b = affine(call, as_native(b), alpha, 0.0) if isinstance(b, Value) else b * alpha
    return _combined_or_array(call, "add", a, b)


@rule("aten.addcmul.default")
def _add_product(call: Call) -> Any:
    x, y, weight = call["tensor1"], call["tensor2"], call["value"]
    if not isinstance(x, Value) or x.shape != call.shape:
        x, y = y, x
    if not isinstance(x, Value) or x.shape != call.shape or isinstance(y, Size) or weight != 1:
        raise NotNative("a product that is stretched, or weighted")
    return _combined_or_array(call, "add", _combined_or_array(call, "multiply", x, y), call["self"])


@rule("aten.mul.Tensor", "aten.mul_.Tensor", "aten.mul.Scalar")
def _multiply(call: Call) -> Value:
    a, b = call["self"], call["other"]
    number = _per_channel(call, b)
    if number is None:
        return _combined_or_array(call, "multiply", a, b)
    return _scaled(call, a, number, np.zeros(1), b)


def _combined_or_array(call: Call, operator: str, a: Any, b: Any) -> Any:
    """Natively where the operands fit, else in NumPy."""
    try:
        return _combined(call, operator, a, b)
    except NotNative:
        if any(isinstance(term, Size) for term in (a, b)) or {getattr(t, "dtype", None) for t in (a, b)} & {"bool"}:
            raise
        return call.array(operator, *(_named(call, term) for term in (a, b)))


def _named(call: Call, term: Any) -> str:
    """Return the name of a value, or of a constant that is added to the graph."""
    if isinstance(term, Value):
        return term.name
    array = array_of(term).astype(call.dtypes[0]) if isinstance(term, torch.Tensor) else np.array(term, call.dtypes[0])
    return call.reader.constant(array, f"{call.name}.other", source=term)


@rule("aten.div.Tensor", "aten.div_.Tensor", "aten.div.Scalar")
def _divide(call: Call) -> Value:
    number = _per_channel(call, call["other"])
    if number is None or not np.all(number):
        if isinstance(call["other"], Size):
            raise NotNative("a quotient by a size")
        operands = [_cast(call, call.any(key), call[key]) for key in ("self", "other")]
        return call.array("divide", *operands)
    return _scaled(call, call["self"], 1.0 / number, np.zeros(1), call["other"])


def _cast(call: Call, name: str, term: Any) -> str:
    """Return the name of an operand in the result's type: whole numbers are divided as fractions."""
    if not isinstance(term, Value) or term.dtype == call.dtypes[0]:
        return name
    to = call.dtypes[0]
    return call.reader.add("array.cast", call.name, (name,), [term.shape], (to,), to=to)[0].name


def _per_channel(call: Call, term: Any) -> NDArray[np.float64] | None:
    """Return a number, or one number per channel, if that is what ``term`` is, and nothing is stretched by it."""
    x = call.arguments["self"]
    if isinstance(term, bool | Size | Value) or (isinstance(x, Value) and (x.shape != call.shape or not _fits(x))):
        return None
    if isinstance(term, int | float):
        return np.array([term], np.float64)
    array = array_of(term).astype(np.float64)
    padded = (1,) * (len(call.shape) - array.ndim) + array.shape
    if len(padded) < 2 or array.size not in (1, padded[1]):
        return None
    return array.reshape(-1)


def _fits(x: Value) -> bool:
    """Whether native steps can read a value."""
    return x.dtype == "float32" and len(x.shape) in RANKS


def _scaled(call: Call, a: Any, scale: NDArray[np.float64], shift: NDArray[np.float64], source: Any) -> Value:
    if not isinstance(a, Value) or as_native(a).shape != call.shape:
        raise NotNative("a constant stretched to a tensor's shape")
    parts = (("scale", scale), ("shift", shift))
    names = [call.reader.constant(array, f"{call.name}.{part}", source=source) for part, array in parts]
    return call.add("affine", a.name, *names)


def _combined(call: Call, operator: str, a: Any, b: Any) -> Value:
    """Sum or product; the operand that has the result's shape comes first."""
    if isinstance(a, Value):
        as_native(a)
    if _stretched(call, a) and not _stretched(call, b):
        a, b = b, a
    if _stretched(call, a) or not isinstance(a, Value):
        raise NotNative("two tensors that are both stretched")
    if isinstance(b, Value):
        if len(as_native(b).shape) != len(call.shape):
            raise NotNative("tensors with different numbers of axes")
        return call.add(operator, as_native(a).name, b.name)
    if isinstance(b, Size):
        raise NotNative("arithmetic with the input's size")
    array = array_of(b).copy()
    if array.dtype != np.float32:
        raise NotNative(f"a constant that is {array.dtype}")
    array = array.reshape((1,) * (len(call.shape) - array.ndim) + array.shape)
    return call.add(operator, as_native(a).name, call.reader.constant(array, f"{call.name}.other", owner=b))


def _stretched(call: Call, term: Any) -> bool:
    """Whether ``term`` is repeated along an axis of the result. Axes that are not literally 1 are equal."""
    if not isinstance(term, Value):
        return True
    shape = term.shape
    return len(shape) != len(call.shape) or any((p == 1) != (q == 1) for p, q in zip(shape, call.shape, strict=True))


# ---- nothing at all --------------------------------------------------------------------------------------


@rule(
    "aten.contiguous.default",
    "aten.clone.default",
    "aten.alias.default",
    "aten.detach.default",
    "aten.detach_.default",
    "aten.lift_fresh_copy.default",
)
def _identity(call: Call) -> Any:
    return next(iter(call.arguments.values()))


_DROPOUTS = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")


@rule(*(f"aten.{name}{write}.default" for name in _DROPOUTS for write in ("", "_")))
def _dropout(call: Call) -> Any:
    if call["train"]:
        raise NotNative("dropout while training")
    return call["input"] if "input" in call.arguments else call["self"]


@rule("aten.to.dtype", "aten.to.device", "aten._to_copy.default", "aten.type_as.default", "aten.to.dtype_layout")
def _to(call: Call) -> Any:
    x = call.arguments["self"]
    if isinstance(x, Value) and x.dtype == call.dtypes[0]:
        return x
    if isinstance(x, Value) and call.dtypes[0] != "bfloat16":
        return call.array("cast", x.name, to=call.dtypes[0])
    raise NotNative("a change of type")
