"""From an ONNX model to a graph, without running any of it.

``file`` reads the file and checks what it claims; ``call`` holds the table of rules; ``spatial``, ``numeric`` and
``tensors`` fill it. This file walks the ONNX graph from node to node, inferring shapes with open batch and spatial
sizes. Operators without a rule are replaced by their definition, where ONNX defines them by others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx.inliner
from numpy.typing import NDArray

from convoxel.errors import ConvoxelError, GraphError, UnsupportedError
from convoxel.graph.from_onnx import numeric, spatial, tensors
from convoxel.graph.from_onnx.call import RULES, Call, Tensor
from convoxel.graph.from_onnx.file import check_version, dtype_name, load_model, tensor_array
from convoxel.graph.ir import Graph, Value
from convoxel.graph.reader import NeedsValue, NotNative, Reader
from convoxel.graph.size import Extent, Size
from convoxel.graph.structure import Branch, Leaf, Structure

__all__ = ["OnnxModel", "numeric", "open_model", "read", "spatial", "tensors"]

_DOMAINS = ("", "ai.onnx")
_INLININGS = 8  # functions of functions; deeper nesting is an attack, not a network
_LETTERS = {2: "nc", 3: "ncw", 4: "nchw", 5: "ncdhw"}
_MAX_NODES = 200_000


@dataclass(frozen=True)
class OnnxModel:
    """A model whose functions are replaced by their definitions, and the folder of its external data."""

    model: onnx.ModelProto
    folder: Path | None


def open_model(source: Path | onnx.ModelProto) -> OnnxModel:
    """Return a model, ready to be read; see ``file.load_model`` for what is refused."""
    if isinstance(source, onnx.ModelProto):
        check_version(source, "the model")
        return OnnxModel(_inlined(source), None)
    return OnnxModel(_inlined(load_model(source)), source.parent)


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model without local functions, and with operators that lack a rule replaced by their definition."""
    try:
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
    except Exception as reason:  # the inliner is C++ and raises kinds of its own
        raise GraphError(f"load: the model's functions cannot be expanded: {_line(reason)}") from None
    for _ in range(_INLININGS):
        wanted = sorted({n.op_type for n in model.graph.node if n.domain in _DOMAINS} - RULES.keys())
        known = [("", name) for name in wanted if _has_definition(name)]
        if not known:
            break
        try:
            model = onnx.inliner.inline_selected_functions(_typed(model), known, inline_schema_functions=True)
        except Exception:  # a definition that the inliner cannot expand; the walk lists its operator
            break
    return model


def _has_definition(operator: str) -> bool:
    try:
        schema = onnx.defs.get_schema(operator)
    except onnx.defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)


