"""The table of rules: one for each ONNX operator.

A rule gets a ``Call`` and returns its results, adding nodes or computing them at once. A tensor of the network is a
``Value``; one that is known is an array, whose elements may be open sizes (an array of objects). What a rule cannot
express is ``NotNative``; the model is then refused, with every such node in the message.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from convoxel.errors import ConfigError, GraphError, ShapeError, UnsupportedError
from convoxel.files.values import Array, Options
from convoxel.graph.ir.graph import Value
from convoxel.graph.ir.size import Extents, Size
from convoxel.graph.operators.operator import REQUIRED
from convoxel.graph.operators.table import OPERATORS, make_node
from convoxel.graph.read.onnx import sizes
from convoxel.graph.read.reader import NeedsValue, NotNative, Reader

Tensor = Value | Array


class Parts(tuple[Tensor, ...]):
    """A sequence of tensors, as ``SplitToSequence`` makes one; only operators on sequences read it."""


# A file of a few bytes must not ask for gigabytes: what is free, and how often what is held may be repeated. A result
# is counted in elements and takes memory when the network runs; constants take bytes now, and all together count.
_FREE_RESULT, _RESULT_GROWTH = 2**27, 2**12
# What repeats one number takes memory only where weights are packed.
_FREE_BYTES, _BYTES_GROWTH, _REPEATED_BYTES = 2**27, 16, 2**30
_SIZE_BYTES = 64  # of an open size in an array of objects
# Work on an open size takes time by its length, 5 µs a character. Exports of drawn networks write 8 000 characters at
# most, and 200 for each operator.
_FREE_CHARACTERS, _CHARACTERS_A_STEP = 2**15, 2**8


@dataclass
class Budget:
    """Limits of the memory and time that a model may claim: of each result, and of all that reading it computes.

    ``held`` are elements of inputs (an open size counts as 1) and of the file's tensors, ``held_bytes`` their bytes,
    ``made_bytes`` those of all constants that were computed from them, ``repeated_bytes`` those of one number repeated,
    ``characters`` those of all open sizes that ``steps`` operators were computed with.
    """

    held: int = 0
    held_bytes: int = 0
    made_bytes: int = 0
    repeated_bytes: int = 0
    characters: int = 0
    steps: int = 0

    def hold(self, shape: Extents, dtype: str) -> None:
        """Count an input, or a tensor of the file."""
        self.held += least(shape)
        self.held_bytes += least(shape) * _itemsize(dtype)

    def make(self, shape: Extents, dtype: str) -> None:
        """Count a constant that is about to be computed, or raise ``NotNative``."""
        self.made_bytes += least(shape) * _itemsize(dtype)
        self._check(shape, self.made_bytes, max(_FREE_BYTES, _BYTES_GROWTH * self.held_bytes))

    def repeat(self, shape: Extents, dtype: str) -> None:
        """Count a constant that repeats one number, or raise ``NotNative``."""
        self.repeated_bytes += least(shape) * _itemsize(dtype)
        self._check(shape, self.repeated_bytes, max(_REPEATED_BYTES, _BYTES_GROWTH * self.held_bytes))

    def write(self, sizes: Iterable[Any]) -> None:
        """Count the open sizes among those of an operator; raise ``UnsupportedError`` if all take too long."""
        self.characters += sum(len(size.text) for size in sizes if isinstance(size, Size))
        most = max(_FREE_CHARACTERS, _CHARACTERS_A_STEP * self.steps)
        if self.characters > most:
            raise UnsupportedError(
                f"load: {self.steps} operators of the model compute with open sizes of {self.characters} characters; "
                f"at most {most} are read. Export the model with fixed sizes."
            )

    def _check(self, shape: Extents, made: int, most: int) -> None:
        if made > most:
            raise NotNative(
                f"a constant of shape {_written(shape)}: with it {made} bytes would be computed, more than "
                f"a file of {self.held_bytes} bytes may make"
            )

    def allow(self, shape: Extents) -> None:
        """Raise ``NotNative`` if one result is out of all proportion to the network."""
        if least(shape) > max(_FREE_RESULT, _RESULT_GROWTH * self.held):
            raise NotNative(
                f"a result of shape {_written(shape)}: more than a network of {self.held} elements may make"
            )


def _itemsize(dtype: str) -> int:
    return _SIZE_BYTES if dtype == "object" else np.dtype(dtype).itemsize


def least(shape: Extents) -> int:
    """Return how many elements a shape has where every open size is 1."""
    return math.prod(max(_at_one(extent) if isinstance(extent, Size) else int(extent), 1) for extent in shape)


@lru_cache(maxsize=1024)
def _at_one(size: Size) -> int:
    try:
        return size.value(dict.fromkeys(size.names(), 1))
    except GraphError:  # no whole number there
        return 1


def _written(shape: Extents) -> str:
    return f"({', '.join(map(str, shape))})"


@dataclass
class Call:
    """One node of an ONNX graph.

    ``inputs`` are its tensors (None where absent), ``attributes`` Python values, ``version`` the operator set's number,
    ``used`` says which results are read, ``budget`` how much may be made. ``decisive`` returns the inputs that a value
    is computed from, ``branch`` the results of a part of the network. ``producer`` wrote the file.
    """

    reader: Reader
    operator: str
    name: str
    inputs: Sequence[Tensor | Parts | None]
    attributes: Options
    version: int
    used: Sequence[bool]
    budget: Budget
    decisive: Callable[[Value], frozenset[str]]
    branch: Callable[[Any], list[Tensor]] = field(default=lambda graph: [])
    producer: str = ""

    def get(self, attribute: str, default: Any = None) -> Any:
        """Return an attribute, or ``default``."""
        return self.attributes.get(attribute, default)

    def __len__(self) -> int:
        return len(self.inputs)

    def tensor(self, index: int) -> Tensor:
        """Return an operand that must be there."""
        found = self.maybe(index)
        if found is None:
            raise NotNative(f"operand {index} is missing")
        return found

    def maybe(self, index: int) -> Tensor | None:
        """Return an operand, None if it is absent."""
        found = self.inputs[index] if index < len(self.inputs) else None
        if isinstance(found, Parts):
            raise NotNative("a sequence of tensors")
        return found

    def parts(self, index: int) -> Parts:
        """Return an operand that must be a sequence."""
        found = self.inputs[index]
        assert isinstance(found, Parts)
        return found

    def known(self, index: int, what: str) -> Array:
        """Return an operand whose value must be known now, because sizes or axes depend on it."""
        found = self.tensor(index)
        if isinstance(found, Value):
            raise NeedsValue(self.decisive(found), what)
        return found

    def extents(self, index: int, what: str) -> tuple[Any, ...]:
        """Return a known operand as numbers and open sizes."""
        return tuple(x if isinstance(x, Size) else int(x) for x in self.known(index, what).reshape(-1))

    def require(self, condition: bool, fact: str) -> None:
        """Raise ``GraphError`` with this node and ``fact`` unless ``condition``."""
        if not condition:
            raise GraphError(f"load: {self.operator} {self.name}: {fact}. Check the model with onnx.checker.")

    def axis(self, number: Any, count: int) -> int:
        """Return which of ``count`` axes a number means; negative ones count from the end."""
        if isinstance(number, Size):
            raise NotNative("an axis that is open")
        self.require(-count <= number < count, f"there is no axis {number}; expected {-count} to {count - 1}")
        return int(number) % count

    def along(self, x: Tensor, default: int) -> int:
        """Return the axis of ``x`` that the attribute ``axis`` names."""
        return self.axis(self.get("axis", default), rank(x))

    def pairs(self, dims: int) -> tuple[tuple[Any, Any], ...]:
        """Return the attribute ``pads`` as what lies before and after each of ``dims`` axes; 0 without it."""
        given = self.get("pads") or (0,) * (2 * dims)
        self.require(len(given) == 2 * dims, f"pads {list(given)} are {len(given)} numbers; expected {2 * dims}")
        return tuple((given[i], given[i + dims]) for i in range(dims))

    def constant(self, index: int) -> Array | None:
        """Return an operand if its value is known as plain numbers, else None."""
        found = self.maybe(index)
        return found if isinstance(found, np.ndarray) and found.dtype != object else None

    def add(self, operator: str, *operands: Tensor | None, dtype: str | None = None, **attributes: Any) -> Tensor:
        """Return the result of an operator of ours: computed at once if all operands are known, else a new node's.

        ``dtype`` is the result's type, that of the first operand unless given. Of several results the first.
        """
        return self.results(operator, *operands, dtypes=(dtype,), **attributes)[0]

    def results(
        self, operator: str, *operands: Tensor | None, dtypes: Sequence[str | None], **attributes: Any
    ) -> list[Any]:
        """Return as many results as there are ``dtypes``."""
        self.budget.steps += 1
        present = [operand for operand in operands if operand is not None]
        types = [d or (dtype_of(present[0]) if present else "float32") for d in dtypes]
        row = OPERATORS[operator]
        if row.host is not None and not any(isinstance(operand, Value) for operand in present):
            made = self._computed(operator, operands, types, attributes)
            if made is not None:
                return made
        return self._nodes(operator, operands, types, attributes)

    def keep(self, operator: str, *operands: Tensor | None, dtype: str, **attributes: Any) -> Tensor:
        """Return the result of a new node even if all operands are known: a pass wants to see them."""
        result: Tensor = self._nodes(operator, operands, [dtype], attributes)[0]
        return result

    def _nodes(
        self, operator: str, operands: Sequence[Tensor | None], types: Sequence[str], attributes: Options
    ) -> list[Any]:
        row = OPERATORS[operator]
        names = tuple(self._name(operand) for operand in operands)
        shapes: list[Any] = [None if operand is None else tuple(operand.shape) for operand in operands]
        while not row.variadic and len(shapes) < len(row.operands):
            shapes.append(None)
        missing = [key for key, value in {**row.attributes, **attributes}.items() if value is REQUIRED]
        assert not missing, f"{operator} needs {missing}"
        node = make_node(operator, self.name, names, (), **attributes)
        try:
            found: Sequence[Extents] = row.shape(node, shapes)
        except ShapeError as reason:
            raise ShapeError(f"{self.operator} {self.name}: {reason}") from None
        except ConfigError as reason:  # the attributes of a file are not the caller's options
            raise GraphError(f"load: {self.operator} {self.name}: {reason}") from None
        for shape in found[: len(types)]:
            self.budget.allow(shape)
            self.budget.write(shape)
        return list(self.reader.add(operator, self.name, names, found[: len(types)], types, **attributes))

    def _computed(
        self, operator: str, operands: Sequence[Any], types: Sequence[str], attributes: Options
    ) -> list[Any] | None:
        """Return results that are known; None where an input must come first, to decide a size that is open."""
        if any(isinstance(leaf, Size) for value in attributes.values() for leaf in _leaves(value)):
            return None
        sized = any(operand is not None and operand.dtype == object for operand in operands)
        outputs = [Value(str(i), (), "object" if sized else dtype) for i, dtype in enumerate(types)]
        node = make_node(operator, self.name, [], outputs, **attributes)
        given = [*operands, *(None,) * (len(OPERATORS[operator].operands) - len(operands))]
        made = OPERATORS[operator].shape(node, [None if g is None else g.shape for g in given])
        for shape, value in zip(made, outputs, strict=False):  # a row may have results that nothing reads
            self.budget.make(shape, value.dtype)
        if sized and operator not in sizes.MOVES:
            typed = dtype_of(operands[1 if operator == "select" else 0])
            for operand in operands:
                if operand is not None:
                    self.budget.write(operand.reshape(-1))
            found = sizes.compute(operator, operands, attributes, typed, self.reader.lengths)
            return None if found is None else [sizes.settled(found, types[0])]
        host = OPERATORS[operator].host
        assert host is not None
        results = host(node, given, {})
        return [sizes.settled(result, types[0]) for result in results] if sized else list(results)

    def _name(self, operand: Tensor | None) -> str:
        if operand is None:
            return ""
        if isinstance(operand, Value):
            return operand.name
        if operand.dtype == object:
            return self.materialise(operand).name
        return self.reader.constant(operand, f"{self.name}.constant", owner=operand)

    def materialise(self, elements: Array) -> Value:
        """Return open sizes as a value of the graph."""
        how = {"values": tuple(elements.reshape(-1).tolist()), "shape": elements.shape}
        return self.reader.add("sizes", f"{self.name}.sizes", (), [elements.shape], (dtype_of(elements),), **how)[0]


def _leaves(value: Any) -> list[Any]:
    return [leaf for element in value for leaf in _leaves(element)] if isinstance(value, list | tuple) else [value]


def dtype_of(tensor: Tensor) -> str:
    """Return the name of a tensor's type; open sizes are int64, or what the network makes of them."""
    if isinstance(tensor, Value):
        return tensor.dtype
    return sizes.type_of(tensor) if tensor.dtype == object else str(tensor.dtype)


def snake(name: str) -> str:
    """Return one of ONNX's names as ours are written: "GreaterOrEqual" as "greater_or_equal"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def rank(tensor: Tensor) -> int:
    """Return the number of axes."""
    return len(tensor.shape)


Result = Tensor | Parts | Sequence[Tensor]
"""The outcome of a rule: one result, or several."""

Rule = Callable[[Call], Result]
RULES: dict[str, Rule] = {}


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Register a function as the rule of ONNX operators."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(operators, function))
        return function

    return register
