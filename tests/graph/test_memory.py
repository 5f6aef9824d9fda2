"""The memory planner: no two living buffers touch, everything is aligned, and little is wasted."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convoxel.graph.run.arena import ALIGNMENT, Block, place_blocks

pytestmark = pytest.mark.smoke


def _living(blocks: dict[str, Block]) -> int:
    """The most floats that live at one time: no placement needs less."""
    steps = range(max((b.last for b in blocks.values()), default=0) + 1)
    aligned = {name: -(-block.size // ALIGNMENT) * ALIGNMENT for name, block in blocks.items()}
    return max(sum(aligned[n] for n, b in blocks.items() if b.first <= s <= b.last) for s in steps)


_blocks = st.lists(st.tuples(st.integers(1, 300), st.integers(0, 12), st.integers(0, 6)), min_size=1, max_size=20).map(
    lambda rows: {f"b{i}": Block(size, first, first + span) for i, (size, first, span) in enumerate(rows)}
)


@given(_blocks)
def test_living_buffers_are_apart(blocks: dict[str, Block]) -> None:
    offsets, arena = place_blocks(blocks)
    assert offsets.keys() == blocks.keys()
    for name, offset in offsets.items():
        assert offset % ALIGNMENT == 0
        assert offset >= 0 and offset + blocks[name].size <= arena
    for a, b in itertools.combinations(blocks, 2):
        if blocks[a].first <= blocks[b].last and blocks[b].first <= blocks[a].last:
            apart = offsets[a] + blocks[a].size <= offsets[b] or offsets[b] + blocks[b].size <= offsets[a]
            assert apart, (a, b)
    aligned = sum(-(-block.size // ALIGNMENT) * ALIGNMENT for block in blocks.values())
    assert _living(blocks) <= arena <= aligned


def test_a_chain_alternates_between_two_places() -> None:
    chain = {f"b{i}": Block(64, i, i + 1) for i in range(10)}
    offsets, arena = place_blocks(chain)
    assert arena == 128
    assert [offsets[f"b{i}"] for i in range(4)] == [0, 64, 0, 64]


def test_the_smallest_gap_that_fits_is_taken() -> None:
    # During step 1 "a" and "b" are gone: they leave gaps of 160 and 128 between the buffers that live on.
    blocks = {
        "wall 1": Block(176, 0, 2),
        "a": Block(160, 0, 0),
        "wall 2": Block(144, 0, 2),
        "b": Block(128, 0, 0),
        "wall 3": Block(121, 0, 2),
        "late": Block(120, 1, 1),
    }
    offsets, _ = place_blocks(blocks)
    assert offsets["a"] == 176 and offsets["b"] == 176 + 160 + 144
    assert offsets["late"] == offsets["b"]


def test_no_buffers() -> None:
    assert place_blocks({}) == ({}, 0)
