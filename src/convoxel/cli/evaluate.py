"""``convoxel evaluate``: figures of a trained network on labelled images."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from convoxel.cli.screen import console, duration, emit, limit_threads, number, say, table

__all__ = ["Engine", "evaluate"]


class Engine(str, Enum):
    """What computes the network."""

    convoxel = "convoxel"
    torch = "torch"


class Part(str, Enum):
    """Which samples of a data set."""

    validation = "validation"
    train = "train"
    test = "test"
    all = "all"


class Which(str, Enum):
    """Which checkpoint of a run."""

    best = "best"
    last = "last"


# A terminal shows the worst cases; --json has them all.
_SHOWN = 5


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a trained run.")],
    data: Annotated[str | None, typer.Option(help="Labelled images; the run's own unless given.")] = None,
    split: Annotated[Part, typer.Option(help="Part of the data; unseen data count whole.")] = Part.validation,
    which: Annotated[Which, typer.Option(help="Checkpoint.")] = Which.best,
    engine: Annotated[Engine, typer.Option(help="What computes: our engine or PyTorch.")] = Engine.convoxel,
    threads: Annotated[int | None, typer.Option(help="CPU threads (all).")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print all figures as one JSON object.")] = False,
) -> None:
    """Measure a trained network on labelled images: Dice or accuracy, for each class and each image."""
    from convoxel.train import evaluate as measure

    screen = console(json)
    with limit_threads(threads), screen.status("reading data") as status:

        def show(index: int, sample: Any, prediction: Any) -> None:
            status.update(f"{index + 1} images, last {sample.name}")

        figures = measure(run, data, engine=engine.value, split=split.value, which=which.value, on_sample=show)
    if json:
        emit(figures)
        return
    _print(screen, figures, run)


def _print(screen: Console, figures: Mapping[str, Any], run: Path) -> None:
    segment = "dice" in (figures["samples"] or [{}])[0]
    name = "Dice" if segment else "accuracy"
    rows = [(label, number(value)) for label, value in figures["per_class"].items()]
    where = f"{figures['data']} ({figures['split']}, {figures['count']} images)"
    say(screen, f"{run} on {where}: {'mean ' if segment else ''}{name} {number(figures['metric'])}", "bold")
    screen.print(table(f"class|>{name}", rows))
    if segment and figures["count"] > 1:
        worst = sorted(figures["samples"], key=lambda row: row["metric"] if row["metric"] is not None else 2.0)
        say(screen, "Lowest: " + ", ".join(f"{row['name']} {number(row['metric'], 3)}" for row in worst[:_SHOWN]))
    wrong = [row for row in figures["samples"] if row.get("correct") is False]
    if wrong:
        listed = ", ".join(f"{row['name']} ({row['label']} as {row['predicted']})" for row in wrong[:_SHOWN])
        say(screen, f"{len(wrong)} wrong: {listed}{' …' if len(wrong) > _SHOWN else ''}")
    say(screen, f"{duration(figures['seconds'])} with engine {figures['engine']}, checkpoint of step {figures['step']}")
