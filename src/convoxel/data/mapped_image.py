"""Images that are not held as float32: parts are read when they are asked for, as float32 and scaled.

What they consist of stays where it is: in the file, in its chunks, or, once inflated, in memory as stored where it is
small and in a temporary file where it is not (``files.file_array``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoxel.files.file_array import FileArray, new_array
from convoxel.files.values import Array

_SLAB = 1 << 20  # values; a slab is at least one index of its axis


@dataclass(frozen=True)
class MappedImage:
    """An image (channels, *spatial) as stored. Slices give float32 arrays, with the numbers of the whole image read.

    Attributes:
        stored: the values as stored, channels first; chunks have the shape and the slices of an array alone.
        slope, intercept: of the format's scaling; (1, 0) for none.
    """

    stored: Array | FileArray
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

    @property
    def nbytes(self) -> int:
        """Return the bytes of the values as stored."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.stored.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, place: tuple[slice, ...]) -> NDArray[np.float32]:
        return self.scaled(self.stored[place])

    def scaled(self, values: Array) -> NDArray[np.float32]:
        """Return stored values as the image's, a new array in C order."""
        with np.errstate(all="ignore"):  # what overflows becomes infinite, which the check of the values reports
            if (self.slope, self.intercept) != (1.0, 0.0):
                values = values * self.slope + self.intercept
            return np.array(values, dtype=np.float32, order="C")

    def view(self, change: Callable[[Array], Array]) -> MappedImage:
        """Return the image with axes permuted, reversed or cut by ``change``, which makes views of arrays."""
        found = self.stored.view(change) if isinstance(self.stored, FileArray) else change(self.stored)
        return replace(self, stored=found)

    def unpacked(self) -> MappedImage:
        """Return the image with values that are cheap to read again and again: chunks are unpacked once."""
        if isinstance(self.stored, np.ndarray | FileArray):
            return self
        found = new_array(self.shape, self.stored.dtype)
        for place in slab_places(self):
            found[place] = self.stored[place]
        return replace(self, stored=found)

    def is_finite(self) -> bool:
        """Return whether all values are finite; those of whole numbers are not looked at where none can be infinite."""
        if self.stored.dtype.kind in "bui":
            ends = np.iinfo(self.stored.dtype) if self.stored.dtype.kind != "b" else None
            return bool(np.isfinite(self.scaled(np.array([ends.min, ends.max] if ends else [0, 1]))).all())
        return all(np.isfinite(slab.sum(dtype=np.float64)) for slab in slabs(self))

    def value_counts(self) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]] | None:
        """Return, for each channel, the values that occur and how often; None where they are not counted at once.

        Whole numbers of at most 16 bits are: one pass over them tells everything about an image's intensities, and the
        order in which they are read does not matter.
        """
        dtype = self.stored.dtype
        if dtype.kind not in "ui" or dtype.itemsize > 2:
            return None
        ends = np.iinfo(dtype)
        counts = np.zeros((len(self), ends.max - ends.min + 1), np.int64)
        for place in slab_places(self):
            for total, values in zip(counts, np.asarray(self.stored[place]), strict=True):
                flat = values.ravel(order="K").astype(np.intp)
                flat -= ends.min
                total += np.bincount(flat, minlength=total.size)
        levels = self.scaled(np.arange(ends.min, ends.max + 1))
        return [(levels[total > 0], total[total > 0]) for total in counts]


def slab_places(image: Array | MappedImage) -> Iterator[tuple[slice, ...]]:
    """Yield the places of slabs of about a million values that cover an image (channels, *spatial).

    They lie along the axis of space whose indices are farthest apart, so that each is read in one go.
    """
    stored = image.stored if isinstance(image, MappedImage) else image
    steps = [abs(step) for step in stored.strides[1:]] if hasattr(stored, "strides") else [0]
    axis = 1 + max(range(len(steps)), key=lambda axis: (stored.shape[1 + axis] > 1, steps[axis]), default=0)
    rest = int(np.prod(stored.shape, dtype=np.int64)) // max(1, stored.shape[axis])
    count = max(1, _SLAB // max(1, rest))
    for first in range(0, stored.shape[axis], count):
        yield (*(slice(None),) * axis, slice(first, first + count))


def slabs(image: Array | MappedImage) -> Iterator[Array]:
    """Yield an image (channels, *spatial) in the parts that ``slab_places`` names."""
    for place in slab_places(image):
        yield image[place]
