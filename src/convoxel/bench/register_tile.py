"""The register tile: matrix products against the ceiling of fused multiply-adds, measured in turn.

M × K × N is a pointwise convolution of M pixels from K to N channels.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from convoxel import native
from convoxel.bench.clock import describe_machine
from convoxel.native import Convolution, Plan, View

PRODUCTS = ((3136, 576, 64), (3136, 256, 256), (3136, 576, 32), (784, 1152, 128), (196, 2304, 256))

_LEAST_MACS = 2e8  # products of less are repeated, so that a timed run is long against the clock's steps


@dataclass(frozen=True)
class TileResult:
    """Medians over rounds, in operations per second; ``share`` is the speed by the ceiling of the same round."""

    m: int
    k: int
    n: int
    flops: float
    ceiling: float
    share: float
    share_min: float
    share_max: float


def measure_product(m: int, k: int, n: int, threads: int, isa: str | None = None, rounds: int = 15) -> TileResult:
    """Return the speed of one matrix product by the algorithm "pointwise", ceiling and product in turn."""
    rng = np.random.default_rng(0)
    layer = Convolution(rng.standard_normal((n, k, 1, 1, 1), np.float32))
    plan = Plan(0, 2, threads, isa=isa)
    plan.convolve(layer, View.dense(1, 0, (1, 1, 1, m, k)), View.dense(2, 0, (1, 1, 1, m, n)), algorithm="pointwise")
    buffers = [rng.standard_normal((m, k), np.float32), np.empty((m, n), np.float32)]
    plan.run(buffers)
    speeds, ceilings = [], []
    repeats = max(1, int(_LEAST_MACS // (m * k * n)))
    for _ in range(rounds):
        ceilings.append(native.measure_ceiling(threads, isa, 300_000))
        start = time.perf_counter()
        for _ in range(repeats):
            plan.run(buffers)
        speeds.append(2 * m * k * n * repeats / (time.perf_counter() - start))
    shares = [speed / ceiling for speed, ceiling in zip(speeds, ceilings, strict=True)]
    return TileResult(
        m, k, n, statistics.median(speeds), statistics.median(ceilings), statistics.median(shares), min(shares),
        max(shares),
    )  # fmt: skip


def report_tiles(results: Sequence[TileResult]) -> dict[str, object]:
    """Return the results with the machine that they were measured on."""
    return {"machine": describe_machine(), "rows": [dataclasses.asdict(result) for result in results]}
