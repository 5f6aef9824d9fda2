"""Pictures: every common kind is read on the scale 0…255, and none claims more than it holds."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from convoxel import data
from convoxel.data import picture
from convoxel.data.image_file import map_image
from convoxel.data.label_file import read_label
from convoxel.data.mapped_image import MappedImage
from convoxel.errors import DataError
from convoxel.files import file_array
from tests.support.refusal import refused

RNG = np.random.default_rng(11)
GREY = RNG.integers(0, 256, (6, 9), np.uint8)
COLOUR = RNG.integers(0, 256, (6, 9, 3), np.uint8)


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("ending", [".png", ".tif", ".tiff", ".PNG", ".Tif"])
def test_grey_and_colour(tmp_path: Path, ending: str) -> None:
    for name, array in (("grey", GREY), ("colour", COLOUR)):
        sample = data.read_image(save(tmp_path / (name + ending), Image.fromarray(array)))
        expected = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
        assert sample.image.dtype == np.float32 and np.array_equal(sample.image, expected)
        assert sample.name == name and sample.affine is None and sample.spacing_mm is None


def test_jpeg_under_any_name(tmp_path: Path) -> None:
    smooth = np.broadcast_to(np.arange(0, 240, 10, dtype=np.uint8), (24, 24))
    path = save(tmp_path / "a.jpg", Image.fromarray(np.ascontiguousarray(smooth)), quality=95)
    assert np.abs(data.read_image(path).image[0] - smooth).max() < 6
    renamed = path.rename(tmp_path / "b.png")
    assert data.read_image(renamed).image.shape == (1, 24, 24)


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_sixteen_bits_come_on_the_same_scale(tmp_path: Path, ending: str) -> None:
    array = np.array([[0, 257, 514], [65535, 1, 40000]], np.uint16)
    image = data.read_image(save(tmp_path / f"a{ending}", Image.fromarray(array))).image
    assert np.allclose(image[0], array / 257.0) and image.max() == 255


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_colours_of_sixteen_bits_lose_nothing(tmp_path: Path, samples: int) -> None:
    stored = np.random.default_rng(samples).integers(0, 2**16, (30, 41, samples)).astype(np.uint16)
    path = tmp_path / "a.png"
    path.write_bytes(imagecodecs.png_encode(stored))
    expected = np.moveaxis(stored / 257, -1, 0)
    if samples in (2, 4):  # on white
        expected = expected[:-1] * expected[-1:] / 255 + 255 - expected[-1:]
    np.testing.assert_allclose(data.read_image(path).image, expected, rtol=0, atol=1e-4)
    path.write_bytes(path.read_bytes()[:-100])
    refused(lambda: data.read_image(path), path, "cannot be decoded")


def test_one_bit_palette_and_transparency(tmp_path: Path) -> None:
    bits = Image.fromarray(GREY > 127)
    assert set(np.unique(data.read_image(save(tmp_path / "bits.png", bits)).image)) <= {0.0, 255.0}
    palette = Image.fromarray(COLOUR).quantize(256)
    expected = np.moveaxis(np.asarray(palette.convert("RGB")), -1, 0)
    assert np.array_equal(data.read_image(save(tmp_path / "palette.png", palette)).image, expected)
    opaque = np.dstack([COLOUR, np.full((6, 9), 255, np.uint8)])
    assert np.array_equal(
        data.read_image(save(tmp_path / "opaque.png", Image.fromarray(opaque))).image, np.moveaxis(COLOUR, -1, 0)
    )
    opaque[..., 3] = 0
    assert (data.read_image(save(tmp_path / "clear.png", Image.fromarray(opaque))).image == 255).all()
    grey_alpha = np.dstack([GREY, np.full((6, 9), 255, np.uint8)])
    assert np.array_equal(data.read_image(save(tmp_path / "la.png", Image.fromarray(grey_alpha))).image, GREY[None])
    marked = save(tmp_path / "trns.png", Image.fromarray(np.zeros((4, 4), np.uint8)), transparency=0)
    assert (data.read_image(marked).image == 255).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK", "turned"])
def test_large_pictures_are_mapped_as_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    stored = np.random.default_rng(1).integers(0, 256, (40, 30, 4)).astype(np.uint8)
    shown = Image.fromarray(stored, "RGBA").convert("RGB" if mode == "turned" else mode)
    path, exif = tmp_path / f"a.{'jpg' if mode in ('CMYK', 'turned') else 'png'}", Image.Exif()
    exif[0x0112] = 6 if mode == "turned" else 1
    shown.save(path, exif=exif)
    assert isinstance(map_image(path).image, np.ndarray)
    monkeypatch.setattr(file_array, "MOST_IN_MEMORY", 1000)
    mapped, read = map_image(path), data.read_image(path)
    assert isinstance(mapped.image, MappedImage) and mapped.image.stored.dtype == np.uint8
    assert np.array_equal(mapped.image[:,], read.image) and mapped.image.shape == read.image.shape


def test_cmyk_and_float_and_stack(tmp_path: Path) -> None:
    path = save(tmp_path / "cmyk.jpg", Image.fromarray(COLOUR).convert("CMYK"))
    assert data.read_image(path).image.shape == (3, 6, 9)
    values = RNG.normal(size=(6, 9)).astype(np.float32) * 1000
    assert np.array_equal(data.read_image(save(tmp_path / "f.tif", Image.fromarray(values))).image[0], values)
    values[0, 0] = np.inf
    path = save(tmp_path / "inf.tif", Image.fromarray(values))
    refused(lambda: data.read_image(path), path, "NaN or infinite")
    pages = [Image.fromarray(GREY + np.uint8(i)) for i in range(5)]
    path = save(tmp_path / "stack.tif", pages[0], save_all=True, append_images=pages[1:])
    stack = data.read_image(path)
    assert stack.image.shape == (1, 5, 6, 9) and np.array_equal(stack.image[0, 3], np.asarray(pages[3]))


def test_orientation_of_a_photograph(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "a.jpg", Image.fromarray(COLOUR), exif=exif)
    assert picture.read_header(path).shape == (9, 6) and data.read_image(path).image.shape == (3, 9, 6)


def test_grey_in_a_colour_set_and_the_reverse(tmp_path: Path) -> None:
    grey = save(tmp_path / "g.png", Image.fromarray(GREY))
    assert np.array_equal(data.read_image(grey, channels=3).image, np.stack([GREY] * 3))
    colour = save(tmp_path / "c.png", Image.fromarray(COLOUR))
    refused(lambda: data.read_image(colour, channels=1), colour, "3 channels", "Convert it to grey")
    refused(lambda: data.read_image(colour, dims=3), colour, "2-D", "3-D")


@pytest.mark.parametrize("turn", [1, 6])
def test_the_first_picture_of_a_phones_file_is_the_photograph(tmp_path: Path, turn: int) -> None:
    smooth = np.add.outer(np.arange(40), np.arange(50)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = turn
    pages = [Image.fromarray(np.dstack([page] * 3)) for page in (smooth, smooth[:20, :20])]
    path = save(tmp_path / "m.jpg", pages[0], format="MPO", save_all=True, append_images=pages[1:], exif=exif)
    with Image.open(path) as opened:
        assert opened.format == "MPO"
    expected = smooth if turn == 1 else np.rot90(smooth, -1)
    assert np.abs(data.read_image(path).image - expected).max() < 6


def grey_png(numbers: np.ndarray[Any, Any], bits: int) -> bytes:
    """A grey PNG of 1, 2 or 4 bits a pixel."""
    packed = [
        np.packbits(np.unpackbits(row[:, None], axis=1)[:, 8 - bits :].ravel()).tobytes()
        for row in numbers.astype(np.uint8)
    ]
    return png(numbers.shape[1], numbers.shape[0], bits, body=b"".join(b"\0" + row for row in packed))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_is_seen_bright_and_holds_small_numbers(tmp_path: Path, bits: int) -> None:
    numbers = RNG.integers(0, 2**bits, (6, 9))
    path = tmp_path / "a.png"
    path.write_bytes(grey_png(numbers, bits))
    assert np.array_equal(read_label(path)[1], numbers)
    assert np.array_equal(data.read_image(path).image[0], numbers * (255 // (2**bits - 1)))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_labels_hold_indices(tmp_path: Path, bits: int) -> None:
    numbers = RNG.integers(0, 2**bits, (6, 9)).astype(np.uint8)
    image = Image.frombytes("P", (9, 6), numbers.tobytes())
    image.putpalette(bytes(range(255, -1, -1)) * 3)
    assert np.array_equal(read_label(save(tmp_path / "a.png", image, bits=bits))[1], numbers)


def test_what_is_done_to_a_picture_is_said_where_it_does_not_fit(tmp_path: Path) -> None:
    palette = save(tmp_path / "p.png", Image.fromarray(COLOUR).quantize(16))
    refused(lambda: data.read_image(palette, channels=1), palette, "3 channels (palette colours are read as RGB)")
    inks = save(tmp_path / "c.jpg", Image.fromarray(COLOUR).convert("CMYK"))
    refused(lambda: data.read_image(inks, channels=1), inks, "CMYK is turned into RGB")
    clear = save(tmp_path / "a.png", Image.fromarray(np.dstack([COLOUR, GREY])))
    refused(lambda: data.read_image(clear, channels=4), clear, "transparent pixels are blended with white")


def png(width: int, height: int, bits: int = 8, colour: int = 0, body: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def tiff(*entries: tuple[int, int], following: int = 0) -> bytes:
    body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<I", 8) + body + struct.pack("<I", following)


HOSTILE = {
    "a PNG of 100 000 squared": (png(100_000, 100_000), "100000 × 100000"),
    "a PNG of 9 000 squared in 74 bytes": (png(9000, 9000), "at least 78488 bytes"),
    "a PNG of width 0": (png(0, 5), "0 × 5"),
    "a PNG of 3 bits": (png(5, 5, 3), "header is damaged"),
    "a PNG without pixels": (png(50, 50), "cannot be decoded"),
    "a PNG cut in its header": (png(5, 5)[:25], "header is damaged"),
    "a PNG signature alone": (b"\x89PNG\r\n\x1a\n", "header is damaged"),
    "a JPEG of 60 000 squared": (b"\xff\xd8\xff\xc0\0\x0b\x08" + struct.pack(">HH", 60000, 60000) + bytes(60), "60000"),
    "a JPEG of 9 000 squared": (b"\xff\xd8\xff\xc0\0\x0b\x08" + struct.pack(">HH", 9000, 9000) + bytes(60), "at least"),
    "a JPEG start alone": (b"\xff\xd8\xff\xe0", "header is damaged"),
    "a JPEG of fill bytes": (b"\xff\xd8" + b"\xff" * 100, "header is damaged"),
    "a TIFF of 100 000 squared": (tiff((256, 100_000), (257, 100_000)), "100000 × 100000"),
    "a TIFF of 5 000 squared": (tiff((256, 5000), (257, 5000)), "0 strips or tiles"),
    "a TIFF whose pages form a ring": (tiff((256, 5), (257, 5), following=8), "header is damaged"),
    "a TIFF without sizes": (tiff((258, 8)), "0 × 0"),
    "a TIFF cut": (b"II*\0\x08\0\0\0\xff", "header is damaged"),
    "text": (b"this is no picture", "no PNG, JPEG or TIFF"),
    "a GIF": (b"GIF89a" + bytes(40), "no PNG, JPEG or TIFF"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_false_pictures_are_refused(tmp_path: Path, kind: str) -> None:
    content, word = HOSTILE[kind]
    path = tmp_path / "a.png"
    path.write_bytes(content)
    tracemalloc.start()
    refused(lambda: data.read_image(path), path, word)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 2**20


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 2}, {"exif": b"\xff\xd9"}])
@pytest.mark.parametrize("colours", [1, 3])
def test_a_jpeg_that_was_cut_and_closed_again_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, colours: int, options: dict[str, Any]
) -> None:
    """Pillow, as every other program, fills up what is missing."""
    rows = np.linspace(0, 9, 70)[:, None, None] + np.arange(colours)
    pixels = (120 + 60 * np.sin(rows + rows[::-1].swapaxes(0, 1)) + RNG.normal(0, 9, (70, 70, colours))).clip(0, 255)
    path = save(tmp_path / "a.jpg", Image.fromarray(pixels.astype(np.uint8).squeeze()), quality=95, **options)
    whole = path.read_bytes()
    for behind in (b"", b"\0\0", whole):  # padding, a phone's further picture
        path.write_bytes(whole + behind)
        assert data.read_image(path).image.shape == (colours, 70, 70)
    for kept in (*np.linspace(len(whole) // 3, len(whole) - 30, 12).astype(int), whole.rindex(b"\xff\x00") + 1):
        path.write_bytes(whole[:kept] + b"\xff\xd9")
        refused(lambda: data.read_image(path), path)
    monkeypatch.setattr(picture, "_SMALL", 0)
    path.write_bytes(whole[: len(whole) * 3 // 4] + b"\xff\xd9")
    refused(lambda: data.read_image(path), path, "ends too early")


def test_grey_to_the_corner_is_a_whole_picture(tmp_path: Path) -> None:
    for options in ({}, {"progressive": True}):
        path = save(tmp_path / "a.jpg", Image.fromarray(np.full((40, 40, 3), 128, np.uint8)), **options)
        assert (data.read_image(path).image == 128).all()


def test_animation_is_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    path = save(tmp_path / "a.png", frames[0], save_all=True, append_images=frames[1:])
    refused(lambda: data.read_image(path), path, "animation of 2 frames")


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("seed", range(30))
def test_random_damage_never_gets_out(tmp_path: Path, ending: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    stream = io.BytesIO()
    Image.fromarray(COLOUR).save(stream, {".png": "PNG", ".jpg": "JPEG", ".tif": "TIFF"}[ending])
    content = bytearray(stream.getvalue())
    for place in rng.integers(0, len(content), rng.integers(1, 9)):
        content[place] = rng.integers(256)
    path = tmp_path / f"a{ending}"
    path.write_bytes(content[: rng.integers(len(content) // 2, len(content) + 1)])
    try:
        assert data.read_image(path).image.ndim in (3, 4)
    except DataError as error:
        assert str(path) in str(error)


def test_labels_keep_their_numbers(tmp_path: Path) -> None:
    numbers = RNG.integers(0, 4, (6, 9)).astype(np.uint8)
    indexed = Image.fromarray(numbers).convert("P")
    indexed = Image.frombytes("P", (9, 6), numbers.tobytes())
    indexed.putpalette(bytes(range(255, -1, -1)) * 3)
    three = Image.fromarray(np.dstack([numbers] * 3))
    for name, image in (
        ("l", Image.fromarray(numbers)),
        ("p", indexed),
        ("rgb", three),
        ("i16", Image.fromarray(numbers.astype(np.uint16))),
    ):
        assert np.array_equal(read_label(save(tmp_path / f"{name}.png", image))[1], numbers), name
    bits = save(tmp_path / "bits.png", Image.fromarray(numbers > 1))
    assert np.array_equal(read_label(bits)[1], (numbers > 1).astype(np.uint8))


def test_labels_that_cannot_be_class_numbers(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(COLOUR))
    first = tuple(COLOUR[0, 0].tolist())
    refused(lambda: read_label(path), path, f"in colours (RGB, such as {first})", "class number")
    path = save(tmp_path / "a.jpg", Image.fromarray(GREY))
    refused(lambda: read_label(path), path, "JPEG", "PNG")
    path = save(tmp_path / "b.png", Image.fromarray(np.array([[0, 1], [2, 700]], np.uint16)))
    refused(lambda: read_label(path), path, "0 to 700", "0 to 255")


def test_a_set_says_what_was_done_to_its_pictures(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(3):
            pixels = RNG.integers(0, 256, (6, 9, 4), np.uint8)
            save(tmp_path / name / f"{i}.png", Image.fromarray(pixels if i else pixels[..., :3]))
    (note,) = data.load(tmp_path, "classify").notes
    assert note == "transparent pixels are blended with white in 4 images; the first: a/1.png"


def test_masks_of_0_and_255_are_written_in_shades(tmp_path: Path) -> None:
    mask = np.zeros((6, 9), np.uint8)
    mask[2:4, 3:5] = 255
    for name, label, mode in (("mask", mask, "L"), ("classes", mask // 255, "P"), ("ignored", mask + (mask == 0), "P")):
        with Image.open(data.write_label(tmp_path / f"{name}.png", label)) as picture:
            assert picture.mode == mode and np.array_equal(np.asarray(picture), label)
