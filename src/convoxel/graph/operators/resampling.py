"""Resizing: every axis by itself, as weighted sums of its elements."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from convoxel.arithmetic import Layer, Resize, ResizeLike
from convoxel.graph.ir.graph import Node
from convoxel.graph.ir.size import Shape, scaled
from convoxel.graph.operators import index_tables as taps
from convoxel.graph.operators.host import Array, Ints
from convoxel.graph.operators.operator import Shapes, row
from convoxel.graph.operators.reads import Along, Applied, Reads, Unknown
from convoxel.graph.operators.rewriter import Rewriter
from convoxel.graph.operators.shape import operand, positive
from convoxel.graph.operators.weighted import lower_tables, restrict_tables, weigh, weighted
from convoxel.native.index_table import TableRule


def _resize_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """(n, c, …) → (n, c, *size), or scaled where no size is given."""
    x = operand(shapes, 0)
    if node["size"]:
        spatial = tuple(node["size"])
    else:
        spatial = tuple(scaled(old, scale) for old, scale in zip(x[2:], node["scale"], strict=True))
    return [positive((*x[:2], *spatial), f"{x}")]


def _tabled_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """(n, c, …) → (n, c, …) with a position for each row of the axes' tables."""
    return [(*operand(shapes, 0)[:2], *(len(table.source) for table in node["tables"]))]


def _interpolate_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """Axes with a length of 0 in ``size`` stay."""
    return [tuple(new or old for new, old in zip(node["size"], operand(shapes, 0), strict=True))]


def _resize_tables(node: Node) -> list[TableRule]:
    """Nearest, linear or cubic resizing as PyTorch does it."""
    scales = node["scale"] or (None,) * len(node["size"])
    return [taps.resize(node["mode"], node["align_corners"], scale) for scale in scales]


def _interpolate_tables(node: Node) -> list[TableRule]:
    """Resizing in any of ONNX's coordinate modes."""
    how = {key: node[key] for key in ("mode", "coordinate", "rounding", "cubic", "exclude_outside", "antialias")}
    return [taps.interpolate(scale, **how) for scale in node["scale"][2:]]


def _interpolate(
    x: Array,
    size: Ints,
    scale: tuple[float | None, ...],
    region: tuple[tuple[float, float], ...],
    coordinate: str,
    extrapolation: float,
    **how: Any,
) -> Array:
    """Return x with every axis that has a length in ``size`` replaced by weighted sums of its elements.

    ``how`` are the arguments of ``taps.interpolate``; ``region`` is the part of each axis that
    ``"tf_crop_and_resize"`` takes, and positions beyond the axis get ``extrapolation``.
    """
    result = x.astype(np.float64)
    for axis, (old, new, factor, part) in enumerate(zip(x.shape, size, scale, region, strict=True)):
        if not new:
            continue
        table = taps.interpolate(factor, coordinate=coordinate, region=part, **how).between(old, new)
        result = weigh(result, axis, table)
        result[(slice(None),) * axis + ((table.source < 0).all(1),)] = extrapolation
    return result


_HOW = (
    "mode, coordinate='half_pixel', rounding='round_prefer_floor', cubic=-0.75, exclude_outside=False, antialias=False"
)


def _over_space(site: Rewriter) -> bool:
    return len(site.shape) > 2 and not any(site.node["size"][:2]) and site.node["coordinate"] != "tf_crop_and_resize"


# ---- what is read


def _resized(applied: Applied, scales: Sequence[float | None], mode: str, align_corners: bool) -> Reads:
    layers: dict[int, Layer] = {}
    for axis, scale in enumerate(scales, start=len(applied.x) - len(scales)):
        if applied.x[axis] == applied.outputs[0][axis] and scale in (None, 1.0):
            continue
        # A user's factor such as 1.5 is exact in binary; 1/3 is meant where 0.333… came.
        factor = None if scale is None else Fraction(scale).limit_denominator(1 << 12)
        layers[axis] = ResizeLike(mode, align_corners) if factor is None else Resize(factor, mode, align_corners)
    # Every result is a copy of an only position.
    return Along(layers, frozenset(axis for axis in layers if applied.x[axis] == 1))


def _resize_reads(applied: Applied) -> Reads:
    """Positions around the place, as PyTorch reckons it."""
    node = applied.node
    scales = node["scale"] or (None,) * (len(applied.x) - 2)
    return _resized(applied, scales, str(node["mode"]).replace("_", "-"), node["align_corners"])


def _interpolate_reads(applied: Applied) -> Reads:
    """Positions around the place, as ONNX reckons it, where that is one of PyTorch's ways."""
    node = applied.node
    sizes = list(zip(applied.x, applied.outputs[0], strict=True))
    # A kept axis is copied whatever the way; enlarging by a whole factor puts no position half-way.
    whole = all(new % old == 0 for old, new in sizes)
    way = (node["mode"], node["coordinate"])
    ways = {(mode, f"{kind}half_pixel"): (mode, False) for mode in ("linear", "cubic") for kind in ("", "pytorch_")}
    ways |= {(mode, "align_corners"): (mode, True) for mode in ("linear", "cubic")}
    if way == ("nearest", "asymmetric") and node["rounding"] == "floor":
        ways[way] = ("nearest", False)
    if way[0] == "nearest" and "half_pixel" in way[1] and (whole or node["rounding"] == "round_prefer_ceil"):
        ways[way] = ("nearest-exact", False)
    if way not in ways or node["antialias"] or node["exclude_outside"]:
        return Unknown(f"{way[0]} interpolation with {way[1]} coordinates")
    return _resized(applied, node["scale"], *ways[way])


ROWS = (
    weighted(
        "resize(x; size=(), scale=(), mode, align_corners=False)", _resize_shape, _resize_tables, reads=_resize_reads
    ),
    row(
        f"interpolate(x; size, scale, region, {_HOW}, extrapolation=0.0)",
        _interpolate_shape,
        _interpolate,
        lower_tables(_interpolate_tables),
        fits=_over_space,
        reads=_interpolate_reads,
        restrict=restrict_tables(_interpolate_tables),
    ),
    # What is left of such an operator where a part of its result is made: a table for each spatial axis.
    weighted("resample(x; tables)", _tabled_shape, lambda node: node["tables"]),
)
