"""DICOM images: a series of slices in a folder, a file of many frames, or a single picture.

A folder is one image where its files are one series of slices that lie in space; of several, ``FOLDER#NUMBER`` names
one. Volumes have axes (columns, rows, slices) and an affine in RAS+ mm from the slices' positions; a single picture is
(rows, columns) with its spacing. Slices that are missing, double, uneven or tilted are refused, since the network
would see an anatomy that is none. Objects that are no images are ignored. Names and dates of patients are never read.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convoxel.data.dicom_file import Frame, ImageObject, Place, describe_kind, is_dicom, read_object
from convoxel.data.dicom_pixels import decode
from convoxel.data.folder_parts import subfolders
from convoxel.data.image_header import Header
from convoxel.data.mapped_image import MappedImage
from convoxel.data.voxel_layout import patient_affine
from convoxel.errors import DataError
from convoxel.files.fault import fault, few, plural, shown
from convoxel.files.file_array import lies_in_file, new_array
from convoxel.files.memory import check_memory
from convoxel.files.values import Array

ENDINGS = (".dcm", ".dicom", ".ima")
_MOST_FILES = 65_536
_LISTED = 12
_PROBED = 32  # files of a folder that are opened to see what it holds
# Share of the distance between slices by which one may lie off its place: positions are written with few decimals.
_MOST_UNEVEN = 0.05
_MOST_TILT = 0.02  # share of that distance by which neighbours may be shifted against each other
_SAME_DIRECTION = 1e-3
_BATCH = 16  # slices that are transposed at a time: whole cache lines of the result


@dataclass(frozen=True, eq=False)
class _Plane:
    """A frame and the object that it belongs to."""

    image: ImageObject
    frame: Frame


@dataclass(frozen=True)
class SeriesOrigin:
    """The planes of an image in their order: file, and frame in it."""

    planes: tuple[tuple[Path, int], ...]


def read_header(path: Path) -> Header:
    """Return the checked header of a DICOM file, or of the series in a folder."""
    return _header(path, _planes(path))


def read_values(path: Path, label: bool) -> tuple[Header, Array]:
    """Return header and values (channels, *shape): float32, or as the file scales them for a label."""
    planes = _planes(path)
    header = _header(path, planes)
    images = {plane.image.path: plane.image for plane in planes}
    decoded = sum(len(image.frames) * image.frame_bytes for image in images.values())
    check_memory(path, decoded + 8 * header.channels * int(np.prod(header.shape)))
    first = planes[0].image
    stack: Array | None = None
    for place, values in _decoded(planes):
        if stack is None:
            dtype = values.dtype if label else np.float32
            stack = np.empty((header.channels, len(planes), first.rows, first.columns), dtype)
        elif label and values.dtype != stack.dtype:  # slices of several scales
            stack = stack.astype(np.result_type(stack, values))
        stack[:, place] = values
    assert stack is not None
    if header.dims == 2:
        return header, stack[:, 0]
    result = np.empty((header.channels, *header.shape), stack.dtype)
    for begin in range(0, len(planes), _BATCH):
        result[..., begin : begin + _BATCH] = stack[:, begin : begin + _BATCH].transpose(0, 3, 2, 1)
    return header, result


def map_values(path: Path) -> tuple[Header, MappedImage] | None:
    """Return header and values that are decoded into a temporary file, one frame after the other; None for few."""
    planes = _planes(path)
    header = _header(path, planes)
    if not lies_in_file(4 * header.channels * int(np.prod(header.shape))):
        return None
    largest = max(len(plane.image.frames) * plane.image.frame_bytes for plane in planes)
    check_memory(path, largest + 8 * header.channels * planes[0].image.rows * planes[0].image.columns)
    if header.dims == 2:
        found = new_array((header.channels, *header.shape), np.float32)
        for _, values in _decoded(planes):
            found[:,] = values
        return header, MappedImage(found)
    found = new_array((header.channels, *header.shape), np.float32, order=(0, 3, 2, 1))
    for place, values in _decoded(planes):
        found[:, :, :, place : place + 1] = values.transpose(0, 2, 1)[..., None]
    return header, MappedImage(found)


def _decoded(planes: list[_Plane]) -> Iterator[tuple[int, Array]]:
    """Yield place among the planes and values (channels, rows, columns), file by file."""
    order = {(plane.image.path, plane.frame.index): place for place, plane in enumerate(planes)}
    for image in {plane.image.path: plane.image for plane in planes}.values():
        for index, values in enumerate(decode(image)):
            place = order.get((image.path, index))
            if place is not None:
                yield place, values


def holds_series(path: Path) -> bool:
    """Return whether a folder, or ``FOLDER#NUMBER``, holds slices that lie in space: such a folder is one image.

    Files of many frames are images of their own where they are of several series, or lie beside folders.
    """
    folder, choice = split_choice(path)
    if not folder.is_dir():
        return False
    first: ImageObject | None = None
    for file in filter(is_dicom, list_files(folder)[:_PROBED]):
        try:
            found = read_object(file)
        except DataError:  # reading the folder says what is wrong
            return True
        if found is not None and first is None:
            first = found
            if found.frames[0].place is None or len(found.frames) == 1 or choice is not None:
                return found.frames[0].place is not None
            if subfolders(folder):
                return False
        elif found is not None and first is not None and found.series != first.series:
            return False
    return first is not None


def find_deeper(folder: Path, levels: int = 4) -> Path | None:
    """Return the first folder below that holds a DICOM file, as archives nest patients, studies and series."""
    for place in subfolders(folder)[:_PROBED] if levels else []:
        if any(map(is_dicom, list_files(place)[:_PROBED])):
            return place
        found = find_deeper(place, levels - 1)
        if found is not None:
            return found
    return None


def list_parts(path: Path) -> list[Path]:
    """Return the files that an image consists of."""
    return sorted({plane.image.path for plane in _planes(path)})


def split_choice(path: Path) -> tuple[Path, str | None]:
    """Return the folder and the chosen series of ``FOLDER#SERIES``; a path that exists chooses none.

    >>> split_choice(Path("scans/case 1#4"))[1]
    '4'
    """
    name, mark, choice = path.name.rpartition("#")
    if mark and name and choice and not path.exists():
        return path.with_name(name), choice
    return path, None


# ---- series --------------------------------------------------------------------------------------------------


def list_files(folder: Path) -> list[Path]:
    """Return a folder's files by name, hidden ones apart."""
    try:
        found = sorted((p for p in folder.iterdir() if not p.name.startswith(".")), key=lambda p: os.fsencode(p.name))
    except OSError as error:
        raise fault(folder, f"cannot be listed ({error.strerror})", "a folder of slices", "Check its rights") from None
    files = [path for path in found if path.is_file()]
    if len(files) > _MOST_FILES:
        came = f"{len(files)} files in one folder"
        raise fault(folder, came, f"at most {_MOST_FILES}", "Put each series into a folder of its own")
    return files


