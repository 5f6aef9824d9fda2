"""Separable, depthwise-separable and deformable convolutions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from convoxel.errors import ShapeError
from convoxel.nn import functional as cf


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.manual_seed(seed))


def test_D9_sobel_and_associativity() -> None:
    u, v = torch.tensor([1.0, 2.0, 1.0]), torch.tensor([1.0, 0.0, -1.0])
    assert torch.outer(u, v).tolist() == [[1, 0, -1], [2, 0, -2], [1, 0, -1]]
    assert torch.outer(u, v).numel() == 9 and u.numel() + v.numel() == 6
    full = {"padding": "full", "dims": 2}
    assert torch.equal(cf.convolve(u[:, None], v[None], **full), torch.outer(u, v))
    x = torch.arange(42.0).reshape(6, 7) % 5
    at_once = cf.convolve(x, cf.convolve(u[:, None], v[None], **full), **full)
    assert torch.equal(at_once, cf.convolve(cf.convolve(x, u[:, None], **full), v[None], **full))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_D9_separable_equals_the_product_kernel(dims: int) -> None:
    x, kernels = normal(2, 3, *[6] * dims), [normal(3 - axis, seed=axis) for axis in range(dims)]
    whole = kernels[0]
    for kernel in kernels[1:]:
        whole = whole[..., None] * kernel
    w = whole.expand(3, 1, *whole.shape)
    options = {"stride": 2, "padding": [(1, 2)] * dims, "dilation": 2, "padding_mode": "replicate"}
    expected = cf.correlate(x, w, groups=3, **options)
    torch.testing.assert_close(cf.separable(x, kernels, **options), expected, rtol=0, atol=1e-13)
    each = [kernel.expand(3, -1) for kernel in kernels]
    torch.testing.assert_close(cf.separable(x[0], each, dims=dims, **options), expected[0], rtol=0, atol=1e-13)
    mixing = [normal(4 if axis else 3, 3 if axis < 2 else 4, 2, seed=axis) for axis in range(dims)]
    assert cf.separable(x, mixing).shape == (2, 3 if dims == 1 else 4, *[5] * dims)


def test_D12_parameters_are_exact() -> None:
    for channels, out, k, dense, factored in ((3, 5, 3, 135, 42), (64, 128, 5, 204_800, 9_792)):
        depthwise, pointwise = torch.zeros(channels, 1, k, k), torch.zeros(out, channels)
        assert out * channels * k * k == dense and depthwise.numel() + pointwise.numel() == factored
        assert cf.depthwise_separable(torch.zeros(1, channels, 8, 8), depthwise, pointwise).shape[1] == out


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_D12_equals_one_convolution(dims: int) -> None:
    x, depthwise, pointwise, bias = (
        normal(2, 2, *[5] * dims),
        normal(4, 1, *[3] * dims, seed=1),
        normal(3, 4, seed=2),
        normal(3),
    )
    dense = torch.einsum("om,m...->om...", pointwise, depthwise[:, 0])
    dense = torch.stack([dense[:, :2].sum(1), dense[:, 2:].sum(1)], dim=1)
    expected = cf.correlate(x, dense, bias, padding="same", stride=2)
    found = cf.depthwise_separable(x, depthwise, pointwise, bias, padding="same", stride=2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)  # 108 products of values around 1


def plain_deform(
    x: torch.Tensor, offset: torch.Tensor, w: torch.Tensor, mask: torch.Tensor, stride: int
) -> torch.Tensor:
    """The definition in 2-D as torchvision documents it, by loops."""
    n, _, height, width = x.shape
    o, _, kh, kw = w.shape
    out = torch.zeros(n, o, *offset.shape[2:], dtype=x.dtype)

    def at(b: int, row: float, column: float) -> torch.Tensor:
        total = torch.zeros(x.shape[1], dtype=x.dtype)
        for i in (math.floor(row), math.floor(row) + 1):
            for j in (math.floor(column), math.floor(column) + 1):
                if 0 <= i < height and 0 <= j < width:
                    total += x[b, :, i, j] * (1 - abs(row - i)) * (1 - abs(column - j))
        return total

    for b in range(n):
        for p in range(out.shape[2]):
            for q in range(out.shape[3]):
                for tap in range(kh * kw):
                    row = p * stride + tap // kw + float(offset[b, 2 * tap, p, q])
                    column = q * stride + tap % kw + float(offset[b, 2 * tap + 1, p, q])
                    out[b, :, p, q] += mask[b, tap, p, q] * (w[:, :, tap // kw, tap % kw] @ at(b, row, column))
    return out


def test_D6_equals_the_published_definition() -> None:
    x, w = normal(1, 2, 4, 5), normal(3, 2, 2, 3, seed=1)
    offset, mask = 3 * normal(1, 12, 2, 2, seed=2), normal(1, 6, 2, 2, seed=3)
    found = cf.deform_conv(x, offset, w, mask=mask, stride=2, padding=[(0, 0), (0, 1)])
    torch.testing.assert_close(found, plain_deform(x, offset, w, mask, 2), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_D6_zero_and_integer_offsets(dims: int) -> None:
    x, w = normal(2, 4, *[6] * dims), normal(2, 2, *[3] * dims, seed=1)
    options = {"padding": "same", "stride": 2, "dilation": 1, "groups": 2}
    plain = cf.correlate(x, w, **options)
    offset = torch.zeros(2, dims * 3**dims, *plain.shape[2:], dtype=x.dtype)
    torch.testing.assert_close(cf.deform_conv(x, offset, w, **options), plain, rtol=0, atol=1e-12)
    # One element along the last axis: a gather of x moved by one.
    offset[:, dims - 1 :: dims] = 1
    low = cf.correlate(x, w, **{**options, "padding": [(0, 1)] * (dims - 1) + [(-1, 2)]})
    torch.testing.assert_close(cf.deform_conv(x, offset, w, **options), low, rtol=0, atol=1e-12)
    single = cf.deform_conv(x[0], offset[0], w, **options)
    torch.testing.assert_close(single, low[0], rtol=0, atol=1e-12)


def test_D6_far_and_undefined_offsets() -> None:
    x, w = torch.ones(1, 1, 4), torch.ones(1, 1, 1)
    offset = torch.tensor([[[1e30, -1e30, math.inf, math.nan]]])
    y = cf.deform_conv(x, offset, w)
    assert y[0, 0, :3].tolist() == [0, 0, 0] and bool(y[0, 0, 3].isnan())


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_D6_dynamic_kernels_equal_a_loop(dims: int) -> None:
    x = normal(3, 4, *[5] * dims)
    options = {"stride": 2, "padding": [(1, 0)] * dims, "dilation": 2, "groups": 2, "padding_mode": "replicate"}
    w, bias = normal(3, 6, 2, *[2] * dims, seed=1), normal(3, 6, seed=2)
    found = cf.dynamic_conv(x, w, bias, **options)
    for sample in range(3):
        expected = cf.correlate(x[sample : sample + 1], w[sample], bias[sample], **options)[0]
        torch.testing.assert_close(found[sample], expected, rtol=0, atol=1e-12)
        single = cf.dynamic_conv(x[sample], w[sample], bias[sample], dims=dims, **options)
        torch.testing.assert_close(single, expected, rtol=0, atol=1e-12)
    # A kernel for each output: the same everywhere is one for the sample; each by itself gives its own place.
    output = found.shape[2:]
    everywhere = w.reshape(*w.shape, *[1] * dims).expand(*w.shape, *output)
    torch.testing.assert_close(cf.dynamic_conv(x, everywhere, bias, **options), found, rtol=0, atol=1e-12)
    each = normal(*everywhere.shape, seed=3)
    local = cf.dynamic_conv(x, each, **options)
    for place in np.ndindex(*output):
        own = cf.dynamic_conv(x, each[(..., *place)], **options)
        torch.testing.assert_close(local[(..., *place)], own[(..., *place)], rtol=0, atol=1e-12)


def test_kernels_refuse() -> None:
    x, w = torch.zeros(1, 2, 5, 5), torch.zeros(3, 2, 3, 3)
    with pytest.raises(ShapeError, match="separable: kernels are"):
        cf.separable(x, [torch.ones(3)])
    with pytest.raises(ShapeError, match="separable: kernel 0 is \\(3, 2\\)"):
        cf.separable(x, [torch.ones(3, 2), torch.ones(3)])
    with pytest.raises(ShapeError, match="depthwise_separable: depthwise is"):
        cf.depthwise_separable(x, w, torch.ones(5, 2))
    with pytest.raises(ShapeError, match=r"deform_conv: offset is .* expected \(n, g · 18, 3, 3\)"):
        cf.deform_conv(x, torch.zeros(1, 9, 3, 3), w)
    with pytest.raises(ShapeError, match=r"dynamic_conv: w is \(3, 2, 3, 3\), but x is .* Give a kernel for each"):
        cf.dynamic_conv(x, w)
    with pytest.raises(ShapeError, match=r"kernels for outputs of \(4, 4\), but x gives \(3, 3\)"):
        cf.dynamic_conv(x, torch.zeros(1, 1, 2, 3, 3, 4, 4))
    with pytest.raises(ShapeError, match="deform_conv: mask is"):
        cf.deform_conv(x, torch.zeros(1, 18, 3, 3), w, mask=torch.zeros(1, 18, 3, 3))
    with pytest.raises(ShapeError, match="x has 2 channels but w expects 4"):
        cf.deform_conv(x, torch.zeros(1, 18, 3, 3), w, groups=2)
