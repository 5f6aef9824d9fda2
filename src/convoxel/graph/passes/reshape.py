"""The pass that makes one reshaping of several, and none where the shape stays."""

from __future__ import annotations

import dataclasses
from typing import Any

from convoxel.errors import GraphError
from convoxel.graph.ir.graph import Graph, Node, Value, rename
from convoxel.graph.ir.size import Extents
from convoxel.graph.operators.table import make_node
from convoxel.graph.operators.view import NATIVE_RANKS

__all__ = ["check_no_reshape_chain", "simplify_reshapes"]

_RESHAPES = ("array.reshape", "squeeze")


def simplify_reshapes(graph: Graph) -> Graph:
    """Return the graph with reshapings that read the first source, as views where axes of size 1 come and go alone."""
    values, origin, renamed = dict(graph.values), dict[str, str](), dict[str, str]()
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.operator not in _RESHAPES or node.inputs[0] not in values:
            nodes.append(node)
            continue
        source = values[origin.get(node.inputs[0], node.inputs[0])]
        if source.shape == node.output.shape:
            renamed[node.output.name] = source.name
            origin[node.output.name] = source.name
            continue
        origin[node.output.name] = source.name
        nodes.append(_reshaped(node, source))
    outputs = tuple(renamed.get(name, name) for name in graph.outputs)
    return graph.replace(nodes=rename(nodes, renamed), outputs=outputs)


def _reshaped(node: Node, source: Value) -> Node:
    native = source.dtype == "float32" and {len(source.shape), len(node.output.shape)} <= {*NATIVE_RANKS}
    if native and _core(source.shape) == _core(node.output.shape):
        return make_node("squeeze", node.name, (source.name,), node.outputs, shape=node["shape"])
    if node.operator == "squeeze":
        return make_node("array.reshape", node.name, (source.name,), node.outputs, shape=node["shape"])
    return dataclasses.replace(node, inputs=(source.name,))


def _core(shape: Extents) -> tuple[Any, ...]:
    """Return (n, c) and the spatial axes right-aligned to three."""
    return (*shape[:2], *(1,) * (5 - len(shape)), *shape[2:])


def check_no_reshape_chain(graph: Graph) -> None:
    """Raise if a reshaping reads a reshaping."""
    for node in graph.nodes:
        maker = graph.producers.get(node.inputs[0]) if node.operator in _RESHAPES else None
        if maker is not None and maker.operator in _RESHAPES:
            raise GraphError(f"{node.name} reshapes what {maker.name} has reshaped")
