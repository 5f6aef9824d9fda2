"""The number of threads of our engine and of PyTorch, limited for a while."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from convoxel.errors import ConfigError

#: The environment variable that says how many threads our engine takes.
VARIABLE = "CONVOXEL_THREADS"


@contextlib.contextmanager
def limit_threads(threads: int | None) -> Iterator[None]:
    """Let our engine and PyTorch use ``threads`` threads inside the block; None changes nothing.

    Raises:
        ConfigError: ``threads`` is below 1.
    """
    if threads is None:
        yield
        return
    if threads < 1:
        raise ConfigError(f"threads: got {threads}; expected at least 1. Leave it out to use all.")
    import torch

    engine, framework = os.environ.get(VARIABLE), torch.get_num_threads()
    os.environ[VARIABLE] = str(threads)
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(framework)
        if engine is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = engine
