"""``convoxel info``: this CPU, how the engine was built for it, and what it would choose."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Annotated, Any

import typer

from convoxel.cli.screen import console, emit, say, table

__all__ = ["info"]

_PACKAGES = ("numpy", "torch", "monai", "onnx", "onnxruntime", "openvino")
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


def info(
    threads: Annotated[int | None, typer.Option(help="CPU threads (all).")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Show the CPU, its measured limits, how the engine was built, its algorithms, and which it would choose.

    The ceiling is measured: multiply-adds in registers, which no kernel can surpass on this machine. So is the
    bandwidth: a copy of memory, read and written bytes together.
    """
    facts = _gather(threads)
    if json:
        emit(facts)
        return
    screen = console()
    for what, text in _lines(facts):
        say(screen, f"{what:<14}{text}")
    say(screen)
    cells = [(row["name"], "yes" if row["exact"] else "", row["summary"]) for row in facts["algorithms"]]
    screen.print(table("algorithm|exact|what it does and for what", cells))
    say(screen)
    headings = "typical layer||>GFLOP|chosen by cost|next, and what they would cost"
    screen.print(table(headings, [_choice_cells(row) for row in facts["choices"]]))
    say(screen)
    say(screen, "`convoxel compile --tune` measures the best three and keeps the fastest.")


def _gather(threads: int | None) -> dict[str, Any]:
    from convoxel.native import (
        algorithms,
        build_info,
        cache_folder,
        caches,
        known_winners,
        measure_bandwidth,
        measure_ceiling,
        remembered_count,
    )

    build: dict[str, Any] = build_info()
    count = build["threads"] if threads is None else threads
    folder = cache_folder()
    # The largest of three: other programs only ever take away.
    ceiling = {str(n): max(measure_ceiling(n, rounds=500_000) for _ in range(3)) for n in sorted({1, count})}
    return {
        **build,
        "threads": count,
        "caches": caches(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "ceiling_flops": ceiling,
        "bandwidth_bytes_per_s": measure_bandwidth(count),
        "algorithms": algorithms(),
        "choices": _choices(count),
        "tuning": {
            "folder": folder,
            "winners": remembered_count(),
            "winners_here": len(known_winners(count)),
        },
    }


def _choices(threads: int) -> list[dict[str, Any]]:
    """What the engine would choose for each typical layer, and what it would try next."""
    from convoxel.bench.layer import parse_layer
    from convoxel.bench.layer_bench import find_candidates

    rows = []
    for name, line in _TYPICAL:
        layer = parse_layer(line)
        found = find_candidates(layer, threads)
        rows.append(
            {
                "name": name,
                "layer": " ".join(str(layer).split()[1:]),
                "gflop": layer.gflop,
                "algorithm": found[0][0],
                "candidates": [{"name": each, "cost": cost / found[0][1]} for each, cost in found],
            }
        )
    return rows


def _lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The table's head: one line a fact."""
    count = facts["threads"]
    sets = ", ".join(row["name"] for row in facts["instruction_sets"])
    rates = ", ".join(
        f"{value / 1e9:.0f} GFLOP/s on {number} thread{'' if number == '1' else 's'}"
        for number, value in facts["ceiling_flops"].items()
    )
    held = ", ".join(_cache(cache) for cache in facts["caches"]) or "not told by this system"
    versions = ", ".join(f"{name} {version or 'not installed'}" for name, version in facts["packages"].items())
    tuning = facts["tuning"]
    kept = (
        f"{tuning['folder']}: {tuning['winners']} winners, {tuning['winners_here']} for this machine and threads"
        if tuning["folder"]
        else "off, because CONVOXEL_CACHE is empty"
    )
    return [
        ("Convoxel", f"{facts['version']}, built with {facts['compiler']}"),
        ("Processor", f"{facts['processor']}, {count} thread{'' if count == 1 else 's'} used"),
        ("Instructions", f"{facts['instruction_set']} in use; this processor offers {sets}"),
        ("Ceiling", f"{rates} (float32 multiply-adds in registers, measured now)"),
        ("Memory", f"{facts['bandwidth_bytes_per_s'] / 1e9:.0f} GB/s (a copy on all threads, both ways, measured now)"),
        ("Caches", held),
        ("Tuning cache", kept),
        ("Python", f"{facts['python']}, {versions}"),
    ]


def _cache(cache: dict[str, Any]) -> str:
    size = cache["size_bytes"]
    amount = f"{size / 2**20:g} MiB" if size >= 2**20 else f"{size / 2**10:g} KiB"
    shared = cache["processors"]
    return f"{cache['name']} {amount}" + (f" for {shared} processors" if shared > 1 else "")


def _choice_cells(row: dict[str, Any]) -> tuple[str, ...]:
    others = ", ".join(f"{each['name']} {each['cost']:.1f}×" for each in row["candidates"][1:3])
    return row["name"], row["layer"], f"{row['gflop']:.3f}", row["algorithm"], others


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
