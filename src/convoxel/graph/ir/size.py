"""Sizes that become known when an input arrives: exact expressions over the input's axes, and arithmetic with them.

A ``Size`` is a tree of operations (``expression``), written as text such as ``2 * (h // 2)``. Two sizes are equal when
their texts are; sums, products and quotients of whole sizes keep a normal form (``polynomial``). All that readers and
shape rules compute with sizes is computed here, by one function for each operation, which returns a number where all
operands are numbers.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from convoxel.errors import GraphError
from convoxel.graph.ir import expression, polynomial
from convoxel.graph.ir.expression import CONDITION, DOUBLE, SINGLE, WHOLE


@dataclass(frozen=True)
class Size:
    """An expression over named input sizes, such as ``Size("2 * (h // 2)")``.

    It may also be a condition (``Size("h % 16 == 0")``); ``value`` then returns 1 or 0.

    Raises ``GraphError`` if the text uses anything but integers, names, ``+ - * / // % **``, comparisons
    and the rounding functions.

    >>> Size("2*(h//2)").value({"h": 9})
    8
    """

    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", expression.normal(self.text))

    @property
    def tree(self) -> ast.expr:
        """The tree of the expression, which must not be changed."""
        return expression.parse(self.text)

    @property
    def kind(self) -> str:
        """The type of its values: "int64", or what a network makes of a size: "float32", "float64", "bool"."""
        return expression.kind_of_text(self.text)

    def number(self, sizes: Mapping[str, int]) -> int | float | bool:
        """Return what the expression is for ``sizes`` (name → axis length), by its kind."""
        if isinstance(sizes, OpenSizes):
            return sizes.of(self)
        kind = self.kind
        if kind == WHOLE:
            return self.value(sizes)
        return bool(self._exact(sizes)) if kind == CONDITION else float(self._exact(sizes))

    def value(self, sizes: Mapping[str, int]) -> int:
        """Return the integer that the expression has for ``sizes`` (name → axis length)."""
        if isinstance(sizes, OpenSizes):
            return sizes.of(self)
        result = Fraction(self._exact(sizes))
        if result.denominator != 1:
            raise GraphError(f"size {self.text} is {result}, not a whole number, for {dict(sizes)}")
        return int(result)

    def _exact(self, sizes: Mapping[str, int]) -> expression.Number:
        try:
            result = expression.evaluate(self.tree, sizes)
        except GraphError:
            raise
        except (ArithmeticError, ValueError):  # a quotient by zero, or the rounding of what is no number
            raise GraphError(f"size {self.text} divides by zero for {dict(sizes)}") from None
        if not math.isfinite(result):
            raise GraphError(f"size {self.text} is {result} for {dict(sizes)}")
        return result

    @property
    def is_axis(self) -> bool:
        """True if the expression is just the length of an input's axis."""
        return self.text.isidentifier()

    def names(self) -> frozenset[str]:
        """Return the names of the input sizes that occur."""
        return expression.names_of_text(self.text)

    def substituted(self, sizes: Mapping[str, Size]) -> Size:
        """Return the expression with sizes in the place of its names."""
        trees = {name: size.tree for name, size in sizes.items()}
        return Size(ast.unparse(expression.substituted(self.tree, trees)))

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__  # shapes in messages read as (n, 3, h, w)

    def __bool__(self) -> bool:
        if self.kind == CONDITION:
            raise GraphError(f"{self.text} is true for some input sizes only")
        return True

    # Arithmetic, so that a shape rule written for numbers also serves open sizes. In comparisons an open size counts
    # as larger than every number, and as neither smaller nor larger than another open size; ``compare`` is exact.

    def __add__(self, other: Scalar) -> Any:
        return _arithmetic("+", self, other)

    def __radd__(self, other: Scalar) -> Any:
        return _arithmetic("+", other, self)

    def __sub__(self, other: Scalar) -> Any:
        return _arithmetic("-", self, other)

    def __rsub__(self, other: Scalar) -> Any:
        return _arithmetic("-", other, self)

    def __mul__(self, other: Scalar) -> Any:
        return _arithmetic("*", self, other)

    def __rmul__(self, other: Scalar) -> Any:
        return _arithmetic("*", other, self)

    def __floordiv__(self, other: Scalar) -> Any:
        return _arithmetic("//", self, other)

    def __rfloordiv__(self, other: Scalar) -> Any:
        return _arithmetic("//", other, self)

    def __mod__(self, other: Scalar) -> Any:
        return _of(ast.BinOp(self.tree, ast.Mod(), _tree(other)))

    def __rmod__(self, other: Scalar) -> Any:
        return _of(ast.BinOp(_tree(other), ast.Mod(), self.tree))

    def __neg__(self) -> Any:
        return _arithmetic("*", self, -1)

    def __lt__(self, other: Any) -> bool:
        return False

    def __gt__(self, other: Any) -> bool:
        return not isinstance(other, Size)

    def __le__(self, other: Any) -> bool:
        return self == other

    def __ge__(self, other: Any) -> bool:
        return not isinstance(other, Size) or self == other


