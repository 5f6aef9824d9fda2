"""Pixels of DICOM images: compressed streams are held against their header, then pydicom and its plugins decode.

A decoder trusts the sizes in its own stream, whatever the DICOM header says; so these are read here first. Where both
lie alike, the bound of a frame holds; streams that end too early are refused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from convoxel.data import lossless_codec
from convoxel.data.dicom_file import PIXEL_ELEMENTS, Frame, ImageObject, open_elements, quiet, transfer_syntax
from convoxel.data.jpeg_end import ends_early
from convoxel.files.fault import brief, fault
from convoxel.files.stream import check_ratio, file_size
from convoxel.files.values import Array

_COPY = "Copy the file again from its source, or decompress it with another program"
_RLE = "1.2.840.10008.1.2.5"
_JPEG = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70))
_JPEG_2000 = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 201, 202, 203))
# A compressed frame may decode to the first (mammograms have 56 MiB), which decoders take up to four times; a file to
# more only at the ratio, or after all of it was decoded once.
_MOST_FRAME, _MOST_RATIO = 64 * 2**20, 50
_MOST_SCANS = 100  # of a JPEG; progressive ones have about ten
_MOST_TILES = 1024  # of a JPEG 2000; the decoder keeps some kilobytes for each


def decode(image: ImageObject) -> Iterator[Array]:
    """Yield the frames of a file, each (channels, rows, columns) with its scaling applied.

    Slopes, intercepts and tables give the modality's values (such as Hounsfield units); windows for display are not
    applied. MONOCHROME1 is inverted within its stored range, so that high values are bright. Colours become red, green
    and blue.

    Raises:
        DataError: the pixels are damaged, or their compressed stream is another image than the header says.
    """
    from pydicom.pixels.utils import iter_pixels

    path = image.path
    size, declared = file_size(path), len(image.frames) * image.frame_bytes
    check_ratio(path, size, declared)
    data = _read_pixels(image)
    options: dict[str, Any] = {}
    syntax = transfer_syntax(path, data) if image.packed else None
    if syntax in lossless_codec.JPEG_LS or (syntax in lossless_codec.JPEG and image.samples == 1):
        lossless_codec.add_decoder()
        options["decoding_plugin"] = lossless_codec.NAME
    if image.packed and declared > max(_MOST_FRAME, _MOST_RATIO * size):
        # Much from little: all is decoded once before any of it is kept, so that a false file takes a frame's memory.
        for _ in _frames(image, data, iter_pixels(data, **options)):
            pass
    yield from _frames(image, data, iter_pixels(data, **options))


def _frames(image: ImageObject, data: Any, decoded: Iterator[Array]) -> Iterator[Array]:
    path = image.path
    for frame in image.frames:
        try:
            with quiet():
                values = _scaled(image, frame, data, next(decoded))
        except NotImplementedError:
            mend = "Install its decoder (pip install 'convoxel[formats]'), or decompress the file"
            raise fault(
                path, f"transfer syntax {transfer_syntax(path, data).name}", "one that is decoded here", mend
            ) from None
        except Exception as error:  # pydicom's plugins raise a dozen kinds for damaged content
            said = str(error).strip().rpartition("\n")[2].strip()  # the last decoder's words
            came = f"the pixels cannot be decoded ({type(error).__name__}: {brief(said)[1:-1]})"
            raise fault(path, came, "whole pixel data", _COPY) from None
        yield values


def _read_pixels(image: ImageObject) -> Any:
    """Return pydicom's data set of an image with its pixels, checked against what the header says."""
    with open_elements(image.path, PIXEL_ELEMENTS) as elements:
        for name in PIXEL_ELEMENTS:  # each is converted now, at a bounded cost
            _ = elements.items(name) if name.endswith("Sequence") else elements.get(name)
        if elements.get("PixelData") is None:
            came = "no pixels that are whole numbers (PixelData), or the file is truncated"
            raise fault(image.path, came, "an image with PixelData", _COPY)
        if image.packed:
            _check_streams(image, elements.data)
        return elements.data


def _scaled(image: ImageObject, frame: Frame, data: Any, values: Array) -> Array:
    """Return (channels, rows, columns) on the scale that the file states."""
    if values.shape[:2] != (image.rows, image.columns) or values.size != image.rows * image.columns * image.samples:
        raise ValueError(f"a frame of shape {values.shape}")
    if image.photometric == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        colours = apply_color_lut(values, data)
        values = colours / 257 if colours.dtype == np.uint16 else colours
        return np.moveaxis(np.asarray(values)[..., :3], -1, 0)
    if image.samples == 3:
        return np.moveaxis(values, -1, 0)
    if image.photometric == "MONOCHROME1":
        values = (-1 if image.signed else 2**image.stored_bits - 1) - values.astype(np.int64)
    if image.table:
        from pydicom.pixels.processing import apply_modality_lut

        values = apply_modality_lut(values, data)
    elif (frame.slope, frame.intercept) != (1.0, 0.0):
        values = values * frame.slope + frame.intercept
    return values[None]


# ---- compressed streams --------------------------------------------------------------------------------------


