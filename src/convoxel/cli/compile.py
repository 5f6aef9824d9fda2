"""``convoxel compile``: what our engine makes of a network, step by step."""

from __future__ import annotations

import dataclasses
import difflib
import time
from typing import Annotated, Any

import typer

from convoxel.cli.network import choose_network
from convoxel.cli.screen import console, duration, emit, limit_threads, say, table
from convoxel.errors import ConfigError

__all__ = ["compile_network"]


def compile_network(
    network: Annotated[str, typer.Argument(metavar="MODEL|RUN", help="Name of `convoxel models`, or folder of a run.")],
    shape: Annotated[str | None, typer.Option(help="Input as n,channels,*sizes; a usual one unless given.")] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Option of the network, such as levels=2.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads (all).")] = None,
    algorithm: Annotated[str, typer.Option(help="Of every convolution; `convoxel info` lists them.")] = "auto",
    tune: Annotated[bool, typer.Option("--tune", help="Measure the algorithms, keep the fastest.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Compile a network for this CPU, run it once, and show its steps, algorithms, times and memory."""
    import numpy as np
    import torch

    from convoxel.graph.compile import compile as compile_model

    _check_algorithm(algorithm)
    chosen = choose_network(network, shape, assign, weights=True)
    x = np.random.default_rng(0).standard_normal(chosen.shape, np.float32)
    begun = time.perf_counter()
    with limit_threads(threads):
        program = compile_model(chosen.model, torch.from_numpy(x), threads=threads, tune=tune, algorithm=algorithm)
    seconds = time.perf_counter() - begun
    steps: list[dict[str, Any]] = program.profile(x)
    memory = dataclasses.asdict(program.memory(x))
    if json:
        emit({"name": chosen.name, "shape": chosen.shape, "compile_s": seconds, "memory": memory, "steps": steps})
        return
    screen = console()
    total_s, macs = sum(step["time_s"] for step in steps), sum(step["macs"] for step in steps)
    size = "×".join(map(str, chosen.shape))
    say(screen, f"{chosen.name}: {size}, {len(steps)} steps, {macs / 1e9:.3f} GMAC", "bold")
    screen.print(table("step|operator|algorithm|output|>ms|>GFLOP/s", [_row(step) for step in steps]))
    say(screen, f"{duration(total_s) if total_s >= 1 else f'{1e3 * total_s:.1f} ms'} a run, "
                f"{2e-9 * macs / total_s:.0f} GFLOP/s; compiled in {duration(seconds)}")  # fmt: skip
    mebibytes = {name: f"{value / 2**20:.1f} MiB" for name, value in memory.items()}
    say(screen, f"Memory: {mebibytes['arena_bytes']} for {mebibytes['activation_bytes']} of activations, "
                f"weights {mebibytes['weight_bytes']}")  # fmt: skip


def _check_algorithm(name: str) -> None:
    """Refuse an unknown name before the network is built, which may take a while."""
    from convoxel.native import algorithms

    known = ["auto", "direct", "winograd", *(row["name"] for row in algorithms())]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"algorithm: got {name!r}; expected one of {', '.join(known)}.{hint}")


def _row(step: dict[str, Any]) -> tuple[str, ...]:
    rate = f"{step['gflops']:.1f}" if step["macs"] else ""
    size = "×".join(map(str, step["shape"]))
    return step["name"], step["operator"], step["algorithm"], size, f"{1e3 * step['time_s']:.2f}", rate
