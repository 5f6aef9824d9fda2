"""Rules of the operators that compute with elements: activations, arithmetic, reductions, products, quantisation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from convoxel.files.values import JsonObject
from convoxel.graph.ir.graph import Value
from convoxel.graph.ir.size import Size, negation
from convoxel.graph.read.onnx.call import Call, Result, Tensor, dtype_of, rank, rule, snake
from convoxel.graph.read.onnx.file import working_dtype
from convoxel.graph.read.reader import NeedsValue, NotNative

# ---- activations -----------------------------------------------------------------------------------------

# ONNX's name, which is ours in another spelling, and its attributes by our names, at their usual values
_FUNCTIONS: dict[str, dict[str, tuple[str, Any]]] = {
    **{name: {} for name in ("Relu", "Sigmoid", "Tanh", "Mish", "Softplus", "Softsign", "Erf", "Exp", "Log", "Sqrt")},
    **{name: {} for name in ("Abs", "Reciprocal", "Floor", "Ceil", "Round", "Sign", "Sin", "Cos", "Not", "HardSwish")},
    **{name: {} for name in ("Neg", "MatMul")},
    "LeakyRelu": {"slope": ("alpha", 0.01)},
    "Elu": {"alpha": ("alpha", 1.0)},
    "Celu": {"alpha": ("alpha", 1.0)},
    "Selu": {"alpha": ("alpha", 1.6732632423543772), "gamma": ("gamma", 1.0507009873554805)},
    "HardSigmoid": {"alpha": ("alpha", 0.2), "beta": ("beta", 0.5)},
    "Swish": {"alpha": ("alpha", 1.0)},
    "Gelu": {"approximate": ("approximate", "none")},
    "ThresholdedRelu": {"alpha": ("alpha", 1.0)},
    "Shrink": {"lambd": ("lambd", 0.5), "bias": ("bias", 0.0)},
    "Einsum": {"equation": ("equation", None)},
}
_SPELT = {"Neg": "negate", "MatMul": "matmul"}


@rule(*_FUNCTIONS)
def _function(call: Call) -> Result:
    given = {ours: call.get(theirs, usual) for ours, (theirs, usual) in _FUNCTIONS[call.operator].items()}
    operands = [call.tensor(index) for index in range(len(call))]
    return call.add(_SPELT.get(call.operator, snake(call.operator)), *operands, **given)


@rule("PRelu")
def _prelu(call: Call) -> Result:
    x, slope = call.tensor(0), call.tensor(1)
    if call.version < 7 and rank(slope) == 1 and rank(x) > 2:  # one slope for each channel
        slope = call.add("reshape", slope, shape=(*slope.shape, *(1,) * (rank(x) - 2)))
    return call.add("prelu", x, slope)


@rule("Clip")
def _clip(call: Call) -> Result:
    x = call.tensor(0)
    if call.version >= 11:
        return call.add("clip", x, call.maybe(1), call.maybe(2))
    low, high = (np.array(call.get(key, usual), dtype_of(x)) for key, usual in (("min", -math.inf), ("max", math.inf)))
    return call.add("clip", x, low, high)


# ---- arithmetic ------------------------------------------------------------------------------------------

_BINARY = {"Add": "add", "Sub": "subtract", "Mul": "multiply", "Div": "divide", "Pow": "power"}


@rule(*_BINARY)
def _binary(call: Call) -> Result:
    a, b = call.tensor(0), call.tensor(1)
    if call.version < 7 and call.get("broadcast"):  # b's axes begin at ``axis`` of a
        axis = call.get("axis", rank(a) - rank(b))
        b = call.add("reshape", b, shape=(*b.shape, *(1,) * (rank(a) - axis - rank(b))))
    return call.add(_BINARY[call.operator], a, b)


@rule("Sum", "Mean", "Max", "Min")
def _many(call: Call) -> Result:
    operator = {"Sum": "add", "Mean": "add", "Max": "maximum", "Min": "minimum"}[call.operator]
    result = call.tensor(0)
    for index in range(1, len(call)):
        result = call.add(operator, result, call.tensor(index))
    if call.operator == "Mean" and len(call) > 1:
        result = call.add("divide", result, np.array(len(call), dtype_of(result)))
    return result


@rule("Mod")
def _modulo(call: Call) -> Result:
    return call.add("remainder" if call.get("fmod") else "modulo", call.tensor(0), call.tensor(1))


@rule("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor")
def _comparison(call: Call) -> Result:
    return call.add(snake(call.operator), call.tensor(0), call.tensor(1), dtype="bool")


@rule("Where")
def _select(call: Call) -> Result:
    operands = [call.tensor(index) for index in range(3)]
    return call.add("select", *operands, dtype=dtype_of(operands[1]))


@rule("If")
def _if(call: Call) -> Result:
    condition = call.tensor(0)
    if isinstance(condition, Value):
        names = call.decisive(condition)
        numbers = {value.name for value in call.reader.inputs if value.dtype.startswith("float")}
        if names and not names & numbers:  # sizes and switches, not images
            raise NeedsValue(names, "a condition")
        raise NotNative("a condition that the network computes")
    if condition.dtype == object:
        condition = np.array(_usual(call, condition.reshape(-1)[0]))
    return call.branch(call.get("then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"))


def _usual(call: Call, condition: Size) -> bool:
    """Return what a condition on sizes is for most of them, and have others refused: the graph is another for these."""
    names = sorted(condition.names())
    found = {bool(condition.value({name: length + i for i, name in enumerate(names)})) for length in (97, 128, 250)}
    if len(found) > 1:
        raise NotNative(f"another graph for sizes with {condition}")
    holds = found.pop()
    call.reader.require(condition if holds else negation(condition))
    return holds


# ---- reductions ------------------------------------------------------------------------------------------

_REDUCTIONS = {
    **{f"Reduce{name}": snake(name) for name in ("Mean", "Sum", "Max", "Min", "L1", "L2", "SumSquare", "LogSum")},
    "ReduceLogSumExp": "log_sum_exp",
    "ReduceProd": "product",
}


@rule(*_REDUCTIONS)
def _reduce(call: Call) -> Result:
    x, function = call.tensor(0), _REDUCTIONS[call.operator]
    given = call.get("axes")
    if call.maybe(1) is not None:
        given = call.extents(1, "axes")
    if not given and call.get("noop_with_empty_axes"):
        return _elementwise(call, function, x)
    axes = tuple(sorted(call.axis(axis, rank(x)) for axis in given)) if given else tuple(range(rank(x)))
    keep = bool(call.get("keepdims", 1))
    return call.add("reduce", x, function=function, axes=axes, keep=keep)


def _elementwise(call: Call, function: str, x: Tensor) -> Tensor:
    """A reduction over no axis still applies what comes before and after its sum."""
    if function in ("l1", "l2"):
        return call.add("abs", x)
    if function == "sum_square":
        return call.add("multiply", x, x)
    return call.add("log", x) if function == "log_sum" else x


@rule("ArgMax", "ArgMin")
def _arg_extreme(call: Call) -> Result:
    x = call.tensor(0)
    how: JsonObject = {"axis": call.along(x, 0), "keep": bool(call.get("keepdims", 1))}
    last, largest = bool(call.get("select_last_index", 0)), call.operator == "ArgMax"
    return call.add("arg_extreme", x, dtype="int64", **how, last=last, largest=largest)


@rule("TopK")
def _top(call: Call) -> Result:
    x = call.tensor(0)
    count = call.extents(1, "k")[0] if call.version >= 10 else call.get("k")
    axis, largest = call.along(x, -1), bool(call.get("largest", 1))
    return call.results("top", x, dtypes=(None, "int64"), count=count, axis=axis, largest=largest)


@rule("CumSum")
def _accumulate(call: Call) -> Result:
    x = call.tensor(0)
    axis = call.axis(call.extents(1, "axis")[0], rank(x))
    options: JsonObject = {"exclusive": bool(call.get("exclusive", 0)), "reverse": bool(call.get("reverse", 0))}
    return call.add("accumulate", x, axis=axis, **options)


@rule("Softmax", "LogSoftmax", "Hardmax")
def _softmax(call: Call) -> Result:
    x = call.tensor(0)
    axis = call.axis(call.get("axis", -1 if call.version >= 13 else 1), max(rank(x), 1))
    axes = (axis,) if call.version >= 13 else tuple(range(axis, rank(x)))
    if call.operator == "Hardmax":
        return call.add("hardmax", x, axes=axes)
    return call.add("softmax", x, axes=axes, log=call.operator == "LogSoftmax")


# ---- products --------------------------------------------------------------------------------------------


@rule("Gemm")
def _gemm(call: Call) -> Result:
    a, b, c = call.tensor(0), call.tensor(1), call.maybe(2)
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    if not call.get("transB"):
        b = call.add("transpose", b, axes=(1, 0))
    if alpha != 1:
        b = call.add("multiply", b, np.array(alpha, dtype_of(b)))
    if c is not None and beta != 1:
        c = call.add("multiply", c, np.array(beta, dtype_of(c)))
    a = call.add("transpose", a, axes=(1, 0)) if call.get("transA") else a
    if c is None or (isinstance(c, np.ndarray) and c.shape in ((b.shape[0],), (1, b.shape[0]))):
        return call.add("linear", a, b, None if c is None else c.reshape(-1))
    return call.add("add", call.add("linear", a, b), c)


# ---- quantisation ----------------------------------------------------------------------------------------


@rule("QuantizeLinear")
def _quantise(call: Call) -> Result:
    x, scale, zero = call.tensor(0), call.tensor(1), call.maybe(2)
    chosen = call.get("output_dtype", 0)
    dtype = dtype_of(zero) if zero is not None else working_dtype(chosen) if chosen else "uint8"
    how = {"axis": call.get("axis", 1), "block": call.get("block_size", 0), "saturate": bool(call.get("saturate", 1))}
    return call.add("quantise", x, scale, zero, dtype=dtype, to=dtype, **how)


@rule("DequantizeLinear")
def _dequantise(call: Call) -> Result:
    x, scale, zero = call.tensor(0), call.tensor(1), call.maybe(2)
    chosen = call.get("output_dtype", 0)
    dtype = working_dtype(chosen) if chosen else dtype_of(scale)
    how = {"axis": call.get("axis", 1), "block": call.get("block_size", 0)}
    return _dequantised(call, x, scale, zero, dtype, **how)


@rule("MatMulInteger")
def _matmul_integer(call: Call) -> Result:
    return call.add("matmul", without_zero(call, 0, 2, 1), without_zero(call, 1, 3, 0))


def without_zero(call: Call, index: int, zero: int, behind: int) -> Tensor:
    """Return an operand as int32 minus its zero point: one for all, or a vector with ``behind`` axes behind its own."""
    wide, point = call.add("cast", call.tensor(index), dtype="int32", to="int32"), call.maybe(zero)
    if point is None:
        return wide
    shift = call.add("cast", point, dtype="int32", to="int32")
    if rank(shift) == 1 and shift.shape[0] != 1 and behind:
        shift = call.add("reshape", shift, shape=(*shift.shape, *(1,) * behind))
    return call.add("subtract", wide, shift)


def dequantised(call: Call, index: int, scale: int, zero: int, axis: int) -> Tensor:
    """Return a quantised operand as float32."""
    x, size, point = (call.tensor(place) for place in (index, scale, zero))
    return _dequantised(call, x, size, point, "float32", axis=axis, block=0)


def _dequantised(
    call: Call, x: Tensor, scale: Tensor, zero: Tensor | None, dtype: str, axis: int, block: int
) -> Tensor:
    """Weights stay whole numbers until a pass has seen them."""
    how = {"axis": axis, "block": block}
    known = isinstance(x, np.ndarray) and x.ndim > 1 and x.dtype in (np.int8, np.uint8)
    add = call.keep if known else call.add
    return add("dequantise", x, scale, zero, dtype=dtype, **how)


def requantised(call: Call, x: Tensor, scale: int, zero: int) -> Tensor:
    """Return a float32 result as the type of its zero point."""
    point = call.tensor(zero)
    wide = call.add("cast", call.tensor(scale), dtype="float32", to="float32")
    return call.add("quantise", x, wide, point, dtype=dtype_of(point), to=dtype_of(point), axis=1, block=0)


@rule("QLinearMatMul")
def _quantised_matmul(call: Call) -> Result:
    product = call.add("matmul", dequantised(call, 0, 1, 2, -2), dequantised(call, 3, 4, 5, -1))
    return requantised(call, product, 6, 7)
