"""MetaImage and NRRD: what SimpleITK wrote is read alike and written back alike, and no false header gets past."""

from __future__ import annotations

import functools
import gzip
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK

from convoxel import data
from convoxel.data.image_file import list_images, map_image, read_stored
from convoxel.errors import DataError
from tests.support.refusal import refused

_TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]


def drawn(seed: int, dims: int = 3, channels: int = 1, dtype: str = "i2") -> tuple[SimpleITK.Image, Any]:
    """An image of SimpleITK with an oblique or permuted direction, and its values (channels, x, y, …)."""
    rng = np.random.default_rng(seed)
    size = rng.integers(2, 7, dims)
    shape = (*size[::-1], channels) if channels > 1 else tuple(size[::-1])
    values = (rng.random(shape) * 100).astype(dtype)
    image = SimpleITK.GetImageFromArray(values, isVector=channels > 1)
    direction = np.linalg.qr(rng.standard_normal((dims, dims)))[0]
    if seed % 2:
        direction = np.eye(dims)[rng.permutation(dims)] * rng.choice([-1, 1], dims)[:, None]
    image.SetDirection(direction.ravel().tolist())
    image.SetSpacing(rng.uniform(0.3, 4, dims).tolist())
    image.SetOrigin(rng.uniform(-99, 99, dims).tolist())
    ours = np.moveaxis(values if channels > 1 else values[..., None], -1, 0)
    return image, ours.transpose(0, *range(dims, 0, -1))


def affine_of(image: SimpleITK.Image) -> Any:
    dims = image.GetDimension()
    affine = np.eye(4)
    affine[:dims, :dims] = np.array(image.GetDirection()).reshape(dims, dims) * np.array(image.GetSpacing())
    affine[:dims, 3] = image.GetOrigin()
    return np.diag([-1.0, -1, 1, 1]) @ affine


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nrrd", ".nhdr"])
@pytest.mark.parametrize("seed", range(10))
def test_reads_what_simpleitk_wrote(tmp_path: Path, seed: int, ending: str) -> None:
    dims, channels = (2, 3, 3)[seed % 3], (1, 3)[seed % 4 == 0]
    image, values = drawn(seed, dims, channels, _TYPES[seed])
    for packed in (False, True):
        path = tmp_path / f"a.b{ending}"
        SimpleITK.WriteImage(image, str(path), packed)
        sample = data.read_image(path)
        stored = read_stored(path, label=True)[1]
        assert stored.dtype == _TYPES[seed] and np.array_equal(stored, values)
        assert sample.image.dtype == np.float32 and sample.image.flags.c_contiguous and sample.name == "a.b"
        assert np.array_equal(sample.image, values.astype(np.float32))
        assert np.array_equal(map_image(path).image[:, :], sample.image)
        assert sample.spacing_mm is not None and np.allclose(sample.spacing_mm, image.GetSpacing(), rtol=1e-12)
        if dims == 2 and ending in (".nrrd", ".nhdr"):  # SimpleITK states no patient's space there
            assert sample.affine is None
        else:
            assert sample.affine is not None and np.allclose(sample.affine, affine_of(image), rtol=0, atol=1e-12)


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_big_endian(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    image, values = drawn(3)
    SimpleITK.WriteImage(image, str(path))
    head, mark, block = path.read_bytes().partition(b"LOCAL\n" if ending == ".mha" else b"\n\n")
    head = head.replace(b"MSB = False", b"MSB = True").replace(b"endian: little", b"endian: big")
    path.write_bytes(head + mark + np.frombuffer(block, "<i2").astype(">i2").tobytes())
    assert np.array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).T[None], values)
    assert np.array_equal(data.read_image(path).image, values)


_WAYS = (".mha .mha", ".mhd .mha", ".nrrd .nrrd", ".nhdr .nrrd", ".mha .nrrd", ".nrrd .mha")


@pytest.mark.parametrize("way", _WAYS)
@pytest.mark.parametrize("seed", range(3))
def test_labels_and_images_are_written_on_the_grid_of_their_image(tmp_path: Path, way: str, seed: int) -> None:
    read, written = way.split()
    image, values = drawn(seed, channels=1 + seed)
    SimpleITK.WriteImage(image, str(tmp_path / f"a{read}"))
    sample = data.read_image(tmp_path / f"a{read}")
    label = np.arange(values[0].size, dtype=np.uint8).reshape(values[0].shape)
    found = SimpleITK.ReadImage(str(data.write_label(tmp_path / f"l{written}", label, like=sample)))
    assert found.GetPixelID() == SimpleITK.sitkUInt8 and np.array_equal(SimpleITK.GetArrayFromImage(found).T, label)
    for name in ("GetDirection", "GetSpacing", "GetOrigin"):
        assert np.allclose(getattr(found, name)(), getattr(image, name)(), rtol=1e-14, atol=1e-14)
    back = data.read_image(data.write_image(tmp_path / f"i{written}", sample.image, like=sample))
    assert np.array_equal(back.image, sample.image) and back.affine is not None and sample.affine is not None
    if read[1] == written[1]:
        assert np.array_equal(back.affine, sample.affine) and back.spacing_mm == sample.spacing_mm
    else:
        assert np.allclose(back.affine, sample.affine, rtol=1e-14, atol=1e-14)


