"""Every PyTorch operator with a rule: same numbers as PyTorch, over several sizes, on poisoned memory."""

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
from convoxel.graph.run import execution
from convoxel.graph.run.program import Program

# Of the root mean square: Winograd's rounding lies below, and a graph that is wrong far above.
TOLERANCE = 1e-4
SIZES = {1: (20,), 2: (12, 16), 3: (8, 12, 6)}


class Apply(nn.Module):
    """A function as a module, with channels of its input named for reading."""

    def __init__(self, function: Callable[..., Any], **constants: torch.Tensor) -> None:
        super().__init__()
        self.function = function
        for name, tensor in constants.items():
            self.register_buffer(name, tensor)
        self.names = tuple(constants)

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x, *(getattr(self, name) for name in self.names))


class Parallel(nn.Module):
    """Several modules on one input, so that one export serves many cases."""

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        super().__init__()
        self.names = tuple(modules)
        self.branches = nn.ModuleList(modules.values())

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: branch(x) for name, branch in zip(self.names, self.branches, strict=True)}


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill arenas and outputs with NaN before every run."""
    monkeypatch.setattr(execution.Execution, "is_native", False)
    monkeypatch.setattr(execution, "_allocate", lambda shape: np.full(shape, np.nan, np.float32))
    new_arena = execution.native.Plan.new_arena

    def poisoned(plan: Any) -> Any:
        arena = new_arena(plan)
        arena[:] = np.nan
        return arena

    monkeypatch.setattr(execution.native.Plan, "new_arena", poisoned)


def assert_same(actual: Any, expected: torch.Tensor, name: str = "") -> None:
    actual = torch.as_tensor(actual)
    assert actual.shape == expected.shape, name
    assert torch.isfinite(actual).all(), name
    scale = expected.pow(2).mean().sqrt().clamp(min=1e-6)
    assert (actual - expected).abs().max() <= TOLERANCE * scale, name


def check_each(modules: dict[str, nn.Module], *shapes: tuple[int, ...]) -> Program:
    """Check several modules in one export."""
    return check(Parallel(modules), *shapes)


def check(module: nn.Module, *shapes: tuple[int, ...], native: bool = True) -> Program:
    """Compile on the first shape, without fallback if ``native``, and compare on all."""
    generator = torch.Generator().manual_seed(1)
    module.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error" if native else "ignore")
        program = compile(module, torch.zeros(shapes[0]), threads=1)
    for shape in shapes:
        x = torch.randn(shape, generator=generator)
        with torch.no_grad():
            expected = module(x)
        actual = program(x)
        if not isinstance(expected, dict):
            actual, expected = {"": actual}, {"": expected}
        assert actual.keys() == expected.keys()
        for name, result in expected.items():
            assert_same(actual[name], result, name)
    return program


def shapes_for(dims: int, channels: int = 4) -> list[tuple[int, ...]]:
    """An example and another size and batch."""
    sizes = SIZES[dims]
    return [(1, channels, *sizes), (3, channels, *(s + 5 - i for i, s in enumerate(sizes)))]


def _layer(name: str, dims: int, *args: Any, **kwargs: Any) -> nn.Module:
    torch.manual_seed(0)
    layer: nn.Module = getattr(nn, f"{name}{dims}d")(*args, **kwargs)
    return layer


CONVOLUTIONS: list[dict[str, Any]] = [
    {"kernel_size": 3},
    {"kernel_size": 3, "padding": 1, "bias": False},
    {"kernel_size": 1, "groups": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 3, "dilation": 2, "padding": 2, "groups": 4},
    {"kernel_size": 4, "padding": "same"},
    {"kernel_size": 2, "padding": "valid", "stride": 2},
    {"kernel_size": 3, "padding": 2, "padding_mode": "reflect"},
    {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
]
TRANSPOSED: list[dict[str, Any]] = [
    {"kernel_size": 2, "stride": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1, "bias": False},
    {"kernel_size": 4, "stride": 2, "padding": 1, "groups": 2},
    {"kernel_size": 3, "dilation": 2},
    {"kernel_size": 2, "stride": 3, "output_padding": 2},
]
POOLINGS: list[dict[str, Any]] = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    {"kernel_size": 3, "stride": 3, "padding": 1, "ceil_mode": True},
]


def _layers(name: str, dims: int, options: list[dict[str, Any]], *args: int) -> dict[str, nn.Module]:
    return {f"{name} {o}": _layer(name, dims, *args, **o) for o in options}


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_convolution(dims: int) -> None:
    check_each(_layers("Conv", dims, CONVOLUTIONS, 4, 8), *shapes_for(dims))
    check_each(_layers("ConvTranspose", dims, TRANSPOSED, 4, 6), *shapes_for(dims))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_pooling(dims: int) -> None:
    axes = tuple(range(2, dims + 2))
    more = {
        "dilated": _layer("MaxPool", dims, 3, stride=2, dilation=2, padding=1),
        "uncounted": _layer("AvgPool", dims, 3, stride=2, padding=1, ceil_mode=True, count_include_pad=False),
        "adaptive 1": _layer("AdaptiveAvgPool", dims, 1),
        "adaptive 5": _layer("AdaptiveAvgPool", dims, 5),
        "adaptive maximum": _layer("AdaptiveMaxPool", dims, 1),
        "mean": Apply(lambda x: x.mean(axes)),
        "mean kept": Apply(lambda x: x.mean(axes, keepdim=True)),
    }
    if dims > 1:
        more["divisor"] = _layer("AvgPool", dims, 3, padding=1, divisor_override=5)
    plain = {**_layers("MaxPool", dims, POOLINGS), **_layers("AvgPool", dims, POOLINGS)}
    check_each({**plain, **more}, *shapes_for(dims))


MODES = {1: ("nearest", "linear"), 2: ("nearest", "nearest-exact", "bilinear", "bicubic"), 3: ("nearest", "trilinear")}
RESIZES: dict[str, dict[str, Any]] = {
    "doubled": {"scale_factor": 2},
    "uneven": {"scale_factor": 1.6},
    "smaller": {"scale_factor": 0.7, "recompute_scale_factor": False},
}


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_resizing(dims: int) -> None:
    sizes = {"sized": {"size": tuple(range(7, 7 + dims))}}
    branches: dict[str, nn.Module] = {}
    for mode in MODES[dims]:
        for corners in ({},) if "nearest" in mode else ({"align_corners": False}, {"align_corners": True}):
            for name, options in {**RESIZES, **sizes}.items():
                if corners.get("align_corners") and name in ("uneven", "smaller"):
                    continue  # PyTorch then maps by the sizes alone
                arguments = {"mode": mode, **corners, **options}
                branches[f"{mode} {name} {corners}"] = Apply(lambda x, a=arguments: F.interpolate(x, **a))
    check_each(branches, *shapes_for(dims))


def test_resizing_to_the_size_of_another_tensor() -> None:
    check(Apply(lambda x: x + F.interpolate(F.max_pool2d(x, 2), size=x.shape[2:])), *shapes_for(2))


ACTIVATIONS = {
    repr(activation): activation
    for activation in (
        nn.ReLU(),
        nn.ReLU(inplace=True),
        nn.LeakyReLU(0.2),
        nn.PReLU(),
        nn.Sigmoid(),
        nn.ReLU6(),
        nn.SiLU(),
        nn.Hardswish(),
        nn.Tanh(),
        nn.ELU(0.7),
        nn.GELU(),
        nn.Hardtanh(0, 6),
        Apply(lambda x: x.clamp(min=0)),
        Apply(lambda x: torch.clamp(x, 0, 6)),
    )
}


def test_activation() -> None:
    convolution = _layer("Conv", 2, 4, 8, 3)
    fused = {name: nn.Sequential(convolution, activation) for name, activation in ACTIVATIONS.items()}
    program = check_each(fused, *shapes_for(2))
    assert not {"activation", "affine"} & {node.operator for node in program.graph.nodes}
    check_each({name: Apply(lambda x, a=a: a(x + 0.5) + x) for name, a in ACTIVATIONS.items()}, *shapes_for(2))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_batch_norm(dims: int) -> None:
    """Folded where a convolution comes before it, an affine step elsewhere."""
    folded = {
        f"{before} {groups}": nn.Sequential(
            _layer(before, dims, 4, 8, 3, groups=groups), _randomised(_layer("BatchNorm", dims, 8))
        )
        for before in ("Conv", "ConvTranspose")
        for groups in (1, 2)
    }
    program = check_each(folded, *shapes_for(dims))
    assert not {"batch_norm", "affine"} & {node.operator for node in program.graph.nodes}


def _randomised(norm: nn.Module) -> nn.Module:
    for name, tensor in norm.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + (0.5 if "var" in name or "weight" in name else -0.5))
    return norm


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_normalisation(dims: int) -> None:
    running = _layer("InstanceNorm", dims, 4, affine=True, track_running_stats=True)
    layers = {
        "batch": _randomised(_layer("BatchNorm", dims, 4)),
        "instance": _layer("InstanceNorm", dims, 4),
        "instance affine": _randomised(_layer("InstanceNorm", dims, 4, affine=True)),
        "instance running": _randomised(running),
        "group": _randomised(nn.GroupNorm(2, 4)),
    }
    check_each(layers, *shapes_for(dims))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_padding(dims: int) -> None:
    pads = [1, 2, 0, 3, 2, 1][: 2 * dims]
    zero: dict[str, nn.Module] = {
        "zero": nn.Sequential(Apply(lambda x: F.pad(x, pads)), _layer("Conv", dims, 4, 8, 3)),
        "zero and own": nn.Sequential(Apply(lambda x: F.pad(x, pads)), _layer("Conv", dims, 4, 8, 3, padding=1)),
    }
    program = check_each(zero, *shapes_for(dims))
    assert "pad" not in {node.operator for node in program.graph.nodes}
    others: dict[str, nn.Module] = {
        mode: Apply(lambda x, mode=mode: F.pad(x, pads, mode=mode)) for mode in ("reflect", "replicate", "circular")
    }
    others["zero"] = Apply(lambda x: F.pad(x, pads))
    others["crop"] = Apply(lambda x: F.pad(x, [-1, 2]))
    others["crop, convolution"] = nn.Sequential(others["crop"], _layer("Conv", dims, 4, 8, 3, padding=1))
    check_each(others, *shapes_for(dims))


def test_two_readers_of_one_padding() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = _layer("Conv", 2, 4, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            padded = F.pad(x, [1, 1, 1, 1])
            return self.conv(padded) + F.max_pool2d(padded, 3, 1)

    check(Net(), *shapes_for(2))


TENSOR_FUNCTIONS: list[Callable[..., Any]] = [
    lambda x: x + x,
    lambda x: x + 1,
    lambda x: 2 * x - 3,
    lambda x: x / 4,
    lambda x: x * x,
    lambda x: torch.add(x, 2.0, alpha=0.5),
    lambda x: torch.relu(x + x * 2),
    lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    lambda x: x.mean((2, 3), keepdim=True) * x,
    lambda x: x[:, 1:3],
    lambda x: x[:, :, 1:-1, ::2] * 1.5,
    lambda x: x[-1:] + 0,
    lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    lambda x: torch.cat(torch.split(x, [1, 3], 1), 1),
    lambda x: torch.cat([x, x], 1),
    lambda x: torch.cat([x, x * 2, x], 2),
    lambda x: torch.cat([x.relu(), x.sigmoid()], 0),
    lambda x: torch.cat([x[:, :2], F.avg_pool2d(x, 3, 1, 1)], -3),
    lambda x: torch.narrow(x, 2, 1, 5) * 2,
    lambda x: x.flatten(1),
    lambda x: x.reshape(x.size(0), -1) * 2,
    lambda x: x.relu().view(x.shape[0], x.shape[1], -1),
    lambda x: x.mean((2, 3))[:, :, None, None] * x,
    lambda x: F.dropout(x, 0.5, False) + 1,
    lambda x: x.contiguous().clone() + 1,
    lambda x: x.to(torch.float32) * 3,
]


def test_tensors() -> None:
    check_each({str(i): Apply(f) for i, f in enumerate(TENSOR_FUNCTIONS)}, *shapes_for(2))
    for function in TENSOR_FUNCTIONS[-16:-10]:  # joins alone: what they write in place differs
        check(Apply(function), *shapes_for(2)[:2])


@pytest.mark.parametrize(
    ("function", "constant"),
    [
        (lambda x, c: x + c, torch.arange(4.0).view(4, 1, 1)),
        (lambda x, c: c * x, torch.arange(4.0).view(1, 4, 1, 1)),
        (lambda x, c: x / (c + 1), torch.arange(4.0).view(4, 1, 1)),
        (lambda x, c: x + c, torch.randn(1, 1, 1, 1)),
        (lambda x, c: torch.cat([x, c.expand(x.shape[0], -1, -1, -1)], 1)[:, :4], torch.randn(1, 2, 12, 16)),
        (lambda x, c: F.conv2d(x, c / c.norm()), torch.randn(3, 4, 3, 3)),
    ],
)
def test_constants(function: Callable[..., Any], constant: torch.Tensor) -> None:
    check(Apply(function, constant=constant), (1, 4, 12, 16), (2, 4, 12, 16), native=False)


def test_constant_as_large_as_the_tensor() -> None:
    position = torch.randn(1, 4, 12, 16)
    check(Apply(lambda x, c: torch.relu(x * 2 + c), position=position), (2, 4, 12, 16), (3, 4, 12, 16))


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("pooled", [None, 1, 3])
def test_linear(dims: int, pooled: int | None) -> None:
    """A linear layer behind a flattening reads channels last, with its weights reordered."""
    torch.manual_seed(0)
    sizes = SIZES[dims] if pooled is None else (pooled,) * dims
    middle = [] if pooled is None else [_layer("AdaptiveAvgPool", dims, pooled)]
    net = nn.Sequential(
        _layer("Conv", dims, 4, 6, 3, padding=1),
        *middle,
        nn.Flatten(),
        nn.Linear(6 * int(np.prod(sizes)), 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(8, 3),
    )
    program = check(net, (1, 4, *SIZES[dims]), (2, 4, *SIZES[dims]))
    assert not {"reshape", "squeeze", "affine", "torch_call"} & {node.operator for node in program.graph.nodes}


def test_writing_in_place_is_seen_by_every_reader() -> None:
    def two_readers(x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        z = y + 1
        y.relu_()
        return y + z

    def through_a_view(x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        y[:, :2] += 1
        return y * 3

    def on_the_input(x: torch.Tensor) -> torch.Tensor:
        x = x + 0
        x += 1
        x *= x
        return x

    def through_dropout(x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        z = F.dropout(y, 0.5, False)
        z.relu_()
        return y + z

    for function in (two_readers, through_a_view, on_the_input, through_dropout):
        check(Apply(function), *shapes_for(2), native=False)
