"""``convoxel compile``: what our engine makes of a network, step by step."""

from __future__ import annotations

import dataclasses
import difflib
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from convoxel.cli.network import choose_network, parse_shape
from convoxel.cli.progress import Counter
from convoxel.cli.screen import console, duration, emit, limit_threads, say, table
from convoxel.errors import ConfigError

__all__ = ["compile_network"]

_USUAL_SIZE = 224  # of a spatial axis that an ONNX file leaves open


def compile_network(
    network: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|RUN|FILE", help="Name of `convoxel models`, folder of a run, .onnx or .cvx file."
        ),
    ],
    shape: Annotated[str | None, typer.Option(help="Input as n,channels,*sizes; a usual one unless given.")] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Option of the network, such as levels=2.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads (all).")] = None,
    algorithm: Annotated[str, typer.Option(help="Of every convolution; `convoxel info` lists them.")] = "auto",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Save the program as .cvx, for `convoxel run` and convoxel.load."),
    ] = None,
    tune: Annotated[bool, typer.Option("--tune", help="Measure algorithms, keep and remember the fastest.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Compare with the model on random input first.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Compile a network for this CPU, run it once, and show its steps, algorithms, times and memory."""
    import numpy as np

    from convoxel.graph.store.cvx import check_target

    _check_algorithm(algorithm)
    if output is not None:
        check_target(output)
    begun = time.perf_counter()
    with limit_threads(threads), Counter("tuning") as counter:
        if network.endswith((".onnx", ".cvx")):
            chosen = _from_file(network, shape, threads, assign, algorithm, tune or verify)
        else:
            options = {"threads": threads, "tune": tune, "algorithm": algorithm, "verify": verify}
            chosen = _from_model(network, shape, assign, {**options, "on_progress": counter})
    name, sizes, program = chosen
    seconds = time.perf_counter() - begun
    if output is not None:
        program.save(output)
    x = np.random.default_rng(0).standard_normal(sizes, np.float32)
    steps: list[dict[str, Any]] = program.profile(x)
    memory = dataclasses.asdict(program.memory(x))
    verification = getattr(program, "verification", None)
    if json:
        found = dataclasses.asdict(verification) if verification else None
        emit({"name": name, "shape": sizes, "compile_s": seconds, "memory": memory, "verification": found,
              "steps": steps})  # fmt: skip
        return
    screen = console()
    total_s, macs = sum(step["time_s"] for step in steps), sum(step["macs"] for step in steps)
    size = "×".join(map(str, sizes))
    say(screen, f"{name}: {size}, {len(steps)} steps, {macs / 1e9:.3f} GMAC", "bold")
    screen.print(table("step|operator|algorithm|output|>ms|>GFLOP/s", [_row(step) for step in steps]))
    say(screen, f"{duration(total_s) if total_s >= 1 else f'{1e3 * total_s:.1f} ms'} a run, "
                f"{2e-9 * macs / total_s:.0f} GFLOP/s; compiled in {duration(seconds)}")  # fmt: skip
    mebibytes = {name: f"{value / 2**20:.1f} MiB" for name, value in memory.items()}
    say(screen, f"Memory: {mebibytes['arena_bytes']} for {mebibytes['activation_bytes']} of activations, "
                f"weights {mebibytes['weight_bytes']}")  # fmt: skip
    if verification:
        say(screen, f"Verified: {verification}")


def _from_model(
    network: str,
    shape: str | None,
    assign: list[str] | None,
    options: dict[str, Any],
) -> tuple[str, tuple[int, ...], Any]:
    """Return name, input shape and program of a network that is a PyTorch module."""
    import torch

    from convoxel.graph.compile import compile as compile_model

    chosen = choose_network(network, shape, assign, weights=True)
    x = torch.empty(chosen.shape)
    return chosen.name, chosen.shape, compile_model(chosen.model, x, **options)


def _from_file(
    path: str, shape: str | None, threads: int | None, assign: list[str] | None, algorithm: str, measured: bool
) -> tuple[str, tuple[int, ...], Any]:
    """Return name, input shape and program of an ONNX file or a saved program."""
    from convoxel.graph.load import load
    from convoxel.graph.run.program import Program

    if assign or measured:
        raise ConfigError(f"set, tune, verify: they do not go with {Path(path).suffix} files. Leave them out.")
    program = load(path, threads, algorithm)
    if not isinstance(program, Program) or len(program.graph.inputs) != 1:
        raise ConfigError(f"network: {path} takes several inputs; use convoxel.load in Python.")
    (value,) = program.graph.inputs
    if shape is not None:
        return Path(path).name, parse_shape(shape), program
    usual = {0: 1}
    sizes = tuple(
        extent if isinstance(extent, int) else usual.get(axis, _USUAL_SIZE) for axis, extent in enumerate(value.shape)
    )
    return Path(path).name, sizes, program


def _check_algorithm(name: str) -> None:
    """Refuse an unknown name before the network is built, which may take a while."""
    from convoxel.native import algorithms

    known = ["auto", "fast", "direct", "winograd", *(row["name"] for row in algorithms())]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"algorithm: got {name!r}; expected one of {', '.join(known)}.{hint}")


def _row(step: dict[str, Any]) -> tuple[str, ...]:
    rate = f"{step['gflops']:.1f}" if step["macs"] else ""
    size = "×".join(map(str, step["shape"]))
    return step["name"], step["operator"], step["algorithm"], size, f"{1e3 * step['time_s']:.2f}", rate
