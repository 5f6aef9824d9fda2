"""A sum over an axis that was made by stacking tensors, or by splitting channels, is a sum of the parts.

So are the weighted branches of selective kernels (Li et al. 2019) and split attention (Zhang et al. 2020). The parts
stay in the layout of the engine; what made the axis is read by nobody any more, and goes.
"""

from __future__ import annotations

from collections.abc import Sequence

from convoxel.graph.ir.graph import Node, Value
from convoxel.graph.ir.size import Extents
from convoxel.graph.operators.rewriter import is_native_type
from convoxel.graph.read.torch.call import Call

__all__ = ["sum_of_parts"]


def sum_of_parts(call: Call, x: Value, axis: int) -> Value | None:
    """Return the sum of ``x`` over ``axis`` as additions, None if the parts along it are not at hand."""
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    if not is_native_type(shape, x.dtype):
        return None
    parts = _parts(call, x, axis, shape)
    if parts is None:
        return None
    total = parts[0]
    for part in parts[1:]:
        total = call.add("add", total.name, part.name, result=shape)
    return total


def _parts(call: Call, x: Value, axis: int, shape: Extents) -> Sequence[Value] | None:
    """Return the tensors of ``shape`` that lie side by side along an axis of ``x``."""
    node = call.reader.producer(x.name)
    if node is None:
        return None
    if node.operator == "concat" and node["axis"] == axis:
        found = [_before_reshape(call, name) for name in node.inputs]
        return [part for part in found if part is not None and part.shape == shape] if _all(found, shape) else None
    if node.operator == "reshape" and axis == 1:
        return _channel_groups(call, node, x.shape, shape)
    if node.operator == "multiply":
        return _weighted(call, node, axis, shape)
    return None


def _all(parts: Sequence[Value | None], shape: Extents) -> bool:
    return all(part is not None and part.shape == shape for part in parts)


def _before_reshape(call: Call, name: str) -> Value | None:
    node = call.reader.producer(name)
    return call.reader.value(node.inputs[0]) if node is not None and node.operator == "reshape" else None


def _channel_groups(call: Call, node: Node, split: Extents, shape: Extents) -> Sequence[Value] | None:
    """The channels of what was reshaped from (n, r · c, …) to (n, r, c, …), in r parts."""
    whole = call.reader.value(node.inputs[0])
    count, channels = split[1], split[2]
    if whole is None or not isinstance(count, int) or not isinstance(channels, int):
        return None
    if whole.shape != (split[0], count * channels, *split[3:]):
        return None
    return [call.narrowed(whole, 1, i * channels, (i + 1) * channels, result=shape) for i in range(count)]


def _weighted(call: Call, node: Node, axis: int, shape: Extents) -> Sequence[Value] | None:
    """The parts of a product with one factor for each part, image and channel."""
    for first, second in (node.inputs, node.inputs[::-1]):
        x, weight = call.reader.value(first), call.reader.value(second)
        if x is None or weight is None or len(weight.shape) != len(x.shape) or set(weight.shape[3:]) != {1}:
            continue
        parts = _parts(call, x, axis, shape)
        if parts is None or weight.shape[axis] != len(parts):
            continue
        small = (*weight.shape[:axis], *weight.shape[axis + 1 :])
        factors = [call.select(weight, axis, index, small) for index in range(len(parts))]
        pairs = zip(parts, factors, strict=True)
        return [call.add("multiply", part.name, factor.name, result=shape) for part, factor in pairs]
    return None
