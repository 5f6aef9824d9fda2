"""How much memory a network's values take: alive at every step, and kept for the backward pass.

Running, values share memory as they do in a compiled program: norms, activations and sums behind a convolution work
in place, parts of a concatenation are written where the whole will lie, reshapes and crops are views. What lies between
a depthwise convolution and the 1×1 convolutions around it has no place at all: they are one step, which works in the
cache. What is left lives from the step that writes it to the last step that reads it.

Training, PyTorch keeps what the gradients need: the input of a convolution, of a norm or of an average, the result of a
rectifier, both factors of a product, and the places of maxima (64 bits each).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from convoxel.inspect.step import Step, Trace, Value

__all__ = ["Span", "live_bytes", "saved_bytes", "spans"]

_WINDOWED = frozenset({"convolution", "transposed_convolution", "dense"})
# What takes an activation into its own result.
_EPILOGUES = _WINDOWED | {"batch_norm", "normalise", "add", "multiply"}
_VIEWS = frozenset({"reshape", "narrow", "identity", "split"})


@dataclass(frozen=True)
class Span:
    """Memory of ``size_bytes`` that is in use from step ``first`` to step ``last``, both included.

    ``first`` is −1 for the network's inputs.
    """

    size_bytes: int
    first: int
    last: int


def spans(trace: Trace) -> list[Span]:
    """Return every stretch of memory that a run needs, inputs included."""
    sharing = _Sharing(trace)
    sharing.concatenate()
    sharing.work_in_place()
    joined = sharing.joined()
    nowhere = {sharing.root(step.inputs[0].storage) for step, _ in joined}
    size: dict[int, int] = {}
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    moments = [
        (-1, trace.inputs),
        *((number, (*step.inputs, *step.outputs)) for number, step in enumerate(trace.steps)),
        (len(trace.steps), trace.outputs),
    ]
    for moment, values in moments:
        for value in values:
            root = sharing.root(value.storage)
            if root in nowhere:
                continue
            size[root] = max(size.get(root, 0), value.size_bytes)
            first.setdefault(root, moment)
            last[root] = moment
    numbers = {id(step): number for number, step in enumerate(trace.steps)}
    for step, first_of_all in joined:  # whose input is still read while this one writes
        root = sharing.root(first_of_all.inputs[0].storage)
        if root not in nowhere:
            last[root] = max(last[root], numbers[id(step)])
    return [Span(size[root], first[root], last[root]) for root in size]


def live_bytes(trace: Trace) -> list[int]:
    """Return the bytes alive at every step."""
    alive = [0] * len(trace.steps)
    for span in spans(trace):
        for number in range(max(span.first, 0), min(span.last + 1, len(alive))):
            alive[number] += span.size_bytes
    return alive


def _is_depthwise(step: Step) -> bool:
    return step.operator == "convolution" and step.attributes["groups"] == step.outputs[0].shape[1] > 1


def _is_pointwise(step: Step) -> bool:
    places = {side for pair in step.attributes["padding"] for side in pair}
    ones = {*step.attributes["kernel"], *step.attributes["stride"]}
    return step.operator == "convolution" and step.attributes["groups"] == 1 and places <= {0} and ones == {1}


def _expands(step: Step) -> bool:
    return _is_pointwise(step) and step.outputs[0].shape[1] > step.inputs[0].shape[1]


class _Sharing:
    """Which storages lie in the same memory; ``root`` names it."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._parents: dict[int, int] = {}
        self._makers: dict[int, Step] = {}
        self._readers: dict[int, list[Step]] = {}
        for step in trace.steps:
            for value in step.inputs:
                self._readers.setdefault(value.key, []).append(step)
            self._makers.update((value.key, step) for value in step.outputs)
        self._kept = {value.key for value in trace.outputs}
        for step in trace.steps:
            if step.operator in _VIEWS:
                for value in step.outputs:
                    self._join(value, step.inputs[0])

    def root(self, storage: int) -> int:
        while storage in self._parents:
            storage = self._parents[storage]
        return storage

    def _join(self, value: Value, other: Value) -> None:
        """Put ``value`` where ``other`` lies."""
        a, b = self.root(value.storage), self.root(other.storage)
        if a != b:
            self._parents[a] = b

    def concatenate(self) -> None:
        """Place parts inside the whole, from the last concatenation to the first: a short one may lie in a long one."""
        placed: dict[int, Value] = {}  # key of a part → the whole that it lies in
        for step in reversed(self._trace.steps):
            if step.operator != "concat":
                continue
            (whole,) = step.outputs
            longer = placed.get(step.inputs[0].key)
            if longer is not None and all(placed.get(part.key) is longer for part in step.inputs):
                self._join(whole, longer)
                placed[whole.key] = longer
                continue
            for part in step.inputs:
                maker = self._makers.get(part.key)
                if maker is not None and maker.operator not in _VIEWS and part.key not in placed:
                    self._join(part, whole)
                    placed[part.key] = whole

    def work_in_place(self) -> None:
        """Let steps write where one of their operands lies, where a compiled program fuses them."""
        for step in self._trace.steps:
            operand = self._overwritten(step)
            if operand is not None:
                self._join(operand, step.outputs[0])

    def joined(self) -> list[tuple[Step, Step]]:
        """Return the convolutions that run as one step with those before them, each with the first of these."""
        read = [(step, self._source(step)) for step in self._trace.steps if step.operator == "convolution"]
        firsts: dict[int, Step] = {}
        found = []
        for step, source in read:
            if source is None:
                continue
            projects = _is_pointwise(step) and _is_depthwise(source)
            # A projection is not the next one's expansion, too.
            expands = _is_depthwise(step) and _expands(source) and id(source) not in firsts
            if projects or expands:
                firsts[id(step)] = firsts.get(id(source), source)
                found.append((step, firsts[id(step)]))
        return found

    def _source(self, step: Step) -> Step | None:
        """Return the convolution whose result a convolution alone reads, normalised and activated at most."""
        value = step.inputs[0]
        while len(self._readers[value.key]) == 1 and value.key not in self._kept:
            maker = self._makers.get(value.key)
            if maker is None or maker.operator == "convolution":
                return maker
            if maker.operator not in ("batch_norm", "activation"):
                return None
            value = maker.inputs[0]
        return None

    def _overwritten(self, step: Step) -> Value | None:
        if step.operator == "batch_norm":
            return self._sole(step, _WINDOWED)
        if step.operator == "activation":
            return self._sole(step, _EPILOGUES)
        if step.operator == "add":
            return self._sole(step, _WINDOWED | {"batch_norm"})
        if step.operator == "multiply" and self._scales_convolution(step):
            return max(step.inputs, key=lambda value: value.size_bytes)
        return None

    def _sole(self, step: Step, makers: frozenset[str]) -> Value | None:
        """Return the operand that one of ``makers`` made and nothing but this step reads."""
        for value in reversed(step.inputs):
            maker = self._makers.get(value.key)
            alone = len(self._readers[value.key]) == 1 and value.key not in self._kept
            if maker is not None and maker.operator in makers and alone and value.shape == step.outputs[0].shape:
                return value
        return None

    def _scales_convolution(self, step: Step) -> bool:
        """Whether one factor a channel scales the input of a 1×1 convolution alone: its weights are scaled instead."""
        readers = self._readers.get(step.outputs[0].key, [])
        smallest = min(step.inputs, key=lambda value: value.size_bytes)
        return (
            len(readers) == 1
            and readers[0].operator == "convolution"
            and set(readers[0].attributes["kernel"]) == {1}
            and readers[0].attributes["groups"] == 1
            and set(smallest.shape[2:]) <= {1}
        )


