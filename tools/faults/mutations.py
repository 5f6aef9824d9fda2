"""Mutations: damaged files of every format that Convoxel reads are refused in words, or read, within bounds.

Bytes are flipped, cut, doubled, exchanged and overwritten with numbers that overflow. In ``.cvx`` files and checkpoints
the content is changed and signed again: the hash is right, the types are not.
"""

from __future__ import annotations

import io
import json
import struct
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tools.faults import scientific_files
from tools.faults.scene import Scene
from tools.faults.worker import run_forked

BATCH = 50
MOST_SECONDS, MOST_BYTES = 5.0, 256 * 2**20  # of one file, and of a batch
Rng = np.random.Generator


def count(scene: Scene) -> int:
    """Return how many batches of damaged files there are."""
    return 400 if scene.full else 40


def check(scene: Scene, number: int) -> str:
    """Read a batch of damaged files in a process of its own and return what is wrong."""
    kinds = list(FORMATS)
    kind = kinds[number % len(kinds)]
    with scene.room("mutations") as room:
        log = room / "log"
        ended = run_forked(lambda: _read_batch(scene, kind, number, room, log), seconds=MOST_SECONDS * BATCH)
        at = log.read_text() if log.exists() else "the beginning"
        if ended.value is None:
            return f"{kind}: the process ended with {ended.code} at {at}"
        if ended.value:
            return f"{kind}, batch {number}: {ended.value}"
        if ended.grown_bytes > MOST_BYTES + 128 * 2**20:  # what readers import comes on top
            return f"{kind}, batch {number}: {ended.grown_bytes / 2**20:.0f} MiB"
    return ""


def _read_batch(scene: Scene, kind: str, number: int, room: Path, log: Path) -> str:
    import time

    from convoxel.errors import ConvoxelError

    warnings.simplefilter("ignore")
    name, make, read = FORMATS[kind]
    rng = np.random.default_rng([scene.seed, number])
    path = room / name
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = make(scene, room)
    for turn in range(BATCH):
        log.write_text(f"file {turn} of batch {number}")
        content = whole(rng) if callable(whole) else _damaged(whole, rng)
        path.write_bytes(content)
        begun = time.process_time()
        try:
            read(path)
        except ConvoxelError:
            pass
        except Exception as error:
            Path(scene.folder / f"failed-{kind.replace(' ', '-')}-{number}-{turn}").write_bytes(content)
            return f"file {turn}: {type(error).__name__}: {str(error)[:200]}"
        if time.process_time() - begun > MOST_SECONDS:
            return f"file {turn}: {time.process_time() - begun:.1f} s"
    return ""


# ---- damage ------------------------------------------------------------------------------------------------


def _damaged(content: bytes, rng: Rng) -> bytes:
    """Return bytes with one to four random changes."""
    for _ in range(int(rng.integers(1, 5))):
        content = _CHANGES[int(rng.integers(len(_CHANGES)))](bytearray(content), rng)
    return content


def _at(content: bytearray, rng: Rng) -> int:
    """Return a place, half of the time within a header."""
    return int(rng.integers(0, max(min(len(content), 400 if rng.random() < 0.5 else len(content)), 1)))


def _flip(content: bytearray, rng: Rng) -> bytes:
    if content:
        content[_at(content, rng)] ^= 1 << int(rng.integers(0, 8))
    return bytes(content)


def _cut(content: bytearray, rng: Rng) -> bytes:
    return bytes(content[: _at(content, rng)])


def _double(content: bytearray, rng: Rng) -> bytes:
    begin = _at(content, rng)
    part = content[begin : begin + int(rng.integers(1, 200))]
    return bytes(content[:begin] + part * int(rng.integers(2, 5)) + content[begin:])


def _remove(content: bytearray, rng: Rng) -> bytes:
    begin = _at(content, rng)
    return bytes(content[:begin] + content[begin + int(rng.integers(1, 50)) :])


def _overwrite(content: bytearray, rng: Rng) -> bytes:
    value = _NUMBERS[int(rng.integers(len(_NUMBERS)))]
    begin = _at(content, rng)
    content[begin : begin + len(value)] = value
    return bytes(content)


def _insert(content: bytearray, rng: Rng) -> bytes:
    begin = _at(content, rng)
    return bytes(content[:begin]) + _TEXTS[int(rng.integers(len(_TEXTS)))] + bytes(content[begin:])


