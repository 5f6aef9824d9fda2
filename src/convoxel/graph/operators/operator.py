"""The row of an operator: operands, attributes, and the rules for shape, cost, receptive field and steps.

A shape rule takes a node whose sizes are numbers and the shapes of its operands (None where absent) and returns the
shapes of its results; it raises ``ShapeError`` with the bare fact, the caller adds the node's name. Shapes may hold
open sizes too, when a reader infers shapes before any input is known: ``Size`` does arithmetic, and what only an input
can decide is taken to fit (``differ``). A cost rule returns multiply–accumulates of the direct algorithm.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from convoxel.files.values import Options
from convoxel.graph.ir.graph import Node, Value
from convoxel.graph.ir.size import Shape
from convoxel.graph.operators.host import Array, Host, host
from convoxel.graph.operators.reads import ReadsRule, unknown
from convoxel.graph.operators.region import Request, Restricted, RestrictRule, by_reads
from convoxel.graph.operators.rewriter import Rewriter
from convoxel.graph.operators.step import Step
from convoxel.native import View

Shapes = Sequence[Shape | None]
ShapeRule = Callable[[Node, Shapes], list[Shape]]
Macs = Callable[[Node, Shapes, Sequence[Shape]], int]

REQUIRED: Any = type("Required", (), {"__repr__": lambda self: "REQUIRED"})()
"""The default of an attribute that has none."""

EPILOGUE = "activation='none', slope=0.0"
"""The attributes of an operator that can apply an activation to its result, as ``row`` declares them."""


class Operand(NamedTuple):
    """A declared operand: a tensor of the graph, or (``constant``) an array known when the graph is made."""

    name: str
    constant: bool = False
    optional: bool = False
    variadic: bool = False


def no_macs(node: Node, shapes: Shapes, out: Sequence[Shape]) -> int:
    """Nothing is multiplied and accumulated."""
    return 0


_unknown = unknown()


@dataclass(frozen=True)
class Operator:
    """One row.

    An operator has native steps (``lower`` adds them to the plan, or ``alias`` makes the result a view of the first
    operand), a function on arrays (``host``), or both. Where a node's tensors are such as the engine takes, ``fits``
    says whether the steps compute it and are worth it (always, without such a rule), and ``to_native`` replaces it by
    native nodes, perhaps of other operators; without ``fits`` it decides alone.
    ``macs`` is the rule for multiply–accumulates, None where they are not known.
    ``reads`` is the rule for receptive fields and for sizes along an axis; without one, nothing is known behind the
    operator. ``restrict`` is the rule for a part of the result, where it does not follow from ``reads``.
    ``stored`` says in which types the steps take tensors: all "alike", float32 or bfloat16; "each" in its own, but the
    operands ``float32`` in that; or "float32".
    ``keeps_indices`` says that the backward pass needs the indices of the numbers that were chosen.
    """

    name: str
    operands: tuple[Operand, ...]
    shape: ShapeRule
    attributes: Options = dataclasses.field(default_factory=dict)
    macs: Macs | None = no_macs
    lower: Callable[[Step], None] | None = None
    alias: Callable[[Node, Shape, View], View] | None = None
    host: Host | None = None
    fits: Callable[[Rewriter], bool] | None = None
    to_native: Callable[[Rewriter], bool] | None = None
    reads: ReadsRule = _unknown
    restrict: RestrictRule | None = None
    keeps_indices: bool = False
    stored: str = "alike"
    float32: tuple[int, ...] = ()

    @property
    def has_steps(self) -> bool:
        """True if native steps can compute the operator at all."""
        return self.lower is not None or self.alias is not None or self.host is None

    def part(self, request: Request) -> Restricted:
        """Return how to make a part of the result with the bits that the whole result has there."""
        return (self.restrict or by_reads(self.reads))(request)

    @property
    def epilogue(self) -> bool:
        """True if the operator can apply an activation to its result."""
        return "activation" in self.attributes and self.name != "activation"

    @property
    def variadic(self) -> bool:
        """True if the last operand stands for any number of them."""
        return bool(self.operands) and self.operands[-1].variadic

    def operand(self, index: int) -> Operand:
        """Return the declaration of the operand at ``index``."""
        return self.operands[min(index, len(self.operands) - 1)]

    def node(
        self, name: str, inputs: Sequence[str], outputs: Sequence[Value], native: bool | None, **attributes: Any
    ) -> Node:
        """Return a node with absent operands and usual attributes filled in; native unless arrays will do."""
        absent = () if self.variadic else ("",) * (len(self.operands) - len(inputs))
        native = self.host is None if native is None else native
        return Node(self.name, name, (*inputs, *absent), tuple(outputs), {**self.attributes, **attributes}, native)


def row(
    declared: str,
    shape: ShapeRule,
    function: Callable[..., Array | tuple[Array, ...]] | None = None,
    lower: Callable[[Step], None] | None = None,
    *,
    attributes: Options = MappingProxyType({}),
    **more: Any,
) -> Operator:
    """Return the row of an operator that ``function`` computes on arrays, ``lower`` by native steps, or both.

    Args:
        declared: name, operands and attributes with their defaults. A mark behind an operand says that it is a constant
            (``!``), optional (``?``), or any number of operands (``*``).
        shape: the rule for the shapes of the results.
        function: takes the operands, and the attributes by name.
        lower: adds the native steps.
        attributes: more attributes with their defaults.
        more: other fields of the row.

    >>> pad = row("pad(x, value?; padding, mode='constant')", lambda node, shapes: [])
    >>> pad.operands[1], pad.attributes
    (Operand(name='value', constant=False, optional=True, variadic=False), {'padding': REQUIRED, 'mode': 'constant'})
    """
    name, _, words = declared.removesuffix(")").partition("(")
    taken, _, rest = words.partition("; ")
    operands = (Operand(word.rstrip("!?*"), "!" in word, "?" in word, "*" in word) for word in _listed(taken))
    pairs = (word.partition("=") for word in _listed(rest))
    own = {key: ast.literal_eval(usual) if usual else REQUIRED for key, _, usual in pairs}
    fields = {"host": None if function is None else host(function), "lower": lower, **more}
    return Operator(name, tuple(operands), shape, {**own, **attributes}, **fields)


def _listed(text: str) -> list[str]:
    return text.split(", ") if text else []
