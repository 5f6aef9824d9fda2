"""HDF5 files: the names of their data sets, and one of them read after its claims were checked.

A data set is found by hard links alone; soft and external links, virtual data sets and data in other files are
refused, since they would read what another file holds. Chunks are taken as stored and unpacked here: the HDF5 library
inflates a chunk to whatever its content says. gzip, LZF, shuffle and Fletcher's checksum are known, as h5py and MATLAB
write them. Attributes are not read.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from convoxel.data.numpy_file import Claims
from convoxel.errors import DataError, UnsupportedError
from convoxel.files.fault import fault, shown
from convoxel.files.memory import check_memory
from convoxel.files.stream import check_ratio, file_size, inflate_chunk
from convoxel.files.values import Array

_DEFLATE, _SHUFFLE, _FLETCHER, _LZF = 1, 2, 3, 32000
_FILTERS = {_DEFLATE: "gzip", _SHUFFLE: "shuffle", _FLETCHER: "fletcher32", _LZF: "lzf"}
_SLACK = 1024  # bytes by which a stored chunk may exceed what it unpacks to
_COPY = "Copy the file again from its source"
_AGAIN = "Write it again with h5py from an array of numbers"


def _h5py() -> ModuleType:
    try:
        import h5py
    except ImportError as error:
        raise UnsupportedError("HDF5 files need h5py: pip install 'convoxel[formats]'.") from error
    module: ModuleType = h5py
    return module


def _imagecodecs() -> ModuleType:
    try:
        import imagecodecs
    except ImportError as error:
        text = "HDF5 data sets with LZF or checksums need imagecodecs: pip install 'convoxel[formats]'."
        raise UnsupportedError(text) from error
    module: ModuleType = imagecodecs
    return module


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[HDF5File]:
    """Open an HDF5 file to read its data sets; whatever the library finds wrong in the block is a DataError."""
    file_size(path)
    h5py = _h5py()
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            yield HDF5File(path, file)
    except (DataError, UnsupportedError):
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:  # h5py's, of damaged content
        text = str(error).replace("\n", " ")
        raise fault(path, f"this cannot be read as HDF5 ({text})", "a whole HDF5 file", _COPY) from None


def read_dataset(path: Path, name: str) -> Array:
    """Return one data set of an HDF5 file, as stored; see ``HDF5File.read``."""
    with open_hdf5(path) as file:
        return file.read(name)


class HDF5File:
    """An open HDF5 file. Names are paths from the root, with or without the slash before them."""

    def __init__(self, path: Path, file: Any) -> None:
        self.path = path
        self._file = file

    def names(self) -> tuple[str, ...]:
        """Return the names of all data sets that hard links reach, in the file's order; none of them is opened."""
        h5o = _h5py().h5o
        found: list[str] = []

        def note(name: bytes, info: Any) -> None:
            if info.type == h5o.TYPE_DATASET:
                found.append(name.decode("utf-8", "surrogateescape"))

        h5o.visit(self._file.id, note, info=True)  # every object once, whatever circles the links make
        return tuple(found)

    def claims(self, name: str) -> Claims:
        """Return shape and type of a data set; the shape of a single number is ().

        Raises:
            DataError: there is no such data set, a link leads to it, it lies in other files, its values are no numbers
                of at most 64 bits, its filters are unknown, or it is larger than its stored bytes allow.
        """
        found = self._open(name)
        return found.shape, found.dtype

    def note(self, name: str) -> str:
        """Return in words that values of a data set were never written; "" where all were."""
        found = self._open(name)
        there = found.stored.get_storage_size() > 0
        if found.chunk is not None:
            count = math.prod(-(-size // step) for size, step in zip(found.shape, found.chunk, strict=True))
            there = found.stored.get_num_chunks() == count
        return "" if there else f"chunks that are not there are taken for the fill value {found.fill().item():g}"

    def read(self, name: str) -> Array:
        """Return a data set as stored, after its claims were checked; errors as of ``claims``."""
        found = self._open(name)
        check_memory(found.where, math.prod(found.shape) * (found.dtype.itemsize + 4))
        if found.chunk is None:
            array: Array = np.empty(found.shape, found.dtype)
            if array.size:
                found.stored.read(_h5py().h5s.ALL, _h5py().h5s.ALL, array)
            return array
        array = np.full(found.shape, found.fill(), found.dtype)
        for corner in itertools.product(
            *(range(0, size, step) for size, step in zip(found.shape, found.chunk, strict=True))
        ):
            block = found.read_chunk(corner)
            if block is not None:
                place = tuple(slice(c, c + n) for c, n in zip(corner, found.chunk, strict=True))
                part = array[place]
                part[...] = block[tuple(slice(0, n) for n in part.shape)]
        return array

    def map(self, name: str) -> Array | None:
        """Return a data set that stays in the file, or None where it is stored in chunks or not at all."""
        found = self._open(name)
        written = found.stored.get_storage_size() > 0  # otherwise there is no offset, whatever the library says
        offset = found.stored.get_offset() if found.chunk is None and written else None
        if offset is None or not found.shape or offset + found.size_bytes > file_size(self.path):
            return None
        return np.memmap(self.path, found.dtype, "r", offset, found.shape)

    def _open(self, name: str) -> _Dataset:
        """Return a data set whose claims are true, found by hard links from the root."""
        h5py = _h5py()
        where = f"{self.path}#/{name.strip('/')}"
        place = self._file.id
        for part in name.strip("/").split("/"):
            key = part.encode("utf-8", "surrogateescape")
            if (
                not isinstance(place, h5py.h5g.GroupID)
                or not key
                or key in (b".", b"..")
                or not place.links.exists(key)
            ):
                raise fault(where, "there is no such data set", self._some_names(), "Correct the path in the file")
            kind = place.links.get_info(key).type
            if kind == h5py.h5l.TYPE_SOFT:
                target = place.links.get_val(key).decode("utf-8", "surrogateescape")
                raise fault(where, "a soft link", "the data set itself", f"Name the place it leads to, {shown(target)}")
            if kind != h5py.h5l.TYPE_HARD:
                mend = "Copy the data into this file"
                raise fault(where, "a link to another file", "a data set in this file", mend)
            place = h5py.h5o.open(place, key)
        if not isinstance(place, h5py.h5d.DatasetID):
            raise fault(where, "this is a group", self._some_names(), "Name a data set in it")
        return _check_dataset(where, place, file_size(self.path))

    def _some_names(self) -> str:
        names = self.names()
        if not names:
            return "a file that holds data sets"
        return "one of " + ", ".join(f"/{shown(name)}" for name in names[:6]) + (", …" if len(names) > 6 else "")


@dataclass(frozen=True)
class _Dataset:
    """A data set whose claims were checked; ``filters`` are codes in the order of writing."""

    where: str
    stored: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk: tuple[int, ...] | None
    filters: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def fill(self) -> Any:
        """Return the value of what was never written."""
        value = np.zeros((), self.dtype)
        creation = self.stored.get_create_plist()
        if creation.fill_value_defined() != _h5py().h5d.FILL_VALUE_UNDEFINED:
            creation.get_fill_value(value)
        return value

    def read_chunk(self, corner: tuple[int, ...]) -> Array | None:
        """Return the chunk that begins at ``corner``, or None if it was never written."""
        assert self.chunk is not None
        size = self.stored.get_chunk_info_by_coord(corner).size
        if not size:
            return None
        most = math.prod(self.chunk) * self.dtype.itemsize
        if size > most + most // 16 + _SLACK:
            came = f"a chunk of {size} bytes that holds {most}"
            raise fault(self.where, came, "chunks no larger than what they hold", _AGAIN)
        skipped, content = self.stored.read_direct_chunk(corner)
        for number, code in reversed(list(enumerate(self.filters))):
            if not skipped >> number & 1:
                content = self._undo(code, content, most)
        if len(content) != most:
            came = f"the chunk at {corner} unpacks to {len(content)} bytes"
            raise fault(self.where, came, f"the {most} that it declares", _COPY)
        return np.frombuffer(content, self.dtype).reshape(self.chunk)

    def _undo(self, code: int, content: bytes, most: int) -> bytes:
        if code == _SHUFFLE:
            columns = np.frombuffer(content, np.uint8)
            whole = columns.size - columns.size % self.dtype.itemsize
            rows: Array = columns[:whole].reshape(self.dtype.itemsize, -1).T
            return rows.tobytes() + content[whole:]
        if code == _FLETCHER:
            content, stored = content[:-4], content[-4:]
            found = _imagecodecs().h5checksum_fletcher32(content)
            if found != int.from_bytes(stored, "little"):
                raise fault(self.where, "the checksum of a chunk does not match its content", "whole chunks", _COPY)
            return bytes(content)
        try:
            if code == _DEFLATE:
                return inflate_chunk(content, most + _SLACK)
            return bytes(_imagecodecs().lzf_decode(content, out=most + _SLACK))
        except Exception as error:  # zlib.error, and imagecodecs' own kinds
            raise fault(self.where, f"a chunk cannot be unpacked ({error})", "whole chunks", _COPY) from None


def _check_dataset(where: str, stored: Any, file_bytes: int) -> _Dataset:
    h5py = _h5py()
    creation = stored.get_create_plist()
    layout = creation.get_layout()
    if layout == h5py.h5d.VIRTUAL or creation.get_external_count():
        kind = "a virtual data set" if layout == h5py.h5d.VIRTUAL else "data stored in another file"
        raise fault(where, kind, "data in this file", "Copy the data into one data set")
    space = stored.get_space()
    if space.get_simple_extent_type() not in (h5py.h5s.SIMPLE, h5py.h5s.SCALAR):
        raise fault(where, "an empty data set", "an array of numbers", _AGAIN)
    shape = tuple(int(v) for v in space.get_simple_extent_dims())
    if 0 in shape:
        raise fault(where, f"shape {shape}", "sizes of at least 1", _AGAIN)
    dtype = _check_type(where, stored.get_type())
    size, stored_bytes = math.prod(shape) * dtype.itemsize, int(stored.get_storage_size())
    chunk = tuple(int(v) for v in creation.get_chunk()) if layout == h5py.h5d.CHUNKED else None
    if chunk is not None:
        if len(chunk) != len(shape) or min(chunk) < 1:
            raise fault(where, f"chunks of {chunk} in shape {shape}", "as many sizes, each at least 1", _COPY)
        count = math.prod(-(-n // step) for n, step in zip(shape, chunk, strict=True))
        size = count * math.prod(chunk) * dtype.itemsize  # chunks at the edge are stored whole
        if count > 1_000_000 + 64 * file_bytes:
            raise fault(where, f"{count} chunks in a file of {file_bytes} bytes", "far fewer", _AGAIN)
    elif stored_bytes and not size == stored_bytes <= file_bytes:
        came = f"the data set claims {size} bytes and stores {stored_bytes}, in a file of {file_bytes}"
        raise fault(where, came, "at least as many bytes as claimed", _COPY)
    check_ratio(where, max(min(stored_bytes, file_bytes), 1), size)
    return _Dataset(where, stored, shape, dtype, chunk, _check_filters(where, creation, dtype))


def _check_type(where: str, stored: Any) -> np.dtype[Any]:
    """Return NumPy's type of the stored numbers; it must be the same bit for bit, so that chunks need no conversion."""
    h5t = _h5py().h5t
    plain = stored.get_super() if isinstance(stored, h5t.TypeEnumID) else stored
    try:
        dtype = np.dtype(stored.dtype)
        same = dtype.kind in "buif" and dtype.itemsize <= 8
        same = same and (dtype.kind == "b" or bool(plain.equal(h5t.py_create(np.dtype(dtype.str)))))
    except TypeError:  # a type that NumPy does not have
        dtype, same = np.dtype("V"), False
    if not same:
        name = dtype if dtype.kind != "V" else "that NumPy does not have"
        raise fault(where, f"values of type {name}", "whole or real numbers of at most 64 bits", _AGAIN)
    bare: np.dtype[Any] = np.dtype(dtype.str)  # without h5py's remarks
    return bare


def _check_filters(where: str, creation: Any, dtype: np.dtype[Any]) -> tuple[int, ...]:
    found: list[int] = []
    for position in range(creation.get_nfilters()):
        code, _, values, name = creation.get_filter(position)
        if code not in _FILTERS or code in found or (code == _SHUFFLE and values[:1] != (dtype.itemsize,)):
            came = f"the filter {shown(name.decode('utf-8', 'replace'))} ({code})" + (" twice" if code in found else "")
            expected = f"at most one each of {', '.join(_FILTERS.values())}"
            raise fault(where, came, expected, "Write it again with compression='gzip'")
        found.append(int(code))
    return tuple(found)
