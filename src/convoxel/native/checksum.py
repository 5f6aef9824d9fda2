"""The checksum of memory, which tells cheaply whether any of it has changed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from convoxel.errors import ConfigError
from convoxel.files.values import Array
from convoxel.native import _core
from convoxel.native.machine import resolve_threads

_SMALL = 1 << 18  # bytes that one thread reads sooner than the number of processors is found out


def checksum(arrays: Sequence[Array], threads: int | None = None) -> int:
    """Return a number of 64 bits that differs, as good as surely, where any byte of the ``arrays`` or a length does.

    It is read at the speed of memory, by all threads, and is the same for any number of them. It is no protection
    against anybody who looks for other contents of the same checksum.

    Args:
        arrays: contiguous bytes.
        threads: number of CPU threads (default: all).

    >>> import numpy as np
    >>> a = np.zeros(8, np.uint8)
    >>> before = checksum([a])
    >>> a[3] = 1
    >>> checksum([a]) == before
    False
    """
    if not all(isinstance(array, np.ndarray) and array.dtype == np.uint8 and array.ndim == 1 for array in arrays):
        raise ConfigError("checksum: arrays holds something that is no array of bytes; give array.view(numpy.uint8).")
    if threads is None and sum(map(len, arrays)) < _SMALL:
        threads = 1
    return int(_core.checksum(list(arrays), resolve_threads(threads)))
