"""Every algorithm on every instruction set: exact on integers, or within its bound."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoxel import reference
from convoxel.arithmetic.winograd import error_factor, tiles_of, winograd
from convoxel.native.precision import DIGITS
from tools.conformance import (
    ALGORITHMS,
    INSTRUCTION_SETS,
    PRECISION,
    SHARED_PROBLEMS,
    Problem,
    arguments,
    check_close,
    check_exact,
    check_problem,
    expected,
    read_problems,
    solve,
)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    dims = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    per_axis = lambda low, high: draw(st.tuples(*[st.integers(low, high)] * dims))  # noqa: E731
    kernel, stride, dilation = per_axis(1, 4), per_axis(1, 3), per_axis(1, 3)
    pads = tuple(zip(per_axis(-1, 4), per_axis(-2, 4), strict=True))
    transposed = draw(st.booleans())
    extents = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    if transposed:
        output_padding = tuple(draw(st.integers(0, s - 1)) for s in stride)
        size = tuple(
            max(1, -(-(low + high - e - a + 1) // s) + 1) + draw(st.integers(0, 5))
            for (low, high), e, a, s in zip(pads, extents, output_padding, stride, strict=True)
        )
    else:
        output_padding = ()
        size = tuple(
            max(1, 1 - low, 1 - high, e - low - high) + draw(st.integers(0, 6))
            for (low, high), e in zip(pads, extents, strict=True)
        )
    return Problem(
        batch=draw(st.integers(1, 3)),
        groups=groups,
        in_channels=groups * draw(st.sampled_from([1, 2, 3, 5, 17])),
        out_channels=groups * draw(st.sampled_from([1, 2, 7, 16, 33])),
        size=size,
        kernel=kernel,
        stride=stride,
        pads=pads,
        dilation=dilation,
        transposed=transposed,
        output_padding=output_padding,
    )


@settings(max_examples=150, deadline=None, derandomize=True)
@given(problems())
def test_drawn_problems_are_right(problem: Problem) -> None:
    assert list(check_problem(problem, INSTRUCTION_SETS))


@pytest.mark.smoke
def test_sizes_around_the_tile_are_right() -> None:
    """Row counts, columns and channels just below, at and above every tile, panel and block."""
    for channels, columns, width in itertools.product((1, 31, 513), (1, 15, 16, 17, 65, 130), (1, 5, 12, 13, 97)):
        problem = Problem(1, 1, channels, columns, (width,), (1,), (1,), ((0, 0),), (1,))
        assert list(check_problem(problem, INSTRUCTION_SETS))


@pytest.mark.smoke
def test_published_problems_are_right() -> None:
    """500 problems drawn from the convolution tests of a well-known library."""
    if not SHARED_PROBLEMS.exists():
        pytest.skip("the list of published problems is not here")
    for problem in random.Random(1).sample(read_problems(SHARED_PROBLEMS), 500):
        assert list(check_problem(problem, INSTRUCTION_SETS))


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_result_is_bit_equal_for_any_number_of_threads_and_any_batch(isa: str, transposed: bool, stride: int) -> None:
    rng = np.random.default_rng(3)
    extra = (0, stride - 1)
    pads = ((1, 0), (2, 1))
    problem = Problem(3, 1, 37, 70, (9, 11), (3, 3), (stride, stride), pads, (1, 1), None, transposed, extra)
    x, w, bias = (rng.standard_normal(a.shape).astype(np.float32) for a in arguments(problem))
    for algorithm in ALGORITHMS:
        one = solve(problem, x, w, bias, algorithm, isa, threads=1)
        if one is None:
            continue
        for threads in (2, 3, 7):
            again = solve(problem, x, w, bias, algorithm, isa, threads=threads)
            assert again is not None and np.array_equal(one, again)
        alone = solve(problem, x[1:2], w, bias, algorithm, isa, threads=2)
        assert alone is not None and np.array_equal(one[1:2], alone)


def tile_sizes(algorithm: str, dims: int) -> tuple[int, ...]:
    """Winograd's m along each axis; 1 for other algorithms."""
    return (tiles_of(algorithm) or (1, 1, 1))[3 - dims :]


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_rounding_stays_within_the_derived_bound(isa: str) -> None:
    """|error| <= 16 eps s_x s_w (0.2 K + 2 sqrt K) for K products of values with these deviations.

    Products of floats as sums of two bfloat16 err besides by up to 3 * 2**-18 each (what is left of either factor, and
    the product of the low halves), with any sign: six deviations of their sum.
    """
    rng = np.random.default_rng(4)
    for channels, kernel in ((3, (7, 7)), (64, (3, 3)), (700, (1, 1)), (16, (3, 3, 3))):
        dims = len(kernel)
        x = rng.standard_normal((1, channels, *(12,) * dims)).astype(np.float32)
        w = (0.1 * rng.standard_normal((20, channels, *kernel))).astype(np.float32)
        zero = np.zeros(20, np.float32)
        ones = (1,) * dims
        problem = Problem(1, 1, channels, 20, (12,) * dims, kernel, ones, ((3, 3),) * dims, ones)
        truth = reference.conv(x, w, zero, ones, problem.pads, ones, 1)
        eps = np.finfo(np.float32).eps
        for algorithm in ALGORITHMS:
            result = solve(problem, x, w, zero, algorithm, isa)
            if result is None:
                continue
            # Winograd sums over channels and untransformed axes; the transforms of the others multiply the error.
            tiles = tile_sizes(algorithm, dims)
            products, factor, transformed = channels, 1.0, 0
            for m, k in zip(tiles, kernel, strict=True):
                if m == 1 or k == 1:
                    products *= k
                else:
                    factor *= error_factor(winograd(m, k))
                    transformed += 1
            bound = 16 * eps * 0.1 * factor * (0.2 * products + 2 * (max(1, transformed) * products) ** 0.5)
            if PRECISION[algorithm] != "float32":  # each factor errs by 2**-(digits + 2) at most
                bound += 6 * 3 * 2.0 ** -(DIGITS[PRECISION[algorithm]] + 2) * 0.1 * factor * products**0.5
            assert np.isfinite(result).all()
            assert np.abs(result - truth).max() <= bound, algorithm


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_nan_and_infinity_reach_exactly_the_outputs_that_read_them(isa: str) -> None:
    x = np.ones((1, 2, 8, 8), np.float32)
    x[0, 0, 3, 4], x[0, 1, 7, 0] = np.nan, np.inf
    w = np.ones((3, 2, 3, 3), np.float32)
    problem = Problem(1, 1, 2, 3, (8, 8), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))
    y = solve(problem, x, w, np.zeros(3, np.float32), "indirect", isa)
    assert y is not None
    nan = np.zeros((8, 8), bool)
    nan[2:5, 3:6] = True
    assert (np.isnan(y) == nan).all()
    infinite = np.zeros((8, 8), bool)
    infinite[6:8, 0:2] = True
    assert (np.isinf(y) == infinite).all()


