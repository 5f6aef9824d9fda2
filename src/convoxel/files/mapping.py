"""A file's bytes as memory."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np

from convoxel.files.values import Array


class FileMemory(mmap.mmap):
    """A file that is read like memory and never written to, so that pages can be dropped and read again."""


def is_of_file(array: Array) -> bool:
    """Return whether the array lies in a :class:`FileMemory`."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, memoryview) and isinstance(base.obj, FileMemory)
