"""Image files as samples: the ending of the name tells the format, the content is checked."""

from __future__ import annotations

import functools
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from convoxel.data.data_set import Sample
from convoxel.data.dicom_series import find_deeper
from convoxel.data.image_format import TABLES, expected_endings, find_format, image_format, image_parts, split_ending
from convoxel.data.image_header import Header, check_dims, fit_channels, with_axes
from convoxel.errors import DataError
from convoxel.files.fault import ErrorCollector, fault, plural, shown
from convoxel.files.file_array import FileArray
from convoxel.files.values import Array

# Files that people and systems leave in image folders; anything else that is no image is reported.
_CLUTTER = {
    ".txt",
    ".md",
    ".json",
    ".jsonl",
    ".csv",
    ".tsv",
    ".xml",
    ".html",
    ".yaml",
    ".yml",
    ".db",
    ".ini",
    ".log",
    ".pdf",
}


def is_clutter(path: Path) -> bool:
    """Return True for hidden files and the usual notes beside images, which are ignored."""
    return path.name.startswith(".") or path.suffix.lower() in _CLUTTER


def list_images(folder: Path, errors: ErrorCollector | None = None) -> list[Path]:
    """Return a folder's images sorted by name: files, and folders that are one image.

    Tables (.csv, .tsv) are signals where the folder holds no other image, and notes where it does. Anything else,
    except clutter, is reported to ``errors``; without ``errors`` the first one raises a DataError.
    """
    errors = errors or ErrorCollector()
    try:
        found = sorted(folder.iterdir(), key=lambda p: os.fsencode(p.name))
    except OSError as error:
        raise fault(folder, f"cannot be listed ({error.strerror})", "a folder of images", "Check the path") from None
    images = []
    companions = _companions(found)
    signals = not any(find_format(path) is not None for path in found if not is_clutter(path))
    for path in found:
        if (is_clutter(path) and not (signals and _is_table(path))) or path in companions:
            continue
        if find_format(path) is not None:
            images.append(path)
            continue
        deeper = find_deeper(path) if path.is_dir() else None
        if deeper is not None:
            came = f"a folder whose DICOM files lie deeper, in {shown(deeper.relative_to(folder).as_posix())}"
            mend = "Move them up, or name that folder in labels.csv (columns file and label)"
            errors.note(path.name, fault(path, came, "the slices of one series in each folder", mend))
            continue
        came = "a folder among the images" if path.is_dir() else "no image format is known by this ending"
        errors.note(path.name, fault(path, came, expected_endings(), "Convert it, or move it out of the folder"))
    return images


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in TABLES and not path.name.startswith(".")


def _companions(paths: list[Path]) -> set[Path]:
    """Return the files that belong to an image beside them; an image that cannot say which is reported elsewhere."""
    found: set[Path] = set()
    for path in (path for path in paths if not path.is_dir()):
        with suppress(DataError):
            found.update(part for part in image_parts(path) if part != path)
    return found


def read_header(path: Path) -> Header:
    """Return the checked header of an image of any known format.

    Where an array's sizes do not tell what its axes mean, that stays open until ``with_dims`` or ``agree``.
    """
    header = image_format(path).read_header(path)
    with suppress(DataError):
        return with_axes(path, header)
    return header


def read_stored(path: Path, *, label: bool = False) -> tuple[Header, Array]:
    """Return header and values (channels, *shape): float32 for images, as written for labels."""
    return image_format(path).read_values(path, label)


def with_dims(
    path: Path,
    header: Header,
    dims: int | None,
    channels: int | None = None,
    axes: str | None = None,
    grid: tuple[int, ...] | None = None,
) -> Header:
    """Return the header read as ``dims`` axes, which decides about NumPy arrays and flat volumes.

    Of arrays, whatever is known tells what the axes mean (see ``find_axes``, as for the arguments).
    """
    header = with_axes(path, header, axes, dims=dims, channels=channels, grid=grid)
    if dims is None or header.dims == dims:
        return header
    if header.affine is not None and header.dims < dims:
        extra = dims - header.dims
        spacing = (*(header.spacing_mm or (1.0,) * header.dims), *(1.0,) * extra)
        return replace(header, shape=(*header.shape, *(1,) * extra), spacing_mm=spacing)
    check_dims(path, header, dims)
    raise AssertionError("unreachable: check_dims refuses")


