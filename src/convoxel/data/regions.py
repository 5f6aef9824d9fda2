"""Overlapping classes: regions that are unions of label values, such as a whole tumour and its core.

Files hold one label value a voxel, networks find each region by itself, and metrics compare regions. The tables here
lead from one to the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convoxel.errors import ConfigError
from convoxel.files.fault import brief, plural
from convoxel.files.values import Array
from convoxel.fork import cached_property

_VALUES = 256
#: Most regions: the table from what was found to label values has 2^n entries.
MOST_REGIONS = 16


@dataclass(frozen=True)
class Regions:
    """The label values of each region, and what a label map gets where regions were found.

    Attributes:
        values: label values of each region.
        order: the value written for each region, later ones over earlier ones, as nnU-Net's ``regions_class_order``;
            None: the value that lies in exactly the regions that were found, where there is one, else that of the last
            region found.

    >>> tumour = Regions(((1, 2, 3), (2, 3), (3,)))
    >>> tumour.masks(np.array([0, 1, 3], np.uint8)).astype(int).tolist()
    [[0, 1, 1], [0, 0, 1], [0, 0, 1]]
    >>> tumour.label_map(np.array([[0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]], bool)).tolist()
    [0, 1, 2, 3]
    """

    values: tuple[tuple[int, ...], ...]
    order: tuple[int, ...] | None = None

    @property
    def known(self) -> frozenset[int]:
        """The label values of all regions."""
        return frozenset(value for region in self.values for value in region)

    @cached_property
    def classes(self) -> NDArray[np.bool_]:
        """True where a label value belongs to the background (the first row) or a region, (1 + regions, 256)."""
        table = np.zeros((1 + len(self.values), _VALUES), np.bool_)
        for row, region in zip(table[1:], self.values, strict=True):
            row[list(region)] = True
        table[0] = ~table[1:].any(axis=0)
        return table

    def masks(self, label: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Return where each region lies, (regions, *spatial), of a label map (*spatial)."""
        return np.stack([row[label] for row in self.classes[1:]])

    def label_map(self, found: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Return the label values (*spatial) where regions were found, (regions, *spatial)."""
        code = np.zeros(found.shape[1:], np.uint16)
        for place, mask in enumerate(found):
            code |= mask.astype(np.uint16) << np.uint16(place)
        return self._written[code]

    @cached_property
    def _written(self) -> NDArray[np.uint8]:
        """The label value for each combination of regions; bit k of its number says that region k was found."""
        written = self.order or tuple(_own_value(self.values, place) for place in range(len(self.values)))
        table = np.zeros(1 << len(self.values), np.uint8)
        codes = np.arange(len(table))
        for place, value in enumerate(written):
            table[(codes >> place) & 1 == 1] = value
        if self.order is None:
            for value in sorted(self.known, reverse=True):  # of several values in the same regions the least
                table[sum(1 << place for place, region in enumerate(self.values) if value in region)] = value
        return table

    def drawn(self, label: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return numbers (*spatial) for a picture of a label map: 1 + the place of a voxel's last region, or 0."""
        numbers = np.arange(len(self.classes), dtype=np.uint8)[:, None]
        return np.asarray((self.classes * numbers).max(axis=0)[label])

    def value_names(self, classes: Sequence[str]) -> tuple[str, ...]:
        """Return a name for each label value 0 … highest, as files of labels have them.

        Args:
            classes: names of the background and of each region.

        >>> Regions(((1, 2), (2,))).value_names(("background", "tumour", "core"))
        ('background', 'tumour', 'core')
        """
        table = self.classes[1:]
        return (classes[0], *(
            " + ".join(classes[1 + place] for place in _innermost(table[:, value])) or f"value {value}"
            for value in range(1, max(self.known) + 1)
        ))  # fmt: skip

    def describe(self, classes: Sequence[str]) -> str:
        """Return each region with its label values, and what is written, in words.

        >>> Regions(((1, 2), (2,)), (1, 2)).describe(("background", "tumour", "core"))
        'tumour = 1 + 2, core = 2; label maps hold 1, 2 where they are found, later ones over earlier ones'
        """
        listed = ", ".join(
            f"{name} = {' + '.join(map(str, region))}" for name, region in zip(classes[1:], self.values, strict=True)
        )
        if self.order is None:
            return f"{listed}; label maps hold the value whose regions are those found, else that of the last one found"
        written = ", ".join(map(str, self.order))
        return f"{listed}; label maps hold {written} where they are found, later ones over earlier ones"


def _own_value(values: Sequence[Sequence[int]], place: int) -> int:
    """Return the least value of a region that lies in no later one; the least of all where every one does."""
    later = {value for region in values[place + 1 :] for value in region}
    return min(set(values[place]) - later or values[place])


def _innermost(held: NDArray[np.bool_]) -> list[int]:
    """Return the last of the regions that hold a value."""
    return [int(place) for place in np.flatnonzero(held)[-1:]]


def plan_regions(stated: Mapping[str, object], order: Sequence[object] | None = None) -> tuple[list[str], Regions]:
    """Return the names of regions, the background first, and their values, from what was stated.

    Args:
        stated: label value or values of each region by name.
        order: value written for each region (default None).

    Raises:
        ConfigError: a region has no values, or one outside 1 … 254; there are more than 16; two are equal; or ``order``
            is not one value a region.

    >>> plan_regions({"tumour": [1, 2], "core": 2})[0]
    ['background', 'tumour', 'core']
    """
    values = []
    for name, given in stated.items():
        held = given if isinstance(given, list | tuple) else [given]
        if not held or not all(isinstance(v, int) and not isinstance(v, bool) and 0 < v < _VALUES - 1 for v in held):
            raise ConfigError(
                f"regions: {brief(name)} is {brief(given, 40)}; expected its label values, whole numbers from 1 to 254"
            )
        values.append(tuple(sorted(set(held))))
    if not 1 <= len(values) <= MOST_REGIONS:
        raise ConfigError(f"regions: got {plural(len(values), 'region')}; expected 1 to {MOST_REGIONS}")
    if len(set(values)) < len(values):
        raise ConfigError("regions: two of them have the same label values; expected regions that differ. Drop one")
    if order is not None and (
        len(order) != len(values)
        or not all(isinstance(v, int) and not isinstance(v, bool) and 0 < v < _VALUES - 1 for v in order)
    ):
        raise ConfigError(
            f"regions_class_order: got {brief(list(order), 40)}; expected a label value for each of the "
            f"{plural(len(values), 'region')}"
        )
    written = None if order is None else tuple(int(str(value)) for value in order)
    return ["background", *stated], Regions(tuple(values), written)


def count_classes(label: Array, classes: int, regions: Regions | None) -> NDArray[np.int64]:
    """Return the voxels of each class in a label map; of regions with the background first.

    >>> count_classes(np.array([0, 1, 2, 2], np.uint8), 3, Regions(((1, 2), (2,)))).tolist()
    [1, 3, 2]
    """
    flat, step = np.ravel(label, order="K"), 1 << 20  # counted piece by piece: a count takes eight bytes a voxel
    size = _VALUES if regions else classes
    pieces = (flat[first : first + step] for first in range(0, flat.size, step))
    counts = sum((np.bincount(piece, minlength=size)[:size] for piece in pieces), np.zeros(size, np.int64))
    if regions is None:
        return counts
    counts[_VALUES - 1] = 0  # what is ignored
    return np.asarray(regions.classes.astype(np.int64) @ counts)
