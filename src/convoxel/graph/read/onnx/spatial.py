"""Rules of the operators that see neighbourhoods: convolutions, poolings, resizing, sampling."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from convoxel.files.values import JsonObject
from convoxel.graph.ir.size import Scalar, Size, arithmetic, as_whole, larger, round_down, scaled, smaller
from convoxel.graph.read.onnx.call import Call, Result, Tensor, rank, rule, snake
from convoxel.graph.read.onnx.numeric import dequantised, requantised, without_zero
from convoxel.graph.read.reader import NotNative

Pairs = tuple[tuple[Any, Any], ...]


_AUTOMATIC = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


def _axes(call: Call, attribute: str, dims: int, default: int = 1) -> tuple[int, ...]:
    """Return one number for each spatial axis, each at least ``default``."""
    given = tuple(call.get(attribute) or (default,) * dims)
    call.require(len(given) == dims, f"{attribute} {list(given)} are {len(given)} numbers; expected {dims}")
    call.require(min(given, default=default) >= default, f"{attribute} are {list(given)}; expected at least {default}")
    return given


def _padding(
    call: Call, x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> Pairs:
    """Return the padding before and after each axis, by numbers or by ``auto_pad``; of an open size, open itself."""
    dims, automatic = len(kernel), call.get("auto_pad", "NOTSET")
    call.require(automatic in _AUTOMATIC, f"auto_pad is {automatic!r}; expected one of {', '.join(_AUTOMATIC)}")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        pairs = []
        for size, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True):
            total: Any = larger((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0) if s > 1 else d * (k - 1)
            pairs.append(_halves(total, automatic))
        return tuple(pairs)
    return call.pairs(dims) if automatic == "NOTSET" else ((0, 0),) * dims


def _halves(total: Any, automatic: str) -> tuple[Any, Any]:
    small = total // 2
    return (small, total - small) if automatic == "SAME_UPPER" else (total - small, small)


# ---- convolutions ----------------------------------------------------------------------------------------


def _window(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> JsonObject:
    """Return what a convolution's attributes say, if operands fit them."""
    kernel: Any = _kernel(call, x, weight, bias, weight.shape[0])
    dims = len(kernel)
    stride, dilation = _axes(call, "strides", dims), _axes(call, "dilations", dims)
    padding = _padding(call, x, kernel, stride, dilation)
    return {"stride": stride, "padding": padding, "dilation": dilation, "groups": call.get("group", 1)}


def _kernel(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None, results: Any) -> tuple[Any, ...]:
    """Return the sizes of a convolution's kernel, if weights and bias fit its input and attributes."""
    kernel, said, groups = tuple(weight.shape[2:]), call.get("kernel_shape"), call.get("group", 1)
    call.require(rank(weight) == rank(x), f"weights have {rank(weight)} axes, x has {rank(x)}")
    call.require(not said or tuple(said) == kernel, f"kernel_shape is {said}, but the weights have {list(kernel)}")
    call.require(0 not in weight.shape, f"weights have shape {list(weight.shape)}; expected sizes of at least 1")
    call.require(groups > 0, f"groups are {groups}; expected at least 1")
    if bias is not None and not isinstance(results, Size):
        call.require(tuple(bias.shape) == (results,), f"the bias has shape {list(bias.shape)}; expected [{results}]")
    return kernel


@rule("Conv")
def _convolution(call: Call) -> Result:
    x, weight, bias = call.tensor(0), call.tensor(1), call.maybe(2)
    return call.add("convolution", x, weight, bias, **_window(call, x, weight, bias))


@rule("CausalConvWithState")
def _causal_convolution(call: Call) -> Result:
    """Each output sees the present and the past; what lies before the first is the state, or 0."""
    x, weight, bias, past = call.tensor(0), call.tensor(1), call.maybe(2), call.maybe(3)
    channels, behind = x.shape[1], weight.shape[2] - 1
    if past is None:
        whole = call.add("pad", x, None, padding=((0, 0), (0, 0), (behind, 0)), mode="constant")
    else:
        whole = call.add("concat", past, x, axis=2)
    window: JsonObject = {"stride": (1,), "padding": ((0, 0),), "dilation": (1,), "groups": channels}
    y = call.add("convolution", whole, weight, bias, **window)
    if call.get("activation", "none") in ("silu", "swish"):
        y = call.add("swish", y)
    length = whole.shape[2]
    bounds: JsonObject = {"starts": (0, 0, length - behind), "stops": (None, None, length), "steps": (1, 1, 1)}
    return [y, call.add("slice", whole, **bounds)]


