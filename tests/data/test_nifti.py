"""NIfTI: what is read is what was written, and no false header gets past the check."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from convoxel import data
from convoxel.data.label_file import read_label
from convoxel.errors import DataError
from tests.support.refusal import refused

RNG = np.random.default_rng(7)
AFFINE = np.array([[0, -2.0, 0, 10], [1.5, 0, 0, -20], [0, 0, 3.0, 30], [0, 0, 0, 1]])


def volume(path: Path, array: np.ndarray[Any, Any], affine: Any = AFFINE, kind: Any = nibabel.Nifti1Image) -> Path:
    nibabel.save(kind(array, affine), path)
    return path


def forged(path: Path, offset: int, value: bytes, size: tuple[int, ...] = (4, 5, 6)) -> Path:
    """A volume of float32 with the bytes at ``offset`` of its header replaced."""
    content = bytearray(nibabel.Nifti1Image(np.ones(size, np.float32), np.eye(4)).to_bytes())
    content[offset : offset + len(value)] = value
    packed = path.suffix == ".gz"
    path.write_bytes(gzip.compress(bytes(content)) if packed else bytes(content))
    return path


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "f4", "f8"])
def test_reads_what_nibabel_wrote(tmp_path: Path, dtype: str, kind: Any, ending: str) -> None:
    array = RNG.integers(0, 100, (4, 5, 6)).astype(dtype)
    sample = data.read_image(volume(tmp_path / f"a.b{ending}", array, kind=kind))
    assert sample.image.dtype == np.float32 and sample.image.flags.c_contiguous
    assert np.array_equal(sample.image, array[None].astype(np.float32))
    assert sample.affine is not None and np.array_equal(sample.affine, AFFINE)
    assert sample.spacing_mm == (1.5, 2.0, 3.0)
    assert sample.name == "a.b" and sample.label is None


def test_reads_big_endian_slope_and_intercept(tmp_path: Path) -> None:
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    header.set_data_shape((2, 3, 4))
    array = np.arange(24, dtype=">i2").reshape(2, 3, 4)
    content = bytearray(nibabel.Nifti1Image(array, np.eye(4), header).to_bytes())
    content[112:120] = struct.pack(">2f", 0.5, -3.0)
    path = tmp_path / "big.nii"
    path.write_bytes(content)
    assert np.array_equal(data.read_image(path).image[0], array.astype(np.float32) * 0.5 - 3)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "i4"])
@pytest.mark.parametrize("classes", [2, 3, 8, 41, 101])
def test_labels_saved_again_by_nibabel_keep_their_numbers(tmp_path: Path, dtype: str, classes: int) -> None:
    """It spreads the floats over all numbers of the header's type: of eight classes, 1 comes back as 0.988."""
    label = RNG.integers(0, classes, (9, 9, 9)).astype(dtype)
    label.flat[:2] = 0, classes - 1
    path = volume(tmp_path / "a.nii.gz", label)
    for _ in range(2):
        image: Any = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(image.get_fdata(), image.affine, image.header), path)
    assert abs(nibabel.load(path).dataobj.slope) != 1 and np.array_equal(read_label(path)[1], label)


@pytest.mark.parametrize(
    ("stored", "slope", "inter", "label"),
    [
        ([0, 255, 255, 0], -1 / 255, 1.0, [1, 0, 0, 1]),
        ([0, 1, 2, 3], -1.0, 3.0, [3, 2, 1, 0]),
        ([0, 2, 4, 6], 0.5, 0.0, [0, 1, 2, 3]),
        ([0, 127, 255, 0], 1 / 255, 0.0, None),  # a probability of 0.498
        ([0, 25, 75, 100], 0.01, 0.0, None),  # such as a percentage: 0.25 and 0.75
        ([0, 99, 100, 0], 0.01, 0.0, None),  # 0.99 is no rounding: the type's range is not filled
        ([0, 1, 2, 3], 0.9, 0.0, None),
    ],
)
def test_scaled_labels(tmp_path: Path, stored: list[int], slope: float, inter: float, label: list[int] | None) -> None:
    content = bytearray(nibabel.Nifti1Image(np.array(stored, np.uint8).reshape(2, 2, 1), np.eye(4)).to_bytes())
    content[112:120] = struct.pack("<2f", slope, inter)
    path = tmp_path / "a.nii"
    path.write_bytes(content)
    if label is None:
        refused(lambda: read_label(path), path, "not whole", "nearest neighbour")
    else:
        assert read_label(path)[1].ravel().tolist() == label


