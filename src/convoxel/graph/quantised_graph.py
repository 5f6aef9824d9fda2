"""Graphs whose layers compute on whole numbers: which layers can, their weights, and the graph of some of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from convoxel.files.values import Array
from convoxel.graph.activation_range import Observation
from convoxel.graph.ir.graph import Graph, Node
from convoxel.graph.operators.rewriter import add_constant
from convoxel.graph.operators.table import verify
from convoxel.graph.passes.layout import check_layouts
from convoxel.graph.passes.levels import QUANTISED, Weights, carry_levels, quantised_layer
from convoxel.native.integer import Levels, fits_integers

_LARGEST = 127  # of a whole weight: as far below zero as above
_RATIOS = (1.0, 0.95, 0.9, 0.85, 0.8)  # of the largest weight, that the least error is looked for among
_RESIDUAL = 3


def list_layers(graph: Graph) -> list[Node]:
    """Return the layers of a graph, after all passes, that whole numbers can compute."""
    return [node for node in graph.nodes if _can(graph, node)]


def _can(graph: Graph, node: Node) -> bool:
    if not node.runs("convolution", "transposed_convolution", "linear"):
        return False
    weight = graph.constants[node.inputs[1]]
    gated = node.operator == "convolution" and bool(node.inputs[4])
    turned = node.operator == "transposed_convolution"
    products = weight[0].size if not turned else weight.shape[0] * int(np.prod(weight.shape[2:]))
    return not gated and not (turned and node["groups"] > 1) and fits_integers(products)


def tied_values(graph: Graph, names: Collection[str]) -> list[set[str]]:
    """Return the values among ``names`` that should have the same levels, in groups.

    A tensor that a maximum or a concatenation makes has the levels of what it is made of, and a tensor has one kind of
    levels for all readers: so it need not be floats.
    """
    group = {name: name for name in graph.values}

    def root(name: str) -> str:
        while group[name] != name:
            name = group[name]
        return name

    for node in graph.nodes:
        if node.runs("max_pool", "concat"):
            for name in node.inputs:
                if name in group:
                    group[root(name)] = root(node.outputs[0].name)
    groups: dict[str, set[str]] = {}
    for name in names:
        groups.setdefault(root(name), set()).add(name)
    return list(groups.values())


def whole_weights(weight: Array, axis: int) -> Weights:
    """Return weights as whole numbers from −127 to 127, each channel of ``axis`` in units of its own.

    The unit is that of the largest weight, or a smaller one that errs less in the mean square.
    """
    rows = np.moveaxis(weight.astype(np.float64), axis, 0).reshape(weight.shape[axis], -1)
    largest = np.abs(rows).max(axis=1)
    largest[largest == 0] = 1
    best, error = largest / _LARGEST, np.full(len(rows), np.inf)
    for ratio in _RATIOS:
        scale = largest * ratio / _LARGEST
        near = np.clip(np.rint(rows / scale[:, None]), -_LARGEST, _LARGEST) * scale[:, None]
        found = ((near - rows) ** 2).sum(axis=1)
        best, error = np.where(found < error, scale, best), np.minimum(found, error)
    best = best.astype(np.float32).astype(np.float64)
    shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
    whole = np.clip(np.rint(weight / best.reshape(shape)), -_LARGEST, _LARGEST)
    return Weights(whole.astype(np.int8), best)


def quantised_graph(
    graph: Graph, layers: Collection[str], observed: Mapping[str, Observation], levels: Mapping[str, Levels]
) -> Graph:
    """Return the graph with some of its layers made layers of levels.

    Args:
        graph: after all passes.
        layers: names of the nodes.
        observed: of the operand of each.
        levels: of the operand of each.
    """
    constants = dict(graph.constants)
    nodes: list[Node] = []
    for node in graph.nodes:
        made = None
        if node.name in layers:
            name = node.inputs[0]
            made = _layer(graph, node, constants, observed[name].means, levels[name])
        nodes.append(made or node)
    quantised = graph.replace(nodes=tuple(nodes), constants=constants)
    quantised = carry_levels(_with_residuals_rounded(quantised))
    verify(quantised)
    check_layouts(quantised)
    return quantised


def _layer(
    graph: Graph, node: Node, constants: dict[str, Array], means: NDArray[np.float64], levels: Levels
) -> Node | None:
    weight = graph.constants[node.inputs[1]]
    axis = 1 if node.operator == "transposed_convolution" else 0
    weights = whole_weights(weight, axis)
    shift = _mean_error(node, weight, weights, axis, means)
    bias = graph.constants[node.inputs[2]].astype(np.float64) + shift if node.inputs[2] else shift
    name = add_constant(constants, f"{node.name}.corrected", _frozen(bias.astype(np.float32)))
    made = quantised_layer(
        dataclasses.replace(node, inputs=node.inputs[:4]), weights, levels, constants, name, node.inputs[_RESIDUAL]
    )
    if made is not None:
        for operand in made.inputs:
            if operand in constants:
                _frozen(constants[operand])
    return made


def _frozen(array: Array) -> Array:
    array.setflags(write=False)
    return array


def _mean_error(
    node: Node, weight: Array, weights: Weights, axis: int, means: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return what each output channel lacks in the mean because its weights were rounded, away from borders."""
    shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
    error = weight.astype(np.float64) - weights.whole * weights.scale.reshape(shape)
    if node.operator == "linear":
        spread = np.repeat(means, error.shape[1] // len(means))
        return np.asarray(error @ spread)
    of_tap = error.sum(axis=tuple(range(2, error.ndim)))
    if axis == 1:
        # Only some taps of a transposed convolution reach an output: as many as the stride leaves, in the mean.
        return np.asarray(means @ of_tap) / float(np.prod(node["stride"]))
    groups = node["groups"]
    seen = means.reshape(groups, -1)
    return np.concatenate([rows @ mean for rows, mean in zip(np.split(of_tap, groups), seen, strict=True)])


def _with_residuals_rounded(graph: Graph) -> Graph:
    """Make residuals of layers levels where a layer reads the same tensor as levels: it then need not be floats."""
    levels = {node.inputs[0]: Levels(*node["levels"]) for node in graph.nodes if node.operator in QUANTISED}
    makers = {node.output.name for node in graph.nodes if node.operator in QUANTISED}
    nodes = []
    for node in graph.nodes:
        name = node.inputs[_RESIDUAL] if node.operator in QUANTISED else ""
        if name in levels and name in makers:
            node = node.with_attributes(residual_levels=levels[name])
        nodes.append(node)
    return graph.replace(nodes=tuple(nodes))
