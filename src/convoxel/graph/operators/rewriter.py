"""The place where native steps may take over: one node of a graph, and what replaces it.

The rules of the rows (``Operator.fits``, ``Operator.to_native``) are asked by one pass; they see the graph through this
class and add nodes with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoxel.graph.ir.graph import Graph, Node, Value
from convoxel.graph.ir.size import Extents
from convoxel.graph.operators.host import Array
from convoxel.graph.operators.view import NATIVE_RANKS


def add_constant(constants: dict[str, Array], name: str, array: Array) -> str:
    """Add an array under ``name``, primed as often as needed to be new, and return the name it got.

    >>> names = {"w": np.zeros(1)}
    >>> add_constant(names, "w", np.ones(1)), list(names)
    ("w'", ['w', "w'"])
    """
    while name in constants:
        name += "'"
    constants[name] = array
    return name


def is_native_type(shape: Extents, dtype: str) -> bool:
    """Return whether native steps can take a tensor: float32, (n, c) to (n, c, d, h, w), and not empty."""
    return dtype == "float32" and len(shape) in NATIVE_RANKS and 0 not in shape


class Rewriter:
    """A node on arrays that may be replaced, and the native nodes that replace it.

    ``constants`` are those of the graph and gain new ones; ``made`` and ``read`` are the values that native steps make
    and read so far; ``make`` makes a node of an operator's name, a name, inputs, outputs and attributes.
    """

    def __init__(
        self,
        graph: Graph,
        node: Node,
        constants: dict[str, Array],
        made: set[str],
        read: set[str],
        make: Callable[..., Node],
    ) -> None:
        self.node, self.constants, self.graph = node, constants, graph
        self._made, self._read, self._make = made, read, make
        self.nodes: list[Node] = []

    @property
    def x(self) -> Value:
        """The first operand."""
        return self.graph.values[self.node.inputs[0]]

    @property
    def shape(self) -> Extents:
        """The result's shape."""
        return self.node.outputs[0].shape

    def has_space(self) -> bool:
        """Return whether the result has image axes."""
        return len(self.shape) > 2

    def constant(self, index: int) -> Array | None:
        """Return an operand's numbers if they are known."""
        return self.constants.get(self.node.inputs[index])

    def extents(self, name: str) -> Extents:
        """Return the shape of the value or constant ``name``."""
        return self.graph.values[name].shape if name in self.graph.values else self.constants[name].shape

    def is_native(self, name: str) -> bool:
        """Return whether native steps can take the value or constant ``name``."""
        value = self.graph.values.get(name)
        return is_native_type(self.extents(name), self.constants[name].dtype.name if value is None else value.dtype)

    def is_read(self, name: str) -> bool:
        """Return whether a node reads the value, or it is a result of the graph."""
        return name in self.graph.users or name in self.graph.results

    def is_made_natively(self) -> bool:
        """Return whether an operand is a native step's result."""
        return any(name in self._made for name in self.node.inputs)

    def is_beside_native(self) -> bool:
        """Return whether a native step makes an operand or reads the result: the other side need not be converted.

        An operator that only moves numbers is not worth a detour.
        """
        return self.is_made_natively() or self.node.outputs[0].name in self._read

    def add(self, array: Any, part: str) -> str:
        """Add a constant and return its name."""
        return add_constant(self.constants, f"{self.node.name}.{part}", np.asarray(array))

    def between(self, operator: str, *inputs: str, shape: Extents, **attributes: Any) -> str:
        """Add a native node before the last one and return its result's name."""
        name = f"{self.node.name}.{operator}"
        while any(node.name == name for node in self.nodes):
            name += "'"
        self.nodes.append(self._make(operator, name, inputs, (Value(name, shape),), native=True, **attributes))
        return name

    def last(self, operator: str, *inputs: str, **attributes: Any) -> bool:
        """Add the native node that makes the result."""
        outputs = self.node.outputs[:1]
        self.nodes.append(self._make(operator, self.node.name, inputs, outputs, native=True, **attributes))
        return True

    def on_arrays(self, operator: str, *inputs: str, **attributes: Any) -> bool:
        """Add the node that makes the result, on arrays; it may still become native."""
        self.nodes.append(self._make(operator, self.node.name, inputs, self.node.outputs[:1], **attributes))
        return True

    def activation(self, kind: str, slope: Any = 0.0) -> bool:
        """Replace the node by an activation of its first operand."""
        return self.last("activation", self.x.name, activation=kind, slope=slope)

    def scaling(self, scale: Any, shift: Any) -> tuple[str, str]:
        """Add the constants of an ``affine`` node, each a number or one for every channel."""
        return self.add(_vector(scale), "scale"), self.add(_vector(shift), "shift")

    def affine(self, scale: Any, shift: Any, **epilogue: Any) -> bool:
        """Replace the node by activation(x · scale + shift)."""
        return self.last("affine", self.x.name, *self.scaling(scale, shift), **epilogue)


def _vector(number: Any) -> NDArray[np.float64]:
    return np.atleast_1d(np.asarray(number, np.float64))
