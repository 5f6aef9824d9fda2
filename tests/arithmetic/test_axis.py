"""Networks along an axis against PyTorch: sizes of drawn layers, fields and tiles of drawn networks."""

from __future__ import annotations

import random
from collections import Counter
from fractions import Fraction

import pytest
import torch
from hypothesis import HealthCheck, given, settings

from convoxel.arithmetic import (
    Adaptive,
    Crop,
    Exact,
    Field,
    Graph,
    Join,
    Layer,
    Node,
    Pad,
    Repeat,
    Resize,
    ResizeLike,
    Transposed,
    Unpool,
    Window,
    compose,
    misalignment,
    parse_chain,
    solve_inputs,
    solve_tile,
    through,
    transposed_taps,
    unpool_taps,
)
from convoxel.errors import ConfigError, ShapeError
from tools.axes import Net, check_field, check_layer, check_tiles, networks

sampled = settings(deadline=None, derandomize=True, max_examples=40, suppress_health_check=list(HealthCheck))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_sizes_of_2000_drawn_layers_are_pytorchs() -> None:
    draw = random.Random(0)
    counts = Counter(check_layer(draw) for _ in range(2000))
    assert min(counts[f"{kind} fits"] for kind in ("conv", "pool", "mean", "transposed", "pad", "unpool")) > 150
    assert min(counts[f"{kind} refused"] for kind in ("conv", "pool")) > 30


@sampled
@given(networks())
def test_field_is_the_support_of_the_gradient(net: Net) -> None:
    assert check_field(net) > 0


@settings(sampled, max_examples=25)
@given(networks(dims=1))
def test_tiles_give_exactly_the_whole(net: Net) -> None:
    check_tiles(net)


