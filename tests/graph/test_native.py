"""Operators on arrays that native steps compute: the same numbers as NumPy, and the step that was meant."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from convoxel.graph.ir.graph import Graph, Node, Value
from convoxel.graph.ir.pytree import Leaf
from convoxel.graph.ir.size import Size
from convoxel.graph.operators.rewriter import Rewriter
from convoxel.graph.operators.table import OPERATORS, infer_shapes, make_node
from convoxel.graph.passes import Pass, native, optimise, run_pass
from convoxel.graph.passes.constant import fold_constants
from convoxel.graph.passes.native import use_native
from convoxel.graph.run.program import Program

pytestmark = pytest.mark.smoke

CHANNELS = 4
SPACE = {0: (), 1: (6,), 2: (5, 6), 3: (4, 5, 6)}
NAMES = {0: "n", 1: "nw", 2: "nhw", 3: "ndhw"}


def open_shape(dims: int) -> tuple[Any, ...]:
    batch, *space = (Size(name) for name in NAMES[dims])
    return (batch, CHANNELS, *space)


def single(operator: str, dims: int, constants: dict[str, Any], first: bool, **attributes: Any) -> Graph:
    """A graph of relu(x) − ½, which is a native step, then the operator on it and on the constants."""
    x, y = Value("x", open_shape(dims)), Value("y", open_shape(dims))
    begin = make_node("affine", "y", ("x", "one", "half"), (y,), activation="none")
    names = ("y", *constants) if first else (*constants, "y")
    sizes = dict(zip(NAMES[dims], (2, *SPACE[dims]), strict=True))
    arrays = {"one": np.ones(1), "half": np.full(1, -0.5), **{k: np.asarray(v) for k, v in constants.items()}}
    probe = make_node(operator, "z", names, (Value("z", ()),), **attributes)
    shapes: list[Any] = [(2, CHANNELS, *SPACE[dims]) if n == "y" else arrays[n].shape if n else None for n in names]
    shape = OPERATORS[operator].shape(probe.resolved(sizes), shapes)[0]
    back = dict(zip((2, *SPACE[dims]), open_shape(dims)[:1] + open_shape(dims)[2:], strict=True))
    node = Node(operator, "z", probe.inputs, (Value("z", tuple(back.get(s, s) for s in shape)),), probe.attributes)
    return Graph("g", (x,), ("z",), (begin, node), arrays)


def truth(graph: Graph, x: Any) -> Any:
    """Return the result of the last node, computed by NumPy."""
    node = graph.nodes[-1]
    values = {**graph.constants, "y": x - np.float32(0.5)}
    host = OPERATORS[node.operator].host
    assert host is not None
    sizes = {"n": x.shape[0], **dict(zip("dhw"[5 - x.ndim :], x.shape[2:], strict=True))}
    return host(node.resolved(sizes), [values[name] if name else None for name in node.inputs], {})[0]


def compare(graph: Graph, *expected: str) -> None:
    """The optimised graph has these operators, else only native ones, and gives NumPy's numbers for two batches."""
    optimised = optimise(graph)
    found = {node.operator if node.native else f"host {node.operator}" for node in optimised.nodes}
    assert not {name for name in found if name.startswith("host ")} - {*expected}, found
    assert {*expected} <= found, found
    program = Program(optimised, Leaf(0), threads=1)
    dims = len(graph.inputs[0].shape) - 2
    generator = np.random.default_rng(3)
    for batch in (2, 3):
        x = (2 * generator.normal(size=(batch, CHANNELS, *SPACE[dims]))).astype(np.float32)
        wanted = truth(graph, x)
        actual = program(x)
        assert actual.shape == wanted.shape and actual.dtype == np.float32
        np.testing.assert_allclose(actual, wanted, rtol=2e-5, atol=3e-6)


