"""Which operator a PyTorch function is, and with which attributes.

One entry a function in ``RULES``: it reads the call's arguments and returns an operator's name with its
attributes, or None where the call computes nothing of interest. A function without an entry becomes the
operator ``"unknown"``: its shape is still right, its receptive field is not claimed.

Operators: convolution, transposed_convolution, dense, matmul, max_pool, average_pool, adaptive_pool, resize,
pad, depth_to_space, space_to_depth, batch_norm, normalise, activation, add, multiply, combine, concat, reduce,
softmax, reshape, permute, narrow, identity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from convoxel.arithmetic import resolve_padding

__all__ = ["classify"]

Call = tuple[str, dict[str, Any]]
Rule = Callable[[Callable[..., Any], Sequence[Any], Mapping[str, Any], Any], Call]


def classify(function: Callable[..., Any], arguments: Sequence[Any], options: Mapping[str, Any], result: Any) -> Call:
    """Return (operator, attributes) of a call of ``function`` that gave ``result``."""
    name = getattr(function, "__name__", str(function))
    rule = RULES.get(name) or RULES.get(name.strip("_")) or (RULES.get(name[3:-2]) if name[:3] == "__i" else None)
    if rule is None:
        return "unknown", {"function": name}
    operator, attributes = rule(function, arguments, options, result)
    return operator, {"function": name.strip("_"), **attributes}


def _bind(names: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Give positional arguments their names."""
    return {**dict(zip(names.split(), arguments, strict=False)), **options}


