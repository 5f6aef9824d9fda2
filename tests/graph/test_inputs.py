"""Inputs that are no usual batch of images: numbers, lists, indices, empty batches; norms by statistics of a batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convoxel.errors import ShapeError
from convoxel.graph.compile import compile
from convoxel.graph.run.program import Program


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs)


def native(model: nn.Module, *examples: torch.Tensor) -> Program:
    """Compile; it is an error if a part would run in PyTorch."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return compile(model.eval(), *examples)


ELEMENTWISE = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky relu": lambda x: F.leaky_relu(x, 0.3),
    "elu": F.elu,
    "silu": F.silu,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "prelu": lambda x: F.prelu(x, torch.tensor([0.2])),
    "softplus": lambda x: F.softplus(x, 2.0),
    "softplus cut off": lambda x: F.softplus(x, 1.0, -0.5),
    "log sigmoid": F.logsigmoid,
    "threshold": lambda x: F.threshold(x, 0.1, 20.0),
    "threshold at the bound": lambda x: F.threshold(x, 0.1, 0.1),
    "tanhshrink": F.tanhshrink,
    "softsign": F.softsign,
    "softshrink": F.softshrink,
    "hardtanh": F.hardtanh,
    "softmin": lambda x: F.softmin(x, -1),
    "log softmax": lambda x: F.log_softmax(x, -1),
    "scaled": lambda x: 3 * x / 2 - 1,
    "turned": lambda x: 1 - x,
}


