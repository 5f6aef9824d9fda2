"""NumPy files (.npy, .npz): shape and type are checked before the array is read, never through pickle."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from convoxel.errors import DataError
from convoxel.files.fault import fault, shown
from convoxel.files.memory import check_memory
from convoxel.files.stream import check_inflation, file_size
from convoxel.files.values import Array

Claims = tuple[tuple[int, ...], "np.dtype[Any]"]  # shape and type, from a header

_MEND = "Save it again with numpy.save from an array of numbers"
_MEND_ARCHIVE = "Save it again with numpy.savez_compressed"
_MOST_MEMBERS = 4096
_MOST_TEXTS, _MOST_LETTERS = 65_536, 1024  # names of classes


def array_claims(path: Path) -> Claims:
    """Return shape and type that a .npy file declares, checked against the file's size."""
    size = file_size(path)
    try:
        with path.open("rb") as file:
            shape, dtype, end = _parse(path, file)
    except OSError as error:
        raise fault(path, f"cannot be read ({error.strerror})", "a readable file", "Check its rights") from None
    if end > size:
        came = f"the header claims {end} bytes {shape} but the file has {size}"
        mend = "The file is truncated or its header is false"
        raise fault(path, came, "at least as many bytes as claimed", mend)
    return shape, dtype


def read_array(path: Path) -> Array:
    """Return the array of a .npy file after its header was checked."""
    shape, dtype = array_claims(path)
    check_memory(path, math.prod(shape) * (dtype.itemsize + 4))
    try:
        array: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise fault(path, f"the array cannot be read ({error})", "a whole .npy file", _MEND) from None
    return array


def open_archive(path: Path) -> dict[str, Claims]:
    """Return name → (shape, type) of a .npz file's arrays; claims are checked, only headers inflated."""
    size = file_size(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > _MOST_MEMBERS or sum(m.compress_size for m in members) > size:
                raise fault(path, f"{len(members)} members, larger together than the file", "a plain .npz file", _MEND)
            arrays = [member for member in members if member.filename.endswith(".npy")]
            claims = {member.filename[:-4]: _member_claims(path, archive, member) for member in arrays}
            if len(claims) < len(arrays):
                raise fault(path, "two arrays of one name", "every name once", _MEND_ARCHIVE)
            check_inflation(path, size, sum(m.file_size for m in members))
    except DataError:
        raise
    except Exception as error:  # BadZipFile, zlib.error, UnicodeDecodeError of a name, …: all are faults of the file
        mend = "Copy it again, or save it again with numpy.savez_compressed"
        raise fault(path, f"this is not a readable .npz file ({error})", "a zip of .npy arrays", mend) from None
    if not claims:
        raise fault(path, "no array inside", "a zip of .npy arrays", _MEND_ARCHIVE)
    return claims


def read_member(path: Path, name: str) -> Array:
    """Return one array of a .npz file whose claims were checked by ``open_archive``."""
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo(name + ".npy")
            _, dtype = _member_claims(path, archive, member)
            check_memory(path, member.file_size // dtype.itemsize * (dtype.itemsize + 4))
            with archive.open(member) as file:
                array: Array = np.lib.format.read_array(file, allow_pickle=False)
                file.read(1)  # at its end the checksum is compared
                return array
    except DataError:
        raise
    except Exception as error:  # zlib.error, BadZipFile, ValueError, …: all are faults of the file
        came, mend = f"the array cannot be read ({error})", "Copy the file again from its source"
        raise fault(f"{path}[{name}]", came, "a whole array", mend) from None


def _member_claims(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Claims:
    where = f"{shown(path)}[{shown(member.filename)}]"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise fault(where, f"zip compression {member.compress_type}", "stored or deflated, as NumPy writes", _MEND)
    check_inflation(where, member.compress_size, member.file_size)
    with archive.open(member) as file:
        shape, dtype, end = _parse(where, file, text=member.filename == "classes.npy")
    if end != member.file_size:
        came = f"the header claims {end} bytes {shape} but the member has {member.file_size}"
        raise fault(where, came, "as many bytes as claimed", _MEND_ARCHIVE)
    return shape, dtype


def _parse(where: object, file: IO[bytes], *, text: bool = False) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return shape, type and end of the data from a .npy header; ``text`` allows strings too."""
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
    if dtype.kind == "U" and not (0 < dtype.itemsize <= 4 * _MOST_LETTERS and math.prod(shape) <= _MOST_TEXTS):
        came = f"{math.prod(shape)} texts of {dtype.itemsize // 4} letters"
        raise fault(
            where, came, f"at most {_MOST_TEXTS} texts of 1 to {_MOST_LETTERS} letters", "Give one name a class"
        )
    return tuple(int(v) for v in shape), dtype, file.tell() + math.prod(shape) * dtype.itemsize
