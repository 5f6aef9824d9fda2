"""Passes that run quantised networks on whole numbers: what a file says of levels, and where these stay levels.

``join_levels`` reads the pairs of quantise and dequantise that ONNX files hold and makes layers with whole weights;
what flows between layers is then still float32, on a grid. ``carry_levels``, after all fusions, hands levels from step
to step wherever nobody needs the floats.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from convoxel.files.values import Array
from convoxel.graph.ir.graph import Graph, Node, rename
from convoxel.graph.operators.rewriter import add_constant, is_native_type
from convoxel.graph.operators.table import make_node
from convoxel.graph.passes.fold import remove_dead
from convoxel.native.integer import Levels, fits_integers

QUANTISED = ("quantised_convolution", "quantised_transposed_convolution", "quantised_linear")
_BYTES = {"uint8": 0, "int8": 128}  # what makes levels 0 … 255 of a type's numbers
_RESIDUAL = 3
_WIDEST = 255  # of a whole weight


class Weights(NamedTuple):
    """Whole weights, as a layer of floats has them, and the scale of each output channel."""

    whole: Array
    scale: Array


def join_levels(graph: Graph) -> Graph:
    """Return the graph with layers of dequantised operands made layers of levels."""
    constants = dict(graph.constants)
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes.append(_levels_node(graph, node) or _layer_of_levels(graph, node, constants) or node)
    return remove_dead(graph.replace(nodes=tuple(nodes), constants=constants))


def parameters(graph: Graph, node: Node | None, operator: str) -> Levels | None:
    """Return the levels of a quantise or dequantise node: one scale and zero point, of 8 bits; else None."""
    if node is None or node.operator != operator or node["block"]:
        return None
    scale = graph.constants.get(node.inputs[1])
    zero = graph.constants.get(node.inputs[2]) if node.inputs[2] else None
    known = scale is not None and scale.size == 1 and (zero is not None) == bool(node.inputs[2])
    kind = _type_of(graph, node.inputs[0]) if operator == "dequantise" else node["to"]
    if not known or kind not in _BYTES or (zero is not None and zero.size != 1):
        return None
    assert scale is not None
    size, point = float(scale.reshape(())), 0 if zero is None else int(zero.reshape(()))
    return Levels(size, point + _BYTES[kind]) if np.isfinite(size) and size > 0 else None


def _type_of(graph: Graph, name: str) -> str:
    return graph.values[name].dtype if name in graph.values else str(graph.constants[name].dtype)


def _levels_node(graph: Graph, node: Node) -> Node | None:
    """Return the native node for a quantise node whose readers all dequantise alike, or for such a reader."""
    if node.operator == "dequantise":
        maker = graph.producers.get(node.inputs[0])
        if maker is None or _levels_read(graph, maker) is None:
            return None
        return _level_step("from_levels", node, node.inputs[0], "float32", parameters(graph, node, "dequantise"))
    found = _levels_read(graph, node)
    return None if found is None else _level_step("to_levels", node, node.inputs[0], "uint8", found)


def _level_step(operator: str, node: Node, source: str, dtype: str, levels: Levels | None) -> Node:
    value = dataclasses.replace(node.output, dtype=dtype)
    return make_node(operator, node.name, (source,), (value,), native=True, levels=levels)


def _levels_read(graph: Graph, node: Node) -> Levels | None:
    """Return the levels that a quantise node makes of a tensor that the engine takes, if all readers read them."""
    found = parameters(graph, node, "quantise")
    if found is None or node.output.name in graph.results:
        return None
    source = graph.values.get(node.inputs[0])
    if source is None or not is_native_type(source.shape, source.dtype):
        return None
    users = graph.users.get(node.output.name, ())
    read = [parameters(graph, user, "dequantise") for user in users if user.output.dtype == "float32"]
    return found if users and read == [found] * len(users) else None


# ---- layers ----------------------------------------------------------------------------------------------


def _layer_of_levels(graph: Graph, node: Node, constants: dict[str, Array]) -> Node | None:
    """Return the layer of levels that computes a node whose operands are dequantised, if it is one."""
    if node.operator not in ("convolution", "transposed_convolution", "linear", "matmul"):
        return None
    x = graph.values.get(node.inputs[0])
    levels = parameters(graph, graph.producers.get(node.inputs[0]), "dequantise")
    result = node.output
    if x is None or levels is None or not is_native_type(x.shape, x.dtype):
        return None
    if not is_native_type(result.shape, result.dtype):
        return None
    weights = _whole_weights(graph, node)
    added = node.inputs[2] if len(node.inputs) > 2 else ""
    if weights is None or (added and added not in graph.constants):
        return None
    if any(node.inputs[3:]) or node.attributes.get("activation", "none") != "none":
        return None
    return quantised_layer(node, weights, levels, constants, added)


def quantised_layer(
    node: Node, weights: Weights, levels: Levels, constants: dict[str, Array], bias: str, residual: str = ""
) -> Node | None:
    """Return the layer of levels for a layer of floats; its weights become ``constants``. None if sums may not fit."""
    whole, scale = weights
    products = int(np.prod(whole.shape[1:]))
    if node.operator == "transposed_convolution":
        products = products // whole.shape[1] * whole.shape[0] // node["groups"]
    if np.abs(whole).max(initial=0) > _WIDEST or not fits_integers(products):
        return None
    small = np.abs(whole).max(initial=0) <= 127
    operator = f"quantised_{'linear' if node.operator == 'matmul' else node.operator}"
    inputs = (
        node.inputs[0],
        add_constant(constants, f"{node.name}.whole", whole.astype(np.int8 if small else np.int16)),
        bias,
        residual,
        add_constant(constants, f"{node.name}.scale", scale.astype(np.float32)),
    )
    kept = {} if node.operator == "matmul" else dict(node.attributes)
    return make_node(operator, node.name, inputs, node.outputs, native=True, levels=levels, **kept)


def _whole_weights(graph: Graph, node: Node) -> Weights | None:
    """Return a layer's weights as whole numbers where they are known and dequantised; None otherwise."""
    maker = graph.producers.get(node.inputs[1])
    turned = maker is not None and maker.operator == "transpose" and maker["axes"] == (1, 0)
    if turned and maker is not None:
        maker = graph.producers.get(maker.inputs[0])
    if maker is None or maker.operator != "dequantise" or maker["block"]:
        return None
    numbers, scale = (graph.constants.get(name) for name in maker.inputs[:2])
    zero = graph.constants.get(maker.inputs[2]) if maker.inputs[2] else None
    if numbers is None or scale is None or str(numbers.dtype) not in _BYTES or (zero is None) == bool(maker.inputs[2]):
        return None
    rank, axis = numbers.ndim, maker["axis"] % numbers.ndim
    whole = numbers.astype(np.int16)
    if zero is not None:
        shape = [-1 if i == axis else 1 for i in range(rank)] if zero.size > 1 else [1] * rank
        whole = whole - zero.astype(np.int16).reshape(shape)
    if turned:
        whole, axis = whole.T, 1 - axis
    if node.operator == "matmul":
        if rank != 2 or len(node.output.shape) != 2:
            return None
        whole, axis = whole.T, 1 - axis
    of_output = 1 if node.operator == "transposed_convolution" else 0
    channels = whole.shape[1] * node["groups"] if of_output else whole.shape[0]
    if scale.size > 1 and (axis != of_output or (node.attributes.get("groups", 1) > 1 and of_output)):
        return None
    return Weights(np.ascontiguousarray(whole), np.broadcast_to(scale.reshape(-1), (channels,)))


