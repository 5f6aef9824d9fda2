"""The error of weights of 24 bits, and weights beyond their range."""

from __future__ import annotations

import numpy as np
import pytest

from convoxel.native import Convolution, Plan, View
from tools.conformance import INSTRUCTION_SETS

RNG = np.random.default_rng(3)


def run(weight: np.ndarray, x: np.ndarray, isa: str) -> np.ndarray:
    """(rows, channels) by (columns, channels) → (rows, columns)."""
    rows, columns = len(x), len(weight)
    src, dst = np.ascontiguousarray(x, np.float32), np.full((rows, columns), np.nan, np.float32)
    plan = Plan(0, 2, 2, isa=isa)
    views = [View.dense(i, 0, (rows, 1, 1, 1, a.shape[1])) for i, a in enumerate((src, dst), start=1)]
    plan.convolve(Convolution(weight.reshape(*weight.shape, 1, 1, 1)), *views, algorithm="fixed24")
    plan.run([src, dst])
    return dst


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
def test_a_weight_is_off_by_a_part_of_its_outputs_largest(isa: str, scale: float) -> None:
    """Each column of the identity reads one weight of every output; it is off by at most 2**-23 of the largest."""
    weight = (scale * RNG.standard_normal((37, 11)) * 10.0 ** RNG.integers(-4, 3, (37, 11))).astype(np.float32)
    held = run(weight, np.eye(11), isa).T
    largest = np.abs(weight).max(axis=1, keepdims=True)
    assert (np.abs(held.astype(np.float64) - weight) <= 2.0**-23 * largest).all()
    assert (np.abs(held - weight).max(axis=1) > 0).any()  # some weight was rounded


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("size", [1e-30, 1e34])
def test_large_and_small_inputs_stay_in_range(isa: str, size: float) -> None:
    weight, x = RNG.integers(1, 4, (16, 600)) / 128, size * RNG.integers(1, 4, (3, 600))
    assert np.allclose(run(weight, x, isa), x @ weight.T, rtol=1e-5, atol=0)


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_long_sums_keep_their_digits(isa: str) -> None:
    weight, x = (RNG.standard_normal((s, 20000)).astype(np.float32) for s in (16, 3))
    truth = x.astype(np.float64) @ weight.T.astype(np.float64)
    assert np.linalg.norm(run(weight, x, isa) - truth) < 1e-6 * np.linalg.norm(truth)


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_outputs_of_weights_that_are_not_finite_are_nan(isa: str) -> None:
    weight = RNG.integers(-4, 5, (40, 6)).astype(np.float32)
    weight[3, 2], weight[39, 0], weight[7] = np.inf, np.nan, 0
    y = run(weight, np.ones((2, 6)), isa)
    bad = np.zeros(40, bool)
    bad[[3, 39]] = True
    assert np.isnan(y[:, bad]).all()
    assert np.array_equal(y[:, ~bad], np.ones((2, 6)) @ weight[~bad].T)
