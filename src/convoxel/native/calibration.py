"""The speed at which this machine reads relative to its multiplications, for the cost model.

The rates are measured once for each machine and kept on disk (``files.cache``). If they cannot be kept, they are not
measured, and those of the machine that the costs were fitted on apply: two processes must choose the same algorithms,
or their results would differ in the last digits. For the same reason the rates are rounded coarsely.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

from convoxel.files.cache import cache_folder, read_cache, write_cache
from convoxel.native import _core
from convoxel.native.machine import default_threads, instruction_set, measure_ceiling, processor

CALIBRATION_FILE = "calibration.json"
# Floating-point operations in the time of a byte, where the costs were fitted: 430 GFLOP/s on two threads against
# 56 GB/s from L3 and 30 GB/s from memory.
_FITTED_CACHE, _FITTED_MEMORY = 7.7, 14.3
_CACHE_BYTES, _MEMORY_BYTES = 4, 64  # times L2 that each thread reads: past it, and past what it has of L3
_MOST_BYTES = 512 * 2**20  # of all threads together


class Rates(NamedTuple):
    """The additional time of reading a byte, in multiply-adds, compared with the machine where the costs were fitted.

    cache: from the next cache beyond L2. memory: from memory.
    """

    cache: float
    memory: float


def measure_rates() -> Rates:
    """Measure this machine's rates, rounded to powers of 2 between 1/4 and 4. Takes about half a second."""
    threads = default_threads()
    ceiling = max(measure_ceiling(threads, rounds=100_000) for _ in range(5))
    found = []
    for multiple, fitted in ((_CACHE_BYTES, _FITTED_CACHE), (_MEMORY_BYTES, _FITTED_MEMORY)):
        size_bytes = min(multiple * _core.l2_bytes(), _MOST_BYTES // threads)
        rate = ceiling / _core.measure_reading(threads, size_bytes) / fitted
        found.append(2.0 ** max(-2, min(2, round(math.log2(rate)))))
    return Rates(*found)


@functools.cache
def calibrate() -> Rates:
    """Give the engine this machine's rates. They are measured now if they are not known yet.

    >>> calibrate() == Rates(*_core.rates())
    True
    """
    key, known = _key(), read_cache(CALIBRATION_FILE)
    rates = _rates(known.get(key))
    if rates is None and cache_folder() is not None:
        measured = measure_rates()
        if write_cache(CALIBRATION_FILE, {**known, key: measured._asdict()}):
            rates = measured
    rates = rates or Rates(1.0, 1.0)
    _core.set_rates(*rates)
    return rates


def known_balance() -> float:
    """Return this machine's floating-point operations in the time that memory takes to deliver a byte.

    Nothing is measured: without a calibration this is the figure of the machine that the costs were fitted on.
    """
    rates = _rates(read_cache(CALIBRATION_FILE).get(_key())) or Rates(1.0, 1.0)
    return _FITTED_MEMORY * rates.memory


def _key() -> str:
    return f"{processor()}, {instruction_set()}, {default_threads()} threads"


def _rates(entry: object) -> Rates | None:
    """Return the rates of an entry in the cache file, or None if it is not valid."""
    if not isinstance(entry, dict):
        return None
    values = [value for value in map(entry.get, Rates._fields) if isinstance(value, float) and 0.25 <= value <= 4]
    return Rates(*values) if len(values) == len(Rates._fields) else None
