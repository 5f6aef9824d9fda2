"""The pass that puts conversions where native steps (channels last) meet arrays (channels first)."""

from __future__ import annotations

import dataclasses

from convoxel.errors import GraphError
from convoxel.graph.ir.graph import CHANNELS_FIRST, CHANNELS_LAST, Graph, Node, Value
from convoxel.graph.operators.table import make_node


def assign_layouts(graph: Graph) -> Graph:
    """Return the graph with ``channels_last`` before native readers and ``channels_first`` before others.

    A value is converted once, as late as possible when it comes in and as early as possible when it goes
    out, so that its copy in the arena lives no longer than needed. Graph inputs and outputs are arrays.
    """
    first_readers = {name for node in graph.nodes for name in node.inputs if not node.native} | set(graph.outputs)
    converted: dict[str, str] = {}
    names: dict[str, str] = {}  # of the arrays made from native results
    nodes: list[Node] = []
    for node in graph.nodes:
        if not node.native:
            nodes.append(dataclasses.replace(node, inputs=tuple(names.get(n, n) for n in node.inputs)))
            continue
        for name in node.inputs:
            value = _array(graph, name)
            if value is not None and name not in converted:
                nodes.append(_convert("channels_last", value, f"{name}:last", CHANNELS_LAST))
                converted[name] = f"{name}:last"
        outputs = tuple(dataclasses.replace(value, layout=CHANNELS_LAST) for value in node.outputs)
        inputs = tuple(converted.get(name, name) for name in node.inputs)
        nodes.append(dataclasses.replace(node, inputs=inputs, outputs=outputs))
        for value in outputs:
            if value.name in first_readers:
                names[value.name] = f"{value.name}:first"
                nodes.append(_convert("channels_first", value, names[value.name], CHANNELS_FIRST))
    return graph.replace(nodes=tuple(nodes), outputs=tuple(names.get(name, name) for name in graph.outputs))


def _array(graph: Graph, name: str) -> Value | None:
    """Return the value called ``name`` if it is an array: a graph input or made by an array operator."""
    value = graph.values.get(name)
    maker = graph.producers.get(name)
    if value is None or (maker is not None and maker.native):
        return None
    return value


def _convert(operator: str, value: Value, name: str, layout: str) -> Node:
    return make_node(operator, name, (value.name,), (dataclasses.replace(value, name=name, layout=layout),))


def check_layouts(graph: Graph) -> None:
    """Raise if a node reads or makes a value in a layout that is not its own."""
    for node in graph.nodes:
        layout = CHANNELS_LAST if node.native else CHANNELS_FIRST
        wanted = {
            "channels_last": (CHANNELS_FIRST, CHANNELS_LAST),
            "channels_first": (CHANNELS_LAST, CHANNELS_FIRST),
        }.get(node.operator, (layout, layout))
        for name in node.inputs:
            if name in graph.values and graph.values[name].layout != wanted[0]:
                raise GraphError(f"{node.name} reads {graph.values[name]} but wants it channels {wanted[0]}")
        for value in node.outputs:
            if value.layout != wanted[1]:
                raise GraphError(f"{node.name} makes {value} but should make it channels {wanted[1]}")
    for name in graph.outputs:
        if name in graph.values and graph.values[name].layout != CHANNELS_FIRST:
            raise GraphError(f"output {graph.values[name]} is not channels first")
