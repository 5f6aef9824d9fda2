"""Whole data sets in one .npz."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convoxel import data
from tests.support.refusal import refused

RNG = np.random.default_rng(5)


def archive(path: Path, **arrays: Any) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def test_medmnist_archive(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (18, 7, 7, 3), np.uint8)
    labels = (np.arange(18, dtype=np.uint8) % 3)[:, None]
    path = archive(
        tmp_path / "a.npz",
        train_images=images[:12],
        train_labels=labels[:12],
        val_images=images[12:16],
        val_labels=labels[12:16],
        test_images=images[16:],
        test_labels=labels[16:],
        classes=np.array(["x", "y", "z"]),
    )
    found = data.load(path, "classify")
    assert (found.dims, found.channels, found.classes) == (2, 3, ("x", "y", "z"))
    assert (len(found.train), len(found.validation), len(found.test or ())) == (12, 4, 2)
    assert np.array_equal(found.train[5].image, np.moveaxis(images[5], -1, 0)) and found.train[5].label == 2
    assert data.check(path, "classify") == [] and len(found.fingerprint) == 64


def test_plain_archives(tmp_path: Path) -> None:
    labels = np.arange(20) % 2
    found = data.load(
        archive(tmp_path / "a.npz", images=RNG.random((20, 5, 5, 5)), labels=labels), "classify", validation=0.5
    )
    assert (found.dims, found.channels, found.classes) == (3, 1, ("0", "1")) and found.train.labels.count(0) == 5
    masks = RNG.integers(0, 2, (20, 9, 9), np.uint8) * 255
    found = data.load(archive(tmp_path / "b.npz", images=RNG.random((20, 9, 9)), labels=masks), "segment")
    assert found.classes == ("background", "foreground") and found.validation.names[-1] == "000019"
    assert np.array_equal(np.asarray(found.train[3].label), masks[3] // 255)
    found = data.load(
        archive(tmp_path / "c.npz", images=RNG.random((9, 5, 5, 3)), labels=np.ones((9, 5, 5, 3), int) * [0, 1, 2]),
        "segment",
    )
    assert (found.dims, found.channels, len(found.classes)) == (3, 1, 3)


ONES = np.ones((6, 4, 4), np.float32)
ARCHIVES: dict[str, tuple[str, dict[str, Any], str]] = {
    "no images": ("classify", {"x": ONES}, "the arrays x"),
    "no labels": ("classify", {"images": ONES}, "images without labels"),
    "too few labels": ("classify", {"images": ONES, "labels": np.arange(5)}, "(5,) for 6 images"),
    "several labels an image": ("classify", {"images": ONES, "labels": np.full((6, 3), 2)}, "0 and 1 for each"),
    "labels with a gap": ("classify", {"images": ONES, "labels": np.array([0, 1, 3, 0, 1, 3])}, "without a gap"),
    "negative labels": ("classify", {"images": ONES, "labels": np.array([0, 1, -1, 0, 1, 0])}, "from -1 to 1"),
    "labels not whole": ("classify", {"images": ONES, "labels": np.array([0, 1, 0.5, 0, 1, 0])}, "not whole"),
    "NaN labels": ("classify", {"images": ONES, "labels": np.array([0, 1, np.nan, 0, 1, 0])}, "NaN"),
    "one class": ("classify", {"images": ONES, "labels": np.zeros(6, int)}, "all labels are 0"),
    "a class that is new in val": (
        "classify",
        {"train_images": ONES, "train_labels": np.arange(6) % 2, "val_images": ONES, "val_labels": np.arange(6)},
        "does not occur in training",
    ),
    "parts of different rank": (
        "classify",
        {
            "train_images": ONES,
            "train_labels": np.arange(6) % 2,
            "val_images": np.ones((6, 9, 9, 9), np.float32),
            "val_labels": np.arange(6) % 2,
        },
        "different form",
    ),
    "labels of another shape": ("segment", {"images": ONES, "labels": np.ones((6, 4, 5), int)}, "(6, 4, 5) for images"),
    "mask with a gap": (
        "segment",
        {"images": ONES, "labels": np.arange(96).reshape(6, 4, 4) % 4 * 2},
        "although 1 occurs nowhere",
    ),
    "too many axes": (
        "classify",
        {"images": np.ones((6, 2, 2, 2, 2, 2)), "labels": np.arange(6) % 2},
        "5 axes (2, 2, 2, 2, 2)",
    ),
    "too few class names": (
        "classify",
        {"images": ONES, "labels": np.arange(6) % 2, "classes": np.array(["a", "a"])},
        "1 different names",
    ),
    "objects": ("classify", {"images": ONES, "labels": np.array([0, 1, None, 0, 1, 0])}, "type object"),
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_broken_archives(tmp_path: Path, kind: str) -> None:
    task, arrays, word = ARCHIVES[kind]
    path = archive(tmp_path / "a.npz", **arrays)
    refused(lambda: data.load(path, task), path, word)
    assert any(word in str(problem) for problem in data.check(path, task))


def test_archive_with_one_broken_image(tmp_path: Path) -> None:
    images = RNG.random((10, 4, 4))
    images[2, 1, 1] = np.nan
    path = archive(tmp_path / "a.npz", images=images, labels=np.arange(10) % 2)
    assert [p.name for p in data.check(path, "classify")] == ["000002"]
    sound = data.load(path, "classify", bad="skip")
    assert len(sound.train) + len(sound.validation) == 9


def test_label_maps_have_regions_and_a_value_to_ignore(tmp_path: Path) -> None:
    labels = RNG.choice([0, 1, 2, 4, 9], (6, 8, 7)).astype(np.int16)
    path = archive(tmp_path / "a.npz", images=RNG.normal(size=labels.shape), labels=labels)
    stated: dict[str, Any] = {"regions": {"whole": [1, 2, 4], "core": 4}, "ignore_label": 9}
    found = data.load(path, "segment", **stated)
    assert found.classes == ("background", "whole", "core") and found.ignored == 9
    assert found.region_values == {"whole": (1, 2, 4), "core": (4,)}
    for part, first in ((found.train, 0), (found.validation, 5)):
        for place, sample in enumerate(part):
            held = labels[first + place]
            assert np.array_equal(sample.label, np.where(held == 9, 255, held))
    assert data.check(path, "segment", **stated) == []
    told = data.check(path, "segment", regions={"whole": [1, 2], "core": 2}, ignore_label=9)
    assert sum("unexpected label values 4" in problem.message for problem in told) == 6
    refused(lambda: data.load(path, "segment", regions=stated["regions"], ignore_label=4), path, "4, is a class")
    plain = np.where(labels == 4, 3, labels)
    named = archive(
        tmp_path / "b.npz", images=RNG.normal(size=labels.shape), labels=plain, classes=np.array(list("zabc"))
    )
    assert data.load(named, "segment", ignore_label=9).classes == ("z", "a", "b", "c")
    assert data.load(named, "segment", **stated | {"regions": {"all": [1, 2, 3]}}).classes == ("background", "all")
    np.savez(
        named,
        images=RNG.normal(size=labels.shape),
        labels=np.where(plain == 2, 1, plain),
        classes=np.array(list("zabc")),
    )
    assert len(data.load(named, "segment", ignore_label=9).classes) == 4  # names stand for values that do not occur
