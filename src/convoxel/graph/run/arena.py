"""Offsets of buffers in the arena: best fit by lifetime.

Buffers are placed one after another. Each goes into the smallest gap that holds it among the buffers that live at the
same time, or behind them all. Buffers that live when most memory is in use come first, since there is least room; the
result is nearly always the smallest arena possible. No single order always gives that, so others are tried until one
needs no more than is in use at once, and the smallest arena is kept.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from typing import NamedTuple

_MOST_PAIRS = 2**20  # of blocks that live at one time; networks have a few for each block
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
    rivals = _rivals(blocks)
    if rivals is None:
        return _sweep(blocks)
    best: tuple[dict[str, int], int] | None = None
    crowds = _crowds(blocks)
    for order in _ORDERS:
        ordered = sorted(blocks, key=lambda name: order(blocks[name], crowds[name]))
        found = _place(ordered, blocks, rivals)
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


def _rivals(blocks: Mapping[str, Block]) -> dict[str, list[str]] | None:
    """Return, for every block, those that live at some time of its life; None for more pairs than ``_MOST_PAIRS``."""
    rivals: dict[str, list[str]] = {name: [] for name in blocks}
    alive: list[tuple[int, str]] = []  # a heap by the step of death
    pairs = 0
    for name in sorted(blocks, key=lambda name: blocks[name].first):
        while alive and alive[0][0] < blocks[name].first:
            heapq.heappop(alive)
        pairs += len(alive)
        if pairs > _MOST_PAIRS:
            return None
        for _, other in alive:
            rivals[name].append(other)
            rivals[other].append(name)
        heapq.heappush(alive, (blocks[name].last, name))
    return rivals


def _place(
    names: Iterable[str], blocks: Mapping[str, Block], rivals: Mapping[str, Iterable[str]]
) -> tuple[dict[str, int], int]:
    """Return the offsets of the blocks, placed in the order of ``names``, and the size of their arena."""
    offsets: dict[str, int] = {}
    arena = 0
    for name in names:
        size = _aligned(blocks[name].size)
        taken = ((offsets[other], offsets[other] + _aligned(blocks[other].size))
                 for other in rivals[name] if other in offsets)  # fmt: skip
        offsets[name] = _best_gap(sorted(taken), size)
        arena = max(arena, offsets[name] + size)
    return offsets, arena


def _sweep(blocks: Mapping[str, Block]) -> tuple[dict[str, int], int]:
    """Return offsets and arena of very many blocks: placed by birth, each in the room that a dead
    block of its size has left, else behind all others. That takes no search.
    """
    offsets: dict[str, int] = {}
    free: dict[int, list[int]] = {}
    alive: list[tuple[int, str]] = []
    arena = 0
    for name in sorted(blocks, key=lambda name: blocks[name].first):
        while alive and alive[0][0] < blocks[name].first:
            dead = heapq.heappop(alive)[1]
            free.setdefault(_aligned(blocks[dead].size), []).append(offsets[dead])
        size = _aligned(blocks[name].size)
        room = free.get(size)
        offsets[name] = room.pop() if room else arena
        arena = max(arena, offsets[name] + size)
        heapq.heappush(alive, (blocks[name].last, name))
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
