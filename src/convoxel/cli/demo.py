"""``convoxel demo``: a 3-D U-Net on a real MR image, from nothing to pictures, in one command."""

from __future__ import annotations

import contextlib
import datetime
import json as json_text
import platform
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convoxel.cli.comparison import Comparison, compare
from convoxel.cli.screen import Screen, command_line, duration, emit, number
from convoxel.cli.train import run as run_training
from convoxel.errors import ConfigError, ConvoxelError

if TYPE_CHECKING:
    from convoxel.data import DataSet, Sample
    from convoxel.train import RunResult, TrainConfig

__all__ = ["demo"]

_MODEL: dict[str, Any] = {"levels": 2, "width": 16}
# What the defaults of training would choose otherwise.
_TRAINING: dict[str, Any] = {"learning_rate": 0.005}
_MARK = "demo.json"
# Where to cut each plane, as a share of the held-out part's length, so that all show the brain's middle.
_CUTS = {"coronal": 0.85, "axial": 0.5, "sagittal": 0.45}


def demo(
    output: Annotated[Path, typer.Option(help="Folder for the run, the pictures and the figures.")] = Path(
        "convoxel-demo"
    ),
    minutes: Annotated[float, typer.Option(help="Train so long.")] = 4.0,
    threads: Annotated[int | None, typer.Option(help="CPU threads (all).")] = None,
    force: Annotated[bool, typer.Option("--force", help="Train anew, even if the folder has a trained demo.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print all figures as one JSON object.")] = False,
) -> None:
    """Train, evaluate, compile and look at a 3-D U-Net that finds grey and white matter in an MR template.

    The front of the head trains, the back is held out, and a gap wider than the network's receptive field
    lies between. A folder that holds a demo is used again: training goes on, or is skipped if it is
    complete. No other folder is touched.
    """
    from convoxel.graph.threads import limit_threads

    screen = Screen(json)
    begun = time.perf_counter()
    with limit_threads(threads):
        field = _receptive_field()
        config = _configure(output / "run", minutes, max(field), threads)
        resume = _prepare(output, config, force, screen)
        screen.say(f"A 3-D U-Net ({_MODEL['levels']} levels, {_MODEL['width']} channels) learns grey and white matter "
                    "from the front of the MNI152 template.", "bold")  # fmt: skip
        screen.say(f"Its receptive field is {'×'.join(map(str, field))} voxels, so {config.gap} voxels before the "
                    "held-out back stay unused.")  # fmt: skip
        result = run_training(config, screen, resume=resume)
        if result.interrupted:
            _stop(result, output, minutes, screen)
        figures = _measure(output, result, field, screen)
    figures["total_s"] = time.perf_counter() - begun
    _write(output, figures)
    if json:
        emit(figures)
    else:
        _tell_what_next(screen, output, figures)


def _receptive_field() -> list[int]:
    """Return the receptive field of the demo's network along each axis, in voxels."""
    import torch

    from convoxel import inspect, models

    with torch.device("meta"):
        model = models.build("unet", dims=3, in_channels=1, num_classes=3, **_MODEL)
    total = inspect.describe(model, (1, 1, 64, 64, 64)).to_dict()["total"]
    return [int(size) for size in total["field"]]


def _configure(run: Path, minutes: float, gap: int, threads: int | None) -> TrainConfig:
    from convoxel.train import TrainConfig

    return TrainConfig.build(
        task="segment",
        data="mni152",
        output=str(run),
        model="unet",
        minutes=minutes,
        gap=gap,
        threads=threads,
        **_MODEL,
        **_TRAINING,
    )


def _prepare(output: Path, config: TrainConfig, force: bool, screen: Screen) -> bool:
    """Make the folder ready; return whether the run in it is to be used again.

    Raises:
        ConfigError: the folder exists and is not a demo's.
    """
    try:
        taken = output.exists() and (not output.is_dir() or any(output.iterdir()))
        mark = output / _MARK
        if taken and not _is_demo(mark):
            raise ConfigError(
                f"output: {output} exists and is not a Convoxel demo, so it is left alone. Give another --output."
            )
        output.mkdir(parents=True, exist_ok=True)
        run = output / "run"
        resume = False
        if (run / "checkpoints").is_dir() and not force:
            resume = not _changes(run, config)
            why = "its training is used again (--force trains anew)" if resume else "its settings differ: trained anew"
            screen.say(f"{output} holds a demo; {why}.")
        if not resume and run.exists():
            shutil.rmtree(run)
    except OSError as error:
        raise ConfigError(f"output: {output}: {error.strerror or error}. Give another --output.") from None
    _write(output, {"convoxel_demo": True, "complete": False})
    return resume


