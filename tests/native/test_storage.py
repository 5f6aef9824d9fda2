"""Tensors stored as bfloat16: every step gives what it gives on float32, rounded once."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from convoxel.errors import ShapeError
from convoxel.native import Convolution, Plan, View
from convoxel.native.machine import algorithms, instruction_sets

Floats = NDArray[np.float32]
_SPECIAL = np.array([np.nan, np.inf, -np.inf, -0.0, 3.4e38, 1.00390625, 1.01171875], np.float32)


def rounded(x: Floats) -> Floats:
    """Return x with 8 binary digits: nearest, ties to even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    upper = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    upper = np.where(np.isnan(x), bits >> 16 | 0x40, upper)
    return (upper << 16).astype(np.uint32).view(np.float32)


def stored(x: Floats, element: str) -> Floats:
    """Return the buffer that holds x, as floats or as bfloat16 with a guard behind it."""
    if element == "float32":
        return np.ascontiguousarray(x, np.float32)
    upper = (rounded(x).view(np.uint32) >> 16).astype(np.uint16).ravel()
    return np.append(upper, np.full(2 + len(upper) % 2, 0x7FC0, np.uint16)).view(np.float32)


def loaded(buffer: Floats, shape: tuple[int, ...], element: str) -> Floats:
    """Return what a buffer holds; the guard must be whole."""
    if element == "float32":
        return buffer.reshape(shape)
    half = buffer.view(np.uint16)
    size = int(np.prod(shape))
    assert (half[size:] == 0x7FC0).all()
    return (half[:size].astype(np.uint32) << 16).view(np.float32).reshape(shape)


def run(isa: str, add: Any, inputs: list[Floats], shape: tuple[int, ...], elements: tuple[str, ...]) -> Floats:
    """Run one step; ``elements`` are the types of the inputs and of the result."""
    buffers = [stored(x, e) for x, e in zip(inputs, elements, strict=False)]
    buffers.append(stored(np.full(shape, np.nan, np.float32), elements[-1]).copy())
    shapes = [x.shape for x in inputs] + [shape]
    views = [View.dense(i, 0, s, e) for i, (s, e) in enumerate(zip(shapes, elements, strict=True), start=1)]
    plan = Plan(0, len(views), 2, isa=isa, precision="bfloat16")
    add(plan, *views)
    plan.run(buffers)
    return loaded(buffers[-1], shape, elements[-1])


def check(isa: str, add: Any, inputs: list[Floats], shape: tuple[int, ...], mixed: bool = False) -> None:
    """Compare with the same step on float32: the same number rounded once, NaN where NaN is."""
    inputs = [rounded(x) for x in inputs]
    exact = run(isa, add, inputs, shape, ("float32",) * (len(inputs) + 1))
    kinds = itertools.product(("float32", "bfloat16"), repeat=len(inputs) + 1) if mixed else []
    for elements in [("bfloat16",) * (len(inputs) + 1), *kinds]:
        found = run(isa, add, inputs, shape, elements)
        wanted = exact if elements[-1] == "float32" else rounded(exact)
        # The instruction that rounds takes numbers below 2**-126 for zero.
        np.testing.assert_allclose(found, wanted, 0, 2.0**-126, err_msg=f"{isa} {elements}")


LAYERS = (
    # channels, columns, (d, h, w), kernel, stride, groups, transposed
    (64, 40, (1, 5, 7), (1, 1, 1), 1, 1, False),
    (96, 33, (2, 4, 5), (1, 1, 1), 1, 3, False),
    (20, 70, (1, 3, 5), (1, 1, 1), 1, 1, False),
    (64, 32, (1, 6, 6), (1, 1, 1), 2, 1, False),
    (32, 24, (1, 9, 8), (1, 3, 3), 1, 1, False),
    (19, 17, (3, 4, 5), (3, 3, 3), 1, 1, False),
    (33, 33, (1, 8, 9), (1, 3, 3), 1, 33, False),
    (16, 16, (1, 9, 8), (1, 3, 3), 2, 1, False),
    (24, 12, (2, 3, 4), (2, 2, 2), 2, 1, True),
)


