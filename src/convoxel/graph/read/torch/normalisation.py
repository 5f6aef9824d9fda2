"""Rules of the normalisations: by statistics of the training data, the batch, each image, groups of channels."""

from __future__ import annotations

import math

import torch

from convoxel.graph.ir.graph import Value
from convoxel.graph.ir.size import Extents
from convoxel.graph.read.reader import NotNative
from convoxel.graph.read.torch.call import Call, Result, rule


def _weights(call: Call) -> tuple[str, str]:
    return call.constant("weight"), call.constant("bias")


def _running_norm(call: Call) -> Value:
    """By statistics that training has left behind."""
    statistics = (call.constant("running_mean"), call.constant("running_var"))
    return call.add("batch_norm", call.tensor("input").name, *_weights(call), *statistics, epsilon=call["eps"])


def _batch_statistics(call: Call) -> bool:
    return bool(call.arguments.get("training", False)) or call.arguments.get("running_mean") is None


@rule("aten.batch_norm.default", "aten._native_batch_norm_legit_no_training.default")
def _batch_norm(call: Call) -> Result:
    result = _of_batch(call) if _batch_statistics(call) else _running_norm(call)
    return result if call.function == "batch_norm" else [result, None, None]


def _of_batch(call: Call) -> Value:
    return call.add("batch_normalise", call.tensor("input").name, *_weights(call), epsilon=call["eps"])


@rule("aten.native_batch_norm.default", "aten._native_batch_norm_legit.no_stats")
def _batch_norm_with_statistics(call: Call) -> Result:
    """The result, and the mean and 1 / √(variance + ε) of every channel if they are the batch's."""
    if not _batch_statistics(call):
        return [_running_norm(call), *(_empty(shape) for shape in call.shapes[1:])]
    if not {1, 2} & call.used:
        return [_of_batch(call), None, None]
    x = call.tensor("input")
    rank = len(x.shape)
    order = (1, 0, *range(2, rank))
    turned = tuple(x.shape[axis] for axis in order)
    rows = call.add("transpose", x.name, result=turned, axes=order)
    return [_of_batch(call), *_statistics(call, rows, 1, (x.shape[1],))]


def _empty(shape: Extents) -> torch.Tensor:
    if 0 not in shape:
        raise NotNative("statistics of the training data")
    return torch.zeros([extent for extent in shape if isinstance(extent, int)])


def _statistics(call: Call, x: Value, axis: int, shape: Extents) -> list[Value]:
    """Add the nodes that give the mean and 1 / √(variance + ε) over the axes from ``axis`` on, in ``shape``."""
    small = tuple(extent if i < axis else 1 for i, extent in enumerate(x.shape))
    shapes, epsilon = [x.shape, small, small], float(call["eps"])
    types = ("float32",) * 3
    parts = call.reader.add("layer_norm", call.name, (x.name,), shapes, types, axis=axis, epsilon=epsilon)
    return [call.reshaped(part, shape) for part in parts[1:]]


@rule("aten.instance_norm.default")
def _instance_norm(call: Call) -> Value:
    if not call["use_input_stats"]:
        return _running_norm(call)
    x = call.tensor("input")
    if len(x.shape) < 3:
        raise NotNative("no spatial axis")
    return call.add("normalise", x.name, *_weights(call), groups=0, epsilon=call["eps"])


@rule("aten.group_norm.default")
def _group_norm(call: Call) -> Value:
    return _of_groups(call, call["num_groups"])


def _of_groups(call: Call, groups: int) -> Value:
    return call.add("normalise", call.tensor("input").name, *_weights(call), groups=groups, epsilon=call["eps"])


@rule("aten.native_group_norm.default")
def _group_norm_with_statistics(call: Call) -> Result:
    """The result, and the mean and 1 / √(variance + ε) of every group, (n, groups)."""
    x, groups = call.tensor("input"), call["group"]
    result = _of_groups(call, groups)
    if not {1, 2} & call.used:
        return [result, None, None]
    split = call.reshaped(x, (x.shape[0], groups, math.prod(x.shape[1:]) // groups))
    return [result, *_statistics(call, split, 2, (x.shape[0], groups))]


@rule("aten.layer_norm.default")
def _layer_norm(call: Call) -> Result:
    x, axis = _from_axis(call)
    return call.add("layer_norm", x.name, *_weights(call), axis=axis, epsilon=float(call["eps"]))


@rule("aten.native_layer_norm.default")
def _layer_norm_with_statistics(call: Call) -> Result:
    x, axis = _from_axis(call)
    return call.add_all("layer_norm", x.name, *_weights(call), axis=axis, epsilon=float(call["eps"]))


@rule("aten.rms_norm.default")
def _rms_norm(call: Call) -> Result:
    x, axis = _from_axis(call)
    usual = torch.finfo(torch.float32).eps
    epsilon = float(usual if call["eps"] is None else call["eps"])
    return call.add_all("rms_norm", x.name, call.constant("weight"), axis=axis, epsilon=epsilon)


def _from_axis(call: Call) -> tuple[Value, int]:
    """Return the operand, and the first of the axes that are normalised together."""
    x = call["input"]
    if not isinstance(x, Value) or x.dtype != "float32":
        raise NotNative("input is a constant, or not float32")
    return x, len(x.shape) - len(call["normalized_shape"])
