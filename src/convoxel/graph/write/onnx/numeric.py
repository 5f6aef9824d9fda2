"""Rules of functions of each element: activations, arithmetic, comparisons, changes of type, whole numbers."""

from __future__ import annotations

import math

import numpy as np

from convoxel.graph.write.onnx.call import RULES, Call, gelu, onnx_type, rule

# ---- functions of one tensor ---------------------------------------------------------------------------------

_UNARY = {
    "abs": "Abs",
    "acos": "Acos",
    "acosh": "Acosh",
    "asin": "Asin",
    "asinh": "Asinh",
    "atan": "Atan",
    "atanh": "Atanh",
    "bitwise_not": "BitwiseNot",
    "ceil": "Ceil",
    "cos": "Cos",
    "cosh": "Cosh",
    "erf": "Erf",
    "exp": "Exp",
    "floor": "Floor",
    "hard_swish": "HardSwish",
    "isnan": "IsNaN",
    "isinf": "IsInf",
    "log": "Log",
    "negate": "Neg",
    "not": "Not",
    "reciprocal": "Reciprocal",
    "relu": "Relu",
    "round": "Round",
    "sigmoid": "Sigmoid",
    "sign": "Sign",
    "sin": "Sin",
    "sinh": "Sinh",
    "softsign": "Softsign",
    "sqrt": "Sqrt",
    "tan": "Tan",
    "tanh": "Tanh",
}
"""Operators that ONNX has with no more than the operand."""

_WITH_NUMBERS = {
    "celu": ("Celu", {"alpha": "alpha"}),
    "elu": ("Elu", {"alpha": "alpha"}),
    "hard_sigmoid": ("HardSigmoid", {"alpha": "alpha", "beta": "beta"}),
    "leaky_relu": ("LeakyRelu", {"slope": "alpha"}),
    "selu": ("Selu", {"alpha": "alpha", "gamma": "gamma"}),
    "shrink": ("Shrink", {"lambd": "lambd", "bias": "bias"}),
}
"""Operators of ONNX whose attributes are ours, by our names."""


@rule(*_UNARY)
def _unary(call: Call) -> str:
    return call.add(_UNARY[call.node.operator], call.x)


@rule(*_WITH_NUMBERS)
def _with_numbers(call: Call) -> str:
    operator, names = _WITH_NUMBERS[call.node.operator]
    return call.add(operator, call.x, **{theirs: float(call[ours]) for ours, theirs in names.items()})


@rule("gelu")
def _gelu(call: Call) -> str:
    return gelu(call, call.x, call.dtype(), tanh=call["approximate"] == "tanh")


@rule("mish")
def _mish(call: Call) -> str:
    return call.add("Mul", call.x, call.add("Tanh", call.add("Softplus", call.x)))


@rule("swish")
def _swish(call: Call) -> str:
    alpha = float(call["alpha"])
    inner = call.x if alpha == 1 else call.add("Mul", call.x, call.number(alpha))
    return call.add("Mul", call.x, call.add("Sigmoid", inner))


@rule("softplus")
def _softplus(call: Call) -> str:
    """softplus(βx) / β, and x beyond a threshold."""
    beta, threshold = float(call["beta"]), float(call["threshold"])
    if beta == 1 and math.isinf(threshold):
        return call.add("Softplus", call.x)
    scaled = call.add("Mul", call.x, call.number(beta))
    curved = call.add("Div", call.add("Softplus", scaled), call.number(beta))
    return call.add("Where", call.add("Greater", scaled, call.number(threshold)), call.x, curved)


@rule("thresholded_relu")
def _thresholded_relu(call: Call) -> str:
    below = call.add("LessOrEqual", call.x, call.number(float(call["alpha"])))
    return call.add("Where", below, call.number(float(call["value"])), call.x)


def _number_after(operator: str, number: float, then: str) -> None:
    """Register ``operator`` as a function of ONNX followed by an operation with a number."""
    function, operation = then.split()
    RULES[operator] = lambda call: call.add(operation, call.add(function, call.x), call.number(number))


for _name, _number, _then in (
    ("expm1", 1.0, "Exp Sub"),
    ("log2", math.log(2), "Log Div"),
    ("log10", math.log(10), "Log Div"),
):
    _number_after(_name, _number, _then)


@rule("log1p")
def _log1p(call: Call) -> str:
    return call.add("Log", call.add("Add", call.x, call.number(1.0)))


@rule("exp2")
def _exp2(call: Call) -> str:
    return call.add("Pow", call.number(2.0), call.x)


@rule("rsqrt")
def _rsqrt(call: Call) -> str:
    return call.add("Reciprocal", call.add("Sqrt", call.x))


@rule("trunc")
def _trunc(call: Call) -> str:
    return call.add("Mul", call.add("Sign", call.x), call.add("Floor", call.add("Abs", call.x)))


@rule("isposinf", "isneginf")
def _is_one_infinity(call: Call) -> str:
    positive = int(call.node.operator == "isposinf")
    return call.add("IsInf", call.x, detect_positive=positive, detect_negative=1 - positive)


