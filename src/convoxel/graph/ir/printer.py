"""A graph as text, one node a line; tests compare it with what they expect."""

from __future__ import annotations

from typing import Any

import numpy as np

from convoxel.graph.ir.graph import Graph, Node
from convoxel.graph.operators.table import OPERATORS

__all__ = ["draw"]


def draw(graph: Graph) -> str:
    """Return the graph as text; attributes at their usual value are left out."""
    lines = [f"graph {graph.name}({', '.join(map(str, graph.inputs))})"]
    lines += [f"  {_node(node, graph)}" for node in graph.nodes]
    lines.append(f"  return {', '.join(graph.outputs)}")
    lines += [f"  where {guard}" for guard in graph.guards]
    return "\n".join(lines)


def _node(node: Node, graph: Graph) -> str:
    row = OPERATORS.get(node.operator)
    operands = [_operand(name, graph) for name in node.inputs]
    while operands and operands[-1] == "-":
        operands.pop()
    usual = row.attributes if row else {}
    attributes = [
        f"{key}={_attribute(value)}"
        for key, value in node.attributes.items()
        if not callable(value) and not (key in usual and type(usual[key]) is type(value) and usual[key] == value)
    ]
    results = ", ".join(map(str, node.outputs))
    return f"{results} = {node.operator}({', '.join(operands + attributes)})"


def _operand(name: str, graph: Graph) -> str:
    if not name:
        return "-"
    array = graph.constants.get(name)
    return name if array is None else f"{name}{list(np.shape(array))}"


def _attribute(value: Any) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_attribute, value)) + ("," if len(value) == 1 else "") + ")"
    return str(value)
