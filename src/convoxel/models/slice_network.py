"""Volumes through a network for planes: slice by slice, the neighbouring slices as further channels (2.5-D)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from convoxel.errors import ConfigError
from convoxel.models.backbone import Network, Output, check_count
from convoxel.models.levels import LevelNetwork


class SliceNetwork(Network):
    """A network for volumes that computes each slice by a network for planes.

    The planar network sees a slice with ``context`` neighbours at either side as channels: all channels of the first
    slice, then those of the next. The outermost ``context`` slices of an input are neighbours alone, so the output
    lacks them.

    Args:
        planar: network with dims=2 and channels × (2 · context + 1) input channels.
        channels: channels of the volume.
        context: neighbouring slices at either side.
        axis: spatial axis across which slices follow each other (default 0).

    Attributes:
        borders: slices and pixels that the output lacks at each side of the input, by axis.
        multiples, minimums: the sizes that fit are ``minimum + n · multiple``, by axis.

    >>> from convoxel.models import build
    >>> net = SliceNetwork(build("unet", dims=2, in_channels=3, levels=2, width=4), 1, 1, axis=2)
    >>> net(torch.zeros(1, 1, 8, 12, 5)).shape
    torch.Size([1, 2, 8, 12, 3])
    """

    def __init__(self, planar: Network, channels: int, context: int, axis: int = 0) -> None:
        if planar.dims != 2 or planar.in_channels != channels * (2 * context + 1):
            raise ConfigError(
                f"planar has dims={planar.dims} and in_channels={planar.in_channels}; expected dims=2 and "
                f"{channels * (2 * context + 1)}, which is channels × (2 · context + 1)."
            )
        if axis not in (0, 1, 2):
            raise ConfigError(f"axis is {axis!r}; expected 0, 1 or 2.")
        super().__init__(3, channels, planar.num_classes)
        self.planar, self.context, self.axis = planar, check_count("context", context, least=0), axis
        edges, border = list(getattr(planar, "borders", ())) or [0, 0], 2 * context + 1
        self.borders = (*edges[:axis], context, *edges[axis:])
        least = max(planar.input_minimum, planar.input_multiple)
        uniform = (planar.input_multiple,) * 2, (least,) * 2
        steps, minimums = planar.axis_sizes if isinstance(planar, LevelNetwork) else uniform
        self.multiples, self.minimums = self._each(steps, 1), self._each(minimums, border)
        self.input_multiple, self.input_minimum = planar.input_multiple, max(self.minimums)

    def _each(self, planar: Sequence[int], across: int) -> tuple[int, ...]:
        return (*planar[: self.axis], across, *planar[self.axis :])

    def compute(self, x: Tensor) -> Output:
        """Return logits ``(n, num_classes, *spatial)`` of the slices that have all their neighbours."""
        x = x.movedim(2 + self.axis, 2)
        count = x.shape[2] - 2 * self.context
        near = torch.cat([x.narrow(2, first, count) for first in range(2 * self.context + 1)], dim=1)
        size = (near.shape[0], count)
        found = self.planar(near.movedim(2, 1).flatten(0, 1))
        if isinstance(found, Tensor):
            return self._stack(found, size)
        return [self._stack(each, size) for each in found]

    def _stack(self, found: Tensor, size: tuple[int, int]) -> Tensor:
        """Return logits of slices (n · slices, classes, *plane) as those of volumes."""
        volume: Tensor = found.unflatten(0, size)
        return volume.movedim(1, 2).movedim(2, 2 + self.axis)

    def nearest_sizes(self, size: int, axis: int = 0) -> tuple[int, ...]:
        """Return the valid sizes of a spatial ``axis`` nearest to ``size``: itself, or those below and above."""
        if axis == self.axis:
            return (max(size, self.minimums[axis]),)
        return self.planar.nearest_sizes(size, axis - (axis > self.axis))

    def size_rule(self) -> str:
        """Return in words which spatial sizes are valid."""
        return f"of a slice {self.planar.size_rule()}, and {2 * self.context + 1} slices are the fewest"
