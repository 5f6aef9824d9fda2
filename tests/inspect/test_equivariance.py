"""Equivariance against what is known: circular convolution, strides, pooling, up-sampling, global pooling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from convoxel import inspect, models
from convoxel.errors import ConfigError, ShapeError

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_B1_circular_convolution_is_equivariant(dims: int) -> None:
    layer = CONV[dims](1, 3, 3, padding=1, padding_mode="circular")
    x = noise(2, 1, *(12,) * dims)
    report = inspect.equivariance(layer, x, [1, 2, tuple(range(dims))], borders=True)
    assert all(row.exact and row.error < 1e-6 and row.positions == 12**dims for row in report.rows)
    assert report.period == 1 and report.stride == (1,) * dims and not report.interior


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_B1_pooling_by_two_knows_even_shifts_only(dims: int) -> None:
    report = inspect.equivariance(POOL[dims](2), noise(1, 1, *(24,) * dims), range(1, 7))
    assert [row.exact for row in report.rows] == [False, True] * 3
    assert report.period == 2 and report.stride == (2,) * dims and report.interior
    assert [row.output_shift for row in report.rows][1] == (1,) * dims


def test_zero_padding_breaks_the_border_alone() -> None:
    layer = nn.Conv2d(1, 2, 5, padding=2)
    inner, outer = (inspect.equivariance(layer, noise(1, 1, 16, 16), [3], borders=b).rows[0] for b in (False, True))
    assert inner.exact and inner.positions == (16 - 2 * 2 - 3) ** 2
    assert not outer.exact and outer.positions == 256


def test_a_shift_along_one_axis() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.MaxPool2d((1, 2)))
    report = inspect.equivariance(net, noise(1, 1, 16, 32), [(1, 0), (0, 1), (0, 2)])
    assert [row.exact for row in report.rows] == [True, False, True]


def test_unets_know_shifts_by_their_poolings() -> None:
    net = models.unet(1, 1, 2, levels=2, width=2)
    assert inspect.equivariance(net, noise(1, 1, 128), range(1, 9)).period == 4


def test_upsampling_moves_twice_as_far() -> None:
    report = inspect.equivariance(nn.Upsample(scale_factor=2), noise(1, 1, 20), [1, 2])
    assert [row.output_shift for row in report.rows] == [(2,), (4,)] and report.period == 1


def test_B1_global_pooling_is_invariance() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular"), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    report = inspect.equivariance(nn.Sequential(net, nn.Flatten()), noise(1, 1, 16, 16), [1, 5])
    assert report.stride == () and all(row.error < 1e-5 for row in report.rows)
    strided = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    (row,) = inspect.equivariance(strided, noise(1, 1, 16, 16), [1]).rows
    assert row.error == row.invariance > 1e-3 and not row.exact


def test_functions_and_arrays() -> None:
    report = inspect.equivariance(lambda x: x.abs(), np.ones((1, 1, 8), np.float32), [3])
    assert report.rows[0].exact and report.stride == (1,) and not report.interior
    assert inspect.equivariance(nn.Identity(), noise(1, 1, 8), [0]).period is None


def test_the_module_stays_as_it_is() -> None:
    net = nn.Sequential(nn.Conv1d(1, 1, 3), nn.BatchNorm1d(1), nn.Dropout(0.5)).train()
    net[2].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert inspect.equivariance(net, noise(1, 1, 32), [1]).rows[0].exact
    assert [child.training for child in net.modules()] == [True, True, True, False]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_report() -> None:
    report = inspect.equivariance(nn.MaxPool1d(2), noise(1, 1, 32), [1, 2])
    assert "shift         1" in str(report) and "broken" in str(report)
    assert str(report).endswith("exact for shifts by multiples of 2 (where no border reaches)")
    told = report.to_dict()
    assert told["period"] == 2 and told["stride"] == [2.0] and told["rows"][1]["output_shift"] == [1]
    assert "no period found (borders included)" in str(
        inspect.equivariance(nn.Conv1d(1, 1, 3, padding=1), noise(1, 1, 8), [1], borders=True)
    )


def test_refusals() -> None:
    with pytest.raises(ShapeError, match=r"x has shape \(1, 8\), expected \(n, c, \*spatial\)"):
        inspect.equivariance(nn.Identity(), noise(1, 8), [1])
    with pytest.raises(ShapeError, match=r"shift \(1, 2\) has 2 numbers, but x has 1 spatial axes"):
        inspect.equivariance(nn.Identity(), noise(1, 1, 8), [(1, 2)])
    with pytest.raises(ConfigError, match="there are no shifts"):
        inspect.equivariance(nn.Identity(), noise(1, 1, 8), [])
    with pytest.raises(ConfigError, match="returned a tuple, expected a tensor"):
        inspect.equivariance(lambda x: (x, x), noise(1, 1, 8), [1])