def test_channels_wherever_they_lie(tmp_path: Path) -> None:
    values = np.arange(48, dtype=np.uint8)
    for sizes, kinds, axis in (
        ("2 4 3 2", "vector domain domain domain", 0),
        ("4 2 3 2", "domain list domain domain", 1),
        ("4 3 2 2", "domain domain domain domain", 3),
        ("4 3 2 2", "space space space list", 3),
    ):
        head = f"NRRD0004\ntype: uchar\ndimension: 4\nsizes: {sizes}\nkinds: {kinds}\nencoding: raw\n\n"
        path = tmp_path / "a.nrrd"
        path.write_bytes(head.encode() + values.tobytes())
        expected = np.moveaxis(values.reshape([int(size) for size in sizes.split()], order="F"), axis, 0)
        assert np.array_equal(data.read_image(path).image, expected)
    image = SimpleITK.GetImageFromArray(values.reshape(2, 2, 3, 4), isVector=False)
    for ending in (".mha", ".nrrd"):
        SimpleITK.WriteImage(image, str(tmp_path / f"b{ending}"))
        assert np.array_equal(
            data.read_image(tmp_path / f"b{ending}").image, values.reshape(2, 2, 3, 4).transpose(0, 3, 2, 1)
        )


def test_spaces_and_units_of_nrrd(tmp_path: Path) -> None:
    def affine(space: str, units: str = "") -> Any:
        path = tmp_path / "a.nrrd"
        text = f"NRRD0004\ntype: uchar\ndimension: 3\nspace: {space}\nsizes: 2 2 2\n{units}encoding: raw\n"
        path.write_bytes(
            text.encode() + b"space directions: (2,0,0) (0,3,0) (0,0,4)\nspace origin: (5,6,7)\n\n" + bytes(8)
        )
        return data.read_image(path).affine

    steps = np.array([[2.0, 0, 0, 5], [0, 3, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1]])
    for space, signs in (("RAS", (1, 1)), ("left-anterior-superior", (-1, 1)), ("LPS", (-1, -1))):
        assert np.array_equal(affine(space), np.diag([*signs, 1, 1]) @ steps)
    assert affine("scanner-xyz") is None
    micrometres = 'space units: "um" "um" "um"\n'
    assert np.allclose(affine("RAS", micrometres), np.diag([1e-3, 1e-3, 1e-3, 1]) @ steps)


def test_spacing_without_orientation(tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    path.write_bytes(b"NRRD0001\ntype: uchar\ndimension: 2\nsizes: 2 3\nspacings: 0.5 2\nencoding: raw\n\n" + bytes(6))
    sample = data.read_image(path)
    assert sample.spacing_mm == (0.5, 2.0) and sample.affine is None
    back = data.read_image(data.write_label(tmp_path / "b.nrrd", np.ones((2, 3)), like=sample))
    assert back.spacing_mm == (0.5, 2.0) and back.affine is None and (back.image == 1).all()


def test_voxels_behind_a_gap(tmp_path: Path) -> None:
    """HeaderSize counts from the beginning of the file, -1 from its end, as ITK reads it."""
    values = np.arange(24, dtype="<i2").reshape(4, 3, 2)
    lines = "ObjectType = Image\nNDims = 3\nDimSize = 2 3 4\nElementType = MET_SHORT\nHeaderSize = {}\n"
    for size in ("-1", "200"):
        path = tmp_path / f"{size}.mha"
        head = (lines.format(size) + "ElementDataFile = LOCAL\n").encode()
        path.write_bytes(head.ljust(200, b"?") + values.tobytes())
        theirs = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
        assert np.array_equal(theirs, values) and np.array_equal(data.read_image(path).image[0].T, values)


def test_voxels_beside_their_header_belong_to_the_image(tmp_path: Path) -> None:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
        for number, case in enumerate("abcd"):
            values = np.eye(8, dtype=np.uint8)[None].repeat(4, 0) + np.uint8(number * (name == "images"))
            image = SimpleITK.GetImageFromArray(values)
            SimpleITK.WriteImage(image, str(tmp_path / name / f"{case}.mhd"))
    assert [path.name for path in list_images(tmp_path / "images")] == [f"{case}.mhd" for case in "abcd"]
    before = data.load(tmp_path, "segment").fingerprint
    assert data.check(tmp_path, "segment") == []
    block = tmp_path / "images" / "a.raw"
    block.write_bytes(b"\7" + block.read_bytes()[1:])
    assert data.load(tmp_path, "segment").fingerprint != before
    block.rename(tmp_path / "images" / "z.raw")  # nobody's voxels now
    assert len(data.check(tmp_path, "segment")) == 2


# ---- hostile files -------------------------------------------------------------------------------------------

_MHA = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "Offset": "0 0 0",
    "ElementSpacing": "1 1 1",
    "DimSize": "4 5 6",
    "ElementType": "MET_SHORT",
    "ElementDataFile": "LOCAL",
}
_NRRD = {
    "type": "short",
    "dimension": "3",
    "space": "LPS",
    "sizes": "4 5 6",
    "space directions": "(1,0,0) (0,1,0) (0,0,1)",
    "endian": "little",
    "encoding": "raw",
    "space origin": "(0,0,0)",
}
_BLOCK = np.arange(120, dtype="<i2").tobytes()


