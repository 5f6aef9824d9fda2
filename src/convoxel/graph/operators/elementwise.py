"""Functions of each element: activations, scalings, arithmetic, comparisons, changes of type."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoxel.graph.ir.graph import Node
from convoxel.graph.ir.size import Shape
from convoxel.graph.operators.host import Array
from convoxel.graph.operators.operator import EPILOGUE, Operator, Shapes, row
from convoxel.graph.operators.reads import pointwise, unchanged
from convoxel.graph.operators.rewriter import Rewriter
from convoxel.graph.operators.shape import onto, same, stretched
from convoxel.graph.operators.step import Step

Rule = Callable[[Rewriter], bool]

_SELU_ALPHA, _SELU_GAMMA = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. 2017


# ---- native steps


def _lower_activation(step: Step) -> None:
    """An activation that was not fused into another operator."""
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


def _shrink(x: Array, lambd: float, bias: float) -> Array:
    return np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, x * 0))


def _elu(x: Array, alpha: float) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _leaky_relu(x: Array, slope: Array | float) -> Array:
    return np.where(x >= 0, x, slope * x)


def _thresholded_relu(x: Array, alpha: float, value: float) -> Array:
    return np.where((x > alpha) | np.isnan(x), x, value)


def _hard_sigmoid(x: Array, alpha: float, beta: float) -> Array:
    return np.clip(alpha * x + beta, 0, 1)


def _sign(x: Array) -> Array:
    """Return 1, 0 or −1; 0 for NaN."""
    return (x > 0).astype(x.dtype) - (x < 0).astype(x.dtype) if x.dtype.kind != "b" else x


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


COMBINATIONS: Mapping[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "divide": _divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "multiply": np.multiply,
    "subtract": np.subtract,
}
"""Both operands are stretched along axes of size 1; the result has the first one's type."""


_BINARY: Mapping[str, Callable[[Array, Array], Array]] = {
    "modulo": np.mod,
    "remainder": np.fmod,
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
    "equal": np.equal,
    "greater": np.greater,
    "greater_or_equal": np.greater_equal,
    "less": np.less,
    "less_or_equal": np.less_equal,
}
"""As ``COMBINATIONS``; the results of comparisons are boolean."""


def _clip(x: Array, low: Array | None, high: Array | None) -> Array:
    """Return min(max(x, low), high); a bound that is absent does not bind."""
    if low is not None:
        x = np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def _cast(x: Array, to: str) -> Array:
    """Return x in another type; fractions are cut off, numbers beyond a float's range become infinite."""
    return x if x.dtype == object else x.astype(np.dtype(to))


# ---- from arrays to native steps --------------------------------------------------------------------------


def clipping(low: float, high: float) -> tuple[str, Any]:
    """Return the activation, and its parameter, that cuts numbers off at ``low`` and ``high``."""
    known = {(0.0, math.inf): "relu", (0.0, 6.0): "relu6"}.get((low, high))
    return (known, 0.0) if known else ("clip", (low, high))


def _activation(kind: str, parameter: str = "") -> Rule:
    """Return the rule of an activation whose ``parameter`` is the engine's slope."""
    return lambda site: site.activation(kind, float(site.node[parameter]) if parameter else 0.0)


def _native_celu(site: Rewriter) -> bool:
    alpha = float(site.node["alpha"])
    return alpha > 0 and site.activation("celu", alpha)


def _native_softplus(site: Rewriter) -> bool:
    """softplus(βx) / β; beyond a threshold of 15 or more float32 cannot tell it from x."""
    beta, threshold = float(site.node["beta"]), float(site.node["threshold"])
    if threshold < 15 or beta <= 0:
        return False
    if beta == 1:
        return site.activation("softplus")
    curved = site.between("affine", site.x.name, *site.scaling(beta, 0.0), shape=site.shape, activation="softplus")
    return site.last("affine", curved, *site.scaling(1 / beta, 0.0))


def _native_threshold(site: Rewriter) -> bool:
    """Replace values that are not above a bound by the bound."""
    bound = float(site.node["alpha"])
    return bound == float(site.node["value"]) and site.activation(*clipping(bound, math.inf))


def _native_selu(site: Rewriter) -> bool:
    """SELU by name with the usual α and γ, else a scaled ELU."""
    alpha, gamma = float(site.node["alpha"]), float(site.node["gamma"])
    if math.isclose(alpha, _SELU_ALPHA, rel_tol=1e-6) and math.isclose(gamma, _SELU_GAMMA, rel_tol=1e-6):
        return site.activation("selu")
    curved = site.between("activation", site.x.name, shape=site.shape, activation="elu", slope=alpha)
    return site.last("affine", curved, *site.scaling(gamma, 0.0))


