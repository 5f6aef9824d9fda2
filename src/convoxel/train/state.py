"""Everything that changes while a run trains, and its two-way road into a checkpoint."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import torch
from torch import nn

from convoxel.errors import CheckpointError
from convoxel.train.checkpoint import Checkpoint
from convoxel.train.config import TrainConfig
from convoxel.train.network import load_weights, model_tensors

__all__ = ["State", "build_optimiser"]

_OPTIMISER = "optimiser."


@dataclass
class State:
    """Model, optimiser and counters of a run.

    There is no generator and no sampler position to keep: both are functions of ``seed`` and ``step``
    (see :mod:`convoxel.train.batch`).
    """

    model: nn.Module
    optimiser: torch.optim.Optimizer
    step: int = 0
    elapsed_s: float = 0.0
    fraction: float = 0.0
    loss_sum: float = 0.0
    loss_count: int = 0
    best_metric: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return weights, buffers and the optimiser's tensors, by name."""
        found = model_tensors(self.model)
        for index, entries in self.optimiser.state_dict()["state"].items():
            for key, value in entries.items():
                if isinstance(value, torch.Tensor):
                    found[f"{_OPTIMISER}{index}.{key}"] = value
        return found

    def model_tensors(self) -> dict[str, torch.Tensor]:
        """Return weights and buffers alone, by name."""
        return model_tensors(self.model)

    def body(self, config: TrainConfig, data: dict[str, Any]) -> dict[str, Any]:
        """Return the JSON part of a checkpoint: counters, history, configuration, data, versions."""
        return {
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "fraction": self.fraction,
            "loss_sum": self.loss_sum,
            "loss_count": self.loss_count,
            "best_metric": self.best_metric,
            "metric": self.history[-1]["metric"] if self.history else None,
            "history": self.history,
            "config": config.to_dict(),
            "data": data,
            "versions": _versions(),
        }

    def restore(self, checkpoint: Checkpoint, where: Any) -> None:
        """Take over what a checkpoint holds.

        Raises:
            CheckpointError: weights or optimiser do not fit.
        """
        load_weights(self.model, checkpoint, where)
        self._restore_optimiser(checkpoint.tensors)
        body = checkpoint.body
        self.step, self.elapsed_s = int(body["step"]), float(body["elapsed_s"])
        self.fraction = float(body["fraction"])
        self.loss_sum, self.loss_count = float(body["loss_sum"]), int(body["loss_count"])
        self.best_metric = body["best_metric"]
        self.history = list(body["history"])

    @torch.no_grad()
    def _restore_optimiser(self, tensors: dict[str, torch.Tensor]) -> None:
        stored: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith(_OPTIMISER):
                number, key = name[len(_OPTIMISER) :].split(".", 1)
                stored.setdefault(int(number), {})[key] = value
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        if any(place >= len(parameters) for place in stored):
            raise CheckpointError("checkpoint: the optimiser's state belongs to a larger model.")
        for place, entries in stored.items():
            parameter = parameters[place]
            # Moments take the parameter's memory layout: an update that walks both in memory order must
            # find the same element in each.
            self.optimiser.state[parameter] = {
                key: torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
                for key, value in entries.items()
            }


def build_optimiser(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Return Adam (with decoupled weight decay) or SGD (Nesterov momentum 0.9) for the model's parameters.

    Weights decay; biases and normalisation parameters, which have one axis, do not.
    """
    weights = [p for p in model.parameters() if p.requires_grad and p.dim() > 1]
    others = [p for p in model.parameters() if p.requires_grad and p.dim() <= 1]
    groups = [
        {"params": weights, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    rate = config.learning_rate or 1e-3
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=rate)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("convoxel", "monai", "numpy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found
