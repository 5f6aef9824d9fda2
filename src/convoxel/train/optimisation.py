"""The update of the weights: progress of a run, learning rate, optimiser, and the constraints that hold."""

from __future__ import annotations

import math

import torch
from torch import nn

from convoxel.errors import ConfigError
from convoxel.models.alteration import check_patterns, find_named
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

    It rises linearly over the first ``warmup`` share, then stays constant, falls along half a cosine period to 1 % of
    the maximum (Loshchilov and Hutter 2017, SGDR, without restarts), or falls to 0 as (1 − place) to the power 0.9
    (Chen et al. 2018, DeepLab; nnU-Net's).
    """
    top = config.learning_rate or 1e-3
    if fraction < config.warmup:
        return top * max(0.05, fraction / config.warmup)
    if config.schedule == "constant":
        return top
    place = min(1.0, (fraction - config.warmup) / max(1e-12, 1.0 - config.warmup))
    if config.schedule == "poly":
        return top * math.pow(1.0 - place, 0.9)
    return top * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * place)))


def set_rates(config: TrainConfig, optimiser: torch.optim.Optimizer, fraction: float) -> None:
    """Give every group of weights its learning rate at ``fraction`` of the run."""
    rate = learning_rate(config, fraction)
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("factor", 1.0)


def freeze(config: TrainConfig, model: nn.Module) -> None:
    """Make the weights that ``config.rates`` sets to 0 constants.

    Raises:
        ConfigError: a pattern fits no weight, or no weight is left to train.
    """
    check_patterns("rates", config.rates, [name for name, _ in model.named_parameters()], f"{config.model}")
    for name, parameter in model.named_parameters():
        if _factor(config, name) == 0:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError("rates: every weight is frozen; expected some to train. Set a factor above 0 for the head.")


def _factor(config: TrainConfig, name: str) -> float:
    """Return the factor of the learning rate of the weight ``name``."""
    return find_named(config.rates, name, 1.0)


def build_optimiser(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Return Adam (with decoupled weight decay) or SGD (Nesterov momentum) for the parameters that train.

    Weights decay; biases and normalisation parameters, which have one axis, do not. On a GPU one kernel updates all
    parameters. Parameters whose rate has the same factor are in the same groups.
    """
    fused = True if config.device is not None and config.device.startswith("cuda") else None
    rate = config.learning_rate or 1e-3
    trained = [(_factor(config, name), p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": params, "weight_decay": decay, "factor": factor, "lr": rate * factor}
        for factor in sorted({factor for factor, _ in trained}, reverse=True)
        for params, decay in (
            ([p for each, p in trained if each == factor and p.dim() > 1], config.weight_decay),
            ([p for each, p in trained if each == factor and p.dim() <= 1], 0.0),
        )
    ]
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=config.momentum, nesterov=config.momentum > 0, fused=fused)
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
