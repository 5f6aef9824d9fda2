"""A graph restricted to a part of its results: the graph of a tile, whose numbers have the bits of the whole image's.

From the results backwards every node is asked for the part of its result that others need, and says by the rule of its
operator which parts of its operands that takes. A tile therefore has no wrong border that is computed and thrown away:
its halo is what the layers read, layer by layer. The restricted graph has fixed sizes and is planned like any other.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np

from convoxel.errors import ConvoxelError, UnsupportedError
from convoxel.files.values import Array
from convoxel.fork import cached_property
from convoxel.graph.ir.graph import CHANNELS_LAST, Graph, Node, Value
from convoxel.graph.ir.size import Shape
from convoxel.graph.operators.reads import Applied
from convoxel.graph.operators.region import Box, Request, Restricted, Span, full_box, lengths
from convoxel.graph.operators.table import OPERATORS, infer_shapes, make_node
from convoxel.native.index_table import Taps


@dataclass(frozen=True)
class Region:
    """The parts of all tensors that some parts of the results need.

    Attributes:
        whole: the graph for the whole image.
        inputs: the part of each input, by name.
        outputs: the part of each result that is made, by name; it covers what was asked for.
        made: each node that is needed, restricted.
    """

    whole: WholeGraph
    inputs: Mapping[str, Box]
    outputs: Mapping[str, Box]
    made: Mapping[str, Restricted]

    @cached_property
    def key(self) -> Hashable:
        """Equal for regions that differ by their place alone: their restricted graphs have one plan."""
        nodes = tuple((name, lengths(made.box), _frozen(made)) for name, made in self.made.items())
        cuts = tuple((name, starts, lengths(box)) for (name, box), starts in self._cuts.items())
        return nodes, cuts, tuple(map(lengths, self.inputs.values()))

    @cached_property
    def _cuts(self) -> Mapping[tuple[str, Box], tuple[int, ...]]:
        """The parts that nodes take of tensors that are larger, with their place in them; in constants from 0."""
        cuts: dict[tuple[str, Box], tuple[int, ...]] = {}
        for node in self.whole.nodes:
            if node.name in self.made:
                for name, box in self.whole.operands(node, self.made[node.name]):
                    have = self._have(name)
                    if [span[:2] for span in box] != [span[:2] for span in have]:
                        cuts[name, _plain(box)] = tuple(b.first - h.first for b, h in zip(box, have, strict=True))
        return cuts

    def _have(self, name: str) -> Box:
        """Return the part of a tensor that the restricted graph holds."""
        if name in self.inputs:
            return self.inputs[name]
        producer = self.whole.graph.producers.get(name)
        return full_box(self.whole.shapes[name]) if producer is None else self.made[producer.name].box

    def graph(self) -> Graph:
        """Return the restricted graph, of fixed sizes."""
        whole = self.whole.graph
        inputs = tuple(_resized(value, self.inputs[value.name]) for value in whole.inputs)
        constants: dict[str, Array] = dict(whole.constants)
        nodes: list[Node] = []
        cut: dict[tuple[str, Box], str] = {}
        for node in self.whole.nodes:
            made = self.made.get(node.name)
            if made is None:
                continue
            names = list(node.inputs)
            for index, (name, box) in zip(self.whole.tensors(node), self.whole.operands(node, made), strict=True):
                key = (name, _plain(box))
                if key not in self._cuts:
                    continue
                if key not in cut:
                    cut[key] = f"{name}:part{len(cut)}"
                    starts = self._cuts[key]
                    stops = tuple(start + span.length for start, span in zip(starts, box, strict=True))
                    if name in constants:
                        constants[cut[key]] = np.ascontiguousarray(constants[name][tuple(map(slice, starts, stops))])
                    else:
                        nodes.append(_slice(whole.values[name], cut[key], box, starts, stops))
                names[index] = cut[key]
            outputs = tuple(_resized(value, made.box) for value in node.outputs)
            attributes = made.attributes if made.operator else {**node.attributes, **made.attributes}
            changed = dataclasses.replace(node, inputs=tuple(names), outputs=outputs, attributes=attributes)
            nodes.append(dataclasses.replace(changed, operator=made.operator or node.operator))
        fixed = {"constants": constants, "guards": (), "assumptions": (), "parameters": None}
        return whole.replace(inputs=inputs, outputs=tuple(self.outputs), nodes=tuple(nodes), **fixed)


class WholeGraph:
    """A graph for the sizes of a whole image, of which parts can be taken."""

    def __init__(self, graph: Graph, sizes: Mapping[str, int]) -> None:
        self.graph = graph
        self.shapes = infer_shapes(graph, sizes)
        self.nodes = tuple(node.resolved(sizes) for node in graph.nodes)
        self._memos: dict[str, list[Taps]] = {node.name: [] for node in graph.nodes}

    def tensors(self, node: Node) -> list[int]:
        """Return which operands of a node are tensors: not absent, and no plain list that a step holds."""
        row = OPERATORS[node.operator]
        return [i for i, name in enumerate(node.inputs) if name and not row.operand(i).constant]

    def operands(self, node: Node, made: Restricted) -> list[tuple[str, Box]]:
        """Return the name and the part of each operand that is a tensor."""
        parts = []
        for index in self.tensors(node):
            name = node.inputs[index]
            box = made.inputs[index] if index < len(made.inputs) else None
            parts.append((name, full_box(self.shapes[name]) if box is None else box))
        return parts

    def region(self, outputs: Mapping[str, Box], grains: Mapping[str, tuple[int, ...]]) -> Region:
        """Return what parts of the results need.

        Args:
            outputs: the part of each result, by name.
            grains: of convolutions, by the node's name, the outputs along (d, h, w) that are computed together.

        Raises:
            UnsupportedError: a step cannot make a part of its result; the message names it.
        """
        needed: dict[str, Box] = dict(outputs)
        made: dict[str, Restricted] = {}
        for number in range(len(self.nodes) - 1, -1, -1):
            node = self.nodes[number]
            if not any(value.name in needed for value in node.outputs):
                continue
            made[node.name] = self._restrict(number, node, needed, grains.get(node.name, ()))
            for name, box in self.operands(node, made[node.name]):
                if name not in self.graph.constants:
                    needed[name] = _joined(needed[name], box) if name in needed else box
        inputs = {value.name: needed.get(value.name, full_box(self.shapes[value.name])) for value in self.graph.inputs}
        ordered = {node.name: made[node.name] for node in self.nodes if node.name in made}
        results = {name: _result(name, self, made, inputs) for name in self.graph.outputs if name in outputs}
        return Region(self, inputs, results, ordered)

    def _restrict(self, number: int, node: Node, needed: Mapping[str, Box], grain: tuple[int, ...]) -> Restricted:
        shapes = [self.shapes[name] if name else None for name in node.inputs]
        results = [self.shapes[value.name] for value in node.outputs]
        box = functools.reduce(_joined, (needed[value.name] for value in node.outputs if value.name in needed))
        if node.native and len(box) > 1:  # a step holds one number for each channel, of all channels
            box = (box[0], Span(0, results[0][1]), *box[2:])
        row = OPERATORS[node.operator]
        try:
            if any(value.name in needed for value in node.outputs[1:]) and (row.keeps_indices or len({*results}) > 1):
                raise UnsupportedError("has a second result, whose values depend on the whole image")
            return row.part(Request(Applied(node, shapes, results), box, grain, self._memos[node.name]))
        except ConvoxelError as error:
            what = str(node.attributes.get("label", node.operator))
            raise UnsupportedError(
                f"step {number + 1} '{node.name}' ({what}) cannot run on tiles: it {error}"
            ) from None


def _result(name: str, whole: WholeGraph, made: Mapping[str, Restricted], inputs: Mapping[str, Box]) -> Box:
    if name in whole.graph.producers:
        return made[whole.graph.producers[name].name].box
    return inputs[name] if name in inputs else full_box(whole.shapes[name])


def _joined(a: Box, b: Box) -> Box:
    return tuple(one.join(other) for one, other in zip(a, b, strict=True))


def _plain(box: Box) -> Box:
    return tuple(span._replace(reader="") for span in box)


def _resized(value: Value, box: Box) -> Value:
    return dataclasses.replace(value, shape=lengths(box))


def _slice(value: Value, name: str, box: Box, starts: Shape, stops: Shape) -> Node:
    """Return the node that takes a part of a tensor, a view where the engine holds it."""
    part = dataclasses.replace(value, name=name, shape=lengths(box))
    native = value.layout == CHANNELS_LAST
    steps = (1,) * len(box)
    return make_node("slice", name, (value.name,), (part,), native=native, starts=starts, stops=stops, steps=steps)


def _frozen(made: Restricted) -> Hashable:
    return tuple(
        (key, tuple((t.source.tobytes(), t.weight.tobytes()) for t in value) if key == "tables" else value)
        for key, value in made.attributes.items()
    )
