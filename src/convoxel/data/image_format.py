"""Formats of image files: the table that readers, writers and listings go through.

A format is a row of functions that its own module defines; nothing outside the table asks which format a file has.
Readers give the file's own grid: nothing is reoriented or resampled. What a file claims is checked in its module before
memory is asked for. A package that only some formats need is imported inside those functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convoxel.data import (
    dicom_image,
    dicom_segmentation,
    dicom_series,
    edf,
    hdf5_image,
    meta_image,
    nifti,
    nrrd,
    numpy_image,
    picture,
    table_signal,
    tiff,
    zarr_image,
)
from convoxel.data.dicom_file import is_dicom
from convoxel.data.image_header import Header
from convoxel.data.mapped_image import MappedImage
from convoxel.data.voxel_layout import LayoutReader
from convoxel.data.zarr_array import is_zarr
from convoxel.files.fault import fault
from convoxel.files.values import Array


@dataclass(frozen=True)
class ImageFormat:
    """One format of images.

    Attributes:
        name: name of the format for people.
        endings: endings of its files' (or folders') names, in small letters.
        read_header: path → checked header.
        read_values: path, and whether the image is a label → header and values (channels, *shape), C-contiguous:
            float32 for images, the values as written for labels.
        map_values: path → header and values that stay in the file, or None where this file is compressed (default:
            None, the format cannot).
        pack: path (for messages), values (channels, *shape), the header that they should get, and whether they are
            class numbers → bytes of the file, whole or in pieces (default: None, the format is not written).
        streams: whether ``pack`` takes values in a file, which it writes part by part (default False).
        holds: whether a folder, or a name that leads into one, is one image of this format (default: None, its images
            are files).
        read_on: path of a label, and its image's header → header and class numbers (1, *shape) on the image's grid, or
            None for a file that has a grid of its own (default: None, every file has).
        parts: path → the files that the image consists of (default: None, the path itself is all).
        label_ending: ending of label maps that are predicted from such an image (default "": by the number of axes).
        at_rate: path of a signal, and a rate in Hz → the path that names it at that rate (default: None, signals of
            this format have the rate that they have).
        extra: extra of this package that installs what the format needs (default "": nothing is needed).
    """

    name: str
    endings: tuple[str, ...]
    read_header: Callable[[Path], Header]
    read_values: Callable[[Path, bool], tuple[Header, Array]]
    map_values: Callable[[Path], tuple[Header, MappedImage] | None] | None = None
    pack: Callable[[Path, Any, Header, bool], bytes | Iterator[bytes]] | None = None
    holds: Callable[[Path], bool] | None = None
    read_on: Callable[[Path, Header], tuple[Header, Array] | None] | None = None
    parts: Callable[[Path], list[Path]] | None = None
    streams: bool = False
    label_ending: str = ""
    at_rate: Callable[[Path, float], Path] | None = None
    extra: str = ""


#: Endings of tables, which are signals in a folder that holds no other image, and notes beside images.
TABLES = (".csv", ".tsv")

_META, _NRRD = LayoutReader(meta_image.read_layout), LayoutReader(nrrd.read_layout)

#: The formats in the order in which they are asked; the longest ending that fits a name decides.
FORMATS = (
    ImageFormat(
        "NIfTI",
        (".nii.gz", ".nii"),
        nifti.read_header,
        nifti.read_values,
        nifti.map_voxels,
        nifti.pack,
        streams=True,
        label_ending=".nii.gz",
        extra="train",
    ),
    ImageFormat(
        "MetaImage",
        (".mha",),
        _META.read_header,
        _META.read_values,
        _META.map_values,
        meta_image.pack,
        label_ending=".mha",
    ),
    ImageFormat(
        "MetaImage header",
        (".mhd",),
        _META.read_header,
        _META.read_values,
        _META.map_values,
        parts=_META.list_parts,
        label_ending=".mha",
    ),
    ImageFormat(
        "NRRD", (".nrrd",), _NRRD.read_header, _NRRD.read_values, _NRRD.map_values, nrrd.pack, label_ending=".nrrd"
    ),
    ImageFormat(
        "NRRD header",
        (".nhdr",),
        _NRRD.read_header,
        _NRRD.read_values,
        _NRRD.map_values,
        parts=_NRRD.list_parts,
        label_ending=".nrrd",
    ),
    ImageFormat(
        "DICOM",
        dicom_series.ENDINGS,
        dicom_image.read_header,
        dicom_image.read_values,
        dicom_image.map_values,
        holds=dicom_image.holds_image,
        parts=dicom_image.list_parts,
        read_on=dicom_image.read_on,
        extra="formats",
    ),
    ImageFormat(
        "DICOM segmentation",
        (".seg.dcm",),
        dicom_image.read_header,
        dicom_image.read_values,
        pack=dicom_segmentation.pack,
        read_on=dicom_image.read_on,
        extra="formats",
    ),
    # The content tells pictures apart: a JPEG named .png is read, and so is a TIFF.
    ImageFormat("PNG", (".png",), tiff.read_header, tiff.read_values, tiff.map_values, picture.pack, extra="train"),
    ImageFormat("JPEG", (".jpg", ".jpeg"), tiff.read_header, tiff.read_values, tiff.map_values, extra="train"),
    ImageFormat(
        "TIFF", (".tif", ".tiff"), tiff.read_header, tiff.read_values, tiff.map_values, tiff.pack, extra="train"
    ),
    ImageFormat(
        "NumPy array",
        (".npy",),
        numpy_image.read_header,
        numpy_image.read_values,
        numpy_image.map_values,
        numpy_image.pack,
    ),
    ImageFormat(
        "Zarr",
        (".zarr",),
        zarr_image.read_header,
        zarr_image.read_values,
        zarr_image.map_values,
        holds=is_zarr,
        parts=zarr_image.list_parts,
        extra="formats",
    ),
    ImageFormat(
        "HDF5",
        hdf5_image.ENDINGS,
        hdf5_image.read_header,
        hdf5_image.read_values,
        hdf5_image.map_values,
        holds=hdf5_image.names_dataset,
        parts=hdf5_image.list_parts,
        extra="formats",
    ),
    ImageFormat(
        "EDF",
        (".edf", ".bdf"),
        edf.read_header,
        edf.read_values,
        holds=edf.names_rate,
        parts=edf.list_parts,
        at_rate=edf.at_rate,
    ),
    ImageFormat("Table", TABLES, table_signal.read_header, table_signal.read_values),
    ImageFormat("NumPy archive", (".npz",), numpy_image.read_header, numpy_image.read_values),
)


_DICOM = next(row for row in FORMATS if row.name == "DICOM")


def endings(*, written: bool = False) -> tuple[str, ...]:
    """Return the endings of all formats, or of those alone that can be written."""
    return tuple(ending for row in FORMATS if row.pack or not written for ending in row.endings)


def split_ending(path: Path) -> tuple[str, str]:
    """Return (stem, ending) of an image's name; the ending is "" where no format is known.

    >>> split_ending(Path("a/case.1.nii.gz")), split_ending(Path("a/scan.h5#/entry/data"))
    (('case.1', '.nii.gz'), ('scan_entry_data', '.h5'))
    """
    place, inner = hdf5_image.split_place(path)
    if inner:
        return "_".join([place.stem, *inner.strip("/").split("/")]), place.suffix.lower()
    path = edf.split_rate(path)[0]
    name = path.name.lower()
    fits = [ending for ending in endings() if name.endswith(ending) and len(name) > len(ending)]
    ending = max(fits, key=len, default="")
    return path.name[: len(path.name) - len(ending)], ending


def named_format(path: Path) -> ImageFormat | None:
    """Return the format that a name's ending tells, or None; the file need not exist."""
    ending = split_ending(path)[1]
    return next((row for row in FORMATS if ending in row.endings), None)


