"""Effective receptive fields against kernels whose gradient is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from convoxel import inspect, models
from convoxel.errors import ConfigError, ShapeError


@pytest.fixture(autouse=True)
def same_weights() -> None:
    """An effective field depends on the weights: a test that does not set them draws the same ones every time."""
    torch.manual_seed(0)


CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def ones(net: nn.Module) -> nn.Module:
    for parameter in net.parameters():
        nn.init.ones_(parameter)
    return net


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_D3_one_kernel_of_ones(dims: int) -> None:
    found = inspect.effective_field(ones(CONV[dims](1, 1, 3, padding=1, bias=False)), (1, 1, *(9,) * dims), samples=1)
    expected = np.zeros((9,) * dims)
    expected[(slice(3, 6),) * dims] = 1
    assert np.array_equal(found.array, expected)
    assert found.size == found.theoretical == (3,) * dims and found.position == (4,) * dims
    assert found.side == pytest.approx(3) and found.ratio == (1.0,) * dims


def test_D3_a_stack_is_a_binomial() -> None:
    """k layers of [1, 1, 1] have the gradient of the k-fold convolution, here 1 4 10 16 19 16 10 4 1."""
    net = ones(nn.Sequential(*[nn.Conv1d(1, 1, 3, padding=1, bias=False) for _ in range(4)]))
    found = inspect.effective_field(net, (1, 1, 21), samples=2)
    assert np.allclose(found.array[6:15] * 19, [1, 4, 10, 16, 19, 16, 10, 4, 1])
    assert found.theoretical == (9,) and found.size == (9,)
    assert inspect.effective_field(net, (1, 1, 21), samples=1, threshold=0.5).size == (5,)


def test_D3_depth_grows_with_its_root() -> None:
    sides = []
    for depth in (4, 16):
        net = ones(nn.Sequential(*[nn.Conv1d(1, 1, 3, padding=1, bias=False) for _ in range(depth)]))
        sides.append(inspect.effective_field(net, (1, 1, 81), samples=1, threshold=0.3).side)
    assert sides[1] / sides[0] == pytest.approx(2, rel=0.15)


def test_a_classifier_shows_its_last_map() -> None:
    net = models.build("resnet18", width=0.125, in_channels=1, num_classes=3)
    found = inspect.effective_field(net, (1, 1, 96, 96), samples=2)
    assert found.layer.startswith("layer4.1") and found.theoretical == (435, 435) and max(found.size) <= 96
    early = inspect.effective_field(net, (1, 1, 96, 96), samples=2, layer="layer1")
    assert early.theoretical == (43, 43) and early.size < early.theoretical and early.layer == "layer1"
    assert "of 43×43 in theory" in str(early)
    assert set(early.to_dict()) == {"layer", "position", "size", "side", "theoretical", "ratio", "threshold"}


def test_images_and_positions() -> None:
    net = ones(nn.Conv2d(1, 1, 3, padding=1, bias=False))
    found = inspect.effective_field(net, torch.zeros(2, 1, 8, 8), position=(0, 7))
    assert np.argwhere(found.array > 0).tolist() == [[0, 6], [0, 7], [1, 6], [1, 7]]
    assert np.array_equal(
        inspect.effective_field(net, np.zeros((1, 1, 8, 8), np.uint8), position=(0, 7)).array, found.array
    )


def test_the_module_stays_as_it_is() -> None:
    net = nn.Sequential(nn.Conv1d(1, 1, 3), nn.BatchNorm1d(1)).train()
    net[0].weight.requires_grad_(False)
    inspect.effective_field(net, (1, 1, 16), samples=2)
    assert net.training and not net[0].weight.requires_grad and net[1].weight.requires_grad
    assert net[1].weight.grad is None and float(net[1].running_mean) == 0 and not net[0]._forward_hooks


def test_a_position_that_sees_nothing() -> None:
    net = nn.ConvTranspose1d(1, 1, 1, 2, bias=False)
    found = inspect.effective_field(net, (1, 1, 8), position=(1,), samples=1)
    assert found.size == (0,) and not found.array.any()


def test_refusals() -> None:
    net = nn.Sequential(nn.Conv1d(1, 1, 3), nn.Flatten())
    with pytest.raises(ShapeError, match=r"x has shape \(4, 8\), expected \(n, c, \*spatial\)"):
        inspect.effective_field(net, torch.zeros(4, 8))
    with pytest.raises(ShapeError, match=r"position \(9,\) does not lie in the output \(6,\)"):
        inspect.effective_field(net, (1, 1, 8), layer="0", position=(9,))
    with pytest.raises(ConfigError, match="there is no layer '00'; did you mean '0'"):
        inspect.effective_field(net, (1, 1, 8), layer="00")
    with pytest.raises(ConfigError, match=r"the output of 1 is \(1, 6\), expected a map of the image"):
        inspect.effective_field(net, (1, 1, 8), layer="1")
    with pytest.raises(ConfigError, match="samples is 0; expected at least 1"):
        inspect.effective_field(net, (1, 1, 8), samples=0)
