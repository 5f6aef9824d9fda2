"""``convoxel train``: from images to a trained network, with everything about it in one folder."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from convoxel.cli.options import (
    Assigned,
    Axes,
    ConfigFile,
    IgnoreLabel,
    Json,
    Rate,
    Regions,
    ResampleLabels,
    Threads,
    TrainingEpochs,
    TrainingTask,
)
from convoxel.cli.parsing import parse_regions, parse_share, parse_sizes
from convoxel.cli.progress import Meter
from convoxel.cli.screen import Screen, by_class, command_line, duration, emit, number, plural
from convoxel.errors import ConfigError, ConvoxelError

if TYPE_CHECKING:
    from convoxel.train import RunPlan, RunResult, TrainConfig


def _list_losses(asked: str | None) -> str | None:
    """Print all losses and leave where they are asked for; no data are needed."""
    if asked == "list":
        from convoxel.predict.loss_terms import list_losses, list_options

        rows = (
            (row.task, row.word, row.words, row.options, "yes" if row.weighed else "no", row.source)
            for row in list_losses()
        )
        screen = Screen()
        screen.table("task|loss|terms|options|class weights|source", rows)
        screen.say()
        screen.table("option|limits|meaning", list_options())
        screen.say("The first loss of a task is its default. Options: --set loss_options.gamma=1.5")
        raise typer.Exit
    return asked


def train(
    task: TrainingTask = None,
    data: Annotated[
        str | None,
        typer.Option(help="Folder, file of a whole data set, or a bundled set: mni152 (segment), digits (classify)."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Network; `convoxel models` lists them (default: chosen from the data).")
    ] = None,
    levels: Annotated[int | None, typer.Option(help="Number of 2× poolings of a U-Net.")] = None,
    width: Annotated[
        float | None, typer.Option(help="Channels of a U-Net at full size; of other networks, a factor.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE|RUN", help="Weights to start from: .safetensors, .pth, or another run.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="Time of the whole run in minutes, its closing evaluation included (default: 10)."),
    ] = None,
    epochs: TrainingEpochs = None,
    validation: Annotated[
        str | None,
        typer.Option(
            help="Held-out samples, or known subjects: a count (30) or a fraction (0.2); segment: the last by name."
        ),
    ] = None,
    folds: Annotated[
        int | None, typer.Option(help="Parts of a cross-validation, drawn by --seed; one validates.")
    ] = None,
    fold: Annotated[int | None, typer.Option(help="The part that validates: 0 to folds − 1 (default: 0).")] = None,
    split: Annotated[
        str | None, typer.Option(metavar="FILE.json", help="Samples of every part, as split.json of a run lists them.")
    ] = None,
    subject_pattern: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="Finds the subject in a sample's name; a subject is never split."),
    ] = None,
    regions: Regions = None,
    ignore_label: IgnoreLabel = None,
    axes: Axes = None,
    rate: Rate = None,
    gap: Annotated[int | None, typer.Option(help="mni152: voxels left unused between the parts.")] = None,
    patch: Annotated[str | None, typer.Option(help="Size of a training patch, such as 48,48,48.")] = None,
    spacing: Annotated[
        str | None,
        typer.Option(metavar="MM|keep", help="Voxel spacing to resample to, such as 1,1,3 (default: the median)."),
    ] = None,
    orientation: Annotated[
        Literal["ras", "keep"] | None,
        typer.Option(help="Axes towards the patient's right, front and top, or as stored (default: ras)."),
    ] = None,
    resample_labels: ResampleLabels = False,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="WORD|list",
            callback=_list_losses,
            is_eager=True,
            help="Loss, such as dice_focal or generalised_dice; list prints all with their numbers for --set.",
        ),
    ] = None,
    slices: Annotated[
        int | None,
        typer.Option(
            metavar="ODD", help="2.5-D: a 2-D network sees so many neighbouring slices of a volume as channels."
        ),
    ] = None,
    slice_axis: Annotated[
        int | None,
        typer.Option(help="Axis of the network's grid across which slices follow each other (default: the thickest)."),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Patches or images in each step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Largest learning rate.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Random seed of weights, patches and augmentation (default: 0).")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="WORD", help="auto (a GPU where there is one), cpu, cuda, cuda:1, mps; also with --resume."
        ),
    ] = None,
    threads: Threads = None,
    assign: Assigned = None,
    config: ConfigFile = None,
    output: Annotated[Path | None, typer.Option(metavar="RUN", help="New folder for the run.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Continue the run in this folder.")] = None,
    resume_if_present: Annotated[
        bool, typer.Option("--resume-if-present", help="Continue the run in --output if there is one, else begin it.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --resume: continue even if data or settings have changed.")
    ] = False,
    json: Json = False,
) -> None:
    """Train a network on images: segment them, or tell their class.

    What is not given is chosen from the data. The folder of the run receives checkpoints, curves, example
    predictions and a report. Ctrl-C saves a checkpoint; --resume continues from it. Several processes or machines train
    together under `torchrun --nproc-per-node N -m convoxel train …`.

    Every other setting is an option too, such as --optimiser sgd, --weight-decay 1e-3, --augment strong,
    --augment.rotate 15, --rates.encoder.* 0.1 or --ema 0.999, and so is every option of the network, such as --norm
    instance, --block residual, --dilation 2, --padding reflect, --dropout 0.2 or --dropout-where all.
    """
    from convoxel.train import configure_run, has_run

    if resume_if_present and (output is None or resume is not None):
        raise ConfigError(
            "resume_if_present: given without --output; expected the folder of the run in --output alone."
        )
    if resume_if_present and output is not None and has_run(output):
        resume = output
    if force and resume is None:
        raise ConfigError("force: given without --resume; expected both. A new run needs a new --output.")
    entries = {
        "task": task,
        "data": data,
        "model": model,
        "levels": levels,
        "width": width,
        "weights": None if weights is None else str(weights),
        "minutes": minutes,
        "epochs": epochs,
        "validation": None if validation is None else parse_share(validation),
        "folds": folds,
        "fold": fold,
        "split": split,
        "subject_pattern": subject_pattern,
        "regions": None if regions is None else parse_regions(regions),
        "ignore_label": ignore_label,
        "axes": axes,
        "rate": rate,
        "gap": gap,
        "patch": None if patch is None else parse_sizes("patch", patch),
        "spacing": spacing,
        "orientation": orientation,
        "resample_labels": resample_labels or None,
        "loss": loss,
        "slices": slices,
        "slice_axis": slice_axis,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "device": device,
        "threads": threads,
    }
    stated = {name: value for name, value in entries.items() if value is not None}
    made = configure_run(stated, assign or (), file=config, output=output, resume=resume)
    screen = Screen(json)
    result = run_training(made, screen, resume=resume is not None, force=force)
    if not result.first:  # one of several processes: the first one tells how it went
        raise typer.Exit(128 + (result.signal or 2) if result.interrupted else 0)
    finish_training(made, result, screen, json)


def run_training(config: TrainConfig, screen: Screen, *, resume: bool, force: bool = False) -> RunResult:
    """Train with a progress bar, after everything that was chosen was shown, and return how it went."""
    from convoxel.train import fit

    def show(plan: RunPlan) -> None:
        meter.pause()
        for line in str(plan).splitlines():
            screen.say(line)

    with Meter(screen) as meter:
        return fit(config, resume=resume, force=force, on_progress=meter, on_plan=show)


def _send_files(run: Path) -> None:
    """Send the closing files of a run to its trackers, where that is asked for."""
    from convoxel.train import TrainConfig
    from convoxel.train.tracking import send_files

    config = TrainConfig.from_yaml(run / "config.yaml")
    if config.track_files:
        send_files(run, config.track, [run / name for name in ("report.html", "evaluation.json", "config.yaml")])


def finish_training(config: TrainConfig, result: RunResult, screen: Screen, json: bool) -> None:
    """Print how a run went, write its report, and leave with the signal's code if one ended it."""
    from convoxel.report import write_report
    from convoxel.train import started_from

    metric = result.metric_name.removeprefix("mean ") if config.task == "segment" else result.metric_name
    summary: dict[str, object] = {
        "run": str(result.path),
        "interrupted": result.interrupted,
        "early": result.early,
        "metric_name": metric,
        "best_metric": result.best_metric,
        "per_class": result.metrics.get("per_class", {}),
        "seconds": result.seconds,
        "steps": result.steps,
        "warnings": result.warnings,
        "report": None,
    }
    if result.interrupted:
        again = command_line("convoxel", "train", "--resume", result.path)
        screen.say(f"Stopped after {plural(result.steps, 'step')}; a checkpoint was saved in {result.path}.")
        # The curves so far; what matters is saved already, so a report that fails must not hide how to continue.
        with contextlib.suppress(ConvoxelError):
            summary["report"] = str(write_report(result.path))
            screen.say(f"Report so far: {summary['report']}")
        screen.say(f"Go on with: {again}")
        if json:
            emit({**summary, "resume": again})
        raise typer.Exit(128 + (result.signal or 2))
    weights = started_from(result.path)
    if weights is not None:
        summary["weights"] = weights
        screen.say(f"Started from {weights}.")
    classes = result.metrics.get("per_class", {})
    screen.say(
        f"Best on the validation part: {metric} {number(result.metrics.get('metric'))}{by_class(classes)}", "bold"
    )
    screen.table(f"class|>{metric}", ((name, number(value)) for name, value in classes.items()))
    if result.early:
        screen.say(f"Ended early: {plural(config.patience or 1, 'validation')} brought no better {metric}.")
    screen.say(f"Trained {duration(result.seconds)}, {plural(result.steps, 'step')}. The run lies in {result.path}")
    summary["report"] = str(write_report(result.path))
    screen.say(f"Report: {summary['report']}")
    _send_files(result.path)
    target = {"segment": "labels", "classify": "classes.csv", "regress": "values.csv"}[config.task]
    screen.say(f"Predict: {command_line('convoxel', 'predict', result.path, '--input')} IMAGES --output {target}")
    if json:
        emit(summary)
