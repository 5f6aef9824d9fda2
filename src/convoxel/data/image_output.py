"""Image and label files written whole or not at all; the ending of the name tells the format."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from convoxel.data.data_set import Sample
from convoxel.data.image_format import ImageFormat, expected_endings, named_format
from convoxel.data.image_header import Affine, Header, Spacing
from convoxel.errors import ConfigError
from convoxel.files.atomic import open_atomic
from convoxel.files.fault import brief, fault
from convoxel.files.file_array import FileArray
from convoxel.files.memory import check_memory
from convoxel.files.values import Array


def write_image(
    path: str | os.PathLike[str],
    array: Array,
    affine: Affine = None,
    spacing_mm: Spacing = None,
    like: Sample | None = None,
) -> Path:
    """Write an image (channels, *spatial) as NIfTI, PNG (values 0…255) or .npy and return the path.

    The file appears whole or not at all. NIfTI stores the geometry; channels become its fourth axis, and numbers other
    than integers of at most 32 bits and float32 are stored as float32.

    Args:
        path: file to write; its ending tells the format.
        array: values (channels, *spatial).
        affine: 4×4 matrix from voxel index to mm (default None: diagonal, from ``spacing_mm``).
        spacing_mm: distance between voxels along each axis in mm (default None: as the affine says).
        like: sample whose grid the file gets, in place of the two above (default None).

    Raises:
        DataError: the ending is unknown, the format cannot hold the array, or the disk is full.
        ConfigError: ``like`` has another grid, or comes with ``affine`` or ``spacing_mm``.
    """
    path, array = Path(path), np.asarray(array)
    written = _check(path, array, array.ndim - 1)
    return _write(path, array, written, _target(array, affine, spacing_mm, like), label=False)


def write_label(
    path: str | os.PathLike[str],
    array: Array | FileArray,
    affine: Affine = None,
    spacing_mm: Spacing = None,
    like: Sample | None = None,
    classes: Sequence[str] = (),
) -> Path:
    """Write class numbers (*spatial) as uint8 NIfTI, palette PNG or .npy and return the path.

    The file appears whole or not at all. NIfTI stores the geometry. A PNG shows each class in its own colour, and read
    as a label it gives the class numbers back.

    Args:
        path: file to write; its ending tells the format.
        array: class numbers (*spatial), 0…255; those in a file are written part by part.
        affine: 4×4 matrix from voxel index to mm (default None: diagonal, from ``spacing_mm``).
        spacing_mm: distance between voxels along each axis in mm (default None: as the affine says).
        like: sample whose grid the file gets, in place of the two above (default None).
        classes: names by class number, for formats that hold them (DICOM-SEG) (default none).

    Raises:
        DataError: as ``write_image``, or a value is no class number 0 … 255.
        ConfigError: as ``write_image``.
    """
    path, array = Path(path), array if isinstance(array, FileArray) else np.asarray(array)
    written = _check(path, array, array.ndim)
    if isinstance(array, FileArray):
        if not (written.streams and array.dtype == np.uint8):
            return write_label(path, np.asarray(array), affine, spacing_mm, like, classes)
        values = array.view(lambda label: label[None])
        header = replace(_target(values, affine, spacing_mm, like), classes=tuple(classes))
        return _write(path, values, written, header, label=True)
    whole = array.dtype.kind != "f" or bool((np.floor(array) == array).all())  # NaN is not equal to itself
    if not (whole and array.min() >= 0 and array.max() <= 255):
        came = f"label values {array.min():g} to {array.max():g}" + ("" if whole else ", not all whole")
        mend = "Give class numbers (the argmax over classes), not scores"
        raise fault(path, came, "class numbers 0, 1, … 255", mend)
    label = np.ascontiguousarray(array, np.uint8)[None]
    header = replace(_target(label, affine, spacing_mm, like), classes=tuple(classes))
    return _write(path, label, written, header, label=True)


def _check(path: Path, array: Array | FileArray, dims: int) -> ImageFormat:
    """Return the format that ``path`` should get; DataError where nothing can write it, or no image is given."""
    found = named_format(path)
    if found is None or found.pack is None:
        came = f"the ending is {path.suffix or 'missing'}"
        raise fault(path, came, expected_endings(written=True), "Name the file accordingly")
    if array.dtype.kind not in "biuf" or array.size == 0:
        came = f"an array of shape {array.shape} and type {array.dtype}"
        raise fault(path, came, "real or whole numbers, at least one", "Give the values as numbers")
    if not 1 <= dims <= 3:
        came = f"{dims} spatial axes (array of shape {array.shape})"
        raise fault(path, came, "1 to 3", "Write one image a file, volumes as .nii.gz or .npy")
    if isinstance(array, np.ndarray):
        check_memory(path, array.nbytes)  # a view may have more values than any memory, and is copied to be written
    return found


def _target(values: Array | FileArray, affine: Affine, spacing_mm: Spacing, like: Sample | None) -> Header:
    """Return the header of the file: the grid of ``like``, or the geometry given."""
    shape = values.shape[1:]
    if like is None:
        _check_geometry(len(shape), affine, spacing_mm)
        return Header(shape, values.shape[0], spacing_mm, affine)
    if affine is not None or spacing_mm is not None:
        raise ConfigError("like comes with affine or spacing_mm; expected one of them. Give like alone.")
    if like.image.shape[1:] != shape:
        raise ConfigError(
            f"like is an image of shape {like.image.shape[1:]} but the array has {shape}; expected the same grid. "
            "Give the sample that the array belongs to."
        )
    return Header(shape, values.shape[0], like.spacing_mm, like.affine, origin=like.origin)


def _check_geometry(axes: int, affine: Affine, spacing_mm: Spacing) -> None:
    """Raise ConfigError for what is no geometry of an image of so many spatial axes."""
    if affine is not None and (np.shape(affine) != (4, 4) or not np.isfinite(np.asarray(affine, float)).all()):
        raise ConfigError(f"affine is {brief(affine)}, but it must be a matrix of 4×4 finite numbers, or None.")
    if spacing_mm is not None and not (len(spacing_mm) == axes and all(0 < step < np.inf for step in spacing_mm)):
        raise ConfigError(f"spacing_mm is {brief(spacing_mm)}, but it must be {axes} numbers above 0, one an axis.")


def _write(path: Path, values: Array | FileArray, written: ImageFormat, header: Header, *, label: bool) -> Path:
    assert written.pack is not None
    content = written.pack(path, values, header, label)
    with open_atomic(path) as file:
        for piece in [content] if isinstance(content, bytes) else content:
            file.write(piece)
    return path
