"""Products of matrices, of any type and number of axes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["einsum", "matmul"]

Array = NDArray[Any]


def _wide(x: Array) -> Array:
    return x if (x.dtype.kind != "f" and x.dtype.kind in "iub") or x.dtype.itemsize >= 4 else x.astype(np.float32)


def matmul(a: Array, b: Array) -> Array:
    """Return the matrix product over the last two axes; the others are stretched."""
    return np.matmul(_wide(a), _wide(b))


def einsum(*operands: Array, equation: str) -> Array:
    """Return the sum of products that the equation spells (Einstein's convention)."""
    return np.einsum(equation, *map(_wide, operands))