def find_format(path: Path) -> ImageFormat | None:
    """Return the format of a file by its ending, that of a folder which is one image, or None.

    A file whose name has no known ending is DICOM's where its content says so: scanners and archives name files by
    numbers.
    """
    if not path.is_file():
        held = next((row for row in FORMATS if row.holds is not None and row.holds(path)), None)
        if held is not None or path.is_dir():
            return held
    named = named_format(path)
    return _DICOM if named is None and is_dicom(path) else named


def image_format(path: Path) -> ImageFormat:
    """Return the format of a file or folder; DataError where none is known."""
    found = find_format(path)
    if found is None:
        if not path.exists():
            raise fault(path, "there is no such file or folder", "an image", "Check the path")
        came = "this is a folder, and no image" if path.is_dir() else "no image format is known by this ending"
        raise fault(path, came, expected_endings(), "Convert the image")
    return found


def at_rate(path: Path, rate: float | None) -> Path:
    """Return the path that names a signal at a rate in Hz; other images, and all for None, keep theirs."""
    found = None if rate is None else find_format(path)
    return path if found is None or found.at_rate is None or rate is None else found.at_rate(path, rate)


def image_parts(path: Path) -> list[Path]:
    """Return the files that an image consists of: itself, and those that its header names or its folder holds."""
    found = find_format(path)
    return [path] if found is None or found.parts is None else found.parts(path)


def expected_endings(*, written: bool = False) -> str:
    """Return in words which names an image file may have."""
    return "a name ending in " + ", ".join(endings(written=written))
