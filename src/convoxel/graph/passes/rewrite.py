"""Where a pass may put native steps in place of an operator on arrays: one node of a graph, and what replaces it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoxel.graph.ir.graph import CHANNELS_FIRST, Graph, Node, Value
from convoxel.graph.ir.size import Extents
from convoxel.graph.operators.table import OPERATORS, make_node
from convoxel.graph.operators.view import NATIVE_RANKS
from convoxel.graph.passes.constant import add_constant

__all__ = ["Rewriter"]


class Rewriter:
    """A node that may be replaced, and the nodes that replace it."""

    def __init__(self, graph: Graph, node: Node, constants: dict[str, NDArray[Any]], made: set[str]) -> None:
        self.node, self.constants, self.graph, self._made = node, constants, graph, made
        self.nodes: list[Node] = []

    @property
    def x(self) -> Value:
        """The first operand."""
        return self.graph.values[self.node.inputs[0]]

    @property
    def shape(self) -> Extents:
        """The result's shape."""
        return self.node.outputs[0].shape

    def constant(self, index: int) -> NDArray[Any] | None:
        """Return an operand's numbers if they are known."""
        return self.constants.get(self.node.inputs[index])

    def is_native(self, name: str) -> bool:
        """Whether native steps can take the value or constant ``name``."""
        value = self.graph.values.get(name)
        if value is not None:
            return fits(value.shape, value.dtype)
        array = self.constants.get(name)
        return array is not None and fits(array.shape, array.dtype.name)

    def is_made_natively(self) -> bool:
        """Whether an operand is a native step's result: an operator that only moves numbers is not worth a detour."""
        return any(name in self._made for name in self.node.inputs)

    def is_read_natively(self) -> bool:
        """Whether a native step reads the result, so that it is converted sooner or later."""
        users = self.graph.users.get(self.node.outputs[0].name, ())
        return any(OPERATORS[user.operator].layout != CHANNELS_FIRST for user in users)

    def needs_all(self) -> bool:
        """Whether a result other than the first is read."""
        names = [value.name for value in self.node.outputs[1:]]
        return any(name in self.graph.users or name in self.graph.outputs for name in names)

    def add(self, array: Any, part: str) -> str:
        """Add a constant and return its name."""
        return add_constant(self.constants, f"{self.node.name}.{part}", np.asarray(array))

    def between(self, operator: str, *inputs: str, shape: Extents, **attributes: Any) -> str:
        """Add a node before the last one and return its result's name."""
        name = f"{self.node.name}.{operator}"
        while any(node.name == name for node in self.nodes):
            name += "'"
        self.nodes.append(make_node(operator, name, inputs, (Value(name, shape),), **attributes))
        return name

    def last(self, operator: str, *inputs: str, **attributes: Any) -> bool:
        """Add the node that makes the result."""
        self.nodes.append(make_node(operator, self.node.name, inputs, self.node.outputs[:1], **attributes))
        return True

    def activation(self, kind: str, slope: Any = 0.0) -> bool:
        """Replace the node by an activation of its first operand."""
        return self.last("activation", self.x.name, activation=kind, slope=slope)

    def affine(self, scale: Any, shift: Any, **epilogue: Any) -> bool:
        """Replace the node by activation(x · scale + shift)."""
        names = [self.add(np.atleast_1d(np.asarray(v, np.float64)), part) for part, v in
                 (("scale", scale), ("shift", shift))]  # fmt: skip
        return self.last("affine", self.x.name, *names, **epilogue)


def fits(shape: Extents, dtype: str) -> bool:
    return dtype == "float32" and len(shape) in NATIVE_RANKS and 0 not in shape
