"""The other engines on a single layer: as a network of PyTorch, ONNX Runtime and OpenVINO.

Each gets its favourite input: channels last where that is a memory format of its own, channels first elsewhere. A
peer that is not installed takes no part; ``missing_peers`` names it.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from convoxel.bench.layer_list import Layer

if TYPE_CHECKING:
    import openvino
    from torch import nn

Floats = NDArray[np.float32]
Run = Callable[[], object]
Infer = Callable[[Floats], Floats]


def quieten_threads() -> None:
    """Make PyTorch's threads sleep soon after an operator; has an effect only before PyTorch is first imported.

    By default they spin for 200 ms, on the processors that the next contender needs.
    """
    os.environ.setdefault("KMP_BLOCKTIME", "5")


def prepare_peers(layer: Layer, x: Floats, w: Floats, bias: Floats, threads: int) -> dict[str, Run]:
    """Return a call for each peer that runs the layer and returns ``(1, out_channels, *out_size)``.

    Args:
        layer: the layer, at batch 1.
        x: ``(1, in_channels, *size)``.
        w: ``layer.weight_shape``.
        bias: ``(out_channels,)``.
        threads: number of threads of each peer.
    """
    found: dict[str, Run] = {} if lacking(("torch",)) else _pytorch(layer, x, w, bias, threads)
    for name, open_model in ONNX_ENGINES.items():
        if not lacking(("onnx", name)):
            infer = open_model(_onnx_model(layer, w, bias), threads)
            found[name] = functools.partial(_infer, infer, x.reshape(1, -1) if layer.fully_connected else x, layer)
    return found


def missing_peers() -> list[str]:
    """Return the packages whose absence keeps a peer from taking part."""
    return list(lacking(("torch", "onnx", *ONNX_ENGINES)))


@functools.cache
def lacking(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of the packages that cannot be imported."""
    absent = []
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:
            absent.append(name)
    return tuple(absent)


def open_onnxruntime(model: bytes | str, threads: int) -> Infer:
    """Return the function of a model of one input, its bytes or its file, in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def compile_openvino(model: bytes | str, threads: int, settings: Mapping[str, str]) -> openvino.CompiledModel:
    """Return a model as OpenVINO compiles it; without ``settings`` it picks the precision itself."""
    import openvino

    core = openvino.Core()
    config = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", **settings}
    return core.compile_model(core.read_model(model), "CPU", config)


def infer_openvino(compiled: openvino.CompiledModel) -> Infer:
    """Return the function of a compiled model of one input."""
    request = compiled.create_infer_request()
    return lambda x: request.infer({0: x}, share_inputs=True, share_outputs=True)[0]  # without copies


OPENVINO_FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}

# Engines that read ONNX, by package: each opens a model of one input, its bytes or its file, and returns its first
# result.
ONNX_ENGINES: dict[str, Callable[[bytes | str, int], Infer]] = {
    "onnxruntime": open_onnxruntime,
    "openvino": lambda model, threads: infer_openvino(compile_openvino(model, threads, OPENVINO_FLOAT32)),
}


def _infer(infer: Infer, x: Floats, layer: Layer) -> Floats:
    return infer(x).reshape(1, -1, *layer.out_size)


def _pytorch(layer: Layer, x: Floats, w: Floats, bias: Floats, threads: int) -> dict[str, Run]:
    import torch

    torch.set_num_threads(threads)

    runs = {"pytorch": call_pytorch(_module(layer, w, bias), x)}
    if layer.dims > 1 and not layer.fully_connected:  # else there is no such memory format, or no difference
        runs["pytorch-cl"] = call_pytorch(_module(layer, w, bias), x, channels_last=True)
    return runs


def call_pytorch(module: nn.Module, x: Floats, channels_last: bool = False, bfloat16: bool = False) -> Run:
    """Return a call that runs a module on ``x`` without gradients, in either memory format, in float32 or bfloat16."""
    import torch

    tensor = torch.from_numpy(x)
    if bfloat16:
        module, tensor = module.to(torch.bfloat16), tensor.to(torch.bfloat16)
    if channels_last:
        layout = torch.channels_last if tensor.dim() == 4 else torch.channels_last_3d
        # PyTorch's types do not know this argument of modules.
        module = module.to(memory_format=layout)  # type: ignore[call-overload]
        tensor = tensor.contiguous(memory_format=layout)
    return torch.inference_mode()(lambda: module(tensor))


def _module(layer: Layer, w: Floats, bias: Floats) -> nn.Module:
    """Return the layer in PyTorch; a fully connected one as ``Linear``, as people write it."""
    import torch

    net: nn.Module
    if layer.fully_connected:
        linear = torch.nn.Linear(layer.in_channels, layer.out_channels)
        net = torch.nn.Sequential(torch.nn.Flatten(), linear, torch.nn.Unflatten(1, (-1, *layer.out_size)))
        target, shape = linear, (layer.out_channels, layer.in_channels)
    else:
        kind = getattr(torch.nn, f"Conv{'Transpose' if layer.transposed else ''}{layer.dims}d")
        net = target = kind(
            layer.in_channels, layer.out_channels, layer.kernel, stride=layer.stride, padding=layer.padding,
            dilation=layer.dilation, groups=layer.groups,
        )  # fmt: skip
        shape = w.shape
    with torch.no_grad():
        target.weight.copy_(torch.from_numpy(w.reshape(shape)))
        target.bias.copy_(torch.from_numpy(bias))
    return net.eval()


def _onnx_model(layer: Layer, w: Floats, bias: Floats) -> bytes:
    """Return the layer as an ONNX model of one node."""
    from onnx import TensorProto, helper, numpy_helper

    in_shape, out_shape = (1, layer.in_channels, *layer.size), (1, layer.out_channels, *layer.out_size)
    if layer.fully_connected:
        node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)
        w, in_shape, out_shape = w.reshape(w.shape[:2]), in_shape[:2], out_shape[:2]
    else:
        node = helper.make_node(
            "ConvTranspose" if layer.transposed else "Conv",
            ["x", "w", "b"],
            ["y"],
            kernel_shape=layer.kernel,
            strides=layer.stride,
            pads=[*layer.padding, *layer.padding],
            dilations=layer.dilation,
            group=layer.groups,
        )
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, in_shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out_shape)],
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(bias, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
