"""Whole networks along one axis: their fields, sizes that fit, what comes out; against the networks themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from convoxel import models
from convoxel.arithmetic import (
    Adaptive,
    Field,
    Graph,
    conv_macs,
    conv_params,
    parse_chain,
    solve_inputs,
    solve_tile,
    transposed_macs,
    transposed_size,
)
from convoxel.inspect.axis_graph import follow_axes
from convoxel.inspect.record import open_source
from tests.support.chains import SLIM
from tools.drawn_networks import Function


def build(name: str, **options: Any) -> nn.Module:
    with torch.device("meta"):
        return models.build(name, **options).eval()


def route(net: nn.Module, shape: tuple[int, ...], axis: int = 0) -> Graph:
    routes = follow_axes(open_source(net).record([shape]))
    assert routes is not None and len(routes) == len(shape) - 2
    return routes[axis].graph


def field(graph: Graph, i: int) -> Field:
    """The field of the last feature map, in front of the last adaptive pooling."""
    place = max(n for n, node in enumerate(graph.nodes) if isinstance(node.layer, Adaptive))
    return graph.fields(i)[graph.nodes[place].inputs[0]]


def check_against(net: nn.Module, graph: Graph, channels: int, sizes: Sequence[int]) -> None:
    """Compare with the network itself, run on shapes alone."""
    source, answer = open_source(net), solve_inputs(graph)
    for i in sizes:
        shapes = source.accepts([(1, channels, i)])
        assert (shapes is not None and all(shapes[0])) == (i in answer.sizes), i
        if i in answer.sizes and shapes is not None and len(shapes[0]) == 3:
            assert shapes[0][2] == answer.output_size(i) == graph.size(i)


@pytest.mark.parametrize("name, smallest", [("alexnet", 63), ("googlenet", 15), ("inception_v3", 75),
                                            ("vgg16", 32), ("resnet50", 1), ("densenet121", 29)])  # fmt: skip
def test_smallest_input_of_classifiers(name: str, smallest: int) -> None:
    net = build(name, dims=1, in_channels=1)
    graph = route(net, (1, 1, 224))
    answer = solve_inputs(graph)
    assert answer.smallest == smallest and (answer.sizes.starts, answer.sizes.step) == ((smallest,), 1)
    if name in ("alexnet", "googlenet", "inception_v3"):
        check_against(net, graph, 1, [max(1, smallest - 1), smallest, smallest + 1, 100, 131])


@pytest.mark.parametrize("name, i, seen", [
    ("alexnet", 224, 195), ("vgg16", 224, 212), ("vgg19", 224, 268), ("googlenet", 224, 379),
    ("inception_v3", 299, 1311), ("resnet50", 224, 427), ("densenet121", 224, 2071), ("mobilenet_v2", 224, 491),
    ("mobilenet_v3_small", 224, 639), ("efficientnet_b0", 224, 851),
])  # fmt: skip
def test_D2_published_fields(name: str, i: int, seen: int) -> None:
    found = field(route(build(name, dims=1, in_channels=1), (1, 1, i)), i)
    assert (found.size, found.stride) == (seen, 32)


def test_u_net_of_ronneberger() -> None:
    net = build("unet_ronneberger", dims=1)
    graph = route(net, (1, 1, 572))
    answer = solve_inputs(graph)
    assert str(answer) == "188 + 16 n (n ≥ 0): o = i − 184"
    assert answer.output_size(572) == 388
    check_against(net, graph, 1, [172, 187, 188, 189, 204, 560, 572, 580])
    assert solve_inputs(graph, 388).sizes.exceptions == (572,) and not solve_inputs(graph, 390).sizes
    tile = solve_tile(graph, 572)  # without padding every output is right: the halo is the border that is lost
    assert (tile.multiple, tile.advance, tile.halo, tile.inside) == (16, 384, (92, 92), (0, 388))


def test_3_d_u_net_of_cicek() -> None:
    net = build("unet_cicek", dims=3)
    answers = [solve_inputs(route(net, (1, 3, 132, 132, 116), axis)) for axis in range(3)]
    sizes = zip(answers, (132, 132, 116), strict=True)
    assert [answer.output_size(i) for answer, i in sizes] == [44, 44, 28]
    assert str(answers[2]) == "92 + 8 n (n ≥ 0): o = i − 88"


@pytest.mark.parametrize("levels, up", [(1, "transposed"), (3, "transposed"), (2, "linear"), (2, "nearest")])
def test_padded_u_nets(levels: int, up: str) -> None:
    net = build("unet", dims=1, levels=levels, up=up)
    graph = route(net, (1, 1, 64))
    answer = solve_inputs(graph)
    assert (answer.sizes.starts, answer.sizes.step, answer.equation) == ((2**levels,), 2**levels, "o = i")
    check_against(net, graph, 1, range(1, 40))


def test_intermediate_fields() -> None:
    def fields(text: str, places: Sequence[int]) -> list[str]:
        found = parse_chain(text).fields(4000)
        return [str(found[place]) for place in places]

    assert fields(SLIM["alexnet_v2"], range(1, 8)) == ["11/4", "19/8", "51/8", "67/16", "99/16", "131/16", "163/16"]
    assert [text.partition("/")[0] for text in fields(SLIM["vgg_16"], (3, 6, 10, 14, 18))] == [
        "6", "16", "44", "100", "212",
    ]  # fmt: skip
    separable = [7, 11, 19, 27, 43, 59, 91, 123, 155, 187, 219, 251, 315]
    assert [int(text.partition("/")[0]) for text in fields(SLIM["mobilenet_v1"], range(2, 15))] == separable


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


class Decoder(nn.Module):
    """Halves twice, resizes to the sizes of the skips, and gates the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        skips = [x]
        for _ in range(2):
            skips.append(functional.max_pool1d(self.conv(skips[-1]), 2))
        y = skips.pop()
        for skip in reversed(skips):
            y = functional.interpolate(y, size=skip.shape[2:], mode="linear") + skip
        return y * y.mean(2, keepdim=True).sigmoid()


