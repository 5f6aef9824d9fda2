"""The graph as text, what makes it ill-formed, and every pass before and after."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convoxel.arithmetic import Window
from convoxel.errors import GraphError, ShapeError
from convoxel.graph.ir.graph import Graph, Node, Value
from convoxel.graph.ir.size import Size
from convoxel.graph.operators.reads import Along, Applied
from convoxel.graph.operators.step import PackedWeights
from convoxel.graph.operators.table import OPERATORS, infer_shapes, make_node, verify
from convoxel.graph.passes import PASSES, Pass, block, fold, fuse, layout, optimise, run_pass
from convoxel.graph.read.torch import read
from convoxel.graph.run.execution import plan_execution

pytestmark = pytest.mark.smoke

CONVOLUTION = {"stride": (1,), "padding": ((1, 1),), "dilation": (1,)}

native_node = partial(make_node, native=True)


def value(name: str, channels: int = 2) -> Value:
    return Value(name, (Size("n"), channels, Size("w")))


def convolution(name: str, source: str, weight: str = "w", bias: str = "", **more: Any) -> Node:
    return native_node("convolution", name, (source, weight, bias), (value(name),), **CONVOLUTION, **more)


def graph(*nodes: Node, outputs: tuple[str, ...] = (), **constants: Any) -> Graph:
    arrays = {"w": np.ones((2, 2, 3), np.float32), **{k: np.asarray(v) for k, v in constants.items()}}
    return Graph("g", (value("x"),), outputs or (nodes[-1].outputs[0].name,), nodes, arrays)


def activation(name: str, source: str, function: str = "relu") -> Node:
    return native_node("activation", name, (source,), (value(name),), activation=function)


def batch_norm(name: str, source: str) -> Node:
    return native_node("batch_norm", name, (source, "scale", "", "mean", "var"), (value(name),), epsilon=0.0)


STATISTICS = {"scale": [2.0, 4.0], "mean": [1.0, 0.0], "var": [4.0, 1.0]}


# ---- text and verification -------------------------------------------------------------------------------


def test_text() -> None:
    g = graph(convolution("c", "x", bias="b", activation="relu"), activation("a", "c", "sigmoid"), b=[1.0, 2.0])
    assert str(g.replace(guards=(Size("w % 2 == 0"),))) == (
        "graph g(x: float32[n, 2, w])\n"
        "  c: float32[n, 2, w] = convolution(x, w[2, 2, 3], b[2], "
        "stride=(1,), padding=((1, 1),), dilation=(1,), groups=1, activation=relu)\n"
        "  a: float32[n, 2, w] = activation(c, activation=sigmoid)\n"
        "  return a\n"
        "  where w % 2 == 0"
    )


C = convolution("c", "x")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (graph(convolution("c", "y")), r"node c reads 'y', which nothing before it defines"),
        (graph(activation("a", "c"), C), r"node a reads 'c', which nothing before it defines"),
        (graph(C, convolution("c", "x")), r"two nodes are named 'c'"),
        (graph(dataclasses.replace(C, outputs=(value("x"),))), r"node c defines 'x' a second time"),
        (graph(C, outputs=("z",)), r"output 'z' is defined by no node"),
        (graph(dataclasses.replace(C, operator="conv")), r"node c: there is no operator 'conv'"),
        (graph(C.with_attributes(speed=1)), r"node c: convolution lacks or does not know speed"),
        (graph(native_node("activation", "a", ("x",), (value("a"),))), r"node a: activation needs activation"),
        (graph(dataclasses.replace(C, inputs=("x", "w"))), r"node c: 2 operands, not 5"),
        (graph(convolution("c", "x", weight="x")), r"node c: operand weight \(x\) must be a constant"),
        (graph(convolution("c", "")), r"node c: convolution needs its operand x"),
        (graph(C).replace(guards=(Size("h > 1"),)), r"condition h > 1 speaks of sizes other than the inputs'"),
        (graph(C).replace(constants={"w": [1.0]}), r"constant w is a list, not an array"),
        (graph(dataclasses.replace(C, outputs=(value(""),))), r"node c has no name"),
    ],
)
def test_ill_formed_graphs_are_refused(broken: Graph, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        verify(broken)


def test_every_row_is_complete() -> None:
    for row in OPERATORS.values():
        converts = row.name in ("channels_last", "channels_first")
        assert converts == (row.lower is row.alias is row.host is None), row.name
        assert row.lower is None or row.alias is None, row.name
        assert row.name == row.name.lower()


def test_windows_and_costs() -> None:
    row, shapes = OPERATORS["convolution"], [(1, 2, 8), (2, 2, 3), None, None]
    assert row.reads(Applied(C, shapes, [(1, 2, 8)])) == Along({2: Window(3, 1, 1, 1)})
    assert row.macs(C, shapes, [(1, 2, 8)]) == 8 * 2 * 2 * 3
    pool = native_node(
        "max_pool", "p", ("x",), (value("p"),), kernel=(2,), stride=(2,), padding=((0, 0),), dilation=(1,)
    )
    assert OPERATORS["max_pool"].reads(Applied(pool, [(1, 2, 8)], [(1, 2, 4)])) == Along({2: Window(2, 2)})
    assert OPERATORS["max_pool"].macs(pool, shapes, [(1, 2, 4)]) == 0


def test_constants_are_rounded_once_at_the_end() -> None:
    g = optimise(graph(C, batch_norm("bn", "c"), **{**STATISTICS, "scale": [1 / 3, 1.0]}))
    weight = g.constants["w'"]
    assert weight.dtype == np.float32 and weight[0, 0, 0] == np.float32(1 / 3 / 2)


def test_shapes_name_the_node_that_does_not_fit() -> None:
    g = graph(C, native_node("add", "sum", ("c", "x"), (value("sum"),)))
    assert infer_shapes(g, {"n": 3, "w": 5})["sum"] == (3, 2, 5)
    wrong = graph(convolution("c", "x", weight="v"), v=np.ones((2, 3, 3), np.float32))
    with pytest.raises(ShapeError, match=r"convolution c: x \(1, 2, 5\) has 2 channels but the weights expect 3"):
        infer_shapes(wrong, {"n": 1, "w": 5})


def test_a_pass_that_breaks_its_promise_is_caught() -> None:
    g = graph(C, activation("a", "c"))

    def forget(graph: Graph) -> Graph:
        return graph.replace(nodes=graph.nodes[1:])

    def swap(graph: Graph) -> Graph:
        return graph.replace(inputs=(value("x", 3),))

    with pytest.raises(GraphError, match=r"after forget: node a reads 'c'"):
        run_pass(Pass(forget), g)
    with pytest.raises(GraphError, match=r"after swap: the inputs changed"):
        run_pass(Pass(swap), g)
    with pytest.raises(
        GraphError, match=r"after remove_dead: node bn is still|after <lambda>: bn is still a batch_norm"
    ):
        run_pass(Pass(lambda g: g, fold.check_no_batch_norm), graph(batch_norm("bn", "x"), **STATISTICS))


def test_passes_are_idempotent() -> None:
    g = graph(C, batch_norm("bn", "c"), activation("a", "bn"), **STATISTICS)
    for step in PASSES[:-1]:
        g = run_pass(step, g)
        assert str(run_pass(step, g)) == str(g), step.name


# ---- folding ---------------------------------------------------------------------------------------------


def test_remove_dead() -> None:
    g = graph(C, activation("unused", "c"), activation("a", "x"), outputs=("a",), spare=[1.0])
    pruned = run_pass(Pass(fold.remove_dead, fold.check_no_dead), g)
    assert [node.name for node in pruned.nodes] == ["a"] and not pruned.constants
    for left in (g, g.replace(nodes=(g.nodes[2],))):
        with pytest.raises(GraphError, match="nothing reads"):
            fold.check_no_dead(left)


def test_fold_batch_norm_is_exact() -> None:
    """s = scale/sqrt(var) = (1, 4), t = -mean s = (-1, 0)."""
    g = graph(convolution("c", "x", bias="b"), batch_norm("bn", "c"), b=[1.0, 2.0], **STATISTICS)
    folded = run_pass(Pass(fold.fold_batch_norm), g)
    assert [line.split(" = ")[0].strip() for line in str(folded).splitlines()[1:]] == [
        "c: float32[n, 2, w]",
        "return c",
    ]
    (node,) = folded.nodes
    weight, bias = folded.constants[node.inputs[1]], folded.constants[node.inputs[2]]
    assert weight.dtype == np.float64
    np.testing.assert_array_equal(weight, np.ones((2, 2, 3)) * np.array([1, 4]).reshape(2, 1, 1))
    np.testing.assert_array_equal(bias, [1 * 1 - 1, 2 * 4 + 0])
    assert g.constants["w"].max() == 1  # the original is untouched


@pytest.mark.parametrize(
    "nodes",
    [
        (batch_norm("bn", "x"),),
        (C, activation("a", "c"), batch_norm("bn", "a")),
        (C, batch_norm("bn", "c"), native_node("add", "sum", ("bn", "c"), (value("sum"),))),
    ],
)
def test_a_batch_norm_that_cannot_be_folded_becomes_affine(nodes: tuple[Node, ...]) -> None:
    folded = run_pass(Pass(fold.fold_batch_norm, fold.check_no_batch_norm), graph(*nodes, **STATISTICS))
    (affine,) = (node for node in folded.nodes if node.operator == "affine")
    np.testing.assert_array_equal(folded.constants[affine.inputs[1]], [1.0, 4.0])
    np.testing.assert_array_equal(folded.constants[affine.inputs[2]], [-1.0, 0.0])


def test_two_scalings_fold_into_one_convolution() -> None:
    scale = native_node("affine", "s", ("bn", "double", "one"), (value("s"),))
    g = graph(C, batch_norm("bn", "c"), scale, double=[2.0], one=[1.0], **STATISTICS)
    folded = run_pass(Pass(fold.fold_batch_norm), g)
    (node,) = folded.nodes
    np.testing.assert_array_equal(folded.constants[node.inputs[1]][:, 0, 0], [2.0, 8.0])
    np.testing.assert_array_equal(folded.constants[node.inputs[2]], [-1.0, 1.0])
    assert folded.outputs == ("c",)


def test_shared_weights_are_folded_apart() -> None:
    """Two convolutions with one weight and different normalisations."""
    g = graph(C, convolution("d", "c"), batch_norm("bn", "d"), outputs=("c", "bn"), **STATISTICS)
    folded = run_pass(Pass(fold.fold_batch_norm), g)
    assert folded.nodes[0].inputs[1] == "w" and folded.nodes[1].inputs[1] == "w'"


def test_fold_padding() -> None:
    pad = native_node(
        "pad", "p", ("x",), (Value("p", (Size("n"), 2, Size("w + 3"))),), padding=((0, 0), (0, 0), (1, 2))
    )
    folded = run_pass(Pass(fold.fold_padding), graph(pad, convolution("c", "p")))
    (node,) = folded.nodes
    assert node.inputs[0] == "x" and node["padding"] == ((2, 3),)
    for kept in (pad.with_attributes(mode="reflect"), pad.with_attributes(padding=((-1, 2),))):
        assert len(run_pass(Pass(fold.fold_padding), graph(kept, convolution("c", "p"))).nodes) == 2


# ---- fusing ----------------------------------------------------------------------------------------------


def test_fuse_activation() -> None:
    fused = run_pass(Pass(fuse.fuse_activation), graph(C, activation("a", "c"), activation("b", "a", "sigmoid")))
    assert [(n.name, n.operator, n["activation"]) for n in fused.nodes] == [
        ("c", "convolution", "relu"),
        ("b", "activation", "sigmoid"),
    ]
    assert fused.nodes[0].output.name == "a"


def test_an_activation_with_a_second_reader_before_it_stays() -> None:
    g = graph(C, activation("a", "c"), outputs=("a", "c"))
    assert run_pass(Pass(fuse.fuse_activation), g).nodes == g.nodes


def add(name: str, a: str, b: str) -> Node:
    return native_node("add", name, (a, b), (value(name),))


def test_fuse_residual() -> None:
    fused = run_pass(
        Pass(fuse.fuse_residual), graph(C, convolution("d", "c"), add("sum", "d", "x"), activation("a", "sum"))
    )
    assert [(node.name, node.inputs[3], node.output.name) for node in fused.nodes[:2]] == [
        ("c", "", "c"),
        ("d", "x", "sum"),
    ]
    fused = run_pass(Pass(fuse.fuse_activation), fused)
    assert [node["activation"] for node in fused.nodes] == ["none", "relu"]


def test_of_two_convolutions_the_later_takes_the_other() -> None:
    for terms in (("c", "d"), ("d", "c")):
        fused = run_pass(Pass(fuse.fuse_residual), graph(C, convolution("d", "x"), add("sum", *terms)))
        assert [(node.name, node.inputs[3]) for node in fused.nodes] == [("c", ""), ("d", "c")]


def test_additions_that_cannot_be_fused_stay() -> None:
    flat = native_node("adaptive_average_pool", "m", ("x",), (Value("m", (Size("n"), 2, 1)),), size=(1,))
    for nodes in (
        (C, add("sum", "c", "c")),  # read twice
        (C, activation("a", "c"), add("sum", "a", "x"), add("end", "sum", "c")),  # read elsewhere
        (flat, C, add("sum", "c", "m")),  # stretched
    ):
        assert [n.operator for n in run_pass(Pass(fuse.fuse_residual), graph(*nodes)).nodes].count("add") >= 1
    residual = run_pass(Pass(fuse.fuse_residual), graph(C, add("s", "c", "x"), add("t", "s", "x")))
    assert [n.operator for n in residual.nodes] == ["convolution", "add"]  # one residual each


def gated(source: str = "x", **more: Any) -> list[Node]:
    """x times one factor for each image and channel, then a convolution over one pixel."""
    gate = native_node("adaptive_average_pool", "g", ("x",), (Value("g", (Size("n"), 2, 1)),), size=(1,))
    product = native_node("multiply", "p", (source, "g"), (value("p"),), **more)
    last = native_node("convolution", "d", ("p", "one"), (value("d"),), **{**CONVOLUTION, "padding": ((0, 0),)})
    return [gate, product, last]


ONE = {"one": np.ones((2, 2, 1), np.float32)}


def test_fuse_gate() -> None:
    fused = run_pass(Pass(fuse.fuse_gate), graph(*gated(), **ONE))
    assert [node.operator for node in fused.nodes] == ["adaptive_average_pool", "convolution"]
    assert (fused.nodes[1].inputs[0], fused.nodes[1].inputs[4]) == ("x", "g")
    turned = gated()
    turned[1] = dataclasses.replace(turned[1], inputs=("g", "x"))
    assert run_pass(Pass(fuse.fuse_gate), graph(*turned, **ONE)).nodes[1].inputs[4] == "g"


DEPTHWISE = {"own": np.array([[[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]]], np.float32)}


def depthwise_pair(activation: str = "relu", **more: Any) -> list[Node]:
    """A depthwise convolution, an activation, and a convolution over one pixel."""
    first = convolution("c", "x", "own", "b", groups=2, activation=activation)
    pointwise = {**CONVOLUTION, "padding": ((0, 0),), **more}
    return [first, native_node("convolution", "d", ("c", "one"), (value("d"),), **pointwise)]


def test_join_depthwise() -> None:
    constants = {**DEPTHWISE, **ONE, "b": [1.0, 2.0]}
    before = graph(*depthwise_pair(), **constants)
    (joined,) = run_pass(Pass(block.join_depthwise, block.check_no_neighbours), before).nodes
    assert joined.inputs == ("x", "own", "b", "", "", "", "one", "")
    assert (joined["depthwise_activation"], joined["activation"], joined["groups"]) == ("relu", "none", 2)
    shapes = [(1, 2, 8), (2, 1, 3), (2,), None, None, None, (2, 2, 1), None]
    assert OPERATORS["depthwise_block"].shape(joined, shapes) == [(1, 2, 8)]
    assert OPERATORS["depthwise_block"].macs(joined, shapes, [(1, 2, 8)]) == 8 * 2 * 3 + 8 * 2 * 2


def expanded(source: str = "x", **more: Any) -> list[Node]:
    """A convolution over one pixel to more channels, and a depthwise convolution of stride 2."""
    pointwise = {**CONVOLUTION, "padding": ((0, 0),), "activation": "relu6", **more}
    first = native_node("convolution", "e", (source, "wide"), (Value("e", (Size("n"), 4, Size("w"))),), **pointwise)
    attributes = {**CONVOLUTION, "stride": (2,), "groups": 4, "activation": "silu"}
    after = Value("c", (Size("n"), 4, (Size("w") + 1) // 2))
    return [first, native_node("convolution", "c", ("e", "four", "b"), (after,), **attributes)]


EXPANDED = {
    "wide": np.ones((4, 2, 1), np.float32),
    "four": np.ones((4, 1, 3), np.float32),
    "narrow": np.ones((2, 4, 1), np.float32),
    "b": np.ones(4, np.float32),
}


def test_join_depthwise_with_its_expansion() -> None:
    (joined,) = run_pass(Pass(block.join_depthwise, block.check_no_neighbours), graph(*expanded(), **EXPANDED)).nodes
    assert joined.inputs == ("x", "four", "b", "", "wide", "", "", "")
    assert (joined["expand_activation"], joined["activation"], joined["stride"]) == ("relu6", "silu", (2,))
    shapes = [(3, 2, 9), (4, 1, 3), (4,), None, (4, 2, 1), None, None, None]
    assert OPERATORS["depthwise_block"].shape(joined, shapes) == [(3, 4, 5)]
    assert OPERATORS["depthwise_block"].macs(joined, shapes, [(3, 4, 5)]) == 3 * (9 * 8 + 5 * 12)
    with pytest.raises(ShapeError, match=r"x \(3, 5, 9\) has 5 channels but the weights expect 2"):
        OPERATORS["depthwise_block"].shape(joined, [(3, 5, 9), *shapes[1:]])


def test_join_depthwise_with_both() -> None:
    out = Value("d", (Size("n"), 2, (Size("w") + 1) // 2))
    last = native_node("convolution", "d", ("c", "narrow"), (out,), **{**CONVOLUTION, "padding": ((0, 0),)})
    run = Pass(block.join_depthwise, block.check_no_neighbours)
    (joined,) = run_pass(run, graph(*expanded(), last, **EXPANDED)).nodes
    assert joined.inputs == ("x", "four", "b", "", "wide", "", "narrow", "")
    names = ("expand_activation", "depthwise_activation", "activation")
    assert [joined[name] for name in names] == ["relu6", "silu", "none"]


@pytest.mark.parametrize("parts", [(0, 1), (1, 2), (0, 1, 2)])
def test_blocks_are_split_into_what_they_were_joined_from(parts: tuple[int, ...]) -> None:
    out = Value("d", (Size("n"), 2, (Size("w") + 1) // 2))
    last = native_node("convolution", "d", ("c", "narrow"), (out,), **{**CONVOLUTION, "padding": ((0, 0),)})
    chosen = [[*expanded(), last][part] for part in parts]
    if 0 not in parts:
        wide = Value("x", (Size("n"), 4, Size("w")))
        chosen[0] = dataclasses.replace(chosen[0], inputs=("x", *chosen[0].inputs[1:]))
        before = dataclasses.replace(graph(*chosen, **EXPANDED), inputs=(wide,))
    else:
        before = graph(*chosen, **EXPANDED)
    joined = block.join_depthwise(before)
    assert [node.operator for node in joined.nodes] == ["depthwise_block"]
    split = block.split_blocks(joined)
    assert [node.name for node in split.nodes][-1] == joined.nodes[0].name
    for found, node in zip(split.nodes, before.nodes, strict=True):
        assert found.attributes == node.attributes and found.inputs[1:] == node.inputs[1:]
        assert found.output.shape == node.output.shape and found.runs("convolution")
    assert block.join_depthwise(split).nodes == joined.nodes


def test_a_convolution_between_two_depthwise_ones_belongs_to_the_first() -> None:
    nodes = [convolution("a", "x", "own", groups=2), *expanded("a")]
    joined = run_pass(Pass(block.join_depthwise, block.check_no_neighbours), graph(*nodes, **DEPTHWISE, **EXPANDED))
    assert [(node.name, node.operator) for node in joined.nodes] == [("e", "depthwise_block"), ("c", "convolution")]


@pytest.mark.parametrize(
    ("nodes", "outputs"),
    [
        (depthwise_pair(), ("c", "d")),  # read elsewhere
        (depthwise_pair(stride=(2,)), ()),
        (depthwise_pair(padding=((1, 1),)), ()),
        ([convolution("c", "x"), *depthwise_pair()[1:]], ()),  # not depthwise
        ([depthwise_pair()[0], convolution("d", "c")], ()),  # a kernel of 3
        (expanded(), ("e", "c")),  # read elsewhere
        (expanded(padding=((1, 1),))[:1], ()),
        (
            [
                depthwise_pair()[0],
                native_node("convolution", "d", ("c", "own"), (value("d"),), **CONVOLUTION, groups=2),
            ],
            (),
        ),
    ],
)
def test_convolutions_that_are_no_block_stay(nodes: list[Node], outputs: tuple[str, ...]) -> None:
    before = graph(*nodes, outputs=outputs, **{**DEPTHWISE, **ONE, **EXPANDED, "b": [1.0, 2.0]})
    assert block.join_depthwise(before).nodes == before.nodes


def test_multiplications_that_are_no_gate_stay() -> None:
    wide = [*gated()[:2], convolution("d", "p")]  # a kernel of 3
    for nodes, outputs in (
        (wide, ()),
        (gated(activation="relu"), ()),
        (gated(), ("d", "p")),  # read elsewhere
        ([C, native_node("multiply", "p", ("x", "c"), (value("p"),)), gated()[2]], ()),  # as large as x
    ):
        kept = run_pass(Pass(fuse.fuse_gate), graph(*nodes, outputs=outputs, **ONE))
        assert [n.operator for n in kept.nodes].count("multiply") == 1


def test_a_gate_of_another_size_is_refused() -> None:
    node = native_node("convolution", "c", ("x", "w", "", "", "y"), (value("c"),), **CONVOLUTION)
    y = Value("y", (Size("n"), 3, 1))
    g = Graph("g", (value("x"), y), ("c",), (node,), {"w": np.ones((2, 2, 3), np.float32)})
    with pytest.raises(ShapeError, match=r"the gate \(1, 3, 1\) does not hold one factor"):
        infer_shapes(g, {"n": 1, "w": 5})


def test_fuse_flatten() -> None:
    pooled = native_node("adaptive_average_pool", "m", ("x",), (Value("m", (Size("n"), 2, 3)),), size=(3,))
    flat = make_node("reshape", "f", ("m",), (Value("f", (Size("n"), 6)),), shape=(Size("n"), 6))
    dense = native_node("linear", "d", ("f", "v"), (Value("d", (Size("n"), 4)),))
    g = graph(pooled, flat, dense, v=np.ones((4, 6), np.float32))
    fused = fold.remove_dead(run_pass(Pass(fuse.fuse_flatten), g))
    assert [node.operator for node in fused.nodes] == ["adaptive_average_pool", "linear"]
    whole = make_node("reshape", "f", ("m",), (Value("f", (1, 6)),), shape=(1, 6))  # also joins the batch
    kept = fold.remove_dead(run_pass(Pass(fuse.fuse_flatten), g.replace(nodes=(pooled, whole, dense))))
    assert len(kept.nodes) == 3


# ---- layouts and places ----------------------------------------------------------------------------------


def test_assign_layouts_converts_once() -> None:
    flat = make_node("reshape", "f", ("c",), (value("f"),), shape=(Size("n"), 2, Size("w")))
    g = graph(C, flat, convolution("d", "f"), convolution("e", "x"), add("sum", "d", "e"), outputs=("sum", "c"))
    laid = run_pass(Pass(layout.assign_layouts, layout.check_layouts), g)
    assert [node.name for node in laid.nodes] == ["x:last", "c", "c:first", "f", "f:last", "d", "e", "sum", "sum:first"]
    assert laid.outputs == ("sum:first", "c:first")
    assert "c: float32[n, 2, w] last = convolution(x:last" in str(laid)
    with pytest.raises(GraphError, match=r"c reads x: float32\[n, 2, w\] but wants it channels last"):
        layout.check_layouts(g)


class DenseBlock(nn.Module):
    """Every layer reads all features so far."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Conv2d(4 + 3 * i, 3, 3, padding=1) for i in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = [F.relu(x)]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1)


def steps_of(model: nn.Module, *shape: int) -> list[dict[str, Any]]:
    g = optimise(read(model.eval(), [torch.zeros(shape)]).graph)
    sizes = dict(zip("nhw", (shape[0], *shape[2:]), strict=True))
    return plan_execution(g, sizes, PackedWeights(), threads=1).plan.steps


def test_dense_concatenations_copy_nothing() -> None:
    assert not [s for s in steps_of(DenseBlock(), 1, 4, 8, 8) if "copy" in s["name"]]


def test_concatenations_in_a_concatenation_copy_nothing() -> None:
    class Nested(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            inner = torch.cat([x * 2, x * 3], 1)
            return torch.cat([inner.relu(), torch.cat([inner, x.sigmoid()], 1)], 1)

    assert not [s for s in steps_of(Nested(), 2, 3, 8, 8) if "copy" in s["name"]]


def test_what_has_no_own_place_is_copied() -> None:
    class Reused(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            y = x * 2
            return torch.cat([y, x.relu()], 1), torch.cat([x.relu(), y[:, :1], y], 1)

    names = [s["name"] for s in steps_of(Reused(), 1, 2, 4, 4)]
    assert 0 < len([name for name in names if "copy" in name]) <= 3
