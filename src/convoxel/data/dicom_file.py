"""One DICOM file: a bounded reading of the elements that say what its image is and where it lies.

pydicom parses; here it gets a file that counts what it reads, and returns the elements that are asked for and no
others. Those that name a person or a date are never asked for. A deflated file is inflated within bounds first; one
without the preamble of 128 bytes is read where it begins as DICOM's elements do. Nothing here decodes pixels.
"""

from __future__ import annotations

import contextlib
import io
import math
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoxel.errors import ConvoxelError, UnsupportedError
from convoxel.files.fault import brief, fault, shown
from convoxel.files.memory import check_memory
from convoxel.files.stream import FREE_BYTES, MOST_RATIO, check_ratio, file_size
from convoxel.fork import renewed_lock

SEGMENTATION = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # by bits, and as a map of labels
CONTOURS = "1.2.840.10008.5.1.4.1.1.481.3"
# Objects with rows and columns whose values are no picture of a scanner: surfaces, doses, maps of parameters.
_NO_IMAGES = (*SEGMENTATION, "1.2.840.10008.5.1.4.1.1.481.2", "1.2.840.10008.5.1.4.1.1.30")
_COPY = "Copy the file again from its source"
# pydicom's reads of a header, some for each element, and what the beginning of a sequence's item counts as, which takes
# ten times as long. The groups of 4096 frames take about 500 000.
_MOST_READS, _ITEM_COST = 600_000, 10
_ITEMS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
_MOST_FRAMES = 4096
_MOST_CINE = 65_535  # frames that share one description
_MOST_VALUE = 4096  # bytes of a value that is no table and no pixels
_MOST_NUMBER = 1e15
_MOST_SIDE = 65_535
# Kinds of pixels by their number of samples, the first for files that say none; HSV, CMYK and ARGB are long retired.
_PHOTOMETRIC = {
    1: ("MONOCHROME2", "MONOCHROME1", "PALETTE COLOR"),
    3: ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT"),
}
ELEMENTS = [
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "InstanceNumber"),
    *("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing"),
    *("NominalScannedPixelSpacing", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PlanarConfiguration"),
    *("PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope"),
    *("RescaleIntercept", "ModalityLUTSequence", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
]
_COLOURS = ("Red", "Green", "Blue")
# Beginnings of a file without a preamble: its first elements, and the types of their values.
_FIRST_GROUPS, _HEAD = (2, 8), 2048
_FIRST_TYPES = (b"UL", b"OB", b"UI", b"CS", b"SH", b"LO", b"DA", b"TM", b"DT", b"IS", b"PN")
_DEFLATED, _PLAIN = b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.1\0\0\0"
_INFLATED_AT_ONCE = 2**20
PIXEL_ELEMENTS = [
    *(name for name in ELEMENTS if not name.endswith("FunctionalGroupsSequence")),
    *("PixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in _COLOURS),
    *(f"{colour}PaletteColorLookupTableData" for colour in _COLOURS),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in _COLOURS),
]
_LONG = frozenset(PIXEL_ELEMENTS) - frozenset(ELEMENTS)
_lock = renewed_lock()

Dataset = Any  # pydicom's, which has no types


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom from warning, since its words hold values; what it warns of is checked here, or refused.

    Filters of warnings belong to the whole process, so one thread at a time is here.
    """
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _pydicom() -> ModuleType:
    try:
        import pydicom
    except ImportError as error:
        raise UnsupportedError("DICOM files need pydicom: pip install 'convoxel[formats]'.") from error
    return pydicom


class _Budget:
    """Allowance of reads that one file's header has before it is taken for an attack."""

    def __init__(self, path: Path) -> None:
        self.path, self.left, self.size = path, _MOST_READS, file_size(path)

    def charge(self, chunk: bytes) -> bytes:
        self.left -= _ITEM_COST if chunk[:4] in _ITEMS else 1
        self.check()
        return chunk

    def check(self) -> None:
        if self.left < 0:
            expected = f"an image's header, of at most {_MOST_FRAMES} frames that each say where they lie"
            mend = "Split it into several files, or copy it again where it should be smaller"
            raise fault(self.path, "more elements than the header of an image has", expected, mend)


class _DeflatedError(Exception):
    """The elements from a byte of the file on are deflated: internal signal between pydicom's reads and ``_parse``."""


class _CountedFile(io.BufferedReader):
    """A file of which no more is read than there is, at a cost."""

    def __init__(self, budget: _Budget) -> None:
        super().__init__(io.FileIO(budget.path))
        self._budget = budget
        self._size = self.seek(0, io.SEEK_END)
        self.seek(0)

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:  # pydicom would inflate the rest at once
            raise _DeflatedError(self.tell())
        return self._budget.charge(super().read(min(size, max(self._size - self.tell(), 0))))


class _CountedBytes(io.BytesIO):
    """A sequence's bytes, which are read at a cost."""

    def __init__(self, content: bytes, budget: _Budget) -> None:
        super().__init__(content)
        self._budget = budget

    def read(self, size: int | None = -1, /) -> bytes:
        return self._budget.charge(super().read(size))


class Elements:
    """The elements of a file, or of an item of a sequence: each is converted when it is asked for, at a cost."""

    def __init__(self, data: Dataset, budget: _Budget) -> None:
        self.data, self._budget = data, budget

    @property
    def file_bytes(self) -> int:
        """Bytes of the file, those that it inflates to where it is deflated."""
        return self._budget.size

    def get(self, name: str) -> Any:
        """Return the value of an element; None where it is missing or empty."""
        if name not in self.data:
            return None
        raw = self.data.get_item(name)
        if (getattr(raw, "length", None) or 0) > _MOST_VALUE and name not in _LONG:
            came = f"{name} takes {raw.length} bytes"
            raise fault(self._budget.path, came, f"at most {_MOST_VALUE}", _COPY)
        value = self.data[name].value
        return None if value is None or value == "" else value

    def items(self, name: str) -> list[Elements]:
        """Return the items of a sequence; none where it is missing."""
        if name not in self.data:
            return []
        raw = self.data.get_item(name)
        if isinstance(raw.value, bytes):
            from pydicom.filereader import read_sequence

            file = _CountedBytes(raw.value, self._budget)
            found = read_sequence(file, raw.is_implicit_VR, raw.is_little_endian, len(raw.value), "iso8859")
            self.data[name] = _pydicom().DataElement(raw.tag, "SQ", found)
        return [Elements(item, self._budget) for item in self.data[name].value or ()]


def is_dicom(path: Path) -> bool:
    """Return whether a regular file has DICOM's mark, or begins as a file that was written without it."""
    try:
        with path.open("rb") if path.is_file() else io.BytesIO() as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    return head[128:132] == b"DICM" or _is_bare(head)


def _is_bare(head: bytes) -> bool:
    """Return whether bytes are two of DICOM's first elements in their order, with lengths that fit."""
    place, before = 0, (0, -1)
    for _ in range(2):
        if len(head) < place + 12:
            return False
        group, element, kind, short, long = struct.unpack_from("<HH2sHI", head, place)
        tag = (group, element)
        if group not in _FIRST_GROUPS or tag <= before:
            return False
        if kind in _FIRST_TYPES:
            begin, length = (12, long) if kind == b"OB" else (8, short)
        else:  # no types are written
            begin, length = 8, int.from_bytes(head[place + 4 : place + 8], "little")
        place, before = place + begin + length, tag
    return place <= len(head)


@contextlib.contextmanager
def open_elements(path: Path, names: list[str]) -> Iterator[Elements]:
    """Yield the elements of these names in a DICOM file; whatever pydicom raises in the block becomes a DataError."""
    file_size(path)
    pydicom = _pydicom()
    if not is_dicom(path):
        raise fault(path, "this is no DICOM file, or a truncated one", "the mark DICM at byte 128", _COPY)
    budget = _Budget(path)
    try:
        with quiet():
            data = _parse(pydicom, budget, names)
            yield Elements(data, budget)
    except ConvoxelError:
        raise
    except Exception as error:  # pydicom raises a dozen kinds for damaged files; their texts may hold values
        budget.check()  # pydicom raises an error of its own for one of the file's
        came = f"the DICOM elements cannot be read ({type(error).__name__})"
        raise fault(path, came, "a whole DICOM file", _COPY) from None


def _parse(pydicom: ModuleType, budget: _Budget, names: list[str]) -> Dataset:
    """Return pydicom's data set of a file."""
    how: dict[str, Any] = {"stop_before_pixels": "PixelData" not in names, "specific_tags": names, "force": True}
    try:
        with _CountedFile(budget) as file:
            data = pydicom.dcmread(file, **how)
    except _DeflatedError as place:
        data = pydicom.dcmread(_CountedBytes(_inflate(budget, place.args[0]), budget), **how)
    if data.preamble is None and "TransferSyntaxUID" not in data.file_meta:  # what the first element showed
        implicit, little = data.original_encoding
        names_of = {(True, True): "ImplicitVRLittleEndian", (False, True): "ExplicitVRLittleEndian"}
        data.file_meta.TransferSyntaxUID = getattr(pydicom.uid, names_of.get((implicit, little), "ExplicitVRBigEndian"))
    return data


def _inflate(budget: _Budget, place: int) -> bytes:
    """Return a deflated file as the plain one that it was, after counting what it inflates to."""
    content = budget.path.read_bytes()
    head, packed = content[:place], memoryview(content)[place:]
    most = max(FREE_BYTES, MOST_RATIO * len(packed))
    size = sum(map(len, _pieces(packed, most)))
    if size > most:
        check_ratio(budget.path, len(packed), size)
    check_memory(budget.path, 3 * size)
    budget.size = len(head) + size
    return b"".join([head.replace(_DEFLATED, _PLAIN, 1), *_pieces(packed, most)])


def _pieces(packed: memoryview, most: int) -> Iterator[bytes]:
    """Yield what bytes inflate to, up to the first piece beyond ``most`` bytes."""
    unpacker, done, rest = zlib.decompressobj(-zlib.MAX_WBITS), 0, bytes(packed)
    while done <= most and not unpacker.eof:
        piece = unpacker.decompress(rest, _INFLATED_AT_ONCE)
        rest = unpacker.unconsumed_tail
        if not piece and not rest and not unpacker.eof:
            raise EOFError("the deflated elements have no end")
        done += len(piece)
        yield piece


@dataclass(frozen=True, eq=False)
class Place:
    """Where a frame lies: LPS mm of its first pixel's centre, and (3, 2) directions of a row and of a column."""

    position: NDArray[np.float64]
    directions: NDArray[np.float64]
    spacing_mm: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Frame:
    """One plane of an image.

    Attributes:
        index: number in its file, from 0.
        place: where it lies, or None where the file does not say it.
        spacing_mm: distance between rows and between columns, or None.
        slope, intercept: stored value → value.
    """

    index: int
    place: Place | None
    spacing_mm: tuple[float, float] | None
    slope: float
    intercept: float


@dataclass(frozen=True, eq=False)
class ImageObject:
    """An image as one DICOM file declares it, checked against the file's size.

    Attributes:
        path: file.
        series, number, description: identifier of its series, its number (None where it has none), and its name.
        rows, columns, samples: sizes of a frame.
        bits, stored_bits, signed: type of a value.
        photometric: how values are to be seen.
        packed: whether pixels are compressed.
        table: whether values go through a look-up table.
        frames: its planes.
    """

    path: Path
    series: str
    number: int | None
    description: str
    rows: int
    columns: int
    samples: int
    bits: int
    stored_bits: int
    signed: bool
    photometric: str
    packed: bool
    table: bool
    frames: tuple[Frame, ...]

    @property
    def form(self) -> tuple[object, ...]:
        """Facts that all files of a series share."""
        return self.rows, self.columns, self.samples, self.bits, self.signed, self.photometric

    @property
    def frame_bytes(self) -> int:
        """Size of a decoded frame."""
        return self.rows * self.columns * self.samples * self.bits // 8


def read_object(path: Path) -> ImageObject | None:
    """Return the image that a DICOM file declares; None for an object that is no image.

    Raises:
        DataError: the file is no DICOM file, or what it declares cannot be true.
    """
    with open_elements(path, ELEMENTS) as elements:
        kind = str(elements.get("SOPClassUID") or "")
        if kind in _NO_IMAGES or elements.get("Rows") is None or elements.get("Columns") is None:
            return None
        return read_image_object(path, elements)


def read_kind(path: Path) -> str:
    """Return the identifier of the class of a DICOM file's object."""
    with open_elements(path, ["SOPClassUID"]) as elements:
        return str(elements.get("SOPClassUID") or "")


def describe_kind(path: Path) -> str:
    """Return in the standard's words what a DICOM file holds, such as "RT Dose Storage"."""
    kind = read_kind(path)
    with quiet():  # of what is no identifier
        name = _pydicom().uid.UID(kind).name
    return brief(name)[1:-1] if name else "an object of no class"


def read_image_object(path: Path, elements: Elements, *, bits_allowed: tuple[int, ...] = (8, 16, 32)) -> ImageObject:
    """Return what the elements of a file declare as its image, held against the file's size."""
    rows, columns = (whole_number(path, elements, name, 1, _MOST_SIDE) for name in ("Rows", "Columns"))
    count = whole_number(path, elements, "NumberOfFrames", 1, _MOST_CINE, 1)
    if count > _MOST_FRAMES and "PerFrameFunctionalGroupsSequence" in elements.data:
        came = f"{count} frames that each say where they lie"
        raise fault(path, came, f"at most {_MOST_FRAMES}", "Split the file into several")
    samples = whole_number(path, elements, "SamplesPerPixel", 1, 3, 1)
    bits = whole_number(path, elements, "BitsAllocated", 1, 64)
    stored = whole_number(path, elements, "BitsStored", 1, 64, bits)
    if bits not in bits_allowed or stored > bits or samples == 2:
        came = f"{samples} samples a pixel of {bits} bits ({stored} stored)"
        expected = f"1 or 3 samples of {', '.join(map(str, bits_allowed))} bits"
        raise fault(path, came, expected, "Convert the image")
    kinds = _PHOTOMETRIC[samples]
    photometric = str(elements.get("PhotometricInterpretation") or kinds[0]).strip()
    if photometric not in kinds:
        came = f"PhotometricInterpretation is {brief(photometric)} with {samples} samples a pixel"
        raise fault(path, came, f"one of {', '.join(kinds)}", "Convert the image")
    packed = _is_packed(path, elements.data)
    highest = whole_number(path, elements, "HighBit", 0, 63, stored - 1)
    if highest != stored - 1 and not packed:  # where the bits of a value lie is then uncertain
        came = f"HighBit is {highest} with {stored} bits stored"
        raise fault(path, came, f"{stored - 1}, the last of them", "Convert the image")
    shared = 2 if photometric == "YBR_FULL_422" else 3  # in 4:2:2, two pixels have one colour
    claimed, size = count * rows * columns * samples * bits // 8 * shared // 3, elements.file_bytes
    if not packed and claimed > size:
        came = f"the header claims {count} × {rows} × {columns} pixels, {claimed} bytes, but the file has {size}"
        mend = "The file is truncated or its header is false: " + _COPY[0].lower() + _COPY[1:]
        raise fault(path, came, "at least as many bytes as claimed", mend)
    return ImageObject(
        path=path,
        series=str(elements.get("SeriesInstanceUID") or ""),
        number=_series_number(elements),
        description=shown(str(elements.get("SeriesDescription") or "").strip())[:64],
        rows=rows,
        columns=columns,
        samples=samples,
        bits=bits,
        stored_bits=stored,
        signed=whole_number(path, elements, "PixelRepresentation", 0, 1, 0) == 1,
        photometric=photometric,
        packed=packed,
        table=bool(elements.items("ModalityLUTSequence")),
        frames=read_frames(path, elements, count),
    )


def transfer_syntax(path: Path, data: Dataset) -> Any:
    """Return pydicom's identifier of how a file's values are encoded."""
    found = data.file_meta.get("TransferSyntaxUID")
    if found is None:
        raise fault(path, "the file does not say how it is encoded (TransferSyntaxUID)", "a transfer syntax", _COPY)
    return found


def _is_packed(path: Path, data: Dataset) -> bool:
    syntax = transfer_syntax(path, data)
    try:
        return bool(syntax.is_compressed)
    except Exception:  # an identifier that pydicom does not know
        raise fault(path, f"transfer syntax {brief(str(syntax))}", "a known one", "Convert the file") from None


def _series_number(elements: Elements) -> int | None:
    try:
        return int(elements.get("SeriesNumber"))
    except (TypeError, ValueError):  # missing or no number: the series is told apart by its identifier
        return None


def read_frames(path: Path, elements: Elements, count: int) -> tuple[Frame, ...]:
    """Return the frames of a file: by its groups for each frame, or else one description for all."""
    shared = elements.items("SharedFunctionalGroupsSequence")[:1]
    groups = elements.items("PerFrameFunctionalGroupsSequence")
    if not groups:
        frame = _frame(path, 0, [elements, *shared])
        return tuple(replace(frame, index=index) for index in range(count))
    if len(groups) != count:
        came = f"{count} frames but the places of {len(groups)}"
        raise fault(path, came, "as many of both", _COPY)
    return tuple(_frame(path, index, [group, *shared, elements]) for index, group in enumerate(groups))


def _frame(path: Path, index: int, sources: list[Elements]) -> Frame:
    """Return a frame whose facts come from the first of the sources that has them."""
    position = _numbers(path, sources, "PlanePositionSequence", "ImagePositionPatient", 3)
    directions = _numbers(path, sources, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
    steps = _numbers(path, sources, "PixelMeasuresSequence", "PixelSpacing", 2)
    known = steps is not None
    for name in ("ImagerPixelSpacing", "NominalScannedPixelSpacing"):  # at the detector: the best that is known
        steps = _numbers(path, sources, "", name, 2) if steps is None else steps
    if steps is not None and min(steps) <= 0:
        raise fault(path, f"PixelSpacing is {steps}", "two numbers above 0", "Write the spacing again")
    spacing = None if steps is None else (steps[0], steps[1])
    place = None
    if position is not None and directions is not None and spacing is not None and known:
        place = Place(np.array(position), np.array(directions).reshape(2, 3).T, spacing)
    slope, intercept = (
        (_numbers(path, sources, "PixelValueTransformationSequence", name, 1) or [default])[0]
        for name, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
    )
    if slope == 0:
        came = "RescaleSlope is 0, which makes all values equal"
        raise fault(path, came, "another number", "Write the slope again, 1 for none")
    return Frame(index, place, spacing, slope, intercept)


def _numbers(path: Path, sources: list[Elements], sequence: str, name: str, count: int) -> list[float] | None:
    """Return the finite numbers of an element, or None where no source has it."""
    for source in sources:
        for holder in (*(source.items(sequence)[:1] if sequence else ()), source):
            value = holder.get(name)
            if value is None:
                continue
            try:
                numbers = [float(value)] if count == 1 else [float(part) for part in value]
            except (TypeError, ValueError):  # text, or a list where a number should be
                numbers = [math.nan]
            if len(numbers) != count or not all(abs(number) < _MOST_NUMBER for number in numbers):
                expected = f"{count} finite number{'s' * (count > 1)}"
                raise fault(path, f"{name} is {brief(numbers)}", expected, _COPY)
            return numbers
    return None


def whole_number(path: Path, elements: Elements, name: str, low: int, high: int, missing: int | None = None) -> int:
    """Return the number of an element between ``low`` and ``high``, or ``missing`` where there is none."""
    value = elements.get(name)
    if value is None:
        if missing is not None:
            return missing
        raise fault(path, f"{name} is missing", f"a whole number from {low} to {high}", _COPY)
    try:
        number = int(value)
    except (TypeError, ValueError):  # several numbers, or text
        number = low - 1
    if not low <= number <= high:
        raise fault(path, f"{name} is {brief(value)}", f"a whole number from {low} to {high}", _COPY)
    return number
