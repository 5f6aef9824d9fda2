"""Reliable timing on a noisy machine: contenders take turns, medians and their spread are reported."""

from __future__ import annotations

import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from convoxel import native
from convoxel.files import atomic

_Name = TypeVar("_Name", str, int)
_Result = TypeVar("_Result")

# Long enough for the other contenders' threads to stop spinning, given KMP_BLOCKTIME=5 (see ``peer``).
_PAUSE_S = 0.03
_LONG_S = 0.3
_WARM_S = 0.1


def time_run(run: Callable[[], object]) -> float:
    """Return the seconds of a run, after untimed ones that bring its threads and data back: two, or one long one."""
    begun = time.perf_counter()
    run()
    if time.perf_counter() - begun < _LONG_S:
        run()
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def time_turn(run: Callable[[], object], turn_s: float) -> float:
    """Return the mean seconds of a run among back-to-back ones that take ``turn_s``, after untimed ones.

    As in a program that computes one input after another: threads are awake, weights lie in the caches that hold them.
    """
    warm_until = time.perf_counter() + min(_WARM_S, turn_s / 4)
    run()
    while time.perf_counter() < warm_until:
        run()
    count, begun = 0, time.perf_counter()
    while True:
        run()
        count += 1
        passed = time.perf_counter() - begun
        if passed >= turn_s:
            return passed / count


def interleave(
    contenders: Mapping[_Name, Callable[[], _Result]],
    rounds: int = 9,
    pause_s: float = _PAUSE_S,
    sample: Callable[[Callable[[], _Result]], float] = time_run,
) -> dict[_Name, dict[str, float]]:
    """Run all contenders in turn and return, for each, ``median_s``, ``min_s`` and ``max_s`` over the rounds.

    Before each sample there is a pause, in which the other contenders' threads stop spinning. The order changes from
    round to round, so that no contender always follows the same neighbour.

    Args:
        contenders: functions to run, by name or number.
        rounds: samples of each (default 9).
        pause_s: seconds before each sample.
        sample: returns the seconds of one run of a contender (default ``time_run``).

    >>> sorted(interleave({"one": lambda: 1, "two": lambda: 2}, rounds=1, pause_s=0))
    ['one', 'two']
    """
    order = random.Random(0)
    for run in contenders.values():
        run()
    times: dict[_Name, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in order.sample(sorted(contenders.items()), len(contenders)):
            time.sleep(pause_s)
            times[name].append(sample(run))
    return {name: {"median_s": statistics.median(t), "min_s": min(t), "max_s": max(t)} for name, t in times.items()}


def measure_ceilings(threads: int, count: int = 4, isa: str | None = None) -> list[float]:
    """Return ``count`` short measurements of ``native.measure_ceiling``, of which the maximum counts.

    Other programs on the machine can only make a measurement smaller.
    """
    return [native.measure_ceiling(threads, isa, rounds=200_000) for _ in range(count)]


def describe_machine() -> dict[str, object]:
    """Return what a figure needs beside it: the build, the caches, and how busy the machine was."""
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    return {**native.build_info(), "caches": native.caches(), "load_average": load, "argv": sys.argv}


def write_json(rows: Sequence[Mapping[str, object]], path: Path, **more: object) -> None:
    """Write rows with the machine that they were measured on, and ``more`` beside them."""
    atomic.write_json(path, {"machine": describe_machine(), **more, "rows": rows})
