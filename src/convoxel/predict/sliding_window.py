"""Prediction of an image of any size, tile by tile; memory for one layer of tiles, not for the image.

NumPy only: a function computes the tiles. Finished slices are yielded as soon as no later tile overlaps them, so the
label map of a volume larger than memory needs one layer of tiles and the map itself.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from convoxel.arithmetic.argument import whole
from convoxel.data.mapped_image import MappedImage
from convoxel.errors import ConfigError, ShapeError
from convoxel.files.fault import brief
from convoxel.files.file_array import MOST_IN_MEMORY, FileArray, new_array

Array = NDArray[np.float32]
Call = Callable[[Array], Array]
Fill = float | Sequence[float] | Array | Literal["edge"]
OnTile = Callable[[int, int], None]
Scalar = TypeVar("Scalar", bound=np.generic)


Blend = Literal["bell", "filter", "filter_float32", "constant", "gaussian"]


class Tiling(NamedTuple):
    """Tiles of a prediction; see :func:`sliding_window` for the entries."""

    patch: tuple[int, ...]
    overlap: float = 0.5
    batch: int = 1
    fill: Fill = 0.0
    border: tuple[int, ...] = ()
    blend: Blend = "bell"


def tile_starts(size: int, tile: int, overlap: float, blend: Blend = "bell") -> list[int]:
    """Return the starts of the fewest tiles of length ``tile`` that cover ``size`` and overlap by at least ``overlap``.

    With ``blend`` "filter" or "filter_float32" that holds before starts are rounded. With "constant" and "gaussian" all
    neighbours have the same distance, and the last tile ends where ``size`` does.

    >>> tile_starts(11, 4, 0.5, "constant")
    [0, 2, 4, 6, 7]
    >>> tile_starts(10, 4, 0.5)
    [0, 2, 4, 6]
    >>> tile_starts(3, 4, 0.5)
    [0]
    """
    if size <= tile:
        return [0]
    step = tile * (1.0 - overlap)
    if blend in ("constant", "gaussian"):
        step = max(1, int(step))
        return [min(start, size - tile) for start in range(0, size - tile + step, step)]
    step = max(1.0, math.floor(step + 1e-9) if blend == "bell" else step)
    count = math.ceil((size - tile) / step) + 1
    return [round(index * (size - tile) / (count - 1)) for index in range(count)]


def cut(
    image: NDArray[Scalar] | MappedImage, start: Sequence[int], size: Sequence[int], fill: Fill = 0
) -> NDArray[Scalar]:
    """Return a copy of the box of ``size`` at ``start`` from the last axes of ``image``.

    Parts outside the image hold ``fill``, a number or one per leading index (channels,); "edge" repeats its border.
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
        part: NDArray[Any] = image[tuple(inside)]
        return part if isinstance(image, MappedImage) else np.array(part, order="C")  # which is a copy already
    if isinstance(fill, str):
        around = [(0, 0)] * lead + [(t.start, want - t.stop) for t, want in zip(target[lead:], size, strict=True)]
        return np.pad(image[tuple(inside)], around, mode="edge")
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


def best_classes(scores: Array) -> NDArray[np.uint8]:
    """Return the class with the largest of the scores (classes, *spatial), the first of several that are equal.

    >>> best_classes(np.array([[1, 2, 3], [1, 5, 0]], np.float32)).tolist()
    [0, 1, 0]
    """
    found = np.zeros(scores.shape[1:], np.uint8)
    best = scores[0]
    for number in range(1, len(scores)):  # NumPy's own argmax takes many times as long along the first axis
        wins = scores[number] > best
        found[wins] = number
        best = np.where(wins, scores[number], best) if number + 1 < len(scores) else best
    return found


