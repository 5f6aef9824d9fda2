"""``convoxel demo``: a 3-D U-Net on a real MR image, from nothing to pictures, in one command."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convoxel.cli.options import Json, Threads
from convoxel.cli.screen import Screen, command_line, duration, emit, number, percent, plural, times
from convoxel.cli.train import run_training

if TYPE_CHECKING:
    from convoxel.files.values import JsonObject


def demo(
    output: Annotated[Path, typer.Option(help="Folder for the run, the pictures and the figures.")] = Path(
        "convoxel-demo"
    ),
    minutes: Annotated[
        float, typer.Option(help="Time of the training in minutes, from reading the data to its evaluation.")
    ] = 4.0,
    threads: Threads = None,
    force: Annotated[bool, typer.Option("--force", help="Train anew, even if the folder has a trained demo.")] = False,
    json: Json = False,
) -> None:
    """Train, evaluate, compile and look at a 3-D U-Net that finds grey and white matter in an MR template.

    The front of the head trains, the back is held out, and a gap wider than the network's receptive field
    lies between. A folder that holds a demo is used again: training goes on, or is skipped if it is
    complete. No other folder is touched.
    """
    from convoxel.demonstration import MARK, MODEL, prepare_demo
    from convoxel.graph.threads import limit_threads

    screen = Screen(json)
    with limit_threads(threads):
        made = prepare_demo(output, minutes, threads, force)
        if made.found:
            again = "its training is used again (--force trains anew)"
            screen.say(f"{output} holds a demo; {again if made.resume else 'its settings differ: trained anew'}.")
        levels, width = MODEL["levels"], MODEL["width"]
        learns = "learns grey and white matter from the front of the MNI152 template."
        screen.say(f"A 3-D U-Net ({levels} levels, {width} channels) {learns}", "bold")
        unused = f"so {made.config.gap} voxels before the held-out back stay unused."
        screen.say(f"Its receptive field is {times(made.field)} voxels, {unused}")
        result = run_training(made.config, screen, resume=made.resume)
        if result.interrupted:
            screen.say(f"Stopped after {plural(result.steps, 'step')}; a checkpoint was saved in {result.path}.")
            words = command_line("convoxel", "demo", "--output", output, "--minutes", f"{minutes:g}")
            screen.say(f"Go on with: {words}")
            raise typer.Exit(128 + (result.signal or 2))
        screen.say(f"Trained {duration(result.seconds)}, {plural(result.steps, 'step')}.")
        status = screen.status("") if screen.is_terminal else None
        with status or contextlib.nullcontext():
            figures = made.measure(result, screen.say if status is None else status.update)
    _print_comparison(screen, figures)
    if json:
        return emit(figures)
    screen.say(f"Report     {figures['report']}")
    screen.say(f"Pictures   {', '.join(figures['pictures'])}")
    screen.say(f"Figures    {output / MARK}")
    screen.say(f"Done in {duration(figures['total_s'])}. Next, try:")
    run = figures["run"]
    for words in (
        f"{command_line('convoxel', 'predict', run)} --input T1.nii.gz --output labels.nii.gz",
        command_line("convoxel", "compile", run),
        command_line("convoxel", "evaluate", run, "--engine", "torch"),
        f"{command_line('tensorboard', '--logdir', run)}",
        "convoxel train segment --data YOUR_FOLDER --minutes 20 --output my-run",
    ):
        screen.say(f"  {words}")


def _print_comparison(screen: Screen, figures: JsonObject) -> None:
    dice, seconds = figures["dice"], figures["seconds"]
    size, tile = times(figures["data"]["held_out_shape"]), times(figures["tile"])
    screen.say()
    screen.say(f"The held-out back of the head, {size} voxels in {figures['tiles']} windows of {tile}", "bold")
    rows = [
        (f"Dice {name}", *(number(dice[engine][name]) for engine in ("convoxel", "torch"))) for name in dice["torch"]
    ]
    screen.table(
        "|>Convoxel|>PyTorch", [*rows, ("seconds", number(seconds["convoxel"], 2), number(seconds["torch"], 2))]
    )
    screen.say(f"Speed-up                         {figures['speed_up']:.2f}× on {plural(figures['threads'], 'thread')}")
    screen.say(f"Largest |difference| of logits   {figures['difference']:.1e} of their RMS")
    screen.say(f"Voxels of equal class            {percent(figures['equal'], 4)}")
    screen.say()
