"""DICOM segmentations: read as labels on the grid of their image, and written beside the series they belong to.

A segmentation stores planes of bits (or of numbers) for its segments, empty ones left out; each is put where its own
position says. Segment numbers become class numbers. Segments that overlap and fractions are refused: a voxel of a label
has one class.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoxel.data.dicom_file import (
    ELEMENTS,
    PIXEL_ELEMENTS,
    Elements,
    ImageObject,
    Place,
    open_elements,
    quiet,
    read_image_object,
    whole_number,
)
from convoxel.data.dicom_pixels import decode
from convoxel.data.dicom_series import SeriesOrigin
from convoxel.data.image_header import Header
from convoxel.data.voxel_layout import LPS_TO_RAS, patient_affine
from convoxel.errors import ConvoxelError, UnsupportedError
from convoxel.files.fault import brief, fault, plural, shown
from convoxel.files.memory import check_memory
from convoxel.files.stream import FREE_BYTES, MOST_RATIO, file_size
from convoxel.files.values import Array

_NAMES = [*ELEMENTS, "SegmentSequence", "SegmentationType"]
_MEND = "Write it again as a label map"
_FAR = 1e9  # voxels
_MOST_OFF = 0.25  # of a voxel, as between a label and its image
# What a source series may lack, though the standard asks for it; highdicom copies it over.
_COPIED = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"),
    *("AccessionNumber", "ReferringPhysicianName"),
)


@dataclass(frozen=True, eq=False)
class _Segmentation:
    """A checked segmentation: its planes, the segment of each (None where pixels hold numbers), and the names."""

    image: ImageObject
    places: tuple[Place, ...]
    segments: tuple[int, ...] | None
    names: dict[int, str]
    thickness: float | None


def read_header(path: Path) -> Header:
    """Return the header of the smallest even stack that holds all planes of a segmentation."""
    return _own_grid(path, _read(path))


def read_values(path: Path, label: bool) -> tuple[Header, Array]:
    """Return header and class numbers (1, *shape) on the segmentation's own stack of planes."""
    found = _read(path)
    grid = _own_grid(path, found)
    size, packed = math.prod(grid.shape), file_size(path)
    if size > max(FREE_BYTES, MOST_RATIO * packed):  # planes between those that are stored are empty
        came = f"a file of {packed} bytes whose planes span a volume of {size / 2**20:.0f} MiB"
        expected = f"at most {MOST_RATIO} times the file above {FREE_BYTES // 2**20} MiB"
        raise fault(path, came, expected, "Read it with its series, or write it again as a label map")
    header, values = _place(path, found, grid)
    return header, values if label else values.astype(np.float32)


def read_on(path: Path, grid: Header) -> tuple[Header, Array]:
    """Return header and class numbers (1, *shape) on the grid of an image.

    Raises:
        DataError: a plane lies off the grid or between its voxels, segments overlap, or the file is damaged.
    """
    return _place(path, _read(path), grid)


def _place(path: Path, found: _Segmentation, grid: Header) -> tuple[Header, Array]:
    """Return header and class numbers (1, *shape) on a grid, as :func:`read_on` does."""
    check_memory(path, 2 * math.prod(grid.shape))
    label = np.zeros((*grid.shape, 1, 1)[:3], np.uint8)
    indices = _indices_of_picture(path, found, grid) if grid.affine is None else _indices_of_planes(path, found, grid)
    for number, (where, plane) in enumerate(zip(indices, _planes(path, found), strict=True)):
        before = label[where]
        values = plane if found.segments is None else plane * np.uint8(found.segments[number])
        both = (before != 0) & (values != 0) & (before != values)
        if both.any():
            pair = (int(before[both][0]), int(values[both][0]))
            names = " and ".join(f"{n} ({found.names.get(n, 'no name')})" for n in pair)
            expected = "segments that share no voxel"
            raise fault(path, f"segments {names} overlap in {plural(int(both.sum()), 'voxel')}", expected, _MEND)
        label[where] = np.maximum(before, values)
    header = replace(grid, channels=1, classes=_class_names(found.names), origin=None, colour=False, note="")
    return header, label.reshape(1, *grid.shape)