@pytest.mark.parametrize("shape", [(), (6,), (2, 1, 2, 1, 3, 2)])
def test_functions_of_elements_take_any_number_of_axes(shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    x = torch.randn(shape)
    net = Call(lambda x: {name: function(x) for name, function in ELEMENTWISE.items()})
    found, expected = native(net, x)(x), net(x)
    for name in ELEMENTWISE:
        assert found[name].shape == shape, name
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_layers_of_features_take_a_single_example() -> None:
    torch.manual_seed(2)
    x, y = torch.randn(4), torch.randn(4)
    for module, inputs in (
        (nn.Linear(4, 3), (x,)),
        (nn.GLU(), (x,)),
        (nn.LayerNorm(4), (x,)),
        (nn.RMSNorm(4), (x,)),
        (nn.Bilinear(4, 4, 3), (x, y)),
        (nn.Bilinear(4, 4, 3, bias=False), (x[None].repeat(2, 1), y[None].repeat(2, 1))),
    ):
        with torch.no_grad():
            expected = module(*inputs)
        torch.testing.assert_close(native(module, *inputs)(*inputs), expected, rtol=1e-5, atol=1e-5)


def test_indices_name_rows_of_an_embedding() -> None:
    net = nn.Sequential(nn.Embedding(7, 5), nn.LayerNorm(5))
    example = torch.tensor([[0, 1, 2], [3, 4, 5]])
    program = native(net, example)
    index = torch.tensor([[6, 0, 6]])
    with torch.no_grad():
        torch.testing.assert_close(program(index), net(index), rtol=1e-5, atol=1e-5)
    with pytest.raises(ShapeError, match=r"is torch.float32, expected torch.int64; convert it \(x.to\(torch.int64\)\)"):
        program(index.float())
    with pytest.raises(ShapeError, match="cannot run on these values"):
        program(torch.tensor([[7, 0, 0]]))
    found = compile(net, example, verify=True).verification  # with the example's indices
    assert found is not None and found.passed


def test_whole_numbers_are_divided_as_fractions() -> None:
    x = torch.tensor([[-7, 7, 5]])
    net = Call(lambda x: (x / 2, x / x.flip(1), x - 3, x * 2, 1 - x, x + 0.5))
    for ours, theirs in zip(native(net, x)(x), net(x), strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs)


def test_positions_are_counted_in_any_size() -> None:
    """As encodings of positions do: a mask of the input's size, inverted and summed along an axis."""

    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            mask = ~torch.zeros(x.shape[0], *x.shape[2:], dtype=torch.bool)
            rows = mask.cumsum(1, dtype=torch.float32)
            return x * rows.unsqueeze(1), mask.cumsum(2), torch.full((x.shape[0], 2), 0.5) + x.mean((1, 2, 3))[:, None]

    program = native(Net(), torch.zeros(1, 3, 4, 5))
    x = torch.randn(2, 3, 6, 4)
    for ours, theirs in zip(program(x), Net()(x), strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_an_empty_batch_gives_empty_results() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    for example in (torch.zeros(0, 3, 8, 8), torch.zeros(1, 3, 8, 8)):
        program = native(net, example)
        assert program(torch.zeros(0, 3, 8, 8)).shape == (0, 4, 6, 6)
        x = torch.randn(2, 3, 10, 9)
        with torch.no_grad():
            torch.testing.assert_close(program(x), net(x), rtol=1e-4, atol=1e-5)
    with pytest.raises(ShapeError, match=r"an empty batch leaves nothing to compute sum_1 \(4,\) from; give an image"):
        native(Call(lambda x: x.sum((0, 2, 3))), torch.zeros(1, 4, 5, 5))(torch.zeros(0, 4, 5, 5))
    with pytest.raises(ShapeError, match=r"example_inputs\[0\] has shape \(1, 0, 4\), expected .* behind the batch"):
        compile(net, torch.zeros(1, 0, 4))


def test_sizes_that_grow_with_every_layer_are_fixed() -> None:
    """Padding to the "same" size, as it is written in Python: with open sizes PyTorch would take minutes."""

    class Same(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            total = [max((-(-size // 2) - 1) * 2 + 3 - size, 0) for size in x.shape[2:]]
            low = [pad // 2 for pad in total]
            return super().forward(F.pad(x, (low[1], total[1] - low[1], low[0], total[0] - low[0])))

    net = nn.Sequential(*(Same(3, 3, 3, stride=2) for _ in range(6)))
    x = torch.randn(2, 3, 70, 66)
    program = native(net, x[:1])
    with torch.no_grad():
        torch.testing.assert_close(program(x), net(x), rtol=1e-4, atol=1e-5)
    with pytest.raises(ShapeError, match="axis 2 is 64, but must be 70"):
        program(torch.zeros(1, 3, 64, 66))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_batch_norm_by_statistics_of_the_batch(dims: int) -> None:
    """Also of crops, whose images do not lie one behind the other."""
    torch.manual_seed(dims)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1](2, 6, 3)
            self.norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims - 1](6, track_running_stats=False)
            nn.init.uniform_(self.norm.weight, 0.5, 1.5)

        def forward(self, x: torch.Tensor) -> Any:
            y = self.body(x)
            where = (..., *[slice(1, -1)] * dims)
            crop = y[where]
            return (
                self.norm(y).relu(),
                self.norm(crop),
                self.norm(y[:, :, 1:]),
                self.norm(y.mean(tuple(range(2, 2 + dims)))),
            )

    net = Net().eval()
    net.norm._check_input_dim = lambda x: None
    program = native(net, torch.randn(2, 2, *(9, 8, 7)[:dims]))
    assert not [node.name for node in program.graph.nodes if not node.native]
    for batch in (2, 3):
        x = torch.randn(batch, 2, *(8, 9, 7)[:dims])
        with torch.no_grad():
            expected = net(x)
        for ours, theirs in zip(program(x), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5)


def test_the_norm_of_single_numbers_is_exact() -> None:
    """Whatever their size: what is left of a number minus itself is 0, not rounding over the root of epsilon."""
    net = nn.LayerNorm(1)
    nn.init.constant_(net.bias, 0.25)
    x = 1000 * torch.randn(2, 5, 1)
    assert torch.equal(native(net, x)(x), torch.full((2, 5, 1), 0.25))
    assert bool(torch.isnan(native(net, x)(x * torch.nan)).all())


def test_norms_return_their_statistics() -> None:
    torch.manual_seed(3)
    x, ones = torch.randn(3, 4, 5, 6), torch.ones(4)
    net = Call(
        lambda x: (
            *torch.native_batch_norm(x, ones, ones, None, None, True, 0.1, 1e-5),
            *torch.native_batch_norm(x, ones, ones, ones, ones, False, 0.1, 1e-5)[:1],
            *torch.native_group_norm(x, ones, ones, 3, 4, 30, 2, 1e-5),
            *torch.native_layer_norm(x, (5, 6), None, None, 1e-5),
        )
    )
    for ours, theirs in zip(native(net, x)(x), net(x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("power", [0, 0.5, 1, 2, 3, float("inf"), -float("inf")])
def test_norms_of_vectors(power: float) -> None:
    x = torch.tensor([[[1.0, -2, 0], [0.5, 3, 4]]])
    net = Call(lambda x: (torch.linalg.vector_norm(x, power, 1), torch.linalg.vector_norm(x, power, (1, 2), True)))
    for ours, theirs in zip(native(net, x)(x), net(x), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_adaptive_maxima(dims: int) -> None:
    pool = (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)[dims - 1]
    some = (5, 3, 2)[:dims] if dims > 1 else 5
    net = Call(lambda x: (pool(x, some), pool(x, 1), pool(x.sin(), 2), pool(x, some, True)))
    x = torch.randn(2, 3, *(7, 6, 8)[:dims])
    program = native(net, x)
    for ours, theirs in zip(program(x), net(x), strict=True):
        for a, b in zip(ours, theirs, strict=True) if isinstance(ours, tuple) else [(ours, theirs)]:
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_adaptive_maxima_of_equal_windows_are_native() -> None:
    x = torch.randn(1, 4, 8, 6)
    net = nn.Sequential(nn.AdaptiveAvgPool2d((8, 6)), nn.AdaptiveMaxPool2d((4, None)))
    program = native(net, x)
    assert [node.operator for node in program.graph.nodes if not node.native] == []
    torch.testing.assert_close(program(x), net(x))


def test_fractional_maxima_by_given_samples() -> None:
    torch.manual_seed(4)
    for dims, layer in ((2, nn.FractionalMaxPool2d), (3, nn.FractionalMaxPool3d)):
        x, samples = torch.randn(2, 3, *(9, 8, 10)[:dims]), torch.rand(2, 3, dims)
        for size in ((4, 5, 3)[:dims], (1,) * dims):
            net = layer(2, output_size=size, return_indices=True, _random_samples=samples)
            for ours, theirs in zip(native(net, x)(x), net(x), strict=True):
                torch.testing.assert_close(ours, theirs)
