"""Resizing: one matrix for each axis and any interpolation; PyTorch's own function where there is one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from convoxel.arithmetic.argument import truth, whole
from convoxel.arithmetic.taps import adaptive_taps
from convoxel.errors import ConfigError, ShapeError, check_choice
from convoxel.nn.functional.arguments import as_batch, check_sizes, count_axes
from convoxel.nn.functional.border import border_index
from convoxel.nn.functional.correlation import Sizes
from convoxel.nn.functional.spline import SPLINE_ORDERS, spline_taps

RESIZE_MODES = ("nearest", "nearest-exact", "linear", "cubic", "spline", "area")

# PyTorch's words in 1-D, 2-D and 3-D; where there is none, an axis is a matrix.
_NATIVE = {
    "nearest": ("nearest",) * 3,
    "nearest-exact": ("nearest-exact",) * 3,
    "linear": ("linear", "bilinear", "trilinear"),
    "cubic": ("", "bicubic", ""),
    "area": ("area",) * 3,
}
# Up to this size an axis is a dense matrix: 32 MB in float64, and products that run at the speed of BLAS.
_DENSE = 1 << 22

Taps = tuple[NDArray[np.int64], NDArray[np.float64]]


def resize(
    x: Tensor,
    size: Sizes | None = None,
    *,
    scale: float | Sequence[float] | None = None,
    mode: str = "linear",
    order: int = 3,
    align_corners: bool = False,
    antialias: bool = False,
    dims: int | None = None,
) -> Tensor:
    """Return x resampled: output o lies at (o + ½) c − ½ with c = i / o, or at o (i − 1) / (o − 1).

    - ``"nearest"`` ⌊o c⌋, ``"nearest-exact"`` ⌊(o + ½) c⌋
    - ``"linear"``; ``"cubic"`` (Keys 1981, a = −¾ as PyTorch, −½ with ``antialias``): beyond the ends the last repeats
    - ``"spline"``: the B-spline of ``order`` through all elements (Unser 1999); mirrored at the ends, about the
      outermost elements with ``align_corners``, else about their outer edges
    - ``"area"``: the mean of the elements ⌊o c⌋ … ⌈(o + 1) c⌉ − 1

    Args:
        size: wanted size, an int or one for each axis.
        scale: factor instead of ``size``: ⌊i · scale⌋ elements at a distance of 1 / scale.
        mode: one of the words above (default ``"linear"``).
        order: order of the spline, 0 to 5 (default 3).
        align_corners: whether the outermost elements keep their positions (default False); linear, cubic and spline.
        antialias: whether the kernels of linear and cubic widen with a step above 1, so that no element is skipped.

    Returns:
        ``(n, c, *size)``, without n where x has none.

    Raises:
        ConfigError: not one of ``size`` and ``scale``, an unknown mode or order, or options that exclude each other.
        ShapeError: x has a wrong number of axes or an empty one.

    >>> resize(torch.tensor([[[0.0, 4.0]]]), 4), resize(torch.tensor([[[0.0, 4.0]]]), 3, align_corners=True)
    (tensor([[[0., 1., 3., 4.]]]), tensor([[[0., 2., 4.]]]))
    """
    axes = count_axes(x, dims, "resize")
    order, align_corners, antialias = check_options(mode, order, align_corners, antialias)
    wanted, factors = _wanted(axes, size, scale)
    batch, batched = as_batch(x, axes)
    if any(i < 1 for i in batch.shape[2:]):
        raise ShapeError(f"resize: x is {tuple(x.shape)}, which has an empty axis. Give at least one element.")
    if factors and any(factor < 1 and i * factor < 1 for i, factor in zip(batch.shape[2:], factors, strict=True)):
        raise ShapeError(f"resize: scale {scale!r} leaves nothing of x {tuple(x.shape)}. Give a larger one.")
    word = _NATIVE.get(mode, ("",) * 3)[axes - 1]
    if word and (axes == 2 or not antialias):
        # What PyTorch has is called by its name, which exports, descriptions and our engine know.
        corners = align_corners if mode in ("linear", "cubic") else None
        y = F.interpolate(batch, wanted, factors, word, corners, antialias=antialias)
    else:
        y = batch
        sizes = wanted or [math.floor(i * factor) for i, factor in zip(batch.shape[2:], factors or (), strict=True)]
        # What shrinks most comes first, so that the others have less to do.
        for axis in sorted(range(axes), key=lambda a: sizes[a] / batch.shape[2 + a]):
            step = 1 / factors[axis] if factors else None
            taps = axis_taps(batch.shape[2 + axis], sizes[axis], mode, order, align_corners, antialias, step)
            y = _apply(taps, y, 2 + axis)
    return y if batched else y[0]


def check_options(mode: str, order: int, align_corners: bool, antialias: bool) -> tuple[int, bool, bool]:
    """Return ``order``, ``align_corners`` and ``antialias`` if options of :func:`resize` are known and fit each other.

    Raises:
        ConfigError: they do not.
    """
    corners, antialias = truth("resize: align_corners", align_corners), truth("resize: antialias", antialias)
    check_choice("resize: mode", mode, RESIZE_MODES)
    order = whole("resize: order", order, 0, max(SPLINE_ORDERS))
    if corners and mode not in ("linear", "cubic", "spline"):
        raise ConfigError(f"resize: align_corners does not go with mode={mode!r}. Use 'linear', 'cubic' or 'spline'.")
    if antialias and (corners or mode not in ("linear", "cubic")):
        raise ConfigError("resize: antialias goes with mode 'linear' or 'cubic' and without align_corners.")
    return order, corners, antialias


def _wanted(
    axes: int, size: Sizes | None, scale: float | Sequence[float] | None
) -> tuple[list[int] | None, list[float] | None]:
    """Return the sizes and the factors of all axes; the one that is not given is None."""
    if (size is None) == (scale is None):
        raise ConfigError(f"resize: size is {size} and scale {scale}. Give one of them.")
    if size is not None:
        return list(check_sizes("resize", "size", size, axes)), None
    assert scale is not None
    factors = [float(scale)] * axes if isinstance(scale, (int, float)) else list(map(float, scale))
    if len(factors) != axes or not all(math.isfinite(factor) and factor > 0 for factor in factors):
        raise ConfigError(
            f"resize: scale is {scale!r}, but it must be one number above 0, or one for each of {axes} axes."
        )
    return None, factors


@lru_cache(maxsize=64)
def axis_taps(
    i: int,
    o: int,
    mode: str,
    order: int = 3,
    align_corners: bool = False,
    antialias: bool = False,
    step: float | None = None,
) -> Taps:
    """Return the elements, of i along an axis, that each of o outputs reads, and their weights: ``(o, taps)`` each.

    >>> axis_taps(2, 4, "linear")[1].tolist()
    [[0.25, 0.75], [0.75, 0.25], [0.25, 0.75], [0.75, 0.25]]
    """
    if mode == "area":
        return _padded([adaptive_taps(i, o).at(j) for j in range(o)])
    exact = Fraction(i, o) if step is None else Fraction(step).limit_denominator(1 << 16)
    if mode in ("nearest", "nearest-exact"):
        half = Fraction(1, 2) if mode == "nearest-exact" else 0
        place = np.array([min(math.floor((j + half) * exact), i - 1) for j in range(o)])[:, None]
        return place, np.ones((o, 1))
    ratio = float(exact)
    if antialias:
        return _wide_taps(i, o, mode, ratio)
    position: NDArray[np.float64]
    if align_corners:
        position = np.arange(o, dtype=np.float64) * ((i - 1) / (o - 1) if o > 1 else 0.0)
    else:
        position = (np.arange(o, dtype=np.float64) + 0.5) * ratio - 0.5
    if mode == "spline":
        place, weight = spline_taps(position, order)
        return _mirror(place, i, align_corners), weight
    first = np.floor(position).astype(np.int64)
    reach = np.arange(0, 2) if mode == "linear" else np.arange(-1, 3)
    place = first[:, None] + reach
    distance = position[:, None] - place
    weight = 1 - np.abs(distance) if mode == "linear" else _keys(distance, -0.75)
    return place.clip(0, i - 1), weight


def _mirror(place: NDArray[np.int64], i: int, about_elements: bool) -> NDArray[np.int64]:
    """Return places of the endless mirrored signal as places of the signal; it is mirrored about elements or edges."""
    low, high = int(place.min()), int(place.max())
    if about_elements:
        return border_index(i, (-low, high - i + 1), "reflect")[place - low]
    turn = place % (2 * i)
    return np.minimum(turn, 2 * i - 1 - turn)


def _keys(t: NDArray[np.float64], a: float) -> NDArray[np.float64]:
    """Return Keys' cubic: (a + 2) |t|³ − (a + 3) |t|² + 1 to 1, a |t|³ − 5a |t|² + 8a |t| − 4a to 2."""
    t = np.abs(t)
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((t - 5) * t + 8) * t * a - 4 * a
    return np.asarray(np.where(t <= 1, near, np.where(t < 2, far, 0.0)))


