"""Arrays that stay in files: a part is read when it is asked for, and written when it is assigned.

Nothing is mapped into memory, so neither the process's pages nor its address space grow with the file, and a file that
is cut off meanwhile raises an error in place of a signal. ``new_array`` is for results: in memory where they are small,
else in a temporary file that has no name, so that a process which is killed leaves nothing.
"""

from __future__ import annotations

import itertools
import math
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from convoxel.errors import DataError
from convoxel.files.fault import fault
from convoxel.files.memory import check_memory
from convoxel.files.progress import tell_progress
from convoxel.files.stream import GZIP_WRAPPER, inflated_pieces
from convoxel.files.values import Array

#: Arrays of more bytes than this lie in a file, so that memory does not grow with the image. A prediction holds several
#: at a time: with 64 MiB each, a volume of 256³ voxels took more memory than one of 768³, whose arrays lay in files.
MOST_IN_MEMORY = 8 * 2**20
_SCRATCH = "a temporary file"
_SPAN = 4 * 2**20  # bytes that are read at a time
_GAP = 8 * 2**10  # what lies between rows no farther apart is read with them: a copy of it is faster than another call


class OpenFile:
    """A file that arrays share, closed when the last of them goes.

    Args:
        descriptor: of the file, which is closed with this object.
        name: its name for messages.
    """

    def __init__(self, descriptor: int, name: object) -> None:
        self._descriptor, self.name, self._lock = descriptor, name, threading.Lock()
        self._file = FileIO(descriptor, "r+" if name is _SCRATCH else "r", closefd=False)

    def __del__(self) -> None:
        os.close(self._descriptor)

    def read(self, begin: int, count: int) -> Array:
        """Return ``count`` bytes from byte ``begin`` on; DataError where the file has become shorter."""
        content = np.empty(count, np.uint8)
        rest = memoryview(content.data)
        try:
            with self._lock:
                self._file.seek(begin)
                while rest and (taken := self._file.readinto(rest)):
                    rest = rest[taken:]
        except OSError as error:
            came = f"cannot be read ({error.strerror or error})"
            raise fault(self.name, came, "a readable file", "Check the disk") from None
        if rest:
            came = f"it ends {len(rest)} bytes too early: it was cut off after it had been opened"
            raise fault(self.name, came, "a file that stays as it is", "Copy it again from its source")
        return content

    def write(self, begin: int, content: Array) -> None:
        """Write bytes from byte ``begin`` on; DataError where the disk is full."""
        rest = memoryview(content.data)
        try:
            with self._lock:
                self._file.seek(begin)
                while rest:
                    rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise _full(error, content.nbytes) from None


