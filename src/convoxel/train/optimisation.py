"""Optimisers of a configuration, and the constraints that hold during training."""

from __future__ import annotations

import torch
from torch import nn

from convoxel.nn.weight_constraint import Constraint, MaxNorm, NonNegative, UnitNorm, constrain, l2_penalty
from convoxel.train.config import TrainConfig

__all__ = ["add_penalty", "build_optimiser", "hold_constraints"]


def build_optimiser(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Return Adam (with decoupled weight decay) or SGD (Nesterov momentum 0.9) for the model's parameters.

    Weights decay; biases and normalisation parameters, which have one axis, do not.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    rate = config.learning_rate or 1e-3
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=rate)


def hold_constraints(config: TrainConfig, model: nn.Module) -> None:
    """Project the kernels of ``model`` onto ``config.constraints``; called at the start and after each step."""
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
