"""Operators of training on the engine: values and gradients are PyTorch's, whatever the layer."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from convoxel import models
from convoxel.native import Plan, View
from convoxel.nn import norm as layer_norm
from convoxel.predict.engine_operators import EngineOperators, convolve, normalise, normalise_gradient, weight_gradient

CASES = [
    # axes, kernel, stride, padding, dilation
    (1, (3,), (1,), (1,), (1,)),
    (1, (4,), (2,), (0,), (3,)),
    (2, (3, 3), (1, 1), (1, 1), (1, 1)),
    (2, (3, 2), (2, 1), (2, 0), (1, 2)),
    (2, (1, 1), (1, 1), (0, 0), (1, 1)),
    (3, (3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
    (3, (2, 3, 1), (2, 1, 3), (0, 2, 0), (1, 1, 1)),
    (3, (3, 3, 3), (1, 1, 1), (2, 2, 2), (2, 2, 2)),
]


def _operands(axes: int, kernel: tuple[int, ...], transposed: bool, seed: int = 0) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    size = (300, 17, 9)[axes - 1]
    channels = (5, 19) if transposed else (19, 5)
    x = torch.randn(2, 5, *[size + axis for axis in range(axes)], generator=draw)
    weight = torch.randn(*channels, *kernel, generator=draw)
    bias = torch.randn(19, generator=draw)
    return [x, weight, bias]


def _results(function: object, operands: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return a result and the gradients of a function of it with respect to every operand."""
    leaves = [operand.clone().requires_grad_() for operand in operands]
    found = function(*leaves)  # type: ignore[operator]
    draw = torch.Generator().manual_seed(9)
    back = torch.randn(found.shape, generator=draw).to(found)
    return [found.detach(), *torch.autograd.grad((found * back).sum(), leaves)]


