"""HDF5 files: data sets equal what h5py reads; links, foreign data and bombs are refused by name."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from convoxel import data
from convoxel.data.hdf5_file import open_hdf5, read_dataset
from convoxel.data.image_file import map_image, read_header
from convoxel.data.label_file import read_label
from convoxel.errors import UnsupportedError
from convoxel.predict.case_files import list_inputs
from tests.support.refusal import refused

RNG = np.random.default_rng(0)
TYPES = ("u1", "i1", "<i2", ">i2", "u2", "<u4", "i8", "<f4", ">f4", "f8", "f2", "bool")
STORAGE: dict[str, dict[str, object]] = {
    "whole": {},
    "chunks": {"chunks": (3, 4, 5)},
    "gzip": {"compression": "gzip"},
    "all": {"chunks": (4, 4, 4), "compression": "gzip", "shuffle": True, "fletcher32": True},
    "lzf": {"compression": "lzf", "shuffle": True},
    "open": {"maxshape": (None, 7, 9), "chunks": (16, 7, 9)},
}


def test_every_type_and_storage_is_read_as_h5py_reads_it(tmp_path: Path) -> None:
    path, mapped = tmp_path / "a.h5", 0
    with h5py.File(path, "w", userblock_size=512) as file:
        for dtype in TYPES:
            for name, options in STORAGE.items():
                values = (RNG.standard_normal((6, 7, 9)) * 50).astype(dtype)
                file.create_dataset(f"{dtype}/{name}", data=values, **options)
        file["matrix"], file["scalar"] = np.array([[3]]), np.float32(2.5)
        file.create_dataset("unwritten", (5, 5), "i2", fillvalue=-3)
        file.create_dataset("sparse", (5, 5), "f4", chunks=(2, 2), fillvalue=7)[1, 1] = 2
        file["matrix_again"] = file["matrix"]  # a second hard link: one object, visited once
        file["circle/root"] = file["/"]
    with h5py.File(path) as plain, open_hdf5(path) as file:
        names = file.names()
        assert len(names) == len(TYPES) * len(STORAGE) + 4
        for name in (*names, "/circle/root/sparse"):
            expected, found = plain[name][()], file.read(name)
            assert found.dtype == plain[name].dtype and file.claims(name) == (expected.shape, expected.dtype)
            np.testing.assert_array_equal(found, expected)
            view = file.map(name)
            if view is not None:
                mapped += 1
                np.testing.assert_array_equal(view, expected)
    assert mapped == len(TYPES) + 1  # those stored whole, and the matrix
    np.testing.assert_array_equal(read_dataset(path, "/matrix"), [[3]])


def test_what_leads_out_of_the_file_is_refused(tmp_path: Path) -> None:
    path, other = tmp_path / "a.h5", tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["x"] = np.arange(4)
    (tmp_path / "raw").write_bytes(bytes(16))
    with h5py.File(path, "w") as file:
        file["group/x"], file["text"], file["complex"] = np.arange(4), "hello", np.ones(2, complex)
        file["empty"], file["none"] = h5py.Empty("f4"), np.zeros((0, 3))
        file["soft"], file["link"] = h5py.SoftLink("/group/x"), h5py.ExternalLink(str(other), "x")
        file.create_dataset("outside", (4,), "i4", external=[(str(tmp_path / "raw"), 0, 16)])
        layout = h5py.VirtualLayout((4,), "i8")
        layout[:] = h5py.VirtualSource(str(other), "x", (4,))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("scaled", data=np.arange(40), chunks=(20,), scaleoffset=0)
    with open_hdf5(path) as file:
        for name, *words in (
            ("soft", "a soft link", "/group/x"),
            ("link", "a link to another file"),
            ("outside", "data stored in another file"),
            ("virtual", "a virtual data set"),
            ("scaled", "the filter scaleoffset (6)", "gzip"),
            ("text", "values of type object"),
            ("complex", "values of type complex128"),
            ("empty", "an empty data set"),
            ("none", "shape (0, 3)"),
            ("group", "this is a group"),
            ("group/y", "there is no such data set", "/group/x"),
            ("group/../group/x", "there is no such data set"),
            ("group//x", "there is no such data set"),
        ):
            for read in (file.claims, file.read, file.map):
                refused(lambda read=read, name=name: read(name), f"{path}#/{name}", *words)  # type: ignore[misc]


def test_claims_are_checked_before_memory_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("shape", (2**20, 2**20), "f4", chunks=(1024, 1024))
        file.create_dataset("unwritten", (2**30,), "f8")
        file.create_dataset("chunk", (1,), "u1", maxshape=(None,), chunks=(2**31,))
        file.create_dataset("count", (2**27,), "u1", chunks=(1,))
        bomb = file.create_dataset("deflate", (64, 64), "u1", chunks=(64, 64), compression="gzip")
        bomb.id.write_direct_chunk((0, 0), zlib.compress(bytes(2**22), 9))
        short = file.create_dataset("short", (64, 64), "u1", chunks=(64, 64), compression="gzip")
        short.id.write_direct_chunk((0, 0), zlib.compress(bytes(4000)))
        long = file.create_dataset("long", (64, 64), "u1", chunks=(64, 64), compression="gzip")
        long.id.write_direct_chunk((0, 0), RNG.bytes(9000))
        broken = file.create_dataset("broken", (64, 64), "u1", chunks=(64, 64), fletcher32=True)
        broken.id.write_direct_chunk((0, 0), bytes(4096) + b"abcd")
    with open_hdf5(path) as file:
        for name, word in (
            ("shape", "it would inflate"),
            ("unwritten", "it would inflate"),
            ("chunk", "it would inflate"),
            ("count", "chunks in a file of"),
            ("deflate", "unpacks to 5120 bytes"),
            ("short", "unpacks to 4000 bytes"),
            ("long", "a chunk of 9000 bytes that holds 4096"),
            ("broken", "the checksum of a chunk"),
        ):
            refused(lambda name=name: file.read(name), f"{path}#/{name}", word)  # type: ignore[misc]


def test_damaged_files_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=RNG.integers(0, 9, (40, 40)), chunks=(9, 9), compression="gzip")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refused(lambda: read_dataset(path, "a"), path, "this cannot be read as HDF5")
    path.write_bytes(b"\x89PNG" + content)
    refused(lambda: read_dataset(path, "a"), path, "this cannot be read as HDF5")
    refused(lambda: read_dataset(tmp_path / "none.h5", "a"), tmp_path / "none.h5", "cannot be opened")
    refused(lambda: read_dataset(tmp_path, "a"), tmp_path, "this is a folder")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UnsupportedError, match=r"h5py: pip install 'convoxel\[formats\]'"):
        read_dataset(path, "a")


def test_one_image_in_a_file(tmp_path: Path) -> None:
    volume, flat = RNG.standard_normal((2, 4, 5, 6)), RNG.integers(0, 3, (5, 6)).astype(np.uint8)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["entry/data"] = volume
    sample = data.read_image(path)
    np.testing.assert_array_equal(sample.image, volume.astype(np.float32))
    assert sample.name == "a" and sample.spacing_mm is None
    with h5py.File(path, "a") as file:
        file.create_dataset("flat", data=flat, chunks=(2, 2), compression="gzip")
    refused(lambda: data.read_image(path), path, "2 data sets (/entry/data, /flat)", "a.h5#/entry/data")
    named = Path(f"{path}#/entry/data")
    assert data.read_image(named).name == "a_entry_data"
    np.testing.assert_array_equal(map_image(named).image[:, 1:3, 2:4], volume[:, 1:3, 2:4].astype(np.float32))
    np.testing.assert_array_equal(read_label(Path(f"{path}#/flat"))[1], flat)
    np.testing.assert_array_equal(data.read_image(f"{path}#flat", dims=2).image[0], flat)
    assert list_inputs(named) == [named]
    refused(lambda: data.read_image(f"{path}#/none"), f"{path}#/none", "no such data set")
    with h5py.File(path, "a") as file:
        file["image"] = volume[0]
        file["number"] = 3
    np.testing.assert_array_equal(data.read_image(path, dims=3).image[0], volume[0].astype(np.float32))
    refused(lambda: data.read_image(f"{path}#/number"), f"{path}#/number", "a single number")
    with h5py.File(path, "a") as file:
        file.create_dataset("lost", (5, 6), "i2", chunks=(2, 3), fillvalue=7)[:4] = 1
        file.create_dataset("none", (5, 6), "i2", fillvalue=7)
    for name in ("lost", "none"):
        assert read_header(Path(f"{path}#/{name}")).note == "chunks that are not there are taken for the fill value 7"
        assert data.read_image(f"{path}#/{name}").image[0, 4].tolist() == [7] * 6
    assert read_header(Path(f"{path}#/flat")).note == "" == read_header(Path(f"{path}#/image")).note


def test_a_folder_of_files_is_a_data_set(tmp_path: Path) -> None:
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
        for i in range(3):
            with h5py.File(tmp_path / kind / f"{i}.h5", "w") as file:
                file["data"] = RNG.integers(0, 2 if kind == "labels" else 99, (6, 7, 8)).astype(np.uint8)
    found = data.load(tmp_path, "segment")
    assert (found.dims, len(found.train), found.train[0].image.shape) == (3, 2, (1, 6, 7, 8)) and found.fingerprint