def _check_patch(image: Array | MappedImage, patch: Sequence[int]) -> None:
    if not patch or len(patch) != image.ndim - 1:
        raise ShapeError(
            f"sliding_window: patch {patch} has {len(patch)} sizes but the image {image.shape} has "
            f"{image.ndim - 1} spatial axes. Give one size per axis."
        )
    if 0 in image.shape:
        raise ShapeError(
            f"sliding_window: image is {image.shape}, which has an empty axis; expected voxels and channels."
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


def blend_slabs(
    call: Call, image: Array | MappedImage, tiling: Tiling, on_tile: OnTile | None = None
) -> Iterator[tuple[int, Array]]:
    """Yield (first slice, logits (classes, slices, *rest)) along the first spatial axis, in order.

    Arguments and errors as of :func:`blend_parts`. A slab has at most ``MOST_IN_MEMORY`` bytes, or one slice, and may
    be overwritten once the next one is asked for.
    """
    slab: Array | FileArray | None = None
    for (first, *rest), values in blend_parts(call, image, tiling, on_tile):
        if values.shape[2:] == image.shape[2:]:
            yield first.start, values
            continue
        wanted = (*values.shape[:2], *image.shape[2:])
        slab = slab if slab is not None and slab.shape == wanted else new_array(wanted, values.dtype)
        place = (slice(None), slice(None), *rest)
        slab[place] = values
        if all(part.stop == side for part, side in zip(rest, image.shape[2:], strict=True)):  # the last of its layer
            step = max(1, MOST_IN_MEMORY * wanted[1] // max(1, slab.nbytes))
            for low in range(0, wanted[1], step):
                yield first.start + low, slab[:, low : low + step]


def blend_parts(
    call: Call, image: Array | MappedImage, tiling: Tiling, on_tile: OnTile | None = None
) -> Iterator[tuple[tuple[slice, ...], Array]]:
    """Yield (box of the image, logits (classes, *box)); the boxes cover the image once.

    Memory is that of a tile: sums that wait for tiles of the next row or layer lie in a file where they are larger than
    ``MOST_IN_MEMORY``. A part may be overwritten once the next one is asked for.

    Args:
        call, image, tiling: as of :func:`sliding_window`.
        on_tile: called with the number of tiles done and of all tiles (default: nobody asks).
    """
    size, patch = image.shape[1:], tiling.patch
    _check_patch(image, patch)
    starts = [tile_starts(have, want, tiling.overlap, tiling.blend) for have, want in zip(size, patch, strict=True)]
    padded = [max(have, want) for have, want in zip(size, patch, strict=True)]
    before = [(p - s) // 2 for p, s in zip(padded, size, strict=True)]
    filtered, half = tiling.blend in ("filter", "filter_float32"), tiling.blend == "filter"
    blended = filtered or any(len(axis) > 1 for axis in starts)  # a single tile has the network's own numbers
    counted = filtered or (blended and tiling.blend == "gaussian")  # weights that are no product over axes
    curve = _CURVES[tiling.blend]
    weight: list[NDArray[Any]] = [
        curve(side) if len(axis) > 1 or counted else _flat(side) for side, axis in zip(patch, starts, strict=True)
    ]
    total = [_sums(axis, w, side) for axis, w, side in zip(starts, weight, padded, strict=True)]
    inner = functools.reduce(np.multiply.outer, weight)
    if counted:
        inner = _round(inner, half) if filtered else np.maximum(inner, np.float32(max(inner.min(), _LEAST_WEIGHT)))
    axes = [_steps(axis, side) for axis, side in zip(starts, patch, strict=True)]
    tiles = list(itertools.product(*axes))
    sums: _Sums | None = None
    for group in range(0, len(tiles), tiling.batch):
        chosen = tiles[group : group + tiling.batch]
        found = _tile_logits(call, image, tiling, before, [[step.start for step in tile] for tile in chosen])
        for done, (tile, values) in enumerate(zip(chosen, found, strict=True), start=group + 1):
            if on_tile is not None:
                on_tile(done, len(tiles))
            if blended:
                values = values * inner
                if counted:  # the weights are summed as one more class
                    values = np.concatenate([values, inner[None]])
                sums = sums or _Sums(len(values), patch, padded, axes, np.float16 if half else np.float32)
                values = sums.add(tile, values)
            box, taken = [], []
            for step, edge, side in zip(tile, before, size, strict=True):
                low, high = max(step.start, edge), min(step.start + step.ready, edge + side)
                box.append(slice(low - edge, high - edge))
                taken.append(slice(low - step.start, high - step.start))
            if any(span.start >= span.stop for span in taken):
                continue
            inside = (slice(None), *taken)
            part = values[inside]
            if counted:
                part = np.divide(part[:-1], part[-1:], dtype=np.float32)
                part = part.astype(np.float16) if half else part
            elif blended:  # tiles lie on a grid and their weights are products over axes: so is the sum of weights
                for axis, (weights, step, span) in enumerate(zip(total, tile, taken, strict=True)):
                    shares = weights[step.start + span.start : step.start + span.stop]
                    part /= shares.reshape(-1, *(1 for _ in range(part.ndim - 2 - axis)))
            yield tuple(box), part


class _Step(NamedTuple):
    """The place of a tile along one axis."""

    start: int
    moved: int  # distance from the tile before, 0 for the first one
    begun: int  # how many of its positions the tile before covers too
    ready: int  # how many no tile after covers
    side: int

    @property
    def left(self) -> int:
        return self.side - self.ready


def _steps(starts: Sequence[int], side: int) -> list[_Step]:
    ends = [*starts[1:], starts[-1] + side]
    moved = [0, *(b - a for a, b in itertools.pairwise(starts))]
    return [
        _Step(start, m, side - m if m else 0, end - start, side)
        for start, m, end in zip(starts, moved, ends, strict=True)
    ]


def _box(lead: tuple[slice, ...], count: int, ends: Sequence[tuple[int, int]]) -> tuple[slice, ...]:
    return (*lead, slice(0, count), *(slice(*each) for each in ends))


class _Sums:
    """Weighted sums of logits where tiles overlap, while tiles come in order, the last axis fastest.

    What a tile leaves unfinished along the last axis stays in ``tile``. Along every other axis it goes to that axis's
    ``waiting`` array and comes back with the tile that covers it next. The additions and their order are those of one
    array of the image's size.

    Args:
        classes: number of logits.
        patch: sizes of a tile.
        size: sizes of the image, padded.
        axes: places of tiles along each axis.
        dtype: type of the sums.
    """

    def __init__(
        self, classes: int, patch: Sequence[int], size: Sequence[int], axes: Sequence[list[_Step]], dtype: Any
    ) -> None:
        self.tile: Array = np.zeros((classes, *patch), dtype)
        self.waiting: list[Array | FileArray] = []
        for axis in range(len(patch) - 1):
            shape = (classes, *patch[:axis], max(step.left for step in axes[axis]), *size[axis + 1 :])
            # The axes after the one that waits lie outermost: a tile's box is then a few long pieces of a file.
            self.waiting.append(new_array(shape, dtype, [*range(axis + 2, len(shape)), *range(axis + 2)]))

    def add(self, tile: Sequence[_Step], values: Array) -> Array:
        """Add a tile's weighted logits and return its sums, of which the first ``ready`` positions are complete."""
        last = tile[-1]
        kept = last.begun
        self.tile[..., :kept] = self.tile[..., last.moved : last.moved + kept].copy()
        self.tile[..., kept:] = 0
        for axis, waiting in enumerate(self.waiting):  # what earlier rows and layers have left there
            lead, count, after = (slice(None),) * (axis + 1), tile[axis].begun, tile[axis + 1 :]
            if count:
                place = (*lead, slice(0, count), *(slice(step.begun, step.side) for step in after))
                ends = [(step.start + step.begun, step.start + step.side) for step in after]
                self.tile[place] = waiting[_box(lead, count, ends)]
        self.tile += values
        for axis, waiting in enumerate(self.waiting):
            lead, step, after = (slice(None),) * (axis + 1), tile[axis], tile[axis + 1 :]
            if step.left:
                place = (*lead, slice(step.ready, step.side), *(slice(0, other.ready) for other in after))
                ends = [(other.start, other.start + other.ready) for other in after]
                waiting[_box(lead, step.left, ends)] = self.tile[place]
        return self.tile


def _tile_logits(
    call: Call, image: Array | MappedImage, tiling: Tiling, before: Sequence[int], corners: Sequence[Sequence[int]]
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


_LEAST_WEIGHT = 1e-3  # lone corners keep float32 accuracy


def _flat(side: int) -> Array:
    return np.ones(side, np.float32)


def _bell(side: int) -> Array:
    """Gaussian weights along one axis of a tile, none below the least weight."""
    place = (np.arange(side) - (side - 1) / 2) / (side / 8)
    return np.maximum(np.exp(-0.5 * place * place), _LEAST_WEIGHT).astype(np.float32)


def _gaussian(side: int) -> Array:
    """Gaussian weights along one axis of a tile, as MONAI's; their product over axes has a least weight."""
    place = np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2)
    return np.asarray(np.exp(place**2 / np.float32(-2 * (side / 8) ** 2)), np.float32)


def _filter_response(side: int) -> NDArray[np.float64]:
    """Return the answer of a Gaussian filter of σ = side/8, cut off at 4 σ, to the middle voxel; 1 at its largest."""
    reach = int(side / 2 + 0.5)
    place = np.arange(side) - side // 2
    return np.where(abs(place) <= reach, np.exp(-0.5 * np.square(place / (side / 8))), 0)


_CURVES: dict[Blend, Callable[[int], NDArray[Any]]] = {
    "bell": _bell, "filter": _filter_response, "filter_float32": _filter_response, "constant": _flat,
    "gaussian": _gaussian,
}  # fmt: skip


def _round(weights: NDArray[np.float64], half: bool) -> Array:
    """Return weights above 0 as nnU-Net's, whose maps agree to the last voxel: of at most 10 in float16, or of 1."""
    rounded = (10 * weights).astype(np.float16) if half else weights.astype(np.float32)
    rounded[rounded == 0] = rounded[rounded > 0].min()
    return rounded.astype(np.float32)


def _sums(starts: list[int], weight: Array, size: int) -> Array:
    total = np.zeros(size, np.float64)
    for start in starts:
        total[start : start + len(weight)] += weight
    return total.astype(np.float32)
