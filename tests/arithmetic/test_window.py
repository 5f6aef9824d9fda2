"""SizeSet against counting: every formula is compared with the windows that really fit."""

from __future__ import annotations

import doctest
import re

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from convoxel.arithmetic import cost, field, window
from convoxel.errors import ConfigError, ShapeError

drawn = settings(deadline=None, derandomize=True)
sizes = st.integers(1, 24)
kernels = st.integers(1, 6)
strides = st.integers(1, 5)
dilations = st.integers(1, 4)
paddings = st.tuples(st.integers(-4, 8), st.integers(-4, 8))


def count_windows(i: int, k: int, s: int, p: tuple[int, int], d: int) -> int:
    """Slide the kernel over the padded axis and count."""
    length = i + p[0] + p[1]
    starts = [start for start in range(0, length, s) if start + d * (k - 1) < length]
    return len(starts)


@drawn
@given(sizes, kernels, strides, paddings, dilations)
def test_conv_size_counts_windows(i: int, k: int, s: int, p: tuple[int, int], d: int) -> None:
    count = count_windows(i, k, s, p, d)
    if count == 0:
        with pytest.raises(ShapeError, match="kernel spans"):
            window.conv_size(i, k, s, p, d)
    else:
        assert window.conv_size(i, k, s, p, d) == count


@drawn
@given(sizes, kernels, strides, paddings, dilations, st.integers(0, 6))
def test_transposed_size_counts_what_is_spread(i: int, k: int, s: int, p: tuple[int, int], d: int, a: int) -> None:
    reached = {s * j + d * m for j in range(i) for m in range(k)}
    expected = max(reached) + 1 + a - p[0] - p[1]
    if expected < 1:
        with pytest.raises(ShapeError, match="output size would be"):
            window.transposed_size(i, k, s, p, d, a)
    else:
        assert window.transposed_size(i, k, s, p, d, a) == expected


@drawn
@given(sizes, kernels, strides, paddings, dilations)
def test_transposition_returns_to_the_size(i: int, k: int, s: int, p: tuple[int, int], d: int) -> None:
    assume(count_windows(i, k, s, p, d) > 0)
    o = window.conv_size(i, k, s, p, d)
    a = window.output_padding(i, k, s, p, d)
    assert 0 <= a < s
    assert window.transposed_size(o, k, s, p, d, a) == i
    same = {j for j in range(i - s, i + s + 1) if j >= 0 and count_windows(j, k, s, p, d) == o}
    assert len(same) <= s and i in same


@drawn
@given(sizes, kernels, paddings, dilations)
def test_transposed_is_a_convolution_of_the_padded_input(i: int, k: int, p: tuple[int, int], d: int) -> None:
    inner = window.transposed_padding(k, p, d)
    assume(i + sum(inner) >= window.span(k, d))
    assert window.conv_size(i, k, 1, inner, d) == window.transposed_size(i, k, 1, p, d)


@drawn
@given(st.integers(1, 40), kernels, strides, st.integers(0, 3), st.integers(1, 3), st.booleans())
def test_pool_size_is_pytorchs(i: int, k: int, s: int, p: int, d: int, ceil: bool) -> None:
    assume(2 * p <= k and i + 2 * p >= window.span(k, d))
    expected = torch.nn.functional.max_pool1d(torch.zeros(1, 1, i), k, s, p, d, ceil).shape[-1]
    assert window.pool_size(i, k, s, p, d, ceil) == expected


@drawn
@given(sizes, kernels, st.integers(1, 4), st.tuples(st.integers(0, 3), st.integers(0, 3)))
def test_ceil_mode_keeps_only_windows_that_see_something(i: int, k: int, s: int, p: tuple[int, int]) -> None:
    assume(i + sum(p) >= k and max(p) < k)
    o = window.pool_size(i, k, s, p, ceil=True)
    length = i + sum(p)
    fitting = count_windows(i, k, s, p, 1)
    more = fitting * s < length and (fitting - 1) * s + k < length and fitting * s < i + p[0]
    assert o == fitting + more


@pytest.mark.parametrize("i, k, s, p, o", [
    (4, 3, 1, 0, 2), (5, 4, 1, 2, 6), (5, 3, 1, 1, 5), (5, 3, 1, 2, 7), (5, 3, 2, 0, 2), (5, 3, 2, 1, 3),
    (6, 3, 2, 1, 3),
])  # fmt: skip
def test_D8_worked_examples_of_the_guide(i: int, k: int, s: int, p: int, o: int) -> None:
    assert window.conv_size(i, k, s, p) == o
    assert window.transposed_size(o, k, s, p, a=window.output_padding(i, k, s, p)) == i


@drawn
@given(sizes, kernels, dilations)
def test_padding_words(i: int, k: int, d: int) -> None:
    def size(word: str) -> int:
        (pair,) = window.resolve_padding(word, (k,), 1, d, size=(i,))
        return window.conv_size(i, k, 1, pair, d)

    e = window.span(k, d)
    assert size("same") == size("causal") == i
    assert size("full") == i + e - 1
    assert size("half") == (i if e % 2 else i + 1)
    if e <= i:
        assert size("none") == i - e + 1


