"""Rules of the operators that see neighbourhoods: convolutions, linear layers, poolings, resizing, sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from convoxel.graph.ir.size import Extent, Size
from convoxel.graph.write.onnx.call import Call, rule
from convoxel.graph.write.onnx.sizes import NotExpressible

Pairs = Sequence[tuple[Any, Any]]

# ---- convolutions and linear layers --------------------------------------------------------------------------


@rule("convolution", "quantised_convolution")
def _convolution(call: Call) -> str:
    x, weight, residual = _operands(call)
    if call.node.operator == "convolution" and call.has(4):
        x = call.add("Mul", x, call.operand(4))  # the gate
    return _ended(call, _convolved(call, x, weight, call.operand(2)), residual)


@rule("transposed_convolution", "quantised_transposed_convolution")
def _transposed(call: Call) -> str:
    x, weight, residual = _operands(call)
    pads = call["padding"]
    if any(isinstance(side, Size) or side < 0 for pair in pads for side in pair):
        raise NotExpressible("padding that is open or negative")
    y = call.add(
        "ConvTranspose", x, weight, call.operand(2), kernel_shape=call.shape(1)[2:], strides=call["stride"],
        pads=_flat(pads), dilations=call["dilation"], group=call["groups"], output_padding=call["output_padding"],
    )  # fmt: skip
    return _ended(call, y, residual)


@rule("linear", "quantised_linear")
def _linear(call: Call) -> str:
    x, weight, residual = _operands(call)
    if call["flatten"] and call.rank() != 2:
        x = call.add("Flatten", x, axis=1)
    if call["flatten"] or call.rank() == 2:
        y = call.add("Gemm", x, weight, call.operand(2), transB=1)
    else:
        y = call.add("MatMul", x, call.add("Transpose", weight, perm=(1, 0)))
        y = call.add("Add", y, call.operand(2)) if call.has(2) else y
    return _ended(call, y, residual)


@rule("depthwise_block")
def _depthwise_block(call: Call) -> str:
    """A depthwise convolution and the 1×1 convolutions in front of it and behind it."""
    x = call.x
    ones = (1,) * (call.rank() - 2)
    if call.has(4):
        x = call.add("Conv", x, call.operand(4), call.operand(5), kernel_shape=ones)
        x = call.activated(x, call["expand_activation"], call["expand_slope"])
    y = _convolved(call, x, call.operand(1), call.operand(2))
    if call.has(6):
        y = call.activated(y, call["depthwise_activation"], call["depthwise_slope"])
        y = call.add("Conv", y, call.operand(6), call.operand(7), kernel_shape=ones)
    return _ended(call, y, call.operand(3))


def _operands(call: Call) -> tuple[str, str, str]:
    """Return operand, weights and residual; those that are levels as the numbers that they stand for."""
    x, weight, residual = call.operand(0), call.operand(1), call.operand(3)
    if not call.node.operator.startswith("quantised_"):
        return x, weight, residual
    x = call.add("DequantizeLinear", x, *_levels(call, call["levels"]))
    axis = 1 if "output_padding" in call.node.attributes else 0
    weight = call.add("DequantizeLinear", weight, call.operand(4), axis=axis)
    if residual and call["residual_levels"]:
        residual = call.add("DequantizeLinear", residual, *_levels(call, call["residual_levels"]))
    return x, weight, residual


def _ended(call: Call, y: str, residual: str) -> str:
    """Add the residual, apply the activation, and make levels of the result where the node does."""
    y = call.finished(call.add("Add", y, residual) if residual else y)
    levels = call.node.attributes.get("result_levels")
    return call.add("QuantizeLinear", y, *_levels(call, levels)) if levels else y


@rule("to_levels")
def _to_levels(call: Call) -> str:
    return call.add("QuantizeLinear", call.x, *_levels(call, call["levels"]))


@rule("from_levels")
def _from_levels(call: Call) -> str:
    return call.add("DequantizeLinear", call.x, *_levels(call, call["levels"]))


def _levels(call: Call, levels: Sequence[Any]) -> tuple[str, str]:
    scale, zero = levels
    call.writer.require(19)  # the oldest that ONNX's own evaluator knows
    return call.number(float(scale), "float32"), call.number(int(zero), "uint8")


def _convolved(call: Call, x: str, weight: str, bias: str) -> str:
    x, pads = _padded(call, x, call["padding"], pad_anyway=False)
    return call.add(
        "Conv", x, weight, bias, kernel_shape=call.shape(1)[2:], strides=call["stride"], pads=pads,
        dilations=call["dilation"], group=call["groups"],
    )  # fmt: skip


def _padded(call: Call, x: str, pairs: Pairs, *, pad_anyway: bool) -> tuple[str, list[int]]:
    """Return a tensor and the padding that is left to its reader: a node of its own pads what is open or cut off."""
    if not pad_anyway and not any(isinstance(side, Size) or side < 0 for pair in pairs for side in pair):
        return x, _flat(pairs)
    if any(pair != (0, 0) for pair in pairs):
        x = call.add("Pad", x, call.vector(_flat([(0, 0), (0, 0), *pairs])))
    return x, [0] * (2 * len(pairs))


def _flat(pairs: Pairs) -> list[Any]:
    """Return padding as ONNX lists it: all beginnings, then all ends."""
    return [low for low, _ in pairs] + [high for _, high in pairs]


@rule("columns_to_image")
def _columns_to_image(call: Call) -> str:
    how = {"strides": call["stride"], "pads": _flat(call["padding"]), "dilations": call["dilation"]}
    return call.add("Col2Im", call.x, call.vector(call["shape"]), call.ints(call["kernel"]), **how)


@rule("deformable_convolution")
def _deformable(call: Call) -> str:
    call.writer.require(19)
    x, weight, offset, bias, mask = map(call.operand, range(5))
    return call.add(
        "DeformConv", x, weight, offset, bias, mask, kernel_shape=call.shape(1)[2:], strides=call["stride"],
        pads=_flat(call["padding"]), dilations=call["dilation"], group=call["groups"],
        offset_group=call["offset_groups"],
    )  # fmt: skip


# ---- pooling -------------------------------------------------------------------------------------------------


@rule("max_pool")
def _max_pool(call: Call) -> list[str]:
    pads = call["padding"]
    if any(isinstance(side, Size) or side < 0 for pair in pads for side in pair):
        raise NotExpressible("padding that is open or negative")
    order = call["order"]
    how = {
        "kernel_shape": call["kernel"], "strides": call["stride"], "pads": _flat(pads), "dilations": call["dilation"],
        "ceil_mode": int(call["ceil"]), "storage_order": int(order == "column"),
    }  # fmt: skip
    if not call.reads(1):
        return [call.add("MaxPool", call.x, **how)]
    values, places = call.several(2, "MaxPool", call.x, **how)
    if order == "channel":  # ONNX counts through the whole tensor
        count = math.prod(call.shape()[2:])
        places = call.add("Mod", places, call.vector([count]))
    return [values, places]


@rule("average_pool")
def _average_pool(call: Call) -> str:
    """Padding that counts is a node of its own, so that windows beyond it count their part alone."""
    divisor, dilation = call["divisor"], call["dilation"]
    if divisor and call["ceil"]:
        raise NotExpressible("windows beyond the padding with a divisor of their own")
    if any(step != 1 for step in dilation):
        call.writer.require(19)
    x, pads = _padded(call, call.x, call["padding"], pad_anyway=bool(divisor or call["count_padding"]))
    y = call.add(
        "AveragePool", x, kernel_shape=call["kernel"], strides=call["stride"], pads=pads,
        dilations=dilation if any(step != 1 for step in dilation) else None, ceil_mode=int(call["ceil"]),
        count_include_pad=0,
    )  # fmt: skip
    return call.add("Mul", y, call.number(math.prod(call["kernel"]) / divisor)) if divisor else y


@rule("lp_pool")
def _lp_pool(call: Call) -> str:
    return call.add(
        "LpPool", call.x, kernel_shape=call["kernel"], strides=call["stride"], pads=_flat(call["padding"]),
        dilations=call["dilation"], ceil_mode=int(call["ceil"]), p=call["p"],
    )  # fmt: skip


_MOST_WINDOWS = 64  # of an axis, each a node of its own


@rule("adaptive_average_pool")
def _adaptive_average(call: Call) -> str:
    return _adaptive(call, "ReduceMean", "AveragePool")


@rule("adaptive_max_pool")
def _adaptive_max(call: Call) -> str:
    if call.reads(1):
        raise NotExpressible("places of maxima")
    return _adaptive(call, "ReduceMax", "MaxPool")


def _adaptive(call: Call, reduce: str, pool: str) -> str:
    """All positions, windows of equal length, or one axis after the other in windows of nearly equal length."""
    x, old, new = call.x, call.shape()[2:], call["size"]
    changed = [axis for axis, size in enumerate(new) if size and size != old[axis]]
    if all(new[axis] == 1 for axis in changed):
        return call.add(reduce, x, call.ints([axis + 2 for axis in changed]), keepdims=1) if changed else x
    if all(not isinstance(old[axis], Size) and old[axis] % new[axis] == 0 for axis in changed):
        kernel = [old[axis] // new[axis] if axis in changed else 1 for axis in range(len(new))]
        return call.add(pool, x, kernel_shape=kernel, strides=kernel)
    for axis in changed:
        x = _in_windows(call, x, axis + 2, old[axis], new[axis], reduce)
    return x


def _in_windows(call: Call, x: str, axis: int, size: Extent, count: int, reduce: str) -> str:
    """Window i of o begins at ⌊i · n / o⌋ and ends before ⌈(i + 1) · n / o⌉."""
    if count > _MOST_WINDOWS:
        raise NotExpressible(f"{count} windows along an axis")
    parts = []
    for number in range(count):
        bounds = [size * number // count, -(-(size * (number + 1)) // count)]
        part = call.add("Slice", x, *(call.vector([bound]) for bound in bounds), call.ints([axis]))
        parts.append(call.add(reduce, part, call.ints([axis]), keepdims=1))
    return call.add("Concat", *parts, axis=axis)


@rule("max_unpool")
def _max_unpool(call: Call) -> str:
    """ONNX Runtime has no MaxUnpool that takes what MaxPool gives with all paddings: the numbers are scattered."""
    if call["order"] != "channel":
        raise NotExpressible("places in the whole tensor")
    shape = call["shape"]
    rows = [*call.shape()[:2], -1]
    empty = call.add("ConstantOfShape", call.vector([*shape[:2], math.prod(shape[2:])]))
    places = call.reshaped(call.operand(1), rows, call.shape(1))
    made = call.add("ScatterElements", empty, places, call.reshaped(call.x, rows, call.shape()), axis=2)
    return call.reshaped(made, shape)


# ---- resizing ------------------------------------------------------------------------------------------------


@rule("resize")
def _resize(call: Call) -> str:
    """PyTorch's ways, in the words of ONNX."""
    mode, aligned = call["mode"], call["align_corners"]
    how: dict[str, Any] = {"coordinate_transformation_mode": "align_corners" if aligned else "half_pixel"}
    if mode in ("nearest", "nearest_exact"):
        usual = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        exact = {"coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_ceil"}
        how = {"mode": "nearest", **(usual if mode == "nearest" else exact)}
    else:
        how |= {"mode": mode.split("_")[0]}
        if mode.startswith("cubic"):
            how |= {"cubic_coeff_a": -0.75}
        if mode.endswith("antialiased"):
            how |= {"antialias": 1, "exclude_outside": 1, "cubic_coeff_a": -0.5}
    sizes = call.result.shape[2:]
    scales = call["scale"] if not call["size"] and not aligned else ()
    return _resampled(call, [0, 0, *sizes], [None, None, *(scales or (None,) * len(sizes))], how)


