"""Rules of the operators that move, join and combine whole tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from convoxel.graph.ir.graph import Value
from convoxel.graph.ir.size import Size
from convoxel.graph.read.reader import NotNative
from convoxel.graph.read.torch.call import Call, Result, array_of, hand_on, rule

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
    return call.add("pad", x.name, number, padding=tuple(pairs), mode=mode)


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


@rule("aten.slice_scatter.default")
def _write_slice(call: Call) -> Result:
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
            pieces.append(source if replaced else call.narrowed(x, axis, begin, end, result=shape))
    return source if len(pieces) == 1 else call.add("concat", *(piece.name for piece in pieces), axis=axis)


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


@rule("aten.index.Tensor")
def _index(call: Call) -> Result:
    given = [(axis, index) for axis, index in enumerate(call["indices"]) if index is not None]
    axis, index = given[0]
    if len(given) > 1 or isinstance(index, Value) or index.dtype not in (torch.int64, torch.int32) or index.ndim > 1:
        raise NotNative("several indices, or one that the network computes")
    places = call.reader.constant(array_of(index).astype(np.int64), f"{call.name}.index")
    return call.add("gather", call.any("self"), places, axis=axis)


@rule("aten.chunk.default", "aten.split.Tensor", "aten.split_with_sizes.default", "aten.split.sizes")
def _split(call: Call) -> list[Value]:
    x = call.tensor("self")
    axis, start = call["dim"] % len(x.shape), 0
    lengths = [shape[axis] for shape in call.shapes]
    if not all(isinstance(length, int) for length in lengths):
        raise NotNative("parts that depend on the input's size")
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
            constant = array_of(part).copy()
            parts.append(call.reader.constant(constant, f"{call.name}.{index}", owner=part))
        elif part.dtype == "float32":
            parts.append(part.name)
        else:
            parts.append(_cast(call, part.name, part))
    rank = max(len(part.shape) for part in call["tensors"])
    return call.add("concat", *parts, axis=call.arguments.get("dim", 0) % rank)


@rule(
    *("aten.flatten.using_ints", "aten.squeeze.dim", "aten.squeeze.dims", "aten.unflatten.int"),
    *(f"aten.{name}.default" for name in ("view", "reshape", "_unsafe_view", "squeeze", "unsqueeze")),
)
def _reshape(call: Call) -> Result:
    x = call.tensor("self")
    return x if x.shape == call.shape else call.reshaped(x, call.shape)


@rule("aten.permute.default", "aten.transpose.int", "aten.t.default", "aten.movedim.int", "aten.movedim.intlist")
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
    else:
        one, two = (call["dim0"] % rank, call["dim1"] % rank) if "dim0" in call.arguments else (0, 1)
        axes[one], axes[two] = axes[two], axes[one]
    return call.add("transpose", x.name, axes=tuple(axes))


@rule("aten.expand.default", "aten.expand_as.default", "aten.repeat.default", "aten.tile.default")
def _repeat(call: Call) -> Result:
    x = call.tensor("self")
    if "expand" in call.target:
        if call.stretches_later and len(x.shape) == len(call.shape):
            return x
        return call.add("expand", x.name, shape=call.shape)
    repeats = tuple(call[next(key for key in call.arguments if key != "self")])
    lifted = (1,) * (len(repeats) - len(x.shape)) + tuple(x.shape)
    if len(lifted) != len(x.shape):
        x = call.reshaped(x, lifted)
    return call.add("tile", x.name, repeats=(1,) * (len(lifted) - len(repeats)) + repeats)


@rule("aten.stack.default")
def _stack(call: Call) -> Result:
    parts, axis = call["tensors"], call.arguments.get("dim", 0) % len(call.shape)
    if not all(isinstance(part, Value) for part in parts):
        raise NotNative("a part that is a constant")
    one = tuple(1 if i == axis else extent for i, extent in enumerate(call.shape))
    lifted = [call.reshaped(part, one) for part in parts]
    return call.add("concat", *(part.name for part in lifted), axis=axis)


@rule("aten.flip.default")
def _flip(call: Call) -> Result:
    x = call["self"]
    rank = len(x.shape)
    turned = {axis % rank for axis in call["dims"]}
    starts = tuple(-1 if i in turned else 0 for i in range(rank))
    steps = tuple(-1 if i in turned else 1 for i in range(rank))
    return call.add("slice", x.name, starts=starts, stops=(None,) * rank, steps=steps)


hand_on("aten.embedding.default", "gather", "weight indices", axis=0)


@rule("aten.zeros.default", "aten.ones.default", "aten.full.default")
def _filled(call: Call) -> Result:
    """One number everywhere, in a shape that follows the input's."""
    number = call.arguments.get("fill_value", 1 if call.function == "ones" else 0)
    if isinstance(number, Size):
        raise NotNative("a tensor of sizes")
    return call.add("fill", call.number(number, "value"), shape=call.shape)