_CHANGES = (_flip, _flip, _cut, _double, _remove, _overwrite, _insert)
_NUMBERS = [
    struct.pack(kind, value) for kind in ("<i", ">i", "<q", "<h", ">h") for value in (0, -1, 1, 2**15 - 1, -(2**15))
] + [struct.pack("<f", float(v)) for v in ("nan", "inf", "-1e38")]
_TEXTS = [b"\0", b"\xff" * 8, b"\x80", b"-1", b"NaN", b"1e999", b"null", b"{}", b"[[[[", b"9" * 30, b'"', b"\n",
          b"&a *a"]  # fmt: skip


def _values(content: Any, rng: Rng) -> Any:
    """Return JSON with some values replaced by others of any type."""
    content = json.loads(json.dumps(content))
    places = list(_places(content))
    for _ in range(int(rng.integers(1, 4))):
        holder, key = places[int(rng.integers(len(places)))]
        kind = int(rng.integers(4))
        if kind == 0 and isinstance(holder, dict):
            holder.pop(key, None)
        elif kind == 1 and isinstance(holder, list) and holder:
            holder.append(holder[0])
        else:
            with_value = _ODD[int(rng.integers(len(_ODD)))]
            if isinstance(holder, dict) or key < len(holder):
                holder[key] = with_value
    return content


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    keys = content.keys() if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in list(keys):
        yield content, key
        yield from _places(content[key])


_ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**62,
    10**30,
    -0.5,
    1e300,
    "",
    "x",
    "relu",
    [],
    {},
    [[]],
    {"size": "h // 0"},
    {"size": "h ** 99"},
    {"size": "("},
    {"number": "nan"},
    {"number": "x"},
    [1, 2, 3],
    ["a"],
    "\ud800",
]


# ---- formats -----------------------------------------------------------------------------------------------


def _file(*parts: str) -> Callable[[Scene, Path], bytes]:
    return lambda scene, room: scene.folder.joinpath(*parts).read_bytes()


def _picture(kind: str, mode: str, **options: Any) -> Callable[[Scene, Path], bytes]:
    def make(scene: Scene, room: Path) -> bytes:
        from PIL import Image

        image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 20, 4)).astype(np.uint8)).convert(mode)
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        return stream.getvalue()

    return make


def _array(scene: Scene, room: Path) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.random.default_rng(0).random((6, 5)))
    return stream.getvalue()


def _archive(scene: Scene, room: Path) -> bytes:
    stream = io.BytesIO()
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 255, (8, 6, 6)).astype(np.uint8), np.arange(8) % 2
    np.savez_compressed(stream, images=images, labels=labels, classes=np.array(["one", "two"]))
    return stream.getvalue()


def _volume(scene: Scene, room: Path) -> bytes:
    import gzip

    return gzip.decompress((scene.path("volumes") / "images" / "0.nii.gz").read_bytes())


def _config(scene: Scene, room: Path) -> bytes:
    return (scene.path("classifier") / "config.yaml").read_bytes()


def _signed_program(scene: Scene, room: Path) -> Callable[[Rng], bytes]:
    import safetensors
    import safetensors.numpy

    from convoxel.graph.store.cvx import _digest

    with safetensors.safe_open(scene.path("net.cvx"), framework="numpy") as file:
        metadata = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    program = json.loads(metadata["program"])

    def make(rng: Rng) -> bytes:
        text = json.dumps(_values(program, rng)).encode("utf-8", "replace").decode()
        signed = {**metadata, "program": text}
        signed["sha256"] = _digest(signed, tensors)
        return bytes(safetensors.numpy.save(tensors, signed))

    return make


def _signed_checkpoint(scene: Scene, room: Path) -> Callable[[Rng], bytes]:
    import shutil

    from convoxel.files.manifest import encode, read_manifest

    shutil.copytree(scene.path("classifier"), room / "run", dirs_exist_ok=True)
    folder = room / "run" / "checkpoints"
    body = read_manifest(folder, "last", [])
    for path in (*folder.glob("previous*"), *folder.glob("best*")):
        path.unlink()
    return lambda rng: encode(_values(body, rng))


def _state(scene: Scene, room: Path) -> bytes:
    import torch

    stream = io.BytesIO()
    torch.save(_tiny().state_dict(), stream)
    return stream.getvalue()


def _safetensors(scene: Scene, room: Path) -> bytes:
    from safetensors.torch import save

    return bytes(save(_tiny().state_dict()))


def _tiny() -> Any:
    from convoxel import models

    return models.build("course_vgg", 2, in_channels=1, num_classes=2, width=0.25)


