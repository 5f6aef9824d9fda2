"""The pass that decides which implementation computes a node: native steps wherever they compute the same.

What an operator's steps can do, and what replaces it, is said beside its row.
"""

from __future__ import annotations

import dataclasses

from convoxel.graph.ir.graph import Graph, Node
from convoxel.graph.operators.operator import Operator
from convoxel.graph.operators.rewriter import Rewriter
from convoxel.graph.operators.table import OPERATORS, make_node
from convoxel.graph.operators.view import NATIVE_RANKS


def use_native(graph: Graph) -> Graph:
    """Return the graph with nodes on arrays made native, or replaced by native ones, where that is right and worth it.

    Operators that only move numbers follow their neighbours, so the pass is repeated until none changes.
    """
    while True:
        constants, made = dict(graph.constants), set[str]()
        nodes: list[Node] = []
        for node in graph.nodes:
            chosen = [node] if node.native else _chosen(Rewriter(graph, node, constants, made, make_node))
            nodes += chosen
            made.update(value.name for each in chosen if each.native for value in each.outputs)
        if all(new is old for new, old in zip(nodes, graph.nodes, strict=False)) and len(nodes) == len(graph.nodes):
            return graph
        graph = graph.replace(nodes=tuple(nodes), constants=constants)


def _chosen(site: Rewriter) -> list[Node]:
    """Return the nodes that make what the site's node made: itself if it must stay as it is."""
    node, row = site.node, OPERATORS[site.node.operator]
    value, *others = node.outputs
    if value.dtype != "float32" or 0 in value.shape or any(site.is_read(other.name) for other in others):
        return [node]
    if not any(name in site.graph.values and site.is_native(name) for name in node.inputs):
        return [node]
    before = len(site.constants)
    if row.to_native is not None and row.to_native(site):
        return site.nodes
    for name in list(site.constants)[before:]:  # of a replacement that was not finished
        del site.constants[name]
    site.nodes.clear()
    if _takes_operands(site, row) and (row.to_native is None if row.fits is None else row.fits(site)):
        return [dataclasses.replace(node, outputs=(value,), native=True)]
    return [node]


def _takes_operands(site: Rewriter, row: Operator) -> bool:
    """Return True if the operands are known numbers where steps need these, else tensors that the engine takes."""
    if not row.has_steps or len(site.shape) not in NATIVE_RANKS:
        return False
    for index, name in enumerate(site.node.inputs):
        if name and row.operand(index).constant:
            fits = name in site.constants and site.constants[name].dtype.kind == "f"
        else:
            fits = not name or site.is_native(name)
        if not fits:
            return False
    return True
