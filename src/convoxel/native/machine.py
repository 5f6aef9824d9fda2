"""Facts about this machine: threads, instruction sets, caches, algorithms, and measured speeds."""

from __future__ import annotations

import functools
import math
import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from convoxel.arithmetic.argument import as_whole, whole
from convoxel.errors import ConfigError
from convoxel.files.fault import brief
from convoxel.files.values import JsonObject
from convoxel.native import _core
from convoxel.native.precision import name_of_digits

_MOST_ROUNDS = 10**8  # of a measurement, which nothing ends before: seconds


def cgroup_cpus() -> float:
    """Return the CPUs that the control group's quota allows, or infinity, from the files of Linux's cgroup v2 or v1."""
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
    """Return the number of threads that Convoxel uses by default.

    It is ``CONVOXEL_THREADS`` if that is set, else the number that this process may use: the processors of its
    affinity mask, or fewer if its control group has a quota.
    """
    wanted = os.environ.get("CONVOXEL_THREADS")
    if wanted:
        if not wanted.isdecimal() or len(wanted) > 9 or not 1 <= int(wanted) <= most_threads():
            raise ConfigError(
                f"CONVOXEL_THREADS is {brief(wanted)}; give a whole number from 1 to {most_threads()}, or unset it."
            )
        return int(wanted)
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(float(allowed), cgroup_cpus())))


def most_threads() -> int:
    """Return the largest number of threads that a call may ask for: more than any use has, few enough to start."""
    return max(1024, os.cpu_count() or 1)


def check_threads(threads: object, where: str = "") -> int | None:
    """Return ``threads`` as an int, or None for all that the process may use.

    Raises:
        ConfigError: it is no whole number, or out of range; ``where`` begins the message.
    """
    number = None if threads is None else as_whole(threads)
    if threads is not None and (number is None or not 1 <= number <= most_threads()):
        raise ConfigError(
            f"{where}threads is {brief(threads)}, expected at least 1 and at most {most_threads()}, or None for all"
        )
    return number


def resolve_threads(threads: int | None) -> int:
    """Return the number of threads that ``threads`` stands for."""
    return check_threads(threads) or default_threads()


def installed_bytes() -> int:
    """Return the bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def instruction_sets() -> list[str]:
    """Return the instruction sets of this processor that Convoxel has microkernels for, best first."""
    return [str(row["name"]) for row in _core.instruction_sets()]


def resolve_isa(isa: str | None) -> str:
    """Return the instruction set that ``isa`` names; None stands for the one in use."""
    if isa is None:
        return instruction_set()
    names = instruction_sets()
    if not isinstance(isa, str) or isa not in names:
        raise ConfigError(f"isa is {brief(isa)}; this processor offers {', '.join(names)}. Or give None for the best.")
    return isa


@functools.cache
def instruction_set() -> str:
    """Return the instruction set in use: the processor's best, or the one that ``CONVOXEL_ISA`` names."""
    names = instruction_sets()
    wanted = os.environ.get("CONVOXEL_ISA")
    if not wanted:
        return names[0]
    if wanted not in names:
        raise ConfigError(f"CONVOXEL_ISA is {wanted!r}; this processor offers {', '.join(names)}.")
    return wanted


def multiplies_bfloat(isa: str) -> bool:
    """Return whether an instruction set multiplies numbers of bfloat16."""
    return any(row["name"] == isa and row["bfloat16"] for row in _core.instruction_sets())


def algorithms() -> list[JsonObject]:
    """Return the convolution algorithms: name, a line on what each does and supports, whether it is exact on integers.

    ``precision`` is the highest that allows it; ``bfloat16`` says whether it needs a processor that
    multiplies those.

    >>> [row["name"] for row in algorithms()][:2]
    ['pointwise', 'indirect']
    """
    rows = [dict(row) for row in _core.list_algorithms()]
    return [{**row, "precision": name_of_digits(row.pop("digits"))} for row in rows]


def build_info() -> JsonObject:
    """Return the engine's version and compiler, and its processor, instruction sets and threads on this machine."""
    from convoxel import __version__

    return {
        "version": __version__,
        "compiler": _core.compiler,
        "processor": processor(),
        "instruction_set": instruction_set(),
        "instruction_sets": [dict(row) for row in _core.instruction_sets()],
        "threads": default_threads(),
    }


@functools.cache
def processor() -> str:
    """Return the processor's name, with its family, model and stepping: names such as "Xeon Processor" are vague."""
    try:
        text = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return platform.processor() or platform.machine()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    name = facts.get("model name") or platform.processor() or platform.machine()
    numbers = [
        f"{key.removeprefix('cpu ')} {facts[key]}" for key in ("cpu family", "model", "stepping") if key in facts
    ]
    return f"{name} ({', '.join(numbers)})" if numbers else name


@functools.cache
def _caches(folder: Path) -> tuple[tuple[str, int, int], ...]:
    found = []
    for index in sorted(folder.glob("index*")):
        try:
            level, kind, size, shared = (
                (index / name).read_text().strip() for name in ("level", "type", "size", "shared_cpu_list")
            )
            if kind != "Instruction":
                size_bytes = int(size.rstrip("KMG")) * {"K": 2**10, "M": 2**20, "G": 2**30}.get(size[-1], 1)
                found.append((f"L{level}", size_bytes, len(_expand(shared))))
        except (OSError, ValueError):
            continue
    return tuple(found)


def _expand(listed: str) -> list[int]:
    """Return the numbers of a list in Linux's notation.

    >>> _expand("0-2,8")
    [0, 1, 2, 8]
    """
    ranges = [part.partition("-")[::2] for part in listed.split(",")]
    return [number for first, last in ranges for number in range(int(first), int(last or first) + 1)]


def caches() -> list[JsonObject]:
    """Return the data caches of the first processor: name, size_bytes, and the number of processors that share each.

    They come from Linux's /sys. The list is empty on other systems, and where the system hides them.
    """
    found = _caches(Path("/sys/devices/system/cpu/cpu0/cache"))
    return [{"name": name, "size_bytes": size, "processors": shared} for name, size, shared in found]


def measure_ceiling(threads: int | None = None, isa: str | None = None, rounds: int = 2_000_000) -> float:
    """Measure the floating-point operations per second of independent fused multiply-adds in registers.

    No microkernel can be faster, so benchmarks quote speeds as a share of it, measured in the same run. A
    multiply-add counts as two operations.
    """
    rounds = whole("rounds", rounds, 1, _MOST_ROUNDS)
    return float(_core.measure_ceiling(resolve_isa(isa), resolve_threads(threads), rounds))


def measure_bandwidth(threads: int | None = None, size_bytes: int = 64 * 2**20) -> float:
    """Measure the bytes per second that this many threads together read and write when they copy memory.

    Both directions count. The copy is ``size_bytes`` long: in a larger last-level cache this is the cache's speed.
    Takes about a tenth of a second.
    """
    count = resolve_threads(threads)
    source = np.ones(size_bytes // 4, np.float32)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(source, count), np.array_split(target, count), strict=True))
    times = []
    with ThreadPoolExecutor(count) as pool:
        for _ in range(6):
            begun = time.perf_counter()
            list(pool.map(lambda part: np.copyto(part[1], part[0]), parts))  # NumPy releases the GIL
            times.append(time.perf_counter() - begun)
    return 2 * source.nbytes / min(times)
