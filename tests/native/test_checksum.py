"""Checksums of memory: every change is seen, whatever reads it."""

from __future__ import annotations

import numpy as np
import pytest

from convoxel.errors import ConfigError
from convoxel.native import checksum

# Around the lines of 64 bytes and the parts of 65536 that threads share.
LENGTHS = (0, 1, 7, 8, 63, 64, 65, 127, 128, 65535, 65536, 65537, 300_001)


@pytest.fixture
def areas() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, length, np.uint8) for length in LENGTHS]


def test_one_byte_anywhere_counts(areas: list[np.ndarray]) -> None:
    before = checksum(areas)
    generator = np.random.default_rng(1)
    for area in areas:
        places = {0, len(area) - 1, *generator.integers(0, max(len(area), 1), 40).tolist()} if len(area) else ()
        for place in places:
            kept, area[place] = area[place], area[place] ^ generator.integers(1, 256)
            assert checksum(areas) != before, f"byte {place} of {len(area)}"
            area[place] = kept
    assert checksum(areas) == before


def test_threads_do_not_count(areas: list[np.ndarray]) -> None:
    assert len({checksum(areas, threads) for threads in (1, 2, 3, 7, None)}) == 1


def test_changes_that_sums_would_not_see() -> None:
    numbers = np.random.default_rng(0).standard_normal(50_000, np.float32)
    found = {checksum([numbers.view(np.uint8)])}
    for number, change in enumerate(
        (
            lambda x: np.negative(x, x),  # every sign bit
            lambda x: np.negative(x[::16], x[::16]),
            lambda x: x.__setitem__([0, 16], x[[16, 0]]),
            lambda x: x.__setitem__(slice(0, 32768), np.roll(x[:32768], 16)),
            lambda x: x.fill(0),
            lambda x: x.__setitem__(0, -0.0),
        )
    ):
        change(numbers)
        found.add(checksum([numbers.view(np.uint8)]))
        assert len(found) == number + 2


def test_where_areas_end_counts() -> None:
    zeros = np.zeros(200_000, np.uint8)
    divided = ([zeros], [zeros[:65536], zeros[65536:]], [zeros[:10], zeros[10:]], [zeros, zeros[:0]], [zeros[1:]], [])
    assert len({checksum(areas) for areas in divided}) == len(divided)


def test_threads_are_checked() -> None:
    with pytest.raises(ConfigError, match="threads is 0"):
        checksum([], 0)
