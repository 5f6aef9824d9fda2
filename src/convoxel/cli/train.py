"""``convoxel train``: from images to a trained network, with everything about it in one folder."""

from __future__ import annotations

import contextlib
import re
from json import loads as read_json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convoxel.cli.progress import Meter
from convoxel.cli.screen import Screen, command_line, duration, emit, number
from convoxel.errors import CheckpointError, ConfigError, ConvoxelError

if TYPE_CHECKING:
    from convoxel.train import RunResult, TrainConfig

__all__ = ["finish", "train"]

_METRIC = {"segment": "Dice", "classify": "accuracy"}


def train(
    task: Annotated[str | None, typer.Argument(metavar="segment|classify", help="What to learn.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Folder, .npz file, or one of the bundled mni152 (segment), digits (classify).")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Network; `convoxel models` lists them.")] = None,
    levels: Annotated[int | None, typer.Option(help="2× poolings of a U-Net.")] = None,
    width: Annotated[float | None, typer.Option(help="U-Net: channels at full size; others: a factor.")] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE|RUN", help="Start from these: .safetensors, .pth, or another run.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Train so long (10 unless --epochs).")] = None,
    epochs: Annotated[int | None, typer.Option(help="Train so many epochs.")] = None,
    validation: Annotated[
        str | None, typer.Option(help="Held-out samples: a count (30) or a fraction (0.2); segment: the last by name.")
    ] = None,
    gap: Annotated[int | None, typer.Option(help="mni152: voxels left unused between the parts.")] = None,
    patch: Annotated[str | None, typer.Option(help="Size of a training patch: 48,48,48.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Patches or images a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Largest learning rate.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, patches and augmentation (0).")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads (all).")] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any other entry, such as optimiser=sgd.")
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE.yaml", help="Configuration; flags go before it.")] = None,
    output: Annotated[Path | None, typer.Option(metavar="RUN", help="New folder for the run.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Go on with the run in this folder.")] = None,
    force: Annotated[bool, typer.Option("--force", help="With --resume: even if data or settings changed.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Train a network on images: segment them, or tell their class.

    What is not given is chosen from the data. The folder of the run receives checkpoints, curves, example
    predictions and a report. Ctrl-C saves a checkpoint; --resume goes on from it.
    """
    entries = {
        "task": task,
        "data": data,
        "model": model,
        "levels": levels,
        "width": width,
        "weights": None if weights is None else str(weights),
        "validation": None if validation is None else _parse_share(validation),
        "gap": gap,
        "patch": None if patch is None else _parse_sizes(patch),
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "threads": threads,
    }
    length = {"minutes": minutes, "epochs": epochs}
    if force and resume is None:
        raise ConfigError("force: given without --resume; expected both. A new run needs a new --output.")
    made = _configure(entries, length, assign or [], config, output, resume)
    screen = Screen(json)
    result = run(made, screen, resume=resume is not None, force=force)
    finish(made, result, screen, json)


def run(config: TrainConfig, screen: Screen, *, resume: bool, force: bool = False) -> RunResult:
    """Train with a progress bar and return how it went."""
    from convoxel.train import fit

    with Meter(screen, _METRIC[config.task]) as meter:
        return fit(config, resume=resume, force=force, on_progress=meter)


def finish(config: TrainConfig, result: RunResult, screen: Screen, json: bool) -> None:
    """Print how a run went, write its report, and leave with the signal's code if one ended it."""
    metric = _METRIC[config.task]
    summary: dict[str, Any] = {
        "run": str(result.path),
        "interrupted": result.interrupted,
        "metric_name": metric,
        "best_metric": result.best_metric,
        "per_class": result.metrics.get("per_class", {}),
        "seconds": result.seconds,
        "steps": result.steps,
        "report": None,
    }
    again = command_line("convoxel", "train", "--resume", result.path)
    from convoxel.draw.report import write_report

    if result.interrupted:
        screen.say(f"Stopped after {result.steps} steps; a checkpoint was saved in {result.path}.")
        # The curves so far; what matters is saved already, so a report that fails must not hide how to go on.
        with contextlib.suppress(ConvoxelError):
            summary["report"] = str(write_report(result.path))
            screen.say(f"Report so far: {summary['report']}")
        screen.say(f"Go on with: {again}")
        if json:
            emit({**summary, "resume": again})
        raise typer.Exit(128 + (result.signal or 2))
    with contextlib.suppress(OSError, ValueError, KeyError):
        summary["weights"] = read_json((result.path / "weights.json").read_text(encoding="utf-8"))["summary"]
        screen.say(f"Started from {summary['weights']}.")
    rows = [(name, number(value)) for name, value in summary["per_class"].items()]
    screen.say(f"Best on the validation part: {metric} {number(result.best_metric)}", "bold")
    screen.table(f"class|>{metric}", rows)
    screen.say(f"Trained {duration(result.seconds)}, {result.steps} steps. The run lies in {result.path}")
    summary["report"] = str(write_report(result.path))
    screen.say(f"Report: {summary['report']}")
    target = "labels" if config.task == "segment" else "classes.csv"
    screen.say(f"Predict: {command_line('convoxel', 'predict', result.path, '--input')} IMAGES --output {target}")
    if json:
        emit(summary)


def _configure(
    entries: dict[str, Any],
    length: dict[str, Any],
    assign: list[str],
    file: Path | None,
    output: Path | None,
    resume: Path | None,
) -> TrainConfig:
    """Return the configuration that flags, file and (resumed) run state together; flags go first."""
    from convoxel.train import TrainConfig

    if resume is not None and output is not None and output.absolute() != resume.absolute():
        raise ConfigError(
            f"output: {output} given, but --resume {resume} goes on in its own folder. Leave --output out."
        )
    folder = resume or output
    if folder is not None:
        entries = {**entries, "output": str(folder)}
    stated = {name: value for name, value in {**entries, **length}.items() if value is not None}
    if resume is not None:
        stated = {**_stored(resume), **stated}
    if file is not None:
        # Two limits exclude each other, so one in a flag withdraws the other in the file.
        lengths = [f"{name}={value}" for name, value in length.items() if value is not None]
        if len(lengths) == 1:
            stated = {name: value for name, value in stated.items() if name not in length}
            return TrainConfig.from_yaml(file, **stated).override([*lengths, *assign])
        return TrainConfig.from_yaml(file, **stated).override(assign)
    named = {assignment.partition("=")[0].strip() for assignment in assign}
    missing = [name for name in ("task", "data", "output") if name not in stated and name not in named]
    if missing:
        words = {"task": "segment or classify", "data": "--data DIR", "output": "--output RUN"}
        raise ConfigError(
            f"train: not given: {', '.join(words[name] for name in missing)}. For example: "
            "convoxel train segment --data DIR --minutes 20 --output run"
        )
    required = {name: value for name, value in stated.items() if name in ("task", "data", "output")}
    required = {**dict.fromkeys(named & {"data", "output"}, "unset"), **required}
    if "task" in named and "task" not in required:
        required["task"] = "segment"
    optional = {name: value for name, value in stated.items() if name not in required}
    return TrainConfig.build(**required, **optional).override(assign)


def _stored(run: Path) -> dict[str, Any]:
    """Return task and data of a run: what a resumed run must not be asked for again."""
    from convoxel.train import TrainConfig

    if not (run / "checkpoints").is_dir():
        raise CheckpointError(f"resume: {run} holds no run. Give the folder that --output named.")
    try:
        stored = TrainConfig.from_yaml(run / "config.yaml")
    except ConfigError:  # the file is for people; the checkpoint knows it too
        from convoxel.train import load_model

        stored = load_model(run, "last").config
    return {"task": stored.task, "data": stored.data}


def _parse_share(text: str) -> int | float:
    try:
        return int(text) if re.fullmatch(r"[+-]?\d+", text.strip()) else float(text)
    except ValueError:
        raise ConfigError(f"validation: got {text!r}; expected a count (30) or a fraction (0.2).") from None


def _parse_sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in re.split(r"[,x×\s]+", text.strip()))
    except ValueError:
        raise ConfigError(f"patch: got {text!r}; expected one whole number an axis, such as 48,48,48.") from None
