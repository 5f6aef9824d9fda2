"""Rules of the operators that compute with elements or along axes; where no native step serves, NumPy does."""

from __future__ import annotations

import dataclasses
import math

from convoxel.files.values import JsonObject
from convoxel.graph.ir.graph import Value
from convoxel.graph.ir.size import Size
from convoxel.graph.read.reader import NotNative
from convoxel.graph.read.torch.call import Call, Result, hand_on, rule

# ---- activations -----------------------------------------------------------------------------------------


def _keeps_type(call: Call) -> None:
    """Raise if the result has another type than ``self``: whole numbers become fractions."""
    x = call["self"]
    if isinstance(x, Value) and x.dtype == "float32":
        return
    if getattr(x, "dtype", None) is not None and str(x.dtype).removeprefix("torch.") != call.dtypes[0]:
        raise NotNative("a result of another type")


# PyTorch's name: ours, and attributes: a number, or the name of the argument that holds it
_UNARY: dict[str, tuple[str, dict[str, float | str]]] = {
    **{name: (name, {}) for name in ("abs", "ceil", "cos", "erf", "exp", "floor", "log", "mish", "reciprocal", "relu")},
    **{name: (name, {}) for name in ("round", "selu", "sigmoid", "sign", "sin", "softsign", "sqrt", "tanh")},
    "celu": ("celu", {"alpha": "alpha"}),
    "gelu": ("gelu", {"approximate": "approximate"}),
    "hardshrink": ("shrink", {"lambd": "lambd", "bias": 0.0}),
    "hardsigmoid": ("hard_sigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "hardswish": ("hard_swish", {}),
    "leaky_relu": ("leaky_relu", {"slope": "negative_slope"}),
    "neg": ("negate", {}),
    "silu": ("swish", {}),
    "softplus": ("softplus", {"beta": "beta", "threshold": "threshold"}),
    "softshrink": ("shrink", {"lambd": "lambd", "bias": "lambd"}),
    "threshold": ("thresholded_relu", {"alpha": "threshold", "value": "value"}),
}


@rule(*(f"aten.{name}{write}.default" for name in _UNARY for write in ("", "_")))
def _function(call: Call) -> Value:
    """A function of each element."""
    _keeps_type(call)
    operator, attributes = _UNARY[call.function]
    given = {key: call[value] if isinstance(value, str) else value for key, value in attributes.items()}
    numbers: JsonObject = {key: value if isinstance(value, str) else float(value) for key, value in given.items()}
    return call.add(operator, call.any("self"), **numbers)


@rule("aten.elu.default", "aten.elu_.default")
def _elu(call: Call) -> Value:
    if call["scale"] != 1 or call["input_scale"] != 1:
        raise NotNative("a scaled ELU")
    return call.add("elu", call.tensor("self").name, alpha=float(call["alpha"]))


@rule("aten.log_sigmoid.default")
def _log_sigmoid(call: Call) -> Value:
    """−softplus(−x)."""
    x = call.tensor("self")
    return call.add("negate", call.add("softplus", call.add("negate", x.name).name).name)


@rule("aten.prelu.default")
def _prelu(call: Call) -> Value:
    """One slope for all, or one for each channel, which is the second axis."""
    slope, x = call.numbers("weight"), call.tensor("self")
    if slope is None:
        raise NotNative("slopes that the network computes")
    slope = slope.reshape(() if slope.size == 1 else (-1, *(1,) * (len(x.shape) - 2)))
    return call.add("prelu", x.name, call.reader.constant(slope, f"{call.name}.weight", source=call["weight"]))


@rule(
    *(f"aten.{name}{write}.default" for name in ("clamp", "hardtanh") for write in ("", "_")),
    *(f"aten.{name}.default" for name in ("clamp_min", "clamp_max", "clip", "relu6", "relu6_")),
)
def _clip(call: Call) -> Value:
    """Numbers cut off at two bounds, by whatever name."""
    _keeps_type(call)
    x, given = call.tensor("self"), call.arguments
    low, high = (given.get(key, given.get(f"{key}_val")) for key in ("min", "max"))
    if call.function == "relu6":
        low, high = 0, 6
    if any(isinstance(bound, Size | Value) for bound in (low, high)):
        raise NotNative("bounds that the network computes")
    parts, dtype = {"low": low, "high": high}, call.dtype(x.name)
    bounds = ["" if bound is None else call.number(bound, part, dtype) for part, bound in parts.items()]
    return call.add("clip", x.name, *bounds)


@rule("aten.glu.default")
def _gated(call: Call) -> Result:
    x = call["self"]
    if isinstance(x, Value) and len(x.shape) == 1:
        inner = dataclasses.replace(call, arguments={**call.arguments, "dim": -1})
        return inner.around("self", (1, *x.shape), ((1, *call.shape),), _gated)
    x = call.tensor("self")
    axis = call["dim"] % len(x.shape)
    half = call.shape[axis]
    if not isinstance(half, int):
        raise NotNative("a gate along an open axis")
    first, second = (call.narrowed(x, axis, begin, begin + half) for begin in (0, half))
    return call.add("multiply", first.name, call.add("sigmoid", second.name).name)


@rule("aten.rsqrt.default")
def _inverse_root(call: Call) -> Result:
    return call.add("power", call.any("self"), call.number(-0.5, "power", "float32"))


@rule("aten.pow.Tensor_Scalar", "aten.square.default")
def _power(call: Call) -> Value:
    exponent = call.arguments.get("exponent", 2)
    if isinstance(exponent, Size):
        raise NotNative("a power that is a size")
    return call.add("power", call.any("self"), call.number(exponent, "power", "float32"))


for _name in ("maximum", "minimum"):
    hand_on(f"aten.{_name}.default", _name, "self other")
    hand_on(f"aten.{_name[:3]}.other", _name, "self other")


# ---- along axes ------------------------------------------------------------------------------------------


def _axes(call: Call, rank: int, key: str = "dim") -> tuple[int, ...]:
    given = call.arguments.get(key)
    if given is None or given == [] or rank == 0:
        return tuple(range(rank))
    return tuple(sorted(axis % rank for axis in (given if isinstance(given, list | tuple) else [given])))


_REDUCTIONS = {
    **dict.fromkeys(("aten.mean.dim", "aten.mean.default"), "mean"),
    **dict.fromkeys(("aten.sum.dim_IntList", "aten.sum.default"), "sum"),
    "aten.amax.default": "max",
    "aten.amin.default": "min",
    "aten.prod.dim_int": "product",
    "aten.logsumexp.default": "log_sum_exp",
}


@rule(*_REDUCTIONS)
def _reduce(call: Call) -> Result:
    x, function = call.tensor("self"), _REDUCTIONS[call.target]
    rank = len(x.shape)
    axes, keep = _axes(call, rank), bool(call.arguments.get("keepdim", False))
    if x.dtype != call.dtypes[0]:
        raise NotNative("a reduction that changes the type")
    return call.add("reduce", x.name, function=function, axes=axes, keep=keep)


@rule("aten.linalg_vector_norm.default")
def _vector_norm(call: Call) -> Result:
    """(Σ |x|^p)^(1/p), the largest |x| for p = ∞, the smallest for p = −∞, how many are not 0 for p = 0."""
    x, power = call["self"], float(call["ord"])
    if not isinstance(x, Value) or x.dtype != call.dtypes[0]:
        raise NotNative("a norm that changes the type")
    how: JsonObject = {"axes": _axes(call, len(x.shape)), "keep": bool(call["keepdim"])}
    if power in (1, 2):
        return call.add("reduce", x.name, function=f"l{power:.0f}", **how)
    size = call.add("abs", x.name, result=x.shape).name
    if math.isinf(power):
        return call.add("reduce", size, function="max" if power > 0 else "min", **how)
    if power == 0:
        return call.add("reduce", call.add("sign", size, result=x.shape).name, function="sum", **how)
    exponents = [call.number(number, "power", "float32") for number in (power, 1 / power)]
    raised = call.add("power", size, exponents[0], result=x.shape)
    return call.add("power", call.add("reduce", raised.name, function="sum", **how).name, exponents[1])


@rule("aten.argmax.default", "aten.argmin.default")
def _arg_extreme(call: Call) -> Result:
    x = call["self"]
    if call["dim"] is None or not isinstance(x, Value):
        raise NotNative("a place in the whole tensor")
    axis, keep = call["dim"] % len(x.shape), bool(call["keepdim"])
    return call.add("arg_extreme", x.name, axis=axis, keep=keep, largest="max" in call.target)


@rule("aten.softmax.int", "aten._softmax.default", "aten.log_softmax.int", "aten._log_softmax.default")
def _softmax(call: Call) -> Result:
    x = call["self"]
    if not isinstance(x, Value) or x.dtype != call.dtypes[0]:
        raise NotNative("a softmax that changes the type")
    axes = (call["dim"] % len(x.shape),) if x.shape else ()  # a number by itself is all there is
    return call.add("softmax", x.name, axes=axes, log="log" in call.target)


# ---- products --------------------------------------------------------------------------------------------


@rule("aten.linear.default")
def _linear(call: Call) -> Result:
    x = call["input"]
    if not isinstance(x, Value) or call["weight"] is None:
        raise NotNative("weights that the network computes")
    return call.add("linear", x.name, call.constant("weight"), call.constant("bias"))


@rule("aten.bilinear.default")
def _bilinear(call: Call) -> Result:
    """xᵀ W y for every matrix of the weights."""
    names = (call.any("input1"), call.any("weight"), call.any("input2"))
    product = call.add("einsum", *names, equation="...i,oij,...j->...o")
    return product if call["bias"] is None else call.add("add", product.name, call.any("bias"))


hand_on("aten.matmul.default", "matmul", "self other")
hand_on("aten.bmm.default", "matmul", "self mat2")
hand_on("aten.mm.default", "matmul", "self mat2")


@rule("aten.addmm.default")
def _add_product(call: Call) -> Result:
    if call["beta"] != 1 or call["alpha"] != 1:
        raise NotNative("a weighted sum with a product")
    return call.add("add", call.add("matmul", call.any("mat1"), call.any("mat2")).name, call.any("self"))


@rule("aten.einsum.default")
def _einsum(call: Call) -> Result:
    operands = call["tensors"]
    if not all(isinstance(x, Value) for x in operands):
        raise NotNative("an operand that is a constant")
    return call.add("einsum", *(x.name for x in operands), equation=call["equation"])


@rule("aten.scaled_dot_product_attention.default")
def _attention(call: Call) -> Result:
    """softmax(q kᵀ · scale) v over the last two axes (Vaswani et al. 2017)."""
    q, k, v = (call[key] for key in ("query", "key", "value"))
    plain = call["attn_mask"] is None and not call["is_causal"] and not call["dropout_p"] and not call["enable_gqa"]
    if not plain or not all(isinstance(x, Value) and x.dtype == "float32" for x in (q, k, v)):
        raise NotNative("attention with a mask, or on constants")
    scale = call["scale"]
    if scale is None:
        if not isinstance(q.shape[-1], int):
            raise NotNative("attention over features of an open number")
        scale = q.shape[-1] ** -0.5
    rank = len(k.shape)
    swapped = (*range(rank - 2), rank - 1, rank - 2)

    scaled = call.add("multiply", q.name, call.number(scale, "scale", "float32"), result=q.shape)
    turned = call.add("transpose", k.name, result=tuple(k.shape[axis] for axis in swapped), axes=swapped)
    scores = call.add("matmul", scaled.name, turned.name, result=(*q.shape[:-1], k.shape[-2]))
    shares = call.add("softmax", scores.name, result=scores.shape, axes=(rank - 1,), log=False)
    return call.add("matmul", shares.name, v.name)
