"""Rules of the operators that move, join and combine whole tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from convoxel.graph.ir.graph import Value
from convoxel.graph.ir.size import Size
from convoxel.graph.read.reader import NotNative
from convoxel.graph.read.torch.call import Call, Result, array_of, hand_on, rule
from convoxel.graph.read.torch.indexing import named

# ---- padding, slicing, joining ---------------------------------------------------------------------------

_TO_THE_END = 2**63 - 1  # what torch.export writes for an end that is left out


@rule(
    *("aten.pad.default", "aten.constant_pad_nd.default"),
    *(f"aten.{mode}_pad{n}d.default" for mode in ("reflection", "replication") for n in (1, 2, 3)),
)
def _pad(call: Call) -> Value:
    """PyTorch lists (low, high) from the last axis to the first."""
    x, given = call.tensor("self"), call.arguments
    mode = {"reflection": "reflect", "replication": "replicate"}.get(call.function.split("_")[0], "constant")
    mode, value, flat = given.get("mode", mode), given.get("value"), given["pad" if "pad" in given else "padding"]
    pairs = [(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)]
    pairs += [(0, 0)] * (len(x.shape) - len(pairs))
    pairs.reverse()
    shorter = {"reflect": 1, "circular": 0}.get(mode)
    for size, pair in zip(x.shape, pairs, strict=True):
        if shorter is not None and isinstance(size, int) and max(pair) > max(size - shorter, 0):
            raise NotNative("more padding than the axis has, which PyTorch refuses")
    number = call.number(value, "value") if value else ""
    return call.add("pad", x.name, number, padding=tuple(pairs), mode=mode, once=shorter is not None)


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
    x = call.tensor("self")
    return call.narrowed(x, axis % len(x.shape), start, stop, step)


@rule("aten.select.int")
def _select(call: Call) -> Result:
    x, index = call["self"], call["index"]
    if not isinstance(x, Value) or not isinstance(index, int):
        raise NotNative("an index that depends on the input's size")
    return call.select(x, call["dim"] % len(x.shape), index, call.shape)


@rule("aten.unbind.int")
def _unbind(call: Call) -> Result:
    x = call.tensor("self")
    axis = call["dim"] % len(x.shape)
    return [call.select(x, axis, index, shape) for index, shape in enumerate(call.shapes)]


@rule("aten.chunk.default", "aten.split.Tensor", "aten.split_with_sizes.default", "aten.split.sizes")
def _split(call: Call) -> list[Value]:
    x = call.tensor("self")
    axis, start = call["dim"] % len(x.shape), 0  # sizes may be open
    lengths = [shape[axis] for shape in call.shapes]
    parts = []
    for shape, length in zip(call.shapes, lengths, strict=True):
        parts.append(call.narrowed(x, axis, start, start + length, result=shape))
        start += length
    return parts


@rule("aten.cat.default", "aten.concat.default")
def _concat(call: Call) -> Value:
    parts = []
    for index, part in enumerate(call["tensors"]):
        if not isinstance(part, Value):
            constant = array_of(part)
            parts.append(call.reader.constant(constant, f"{call.name}.{index}", owner=part))
        elif part.dtype == "float32":
            parts.append(part.name)
        else:
            parts.append(_cast(call, part.name, part))
    rank = max(len(part.shape) for part in call["tensors"])
    return call.add("concat", *parts, axis=call.arguments.get("dim", 0) % rank)


@rule(
    *("aten.flatten.using_ints", "aten.squeeze.dim", "aten.squeeze.dims", "aten.unflatten.int"),
    *(f"aten.{name}.default" for name in ("view", "reshape", "_unsafe_view", "squeeze", "unsqueeze", "view_as")),
    "aten._reshape_copy.default",
)
def _reshape(call: Call) -> Result:
    x = call.tensor("self")
    return x if x.shape == call.shape else call.reshaped(x, call.shape)


@rule(
    *(f"aten.{name}" for name in ("permute.default", "transpose.int", "t.default", "movedim.int", "movedim.intlist")),
    *(f"aten.{name}" for name in ("swapaxes.default", "swapdims.default", "mT.default", "numpy_T.default")),
)
def _transpose(call: Call) -> Result:
    x = call.tensor("self")
    rank = len(x.shape)
    axes = list(range(rank))
    if "dims" in call.arguments:
        axes = [axis % rank for axis in call["dims"]]
    elif "source" in call.arguments:
        moved = [call[key] if isinstance(call[key], list) else [call[key]] for key in ("source", "destination")]
        order = np.moveaxis(np.empty([i + 2 for i in range(rank)]), *moved).shape
        axes = [length - 2 for length in order]
    elif call.function == "numpy_T":
        axes.reverse()
    else:
        given = {"mT": (-1, -2), "t": (0, 1) if rank > 1 else (0, 0)}.get(call.function)
        keys = ("axis0", "axis1") if "axis0" in call.arguments else ("dim0", "dim1")
        one, two = (axis % rank for axis in given or (call[key] for key in keys))
        axes[one], axes[two] = axes[two], axes[one]
    return call.add("transpose", x.name, axes=tuple(axes))


@rule("aten.expand.default", "aten.expand_as.default", "aten.broadcast_to.default")
def _expand(call: Call) -> Result:
    x = call["self"]
    if call.stretches_later and len(x.shape) == len(call.shape):
        return x
    return call.add("expand", call.any("self"), shape=call.shape)


@rule("prims.broadcast_in_dim.default")
def _expand_axes(call: Call) -> Result:
    """Every axis gets its place among new ones, and the length there."""
    x, places = call["a"], call["broadcast_dimensions"]
    lifted = [1] * len(call.shape)
    for place, extent in zip(places, x.shape, strict=True):
        lifted[place] = extent
    shape = tuple(lifted)
    return call.add("expand", call.add("reshape", call.any("a"), result=shape, shape=shape).name, shape=call.shape)


@rule("aten.broadcast_tensors.default")
def _expand_all(call: Call) -> Result:
    parts = zip(call["tensors"], call.shapes, call.dtypes, strict=True)
    return [
        part
        if tuple(part.shape) == shape
        else call.add("expand", named(call, part, "part", dtype), result=shape, dtype=dtype, shape=shape)
        for part, shape, dtype in parts
    ]


@rule("aten.repeat.default", "aten.tile.default")
def _repeat(call: Call) -> Result:
    x = call.tensor("self")
    repeats = tuple(call[next(key for key in call.arguments if key != "self")])
    lifted = (1,) * (len(repeats) - len(x.shape)) + tuple(x.shape)
    if len(lifted) != len(x.shape):
        x = call.reshaped(x, lifted)
    return call.add("tile", x.name, repeats=(1,) * (len(lifted) - len(repeats)) + repeats)


@rule("aten.stack.default")
def _stack(call: Call) -> Result:
    parts, axis = call["tensors"], call.arguments.get("dim", 0) % len(call.shape)
    one, dtype = tuple(1 if i == axis else extent for i, extent in enumerate(call.shape)), call.dtypes[0]
    names = [
        call.reshaped(part, one).name
        if isinstance(part, Value) and part.dtype == dtype
        else call.add("reshape", named(call, part, "part", dtype), result=one, dtype=dtype, shape=one).name
        for part in parts
    ]
    return call.add("concat", *names, axis=axis)


@rule("aten.flip.default")
def _flip(call: Call) -> Result:
    x = call["self"]
    rank = len(x.shape)
    turned = {axis % rank for axis in call["dims"]}
    starts = tuple(-1 if i in turned else 0 for i in range(rank))
    steps = tuple(-1 if i in turned else 1 for i in range(rank))
    return call.add("slice", x.name, starts=starts, stops=(None,) * rank, steps=steps)


hand_on("aten.embedding.default", "gather", "weight indices", axis=0)


_FILLED = ("zeros", "ones", "full", "empty")


@rule(
    *(f"aten.{name}.default" for name in _FILLED),
    *(f"aten.{name}_like.default" for name in _FILLED),
    *(f"aten.new_{name}.default" for name in _FILLED),
    "aten.empty.memory_format",
    "aten.scalar_tensor.default",
    "prims.scalar_tensor.default",
)
def _filled(call: Call) -> Result:
    """One number everywhere, in a shape that follows the input's; what is left empty gets zeros."""
    number = call.arguments.get("fill_value", call.arguments.get("s", 1 if "ones" in call.function else 0))
    return call.add("fill", named(call, number, "value", call.dtypes[0]), shape=call.shape)


