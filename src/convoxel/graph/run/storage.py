"""The type in which each value is stored between native steps: float32, or bfloat16 where precision and steps allow it.

Half the bytes come from memory and caches, and a convolution by products of bfloat16 reads them without a conversion.
Sums, functions and statistics stay in float32; a result is rounded once, when it is stored.

Invariant: the types follow from the graph, the precision and the instruction set, never from sizes, threads or the
batch. So parts of an image are rounded where the whole image is.
"""

from __future__ import annotations

from collections.abc import Mapping

from convoxel.graph.ir.graph import CHANNELS_LAST, Graph, Node
from convoxel.graph.operators.table import OPERATORS
from convoxel.native.machine import instruction_set, multiplies_bfloat


def choose_elements(graph: Graph, precision: str, bfloat16: bool | None = None) -> dict[str, str]:
    """Return the type of every channels-last value that is not stored as float32.

    Inputs and results of native steps that come from arrays, or go there, stay float32, and so does what a step cannot
    take. Steps that take only tensors of one type join them, as views of one memory are joined. Without an instruction
    that multiplies bfloat16 every convolution would widen what it reads, so everything stays float32.

    Args:
        graph: a graph whose layouts are assigned.
        precision: the precision that the program asks for.
        bfloat16: whether the instruction set multiplies numbers of bfloat16 (default: as the one in use).
    """
    multiplies = multiplies_bfloat(instruction_set()) if bfloat16 is None else bfloat16
    if precision != "bfloat16" or not multiplies:
        return {}
    joined = _Classes()
    wide: set[str] = set()
    for node in graph.nodes:
        tensors = _tensors(graph, node)
        row = OPERATORS[node.operator]
        if row.alias is not None:
            joined.join(tensors)
        elif node.native and row.stored == "each":
            wide.update(name for index, name in enumerate(node.inputs) if name and index in row.float32)
        elif node.native and row.stored == "alike":
            joined.join(tensors)
        else:
            wide.update(tensors)
    wide.update(graph.constants)
    wide.update(value.name for value in graph.values.values() if value.dtype != "float32")
    heads = {joined.head(name) for name in wide}
    values = (value.name for value in graph.values.values() if value.layout == CHANNELS_LAST)
    return {name: "bfloat16" for name in values if joined.head(name) not in heads}


def follow_parts(graph: Graph, elements: Mapping[str, str]) -> dict[str, str]:
    """Return the types of a whole image's values, and of the parts that a graph of a tile cuts out of them."""
    found = dict(elements)
    for node in graph.nodes:
        if OPERATORS[node.operator].alias is not None and node.inputs[0] in found:
            found[node.output.name] = found[node.inputs[0]]
    return found


def _tensors(graph: Graph, node: Node) -> list[str]:
    """Return the operands and results of a node that are tensors."""
    row = OPERATORS[node.operator]
    operands = [name for index, name in enumerate(node.inputs) if name and not row.operand(index).constant]
    return [*operands, *(value.name for value in node.outputs)]


class _Classes:
    """Names that share a type."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def head(self, name: str) -> str:
        while (parent := self._parents.get(name, name)) != name:
            self._parents[name] = self._parents.get(parent, parent)
            name = parent
        return name

    def join(self, names: list[str]) -> None:
        for name in names[1:]:
            self._parents[self.head(name)] = self.head(names[0])


def element_of(elements: Mapping[str, str], name: str) -> str:
    """Return the type in which a value is stored."""
    return elements.get(name, "float32")
