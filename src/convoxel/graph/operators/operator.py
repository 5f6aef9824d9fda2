"""What a row of ``opset`` says: operands, attributes, and the rules for shape, cost, receptive field and steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from convoxel.graph.ir.graph import CHANNELS_LAST, Node
from convoxel.graph.ir.size import Shape
from convoxel.graph.operators import rules
from convoxel.graph.operators.lowering import Step
from convoxel.native import View

__all__ = ["REQUIRED", "Operand", "Operator", "Window"]

REQUIRED: Any = type("Required", (), {"__repr__": lambda self: "REQUIRED"})()
"""The default of an attribute that has none."""


class Operand(NamedTuple):
    """A declared operand: a tensor of the graph, or (``constant``) an array known when the graph is made."""

    name: str
    constant: bool = False
    optional: bool = False
    variadic: bool = False


class Window(NamedTuple):
    """The window of an operator along each spatial axis: all that the receptive field needs to know."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    transposed: bool = False


@dataclass(frozen=True)
class Operator:
    """One row.

    ``layout`` is where operands and results lie: ``"last"`` for native steps, ``"first"`` for operators that
    work on arrays, ``"any"`` for those that convert. A native operator has ``lower`` (adds steps to the plan)
    or ``alias`` (its result is a view of its first operand); the others have ``host``.
    ``epilogue`` operators take a fused activation and, if they have the operand, a residual.
    """

    name: str
    operands: tuple[Operand, ...]
    shape: rules.ShapeRule
    attributes: Mapping[str, Any] = field(default_factory=dict)
    macs: rules.Macs = rules.no_macs
    window: Callable[[Node, Shape], Window] | None = None
    layout: str = CHANNELS_LAST
    lower: Callable[[Step], None] | None = None
    alias: Callable[[Node, Shape, View], View] | None = None
    host: Callable[[Node, Sequence[Any], Mapping[str, int]], list[Any]] | None = None

    @property
    def epilogue(self) -> bool:
        """Whether the operator can apply an activation to its result."""
        return "activation" in self.attributes and self.name != "activation"

    @property
    def variadic(self) -> bool:
        """Whether the last operand stands for any number of them."""
        return bool(self.operands) and self.operands[-1].variadic

    def operand(self, index: int) -> Operand:
        """Return the declaration of the operand at ``index``."""
        return self.operands[min(index, len(self.operands) - 1)]
