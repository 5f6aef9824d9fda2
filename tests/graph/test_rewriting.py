"""Passes that replace several nodes by fewer: what they find, what they leave, and that the numbers stay."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from convoxel.errors import GraphError, UnsupportedError
from convoxel.graph.ir.graph import Graph, Node, Value
from convoxel.graph.ir.pytree import Leaf
from convoxel.graph.ir.size import Size
from convoxel.graph.operators.movement import _depth_to_space as depth_to_space
from convoxel.graph.operators.table import OPERATORS, make_node
from convoxel.graph.passes import Pass, compose, fold, forward, fuse, layout, optimise, permutation, reshape, run_pass
from convoxel.graph.passes.chain import simplify_chains
from convoxel.graph.run.program import Program

pytestmark = pytest.mark.smoke

CHANNELS = 4
GENERATOR = np.random.default_rng(0)


class Builder:
    """A graph of one input (n, 4, h, w), node by node."""

    def __init__(self, shape: tuple[Any, ...] = (Size("n"), CHANNELS, Size("h"), Size("w"))) -> None:
        self.x = Value("x", shape)
        self.values = {"x": self.x}
        self.nodes: list[Node] = []
        self.constants: dict[str, Any] = {}

    def constant(self, array: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(array)
        return name

    def add(self, operator: str, *inputs: str, shape: Any = None, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        value = Value(name, self.values[next(n for n in inputs if n in self.values)].shape if shape is None else shape)
        self.values[name] = value
        native = operator != "reshape" and OPERATORS[operator].has_steps
        self.nodes.append(make_node(operator, name, inputs, (value,), native=native, **attributes))
        return name

    def affine(self, x: str, scale: Any, shift: Any, **epilogue: Any) -> str:
        arrays = [self.constant(np.atleast_1d(np.asarray(v, np.float64))) for v in (scale, shift)]
        return self.add("affine", x, *arrays, **epilogue)

    def act(self, x: str, kind: str, slope: Any = 0.0) -> str:
        return self.add("activation", x, activation=kind, slope=slope)

    def conv(self, x: str, out: int, kernel: int = 3, bias: bool = True, groups: int = 1, **window: Any) -> str:
        """A 2-D convolution; its result's sizes are only a label here."""
        channels = self.values[x].shape[1]
        assert isinstance(channels, int)
        weight = self.constant(GENERATOR.normal(size=(out, channels // groups, kernel, kernel)))
        b = self.constant(GENERATOR.normal(size=out)) if bias else ""
        usual = {"stride": (1, 1), "padding": ((0, 0),) * 2, "dilation": (1, 1), **window}
        n, _, h, w = self.values[x].shape
        return self.add("convolution", x, weight, b, shape=(n, out, h, w), groups=groups, **usual)

    def dense(self, x: str, out: int, columns: int) -> str:
        weight, bias = self.constant(GENERATOR.normal(size=(out, columns))), self.constant(GENERATOR.normal(size=out))
        return self.add("linear", x, weight, bias, shape=(Size("n"), out), flatten=True)

    def graph(self, *outputs: str) -> Graph:
        return Graph("g", (self.x,), outputs or (self.nodes[-1].output.name,), tuple(self.nodes), dict(self.constants))


def run(graph: Graph, x: Any) -> Any:
    """The first output, by native steps as the graph stands."""
    return Program(layout.assign_layouts(fold.round_constants(graph)), Leaf(0), threads=1, algorithm="direct")(x)


def same(step: Callable[[Graph], Graph], graph: Graph, *sizes: int, tolerance: float = 1e-5) -> Graph:
    """Return what the pass makes of the graph, whose numbers it keeps; nothing is left for it to do."""
    after = fold.remove_dead(run_pass(Pass(step), graph))
    shape = [extent if isinstance(extent, int) else 7 for extent in graph.inputs[0].shape]
    for batch in (1, 3):
        x = np.random.default_rng(1).normal(size=(batch, *(sizes or shape[1:]))).astype(np.float32) * 3
        before, found = run(graph, x), run(after, x)
        assert before.shape == found.shape
        scale = np.sqrt(np.mean(np.square(before)))
        assert np.abs(before - found).max() <= tolerance * scale
    again = fold.remove_dead(run_pass(Pass(step), after))
    assert [node.name for node in again.nodes] == [node.name for node in after.nodes]
    return after


def names(graph: Graph) -> list[str]:
    return [node["activation"] if node.operator == "activation" else node.operator for node in graph.nodes]


# ---- chains ----------------------------------------------------------------------------------------------

CHAINS: list[tuple[Callable[[Builder], str], list[str]]] = [
    # hard sigmoid, as each framework writes it
    (lambda b: b.affine(b.affine("x", 1, 3, activation="relu6"), 1 / 6, 0), ["hard_sigmoid"]),
    (lambda b: b.affine(b.act(b.affine("x", 1, 3), "clip", (0.0, 6.0)), 1 / 6, 0), ["hard_sigmoid"]),
    (lambda b: b.act(b.affine("x", 1 / 6, 0.5), "clip", (0.0, 1.0)), ["hard_sigmoid"]),
    (lambda b: b.affine(b.act("x", "elu", 1.6732632423543772), 1.0507009873554805, 0), ["selu"]),
    (lambda b: b.affine(b.affine("x", 1 / 0.7, 0, activation="elu", slope=1.0), 0.7, 0), ["celu"]),
    # a cut-off between two scalings moves behind both
    (lambda b: b.affine(b.affine("x", 2, 1, activation="relu"), 3, -1), ["affine", "clip"]),
    (lambda b: b.affine(b.act("x", "relu"), -2, 1), ["affine", "clip"]),
    (lambda b: b.affine(b.act("x", "relu"), 0.5, 0), ["affine", "relu"]),
    (lambda b: b.affine(b.act("x", "leaky_relu", 0.1), 0.5, 0), ["affine", "leaky_relu"]),
    (lambda b: b.act(b.act("x", "relu"), "clip", (-1.0, 4.0)), ["clip"]),
    (lambda b: b.act(b.act("x", "clip", (-1.0, 1.0)), "clip", (2.0, 3.0)), ["clip"]),
    (lambda b: b.affine(b.affine("x", 2, 0), 3, 1), ["affine"]),
    (lambda b: b.act(b.affine(b.affine("x", 2, 0), 0.5, 0), "tanh"), ["tanh"]),
    # gates
    (lambda b: b.add("multiply", "x", b.act("x", "sigmoid")), ["silu"]),
    (lambda b: b.add("multiply", b.act("x", "hard_sigmoid"), "x"), ["hard_swish"]),
    (
        lambda b: b.affine(b.add("multiply", "x", b.act(b.affine("x", 1, 3), "relu6")), 1 / 6, 0),
        ["hard_swish"],
    ),
    (lambda b: b.add("multiply", "x", b.affine(b.affine("x", 1, 3, activation="relu6"), 1 / 6, 0)), ["hard_swish"]),
    (lambda b: b.add("multiply", "x", b.act(b.act("x", "softplus"), "tanh")), ["mish"]),
    (
        lambda b: b.affine(
            b.add("multiply", "x", b.affine(b.add("erf", b.affine("x", 1 / math.sqrt(2), 0)), 1, 1)), 0.5, 0
        ),
        ["gelu"],
    ),
    (
        lambda b: b.add(
            "multiply", b.affine("x", 0.5, 0), b.affine(b.add("erf", b.affine("x", math.sqrt(0.5), 0)), 1, 1)
        ),
        ["gelu"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("build", "expected"), CHAINS)
def test_chains_get_short(build: Callable[[Builder], str], expected: list[str]) -> None:
    builder = Builder()
    build(builder)
    assert names(same(simplify_chains, builder.graph(), CHANNELS, 5, 9)) == expected


def left(build: Callable[[Builder], str], *outputs: str) -> None:
    builder = Builder()
    build(builder)
    graph = builder.graph(*outputs)
    assert names(run_pass(Pass(simplify_chains), graph)) == names(graph)


def test_what_is_no_known_chain_stays() -> None:
    left(lambda b: b.act(b.affine("x", 0.2, 0.5), "clip", (0.0, 1.0)))
    left(lambda b: b.affine(b.act("x", "relu"), np.arange(1, 5), 0))  # a number for each channel
    left(lambda b: b.affine(b.act("x", "sigmoid"), 2, 0))
    left(lambda b: b.affine(b.act("x", "tanh"), 1, 1e-12))  # a shift that keeps quotients finite
    left(lambda b: b.act(b.affine("x", 1 / 6, 0.5), "clip", (1e-8, 1.0)))  # a bound that keeps logarithms finite
    left(lambda b: b.affine(b.act("x", "relu"), 2, 0), "v0", "v1")  # what lies between is a result
    left(lambda b: b.add("multiply", "x", b.act("x", "tanh")))
    left(lambda b: b.add("multiply", "x", b.act(b.affine("x", 2, 0), "sigmoid")))
    left(lambda b: b.add("multiply", "x", b.act("x", "sigmoid")), "v0", "v1")
    left(lambda b: b.add("multiply", b.affine("x", 1, 1), b.act("x", "sigmoid")))
    left(lambda b: b.add("multiply", "x", "x"))


def test_a_chain_that_does_nothing_vanishes() -> None:
    builder = Builder()
    builder.affine(builder.affine(builder.conv("x", 3, 1), 2, 1), 0.5, -0.5)
    graph = same(simplify_chains, builder.graph())
    assert names(graph) == ["convolution"] and graph.outputs == ("v0",)


def test_a_sum_with_a_negative_is_a_difference() -> None:
    for turned in (False, True):
        builder = Builder()
        terms = ("x", builder.affine(builder.act("x", "tanh"), -1, 0))
        builder.add("add", *(terms[::-1] if turned else terms), activation="relu")
        graph = same(fuse.fuse_difference, builder.graph())
        assert names(graph) == ["tanh", "subtract"]
    for scale, shift, outputs in ((-2, 0, ()), (-1, 1, ()), (-1, 0, ("v1", "v0"))):
        builder = Builder()
        builder.add("add", "x", builder.affine("x", scale, shift))
        assert names(run_pass(Pass(fuse.fuse_difference), builder.graph(*outputs))) == ["affine", "add"]


# ---- scalings before layers ------------------------------------------------------------------------------

SCALE, SHIFT = np.array([0.5, -2.0, 1.5, 3.0]), np.array([1.0, 0.0, -1.0, 2.0])


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("window", [{}, {"padding": ((-1, 0), (0, -1))}, {"stride": (2, 1), "dilation": (2, 2)}])
def test_a_scaling_moves_into_the_convolution_behind_it(groups: int, bias: bool, window: dict[str, Any]) -> None:
    builder = Builder()
    builder.conv(builder.affine("x", SCALE, SHIFT), 8, groups=groups, bias=bias, **window)
    graph = same(forward.fold_forward, builder.graph(), CHANNELS, 9, 10)
    assert names(graph) == ["convolution"] and graph.nodes[0].inputs[2]


def test_a_padded_convolution_takes_a_scaling_that_shifts_nothing() -> None:
    for shift, expected in ((0.0, ["convolution"]), (1.0, ["affine", "convolution"])):
        builder = Builder()
        builder.conv(builder.affine("x", SCALE, shift), 8, padding=((1, 1), (1, 1)))
        assert names(same(forward.fold_forward, builder.graph(), CHANNELS, 5, 6)) == expected


def test_a_scaling_moves_into_all_its_readers_or_none() -> None:
    for kind, expected in (("convolution", 2), ("activation", 3)):
        builder = Builder()
        scaled = builder.affine("x", 2.0, SHIFT)
        first = builder.conv(scaled, 3)
        second = builder.conv(scaled, 5) if kind == "convolution" else builder.act(scaled, "tanh")
        assert len(same(forward.fold_forward, builder.graph(first, second), CHANNELS, 6, 6).nodes) == expected


def test_a_transposed_convolution_and_a_linear_layer_take_a_scaling() -> None:
    builder = Builder()
    weight = builder.constant(GENERATOR.normal(size=(CHANNELS, 3, 2, 2)))
    window = {"stride": (2, 2), "padding": ((0, 0),) * 2, "output_padding": (0, 0), "dilation": (1, 1), "groups": 2}
    builder.add("transposed_convolution", builder.affine("x", SCALE, 0), weight, **window)
    assert names(same(forward.fold_forward, builder.graph(), CHANNELS, 5, 6)) == ["transposed_convolution"]
    for scale, shift in ((SCALE, SHIFT), (2.0, 1.0), (SCALE, 1.0)):
        builder = Builder()
        builder.dense(builder.affine("x", scale, shift), 5, CHANNELS * 6)
        assert names(same(forward.fold_forward, builder.graph(), CHANNELS, 2, 3)) == ["linear"]


def test_scalings_with_another_use_stay() -> None:
    builder = Builder()
    scaled = builder.affine("x", SCALE, 0)
    builder.conv(scaled, 3)
    assert len(run_pass(Pass(forward.fold_forward), builder.graph(scaled, "v1")).nodes) == 2
    builder = Builder()
    builder.conv(builder.affine("x", SCALE, 0, activation="relu"), 3)
    assert len(run_pass(Pass(forward.fold_forward), builder.graph()).nodes) == 2


# ---- two layers as one -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"out": 16}, {"kernel": 1}),
        ({"out": 16, "padding": ((1, 2), (0, 1)), "stride": (2, 1), "dilation": (1, 2)}, {"kernel": 1}),
        ({"out": 16}, {"kernel": 1, "stride": (2, 2)}),
        ({"out": 5}, {"kernel": 1, "stride": (3, 3)}),
        ({"out": 40, "kernel": 1}, {"kernel": 3, "stride": (2, 1)}),
        ({"out": 40, "kernel": 1, "bias": False}, {"kernel": 3, "padding": ((1, 1), (1, 1))}),
        ({"out": 40, "kernel": 1, "bias": False}, {"kernel": 1, "padding": ((1, 1), (1, 1))}),
        ({"out": 40, "kernel": 1, "padding": ((1, 0), (0, 0))}, {"kernel": 1}),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_two_convolutions_become_one(first: dict[str, Any], second: dict[str, Any], bias: bool) -> None:
    builder = Builder()
    builder.conv(builder.conv("x", **first), 6, bias=bias, **second)
    graph = same(compose.compose_linear, builder.graph(), CHANNELS, 11, 12, tolerance=1e-5)
    assert names(graph) == ["convolution"]


def test_two_linear_layers_become_one() -> None:
    builder = Builder((Size("n"), CHANNELS))
    builder.dense(builder.dense("x", 30, CHANNELS), 5, 30)
    assert names(same(compose.compose_linear, builder.graph())) == ["linear"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"out": 2}, {"kernel": 1}),  # the two are less work
        ({"out": 16}, {"kernel": 3}),
        ({"out": 40, "kernel": 1}, {"kernel": 3, "padding": ((1, 1), (1, 1))}),  # the bias does not reach the padding
        ({"out": 16, "groups": 2}, {"kernel": 1}),
        ({"out": 40, "kernel": 1, "stride": (2, 2)}, {"kernel": 3}),
        ({"out": 16, "activation": "relu"}, {"kernel": 1}),
    ],
)
def test_convolutions_that_would_not_gain_stay(first: dict[str, Any], second: dict[str, Any]) -> None:
    builder = Builder()
    builder.conv(builder.conv("x", **first), 6, **second)
    assert len(run_pass(Pass(compose.compose_linear), builder.graph()).nodes) == 2


def test_a_convolution_with_two_readers_stays() -> None:
    builder = Builder()
    middle = builder.conv("x", 16)
    builder.conv(middle, 6, kernel=1)
    assert len(run_pass(Pass(compose.compose_linear), builder.graph("v1", middle)).nodes) == 2


# ---- reshapings ------------------------------------------------------------------------------------------


def test_reshapings_become_one_or_none() -> None:
    n = Size("n")
    shapes: list[tuple[Any, ...]] = [(n, 24), (n, 4, 6), (n, 4, 1, 6), (n, 4, 2, 3)]
    for chosen in itertools.permutations(shapes, 2):
        builder = Builder((n, 4, 2, 3))
        source = builder.act("x", "relu")
        for shape in chosen:
            source = builder.add("reshape", source, shape=shape)
            builder.nodes[-1] = builder.nodes[-1].with_attributes(shape=shape)
        graph = same(reshape.simplify_reshapes, builder.graph(), 4, 2, 3)
        assert len(graph.nodes) == (1 if chosen[-1] == (n, 4, 2, 3) else 2)
        reshape.check_no_reshape_chain(graph)


def test_axes_of_size_1_come_and_go_as_views() -> None:
    n = Size("n")
    builder = Builder((n, 4, 1, 6))
    flat = builder.add("reshape", builder.act("x", "relu"), shape=(n, 24))
    builder.nodes[-1] = builder.nodes[-1].with_attributes(shape=(n, 24))
    builder.add("reshape", flat, shape=(n, 4, 6))
    builder.nodes[-1] = builder.nodes[-1].with_attributes(shape=(n, 4, 6))
    graph = builder.graph()
    with pytest.raises(GraphError, match="v2 reshapes what v1 has reshaped"):
        reshape.check_no_reshape_chain(graph)
    assert names(same(reshape.simplify_reshapes, graph, 4, 1, 6)) == ["relu", "reshape"]


# ---- orders of channels ----------------------------------------------------------------------------------


def test_picked_channels_are_picked_among_the_weights() -> None:
    for index, bias in (([3, 1, 0, 2, 5, 4], True), ([5, 0], False), ([1, 1, 2], True)):
        builder = Builder()
        source = builder.act(builder.conv("x", 6, bias=bias), "none")
        builder.nodes.pop()  # a convolution whose activation is its own
        builder.nodes[-1] = builder.nodes[-1].with_attributes(activation="tanh")
        shape = (Size("n"), len(index), Size("h"), Size("w"))
        builder.add("gather_channels", "v0", builder.constant(np.array(index)), shape=shape)
        assert source == "v1"
        assert names(same(permutation.fold_permutations, builder.graph(), CHANNELS, 6, 7)) == ["convolution"]


def test_channels_that_cannot_be_picked_before_stay() -> None:
    cases: list[tuple[dict[str, Any], list[int], tuple[str, ...]]] = [
        ({"groups": 2}, [1, 0], ()),
        ({}, [0, 1, 2, 3, 4, 5, 0], ()),  # more channels than the convolution makes
        ({}, [1, 0], ("v1", "v0")),
    ]
    for options, index, outputs in cases:
        builder = Builder()
        shape = (Size("n"), len(index), Size("h"), Size("w"))
        builder.add("gather_channels", builder.conv("x", 6, **options), builder.constant(np.array(index)), shape=shape)
        assert len(run_pass(Pass(permutation.fold_permutations), builder.graph(*outputs)).nodes) == 2


def test_a_pixel_shuffle_behind_a_convolution_costs_its_copies_alone() -> None:
    n, h, w = Size("n"), Size("h"), Size("w")
    builder = Builder()
    shuffled = builder.add("depth_to_space", builder.conv("x", 12, kernel=1), shape=(n, 3, 2 * h, 2 * w), block=2,
                           channels_outside=True)  # fmt: skip
    graph = builder.graph(shuffled)
    with pytest.raises(GraphError, match="v1 moves single channels"):
        permutation.check_no_outside(graph)
    with pytest.raises(UnsupportedError, match="depth_to_space has no native step"):
        run(graph, np.zeros((1, CHANNELS, 4, 5), np.float32))
    optimised = optimise(graph)
    assert [node.operator for node in optimised.nodes][1:3] == ["convolution", "depth_to_space"]
    x = np.random.default_rng(0).normal(size=(2, CHANNELS, 4, 5)).astype(np.float32)
    weight, bias = graph.constants["c0"][:, :, 0, 0], graph.constants["c1"]
    wanted = depth_to_space(np.einsum("oc,nchw->nohw", weight, x) + bias[:, None, None], 2, True)
    found = Program(optimised, Leaf(0), threads=1)(x)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_pixel_shuffle_of_channels_that_a_reader_could_not_count_runs_in_numpy() -> None:
    builder = Builder((Size("n"), Size("4 * (w // w)"), Size("h"), Size("w")))
    builder.add("depth_to_space", "x", block=2, channels_outside=True)
    assert names(run_pass(Pass(permutation.order_blocks), builder.graph())) == ["depth_to_space"]
