"""All operators by name, and what is the same for each: making nodes, checking graphs, inferring shapes.

To add an operator, add its row, with its rules, to the file of its family, and a rule that makes it to each reader. No
other file knows operators by name, save the passes that rewrite them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from convoxel.errors import ConfigError, GraphError, ShapeError
from convoxel.graph.ir.graph import Graph, Node, Value, verify_structure
from convoxel.graph.ir.size import Shape, differ, evaluate_shape
from convoxel.graph.operators import (
    convolution,
    elementwise,
    indexing,
    linear,
    mathematics,
    movement,
    normalisation,
    pooling,
    quantisation,
    quantised_layers,
    recurrent,
    reduction,
    resampling,
    sampling,
    torch_call,
)
from convoxel.graph.operators.operator import REQUIRED, Operator

_FAMILIES = (
    *(convolution, linear, pooling, normalisation, elementwise, movement, reduction),
    *(resampling, quantisation, quantised_layers, sampling, torch_call, mathematics, indexing, recurrent),
)

OPERATORS: Mapping[str, Operator] = {row.name: row for family in _FAMILIES for row in family.ROWS}


def make_node(
    operator: str,
    name: str,
    inputs: Sequence[str],
    outputs: Sequence[Value],
    *,
    native: bool | None = None,
    **attributes: Any,
) -> Node:
    """Return a node with absent operands and usual attributes filled in.

    It is native if nothing else can compute it; a pass decides where there is a choice.
    """
    return OPERATORS[operator].node(name, inputs, outputs, native, **attributes)


def verify(graph: Graph, known: Graph | None = None) -> None:
    """Raise ``GraphError`` unless the graph is well formed and every node is what its row says.

    Nodes of ``known``, a graph that was verified, are not looked at again.
    """
    verify_structure(graph)
    seen = set(map(id, known.nodes)) if known else set()
    for node in graph.nodes:
        if id(node) in seen:
            continue
        row = OPERATORS.get(node.operator)
        if row is None:
            raise GraphError(f"node {node.name}: there is no operator {node.operator!r}")
        if set(node.attributes) != set(row.attributes):
            odd = sorted(set(node.attributes) ^ set(row.attributes))
            raise GraphError(f"node {node.name}: {node.operator} lacks or does not know {', '.join(odd)}")
        missing = [key for key, value in node.attributes.items() if value is REQUIRED]
        if missing:
            raise GraphError(f"node {node.name}: {node.operator} needs {', '.join(missing)}")
        if not (row.has_steps if node.native else row.host):
            raise GraphError(
                f"node {node.name}: {node.operator} has no {'native steps' if node.native else 'function'}"
            )
        if len(node.inputs) != len(row.operands) and not row.variadic:
            raise GraphError(f"node {node.name}: {len(node.inputs)} operands, not {len(row.operands)}")
        for index, name in enumerate(node.inputs):
            operand = row.operand(index)
            if not name and not operand.optional:
                raise GraphError(f"node {node.name}: {node.operator} needs its operand {operand.name}")
            if name and operand.constant and node.native and name not in graph.constants:
                raise GraphError(f"node {node.name}: operand {operand.name} ({name}) must be a constant")


def infer_shapes(graph: Graph, sizes: Mapping[str, int]) -> dict[str, Shape]:
    """Return the shape of every value and constant for the given input sizes.

    Raises ``ShapeError`` naming the node whose operands do not fit.
    """
    found: dict[str, Shape] = {name: tuple(array.shape) for name, array in graph.constants.items()}
    found.update((value.name, evaluate_shape(value.shape, sizes)) for value in graph.inputs)
    for node in graph.nodes:
        operands = [found[name] if name else None for name in node.inputs]
        try:
            results = OPERATORS[node.operator].shape(node.resolved(sizes), operands)
        except (ConfigError, ShapeError) as error:
            raise type(error)(f"{node.operator} {node.name}: {error}") from None
        for value, shape in zip(node.outputs, results, strict=False):  # a row may have results that nothing reads
            found[value.name] = shape
    _check_recorded(graph, found, sizes)
    return found


def _check_recorded(graph: Graph, found: Mapping[str, Shape], sizes: Mapping[str, int]) -> None:
    """Raise if the sizes that the reader recorded are not the true ones, and something was computed from
    them.

    A framework may have recorded its sizes under a condition ("an odd input") that these inputs do not meet.
    """
    if not graph.computes_sizes:
        return
    for value in graph.values.values():
        recorded = evaluate_shape(value.shape, sizes)
        if any(map(differ, recorded, found[value.name])):
            raise ShapeError(
                f"{value.name} is {found[value.name]} for this input, but was recorded as {recorded}; "
                "compile again with an example of this size"
            )