def shaped(header: Header, values: Array) -> Array:
    """Return values as read, (channels, *shape) of the file, as a view (channels, *shape) of ``header``."""
    if header.axes.endswith("C"):
        return np.moveaxis(values[0], -1, 0)
    return values.reshape(header.channels if header.axes else values.shape[0], *header.shape)


def map_image(
    path: str | os.PathLike[str], dims: int | None = None, channels: int | None = None, axes: str | None = None
) -> Sample:
    """Return one image file as a Sample whose values stay as stored, where the format allows it.

    ``image`` is then a ``MappedImage``, of which parts are read: of the file, of its chunks, or of what a compressed
    NIfTI, MetaImage or NRRD file, a DICOM series, or a large picture was decoded to. Any other image is read as a
    whole. Arguments and errors as of ``read_image``.
    """
    path = Path(path)
    mapped = image_format(path).map_values
    found = None if mapped is None else mapped(path)
    header = None if found is None else with_dims(path, found[0], dims, channels, axes)
    if found is not None and header is not None and header.axes.endswith("C"):
        arrayed = isinstance(found[1].stored, np.ndarray | FileArray)
        found = found if arrayed else None  # chunks have no view with another order
    if found is not None and header is not None:
        image = found[1].view(functools.partial(shaped, header))
        fits = fit_channels(path, header, channels) == header.channels
        if fits and image.is_finite():
            whole = cast(Array, image)
            return _sample(path, header, whole)
    return read_image(path, dims, channels, axes)  # also says which values are not finite


def read_image(
    path: str | os.PathLike[str], dims: int | None = None, channels: int | None = None, axes: str | None = None
) -> Sample:
    """Return one image file as a Sample without label.

    The claims of the file are checked before memory is allocated; its values must be finite.

    Args:
        path: image of a known format (``convoxel.data.image_format``): NIfTI, MetaImage, NRRD, DICOM, PNG, JPEG, TIFF,
            OME-Zarr (``a.zarr``, or ``a.zarr/1`` for its second level), HDF5 (``a.h5``, or ``a.h5#/group/data``),
            .npy, a .npz with one array, EDF, CSV.
        dims: number of spatial axes that the image must have (default: any).
        channels: number of channels that the image must have (default: any); 3 turns grey pictures into three equal
            channels.
        axes: what the axes of a NumPy array mean, such as "CHW", "HWC" or "DHW" (default: as ``dims`` and ``channels``
            tell. Else an axis of size 1 that comes first or last holds channels, and a last one of 3 or 4 uint8 values;
            where no axis looks like channels, two are a picture and three a volume; anything else is refused).

    Returns:
        Sample with image float32 (channels, *spatial); affine 4×4 and spacing in mm if the format has them.

    Raises:
        DataError: the file is missing, damaged, false or of another rank or channel count.
    """
    path = Path(path)
    header, values = read_stored(path)
    header = with_dims(path, header, dims, channels, axes)
    values = np.ascontiguousarray(shaped(header, values))
    check_finite(path, values)
    wanted = fit_channels(path, header, channels)
    if wanted != header.channels:
        values = np.repeat(values, wanted, axis=0)
    return _sample(path, header, values)


def _sample(path: Path, header: Header, image: Array) -> Sample:
    place = (header.affine, header.spacing_mm)
    return Sample(split_ending(path)[0], image, None, *place, path, header.origin, header.oriented)


def check_finite(path: object, values: Array) -> None:
    """Raise DataError if there is NaN or infinity; the message says how many and where the first is."""
    if values.dtype.kind != "f":
        return
    with np.errstate(all="ignore"):
        if np.isfinite(values.sum(dtype=np.float64)):
            return  # a finite sum has finite terms
    wrong = ~np.isfinite(values)
    if wrong.any():
        count = int(wrong.sum())
        first = tuple(int(v) for v in np.unravel_index(int(wrong.argmax()), values.shape)[1:])
        came = f"{plural(count, 'value is', 'values are')} NaN or infinite (the first at {first})"
        mend = "Replace them (for example by the background's value) or leave the sample out"
        raise fault(path, came, "finite numbers", mend)
