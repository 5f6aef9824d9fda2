"""Sizes of patches and tiles: those that a network takes, as large as memory and the image allow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

# One tile of a prediction: larger than a patch because nothing is kept for a backward pass, and larger
# tiles overlap less. 96³ voxels × 48 float32 channels ≈ 170 MB at the widest place of a 16-wide U-Net.
_TILE_VOXELS = {1: 1 << 20, 2: 1024 * 1024, 3: 96 * 96 * 96}
_UNBOUNDED = 1 << 62


class InputSizes(NamedTuple):
    """The sizes that a network takes: ``least + n · multiple`` along each axis.

    Attributes:
        multiple, least: numbers of pixels, for every axis or one an axis (default 1).
        border: pixels at each side of the input for which there is no output, by axis; empty: none.
    """

    multiple: int | tuple[int, ...] = 1
    least: int | tuple[int, ...] = 1
    border: tuple[int, ...] = ()

    def inner(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the size of the output for an input of ``size``."""
        return tuple(side - 2 * edge for side, edge in zip(size, self.border or (0,) * len(size), strict=True))

    def around(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the size of the input for an output of ``size``."""
        return tuple(side + 2 * edge for side, edge in zip(size, self.border or (0,) * len(size), strict=True))

    def of(self, axis: int) -> tuple[int, int]:
        """Return the least size of an axis, and the step between sizes."""
        least, multiple = (each if isinstance(each, int) else each[axis] for each in (self.least, self.multiple))
        return least, multiple

    def above(self, side: int, axis: int) -> int:
        """Return the smallest size of an axis that the network takes and that is not below ``side``."""
        least, multiple = self.of(axis)
        return least + max(0, -(-(side - least) // multiple)) * multiple


def plan_patch(
    size: Sequence[int], sizes: InputSizes, voxels: int = _UNBOUNDED, spacing: Sequence[float] | None = None
) -> tuple[int, ...]:
    """Return a patch that covers ``size`` if ``voxels`` allow, else one as near to a cube as fits.

    Args:
        size: spatial size of the image, in voxels.
        sizes: the sizes that the network takes.
        voxels: most voxels of the patch, borders not counted (default unbounded); the longest side is shortened first.
        spacing: distance between voxels along each axis, in which sides are compared (default: equal).

    >>> plan_patch((36, 50, 36), InputSizes(8, 8), 48**3)
    (40, 56, 40)
    >>> plan_patch((197, 140, 189), InputSizes(4, 4), 48**3)
    (48, 48, 48)
    >>> plan_patch((24, 320, 320), InputSizes((2, 8, 8), (2, 8, 8)), 40**3, (3.6, 0.6, 0.6))
    (12, 72, 72)
    """
    steps = spacing or (1.0,) * len(size)
    patch = [sizes.above(side, axis) for axis, side in enumerate(size)]
    while math.prod(sizes.inner(patch)) > voxels:
        longer = [axis for axis, side in enumerate(patch) if side > sizes.of(axis)[0]]
        if not longer:
            break
        longest = max(longer, key=lambda axis: patch[axis] * steps[axis])
        patch[longest] -= sizes.of(longest)[1]
    return tuple(patch)


def plan_tile(size: Sequence[int], patch: Sequence[int], sizes: InputSizes) -> tuple[int, ...]:
    """Return the tile in which an image of ``size`` is predicted: the whole image, or as much as memory allows.

    Args:
        size: spatial size of the image, in voxels.
        patch: training patch; a tile is never smaller, or the network would miss context that it has learned.
        sizes: the sizes that the network takes.
    """
    limit = max(_TILE_VOXELS[len(size)], math.prod(patch))
    wanted = sizes.around(size)
    whole, tile = plan_patch(wanted, sizes), plan_patch(wanted, sizes, limit)
    least = [sizes.above(side, axis) for axis, side in enumerate(patch)]
    return tuple(max(side, min(want, full)) for side, want, full in zip(tile, least, whole, strict=True))
