"""Networks of several resolutions: numbers for each level and axis, and the sizes that fit their strides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

from convoxel.errors import ConfigError, ShapeError
from convoxel.models.backbone import Network, check_count

MOST_LEVELS = 16  # whose smallest size, 65536, is more than any axis of an image has
MOST_BLOCKS = 1000  # of a level
_MOST_POSITIONS = 255  # of a kernel or stride, which may be those of every channel

_T = TypeVar("_T")
#: One number for all levels, or one entry a level, itself a number or one number an axis.
PerLevel = int | Sequence[int | Sequence[int]]


class LevelNetwork(Network):
    """A network whose levels lie ``strides`` apart, axis by axis.

    Attributes:
        levels: number of steps to a coarser resolution.
        norm: name of the normalisation.
        padding: "same" keeps the spatial size; "none" loses borders.
        sizes: "check" refuses a size that is no multiple of the strides' product, "pad" takes any.
        strides: factors between levels l and l + 1, one an axis.
        multiples: product of the strides of each axis.
        least: smallest valid size of each axis.
    """

    levels: int
    norm: str
    padding: str = "same"
    sizes: str = "check"
    strides: tuple[tuple[int, ...], ...]
    multiples: tuple[int, ...]
    least: tuple[int, ...]

    @property
    def axis_sizes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Step between sizes that fit and the smallest of them, both one an axis."""
        dims = len(self.multiples)
        if self.sizes == "pad" or len({*self.multiples}) == 1:
            return (self.input_multiple,) * dims, (max(self.input_minimum, self.input_multiple),) * dims
        least = list(self.least)
        if self.norm == "instance":  # it needs two positions at the bottom: one more along the cheapest axis
            axis = min(range(dims), key=lambda axis: self.multiples[axis])
            least[axis] += self.multiples[axis]
        return self.multiples, tuple(least)

    def coarsened(self, sizes: Sequence[int], level: int) -> list[int]:
        """Return the sizes at ``level``, of which the last pixel may lie partly outside."""
        steps = [math.prod(axis) for axis in zip(*self.strides[:level], strict=True)] or [1] * len(sizes)
        return [-(-size // step) for size, step in zip(sizes, steps, strict=True)]

    def nearest_sizes(self, size: int, axis: int = 0) -> tuple[int, ...]:
        """Return the valid sizes of a spatial ``axis`` nearest to ``size``: itself, or those below and above."""
        if self.sizes == "pad":
            return (max(size, 1),)
        if not 0 <= axis < len(self.least):
            raise ConfigError(f"axis is {axis}, but the network has the spatial axes 0 to {len(self.least) - 1}.")
        least, multiple = self.least[axis], self.multiples[axis]
        below = least + (size - least) // multiple * multiple
        if size < least:
            return (least,)
        return (size,) if below == size else (below, below + multiple)

    def check_input(self, shape: tuple[int, ...]) -> None:
        """Raise ShapeError unless the network accepts inputs of ``shape`` (n, in_channels, *spatial)."""
        super().check_input(shape)
        bottom = math.prod(-(-size // multiple) for size, multiple in zip(shape[2:], self.multiples, strict=True))
        if self.padding == "none" or bottom > 1:
            return
        # One number has no variance; PyTorch would say "expected more than 1 spatial element".
        if self.norm == "instance" or (self.norm == "batch" and self.training and shape[0] == 1):
            raise ShapeError(
                f"{type(self).__name__}: x has spatial size {shape[2:]}, of which levels={self.levels} leave one "
                f"position, and norm={self.norm!r} needs two to measure a variance. "
                f"Give a larger x{'' if self.norm == 'instance' else ' or a larger batch'}, fewer levels, "
                "or norm='group'."
            )

    def size_rule(self) -> str:
        """Return in words which spatial sizes are valid."""
        if self.sizes == "pad":
            return "every size must be at least 1"
        same = len({*self.multiples}) == 1 and len({*self.least}) == 1
        multiple = self.multiples[0] if same else self.multiples
        if self.padding == "none":
            least = self.least[0] if same else self.least
            return f"every size must be {least} + {multiple} n (levels={self.levels}, padding={self.padding!r})"
        if not same:
            return f"sizes must be multiples of {multiple}, the products of strides"
        powers = all(step == 2 for stride in self.strides for step in stride)
        why = f"2 to the power of levels={self.levels}" if powers else "the product of strides"
        return f"every size must be a multiple of {multiple} ({why}) unless sizes='pad'"


def per_level(name: str, value: int | Sequence[int], count: int, most: int = 2**31 - 1) -> tuple[int, ...]:
    """Return one number a level; ``value`` may be one for all."""
    return tuple(check_count(name, entry, most=most) for entry in _repeated(name, value, count))


def _repeated(name: str, value: _T | Sequence[_T], count: int) -> Sequence[_T]:
    """Return ``value`` if it is a sequence of ``count`` entries, or the one value ``count`` times."""
    if not isinstance(value, Sequence):
        return [value] * count
    if len(value) != count:
        raise ConfigError(_wrong_length(name, len(value), count))
    return value


def per_axis(name: str, value: PerLevel, count: int, dims: int) -> tuple[tuple[int, ...], ...]:
    """Return one number an axis for each level."""
    found = []
    entries: Sequence[int | Sequence[int]] = _repeated(name, value, count)
    for entry in entries:
        sizes = tuple(entry) if isinstance(entry, Sequence) else (entry,) * dims
        if len(sizes) != dims:
            raise ConfigError(f"{name} holds {sizes}, but dims={dims} needs {dims} numbers there, or one for all axes.")
        found.append(tuple(check_count(name, size, most=_MOST_POSITIONS) for size in sizes))
    return tuple(found)


def _wrong_length(name: str, came: int, count: int) -> str:
    between = name in ("strides", "decoder_blocks")
    levels = count if between else count - 1
    which = "one a pooling" if between else "one a level and one for the bottom"
    return f"{name} has {came} entries, but levels={levels} needs {count}: {which}. Or give one number for all."
