"""PyTorch operators that networks meet: rules read them, or what PyTorch says they consist of; none runs in PyTorch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from convoxel.errors import ShapeError, UnsupportedError
from convoxel.graph.compile import compile
from convoxel.graph.load import load
from convoxel.graph.operators.mathematics import UNARY

Function = Callable[[Tensor], Any]


class Each(nn.Module):
    """Functions of one input, so that one export serves many cases."""

    def __init__(self, functions: dict[str, Function]) -> None:
        super().__init__()
        self.functions = functions

    def forward(self, x: Tensor) -> dict[str, Any]:
        results = {name: function(x) for name, function in self.functions.items()}
        return {name: tuple(value) if isinstance(value, tuple) else value for name, value in results.items()}


def torch_function(name: str) -> Function:
    return lambda x: getattr(torch, name)(x)


def clone_and(write: Callable[[Tensor], None]) -> Function:
    def changed(x: Tensor) -> Tensor:
        result = x.clone()
        write(result)
        return result

    return changed


def along(axis: int, keep: bool) -> dict[str, Function]:
    how = {"dim": axis, "keepdim": keep}
    names = ("max", "min", "amax", "amin", "argmax", "argmin", "std", "var", "logsumexp", "prod", "median", "nansum")
    return {
        **{f"{name} {axis}": (lambda x, name=name: getattr(x, name)(**how)) for name in names},  # type: ignore[misc]
        **{f"{name} {axis}": (lambda x, name=name: getattr(x > 1, name)(**how)) for name in ("any", "all")},  # type: ignore[misc]
        **{
            f"{name} {axis}": (lambda x, name=name: getattr(x, name)(axis))  # type: ignore[misc]
            for name in ("cumsum", "cumprod", "logcumsumexp", "sort", "argsort")
        },
        f"cummax {axis}": lambda x: x.cummax(axis).values,
        f"smallest {axis}": lambda x: x.topk(2, axis, largest=False).values,
    }


ELEMENTS: dict[str, Function] = {
    **{name: torch_function(name) for name in UNARY if name not in ("bitwise_not", "rsqrt")},
    **{name: torch_function(name) for name in ("frac", "deg2rad", "logit", "sgn", "sign", "logical_not", "rsqrt")},
    "nan_to_num": lambda x: torch.nan_to_num(x, 1.0, 2.0),
    "rounded": lambda x: torch.round(x, decimals=1),
    "floor of a quotient": lambda x: torch.div(x, 0.3, rounding_mode="floor"),
    "cut quotient": lambda x: torch.div(x, 0.3, rounding_mode="trunc"),
    "whole quotient": lambda x: x // 0.3,
    "remainder": lambda x: x % 0.7,
    "remainder of a number": lambda x: torch.remainder(1.5, x.abs() + 0.3),
    "near": lambda x: torch.isclose(x, x.round()) | torch.isclose(x / 1e6, x.new_zeros(())),
    "rrelu": lambda x: F.rrelu(x),
    "fmod": lambda x: torch.fmod(x, 0.7),
    "angle": lambda x: torch.atan2(x, x.flip(3)),
    "hypotenuse": lambda x: torch.hypot(x, x.flip(2)),
    "power of two": lambda x: 2**x,
    "power by element": lambda x: x.abs() ** x,
    "lerp": lambda x: torch.lerp(x, x.flip(3), 0.3),
    "product and quotient": lambda x: torch.addcdiv(x, x, x.abs() + 1, value=0.5),
    "truths": lambda x: (x > 0) & (x < 1) | ~(x >= -1) ^ (x != x),
    "whole numbers": lambda x: (x * 8).long() % 3 + (x * 8).int() // 3,
    "bits": lambda x: ((x * 8).long() & 5) ^ ~(x * 9).long() << 1,
    "roots of whole numbers": lambda x: torch.sqrt((x * 8).long().abs()),
    "clamped": lambda x: torch.clamp(x, min=x.mean(1, keepdim=True)),
    "where": lambda x: torch.where(x > 0, x, 0.1 * x),
    "where numbers": lambda x: torch.where(x > 0, 1.0, 2),
    "masked": lambda x: x.masked_fill(x.amax(1, keepdim=True) > 1, -math.inf),
    "times truths": lambda x: x * (x > 0),
    "peaks": lambda x: (F.max_pool2d(x, 3, 1, 1) == x).float() * x,
    "by its size": lambda x: x / x.shape[2] + x.shape[3] * x.numel(),
}
AXES: dict[str, Function] = {
    **along(1, False),
    **along(-1, True),
    **along(2, False),
    "std": lambda x: x.std((2, 3)),
    "biased": lambda x: x.var((1, 2), unbiased=False, keepdim=True),
    "corrected by 2": lambda x: x.std((2, 3), correction=2),
    "std and mean": lambda x: torch.std_mean(x, (2, 3), keepdim=True),
    "variance of all": lambda x: torch.var_mean(x),
    "extremes": lambda x: torch.aminmax(x, dim=1),
    "largest of all": lambda x: (x.max(), x.min(), x.argmax()),
    "count": lambda x: torch.count_nonzero(x > 0, dim=1) + (x > 0).sum(1),
    "quantile": lambda x: torch.quantile(x.flatten(1), 0.9, dim=1),
    "normalised": lambda x: F.normalize(x, p=3.0),
    "similar": lambda x: F.cosine_similarity(x, x.flip(3)),
    "distances": lambda x: torch.cdist(x[:, 0], x[:, 1]),
    "entropy": lambda x: F.cross_entropy(x, x.argmax(1)),
    "expected place": lambda x: (x.flatten(2).softmax(-1) * torch.arange(x.shape[2] * x.shape[3])).sum(-1),
}
PLACES = torch.randint(0, 4, (2, 4, 6, 8), generator=torch.Generator().manual_seed(0))
MOVED: dict[str, Function] = {
    "roll": lambda x: torch.roll(x, (1, -2), (2, 3)),
    "roll natively": lambda x: F.relu(torch.roll(F.relu(x), (1, -9, 2), (1, 2, 3))),
    "roll of all": lambda x: x.roll(3),
    "turned": lambda x: torch.rot90(x, 1, (2, 3)),
    "repeated": lambda x: x.repeat_interleave(2, 2),
    "unfold": lambda x: F.unfold(x, (3, 2), dilation=2, padding=1, stride=2),
    "fold": lambda x: F.fold(F.unfold(x, 3, padding=1), x.shape[2:], 3, padding=1),
    "windows": lambda x: x.unfold(2, 3, 1).unfold(3, 4, 2),
    "antialiased": lambda x: F.interpolate(x, size=(5, 7), mode="bilinear", antialias=True),
    "antialiased cubic": lambda x: F.interpolate(x, scale_factor=0.4, mode="bicubic", antialias=True),
    "antialiased larger": lambda x: F.interpolate(x, size=(20, 9), mode="bicubic", antialias=True, align_corners=True),
    "gathered": lambda x: x.gather(1, x.argmax(1, keepdim=True)),
    "few gathered": lambda x: x.gather(3, PLACES[:1, :2, :3]),
    "scattered": lambda x: x.scatter(1, x.argmax(1, keepdim=True), 1.0),
    "scattered sums": lambda x: torch.zeros_like(x).scatter_add(1, x.argmax(1, keepdim=True), x),
    "scattered extremes": lambda x: x.scatter_reduce(1, x.argmax(1, keepdim=True), x.flip(1), "amax"),
    "two indices": lambda x: x[:, [0, 2], [1, 3]],
    "grid of indices": lambda x: x[:, :, torch.arange(3)[:, None], torch.arange(4)],
    "index apart": lambda x: x[:, [0, 2], :, [1, 3]],
    "index that is computed": lambda x: x[:, x[0, :, 0, 0].argsort()],
    "written": clone_and(lambda x: x[:, 1:3, ::2].fill_(0)),
    "written by a mask": clone_and(lambda x: x.masked_fill_(x > 0, 0.5)),
    "rows copied": clone_and(lambda x: x[:, :, 1::2].copy_(x[:, :, 0::2])),
    "added at": lambda x: x.index_add(1, torch.tensor([0, 2]), x[:, :2]),
    "one hot": lambda x: F.one_hot(x.argmax(1), 4).permute(0, 3, 1, 2).float(),
    "triangle": lambda x: (x.triu(), x.tril(1)),
    "diagonals": lambda x: (x.diagonal(1, -2, -1), torch.diag_embed(x[:, :, 0])),
    "coordinates": lambda x: torch.stack(torch.meshgrid(*map(torch.arange, x.shape[2:]), indexing="ij")) * x[:, :2],
    "filled": lambda x: torch.cat((x, torch.full_like(x, 3), x.new_zeros(x.shape), torch.ones_like(x)), 1),
    "differences": lambda x: x.diff(dim=2),
    "stacked": lambda x: torch.stack((x[0, 0], torch.zeros(x.shape[2:]))),
    "parts of an open axis": lambda x: x.chunk(2, 3),
    "gate along an open axis": lambda x: F.glu(x[..., : x.shape[3] // 2 * 2], -1),
    "constant operand": lambda x: torch.einsum("bchw,dc->bdhw", x, torch.ones(3, 4)),
    "tensordot": lambda x: torch.tensordot(x, torch.ones(4, 3), dims=([1], [0])),
}
FIXED: dict[str, Function] = {  # PyTorch exports these at the example's size alone
    "area": lambda x: F.interpolate(x, scale_factor=0.5, mode="area"),
    "taken along": lambda x: torch.take_along_dim(x, x.argmax(1, keepdim=True), 1),
    "line": lambda x: x + torch.linspace(-1, 1, x.shape[3]) + torch.arange(0, x.shape[3], dtype=x.dtype) / 3,
}
GROUPS = {"elements": ELEMENTS, "axes": AXES, "moved": MOVED, "fixed": FIXED}


def quiet(model: nn.Module, *examples: Tensor) -> Any:
    """Compile; it is an error if a part would run in PyTorch."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return compile(model.eval(), *examples)


