"""The classes of a whole image, computed on tiles that blend nothing: bit for bit those of the whole image at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoxel.data.mapped_image import MappedImage
from convoxel.errors import ConfigError
from convoxel.fork import cached_property
from convoxel.graph.run.program import Program
from convoxel.graph.run.tiling import TILE_POSITIONS, Arena, TilePlan
from convoxel.predict.normalisation import Statistics
from convoxel.predict.sliding_window import cut
from convoxel.predict.stage_clock import stage
from convoxel.predict.tile_size import InputSizes, plan_patch

Array = NDArray[np.float32]


@dataclass(frozen=True)
class ExactTiles:
    """Predictions of whole images on exact tiles.

    Attributes:
        program: the compiled network.
        sizes: the sizes that the network takes; a whole image is padded to one of them.
        tile: size of a tile, its halo included (default: what takes about a gigabyte).
    """

    program: Program
    sizes: InputSizes
    tile: int | Sequence[int] | None = None

    @cached_property
    def direct(self) -> Program:
        """The program with direct convolutions: Winograd's tiles stay in place only with a wide halo."""
        return self.program.replace(algorithm="direct")

    def plan(self, image: Array | MappedImage, statistics: Statistics) -> ExactPass:
        """Return the tiles of an image (channels, *spatial)."""
        size = image.shape[1:]
        wide = plan_patch(self.sizes.around(size), self.sizes)
        inner = self.sizes.inner(wide)
        before = tuple((have - want) // 2 for have, want in zip(inner, size, strict=True))
        border = self.sizes.border or (0,) * len(size)
        source = _Padded(image, statistics, [-b - edge for b, edge in zip(before, border, strict=True)], wide)
        return ExactPass(self._tiling(source), source, size, before)

    def _tiling(self, source: object) -> TilePlan:
        """Return the tiles; with direct convolutions where Winograd's do not fit ``tile``, or overlap too much.

        Tiles that begin where Winograd's do may have twice the positions, together and each: more of them would take
        longer than their fewer products save, and more memory.
        """
        try:
            found = self.program.tiling(source, tile=self.tile)
        except ConfigError:
            return self.direct.tiling(source, tile=self.tile)
        if self.tile is not None:
            return found
        positions, direct = math.prod(found.tile), self.direct.tiling(source)
        fits = positions <= 2 * TILE_POSITIONS[len(found.tile)]
        return found if fits and found.count * positions <= 2 * direct.count * math.prod(direct.tile) else direct


@dataclass(frozen=True)
class ExactPass:
    """The tiles of one image.

    Attributes:
        tiling: the tiles of the padded image.
        source: that image.
        size: sizes of the image itself.
        before: padding at its beginning, by axis.
    """

    tiling: TilePlan
    source: _Padded
    size: tuple[int, ...]
    before: tuple[int, ...]

    @property
    def grid(self) -> object:
        """All that decides which boxes :meth:`parts` yields."""
        return self.tiling.image, self.tiling.core, self.tiling.counts, self.size, self.before

    def parts(self, arena: Arena) -> Iterator[tuple[tuple[slice, ...], Array]]:
        """Yield (box of the image, logits (classes, *box)), in memory for a tile; a box of padding alone is empty."""
        for ((place, logits),) in self.tiling.parts(lambda _, part: self.source[part], arena):
            inside, taken = [], []
            for part, b, length in zip(place[2:], self.before, self.size, strict=True):
                first = min(max(part.start, b), b + length)
                stop = max(first, min(part.stop, b + length))
                inside.append(slice(first - b, stop - b))
                taken.append(slice(first - part.start, stop - part.start))
            box = (slice(None), *taken)
            yield tuple(inside), logits[0][box]


class _Padded:
    """An image (channels, *spatial) as the batch that a network takes: padded and normalised where it is read."""

    def __init__(
        self, image: Array | MappedImage, statistics: Statistics, start: Sequence[int], size: Sequence[int]
    ) -> None:
        self.image, self.statistics, self.start = image, statistics, start
        self.shape = (1, image.shape[0], *size)
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, place: tuple[slice, ...]) -> NDArray[Any]:
        with stage("blend"):
            return self._normalised(place)

    def _normalised(self, place: tuple[slice, ...]) -> NDArray[Any]:
        space = place[2:]
        corner = [begin + part.start for begin, part in zip(self.start, space, strict=True)]
        values = cut(self.image, corner, [part.stop - part.start for part in space], self.statistics.floor)
        return self.statistics.normalise(values)[None, place[1]]
