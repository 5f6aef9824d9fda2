"""System calls that fail when they are told to: a library that is loaded before all others.

``shim.c`` counts the calls that change files under one folder (opening for writing, writing, flushing, renaming, making
folders, removing) and lets the k-th fail with an error, all from the k-th on, or kills the process there. Calls
elsewhere, and all calls before it is armed, pass.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

NEVER = 0


def build(folder: Path) -> Path:
    """Build the library, unless it is there, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    library, source = folder.resolve() / "shim.so", Path(__file__).with_name("shim.c")
    if not library.exists() or library.stat().st_mtime < source.stat().st_mtime:
        made = library.with_suffix(f".{os.getpid()}")
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", made, source, "-ldl", "-lrt"], check=True)
        made.replace(library)  # at once: another sweep may be loading it
    return library


def start_with_shim(folder: Path) -> None:
    """Start this program again with the library, unless it is loaded already."""
    if not os.environ.get("LD_PRELOAD", "").endswith("shim.so"):
        os.environ["LD_PRELOAD"] = str(build(folder))
        os.execv(sys.executable, [sys.executable, "-m", "tools.faults", *sys.argv[1:]])


def arm(folder: Path, at: int = NEVER, error: int = 0, *, lasting: bool = False, deadly: bool = False) -> None:
    """Count the calls under ``folder`` from now on and let the ``at``-th fail, all from it on, or kill the process."""
    ctypes.CDLL(None).shim_arm(os.fsencode(folder.resolve()), ctypes.c_long(at), error, lasting, deadly)


def kill_after(seconds: float) -> None:
    """Kill this process by SIGKILL after so many seconds of its processor time."""
    if ctypes.CDLL(None).shim_kill_after(ctypes.c_double(seconds)):
        raise OSError("no timer can be set")


def calls() -> int:
    """Return how many calls there were since the shim was armed."""
    library = ctypes.CDLL(None)
    library.shim_count.restype = ctypes.c_long
    return int(library.shim_count())
