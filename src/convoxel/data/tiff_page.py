"""Pages of a TIFF as its tags declare them: every claim is checked before a library decodes anything.

Classic and BigTIFF, strips and tiles. A page whose segments are pictures of a format of their own (JPEG, PNG, …) may
claim other sizes in each of them, so those are looked at, too. Nothing is decoded here.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from convoxel.data.picture import jpeg_claims
from convoxel.files.fault import fault
from convoxel.files.stream import check_ratio, file_size

MOST_PAGES = 65_536
_MOST_SEGMENTS = 2**24
_COPY = "Copy the file again from its source, or save it anew"
# Bytes of one value of a tag, by its type (TIFF 6.0, page 15, and BigTIFF).
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_WHOLE = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
# Compressions of bytes, which are unpacked into a given room; those that carry a picture with sizes of its own.
_BYTES = {1: "none", 2: "CCITT", 3: "CCITT", 4: "CCITT", 5: "LZW", 8: "Deflate", 32773: "PackBits", 32946: "Deflate",
          34925: "LZMA", 34926: "Zstandard", 50000: "Zstandard", 50013: "Deflate"}  # fmt: skip
PICTURES = {7: "JPEG", 33007: "JPEG", 34892: "JPEG", 33003: "JPEG 2000", 33004: "JPEG 2000", 33005: "JPEG 2000",
             34712: "JPEG 2000", 34887: "LERC", 34927: "WebP", 50001: "WebP", 34933: "PNG"}  # fmt: skip


@dataclass(frozen=True)
class TiffPage:
    """One page: what its tags say, checked against the file.

    Attributes:
        shape: (height, width).
        samples: values of a pixel.
        dtype: type of a value as NumPy reads it from the file; uint8 or uint16 for whole numbers of odd widths.
        bits: bits of a value as stored.
        photometric, compression, planar: the tags of these names.
        extra: the tag ExtraSamples, one number a sample beyond the colours.
        reduced: True for a thumbnail, a reduced resolution or a mask of another page.
        decoded_bytes: what its segments unpack to.
        offset: where its values lie in one piece, one sample after the other; None where they do not.
        palette: the tag ColorMap: all reds, all greens, all blues.
        description: the tag ImageDescription.
        per_mm: pixels a millimetre along height and width by the resolution tags, None where these do not say.
        resolution: the values of YResolution and XResolution, None where these are missing.
    """

    shape: tuple[int, int]
    samples: int
    dtype: np.dtype[Any]
    bits: int
    photometric: int
    compression: int
    planar: int
    extra: tuple[int, ...]
    reduced: bool
    decoded_bytes: int
    offset: int | None
    palette: tuple[int, ...]
    description: str
    per_mm: tuple[float, float] | None
    resolution: tuple[float, float] | None

    @property
    def form(self) -> tuple[object, ...]:
        """Return the properties that all pages of a volume share."""
        return self.shape, self.samples, self.dtype, self.bits, self.photometric, self.planar, self.extra


def is_tiff(start: bytes) -> bool:
    """Return True for the first bytes of a TIFF, classic or big, in either order of bytes."""
    return start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_pages(path: Path) -> list[TiffPage]:
    """Return the pages of a TIFF after their claims were checked; DataError names the first that cannot be true."""
    size = file_size(path)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            pages = [_read_page(path, content, tags) for tags in list(_walk(content))]
    except (struct.error, _ChainError):
        raise fault(path, "the TIFF header is damaged or truncated", "a whole header", _COPY) from None
    except OSError as error:
        raise fault(
            path, f"cannot be read ({error.strerror or error})", "a readable file", "Check its rights"
        ) from None
    check_ratio(path, size, sum(page.decoded_bytes for page in pages))
    return pages


class _ChainError(Exception):
    """Lists of tags that form a ring, overlap, or are too many."""


@dataclass(frozen=True)
class _Tags:
    """The tags of one page: number → (type, count, place of the values)."""

    content: mmap.mmap
    order: str
    places: dict[int, tuple[int, int, int]]

    def whole(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Return the whole numbers of a tag; those of other types count as missing."""
        kind, count, place = self.places.get(tag, (0, 0, 0))
        if kind not in _WHOLE or not count:
            return default
        return struct.unpack_from(f"{self.order}{count}{_WHOLE[kind]}", self.content, place)

    def one(self, tag: int, default: int) -> int:
        return self.whole(tag, (default,))[0]

    def ratio(self, tag: int) -> float | None:
        """Return the number of a tag that holds a fraction, None where it is missing or no positive number."""
        kind, count, place = self.places.get(tag, (0, 0, 0))
        if kind != 5 or not count:
            return None
        above, below = struct.unpack_from(f"{self.order}II", self.content, place)
        return float(Fraction(above, below)) if above and below else None

    def text(self, tag: int) -> str:
        kind, count, place = self.places.get(tag, (0, 0, 0))
        return self.content[place : place + count].rstrip(b"\0").decode("utf-8", "replace") if kind == 2 else ""


