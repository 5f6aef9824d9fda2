"""The pass that turns a sum over an axis that was made by stacking tensors, or by splitting channels, into additions.

So are the weighted branches of selective kernels (Li et al. 2019) and split attention (Zhang et al. 2020) summed. The
parts stay in the layout of the engine; what made the axis is read by nobody any more, and dies.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from convoxel.errors import GraphError
from convoxel.graph.ir.graph import Graph, Node, Value
from convoxel.graph.ir.size import Extents
from convoxel.graph.operators.rewriter import is_native_type
from convoxel.graph.operators.table import make_node


def split_sums(graph: Graph) -> Graph:
    """Return the graph with sums over an axis of known parts as sums of the parts."""
    nodes = [new for node in graph.nodes for new in _Sum(graph, node).added()]
    return graph if len(nodes) == len(graph.nodes) else graph.replace(nodes=tuple(nodes))


def check_no_summed_stack(graph: Graph) -> None:
    """Raise if a sum over one axis could still be split."""
    for node in graph.nodes:
        if len(_Sum(graph, node).added()) > 1:
            raise GraphError(f"{node.name} sums parts that lie side by side")


class _Sum:
    """A node that may sum parts, and the nodes that sum them instead."""

    def __init__(self, graph: Graph, node: Node) -> None:
        self._graph, self._node, self._nodes = graph, node, list[Node]()

    def added(self) -> Sequence[Node]:
        """Return the nodes that make the result: the node itself if it sums no parts."""
        node = self._node
        if node.operator != "reduce" or node["function"] != "sum" or len(node["axes"]) != 1 or node["keep"]:
            return [node]
        x, total, axis = self._graph.values.get(node.inputs[0]), node.output, node["axes"][0]
        if x is None or not is_native_type(total.shape, x.dtype):
            return [node]
        parts = self._parts(x, axis, total.shape)
        if parts is None or len(parts) < 2:
            return [node]
        sums = [parts[0], *(f"{node.name}.{index}" for index in range(1, len(parts) - 1)), total.name]
        for (before, after), part in zip(pairwise(sums), parts[1:], strict=True):
            self._nodes.append(make_node("add", after, (before, part), (Value(after, total.shape),)))
        return self._nodes

    def _add(self, operator: str, source: str, *others: str, result: Extents, **attributes: Any) -> str:
        name = f"{self._node.name}.{operator}{len(self._nodes)}"
        self._nodes.append(make_node(operator, name, (source, *others), (Value(name, result),), **attributes))
        return name

    def _parts(self, x: Value, axis: int, shape: Extents) -> Sequence[str] | None:
        """Return the tensors of ``shape`` that lie side by side along an axis of ``x``."""
        node = self._graph.producers.get(x.name)
        if node is None:
            return None
        if node.operator == "concat" and node["axis"] == axis:
            return self._stacked(node, shape)
        if node.operator == "reshape" and axis == 1:
            return self._channel_groups(node, x.shape, shape)
        return self._weighted(node, axis, shape) if node.operator == "multiply" else None

    def _stacked(self, node: Node, shape: Extents) -> Sequence[str] | None:
        """Return what was given one more axis, of size 1, and concatenated."""
        makers = [self._graph.producers.get(name) for name in node.inputs]
        parts = [maker.inputs[0] for maker in makers if maker is not None and maker.operator == "reshape"]
        values = [self._graph.values.get(name) for name in parts]
        fits = len(parts) == len(makers) and all(value is not None and value.shape == shape for value in values)
        return parts if fits else None

    def _channel_groups(self, node: Node, split: Extents, shape: Extents) -> Sequence[str] | None:
        """Return the channels of what was reshaped from (n, r · c, …) to (n, r, c, …), in r parts."""
        whole, (count, channels) = self._graph.values.get(node.inputs[0]), split[1:3]
        if whole is None or not isinstance(count, int) or not isinstance(channels, int):
            return None
        if whole.shape != (split[0], count * channels, *split[3:]):
            return None
        return [self._range(whole, 1, i * channels, (i + 1) * channels, shape) for i in range(count)]

    def _weighted(self, node: Node, axis: int, shape: Extents) -> Sequence[str] | None:
        """Return the parts of a product with one factor for each part, image and channel."""
        for first, second in (node.inputs, node.inputs[::-1]):
            x, weight = self._graph.values.get(first), self._graph.values.get(second)
            if x is None or weight is None or len(weight.shape) != len(x.shape) or set(weight.shape[3:]) != {1}:
                continue
            if weight.shape[axis] != x.shape[axis] or (parts := self._parts(x, axis, shape)) is None:
                continue
            one = (*weight.shape[:axis], 1, *weight.shape[axis + 1 :])
            small = (*weight.shape[:axis], *weight.shape[axis + 1 :])
            ranges = [self._range(weight, axis, index, index + 1, one) for index in range(len(parts))]
            factors = [self._add("reshape", name, result=small, shape=small) for name in ranges]
            return [
                self._add("multiply", part, factor, result=shape) for part, factor in zip(parts, factors, strict=True)
            ]
        return None

    def _range(self, x: Value, axis: int, start: int, stop: int, shape: Extents) -> str:
        def along(number: Any, others: Any) -> tuple[Any, ...]:
            return tuple(number if each == axis else others for each in range(len(x.shape)))

        bounds = {"starts": along(start, 0), "stops": along(stop, None), "steps": along(1, 1)}
        return self._add("slice", x.name, result=shape, **bounds)
