"""Shares of classes from logits, and back: softmax, or the sigmoid of each class where one does not exclude another.

A share depends on the logits of its place alone, and not on where it lies in an array: NumPy's functions of whole
arrays give the same bits in any tail, and classes are added one after the other. PyTorch's softmax does neither.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
_LEAST = np.finfo(np.float32).tiny
_MOST = np.float32(1.0 - 2.0**-24)  # the largest float32 below 1


def shares_of(logits: Array, several: bool = False) -> Array:
    """Return the share of each class, float32, from logits (classes, *any).

    Args:
        logits: scores of the classes.
        several: whether a place may have several classes, or none (default False: shares of a place sum to 1).

    >>> shares_of(np.zeros((4, 1), np.float32)).ravel().tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    shares = np.array(logits, np.float32, order="C")  # strides would choose other loops
    with np.errstate(over="ignore", invalid="ignore"):  # a share of 0; NaN stays NaN
        if several:
            np.exp(np.negative(shares, out=shares), out=shares)
            shares += 1
            return np.reciprocal(shares, out=shares)
        shares -= shares.max(axis=0)
        np.exp(shares, out=shares)
        total = shares[0].copy()
        for share in shares[1:]:
            total += share
        shares /= total
    return shares


def logits_of(shares: Array, several: bool = False) -> Array:
    """Return finite logits of which :func:`shares_of` gives these shares; arguments as there."""
    found = np.clip(shares, _LEAST, _MOST if several else None)
    logits: Array = np.log(found)
    if several:
        logits -= np.log1p(-found)
    return logits
