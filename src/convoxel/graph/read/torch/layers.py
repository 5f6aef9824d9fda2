"""Rules of the operators that see neighbourhoods: convolutions, activations, poolings, resizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from convoxel.arithmetic.window import resolve_padding
from convoxel.files.values import JsonObject
from convoxel.graph.ir.graph import Value
from convoxel.graph.ir.size import Size
from convoxel.graph.read.reader import NotNative
from convoxel.graph.read.torch.call import Call, Result, Rule, hand_on, rule


class _Unbatched(Exception):
    """Raised by a rule: the argument ``key`` is one image without a batch axis, as PyTorch's layers permit."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _layer(*targets: str) -> Callable[[Rule], Rule]:
    """Register a rule of batches for single images too: they become a batch of one, and its results single again."""

    def register(function: Rule) -> Rule:
        def either(call: Call) -> Result:
            try:
                return function(call)
            except _Unbatched as image:
                shapes = tuple((1, *shape) for shape in call.shapes)
                return call.around(image.key, (1, *call.arguments[image.key].shape), shapes, function)

        rule(*targets)(either)
        return function

    return register


def _each(value: Any, dims: int) -> tuple[Any, ...]:
    """Return one entry for each spatial axis; PyTorch lets one entry stand for all."""
    if not isinstance(value, list | tuple):
        return (value,) * dims
    return tuple(value) * dims if len(value) == 1 else tuple(value)


def _pairs(padding: Any, dims: int) -> tuple[tuple[int, int], ...]:
    return tuple((p, p) for p in _each(padding, dims))


def _spatial(call: Call, key: str, dims: int) -> Value:
    """Return a tensor argument with a batch axis, channels and ``dims`` spatial axes."""
    value = call.arguments[key]
    if isinstance(value, Value) and len(value.shape) == dims + 1:
        raise _Unbatched(key)
    value = call.tensor(key)
    if len(value.shape) != dims + 2:
        raise NotNative(f"x has {len(value.shape)} axes")
    return value


def _dims(call: Call) -> int:
    """Return the number of spatial axes, which is in the operator's name: 2 for ``max_pool2d_with_indices``."""
    return int(call.function.removesuffix("_with_indices")[-2])


def _kernel(call: Call) -> tuple[int, ...]:
    """Return the kernel's size, if that is known."""
    kernel = tuple(call["weight"].shape[2:])
    if any(isinstance(size, Size) for size in kernel):
        raise NotNative("weights of an open size")
    return kernel


# ---- convolutions ----------------------------------------------------------------------------------------


@_layer(*(f"aten.conv{n}d.{overload}" for n in (1, 2, 3) for overload in ("default", "padding")))
def _convolution(call: Call) -> Value:
    return _convolved(call, "convolution")


@_layer("aten.conv_transpose1d.default", *(f"aten.conv_transpose{n}d.input" for n in (1, 2, 3)))
def _transposed_convolution(call: Call) -> Value:
    return _convolved(call, "transposed_convolution", output_padding=_each(call["output_padding"], len(_kernel(call))))


@_layer("aten.convolution.default")
def _any_convolution(call: Call) -> Value:
    """Both of them, in any number of axes, by the name that they have where PyTorch has taken layers apart."""
    if not call["transposed"]:
        return _convolved(call, "convolution")
    return _convolved(call, "transposed_convolution", output_padding=_each(call["output_padding"], len(_kernel(call))))


def _convolved(call: Call, operator: str, **more: Any) -> Value:
    """Add the node of a convolution; ``more`` are attributes that the transposed one alone has."""
    kernel, padding = _kernel(call), call["padding"]
    dims = len(kernel)
    x = _spatial(call, "input", dims)
    stride, dilation = _each(call["stride"], dims), _each(call["dilation"], dims)
    if isinstance(padding, str):
        pairs: Any = resolve_padding({"valid": "none"}.get(padding, padding), kernel, 1, dilation)
    else:
        pairs = _pairs(padding, dims)
    window: JsonObject = {"stride": stride, "padding": pairs, "dilation": dilation, "groups": call["groups"], **more}
    known = not isinstance(call["weight"], Value)
    bias = call.any("bias") if isinstance(call["bias"], Value) else call.constant("bias")
    return call.add(operator, x.name, call.constant("weight") if known else call["weight"].name, bias, **window)


# ---- pooling and resizing --------------------------------------------------------------------------------


@_layer(
    "convoxel.max_pool1d.default",
    *(f"aten.max_pool{n}d{indices}.default" for n in (1, 2, 3) for indices in ("", "_with_indices")),
)
def _max_pool(call: Call) -> Result:
    return _pooled(call, "max_pool")