@pytest.mark.parametrize(("noise", "sound"), [(1e-5, True), (-9e-5, True), (2e-4, False), (0.5, False)])
def test_floats_near_whole_numbers_are_class_numbers(tmp_path: Path, noise: float, sound: bool) -> None:
    label = RNG.integers(0, 5, (5, 6, 7))
    path = volume(tmp_path / "a.nii", (label + noise).astype(np.float32))
    if sound:
        assert np.array_equal(read_label(path)[1], label)
    else:
        refused(lambda: read_label(path), path, "not whole")


def test_slope_zero_means_unscaled(tmp_path: Path) -> None:
    path = forged(tmp_path / "a.nii", 112, struct.pack("<2f", 0, np.nan))
    assert (data.read_image(path).image == 1).all()


def test_gzip_is_recognised_whatever_the_name(tmp_path: Path) -> None:
    array = RNG.random((3, 4, 5)).astype(np.float32)
    plain, packed = volume(tmp_path / "a.nii", array), volume(tmp_path / "b.nii.gz", array)
    plain.rename(tmp_path / "c.nii.gz")
    packed.rename(tmp_path / "d.nii")
    for name in ("c.nii.gz", "d.nii"):
        assert np.array_equal(data.read_image(tmp_path / name).image[0], array)


def test_several_gzip_members_and_padding(tmp_path: Path) -> None:
    array = RNG.random((20, 20, 20)).astype(np.float32)
    content = nibabel.Nifti1Image(array, np.eye(4)).to_bytes()
    path = tmp_path / "a.nii.gz"
    path.write_bytes(
        gzip.compress(content[:300]) + gzip.compress(content[300:9000]) + gzip.compress(content[9000:]) + b"\0" * 99
    )
    assert np.array_equal(data.read_image(path).image[0], array)


@pytest.mark.parametrize(
    ("stored", "image", "spacing"),
    [
        ((7,), (1, 7), 1),
        ((7, 5), (1, 7, 5), 2),
        ((7, 5, 1), (1, 7, 5), 2),
        ((7, 5, 3), (1, 7, 5, 3), 3),
        ((7, 5, 3, 1), (1, 7, 5, 3), 3),
        ((7, 5, 3, 2), (2, 7, 5, 3), 3),
        ((7, 5, 1, 2), (2, 7, 5), 2),
        ((7, 5, 3, 1, 2), (2, 7, 5, 3), 3),
    ],
)
def test_axes(tmp_path: Path, stored: tuple[int, ...], image: tuple[int, ...], spacing: int) -> None:
    array = RNG.random(stored).astype(np.float32)
    sample = data.read_image(volume(tmp_path / "a.nii", array))
    assert sample.image.shape == image
    assert sample.spacing_mm is not None and len(sample.spacing_mm) == spacing
    expected = array.reshape((*image[1:], image[0]))
    assert np.array_equal(np.moveaxis(sample.image, 0, -1), expected)


def test_flat_volume_as_3d(tmp_path: Path) -> None:
    path = volume(tmp_path / "a.nii", np.ones((4, 5, 1), np.float32))
    assert data.read_image(path, dims=3).image.shape == (1, 4, 5, 1)
    refused(lambda: data.read_image(path, dims=1), path, "2-D", "1-D")