def _is_slice_name(path: Path) -> bool:
    """Return whether a file that is no DICOM file was meant to be one: by its ending, or a name of numbers."""
    stem = path.name.lower()
    return stem.endswith(ENDINGS) or stem.replace(".", "").isdecimal()


def list_series(folder: Path) -> dict[str, list[ImageObject]]:
    """Return the image series in a folder by the words that choose them: 4, or 4.1 and 4.2 where numbers are equal.

    Raises:
        DataError: a file of the folder is damaged, or none is an image.
    """
    found: dict[tuple[int, str], list[ImageObject]] = {}
    others: set[str] = set()
    for path in list_files(folder):
        if not is_dicom(path):
            if _is_slice_name(path):
                came, mend = "this is no DICOM file, or a truncated one", "Copy the file again, or remove it"
                raise fault(path, came, "a DICOM file beside the others", mend)
            continue
        image = read_object(path)
        if image is not None:
            found.setdefault((image.number or 0, image.series), []).append(image)
        elif not found:
            others.add(describe_kind(path))
    if not found:
        came = "no DICOM image among the files" + (f" ({few(sorted(others))})" if others else "")
        raise fault(folder, came, "a series of images", "Give a folder with the slices of a scan")
    numbers = Counter(number for number, _ in found)
    seen: Counter[int] = Counter()
    named = {}
    for number, series in sorted(found):
        seen[number] += 1
        named[f"{number}" if numbers[number] == 1 else f"{number}.{seen[number]}"] = found[number, series]
    return named


