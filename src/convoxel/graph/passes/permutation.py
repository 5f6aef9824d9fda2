"""Passes that move changes of the channel order into the weights of the layer before, where they cost nothing."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from convoxel.errors import GraphError
from convoxel.graph.ir.graph import Graph, Node, Value
from convoxel.graph.operators.rewriter import add_constant
from convoxel.graph.operators.table import make_node

_BLOCKS = ("depth_to_space", "space_to_depth")


def order_blocks(graph: Graph) -> Graph:
    """Return the graph whose pixel shuffles move runs of channels: those of one pixel follow one another.

    PyTorch's ``pixel_shuffle`` has the positions of a block run fastest among the channels; they are put in the other
    order before, and those of its inverse after.
    """
    constants = dict(graph.constants)
    nodes: list[Node] = []
    for node in graph.nodes:
        if not node.runs(*_BLOCKS) or not node["channels_outside"]:
            nodes.append(node)
            continue
        x, forth = graph.values[node.inputs[0]], node.operator == "depth_to_space"
        volume, channels = node["block"] ** (len(x.shape) - 2), x.shape[1]
        if not isinstance(channels, int):
            nodes.append(dataclasses.replace(node, native=False))
            continue
        count = channels if forth else channels * volume
        deep = x.shape if forth else node.output.shape
        shape = (count // volume, volume) if forth else (volume, count // volume)
        index = add_constant(constants, f"{node.name}.index", np.arange(count).reshape(shape).T.reshape(-1))
        between = Value(f"{node.name}.ordered", deep)
        if forth:
            first = make_node("gather_channels", between.name, (node.inputs[0], index), (between,))
            second = dataclasses.replace(node, inputs=(between.name,)).with_attributes(channels_outside=False)
        else:
            first = dataclasses.replace(node, outputs=(between,)).with_attributes(channels_outside=False)
            second = make_node("gather_channels", between.name, (between.name, index), node.outputs)
        nodes += [first, second]
    return graph.replace(nodes=tuple(nodes), constants=constants)


def check_no_outside(graph: Graph) -> None:
    """Raise if a pixel shuffle still reads or writes single channels."""
    for node in graph.nodes:
        if node.runs(*_BLOCKS) and node["channels_outside"]:
            raise GraphError(f"{node.name} moves single channels")


def fold_permutations(graph: Graph) -> Graph:
    """Return the graph with channels picked among a convolution's outputs by picking among its weights."""
    constants = dict(graph.constants)
    nodes: dict[str, Node] = {}
    for node in graph.nodes:
        maker = graph.producers.get(node.inputs[0]) if node.runs("gather_channels") else None
        maker = nodes.get(maker.name) if maker is not None else None
        if maker is None or not _may_reorder(graph, maker, node):
            nodes[node.name] = node
            continue
        index = constants[node.inputs[1]].reshape(-1)
        operands = list(maker.inputs)
        for place in (1, 2):  # weight and bias
            if maker.inputs[place]:
                operands[place] = add_constant(constants, maker.inputs[place], constants[maker.inputs[place]][index])
        nodes[maker.name] = dataclasses.replace(maker, inputs=tuple(operands), outputs=node.outputs)
    return graph.replace(nodes=tuple(nodes.values()), constants=constants)


def _may_reorder(graph: Graph, maker: Node, node: Node) -> bool:
    """True if ``maker`` may make the picked channels at once: they are its rows, and not many more than it has."""
    if not maker.runs("convolution", "linear") or maker.inputs[3] or graph.only_user(node.inputs[0]) is None:
        return False
    rows, picked = graph.constants[maker.inputs[1]].shape[0], math.prod(graph.constants[node.inputs[1]].shape)
    return maker.attributes.get("groups", 1) == 1 and picked <= rows
