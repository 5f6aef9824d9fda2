"""Rules of the operators that compute with elements or along axes; where no native step serves, NumPy does."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from convoxel.graph.ir.graph import Value
from convoxel.graph.ir.size import Extents, Size
from convoxel.graph.read.reader import NotNative
from convoxel.graph.read.torch.call import Call, as_native, elementwise, rule
from convoxel.graph.read.torch.parts import sum_of_parts

# ---- activations -----------------------------------------------------------------------------------------


def affine(call: Call, x: Value, scale: Any, shift: Any, activation: str = "none", slope: float = 0.0) -> Value:
    """Return activation(x · scale + shift), each a number or one for every channel."""
    parts = zip(("scale", "shift"), (scale, shift), strict=True)
    names = [call.reader.constant(np.atleast_1d(np.asarray(v, np.float64)), f"{call.name}.{part}") for part, v in parts]
    return call.add("affine", x.name, *names, result=x.shape, activation=activation, slope=slope)


def _keeps_type(call: Call) -> None:
    """Raise if the result has another type than ``self``: whole numbers become fractions."""
    x = call["self"]
    if getattr(x, "dtype", None) is not None and str(x.dtype).removeprefix("torch.") != call.dtypes[0]:
        raise NotNative("a result of another type")


def _native(call: Call, key: str) -> Value | None:
    """Return an argument if native steps can read it, else None."""
    try:
        return call.tensor(key)
    except NotNative:
        return None


@elementwise("aten.hardsigmoid.default", "aten.hardsigmoid_.default")
def _hard_sigmoid(call: Call) -> Any:
    x = _native(call, "self")
    if x is None:
        return call.array("hard_sigmoid", call.any("self"), alpha=1 / 6, beta=0.5)
    return affine(call, affine(call, x, 1.0, 3.0, "relu6"), 1 / 6, 0.0)


@elementwise("aten.selu.default", "aten.selu_.default")
def _selu(call: Call) -> Any:
    x = _native(call, "self")
    if x is None:
        return call.array("selu", call.any("self"))
    curved = call.add("activation", x.name, activation="elu", slope=1.6732632423543772)
    return affine(call, curved, 1.0507009873554805, 0.0)


@elementwise("aten.celu.default", "aten.celu_.default")
def _celu(call: Call) -> Any:
    x, alpha = _native(call, "self"), float(call["alpha"])
    if x is None:
        return call.array("celu", call.any("self"), alpha=alpha)
    return affine(call, affine(call, x, 1 / alpha, 0.0, "elu", 1.0), alpha, 0.0)


@elementwise("aten.prelu.default")
def _prelu(call: Call) -> Any:
    slope, x = call.numbers("weight"), _native(call, "self")
    if slope is None or x is None:
        raise NotNative("slopes that the network computes")
    if slope.size == 1:
        call.reader.count(call.name, call["weight"])
        return call.add("activation", x.name, activation="leaky_relu", slope=float(slope.reshape(-1)[0]))
    return call.add("prelu", x.name, call.constant("weight"))


@elementwise("aten.hardtanh.default", "aten.hardtanh_.default")
def _hardtanh(call: Call) -> Any:
    return _clipped(call, call["min_val"], call["max_val"])


@elementwise(
    "aten.clamp.default", "aten.clamp_.default", "aten.clamp_min.default", "aten.clamp_max.default", "aten.clip.default"
)
def _clamp(call: Call) -> Any:
    return _clipped(call, call.arguments.get("min"), call.arguments.get("max"))


def _clipped(call: Call, low: Any, high: Any) -> Any:
    _keeps_type(call)
    if any(isinstance(bound, Size | Value) for bound in (low, high)):
        raise NotNative("bounds that the network computes")
    x = _native(call, "self")
    if x is not None and low == 0 and high in (None, 6):
        return call.add("activation", x.name, activation="relu" if high is None else "relu6")
    if x is not None and low == 0 and high > 0:
        return affine(call, affine(call, x, 6 / high, 0.0, "relu6"), high / 6, 0.0)
    bounds = [
        "" if bound is None else call.reader.constant(np.array(bound, call.dtypes[0]), f"{call.name}.{part}")
        for part, bound in (("low", low), ("high", high))
    ]
    return call.array("clip", call.any("self"), *bounds)


@elementwise("aten.gelu.default", "aten.gelu_.default")
def _gelu(call: Call) -> Any:
    x = _native(call, "self")
    if x is not None and call["approximate"] == "none":
        return call.add("activation", x.name, activation="gelu")
    return call.array("gelu", call.any("self"), approximate=call["approximate"])


@elementwise("aten.softplus.default")
def _softplus(call: Call) -> Any:
    beta, threshold = float(call["beta"]), float(call["threshold"])
    return call.array("softplus", call.any("self"), beta=beta, threshold=threshold)


@elementwise("aten.log_sigmoid.default")
def _log_sigmoid(call: Call) -> Any:
    """−softplus(−x)."""
    x = call.tensor("self")
    return affine(call, call.array("softplus", affine(call, x, -1.0, 0.0).name), -1.0, 0.0)


@elementwise("aten.threshold.default", "aten.threshold_.default")
def _threshold(call: Call) -> Any:
    alpha, value = float(call["threshold"]), float(call["value"])
    return call.array("thresholded_relu", call.any("self"), alpha=alpha, value=value)


@elementwise("aten.hardshrink.default", "aten.softshrink.default")
def _shrink(call: Call) -> Any:
    number = float(call["lambd"])
    return call.array("shrink", call.any("self"), lambd=number, bias=number if "soft" in call.target else 0.0)


@rule("aten.glu.default")
def _gated(call: Call) -> Any:
    x = call["self"]
    if isinstance(x, Value) and len(x.shape) == 1:
        inner = dataclasses.replace(call, arguments={**call.arguments, "dim": -1})
        return inner.around("self", (1, *x.shape), ((1, *call.shape),), _gated)
    x = call.tensor("self")
    axis = call["dim"] % len(x.shape)
    half = call.shape[axis]
    if not isinstance(half, int):
        raise NotNative("a gate along an open axis")
    parts = [call.add("narrow", x.name, axis=axis, start=begin, stop=begin + half) for begin in (0, half)]
    gate = call.add("activation", parts[1].name, activation="sigmoid")
    return call.add("multiply", parts[0].name, gate.name)


_UNARY = {
    "abs": "abs",
    "ceil": "ceil",
    "cos": "cos",
    "erf": "erf",
    "exp": "exp",
    "floor": "floor",
    "log": "log",
    "mish": "mish",
    "reciprocal": "reciprocal",
    "round": "round",
    "sign": "sign",
    "sin": "sin",
    "softsign": "softsign",
    "sqrt": "sqrt",
}


@elementwise(*(f"aten.{name}{write}.default" for name in _UNARY for write in ("", "_")))
def _unary(call: Call) -> Any:
    _keeps_type(call)
    return call.array(_UNARY[call.function], call.any("self"))


@elementwise("aten.neg.default", "aten.neg_.default")
def _negate(call: Call) -> Any:
    x = _native(call, "self")
    return call.array("negate", call.any("self")) if x is None else affine(call, x, -1.0, 0.0)


@rule("aten.rsqrt.default")
def _inverse_root(call: Call) -> Any:
    return call.array("power", call.any("self"), call.reader.constant(np.array(-0.5, np.float32), f"{call.name}.power"))


@rule("aten.pow.Tensor_Scalar", "aten.square.default")
def _power(call: Call) -> Any:
    exponent, x = call.arguments.get("exponent", 2), _native(call, "self")
    if x is not None and exponent == 2:
        return call.add("multiply", x.name, x.name)
    if isinstance(exponent, Size):
        raise NotNative("a power that is a size")
    constant = call.reader.constant(np.array(exponent, np.float32), f"{call.name}.power")
    return call.array("power", call.any("self"), constant)


@rule("aten.maximum.default", "aten.minimum.default", "aten.max.other", "aten.min.other")
def _extreme(call: Call) -> Any:
    name = "maximum" if "max" in call.target else "minimum"
    return call.array(name, call.any("self"), call.any("other"))


# ---- along axes ------------------------------------------------------------------------------------------


def _axes(call: Call, rank: int, key: str = "dim") -> tuple[int, ...]:
    given = call.arguments.get(key)
    if given is None or given == [] or rank == 0:
        return tuple(range(rank))
    return tuple(sorted(axis % rank for axis in (given if isinstance(given, list | tuple) else [given])))


_REDUCTIONS = {
    "aten.mean.dim": "mean",
    "aten.mean.default": "mean",
    "aten.sum.dim_IntList": "sum",
    "aten.sum.default": "sum",
    "aten.amax.default": "max",
    "aten.amin.default": "min",
    "aten.prod.dim_int": "product",
    "aten.logsumexp.default": "log_sum_exp",
}
_POOLS = {"mean": "adaptive_average_pool", "max": "global_max_pool"}


@rule(*_REDUCTIONS)
def _reduce(call: Call) -> Any:
    x, function = call["self"], _REDUCTIONS[call.target]
    if not isinstance(x, Value):
        raise NotNative("self is a constant")
    rank = len(x.shape)
    axes, keep = _axes(call, rank), bool(call.arguments.get("keepdim", False))
    if x.dtype != call.dtypes[0]:
        raise NotNative("a reduction that changes the type")
    if function == "sum" and len(axes) == 1 and not keep:
        total = sum_of_parts(call, x, axes[0])
        if total is not None:
            return total
    if _native(call, "self") is None or rank < 3 or function not in _POOLS or not set(axes) <= set(range(2, rank)):
        return call.array(f"reduce_{function}", x.name, axes=axes, keep=keep)
    # A size of 0 keeps the axis.
    size = tuple(1 if axis in axes else 0 for axis in range(2, rank))
    if function == "max" and 0 in size:
        return call.array("reduce_max", x.name, axes=axes, keep=keep)
    shape = tuple(1 if axis in axes else extent for axis, extent in enumerate(x.shape))
    pooled = call.add(_POOLS[function], x.name, result=shape, size=size)
    return pooled if keep else call.add("squeeze", pooled.name, shape=call.shape) if 0 not in size else (
        call.array("reshape", pooled.name, shape=call.shape)
    )  # fmt: skip


@rule("aten.linalg_vector_norm.default")
def _vector_norm(call: Call) -> Any:
    """(Σ |x|^p)^(1/p), the largest |x| for p = ∞, the smallest for p = −∞, how many are not 0 for p = 0."""
    x, power = call["self"], float(call["ord"])
    if not isinstance(x, Value) or x.dtype != call.dtypes[0]:
        raise NotNative("a norm that changes the type")
    how: dict[str, Any] = {"axes": _axes(call, len(x.shape)), "keep": bool(call["keepdim"])}
    if power in (1, 2):
        return call.array(f"reduce_l{power:.0f}", x.name, **how)
    size = call.reader.add("array.abs", call.name, (x.name,), [x.shape])[0].name
    if math.isinf(power):
        return call.array("reduce_max" if power > 0 else "reduce_min", size, **how)
    if power == 0:
        size = call.reader.add("array.sign", call.name, (size,), [x.shape])[0].name
        return call.array("reduce_sum", size, **how)
    exponents = [
        call.reader.constant(np.array(number, np.float32), f"{call.name}.power") for number in (power, 1 / power)
    ]
    raised = call.reader.add("array.power", call.name, (size, exponents[0]), [x.shape])[0].name
    total = call.reader.add("array.reduce_sum", call.name, (raised,), [call.shape], **how)[0].name
    return call.array("power", total, exponents[1])


@rule("aten.argmax.default", "aten.argmin.default")
def _arg_extreme(call: Call) -> Any:
    x = call["self"]
    if call["dim"] is None or not isinstance(x, Value):
        raise NotNative("a place in the whole tensor")
    axis, keep = call["dim"] % len(x.shape), bool(call["keepdim"])
    return call.array("arg_extreme", x.name, axis=axis, keep=keep, largest="max" in call.target)


@rule("aten.softmax.int", "aten._softmax.default", "aten.log_softmax.int", "aten._log_softmax.default")
def _softmax(call: Call) -> Any:
    x = call["self"]
    if not isinstance(x, Value) or x.dtype != call.dtypes[0]:
        raise NotNative("a softmax that changes the type")
    axes = (call["dim"] % len(x.shape),) if x.shape else ()  # a number by itself is all there is
    return call.array("softmax", x.name, axes=axes, log="log" in call.target)


# ---- products --------------------------------------------------------------------------------------------


@rule("aten.linear.default")
def _linear(call: Call) -> Any:
    x = call["input"]
    if isinstance(x, Value) and len(x.shape) == 2 and not isinstance(call["weight"], Value):
        return call.add("dense", as_native(x).name, call.constant("weight"), call.constant("bias"))
    weight = call.numbers("weight")
    if weight is None or not isinstance(x, Value):
        raise NotNative("weights that the network computes")
    transposed = call.reader.constant(weight.T.copy(), f"{call.name}.weight", source=call["weight"])
    product = call.reader.add("array.matmul", call.name, (x.name, transposed), [call.shape], call.dtypes)[0]
    bias = call.constant("bias")
    return product if not bias else call.array("add", product.name, bias)


@rule("aten.bilinear.default")
def _bilinear(call: Call) -> Any:
    """xᵀ W y for every matrix of the weights."""
    names = (call.any("input1"), call.any("weight"), call.any("input2"))
    product = call.reader.add(
        "array.einsum", call.name, names, [call.shape], call.dtypes, equation="...i,oij,...j->...o"
    )[0]
    return product if call["bias"] is None else call.array("add", product.name, call.any("bias"))


@rule("aten.matmul.default", "aten.bmm.default", "aten.mm.default")
def _matmul(call: Call) -> Any:
    names = [call.any(key) for key in list(call.arguments)[:2]]
    return call.array("matmul", *names)


@rule("aten.addmm.default")
def _add_product(call: Call) -> Any:
    if call["beta"] != 1 or call["alpha"] != 1:
        raise NotNative("a weighted sum with a product")
    names = [call.any("mat1"), call.any("mat2")]
    product = call.reader.add("array.matmul", call.name, names, [call.shape], call.dtypes)[0]
    return call.array("add", product.name, call.any("self"))


@rule("aten.einsum.default")
def _einsum(call: Call) -> Any:
    operands = call["tensors"]
    if not all(isinstance(x, Value) for x in operands):
        raise NotNative("an operand that is a constant")
    return call.array("einsum", *(x.name for x in operands), equation=call["equation"])


@rule("aten.scaled_dot_product_attention.default")
def _attention(call: Call) -> Any:
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

    def step(operator: str, inputs: tuple[str, ...], shape: Extents, **attributes: Any) -> str:
        return call.reader.add(f"array.{operator}", call.name, inputs, [shape], **attributes)[0].name

    factor = call.reader.constant(np.array(scale, np.float32), f"{call.name}.scale")
    scaled = step("multiply", (q.name, factor), q.shape)
    turned = step("transpose", (k.name,), tuple(k.shape[axis] for axis in swapped), axes=swapped)
    scores = (*q.shape[:-1], k.shape[-2])
    shares = step("softmax", (step("matmul", (scaled, turned), scores),), scores, axes=(rank - 1,), log=False)
    return call.array("matmul", shares, v.name)