# ---- levels between layers -------------------------------------------------------------------------------


def carry_levels(graph: Graph) -> Graph:
    """Return the graph with levels, not floats, between layers of levels.

    A layer takes levels: those that somebody made already, or new ones. It makes levels where every reader of its
    result takes the same ones.
    """
    graph = _with_levels_read(graph)
    graph = _with_levels_moved(graph)
    graph = _with_levels_kept(graph)
    return remove_dead(graph)


def _with_levels_read(graph: Graph) -> Graph:
    """Make every layer read levels, at its operand and at a residual that is dequantised or to be levels."""
    nodes: list[Node] = []
    made: dict[tuple[str, Levels], str] = {}

    def levels_of(source: str, levels: Levels) -> str:
        name = _dequantised(graph, source, levels) or made.get((source, levels))
        if name is None:
            name = made[source, levels] = _unused(graph, f"{source}:levels", made)
            value = dataclasses.replace(graph.values[source], name=name, dtype="uint8")
            nodes.append(make_node("to_levels", name, (source,), (value,), native=True, levels=levels))
        return name

    for node in graph.nodes:
        if node.operator == "to_levels":
            made.setdefault((node.inputs[0], Levels(*node["levels"])), node.output.name)
        if node.operator not in QUANTISED or graph.values[node.inputs[0]].dtype == "uint8":
            nodes.append(node)
            continue
        inputs = list(node.inputs)
        inputs[0] = levels_of(inputs[0], Levels(*node["levels"]))
        residual = inputs[_RESIDUAL]
        maker = graph.producers.get(residual) if residual else None
        if residual and node["residual_levels"]:
            inputs[_RESIDUAL] = levels_of(residual, Levels(*node["residual_levels"]))
        elif maker is not None and maker.operator == "from_levels":
            inputs[_RESIDUAL] = maker.inputs[0]
            node = node.with_attributes(residual_levels=maker["levels"])
        nodes.append(dataclasses.replace(node, inputs=tuple(inputs)))
    return graph.replace(nodes=tuple(nodes))