class OpenSizes(dict[str, Any]):
    """Input sizes of which only some are numbers: what is evaluated for them is a size again where it stays open.

    >>> sizes = OpenSizes({"n": Size("n"), "h": 9})
    >>> Size("2 * (h // 2)").value(sizes), Size("n * h + n").value(sizes)
    (8, 10 * n)
    """

    def __init__(self, sizes: Mapping[str, Extent]) -> None:
        super().__init__(sizes)
        self._known = {name: size for name, size in sizes.items() if not isinstance(size, Size)}
        self._found: dict[str, Any] = {}

    def of(self, size: Size) -> Any:
        """Return the number that a size is, or, where it stays open, the size in normal form."""
        if size.text not in self._found:
            self._found[size.text] = self._evaluated(size)
        return self._found[size.text]

    def _evaluated(self, size: Size) -> Any:
        if size.names() <= self._known.keys():
            return size.number(self._known)
        bound = size.substituted({name: Size(str(number)) for name, number in self._known.items()})
        return bound + 0 if bound.kind == WHOLE else bound


Extent = int | Size
"""The length of an axis: a number, or an expression over the input's axes."""
Extents = tuple[Extent, ...]
Shape = tuple[int, ...]
Scalar = int | float | bool | Size
"""The result of arithmetic on lengths: a length, a fraction or a condition."""


# ---- expressions from operands ---------------------------------------------------------------------------------


def kind_of(value: Scalar) -> str:
    """Return the type of a number or size."""
    if isinstance(value, Size):
        return value.kind
    return CONDITION if isinstance(value, bool) else WHOLE if isinstance(value, int) else DOUBLE


def _tree(value: Scalar) -> ast.expr:
    if isinstance(value, Size):
        return value.tree
    if not math.isfinite(value):
        raise GraphError(f"a size is computed from {value}")
    return expression.parse(repr(float(value)) if isinstance(value, float) else repr(int(value)))


def _of(tree: ast.expr) -> Any:
    """Return what a tree is: a size, or a number where nothing in it is open."""
    if expression.names(tree):
        return _normal(expression.written(tree))
    value = expression.evaluate(tree, {})
    return {WHOLE: int, CONDITION: bool}.get(expression.kind(tree), float)(value)


def _normal(text: str) -> Size:
    """Return the size of a text that is in normal form, which is not checked a second time."""
    size = object.__new__(Size)
    object.__setattr__(size, "text", text)
    return size


def _call(function: str, *operands: Scalar) -> Any:
    return _of(expression.call(function, *map(_tree, operands)))


_SYMBOLS: dict[str, type[ast.operator]] = {"+": ast.Add, "-": ast.Sub, "*": ast.Mult, "/": ast.Div, "//": ast.FloorDiv}


