"""The pass that folds a scaling into the layers behind it, where no layer before it could absorb it."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from convoxel.files.values import Array
from convoxel.graph.ir.graph import Graph, Node
from convoxel.graph.operators.rewriter import add_constant

Float64 = NDArray[np.float64]


def fold_forward(graph: Graph) -> Graph:
    """Return the graph with every per-channel scaling gone that all its readers can take into their weights.

    With y = x · s + t a layer computes W·y + b = (W·s)·x + (W·t + b). Padding is zero before and after the scaling
    only if t is, so a padded convolution takes a scaling without a shift; a transposed one likewise, because fewer
    weights reach its border.
    """
    constants = dict(graph.constants)
    nodes = {node.name: node for node in graph.nodes}
    for node in graph.nodes:
        scaling = nodes[node.name]
        readers = [nodes[reader.name] for reader in graph.users.get(node.outputs[0].name, ())]
        if scaling.operator != "affine" or scaling["activation"] != "none" or not readers:
            continue
        scale, shift = (constants[name].astype(np.float64).reshape(-1) for name in scaling.inputs[1:])
        name = scaling.output.name
        if name not in graph.results and all(_takes(reader, name, not shift.any()) for reader in readers):
            for reader in readers:
                nodes[reader.name] = _scaled(reader, scaling.inputs[0], scale, shift, constants)
            del nodes[node.name]
    return graph.replace(nodes=tuple(nodes.values()), constants=constants)


def _takes(reader: Node, name: str, plain: bool) -> bool:
    """Return True if ``reader`` can take in the scaling that makes ``name``; ``plain`` means that it shifts nothing."""
    if reader.inputs.count(name) != 1 or reader.inputs[0] != name:
        return False
    if not reader.native:
        return False
    if reader.operator == "convolution":
        padded = any(side > 0 for pair in reader["padding"] for side in pair)
        return not reader.inputs[4] and (plain or not padded)
    return reader.operator == "linear" or (reader.operator == "transposed_convolution" and plain)


def _scaled(reader: Node, source: str, scale: Float64, shift: Float64, constants: dict[str, Array]) -> Node:
    """Return ``reader`` on ``source`` with the scaling in its weights and its bias."""
    weight = constants[reader.inputs[1]].astype(np.float64)
    bias = constants[reader.inputs[2]].astype(np.float64) if reader.inputs[2] else 0.0
    groups = reader.attributes.get("groups", 1)
    if reader.operator == "transposed_convolution":
        weight = weight * np.broadcast_to(scale, weight.shape[0]).reshape(-1, *(1,) * (weight.ndim - 1))
    else:
        # (groups, outputs of a group, inputs of a group, window); a linear layer's columns run over channels first.
        inputs = weight.shape[1] if reader.operator == "convolution" else _channels(scale, shift, weight.shape[1])
        grouped = weight.reshape(groups, -1, inputs, weight[0].size // inputs)
        factor, addend = (np.broadcast_to(v, groups * inputs).reshape(groups, 1, inputs, 1) for v in (scale, shift))
        bias = bias + (grouped * addend).sum(axis=(2, 3)).reshape(-1)
        weight = (grouped * factor).reshape(weight.shape)
    operands = [source, add_constant(constants, reader.inputs[1], weight), reader.inputs[2]]
    if np.any(bias):
        operands[2] = add_constant(constants, reader.inputs[2] or f"{reader.name}.bias", np.asarray(bias))
    return dataclasses.replace(reader, inputs=(*operands, *reader.inputs[3:]))


def _channels(scale: Array, shift: Array, features: int) -> int:
    """Return how many channels a linear layer's ``features`` columns belong to, so far as the scaling tells them."""
    counts = {array.size for array in (scale, shift)} - {1}
    return counts.pop() if counts else features