def _dequantised(graph: Graph, name: str, levels: Levels) -> str | None:
    """Return the levels that ``name`` was made from, if they are these."""
    maker = graph.producers.get(name)
    if maker is None or maker.operator != "from_levels" or Levels(*maker["levels"]) != levels:
        return None
    return maker.inputs[0]


def _unused(graph: Graph, name: str, made: Mapping[tuple[str, Levels], str]) -> str:
    taken = {*graph.values, *graph.constants, *(node.name for node in graph.nodes), *made.values()}
    while name in taken:
        name += "'"
    return name


def _with_levels_moved(graph: Graph) -> Graph:
    """Make levels before a maximum or a concatenation instead of behind it, which are the same.

    Rows of levels are whole words, so the parts of a concatenation along channels must fill theirs.
    """
    while True:
        mover = next((node for node in graph.nodes if _can_move(graph, node)), None)
        if mover is None:
            return graph
        graph = _moved(graph, mover)


def _can_move(graph: Graph, node: Node) -> bool:
    maker = graph.producers.get(node.inputs[0]) if node.operator == "to_levels" else None
    if maker is None or not maker.runs("max_pool", "concat") or len(maker.outputs) != 1:
        return False
    if graph.only_user(maker.output.name) is None:
        return False
    if maker.operator == "max_pool":
        return True
    channels = [graph.values[name].shape[1] if name in graph.values else 1 for name in maker.inputs]
    along = maker["axis"] % len(maker.output.shape) == 1
    return all(isinstance(c, int) and (not along or c % 4 == 0) for c in channels)


def _moved(graph: Graph, node: Node) -> Graph:
    """Return the graph with the levels of a maximum or concatenation made of its operands."""
    maker, levels = graph.producers[node.inputs[0]], Levels(*node["levels"])
    ready: dict[tuple[str, Levels], str] = {}
    before: list[Node] = []
    inputs = []
    for name in maker.inputs:
        found = _dequantised(graph, name, levels) or ready.get((name, levels))
        if found is None:
            found = ready[name, levels] = _unused(graph, f"{name}:levels", ready)
            value = dataclasses.replace(graph.values[name], name=found, dtype="uint8")
            before.append(make_node("to_levels", found, (name,), (value,), native=True, levels=levels))
        inputs.append(found)
    nodes: list[Node] = []
    for each in graph.nodes:
        if each.name == maker.name:
            value = dataclasses.replace(node.output, layout=maker.output.layout)
            nodes += [*before, dataclasses.replace(maker, inputs=tuple(inputs), outputs=(value,))]
        elif each.name != node.name:
            nodes.append(each)
    return _joined(graph.replace(nodes=tuple(nodes)))


def _joined(graph: Graph) -> Graph:
    """Return the graph with equal levels of one tensor made once, where they are needed first."""
    first: dict[tuple[str, Levels], str] = {}
    names: dict[str, str] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.operator == "to_levels":
            key = node.inputs[0], Levels(*node["levels"])
            if key in first:
                names[node.output.name] = first[key]
                continue
            first[key] = node.output.name
        nodes.append(node)
    return graph.replace(nodes=rename(nodes, names))


def _with_levels_kept(graph: Graph) -> Graph:
    """Make a layer's result levels where one node alone reads it, which makes levels of it."""
    nodes: dict[str, Node] = {node.name: node for node in graph.nodes}
    for node in graph.nodes:
        if node.operator not in QUANTISED or node["result_levels"]:
            continue
        user = graph.only_user(node.output.name)
        if user is not None and user.operator == "to_levels":
            nodes[node.name] = dataclasses.replace(nodes[node.name], outputs=user.outputs).with_attributes(
                result_levels=Levels(*user["levels"])
            )
            del nodes[user.name]
    return graph.replace(nodes=tuple(nodes.values()))
