"""Operators that run in PyTorch: calls of the framework that the network came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from convoxel.graph.ir.graph import Node
from convoxel.graph.ir.size import Shape
from convoxel.graph.operators.operator import Shapes, row
from convoxel.graph.operators.reads import Applied, Reads, Unknown


def _torch_call_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """The shapes that were recorded when the network was read."""
    return list(node["shapes"])


def _call_torch(node: Node, arrays: Sequence[Any], sizes: Mapping[str, int]) -> list[Any]:
    """Call the framework that the network came from."""
    return list(node["call"](arrays, sizes))


def _reads(applied: Applied) -> Reads:
    """Unknown: PyTorch computes it."""
    return Unknown(applied.node["label"].split(".")[1].strip("_"))


_DECLARED = "torch_call(operands?*; label, call, shapes, sizes=())"

ROWS = (row(_DECLARED, _torch_call_shape, host=_call_torch, reads=_reads, macs=None),)
