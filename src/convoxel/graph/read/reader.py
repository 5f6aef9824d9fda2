"""What every reader of networks shares: collecting nodes, constants and unused names while it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from convoxel.graph.ir.graph import Graph, Node, Value
from convoxel.graph.ir.size import Extents, Size
from convoxel.graph.operators.table import make_node

__all__ = ["NeedsValue", "NotNative", "Reader"]


class NotNative(Exception):
    """Raised by a rule that cannot express its operator, with the reason; it then runs in its framework."""


class NeedsValue(Exception):
    """Raised by a rule: sizes depend on the values of the graph inputs ``names``, not only on their shapes."""

    def __init__(self, names: frozenset[str], what: str) -> None:
        super().__init__(f"{what} is computed by the network")
        self.names = names


class Reader:
    """A graph in the making."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.inputs: list[Value] = []
        self.nodes: list[Node] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self._producers: dict[str, Node] = {}
        self._names: set[str] = set()
        self._shared: dict[int, tuple[object, str]] = {}

    def unique(self, name: str) -> str:
        """Return ``name``, numbered if it is taken, and take it."""
        candidate, number = name, 1
        while candidate in self._names:
            number += 1
            candidate = f"{name}_{number}"
        self._names.add(candidate)
        return candidate

    def constant(self, array: NDArray[Any], name: str, owner: object | None = None) -> str:
        """Add a constant and return its name; the same ``owner`` is added once."""
        if owner is not None and id(owner) in self._shared:
            return self._shared[id(owner)][1]
        unique = self.unique(name)
        self.constants[unique] = array
        if owner is not None:
            self._shared[id(owner)] = (owner, unique)  # keeps the owner alive, so its id stays its own
        return unique

    def add(
        self,
        operator: str,
        name: str,
        inputs: Sequence[str],
        results: Sequence[Extents],
        dtypes: Sequence[str] = ("float32",),
        **attributes: Any,
    ) -> tuple[Value, ...]:
        """Add a node with one value per shape in ``results`` and return them."""
        unique = self.unique(name)
        values = [
            Value(unique if i == 0 else self.unique(f"{unique}.{i}"), shape, dtype)
            for i, (shape, dtype) in enumerate(zip(results, dtypes, strict=True))
        ]
        node = make_node(operator, unique, inputs, values, **attributes)
        self.nodes.append(node)
        self._producers.update(dict.fromkeys((value.name for value in values), node))
        return tuple(values)

    def producer(self, name: str) -> Node | None:
        """Return the node that makes a value; None for inputs and constants."""
        return self._producers.get(name)

    def value(self, name: str) -> Value | None:
        """Return the value of that name; None for constants."""
        node = self.producer(name)
        values = self.inputs if node is None else node.outputs
        return next((value for value in values if value.name == name), None)

    def graph(self, outputs: Sequence[str], guards: Sequence[Size] = (), assumptions: Sequence[Size] = ()) -> Graph:
        """Return what was read."""
        return Graph(
            self.name,
            tuple(self.inputs),
            tuple(outputs),
            tuple(self.nodes),
            dict(self.constants),
            tuple(guards),
            tuple(assumptions),
        )