@rule("interpolate")
def _interpolate(call: Call) -> str:
    """ONNX's own ways."""
    coordinate, mode = call["coordinate"], call["mode"]
    if coordinate == "tf_crop_and_resize":
        raise NotExpressible("a region that is cropped and resized at once")
    how: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": coordinate}
    if mode == "nearest":
        how |= {"nearest_mode": call["rounding"]}
    if mode == "cubic":
        how |= {"cubic_coeff_a": call["cubic"]}
    how |= {"exclude_outside": int(call["exclude_outside"]) or None, "antialias": int(call["antialias"]) or None}
    return _resampled(call, call["size"], call["scale"], how)


def _resampled(call: Call, sizes: Sequence[Any], scales: Sequence[Any], how: dict[str, Any]) -> str:
    """Resize to sizes, of which 0 keeps an axis, or by factors, by which positions are then mapped."""
    old, new = call.shape(), call.result.shape
    by_factor = [scale for scale in scales if scale is not None]
    if not by_factor:
        return call.add("Resize", call.x, "", "", call.vector(new), **how)
    if any(isinstance(scale, Size) for scale in by_factor):
        raise NotExpressible("factors that are open")
    whole = all(scale is not None or not size for scale, size in zip(scales, sizes, strict=True))
    if whole and all(map(_is_exact, by_factor)):
        factors = np.array([1.0 if scale is None else scale for scale in scales], np.float32)
        return call.add("Resize", call.x, "", call.constant(factors, "scales"), **how)
    # The sizes give the same factors where these are quotients of the sizes.
    for scale, before, after in zip(scales, old, new, strict=True):
        if scale is None:
            continue
        exact = not isinstance(before, Size) and Fraction(scale).limit_denominator(1 << 12) * before == after
        if not exact:
            raise NotExpressible(f"the factor {scale}, which no float32 holds, of an axis of {before}")
    return call.add("Resize", call.x, "", "", call.vector(new), **how)


