"""Size expressions: what they evaluate to, and what they refuse to read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from convoxel.errors import GraphError
from convoxel.graph.ir import size
from convoxel.graph.ir.size import Size, evaluate, evaluate_shape
from convoxel.graph.operators.shape import pool_length

pytestmark = pytest.mark.smoke


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("h", 9),
        ("2*(h//2)", 8),
        ("-h + w % 4", -6),
        ("h**2 - 1", 80),
        ("Max(h, w)", 9),
        ("CeilDiv(h, 2)", 5),
        ("TruncToInt(1.5*ToFloat(h))", 13),
        ("FloorToInt(IntTrueDiv(h, 2))", 4),
        ("h % 3 == 0 and w == 7", 1),
        ("2*(h//2) == h", 0),
        ("Eq(h, w + 2) & Ne(h, w)", 1),
        ("not h > 3 or 1 <= w < 7", 0),
    ],
)
def test_value(text: str, value: int) -> None:
    assert Size(text).value({"h": 9, "w": 7}) == value


@given(st.integers(1, 400), st.integers(1, 8), st.integers(1, 4))
def test_agrees_with_python(h: int, kernel: int, stride: int) -> None:
    text = f"(h + 2 - {kernel}) // {stride} + 1"
    assert Size(text).value({"h": h}) == (h + 2 - kernel) // stride + 1


@given(
    st.integers(1, 60), st.integers(1, 7), st.integers(1, 4), st.integers(0, 4), st.integers(0, 9), st.integers(1, 2)
)
def test_open_lengths_of_poolings_that_round_up(i: int, k: int, s: int, low: int, high: int, d: int) -> None:
    """The same as for a known length, wherever the window fits into the padded axis."""
    assume(i + low + high >= d * (k - 1) + 1)
    for ceil in (False, True):
        extent: Any = pool_length(Size("h"), k, s, (low, high), d, ceil)  # type: ignore[arg-type]
        assert evaluate(extent, {"h": i}) == pool_length(i, k, s, (low, high), d, ceil)


def test_a_chain_of_poolings_that_round_up_stays_short() -> None:
    extent: Any = Size("h")
    length = 1000
    for _ in range(8):
        extent, length = (pool_length(size, 3, 2, (0, 0), 1, True) for size in (extent, length))
    assert len(str(extent)) < 20
    assert evaluate(extent, {"h": 1000}) == length


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "h.real",
        "h[0]",
        "(lambda: 1)()",
        "h ** h",
        "2 ** 99",
        "f'{h}'",
        "'h'",
        "1e999",
        "max(*h)",
        "h if w else 1",
        "h(",
        "",
        "1 + " * 2000 + "1",
        "h*" * 500 + "h",
    ],
)
def test_refuses_what_is_not_arithmetic(text: str) -> None:
    with pytest.raises(GraphError, match="size"):
        Size(text)


def test_errors_name_the_expression() -> None:
    with pytest.raises(GraphError, match=r"size h // w divides by zero"):
        Size("h//w").value({"h": 1, "w": 0})
    with pytest.raises(GraphError, match=r"size h / 2 is 3/2, not a whole number"):
        Size("h/2").value({"h": 3})
    with pytest.raises(GraphError, match=r"size w is not among the input sizes \['h'\]"):
        Size("w").value({"h": 3})


def test_names_and_what_takes_their_place() -> None:
    found = Size("Max(s1, 2*s2)")
    assert found.names() == {"s1", "s2"}
    assert found.substituted({"s1": Size("h"), "s2": Size("w - 1")}) == Size("Max(h, 2 * (w - 1))")
    assert Size("floor(floor / 2)").substituted({"floor": Size("h + 1")}) == Size("floor((h + 1) / 2)")
    assert str(Size("2*( h//2 )")) == "2 * (h // 2)"
    assert str(Size("Eq(h // 2, Max(w, 1))")) == "h // 2 == Max(w, 1)"


def test_evaluate() -> None:
    assert evaluate(3, {}) == 3
    assert evaluate_shape((Size("n"), 4, Size("h//2")), {"n": 2, "h": 9}) == (2, 4, 4)


# ---- arithmetic by structure -----------------------------------------------------------------------------------

_Pair = tuple[Any, Any]


def _steps() -> st.SearchStrategy[list[tuple[str, int]]]:
    names = ("+", "-", "*", "//", "%", "-x", "max", "min", "where", "half", "square", "trunc", "float")
    return st.lists(st.tuples(st.sampled_from(names), st.integers(1, 7)), min_size=1, max_size=7)


def _walked(start: Any, other: Any, steps: list[tuple[str, int]]) -> Any:
    """Return what a chain of operations makes of a size, or of its number."""
    x = start
    for name, number in steps:
        if name in "+-*//%":
            x = {"+": x + number, "-": x - number, "*": x * number, "//": x // number, "%": x % number}[name]
        elif name == "max":
            x = size.larger(x, other - number)
        elif name == "min":
            x = size.smaller(x, other + number)
        elif name == "where":
            x = size.choose(size.compare(">", x, other), x - other, number)
        elif name == "trunc":
            x = size.truncated_quotient(x, number)
        elif name == "float":
            x = size.as_whole(size.round_up(size.arithmetic("/", x, number, "float32")))
        elif name == "half":
            x = size.scaled(x, number / 2, "float32")
        else:
            x = -x if name == "-x" else x * x if abs(number) < 3 else x
    return x


@settings(deadline=None)
@given(_steps(), st.integers(1, 60), st.integers(1, 60))
def test_operations_on_sizes_are_those_on_numbers(steps: list[tuple[str, int]], h: int, w: int) -> None:
    """However they are nested, written as text and read back; what is said of all sizes holds for each."""
    extent, expected = _walked(Size("h"), Size("w"), steps), _walked(h, w, steps)
    assume(abs(expected) < 2**20)
    assert evaluate(extent, {"h": h, "w": w}) == expected
    assert evaluate(Size(str(extent)), {"h": h, "w": w}) == expected
    assert size.least(extent) <= expected
    for operator, holds in (("<", expected < 3), ("==", expected == 3), (">=", expected >= 3)):
        found = size.compare(operator, extent, 3)
        assert (found.number({"h": h, "w": w}) if isinstance(found, Size) else found) == holds


_polynomials = st.lists(
    st.tuples(st.integers(-3, 3), st.sampled_from((1, Size("h"), Size("w"), Size("h // 2"), Size("h*w")))),
    min_size=1,
    max_size=4,
)


@given(_polynomials, _polynomials, st.integers(1, 20), st.integers(1, 20))
def test_a_product_by_one_of_its_factors_is_the_other(first: list[_Pair], second: list[_Pair], h: int, w: int) -> None:
    a, b = (sum((number * extent for number, extent in terms), start=0) for terms in (first, second))
    sizes, product = {"h": h, "w": w}, a * b
    assume(evaluate(b, sizes))
    assert evaluate(product // b, sizes) == evaluate(a, sizes)
    assert evaluate((product + 1) // b, sizes) == (evaluate(product, sizes) + 1) // evaluate(b, sizes)


@pytest.mark.parametrize(
    ("extent", "text"),
    [
        (size.scaled(Size("h - 2"), 0.5), "h // 2 - 1"),
        (size.scaled(Size("2*h + 3"), 1.5), "3 * h + 4"),
        (size.scaled(Size("h - 2"), 0.7), "floor(ToFloat(h - 2) * 0.7)"),
        (size.scaled(Size("h"), 2.0, "float32"), "2 * h"),
        (size.larger(Size("h // 2"), 0), "h // 2"),
        (size.smaller(Size("2*(h // 4)"), Size("h // 2")), "2 * (h // 4)"),
        (Size("3*h*w") // Size("6*w"), "h // 2"),
        (size.truncated_quotient(Size("h - 5"), 2), "TruncDiv(h - 5, 2)"),
    ],
)
def test_normal_forms(extent: Any, text: str) -> None:
    assert str(extent) == text


def test_sizes_as_floats_are_rounded_as_their_type() -> None:
    """⌊10 · 0.7⌋ is 7 where the product is rounded to float32; 17 · (33 / 17) may be below 33."""
    factor = float(np.float32(0.7))
    assert size.scaled(10, factor, "float32") == 7 and size.scaled(10, factor) == 6
    assert evaluate(size.scaled(Size("h"), factor, "float32"), {"h": 10}) == 7
    ratio = size.arithmetic("/", Size("w"), Size("h"), "float32")
    found = size.scaled(Size("h"), ratio, "float32")
    for h, w in ((29, 15), (41, 1), (33, 17), (49, 100)):
        assert evaluate(found, {"h": h, "w": w}) == int(np.float32(h) * (np.float32(w) / np.float32(h)))


def test_bounds_of_long_products_take_no_time() -> None:
    """A bound for each factor, not for each choice of them."""
    assert size.least(Size("*".join(["h"] * 100) + " + w // 2")) == 1


def test_a_condition_has_no_truth_of_its_own() -> None:
    condition = size.compare("==", Size("h"), 3)
    with pytest.raises(GraphError, match="h == 3"):
        bool(condition)
    assert size.both(condition, True) == condition and size.either(condition, True) is True
    assert size.negation(condition).number({"h": 3}) is False
