"""The register tile: matrix products against the ceiling of fused multiply-adds, measured in turn.

    python bench/tile.py [--threads N] [--isa NAME] [--json FILE]

M x K x N is a pointwise convolution of M pixels from K to N channels.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from clock import write_json
from convoxel import native
from convoxel.native import Convolution, Plan, View

PRODUCTS = [(3136, 576, 64), (3136, 256, 256), (3136, 576, 32), (784, 1152, 128), (196, 2304, 256)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=native.default_threads())
    parser.add_argument("--isa", default=native.instruction_set())
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    rows = []
    print(f"{options.isa}, {options.threads} threads; median of {options.rounds}, ceiling and product in turn")
    print(f"{'M x K x N':>16} {'GFLOP/s':>9} {'ceiling':>9} {'share':>7}")
    for m, k, n in PRODUCTS:
        layer = Convolution(rng.standard_normal((n, k, 1, 1, 1)).astype(np.float32))
        plan = Plan(0, 2, options.threads, isa=options.isa)
        src, dst = View.dense(1, 0, (1, 1, 1, m, k)), View.dense(2, 0, (1, 1, 1, m, n))
        plan.convolve(layer, src, dst, algorithm="pointwise")
        x, y = rng.standard_normal((m, k)).astype(np.float32), np.empty((m, n), np.float32)
        plan.run([x, y])
        shares, speeds, ceilings = [], [], []
        repeats = max(1, int(2e8 // (m * k * n)))
        for _ in range(options.rounds):
            ceiling = native.measure_ceiling(options.threads, options.isa, 300_000) / 1e9
            start = time.perf_counter()
            for _ in range(repeats):
                plan.run([x, y])
            speed = 2 * m * k * n * repeats / (time.perf_counter() - start) / 1e9
            shares.append(speed / ceiling)
            speeds.append(speed)
            ceilings.append(ceiling)
        row = {
            "m": m, "k": k, "n": n,
            "gflops": statistics.median(speeds),
            "ceiling_gflops": statistics.median(ceilings),
            "share": statistics.median(shares),
            "share_min": min(shares), "share_max": max(shares),
        }  # fmt: skip
        rows.append(row)
        print(f"{m:6d}x{k:4d}x{n:4d} {row['gflops']:9.1f} {row['ceiling_gflops']:9.1f} {100 * row['share']:6.1f}%")
    write_json(rows, options.json)


if __name__ == "__main__":
    main()