def _read_image(path: Path) -> None:
    from convoxel import data

    data.read_image(path)


def _read_label(path: Path) -> None:
    from convoxel.data.label_file import read_label

    read_label(path)


def _read_set(path: Path) -> None:
    from convoxel import data

    loaded = data.load(path, "classify")
    for sample in loaded.train:
        assert np.isfinite(sample.image).all()


def _read_network(path: Path) -> None:
    from convoxel.graph.load import load

    program: Any = load(path, threads=1)
    program(np.ones((1, 3, 8, 8), np.float32))


def _read_config(path: Path) -> None:
    from convoxel.train.config import TrainConfig

    TrainConfig.from_yaml(path)


def _read_run(path: Path) -> None:
    from convoxel.report import render_report
    from convoxel.report.run_contents import read_run
    from convoxel.train import load_model

    load_model(path.parents[1], "last")
    render_report(read_run(path.parents[1]))


def _read_report(path: Path) -> None:
    from convoxel.report import write_report

    write_report(path.parent)


def _read_weights(path: Path) -> None:
    from convoxel import models

    models.load_weights(_tiny(), path)


def _run_file(name: str) -> Callable[[Scene, Path], bytes]:
    def make(scene: Scene, room: Path) -> bytes:
        import shutil

        shutil.copytree(scene.path("classifier"), room / "run", dirs_exist_ok=True)
        return (room / "run" / name).read_bytes()

    return make


def _names(scene: Scene, room: Path) -> bytes:
    import shutil

    shutil.copytree(scene.path("volumes"), room / "set", dirs_exist_ok=True)
    return b'{"labels": {"background": 0, "box": 1}, "numTraining": 3}'


def _read_volumes(path: Path) -> None:
    from convoxel import data

    data.load(path.parent, "segment")


Make = Callable[[Scene, Path], Any]
FORMATS: dict[str, tuple[str, Make, Callable[[Path], None]]] = {
    "png": ("a.png", _picture("PNG", "RGBA"), _read_image),
    "png label": ("a.png", _picture("PNG", "P"), _read_label),
    "jpeg": ("a.jpg", _picture("JPEG", "RGB", progressive=True), _read_image),
    "tiff": ("a.tif", _picture("TIFF", "RGB", compression="tiff_lzw"), _read_image),
    "tiff plain": ("a.tif", _picture("TIFF", "L"), _read_label),
    "tiff stack": ("a.tif", scientific_files.tiff_stack, _read_image),
    "tiff of JPEGs": ("a.tif", scientific_files.tiff_jpeg, _read_image),
    "hdf5": ("a.h5", scientific_files.hdf5, _read_image),
    "edf": ("a.edf", scientific_files.edf, _read_image),
    "csv": ("a.csv", scientific_files.table, _read_image),
    "zarr metadata": ("a.zarr/.zarray", scientific_files.zarr_metadata, scientific_files.read_folder),
    "zarr chunk": ("b.zarr/0.0", scientific_files.zarr_chunk, scientific_files.read_folder),
    "npy": ("a.npy", _array, _read_image),
    "npz": ("a.npz", _archive, _read_set),
    "nii": ("a.nii", _volume, _read_image),
    "nii.gz": ("a.nii.gz", _file("volumes", "images", "0.nii.gz"), _read_image),
    "nii.gz label": ("a.nii.gz", _file("volumes", "labels", "0.nii.gz"), _read_label),
    "dataset.json": ("set/dataset.json", _names, _read_volumes),
    "classes.txt": ("set/classes.txt", lambda scene, room: _names(scene, room) and b"background\nbox\n", _read_volumes),
    "yaml": ("a.yaml", _config, _read_config),
    "onnx": ("a.onnx", _file("net.onnx"), _read_network),
    "cvx": ("a.cvx", _file("net.cvx"), _read_network),
    "cvx signed": ("a.cvx", _signed_program, _read_network),
    "checkpoint signed": ("run/checkpoints/last.json", _signed_checkpoint, _read_run),
    "metrics": ("run/metrics.jsonl", _run_file("metrics.jsonl"), _read_report),
    "evaluation": ("run/evaluation.json", _run_file("evaluation.json"), _read_report),
    "examples": ("run/examples.npz", _run_file("examples.npz"), _read_report),
    "describe.json": ("run/describe.json", _run_file("describe.json"), _read_report),
    "pth": ("a.pth", _state, _read_weights),
    "safetensors": ("a.safetensors", _safetensors, _read_weights),
}
