"""The nesting of a network's results: a tensor, or tuples, lists and dictionaries of tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convoxel.graph.ir.size import Size

__all__ = ["Branch", "Fixed", "Leaf", "Structure", "assemble"]


@dataclass(frozen=True)
class Leaf:
    """The tensor at ``index`` among the graph's outputs."""

    index: int


@dataclass(frozen=True)
class Fixed:
    """A result that is no tensor: None, a number, a text, or a size."""

    value: Any


@dataclass(frozen=True)
class Branch:
    """A ``"tuple"``, ``"list"`` or ``"dict"`` of further results; ``keys`` are a dictionary's."""

    kind: str
    children: tuple[Structure, ...]
    keys: tuple[Any, ...] = ()


Structure = Leaf | Fixed | Branch


def assemble(structure: Structure, outputs: Sequence[Any], sizes: Mapping[str, int]) -> Any:
    """Return ``outputs`` nested as ``structure`` says."""
    if isinstance(structure, Leaf):
        return outputs[structure.index]
    if isinstance(structure, Fixed):
        value = structure.value
        return value.number(sizes) if isinstance(value, Size) else value
    children = [assemble(child, outputs, sizes) for child in structure.children]
    if structure.kind == "dict":
        return dict(zip(structure.keys, children, strict=True))
    return tuple(children) if structure.kind == "tuple" else children
