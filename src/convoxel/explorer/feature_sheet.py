"""Feature maps as one picture: a tile for each channel, in colours that rise from violet to yellow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from convoxel.draw.theme import colour
from convoxel.files.values import Array

GAP = 3  # pixels between tiles
_SHOWN = 256  # channels of a layer
_TILE, _LARGEST, _STRIP = 96, 224, 18  # pixels: side of a tile, of one among few, and height of a signal's


@dataclass(frozen=True)
class Sheet:
    """The place of each channel in a picture of all.

    Attributes:
        first, count: channels.
        columns: tiles in a row.
        tile: rows and columns of a map.
        scale: pixels of a position along both.
    """

    first: int
    count: int
    columns: int
    tile: tuple[int, int]
    scale: tuple[int, int]

    @classmethod
    def of(cls, shape: Sequence[int], first: int, room: int) -> Sheet:
        """Return the sheet of maps (channels, rows, columns)."""
        channels, rows, columns = shape
        count = min(channels - first, _SHOWN)
        side = max(_TILE, min(_LARGEST, 2 * room // max(count, 1)))  # few maps fill about two rows
        scale = max(1, side // max(rows, columns))
        scales = (_STRIP, max(1, room // columns)) if rows == 1 else (scale, scale)
        across = max(1, min(count, (room + GAP) // (columns * scales[1] + GAP)))
        return cls(first, count, across, (rows, columns), scales)


@cache
def _ramp() -> Array:
    """Return the colours of 256 values, from violet to yellow."""
    return np.array([colour(f"ramp:{value / 255:.4f}", dark=True) for value in range(256)], np.uint8)


def coloured(values: Array, low: float, high: float) -> Array:
    """Return values as colours (*shape, 3); what is not finite is black."""
    share = (values.astype(np.float64) - low) / ((high - low) or 1.0)
    shades = np.nan_to_num(np.clip(share * 255, 0, 255)).astype(np.uint8)
    pixels: Array = _ramp()[shades]
    pixels[~np.isfinite(values)] = 0
    return pixels


def draw_tile(values: Array, ends: tuple[float, float], place: Sheet) -> Array:
    return np.repeat(np.repeat(coloured(values, *ends), place.scale[0], axis=0), place.scale[1], axis=1)


def join_tiles(tiles: Sequence[Array], columns: int) -> Array:
    """Return tiles side by side; what lies between them shows the page."""
    tall, wide = tiles[0].shape[:2]
    rows = -(-len(tiles) // columns)
    whole = np.zeros((rows * (tall + GAP) - GAP, columns * (wide + GAP) - GAP, 4), np.uint8)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        y, x = row * (tall + GAP), column * (wide + GAP)
        whole[y : y + tall, x : x + wide, :3] = tile
        whole[y : y + tall, x : x + wide, 3] = 255
    return whole
