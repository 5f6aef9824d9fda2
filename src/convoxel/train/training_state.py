"""Everything that changes while a run trains, written to a checkpoint and restored from it."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TypedDict

import torch
from torch import nn

from convoxel.errors import CheckpointError
from convoxel.files.values import JsonObject
from convoxel.predict.metrics import Scores
from convoxel.predict.trained_run import DataFacts
from convoxel.train.checkpoint import Checkpoint
from convoxel.train.config import TrainConfig
from convoxel.train.run_network import load_weights, model_tensors
from convoxel.train.weight_mean import WeightMean

_OPTIMISER, _TRAINED = "optimiser.", "trained."
_COUNTERS = (
    "processes", "step", "elapsed_s", "prepared_s", "fraction", "loss_sum", "loss_count", "best_metric", "history",
    "warnings",
)  # fmt: skip


class ValidationRow(TypedDict):
    """One validation, as a line of ``metrics.jsonl`` holds it."""

    step: int
    epoch: int
    time_s: float
    train_loss: float | None
    validation_loss: float
    metric: float | None
    per_class: Scores
    learning_rate: float
    samples_per_s: float


@dataclass
class TrainingState:
    """Model, optimiser, scale of the loss (1 unless products are in float16) and counters of a run.

    Where a run keeps the ``mean`` of its weights, that is what its checkpoints answer with.

    ``processes`` is the number of processes that train together.

    ``elapsed_s`` counts from the first step, ``prepared_s`` what went before it; ``warnings`` hold a sentence for each
    kind of trouble that training met.

    A generator or the position of a sampler need no saving: both are functions of ``seed`` and ``step``
    (see :mod:`convoxel.train.training_batch`).
    """

    model: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    mean: WeightMean | None = None
    processes: int = 1
    step: int = 0
    elapsed_s: float = 0.0
    prepared_s: float = 0.0
    fraction: float = 0.0
    loss_sum: float = 0.0
    loss_count: int = 0
    best_metric: float | None = None
    history: list[ValidationRow] = field(default_factory=list)
    warnings: dict[str, str] = field(default_factory=dict)

    @property
    def metric(self) -> float | None:
        """Metric of the last validation; None before the first, and where nothing was there and nothing was found."""
        return self.history[-1]["metric"] if self.history else None

    @property
    def mean_loss(self) -> float | None:
        """Mean training loss since the last validation; None before the first step after it."""
        return self.loss_sum / self.loss_count if self.loss_count else None

    @property
    def answering(self) -> nn.Module:
        """The network that is validated and predicts: with the mean weights where they are kept."""
        return self.model if self.mean is None else self.mean.model

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return weights, buffers and the optimiser's tensors, by name."""
        found = model_tensors(self.answering)
        if self.mean is not None:
            found.update({_TRAINED + name: tensor for name, tensor in self.model.state_dict().items()})
        for index, entries in self.optimiser.state_dict()["state"].items():
            for key, value in entries.items():
                if isinstance(value, torch.Tensor):
                    found[f"{_OPTIMISER}{index}.{key}"] = value
        return found

    def body(self, config: TrainConfig, data: DataFacts) -> JsonObject:
        """Return the JSON part of a checkpoint: counters, history, configuration, data, versions."""
        return {
            **{name: getattr(self, name) for name in _COUNTERS},
            "metric": self.metric,
            **({"scaler": self.scaler.state_dict()} if self.scaler.is_enabled() else {}),
            "config": config.to_dict(),
            "data": asdict(data),
            "versions": _versions(),
        }

    def restore(self, checkpoint: Checkpoint, where: Path) -> None:
        """Take over the content of a checkpoint.

        Raises:
            CheckpointError: weights or optimiser do not fit.
        """
        load_weights(self.answering, checkpoint, where)
        if self.mean is not None:
            trained = {name.removeprefix(_TRAINED): value for name, value in checkpoint.tensors.items()
                       if name.startswith(_TRAINED)}  # fmt: skip
            # A run that begins to keep means (with ``force``) has none of its own yet.
            self.model.load_state_dict(trained or self.mean.model.state_dict())
        self._restore_optimiser(checkpoint.tensors)
        if self.scaler.is_enabled() and "scaler" in checkpoint.body:
            self.scaler.load_state_dict(checkpoint.body["scaler"])
        for name in _COUNTERS:
            if name in checkpoint.body:  # runs of earlier versions know fewer
                setattr(self, name, checkpoint.body[name])

    @torch.no_grad()
    def _restore_optimiser(self, tensors: dict[str, torch.Tensor]) -> None:
        stored: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith(_OPTIMISER):
                number, key = name[len(_OPTIMISER) :].split(".", 1)
                stored.setdefault(int(number), {})[key] = value
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        fused = any(group.get("fused") for group in self.optimiser.param_groups)  # which counts steps on the device
        if any(place >= len(parameters) for place in stored):
            raise CheckpointError("checkpoint: the optimiser's state belongs to a larger model.")
        for place, entries in stored.items():
            parameter = parameters[place]
            # Moments take the parameter's memory layout: an update that walks both in memory order must
            # find the same element in each.
            self.optimiser.state[parameter] = {
                key: torch.empty_like(parameter).copy_(value)
                if value.shape == parameter.shape
                else value.to(parameter.device if fused else "cpu")
                for key, value in entries.items()
            }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "torch": str(torch.__version__)}
    for name in ("convoxel", "monai", "numpy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found
