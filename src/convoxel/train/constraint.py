"""The constraints of a configuration, held during training."""

from __future__ import annotations

import torch
from torch import nn

from convoxel.nn.weight_constraint import Constraint, MaxNorm, NonNegative, UnitNorm, constrain, l2_penalty
from convoxel.train.config import TrainConfig

__all__ = ["add_penalty", "hold_constraints"]


def hold_constraints(config: TrainConfig, model: nn.Module) -> None:
    """Bring the kernels of ``model`` to what ``config.constraints`` allows: at the start and after each step."""
    wanted = config.constraints
    held: list[Constraint] = []
    if wanted.non_negative:  # before the norms, which it changes
        held.append(NonNegative())
    if wanted.max_norm is not None:
        held.append(MaxNorm(wanted.max_norm))
    if wanted.unit_norm:
        held.append(UnitNorm())
    if held:
        constrain(model, held, kinds=wanted.kinds)


def add_penalty(config: TrainConfig, model: nn.Module, loss: torch.Tensor) -> torch.Tensor:
    """Return ``loss`` with the soft constraints of ``config.constraints.l2`` added."""
    strengths = {str(kind): value for kind, value in config.constraints.l2.items() if value}
    return loss + l2_penalty(model, strengths) if strengths else loss
