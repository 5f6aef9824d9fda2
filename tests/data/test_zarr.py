"""Zarr folders: values equal zarr's; OME's axes and scales are kept; metadata and chunks are checked first."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convoxel import data
from convoxel.data import zarr_array, zarr_image
from convoxel.data.image_file import map_image, read_header
from convoxel.data.label_file import read_label
from convoxel.data.mapped_image import MappedImage
from convoxel.errors import DataError
from tests.support.refusal import refused

zarr = pytest.importorskip("zarr", minversion="3.0")  # which needs Python 3.11
numcodecs = pytest.importorskip("numcodecs")
RNG = np.random.default_rng(9)
SECOND: dict[str, dict[str, Any]] = {
    "none": {"compressors": None},
    "blosc": {"compressors": numcodecs.Blosc("lz4", shuffle=1)},
    "zlib": {"compressors": numcodecs.Zlib()},
    "gzip": {"compressors": numcodecs.GZip()},
    "lz4": {"compressors": numcodecs.LZ4()},
    "bz2": {"compressors": numcodecs.BZ2()},
    "zstd in Fortran's order": {"compressors": numcodecs.Zstd(), "order": "F"},
    "slashes": {"chunk_key_encoding": {"name": "v2", "separator": "/"}},
}
THIRD: dict[str, dict[str, Any]] = {
    "default": {},
    "gzip": {"compressors": zarr.codecs.GzipCodec()},
    "blosc": {"compressors": zarr.codecs.BloscCodec(cname="zstd")},
    "checksum": {"compressors": [zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()]},
    "transposed": {"filters": [zarr.codecs.TransposeCodec(order=(2, 0, 1))]},
    "big": {"serializer": zarr.codecs.BytesCodec(endian="big")},
    "dots": {"chunk_key_encoding": {"name": "default", "separator": "."}},
    "shards": {"shards": (6, 8, 10)},
    "shards in front": {"shards": {"shape": (6, 8, 10), "index_location": "start"}},
}


def create(path: Path, array: Any, form: int, **options: Any) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    options = {"chunks": (3, 4, 5), **options}
    made = zarr.create_array(path, shape=array.shape, dtype=array.dtype, zarr_format=form, **options)
    made[:] = array
    return path


@pytest.mark.parametrize("form", [2, 3])
def test_every_codec_and_type_is_read_as_zarr_reads_it(tmp_path: Path, form: int) -> None:
    path = tmp_path / "a.zarr"
    forms = SECOND if form == 2 else THIRD
    first = next(iter(forms))
    for dtype, name in [("<i2", name) for name in forms] + [
        (t, first) for t in ("u1", ">f4", "f8", "u8", "bool", "f2")
    ]:
        values = (RNG.standard_normal((7, 9, 11)) * 50).astype(
            dtype if form == 2 else np.dtype(dtype).newbyteorder("=")
        )
        create(path, values, form, **forms[name])
        np.testing.assert_array_equal(zarr.open_array(path, mode="r")[:], values)
        found = zarr_array.open_array(path)
        np.testing.assert_array_equal(found.read(), values, err_msg=f"{dtype} {name}")
        part = (slice(2, 7), slice(0, 9), slice(4, 6))
        np.testing.assert_array_equal(found.read(part), values[part])
        assert found.dtype.newbyteorder("=") == values.dtype.newbyteorder("=")


def test_what_was_never_written_has_the_fill_value(tmp_path: Path) -> None:
    for form in (2, 3):
        path = tmp_path / f"{form}.zarr"
        made = zarr.create_array(path, shape=(10, 10), chunks=(3, 3), dtype="f4", fill_value=np.nan, zarr_format=form)
        made[4, 4] = 2
        np.testing.assert_array_equal(zarr_array.open_array(path).read(), made[:])
        refused(lambda path=path: data.read_image(path), path, "99 values are NaN")  # type: ignore[misc]
        assert read_header(path).note == "chunks that are not there are taken for the fill value nan"
        made[:] = 1
        assert read_header(path).note == ""
    made = zarr.create_array(tmp_path / "s.zarr", shape=(8, 8), chunks=(2, 2), shards=(4, 4), dtype="i2", fill_value=7)
    made[0, 0] = 1
    np.testing.assert_array_equal(zarr_array.open_array(tmp_path / "s.zarr").read(), made[:])


def ome(path: Path, values: Any, axes: str, version: str = "0.4", unit: str = "micrometer", levels: int = 2) -> Path:
    """Write an image whose voxel measures 2 along z, 0.5 along y, 0.25 along x, and more on coarser levels."""
    kinds = {"t": "time", "c": "channel"}
    named: list[dict[str, str]] = [
        {"name": a, "type": kinds.get(a, "space"), **({} if a in kinds else {"unit": unit})} for a in axes
    ]
    sizes = {"z": 2.0, "y": 0.5, "x": 0.25}
    sets = []
    group = zarr.create_group(path, zarr_format=2 if version == "0.4" else 3)
    for level in range(levels):
        step = 2**level
        stored = values[..., ::step, ::step]
        group.create_array(str(level), shape=stored.shape, chunks=(2,) * stored.ndim, dtype=stored.dtype)[:] = stored
        scale = [sizes.get(a, 1.0) * (step if a in "yx" else 1) for a in axes]
        sets.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    image = {"axes": named, "datasets": sets}
    if version == "0.4":
        group.attrs["multiscales"] = [{**image, "version": version}]
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [image]}
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_axes_levels_and_spacing_of_ome(tmp_path: Path, version: str) -> None:
    values = RNG.integers(0, 9, (1, 2, 3, 8, 6)).astype(np.uint16)
    path = ome(tmp_path / "a.ome.zarr", values, "tczyx", version)
    sample = data.read_image(path)
    np.testing.assert_array_equal(sample.image, values[0])
    assert sample.name == "a.ome" and np.allclose(sample.spacing_mm or (), (0.002, 0.0005, 0.00025))
    coarse = data.read_image(path / "1", dims=3, channels=2)
    np.testing.assert_array_equal(coarse.image, values[0, ..., ::2, ::2])
    assert np.allclose(coarse.spacing_mm or (), (0.002, 0.001, 0.0005))
    flat = data.read_image(ome(tmp_path / "b.zarr", values[0, :, :1], "czyx", version))
    np.testing.assert_array_equal(flat.image, values[0, :, 0])
    assert np.allclose(flat.spacing_mm or (), (0.0005, 0.00025))
    label = ome(path / "labels" / "cells", values[0, 0], "zyx", version, levels=1)
    np.testing.assert_array_equal(read_label(label)[1], values[0, 0])
    film = ome(tmp_path / "c.zarr", values[0], "tzyx", version)
    refused(lambda: data.read_image(film), film, "2 points along the axis 't'")
    unknown = data.read_image(ome(tmp_path / "d.zarr", values[0, 0], "zyx", version, unit="parsec"))
    assert unknown.spacing_mm is None


def moved(path: Path, first: list[Any], image: list[Any] | None = None) -> Path:
    """Add transformations to those of the full resolution, and of the whole image."""
    group = zarr.open_group(path)
    fields = dict(group.attrs)
    inner = fields.get("ome", fields)
    inner["multiscales"][0]["datasets"][0]["coordinateTransformations"] += first
    inner["multiscales"][0]["coordinateTransformations"] = image or []
    group.attrs.update(fields)
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_place_of_an_ome_image(tmp_path: Path, version: str) -> None:
    """Voxel → scale → translation → those of the whole image, in their order; a label elsewhere is refused."""
    values = RNG.integers(0, 2, (4, 8, 6)).astype(np.uint8)
    change = {"type": "translation", "translation": [10, 20, 30]}
    both = [{"type": "scale", "scale": [1, 2, 4]}, {"type": "translation", "translation": [1, 0, 0.5]}]
    path = moved(ome(tmp_path / "a.zarr", values, "zyx", version, "millimeter"), [change], both)
    sample = data.read_image(path)
    index = np.array([2, 5, 3])
    z, y, x = (index * [2, 0.5, 0.25] + [10, 20, 30]) * [1, 2, 4] + [1, 0, 0.5]
    assert sample.affine is not None and not sample.oriented
    np.testing.assert_allclose((sample.affine @ [*index, 1])[:3], [x, y, z])
    assert np.allclose(sample.spacing_mm or (), (2, 1, 1))
    written = data.read_image(data.write_label(tmp_path / "a.nii.gz", values, like=sample))
    np.testing.assert_allclose(np.asarray(written.affine), sample.affine)
    flat = ome(tmp_path / "f.zarr", values[:1], "zyx", version, "millimeter")
    place = np.asarray(data.read_image(moved(flat, [change])).affine)
    np.testing.assert_allclose((place @ [5, 3, 0, 1])[:3], [30.75, 22.5, 10])

    for kind in ("images", "labels"):
        for name in "abc":
            stored = RNG.integers(0, 99, values.shape).astype(np.uint8) if kind == "images" else values
            moved(ome(tmp_path / "set" / kind / f"{name}.zarr", stored, "zyx", version, "millimeter"), [change], both)
    assert data.check(tmp_path / "set", "segment") == []
    moved(tmp_path / "set" / "labels" / "b.zarr", [{"type": "translation", "translation": [0, 0, 0.125]}], both)
    (problem,) = data.check(tmp_path / "set", "segment")
    assert problem.name == "b" and "0.5 voxels along axis 2" in problem.message
    for wrong in ({"type": "affine", "affine": []}, {"type": "translation", "path": "t"}, {"type": "translation",
                  "translation": [1, 2]}, {"type": "translation", "translation": ["a", 0, 0]}):  # fmt: skip
        path = moved(ome(tmp_path / "w.zarr", values, "zyx", version), [wrong])
        refused(lambda path=path: data.read_image(path), path, wrong["type"])  # type: ignore[misc]
        shutil.rmtree(path)


def test_chunks_stay_in_the_folder_until_a_part_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = RNG.integers(0, 9, (2, 6, 8, 6)).astype(np.uint8)
    path = ome(tmp_path / "a.zarr", values, "czyx", levels=1)
    image = map_image(path).image
    read: list[Path] = []
    plain = zarr_array.read_bytes

    def counted(file: Path) -> bytes:
        read.append(file)
        return plain(file)

    monkeypatch.setattr(zarr_array, "read_bytes", counted)
    part = image[:, 1:3, 2:4]
    assert part.dtype == np.float32 and len(read) == 1 * 2 * 1 * 3
    np.testing.assert_array_equal(part, values[:, 1:3, 2:4])
    np.testing.assert_array_equal(image[:,], values)
    plainly = create(tmp_path / "b.zarr", values[0], 3)
    np.testing.assert_array_equal(map_image(plainly, axes="HWC").image, np.moveaxis(values[0], -1, 0))
    np.testing.assert_array_equal(map_image(plainly, axes="CHW").image[1:4, 2:5], values[0, 1:4, 2:5])
    np.testing.assert_array_equal(map_image(plainly, dims=3).image[:, 1:4, 2:5], values[None, 0, 1:4, 2:5])


def test_an_image_is_unpacked_once_for_all_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles that overlap read each chunk again and again; the values are those of the chunks, in memory or a file."""
    values = RNG.integers(0, 200, (1, 9, 8, 6)).astype(np.uint8)
    image = map_image(ome(tmp_path / "a.zarr", values, "czyx", levels=1)).image
    assert isinstance(image, MappedImage)
    read: list[Path] = []
    plain = zarr_array.read_bytes

    def counted(file: Path) -> bytes:
        read.append(file)
        return plain(file)

    monkeypatch.setattr(zarr_array, "read_bytes", counted)
    for most in (1 << 20, 10):
        monkeypatch.setattr("convoxel.files.file_array.MOST_IN_MEMORY", most)
        read.clear()
        once = image.unpacked()
        tiles = [once[:, first : first + 4] for first in range(6)]
        assert len(read) == len(set(read)) > 1
        for first, tile in enumerate(tiles):
            np.testing.assert_array_equal(tile, values[:, first : first + 4])