@pytest.mark.parametrize(("dims", "bound"), [(2, 1.5e-6), (3, 3e-6)])
def test_winograd_of_4_keeps_its_digits(dims: int, bound: float) -> None:
    """Relative L2 error of F(4, 3) at 64 channels of normal data."""
    rng = np.random.default_rng(6)
    x = rng.standard_normal((1, 64, *(12,) * dims)).astype(np.float32)
    w = rng.standard_normal((64, 64, *(3,) * dims)).astype(np.float32)
    problem = Problem(1, 1, 64, 64, x.shape[2:], (3,) * dims, (1,) * dims, ((1, 1),) * dims, (1,) * dims)
    truth = expected(problem, x, w, np.zeros(64, np.float32))
    for isa in INSTRUCTION_SETS:
        y = solve(problem, x, w, np.zeros(64, np.float32), "winograd(4)", isa)
        assert y is not None
        assert np.sqrt(((y - truth) ** 2).sum() / (truth**2).sum()) <= bound


class TestTheCheckerItself:
    """The checks must refuse what a broken microkernel would produce."""

    problem = Problem(2, 1, 4, 6, (5, 7), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))

    def test_accepts_the_truth(self) -> None:
        truth = expected(self.problem, *arguments(self.problem))
        check_exact(truth.astype(np.float32), truth)
        check_close((truth * (1 + 1e-6)).astype(np.float32), truth)

    @pytest.mark.parametrize("fault", ["element", "nan", "shift", "swap", "shape"])
    def test_refuses_a_fault(self, fault: str) -> None:
        truth = expected(self.problem, *arguments(self.problem))
        broken = truth.astype(np.float32)
        if fault == "element":
            broken[1, 2, 3, 4] += 1
        elif fault == "nan":
            broken[0, 0, 0, 0] = np.nan
        elif fault == "shift":
            broken = np.roll(broken, 1, axis=3)
        elif fault == "swap":
            broken = broken[:, ::-1]
        else:
            broken = broken[:, :, :-1]
        for check in (check_exact, check_close):
            with pytest.raises(AssertionError):
                check(broken, truth)
