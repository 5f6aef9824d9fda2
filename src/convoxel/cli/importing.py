"""``convoxel import``: networks that other tools trained, as runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from convoxel.cli.options import Json, command
from convoxel.cli.parsing import split_words
from convoxel.cli.progress import Counter
from convoxel.cli.screen import Screen, command_line, emit, plural

if TYPE_CHECKING:
    from convoxel.train.imported_run import ImportedRun

_EXAMPLE = "convoxel import nnunet nnUNetTrainer__nnUNetPlans__3d_fullres --output run"
app = typer.Typer(
    no_args_is_help=True, help="Make runs of networks that other tools trained.", epilog=f"Example: {_EXAMPLE}"
)


@command(app, _EXAMPLE)
def nnunet(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="Folder of trained networks: TRAINER__PLANS__CONFIGURATION, or TRAINER__PLANS of v1."
        ),
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
    trainer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Trainer of nnU-Net v1 that the folder's own predicts like, such as nnUNetTrainerV2."
        ),
    ] = None,
    postprocessing: Annotated[
        bool, typer.Option("--postprocessing/--no-postprocessing", help="Keep the clean-up that nnU-Net v1 found.")
    ] = True,
    json: Json = False,
) -> None:
    """Make a run of the networks that nnU-Net trained, which predicts as nnUNetv2_predict or nnUNet_predict does.

    Of v2 it reads plans.json, dataset.json and fold_*/checkpoint_*.pth of PlainConvUNet and ResidualEncoderUNet; of v1,
    fold_*/model_*.model, the .model.pkl beside it, and postprocessing.json. They are read as data, and nothing of them
    is run. Several folds become an ensemble.
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
            trainer=trainer,
            postprocessing=postprocessing,
            on_fold=lambda done, total: counter(done, total, "fold"),
        )
    _tell(screen, folder, target, runs, json=json)


@command(app, "convoxel import monai spleen_ct_segmentation --output run")
def monai(
    folder: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder with configs and models.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="RUN", help="New folder (default: named after the bundle).")
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,…", help="Transforms to leave out, where results are right without them."),
    ] = None,
    json: Json = False,
) -> None:
    """Make a run of the network in a bundle of MONAI, which predicts as the bundle's own pipeline does.

    It reads configs/inference.json (or .yaml), configs/metadata.json and models/model.pt as data, and runs nothing of
    them. A transform that a run cannot follow is refused by name.
    """
    from convoxel.train import import_monai

    target = output or Path(f"{folder.resolve().name}-run")
    screen = Screen(json)
    with screen.status("reading the bundle"):
        run = import_monai(folder, target, without=split_words(without) if without else ())
    _tell(screen, folder, target, [run], json=json)


def _tell(screen: Screen, source: Path, target: Path, runs: list[ImportedRun], *, json: bool) -> None:
    first = runs[0]
    if json:
        return emit({
            "source": source, "output": target, "model": first.config.model, "classes": list(first.data.classes),
            "patch": first.config.patch, "geometry": str(first.data.rule), "mirror": first.config.prediction.mirror,
            "runs": [{"fold": run.fold, "path": run.path, "parameters": run.parameters} for run in runs],
            "notes": list(first.notes),
        })  # fmt: skip
    many = f"{plural(len(runs), 'fold')} of " if first.fold else ""
    screen.say(
        f"{target}: {many}{first.config.model}, {first.parameters:,} parameters{' each' if many else ''}; "
        f"{first.data.rule}",
        "bold",
    )
    for note in first.notes:
        screen.say(f"Note: {note}.")
    screen.say(f"Predict: {command_line('convoxel', 'predict', target, '--input')} scans --output labels")
