"""ONNX models as exporters write them: channels last from Keras, half precision, old operator sets, several results."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from convoxel.graph.load import from_onnx, load
from tests.support.onnx_model import ints, model, node, numbers, tensor

RNG = np.random.default_rng(0)
TO_FIRST, TO_LAST = [0, 3, 1, 2], [0, 2, 3, 1]


def half(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array((RNG.standard_normal(shape) / 4).astype(np.float16), name)


def keras() -> onnx.ModelProto:
    """Transposes around every convolution; batch normalisation as products and sums over the last axis."""
    nodes = [
        node("Transpose", "x", "t", perm=TO_FIRST),
        node("Conv", "t w", "c", auto_pad="SAME_UPPER", strides=[2, 2]),
        node("Transpose", "c", "ct", perm=TO_LAST),
        node("Mul", "ct s", "bm"),
        node("Add", "bm o", "bo"),
        node("Clip", "bo low high", "r"),
        node("Pad", "r p", "rp"),
        node("Transpose", "rp", "t2", perm=TO_FIRST),
        node("MaxPool", "t2", "m", kernel_shape=[2, 2], strides=[2, 2]),
        node("Transpose", "m", "mt", perm=TO_LAST),
        node("Concat", "mt mt", "cc", axis=-1),
        node("ReduceMean", "cc", "g", axes=[1, 2], keepdims=0),
        node("MatMul", "g v", "f"),
        node("Softmax", "f", "y", axis=-1),
    ]
    constants = [tensor("w", 8, 3, 3, 3), tensor("s", 8), tensor("o", 8), numbers("low", 0.0), numbers("high", 6.0)]
    return model(nodes, [*constants, ints("p", 0, 0, 1, 0, 0, 1, 0, 0), tensor("v", 16, 5)], ["unk__1", 15, 16, 3])


def keras_resized() -> onnx.ModelProto:
    """A resize to twice the size that the network has, computed as int32 in channels last."""
    nodes = [
        node("Transpose", "x", "t", perm=TO_FIRST),
        node("Conv", "t w", "c", pads=[1] * 4),
        node("Transpose", "c", "n", perm=TO_LAST),
        node("Shape", "n", "s"),
        node("Cast", "s", "s32", to=TensorProto.INT32),
        node("Slice", "s32 one three", "size"),
        node("Mul", "size two", "double32"),
        node("Cast", "double32", "double", to=TensorProto.INT64),
        node("Transpose", "n", "t2", perm=TO_FIRST),
        node("Shape", "t2", "s2"),
        node("Slice", "s2 zero begin", "channels"),
        node("Concat", "channels double", "sizes", axis=0),
        node("Resize", "t2 - - sizes", "u", mode="linear", coordinate_transformation_mode="half_pixel"),
        node("Transpose", "u", "y", perm=TO_LAST),
    ]
    numbers32 = numbers("two", [2, 2], np.int32)
    constants = [ints("zero", 0), ints("one", 1), ints("begin", 2), ints("three", 3), numbers32]
    return model(nodes, [tensor("w", 4, 3, 3, 3), *constants], ["n", "h", "w", 3], opset=13)


def half_inside() -> onnx.ModelProto:
    """Half precision between two casts."""
    nodes = [
        node("Cast", "x", "h", to=TensorProto.FLOAT16),
        node("Conv", "h w", "c", pads=[1] * 4),
        node("BatchNormalization", "c g b m v", "n"),
        node("Relu", "n", "r"),
        node("Cast", "r", "y", to=TensorProto.FLOAT),
    ]
    positive = numpy_helper.from_array(np.arange(1, 9, dtype=np.float16), "v")
    return model(nodes, [half("w", 8, 3, 3, 3), half("g", 8), half("b", 8), half("m", 8), positive])


def half_everywhere() -> onnx.ModelProto:
    nodes = [
        node("Conv", "x w", "c", pads=[1] * 4),
        node("AveragePool", "c", "a", kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", "a", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f v b", "y", transB=1),
    ]
    proto = model(nodes, [half("w", 8, 3, 3, 3), half("v", 5, 8), half("b", 5)], kind=TensorProto.FLOAT16)
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    return proto


def old() -> onnx.ModelProto:
    """Operator set 9, weights among the inputs, three results, one of them in the middle."""
    nodes = [
        node("Conv", "x w b", "c", pads=[1] * 4, kernel_shape=[3, 3]),
        node("LeakyRelu", "c", "r", alpha=0.1),
        node("Elu", "r", "l", alpha=0.5),
        node("Dropout", "l", "d", ratio=0.5),
        node("GlobalAveragePool", "d", "p"),
        node("Reshape", "p shape", "f"),
        node("Gemm", "f k q", "y", transB=1),
        node("Softmax", "y", "z"),
    ]
    constants = [tensor("w", 4, 3, 3, 3), tensor("b", 4), ints("shape", 1, 4), tensor("k", 5, 4), tensor("q", 5)]
    proto = model(nodes, constants, [1, 3, 9, 10], opset=9, outputs="z r y")
    proto.ir_version = 3
    proto.graph.input.extend(helper.make_tensor_value_info(c.name, c.data_type, list(c.dims)) for c in constants)
    return proto


def volumes() -> onnx.ModelProto:
    """A segmentation of volumes: instance normalisation, a gate of split channels, resizing, and the label map."""
    nodes = [
        node("Conv", "x w", "c", pads=[1] * 6),
        node("InstanceNormalization", "c g b", "n"),
        node("Split", "n", "a d", axis=1),
        node("Sigmoid", "a", "s"),
        node("Mul", "s d", "m"),
        node("Resize", "m - scales", "u", mode="linear", coordinate_transformation_mode="half_pixel"),
        node("ArgMax", "u", "y", axis=1, keepdims=0),
    ]
    constants = [tensor("w", 8, 1, 3, 3, 3), tensor("g", 8), tensor("b", 8), numbers("scales", [1, 1, 2, 2, 2])]
    return model(nodes, constants, ["n", 1, "d", "h", "w"], opset=13)


STYLES: dict[str, tuple[Any, list[tuple[int, ...]], Any, float]] = {
    "keras": (keras, [(1, 15, 16, 3), (3, 15, 16, 3)], np.float32, 1e-4),
    "keras, resized": (keras_resized, [(1, 8, 10, 3), (2, 5, 7, 3)], np.float32, 1e-4),
    "half precision inside": (half_inside, [(1, 3, 8, 8), (2, 3, 5, 9)], np.float32, 2e-2),
    "half precision": (half_everywhere, [(1, 3, 8, 8), (2, 3, 6, 10)], np.float16, 2e-2),
    "an old operator set": (old, [(1, 3, 9, 10)], np.float32, 1e-4),
    "volumes": (volumes, [(1, 1, 6, 5, 4)], np.float32, 1e-4),
}


@pytest.mark.parametrize("style", STYLES)
def test_a_style_gives_what_the_reference_gives(style: str) -> None:
    make, shapes, dtype, tolerance = STYLES[style]
    proto = make()
    program: Any = from_onnx(proto)
    for shape in shapes:
        x = RNG.standard_normal(shape).astype(dtype)
        results = program(x)
        results = results if isinstance(results, tuple) else (results,)
        expected = ReferenceEvaluator(proto).run(None, {"x": x})
        assert len(results) == len(expected)
        for result, wanted in zip(results, expected, strict=True):
            assert result.dtype == wanted.dtype and np.isfinite(result).all()
            np.testing.assert_allclose(result, wanted, rtol=tolerance, atol=tolerance / 10)


@pytest.mark.parametrize("style", ["half precision", "half precision inside"])
def test_half_precision_runs_in_native_steps(style: str, tmp_path: Any) -> None:
    program: Any = from_onnx(STYLES[style][0]())
    hosts = {n.operator for n in program.graph.nodes if not n.native}
    assert hosts <= {"cast"}
    program.save(tmp_path / "net.cvx")
    x = RNG.standard_normal((1, 3, 8, 8)).astype(STYLES[style][2])
    loaded: Any = load(tmp_path / "net.cvx")
    np.testing.assert_array_equal(loaded(x), program(x))


def test_inputs_may_decide_by_a_switch() -> None:
    """A condition on an input that is a switch makes a program for each value; one on an image is refused."""
    branches = {
        f"{name}_branch": helper.make_graph(
            [node(operator, "x", name)], name, [], [helper.make_empty_tensor_value_info(name)]
        )
        for name, operator in (("then", "Relu"), ("else", "Neg"))
    }
    choice = helper.make_node("If", ["flag"], ["y"], name="choice", **branches)
    proto = model([choice])
    proto.graph.input.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
    program: Any = from_onnx(proto)
    x = RNG.standard_normal((1, 3, 2, 2)).astype(np.float32)
    np.testing.assert_array_equal(program(x, np.array(True)), np.maximum(x, 0))
    np.testing.assert_array_equal(program(x, np.array(False)), -x)
    nodes = [node("ReduceMax", "x", "m", keepdims=0), node("Greater", "m zero", "flag"), choice]
    with pytest.raises(NotImplementedError, match=r"If choice \(a condition that the network computes\)"):
        from_onnx(model(nodes, [numbers("zero", 0.0)]))
