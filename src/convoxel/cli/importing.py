"""``convoxel import``: networks that other tools trained, as runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from convoxel.cli.options import Json, command
from convoxel.cli.progress import Counter
from convoxel.cli.screen import Screen, command_line, emit, plural

_EXAMPLE = "convoxel import nnunet nnUNetTrainer__nnUNetPlans__3d_fullres --output run"
app = typer.Typer(
    no_args_is_help=True, help="Make runs of networks that other tools trained.", epilog=f"Example: {_EXAMPLE}"
)


@command(app, _EXAMPLE)
def nnunet(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder of trained networks: TRAINER__PLANS__CONFIGURATION.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="RUN", help="New folder (default: named after the data set)."),
    ] = None,
    folds: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS", help="Folds, such as 0,1,2 or all (default: all numbered ones that are there)."
        ),
    ] = None,
    checkpoint: Annotated[Literal["final", "best"], typer.Option(help="Checkpoint of each fold.")] = "final",
    json: Json = False,
) -> None:
    """Make a run of the networks that nnU-Net v2 trained, which predicts as nnUNetv2_predict does.

    It reads plans.json, dataset.json and fold_*/checkpoint_*.pth of PlainConvUNet and ResidualEncoderUNet as data, and
    runs nothing of them. Several folds become an ensemble.
    """
    from convoxel.train import import_nnunet

    source = folder.resolve()
    target = output or Path(f"{source.parent.name}-{source.name.rpartition('__')[2]}")
    chosen = None if folds is None else [word.strip() for word in folds.split(",")]
    screen = Screen(json)
    with Counter("importing") as counter:
        runs = import_nnunet(
            folder,
            target,
            folds=chosen,
            checkpoint=checkpoint,
            on_fold=lambda done, total: counter(done, total, "fold"),
        )
    first = runs[0]
    if json:
        return emit({
            "source": folder, "output": target, "model": first.config.model, "classes": list(first.data.classes),
            "patch": first.config.patch, "geometry": str(first.data.rule), "mirror": first.config.prediction.mirror,
            "runs": [{"fold": run.fold, "path": run.path, "parameters": run.parameters} for run in runs],
        })  # fmt: skip
    screen.say(
        f"{target}: {plural(len(runs), 'fold')} of {first.config.model}, {first.parameters:,} parameters each; "
        f"{first.data.rule}",
        "bold",
    )
    screen.say(f"Predict: {command_line('convoxel', 'predict', target, '--input')} scans --output labels")
