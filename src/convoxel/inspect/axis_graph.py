"""A network along one image axis, as the graph that arithmetic solves.

The steps are those of one record, so the graph is right wherever the network takes the same steps at every size.
Networks that choose their layers by the size (padding to a multiple, say) are not: ``valid_sizes`` therefore asks the
network itself before it believes a graph. A step without a rule is taken to keep the size if it does in that record; if
it does not, the network has no such graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from convoxel.arithmetic import Exact, Graph, Join, Layer, Node, Repeat, Resize, ResizeLike, Window
from convoxel.errors import ConvoxelError
from convoxel.graph.operators.reads import Aligned, Along, Blocks, Steps, Unknown
from convoxel.inspect.receptive_field import TensorField, trace_fields
from convoxel.inspect.record import Record, Step


class AxisGraph(NamedTuple):
    """A network along one image axis of its inputs.

    Attributes:
        graph: all steps that move or change the axis.
        ends: whether the output no longer has the axis, as class scores have none.
    """

    graph: Graph
    ends: bool


def follow_axes(record: Record, fields: Mapping[str, TensorField] | None = None) -> tuple[AxisGraph, ...] | None:
    """Return the network along each axis of its first input, or None where a step is not known to arithmetic.

    Args:
        record: the network.
        fields: what ``trace_fields`` found, if that is at hand.

    >>> from torch import nn
    >>> from convoxel.inspect.record import open_source
    >>> net = nn.Sequential(nn.Conv2d(1, 1, (3, 5), padding="same"), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(1, 1, 3))
    >>> for axis in follow_axes(open_source(net).record([(1, 1, 32, 32)])):
    ...     print(*(f"{node.name}: {node.layer}" for node in axis.graph.nodes), sep=", ")
    0: k3p1, 1: k2s2, 3: k3
    0: k5p2, 1: k2s2, 3: k3
    """
    if not record.inputs or not record.outputs:
        return None
    found = trace_fields(record)[0] if fields is None else fields
    try:
        return tuple(_Walk(record, found, axis).axis_graph() for axis in range(len(record.inputs[0]) - 2))
    except (_Unknown, ConvoxelError):
        return None


class _Unknown(Exception):
    """A step does with the axis what no layer of arithmetic does."""


class _Walk:
    """From step to step along one axis; ``places`` holds which value of the graph a tensor's axis is, if any."""

    def __init__(self, record: Record, fields: Mapping[str, TensorField], axis: int) -> None:
        self.record, self.fields, self.axis = record, fields, axis
        self.nodes: list[Node] = []
        self.name = ""  # of the step
        first = record.inputs[0]
        self.lengths = [first[2 + axis]]
        self.places: dict[str, int | None] = {}
        for value, shape in zip(record.graph.inputs, record.inputs, strict=True):
            alike = len(shape) == len(first) and shape[2 + axis] == self.lengths[0]
            self.places[value.name] = 0 if alike else None

    def axis_graph(self) -> AxisGraph:
        """Return the whole graph."""
        for step in self.record.steps:
            self.name = step.name
            for value in step.outputs:
                self.places[value.name] = self.follow(step, value.name)
        name = self.record.outputs[0]
        place, at = self.places.get(name), self.fields[name].place(self.axis)
        ends = place is None or at is None or self.fields[name].image(at) is None
        if not ends and at != 2 + self.axis:
            raise _Unknown
        if place is not None and not ends and place != len(self.nodes):  # what makes the output comes last in a graph
            self.put(Window(1), place)
        return AxisGraph(Graph(tuple(self.nodes)), ends)

    def put(self, layer: Layer, *inputs: int) -> int:
        """Add a layer; return its value's place."""
        self.lengths.append(layer.size(*(self.lengths[place] for place in inputs)))
        self.nodes.append(Node(layer, inputs, self.name))
        return len(self.nodes)

    def follow(self, step: Step, name: str) -> int | None:
        """Return where the result ``name`` of a step stands, or None where it does not have the axis."""
        having = [operand for operand in step.inputs if self.places[operand] is not None]
        if not having:
            return None
        if isinstance(step.reads, Aligned):
            place = self.aligned(step, step.reads)
        elif isinstance(step.reads, Along) and having[0] == step.node.inputs[0]:
            place = self.along(step, having[0], step.reads)
        else:
            place = self.kept(step, having, name)
        at = self.fields[name].place(self.axis)
        if place is None or at is None:
            if place is not None and not self.fields[name].known:
                raise _Unknown
            return None
        length = next(factor.size for factor in self.fields[name].axes[at] if factor.image == self.axis)
        if self.lengths[place] != length:
            raise _Unknown
        return place

    def _place(self, name: str) -> int:
        place = self.places[name]
        assert place is not None
        return place

    def kept(self, step: Step, having: Sequence[str], name: str) -> int:
        """A reshape, or a step without a rule: it is taken to keep the axis where the result has it as long."""
        places = list(dict.fromkeys(self._place(operand) for operand in having))
        if isinstance(step.reads, Unknown) and len(self.fields[name].axes) != len(self.fields[having[0]].axes):
            raise _Unknown
        if self.fields[name].place(self.axis) is None:
            raise _Unknown
        return places[0] if len(places) == 1 else self.put(Join(), *places)

    def along(self, step: Step, x: str, reads: Along) -> int | None:
        """Through the axis's layer, if it has one."""
        place, at = self._place(x), self.fields[x].place(self.axis)
        if at is None:
            return None
        layer = reads.layers.get(at)
        if layer is None:
            return place
        if self.fields[x].image(at) is None or isinstance(layer, Steps):
            raise _Unknown
        if isinstance(layer, Window) and not isinstance(layer, Blocks) and layer.k == layer.s == 1 and layer.p == 0:
            return place
        if isinstance(layer, Blocks):  # whole blocks alone
            rows = self.put(layer, place)
            self.put(Join(), place, self.put(Resize(layer.s), rows))
            return rows
        if isinstance(layer, ResizeLike):  # like the tensor made last that is as long, as decoders do it
            length = step.shape[at]
            like = [other for other, size in enumerate(self.lengths) if size == length and other != place]
            if like:
                return self.put(layer, place, like[-1])
            factor = Fraction(length, self.lengths[place])
            return self.put(Resize(factor, layer.mode, layer.align_corners), place)
        return self.put(layer, place)

    def aligned(self, step: Step, reads: Aligned) -> int | None:
        """Operands side by side: they have one length, or are repeated to it; what constants fix stays fixed."""
        labels = {}
        for name, own in zip(step.node.inputs, reads.operands, strict=False):
            at = self.fields[name].place(self.axis) if name in self.fields else None
            if at is not None and self.places.get(name) is not None:
                labels[name] = own[at]
        if reads.mixed is not None and reads.mixed in labels.values():
            raise _Unknown
        kept = [name for name, label in labels.items() if label in reads.result]
        for name, label in labels.items():
            if self.is_fixed(step, reads, label):
                self.put(Exact(self.lengths[self._place(name)]), self._place(name))
        if not kept:
            return None
        places = list(dict.fromkeys(self._place(name) for name in kept))
        length = max(self.lengths[place] for place in places)
        if step.shape[list(reads.result).index(labels[kept[0]])] != length and len(places) == 1:
            return self.put(Repeat(), places[0], self._like(step, labels[kept[0]], reads))
        along = next(place for place in places if self.lengths[place] == length)
        if len(places) == 1:
            return along
        return self.put(Join(), *(p if self.lengths[p] == length else self.put(Repeat(), p, along) for p in places))

    def _like(self, step: Step, label: object, reads: Aligned) -> int:
        """Return a value as long as the result that an only position is repeated to."""
        length = step.shape[list(reads.result).index(label)]
        like = [place for place, size in enumerate(self.lengths) if size == length]
        if not like:
            raise _Unknown
        return like[0]

    def is_fixed(self, step: Step, reads: Aligned, label: object) -> bool:
        """Return True if a constant runs along the axis, as the weights of a fully connected layer do."""
        rows = zip(step.node.inputs, reads.operands, step.applied.inputs, strict=False)
        return any(
            name in self.record.graph.constants
            and shape is not None
            and label in own
            and shape[list(own).index(label)] > 1
            for name, own, shape in rows
        )