def _native_gelu(site: Rewriter) -> bool:
    return site.activation("gelu_tanh" if site.node["approximate"] == "tanh" else "gelu")


def _native_hard_sigmoid(site: Rewriter) -> bool:
    alpha, beta = float(site.node["alpha"]), float(site.node["beta"])
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return site.activation("hard_sigmoid")
    return site.affine(alpha, beta, activation="clip", slope=(0.0, 1.0))


def _native_swish(site: Rewriter) -> bool:
    return site.node["alpha"] == 1 and site.activation("silu")


def _native_clip(site: Rewriter) -> bool:
    bounds = []
    for index, usual in ((1, -math.inf), (2, math.inf)):
        array = site.constant(index)
        if site.node.inputs[index] and (array is None or array.size != 1 or np.isnan(array).any()):
            return False
        bounds.append(usual if array is None else float(array.reshape(-1)[0]))
    return site.activation(*clipping(*bounds))


def _prelu_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """The slope is stretched to x; native steps take a plain list of one for each channel as well."""
    return same(node, shapes) if node.native else onto(node, shapes)


def _one_slope(site: Rewriter) -> bool:
    slope = site.constant(1)
    return slope is not None and slope.size == 1 and site.activation("leaky_relu", float(slope.reshape(-1)[0]))


def _slope_per_channel(site: Rewriter) -> bool:
    slope = site.constant(1)
    return slope is not None and _lifted(slope, len(site.shape)) == (1, site.shape[1], *(1,) * (len(site.shape) - 2))


def _lifted(array: Array, rank: int) -> Shape:
    """Return the shape with axes of size 1 in front, as many as stretching to ``rank`` would add."""
    return (1,) * (rank - array.ndim) + array.shape


_SCALINGS: dict[str, Callable[[NDArray[np.float64], bool], tuple[Any, Any] | None]] = {
    "add": lambda number, first: (1.0, number),
    "subtract": lambda number, first: (-1.0, number) if first else (1.0, -number),
    "multiply": lambda number, first: (number, 0.0),
    "divide": lambda number, first: None if first or not np.all(np.isfinite(1 / number)) else (1 / number, 0.0),
}
"""Scale and shift of x ∘ number, or of number ∘ x if the number comes ``first``."""


def _native_combination(site: Rewriter) -> bool:
    """Two tensors, or a tensor and numbers for its channels."""
    names, rank = list(site.node.inputs), len(site.shape)
    for index in range(2):
        array = site.constant(index)
        if array is None:
            continue
        shape = _lifted(array, rank)
        if array.dtype not in (np.float32, np.float64):
            return False
        if _native_scaling(site, array.reshape(shape), first=index == 0):
            return True
        if shape != array.shape or array.dtype != np.float32:
            names[index] = site.add(array.reshape(shape).astype(np.float32), "other")
    if not all(map(site.is_native, names)) or len({len(site.extents(name)) for name in names}) != 1:
        return False
    operator, repeated = site.node.operator, [_is_stretched(site, name) for name in names]
    if operator == "subtract":  # the sign may move into a convolution
        operator, whole = "add", site.extents(names[1])
        names[1] = site.between("affine", names[1], *site.scaling(-1.0, 0.0), shape=whole)
    if operator in ("add", "multiply") and repeated == [True, False]:
        names.reverse()
    return site.last(operator, *names)


def _is_stretched(site: Rewriter, name: str) -> bool:
    """Return True if an operand is repeated along an axis of the result. Axes that are not literally 1 are equal."""
    return any((p == 1) != (q == 1) for p, q in zip(site.extents(name), site.shape, strict=True))


def _native_scaling(site: Rewriter, number: Array, first: bool) -> bool:
    """Replace the node by a scaling or a cut-off if ``number`` holds one number for each channel, or one for all."""
    name, operator = site.node.inputs[1 if first else 0], site.node.operator
    per_channel = number.ndim >= 2 and number.size == number.shape[1] == site.shape[1]
    x = site.graph.values.get(name)
    if x is None or x.shape != site.shape or not site.is_native(name) or not (per_channel or number.size == 1):
        return False
    numbers = number.reshape(-1).astype(np.float64)
    if operator in ("maximum", "minimum"):
        if numbers.size != 1 or np.isnan(numbers).any():
            return False
        bound = float(numbers[0])
        kind, slope = clipping(bound, math.inf) if operator == "maximum" else clipping(-math.inf, bound)
        return site.last("activation", name, activation=kind, slope=slope)
    with np.errstate(all="ignore"):
        found = _SCALINGS[operator](numbers, first)
    return found is not None and site.last("affine", name, *site.scaling(*found))


