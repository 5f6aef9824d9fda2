"""The table of rules: one for each PyTorch operator that has a counterpart in ``opset``.

A rule gets a ``Call`` (the operator's arguments by PyTorch's names) and returns its result, adding nodes;
or it raises ``NotNative``, and the operator runs in PyTorch. It must not guess: whatever an argument means
that the row cannot say is ``NotNative``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from convoxel.graph.ir.graph import Value
from convoxel.graph.ir.shape_only import ShapeOnly
from convoxel.graph.ir.size import Extents
from convoxel.graph.read.reader import NotNative, Reader

__all__ = ["RANKS", "RULES", "Call", "Recorded", "Results", "Rule", "array_of", "as_native", "elementwise", "rule"]

RANKS = range(2, 6)  # (n, c) to (n, c, d, h, w)


class Results(Protocol):
    """The shapes and types of what a call returns; ``recorded`` unless finding them out takes time."""

    @property
    def shapes(self) -> tuple[Extents, ...]: ...

    @property
    def dtypes(self) -> tuple[str, ...]: ...

    @property
    def recorded(self) -> bool: ...


@dataclass(frozen=True)
class Recorded:
    """Results as PyTorch recorded them, or as a rule knows them."""

    shapes: tuple[Extents, ...]
    dtypes: tuple[str, ...]
    recorded: bool = True


@dataclass(frozen=True)
class Call:
    """One call of a PyTorch operator.

    ``arguments`` holds values of the graph, constants (``torch.Tensor``), sizes, numbers, and lists of them.
    ``results`` has the shapes and types of what it returns; ``used`` says which of several results are read;
    ``stretches_later``, that all who read the result would stretch a smaller one to its shape by themselves.
    """

    reader: Reader
    target: str
    name: str
    arguments: Mapping[str, Any]
    results: Results
    used: frozenset[int]
    stretches_later: bool = False

    @property
    def shapes(self) -> tuple[Extents, ...]:
        """The shapes of the results."""
        return self.results.shapes

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The types of the results."""
        return self.results.dtypes

    def __getitem__(self, key: str) -> Any:
        return self.arguments[key]

    @property
    def function(self) -> str:
        """The operator's bare name: "relu" of ``aten.relu_.default``."""
        return self.target.split(".")[1].rstrip("_")

    @property
    def shape(self) -> Extents:
        """The shape of the first result."""
        return self.shapes[0]

    def tensor(self, key: str) -> Value:
        """Return a value of the graph that native steps can read."""
        value = self.arguments[key]
        if not isinstance(value, Value):
            raise NotNative(f"{key} is a constant")
        return as_native(value)

    def numbers(self, key: str) -> NDArray[Any] | None:
        """Return a constant argument as an array, None if it is absent."""
        tensor = self.arguments[key]
        if tensor is None:
            return None
        if isinstance(tensor, Value) or not hasattr(tensor, "detach"):
            raise NotNative(f"{key} is computed by the network")
        return array_of(tensor).copy()  # the program outlives the next training step

    def constant(self, key: str) -> str:
        """Add a constant argument to the graph and return its name, "" if it is absent."""
        array = self.numbers(key)
        if array is None:
            return ""
        return self.reader.constant(array, f"{self.name}.{key}", owner=self.arguments[key])

    def any(self, key: str) -> str:
        """Return the name of a tensor argument of any type: a value of the graph, or a constant that is added to it."""
        value = self.arguments[key]
        if isinstance(value, Value):
            return value.name
        if isinstance(value, bool | int | float):
            return self.reader.constant(np.array(value, self.dtypes[0]), f"{self.name}.{key}")
        return self.constant(key)

    def array(self, operator: str, *inputs: str, **attributes: Any) -> Any:
        """Add a node that runs in NumPy, with all results of the call; one is returned by itself."""
        values = self.reader.add(f"array.{operator}", self.name, inputs, self.shapes, self.dtypes, **attributes)
        return values[0] if len(values) == 1 else list(values)

    def select(self, x: Value, axis: int, index: int, shape: Extents) -> Value:
        """Add the nodes that take the numbers at one place of an axis, which goes; ``shape`` is without it."""
        rank = len(x.shape)
        starts: list[int] = [0] * rank
        stops: list[int | None] = [None] * rank
        starts[axis], stops[axis] = index, index + 1 if index != -1 else None
        one = tuple(1 if i == axis else extent for i, extent in enumerate(x.shape))
        bounds: dict[str, Any] = {"starts": tuple(starts), "stops": tuple(stops), "steps": (1,) * rank}
        part = self.reader.add("array.slice", self.name, (x.name,), [one], (x.dtype,), **bounds)[0]
        return self.reader.add("array.reshape", self.name, (part.name,), [shape], (x.dtype,), shape=shape)[0]

    def reshaped(self, value: Value, shape: Extents) -> Value:
        """Add the node that gives a value another shape."""
        return self.reader.add("array.reshape", self.name, (value.name,), [shape], (value.dtype,), shape=shape)[0]

    def around(self, key: str, shape: Extents, shapes: tuple[Extents, ...], function: Rule) -> Any:
        """Return what ``function`` makes of the call with its argument ``key`` in another shape.

        Its results have the ``shapes`` that belong to that one, and get those of the call.
        """
        lifted = self.reshaped(self.arguments[key], shape)
        arguments = {**self.arguments, key: lifted}
        found = function(dataclasses.replace(self, arguments=arguments, results=Recorded(shapes, self.dtypes)))
        results = found if isinstance(found, list | tuple) else [found]
        back = [
            self.reshaped(result, shape) if isinstance(result, Value) else result
            for result, shape in zip(results, self.shapes, strict=False)
        ]
        return back if isinstance(found, list | tuple) else back[0]

    def add(self, operator: str, *inputs: str, result: Extents | None = None, **attributes: Any) -> Value:
        """Add a node with one float32 result, by default of the call's shape."""
        if result is None and not self.results.recorded:
            (result, *_) = self.reader.infer(operator, self.name, inputs, **attributes)
        shape = self.shape if result is None else result
        if (self.results.recorded and self.dtypes[0] != "float32") or len(shape) not in RANKS:
            raise NotNative(f"the result is {self.dtypes[0]} with {len(shape)} axes")
        (value,) = self.reader.add(operator, self.name, inputs, [shape], **attributes)
        return value


def array_of(tensor: torch.Tensor) -> NDArray[Any]:
    """Return the numbers of a constant, which must not be changed; without data, its shape alone."""
    if tensor.is_meta:
        return ShapeOnly(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return array


def as_native(value: Value) -> Value:
    if value.dtype != "float32" or len(value.shape) not in RANKS:
        raise NotNative(f"{value.name} is {value.dtype} with {len(value.shape)} axes")
    return value


Rule = Callable[[Call], Any]
RULES: dict[str, Rule] = {}


def rule(*targets: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(targets, function))
        return function

    return register


def elementwise(*targets: str) -> Callable[[Rule], Rule]:
    """Register a rule for a function of each element of ``self``: of tensors with any number of axes.

    Those that native steps cannot take become one row, and the result gets its shape back.
    """

    def register(function: Rule) -> Rule:
        def any_rank(call: Call) -> Any:
            x = call.arguments["self"]
            if not isinstance(x, Value) or len(x.shape) in RANKS or x.dtype != "float32":
                return function(call)
            row: Extents = (1, math.prod(x.shape))
            return call.around("self", row, (row,), function)

        rule(*targets)(any_rank)
        return function

    return register