def test_spacing_in_other_units(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.ones((2, 2, 2), np.float32), np.diag([5.0, 5, 10, 1]))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "a.nii")
    sample = data.read_image(tmp_path / "a.nii")
    assert sample.affine is not None
    assert np.allclose(sample.spacing_mm or (), (0.005, 0.005, 0.01)) and np.allclose(
        np.diag(sample.affine)[:3], (0.005, 0.005, 0.01)
    )


FORGERIES = {
    "dims 32767 cubed": (40, struct.pack("<4h", 3, 32767, 32767, 32767), ("32767", "claim")),
    "dim[0] 9": (40, struct.pack("<h", 9), ("dim[0]", "9", "1 to 7")),
    "dim[0] 0": (40, struct.pack("<h", 0), ("dim[0]",)),
    "dim[0] negative": (40, struct.pack("<h", -3), ("dim[0]",)),
    "size 0": (42, struct.pack("<h", 0), ("sizes of at least 1",)),
    "size negative": (42, struct.pack("<h", -4), ("sizes of at least 1",)),
    "seven axes": (40, struct.pack("<8h", 7, 2, 2, 2, 2, 2, 2, 1), ("axes", "channels")),
    "datatype 0": (70, struct.pack("<h", 0), ("datatype 0", "unknown")),
    "datatype 9999": (70, struct.pack("<h", 9999), ("datatype 9999",)),
    "complex": (70, struct.pack("<h", 32), ("complex",)),
    "rgb": (70, struct.pack("<h", 128), ("RGB",)),
    "bitpix": (72, struct.pack("<h", 7), ("bitpix 7", "32")),
    "vox_offset nan": (108, struct.pack("<f", np.nan), ("vox_offset", "nan")),
    "vox_offset inf": (108, struct.pack("<f", np.inf), ("vox_offset", "inf")),
    "vox_offset negative": (108, struct.pack("<f", -352), ("vox_offset", "-352")),
    "vox_offset in the header": (108, struct.pack("<f", 16), ("vox_offset", "16")),
    "vox_offset not whole": (108, struct.pack("<f", 352.5), ("vox_offset",)),
    "vox_offset beyond": (108, struct.pack("<f", 1e6), ("claims",)),
    "vox_offset huge": (108, struct.pack("<f", 1e30), ("vox_offset",)),
    "slope nan": (112, struct.pack("<f", np.nan), ("scl_slope", "nan")),
    "slope inf": (112, struct.pack("<f", np.inf), ("scl_slope", "inf")),
    "intercept nan": (116, struct.pack("<f", np.nan), ("scl_inter",)),
    "units": (123, b"\7", ("xyzt_units",)),
    "sform nan": (280, struct.pack("<f", np.nan), ("affine", "NaN")),
    "pixdim nan": (80, struct.pack("<f", np.nan), ("pixdim",)),
    "magic": (344, b"XXXX", ("magic",)),
    "two files": (344, b"ni1\0", (".hdr", "Convert")),
    "no header": (0, b"\1\2\3\4", ("not a NIfTI",)),
}


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("forgery", FORGERIES)
def test_false_headers_are_refused(tmp_path: Path, forgery: str, ending: str) -> None:
    offset, value, words = FORGERIES[forgery]
    path = forged(tmp_path / f"a{ending}", offset, value)
    if ending == ".nii.gz" and forgery in ("vox_offset beyond", "dims 32767 cubed"):
        words = ("claim",)
    tracemalloc.start()
    refused(lambda: data.read_image(path), path, *words)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 2**20


def test_false_quaternion(tmp_path: Path) -> None:
    content = bytearray(nibabel.Nifti1Image(np.ones((2, 2, 2), np.float32), np.eye(4)).to_bytes())
    content[252:256] = struct.pack("<2h", 1, 0)  # qform only
    content[256:268] = struct.pack("<3f", 3, 3, 3)
    path = tmp_path / "a.nii"
    path.write_bytes(content)
    refused(lambda: data.read_image(path), path, "orientation")


