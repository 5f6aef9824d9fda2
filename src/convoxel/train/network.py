"""Networks as training and prediction use them: built from a configuration, or loaded from a run folder."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from convoxel import models
from convoxel.errors import CheckpointError, ConfigError
from convoxel.train.checkpoint import Checkpoint, Store
from convoxel.train.config import TrainConfig
from convoxel.train.precision import autocast

__all__ = ["arrange", "build_network", "check_model", "load_model", "model_tensors", "torch_call"]

PREFIX = "model."


def check_model(config: TrainConfig) -> None:
    """Refuse a model that does not exist or serves another task, before the data are read.

    Raises:
        ConfigError: no network has this name, or it is not for ``config.task``.
    """
    if config.model is None:
        return
    task = models.entry(config.model).task
    if task != config.task:
        raise ConfigError(
            f"model: {config.model!r} is made to {task}, but the task is {config.task!r}; "
            f"expected one of {', '.join(models.names(task=config.task))}. Change the model or the task."
        )


def build_network(config: TrainConfig, dims: int, channels: int, classes: int) -> nn.Module:
    """Return the untrained network of a planned configuration.

    Raises:
        ConfigError: the model is unknown, or an option is not one of its.
    """
    name = config.model or "unet"
    known = models.entry(name).options
    options: dict[str, Any] = dict(config.model_options)
    if config.levels is not None:
        options["levels"] = config.levels
    if config.width is not None:
        options["width"] = _as_width(name, config.width, known.get("width"))
    return models.build(name, dims=dims, in_channels=channels, num_classes=classes, **options)


def _as_width(name: str, width: float, default: Any) -> int | float:
    """A number of channels where the model counts them (its default is an int), else a factor."""
    if isinstance(default, int) and not isinstance(default, bool):
        if width != int(width):
            raise ConfigError(f"width: got {width:g}, but {name!r} takes a whole number of channels: 16.")
        return int(width)
    return width


def arrange(model: nn.Module, dims: int) -> nn.Module:
    """Return the model with weights channels last, in which CPU convolutions train 1.3 … 2 × faster."""
    layout = _layout(dims)
    return model if layout is None else model.to(memory_format=layout)  # type: ignore[call-overload]


def arrange_images(images: torch.Tensor) -> torch.Tensor:
    """Return a batch (n, channels, *spatial) with channels last in memory."""
    layout = _layout(images.dim() - 2)
    return images if layout is None else images.contiguous(memory_format=layout)


def _layout(dims: int) -> torch.memory_format | None:
    return {2: torch.channels_last, 3: torch.channels_last_3d}.get(dims)


def torch_call(model: nn.Module, precision: str | None = "float32") -> Any:
    """Return ``model`` as a function NumPy (n, channels, *spatial) → NumPy logits, without gradients."""

    def call(images: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode(), autocast(precision):
            logits = model(arrange_images(torch.from_numpy(np.ascontiguousarray(images))))
        result: NDArray[np.float32] = logits.float().contiguous().numpy()
        return result

    return call


def model_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return weights and buffers by the names under which checkpoints hold them."""
    return {PREFIX + name: tensor for name, tensor in model.state_dict().items()}


def load_weights(model: nn.Module, checkpoint: Checkpoint, where: Path) -> None:
    """Copy a checkpoint's weights into ``model``.

    Raises:
        CheckpointError: names or shapes differ from the model's.
    """
    state = {key[len(PREFIX) :]: value for key, value in checkpoint.tensors.items() if key.startswith(PREFIX)}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"checkpoint: the weights in {where} do not fit the model: {reason}") from None


def load_model(run_dir: str | Path, which: str = "best") -> tuple[nn.Module, TrainConfig, dict[str, Any]]:
    """Return the trained network of a run folder in eval mode, its configuration and its data's facts.

    Args:
        run_dir: folder that :func:`convoxel.train.fit` wrote.
        which: "best" by the validation metric, or "last".

    Returns:
        The model, the configuration, and a dict with ``classes``, ``dims``, ``channels``, ``intensity``,
        ``spacing_mm``, ``fingerprint``, ``data_name``, ``step``, ``metric``.

    Raises:
        CheckpointError: the folder is no run, or no checkpoint in it is whole. A damaged best checkpoint
            is replaced by the last one, with a warning.
        ConfigError: ``which`` is neither word.
    """
    if which not in ("best", "last"):
        raise ConfigError(f"which: got {which!r}; expected 'best' or 'last'.")
    run = Path(run_dir)
    if not (run / "checkpoints").is_dir():
        came = "is not a training run (it has no checkpoints folder)" if run.exists() else "does not exist"
        raise CheckpointError(
            f"the run {run} {came}; expected the folder of a training run. "
            "Give the one that `convoxel train --output` named."
        )
    store = Store(run)
    if which == "last":
        checkpoint = store.load()
    else:
        try:
            checkpoint = store.load_best()
        except CheckpointError as error:
            checkpoint = store.load()
            if any((run / "checkpoints").glob("best*")):
                reason = str(error).partition("(")[2].rpartition(")")[0]
                warnings.warn(
                    f"checkpoint: the best one in {run} cannot be used ({reason}); the last one, of step "
                    f"{checkpoint.body['step']}, is taken instead.",
                    RuntimeWarning,
                    stacklevel=2,
                )
    body = checkpoint.body
    config = TrainConfig.build(**body["config"])
    meta = dict(body["data"])
    model = build_network(config, meta["dims"], meta["channels"], len(meta["classes"]))
    load_weights(model, checkpoint, run)
    meta.update(step=body["step"], metric=body.get("metric"))
    return arrange(model.eval(), meta["dims"]), config, meta
