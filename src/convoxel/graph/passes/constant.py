"""The pass that computes what depends on constants alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from convoxel.files.values import Array
from convoxel.graph.ir.graph import Graph, Node
from convoxel.graph.operators.table import OPERATORS

# A small constant may be tiled to any size; what exceeds these bytes in all, or as many times the network's own
# constants, is better computed when needed.
_FREE_BYTES, _GROWTH = 1 << 26, 4


def fold_constants(graph: Graph) -> Graph:
    """Return the graph with every operator on arrays whose operands are all known replaced by its results."""
    constants = dict(graph.constants)
    left = max(_FREE_BYTES, _GROWTH * sum(array.nbytes for array in constants.values()))
    nodes: list[Node] = []
    for node in graph.nodes:
        results = _results(node, constants, left)
        if results is None:
            nodes.append(node)
        else:
            left -= _size(node)
            constants.update((value.name, result) for value, result in zip(node.outputs, results, strict=True))
    return graph.replace(nodes=tuple(nodes), constants=constants)


def _is_known(node: Node, constants: Mapping[str, Array]) -> bool:
    operands = [name for name in node.inputs if name]
    known = not node.native and operands and all(name in constants for name in operands)
    return bool(known) and not node.is_open


def _size(node: Node) -> int:
    """Return the bytes of the results, which are all known."""
    lengths = [[extent for extent in value.shape if isinstance(extent, int)] for value in node.outputs]
    return sum(int(np.prod(shape)) * np.dtype(v.dtype).itemsize for v, shape in zip(node.outputs, lengths, strict=True))


def _results(node: Node, constants: Mapping[str, Array], most_bytes: int) -> list[Array] | None:
    if not _is_known(node, constants) or _size(node) > most_bytes:
        return None
    host = OPERATORS[node.operator].host
    assert host is not None
    try:
        return list(host(node, [constants[name] if name else None for name in node.inputs], {}))
    except (IndexError, ValueError):  # it will be refused, with its name, when the program runs
        return None
