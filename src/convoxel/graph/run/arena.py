"""Offsets of buffers in the arena: best fit by lifetime.

Buffers are placed one after another. Each goes into the smallest gap that holds it among the buffers that live at the
same time, or behind them all. Buffers that live when most memory is in use come first, since there is least room; the
result is nearly always the smallest arena possible. No single order always gives that, so others are tried until one
needs no more than is in use at once, and the smallest arena is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from typing import NamedTuple

__all__ = ["ALIGNMENT", "Block", "place_blocks"]

ALIGNMENT = 16  # floats: 64 bytes, a cache line and an AVX-512 register


class Block(NamedTuple):
    """A buffer of ``size`` elements, in use from step ``first`` to step ``last``, both included."""

    size: int
    first: int
    last: int


def place_blocks(blocks: Mapping[str, Block]) -> tuple[dict[str, int], int]:
    """Return the offset of every block, in elements, and the size of the smallest arena found that holds them all.

    >>> place_blocks({"a": Block(32, 0, 1), "b": Block(16, 1, 2), "c": Block(20, 2, 3)})
    ({'a': 0, 'c': 0, 'b': 32}, 48)
    """
    needed = _alive(blocks.values())
    best: tuple[dict[str, int], int] | None = None
    crowds = _crowds(blocks)
    for order in _ORDERS:
        ordered = sorted(blocks, key=lambda name: order(blocks[name], crowds[name]))
        found = _place({name: blocks[name] for name in ordered})
        if best is None or found[1] < best[1]:
            best = found
        if best[1] <= needed:
            break
    assert best is not None
    return best


# By the most memory in use during a buffer's life, then by size; by size; by birth; by death, from the last.
_ORDERS: tuple[Callable[[Block, int], tuple[int, ...]], ...] = (
    lambda block, crowd: (-crowd, -block.size),
    lambda block, crowd: (-block.size,),
    lambda block, crowd: (block.first, -block.size),
    lambda block, crowd: (-block.last, -block.size),
)


def _crowds(blocks: Mapping[str, Block]) -> dict[str, int]:
    """Return, for every block, the most elements that live at any time of its life."""
    alive: Counter[int] = Counter()
    for block in blocks.values():
        for step in range(block.first, block.last + 1):
            alive[step] += _aligned(block.size)
    return {name: max(alive[step] for step in range(b.first, b.last + 1)) for name, b in blocks.items()}


def _alive(blocks: Iterable[Block]) -> int:
    """Return the most elements that live at the same time: no arena is smaller."""
    changes = sorted(
        change
        for block in blocks
        for change in ((block.first, 1, _aligned(block.size)), (block.last + 1, 0, -_aligned(block.size)))
    )
    return max(accumulate((size for *_, size in changes), initial=0))


def _place(blocks: Mapping[str, Block]) -> tuple[dict[str, int], int]:
    """Return the offsets of ``blocks``, placed in their order, and the size of their arena."""
    offsets: dict[str, int] = {}
    arena = 0
    for name, block in blocks.items():
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