@rule("aten.cumsum.default")
def _running_sum(call: Call) -> Result:
    x = call["self"]
    if not isinstance(x, Value) or not x.shape:
        raise NotNative("self is a constant, or a number")
    return call.add("accumulate", _cast(call, x.name, x), axis=call["dim"] % len(x.shape))


@rule("aten.bitwise_not.default", "aten.logical_not.default")
def _not(call: Call) -> Result:
    if getattr(call["self"], "dtype", "") != "bool":
        raise NotNative("bits of whole numbers")
    return call.add("not", call.any("self"))


@rule("aten.index_select.default")
def _index_select(call: Call) -> Result:
    return call.add("gather", call.any("self"), call.constant("index"), axis=call["dim"] % len(call.shape))


# ---- arithmetic ------------------------------------------------------------------------------------------


def _combined(call: Call, operator: str, *terms: Any) -> Value:
    """Add the node of a sum, difference, product or quotient of tensors and numbers, in the result's type."""
    if any(isinstance(term, Size) for term in terms):
        raise NotNative("arithmetic with the input's size")
    if "bool" in {getattr(term, "dtype", None) for term in terms} or call.dtypes[0] == "bool":
        raise NotNative("arithmetic with truths")
    return call.add(operator, *(_named(call, term) for term in terms))


def _named(call: Call, term: Any) -> str:
    """Return the name of a value in the result's type, or of a constant that is added to the graph.

    A number that the program gives stays exact until it meets the weights.
    """
    if isinstance(term, Value):
        return _cast(call, term.name, term)
    dtype = call.dtypes[0]
    if not isinstance(term, torch.Tensor):
        return call.number(term, "other", "float64" if dtype == "float32" else dtype)
    return call.reader.constant(array_of(term).astype(dtype), f"{call.name}.other", source=term)


def _cast(call: Call, name: str, term: Value) -> str:
    """Return the name of an operand in the result's type: whole numbers are divided as fractions."""
    to = call.dtypes[0]
    return name if term.dtype == to else call.add("cast", name, result=term.shape, to=to).name


def _weighted(call: Call, term: Any, weight: Any) -> Result:
    if not isinstance(weight, int | float):
        raise NotNative("a weight that is a size")
    if weight == 1:
        return term
    if not isinstance(term, Value):
        return term * weight
    return call.add("multiply", term.name, _named(call, weight), result=term.shape, dtype=term.dtype)


_ARITHMETIC = {"add": "add", "sub": "subtract", "mul": "multiply", "div": "divide"}


@rule(*(f"aten.{name}{overload}" for name in _ARITHMETIC for overload in (".Tensor", "_.Tensor", ".Scalar")))
def _arithmetic(call: Call) -> Value:
    other = _weighted(call, call["other"], call.arguments.get("alpha", 1))
    return _combined(call, _ARITHMETIC[call.function], call["self"], other)


@rule("aten.rsub.Scalar")
def _subtract_from(call: Call) -> Value:
    return _combined(call, "subtract", call["other"], _weighted(call, call["self"], call["alpha"]))


@rule("aten.addcmul.default")
def _add_product(call: Call) -> Value:
    product = _combined(call, "multiply", call["tensor1"], call["tensor2"])
    return _combined(call, "add", call["self"], _weighted(call, product, call["value"]))


# ---- nothing at all --------------------------------------------------------------------------------------


@rule(*(f"aten.{name}.default" for name in ("contiguous", "clone", "alias", "detach", "detach_", "lift_fresh_copy")))
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
