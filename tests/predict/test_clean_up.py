"""Clean-up of label maps, against a search that walks from voxel to voxel."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from convoxel.data import Sample
from convoxel.errors import ConfigError, DataError
from convoxel.predict.clean_up import Change, CleanUp

CLASSES = ("background", "a", "b")
Labels = NDArray[np.uint8]


def sample(label: Labels, spacing: tuple[float, ...] | None = None) -> Sample:
    return Sample("image", np.zeros((1, *label.shape), np.float32), spacing_mm=spacing)


def walk(mask: NDArray[np.bool_], most: int) -> list[list[tuple[int, ...]]]:
    """Components of voxels that differ by one along at most ``most`` axes."""
    left = {tuple(map(int, place)) for place in np.argwhere(mask)}
    steps = [s for s in itertools.product((-1, 0, 1), repeat=mask.ndim) if 0 < np.abs(s).sum() <= most]
    found = []
    for place in sorted(left):
        if place not in left:
            continue
        left.discard(place)
        component, queue = [], [place]
        while queue:
            at = queue.pop()
            component.append(at)
            for step in steps:
                near = tuple(a + b for a, b in zip(at, step, strict=True))
                if near in left:
                    left.discard(near)
                    queue.append(near)
        found.append(component)
    return found


@pytest.mark.parametrize("shape", [(40,), (17, 13), (7, 9, 8)])
@pytest.mark.parametrize("words", [("all", None), (None, "3"), ("b", "a=2"), ("foreground", None)])
def test_components_are_those_of_a_walk(shape: tuple[int, ...], words: tuple[str | None, str | None]) -> None:
    rng = np.random.default_rng(len(shape))
    for _ in range(5):
        label = rng.choice(3, shape, p=[0.8, 0.1, 0.1]).astype(np.uint8)
        wanted, changes = label.copy(), {}
        keep, least = words
        masks = [label > 0] if keep == "foreground" else [label == 1, label == 2]
        for number, mask in enumerate(masks, start=1):
            parts = walk(mask, len(shape))
            limit = 3 if least == "3" else 2 if least == "a=2" and number == 1 else 0
            one = keep in ("all", "foreground") or (keep == "b" and number == 2)
            largest = max(parts, key=len)
            for part in parts:
                if len(part) < limit or (one and part is not largest):
                    for name in {CLASSES[label[place]] for place in part}:
                        changes.setdefault(name, Change()).removed += 1
                    for place in part:
                        changes[CLASSES[label[place]]].removed_voxels += 1
                        wanted[place] = 0
        found = label.copy()
        assert CleanUp.build(*words).apply(found, CLASSES, sample(label)) == changes
        np.testing.assert_array_equal(found, wanted)
        assert changes  # these maps are speckled


@pytest.mark.parametrize("shape", [(17, 13), (7, 9, 8)])
def test_holes_get_the_class_with_the_most_faces_around_them(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    total = 0
    for _ in range(5):
        label = rng.choice(3, shape, p=[0.15, 0.6, 0.25]).astype(np.uint8)
        wanted = label.copy()
        for part in walk(label == 0, 1):
            near = [
                tuple(at + step * (k == axis) for k, at in enumerate(place))
                for place in part for axis in range(len(shape)) for step in (-1, 1)
            ]  # fmt: skip
            if all(0 <= at < size for place in near for at, size in zip(place, shape, strict=True)):
                faces = np.bincount([label[place] for place in near], minlength=3)
                faces[0] = 0
                wanted[tuple(np.array(part).T)] = faces.argmax()
        found = label.copy()
        changes = CleanUp.build(fill_holes=True).apply(found, CLASSES, sample(label))
        np.testing.assert_array_equal(found, wanted)
        assert sum(change.filled_voxels for change in changes.values()) == (found != label).sum()
        total += int((found != label).sum())
    assert total


def test_sizes_are_told_in_units() -> None:
    label = np.zeros((8, 8, 8), np.uint8)
    label[1:3, 1:3, 1:3] = label[5:8, 5:8, 5:8] = 1  # 8 and 27 voxels of 2 × 1 × 0.5 mm
    for words, left in (("8mm3", 35), ("8.01mm3", 27), ("0.0081ml", 27), ("9", 27), ("a=0.0081 ML", 27), ("b=1ml", 35)):
        found = label.copy()
        CleanUp.build(min_volume=words).apply(found, CLASSES, sample(label, (2.0, 1.0, 0.5)))
        assert (found > 0).sum() == left, words
    with pytest.raises(DataError, match="image: the image tells no spacing, so 1 ml"):
        CleanUp.build(min_volume="1ml").apply(label, CLASSES, sample(label))


def test_islands_go_before_holes_are_filled() -> None:
    label = np.ones((7, 7), np.uint8)
    label[2:5, 2:5] = 0
    label[3, 3] = 2
    found = np.pad(label, 1)
    rules = CleanUp.build("b", "b=2", fill_holes=True)
    assert rules.apply(found, CLASSES, sample(found)) == {"b": Change(1, 1), "a": Change(0, 0, 1, 9)}
    assert (found[1:-1, 1:-1] == 1).all()


def test_an_empty_map_and_no_rules_change_nothing() -> None:
    label = np.zeros((5, 5), np.uint8)
    assert CleanUp.build("all", "3", True).apply(label, CLASSES, sample(label)) == {} and not label.any()
    assert not CleanUp.build() and CleanUp.build("all")


def test_mistakes_are_named() -> None:
    for size in ("x", "3km", "-1ml", "a=", "", "1..2", "1e999"):
        with pytest.raises(ConfigError, match=r"min_volume: got .*; expected a size such as"):
            CleanUp.build(min_volume=size)
    for rules, dims, words in (
        (CleanUp.build("liver"), 3, "keep_largest: got 'liver'; expected all, foreground, a, b"),
        (CleanUp.build("background"), 3, "keep_largest: got 'background'"),
        (CleanUp.build("all,a"), 3, "keep_largest: got all,a; expected one word"),
        (CleanUp.build(min_volume="c=3"), 3, "min_volume: got 'c'; expected a, b"),
        (CleanUp.build(min_volume="3ml"), 2, "min_volume: got a size in ml, .* expected cm2 or mm2 or a number"),
        (CleanUp.build(fill_holes=True), 1, "fill_holes: given for signals"),
    ):
        with pytest.raises(ConfigError, match=words):
            rules.check(CLASSES, dims)
