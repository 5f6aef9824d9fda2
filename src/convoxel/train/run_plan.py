"""Everything that a run chose, in words: shown before its first step and kept as ``plan.json``.

``config.yaml`` holds the same decisions for programs; the plan adds what follows from them (parameters, sizes of the
parts) and the reasons. Absent on purpose: choosing.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from convoxel.data import DataSet
from convoxel.errors import ConvoxelError
from convoxel.files.atomic import write_json
from convoxel.files.fault import plural
from convoxel.files.stream import read_text
from convoxel.inspect import Summary
from convoxel.predict.device import describe_device
from convoxel.predict.loss_terms import describe_loss, plan_loss
from convoxel.predict.trained_run import DataFacts
from convoxel.train.config import ConstraintConfig, TrainConfig

_FILE, _WIDE = "plan.json", 110


@dataclass(frozen=True)
class RunPlan:
    """The choices of a run: names with words, in the order in which they are shown.

    >>> print(RunPlan((("network", "unet"), ("batch", "4 patches"))))
    network  unet
    batch    4 patches
    """

    choices: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        width = max((len(name) for name, _ in self.choices), default=0) + 2
        lines = (
            textwrap.wrap(words, _WIDE, initial_indent=f"{name:{width}}", subsequent_indent=" " * width)
            for name, words in self.choices
        )
        return "\n".join(line for row in lines for line in row)

    def write(self, run: Path) -> None:
        """Write the plan into a run folder."""
        write_json(run / _FILE, dict(self.choices))

    def with_choice(self, name: str, words: str) -> RunPlan:
        """Return the plan with other words for a choice, which comes last if it is a new one."""
        choices = self.choices if any(each == name for each, _ in self.choices) else (*self.choices, (name, ""))
        return RunPlan(tuple((each, words if each == name else old) for each, old in choices))

    @classmethod
    def read(cls, run: Path) -> RunPlan | None:
        """Return the plan of a run folder; None where it has none that can be read."""
        try:
            found = json.loads(read_text(run / _FILE))
        except (ConvoxelError, ValueError, RecursionError):
            return None
        return cls(tuple((name, str(words)) for name, words in found.items())) if isinstance(found, dict) else None


def describe_plan(
    config: TrainConfig,
    dataset: DataSet,
    facts: DataFacts,
    network: Summary,
    changes: Sequence[str],
    reasons: Mapping[str, str],
    measured: Sequence[str] = (),
) -> RunPlan:
    """Return the plan of a run.

    Args:
        config: complete configuration.
        dataset: its data.
        facts: facts of the data as the run keeps them.
        network: what the network costs and sees on a patch.
        changes: random changes of samples in words.
        reasons: why entries of the configuration are as they are, by their names.
        measured: what trial steps found on the device (default none).
    """
    segment, terms = config.task == "segment", plan_loss(config, facts.outputs, facts.class_counts)
    things = ("patch", "patches") if segment else ("image",)
    sizes = ", ".join(f"{name} {len(part)}" for name, part in dataset.parts.items())
    found = [
        ("task", config.task),
        ("data", _data(dataset)),
        ("parts", f"{sizes}: {dataset.rule}; only the validation part chooses the checkpoint"),
        *([("notes", "; ".join(dataset.notes))] if dataset.notes else []),
        ("geometry", f"{facts.rule}: {reasons['spacing']}"),
        ("network", _network(config, network) + _why(reasons, "levels", "width")),
        *([] if config.slices is None else [("slices", _slices(config, facts))]),
        *([("dimensions", reasons["slices"])] if config.slices is None and "slices" in reasons else []),
        ("patch" if segment else "input", _times(config.patch or ()) + _why(reasons, "patch")),
        ("batch", _batch(config, things) + _why(reasons, "batch_size")),
        *([] if "memory" not in reasons else [("memory", reasons["memory"])]),
        ("normalisation", _normalisation(facts) + _why(reasons, "normalise")),
        ("augmentation", ", ".join([*changes, *_mix(config)]) or "none"),
        ("mirroring", f"{_axes(config.flip_axes or ())}: {reasons['flip_axes']}"),
        *([] if facts.regions is None else [("regions", facts.regions.describe(facts.classes))]),
        ("loss", describe_loss(terms, facts.outputs, facts.regions is not None)),
        *([] if facts.ignored is None else [("ignored", f"voxels of the label value {facts.ignored} do not count")]),
        ("optimiser", _optimiser(config)),
        ("schedule", _schedule(config)),
        ("device", describe_computation(config, measured)),
        ("budget", _budget(config) + _why(reasons, "minutes")),
        ("seed", str(config.seed)),
    ]  # fmt: skip
    if config.constraints != ConstraintConfig():
        stated = config.constraints.model_dump(mode="json", exclude_defaults=True)
        found.append(("constraints", ", ".join(f"{name}={value}" for name, value in stated.items())))
    return RunPlan(tuple(found))


def describe_computation(config: TrainConfig, measured: Sequence[str] = ()) -> str:
    """Return in words where and how a run computes.

    Args:
        config: complete configuration.
        measured: what trial steps found on the device (default none).
    """
    device = torch.device(config.device or "cpu")
    found = [describe_device(device), plural(config.threads or 1, "thread"), f"products in {config.precision}"]
    if device.type != "cpu":
        found[1] = f"{plural(config.num_workers or 0, 'thread')} for samples"
        found.append("channels last" if config.channels_last else "channels first")
    if config.compile:
        found.append("torch.compile")
    if config.engine == "convoxel":
        found.append("large layers on Convoxel's engine")
    if config.deterministic:
        found.append("deterministic algorithms")
    return ", ".join(found) + (f" (measured: {'; '.join(measured)})" if measured else "")


def _why(reasons: Mapping[str, str], *entries: str) -> str:
    """Return the reasons of entries that have one, to be told after what was chosen."""
    told = [reasons[name] for name in entries if reasons.get(name, "stated") != "stated"]
    return f" ({'; '.join(told)})" if told else ""


def _times(sizes: Sequence[object]) -> str:
    return " × ".join(map(str, sizes))


def _data(dataset: DataSet) -> str:
    classes = dataset.classes
    names = ", ".join(classes[:12]) + (", …" if len(classes) > 12 else "")
    kinds = plural(len(classes), *(("target",) if dataset.task == "regress" else ("class", "classes"))) + (
        ", any number of them an image" if dataset.multi_label else ", regions that overlap" if dataset.regions else ""
    )
    return f"{dataset.name}: {dataset.dims}-D, {plural(dataset.channels, 'channel')}, {kinds} ({names})"


def _network(config: TrainConfig, network: Summary) -> str:
    options = {"levels": config.levels, "width": config.width, **config.model_options}
    stated = "".join(f" {name}={value:g}" if isinstance(value, float) else f" {name}={value}"
                     for name, value in options.items() if value is not None)  # fmt: skip
    field = f", receptive field {_times(network.field.size)}" if network.field else ""
    start = "random weights" if config.weights is None else f"weights of {config.weights}"
    size = f"{network.params:,} parameters, {network.macs:,} MACs for an input of {_times(network.input_shapes[0])}"
    return f"{config.model}{stated}: {size}{field}; {start}"


def _slices(config: TrainConfig, facts: DataFacts) -> str:
    axis, count = config.slice_axis or 0, config.slices or 1
    thick = "" if facts.spacing_mm is None else f" ({facts.spacing_mm[axis]:.4g} mm apart)"
    near = f"with {count // 2} at either side as channels" if count > 1 else "by itself"
    return f"a 2-D network sees each slice across axis {axis}{thick} {near}"


def _normalisation(facts: DataFacts) -> str:
    if facts.normalisation.kind == "sample":
        return "each image by its own mean and deviation, voxels of the smallest value left out"
    if facts.normalisation.kind == "ct":
        low, high, mean, std = (", ".join(f"{value:.4g}" for value in getattr(facts.normalisation, name))
                                for name in ("low", "high", "mean", "std"))  # fmt: skip
        return f"values cut off at {low} and {high}, mean {mean} and deviation {std} of labelled training voxels"
    mean, std = (_times([f"{value:.4g}" for value in values]).replace(" × ", ", ")
                 for values in (facts.normalisation.mean, facts.normalisation.std))  # fmt: skip
    return f"mean {mean} and deviation {std} of the training images"


def _axes(axes: Sequence[int]) -> str:
    return f"{'axis' if len(axes) == 1 else 'axes'} {', '.join(map(str, axes))}" if axes else "none"


def _optimiser(config: TrainConfig) -> str:
    sgd = f"SGD, Nesterov momentum {config.momentum:g}"
    name = sgd if config.optimiser == "sgd" else "Adam, decoupled weight decay"
    clip = "gradients not clipped" if config.clip is None else f"gradients clipped to norm {config.clip:g}"
    return f"{name}, largest learning rate {config.learning_rate:g}, weight decay {config.weight_decay:g}, {clip}"


def _mix(config: TrainConfig) -> list[str]:
    return [] if config.augment.mix == "none" else [f"images of a batch mixed by {config.augment.mix}"]


def _batch(config: TrainConfig, things: Sequence[str]) -> str:
    once = plural(config.batch_size or 1, *things)
    added = "" if config.accumulate == 1 else f", the gradients of {config.accumulate} batches added up for a step"
    return f"{once}{added}, {plural(config.steps_per_epoch or 1, 'step')} an epoch"


def _schedule(config: TrainConfig) -> str:
    found = [f"{config.schedule}, the first {100 * config.warmup:g} % of the run warm up"]
    found += [f"{name} frozen" if factor == 0 else f"{name} at {factor:g} of the rate"
              for name, factor in config.rates.items()]  # fmt: skip
    if config.ema is not None:
        found.append(f"running mean of the weights, of which a step keeps {config.ema:g}")
    if config.patience is not None:
        found.append(f"ends after {plural(config.patience, 'validation')} without a better metric")
    return "; ".join(found)


def _budget(config: TrainConfig) -> str:
    if config.minutes is not None:
        return f"{config.minutes:g} min for the whole run: reading, training, validations, closing evaluation"
    steps = (config.epochs or 0) * (config.steps_per_epoch or 1)
    return f"{plural(config.epochs or 0, 'epoch')} of {plural(config.steps_per_epoch or 1, 'step')}, {steps} in all"
