"""Rules of operators that move numbers, sum over axes, multiply matrices, or name elements by indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from convoxel.graph.ir.size import Size
from convoxel.graph.write.onnx.call import Call, onnx_type, rule
from convoxel.graph.write.onnx.sizes import NotExpressible

_LAST, _FIRST = 2**63 - 1, -(2**63)  # bounds of a slice that has none


@rule("channels_last", "channels_first")
def _layout(call: Call) -> str:
    """Where numbers lie is no matter of ONNX."""
    return call.x


@rule("concat")
def _concat(call: Call) -> str:
    return call.add("Concat", *map(call.operand, range(len(call))), axis=call["axis"])


@rule("reshape", "swap_channels_space")
def _reshape(call: Call) -> str:
    return call.reshaped(call.x, call["shape"], call.shape())


@rule("transpose")
def _transpose(call: Call) -> str:
    return call.add("Transpose", call.x, perm=call["axes"])


@rule("slice")
def _slice(call: Call) -> str:
    rows = zip(call["starts"], call["stops"], call["steps"], strict=True)
    taken = [(axis, *row) for axis, row in enumerate(rows) if row != (0, None, 1)]
    if not taken:
        return call.x
    axes, starts, stops, steps = zip(*taken, strict=True)
    ends = [(_LAST if step > 0 else _FIRST) if stop is None else stop for stop, step in zip(stops, steps, strict=True)]
    return call.add("Slice", call.x, call.vector(starts), call.vector(ends), call.ints(axes), call.ints(steps))


@rule("expand")
def _expand(call: Call) -> str:
    return call.add("Expand", call.x, call.vector(call["shape"]))


@rule("tile")
def _tile(call: Call) -> str:
    return call.add("Tile", call.x, call.vector(call["repeats"]))


@rule("zeros")
def _zeros(call: Call) -> str:
    return call.add("ConstantOfShape", call.vector(call.result.shape))


@rule("fill")
def _fill(call: Call) -> str:
    value = call.reshaped(call.x, (1,)) if call.rank() else call.x
    return call.add("Expand", value, call.vector(call["shape"]))


_MODES = {"constant": "constant", "zero": "constant", "replicate": "edge", "reflect": "reflect", "circular": "wrap"}


@rule("pad")
def _pad(call: Call) -> str:
    mode = _MODES.get(call["mode"], call["mode"])
    if mode == "wrap":
        call.writer.require(19)
    lows, highs = zip(*call["padding"], strict=True)
    value = call.reshaped(call.operand(1), ()) if call.has(1) and call.rank(1) else call.operand(1)
    return call.add("Pad", call.x, call.vector([*lows, *highs]), value if mode == "constant" else "", mode=mode)


@rule("shuffle")
def _shuffle(call: Call) -> str:
    """Channel (g, i) goes to (i, g)."""
    channels, groups = call.shape()[1], call["groups"]
    if isinstance(channels, Size):
        raise NotExpressible("channels that are open")
    index = np.arange(channels).reshape(groups, -1).T.reshape(-1)
    return call.add("Gather", call.x, call.ints(index.tolist()), axis=1)


@rule("gather_channels")
def _gather_channels(call: Call) -> str:
    index = call.known(1)
    assert index is not None
    return call.add("Gather", call.x, call.ints(index.reshape(-1).tolist()), axis=1)


@rule("depth_to_space")
def _depth_to_space(call: Call) -> str:
    n, channels, *space = call.shape()
    block, dims = call["block"], len(space)
    if dims == 2:
        return call.add("DepthToSpace", call.x, blocksize=block, mode="CRD" if call["channels_outside"] else "DCR")
    inner = channels // block**dims
    blocks = (block,) * dims
    if call["channels_outside"]:
        parts = call.reshaped(call.x, (n, inner, *blocks, *space))
        order = [0, 1, *(axis for i in range(dims) for axis in (2 + dims + i, 2 + i))]
    else:
        parts = call.reshaped(call.x, (n, *blocks, inner, *space))
        order = [0, 1 + dims, *(axis for i in range(dims) for axis in (2 + dims + i, 1 + i))]
    return call.reshaped(call.add("Transpose", parts, perm=order), (n, inner, *(size * block for size in space)))


@rule("space_to_depth")
def _space_to_depth(call: Call) -> str:
    n, channels, *space = call.shape()
    block, dims = call["block"], len(space)
    parts = call.reshaped(call.x, (n, channels, *(part for size in space for part in (size // block, block))))
    outer, inner = [2 + 2 * i for i in range(dims)], [3 + 2 * i for i in range(dims)]
    order = [0, 1, *inner, *outer] if call["channels_outside"] else [0, *inner, 1, *outer]
    moved = call.add("Transpose", parts, perm=order)
    return call.reshaped(moved, (n, channels * block**dims, *(size // block for size in space)))


@rule("roll")
def _roll(call: Call) -> str:
    x = call.x
    for axis, shift in zip(call["axis"], call["shift"], strict=True):
        size = call.shape()[axis]
        if isinstance(shift, Size) or not shift:
            if isinstance(shift, Size):
                raise NotExpressible("a shift that is open")
            continue
        cut = [-shift % size]
        front = call.add("Slice", x, call.vector(cut), call.ints([_LAST]), call.ints([axis]))
        back = call.add("Slice", x, call.ints([0]), call.vector(cut), call.ints([axis]))
        x = call.add("Concat", front, back, axis=axis)
    return x


@rule("triangle")
def _triangle(call: Call) -> str:
    return call.add("Trilu", call.x, call.constant(np.array(call["offset"], np.int64)), upper=int(call["upper"]))


# ---- known values and sizes ----------------------------------------------------------------------------------


@rule("sizes")
def _sizes(call: Call) -> str:
    dtype = call.result.dtype
    values: Sequence[Any] = call["values"]
    if any(isinstance(value, Size) and value.kind not in ("int64", "bool") for value in values):
        parts = [
            call.writer.sizes.scalar(value) if isinstance(value, Size) else call.number(float(value), "float64")
            for value in values
        ]
        parts = [call.reshaped(call.add("Cast", part, to=onnx_type("float64")), (1,)) for part in parts]
        vector = call.add("Concat", *parts, axis=0)
    else:
        vector = call.vector([value if isinstance(value, Size) else int(value) for value in values])
    return call.reshaped(call.add("Cast", vector, to=onnx_type(dtype)), call["shape"])


@rule("range")
def _range(call: Call) -> str:
    bounds = [call["start"], call["stop"], call["step"]]
    if any(isinstance(bound, float) or (isinstance(bound, Size) and bound.kind != "int64") for bound in bounds):
        raise NotExpressible("a range of fractions")
    scalars = [call.reshaped(call.vector([bound]), ()) for bound in bounds]
    made = call.add("Range", *scalars)
    return made if call.result.dtype == "int64" else call.add("Cast", made, to=onnx_type(call.result.dtype))


# ---- indices -------------------------------------------------------------------------------------------------


@rule("gather")
def _gather(call: Call) -> str:
    return call.add("Gather", call.x, call.operand(1), axis=call["axis"])


@rule("take_along")
def _take_along(call: Call) -> str:
    return call.add("GatherElements", call.x, call.operand(1), axis=call["axis"])


@rule("scatter")
def _scatter(call: Call) -> str:
    return call.add("ScatterElements", *map(call.operand, range(3)), axis=call["axis"])


@rule("scatter_reduce")
def _scatter_reduce(call: Call) -> str:
    reduction = {"amax": "max", "amin": "min", "prod": "mul"}.get(call["function"], call["function"])
    return call.add("ScatterElements", *map(call.operand, range(3)), axis=call["axis"], reduction=reduction)


@rule("gather_points")
def _gather_points(call: Call) -> str:
    return call.add("GatherND", call.x, call.operand(1), batch_dims=call["batch"])


@rule("scatter_points")
def _scatter_points(call: Call) -> str:
    return call.add("ScatterND", *map(call.operand, range(3)), reduction=call["reduction"])


@rule("index")
def _index(call: Call) -> str:
    if len(call["axes"]) != 1:
        raise NotExpressible("indices of several axes")
    return call.add("Gather", call.x, call.operand(1), axis=call["axes"][0])


# ---- sums over axes, products --------------------------------------------------------------------------------

_REDUCTIONS = {
    "l1": "ReduceL1",
    "l2": "ReduceL2",
    "log_sum": "ReduceLogSum",
    "log_sum_exp": "ReduceLogSumExp",
    "max": "ReduceMax",
    "mean": "ReduceMean",
    "min": "ReduceMin",
    "product": "ReduceProd",
    "sum": "ReduceSum",
    "sum_square": "ReduceSumSquare",
}


@rule("reduce")
def _reduce(call: Call) -> str:
    function, axes = call["function"], call["axes"]
    if not axes:
        raise NotExpressible("a reduction over no axis")
    over, keep = call.ints(axes), int(call["keep"])
    if function in ("all", "any"):
        numbers = call.add("Cast", call.add("Cast", call.x, to=onnx_type("bool")), to=onnx_type("int32"))
        found = call.add("ReduceMin" if function == "all" else "ReduceMax", numbers, over, keepdims=keep)
        return call.add("Cast", found, to=onnx_type("bool"))
    return call.add(_REDUCTIONS[function], call.x, over, keepdims=keep)


@rule("arg_extreme")
def _arg_extreme(call: Call) -> str:
    how = {"axis": call["axis"], "keepdims": int(call["keep"]), "select_last_index": int(call["last"])}
    return call.add("ArgMax" if call["largest"] else "ArgMin", call.x, **how)


@rule("top")
def _top(call: Call) -> list[str]:
    return call.several(
        2, "TopK", call.x, call.vector([call["count"]]), axis=call["axis"], largest=int(call["largest"])
    )


@rule("accumulate")
def _accumulate(call: Call) -> str:
    if call["function"] != "sum":
        raise NotExpressible(f"a running {call['function']}")
    axis = call.constant(np.array(call["axis"], np.int64), "axis")
    return call.add("CumSum", call.x, axis, exclusive=int(call["exclusive"]), reverse=int(call["reverse"]))


@rule("matmul")
def _matmul(call: Call) -> str:
    return call.add("MatMul", call.x, call.operand(1))


@rule("einsum")
def _einsum(call: Call) -> str:
    return call.add("Einsum", *map(call.operand, range(len(call))), equation=call["equation"])
