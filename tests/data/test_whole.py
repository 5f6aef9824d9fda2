"""Sources that are measured as a whole, for a network of known classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convoxel.data import load
from convoxel.errors import DataError


@pytest.mark.parametrize("layout", ["pairs", "classes", "npz"])
def test_a_test_part_alone_can_be_measured_but_not_trained_on(tmp_path: Path, layout: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (4, 8, 8)).astype(np.uint8)
    source, task = tmp_path / "set", "segment" if layout == "pairs" else "classify"
    names = [f"test/{name}" for name in (("images", "labels") if layout == "pairs" else ("cat", "dog"))]
    for name in names:
        (source / name).mkdir(parents=True)
        for index in range(4):
            values = pixels[index] if not name.endswith("labels") else pixels[index] // 128
            Image.fromarray(values).save(source / name / f"{index}.png")
    if layout == "npz":
        source = tmp_path / "set.npz"
        np.savez(source, test_images=pixels, test_labels=np.arange(4) % 2)
    known = ("background", "foreground") if task == "segment" else ("cat", "dog")
    found = load(source, task, whole=True, classes=known)
    assert len(found.split("all")) == len(found.split("test")) == (8 if layout == "classes" else 4)
    assert found.classes == known and found.rule == "nothing is held out"
    with pytest.raises(DataError, match="there is no training part, only test; expected train"):
        load(source, task)


def test_classes_may_be_named_as_parts(tmp_path: Path) -> None:
    for name in ("test", "validation"):
        (tmp_path / name).mkdir()
        for index in range(3):
            Image.fromarray(np.full((8, 8), index, np.uint8)).save(tmp_path / name / f"{index}.png")
    assert load(tmp_path, "classify").classes == ("test", "validation")


def test_numbered_frames_keep_the_numbers_of_the_network(tmp_path: Path) -> None:
    """Frames of two of five subjects' classes, which begin at 1 as MATLAB counts."""
    import h5py

    with h5py.File(tmp_path / "frames.h5", "w") as file:
        for subject in range(2):
            file[f"subject{subject:06d}_num_frames"] = np.array([[2]])
            for frame in range(2):
                file[f"subject{subject:06d}_frame{frame:08d}"] = np.full((8, 8), subject, np.uint8)
                file[f"subject{subject:06d}_label{frame:08d}"] = np.array([[2 + subject]])
    known = tuple("12345")
    found = load(tmp_path / "frames.h5", "classify", whole=True, classes=known)
    assert found.classes == known and [sample.label for sample in found.split("all")] == [1, 1, 2, 2]


def test_a_table_may_hold_one_class_of_the_network(tmp_path: Path) -> None:
    for index in range(2):
        Image.fromarray(np.full((8, 8), index, np.uint8)).save(tmp_path / f"{index}.png")
    (tmp_path / "labels.csv").write_text("file,class\n0.png,dog\n1.png,dog\n")
    found = load(tmp_path, "classify", whole=True, classes=("cat", "dog"))
    assert found.classes == ("cat", "dog") and [sample.label for sample in found.split("all")] == [1, 1]
