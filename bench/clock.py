"""Timing that can be believed on a noisy machine: contenders take turns, medians and their spread are reported."""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from convoxel import build_info


def interleave(contenders: dict[str, Callable[[], object]], rounds: int = 9) -> dict[str, dict[str, float]]:
    """Runs all contenders in turn; seconds: median, smallest and largest of the rounds.

    Before each timed run there is a pause, in which the other contenders' threads stop spinning, and two untimed runs,
    which bring this contender's threads and data back. The order changes from round to round, so that nobody always
    follows the same neighbour.
    """
    order = random.Random(0)
    for run in contenders.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in order.sample(sorted(contenders.items()), len(contenders)):
            time.sleep(0.03)
            run()
            run()
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: {"median_s": statistics.median(t), "min_s": min(t), "max_s": max(t)} for name, t in times.items()}


def machine() -> dict[str, Any]:
    """What a figure is worth nothing without: the build, and how busy the machine was."""
    return {**build_info(), "load_average": os.getloadavg(), "argv": sys.argv}


def write_json(rows: list[dict[str, Any]], path: Path | None) -> None:
    if path is not None:
        path.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
        print(f"written to {path}")
