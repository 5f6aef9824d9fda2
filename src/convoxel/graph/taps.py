"""Index and weight tables: how one output position of an axis is a weighted sum of input positions.

Average pooling, resizing and padding are all ``y[o] = Σ_t weight[o, t] · x[source[o, t]]`` along each axis in
turn, so one native step serves them all. A ``source`` of −1 marks a tap that is not there. The formulas are
those of PyTorch's operators, float32 roundings of the nearest neighbour included.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Taps", "adaptive_average", "average", "identity", "pad", "resize"]

_CUBIC_A = -0.75  # the sharpness of PyTorch's and OpenCV's cubic kernel


class Taps(NamedTuple):
    """One axis: ``source`` int32, the input positions, and ``weight`` float32, both (outputs, taps)."""

    source: NDArray[np.int32]
    weight: NDArray[np.float32]


def _taps(index: NDArray[np.int64], weight: NDArray[np.float64]) -> Taps:
    kept = np.where(index < 0, 0.0, weight)
    return Taps(np.ascontiguousarray(index, np.int32), np.ascontiguousarray(kept, np.float32))


def identity(size: int) -> Taps:
    """Return the table that copies an axis of ``size``."""
    return _taps(np.arange(size)[:, None], np.ones((size, 1)))


def average(
    size: int,
    out: int,
    kernel: int,
    stride: int,
    low: int,
    high: int,
    count_padding: bool,
    divided: bool = True,
) -> Taps:
    """Return the table of average pooling.

    The divisor is the window's length within the padded axis (``count_padding``) or within the axis itself;
    1 if not ``divided``. The part of a ceil-mode window beyond the padding never counts.
    """
    start = np.arange(out)[:, None] * stride - low
    index = start + np.arange(kernel)[None, :]
    inside = (index >= 0) & (index < size)
    padded_end = np.minimum(start + kernel, size + high)
    count = padded_end - start if count_padding else inside.sum(axis=1, keepdims=True)
    weight = np.broadcast_to(1.0 / np.maximum(count, 1) if divided else 1.0, index.shape)
    return _taps(np.where(inside, index, -1), weight)


def adaptive_average(size: int, out: int) -> Taps:
    """Return the table that averages ``size`` positions in ``out`` windows of nearly equal length."""
    first = np.arange(out) * size // out
    last = -(-(np.arange(1, out + 1) * size) // out)
    count = last - first
    index = first[:, None] + np.arange(int(count.max()))[None, :]
    weight = np.broadcast_to(1.0 / count[:, None], index.shape)
    return _taps(np.where(index < last[:, None], index, -1), weight)


def resize(size: int, out: int, mode: str, align_corners: bool = False, scale: float | None = None) -> Taps:
    """Return the table that resizes an axis from ``size`` to ``out``.

    ``scale`` is the factor that the user gave, if any: PyTorch maps positions by it, not by ``out / size``.
    ``mode`` is ``"nearest"``, ``"nearest_exact"``, ``"linear"`` or ``"cubic"``.
    """
    step = 1.0 / scale if scale else size / out
    position = np.arange(out, dtype=np.float64)
    if mode in ("nearest", "nearest_exact"):
        # float32 as in PyTorch: at exact boundaries another rounding would pick the neighbour.
        shift = np.float32(0.5 if mode == "nearest_exact" else 0.0)
        source = np.floor((position.astype(np.float32) + shift) * np.float32(step)).astype(np.int64)
        return _taps(np.minimum(source, size - 1)[:, None], np.ones((out, 1)))
    if align_corners:
        source_position = position * ((size - 1) / (out - 1) if out > 1 else 0.0)
    else:
        source_position = (position + 0.5) * step - 0.5
    if mode == "linear":
        source_position = np.maximum(source_position, 0.0)
        low = np.minimum(np.floor(source_position).astype(np.int64), size - 1)
        fraction = np.clip(source_position - low, 0.0, 1.0)
        index = np.stack([low, np.minimum(low + 1, size - 1)], axis=1)
        return _taps(index, np.stack([1.0 - fraction, fraction], axis=1))
    if mode != "cubic":
        raise AssertionError(f"unknown resize mode {mode}")
    low = np.floor(source_position).astype(np.int64)
    fraction = source_position - low
    index = np.clip(low[:, None] + np.arange(-1, 3)[None, :], 0, size - 1)
    distance = np.stack([1.0 + fraction, fraction, 1.0 - fraction, 2.0 - fraction], axis=1)
    return _taps(index, _cubic(distance))


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Keys' cubic convolution kernel at distance ``x`` ≥ 0."""
    near = ((_CUBIC_A + 2.0) * x - (_CUBIC_A + 3.0)) * x * x + 1.0
    far = ((_CUBIC_A * x - 5.0 * _CUBIC_A) * x + 8.0 * _CUBIC_A) * x - 4.0 * _CUBIC_A
    return np.where(x <= 1.0, near, far)


def pad(size: int, low: int, high: int, mode: str) -> Taps:
    """Return the table that pads (or, where negative, crops) an axis.

    ``mode`` is ``"zero"``, ``"replicate"``, ``"reflect"`` (the edge is not repeated) or ``"circular"``.
    """
    index = np.arange(-low, size + high)
    if mode == "zero":
        index = np.where((index >= 0) & (index < size), index, -1)
    elif mode == "replicate":
        index = np.clip(index, 0, size - 1)
    elif mode == "circular":
        index = index % size
    elif mode == "reflect":
        period = max(2 * (size - 1), 1)
        folded = index % period
        index = np.where(folded < size, folded, period - folded)
    else:
        raise AssertionError(f"unknown padding mode {mode}")
    return _taps(index[:, None], np.ones((len(index), 1)))
