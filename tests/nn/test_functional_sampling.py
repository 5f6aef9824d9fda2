"""Pooling, un-pooling, resizing and shuffling against loops, PyTorch and SciPy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.nn import functional as F

from convoxel.arithmetic import pool_size
from convoxel.errors import ConfigError, ShapeError
from convoxel.nn import functional as cf
from tests.support.drawn import drawn


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.manual_seed(seed))


def distinct(*shape: int) -> torch.Tensor:
    """Values of which no two are near each other: a maximum there has a gradient."""
    order = torch.randperm(math.prod(shape), generator=torch.manual_seed(0))
    return order.to(torch.float64).reshape(shape) / 7


def window_values(x: np.ndarray, position: tuple[int, ...], k: tuple, s: tuple, p: tuple, d: tuple) -> list[float]:
    """Yield the elements of x that each window sees, by a loop over them."""
    seen = []
    for tap in itertools.product(*map(range, k)):
        place = [o * b - lo + t * c for o, b, (lo, _), t, c in zip(position, s, p, tap, d, strict=True)]
        if all(0 <= a < i for a, i in zip(place, x.shape, strict=True)):
            seen.append(float(x[tuple(place)]))
    return seen


def test_C1_lecture_example() -> None:
    x = torch.tensor([[12, 20, 30, 0], [8, 12, 2, 0], [34, 70, 37, 4], [112, 100, 25, 12.0]])
    assert cf.max_pool(x[None], 2, dims=2)[0].tolist() == [[20, 30], [112, 37]]
    assert cf.average_pool(x[None], 2, dims=2)[0].tolist() == [[13, 8], [79, 19.5]]


@drawn(40)
@given(st.data())
def test_C1_pooling_equals_a_loop(data: st.DataObject) -> None:
    """Dilation, asymmetric padding and rounding up, in 1 to 3 dimensions."""
    dims = data.draw(st.integers(1, 3))
    each = lambda low, high: tuple(data.draw(st.integers(low, high)) for _ in range(dims))  # noqa: E731
    size, k, s, d = each(1, 6), each(1, 3), each(1, 3), each(1, 2)
    p = tuple(
        (data.draw(st.integers(0, b * (a - 1))), data.draw(st.integers(0, b * (a - 1))))
        for a, b in zip(k, d, strict=True)
    )
    ceil = data.draw(st.booleans())
    x = distinct(1, 1, *size)
    try:
        output = tuple(pool_size(*axis, ceil) for axis in zip(size, k, s, p, d, strict=True))
    except ShapeError:
        assume(False)
    windows = {o: window_values(x[0, 0].numpy(), o, k, s, p, d) for o in itertools.product(*map(range, output))}
    options = {"stride": s, "padding": p, "dilation": d, "ceil": ceil}
    largest = cf.max_pool(x, k, **options)
    assert largest.shape[2:] == output
    y, index = cf.max_pool(x, k, return_indices=True, **options)
    assert torch.equal(y, largest)
    mean = cf.average_pool(x, k, count_include_pad=False, **options)
    total = cf.average_pool(x, k, divisor=1, **options)
    for o, seen in windows.items():
        assert float(largest[(0, 0, *o)]) == max(seen, default=-math.inf)
        assert float(total[(0, 0, *o)]) == pytest.approx(sum(seen), abs=1e-12)
        if seen:
            assert float(x.flatten()[index[(0, 0, *o)]]) == max(seen)
            assert float(mean[(0, 0, *o)]) == pytest.approx(sum(seen) / len(seen), abs=1e-12)
        else:
            assert math.isnan(float(mean[(0, 0, *o)]))


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("counted", [False, True])
def test_C1_pooling_equals_pytorch(dims: int, ceil: bool, counted: bool) -> None:
    x = normal(2, 3, *[7] * dims)
    average = getattr(F, f"avg_pool{dims}d")
    expected = average(x, 3, 2, 1, ceil, counted)
    assert torch.equal(cf.average_pool(x, 3, stride=2, padding=1, ceil=ceil, count_include_pad=counted), expected)
    # The path of our own: one more element that padding crops again.
    wider = torch.cat([normal(2, 3, 1, *[7] * (dims - 1), seed=1), x], dim=2)
    pads = [(0 if axis == 0 else 1, 1) for axis in range(dims)]
    if not ceil:
        own = cf.average_pool(wider, 3, stride=2, padding=pads)[:, :, 1:]
        same = average(F.pad(wider, [1, 1] * (dims - 1) + [0, 1]), 3, 2)[:, :, 1:]
        torch.testing.assert_close(own, same, rtol=1e-14, atol=1e-14)  # 27 sums of values around 1
    largest = getattr(F, f"max_pool{dims}d")
    for d in (1, 2):
        y, index = cf.max_pool(x, 3, stride=2, padding=1, dilation=d, ceil=ceil, return_indices=True)
        other, place = largest(x, 3, 2, 1, d, ceil, return_indices=True)
        assert torch.equal(y, other) and torch.equal(index, place)
    for size in (1, 3, 9):
        assert torch.equal(cf.adaptive_average_pool(x, size), getattr(F, f"adaptive_avg_pool{dims}d")(x, [size] * dims))
        y, index = cf.adaptive_max_pool(x[0], size, return_indices=True, dims=dims)
        other, place = getattr(F, f"adaptive_max_pool{dims}d")(x[0], [size] * dims, return_indices=True)
        assert torch.equal(y, other) and torch.equal(index, place)
    torch.testing.assert_close(cf.global_average_pool(x), cf.adaptive_average_pool(x, 1), rtol=1e-13, atol=1e-15)
    assert torch.equal(cf.global_max_pool(x), cf.adaptive_max_pool(x, 1))


def test_C2_blur_pool_shifts_less() -> None:
    """Half a period of a shift: what is kept of x and of x moved by one should be alike."""
    for dims in (1, 2, 3):
        x = normal(1, 2, *[16] * dims)
        moved = x.roll(1, dims=-1)
        errors = [
            float((pool(x) - pool(moved)).square().mean() / pool(x).square().mean())
            for pool in (
                lambda x: cf.blur_pool(x, padding_mode="circular"),
                lambda x, dims=dims: x[(..., *[slice(None, None, 2)] * dims)],
            )
        ]
        assert errors[0] < 0.8 * errors[1]
    weights = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64) / 4
    w = torch.outer(weights, weights).expand(2, 1, 3, 3)
    x = normal(1, 2, 6, 7)
    expected = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), w, stride=2, groups=2)
    torch.testing.assert_close(cf.blur_pool(x), expected, rtol=1e-14, atol=1e-14)
    assert cf.blur_pool(x, 4, stride=(2, 3)).shape == (1, 2, 3, 3)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("align", [False, True])
def test_C3_resize_equals_pytorch(dims: int, align: bool) -> None:
    x, names = normal(2, 1, 5, 6, 4)[(..., *[0] * (3 - dims))], ("linear", "bilinear", "trilinear")
    for wanted in ((8, 9, 7), (3, 2, 3)):
        size = wanted[:dims]
        expected = F.interpolate(x, size, mode=names[dims - 1], align_corners=align)
        assert torch.equal(cf.resize(x, size, align_corners=align), expected)
        assert torch.equal(cf.resize(x[0], size, align_corners=align, dims=dims), expected[0])
        if dims == 2:  # PyTorch has cubic and antialias there alone; 16 products, weights below 2
            expected = F.interpolate(x, size, mode="bicubic", align_corners=align)
            torch.testing.assert_close(
                cf.resize(x, size, mode="cubic", align_corners=align), expected, rtol=0, atol=2e-14
            )
            if not align:
                for ours, theirs in (("linear", "bilinear"), ("cubic", "bicubic")):
                    expected = F.interpolate(x, size, mode=theirs, antialias=True)
                    found = cf.resize(x, size, mode=ours, antialias=True)
                    torch.testing.assert_close(found, expected, rtol=0, atol=2e-14)
        if not align:
            for mode in ("nearest", "nearest-exact", "area"):
                assert torch.equal(cf.resize(x, size, mode=mode), F.interpolate(x, size, mode=mode))
    factors = [1.5, 2.0, 0.75][:dims]
    expected = F.interpolate(x, scale_factor=factors, mode=names[dims - 1], align_corners=align)
    assert torch.equal(cf.resize(x, scale=factors, align_corners=align), expected)


@pytest.mark.parametrize("order", range(6))
# SciPy's half-sample filter leaves out what a pole does over twice the axis: 0.43^(2 · 18) = 6e-14 for order 5.
@pytest.mark.parametrize("size", [(19,), (18, 21), (18, 19, 20)])
def test_C3_spline_equals_scipy(order: int, size: tuple[int, ...]) -> None:
    x = normal(*size)
    wanted = tuple(i + 4 for i in size)
    factors = [o / i for o, i in zip(wanted, size, strict=True)]
    for align, mode in ((True, "mirror"), (False, "reflect")):
        expected = scipy.ndimage.zoom(x, factors, order=order, mode=mode, grid_mode=not align)
        found = cf.resize(x[None, None], wanted, mode="spline", order=order, align_corners=align)[0, 0]
        # SciPy starts its recursions by sums that it stops at 1e-15; weights of order 5 sum to below 4 on an axis.
        np.testing.assert_allclose(found, expected, atol=1e-12)
    where = np.stack(
        np.meshgrid(*[np.arange(o) * (i - 1) / (o - 1) for i, o in zip(size, wanted, strict=True)], indexing="ij")
    )
    expected = scipy.ndimage.map_coordinates(x, where, order=order, mode="mirror")
    found = cf.resize(x[None, None], wanted, mode="spline", order=order, align_corners=True)[0, 0]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_C3_long_axis_is_sparse() -> None:
    x = normal(1, 1, 3000)
    expected = scipy.ndimage.zoom(x[0, 0], 2, order=3, mode="mirror")
    np.testing.assert_allclose(cf.resize(x, 6000, mode="spline", align_corners=True)[0, 0], expected, atol=1e-12)
    leaf = x.requires_grad_()
    (back,) = torch.autograd.grad(cf.resize(leaf, 6000, mode="cubic").sum(), leaf)
    assert float(back.sum()) == pytest.approx(6000, abs=1e-9)  # weights of each output sum to 1


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_C5_unpool(dims: int) -> None:
    x = distinct(2, 3, *[6] * dims)
    y, index = cf.max_pool(x, 2, return_indices=True)
    back = cf.unpool(y, 2, mode="indices", indices=index)
    assert torch.equal(back, getattr(F, f"max_unpool{dims}d")(y, index, 2))
    assert torch.equal(cf.max_pool(back, 2), y)  # all values are at least 0
    nails = cf.unpool(y, 2, mode="fixed", position=1)
    assert torch.equal(nails[(..., *[slice(1, None, 2)] * dims)], y) and float(nails.sum()) == pytest.approx(
        float(y.sum())
    )
    assert torch.equal(
        cf.unpool(y, 2), y.repeat_interleave(2, -1) if dims == 1 else cf.resize(y, scale=2, mode="nearest")
    )
    spread = cf.unpool(y, 2, mode="average")
    torch.testing.assert_close(cf.average_pool(spread, 2) * 2**dims, y)
    # The transpose of average pooling, overlaps, padding and rest included.
    z = normal(2, 3, *[7] * dims)
    pooled = cf.average_pool(z, 3, stride=2, padding=[(1, 0)] * dims)
    seed = normal(*pooled.shape, seed=1)
    back = cf.unpool(seed, 3, mode="average", stride=2, padding=[(1, 0)] * dims, output_size=7)
    assert float((pooled * seed).sum()) == pytest.approx(float((z * back).sum()), abs=1e-11)
    shifted, index = cf.max_pool(x, 3, stride=2, padding=[(1, 0)] * dims, return_indices=True)
    back = cf.unpool(shifted, 3, mode="indices", indices=index, stride=2, padding=[(1, 0)] * dims, output_size=6)
    assert torch.equal(back[back > 0].unique(), shifted[shifted > 0].unique())


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_pixel_shuffle(dims: int) -> None:
    x = normal(2, 3 * 2**dims, *[3] * dims)
    y = cf.pixel_shuffle(x, 2)
    assert y.shape == (2, 3, *[6] * dims) and torch.equal(cf.pixel_unshuffle(y, 2), x)
    assert torch.equal(cf.pixel_shuffle(x[0], 2, dims=dims), y[0])
    if dims == 2:
        assert torch.equal(y, F.pixel_shuffle(x, 2)) and torch.equal(cf.pixel_unshuffle(y, 3), F.pixel_unshuffle(y, 3))
    uneven = cf.pixel_shuffle(x, (2**dims, *[1] * (dims - 1)))
    assert uneven.shape == (2, 3, 3 * 2**dims, *[3] * (dims - 1))


def test_sampling_refuses() -> None:
    x = torch.zeros(1, 2, 4, 4)
    for wrong, error, text in [
        (lambda: cf.max_pool(x[0, 0], 2), ShapeError, "max_pool: x has 2 axes"),
        (lambda: cf.max_pool(x, 2, dims=1), ShapeError, "with 1 spatial axis"),
        (lambda: cf.max_pool(x, 2, padding=2), ConfigError, "nothing but padding"),
        (lambda: cf.max_pool(x, 5), ShapeError, "max_pool: an input of size 4"),
        (lambda: cf.max_pool(x, (2, 2, 2)), ConfigError, "kernel_size is \\(2, 2, 2\\)"),
        (lambda: cf.average_pool(x, 2, divisor=0), ConfigError, "divisor is 0"),
        (lambda: cf.adaptive_average_pool(x, 0), ConfigError, "output_size is 0"),
        (lambda: cf.blur_pool(x, 0), ConfigError, "kernel_size is 0"),
        (lambda: cf.resize(x), ConfigError, "Give one of them"),
        (lambda: cf.resize(x, 2, mode="lanczos"), ConfigError, "mode is 'lanczos'"),
        (lambda: cf.resize(x, 2, mode="spline", order=6), ConfigError, "order is 6"),
        (lambda: cf.resize(x, 2, mode="nearest", align_corners=True), ConfigError, "does not go with"),
        (lambda: cf.resize(x, 2, mode="spline", antialias=True), ConfigError, "antialias goes with"),
        (lambda: cf.resize(x, scale=-1.0), ConfigError, "scale is -1.0"),
        (lambda: cf.resize(x, scale=0.1), ShapeError, "leaves nothing"),
        (lambda: cf.resize(x[..., :0], 2), ShapeError, "empty axis"),
        (lambda: cf.unpool(x, 2, mode="max"), ConfigError, "mode is 'max'"),
        (lambda: cf.unpool(x, 2, mode="indices"), ShapeError, "indices are None"),
        (lambda: cf.unpool(x, 2, mode="indices", indices=x.long() + 99), ShapeError, "64 places"),
        (lambda: cf.unpool(x, 2, mode="fixed", position=2), ConfigError, "lies outside of the window"),
        (lambda: cf.unpool(x, 3, stride=2), ConfigError, "is not clear"),
        (lambda: cf.unpool(x, 2, output_size=11), ShapeError, "output_size is \\(11, 11\\)"),
        (lambda: cf.pixel_shuffle(x, 2), ShapeError, "x has 2 channels"),
        (lambda: cf.pixel_unshuffle(x, 3), ShapeError, "do not divide"),
    ]:
        with pytest.raises(error, match=text):
            wrong()
