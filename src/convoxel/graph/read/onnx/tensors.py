"""Rules of the operators that move, join, cut and make tensors, and of those that compute with sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from convoxel.graph.ir.graph import Value
from convoxel.graph.ir.size import Extents, Size, differ, larger, smaller
from convoxel.graph.operators.quantisation import limits
from convoxel.graph.read.onnx.call import Call, Parts, Result, Tensor, dtype_of, rank, rule
from convoxel.graph.read.onnx.file import working_dtype
from convoxel.graph.read.onnx.sizes import settled
from convoxel.graph.read.reader import NotNative

_END = 2**31  # exporters write "to the end" as a large number


# ---- what is known -----------------------------------------------------------------------------------------


@rule("Constant")
def _constant(call: Call) -> Result:
    for name, dtype in (("value_int", np.int64), ("value_float", np.float32)):
        for key in (name, f"{name}s"):
            if key in call.attributes:
                return np.array(call.attributes[key], dtype)
    if "value" not in call.attributes:
        raise NotNative("a constant that is no dense tensor of numbers")
    call.reader.note_literal(call.attributes["value"])
    return call.attributes["value"]


@rule("ConstantOfShape")
def _fill(call: Call) -> Result:
    shape, value = call.extents(0, "shape"), call.get("value")
    if value is None:
        value = np.zeros(1, np.float32)
    if any(isinstance(extent, Size) for extent in shape):
        return call.add("fill", value, shape=shape)
    call.require(min(shape, default=1) >= 0, f"the shape asked for is {list(shape)}; expected sizes of at least 0")
    call.budget.repeat(shape, str(value.dtype))
    return np.broadcast_to(value.reshape(-1)[0], shape)  # takes no memory until something else is made of it


@rule("Shape")
def _shape(call: Call) -> Result:
    shape = np.array(call.tensor(0).shape, object)
    call.reader.lengths.update(extent for extent in shape if isinstance(extent, Size))
    begin, end = call.get("start", 0), call.get("end")
    return settled(shape[slice(begin, end)], "int64")


@rule("Size")
def _size(call: Call) -> Result:
    return settled(np.array(math.prod(call.tensor(0).shape), object), "int64")


@rule("Range")
def _range(call: Call) -> Result:
    begin, end, step = (call.known(index, "a bound") for index in range(3))
    if object in (begin.dtype, end.dtype, step.dtype):
        start, stop, by = (bound.astype(object).item() for bound in (begin, end, step))
        return call.add("range", dtype=dtype_of(begin), start=start, stop=stop, step=by)
    call.require(step != 0, "steps of 0")
    if (end - begin) / step > _END // 16:
        raise NotNative("a range of that length")
    bounds: list[Any] = [begin.item(), end.item(), step.item()]
    return np.arange(*bounds, dtype=begin.dtype)


@rule("NonZero")
def _not_zero(call: Call) -> Result:
    """Where a tensor that is known is not 0; of a line of ones, which early sets count by, everywhere."""
    x = call.tensor(0)
    if isinstance(x, np.ndarray) and x.dtype != object:
        return np.array(np.nonzero(x), np.int64)
    made = call.reader.producer(x.name) if isinstance(x, Value) else None
    if made is None or made.operator != "fill" or rank(x) != 1 or not call.reader.constants[made.inputs[0]].all():
        raise NotNative("places that values decide")
    places = call.add("range", dtype="int64", start=0, stop=x.shape[0], step=1)
    return reshaped(call, places, (1, x.shape[0]))


@rule("Identity")
def _identity(call: Call) -> Result:
    return call.tensor(0)


@rule("Cast", "CastLike")
def _cast(call: Call) -> Result:
    x = call.tensor(0)
    to = dtype_of(call.tensor(1)) if call.operator == "CastLike" else working_dtype(call.get("to"))
    if to == dtype_of(x):
        return x
    if to.startswith("float8") and call.get("saturate", 1):
        limit = np.array(limits(to)[1], np.float32)
        wide = call.add("cast", x, dtype="float32", to="float32")
        x = call.add("clip", wide, -limit, limit)
    return call.add("cast", x, dtype=to, to=to)


# ---- shapes ------------------------------------------------------------------------------------------------


def reshaped(call: Call, x: Tensor, shape: Extents) -> Tensor:
    """Return x in another shape."""
    return x if shape == tuple(x.shape) else call.add("reshape", x, shape=shape)


@rule("Reshape")
def _reshape(call: Call) -> Result:
    x = call.tensor(0)
    wanted = list(call.extents(1, "shape")) if call.version >= 5 else list(call.get("shape"))
    if not call.get("allowzero", 0):
        wanted = [x.shape[i] if isinstance(s, int) and s == 0 else s for i, s in enumerate(wanted)]
    call.require(all(s >= -1 for s in wanted) and wanted.count(-1) < 2, f"the shape asked for is {wanted}")
    if -1 in wanted:
        rest = math.prod(s for s in wanted if s != -1)
        wanted[wanted.index(-1)] = math.prod(x.shape) // rest if rest != 0 else 0
    return reshaped(call, x, tuple(wanted))


@rule("Flatten")
def _flatten(call: Call) -> Result:
    x, axis = call.tensor(0), call.get("axis", 1)
    axis = axis + rank(x) if axis < 0 else axis
    return reshaped(call, x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


def _given_axes(call: Call) -> tuple[int, ...] | None:
    if call.version >= 13 and call.maybe(1) is not None:
        return call.extents(1, "axes")
    return tuple(call.get("axes")) if call.get("axes") is not None else None


@rule("Squeeze")
def _squeeze(call: Call) -> Result:
    x, axes = call.tensor(0), _given_axes(call)
    given = [i for i, s in enumerate(x.shape) if s == 1] if axes is None else axes
    gone = {call.axis(axis, rank(x)) for axis in given}
    call.require(all(x.shape[axis] == 1 for axis in gone), f"axes {sorted(gone)} of {x.shape} are not all of size 1")
    return reshaped(call, x, tuple(s for i, s in enumerate(x.shape) if i not in gone))


@rule("Unsqueeze")
def _unsqueeze(call: Call) -> Result:
    x, axes = call.tensor(0), _given_axes(call) or ()
    total = rank(x) + len(axes)
    ones, rest = {call.axis(axis, total) for axis in axes}, iter(x.shape)
    return reshaped(call, x, tuple(1 if i in ones else next(rest) for i in range(total)))


@rule("Transpose")
def _transpose(call: Call) -> Result:
    x = call.tensor(0)
    axes = tuple(call.get("perm") or reversed(range(rank(x))))
    return x if axes == tuple(range(rank(x))) else call.add("transpose", x, axes=axes)


@rule("Expand")
def _expand(call: Call) -> Result:
    return call.add("expand", call.tensor(0), shape=call.extents(1, "shape"))


@rule("Tile")
def _tile(call: Call) -> Result:
    return call.add("tile", call.tensor(0), repeats=call.extents(1, "repeats"))


# ---- joining and cutting -----------------------------------------------------------------------------------


@rule("Concat")
def _concat(call: Call) -> Result:
    parts = [call.tensor(index) for index in range(len(call))]
    axis = call.along(parts[0], 1)
    return parts[0] if len(parts) == 1 else call.add("concat", *parts, axis=axis)


def narrowed(call: Call, x: Tensor, bounds: Mapping[int, tuple[Any, Any, int]]) -> Tensor:
    """Return the range start:stop:step of some axes."""
    full = [bounds.get(axis, (0, None, 1)) for axis in range(rank(x))]
    if all(bound == (0, None, 1) for bound in full):
        return x
    starts, stops, steps = zip(*full, strict=True)
    return call.add("slice", x, starts=starts, stops=stops, steps=steps)


@rule("Slice")
def _slice(call: Call) -> Result:
    x = call.tensor(0)
    if call.version < 10:
        starts, stops = tuple(call.get("starts")), tuple(call.get("ends"))
        axes, steps = call.get("axes"), None
    else:
        starts, stops = call.extents(1, "starts"), call.extents(2, "ends")
        axes = call.extents(3, "axes") if call.maybe(3) is not None else None
        steps = call.extents(4, "steps") if call.maybe(4) is not None else None
    axes = tuple(call.axis(axis, rank(x)) for axis in axes) if axes else tuple(range(len(starts)))
    steps = steps or (1,) * len(starts)
    call.require(0 not in steps, "steps of 0")
    bounds = {
        axis: (start, _stop(stop, step), step)
        for axis, start, stop, step in zip(axes, starts, stops, steps, strict=True)
    }
    return narrowed(call, x, bounds)


def _stop(stop: Any, step: int) -> Any:
    """Return where a range ends as Python writes it: None for the end in either direction."""
    if isinstance(stop, Size):
        return stop
    if step > 0:
        return None if stop >= _END else stop
    return None if stop <= -_END else stop


@rule("Split")
def _split(call: Call) -> Result:
    x = call.tensor(0)
    axis = call.along(x, 0)
    length = x.shape[axis]
    if call.version >= 13 and call.maybe(1) is not None:
        lengths = list(call.extents(1, "split"))
    elif call.get("split"):
        lengths = list(call.get("split"))
    else:
        count = call.get("num_outputs") or len(call.used)
        part = -(-length // count)
        lengths = [part] * (count - 1) + [length - part * (count - 1)]
    return _cut(call, x, axis, lengths)


def _cut(call: Call, x: Tensor, axis: int, lengths: list[Any]) -> list[Tensor]:
    """Return the parts of an axis, one behind the other."""
    length, total = x.shape[axis], sum(lengths)
    call.require(min(lengths) >= 0 and not differ(total, length), f"parts of {lengths} do not make up {length}")
    parts: list[Tensor] = []
    start: Any = 0
    for number, size in enumerate(lengths):
        last = number == len(lengths) - 1
        bounds = {axis: (start, None if last and size != 0 else start + size, 1)}
        parts.append(narrowed(call, x, bounds))
        start = start + size
    return parts


@rule("SplitToSequence")
def _split_to_sequence(call: Call) -> Result:
    x = call.tensor(0)
    axis = call.along(x, 0)
    length: Any = x.shape[axis]
    if call.maybe(1) is not None and rank(call.known(1, "split")) == 1:
        return Parts(_cut(call, x, axis, list(call.extents(1, "split"))))
    part = call.extents(1, "split")[0] if call.maybe(1) is not None else 1
    count = -(-length // part)
    if isinstance(count, Size):
        raise NotNative("an open number of parts")
    parts = _cut(call, x, axis, [part] * (count - 1) + [length - part * (count - 1)])
    if call.maybe(1) is None and not call.get("keepdims", 1):
        return Parts(reshaped(call, each, (*x.shape[:axis], *x.shape[axis + 1 :])) for each in parts)
    return Parts(parts)


@rule("SequenceConstruct")
def _sequence(call: Call) -> Result:
    return Parts(call.tensor(index) for index in range(len(call)))


@rule("SequenceAt")
def _sequence_at(call: Call) -> Result:
    parts, index = call.parts(0), int(call.extents(1, "position")[0])
    return parts[call.axis(index, len(parts))]


@rule("ConcatFromSequence")
def _concat_sequence(call: Call) -> Result:
    parts: list[Tensor] = list(call.parts(0))
    axis = call.axis(call.get("axis"), rank(parts[0]) + call.get("new_axis", 0))
    if call.get("new_axis", 0):
        parts = [reshaped(call, part, (*part.shape[:axis], 1, *part.shape[axis:])) for part in parts]
    return call.add("concat", *parts, axis=axis)


@rule("Gather", "GatherElements")
def _gather(call: Call) -> Result:
    operator = "gather" if call.operator == "Gather" else "take_along"
    return call.add(operator, call.tensor(0), call.tensor(1), axis=call.along(call.tensor(0), 0))


@rule("ScatterElements")
def _scatter(call: Call) -> Result:
    x = call.tensor(0)
    if call.get("reduction", "none") != "none":
        raise NotNative("a scatter that adds up")
    return call.add("scatter", x, call.tensor(1), call.tensor(2), axis=call.along(x, 0))


@rule("GatherND")
def _gather_points(call: Call) -> Result:
    x, index = call.tensor(0), call.tensor(1)
    _check_points(call, x, index, call.get("batch_dims", 0))
    return call.add("gather_points", x, index, batch=call.get("batch_dims", 0))


@rule("ScatterND")
def _scatter_points(call: Call) -> Result:
    x, index = call.tensor(0), call.tensor(1)
    _check_points(call, x, index, 0)
    return call.add("scatter_points", x, index, call.tensor(2), reduction=call.get("reduction", "none"))


def _check_points(call: Call, x: Tensor, index: Tensor, batch: int) -> None:
    """Raise unless the rows of an index name places along axes of x."""
    call.require(rank(index) > 0 and 0 <= batch < min(rank(x), rank(index)), f"batch_dims is {batch}")
    if isinstance(index.shape[-1], Size):
        raise NotNative("an index of an open number of axes")
    axes = rank(x) - batch
    call.require(1 <= index.shape[-1] <= axes, f"the index names {index.shape[-1]} axes; expected 1 to {axes}")


_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


@rule("Pad")
def _pad(call: Call) -> Result:
    x, mode = call.tensor(0), call.get("mode", "constant")
    if mode not in _PAD_MODES:
        raise NotNative(f"padding mode {mode!r}")
    if call.version < 11:
        flat: tuple[Any, ...] = tuple(call.get("pads") or call.get("paddings"))
        value: Tensor | None = np.array(call.get("value", 0.0), dtype_of(x))
        axes = tuple(range(rank(x)))
    else:
        flat, value = call.extents(1, "pads"), call.maybe(2)
        given = call.extents(3, "axes") if call.maybe(3) is not None else range(rank(x))
        axes = tuple(call.axis(axis, rank(x)) for axis in given)
    pairs: list[tuple[Any, Any]] = [(0, 0)] * rank(x)
    for place, axis in enumerate(axes):
        pairs[axis] = (flat[place], flat[place + len(axes)])
    return call.add("pad", x, value, padding=tuple(pairs), mode=_PAD_MODES[mode])


@rule("CenterCropPad")
def _centre(call: Call) -> Result:
    x = call.tensor(0)
    shape = call.extents(1, "shape")
    axes = [call.axis(axis, rank(x)) for axis in call.get("axes") or range(rank(x))]
    starts, stops = [0] * rank(x), [*x.shape]
    padding = [(0, 0)] * rank(x)
    for axis, wanted in zip(axes, shape, strict=True):
        less, more = larger(x.shape[axis] - wanted, 0), larger(wanted - x.shape[axis], 0)
        starts[axis] = less // 2
        stops[axis] = starts[axis] + smaller(x.shape[axis], wanted)
        padding[axis] = (more // 2, more - more // 2)
    x = call.add("slice", x, starts=tuple(starts), stops=tuple(stops), steps=(1,) * rank(x))
    return call.add("pad", x, None, padding=tuple(padding), mode="constant")
