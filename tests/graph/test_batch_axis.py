"""Images of a batch are computed apart, or it is not proven: networks that mix them look innocent by their shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import convoxel as cx
from convoxel import models
from convoxel.graph.run.batch_axis import computes_images_apart, has_open_batch
from convoxel.graph.run.program import Program


class Net(nn.Module):
    def __init__(self, tail: Callable[[Any], Any]) -> None:
        super().__init__()
        self.conv, self.tail = nn.Conv2d(2, 4, 3, padding=1), tail

    def forward(self, x: Any) -> Any:
        return self.tail(self.conv(x))


def compiled(net: nn.Module, *shape: int) -> Program:
    return cx.compile(net.eval(), torch.zeros(shape))


APART: dict[str, Callable[[Any], Any]] = {
    "pooled": lambda x: F.linear(x.mean((2, 3)), torch.ones(3, 4)),
    "instance_norm": F.instance_norm,
    "attention": lambda x: F.softmax(x.flatten(2) @ x.flatten(2).transpose(1, 2), -1),
    "turned": lambda x: (x.permute(1, 0, 2, 3) * 2).permute(1, 0, 2, 3),
    "own_size": lambda x: F.interpolate(F.max_pool2d(x, 2), size=x.shape[2:], mode="bilinear") + x,
    "added": lambda x: torch.cat([x, torch.zeros_like(x), x.amax(1, keepdim=True)], 1),
    "largest": lambda x: x.argmax(1),
}
MIXED: dict[str, Callable[[Any], Any]] = {
    "mean": lambda x: x - x.mean(0, keepdim=True),
    "softmax": lambda x: F.softmax(x, 0),
    "batch_norm": lambda x: F.batch_norm(x, None, None, training=True),
    "turned": lambda x: x.flip(0),
    "count": lambda x: x * x.shape[0],
    "numbers": lambda x: x + torch.arange(x.shape[0]).float().reshape(-1, 1, 1, 1),
    "sorted": lambda x: x.flatten(0, 1).cumsum(0).reshape(x.shape),
    "between": lambda x: (x.flatten(1) @ x.flatten(1).T) @ x.flatten(1),
    "neighbour": lambda x: x.roll(1, 0),
}


@pytest.mark.parametrize("name", APART)
def test_images_that_are_computed_apart(name: str) -> None:
    program = compiled(Net(APART[name]), 1, 2, 8, 8)
    x = np.random.default_rng(0).standard_normal((3, 2, 10, 8), np.float32)
    assert has_open_batch(program.graph) and computes_images_apart(program.planned(x))
    whole = program(x)
    for number in range(3):
        assert np.array_equal(program(x[number : number + 1])[0], whole[number])


@pytest.mark.parametrize("name", MIXED)
def test_images_that_have_an_influence_on_each_other(name: str) -> None:
    program = compiled(Net(MIXED[name]), 2, 2, 8, 8)
    x = np.zeros((3, 2, 8, 8), np.float32)
    assert not (has_open_batch(program.graph) and computes_images_apart(program.planned(x)))


def test_a_batch_that_is_fixed_is_none() -> None:
    graph = compiled(Net(lambda x: x.reshape(1, -1)), 1, 2, 8, 8).graph
    assert not has_open_batch(graph)


@pytest.mark.parametrize(("name", "options"), [("mobilenet_v2", {"width": 0.1}), ("unet", {"width": 4, "levels": 2})])
def test_networks_of_the_zoo_compute_images_apart(name: str, options: dict[str, Any]) -> None:
    program = compiled(models.build(name, dims=2, in_channels=1, num_classes=2, **options), 1, 1, 32, 32)
    assert computes_images_apart(program.planned(np.zeros((2, 1, 32, 32), np.float32)))
