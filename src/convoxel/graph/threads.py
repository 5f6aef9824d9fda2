"""The number of threads of our engine and of PyTorch, limited for a while."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from convoxel.native.machine import check_threads, default_threads

#: The environment variable that says how many threads our engine takes.
VARIABLE = "CONVOXEL_THREADS"
_OPENMP = "OMP_NUM_THREADS"  # PyTorch reads it when it is imported


@contextlib.contextmanager
def limit_threads(threads: int | None) -> Iterator[None]:
    """Let our engine and PyTorch use ``threads`` threads inside the block; None changes nothing.

    PyTorch is not imported for it: where it is not yet, the environment tells it.

    Raises:
        ConfigError: ``threads`` is below 1, or more than any use has.
    """
    threads = check_threads(threads)
    if threads is None:
        yield
        return
    before = {name: os.environ.get(name) for name in (VARIABLE, _OPENMP)}
    framework = sys.modules.get("torch")
    count = framework.get_num_threads() if framework else None
    os.environ.update(dict.fromkeys(before, str(threads)))
    if framework:
        framework.set_num_threads(threads)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        if framework := sys.modules.get("torch"):
            framework.set_num_threads(count or _default(before[_OPENMP]))


def _default(stated: str | None) -> int:
    """Return the threads that PyTorch would have taken if it had been imported before."""
    return int(stated) if stated and stated.isdecimal() and int(stated) else default_threads()
