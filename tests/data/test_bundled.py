"""The two bundled sets, the division into parts, and the folders of real images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from convoxel import data
from convoxel.data import bundled
from convoxel.data.split import split_stratified
from convoxel.errors import ConfigError, UnsupportedError


def test_mni152_is_divided_from_front_to_back() -> None:
    found = data.load("mni152", "segment", validation=0.25, gap=40)
    assert (found.dims, found.channels, found.classes) == (3, 1, ("background", "grey", "white"))
    front, back = found.train[0], found.validation[0]
    assert front.image.shape[2] + back.image.shape[2] + 40 == 233 and front.spacing_mm == (1, 1, 1)
    assert front.affine is not None and back.affine is not None and back.affine[1, 3] == -134
    assert front.affine[1, 3] == -134 + back.image.shape[2] + 40  # the part stays where it was in space
    for sample in (front, back):
        assert isinstance(sample.label, np.ndarray) and sample.label.shape == sample.image.shape[1:]
        share = np.bincount(sample.label.ravel(), minlength=3) / sample.label.size
        assert 0.02 < share[1] < 0.2 and 0.02 < share[2] < 0.2
        inside = sample.image[0][sample.label == 2].mean()
        assert inside > sample.image[0][sample.label == 1].mean() > 100  # white matter is bright in T1
    whole = data.load("mni152", "segment", validation=0.25)
    assert whole.train[0].image.shape[2] == front.image.shape[2] + 40 and whole.fingerprint == found.fingerprint
    fixed = data.load("mni152", "segment", validation=30)
    assert fixed.validation[0].label is not None and fixed.validation[0].label.any()  # type: ignore[union-attr]
    assert fixed.validation[0].image[0].any(axis=(0, 2)).sum() == 30
    assert data.check("mni152", "segment") == []


@pytest.mark.parametrize("gap", [-1, 1000, 1.5, True])
def test_mni152_refuses_a_gap_that_leaves_nothing(gap: int) -> None:
    with pytest.raises(ConfigError, match=r"gap is .* expected a whole number"):
        data.load("mni152", "segment", gap=gap)


def test_digits() -> None:
    found = data.load("digits", "classify")
    assert len(found.train) == 1438 and len(found.validation) == 359 and found.classes == tuple("0123456789")
    share = np.bincount([v or 0 for v in found.validation.labels]) / np.bincount([v or 0 for v in found.train.labels])
    assert abs(share - 0.25).max() < 0.02
    images = np.stack([s.image for s in found.train])
    assert images.shape == (1438, 1, 8, 8) and images.min() == 0 and images.max() == 16
    assert data.load("digits", "classify").validation.names == found.validation.names
    assert found.validation.names == tuple(sorted(found.validation.names))


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled.importlib.util, "find_spec", lambda name: None)
    for name, task in (("mni152", "segment"), ("digits", "classify")):
        with pytest.raises(UnsupportedError, match="not installed: pip install"):
            data.load(name, task)


def test_stratified_division_is_stable() -> None:
    names, labels = [f"{i:03d}" for i in range(100)], [i % 3 for i in range(100)]
    train, held = split_stratified(names, labels, 0.3, 0)
    assert sorted(train + held) == list(range(100)) and len(held) == 30
    # These positions are part of the promise: the same names and seed give the same parts in every release.
    assert held[:8] == FIRST_HELD
    grown = split_stratified([*names, "100", "101", "102"], [*labels, 0, 1, 2], 0.3, 0)[1]
    assert len(set(held) & set(grown)) >= 28  # new samples do not shuffle the old ones


FIRST_HELD = [1, 4, 6, 7, 9, 11, 13, 20]


def test_every_class_keeps_a_sample_to_train_on() -> None:
    train, held = split_stratified(["a", "b", "c", "d"], [0, 1, 2, 2], 3, 0)
    assert {0, 1} <= set(train) and len(held) == 1


def test_hippocampus(shared_data: Path) -> None:
    found = data.load(shared_data / "hippocampus", "segment", validation=30)
    samples = [*found.train, *found.validation]
    assert len(found.train) == 100 and len(found.validation) == 30 and len(found.classes) == 3
    assert found.train.names[-1] < found.validation.names[0] and found.spacing_mm == (1, 1, 1)
    assert all(s.affine is not None and set(np.unique(np.asarray(s.label))) == {0, 1, 2} for s in samples)


def test_membrane(shared_data: Path) -> None:
    found = data.load(shared_data / "membrane", "segment")
    assert (found.dims, found.channels, len(found.train), len(found.validation)) == (2, 1, 16, 4)
    assert found.train[0].image.shape == (1, 512, 512) and set(np.unique(np.asarray(found.train[0].label))) == {0, 1}


def test_cifar10(shared_data: Path) -> None:
    found = data.load(shared_data / "cifar10", "classify")
    assert found.test is not None and (len(found.train), len(found.validation), len(found.test)) == (2400, 600, 1000)
    assert (len(found.classes), found.channels) == (10, 3)
    assert found.train[0].image.shape == (3, 32, 32) and found.train.labels.count(4) == 240
