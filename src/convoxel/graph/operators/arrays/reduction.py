"""Functions along whole axes: sums, extremes, soft maxima, norms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "REDUCTIONS",
    "arg_extreme",
    "batch_norm",
    "hardmax",
    "layer_norm",
    "local_response_norm",
    "lp_normalise",
    "mean_variance_normalise",
    "rms_norm",
    "softmax",
]

Array = NDArray[Any]
Axes = tuple[int, ...]


def _wide(x: Array) -> Array:
    """Sum floats of few bits in float32, small whole numbers in int64."""
    if x.dtype.kind in "iub":
        return x.astype(np.int64) if x.dtype != np.uint64 else x
    return x if x.dtype.itemsize >= 4 else x.astype(np.float32)


def _log_sum_exp(x: Array, axes: Axes, keep: bool) -> Array:
    x = x.astype(np.float64)
    top = np.max(x, axis=axes, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0)
    result = np.log(np.sum(np.exp(x - top), axis=axes, keepdims=True)) + top
    return result if keep else np.squeeze(result, axes)


def _extreme(function: Any, sign: int) -> Callable[[Array, Axes, bool], Array]:
    def reduced(x: Array, axes: Axes, keep: bool) -> Array:
        if x.dtype.kind in "iu":
            limits = np.iinfo(x.dtype)
            start: Any = limits.min if sign > 0 else limits.max
        elif x.dtype.kind == "b":
            start = sign < 0
        else:
            start = x.dtype.type(-np.inf if sign > 0 else np.inf)
        return function(x, axis=axes, keepdims=keep, initial=start)

    return reduced


REDUCTIONS: Mapping[str, Callable[[Array, Axes, bool], Array]] = {
    "l1": lambda x, axes, keep: np.sum(np.abs(_wide(x)), axis=axes, keepdims=keep),
    "l2": lambda x, axes, keep: np.sqrt(np.sum(np.square(_wide(x)), axis=axes, keepdims=keep)),
    "log_sum": lambda x, axes, keep: np.log(np.sum(_wide(x), axis=axes, keepdims=keep)),
    "log_sum_exp": _log_sum_exp,
    "max": _extreme(np.max, 1),
    "mean": lambda x, axes, keep: np.mean(_wide(x), axis=axes, keepdims=keep),
    "min": _extreme(np.min, -1),
    "product": lambda x, axes, keep: np.prod(_wide(x), axis=axes, keepdims=keep),
    "sum": lambda x, axes, keep: np.sum(_wide(x), axis=axes, keepdims=keep),
    "sum_square": lambda x, axes, keep: np.sum(np.square(_wide(x)), axis=axes, keepdims=keep),
}
"""Name and function of (x, axes, whether the axes stay with size 1). The result has the operand's type."""


def arg_extreme(x: Array, axis: int, keep: bool, last: bool, largest: bool) -> Array:
    """Return where the largest (or smallest) element of an axis is, the first of equals or the ``last``."""
    find = np.argmax if largest else np.argmin
    found = x.shape[axis] - 1 - find(np.flip(x, axis), axis=axis) if last else find(x, axis=axis)
    return np.expand_dims(found, axis) if keep else np.asarray(found)


def softmax(x: Array, axes: Axes, log: bool) -> Array:
    """Return exp(x) over its sum along ``axes``, or the logarithm of it."""
    shifted = _wide(x) - np.max(_wide(x), axis=axes, keepdims=True)
    powers = np.exp(shifted)
    total = np.sum(powers, axis=axes, keepdims=True)
    return shifted - np.log(total) if log else powers / total


def hardmax(x: Array, axes: Axes) -> Array:
    """Return 1 at the first largest element along ``axes``, which are the last ones or one, and 0 elsewhere."""
    order = [axis for axis in range(x.ndim) if axis not in axes] + list(axes)
    moved = x.transpose(order)
    flat = moved.reshape(*moved.shape[: x.ndim - len(axes)], -1)
    ones = np.zeros_like(flat)
    np.put_along_axis(ones, np.argmax(flat, axis=-1)[..., None], 1, axis=-1)
    return ones.reshape(moved.shape).transpose(np.argsort(order))


def lp_normalise(x: Array, axis: int, p: int) -> Array:
    """Return x over its p-norm along an axis; a norm of 0 leaves 0."""
    norm = np.linalg.norm(_wide(x), ord=p, axis=axis, keepdims=True)
    return x / np.where(norm == 0, 1, norm)


def mean_variance_normalise(x: Array, axes: Axes, epsilon: float) -> Array:
    """Return (x − mean) / (standard deviation + ε) along ``axes``."""
    mean = np.mean(x, axis=axes, keepdims=True)
    return (x - mean) / (np.sqrt(np.mean(np.square(x - mean), axis=axes, keepdims=True)) + epsilon)


def layer_norm(
    x: Array, weight: Array | None, bias: Array | None, axis: int, epsilon: float
) -> tuple[Array, Array, Array]:
    """Return (x − mean) / √(variance + ε) · weight + bias over the axes from ``axis`` on, the mean, and 1 / √(…).

    Ba, Kiros & Hinton 2016, "Layer normalization".
    """
    axes, wide = tuple(range(axis % x.ndim, x.ndim)), _wide(x)
    mean = np.mean(wide, axis=axes, keepdims=True)
    inverse = 1 / np.sqrt(np.mean(np.square(wide - mean), axis=axes, keepdims=True) + wide.dtype.type(epsilon))
    result = (wide - mean) * inverse
    result = result if weight is None else result * weight
    return (result if bias is None else result + bias), mean, inverse


def rms_norm(x: Array, weight: Array | None, axis: int, epsilon: float) -> Array:
    """Return x / √(mean square + ε) · weight over the axes from ``axis`` on (Zhang & Sennrich 2019)."""
    axes, wide = tuple(range(axis % x.ndim, x.ndim)), _wide(x)
    result = wide / np.sqrt(np.mean(np.square(wide), axis=axes, keepdims=True) + wide.dtype.type(epsilon))
    return result if weight is None else result * weight


def local_response_norm(x: Array, size: int, alpha: float, beta: float, bias: float) -> Array:
    """Return x / (bias + α/size · Σ x²)^β, the sum over ``size`` channels around each (Krizhevsky et al. 2012)."""
    before = (size - 1) // 2
    pairs = [(before, size - 1 - before) if axis == 1 else (0, 0) for axis in range(x.ndim)]
    squares = np.pad(np.square(x), pairs)
    total = sum(squares[:, shift : shift + x.shape[1]] for shift in range(size))
    return x / (bias + alpha / size * total) ** beta


def batch_norm(
    x: Array, weight: Array, bias: Array, mean: Array, variance: Array, epsilon: float, momentum: float
) -> tuple[Array, Array, Array]:
    """Return the batch normalised by its own statistics, and the running mean and variance after it."""
    axes = (0, *range(2, x.ndim))
    over = (1, -1, *(1,) * (x.ndim - 2))
    own_mean, own_variance = np.mean(x, axis=axes), np.var(x, axis=axes)
    result = (x - own_mean.reshape(over)) / np.sqrt(own_variance.reshape(over) + epsilon)
    result = result * weight.reshape(over) + bias.reshape(over)
    kept = 1 - momentum
    return result, mean * momentum + own_mean * kept, variance * momentum + own_variance * kept
