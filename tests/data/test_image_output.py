"""Writing: what is written is read back, whole or not at all."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from convoxel import data
from convoxel.data.label_file import read_label
from convoxel.files import atomic
from tests.support.refusal import refused

RNG = np.random.default_rng(3)
AFFINE = np.array([[0, -2.0, 0, 10], [1.5, 0, 0, -20], [0, 0, 3.0, 30], [0, 0, 0, 1]])


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".npy"])
@pytest.mark.parametrize("shape", [(1, 4, 5, 6), (3, 4, 5, 6), (1, 4, 5), (2, 4, 5)])
def test_images_come_back(tmp_path: Path, ending: str, shape: tuple[int, ...]) -> None:
    array = RNG.normal(size=shape).astype(np.float32)
    spacing = (1.5, 2.0, 3.0)[: len(shape) - 1]
    path = data.write_image(tmp_path / f"a{ending}", array, AFFINE, spacing)
    sample = data.read_image(path, dims=len(shape) - 1)
    assert np.array_equal(sample.image, array)
    if ending != ".npy":
        assert sample.affine is not None and np.array_equal(sample.affine, AFFINE) and sample.spacing_mm == spacing


@pytest.mark.parametrize("dtype", ["?", "i8", "f2", "f8", "u2"])
def test_other_numbers(tmp_path: Path, dtype: str) -> None:
    array = np.arange(60).reshape(1, 3, 4, 5).astype(dtype)
    assert np.array_equal(data.read_image(data.write_image(tmp_path / "a.nii", array)).image, array.astype(np.float32))


def test_pictures_come_back(tmp_path: Path) -> None:
    for channels in (1, 3):
        array = RNG.integers(0, 256, (channels, 5, 7)).astype(np.float32)
        assert np.array_equal(data.read_image(data.write_image(tmp_path / "a.png", array)).image, array)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".npy", ".png"])
def test_labels_come_back(tmp_path: Path, ending: str) -> None:
    label = RNG.integers(0, 12, (5, 6) if ending == ".png" else (5, 6, 7))
    path = data.write_label(tmp_path / f"a{ending}", label, AFFINE, (1.5, 2.0, 3.0)[: label.ndim])
    header, found = read_label(path)
    assert np.array_equal(found, label) and found.dtype == np.uint8
    if "nii" in ending:
        image = nibabel.load(path)
        assert np.array_equal(image.affine, AFFINE) and image.get_data_dtype() == np.uint8
        assert image.header.get_zooms() == (1.5, 2.0, 3.0) and image.header.get_xyzt_units()[0] == "mm"
        assert header.affine is not None


def test_a_prediction_lies_where_its_image_lies(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(RNG.random((4, 5, 6)), AFFINE), tmp_path / "in.nii.gz")
    sample = data.read_image(tmp_path / "in.nii.gz")
    data.write_label(tmp_path / "out.nii.gz", sample.image[0] > 0.5, sample.affine, sample.spacing_mm)
    before, after = (nibabel.load(tmp_path / name) for name in ("in.nii.gz", "out.nii.gz"))
    assert np.array_equal(before.affine, after.affine) and before.header.get_zooms() == after.header.get_zooms()


def test_the_same_array_gives_the_same_bytes(tmp_path: Path) -> None:
    label = RNG.integers(0, 3, (5, 6, 7))
    first, second = (data.write_label(tmp_path / name, label, AFFINE).read_bytes() for name in ("a.nii.gz", "b.nii.gz"))
    assert first == second


def test_without_affine(tmp_path: Path) -> None:
    sample = data.read_image(data.write_label(tmp_path / "a.nii", np.ones((3, 4, 5)), None, (2, 3, 4)))
    assert (
        sample.affine is not None
        and np.array_equal(sample.affine, np.diag([2, 3, 4, 1]))
        and sample.spacing_mm == (2, 3, 4)
    )


def test_what_cannot_be_written(tmp_path: Path) -> None:
    ones = np.ones((3, 4, 5))
    for name, word in (
        ("a.jpg", "the ending is .jpg"),
        ("a", "the ending is missing"),
        (".png", "the ending is missing"),
    ):
        refused(lambda name=name: data.write_label(tmp_path / name, ones), tmp_path / name, word)  # type: ignore[misc]
    path = tmp_path / "a.png"
    refused(lambda: data.write_label(path, ones), path, "3 spatial axes", "2 for PNG")
    refused(lambda: data.write_image(path, ones[:2] * 9), path, "2 channels")
    refused(lambda: data.write_image(path, ones * 300), path, "values 300 to 300")
    refused(lambda: data.write_image(path, ones * np.nan), path, "values nan")
    path = tmp_path / "a.nii.gz"
    refused(lambda: data.write_label(path, ones * 256), path, "256 to 256")
    refused(lambda: data.write_label(path, -ones), path, "-1 to -1")
    refused(lambda: data.write_label(path, ones / 2), path, "not all whole", "argmax")
    refused(lambda: data.write_label(path, ones * np.nan), path, "not all whole")
    refused(lambda: data.write_label(path, np.ones((2, 2, 2, 2))), path, "4 spatial axes")
    refused(lambda: data.write_label(path, np.ones((2, 0, 2))), path, "shape (2, 0, 2)")
    refused(lambda: data.write_label(path, np.array(["x"])), path, "type <U1")
    refused(
        lambda: data.write_label(tmp_path / "none" / "a.nii", ones),
        tmp_path / "none" / "a.nii",
        "folder does not exist",
    )
    (tmp_path / "folder.nii").mkdir()
    refused(lambda: data.write_label(tmp_path / "folder.nii", ones), tmp_path / "folder.nii", "this is a folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder.nii"]


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".npy", ".png"])
@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
def test_no_space_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, ending: str
) -> None:
    label = RNG.integers(0, 3, (20, 20) if ending == ".png" else (20, 20, 9))
    path = data.write_label(tmp_path / f"a{ending}", label)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(*arguments: Any, **options: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if call == "write":
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))  # the disk takes a little first
    elif call == "replace":
        monkeypatch.setattr(Path, "replace", full)
    else:
        monkeypatch.setattr(atomic.os, call, full)
    try:
        refused(
            lambda: data.write_label(path, label + 1),
            path,
            os.strerror(errno.EFBIG if call == "write" else errno.ENOSPC),
            "nothing was left half-written",
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    monkeypatch.undo()
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]