ACTIVATIONS: list[tuple[str, dict[str, Any], str]] = [
    ("relu", {}, "relu"),
    ("sigmoid", {}, "sigmoid"),
    ("tanh", {}, "tanh"),
    ("hard_swish", {}, "hard_swish"),
    ("leaky_relu", {"slope": 0.3}, "leaky_relu"),
    ("elu", {"alpha": 0.7}, "elu"),
    ("mish", {}, "mish"),
    ("softplus", {}, "softplus"),
    ("thresholded_relu", {"alpha": 0.5, "value": 0.5}, "clip"),
    ("celu", {"alpha": 0.7}, "celu"),
    ("selu", {}, "selu"),
    ("gelu", {"approximate": "none"}, "gelu"),
    ("gelu", {"approximate": "tanh"}, "gelu_tanh"),
    ("swish", {"alpha": 1.0}, "silu"),
    ("hard_sigmoid", {"alpha": 1 / 6}, "hard_sigmoid"),
    ("hard_sigmoid", {"alpha": 0.2}, "clip"),
    ("abs", {}, "leaky_relu"),
    ("negate", {}, "none"),
]


@pytest.mark.parametrize(("name", "attributes", "activation"), ACTIVATIONS)
@pytest.mark.parametrize("dims", [0, 1, 2, 3])
def test_activations(name: str, attributes: dict[str, Any], activation: str, dims: int) -> None:
    graph = single(f"{name}", dims, {}, True, **attributes)
    compare(graph, "affine")
    (node,) = (node for node in optimise(graph).nodes if node.operator == "affine")
    assert node["activation"] == activation  # in the step before it


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 6, "relu6"), (0, None, "relu"), (-0.5, 0.75, "clip"), (None, 0.5, "clip"), (0.25, None, "clip")],
)
def test_clip(low: float | None, high: float | None, expected: str) -> None:
    bounds = {"low": low, "high": high}
    known = {name: np.array(bound, np.float32) for name, bound in bounds.items() if bound is not None}
    graph = single("clip", 2, {}, True)
    operands = ("y", *(name if name in known else "" for name in bounds))
    clip = dataclasses.replace(graph.nodes[1], inputs=operands)
    graph = graph.replace(nodes=(graph.nodes[0], clip), constants={**graph.constants, **known})
    compare(graph, "affine")
    assert optimise(graph).nodes[1]["activation"] == expected


PER_CHANNEL = np.array([0.5, -2.0, 1.5, 3.0], np.float32).reshape(CHANNELS, 1, 1)
COMBINATIONS: list[tuple[str, Any, bool, str]] = [
    ("add", PER_CHANNEL, True, "affine"),
    ("subtract", PER_CHANNEL, True, "affine"),
    ("subtract", PER_CHANNEL, False, "affine"),
    ("multiply", np.float32(2.5), False, "affine"),
    ("divide", PER_CHANNEL, True, "affine"),
    ("divide", PER_CHANNEL, False, "divide"),
    ("divide", np.zeros((), np.float32) + 3, True, "affine"),
    ("maximum", np.float32(0.25), True, "affine"),
    ("minimum", np.full((1, 1, 1, 1), 0.25, np.float32), False, "affine"),
    ("maximum", PER_CHANNEL, True, "maximum"),
    ("minimum", PER_CHANNEL[None], False, "minimum"),
    ("add", np.arange(6, dtype=np.float32), True, "add"),
    ("multiply", np.arange(30, dtype=np.float32).reshape(1, 1, 5, 6), False, "multiply"),
]


@pytest.mark.parametrize(("operator", "constant", "first", "expected"), COMBINATIONS)
def test_combinations_with_constants(operator: str, constant: Any, first: bool, expected: str) -> None:
    with np.errstate(divide="ignore"):
        compare(single(f"{operator}", 2, {"c": constant}, first), expected)


def test_combinations_of_tensors_that_stretch_each_other() -> None:
    """(n, 4, 1, w) with (n, 1, h, 1): neither has the shape of the result."""
    x = Value("x", open_shape(2))
    n, c, h, w = x.shape
    rows = make_node(
        "reduce", "rows", ("x",), (Value("rows", (n, c, 1, w)),), native=True, function="max", axes=(2,), keep=True
    )
    columns = make_node(
        "reduce",
        "columns",
        ("x",),
        (Value("columns", (n, 1, h, 1)),),
        native=True,
        function="mean",
        axes=(1, 3),
        keep=True,
    )
    for operator, function in (("subtract", np.subtract), ("divide", np.divide), ("maximum", np.maximum)):
        node = make_node(f"{operator}", "z", ("rows", "columns"), (Value("z", x.shape),))
        graph = optimise(Graph("g", (x,), ("z",), (rows, columns, node)))
        assert operator in {node.operator for node in graph.nodes}
        array = np.random.default_rng(0).normal(size=(2, CHANNELS, 5, 6)).astype(np.float32)
        wanted = function(array.max(2, keepdims=True), array.mean((1, 3), keepdims=True))
        np.testing.assert_allclose(Program(graph, Leaf(0), threads=1)(array), wanted, rtol=1e-5)


