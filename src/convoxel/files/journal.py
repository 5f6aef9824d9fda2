"""Files of lines that several processes add to at once, such as the manifest of a prediction.

A line is added as a whole or not at all, by one process after the other. What a process that was killed, or a disk that
was full, may have left of a line stays a line of its own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from convoxel.errors import ConvoxelError, WriteError
from convoxel.files.atomic import write_bytes
from convoxel.files.fault import fault_message

# A longer line is none of ours; it is read in pieces that are no lines of ours either.
_MOST_BYTES = 2**24
_TRIES = 1024


class Journal:
    """A file of lines, held by this process alone; see :func:`hold_journal`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor

    def lines(self) -> Iterator[bytes]:
        """Yield the lines from the first to the last."""
        return read_lines(self._path)

    def append(self, lines: Iterable[str]) -> None:
        """Add lines, which reach the disk.

        Raises:
            WriteError: they cannot be written; nothing is left of them.
        """
        content = "".join(f"{line}\n" for line in lines).encode("utf-8")
        size = os.lseek(self._descriptor, 0, os.SEEK_END)
        try:
            if (
                size
                and os.lseek(self._descriptor, size - 1, os.SEEK_SET) >= 0
                and os.read(self._descriptor, 1) != b"\n"
            ):
                content = b"\n" + content
            written = 0
            while written < len(content):
                written += os.write(self._descriptor, content[written:])
            os.fsync(self._descriptor)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, size)
            raise _refused(self._path, error) from error

    def replace(self, lines: Iterable[str]) -> None:
        """Put other lines in the place of all, in one step; the journal is not used after that.

        Raises:
            WriteError: they cannot be written; those that were there stay.
        """
        write_bytes(self._path, "".join(f"{line}\n" for line in lines).encode("utf-8"), WriteError)


@contextlib.contextmanager
def hold_journal(path: Path) -> Iterator[Journal]:
    """Yield the journal ``path``, which is made if it is missing; other processes wait until the block ends.

    Raises:
        WriteError: it cannot be opened for writing.
    """
    descriptor = _take(path)
    try:
        yield Journal(path, descriptor)
    finally:
        os.close(descriptor)


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a journal; none where there is no file.

    Raises:
        WriteError: it is there and cannot be read.
    """
    try:
        with path.open("rb") as file:
            while line := file.readline(_MOST_BYTES):
                yield line
    except FileNotFoundError:
        return
    except OSError as error:
        raise _refused(path, error) from error


def _take(path: Path) -> int:
    """Return the open file, locked where the system has locks, and still the one of that name."""
    for _ in range(_TRIES):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        except OSError as error:
            raise _refused(path, error) from error
        try:
            _lock(descriptor)
            if os.path.samestat(path.stat(), os.fstat(descriptor)):  # nobody has put another in its place meanwhile
                return descriptor
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise _refused(path, OSError(0, "other processes replace it again and again"))


def _lock(descriptor: int) -> None:
    """Wait for the lock on an open file; a file system without locks (and Windows) relies on appending alone."""
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _refused(path: Path, error: OSError) -> ConvoxelError:
    came = f"it could not be read or written ({error.strerror or error})"
    return WriteError(fault_message(path, came, "a file that can be added to", "Check the disk and its rights"))
