"""Operators that weigh the positions of each spatial axis by a table: one rule for the tables, two implementations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from convoxel.graph.ir.graph import Node
from convoxel.graph.ir.size import Shape
from convoxel.graph.operators.host import Array, Host
from convoxel.graph.operators.index_tables import Taps, identity
from convoxel.graph.operators.operator import Operator, ShapeRule, row
from convoxel.graph.operators.region import Request, Restricted, RestrictRule, part_of_tables
from convoxel.graph.operators.step import Step

TableRule = Callable[[Node, Shape, Shape], Sequence[Taps]]
"""The table of every spatial axis, from the node and the spatial sizes of operand and result."""


def lower_tables(rule: TableRule) -> Callable[[Step], None]:
    """Return the lowering to one native step that goes along each axis in turn; an absent axis stays."""

    def lower(step: Step) -> None:
        absent = 5 - len(step.shapes[0] or ())
        tables = rule(step.node, step.x.shape[1 + absent : 4], step.out.shape[1 + absent : 4])
        step.plan.resample(step.x, step.out, (*(identity(1),) * absent, *tables), name=step.node.name)

    return lower


def restrict_tables(rule: TableRule) -> RestrictRule:
    """Return the rule for a part of the result: the tables' rows of that part."""

    def restrict(request: Request) -> Restricted:
        applied = request.applied
        return part_of_tables(request, lambda: rule(applied.node, applied.x[2:], request.out[2:]))

    return restrict


def weigh(x: Array, axis: int, table: Taps) -> Array:
    """Return x with the positions of an axis replaced by sums of weighted positions."""
    moved = np.moveaxis(x, axis, -1)
    seen = np.where(table.source >= 0, moved[..., np.maximum(table.source, 0)], 0)
    return np.moveaxis(np.einsum("...ot,ot->...o", seen, table.weight.astype(np.float64)), -1, axis)


def _on_arrays(rule: TableRule, shape: ShapeRule) -> Host:
    def host(node: Node, arrays: Sequence[Array | None], sizes: Mapping[str, int]) -> list[Array]:
        x = arrays[0]
        assert x is not None
        for axis, table in enumerate(rule(node, x.shape[2:], shape(node, [x.shape])[0][2:]), start=2):
            x = weigh(x, axis, table)
        return [np.asarray(x, node.outputs[0].dtype)]

    return host


def weighted(declared: str, shape: ShapeRule, rule: TableRule, **more: Any) -> Operator:
    """Return the row of an operator that a rule for tables describes; ``more`` are other fields of the row."""
    rules = {"lower": lower_tables(rule), "host": _on_arrays(rule, shape), "restrict": restrict_tables(rule)}
    return row(declared, shape, **{**rules, **more})