@pytest.mark.parametrize("net, said", [
    (nn.Conv1d(1, 1, 5, padding=3, padding_mode="reflect"), "every size from 4: o = i + 2"),
    (nn.Conv1d(1, 1, 5, padding=3, padding_mode="circular"), "every size from 3: o = i + 2"),
    (nn.Conv1d(1, 1, 5, padding=3, padding_mode="replicate"), "every size from 1: o = i + 2"),
    (nn.Conv1d(1, 1, 4, padding="same"), "every size from 1: o = i"),
    (nn.MaxPool1d(3, 2, ceil_mode=True), "every size from 2: o = ⌊i / 2⌋"),
    (nn.AvgPool1d(3, 2, 1), "every size from 1: o = ⌊(i + 1) / 2⌋"),
    (nn.ConvTranspose1d(1, 1, 3, 2, 1, output_padding=1), "every size from 1: o = 2 i"),
    (nn.ConvTranspose1d(1, 1, 3, 3, 2, dilation=2), "every size from 1: o = 3 i − 2"),
    (nn.Upsample(scale_factor=1.5), "every size from 1: o = ⌊3 i / 2⌋"),
    (nn.AdaptiveAvgPool1d(7), "every size from 1: o = 7"),
    (nn.ZeroPad1d((2, -3)), "every size from 3: o = i − 1"),
    (Decoder(), "every size from 4: o = i"),
    (Function(lambda x: x[..., 2:]), "every size from 3: o = i − 2"),
    (Function(lambda x: torch.cat([x, x.mean(2, keepdim=True).expand_as(x)], 1)), "every size from 1: o = i"),
    (nn.Sequential(nn.Conv1d(1, 1, 3, 2), nn.Flatten(), nn.Linear(11, 3)), "23, 24: o = ⌊(i − 1) / 2⌋"),
])  # fmt: skip
def test_steps_along_an_axis(net: nn.Module, said: str) -> None:
    graph = route(net, (1, 1, 24))
    assert str(solve_inputs(graph)) == said
    check_against(net, graph, 1, range(1, 41))


def test_blocks_of_positions_take_whole_blocks() -> None:
    net = nn.Sequential(nn.PixelUnshuffle(3), nn.Conv2d(9, 18, (1, 3)), nn.PixelShuffle(3))
    across, along = (solve_inputs(route(net, (1, 1, 24, 24), axis)) for axis in range(2))
    assert str(across) == "3 + 3 n (n ≥ 0): o = i" and str(along) == "9 + 3 n (n ≥ 0): o = i − 6"


@pytest.mark.parametrize("function", [
    lambda x: x.transpose(1, 2), lambda x: torch.cat([x, x], 2), lambda x: x[..., ::2], lambda x: x.reshape(1, 2, -1),
    lambda x: torch.repeat_interleave(x, 2, 2),
])  # fmt: skip
def test_what_arithmetic_does_not_know_has_no_route(function: Callable[[Tensor], Tensor]) -> None:
    assert follow_axes(open_source(Function(function)).record([(1, 1, 24)])) is None
