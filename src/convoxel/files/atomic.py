"""Writing so that a file is either whole or absent: temporary file, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from convoxel.files.fault import fault

__all__ = ["write_bytes"]


def write_bytes(path: str | os.PathLike[str], content: bytes | bytearray | memoryview) -> Path:
    """Write ``content`` to ``path`` in one step and return the path.

    The bytes go to a hidden temporary file in the same folder (the same file system, so the rename is
    atomic), reach the disk, and only then take the name. If anything fails — no space left, no right to
    write, an interrupt — the temporary file is removed and an older file of that name stays as it was.

    Raises DataError when the folder is missing or the file cannot be written.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise fault(path, "its folder does not exist", "an existing folder", "Create the folder first")
    if path.is_dir():
        raise fault(path, "this is a folder", "the name of a file", "Add a file name")
    part = path.with_name(f".convoxel-{secrets.token_hex(8)}.part")
    try:
        _write_part(part, memoryview(content).cast("B"))
        part.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise fault(
            path,
            f"it could not be written ({error.strerror or error})",
            f"room for {len(content)} bytes and the right to write",
            "Free some space or choose another folder; nothing was left half-written",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
    return path


def _write_part(part: Path, content: memoryview) -> None:
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        while content:  # a write may take only a part of what it is given
            content = content[os.write(descriptor, content) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system lets a folder be opened (not on Windows)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
