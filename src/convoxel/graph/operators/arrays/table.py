"""One row of ``opset`` for each function of this package: its operands, attributes and shape rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from convoxel.graph.ir.graph import CHANNELS_FIRST, Node
from convoxel.graph.operators import rules
from convoxel.graph.operators.arrays import (
    movement,
    neighbourhood,
    pointwise,
    product,
    quantisation,
    reduction,
    sampling,
    shapes,
)
from convoxel.graph.operators.operator import REQUIRED, Operand, Operator

__all__ = ["ARRAY_ROWS"]


def _array(
    name: str,
    function: Callable[..., Any],
    shape: rules.ShapeRule = rules.same,
    operands: str = "x",
    /,
    **attributes: Any,
) -> Operator:
    """Return the row of a function of ``arrays``; ``operands`` names its operands, ``?`` optional, ``*`` many."""
    declared = tuple(
        Operand(word.strip("?*"), optional=word.endswith("?"), variadic=word.endswith("*")) for word in operands.split()
    )

    def host(node: Node, arrays: Sequence[Any], sizes: Mapping[str, int]) -> list[Any]:
        with np.errstate(all="ignore"):  # NaN and infinity are results, as in the native steps
            result = function(*arrays, **node.attributes)
        results = result if isinstance(result, tuple) else (result,)
        return [np.asarray(r, value.dtype) for r, value in zip(results, node.outputs, strict=False)]

    return Operator(f"array.{name}", declared, shape, attributes, layout=CHANNELS_FIRST, host=host)


_WINDOW = {"kernel": REQUIRED, "stride": REQUIRED, "padding": REQUIRED, "dilation": REQUIRED, "ceil": False}

ARRAY_ROWS = (
    *(_array(name, function, **usual) for name, (function, usual) in pointwise.UNARY.items()),
    *(_array(name, f, shapes.stretched, "x y") for name, f in pointwise.BINARY.items()),
    *(_array(name, f, shapes.stretched, "x y") for name, f in pointwise.COMPARISONS.items()),
    *(
        _array(f"reduce_{name}", f, shapes.reduced, axes=REQUIRED, keep=REQUIRED)
        for name, f in reduction.REDUCTIONS.items()
    ),
    _array("accumulate", movement.accumulate, axis=REQUIRED, exclusive=False, reverse=False),
    _array("adaptive_max_pool", neighbourhood.adaptive_max_pool, shapes.adaptive_pool_with_places, size=REQUIRED),
    _array("affine_grid", sampling.affine_grid, shapes.affine_grid, "theta", size=REQUIRED, align_corners=False),
    _array(
        "arg_extreme",
        reduction.arg_extreme,
        shapes.arg_reduced,
        axis=REQUIRED,
        keep=REQUIRED,
        last=False,
        largest=True,
    ),
    _array(
        "batch_norm",
        reduction.batch_norm,
        shapes.batch_norm,
        "x weight bias mean variance",
        epsilon=REQUIRED,
        momentum=REQUIRED,
    ),
    _array("cast", pointwise.cast, to=REQUIRED),
    _array("clip", pointwise.clip, shapes.onto, "x low? high?"),
    _array(
        "columns_to_image",
        neighbourhood.columns_to_image,
        shapes.columns_to_image,
        shape=REQUIRED,
        kernel=REQUIRED,
        stride=REQUIRED,
        padding=REQUIRED,
        dilation=REQUIRED,
    ),
    _array("concat", movement.concat, rules.concat, "parts*", axis=REQUIRED),
    _array(
        "convolution",
        neighbourhood.convolution,
        shapes.convolution,
        "x weight bias?",
        stride=REQUIRED,
        padding=REQUIRED,
        dilation=REQUIRED,
        groups=1,
    ),
    _array(
        "deformable_convolution",
        neighbourhood.deformable_convolution,
        shapes.deformable,
        "x weight offset bias? mask?",
        stride=REQUIRED,
        padding=REQUIRED,
        dilation=REQUIRED,
        groups=1,
        offset_groups=1,
    ),
    _array(
        "depth_to_space",
        movement.depth_to_space,
        shapes.depth_to_space,
        block=REQUIRED,
        channels_outside=REQUIRED,
    ),
    _array("dequantise", quantisation.dequantise, rules.same, "x scale zero?", axis=1, block=0),
    _array("einsum", product.einsum, shapes.einsum, "terms*", equation=REQUIRED),
    _array("expand", movement.expand, shapes.expand, shape=REQUIRED),
    _array("fill", movement.fill, shapes.given, "value", shape=REQUIRED),
    _array(
        "fractional_max_pool",
        neighbourhood.fractional_max_pool,
        shapes.fractional_pool,
        "x samples",
        kernel=REQUIRED,
        size=REQUIRED,
        width_first=REQUIRED,
    ),
    _array("gather", movement.gather, shapes.gather, "x index", axis=REQUIRED),
    _array(
        "grid_sample",
        sampling.grid_sample,
        shapes.grid_sample,
        "x grid",
        mode=REQUIRED,
        padding=REQUIRED,
        align_corners=REQUIRED,
    ),
    _array("hardmax", reduction.hardmax, axes=REQUIRED),
    _array(
        "layer_norm",
        reduction.layer_norm,
        shapes.layer_norm,
        "x weight? bias?",
        axis=REQUIRED,
        epsilon=REQUIRED,
    ),
    _array(
        "local_response_norm",
        reduction.local_response_norm,
        size=REQUIRED,
        alpha=REQUIRED,
        beta=REQUIRED,
        bias=REQUIRED,
    ),
    _array("lp_normalise", reduction.lp_normalise, axis=REQUIRED, p=REQUIRED),
    _array("lp_pool", neighbourhood.lp_pool, shapes.pool, **_WINDOW, p=2),
    _array("matmul", product.matmul, shapes.matmul, "a b"),
    _array("max_pool", neighbourhood.max_pool, shapes.pool_with_places, **_WINDOW, order="channel"),
    _array("max_unpool", neighbourhood.max_unpool, shapes.given, "x index", shape=REQUIRED, order="channel"),
    _array("mean_variance_normalise", reduction.mean_variance_normalise, axes=REQUIRED, epsilon=1e-9),
    _array("pad", movement.pad, shapes.pad, "x value?", padding=REQUIRED, mode="constant"),
    _array("prelu", pointwise.prelu, shapes.onto, "x slope"),
    _array(
        "quantise",
        quantisation.quantise,
        rules.same,
        "x scale zero?",
        axis=1,
        block=0,
        to=REQUIRED,
        saturate=True,
    ),
    _array(
        "region_align",
        sampling.region_align,
        shapes.region_align,
        "x regions batch",
        size=REQUIRED,
        ratio=0,
        scale=1.0,
        mode="average",
        half_pixel=True,
    ),
    _array(
        "resample",
        sampling.resample,
        shapes.resample,
        size=REQUIRED,
        scale=REQUIRED,
        region=REQUIRED,
        mode=REQUIRED,
        coordinate="half_pixel",
        rounding="round_prefer_floor",
        cubic=-0.75,
        exclude_outside=False,
        antialias=False,
        extrapolation=0.0,
    ),
    _array("reshape", movement.reshape, rules.reshape, shape=REQUIRED),
    _array("rms_norm", reduction.rms_norm, rules.same, "x weight?", axis=REQUIRED, epsilon=REQUIRED),
    _array("scatter", movement.scatter, rules.same, "x index update", axis=REQUIRED),
    _array("select", pointwise.select, shapes.stretched, "condition x y"),
    _array("sizes", movement.sizes, shapes.given, "", values=REQUIRED, shape=REQUIRED),
    _array("slice", movement.slice_axes, shapes.slice_axes, starts=REQUIRED, stops=REQUIRED, steps=REQUIRED),
    _array("softmax", reduction.softmax, axes=REQUIRED, log=False),
    _array(
        "space_to_depth",
        movement.space_to_depth,
        shapes.space_to_depth,
        block=REQUIRED,
        channels_outside=REQUIRED,
    ),
    _array("take_along", movement.take_along, shapes.indexed, "x index", axis=REQUIRED),
    _array("tile", movement.tile, shapes.tile, repeats=REQUIRED),
    _array("top", movement.top, shapes.top, count=REQUIRED, axis=REQUIRED, largest=True),
    _array("transpose", movement.transpose, shapes.transpose, axes=REQUIRED),
    _array(
        "transposed_convolution",
        neighbourhood.transposed_convolution,
        shapes.transposed_convolution,
        "x weight bias?",
        stride=REQUIRED,
        padding=REQUIRED,
        output_padding=REQUIRED,
        dilation=REQUIRED,
        groups=1,
    ),
)