@pytest.mark.parametrize("wrong", [Window(3, 1, (0, 1)), Window(2, 1, (1, 1)), Window(3, 1, (2, 2), 2)])
def test_the_checker_rejects_a_wrong_field(wrong: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net((Graph.chain(Window(3, 1, (1, 1))),))
    lie = Graph.chain(wrong).fields(20)
    monkeypatch.setattr(Graph, "fields", lambda self, i: lie)
    with pytest.raises(AssertionError):
        check_field(net)


def test_the_checker_rejects_a_halo_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convoxel.arithmetic.tile._inside", lambda graph, sizes: (1, sizes[-1] - 1))
    with pytest.raises(AssertionError):
        check_tiles(Net((Graph.chain(Window(7, 1, 3)),)))


def test_un_pooling_to_remembered_places() -> None:
    """Over many images, an output takes its value from the windows that cover it, and from no others."""
    k, s, i = 3, 2, 15
    seen: dict[int, set[int]] = {o: set() for o in range(i)}
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        x = torch.rand((1, 1, i), generator=generator)
        pooled, places = torch.nn.functional.max_pool1d(x, k, s, return_indices=True)
        marks = torch.arange(1, pooled.shape[2] + 1, dtype=torch.float32)[None, None]
        back = torch.nn.functional.max_unpool1d(marks, places, k, s)[0, 0].tolist()
        for o, mark in enumerate(back):
            if mark:
                seen[o].add(int(mark) - 1)
    taps = unpool_taps(k, s)
    assert back and Unpool(k, s).size(7) == i
    for o, windows in seen.items():
        assert windows == {j for j in taps.at(o) if 0 <= j < 7}
    assert through(compose(Field.window(), k, s), taps).size == 5


def test_un_pooling_to_a_fixed_place() -> None:
    assert [unpool_taps(2, position=1).at(o) for o in range(4)] == [(), (0,), (), (1,)]
    assert unpool_taps(2) == transposed_taps(2, 2)
    with pytest.raises(ConfigError, match="position is 2, but a window of 2 has the positions 0 to 1"):
        unpool_taps(2, position=2)


def test_decoders_that_resize_to_the_skip() -> None:
    """7 → 3 → 7 is no factor of 2: the branches drift apart, and every output is still right."""
    nodes = (Node(Window(2, 2), (0,)), Node(ResizeLike("nearest"), (1, 0)), Node(Join(), (0, 2)))
    graph = Graph(nodes)
    x = torch.rand((1, 1, 7), dtype=torch.float64, requires_grad=True)
    small = torch.nn.functional.avg_pool1d(x, 2)
    y = x + torch.nn.functional.interpolate(small, size=7, mode="nearest")
    field = graph.field(7)
    for o in range(7):
        (gradient,) = torch.autograd.grad(y[0, 0, o], x, retain_graph=True)
        assert tuple(torch.nonzero(gradient[0, 0])[:, 0].tolist()) == field.inputs(o)
    assert misalignment(*graph.fields(7)[:1], graph.fields(7)[2]) is None
    assert str(solve_inputs(graph)) == "every size from 2: o = i"


def test_branches_lie_apart() -> None:
    plain, even = Graph.chain(Window(3, 1, 1)).field(9), Graph.chain(Window(4, 1, (2, 1))).field(9)
    assert misalignment(plain, even) == Fraction(1, 2)
    assert misalignment(plain, plain) == 0
    assert misalignment(plain, Graph.chain(Window(3, 2, 1)).field(9)) is None


@pytest.mark.parametrize("layer, sizes, o", [
    (Window(3, 2, "same"), (7,), 4), (Window(3, 2, "causal"), (7,), 4), (Window(2, 2, ceil=True), (7,), 4),
    (Transposed(3, 2, "same"), (7,), 14), (Transposed(2, 3, "same"), (7,), 21), (Transposed(3, 1, "full"), (7,), 5),
    (Transposed(3, 2, (1, 0), a=1), (4,), 9), (Adaptive(5), (9,), 5), (Exact(4), (4,), 4), (Crop(), (9, 4), 4),
    (Join(), (4, 4), 4), (Repeat(), (1, 4), 4), (ResizeLike(), (4, 9), 9), (Pad(2, -1), (4,), 5),
    (Resize(Fraction(3, 2)), (5,), 7),
])  # fmt: skip
def test_sizes_of_layers(layer: Layer, sizes: tuple[int, ...], o: int) -> None:
    assert layer.size(*sizes) == o


def test_transposed_words_see_what_their_convolution_is_seen_by() -> None:
    """Output o of the transposed reads j if and only if output j of the convolution reads o."""
    for word in ("none", "half", "full", "same", "causal"):
        for k, s, d in ((3, 2, 1), (4, 2, 1), (2, 3, 1), (3, 1, 2)):
            small = 6
            back = Transposed(k, s, word, d)
            (pair, _) = back.padding()
            (taps,) = back.taps(small)
            reads = [range(s * j - pair[0], s * j - pair[0] + d * (k - 1) + 1, d) for j in range(-50, 50)]
            assert taps is not None
            for o in range(-10, 20):
                assert taps.at(o) == tuple(j - 50 for j, read in enumerate(reads) if o in read)


@pytest.mark.parametrize("call, match", [
    (lambda: Graph.chain(Window(3), Window(9)).size(8), r"layer 2 \(k9\), input size 8: an input of size 6"),
    (lambda: Graph.chain(Window(3)).size(0), "input size is 0, but it must be at least 1"),
    (lambda: Join().size(4, 5), "branches of sizes 4, 5 cannot be joined. Pad or crop"),
    (lambda: Repeat().size(4, 5), "a size of 4 cannot be repeated, only 1. Pool the branch"),
    (lambda: Crop().size(4, 5), "5 positions .* out of 4"),
    (lambda: Exact(4).size(5), "exact4 takes the size 4 only, but got 5"),
    (lambda: Pad(3, 3, "reflect").size(3), "pad3:reflect takes sizes from 4, but i is 3. Use a larger"),
    (lambda: Pad(3, 3, "circular").size(2), "takes sizes from 3"),
    (lambda: Pad(-2, 4).size(1), "takes sizes from 2"),
    (lambda: Resize(Fraction(1, 2)).size(1), "down2 would leave nothing of an input of size 1"),
    (lambda: Window(3, 2, "same").size(0), "needs an input size of at least 1"),
    (lambda: solve_tile(parse_chain("k3p1x9"), 16), "tiles of 16 are too small.*Use tiles of at least 19"),
    (lambda: solve_tile(parse_chain("k3 adaptive1"), 16), "adaptive1 depends on where the whole input ends"),
    (lambda: solve_tile(parse_chain("k3 pad1:circular"), 16), "pad1:circular depends on where"),
    (lambda: solve_tile(parse_chain("k3 exact14"), 16), "takes inputs of 16 but not of 17; it cannot be tiled"),
    (lambda: solve_tile(parse_chain("k3s2psame"), 16).cover(33), "padded differently .* 33.*of 2"),
])  # fmt: skip
def test_errors_say_how_to_mend(call: object, match: str) -> None:
    with pytest.raises(ShapeError, match=match):
        call()  # type: ignore[operator]


def test_a_resize_needs_a_factor() -> None:
    with pytest.raises(ConfigError, match="factor of a resize is 0, but it must be above 0"):
        Resize(0).size(4)


def test_tiles_of_a_u_net() -> None:
    """Two levels of padded convolutions: what an output sees of the image, and no more, is its halo."""
    nodes: list[Node] = []

    def put(layer: Layer, *inputs: int) -> int:
        nodes.append(Node(layer, inputs))
        return len(nodes)

    def stage(value: int) -> int:
        return put(Window(3, 1, 1), put(Window(3, 1, 1), value))

    top = stage(0)
    middle = stage(put(Window(2, 2), top))
    bottom = stage(put(Window(2, 2), middle))
    up = stage(put(Join(), put(Transposed(2, 2), bottom), middle))
    stage(put(Join(), put(Transposed(2, 2), up), top))
    graph = Graph(tuple(nodes))
    tile = solve_tile(graph, 96)
    assert (tile.multiple, tile.stride) == (4, 1)
    field = graph.field(96)
    assert field.size == 44
    assert tile.halo == (22, 22) and tile.advance == 52
    reach = [field.at(o) for o in range(96)]
    assert max(o for o, seen in enumerate(reach) if seen and seen[0] < 0) == 21  # and 22 of the right end alike
    assert (
        str(tile) == "tiles of 96 with a halo of 22 before and 22 after: tiles begin 52 inputs apart, a multiple of 4"
    )
    parts = tile.cover(300)
    assert [part.input for part in parts] == [(0, 96), (52, 148), (104, 200), (156, 252), (204, 300)]
    assert [o for part in parts for o in range(*part.output)] == list(range(300))
    with pytest.raises(ShapeError, match="branches of sizes"):
        tile.cover(301)
