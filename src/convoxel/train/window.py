"""Predicts an image of any size tile by tile and blends the tiles; memory O(tile layer), not O(image).

NumPy only: what computes a tile is a function. Finished slices leave as soon as no later tile touches
them, so a label map of a volume larger than memory needs one layer of tiles and the map itself.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoxel.errors import ShapeError
from convoxel.train.patch import cut

__all__ = ["blend_slabs", "label_map", "sliding_window", "tile_starts"]

Array = NDArray[np.float32]
Call = Callable[[Array], Array]


def tile_starts(size: int, tile: int, overlap: float) -> list[int]:
    """Return where tiles of length ``tile`` begin so that they cover ``size`` and overlap at least so far.

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


def sliding_window(
    call: Call,
    image: Array,
    patch: Sequence[int],
    overlap: float = 0.5,
    batch: int = 1,
    fill: Any = 0.0,
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
        overlap: least share of a tile that its neighbour covers too, 0 … <1.
        batch: tiles handed to ``call`` at once.
        fill: value of the padding, a number or one per channel.
        border: pixels of context that ``call`` sees at each side of a tile and gives no logits for, by axis.

    Raises:
        ShapeError: ``patch`` has another rank than the image, or ``call`` returns another size.

    >>> image = np.arange(30, dtype=np.float32).reshape(1, 5, 6)
    >>> bool(np.allclose(sliding_window(lambda x: x, image, (4, 4)), image))
    True
    """
    result: Array | None = None
    for start, slab in blend_slabs(call, image, patch, overlap, batch, fill, border):
        if result is None:
            result = np.empty((slab.shape[0], *image.shape[1:]), np.float32)
        result[:, start : start + slab.shape[1]] = slab
    assert result is not None
    return result


def label_map(
    call: Call,
    image: Array,
    patch: Sequence[int],
    overlap: float = 0.5,
    batch: int = 1,
    fill: Any = 0.0,
    border: Sequence[int] = (),
) -> NDArray[np.uint8]:
    """Return the class of each voxel, (*spatial) uint8; like :func:`sliding_window`, never whole logits."""
    result = np.empty(image.shape[1:], np.uint8)
    for start, slab in blend_slabs(call, image, patch, overlap, batch, fill, border):
        result[start : start + slab.shape[1]] = slab.argmax(axis=0)
    return result


def blend_slabs(
    call: Call,
    image: Array,
    patch: Sequence[int],
    overlap: float = 0.5,
    batch: int = 1,
    fill: Any = 0.0,
    border: Sequence[int] = (),
) -> Iterator[tuple[int, Array]]:
    """Yield (first slice, logits (classes, slices, *rest)) along the first spatial axis, in order.

    Arguments as :func:`sliding_window`. A slab may be overwritten once the next one is asked for.
    """
    size, patch = image.shape[1:], tuple(int(side) for side in patch)
    if len(patch) != len(size):
        raise ShapeError(
            f"sliding_window: patch {patch} has {len(patch)} sizes but the image {image.shape} has "
            f"{len(size)} spatial axes. Give one size per axis."
        )
    reader = _Reader(call, image, patch, tuple(border) or (0,) * len(patch), fill)
    starts = [tile_starts(have, want, overlap) for have, want in zip(size, patch, strict=True)]
    if all(len(axis) == 1 for axis in starts):
        yield 0, _single(reader)
        return
    weight = [
        _bell(side) if len(axis) > 1 else np.ones(side, np.float32) for side, axis in zip(patch, starts, strict=True)
    ]
    padded = [max(have, want) for have, want in zip(size, patch, strict=True)]
    total = [_sums(axis, w, side) for axis, w, side in zip(starts, weight, padded, strict=True)]
    inner = _outer(weight)
    crop = tuple(slice((p - s) // 2, (p - s) // 2 + s) for p, s in zip(padded, size, strict=True))
    store: Array | None = None
    base = 0
    for first in starts[0]:
        if store is not None and first > base:
            yield from _finish(store, base, first - base, total, crop, size[0])
            store[:, : patch[0] - (first - base)] = store[:, first - base :].copy()
            store[:, patch[0] - (first - base) :] = 0
        base = first
        corners = list(itertools.product(*starts[1:]))
        for group in range(0, len(corners), batch):
            chosen = corners[group : group + batch]
            places = [_shift((first, *corner), padded, size) for corner in chosen]
            logits = reader.logits(places)
            if store is None:
                store = np.zeros((logits.shape[1], patch[0], *padded[1:]), np.float32)
            for corner, values in zip(chosen, logits, strict=True):
                sides = zip(corner, patch[1:], strict=True)
                box = (slice(None), slice(None), *(slice(c, c + side) for c, side in sides))
                store[box] += values * inner
    assert store is not None
    yield from _finish(store, base, padded[0] - base, total, crop, size[0])


@dataclass(frozen=True)
class _Reader:
    """Cuts tiles with their border out of the image, and has them computed."""

    call: Call
    image: Array
    patch: tuple[int, ...]
    border: tuple[int, ...]
    fill: Any

    def logits(self, places: Sequence[Sequence[int]]) -> Array:
        """Return (n, classes, *patch) of the tiles whose inner part begins at ``places``."""
        wide = [side + 2 * edge for side, edge in zip(self.patch, self.border, strict=True)]
        outer = [[start - edge for start, edge in zip(place, self.border, strict=True)] for place in places]
        tiles = np.stack([cut(self.image, place, wide, self.fill) for place in outer])
        logits = np.asarray(self.call(tiles))
        if logits.shape[:1] != tiles.shape[:1] or logits.shape[2:] != self.patch:
            raise ShapeError(
                f"sliding_window: call returned {logits.shape} for tiles {tiles.shape}; expected "
                f"({tiles.shape[0]}, classes, {', '.join(map(str, self.patch))})."
            )
        return logits


def _single(reader: _Reader) -> Array:
    """One tile holds the image: no blending, the network's own numbers."""
    size = reader.image.shape[1:]
    start = [-((want - have) // 2) for have, want in zip(size, reader.patch, strict=True)]
    logits = reader.logits([start])[0]
    inside = (slice(None), *(slice(-s, -s + have) for s, have in zip(start, size, strict=True)))
    return np.asarray(logits[inside])


def _shift(corner: Sequence[int], padded: Sequence[int], size: Sequence[int]) -> list[int]:
    """From coordinates of the padded image to those of the image."""
    return [c - (p - s) // 2 for c, p, s in zip(corner, padded, size, strict=True)]


def _finish(
    store: Array, base: int, count: int, total: list[Array], crop: tuple[slice, ...], size: int
) -> Iterator[tuple[int, Array]]:
    """Divide the first ``count`` slices by their weights, strip the padding, hand them out.

    Tiles lie on a grid and their weights are products over axes, so the sum of weights is a product too:
    no second volume is needed for it.
    """
    low, high = max(base, crop[0].start), min(base + count, crop[0].start + size)
    if low >= high:
        return
    slab = store[:, low - base : high - base]
    for axis, sums in enumerate([total[0][low:high], *total[1:]]):
        slab /= sums.reshape(-1, *(1 for _ in range(slab.ndim - 2 - axis)))
    inside = (slice(None), slice(None), *crop[1:])
    yield low - crop[0].start, slab[inside]


def _bell(side: int) -> Array:
    """Gaussian weights of a tile's axis; never below 1e-3, so that lone corners keep float32 accuracy."""
    place = (np.arange(side) - (side - 1) / 2) / (side / 8)
    return np.maximum(np.exp(-0.5 * place * place), 1e-3).astype(np.float32)


def _sums(starts: list[int], weight: Array, size: int) -> Array:
    total = np.zeros(size, np.float64)
    for start in starts:
        total[start : start + len(weight)] += weight
    return total.astype(np.float32)


def _outer(weights: list[Array]) -> Array:
    result = weights[0]
    for weight in weights[1:]:
        result = result[..., None] * weight
    return result
