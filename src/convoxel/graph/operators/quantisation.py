"""Whole numbers that stand for real ones: x ≈ (q − zero point) · scale."""

from __future__ import annotations

import numpy as np

from convoxel.graph.operators.host import Array
from convoxel.graph.operators.operator import row
from convoxel.graph.operators.reads import unchanged
from convoxel.graph.operators.shape import same

_NARROW = {"int2": (-2, 1), "uint2": (0, 3), "int4": (-8, 7), "uint4": (0, 15)}


_LARGEST = {
    "float8_e4m3fn": 448.0,
    "float8_e4m3fnuz": 240.0,
    "float8_e5m2": 57344.0,
    "float8_e5m2fnuz": 57344.0,
    "float4_e2m1fn": 6.0,
}


def limits(dtype: str) -> tuple[float, float]:
    """Return the smallest and the largest number that a quantised type holds."""
    if dtype in _NARROW:
        return _NARROW[dtype]
    if dtype in _LARGEST:
        return -_LARGEST[dtype], _LARGEST[dtype]
    info = np.iinfo(dtype)
    return info.min, info.max


def _spread(parameter: Array, shape: tuple[int, ...], axis: int, block: int) -> Array:
    """Return a scale or zero point stretched to ``shape``: one for all, one per position of an axis, or per block."""
    if parameter.ndim == 0 or parameter.size == 1:
        return parameter.reshape(())
    if block:
        repeated = np.repeat(parameter, block, axis=axis)
        return repeated[tuple(slice(size) for size in shape)]
    return parameter.reshape([-1 if i == axis % len(shape) else 1 for i in range(len(shape))])


def _quantise(x: Array, scale: Array, zero: Array | None, axis: int, block: int, to: str, saturate: bool) -> Array:
    """Return round(x / scale) + zero point, halves to even, cut off at the type's ends."""
    steps = x.astype(np.float32) / _spread(scale, x.shape, axis, block).astype(np.float32)
    low, high = limits(to)
    shift = 0.0 if zero is None else _spread(zero, x.shape, axis, block).astype(np.float32)
    if to.startswith("float"):
        moved = steps + shift
        return (np.clip(moved, low, high) if saturate else moved).astype(np.dtype(to))
    return np.clip(np.rint(steps).astype(np.float64) + shift, low, high).astype(np.dtype(to))


def _dequantise(x: Array, scale: Array, zero: Array | None, axis: int, block: int) -> Array:
    """Return (x − zero point) · scale."""
    wide = x.astype(np.float32)
    if zero is not None:
        wide = wide - _spread(zero, x.shape, axis, block).astype(np.float32)
    return (wide * _spread(scale, x.shape, axis, block).astype(np.float32)).astype(scale.dtype)


ROWS = (
    row("dequantise(x, scale, zero?; axis=1, block=0)", same, _dequantise, reads=unchanged),
    row("quantise(x, scale, zero?; axis=1, block=0, to, saturate=True)", same, _quantise, reads=unchanged),
)