def assert_same(got: Any, expected: Any, what: str = "") -> None:
    (ours, _), (theirs, _) = tree_flatten(got), tree_flatten(expected)
    assert len(ours) == len(theirs), what
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two, rtol=2e-5, atol=2e-5, equal_nan=True, msg=lambda m: f"{what}: {m}")


@pytest.mark.parametrize("group", GROUPS)
def test_nothing_runs_in_pytorch(group: str, tmp_path: Path) -> None:
    net = Each(GROUPS[group])
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((2, 4, 12, 10), generator=generator)
    program = quiet(net, x)
    program.save(tmp_path / "net.cvx")
    loaded = load(tmp_path / "net.cvx")
    ties = x.round()
    ties[0, 1, 2, 3], ties[1, 2, 3, 4] = math.nan, math.inf
    for given in (x, ties if group in ("elements", "fixed") else torch.randn((3, 4, 10, 14), generator=generator)):
        expected, got, again = net(given), program(given), loaded(given)
        for name, value in expected.items():
            assert_same(got[name], value, name)
            assert_same(again[name], got[name], f"{name}, loaded")


@pytest.mark.parametrize("axis", [1, 3])
def test_nan_is_the_largest(axis: int) -> None:
    """Where PyTorch says so, in extremes, places, orders and norms; of equal numbers the first comes first."""
    net = Each({
        "max": lambda x: x.max(axis), "min": lambda x: x.min(axis), "sort": lambda x: x.sort(dim=axis, stable=True),
        "down": lambda x: x.sort(dim=axis, descending=True, stable=True), "top": lambda x: x.topk(3, axis).values,
        "median": lambda x: x.median(axis).values, "running": lambda x: x.cummax(axis).values,
        "norm": lambda x: [x.norm(p, axis) for p in (0, 1, 2, 3, math.inf, -math.inf)],
    })  # fmt: skip
    x = torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(1)).round()
    x[0, 1, 2, 3] = x[1, 3, 4, 4] = math.nan
    x[1, 0, 0] = math.inf
    assert_same(quiet(net, x)(x), net(x))


