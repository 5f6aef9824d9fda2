"""The running mean of the weights over the steps, which is steadier than the weights of any one step."""

from __future__ import annotations

import copy

import torch
from torch import nn


class WeightMean:
    """An exponential mean of a network's weights and statistics (Polyak and Juditsky 1992; Tarvainen and Valpola 2017).

    Step t keeps min(``keep``, (1 + t) / (10 + t)) of the mean, so that the random weights of the start are soon
    forgotten in short runs as well.

    Args:
        model: network whose weights begin the mean; its weights may lie on any device.
        keep: share of the mean that a step keeps, such as 0.999.

    Attributes:
        model: network with the mean weights; it is never trained.

    >>> net = nn.Linear(1, 1, bias=False)
    >>> _ = net.weight.data.fill_(0.0)
    >>> mean = WeightMean(net, 0.5)
    >>> _ = net.weight.data.fill_(1.0)
    >>> mean.update(net, step=100)
    >>> mean.model.weight.item()
    0.5
    """

    def __init__(self, model: nn.Module, keep: float) -> None:
        self.model, self.keep = copy.deepcopy(model).requires_grad_(False).eval(), keep

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after ``step`` steps; counters are copied."""
        keep = min(self.keep, (1 + step) / (10 + step))
        means, found = [], []
        for mean, value in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if mean.is_floating_point():
                means.append(mean)
                found.append(value)
            else:
                mean.copy_(value)
        torch._foreach_lerp_(means, found, 1.0 - keep)
