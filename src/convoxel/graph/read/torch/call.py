"""The table of rules: one for each PyTorch operator that has a counterpart among ours.

A rule gets a ``Call`` (the operator's arguments by PyTorch's names) and returns its result, adding nodes;
or it raises ``NotNative``, and the operator runs in PyTorch. It must not guess: whatever an argument means
that the row cannot say is ``NotNative``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from convoxel.files.values import Array, Options
from convoxel.graph.ir.graph import Value
from convoxel.graph.ir.shape_only import ShapeOnly
from convoxel.graph.ir.size import Extent, Extents, Size
from convoxel.graph.read.reader import NotNative, Reader


class Results(Protocol):
    """The shapes and types of what a call returns; ``recorded`` unless finding them out takes time."""

    @property
    def shapes(self) -> tuple[Extents, ...]: ...

    @property
    def dtypes(self) -> tuple[str, ...]: ...

    @property
    def recorded(self) -> bool: ...

    @property
    def count(self) -> int: ...


@dataclass(frozen=True)
class Recorded:
    """Results as PyTorch recorded them, or as a rule knows them."""

    shapes: tuple[Extents, ...]
    dtypes: tuple[str, ...]
    recorded: bool = True

    @property
    def count(self) -> int:
        """The number of results."""
        return len(self.shapes)


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
    arguments: Options
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
        """Return an argument that must be a value of the graph."""
        value = self.arguments[key]
        if not isinstance(value, Value):
            raise NotNative(f"{key} is a constant")
        return value

    def numbers(self, key: str) -> Array | None:
        """Return a constant argument as an array, None if it is absent."""
        tensor = self.arguments[key]
        if tensor is None:
            return None
        if isinstance(tensor, Value) or not hasattr(tensor, "detach"):
            raise NotNative(f"{key} is computed by the network")
        return array_of(tensor)

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
            return self.number(value, key)
        return self.constant(key)

    def number(self, value: Any, part: str, dtype: str = "") -> str:
        """Add a constant of the result's type, or another, and return its name."""
        return self.reader.constant(np.array(value, dtype or self.dtypes[0]), f"{self.name}.{part}")

    def add(
        self, operator: str, *inputs: str, result: Extents | None = None, dtype: str = "", **attributes: Any
    ) -> Value:
        """Add a node with one result, by default of the call's shape and type.

        Where PyTorch has not recorded these, the operator's rule says the shape, and float32 makes float32.
        """
        if result is None:
            recorded = self.results.recorded
            result = self.shape if recorded else self.reader.infer(operator, self.name, inputs, **attributes)[0]
        return self.reader.add(operator, self.name, inputs, [result], [dtype or self.dtype(*inputs)], **attributes)[0]

    def dtype(self, *inputs: str) -> str:
        """Return the type of the first result, which is that of the operands ``inputs`` if this is float32."""
        values = () if self.results.recorded else tuple(map(self.reader.value, filter(None, inputs[:1])))
        known = values and values[0] is not None and values[0].dtype == "float32"
        return "float32" if known else self.dtypes[0]

    def add_all(self, operator: str, *inputs: str, **attributes: Any) -> Value | list[Value]:
        """Add a node with all results of the call; one is returned by itself."""
        if self.results.count == 1 and not self.results.recorded:
            return self.add(operator, *inputs, **attributes)
        values = self.reader.add(operator, self.name, inputs, self.shapes, self.dtypes, **attributes)
        return values[0] if len(values) == 1 else list(values)

    def narrowed(
        self, x: Value, axis: int, start: Extent, stop: Extent | None, step: int = 1, result: Extents | None = None
    ) -> Value:
        """Add the node that takes a range of an axis."""
        bounds: list[tuple[Extent, Extent | None, int]] = [(0, None, 1)] * len(x.shape)
        bounds[axis] = (start, stop, step)
        starts, stops, steps = zip(*bounds, strict=True)
        return self.add("slice", x.name, result=result, dtype=x.dtype, starts=starts, stops=stops, steps=steps)

    def select(self, x: Value, axis: int, index: int, shape: Extents) -> Value:
        """Add the nodes that take the numbers at one place of an axis, which goes; ``shape`` is without it."""
        one = tuple(1 if i == axis else extent for i, extent in enumerate(x.shape))
        return self.reshaped(self.narrowed(x, axis, index, index + 1 if index != -1 else None, result=one), shape)

    def reshaped(self, value: Value, shape: Extents) -> Value:
        """Add the node that gives a value another shape."""
        return self.add("reshape", value.name, result=shape, dtype=value.dtype, shape=shape)

    def call_torch(self, operands: Sequence[str], function: Any, sizes: Sequence[Size] = ()) -> list[Value]:
        """Add the node that has PyTorch compute the call."""
        how = {"label": self.target, "call": function, "shapes": self.shapes, "sizes": tuple(sizes)}
        return list(self.reader.add("torch_call", self.name, operands, self.shapes, self.dtypes, **how))

    def around(self, key: str, shape: Extents, shapes: tuple[Extents, ...], function: Rule) -> Result:
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


def dtype_name(dtype: torch.dtype) -> str:
    """Return a type by the engine's name: it computes in float32, whatever a module's numbers are."""
    return "float32" if dtype.is_floating_point else str(dtype).removeprefix("torch.")


def array_of(tensor: torch.Tensor) -> Array:
    """Return a copy of a constant's numbers; without data, its shape alone, as float32.

    The program outlives the next training step. PyTorch makes the copy: memory that NumPy has seen can never change its
    size, as training over several machines does.
    """
    if tensor.is_meta:
        return ShapeOnly(tuple(tensor.shape), dtype_name(tensor.dtype))
    dtype = torch.float32 if tensor.dtype == torch.bfloat16 else tensor.dtype  # NumPy has no bfloat16
    array: Array = tensor.detach().to("cpu", dtype, copy=True, memory_format=torch.contiguous_format).numpy()
    return array


STRETCHING = frozenset(f"aten.{name}{write}.Tensor" for name in ("add", "sub", "mul", "div") for write in ("", "_"))
"""Arithmetic that stretches its operands by itself."""

Result = Value | torch.Tensor | Sequence[Value | torch.Tensor | None]
"""The outcome of a rule: one result, or several; None for one that nothing reads, a tensor for one that is known."""

Rule = Callable[[Call], Result]
RULES: dict[str, Rule] = {}


def rule(*targets: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(targets, function))
        return function

    return register


def hand_on(target: str, operator: str, operands: str, **attributes: Any) -> None:
    """Register the rule of an operator that is one of ours.

    Args:
        target: PyTorch's operator.
        operator: ours.
        operands: PyTorch's names of our operands.
        attributes: our attributes; a text names the argument of PyTorch's that has the value.
    """

    def function(call: Call) -> Value:
        given = {key: call[value] if isinstance(value, str) else value for key, value in attributes.items()}
        return call.add(operator, *map(call.any, operands.split()), **given)

    rule(target)(function)
