"""Where tensors lie: from channels-first shapes to the five axes of native views, and views of views.

The native side always has three spatial axes: (n, c, h, w) is run as (n, 1, h, w, c). ``full`` and ``spatial`` make
that step; nothing else needs to know how many axes a network has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

from convoxel.graph.ir import Node
from convoxel.graph.size import Shape
from convoxel.native import View

__all__ = ["NATIVE_RANKS", "alias_narrow", "alias_squeeze", "full", "full_axis", "narrow_view", "row_views", "spatial"]

NATIVE_RANKS = range(2, 6)
"""(n, c) to (n, c, d, h, w): how many axes native steps can take."""

T = TypeVar("T")
Full = tuple[int, int, int, int, int]


def full(shape: Shape) -> Full:
    """Return (n, d, h, w, c) of a channels-first shape; absent axes are 1."""
    n, c, *rest = shape if len(shape) > 1 else (*shape, 1)
    d, h, w = (1,) * (3 - len(rest)) + tuple(rest)
    return (n, d, h, w, c)


def spatial(values: Sequence[T], fill: T) -> tuple[T, T, T]:
    """Return one value for each of the three spatial axes; absent ones, in front, get ``fill``."""
    one, two, three = (fill,) * (3 - len(values)) + tuple(values)
    return one, two, three


def narrow_view(view: View, axis: int, start: int, length: int, step: int = 1) -> View:
    """Return the part ``start, start + step, …`` of ``view`` along axis 0…4 of (n, d, h, w, c)."""
    assert axis < 4 or step == 1, "channels stay contiguous"
    start_offset = view.offset + start * (*view.strides, 1)[axis]
    n, d, h, w, c = (length if i == axis else size for i, size in enumerate(view.shape))
    sn, sd, sh, sw = (stride * step if i == axis else stride for i, stride in enumerate(view.strides))
    return View(view.buffer, start_offset, (n, d, h, w, c), (sn, sd, sh, sw))


def full_axis(axis: int, rank: int) -> int:
    """Return the axis of (n, d, h, w, c) that is ``axis`` of a channels-first tensor of ``rank`` axes."""
    return (0, 4)[axis] if axis < 2 else axis + 4 - rank


def alias_narrow(node: Node, shape: Shape, source: View) -> View:
    """A range of the operand is a view of it."""
    axis = node["axis"]
    start, stop, step = slice(node["start"], node["stop"], node["step"]).indices(shape[axis])
    return narrow_view(source, full_axis(axis, len(shape)), start, len(range(start, stop, step)), step)


def alias_squeeze(node: Node, shape: Shape, source: View) -> View:
    """Axes of size 1 come and go without moving a number."""
    assert full(shape) == full(tuple(node["shape"]))
    return source


def row_views(source: View, target: View) -> Iterator[tuple[View, View]]:
    """Yield both views as (rows, 1, 1, 1, c): in one piece if the rows of each follow each other at one distance.

    Those of a crop do not; then each line of the image is a piece.
    """
    n, d, h, w = source.shape[:4]
    if _is_even(source) and _is_even(target):
        yield _row_view(source, source.offset, n * d * h * w), _row_view(target, target.offset, n * d * h * w)
        return
    for place in np.ndindex(n, d, h):
        starts = [v.offset + sum(i * s for i, s in zip(place, v.strides, strict=False)) for v in (source, target)]
        yield _row_view(source, starts[0], w), _row_view(target, starts[1], w)


def _is_even(view: View) -> bool:
    rows, distance = 1, view.strides[3]
    for size, stride in zip(reversed(view.shape[:4]), reversed(view.strides), strict=True):
        if size > 1 and stride != rows * distance:
            return False
        rows *= size
    return True


def _row_view(view: View, offset: int, rows: int) -> View:
    distance = view.strides[3]
    return View(view.buffer, offset, (rows, 1, 1, 1, view.shape[4]), (distance, distance, distance, distance))
