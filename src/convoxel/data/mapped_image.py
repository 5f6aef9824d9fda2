"""Images that stay in their files: parts are read when they are asked for, as float32 and scaled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoxel.files.values import Array

_SLAB = 1 << 20  # values; a slab is at least one index of the first axis of space


@dataclass(frozen=True)
class MappedImage:
    """An image (channels, *spatial) in a file. Slices give float32 arrays, with the numbers of the whole image read.

    Attributes:
        stored: the values as stored, mapped, channels first.
        slope, intercept: of the format's scaling; (1, 0) for none.
    """

    stored: Array
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (channels, *spatial)."""
        return self.stored.shape

    @property
    def ndim(self) -> int:
        """Return the number of axes."""
        return self.stored.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return float32."""
        return np.dtype(np.float32)

    def __getitem__(self, place: tuple[slice, ...]) -> NDArray[np.float32]:
        values = self.stored[place]
        with np.errstate(all="ignore"):  # what overflows becomes infinite, which the check of the values reports
            if (self.slope, self.intercept) != (1.0, 0.0):
                values = values * self.slope + self.intercept
            return np.array(values, dtype=np.float32, order="C")


def slabs(image: Array | MappedImage) -> Iterator[Array]:
    """Yield an image (channels, *spatial) in parts of about a million values along its first axis of space.

    The parts depend on the shape alone, so sums over them have the same bits however the image is read.
    """
    step = max(1, _SLAB // max(1, int(np.prod(image.shape[2:], dtype=np.int64)) * image.shape[0]))
    for first in range(0, image.shape[1], step):
        yield image[slice(None), first : first + step]
