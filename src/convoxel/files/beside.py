"""Files that another file names: they lie beside it, or nothing is opened."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_beside(main: Path, location: str) -> BinaryIO | None:
    """Open a regular file beside ``main``, or beside the file that ``main`` is a link to; None for anything else.

    Absolute paths and ``..`` are refused. Symbolic links are followed as far as they stay in either folder. A hard
    link is refused: nobody can tell whose the file is.
    """
    parts = Path(location).parts
    if not parts or "\0" in location or Path(location).is_absolute() or ".." in parts:
        return None
    try:
        path = (main.parent / location).resolve(strict=True)
        if not any(path.is_relative_to(home) for home in (main.parent.resolve(), main.resolve().parent)):
            return None
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # a pipe must not wait
        descriptor = os.open(path, flags)
    except (OSError, RuntimeError):  # RuntimeError: links that lead in a circle, before Python 3.13
        return None
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    return None
