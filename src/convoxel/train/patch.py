"""Where training patches lie and how they are cut; NumPy only, every draw from the generator given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["cut", "draw_start", "find_centres"]

# Positions remembered per class: plenty for a uniform draw, 120 kB a class instead of the whole map.
_CENTRES = 10_000


def find_centres(label: NDArray[np.uint8], classes: int) -> list[NDArray[np.int32]]:
    """Return, for each class but the background that occurs, up to 10 000 of its voxels.

    Args:
        label: (*spatial) class numbers.
        classes: number of classes, background included.

    Returns:
        Arrays (voxels, dims), evenly spread over the class in memory order.
    """
    flat, found = label.reshape(-1), []
    for index in range(1, classes):
        places = np.flatnonzero(flat == index)
        if places.size:
            kept = places[np.linspace(0, places.size - 1, min(places.size, _CENTRES)).astype(np.int64)]
            found.append(np.stack(np.unravel_index(kept, label.shape), axis=1).astype(np.int32))
    return found


def draw_start(
    rng: np.random.Generator,
    size: Sequence[int],
    patch: Sequence[int],
    centres: list[NDArray[np.int32]],
    foreground: float,
) -> tuple[int, ...]:
    """Return the first corner of a random patch; negative where the patch exceeds the image.

    With probability ``foreground`` the patch holds a random voxel of a random class, anywhere inside
    its middle half; otherwise it lies anywhere. An axis shorter than the patch is centred.
    """
    centre = None
    if centres and rng.random() < foreground:
        voxels = centres[int(rng.integers(len(centres)))]
        centre = voxels[int(rng.integers(len(voxels)))]
    start = []
    for axis, (have, want) in enumerate(zip(size, patch, strict=True)):
        free = have - want
        if free <= 0:
            start.append(-((-free) // 2))
        elif centre is None:
            start.append(int(rng.integers(free + 1)))
        else:
            inset = want // 4 + int(rng.integers(max(1, want // 2)))
            start.append(int(np.clip(int(centre[axis]) - inset, 0, free)))
    return tuple(start)


def cut(image: NDArray[Any], start: Sequence[int], size: Sequence[int], fill: Any = 0) -> NDArray[Any]:
    """Return a copy of the box of ``size`` at ``start`` from the last axes of ``image``.

    Parts outside the image hold ``fill``, a number or one per leading index (channels,).
    """
    lead = image.ndim - len(size)
    shape = (*image.shape[:lead], *size)
    inside, target = [slice(None)] * lead, [slice(None)] * lead
    whole = True
    for first, want, have in zip(start, size, image.shape[lead:], strict=True):
        low, high = max(first, 0), min(first + want, have)
        inside.append(slice(low, high))
        target.append(slice(low - first, high - first))
        whole = whole and high - low == want
    if whole:
        return np.array(image[tuple(inside)])
    result = np.empty(shape, image.dtype)
    result[...] = np.asarray(fill, image.dtype).reshape(-1, *(1 for _ in size)) if lead else fill
    result[tuple(target)] = image[tuple(inside)]
    return result
