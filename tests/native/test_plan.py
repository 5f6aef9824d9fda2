"""Steps of a plan against the slow reference, over strided views, with NaN around the memory that they may touch."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable

import numpy as np
import pytest

from convoxel import ConfigError, ShapeError, UnsupportedError, native, reference
from convoxel.native import Convolution, Plan, View
from tools.conformance import INSTRUCTION_SETS

rng = np.random.default_rng(7)


def channels_last(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def channels_first(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, -1, 1)


class Poisoned:
    """A buffer of NaN that holds one input and one output, each a strided slice of something wider."""

    def __init__(self, src: tuple[int, ...], dst: tuple[int, ...]) -> None:
        self.views = []
        offset = 16
        for shape in (src, dst):
            n, d, h, w, c = shape
            wide = View.dense(1, offset, (n, d, h, w + 1, c + 5))  # gaps after each row and each line
            view = wide.channels(3, 3 + c)._replace(shape=shape)
            self.views.append(view)
            offset += n * d * h * (w + 1) * (c + 5) + 16
        self.buffer = np.full(offset, np.nan, np.float32)

    def array(self, index: int) -> np.ndarray:
        view = self.views[index]
        return np.lib.stride_tricks.as_strided(
            self.buffer[view.offset :], view.shape, [4 * s for s in (*view.strides, 1)]
        )

    def run(self, add: Callable[[Plan, View, View], None], x: np.ndarray, isa: str, threads: int = 2) -> np.ndarray:
        """Run one step on x (n, c, d, h, w); check that it wrote all of its output and nothing else."""
        self.array(0)[...] = channels_last(x)
        before = self.buffer.copy()
        plan = Plan(0, 1, threads, isa=isa)
        add(plan, *self.views)
        plan.run([self.buffer])
        result = self.array(1).copy()
        self.array(1)[...] = np.nan
        assert np.array_equal(before, self.buffer, equal_nan=True), "the step wrote outside of its output"
        return channels_first(result)


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
class TestSteps:
    def test_max_pool(self, isa: str) -> None:
        x = rng.standard_normal((2, 21, 5, 6, 7)).astype(np.float32)
        x[1, 3, 2, 2, 2] = np.nan
        for kernel, stride, dilation, low in (
            ((2, 2, 2), (2, 2, 2), (1, 1, 1), (0, 0, 0)),
            ((3, 2, 3), (1, 2, 2), (1, 2, 1), (1, 0, 1)),
            ((3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1)),  # overlapping windows are pooled axis by axis
            ((2, 3, 4), (1, 1, 1), (1, 1, 2), (0, 1, 3)),
            ((1, 5, 9), (2, 3, 5), (1, 1, 1), (0, 2, 4)),
        ):
            truth = reference.max_pool(x, kernel, stride, [(p, p) for p in low], dilation)
            memory = Poisoned((2, 5, 6, 7, 21), (2, *truth.shape[2:], 21))
            y = memory.run(lambda p, s, d: p.max_pool(s, d, kernel, stride, dilation, low), x, isa)  # noqa: B023
            assert np.array_equal(y, truth.astype(np.float32), equal_nan=True)

    def test_max_pool_of_a_long_line(self, isa: str) -> None:
        # Longer than a part of a line, so that parts begin and end inside of windows.
        x = rng.standard_normal((1, 3, 1, 1, 9001)).astype(np.float32)
        truth = reference.max_pool(x, (1, 1, 4), (1, 1, 3), ((0, 0), (0, 0), (1, 1)), (1, 1, 2))
        memory = Poisoned((1, 1, 1, 9001, 3), (1, *truth.shape[2:], 3))
        y = memory.run(lambda p, s, d: p.max_pool(s, d, (1, 1, 4), (1, 1, 3), (1, 1, 2), (0, 0, 1)), x, isa)
        assert np.array_equal(y, truth)

    @pytest.mark.parametrize("channels", [1, 3, 21])
    def test_resample_enlarges(self, isa: str, channels: int) -> None:
        x = rng.integers(-8, 9, (2, channels, 3, 4, 1500)).astype(np.float32)
        nearest = [(np.arange(2 * n, dtype=np.int32)[:, None] // 2, np.ones((2 * n, 1), np.float32)) for n in (3, 4)]
        o = np.arange(3000)
        low = np.maximum(0, (o - 1) // 2).astype(np.int32)
        part = np.where(o == 0, 0, np.where(o % 2 == 1, 0.25, 0.75)).astype(np.float32)  # of the neighbour
        linear = (np.stack([low, np.minimum(low + 1, 1499)], 1), np.stack([1 - part, part], 1))
        wide = (1 - part) * x[..., linear[0][:, 0]] + part * x[..., linear[0][:, 1]]
        truth = wide.repeat(2, 2).repeat(2, 3)
        memory = Poisoned((2, 3, 4, 1500, channels), (2, 6, 8, 3000, channels))
        assert np.array_equal(memory.run(lambda p, s, d: p.resample(s, d, [*nearest, linear]), x, isa), truth)

    def test_resample_as_average_pooling(self, isa: str) -> None:
        x = rng.integers(-8, 9, (2, 19, 4, 6, 8)).astype(np.float32)
        truth = reference.average_pool(x, (2, 2, 2), (2, 2, 2), ((0, 0),) * 3)
        axes = [
            (np.arange(size, dtype=np.int32).reshape(-1, 2), np.full((size // 2, 2), 0.5, np.float32))
            for size in x.shape[2:]
        ]
        memory = Poisoned((2, 4, 6, 8, 19), (2, 2, 3, 4, 19))
        assert np.array_equal(memory.run(lambda p, s, d: p.resample(s, d, axes), x, isa), truth)

    def test_resample_as_global_average_of_a_volume(self, isa: str) -> None:
        x = rng.standard_normal((1, 70, 20, 20, 20)).astype(np.float32)
        axes = [(np.arange(20, dtype=np.int32)[None], np.full((1, 20), 1 / 20, np.float32))] * 3
        memory = Poisoned((1, 20, 20, 20, 70), (1, 1, 1, 1, 70))
        y = memory.run(lambda p, s, d: p.resample(s, d, axes), x, isa)
        assert np.abs(y[0, :, 0, 0, 0] - x.mean(axis=(2, 3, 4), dtype=np.float64)[0]).max() < 1e-7

    def test_resample_leaves_out_index_below_zero(self, isa: str) -> None:
        x = np.arange(1, 4, dtype=np.float32).reshape(1, 1, 1, 1, 3)
        one = (np.zeros((1, 1), np.int32), np.ones((1, 1), np.float32))
        w = (np.array([[0, 1], [2, -1], [-1, -1]], np.int32), np.ones((3, 2), np.float32))
        memory = Poisoned((1, 1, 1, 3, 1), (1, 1, 1, 3, 1))
        assert memory.run(lambda p, s, d: p.resample(s, d, [one, one, w]), x, isa).ravel().tolist() == [3, 3, 0]

    @pytest.mark.parametrize("groups", [1, 3, 9])
    def test_normalise(self, isa: str, groups: int) -> None:
        # With a mean far from 0 the textbook formula E[x²] − E[x]² loses all digits.
        x = (1000 + rng.standard_normal((2, 9, 5, 6, 7))).astype(np.float32)
        weight, bias = rng.standard_normal((2, 9)).astype(np.float32)
        folded = x.reshape(2, groups, -1, *x.shape[3:])
        truth = reference.instance_norm(folded, np.ones(groups), np.zeros(groups), 1e-5).reshape(x.shape)
        truth = truth * weight.reshape(1, -1, 1, 1, 1) + bias.reshape(1, -1, 1, 1, 1)
        memory = Poisoned((2, 5, 6, 7, 9), (2, 5, 6, 7, 9))
        y = memory.run(lambda p, s, d: p.normalise(s, d, groups, weight, bias, 1e-5), x, isa)
        # float32 holds x to 1000 · eps, and the affine form scale · x + shift rounds twice more.
        assert np.abs(y - truth).max() < 3 * 1000 * np.finfo(np.float32).eps * np.abs(weight).max()

    @pytest.mark.parametrize("channels", [1, 7, 8, 40, 403])
    def test_normalise_rows(self, isa: str, channels: int) -> None:
        """Samples of one pixel (layer normalisation over channels), enough of them for many chunks."""
        x = (1000 + rng.standard_normal((300, channels, 1, 1, 1))).astype(np.float32)
        weight, bias = rng.standard_normal((2, channels)).astype(np.float32)
        rows = x.reshape(300, channels).astype(np.float64)
        spread = np.sqrt(rows.var(axis=1, keepdims=True) + 1e-5)
        truth = (rows - rows.mean(axis=1, keepdims=True)) / spread * weight + bias
        memory = Poisoned((300, 1, 1, 1, channels), (300, 1, 1, 1, channels))
        y = memory.run(lambda p, s, d: p.normalise(s, d, 1, weight, bias, 1e-5, activation="relu"), x, isa)
        bound = 3 * 1000 * np.finfo(np.float32).eps * np.abs(weight).max() / spread.min()
        assert np.abs(y.reshape(300, channels) - np.maximum(truth, 0)).max() < bound

    @pytest.mark.parametrize("shape", [(2, 3, 4, 5, 19), (1, 3, 4, 5, 19), (2, 1, 1, 1, 19), (2, 3, 4, 5, 1), (1,) * 5])
    def test_combine_broadcasts(self, isa: str, shape: tuple[int, ...]) -> None:
        full = (2, 3, 4, 5, 19)
        wide = rng.integers(-9, 9, full).astype(np.float32)
        narrow = rng.integers(1, 9, shape).astype(np.float32)
        for op in ("add", "subtract", "multiply", "divide", "maximum", "minimum"):
            for a, b in ((wide, narrow), (narrow, np.where(wide == 0, 1, wide).astype(np.float32))):
                plan = Plan(0, 3, isa=isa)
                plan.combine(op, View.dense(1, 0, a.shape), View.dense(2, 0, b.shape), View.dense(3, 0, full), "relu")
                y = np.full(full, np.nan, np.float32)
                plan.run([a, b, y])
                assert np.array_equal(y, np.maximum(getattr(np, op)(a, b), 0)), op

    def test_maximum_and_minimum_spread_nan(self, isa: str) -> None:
        a = np.array([np.nan, 1, np.nan, 2], np.float32)
        b = np.array([1, np.nan, np.nan, 3], np.float32)
        view = View.dense(1, 0, (1, 1, 1, 4, 1))
        for op in ("maximum", "minimum"):
            plan = Plan(0, 3, isa=isa)
            plan.combine(op, view, view._replace(buffer=2), view._replace(buffer=3))
            y = np.zeros(4, np.float32)
            plan.run([a, b, y])
            assert np.array_equal(y, getattr(np, op)(a, b), equal_nan=True)

    @pytest.mark.parametrize("kept", [(), (0,), (1,), (2,), (0, 2), (0, 1, 2), (3,), (0, 3), (0, 1, 2, 3)])
    @pytest.mark.parametrize("op", ["mean", "max", "sum"])
    def test_reduce(self, isa: str, op: str, kept: tuple[int, ...]) -> None:
        # Whole numbers: sums are exact. kept: of the axes d, h, w, c.
        x = rng.integers(-9, 9, (2, 37, 4, 8, 16)).astype(np.float32)
        gone = tuple(axis for axis in range(1, 5) if axis - 1 not in kept)
        truth = getattr(np, op)(channels_last(x).astype(np.float64), axis=gone, keepdims=True)
        memory = Poisoned((2, 4, 8, 16, 37), truth.shape)
        y = channels_last(memory.run(lambda p, s, d: p.reduce(op, s, d), x, isa))
        assert np.abs(y - truth).max() <= (2e-7 * np.abs(truth).max() if op == "mean" else 0)

    @pytest.mark.parametrize("shape", [(1, 1, 7, 7, 300), (1, 2, 30, 50, 5), (1, 1, 1, 20000, 2)])
    def test_reduce_adds_in_the_same_order_for_any_number_of_threads(self, isa: str, shape: tuple[int, ...]) -> None:
        x = channels_first(rng.standard_normal(shape).astype(np.float32) + 3)
        truth = x.mean(axis=(2, 3, 4), dtype=np.float64)
        results = [
            Poisoned(shape, (1, 1, 1, 1, shape[4])).run(lambda p, s, d: p.reduce("mean", s, d), x, isa, threads)
            for threads in (1, 2, 3)
        ]
        assert np.abs(results[0][:, :, 0, 0, 0] - truth).max() < 4e-7
        assert all(np.array_equal(results[0], y) for y in results)

    def test_reduce_max_spreads_nan_and_keeps_minus_infinity(self, isa: str) -> None:
        x = np.full((1, 2, 3, 4, 70), -np.inf, np.float32)
        x[0, 1, 2, 3, 5] = np.nan
        y = Poisoned((1, 3, 4, 70, 2), (1, 1, 1, 1, 2)).run(lambda p, s, d: p.reduce("max", s, d), x, isa)
        assert y[0, 0] == -np.inf
        assert np.isnan(y[0, 1])

    @pytest.mark.parametrize("channels", [1, 4, 21, 64, 300])
    def test_softmax(self, isa: str, channels: int) -> None:
        x = (20 * rng.standard_normal((2, channels, 2, 3, 7))).astype(np.float32)
        less = x.astype(np.float64) - x.max(axis=1, keepdims=True)
        truth = less - np.log(np.exp(less).sum(axis=1, keepdims=True))
        shape = (2, 2, 3, 7, channels)
        y = Poisoned(shape, shape).run(lambda p, s, d: p.softmax(s, d), x, isa)
        assert np.abs(y - np.exp(truth)).max() < 3e-7
        y = Poisoned(shape, shape).run(lambda p, s, d: p.softmax(s, d, log=True), x, isa)
        assert (np.abs(y - truth) <= 3e-7 * np.maximum(1, np.abs(truth))).all()

    def test_softmax_beyond_the_range(self, isa: str) -> None:
        for channels in (3, 300):
            x = np.zeros((1, channels, 1, 1, 3), np.float32)
            x[0, :2, 0, 0] = [[1e30, -np.inf, np.nan], [1, 0, 0]]
            shape = (1, 1, 1, 3, channels)
            y = Poisoned(shape, shape).run(lambda p, s, d: p.softmax(s, d), x, isa)[0, :, 0, 0]
            assert y[:2, 0].tolist() == [1, 0]
            assert y[0, 1] == 0
            assert np.allclose(y[1:, 1], 1 / (channels - 1))
            assert np.isnan(y[:, 2]).all()

    def test_permute_channels(self, isa: str) -> None:
        x = rng.standard_normal((2, 12, 2, 3, 5)).astype(np.float32)
        index = [*np.arange(12).reshape(3, 4).T.ravel(), 0]  # a channel shuffle, and one channel again
        memory = Poisoned((2, 2, 3, 5, 12), (2, 2, 3, 5, 13))
        assert np.array_equal(memory.run(lambda p, s, d: p.permute_channels(s, d, index), x, isa), x[:, index])

    @pytest.mark.parametrize("size", [1, 2, 5, 40])
    def test_local_response_norm(self, isa: str, size: int) -> None:
        x = (9 * rng.standard_normal((2, 19, 2, 3, 5))).astype(np.float32)
        wide = np.pad(x.astype(np.float64) ** 2, ((0, 0), (size // 2, size - 1 - size // 2), (0, 0), (0, 0), (0, 0)))
        mean = sum(wide[:, i : i + 19] for i in range(size)) / size
        truth = x / (1.5 + 0.1 * mean) ** 0.75
        shape = (2, 2, 3, 5, 19)
        y = Poisoned(shape, shape).run(lambda p, s, d: p.local_response_norm(s, d, size, 0.1, 0.75, 1.5), x, isa)
        assert (np.abs(y - truth) <= 1e-6 * np.abs(truth)).all()

    def test_prelu(self, isa: str) -> None:
        x = rng.integers(-9, 9, (2, 37, 2, 3, 5)).astype(np.float32)
        slope = rng.standard_normal(37).astype(np.float32)
        shape = (2, 2, 3, 5, 37)
        y = Poisoned(shape, shape).run(lambda p, s, d: p.prelu(s, d, slope), x, isa)
        assert np.array_equal(y, np.where(x < 0, x * slope[:, None, None, None], x))

    def test_the_number_of_threads_changes_no_bit(self, isa: str) -> None:
        shape = (2, 3, 20, 30, 37)
        x = channels_first(rng.standard_normal(shape).astype(np.float32))
        one = np.ones(37, np.float32)
        thirds = [
            ((np.arange(n)[:, None] + [-1, 0]).astype(np.int32), np.full((n, 2), 1 / 3, np.float32)) for n in shape[1:4]
        ]
        steps: list[Callable[[Plan, View, View], None]] = [
            lambda p, s, d: p.max_pool(s, d, (3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
            lambda p, s, d: p.resample(s, d, thirds),
            lambda p, s, d: p.combine("divide", s, s, d, "silu"),
            lambda p, s, d: p.affine(s, d, one, one, "mish"),
            lambda p, s, d: p.normalise(s, d, 1, one, one, 1e-5, "gelu"),
            lambda p, s, d: p.softmax(s, d),
            lambda p, s, d: p.local_response_norm(s, d, 5),
        ]
        for add in steps:
            first, second, third = (Poisoned(shape, shape).run(add, x, isa, threads) for threads in (1, 2, 3))
            assert np.array_equal(first, second)
            assert np.array_equal(first, third)

    def test_import_and_export_are_inverse(self, isa: str) -> None:
        x = rng.standard_normal((2, 37, 3, 5, 41)).astype(np.float32)
        y = np.full_like(x, np.nan)
        view = View.dense(0, 0, (2, 3, 5, 41, 64)).channels(5, 42)
        plan = Plan(2 * 3 * 5 * 41 * 64, 2, isa=isa)
        plan.import_channels_first(1, view)
        plan.export_channels_first(view, 2)
        plan.run([x, y])
        assert np.array_equal(x, y)

    @pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 8, 16, 33])
    def test_import_and_export_of_dense_views(self, isa: str, channels: int) -> None:
        x = rng.standard_normal((2, channels, 3, 7, 5)).astype(np.float32)
        middle, y = np.full((2, 3, 7, 5, channels), np.nan, np.float32), np.full_like(x, np.nan)
        plan = Plan(0, 3, isa=isa)
        plan.import_channels_first(1, View.dense(2, 0, middle.shape))
        plan.export_channels_first(View.dense(2, 0, middle.shape), 3)
        plan.run([x, middle, y])
        assert np.array_equal(middle, channels_last(x))
        assert np.array_equal(y, x)

    @pytest.mark.parametrize("algorithm", ["indirect", "planar", "winograd(2)", "winograd(4)"])
    def test_convolution_adds_residual_then_applies_activation(self, isa: str, algorithm: str) -> None:
        outputs = 7 if algorithm == "planar" else 33
        x = rng.integers(-3, 4, (1, 20, 4, 5, 6)).astype(np.float32)
        w = rng.integers(-3, 4, (outputs, 20, 3, 3, 3)).astype(np.float32)
        bias = rng.integers(-3, 4, outputs).astype(np.float32)
        residual = rng.integers(-99, 100, (1, outputs, 4, 5, 6)).astype(np.float32)
        truth = reference.conv(x, w, bias, (1,) * 3, ((1, 1),) * 3, (1,) * 3) + residual
        layer = Convolution(w, bias, padding_low=(1, 1, 1))
        for activation, function in (
            ("relu", lambda v: np.maximum(v, 0)),
            ("relu6", lambda v: np.clip(v, 0, 6)),
            ("leaky_relu", lambda v: np.where(v < 0, 0.25 * v, v)),
        ):
            plan = Plan(0, 3, isa=isa)
            src, dst = View.dense(1, 0, (1, 4, 5, 6, 20)), View.dense(2, 0, (1, 4, 5, 6, outputs))
            plan.convolve(layer, src, dst, dst._replace(buffer=3), activation, 0.25, algorithm)
            y = np.full((1, 4, 5, 6, outputs), np.nan, np.float32)
            plan.run([channels_last(x), y, channels_last(residual)])
            error = np.abs(channels_first(y) - function(truth)).max()
            exact = algorithm in ("indirect", "planar")
            assert error <= (0 if exact else 1e-2), (activation, error)  # of values up to 3000

    @pytest.mark.parametrize("algorithm", ["indirect", "planar", "winograd(2)", "winograd(4)"])
    def test_algorithms_write_their_output_and_nothing_else(self, isa: str, algorithm: str) -> None:
        x = rng.standard_normal((2, 18, 5, 7, 6)).astype(np.float32)
        w = rng.standard_normal((5 if algorithm == "planar" else 21, 18, 3, 1, 3)).astype(np.float32)
        pads = ((1, 0), (0, 0), (2, 1))
        truth = reference.conv(x, w, None, (1,) * 3, pads, (1,) * 3)
        layer = Convolution(w, padding_low=(1, 0, 2))
        memory = Poisoned((2, 5, 7, 6, 18), (2, *truth.shape[2:], len(w)))
        y = memory.run(lambda p, s, d: p.convolve(layer, s, d, algorithm=algorithm), x, isa)
        assert np.abs(y - truth).max() < 1e-3

    def test_convolution_between_strided_views(self, isa: str) -> None:
        x = rng.integers(-3, 4, (2, 18, 3, 4, 5)).astype(np.float32)
        w = rng.integers(-3, 4, (18, 21, 2, 2, 2)).astype(np.float32)
        truth = reference.conv_transpose(x, w, None, (2,) * 3, ((0, 0),) * 3, (0,) * 3, (1,) * 3)
        layer = Convolution(w, stride=(2, 2, 2), transposed=True)
        memory = Poisoned((2, 3, 4, 5, 18), (2, 6, 8, 10, 21))
        assert np.array_equal(memory.run(lambda p, s, d: p.convolve(layer, s, d), x, isa), truth)

    @pytest.mark.parametrize("activation", native.ACTIVATIONS)
    def test_activation(self, isa: str, activation: str) -> None:
        slope = (-0.7, 1.5) if activation == "clip" else 0.3
        erf = np.vectorize(math.erf)
        with np.errstate(over="ignore"):
            functions: dict[str, Callable[[np.ndarray], np.ndarray]] = {
                "none": lambda v: v,
                "relu": lambda v: np.maximum(v, 0),
                "leaky_relu": lambda v: np.where(v < 0, slope * v, v),
                "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
                "relu6": lambda v: np.clip(v, 0, 6),
                "silu": lambda v: v / (1 + np.exp(-v)),
                "hard_swish": lambda v: v * np.clip(v + 3, 0, 6) / 6,
                "tanh": np.tanh,
                "elu": lambda v: np.where(v < 0, slope * np.expm1(v), v),
                "gelu": lambda v: v * 0.5 * (1 + erf(v / math.sqrt(2))),
                "hard_sigmoid": lambda v: np.clip(v + 3, 0, 6) / 6,
                "mish": lambda v: v * np.tanh(np.logaddexp(0, v)),
                "softplus": lambda v: np.logaddexp(0, v),
                "selu": lambda v: 1.0507009873554805 * np.where(v < 0, 1.6732632423543772 * np.expm1(v), v),
                "gelu_tanh": lambda v: 0.5 * v * (1 + np.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))),
                "celu": lambda v: np.where(v < 0, slope * np.expm1(v / slope), v),
                "clip": lambda v: np.clip(v, -0.7, 1.5),
            }
            x = np.concatenate([np.linspace(-100, 100, 4001), np.linspace(-1, 1, 2001), [-1e-30, 0.0, 1e-30]])
            x = x.astype(np.float32)
            truth = functions[activation](x.astype(np.float64))
        plan = Plan(0, 2, isa=isa)
        view = View.dense(1, 0, (1, 1, 1, x.size, 1))
        one = np.ones(1, np.float32)
        plan.affine(view, view._replace(buffer=2), one, 0 * one, activation, slope)
        y = np.full_like(x, np.nan)
        plan.run([x, y])
        bound = 4e-7 * np.abs(truth) + (5e-7 if activation in ("gelu", "elu", "selu") else 1e-7)
        assert np.isfinite(y).all()
        assert (np.abs(y - truth) <= bound).all(), float(np.abs(y - truth).max())
        edge = np.array([np.nan, np.inf], np.float32)
        plan = Plan(0, 2, isa=isa)
        view = View.dense(1, 0, (1, 1, 1, 2, 1))
        plan.affine(view, view._replace(buffer=2), one, 0 * one, activation, slope)
        y = np.zeros_like(edge)
        plan.run([edge, y])
        assert np.isnan(y[0])
        assert y[1] == {"sigmoid": 1, "tanh": 1, "relu6": 6, "hard_sigmoid": 1, "clip": 1.5}.get(activation, np.inf)


class TestMistakes:
    def plan(self) -> tuple[Plan, View, View, Convolution]:
        src, dst = View.dense(0, 0, (1, 1, 4, 4, 3)), View.dense(0, 48, (1, 1, 4, 4, 5))
        return Plan(128, 0), src, dst, Convolution(np.ones((5, 3, 1, 1, 1), np.float32))

    def test_view_beyond_the_arena(self) -> None:
        plan, src, dst, layer = self.plan()
        with pytest.raises(ShapeError, match=r"convolve: dst .*720.*512"):
            plan.convolve(layer, src, dst._replace(offset=100))

    def test_wrong_channels(self) -> None:
        plan, src, dst, layer = self.plan()
        with pytest.raises(ShapeError, match=r"convolve: .*3 to 5 channels"):
            plan.convolve(layer, dst, src)

    def test_unknown_and_unsupported_algorithm(self) -> None:
        plan, src, dst, layer = self.plan()
        with pytest.raises(ConfigError, match=r"convolve: .*'magic'.*auto, direct"):
            plan.convolve(layer, src, dst, algorithm="magic")
        with pytest.raises(UnsupportedError, match=r"convolve: .*'phases'.*transposed"):
            plan.convolve(layer, src, dst, algorithm="phases")

    def test_buffers_that_do_not_fit(self) -> None:
        plan = Plan(64, 2)
        plan.import_channels_first(1, View.dense(0, 0, (1, 1, 1, 4, 3)))
        plan.export_channels_first(View.dense(0, 0, (1, 1, 1, 4, 3)), 2)
        good = np.zeros(12, np.float32)
        with pytest.raises(ShapeError, match=r"run: .*2 buffers.*1"):
            plan.run([good])
        with pytest.raises(ShapeError, match=r"run: buffer 2 .*44.*48"):
            plan.run([good, good[:11].copy()])
        with pytest.raises(ShapeError, match=r"run: buffers\[0\].*float64"):
            plan.run([good.astype(np.float64), good])
        with pytest.raises(ShapeError, match=r"run: buffers\[0\].*C-contiguous"):
            plan.run([np.zeros(24, np.float32)[::2], good])
        frozen = good.copy()
        frozen.flags.writeable = False
        plan.run([frozen, good])
        with pytest.raises(ShapeError, match=r"run: buffers\[1\].*read-only"):
            plan.run([good, frozen])

    def test_operations_that_do_not_exist(self) -> None:
        plan, src, _, _ = self.plan()
        with pytest.raises(ConfigError, match=r"combine: .*'modulo'"):
            plan.combine("modulo", src, src, src)
        with pytest.raises(ConfigError, match=r"reduce: .*'median'"):
            plan.reduce("median", src, src)

    def test_reductions_that_do_not_fit(self) -> None:
        plan, src, _, _ = self.plan()
        with pytest.raises(ShapeError, match=r"reduce: dst \(1, 1, 2, 1, 3\).*\(1, 1, 4, 4, 3\)"):
            plan.reduce("mean", src, View.dense(0, 48, (1, 1, 2, 1, 3)))
        with pytest.raises(ShapeError, match=r"reduce: .*src.*dst.*batch"):
            plan.reduce("mean", src._replace(shape=(2, 1, 4, 2, 3)), View.dense(0, 48, (1, 1, 1, 1, 3)))
        with pytest.raises(ShapeError, match=r"reduce: src \(1, 1, 4, 0, 3\)"):
            plan.reduce("mean", src._replace(shape=(1, 1, 4, 0, 3)), View.dense(0, 48, (1, 1, 1, 1, 3)))

    def test_channel_steps_that_do_not_fit(self) -> None:
        plan, src, dst, _ = self.plan()
        with pytest.raises(ShapeError, match=r"softmax: src and dst"):
            plan.softmax(src, dst)
        with pytest.raises(ShapeError, match=r"permute_channels: src.*channel 3"):
            plan.permute_channels(src, src, [0, 1, 3])
        with pytest.raises(ShapeError, match=r"permute_channels: index.*dst"):
            plan.permute_channels(src, src, [0, 1])
        with pytest.raises(ShapeError, match=r"permute_channels: src \(1, 1, 4, 4, 3\) and dst \(1, 1, 4, 3, 5\)"):
            plan.permute_channels(src, dst._replace(shape=(1, 1, 4, 3, 5)), [0, 1, 2, 0, 1])
        with pytest.raises(ShapeError, match=r"local_response_norm: size"):
            plan.local_response_norm(src, src, 0)
        with pytest.raises(ShapeError, match=r"local_response_norm: .*bias"):
            plan.local_response_norm(src, src, 3, bias=0.0)
        with pytest.raises(ShapeError, match=r"prelu: slope"):
            plan.prelu(src, src, np.ones(2, np.float32))


def test_steps_and_profile_tell_what_ran() -> None:
    plan = Plan(64, 0)
    src = View.dense(0, 0, (1, 1, 1, 4, 3))
    plan.convolve(Convolution(np.ones((5, 3, 1, 1, 1), np.float32)), src, View.dense(0, 16, (1, 1, 1, 4, 5)), name="a")
    (row,) = plan.profile([])
    assert (row["name"], row["operator"], row["macs"]) == ("a", "conv", 60)
    assert row["algorithm"] in {r["name"] for r in native.algorithms()}
    assert row["time_s"] > 0


def _program() -> tuple[Plan, np.ndarray, np.ndarray]:
    w = rng.standard_normal((32, 32, 1, 3, 3)).astype(np.float32)
    layer = Convolution(w, padding_low=(0, 1, 1))
    plan = Plan(0, 2, 2)
    view = View.dense(1, 0, (1, 1, 24, 24, 32))
    plan.convolve(layer, view, view._replace(buffer=2))
    x = rng.standard_normal((1, 1, 24, 24, 32)).astype(np.float32)
    y = np.empty_like(x)
    plan.run([x, y])
    return plan, x, y


def test_many_python_threads_share_one_plan() -> None:
    plan, x, y = _program()
    wrong: list[int] = []

    def work(seed: int) -> None:
        for _ in range(50):
            mine = np.full_like(y, np.nan)
            plan.run([x, mine])
            if not np.array_equal(mine, y):
                wrong.append(seed)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_can_run_too() -> None:
    plan, x, y = _program()
    child = os.fork()
    if child == 0:
        mine = np.full_like(y, np.nan)
        plan.run([x, mine])
        os._exit(0 if np.array_equal(mine, y) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    again = np.empty_like(y)
    plan.run([x, again])
    assert np.array_equal(again, y)


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize(
    ("channels", "out_channels", "size"), [(5, 7, (1, 3, 3)), (70, 130, (2, 7, 9)), (96, 24, (1, 14, 14))]
)
def test_a_gate_multiplies_the_input(isa: str, channels: int, out_channels: int, size: tuple[int, int, int]) -> None:
    """Whole numbers, so that the order of multiplications shows nothing; each image has its own gate."""
    rng = np.random.default_rng(1)
    x = rng.integers(-4, 5, (3, *size, channels)).astype(np.float32)
    gate = rng.integers(-2, 3, (3, 1, 1, 1, channels)).astype(np.float32)
    residual = rng.integers(-4, 5, (3, *size, out_channels)).astype(np.float32)
    w = rng.integers(-3, 4, (out_channels, channels, 1, 1, 1)).astype(np.float32)
    bias = rng.integers(-3, 4, out_channels).astype(np.float32)
    expected = np.maximum((x * gate) @ w[:, :, 0, 0, 0].T + bias + residual, 0)
    views = [View.dense(i, 0, array.shape) for i, array in enumerate((x, gate, residual, residual), start=1)]
    for algorithm in ("auto", "pointwise", "indirect"):
        for threads in (1, 2, 3):
            y = np.full_like(residual, np.nan)
            plan = Plan(0, 4, threads, isa=isa)
            plan.convolve(
                Convolution(w, bias), views[0], views[3], views[2], "relu", algorithm=algorithm, gate=views[1]
            )
            plan.run([x, gate, residual, y])
            assert np.array_equal(y, expected)


def test_what_takes_no_gate_says_so() -> None:
    layer = Convolution(np.ones((4, 4, 1, 3, 3), np.float32), padding_low=(0, 1, 1))
    src, dst = View.dense(1, 0, (2, 1, 5, 5, 4)), View.dense(2, 0, (2, 1, 5, 5, 4))
    plan = Plan(0, 3)
    with pytest.raises(UnsupportedError, match=r"convolve: .*'winograd\(2\)'.*gate"):
        plan.convolve(layer, src, dst, algorithm="winograd(2)", gate=View.dense(3, 0, (2, 1, 1, 1, 4)))
    with pytest.raises(ShapeError, match=r"convolve: gate .*src"):
        plan.convolve(layer, src, dst, gate=View.dense(3, 0, (1, 1, 1, 1, 4)))