@pytest.mark.parametrize("function", ["mean", "max", "min", "sum", "sum_square"])
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("axes", [(1,), (2,), (3,), (2, 3), (1, 2, 3), (1, 3)])
def test_reductions(function: str, keep: bool, axes: tuple[int, ...]) -> None:
    graph = single("reduce", 2, {}, True, function=function, axes=axes, keep=keep)
    # Without the axis, (n, c, h, w) is (n, c, 1, w) seen with three axes only where the first spatial axes go.
    kind = {(2,): "reshape", (2, 3): "reshape", (1, 3): "swap_channels_space"}.get(axes, "host reshape")
    compare(graph, "reduce", *(() if keep else (kind,)))


def test_a_reduction_of_the_batch_stays() -> None:
    compare(single("reduce", 2, {}, True, function="sum", axes=(0, 2), keep=True), "host reduce")


@pytest.mark.parametrize("dims", [0, 1, 2, 3])
@pytest.mark.parametrize("log", [True, False])
def test_softmax_over_channels(dims: int, log: bool) -> None:
    compare(single("softmax", dims, {}, True, axes=(1,), log=log), "softmax")


def test_softmax_over_another_axis_stays() -> None:
    compare(single("softmax", 2, {}, True, axes=(3,), log=False), "host softmax")


@pytest.mark.parametrize(("size", "expected"), [(3, "local_response_norm"), (2, "host local_response_norm")])
def test_local_response_norm(size: int, expected: str) -> None:
    compare(single("local_response_norm", 2, {}, True, size=size, alpha=0.5, beta=0.75, bias=1.0), expected)


@pytest.mark.parametrize("dims", [0, 2])
def test_layer_norm_over_everything(dims: int) -> None:
    generator = np.random.default_rng(0)
    shape = (CHANNELS, *SPACE[dims])
    weights = {name: generator.normal(size=shape).astype(np.float32) for name in ("weight", "bias")}
    expected = "channel_norm" if dims == 0 else "normalise"
    compare(single("layer_norm", dims, weights, True, axis=1, epsilon=1e-5), expected)
    if dims:
        compare(single("layer_norm", dims, {}, True, axis=1, epsilon=1e-5), "normalise")
        compare(single("layer_norm", dims, {}, True, axis=2, epsilon=1e-5), "host layer_norm")


@pytest.mark.parametrize("slope", [np.array([0.1, -0.2, 0.3, 1.5]).reshape(CHANNELS, 1, 1), np.array([0.25])])
def test_prelu(slope: Any) -> None:
    expected = "prelu" if slope.size > 1 else "affine"
    compare(single("prelu", 2, {"slope": slope.astype(np.float32)}, True), expected)


SLICES: list[tuple[tuple[Any, ...], tuple[Any, ...], tuple[int, ...], str]] = [
    ((0, 1, 0, 0), (None, 3, None, None), (1, 1, 1, 1), "slice"),
    ((0, 0, 1, 0), (None, None, -1, None), (1, 1, 1, 2), "slice"),
    ((0, 0, 0, 0), (None, None, None, None), (1, 2, 1, 1), "gather_channels"),
    ((0, -1, 1, 0), (None, None, None, None), (1, -1, 1, 1), "gather_channels"),
    ((0, 0, -1, 0), (None, None, None, None), (1, 1, -1, 1), "host slice"),
]


@pytest.mark.parametrize(("starts", "stops", "steps", "expected"), SLICES)
def test_slices(starts: Any, stops: Any, steps: Any, expected: str) -> None:
    compare(single("slice", 2, {}, True, starts=starts, stops=stops, steps=steps), expected)


@pytest.mark.parametrize(
    ("index", "axis", "expected"), [([2, 0, -1], 1, "gather_channels"), ([2, 0], 3, "host gather")]
)
def test_gather(index: list[int], axis: int, expected: str) -> None:
    compare(single("gather", 2, {"index": np.array(index)}, True, axis=axis), expected)


