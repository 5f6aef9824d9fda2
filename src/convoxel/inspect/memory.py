"""The memory of a network's values: alive at every step of a run, and kept for the backward pass.

Running, the values are those of the compiled program: the same passes rewrite the graph, its weights shapes alone, and
the same placement tells which values share memory. A value that lies in the arena, or in the caller's arrays because no
conversion is needed, is alive from the node that writes it to the last node that reads it; an array that NumPy or
PyTorch makes likewise. Copies that only convert the caller's arrays are counted once.

Training, PyTorch keeps what the gradients need: the input of a convolution, of a norm or of an average, the result of a
rectifier, both factors of a product, and the places of maxima (64 bits each).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from convoxel.fork import cached_property
from convoxel.graph.ir.graph import CHANNELS_LAST, Graph
from convoxel.graph.operators.reads import Along
from convoxel.graph.operators.table import OPERATORS, infer_shapes
from convoxel.graph.passes import optimise
from convoxel.graph.run.placement import place
from convoxel.inspect.record import Record, Step


@dataclass(frozen=True)
class Span:
    """Memory of ``size_bytes`` that is in use from node ``first`` to node ``last`` of the program, both included.

    ``is_input`` tells the network's inputs, in the caller's arrays.
    """

    size_bytes: int
    first: int
    last: int
    is_input: bool = False


class MemoryPlan:
    """The memory that a program of the recorded graph holds at every step."""

    def __init__(self, record: Record) -> None:
        self.record = record

    @cached_property
    def graph(self) -> Graph:
        """The graph after all passes."""
        return self.record.graph if self.record.rewritten else optimise(self.record.graph)

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """Every stretch of memory, in the order in which they come into use."""
        graph = self.graph
        shapes = infer_shapes(graph, self.record.sizes)
        places = place(graph, shapes, self.record.sizes)
        root_of = places.roots()
        ends: dict[str, list[int]] = {}
        for number, node in enumerate(graph.nodes):
            converts = node.operator in ("channels_last", "channels_first")
            for name in (*node.inputs, *(value.name for value in node.outputs)):
                value = graph.values.get(name)
                if value is None or (converts and value.layout != CHANNELS_LAST):
                    continue
                root = root_of(name) if value.layout == CHANNELS_LAST else name
                ends.setdefault(root, [number, number])[1] = number
        sizes = {name: math.prod(shapes[name]) * self.record.item_bytes(graph.values[name]) for name in ends}
        given = {value.name for value in graph.inputs}
        return tuple(Span(sizes[name], ends[name][0], ends[name][1], name in given) for name in ends if sizes[name])

    @cached_property
    def alive(self) -> tuple[int, ...]:
        """The bytes in use while each node of the program runs."""
        alive = [0] * len(self.graph.nodes)
        for span in self.spans:
            for number in range(span.first, span.last + 1):
                alive[number] += span.size_bytes
        return tuple(alive)

    @property
    def peak_bytes(self) -> int:
        """The most that is in use at once."""
        return max(self.alive, default=0)

    @cached_property
    def places(self) -> tuple[int, ...]:
        """For each step of the record, the node of the program that computes it: its own, or what it was fused into."""
        made = {value.name: number for number, node in enumerate(self.graph.nodes) for value in node.outputs}
        named = {node.name: number for number, node in enumerate(self.graph.nodes)}
        readers: dict[str, list[Step]] = {}
        for step in self.record.steps:
            for name in step.inputs:
                readers.setdefault(name, []).append(step)
        found: dict[str, int] = {}
        for step in reversed(self.record.steps):
            names = [value.name for value in step.outputs]
            own = [made[name] for name in names if name in made]
            later = [found[reader.name] for name in names for reader in readers.get(name, ())]
            found[step.name] = own[0] if own else named.get(step.name, min(later, default=len(self.graph.nodes) - 1))
        return tuple(found[step.name] for step in self.record.steps)

    @cached_property
    def live_bytes(self) -> tuple[int, ...]:
        """The bytes in use at each step of the record; those of the program's other nodes belong to the next step."""
        alive, places = self.alive, self.places
        if not alive:
            return (0,) * len(places)
        shown = set(places)
        peaks: dict[int, int] = {}
        waiting = 0
        for number, size in enumerate(alive):
            waiting = max(waiting, size)
            if number in shown:
                peaks[number], waiting = waiting, 0
        if peaks:
            peaks[max(peaks)] = max(peaks[max(peaks)], waiting)
        return tuple(peaks.get(number, alive[number]) for number in places)


# ---- training

# Activations whose gradient needs the result; that of the others needs the operand.
_BY_RESULT = frozenset({"relu", "sigmoid", "tanh", "exp", "sqrt", "reciprocal", "softmax"})
_BY_NOTHING = frozenset({"negate", "round", "floor", "ceil", "sign", "cast", "add", "subtract"})


def saved_bytes(record: Record) -> int:
    """Return the bytes of activations that training keeps between the forward and the backward pass."""
    kept: dict[str, int] = {}
    extra = 0
    for step in record.steps:
        overwrites = step.name in record.in_place
        for name in _saved(step, overwrites):
            root = record.storage[name]
            kept[root] = max(kept.get(root, 0), record.bytes_of(name))
        extra += _beside(step, overwrites, record)
    # What was dropped, and what is left.
    return sum(kept.values()) + extra + 2 * sum(map(record.bytes_of, record.dropped))


def _saved(step: Step, overwrites: bool) -> Sequence[str]:
    """Return the activations that the gradient of a step needs."""
    if step.function in _BY_NOTHING or step.is_view:
        return ()
    if step.function in _BY_RESULT:
        return [value.name for value in step.outputs[:1]]
    if step.operator == "multiply" and len(step.inputs) == 1 and not step.params:
        return ()  # the gradient needs the constant factor alone
    if step.operator in ("multiply", "divide") or (step.macs and len(step.inputs) > 1):
        return step.inputs
    pools = isinstance(step.reads, Along) and (step.windows or step.reads.whole)
    if step.macs or step.params or pools or _is_norm(step):
        return step.inputs[:1]
    return () if overwrites or not _is_activation(step) else step.inputs[:1]


def _is_norm(step: Step) -> bool:
    return step.operator == "batch_norm"


def _is_activation(step: Step) -> bool:
    """Return True if a step computes a curved function of every value."""
    return step.stays and step.operator != "affine"


def _beside(step: Step, overwrites: bool, record: Record) -> int:
    """Return the bytes that a step keeps beside its operands and results."""
    if OPERATORS[step.operator].keeps_indices:
        return 8 * math.prod(step.shape)
    if _is_norm(step):
        return 8 * step.shape[1]  # mean and deviation of the batch
    if overwrites and _is_activation(step) and step.function not in (*_BY_NOTHING, *_BY_RESULT):
        return record.bytes_of(step.outputs[0].name)  # PyTorch keeps a copy
    return 0
