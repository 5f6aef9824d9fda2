"""Offsets of buffers in the arena: best fit by lifetime, computed by the engine (``csrc/arena.cpp`` says how)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from convoxel.native import plan

ALIGNMENT = 16  # floats: 64 bytes, a cache line and an AVX-512 register


class Block(NamedTuple):
    """A buffer of ``size`` elements, in use from step ``first`` to step ``last``, both included."""

    size: int
    first: int
    last: int


def place_blocks(blocks: Mapping[str, Block]) -> tuple[dict[str, int], int]:
    """Return the offset of every block, in elements, and the size of the smallest arena found that holds them all.

    >>> place_blocks({"a": Block(32, 0, 1), "b": Block(16, 1, 2), "c": Block(20, 2, 3)})
    ({'a': 0, 'b': 32, 'c': 0}, 48)
    """
    offsets, arena = plan.place_blocks(list(blocks.values()))
    return dict(zip(blocks, offsets, strict=True)), arena
