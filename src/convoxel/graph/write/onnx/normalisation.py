"""Rules of normalisations, and of softmax and its like."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from convoxel.graph.ir.size import Size
from convoxel.graph.write.onnx.call import Call, rule
from convoxel.graph.write.onnx.sizes import NotExpressible


@rule("batch_norm")
def _batch_norm(call: Call) -> str:
    mean = call.known(3)
    assert mean is not None
    scale = call.operand(1) or call.constant(np.ones_like(mean), "scale")
    shift = call.operand(2) or call.constant(np.zeros_like(mean), "shift")
    return call.add(
        "BatchNormalization", call.x, scale, shift, call.operand(3), call.operand(4), epsilon=_epsilon(call)
    )


@rule("batch_normalise")
def _batch_normalise(call: Call) -> str:
    """By the statistics of the batch itself."""
    return call.finished(_scaled(call, _standardised(call, [0, *range(2, call.rank())])))


@rule("channel_norm")
def _channel_norm(call: Call) -> str:
    """Over the channels of each position."""
    return call.finished(_scaled(call, _standardised(call, [1])))


@rule("normalise")
def _normalise(call: Call) -> str:
    """Of each image, over each group of channels; 0 groups are as many as channels."""
    channels, groups = call.shape()[1], call["groups"]
    if isinstance(channels, Size) or call.rank() < 3:
        raise NotExpressible("channels that are open, or no positions")
    if groups in (0, channels):
        ends = [_vector(call, index, channels, usual) for index, usual in ((1, 1.0), (2, 0.0))]
        return call.finished(call.add("InstanceNormalization", call.x, *ends, epsilon=_epsilon(call)))
    parts = call.add("Reshape", call.x, call.ints([0, groups, -1]))
    ends = [call.constant(np.full(groups, usual, np.float32), "ends") for usual in (1.0, 0.0)]
    normal = call.add("InstanceNormalization", parts, *ends, epsilon=_epsilon(call))
    return call.finished(_scaled(call, call.add("Reshape", normal, call.add("Shape", call.x))))


@rule("layer_norm")
def _layer_norm(call: Call) -> list[str]:
    axis = call["axis"] % call.rank()
    normal = tuple(call.shape()[axis:])
    scale = call.operand(1)
    if not scale:
        if any(isinstance(size, Size) for size in normal):
            scale = call.number(1.0)  # stretches
        else:
            scale = call.constant(np.ones(normal, call.dtype()), "scale")
    read = [call.reads(1), call.reads(2)]
    results = 3 if any(read) else 1
    made = call.several(
        results, "LayerNormalization", call.x, scale, call.operand(2), axis=axis, epsilon=_epsilon(call)
    )
    return list(made)


@rule("rms_norm")
def _rms_norm(call: Call) -> str:
    axes = call.ints(range(call["axis"] % call.rank(), call.rank()))
    square = call.add("ReduceMean", call.add("Mul", call.x, call.x), axes, keepdims=1)
    y = call.add("Div", call.x, _root(call, square))
    return call.add("Mul", y, call.operand(1)) if call.has(1) else y


@rule("local_response_norm")
def _local_response_norm(call: Call) -> str:
    how = {key: float(call[key]) for key in ("alpha", "beta", "bias")}
    return call.add("LRN", call.x, size=call["size"], **how)


@rule("lp_normalise")
def _lp_normalise(call: Call) -> str:
    return call.add("LpNormalization", call.x, axis=call["axis"], p=call["p"])


@rule("mean_variance_normalise")
def _mean_variance_normalise(call: Call) -> str:
    axes = call.ints(call["axes"])
    centred = call.add("Sub", call.x, call.add("ReduceMean", call.x, axes, keepdims=1))
    deviation = call.add("Sqrt", call.add("ReduceMean", call.add("Mul", centred, centred), axes, keepdims=1))
    return call.add("Div", centred, call.add("Add", deviation, call.number(_epsilon(call))))


@rule("softmax")
def _softmax(call: Call) -> str:
    axes, log = call["axes"], call["log"]
    if len(axes) == 1:
        return call.add("LogSoftmax" if log else "Softmax", call.x, axis=axes[0])
    over = call.ints(axes)
    shifted = call.add("Sub", call.x, call.add("ReduceMax", call.x, over, keepdims=1))
    powers = call.add("Exp", shifted)
    total = call.add("ReduceSum", powers, over, keepdims=1)
    return call.add("Sub", shifted, call.add("Log", total)) if log else call.add("Div", powers, total)


@rule("hardmax")
def _hardmax(call: Call) -> str:
    if len(call["axes"]) != 1:
        raise NotExpressible("a maximum over several axes")
    return call.add("Hardmax", call.x, axis=call["axes"][0])


# ---- parts ---------------------------------------------------------------------------------------------------


def _epsilon(call: Call) -> float:
    return float(call["epsilon"])


def _root(call: Call, variance: str) -> str:
    return call.add("Sqrt", call.add("Add", variance, call.number(_epsilon(call))))


def _standardised(call: Call, axes: Sequence[int]) -> str:
    """Return (x − mean) / √(variance + ε) over some axes."""
    over = call.ints(axes)
    centred = call.add("Sub", call.x, call.add("ReduceMean", call.x, over, keepdims=1))
    variance = call.add("ReduceMean", call.add("Mul", centred, centred), over, keepdims=1)
    return call.add("Div", centred, _root(call, variance))


def _scaled(call: Call, y: str) -> str:
    """Return y · weight + bias, of each channel; operands 1 and 2."""
    for index, operator in ((1, "Mul"), (2, "Add")):
        array = call.known(index)
        if array is not None:
            y = call.add(operator, y, call.per_channel(array, call.rank()))
    return y


def _vector(call: Call, index: int, channels: int, usual: float) -> str:
    """Return one number for each channel: a constant operand, or ``usual``."""
    array = call.known(index)
    if array is None:
        return call.constant(np.full(channels, usual, np.float32), "channels")
    flat = np.asarray(array, np.float32).reshape(-1)
    return call.constant(np.broadcast_to(flat, channels) if flat.size == 1 else flat, "channels")
