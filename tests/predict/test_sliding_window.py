"""Tiles: they cover, blend to the right numbers, and leave slab by slab."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from convoxel.errors import ShapeError
from convoxel.predict.sliding_window import Tiling, blend_slabs, cut, join_slabs, sliding_window, tile_starts
from convoxel.train.training_patch import draw_start, find_centres

pytestmark = pytest.mark.smoke

Array = NDArray[np.float32]


def slow_window(call: Any, image: Array, patch: tuple[int, ...], overlap: float) -> Array:
    """The definition, in double precision: pad, add every tile times its weights, divide by the summed weights."""
    size = image.shape[1:]
    before = [max(0, want - have) // 2 for have, want in zip(size, patch, strict=True)]
    after = [max(0, want - have) - b for have, want, b in zip(size, patch, before, strict=True)]
    padded = np.pad(image, [(0, 0), *zip(before, after, strict=True)]).astype(np.float64)
    grid = [tile_starts(have, want, overlap) for have, want in zip(padded.shape[1:], patch, strict=True)]
    weight = np.ones(())
    for side, starts in zip(patch, grid, strict=True):
        place = (np.arange(side) - (side - 1) / 2) / (side / 8)
        bell = np.maximum(np.exp(-0.5 * place**2), 1e-3) if len(starts) > 1 else np.ones(side)
        weight = weight[..., None] * bell
    total, sums = np.zeros((2, *padded.shape[1:])), np.zeros(padded.shape[1:])
    for corner in itertools.product(*grid):
        box = tuple(slice(c, c + p) for c, p in zip(corner, patch, strict=True))
        total[(slice(None), *box)] += call(padded[(slice(None), *box)][None])[0] * weight
        sums[box] += weight
    inside = tuple(slice(b, b + s) for b, s in zip(before, size, strict=True))
    return (total / sums)[(slice(None), *inside)]


def two_classes(x: Any) -> Any:
    """Depends on the place in the tile, so wrong blending shows."""
    ramp = np.arange(x.shape[-1]) / x.shape[-1]
    return np.concatenate([x[:, :1] * 2 + ramp, -x[:, :1] + ramp**2], axis=1).astype(x.dtype)


@settings(max_examples=40, deadline=None)
@given(
    size=st.lists(st.integers(1, 11), min_size=1, max_size=3),
    data=st.data(),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.75]),
    batch=st.integers(1, 3),
)
def test_blending_equals_its_definition(size: list[int], data: Any, overlap: float, batch: int) -> None:
    patch = tuple(data.draw(st.integers(1, 8)) for _ in size)
    image = np.random.default_rng(0).normal(size=(1, *size)).astype(np.float32)
    found = sliding_window(two_classes, image, patch, overlap, batch)
    wanted = slow_window(two_classes, image, patch, overlap)
    assert found.dtype == np.float32 and np.isfinite(found).all()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    slabs = blend_slabs(two_classes, image, Tiling(patch, overlap, batch))
    classes = join_slabs(((start, slab.argmax(axis=0)[None]) for start, slab in slabs), size[0])
    assert (classes[0] == found.argmax(axis=0)).all()


def test_a_single_tile_gives_the_networks_own_numbers() -> None:
    image = np.random.default_rng(1).normal(size=(2, 5, 7)).astype(np.float32)
    assert (sliding_window(lambda x: x, image, (8, 8)) == image).all()


def test_padding_holds_the_fill() -> None:
    seen: list[Array] = []

    def call(x: Array) -> Array:
        seen.append(x)
        return x

    sliding_window(call, np.ones((2, 2, 2), np.float32), (4, 4), fill=np.array([5.0, 7.0]))
    assert seen[0][0, 0, 0, 0] == 5.0 and seen[0][0, 1, 3, 3] == 7.0
    assert seen[0].sum() == 2 * 4 + 12 * 5 + 12 * 7


def test_slabs_leave_early_in_order_and_once() -> None:
    image = np.zeros((1, 40, 6, 6), np.float32)
    calls = 0

    def call(x: Array) -> Array:
        nonlocal calls
        calls += 1
        return x

    slabs = blend_slabs(call, image, Tiling((8, 4, 4), 0.5))
    start, first = next(slabs)
    assert start == 0 and first.shape[1] == 4 and calls == 4  # one layer of 2 × 2 tiles, not all nine
    covered = [start + k for k in range(first.shape[1])]
    for start, slab in slabs:
        covered += [start + k for k in range(slab.shape[1])]
    assert covered == list(range(40))


def test_no_nan_from_buffers() -> None:
    image = np.full((1, 9, 9), 3.0, np.float32)
    assert np.allclose(sliding_window(lambda x: x, image, (4, 4), 0.5), 3.0)


def test_wrong_patch_and_wrong_call_are_named() -> None:
    image = np.zeros((1, 8, 8), np.float32)
    with pytest.raises(ShapeError, match=r"patch \(4,\) has 1 sizes but the image \(1, 8, 8\) has 2"):
        sliding_window(lambda x: x, image, (4,))
    with pytest.raises(ShapeError, match=r"call returned \(1, 1, 2, 4\) for tiles \(1, 1, 4, 4\)"):
        sliding_window(lambda x: x[:, :, :2], image, (4, 4))


def test_cut_copies_and_fills() -> None:
    image = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    image.flags.writeable = False
    inside = cut(image, (1, 1), (2, 2))
    inside[:] = 0
    assert image[0, 1, 1] == 5
    outside = cut(image, (-1, 3), (3, 2), fill=[9.0])
    assert outside.tolist() == [[[9, 9], [3, 9], [7, 9]]]
    assert cut(np.ones((2, 2), np.uint8), (-1, 0), (2, 2)).tolist() == [[0, 0], [1, 1]]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.tuples(st.integers(4, 30), st.integers(4, 30)))
def test_foreground_patches_hold_foreground(seed: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    label = np.zeros(size, np.uint8)
    label[tuple(int(rng.integers(side)) for side in size)] = 1
    centres = find_centres(label, 3)
    assert [len(voxels) for voxels in centres] == [1]
    start = draw_start(rng, size, (8, 8), centres, foreground=1.0)
    assert cut(label, start, (8, 8)).sum() == 1
    for corner, have in zip(start, size, strict=True):
        assert corner >= 0 if have >= 8 else corner <= 0


def test_patches_reach_every_place() -> None:
    rng = np.random.default_rng(0)
    starts = {draw_start(rng, (10,), (8,), [], 0.5) for _ in range(100)}
    assert starts == {(0,), (1,), (2,)}
