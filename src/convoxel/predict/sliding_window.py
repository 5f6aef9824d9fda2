"""Prediction of an image of any size, tile by tile; memory for one layer of tiles, not for the image.

NumPy only: a function computes the tiles. Finished slices are yielded as soon as no later tile overlaps them, so the
label map of a volume larger than memory needs one layer of tiles and the map itself.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from convoxel.arithmetic.argument import whole
from convoxel.errors import ConfigError, ShapeError
from convoxel.files.fault import brief

Array = NDArray[np.float32]
Call = Callable[[Array], Array]
Fill = float | Sequence[float] | Array
Scalar = TypeVar("Scalar", bound=np.generic)


class Tiling(NamedTuple):
    """Tiles of a prediction; see :func:`sliding_window` for the entries."""

    patch: tuple[int, ...]
    overlap: float = 0.5
    batch: int = 1
    fill: Fill = 0.0
    border: tuple[int, ...] = ()


def tile_starts(size: int, tile: int, overlap: float) -> list[int]:
    """Return the starts of the fewest tiles of length ``tile`` that cover ``size`` and overlap by at least ``overlap``.

    >>> tile_starts(10, 4, 0.5)
    [0, 2, 4, 6]
    >>> tile_starts(3, 4, 0.5)
    [0]
    """
    if size <= tile:
        return [0]
    step = max(1, math.floor(tile * (1.0 - overlap) + 1e-9))
    count = -(-(size - tile) // step) + 1
    return [round(index * (size - tile) / (count - 1)) for index in range(count)]


def cut(image: NDArray[Scalar], start: Sequence[int], size: Sequence[int], fill: Fill = 0) -> NDArray[Scalar]:
    """Return a copy of the box of ``size`` at ``start`` from the last axes of ``image``.

    Parts outside the image hold ``fill``, a number or one per leading index (channels,).
    """
    lead = image.ndim - len(size)
    inside, target = [slice(None)] * lead, [slice(None)] * lead
    whole = True
    for first, want, have in zip(start, size, image.shape[lead:], strict=True):
        low, high = max(first, 0), min(first + want, have)
        inside.append(slice(low, high))
        target.append(slice(low - first, high - first))
        whole = whole and high - low == want
    if whole:
        return np.array(image[tuple(inside)], order="C")
    result = np.empty((*image.shape[:lead], *size), image.dtype)
    result[...] = np.asarray(fill, image.dtype).reshape(-1, *(1 for _ in size)) if lead else fill
    result[tuple(target)] = image[tuple(inside)]
    return result


def sliding_window(
    call: Call,
    image: Array,
    patch: Sequence[int],
    overlap: float = 0.5,
    batch: int = 1,
    fill: Fill = 0.0,
    border: Sequence[int] = (),
) -> Array:
    """Return the blended logits of an image, (classes, *spatial) float32.

    Tiles are weighted by a Gaussian with σ = tile/8 per axis and the sum is divided by the summed weights:
    the middle of a tile, which saw the most context, counts most.

    Args:
        call: maps tiles (n, channels, *(patch + 2 border)) to logits (n, classes, *patch); NumPy float32 both
            ways.
        image: (channels, *spatial) float32.
        patch: tile size in voxels, one per spatial axis; a shorter image is padded with ``fill``, centred.
        overlap: least share of a tile that its neighbour covers too, 0 … <1 (default 0.5).
        batch: number of tiles that one ``call`` gets (default 1).
        fill: value of the padding, a number or one per channel (default 0).
        border: pixels of context that ``call`` sees at each side of a tile and gives no logits for, by axis (default
            none).

    Raises:
        ShapeError: ``patch`` has another rank than the image, or ``call`` returns another size.

    >>> image = np.arange(30, dtype=np.float32).reshape(1, 5, 6)
    >>> bool(np.allclose(sliding_window(lambda x: x, image, (4, 4)), image))
    True
    """
    _check_patch(image, patch)
    tiling = Tiling(tuple(patch), overlap, whole("batch", batch, 1), fill, tuple(border))
    if not 0 <= overlap < 1:
        raise ConfigError(f"sliding_window: overlap is {overlap}, but it must be at least 0 and below 1.")
    if len(tiling.border) not in (0, len(patch)) or min((*patch, *(edge + 1 for edge in border)), default=1) < 1:
        raise ConfigError(
            f"sliding_window: patch is {brief(patch)} and border {brief(border)}, but a patch is at least 1 and a "
            "border at least 0 along every axis."
        )
    return join_slabs(blend_slabs(call, image, tiling), image.shape[1])


def _check_patch(image: Array, patch: Sequence[int]) -> None:
    if not patch or len(patch) != image.ndim - 1:
        raise ShapeError(
            f"sliding_window: patch {patch} has {len(patch)} sizes but the image {image.shape} has "
            f"{image.ndim - 1} spatial axes. Give one size per axis."
        )


def join_slabs(slabs: Iterable[tuple[int, NDArray[Scalar]]], length: int) -> NDArray[Scalar]:
    """Return (classes, length, *rest), filled slab by slab from (first slice, (classes, slices, *rest))."""
    result: NDArray[Scalar] | None = None
    for start, slab in slabs:
        if result is None:
            result = np.empty((slab.shape[0], length, *slab.shape[2:]), slab.dtype)
        result[:, start : start + slab.shape[1]] = slab
    assert result is not None
    return result


def blend_slabs(call: Call, image: Array, tiling: Tiling) -> Iterator[tuple[int, Array]]:
    """Yield (first slice, logits (classes, slices, *rest)) along the first spatial axis, in order.

    Arguments and errors as of :func:`sliding_window`. A slab may be overwritten once the next one is asked for.
    """
    size, patch = image.shape[1:], tiling.patch
    _check_patch(image, patch)
    starts = [tile_starts(have, want, tiling.overlap) for have, want in zip(size, patch, strict=True)]
    padded = [max(have, want) for have, want in zip(size, patch, strict=True)]
    before = [(p - s) // 2 for p, s in zip(padded, size, strict=True)]
    crop = tuple(slice(b, b + s) for b, s in zip(before, size, strict=True))
    if all(len(axis) == 1 for axis in starts):  # one tile: not blended, the network's own numbers
        (logits,) = _tile_logits(call, image, tiling, before, [(0,) * len(size)])
        inside = (slice(None), *crop)
        yield 0, logits[inside]
        return
    weight = [
        _bell(side) if len(axis) > 1 else np.ones(side, np.float32) for side, axis in zip(patch, starts, strict=True)
    ]
    total = [_sums(axis, w, side) for axis, w, side in zip(starts, weight, padded, strict=True)]
    inner = functools.reduce(np.multiply.outer, weight)
    store: Array | None = None
    base = 0
    for first in starts[0]:
        if store is not None and first > base:
            yield from _finish(store, base, first - base, total, crop)
            store[:, : patch[0] - (first - base)] = store[:, first - base :].copy()
            store[:, patch[0] - (first - base) :] = 0
        base = first
        corners = [(first, *corner) for corner in itertools.product(*starts[1:])]
        for group in range(0, len(corners), tiling.batch):
            chosen = corners[group : group + tiling.batch]
            logits = _tile_logits(call, image, tiling, before, chosen)
            if store is None:
                store = np.zeros((logits.shape[1], patch[0], *padded[1:]), np.float32)
            for corner, values in zip(chosen, logits, strict=True):
                sides = zip(corner[1:], patch[1:], strict=True)
                box = (slice(None), slice(None), *(slice(c, c + side) for c, side in sides))
                store[box] += values * inner
    assert store is not None
    yield from _finish(store, base, padded[0] - base, total, crop)


def _tile_logits(
    call: Call, image: Array, tiling: Tiling, before: Sequence[int], corners: Sequence[Sequence[int]]
) -> Array:
    """Return (n, classes, *patch) of tiles at ``corners`` of the image, which has ``before`` pixels of padding."""
    border = tiling.border or (0,) * len(tiling.patch)
    wide = [side + 2 * edge for side, edge in zip(tiling.patch, border, strict=True)]
    places = [[c - b - edge for c, b, edge in zip(corner, before, border, strict=True)] for corner in corners]
    tiles = np.stack([cut(image, place, wide, tiling.fill) for place in places])
    logits = np.asarray(call(tiles))
    if logits.shape[:1] != tiles.shape[:1] or logits.shape[2:] != tiling.patch:
        raise ShapeError(
            f"sliding_window: call returned {logits.shape} for tiles {tiles.shape}; expected "
            f"({tiles.shape[0]}, classes, {', '.join(map(str, tiling.patch))})."
        )
    return logits


def _finish(
    store: Array, base: int, count: int, total: list[Array], crop: tuple[slice, ...]
) -> Iterator[tuple[int, Array]]:
    """Divide the first ``count`` slices by their weights, crop the padding and yield them.

    Tiles lie on a grid and their weights are products over axes, so the sum of weights is a product too and needs no
    second volume.
    """
    low, high = max(base, crop[0].start), min(base + count, crop[0].stop)
    if low >= high:
        return
    slab = store[:, low - base : high - base]
    for axis, sums in enumerate([total[0][low:high], *total[1:]]):
        slab /= sums.reshape(-1, *(1 for _ in range(slab.ndim - 2 - axis)))
    inside = (slice(None), slice(None), *crop[1:])
    yield low - crop[0].start, slab[inside]


def _bell(side: int) -> Array:
    """Gaussian weights along one axis of a tile; at least 1e-3, so that lone corners keep float32 accuracy."""
    place = (np.arange(side) - (side - 1) / 2) / (side / 8)
    return np.maximum(np.exp(-0.5 * place * place), 1e-3).astype(np.float32)


def _sums(starts: list[int], weight: Array, size: int) -> Array:
    total = np.zeros(size, np.float64)
    for start in starts:
        total[start : start + len(weight)] += weight
    return total.astype(np.float32)