def _walk(content: mmap.mmap) -> Iterator[_Tags]:
    """Yield the tags of each page; lists that overlap would take the square of the file's length to read."""
    order = "<" if content[:2] == b"II" else ">"
    big = content[2:4] in (b"+\0", b"\0+")
    count_form, offset_form, entry, first = ("Q", "Q", 20, 8) if big else ("H", "I", 12, 4)
    if big and content[4:8] != struct.pack(order + "HH", 8, 0):
        raise _ChainError
    (offset,) = struct.unpack_from(order + offset_form, content, first)
    seen: set[int] = set()
    entries = 0
    while offset or not seen:
        if offset in seen or len(seen) >= MOST_PAGES:
            raise _ChainError
        seen.add(offset)
        (count,) = struct.unpack_from(order + count_form, content, offset)
        entries += count
        if entry * entries > len(content):
            raise _ChainError
        begin = offset + struct.calcsize(count_form)
        places: dict[int, tuple[int, int, int]] = {}
        for position in range(begin, begin + entry * count, entry):
            tag, kind = struct.unpack_from(order + "HH", content, position)
            (number,) = struct.unpack_from(order + offset_form, content, position + 4)
            place = position + (12 if big else 8)
            length = number * _SIZES.get(kind, 1)
            if length > (8 if big else 4):
                (place,) = struct.unpack_from(order + offset_form, content, place)
                if place + length > len(content):
                    raise _ChainError
            places.setdefault(tag, (kind, number, place))
        yield _Tags(content, order, places)
        (offset,) = struct.unpack_from(order + offset_form, content, begin + entry * count)


