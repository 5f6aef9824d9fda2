"""Functions of each element that NumPy alone computes: logarithms, angles, tests of numbers, bits of whole numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import NormalDist

import numpy as np

from convoxel.graph.operators.host import Array
from convoxel.graph.operators.operator import row
from convoxel.graph.operators.reads import pointwise, unchanged
from convoxel.graph.operators.shape import same, stretched


def _by_number(function: Callable[[float], float]) -> Callable[[Array], Array]:
    """Return the function on arrays; what has no value is NaN."""

    def one(x: float) -> float:
        try:
            return function(x)
        except (ValueError, OverflowError):
            return math.nan

    def each(x: Array) -> Array:
        return np.vectorize(one, otypes=[np.float64])(x).astype(x.dtype) if x.size else x

    return each


def _inverse_erf(y: float) -> float:
    """erf(x) = 2 Φ(√2 x) − 1, with the normal distribution Φ."""
    if abs(y) == 1:
        return math.copysign(math.inf, y)
    return NormalDist().inv_cdf((1 + y) / 2) / math.sqrt(2)


def _log_gamma(x: float) -> float:
    return math.inf if math.isinf(x) or (x <= 0 and x == int(x)) else math.lgamma(x)


def _nan_to_num(x: Array, nan: float | None, high: float | None, low: float | None) -> Array:
    if x.dtype.kind != "f":
        return x
    limits = np.finfo(x.dtype)
    ends = (limits.max if high is None else high, limits.min if low is None else low)
    return np.nan_to_num(x, nan=nan or 0, posinf=ends[0], neginf=ends[1])


UNARY: Mapping[str, Callable[[Array], Array]] = {
    "acos": np.arccos,
    "acosh": np.arccosh,
    "asin": np.arcsin,
    "asinh": np.arcsinh,
    "atan": np.arctan,
    "atanh": np.arctanh,
    "bitwise_not": np.invert,
    "cosh": np.cosh,
    "erfc": _by_number(math.erfc),
    "erfinv": _by_number(_inverse_erf),
    "exp2": np.exp2,
    "expm1": np.expm1,
    "isfinite": np.isfinite,
    "isinf": np.isinf,
    "isnan": np.isnan,
    "isneginf": lambda x: np.isinf(x) & (x < 0),
    "isposinf": lambda x: np.isinf(x) & (x > 0),
    "lgamma": _by_number(_log_gamma),
    "log10": np.log10,
    "log1p": np.log1p,
    "log2": np.log2,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "signbit": np.signbit,
    "sinc": np.sinc,
    "sinh": np.sinh,
    "tan": np.tan,
    "trunc": np.trunc,
}
"""Operators by PyTorch's names; those that ask or count bits keep or make their own types."""

BINARY: Mapping[str, Callable[[Array, Array], Array]] = {
    "atan2": np.arctan2,
    "bitwise_and": np.bitwise_and,
    "bitwise_or": np.bitwise_or,
    "bitwise_xor": np.bitwise_xor,
    "copysign": np.copysign,
    "floor_divide": np.floor_divide,
    "fmax": np.fmax,
    "fmin": np.fmin,
    "gcd": np.gcd,
    "heaviside": lambda x, y: np.where(x == 0, y, x > 0).astype(y.dtype),  # NaN is not above zero
    "hypot": np.hypot,
    "lcm": np.lcm,
    "left_shift": np.left_shift,
    "log_add_exp": np.logaddexp,
    "log_add_exp2": np.logaddexp2,
    "nextafter": np.nextafter,
    "not_equal": np.not_equal,
    "right_shift": np.right_shift,
}

ROWS = (
    *(row(f"{name}(x)", same, function, reads=unchanged) for name, function in UNARY.items()),
    *(row(f"{name}(x, y)", stretched, function, reads=pointwise) for name, function in BINARY.items()),
    row("nan_to_num(x; nan=None, high=None, low=None)", same, _nan_to_num, reads=unchanged),
)
