"""NumPy files (.npy, .npz): shape and type are checked before the array is read, never through pickle."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from convoxel.errors import DataError
from convoxel.files.fault import fault, shown
from convoxel.files.stream import check_inflation, file_size

__all__ = ["array_claims", "open_archive", "read_array", "read_member"]

_MEND = "Save it again with numpy.save from an array of numbers"
_MOST_MEMBERS = 4096


def array_claims(path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and type that a .npy file declares, checked against the file's size."""
    size = file_size(path)
    try:
        with path.open("rb") as file:
            shape, dtype, start = _parse(path, file)
    except OSError as error:
        raise fault(path, f"cannot be read ({error.strerror})", "a readable file", "Check its rights") from None
    declared = start + math.prod(shape) * dtype.itemsize
    if declared > size:
        raise fault(
            path,
            f"the header claims {declared} bytes {shape} but the file has {size}",
            "at least as many bytes as claimed",
            "The file is truncated or its header is false",
        )
    return shape, dtype


def read_array(path: Path) -> NDArray[Any]:
    """Return the array of a .npy file after its header was checked."""
    array_claims(path)
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise fault(path, f"the array cannot be read ({error})", "a whole .npy file", _MEND) from None
    return array


def open_archive(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Return name → (shape, type) of a .npz file's arrays; claims are checked, only headers inflated."""
    size = file_size(path)
    claims = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > _MOST_MEMBERS or sum(m.compress_size for m in members) > size:
                raise fault(path, f"{len(members)} members, larger together than the file", "a plain .npz file", _MEND)
            for member in members:
                if member.filename.endswith(".npy"):
                    claims[member.filename[:-4]] = _member_claims(path, archive, member)
            check_inflation(path, size, sum(m.file_size for m in members))
    except (
        zipfile.BadZipFile,
        OSError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        zipfile.LargeZipFile,
    ) as error:
        raise fault(
            path,
            f"this is not a readable .npz file ({error})",
            "a zip of .npy arrays",
            "Copy it again, or save it again with numpy.savez_compressed",
        ) from None
    if not claims:
        raise fault(path, "no array inside", "a zip of .npy arrays", "Save it again with numpy.savez_compressed")
    return claims


def read_member(path: Path, name: str) -> NDArray[Any]:
    """Return one array of a .npz file whose claims were checked by ``open_archive``."""
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo(name + ".npy")
            _member_claims(path, archive, member)
            with archive.open(member) as file:
                array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(file.read()), allow_pickle=False)
                return array
    except DataError:
        raise
    except Exception as error:  # zlib.error, BadZipFile, ValueError, … : all are faults of the file
        raise fault(
            f"{path}[{name}]",
            f"the array cannot be read ({error})",
            "a whole array",
            "Copy the file again from its source",
        ) from None


def _member_claims(
    path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo
) -> tuple[tuple[int, ...], np.dtype[Any]]:
    where = f"{shown(path)}[{shown(member.filename)}]"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise fault(where, f"zip compression {member.compress_type}", "stored or deflated, as NumPy writes", _MEND)
    check_inflation(where, member.compress_size, member.file_size)
    with archive.open(member) as file:
        shape, dtype, start = _parse(where, file, text=member.filename == "classes.npy")
    declared = start + math.prod(shape) * dtype.itemsize
    if declared != member.file_size:
        raise fault(
            where,
            f"the header claims {declared} bytes {shape} but the member has {member.file_size}",
            "as many bytes as claimed",
            "Save it again with numpy.savez_compressed",
        )
    return shape, dtype


def _parse(where: object, file: IO[bytes], *, text: bool = False) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return shape, type and start of the data from a .npy header; ``text`` allows strings too."""
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, _, dtype = read(file)
    except Exception as error:  # NumPy raises several kinds for a header that is no header
        raise fault(where, f"not a NumPy array ({error})", "a .npy header of version 1 or 2", _MEND) from None
    if not (dtype.kind in "buif" and dtype.itemsize <= 8) and not (text and dtype.kind == "U"):
        raise fault(where, f"values of type {dtype}", "whole or real numbers of at most 64 bits", _MEND)
    if not shape or min(shape) < 1:
        raise fault(where, f"shape {shape}", "sizes of at least 1", _MEND)
    return tuple(int(v) for v in shape), dtype, file.tell()