@pytest.mark.parametrize("mode", ["constant", "replicate", "reflect", "circular"])
def test_pad(mode: str) -> None:
    padding = ((0, 0), (0, 0), (1, 2), (0, 3))
    compare(single("pad", 2, {}, True, padding=padding, mode=mode), "pad")


TWO = {"value": np.array(2.0, np.float32)}


@pytest.mark.parametrize(
    ("dims", "constants", "padding"),
    [
        (0, {}, ((0, 0), (1, 9))),  # nine: more than x has
        (1, TWO, ((0, 0), (3, 0), (0, 0))),
        (2, {}, ((0, 0), (0, 2), (1, 0), (0, 1))),
    ],
)
def test_a_padding_of_channels_is_a_concatenation(dims: int, constants: dict[str, Any], padding: Any) -> None:
    compare(single("pad", dims, constants, True, padding=padding), "zeros", "concat")


def test_padded_channels_are_numbers_whatever_the_others_are() -> None:
    program = Program(optimise(single("pad", 0, {}, True, padding=((0, 0), (1, 0)))), Leaf(0), threads=1)
    found = program(np.full((1, CHANNELS), np.nan, np.float32))
    np.testing.assert_array_equal(found, [[0.0, *[np.nan] * CHANNELS]])


def test_a_padding_of_positions_with_other_numbers_stays() -> None:
    for padding in (((0, 0), (0, 0), (1, 0), (0, 0)), ((0, 0), (1, 0), (1, 0), (0, 0))):
        compare(single("pad", 2, TWO, True, padding=padding), "host pad")


@pytest.mark.parametrize("dims", [0, 1, 2, 3])
def test_tile(dims: int) -> None:
    repeats = (2, 3, 1, 2, 2)[: dims + 2]
    compare(single("tile", dims, {}, True, repeats=repeats), "tile")


def test_many_repetitions_stay() -> None:
    compare(single("tile", 0, {}, True, repeats=(1, 65)), "host tile")


@pytest.mark.parametrize("constants", [{}, {"weight": np.array([0.5, -1, 2, 3], np.float32)}])
def test_rms_norm(constants: dict[str, Any]) -> None:
    compare(single("rms_norm", 0, constants, True, axis=1, epsilon=1e-5), "channel_norm")
    compare(single("rms_norm", 2, {}, True, axis=1, epsilon=1e-5), "host rms_norm")


