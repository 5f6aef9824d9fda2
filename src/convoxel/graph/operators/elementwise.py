"""Functions of each element: activations, scalings, arithmetic, comparisons, changes of type."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoxel.graph.operators.host import Array
from convoxel.graph.operators.operator import (
    EPILOGUE,
    REQUIRED,
    Operator,
    array_row,
    operands,
)
from convoxel.graph.operators.shape import (
    broadcast,
    onto,
    same,
    stretched,
)
from convoxel.graph.operators.step import Step

__all__ = ["ROWS", "UNARY"]


# ---- native steps


def _lower_activation(step: Step) -> None:
    """An activation that nothing could take in."""
    _affine(step, None, None)


def _lower_affine(step: Step) -> None:
    """Per channel x · scale + shift."""
    channels = step.out.shape[4]
    _affine(step, step.vector(1, channels, 1.0), step.vector(2, channels, 0.0))


def _affine(step: Step, scale: NDArray[np.float32] | None, shift: NDArray[np.float32] | None) -> None:
    channels = step.out.shape[4]
    scale = np.ones(channels, np.float32) if scale is None else np.broadcast_to(scale, channels).copy()
    shift = np.zeros(channels, np.float32) if shift is None else np.broadcast_to(shift, channels).copy()
    step.plan.affine(step.x, step.out, scale, shift, name=step.node.name, **step.epilogue)


def _lower_prelu(step: Step) -> None:
    """A leaky ReLU with a slope for each channel."""
    step.plan.prelu(step.x, step.out, step.vector(1, step.out.shape[4], 0.0), name=step.node.name)


def _lower_combine(step: Step) -> None:
    """Two tensors, element by element, both stretched along their axes of size 1."""
    step.plan.combine(step.node.operator, step.x, step.view(1), step.out, name=step.node.name, **step.epilogue)


# ---- on arrays


def _erf(x: Array) -> Array:
    return np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype) if x.size else x


def _sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, small) / (1 + small)


def _softplus(x: Array, beta: float = 1.0, threshold: float = math.inf) -> Array:
    scaled = beta * x
    return np.where(scaled > threshold, x, np.logaddexp(scaled, np.zeros_like(x)) / beta)


def _gelu(x: Array, approximate: str = "none") -> Array:
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)))


def _shrink(x: Array, lambd: float = 0.5, bias: float = 0.0) -> Array:
    return np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, 0))


def _selu(x: Array, alpha: float = 1.6732632423543772, gamma: float = 1.0507009873554805) -> Array:
    return gamma * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _celu(x: Array, alpha: float = 1.0) -> Array:
    return np.maximum(x, 0) + np.minimum(alpha * np.expm1(np.minimum(x, 0) / alpha), 0)


def _hard_sigmoid(x: Array, alpha: float = 0.2, beta: float = 0.5) -> Array:
    return np.clip(alpha * x + beta, 0, 1)


def _hard_swish(x: Array) -> Array:
    return x * _hard_sigmoid(x, 1 / 6, 0.5)


def _leaky_relu(x: Array, slope: float = 0.01) -> Array:
    return np.where(x >= 0, x, slope * x)


def _elu(x: Array, alpha: float = 1.0) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _swish(x: Array, alpha: float = 1.0) -> Array:
    return x * _sigmoid(alpha * x)


def _mish(x: Array) -> Array:
    return x * np.tanh(_softplus(x))


def _thresholded_relu(x: Array, alpha: float = 1.0, value: float = 0.0) -> Array:
    return np.where((x > alpha) | np.isnan(x), x, value)


def _nearest_even(x: Array) -> Array:
    return np.round(x)


UNARY: Mapping[str, tuple[Callable[..., Array], Mapping[str, Any]]] = {
    "abs": (np.abs, {}),
    "ceil": (np.ceil, {}),
    "celu": (_celu, {"alpha": 1.0}),
    "cos": (np.cos, {}),
    "elu": (_elu, {"alpha": 1.0}),
    "erf": (_erf, {}),
    "exp": (np.exp, {}),
    "floor": (np.floor, {}),
    "gelu": (_gelu, {"approximate": "none"}),
    "hard_sigmoid": (_hard_sigmoid, {"alpha": 0.2, "beta": 0.5}),
    "hard_swish": (_hard_swish, {}),
    "leaky_relu": (_leaky_relu, {"slope": 0.01}),
    "log": (np.log, {}),
    "mish": (_mish, {}),
    "negate": (np.negative, {}),
    "not": (np.logical_not, {}),
    "reciprocal": (np.reciprocal, {}),
    "relu": (lambda x: np.maximum(x, 0), {}),
    "round": (_nearest_even, {}),
    "selu": (_selu, {"alpha": 1.6732632423543772, "gamma": 1.0507009873554805}),
    "shrink": (_shrink, {"lambd": 0.5, "bias": 0.0}),
    "sigmoid": (_sigmoid, {}),
    "sign": (np.sign, {}),
    "sin": (np.sin, {}),
    "softplus": (_softplus, {"beta": 1.0, "threshold": math.inf}),
    "softsign": (lambda x: x / (1 + np.abs(x)), {}),
    "sqrt": (np.sqrt, {}),
    "swish": (_swish, {"alpha": 1.0}),
    "tanh": (np.tanh, {}),
    "thresholded_relu": (_thresholded_relu, {"alpha": 1.0, "value": 0.0}),
}
"""Name, function, and its attributes at their usual values. The result has the operand's type."""