def _read(path: Path) -> _Segmentation:
    with open_elements(path, _NAMES) as elements:
        kind = str(elements.get("SegmentationType") or "")
        if kind not in ("BINARY", "LABELMAP"):
            came = f"SegmentationType is {brief(kind)}"
            raise fault(path, came, "BINARY or LABELMAP: a voxel has one class", "Threshold it and write it again")
        bits = (1,) if kind == "BINARY" else (8, 16)
        image = read_image_object(path, elements, bits_allowed=bits)
        names = {
            whole_number(path, item, "SegmentNumber", 0, 65_535): shown(str(item.get("SegmentLabel") or ""))[:64]
            for item in elements.items("SegmentSequence")
        }
        if max(names, default=0) > 255:
            raise fault(path, f"segment number {max(names)}", "numbers up to 255", _MEND)
        places = tuple(frame.place for frame in image.frames if frame.place is not None)
        if 0 < len(places) < len(image.frames):
            came = "planes without a position, orientation or spacing"
            raise fault(path, came, "the place of every plane", "Write it with another program")
        groups = elements.items("PerFrameFunctionalGroupsSequence")
        shared = elements.items("SharedFunctionalGroupsSequence")
        segments = None
        if kind == "BINARY":
            segments = tuple(_segment(path, [group, *shared], names) for group in groups)
            if len(segments) != len(image.frames):
                raise fault(path, f"{len(image.frames)} planes, {len(segments)} segments", "as many of both", _MEND)
        return _Segmentation(image, places, segments, names, _thickness(path, [*groups[:1], *shared]))


def _segment(path: Path, sources: list[Elements], names: dict[int, str]) -> int:
    """Return the number of the segment that a plane belongs to."""
    for source in sources:
        for item in source.items("SegmentIdentificationSequence")[:1]:
            number = whole_number(path, item, "ReferencedSegmentNumber", 1, 255)
            if number not in names:
                raise fault(path, f"a plane of segment {number}, which is not declared", f"one of {list(names)}", _MEND)
            return number
    raise fault(path, "a plane that belongs to no segment", "the number of its segment", _MEND)


def _thickness(path: Path, sources: list[Elements]) -> float | None:
    for name in ("SpacingBetweenSlices", "SliceThickness"):
        for source in sources:
            for item in source.items("PixelMeasuresSequence")[:1]:
                value = item.get(name)
                if isinstance(value, (int, float)) and 0 < abs(float(value)) < 1e6:
                    return abs(float(value))
    return None


def _class_names(names: dict[int, str]) -> tuple[str, ...]:
    """Return the names by class number, the background's first; "" for a number without a segment or a name."""
    return ("background", *(names.get(n, "") for n in range(1, max(names, default=0) + 1)))


