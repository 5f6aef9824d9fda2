"""What this machine offers: how many threads, which instruction sets, which algorithms."""

from __future__ import annotations

import functools
import math
import os
import platform
from pathlib import Path
from typing import Any

from convoxel.errors import ConfigError
from convoxel.native import _core


def _cgroup_cpus() -> float:
    """CPUs that the control group's quota allows, or infinity. Read from Linux's cgroup v2, then v1, files."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        folder = Path("/sys/fs/cgroup/cpu")
        quota_us = int((folder / "cpu.cfs_quota_us").read_text())
        return math.inf if quota_us <= 0 else quota_us / int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return math.inf


def default_threads() -> int:
    """Threads that Convoxel uses unless told otherwise.

    ``CONVOXEL_THREADS`` if it is set, else as many as this process may use: the processors of its affinity
    mask, or fewer if its control group has a quota.
    """
    wanted = os.environ.get("CONVOXEL_THREADS")
    if wanted:
        if not wanted.isdigit() or int(wanted) < 1:
            raise ConfigError(f"CONVOXEL_THREADS is {wanted!r}; give a whole number of at least 1, or unset it.")
        return int(wanted)
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(float(allowed), _cgroup_cpus())))


def resolve_threads(threads: int | None) -> int:
    if threads is None:
        return default_threads()
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ConfigError(f"threads is {threads!r}; give a whole number of at least 1, or None for all.")
    return threads


@functools.cache
def instruction_set() -> str:
    """The instruction set in use: the best that the processor has, or the one named by ``CONVOXEL_ISA``."""
    names = [row["name"] for row in _core.instruction_sets()]
    wanted = os.environ.get("CONVOXEL_ISA")
    if not wanted:
        return str(names[0])
    if wanted not in names:
        raise ConfigError(f"CONVOXEL_ISA is {wanted!r}; this processor offers {', '.join(names)}.")
    return wanted


def algorithms() -> list[dict[str, Any]]:
    """The convolution algorithms, in the order in which they are tried: name and a line on what each supports.

    >>> [row["name"] for row in algorithms()][:2]
    ['pointwise', 'indirect']
    """
    return [dict(row) for row in _core.list_algorithms()]


def build_info() -> dict[str, Any]:
    """How the core was built and what it uses here: version, compiler, processor, instruction sets, threads."""
    from convoxel import __version__

    return {
        "version": __version__,
        "compiler": _core.compiler,
        "processor": _processor_name(),
        "instruction_set": instruction_set(),
        "instruction_sets": [dict(row) for row in _core.instruction_sets()],
        "threads": default_threads(),
    }


def _processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def measure_ceiling(threads: int | None = None, isa: str | None = None, rounds: int = 2_000_000) -> float:
    """Floating-point operations per second of independent fused multiply-adds in registers.

    No kernel can be faster; speeds are quoted as a share of it, measured in the same run. A multiply-add counts
    as two operations.
    """
    return float(_core.measure_ceiling(isa or instruction_set(), resolve_threads(threads), rounds))
