"""ONNX files, saved and compiled programs described: the same figures as of the module that they came from."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import convoxel as cx
from convoxel import models
from convoxel.errors import ConfigError, GraphError, ShapeError, UnsupportedError


def export(net: nn.Module, shape: tuple[int, ...], path: Path, opened: bool = True) -> Path:
    axes = {"x": {0: "n", **{axis: "dhw"[axis - len(shape)] for axis in range(2, len(shape))}}} if opened else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter speaks of its successor
        torch.onnx.export(
            net.eval(), (torch.zeros(shape),), str(path), input_names=["x"], dynamic_axes=axes, dynamo=False
        )
    return path


@pytest.mark.parametrize("name, shape, options", [
    ("resnet18", (1, 3, 64, 64), {"width": 0.25}),
    ("mobilenet_v3_small", (1, 3, 64, 64), {"width": 0.5}),
    ("unet", (1, 1, 16, 16, 16), {"levels": 2, "width": 4}),
    ("unet", (1, 2, 64), {"levels": 2, "width": 4, "up": "resize"}),
    ("unet_ronneberger", (1, 1, 204, 204), {"width": 2}),
])  # fmt: skip
def test_a_file_is_the_module(name: str, shape: tuple[int, ...], options: dict[str, Any], tmp_path: Path) -> None:
    net = models.build(name, dims=len(shape) - 2, in_channels=shape[1], **options).eval()
    mine, file = cx.describe(net, shape), cx.describe(str(export(net, shape, tmp_path / "net.onnx")), shape)
    assert file.name == "net.onnx" and file.remarks == ()
    assert (file.macs, file.peak_bytes, file.field) == (mine.macs, mine.peak_bytes, mine.field)
    assert (file.output_shapes, file.sizes) == (mine.output_shapes, mine.sizes)
    assert [row.kernel for row in file.rows if row.kernel] == [row.kernel for row in mine.rows if row.kernel]


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_a_program_is_the_module(name: str, tmp_path: Path) -> None:
    """A program keeps the graph that it was read from."""
    net = models.build(name, dims=1, in_channels=1, width=0.5).eval()
    mine = cx.describe(net, (1, 1, 64))
    program = cx.compile(net, torch.zeros(1, 1, 64))
    program.save(tmp_path / "net.cvx")
    for summary in (cx.describe(program, (1, 1, 64)), cx.describe(tmp_path / "net.cvx", (1, 1, 64))):
        assert (summary.field, summary.output_shapes, summary.remarks) == (mine.field, mine.output_shapes, ())
        assert (summary.macs, summary.params, summary.peak_bytes) == (mine.macs, mine.params, mine.peak_bytes)
        assert 0.99 * mine.macs <= program_macs(program) <= mine.macs  # a compiler may find a way with fewer


def program_macs(program: Any) -> int:
    return sum(row["macs"] for row in program.profile(np.zeros((1, 1, 64), np.float32)))


def simple(*nodes: onnx.NodeProto, shape: tuple[int | str, ...] = (1, 1, 8, 8), **arrays: Any) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "simple",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def saved(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, path)
    return path


def test_fixed_shapes_need_no_telling(tmp_path: Path) -> None:
    weight = np.ones((2, 1, 3, 3), np.float32)
    conv = helper.make_node("Conv", ["x", "w"], ["y"], name="first")
    summary = cx.describe(saved(simple(conv, shape=("n", 1, 8, 10), w=weight), tmp_path / "a.onnx"))
    assert summary.input_shapes == ((1, 1, 8, 10),) and summary.output_shapes == ((1, 2, 6, 8),)
    assert (summary.params, summary.macs) == (18, 18 * 48)
    assert summary.sizes is not None and str(summary.sizes) == "8 alone × 10 alone"


@pytest.mark.parametrize("operator, inputs, attributes, arrays, size, stride", [
    ("MaxPool", "x", {"kernel_shape": [3, 3], "strides": [2, 2]}, {}, (3, 3), (2, 2)),
    ("AveragePool", "x", {"kernel_shape": [2, 3]}, {}, (2, 3), (1, 1)),
    ("SpaceToDepth", "x", {"blocksize": 2}, {}, (2, 2), (2, 2)),
    ("Transpose", "x", {"perm": [0, 1, 3, 2]}, {}, (1, 1), (1, 1)),
    ("Pad", "x p", {}, {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])}, (1, 1), (1, 1)),
    ("Slice", "x b e a", {}, {"b": np.array([1]), "e": np.array([5]), "a": np.array([2])}, (1, 1), (1, 1)),
    ("Resize", "x  s", {"mode": "linear"}, {"s": np.array([1, 1, 2, 2], np.float32)}, (2, 2), (0.5, 0.5)),
    ("Resize", "x  s", {"mode": "nearest"}, {"s": np.array([1, 1, 2, 2], np.float32)}, (1, 1), (0.5, 0.5)),
    ("LRN", "x", {"size": 3}, {}, (1, 1), (1, 1)),
    ("Relu", "x", {}, {}, (1, 1), (1, 1)),
])  # fmt: skip
def test_operators(
    operator: str,
    inputs: str,
    attributes: dict[str, Any],
    arrays: dict[str, Any],
    size: tuple[int, ...],
    stride: tuple[float, ...],
    tmp_path: Path,
) -> None:
    node = helper.make_node(operator, inputs.split(" "), ["y"], **attributes)
    summary = cx.describe(saved(simple(node, **arrays), tmp_path / "a.onnx"))
    assert summary.remarks == () and summary.field is not None
    assert (summary.field.size, summary.field.stride, any(summary.field.whole)) == (size, stride, False)


@pytest.mark.parametrize("operator, attributes", [
    ("GlobalAveragePool", {}), ("InstanceNormalization", {}), ("ReduceMean", {"axes": [2, 3]}),
    ("Softmax", {"axis": 2}),
])  # fmt: skip
def test_operators_that_see_everything(operator: str, attributes: dict[str, Any], tmp_path: Path) -> None:
    arrays = {"w": np.ones(1, np.float32), "b": np.ones(1, np.float32)} if operator.startswith("Instance") else {}
    node = helper.make_node(operator, ["x", *arrays], ["y"], **attributes)
    (row,) = cx.describe(saved(simple(node, **arrays), tmp_path / "a.onnx")).rows
    assert row.field is not None and any(row.field.whole)


def test_an_operator_without_a_rule_is_named(tmp_path: Path) -> None:
    node = helper.make_node("CumSum", ["x", "a"], ["y"], name="sums")
    summary = cx.describe(saved(simple(node, a=np.array(2)), tmp_path / "a.onnx"))
    assert summary.field is None
    assert summary.remarks == ("sums: no rule for the receptive field of accumulate; not known from here on",)


def test_refusals(tmp_path: Path) -> None:
    net = models.build("unet", dims=1, in_channels=1, levels=1, width=2)
    path = export(net, (1, 1, 16), tmp_path / "unet.onnx")
    with pytest.raises(ConfigError, match=r"unet.onnx needs the shape of every input, x \(n, 1, w\)"):
        cx.describe(path)
    with pytest.raises(ShapeError, match=r"\(1, 2, 16\) came, but unet.onnx takes x \(n, 1, w\). Keep its fixed sizes"):
        cx.describe(path, (1, 2, 16))
    with pytest.raises(ShapeError, match="Give one shape an input"):
        cx.describe(path, (1, 1, 16), (1, 1, 16))
    with pytest.raises(ShapeError, match=r"unet.onnx does not accept \(1, 1, 15\): concat .* cannot join"):
        cx.describe(path, (1, 1, 15))
    with pytest.raises(ConfigError, match=r"levels= came with a network that is built already"):
        cx.describe(path, (1, 1, 16), levels=2)
    with pytest.raises(GraphError, match="cannot be read"):
        cx.describe(tmp_path / "none.onnx")
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    with pytest.raises(GraphError, match="is no ONNX model"):
        cx.describe(tmp_path / "junk.onnx", (1, 1, 16))


def test_sizes_by_value_are_refused(tmp_path: Path) -> None:
    model = simple(helper.make_node("Reshape", ["x", "s"], ["y"]))
    model.graph.input.append(helper.make_tensor_value_info("s", TensorProto.INT64, [2]))
    with pytest.raises(UnsupportedError, match=r"sizes in a\.onnx depend on the values of s"):
        cx.describe(saved(model, tmp_path / "a.onnx"), (1, 1, 8, 8), (2,))


def test_a_file_needs_no_more_memory_than_its_table(tmp_path: Path) -> None:
    """A volume that no computer holds."""
    weight = np.ones((64, 1, 3, 3, 3), np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 6)
    path = saved(simple(node, shape=("n", 1, "d", "h", "w"), w=weight), tmp_path / "a.onnx")
    assert cx.describe(path, (1, 1, 20_000, 20_000, 20_000)).macs == 64 * 27 * 20_000**3


def test_the_command_reads_files(tmp_path: Path) -> None:
    net = models.build("unet", dims=1, in_channels=1, levels=1, width=2)
    path = export(net, (1, 1, 16), tmp_path / "unet.onnx")
    words = [sys.executable, "-m", "convoxel", "describe", str(path), "--shape", "1,1,32"]
    if not (Path(cx.__file__).parent / "__main__.py").exists():
        words[1:3] = ["-c", "import sys; from convoxel.cli.application import main; sys.exit(main())"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "multiples of 2" in done.stdout