@pytest.mark.parametrize("keep", [10, 200, 400, 900, -1, -9])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_truncated(tmp_path: Path, ending: str, keep: int) -> None:
    path = volume(tmp_path / f"a{ending}", RNG.random((9, 9, 9)).astype(np.float32))
    path.write_bytes(path.read_bytes()[:keep])
    refused(lambda: data.read_image(path), path, "truncated")


def test_damaged_gzip(tmp_path: Path) -> None:
    path = volume(tmp_path / "a.nii.gz", RNG.random((9, 9, 9)).astype(np.float32))
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # the checksum
    path.write_bytes(content)
    refused(lambda: data.read_image(path), path, "damaged")
    path.write_bytes(b"\x1f\x8bnonsense")
    refused(lambda: data.read_image(path), path, "damaged")


def test_gzip_bomb_behind_an_honest_header(tmp_path: Path) -> None:
    """The header declares 480 bytes, the stream holds 64 MiB: reading stops at what was declared."""
    content = nibabel.Nifti1Image(np.ones((4, 5, 6), np.float32), np.eye(4)).to_bytes()
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(content + bytes(64 * 2**20)))
    tracemalloc.start()
    refused(lambda: data.read_image(path), path, "more than the 832 bytes")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 2**20


def test_gzip_bomb_with_a_matching_header(tmp_path: Path) -> None:
    """1 GiB of declared zeros in one MiB of file: refused before anything is inflated."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape((1024, 1024, 1024))
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(header.binaryblock) + bytes(2**20))
    refused(lambda: data.read_image(path), path, "1024 MiB", "unpack it yourself")


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    array = np.ones((3, 4, 5), np.float32)
    array[1, 2, 3] = np.nan
    path = volume(tmp_path / "a.nii.gz", array)
    refused(lambda: data.read_image(path), path, "1 value is NaN or infinite", "(1, 2, 3)")
    path = volume(tmp_path / "b.nii", np.full((2, 2, 2), 1e300))
    refused(lambda: data.read_image(path), path, "8 values are NaN or infinite")


def test_missing_empty_and_strange_files(tmp_path: Path) -> None:
    import os

    (tmp_path / "empty.nii").touch()
    (tmp_path / "folder.nii").mkdir()
    os.mkfifo(tmp_path / "pipe.nii.gz")
    (tmp_path / "loop.nii").symlink_to(tmp_path / "loop.nii")
    for name, word in (
        ("empty", "0 bytes"),
        ("folder", "a folder"),
        ("loop", "cannot be opened"),
        ("none", "No such file"),
    ):
        path = tmp_path / f"{name}.nii"
        refused(lambda path=path: data.read_image(path), path, word)  # type: ignore[misc]
    refused(lambda: data.read_image(tmp_path / "pipe.nii.gz"), tmp_path / "pipe.nii.gz", "not a regular file")
    (tmp_path / "a.xyz").write_bytes(b"no image")
    refused(lambda: data.read_image(tmp_path / "a.xyz"), tmp_path / "a.xyz", "no image format", ".nii.gz")
    refused(lambda: data.read_image(str(tmp_path / "a\0.nii")), tmp_path, "cannot be opened", "\\x00")


def test_a_name_with_a_line_break_stays_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a\nb.nii"
    path.write_bytes(b"no header at all")
    refused(lambda: data.read_image(path), tmp_path, "a\\nb.nii")


@pytest.mark.parametrize("seed", range(200))
def test_random_damage_never_gets_out(tmp_path: Path, seed: int) -> None:
    """Any header with random bytes is either read into a finite image or refused by a DataError."""
    rng = np.random.default_rng(seed)
    content = bytearray(nibabel.Nifti1Image(np.ones((4, 5, 6), np.float32), np.eye(4)).to_bytes())
    for place in rng.integers(4, 348, rng.integers(1, 12)):
        content[place] = rng.integers(256)
    path = tmp_path / "a.nii"
    path.write_bytes(content[: rng.integers(300, 900)])
    try:
        assert np.isfinite(data.read_image(path).image).all()
    except DataError as error:
        assert str(path) in str(error)