def _is_exact(scale: float) -> bool:
    """Return whether sizes times the factor are computed alike in float32 and in float64."""
    return Fraction(scale).denominator <= 1 << 8 and abs(scale) < 1 << 8


# ---- sampling ------------------------------------------------------------------------------------------------


@rule("grid_sample")
def _grid_sample(call: Call) -> str:
    call.writer.require(20)  # before, modes had other names, and volumes none
    return call.add(
        "GridSample", call.x, call.operand(1), mode=call["mode"], padding_mode=call["padding"],
        align_corners=int(call["align_corners"]),
    )  # fmt: skip


@rule("affine_grid")
def _affine_grid(call: Call) -> str:
    call.writer.require(20)
    return call.add("AffineGrid", call.x, call.vector(call["size"]), align_corners=int(call["align_corners"]))


@rule("region_align")
def _region_align(call: Call) -> str:
    height, width = call["size"]
    batch = call.operand(2) if call.dtype(2) == "int64" else call.add("Cast", call.operand(2), to=7)
    return call.add(
        "RoiAlign", call.x, call.operand(1), batch, output_height=height, output_width=width,
        sampling_ratio=call["ratio"], spatial_scale=call["scale"],
        mode={"average": "avg"}.get(call["mode"], call["mode"]),
        coordinate_transformation_mode="half_pixel" if call["half_pixel"] else "output_half_pixel",
    )  # fmt: skip
