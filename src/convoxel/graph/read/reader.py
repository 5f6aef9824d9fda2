"""The base of all readers of networks: it collects nodes, constants and unused names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from convoxel.files.values import Array
from convoxel.graph.ir.graph import Graph, Node, Value
from convoxel.graph.ir.size import Extents, Size
from convoxel.graph.operators.table import OPERATORS, make_node

_STATISTICS = ("mean", "variance")  # constants of a normalisation that are not trained


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
        self.constants: dict[str, Array] = {}
        self._producers: dict[str, Node] = {}
        self._values: dict[str, Value] = {}
        self._names: set[str] = set()
        self._numbers: dict[str, int] = {}
        self._shared: dict[int, tuple[object, str]] = {}
        self.parameters: dict[str, int] = {}
        self._trained: dict[int, tuple[object, Mapping[int, int]]] = {}
        self._counted: set[int] = set()
        self._literals: dict[int, object] = {}
        self._literal_names: set[str] = set()
        self._guards: dict[Size, None] = {}
        self.lengths: set[Size] = set()  # of axes, known not to be negative

    def unique(self, name: str) -> str:
        """Return ``name``, numbered if it is taken, and take it."""
        candidate, number = name, self._numbers.get(name, 1)
        while candidate in self._names:
            number += 1
            candidate = f"{name}_{number}"
        self._numbers[name] = number  # names are never given back, so that the search goes on from here
        self._names.add(candidate)
        return candidate

    def add_input(self, value: Value) -> None:
        """Add an input."""
        self.inputs.append(value)
        self._values[value.name] = value

    def constant(self, array: Array, name: str, owner: object | None = None, source: object | None = None) -> str:
        """Add a constant and return its name.

        Args:
            array: its numbers.
            name: the name that it gets if that is free.
            owner: the framework's tensor that it is; one owner is added once.
            source: the framework's tensor that it was computed from.
        """
        if owner is not None and id(owner) in self._shared:
            return self._shared[id(owner)][1]
        unique = self.unique(name)
        self.constants[unique] = array
        self.count(unique, source if owner is None else owner)
        if id(owner) in self._literals:
            self._literal_names.add(unique)
        if owner is not None:
            self._shared[id(owner)] = (owner, unique)  # keeps the owner alive, so its id stays its own
        return unique

    def note_literal(self, array: object) -> None:
        """Note that ``array`` is written in the network's code: no parameter, whatever reads it."""
        self._literals[id(array)] = array

    def train(self, tensor: object, size: int) -> None:
        """Note that ``tensor`` is a parameter of ``size`` numbers."""
        self._trained[id(tensor)] = (tensor, {id(tensor): size})

    def derive(self, result: object, sources: Iterable[object]) -> None:
        """Note that ``result`` was computed from ``sources`` alone: their parameters are counted where it is used."""
        found = {key: size for source in sources for key, size in self._trained.get(id(source), (None, {}))[1].items()}
        if found:
            self._trained[id(result)] = (result, found)

    def count(self, name: str, tensor: object | None) -> None:
        """Note that the constant or node ``name`` holds the parameters behind ``tensor`` that no earlier one holds."""
        found = self._trained.get(id(tensor), (None, {}))[1]
        fresh = {key: size for key, size in found.items() if key not in self._counted}
        self._counted |= fresh.keys()
        if fresh:
            self.parameters[name] = sum(fresh.values())

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
        self._values.update((value.name, value) for value in values)
        return tuple(values)

    def require(self, condition: Size) -> None:
        """Note a condition under which the network is what was read."""
        self._guards.setdefault(condition)

    def infer(self, operator: str, name: str, inputs: Sequence[str], **attributes: Any) -> Sequence[Extents]:
        """Return the shapes of what a node would make, by its operator's rule.

        Raises ``ShapeError`` if the operands do not fit.
        """
        node = make_node(operator, name, inputs, (), **attributes)
        # A shape rule takes open sizes, too.
        shapes: list[Any] = [self.extents(operand) if operand else None for operand in node.inputs]
        return OPERATORS[operator].shape(node, shapes)

    def extents(self, name: str) -> Extents:
        """Return the shape of a value or constant."""
        array = self.constants.get(name)
        if array is not None:
            return tuple(array.shape)
        value = self.value(name)
        assert value is not None
        return value.shape

    def producer(self, name: str) -> Node | None:
        """Return the node that makes a value; None for inputs and constants."""
        return self._producers.get(name)

    def value(self, name: str) -> Value | None:
        """Return the value of that name; None for constants."""
        return self._values.get(name)

    def graph(self, outputs: Sequence[str], guards: Sequence[Size] = (), assumptions: Sequence[Size] = ()) -> Graph:
        """Return what was read."""
        guessed = None if self._trained else guess_parameters(self.nodes, self.constants, self._literal_names)
        tensors = tuple(self.inputs), tuple(outputs), tuple(self.nodes), dict(self.constants)
        return Graph(
            self.name,
            *tensors,
            (*self._guards, *guards),
            tuple(assumptions),
            dict(self.parameters) if guessed is None else guessed,
        )


def guess_parameters(
    nodes: Iterable[Node], constants: Mapping[str, Array], literals: Iterable[str] = ()
) -> dict[str, int]:
    """Return how many trained parameters each constant holds, where its framework does not say it.

    Fractions are parameters unless they are ``literals`` or the statistics of a normalisation. A number by itself is a
    factor, save where an operator takes weights or slopes. Of what is dequantised, the whole numbers are.
    """
    found: dict[str, int] = {}
    spared = set(literals)
    for node in nodes:
        row = OPERATORS[node.operator]
        for index, name in enumerate(node.inputs):
            array, operand = constants.get(name), row.operand(index).name
            if array is not None and node.operator in ("dequantise", "quantise"):
                if index == 0:
                    found[name] = array.size
                continue
            if array is None or array.dtype.kind != "f" or name in spared or operand in _STATISTICS:
                continue
            if array.size > 1 or operand in ("weight", "bias", "slope"):
                found[name] = array.size
    return found
