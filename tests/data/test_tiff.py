"""TIFF: values equal tifffile's; pages become depth and channels as described; claims are checked before decoding."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from convoxel import data
from convoxel.data import tiff
from convoxel.data.image_file import map_image
from convoxel.data.label_file import read_label
from convoxel.data.mapped_image import MappedImage
from convoxel.errors import DataError
from convoxel.files import file_array
from convoxel.files.file_array import FileArray
from tests.support.refusal import refused

RNG = np.random.default_rng(5)
GREY = RNG.integers(0, 256, (40, 56), np.uint8)
STACK = RNG.integers(0, 256, (5, 3, 20, 24), np.uint8)  # depth, channels, height, width


def write(path: Path, array: Any, **options: Any) -> Path:
    tifffile.imwrite(path, array, **options)
    return path


def scaled(stored: Any) -> Any:
    """The numbers of an image: bool and 16 bits on the scale 0…255."""
    if stored.dtype == bool:
        return stored * np.float32(255)
    return stored / np.float32(257) if stored.dtype == np.uint16 else stored.astype(np.float32)


@pytest.mark.parametrize(
    ("dtype", "most"),
    [
        *((kind, 2**26) for kind in ("u1", "u2", "i1", "i2", "u4", "i4", "f2", "f4", "f8", "bool")),
        *((kind, 1000) for kind in ("u2", "f4", "bool")),
    ],
)
def test_every_type_and_compression_is_read_as_tifffile_reads_it(
    tmp_path: Path, dtype: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages above the second limit are decoded one strip or tile after the other, into a file."""
    monkeypatch.setattr(file_array, "MOST_IN_MEMORY", most)
    stack = (RNG.standard_normal((2, 40, 56)) * 60).astype(dtype)
    seen = mapped = 0
    for compression in (None, "zlib", "lzw", "zstd", "packbits", "lzma"):
        for form in (
            {},
            {"tile": (32, 16)},
            {"bigtiff": True, "byteorder": ">"},
            {"rowsperstrip": 7, "predictor": True},
        ):
            options: dict[str, Any] = {"photometric": "minisblack", "compression": compression, **form}
            try:
                path = write(tmp_path / "a.tif", stack, **options)
            except (ValueError, NotImplementedError, TypeError):
                continue  # no predictor for this type
            header, values = tiff.read_values(path, False)
            assert header.shape == stack.shape
            np.testing.assert_array_equal(values[0], scaled(tifffile.imread(path)))
            np.testing.assert_array_equal(tiff.read_values(path, True)[1][0], stack)
            found = tiff.map_values(path)
            if found is not None:
                mapped += 1
                np.testing.assert_array_equal(found[1][:,], values)
            seen += 1
    assert seen >= 12 and mapped == (seen if most == 1000 else 0 if dtype == "bool" else 2)


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "png", "webp", "lerc"])
def test_segments_that_are_pictures(tmp_path: Path, compression: str) -> None:
    colour = np.dstack([GREY, GREY[::-1], GREY[:, ::-1]])
    path = write(tmp_path / "a.tif", colour, photometric="rgb", compression=compression, tile=(32, 32))
    np.testing.assert_array_equal(data.read_image(path).image, np.moveaxis(tifffile.imread(path), -1, 0))


def test_channels_depth_and_spacing_as_imagej_and_ome_write_them(tmp_path: Path) -> None:
    expected = np.moveaxis(STACK, 1, 0)
    sizes = {"PhysicalSizeX": 500, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.25, "PhysicalSizeZ": 2}
    for name, options, spacing in (
        (
            "a",
            {"imagej": True, "resolution": (2, 4), "metadata": {"axes": "ZCYX", "spacing": 2.5, "unit": "mm"}},
            (2.5, 0.25, 0.5),
        ),
        ("b", {"ome": True, "metadata": {"axes": "ZCYX", **sizes}}, (0.002, 0.00025, 0.0005)),
        ("c", {"metadata": {"axes": "ZCYX"}, "photometric": "minisblack"}, None),
    ):
        sample = data.read_image(write(tmp_path / f"{name}.tif", STACK, **options))
        np.testing.assert_array_equal(sample.image, expected)
        assert sample.spacing_mm is None if spacing is None else np.allclose(sample.spacing_mm or (), spacing)
    flat = data.read_image(write(tmp_path / "d.tif", STACK[0], imagej=True, metadata={"axes": "CYX"}))
    np.testing.assert_array_equal(flat.image, STACK[0])
    film = data.read_image(
        write(tmp_path / "e.tif", STACK[:, 0], imagej=True, metadata={"axes": "TYX", "unit": "um"}, resolution=(2, 2))
    )
    assert film.image.shape == (1, 5, 20, 24) and film.spacing_mm is None  # a step of time is no length
    ome = tifffile.imread(write(tmp_path / "f.tif", STACK, ome=True, metadata={"axes": "CZYX"}))
    np.testing.assert_array_equal(data.read_image(tmp_path / "f.tif").image, ome)
    shuffled = write(tmp_path / "g.tif", STACK, ome=True, metadata={"axes": "ZCYX"}).read_bytes()
    (tmp_path / "g.tif").write_bytes(shuffled.replace(b'SizeZ="5"', b'SizeZ="6"'))
    refused(lambda: data.read_image(tmp_path / "g.tif"), tmp_path / "g.tif", "planes", "15")


