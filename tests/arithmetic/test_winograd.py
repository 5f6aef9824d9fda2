"""F(m, r) computes an r-tap correlation exactly, for every tabled m and r."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoxel import ConfigError
from convoxel.arithmetic.winograd import TABLED, cpp_table, error_factor, winograd

numbers = st.fractions(min_value=-9, max_value=9, max_denominator=7)


def times(matrix: tuple[tuple[Fraction, ...], ...], vector: list[Fraction]) -> list[Fraction]:
    return [sum((a * b for a, b in zip(row, vector, strict=True)), Fraction(0)) for row in matrix]


@pytest.mark.parametrize(("m", "r"), TABLED)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_f_of_m_r_is_a_correlation(m: int, r: int, data: st.DataObject) -> None:
    f = winograd(m, r)
    d = data.draw(st.lists(numbers, min_size=m + r - 1, max_size=m + r - 1))
    g = data.draw(st.lists(numbers, min_size=r, max_size=r))
    products = [a * b for a, b in zip(times(f.kernel, g), times(f.input, d), strict=True)]
    assert times(f.output, products) == [sum(d[i + k] * g[k] for k in range(r)) for i in range(m)]


def test_multiplications_are_as_few_as_can_be() -> None:
    for m, r in TABLED:
        f = winograd(m, r)
        assert len(f.input) == len(f.kernel) == len(f.output[0]) == m + r - 1


def test_points_of_f_4_3_err_less_than_the_usual_ones() -> None:
    """κ of 0, ±5/8, ±3/2 against that of 0, ±1, ±2, computed the same way: 4.95 and 10.6."""
    assert error_factor(winograd(4, 3)) < 5
    assert error_factor(winograd(2, 3)) == pytest.approx(5**0.5)


def test_every_coefficient_is_exact_in_the_table() -> None:
    """The engine's floats of input and output matrices lose nothing: each is a short binary fraction."""
    for m, r in TABLED:
        for row in (*winograd(m, r).input, *winograd(m, r).output):
            assert all(v.denominator & (v.denominator - 1) == 0 for v in row)
            assert all(abs(v.numerator) < 2**24 for v in row), (m, r, row)


def test_the_table_holds_all() -> None:
    table = cpp_table()
    assert all(f"struct WinogradTable<{m}, {r}>" in table for m, r in TABLED)


def test_untabled_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"F\(3, 3\) is not tabled; m is one of \(2, 4, 6\)"):
        winograd(3, 3)
