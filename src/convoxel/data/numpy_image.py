"""Single images in NumPy files: a .npy file, or the one array (or the one named ``image``) of a .npz file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from convoxel.data.image_header import Header
from convoxel.data.mapped_image import MappedImage
from convoxel.data.numpy_file import Claims, array_claims, open_archive, read_array, read_member
from convoxel.files.fault import fault
from convoxel.files.file_array import FileArray
from convoxel.files.values import Array


def read_header(path: Path) -> Header:
    """Return the header of an array, whose axes are still to be told (see ``axes``)."""
    return array_header(*_claims(path))


def array_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Header:
    """Return the header of an array in a file that does not name its axes."""
    return Header(shape, 1, stored=(shape, dtype))


def read_values(path: Path, label: bool) -> tuple[Header, Array]:
    """Return header and values (1, *stored shape): float32, or as stored for a label."""
    header = read_header(path)
    values = read_member(path, _only(path)) if _is_archive(path) else read_array(path)
    with np.errstate(all="ignore"):
        return header, values[None].astype(values.dtype if label else np.float32)


def map_values(path: Path) -> tuple[Header, MappedImage] | None:
    """Return header and values of a .npy file, left in the file."""
    header = read_header(path)
    return header, MappedImage(FileArray.of(np.load(path, mmap_mode="r", allow_pickle=False)[None]))


def pack(path: Path, values: Array, header: Header, label: bool) -> bytes:
    """Return the bytes of a .npy file: (*spatial) for a label, (channels, *spatial) for an image."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(values[0] if label else values), allow_pickle=False)
    return stream.getvalue()


def _is_archive(path: Path) -> bool:
    return path.name.lower().endswith(".npz")


def _claims(path: Path) -> Claims:
    return open_archive(path)[_only(path)] if _is_archive(path) else array_claims(path)


def _only(path: Path) -> str:
    """Return the name of the one array, or of the one called ``image``, in a .npz file."""
    names = sorted(open_archive(path))
    if len(names) == 1 or "image" in names:
        return "image" if "image" in names else names[0]
    came = f"{len(names)} arrays ({', '.join(names[:4])}, …)"
    mend = "Save one image a file; a whole data set in one .npz is given to load()"
    raise fault(path, came, "one array, or one named 'image'", mend)
