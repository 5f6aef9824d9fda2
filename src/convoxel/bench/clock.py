"""Timing that can be believed on a noisy machine: contenders take turns, medians and their spread are reported."""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from convoxel import native

__all__ = ["describe_machine", "interleave", "measure_ceilings", "write_json"]

# Long enough for the other contenders' threads to stop spinning, given KMP_BLOCKTIME=5 (see ``peer``).
_PAUSE_S = 0.03


def interleave(
    contenders: Mapping[str, Callable[[], object]], rounds: int = 9, pause_s: float = _PAUSE_S
) -> dict[str, dict[str, float]]:
    """Run all contenders in turn and return, for each, ``median_s``, ``min_s`` and ``max_s`` over the rounds.

    Before each timed run there is a pause, in which the other contenders' threads stop spinning, and two untimed
    runs, which bring this contender's threads and data back. The order changes from round to round, so that nobody
    always follows the same neighbour.

    Args:
        contenders: what to run, by name.
        rounds: timed runs of each.
        pause_s: seconds before each.

    >>> sorted(interleave({"one": lambda: 1, "two": lambda: 2}, rounds=1, pause_s=0))
    ['one', 'two']
    """
    order = random.Random(0)
    for run in contenders.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in order.sample(sorted(contenders.items()), len(contenders)):
            time.sleep(pause_s)
            run()
            run()
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: {"median_s": statistics.median(t), "min_s": min(t), "max_s": max(t)} for name, t in times.items()}


def measure_ceilings(threads: int, count: int = 4, isa: str | None = None) -> list[float]:
    """Return ``count`` short measurements of ``native.measure_ceiling``; what counts is their maximum.

    Anything that happens on the machine only ever makes one of them smaller.
    """
    return [native.measure_ceiling(threads, isa, rounds=200_000) for _ in range(count)]


def describe_machine() -> dict[str, Any]:
    """Return what a figure is worth nothing without: the build, the caches, and how busy the machine was."""
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    return {**native.build_info(), "caches": native.caches(), "load_average": load, "argv": sys.argv}


def write_json(rows: list[dict[str, Any]], path: Path, **more: Any) -> None:
    """Write rows with the machine that they were measured on, and ``more`` beside them."""
    path.write_text(json.dumps({"machine": describe_machine(), **more, "rows": rows}, indent=1) + "\n")
