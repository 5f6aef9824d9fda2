"""Convolution, correlation and their transpose against NumPy, SciPy, PyTorch and JAX."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given

from convoxel import reference
from convoxel.errors import ConfigError, ShapeError
from convoxel.nn import functional as cf
from tests.support.drawn import drawn
from tests.support.layer_problems import LayerProblem, layer_problems

# Sums of at most 125 products of small integers are exact in float64, so most comparisons here are exact.


def integers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(-9, 10, shape).astype(float))


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.manual_seed(seed))


@pytest.mark.parametrize("length", [1, 2, 5, 8, 31])
@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_A1_sequences_of_any_length(length: int, k: int) -> None:
    x, w = integers(length), integers(k, seed=1)
    full = np.convolve(x, w)
    np.testing.assert_array_equal(cf.convolve(x, w, padding="full", dims=1), full)
    np.testing.assert_array_equal(scipy.signal.convolve(x, w, "full", "direct"), full)
    if length >= k:
        np.testing.assert_array_equal(cf.convolve(x, w, padding="none", dims=1), np.convolve(x, w, "valid"))
        same = np.convolve(x, w, "same")
        np.testing.assert_array_equal(cf.convolve(x, w, padding="same", dims=1), same)
        # "half" pads ⌊k / 2⌋ on both sides: for even kernels one output more.
        half = cf.convolve(x, w, padding="half", dims=1)
        assert len(half) == length + (k % 2 == 0)
        np.testing.assert_array_equal(half[:length], same)
        np.testing.assert_array_equal(scipy.signal.convolve(x, w, "same", "direct"), same)


@pytest.mark.parametrize(("size", "kernel"), [((7,), (4,)), ((5, 6), (2, 3)), ((4, 5, 6), (3, 2, 3))])
def test_A2_convolution_and_correlation(size: tuple[int, ...], kernel: tuple[int, ...]) -> None:
    dims = len(size)
    x, w = integers(*size), integers(*kernel, seed=1)
    full = cf.convolve(x, w, padding="full", dims=dims)
    assert torch.equal(full, cf.convolve(w, x, padding="full", dims=dims))  # I * K = K * I
    np.testing.assert_array_equal(full, scipy.signal.convolve(x, w, "full", "direct"))
    for words in (("none", "valid"), ("full", "full")):
        ours, theirs = words
        correlation = cf.correlate(x, w, padding=ours, dims=dims)
        assert torch.equal(correlation, cf.convolve(x, w.flip(tuple(range(dims))), padding=ours, dims=dims))
        np.testing.assert_array_equal(correlation, scipy.signal.correlate(x, w, theirs, "direct"))
    same = cf.convolve(x, w, padding="same", dims=dims)
    np.testing.assert_array_equal(same, scipy.signal.convolve(x, w, "same", "direct"))


@drawn(40)
@given(layer_problems())
def test_D8_any_padding_equals_the_slow_truth(problem: LayerProblem) -> None:
    from convoxel.arithmetic import resolve_padding

    x, w, options = problem
    arguments = w.shape[2:], options["stride"], options["dilation"], problem.size
    pads = resolve_padding(options["padding"], *arguments)
    bias = integers(w.shape[0], seed=2)
    expected = reference.conv(x[None], w, bias, options["stride"], pads, options["dilation"], options["groups"])
    np.testing.assert_array_equal(cf.correlate(x, w, bias, **options), expected[0])
    np.testing.assert_array_equal(cf.correlate(x[None], w, bias, **options), expected)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular", "constant"])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_D8_borders_equal_numpy(mode: str, dims: int) -> None:
    x = integers(2, *range(3, 3 + dims))
    pairs = [(7, 2), (0, 9), (1, 0)][:dims]  # wider than the axis: what repeats goes on repeating
    theirs = {"replicate": "edge", "circular": "wrap"}.get(mode, mode)
    value = {"constant_values": 2.5} if mode == "constant" else {}
    expected = np.pad(x, [(0, 0), *pairs], mode=theirs, **value)
    np.testing.assert_array_equal(cf.pad(x, pairs, mode, 2.5), expected)
    cropped = cf.pad(x, [(-1, 1)] * dims, mode, 2.5)
    both = cf.pad(x, [(0, 1)] * dims, mode, 2.5)[(slice(None), *[slice(1, None)] * dims)]
    assert torch.equal(cropped, both)


@drawn(40)
@given(layer_problems(("zeros", "reflect", "replicate", "circular")))
def test_convolve_is_adjoint_to_its_gradient(problem: LayerProblem) -> None:
    x, w, options = problem
    y = cf.convolve(x, w, **options)
    seed = integers(*y.shape, seed=3)
    leaf = x.clone().requires_grad_()
    (back,) = torch.autograd.grad(cf.convolve(leaf, w, **options), leaf, seed)
    assert float((y * seed).sum()) == float((x * back).sum())


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_C6_conv_transpose_equals_pytorch_and_the_slow_truth(dims: int) -> None:
    x, w, b = integers(2, 4, *[3] * dims), integers(4, 1, *[3] * dims, seed=1), integers(2, seed=2)
    torch_function = getattr(torch.nn.functional, f"conv_transpose{dims}d")
    arguments = {"stride": 3, "padding": 1, "output_padding": 2, "groups": 2, "dilation": 2}
    y = cf.conv_transpose(x, w, b, **arguments)
    assert torch.equal(y, torch_function(x, w, b, **arguments))
    arguments.pop("output_padding")
    assert torch.equal(cf.conv_transpose(x, w, b, output_size=tuple(y.shape[2:]), **arguments), y)
    pads = [(0, 3), (2, 1), (4, 0)][:dims]
    found = cf.conv_transpose(x, w, b, stride=2, padding=pads, output_padding=1, groups=2)
    expected = reference.conv_transpose(x, w, b, [2] * dims, pads, [1] * dims, [1] * dims, groups=2)
    np.testing.assert_array_equal(found, expected)
    assert torch.equal(cf.conv_transpose(x[0], w, b, groups=2), cf.conv_transpose(x, w, b, groups=2)[0])


def test_crop_reaches_into_what_is_added() -> None:
    x = torch.tensor([3.0])
    assert cf.pad(x, [(-2, 2)]).tolist() == [0] and cf.pad(x, [(2, -3)], "constant", 5.0).tolist() == []
    assert cf.pad(x, [(-2, 3)], "constant", 5.0).tolist() == [5, 5]


def test_float32_and_devices() -> None:
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        x, w = torch.ones(1, 2, 4, 4, device=device), torch.ones(3, 2, 3, 3, device=device)
        for y in (cf.correlate(x, w, padding="same", padding_mode="reflect"), cf.resize(x, 3, mode="spline")):
            assert y.dtype == torch.float32 and y.device == x.device


def test_convolve_refuses() -> None:
    x, w = torch.zeros(1, 3, 8, 8), torch.zeros(4, 2, 3, 3)
    with pytest.raises(ShapeError, match="correlate: x has 3 channels but w expects 2"):
        cf.correlate(x, w)
    with pytest.raises(ShapeError, match=r"convolve: w has 2 axes .* expected 3"):
        cf.convolve(x, w[0, 0], dims=1)
    with pytest.raises(ShapeError, match=r"convolve: x has 2 axes .* expected"):
        cf.convolve(x[0, 0], w)
    with pytest.raises(ShapeError, match="groups is 3"):
        cf.correlate(x, w, groups=3)
    with pytest.raises(ShapeError, match=r"bias is \(3,\), but there are 4"):
        cf.correlate(x[:, :2], w, torch.zeros(3))
    with pytest.raises(ShapeError, match=r"x is torch.float64 but w is torch.float32"):
        cf.correlate(x[:, :2].double(), w)
    with pytest.raises(ShapeError, match="correlate: an input of size 2"):
        cf.correlate(x[:, :2, :2], w)
    with pytest.raises(ShapeError, match="w has 2 axes"):
        cf.correlate(x, w[0, 0])
    with pytest.raises(ShapeError, match="w is a plain kernel"):
        cf.correlate(x, w[0, 0], dims=2)
    with pytest.raises(ConfigError, match="padding_mode is 'mirror'"):
        cf.correlate(x, w, padding_mode="mirror")
    with pytest.raises(ConfigError, match="stride is \\(1,\\)"):
        cf.correlate(x[:, :2], w, stride=(1,))
    with pytest.raises(ConfigError, match="both output_padding"):
        cf.conv_transpose(torch.zeros(1, 4, 3, 3), w, output_padding=1, output_size=6)
    with pytest.raises(ShapeError, match="output_size is \\(20, 20\\)"):
        cf.conv_transpose(torch.zeros(1, 4, 3, 3), w, stride=2, output_size=20)
    with pytest.raises(ShapeError, match="crops more"):
        cf.pad(x, [(-9, 0)])
    with pytest.raises(ShapeError, match="nothing to repeat"):
        cf.pad(x[..., :0], [(1, 0)], "reflect")


@drawn(15)
@given(layer_problems())
def test_equals_jax(problem: LayerProblem) -> None:
    """Input dilation is what a transposed convolution does to x; kernel dilation and padding are the same words."""
    jax = pytest.importorskip("jax", reason="JAX is not installed (pip install jax)")
    from convoxel.arithmetic import resolve_padding, span

    x, w, options = problem
    dims, dilation, stride = len(problem.size), options["dilation"], options["stride"]
    pads = resolve_padding(options["padding"], w.shape[2:], stride, dilation, problem.size)
    letters = "DHW"[3 - dims :]
    layout = (f"NC{letters}", f"OI{letters}", f"NC{letters}")
    with jax.default_device(jax.devices("cpu")[0]):
        common = {"rhs_dilation": dilation, "dimension_numbers": layout}
        convolve = jax.lax.conv_general_dilated
        exact = {"precision": "highest", "preferred_element_type": np.float32}
        x32, w32 = x.float()[None].numpy(), w.float().numpy()  # small integers: exact in float32 too
        theirs = convolve(x32, w32, stride, pads, feature_group_count=options["groups"], **common, **exact)
        np.testing.assert_array_equal(np.asarray(theirs)[0], cf.correlate(x, w, **options))
        # The transposed convolution: x stretched by the stride, correlated with the flipped kernel.
        ends = [(span(k, d) - 1, span(k, d) - 1) for k, d in zip(w.shape[2:], dilation, strict=True)]
        one, ahead = w32[:1, :1], tuple(range(2, 2 + dims))
        stretched = convolve(x32[:, :1], np.flip(one, ahead), (1,) * dims, ends, lhs_dilation=stride, **common, **exact)
        ours = cf.conv_transpose(x[None, :1], w[:1, :1], stride=stride, dilation=dilation)
        np.testing.assert_array_equal(np.asarray(stretched), ours)
