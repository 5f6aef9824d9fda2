"""The update of the weights: progress of a run, learning rate, optimiser, and the constraints that hold."""

from __future__ import annotations

import math

import torch
from torch import nn

from convoxel.nn.weight_constraint import Constraint, MaxNorm, NonNegative, UnitNorm, constrain, l2_penalty
from convoxel.train.config import TrainConfig


def steps_total(config: TrainConfig) -> int | None:
    """Return the planned number of steps; None when time is the limit."""
    if config.epochs is None:
        return None
    return config.epochs * (config.steps_per_epoch or 1)


def measure_fraction(config: TrainConfig, step: int, elapsed_s: float, reserve_s: float = 0.0) -> float:
    """Return the share of the training that is done, 0 … 1.

    Args:
        config: planned configuration with ``epochs`` or ``minutes``.
        step: steps taken.
        elapsed_s: time since the first step, validation included.
        reserve_s: time of the run that is not for training: reading the data, and the last validation and the closing
            evaluation, which are kept free (default 0).
    """
    total = steps_total(config)
    if total is not None:
        return min(1.0, step / total)
    room_s = 60.0 * (config.minutes or 1.0) - reserve_s
    return min(1.0, elapsed_s / room_s) if room_s > 0 else 1.0


def learning_rate(config: TrainConfig, fraction: float) -> float:
    """Return the learning rate at ``fraction`` of the run.

    It rises linearly over the first ``warmup`` share, then stays constant or falls along half a cosine period to 1 % of
    the maximum (Loshchilov and Hutter 2017, SGDR, without restarts).
    """
    top = config.learning_rate or 1e-3
    if fraction < config.warmup:
        return top * max(0.05, fraction / config.warmup)
    if config.schedule == "constant":
        return top
    place = (fraction - config.warmup) / max(1e-12, 1.0 - config.warmup)
    return top * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, place))))


def build_optimiser(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Return Adam (with decoupled weight decay) or SGD (Nesterov momentum 0.9) for the model's parameters.

    Weights decay; biases and normalisation parameters, which have one axis, do not. On a GPU one kernel updates all
    parameters.
    """
    fused = True if config.device is not None and config.device.startswith("cuda") else None
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    rate = config.learning_rate or 1e-3
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True, fused=fused)
    return torch.optim.AdamW(groups, lr=rate, fused=fused)


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