def test_a_folder_of_zarr_images_is_a_data_set(tmp_path: Path) -> None:
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
        for i in range(3):
            values = RNG.integers(0, 2 if kind == "labels" else 99, (4, 6, 5)).astype(np.uint8)
            ome(tmp_path / kind / f"{i}.ome.zarr", values, "zyx", levels=1, unit="millimeter")
    found = data.load(tmp_path, "segment")
    assert found.dims == 3 and found.train[0].image.shape == (1, 4, 6, 5) and found.spacing_mm == (2, 0.5, 0.25)
    before = found.fingerprint
    chunk = next(
        p for p in sorted((tmp_path / "images" / "0.ome.zarr" / "0").rglob("*")) if p.name[0].isdigit() and p.is_file()
    )
    chunk.write_bytes(chunk.read_bytes()[:-9])
    assert data.load(tmp_path, "segment").fingerprint != before
    assert data.check(tmp_path, "segment")


def edit(path: Path, **changes: Any) -> None:
    file = path / ("zarr.json" if (path / "zarr.json").exists() else ".zarray")
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


HOSTILE: dict[str, tuple[int, dict[str, Any], str]] = {
    "pickled objects": (2, {"dtype": "|O", "filters": [{"id": "pickle"}]}, "values of type"),
    "a filter": (2, {"filters": [{"id": "delta", "dtype": "<i4"}]}, "the filters"),
    "an unknown codec": (2, {"compressor": {"id": "pickle"}}, "the codec"),
    "a shape of 2**60": (2, {"shape": [2**20] * 3, "chunks": [2**10] * 3}, "chunks"),
    "a chunk of 4 GiB": (2, {"shape": [2**10] * 3, "chunks": [2**11] * 3}, "inflate"),
    "a shape of zeros": (2, {"shape": [0, 4, 4]}, "shape is"),
    "structures": (2, {"dtype": [["a", "<i4"]]}, "values of type"),
    "a false order": (2, {"order": "Z"}, "order is"),
    "an unknown codec of format 3": (3, {"codecs": [{"name": "bytes"}, {"name": "https://x/y"}]}, "the codec"),
    "no bytes": (3, {"codecs": [{"name": "gzip"}]}, "the codecs"),
    "gzip twice": (3, {"codecs": [{"name": "bytes"}, {"name": "gzip"}, {"name": "gzip"}]}, "twice"),
    "strings": (3, {"data_type": "string"}, "values of type"),
    "another grid": (3, {"chunk_grid": {"name": "rectangular", "configuration": {"chunk_shape": [1, 1, 1]}}}, "grid"),
    "a false fill": (3, {"fill_value": [1]}, "fill_value"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_false_metadata_are_refused(tmp_path: Path, kind: str) -> None:
    form, changes, word = HOSTILE[kind]
    path = create(tmp_path / "a.zarr", np.ones((4, 4, 4), np.int32), form)
    edit(path, **changes)
    refused(lambda: data.read_image(path), path, word)


def test_chunks_that_lie_are_refused(tmp_path: Path) -> None:
    for name, options, form in (
        ("blosc", SECOND["blosc"], 2),
        ("gzip", THIRD["gzip"], 3),
        ("zstd", THIRD["default"], 3),
    ):
        path = create(tmp_path / f"{name}.zarr", np.ones((4, 4, 4), np.uint8), form, chunks=(4, 4, 4), **options)
        chunk = next(
            p for p in sorted(path.rglob("*")) if p.is_file() and "zarr" not in p.name[-5:] and p.suffix != ".json"
        )
        bomb = {
            "blosc": numcodecs.Blosc("zstd", clevel=9).encode(bytes(2**24)),
            "gzip": numcodecs.GZip(9).encode(bytes(2**20)),
            "zstd": numcodecs.Zstd(9).encode(bytes(2**24)),
        }[name]
        chunk.write_bytes(bomb)
        refused(lambda path=path: data.read_image(path), path)  # type: ignore[misc]
    path = create(tmp_path / "s.zarr", RNG.integers(0, 9, (6, 8, 10)), 3, **THIRD["shards"])
    shard = path / "c" / "0" / "0" / "0"
    content = bytearray(shard.read_bytes())
    content[-30] ^= 1
    shard.write_bytes(content)
    refused(lambda: data.read_image(path), path, "the checksum")


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    path = create(tmp_path / "a.zarr", np.ones((4, 4, 4), np.uint8), 2, **SECOND["none"])
    chunk = path / "0.0.0"
    chunk.rename(tmp_path / "outside")
    chunk.symlink_to(tmp_path / "outside")
    refused(lambda: data.read_image(path), path, "a link that leads out of the folder")
    image = ome(tmp_path / "b.zarr", np.ones((4, 4), np.uint8), "yx")
    attributes = json.loads((image / ".zattrs").read_text())
    attributes["multiscales"][0]["datasets"][0]["path"] = "../a.zarr"
    (image / ".zattrs").write_text(json.dumps(attributes))
    refused(lambda: data.read_image(image), image, "a level at '../a.zarr'")
    shutil.rmtree(image / "1")
    (image / "1").symlink_to(path)
    attributes["multiscales"][0]["datasets"][0]["path"] = "1"
    (image / ".zattrs").write_text(json.dumps(attributes))
    refused(lambda: data.read_image(image), image, "a link that leads out of the folder")


def test_groups_that_are_no_image_are_told(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=3)
    group.create_array("inner", shape=(4, 4), dtype="u1")[:] = 1
    refused(
        lambda: data.read_image(tmp_path / "a.zarr"), tmp_path / "a.zarr", "no OME image (inner)", "FOLDER.zarr/NAME"
    )
    assert data.read_image(tmp_path / "a.zarr" / "inner").image.shape == (1, 4, 4)
    old = ome(tmp_path / "b.zarr", np.ones((4, 4), np.uint8), "yx")
    attributes = json.loads((old / ".zattrs").read_text())
    attributes["multiscales"][0]["version"] = "0.2"
    (old / ".zattrs").write_text(json.dumps(attributes))
    refused(lambda: data.read_image(old), old, "version '0.2'")
    plate = zarr.create_group(tmp_path / "c.zarr", zarr_format=2)
    plate.attrs["bioformats2raw.layout"] = 3
    ome(tmp_path / "c.zarr" / "0", np.ones((4, 4), np.uint8), "yx")
    assert zarr_image.read_header(tmp_path / "c.zarr").shape == (4, 4)
    ome(tmp_path / "c.zarr" / "1", np.ones((4, 4), np.uint8), "yx")
    refused(lambda: data.read_image(tmp_path / "c.zarr"), tmp_path / "c.zarr", "2 images in one folder")


@pytest.mark.parametrize("seed", range(20))
def test_random_damage_never_gets_out(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    form, options = [(2, SECOND["blosc"]), (3, THIRD["default"]), (3, THIRD["shards"]), (2, SECOND["lz4"])][seed % 4]
    path = create(tmp_path / "a.zarr", rng.integers(0, 9, (4, 4, 4)), form, **options)
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        content = bytearray(file.read_bytes())
        for place in rng.integers(0, len(content), rng.integers(0, 3)):
            content[place] = rng.integers(256)
        file.write_bytes(content)
    try:
        assert data.read_image(path).image.ndim <= 5
    except DataError as error:
        assert str(path) in str(error)
