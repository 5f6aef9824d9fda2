"""The loss of one training step, as the loop, trial steps and fine-tuning compute it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import nn

from convoxel.errors import ConfigError
from convoxel.files.fault import brief
from convoxel.predict.computation import Computation
from convoxel.predict.device import explain_memory
from convoxel.predict.loss_terms import plan_loss
from convoxel.predict.trained_run import DataFacts
from convoxel.train.config import TrainConfig
from convoxel.train.loss import Loss, build_loss, measure_loss
from convoxel.train.process_group import Processes
from convoxel.train.training_batch import Batch

Forward = Callable[[torch.Tensor], torch.Tensor | Sequence[torch.Tensor]]


def plan_step(config: TrainConfig) -> Computation:
    """Return how a run computes its network; channels come first where the configuration leaves it open."""
    device = torch.device(config.device or "cpu")
    return Computation(device, config.precision, bool(config.channels_last), config.engine or "torch")


def build_step_loss(config: TrainConfig, facts: DataFacts) -> Loss:
    """Return the loss of a run's steps."""
    terms = plan_loss(config, facts.outputs, facts.class_counts)
    deterministic = config.deterministic and config.device != "cpu"
    return build_loss(terms, deterministic=deterministic, ignores=facts.ignored is not None, regions=facts.regions)


def compile_forward(model: nn.Module) -> Forward:
    """Return the network as torch.compile makes it, for batches of one size; its weights stay those of ``model``.

    The compiler runs at the first batch; where it fails, that call raises ConfigError.
    """
    compiled = torch.compile(model, dynamic=False)

    def forward(images: torch.Tensor) -> torch.Tensor | Sequence[torch.Tensor]:
        from torch._dynamo.exc import TorchDynamoException

        try:
            found: torch.Tensor | Sequence[torch.Tensor] = compiled(images)
        except TorchDynamoException as error:
            raise ConfigError(
                f"compile: got True, but torch.compile fails on this network and machine ({type(error).__name__}: "
                f"{brief(str(error).strip().partition(chr(10))[0])}). Set compile=false."
            ) from error
        return found

    return forward


def compute_loss(
    forward: Forward, batch: Batch, criterion: Loss, computation: Computation, processes: Processes | None = None
) -> torch.Tensor:
    """Return the loss of a network on a batch that is on its device; of mixed images by the share of each answer.

    Where several ``processes`` share the batch, the loss is that of the whole, the same in each.
    """
    group = processes or Processes()
    with computation.autocast():
        heads = forward(batch.images)
    found = group.gather(heads) if isinstance(heads, torch.Tensor) else [group.gather(head) for head in heads]
    loss = measure_loss(criterion, found, group.gather(batch.targets))
    if batch.mixture is None:
        return loss
    others, share = batch.mixture
    return torch.lerp(loss, measure_loss(criterion, found, group.gather(others)), share)


def watch_memory(config: TrainConfig) -> AbstractContextManager[None]:
    """Return a context in which full memory is told in words that name batch and patch."""
    batch = config.batch_size or 1

    def doing() -> str:
        inputs = f"{batch} × {' × '.join(map(str, config.patch or ()))}"
        return f"train: a step of {config.model}, batch_size × patch = {inputs}, in {config.precision},"

    def mend() -> str:
        fewer = f"Set batch_size={batch // 2}, or" if batch > 1 else "Set"
        reduced = " or precision=bfloat16" if config.precision in ("float32", "tf32") else ""
        return f"{fewer} a smaller patch{reduced}, or fewer channels with width."

    return explain_memory(plan_step(config).device, doing, mend)