@dataclass(frozen=True)
class FileArray:
    """An array in a file. It has NumPy's strides, so views of it cost nothing.

    Attributes:
        file: the open file.
        dtype: type of the values, with their byte order.
        shape: sizes.
        strides: bytes from one index to the next, by axis.
        offset: byte of the first value.
    """

    file: OpenFile
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    @staticmethod
    def open(path: Path, dtype: np.dtype[Any], offset: int, count: int, opened: BinaryIO | None = None) -> FileArray:
        """Return the ``count`` values from byte ``offset`` on, to be read; ``opened`` is the file, if it is open."""
        try:
            flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
            descriptor = os.open(path, flags) if opened is None else os.dup(opened.fileno())
        except OSError as error:
            came = f"cannot be opened ({error.strerror or error})"
            raise fault(path, came, "a readable file", "Check the path and its rights") from None
        return FileArray(OpenFile(descriptor, path), dtype, (count,), (dtype.itemsize,), offset)

    @staticmethod
    def of(mapped: Array) -> FileArray:
        """Return the array that a ``np.memmap``, or a view of one, shows."""
        base: Any = mapped
        while isinstance(base.base, np.ndarray):
            base = base.base
        path = Path(base.filename)
        whole = FileArray.open(path, mapped.dtype, 0, 1)
        offset = base.offset + _address(mapped) - _address(base)
        return replace(whole, shape=mapped.shape, strides=mapped.strides, offset=offset)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return self.size * self.dtype.itemsize

    def view(self, change: Callable[[Array], Array]) -> FileArray:
        """Return what ``change``, which makes views of arrays (axes permuted, reversed, cut), makes of this one."""
        dummy = np.lib.stride_tricks.as_strided(np.empty(1, self.dtype), self.shape, self.strides, writeable=False)
        seen = change(dummy)
        offset = self.offset + _address(seen) - _address(dummy)
        return replace(self, shape=seen.shape, strides=seen.strides, offset=offset)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Return all values as an array in memory; DataError where they do not fit."""
        check_memory(self.file.name, self.nbytes)
        return self[:,].astype(dtype or self.dtype)

    def __getitem__(self, place: slice | tuple[slice, ...]) -> Array:
        part = self.view(lambda array: array[place])
        result: Array | None = None
        for box in part._boxes():
            block = part.view(lambda array, box=box: array[box])  # type: ignore[misc]
            values = block._strided(self.file.read(block._low, block._extent))
            if block.shape == part.shape:
                return values
            result = np.empty(part.shape, part.dtype) if result is None else result
            result[box] = values
        return np.empty(part.shape, part.dtype) if result is None else result

    def __setitem__(self, place: slice | tuple[slice, ...], values: Any) -> None:
        part = self.view(lambda array: array[place])
        values = np.broadcast_to(np.asarray(values, part.dtype), part.shape)
        for box in part._boxes():
            block = part.view(lambda array, box=box: array[box])  # type: ignore[misc]
            dense = block._extent == block.nbytes  # else what lies between the values is written again
            content = np.empty(block._extent, np.uint8) if dense else self.file.read(block._low, block._extent)
            block._strided(content)[...] = values[box]
            self.file.write(block._low, content)

    # ---- spans of bytes

    @property
    def _low(self) -> int:
        """Byte of the value that lies first in the file."""
        return self.offset + sum(min(0, (n - 1) * step) for n, step in zip(self.shape, self.strides, strict=True))

    @property
    def _extent(self) -> int:
        """Bytes from the first value in the file to the end of the last one."""
        far = sum((n - 1) * abs(step) for n, step in zip(self.shape, self.strides, strict=True))
        return far + self.dtype.itemsize

    def _boxes(self) -> Iterator[tuple[slice, ...]]:
        """Yield boxes that cover the array, each to be read or written in one piece."""
        if self.size == 0:
            return
        axes = sorted(range(self.ndim), key=lambda axis: -abs(self.strides[axis]))
        axes = [axis for axis in axes if self.shape[axis] > 1]
        inner, steps = self, [1] * self.ndim
        for axis in axes:
            stride = abs(self.strides[axis])
            if stride <= _SPAN and (stride <= _GAP or inner._extent <= 2 * inner.nbytes):
                steps = [max(side, 1) if axis in axes else 1 for axis, side in enumerate(inner.shape)]
                steps[axis] = max(1, _SPAN // stride)
                break
            first = (*(slice(None),) * axis, slice(0, 1))
            inner = inner.view(lambda array, first=first: array[first])  # type: ignore[misc]
        ranges = [range(0, side, step) for side, step in zip(self.shape, steps, strict=True)]
        for corner in itertools.product(*ranges):
            yield tuple(slice(c, c + step) for c, step in zip(corner, steps, strict=True))

    def _strided(self, content: Array) -> Array:
        """Return the values within the bytes of their span."""
        found: Array = np.ndarray(self.shape, self.dtype, content.data, self.offset - self._low, self.strides)
        return found


def lies_in_file(size_bytes: int) -> bool:
    """Return whether ``new_array`` puts an array of so many bytes into a file."""
    return size_bytes > MOST_IN_MEMORY


def new_array(shape: Sequence[int], dtype: Any, order: Sequence[int] | None = None) -> Array | FileArray:
    """Return an array of zeros: in memory up to ``MOST_IN_MEMORY`` bytes, else in a temporary file without a name.

    The file lies in the folder of temporary files (``TMPDIR``), and its room is taken at once, so that a full disk is
    found here.

    Args:
        shape: sizes.
        dtype: type of the values.
        order: axes from the one whose indices lie farthest apart in the file to the nearest (default: C order).

    Raises:
        DataError: the disk has no room.
    """
    dtype, axes = np.dtype(dtype), list(order or range(len(shape)))
    laid = [shape[axis] for axis in axes]
    if not lies_in_file(math.prod(shape) * dtype.itemsize):
        found: Array = np.zeros(laid, dtype).transpose(np.argsort(axes))
        return found
    steps = dict(zip(axes, _strides(dtype, laid), strict=True))
    file = OpenFile(open_scratch(math.prod(shape) * dtype.itemsize), _SCRATCH)
    return FileArray(file, dtype, tuple(shape), tuple(steps[axis] for axis in range(len(shape))), 0)


def inflate_array(
    path: Path,
    skipped: int,
    count: int,
    dtype: np.dtype[Any],
    file: BinaryIO | None = None,
    wrapper: int = GZIP_WRAPPER,
) -> Array | FileArray:
    """Return the ``count`` values that lie behind ``skipped`` bytes of a compressed stream, which ends with them.

    They are where ``new_array`` puts them; arguments otherwise, and errors, as of ``files.stream.inflate``.
    """
    found = new_array((count * dtype.itemsize,), np.uint8)
    done = -skipped
    for piece in inflated_pieces(path, skipped + found.size, whole=True, file=file, wrapper=wrapper):
        if done + len(piece) > 0:
            found[max(0, done) : done + len(piece)] = np.frombuffer(piece, np.uint8)[max(0, -done) :]
        done += len(piece)
        tell_progress(max(0, done), found.size)
    if isinstance(found, FileArray):
        return replace(found, dtype=dtype, shape=(count,), strides=(dtype.itemsize,))
    return found.view(dtype)


def open_scratch(count: int) -> int:
    """Return the descriptor of a temporary file of ``count`` zero bytes, without a name; DataError on a full disk."""
    if count > shutil.disk_usage(tempfile.gettempdir()).free:
        raise _full(None, count)
    try:
        with tempfile.TemporaryFile(buffering=0) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, count)
            else:
                file.truncate(count)
            return os.dup(file.fileno())
    except OSError as error:
        raise _full(error, count) from None


def _full(error: OSError | None, count: int) -> DataError:
    folder = tempfile.gettempdir()
    reason = (
        f" ({error.strerror or error})" if error else f", and {shutil.disk_usage(folder).free / 2**20:.0f} are free"
    )
    came = f"no room for {count / 2**20:.0f} MiB of temporary data{reason}"
    return fault(folder, came, "a disk with enough room", "Free some space, or set TMPDIR to a folder on another disk")


def _strides(dtype: np.dtype[Any], shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of C order."""
    return tuple(dtype.itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])
