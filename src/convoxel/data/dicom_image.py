"""DICOM by content: a folder of slices, a file with an image, a segmentation; other objects are refused by name."""

from __future__ import annotations

from pathlib import Path

from convoxel.data import dicom_segmentation, dicom_series
from convoxel.data.dicom_file import CONTOURS, SEGMENTATION, is_dicom, read_kind
from convoxel.data.image_header import Header
from convoxel.files.fault import fault
from convoxel.files.values import Array


def read_header(path: Path) -> Header:
    """Return the checked header of a series, a picture or a segmentation."""
    return dicom_segmentation.read_header(path) if is_segmentation(path) else dicom_series.read_header(path)


def read_values(path: Path, label: bool) -> tuple[Header, Array]:
    """Return header and values (channels, *shape): float32, or as stored for a label."""
    read = dicom_segmentation.read_values if is_segmentation(path) else dicom_series.read_values
    return read(path, label)


def read_on(path: Path, grid: Header) -> tuple[Header, Array] | None:
    """Return header and class numbers of a segmentation on an image's grid; None for a file that is none."""
    return dicom_segmentation.read_on(path, grid) if is_segmentation(path) else None


def is_segmentation(path: Path) -> bool:
    """Return whether a file holds a segmentation; DataError for contours, which are no label map."""
    if not path.is_file() or not is_dicom(path):
        return False
    kind = read_kind(path)
    if kind == CONTOURS:
        came = "contours (RTSTRUCT), which have no voxels"
        raise fault(path, came, "a label map or a segmentation", "Convert them with another program (3D Slicer does)")
    return kind in SEGMENTATION


def list_parts(path: Path) -> list[Path]:
    """Return the files that an image consists of."""
    return [path] if is_segmentation(path) else dicom_series.list_parts(path)