# Activations whose gradient needs the result; that of the others needs the operand.
_BY_RESULT = ("relu", "sigmoid", "tanh", "exp", "sqrt", "rsqrt", "reciprocal")
_BY_NOTHING = ("neg", "round", "floor", "ceil", "sign", "float", "half", "double", "bfloat16", "type_as")


def saved_bytes(trace: Trace) -> int:
    """Return the bytes of activations that training keeps between the forward and the backward pass."""
    kept: dict[int, int] = {}
    extra = 0
    for step in trace.steps:
        for value in _saved(step):
            kept[value.storage] = value.size_bytes
        extra += _beside(step)
    return sum(kept.values()) + extra


def _beside(step: Step) -> int:
    """Return the bytes that a step keeps beside its operands and results."""
    function = step.attributes.get("function", "")
    result = step.outputs[0]
    if step.operator in ("max_pool", "adaptive_pool") and "max" in (function or step.operator):
        return 8 * math.prod(result.shape)  # where the maxima were
    if step.operator == "batch_norm":
        return 8 * result.shape[1]  # mean and deviation of the batch
    if function.startswith(("dropout", "alpha_dropout")):
        return result.size_bytes  # what was dropped
    if step.operator == "activation" and function not in (*_BY_NOTHING, *_BY_RESULT) and _overwrites(step):
        return result.size_bytes  # PyTorch keeps a copy
    return 0


def _saved(step: Step) -> tuple[Value, ...]:
    """Return the activations that the gradient of a step needs."""
    function = step.attributes.get("function", "")
    if step.operator in _WINDOWED or step.operator in ("batch_norm", "normalise", "max_pool", "average_pool"):
        return step.inputs[:1]
    if step.operator == "adaptive_pool":
        return step.inputs[:1]
    if step.operator in ("multiply", "matmul"):
        return step.inputs
    if step.operator == "softmax":
        return step.outputs[:1]
    if step.operator == "activation":
        if function in _BY_RESULT:
            return step.outputs[:1]
        return () if function in _BY_NOTHING or _overwrites(step) else step.inputs[:1]
    return ()


def _overwrites(step: Step) -> bool:
    return step.outputs[0].storage == step.inputs[0].storage