@lru_cache(maxsize=1024, typed=True)  # layers of a network repeat what others compute
def _arithmetic(symbol: str, a: Scalar, b: Scalar) -> Any:
    """Return a ∘ b: whole sizes in normal form, floats rounded as their type rounds."""
    kinds = {kind_of(a), kind_of(b)}
    if SINGLE in kinds or DOUBLE in kinds:
        return _rounded(symbol, a, b, SINGLE if SINGLE in kinds else DOUBLE)
    left, right = (value.text if isinstance(value, Size) else int(value) for value in (a, b))
    if symbol == "*":
        text = polynomial.multiply(left, right)
    elif symbol == "//":
        text = polynomial.floor_divide(left, right)
    else:
        text = polynomial.add(left, right, 1 if symbol == "+" else -1)
    try:
        return int(text)
    except ValueError:
        return Size(text)


def _rounded(symbol: str, a: Scalar, b: Scalar, kind: str) -> Any:
    """Return a ∘ b as a float of a kind.

    Sums, differences and products of whole numbers are whole: exact, as long as they stay below 2²⁴ (2⁵³).
    """
    whole = _whole(a), _whole(b)
    if symbol in ("+", "-", "*") and whole[0] is not None and whole[1] is not None:
        return as_float(_arithmetic(symbol, whole[0], whole[1]), kind)
    exact = _of(ast.BinOp(_tree(a), _SYMBOLS[symbol](), _tree(b)))
    return _call("Float32", exact) if kind == SINGLE else exact


def _whole(value: Scalar) -> Extent | None:
    """Return the whole number that a float holds by its structure."""
    if not isinstance(value, Size):
        return int(value) if float(value).is_integer() else None
    tree = value.tree
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id in ("Float32", "ToFloat"):
        inner: Scalar = _of(tree.args[0])
        return inner if kind_of(inner) == WHOLE else _whole(inner)  # type: ignore[return-value]
    return value if value.kind == WHOLE else None


def _quotient(value: Size) -> tuple[Extent, Extent] | None:
    """Return whole numbers whose quotient, rounded down or up, is the float ``value`` rounded down or up.

    A product with a fraction of few binary digits is exact. A rounded quotient of whole numbers below 2²³ (2⁵²) is
    whole only where the exact one is, because they differ from a whole number by more than the rounding.
    """
    tree, most = value.tree, 1 << 20
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id == "Float32":
        tree, most = tree.args[0], 1 << 4
    if not isinstance(tree, ast.BinOp):
        return None
    left, right = _of(tree.left), _of(tree.right)
    if isinstance(tree.op, ast.Mult) and isinstance(left, float):
        left, right = right, left
    dividend, divisor = _whole(left), _whole(right)
    if isinstance(tree.op, ast.Mult) and dividend is not None and isinstance(right, float):
        over, under = right.as_integer_ratio()
        return (_arithmetic("*", dividend, over), under) if abs(over) <= most else None
    if isinstance(tree.op, ast.Div) and dividend is not None and divisor is not None and least(divisor) >= 1:
        return dividend, divisor
    return None


# ---- arithmetic ------------------------------------------------------------------------------------------------


def least(value: Scalar) -> float:
    """Return a number that ``value`` is never below, where every axis is at least 1."""
    return expression.bounds(value.text)[0] if isinstance(value, Size) else value


def as_float(value: Scalar, kind: str) -> Any:
    """Return a size as "float32" or "float64"."""
    whole = _whole(value)
    if isinstance(value, Size) and value.kind == kind:
        return value
    return _call("Float32" if kind == SINGLE else "ToFloat", value if whole is None else whole)