def forged(folder: Path, ending: str, changes: dict[str, str], block: bytes = _BLOCK) -> Path:
    """A valid file whose header has some other lines."""
    path = folder / f"a{ending}"
    if ending in (".mha", ".mhd"):
        fields = {**_MHA, **changes}
        last = {"ElementDataFile": fields.pop("ElementDataFile")}
        text = "".join(f"{key} = {value}\n" for key, value in {**fields, **last}.items())
    else:
        text = "NRRD0005\n" + "".join(f"{key}: {value}\n" for key, value in {**_NRRD, **changes}.items()) + "\n"
    path.write_bytes(text.encode() + block)
    return path


FORGERIES: list[tuple[str, dict[str, str], tuple[str, ...]]] = [
    (".mha", {"DimSize": "40000 50000 60000"}, ("claims",)),
    (".mha", {"DimSize": "4 5"}, ("DimSize",)),
    (".mha", {"DimSize": "0 5 6"}, ("DimSize", "at least 1")),
    (".mha", {"DimSize": "-4 -5 6"}, ("DimSize",)),
    (".mha", {"DimSize": "9" * 4000}, ("DimSize",)),
    (".mha", {"NDims": "9"}, ("NDims", "1 to 4")),
    (".mha", {"NDims": "3.5"}, ("NDims",)),
    (".mha", {"ElementSpacing": "1 nan 1"}, ("ElementSpacing", "nan")),
    (".mha", {"ElementSpacing": "1 0 1"}, ("ElementSpacing", "above 0")),
    (".mha", {"ElementSpacing": "1 inf 1"}, ("ElementSpacing",)),
    (".mha", {"ElementSpacing": "1 1e300 1"}, ("ElementSpacing",)),
    (".mha", {"ElementSpacing": "1 1e9 1"}, ("mm long",)),
    (".mha", {"Offset": "nan 0 0"}, ("Offset",)),
    (".mha", {"TransformMatrix": "1 0 0 1 0 0 0 0 1"}, ("plane",)),
    (".mha", {"TransformMatrix": "0 0 0 0 0 0 0 0 0"}, ("length 1",)),
    (".mha", {"TransformMatrix": "2 0 0 0 1 0 0 0 1"}, ("length 1",)),
    (".mha", {"TransformMatrix": "1 0 0"}, ("TransformMatrix", "9")),
    (".mha", {"ElementType": "MET_DOUBLE_ARRAY"}, ("MET_DOUBLE_ARRAY",)),
    (".mha", {"ElementNumberOfChannels": "99999999"}, ("claims",)),
    (".mha", {"BinaryData": "False"}, ("text",)),
    (".mha", {"CompressedData": "True"}, ("damaged",)),
    (".mha", {"CompressedData": "maybe"}, ("CompressedData",)),
    (".mha", {"ElementToIntensityFunctionSlope": "2"}, ("scaled",)),
    (".mha", {"ObjectType": "Tube"}, ("Tube",)),
    (".mhd", {"ElementDataFile": "LIST"}, ("list",)),
    (".mhd", {"ElementDataFile": "s%03d.raw 1 9 1"}, ("list",)),
    (".mhd", {"ElementDataFile": "../outside.raw"}, ("outside.raw", "regular file")),
    (".mhd", {"ElementDataFile": "/etc/passwd"}, ("/etc/passwd", "regular file")),
    (".mhd", {"ElementDataFile": "link.raw"}, ("link.raw", "regular file")),
    (".mhd", {"ElementDataFile": "pipe.raw"}, ("pipe.raw", "regular file")),
    (".mhd", {"ElementDataFile": "block.raw", "HeaderSize": "9999"}, ("claims",)),
    (".nrrd", {"sizes": "40000 50000 60000"}, ("claims",)),
    (".nrrd", {"sizes": "4 5 0"}, ("sizes",)),
    (".nrrd", {"dimension": "99"}, ("dimension",)),
    (".nrrd", {"dimension": "16", "sizes": "2 " * 16}, ("dimension",)),
    (".nrrd", {"type": "block"}, ("block",)),
    (".nrrd", {"endian": "middle"}, ("endian",)),
    (".nrrd", {"encoding": "bzip2"}, ("bzip2", "gzip")),
    (".nrrd", {"encoding": "hex"}, ("hex",)),
    (".nrrd", {"encoding": "gzip"}, ("damaged",)),
    (".nrrd", {"space": "LPX"}, ("LPX",)),
    (".nrrd", {"space directions": "(1,0,0) (1,0,0) (0,0,1)"}, ("plane",)),
    (".nrrd", {"space directions": "(0,0,0) (0,1,0) (0,0,1)"}, ("above 0",)),
    (".nrrd", {"space directions": "(nan,0,0) (0,1,0) (0,0,1)"}, ("nan",)),
    (".nrrd", {"space directions": "none none none"}, ("none of space",)),
    (".nrrd", {"space directions": "(1,0,0"}, ("3 vectors",)),
    (".nrrd", {"space origin": "(inf,0,0)"}, ("inf",)),
    (".nrrd", {"kinds": "complex domain domain"}, ("complex",)),
    (".nrrd", {"byte skip": "99999999999"}, ("byte skip",)),
    (".nrrd", {"byte skip": "9999"}, ("claims",)),
    (".nhdr", {"data file": "LIST"}, ("list",)),
    (".nhdr", {"data file": "../outside.raw"}, ("regular file",)),
    (".nhdr", {"data file": "hard.raw"}, ("regular file",)),
    (".nhdr", {"data file": "loop.raw"}, ("regular file",)),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(FORGERIES)))