@rule("ConvInteger")
def _integer_convolution(call: Call) -> Result:
    behind = rank(call.tensor(0)) - 1
    x, weight = without_zero(call, 0, 2, behind), without_zero(call, 1, 3, behind)
    return call.add("convolution", x, weight, **_window(call, x, weight))


@rule("QLinearConv")
def _quantised_convolution(call: Call) -> Result:
    x, weight = dequantised(call, 0, 1, 2, 1), dequantised(call, 3, 4, 5, 0)
    bias = call.maybe(8)
    if bias is not None:  # counted in units of both scales
        scale = call.add("multiply", call.tensor(1), call.tensor(4))
        bias = call.add("multiply", call.add("cast", bias, dtype="float32", to="float32"), scale)
    result = call.add("convolution", x, weight, bias, **_window(call, x, weight, bias))
    return requantised(call, result, 6, 7)


@rule("ConvTranspose")
def _transposed_convolution(call: Call) -> Result:
    x, weight, bias = call.tensor(0), call.tensor(1), call.maybe(2)
    groups = call.get("group", 1)
    kernel: Any = _kernel(call, x, weight, bias, weight.shape[1] * groups)
    dims = len(kernel)
    stride, dilation = _axes(call, "strides", dims), _axes(call, "dilations", dims)
    extra = list(_axes(call, "output_padding", dims, 0))
    fits = all(e < max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True))
    call.require(fits, f"output_padding {extra} is not below the stride {list(stride)} or dilation {list(dilation)}")
    padding = _transposed_padding(call, x, kernel, stride, dilation, extra)
    window: JsonObject = {"stride": stride, "padding": padding, "output_padding": tuple(extra), "dilation": dilation}
    return call.add("transposed_convolution", x, weight, bias, **window, groups=groups)


def _transposed_padding(
    call: Call, x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...], extra: list[int]
) -> Pairs:
    dims, automatic, asked = len(kernel), call.get("auto_pad", "NOTSET"), call.get("output_shape")
    if automatic in ("NOTSET", "VALID") and not asked:
        return _padding(call, x, kernel, stride, dilation)
    pairs = []
    for axis in range(dims):
        size, span = x.shape[2 + axis], dilation[axis] * (kernel[axis] - 1) + 1
        wanted = asked[axis - dims] if asked else size * stride[axis]
        total: Any = stride[axis] * (size - 1) + extra[axis] + span - wanted
        if not isinstance(total, Size) and total < 0:
            extra[axis] -= total
            total = 0
        pairs.append(_halves(total, automatic))
    return tuple(pairs)


@rule("DeformConv")
def _deformable(call: Call) -> Result:
    x, weight = call.tensor(0), call.tensor(1)
    if rank(x) != 4:
        raise NotNative(f"a deformable convolution of {rank(x) - 2} spatial axes")
    operands = (x, weight, call.tensor(2), call.maybe(3), call.maybe(4))
    window = _window(call, x, weight)
    return call.add("deformable_convolution", *operands, **window, offset_groups=call.get("offset_group", 1))


@rule("Col2Im")
def _columns_to_image(call: Call) -> Result:
    shape, kernel = call.extents(1, "image_shape"), call.extents(2, "block_shape")
    dims = len(kernel)
    window: JsonObject = {"stride": _axes(call, "strides", dims), "dilation": _axes(call, "dilations", dims)}
    return call.add("columns_to_image", call.tensor(0), shape=shape, kernel=kernel, padding=call.pairs(dims), **window)


# ---- pooling ---------------------------------------------------------------------------------------------


def _pool_window(call: Call, x: Tensor) -> JsonObject:
    kernel = _axes(call, "kernel_shape", rank(x) - 2)
    stride, dilation = _axes(call, "strides", len(kernel)), _axes(call, "dilations", len(kernel))
    padding = _padding(call, x, kernel, stride, dilation)
    if call.get("auto_pad", "NOTSET") == "NOTSET":
        spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
        inside = all(0 <= p < span for pair, span in zip(padding, spans, strict=True) for p in pair)
        call.require(inside, f"pads {call.get('pads')} are not within 0 and the window {list(kernel)}")
    ceil = bool(call.get("ceil_mode", 0))
    return {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation, "ceil": ceil}


