"""Rules of the operators that see neighbourhoods: convolutions, activations, poolings, resizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from convoxel.arithmetic.window import resolve_padding
from convoxel.graph.ir.graph import Value
from convoxel.graph.read.reader import NotNative
from convoxel.graph.read.torch.call import Call, Result, Rule, rule


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
    """Return the number of spatial axes, which is in the operator's name: ``aten.max_pool2d.default``."""
    return int(call.function[-2])


def _kernel(call: Call) -> tuple[int, ...]:
    """Return the kernel's size, if the weights are known."""
    if isinstance(call["weight"], Value):
        raise NotNative("weight is computed by the network")
    return tuple(call["weight"].shape[2:])


# ---- convolutions ----------------------------------------------------------------------------------------


@_layer(*(f"aten.conv{n}d.{overload}" for n in (1, 2, 3) for overload in ("default", "padding")))
def _convolution(call: Call) -> Value:
    kernel = _kernel(call)
    dims = len(kernel)
    x = _spatial(call, "input", dims)
    dilation = _each(call["dilation"], dims)
    if isinstance(call["padding"], str):
        padding = resolve_padding({"valid": "none"}.get(call["padding"], call["padding"]), kernel, 1, dilation)
    else:
        padding = _pairs(call["padding"], dims)
    return call.add(
        "convolution",
        x.name,
        call.constant("weight"),
        call.constant("bias"),
        stride=_each(call["stride"], dims),
        padding=padding,
        dilation=dilation,
        groups=call["groups"],
    )


@_layer(
    "aten.conv_transpose1d.default",
    "aten.conv_transpose1d.input",
    "aten.conv_transpose2d.input",
    "aten.conv_transpose3d.input",
)
def _transposed_convolution(call: Call) -> Value:
    dims = len(_kernel(call))
    x = _spatial(call, "input", dims)
    return call.add(
        "transposed_convolution",
        x.name,
        call.constant("weight"),
        call.constant("bias"),
        stride=_each(call["stride"], dims),
        padding=_pairs(call["padding"], dims),
        output_padding=_each(call["output_padding"], dims),
        dilation=_each(call["dilation"], dims),
        groups=call["groups"],
    )


# ---- activations -----------------------------------------------------------------------------------------


@rule("aten.leaky_relu.default", "aten.leaky_relu_.default")
def _leaky_relu(call: Call) -> Value:
    return call.add("leaky_relu", call.tensor("self").name, slope=float(call["negative_slope"]))


@rule("aten.elu.default", "aten.elu_.default")
def _elu(call: Call) -> Value:
    if call["scale"] != 1 or call["input_scale"] != 1:
        raise NotNative("a scaled ELU")
    return call.add("elu", call.tensor("self").name, alpha=float(call["alpha"]))


# ---- pooling and resizing --------------------------------------------------------------------------------


def _check_padding(call: Call, kernel: tuple[int, ...]) -> None:
    if any(2 * p > k for p, k in zip(_each(call["padding"], len(kernel)), kernel, strict=True)):
        raise NotNative("padding of more than half of the window, which PyTorch refuses")


@_layer(
    "convoxel.max_pool1d.default",
    *(f"aten.max_pool{n}d{indices}.default" for n in (1, 2, 3) for indices in ("", "_with_indices")),
)
def _max_pool(call: Call) -> Result:
    dims = int(call.function.split("d")[0][-1])
    x = _spatial(call, "self", dims)
    kernel = _each(call["kernel_size"], dims)
    _check_padding(call, kernel)
    return call.add_all(
        "max_pool",
        x.name,
        kernel=kernel,
        stride=_each(call["stride"], dims) or kernel,
        padding=_pairs(call["padding"], dims),
        dilation=_each(call["dilation"], dims),
        ceil=call["ceil_mode"],
    )


@_layer("aten.avg_pool1d.default", "aten.avg_pool2d.default", "aten.avg_pool3d.default")
def _average_pool(call: Call) -> Value:
    dims = _dims(call)
    x = _spatial(call, "self", dims)
    kernel = _each(call["kernel_size"], dims)
    _check_padding(call, kernel)
    return call.add(
        "average_pool",
        x.name,
        kernel=kernel,
        stride=_each(call["stride"], dims) or kernel,
        padding=_pairs(call["padding"], dims),
        dilation=(1,) * dims,
        ceil=call["ceil_mode"],
        count_padding=call["count_include_pad"],
        divisor=call.arguments.get("divisor_override") or 0,
    )


@_layer(*(f"aten.adaptive_avg_pool{n}d.default" for n in (1, 2, 3)))
def _adaptive_average_pool(call: Call) -> Value:
    dims = _dims(call)
    x = _spatial(call, "self", dims)
    return call.add("adaptive_average_pool", x.name, size=_adaptive_size(call, dims))


def _adaptive_size(call: Call, dims: int) -> tuple[int, ...]:
    """Return the lengths asked for; 0 keeps an axis, which PyTorch says by None."""
    return tuple(extent or 0 for extent in _each(call["output_size"], dims))


@_layer(*(f"aten.adaptive_max_pool{n}d.default" for n in (1, 2, 3)))
def _adaptive_max_pool(call: Call) -> Result:
    dims = _dims(call)
    x = _spatial(call, "self", dims)
    return call.add_all("adaptive_max_pool", x.name, size=_adaptive_size(call, dims))


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


@rule("aten.pixel_shuffle.default")
def _pixel_shuffle(call: Call) -> Result:
    return call.add("depth_to_space", call.tensor("self").name, block=call["upscale_factor"], channels_outside=True)


@rule("aten.pixel_unshuffle.default")
def _pixel_unshuffle(call: Call) -> Result:
    return call.add("space_to_depth", call.tensor("self").name, block=call["downscale_factor"], channels_outside=True)


@rule("aten.channel_shuffle.default", "aten.native_channel_shuffle.default")
def _channel_shuffle(call: Call) -> Result:
    return call.add("shuffle", call.tensor("self").name, groups=call["groups"])


_RESIZES = {
    "upsample_nearest1d": "nearest",
    "upsample_nearest2d": "nearest",
    "upsample_nearest3d": "nearest",
    "_upsample_nearest_exact1d": "nearest_exact",
    "_upsample_nearest_exact2d": "nearest_exact",
    "_upsample_nearest_exact3d": "nearest_exact",
    "upsample_linear1d": "linear",
    "upsample_bilinear2d": "linear",
    "upsample_trilinear3d": "linear",
    "upsample_bicubic2d": "cubic",
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
    return call.add(
        "resize",
        x.name,
        size=tuple(size or ()),
        scale=() if None in scales else scales,
        mode=_RESIZES[name],
        align_corners=bool(call.arguments.get("align_corners") or False),
    )
