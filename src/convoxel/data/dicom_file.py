"""One DICOM file: a bounded reading of the elements that say what its image is and where it lies.

pydicom parses; here it gets a file that counts what it reads, and returns the elements that are asked for and no
others. Those that name a person or a date are never asked for. Nothing here decodes pixels.
"""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoxel.errors import ConvoxelError, UnsupportedError
from convoxel.files.fault import brief, fault, shown
from convoxel.files.stream import file_size
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
_MOST_VALUE = 4096  # bytes of a value that is no table and no pixels
_MOST_NUMBER = 1e15
_MOST_SIDE = 65_535
ELEMENTS = [
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "InstanceNumber"),
    *("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing"),
    *("NominalScannedPixelSpacing", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PlanarConfiguration"),
    *("PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope"),
    *("RescaleIntercept", "ModalityLUTSequence", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
]
_COLOURS = ("Red", "Green", "Blue")
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
        self.path, self.left = path, _MOST_READS

    def charge(self, chunk: bytes) -> bytes:
        self.left -= _ITEM_COST if chunk[:4] in _ITEMS else 1
        self.check()
        return chunk

    def check(self) -> None:
        if self.left < 0:
            raise fault(self.path, "more elements than the header of an image has", "an image's header", _COPY)


class _CountedFile(io.BufferedReader):
    """A file of which no more is read than there is, at a cost."""

    def __init__(self, budget: _Budget) -> None:
        super().__init__(io.FileIO(budget.path))
        self._budget = budget
        self._size = self.seek(0, io.SEEK_END)
        self.seek(0)

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:  # pydicom would inflate it whole
            mend = "Write it anew, not deflated"
            raise fault(self._budget.path, "a deflated DICOM file", "plain or compressed pixels", mend)
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
    """Return whether a regular file has DICOM's mark."""
    try:
        with path.open("rb") if path.is_file() else io.BytesIO() as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


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
            with _CountedFile(budget) as file:
                data = pydicom.dcmread(file, stop_before_pixels="PixelData" not in names, specific_tags=names)
            yield Elements(data, budget)
    except ConvoxelError:
        raise
    except Exception as error:  # pydicom raises a dozen kinds for damaged files; their texts may hold values
        budget.check()  # pydicom raises an error of its own for one of the file's
        came = f"the DICOM elements cannot be read ({type(error).__name__})"
        raise fault(path, came, "a whole DICOM file", _COPY) from None


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


def read_image_object(path: Path, elements: Elements, *, bits_allowed: tuple[int, ...] = (8, 16, 32)) -> ImageObject:
    """Return what the elements of a file declare as its image, held against the file's size."""
    rows, columns = (whole_number(path, elements, name, 1, _MOST_SIDE) for name in ("Rows", "Columns"))
    count = whole_number(path, elements, "NumberOfFrames", 1, _MOST_FRAMES, 1)
    samples = whole_number(path, elements, "SamplesPerPixel", 1, 3, 1)
    bits = whole_number(path, elements, "BitsAllocated", 1, 64)
    stored = whole_number(path, elements, "BitsStored", 1, 64, bits)
    if bits not in bits_allowed or stored > bits or samples == 2:
        came = f"{samples} samples a pixel of {bits} bits ({stored} stored)"
        expected = f"1 or 3 samples of {', '.join(map(str, bits_allowed))} bits"
        raise fault(path, came, expected, "Convert the image")
    photometric = str(elements.get("PhotometricInterpretation") or "MONOCHROME2").strip()
    packed = _is_packed(path, elements.data)
    shared = 2 if photometric == "YBR_FULL_422" else 3  # in 4:2:2, two pixels have one colour
    claimed, size = count * rows * columns * samples * bits // 8 * shared // 3, file_size(path)
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
