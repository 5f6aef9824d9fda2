"""The pass that joins a depthwise convolution with the 1×1 convolutions before and after it.

The tensor between them is the widest of a network of such blocks (separable convolutions, inverted residuals); within
one step it stays in the cache.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from convoxel.errors import GraphError
from convoxel.graph.ir.graph import Graph, Node
from convoxel.graph.ir.size import Extent
from convoxel.graph.operators.table import make_node


def join_depthwise(graph: Graph) -> Graph:
    """Return the graph with every depthwise convolution joined with the 1×1 convolutions that alone surround it."""
    nodes: dict[str, Node] = {}
    for node in graph.nodes:
        first = _expansion(graph, node)
        if first is not None:
            del nodes[first.name]
            node = _expanded(first, node)
        middle = _projected(graph, node)
        if middle is not None:
            node = _joined(nodes.pop(middle.name), node)
        nodes[node.name] = node
    return graph.replace(nodes=tuple(nodes.values()))


def check_no_neighbours(graph: Graph) -> None:
    """Raise GraphError if a depthwise convolution still stands beside a 1×1 convolution with nothing else between."""
    for node in graph.nodes:
        if _expansion(graph, node) is not None or _projected(graph, node) is not None:
            raise GraphError(f"{node.name} is not joined with the convolution before it")


def _expansion(graph: Graph, node: Node) -> Node | None:
    """Return the 1×1 convolution to more channels whose result ``node``, a depthwise convolution, alone reads."""
    first = graph.producers.get(node.inputs[0]) if _is_depthwise(graph, node) else None
    if first is None or not _is_pointwise(graph, first) or graph.only_user(node.inputs[0]) is None:
        return None
    if _projected(graph, first) is not None:  # between two depthwise convolutions it belongs to the one before it
        return None
    # A residual of the first one would have to be added between the two; a gate of the input is another step's.
    out_channels, channels = graph.constants[first.inputs[1]].shape[:2]
    return first if out_channels > channels and not any(first.inputs[3:]) else None


def _projected(graph: Graph, node: Node) -> Node | None:
    """Return the depthwise convolution whose result ``node``, a 1×1 convolution, alone reads."""
    if not _is_pointwise(graph, node) or node.inputs[4]:
        return None
    middle = graph.producers.get(node.inputs[0])
    if middle is None or graph.only_user(node.inputs[0]) is None or not _is_depthwise(graph, middle):
        return None
    return None if any(middle.inputs[3:]) else middle


def _is_depthwise(graph: Graph, node: Node) -> bool:
    if not node.runs("convolution") or node.inputs[4]:
        return False
    channels, per_group = graph.constants[node.inputs[1]].shape[:2]
    return bool(per_group == 1 and node["groups"] == channels > 1)


def _is_pointwise(graph: Graph, node: Node) -> bool:
    if not node.runs("convolution") or node["groups"] != 1:
        return False
    places = {side for pair in node["padding"] for side in pair} | {step - 1 for step in node["stride"]}
    return places == {0} and set(graph.constants[node.inputs[1]].shape[2:]) == {1}


def _expanded(first: Node, depthwise: Node) -> Node:
    """Return the block of an expansion and a depthwise convolution."""
    x, *expand = first.inputs[:3]
    return make_node(
        "depthwise_block",
        depthwise.name,
        (x, *depthwise.inputs[1:4], *expand, "", ""),
        depthwise.outputs,
        **{name: depthwise[name] for name in ("stride", "padding", "dilation", "groups", "activation", "slope")},
        expand_activation=first["activation"],
        expand_slope=first["slope"],
    )


def _joined(middle: Node, last: Node) -> Node:
    """Return the block of a depthwise convolution, perhaps with an expansion, and a projection."""
    expansion = middle.inputs[4:6] if middle.operator == "depthwise_block" else ("", "")
    return make_node(
        "depthwise_block",
        last.name,
        (*middle.inputs[:3], last.inputs[3], *expansion, *last.inputs[1:3]),
        last.outputs,
        **{name: middle[name] for name in ("stride", "padding", "dilation", "groups")},
        expand_activation=middle.attributes.get("expand_activation", "none"),
        expand_slope=middle.attributes.get("expand_slope", 0.0),
        depthwise_activation=middle["activation"],
        depthwise_slope=middle["slope"],
        activation=last["activation"],
        slope=last["slope"],
    )


def split_blocks(graph: Graph) -> Graph:
    """Return the graph with the convolutions of every block apart, as ``join_depthwise`` joins them.

    The last one keeps the name of its block.
    """
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes += _parts(graph, node) if node.runs("depthwise_block") else [node]
    return graph.replace(nodes=tuple(nodes))


def _parts(graph: Graph, block: Node) -> list[Node]:
    x, weight, bias, residual, *others = block.inputs
    expansion, projection = others[:2], others[2:]
    n, _, *size = graph.values[x].shape
    window = {name: block[name] for name in ("stride", "padding", "dilation", "groups")}
    place = {"stride": (1,) * len(size), "padding": ((0, 0),) * len(size), "dilation": (1,) * len(size), "groups": 1}
    parts: list[Node] = []

    def add(part: str, inputs: tuple[str, ...], spatial: Sequence[Extent], **attributes: Any) -> str:
        channels = graph.constants[inputs[1]].shape[0]
        name = f"{block.name}.{part}"
        value = dataclasses.replace(block.output, name=name, shape=(n, channels, *spatial))
        parts.append(make_node("convolution", name, inputs, (value,), native=True, **attributes))
        return name

    if expansion[0]:
        activation, slope = block["expand_activation"], block["expand_slope"]
        x = add("expand", (x, *expansion), size, activation=activation, slope=slope, **place)
    last = {"activation": block["activation"], "slope": block["slope"]}
    inputs: tuple[str, ...] = (x, weight, bias, residual)
    if projection[0]:
        activation, slope = block["depthwise_activation"], block["depthwise_slope"]
        after = block.output.shape[2:]
        middle = add("depthwise", (x, weight, bias), after, activation=activation, slope=slope, **window)
        inputs, window = (middle, *projection, residual), place
    parts.append(make_node("convolution", block.name, inputs, block.outputs, native=True, **window, **last))
    return parts