def test_false_headers_are_refused(tmp_path: Path, number: int) -> None:
    import os

    home = tmp_path / "home"
    home.mkdir()
    for place in (tmp_path / "outside.raw", home / "block.raw"):
        place.write_bytes(_BLOCK)
    (home / "link.raw").symlink_to(tmp_path / "outside.raw")
    (home / "loop.raw").symlink_to(home / "loop.raw")
    (home / "hard.raw").hardlink_to(tmp_path / "outside.raw")
    os.mkfifo(home / "pipe.raw")
    ending, changes, words = FORGERIES[number]
    path = forged(home, ending, changes)
    tracemalloc.start()
    refused(lambda: data.read_image(path), home, *words)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 2**20


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_bombs_and_truncated_streams(tmp_path: Path, ending: str) -> None:
    pack = zlib.compress if ending == ".mha" else gzip.compress
    changes = {"CompressedData": "True"} if ending == ".mha" else {"encoding": "gzip"}
    sizes = "DimSize" if ending == ".mha" else "sizes"
    honest = forged(tmp_path, ending, changes, pack(_BLOCK))
    assert data.read_image(honest).image.shape == (1, 4, 5, 6)
    for keep in (40, 150, 250, -1, -9):
        cut = tmp_path / f"cut{ending}"
        cut.write_bytes(honest.read_bytes()[:keep])
        refused(functools.partial(data.read_image, cut), cut)
    tracemalloc.start()
    path = forged(tmp_path, ending, changes, pack(_BLOCK + bytes(64 * 2**20)))
    refused(lambda: data.read_image(path), path, "more than the 240 bytes")
    path = forged(tmp_path, ending, {**changes, sizes: "1024 1024 1024"}, pack(bytes(2**20)))
    refused(lambda: data.read_image(path), path, "compressed bytes claim")
    path = forged(tmp_path, ending, {**changes, sizes: "1024 1024 1024"}, bytes(4 * 2**20))
    refused(lambda: data.read_image(path), path, "unpack it yourself")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 160 * 2**20  # the 64 MiB that are written, and their copy


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
@pytest.mark.parametrize("seed", range(60))
def test_random_damage_never_gets_out(tmp_path: Path, seed: int, ending: str) -> None:
    rng = np.random.default_rng(seed)
    content = bytearray(forged(tmp_path, ending, {}).read_bytes())
    for place in rng.integers(0, len(content) - len(_BLOCK), rng.integers(1, 6)):
        content[place] = rng.integers(256)
    path = tmp_path / f"b{ending}"
    path.write_bytes(content[: rng.integers(100, 2 * len(content))])
    try:
        assert np.isfinite(data.read_image(path).image).all()
    except DataError as error:
        assert str(path) in str(error)