@_layer(*(f"aten.avg_pool{n}d.default" for n in (1, 2, 3)))
def _average_pool(call: Call) -> Result:
    divisor = call.arguments.get("divisor_override") or 0
    return _pooled(call, "average_pool", count_padding=call["count_include_pad"], divisor=divisor)


def _pooled(call: Call, operator: str, **more: Any) -> Result:
    """Add the node of a pooling over windows; ``more`` are attributes that it alone has."""
    dims = _dims(call)
    x = _spatial(call, "self", dims)
    kernel, padding = _each(call["kernel_size"], dims), _pairs(call["padding"], dims)
    if any(2 * low > k for (low, _), k in zip(padding, kernel, strict=True)):
        raise NotNative("padding of more than half of the window, which PyTorch refuses")
    stride, dilation = _each(call["stride"], dims) or kernel, _each(call.arguments.get("dilation", 1), dims)
    window: JsonObject = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    return call.add_all(operator, x.name, **window, ceil=call["ceil_mode"], **more)


@_layer(
    *(f"aten.adaptive_{kind}_pool{n}d.default" for kind in ("avg", "max") for n in (1, 2, 3)),
    *(f"aten._adaptive_avg_pool{n}d.default" for n in (2, 3)),
)
def _adaptive_pool(call: Call) -> Result:
    """PyTorch asks by None to keep an axis, we by 0."""
    dims = _dims(call)
    x = _spatial(call, "self", dims)
    size = tuple(extent or 0 for extent in _each(call["output_size"], dims))
    return call.add_all(f"adaptive_{'average' if 'avg' in call.function else 'max'}_pool", x.name, size=size)


@_layer("aten.fractional_max_pool2d.default", "aten.fractional_max_pool3d.default")
def _fractional_max_pool(call: Call) -> Result:
    dims = _dims(call)
    x = _spatial(call, "self", dims)
    how = {"kernel": _each(call["kernel_size"], dims), "size": _each(call["output_size"], dims)}
    return call.add_all("fractional_max_pool", x.name, call.any("random_samples"), **how, width_first=dims == 2)


@rule(*(f"aten.max_unpool{n}d.default" for n in (2, 3)))
def _max_unpool(call: Call) -> Result:
    return call.add_all("max_unpool", call.any("self"), call.any("indices"), shape=call.shape, order="channel")


@rule("aten.grid_sampler.default", "aten.grid_sampler_2d.default", "aten.grid_sampler_3d.default")
def _grid_sample(call: Call) -> Result:
    return call.add_all(
        "grid_sample",
        call.any("input"),
        call.any("grid"),
        mode=("linear", "nearest", "cubic")[call["interpolation_mode"]],
        padding=("zeros", "border", "reflection")[call["padding_mode"]],
        align_corners=bool(call["align_corners"]),
    )


@rule("aten.affine_grid_generator.default")
def _affine_grid(call: Call) -> Result:
    size = tuple(call["size"])
    return call.add_all("affine_grid", call.any("theta"), size=size, align_corners=bool(call["align_corners"]))


hand_on("aten.pixel_shuffle.default", "depth_to_space", "self", block="upscale_factor", channels_outside=True)
hand_on("aten.pixel_unshuffle.default", "space_to_depth", "self", block="downscale_factor", channels_outside=True)
for _name in ("channel_shuffle", "native_channel_shuffle"):
    hand_on(f"aten.{_name}.default", "shuffle", "self", groups="groups")

_RESIZES = {
    **{f"upsample_nearest{n}d": "nearest" for n in (1, 2, 3)},
    **{f"_upsample_nearest_exact{n}d": "nearest_exact" for n in (1, 2, 3)},
    **dict.fromkeys(("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d"), "linear"),
    "upsample_bicubic2d": "cubic",
    "_upsample_bilinear2d_aa": "linear_antialiased",
    "_upsample_bicubic2d_aa": "cubic_antialiased",
}


@rule(*(f"aten.{name}.{overload}" for name in _RESIZES for overload in ("vec", "default")))
def _resize(call: Call) -> Value:
    name, overload = call.target.split(".")[1:]
    if overload == "vec":
        x, size = call.tensor("input"), call["output_size"]
        scales = tuple(call["scale_factors"] or ())
    else:
        x, size = call.tensor("self"), call["output_size"]
        scales = tuple(call.arguments[key] for key in call.arguments if key.startswith("scales"))
    aligned, scales = bool(call.arguments.get("align_corners") or False), () if None in scales else scales
    how: JsonObject = {"size": tuple(size or ()), "scale": scales, "mode": _RESIZES[name], "align_corners": aligned}
    return call.add("resize", x.name, **how)
