"""Where each buffer lies in the arena: best fit by lifetime.

Buffers are placed from the largest to the smallest. Each goes into the smallest gap, among the buffers that
live at the same time, that holds it, or behind them all. This greedy order is within a few percent of the
best placement on networks, and exact when one buffer dominates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["ALIGNMENT", "Block", "place_blocks"]

ALIGNMENT = 16  # floats: 64 bytes, a cache line and an AVX-512 register


class Block(NamedTuple):
    """A buffer of ``size`` elements, in use from step ``first`` to step ``last``, both included."""

    size: int
    first: int
    last: int


def place_blocks(blocks: Mapping[str, Block]) -> tuple[dict[str, int], int]:
    """Return the offset of every block, in elements, and the size of the arena that holds them all.

    >>> place_blocks({"a": Block(32, 0, 1), "b": Block(16, 1, 2), "c": Block(20, 2, 3)})
    ({'a': 0, 'c': 0, 'b': 32}, 48)
    """
    offsets: dict[str, int] = {}
    arena = 0
    for name, block in sorted(blocks.items(), key=lambda item: -item[1].size):
        size = _aligned(block.size)
        rivals = sorted(
            (offsets[other], offsets[other] + _aligned(blocks[other].size))
            for other in offsets
            if blocks[other].first <= block.last and block.first <= blocks[other].last
        )
        offsets[name] = _best_gap(rivals, size)
        arena = max(arena, offsets[name] + size)
    return offsets, arena


def _best_gap(rivals: list[tuple[int, int]], size: int) -> int:
    """Return the start of the smallest gap between ``rivals`` (sorted) that holds ``size``, or their end."""
    best, best_gap, end = -1, 0, 0
    for start, stop in rivals:
        gap = start - end
        if gap >= size and (best < 0 or gap < best_gap):
            best, best_gap = end, gap
        end = max(end, stop)
    return end if best < 0 else best


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