def _planes(path: Path, found: _Segmentation) -> Iterator[NDArray[np.uint8]]:
    """Yield the planes (rows, columns) of class numbers, or of bits."""
    image = found.image
    if found.segments is None:
        for values in decode(replace(image, photometric="MONOCHROME2")):
            if values.max() > 255 or not (values == values.astype(np.uint8)).all():
                raise fault(path, f"segment numbers up to {values.max()}", "numbers up to 255", _MEND)
            unknown = np.setdiff1d(values.astype(np.uint8), [0, *found.names])
            if unknown.size:
                came = f"pixels of segment {unknown[0]}, which is not declared"
                raise fault(path, came, f"one of {list(found.names)}", _MEND)
            yield values[0].astype(np.uint8)
        return
    with open_elements(path, PIXEL_ELEMENTS) as elements:
        content = elements.get("PixelData") or b""
    count = image.rows * image.columns
    if image.packed or len(content) * 8 < count * len(image.frames):
        came = f"{len(content)} bytes of planes" if not image.packed else "compressed planes of bits"
        expected = f"{-(-count * len(image.frames) // 8)} bytes, as the header says, not compressed"
        raise fault(path, came, expected, "Copy the file again, or write it without compression")
    for index in range(len(image.frames)):  # planes follow each other bit by bit
        first, last = index * count, (index + 1) * count
        part = np.frombuffer(content, np.uint8, -(-last // 8) - first // 8, first // 8)
        bits = np.unpackbits(part, bitorder="little")[first % 8 :]
        yield bits[:count].reshape(image.rows, image.columns)


# ---- geometry ------------------------------------------------------------------------------------------------


def _plane_matrix(place: Place) -> NDArray[np.float64]:
    """Return the (3, 3) matrix from (column, row, 1) of a plane to RAS+ mm."""
    down, across = place.spacing_mm
    return LPS_TO_RAS @ np.column_stack(
        [place.directions[:, 0] * across, place.directions[:, 1] * down, place.position]
    )


def _indices_of_planes(path: Path, found: _Segmentation, grid: Header) -> Iterator[tuple[Array, ...]]:
    """Yield the indices of each plane's pixels (rows, columns) in a volume; DataError where they lie off its grid."""
    inverse = np.linalg.inv(np.asarray(grid.affine, np.float64))
    shape = np.array((*grid.shape, 1, 1)[:3])[:, None]
    rows, columns = found.image.rows, found.image.columns
    row, column = np.ogrid[:rows, :columns]
    corners = np.array([[i, j, 1] for i in (0, columns - 1) for j in (0, rows - 1)]).T
    for place in found.places:
        matrix = inverse[:3, :3] @ _plane_matrix(place)
        matrix[:, 2] += inverse[:3, 3]
        whole = np.rint(np.clip(matrix, -_FAR, _FAR)).astype(np.int64)
        ends = whole @ corners
        steps = np.abs(whole[:, :2])  # from pixel to pixel: to the next voxel, along two axes of the volume
        inside = (ends >= 0).all() and (ends < shape).all() and np.array_equal(steps.T @ steps, np.eye(2))
        if not inside or np.abs((matrix - whole) @ corners).max() > _MOST_OFF:
            came = "a plane of the segmentation lies beside its image or between its voxels"
            expected = f"planes on the image's grid, to {_MOST_OFF} voxels"
            raise fault(path, came, expected, "Give the segmentation of this very series, or resample it")
        yield tuple(axis[0] * column + axis[1] * row + axis[2] for axis in whole)
    if not found.places:
        raise fault(
            path, "planes without a place in space", "the place of every plane", "Write it anew for this series"
        )


def _indices_of_picture(path: Path, found: _Segmentation, grid: Header) -> Iterator[tuple[Array, ...]]:
    """Yield the indices of each plane's pixels in a picture, which all planes must cover."""
    sizes = (found.image.rows, found.image.columns)
    apart = [np.abs(place.position - found.places[0].position).max() for place in found.places]
    if grid.shape != sizes or max(apart, default=0) > 0.01:
        came = f"planes of {sizes[0]} × {sizes[1]}" + (" at several places" if max(apart, default=0) > 0.01 else "")
        raise fault(path, came, f"planes of the picture ({' × '.join(map(str, grid.shape))})", _MEND)
    row, column = np.ogrid[: sizes[0], : sizes[1]]
    for _ in found.image.frames:
        yield row, column, np.zeros((1, 1), np.int64)


def _own_grid(path: Path, found: _Segmentation) -> Header:
    if not found.places:
        return Header((found.image.rows, found.image.columns), 1, classes=_class_names(found.names))
    first = found.places[0]
    normal = np.cross(first.directions[:, 0], first.directions[:, 1])
    heights = np.unique(np.array([normal @ place.position for place in found.places]).round(4))
    gaps = np.diff(heights)
    step = float(gaps.min()) if gaps.size else found.thickness or 1.0
    if gaps.size and found.thickness and abs(gaps.min() / found.thickness - round(gaps.min() / found.thickness)) < 0.05:
        step = found.thickness  # neighbours may all be empty
    count = round(float(heights[-1] - heights[0]) / step) + 1
    if not 1 <= count <= 65_535:
        came = f"planes over {heights[-1] - heights[0]:.4g} mm, {step:.4g} mm apart"
        raise fault(path, came, "at most 65535", _MEND)
    lowest = min(found.places, key=lambda place: float(normal @ place.position))
    down, across = first.spacing_mm
    steps = np.column_stack([first.directions[:, 0] * across, first.directions[:, 1] * down, normal * step])
    shape = (found.image.columns, found.image.rows, count)
    affine = patient_affine(path, steps, lowest.position)
    return Header(shape, 1, (across, down, step), affine, classes=_class_names(found.names))


# ---- writing -------------------------------------------------------------------------------------------------


def _highdicom() -> ModuleType:
    try:
        import highdicom
    except ImportError as error:
        raise UnsupportedError("DICOM segmentations need highdicom: pip install 'convoxel[formats]'.") from error
    return highdicom


def pack(path: Path, values: Array, header: Header, label: bool) -> bytes:
    """Return the bytes of a segmentation of the series that the label belongs to; one segment a class.

    It refers to the series' files, and takes over the patient and the study from them, as the standard demands.
    """
    origin = header.origin
    if not label or not isinstance(origin, SeriesOrigin):
        came = "a label of an image that is no DICOM series" if label else "an image"
        raise fault(path, came, "a label of a DICOM series (like=)", "Write .nii.gz or .mha")
    highdicom = _highdicom()
    planes = values[0] if header.dims == 2 else values[0].transpose(2, 1, 0)
    try:
        sources = _read_sources(origin, (*(header.spacing_mm or ()), 1.0, 1.0, 1.0)[2])
        with quiet():
            written = _build(highdicom, sources, _in_file_order(planes.reshape(-1, *planes.shape[-2:]), origin), header)
            stream = io.BytesIO()
            written.save_as(stream)
    except ConvoxelError:
        raise
    except Exception as error:  # highdicom raises several kinds for series that it cannot refer to
        came = f"the series cannot be referred to ({type(error).__name__}: {brief(str(error))[1:-1]})"
        raise fault(path, came, "slices with a place in space", "Write .nii.gz or .mha") from None
    return stream.getvalue()


def _read_sources(origin: SeriesOrigin, step: float) -> list[Any]:
    """Return pydicom's data sets of the files of a series, without pixels; slices are ``step`` mm apart."""
    sources = []
    for path in dict.fromkeys(path for path, _ in origin.planes):
        with open_elements(path, []) as elements:
            data = elements.data
            for name in _COPIED:
                if name not in data:
                    setattr(data, name, "")
            if "Rows" in data and "SharedFunctionalGroupsSequence" not in data:
                data.SliceThickness = data.SpacingBetweenSlices = (
                    step  # by the positions, which alone are to be trusted
                )
            if not data.get("FrameOfReferenceUID"):
                data.FrameOfReferenceUID = _identifier(str(data.get("SeriesInstanceUID", "")), "space")
            sources.append(data)
    return sources


def _in_file_order(planes: Array, origin: SeriesOrigin) -> Array:
    """Return the planes of a file of many frames in its own order; those of single files have that of the sources."""
    if len({path for path, _ in origin.planes}) > 1:
        return planes
    return planes[np.argsort([frame for _, frame in origin.planes])]


def _build(highdicom: ModuleType, sources: list[Any], planes: Array, header: Header) -> Any:
    from pydicom.sr.coding import Code

    tissue = Code("85756007", "SCT", "Tissue")
    version = importlib.metadata.version("convoxel")
    count = max(int(planes.max()), len(header.classes) - 1, 1)
    algorithm = highdicom.AlgorithmIdentificationSequence(
        "Convoxel", Code("123109", "DCM", "Artificial Intelligence"), version
    )
    names = [*header.classes[1:], *(f"class {n}" for n in range(max(len(header.classes), 1), count + 1))]
    segments = [
        highdicom.seg.SegmentDescription(n, name[:64], tissue, tissue, "AUTOMATIC", algorithm)
        for n, name in enumerate(names, 1)
    ]
    content = hashlib.sha256(planes.tobytes()).hexdigest()
    series = _identifier(str(sources[0].SeriesInstanceUID), content)
    return highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=np.ascontiguousarray(planes),
        segmentation_type="BINARY",
        segment_descriptions=segments,
        series_instance_uid=series,
        series_number=1 + int(sources[0].get("SeriesNumber") or 0),
        sop_instance_uid=_identifier(series, "object"),
        instance_number=1,
        manufacturer="Convoxel",
        manufacturer_model_name="Convoxel",
        software_versions=version,
        device_serial_number="0",
    )


def _identifier(*sources: str) -> str:
    """Return an identifier that is the same for the same sources."""
    from pydicom.uid import generate_uid

    return str(generate_uid(entropy_srcs=list(sources)))
