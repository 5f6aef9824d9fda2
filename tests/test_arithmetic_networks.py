"""Whole networks along one axis: published fields, sizes that fit, what comes out; against the networks themselves."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import nn

from convoxel import models
from convoxel.arithmetic import (
    Adaptive,
    Field,
    Graph,
    Join,
    Layer,
    Node,
    Pad,
    Repeat,
    Resize,
    Transposed,
    Window,
    conv_macs,
    conv_params,
    parse_chain,
    solve_inputs,
    solve_tile,
    transposed_macs,
    transposed_size,
)
from convoxel.inspect.step import Step
from convoxel.inspect.trace import ModuleSource, trace_module


class Route:
    """A traced module's graph along one axis; ``ends`` holds what each of its adaptive poolings takes."""

    def __init__(self, net: nn.Module, shape: tuple[int, ...], axis: int = 0) -> None:
        self.net, self.axis, self.dims = net, axis, len(shape) - 2
        self.nodes: list[Node] = []
        trace = trace_module(net, [shape])
        places: dict[int, int | None] = {trace.inputs[0].key: 0}
        self.last = 0
        for step in trace.steps:
            place = self.follow(step, [places[value.key] for value in step.inputs])
            places.update({value.key: place for value in step.outputs})
            self.last = self.last if place is None else place

    def put(self, layer: Layer, *inputs: int) -> int:
        self.nodes.append(Node(layer, inputs))
        return len(self.nodes)

    def follow(self, step: Step, inputs: Sequence[int | None]) -> int | None:
        """Return the value that a step makes, or None where the axis has ended."""
        spatial = [place for place in inputs if place is not None]
        result = step.outputs[0].shape
        if not spatial or len(result) != self.dims + 2:
            return None
        axis, own = self.axis + 2, step.attributes
        i, o = step.inputs[0].shape[axis], result[axis]
        if step.operator in ("convolution", "max_pool", "average_pool", "transposed_convolution"):
            numbers = [own[name][self.axis] for name in ("kernel", "stride", "padding", "dilation")]
            if step.operator == "transposed_convolution":
                return self.put(Transposed(*numbers, a=o - transposed_size(i, *numbers)), *spatial)
            ceil = step.operator != "convolution" and self.net.get_submodule(step.name.partition(":")[0]).ceil_mode
            layer = Window(*numbers, ceil=bool(ceil))
            return spatial[0] if layer == Window(1) else self.put(layer, *spatial)
        if step.operator == "adaptive_pool" or (step.operator == "reduce" and axis in own["axes"]):
            return self.put(Adaptive(o), *spatial)
        if step.operator == "resize":
            return self.put(Resize(Fraction(own["scale"][self.axis]), own["mode"]), *spatial)
        if step.operator == "pad":
            return spatial[0] if i == o else self.put(Pad(*own["padding"][axis]), *spatial)
        if step.operator == "narrow":
            start, _ = own["slices"].get(axis, (0, 1))
            return spatial[0] if i == o else self.put(Pad(-start, o - i + start), *spatial)
        if len(set(spatial)) > 1:
            sizes = [value.shape[axis] for value, place in zip(step.inputs, inputs, strict=True) if place is not None]
            along = spatial[sizes.index(o)]
            joined = [p if n == o else self.put(Repeat(), p, along) for p, n in zip(spatial, sizes, strict=True)]
            return self.put(Join(), *joined)
        return spatial[0]

    @property
    def graph(self) -> Graph:
        return Graph(tuple(self.nodes[: self.last]))

    def field(self, i: int) -> Field:
        """The field of the last feature map, in front of the last adaptive pooling."""
        place = max(n for n, node in enumerate(self.nodes) if isinstance(node.layer, Adaptive))
        return self.graph.fields(i)[self.nodes[place].inputs[0]]


def build(name: str, **options: Any) -> nn.Module:
    with torch.device("meta"):
        return models.build(name, **options).eval()


def check_against(net: nn.Module, graph: Graph, channels: int, sizes: Sequence[int]) -> None:
    """Compare with the network itself, run on shapes alone."""
    source, answer = ModuleSource(net), solve_inputs(graph)
    for i in sizes:
        shapes = source.accepts([(1, channels, i)])
        assert (shapes is not None) == (i in answer.sizes), i
        if shapes is not None and len(shapes[0]) == 3:
            assert shapes[0][2] == answer.output_size(i) == graph.size(i)


@pytest.mark.parametrize("name, smallest", [("alexnet", 63), ("googlenet", 15), ("inception_v3", 75),
                                            ("vgg16", 32), ("resnet50", 1), ("densenet121", 29)])  # fmt: skip
def test_smallest_input_of_classifiers(name: str, smallest: int) -> None:
    net = build(name, dims=1, in_channels=1)
    graph = Route(net, (1, 1, 224)).graph
    answer = solve_inputs(graph)
    assert answer.smallest == smallest and (answer.sizes.starts, answer.sizes.step) == ((smallest,), 1)
    if name in ("alexnet", "googlenet", "inception_v3"):
        check_against(net, graph, 1, [max(1, smallest - 1), smallest, smallest + 1, 100, 131])


@pytest.mark.parametrize("name, i, field", [
    ("alexnet", 224, 195), ("vgg16", 224, 212), ("vgg19", 224, 268), ("googlenet", 224, 379),
    ("inception_v3", 299, 1311), ("resnet50", 224, 427), ("densenet121", 224, 2071), ("mobilenet_v2", 224, 491),
    ("mobilenet_v3_small", 224, 639), ("efficientnet_b0", 224, 851),
])  # fmt: skip
def test_published_fields(name: str, i: int, field: int) -> None:
    found = Route(build(name, dims=1, in_channels=1), (1, 1, i)).field(i)
    assert (found.size, found.stride) == (field, 32)


