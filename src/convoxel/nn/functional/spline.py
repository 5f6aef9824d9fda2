"""B-splines as weights of the samples themselves: the prefilter and the basis in one row (Unser et al. 1993)."""

from __future__ import annotations

from functools import lru_cache
from math import comb, factorial

import numpy as np
from numpy.typing import NDArray

from convoxel.errors import ConfigError

Array = NDArray[np.float64]

SPLINE_ORDERS = (0, 1, 2, 3, 4, 5)


def bspline(t: Array, order: int) -> Array:
    """Return the centred B-spline β(t) = Σ_j (−1)^j C(n + 1, j) (t + (n + 1) / 2 − j)₊ⁿ / n!, from its left half.

    >>> bspline(np.array([-1.0, 0.0, 0.5, 1.0]), 3) * 48
    array([ 8., 32., 23.,  8.])
    """
    reach = (order + 1) / 2
    left = reach - np.abs(t)  # symmetric; from the near end few terms cancel
    total = np.zeros_like(t)
    for j in range(order + 1):
        ahead = np.maximum(left - j, 0.0)
        total += (-1) ** j * comb(order + 1, j) * (ahead**order if order else (left - j >= 0).astype(float))
    return np.where(left >= 0, total / factorial(order), 0.0)


@lru_cache(maxsize=8)
def prefilter(order: int) -> Array:
    """Return the filter that turns samples into B-spline coefficients, as far as float64 sees it.

    The inverse of the sampled spline, 1 / B(ω); it falls off as |z|ⁿ with the largest pole z, 0.43 for order 5,
    so that a transform of 512 points holds it whole.

    Raises:
        ConfigError: ``order`` is not 0 … 5.

    >>> len(prefilter(1)), round(float(prefilter(3).sum()), 12)
    (1, 1.0)
    """
    if isinstance(order, bool) or order not in SPLINE_ORDERS:
        raise ConfigError(f"order is {order!r}, but splines have order 0 to 5.")
    samples = bspline(np.arange(-3.0, 4.0), order) if order > 1 else np.array([0, 0, 0, 1.0, 0, 0, 0])
    ring = np.zeros(512)
    ring[np.arange(-3, 4)] = samples
    response = np.fft.irfft(1.0 / np.fft.rfft(ring).real, 512)
    reach = int(np.flatnonzero(np.abs(response[:256]) > 1e-17)[-1])
    if order <= 1:
        reach = 0
    return np.asarray(response[np.arange(-reach, reach + 1)])


def spline_taps(position: Array, order: int) -> tuple[NDArray[np.int64], Array]:
    """Return which samples of an endless signal the spline through them reads at ``position``, and with what weight.

    Args:
        position: ``(o,)`` in samples.
        order: 0 to 5.

    Returns:
        Places and weights, ``(o, taps)`` each.

    >>> spline_taps(np.array([1.5]), 1)
    (array([[1, 2]]), array([[0.5, 0.5]]))
    """
    inverse = prefilter(order)
    reach = len(inverse) // 2
    # Even orders lie around the nearest sample, odd ones around the interval.
    first = np.floor(position + 0.5 if order % 2 == 0 else position).astype(np.int64) - order // 2
    basis = (
        bspline(position[:, None] - (first[:, None] + np.arange(order + 1)), order)
        if order
        else np.ones((len(first), 1))
    )
    weights = np.zeros((len(first), order + len(inverse)))
    for tap in range(order + 1):
        weights[:, tap : tap + len(inverse)] += basis[:, tap : tap + 1] * inverse
    return first[:, None] - reach + np.arange(weights.shape[1]), weights
