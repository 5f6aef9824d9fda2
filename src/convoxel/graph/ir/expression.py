"""Trees of size arithmetic: read from text, checked against a list of permitted operations, evaluated, written.

A tree is one of Python's syntax trees, so ``ast.unparse`` writes it with the parentheses that it needs; nothing here
or elsewhere puts texts of expressions together. Trees may come from outside: they are never evaluated as Python.
"""

from __future__ import annotations

import ast
import copy
import math
import struct
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import NamedTuple

from convoxel.errors import GraphError
from convoxel.graph.ir import polynomial
from convoxel.graph.ir.text_cache import kept_by_length

_MAX_EXPONENT = 8  # sizes are products of a few axes; more is an attack on memory, not a network
_MAX_BASE = 2**40
_MAX_TEXT, _SHOWN = 4096, 60
_DEEPEST = 250  # what follows goes down by recursion

Number = Fraction | float
"""Exact, except where a network computes with a size as a float: then rounded as the network rounds."""

WHOLE, SINGLE, DOUBLE, CONDITION = "int64", "float32", "float64", "bool"
"""The kinds of an expression, by the names of the types that hold its values."""

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


class _Function(NamedTuple):
    """A function, how many operands it takes (None: any number), and the kind of its values ("": the operands')."""

    value: Callable[..., Number]
    operands: int | None
    kind: str


def _single(x: Number) -> float:
    """Return the nearest float32."""
    rounded: float = struct.unpack("f", struct.pack("f", float(x)))[0]
    return rounded


def _toward_zero(a: Number, b: Number) -> Fraction:
    quotient = a / b if isinstance(a, float) or isinstance(b, float) else Fraction(a) / Fraction(b)
    return Fraction(math.trunc(quotient))


