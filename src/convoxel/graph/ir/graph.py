"""The graph: values, nodes and constants, all frozen.

A pass never changes a graph; it makes another. Nodes are listed in an order in which they can run. What an
operator means is not said here but in ``operators``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convoxel.errors import GraphError
from convoxel.files.values import Array, Options
from convoxel.fork import cached_property
from convoxel.graph.ir.size import Extents, Size

CHANNELS_FIRST = "first"
CHANNELS_LAST = "last"


@dataclass(frozen=True)
class Value:
    """A tensor that flows through the graph.

    ``shape`` is channels first whatever the memory layout: (n, c, d, h, w), (n, c, h, w), (n, c, w), (n, c).
    ``layout`` says where the numbers lie: ``"first"`` in an array of the caller or of an operator on arrays,
    ``"last"`` in the arena of the engine.
    """

    name: str
    shape: Extents
    dtype: str = "float32"
    layout: str = CHANNELS_FIRST

    def __str__(self) -> str:
        layout = " last" if self.layout == CHANNELS_LAST else ""
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]{layout}"


@dataclass(frozen=True)
class Node:
    """One operator applied to named values.

    ``inputs`` are names of values or constants, ``""`` where an optional operand is absent. ``native`` tells which of
    an operator's implementations computes the node: steps of the engine, or a function on arrays.
    """

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[Value, ...]
    attributes: Options = field(default_factory=dict)
    native: bool = False

    def runs(self, *operators: str) -> bool:
        """Return whether the node is one of ``operators`` and native steps compute it."""
        return self.native and self.operator in operators

    @property
    def output(self) -> Value:
        """The only output."""
        (value,) = self.outputs
        return value

    def __getitem__(self, attribute: str) -> Any:
        return self.attributes[attribute]

    def with_attributes(self, **changes: Any) -> Node:
        """Return the node with some attributes changed or added."""
        return dataclasses.replace(self, attributes={**self.attributes, **changes})

    def resolved(self, sizes: Mapping[str, int]) -> Node:
        """Return the node with every size expression among its attributes replaced by its number."""
        if not self.is_open:
            return self
        attributes = {key: _resolve(value, sizes) for key, value in self.attributes.items()}
        return dataclasses.replace(self, attributes=attributes)

    @cached_property
    def is_open(self) -> bool:
        """True if an attribute has a size that only an input decides; planning asks again and again."""
        return any(map(_has_size, self.attributes.values()))


@dataclass(frozen=True)
class Graph:
    """A network: inputs, nodes in running order, constants, and conditions on the input sizes.

    The graph is what its reader saw if the ``guards`` hold; sizes that were computed from input sizes are
    right if the ``assumptions`` hold too. ``parameters`` counts the trained parameters that each constant holds, or
    each node that holds some as an attribute, every one once; None if the reader cannot tell them from other numbers.
    """

    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Array] = field(default_factory=dict)
    guards: tuple[Size, ...] = ()
    assumptions: tuple[Size, ...] = ()
    parameters: Mapping[str, int] | None = None

    def replace(self, **changes: Any) -> Graph:
        """Return the graph with some fields changed."""
        return dataclasses.replace(self, **changes)

    @cached_property
    def values(self) -> Mapping[str, Value]:
        """Every value by name."""
        values = {value.name: value for value in self.inputs}
        values.update((value.name, value) for node in self.nodes for value in node.outputs)
        return values

    @cached_property
    def producers(self) -> Mapping[str, Node]:
        """For each value that a node makes, that node."""
        return {value.name: node for node in self.nodes for value in node.outputs}

    @cached_property
    def users(self) -> Mapping[str, tuple[Node, ...]]:
        """For each value, the nodes that read it; a node that reads it twice is listed twice."""
        users: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                users.setdefault(name, []).append(node)
        return {name: tuple(nodes) for name, nodes in users.items()}

    @cached_property
    def results(self) -> frozenset[str]:
        """The names of the outputs, to ask whether a value is one of them."""
        return frozenset(self.outputs)

    @cached_property
    def computes_sizes(self) -> bool:
        """True if an attribute is computed from input sizes, beyond being the length of an axis."""
        return any(_is_computed(value) for node in self.nodes for value in node.attributes.values())

    def only_user(self, name: str) -> Node | None:
        """Return the one node that reads ``name``, or None if it is read elsewhere or is an output."""
        users = self.users.get(name, ())
        return users[0] if len(users) == 1 and name not in self.results else None

    def __str__(self) -> str:
        """Return the graph as text, one node a line; attributes that are off, empty or zero are left out."""
        lines = [f"graph {self.name}({', '.join(map(str, self.inputs))})", *map(self._line, self.nodes)]
        lines.append(f"  return {', '.join(self.outputs)}")
        return "\n".join([*lines, *(f"  where {guard}" for guard in self.guards)])

    def _line(self, node: Node) -> str:
        operands = [f"{n}{list(self.constants[n].shape)}" if n in self.constants else n or "-" for n in node.inputs]
        while operands and operands[-1] == "-":
            operands.pop()
        attributes = [f"{key}={_written(value)}" for key, value in node.attributes.items() if _is_told(value)]
        return f"  {', '.join(map(str, node.outputs))} = {node.operator}({', '.join(operands + attributes)})"


def _is_told(value: Any) -> bool:
    zero = isinstance(value, float) and value == 0
    return not (zero or callable(value) or value is None or value is False or value in ("none", ()))


def _written(value: Any) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_written, value)) + ("," if len(value) == 1 else "") + ")"
    return str(value)


def rename(nodes: Iterable[Node], names: Mapping[str, str]) -> tuple[Node, ...]:
    """Return ``nodes`` reading ``names[old]`` wherever they read ``old``, through chains of renamings."""

    final = follow(names)

    def renamed(node: Node) -> Node:
        if names.keys().isdisjoint(node.inputs):
            return node
        return dataclasses.replace(node, inputs=tuple(map(final, node.inputs)))

    return tuple(map(renamed, nodes))


def follow(names: Mapping[str, str]) -> Callable[[str], str]:
    """Return the function that follows chains of renamings to their end, each link once however often it is asked."""
    ends = dict(names)

    def final(name: str) -> str:
        passed = []
        while name in ends:
            passed.append(name)
            name = ends[name]
        ends.update(dict.fromkeys(passed, name))
        return name

    return final


def verify_structure(graph: Graph) -> None:
    """Raise ``GraphError`` unless every name is defined once and before it is used."""
    defined = set(graph.constants)
    for name, array in graph.constants.items():
        if not isinstance(array, np.ndarray):
            raise GraphError(f"constant {name} is a {type(array).__name__}, not an array")

    def define(values: Iterable[Value], where: str) -> None:
        for value in values:
            if not value.name or value.name in defined:
                raise GraphError(
                    f"{where} defines {value.name!r} a second time" if value.name else f"{where} has no name"
                )
            defined.add(value.name)

    if "" in defined:
        raise GraphError("constant has no name")
    define(graph.inputs, "input")
    names: set[str] = set()
    for node in graph.nodes:
        if node.name in names:
            raise GraphError(f"two nodes are named {node.name!r}")
        names.add(node.name)
        for name in node.inputs:
            if name and name not in defined:
                raise GraphError(f"node {node.name} reads {name!r}, which nothing before it defines")
        define(node.outputs, f"node {node.name}")
    for name in graph.outputs:
        if name not in defined:
            raise GraphError(f"output {name!r} is defined by no node")
    known = set().union(*(e.names() for v in graph.inputs for e in v.shape if isinstance(e, Size)))
    for guard in (*graph.guards, *graph.assumptions):
        if not guard.names() <= known:
            raise GraphError(f"condition {guard} speaks of sizes other than the inputs' {sorted(known)}")


def _is_computed(value: Any) -> bool:
    if isinstance(value, tuple):
        return any(map(_is_computed, value))
    return isinstance(value, Size) and not value.is_axis


def _has_size(value: Any) -> bool:
    return isinstance(value, Size) or (isinstance(value, tuple) and any(map(_has_size, value)))


def _resolve(value: Any, sizes: Mapping[str, int]) -> Any:
    if isinstance(value, Size):
        return value.number(sizes)
    if isinstance(value, tuple):
        return tuple(_resolve(element, sizes) for element in value)
    return value
