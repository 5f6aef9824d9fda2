"""The results of layers inside a network, computed by the engine, and how one number of a result came about.

A network is read on shapes alone (``record``); here its weights are put in, and the graph is cut off behind the layers
that are asked for. So a layer costs what the layers before it cost.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from convoxel.errors import ConfigError, ShapeError, UnsupportedError
from convoxel.files.values import Array
from convoxel.graph.ir.graph import Graph
from convoxel.graph.ir.pytree import Branch, Leaf
from convoxel.graph.ir.shape_only import ShapeOnly
from convoxel.graph.run.program import Program
from convoxel.inspect.record import Record, Step

_LINEAR = ("convolution", "transposed_convolution")
_POOLS = ("max_pool", "average_pool")


def with_weights(graph: Graph, weights: Mapping[str, Array]) -> Graph:
    """Return a graph that was read on shapes alone with the weights that its constants are named after.

    Raises:
        UnsupportedError: a constant is none of the weights, so that its values are not known.
    """
    constants = {}
    for name, known in graph.constants.items():
        if isinstance(known, ShapeOnly):
            found = weights.get(name)
            if found is None or found.shape != known.shape:
                raise UnsupportedError(
                    f"layer_outputs: {graph.name} computes with {name}, whose values are not among its weights. "
                    "Export the network as an .onnx file and look at that."
                )
            known = np.asarray(found, known.dtype)
        constants[name] = known
    return graph.replace(constants=constants)


def layer_outputs(record: Record, weights: Mapping[str, Array], x: Array, names: Sequence[str]) -> list[Array]:
    """Return the values of a network for an input: results of steps, or the input, by the names of the values.

    Args:
        record: the network for inputs of the shape of ``x``.
        weights: its weights by name; those of a network of a file are in its record.
        x: (n, channels, *spatial) float32.
        names: names of values, as ``Step.outputs`` and ``Step.inputs`` hold them.

    Raises:
        ShapeError: ``x`` has another shape than the record.
        UnsupportedError: some weights are not known.
    """
    (source, *more) = record.graph.inputs
    if more or x.shape != record.inputs[0]:
        raise ShapeError(f"layer_outputs: x has shape {x.shape}; expected {', '.join(map(str, record.inputs))}.")
    asked = [name for name in dict.fromkeys(names) if name != source.name]
    known = {source.name: x}
    if asked:
        results = layer_program(record, weights, asked)(np.ascontiguousarray(x, np.float32))
        known.update(zip(asked, results, strict=True))
    return [known[name] for name in names]


def layer_program(record: Record, weights: Mapping[str, Array], names: str | Sequence[str]) -> Program:
    """Return the part of a network that makes the values of ``names``, as a program: it returns one, or a tuple.

    Arguments and errors as of :func:`layer_outputs`.
    """
    several = [names] if isinstance(names, str) else names
    graph = with_weights(record.graph.replace(outputs=tuple(several)), weights)
    leaves = tuple(map(Leaf, range(len(several))))
    return Program.from_graph(graph, leaves[0] if isinstance(names, str) else Branch("tuple", leaves))


@dataclass(frozen=True)
class Term:
    """One product, or one value, of which an output consists.

    Attributes:
        channel: channel of the layer's input.
        source: position in the layer's input; None in the padding.
        weight: position in the kernel; () without one.
        x: value of the input, 0 in the padding.
        w: weight; 1 without one.
    """

    channel: int
    source: tuple[int, ...] | None
    weight: tuple[int, ...]
    x: float
    w: float


@dataclass(frozen=True)
class Formula:
    """The way in which one number of a layer's output comes about.

    Attributes:
        kind: "sum" of products, "max" or "mean" of a window, or "other".
        terms: what it consists of.
        bias: number that is added; 0 without one.
        value: the number by this formula, in float64.
        computed: the number that the engine computed.
    """

    kind: str
    terms: tuple[Term, ...]
    bias: float
    value: float
    computed: float

    def of_channels(self) -> dict[int, float]:
        """Return the sum of the products of each input channel."""
        found: dict[int, float] = {}
        for term in self.terms:
            found[term.channel] = found.get(term.channel, 0.0) + term.x * term.w
        return found


def formula(step: Step, inputs: Sequence[Array], y: Array, at: Sequence[int], weights: Mapping[str, Array]) -> Formula:
    """Return how the number ``y[0, at]`` comes about.

    Args:
        step: the layer.
        inputs: its operands, (1, channels, *spatial).
        y: its output (1, channels, *spatial).
        at: channel and position.
        weights: weights of the network by name, or those of the step's graph.

    Raises:
        ConfigError: ``at`` lies outside the output.
    """
    if len(at) != y.ndim - 1 or any(not 0 <= place < side for place, side in zip(at, y.shape[1:], strict=True)):
        raise ConfigError(f"at: got {tuple(at)}; the output has channels and positions {y.shape[1:]}.")
    channel, *place = at
    computed = float(y[0][tuple(at)])
    node = step.applied.node
    if step.operator in _LINEAR and len(inputs) == 1:
        kernel = np.asarray(weights[node.inputs[1]])
        bias = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2] else ""
        offset = float(weights[bias][channel]) if bias else 0.0
        terms = tuple(_products(step, inputs[0][0], kernel, channel, place))
        return Formula("sum", terms, offset, offset + math.fsum(term.x * term.w for term in terms), computed)
    if step.operator in _POOLS:
        terms = tuple(
            Term(channel, source, slot, 0.0 if source is None else float(inputs[0][0, channel][source]), 1.0)
            for slot, source in _reads(step, inputs[0].shape[2:], place)
        )
        inner = [term.x for term in terms if term.source is not None]
        value = max(inner, default=-math.inf) if step.operator == "max_pool" else computed
        return Formula("max" if step.operator == "max_pool" else "mean", terms, 0.0, value, computed)
    same = [x for x in inputs if x.shape[2:] == y.shape[2:] and x.shape[1] in (1, y.shape[1])]
    terms = tuple(
        Term(channel, tuple(place), (), float(x[0, min(channel, x.shape[1] - 1)][tuple(place)]), 1.0) for x in same
    )
    return Formula("other", terms, 0.0, computed, computed)


def _reads(
    step: Step, size: Sequence[int], place: Sequence[int]
) -> list[tuple[tuple[int, ...], tuple[int, ...] | None]]:
    """Return the positions in the window, each with the input that it reads; None in the padding."""
    node = step.applied.node
    ways = zip(node["kernel"] if "kernel" in node.attributes else (), node["stride"], node["padding"], strict=True)
    dilation = node.attributes.get("dilation") or (1,) * len(size)
    spans = [
        [(slot, o * s + d * slot - before) for slot in range(k)]
        for (k, s, (before, _)), o, d in zip(ways, place, dilation, strict=True)
    ]
    found: list[tuple[tuple[int, ...], tuple[int, ...] | None]] = []
    for each in itertools.product(*spans):
        source = tuple(p for _, p in each)
        inside = all(0 <= p < side for p, side in zip(source, size, strict=True))
        found.append((tuple(slot for slot, _ in each), source if inside else None))
    return found


def _products(step: Step, x: Array, kernel: Array, channel: int, place: Sequence[int]) -> list[Term]:
    node = step.applied.node
    groups, size = int(node["groups"]), x.shape[1:]
    stride, padding, dilation = node["stride"], node["padding"], node["dilation"]
    shape = kernel.shape[2:]
    found = []
    if step.operator == "convolution":
        each = kernel.shape[1]
        first = channel // (kernel.shape[0] // groups) * each
        for slot in itertools.product(*map(range, shape)):
            source = tuple(o * s + d * m - p[0]
                           for o, s, d, m, p in zip(place, stride, dilation, slot, padding, strict=True))  # fmt: skip
            inside = all(0 <= p < side for p, side in zip(source, size, strict=True))
            for inner in range(each):
                value = float(x[first + inner][source]) if inside else 0.0
                weight = float(kernel[channel, inner][slot])
                found.append(Term(first + inner, source if inside else None, slot, value, weight))
        return found
    outputs, each = kernel.shape[1], kernel.shape[0] // groups
    group, inner = divmod(channel, outputs)
    for slot in itertools.product(*map(range, shape)):
        reached = [o + p[0] - d * m for o, p, d, m in zip(place, padding, dilation, slot, strict=True)]
        if any(r % s for r, s in zip(reached, stride, strict=True)):
            continue  # a hole of the stretched input
        source = tuple(r // s for r, s in zip(reached, stride, strict=True))
        if not all(0 <= p < side for p, side in zip(source, size, strict=True)):
            continue
        for number in range(each):
            place_in = group * each + number
            found.append(Term(place_in, source, slot, float(x[place_in][source]), float(kernel[place_in, inner][slot])))
    return found
