"""Single images in HDF5 files: ``scan.h5``, or ``scan.h5#/entry/data`` where the file holds several data sets.

Without a name it is the only data set of one to four axes, or the one called ``image``. Axes mean what those of a
NumPy file do. Attributes are not read.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from convoxel.data.hdf5_file import HDF5File, open_hdf5
from convoxel.data.image_header import Header
from convoxel.data.mapped_image import MappedImage
from convoxel.data.numpy_image import array_header
from convoxel.files.fault import fault, shown
from convoxel.files.file_array import FileArray
from convoxel.files.values import Array

ENDINGS = (".h5", ".hdf5", ".hdf")


def split_place(path: Path) -> tuple[Path, str]:
    """Return the file, and the name of the data set in it; "" where the path names none.

    >>> split_place(Path("a/scan.h5#/entry/data"))
    (PosixPath('a/scan.h5'), '/entry/data')
    """
    found = re.fullmatch(r"(.*?\.(?:h5|hdf5|hdf))#(.+)", path.as_posix(), re.IGNORECASE | re.DOTALL)
    return (path, "") if found is None else (Path(found[1]), found[2])


def names_dataset(path: Path) -> bool:
    """Return True where a path names a data set in a file that exists."""
    place, name = split_place(path)
    return bool(name) and place.is_file()


def read_header(path: Path) -> Header:
    """Return the checked header of an image in an HDF5 file."""
    place, name = split_place(path)
    with open_hdf5(place) as file:
        name = name or _only(path, file)
        return replace(_header(path, file, name), note=file.note(name))


def read_values(path: Path, label: bool) -> tuple[Header, Array]:
    """Return header and values (channels, *shape): float32, or as stored for a label."""
    place, name = split_place(path)
    with open_hdf5(place) as file:
        name = name or _only(path, file)
        header, stored = _header(path, file, name), file.read(name)
    with np.errstate(all="ignore"):
        values = stored.reshape(header.channels, *header.shape)
        return header, np.ascontiguousarray(values, values.dtype if label else np.float32)


def map_values(path: Path) -> tuple[Header, MappedImage] | None:
    """Return header and values that stay in the file; None where they are stored in chunks."""
    place, name = split_place(path)
    with open_hdf5(place) as file:
        name = name or _only(path, file)
        header, stored = _header(path, file, name), file.map(name)
    return (
        None if stored is None else (header, MappedImage(FileArray.of(stored.reshape(header.channels, *header.shape))))
    )


def list_parts(path: Path) -> list[Path]:
    """Return the file that holds the image."""
    return [split_place(path)[0]]


def _header(path: Path, file: HDF5File, name: str) -> Header:
    shape, dtype = file.claims(name)
    if not shape:
        raise fault(path, f"/{shown(name.strip('/'))} is a single number", "an array", "Name an array in the file")
    return array_header(shape, dtype)


def _only(path: Path, file: HDF5File) -> str:
    names = file.names()
    if len(names) == 1 or "image" in names:
        return "image" if "image" in names else names[0]
    told = ", ".join(f"/{shown(name)}" for name in names[:4]) + (", …" if len(names) > 4 else "")
    mend = f"Name one of them, as {shown(path.name)}#{('/' + shown(names[0])) if names else '/NAME'}"
    raise fault(path, f"{len(names)} data sets ({told})", "one, or one named image", mend)
