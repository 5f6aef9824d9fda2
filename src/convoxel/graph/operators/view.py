"""Where tensors lie: from channels-first shapes to the five axes of native views, and views of views.

The native side always has three spatial axes: (n, c, h, w) is run as (n, 1, h, w, c). ``full`` and ``spatial`` make
that step; nothing else needs to know how many axes a network has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

from convoxel.graph.ir.graph import Node
from convoxel.graph.ir.size import Shape
from convoxel.native import View

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
    return view._replace(offset=start_offset, shape=(n, d, h, w, c), strides=(sn, sd, sh, sw))


def full_axis(axis: int, rank: int) -> int:
    """Return the axis of (n, d, h, w, c) that is ``axis`` of a channels-first tensor of ``rank`` axes."""
    return (0, 4)[axis] if axis < 2 else axis + 4 - rank


def alias_slice(node: Node, shape: Shape, source: View) -> View:
    """Ranges of the operand's axes are a view of it."""
    for axis, bounds in enumerate(zip(node["starts"], node["stops"], node["steps"], strict=True)):
        if bounds == (0, None, 1):  # all of an axis, whose length may be open
            continue
        start, stop, step = slice(*bounds).indices(shape[axis])
        if (start, stop, step) != (0, shape[axis], 1):
            source = narrow_view(source, full_axis(axis, len(shape)), start, len(range(start, stop, step)), step)
    return source


def alias_reshape(node: Node, shape: Shape, source: View) -> View:
    """Axes of size 1 come and go without moving a number."""
    assert full(shape) == full(tuple(node["shape"]))
    return source


def channels_as_positions(view: View) -> View:
    """Return (n, 1, 1, w, 1) of a view that has more than one position, or more than one channel, but not both."""
    n, d, h, w, c = view.shape
    assert c == 1 or d * h * w == 1
    length, stride = max(((d, view.strides[1]), (h, view.strides[2]), (w, view.strides[3]), (c, 1)))
    strides = (view.strides[0], stride * length, stride * length, stride)
    return view._replace(shape=(n, 1, 1, length, 1), strides=strides)


def joined_batch(*views: View) -> list[View] | None:
    """Return views of one shape with the images of the batch as one, longer along an axis.

    None if they are such crops that no single axis leads from the last row of an image to the first of the next.
    """
    if all(view.shape[0] == 1 for view in views):
        return list(views)
    for join in (_images_in_depth, _images_as_slices):
        joined = [join(view) for view in views]
        if all(joined):
            return [view for view in joined if view is not None]
    return None


def _images_in_depth(view: View) -> View | None:
    """(1, n · d, h, w, c)"""
    n, d, h, w, c = view.shape
    sn, sd, sh, sw = view.strides
    distance = sn if d == 1 else sd
    return view._replace(shape=(1, n * d, h, w, c), strides=(sn, distance, sh, sw)) if sn == d * distance else None


def _images_as_slices(view: View) -> View | None:
    """(1, n, d · h, w, c)"""
    n, d, h, w, c = view.shape
    sn, sd, sh, sw = view.strides
    distance = sd if h == 1 else sh
    return view._replace(shape=(1, n, d * h, w, c), strides=(sn, sn, distance, sw)) if sd == h * distance else None


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
    shape = (rows, 1, 1, 1, view.shape[4])
    return view._replace(offset=offset, shape=shape, strides=(distance, distance, distance, distance))