ROWS = torch.randn(2, 7, 8, generator=torch.Generator().manual_seed(2))
LAYERS: dict[str, nn.Module] = {
    "lstm": nn.LSTM(8, 6, num_layers=2, bidirectional=True),
    "lstm, batch first": nn.LSTM(8, 6, batch_first=True, bias=False),
    "lstm, projected": nn.LSTM(8, 6, batch_first=True, proj_size=3),
    "gru": nn.GRU(8, 6, num_layers=2, bidirectional=True),
    "rnn": nn.RNN(8, 6, batch_first=True),
    "rnn, relu": nn.RNN(8, 6, nonlinearity="relu"),
    "attention": nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_sequences(name: str) -> None:
    net = LAYERS[name].eval()
    with torch.no_grad():
        assert_same(quiet(net, ROWS)(ROWS), net(ROWS))


class Attention(nn.Module):
    def __init__(self, mask: str) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = x.chunk(3, 1)
        if self.mask == "grouped":
            return F.scaled_dot_product_attention(q, k[:, :1], v[:, :1], enable_gqa=True)
        if self.mask == "causal":
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        scores = q @ k.transpose(-1, -2)
        mask = {"truths": scores > 0, "numbers": scores.round(), "nothing seen": scores > 99, "none": None}[self.mask]
        return F.scaled_dot_product_attention(q, k, v, mask, scale=0.3 if self.mask == "numbers" else None)


@pytest.mark.parametrize("mask", ["none", "causal", "truths", "numbers", "nothing seen", "grouped"])
def test_attention(mask: str) -> None:
    net = Attention(mask)
    x = torch.randn(2, 6, 5, 8, generator=torch.Generator().manual_seed(3))
    assert_same(quiet(net, x)(x), net(x))


def test_decompositions_that_depend_on_sizes_are_not_taken() -> None:
    """Half precision of NumPy's, but not bfloat16; complex numbers and what depends on values are named."""
    x = torch.randn(1, 2, 4, 4)
    assert_same(quiet(Each({"half": lambda x: x.half().float()}), x)(x), {"half": x.half().float()})
    with pytest.raises(UnsupportedError, match=r"makes bfloat16, which NumPy does not have.*model\.float\(\)"):
        compile(Each({"rounded": lambda x: x.bfloat16().float()}), x)
    with pytest.warns(UserWarning, match=r"aten\.fft_fft2\.default"):
        program = compile(Each({"spectrum": lambda x: torch.fft.fft2(x).abs()}), x)
    assert_same(program(x), {"spectrum": torch.fft.fft2(x).abs()})


def copied(write: Callable[[Tensor], Any]) -> Function:
    """Return a function that writes to a copy, and reads both the copy and the original afterwards."""

    def both(x: Tensor) -> Tensor:
        y = F.dropout(x, 0.5, False).clone()
        write(y)
        return x * y + x

    return both


@pytest.mark.parametrize("write", [
    F.relu_, lambda y: y.masked_fill_(y > 0, 0.5), lambda y: y.fill_(3), lambda y: y.add_(1).mul_(2),
    lambda y: y.scatter_(1, y.argmax(1, keepdim=True), 1.0), lambda y: F.dropout(y.mul_(2), 0.5, False).add_(1),
])  # fmt: skip
@pytest.mark.parametrize("inner", [False, True])
def test_what_is_copied_stays_when_the_copy_is_written(write: Callable[[Tensor], Any], inner: bool) -> None:
    function = copied(write)
    net = Each({"result": (lambda x: function(x.sigmoid())) if inner else function})
    x = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(4))
    assert_same(quiet(net, x)(x), net(x))


@pytest.mark.parametrize("pad", [nn.ReflectionPad2d(6), nn.CircularPad2d((0, 0, 6, 0))])
def test_padding_that_pytorch_refuses_is_refused_at_every_size(pad: nn.Module) -> None:
    program = quiet(pad, torch.zeros(1, 2, 8, 9))
    x = torch.randn(1, 2, 7, 7)
    assert_same(program(x), pad(x))
    with pytest.raises(ShapeError, match=r"padding of 6 needs an axis longer than the 5 of x .*nearest sizes"):
        program(x[:, :, :5])
