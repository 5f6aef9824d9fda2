"""Costs against counting and against published figures."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from convoxel.arithmetic import (
    OPTIMISERS,
    conv_macs,
    conv_matrix,
    conv_params,
    flops,
    intensity,
    linear_macs,
    linear_params,
    norm_params,
    peak_bytes,
    size_bytes,
    training_bytes,
    transposed_macs,
)
from convoxel.errors import ConfigError


def test_published_figures() -> None:
    assert transposed_macs((2, 2), 3, 1, (2, 2)) == 48
    assert transposed_macs((16, 16, 16), 64, 32, (2, 2, 2)) == 67_108_864
    assert transposed_macs((16, 16), 32, 32, (3, 3), groups=32) == 73_728
    assert conv_params(64, 128, (5, 5), bias=False) == 204_800
    separable = conv_params(64, 64, (5, 5), groups=64, bias=False) + conv_params(64, 128, (1, 1), bias=False)
    assert separable == 9_792


@given(
    st.integers(1, 3),
    st.sampled_from([1, 2]),
    st.integers(1, 2),
    st.integers(1, 2),
    st.integers(1, 3),
    st.integers(1, 2),
)
@settings(deadline=None, derandomize=True, max_examples=40)
def test_macs_count_products(k: int, groups: int, c: int, out: int, size: int, stride: int) -> None:
    """A layer of ones on an input of ones, without padding, sums exactly as many ones as it has products."""
    channels, outputs = c * groups, out * groups
    x = torch.ones(2, channels, size + k, size + k)
    w = torch.ones(outputs, c, k, k)
    y = torch.nn.functional.conv2d(x, w, stride=stride, groups=groups)
    assert conv_macs(y.shape[2:], channels, outputs, (k, k), groups, batch=2) == int(y.sum())
    w = torch.ones(channels, out, k, k)
    y = torch.nn.functional.conv_transpose2d(x, w, stride=stride, groups=groups)
    assert transposed_macs(x.shape[2:], channels, outputs, (k, k), groups, batch=2) == int(y.sum())
    layer = torch.nn.Conv2d(channels, outputs, k, groups=groups)
    assert conv_params(channels, outputs, (k, k), groups) == sum(p.numel() for p in layer.parameters())


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 8), st.integers(0, 6)), max_size=8))
def test_peak_is_the_largest_sum_alive(drawn: list[tuple[int, int, int]]) -> None:
    values = [(size, first, first + length) for size, first, length in drawn]
    alive = [sum(size for size, first, last in values if first <= t <= last) for t in range(16)]
    assert peak_bytes(values) == max(alive)


def test_small_ones() -> None:
    assert linear_params(4, 3) == 15 and linear_params(4, 3, bias=False) == 12
    assert linear_macs(4, 3, rows=5) == 60
    assert norm_params(8) == 16 and norm_params(8, affine=False) == 0
    assert flops(21) == 42
    assert size_bytes((2, 3, 4)) == 96 and size_bytes((2, 3), item=2) == 12


def test_groups_must_divide() -> None:
    with pytest.raises(ConfigError, match=r"groups=3 must divide .* Use a divisor of 2"):
        conv_params(4, 6, (3,), groups=3)


def test_B2_a_small_image_three_ways() -> None:
    """3 × 3 pixels and a 2 × 2 kernel: as a convolution, locally connected, fully connected."""
    counts = conv_matrix((3, 3), 1, 1, (2, 2))
    assert (counts.shared, counts.nonzeros, counts.dense) == (4, 16, 36)
    assert (counts.rows, counts.columns, counts.density) == (4, 9, Fraction(4, 9))
    assert str(counts) == "4 × 9: 4 parameters as a convolution, 16 locally connected, 36 fully connected"
    assert (counts.dense_bytes(), counts.sparse_bytes(), counts.shared_bytes()) == (144, 16 * 8 + 5 * 4, 16)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.data())
def test_B3_matrix_counts_are_those_of_the_matrix(data: st.DataObject) -> None:
    """The matrix itself: a column is what PyTorch makes of an image with a single one."""
    dims = data.draw(st.integers(1, 3))
    groups, c, k = (data.draw(st.integers(1, 2)) for _ in range(3))

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(data.draw(st.integers(low, high)) for _ in range(dims))

    size, kernel, stride, padding, dilation = each(3, 4), each(1, 2), each(1, 2), each(1, 2), each(1, 2)
    counts = conv_matrix(size, c * groups, k * groups, kernel, stride, padding, dilation, groups)
    inputs = torch.eye(counts.columns, dtype=torch.float64).reshape(-1, c * groups, *size)
    weights = torch.rand((k * groups, c, *kernel), dtype=torch.float64) + 0.5
    convolve: Any = getattr(torch.nn.functional, f"conv{dims}d")
    matrix = convolve(inputs, weights, None, stride, padding, dilation, groups).flatten(1).T
    assert tuple(matrix.shape) == (counts.rows, counts.columns) and matrix.numel() == counts.dense
    assert int(torch.count_nonzero(matrix)) == counts.nonzeros
    assert weights.numel() == counts.shared
    sparse = csr_matrix(matrix.numpy().astype("float32"))
    held = sparse.data.nbytes + sparse.indices.nbytes + sparse.indptr.nbytes
    assert held == counts.sparse_bytes()


def test_matrix_of_an_asymmetric_layer() -> None:
    assert conv_matrix((5,), 1, 1, (3,), padding=((2, 0),)).nonzeros == 1 + 2 + 3 * 3
    assert conv_matrix((5,), 1, 1, (3,), padding="same").nonzeros == 2 + 3 * 3 + 2
    assert conv_matrix((5,), 1, 1, (3,), padding=((-1, 0),)).nonzeros == 2 * 3


def test_training_and_intensity() -> None:
    assert [training_bytes(10, 100, name) for name in OPTIMISERS] == [180, 220, 220, 260, 260]
    assert training_bytes(10, 0, "sgd", item=2) == 40
    assert intensity(48, 12, 4) == 3
    with pytest.raises(ConfigError, match="optimiser is 'adma', but it can be 'sgd', 'momentum'"):
        training_bytes(1, 1, "adma")
    with pytest.raises(ConfigError, match="needs the bytes that are moved"):
        intensity(4)
