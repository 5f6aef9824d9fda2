"""Files that are accepted are bounded as well: what a few bytes may become, and how long that may take."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from convoxel import data
from convoxel.data import picture
from convoxel.data.label_file import read_label
from convoxel.errors import DataError
from convoxel.files import memory, stream
from tools.faults.bombs import jpeg, tiff

RNG = np.random.default_rng(0)


def png(width: int, height: int, samples: int) -> bytes:
    """Return a PNG of zeros, compressed as far as deflate can."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    row = bytes(1 + width * samples)
    pixels = b"".join([packer.compress(row) for _ in range(height)] + [packer.flush()])
    head = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2, 4: 6}[samples], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_a_picture_may_not_become_a_thousand_times_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to 256 MiB it may; beyond, it is refused before a pixel is decoded."""
    path = tmp_path / "a.png"
    monkeypatch.setattr(stream, "FREE_BYTES", 2**20)
    monkeypatch.setattr(stream, "MOST_RATIO", 200)
    path.write_bytes(png(500, 500, 4))  # 0.95 MiB
    assert data.read_image(path).image.shape == (3, 500, 500)
    path.write_bytes(png(520, 520, 4))
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)
    for read in (data.read_image, read_label):
        with pytest.raises(DataError, match=r"a.png: it would inflate \d+-fold to 1 MiB; expected at most 200-fold"):
            read(path)


def test_no_file_takes_more_than_half_of_the_free_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_ALWAYS_BYTES", 0)
    image = RNG.integers(0, 255, (40, 40)).astype(np.uint8)
    np.save(tmp_path / "a.npy", image)
    np.savez_compressed(tmp_path / "a.npz", image)
    Image.fromarray(image).save(tmp_path / "a.png")
    data.write_image(tmp_path / "a.nii.gz", image[None].astype(np.float32))
    for name in ("a.npy", "a.npz", "a.png", "a.nii.gz"):
        monkeypatch.setattr(memory, "free_memory", lambda: 40 * 40 * 32)
        assert data.read_image(tmp_path / name, dims=2).image.shape == (1, 40, 40)
        monkeypatch.setattr(memory, "free_memory", lambda: 40 * 40 * 4)
        with pytest.raises(DataError, match=rf"{name}.*MiB of memory, and 0 MiB are free; expected at most 50%"):
            data.read_image(tmp_path / name)
    monkeypatch.undo()
    free = memory.free_memory()
    assert free is None or free > 2**20


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1", "I;16", "I", "F"])
def test_strips_give_what_the_whole_gives(tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversions take several copies of what they are given, so pictures are converted strip by strip."""
    shape = (23, 17)
    whole = {"I;16": np.uint16, "I": np.int32, "F": np.float32}.get(mode)
    if whole is not None:
        image = Image.fromarray((RNG.random(shape) * 60000).astype(whole))
    else:
        image = Image.fromarray(RNG.integers(0, 255, (*shape, 4)).astype(np.uint8)).convert(mode)
    path = tmp_path / ("a.tif" if mode in ("I", "F") else "a.png")
    image.save(path, **({"transparency": 3} if mode == "P" else {}))
    expected = data.read_image(path).image
    monkeypatch.setattr(picture, "_STRIP", 64)
    np.testing.assert_array_equal(data.read_image(path).image, expected)
    assert np.isfinite(expected).all() and expected.std() > 0


def test_a_grey_label_in_colours_is_read_by_strips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture, "_STRIP", 64)
    label = RNG.integers(0, 3, (40, 20)).astype(np.uint8)
    colours = np.repeat(label[..., None], 3, axis=2)
    Image.fromarray(colours).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_label(tmp_path / "a.png")[1], label)
    colours[-1, -1, 0] ^= 1
    Image.fromarray(colours).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="a label picture in colours"):
        read_label(tmp_path / "a.png")


def test_a_jpeg_of_many_scans_is_refused(tmp_path: Path) -> None:
    """Each scan is decoded over the whole picture: ten are usual, thousands take hours."""
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(64, 1))
    assert data.read_image(path).image.shape == (3, 64, 64)
    path.write_bytes(jpeg(64, 200))
    with pytest.raises(DataError, match="the JPEG header is damaged"):
        data.read_image(path)