@drawn
@given(st.integers(1, 60), kernels, strides, dilations)
def test_D8_same_with_stride(i: int, k: int, s: int, d: int) -> None:
    ((before, after),) = window.resolve_padding("same", (k,), s, d, size=(i,))
    assert 0 <= after - before <= 1
    assert window.conv_size(i, k, s, (before, after), d) == -(-i // s)
    if before + after:  # one less would lose an output: nothing is padded in vain
        assert count_windows(i, k, s, (before, after - 1), d) < -(-i // s)


@drawn
@given(st.integers(1, 30), kernels, strides, dilations)
def test_transposed_same_returns_to_a_multiple(i: int, k: int, s: int, d: int) -> None:
    """s·i comes out, and the convolution with the same words leads back."""
    (o,) = window.transposed_sizes((i,), k, s, "same", d)
    assert o == s * i
    assert window.conv_sizes((o,), k, s, "same", d) == (i,)


@pytest.mark.parametrize("word", window.PADDING_WORDS)
def test_sizes_of_many_axes_are_those_of_each(word: str) -> None:
    size, k, s, d = (9, 14, 21), (3, 2, 5), (1, 2, 3), (2, 1, 1)
    pairs = [window.resolve_padding(word, (k[a],), s[a], d[a], (size[a],))[0] for a in range(3)]
    each = tuple(window.conv_size(size[a], k[a], s[a], pairs[a], d[a]) for a in range(3))
    assert window.conv_sizes(size, k, s, word, d) == each == window.conv_sizes(size, k, s, pairs, d)
    assert window.pool_sizes(size, k, s, word, d) == each
    spread = tuple(window.transposed_sizes((size[a],), k[a], s[a], word, d[a])[0] for a in range(3))
    assert window.transposed_sizes(size, k, s, word, d) == spread


def test_sizes_of_many_axes() -> None:
    assert window.conv_sizes((132, 132, 116), 3) == (130, 130, 114)
    assert window.pool_sizes((7, 9), 2, ceil=True) == (4, 5) and window.pool_sizes((7, 9), (1, 3)) == (7, 3)
    assert window.transposed_sizes((3, 4), 3, 2, 1, added=(1, 0)) == (6, 7)
    assert window.transposed_sizes((3,), 3, 2, ((0, 1),)) == (6,)


def test_every_relationship_is_named_and_shown() -> None:
    """DV 1 … 15, each by its number, in a docstring and beside an example."""
    text = " ".join(f.__doc__ or "" for f in (window.conv_size, window.pool_size, window.transposed_size))
    examples = " ".join(line for line in text.splitlines() if ">>>" in line)
    explained = " ".join(line for line in text.splitlines() if ">>>" not in line)
    shown = {int(n) for found in re.findall(r"# DV ([\d, ]+)", examples) for n in found.split(",")}
    assert {int(n) for n in re.findall(r"DV (\d+)", explained)} >= set(range(1, 16))
    assert shown == set(range(1, 16))


def test_paddings_in_numbers() -> None:
    assert window.resolve_padding(2, (3, 3)) == ((2, 2), (2, 2))
    assert window.resolve_padding((1, 0), (3, 3)) == ((1, 1), (0, 0))
    assert window.resolve_padding(((1, 2), (0, -1)), (3, 3)) == ((1, 2), (0, -1))
    assert window.resolve_padding("same", (3, 4), dilation=(2, 1)) == ((2, 2), (1, 2))


@pytest.mark.parametrize("call, match", [
    (lambda: window.resolve_padding("valid", (3,)), "the words are 'none', 'half'"),
    (lambda: window.resolve_padding("same", (3,), stride=2), "depends on the input size"),
    (lambda: window.resolve_padding((1, 2, 3), (3, 3)), "has 3 entries, but there are 2 axes"),
    (lambda: window.resolve_padding(((1, 2, 3),), (3,)), "must be an int or a pair"),
    (lambda: window.resolve_padding("half", (3, 3), dilation=(1,)), "dilation has 1 entries"),
    (lambda: window.resolve_padding("half", (3, 3), size=(4,)), "size has 1 entries"),
    (lambda: window.conv_size(4, 0), "kernel size k is 0"),
    (lambda: window.conv_size(4, 3, 0), "stride s is 0"),
    (lambda: window.conv_size(4, 3, d=0), "dilation d is 0"),
    (lambda: window.transposed_size(4, 3, a=-1), "output_padding"),
    (lambda: window.conv_sizes((4, 4), (3,)), "kernel has 1 entries, but there are 2 axes"),
    (lambda: window.pool_sizes((4, 4), 3, (1, 1, 1)), "stride has 3 entries, but there are 2 axes"),
    (lambda: window.transposed_sizes((4, 4), 3, added=(1,)), "added has 1 entries, but there are 2 axes"),
])  # fmt: skip
def test_errors_say_how_to_mend(call: object, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        call()  # type: ignore[operator]


def test_size_errors_say_how_to_mend() -> None:
    with pytest.raises(ShapeError, match=r"spans d \(k − 1\) \+ 1 = 5 .*Use a larger input"):
        window.conv_size(4, 3, d=2)
    with pytest.raises(ShapeError, match="at least 1"):
        window.transposed_size(0, 3)
    with pytest.raises(ShapeError, match="Use less padding"):
        window.transposed_size(1, 3, p=2)


@pytest.mark.parametrize("module", [window, field, cost])
def test_documented_examples(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.failed == 0 and result.attempted > 5