@rule("prims.iota.default", *(f"aten.arange.{overload}" for overload in ("default", "start", "start_step")))
def _range(call: Call) -> Result:
    """Evenly spaced numbers, from the first one on."""
    start, step = (call.arguments.get(key, usual) for key, usual in (("start", 0), ("step", 1)))
    stop = call["end"] if "end" in call.arguments else start + step * call["length"]
    return call.add("range", start=start, stop=stop, step=step)


_RUNNING = {"cumsum": "sum", "cumprod": "product", "cummax": "max", "cummin": "min", "logcumsumexp": "log_add_exp"}


@rule(*(f"aten.{name}.default" for name in _RUNNING))
def _running_sum(call: Call) -> Result:
    x = call["self"]
    if not isinstance(x, Value) or not x.shape:
        raise NotNative("self is a constant, or a number")
    how = {"axis": call["dim"] % len(x.shape), "function": _RUNNING[call.function]}
    result = call.add("accumulate", _cast(call, x.name, x), **how)
    if call.function not in ("cummax", "cummin"):
        return result
    if 1 in call.used:
        raise NotNative("places of running extremes")
    return [result, None]


# ---- arithmetic ------------------------------------------------------------------------------------------


def _combined(call: Call, operator: str, *terms: Any) -> Value:
    """Add the node of a sum, difference, product or quotient of tensors and numbers, in the result's type."""
    if call.dtypes[0] == "bool":
        operator = {"add": "or", "multiply": "and"}[operator]  # PyTorch refuses the others
        return call.add(operator, *(named(call, term, "other", "bool") for term in terms))
    return call.add(operator, *(_named(call, term) for term in terms))


