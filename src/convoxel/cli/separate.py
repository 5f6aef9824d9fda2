"""``convoxel separate``: a trained network with smaller convolutions, where that is measured to be faster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from convoxel.cli.evaluate import Engine, Which
from convoxel.cli.screen import command_line, console, emit, limit_threads, number, say, table
from convoxel.errors import ConfigError

__all__ = ["separate"]


def separate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a trained run.")],
    max_error: Annotated[
        float | None, typer.Option(help="Largest relative change of the output (0.05 unless a loss is given).")
    ] = None,
    max_accuracy_loss: Annotated[
        float | None, typer.Option(help="Largest fall of accuracy or Dice on the validation part.")
    ] = None,
    fine_tune: Annotated[int, typer.Option(metavar="STEPS", help="With a loss: training steps for each trial.")] = 0,
    batch: Annotated[int | None, typer.Option(help="Samples timed at once; the run's batch size.")] = None,
    engine: Annotated[Engine, typer.Option(help="What is timed: our engine or PyTorch.")] = Engine.convoxel,
    which: Annotated[Which, typer.Option(help="Checkpoint.")] = Which.best,
    threads: Annotated[int | None, typer.Option(help="CPU threads (all).")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="New folder: network.cvx, its weights, all figures.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw every trial, quality over time: .svg, .png or .html.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print all figures as one JSON object.")] = False,
) -> None:
    """Replace convolutions of a trained network by smaller ones, where that is measured to be faster.

    Each layer is tried along space (k×1 then 1×k), along channels and each channel by itself, within a limit of
    error, or of accuracy on the validation part. The new network goes to --output.
    """
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
    if plot is not None and not plot.absolute().parent.is_dir():
        raise ConfigError(f"plot: the folder of {plot} is not there. Create it first, or give another --plot.")
    screen = console(json)
    with limit_threads(threads), screen.status("reading the run") as status:
        found = separate_run(
            run,
            max_error=max_error,
            max_accuracy_loss=max_accuracy_loss,
            fine_tune=fine_tune,
            batch=batch,
            engine=engine.value,
            which=which.value,
            on_progress=status.update,
        )
        figures: dict[str, Any] = {"run": str(run), "engine": engine.value, **found.to_dict(), "output": None}
        if output is not None:
            from convoxel.train import load_model

            shape = load_model(run, which.value).input_shape
            figures["output"] = str(save_separated(found, run, output, shape))
    if plot is not None:
        _draw(figures, plot)
    if json:
        emit({**figures, "plot": plot})
        return
    _print(screen, figures)
    if plot is not None:
        say(screen, f"Figure: {plot}")


def _draw(figures: dict[str, Any], path: Path) -> None:
    """Quality over time of the network as it was and of every trial."""
    from convoxel.draw import Entry, pareto

    entries = [Entry("trained", 1e3 * figures["time_s"][0], figures["score"][0])]
    entries += [
        Entry(f"≤ {row['max_error']:g}, {row['layers']} layers", 1e3 * row["time_s"], row["score"])
        for row in figures["trials"]
    ]
    title = "Separated networks, by output error and layers replaced"
    pareto(entries, x=f"ms on {figures['engine']}", y="validation score", title=title).save(path)


def _print(screen: Console, figures: dict[str, Any]) -> None:
    if figures["trials"]:
        rows = [_trial(row) for row in figures["trials"]]
        screen.print(table(">output error|>layers|>ms|>parameters|>score", rows))
    if not figures["replacements"]:
        say(
            screen,
            f"{figures['run']}: no layer is faster in smaller pieces within this limit.",
            "bold",
        )
    else:
        headings = "layer|scheme|>ranks|>kernel error|>parameters|>MACs|>ms"
        screen.print(table(headings, [_row(row) for row in figures["replacements"]]))
        before, after = figures["time_s"]
        say(screen, f"{figures['speedup']:.2f} × as fast on engine {figures['engine']}: {1e3 * before:.3f} → "
                    f"{1e3 * after:.3f} ms; parameters {_change(figures['params'])}, MACs {_change(figures['macs'])}; "
                    f"output error {figures['error']:.3f}", "bold")  # fmt: skip
        if figures["score"]:
            say(screen, f"On the validation part: {number(figures['score'][0])} → {number(figures['score'][1])}")
    if figures["output"]:
        path = Path(figures["output"]) / "network.cvx"
        say(screen, f"Saved. Run it: {command_line('convoxel', 'run', path, '--input')} x.npy")


def _trial(row: dict[str, Any]) -> tuple[str, ...]:
    spent = f"{1e3 * row['time_s']:.3f}"
    return f"{row['max_error']:g}", str(row["layers"]), spent, f"{row['params']:,}", number(row["score"])


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    spent = " → ".join(f"{1e3 * value:.3f}" for value in row["time_s"])
    ranks, error = ",".join(map(str, row["ranks"])), f"{row['kernel_error']:.3f}"
    return row["name"], row["scheme"], ranks, error, _change(row["params"]), _change(row["macs"]), spent


def _change(pair: tuple[int, int]) -> str:
    return f"{pair[0]:,} → {pair[1]:,}"
