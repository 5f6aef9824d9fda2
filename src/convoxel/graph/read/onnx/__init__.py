"""From an ONNX model to a graph, without running any of it.

``file`` reads the file and checks what it claims; ``call`` holds the table of rules; ``spatial``, ``normalisation``,
``numeric`` and ``tensors`` fill it; ``function`` replaces operators without a rule by their definition, where ONNX or
the file defines them by others. This file walks the ONNX graph from node to node, inferring shapes with open batch and
spatial sizes; ``signature`` checks each node before its rule is asked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from convoxel.errors import ConvoxelError, GraphError, UnsupportedError
from convoxel.files.source import Content
from convoxel.files.values import Array
from convoxel.graph.ir.graph import Graph, Value
from convoxel.graph.ir.pytree import Branch, Leaf, Structure
from convoxel.graph.ir.size import Extent, Size
from convoxel.graph.read.onnx import normalisation, numeric, spatial, tensors
from convoxel.graph.read.onnx.call import RULES, Budget, Call, Parts, Tensor, dtype_of
from convoxel.graph.read.onnx.file import (
    DOMAINS,
    HALF,
    check_version,
    dtype_name,
    first_line,
    load_model,
    tensor_array,
    working_dtype,
)
from convoxel.graph.read.onnx.function import expanded
from convoxel.graph.read.onnx.signature import SIZES, check_node
from convoxel.graph.read.reader import NeedsValue, NotNative, Reader

__all__ = ["OnnxModel", "explained", "normalisation", "numeric", "open_model", "read", "spatial", "tensors"]

_MANY_LETTERS = "abcdefgh"
_LETTERS = {2: "nc", 3: "ncw", 4: "nchw", 5: "ncdhw"}


@dataclass(frozen=True)
class OnnxModel:
    """A model whose functions are replaced by their definitions, and the file that it came from."""

    model: onnx.ModelProto
    path: Path | None


def open_model(source: Path | Content | onnx.ModelProto) -> OnnxModel:
    """Return a model, ready to be read; see ``file.load_model`` for what is refused."""
    with explained(lambda: "the model"):
        if isinstance(source, onnx.ModelProto):
            check_version(source, "the model")
            return OnnxModel(expanded(source), None)
        return OnnxModel(expanded(load_model(source)), source if isinstance(source, Path) else None)


@contextlib.contextmanager
def explained(where: Callable[[], str]) -> Iterator[None]:
    """Make a ``GraphError`` of what Python and NumPy raise over a model that makes no sense."""
    try:
        yield
    except ConvoxelError:
        raise
    except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as reason:
        raise GraphError(
            f"load: {where()} contradicts itself: {type(reason).__name__}: {first_line(reason)}. "
            "Check the model with onnx.checker."
        ) from reason


def read(source: OnnxModel, values: Mapping[str, Array] | None = None) -> tuple[Graph, Structure]:
    """Return the graph of a model and how its results are nested: one tensor, or a tuple of them.

    ``values`` fixes inputs whose values decide sizes; they are then no inputs of the graph.

    Raises ``NeedsValue`` naming such inputs, ``UnsupportedError`` listing every node that has no counterpart,
    ``GraphError`` for a model that contradicts itself.
    """
    walk = _Walk(source, values or {})
    with explained(lambda: walk.where):
        return walk.graph()


class _Walk:
    """One pass over an ONNX graph; ``tensors`` holds what each of its names became."""

    def __init__(self, source: OnnxModel, values: Mapping[str, Array]) -> None:
        self._source = source
        self._values = values
        self._reader = Reader(source.model.graph.name or "onnx")
        self._tensors: dict[str, Tensor | Parts | None] = {"": None}
        self._origins: dict[str, frozenset[str]] = {}
        self._unsupported: list[str] = []
        self._needed: dict[str, None] = {}
        self._parameters: dict[str, str] = {}
        self._budget = Budget()
        self._read = _names_read(source.model.graph)
        self._version = max((e.version for e in source.model.opset_import if e.domain in DOMAINS), default=1)
        self.where = "the model"

    def graph(self) -> tuple[Graph, Structure]:
        """Return the whole graph."""
        onnx_graph = self._source.model.graph
        self._initialise(onnx_graph)
        names = [info.name for info in onnx_graph.input]
        if len(set(names)) != len(names):
            raise GraphError(f"load: two inputs have the same name, among {', '.join(map(repr, names))}.")
        for info in onnx_graph.input:
            if info.name in self._values:
                self._tensors[info.name] = self._values[info.name]
            elif info.name not in self._tensors:
                self._tensors[info.name] = self._input(info, len(self._reader.inputs))
        self._nodes(onnx_graph.node)
        if self._unsupported:
            listed = "; ".join(self._unsupported)
            raise UnsupportedError(
                f"load: {len(self._unsupported)} node(s) of the model are not supported: {listed}. "
                "Leave them out of the export, or run the model in the framework that it came from."
            )
        if self._needed:
            raise NeedsValue(frozenset(self._needed), "a size")
        outputs = [self._output(info) for info in onnx_graph.output]
        if not outputs:
            raise GraphError("load: the model has no output; expected at least one.")
        leaves = tuple(Leaf(index, info.name) for index, info in enumerate(onnx_graph.output))
        return self._reader.graph(outputs), leaves[0] if len(leaves) == 1 else Branch("tuple", leaves)

    def _initialise(self, onnx_graph: onnx.GraphProto) -> None:
        if onnx_graph.sparse_initializer:
            raise UnsupportedError("load: the model has sparse initialisers; export it with dense ones.")
        for tensor in onnx_graph.initializer:
            if tensor.name in self._tensors:
                raise GraphError(f"load: tensor {tensor.name!r} is defined a second time, or has no name.")
            array = self._tensors[tensor.name] = self._known(tensor)
            self._budget.hold(array.shape, str(array.dtype))

    def _known(self, tensor: onnx.TensorProto) -> Array:
        array = tensor_array(tensor, self._source.path)
        return array.astype(np.float32) if str(array.dtype) in HALF else array

    def _input(self, info: onnx.ValueInfoProto, index: int) -> Value:
        kind = info.type.WhichOneof("value")
        if kind != "tensor_type":
            raise UnsupportedError(f"load: input {info.name!r} is a {kind or 'nothing'}; expected a tensor.")
        tensor = info.type.tensor_type
        if not tensor.HasField("shape"):
            raise UnsupportedError(f"load: input {info.name!r} has no shape; export it with a fixed number of axes.")
        if len(tensor.shape.dim) > len(_MANY_LETTERS):
            raise UnsupportedError(f"load: input {info.name!r} has {len(tensor.shape.dim)} axes; expected at most 8.")
        letters = _LETTERS.get(len(tensor.shape.dim), _MANY_LETTERS[: len(tensor.shape.dim)])
        shape = tuple(
            self._axis(dim, f"{letter}{index + 1 if index else ''}")
            for dim, letter in zip(tensor.shape.dim, letters, strict=True)
        )
        value = Value(self._reader.unique(info.name), shape, dtype_name(tensor.elem_type))
        self._reader.add_input(value)
        self._budget.hold(shape, value.dtype)
        self._origins[value.name] = frozenset([info.name])
        return self._cast(value, working_dtype(tensor.elem_type)) if value.dtype in HALF else value

    def _cast(self, value: Value, dtype: str) -> Value:
        (cast,) = self._reader.add("cast", f"{value.name}.cast", [value.name], [value.shape], [dtype], to=dtype)
        self._origins[cast.name] = self._origins.get(value.name, frozenset())
        return cast

    def _axis(self, dim: Any, letter: str) -> Extent:
        """Return an axis: its number, or an open size that axes with the same name share."""
        if dim.HasField("dim_value"):
            if dim.dim_value < 0:
                return Size(letter)  # as some exporters write an open size
            return int(dim.dim_value)
        if not dim.dim_param:
            return Size(letter)
        return Size(self._parameters.setdefault(dim.dim_param, letter))

    def _output(self, info: onnx.ValueInfoProto) -> str:
        name, elem_type = info.name, info.type.tensor_type.elem_type
        tensor = self._tensors.get(name)
        if tensor is None:
            raise GraphError(f"load: output {name!r} is made by no node; the model is incomplete.")
        if isinstance(tensor, Parts):
            raise UnsupportedError(f"load: output {name!r} is a sequence; expected a tensor.")
        half = elem_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16) and dtype_of(tensor) == "float32"
        if isinstance(tensor, Value):
            return self._cast(tensor, dtype_name(elem_type)).name if half else tensor.name
        if half:
            tensor = tensor.astype(dtype_name(elem_type))
        if tensor.dtype == object:
            return self._call(onnx.NodeProto(op_type="Identity", name=name), []).materialise(tensor).name
        return self._reader.constant(tensor, f"{name}.result")

    # ---- nodes -------------------------------------------------------------------------------------------

    def _nodes(self, nodes: Sequence[onnx.NodeProto]) -> None:
        for node in nodes:
            self.where = f"{node.op_type} {node.name or '/'.join(node.output)}"
            missing = [name for name in node.input if name not in self._tensors]
            if node.domain not in DOMAINS or node.op_type not in RULES:
                domain = f"{node.domain}." if node.domain not in DOMAINS else ""
                self._unsupported.append(f"{domain}{self.where}")
                continue
            if missing:
                if not self._unsupported and not self._needed:
                    raise GraphError(f"load: {self.where} reads {missing[0]!r}, which nothing before it makes.")
                continue  # behind a node that is listed already
            self._node(node)

    def _node(self, node: onnx.NodeProto) -> None:
        inputs = [self._tensors[name] for name in node.input]
        begun = len(self._reader.nodes)
        try:
            self._check(node, inputs)
            result = RULES[node.op_type](self._call(node, inputs))
        except NotNative as reason:
            self._unsupported.append(f"{self.where} ({reason})")
            return
        except NeedsValue as reason:
            if not reason.names or reason.names & self._values.keys():
                self._unsupported.append(f"{self.where} ({reason})")
            self._needed.update(dict.fromkeys(reason.names))
            return
        results = [result] if isinstance(result, Value | np.ndarray | Parts) else list(result)
        origins: frozenset[str] = frozenset().union(
            *(self._origins.get(t.name, frozenset()) for t in inputs if isinstance(t, Value))
        )
        for made in self._reader.nodes[begun:]:
            for value in made.outputs:  # those of a branch are known already
                self._origins.setdefault(value.name, origins)
        for name, tensor in zip(node.output, results, strict=False):
            if name:
                if name in self._tensors and self._tensors[name] is not None:
                    raise GraphError(f"load: {self.where} defines {name!r} a second time.")
                self._tensors[name] = tensor

    def _check(self, node: onnx.NodeProto, inputs: Sequence[Tensor | Parts | None]) -> None:
        try:
            check_node(node, self._version, [_said(tensor) for tensor in inputs])
        except GraphError as reason:
            raise GraphError(f"load: {self.where}: {reason}. Check the model with onnx.checker.") from None

    def _call(self, node: onnx.NodeProto, inputs: Sequence[Tensor | Parts | None]) -> Call:
        name = node.name or (node.output[0] if node.output else node.op_type)
        attributes = {attribute.name: self._attribute(attribute) for attribute in node.attribute}
        used = [name in self._read for name in node.output]
        callbacks = (lambda value: self._origins.get(value.name, frozenset())), self._branch
        reads = self._reader, node.op_type, name, inputs, attributes, self._version, used, self._budget
        return Call(*reads, *callbacks, self._source.model.producer_name)

    def _attribute(self, attribute: onnx.AttributeProto) -> Any:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, onnx.TensorProto):
            return self._known(value)
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        return list(value) if attribute.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS) else value

    def _branch(self, onnx_graph: onnx.GraphProto) -> list[Tensor]:
        """Return the results of a part of the network that a known condition has chosen."""
        self._initialise(onnx_graph)
        self._nodes(onnx_graph.node)
        results = [self._tensors.get(info.name) for info in onnx_graph.output]
        tensors = [result for result in results if isinstance(result, Value | np.ndarray)]
        if len(tensors) < len(results):
            if self._needed and not self._unsupported:
                raise NeedsValue(frozenset(self._needed), "a size in a branch")
            raise NotNative("a branch that is not supported")
        return tensors


def _names_read(onnx_graph: onnx.GraphProto) -> set[str]:
    """Return the names that a node reads, here or in a branch, or that are results."""
    names = {info.name for info in onnx_graph.output}
    for node in onnx_graph.node:
        names.update(filter(None, node.input))
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())):
                names |= _names_read(inner)
    return names


def _said(tensor: Tensor | Parts | None) -> str | None:
    """Return the type of an operand; open sizes are whole numbers of any type."""
    if tensor is None or isinstance(tensor, Parts):
        return tensor if tensor is None else SIZES
    return SIZES if isinstance(tensor, np.ndarray) and tensor.dtype == object else dtype_of(tensor)
