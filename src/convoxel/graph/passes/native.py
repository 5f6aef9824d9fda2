"""The pass that decides which implementation computes a node: native steps wherever they compute the same.

What an operator's steps can do, and what replaces it, is said beside its row.
"""

from __future__ import annotations

import dataclasses
import itertools

from convoxel.graph.ir.graph import Graph, Node
from convoxel.graph.operators.operator import Operator
from convoxel.graph.operators.rewriter import Rewriter
from convoxel.graph.operators.table import OPERATORS, make_node
from convoxel.graph.operators.view import NATIVE_RANKS

_FORWARD = 4  # sweeps, which most networks need; in a chain of movements the last one's neighbour is known first


def use_native(graph: Graph) -> Graph:
    """Return the graph with nodes on arrays made native, or replaced by native ones, where that is right and worth it.

    Operators that only move numbers follow their neighbours, so the pass is repeated until none changes: forwards, and
    in long chains backwards as well, else each sweep would change a single node.
    """
    for sweep in itertools.count():
        constants = dict(graph.constants)
        made = {value.name for node in graph.nodes if node.native for value in node.outputs}
        read = {name for node in graph.nodes if node.native for name in node.inputs}
        step = -1 if sweep >= _FORWARD and sweep % 2 else 1
        groups: list[list[Node]] = []
        for node in graph.nodes[::step]:
            chosen = [node] if node.native else _chosen(Rewriter(graph, node, constants, made, read, make_node))
            groups.append(chosen)
            made.update(value.name for each in chosen if each.native for value in each.outputs)
            read.update(name for each in chosen if each.native for name in each.inputs)
        nodes = [each for group in groups[::step] for each in group]
        if all(new is old for new, old in zip(nodes, graph.nodes, strict=False)) and len(nodes) == len(graph.nodes):
            break
        graph = graph.replace(nodes=tuple(nodes), constants=constants)
    return graph


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