def _named(call: Call, term: Any) -> str:
    """Return the name of a value in the result's type, or of a constant that is added to the graph.

    A number that the program gives stays exact until it meets the weights.
    """
    dtype = call.dtypes[0]
    if isinstance(term, Value | Size):
        return named(call, term, "other", dtype)
    if not isinstance(term, torch.Tensor):
        return call.number(term, "other", "float64" if dtype == "float32" else dtype)
    return call.reader.constant(array_of(term).astype(dtype, copy=False), f"{call.name}.other", source=term)


def _cast(call: Call, name: str, term: Value) -> str:
    """Return the name of an operand in the result's type: whole numbers are divided as fractions."""
    to = call.dtypes[0]
    return name if term.dtype == to else call.add("cast", name, result=term.shape, to=to).name


def _weighted(call: Call, term: Any, weight: Any) -> Result:
    if weight == 1:
        return term
    if not isinstance(weight, int | float) or isinstance(term, Size):
        raise NotNative("a weight that is a size, or of one")
    if not isinstance(term, Value):
        return term * weight
    return call.add("multiply", term.name, _named(call, weight), result=term.shape, dtype=term.dtype)


_ARITHMETIC = {"add": "add", "sub": "subtract", "mul": "multiply", "div": "divide"}


@rule(*(f"aten.{name}{overload}" for name in _ARITHMETIC for overload in (".Tensor", "_.Tensor", ".Scalar")))
def _arithmetic(call: Call) -> Value:
    other = _weighted(call, call["other"], call.arguments.get("alpha", 1))
    return _combined(call, _ARITHMETIC[call.function], call["self"], other)


@rule("aten.rsub.Scalar", "aten.rsub.Tensor")
def _subtract_from(call: Call) -> Value:
    return _combined(call, "subtract", call["other"], _weighted(call, call["self"], call["alpha"]))


@rule("aten.addcmul.default")
def _add_product(call: Call) -> Value:
    product = _combined(call, "multiply", call["tensor1"], call["tensor2"])
    return _combined(call, "add", call["self"], _weighted(call, product, call["value"]))


# ---- nothing at all --------------------------------------------------------------------------------------


@rule(
    *(
        f"aten.{name}.default"
        for name in ("contiguous", "clone", "alias", "detach", "detach_", "lift_fresh_copy", "positive")
    )
)
def _identity(call: Call) -> Result:
    return next(iter(call.arguments.values()))


_DROPOUTS = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")


@rule(*(f"aten.{name}{write}.default" for name in _DROPOUTS for write in ("", "_")))
def _dropout(call: Call) -> Result:
    if call["train"]:
        raise NotNative("dropout while training")
    return call["input"] if "input" in call.arguments else call["self"]


@rule("aten.to.dtype", "aten.to.device", "aten._to_copy.default", "aten.type_as.default", "aten.to.dtype_layout")
def _to(call: Call) -> Result:
    x = call.arguments["self"]
    if isinstance(x, Value) and x.dtype == call.dtypes[0]:
        return x
    if isinstance(x, Value) and call.dtypes[0] != "bfloat16":
        return call.add("cast", x.name, to=call.dtypes[0])
    raise NotNative("a change of type")
