"""Operators on open sizes: arrays of objects, computed element by element as ONNX defines each operator.

Exporters compute sizes as a network computes tensors: ``Shape``, ``Cast`` to float, ``Mul``, ``Floor``, ``Cast`` back.
Elements are numbers and ``Size``; the kind of an element says which type the tensor has.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from convoxel.files.values import Array, Options
from convoxel.graph.ir.size import (
    Scalar,
    Size,
    absolute,
    arithmetic,
    as_float,
    as_whole,
    both,
    choose,
    compare,
    either,
    kind_of,
    larger,
    negation,
    remainder,
    round_down,
    round_to_even,
    round_up,
    smaller,
    truncated_quotient,
)

MOVES = frozenset(("concat", "gather", "slice", "reshape", "transpose", "tile", "expand", "fill", "take_along"))
"""Operators that move elements; their functions on arrays serve sizes as they serve numbers."""

_WHOLE, _FLOATS = "int64", ("float32", "float64")


def type_of(array: Array) -> str:
    """Return the type of an array of sizes, which its first open one tells."""
    return next(element.kind for element in array.reshape(-1) if isinstance(element, Size))


def settled(values: Array, dtype: str) -> Array:
    """Return an array of objects as plain numbers of a type if no size among them is open."""
    if any(isinstance(value, Size) for value in values.reshape(-1)):
        return values
    return values.astype(dtype)


def compute(
    operator: str, operands: Sequence[Array | None], attributes: Options, dtype: str, lengths: Collection[Size]
) -> Array | None:
    """Return an operator's result, an array of objects; None if it is no arithmetic with sizes.

    Args:
        operator: ours.
        operands: arrays of numbers and of objects.
        attributes: the operator's.
        dtype: the type of its operands, behind those that choose.
        lengths: sizes that are lengths of axes, and therefore not negative.
    """
    if operator == "cast":
        return _each(lambda x: _cast(x, dtype, attributes["to"]), operands[0])
    if operator == "reduce" and attributes["function"] in _REDUCTIONS:
        return _reduced(operands[0], dtype, **attributes)
    if operator == "clip":
        low, high = operands[1:]
        result = operands[0]
        for function, bound in ((larger, low), (smaller, high)):
            result = result if bound is None else _each(function, result, bound)
        return result
    if operator == "equal":
        return _each(lambda a, b: _equal(a, b, dtype, lengths), *operands)
    if operator == "divide":
        return _each(lambda a, b: _quotient(a, b, dtype, lengths), *operands)
    if operator in _ARITHMETIC:
        return _each(lambda a, b: arithmetic(_ARITHMETIC[operator], a, b, dtype), *operands)
    if operator in _COMPARISONS:
        return _each(lambda a, b: compare(_COMPARISONS[operator], a, b), *operands)
    if operator in _FUNCTIONS and not (dtype in _FLOATS and operator in ("modulo", "remainder")):
        return _each(_FUNCTIONS[operator], *operands)
    return None


_ARITHMETIC = {"add": "+", "subtract": "-", "multiply": "*"}
_COMPARISONS = {"greater": ">", "greater_or_equal": ">=", "less": "<", "less_or_equal": "<="}
_FUNCTIONS: Mapping[str, Callable[..., Scalar]] = {
    "abs": absolute,
    "and": both,
    "ceil": round_up,
    "floor": round_down,
    "maximum": larger,
    "minimum": smaller,
    "modulo": lambda a, b: a % b,
    "negate": lambda x: -x,
    "not": negation,
    "or": either,
    "relu": lambda x: larger(x, 0),
    "remainder": remainder,
    "round": round_to_even,
    "select": choose,
    "xor": lambda a, b: either(both(a, negation(b)), both(negation(a), b)),
}


def _each(function: Callable[..., Scalar], *operands: Array | None) -> Array:
    """Apply a function to the elements of stretched operands."""
    given = [operand.astype(object) for operand in operands if operand is not None]  # Python's numbers
    return np.asarray(np.frompyfunc(function, len(given), 1)(*given), object)


def _cast(x: Scalar, dtype: str, to: str) -> Any:
    if to in _FLOATS:
        return as_float(as_whole(x) if dtype == "bool" else x, to)
    if to == "bool":
        return x if kind_of(x) == "bool" else compare("!=", x, 0)
    return as_whole(x)


def _equal(a: Scalar, b: Scalar, dtype: str, lengths: Collection[Size]) -> Any:
    """Compare; a length is no negative number, with which exporters mark axes that stay as they are."""
    for one, other in ((a, b), (b, a)):
        if isinstance(one, Size) and one in lengths and not isinstance(other, Size) and other < 0:
            return False
    if dtype == "bool":
        return either(both(a, b), both(negation(a), negation(b)))
    return compare("==", a, b)


def _quotient(a: Any, b: Any, dtype: str, lengths: Collection[Size]) -> Any:
    """Divide whole numbers towards zero, as in C."""
    if dtype in _FLOATS:
        return arithmetic("/", a, b, dtype)
    if a in lengths and not isinstance(b, Size) and b > 0:
        return a // b
    return truncated_quotient(a, b)


_REDUCTIONS: Mapping[str, Callable[[Any, Any, str], Scalar]] = {
    "sum": lambda a, b, dtype: arithmetic("+", a, b, dtype),
    "product": lambda a, b, dtype: arithmetic("*", a, b, dtype),
    "max": lambda a, b, dtype: larger(a, b),
    "min": lambda a, b, dtype: smaller(a, b),
}


def _reduced(x: Array | None, dtype: str, function: str, axes: Sequence[int], keep: bool) -> Array:
    assert x is not None
    combine = np.frompyfunc(lambda a, b: _REDUCTIONS[function](a, b, dtype), 2, 1)
    for axis in sorted(axes, reverse=True):
        x = np.asarray(combine.reduce(x, axis=axis, keepdims=keep), object)
    return x
