"""The pass that makes one convolution of two with nothing between them, where that is less work."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from convoxel.files.values import Array
from convoxel.graph.ir.graph import Graph, Node
from convoxel.graph.operators.rewriter import add_constant


def compose_linear(graph: Graph) -> Graph:
    """Return the graph with pairs of convolutions, one of them 1×1, and pairs of linear layers as one layer each.

    B(A·x + a) + b = (B·A)·x + (B·a + b), computed in double precision, wherever the product has fewer
    multiply–accumulates than the two: behind a layer that widens, or before one that strides over most of its input.
    """
    constants = dict(graph.constants)
    nodes: dict[str, Node] = {}
    for node in graph.nodes:
        maker = graph.producers.get(node.inputs[0]) if node.inputs else None
        first = nodes.get(maker.name) if maker is not None else None
        if first is not None and graph.only_user(node.inputs[0]) is not None and _composes(first, node, constants):
            del nodes[first.name]
            node = _composed(first, node, constants)
        nodes[node.name] = node
    return graph.replace(nodes=tuple(nodes.values()), constants=constants)


def _composes(first: Node, second: Node, constants: dict[str, Array]) -> bool:
    if first.operator != second.operator or not first.runs("convolution", "linear") or not second.native:
        return False
    if first["activation"] != "none" or any(first.inputs[3:]) or any(second.inputs[4:]):
        return False
    one, two = constants[first.inputs[1]], constants[second.inputs[1]]
    if first.operator == "convolution":
        # The second one's padding is zero; the first one makes its bias of zeros.
        ahead = _is_point(one) and _is_plain(first) and not (_is_padded(second) and first.inputs[2])
        if first["groups"] != 1 or second["groups"] != 1 or not (ahead or _follows(second, two)):
            return False
    elif two.shape[1] != one.shape[0]:
        return False
    positions = math.prod(second["stride"]) if first.operator == "convolution" else 1
    window = one[0, 0].size * two[0, 0].size
    apart = one.size * positions + two.size
    return two.shape[0] * one.shape[1] * window < apart


def _follows(second: Node, weight: Array) -> bool:
    """Return True if the second convolution sees single positions, so that the window is the first one's."""
    return _is_point(weight) and not _is_padded(second)


def _is_padded(node: Node) -> bool:
    return any(side != 0 for pair in node["padding"] for side in pair)


def _is_plain(node: Node) -> bool:
    return not _is_padded(node) and all(step == 1 for step in node["stride"])


def _is_point(weight: Array) -> bool:
    return all(size == 1 for size in weight.shape[2:])


def _composed(first: Node, second: Node, constants: dict[str, Array]) -> Node:
    one, two = (constants[node.inputs[1]].astype(np.float64) for node in (first, second))
    rows, columns, middle = two.shape[0], one.shape[1], one.shape[0]
    flat_one, flat_two = one.reshape(middle, columns, -1), two.reshape(rows, middle, -1)
    weight = np.tensordot(flat_two, flat_one, axes=(1, 0)).transpose(0, 2, 1, 3)  # one window has a single position
    follows = first.operator == "convolution" and _follows(second, two)
    window = one.shape[2:] if follows else two.shape[2:]
    operands = [first.inputs[0], add_constant(constants, second.inputs[1], weight.reshape(rows, columns, *window)), ""]
    biases = [constants[node.inputs[2]].astype(np.float64) if node.inputs[2] else None for node in (first, second)]
    if any(bias is not None for bias in biases):
        total = np.zeros(rows) if biases[1] is None else biases[1]
        total = total if biases[0] is None else total + flat_two.sum(axis=2) @ biases[0]
        operands[2] = add_constant(constants, second.inputs[2] or f"{second.name}.bias", total)
    node = dataclasses.replace(second, inputs=(*operands, *second.inputs[3:]))
    if not follows:
        return node
    return node.with_attributes(
        stride=tuple(a * b for a, b in zip(first["stride"], second["stride"], strict=True)),
        padding=first["padding"],
        dilation=first["dilation"],
    )
