"""Single convolutions against PyTorch, ONNX Runtime and OpenVINO, in turn in one process.

    python bench/layers.py [--nets NAME …] [--threads N] [--rounds N] [--json FILE] [--algorithms]

Each contender gets its favourite input: Convoxel and channels-last PyTorch theirs, the others channels first. The
layers are listed in layers.txt. Needs the packages onnx, onnxruntime and openvino (extra "bench"); a peer that is not
installed is left out and named.
"""

from __future__ import annotations

import argparse
import os
import statistics
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# PyTorch's threads spin for 200 ms after each operator by default, on the processors that the next contender needs.
os.environ.setdefault("KMP_BLOCKTIME", "5")
import torch

from clock import interleave, write_json
from convoxel import UnsupportedError, native, reference
from convoxel.native import Convolution, Plan, View


@dataclass(frozen=True)
class Layer:
    """One line of layers.txt; the same size, kernel and stride on every axis."""

    net: str
    dims: int
    in_channels: int
    size: int
    out_channels: int
    kernel: int
    stride: int = 1
    groups: int = 1
    transposed: bool = False

    @property
    def padding(self) -> int:
        return 0 if self.transposed else (2 if self.kernel == 11 else self.kernel // 2)

    @property
    def out(self) -> int:
        if self.transposed:
            return (self.size - 1) * self.stride + self.kernel
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def gflop(self) -> float:
        pixels = (self.size if self.transposed else self.out) ** self.dims
        macs = pixels * self.kernel**self.dims * self.in_channels * self.out_channels / self.groups
        return 2 * macs / 1e9

    def __str__(self) -> str:
        marks = f"k{self.kernel}" + (f" s{self.stride}" if self.stride > 1 else "")
        marks += f" g{self.groups}" if self.groups > 1 else ""
        marks += " t" if self.transposed else ""
        return f"{self.net:<12}{self.dims}-D {self.in_channels:>4}x{self.size:<4} -> {self.out_channels:<4} {marks}"


def read_layers(path: Path) -> list[Layer]:
    layers = []
    for line in path.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        net, dims, source, out, *marks = line.split()
        channels, size = source.split("x")
        numbers = {mark[0]: int(mark[1:]) for mark in marks if mark != "t"}
        layers.append(
            Layer(
                net, int(dims), int(channels), int(size), int(out), numbers["k"], numbers.get("s", 1),
                numbers.get("g", 1), "t" in marks,
            )
        )  # fmt: skip
    return layers


def our_plan(layer: Layer, w: np.ndarray, bias: np.ndarray, threads: int, algorithm: str) -> Plan:
    axes = lambda v, absent: (absent,) * (3 - layer.dims) + (v,) * layer.dims  # noqa: E731
    conv = Convolution(
        w.reshape(*w.shape[:2], *axes(layer.kernel, 1)),
        bias,
        stride=axes(layer.stride, 1),
        padding_low=axes(layer.padding, 0),
        groups=layer.groups,
        transposed=layer.transposed,
    )
    plan = Plan(0, 2, threads)
    src = View.dense(1, 0, (1, *axes(layer.size, 1), layer.in_channels))
    dst = View.dense(2, 0, (1, *axes(layer.out, 1), layer.out_channels))
    plan.convolve(conv, src, dst, algorithm=algorithm)
    return plan


def onnx_model(layer: Layer, w: np.ndarray, bias: np.ndarray) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node(
        "ConvTranspose" if layer.transposed else "Conv",
        ["x", "w", "b"],
        ["y"],
        kernel_shape=[layer.kernel] * layer.dims,
        strides=[layer.stride] * layer.dims,
        pads=[layer.padding] * 2 * layer.dims,
        group=layer.groups,
    )
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, layer.in_channels, *[layer.size] * layer.dims])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, layer.out_channels, *[layer.out] * layer.dims])],
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(bias, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def peers(layer: Layer, x: np.ndarray, w: np.ndarray, bias: np.ndarray, threads: int) -> dict[str, Callable[[], Any]]:
    found: dict[str, Callable[[], Any]] = {}
    module = getattr(torch.nn, f"Conv{'Transpose' if layer.transposed else ''}{layer.dims}d")
    options = {"stride": layer.stride, "padding": layer.padding, "groups": layer.groups}
    for name, last in (("pytorch", False), ("pytorch-cl", True)):
        net = module(layer.in_channels, layer.out_channels, layer.kernel, **options).eval()
        net.weight.data.copy_(torch.from_numpy(w))
        net.bias.data.copy_(torch.from_numpy(bias))
        tensor = torch.from_numpy(x)
        if last:
            if layer.dims == 1:
                continue
            layout = torch.channels_last if layer.dims == 2 else torch.channels_last_3d
            net, tensor = net.to(memory_format=layout), tensor.contiguous(memory_format=layout)
        found[name] = lambda net=net, tensor=tensor: net(tensor)
    try:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        session = onnxruntime.InferenceSession(onnx_model(layer, w, bias), options, ["CPUExecutionProvider"])
        found["onnxruntime"] = lambda: session.run(None, {"x": x})
    except ImportError:
        pass
    try:
        import openvino

        core = openvino.Core()
        config = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        request = core.compile_model(core.read_model(onnx_model(layer, w, bias)), "CPU", config).create_infer_request()
        found["openvino"] = lambda: request.infer({"x": x}, share_inputs=True, share_outputs=True)
    except ImportError:
        pass
    return found


def l2_error(layer: Layer, x: np.ndarray, w: np.ndarray, bias: np.ndarray, y: np.ndarray) -> float:
    """Relative L2 error against float64, on the first images of large layers only (the slow truth is slow)."""
    stride, pads = (layer.stride,) * layer.dims, ((layer.padding, layer.padding),) * layer.dims
    ones = (1,) * layer.dims
    if layer.transposed:
        truth = reference.conv_transpose(x, w, bias, stride, pads, (0,) * layer.dims, ones, layer.groups)
    else:
        truth = reference.conv(x, w, bias, stride, pads, ones, layer.groups)
    return float(np.sqrt(((y - truth) ** 2).sum() / (truth**2).sum()))


def measure(layer: Layer, threads: int, rounds: int, every_algorithm: bool) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, layer.in_channels, *(layer.size,) * layer.dims)).astype(np.float32)
    ends = (layer.in_channels, layer.out_channels)
    first, second = ends if layer.transposed else ends[::-1]
    w = rng.standard_normal((first, second // layer.groups, *(layer.kernel,) * layer.dims)).astype(np.float32)
    w /= np.sqrt(layer.kernel**layer.dims * layer.in_channels / layer.groups)
    bias = rng.standard_normal(layer.out_channels).astype(np.float32)
    x_last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    y_last = np.empty((1, *(layer.out,) * layer.dims, layer.out_channels), np.float32)

    contenders: dict[str, Callable[[], Any]] = {}
    names = ["auto", *(row["name"] for row in native.algorithms())] if every_algorithm else ["auto"]
    chosen = ""
    for name in names:
        try:
            plan = our_plan(layer, w, bias, threads, name)
        except UnsupportedError:
            continue
        if name == "auto":
            chosen, workspace = plan.steps[0]["algorithm"], plan.workspace_bytes
            plan.run([x_last, y_last])
            error = l2_error(layer, x, w, bias, np.moveaxis(y_last, -1, 1)) if layer.gflop < 4 else float("nan")
        contenders["convoxel" if name == "auto" else name] = lambda plan=plan: plan.run([x_last, y_last])
    ours = list(contenders)
    contenders.update(peers(layer, x, w, bias, threads))
    with torch.inference_mode():
        times = interleave(contenders, rounds)
    seconds = {name: t["median_s"] for name, t in times.items()}
    best = min((name for name in seconds if name not in ours), key=seconds.__getitem__)
    ceiling = native.measure_ceiling(threads, rounds=200_000)
    return {
        "layer": str(layer), "gflop": layer.gflop, "algorithm": chosen, "ms": {n: 1e3 * s for n, s in seconds.items()},
        "gflops": layer.gflop / seconds["convoxel"], "ceiling_share": 1e9 * layer.gflop / seconds["convoxel"] / ceiling,
        "best_peer": best, "ratio": seconds[best] / seconds["convoxel"], "l2_error": error,
        "workspace_bytes": workspace,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--file", type=Path, default=Path(__file__).with_name("layers.txt"))
    parser.add_argument("--nets", nargs="*", help="only these nets' layers")
    parser.add_argument("--threads", type=int, default=native.default_threads())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--algorithms", action="store_true", help="every algorithm that supports each layer, too")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    layers = [a for a in read_layers(options.file) if not options.nets or a.net in options.nets]
    rows = []
    for layer in layers:
        row = measure(layer, options.threads, options.rounds, options.algorithms)
        rows.append(row)
        shown = "  ".join(f"{name} {ms:.2f}" for name, ms in row["ms"].items())
        share = f"{100 * row['ceiling_share']:4.0f} %"
        print(
            f"{row['layer']:<44} {row['algorithm']:<12} {row['gflops']:6.0f} GFLOP/s {share}"
            f"  {row['ratio']:5.2f}x {row['best_peer']:<11} l2 {row['l2_error']:.0e} | ms: {shown}",
            flush=True,
        )
    for net in dict.fromkeys(a.net for a in layers):
        ratios = [row["ratio"] for row in rows if row["layer"].startswith(f"{net:<12}")]
        mean = statistics.geometric_mean(ratios)
        print(f"{net:<12} geometric mean {mean:.2f}x the best peer of each, {len(ratios)} layers")
    write_json(rows, options.json)


if __name__ == "__main__":
    main()
