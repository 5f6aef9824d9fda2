"""The one place that writes files: a file appears whole, under its name, or not at all.

Every writer of the package uses one of these functions. ``open_atomic`` is for content that is produced piece by piece;
``write_bytes``, ``write_text`` and ``write_json`` take it whole. Files that grow while others read them (TensorBoard's
events, locks) are the only exceptions.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from convoxel.errors import ConvoxelError, DataError, WriteError
from convoxel.files.fault import fault_message


@contextlib.contextmanager
def open_atomic(path: str | os.PathLike[str], error: type[ConvoxelError] = WriteError) -> Iterator[BinaryIO]:
    """Yield a binary file, open for writing, whose content takes the name ``path`` when the block ends.

    The bytes go to a hidden temporary file in the same folder (the same file system, so the rename is atomic), reach
    the disk, and only then take the name. If anything fails (no space left, no right to write, an interrupt, an
    exception of the block itself), the temporary file is removed and an older file of that name stays as it was.

    Args:
        path: name of the file; its folder must exist.
        error: class of the exception that reports a file that cannot be written (default WriteError; DataError where
            the name is what the file system refuses).

    Raises:
        ConvoxelError: of class ``error``, when the folder is missing or the operating system refuses a step.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with open_atomic(Path(folder, "a.bin")) as file:
    ...         _ = file.write(b"first, "), file.write(b"second")
    ...     Path(folder, "a.bin").read_bytes()
    b'first, second'
    """
    path = Path(path)
    if path.is_symlink():  # what it leads to is written, as by any other program
        path = Path(os.path.realpath(path))
    if not path.parent.is_dir():
        raise error(fault_message(path, "its folder does not exist", "an existing folder", "Create the folder first"))
    if path.is_dir():
        raise error(fault_message(path, "this is a folder", "the name of a file", "Add a file name"))
    if path.exists() and not path.is_file():  # a file of its name would take the place of /dev/null
        raise error(fault_message(path, "this is a device or a pipe", "the name of a file", "Give another name"))
    try:
        _clean(path.parent)
        with _temporary(path.parent) as (part, descriptor):
            with os.fdopen(descriptor, "w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        sync_folder(path.parent)
    except OSError as reason:
        came = f"it could not be written ({reason.strerror or reason})"
        mend = "Free some space or choose another folder; nothing was left half-written"
        if error is WriteError and reason.errno in _NAME:
            error = DataError
        raise error(fault_message(path, came, "enough room and the right to write", mend)) from reason


# ---- temporary files ---------------------------------------------------------------------------------------
#
# A process that is killed leaves its temporary file. While it lives it holds a lock on the file, which the system drops
# when it ends in any way; whoever writes into the folder next removes the files on which nobody holds one.

_PART = ".convoxel-*.part"
_NAME = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)  # another name could be written
_TRIES = 16
_cleaned: set[tuple[int, str]] = set()  # folders that this process has looked into, with the process's number


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[tuple[Path, int]]:
    """Yield a new temporary file and its descriptor, which the block closes; what is left of it at the end goes."""
    for _ in range(_TRIES):
        part = folder / _PART.replace("*", secrets.token_hex(8))
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        locked = _lock(descriptor)
        if os.fstat(descriptor).st_nlink or not locked:
            break
        os.close(descriptor)  # removed by a process that came between the two calls
    else:
        raise OSError(errno.EBUSY, "other processes remove its temporary file again and again")
    held = os.dup(descriptor) if locked else None  # Windows renames nothing that is open
    try:
        yield part, descriptor
    finally:
        try:
            with contextlib.suppress(OSError):
                part.unlink()
        finally:
            if held is not None:
                os.close(held)


@contextlib.contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder in ``parent`` for what shall appear as a whole; what is left of it at the end goes."""
    _clean(parent)
    part = parent / _PART.replace("*", secrets.token_hex(8))
    part.mkdir()
    held = None
    try:
        with contextlib.suppress(OSError):  # Windows opens no folder
            held = os.open(part, os.O_RDONLY)
            _lock(held)
        yield part
    finally:
        try:
            shutil.rmtree(part, ignore_errors=True)
        finally:
            if held is not None:
                os.close(held)


def _clean(folder: Path) -> None:
    """Remove the temporary files of dead processes, once a folder: it may hold any number of other files."""
    key = os.getpid(), os.path.realpath(folder)
    if key not in _cleaned:
        _cleaned.add(key)
        remove_unfinished(folder)


def _lock(descriptor: int) -> bool:
    """Lock an open file if nobody has, and return whether that worked."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):  # Windows, or a file system without locks
        return False
    return True


def write_bytes(
    path: str | os.PathLike[str], content: bytes | bytearray | memoryview, error: type[ConvoxelError] = WriteError
) -> Path:
    """Write ``content`` to ``path`` in one step and return the path; arguments and errors as in ``open_atomic``."""
    with open_atomic(path, error) as file:
        file.write(content)
    return Path(path)


def write_text(path: str | os.PathLike[str], content: str, error: type[ConvoxelError] = WriteError) -> Path:
    """Write ``content`` as UTF-8 to ``path`` in one step and return the path; see ``open_atomic``."""
    return write_bytes(path, content.encode("utf-8"), error)


def write_json(path: str | os.PathLike[str], content: object, error: type[ConvoxelError] = WriteError) -> Path:
    """Write ``content`` as JSON, with one space of indentation, to ``path`` in one step; see ``open_atomic``."""
    return write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n", error)


def is_unfinished(path: Path) -> bool:
    """Return whether the name is that of a temporary file of this package."""
    return fnmatch.fnmatchcase(path.name, _PART)


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files and folders that killed processes have left in ``folder``, as far as is allowed."""
    for part in folder.glob(_PART):
        is_folder = part.is_dir() and not part.is_symlink()
        access = os.O_RDONLY if is_folder else os.O_RDWR
        with contextlib.suppress(OSError):
            descriptor = os.open(part, access | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
            try:
                if _lock(descriptor):
                    shutil.rmtree(part) if is_folder else part.unlink(missing_ok=True)
            finally:
                os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make renames within ``folder`` durable, where the system lets a folder be opened (not on Windows)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
