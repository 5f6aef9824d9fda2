"""Sources and targets that a caller hands over: paths, bytes, and files that are open.

Open files are read to their end, from where they are, and written to from where they are; nobody closes them here.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from convoxel.errors import ConfigError, ConvoxelError
from convoxel.files.atomic import open_atomic
from convoxel.files.fault import brief, shown
from convoxel.files.folder import as_path
from convoxel.files.memory import check_memory

_FIRST_BYTES = 2**20  # of a stream that does not tell its length; then as many as have come


class Readable(Protocol):
    """A file that is open for reading in binary mode."""

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes, at most ``size``."""


class Writable(Protocol):
    """A file that is open for writing in binary mode."""

    def write(self, content: memoryview, /) -> object:
        """Write bytes and return how many were written."""


Source: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | Readable
Target: TypeAlias = str | os.PathLike[str] | Writable


@dataclass(frozen=True)
class Content:
    """Bytes in memory that nobody can change, and the name that messages call them by."""

    data: bytes
    name: str


def open_source(function: str, source: object, error: type[ConvoxelError]) -> Path | Content:
    """Return the path, or what bytes or an open file hold.

    Bytes are taken as they are, and what somebody could change (``bytearray``, most memory views) is copied.

    Args:
        function: name of the caller, with which messages begin.
        source: path, bytes, or file.
        error: class of the exception that reports a file that cannot be read.

    Raises:
        ConfigError: it is none of these, or a file of text.
        ConvoxelError: of class ``error``, when reading fails; DataError when the content would fill the memory.
    """
    if isinstance(source, bytes):
        return Content(source, "<bytes>")
    if isinstance(source, memoryview) and isinstance(source.obj, bytes) and source.c_contiguous:
        return Content(source.obj if source.nbytes == len(source.obj) else bytes(source), "<bytes>")
    if isinstance(source, bytearray | memoryview):
        return Content(bytes(source), "<bytes>")
    if not hasattr(source, "read"):
        return as_path(function, source, "a path, bytes, or a file that is open for reading in binary mode")
    name = _name(source)
    try:
        return Content(_read(function, source, name), name)
    except ConvoxelError:
        raise
    except (OSError, ValueError) as reason:  # ValueError of a file that is closed
        why = _said(reason)
        raise error(f"{function}: {name} cannot be read ({why}); expected a file that is open for reading.") from None


def _read(function: str, file: Readable, name: str) -> bytes:
    """Return the rest of a file; memory is asked for as far as the file tells its length, or has given bytes."""
    length = _length(file)
    if length is not None:
        check_memory(name, length, _MEND)
    content, wanted = io.BytesIO(), _FIRST_BYTES if length is None else length + 1
    while True:
        piece = file.read(wanted)
        if not isinstance(piece, bytes | bytearray | memoryview):
            came = "texts" if isinstance(piece, str) else brief(piece)
            raise ConfigError(f'{function}: {name} gives {came}, expected bytes. Open it in binary mode ("rb").')
        if not len(piece):
            return content.getvalue()
        if length is not None and isinstance(piece, bytes) and len(piece) == length and not content.tell():
            return piece  # the whole file, as one piece
        content.write(piece)
        wanted = max(_FIRST_BYTES, content.tell())
        check_memory(name, 2 * content.tell(), _MEND)


_MEND = "Close other programs, or give the path of the file, which is mapped"


def _length(file: object) -> int | None:
    """Return the bytes from where a file is to its end; None of a stream."""
    try:
        here = file.tell()  # type: ignore[attr-defined]
        end = file.seek(0, os.SEEK_END)  # type: ignore[attr-defined]
        file.seek(here)  # type: ignore[attr-defined]
        return max(int(end) - int(here), 0)
    except (AttributeError, TypeError, OSError, ValueError):
        return None


def check_target(function: str, path: object, suffix: str, error: type[ConvoxelError]) -> Path:
    """Return where a network is to be written.

    Raises:
        ConfigError: it is no path, or its name does not end in ``suffix``.
        ConvoxelError: of class ``error``, when its folder is not there.
    """
    target = as_path(function, path, "a path, or a file that is open for writing in binary mode")
    if target.suffix != suffix:
        raise ConfigError(f"{function}: {target} ends in {target.suffix!r}; expected {suffix}")
    if not target.parent.is_dir():
        raise error(f"{function}: the folder of {target} is not there; expected an existing folder. Create it first.")
    return target


def write_target(
    function: str,
    target: Target,
    suffix: str,
    make: Callable[[], Iterable[bytes | memoryview]],
    error: type[ConvoxelError],
) -> None:
    """Write the parts that ``make`` returns, into an open file, or to a path: whole, or not at all.

    Raises:
        ConfigError: it is neither, the name does not end in ``suffix``, or it is a file of text.
        ConvoxelError: of class ``error``, when it cannot be written.
    """
    if not isinstance(target, str | os.PathLike) and hasattr(target, "write"):
        return _write_parts(function, target, make(), error)
    path = check_target(function, target, suffix, error)
    parts = make()
    with open_atomic(path, error) as file:
        for part in parts:
            file.write(part)


def _write_parts(
    function: str, file: Writable, parts: Iterable[bytes | memoryview], error: type[ConvoxelError]
) -> None:
    name = _name(file)
    try:
        for part in parts:
            rest = memoryview(part).cast("B")
            while rest.nbytes:
                written = file.write(rest)
                if isinstance(written, int) and not 0 < written <= rest.nbytes:
                    raise OSError(f"it took {written} bytes of {rest.nbytes}")
                rest = rest[written if isinstance(written, int) else rest.nbytes :]
    except TypeError:
        raise ConfigError(f'{function}: {name} takes no bytes. Open it in binary mode ("wb").') from None
    except (OSError, ValueError) as reason:  # ValueError of a file that is closed
        raise error(
            f"{function}: {name} could not be written ({_said(reason)}); expected a file that is open for "
            "writing, with room."
        ) from None


def _said(reason: OSError | ValueError) -> str:
    """Return what an error says; that of an operation for which a file is not open says its name alone."""
    if isinstance(reason, io.UnsupportedOperation):
        return "not open for that"
    return getattr(reason, "strerror", None) or str(reason)


def _name(file: object) -> str:
    """Return what messages call a file: its path, where it has one."""
    name = getattr(file, "name", None)
    return shown(name) if isinstance(name, str) and name else "<file>"