# The names in which PyTorch's exporter writes sizes, and what ONNX's operators need beside them: ``Float32`` rounds.
_FUNCTIONS: dict[str, _Function] = {
    **dict.fromkeys(("Max", "max"), _Function(max, None, "")),
    **dict.fromkeys(("Min", "min"), _Function(min, None, "")),
    **dict.fromkeys(("FloorDiv", "CleanDiv"), _Function(lambda a, b: Fraction(a // b), 2, WHOLE)),
    "CeilDiv": _Function(lambda a, b: Fraction(-(-a // b)), 2, WHOLE),
    "TruncDiv": _Function(_toward_zero, 2, WHOLE),
    **dict.fromkeys(("Mod", "PythonMod"), _Function(lambda a, b: a % b, 2, "")),
    **dict.fromkeys(("IntTrueDiv", "FloatTrueDiv"), _Function(lambda a, b: float(a) / float(b), 2, DOUBLE)),
    "ToFloat": _Function(float, 1, DOUBLE),
    "Float32": _Function(_single, 1, SINGLE),
    "TruncToFloat": _Function(lambda a: float(math.trunc(a)), 1, DOUBLE),
    **dict.fromkeys(("floor", "FloorToInt"), _Function(lambda a: Fraction(math.floor(a)), 1, WHOLE)),
    **dict.fromkeys(("ceiling", "CeilToInt"), _Function(lambda a: Fraction(math.ceil(a)), 1, WHOLE)),
    "TruncToInt": _Function(lambda a: Fraction(math.trunc(a)), 1, WHOLE),
    "RoundToInt": _Function(lambda a: Fraction(round(a)), 1, WHOLE),
    **dict.fromkeys(("OpaqueUnaryFn_sqrt", "sqrt"), _Function(math.sqrt, 1, DOUBLE)),
    "FloatPow": _Function(math.pow, 2, DOUBLE),
    "Identity": _Function(lambda a: a, 1, ""),
    "Where": _Function(lambda chosen, a, b: a if chosen else b, 3, ""),
}


def call(function: str, *operands: ast.expr) -> ast.expr:
    """Return the tree of a function of trees."""
    return ast.Call(ast.Name(function), list(operands), [])


@kept_by_length
def parse(text: str) -> ast.expr:
    """Return the tree of a text.

    Raises ``GraphError`` if it uses anything but integers, fractions, names, ``+ - * / // % **``, comparisons,
    their combinations, and the functions above.
    """
    if len(text) > _MAX_TEXT:
        raise GraphError(f"size expression of {len(text)} characters; at most {_MAX_TEXT} are read: {_begun(text)}")
    try:
        tree = polynomial.syntax(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise GraphError(f"cannot read the size {_begun(text)}: not an expression, or one too deep") from None
    _check(tree, text, 0)
    return _Comparisons().visit(copy.deepcopy(tree)) if "Eq(" in text or "Ne(" in text else tree


class _Comparisons(ast.NodeTransformer):
    """Writes ``Eq(a, b)`` and ``Ne(a, b)``, as exporters do, as ``a == b`` and ``a != b``."""

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        operator = _EQUALITIES.get(getattr(node.func, "id", ""))
        return node if operator is None else ast.Compare(node.args[0], [operator()], [node.args[1]])


_EQUALITIES: dict[str, type[ast.cmpop]] = {"Eq": ast.Eq, "Ne": ast.NotEq}


@kept_by_length
def normal(text: str) -> str:
    """Return a text as ``ast.unparse`` writes its tree; raises as ``parse`` does."""
    return ast.unparse(parse(text))


def written(tree: ast.expr) -> str:
    """Return the text of a tree of permitted operations, which is normal; raises ``GraphError`` if it is too large."""
    text = ast.unparse(tree)
    parse(text)
    return text


def _begun(text: str) -> str:
    """Return a text as a message shows it, a long one by its beginning."""
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}…"


def _check(node: ast.expr, text: str, depth: int) -> None:
    """Raise unless ``node`` consists of permitted operations."""
    if depth > _DEEPEST:
        raise GraphError(f"size expression of more than {_DEEPEST} operations in one another: {_begun(text)}")
    if not _permitted(node):
        raise GraphError(f"cannot read the size {_begun(text)}: {_begun(ast.unparse(node))} is not size arithmetic")
    for operand in _operands(node):
        _check(operand, text, depth + 1)


def _permitted(node: ast.expr) -> bool:
    """Return True for a permitted operation, whatever its operands are."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int | float) and math.isfinite(node.value)
    if isinstance(node, ast.BinOp):
        if isinstance(node.op, ast.Pow):
            exponent = node.right.value if isinstance(node.right, ast.Constant) else None
            return isinstance(exponent, int) and 0 <= exponent <= _MAX_EXPONENT
        return type(node.op) in _BINARY
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.USub | ast.Not)
    if isinstance(node, ast.Compare):
        return all(type(operator) in _COMPARE for operator in node.ops)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args and not node.keywords:
        if node.func.id in _EQUALITIES:
            return len(node.args) == 2
        function = _FUNCTIONS.get(node.func.id)
        return function is not None and function.operands in (None, len(node.args))
    return isinstance(node, ast.Name | ast.BoolOp)


def _operands(node: ast.expr) -> list[ast.expr]:
    """Return what the operation at the top of a tree takes."""
    if isinstance(node, ast.BinOp):
        return [node.left, node.right]
    if isinstance(node, ast.UnaryOp):
        return [node.operand]
    if isinstance(node, ast.Compare):
        return [node.left, *node.comparators]
    if isinstance(node, ast.BoolOp):
        return node.values
    return node.args if isinstance(node, ast.Call) else []


def evaluate(node: ast.expr, sizes: Mapping[str, int]) -> Number:
    """Return the value of a tree for ``sizes`` (name → axis length); a condition is 1 or 0."""
    if isinstance(node, ast.Constant):
        assert isinstance(node.value, int | float)
        return node.value if isinstance(node.value, float) else Fraction(node.value)
    if isinstance(node, ast.Name):
        if node.id not in sizes:
            raise GraphError(f"size {node.id} is not among the input sizes {sorted(sizes)}")
        return Fraction(sizes[node.id])
    if isinstance(node, ast.BinOp):
        left, right = evaluate(node.left, sizes), evaluate(node.right, sizes)
        if isinstance(node.op, ast.Pow):
            if not -_MAX_BASE <= left <= _MAX_BASE:  # powers of powers of powers
                raise GraphError(f"cannot evaluate the size {ast.unparse(node)!r}: {_MAX_BASE} is the largest base")
            return left ** int(right)
        return _BINARY[type(node.op)](left, right)
    if isinstance(node, ast.UnaryOp):
        operand = evaluate(node.operand, sizes)
        return -operand if isinstance(node.op, ast.USub) else Fraction(not operand)
    if isinstance(node, ast.Compare):
        terms = [evaluate(term, sizes) for term in (node.left, *node.comparators)]
        return Fraction(all(_COMPARE[type(op)](a, b) for op, a, b in zip(node.ops, terms, terms[1:], strict=False)))
    if isinstance(node, ast.BoolOp):
        truths = [bool(evaluate(term, sizes)) for term in node.values]
        return Fraction(all(truths) if isinstance(node.op, ast.And) else any(truths))
    assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    if node.func.id == "Where":  # what is not chosen may divide by zero
        return evaluate(node.args[1 if evaluate(node.args[0], sizes) else 2], sizes)
    return _FUNCTIONS[node.func.id].value(*(evaluate(argument, sizes) for argument in node.args))


def names(node: ast.expr) -> set[str]:
    """Return the names of input sizes in a tree."""
    found, waiting = set(), [node]
    while waiting:
        each = waiting.pop()
        if isinstance(each, ast.Name):
            found.add(each.id)
        waiting += _operands(each)
    return found


def substituted(node: ast.expr, trees: Mapping[str, ast.expr]) -> ast.expr:
    """Return a copy of a tree with others in the place of names."""
    copied: ast.expr = _Substitution(trees).visit(copy.deepcopy(node))
    return copied


class _Substitution(ast.NodeTransformer):
    def __init__(self, trees: Mapping[str, ast.expr]) -> None:
        self._trees = trees

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._trees.get(node.id, node)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        node.args = [self.visit(argument) for argument in node.args]  # its function's name is no size
        return node


def kind(node: ast.expr) -> str:
    """Return the kind of a tree's values.

    >>> [kind(parse(text)) for text in ("h // 2", "0.5 * ToFloat(h)", "Float32(h)", "h == 3")]
    ['int64', 'float64', 'float32', 'bool']
    """
    if isinstance(node, ast.Constant):
        return DOUBLE if isinstance(node.value, float) else WHOLE
    if isinstance(node, ast.Compare | ast.BoolOp):
        return CONDITION
    if isinstance(node, ast.UnaryOp):
        return CONDITION if isinstance(node.op, ast.Not) else kind(node.operand)
    if isinstance(node, ast.BinOp):
        if isinstance(node.op, ast.BitAnd | ast.BitOr):
            return CONDITION
        return DOUBLE if {kind(node.left), kind(node.right)} & {SINGLE, DOUBLE} else WHOLE
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        own = _FUNCTIONS[node.func.id].kind
        found = [kind(argument) for argument in node.args[1 if node.func.id == "Where" else 0 :]]
        return own or next((each for each in (DOUBLE, SINGLE, WHOLE) if each in found), CONDITION)
    return WHOLE


@kept_by_length
def kind_of_text(text: str) -> str:
    """Return the kind of the values of a text's tree."""
    return kind(parse(text))


@kept_by_length
def names_of_text(text: str) -> frozenset[str]:
    """Return the names of input sizes in a text."""
    return frozenset(names(parse(text)))


_ROUNDING = frozenset(
    ("ToFloat", "Float32", "TruncToFloat", "floor", "FloorToInt", "ceiling", "CeilToInt", "TruncToInt", "RoundToInt")
)
Limits = tuple[float, float]
_ANY: Limits = (-math.inf, math.inf)


def limits(node: ast.expr) -> Limits:
    """Return numbers that a tree is never below and never above, where every axis is at least 1.

    >>> limits(parse("2 * (h // 2) + 3")), limits(parse("-h % 16"))
    ((3, inf), (0, 15))
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value, node.value
    if isinstance(node, ast.Name):
        return 1, math.inf
    if isinstance(node, ast.Compare | ast.BoolOp):
        return 0, 1
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        low, high = limits(node.operand)
        return -high, -low
    if isinstance(node, ast.BinOp):
        return _limits_of_two(type(node.op), limits(node.left), limits(node.right))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return _limits_of_call(node.func.id, [limits(argument) for argument in node.args])
    return _ANY


def _limits_of_two(operator: type[ast.operator], a: Limits, b: Limits) -> Limits:
    if operator is ast.Add:
        return a[0] + b[0], a[1] + b[1]
    if operator is ast.Sub:
        return a[0] - b[1], a[1] - b[0]
    if operator is ast.Mult:
        corners = [0 if 0 in (x, y) else x * y for x in a for y in b]  # 0 · ∞ is no number
        return min(corners), max(corners)
    if operator is ast.Mod and b[0] > 0:
        return 0, b[1] - 1
    if operator in (ast.FloorDiv, ast.Div) and b[0] > 0:
        corners = [x if math.isinf(x) else x / y for x in a for y in b]
        low, high = min(corners), max(corners)
        return (low, high) if operator is ast.Div or math.isinf(low) else (math.floor(low), high)
    return _ANY


def _limits_of_call(function: str, operands: list[Limits]) -> Limits:
    lows, highs = zip(*operands, strict=True)
    if function in ("Max", "max"):
        return max(lows), max(highs)
    if function in ("Min", "min"):
        return min(lows), min(highs)
    if function == "Where":
        return min(lows[1:]), max(highs[1:])
    if function in ("FloorDiv", "CleanDiv", "TruncDiv", "CeilDiv", "IntTrueDiv", "FloatTrueDiv"):
        operator = ast.Div if function.endswith("TrueDiv") else ast.FloorDiv
        low, high = _limits_of_two(operator, *operands)
        return low, high + (function in ("CeilDiv", "TruncDiv"))  # these round up, the latter what is below 0
    if function in ("Mod", "PythonMod"):
        return _limits_of_two(ast.Mod, *operands)
    if function not in _ROUNDING:
        return _ANY
    low, high = operands[0]
    return (low if math.isinf(low) else math.floor(low)), (high if math.isinf(high) else math.ceil(high))


@kept_by_length
def bounds(text: str) -> Limits:
    """Return the limits of a tree, of whole numbers those that relaxing its quotients proves as well.

    >>> bounds("(h + 1) // 2 - 2 * ((h + 1) // 4)")
    (0, 1)
    """
    tree = parse(text)
    low, high = limits(tree)
    if kind(tree) == WHOLE:
        least, most = (_relaxed_limit(text, sign) for sign in (-1, 1))
        low = max(low, float(least) if math.isinf(least) else math.ceil(least))
        high = min(high, float(most) if math.isinf(most) else math.floor(most))
    return low, high


def _relaxed_limit(text: str, sign: int) -> float | Fraction:
    """Return the limit above (``sign`` 1) or below (−1) that the quotients' fractions have."""
    total: float | Fraction = 0
    for product, coefficient in polynomial.relaxed(text, sign).items():
        if not coefficient:
            continue
        ends: Limits = (1, 1)
        for factor in product:
            ends = _limits_of_two(ast.Mult, ends, limits(parse(factor)))
        end = ends[1] if (coefficient > 0) == (sign > 0) else ends[0]
        total += coefficient * (end if math.isinf(end) else Fraction(end))
    return total
