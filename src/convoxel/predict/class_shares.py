"""Shares of classes from logits, and back: softmax, or the sigmoid of each class where one does not exclude another."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float32]
_LEAST = float(np.finfo(np.float32).tiny)
_MOST = 1.0 - 2.0**-24  # the largest float32 below 1


def shares_of(logits: Array, several: bool = False) -> Array:
    """Return the share of each class, float32, from logits (classes, *any).

    Args:
        logits: scores of the classes.
        several: whether a place may have several classes, or none (default False: shares of a place sum to 1).

    >>> shares_of(np.zeros((4, 1), np.float32)).ravel().tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    given = torch.from_numpy(np.ascontiguousarray(logits))
    found: Array = (torch.sigmoid(given) if several else torch.softmax(given, dim=0)).numpy()
    return found


def logits_of(shares: Array, several: bool = False) -> Array:
    """Return finite logits of which :func:`shares_of` gives these shares; arguments as there."""
    given = torch.from_numpy(np.ascontiguousarray(shares))
    found: Array = (torch.logit(given.clamp(_LEAST, _MOST)) if several else given.clamp(min=_LEAST).log()).numpy()
    return found
