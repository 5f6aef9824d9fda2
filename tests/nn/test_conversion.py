"""One map written in two ways gives the same numbers; what cannot be converted is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import convoxel as cx
from convoxel import models
from convoxel import nn as cnn
from convoxel.errors import ConfigError, ShapeError

DIMS = (1, 2, 3)


# ---- B5: linear and 1×1 convolution ----------------------------------------------------------------------


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("size", [1, 3])
def test_B5_linear_and_convolution_are_the_same_map(dims: int, size: int) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(4 * size**dims, 5)
    conv = cnn.linear_to_conv(linear, dims, size)
    x = torch.randn(2, 4, *(size,) * dims)
    assert torch.allclose(conv(x).flatten(1), linear(x.flatten(1)), atol=1e-5)
    back = cnn.conv_to_linear(conv)
    assert torch.equal(back.weight, linear.weight) and torch.equal(back.bias, linear.bias)
    larger = torch.randn(1, 4, *(size + 2,) * dims)
    window = larger[(..., *(slice(1, 1 + size),) * dims)]
    assert torch.allclose(conv(larger)[(..., *(1,) * dims)], linear(window.flatten(1)), atol=1e-5)


def test_B5_vgg_classifier_runs_on_larger_images() -> None:
    torch.manual_seed(0)
    net = models.build("vgg11", 2, 3, 10, width=0.125).eval()
    wide = cnn.fully_convolutional(net, 224)
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = net(x)
        assert torch.allclose(wide(x)[..., 0, 0], expected, atol=1e-4 * float(expected.abs().max()))
        assert wide(torch.randn(1, 3, 288, 256)).shape == (1, 10, 3, 2)
    assert sum(p.numel() for p in wide.parameters()) == sum(p.numel() for p in net.parameters())
    assert not wide.training and len(list(net.classifier)) == 7, "the network is as it was"


@pytest.mark.parametrize("name, dims, size", [("resnet18", 3, 32), ("googlenet", 2, 32)])
def test_B5_average_becomes_a_window(name: str, dims: int, size: int) -> None:
    torch.manual_seed(0)
    net = models.build(name, dims, 1, 3, width=0.125).eval()
    wide = cnn.fully_convolutional(net, size)
    x = torch.randn(1, 1, *(size,) * dims)
    with torch.no_grad():
        assert torch.allclose(wide(x).flatten(1), net(x), atol=1e-4)
        assert min(wide(torch.randn(1, 1, *(2 * size,) * dims)).shape[2:]) > 1


# ---- D5: inflation ---------------------------------------------------------------------------------------


def flat_network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(6, 8, 3, padding=1, groups=2), nn.InstanceNorm2d(8, affine=True), nn.AvgPool2d(3, 1, 1)]
    layers += [nn.Dropout2d(), nn.ConvTranspose2d(8, 4, 2, 2), nn.Upsample(scale_factor=2, mode="bilinear")]
    net = nn.Sequential(*layers, nn.Conv2d(4, 3, 1))
    net[1].running_mean.normal_()
    return net.eval()


@pytest.mark.parametrize("how", ["average", "centre"])
def test_D5_inflated_network_on_a_constant_volume_is_the_flat_one(how: str) -> None:
    net = flat_network()
    x = torch.randn(1, 2, 8, 8)
    volume = x.unsqueeze(2).expand(-1, -1, 11, -1, -1)
    with torch.no_grad():
        expected = net(x)
        deep = cnn.inflate(net, depth=3, how=how)(volume)
        assert deep.shape == (1, 3, 11, 16, 16)
        # Averaged kernels see the padding at both ends, and the instance norm carries that everywhere.
        if how == "centre":
            assert torch.allclose(deep, expected.unsqueeze(2).expand_as(deep), atol=1e-5)
        planes = cnn.inflate(net, depth=1, how=how)(volume)
        assert torch.allclose(planes, expected.unsqueeze(2).expand_as(planes), atol=1e-5)
        whole = cnn.inflate(net[:5], how=how)(volume)  # depth as height: pooled too
        assert torch.allclose(whole[:, :, 2], net[:5](x), atol=1e-5) and whole.shape[2] == 5
    assert not deep.isnan().any() and isinstance(net[0], nn.Conv2d), "the network is as it was"


@pytest.mark.parametrize("how", ["average", "centre"])
def test_D5_zoo_network_from_a_file(tmp_path: Path, how: str) -> None:
    torch.manual_seed(0)
    flat = models.build("course_vgg", 2, 1, 3, width=0.125).eval()
    save_file(flat.state_dict(), tmp_path / "flat.safetensors")
    deep = models.build("course_vgg", 3, 1, 3, width=0.125).eval()
    models.load_weights(deep, tmp_path / "flat.safetensors", inflate=how)
    x = torch.randn(1, 1, 8, 8)
    first = torch.nn.functional.pad(x.unsqueeze(2).expand(-1, -1, 9, -1, -1), (1, 1, 1, 1))
    plain = nn.functional.conv2d(torch.nn.functional.pad(x, (1, 1, 1, 1)), flat.features[0].weight)
    inner = nn.functional.conv3d(first, deep.features[0].weight)
    assert torch.allclose(inner, plain.unsqueeze(2).expand_as(inner), atol=1e-5)
    if how == "centre":
        with torch.no_grad():
            assert torch.allclose(deep(x.unsqueeze(2).expand(-1, -1, 8, -1, -1)), flat(x), atol=1e-4)


def test_inflation_of_single_layers_and_zoo_modules() -> None:
    assert cnn.inflate(nn.Conv2d(1, 2, (3, 5), padding=(1, 2))).weight.shape == (2, 1, 3, 3, 5)
    assert cnn.inflate(models.build("resnet18", 2, 1, 2, width=0.125)).dims == 3
    pooled = cnn.inflate(nn.Sequential(nn.AdaptiveAvgPool2d((2, 3)), nn.AdaptiveMaxPool2d(1)))
    assert pooled(torch.zeros(1, 1, 4, 4, 6)).shape == (1, 1, 1, 1, 1)


# ---- D1: layouts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("first, last", [("NCL", "NLC"), ("NCW", "NWC"), ("NCHW", "NHWC"), ("NCDHW", "NDHWC")])
def test_D1_layouts_round_trip_and_the_engine_takes_either(first: str, last: str) -> None:
    dims = len(first) - 2
    x = np.random.default_rng(0).standard_normal((2, 3, *range(5, 5 + dims))).astype(np.float32)
    moved = cnn.change_layout(x, first, last)
    assert moved.shape == (2, *range(5, 5 + dims), 3) and np.shares_memory(moved, x)
    assert np.array_equal(cnn.change_layout(moved, last, first), x)
    tensor = cnn.change_layout(torch.from_numpy(x), first, last)
    assert np.array_equal(tensor.numpy(), moved)
    weight = np.ones((4, 3, *(3,) * dims), np.float32)
    stored_last = cnn.change_layout(np.ascontiguousarray(moved), last, first)
    assert not stored_last.flags.c_contiguous
    assert np.array_equal(cx.conv(stored_last, weight), cx.conv(x, weight))
    program = cx.compile(cnn.conv(dims, 3, 4, 3), x)
    assert np.array_equal(program(stored_last), program(x))


# ---- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call, error, match", [
    (lambda: cnn.linear_to_conv(nn.Linear(10, 2), 2, 2), ShapeError, "takes 10 values, not a multiple of the 4"),
    (lambda: cnn.conv_to_linear(nn.Conv2d(4, 4, 3, groups=2)), ConfigError, "a convolution with groups=2; expected"),
    (lambda: cnn.conv_to_linear(nn.ReLU()), ConfigError, "layer is a ReLU; expected a convolution"),
    (lambda: cnn.fully_convolutional(nn.Conv2d(1, 1, 1), 8), ConfigError, "model is a Conv2d; expected a class"),
    (lambda: cnn.fully_convolutional(models.build("vgg11", 2, 1, 2, width=0.125), 256), ConfigError,
     r"at size=\(256, 256\) the feature map is \(8, 8\), which avgpool brings to \(7, 7\)"),
    (lambda: cnn.inflate(nn.Conv2d(1, 1, 3), depth=2), ConfigError, "depth is 2, but it must be an odd number"),
    (lambda: cnn.inflate(nn.Conv2d(1, 1, 3), how="mean"), ConfigError, "how is 'mean', but it can be 'average'"),
    (lambda: cnn.inflate_kernel(torch.ones(1, 1, 3), (3, 3), "mean"), ConfigError, "how is 'mean'"),
    (lambda: cnn.change_layout(torch.zeros(1, 2), "NCHW", "NHWC"), ShapeError, r"\(1, 2\), but NCHW names 4 axes"),
    (lambda: cnn.change_layout(torch.zeros(1), "CHW", "NHWC"), ConfigError, "source is 'CHW', but layouts are"),
    (lambda: cnn.change_layout(torch.zeros(1), "NCHW", "NDHWC"), ConfigError, "NCHW and target NDHWC differ"),
])  # fmt: skip
def test_refusals(call: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()
