"""``convoxel info``: this CPU, how the engine was built for it, and what it would choose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from convoxel.cli.options import Json, Threads
from convoxel.cli.screen import Screen, emit, plural

if TYPE_CHECKING:
    from convoxel.files.values import JsonObject


Recalibrate = Annotated[
    bool, typer.Option("--recalibrate", help="Measure anew how fast this machine reads; kept unless it is busy.")
]


def info(threads: Threads = None, recalibrate: Recalibrate = False, json: Json = False) -> None:
    """Show the CPU, its measured limits, how the engine was built, its algorithms, and which it would choose.

    The ceiling is measured: multiply-adds in registers, which no kernel can surpass on this machine. So is the
    bandwidth: a copy of memory, read and written bytes together. The calibration divides the work of a convolution
    among blocks and threads; it changes no result.
    """
    from convoxel.bench.machine_info import describe_engine

    facts = describe_engine(threads, recalibrate)
    if json:
        return emit(facts)
    screen = Screen()
    for label, text in _lines(facts):
        screen.say(f"{label:<14}{text}")
    screen.say()
    rows = ((row["name"], "yes" if row["exact"] else "", row["summary"]) for row in facts["algorithms"])
    screen.table("algorithm|exact|what it does and for what", rows)
    screen.say()
    choices = (
        (
            row["name"], row["layer"], f"{row['gflop']:.3f}", row["algorithm"],
            ", ".join(f"{each['name']} {each['cost']:.1f}×" for each in row["candidates"][1:3]),
        )
        for row in facts["choices"]
    )  # fmt: skip
    screen.table("typical layer||>GFLOP|chosen by cost|next, and what they would cost", choices)
    screen.say()
    screen.say("`convoxel compile --tune` measures the best three and keeps the fastest.")


def _lines(facts: JsonObject) -> list[tuple[str, str]]:
    """Return the head of the answer: one line a fact."""
    sets = ", ".join(row["name"] for row in facts["instruction_sets"])
    rates = ", ".join(
        f"{value / 1e9:.0f} GFLOP/s on {plural(int(count), 'thread')}"
        for count, value in facts["ceiling_flops"].items()
    )
    caches = ", ".join(map(_cache, facts["caches"])) or "not told by this system"
    versions = ", ".join(f"{name} {version or 'not installed'}" for name, version in facts["packages"].items())
    tuning = facts["tuning"]
    kept = (
        f"{tuning['folder']}: {tuning['winners']} winners, {tuning['winners_here']} for this machine and threads"
        if tuning["folder"]
        else "off, because CONVOXEL_CACHE is empty"
    )
    return [
        ("Convoxel", f"{facts['version']}, built with {facts['compiler']}"),
        ("Processor", f"{facts['processor']}, {plural(facts['threads'], 'thread')} used"),
        ("Instructions", f"{facts['instruction_set']} in use; this processor offers {sets}"),
        ("Ceiling", f"{rates} (float32 multiply-adds in registers, measured now)"),
        ("Memory", f"{facts['bandwidth_bytes_per_s'] / 1e9:.0f} GB/s (a copy on all threads, both ways, measured now)"),
        ("Caches", caches),
        ("Calibration", _calibration(facts)),
        ("Tuning cache", kept),
        ("Python", f"{facts['python']}, {versions}"),
    ]


def _calibration(facts: JsonObject) -> str:
    found = facts["calibration"]
    rates = f"a byte from the next cache {found['cache']:.2f}×, from memory {found['memory']:.2f}× the usual time"
    if found["measured"]:
        spread = max(found["spread"].values())
        origin = f"measured {_age(found['age_s'])} ago, spread {100 * spread:.0f} %"
    else:
        origin = f"shipped for {facts['instruction_set']}; `convoxel info --recalibrate` measures it"
    if "busy" in found:
        origin += "; other programs keep this machine busy now, so nothing new is kept"
    return f"{rates}, {origin}"


def _age(seconds: float) -> str:
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            return plural(int(seconds // length), unit)
    return plural(int(seconds), "second")


def _cache(cache: JsonObject) -> str:
    size, shared = cache["size_bytes"], cache["processors"]
    amount = f"{size / 2**20:g} MiB" if size >= 2**20 else f"{size / 2**10:g} KiB"
    return f"{cache['name']} {amount}" + (f" for {shared} processors" if shared > 1 else "")