@rule("isfinite")
def _is_finite(call: Call) -> str:
    return call.add("Not", call.add("Or", call.add("IsNaN", call.x), call.add("IsInf", call.x)))


@rule("activation")
def _activation(call: Call) -> str:
    return call.finished(call.x)


@rule("affine")
def _affine(call: Call) -> str:
    """x · scale + shift, one of each for every channel; factors of 1 and sums with 0 are left out."""
    y = call.x
    for index, operator, neutral in ((1, "Mul", 1), (2, "Add", 0)):
        array = call.known(index)
        if array is not None and not (array == neutral).all():
            y = call.add(operator, y, call.per_channel(array, call.rank()))
    return call.finished(y)


@rule("prelu")
def _prelu(call: Call) -> str:
    slope = call.known(1)
    assert slope is not None
    return call.add("PRelu", call.x, call.per_channel(slope, call.rank()) if call.node.native else call.operand(1))


# ---- functions of several tensors ----------------------------------------------------------------------------

_COMBINED = {"add": "Add", "divide": "Div", "maximum": "Max", "minimum": "Min", "multiply": "Mul", "subtract": "Sub"}
_BINARY = {
    "and": "And",
    "or": "Or",
    "xor": "Xor",
    "equal": "Equal",
    "greater": "Greater",
    "greater_or_equal": "GreaterOrEqual",
    "less": "Less",
    "less_or_equal": "LessOrEqual",
    "bitwise_and": "BitwiseAnd",
    "bitwise_or": "BitwiseOr",
    "bitwise_xor": "BitwiseXor",
}


@rule(*_COMBINED)
def _combined(call: Call) -> str:
    """The result has the first operand's type."""
    y = call.add(_COMBINED[call.node.operator], *call.alike(0, 1))
    return call.finished(call.cast(y, str(np.result_type(call.dtype(0), call.dtype(1))), call.result.dtype))


@rule(*_BINARY)
def _binary(call: Call) -> str:
    """Comparisons take tensors of one type, and logical ones truth values."""
    if call.node.operator in ("and", "or", "xor"):
        return call.add(
            _BINARY[call.node.operator], *(call.cast(call.operand(i), call.dtype(i), "bool") for i in (0, 1))
        )
    return call.add(_BINARY[call.node.operator], *call.alike(0, 1))


@rule("not_equal")
def _not_equal(call: Call) -> str:
    return call.add("Not", call.add("Equal", *call.alike(0, 1)))


@rule("power")
def _power(call: Call) -> str:
    return call.add("Pow", call.x, call.operand(1))


@rule("modulo")
def _modulo(call: Call) -> str:
    """The result has the divisor's sign, as in Python."""
    x, y = call.x, call.operand(1)
    if np.dtype(call.dtype()).kind in "iu":
        return call.add("Mod", x, y)
    return call.add("Sub", x, call.add("Mul", call.add("Floor", call.add("Div", x, y)), y))


@rule("remainder")
def _remainder(call: Call) -> str:
    return call.add("Mod", call.x, call.operand(1), fmod=1)


@rule("floor_divide")
def _floor_divide(call: Call) -> str:
    x, y = call.x, call.operand(1)
    if np.dtype(call.dtype()).kind not in "iu":
        return call.add("Floor", call.add("Div", x, y))
    return call.add("Div", call.add("Sub", x, call.add("Mod", x, y)), y)


@rule("hypot")
def _hypot(call: Call) -> str:
    squares = [call.add("Mul", name, name) for name in (call.x, call.operand(1))]
    return call.add("Sqrt", call.add("Add", *squares))


@rule("select")
def _select(call: Call) -> str:
    return call.add("Where", call.cast(call.x, call.dtype(), "bool"), *call.alike(1, 2))


@rule("clip")
def _clip(call: Call) -> str:
    """Bounds may be tensors; those of ONNX's operator are numbers."""
    numbers = [not call.has(index) or call.shape(index) == () for index in (1, 2)]
    if all(numbers):
        return call.add("Clip", *map(call.operand, range(3)))
    x = call.add("Max", call.x, call.operand(1)) if call.has(1) else call.x
    return call.add("Min", x, call.operand(2)) if call.has(2) else x


@rule("cast")
def _cast(call: Call) -> str:
    return call.add("Cast", call.x, to=onnx_type(call["to"]))


# ---- whole numbers that stand for others ---------------------------------------------------------------------


@rule("quantise")
def _quantise(call: Call) -> str:
    how = _by_axis(call)
    if call.has(2):
        return call.add("QuantizeLinear", call.x, call.operand(1), call.operand(2), **how)
    call.writer.require(21)  # before, a zero point told the type
    return call.add("QuantizeLinear", call.x, call.operand(1), output_dtype=onnx_type(call["to"]), **how)


@rule("dequantise")
def _dequantise(call: Call) -> str:
    return call.add("DequantizeLinear", *map(call.operand, range(3)), **_by_axis(call))


def _by_axis(call: Call) -> dict[str, int]:
    if call["block"]:
        call.writer.require(21)
        return {"axis": call["axis"], "block_size": call["block"]}
    return {"axis": call["axis"]}