def _each(value: Any, axes: int) -> tuple[int, ...]:
    """An int, or a sequence of one, is the same on every axis."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values


def _pairs(value: Any, kernel: Sequence[int], dilation: Sequence[int]) -> tuple[tuple[int, int], ...]:
    if isinstance(value, str):
        return resolve_padding({"valid": "none"}.get(value, value), kernel, 1, dilation)
    return tuple((p, p) for p in _each(value, len(kernel)))


def _convolution(function: Any, arguments: Sequence[Any], options: Mapping[str, Any], result: Any) -> Call:
    given = _bind("input weight bias stride padding dilation groups", arguments, options)
    return "convolution", _kernel_attributes(given, given["weight"])


def _transposed(function: Any, arguments: Sequence[Any], options: Mapping[str, Any], result: Any) -> Call:
    given = _bind("input weight bias stride padding output_padding groups dilation", arguments, options)
    return "transposed_convolution", _kernel_attributes(given, given["weight"])


def _kernel_attributes(given: Mapping[str, Any], weight: Tensor) -> dict[str, Any]:
    kernel = tuple(weight.shape[2:])
    dilation = _each(given.get("dilation", 1), len(kernel))
    return {
        "kernel": kernel,
        "stride": _each(given.get("stride", 1), len(kernel)),
        "padding": _pairs(given.get("padding", 0), kernel, dilation),
        "dilation": dilation,
        "groups": given.get("groups", 1),
        "output_padding": _each(given.get("output_padding", 0), len(kernel)),
    }


def _pool(operator: str, names: str) -> Rule:
    def rule(function: Any, arguments: Sequence[Any], options: Mapping[str, Any], result: Any) -> Call:
        given = _bind(names, arguments, options)
        axes = int(function.__name__[-2])
        kernel = _each(given["kernel_size"], axes)
        dilation = _each(given.get("dilation", 1), axes)
        stride = given.get("stride")
        return operator, {
            "kernel": kernel,
            "stride": kernel if stride is None or stride == [] else _each(stride, axes),
            "padding": _pairs(given.get("padding", 0), kernel, dilation),
            "dilation": dilation,
            "ceil": bool(given.get("ceil_mode", False)),
        }

    return rule


def _blocks(operator: str) -> Rule:
    """Positions to channels, or back, in blocks."""

    def rule(function: Any, arguments: Sequence[Any], options: Mapping[str, Any], result: Any) -> Call:
        block = [*arguments, *options.values()][1]
        return operator, {"block": (block, block)}

    return rule


def _adaptive(function: Any, arguments: Sequence[Any], options: Mapping[str, Any], result: Any) -> Call:
    return "adaptive_pool", {"axes": int(function.__name__[-2])}


def _resize(function: Any, arguments: Sequence[Any], options: Mapping[str, Any], result: Any) -> Call:
    given = _bind("input size scale_factor mode align_corners recompute_scale_factor antialias", arguments, options)
    if given.get("antialias"):
        return "unknown", {"function": "interpolate with antialias"}
    mode = given.get("mode", "nearest")
    axes = given["input"].dim() - 2
    scale = given.get("scale_factor")
    if given.get("recompute_scale_factor"):
        scale = None
    return "resize", {
        "mode": {"bilinear": "linear", "trilinear": "linear", "bicubic": "cubic"}.get(mode, mode),
        "align_corners": bool(given.get("align_corners")),
        "scale": (scale,) * axes if scale is None or isinstance(scale, int | float) else tuple(scale),
    }


def _pad(function: Any, arguments: Sequence[Any], options: Mapping[str, Any], result: Any) -> Call:
    given = _bind("input pad mode value", arguments, options)
    flat = list(given["pad"])
    rank = given["input"].dim()
    pairs = [(0, 0)] * rank
    for number in range(len(flat) // 2):  # the last axis comes first
        pairs[rank - 1 - number] = (flat[2 * number], flat[2 * number + 1])
    mode = given.get("mode", "constant")
    return "pad", {"padding": tuple(pairs), "mode": "zeros" if mode == "constant" else mode}


def _batch_norm(function: Any, arguments: Sequence[Any], options: Mapping[str, Any], result: Any) -> Call:
    given = _bind("input running_mean running_var weight bias training momentum eps", arguments, options)
    if given.get("training"):
        return "normalise", {"axes": (0, *range(2, given["input"].dim()))}
    return "batch_norm", {}


def _normalise(first: int) -> Rule:
    def rule(function: Any, arguments: Sequence[Any], options: Mapping[str, Any], result: Any) -> Call:
        return "normalise", {"axes": tuple(range(first, result.dim()))}

    return rule


def _layer_norm(function: Any, arguments: Sequence[Any], options: Mapping[str, Any], result: Any) -> Call:
    shape = _bind("input normalized_shape", arguments, options)["normalized_shape"]
    return "normalise", {"axes": tuple(range(result.dim() - len(shape), result.dim()))}


def _softmax(function: Any, arguments: Sequence[Any], options: Mapping[str, Any], result: Any) -> Call:
    axis = _bind("input dim", arguments, options).get("dim")
    if axis is None:
        return "unknown", {"function": "softmax without dim"}
    return "softmax", {"axes": (axis % result.dim(),)}


def _reduce(function: Any, arguments: Sequence[Any], options: Mapping[str, Any], result: Any) -> Call:
    given = _bind("input dim keepdim", arguments, options)
    if isinstance(given.get("dim"), Tensor):  # torch.max(a, b) is elementwise
        return "combine", {}
    rank = given["input"].dim()
    axes = given.get("dim", given.get("axis"))
    axes = tuple(range(rank)) if axes is None or axes in ((), []) else axes
    axes = (axes,) if isinstance(axes, int) else axes
    return "reduce", {"axes": tuple(axis % rank for axis in axes), "keep": bool(given.get("keepdim", False))}


def _concat(function: Any, arguments: Sequence[Any], options: Mapping[str, Any], result: Any) -> Call:
    given = _bind("tensors dim", arguments, options)
    return "concat", {"axis": given.get("dim", given.get("axis", 0)) % result.dim()}


def _permute(function: Any, arguments: Sequence[Any], options: Mapping[str, Any], result: Any) -> Call:
    x = arguments[0]
    # Asking PyTorch which axis went where covers permute, transpose, movedim and their spellings alike.
    probe = torch.empty([1] * x.dim()).as_strided([1] * x.dim(), list(range(x.dim())))
    return "permute", {"order": tuple(function(probe, *arguments[1:], **options).stride())}


def _narrow(function: Any, arguments: Sequence[Any], options: Mapping[str, Any], result: Any) -> Call:
    given = _bind("input dim start length", arguments, options)
    start = given["start"]
    if not isinstance(start, int):
        return "unknown", {"function": "narrow with a computed start"}
    axis = given["dim"] % given["input"].dim()
    return "narrow", {"slices": {axis: (start % max(given["input"].shape[axis], 1), 1)}}


def _split(function: Any, arguments: Sequence[Any], options: Mapping[str, Any], result: Any) -> Call:
    axis = _bind("input sections dim", arguments, options).get("dim", 0) % arguments[0].dim()
    return "split", {"axis": axis}


def _item(function: Any, arguments: Sequence[Any], options: Mapping[str, Any], result: Any) -> Call:
    x, index = arguments
    parts = list(index) if isinstance(index, tuple) else [index]
    if not all(part is None or part is Ellipsis or isinstance(part, int | slice) for part in parts):
        return "unknown", {"function": "indexing with a tensor"}
    if any(part is None for part in parts):
        return "unknown", {"function": "indexing with None"}
    if Ellipsis in parts:
        place = parts.index(Ellipsis)
        parts[place : place + 1] = [slice(None)] * (x.dim() - len(parts) + 1)
    slices: dict[int, tuple[int, int]] = {}
    dropped = []
    for axis, part in enumerate(parts):
        if isinstance(part, int):
            dropped.append(axis)
        else:
            start, _, step = part.indices(x.shape[axis])
            slices[axis] = (start, step)
    return "narrow", {"slices": slices, "dropped": tuple(dropped)}


def _matmul(function: Any, arguments: Sequence[Any], options: Mapping[str, Any], result: Any) -> Call:
    return "matmul", {"inner": arguments[0].shape[-1]}


def _plain(operator: str) -> Rule:
    def rule(function: Any, arguments: Sequence[Any], options: Mapping[str, Any], result: Any) -> Call:
        return operator, {}

    return rule


_ACTIVATIONS = (
    "relu relu6 leaky_relu rrelu prelu elu selu celu gelu silu mish hardswish hardsigmoid hardtanh sigmoid "
    "tanh softplus logsigmoid softsign tanhshrink hardshrink softshrink threshold clamp clip exp log sqrt "
    "rsqrt abs neg square pow reciprocal sin cos erf sign round floor ceil float half double bfloat16 type_as"
)
_IDENTITIES = (
    "contiguous clone detach to dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout "
    "stochastic_depth type requires_grad cpu alias channel_shuffle"
)
_COMBINES = (
    "sub rsub subtract div truediv rtruediv true_divide divide maximum minimum where lerp addcmul eq ne lt "
    "le gt ge masked_fill expand expand_as broadcast_to"
)

RULES: dict[str, Rule] = {
    **{f"conv{n}d": _convolution for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": _transposed for n in (1, 2, 3)},
    **{f"max_pool{n}d": _pool("max_pool", "input kernel_size stride padding dilation ceil_mode") for n in (1, 2, 3)},
    **{
        f"avg_pool{n}d": _pool("average_pool", "input kernel_size stride padding ceil_mode count_include_pad")
        for n in (1, 2, 3)
    },
    **{f"adaptive_{kind}_pool{n}d": _adaptive for kind in ("avg", "max") for n in (1, 2, 3)},
    "interpolate": _resize,
    "upsample": _resize,
    "pixel_shuffle": _blocks("depth_to_space"),
    "pixel_unshuffle": _blocks("space_to_depth"),
    "pad": _pad,
    "linear": _plain("dense"),
    "matmul": _matmul,
    "bmm": _matmul,
    "batch_norm": _batch_norm,
    "instance_norm": _normalise(2),
    "group_norm": _normalise(1),
    "layer_norm": _layer_norm,
    "softmax": _softmax,
    "log_softmax": _softmax,
    **dict.fromkeys(("mean", "sum", "amax", "amin", "max", "min", "var", "std"), _reduce),
    **dict.fromkeys(("cat", "concat", "concatenate"), _concat),
    **dict.fromkeys(("permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims", "t"), _permute),
    **{name: _plain("reshape") for name in ("flatten", "view", "reshape", "squeeze", "unsqueeze", "unflatten")},
    "narrow": _narrow,
    "__getitem__": _item,
    **dict.fromkeys(("chunk", "split", "tensor_split"), _split),
    "add": _plain("add"),
    "radd": _plain("add"),
    "mul": _plain("multiply"),
    "rmul": _plain("multiply"),
    "multiply": _plain("multiply"),
    **{name: _plain("activation") for name in _ACTIVATIONS.split()},
    **{name: _plain("identity") for name in _IDENTITIES.split()},
    **{name: _plain("combine") for name in _COMBINES.split()},
}
