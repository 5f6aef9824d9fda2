"""Safetensors files: written tensor by tensor, read so that large tensors stay in the file until the engine packs them.

A network's weights are most of its memory, and the engine keeps a packed copy of them. The file is therefore mapped:
pages come when they are read and go when they are packed, so that a loaded network holds its weights once.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from convoxel.errors import GraphError, UnsupportedError
from convoxel.files.mapping import FileMemory
from convoxel.files.source import Content
from convoxel.files.values import Array
from convoxel.fork import forks_wait

_TYPES = {"bool": "BOOL", "bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64"} | {
    f"{sign}int{bits}": f"{sign or 'i'}{bits}".upper() for sign in ("", "u") for bits in (8, 16, 32, 64)
}
Tensors = dict[str, Array]
_SMALLEST = 1 << 16  # bytes of a tensor that is worth a mapping
_LARGEST_HEADER = 100_000_000  # bytes; safetensors reads no longer one
# Where pages cannot be given back, tensors are copied.
_MAPS = hasattr(mmap, "MADV_DONTNEED")


def lay_out(tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> list[bytes | memoryview]:
    """Return the bytes of a safetensors file, in parts of which those of contiguous tensors are no copies.

    The file is the header's length in 8 bytes, the header (JSON, filled up with blanks to a multiple of 8 bytes), and
    the tensors' bytes in the header's order: those of the largest numbers first, so that all are aligned.

    Raises:
        UnsupportedError: the format has no such type.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0]))
    begin = 0
    for name, array in ordered:
        end = begin + array.nbytes
        header[name] = {"dtype": type_name(array, name), "shape": array.shape, "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    arrays = [np.ascontiguousarray(array).reshape(-1).view(np.uint8).data for _, array in ordered]
    return [len(text).to_bytes(8, "little"), text, *arrays]


def type_name(array: Array, name: str = "") -> str:
    """Return the type of an array as the format spells it; raises ``UnsupportedError`` if it has none."""
    if array.dtype.name not in _TYPES:
        raise UnsupportedError(f"save: constant {name} is {array.dtype}, which the format cannot hold")
    return _TYPES[array.dtype.name]


class _Tensors(Mapping[str, Array]):
    """Constants of a file, each handed out after a look at the file: its pages would be gone if somebody cut it off.

    What was handed out before is not protected: reading it ends the process, as with every map of a file.
    """

    def __init__(self, tensors: Mapping[str, Array], file: TensorFile) -> None:
        self._tensors, self._file = tensors, file

    def __getitem__(self, name: str) -> Array:
        self._file.check()
        return self._tensors[name]

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __reduce__(self) -> tuple[type[Tensors], tuple[Tensors]]:
        return dict, (dict(self),)  # copies and pickles hold the numbers, not the file


class TensorFile:
    """An open file, or its bytes: ``tensors`` by name, which nobody can write to, and ``metadata``.

    Raises:
        GraphError: the file cannot be read, or is none of safetensors'.
    """

    def __init__(self, source: Path | Content) -> None:
        self._path = path = source if isinstance(source, Path) else source.name
        self._memory: FileMemory | None = None
        self.metadata: dict[str, str] = {}
        try:
            if isinstance(source, Content):
                header, self.tensors = _parts_of(source.data)
                self.metadata.update(header)
                return
            # safetensors checks what the file says of its tensors before any of it is used here.
            with forks_wait(), safetensors.safe_open(source, framework="numpy") as file:
                self.metadata.update(file.metadata() or {})
                names = list(file.keys())
                mapped = self._map(source) if _MAPS else {}
                self.tensors = {n: mapped[n] if n in mapped else _frozen(file.get_tensor(n)) for n in names}
        except OSError as reason:
            raise GraphError(f"load: {path} cannot be read ({reason}); expected a .cvx file.") from None
        except Exception as reason:  # safetensors raises a kind of its own
            raise GraphError(
                f"load: {path} is broken or no saved program ({reason}); expected a file that program.save(…) wrote."
            ) from None

    @property
    def is_mapped(self) -> bool:
        """True if some tensors are parts of the file: it must stay as it is."""
        return self._memory is not None

    def give_back(self) -> None:
        """Give back the memory of the pages that were read; they are read again on the next access."""
        if self._memory is not None:
            self._memory.madvise(mmap.MADV_DONTNEED)

    def guard(self, tensors: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return tensors of the file such that asking for one raises ``GraphError`` if the file was written to."""
        return tensors if self._memory is None else _Tensors(tensors, self)

    def check(self) -> None:
        """Raise ``GraphError`` if the file was written to since it was opened; it may be replaced or deleted."""
        if self._memory is not None and _state(self._file) != self._opened:
            raise GraphError(
                f"load: {self._path} was overwritten while a program of it was in use; expected the file as it was, or "
                "a new one in its place. Load the program again."
            )

    def _map(self, path: Path) -> dict[str, Array]:
        """Return the large float32 tensors as parts of the mapped file."""
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
            large = {
                name: (entry["shape"], entry["data_offsets"][0])
                for name, entry in header.items()
                if entry.get("dtype") == "F32" and entry["data_offsets"][1] - entry["data_offsets"][0] >= _SMALLEST
            }
            # Numbers must lie at multiples of their size; files of other writers that put them elsewhere are copied.
            if not large or any((8 + length + begin) % 4 for _, begin in large.values()):
                return {}
            self._memory = FileMemory(stream.fileno(), 0, access=mmap.ACCESS_READ)
            self._file = os.dup(stream.fileno())
        weakref.finalize(self, os.close, self._file)
        self._opened = _state(self._file)
        return {
            name: np.frombuffer(self._memory, np.float32, int(np.prod(shape)), 8 + length + begin).reshape(shape)
            for name, (shape, begin) in large.items()
        }


def is_tensor_file(data: bytes) -> bool:
    """Return whether bytes begin as a file of safetensors does."""
    return data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= _LARGEST_HEADER


def _parts_of(data: bytes) -> tuple[dict[str, str], Tensors]:
    """Return the metadata and the tensors of a file's bytes, of which the tensors are parts.

    The header is checked as safetensors does, which itself would copy every tensor: they follow one another without
    gaps, and each has as many bytes as its type and shape say.

    Raises ``ValueError``, or whatever Python raises over a header that makes no sense.
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(_LARGEST_HEADER, len(data) - 8):
        raise ValueError(f"its header would have {length} bytes, and {max(len(data) - 8, 0)} follow")
    header = json.loads(data[8 : 8 + length].decode())
    metadata = header.pop("__metadata__", None) or {}
    if not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError("its metadata are not texts")
    tensors: Tensors = {}
    end, start = 0, 8 + length
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape, (begin, stop) = _numpy_type(entry["dtype"]), entry["shape"], entry["data_offsets"]
        if not all(type(number) is int and number >= 0 for number in (*shape, begin, stop)):
            raise ValueError(f"tensor {name} has shape {shape} at {begin} to {stop}")
        if begin != end or stop - begin != math.prod(shape) * dtype.itemsize or start + stop > len(data):
            raise ValueError(f"tensor {name} lies at {begin} to {stop}")
        array = np.ndarray(shape, dtype, data, start + begin) if stop > begin else np.empty(shape, dtype)
        tensors[name] = _frozen(array if array.flags.aligned else array.copy())
        end = stop
    if start + end != len(data):
        raise ValueError(f"{len(data) - start - end} bytes belong to no tensor")
    return metadata, tensors


def _numpy_type(word: str) -> np.dtype[Any]:
    return np.dtype(next(name for name, known in _TYPES.items() if known == word))


def _frozen(array: Array) -> Array:
    """Return the array after it and all that it is a part of were made read-only, so that the engine may share it."""
    part: Any = array
    while isinstance(part, np.ndarray):
        part.setflags(write=False)
        part = part.base
    return array


def _state(file: int) -> tuple[int, int]:
    now = os.fstat(file)
    return now.st_size, now.st_mtime_ns
