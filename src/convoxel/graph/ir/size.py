"""Sizes that become known when an input arrives: exact integer expressions over the input's axes.

A ``Size`` is text such as ``2 * (h // 2)``. It is parsed with a short list of permitted operations, never
evaluated as Python, because graphs may come from outside. Two sizes are equal when their texts are; arithmetic
on sizes keeps a normal form (``polynomial``).
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
from convoxel.graph.ir import polynomial

__all__ = ["Extent", "Extents", "Shape", "Size", "differ", "evaluate", "evaluate_shape", "larger", "measure", "smaller"]

_MAX_EXPONENT = 8  # sizes are products of a few axes; more is an attack on memory, not a network
_MAX_BASE = 2**40
_MAX_TEXT = 4096

Number = Fraction | float
"""Exact, except where a network multiplies a size by a float: then rounded as the network rounds."""

_BINARY: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: Fraction(a // b),
    ast.Mod: lambda a, b: a % b,
    ast.BitAnd: lambda a, b: Fraction(bool(a) and bool(b)),
    ast.BitOr: lambda a, b: Fraction(bool(a) or bool(b)),
}
_COMPARE: dict[type[ast.cmpop], Callable[[Number, Number], bool]] = {
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
}
# The function names in which exporters write sizes.
_FUNCTIONS: dict[str, Callable[..., Number]] = {
    **dict.fromkeys(("Max", "max"), max),
    **dict.fromkeys(("Min", "min"), min),
    **dict.fromkeys(("FloorDiv", "CleanDiv"), lambda a, b: Fraction(a // b)),
    "CeilDiv": lambda a, b: Fraction(-(-a // b)),
    **dict.fromkeys(("Mod", "PythonMod"), lambda a, b: a % b),
    **dict.fromkeys(("IntTrueDiv", "FloatTrueDiv"), lambda a, b: float(a) / float(b)),
    "ToFloat": float,
    **dict.fromkeys(("floor", "FloorToInt"), lambda a: Fraction(math.floor(a))),
    **dict.fromkeys(("ceiling", "CeilToInt"), lambda a: Fraction(math.ceil(a))),
    "TruncToInt": lambda a: Fraction(math.trunc(a)),
}


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
        object.__setattr__(self, "text", ast.unparse(_parse(self.text)))

    def value(self, sizes: Mapping[str, int]) -> int:
        """Return the integer that the expression has for ``sizes`` (name → axis length)."""
        try:
            result = Fraction(_evaluate(_parse(self.text), sizes))
        except (ZeroDivisionError, OverflowError):
            raise GraphError(f"size {self.text} divides by zero for {dict(sizes)}") from None
        if result.denominator != 1:
            raise GraphError(f"size {self.text} is {result}, not a whole number, for {dict(sizes)}")
        return int(result)

    @property
    def is_axis(self) -> bool:
        """True if the expression is just the length of an input's axis."""
        return self.text.isidentifier()

    def names(self) -> frozenset[str]:
        """Return the names of the input sizes that occur."""
        return frozenset(_names(_parse(self.text)))

    def renamed(self, names: Mapping[str, str]) -> Size:
        """Return the expression with its names replaced."""
        tree = ast.parse(self.text, mode="eval")
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                node.id = names.get(node.id, node.id)
        return Size(ast.unparse(tree))

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__  # shapes in messages read as (n, 3, h, w)

    # Arithmetic, so that a shape rule written for numbers also serves open sizes. In comparisons an open size counts
    # as larger than every number, and as neither smaller nor larger than another open size.

    def __add__(self, other: Extent) -> Extent:
        return _extent(polynomial.add(self.text, _operand(other)))

    def __sub__(self, other: Extent) -> Extent:
        return _extent(polynomial.add(self.text, _operand(other), -1))

    def __rsub__(self, other: Extent) -> Extent:
        return _extent(polynomial.add(_operand(other), self.text, -1))

    def __mul__(self, other: Extent) -> Extent:
        return _extent(polynomial.multiply(self.text, _operand(other)))

    __radd__, __rmul__ = __add__, __mul__

    def __floordiv__(self, other: Extent) -> Extent:
        return _extent(polynomial.floor_divide(self.text, _operand(other)))

    def __rfloordiv__(self, other: Extent) -> Extent:
        return _extent(polynomial.floor_divide(_operand(other), self.text))

    def __mod__(self, other: Extent) -> Extent:
        return _extent(f"({self.text}) % ({_operand(other)})")

    def __neg__(self) -> Extent:
        return _extent(polynomial.multiply(self.text, -1))

    def __lt__(self, other: Any) -> bool:
        return False

    def __gt__(self, other: Any) -> bool:
        return not isinstance(other, Size)

    def __le__(self, other: Any) -> bool:
        return self == other

    def __ge__(self, other: Any) -> bool:
        return not isinstance(other, Size) or self == other