def _is_demo(mark: Path) -> bool:
    """Whether a file is the mark that a demo leaves in its folder."""
    try:
        found = json_text.loads(mark.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("convoxel_demo") is True


def _changes(run: Path, config: TrainConfig) -> list[str]:
    """Return what the run in a folder was told otherwise; an unreadable run counts as another one."""
    from convoxel.train import TrainConfig

    with contextlib.suppress(ConvoxelError):
        return config.difference(TrainConfig.from_yaml(run / "config.yaml"))
    return ["unreadable"]


def _stop(result: RunResult, output: Path, minutes: float, screen: Screen) -> None:
    again = command_line("convoxel", "demo", "--output", output, "--minutes", f"{minutes:g}")
    screen.say(f"Stopped after {result.steps} steps; a checkpoint was saved in {result.path}.")
    screen.say(f"Go on with: {again}")
    raise typer.Exit(128 + (result.signal or 2))


def _measure(output: Path, result: RunResult, field: list[int], screen: Screen) -> dict[str, Any]:
    """Predict the held-out part with both engines, draw it, and return every figure."""
    from convoxel.train import load_model
    from convoxel.train.run_folder import load_data

    screen.say(f"Trained {duration(result.seconds)}, {result.steps} steps.")
    run = load_model(result.path)
    dataset = load_data(run.config)
    sample = dataset.validation[0]
    status = screen.status("") if screen.is_terminal else None

    def tell(text: str) -> None:
        if status is not None:
            status.update(text)
        else:
            screen.say(text)

    with status or contextlib.nullcontext():
        found = compare(run, sample, tell)
    _print_table(screen, sample, found)
    pictures = _draw(output, dataset, sample, found)
    report = _report(result.path)
    return {
        "convoxel_demo": True,
        "complete": True,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": _machine(),
        "model": {"name": "unet", "dims": 3, **_MODEL, "receptive_field": field},
        "data": {
            "name": dataset.name,
            "train_shape": list(dataset.train.shapes[0]),
            "held_out_shape": list(sample.image.shape[1:]),
            "gap": run.config.gap,
        },
        "training": {
            "minutes": run.config.minutes,
            "seconds": result.seconds,
            "steps": result.steps,
            "best_metric": result.best_metric,
        },
        **found.to_dict(),
        "run": str(result.path),
        "pictures": [str(path) for path in pictures],
        "report": str(report),
    }


def _report(run: Path) -> Path:
    from convoxel.draw.report import write_report

    return Path(write_report(run))


def _draw(output: Path, dataset: DataSet, sample: Sample, found: Comparison) -> list[Path]:
    """Write one picture a plane: image, label, prediction and their difference; return the files."""
    import numpy as np

    from convoxel.draw.image_overlay import overlay, png
    from convoxel.draw.volume_slice import oriented_slice
    from convoxel.files.atomic import write_bytes

    (output / "pictures").mkdir(exist_ok=True)
    dice = ", ".join(f"{name} {value:.3f}" for name, value in found.dice["convoxel"].items())
    files = []
    for plane, position in _CUTS.items():
        image, label, prediction = (
            oriented_slice(array, sample.affine, plane, position)
            for array in (sample.image[0], np.asarray(sample.label), found.label_map)
        )
        picture = overlay(
            image.pixels,
            label.pixels,
            prediction.pixels,
            classes=dataset.classes,
            spacing=image.spacing,
            marks=image.marks,
            title=f"{sample.name}, {plane} slice {image.index}. Dice of the whole part: {dice}",
        )
        path = output / "pictures" / f"{plane}.png"
        write_bytes(path, png(picture))
        files.append(path)
    return files


def _print_table(screen: Screen, sample: Sample, found: Comparison) -> None:
    ours, theirs = found.dice["convoxel"], found.dice["torch"]
    rows = [(f"Dice {name}", number(ours[name]), number(theirs[name])) for name in ours]
    rows.append(("seconds", f"{found.seconds['convoxel']:.2f}", f"{found.seconds['torch']:.2f}"))
    size = "×".join(map(str, sample.image.shape[1:]))
    tile = "×".join(map(str, found.tile))
    screen.say()
    screen.say(f"The held-out back of the head, {size} voxels in {found.tiles} windows of {tile}", "bold")
    screen.table("|>Convoxel|>PyTorch", rows)
    thread = "thread" if found.threads == 1 else "threads"
    screen.say(f"Speed-up                         {found.speed_up:.2f}× on {found.threads} {thread}")
    screen.say(f"Largest |difference| of logits   {found.difference:.1e} of their RMS")
    screen.say(f"Voxels of equal class            {100 * found.equal:.4f} %")
    screen.say()


def _machine() -> dict[str, Any]:
    import torch

    from convoxel.native import build_info

    return {**build_info(), "python": platform.python_version(), "torch": torch.__version__}


def _write(output: Path, figures: dict[str, Any]) -> None:
    from convoxel.files.atomic import write_bytes

    write_bytes(output / _MARK, (json_text.dumps(figures, indent=1) + "\n").encode())


def _tell_what_next(screen: Screen, output: Path, figures: dict[str, Any]) -> None:
    run = figures["run"]
    screen.say(f"Report     {figures['report']}")
    screen.say(f"Pictures   {', '.join(figures['pictures'])}")
    screen.say(f"Figures    {output / _MARK}")
    screen.say(f"Done in {duration(figures['total_s'])}. Next, try:")
    for words in (
        f"{command_line('convoxel', 'predict', run)} --input T1.nii.gz --output labels.nii.gz",
        command_line("convoxel", "compile", run),
        command_line("convoxel", "evaluate", run, "--engine", "torch"),
        f"{command_line('tensorboard', '--logdir', run)}",
        "convoxel train segment --data YOUR_FOLDER --minutes 20 --output my-run",
    ):
        screen.say(f"  {words}")
