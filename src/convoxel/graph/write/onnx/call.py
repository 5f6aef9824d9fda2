"""An ONNX graph in the making, and the table of rules: one for each operator of ours.

A rule gets a ``Call`` and returns the names of its results, after adding ONNX nodes. What ONNX has no operators for is
``NotExpressible``; the model is then refused, with every such node in the message.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from convoxel.files.values import Array
from convoxel.graph.ir.graph import Graph, Node, Value
from convoxel.graph.ir.size import Extents, Scalar, Size
from convoxel.graph.write.onnx.sizes import NotExpressible, SizeTensors

OLDEST = 18  # the operator set of a model whose operators need no later one
_FEW = 64  # elements of a constant of ours that equal ones share


_ACTIVATIONS = {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "hard_swish": "HardSwish",
    "tanh": "Tanh",
    "softplus": "Softplus",
    "selu": "Selu",
}
_SLOPED = {"leaky_relu": "LeakyRelu", "elu": "Elu", "celu": "Celu"}


class Writer:
    """An ONNX graph in the making: nodes, constants, and the ONNX names of our values."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.opset = OLDEST
        self.names = {value.name: value.name for value in graph.inputs}
        self._taken = set(self.names)
        self._numbers: dict[str, int] = {}
        self._shared: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self.sizes = SizeTensors(self.add, self.constant, graph.inputs)

    def unique(self, name: str) -> str:
        """Return ``name``, numbered if it is taken, and take it."""
        candidate, number = name, self._numbers.get(name, 1)
        while candidate in self._taken:
            number += 1
            candidate = f"{name}_{number}"
        self._numbers[name] = number
        self._taken.add(candidate)
        return candidate

    def add(self, operator: str, inputs: Sequence[str], name: str, results: int = 1, **attributes: Any) -> list[str]:
        """Add a node and return the names of its results; attributes that are None are left out."""
        name = self.unique(f"{name}/{operator}")
        outputs = [name] if results == 1 else [self.unique(f"{name}.{index}") for index in range(results)]
        present = list(inputs)
        while present and not present[-1]:
            present.pop()
        given = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(operator, present, outputs, name=name, **given))
        return outputs

    def constant(self, array: Array, name: str) -> str:
        """Add a constant and return its name; small ones that are equal are added once."""
        array = np.asarray(array)
        key = (str(array.dtype), array.shape, array.tobytes()) if array.size <= _FEW else None
        if key is not None and key in self._shared:
            return self._shared[key]
        name = self.unique(name)
        # A scalar stays one: ascontiguousarray would make it a vector.
        self.constants[name] = numpy_helper.from_array(np.array(array, order="C", copy=None), name)
        if key is not None:
            self._shared[key] = name
        return name

    def tensor(self, name: str) -> str:
        """Return the ONNX name of a value or constant of ours."""
        if name not in self.names:
            self.names[name] = self.constant(self.graph.constants[name], name)
        return self.names[name]

    def require(self, opset: int) -> None:
        """Let the model use the operator set ``opset``, or a later one."""
        self.opset = max(self.opset, opset)