def _operand(value: Extent) -> str | int:
    return value.text if isinstance(value, Size) else int(value)


def _extent(text: str) -> Extent:
    """Return a number where the expression has become one."""
    try:
        return int(text)
    except ValueError:
        return Size(text)


Extent = int | Size
"""The length of an axis: a number, or an expression over the input's axes."""
Extents = tuple[Extent, ...]
Shape = tuple[int, ...]


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


def larger(a: Extent, b: Extent) -> Extent:
    """Return the larger of two lengths."""
    return Size(f"Max({a}, {b})") if isinstance(a, Size) or isinstance(b, Size) else max(a, b)


def smaller(a: Extent, b: Extent) -> Extent:
    """Return the smaller of two lengths."""
    return Size(f"Min({a}, {b})") if isinstance(a, Size) or isinstance(b, Size) else min(a, b)


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


@lru_cache(maxsize=4096)
def _parse(text: str) -> ast.expr:
    if len(text) > _MAX_TEXT:
        raise GraphError(f"size expression of {len(text)} characters; at most {_MAX_TEXT} are read")
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise GraphError(f"cannot read the size {text!r}: not an expression") from None
    tree = _Comparisons().visit(tree)
    _check(tree, text)
    return tree


class _Comparisons(ast.NodeTransformer):
    """Writes ``Eq(a, b)`` and ``Ne(a, b)``, as exporters do, as ``a == b`` and ``a != b``."""

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        operator = {"Eq": ast.Eq, "Ne": ast.NotEq}.get(getattr(node.func, "id", ""))
        if operator is None or len(node.args) != 2:
            return node
        return ast.Compare(node.args[0], [operator()], [node.args[1]])


def _check(node: ast.expr, text: str) -> None:
    """Raise unless ``node`` consists of permitted operations."""
    if isinstance(node, ast.Constant):
        permitted = isinstance(node.value, int | float) and math.isfinite(node.value)
        children: list[ast.expr] = []
    elif isinstance(node, ast.Name):
        permitted, children = True, []
    elif isinstance(node, ast.BinOp):
        if isinstance(node.op, ast.Pow):
            exponent = node.right.value if isinstance(node.right, ast.Constant) else None
            permitted = isinstance(exponent, int) and 0 <= exponent <= _MAX_EXPONENT
        else:
            permitted = type(node.op) in _BINARY
        children = [node.left, node.right]
    elif isinstance(node, ast.UnaryOp):
        permitted, children = isinstance(node.op, ast.USub | ast.Not), [node.operand]
    elif isinstance(node, ast.Compare):
        permitted = all(type(operator) in _COMPARE for operator in node.ops)
        children = [node.left, *node.comparators]
    elif isinstance(node, ast.BoolOp):
        permitted, children = True, list(node.values)
    elif isinstance(node, ast.Call):
        permitted = isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS and not node.keywords
        children = list(node.args)
    else:
        permitted, children = False, []
    if not permitted:
        raise GraphError(f"cannot read the size {text!r}: {ast.unparse(node)!r} is not size arithmetic")
    for child in children:
        _check(child, text)


def _evaluate(node: ast.expr, sizes: Mapping[str, int]) -> Number:
    if isinstance(node, ast.Constant):
        assert isinstance(node.value, int | float)
        return node.value if isinstance(node.value, float) else Fraction(node.value)
    if isinstance(node, ast.Name):
        if node.id not in sizes:
            raise GraphError(f"size {node.id} is not among the input sizes {sorted(sizes)}")
        return Fraction(sizes[node.id])
    if isinstance(node, ast.BinOp):
        left, right = _evaluate(node.left, sizes), _evaluate(node.right, sizes)
        if isinstance(node.op, ast.Pow):
            if not -_MAX_BASE <= left <= _MAX_BASE:  # powers of powers of powers
                raise GraphError(f"cannot evaluate the size {ast.unparse(node)!r}: {_MAX_BASE} is the largest base")
            return left ** int(right)
        return _BINARY[type(node.op)](left, right)
    if isinstance(node, ast.UnaryOp):
        operand = _evaluate(node.operand, sizes)
        return -operand if isinstance(node.op, ast.USub) else Fraction(not operand)
    if isinstance(node, ast.Compare):
        terms = [_evaluate(term, sizes) for term in (node.left, *node.comparators)]
        return Fraction(all(_COMPARE[type(op)](a, b) for op, a, b in zip(node.ops, terms, terms[1:], strict=False)))
    if isinstance(node, ast.BoolOp):
        truths = [bool(_evaluate(term, sizes)) for term in node.values]
        return Fraction(all(truths) if isinstance(node.op, ast.And) else any(truths))
    assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    return _FUNCTIONS[node.func.id](*(_evaluate(argument, sizes) for argument in node.args))


def _names(node: ast.expr) -> set[str]:
    called = {id(call.func) for call in ast.walk(node) if isinstance(call, ast.Call)}
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and id(n) not in called}