def _read_page(path: Path, content: mmap.mmap, tags: _Tags) -> TiffPage:
    width, height, samples = tags.one(256, 0), tags.one(257, 0), tags.one(277, 1)
    if width < 1 or height < 1 or samples < 1:
        raise fault(path, f"the header claims {width} × {height} pixels of {samples} values", "at least 1 each", _COPY)
    compression, planar = tags.one(259, 1), tags.one(284, 1)
    if compression not in _BYTES and compression not in PICTURES:
        known = ", ".join(dict.fromkeys((*list(_BYTES.values()), *PICTURES.values())))
        raise fault(path, f"compression {compression}", f"one of {known}", "Save it again with Deflate")
    bits = _same(path, tags.whole(258, (1,)), "bits of a sample")
    dtype = _value_type(path, bits, _same(path, tags.whole(339, (1,)), "sample formats"), tags.order)
    tile = tags.one(322, 0), tags.one(323, 0)
    tiled = 322 in tags.places or 324 in tags.places
    rows = min(tags.one(278, height), height)
    piece = (tile[1], tile[0]) if tiled else (rows, width)
    if min(piece) < 1 or tags.one(32997, 1) > 1 or tags.one(32998, 1) > 1 or planar not in (1, 2):
        raise fault(path, f"strips or tiles of {piece[1]} × {piece[0]} pixels", "flat ones, at least 1 × 1", _COPY)
    planes, together = (samples, 1) if planar == 2 else (1, samples)
    across, down = -(-width // piece[1]), -(-height // piece[0])
    count = planes * across * down
    offsets, lengths = (tags.whole(324), tags.whole(325)) if tiled else (tags.whole(273), tags.whole(279))
    line_bytes = -(-piece[1] * together * bits // 8)
    whole_bytes = planes * height * -(-width * together * bits // 8)
    if not lengths and compression == 1 and len(offsets) == 1:  # some writers leave out the length of what is plain
        lengths = (whole_bytes,)
    if len(offsets) != len(lengths) or len(offsets) < count or count > _MOST_SEGMENTS:
        came = f"{min(len(offsets), len(lengths))} strips or tiles for {width} × {height} pixels"
        raise fault(path, came, f"{count}", _COPY)
    if min(lengths[:count]) < 1:  # some libraries read zeros there, which nobody has seen
        raise fault(path, "a strip or tile of 0 bytes", "every part of the picture", _COPY)
    size = len(content)
    if any(offset + length > size for offset, length in zip(offsets, lengths, strict=True)):
        came = f"the header claims {width} × {height} pixels, beyond the end of the file ({size} bytes)"
        raise fault(path, came, "as many bytes as claimed", "The file is truncated or its header is false")
    if compression == 1 and sum(lengths[:count]) < whole_bytes:
        came = f"the header claims {width} × {height} pixels but stores only {sum(lengths[:count])} bytes"
        raise fault(path, came, f"at least {whole_bytes} bytes", "The file is truncated or its header is false")
    item = max(dtype.itemsize, 1)
    if compression in PICTURES:
        for offset, length in zip(offsets[:count], lengths[:count], strict=True):
            _check_picture(path, PICTURES[compression], content[offset : offset + length], piece)
    down_density, across_density = tags.ratio(283), tags.ratio(282)
    density = (down_density, across_density) if down_density is not None and across_density is not None else None
    subfile = tags.one(254, 0)
    plain = compression == 1 and not tiled and tags.one(317, 1) == 1 and tags.one(266, 1) == 1 and bits == 8 * item
    return TiffPage(
        (height, width),
        samples,
        dtype,
        bits,
        tags.one(262, 1),
        compression,
        planar,
        tags.whole(338),
        bool(subfile & 0b101) or tags.one(255, 1) == 2,
        count * piece[0] * max(piece[1] * together * item, line_bytes),
        offsets[0] if plain and _in_one_piece(offsets[:count], lengths[:count], whole_bytes) else None,
        tags.whole(320),
        tags.text(270),
        _per_mm(density, tags.one(296, 2)),
        density,
    )


def _same(path: Path, values: tuple[int, ...], noun: str) -> int:
    if len(set(values)) != 1:
        raise fault(path, f"{noun} that differ ({values[:6]})", "the same for every sample", "Convert the image")
    return values[0]


def _value_type(path: Path, bits: int, kind: int, order: str) -> np.dtype[Any]:
    """Return NumPy's type of a value of so many bits: whole (1, or 4: undefined), signed (2) or real (3)."""
    kind = 1 if kind == 4 else kind
    if kind == 1 and 1 <= bits <= 16:
        return np.dtype(f"{order}u{1 if bits <= 8 else 2}")
    if kind in (1, 2, 3) and bits in ((16, 32, 64) if kind == 3 else (8, 16, 32, 64)):
        return np.dtype(f"{order}{'uif'[kind - 1]}{bits // 8}")
    expected = "whole numbers of 1 to 16, 32 or 64 bits, or real ones of 16, 32 or 64"
    raise fault(path, f"values of {bits} bits in the sample format {kind}", expected, "Convert the image to float32")


def _in_one_piece(offsets: tuple[int, ...], lengths: tuple[int, ...], size: int) -> bool:
    ends = (offset + length for offset, length in zip(offsets, lengths, strict=True))
    return all(a == b for a, b in zip(ends, offsets[1:], strict=False)) and sum(lengths) >= size


# Densities in dots an inch with which programs for print and screen mark any picture.
_PRINT = {72, 96, 100, 120, 144, 150, 180, 200, 220, 240, 300, 350, 360, 400, 600, 720, 1200}


def _per_mm(resolution: tuple[float, float] | None, unit: int) -> tuple[float, float] | None:
    """Return pixels a millimetre by the resolution tags; a density of print or screen says nothing of the object."""
    inch = {2: 25.4, 3: 10.0}.get(unit)
    if resolution is None or inch is None or resolution == (1.0, 1.0):
        return None
    per_mm = resolution[0] / inch, resolution[1] / inch
    dots = {round(25.4 * value) for value in per_mm if abs(25.4 * value - round(25.4 * value)) < 0.05}
    return None if dots & _PRINT else per_mm


def _check_picture(path: Path, kind: str, content: bytes, piece: tuple[int, int]) -> None:
    """Raise DataError where a segment claims to be larger than its strip or tile."""
    try:
        found = _CLAIMS[kind](content)
    except (struct.error, IndexError):
        found = None
    if found is None:
        raise fault(path, f"a damaged {kind} strip or tile", f"{kind} data", _COPY)
    if found[0] > piece[1] or found[1] > piece[0]:
        came = f"a {kind} strip or tile that claims {found[0]} × {found[1]} pixels"
        raise fault(path, came, f"at most {piece[1]} × {piece[0]}", _COPY)


def _png(content: bytes) -> tuple[int, int] | None:
    if content[:8] != b"\x89PNG\r\n\x1a\n" or content[12:16] != b"IHDR":
        return None
    width, height = struct.unpack_from(">II", content, 16)
    return width, height


def _jpeg(content: bytes) -> tuple[int, int] | None:
    found = jpeg_claims(content) if content[:2] == b"\xff\xd8" else None
    return None if found is None else found[:2]


def _jpeg2000(content: bytes) -> tuple[int, int] | None:
    if content[4:8] == b"jP  ":  # boxes, one of which holds the codestream
        place = 0
        while content[place + 4 : place + 8] != b"jp2c":
            (length,) = struct.unpack_from(">I", content, place)
            if length < 8:
                return None
            place += length
        content = content[place + (16 if content[place : place + 4] == b"\0\0\0\1" else 8) :]
    if content[:4] != b"\xff\x4f\xff\x51":
        return None
    right, lower, left, upper = struct.unpack_from(">IIII", content, 8)
    return right - left, lower - upper


def _webp(content: bytes) -> tuple[int, int] | None:
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP":
        return None
    if content[12:16] == b"VP8X":
        return 1 + int.from_bytes(content[24:27], "little"), 1 + int.from_bytes(content[27:30], "little")
    if content[12:16] == b"VP8L":
        (packed,) = struct.unpack_from("<I", content, 21)
        return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", content, 26)
    return width & 0x3FFF, height & 0x3FFF


def _lerc(content: bytes) -> tuple[int, int] | None:
    if content[:6] != b"Lerc2 ":
        return None
    (version,) = struct.unpack_from("<i", content, 6)
    height, width = struct.unpack_from("<ii", content, 14 if version >= 3 else 10)
    return (width, height) if width > 0 and height > 0 else None


_CLAIMS: dict[str, Callable[[bytes], tuple[int, int] | None]] = {
    "JPEG": _jpeg,
    "JPEG 2000": _jpeg2000,
    "LERC": _lerc,
    "PNG": _png,
    "WebP": _webp,
}