@pytest.mark.parametrize(("axes", "kernel", "stride", "padding", "dilation"), CASES)
@pytest.mark.parametrize("transposed", [False, True])
def test_values_and_gradients_are_those_of_pytorch(
    axes: int, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...],
    transposed: bool,
) -> None:  # fmt: skip
    operands = _operands(axes, kernel, transposed)
    extra = [min(1, s - 1) if transposed else 0 for s in stride]

    def ours(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return convolve(x, weight, bias, list(stride), list(padding), list(dilation), extra, transposed)

    def theirs(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.convolution(x, weight, bias, stride, padding, dilation, transposed, extra, 1)

    exact = _results(theirs, [operand.double() for operand in operands])
    for got, expected in zip(_results(ours, operands), exact, strict=True):
        assert got.shape == expected.shape
        assert (got.double() - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_sums_of_outer_products_are_exact_and_winograds_close(axes: int) -> None:
    draw = torch.Generator().manual_seed(axes)
    size = (700, 33, 12)[axes - 1]
    full = (1,) * (3 - axes)
    convolution = (torch.conv1d, torch.conv2d, torch.conv3d)[axes - 1]
    for channels, out_channels, kernel, stride in itertools.product((1, 3, 40), (2, 50), (1, 3), (1, 2)):
        x = torch.randint(-2, 3, (2, *[size] * axes, channels), generator=draw).float()
        out = (size + 2 * (kernel // 2) - kernel) // stride + 1
        back = torch.randint(-2, 3, (2, *[out] * axes, out_channels), generator=draw).float()
        weight = torch.zeros((out_channels, channels, *[kernel] * axes), dtype=torch.float64, requires_grad=True)
        convolution(x.movedim(-1, 1).double(), weight, None, stride, kernel // 2).backward(back.movedim(-1, 1).double())
        assert weight.grad is not None
        expected = weight.grad.movedim(1, -1).reshape(out_channels, *full, *[kernel] * axes, channels)
        for algorithm in ("outer", "winograd(4)") if kernel == 3 and stride == 1 else ("outer",):
            window = {"stride": (1,) * (3 - axes) + (stride,) * axes, "padding_low": full_padding(axes, kernel)}
            results = []
            for threads in (1, 3):
                found = np.full(expected.shape, np.nan, np.float32)
                plan = Plan(0, 3, threads)
                arrays = (
                    x.numpy().reshape(2, *full, *x.shape[1:]),
                    back.numpy().reshape(2, *full, *back.shape[1:]),
                    found,
                )
                views = [View.dense(index + 1, 0, array.shape) for index, array in enumerate(arrays)]
                plan.weight_gradient(*views, **window, algorithm=algorithm)
                assert plan.steps[0]["algorithm"] == algorithm
                plan.run(arrays)
                results.append(found)
            assert np.array_equal(*results)  # any number of threads adds up in the same order
            error = np.abs(results[0] - expected.numpy()).max() / max(1, np.abs(expected.numpy()).max())
            assert error == 0 if algorithm == "outer" else error < 5e-5


def full_padding(axes: int, kernel: int) -> tuple[int, ...]:
    return (0,) * (3 - axes) + (kernel // 2,) * axes


@pytest.mark.parametrize("shape", [(3, 5, 700), (2, 20, 31, 17), (2, 19, 9, 12, 7), (1, 16, 3, 3, 3)])
@pytest.mark.parametrize("whole", [False, True])
def test_normalisation_is_pytorchs(shape: tuple[int, ...], whole: bool) -> None:
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(shape, generator=draw) * 3 + 40  # a mean far from 0
    weight, bias = torch.randn(2, shape[1], generator=draw)

    def theirs(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        if whole:
            return functional.batch_norm(x, None, None, weight, bias, training=True, eps=1e-5)
        return functional.instance_norm(x, weight=weight, bias=bias, eps=1e-5)

    exact = _results(theirs, [operand.double() for operand in (x, weight, bias)])
    got = _results(lambda x, w, b: normalise(x, w, b, 1e-5, whole)[0], [x, weight, bias])
    for one, other in zip(got, exact, strict=True):
        assert one.shape == other.shape and (one.double() - other).norm() <= 1e-5 * other.norm()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize(
    "activation",
    [
        nn.ReLU(inplace=True),
        nn.LeakyReLU(0.1, inplace=True),
        nn.ReLU(),
        nn.SiLU(inplace=True),
        nn.Hardtanh(0.0, 6.0),
        nn.Identity(),
    ],
)
def test_layers_that_normalise_and_activate(dims: int, norm: str, activation: nn.Module) -> None:
    torch.manual_seed(3)
    normal = layer_norm(norm, dims, 16)
    assert normal is not None
    layers = nn.Sequential(normal, activation)
    nn.init.uniform_(normal.bias, -1, 1)  # type: ignore[arg-type]
    x = (torch.randn(3, 16, *[160 if dims == 2 else 14] * dims) * 2 + 1).requires_grad_()

    def run(layers: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
        weights = list(layers.parameters())
        found = layers(x)
        back = torch.randn(found.shape, generator=torch.Generator().manual_seed(5)).to(found)
        return [found.detach(), *torch.autograd.grad((found * back).sum(), [x, *weights]), *layers.buffers()]

    exact = run(copy.deepcopy(layers).double(), x.detach().double().requires_grad_())
    with EngineOperators(), torch.profiler.profile() as profile:
        got = run(layers, x)
    ran = {event.key for event in profile.key_averages()}
    assert {"convoxel::normalise", "convoxel::normalise_gradient"} <= ran
    fused = getattr(activation, "inplace", False) and not isinstance(activation, nn.SiLU)
    assert bool({"aten::threshold_backward", "aten::leaky_relu_backward"} & ran) == (
        isinstance(activation, nn.ReLU) and not fused
    )
    for one, other in zip(got, exact, strict=True):
        assert (one.double() - other).norm() <= 1e-5 * other.double().norm()


def test_running_variances_of_constant_channels_are_not_negative() -> None:
    layer = nn.BatchNorm3d(64, momentum=1.0)
    x = torch.rand(1, 64, 1, 1, 1).expand(2, 64, 8, 8, 8).contiguous()
    with EngineOperators():
        layer(x)
    assert layer.running_var is not None and layer.running_mean is not None
    assert 0 <= layer.running_var.min() <= layer.running_var.max() < 1e-9
    assert torch.allclose(layer.running_mean, x[0, :, 0, 0, 0], rtol=1e-6)


def test_an_activation_of_something_else_is_recorded_as_ever() -> None:
    """A tensor that is used before it is changed keeps its own gradient."""
    layer = nn.BatchNorm2d(8)
    x = torch.randn(2, 8, 256, 256)

    def run(x: torch.Tensor) -> list[torch.Tensor]:
        leaf = x.clone().requires_grad_()
        normal = layer(leaf)
        twice = normal * 2
        active = functional.relu_(normal)
        return [active.detach(), *torch.autograd.grad((twice.sin() + active.cos()).sum(), [leaf])]

    expected = run(x)
    with EngineOperators():
        got = run(x)
    for one, other in zip(got, expected, strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm()


def test_operators_are_whole_ones_of_pytorchs_library() -> None:
    x, weight, bias = (operand.requires_grad_() for operand in _operands(2, (3, 3), False))
    numbers = [1, 1], [1, 1], [1, 1]
    torch.library.opcheck(convolve, (x, weight, bias, *numbers, [0, 0], False), atol=1e-4, rtol=1e-4)
    torch.library.opcheck(weight_gradient, (x.detach(), x.detach(), [3, 3], *numbers))
    scale = torch.ones(5, requires_grad=True)
    for whole in (False, True):
        torch.library.opcheck(normalise, (x, scale, scale, 1e-5, whole), atol=1e-4, rtol=1e-4)
        statistics = normalise(x, scale, scale, 1e-5, whole)[1]
        numbers = scale.detach(), scale.detach(), 0.5, whole
        torch.library.opcheck(normalise_gradient, (x.detach(), x.detach(), statistics.detach(), *numbers))


@pytest.mark.parametrize(("name", "operators"), [("unet", 4), ("plain_conv_unet", 4)])
def test_layers_of_a_network_run_on_the_engine_as_in_pytorch(name: str, operators: int) -> None:
    torch.manual_seed(0)
    network = models.build(name, dims=3, in_channels=1, num_classes=2, levels=1, width=16)
    images, labels = torch.randn(2, 1, 24, 24, 24), torch.randint(0, 2, (2, 24, 24, 24))

    def gradients(network: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
        network.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        found = [weight.grad for weight in network.parameters()]
        return [gradient.clone() for gradient in found if gradient is not None]

    exact = gradients(copy.deepcopy(network).double(), images.double())
    theirs = gradients(network, images)
    with EngineOperators(), torch.profiler.profile() as profile:
        ours = gradients(network, images)
    ran = {event.key for event in profile.key_averages()}
    assert len({kind for kind in ran if kind.startswith("convoxel::")}) == operators
    # Activations of values near zero let through more or less, whoever computes.
    for mine, other, truth in zip(ours, theirs, exact, strict=True):
        assert (mine - truth).norm() <= 10 * (other - truth).norm() + 1e-5 * truth.norm()


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(64, 64, 3, groups=4), (2, 64, 64, 64)),
        (nn.Conv2d(64, 64, 3).double(), (2, 64, 64, 64)),
        (nn.Conv2d(64, 64, 2, padding="same"), (2, 64, 64, 64)),
        (nn.Conv2d(64, 64, 3, stride=2), (2, 64, 64, 64)),
        (nn.BatchNorm2d(64), (2, 64, 32, 32)),
        (nn.Conv3d(16, 16, 2, padding="same"), (1, 16, 32, 32, 32)),
        (nn.Conv3d(16, 16, (3, 3, 4), padding="same"), (1, 16, 32, 32, 32)),
        (nn.Conv2d(64, 64, 3), (1, 64, 8, 8)),
        (nn.Conv2d(64, 64, 3), (64, 64, 64)),
        (nn.Conv1d(64, 64, 3), (2, 64, 8192)),
    ],
)
def test_what_the_engine_does_not_take_runs_in_pytorch(layer: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape).to(next(layer.parameters()).dtype)
    with EngineOperators():
        got = layer(x)
    assert torch.equal(got, layer(x))


def test_results_may_be_changed_in_place() -> None:
    layers = nn.Sequential(nn.Conv2d(16, 32, 3), nn.ReLU(inplace=True), nn.Conv2d(32, 16, 3), nn.LeakyReLU(0.1, True))
    x = torch.randn(4, 16, 64, 64)
    with EngineOperators():
        got = layers(x)
    got.sum().backward()
    assert (got - layers(x)).norm() <= 1e-5 * got.norm() and layers[0].weight.grad is not None


def test_nothing_is_kept_where_no_gradients_are_wanted() -> None:
    layers = nn.Sequential(
        nn.Conv3d(1, 16, 3, padding=1), nn.Conv3d(16, 16, 3, padding=1), nn.InstanceNorm3d(16, affine=True)
    )
    x = torch.randn(1, 1, 32, 32, 32)
    expected = layers(x)
    with EngineOperators(), torch.inference_mode():
        got = layers(x)
    assert not got.requires_grad and (got - expected).norm() <= 1e-5 * expected.norm()


def test_mistakes_are_told_by_pytorch() -> None:
    with EngineOperators(), pytest.raises(RuntimeError, match="expected input"):
        nn.Conv2d(4, 4, 3)(torch.randn(2, 3, 64, 64))
    with EngineOperators(), pytest.raises(RuntimeError, match="negative padding"):
        torch.conv3d(torch.randn(1, 2, 40, 40, 40), torch.randn(2, 2, 3, 3, 3, requires_grad=True), padding=-1)
    with EngineOperators(), pytest.raises(ValueError, match="more than 1 value per channel"):
        nn.BatchNorm3d(60_000)(torch.randn(1, 60_000, 1, 1, 1))
    with EngineOperators(), pytest.raises(ValueError, match="more than 1 spatial element"):
        nn.InstanceNorm3d(300, affine=True)(torch.randn(200, 300, 1, 1, 1))
