"""NumPy files: claims are checked before memory is asked for, and nothing goes through pickle."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from convoxel import data
from convoxel.errors import DataError
from tests.support.refusal import refused


def head(shape: str, dtype: str = "<f4", version: bytes = b"\1\0") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (117 - len(text)) + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize("dtype", ["?", "u1", ">i2", "i8", "f2", "f4", "f8"])
def test_reads_arrays(tmp_path: Path, dtype: str) -> None:
    array = (np.arange(60) % 2).reshape(3, 4, 5).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", anything=array)
    np.savez(tmp_path / "b.npz", image=np.asfortranarray(array), mask=array)
    for name in ("a.npy", "a.npz", "b.npz"):
        volume = data.read_image(tmp_path / name, axes="DHW")
        assert volume.image.dtype == np.float32 and np.array_equal(volume.image, array[None].astype(np.float32))
        picture = data.read_image(tmp_path / name, dims=2)
        assert picture.image.shape == (3, 4, 5) and np.array_equal(picture.image, array.astype(np.float32))


def test_channels_first(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 3, 4, 5), np.float32))
    assert data.read_image(tmp_path / "a.npy").image.shape == (2, 3, 4, 5)
    path = tmp_path / "b.npy"
    np.save(path, np.zeros((2, 2, 3, 4, 5), np.float32))
    refused(lambda: data.read_image(path), path, "5 axes")
    path = tmp_path / "a.npy"
    refused(lambda: data.read_image(path, channels=1), path, "2 channels")


HOSTILE = {
    "4 TiB": (head("(1048576, 1048576)"), "4398046511232 bytes"),
    "an overflowing shape": (head("(4294967296, 4294967296, 4294967296)"), "claims"),
    "a negative size": (head("(-3, 4)"), "sizes of at least 1"),
    "size 0": (head("(0, 4)"), "sizes of at least 1"),
    "no axis": (head("()") + bytes(4), "sizes of at least 1"),
    "objects": (head("(2, 2)", "|O") + bytes(64), "type object"),
    "text": (head("(2, 2)", "<U4") + bytes(64), "type <U4"),
    "complex": (head("(2, 2)", "<c8") + bytes(64), "type complex64"),
    "an unknown version": (head("(2, 2)", version=b"\7\0"), "not a NumPy array"),
    "code for a shape": (head("__import__('os').getcwd()"), "not a NumPy array"),
    "a shape that is a number": (head("3"), "not a NumPy array"),
    "nothing": (b"\x93NUM", "not a NumPy array"),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_false_headers_are_refused(tmp_path: Path, kind: str, ending: str) -> None:
    content, word = HOSTILE[kind]
    path = tmp_path / f"a{ending}"
    if ending == ".npz":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("image.npy", content)
    else:
        path.write_bytes(content)
    tracemalloc.start()
    refused(lambda: data.read_image(path), path, word)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 2**20


def test_pickle_is_never_run(tmp_path: Path) -> None:
    array = np.array([{"a": 1}, None], dtype=object)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", array)
    for name in ("a.npy", "a.npz"):
        path = tmp_path / name
        refused(lambda path=path: data.read_image(path), path, "type object")  # type: ignore[misc]


def test_compression_bomb(tmp_path: Path) -> None:
    """320 MiB of zeros in 330 kB, and the same hidden behind a header of four bytes."""
    path = tmp_path / "a.npz"
    block = bytes(2**20)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("image.npy", "w") as file:
        file.write(head("(83886080,)"))
        for _ in range(320):
            file.write(block)
    tracemalloc.start()
    refused(lambda: data.read_image(path), path, "inflate", "unpack it yourself")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 2**20
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.npy", head("(1,)") + block)
    refused(lambda: data.read_image(path), path, "132 bytes", "1048704")


def test_damaged_archives(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(b"PK\3\4 no zip")
    refused(lambda: data.read_image(path), path, "not a readable .npz")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    refused(lambda: data.read_image(path), path, "no array inside")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("image.npy", head("(2,)") + bytes(8))
    refused(lambda: data.read_image(path), path, "zip compression 14")
    np.savez(path, a=np.ones(3), b=np.ones(3))
    refused(lambda: data.read_image(path), path, "2 arrays", "image")
    np.savez_compressed(path, image=np.random.default_rng(0).random((20, 20)))
    content = bytearray(path.read_bytes())
    content[400] ^= 255
    path.write_bytes(content)
    refused(lambda: data.read_image(path), path)
    path.write_bytes(content[:-30])
    refused(lambda: data.read_image(path), path, "not a readable .npz")


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([[1.0, np.inf], [np.nan, 1.0]]))
    refused(lambda: data.read_image(path), path, "2 values are NaN or infinite", "(0, 1)")


@pytest.mark.parametrize("seed", range(60))
def test_random_damage_never_gets_out(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    stream = io.BytesIO()
    np.savez_compressed(stream, image=rng.random((5, 6)).astype(np.float32))
    content = bytearray(stream.getvalue())
    for place in rng.integers(0, len(content), rng.integers(1, 9)):
        content[place] = rng.integers(256)
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    try:
        assert data.read_image(path).image.size
    except DataError as error:
        assert str(path) in str(error)