def _typed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with the types of its initialisers said, which definitions may ask for."""
    known = {info.name for info in (*model.graph.input, *model.graph.value_info)}
    infos = [
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        for tensor in model.graph.initializer
        if tensor.name not in known
    ]
    typed = onnx.ModelProto()
    typed.CopyFrom(model)
    typed.graph.value_info.extend(infos)
    return typed


def read(source: OnnxModel, values: Mapping[str, NDArray[Any]] | None = None) -> tuple[Graph, Structure]:
    """Return the graph of a model and how its results are nested: one tensor, or a tuple of them.

    ``values`` fixes inputs whose values decide sizes; they are then no inputs of the graph.

    Raises ``NeedsValue`` naming such inputs, ``UnsupportedError`` listing every node that has no counterpart,
    ``GraphError`` for a model that contradicts itself.
    """
    walk = _Walk(source, values or {})
    try:
        return walk.graph()
    except ConvoxelError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, ZeroDivisionError) as reason:
        raise GraphError(
            f"load: {walk.where} contradicts itself: {type(reason).__name__}: {_line(reason)}. "
            "Check the model with onnx.checker."
        ) from reason


class _Walk:
    """One pass over an ONNX graph; ``tensors`` holds what each of its names became."""

    def __init__(self, source: OnnxModel, values: Mapping[str, NDArray[Any]]) -> None:
        self._source = source
        self._values = values
        self._reader = Reader(source.model.graph.name or "onnx")
        self._tensors: dict[str, Tensor | None] = {"": None}
        self._origins: dict[str, frozenset[str]] = {}
        self._unsupported: list[str] = []
        self._needed: dict[str, None] = {}
        self._parameters: dict[str, str] = {}
        self._version = max((e.version for e in source.model.opset_import if e.domain in _DOMAINS), default=1)
        self.where = "the model"

    def graph(self) -> tuple[Graph, Structure]:
        """Return the whole graph."""
        onnx_graph = self._source.model.graph
        if len(onnx_graph.node) > _MAX_NODES:
            raise GraphError(f"load: the model has {len(onnx_graph.node)} nodes; at most {_MAX_NODES} are read.")
        self._initialise(onnx_graph)
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
        names = [self._output(info.name) for info in onnx_graph.output]
        if not names:
            raise GraphError("load: the model has no output; expected at least one.")
        leaves = tuple(Leaf(index) for index in range(len(names)))
        return self._reader.graph(names), leaves[0] if len(leaves) == 1 else Branch("tuple", leaves)

    def _initialise(self, onnx_graph: onnx.GraphProto) -> None:
        if onnx_graph.sparse_initializer:
            raise UnsupportedError("load: the model has sparse initialisers; export it with dense ones.")
        for tensor in onnx_graph.initializer:
            self._tensors[tensor.name] = tensor_array(tensor, self._source.folder)

    def _input(self, info: onnx.ValueInfoProto, index: int) -> Value:
        kind = info.type.WhichOneof("value")
        if kind != "tensor_type":
            raise UnsupportedError(f"load: input {info.name!r} is a {kind or 'nothing'}; expected a tensor.")
        tensor = info.type.tensor_type
        if not tensor.HasField("shape"):
            raise UnsupportedError(f"load: input {info.name!r} has no shape; export it with a fixed number of axes.")
        letters = _LETTERS.get(len(tensor.shape.dim), "abcdefgh"[: len(tensor.shape.dim)])
        shape = tuple(
            self._axis(dim, f"{letter}{index + 1 if index else ''}")
            for dim, letter in zip(tensor.shape.dim, letters, strict=True)
        )
        value = Value(self._reader.unique(info.name), shape, dtype_name(tensor.elem_type))
        self._reader.inputs.append(value)
        self._origins[value.name] = frozenset([info.name])
        return value

    def _axis(self, dim: Any, letter: str) -> Extent:
        """Return an axis: its number, or an open size that axes with the same name share."""
        if dim.HasField("dim_value"):
            if dim.dim_value < 0:
                return Size(letter)  # as some exporters write an open size
            return int(dim.dim_value)
        if not dim.dim_param:
            return Size(letter)
        return Size(self._parameters.setdefault(dim.dim_param, letter))

    def _output(self, name: str) -> str:
        tensor = self._tensors.get(name)
        if tensor is None:
            raise GraphError(f"load: output {name!r} is made by no node; the model is incomplete.")
        if isinstance(tensor, Value):
            return tensor.name
        if tensor.dtype == object:
            return self._call(onnx.NodeProto(op_type="Identity", name=name), []).materialise(tensor).name
        return self._reader.constant(tensor, f"{name}.result")

    # ---- nodes -------------------------------------------------------------------------------------------

    def _nodes(self, nodes: Sequence[onnx.NodeProto]) -> None:
        for node in nodes:
            self.where = f"{node.op_type} {node.name or '/'.join(node.output)}"
            missing = [name for name in node.input if name not in self._tensors]
            if node.domain not in _DOMAINS or node.op_type not in RULES:
                domain = f"{node.domain}." if node.domain not in _DOMAINS else ""
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
            result = RULES[node.op_type](self._call(node, inputs))
        except NotNative as reason:
            self._unsupported.append(f"{self.where} ({reason})")
            return
        except NeedsValue as reason:
            if not reason.names or reason.names & self._values.keys():
                self._unsupported.append(f"{self.where} ({reason})")
            self._needed.update(dict.fromkeys(reason.names))
            return
        results = list(result) if isinstance(result, list | tuple) else [result]
        origins: frozenset[str] = frozenset().union(
            *(self._origins.get(t.name, frozenset()) for t in inputs if isinstance(t, Value))
        )
        for made in self._reader.nodes[begun:]:
            self._origins.update((value.name, origins) for value in made.outputs)
        for name, tensor in zip(node.output, results, strict=False):
            if name:
                if name in self._tensors and self._tensors[name] is not None:
                    raise GraphError(f"load: {self.where} defines {name!r} a second time.")
                self._tensors[name] = tensor

    def _call(self, node: onnx.NodeProto, inputs: Sequence[Tensor | None]) -> Call:
        return Call(
            self._reader,
            node.op_type,
            node.name or (node.output[0] if node.output else node.op_type),
            inputs,
            {attribute.name: self._attribute(attribute) for attribute in node.attribute},
            self._version,
            [bool(name) for name in node.output],
            lambda value: self._origins.get(value.name, frozenset()),
            self._branch,
        )

    def _attribute(self, attribute: onnx.AttributeProto) -> Any:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, onnx.TensorProto):
            return tensor_array(value, self._source.folder)
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        return list(value) if attribute.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS) else value

    def _branch(self, onnx_graph: onnx.GraphProto) -> list[Tensor]:
        """Return the results of a part of the network that a known condition has chosen."""
        self._initialise(onnx_graph)
        self._nodes(onnx_graph.node)
        results = [self._tensors.get(info.name) for info in onnx_graph.output]
        if any(result is None for result in results):
            raise NotNative("a branch that is not supported")
        return [result for result in results if result is not None]


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300].rstrip(".") if lines else "no message"
