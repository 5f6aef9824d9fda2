"""PyTorch operators that are composed of native steps or run in NumPy: same numbers, and nothing runs in PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convoxel.graph.compile import compile


class Each(nn.Module):
    """Functions of one input, so that one export serves many cases."""

    def __init__(self, functions: dict[str, Callable[..., Any]]) -> None:
        super().__init__()
        self.functions = functions
        self.body = nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        y = self.body(x)
        return {name: function(y) for name, function in self.functions.items()}


GRID = torch.linspace(-1.2, 1.2, 48).reshape(1, 4, 6, 2)
ACTIVATIONS = {
    "hardsigmoid": F.hardsigmoid,
    "selu": F.selu,
    "celu": lambda x: F.celu(x, 0.7),
    "mish": F.mish,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu to 4": lambda x: x.clamp(0, 4),
    "clamp": lambda x: x.clamp(-0.5, 0.75),
    "clamp below": lambda x: x.clamp(max=0.5),
    "hardtanh": lambda x: F.hardtanh(x, -0.3, 0.4),
    "hardshrink": lambda x: F.hardshrink(x, 0.3),
    "softshrink": lambda x: F.softshrink(x, 0.3),
    "prelu": lambda x: F.prelu(x, torch.tensor([0.1, -0.2, 0.3, 1.5])),
    "glu": lambda x: F.glu(x, 1),
    "softmax": lambda x: x.softmax(1),
    "log softmax": lambda x: x.log_softmax(-1),
    "exp": torch.exp,
    "negative": lambda x: -x,
    "square": lambda x: x**2,
    "cube": lambda x: x**3,
    "absolute": torch.abs,
    "rsqrt": lambda x: torch.rsqrt(x.abs() + 1),
}
AXES = {
    "mean of channels": lambda x: x.mean(1, keepdim=True),
    "mean of all": lambda x: x.mean(),
    "mean of rows": lambda x: x.mean(2),
    "mean of rows kept": lambda x: x.mean(-1, keepdim=True),
    "mean of space": lambda x: x.mean((2, 3)),
    "largest of space": lambda x: x.amax((2, 3)),
    "largest of channels": lambda x: x.amax(1, keepdim=True),
    "sum": lambda x: x.sum((0, 2)),
    "smallest": lambda x: x.amin(3),
    "place": lambda x: x.argmax(1),
    "scaled by mean": lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    "layer norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "response": lambda x: F.local_response_norm(x, 3),
}
TENSORS = {
    "difference": lambda x: x - x.sigmoid(),
    "difference stretched": lambda x: x.mean(1, keepdim=True) - x,
    "one minus": lambda x: 1 - x,
    "quotient": lambda x: x / (1 + x.exp()),
    "maximum": lambda x: torch.maximum(x, x.flip(3)),
    "permuted": lambda x: x.permute(0, 2, 3, 1),
    "transposed": lambda x: x.transpose(1, 3),
    "moved": lambda x: x.movedim(1, -1),
    "stacked": lambda x: torch.stack([x, -x], 1),
    "picked": lambda x: x[:, 1] + x[:, -1],
    "every second channel": lambda x: x[:, ::2],
    "selected": lambda x: x.index_select(1, torch.tensor([2, 0, 1])),
    "repeated": lambda x: x.repeat(1, 2, 1, 1),
    "expanded": lambda x: x.mean((2, 3), keepdim=True).expand(-1, -1, 3, 5),
    "padded by 2": lambda x: F.pad(x, (1, 2, 0, 1), value=2.0),
    "channels padded": lambda x: F.pad(x, (0, 0, 0, 0, 1, 2)),
    "circular": lambda x: F.pad(x, (1, 2, 3, 1), mode="circular"),
    "reflected": lambda x: F.pad(x, (1, 2, 3, 1), mode="reflect"),
    "pixel shuffle": lambda x: F.pixel_shuffle(x, 2),
    "pixel unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "channel shuffle": lambda x: F.channel_shuffle(x, 2),
    "shuffle by hand": lambda x: x.view(x.shape[0], 2, 2, *x.shape[2:]).transpose(1, 2).reshape(x.shape),
    "grid": lambda x: F.grid_sample(x[:1], GRID, mode="bilinear", padding_mode="border", align_corners=False),
    "grid cubic": lambda x: F.grid_sample(x[:1], GRID, mode="bicubic", padding_mode="zeros", align_corners=True),
    "pooled with places": lambda x: F.max_pool2d(x, 2, return_indices=True),
    "unpooled": lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
    "bicubic": lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
    "product": lambda x: torch.matmul(x, x.transpose(2, 3)),
    "einsum": lambda x: torch.einsum("nchw,nchw->nc", x, x),
    "linear over the last": lambda x: F.linear(x.permute(0, 2, 3, 1), torch.ones(3, 4), torch.ones(3)),
    "cast": lambda x: (x * 3).to(torch.int32),
}


def flat(value: Any) -> list[Any]:
    return [leaf for element in value for leaf in flat(element)] if isinstance(value, list | tuple) else [value]


@pytest.mark.parametrize("group", [ACTIVATIONS, AXES, TENSORS], ids=["activations", "axes", "tensors"])
def test_same_numbers_as_pytorch(group: dict[str, Callable[..., Any]]) -> None:
    torch.manual_seed(0)
    net = Each(group).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        program = compile(net, torch.randn(1, 4, 8, 8))
    assert not [node.name for node in program.graph.nodes if node.operator == "torch_call"]
    for shape in ((1, 4, 8, 8), (2, 4, 6, 10)):
        x = torch.randn(shape)
        with torch.no_grad():
            expected = net(x)
        found = program(x)
        for name in group:
            for ours, theirs in zip(flat(found[name]), flat(expected[name]), strict=True):
                assert ours.dtype == theirs.dtype, name
                assert np.isfinite(ours.numpy()).all(), name
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5, msg=lambda m, name=name: f"{name}: {m}")


def test_tensors_are_repeated_natively() -> None:
    """Along axes of any length, the batch too."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor) -> Any:
            y = self.body(x)
            means = y.mean((2, 3), keepdim=True)
            repeated = self.body(x[:, :1].repeat(1, 3, 1, 1))
            return means.expand(-1, -1, *x.shape[2:]), y[:1].expand(5, -1, -1, -1), y[:, :1].expand_as(y), repeated

    net = Net().eval()
    program = compile(net, torch.randn(1, 3, 8, 8))
    assert not [node.name for node in program.graph.nodes if not node.native]
    x = torch.randn(2, 3, 5, 7)
    with torch.no_grad():
        expected = net(x)
    for ours, theirs in zip(program(x), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_channels_along_a_line_stay_native(dims: int) -> None:
    """Efficient channel attention: a convolution over the means of the channels."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1](2, 6, 3)
            self.line = nn.Conv1d(1, 1, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.body(x)
            means = y.mean(tuple(range(2, dims + 2))).view(x.shape[0], 1, -1)
            return y * self.line(means).sigmoid().view(x.shape[0], -1, *(1,) * dims)

    net = Net().eval()
    program = compile(net, torch.randn(1, 2, *(6,) * dims))
    assert not [node.name for node in program.graph.nodes if not node.native]
    x = torch.randn(3, 2, *(5, 7, 6)[:dims])
    with torch.no_grad():
        torch.testing.assert_close(program(x), net(x), rtol=1e-4, atol=1e-5)


def test_padding_that_no_maximum_sees_moves_into_the_pooling() -> None:
    class Net(nn.Module):
        def __init__(self, ceil: bool, value: float) -> None:
            super().__init__()
            self.body, self.ceil, self.value = nn.Conv2d(3, 4, 1), ceil, value

        def forward(self, x: torch.Tensor) -> Any:
            y = F.pad(self.body(x), (0, 1, 2, 1), value=self.value)
            return F.max_pool2d(y, 3, 2, ceil_mode=self.ceil)

    for ceil, value, left in ((False, -torch.inf, 0), (True, -torch.inf, 1), (False, -3.0, 1)):
        net = Net(ceil, value).eval()
        program = compile(net, torch.randn(1, 3, 8, 8))
        assert sum(node.operator == "pad" for node in program.graph.nodes) == left
        for shape in ((1, 3, 8, 8), (2, 3, 9, 7)):
            x = torch.randn(shape)
            with torch.no_grad():
                torch.testing.assert_close(program(x), net(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_shuffles_and_norms_in_all_dimensions(dims: int) -> None:
    """Strided copies of the engine: a crop's rows do not follow each other evenly."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1](2, 12, 3)
            self.norm = nn.LayerNorm(12)

        def forward(self, x: torch.Tensor) -> Any:
            y = self.body(x)[..., 1:-2]
            moved = y.permute(0, *range(2, dims + 2), 1)
            return self.norm(moved).permute(0, dims + 1, *range(1, dims + 1)), torch.channel_shuffle(y, 3)

    net = Net().eval()
    x = torch.randn(2, 2, *(9, 8, 7)[:dims])
    program = compile(net, x)
    assert not [node.name for node in program.graph.nodes if not node.native]
    with torch.no_grad():
        expected = net(x)
    for ours, theirs in zip(program(x), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_not_a_number_spreads_as_in_pytorch() -> None:
    names = ("hardsigmoid", "prelu", "relu to 4", "celu", "selu")
    net = Each({name: ACTIVATIONS[name] for name in names}).eval()
    program = compile(net, torch.randn(1, 4, 8, 8))
    x = torch.full((1, 4, 8, 8), float("nan"))
    assert all(torch.isnan(program(x)[name]).all() for name in names)
