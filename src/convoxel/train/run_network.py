"""Networks of runs: built from a configuration, and their weights in checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from convoxel import models
from convoxel.errors import CheckpointError, ConfigError
from convoxel.models.monai_network import PREFIX, build_monai
from convoxel.models.slice_network import SliceNetwork
from convoxel.nn.separation import restore_separated
from convoxel.train.checkpoint import Checkpoint
from convoxel.train.config import TrainConfig

_PREFIX = "model."


def check_model(config: TrainConfig) -> None:
    """Refuse a model that does not exist or serves another task, before the data are read.

    Raises:
        ConfigError: no network has this name, or it is not for ``config.task``.
    """
    if config.model is None:
        return
    task, wanted = models.entry(config.model).task, "segment" if config.task == "segment" else "classify"
    if task != wanted:
        raise ConfigError(
            f"model: {config.model!r} is made to {task}, but the task is {config.task!r}; "
            f"expected one of {', '.join(models.names(task=wanted))}. Change the model or the task."
        )


def build_network(config: TrainConfig, dims: int, channels: int, classes: int) -> models.Network:
    """Return the untrained network of a planned configuration.

    Raises:
        ConfigError: the model is unknown, does not have one of the options, or has not the convolutions that shall be
            replaced.
    """
    network = _build_whole(config, dims, channels, classes)
    if not config.separated:
        return network
    return restore_separated(network, [row.model_dump() for row in config.separated])


def _build_whole(config: TrainConfig, dims: int, channels: int, classes: int) -> models.Network:
    name, options = config.model or "unet", dict(config.model_options)
    if name.startswith(PREFIX):
        of_monai = {"dims": dims, "in_channels": channels, "num_classes": classes}
        return build_monai(name.removeprefix(PREFIX), options, **of_monai)
    known = models.entry(name).options
    if config.levels is not None:
        options["levels"] = config.levels
    if config.width is not None:
        options["width"] = _as_width(name, config.width, known.get("width"))
    if config.slices is None:
        return models.build(name, dims=dims, in_channels=channels, num_classes=classes, **options)
    planar = models.build(name, dims=2, in_channels=channels * config.slices, num_classes=classes, **options)
    return SliceNetwork(planar, channels, config.slices // 2, config.slice_axis or 0)


def _as_width(name: str, width: float, default: object) -> int | float:
    """A number of channels where the model counts them (its default is an int), else a factor."""
    if isinstance(default, int) and not isinstance(default, bool):
        if width != int(width):
            raise ConfigError(f"width: got {width:g}, but {name!r} takes a whole number of channels: 16.")
        return int(width)
    return width


def model_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return weights and buffers by the names that they have in checkpoints."""
    return tensor_names(model.state_dict())


def tensor_names(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of a state dict by the names that they have in checkpoints."""
    return {_PREFIX + name: tensor for name, tensor in state.items()}


def load_weights(model: nn.Module, checkpoint: Checkpoint, where: Path) -> None:
    """Copy a checkpoint's weights into ``model``.

    Raises:
        CheckpointError: names or shapes differ from the model's.
    """
    state = {key[len(_PREFIX) :]: value for key, value in checkpoint.tensors.items() if key.startswith(_PREFIX)}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"checkpoint: the weights in {where} do not fit the model: {reason}") from None
