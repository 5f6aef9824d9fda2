"""``convoxel plan``: what training would choose for some data, with the reasons, as a file to edit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from convoxel.cli.options import Assigned, ConfigFile, Json, TrainingEpochs, TrainingTask
from convoxel.cli.screen import Screen, command_line, emit


def plan(
    task: TrainingTask = None,
    data: Annotated[
        str | None, typer.Option(help="Folder, file of a whole data set, or a bundled set, as of `convoxel train`.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Time of the whole run in minutes; steps are measured (default: 10).")
    ] = None,
    epochs: TrainingEpochs = None,
    assign: Assigned = None,
    config: ConfigFile = None,
    output: Annotated[
        Path | None, typer.Option(metavar="PLAN.yaml", help="File for the plan (default: only shown).")
    ] = None,
    json: Json = False,
) -> None:
    """Choose a network and its training for some data, with the reason and number beside each choice.

    Levels, strides and kernels of each axis, patch, width, batch, spacing and normalisation follow from the sizes,
    spacings and values of the training images, from the memory that a step takes, and from measured steps in the
    minutes of the run. `convoxel train` chooses the same by itself. The YAML file may be edited;
    `convoxel train --config` reads it.

    Every setting of `convoxel train` is an option too, such as --levels 4, --slices 3 or --optimiser sgd.
    """
    from convoxel.files.atomic import write_text
    from convoxel.train import configure_run, plan_file

    entries = {"task": task, "data": data, "minutes": minutes, "epochs": epochs}
    stated = {name: value for name, value in entries.items() if value is not None}
    found = plan_file(configure_run(stated, assign or (), file=config, output=Path("run")))
    screen = Screen(json)
    for line in str(found.plan).splitlines():
        screen.say(line)
    if output is not None:
        write_text(output, found.text)
        again = command_line("convoxel", "train", "--config", output, "--output")
        screen.say(f"Written to {output}. Train it: {again} RUN")
    if json:
        emit({"config": found.config.to_dict(), "reasons": found.reasons, "plan": dict(found.plan.choices)})
