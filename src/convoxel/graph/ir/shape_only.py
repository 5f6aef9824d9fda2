"""Arrays of which only shape and type are known: weights of a network that is described, not run.

One number stands for all, read again and again with strides of 0, so that weights of any size take no memory and passes
rewrite them at once. That number is NaN, which equals nothing: no pass takes such weights for ones, zeros or equal.
What is computed from them is again of this kind; what needs their values gets NaN, or 0 for whole numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from convoxel.files.values import Array

if TYPE_CHECKING:
    from convoxel.graph.ir.graph import Graph

_FEW = 16  # numbers: factors, limits and the like, which passes and rules may look at


class ShapeOnly(np.ndarray[Any, Any]):
    """An array of any shape in the memory of one number, with stride 0 along every axis.

    >>> weights = ShapeOnly((1 << 20, 1 << 20))
    >>> scaled = weights.T * np.ones(1 << 20)
    >>> scaled.shape, scaled.dtype, bool((scaled == 1).all())
    ((1048576, 1048576), dtype('float64'), False)
    """

    def __new__(cls, shape: Sequence[int], dtype: DTypeLike = np.float32) -> ShapeOnly:
        number = _number(np.dtype(dtype))
        return super().__new__(cls, tuple(shape), number.dtype, number, strides=(0,) * len(shape))

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        """Return the result's shape and type."""
        out = options.pop("out", (None,))[0]
        if method == "reduce":
            shape = _reduced(inputs[0].shape, options.get("axis", 0), bool(options.get("keepdims")))
            result = ShapeOnly(shape, np.bool_ if ufunc in (np.logical_and, np.logical_or) else inputs[0].dtype)
            return result if shape else result[()]
        if method != "__call__":
            return NotImplemented
        shapes = [np.shape(x) for x in inputs]
        shape = _product(*shapes) if ufunc is np.matmul else np.broadcast_shapes(*shapes)
        with np.errstate(all="ignore"):
            results = ufunc(*map(_stand_in, inputs), **options)
        if isinstance(out, np.ndarray) and not isinstance(out, ShapeOnly):
            out[...] = np.nan
            return out
        made = [ShapeOnly(shape, r.dtype) for r in (results if isinstance(results, tuple) else (results,))]
        return tuple(made) if isinstance(results, tuple) else made[0]

    def __array_function__(self, func: Any, types: Iterable[type], args: Any, kwargs: Any) -> Any:
        """Return views as NumPy does, concatenations by their shapes, and all else by its shape alone."""
        if func is np.concatenate:
            return _joined(*args, **kwargs)
        result = super().__array_function__(func, types, args, kwargs)
        return _bare(result)

    def __getitem__(self, index: Any) -> Any:
        """Return a part."""
        rows = index if isinstance(index, tuple) else (index,)
        lists = [n for n, row in enumerate(rows) if isinstance(row, np.ndarray | list)]
        if len(lists) == 1 and all(isinstance(row, slice) for n, row in enumerate(rows) if n not in lists):
            (place,), row = lists, np.asarray(rows[lists[0]])
            if row.dtype != np.bool_:
                others = super().__getitem__(tuple(slice(None) if n == place else r for n, r in enumerate(rows)))
                return ShapeOnly((*others.shape[:place], *row.shape, *others.shape[place + 1 :]), self.dtype)
        return _bare(super().__getitem__(index))

    def astype(self, dtype: DTypeLike, *arguments: Any, **options: Any) -> ShapeOnly:  # type: ignore[override]
        """Return the same shape in another type."""
        return ShapeOnly(self.shape, dtype)

    def copy(self, *arguments: Any, **options: Any) -> ShapeOnly:
        """Return the array: there is nothing to copy."""
        return self

    def reshape(self, *shape: Any, **options: Any) -> ShapeOnly:
        """Return another shape of as many numbers."""
        sizes = list(shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)
        if -1 in sizes:
            sizes[sizes.index(-1)] = self.size // -math.prod(sizes)
        if math.prod(sizes) != self.size:
            raise ValueError(f"cannot reshape array of size {self.size} into shape {tuple(sizes)}")
        return ShapeOnly(sizes, self.dtype)


@lru_cache
def _number(dtype: np.dtype[Any]) -> Array:
    number = np.full(1, np.nan if dtype.kind in "fc" else 0, dtype)
    number.flags.writeable = False
    return number


def _stand_in(x: Any) -> Any:
    """Return one number of the type of ``x``."""
    if not isinstance(x, np.ndarray):
        return x
    return _number(x.dtype) if isinstance(x, ShapeOnly) or not x.size else x.reshape(-1)[:1]


def _reduced(shape: tuple[int, ...], axis: int | tuple[int, ...] | None, keep: bool) -> tuple[int, ...]:
    axes = range(len(shape)) if axis is None else (axis,) if isinstance(axis, int) else axis
    gone = {each % len(shape) for each in axes}
    return tuple(1 if n in gone else size for n, size in enumerate(shape) if keep or n not in gone)


def _product(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    batch = np.broadcast_shapes(a[:-2], b[:-2])
    return (*batch, *a[-2:-1], *(b[-1:] if len(b) > 1 else ()))


def _joined(arrays: Sequence[Array], axis: int = 0) -> ShapeOnly:
    first = arrays[0]
    sizes = list(first.shape)
    sizes[axis] = sum(array.shape[axis] for array in arrays)
    return ShapeOnly(sizes, np.result_type(*(array.dtype for array in arrays)))


def _bare(result: Any) -> Any:
    """Return what NumPy made without its memory, unless it is a view."""
    if isinstance(result, list | tuple):
        return type(result)(map(_bare, result))
    if not isinstance(result, ShapeOnly) or not any(result.strides):
        return result
    return ShapeOnly(result.shape, result.dtype)


def outline(graph: Graph) -> Graph:
    """Return ``graph`` with its weights as shapes alone; small arrays and whole numbers keep their values."""

    def outlined(array: Array) -> Array:
        heavy = array.dtype.kind == "f" and array.size > _FEW
        return ShapeOnly(array.shape, array.dtype) if heavy else array

    return graph.replace(constants={name: outlined(array) for name, array in graph.constants.items()})
