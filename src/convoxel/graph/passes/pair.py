"""The pass that joins a depthwise convolution with the 1×1 convolution behind it.

What lies between the two is the widest tensor of a MobileNet's block; as one step it stays in the cache.
"""

from __future__ import annotations

from convoxel.errors import GraphError
from convoxel.graph.ir import Graph, Node
from convoxel.graph.opset import make_node

__all__ = ["check_no_pairs", "pair_depthwise"]


def pair_depthwise(graph: Graph) -> Graph:
    """Return the graph with every depthwise convolution that one 1×1 convolution reads joined with it."""
    nodes: dict[str, Node] = {}
    for node in graph.nodes:
        first = _partner(graph, node)
        if first is not None:
            del nodes[first.name]
            node = _joined(first, node)
        nodes[node.name] = node
    return graph.replace(nodes=tuple(nodes.values()))


def check_no_pairs(graph: Graph) -> None:
    """Raise GraphError if a depthwise convolution still stands before the only 1×1 convolution that reads it."""
    for node in graph.nodes:
        if _partner(graph, node) is not None:
            raise GraphError(f"{node.name} is not joined with the depthwise convolution before it")


def _partner(graph: Graph, node: Node) -> Node | None:
    """Return the depthwise convolution whose result ``node``, a 1×1 convolution, alone reads."""
    if node.operator != "convolution" or node["groups"] != 1 or node.inputs[4]:
        return None
    places = {side for pair in node["padding"] for side in pair} | {step - 1 for step in node["stride"]}
    if places != {0} or set(graph.constants[node.inputs[1]].shape[2:]) != {1}:
        return None
    first = graph.producers.get(node.inputs[0])
    if first is None or first.operator != "convolution" or graph.only_user(node.inputs[0]) is None:
        return None
    channels, per_group = graph.constants[first.inputs[1]].shape[:2]
    depthwise = per_group == 1 and first["groups"] == channels > 1
    # A residual of the first one would have to be added between the two.
    return first if depthwise and not any(first.inputs[3:]) else None


def _joined(first: Node, second: Node) -> Node:
    x, weight, bias = first.inputs[:3]
    return make_node(
        "convolution_pair",
        second.name,
        (x, weight, bias, second.inputs[3], *second.inputs[1:3]),
        second.outputs,
        **{name: first[name] for name in ("stride", "padding", "dilation", "groups")},
        first_activation=first["activation"],
        first_slope=first["slope"],
        activation=second["activation"],
        slope=second["slope"],
    )
