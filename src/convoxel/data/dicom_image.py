"""DICOM by content: a series of slices, a file with an image, a segmentation; other objects are refused by name.

A folder is one image where it holds a series in space, and one label where its only DICOM file is a segmentation, as
archives store them.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from convoxel.data import dicom_segmentation, dicom_series
from convoxel.data.dicom_file import CONTOURS, SEGMENTATION, is_dicom, read_kind
from convoxel.data.image_header import Header
from convoxel.data.mapped_image import MappedImage
from convoxel.errors import DataError
from convoxel.files.fault import fault
from convoxel.files.values import Array


def read_header(path: Path) -> Header:
    """Return the checked header of a series, a picture or a segmentation."""
    found = find_segmentation(path)
    return dicom_series.read_header(path) if found is None else dicom_segmentation.read_header(found)


def read_values(path: Path, label: bool) -> tuple[Header, Array]:
    """Return header and values (channels, *shape): float32, or as stored for a label."""
    found = find_segmentation(path)
    return dicom_series.read_values(path, label) if found is None else dicom_segmentation.read_values(found, label)


def map_values(path: Path) -> tuple[Header, MappedImage] | None:
    """Return header and values that lie in a temporary file; None for few, and for a segmentation."""
    return dicom_series.map_values(path) if find_segmentation(path) is None else None


def read_on(path: Path, grid: Header) -> tuple[Header, Array] | None:
    """Return header and class numbers of a segmentation on an image's grid; None for what is none."""
    found = find_segmentation(path)
    return None if found is None else dicom_segmentation.read_on(found, grid)


def holds_image(path: Path) -> bool:
    """Return whether a folder, or ``FOLDER#NUMBER``, is one image: a series, or a segmentation alone."""
    if dicom_series.holds_series(path):
        return True
    try:
        return path.is_dir() and find_segmentation(path) is not None
    except DataError:  # reading the folder says what is wrong
        return True


def find_segmentation(path: Path) -> Path | None:
    """Return the segmentation that a path is, or that its folder holds alone; None where there is none.

    Raises:
        DataError: it is an object with neither pixels nor planes, such as contours.
    """
    if path.is_dir():
        alone = list(itertools.islice(filter(is_dicom, dicom_series.list_files(path)), 2))
        return find_segmentation(alone[0]) if len(alone) == 1 else None
    if not is_dicom(path):
        return None
    kind = read_kind(path)
    if kind == CONTOURS:
        came = "contours (RTSTRUCT), which have no voxels"
        raise fault(path, came, "a label map or a segmentation", "Convert them with another program (3D Slicer does)")
    return path if kind in SEGMENTATION else None


def list_parts(path: Path) -> list[Path]:
    """Return the files that an image consists of."""
    found = find_segmentation(path)
    return dicom_series.list_parts(path) if found is None else [found]
