"""Malformed model files: broken bytes, forbidden external data, and wrong programs with a right checksum.

As a program (``python -m tests.support.malformed_files FOLDER``) this loads and runs every case, those of
``malformed_models`` too, in one process whose memory the system limits, and prints a line of JSON for each: its
name, its outcome, and the seconds and bytes that it took. A case that ends the process leaves no line.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from onnx import TensorProto

from tests.support.malformed_models import BILLION, MODELS
from tests.support.onnx_model import convolution, model, node, tensor

__all__ = ["CASES", "EXTERNAL", "FILES", "MEMORY", "PROGRAMS", "forged", "saved", "valid"]

MEMORY = 512 * 2**20
Content = dict[str, Any]


def valid() -> bytes:
    """Return a valid .onnx file."""
    nodes = [node("Conv", "x w", "c", pads=[1] * 4), node("Relu", "c", "r"), node("GlobalAveragePool", "r", "y")]
    return bytes(model(nodes, [tensor("w", 4, 3, 3, 3)]).SerializeToString())


# ---- bytes ---------------------------------------------------------------------------------------------------

# A file's name: its bytes, and what the refusal says.
FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "no graph"),
    "text": (lambda: b"hello", "no ONNX model|no graph"),
    "noise": (lambda: bytes(np.random.default_rng(0).integers(0, 256, 5000, np.uint8)), "no ONNX model|no graph"),
    "a zip": (lambda: b"PK\x03\x04" + bytes(200), "no ONNX model|no graph"),
    "a pickle": (lambda: b"\x80\x04\x95\x1b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.", "no ONNX model|no graph"),
    "nested too deeply for a parser": (lambda: _wrapped(3000), "no ONNX model|no graph"),
    "a length of four gigabytes": (lambda: b"\x3a\xff\xff\xff\xff\x0f" + b"\0" * 64, "no ONNX model|no graph"),
    **{
        f"cut after {part} of 8": (lambda part=part: valid()[: len(valid()) * part // 8], "load: ")  # type: ignore[misc]
        for part in range(1, 8)
    },
}


def _wrapped(depth: int) -> bytes:
    """Return a graph in an attribute of a node of a graph, and so on, as serialised bytes."""
    inner = b""
    for level in range(depth):
        tag = (b"\x0a", b"\x2a", b"\x32")[level % 3]  # node, attribute, graph
        length, digits = len(inner), b""
        while length >= 128:
            digits, length = digits + bytes([length % 128 + 128]), length // 128
        inner = tag + digits + bytes([length]) + inner
    return b"\x3a" + struct.pack("<B", 0)[:0] + inner


# ---- external data -------------------------------------------------------------------------------------------


def _external(folder: Path, location: str, **entries: Any) -> Path:
    proto = convolution()
    weight = proto.graph.initializer[0]
    data, home = weight.raw_data, folder / "home"
    home.mkdir(exist_ok=True)
    (home / "sub").mkdir(exist_ok=True)
    for place in (folder / "weights.bin", home / "weights.bin", home / "sub" / "weights.bin", home / "twice.bin"):
        place.write_bytes(data)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        weight.external_data.add(key=key, value=str(value))
    links: dict[str, Callable[[Path], Any]] = {
        "outside.bin": lambda path: path.symlink_to(folder / "weights.bin"),
        "circle.bin": lambda path: path.symlink_to(path),
        "other": lambda path: path.symlink_to(folder),
        "hard.bin": lambda path: path.hardlink_to(home / "twice.bin"),
        "pipe": os.mkfifo,
    }
    for name, make in links.items():
        if not os.path.lexists(home / name):
            make(home / name)
    path = home / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


_PLACE, _RANGE = "external data of tensor 'w' .*inside the model's folder", "external data of tensor 'w' .*damaged"

# Where the weights are said to lie, with what else is said of them, and what the refusal says.
EXTERNAL: dict[str, tuple[str, dict[str, Any], str]] = {
    "above the folder": ("../weights.bin", {}, _PLACE),
    "above and back": ("../home/weights.bin", {}, _PLACE),
    "within, by way of '..'": ("sub/../weights.bin", {}, _PLACE),
    "absolute": ("/etc/hostname", {}, _PLACE),
    "a device": ("/dev/zero", {}, _PLACE),
    "a pipe": ("pipe", {}, _PLACE),
    "a symbolic link out": ("outside.bin", {}, _PLACE),
    "a symbolic link to itself": ("circle.bin", {}, _PLACE),
    "a folder that is a link": ("other/weights.bin", {}, _PLACE),
    "a hard link": ("hard.bin", {}, _PLACE),
    "a folder": ("sub", {}, _PLACE),
    "the folder itself": (".", {}, _PLACE),
    "nowhere": ("", {}, _PLACE),
    "missing": ("missing.bin", {}, _PLACE),
    "a name with NUL": ("weights.bin\0.txt", {}, _PLACE),
    "a name of 5000 letters": ("w" * 5000, {}, _PLACE),
    "offset negative": ("weights.bin", {"offset": -4}, _RANGE),
    "offset beyond the end": ("weights.bin", {"offset": 8}, _RANGE),
    "offset overflowing": ("weights.bin", {"offset": 2**63}, _RANGE),
    "offset that is no number": ("weights.bin", {"offset": "four"}, "no number"),
    "length too long": ("weights.bin", {"length": 10**15}, _RANGE),
    "length too short": ("weights.bin", {"length": 4}, _RANGE),
    "length negative": ("weights.bin", {"length": -432}, _RANGE),
}


# ---- programs ------------------------------------------------------------------------------------------------


def saved(folder: Path) -> Path:
    """Return a valid .cvx file."""
    from convoxel.graph.load import load

    (folder / "source.onnx").write_bytes(valid())
    path = folder / "net.cvx"
    load(folder / "source.onnx").save(path)
    return path


def forged(path: Path, change: Callable[[Content], Any]) -> None:
    """Change the program in a file and write it with the right checksum."""
    from convoxel.graph.store.cvx import _digest

    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    content = json.loads(metadata["program"])
    text = change(content)
    text = text if isinstance(text, str) else json.dumps(content)
    metadata["program"] = text
    metadata["sha256"] = _digest(metadata, tensors)
    path.write_bytes(safetensors.numpy.save(tensors, metadata))


def _node(content: Content, operator: str) -> list[Any]:
    return next(row for row in content["graph"]["nodes"] if row[0] == operator)  # type: ignore[no-any-return]


def _attribute(name: str, value: Any, operator: str = "convolution") -> Callable[[Content], Any]:
    return lambda content: _node(content, operator)[4].__setitem__(name, value)


def _input(place: int, value: Any) -> Callable[[Content], Any]:
    return lambda content: content["graph"]["inputs"][0].__setitem__(place, value)


def _graph(**values: Any) -> Callable[[Content], Any]:
    return lambda content: content["graph"].update(values)


def _spread(shape: list[Any]) -> Callable[[Content], Any]:
    """Insert another node before all others."""
    row = ["array.expand", "bomb", ["x"], [["bomb", shape, "float32", "first"]], {"shape": shape}]

    def change(content: Content) -> None:
        content["graph"]["nodes"].insert(0, row)
        content["graph"]["outputs"] = ["bomb"]

    return change


_TOWER = "(" * 60 + "h" + ")**8" * 60

# What is changed in a program, and what the refusal says.
PROGRAMS: dict[str, tuple[Callable[[Content], Any], str]] = {
    "not JSON": (lambda content: "{", "no valid program"),
    "JSON of another kind": (lambda content: "[]", "no valid program"),
    "JSON nested deeply": (lambda content: "[" * 100_000, "no valid program"),
    "results nested deeply": (lambda content: _chain(content, 100_000), "no valid program"),
    "no nodes": (lambda content: content["graph"].pop("nodes"), "no valid program"),
    "an unknown operator": (lambda c: _node(c, "convolution").__setitem__(0, "magic"), "no operator 'magic'"),
    "an operator of PyTorch": (lambda c: _node(c, "convolution").__setitem__(0, "torch_call"), "torch_call"),
    "a node without operands": (lambda c: _node(c, "convolution").__setitem__(2, []), "needs its operand x"),
    "a node with other operands": (
        lambda c: _node(c, "convolution").__setitem__(2, ["x", "x", "", "", ""]),
        "constant",
    ),
    "a value that nobody makes": (_graph(outputs=["nothing"]), "'nothing' is defined by no node"),
    "a cycle": (lambda c: _node(c, "convolution")[2].__setitem__(0, c["graph"]["outputs"][0]), "nothing before it"),
    "an attribute missing": (lambda c: _node(c, "convolution")[4].pop("stride"), "convolution needs stride"),
    "an attribute of another type": (_attribute("stride", "two"), "stride"),
    "an attribute that is nothing": (_attribute("padding", None), "net"),
    "a stride of 0": (_attribute("stride", [0, 0]), "convolution c: stride"),
    "a stride beyond all bounds": (_attribute("stride", [2**70, 1]), "convolution c: stride"),
    "padding beyond all bounds": (_attribute("padding", [[BILLION, BILLION], [BILLION, BILLION]]), "convolution c"),
    "groups of 0": (_attribute("groups", 0), "convolution c"),
    "an activation that is none": (_attribute("activation", "magic"), "convolution c.*'magic'"),
    "an input of type object": (_input(2, "object"), "type"),
    "an input of an unknown type": (_input(2, "magic"), "no valid program"),
    "an input of twelve axes": (_input(1, [1] * 12), "12 axes"),
    "an input of another layout": (_input(3, "sideways"), "net"),
    "an input of negative size": (_input(1, [1, -3, 8, 8]), "net"),
    "a size that is code": (_input(1, [{"size": "__import__('os')"}, 3, 8, 8]), "is not size arithmetic"),
    "a size that is a tower of powers": (_spread([1, 3, 8, {"size": _TOWER}]), "largest base|net"),
    "a size that divides by 0": (_spread([1, 3, 8, {"size": "8 // (h - 8)"}]), "divides by zero|net"),
    "a result of a billion": (_spread([BILLION, 3, BILLION, 8]), "bomb"),
    "a result of overflowing size": (_spread([2**62, 3, 8, 8]), "bomb"),
    "results that are not there": (
        lambda content: content.update(structure={"leaf": 7}),
        "no valid program .result 7 of 1",
    ),
    "an algorithm that is none": (lambda content: content.update(algorithm="magic"), "magic"),
}


def _chain(content: Content, depth: int) -> str:
    """Return the text of a program whose results are nested tuples."""
    start, end = '{"kind":"tuple","children":[', '],"keys":[]}'
    return json.dumps({**content, "structure": "HERE"}).replace('"HERE"', start * depth + '{"leaf":0}' + end * depth)


# ---- all of them ---------------------------------------------------------------------------------------------


def _zipped(folder: Path) -> Path:
    path = folder / "zipped.cvx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("program", b"\0" * 50_000_000)
    return path


def _headed(folder: Path, length: int) -> Path:
    path = folder / "headed.cvx"
    path.write_bytes(struct.pack("<Q", length) + b"{}" + b" " * 100)
    return path


def _claimed(folder: Path, shape: list[int], end: int, kind: str = "F32") -> Path:
    """Return a safetensors file with a wrong header."""
    header = json.dumps({"w": {"dtype": kind, "shape": shape, "data_offsets": [0, end]}}).encode()
    path = folder / "claimed.cvx"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
    return path


# What every case is: how its file is made in a folder, and what the refusal says.
CASES: dict[str, tuple[Callable[[Path], Path], str]] = {}


def _written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def _add_cases() -> None:
    for name, (make, words) in MODELS.items():
        CASES[f"model: {name}"] = (
            lambda folder, make=make: _written(folder, "net.onnx", make().SerializeToString()),  # type: ignore[misc]
            words,
        )
    for name, (content, words) in FILES.items():
        CASES[f"file: {name}"] = (lambda folder, c=content: _written(folder, "net.onnx", c()), words)  # type: ignore[misc]
    for name, (place, entries, words) in EXTERNAL.items():
        CASES[f"external: {name}"] = (lambda folder, p=place, e=entries: _external(folder, p, **e), words)  # type: ignore[misc]
    for name, (change, words) in PROGRAMS.items():
        CASES[f"program: {name}"] = (lambda folder, c=change: _forged(folder, c), words)  # type: ignore[misc]
    claims = {
        "a zip of zeros": _zipped,
        "a header of 2^60 bytes": lambda folder: _headed(folder, 2**60),
        "a header of 99 megabytes": lambda folder: _headed(folder, 99_000_000),
        "a tensor of a billion": lambda folder: _claimed(folder, [BILLION], 4 * BILLION),
        "a tensor whose size overflows": lambda folder: _claimed(folder, [2**33, 2**33], 64),
        "a tensor of negative size": lambda folder: _claimed(folder, [-4], 16),
        "a tensor of an unknown type": lambda folder: _claimed(folder, [4], 16, "OBJECT"),
    }
    for name, write in claims.items():
        CASES[f"program: {name}"] = (write, "net|headed|zipped|claimed")


def _forged(folder: Path, change: Callable[[Content], Any]) -> Path:
    path = saved(folder)
    forged(path, change)
    return path


_add_cases()


def outcomes(folder: Path) -> Iterator[dict[str, Any]]:
    """Load and run every case; yield its outcome."""
    from convoxel.errors import ConvoxelError
    from convoxel.graph.load import load

    x = np.ones((1, 3, 8, 8), np.float32)
    saved(folder)
    load(folder / "net.cvx")(x)  # what every process needs is not a case's own
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + 2 * MEMORY, held + 2 * MEMORY))
    for name, (make, _) in CASES.items():
        place = folder / "case"
        place.mkdir()
        path = make(place)
        before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        try:
            program: Any = load(path)
            rank = len(program.graph.inputs[0].shape)
            program(x if rank != 2 else x[:, :, 0, 0])
        except ConvoxelError as reason:
            said, kind = str(reason), "refused"
        except Exception as reason:
            said, kind = f"{type(reason).__name__}: {reason}", "raised"
        else:
            said, kind = "", "ran"
        seconds = time.process_time() - begun
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        yield {"name": name, "kind": kind, "said": said, "seconds": seconds, "bytes": grown}
        shutil.rmtree(place)


if __name__ == "__main__":
    warnings.simplefilter("error")
    for row in outcomes(Path(sys.argv[1])):
        print(json.dumps(row), flush=True)
