"""Constants of which only shape and type are kept, for graphs that are described and never run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

if TYPE_CHECKING:
    from convoxel.graph.ir.graph import Graph

__all__ = ["ShapeOnly", "outline"]

_FEW = 16  # numbers: factors, limits and the like, which passes and rules may look at


class ShapeOnly(np.ndarray[Any, Any]):
    """An array of any shape in the memory of one number, with stride 0 along every axis.

    It stands for an array whose numbers nobody needs. Views of it and elementwise results with it are of the same kind;
    reading its numbers gives zeros, which mean nothing.

    >>> weight = ShapeOnly((64, 32, 3, 3))
    >>> (weight * np.ones((64, 1, 1, 1))).shape, (weight + 1).transpose(1, 0, 2, 3).strides
    ((64, 32, 3, 3), (0, 0, 0, 0))
    """

    def __new__(cls, shape: Sequence[int], dtype: DTypeLike = np.float32) -> ShapeOnly:
        return np.broadcast_to(np.zeros((), dtype), tuple(shape)).view(cls)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        """Return the shape and type of an elementwise result; other uses see zeros."""
        plain = [x.view(np.ndarray) if isinstance(x, ShapeOnly) else x for x in inputs]
        if method != "__call__" or ufunc.signature is not None or options.get("out") is not None:
            return getattr(ufunc, method)(*plain, **options)
        # One number of each operand tells the type; the shapes are those of broadcasting.
        first = [x if np.ndim(x) == 0 else np.zeros((1,), np.asarray(x).dtype) for x in plain]
        with np.errstate(all="ignore"):
            results = ufunc(*first, **options)
        shape = np.broadcast_shapes(*(np.shape(x) for x in plain))
        made = tuple(ShapeOnly(shape, np.asarray(r).dtype) for r in (results if ufunc.nout > 1 else (results,)))
        return made if ufunc.nout > 1 else made[0]


def outline(graph: Graph) -> Graph:
    """Return ``graph`` with its weights as shapes alone; small arrays and whole numbers keep their values."""

    def outlined(array: NDArray[Any]) -> NDArray[Any]:
        heavy = array.dtype.kind == "f" and array.size > _FEW
        return ShapeOnly(array.shape, array.dtype) if heavy else array

    return graph.replace(constants={name: outlined(array) for name, array in graph.constants.items()})