def _planes(path: Path) -> list[_Plane]:
    """Return the planes of an image in the order in which they lie along the normal."""
    folder, choice = split_choice(path)
    if folder.is_dir():
        images = _choose(path, folder, choice)
    else:
        image = read_object(path)
        if image is None:
            came = f"a DICOM object that is no image: {describe_kind(path)}"
            raise fault(path, came, "the image of a scanner", "Give the file of an image")
        images = [image]
    return _sort(path, [_Plane(image, frame) for image in images for frame in image.frames])


def _choose(path: Path, folder: Path, choice: str | None) -> list[ImageObject]:
    series = list_series(folder)
    listed = ", ".join(f"#{name} ({_describe(images)})" for name, images in list(series.items())[:_LISTED])
    if choice is None and len(series) == 1:
        return next(iter(series.values()))
    first = next(iter(series))
    if choice is None:
        came = f"{len(series)} series: {listed}" + (", …" if len(series) > _LISTED else "")
        mend = f"Choose one, for example {shown(folder.name)}#{first}, or give each a folder of its own"
        raise fault(folder, came, "one series", mend)
    if choice not in series:
        mend = f"Choose one, for example {shown(folder.name)}#{first}"
        raise fault(path, f"there is no series {shown(choice)}", f"one of {listed}", mend)
    return series[choice]


def _describe(images: list[ImageObject]) -> str:
    count = plural(sum(len(image.frames) for image in images), "image")
    return f"{images[0].description or 'no description'}, {count}"


# ---- geometry ------------------------------------------------------------------------------------------------


def _sort(path: Path, planes: list[_Plane]) -> list[_Plane]:
    """Return the planes along their normal; DataError where they are no even stack."""
    first = planes[0]
    for plane in planes[1:]:
        if plane.image.form != first.image.form:
            came = f"{shown(plane.image.path.name)} has other sizes or types than {shown(first.image.path.name)}"
            raise fault(path, came, "slices of one kind", "Separate the series into folders")
    if len(planes) == 1:
        return planes
    places = [plane.frame.place for plane in planes if plane.frame.place is not None]
    if len(places) < len(planes):
        came = f"{plural(len(planes), 'frame')} without a place in space (a film, or pictures of several views)"
        mend = "Give each picture a file of its own"
        raise fault(path, came, "ImagePositionPatient, ImageOrientationPatient and PixelSpacing", mend)
    normal = _normal(path, planes, places)
    heights = np.array([normal @ place.position for place in places])
    order = np.argsort(heights, kind="stable")
    planes = [planes[i] for i in order]
    _check_even(path, planes, heights[order])
    _check_upright(path, places[order[0]], places[order[-1]], len(places))
    return planes


def _normal(path: Path, planes: list[_Plane], places: list[Place]) -> NDArray[np.float64]:
    """Return the direction across the planes; DataError unless they are parallel, with perpendicular axes."""
    first = places[0]
    lengths = np.linalg.norm(first.directions, axis=0)
    skew = abs(float(first.directions[:, 0] @ first.directions[:, 1]))
    if np.abs(lengths - 1).max() > 0.01 or skew > 0.01:
        came = f"ImageOrientationPatient is {first.directions.T.ravel().round(4).tolist()}"
        raise fault(path, came, "two perpendicular directions of length 1", "Write the orientation again")
    for plane, place in zip(planes, places, strict=True):
        if np.abs(place.directions - first.directions).max() > _SAME_DIRECTION:
            came = f"slices of different orientations ({_name(planes[0])} and {_name(plane)})"
            raise fault(path, came, "parallel slices", "Separate the stacks (such as a localiser) into folders")
        if not np.allclose(place.spacing_mm, first.spacing_mm, rtol=1e-3):
            came = f"PixelSpacing is {place.spacing_mm} in {_name(plane)} and {first.spacing_mm} in {_name(planes[0])}"
            raise fault(path, came, "one spacing", "Separate the series into folders")
    normal: NDArray[np.float64] = np.cross(first.directions[:, 0], first.directions[:, 1])
    return normal