@rule("MaxPool")
def _max_pool(call: Call) -> Result:
    x, order = call.tensor(0), "column" if call.get("storage_order", 0) else "row"
    return call.results("max_pool", x, dtypes=(None, "int64"), **_pool_window(call, x), order=order)


@rule("AveragePool")
def _average_pool(call: Call) -> Result:
    x = call.tensor(0)
    return call.add("average_pool", x, **_pool_window(call, x), count_padding=bool(call.get("count_include_pad", 0)))


@rule("LpPool")
def _lp_pool(call: Call) -> Result:
    x = call.tensor(0)
    return call.add("lp_pool", x, **_pool_window(call, x), p=call.get("p", 2))


@rule("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def _global_pool(call: Call) -> Result:
    x = call.tensor(0)
    axes = tuple(range(2, rank(x)))
    if call.operator == "GlobalLpPool":
        powers = call.add("power", call.add("abs", x), np.array(call.get("p", 2), np.float32))
        total = call.add("reduce", powers, function="sum", axes=axes, keep=True)
        return call.add("power", total, np.array(1 / call.get("p", 2), np.float32))
    pool = "adaptive_max_pool" if call.operator == "GlobalMaxPool" else "adaptive_average_pool"
    return call.add(pool, x, size=(1,) * len(axes))


@rule("MaxUnpool")
def _max_unpool(call: Call) -> Result:
    x, index = call.tensor(0), call.tensor(1)
    kernel = tuple(call.get("kernel_shape"))
    stride = _axes(call, "strides", len(kernel))
    axes = zip(x.shape[2:], stride, kernel, call.pairs(len(kernel)), strict=True)
    spatial = tuple((size - 1) * s + k - low - high for size, s, k, (low, high) in axes)
    inner = (*x.shape[:2], *spatial)
    result = call.add("max_unpool", x, index, shape=inner, order="row")
    if call.maybe(2) is None:
        return result
    # Places count in the pooled tensor's own size; a larger result holds them at its front.
    more = tuple((0, new - old) for new, old in zip(call.extents(2, "output_shape"), inner, strict=True))
    return call.add("pad", result, None, padding=more, mode="constant")


@rule("RoiAlign")
def _region_align(call: Call) -> Result:
    half = call.get("coordinate_transformation_mode", "half_pixel" if call.version >= 16 else "output_half_pixel")
    return call.add(
        "region_align",
        *(call.tensor(index) for index in range(3)),
        size=(call.get("output_height", 1), call.get("output_width", 1)),
        ratio=call.get("sampling_ratio", 0),
        scale=call.get("spatial_scale", 1.0),
        mode={"avg": "average"}.get(call.get("mode", "avg"), "max"),
        half_pixel=half == "half_pixel",
    )


# ---- resizing and sampling -------------------------------------------------------------------------------


@rule("Upsample")
def _upsample(call: Call) -> Result:
    x = call.tensor(0)
    scales = call.get("scales") if call.version < 9 else call.known(1, "scales").reshape(-1)
    if scales is None:
        raise NotNative("no scales")
    return _upsampled(call, x, _scales(call, scales))


def _upsampled(call: Call, x: Tensor, scales: list[Scalar]) -> Tensor:
    """Resize as operator sets before 11 do."""
    mode = "nearest" if call.get("mode", "nearest") == "nearest" else "linear"
    # In operator set 10 alone a network may shrink, and then takes the next neighbour instead of the last.
    shrinks = call.operator == "Resize" and any(isinstance(scale, Size) or scale < 1 for scale in scales)
    how = {"mode": mode, "coordinate": "asymmetric", "rounding": "ceil_where_smaller" if shrinks else "floor"}
    sizes = [_scaled(size, factor) for size, factor in zip(x.shape, scales, strict=True)]
    return _resampled(call, x, list(range(rank(x))), sizes, scales, how)


def _scales(call: Call, given: Iterable[Any]) -> list[Scalar]:
    """Return factors, which must be numbers above 0, or quotients of sizes."""
    scales = [scale if isinstance(scale, Size) else float(scale) for scale in given]
    finite = all(isinstance(scale, Size) or 0 < scale < math.inf for scale in scales)
    call.require(finite, f"scales are {scales}; expected finite ones above 0")
    return scales


def _scaled(size: Any, factor: Scalar) -> Any:
    """Return the length that a factor makes, which is rounded as ONNX Runtime rounds: scales are float32."""
    return scaled(size, factor, "float32")


@rule("Resize")
def _resize(call: Call) -> Result:
    x = call.tensor(0)
    if call.version < 11:
        return _upsampled(call, x, _scales(call, call.known(1, "scales").reshape(-1)))
    axes = [call.axis(axis, rank(x)) for axis in call.get("axes") or range(rank(x))]
    old = [x.shape[axis] for axis in axes]
    factors: list[Scalar | None]
    if call.maybe(3) is not None and call.tensor(3).shape[0] != 0:
        sizes, factors = _asked_sizes(call, old)
    else:
        factors = [*_scales(call, call.known(2, "scales").reshape(-1))]
        sizes = [_scaled(size, factor or 1.0) for size, factor in zip(old, factors, strict=True)]
    if call.get("coordinate_transformation_mode") == "align_corners" and call.producer == "pytorch":
        # Corners lie on corners of the length as rounded, in PyTorch; in ONNX's samples, as it is before.
        factors = [None] * len(sizes)
    how: JsonObject = {
        "mode": call.get("mode", "nearest"),
        "coordinate": call.get("coordinate_transformation_mode", "half_pixel"),
        "rounding": call.get("nearest_mode", "round_prefer_floor"),
        "cubic": call.get("cubic_coeff_a", -0.75),
        "exclude_outside": bool(call.get("exclude_outside", 0)),
        "antialias": bool(call.get("antialias", 0)),
    }
    return _resampled(call, x, axes, sizes, factors, how)


def _asked_sizes(call: Call, old: list[Any]) -> tuple[list[Any], list[Scalar | None]]:
    """Return the lengths asked for, and the factors, where a policy keeps the proportions."""
    sizes = list(call.extents(3, "sizes"))
    call.require(all(size >= 1 for size in sizes), f"sizes are {sizes}; expected at least 1")
    policy = call.get("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return sizes, [None] * len(sizes)
    factors = [arithmetic("/", new, size, "float32") for new, size in zip(sizes, old, strict=True)]
    factor = functools.reduce(smaller if policy == "not_larger" else larger, factors)
    halves = [arithmetic("+", arithmetic("*", size, factor, "float32"), 0.5, "float32") for size in old]
    return [as_whole(round_down(size)) for size in halves], [factor] * len(sizes)


def _resampled(call: Call, x: Tensor, axes: list[int], sizes: list[Any], factors: Any, how: JsonObject) -> Tensor:
    """Resize the axes whose length changes; the others have a size of 0."""
    changed = {
        axis: (size, factor)
        for axis, size, factor in zip(axes, sizes, factors, strict=True)
        if size != x.shape[axis] or (factor or 1.0) != 1.0 or how["coordinate"] == "tf_crop_and_resize"
    }
    if not changed:
        return x
    region = [(0.0, 1.0)] * rank(x)
    if how["coordinate"] == "tf_crop_and_resize":
        corners = [float(r) for r in call.known(1, "roi").reshape(-1)]
        for place, axis in enumerate(axes):
            region[axis] = (corners[place], corners[place + len(axes)])
    return call.add(
        "interpolate",
        x,
        size=tuple(changed[axis][0] if axis in changed else 0 for axis in range(rank(x))),
        scale=tuple(changed[axis][1] if axis in changed else None for axis in range(rank(x))),
        region=tuple(region),
        extrapolation=call.get("extrapolation_value", 0.0),
        **how,
    )


_GRID_MODES = {"bilinear": "linear", "bicubic": "cubic"}


@rule("GridSample")
def _grid_sample(call: Call) -> Result:
    mode = call.get("mode", "linear" if call.version >= 20 else "bilinear")
    how: JsonObject = {
        "padding": call.get("padding_mode", "zeros"),
        "align_corners": bool(call.get("align_corners", 0)),
    }
    return call.add("grid_sample", call.tensor(0), call.tensor(1), mode=_GRID_MODES.get(mode, mode), **how)


@rule("AffineGrid")
def _affine_grid(call: Call) -> Result:
    size = call.extents(1, "size")
    return call.add("affine_grid", call.tensor(0), size=size, align_corners=bool(call.get("align_corners", 0)))


@rule("DepthToSpace", "SpaceToDepth")
def _swap_blocks(call: Call) -> Result:
    block: int = call.get("blocksize")
    call.require(block > 0, f"blocksize is {block}; expected at least 1")
    outside = call.get("mode", "DCR") == "CRD"
    return call.add(snake(call.operator), call.tensor(0), block=block, channels_outside=outside)