class Call:
    """One node of our graph while its rule runs."""

    def __init__(self, writer: Writer, node: Node) -> None:
        self.writer, self.node = writer, node

    def __getitem__(self, attribute: str) -> Any:
        return self.node[attribute]

    def __len__(self) -> int:
        return len(self.node.inputs)

    # ---- operands --------------------------------------------------------------------------------------------

    def has(self, index: int) -> bool:
        """Return whether an operand is there."""
        return index < len(self.node.inputs) and bool(self.node.inputs[index])

    def operand(self, index: int) -> str:
        """Return the ONNX name of an operand, "" where it is absent."""
        return self.writer.tensor(self.node.inputs[index]) if self.has(index) else ""

    @property
    def x(self) -> str:
        """The first operand."""
        return self.operand(0)

    def known(self, index: int) -> Array | None:
        """Return an operand that is a constant, else None."""
        return self.writer.graph.constants.get(self.node.inputs[index]) if self.has(index) else None

    def shape(self, index: int = 0) -> Extents:
        """Return the shape of an operand, with open sizes."""
        name = self.node.inputs[index]
        constant = self.writer.graph.constants.get(name)
        return self.writer.graph.values[name].shape if constant is None else tuple(constant.shape)

    def dtype(self, index: int = 0) -> str:
        """Return the type of an operand."""
        name = self.node.inputs[index]
        constant = self.writer.graph.constants.get(name)
        return self.writer.graph.values[name].dtype if constant is None else str(constant.dtype)

    def rank(self, index: int = 0) -> int:
        """Return the number of axes of an operand."""
        return len(self.shape(index))

    # ---- results ---------------------------------------------------------------------------------------------

    @property
    def result(self) -> Value:
        """The first result."""
        return self.node.outputs[0]

    def reads(self, index: int) -> bool:
        """Return whether somebody reads a result."""
        if index >= len(self.node.outputs):
            return False
        name, graph = self.node.outputs[index].name, self.writer.graph
        return name in graph.users or name in graph.results

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one result and return its name."""
        return self.writer.add(operator, inputs, self.node.name, **attributes)[0]

    def several(self, results: int, operator: str, *inputs: str, **attributes: Any) -> list[str]:
        """Add a node with several results and return their names."""
        return self.writer.add(operator, inputs, self.node.name, results, **attributes)

    def constant(self, array: Any, what: str = "constant") -> str:
        """Add a constant and return its name."""
        return self.writer.constant(np.asarray(array), f"{self.node.name}/{what}")

    def number(self, value: float, dtype: str | None = None) -> str:
        """Add a number of the first operand's type, or of ``dtype``, and return its name."""
        return self.constant(np.array(value, dtype or self.dtype()), "number")

    def ints(self, values: Sequence[int]) -> str:
        """Add whole numbers and return the constant's name."""
        return self.constant(np.array(values, np.int64), "ints")

    def vector(self, values: Sequence[Scalar]) -> str:
        """Return the name of a vector of whole numbers, some of which may be open sizes."""
        return self.writer.sizes.vector(values, self.node.name)

    def alike(self, *indices: int) -> list[str]:
        """Return operands in one type: ONNX combines no others."""
        types = [self.dtype(index) for index in indices]
        common = str(np.result_type(*types))
        return [self.cast(self.operand(i), dtype, common) for i, dtype in zip(indices, types, strict=True)]

    def cast(self, x: str, old: str, new: str) -> str:
        """Return a tensor of type ``old`` in the type ``new``."""
        return x if old == new else self.add("Cast", x, to=onnx_type(new))

    def per_channel(self, array: Array, rank: int) -> str:
        """Add one number for each channel, or one for all, in a shape that stretches to ``rank`` axes."""
        flat = np.asarray(array).reshape(-1)
        return self.constant(flat.reshape(-1, *(1,) * max(rank - 2, 0)) if flat.size > 1 else flat, "channels")

    def reshaped(self, x: str, shape: Sequence[Scalar], old: Extents | None = None) -> str:
        """Reshape a tensor; ``old`` is its shape, of which axes that stay need not be computed."""
        if math.prod(size for size in shape if not isinstance(size, Size)) == 0:
            return self.add("Reshape", x, self.vector(shape), allowzero=1)
        said: list[Any] = list(shape)
        for axis, size in enumerate(shape):
            if isinstance(size, Size) and old is not None and axis < len(old) and old[axis] == size:
                said[axis] = 0
        open_axes = [axis for axis, size in enumerate(said) if isinstance(size, Size)]
        if len(open_axes) == 1:
            said[open_axes[0]] = -1
        return self.add("Reshape", x, self.vector(said))

    def finished(self, y: str) -> str:
        """Apply the activation that is fused into the node, if there is one."""
        return self.activated(y, self.node["activation"], self.node["slope"])

    def activated(self, y: str, kind: str, slope: Any) -> str:
        """Apply an activation of the engine."""
        if kind == "none":
            return y
        if kind in _ACTIVATIONS:
            return self.add(_ACTIVATIONS[kind], y)
        if kind in _SLOPED:
            return self.add(_SLOPED[kind], y, alpha=float(slope))
        if kind == "hard_sigmoid":
            return self.add("HardSigmoid", y, alpha=1 / 6, beta=0.5)
        if kind in ("relu6", "clip"):
            low, high = (0.0, 6.0) if kind == "relu6" else slope
            ends = [self.number(end, "float32") if math.isfinite(end) else "" for end in (low, high)]
            return self.add("Clip", y, *ends)
        if kind == "silu":
            return self.add("Mul", y, self.add("Sigmoid", y))
        if kind == "mish":
            return self.add("Mul", y, self.add("Tanh", self.add("Softplus", y)))
        if kind in ("gelu", "gelu_tanh"):
            return gelu(self, y, "float32", tanh=kind == "gelu_tanh")
        raise NotExpressible(f"the activation {kind}")


def gelu(call: Call, x: str, dtype: str, *, tanh: bool) -> str:
    """Return x · Φ(x), or its approximation by a hyperbolic tangent (Hendrycks & Gimpel 2016)."""
    if tanh:
        cube = call.add("Mul", call.add("Mul", call.add("Mul", x, x), x), call.number(0.044715, dtype))
        inner = call.add("Mul", call.add("Add", x, cube), call.number(math.sqrt(2 / math.pi), dtype))
        share = call.add("Tanh", inner)
    else:
        share = call.add("Erf", call.add("Mul", x, call.number(1 / math.sqrt(2), dtype)))
    half = call.add("Mul", x, call.number(0.5, dtype))
    return call.add("Mul", half, call.add("Add", share, call.number(1.0, dtype)))


def onnx_type(dtype: str) -> int:
    """Return ONNX's number of a type."""
    try:
        return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    except (KeyError, TypeError, ValueError):
        raise NotExpressible(f"tensors of {dtype}") from None


Rule = Callable[[Call], str | Sequence[str]]
RULES: dict[str, Rule] = {}


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Register a function as the rule of operators."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(operators, function))
        return function

    return register
