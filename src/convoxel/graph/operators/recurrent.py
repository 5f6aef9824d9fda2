"""Recurrent layers: each step of a sequence sees the one before it (NumPy; the steps follow one another)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from convoxel.graph.ir.graph import Node
from convoxel.graph.ir.size import Shape
from convoxel.graph.operators.host import Array
from convoxel.graph.operators.operator import Shapes, row
from convoxel.graph.operators.shape import operand

_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
"""The parts of a layer's weights, by PyTorch's names of the layers."""

Weights = tuple[Array, Array, Array | None, Array | None, Array | None]
Update = Callable[[Array, Array, Array, Array], tuple[Array, Array]]
"""From the input's and the state's share of the gates, the state and the cell: the next state and cell."""


def _recurrent_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """(steps, n, features) → (steps, n, hidden) and the last states; batch and steps change places if so asked."""
    x, hidden, cell = operand(shapes, 0), operand(shapes, 1), shapes[2]
    ways = 2 if node["bidirectional"] else 1
    results: list[Shape] = [(*x[:2], ways * hidden[-1]), hidden]
    return results if cell is None else [*results, cell]


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _lstm(given: Array, own: Array, state: Array, cell: Array) -> tuple[Array, Array]:
    """Hochreiter & Schmidhuber 1997."""
    enter, forget, content, leave = np.split(given + own, 4, axis=-1)
    cell = _sigmoid(forget) * cell + _sigmoid(enter) * np.tanh(content)
    return _sigmoid(leave) * np.tanh(cell), cell


def _gru(given: Array, own: Array, state: Array, cell: Array) -> tuple[Array, Array]:
    """Cho et al. 2014, the state's share of the content scaled behind its product, as in PyTorch."""
    (reset, update, content), (reset_own, update_own, content_own) = np.split(given, 3, -1), np.split(own, 3, -1)
    content = np.tanh(content + _sigmoid(reset + reset_own) * content_own)
    share = _sigmoid(update + update_own)
    return content + share * (state - content), cell


_UPDATES: Mapping[str, Update] = {
    "lstm": _lstm,
    "gru": _gru,
    "rnn_tanh": lambda given, own, state, cell: (np.tanh(given + own), cell),
    "rnn_relu": lambda given, own, state, cell: (np.maximum(given + own, 0), cell),
}


def _recurrent(
    x: Array, state: Array, cell: Array | None, *weights: Array, kind: str, batch_first: bool, bidirectional: bool,
    bias: bool, projected: bool,
) -> tuple[Array, ...]:  # fmt: skip
    """Return the states of the last layer at all steps, and the last states of every layer and direction."""
    sequence = np.swapaxes(x, 0, 1) if batch_first else x
    ways = 2 if bidirectional else 1
    states, cells = [], []
    parts = _layers(weights, bias, projected)
    for number, layer in enumerate(parts):
        if number % ways == 0:
            given, found = sequence, []
        first = state[number]
        memory = np.zeros_like(first) if cell is None else cell[number]
        steps, last, memory = _run(given, first, memory, layer, kind, backwards=number % ways == 1)
        found.append(steps)
        states.append(last)
        cells.append(memory)
        sequence = np.concatenate(found, axis=-1)
    result = np.swapaxes(sequence, 0, 1) if batch_first else sequence
    return (result, np.stack(states)) if cell is None else (result, np.stack(states), np.stack(cells))


def _layers(weights: Sequence[Array], bias: bool, projected: bool) -> Iterator[Weights]:
    """Yield the weights of each layer and direction: of the input, of the state, their biases, the projection."""
    count = 2 + 2 * bias + projected
    for start in range(0, len(weights), count):
        of_input, of_state, *more = weights[start : start + count]
        yield of_input, of_state, *(more[:2] if bias else (None, None)), more[-1] if projected else None


def _run(
    x: Array, state: Array, cell: Array, weights: Weights, kind: str, backwards: bool
) -> tuple[Array, Array, Array]:
    """Return the states at all steps, and the last state and cell."""
    of_input, of_state, input_bias, state_bias, projection = weights
    given = x @ of_input.T  # of all steps at once
    given = given if input_bias is None else given + input_bias
    steps = np.empty((*x.shape[:2], state.shape[-1]), x.dtype)
    order = range(len(x))
    for step in reversed(order) if backwards else order:
        own = state @ of_state.T
        state, cell = _UPDATES[kind](given[step], own if state_bias is None else own + state_bias, state, cell)
        state = state if projection is None else state @ projection.T
        steps[step] = state
    return steps, state, cell


def _recurrent_macs(node: Node, shapes: Shapes, out: Sequence[Shape]) -> int:
    """Every weight once for each step and sequence of the batch."""
    x = operand(shapes, 0)
    return math.prod(x[:2]) * sum(math.prod(shape) for shape in shapes[3:] if shape is not None and len(shape) == 2)


ROWS = (
    row(
        "recurrent(x, state, cell?, weights*; kind, batch_first, bidirectional, bias, projected)",
        _recurrent_shape,
        _recurrent,
        macs=_recurrent_macs,
    ),
)
