"""Size expressions: what they evaluate to, and what they refuse to read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from convoxel.errors import GraphError
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


def test_names_and_renaming() -> None:
    size = Size("Max(s1, 2*s2)")
    assert size.names() == {"s1", "s2"}
    assert size.renamed({"s1": "h", "s2": "w"}) == Size("Max(h, 2 * w)")
    assert str(Size("2*( h//2 )")) == "2 * (h // 2)"
    assert str(Size("Eq(h // 2, Max(w, 1))")) == "h // 2 == Max(w, 1)"


def test_evaluate() -> None:
    assert evaluate(3, {}) == 3
    assert evaluate_shape((Size("n"), 4, Size("h//2")), {"n": 2, "h": 9}) == (2, 4, 4)
