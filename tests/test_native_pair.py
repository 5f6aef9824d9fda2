"""A depthwise convolution and the 1×1 convolution behind it as one step, against the two of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from conformance import INSTRUCTION_SETS
from convoxel import ConfigError, ShapeError, UnsupportedError, reference
from convoxel.native import Convolution, Plan, View

ONE = ((1, 1, 1), [(0, 0)] * 3, (1, 1, 1))  # stride, padding, dilation
RNG = np.random.default_rng(7)


def integers(*shape: int) -> np.ndarray:
    return RNG.integers(-4, 5, shape).astype(np.float32)


def last(x: np.ndarray) -> np.ndarray:
    """(n, c, d, h, w) → (n, d, h, w, c)"""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


class Pair:
    """Small integers, so that sums in any order are equal."""

    def __init__(self, channels: int, columns: int, kernel: tuple[int, int, int], stride: int = 1, batch: int = 2):
        self.x = integers(batch, channels, 3, 9, 11)
        self.w, self.bias = integers(channels, 1, *kernel), integers(channels)
        self.pointwise, self.last_bias = integers(columns, channels, 1, 1, 1), integers(columns)
        self.padding = [(k // 2, k // 2) for k in kernel]
        self.stride = (1, stride, stride)
        between = reference.conv(self.x, self.w, self.bias, self.stride, self.padding, (1, 1, 1), channels).clip(0)
        self.residual = integers(batch, columns, *between.shape[2:])
        self.y = reference.conv(between, self.pointwise, self.last_bias, *ONE) + self.residual
        self.first = Convolution(
            self.w, self.bias, stride=self.stride, padding_low=tuple(k // 2 for k in kernel), groups=channels
        )
        self.second = Convolution(self.pointwise, self.last_bias)

    def run(self, algorithm: str, isa: str, threads: int = 2) -> np.ndarray:
        src, dst, residual = last(self.x), np.full(last(self.y).shape, np.nan, np.float32), last(self.residual)
        plan = Plan(0, 3, threads, isa=isa)
        views = [View.dense(i, 0, a.shape) for i, a in enumerate((src, dst, residual), start=1)]
        plan.convolve_pair(
            self.first, self.second, *views[:2], residual=views[2], first_activation="relu", algorithm=algorithm
        )
        plan.run([src, dst, residual])
        return dst


@pytest.mark.parametrize("algorithm", ["auto", "blocked", "staged", "direct", "indirect"])
@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_equals_the_two_exactly(isa: str, algorithm: str) -> None:
    kernels, channels = ((1, 3, 3), (3, 3, 3), (1, 1, 5), (1, 7, 1)), ((1, 37), (3, 16), (16, 3), (37, 1))
    for kernel, (count, columns), stride in itertools.product(kernels, channels, (1, 2)):
        pair = Pair(count, columns, kernel, stride)
        assert np.array_equal(pair.run(algorithm, isa), last(pair.y)), (kernel, count, columns, stride)


@pytest.mark.parametrize("algorithm", ["blocked", "staged"])
def test_any_number_of_threads_gives_the_same_bits(algorithm: str) -> None:
    pair = Pair(37, 20, (3, 3, 3), batch=1)
    pair.x[...] = RNG.standard_normal(pair.x.shape)
    results = [pair.run(algorithm, INSTRUCTION_SETS[0], threads).tobytes() for threads in (1, 2, 3, 7)]
    assert len(set(results)) == 1


def test_lines_longer_than_a_run() -> None:
    x, w = integers(1, 4, 1, 1, 700), integers(4, 1, 1, 1, 3)
    pointwise = integers(3, 4, 1, 1, 1)
    y = reference.conv(
        reference.conv(x, w, None, (1, 1, 1), [(0, 0), (0, 0), (1, 1)], (1, 1, 1), 4), pointwise, None, *ONE
    )
    src, dst = last(x), np.full((1, 1, 1, 700, 3), np.nan, np.float32)
    for algorithm in ("blocked", "staged"):
        plan = Plan(0, 2, 1)
        plan.convolve_pair(
            Convolution(w, padding_low=(0, 0, 1), groups=4),
            Convolution(pointwise),
            View.dense(1, 0, src.shape),
            View.dense(2, 0, dst.shape),
            algorithm=algorithm,
        )
        plan.run([src, dst])
        assert np.array_equal(dst, last(y))


def test_what_is_no_pair_is_refused() -> None:
    depthwise, pointwise = Convolution(integers(4, 1, 1, 1, 3), groups=4), Convolution(integers(3, 4, 1, 1, 1))
    src, dst = View.dense(1, 0, (1, 1, 1, 8, 4)), View.dense(2, 0, (1, 1, 1, 6, 3))
    plan = Plan(0, 2, 1)
    for first, second, message in (
        (Convolution(integers(4, 4, 1, 1, 3)), pointwise, "the first convolution is not depthwise"),
        (depthwise, Convolution(integers(3, 4, 1, 1, 3)), "the second convolution is not 1x1"),
        (depthwise, Convolution(integers(3, 4, 1, 1, 1), stride=(1, 1, 2)), "the second convolution is not 1x1"),
        (depthwise, Convolution(integers(3, 5, 1, 1, 1)), "the convolution maps 5 to 3 channels"),
    ):
        with pytest.raises((ShapeError, UnsupportedError), match=message):
            plan.convolve_pair(first, second, src, dst)
    with pytest.raises(ConfigError, match="there is no algorithm 'fastest'"):
        plan.convolve_pair(depthwise, pointwise, src, dst, algorithm="fastest")
