"""The pass that makes one reshaping of several, and none where the shape stays."""

from __future__ import annotations

import dataclasses

from convoxel.errors import GraphError
from convoxel.graph.ir.graph import Graph, Node, Value, rename
from convoxel.graph.operators.movement import core
from convoxel.graph.operators.rewriter import is_native_type


def simplify_reshapes(graph: Graph) -> Graph:
    """Return the graph with reshapings that read the first source, as views where axes of size 1 come and go alone."""
    values, origin, renamed = dict(graph.values), dict[str, str](), dict[str, str]()
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.operator != "reshape" or node.inputs[0] not in values:
            nodes.append(node)
            continue
        source = values[origin.get(node.inputs[0], node.inputs[0])]
        origin[node.output.name] = source.name
        if source.shape == node.output.shape:
            renamed[node.output.name] = source.name
        else:
            view = _is_view(source, node.output)
            nodes.append(dataclasses.replace(node, inputs=(source.name,), native=view))
    outputs = tuple(renamed.get(name, name) for name in graph.outputs)
    return graph.replace(nodes=rename(nodes, renamed), outputs=outputs)


def _is_view(source: Value, result: Value) -> bool:
    native = all(is_native_type(value.shape, value.dtype) for value in (source, result))
    return native and core(source.shape) == core(result.shape)


def check_no_reshape_chain(graph: Graph) -> None:
    """Raise if a reshaping reads a reshaping."""
    for node in graph.nodes:
        maker = graph.producers.get(node.inputs[0]) if node.operator == "reshape" else None
        if maker is not None and maker.operator == "reshape":
            raise GraphError(f"{node.name} reshapes what {maker.name} has reshaped")
