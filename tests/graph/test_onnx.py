"""ONNX models: ONNX's own node tests (a sample), open sizes, older operator sets, and what is refused."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import convoxel as cx
from convoxel.errors import ConfigError, GraphError, ShapeError, UnsupportedError
from convoxel.graph.load import from_onnx, load
from convoxel.graph.run.program import Program
from convoxel.graph.specialised import Specialised
from tests.support.onnx_model import convolution, ints, model, node, tensor
from tools import onnx_nodes

SAMPLE = """
basic_conv_with_padding conv_with_strides_and_asymmetric_padding conv_with_autopad_same convtranspose_output_shape
convtranspose_group_2 convinteger_with_padding qlinearconv basic_deform_conv_without_padding col2im_dilations
maxpool_2d_ceil maxpool_with_argmax_2d_precomputed_pads maxpool_2d_uint8
averagepool_2d_ceil_last_window_starts_on_pad averagepool_3d_dilations_small lppool_2d_dilations
maxunpool_export_with_output_shape roialign_mode_max resize_downsample_scales_cubic_antialias
resize_tf_crop_and_resize_extrapolation_value resize_upsample_sizes_nearest_axes_2_3
resize_downsample_sizes_nearest_not_larger gridsample_bicubic gridsample_reflection_padding
affine_grid_3d_align_corners depthtospace_crd_mode_example center_crop_pad_crop_and_pad edge_pad reflect_pad
wrap_pad batchnorm_example_training_mode group_normalization_example layer_normalization_4d_axis1
rms_normalization_2d_axis1 lrn l2normalization_axis_1 mvn prelu_broadcast selu celu hardsigmoid hardswish mish
gelu_tanh_1 softmax_axis_1_expanded logsoftmax_large_number hardmax_axis_1 clip_outbounds thresholdedrelu
shrink_soft gemm_all_attributes matmul_bcast einsum_batch_diagonal qlinearmatmul_2D_uint8_float32 matmulinteger
div_int32_trunc pow_types_float32_int64 min_int8 mean_example where_example concat_3d_axis_negative_2
split_zero_size_splits_opset18 slice_neg_steps reshape_allowzero_reordered flatten_negative_axis2
transpose_all_permutations_3 unsqueeze_three_axes expand_dim_unchanged tile gather_negative_indices
shape_end_negative_1 constantofshape_int_shape_zero reduce_log_sum_exp_keepdims_random reduce_max_empty_set
argmax_keepdims_example_select_last_index reduce_sum_square_do_not_keepdims_random
quantizelinear_blocked_asymmetric dequantizelinear_e4m3fn dynamicquantizelinear upsample_nearest
causal_conv_with_state_silu_with_past_state affine_grid_3d_align_corners_expanded
"""


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    return onnx_nodes.cases()


@pytest.mark.parametrize("name", SAMPLE.split())
@pytest.mark.filterwarnings("error")
def test_onnx_node(known: dict[str, Any], name: str) -> None:
    case = known.get(f"test_{name}")
    if case is None:
        pytest.skip("this onnx package has no such case")
    assert onnx_nodes.run(case) == ""
    if len(case.data_sets[0][0]) > 1:
        assert onnx_nodes.run(case, constant=True) == ""


def test_the_judge_rejects_wrong_results() -> None:
    right = np.ones((2, 3), np.float32)
    assert onnx_nodes.differs(right, right, 1e-3, 1e-7) == ""
    for wrong in (right * 1.01, right[:1], right.astype(np.float64), np.where(np.eye(2, 3) > 0, np.nan, right)):
        assert onnx_nodes.differs(wrong.astype(wrong.dtype), right, 1e-3, 1e-7)
    assert onnx_nodes.differs(np.array([1]), np.array([2]), 1, 1)


def test_exclusions_have_reasons_and_are_checked() -> None:
    excluded = onnx_nodes.exclusions()
    assert excluded and all(name.startswith("test_") and len(reason) > 20 for name, reason in excluded.items())
    name, reason = next(iter(excluded.items()))
    assert onnx_nodes.judged(name, "refused", "", excluded) == ("excluded", reason)
    assert onnx_nodes.judged(name, "right", "", excluded)[0] == "stale"
    assert onnx_nodes.judged(name, "wrong", "", excluded)[0] == "wrong"
    assert onnx_nodes.judged("another", "refused", "why", excluded) == ("refused", "why")


# ---- models ----------------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)


def network() -> onnx.ModelProto:
    """Convolutions, a skip, resizing to the size of another tensor, and a head that computes its shape."""
    nodes = [
        node("Conv", "x w1 b1", "c1", pads=[1, 1, 1, 1]),
        node("Relu", "c1", "r1"),
        node("MaxPool", "r1", "p1", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "p1 w2", "c2", pads=[1, 1, 1, 1]),
        node("Shape", "c1", "s"),
        node("Slice", "s two four", "hw"),
        node("Shape", "c2", "s2"),
        node("Slice", "s2 zero two", "nc"),
        node("Concat", "nc hw", "sizes", axis=0),
        node("Resize", "c2 - - sizes", "up", mode="linear"),
        node("Add", "up c1", "sum"),
        node("GlobalAveragePool", "sum", "g"),
        node("Shape", "g", "s3"),
        node("Gather", "s3 zero0", "n"),
        node("Unsqueeze", "n zero", "n1"),
        node("Concat", "n1 minus", "flat", axis=0),
        node("Reshape", "g flat", "f"),
        node("Gemm", "f w3 b3", "y", transB=1),
    ]
    constants = [
        tensor("w1", 8, 3, 3, 3),
        tensor("b1", 8),
        tensor("w2", 8, 8, 3, 3),
        tensor("w3", 5, 8),
        tensor("b3", 5),
    ]
    constants += [ints("zero", 0), ints("two", 2), ints("four", 4), ints("minus", -1)]
    constants += [numpy_helper.from_array(np.array(0, np.int64), "zero0")]
    return model(nodes, constants)


def reference(proto: onnx.ModelProto, x: Any) -> Any:
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(proto).run(None, {"x": x})[0]


@pytest.mark.smoke
def test_a_network_takes_all_sizes() -> None:
    proto = network()
    program = from_onnx(proto)
    assert isinstance(program, Program)
    for shape in ((1, 3, 16, 16), (2, 3, 9, 13), (3, 3, 7, 32)):
        x = RNG.standard_normal(shape).astype(np.float32)
        y = program(x)
        assert np.isfinite(y).all()
        np.testing.assert_allclose(y, reference(proto, x), rtol=1e-4, atol=1e-5)
    assert not [n.operator for n in program.graph.nodes if not n.native]
    with pytest.raises(ShapeError, match="4 channels came, the network takes 3"):
        program(np.zeros((1, 4, 16, 16), np.float32))


def test_sizes_are_exact_expressions() -> None:
    program = from_onnx(convolution(strides=[2, 2], auto_pad="SAME_UPPER"))
    assert isinstance(program, Program)
    value = program.graph.values["y"]
    assert [str(extent) for extent in value.shape[:2]] == ["n", "4"]
    for size in (7, 8, 9):
        assert value.shape[2].value({"h": size}) == -(-size // 2)  # type: ignore[union-attr]
        assert program(np.ones((1, 3, size, size), np.float32)).shape == (1, 4, -(-size // 2), -(-size // 2))


@pytest.mark.parametrize("opset", [6, 9, 11, 13, onnx.defs.onnx_opset_version()])
def test_old_and_new_operator_sets(opset: int) -> None:
    old = opset < 13
    axes = {"axes": [1]} if old else {}
    nodes = [
        node("Dropout", "x", "d"),
        node("Clip", "d" if opset < 11 else "d low high", "k", **({"min": 0.0, "max": 1.0} if opset < 11 else {})),
        node("Squeeze", "k" if old else "k one", "q", **axes),
        node("Unsqueeze", "q" if old else "q one", "u", **axes),
        node("Pad", "u" if opset < 11 else "u pads", "p", **({"pads": [0, 0, 1, 0, 0, 2]} if opset < 11 else {})),
        node("Softmax", "p", "y", axis=1),
    ]
    scalars = [numpy_helper.from_array(np.array(v, np.float32), n) for n, v in (("low", 0.0), ("high", 1.0))]
    used = {name for n in nodes for name in n.input}
    constants = [c for c in (*scalars, ints("one", 1), ints("pads", 0, 0, 1, 0, 0, 2)) if c.name in used]
    x = RNG.standard_normal((2, 1, 4)).astype(np.float32)
    y = from_onnx(model(nodes, constants, [2, 1, 4], opset))(x)
    padded = np.pad(np.clip(x, 0, 1), [(0, 0), (0, 0), (1, 2)])
    over = (1, 2) if old else (1,)  # before set 13 all axes from the given one on
    power = np.exp(padded - padded.max(over, keepdims=True))
    np.testing.assert_allclose(y, power / power.sum(over, keepdims=True), rtol=1e-6)


def test_functions_are_replaced_by_their_definitions() -> None:
    body = [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Add", ["a", "b"], ["c"])]
    function = helper.make_function("mine", "Twice", ["a"], ["c"], body, [helper.make_opsetid("", 17)])
    proto = model([helper.make_node("Twice", ["x"], ["y"], domain="mine")], [], functions=[function])
    proto.opset_import.append(helper.make_opsetid("mine", 1))
    x = RNG.standard_normal((1, 3, 4, 4)).astype(np.float32)
    np.testing.assert_array_equal(from_onnx(proto)(x), x + np.maximum(x, 0))


def test_inputs_that_are_sizes() -> None:
    shape = helper.make_tensor_value_info("shape", TensorProto.INT64, [3])
    proto = model([node("Reshape", "x shape", "y")], [], [2, 3, 4])
    proto.graph.input.append(shape)
    program = from_onnx(proto)
    assert isinstance(program, Specialised) and "shape" in repr(program)
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    for wanted in ([4, 3, 2], [1, 24, 1], [4, -1, 1]):
        values = np.array(wanted, np.int64)
        program.prepare(x, values)
        np.testing.assert_array_equal(program(x, values), x.reshape(wanted))
    assert program.profile(x, values) and "reshape" in program.explain(x, values)
    assert program.memory(x, values).weight_bytes == 0
    with pytest.raises(ShapeError, match=r"1 inputs came, expected 2 \(x, shape\)"):
        program(x)
    with pytest.raises(ShapeError, match="shape has 5000 elements"):
        program(x, np.zeros(5000, np.int64))
    with pytest.raises(UnsupportedError, match="depend on the values of shape"):
        program.save("net.cvx")


# ---- files -----------------------------------------------------------------------------------------------


def with_external(folder: Path, location: str, **entries: int) -> Path:
    proto = convolution()
    weight = proto.graph.initializer[0]
    (folder / "weights.bin").write_bytes(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        weight.external_data.add(key=key, value=str(value))
    path = folder / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def test_external_data(tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    x = np.ones((1, 3, 8, 8), np.float32)
    assert np.isfinite(load(with_external(folder, "weights.bin"), threads=1)(x)).all()
    (tmp_path / "weights.bin").write_bytes((folder / "weights.bin").read_bytes())
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
    for location in ("../weights.bin", str(tmp_path / "weights.bin"), "link.bin", "missing.bin", ".", ""):
        with pytest.raises(GraphError, match="expected a regular file inside the model's folder"):
            load(with_external(folder, location))
    for entries in ({"offset": 4}, {"offset": -1}, {"length": 10**12}, {"offset": 2**62}):
        with pytest.raises(GraphError, match="the file is damaged"):
            load(with_external(folder, "weights.bin", **entries))


def test_load_from_a_file_without_pytorch(tmp_path: Path) -> None:
    import subprocess
    import sys

    path = tmp_path / "net.onnx"
    onnx.save(network(), str(path))
    code = (
        "import sys, numpy as np, convoxel as cx; "
        f"y = cx.load({str(path)!r})(np.ones((1, 3, 16, 16), np.float32)); "
        "sys.exit('torch' in sys.modules or y.shape != (1, 5))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert inspect.unwrap(cx.load) is load


def test_what_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    whole = network().SerializeToString()
    for content in (b"", b"\x00\xff" * 50, whole[: len(whole) // 2], b"hello"):
        path.write_bytes(content)
        with pytest.raises(GraphError, match=r"load: .*net\.onnx"):
            load(path)
    with pytest.raises(GraphError, match="cannot be read"):
        load(tmp_path / "missing.onnx")
    with pytest.raises(ConfigError, match=r"expected \.onnx or \.cvx"):
        load(tmp_path / "net.pb")
    with pytest.raises(ConfigError, match="threads is 0"):
        load(path, threads=0)
    for opset in (5, 999):
        with pytest.raises(GraphError, match=f"uses operator set {opset}; expected 6 to"):
            from_onnx(model([node("Relu", "x", "y")], [], opset=opset))


# ---- what is refused, and what runs ----------------------------------------------------------------------


def test_every_unsupported_node_is_listed() -> None:
    nodes = [node("Magic", "x", "a"), node("Relu", "a", "b"), node("Wonder", "b", "c"), node("Relu", "c", "y")]
    with pytest.raises(UnsupportedError, match=r"2 node\(s\) of the model are not supported: Magic a; Wonder c\."):
        from_onnx(model(nodes, []))


def test_weights_that_are_nan_run() -> None:
    proto = convolution()
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((4, 3, 3, 3), np.nan, np.float32), "w"))
    assert np.isnan(from_onnx(proto)(np.ones((1, 3, 8, 8), np.float32))).all()
