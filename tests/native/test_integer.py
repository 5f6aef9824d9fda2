"""Products of whole numbers of 8 bits: sums are exact on every unit, and what follows them is right to a rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convoxel import ConfigError, ShapeError, native, reference
from convoxel.native import View, _core
from convoxel.native.integer import QuantisedConvolution, integer_units, pack_levels, unpack_levels, word_count
from tools.conformance import INSTRUCTION_SETS

UNITS = [(isa, row["name"]) for isa in INSTRUCTION_SETS for row in integer_units(isa)]


class Layer:
    """A drawn layer of levels, and what the slow reference says of it."""

    def __init__(self, seed: int, largest: int = 127, extreme: bool = False, depthwise: bool = False) -> None:
        rng = np.random.default_rng(seed)
        self.groups = int(rng.choice([1, 1, 2, 3, 8]))
        inner = int(rng.integers(1, 21))
        if depthwise:  # fewer channels than a vector holds, or more than a panel
            self.groups, inner = int(rng.choice([2, 13, 16, 70])), 1
        outer = 1 if depthwise else int(rng.integers(1, 6)) if self.groups > 1 else int(rng.integers(1, 140))
        self.kernel, self.stride, self.dilation = (tuple(map(int, rng.integers(1, top, 3))) for top in (4, 3, 3))
        self.pads = [(int(a), int(b)) for a, b in rng.integers(0, 3, (3, 2))]
        self.zero = int(rng.integers(0, 256))
        size = tuple(map(int, rng.integers(5, 9, 3)))
        self.x = rng.integers(0, 256, (2, self.groups * inner, *size)).astype(np.uint8)
        self.weight = rng.integers(-largest, largest + 1, (self.groups * outer, inner, *self.kernel))
        if extreme:  # where pairs of products leave 16 bits
            self.x[:], self.weight[:] = 255, -largest
        self.scale = rng.uniform(0.001, 0.002, self.groups * outer).astype(np.float32)
        self.bias = rng.standard_normal(self.groups * outer).astype(np.float32)
        shifted = self.x.astype(np.float64) - self.zero
        window = {"stride": self.stride, "pads": self.pads, "dilation": self.dilation, "groups": self.groups}
        self.sums = np.moveaxis(reference.conv(shifted, self.weight, **window), 1, -1)

    def run(self, isa: str, unit: str, threads: int = 2, *, sums: bool = False, **how: Any) -> np.ndarray:
        layer = QuantisedConvolution(
            self.weight,
            None if sums else self.scale,
            None if sums else self.bias,
            zero=self.zero,
            stride=self.stride,
            padding_low=tuple(low for low, _ in self.pads),
            dilation=self.dilation,
            groups=self.groups,
        )
        words = pack_levels(np.moveaxis(self.x, 1, -1))
        shape = self.sums.shape
        if "result" in how:
            shape = (*shape[:-1], word_count(shape[-1]))
        out = np.full(shape, np.nan, np.float32)
        residual = how.pop("residual", None)
        views = [View.dense(i, 0, array.shape) for i, array in enumerate((words, out), start=1)]
        plan = native.Plan(0, 3, threads, isa=isa)
        beside = None if residual is None else View.dense(3, 0, residual.shape)
        plan.convolve_quantised(layer, *views, residual=beside, unit=unit, **how)
        plan.run([words, out, np.zeros(1, np.float32) if residual is None else residual])
        return out


@pytest.mark.parametrize(("isa", "unit"), UNITS)
def test_sums_are_exact(isa: str, unit: str) -> None:
    for seed, largest in enumerate((127, 128, 255, 127, 255, 127, 127)):
        layer = Layer(seed, largest, extreme=seed in (1, 2))
        np.testing.assert_array_equal(layer.run(isa, unit, sums=True).view(np.int32), layer.sums.astype(np.int64))


@pytest.mark.parametrize(("isa", "unit"), UNITS)
def test_sums_of_single_channels_are_exact(isa: str, unit: str) -> None:
    for seed, largest in enumerate((255, 255, 127, 128, 127, 127)):
        layer = Layer(seed, largest, extreme=seed == 1, depthwise=True)
        np.testing.assert_array_equal(layer.run(isa, unit, sums=True).view(np.int32), layer.sums.astype(np.int64))
    rng = np.random.default_rng(7)
    beside = rng.integers(0, 256, layer.sums.shape).astype(np.uint8)
    real = layer.sums * layer.scale + layer.bias + (beside.astype(np.float64) - 77) * np.float32(0.03)
    out = layer.run(
        isa, unit, residual=pack_levels(beside), residual_levels=(0.03, 77), result=(0.05, 9), activation="relu"
    )
    levels = unpack_levels(out, layer.sums.shape[-1]).astype(np.float64)
    exact = np.clip(np.maximum(real, 0) / np.float32(0.05) + 9, 0, 255)
    assert (np.abs(levels - exact) <= 0.5 + 1e-3).all() and levels.std() > 1


@pytest.mark.parametrize(("isa", "unit"), UNITS)
def test_floats_follow_the_sums(isa: str, unit: str) -> None:
    layer = Layer(10)
    residual = np.random.default_rng(1).standard_normal(layer.sums.shape).astype(np.float32)
    wanted = layer.sums * layer.scale + layer.bias + residual
    # Three roundings of numbers that are no larger than the terms'.
    bound = 3 * 2.0**-24 * (np.abs(layer.sums * layer.scale) + np.abs(layer.bias) + np.abs(residual)) + 1e-30
    assert (np.abs(layer.run(isa, unit, residual=residual) - wanted) <= bound).all()
    sigmoid = 1 / (1 + np.exp(-wanted))
    np.testing.assert_allclose(
        layer.run(isa, unit, residual=residual, activation="sigmoid"), sigmoid, rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize(("isa", "unit"), UNITS)
def test_levels_are_the_nearest(isa: str, unit: str) -> None:
    layer = Layer(11)
    rng = np.random.default_rng(2)
    beside = rng.integers(0, 256, layer.sums.shape).astype(np.uint8)
    as_residual, as_result = (0.03, 77), (0.05, 9)
    real = layer.sums * layer.scale + layer.bias + (beside.astype(np.float64) - 77) * np.float32(0.03)
    for activation, wanted in (("leaky_relu", np.where(real < 0, 0.25 * real, real)), ("tanh", np.tanh(real))):
        out = layer.run(
            isa, unit, residual=pack_levels(beside), residual_levels=as_residual, result=as_result,
            activation=activation, slope=0.25,
        )  # fmt: skip
        exact = np.clip(wanted / np.float32(0.05) + 9, 0, 255)
        levels = unpack_levels(out, layer.sums.shape[-1]).astype(np.float64)
        assert (np.abs(levels - exact) <= 0.5 + 1e-3).all()
        assert levels.std() > 1


def test_the_result_has_the_same_bits_on_any_number_of_threads() -> None:
    layer = Layer(12)
    results = [layer.run(native.instruction_set(), "", threads, activation="silu") for threads in (1, 2, 3, 7)]
    assert all(np.array_equal(results[0], other) for other in results[1:])


def test_transposed_layers() -> None:
    rng = np.random.default_rng(3)
    x = rng.integers(0, 256, (1, 6, 3, 4, 5)).astype(np.uint8)
    weight = rng.integers(-127, 128, (6, 7, 3, 2, 2))
    stride, pads = (2, 2, 3), [(1, 1), (0, 0), (0, 0)]
    places = {"stride": stride, "pads": pads, "output_padding": (0, 0, 0), "dilation": (1, 1, 1)}
    wanted = np.moveaxis(reference.conv_transpose(x - 100.0, weight, **places), 1, -1)
    layer = QuantisedConvolution(weight, zero=100, stride=stride, padding_low=(1, 0, 0), transposed=True)
    words, out = pack_levels(np.moveaxis(x, 1, -1)), np.full(wanted.shape, np.nan, np.float32)
    plan = native.Plan(0, 2, 2)
    plan.convolve_quantised(layer, View.dense(1, 0, words.shape), View.dense(2, 0, out.shape))
    plan.run([words, out])
    np.testing.assert_array_equal(out.view(np.int32), wanted.astype(np.int64))


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_floats_become_levels_and_return(isa: str) -> None:
    x = np.array([-1e30, -3.0, -0.25, 0.0, 0.25, 0.75, 1.25, 3.0, 1e30, np.inf, -np.inf, np.nan, 0.1], np.float32)
    x = np.tile(x, 3)[None, None, None, None]
    words = np.zeros((1, 1, 1, 1, word_count(39)), np.float32)
    back = np.full_like(x, np.nan)
    plan = native.Plan(0, 3, 1, isa=isa)
    views = [View.dense(i, 0, array.shape) for i, array in enumerate((x, words, back), start=1)]
    plan.quantise(views[0], views[1], (0.5, 3))
    plan.dequantise(views[1], views[2], (0.5, 3))
    plan.run([x, words, back])
    levels = [0, 0, 3, 3, 3, 5, 5, 9, 255, 255, 0, 3, 3]  # halves to even: 0.5, 1.5 and 2.5 become 0, 2 and 2
    np.testing.assert_array_equal(unpack_levels(words, 39).reshape(3, 13), [levels] * 3)
    np.testing.assert_array_equal(back.reshape(3, 13), [(np.array(levels, np.float32) - 3) * 0.5] * 3)


def test_the_largest_level_of_windows() -> None:
    x = np.random.default_rng(4).integers(0, 256, (2, 5, 6, 7, 6)).astype(np.uint8)
    wanted = np.moveaxis(
        reference.max_pool(np.moveaxis(x, -1, 1), (2, 3, 2), (2, 1, 2), ((1, 0), (1, 1), (0, 0)), (1, 2, 1)), 1, -1
    )
    words, out = pack_levels(x), np.full((*wanted.shape[:4], 2), np.nan, np.float32)
    plan = native.Plan(0, 2, 2)
    views = [View.dense(i, 0, array.shape) for i, array in enumerate((words, out), start=1)]
    plan.max_pool_levels(*views, (2, 3, 2), (2, 1, 2), (1, 2, 1), (1, 1, 0))
    plan.run([words, out])
    np.testing.assert_array_equal(unpack_levels(out, 6), wanted)


def test_copies_keep_every_bit() -> None:
    words = np.random.default_rng(5).integers(0, 2**32, (2, 3, 4, 5, 6), np.uint64).astype(np.uint32).view(np.float32)
    out = np.zeros_like(words)
    plan = native.Plan(0, 2, 2)
    plan.copy(View.dense(1, 0, words.shape), View.dense(2, 0, words.shape))
    plan.run([words, out])
    np.testing.assert_array_equal(out.view(np.uint32), words.view(np.uint32))


def test_refusals() -> None:
    with pytest.raises(ShapeError, match="zero is 256"):
        QuantisedConvolution(np.zeros((1, 1, 1, 1, 1), np.int16), zero=256)
    with pytest.raises(ShapeError, match="-255 to 255"):
        QuantisedConvolution(np.full((1, 1, 1, 1, 1), 256, np.int16), zero=0)
    with pytest.raises(ShapeError, match="may leave 32 bits"):
        QuantisedConvolution(np.zeros((1, 40000, 1, 1, 1), np.int16), zero=0)
    layer = QuantisedConvolution(np.zeros((3, 5, 1, 1, 1), np.int16), zero=0)
    plan = native.Plan(0, 2)
    with pytest.raises(ShapeError, match="words"):
        plan.convolve_quantised(layer, View.dense(1, 0, (1, 1, 1, 1, 5)), View.dense(2, 0, (1, 1, 1, 1, 3)))
    with pytest.raises(ConfigError, match="no unit 'abacus'"):
        plan.convolve_quantised(
            layer, View.dense(1, 0, (1, 1, 1, 1, 2)), View.dense(2, 0, (1, 1, 1, 1, 3)), unit="abacus"
        )


def test_every_x86_unit_is_listed() -> None:
    names = {row["name"] for isa in INSTRUCTION_SETS for row in _core.integer_units(isa)}
    assert "portable" in names
    assert _core.integer_units("portable")[0]["name"] == "portable"
