"""Odd arguments of single convolutions: right as PyTorch's result is, or refused by name before memory is asked for."""

from __future__ import annotations

import array
import datetime
import functools
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import convoxel as cx
from convoxel import arithmetic

X = np.random.default_rng(0).standard_normal((1, 2, 8, 9)).astype(np.float32)
W = np.random.default_rng(1).standard_normal((4, 2, 3, 3)).astype(np.float32)

NO_NUMBERS = [
    1.5, 1.0, float("nan"), float("inf"), True, "a", "3", b"3", 1j, object(), len, {}, {1: 2}, [], [[1, 2], [3]],
    np.float32(1), np.float64(2.5), np.True_, np.datetime64("2020-01-01"), np.array([1.5, 2]), np.array(["1", "2"]),
    datetime.timedelta(1), torch.tensor(1.5), torch.empty((), device="meta"), (1, None), (1, "1"), range(3),
    np.zeros((2, 2, 2), np.int64),
]  # fmt: skip
OUT_OF_RANGE = [0, -1, 10**12, -(10**12), 2**63, -(2**63), 2**64, 10**5000, np.uint64(2**64 - 1), (1, 10**12), (0, 1)]


def named(call: Callable[[], object], name: str) -> str:
    """Return the message with which a call is refused, in which the argument is named."""
    with pytest.raises(cx.ConvoxelError, match=name) as caught:
        call()
    assert len(str(caught.value)) < 400
    return str(caught.value)


@pytest.mark.parametrize("function", [cx.conv, cx.conv_transpose])
@pytest.mark.parametrize("name", ["stride", "dilation", "padding", "output_padding", "groups", "threads"])
def test_numbers(function: Callable[..., Any], name: str) -> None:
    if name == "output_padding" and function is cx.conv:
        return
    w = W[:2]
    for value in NO_NUMBERS + ([] if "padding" in name else OUT_OF_RANGE):
        if name != "threads" or value is not None:
            named(functools.partial(function, X, w, **{name: value}), name)
    for value in (10**12, 2**64, 10**5000, (1, 2**63)):
        with pytest.raises(cx.ConvoxelError):
            function(X, w, **{name: value})


@pytest.mark.parametrize("two", [np.int8(2), np.uint64(2), np.array(2), torch.tensor(2), [2, 2], np.array([2, 2])])
def test_every_kind_of_whole_number(two: Any) -> None:
    for name in ("stride", "dilation", "padding"):
        np.testing.assert_array_equal(cx.conv(X, W, **{name: two}), cx.conv(X, W, **{name: 2}))


@pytest.mark.parametrize("name", ["algorithm", "isa"])
def test_names(name: str) -> None:
    for value in (1, 1.5, True, b"auto", ["auto"], np.array([1, 2]), object()):
        named(functools.partial(cx.conv, X, W, **{name: value}), name)


def test_large_strides_are_pytorch_s() -> None:
    for stride in (10**6, 2**31 - 1):
        expected = F.conv2d(torch.from_numpy(X), torch.from_numpy(W), stride=stride)
        np.testing.assert_allclose(cx.conv(X, W, stride=stride), expected, atol=1e-5)


@pytest.mark.parametrize(
    "odd",
    [
        X.astype(np.complex64), X.astype("datetime64[s]"), X.astype("timedelta64[s]"), X.astype(object), X.astype(str),
        X.astype(bytes), X.astype([("a", np.float32)]), np.ma.masked_array(X, X > 0), None, "x", object(), [[], [1]],
        torch.from_numpy(X).requires_grad_(), torch.from_numpy(X).to_sparse(), torch.empty(X.shape, device="meta"),
    ],
)  # fmt: skip
def test_operands_without_real_numbers(odd: Any) -> None:
    for name, call in (("x", lambda: cx.conv(odd, W)), ("w", lambda: cx.conv(X, odd))):
        assert named(call, name).startswith(f"conv: {name} is")
    if odd is not None:
        named(lambda: cx.conv(X, W, odd), "bias")


@pytest.mark.parametrize(
    "same",
    [
        lambda a: a.astype(">f4"), lambda a: a.astype(np.float64), lambda a: a.astype(np.longdouble),
        lambda a: np.asfortranarray(a), lambda a: np.ascontiguousarray(a[::-1, ::-1, ::-1])[::-1, ::-1, ::-1],
        lambda a: np.repeat(a, 2, 3)[..., ::2], lambda a: torch.from_numpy(a.copy()), lambda a: a.tolist(), memoryview,
        lambda a: np.frombuffer(array.array("f", a.ravel().tolist()), np.float32).reshape(a.shape),
    ],
)  # fmt: skip
def test_any_memory_of_real_numbers(same: Callable[[Any], Any]) -> None:
    np.testing.assert_array_equal(cx.conv(same(X), same(W)), cx.conv(X, W))


def test_small_numbers_become_float32() -> None:
    for dtype in (np.float16, np.int8, np.uint16, np.bool_):
        few = (X * 4).astype(dtype)
        np.testing.assert_array_equal(cx.conv(few, W), cx.conv(few.astype(np.float32), W))


def test_what_does_not_fit_is_refused_before_it_is_copied() -> None:
    huge = np.broadcast_to(np.float32(1), (2**20, 2, 2**10, 2**10))
    tracemalloc.start()
    named(lambda: cx.conv(X, huge, padding=2**10), "w")
    named(lambda: cx.conv(np.broadcast_to(np.float32(1), (2**30, 2, 64, 64)), W, stride=64), "x")
    named(lambda: cx.conv(X, np.broadcast_to(np.float32(1), (2**20, 3, 3, 3))), "x has 2 channels")
    named(lambda: cx.conv(X, W, padding=2**30), "the_result")
    named(lambda: cx.conv_transpose(X, W[:2], stride=2**30), "the_result")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20, f"{peak} bytes were asked for"


def test_output_padding_is_below_the_stride_or_the_dilation() -> None:
    named(lambda: cx.conv_transpose(X, W[:2], output_padding=1), "output_padding")
    named(lambda: cx.conv_transpose(X, W[:2], stride=(2, 1), output_padding=(1, 1)), "output_padding")
    got = cx.conv_transpose(X, W[:2], dilation=2, output_padding=1)
    expected = F.conv_transpose2d(torch.from_numpy(X), torch.from_numpy(W[:2]), dilation=2, output_padding=1)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    net = torch.nn.Sequential(torch.nn.ConvTranspose2d(2, 2, 3, output_padding=1), torch.nn.Tanh()).eval()
    named(lambda: cx.compile(net, torch.zeros(1, 2, 8, 8)), "output_padding")


@pytest.mark.parametrize("function", [arithmetic.conv_size, arithmetic.pool_size, arithmetic.transposed_size])
def test_sizes(function: Callable[..., Any]) -> None:
    for name in "iksd":
        for value in [*NO_NUMBERS, [1, 2]]:
            named(functools.partial(function, **{"i": 8, "k": 3, name: value}), name)
    huge = np.int64(2**62)
    assert arithmetic.conv_size(huge, 3, p=huge) == 3 * 2**62 - 2  # exact, in Python's own numbers
