"""Rules of the operators that compute with elements: activations, arithmetic, reductions, products, quantisation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from convoxel.graph.ir.graph import Value
from convoxel.graph.read.onnx.call import Call, Tensor, dtype_of, rank, rule
from convoxel.graph.read.onnx.file import working_dtype
from convoxel.graph.read.reader import NeedsValue, NotNative

# ---- activations -----------------------------------------------------------------------------------------

# ONNX's name: the engine's activation, the array function, ONNX's attributes and their usual values by our names
_ACTIVATIONS: dict[str, tuple[str, str, dict[str, tuple[str, float]]]] = {
    "Relu": ("relu", "relu", {}),
    "Sigmoid": ("sigmoid", "sigmoid", {}),
    "Tanh": ("tanh", "tanh", {}),
    "HardSwish": ("hard_swish", "hard_swish", {}),
    "LeakyRelu": ("leaky_relu", "leaky_relu", {"alpha": ("slope", 0.01)}),
    "Elu": ("elu", "elu", {"alpha": ("alpha", 1.0)}),
    "Mish": ("", "mish", {}),
    "Softplus": ("", "softplus", {}),
    "Softsign": ("", "softsign", {}),
    "Erf": ("", "erf", {}),
    "Exp": ("", "exp", {}),
    "Log": ("", "log", {}),
    "Sqrt": ("", "sqrt", {}),
    "Abs": ("", "abs", {}),
    "Reciprocal": ("", "reciprocal", {}),
    "Floor": ("", "floor", {}),
    "Ceil": ("", "ceil", {}),
    "Round": ("", "round", {}),
    "Sign": ("", "sign", {}),
    "Sin": ("", "sin", {}),
    "Cos": ("", "cos", {}),
    "ThresholdedRelu": ("", "thresholded_relu", {"alpha": ("alpha", 1.0)}),
    "Shrink": ("", "shrink", {"lambd": ("lambd", 0.5), "bias": ("bias", 0.0)}),
}


@rule(*_ACTIVATIONS)
def _activation(call: Call) -> Any:
    native, array, names = _ACTIVATIONS[call.operator]
    x = call.tensor(0)
    given = {ours: call.get(theirs, usual) for theirs, (ours, usual) in names.items()}
    if native and call.native(x):
        return call.add("activation", x, activation=native, slope=float(next(iter(given.values()), 0.0)))
    return call.add(f"array.{array}", x, **given)


def _affine(call: Call, x: Tensor, scale: float, shift: float, activation: str = "none", slope: float = 0.0) -> Any:
    parts = (np.array([scale], np.float64), np.array([shift], np.float64))
    return call.add("affine", x, *parts, activation=activation, slope=slope)


@rule("Neg")
def _negate(call: Call) -> Any:
    x = call.tensor(0)
    return _affine(call, x, -1.0, 0.0) if call.native(x) else call.add("array.negate", x)


@rule("Selu")
def _selu(call: Call) -> Any:
    x = call.tensor(0)
    alpha, gamma = call.get("alpha", 1.6732632423543772), call.get("gamma", 1.0507009873554805)
    if call.native(x):
        return _affine(call, call.add("activation", x, activation="elu", slope=alpha), gamma, 0.0)
    return call.add("array.selu", x, alpha=alpha, gamma=gamma)


@rule("Celu")
def _celu(call: Call) -> Any:
    x, alpha = call.tensor(0), call.get("alpha", 1.0)
    if call.native(x):  # α · elu(x / α)
        return _affine(call, _affine(call, x, 1.0 / alpha, 0.0, "elu", 1.0), alpha, 0.0)
    return call.add("array.celu", x, alpha=alpha)


@rule("HardSigmoid")
def _hard_sigmoid(call: Call) -> Any:
    x, alpha, beta = call.tensor(0), call.get("alpha", 0.2), call.get("beta", 0.5)
    if call.native(x):  # ReLU6 of six times the line, over six
        return _affine(call, _affine(call, x, 6 * alpha, 6 * beta, "relu6"), 1 / 6, 0.0)
    return call.add("array.hard_sigmoid", x, alpha=alpha, beta=beta)


@rule("Swish")
def _swish(call: Call) -> Any:
    x, alpha = call.tensor(0), call.get("alpha", 1.0)
    if alpha == 1 and call.native(x):
        return call.add("activation", x, activation="silu")
    return call.add("array.swish", x, alpha=alpha)


@rule("Gelu")
def _gelu(call: Call) -> Any:
    x, approximate = call.tensor(0), call.get("approximate", "none")
    if approximate == "none" and call.native(x):
        return call.add("activation", x, activation="gelu")
    return call.add("array.gelu", x, approximate=approximate)


@rule("PRelu")
def _prelu(call: Call) -> Any:
    x, slope = call.tensor(0), call.tensor(1)
    if call.version < 7 and rank(slope) == 1 and rank(x) > 2:  # one slope for each channel
        slope = call.add("array.reshape", slope, shape=(*slope.shape, *(1,) * (rank(x) - 2)))
    number = slope if isinstance(slope, np.ndarray) and slope.dtype != object else None
    if number is not None and call.native(x):
        if number.size == 1:
            return call.add("activation", x, activation="leaky_relu", slope=float(number.reshape(-1)[0]))
        spatial_axes = rank(x) - 2
        padded = (1,) * (rank(x) - number.ndim) + number.shape
        if padded == (1, x.shape[1], *(1,) * spatial_axes):
            return call.add("prelu", x, number.reshape(-1))
    return call.add("array.prelu", x, slope)


@rule("Clip")
def _clip(call: Call) -> Any:
    x = call.tensor(0)
    if call.version < 11:
        low: Any = np.array(call.get("min", -math.inf), dtype_of(x))
        high: Any = np.array(call.get("max", math.inf), dtype_of(x))
    else:
        low, high = call.maybe(1), call.maybe(2)
    if call.native(x) and not isinstance(low, Value) and not isinstance(high, Value):
        bounds = (-math.inf if low is None else float(low), math.inf if high is None else float(high))
        if bounds[0] == 0 and bounds[1] >= 1e30:
            return call.add("activation", x, activation="relu")
        if bounds == (0, 6):
            return call.add("activation", x, activation="relu6")
        if bounds[0] == 0 and bounds[1] > 0:
            return _affine(call, _affine(call, x, 6 / bounds[1], 0.0, "relu6"), bounds[1] / 6, 0.0)
    return call.add("array.clip", x, low, high)


# ---- arithmetic ------------------------------------------------------------------------------------------

_BINARY = {"Add": "add", "Sub": "subtract", "Mul": "multiply", "Div": "divide", "Pow": "power"}


@rule(*_BINARY)
def _binary(call: Call) -> Any:
    a, b = call.tensor(0), call.tensor(1)
    if call.version < 7 and call.get("broadcast"):  # b's axes begin at ``axis`` of a
        axis = call.get("axis", rank(a) - rank(b))
        b = call.add("array.reshape", b, shape=(*b.shape, *(1,) * (rank(a) - axis - rank(b))))
    return combine(call, _BINARY[call.operator], a, b)


def combine(call: Call, operator: str, a: Tensor, b: Tensor) -> Any:
    """Return a ∘ b: natively where one is a number per channel, or both are tensors of the network that fit."""
    if operator in ("add", "multiply", "subtract", "divide"):
        found = _scaled(call, operator, a, b)
        if found is None and operator in ("add", "multiply"):
            found = _scaled(call, operator, b, a)
        if found is None and operator != "divide":
            found = _combined(call, operator, a, b)
        if found is not None:
            return found
    square = operator == "power" and isinstance(b, np.ndarray) and b.size == 1 and rank(b) <= rank(a)
    if square and call.native(a) and float(call.known(1, "the power").reshape(-1)[0]) == 2:
        return call.add("multiply", a, a)
    return call.add(f"array.{operator}", a, b)


def _scaled(call: Call, operator: str, a: Tensor, b: Tensor) -> Any:
    """Return a ∘ b as an affine step where b is one known number, or one for each channel."""
    if not call.native(a) or isinstance(b, Value) or b.dtype == object or rank(b) > rank(a):
        return None
    padded = (1,) * (rank(a) - b.ndim) + b.shape
    if b.size != 1 and (b.size != padded[1] or padded[1] != a.shape[1]):
        return None
    number = b.reshape(-1).astype(np.float64)
    if operator == "divide" and not np.all(np.isfinite(1 / np.where(number == 0, np.nan, number))):
        return None
    scale = {"multiply": number, "divide": 1 / number}.get(operator, np.ones(1)) if operator != "add" else np.ones(1)
    shift = {"add": number, "subtract": -number}.get(operator, np.zeros(1))
    return call.add("affine", a, scale, shift)


def _combined(call: Call, operator: str, a: Tensor, b: Tensor) -> Any:
    """Return a ∘ b as a native step of two tensors, the second stretched."""
    if operator != "subtract" and _stretches(b, a) and not _stretches(a, b):
        a, b = b, a
    if not call.native(a, b) or rank(a) != rank(b) or _stretches(b, a):
        return None
    if operator == "subtract":
        if not isinstance(b, Value):
            return call.add("add", a, -b)
        return call.add("add", a, _affine(call, b, -1.0, 0.0))
    return call.add(operator, a, b)


def _stretches(wide: Tensor, narrow: Tensor) -> bool:
    """Whether ``wide`` has an axis along which ``narrow`` is repeated."""
    if rank(wide) != rank(narrow):
        return rank(wide) > rank(narrow)
    return any(q == 1 != p for p, q in zip(wide.shape, narrow.shape, strict=True))


@rule("Sum", "Mean", "Max", "Min")
def _many(call: Call) -> Any:
    operator = {"Sum": "add", "Mean": "add", "Max": "maximum", "Min": "minimum"}[call.operator]
    result = call.tensor(0)
    for index in range(1, len(call)):
        result = combine(call, operator, result, call.tensor(index))
    if call.operator == "Mean" and len(call) > 1:
        result = combine(call, "divide", result, np.array(len(call), dtype_of(result)))
    return result


@rule("Mod")
def _modulo(call: Call) -> Any:
    return call.add("array.remainder" if call.get("fmod") else "array.modulo", call.tensor(0), call.tensor(1))


_COMPARISONS = {
    "Equal": "equal",
    "Greater": "greater",
    "GreaterOrEqual": "greater_or_equal",
    "Less": "less",
    "LessOrEqual": "less_or_equal",
    "And": "and",
    "Or": "or",
    "Xor": "xor",
}


@rule(*_COMPARISONS)
def _comparison(call: Call) -> Any:
    return call.add(f"array.{_COMPARISONS[call.operator]}", call.tensor(0), call.tensor(1), dtype="bool")


@rule("Not")
def _not(call: Call) -> Any:
    return call.add("array.not", call.tensor(0))


@rule("Where")
def _select(call: Call) -> Any:
    operands = [call.tensor(index) for index in range(3)]
    return call.add("array.select", *operands, dtype=dtype_of(operands[1]))


@rule("If")
def _if(call: Call) -> Any:
    condition = call.tensor(0)
    if isinstance(condition, Value):
        names = call.decisive(condition)
        numbers = {value.name for value in call.reader.inputs if value.dtype.startswith("float")}
        if names and not names & numbers:  # sizes and switches, not images
            raise NeedsValue(names, "a condition")
        raise NotNative("a condition that the network computes")
    return call.branch(call.get("then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"))


# ---- reductions ------------------------------------------------------------------------------------------

_REDUCTIONS = {
    "ReduceMean": "mean",
    "ReduceSum": "sum",
    "ReduceMax": "max",
    "ReduceMin": "min",
    "ReduceProd": "product",
    "ReduceL1": "l1",
    "ReduceL2": "l2",
    "ReduceSumSquare": "sum_square",
    "ReduceLogSum": "log_sum",
    "ReduceLogSumExp": "log_sum_exp",
}


@rule(*_REDUCTIONS)
def _reduce(call: Call) -> Any:
    x, function = call.tensor(0), _REDUCTIONS[call.operator]
    given = call.get("axes")
    if call.maybe(1) is not None:
        given = call.extents(1, "axes")
    if not given and call.get("noop_with_empty_axes"):
        return _elementwise(call, function, x)
    axes = tuple(sorted(call.axis(axis, rank(x)) for axis in given)) if given else tuple(range(rank(x)))
    keep = bool(call.get("keepdims", 1))
    spatial_axes = tuple(range(2, rank(x)))
    if axes == spatial_axes and axes and call.native(x) and function in ("mean", "max"):
        ones = (1,) * len(axes)
        pool = "adaptive_average_pool" if function == "mean" else "global_max_pool"
        pooled = call.add(pool, x, size=ones)
        return pooled if keep else call.add("squeeze", pooled, shape=tuple(x.shape[:2]))
    return call.add(f"array.reduce_{function}", x, axes=axes, keep=keep)


def _elementwise(call: Call, function: str, x: Tensor) -> Any:
    """A reduction over no axis still applies what comes before and after its sum."""
    if function in ("l1", "l2"):
        return call.add("array.abs", x)
    if function == "sum_square":
        return call.add("array.multiply", x, x)
    return call.add("array.log", x) if function == "log_sum" else x


@rule("ArgMax", "ArgMin")
def _arg_extreme(call: Call) -> Any:
    x = call.tensor(0)
    return call.add(
        "array.arg_extreme",
        x,
        dtype="int64",
        axis=call.axis(call.get("axis", 0), rank(x)),
        keep=bool(call.get("keepdims", 1)),
        last=bool(call.get("select_last_index", 0)),
        largest=call.operator == "ArgMax",
    )


@rule("TopK")
def _top(call: Call) -> Any:
    x = call.tensor(0)
    count = call.extents(1, "k")[0] if call.version >= 10 else call.get("k")
    axis, largest = call.axis(call.get("axis", -1), rank(x)), bool(call.get("largest", 1))
    return call.results("array.top", x, dtypes=(None, "int64"), count=count, axis=axis, largest=largest)


@rule("CumSum")
def _accumulate(call: Call) -> Any:
    x = call.tensor(0)
    axis = call.axis(call.extents(1, "axis")[0], rank(x))
    options: dict[str, Any] = {"exclusive": bool(call.get("exclusive", 0)), "reverse": bool(call.get("reverse", 0))}
    return call.add("array.accumulate", x, axis=axis, **options)


@rule("Softmax", "LogSoftmax", "Hardmax")
def _softmax(call: Call) -> Any:
    x = call.tensor(0)
    axis = call.axis(call.get("axis", -1 if call.version >= 13 else 1), max(rank(x), 1))
    axes = (axis,) if call.version >= 13 else tuple(range(axis, rank(x)))
    if call.operator == "Hardmax":
        return call.add("array.hardmax", x, axes=axes)
    return call.add("array.softmax", x, axes=axes, log=call.operator == "LogSoftmax")


# ---- products --------------------------------------------------------------------------------------------


@rule("MatMul")
def _matmul(call: Call) -> Any:
    a, b = call.tensor(0), call.tensor(1)
    weight = call.constant(1)
    if weight is not None and weight.ndim == 2 and rank(a) == 2 and call.native(a) and weight.dtype == np.float32:
        return call.add("dense", a, np.ascontiguousarray(weight.T))
    return call.add("array.matmul", a, b)


@rule("Gemm")
def _gemm(call: Call) -> Any:
    a, b, c = call.tensor(0), call.tensor(1), call.maybe(2)
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    weight = call.constant(1)
    bias = None if c is None else call.constant(2)
    plain = c is None or (bias is not None and bias.size in (1, b.shape[0 if call.get("transB") else 1]))
    if call.native(a) and not call.get("transA") and weight is not None and weight.dtype == np.float32 and plain:
        rows = weight if call.get("transB") else weight.T
        shift = None if bias is None else np.broadcast_to(bias.reshape(-1) * np.float32(beta), rows.shape[0]).copy()
        if bias is None or bias.ndim < 2 or bias.shape[0] == 1:
            return call.add("dense", a, np.ascontiguousarray(rows * np.float32(alpha)), shift)
    a = call.add("array.transpose", a, axes=(1, 0)) if call.get("transA") else a
    b = call.add("array.transpose", b, axes=(1, 0)) if call.get("transB") else b
    product = call.add("array.matmul", a, b)
    if alpha != 1:
        product = call.add("array.multiply", product, np.array(alpha, dtype_of(product)))
    if c is None:
        return product
    return call.add(
        "array.add", product, c if beta == 1 else call.add("array.multiply", c, np.array(beta, dtype_of(c)))
    )


@rule("Einsum")
def _einsum(call: Call) -> Any:
    operands = [call.tensor(index) for index in range(len(call))]
    return call.add("array.einsum", *operands, equation=call.get("equation"))


# ---- quantisation ----------------------------------------------------------------------------------------


@rule("QuantizeLinear")
def _quantise(call: Call) -> Any:
    x, scale, zero = call.tensor(0), call.tensor(1), call.maybe(2)
    chosen = call.get("output_dtype", 0)
    dtype = dtype_of(zero) if zero is not None else working_dtype(chosen) if chosen else "uint8"
    return call.add(
        "array.quantise",
        x,
        scale,
        zero,
        dtype=dtype,
        to=dtype,
        axis=call.get("axis", 1),
        block=call.get("block_size", 0),
        saturate=bool(call.get("saturate", 1)),
    )


@rule("DequantizeLinear")
def _dequantise(call: Call) -> Any:
    x, scale, zero = call.tensor(0), call.tensor(1), call.maybe(2)
    chosen = call.get("output_dtype", 0)
    dtype = working_dtype(chosen) if chosen else dtype_of(scale)
    return call.add(
        "array.dequantise", x, scale, zero, dtype=dtype, axis=call.get("axis", 1), block=call.get("block_size", 0)
    )


@rule("MatMulInteger")
def _matmul_integer(call: Call) -> Any:
    a, b = _without_zero(call, 0, 2, -1), _without_zero(call, 1, 3, -2)
    return call.add("array.matmul", a, b)


def _without_zero(call: Call, index: int, zero: int, axis: int) -> Any:
    """Return an operand as int32 minus its zero point; a vector of those runs along the other axis than ``axis``."""
    x, point = call.tensor(index), call.maybe(zero)
    wide = call.add("array.cast", x, dtype="int32", to="int32")
    if point is None:
        return wide
    shift = call.add("array.cast", point, dtype="int32", to="int32")
    if rank(shift) == 1 and shift.shape[0] != 1 and axis == -1:
        shift = call.add("array.reshape", shift, shape=(*shift.shape, 1))
    return call.add("array.subtract", wide, shift)


def dequantised(call: Call, index: int, scale: int, zero: int, axis: int) -> Any:
    """Return a quantised operand as float32."""
    return call.add(
        "array.dequantise",
        call.tensor(index),
        call.tensor(scale),
        call.tensor(zero),
        dtype="float32",
        axis=axis,
        block=0,
    )


def requantised(call: Call, x: Tensor, scale: int, zero: int) -> Any:
    """Return a float32 result as the type of its zero point."""
    point = call.tensor(zero)
    wide = call.add("array.cast", call.tensor(scale), dtype="float32", to="float32")
    return call.add("array.quantise", x, wide, point, dtype=dtype_of(point), to=dtype_of(point), axis=1, block=0)


@rule("QLinearMatMul")
def _quantised_matmul(call: Call) -> Any:
    product = call.add("array.matmul", dequantised(call, 0, 1, 2, -2), dequantised(call, 3, 4, 5, -1))
    return requantised(call, product, 6, 7)