def test_one_list_of_tags_for_a_large_stack(tmp_path: Path) -> None:
    """ImageJ writes stacks above 4 GB so: the other planes follow the first."""
    text = "ImageJ=1.53t\nimages=5\nslices=5\nunit=micron\nspacing=3\n"
    path = write(tmp_path / "a.tif", STACK[0, 0], description=text, metadata=None, resolution=(1, 1))
    with path.open("ab") as file:
        file.write(STACK[1:, 0].tobytes())
    assert path.read_bytes().endswith(STACK[:, 0].tobytes())
    np.testing.assert_array_equal(data.read_image(path).image[0], STACK[:, 0])
    assert np.allclose(data.read_image(path).spacing_mm or (), (0.003, 0.001, 0.001))
    path.write_bytes(path.read_bytes()[:-1])
    refused(lambda: data.read_image(path), path, "5 planes")


def test_resolution_tags_tell_the_size_of_a_pixel_unless_they_are_of_print(tmp_path: Path) -> None:
    for resolution, unit, spacing in (
        ((40, 20), 3, (0.5, 0.25)),
        ((2540, 2540), 2, (0.01, 0.01)),
        ((300, 300), 2, None),
        ((118.1102, 118.1102), 3, None),
        ((1, 1), 2, None),
        ((40, 20), 1, None),
    ):
        path = write(tmp_path / "a.tif", GREY, resolution=resolution, resolutionunit=unit)
        found = data.read_image(path).spacing_mm
        assert found is None if spacing is None else np.allclose(found or (), spacing), (resolution, unit, found)


@pytest.mark.parametrize("strip", [2**20, 100])
def test_images_are_read_as_shown_and_labels_as_written(
    tmp_path: Path, strip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiff, "_STRIP", strip)
    monkeypatch.setattr(file_array, "MOST_IN_MEMORY", 2 * strip)
    numbers = RNG.integers(0, 4, (9, 12)).astype(np.uint8)
    path = write(tmp_path / "white.tif", numbers, photometric="miniswhite")
    np.testing.assert_array_equal(data.read_image(path).image[0], 255.0 - numbers)
    np.testing.assert_array_equal(read_label(path)[1], numbers)
    path = write(tmp_path / "bool.tif", numbers > 1)
    np.testing.assert_array_equal(read_label(path)[1], numbers > 1)
    palette = Image.fromarray(np.dstack([GREY, GREY, GREY])).quantize(16)
    palette.save(tmp_path / "palette.tif")
    expected = np.moveaxis(np.asarray(palette.convert("RGB")), -1, 0)
    np.testing.assert_array_equal(data.read_image(tmp_path / "palette.tif").image, expected)
    np.testing.assert_array_equal(read_label(tmp_path / "palette.tif")[1], np.asarray(palette))
    clear = np.dstack([GREY, GREY, GREY, np.full_like(GREY, 51)])
    path = write(tmp_path / "clear.tif", clear, photometric="rgb", extrasamples=["unassalpha"])
    shown = np.rint(GREY * 0.2 + 204)
    assert np.abs(data.read_image(path).image - shown).max() <= 1
    np.testing.assert_array_equal(
        read_label(write(tmp_path / "l.tif", np.dstack([numbers] * 3), photometric="rgb"))[1], numbers
    )
    cmyk = Image.fromarray(np.dstack([GREY, GREY[::-1], GREY])).convert("CMYK")
    cmyk.save(tmp_path / "cmyk.tif")
    found = data.read_image(tmp_path / "cmyk.tif").image
    assert np.abs(found - np.moveaxis(np.asarray(cmyk.convert("RGB")), -1, 0)).max() <= 1
    for mode in ("YCbCr", "LAB", "PA"):
        Image.fromarray(clear[..., :3]).convert(mode).save(tmp_path / f"{mode}.tif")
        with Image.open(tmp_path / f"{mode}.tif") as shown:
            expected = np.moveaxis(np.asarray(shown.convert("RGB")), -1, 0)
        np.testing.assert_array_equal(data.read_image(tmp_path / f"{mode}.tif").image, expected)
    path = write(tmp_path / "colours.tif", clear[..., [0, 1, 3]], photometric="rgb")
    refused(lambda: read_label(path), path, "a label picture in colours")


