"""Batch normalisation for the small, uneven batches of volumes: slower statistics, fixed towards the end.

A batch of a few patches may be all air or all tissue. Its statistics then differ from the running ones that prediction
uses, and running ones that follow the last ten batches differ from one minute to the next: on a head, validation Dice
jumped between 0.52 and 0.73 although the weights hardly changed. Training therefore averages over about the last 50
batches, and in its last phase fixes the running statistics and uses them, so that the weights adapt to exactly what
prediction computes.
"""

from __future__ import annotations

from torch import nn

#: Fraction of the run from which on the statistics are fixed.
FIXED_FROM = 0.7
_MOMENTUM = 0.02

_BatchNorm = nn.modules.batchnorm._BatchNorm


def slow_statistics(model: nn.Module) -> None:
    """Make every batch normalisation average over about the last 1/0.02 batches."""
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.momentum is not None:
            module.momentum = _MOMENTUM


def set_mode(model: nn.Module, fraction: float) -> None:
    """Put ``model`` into the training mode of ``fraction`` of the run; frozen normalisations keep their statistics."""
    model.train()
    for module in model.modules():
        if isinstance(module, _BatchNorm) and (fraction >= FIXED_FROM or _is_frozen(module)):
            module.eval()


def _is_frozen(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)
