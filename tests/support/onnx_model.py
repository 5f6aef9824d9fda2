"""Small ONNX models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["convolution", "ints", "model", "node", "numbers", "tensor"]


def tensor(name: str, *shape: int) -> onnx.TensorProto:
    """Return random float32 weights, equal for equal names and shapes."""
    seed = [ord(letter) for letter in name]
    return numpy_helper.from_array(np.random.default_rng(seed).standard_normal(shape).astype(np.float32), name)


def numbers(name: str, values: Any, dtype: Any = np.float32) -> onnx.TensorProto:
    """Return a tensor of the given numbers."""
    return numpy_helper.from_array(np.array(values, dtype), name)


def ints(name: str, *values: int) -> onnx.TensorProto:
    """Return a tensor of int64 numbers."""
    return numbers(name, values, np.int64)


def node(operator: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    """Return a node named as its results; ``inputs`` and ``output`` are names separated by spaces, ``-`` for none."""
    names = [[name.replace("-", "") for name in text.split()] for text in (inputs, output)]
    return helper.make_node(operator, *names, name=names[1][0] if names[1] else "", **attributes)


def model(
    nodes: Sequence[onnx.NodeProto],
    constants: Sequence[onnx.TensorProto] = (),
    shape: Sequence[Any] = ("batch", 3, "height", "width"),
    opset: int = 17,
    kind: int = TensorProto.FLOAT,
    outputs: str = "y",
    **options: Any,
) -> onnx.ModelProto:
    """Return a model from x to ``outputs``."""
    x = helper.make_tensor_value_info("x", kind, list(shape))
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs.split()]
    graph = helper.make_graph(list(nodes), "net", [x], results, list(constants))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], **options)


def convolution(**attributes: Any) -> onnx.ModelProto:
    """Return a convolution of 3 channels to 4."""
    return model([node("Conv", "x w", "y", **attributes)], [tensor("w", 4, 3, 3, 3)])