def _divide(a: Array, b: Array) -> Array:
    """Whole numbers are divided towards zero, as in C."""
    if object in (a.dtype, b.dtype):
        return a // b  # sizes, which are never negative
    if a.dtype.kind not in "iu" or b.dtype.kind not in "iu":
        return a / b
    quotient = np.floor_divide(a, b)
    return quotient + ((quotient < 0) & (quotient * b != a)) if a.dtype.kind == "i" else quotient


def _power(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f" or b.dtype.kind == "f":
        return np.power(a.astype(np.float64), b.astype(np.float64))
    return np.power(a.astype(np.int64), b.astype(np.int64))


BINARY: Mapping[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "divide": _divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "modulo": np.mod,
    "multiply": np.multiply,
    "power": _power,
    "remainder": np.fmod,
    "subtract": np.subtract,
}
"""Both operands are stretched along axes of size 1; the result has the first one's type."""


COMPARISONS: Mapping[str, Callable[[Array, Array], Array]] = {
    "and": np.logical_and,
    "equal": np.equal,
    "greater": np.greater,
    "greater_or_equal": np.greater_equal,
    "less": np.less,
    "less_or_equal": np.less_equal,
    "or": np.logical_or,
    "xor": np.logical_xor,
}
"""As ``BINARY``; the result is boolean."""


def _select(condition: Array, x: Array, y: Array) -> Array:
    """Return x where the condition holds, else y; all three are stretched."""
    return np.where(condition, x, y)


def _prelu(x: Array, slope: Array) -> Array:
    """Return x where it is not negative, else slope · x with the slope stretched to x."""
    return np.where(x >= 0, x, slope * x)


def _clip(x: Array, low: Array | None, high: Array | None) -> Array:
    """Return min(max(x, low), high); a bound that is absent does not bind."""
    if low is not None:
        x = np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def _cast(x: Array, to: str) -> Array:
    """Return x in another type; fractions are cut off, numbers beyond a float's range become infinite."""
    return x if x.dtype == object else x.astype(np.dtype(to))


ROWS = (
    Operator("activation", operands("x"), same, {"activation": REQUIRED, "slope": 0.0}, lower=_lower_activation),
    Operator("affine", operands("x scale! shift!"), same, EPILOGUE, lower=_lower_affine),
    Operator("prelu", operands("x slope!"), same, lower=_lower_prelu),
    *(
        Operator(name, operands("x y"), broadcast, EPILOGUE, lower=_lower_combine)
        for name in ("add", "divide", "maximum", "minimum", "multiply", "subtract")
    ),
    *(array_row(name, function, **usual) for name, (function, usual) in UNARY.items()),
    *(array_row(name, f, stretched, "x y") for name, f in (*BINARY.items(), *COMPARISONS.items())),
    array_row("cast", _cast, to=REQUIRED),
    array_row("clip", _clip, onto, "x low? high?"),
    array_row("prelu", _prelu, onto, "x slope"),
    array_row("select", _select, stretched, "condition x y"),
)
