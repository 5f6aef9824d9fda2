"""Which operators are linear, which only affine, which neither; and which step of a network it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from convoxel import inspect, models
from convoxel.errors import ConfigError, ShapeError


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def resized(mode: str) -> Callable[[Tensor], Tensor]:
    return lambda x: functional.interpolate(x, scale_factor=1.5, mode=mode)


@pytest.mark.parametrize("operator, shape, kind", [
    (nn.Conv1d(2, 3, 3, bias=False), (1, 2, 9), "linear"),
    (nn.Conv3d(1, 2, 3, 2, bias=False), (1, 1, 7, 7, 7), "linear"),
    (nn.ConvTranspose2d(1, 2, 3, 2, bias=False), (1, 1, 5, 5), "linear"),
    (resized("linear"), (1, 1, 8), "linear"), (resized("bilinear"), (1, 1, 8, 8), "linear"),
    (resized("bicubic"), (1, 1, 8, 8), "linear"), (resized("trilinear"), (1, 1, 4, 4, 4), "linear"),
    (resized("nearest"), (1, 1, 8), "linear"), (nn.AvgPool2d(2), (1, 1, 8, 8), "linear"),
    (nn.Identity(), (1, 1, 8), "linear"), (lambda x: x.flip(2), (1, 1, 8), "linear"),
    (nn.Conv2d(1, 2, 3), (1, 1, 8, 8), "affine"), (lambda x: x + 1, (1, 1, 8), "affine"),
    (nn.MaxPool2d(2), (1, 1, 8, 8), "neither"), (nn.MaxPool3d(2), (1, 1, 4, 4, 4), "neither"),
    (nn.ReLU(), (1, 1, 8), "neither"), (nn.ReLU(inplace=True), (1, 1, 8), "neither"),
    (nn.LeakyReLU(), (1, 1, 8), "neither"), (lambda x: x * x, (1, 1, 8), "neither"),
    (lambda x: x.abs(), (1, 1, 8), "neither"), (nn.Softmax(1), (1, 4, 8), "neither"),
])  # fmt: skip
def test_C4_linear_affine_and_other_operators(
    operator: Callable[[Any], Any], shape: tuple[int, ...], kind: str
) -> None:
    report = inspect.linearity(operator, noise(*shape))
    assert (report.linear, report.affine) == (kind == "linear", kind != "neither")
    assert bool(report.breaks) == (kind != "linear")
    assert all(entry.affine == (kind == "affine") for entry in report.breaks)
    assert (max(report.additivity, report.homogeneity) < 1e-5) == (kind == "linear")


def test_a_network_names_its_steps() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(1, 4, 3, padding=1, bias=False)
            self.inner = nn.Sequential(nn.BatchNorm2d(4), nn.AvgPool2d(2))
            self.gate = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.inner(self.first(x))
            return x * torch.sigmoid(self.gate(x)) + x

    net = Net()
    nn.init.normal_(net.inner[0].bias)
    report = inspect.linearity(net, noise(1, 1, 8, 8))
    assert not report.linear and not report.affine
    assert [(entry.name, entry.affine) for entry in report.breaks] == [
        ("inner.0", True), ("gate", True), ("sigmoid", False), ("mul", False),
    ]  # fmt: skip
    assert "inner.0 (batch_norm) adds a constant" in str(report) and "mul (mul) is not linear" in str(report)


def test_zoo_networks() -> None:
    report = inspect.linearity(models.unet(1, 1, 2, levels=1, width=2), noise(1, 1, 16))
    assert {entry.function for entry in report.breaks if not entry.affine} == {"relu", "max_pool1d"}
    assert next(entry.name for entry in report.breaks if not entry.affine) == "encoder.0.act1"


def test_a_second_input_and_arrays() -> None:
    """A rectifier is linear on what is positive alone; noise of both signs finds out."""
    positive = np.ones((1, 1, 8), np.float32)
    assert inspect.linearity(nn.ReLU(), positive, positive).additivity == 0
    assert not inspect.linearity(nn.ReLU(), positive).linear
    assert inspect.linearity(nn.Conv1d(1, 1, 3, bias=False), np.arange(8).reshape(1, 1, 8)).linear


def test_the_module_stays_as_it_is() -> None:
    net = nn.Sequential(nn.Conv1d(1, 1, 3), nn.BatchNorm1d(1), nn.Dropout(0.5)).train()
    x = noise(1, 1, 16)
    before = x.clone()
    report = inspect.linearity(net, x)
    assert report.affine and net.training and net[2].training
    assert torch.equal(x, before) and float(net[1].running_mean) == 0
    assert not any(child._forward_hooks or child._forward_pre_hooks for child in net.modules())


def test_report() -> None:
    told = inspect.linearity(nn.Conv1d(1, 1, 3), noise(1, 1, 8)).to_dict()
    assert told["affine"] and told["breaks"][0]["function"] == "conv1d" and told["offset"] > 0
    assert str(inspect.linearity(nn.Identity(), noise(1, 1, 8))).startswith("linear (additivity ")


def test_refusals() -> None:
    with pytest.raises(ShapeError, match=r"x has shape \(1, 1, 8\) but y \(1, 1, 9\); expected equal shapes"):
        inspect.linearity(nn.ReLU(), noise(1, 1, 8), noise(1, 1, 9))
    with pytest.raises(ConfigError, match="returned a tuple, expected a tensor"):
        inspect.linearity(lambda x: (x,), noise(1, 1, 8))
