"""Errors of layers: the exact results are PyTorch's in float64, the errors those of the engine's numbers."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from convoxel.errors import ShapeError
from convoxel.inspect.layer_error import layer_errors
from convoxel.inspect.layer_output import layer_outputs
from convoxel.inspect.record import open_source


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.b = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.end = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.a(x)
        return self.end(self.up(nn.functional.max_pool2d(a + self.b(a), 2)).mean((2, 3)))


def test_errors_are_those_of_the_engine_beside_float64() -> None:
    torch.manual_seed(0)
    net = Branches().eval()
    record = open_source(net).record([(1, 3, 16, 16)])
    weights = {name: value.numpy() for name, value in net.state_dict().items()}
    x = np.random.default_rng(1).standard_normal((1, 3, 16, 16), np.float32)
    seen: list[tuple[int, int]] = []
    errors = layer_errors(record, weights, x, on_progress=lambda done, count: seen.append((done, count)))
    assert seen[-1][0] == seen[-1][1] == len(seen)
    exact = copy.deepcopy(net).double()(torch.from_numpy(x).double()).detach().numpy()
    (name,) = record.graph.outputs
    (y,) = layer_outputs(record, weights, x, [name])
    step = next(step.name for step in record.steps if step.outputs[0].name == name)
    expected = np.linalg.norm(y.astype(np.float64) - exact) / np.linalg.norm(exact)
    # Layers that are fused round otherwise than single ones; the exact values are the same.
    assert errors[step] == pytest.approx(expected, rel=0.9, abs=1e-8) and 1e-9 < errors[step] < 1e-5
    assert len(errors) < len(record.steps) and all(0 <= error < 1e-5 for error in errors.values())


def test_a_wrong_weight_is_seen_from_its_layer_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from convoxel.inspect import layer_error

    net = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Conv1d(2, 2, 3), nn.Conv1d(2, 1, 1)).eval()
    record = open_source(net).record([(1, 1, 20)])
    weights = {name: value.numpy() for name, value in net.state_dict().items()}
    wrong = {**weights, "1.weight": weights["1.weight"] * np.float32(1.01)}
    monkeypatch.setattr(
        layer_error, "layer_outputs", lambda record, _, x, names: layer_outputs(record, wrong, x, names)
    )
    errors = layer_errors(record, weights)
    assert errors["0"] < 1e-6 and errors["1"] > 1e-3 and errors["2"] > 1e-3


def test_networks_that_would_take_minutes_are_refused() -> None:
    from convoxel.lookup import find_network

    found = find_network("vgg16", [(1, 3, 896, 896)])
    with pytest.raises(ShapeError, match="Give a smaller shape"):
        layer_errors(found.open().record(found.shapes), {})
