"""Rules of the operators that see neighbourhoods: convolutions, normalisations, activations, poolings,
resizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from convoxel.arithmetic.window import resolve_padding
from convoxel.graph.from_torch.call import Call, Rule, rule
from convoxel.graph.ir import Value
from convoxel.graph.reader import NotNative
from convoxel.graph.size import Extents


class _Unbatched(Exception):
    """Raised by a rule: the argument ``key`` is one image without a batch axis, as PyTorch's layers permit."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _layer(*targets: str) -> Callable[[Rule], Rule]:
    """Register a rule of batches for single images too: they become a batch of one, and its results single again."""

    def register(function: Rule) -> Rule:
        def either(call: Call) -> Any:
            try:
                return function(call)
            except _Unbatched as image:
                return _of_one(call, image.key, function)

        rule(*targets)(either)
        return function

    return register


def _of_one(call: Call, key: str, function: Rule) -> Any:
    image = call.arguments[key]
    (batch,) = _reshaped(call, image, (1, *image.shape))
    shapes = tuple((1, *shape) for shape in call.shapes)
    found = function(dataclasses.replace(call, arguments={**call.arguments, key: batch}, shapes=shapes))
    results = found if isinstance(found, list | tuple) else [found]
    singles = [
        _reshaped(call, result, shape)[0] if isinstance(result, Value) else result
        for result, shape in zip(results, call.shapes, strict=False)
    ]
    return singles if isinstance(found, list | tuple) else singles[0]


def _reshaped(call: Call, value: Value, shape: Extents) -> tuple[Value, ...]:
    return call.reader.add("array.reshape", call.name, [value.name], [shape], [value.dtype], shape=shape)


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


# ---- normalisation ---------------------------------------------------------------------------------------


@rule("aten.batch_norm.default", "aten._native_batch_norm_legit_no_training.default")
def _batch_norm(call: Call) -> Any:
    if call.arguments.get("training", False) or call["running_mean"] is None:
        raise NotNative("statistics of the batch")
    value = _running_norm(call)
    return value if len(call.shapes) == 1 else [value, None, None]


def _running_norm(call: Call) -> Value:
    return call.add(
        "batch_norm",
        call.tensor("input").name,
        call.constant("weight"),
        call.constant("bias"),
        call.constant("running_mean"),
        call.constant("running_var"),
        epsilon=call["eps"],
    )


@rule("aten.instance_norm.default")
def _instance_norm(call: Call) -> Value:
    if not call["use_input_stats"]:
        return _running_norm(call)
    x = call.tensor("input")
    if len(x.shape) < 3:
        raise NotNative("no spatial axis")
    return call.add("normalise", x.name, call.constant("weight"), call.constant("bias"), groups=0, epsilon=call["eps"])


@rule("aten.group_norm.default")
def _group_norm(call: Call) -> Value:
    x = call.tensor("input")
    return call.add(
        "normalise",
        x.name,
        call.constant("weight"),
        call.constant("bias"),
        groups=call["num_groups"],
        epsilon=call["eps"],
    )


# ---- activations -----------------------------------------------------------------------------------------


def _activation(call: Call, function: str, slope: float = 0.0) -> Value:
    return call.add("activation", call.tensor("self").name, activation=function, slope=float(slope))


_ACTIVATIONS = {
    "relu": "relu",
    "relu6": "relu6",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "silu": "silu",
    "hardswish": "hard_swish",
}


@rule(*(f"aten.{name}{write}.default" for name in _ACTIVATIONS for write in ("", "_")))
def _plain_activation(call: Call) -> Value:
    return _activation(call, _ACTIVATIONS[call.function])


@rule("aten.leaky_relu.default", "aten.leaky_relu_.default")
def _leaky_relu(call: Call) -> Value:
    return _activation(call, "leaky_relu", call["negative_slope"])


@rule("aten.elu.default", "aten.elu_.default")
def _elu(call: Call) -> Value:
    if call["scale"] != 1 or call["input_scale"] != 1:
        raise NotNative("a scaled ELU")
    return _activation(call, "elu", call["alpha"])


# ---- pooling and resizing --------------------------------------------------------------------------------


@_layer("convoxel.max_pool1d.default", *(f"aten.max_pool{n}d.default" for n in (1, 2, 3)))
def _max_pool(call: Call) -> Value:
    dims = _dims(call)
    x = _spatial(call, "self", dims)
    kernel = _each(call["kernel_size"], dims)
    return call.add(
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
    return call.add("adaptive_average_pool", x.name, size=_each(call["output_size"], dims))


@_layer(*(f"aten.adaptive_max_pool{n}d.default" for n in (1, 2, 3)))
def _adaptive_max_pool(call: Call) -> list[Any]:
    dims = _dims(call)
    x = _spatial(call, "self", dims)
    size = _each(call["output_size"], dims)
    if any(extent != 1 for extent in size) or 1 in call.used:
        raise NotNative("an adaptive maximum to more than one position, or with indices")
    return [call.add("global_max_pool", x.name, size=size), None]


@_layer(*(f"aten.max_pool{n}d_with_indices.default" for n in (1, 2, 3)))
def _max_pool_with_places(call: Call) -> Any:
    dims = int(call.target.split("d_with")[0][-1])
    x = _spatial(call, "self", dims)
    kernel = _each(call["kernel_size"], dims)
    window = {
        "kernel": kernel,
        "stride": _each(call["stride"], dims) or kernel,
        "padding": _pairs(call["padding"], dims),
        "dilation": _each(call["dilation"], dims),
        "ceil": call["ceil_mode"],
    }
    if 1 not in call.used:
        return [call.add("max_pool", x.name, **window), None]
    return call.array("max_pool", x.name, **window, order="channel")


@rule(*(f"aten.max_unpool{n}d.default" for n in (2, 3)))
def _max_unpool(call: Call) -> Any:
    return call.array("max_unpool", call.any("self"), call.any("indices"), shape=call.shape, order="channel")


@rule("aten.grid_sampler.default", "aten.grid_sampler_2d.default", "aten.grid_sampler_3d.default")
def _grid_sample(call: Call) -> Any:
    return call.array(
        "grid_sample",
        call.any("input"),
        call.any("grid"),
        mode=("linear", "nearest", "cubic")[call["interpolation_mode"]],
        padding=("zeros", "border", "reflection")[call["padding_mode"]],
        align_corners=bool(call["align_corners"]),
    )


@rule("aten.affine_grid_generator.default")
def _affine_grid(call: Call) -> Any:
    size = tuple(call["size"])
    return call.array("affine_grid", call.any("theta"), size=size, align_corners=bool(call["align_corners"]))


@rule("aten.pixel_shuffle.default")
def _pixel_shuffle(call: Call) -> Any:
    return call.add("depth_to_space", call.tensor("self").name, block=call["upscale_factor"], channels_outside=True)


@rule("aten.pixel_unshuffle.default")
def _pixel_unshuffle(call: Call) -> Any:
    return call.array("space_to_depth", call.any("self"), block=call["downscale_factor"], channels_outside=True)


@rule("aten.channel_shuffle.default", "aten.native_channel_shuffle.default")
def _channel_shuffle(call: Call) -> Any:
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
