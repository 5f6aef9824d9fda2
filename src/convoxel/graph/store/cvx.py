"""Programs in files: ``.cvx``, a safetensors file whose metadata holds the graphs as JSON.

Format, version 5. The file is a safetensors file (an 8-byte length, a JSON header, the tensors' bytes). Its tensors are
the constants of the graph, under their names, and those of the recorded graph alone. Its metadata, all texts:

``format``
    ``"convoxel-program"``
``version``
    ``"5"``; a reader refuses a later one. Anything that an older reader would misunderstand makes a new version.
``program``
    JSON: ``graph`` (``name``, ``inputs``, ``outputs``, ``nodes``, ``guards``, ``assumptions``), ``structure`` (nesting
    of the results), ``algorithm``, ``precision``, ``choices`` (the algorithms of the convolutions, by the instruction
    set and the text of a problem), ``notes`` (texts by name; absent: none), ``sizes`` (null or the sizes by name that
    it was compiled with) and ``recorded`` (null or the graph before all passes, which is read when somebody asks for
    it).
    A value is ``[name, shape, type, layout]``, a node
    ``[operator, name, inputs, outputs, attributes]``; a size that follows from the input's is ``{"size": "h // 2"}``,
    an infinite number ``{"number": "inf"}``; lists stand for tuples. ``recorded`` has ``tensors``,
    the file's tensor by the name of a constant; ``added``, the tensors that are no constants of ``graph``; and
    ``graph``, JSON in zlib in base85: as above, with ``constants``, ``[type, shape]`` of those whose numbers nobody
    needs, and ``parameters``, how many trained parameters a constant or node holds.
    ``native`` lists the tensors that ``native`` alone names.
``sha256``
    of the texts ``program``, ``native`` and ``checksum``, then of every tensor in order of names: name, type, shape and
    bytes.
``native``, ``checksum``
    The steps for programs without Python, JSON whose fields ``run.native_plan`` writes and ``csrc/capi`` reads: plans
    of steps, with whole numbers, or expressions of the input's sizes; or ``refused``, why there are none. The checksum
    is the engine's, of the texts ``program`` and ``native``, and of every tensor in order of names: a line of name,
    type and shape, and the bytes. Absent from a pickle, which Python alone reads.

Before version 5 there was no ``native``. Before version 4 there was ``winners`` instead of ``choices``: measured
algorithms, of an instruction set that is not named. Version 1 lacks ``precision`` (``algorithm`` is ``"fast"`` for
``"high"``) and ``recorded``, and some of its operators have other names and attributes (``first_version``).

The graph is stored after all passes, so loading reads, checks and plans, and needs neither PyTorch nor onnx. Nothing in
the file is code: operators are names of rows, sizes are parsed by ``size``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from convoxel.errors import GraphError, UnsupportedError
from convoxel.files.source import Content, Target, write_target
from convoxel.files.values import Array, JsonObject
from convoxel.graph.ir.graph import CHANNELS_FIRST, CHANNELS_LAST, Graph, Node, Value
from convoxel.graph.ir.pytree import Branch, Fixed, Leaf, Structure
from convoxel.graph.ir.shape_only import ShapeOnly
from convoxel.graph.ir.size import Size
from convoxel.graph.operators.table import OPERATORS, make_node, verify
from convoxel.graph.passes import check_layouts
from convoxel.graph.store.first_version import of_first_version
from convoxel.graph.store.record import NativePlans, Origin, ProgramRecord, check_settings
from convoxel.graph.store.tensor_file import TensorFile, Tensors, lay_out, type_name
from convoxel.native.checksum import checksum
from convoxel.native.machine import instruction_set

FORMAT = "convoxel-program"
VERSION = 5
_LARGEST_BYTES = 64 * 2**20  # of a recorded graph's JSON: a hundred thousand nodes
_BATCHES = re.compile(r"\b\d+x(?=(?:\d+x){3}\d+\b)")  # of shapes, which have five axes
_KINDS = "biufcV"  # numbers; V are those that NumPy itself lacks

Json = Any  # parsed text that nobody has checked yet


def write_program(target: Target, program: ProgramRecord, native: Callable[[], NativePlans] | None = None) -> None:
    """Write a program into an open file, or to a path: an older file of that name is replaced only by a whole one.

    ``native`` returns its steps for programs without Python.

    Raises:
        UnsupportedError: parts of it run in PyTorch.
        GraphError: the file cannot be written.
        ConfigError: the file's name does not end in .cvx.
    """
    write_target("save", target, ".cvx", lambda: _parts(program, native), GraphError)


def program_bytes(program: ProgramRecord, native: Callable[[], NativePlans] | None = None) -> bytes:
    """Return the bytes of the file that ``write_program`` writes.

    Raises ``UnsupportedError`` if parts of the program run in PyTorch.
    """
    return b"".join(_parts(program, native))


def _parts(program: ProgramRecord, native: Callable[[], NativePlans] | None) -> list[bytes | memoryview]:
    """Return the parts of the file."""
    foreign = _foreign(program.graph)
    if foreign:
        raise UnsupportedError(
            f"save: {len(foreign)} node(s) run in PyTorch and cannot be saved: {', '.join(foreign)}. "
            "Leave them out of the model, or keep the model itself and compile it where it runs."
        )
    tensors = dict(program.graph.constants)
    recorded = program.recorded
    content: JsonObject = {
        "graph": _graph(program.graph),
        "structure": _nested(program.structure),
        "algorithm": program.algorithm,
        "precision": program.precision,
        "choices": {name: dict(choices) for name, choices in program.choices.items()},
        "notes": dict(program.notes),
        "sizes": None if program.sizes is None else dict(program.sizes),
        # Nodes that ran in PyTorch and that the passes removed leave a record that no file can hold.
        "recorded": None if recorded is None or _foreign(recorded) else _recorded(recorded, tensors),
    }
    plans = None if native is None else native()
    if plans is not None:
        tensors |= plans.tensors
        content["native"] = list(plans.tensors)
    texts = {"program": json.dumps(content, allow_nan=False, separators=(",", ":"))}
    if plans is not None:
        texts["native"] = json.dumps(plans.content, allow_nan=False, separators=(",", ":"))
        texts["checksum"] = str(_checksum([texts["program"], texts["native"]], tensors))
    return lay_out(tensors, {"format": FORMAT, "version": str(VERSION), **texts, "sha256": _digest(texts, tensors)})


def read_program(source: Path | Content) -> ProgramRecord:
    """Return the program in a file that ``write_program`` made, or in its bytes.

    Raises ``GraphError`` if the file is broken, of another kind, or of a newer version.
    """
    file = TensorFile(source)
    path = source if isinstance(source, Path) else source.name
    metadata, tensors = file.metadata, dict(file.tensors)
    if metadata.get("format") != FORMAT:
        raise GraphError(f"load: {path} is no saved program; expected a file that program.save(…) wrote.")
    version = metadata.get("version", "")
    if not version.isdecimal() or int(version) > VERSION:
        raise GraphError(
            f"load: {path} has format version {version[:20]!r}; this Convoxel reads up to {VERSION}. "
            "Install the newer Convoxel that wrote it."
        )
    text = metadata.get("program", "")
    if _digest(metadata, tensors, file.give_back) != metadata.get("sha256"):
        raise GraphError(f"load: {path} is damaged: its checksum is another. Save or copy the program again.")
    try:
        content = json.loads(text)
        for name in content.get("native", ()):
            del tensors[name]
        origin = _read_recorded(content.get("recorded"), tensors)
        graph = _read_graph(content["graph"], tensors, int(version))
        structure = _structure(content["structure"], len(graph.outputs))
        verify(graph)
        check_layouts(graph)
        algorithm, precision = str(content["algorithm"]), str(content.get("precision", "float32"))
        if int(version) == 1 and algorithm == "fast":
            algorithm, precision = "auto", "high"
        check_settings("load", precision=precision)
        choices = _read_choices(content, int(version))
        notes = {str(name): str(text) for name, text in content.get("notes", {}).items()}
        known = content.get("sizes")
        sizes = None if known is None else {str(name): int(size) for name, size in known.items()}
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as reason:
        raise GraphError(f"load: {path} holds no valid program ({reason}). Save the program again.") from reason
    file.check()  # what was read above was whole
    graph = graph.replace(constants=file.guard(graph.constants))
    mapped = file if file.is_mapped else None
    return ProgramRecord(graph, structure, origin, algorithm, precision, choices, mapped, notes, sizes)


def _foreign(graph: Graph) -> list[str]:
    """Return the nodes that call PyTorch."""
    return [f"{node.name} ({node['label']})" for node in graph.nodes if node.operator == "torch_call"]


def _digest(
    texts: Mapping[str, str], tensors: Mapping[str, Array], after_each: Callable[[], None] = lambda: None
) -> str:
    digest = hashlib.sha256("".join(texts.get(name, "") for name in ("program", "native", "checksum")).encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name}\n{array.dtype}\n{list(array.shape)}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        after_each()
    return digest.hexdigest()


def _checksum(texts: Sequence[str], tensors: Mapping[str, Array]) -> int:
    areas: list[bytes | memoryview] = [text.encode() for text in texts]
    for name, array in sorted(tensors.items()):
        extents = "".join(f"{extent}," for extent in array.shape)
        areas.append(f"{name}\n{type_name(array)}\n{extents}".encode())
        areas.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return checksum([np.frombuffer(area, np.uint8) for area in areas])


# ---- to JSON ---------------------------------------------------------------------------------------------


def _graph(graph: Graph) -> JsonObject:
    return {
        "name": graph.name,
        "inputs": [_value(value) for value in graph.inputs],
        "outputs": list(graph.outputs),
        "nodes": [_node(node) for node in graph.nodes],
        "guards": [guard.text for guard in graph.guards],
        "assumptions": [assumption.text for assumption in graph.assumptions],
    }


def _recorded(graph: Graph, tensors: Tensors) -> JsonObject:
    """Return the recorded graph; constants that it has alone, and whose numbers count, are added to ``tensors``."""
    shapes, names, added = {}, {}, []
    for name, array in graph.constants.items():
        if isinstance(array, ShapeOnly):
            shapes[name] = [str(array.dtype), list(array.shape)]
        elif tensors.get(name) is array:
            names[name] = name
        else:
            names[name] = unused = next(n for i in count() if (n := f"recorded/{i}") not in tensors)
            tensors[unused] = array
            added.append(unused)
    parameters = None if graph.parameters is None else dict(graph.parameters)
    text = json.dumps({**_graph(graph), "constants": shapes, "parameters": parameters}, separators=(",", ":"))
    packed = base64.b85encode(zlib.compress(text.encode())).decode()
    return {"graph": packed, "tensors": names, "added": added}


def _value(value: Value) -> list[object]:
    return [value.name, [_plain(extent) for extent in value.shape], value.dtype, value.layout]


def _node(node: Node) -> list[object]:
    attributes = {key: _plain(value) for key, value in node.attributes.items()}
    return [node.operator, node.name, list(node.inputs), [_value(value) for value in node.outputs], attributes]


def _plain(value: object) -> object:
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


def _nested(structure: Structure) -> JsonObject:
    if isinstance(structure, Leaf):
        return {"leaf": structure.index, **({"name": structure.name} if structure.name else {})}
    if isinstance(structure, Fixed):
        return {"fixed": _plain(structure.value)}
    keys = [_plain(key) for key in structure.keys]
    nested = {"kind": structure.kind, "children": [_nested(child) for child in structure.children], "keys": keys}
    return {**nested, "name": structure.name} if structure.kind == "record" else nested


# ---- from JSON -------------------------------------------------------------------------------------------


def _read_graph(content: Json, constants: Tensors, version: int) -> Graph:
    return Graph(
        str(content["name"]),
        tuple(_read_value(value) for value in content["inputs"]),
        tuple(map(str, content["outputs"])),
        tuple(_read_node(version, *node) for node in content["nodes"]),
        constants,
        tuple(Size(guard) for guard in content["guards"]),
        tuple(Size(assumption) for assumption in content["assumptions"]),
    )


def _read_choices(content: Json, version: int) -> dict[str, dict[str, str]]:
    """Return the algorithms of convolutions by the instruction set; those of older files go to the one in use."""
    if version >= 4:
        return {
            str(name): {str(problem): str(algorithm) for problem, algorithm in choices.items()}
            for name, choices in content["choices"].items()
        }
    # The text of a problem names the shapes that it was measured with; the first number of each is the batch.
    winners = {_BATCHES.sub("1x", str(problem)): str(algorithm) for problem, algorithm in content["winners"].items()}
    return {instruction_set(): winners} if winners else {}


def _read_recorded(content: Json | None, tensors: Tensors) -> Origin | None:
    """Return the recorded graph, if there is one; tensors that it has alone are taken out of ``tensors``."""
    if content is None:
        return None
    packed, kept = str(content["graph"]), {name: tensors[tensor] for name, tensor in content["tensors"].items()}
    for name in content["added"]:
        del tensors[name]
    return Origin(lambda: _unpacked(packed, kept))


def _unpacked(packed: str, kept: Tensors) -> Graph:
    try:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(base64.b85decode(packed), _LARGEST_BYTES)
        if not unpacker.eof:
            raise ValueError(f"more than {_LARGEST_BYTES} bytes, or cut off")
        content = json.loads(text)
        shapes = {name: _shape_only(*known) for name, known in content["constants"].items()}
        counts = content["parameters"]
        parameters = None if counts is None else {str(name): int(number) for name, number in counts.items()}
        graph = _read_graph(content, {**shapes, **kept}, VERSION).replace(parameters=parameters)
        verify(graph)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError, zlib.error) as reason:
        raise GraphError(f"load: the recorded graph makes no sense ({reason}). Save the program again.") from reason
    return graph


def _shape_only(dtype: str, shape: list[int]) -> Array:
    if np.dtype(dtype).kind not in _KINDS:
        raise ValueError(f"a constant has type {dtype}")
    return ShapeOnly(shape, dtype)


def _read_value(content: Json) -> Value:
    name, shape, dtype, layout = content
    extents = _tupled(shape)
    if not all(isinstance(extent, Size) or (type(extent) is int and extent >= 0) for extent in extents):
        raise ValueError(f"value {name} has shape {shape}")
    if np.dtype(dtype).kind not in _KINDS or layout not in (CHANNELS_FIRST, CHANNELS_LAST):
        raise ValueError(f"value {name} has type {dtype} and layout {layout}")
    return Value(str(name), extents, str(np.dtype(dtype)), layout)


def _read_node(version: int, operator: str, name: str, inputs: Json, outputs: Json, attributes: Json) -> Node:
    values = tuple(_read_value(value) for value in outputs)
    given = {key: _tupled(value) for key, value in attributes.items()}
    if version == 1:
        operator, given = of_first_version(operator, given, len(values[0].shape))
    if operator not in OPERATORS:
        return Node(operator, name, tuple(inputs), values, given)
    # Operands and attributes that it has gained since the file was written are absent. Native steps write the
    # layout of the engine.
    native = OPERATORS[operator].host is None or values[0].layout == CHANNELS_LAST
    return make_node(operator, name, inputs, values, native=native, **given)


def _tupled(value: Json) -> Any:
    if isinstance(value, list):
        return tuple(_tupled(element) for element in value)
    if isinstance(value, dict):
        return Size(value["size"]) if "size" in value else float(value["number"])
    return value


def _structure(content: Json, outputs: int) -> Structure:
    if "leaf" in content:
        index = int(content["leaf"])
        if not 0 <= index < outputs:
            raise ValueError(f"result {index} of {outputs}")
        return Leaf(index, str(content.get("name", "")))
    if "fixed" in content:
        return Fixed(_tupled(content["fixed"]))
    children = tuple(_structure(child, outputs) for child in content["children"])
    return Branch(str(content["kind"]), children, _tupled(content["keys"]), str(content.get("name", "")))
