"""This machine and the engine on it: measured limits, caches, algorithms, and the choice for typical layers."""

from __future__ import annotations

import importlib.metadata
import platform
import time

from convoxel import native
from convoxel.bench.layer_bench import find_candidates
from convoxel.bench.layer_list import parse_layer
from convoxel.files.values import JsonObject
from convoxel.native.calibration import calibrate, known_calibration, recalibrate

_PACKAGES = ("numpy", "torch", "monai", "onnx", "onnxruntime", "openvino", "nncf")
# A layer of every kind that networks are made of, as `convoxel bench layers` writes them.
_TYPICAL = (
    ("first layer", "– 2 3x224 64 k7 s2"),
    ("first layer in 3-D", "– 3 1x64 32 k3"),
    ("3×3, large map", "– 2 64x224 64 k3"),
    ("3×3", "– 2 128x56 128 k3"),
    ("3×3, deep", "– 2 512x14 512 k3"),
    ("3×3, stride 2", "– 2 128x56 256 k3 s2"),
    ("1×7", "– 2 192x17 192 k1x7"),
    ("1×1", "– 2 256x28 512 k1"),
    ("3×3 depthwise", "– 2 192x28 192 k3 g192"),
    ("7×7 depthwise", "– 2 96x56 96 k7 g96"),
    ("3×3×3", "– 3 32x64 32 k3"),
    ("3×3×3, deep", "– 3 256x8 256 k3"),
    ("3×3×3 depthwise", "– 3 32x32 32 k3 g32"),
    ("2×2×2 transposed", "– 3 64x32 32 k2 s2 t"),
    ("1-D", "– 1 64x4096 64 k3"),
    ("fully connected", "– 2 4096x1 1000 k1"),
)


def describe_engine(threads: int | None = None, renew: bool = False) -> JsonObject:
    """Return the build, the processor and its measured limits, algorithms, choices, calibration, and the tuning cache.

    Args:
        threads: number of CPU threads (default: all).
        renew: whether to measure the calibration anew (default False); it is kept unless the machine is busy.
    """
    calibration = _calibration(renew)
    build = native.build_info()
    count = build["threads"] if threads is None else threads
    # The largest of three: other programs only ever take away.
    ceiling = {str(n): max(native.measure_ceiling(n, rounds=500_000) for _ in range(3)) for n in sorted({1, count})}
    return {
        **build,
        "threads": count,
        "caches": native.caches(),
        "python": platform.python_version(),
        "packages": package_versions(),
        "ceiling_flops": ceiling,
        "bandwidth_bytes_per_s": native.measure_bandwidth(count),
        "algorithms": native.algorithms(),
        "choices": [_choice(name, line, count) for name, line in _TYPICAL],
        "calibration": calibration,
        "tuning": {
            "folder": native.cache_folder(),
            "winners": native.remembered_count(),
            "winners_here": len(native.known_winners(count)),
        },
    }


def _calibration(renew: bool) -> JsonObject:
    """Return the rates that divide work, where they come from, and those of a machine that was found to be busy."""
    measured = recalibrate() if renew else None
    calibrate.cache_clear()
    used, known = calibrate(), known_calibration()
    found: JsonObject = {"cache": used.cache, "memory": used.memory, "measured": known is not None}
    if known is not None:
        found |= {"spread": known.spread._asdict(), "age_s": max(0.0, time.time() - known.measured_s)}
    if measured is not None and measured.busy:
        found["busy"] = {"rates": measured.rates._asdict(), "spread": measured.spread._asdict()}
    return found


def _choice(name: str, line: str, threads: int) -> JsonObject:
    """Return the algorithms for one layer, the chosen one first, with their costs relative to it."""
    layer = parse_layer(line)
    found = find_candidates(layer, threads)
    return {
        "name": name,
        "layer": layer.text,
        "gflop": layer.gflop,
        "algorithm": found[0][0],
        "candidates": [{"name": each, "cost": cost / found[0][1]} for each, cost in found],
    }


def package_versions() -> dict[str, str | None]:
    """Return the versions of the packages whose speed or files matter here; None of those that are not installed."""
    return {name: _version(name) for name in _PACKAGES}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
