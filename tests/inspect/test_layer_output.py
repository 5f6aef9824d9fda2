"""Results of layers inside a network are those of PyTorch, and formulas add up to them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from convoxel.errors import ConfigError, ShapeError
from convoxel.inspect.layer_output import formula, layer_outputs, layer_program
from convoxel.inspect.record import open_source


class Net(nn.Module):
    """Layers of all kinds that have a formula, in any number of dimensions."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
        transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[dims - 1]
        self.first = conv(2, 4, 3, stride=2, padding=1, dilation=1)
        self.grouped = conv(4, 6, 3, padding=2, dilation=2, groups=2, bias=False)
        self.largest = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[dims - 1](2, 1, 1)
        self.mean = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[dims - 1](2)
        self.up = transposed(6, 4, 3, stride=2, padding=1, groups=2, output_padding=1)
        self.act = nn.ReLU()

    def forward(self, x: Any) -> Any:
        """Run all layers."""
        y = self.mean(self.largest(self.grouped(self.act(self.first(x)))))
        return self.up(y) + 1.0


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_layers_and_formulas(dims: int) -> None:
    torch.manual_seed(dims)
    net = Net(dims).eval()
    x = torch.randn(1, 2, *(14,) * dims)
    record = open_source(net).record([tuple(x.shape)])
    weights = {name: value.detach().numpy() for name, value in net.state_dict().items()}
    known: dict[str, Any] = {}
    for name, layer in net.named_children():
        layer.register_forward_hook(lambda layer, given, y, name=name: known.__setitem__(name, y.detach().numpy()))
    net(x)
    kinds = set()
    for step in record.steps:
        if step.name not in known:
            continue
        y, *inputs = layer_outputs(record, weights, x.numpy(), [step.outputs[0].name, *step.inputs])
        assert np.allclose(y, known[step.name], atol=1e-5)
        constants = {**record.graph.constants, **weights}
        for number in range(0, y[0].size, max(1, y[0].size // 40)):
            at = [int(place) for place in np.unravel_index(number, y.shape[1:])]
            made = formula(step, inputs, y, at, constants)
            assert made.value == pytest.approx(float(known[step.name][(0, *at)]), abs=1e-5)
            if made.kind == "sum":
                assert sum(made.of_channels().values()) + made.bias == pytest.approx(made.value)
            kinds.add(made.kind)
    assert kinds == {"sum", "max", "mean", "other"}


def test_a_part_of_a_network_is_a_program() -> None:
    net = Net(2).eval()
    record = open_source(net).record([(1, 2, 12, 12)])
    weights = {name: value.detach().numpy() for name, value in net.state_dict().items()}
    x = torch.randn(1, 2, 12, 12)
    step = next(step for step in record.steps if step.name == "first")
    assert torch.allclose(layer_program(record, weights, step.outputs[0].name)(x), net.first(x), atol=1e-5)
    assert layer_outputs(record, weights, x.numpy(), [record.graph.inputs[0].name])[0] is not None


def test_mistakes_are_told() -> None:
    net = Net(2).eval()
    record = open_source(net).record([(1, 2, 12, 12)])
    weights = {name: value.detach().numpy() for name, value in net.state_dict().items()}
    step = record.steps[0]
    with pytest.raises(ShapeError, match="1, 2, 12, 12"):
        layer_outputs(record, weights, np.zeros((1, 2, 8, 8), np.float32), [step.outputs[0].name])
    with pytest.raises(Exception, match=r"first\.(weight|bias)"):
        layer_outputs(record, {}, np.zeros((1, 2, 12, 12), np.float32), [step.outputs[0].name])
    y = np.zeros((1, 4, 6, 6), np.float32)
    with pytest.raises(ConfigError, match="at"):
        formula(step, [np.zeros((1, 2, 12, 12), np.float32)], y, (0, 6, 0), weights)