@pytest.mark.parametrize("isa", instruction_sets())
def test_convolutions_of_every_algorithm_read_and_write_bfloat16(isa: str) -> None:
    rng = np.random.default_rng(0)
    names = [row["name"] for row in algorithms()]
    used = set()
    for channels, columns, size, kernel, stride, groups, transposed in LAYERS:
        step = (1, stride, stride) if size[0] == 1 else (stride,) * 3
        pad = tuple(k // 2 for k in kernel) if not transposed else (0, 0, 0)
        shape = (channels, columns // groups, *kernel) if transposed else (columns, channels // groups, *kernel)
        layer = Convolution(
            rng.standard_normal(shape, np.float32), rng.standard_normal(columns, np.float32), stride=step,
            padding_low=pad, groups=groups, transposed=transposed,
        )  # fmt: skip
        out = (
            tuple(n * s for n, s in zip(size, step, strict=True))
            if transposed
            else tuple((n + 2 * p - k) // s + 1 for n, p, k, s in zip(size, pad, kernel, step, strict=True))
        )
        x = rng.standard_normal((2, *size, channels), np.float32)
        residual = rng.standard_normal((2, *out, columns), np.float32)
        src, dst = View.dense(1, 0, x.shape), View.dense(2, 0, residual.shape)
        plan = Plan(0, 2, 1, isa=isa, precision="bfloat16")
        for name, _ in plan.candidates(layer, src, dst):
            assert name in names
            used.add(name)
            for kind in ("relu", "gelu"):
                add = lambda p, src, beside, dst, n=name, k=kind, layer=layer: p.convolve(  # noqa: E731
                    layer, src, dst, beside, k, algorithm=n
                )
                check(isa, add, [x, residual], residual.shape, mixed=kind == "relu" and channels == 64)
            alone = lambda p, src, dst, n=name, layer=layer: p.convolve(layer, src, dst, algorithm=n)  # noqa: E731
            check(isa, alone, [x], residual.shape)
    assert {"indirect", "pointwise", "depthwise", "winograd(4)"} < used


@pytest.mark.parametrize("isa", instruction_sets())
def test_a_gate_multiplies_bfloat16_and_views_have_gaps(isa: str) -> None:
    rng = np.random.default_rng(1)
    layer = Convolution(rng.standard_normal((40, 48, 1, 1, 1), np.float32))
    x, gate = rounded(rng.standard_normal((2, 1, 3, 7, 80), np.float32)), rng.random((2, 1, 1, 1, 48), np.float32)
    results = []
    for element in ("float32", "bfloat16"):
        buffers = [stored(x, element), gate, stored(np.zeros((2, 1, 3, 7, 64), np.float32), element).copy()]
        src, dst = (View.dense(i, 0, (2, 1, 3, 7, c), element) for i, c in ((1, 80), (3, 64)))
        plan = Plan(0, 3, 1, isa=isa, precision="bfloat16")
        plan.convolve(layer, src.channels(3, 51), dst.channels(5, 45), gate=View.dense(2, 0, gate.shape))
        plan.run(buffers)
        results.append(loaded(buffers[2], (2, 1, 3, 7, 64), element))
    error = np.linalg.norm(results[0] - results[1]) / np.linalg.norm(results[0])
    assert (results[1][..., :5] == 0).all() and (results[1][..., 45:] == 0).all() and 0 < error < 5e-3


@pytest.mark.parametrize("isa", instruction_sets())
def test_conversions_round_to_even_and_keep_nan_and_infinity(isa: str) -> None:
    x = np.resize(np.append(_SPECIAL, np.random.default_rng(0).standard_normal(30, np.float32)), (1, 2, 3, 5, 37))
    for element in ("float32", "bfloat16"):
        found = run(isa, lambda p, src, dst: p.convert(src, dst), [x], x.shape, (element, "bfloat16"))
        np.testing.assert_array_equal(found, rounded(x))
        assert (np.signbit(found) == np.signbit(x))[~np.isnan(x)].all()
    found = run(isa, lambda p, src, dst: p.convert(src, dst), [x], x.shape, ("bfloat16", "float32"))
    np.testing.assert_array_equal(found, rounded(x))


def test_steps_that_know_float32_alone_say_so() -> None:
    plan = Plan(64, 0, 1)
    src, dst = View.dense(0, 0, (1, 1, 1, 4, 8), "bfloat16"), View.dense(0, 32, (1, 1, 1, 4, 8))
    with pytest.raises(ShapeError, match=r"softmax: src .* takes float32, not bfloat16"):
        plan.softmax(src, dst)
    with pytest.raises(ShapeError, match="byte 132 of the arena, which has 128"):
        Plan(32, 0, 1).convert(View.dense(0, 2, (1, 1, 1, 4, 16), "bfloat16"), dst)


def _taps(out: int, size: int, count: int, rng: np.random.Generator) -> tuple[NDArray[np.int32], Floats]:
    index = rng.integers(-1, size, (out, count)).astype(np.int32)
    return index, rng.standard_normal((out, count), np.float32)


@pytest.mark.parametrize("isa", instruction_sets())
def test_other_steps_read_and_write_bfloat16(isa: str) -> None:
    rng = np.random.default_rng(2)
    shape = (2, 2, 5, 7, 37)
    x, y, one = (rng.standard_normal(s, np.float32) for s in (shape, shape, (2, 1, 1, 1, 37)))
    x[0, 1, 2, 3, 5:12] = _SPECIAL
    scale, shift = rng.standard_normal((2, 37), np.float32)
    for op, kind in (("add", "relu"), ("multiply", "silu"), ("maximum", "none"), ("divide", "tanh")):
        check(isa, lambda p, a, b, dst, o=op, k=kind: p.combine(o, a, b, dst, k), [x, y], shape)
    check(isa, lambda p, a, b, dst: p.combine("multiply", a, b, dst), [x, one], shape)
    check(isa, lambda p, src, dst: p.affine(src, dst, scale, shift, "hard_swish"), [x], shape)
    check(isa, lambda p, src, dst: p.affine(src, dst, scale, shift, "leaky_relu", 0.1), [x], shape)
    index = rng.integers(0, 37, 37).tolist()
    check(isa, lambda p, src, dst: p.permute_channels(src, dst, index), [x], shape)
    for kernel, stride in (((2, 3, 3), (2, 2, 2)), ((1, 2, 2), (1, 2, 2))):
        pool = lambda p, src, dst, k=kernel, s=stride: p.max_pool(src, dst, k, s, padding_low=(0, k[1] // 3, 0))  # noqa: E731
        check(isa, pool, [x], (2, 2 // stride[0], 2, 3, 37))
    finite = rng.standard_normal(shape, np.float32)
    axes = (_taps(3, 2, 1, rng), _taps(6, 5, 2, rng), _taps(9, 7, 3, rng))
    check(isa, lambda p, src, dst: p.resample(src, dst, axes), [finite], (2, 3, 6, 9, 37))
    nearest = tuple((np.arange(n, dtype=np.int32)[:, None] // 2, np.ones((n, 1), np.float32)) for n in (4, 10, 14))
    check(isa, lambda p, src, dst: p.resample(src, dst, nearest), [x], (2, 4, 10, 14, 37))
    for op, small in itertools.product(("mean", "max", "sum"), ((2, 1, 1, 1, 37), (2, 2, 5, 7, 1), (2, 1, 1, 1, 1))):
        check(isa, lambda p, src, dst, o=op: p.reduce(o, src, dst), [finite], small)
    ones = np.ones(37, np.float32)
    for groups, of in ((37, finite), (1, finite), (1, finite[:, :1, :1, :1])):
        check(isa, lambda p, src, dst, g=groups: p.normalise(src, dst, g, ones, 0 * ones, 1e-5, "gelu"), [of], of.shape)


@pytest.mark.parametrize("isa", instruction_sets())
def test_blocks_round_what_lies_between_alike_on_every_path(isa: str) -> None:
    """Banded, blocked and staged give the same bits; so the machine, which chooses among them, changes none."""
    rng = np.random.default_rng(3)
    wide, shape, out = 72, (2, 1, 12, 11, 24), (2, 1, 12, 11, 40)
    expand = Convolution(rng.standard_normal((wide, 24, 1, 1, 1), np.float32), rng.standard_normal(wide, np.float32))
    middle = Convolution(rng.standard_normal((wide, 1, 1, 3, 3), np.float32), padding_low=(0, 1, 1), groups=wide)
    project = Convolution(rng.standard_normal((40, wide, 1, 1, 1), np.float32) / 8)
    x, beside = rounded(rng.standard_normal(shape, np.float32)), rounded(rng.standard_normal(out, np.float32))
    kinds = [("relu6", 0.0), ("silu", 0.0), ("none", 0.0)]
    for elements in itertools.product(("float32", "bfloat16"), repeat=3):
        found = {}
        for how in ("auto", "banded", "blocked", "staged"):
            add = lambda p, src, residual, dst, h=how: p.convolve_block(  # noqa: E731
                [expand, middle, project], 1, src, dst, residual, kinds, h
            )
            found[how] = run(isa, add, [x, beside], out, elements)
            np.testing.assert_array_equal(found[how], found["auto"])
        exact = run(isa, add, [x, beside], out, ("float32",) * 3)
        assert np.linalg.norm(found["auto"] - exact) < 1e-2 * np.linalg.norm(exact)
    alone = [middle, project]
    check(
        isa,
        lambda p, src, dst: p.convolve_block(alone, 0, src, dst),
        [rng.standard_normal((2, 1, 5, 6, wide), np.float32)],
        (2, 1, 5, 6, 40),
    )
