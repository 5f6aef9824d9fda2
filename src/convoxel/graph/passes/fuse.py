"""Passes that fuse two nodes into one, so that the engine reads and writes a tensor once."""

from __future__ import annotations

import dataclasses

from convoxel.graph.ir.graph import Graph, Node
from convoxel.graph.operators.rewriter import is_native_type
from convoxel.graph.operators.table import OPERATORS

_RESIDUAL = 3  # the operand's position, the same in every operator that has one
_GATE = 4  # of a convolution


def fuse_flatten(graph: Graph) -> Graph:
    """Return the graph with (n, c, …) → (n, c·…) → linear made (n, c, …) → linear.

    The linear layer then reads its operand where it lies, with the weights reordered instead.
    """
    nodes: list[Node] = []
    for node in graph.nodes:
        source = graph.producers.get(node.inputs[0]) if node.runs("linear") else None
        if source is not None and source.operator == "reshape":
            operand = graph.values.get(source.inputs[0])
            native = operand is not None and is_native_type(operand.shape, operand.dtype)
            if (
                operand is not None
                and native
                and operand.shape[0] == source.output.shape[0]
                and len(source.output.shape) == 2
            ):
                node = dataclasses.replace(node, inputs=(source.inputs[0], *node.inputs[1:]))
                node = node.with_attributes(flatten=True)
        nodes.append(node)
    return graph.replace(nodes=tuple(nodes))


def fuse_residual(graph: Graph) -> Graph:
    """Return the graph with convolution + y made one node, run where the addition was.

    Of two convolutions the later one takes the other's result: that one is then sure to be there.
    """
    position = {node.name: i for i, node in enumerate(graph.nodes)}
    nodes = {node.name: node for node in graph.nodes}
    for node in graph.nodes:
        if not node.runs("add"):
            continue
        a, b = node.inputs[:2]
        makers = [(graph.producers.get(term), other) for term, other in ((a, b), (b, a))]
        candidates = [
            (nodes[maker.name], other)
            for maker, other in makers
            if maker is not None and maker.name in nodes and _takes_residual(graph, nodes[maker.name], other)
        ]
        if candidates:
            maker, other = max(candidates, key=lambda candidate: position[candidate[0].name])
            inputs = (*maker.inputs[:_RESIDUAL], other, *maker.inputs[_RESIDUAL + 1 :])
            del nodes[maker.name]
            nodes[node.name] = dataclasses.replace(maker, inputs=inputs, outputs=node.outputs)
            # The epilogue of the addition is the convolution's now.
            nodes[node.name] = nodes[node.name].with_attributes(activation=node["activation"], slope=node["slope"])
    return graph.replace(nodes=tuple(nodes.values()))


def _takes_residual(graph: Graph, maker: Node, other: str) -> bool:
    operands = OPERATORS[maker.operator].operands
    takes = len(operands) > _RESIDUAL and operands[_RESIDUAL].name == "residual"
    if not maker.native or not takes or other not in graph.values:
        return False
    free = not maker.inputs[_RESIDUAL] and maker["activation"] == "none"
    shape, addend = maker.output.shape, graph.values[other].shape
    # Axes that are not literally 1 are equal, or the addition itself would be refused.
    equal = len(shape) == len(addend) and all((p == 1) == (q == 1) for p, q in zip(shape, addend, strict=True))
    return free and equal and graph.only_user(maker.output.name) is not None


def fuse_difference(graph: Graph) -> Graph:
    """Return the graph with a + (−b) made a − b, where the sign could not move into a convolution."""
    nodes = {node.name: node for node in graph.nodes}
    for node in graph.nodes:
        if not node.runs("add"):
            continue
        for a, b in (node.inputs[:2], node.inputs[1::-1]):
            sign = graph.producers.get(b)
            if sign is not None and _is_negation(graph, sign) and graph.only_user(b) is not None:
                nodes[node.name] = dataclasses.replace(node, operator="subtract", inputs=(a, sign.inputs[0]))
                del nodes[sign.name]
                break
    return graph.replace(nodes=tuple(nodes.values()))


def _is_negation(graph: Graph, node: Node) -> bool:
    if node.operator != "affine" or node["activation"] != "none":
        return False
    scale, shift = (graph.constants[name] for name in node.inputs[1:])
    return bool((scale == -1).all() and (shift == 0).all())


def fuse_gate(graph: Graph) -> Graph:
    """Return the graph with x · gate → 1×1 convolution made one node (squeeze-and-excite).

    The engine then scales the weights, of which there are fewer than pixels. A wider kernel may be faster with
    an algorithm that takes no gate, so it keeps its multiplication.
    """
    nodes: dict[str, Node] = {}
    for node in graph.nodes:
        maker = graph.producers.get(node.inputs[0]) if _takes_gate(graph, node) else None
        terms = _gated(graph, maker) if maker is not None else None
        if maker is not None and terms is not None and maker.name in nodes:
            del nodes[maker.name]
            node = dataclasses.replace(node, inputs=(terms[0], *node.inputs[1:_GATE], terms[1]))
        nodes[node.name] = node
    return graph.replace(nodes=tuple(nodes.values()))


def _takes_gate(graph: Graph, node: Node) -> bool:
    if not node.runs("convolution") or node.inputs[_GATE] or node["groups"] != 1:
        return False
    padded = any(side != 0 for pair in node["padding"] for side in pair)
    return not padded and all(size == 1 for size in graph.constants[node.inputs[1]].shape[2:])


def _gated(graph: Graph, maker: Node) -> tuple[str, str] | None:
    """Return x and gate if ``maker`` multiplies them for one reader and does nothing more."""
    if not maker.runs("multiply") or maker["activation"] != "none" or graph.only_user(maker.output.name) is None:
        return None
    for x, gate in (maker.inputs[:2], maker.inputs[1::-1]):
        if x not in graph.values or gate not in graph.values:
            continue
        shape = graph.values[x].shape
        factors = (*shape[:2], *(1,) * (len(shape) - 2))
        if len(shape) > 2 and shape == maker.output.shape and graph.values[gate].shape == factors:
            return x, gate
    return None


def fuse_activation(graph: Graph) -> Graph:
    """Return the graph with every activation taken into the node that makes its operand, where that can."""
    nodes: dict[str, Node] = {}
    maker_of: dict[str, str] = {}
    for node in graph.nodes:
        maker = nodes.get(maker_of.get(node.inputs[0], "")) if node.operator == "activation" else None
        if maker is not None and _takes_activation(graph, maker, node):
            fused = maker.with_attributes(activation=node["activation"], slope=node["slope"])
            nodes[maker.name] = dataclasses.replace(fused, outputs=node.outputs)
            maker_of[node.output.name] = maker.name
            continue
        nodes[node.name] = node
        maker_of.update((value.name, node.name) for value in node.outputs)
    return graph.replace(nodes=tuple(nodes.values()))


def _takes_activation(graph: Graph, maker: Node, node: Node) -> bool:
    free = maker.native and OPERATORS[maker.operator].epilogue and maker["activation"] == "none"
    return free and graph.only_user(node.inputs[0]) is not None
