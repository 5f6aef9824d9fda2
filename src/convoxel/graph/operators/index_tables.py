"""Index and weight tables: how one output position of an axis is a weighted sum of input positions.

Average pooling, resizing and padding are all ``y[o] = Σ_t weight[o, t] · x[source[o, t]]`` along each axis in
turn, so one native step serves them all. A ``source`` of −1 marks a tap that is not there. The formulas are
those of PyTorch's operators, float32 roundings of the nearest neighbour included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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
    dilation: int = 1,
) -> Taps:
    """Return the table of average pooling.

    The divisor is the window's length within the padded axis (``count_padding``) or within the axis itself;
    1 if not ``divided``. The part of a ceil-mode window beyond the padding never counts.
    """
    start = np.arange(out)[:, None] * stride - low
    index = start + np.arange(kernel)[None, :] * dilation
    inside = (index >= 0) & (index < size)
    counted = index < size + high if count_padding else inside
    count = counted.sum(axis=1, keepdims=True)
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
    ``mode`` is ``"nearest"``, ``"nearest_exact"``, ``"linear"``, ``"cubic"``, or one of the last two antialiased:
    where the axis shrinks, the kernel becomes wider, and counts no positions beyond the ends.
    """
    step = 1.0 / scale if scale else size / out
    if mode.endswith("antialiased"):
        aligned_step = (size - 1) / (out - 1) if out > 1 else 0.0
        return _antialiased(size, out, mode.split("_")[0], aligned_step if align_corners else step)
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
    return _taps(index, cubic_kernel(distance))


def _antialiased(size: int, out: int, mode: str, step: float) -> Taps:
    """Return PyTorch's table: around the middle of each result, a kernel as wide as ``step`` where this is above 1."""
    spread = max(step, 1.0)
    reach = (1 if mode == "linear" else 2) * spread
    middle = step * (np.arange(out, dtype=np.float64) + 0.5)
    first = np.maximum((middle - reach + 0.5).astype(np.int64), 0)
    count = np.minimum((middle + reach + 0.5).astype(np.int64), size) - first
    offset = np.arange(max(int(count.max()), 1))[None, :]
    index = first[:, None] + offset
    distance = np.abs((index - middle[:, None] + 0.5) / spread)
    weight = np.maximum(1.0 - distance, 0.0) if mode == "linear" else cubic_kernel(distance, -0.5)
    weight = np.where(offset < count[:, None], weight, 0.0)
    total = weight.sum(axis=1, keepdims=True)
    index = np.where(offset < count[:, None], index, -1)
    return _taps(index, weight / np.where(total == 0, 1.0, total))


def cubic_kernel(x: NDArray[np.float64], a: float = _CUBIC_A) -> NDArray[np.float64]:
    """Return Keys' cubic convolution kernel with sharpness ``a`` at distance ``x`` ≥ 0."""
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    return np.where(x <= 1.0, near, np.where(x < 2.0, far, 0.0))


def coordinates(
    size: int, out: int, scale: float, mode: str, region: tuple[float, float] = (0.0, 1.0)
) -> NDArray[np.float64]:
    """Return where each of ``out`` positions lies on an axis of ``size``, by the modes' names in ONNX.

    ``scale`` is the factor that was asked for; ``region`` is the part of the axis that ``"tf_crop_and_resize"`` takes.
    """
    single, half = np.float32, np.float32(0.5)  # as ONNX Runtime computes: roundings decide between equal neighbours
    position, factor = np.arange(out, dtype=single), single(scale)
    if mode == "tf_crop_and_resize":
        begin, end = region
        if out == 1:
            return np.array([0.5 * (begin + end) * (size - 1)])
        return begin * (size - 1) + np.arange(out) * (end - begin) * (size - 1) / (out - 1)
    if mode in ("align_corners", "pytorch_half_pixel") and out == 1:
        return np.zeros(1)
    if mode == "align_corners":
        # The resized length counts before it is rounded down.
        return (position * single(size - 1) / single(size * scale - 1)).astype(np.float64)
    if mode == "asymmetric":
        return (position / factor).astype(np.float64)
    middle = size / 2 * (1 - out / (scale * size)) if mode == "half_pixel_symmetric" else 0.0
    return ((position + half) / factor - half).astype(np.float64) + middle


_ROUND: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def interpolate(
    size: int,
    position: NDArray[np.float64],
    mode: str,
    rounding: str = "round_prefer_floor",
    cubic: float = _CUBIC_A,
    exclude_outside: bool = False,
    spread: float = 1.0,
) -> Taps:
    """Return the table that reads an axis of ``size`` at ``position``, beyond its ends the nearest element.

    ``mode`` is ``"nearest"`` (by ``rounding``), ``"linear"`` or ``"cubic"``; with ``exclude_outside`` elements beyond
    the ends count nothing. ``spread`` > 1 widens the kernel so that shrinking averages (antialiasing).
    """
    if mode == "nearest":
        nearest = np.clip(_ROUND[rounding](position), 0, size - 1).astype(np.int64)
        return _taps(nearest[:, None], np.ones((len(position), 1)))
    reach = (1 if mode == "linear" else 2) * spread
    first = np.floor(position - reach).astype(np.int64) + 1
    index = first[:, None] + np.arange(int(np.ceil(2 * reach)) + 1)[None, :]
    distance = np.abs(index - position[:, None]) / spread
    weight = np.maximum(1.0 - distance, 0.0) if mode == "linear" else cubic_kernel(distance, cubic)
    if exclude_outside:
        weight = np.where((index >= 0) & (index < size), weight, 0.0)
    if exclude_outside or spread > 1:
        weight = weight / weight.sum(axis=1, keepdims=True)
    used = (weight != 0).any(axis=0)
    return _taps(np.clip(index, 0, size - 1)[:, used], weight[:, used])


def axis(
    size: int,
    out: int,
    scale: float | None,
    *,
    mode: str,
    coordinate: str,
    rounding: str,
    cubic: float,
    exclude_outside: bool,
    antialias: bool,
    region: tuple[float, float] = (0.0, 1.0),
) -> Taps:
    """Return the table of one axis of an ``interpolate``; without ``scale`` it is out / size."""
    factor = scale or out / size
    if size == out and factor == 1 and coordinate != "tf_crop_and_resize":
        return identity(size)
    position = coordinates(size, out, factor, coordinate, region)
    if rounding == "ceil_where_smaller":
        rounding = "ceil" if factor < 1 else "floor"
    return interpolate(
        size, position, mode, rounding, cubic, exclude_outside, max(1.0 / factor, 1.0) if antialias else 1.0
    )


def pad(size: int, low: int, high: int, mode: str) -> Taps:
    """Return the table that pads (or, where negative, crops) an axis.

    ``mode`` is ``"constant"`` (0), ``"replicate"``, ``"reflect"`` (the edge is not repeated) or ``"circular"``.
    """
    index = np.arange(-low, size + high)
    if mode == "constant":
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
