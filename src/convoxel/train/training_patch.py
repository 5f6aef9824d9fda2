"""Positions of training patches. NumPy only; every random number comes from the given generator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int32]  # (voxels, dims)
# Positions remembered per class: plenty for a uniform draw, 120 kB a class instead of the whole map.
_CENTRES = 10_000


def find_centres(label: NDArray[np.uint8], classes: int) -> list[Places]:
    """Return up to 10 000 voxels of each class that occurs, the background left out.

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
    rng: np.random.Generator, size: Sequence[int], patch: Sequence[int], centres: list[Places], foreground: float
) -> tuple[int, ...]:
    """Return the first corner of a random patch; negative where the patch exceeds the image.

    With probability ``foreground`` the patch holds a random voxel of a random class within its middle half; otherwise
    its place is uniform. An axis shorter than the patch is centred.
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
