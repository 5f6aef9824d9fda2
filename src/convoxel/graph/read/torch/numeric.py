"""Rules of the operators that compute with elements or along axes; where no native step serves, NumPy does."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch

from convoxel.files.values import JsonObject
from convoxel.graph.ir.graph import Value
from convoxel.graph.ir.size import Extent, Size
from convoxel.graph.operators.mathematics import UNARY
from convoxel.graph.operators.shape import stretch
from convoxel.graph.read.reader import NotNative
from convoxel.graph.read.torch.call import Call, Result, dtype_name, hand_on, rule
from convoxel.graph.read.torch.indexing import named, typed

# ---- activations -----------------------------------------------------------------------------------------


def _keeps_type(call: Call) -> None:
    """Raise if the result has another type than ``self``."""
    x = call["self"]
    if isinstance(x, Value) and x.dtype == "float32":
        return
    if getattr(x, "dtype", None) is not None and str(x.dtype).removeprefix("torch.") != call.dtypes[0]:
        raise NotNative("a result of another type")


_TESTS = frozenset({"isfinite", "isinf", "isnan", "isneginf", "isposinf", "signbit"})

# PyTorch's name: ours, and attributes: a number, or the name of the argument that holds it
_UNARY: dict[str, tuple[str, dict[str, float | str]]] = {
    **{name: (name, {}) for name in UNARY},
    **{name: (name, {}) for name in ("abs", "ceil", "cos", "erf", "exp", "floor", "log", "mish", "reciprocal", "relu")},
    **{name: (name, {}) for name in ("round", "selu", "sigmoid", "sign", "sin", "softsign", "sqrt", "tanh")},
    "celu": ("celu", {"alpha": "alpha"}),
    "gelu": ("gelu", {"approximate": "approximate"}),
    "hardshrink": ("shrink", {"lambd": "lambd", "bias": 0.0}),
    "hardsigmoid": ("hard_sigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "hardswish": ("hard_swish", {}),
    "leaky_relu": ("leaky_relu", {"slope": "negative_slope"}),
    "neg": ("negate", {}),
    "sgn": ("sign", {}),
    "silu": ("swish", {}),
    "softplus": ("softplus", {"beta": "beta", "threshold": "threshold"}),
    "softshrink": ("shrink", {"lambd": "lambd", "bias": "lambd"}),
    "threshold": ("thresholded_relu", {"alpha": "threshold", "value": "value"}),
}


@rule(*(f"aten.{name}{write}.default" for name in _UNARY for write in ("", "_")))
def _function(call: Call) -> Value:
    """A function of each element."""
    operator, attributes = _UNARY[call.function]
    if operator in _TESTS:
        return call.add(operator, call.any("self"), dtype="bool")
    given = {key: call[value] if isinstance(value, str) else value for key, value in attributes.items()}
    numbers: JsonObject = {key: value if isinstance(value, str) else float(value) for key, value in given.items()}
    x = call["self"]
    plain = isinstance(x, Value) and x.dtype == "float32"  # whole numbers become fractions
    return call.add(operator, call.any("self") if plain else typed(call, "self", call.dtypes[0]), **numbers)


@rule("aten.elu.default", "aten.elu_.default")
def _elu(call: Call) -> Value:
    if call["scale"] != 1 or call["input_scale"] != 1:
        raise NotNative("a scaled ELU")
    return call.add("elu", call.tensor("self").name, alpha=float(call["alpha"]))


@rule("aten.rrelu.default", "aten.rrelu_.default")
def _random_slope(call: Call) -> Value:
    """Outside training the slope is the middle of those that are drawn then."""
    if call["training"]:
        raise NotNative("slopes that are drawn")
    return call.add("leaky_relu", call.tensor("self").name, slope=(float(call["lower"]) + float(call["upper"])) / 2)


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
    if any(isinstance(bound, Size) for bound in (low, high)):
        raise NotNative("bounds that are sizes")
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
    first, second = (call.narrowed(x, axis, begin, begin + half) for begin in (0, half))
    return call.add("multiply", first.name, call.add("sigmoid", second.name).name)


@rule("aten.clamp.Tensor", "aten.clamp_min.Tensor", "aten.clamp_max.Tensor")
def _clip_between(call: Call) -> Value:
    """Numbers cut off at bounds of their own."""
    name, dtype = typed(call, "self", call.dtypes[0]), call.dtypes[0]
    for key, operator in (("min", "maximum"), ("max", "minimum")):
        if call.arguments.get(key) is not None:
            name = call.add(operator, name, typed(call, key, dtype), result=call.shape, dtype=dtype).name
    found = call.reader.value(name)
    assert found is not None
    return found


@rule("aten.pow.Tensor_Scalar", "aten.pow.Tensor_Tensor", "aten.pow.Scalar", "aten.square.default")
def _power(call: Call) -> Value:
    exponent, base = call.arguments.get("exponent", 2), call["self"]
    if isinstance(exponent, int | float) and isinstance(base, Value) and base.dtype == "float32":
        return call.add("power", base.name, call.number(exponent, "power", "float32"))
    return call.add("power", typed(call, "self", call.dtypes[0]), named(call, exponent, "power", call.dtypes[0]))


# ---- of two tensors --------------------------------------------------------------------------------------

# PyTorch's name: ours
_BINARY = {
    **{name: name for name in ("atan2", "copysign", "floor_divide", "fmax", "fmin", "gcd", "hypot", "lcm")},
    **{f"bitwise_{name}": f"bitwise_{name}" for name in ("and", "or", "xor")},
    **{f"__{name}__": f"bitwise_{name}" for name in ("and", "or", "xor")},
    **{f"bitwise_{side}_shift": f"{side}_shift" for side in ("left", "right")},
    **{f"__{side[0]}shift__": f"{side}_shift" for side in ("left", "right")},
    "fmod": "remainder",
    "logaddexp": "log_add_exp",
    "logaddexp2": "log_add_exp2",
    "max": "maximum",
    "maximum": "maximum",
    "min": "minimum",
    "minimum": "minimum",
    "nextafter": "nextafter",
    "remainder": "modulo",
}


@rule(
    *(f"aten.{name}.{overload}" for name in _BINARY for overload in ("default", "Tensor", "Scalar", "other")
      if (name in ("max", "min")) == (overload == "other")),
    "aten.remainder.Scalar_Tensor",
)  # fmt: skip
def _of_two(call: Call) -> Value:
    operator = _BINARY[call.target.split(".")[1]]
    return call.add(operator, *(typed(call, key, call.dtypes[0]) for key in ("self", "other")))


for _name in ("bitwise_and", "bitwise_or"):
    hand_on(f"prims.{_name}.default", _name, "self other")
hand_on("prims.mul.default", "multiply", "self other")
hand_on("prims.round.default", "round", "self")

_COMPARISONS = {
    "eq": "equal",
    "ge": "greater_or_equal",
    "gt": "greater",
    "le": "less_or_equal",
    "lt": "less",
    "ne": "not_equal",
}


@rule(*(f"aten.{name}.{overload}" for name in _COMPARISONS for overload in ("Tensor", "Scalar")))
def _compare(call: Call) -> Value:
    """Both are compared in the type that they have together."""
    dtype = _common_type(call["self"], call["other"])
    names = (typed(call, key, dtype) for key in ("self", "other"))
    return call.add(_COMPARISONS[call.function], *names, dtype="bool")


def _common_type(*terms: Any) -> str:
    """Return the type in which PyTorch computes with two tensors, or with a tensor and a number."""

    def example(term: Any) -> Any:
        if isinstance(term, Value):
            return torch.empty((1,) * len(term.shape), dtype=getattr(torch, term.dtype), device="meta")
        return 0 if isinstance(term, Size) else term

    one, two = map(example, terms)
    kind = torch.result_type(one, two)
    whole = any(isinstance(term, Value) and term.dtype == "float32" for term in terms)
    return dtype_name(kind) if whole else str(kind).removeprefix("torch.")


@rule(*(f"aten.logical_{name}.default" for name in ("and", "or", "xor")))
def _logical(call: Call) -> Value:
    names = (typed(call, key, "bool") for key in ("self", "other"))
    return call.add(call.function.removeprefix("logical_"), *names, dtype="bool")


@rule("aten.logical_not.default")
def _not(call: Call) -> Value:
    return call.add("not", typed(call, "self", "bool"), dtype="bool")


@rule("aten.div.Tensor_mode", "aten.div.Scalar_mode")
def _divide(call: Call) -> Value:
    """Quotients rounded down, or towards zero."""
    dtype, mode = call.dtypes[0], call["rounding_mode"]
    names = [typed(call, key, dtype) for key in ("self", "other")]
    if mode == "floor":
        return call.add("floor_divide", *names)
    quotient = call.add("divide", *names)
    return call.add("trunc", quotient.name) if mode == "trunc" and dtype.startswith("float") else quotient


# ---- along axes ------------------------------------------------------------------------------------------


def _axes(call: Call, rank: int, key: str = "dim") -> tuple[int, ...]:
    given = call.arguments.get(key)
    if given is None or given == [] or rank == 0:
        return tuple(range(rank))
    return tuple(sorted(axis % rank for axis in (given if isinstance(given, list | tuple) else [given])))


_REDUCTIONS = {
    **{f"aten.{name}.{overload}": name for name in ("all", "any") for overload in ("default", "dim", "dims")},
    **dict.fromkeys(("aten.mean.dim", "aten.mean.default"), "mean"),
    **dict.fromkeys(("aten.sum.dim_IntList", "aten.sum.default"), "sum"),
    **dict.fromkeys(("aten.amax.default", "aten.max.default"), "max"),
    **dict.fromkeys(("aten.amin.default", "aten.min.default"), "min"),
    **dict.fromkeys(("aten.prod.dim_int", "aten.prod.default"), "product"),
    "aten.logsumexp.default": "log_sum_exp",
}


@rule(*_REDUCTIONS)
def _reduce(call: Call) -> Result:
    x, function = call.tensor("self"), _REDUCTIONS[call.target]
    rank = len(x.shape)
    axes, keep = _axes(call, rank), bool(call.arguments.get("keepdim", False))
    how: JsonObject = {"function": function, "axes": axes, "keep": keep}
    if function in ("all", "any"):
        return call.add("reduce", typed(call, "self", "bool"), dtype="bool", **how)
    plain = x.dtype == "float32" and call.arguments.get("dtype") is None
    return call.add("reduce", x.name if plain else typed(call, "self", call.dtypes[0]), **how)


@rule("aten.max.dim", "aten.min.dim")
def _extreme(call: Call) -> Result:
    """The largest (or smallest) element, and where it is; the place of NaN if there is one."""
    x, largest = call.tensor("self"), call.function == "max"
    if not x.shape:
        raise NotNative("a number by itself")
    axis, keep = call["dim"] % len(x.shape), bool(call["keepdim"])
    small = tuple(1 if i == axis else s for i, s in enumerate(x.shape) if keep or i != axis)
    how: JsonObject = {"function": "max" if largest else "min", "axes": (axis,), "keep": keep}
    value = call.add("reduce", x.name, result=small, dtype=x.dtype, **how)
    place: JsonObject = {"axis": axis, "keep": keep, "largest": largest}
    return [value, call.add("arg_extreme", x.name, result=small, dtype="int64", **place)]


@rule("aten.aminmax.default")
def _extremes(call: Call) -> Result:
    x = call.tensor("self")
    axes = _axes(call, len(x.shape))
    return [
        call.add("reduce", x.name, result=call.shape, function=function, axes=axes, keep=bool(call["keepdim"]))
        for function in ("min", "max")
    ]


_SPREADS = ("dim", "correction", "default")


@rule(*(f"aten.{name}.{overload}" for name in ("std", "var", "std_mean", "var_mean") for overload in _SPREADS))
def _spread(call: Call) -> Result:
    """Σ (x − mean)² / (N − correction) over N elements, or the root of it; beside it the mean."""
    x, given = call.tensor("self"), call.arguments
    correction = given.get("correction", given.get("unbiased", 1))
    correction = 1 if correction is None else int(correction) if isinstance(correction, bool) else correction
    if correction != int(correction) or x.dtype not in ("float32", "float64"):
        raise NotNative("a correction that is not whole")
    axes, keep = _axes(call, len(x.shape)), bool(given.get("keepdim", False))
    small = tuple(1 if i in axes else s for i, s in enumerate(x.shape))
    whole = small if keep else tuple(s for i, s in enumerate(x.shape) if i not in axes)
    same: JsonObject = {"result": x.shape, "dtype": x.dtype}
    mean = call.add("reduce", x.name, result=small, dtype=x.dtype, function="mean", axes=axes, keep=True)
    centred = call.add("subtract", x.name, mean.name, **same)
    squares = call.add("multiply", centred.name, centred.name, **same)
    total = call.add("reduce", squares.name, result=whole, dtype=x.dtype, function="sum", axes=axes, keep=keep)
    count: Any = -int(correction)
    for axis in axes[:1]:
        count = math.prod((x.shape[other] for other in axes[1:]), start=x.shape[axis]) + count
    count = max(count, 0) if isinstance(count, int) else count
    found = call.add("divide", total.name, named(call, count, "count", x.dtype), result=whole, dtype=x.dtype)
    if call.function.startswith("std"):
        found = call.add("sqrt", found.name, result=whole, dtype=x.dtype)
    if not call.function.endswith("mean"):
        return found
    return [found, mean if keep else call.reshaped(mean, whole)]


@rule("aten.linalg_vector_norm.default")
def _vector_norm(call: Call) -> Result:
    x = call["self"]
    if not isinstance(x, Value) or x.dtype != call.dtypes[0]:
        raise NotNative("a norm that changes the type")
    return _norm(call, x, float(call["ord"]), _axes(call, len(x.shape)), bool(call["keepdim"]))


def _norm(call: Call, x: Value, power: float, axes: tuple[int, ...], keep: bool) -> Value:
    """(Σ |x|^p)^(1/p), the largest |x| for p = ∞, the smallest for p = −∞, how many are not 0 for p = 0."""
    how: JsonObject = {"axes": axes, "keep": keep}
    if power in (1, 2):
        return call.add("reduce", x.name, function=f"l{power:.0f}", **how)
    size = call.add("abs", x.name, result=x.shape).name
    if math.isinf(power):
        return call.add("reduce", size, function="max" if power > 0 else "min", **how)
    if power == 0:  # NaN counts
        other = call.add("not_equal", x.name, call.number(0, "zero", x.dtype), result=x.shape, dtype="bool")
        counted = call.add("cast", other.name, result=x.shape, dtype=x.dtype, to=x.dtype)
        return call.add("reduce", counted.name, function="sum", **how)
    exponents = [call.number(number, "power", "float32") for number in (power, 1 / power)]
    raised = call.add("power", size, exponents[0], result=x.shape)
    return call.add("power", call.add("reduce", raised.name, function="sum", **how).name, exponents[1])


@rule("aten.cdist.default")
def _distances(call: Call) -> Result:
    """The norm of the difference of every row of one tensor and every row of another."""
    one, two = call.tensor("x1"), call.tensor("x2")
    lifted = [(*one.shape[:-1], 1, one.shape[-1]), (*two.shape[:-2], 1, *two.shape[-2:])]
    terms = [call.reshaped(x, shape).name for x, shape in zip((one, two), lifted, strict=True)]
    shapes: Any = lifted
    apart = call.add("subtract", *terms, result=stretch(shapes))
    return _norm(call, apart, float(call["p"]), (len(apart.shape) - 1,), keep=False)


@rule("aten.argmax.default", "aten.argmin.default")
def _arg_extreme(call: Call) -> Result:
    x = call["self"]
    if not isinstance(x, Value) or not x.shape:
        raise NotNative("a constant, or a number")
    if call["dim"] is None:
        x = call.reshaped(x, (math.prod(x.shape[1:], start=x.shape[0]),))
    axis, keep = (call["dim"] or 0) % len(x.shape), bool(call["keepdim"]) and call["dim"] is not None
    small = tuple(1 if i == axis else s for i, s in enumerate(x.shape) if keep or i != axis)
    place: JsonObject = {"axis": axis, "keep": keep, "largest": "max" in call.target}
    found = call.add("arg_extreme", x.name, result=small, dtype="int64", **place)
    return call.reshaped(found, call.shape) if call["dim"] is None and call["keepdim"] else found


@rule("aten.softmax.int", "aten._softmax.default", "aten.log_softmax.int", "aten._log_softmax.default")
def _softmax(call: Call) -> Result:
    x = call["self"]
    if not isinstance(x, Value):
        raise NotNative("a constant")
    if call.arguments.get("dtype") is not None or x.dtype != "float32":
        x = call.add("cast", x.name, result=x.shape, to=call.dtypes[0])
    axes = (call["dim"] % len(x.shape),) if x.shape else ()  # a number by itself is all there is
    return call.add("softmax", x.name, axes=axes, log="log" in call.target)


# ---- products --------------------------------------------------------------------------------------------


@rule("aten.linear.default")
def _linear(call: Call) -> Result:
    weight = call["weight"]
    if isinstance(call["input"], Value) and not isinstance(weight, Value):
        return call.add("linear", call["input"].name, call.constant("weight"), call.constant("bias"))
    name = call.any("weight")
    if len(weight.shape) == 2:
        name = call.add("transpose", name, result=(weight.shape[1], weight.shape[0]), axes=(1, 0)).name
    product = call.add("matmul", call.any("input"), name)
    return product if call["bias"] is None else call.add("add", product.name, call.any("bias"))


@rule("aten.bilinear.default")
def _bilinear(call: Call) -> Result:
    """xᵀ W y for every matrix of the weights."""
    names = (call.any("input1"), call.any("weight"), call.any("input2"))
    product = call.add("einsum", *names, equation="...i,oij,...j->...o")
    return product if call["bias"] is None else call.add("add", product.name, call.any("bias"))


hand_on("aten.matmul.default", "matmul", "self other")
hand_on("aten.bmm.default", "matmul", "self mat2")
hand_on("aten.mm.default", "matmul", "self mat2")


hand_on("aten.mv.default", "matmul", "self vec")
hand_on("aten.dot.default", "matmul", "self tensor")
hand_on("aten.vdot.default", "matmul", "self other")

_SUMS = {
    "addmm": ("mat1", "mat2"), "addmv": ("mat", "vec"), "baddbmm": ("batch1", "batch2"), "addbmm": ("batch1", "batch2")
}  # fmt: skip


@rule(*(f"aten.{name}{write}.default" for name in _SUMS for write in ("", "_")))
def _add_product(call: Call) -> Result:
    """β · self + α · product; self counts nothing where β is 0."""
    one, two = (call[key] for key in _SUMS[call.function])
    shape = (*one.shape[:-1], *two.shape[-1:]) if call.function != "addmv" else tuple(one.shape[:-1])
    product = call.add("matmul", *map(call.any, _SUMS[call.function]), result=shape)
    if call.function == "addbmm":
        product = call.add("reduce", product.name, result=shape[1:], function="sum", axes=(0,), keep=False)
    terms = [product.name] if call["beta"] == 0 else [product.name, call.any("self")]
    for index, key in enumerate(("alpha", "beta")[: len(terms)]):
        if call[key] != 1:
            term = product.shape if index == 0 else tuple(call["self"].shape)
            factor = call.number(call[key], key, "float32")
            terms[index] = call.add("multiply", terms[index], factor, result=term).name
    if len(terms) == 2:
        return call.add("add", *terms)
    return call.add("expand", terms[0], shape=call.shape)


@rule("aten.outer.default", "aten.inner.default", "aten.tensordot.default")
def _contract(call: Call) -> Result:
    """A product of two or more tensors, summed over some of their axes, as an equation."""
    operands = (
        call["tensors"]
        if "tensors" in call.arguments
        else [call["self"], call["other" if "other" in call.arguments else "vec2"]]
    )
    letters = iter("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    terms = [[next(letters) for _ in operand.shape] for operand in operands]
    for one, two in _contracted(call, *map(len, terms)):
        terms[1][two] = terms[0][one]
    gone = {*terms[0]} & {*terms[1]}
    kept = "".join(letter for term in terms for letter in term if letter not in gone)
    names = [named(call, operand, "operand", call.dtypes[0]) for operand in operands]
    return call.add("einsum", *names, equation=f"{','.join(map(''.join, terms))}->{kept}")


def _contracted(call: Call, one: int, two: int) -> list[tuple[int, int]]:
    """Return the axes of both operands, of ``one`` and ``two`` axes, that are summed together."""
    if call.function == "inner":
        return [(one - 1, two - 1)] if min(one, two) else []
    if call.function == "outer":
        return []
    return [(i % one, j % two) for i, j in zip(call["dims_self"], call["dims_other"], strict=True)]


@rule("aten.linalg_multi_dot.default")
def _chain(call: Call) -> Result:
    """Matrices multiplied from left to right."""
    first, *others = call["tensors"]
    shape, name = tuple(first.shape), named(call, first, "matrix", call.dtypes[0])
    for index, other in enumerate(others):
        shape = (*shape[:-1], *other.shape[1:])
        operand = named(call, other, f"matrix{index}", call.dtypes[0])
        product = call.add("matmul", name, operand, result=shape)
        name = product.name
    return product


@rule("aten.einsum.default")
def _einsum(call: Call) -> Result:
    operands = call["tensors"]
    names = [named(call, x, "operand", call.dtypes[0]) for x in operands]
    return call.add("einsum", *names, equation=call["equation"])


@rule("aten.scaled_dot_product_attention.default")
def _attention(call: Call) -> Result:
    """softmax(q kᵀ · scale + mask) v over the last two axes (Vaswani et al. 2017)."""
    q, k, v = (_as_value(call, key) for key in ("query", "key", "value"))
    mask, scale = call["attn_mask"], call["scale"]
    if call["dropout_p"]:
        raise NotNative("attention that drops out")
    if call["enable_gqa"]:
        k, v = (_repeated_heads(call, x, q) for x in (k, v))
    rank = len(k.shape)
    swapped = (*range(rank - 2), rank - 1, rank - 2)
    features = q.shape[-1]
    if scale is not None:
        factor = call.number(scale, "scale", "float32")
    elif isinstance(features, int):
        factor = call.number(features**-0.5, "scale", "float32")
    else:
        factor = call.add("rsqrt", named(call, features, "features", "float32"), result=()).name
    scaled = call.add("multiply", q.name, factor, result=q.shape)
    turned = call.add("transpose", k.name, result=tuple(k.shape[axis] for axis in swapped), axes=swapped)
    batch: Any = [q.shape[:-2], k.shape[:-2]]
    shape = (*stretch(batch), q.shape[-2], k.shape[-2])
    scores = call.add("matmul", scaled.name, turned.name, result=shape)
    if call["is_causal"]:
        mask = _before(call, q.shape[-2], k.shape[-2])
    hides = mask is not None and getattr(mask, "dtype", None) in ("bool", torch.bool)
    truths = named(call, mask, "mask", "bool") if hides else ""
    if hides:
        lowest = call.number(-math.inf, "hidden", "float32")
        scores = call.add("select", truths, scores.name, lowest, result=shape)
    elif mask is not None:
        scores = call.add("add", scores.name, named(call, mask, "mask", "float32"), result=shape)
    shares = call.add("softmax", scores.name, result=shape, axes=(len(shape) - 1,), log=False)
    if hides:  # a row that sees nothing gets zeros
        shares = call.add("select", truths, shares.name, call.number(0, "nothing", "float32"), result=shape)
    return call.add("matmul", shares.name, v.name)


def _as_value(call: Call, key: str) -> Value:
    """Return an argument as a value of the graph; a constant is copied to one."""
    x = call[key]
    if x.dtype not in ("float32", torch.float32):
        raise NotNative(f"{key} is not float32")
    return x if isinstance(x, Value) else call.add("expand", call.any(key), result=tuple(x.shape), shape=tuple(x.shape))


def _before(call: Call, rows: Extent, columns: Extent) -> Value:
    """Add the truths of a triangle: a place sees those up to its own."""
    places = call.add("range", result=(rows,), dtype="int64", start=0, stop=rows, step=1)
    others = call.add("range", result=(columns,), dtype="int64", start=0, stop=columns, step=1)
    column = call.reshaped(places, (rows, 1))
    return call.add("greater_or_equal", column.name, others.name, result=(rows, columns), dtype="bool")


def _repeated_heads(call: Call, x: Value, q: Value) -> Value:
    """Add the nodes that repeat every head of x (n, heads, …) as often as q has more of them."""
    n, heads, *rest = x.shape
    wanted = q.shape[1]
    if len(x.shape) != 4 or not isinstance(heads, int) or not isinstance(wanted, int):
        raise NotNative("grouped queries of an open number of heads")
    lifted = call.reshaped(x, (n, heads, 1, *rest))
    shape = (n, heads, wanted // heads, *rest)
    return call.reshaped(call.add("expand", lifted.name, result=shape, shape=shape), (n, wanted, *rest))
