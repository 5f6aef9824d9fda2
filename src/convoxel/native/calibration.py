"""The speed at which this machine reads relative to its multiplications, by which work is divided.

The rates decide the sizes of blocks and whether a convolution runs in stages, never which algorithm runs or what the
results are: algorithms are chosen by the rates of a reference machine, shipped for each instruction set
(``csrc/machine.cpp``), which also divide the work where this machine has not been calibrated.

Rates are measured once for each machine and kept on disk (``files.cache``). A rate is that of the fastest of many short
trials, since other programs only ever take time away. Where they take much of it the machine is busy: what is measured
is not kept, and a process that begins ten minutes later tries again. A machine that is always busy does not spend half
of each short process on it.
"""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

from convoxel.files.cache import cache_folder, read_cache, write_cache
from convoxel.native import _core
from convoxel.native.machine import cgroup_cpus, default_threads, instruction_set, measure_ceiling, processor

CALIBRATION_FILE = "calibration.json"
# Floating-point operations in the time of a byte, where the costs were fitted: 430 GFLOP/s on two threads against
# 56 GB/s from L3 and 30 GB/s from memory.
_FITTED_CACHE, _FITTED_MEMORY = 7.7, 14.3
_CACHE_BYTES, _MEMORY_BYTES = 4, 64  # times L2 that each thread reads: past it, and past what it has of L3
_MOST_BYTES = 512 * 2**20  # of all threads together
_LEAST_RATE, _MOST_RATE = 0.1, 10.0
_TRIALS, _MEMORY_TRIALS = 100, 30  # of a tenth of a millisecond, and of two
_WARM_UP = 10
_MOST_SPREAD = 0.25  # a quiet machine's half of the trials lie so close to the fastest
_PAUSE_S = 600  # after which a machine that was busy is measured again
_LEAST_SHARE = 0.8  # of the processors' time, which a quiet machine gives to this process while it asks for all


class Rates(NamedTuple):
    """The additional time of reading a byte, in multiply-adds, compared with the machine where the costs were fitted.

    cache: from the next cache beyond L2. memory: from memory.
    """

    cache: float
    memory: float


class Calibration(NamedTuple):
    """Rates of this machine.

    Attributes:
        rates: the fastest trial's.
        spread: how much longer than the fastest the median trial took, as a share; the larger one of both speeds that a
            rate compares.
        measured_s: when, in seconds since 1970.
        busy: whether other programs took so much time that the rates are not to be relied on.
    """

    rates: Rates
    spread: Rates
    measured_s: float
    busy: bool = False


def measure_calibration() -> Calibration:
    """Measure this machine's rates. Takes about a quarter of a second, less if the machine is busy from the start."""
    threads = default_threads()
    for _ in range(_WARM_UP):
        measure_ceiling(threads, rounds=50_000)  # starts the threads, whose start is nobody's work
    used_s, begun_s = time.process_time(), time.perf_counter()

    processors = min(float(threads), cgroup_cpus())

    def share() -> float:
        return (time.process_time() - used_s) / max(1e-9, processors * (time.perf_counter() - begun_s))

    ceilings = [measure_ceiling(threads, rounds=50_000) for _ in range(_TRIALS)]
    busy = share() < _LEAST_SHARE
    found, spreads = [], []
    for multiple, trials, fitted in (
        (_CACHE_BYTES, _TRIALS, _FITTED_CACHE),
        (_MEMORY_BYTES, 3 if busy else _MEMORY_TRIALS, _FITTED_MEMORY),
    ):
        size_bytes = min(multiple * _core.l2_bytes(), _MOST_BYTES // threads)
        speeds = _core.measure_reading(threads, size_bytes, trials)
        found.append(min(_MOST_RATE, max(_LEAST_RATE, max(ceilings) / max(speeds) / fitted)))
        spreads.append(max(_spread(ceilings), _spread(speeds)))
    busy = busy or share() < _LEAST_SHARE or max(spreads) > _MOST_SPREAD
    return Calibration(Rates(*found), Rates(*spreads), time.time(), busy)


def _spread(speeds: Sequence[float]) -> float:
    """Return how much longer than the fastest the median trial took, as a share.

    >>> _spread([2.0, 4.0, 5.0])
    0.25
    """
    return max(speeds) / statistics.median(speeds) - 1


def shipped_rates() -> Rates:
    """Return the rates of the reference machine of the instruction set in use."""
    rows = {row["instruction_set"]: row for row in _core.reference_machines()}
    return Rates(rows[instruction_set()]["cache"], rows[instruction_set()]["memory"])


@functools.cache
def calibrate() -> Rates:
    """Give the engine this machine's rates. They are measured now if they are not known yet and can be kept.

    >>> min(calibrate()) > 0
    True
    """
    known = known_calibration()
    if known is None and cache_folder() is not None and not _was_busy():
        known = recalibrate()
    rates = shipped_rates() if known is None or known.busy else known.rates
    _core.set_rates(*rates)
    return rates


def recalibrate() -> Calibration:
    """Measure this machine's rates anew; they are kept unless the machine is busy, and used by the next process."""
    measured = measure_calibration()
    kept, when = read_cache(CALIBRATION_FILE), round(measured.measured_s)
    entry = {"rates": list(measured.rates), "spread": list(measured.spread), "measured_s": when}
    if not measured.busy:
        write_cache(CALIBRATION_FILE, {**kept, _key(): entry})
    elif _calibration(kept.get(_key())) is None:
        write_cache(CALIBRATION_FILE, {**kept, _key(): {"busy_s": when}})
    return measured


def _was_busy() -> bool:
    """Return whether the machine was busy when it was measured, a short while ago."""
    entry = read_cache(CALIBRATION_FILE).get(_key())
    when = entry.get("busy_s") if isinstance(entry, dict) else None
    return isinstance(when, int | float) and 0 <= time.time() - when < _PAUSE_S


def known_calibration() -> Calibration | None:
    """Return what is kept of this machine, or None."""
    return _calibration(read_cache(CALIBRATION_FILE).get(_key()))


def known_balance() -> float:
    """Return this machine's floating-point operations in the time that memory takes to deliver a byte.

    Nothing is measured: without a calibration this is the figure of the machine that the costs were fitted on.
    """
    known = known_calibration()
    return _FITTED_MEMORY * (1.0 if known is None else known.rates.memory)


def _key() -> str:
    return f"{processor()}, {instruction_set()}, {default_threads()} threads"


def _calibration(entry: object) -> Calibration | None:
    """Return the calibration in an entry of the cache file, or None if it is not valid."""
    if not isinstance(entry, dict):
        return None
    rates = _pair(entry.get("rates"), _LEAST_RATE, _MOST_RATE)
    spread = _pair(entry.get("spread"), 0.0, _MOST_SPREAD)
    measured_s = entry.get("measured_s")
    if rates is None or spread is None or not isinstance(measured_s, int | float) or not math.isfinite(measured_s):
        return None
    return Calibration(rates, spread, float(measured_s))


def _pair(found: object, least: float, most: float) -> Rates | None:
    """Return two numbers within bounds, or None."""
    if not isinstance(found, list) or len(found) != 2:
        return None
    values = [value for value in found if isinstance(value, int | float) and least <= value <= most]
    return Rates(*map(float, values)) if len(values) == 2 else None
