"""A network's steps along one image axis, as the graph that arithmetic solves.

The steps are those of one run, so the graph is right wherever the network takes the same steps at every size. Networks
that choose their layers by the size (padding to a multiple, say) are not: ``admission`` therefore asks the network
itself before it believes a route. A step without a rule is taken to keep the size if it does in that run; if it does
not, the network has no route.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from convoxel.arithmetic import (
    Adaptive,
    Exact,
    Graph,
    Join,
    Layer,
    Node,
    Pad,
    Repeat,
    Resize,
    ResizeLike,
    Transposed,
    Window,
    transposed_size,
)
from convoxel.errors import ConvoxelError
from convoxel.inspect.step import Step, Trace

__all__ = ["Route", "follow_axes"]


class Route(NamedTuple):
    """A network along one image axis of its inputs.

    Attributes:
        graph: of all steps that move or change the axis.
        ends: whether the output no longer has the axis, as class scores have none.
    """

    graph: Graph
    ends: bool


def follow_axes(trace: Trace) -> tuple[Route, ...] | None:
    """Return the network along each axis of its first input, or None where a step is not known to arithmetic.

    >>> from torch import nn
    >>> from convoxel.inspect.trace import trace_module
    >>> net = nn.Sequential(nn.Conv2d(1, 1, (3, 5), padding="same"), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(1, 1, 3))
    >>> for route in follow_axes(trace_module(net, [(1, 1, 32, 32)])):
    ...     print(*(f"{node.name}: {node.layer}" for node in route.graph.nodes), sep=", ")
    0: k3p1, 1: k2s2, 3: k3
    0: k5p2, 1: k2s2, 3: k3
    """
    if not trace.inputs or not trace.outputs:
        return None
    try:
        return tuple(_Walk(trace, axis).route() for axis in range(len(trace.inputs[0].shape) - 2))
    except (_Unknown, ConvoxelError):
        return None


class _Unknown(Exception):
    """A step does with the axis what no layer of arithmetic does."""


class _Walk:
    """From step to step along one axis; ``places`` holds which value of the graph a tensor's axis is, if any."""

    def __init__(self, trace: Trace, axis: int) -> None:
        self.trace, self.axis, self.rank = trace, axis, len(trace.inputs[0].shape)
        self.nodes: list[Node] = []
        self.name = ""  # of the step
        first = trace.inputs[0].shape
        self.lengths = [first[2 + axis]]
        self.places: dict[int, int | None] = {}
        for value in trace.inputs:
            alike = len(value.shape) == self.rank and value.shape[2 + axis] == self.lengths[0]
            self.places[value.key] = 0 if alike else None

    def route(self) -> Route:
        """Return the whole graph."""
        for step in self.trace.steps:
            self.name = step.name
            place = self.follow(step)
            self.places.update({value.key: place for value in step.outputs})
        place = self.places.get(self.trace.outputs[0].key)
        if place is not None and place != len(self.nodes):  # what makes the output comes last in a graph
            self.put(Window(1), place)
        return Route(Graph(tuple(self.nodes)), place is None)

    def put(self, layer: Layer, *inputs: int) -> int:
        """Add a layer; return its value's place."""
        self.lengths.append(layer.size(*(self.lengths[place] for place in inputs)))
        self.nodes.append(Node(layer, inputs, self.name))
        return len(self.nodes)

    def follow(self, step: Step) -> int | None:
        """Return where the step's result stands, or None where it does not have the axis."""
        spatial = [place for value in step.inputs if (place := self.places[value.key]) is not None]
        result = step.outputs[0].shape
        if not spatial:
            return None
        if len(result) != self.rank:
            self.end(step, spatial[0])
            return None
        if step.operator == "permute" and step.attributes["order"][1:] != tuple(range(1, self.rank)):
            raise _Unknown
        if step.operator in ("concat", "split") and step.attributes["axis"] == 2 + self.axis:
            raise _Unknown
        place = _RULES.get(step.operator, _Walk.join)(self, step, spatial)
        if self.lengths[place] != result[2 + self.axis]:
            raise _Unknown
        return place

    def end(self, step: Step, place: int) -> None:
        """Leave the axis: averaged away, or written one position behind the other, which fixes the size."""
        if step.operator != "reduce":
            self.put(Exact(self.lengths[place]), place)

    def window(self, step: Step, spatial: Sequence[int]) -> int:
        """A convolution or pooling; one that is one wide and does not stride reads what it writes."""
        k, s, p, d = (step.attributes[name][self.axis] for name in ("kernel", "stride", "padding", "dilation"))
        layer = Window(k, s, _plain(p), d, bool(step.attributes.get("ceil")))
        still = layer.k == layer.s == 1 and layer.p == 0
        return spatial[0] if still else self.put(layer, spatial[0])

    def transposed(self, step: Step, spatial: Sequence[int]) -> int:
        """A transposed convolution; what it adds at the end follows from its sizes."""
        k, s, p, d = (step.attributes[name][self.axis] for name in ("kernel", "stride", "padding", "dilation"))
        added = step.outputs[0].shape[2 + self.axis] - transposed_size(self.lengths[spatial[0]], k, s, p, d)
        return self.put(Transposed(k, s, _plain(p), d, added), spatial[0])

    def adaptive(self, step: Step, spatial: Sequence[int]) -> int:
        """Pooling to a number of positions."""
        return self.put(Adaptive(step.outputs[0].shape[2 + self.axis]), spatial[0])

    def reduce(self, step: Step, spatial: Sequence[int]) -> int:
        """An average or maximum over axes, kept as axes of 1."""
        reduced = 2 + self.axis in step.attributes["axes"]
        return self.put(Adaptive(1), spatial[0]) if reduced else spatial[0]

    def resize(self, step: Step, spatial: Sequence[int]) -> int:
        """By a factor, or to a size: that of the tensor made last that is as long, as decoders do it."""
        own, o = step.attributes, step.outputs[0].shape[2 + self.axis]
        scale, how = own["scale"][self.axis], (own["mode"], own["align_corners"])
        if scale is not None:
            return self.put(Resize(Fraction(scale).limit_denominator(1 << 12), *how), spatial[0])
        like = [place for place, length in enumerate(self.lengths) if length == o and place != spatial[0]]
        if like:
            return self.put(ResizeLike(*how), spatial[0], like[-1])
        return self.put(Resize(Fraction(o, self.lengths[spatial[0]]), *how), spatial[0])

    def pad(self, step: Step, spatial: Sequence[int]) -> int:
        """Rows before and after."""
        before, after = step.attributes["padding"][2 + self.axis]
        mode = step.attributes.get("mode", "zeros")
        return self.put(Pad(before, after, mode), spatial[0]) if (before, after) != (0, 0) else spatial[0]

    def narrow(self, step: Step, spatial: Sequence[int]) -> int:
        """A part of the axis: as many rows fall off at every size."""
        start, stride = step.attributes["slices"].get(2 + self.axis, (0, 1))
        i, o = self.lengths[spatial[0]], step.outputs[0].shape[2 + self.axis]
        if stride != 1:
            raise _Unknown
        return spatial[0] if i == o else self.put(Pad(-start, o - i + start), spatial[0])

    def blocks(self, step: Step, spatial: Sequence[int]) -> int:
        """Blocks of positions to channels, which takes whole blocks alone; or back."""
        block, place = step.attributes["block"][self.axis], spatial[0]
        if step.operator == "depth_to_space":
            return self.put(Resize(block), place)
        rows = self.put(Window(block, block), place)
        self.put(Join(), place, self.put(Resize(block), rows))
        return rows

    def join(self, step: Step, spatial: Sequence[int]) -> int:
        """Everything else: what it takes has one length, or is repeated to it."""
        places = list(dict.fromkeys(spatial))
        o = step.outputs[0].shape[2 + self.axis]
        along = next((place for place in places if self.lengths[place] == o), None)
        if along is None:
            raise _Unknown
        if len(places) == 1:
            return along
        return self.put(Join(), *(p if self.lengths[p] == o else self.put(Repeat(), p, along) for p in places))


def _plain(padding: tuple[int, int]) -> int | tuple[int, int]:
    """Return one number for the same padding on both sides.

    >>> _plain((1, 1)), _plain((0, 1))
    (1, (0, 1))
    """
    before, after = padding
    return before if before == after else (before, after)


_RULES: Mapping[str, Callable[[_Walk, Step, Sequence[int]], int]] = {
    "convolution": _Walk.window,
    "max_pool": _Walk.window,
    "average_pool": _Walk.window,
    "transposed_convolution": _Walk.transposed,
    "adaptive_pool": _Walk.adaptive,
    "reduce": _Walk.reduce,
    "resize": _Walk.resize,
    "pad": _Walk.pad,
    "narrow": _Walk.narrow,
    "depth_to_space": _Walk.blocks,
    "space_to_depth": _Walk.blocks,
}
