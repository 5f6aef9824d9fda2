"""Memory that a process keeps."""

from __future__ import annotations

import resource
import sys

import numpy as np
import pytest

from convoxel.predict.kept_memory import keep_memory


def _faults() -> int:
    """Return the page faults of touching 64 MiB that are allocated and freed, eight times."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        np.full(64 << 20, 1, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's parameters")
def test_freed_memory_comes_back_without_page_faults() -> None:
    with keep_memory(), keep_memory():
        _faults()
        kept = _faults()
    usual = _faults()
    with keep_memory():
        pass
    again = _faults()
    assert 4 * kept < min(usual, again)
