"""``convoxel separate``: a trained network with smaller convolutions, where that is measured to be faster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convoxel.cli.options import Device, Engine, Json, Plot, Run, Threads, Which, check_figure
from convoxel.cli.screen import Screen, command_line, emit, milliseconds, number
from convoxel.errors import ConfigError

if TYPE_CHECKING:
    from convoxel.nn.separation import Separation


def separate(
    run: Run,
    max_error: Annotated[
        float | None, typer.Option(help="Largest relative change of the output (default: 0.05 without a loss).")
    ] = None,
    max_accuracy_loss: Annotated[
        float | None, typer.Option(help="Largest fall of accuracy or Dice on the validation part.")
    ] = None,
    fine_tune: Annotated[
        int, typer.Option(metavar="STEPS", help="Training steps for each trial, with --max-accuracy-loss.")
    ] = 0,
    batch: Annotated[int | None, typer.Option(help="Samples timed at once (default: batch size of the run).")] = None,
    engine: Engine = "convoxel",
    device: Device = "auto",
    which: Which = "best",
    threads: Threads = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="New folder for network.cvx, its weights and all figures.")
    ] = None,
    plot: Plot = None,
    json: Json = False,
) -> None:
    """Replace convolutions of a trained network by smaller ones, where that is measured to be faster.

    Each layer is tried along space (k×1 then 1×k), along channels and each channel by itself, within a limit of
    error, or of accuracy on the validation part. The new network goes to --output; --plot draws every trial.
    """
    from convoxel.graph.threads import limit_threads
    from convoxel.train.run_separation import save_separated, separate_run

    if max_error is not None and max_accuracy_loss is not None:
        raise ConfigError("max_error: given with max_accuracy_loss; expected one limit. Leave one of them out.")
    if max_accuracy_loss is None and max_error is None:
        max_error = 0.05
    if output is not None and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"output: {output} exists and is not empty. Give another --output.")
    if plot is not None and max_accuracy_loss is None:
        raise ConfigError(
            "plot: given without max_accuracy_loss; expected both. Only its trials have a quality to draw."
        )
    check_figure("plot", plot)
    screen = Screen(json)
    with limit_threads(threads), screen.status("reading the run") as status:
        found = separate_run(
            run,
            max_error=max_error,
            max_accuracy_loss=max_accuracy_loss,
            fine_tune=fine_tune,
            batch=batch,
            engine=engine,
            which=which,
            device=device,
            on_progress=status.update,
        )
        if output is not None:
            from convoxel.lookup import find_network

            save_separated(found, run, output, find_network(str(run)).shape)
    if plot is not None:
        from convoxel.draw.separation_chart import separation

        separation(found, engine).save(plot)
    if json:
        return emit({"run": run, "engine": engine, **found.to_dict(), "output": output, "plot": plot})
    _print(screen, found, run, engine)
    if output is not None:
        screen.say(f"Saved. Run it: {command_line('convoxel', 'run', output / 'network.cvx', '--input')} x.npy")
    if plot is not None:
        screen.say(f"Figure: {plot}")


def _print(screen: Screen, found: Separation, run: Path, engine: str) -> None:
    if found.trials:
        trials = (
            (f"{row.max_error:g}", row.layers, milliseconds(row.time_s, 3), f"{row.params:,}", number(row.score))
            for row in found.trials
        )
        screen.table(">output error|>layers|>ms|>parameters|>score", trials)
    if not found.replacements:
        screen.say(f"{run}: no layer is faster in smaller pieces within this limit.", "bold")
        return
    rows = (
        (row.name, row.scheme, ",".join(map(str, row.ranks)), number(row.kernel_error, 3), _change(row.params),
         _change(row.macs), _times(row.time_s))
        for row in found.replacements
    )  # fmt: skip
    screen.table("layer|scheme|>ranks|>kernel error|>parameters|>MACs|>ms", rows)
    screen.say(
        f"{found.speedup:.2f} × as fast on engine {engine}: {_times(found.time_s)} ms; parameters "
        f"{_change(found.params)}, MACs {_change(found.macs)}; output error {number(found.error, 3)}",
        "bold",
    )
    if found.score:
        screen.say(f"On the validation part: {number(found.score[0])} → {number(found.score[1])}")


def _change(pair: tuple[int, int]) -> str:
    return f"{pair[0]:,} → {pair[1]:,}"


def _times(pair: tuple[float, float]) -> str:
    return " → ".join(milliseconds(seconds, 3) for seconds in pair)
