"""Quantised ONNX models on whole numbers: sums exact, results within one step of ONNX's own reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convoxel as cx
from convoxel.graph.load import from_onnx
from convoxel.graph.run.program import Program

onnx = pytest.importorskip("onnx")
from onnx import helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

KINDS = {"uint8": (0, 255), "int8": (-128, 127)}


class Model:
    """An ONNX model that grows node by node."""

    def __init__(self, seed: int, shape: tuple[int, ...], kind: str = "float32") -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}
        self.shape, self.kind = shape, kind

    def constant(self, array: Any, dtype: str) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(array, dtype)
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def levels(self, kind: str, scale: float) -> tuple[str, str]:
        low, high = KINDS[kind]
        zero = self.rng.integers(low + 60, high - 60)
        return self.constant(scale, "float32"), self.constant(zero, kind)

    def rounded(self, x: str, kind: str, scale: float) -> str:
        levels = self.levels(kind, scale)
        return self.add("DequantizeLinear", self.add("QuantizeLinear", x, *levels), *levels)

    def weights(self, shape: tuple[int, ...], kind: str, channels: int | None) -> tuple[str, str, str]:
        """Return names of weights, scale and zero point: per channel without a zero point where ``channels`` say so."""
        low, high = KINDS[kind]
        whole = self.constant(self.rng.integers(low, high + 1, shape), kind)
        count = channels or 1
        scales = self.rng.uniform(0.002, 0.004, count)
        points = np.zeros(count) if channels else self.rng.integers(low + 60, high - 60, 1)
        if not channels:
            scales, points = scales[0], points[0]
        return whole, self.constant(scales, "float32"), self.constant(points, kind)

    def proto(self, *outputs: str, out_kind: str = "float32") -> Any:
        types = {
            name: helper.np_dtype_to_tensor_dtype(np.dtype(name)) for name in ("float32", "uint8", "int8", "int32")
        }
        graph = helper.make_graph(
            self.nodes,
            "quantised",
            [helper.make_tensor_value_info("x", types[self.kind], ["n", *self.shape[1:]])],
            [helper.make_tensor_value_info(name, types[out_kind], None) for name in outputs],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def results(model: Any, x: np.ndarray) -> tuple[Program, np.ndarray, np.ndarray]:
    program = from_onnx(model)
    assert isinstance(program, Program)
    return program, program(x), ReferenceEvaluator(model).run(None, {"x": x})[0]


def types(program: Program, x: np.ndarray) -> dict[str, str]:
    return {row["name"]: row["type"] for row in program.profile(x)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weight_kind", KINDS)
@pytest.mark.parametrize("per_channel", [False, True])
def test_pairs_around_convolutions(kind: str, weight_kind: str, per_channel: bool) -> None:
    m = Model(len(kind) + 2 * len(weight_kind) + per_channel, (2, 5, 9, 8))
    x = m.rounded("x", kind, 0.03)
    w = m.add("DequantizeLinear", *m.weights((12, 5, 3, 3), weight_kind, 12 if per_channel else None), axis=0)
    bias = m.constant(m.rng.standard_normal(12), "float32")
    y = m.add("Relu", m.add("Conv", x, w, bias, pads=[1, 0, 1, 2], strides=[1, 2]))
    y = m.rounded(y, kind, 0.05)
    w = m.add("DequantizeLinear", *m.weights((6, 12, 1, 1), weight_kind, 6 if per_channel else None), axis=0)
    z = m.add("Conv", y, w)
    residual = m.rounded(m.add("Conv", x, m.constant(m.rng.standard_normal((6, 5, 3, 5)), "float32"),
                               pads=[1, 1, 1, 3], strides=[1, 2]), kind, 0.2)  # fmt: skip
    out = m.rounded(m.add("Add", z, residual), kind, 0.07)
    program, y1, y2 = results(m.proto(out), m.rng.standard_normal(m.shape).astype(np.float32))
    assert np.abs(y1 - y2).max() <= 0.07 * 1.001
    assert (y1 != y2).mean() < 0.02
    steps = [row for row in program.profile(np.zeros(m.shape, np.float32)) if row["operator"] == "conv"]
    assert [row["type"] for row in steps].count("int8") == 2
    # Levels lie between both: a byte for each number, in whole words.
    assert steps[0]["bytes"] == 2 * 12 * 9 * 4 or steps[1]["bytes"] == 2 * 12 * 9 * 4


@pytest.mark.parametrize("kind", KINDS)
def test_padding_reads_the_zero_point(kind: str) -> None:
    m = Model(7, (1, 3, 5, 6), kind)
    x, w, y = m.levels(kind, 0.1), m.weights((4, 3, 3, 3), "int8", 4), m.levels(kind, 0.7)
    bias = m.constant(m.rng.integers(-5000, 5000, 4), "int32")
    out = m.add("QLinearConv", "x", *x, *w, *y, bias, pads=[2, 1, 2, 1], dilations=[2, 1])
    given = m.rng.integers(*KINDS[kind], m.shape, endpoint=True).astype(kind)
    program, y1, y2 = results(m.proto(out, out_kind=kind), given)
    assert y1.dtype == kind
    assert np.abs(y1.astype(int) - y2.astype(int)).max() <= 1
    assert np.ptp(y1.astype(int)) > 50
    assert "int8" in types(program, given).values()


@pytest.mark.parametrize("rank", [2, 3])
def test_products_of_matrices(rank: int) -> None:
    shape = (7, 33) if rank == 2 else (2, 7, 33)
    m = Model(8, shape, "uint8")
    a, b, y = m.levels("uint8", 0.02), m.weights((33, 9), "int8", 9), m.levels("uint8", 0.15)
    out = m.add("QLinearMatMul", "x", *a, *b, *y)
    given = m.rng.integers(0, 256, shape).astype(np.uint8)
    program, y1, y2 = results(m.proto(out, out_kind="uint8"), given)
    assert np.abs(y1.astype(int) - y2.astype(int)).max() <= 1
    assert np.ptp(y1.astype(int)) > 50
    assert ("int8" in types(program, given).values()) == (rank == 2)


@pytest.mark.parametrize("case", ["conv", "matmul", "groups"])
def test_integer_operators_are_exact(case: str) -> None:
    shape = (3, 40) if case == "matmul" else (2, 6, 7, 9)
    m = Model(9, shape, "uint8")
    zero = m.constant(201, "uint8")
    if case == "matmul":
        point = m.constant(m.rng.integers(0, 256, 5), "uint8")
        out = m.add("MatMulInteger", "x", m.constant(m.rng.integers(0, 256, (40, 5)), "uint8"), zero, point)
    else:
        groups = 3 if case == "groups" else 1
        weight = m.constant(m.rng.integers(-128, 128, (9, 6 // groups, 3, 2)), "int8")
        out = m.add("ConvInteger", "x", weight, zero, pads=[1, 1, 0, 2], strides=[2, 1], group=groups)
    given = m.rng.integers(0, 256, shape).astype(np.uint8)
    _, y1, y2 = results(m.proto(out, out_kind="int32"), given)
    assert y1.dtype == np.int32
    np.testing.assert_array_equal(y1, y2)


def deep(seed: int, size: tuple[int, ...] = (2, 3, 12, 10)) -> tuple[Any, np.ndarray]:
    """Return a quantised model of three convolutions, one of them with groups, and an input."""
    m = Model(seed, size)
    y = m.rounded("x", "uint8", 0.04)
    for index, (inner, outer, groups) in enumerate(((3, 8, 1), (8, 8, 4), (8, 5, 1))):
        w = m.add("DequantizeLinear", *m.weights((outer, inner // groups, 3, 3), "int8", outer), axis=0)
        y = m.add("Conv", y, w, pads=[1, 1, 1, 1], group=groups)
        y = m.rounded(m.add("Relu", y), "uint8", 0.02 + 0.01 * index)
    return m.proto(y), m.rng.standard_normal(size).astype(np.float32)


def test_levels_stay_levels_between_layers_and_in_files(tmp_path: Path) -> None:
    model, x = deep(10)
    program, y1, y2 = results(model, x)
    assert np.abs(y1 - y2).max() <= 0.04 * 1.001
    operators = [row["operator"] for row in program.profile(x)]
    assert operators.count("quantise") == 1
    assert operators.count("dequantise") == 1
    assert operators.count("conv") == 3
    assert "int8" in program.explain(x)
    program.save(tmp_path / "q.cvx")
    np.testing.assert_array_equal(cx.load(tmp_path / "q.cvx")(x), y1)


@pytest.mark.parametrize("change", ["threads", "slice", "tiles"])
def test_results_do_not_depend_on_division(change: str) -> None:
    model, x = deep(11)
    program = from_onnx(model)
    assert isinstance(program, Program)
    others: dict[str, Callable[[], list[np.ndarray]]] = {
        "threads": lambda: [program.replace(threads=n)(x) for n in (1, 3)],
        "slice": lambda: [np.concatenate([program(x[:1]), program(x[1:])])],
        "tiles": lambda: [program.tiled(x, tile=9)],
    }
    for other in others[change]():
        np.testing.assert_array_equal(other, program(x))


def test_description_counts_whole_weights(tmp_path: Path) -> None:
    model, _ = deep(12)
    onnx.save(model, tmp_path / "net.onnx")
    found = cx.describe(str(tmp_path / "net.onnx"))
    assert found.params == 9 * (3 * 8 + 2 * 8 + 8 * 5)
    assert found.macs == 12 * 10 * found.params


def test_depthwise_layers_between_levels() -> None:
    m = Model(13, (2, 8, 9, 10))
    x = m.rounded("x", "uint8", 0.03)
    w = m.add("DequantizeLinear", *m.weights((8, 1, 3, 3), "int8", 8), axis=0)
    y = m.rounded(m.add("Relu", m.add("Conv", x, w, pads=[1, 1, 1, 1], group=8)), "uint8", 0.01)
    w = m.add("DequantizeLinear", *m.weights((6, 8, 1, 1), "int8", 6), axis=0)
    out = m.rounded(m.add("Conv", y, w), "uint8", 0.01)
    given = m.rng.standard_normal(m.shape).astype(np.float32)
    program, y1, y2 = results(m.proto(out), given)
    assert np.abs(y1 - y2).max() <= 0.01 * 1.001
    assert (y1 != y2).mean() < 0.02
    rows = [row for row in program.profile(given) if row["operator"] == "conv"]
    assert [row["type"] for row in rows] == ["int8", "int8"]
