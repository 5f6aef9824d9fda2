"""Free memory of this process, and the share of it that one file may take."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path

from convoxel.files.fault import fault

_SHARE = 0.5  # of the free memory; what is read is often converted, and a network wants some, too
_ALWAYS_BYTES = 64 * 2**20  # asking the system takes longer than reading an image of this size
_LARGE_BYTES, _M_MMAP_THRESHOLD = 4 * 2**20, -3


def free_memory() -> int | None:
    """Return the bytes that this process may still ask for, or None where the system does not say.

    The least of what Linux counts as available, what its control group leaves, and what its own limit leaves.
    """
    limits = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        limits += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    for most, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # ValueError: "max", no limit
            folder = Path("/sys/fs/cgroup")
            limits.append(int((folder / most).read_text()) - int((folder / used).read_text()))
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        most_bytes = resource.getrlimit(resource.RLIMIT_AS)[0]
        if most_bytes != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limits.append(most_bytes - pages * resource.getpagesize())
    return max(min(limits), 0) if limits else None


def check_memory(path: object, needed: int, mend: str = "Close other programs, or cut the image into parts") -> None:
    """Raise DataError, which ends with ``mend``, where a file would take more than half of the free memory."""
    if needed <= _ALWAYS_BYTES:
        return
    free = free_memory()
    if free is not None and needed > _SHARE * free:
        raise fault(
            path,
            f"it takes {needed / 2**20:.0f} MiB of memory, and {free / 2**20:.0f} MiB are free",
            f"at most {_SHARE:.0%} of what is free",
            mend,
        )


def return_large_blocks() -> None:
    """Let this process return large blocks of memory to the system as soon as they are freed.

    glibc keeps blocks as large as one that was freed before, of up to 32 MiB, for the next ones. Tiles of several sizes
    leave gaps there, so the memory of a long prediction grows. A block that is returned costs what the system takes to
    clear its pages for the next one, which is little beside the computation of a tile of this size.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):  # another C library, which has its own rules
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
