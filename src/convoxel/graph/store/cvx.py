"""Programs in files: ``.cvx``, a safetensors file whose metadata holds the graph as JSON.

Format, version 1. The file is a safetensors file (an 8-byte length, a JSON header, the tensors' bytes). Its tensors are
the graph's constants, under their names. Its metadata, all texts:

``format``
    ``"convoxel-program"``
``version``
    ``"1"``; a reader refuses a later one. Anything that an older reader would misunderstand makes a new version.
``program``
    JSON: ``graph`` (``name``, ``inputs``, ``outputs``, ``nodes``, ``guards``, ``assumptions``), ``structure`` (how
    results are nested), ``algorithm`` and ``winners`` (measured choices). A value is
    ``[name, shape, type, layout]``, a node ``[operator, name, inputs, outputs, attributes]``; a size that follows from
    the input's is ``{"size": "h // 2"}``, an infinite number ``{"number": "inf"}``; lists stand for tuples.
``sha256``
    of the text ``program``, then of every tensor in order of names: name, type, shape and bytes.

The graph is stored after all passes, so loading reads, checks and plans, and needs neither PyTorch nor onnx. Nothing in
the file is code: operators are names in ``opset``, sizes are parsed by ``size``.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from convoxel.errors import ConfigError, GraphError, UnsupportedError
from convoxel.files.atomic import write_bytes
from convoxel.graph.ir.graph import CHANNELS_FIRST, CHANNELS_LAST, Graph, Node, Value
from convoxel.graph.ir.pytree import Branch, Fixed, Leaf, Structure
from convoxel.graph.ir.size import Size
from convoxel.graph.operators.table import OPERATORS, make_node, verify
from convoxel.graph.passes import check_layouts
from convoxel.graph.store.tensor_file import TensorFile

if TYPE_CHECKING:
    from convoxel.graph.run.program import Program

__all__ = ["FORMAT", "VERSION", "check_target", "read_program", "write_program"]

FORMAT = "convoxel-program"
VERSION = 1
_KINDS = "biufcV"  # numbers; V are those that NumPy itself lacks


def check_target(path: str | Path) -> Path:
    """Return where a program is to be written; raises ``ConfigError`` if ``load`` would not take the name."""
    target = Path(path)
    if target.suffix != ".cvx":
        raise ConfigError(f"save: {target} ends in {target.suffix!r}; expected .cvx")
    if not target.parent.is_dir():
        raise GraphError(f"save: the folder of {target} is not there; expected an existing folder. Create it first.")
    return target


def write_program(
    path: str | Path, graph: Graph, structure: Structure, algorithm: str, winners: Mapping[str, str]
) -> None:
    """Write a program; an older file of that name is replaced only by a whole one.

    Raises ``UnsupportedError`` if parts of it run in PyTorch, ``GraphError`` if the file cannot be written,
    ``ConfigError`` if its name does not end in .cvx.
    """
    target = check_target(path)
    foreign = [f"{node.name} ({node['label']})" for node in graph.nodes if node.operator == "foreign"]
    if foreign:
        raise UnsupportedError(
            f"save: {len(foreign)} node(s) run in PyTorch and cannot be saved: {', '.join(foreign)}. "
            "Leave them out of the model, or keep the model itself and compile it where it runs."
        )
    text = json.dumps(
        {
            "graph": {
                "name": graph.name,
                "inputs": [_value(value) for value in graph.inputs],
                "outputs": list(graph.outputs),
                "nodes": [_node(node) for node in graph.nodes],
                "guards": [guard.text for guard in graph.guards],
                "assumptions": [assumption.text for assumption in graph.assumptions],
            },
            "structure": _nested(structure),
            "algorithm": algorithm,
            "winners": dict(winners),
        },
        allow_nan=False,
        separators=(",", ":"),
    )
    tensors = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in graph.constants.items()}
    metadata = {"format": FORMAT, "version": str(VERSION), "program": text, "sha256": _digest(text, tensors)}
    write_bytes(target, safetensors.numpy.save(tensors, metadata), GraphError)


def read_program(path: Path, threads: int | None, algorithm: str = "auto") -> Program:
    """Return the program in a file that ``write_program`` made; ``algorithm`` replaces the saved one unless "auto".

    Raises ``GraphError`` if the file is broken, of another kind, or of a newer version.
    """
    from convoxel.graph.run.program import Program

    file = TensorFile(path)
    metadata, tensors = file.metadata, file.tensors
    if metadata.get("format") != FORMAT:
        raise GraphError(f"load: {path} is no saved program; expected a file that program.save(…) wrote.")
    version = metadata.get("version", "")
    if not version.isdecimal() or int(version) > VERSION:
        raise GraphError(
            f"load: {path} has format version {version[:20]!r}; this Convoxel reads up to {VERSION}. "
            "Install the newer Convoxel that wrote it."
        )
    text = metadata.get("program", "")
    if _digest(text, tensors, file.give_back) != metadata.get("sha256"):
        raise GraphError(f"load: {path} is damaged: its checksum is another. Save or copy the program again.")
    try:
        content = json.loads(text)
        graph = _graph(content["graph"], tensors)
        structure = _structure(content["structure"], len(graph.outputs))
        verify(graph)
        check_layouts(graph)
        saved, winners = str(content["algorithm"]), {str(k): str(v) for k, v in content["winners"].items()}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as reason:
        raise GraphError(f"load: {path} holds no valid program ({reason}). Save the program again.") from reason
    algorithm = saved if algorithm == "auto" else algorithm
    return Program(graph, structure, threads=threads, algorithm=algorithm, winners=winners, file=file)


def _digest(text: str, tensors: Mapping[str, NDArray[Any]], after_each: Callable[[], None] = lambda: None) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name}\n{array.dtype}\n{list(array.shape)}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        after_each()
    return digest.hexdigest()


# ---- to JSON ---------------------------------------------------------------------------------------------


def _value(value: Value) -> list[Any]:
    return [value.name, [_plain(extent) for extent in value.shape], value.dtype, value.layout]


def _node(node: Node) -> list[Any]:
    attributes = {key: _plain(value) for key, value in node.attributes.items()}
    return [node.operator, node.name, list(node.inputs), [_value(value) for value in node.outputs], attributes]


def _plain(value: Any) -> Any:
    if isinstance(value, Size):
        return {"size": value.text}
    if isinstance(value, list | tuple):
        return [_plain(element) for element in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UnsupportedError(f"save: an attribute is a {type(value).__name__}, which the format cannot hold")


def _nested(structure: Structure) -> Any:
    if isinstance(structure, Leaf):
        return {"leaf": structure.index}
    if isinstance(structure, Fixed):
        return {"fixed": _plain(structure.value)}
    keys = [_plain(key) for key in structure.keys]
    return {"kind": structure.kind, "children": [_nested(child) for child in structure.children], "keys": keys}


# ---- from JSON -------------------------------------------------------------------------------------------


def _graph(content: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> Graph:
    return Graph(
        str(content["name"]),
        tuple(_read_value(value) for value in content["inputs"]),
        tuple(map(str, content["outputs"])),
        tuple(_read_node(*node) for node in content["nodes"]),
        dict(tensors),
        tuple(Size(guard) for guard in content["guards"]),
        tuple(Size(assumption) for assumption in content["assumptions"]),
    )


def _read_value(content: Any) -> Value:
    name, shape, dtype, layout = content
    extents = _tupled(shape)
    if not all(isinstance(extent, Size) or (type(extent) is int and extent >= 0) for extent in extents):
        raise ValueError(f"value {name} has shape {shape}")
    if np.dtype(dtype).kind not in _KINDS or layout not in (CHANNELS_FIRST, CHANNELS_LAST):
        raise ValueError(f"value {name} has type {dtype} and layout {layout}")
    return Value(str(name), extents, str(np.dtype(dtype)), layout)


def _read_node(operator: str, name: str, inputs: list[str], outputs: list[Any], attributes: dict[str, Any]) -> Node:
    values = tuple(_read_value(value) for value in outputs)
    given = {key: _tupled(value) for key, value in attributes.items()}
    if operator in OPERATORS:  # operands and attributes that it has gained since the file was written are absent
        return make_node(operator, name, inputs, values, **given)
    return Node(operator, name, tuple(inputs), values, given)


def _tupled(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_tupled(element) for element in value)
    if isinstance(value, dict):
        return Size(value["size"]) if "size" in value else float(value["number"])
    return value


def _structure(content: Mapping[str, Any], outputs: int) -> Structure:
    if "leaf" in content:
        index = int(content["leaf"])
        if not 0 <= index < outputs:
            raise ValueError(f"result {index} of {outputs}")
        return Leaf(index)
    if "fixed" in content:
        return Fixed(_tupled(content["fixed"]))
    children = tuple(_structure(child, outputs) for child in content["children"])
    return Branch(str(content["kind"]), children, _tupled(content["keys"]))