def _check_streams(image: ImageObject, data: Any) -> None:
    """Raise DataError where a compressed frame has no end, or is no image of the header's size."""
    from pydicom.encaps import generate_frames

    syntax = transfer_syntax(image.path, data)
    if image.frame_bytes > _MOST_FRAME:
        came = f"a compressed frame of {image.frame_bytes / 2**20:.0f} MiB"
        raise fault(image.path, came, f"at most {_MOST_FRAME // 2**20} MiB", "Decompress it with another program")
    if syntax == _RLE:  # its decoder is told the sizes, and counts
        return
    claims = (
        _jpeg_2000_claims
        if syntax in _JPEG_2000
        else _jpeg_claims
        if syntax in (*_JPEG, *lossless_codec.JPEG_LS)
        else None
    )
    if claims is None:
        expected = "JPEG, JPEG-LS, JPEG 2000, RLE or no compression"
        raise fault(image.path, f"transfer syntax {syntax.name}", expected, _COPY)
    count, expected_sizes = 0, (image.rows, image.columns, image.samples)
    for stream in generate_frames(data.PixelData, number_of_frames=len(image.frames)):
        count += 1
        found = claims(stream)
        if found is None or not stream.rstrip(b"\0\xff").endswith(b"\xff\xd9"):  # decoders fill up what is missing
            raise fault(image.path, "a compressed frame is damaged or truncated", "a whole stream", _COPY)
        if found != expected_sizes:
            came = f"a compressed frame is {found}"
            raise fault(image.path, came, f"{expected_sizes} (rows, columns, samples) as in the header", _COPY)
        if syntax in _JPEG and ends_early(stream):
            came = "a compressed frame ends too early: its last pixels are missing"
            raise fault(image.path, came, "a whole stream", _COPY)
    if count != len(image.frames):
        raise fault(image.path, f"{count} compressed frames", f"{len(image.frames)} as in the header", _COPY)


def _jpeg_claims(stream: bytes) -> tuple[int, int, int] | None:
    """Return (rows, columns, samples) of a JPEG or JPEG-LS stream; None where it cannot hold as many pixels."""
    if stream[:2] != b"\xff\xd8" or stream.count(b"\xff\xda") > _MOST_SCANS:
        return None
    place = 2
    while place + 10 <= len(stream):
        if stream[place] != 0xFF:
            return None
        marker = stream[place + 1]
        if marker in (0x01, 0xFF) or 0xD0 <= marker <= 0xD8:  # fill bytes and markers without a length
            place += 1 if marker == 0xFF else 2
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            rows, columns, samples = struct.unpack(">HHB", stream[place + 5 : place + 10])
            # Lossless, a value takes a bit; else a block of 8 x 8 takes two. A line of JPEG-LS may be one run of a bit.
            # So may much of a scan of a progressive JPEG, which looks at every block all the same.
            pixels, scans = rows * columns * samples, stream.count(b"\xff\xda")
            least = {0xC3: pixels // 8, 0xF7: rows // 8, 0xC2: scans * pixels // 4096}.get(marker, pixels // 256)
            return (rows, columns, samples) if least <= len(stream) else None
        place += 2 + int.from_bytes(stream[place + 2 : place + 4], "big")
    return None


def _jpeg_2000_claims(stream: bytes) -> tuple[int, int, int] | None:
    """Return (rows, columns, samples) of a JPEG 2000 stream; None where it is damaged, or of too many tiles."""
    place = stream.find(b"\xff\x4f\xff\x51", 0, 4096)  # some writers put the boxes of a file before it
    if place < 0 or len(stream) < place + 42:
        return None
    right, bottom, left, top, wide, high, first_x, first_y = struct.unpack_from(">8I", stream, place + 8)
    (samples,) = struct.unpack_from(">H", stream, place + 40)
    if wide < 1 or high < 1 or first_x > left or first_y > top:
        return None
    tiles = -(-(right - first_x) // wide) * -(-(bottom - first_y) // high)
    if tiles > _MOST_TILES or not _holds_tiles(stream, place + 2, tiles):
        return None
    return bottom - top, right - left, samples


def _holds_tiles(stream: bytes, place: int, tiles: int) -> bool:
    """Return whether all parts of all tiles of a JPEG 2000 stream, whose header goes on at ``place``, are there.

    Decoders compute what is missing from nothing, so a stream that was cut and closed again would be half an image.
    """
    parts: dict[int, set[int]] = {}
    counts: dict[int, int] = {}
    while stream[place : place + 2] != b"\xff\xd9":
        if len(stream) < place + 12:
            return False
        marker, length = struct.unpack_from(">HH", stream, place)
        if marker == 0xFF90:
            tile, size, part, count = struct.unpack_from(">HIBB", stream, place + 4)
            parts.setdefault(tile, set()).add(part)
            counts[tile] = max(counts.get(tile, 0), count)
            if size == 0:  # this part reaches to the end
                break
            length = size - 2
        if marker < 0xFF00 or length < 2:
            return False
        place += 2 + length
    return parts.keys() == set(range(tiles)) and all(len(parts[tile]) >= counts[tile] for tile in parts)