@pytest.mark.parametrize("outside", [True, False])
@pytest.mark.parametrize("dims", [1, 2])
def test_pixel_shuffles(dims: int, outside: bool) -> None:
    """There and back; the order that PyTorch uses is made by picking channels."""
    picked = ("gather_channels",) if outside else ()
    graph = single("depth_to_space", dims, {}, True, block=2, channels_outside=outside)
    compare(graph, "depth_to_space", *picked)
    space = {1: (6,), 2: (4, 6)}[dims]
    n, _, *rest = open_shape(dims)
    for block in (1, 2):
        x, y = Value("x", open_shape(dims)), Value("y", open_shape(dims))
        deep: Any = (n, CHANNELS * block**dims, *(extent // block for extent in rest))
        nodes = (
            make_node("affine", "y", ("x", "one", "half"), (y,)),
            make_node("space_to_depth", "z", ("y",), (Value("z", deep),), block=block, channels_outside=outside),
        )
        g = Graph("g", (x,), ("z",), nodes, {"one": np.ones(1), "half": np.full(1, -0.5)})
        optimised = optimise(g)
        assert "space_to_depth" in {node.operator for node in optimised.nodes}
        array = np.random.default_rng(0).normal(size=(2, CHANNELS, *space)).astype(np.float32)
        np.testing.assert_array_equal(Program(optimised, Leaf(0), threads=1)(array), truth(g, array))


def test_others() -> None:
    generator = np.random.default_rng(0)
    compare(single("power", 2, {"p": np.array(2, np.float32)}, True), "multiply")
    compare(single("power", 2, {"p": np.array(3, np.float32)}, True), "host power")
    compare(single("matmul", 0, {"w": generator.normal(size=(CHANNELS, 7)).astype(np.float32)}, True), "linear")
    with np.errstate(divide="ignore"):
        compare(single("reciprocal", 2, {}, True), "divide")


def test_a_steeper_softplus() -> None:
    compare(single("softplus", 2, {}, True, beta=2.0, threshold=20.0), "affine")


def test_functions_with_a_jump_stay() -> None:
    compare(single("softplus", 2, {}, True, beta=1.0, threshold=2.0), "host softplus")
    compare(single("thresholded_relu", 2, {}, True, alpha=0.5, value=0.0), "host thresholded_relu")


def test_concatenation() -> None:
    x, y = Value("x", open_shape(2)), Value("y", open_shape(2))
    n, _, h, w = x.shape
    relu = make_node("relu", "y", ("x",), (y,))
    joined = make_node("concat", "z", ("y", "x"), (Value("z", (n, 2 * CHANNELS, h, w)),), axis=1)
    graph = optimise(Graph("g", (x,), ("z",), (relu, joined)))
    assert "concat" in {node.operator for node in graph.nodes}
    array = np.random.default_rng(0).normal(size=(2, CHANNELS, 5, 6)).astype(np.float32)
    wanted = np.concatenate([np.maximum(array, 0), array], 1)
    np.testing.assert_array_equal(Program(graph, Leaf(0), threads=1)(array), wanted)


def test_arrays_of_other_types_and_ranks_stay() -> None:
    for value in (Value("x", (Size("n"),)), Value("x", (Size("n"), 3), "int64"), Value("x", (Size("n"), 0))):
        node = make_node("abs", "z", ("x",), (Value("z", value.shape, value.dtype),))
        graph = run_pass(Pass(use_native), Graph("g", (value,), ("z",), (node,)))
        assert [(n.operator, n.native) for n in graph.nodes] == [("abs", False)]


def test_constants_are_computed_once() -> None:
    x = Value("x", open_shape(1))
    twice = make_node("add", "b", ("a", "a"), (Value("b", (CHANNELS, 1)),))
    root = make_node("sqrt", "c", ("b",), (Value("c", (CHANNELS, 1)),))
    node = make_node("multiply", "z", ("x", "c"), (Value("z", x.shape),))
    graph = Graph("g", (x,), ("z",), (twice, root, node), {"a": np.full((CHANNELS, 1), 2, np.float32)})
    folded = run_pass(Pass(fold_constants), graph)
    assert [n.name for n in folded.nodes] == ["z"]
    np.testing.assert_array_equal(folded.constants["c"], np.full((CHANNELS, 1), 2, np.float32))
    assert infer_shapes(optimise(graph), {"n": 2, "w": 5})["z"] == (2, CHANNELS, 5)


def test_constants_that_would_be_huge_or_depend_on_sizes_are_not() -> None:
    x = Value("x", open_shape(1))
    huge = make_node("tile", "b", ("a",), (Value("b", (1 << 25, 1)),), repeats=(1 << 25, 1))
    open_size = make_node("expand", "c", ("a",), (Value("c", (Size("n"), 1)),), shape=(Size("n"), 1))
    graph = Graph("g", (x,), ("b", "c"), (huge, open_size), {"a": np.ones((1, 1), np.float32)})
    assert len(run_pass(Pass(fold_constants), graph).nodes) == 2


def test_long_chains_of_movements_take_few_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The step behind the last movement is native, so the chain is settled from its end."""
    looked_at, count = [], 40
    values = [Value(f"v{i}", (1, 2, 8 + i, 8)) for i in range(count + 1)]
    padding = ((0, 0), (0, 0), (1, 0), (0, 0))
    nodes = [
        make_node("pad", f"p{i}", (values[i].name,), (values[i + 1],), padding=padding, mode="replicate")
        for i in range(count)
    ]
    nodes.append(make_node("relu", "r", (values[-1].name,), (Value("y", values[-1].shape),)))
    inner = native._chosen

    def chosen(site: Rewriter) -> list[Node]:
        looked_at.append(site.node.name)
        return inner(site)

    monkeypatch.setattr(native, "_chosen", chosen)
    graph = run_pass(Pass(use_native), Graph("g", (values[0],), ("y",), tuple(nodes)))
    assert all(node.native for node in graph.nodes) and len(looked_at) <= 8 * count