def _native_square(site: Rewriter) -> bool:
    exponent = site.constant(1)
    square = exponent is not None and exponent.size == 1 and exponent.reshape(-1)[0] == 2
    return square and site.is_native(site.x.name) and site.last("multiply", site.x.name, site.x.name)


def _native_reciprocal(site: Rewriter) -> bool:
    return site.last("divide", site.add(np.ones((1,) * len(site.shape), np.float32), "one"), site.x.name)


def _bare(function: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    """Return a combination that ignores the epilogue, which only native steps have."""
    return lambda x, y, activation, slope: function(x, y)


def _unary(
    declared: str, function: Callable[..., Array], to_native: Rule | None = None, **attributes: float
) -> Operator:
    """Return the row of a function of each element; the result has the operand's type."""
    return row(declared, same, function, to_native=to_native, attributes=attributes, reads=unchanged)


_UNARY = (
    _unary("abs(x)", np.abs, lambda site: site.activation("leaky_relu", -1.0)),
    _unary("ceil(x)", np.ceil),
    _unary(
        "celu(x; alpha=1.0)",
        lambda x, alpha: np.maximum(x, 0) + np.minimum(alpha * np.expm1(np.minimum(x, 0) / alpha), 0),
        _native_celu,
    ),
    _unary("cos(x)", np.cos),
    _unary("elu(x; alpha=1.0)", _elu, _activation("elu", "alpha")),
    _unary("erf(x)", _erf),
    _unary("exp(x)", np.exp),
    _unary("floor(x)", np.floor),
    _unary("gelu(x; approximate='none')", _gelu, _native_gelu),
    _unary("hard_sigmoid(x; alpha=0.2, beta=0.5)", _hard_sigmoid, _native_hard_sigmoid),
    _unary("hard_swish(x)", lambda x: x * _hard_sigmoid(x, 1 / 6, 0.5), _activation("hard_swish")),
    _unary("leaky_relu(x; slope=0.01)", _leaky_relu, _activation("leaky_relu", "slope")),
    _unary("log(x)", np.log),
    _unary("mish(x)", lambda x: x * np.tanh(_softplus(x)), _activation("mish")),
    _unary("negate(x)", np.negative, lambda site: site.affine(-1.0, 0.0)),
    _unary("not(x)", np.logical_not),
    _unary("reciprocal(x)", np.reciprocal, _native_reciprocal),
    _unary("relu(x)", lambda x: np.maximum(x, 0), _activation("relu")),
    _unary("round(x)", np.round),
    _unary(
        "selu(x)", lambda x, alpha, gamma: gamma * _elu(x, alpha), _native_selu, alpha=_SELU_ALPHA, gamma=_SELU_GAMMA
    ),
    _unary("shrink(x; lambd=0.5, bias=0.0)", _shrink),
    _unary("sigmoid(x)", _sigmoid, _activation("sigmoid")),
    _unary("sign(x)", _sign),
    _unary("sin(x)", np.sin),
    _unary("softplus(x; beta=1.0)", _softplus, _native_softplus, threshold=math.inf),
    _unary("softsign(x)", lambda x: x / (1 + np.abs(x))),
    _unary("sqrt(x)", np.sqrt),
    _unary("swish(x; alpha=1.0)", lambda x, alpha: x * _sigmoid(alpha * x), _native_swish),
    _unary("tanh(x)", np.tanh, _activation("tanh")),
    _unary("thresholded_relu(x; alpha=1.0, value=0.0)", _thresholded_relu, _native_threshold),
)
UNARY = frozenset(each.name for each in _UNARY)

ROWS = (
    row("activation(x; activation, slope=0.0)", same, lower=_lower_activation, reads=unchanged),
    row(f"affine(x, scale!, shift!; {EPILOGUE})", same, lower=_lower_affine, reads=unchanged),
    *_UNARY,
    *(
        row(
            f"{name}(x, y; {EPILOGUE})",
            stretched,
            _bare(f),
            _lower_combine,
            to_native=_native_combination,
            reads=pointwise,
        )
        for name, f in COMBINATIONS.items()
    ),
    row("power(x, y)", stretched, _power, to_native=_native_square, reads=pointwise),
    *(row(f"{name}(x, y)", stretched, f, reads=pointwise) for name, f in _BINARY.items()),
    row("cast(x; to)", same, _cast, reads=unchanged),
    row("clip(x, low?, high?)", onto, _clip, to_native=_native_clip, reads=unchanged),
    row(
        "prelu(x, slope!)",
        _prelu_shape,
        _leaky_relu,
        _lower_prelu,
        fits=_slope_per_channel,
        to_native=_one_slope,
        reads=unchanged,
        stored="float32",
    ),
    row("select(condition, x, y)", stretched, np.where, reads=pointwise),
)
