"""Layers chosen by dims are PyTorch's, and start with the variance that they promise."""

from __future__ import annotations

import doctest

import pytest
import torch
from torch import nn

from convoxel import nn as cnn
from convoxel.errors import ConfigError
from convoxel.nn import initialisation, torch_layers

DIMS = (1, 2, 3)


@pytest.mark.parametrize("dims", DIMS)
def test_layers_are_those_of_torch(dims: int) -> None:
    assert type(cnn.conv(dims, 2, 3, 3)) is (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    up = cnn.conv_transpose(dims, 2, 3, 2, stride=2)
    assert type(up) is (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[dims - 1]
    assert type(cnn.batch_norm(dims, 2)) is (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims - 1]
    assert set(cnn.instance_norm(dims, 2).state_dict()) == {"weight", "bias"}


@pytest.mark.parametrize("dims", DIMS)
def test_sizes(dims: int) -> None:
    x = torch.randn(2, 3, *(8,) * dims)
    assert cnn.conv(dims, 3, 4, 3, stride=2, padding=1)(x).shape == (2, 4, *(4,) * dims)
    assert cnn.conv(dims, 3, 4, 3, padding="same")(x).shape == (2, 4, *(8,) * dims)
    assert cnn.conv_transpose(dims, 3, 4, 2, stride=2)(x).shape == (2, 4, *(16,) * dims)
    assert cnn.max_pool(dims, 2)(x).shape == (2, 3, *(4,) * dims)
    assert cnn.average_pool(dims, 3, stride=2, padding=1)(x).shape == (2, 3, *(4,) * dims)
    assert cnn.global_average_pool(dims)(x).shape == (2, 3, *(1,) * dims)
    for mode in ("linear", "nearest"):
        assert cnn.resize(dims, 2, mode)(x).shape == (2, 3, *(16,) * dims)
    for kind in cnn.NORMS:
        normalise = cnn.norm(kind, dims, 3)
        assert normalise is None or normalise(x).shape == x.shape
    for kind in cnn.ACTIVATIONS:
        assert cnn.activation(kind)(x.clone()).shape == x.shape


def test_sizes_an_axis() -> None:
    assert cnn.conv(3, 1, 1, (1, 3, 3), padding=(0, 1, 1)).weight.shape == (1, 1, 1, 3, 3)


@pytest.mark.parametrize("call, match", [
    (lambda: cnn.conv(4, 1, 1, 3), "dims is 4, but layers have 1, 2 or 3"),
    (lambda: cnn.batch_norm(True, 1), "dims is True"),
    (lambda: cnn.conv(3, 1, 1, (3, 3)), r"\(3, 3\) has 2 entries, but dims=3"),
    (lambda: cnn.norm("batsch", 2, 1), "norm is 'batsch', but it can be 'batch', 'instance', 'group' or 'none'"),
    (lambda: cnn.activation("softplus"), "activation is 'softplus', but it can be 'relu'"),
    (lambda: cnn.resize(2, 2, "cubic"), "mode is 'cubic', but it can be 'linear' or 'nearest'"),
])  # fmt: skip
def test_errors_say_how_to_mend(call: object, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        call()  # type: ignore[operator]


@pytest.mark.parametrize("make, gain", [
    (lambda: cnn.conv(2, 64, 64, 3, padding=1), 2.0),
    (lambda: cnn.conv_transpose(2, 128, 64, 2, stride=2), 2.0),
    (lambda: cnn.conv_transpose(1, 128, 64, 4, stride=2, padding=1), 2.0),
    (lambda: nn.Linear(512, 256), 2.0),
    (lambda: cnn.conv(2, 64, 64, 1), 1.0),
])  # fmt: skip
def test_start_weights_keep_the_variance(make: object, gain: float) -> None:
    torch.manual_seed(0)
    module = make()  # type: ignore[operator]
    linear = (module,) if gain == 1.0 else ()
    cnn.start_weights(module, linear=linear)
    shape = (64, 512) if isinstance(module, nn.Linear) else (2, module.in_channels, 64, 64)[: module.weight.dim()]
    variance = module(torch.randn(shape)).var().item()
    assert variance == pytest.approx(gain, rel=0.1)
    assert module.bias.abs().max() == 0


def test_start_weights_know_the_slope() -> None:
    torch.manual_seed(0)
    module = cnn.conv(1, 256, 256, 3)
    cnn.start_weights(module, negative_slope=1.0)  # a rectifier of slope 1 is none
    assert module.weight.std().item() == pytest.approx((256 * 3) ** -0.5, rel=0.02)


@pytest.mark.parametrize("dims", DIMS)
def test_poolings_that_reach_over_the_border(dims: int) -> None:
    x = torch.rand(2, 3, *(2,) * dims)
    assert cnn.max_pool(dims, 3, stride=2, ceil=True)(x).flatten().equal(x.flatten(2).amax(2).flatten())
    padded = cnn.average_pool(dims, 3, stride=1, padding=1)
    assert torch.allclose(padded(x), x.flatten(2).sum(2).reshape(2, 3, *(1,) * dims) / 3**dims)
    assert padded(x[..., :1]).shape == x[..., :1].shape  # shorter than the kernel
    grid = cnn.adaptive_average_pool(dims, 4)(x)
    assert grid.shape == (2, 3, *(4,) * dims) and torch.allclose(grid.flatten(2).mean(2), x.flatten(2).mean(2))


def test_norms_take_their_numbers() -> None:
    made = cnn.norm("batch", 2, 4, eps=1e-3, momentum=0.01)
    assert (made.eps, made.momentum) == (1e-3, 0.01)
    assert cnn.norm("instance", 2, 4, eps=1e-3).eps == 1e-3


@pytest.mark.parametrize("conv, linear, expected", [
    ("fan_out", 0.01, ((2 / (128 * 9)) ** 0.5, 0.01)),
    ("fan_in", None, ((2 / (64 * 9)) ** 0.5, (3 * 1024) ** -0.5)),
    (0.05, 0.02, (0.05, 0.02)),
])  # fmt: skip
def test_start_network_draws_what_the_papers_say(conv: str | float, linear: float | None, expected: object) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(cnn.conv(2, 64, 128, 3), cnn.batch_norm(2, 128), nn.Linear(1024, 512))
    cnn.start_network(net, conv=conv, linear=linear)
    drawn = tuple(net[place].weight.detach().std().item() for place in (0, 2))
    assert drawn == pytest.approx(expected, rel=0.02)
    assert not net[0].bias.any() and not net[2].bias.any() and bool((net[1].weight == 1).all())


@pytest.mark.parametrize("module", [torch_layers, initialisation])
def test_documented_examples(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]
