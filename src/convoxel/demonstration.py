"""The demonstration: a 3-D U-Net on a real MR image, trained, compared with PyTorch, and drawn.

The front of the MNI152 template trains, the back is held out, and a gap wider than the network's receptive field lies
between. Absent on purpose: printing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from convoxel.bench.volume_bench import VolumeResult, measure_volume
from convoxel.data import DataSet, Sample
from convoxel.draw.image_overlay import overlay, png
from convoxel.draw.volume_slice import oriented_slice
from convoxel.errors import ConfigError, ConvoxelError
from convoxel.files.atomic import write_bytes, write_json
from convoxel.files.values import JsonObject, Options
from convoxel.lookup import find_network, is_run
from convoxel.native import build_info
from convoxel.report import write_report
from convoxel.train import RunResult, TrainConfig, load_model
from convoxel.train.run_folder import load_data

MODEL: Options = {"levels": 2, "width": 16}
# The settings that differ from the defaults of training.
_TRAINING: Options = {"learning_rate": 0.005}
# The file with all figures, by which the folder of a demo is known.
MARK = "demo.json"
# Position of the slice along each plane, as a share of the held-out part's length, so that all show the brain's middle.
_CUTS = {"coronal": 0.85, "axial": 0.5, "sagittal": 0.45}


@dataclass(frozen=True)
class Demo:
    """A demonstration in a folder.

    Attributes:
        output: the folder.
        config: configuration of its run.
        field: receptive field of the network along each axis, in voxels.
        found: whether the folder held a demo before.
        resume: whether the run in the folder goes on; else it is trained anew.
        begun_s: when it began, by ``time.perf_counter``.
    """

    output: Path
    config: TrainConfig
    field: tuple[int, ...]
    found: bool
    resume: bool
    begun_s: float = dataclasses.field(default_factory=time.perf_counter)

    def measure(self, result: RunResult, tell: Callable[[str], None]) -> JsonObject:
        """Predict the held-out part with both engines, draw it, write and return every figure.

        Args:
            result: the finished training.
            tell: called with a line before each part.
        """
        run = load_model(result.path)
        dataset = load_data(run.config)
        sample = run.data.rule.sample(dataset.validation[0])  # the grid that the network sees
        found = measure_volume(run, sample, tell)
        figures = {
            "convoxel_demo": True,
            "complete": True,
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "machine": {**build_info(), "python": platform.python_version(), "torch": torch.__version__},
            "model": {"name": "unet", "dims": 3, **MODEL, "receptive_field": list(self.field)},
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
            "pictures": [str(path) for path in _draw(self.output, dataset, sample, found)],
            "report": str(write_report(result.path)),
        }
        figures["total_s"] = time.perf_counter() - self.begun_s
        write_json(self.output / MARK, figures)
        return figures


def prepare_demo(output: Path, minutes: float, threads: int | None = None, force: bool = False) -> Demo:
    """Make the folder of a demonstration ready.

    Args:
        output: the folder; a demo in it is used again.
        minutes: training time.
        threads: number of CPU threads (default: all).
        force: whether to train anew even if the folder has a trained demo.

    Raises:
        ConfigError: the folder exists and is not a demo's, or it cannot be made.
    """
    field = find_network("unet", [(1, 1, 64, 64, 64)], {"num_classes": 3, **MODEL}).describe().field
    assert field is not None
    run = output / "run"
    config = TrainConfig.build(
        task="segment", data="mni152", output=str(run), model="unet", minutes=minutes, gap=max(field.size),
        threads=threads, **MODEL, **_TRAINING,
    )  # fmt: skip
    try:
        if output.exists() and (not output.is_dir() or any(output.iterdir())) and not _is_demo(output):
            raise ConfigError(
                f"output: {output} exists and is not a Convoxel demo, so it is left alone. Give another --output."
            )
        output.mkdir(parents=True, exist_ok=True)
        found = is_run(run) and not force
        resume = found and not _changes(run, config)
        if not resume and run.exists():
            shutil.rmtree(run)
    except OSError as error:
        raise ConfigError(f"output: {output}: {error.strerror or error}. Give another --output.") from None
    write_json(output / MARK, {"convoxel_demo": True, "complete": False})
    return Demo(output, config, field.size, found, resume)


def _is_demo(folder: Path) -> bool:
    """Return True if a folder has the file that a demo leaves."""
    try:
        found = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("convoxel_demo") is True


def _changes(run: Path, config: TrainConfig) -> list[str]:
    """Return the settings in which a run differs; an unreadable run counts as another one."""
    with contextlib.suppress(ConvoxelError):
        return config.difference(TrainConfig.from_yaml(run / "config.yaml"))
    return ["unreadable"]


def _draw(output: Path, dataset: DataSet, sample: Sample, found: VolumeResult) -> list[Path]:
    """Write one picture for each plane: image, label, prediction and their difference; return the files."""
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
        files.append(write_bytes(output / "pictures" / f"{plane}.png", png(picture)))
    return files
