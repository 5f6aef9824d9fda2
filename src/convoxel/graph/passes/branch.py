"""The pass that computes convolutions of one input together: Inception's reductions read their input once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from convoxel.files.values import JsonObject
from convoxel.graph.ir.graph import Graph, Node, Value
from convoxel.graph.operators.table import make_node


def merge_branches(graph: Graph) -> Graph:
    """Return the graph with 1×1 convolutions of the same input made one, whose parts are views of its result.

    Only where that costs no copy: a part that a concatenation reads is better written where it belongs.
    """
    groups: dict[tuple[object, ...], list[Node]] = {}
    for node in graph.nodes:
        if _can_merge(graph, node):
            same = (node[key] for key in ("stride", "padding", "activation", "slope"))
            key = (node.inputs[0], *same, bool(node.inputs[2]))
            groups.setdefault(key, []).append(node)
    merged = {nodes[0].name: nodes for nodes in groups.values() if len(nodes) > 1}
    if not merged:
        return graph
    constants = dict(graph.constants)
    gone = {node.name for nodes in merged.values() for node in nodes}
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.name in merged:
            nodes += _joined(merged[node.name], constants)
        elif node.name not in gone:
            nodes.append(node)
    return graph.replace(nodes=tuple(nodes), constants=constants)


def _can_merge(graph: Graph, node: Node) -> bool:
    if not node.runs("convolution") or node["groups"] != 1 or any(node.inputs[3:]):
        return False
    kernel = graph.constants[node.inputs[1]].shape[2:]
    readers = graph.users.get(node.output.name, ())
    free = all(reader.runs("convolution", "max_pool", "average_pool") for reader in readers)
    return set(kernel) == {1} and free and node.output.name not in graph.results


def _joined(nodes: Sequence[Node], constants: dict[str, np.ndarray]) -> list[Node]:
    """Return one convolution of all output channels, and the range of each."""
    first = nodes[0]
    name = f"{first.name}.merged"
    operands = [first.inputs[0]]
    for place, part in ((1, "weight"), (2, "bias")):
        present = bool(first.inputs[place])
        operands.append(f"{name}.{part}" if present else "")
        if present:
            constants[operands[-1]] = np.concatenate([constants[node.inputs[place]] for node in nodes])
    lengths = [constants[node.inputs[1]].shape[0] for node in nodes]
    n, _, *space = first.output.shape
    value = Value(name, (n, sum(lengths), *space))
    whole = dataclasses.replace(first, name=name, inputs=(*operands, *first.inputs[len(operands) :]), outputs=(value,))
    rest, ends = len(space), np.cumsum(lengths).tolist()
    parts = []
    for node, end, length in zip(nodes, ends, lengths, strict=True):
        starts, stops = (0, end - length, *(0,) * rest), (None, end, *(None,) * rest)
        bounds: JsonObject = {"starts": starts, "stops": stops, "steps": (1,) * (2 + rest)}
        parts.append(make_node("slice", node.name, (name,), node.outputs, native=True, **bounds))
    return [whole, *parts]
