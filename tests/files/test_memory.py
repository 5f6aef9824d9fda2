"""Memory of a process: what large blocks that were freed leave behind."""

import subprocess
import sys

import pytest

_PROGRAM = """
from pathlib import Path
import numpy as np
from convoxel.files.memory import return_large_blocks

def resident_mib():
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines()
                if line.startswith("VmRSS:")) / 1024

{call}
for mib in (8, 16, 24):  # the C library learns from each that blocks as large will come again
    np.ones(mib << 17)
before = resident_mib()
large, above = np.ones(20 << 17), np.ones(1 << 17)
del large
print(resident_mib() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the system says elsewhere what a process has")
@pytest.mark.parametrize(("call", "least", "most"), [("return_large_blocks()", 0.5, 3.0), ("", 3.0, 40.0)])
def test_large_blocks_are_returned(call: str, least: float, most: float) -> None:
    """Without the call the gap below the other block stays, which shows that the test would find it."""
    command = [sys.executable, "-c", _PROGRAM.format(call=call)]
    grown = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert least <= grown <= most
