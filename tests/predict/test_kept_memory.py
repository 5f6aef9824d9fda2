"""Memory that a process keeps."""

from __future__ import annotations

import subprocess
import sys

import pytest

# In a process of its own: large blocks of other threads than the first are always the system's.
_FAULTS = """
import resource

import numpy as np

from convoxel.predict.kept_memory import keep_memory


def faults():
    # Of touching 64 MiB that are allocated and freed, eight times.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        np.full(64 << 20, 1, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


with keep_memory(), keep_memory():
    faults()
    kept = faults()
usual = faults()
with keep_memory():
    pass
print(kept, usual, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's parameters")
def test_freed_memory_comes_back_without_page_faults() -> None:
    told = subprocess.run([sys.executable, "-c", _FAULTS], capture_output=True, text=True, check=True).stdout
    kept, usual, again = map(int, told.split())
    assert 4 * kept < min(usual, again)
