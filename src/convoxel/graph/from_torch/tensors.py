"""Rules of the operators that move, join and combine whole tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoxel.graph.from_torch.call import RANKS, Call, as_native, rule
from convoxel.graph.ir import Value
from convoxel.graph.reader import NotNative
from convoxel.graph.size import Extents, Size

# ---- padding, slicing, joining ---------------------------------------------------------------------------

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
        raise NotNative("padding with a number other than 0, or of batch or channels")
    return call.add("pad", x.name, padding=tuple(pairs[2:]), mode=mode)


@rule("aten.slice.Tensor")
def _slice(call: Call) -> Value:
    start, stop, step = call["start"], call["end"], call["step"]
    return _narrowed(call, call["dim"], start or 0, None if stop == 2**63 - 1 else stop, step)


@rule("aten.narrow.default")
def _narrow(call: Call) -> Value:
    start, length = call["start"], call["length"]
    if not (isinstance(start, int) and isinstance(length, int) and start >= 0):
        raise NotNative("a range that depends on the input's size")
    return _narrowed(call, call["dim"], start, start + length, 1)


def _narrowed(call: Call, axis: int, start: Any, stop: Any, step: int) -> Value:
    x = call.tensor("self")
    axis %= len(x.shape)
    if axis == 1 and step != 1:
        raise NotNative("every so-many-th channel")
    return call.add("narrow", x.name, axis=axis, start=start, stop=stop, step=step)


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
            constant = np.array(part.detach().cpu().numpy())
            if constant.dtype != np.float32 or constant.ndim not in RANKS:
                raise NotNative(f"part {index} is {constant.dtype} with {constant.ndim} axes")
            parts.append(call.reader.constant(constant, f"{call.name}.{index}", owner=part))
        else:
            parts.append(as_native(part).name)
    axis = call.arguments.get("dim", 0)
    if len(parts) == 1:
        return call.add("narrow", parts[0], axis=0)
    return call.add("concat", *parts, axis=axis % len(call.shape))


def _reshape(call: Call) -> Value:
    x = call.tensor("self")
    if x.shape == call.shape:
        return x
    if _core(x.shape) == _core(call.shape) is not None:
        return call.add("squeeze", x.name, shape=call.shape)
    return call.add("reshape", x.name, shape=call.shape)


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


# ---- arithmetic ------------------------------------------------------------------------------------------


@rule("aten.add.Tensor", "aten.add_.Tensor", "aten.add.Scalar")
def _add(call: Call) -> Value:
    return _sum(call, call["self"], call["other"], call["alpha"])


@rule("aten.sub.Tensor", "aten.sub_.Tensor", "aten.sub.Scalar")
def _subtract(call: Call) -> Value:
    alpha = call["alpha"]
    if isinstance(call["other"], Value):
        raise NotNative("a difference of two tensors")
    return _sum(call, call["self"], call["other"], -alpha)


def _sum(call: Call, a: Any, b: Any, alpha: Any) -> Value:
    number = _per_channel(call, b)
    if number is not None and isinstance(alpha, int | float):
        return _scaled(call, a, np.ones(1), number * alpha)
    if alpha != 1:
        raise NotNative("a weighted sum")
    return _combined(call, "add", a, b)


@rule("aten.mul.Tensor", "aten.mul_.Tensor", "aten.mul.Scalar")
def _multiply(call: Call) -> Value:
    a, b = call["self"], call["other"]
    number = _per_channel(call, b)
    return _combined(call, "multiply", a, b) if number is None else _scaled(call, a, number, np.zeros(1))


@rule("aten.div.Tensor", "aten.div_.Tensor", "aten.div.Scalar")
def _divide(call: Call) -> Value:
    number = _per_channel(call, call["other"])
    if number is None or not np.all(number):
        raise NotNative("a quotient of tensors")
    return _scaled(call, call["self"], 1.0 / number, np.zeros(1))


def _per_channel(call: Call, term: Any) -> NDArray[np.float64] | None:
    """Return a number, or one number per channel, if that is what ``term`` is."""
    if isinstance(term, bool | Size | Value):
        return None
    if isinstance(term, int | float):
        return np.array([term], np.float64)
    array = np.asarray(term.detach().cpu().numpy(), np.float64)
    padded = (1,) * (len(call.shape) - array.ndim) + array.shape
    if len(padded) < 2 or array.size not in (1, padded[1]):
        return None
    return array.reshape(-1)


def _scaled(call: Call, a: Any, scale: NDArray[np.float64], shift: NDArray[np.float64]) -> Value:
    if not isinstance(a, Value) or as_native(a).shape != call.shape:
        raise NotNative("a constant stretched to a tensor's shape")
    names = [call.reader.constant(array, f"{call.name}.{part}") for part, array in (("scale", scale), ("shift", shift))]
    return call.add("affine", a.name, *names)


def _combined(call: Call, operator: str, a: Any, b: Any) -> Value:
    """Sum or product; the operand that has the result's shape comes first."""
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
    array = np.array(b.detach().cpu().numpy())
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


@rule(*(f"aten.{name}.default" for name in ("dropout", "dropout_", "feature_dropout", "alpha_dropout")))
def _dropout(call: Call) -> Any:
    if call["train"]:
        raise NotNative("dropout while training")
    return call["input"] if "input" in call.arguments else call["self"]


@rule("aten.to.dtype", "aten.to.device", "aten._to_copy.default", "aten.type_as.default", "aten.to.dtype_layout")
def _to(call: Call) -> Value:
    x = call.arguments["self"]
    if isinstance(x, Value) and x.dtype == call.dtypes[0]:
        return x
    raise NotNative("a change of type")
