"""The nesting of a network's results: a tensor, or tuples, lists, dictionaries and records of tensors."""

from __future__ import annotations

import keyword
import re
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from convoxel.graph.ir.size import Size


@dataclass(frozen=True)
class Leaf:
    """A tensor.

    Attributes:
        index: its place among the graph's outputs.
        name: the name that an ONNX model gave it; empty where results have none.
    """

    index: int
    name: str = field(default="", compare=False)


@dataclass(frozen=True)
class Fixed:
    """A result that is no tensor: None, a number, a text, or a size."""

    value: Any


@dataclass(frozen=True)
class Branch:
    """Further results under one.

    Attributes:
        kind: ``"tuple"``, ``"list"``, ``"dict"``, or ``"record"`` for named tuples, data classes and their like.
        children: the further results.
        keys: those of a dictionary, or the names of a record's fields.
        name: the name of a record's type.
        make: what makes the network's own type of the children. It is not part of a file: from there, a record is a
            named tuple.
    """

    kind: str
    children: tuple[Structure, ...]
    keys: tuple[Any, ...] = ()
    name: str = ""
    make: Callable[[Sequence[Any]], Any] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Raise ``ValueError`` if there is no such thing."""
        if self.kind not in ("tuple", "list", "dict", "record"):
            raise ValueError(f"results are nested in a {self.kind!r}")
        if self.kind in ("dict", "record") and len(self.keys) != len(self.children):
            raise ValueError(f"{len(self.children)} results have {len(self.keys)} names")
        if self.kind == "record" and not (_is_name(self.name) and all(map(_is_name, self.keys))):
            raise ValueError(f"{self.name!r} of {self.keys} is no named tuple")
        if self.kind == "record" and len(set(self.keys)) < len(self.keys):
            raise ValueError(f"names of {self.name} come twice: {self.keys}")


Structure = Leaf | Fixed | Branch


def assemble(structure: Structure, outputs: Sequence[Any], sizes: Mapping[str, int]) -> Any:
    """Return ``outputs`` nested as ``structure`` says."""
    if isinstance(structure, Leaf):
        return outputs[structure.index]
    if isinstance(structure, Fixed):
        value = structure.value
        return value.number(sizes) if isinstance(value, Size) else value
    children = [assemble(child, outputs, sizes) for child in structure.children]
    if structure.make is not None:
        return structure.make(children)
    if structure.kind == "record":
        return _made(structure.name, structure.keys, children)
    if structure.kind == "dict":
        return dict(zip(structure.keys, children, strict=True))
    return tuple(children) if structure.kind == "tuple" else children


def name_leaves(structure: Structure, path: str = "") -> Iterator[tuple[int, str]]:
    """Yield the index of each tensor and a name for it: its own, or that of its keys, such as ``boxes_0``.

    >>> dict(name_leaves(Branch("dict", (Leaf(1), Branch("tuple", (Leaf(0, "y"), Leaf(2)))), ("a", "b"))))
    {1: 'a', 0: 'y', 2: 'b_1'}
    """
    if isinstance(structure, Leaf):
        yield structure.index, structure.name or path or "output"
    elif isinstance(structure, Branch):
        named = structure.kind in ("dict", "record")
        keys = structure.keys if named else range(len(structure.children))
        for key, child in zip(keys, structure.children, strict=True):
            word = re.sub(r"\W", "_", str(key)) if named else str(key)
            yield from name_leaves(child, f"{path}_{word}" if path else word if named else f"output_{word}")


def _made(name: str, keys: tuple[str, ...], children: Sequence[Any]) -> Any:
    """Return a named tuple."""
    return _record_type(name, keys)(*children)


@lru_cache(maxsize=64)
def _record_type(name: str, keys: tuple[str, ...]) -> Any:
    """Return a type of named tuples, whose instances are pickled by its name and keys: no module holds it."""
    made = namedtuple(name, keys)  # type: ignore[misc]
    return type(name, (made,), {"__slots__": (), "__reduce__": lambda self: (_made, (name, keys, tuple(self)))})


def _is_name(text: object) -> bool:
    """Return whether a named tuple can have a field of that name."""
    if not isinstance(text, str) or len(text) > 200:
        return False
    return text.isidentifier() and not text.startswith("_") and not keyword.iskeyword(text)
