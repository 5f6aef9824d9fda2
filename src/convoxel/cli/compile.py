"""``convoxel compile``: what our engine makes of a network, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from convoxel.cli.options import Algorithm, Assign, Json, Network, Precision, Shape, Threads, Weights
from convoxel.cli.parsing import parse_options, parse_shape
from convoxel.cli.progress import Counter
from convoxel.cli.screen import Screen, duration, emit, milliseconds, plural, times


def compile_network(
    network: Network,
    shape: Shape = None,
    assign: Assign = None,
    weights: Weights = None,
    threads: Threads = None,
    algorithm: Algorithm = "auto",
    precision: Precision = "float32",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Save the program as .cvx, for `convoxel run` and convoxel.load."),
    ] = None,
    tune: Annotated[bool, typer.Option("--tune", help="Measure algorithms, keep and remember the fastest.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Compare with the model on random input first.")] = False,
    json: Json = False,
) -> None:
    """Compile a network for this CPU, run it once, and show its steps, algorithms, times and memory."""
    from convoxel.bench.profile import profile_network
    from convoxel.graph.threads import limit_threads

    with limit_threads(threads), Counter("tuning") as counter:
        found = profile_network(
            network, parse_shape(shape), parse_options(assign), weights=weights, output=output, threads=threads,
            algorithm=algorithm, precision=precision, tune=tune, verify=verify, on_progress=counter,
        )  # fmt: skip
    if json:
        return emit(found.to_dict())
    screen = Screen()
    screen.say(
        f"{found.name}: {times(found.shape)}, {plural(len(found.steps), 'step')}, {found.macs / 1e9:.3f} GMAC", "bold"
    )
    rows = (
        (
            step["name"], step["operator"], step["algorithm"], step["type"], step["stored"], times(step["shape"]),
            milliseconds(step["time_s"]), f"{step['gflops']:.1f}" if step["macs"] else "",
        )
        for step in found.steps
    )  # fmt: skip
    screen.table("step|operator|algorithm|type|stored|output|>ms|>GFLOP/s", rows)
    took = duration(found.time_s) if found.time_s >= 1 else f"{milliseconds(found.time_s, 1)} ms"
    screen.say(f"{took} a run, {found.flops / 1e9:.0f} GFLOP/s; compiled in {duration(found.compile_s)}")
    arena, active, held = (
        f"{found.memory[name] / 2**20:.1f} MiB" for name in ("arena_bytes", "activation_bytes", "weight_bytes")
    )
    screen.say(f"Memory: {arena} for {active} of activations, weights {held}")
    if found.program.verification:
        screen.say(f"Verified: {found.program.verification}")
