"""Sizes along one image axis: the contract of the rules that turn operators into layers of ``arithmetic``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from convoxel.arithmetic import Graph, Layer, Node
from convoxel.errors import ConvoxelError
from convoxel.graph.operators.field import Applied

__all__ = ["AxisBuilder", "AxisRule", "UnknownAxis"]


class UnknownAxis(ConvoxelError):
    """An operator changes the axis as no layer of ``arithmetic`` does."""


class AxisBuilder:
    """The arithmetic graph of one image axis in the making.

    ``lengths`` holds the length of every value for the sizes at hand; value 0 is the input, value i is made by node
    i − 1. ``name`` is the name that new layers get.
    """

    def __init__(self, length: int) -> None:
        self.name = ""
        self.lengths = [length]
        self.nodes: list[Node] = []

    def put(self, layer: Layer, *inputs: int) -> int:
        """Add a layer on values and return the number of its result."""
        self.lengths.append(layer.size(*(self.lengths[place] for place in inputs)))
        self.nodes.append(Node(layer, inputs, self.name))
        return len(self.nodes)

    def graph(self) -> Graph:
        """Return what was built."""
        return Graph(tuple(self.nodes))


AxisRule = Callable[[Applied, int, AxisBuilder, Sequence[int | None]], int | None]
"""The number of the result's value along spatial axis ``axis`` (0 is the first behind the channels).

It gets the applied node, the axis, the builder to add layers to, and the number of each operand's value (None where an
operand does not have the axis). It returns None where the result does not have the axis, and raises ``UnknownAxis``
where no layer says what happens.
"""
