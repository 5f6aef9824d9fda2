"""Passes that remove dead code and fold padding and per-channel scalings into weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoxel.errors import GraphError
from convoxel.files.values import Array
from convoxel.graph.ir.graph import Graph, Node, rename
from convoxel.graph.operators.rewriter import add_constant
from convoxel.graph.operators.table import make_node

Float64 = NDArray[np.float64]


def remove_dead(graph: Graph) -> Graph:
    """Return the graph without nodes and constants that no output depends on."""
    needed = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if any(value.name in needed for value in node.outputs):
            kept.append(node)
            needed.update(node.inputs)
    constants = {name: array for name, array in graph.constants.items() if name in needed}
    return graph.replace(nodes=tuple(reversed(kept)), constants=constants)


def check_no_dead(graph: Graph) -> None:
    """Raise if a node or constant is read by nothing."""
    for node in graph.nodes:
        if not any(value.name in graph.users or value.name in graph.results for value in node.outputs):
            raise GraphError(f"nothing reads the results of {node.name}")
    for name in graph.constants:
        if name not in graph.users and name not in graph.results:
            raise GraphError(f"nothing reads the constant {name}")


def fold_padding(graph: Graph) -> Graph:
    """Return the graph with padding made part of what reads it: of zeros by a convolution, of −∞ by a maximum.

    The padding itself stays for its other readers, if any; else it is dead.
    """
    nodes: list[Node] = []
    for node in graph.nodes:
        maker = graph.producers.get(node.inputs[0]) if node.runs(*_PADDED) else None
        more = _PADDED[node.operator](graph, maker, node) if maker is not None else None
        if maker is not None and more is not None:
            total = tuple(
                (low + more_low, high + more_high)
                for (low, high), (more_low, more_high) in zip(node["padding"], more, strict=True)
            )
            node = dataclasses.replace(node, inputs=(maker.inputs[0], *node.inputs[1:])).with_attributes(padding=total)
        nodes.append(node)
    return remove_dead(graph.replace(nodes=tuple(nodes)))


def _zeros(graph: Graph, padding: Node, node: Node) -> Any:
    """Return the zeros added to each spatial axis."""
    if not padding.runs("pad") or padding["mode"] != "constant" or padding["padding"][:2] != ((0, 0), (0, 0)):
        return None
    # A crop then padded is not a crop less deep: the cropped numbers must not come back.
    return padding["padding"][2:] if all(side >= 0 for pair in padding["padding"] for side in pair) else None


def _nothing(graph: Graph, padding: Node, node: Node) -> Any:
    """Return how far each spatial axis is made longer by what no maximum sees.

    Where a length is rounded up, windows that begin in such numbers count, but not those that begin in padding.
    """
    if padding.operator != "pad" or padding["mode"] != "constant" or node["ceil"]:
        return None
    value = graph.constants.get(padding.inputs[1])
    if value is None or not np.all(value == -np.inf) or padding["padding"][:2] != ((0, 0), (0, 0)):
        return None
    plain = all(pair == (0, 0) for pair in node["padding"])
    return padding["padding"][2:] if plain else None


_PADDED: dict[str, Callable[[Graph, Node, Node], Any]] = {"convolution": _zeros, "max_pool": _nothing}


def fold_batch_norm(graph: Graph) -> Graph:
    """Return the graph with per-channel scalings folded into the weights before them, in double precision.

    batch_norm(x) = x · s + t with s = weight / √(variance + ε) and t = bias − mean · s, so behind a
    convolution w' = s·w and b' = s·b + t. A scaling with nothing to fold into becomes an ``affine`` node.
    """
    constants = dict(graph.constants)
    nodes: dict[str, Node] = {}
    renamed: dict[str, str] = {}
    maker_of: dict[str, str] = {}
    for node in graph.nodes:
        if not node.runs("batch_norm", "affine"):
            nodes[node.name] = node
            maker_of.update((value.name, node.name) for value in node.outputs)
            continue
        scale, shift = _scale_and_shift(graph, node)
        activation = {key: node.attributes[key] for key in ("activation", "slope") if key in node.attributes}
        source = renamed.get(node.inputs[0], node.inputs[0])
        maker = nodes[maker_of[source]] if source in maker_of else None
        if maker is not None and _absorbs(graph, maker, node):
            scaled = _scaled(maker, scale, shift, constants)
            nodes[maker.name] = scaled.with_attributes(**activation)
            renamed[node.output.name] = source
        else:
            parts = (("scale", scale), ("shift", shift))
            names = [add_constant(constants, f"{node.name}.{part}", array) for part, array in parts]
            nodes[node.name] = make_node("affine", node.name, (node.inputs[0], *names), node.outputs, **activation)
    outputs = tuple(renamed.get(name, name) for name in graph.outputs)
    return remove_dead(graph.replace(nodes=rename(nodes.values(), renamed), outputs=outputs, constants=constants))


def check_no_batch_norm(graph: Graph) -> None:
    """Raise if a batch normalisation is left."""
    for node in graph.nodes:
        if node.runs("batch_norm"):
            raise GraphError(f"{node.name} is still a batch_norm")


def round_constants(graph: Graph) -> Graph:
    """Return the graph with its constants in the engine's float32, rounded once, after all folding.

    They are read-only from here on, so that the engine need not copy them.
    """

    def rounded(array: Array) -> Array:
        array = array.astype(np.float32) if array.dtype == np.float64 else array.view()
        array.setflags(write=False)
        if isinstance(array.base, np.ndarray):
            array.base.setflags(write=False)
        return array

    return graph.replace(constants={name: rounded(array) for name, array in graph.constants.items()})


def _scale_and_shift(graph: Graph, node: Node) -> tuple[Float64, Float64]:
    arrays = [graph.constants[name].astype(np.float64).reshape(-1) if name else None for name in node.inputs[1:]]
    if node.operator == "affine":
        scale, shift = arrays
        assert scale is not None and shift is not None
        return scale, shift
    weight, bias, mean, variance = arrays
    assert mean is not None and variance is not None
    with np.errstate(divide="ignore", invalid="ignore"):  # what is no number in the file is none in the results
        scale = 1.0 / np.sqrt(variance + node["epsilon"])
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale
    return scale, shift if bias is None else shift + bias


def _absorbs(graph: Graph, maker: Node, node: Node) -> bool:
    """Return True if the scaling ``node`` may move into ``maker``: nobody else sees what lies between."""
    if not maker.runs("convolution", "transposed_convolution", "linear"):
        return False
    between = node.inputs[0]
    plain = maker["activation"] == "none" and not maker.inputs[3]
    return plain and graph.only_user(between) is not None


def _scaled(maker: Node, scale: Float64, shift: Float64, constants: dict[str, NDArray[np.float64]]) -> Node:
    """Return ``maker`` with its weights multiplied by ``scale`` and its bias by it too, plus ``shift``."""
    weight = constants[maker.inputs[1]].astype(np.float64)
    channels = maker.output.shape[1]
    assert isinstance(channels, int)
    scale, shift = np.broadcast_to(scale, channels), np.broadcast_to(shift, channels)
    if maker.operator == "transposed_convolution":
        # (c, k/groups, …): channel k of group g belongs to the rows of group g alone.
        grouped = weight.reshape(maker["groups"], -1, *weight.shape[1:])
        factor = scale.reshape(maker["groups"], 1, -1, *(1,) * (weight.ndim - 2))
        weight = (grouped * factor).reshape(weight.shape)
    else:
        weight = weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
    bias = constants[maker.inputs[2]].astype(np.float64) * scale if maker.inputs[2] else 0.0
    names = [
        add_constant(constants, maker.inputs[1], weight),
        add_constant(constants, maker.inputs[2] or f"{maker.name}.bias", bias + shift),
    ]
    return dataclasses.replace(maker, inputs=(maker.inputs[0], *names, *maker.inputs[3:]))
