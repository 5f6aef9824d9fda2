"""The numerical error of every layer: the engine's results in float32 beside the same network in float64.

Both begin with the same input and weights. The exact results follow from the definitions of the operators on arrays
(``graph.operators``), step by step, and share no code with the engine's steps. What a layer got wrong goes on into the
next ones, so an error is that of all layers up to there.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np

from convoxel.errors import ShapeError, UnsupportedError
from convoxel.files.values import Array
from convoxel.graph.ir.graph import Node
from convoxel.graph.operators.table import OPERATORS
from convoxel.inspect.layer_output import layer_outputs, with_weights
from convoxel.inspect.record import Record

_MOST_BYTES = 1 << 29  # results of the engine that are held at once
_MOST_MACS = 1e11  # a minute or two in float64


def layer_errors(
    record: Record,
    weights: Mapping[str, Array],
    x: Array | None = None,
    *,
    on_progress: Callable[[int, int], object] = lambda done, count: None,
) -> dict[str, float]:
    """Return the relative error ‖y − ŷ‖ / ‖ŷ‖ of each layer's result y by the name of its last step; ŷ is exact.

    Normalisations and activations belong to the layer before them, with which the engine computes them.

    Args:
        record: the network for inputs of one shape.
        weights: its weights by name; those of a network of a file are in its record.
        x: (n, channels, *spatial) (default: normally distributed random numbers, always the same).
        on_progress: called with the number of steps that are done, and the number of all.

    Raises:
        ShapeError: ``x`` has another shape than the record, or the network is so large that it would take minutes.
        UnsupportedError: some weights are not known, or an operator has no definition on arrays.
    """
    macs = sum(step.macs for step in record.steps)
    if macs > _MOST_MACS:
        raise ShapeError(
            f"layer_errors: {record.name} has {macs:.3g} multiply-accumulates on {', '.join(map(str, record.inputs))}, "
            f"too many for float64; up to {_MOST_MACS:g} are computed. Give a smaller shape."
        )
    if x is None:
        x = np.random.default_rng(0).standard_normal(record.inputs[0], np.float32)
    groups = list(_chunks(record))
    (source,) = record.graph.inputs
    constants = with_weights(record.graph, weights).constants
    values = {name: _wide(array) for name, array in constants.items()} | {source.name: _wide(np.asarray(x))}
    nodes = record.graph.nodes
    left = Counter(name for node in nodes for name in node.inputs)
    computed: dict[str, Array] = {}
    errors: dict[str, float] = {}
    ends = {name for group in groups for name in group}
    for number, node in enumerate(nodes):
        for value, result in zip(node.outputs, _exact(node.resolved(record.sizes), values, record), strict=False):
            values[value.name] = result
        name = node.outputs[0].name
        if name in ends:
            if name not in computed:
                group = groups.pop(0)
                computed = dict(zip(group, layer_outputs(record, weights, x, group), strict=True))
            errors[node.name] = _relative(computed.pop(name), values[name])
        left.subtract(node.inputs)
        for each in node.inputs:  # what nobody reads any more
            if left[each] <= 0:
                values.pop(each, None)
        on_progress(number + 1, len(nodes))
    return errors


def _chunks(record: Record) -> Iterator[list[str]]:
    """Yield the names of the layers' results, as many together as may be held of the engine's."""
    chunk: list[str] = []
    size = 0
    for step, after in pairwise([*record.steps, None]):
        assert step is not None
        name = step.outputs[0].name
        folded = after is not None and after.stays and after.inputs == (name,)
        if folded or np.dtype(step.outputs[0].dtype).kind != "f":
            continue
        if chunk and size + record.bytes_of(name) > _MOST_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(name)
        size += record.bytes_of(name)
    if chunk:
        yield chunk


def _exact(node: Node, values: Mapping[str, Array], record: Record) -> Sequence[Array]:
    """Return the results of a node in float64."""
    host = OPERATORS[node.operator].host
    if host is None:
        raise UnsupportedError(
            f"layer_errors: {node.operator} ({node.name}) is computed by the engine alone, so there is nothing to "
            "compare it with. Take the .onnx file, the run or the network of the zoo that the program was made of."
        )
    wide = tuple(
        dataclasses.replace(value, dtype="float64") if np.dtype(value.dtype).kind == "f" else value
        for value in node.outputs
    )
    operands = [values[name] if name else None for name in node.inputs]
    return host(dataclasses.replace(node, outputs=wide), operands, record.sizes)


def _wide(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _relative(y: Array, exact: Array) -> float:
    norm = float(np.linalg.norm(exact.ravel()))
    return float(np.linalg.norm(y.astype(np.float64).ravel() - exact.ravel())) / norm if norm else float(np.any(y))