def test_overlapping_pages_of_a_tiff_are_refused(tmp_path: Path) -> None:
    """Lists of tags that share their bytes make n pages of n tags in n bytes."""
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(250, 40))
    with pytest.raises(DataError, match="the TIFF header is damaged"):
        data.read_image(path)


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def array(values: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def header(shape: tuple[int, ...], kind: str) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": kind, "fortran_order": False, "shape": shape})
    return stream.getvalue()


@pytest.mark.parametrize(
    ("shape", "kind"), [((2**40,), "<U0"), ((1,), "<U60000000"), ((70_000,), "<U1"), ((2, 2**62), "<U0")]
)
def test_names_of_classes_are_few_and_short(tmp_path: Path, shape: tuple[int, ...], kind: str) -> None:
    """A text without letters takes no byte, so that any number of them fits into a file of 500."""
    images, labels = RNG.integers(0, 255, (4, 8, 8)).astype(np.uint8), np.arange(4) % 2
    size = min(int(np.prod([float(n) for n in shape])) * np.dtype(kind).itemsize, 2**20)
    members = {
        "images.npy": array(images),
        "labels.npy": array(labels),
        "classes.npy": header(shape, kind) + bytes(size),
    }
    path = archive(tmp_path / "set.npz", members)
    with pytest.raises(DataError, match=r"classes.npy.*(texts of|the header claims)"):
        data.load(path, "classify")


def test_damaged_names_of_members_are_told(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz", {"imäge.npy": array(np.ones((3, 3)))})
    path.write_bytes(path.read_bytes().replace("imäge".encode(), b"im\xff\xfege"))
    with pytest.raises(DataError, match=r"a.npz: this is not a readable .npz file"):
        data.read_image(path)
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "w") as file:
        file.writestr("image.npy", array(np.ones((3, 3))))
        file.writestr("image.npy", array(np.zeros((3, 3))))
    with pytest.raises(DataError, match="two arrays of one name"):
        data.read_image(path)


class Counter:
    """Counts the bytes that are handed to zlib."""

    def __init__(self) -> None:
        self.fed = 0
        self._make: Callable[[int], Any] = zlib.decompressobj

    def __call__(self, bits: int) -> Any:
        counter, plain = self, self._make(bits)

        class Unpacker:
            def decompress(self, fed: bytes, most: int) -> bytes:
                counter.fed += len(fed)
                return bytes(plain.decompress(fed, most))

            def __getattr__(self, name: str) -> Any:
                return getattr(plain, name)

        return Unpacker()


def test_time_grows_with_the_bytes_of_a_gzip_file_not_with_its_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.gz"
    for count in (500, 1000, 2000):
        content = b"".join(gzip.compress(bytes([i % 251]), mtime=0) for i in range(count))
        path.write_bytes(content)
        counter = Counter()
        monkeypatch.setattr("convoxel.files.stream.zlib.decompressobj", counter)
        assert stream.inflate(path, count, whole=True) == bytes(i % 251 for i in range(count))
        assert counter.fed < 60 * len(content)  # 21 bytes of the 1024 that are tried at a time
        monkeypatch.undo()
    path.write_bytes(gzip.compress(b"", mtime=0) * 2000 + gzip.compress(bytes(600)))
    for whole in (False, True):
        with pytest.raises(DataError, match="more than 1024 members without content"):
            stream.inflate(path, 540, whole=whole)
    large = RNG.integers(0, 4, 600_000).astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(large[:400_000], 1) + bytes(9) + gzip.compress(large[400_000:], 1) + bytes(3))
    assert stream.inflate(path, len(large), whole=True) == large
    assert stream.inflate(path, 540, whole=False) == large[:540]


def test_a_label_of_many_channels_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    data.write_image(path, RNG.standard_normal((500, 4, 4, 4)).astype(np.float32))
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:5000]))  # the voxels are missing, which nobody sees
    with pytest.raises(DataError, match=r"the label has 500 channels"):
        read_label(path)