def _wide_taps(i: int, o: int, mode: str, ratio: float) -> Taps:
    """Return weights as wide as a step, cut at the ends and made to sum to 1 (as Pillow and PyTorch do)."""
    width = max(ratio, 1.0)
    support = (1 if mode == "linear" else 2) * width
    centre = (np.arange(o) + 0.5) * ratio
    first = np.maximum(np.trunc(centre - support + 0.5), 0).astype(np.int64)
    last = np.minimum(np.trunc(centre + support + 0.5), i).astype(np.int64)
    place = first[:, None] + np.arange(int((last - first).max()))
    distance = (place + 0.5 - centre[:, None]) / width
    weight = np.maximum(1 - np.abs(distance), 0.0) if mode == "linear" else _keys(distance, -0.5)
    weight = np.where(place < last[:, None], weight, 0.0)
    return place.clip(0, i - 1), weight / weight.sum(axis=1, keepdims=True)


def _padded(rows: list[tuple[int, ...]]) -> Taps:
    """Return the means of rows of different lengths."""
    widest = max(map(len, rows))
    place = np.array([row + (row[-1],) * (widest - len(row)) for row in rows])
    weight = np.array([[1 / len(row)] * len(row) + [0.0] * (widest - len(row)) for row in rows])
    return place, weight


def _apply(taps: Taps, x: Tensor, axis: int) -> Tensor:
    place, weight = taps
    (o, width), i = place.shape, x.shape[axis]
    if width == 1:
        return x.index_select(axis, torch.from_numpy(place[:, 0]).to(x.device))
    rows = np.repeat(np.arange(o), width)
    if o * i <= _DENSE:
        dense = np.bincount(rows * i + place.reshape(-1), weight.reshape(-1), o * i).reshape(o, i)
        matrix = torch.from_numpy(dense).to(x.device, x.dtype)
        if axis == x.dim() - 1:
            return x @ matrix.T
        y = matrix @ x.reshape(*x.shape[:axis], i, -1)
        return y.reshape(*x.shape[:axis], o, *x.shape[axis + 1 :])
    where = torch.from_numpy(np.stack([rows, place.reshape(-1)]))
    sparse = torch.sparse_coo_tensor(where, torch.from_numpy(weight.reshape(-1)), (o, i), check_invariants=False)
    front = x.movedim(axis, 0)
    mixed: Tensor = torch.sparse.mm(sparse.to(x.device, x.dtype).coalesce(), front.reshape(i, -1))
    return mixed.reshape(o, *front.shape[1:]).movedim(0, axis)