def test_large_pages_of_every_kind_are_decoded_by_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Separate planes, tiles at the edge, missing tiles, pictures as tiles: the same numbers, and no page in memory."""
    planes = RNG.integers(0, 256, (70, 90, 3), np.uint8)
    kinds: dict[str, dict[str, Any]] = {
        "separate": {"planarconfig": "separate", "tile": (32, 16), "compression": "zlib"},
        "contiguous": {"planarconfig": "contig", "rowsperstrip": 9, "compression": "lzw"},
        "jpeg": {"planarconfig": "contig", "tile": (32, 32), "compression": "jpeg"},
    }
    for name, options in kinds.items():
        array = np.moveaxis(planes, -1, 0) if name == "separate" else planes
        path = write(tmp_path / f"{name}.tif", array, photometric="rgb", **options)
        whole = data.read_image(path).image
        parts: list[int] = []
        assign = FileArray.__setitem__
        with monkeypatch.context() as patch:
            patch.setattr(file_array, "MOST_IN_MEMORY", 5000)

            def counted(
                self: FileArray, place: Any, values: Any, assign: Any = assign, parts: list[int] = parts
            ) -> None:
                parts.append(np.asarray(values).size)
                assign(self, place, values)

            patch.setattr(FileArray, "__setitem__", counted)
            image = map_image(path).image
        assert isinstance(image, MappedImage) and isinstance(image.stored, FileArray)
        np.testing.assert_array_equal(image[:,], whole)
        assert max(parts[:-1]) < planes.size / 3 and len(parts) > 5
        np.testing.assert_array_equal(whole, np.moveaxis(tifffile.imread(path), 0 if name == "separate" else -1, 0))


def test_thumbnails_are_skipped_and_other_pages_must_be_alike(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(GREY[::4, ::4], subfiletype=1, metadata=None)
        for _ in range(2):
            file.write(GREY, metadata=None)
    assert data.read_image(path).image.shape == (1, 2, 40, 56)
    with tifffile.TiffWriter(path) as file:
        file.write(GREY, metadata=None)
        file.write(GREY[:9], metadata=None)
    refused(lambda: data.read_image(path), path, "pages that differ", "56 × 9")
    path = write(tmp_path / "b.tif", STACK, imagej=True, metadata={"axes": "TZYX"})
    refused(lambda: data.read_image(path), path, "T 5, Z 3")
    path = write(tmp_path / "c.tif", STACK, photometric="minisblack")
    refused(lambda: data.read_image(path), path, "Q 5, Q 3", "metadata={'axes'")


def test_planes_in_other_files_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ome.tif", STACK, ome=True, metadata={"axes": "ZCYX"})
    text = tifffile.tiffcomment(path)
    assert isinstance(text, str)
    changed = text.replace("/></Pixels>", '><UUID FileName="b.ome.tif">urn:uuid:1</UUID></TiffData></Pixels>')
    assert changed != text
    tifffile.tiffcomment(path, changed.encode())
    refused(lambda: data.read_image(path), path, "planes in other files", "b.ome.tif")
    tifffile.tiffcomment(path, text.replace("<OME", "<!DOCTYPE a [<!ENTITY b 'c'>]><OME").encode())
    refused(lambda: data.read_image(path), path, "entities")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    volume = RNG.standard_normal((2, 4, 6, 8)).astype(np.float32)
    path = data.write_image(tmp_path / "a.tif", volume, spacing_mm=(2.5, 0.5, 0.25))
    sample = data.read_image(path)
    np.testing.assert_array_equal(sample.image, volume)
    assert np.allclose(sample.spacing_mm or (), (2.5, 0.5, 0.25))
    label = RNG.integers(0, 4, (4, 6, 8)).astype(np.uint8)
    path = data.write_label(tmp_path / "b.tif", label, like=data.Sample("a", volume, spacing_mm=(2.5, 0.5, 0.25)))
    header, values = read_label(path)
    np.testing.assert_array_equal(values, label)
    assert np.allclose(header.spacing_mm or (), (2.5, 0.5, 0.25)) and tifffile.imread(path).shape == (4, 6, 8)
    assert (
        data.write_label(tmp_path / "c.tif", label).read_bytes()
        == data.write_label(tmp_path / "d.tif", label).read_bytes()
    )


def page(*tags: tuple[int, int], big: int = 0) -> bytes:
    """Return a TIFF of one page with tags (number, value), and ``big`` bytes of zeros behind it."""
    body = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + body + bytes(4) + bytes(big)


GREY_TAGS = ((262, 1), (277, 1))
NINE = ((256, 9), (257, 9))
HOSTILE = {
    "a tile of 4 GiB": (
        page(*NINE, (258, 8), (259, 8), *GREY_TAGS, (322, 65520), (323, 65520), (324, 9), (325, 9), big=99),
        "inflate",
    ),
    "a strip beyond the end": (page(*NINE, (258, 8), *GREY_TAGS, (273, 8), (279, 10**6), big=99), "beyond the end"),
    "a short strip": (page((256, 99), (257, 99), (258, 8), (273, 8), (279, 50), big=99), "stores only 50 bytes"),
    "a strip that is missing": (
        page(*NINE, (258, 8), (259, 8), (273, 8), (279, 0), big=99),
        "a strip or tile of 0 bytes",
    ),
    "JPEG XL": (page(*NINE, (258, 8), (259, 50002), (273, 8), (279, 50), big=99), "compression 50002"),
    "values of 24 bits": (page(*NINE, (258, 24), (273, 8), (279, 50), big=999), "24 bits"),
    "Lab of one value": (page(*NINE, (258, 8), (262, 8), (273, 8), (279, 90), big=99), "photometric kind 8"),
    "a raw photograph": (page(*NINE, (258, 8), (262, 32803), (273, 8), (279, 90), big=99), "photometric kind 32803"),
    "a tag beyond the end": (
        b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 256, 4, 2**30, 8) + bytes(40),
        "header is damaged",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_false_claims_are_refused(tmp_path: Path, kind: str) -> None:
    content, word = HOSTILE[kind]
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    refused(lambda: data.read_image(path), path, word)


def test_a_segment_that_claims_to_be_larger_than_its_tile_is_refused(tmp_path: Path) -> None:
    for name, marker, place in (("jpeg", b"\xff\xc0", 5), ("png", b"IHDR", 4), ("jpeg2000", b"\xff\x4f\xff\x51", 8)):
        path = write(tmp_path / f"{name}.tif", GREY, compression=name, tile=(64, 64))
        content = bytearray(path.read_bytes())
        at = content.index(marker) + place
        content[at : at + 2] = b"\xf0\x00"
        path.write_bytes(content)
        refused(lambda path=path: data.read_image(path), path, "strip or tile that claims")  # type: ignore[misc]


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_never_gets_out(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    options = ({"compression": "zlib"}, {"imagej": True}, {"ome": True}, {"compression": "jpeg"})[seed % 4]
    content = bytearray(write(tmp_path / "a.tif", STACK[:, 0], photometric="minisblack", **options).read_bytes())
    for place in rng.integers(0, 900, rng.integers(1, 9)):
        content[place] = rng.integers(256)
    path = tmp_path / "b.tif"
    path.write_bytes(content)
    try:
        assert data.read_image(path).image.ndim in (3, 4)
    except DataError as error:
        assert str(path) in str(error)


def test_json_that_lies_is_no_crash(tmp_path: Path) -> None:
    for text in (json.dumps({"shape": [0, 4]}), '{"shape": 3}', '{"shape": [[1]]}', '{"shape": ' + "[" * 5000):
        path = write(tmp_path / "a.tif", GREY, description=text, metadata=None)
        try:
            assert data.read_image(path).image.shape == (1, 40, 56)
        except DataError as error:
            assert str(path) in str(error)
