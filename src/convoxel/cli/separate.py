"""``convoxel separate``: a trained network with smaller convolutions, where that is measured or counted to save."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from convoxel.cli.options import Device, Engine, Json, Plot, Run, Threads, TrainingEpochs, Which, check_figure
from convoxel.cli.screen import Screen, command_line, emit, milliseconds, number
from convoxel.cli.train import finish_training, run_training
from convoxel.errors import ConfigError

if TYPE_CHECKING:
    from convoxel.train.run_separation import RunSeparation


def separate(
    run: Run,
    max_error: Annotated[
        float | None, typer.Option(help="Largest relative change of the output (default: 0.05 without a loss).")
    ] = None,
    max_accuracy_loss: Annotated[
        float | None, typer.Option(help="Largest fall of accuracy or Dice on the validation part.")
    ] = None,
    max_loss: Annotated[
        float | None, typer.Option(help="Largest rise of the loss on the validation part, such as 0.005.")
    ] = None,
    goal: Annotated[
        Literal["time", "macs", "params"], typer.Option(help="What has to fall: measured time, or exact counts.")
    ] = "time",
    fine_tune: Annotated[
        int, typer.Option(metavar="STEPS", help="Training steps for each trial, with a limit of accuracy or loss.")
    ] = 0,
    minutes: Annotated[
        float | None, typer.Option(help="Train the run in --output for so long; --resume goes on where it stopped.")
    ] = None,
    epochs: TrainingEpochs = None,
    batch: Annotated[int | None, typer.Option(help="Samples timed at once (default: batch size of the run).")] = None,
    engine: Engine = "convoxel",
    device: Device = "auto",
    which: Which = "best",
    threads: Threads = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="New folder: a run of the smaller network, and all figures.")
    ] = None,
    plot: Plot = None,
    json: Json = False,
) -> None:
    """Replace convolutions of a trained network by smaller ones, where that is measured or counted to save.

    Each layer of a 1-D to 3-D network is tried along space (k×1 then 1×k), along channels, along both, and each channel
    by itself, within a limit of error, of accuracy, or of the loss on the validation part. --output becomes a run that
    predicts, evaluates, exports and compiles as others do; --minutes or --epochs train it on. --plot draws every trial.
    """
    from convoxel.graph.threads import limit_threads
    from convoxel.train.run_separation import save_separated, separate_run

    limits = {"max_error": max_error, "max_accuracy_loss": max_accuracy_loss, "max_loss": max_loss}
    given = [name for name, value in limits.items() if value is not None]
    if len(given) > 1:
        raise ConfigError(f"{given[0]}: given with {given[1]}; expected one limit. Leave one of them out.")
    if not given:
        max_error = 0.05
    if output is not None and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"output: {output} exists and is not empty. Give another --output.")
    if plot is not None and max_accuracy_loss is None and max_loss is None:
        raise ConfigError(
            "plot: given without max_accuracy_loss or max_loss; expected one of them. Only their trials have a quality "
            "to draw."
        )
    if minutes is not None and epochs is not None:
        raise ConfigError("minutes: given with epochs; expected one of them. Leave one out.")
    tuned = "minutes" if minutes is not None else "epochs" if epochs is not None else None
    if tuned is not None and output is None:
        raise ConfigError(f"{tuned}: given without --output; expected both. The run that is trained needs a folder.")
    check_figure("plot", plot)
    screen = Screen(json)
    with limit_threads(threads), screen.status("reading the run") as status:
        made = separate_run(
            run,
            max_error=max_error,
            max_accuracy_loss=max_accuracy_loss,
            max_loss=max_loss,
            fine_tune=fine_tune,
            batch=batch,
            engine=engine,
            goal=goal,
            which=which,
            device=device,
            on_progress=status.update,
        )
        if output is not None:
            save_separated(made, run, output, which=which, minutes=minutes, epochs=epochs)
    found = made.separation
    if plot is not None:
        from convoxel.draw.separation_chart import separation

        separation(found, engine).save(plot)
    if not json:
        _print(screen, made, run, engine)
        if plot is not None:
            screen.say(f"Figure: {plot}")
    if output is not None and tuned is not None and found.replacements:
        from convoxel.train import configure_run

        config = configure_run({}, resume=output)
        return finish_training(config, run_training(config, screen, resume=True), screen, json)
    if json:
        return emit({"run": run, "engine": engine, "goal": goal, **made.to_dict(), "output": output, "plot": plot})
    if output is not None:
        screen.say(f"A run lies in {output}. Measure it: {command_line('convoxel', 'evaluate', output)}")


def _print(screen: Screen, made: RunSeparation, run: Path, engine: str) -> None:
    found = made.separation
    if found.trials:
        trials = (
            (f"{row.max_error:g}", row.layers, milliseconds(row.time_s, 3), f"{row.params:,}", number(row.score))
            for row in found.trials
        )
        screen.table(">limit|>layers|>ms|>parameters|>score", trials)
    if not found.replacements:
        screen.say(f"{run}: no layer is smaller in pieces within this limit.", "bold")
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
    if made.metric is not None and made.loss is not None:
        metric, loss = (f"{number(before)} → {number(after)}" for before, after in (made.metric, made.loss))
        screen.say(f"On the validation part: metric {metric}, loss {loss}")


def _change(pair: tuple[int, int]) -> str:
    return f"{pair[0]:,} → {pair[1]:,}"


def _times(pair: tuple[float, float]) -> str:
    return " → ".join(milliseconds(seconds, 3) for seconds in pair)