def test_u_net_of_ronneberger() -> None:
    net = build("unet_ronneberger", dims=1)
    graph = Route(net, (1, 1, 572)).graph
    answer = solve_inputs(graph)
    assert str(answer) == "188 + 16 n (n ≥ 0): o = i − 184"
    assert answer.output_size(572) == 388
    check_against(net, graph, 1, [172, 187, 188, 189, 204, 560, 572, 580])
    assert solve_inputs(graph, 388).sizes.few == (572,) and not solve_inputs(graph, 390).sizes
    tile = solve_tile(graph, 572)  # without padding every output is right: the halo is the border that is lost
    assert (tile.multiple, tile.advance, tile.halo, tile.inside) == (16, 384, (92, 92), (0, 388))


def test_3_d_u_net_of_cicek() -> None:
    net = build("unet_cicek", dims=3)
    answers = [solve_inputs(Route(net, (1, 3, 132, 132, 116), axis).graph) for axis in range(3)]
    sizes = zip(answers, (132, 132, 116), strict=True)
    assert [answer.output_size(i) for answer, i in sizes] == [44, 44, 28]
    assert str(answers[2]) == "92 + 8 n (n ≥ 0): o = i − 88"


@pytest.mark.parametrize("levels, up", [(1, "transposed"), (3, "transposed"), (2, "linear"), (2, "nearest")])
def test_padded_u_nets(levels: int, up: str) -> None:
    net = build("unet", dims=1, levels=levels, up=up)
    graph = Route(net, (1, 1, 64)).graph
    answer = solve_inputs(graph)
    assert (answer.sizes.starts, answer.sizes.step, answer.equation) == ((2**levels,), 2**levels, "o = i")
    check_against(net, graph, 1, range(1, 40))


SLIM = {  # Araujo, Norris & Sim 2019, Table 1; a unit of ResNet v1 is its 3-wide kernel, the last of a block strides
    "alexnet_v2": ("k11s4 pool3s2 k5p2 pool3s2 k3p1x3 pool3s2", 195),
    "vgg_a": ("k3p1 pool2 k3p1 pool2 k3p1x2 pool2 k3p1x2 pool2 k3p1x2 pool2", 150),
    "vgg_16": ("k3p1x2 pool2 k3p1x2 pool2 k3p1x3 pool2 k3p1x3 pool2 k3p1x3 pool2", 212),
    "mobilenet_v1": ("k3s2p1 k3p1 k3s2p1 k3p1 k3s2p1 k3p1 k3s2p1 k3p1x5 k3s2p1 k3p1", 315),
    "resnet_v1_50": ("k7s2 pool3s2 k3x2 k3s2 k3x3 k3s2 k3x5 k3s2 k3x3", 483),
    "resnet_v1_101": ("k7s2 pool3s2 k3x2 k3s2 k3x3 k3s2 k3x22 k3s2 k3x3", 1027),
    "resnet_v1_152": ("k7s2 pool3s2 k3x2 k3s2 k3x7 k3s2 k3x35 k3s2 k3x3", 1507),
    "inception_v2": ("k7s2 pool3s2 k3 pool3s2 k3x4 k3 k3s2 k3x8 k3 k3s2 k3x4", 699),
    "inception_v3": ("k3s2 k3 k3p1 pool3s2 k3 pool3s2 k5x3 k3 k3s2 k7x8 k7 k3s2 k3x4", 1311),
}


@pytest.mark.parametrize("name", SLIM)
def test_published_chains(name: str) -> None:
    text, field = SLIM[name]
    assert parse_chain(text).field(4000).size == field


def test_intermediate_fields() -> None:
    def fields(text: str, places: Sequence[int]) -> list[str]:
        found = parse_chain(text).fields(4000)
        return [str(found[place]) for place in places]

    assert fields(SLIM["alexnet_v2"][0], range(1, 8)) == ["11/4", "19/8", "51/8", "67/16", "99/16", "131/16", "163/16"]
    assert [text.partition("/")[0] for text in fields(SLIM["vgg_16"][0], (3, 6, 10, 14, 18))] == [
        "6", "16", "44", "100", "212",
    ]  # fmt: skip
    separable = [7, 11, 19, 27, 43, 59, 91, 123, 155, 187, 219, 251, 315]
    assert [int(text.partition("/")[0]) for text in fields(SLIM["mobilenet_v1"][0], range(2, 15))] == separable


def test_macs_and_parameters_of_the_paper_u_net() -> None:
    """Counted along its own figure: two convolutions a stage, 64 to 1024 channels, 572 pixels."""
    size, channels, params, macs = 572, 1, 0, 0
    for level in range(5):
        for source, width in ((channels, 64 << level), (64 << level, 64 << level)):
            size -= 2
            params += conv_params(source, width, (3, 3))
            macs += conv_macs((size, size), source, width, (3, 3))
        channels = 64 << level
        size = size // 2 if level < 4 else size
    for level in reversed(range(4)):
        width = 64 << level
        params += conv_params(2 * width, width, (2, 2))
        macs += transposed_macs((size, size), 2 * width, width, (2, 2))
        size = transposed_size(size, 2, 2)
        for source in (2 * width, width):
            size -= 2
            params += conv_params(source, width, (3, 3))
            macs += conv_macs((size, size), source, width, (3, 3))
    params += conv_params(64, 2, (1, 1))
    macs += conv_macs((size, size), 64, 2, (1, 1))
    assert (size, params, macs) == (388, 31_030_658, 150_428_424_448)