def _check_even(path: Path, planes: list[_Plane], heights: NDArray[np.float64]) -> None:
    steps = np.diff(heights)
    usual = float(np.median(steps))
    double = np.flatnonzero(steps < 0.01 * max(usual, 1e-3))
    if double.size:
        pair = f"{_name(planes[double[0]])} and {_name(planes[double[0] + 1])}"
        came = f"{plural(double.size, 'slice lies', 'slices lie')} where another does ({pair})"
        mend = "Separate time points, echoes or repetitions into folders, or remove the copies"
        raise fault(path, came, "one slice at every place", mend)
    even = heights[0] + (heights[-1] - heights[0]) * np.arange(len(heights)) / (len(heights) - 1)
    if (np.abs(heights - even) > _MOST_UNEVEN * usual).any():
        gap = int(np.argmax(steps))
        place = f"between {_name(planes[gap])} and {_name(planes[gap + 1])}"
        missing = round(float(steps[gap]) / usual) - 1
        whole = missing >= 1 and np.allclose(steps / usual, np.round(steps / usual), atol=2 * _MOST_UNEVEN)
        if whole:
            count = int(np.round(steps / usual).sum()) - len(steps)
            came = f"{plural(count, 'slice is', 'slices are')} missing, the first {place} ({steps[gap]:.4g} mm apart)"
        else:
            came = f"slices are {steps.min():.4g} to {steps.max():.4g} mm apart (the most {place})"
        mend = "Copy the missing files, or resample the series to even slices with another program"
        raise fault(path, came, f"the same distance everywhere ({usual:.4g} mm)", mend)


def _check_upright(path: Path, first: Place, last: Place, count: int) -> None:
    step = (last.position - first.position) / (count - 1)
    shift = float(np.abs(first.directions.T @ step).max())
    if shift > _MOST_TILT * np.linalg.norm(step):
        came = f"slices are shifted by {shift:.3g} mm against their neighbours (a tilted gantry)"
        mend = "Resample the series to upright slices with another program (dcm2niix does)"
        raise fault(path, came, "slices above each other", mend)


def _name(plane: _Plane) -> str:
    where = shown(plane.image.path.name)
    return where if len(plane.image.frames) == 1 else f"frame {plane.frame.index + 1} of {where}"


def _header(path: Path, planes: list[_Plane]) -> Header:
    image, first, last = planes[0].image, planes[0].frame, planes[-1].frame
    colour = image.samples == 3 or image.photometric == "PALETTE COLOR"
    channels = 3 if colour else 1
    if not colour and image.photometric not in ("MONOCHROME1", "MONOCHROME2"):
        came = f"PhotometricInterpretation {shown(image.photometric)[:32]} with one sample a pixel"
        raise fault(path, came, "MONOCHROME1, MONOCHROME2 or colours", "Convert the image")
    origin = SeriesOrigin(tuple((plane.image.path, plane.frame.index) for plane in planes))
    note = "MONOCHROME1, whose high values are dark, is inverted" if image.photometric == "MONOCHROME1" else ""
    place, end = first.place, last.place
    if len(planes) == 1 or place is None or end is None:  # several planes have places, or _sort refuses
        return Header((image.rows, image.columns), channels, first.spacing_mm, colour=colour, note=note, origin=origin)
    down, across = place.spacing_mm  # between rows, between columns
    step = (end.position - place.position) / (len(planes) - 1)
    steps = np.column_stack([place.directions[:, 0] * across, place.directions[:, 1] * down, step])
    affine = patient_affine(path, steps, place.position)
    spacing = (across, down, float(np.linalg.norm(step)))
    return Header(
        (image.columns, image.rows, len(planes)), channels, spacing, affine, colour=colour, note=note, origin=origin
    )
