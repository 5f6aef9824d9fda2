"""Operators that weigh the positions of each spatial axis by a table: one rule for the tables, two implementations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from convoxel.graph.ir.graph import Node
from convoxel.graph.operators.host import Array, Host
from convoxel.graph.operators.index_tables import identity
from convoxel.graph.operators.operator import Operator, ShapeRule, row
from convoxel.graph.operators.region import Request, Restricted, RestrictRule, part_of_tables
from convoxel.graph.operators.step import Step
from convoxel.native.index_table import AxisTable, Taps

TablesOf = Callable[[Node], Sequence[AxisTable]]
"""The table of every spatial axis of a node."""


def lower_tables(tables: TablesOf) -> Callable[[Step], None]:
    """Return the lowering to one native step that goes along each axis in turn; an absent axis stays."""

    def lower(step: Step) -> None:
        absent = 5 - len(step.shapes[0] or ())
        step.plan.resample(step.x, step.out, (*(identity(),) * absent, *tables(step.node)), name=step.node.name)

    return lower


def restrict_tables(tables: TablesOf) -> RestrictRule:
    """Return the rule for a part of the result: the tables' rows of that part."""

    def restrict(request: Request) -> Restricted:
        return part_of_tables(request, tables(request.applied.node))

    return restrict


def weigh(x: Array, axis: int, table: Taps) -> Array:
    """Return x with the positions of an axis replaced by sums of weighted positions."""
    moved = np.moveaxis(x, axis, -1)
    seen = np.where(table.source >= 0, moved[..., np.maximum(table.source, 0)], 0)
    return np.moveaxis(np.einsum("...ot,ot->...o", seen, table.weight.astype(np.float64)), -1, axis)


def _on_arrays(tables: TablesOf, shape: ShapeRule) -> Host:
    def host(node: Node, arrays: Sequence[Array | None], sizes: Mapping[str, int]) -> list[Array]:
        x = arrays[0]
        assert x is not None
        results = shape(node, [x.shape])[0]
        for axis, table in enumerate(tables(node), start=2):
            x = weigh(x, axis, table.between(x.shape[axis], results[axis]))
        return [np.asarray(x, node.outputs[0].dtype)]

    return host


def weighted(declared: str, shape: ShapeRule, tables: TablesOf, **more: Any) -> Operator:
    """Return the row of an operator that its tables describe; ``more`` are other fields of the row."""
    rules = {"lower": lower_tables(tables), "host": _on_arrays(tables, shape), "restrict": restrict_tables(tables)}
    return row(declared, shape, **{**rules, **more})