def as_whole(value: Scalar) -> Any:
    """Return the whole number that a fraction is when it is cut off towards zero; a condition is 1 or 0.

    >>> as_whole(as_float(Size("h"), "float32") * 0.5)
    h // 2
    """
    if kind_of(value) == CONDITION:
        return choose(value, 1, 0)
    whole = _whole(value)
    if whole is not None:
        return whole
    return as_whole(round_down(value)) if least(value) >= 0 else _call("TruncToInt", value)


def arithmetic(symbol: str, a: Scalar, b: Scalar, kind: str) -> Any:
    """Return a sum, difference, product or (of floats) quotient in numbers of a kind.

    >>> arithmetic("/", Size("h"), 16, "float32"), arithmetic("-", 1, Size("h"), "int64")
    (Float32(Float32(h) / 16.0), -h + 1)
    """
    if kind not in (SINGLE, DOUBLE):
        return _arithmetic(symbol, a, b)
    return _rounded(symbol, as_float(a, kind), as_float(b, kind), kind)


def round_down(value: Scalar) -> Any:
    """Return the largest whole number up to ``value``, in its type."""
    return _rounded_whole(value, "floor", lambda over, under: over // under)


def round_up(value: Scalar) -> Any:
    """Return the smallest whole number from ``value`` on, in its type."""
    return _rounded_whole(value, "ceiling", lambda over, under: -(-over // under))


def round_to_even(value: Scalar) -> Any:
    """Return the nearest whole number, in its type; half-way the even one."""
    return _rounded_whole(value, "RoundToInt", None)


def _rounded_whole(value: Scalar, function: str, exact: Callable[[Any, Any], Any] | None) -> Any:
    if not isinstance(value, Size):
        return float(_call(function, value))
    if _whole(value) is not None:
        return value
    parts = _quotient(value) if exact else None
    return as_float(exact(*parts) if exact and parts else _call(function, value), value.kind)


def scaled(extent: Extent, factor: Scalar, kind: str = DOUBLE) -> Any:
    """Return ⌊extent · factor⌋ where the product is rounded as a float of a kind.

    >>> scaled(Size("h - 2"), 0.5), scaled(Size("h"), 0.7), scaled(10, 0.7), scaled(10, 0.7, "float32")
    (h // 2 - 1, floor(ToFloat(h) * 0.7), 7, 7)
    """
    return as_whole(round_down(arithmetic("*", extent, factor, kind)))


def truncated_quotient(a: Extent, b: Extent) -> Any:
    """Return a / b of whole numbers, cut off towards zero as in C."""
    return a // b if (least(a) >= 0 and least(b) >= 1) or b == 1 else _call("TruncDiv", a, b)


def remainder(a: Extent, b: Extent) -> Any:
    """Return what truncated division leaves, which has the sign of a, as in C."""
    return a - truncated_quotient(a, b) * b


def larger(a: Scalar, b: Scalar) -> Any:
    """Return the larger of two lengths.

    >>> larger(Size("h + 1"), Size("h")), larger(Size("h"), Size("w")), larger(Size("h"), 0)
    (h + 1, Max(h, w), h)
    """
    return _one_of("Max", ">=", a, b)


def smaller(a: Scalar, b: Scalar) -> Any:
    """Return the smaller of two lengths."""
    return _one_of("Min", "<=", a, b)


def _one_of(function: str, operator: str, a: Scalar, b: Scalar) -> Any:
    for symbol, one, other in ((operator, a, b), (_OPPOSITE[operator], b, a)):
        found = _proved(symbol, a, b)
        if found is not None:
            return one if found else other
    return _call(function, a, b)


_OPPOSITE = {">=": "<=", "<=": ">="}


def absolute(value: Scalar) -> Any:
    """Return |value|."""
    return larger(value, -value)


# ---- conditions ------------------------------------------------------------------------------------------------

_OPERATORS: dict[str, ast.cmpop] = {
    "==": ast.Eq(),
    "!=": ast.NotEq(),
    "<": ast.Lt(),
    "<=": ast.LtE(),
    ">": ast.Gt(),
    ">=": ast.GtE(),
}


def compare(operator: str, a: Scalar, b: Scalar) -> Any:
    """Return whether a comparison holds: known if it does for all sizes, or for none, else a condition.

    >>> compare("==", Size("h"), -1), compare(">", Size("2*h"), Size("h")), compare("==", Size("h"), 3)
    (False, True, h == 3)
    """
    found = _proved(operator, a, b)
    return _of(ast.Compare(_tree(a), [_OPERATORS[operator]], [_tree(b)])) if found is None else found


def _proved(operator: str, a: Scalar, b: Scalar) -> bool | None:
    """Return whether a comparison holds; None if that is the sizes' to say."""
    if not isinstance(a, Size) and not isinstance(b, Size):
        return bool(_of(ast.Compare(_tree(a), [_OPERATORS[operator]], [_tree(b)])))
    if not {kind_of(a), kind_of(b)} <= {WHOLE, CONDITION}:
        return None
    difference: Any = a - b
    low, high = expression.bounds(difference.text) if isinstance(difference, Size) else (difference, difference)
    signs = [sign for sign, seen in ((-1, low < 0), (0, low <= 0 <= high), (1, high > 0)) if seen]
    truths = {bool(_of(ast.Compare(_tree(sign), [_OPERATORS[operator]], [_tree(0)]))) for sign in signs}
    return truths.pop() if len(truths) == 1 else None


def both(a: Scalar, b: Scalar) -> Any:
    """Return whether two conditions hold."""
    return _joined(ast.And(), a, b, neutral=True)


def either(a: Scalar, b: Scalar) -> Any:
    """Return whether one of two conditions holds, or both."""
    return _joined(ast.Or(), a, b, neutral=False)


def _joined(operator: ast.boolop, a: Scalar, b: Scalar, neutral: bool) -> Any:
    for known, other in ((a, b), (b, a)):
        if not isinstance(known, Size):
            return other if bool(known) == neutral else not neutral
    return _of(ast.BoolOp(operator, [_tree(a), _tree(b)]))


def negation(condition: Scalar) -> Any:
    """Return whether a condition does not hold."""
    return _of(ast.UnaryOp(ast.Not(), condition.tree)) if isinstance(condition, Size) else not condition


def choose(condition: Scalar, a: Scalar, b: Scalar) -> Any:
    """Return a where a condition holds, else b."""
    if not isinstance(condition, Size):
        return a if condition else b
    return a if a == b and kind_of(a) == kind_of(b) else _call("Where", condition, a, b)


# ---- values ----------------------------------------------------------------------------------------------------


def evaluate(extent: Extent, sizes: Mapping[str, int]) -> int:
    """Return the length that ``extent`` has for the given input sizes."""
    return extent.value(sizes) if isinstance(extent, Size) else int(extent)


def evaluate_shape(extents: Extents, sizes: Mapping[str, int]) -> Shape:
    """Return the shape that ``extents`` has for the given input sizes."""
    return tuple(evaluate(extent, sizes) for extent in extents)


def differ(a: Extent, b: Extent) -> bool:
    """Return whether two lengths are surely not equal: an open size may turn out to be anything.

    >>> differ(3, 4), differ(3, Size("h"))
    (True, False)
    """
    return not isinstance(a, Size) and not isinstance(b, Size) and a != b


def measure(extents: Sequence[Extents], shapes: Sequence[Shape]) -> dict[str, int]:
    """Return the number of every size that names an axis, where it is first named.

    >>> measure([(Size("n"), 3, Size("h"))], [(2, 3, 8)])
    {'n': 2, 'h': 8}
    """
    sizes: dict[str, int] = {}
    for row, shape in zip(extents, shapes, strict=True):
        for extent, length in zip(row, shape, strict=True):
            if isinstance(extent, Size) and extent.is_axis:
                sizes.setdefault(extent.text, length)
    return sizes
