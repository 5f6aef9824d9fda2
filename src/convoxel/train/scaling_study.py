"""Quality against scale: one network at several widths and depths, each trained alike on the same data.

Howard et al. 2017 (MobileNet, arXiv 1704.04861, §4) and Tan & Le 2019 (EfficientNet, arXiv 1905.11946, §3) draw such
curves for ImageNet; here the user chooses the data and the length of the training.
"""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from convoxel.errors import ConfigError, ConvoxelError
from convoxel.files.stream import read_text
from convoxel.files.values import JsonObject, Options
from convoxel.models import entry
from convoxel.predict.run_progress import Progress
from convoxel.train.config import TrainConfig
from convoxel.train.loop import fit
from convoxel.train.run_settings import has_run

# The runs are temporary, so nothing is written for other tools.
_SETTINGS: JsonObject = {"tensorboard": False}
_CONFIGURED = ("width", "levels")  # entries of the configuration; the others are options of the model


@dataclass(frozen=True)
class Scaled:
    """One network of :func:`study_scaling`.

    Attributes:
        name: its options as text.
        options: its options.
        shape: input (n, channels, *spatial) that ``macs`` refers to.
        params: number of parameters.
        macs: multiply-accumulates for one input.
        quality: accuracy or Dice of the best checkpoint on the validation part.
        train_s: training time in seconds.
        steps: optimiser steps.
        metric_name: name of the metric that ``quality`` is.
    """

    name: str
    options: Options
    shape: tuple[int, ...]
    params: int
    macs: int
    quality: float
    train_s: float
    steps: int
    metric_name: str


@dataclass(frozen=True)
class ScalingStudy:
    """Result of :func:`study_scaling`: a row for each network, and what all have in common."""

    rows: tuple[Scaled, ...]
    network: str
    data: str
    metric_name: str

    def to_dict(self) -> JsonObject:
        """Return the numbers as JSON holds them."""
        return asdict(self)


def study_scaling(
    data: str | Path,
    network: str,
    variants: Sequence[Options],
    *,
    epochs: int = 10,
    seed: int = 0,
    threads: int | None = None,
    settings: Options | None = None,
    on_progress: Callable[[int, str, Progress], None] | None = None,
) -> ScalingStudy:
    """Return a network at several scales, each trained on the same data with the same seed and number of epochs.

    The runs are written to a temporary folder, which is removed at the end.

    Args:
        data: source that ``convoxel.data.load`` takes.
        network: a name of ``convoxel.models.names()``.
        variants: options of each network, such as ``{"width": 0.5}``.
        epochs: epochs of each training (default 10).
        seed: random seed of each training (default 0).
        threads: number of CPU threads (default: all).
        settings: more entries of ``TrainConfig``, such as ``{"steps_per_epoch": 20}``.
        on_progress: called with the number of the network, its name, and the progress of its training.

    Raises:
        ConfigError: there is no variant, or an option is not one of the network's.
        DataError: the data cannot be read.
    """
    names = name_variants(network, variants)
    tell = on_progress or (lambda number, name, progress: None)
    base = trial_settings(data, network, epochs=epochs, seed=seed, threads=threads, settings=settings)
    rows = []
    with tempfile.TemporaryDirectory(prefix="convoxel-") as folder:
        for number, (name, options) in enumerate(zip(names, variants, strict=True)):
            place = Path(folder) / str(number)
            rows.append(train_variant(base, options, place, name, functools.partial(tell, number, name)))
    return ScalingStudy(tuple(rows), network, str(data), rows[-1].metric_name)


def name_variants(network: str, variants: Sequence[Options]) -> list[str]:
    """Return the options of each network as text, without those that all share.

    Raises:
        ConfigError: there is no variant, or an option is not one of the network's.
    """
    if not variants:
        raise ConfigError("variants: got none; expected at least one set of options, such as {'width': 0.5}.")
    known = entry(network)
    for options in variants:
        for option in options:
            if option not in known.options:
                raise ConfigError(
                    f"scale: {option!r} cannot be trained at; {network} has {', '.join(known.options)}. "
                    "Images keep their size. Leave it out."
                )
    # Options that all of them share do not belong to the name of one.
    alike = {key for key, value in variants[0].items() if all(each.get(key) == value for each in variants[1:])}
    alike = alike if len(variants) > 1 else set()
    return [" ".join(f"{key}={value}" for key, value in options.items() if key not in alike) or network
            for options in variants]  # fmt: skip


def trial_settings(
    data: str | Path, network: str, *, epochs: int, seed: int, threads: int | None, settings: Options | None = None
) -> JsonObject:
    """Return the entries of ``TrainConfig`` that all trainings of a study share; arguments of :func:`study_scaling`."""
    return {
        "task": entry(network).task, "data": str(data), "model": network, "epochs": epochs, "seed": seed,
        "threads": threads, **_SETTINGS, **(settings or {}),
    }  # fmt: skip


def _configure(base: Options, options: Options, output: Path) -> TrainConfig:
    stated = {key: options[key] for key in _CONFIGURED if key in options}
    more = {key: value for key, value in options.items() if key not in _CONFIGURED}
    # Without an entry the width would follow from the size of the data: a scale of 1 is the network as published.
    if "width" not in stated:
        stated["width"] = entry(base["model"]).options["width"]
    more = {**dict(base.get("model_options", {})), **more}
    return TrainConfig.build(**{**base, **stated, "model_options": more, "output": str(output)})


def train_variant(base: Options, options: Options, output: Path, name: str, tell: Callable[[Progress], None]) -> Scaled:
    """Train a network with options, in a folder of which a run that was interrupted goes on.

    Args:
        base: what :func:`trial_settings` returned.
        options: options of the network.
        output: folder of the run.
        name: the options as text.
        tell: called with the progress of the training.

    Raises:
        ConvoxelError: the training failed, or never validated.
    """
    result = fit(_configure(base, options, output), resume=has_run(output), on_progress=tell)
    if result.interrupted:
        raise KeyboardInterrupt
    if result.best_metric is None:
        raise ConvoxelError(f"scale: {name} was never validated; expected a metric. Train for more epochs.")
    found = json.loads(read_text(result.path / "describe.json", 2**28))
    shape, total = tuple(found["input_shapes"][0]), found["total"]
    figures = (float(result.best_metric), result.seconds, result.steps)
    metric = result.metric_name.replace("mean Dice", "Dice")
    return Scaled(name, dict(options), shape, int(total["params"]), int(total["macs"]), *figures, metric)
