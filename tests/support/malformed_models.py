"""Malformed ONNX models, one for each kind of mistake: the function that makes it, and words of its refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.support.onnx_model import convolution, ints, model, node, numbers, tensor

__all__ = ["MODELS"]

BILLION = 10**9
Change = Callable[[onnx.ModelProto], Any]


def one(operator: str, inputs: str = "x", *constants: onnx.TensorProto, **attributes: Any) -> onnx.ModelProto:
    """Return a model of one node y."""
    options = {name: attributes.pop(name) for name in ("shape", "opset") if name in attributes}
    return model([node(operator, inputs, "y", **attributes)], constants, **options)


def changed(proto: onnx.ModelProto, change: Change) -> onnx.ModelProto:
    change(proto)
    return proto


def weight(change: Callable[[onnx.TensorProto], Any]) -> onnx.ModelProto:
    """Return a convolution with wrong weights."""
    return changed(convolution(), lambda proto: change(proto.graph.initializer[0]))


def dims(*sizes: int) -> onnx.ModelProto:
    def change(w: onnx.TensorProto) -> None:
        del w.dims[:]
        w.dims.extend(sizes)

    return weight(change)


def weights(*shape: int, **attributes: Any) -> onnx.ModelProto:
    return one("Conv", "x w", tensor("w", *shape), **attributes)


def transposed(**attributes: Any) -> onnx.ModelProto:
    return one("ConvTranspose", "x w", tensor("w", 3, 4, 3, 3), **attributes)


def norm(operator: str, count: int, names: str, **attributes: Any) -> onnx.ModelProto:
    return one(operator, f"x {names}", *(tensor(name, count) for name in names.split()), **attributes)


def nested(depth: int) -> onnx.ModelProto:
    """Return nested branches."""
    inner = helper.make_graph([node("Relu", "x", "y0")], "g", [], [helper.make_empty_tensor_value_info("y0")])
    for level in range(1, depth):
        choice = helper.make_node("If", ["t"], [f"y{level}"], then_branch=inner, else_branch=onnx.GraphProto())
        inner = helper.make_graph([choice], "g", [], [helper.make_empty_tensor_value_info(f"y{level}")])
    return model([helper.make_node("If", ["t"], ["y"], then_branch=inner, else_branch=onnx.GraphProto())])


def functions(*bodies: tuple[str, list[onnx.NodeProto]]) -> onnx.ModelProto:
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    made = [helper.make_function("mine", name, ["a"], ["c"], body, sets) for name, body in bodies]
    proto = model([helper.make_node(bodies[-1][0], ["x"], ["y"], domain="mine")], functions=made)
    proto.opset_import.append(sets[1])
    return proto


def doubling(levels: int) -> onnx.ModelProto:
    """Return functions of which each calls the next twice."""
    bodies = [("F0", [node("Relu", "a", "c")])]
    for level in range(1, levels):
        calls = [helper.make_node(f"F{level - 1}", [i], [o], domain="mine") for i, o in (("a", "b"), ("b", "c"))]
        bodies.append((f"F{level}", calls))
    return functions(*bodies)


def call(name: str) -> list[onnx.NodeProto]:
    return [helper.make_node(name, ["a"], ["c"], domain="mine")]


def sized(repeated: Callable[[int], list[onnx.NodeProto]], count: int) -> onnx.ModelProto:
    """Return a model that computes with the sizes s0 and b; ``repeated`` makes s1 of s0, and so on."""
    nodes = [node("Shape", "x", "s0", start=2, end=3), node("Shape", "x", "b", start=3, end=4)]
    nodes += [made for index in range(count) for made in repeated(index)]
    nodes += [node("Cast", f"s{count}", "f", to=TensorProto.FLOAT), node("Add", "x f", "y")]
    return model(nodes, [ints("two", 2)], opset=18)


def halved_maxima(i: int) -> list[onnx.NodeProto]:
    return [node("Div", f"s{i} two", f"d{i}"), node("Max", f"d{i} s{i} b", f"s{i + 1}")]


def chosen(i: int) -> list[onnx.NodeProto]:
    both = node("Greater", f"s{i} b", f"g{i}"), node("Add", f"s{i} b", f"d{i}")
    return [*both, node("Where", f"g{i} d{i} s{i}", f"s{i + 1}")]


def repeated_maximum(i: int) -> list[onnx.NodeProto]:
    """Maxima in one another first, of which the last is then compared again and again."""
    if i < 90:
        return halved_maxima(i)
    return [node("Greater", f"s{i} b", f"g{i}"), node("Identity", f"s{i}", f"s{i + 1}")]


def retyped(proto: onnx.ModelProto, number: int) -> None:
    proto.graph.input[0].type.tensor_type.elem_type = number


# Each model's name: how it is made, and what the refusal says (its node, and why).
MODELS: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    # windows
    "weights of lower rank": (lambda: weights(4, 3, 3), "Conv y"),
    "weights of higher rank": (lambda: weights(4, 3, 3, 3, 3), "Conv y"),
    "stride 0": (lambda: convolution(strides=[0, 1]), "Conv y.*stride"),
    "stride negative": (lambda: convolution(strides=[-1, 1]), "Conv y.*stride"),
    "strides too few": (lambda: convolution(strides=[1]), "Conv y"),
    "dilation 0": (lambda: convolution(dilations=[0, 1]), "Conv y.*dilation"),
    "dilation negative": (lambda: convolution(dilations=[-1, 1]), "Conv y.*dilation"),
    "dilation huge": (lambda: convolution(dilations=[2**40, 2**40]), "(?i)conv.* y"),
    "group 0": (lambda: convolution(group=0), "Conv y.*groups"),
    "group negative": (lambda: convolution(group=-1), "Conv y.*groups"),
    "group huge": (lambda: convolution(group=2**40), "Conv y"),
    "group that does not divide": (lambda: convolution(group=2), "Conv y"),
    "kernel_shape unlike the weights": (lambda: convolution(kernel_shape=[5, 5]), "Conv y.*kernel_shape"),
    "channels that do not match": (lambda: weights(4, 5, 3, 3), "Conv y.*channels"),
    "bias of another length": (lambda: one("Conv", "x w b", tensor("w", 4, 3, 3, 3), tensor("b", 5)), "Conv y.*bias"),
    "kernel larger than the input": (lambda: weights(4, 3, 30, 30), "convolution y"),
    "kernel of size 0": (lambda: weights(4, 3, 0, 3), "Conv y"),
    "no output channel": (lambda: weights(0, 3, 3, 3), "Conv y"),
    "pads negative beyond the input": (lambda: convolution(pads=[-9, 0, -9, 0]), "(?i)conv.* y"),
    "pads overflowing": (lambda: convolution(pads=[2**62, 0, 2**62, 0]), "Conv y"),
    "pads huge": (lambda: convolution(pads=[BILLION] * 4), "Conv y"),
    "pads too few": (lambda: convolution(pads=[1, 1]), "Conv y"),
    "auto_pad unknown": (lambda: convolution(auto_pad="MAGIC"), "Conv y.*auto_pad"),
    "pool without a window": (lambda: one("MaxPool", kernel_shape=[2]), "MaxPool y"),
    "pool window of 0": (lambda: one("MaxPool", kernel_shape=[0, 2]), "MaxPool y"),
    "pool window of another rank": (lambda: one("AveragePool", kernel_shape=[2, 2, 2]), "AveragePool y"),
    "pool stride 0": (lambda: one("MaxPool", kernel_shape=[2, 2], strides=[0, 0]), "MaxPool y.*stride"),
    "pool padding larger than its window": (
        lambda: one("AveragePool", kernel_shape=[2, 2], pads=[5, 5, 5, 5]),
        "AveragePool y",
    ),
    "pool larger than the input": (lambda: one("MaxPool", kernel_shape=[90, 90]), "max_pool y"),
    "output_padding not below the stride": (
        lambda: transposed(strides=[2, 2], output_padding=[2, 2]),
        "ConvTranspose y.*output_padding",
    ),
    "output_padding negative": (lambda: transposed(output_padding=[-1, 0]), "ConvTranspose y.*output_padding"),
    "transposed stride huge": (lambda: transposed(strides=[2**40, 2**40]), "(?i)conv.* y"),
    # tensors
    "raw_data short": (lambda: weight(lambda w: setattr(w, "raw_data", b"1234")), "tensor 'w' claims"),
    "raw_data long": (lambda: weight(lambda w: setattr(w, "raw_data", w.raw_data + b"1234")), "tensor 'w' claims"),
    "raw_data empty": (lambda: weight(lambda w: setattr(w, "raw_data", b"")), "tensor 'w' claims"),
    "no data": (lambda: weight(lambda w: w.ClearField("raw_data")), "tensor 'w' claims"),
    "numbers in another list": (
        lambda: weight(lambda w: (w.ClearField("raw_data"), w.int32_data.extend([1] * 108))),
        "tensor 'w' claims",
    ),
    "dims negative": (lambda: dims(4, -3, 3, 3), "tensor 'w' has shape .*at least 0"),
    "dims overflowing": (lambda: dims(2**62, 2**62, 3, 3), "tensor 'w' claims"),
    "dims larger than the data": (lambda: dims(4, 3, 3, 4), "tensor 'w' claims"),
    "element type unknown": (lambda: weight(lambda w: setattr(w, "data_type", 99)), "no element type 99"),
    "element type undefined": (lambda: weight(lambda w: setattr(w, "data_type", 0)), "no element type 0"),
    "texts": (lambda: weight(lambda w: setattr(w, "data_type", TensorProto.STRING)), "texts"),
    "input of texts": (lambda: changed(one("Identity"), lambda p: retyped(p, TensorProto.STRING)), "texts"),
    "input of an unknown type": (lambda: changed(one("Identity"), lambda p: retyped(p, 77)), "no element type 77"),
    "input of ten axes": (lambda: one("Relu", shape=[1] * 10), "'x' has 10 axes"),
    "a sequence": (
        lambda: changed(
            one("Identity"),
            lambda p: p.graph.input[0].type.sequence_type.elem_type.CopyFrom(helper.make_tensor_type_proto(1, [1])),
        ),
        "input 'x' is a sequence_type",
    ),
    "sparse initialisers": (
        lambda: changed(convolution(), lambda p: p.graph.sparse_initializer.add()),
        "sparse initialisers",
    ),
    # versions and names
    "operator unknown": (lambda: one("Magic"), r"1 node\(s\).*: Magic y"),
    "domain unknown": (
        lambda: model([node("Relu", "x", "y", domain="org.nobody")]),
        r"1 node\(s\).*: org\.nobody\.Relu y",
    ),
    "operator of a later set": (lambda: one("HardSwish", opset=13), r"HardSwish y \(not in operator set 13\)"),
    "operator set too old": (lambda: one("Relu", opset=5), "operator set 5; expected 6 to"),
    "operator set too new": (lambda: one("Relu", opset=999), "operator set 999; expected 6 to"),
    "operator set negative": (lambda: one("Relu", opset=-1), "operator set -1; expected 6 to"),
    "no operator set": (
        lambda: changed(one("Relu"), lambda p: p.ClearField("opset_import")),
        "no graph with an operator set",
    ),
    "no graph": (lambda: changed(one("Relu"), lambda p: p.ClearField("graph")), "no graph with an operator set"),
    "IR too new": (lambda: changed(one("Relu"), lambda p: setattr(p, "ir_version", 999)), "IR version 999; expected"),
    "IR missing": (lambda: changed(one("Relu"), lambda p: p.ClearField("ir_version")), "IR version 0; expected"),
    "cycle": (lambda: model([node("Relu", "a", "y"), node("Relu", "y", "a")]), "Relu y reads 'a'"),
    "self loop": (lambda: one("Relu", "y"), "Relu y reads 'y'"),
    "undefined value": (lambda: one("Relu", "z"), "Relu y reads 'z'"),
    "result defined twice": (
        lambda: model([node("Relu", "x", "y"), node("Relu", "x", "y")]),
        "Relu y defines 'y' a second time",
    ),
    "input defined again": (lambda: model([node("Relu", "x", "x"), node("Relu", "x", "y")]), "defines 'x' a second"),
    "initialiser twice": (
        lambda: changed(convolution(), lambda p: p.graph.initializer.append(tensor("w", 4, 3, 3, 3))),
        "tensor 'w' is defined a second time",
    ),
    "initialiser without a name": (
        lambda: changed(convolution(), lambda p: p.graph.initializer.append(tensor("", 1))),
        "tensor '' is defined a second time, or has no name",
    ),
    "input twice": (
        lambda: changed(one("Relu"), lambda p: p.graph.input.append(p.graph.input[0])),
        "two inputs have the same name",
    ),
    "output of nobody": (lambda: model([node("Relu", "x", "z")]), "output 'y' is made by no node"),
    "no output": (lambda: changed(one("Relu"), lambda p: p.graph.ClearField("output")), "no output"),
    "nothing at all": (lambda: model([]), "output 'y' is made by no node"),
    # operands and attributes
    "operand missing": (lambda: one("Conv", "x"), "Conv y: 1 operands came, expected 2 to 3"),
    "operand empty": (lambda: one("Conv", "x -"), "Conv y: operand W is missing"),
    "operands too many": (lambda: one("Relu", "x x"), "Relu y: 2 operands came, expected 1"),
    "results too many": (lambda: model([node("Relu", "x", "y z")]), "Relu y: 2 results are named, expected 1"),
    "attribute unknown": (
        lambda: convolution(stride=[1, 1]),
        "Conv y: there is no attribute 'stride'; expected .*strides",
    ),
    "attribute of another type": (lambda: convolution(strides=1), "Conv y: attribute 'strides' is INT; expected INTS"),
    "attribute missing": (lambda: one("MaxPool"), "MaxPool y: attribute 'kernel_shape' is missing"),
    "attribute twice": (
        lambda: changed(convolution(group=1), lambda p: p.graph.node[0].attribute.append(p.graph.node[0].attribute[0])),
        "Conv y: an attribute is given twice",
    ),
    "types that differ": (lambda: one("Add", "x k", ints("k", 1)), "Add y: operand B is int64, but others .*float32"),
    "types that are not permitted": (lambda: one("Relu", "k", numbers("k", [True], bool)), "Relu y: operand X is bool"),
    "weights of another type": (
        lambda: one("Conv", "x w", numbers("w", np.ones((4, 3, 3, 3)), np.float64)),
        "Conv y: operand W is float64",
    ),
    # bombs
    "Expand by a billion": (lambda: one("Expand", "x s", ints("s", BILLION, 3, 8, 8)), "Expand y .*a result of shape"),
    "Tile by a billion": (lambda: one("Tile", "x s", ints("s", 1, 1, 10**5, 10**5)), "Tile y .*a result of shape"),
    "Tile by a negative number": (lambda: one("Tile", "x s", ints("s", 1, 1, -1, 1)), "(?i)tile y"),
    "Pad by a billion": (
        lambda: one("Pad", "x s", ints("s", 0, 0, 0, 0, 0, 0, 0, BILLION)),
        "Pad y .*a result of shape",
    ),
    "Pad by an overflow": (lambda: one("Pad", "x s", ints("s", *(2**62,) * 8)), "Pad y .*a result of shape"),
    "ConstantOfShape of a billion": (
        lambda: model([node("ConstantOfShape", "s", "k"), node("Add", "x k", "y")], [ints("s", BILLION)]),
        "ConstantOfShape k .*a constant of shape",
    ),
    "ConstantOfShape negative": (
        lambda: model([node("ConstantOfShape", "s", "k"), node("Add", "x k", "y")], [ints("s", -4)]),
        "ConstantOfShape k",
    ),
    "many constants of a permitted size": (
        lambda: model(
            [node("ConstantOfShape", "s", f"k{i}") for i in range(40)] + [node("Add", "x k39", "y")], [ints("s", 2**26)]
        ),
        "ConstantOfShape k.*a constant of shape",
    ),
    "Range of a billion": (
        lambda: model(
            [node("Range", "a b c", "k"), node("Add", "x k", "y")],
            [numbers("a", 0.0), numbers("b", 1e9), numbers("c", 1.0)],
        ),
        "Range k",
    ),
    "Range by steps of 0": (
        lambda: model([node("Range", "a b a", "k"), node("Add", "x k", "y")], [numbers("a", 0.0), numbers("b", 1e9)]),
        "Range k",
    ),
    "Resize by a billion": (
        lambda: one("Resize", "x - s", numbers("s", [1, 1, 1e9, 1e9])),
        "Resize y .*a result of shape",
    ),
    "Resize by NaN": (lambda: one("Resize", "x - s", numbers("s", [1, 1, np.nan, 1])), "Resize y.*finite"),
    "Resize by infinity": (lambda: one("Resize", "x - s", numbers("s", [1, 1, np.inf, 1])), "Resize y.*finite"),
    "Resize by a negative number": (lambda: one("Resize", "x - s", numbers("s", [1, 1, -2, 1])), "Resize y"),
    "Resize to a billion": (
        lambda: one("Resize", "x - - s", ints("s", 1, 3, BILLION, BILLION)),
        "Resize y .*a result of shape",
    ),
    "Resize to nothing": (
        lambda: one("Resize", "x - - s", ints("s", 1, 3, 0, 8)),
        "(?i)(resize|interpolate|resample) y",
    ),
    "growth in small steps": (
        lambda: model(
            [node("Concat", " ".join([f"v{i}" if i else "x"] * 8), f"v{i + 1}", axis=1) for i in range(12)]
            + [node("Relu", "v12", "y")]
        ),
        "Concat v.*a result of shape",
    ),
    "DepthToSpace of 0": (lambda: one("DepthToSpace", blocksize=0), "DepthToSpace y"),
    "DepthToSpace of a negative block": (lambda: one("DepthToSpace", blocksize=-2), "DepthToSpace y"),
    "SpaceToDepth of 0": (lambda: one("SpaceToDepth", blocksize=0), "SpaceToDepth y"),
    # indices and axes
    "Gather beyond the end": (lambda: one("Gather", "x i", ints("i", 7), axis=1), "(?i)gather y|narrow y"),
    "Gather of several beyond the end": (lambda: one("Gather", "x i", ints("i", 0, 7), axis=1), "(?i)gather y"),
    "Gather along a missing axis": (lambda: one("Gather", "x i", ints("i", 0), axis=9), "Gather y: there is no axis 9"),
    "Concat along a missing axis": (lambda: one("Concat", "x x", axis=-5), "Concat y: there is no axis -5"),
    "Transpose of missing axes": (lambda: one("Transpose", perm=[0, 1, 2, 9]), "Transpose y"),
    "Transpose of an axis twice": (lambda: one("Transpose", perm=[0, 1, 1, 2]), "Transpose y"),
    "Squeeze of a long axis": (lambda: one("Squeeze", "x i", ints("i", 1)), "Squeeze y"),
    "Reshape to another count": (lambda: one("Reshape", "x i", ints("i", 1, 7), shape=[1, 3, 8, 8]), "(?i)reshape y"),
    "Reshape to two open sizes": (lambda: one("Reshape", "x i", ints("i", -1, -1)), "Reshape y"),
    "Reshape to a negative size": (lambda: one("Reshape", "x i", ints("i", -4, 48)), "Reshape y"),
    "Split into other lengths": (lambda: model([node("Split", "x i", "y z", axis=1)], [ints("i", 2, 5)]), "Split y"),
    "Slice by steps of 0": (
        lambda: one("Slice", "x a b c d", ints("a", 0), ints("b", 9), ints("c", 2), ints("d", 0)),
        "Slice y",
    ),
    "MaxUnpool beyond the end": (
        lambda: one(
            "MaxUnpool",
            "x i",
            numbers("i", np.full((1, 3, 8, 8), BILLION), np.int64),
            kernel_shape=[2, 2],
            shape=[1, 3, 8, 8],
        ),
        "max_unpool y",
    ),
    "TopK of more than there are": (lambda: model([node("TopK", "x k", "y z")], [ints("k", BILLION)]), "(?i)top.* y"),
    "Einsum that makes no sense": (lambda: one("Einsum", equation="ab->z"), "(?i)einsum y"),
    # normalisation
    "BatchNormalization of fewer channels": (lambda: norm("BatchNormalization", 2, "a b c d"), "BatchNormalization y"),
    "InstanceNormalization of fewer channels": (
        lambda: norm("InstanceNormalization", 2, "a b"),
        "InstanceNormalization y",
    ),
    "GroupNormalization of fewer channels": (
        lambda: norm("GroupNormalization", 2, "a b", num_groups=3, opset=21),
        "GroupNormalization y",
    ),
    "GroupNormalization of 0 groups": (
        lambda: norm("GroupNormalization", 3, "a b", num_groups=0, opset=21),
        "GroupNormalization y",
    ),
    "GroupNormalization of groups that do not divide": (
        lambda: norm("GroupNormalization", 3, "a b", num_groups=2, opset=21),
        "GroupNormalization y",
    ),
    "LayerNormalization of fewer": (lambda: norm("LayerNormalization", 2, "a b"), "(?i)layer.*norm.* y"),
    "LRN of 0 channels": (lambda: one("LRN", size=0), "LRN y"),
    "PRelu of fewer channels": (lambda: norm("PRelu", 2, "a"), "(?i)prelu y"),
    "Gemm of other sizes": (lambda: one("Gemm", "x w", tensor("w", 5, 7), shape=["n", 3]), "Gemm y"),
    "MatMul of other sizes": (lambda: one("MatMul", "x w", tensor("w", 5, 7), shape=["n", 3]), "MatMul y"),
    # nesting
    "branches in branches": (lambda: nested(28), "If y reads 't'"),
    "a function that uses itself": (lambda: functions(("F", call("F"))), "function 'F' uses itself"),
    "functions that use one another": (
        lambda: functions(("G", call("F")), ("F", call("G"))),
        "function 'F' uses itself|function 'G' uses itself",
    ),
    "functions that double": (lambda: doubling(40), r"the model has \d+ nodes; at most 200000"),
    "functions that nest deeply": (
        lambda: functions(("F0", [node("Relu", "a", "c")]), *((f"F{i}", call(f"F{i - 1}")) for i in range(1, 90))),
        "nest too deeply",
    ),
    "maxima of sizes in one another": (lambda: sized(halved_maxima, 400), r"open sizes of \d+ characters; at most"),
    "choices of sizes in one another": (lambda: sized(chosen, 400), r"size expression of \d+ characters; at most 4096"),
    "a long size that many nodes compare": (
        lambda: sized(repeated_maximum, 4000),
        r"open sizes of \d+ characters; at most",
    ),
    "a maximum of very many sizes": (
        lambda: model([*sized(chosen, 0).graph.node[:2], node("Max", "s0 b " * 10000, "m"), node("Relu", "x", "y")]),
        r"open sizes of \d+ characters; at most",
    ),
    "a function without a body": (lambda: functions(("F", [])), "load"),
}
