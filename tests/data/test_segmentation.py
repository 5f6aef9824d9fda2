"""Segmentation folders: pairs, classes, parts, and every way in which they can be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from convoxel import data
from convoxel.errors import ConfigError, DataError
from tests.support.refusal import refused

RNG = np.random.default_rng(5)


def put(path: Path, array: Any, affine: Any = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith((".nii", ".nii.gz")):
        nibabel.save(nibabel.Nifti1Image(array, np.diag([2.0, 2, 3, 1]) if affine is None else affine), path)
    elif path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)
    return path


def volumes(folder: Path, count: int = 5, ending: str = ".nii.gz") -> Path:
    """A small segmentation folder: three classes in every label."""
    for i in range(count):
        label = RNG.integers(0, 3, (6, 5, 4)).astype(np.uint8)
        label[0, 0, :3] = 0, 1, 2
        put(folder / "images" / f"case_{i}{ending}", RNG.random((6, 5, 4)).astype(np.float32))
        put(folder / "labels" / f"case_{i}{ending}", label)
    return folder


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".npy"])
def test_segmentation_folder(tmp_path: Path, ending: str) -> None:
    volumes(tmp_path / "set", 10, ending)
    found = data.load(tmp_path / "set", "segment")
    assert (found.name, found.task, found.dims, found.channels) == ("set", "segment", 3, 1)
    assert found.classes == ("background", "class 1", "class 2")
    assert found.train.names == tuple(f"case_{i}" for i in range(8)) and found.validation.names == ("case_8", "case_9")
    assert found.spacing_mm == (None if ending == ".npy" else (2, 2, 3))
    sample = found.validation[-1]
    assert sample.name == "case_9" and sample.image.shape == (1, 6, 5, 4) and sample.source is not None
    assert isinstance(sample.label, np.ndarray) and sample.label.dtype == np.uint8 and sample.label.shape == (6, 5, 4)
    assert found.train.shapes == ((6, 5, 4),) * 8 and found.test is None
    assert data.check(tmp_path / "set", "segment") == []


def test_last_by_name_validate(tmp_path: Path) -> None:
    volumes(tmp_path, 10)
    assert data.load(tmp_path, "segment", validation=3).validation.names == ("case_7", "case_8", "case_9")
    assert len(data.load(tmp_path, "segment", validation=0.5).validation) == 5
    for wrong in (0, 10, -1, 1.0, 0.0, True, "3"):
        with pytest.raises(ConfigError, match="validation is"):
            data.load(tmp_path, "segment", validation=wrong)  # type: ignore[arg-type]


def test_order_does_not_depend_on_the_format(tmp_path: Path) -> None:
    for name in ("a", "a-b", "a_b", "B", "a.b"):
        put(tmp_path / "images" / f"{name}.npy", np.zeros((4, 4), np.float32))
        put(tmp_path / "labels" / f"{name}.png", np.eye(4, dtype=np.uint8))
    found = data.load(tmp_path, "segment")
    assert found.train.names + found.validation.names == ("B", "a", "a-b", "a.b", "a_b")


def test_masks_of_0_and_255(tmp_path: Path) -> None:
    for i in range(4):
        mask = np.zeros((8, 8), np.uint8)
        mask[i:] = 255
        put(tmp_path / "images" / f"{i}.png", RNG.integers(0, 256, (8, 8), np.uint8))
        put(tmp_path / "labels" / f"{i}.png", mask if i else np.zeros((8, 8), np.uint8))
    found = data.load(tmp_path, "segment")
    assert found.classes == ("background", "foreground") and found.dims == 2
    label = found.train[1].label
    assert isinstance(label, np.ndarray) and sorted(np.unique(label)) == [0, 1]
    (tmp_path / "classes.txt").write_text("outside\ninside\n")
    assert data.load(tmp_path, "segment").classes == ("outside", "inside")
    assert data.check(tmp_path, "segment") == []


def test_parts_and_decathlon_layout(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        volumes(tmp_path / part, 3)
    found = data.load(tmp_path, "segment")
    assert found.train.names[0] == "train/case_0" and found.validation.names[0] == "validation/case_0"
    assert found.test is not None and len(found.test) == 3
    with pytest.raises(ConfigError, match="bring a validation part of 3"):
        data.load(tmp_path, "segment", validation=1)
    (tmp_path / "val").rename(tmp_path.parent / f"{tmp_path.name}-away")
    found = data.load(tmp_path, "segment")
    assert found.validation.names == ("train/case_2",) and found.test is not None and len(found.test) == 3
    assert found.rule == "the last 1 of the training part by name validate"
    other = volumes(tmp_path / "msd", 4)
    (other / "images").rename(other / "imagesTr")
    (other / "labels").rename(other / "labelsTr")
    (other / "imagesTr" / "._case_0.nii.gz").write_bytes(b"left by a Mac")
    (other / "dataset.json").write_text(json.dumps({"labels": {"0": "none", "1": "front", "2": "back"}}))
    assert data.load(other, "segment").classes == ("none", "front", "back")
    (other / "dataset.json").write_text(json.dumps({"labels": {"none": 0, "back": 2, "front": 1}}))
    assert data.load(other, "segment").classes == ("none", "front", "back")
    (other / "dataset.json").write_text(json.dumps({"name": "no labels here"}))
    assert data.load(other, "segment").classes[0] == "background"


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[" * 5000,
        '{"labels": 7}',
        '{"labels": {"0": "a"}}',
        '{"labels": {"0": "a", "2": "b"}}',
        '{"labels": {"a": 0, "b": [1, 300]}}',
        '{"labels": {"0": "a", "1": "a"}}',
        '{"labels": {"' + "9" * 5000 + '": "a"}}',
    ],
)
def test_false_class_names_in_json(tmp_path: Path, text: str) -> None:
    volumes(tmp_path, 3)
    (tmp_path / "dataset.json").write_text(text)
    refused(lambda: data.load(tmp_path, "segment"), tmp_path / "dataset.json", "labels")


def test_false_class_names_in_text(tmp_path: Path) -> None:
    volumes(tmp_path, 3)
    path = tmp_path / "classes.txt"
    for content, word in (
        (b"one\n", "1 class name"),
        (b"a\nb\na\n", "2 different"),
        (b"\xff\xfe\0", "UTF-8"),
        (b"a\n" * 2**20, "1048576 bytes"),
    ):
        path.write_bytes(content)
        refused(lambda: data.load(tmp_path, "segment"), path, word)
    path.write_text("background\nonly\n")
    found = data.load(tmp_path, "segment")
    refused(lambda: found.train[0], tmp_path / "labels" / "case_0.nii.gz", "unexpected label values 2", "classes.txt")


def case(folder: Path, kind: str, name: str = "case_1.nii.gz") -> Path:
    return folder / kind / name


BROKEN: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "image without label": (lambda f: case(f, "labels").unlink(), "images/case_1.nii.gz", "image without label"),
    "label without image": (lambda f: case(f, "images").unlink(), "labels/case_1.nii.gz", "label without image"),
    "label of another shape": (
        lambda f: put(case(f, "labels"), np.ones((6, 5, 5), np.uint8)),
        "labels/case_1.nii.gz",
        "6 × 5 × 5; expected 6 × 5 × 4",
    ),
    "label lying elsewhere": (
        lambda f: put(case(f, "labels"), np.ones((6, 5, 4), np.uint8), np.diag([-2.0, 2, 3, 1])),
        "labels/case_1.nii.gz",
        "mm off its image",
    ),
    "negative label": (
        lambda f: put(case(f, "labels"), np.full((6, 5, 4), -1, np.int16)),
        "labels/case_1.nii.gz",
        "from -1 to -1",
    ),
    "label not whole": (
        lambda f: put(case(f, "labels"), np.full((6, 5, 4), 0.5, np.float32)),
        "labels/case_1.nii.gz",
        "not whole (such as 0.5)",
    ),
    "NaN label": (
        lambda f: put(case(f, "labels"), np.full((6, 5, 4), np.nan, np.float32)),
        "labels/case_1.nii.gz",
        "NaN or infinite",
    ),
    "label with a gap": (
        lambda f: put(case(f, "labels"), np.full((6, 5, 4), 7, np.uint8)),
        "labels/case_1.nii.gz",
        "7 although 3 occurs nowhere",
    ),
    "label beyond 255": (
        lambda f: put(case(f, "labels"), np.full((6, 5, 4), 2035, np.int16)),
        "labels/case_1.nii.gz",
        "2035",
    ),
    "label of two channels": (
        lambda f: put(case(f, "labels"), np.ones((6, 5, 4, 2), np.uint8)),
        "labels/case_1.nii.gz",
        "2 channels",
    ),
    "NaN image": (
        lambda f: put(case(f, "images"), np.full((6, 5, 4), np.nan, np.float32)),
        "images/case_1.nii.gz",
        "120 values are NaN",
    ),
    "flat image": (
        lambda f: (
            put(case(f, "images"), np.ones((6, 5), np.float32)),
            put(case(f, "labels"), np.ones((6, 5), np.uint8)),
        ),
        "images/case_1.nii.gz",
        "2-D (6 × 5); expected a 3-D",
    ),
    "flat image of a volume": (
        lambda f: put(case(f, "images"), np.ones((6, 5), np.float32)),
        "images/case_1.nii.gz",
        "2-D (6 × 5), its label 3-D (6 × 5 × 4)",
    ),
    "image of two channels": (
        lambda f: put(case(f, "images"), np.ones((6, 5, 4, 2), np.float32)),
        "images/case_1.nii.gz",
        "2 channels; expected 1",
    ),
    "truncated image": (
        lambda f: case(f, "images").write_bytes(case(f, "images").read_bytes()[:-40]),
        "images/case_1.nii.gz",
        "truncated",
    ),
    "empty image": (lambda f: case(f, "images").write_bytes(b""), "images/case_1.nii.gz", "0 bytes"),
    "a second of that name": (
        lambda f: put(case(f, "images", "case_1.npy"), np.ones((6, 5, 4))),
        "images/case_1.npy",
        "a second file named case_1",
    ),
    "unknown ending": (lambda f: case(f, "images", "a.bmp").write_bytes(b"x"), "images/a.bmp", "no image format"),
    "a folder inside": (lambda f: case(f, "images", "more").mkdir(), "images/more", "a folder among the images"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_segmentation_folders(tmp_path: Path, kind: str) -> None:
    """One broken sample: load or the sample refuses, check finds just that, and skip leaves just that out."""
    damage, where, word = BROKEN[kind]
    damage(volumes(tmp_path, 6))

    def read_all() -> None:
        assert not data.load(tmp_path, "segment").problems()
        for part in (data.load(tmp_path, "segment").train, data.load(tmp_path, "segment").validation):
            list(part)

    if kind in ("NaN image", "truncated image"):  # what only the pixels show
        found = data.load(tmp_path, "segment")
        refused(lambda: found.train[1], tmp_path / where, word)
    else:
        refused(read_all, tmp_path / where, word)
    problems = data.check(tmp_path, "segment")
    assert len(problems) == 1 and str(tmp_path / where) in str(problems[0]) and word in problems[0].message
    sound = data.load(tmp_path, "segment", bad="skip")
    assert [str(p) for p in sound.skipped] == [str(p) for p in problems]
    names = sound.train.names + sound.validation.names
    assert ("case_1" in names) == (kind in ("unknown ending", "a folder inside")) and len(names) >= 5
    assert not sound.problems()


def test_check_finds_all(tmp_path: Path) -> None:
    volumes(tmp_path, 8)
    case(tmp_path, "labels", "case_0.nii.gz").unlink()
    put(case(tmp_path, "images", "case_3.nii.gz"), np.full((6, 5, 4), np.inf, np.float32))
    put(case(tmp_path, "labels", "case_5.nii.gz"), np.ones((2, 2, 2), np.uint8))
    case(tmp_path, "images", "case_7.nii.gz").write_bytes(b"\x1f\x8b")
    assert sorted(p.name for p in data.check(tmp_path, "segment")) == ["case_0", "case_3", "case_5", "case_7"]
    assert len(data.load(tmp_path, "segment", bad="skip").train) == 3


def test_folders_without_pairs(tmp_path: Path) -> None:
    refused(lambda: data.load(tmp_path / "none", "segment"), tmp_path / "none", "no such folder", "mni152")
    refused(lambda: data.load(tmp_path, "segment"), tmp_path, "no folder images/")
    (tmp_path / "images").mkdir()
    refused(lambda: data.load(tmp_path, "segment"), tmp_path, "no folder labels/")
    (tmp_path / "labels").mkdir()
    refused(lambda: data.load(tmp_path, "segment"), tmp_path / "images", "empty")
    assert len(data.check(tmp_path, "segment")) == 1
    put(tmp_path / "images" / "a.npy", np.ones((3, 3, 3)))
    put(tmp_path / "labels" / "a.npy", np.eye(3)[None].repeat(3, 0))
    with pytest.raises(DataError, match="1 of the samples is usable"):
        data.load(tmp_path, "segment")
    put(tmp_path / "images" / "b.npy", np.ones((3, 3, 3)))
    put(tmp_path / "labels" / "b.npy", np.zeros((3, 3, 3)))
    put(tmp_path / "labels" / "a.npy", np.zeros((3, 3, 3)))
    refused(lambda: data.load(tmp_path, "segment"), tmp_path, "every label is 0")
    refused(lambda: data.load(tmp_path / "images" / "a.npy", "segment"), tmp_path, "a file, not a data set")


def test_labels_that_are_images(tmp_path: Path) -> None:
    volumes(tmp_path, 3)
    for i in range(3):
        put(case(tmp_path, "labels", f"case_{i}.nii.gz"), np.arange(120, dtype=np.uint8).reshape(6, 5, 4))
    refused(lambda: data.load(tmp_path, "segment"), tmp_path / "labels", "120 different label values")
    for i in range(3):
        put(case(tmp_path, "labels", f"case_{i}.nii.gz"), np.ones((6, 5, 4), np.uint8))
    refused(lambda: data.load(tmp_path, "segment"), tmp_path / "labels", "1 although 0 occurs nowhere")
    assert any("no label is usable" in str(p) for p in data.check(tmp_path, "segment"))


def test_label_without_orientation_is_accepted_and_said(tmp_path: Path) -> None:
    volumes(tmp_path, 3)
    put(case(tmp_path, "labels"), np.ones((6, 5, 4), np.uint8), np.eye(4))
    assert data.check(tmp_path, "segment") == []
    (note,) = data.load(tmp_path, "segment").notes
    assert "identity" in note and "case_1" in note


def oriented(path: Path, affine: Any, code: int, size: tuple[int, ...] = (6, 5, 4)) -> None:
    """Write a label of ones whose header holds an affine, and voxel sizes alone where ``code`` is 0."""
    image = nibabel.Nifti1Image(np.ones(size, np.uint8), None)
    image.header.set_zooms(np.linalg.norm(np.array(affine)[:3, :3], axis=0))
    image.header.set_sform(affine if code else None, code)
    nibabel.save(image, path)


FINE = np.diag([0.5, 0.5, 5.0, 1])
TURNED = np.array([[0.4, -0.3, 0, 10], [0.3, 0.4, 0, -20], [0, 0, 5, 30], [0, 0, 0, 1]])


def shifted(affine: Any, voxels: Sequence[float]) -> Any:
    found = np.array(affine)
    found[:3, 3] += found[:3, :3] @ voxels
    return found


@pytest.mark.parametrize(
    ("image", "label", "voxels", "axis"),
    [
        *((affine, shifted(affine, np.eye(3)[axis] * by), abs(by), axis)
          for affine in (FINE, TURNED, np.eye(4)) for axis in range(3) for by in (9.0, -1.0, 0.5, 0.2, -0.1)),
        (shifted(np.eye(4), (0, 0, 7)), np.eye(4), 7, 2),
    ],
)  # fmt: skip
def test_a_label_lies_within_a_quarter_of_a_voxel(
    tmp_path: Path, image: Any, label: Any, voxels: float, axis: int
) -> None:
    volumes(tmp_path, 3)
    put(case(tmp_path, "images"), RNG.random((6, 5, 4)).astype(np.float32), image)
    put(case(tmp_path, "labels"), np.ones((6, 5, 4), np.uint8), label)
    if voxels > 0.25:
        word = f"{voxels:g} voxels along axis {axis}"
        refused(lambda: data.load(tmp_path, "segment"), case(tmp_path, "labels"), word, "0.25 voxels")
        assert "case_1" in [problem.name for problem in data.check(tmp_path, "segment")]
    else:
        assert data.check(tmp_path, "segment") == [] and data.load(tmp_path, "segment").notes == ()


def test_files_without_orientation_are_told_from_wrong_ones(tmp_path: Path) -> None:
    volumes(tmp_path, 3)
    put(case(tmp_path, "images"), RNG.random((6, 5, 4)).astype(np.float32), TURNED)
    oriented(case(tmp_path, "labels"), np.diag([0.5, 0.5, 5, 1]), 0)
    assert data.check(tmp_path, "segment") == []
    assert "the label states no orientation" in data.load(tmp_path, "segment").notes[0]
    oriented(case(tmp_path, "labels"), np.diag([0.5, 0.5, 2, 1]), 0)
    refused(lambda: data.load(tmp_path, "segment"), case(tmp_path, "labels"), "voxels of 0.5 × 0.5 × 2 mm")
    oriented(case(tmp_path, "labels"), TURNED, 1)
    oriented(case(tmp_path, "images"), np.diag([0.5, 0.5, 5, 1]), 0)
    assert data.check(tmp_path, "segment") == []
    assert "the image states no orientation" in data.load(tmp_path, "segment").notes[0]


def test_odd_names(tmp_path: Path) -> None:
    names = ["ä ö.b", "a\nb", "-x", "$(rm)", "100%", os_name := b"\xff".decode("utf-8", "surrogateescape")]
    for name in names:
        put(tmp_path / "images" / f"{name}.npy", np.ones((4, 4)))
        put(tmp_path / "labels" / f"{name}.npy", np.eye(4))
    (tmp_path / "images" / ".hidden").write_bytes(b"")
    (tmp_path / "images" / "Thumbs.db").write_bytes(b"")
    found = data.load(tmp_path, "segment")
    assert len(found.train) + len(found.validation) == len(names) and len(found.fingerprint) == 64
    assert all(name.isprintable() for name in found.train.names + found.validation.names) and os_name
    assert not found.problems()


def test_swapped_axes_of_a_cube_are_noticed(tmp_path: Path) -> None:
    """Two opposite corners of a cube stay where they are when its axes are swapped; the others do not."""
    for i in range(3):
        put(tmp_path / "images" / f"{i}.nii", RNG.random((5, 5, 5)).astype(np.float32), np.diag([2.0, 2, 2, 1]))
        put(tmp_path / "labels" / f"{i}.nii", np.indices((5, 5, 5))[0].astype(np.uint8), np.diag([2.0, 2, 2, 1]))
    assert data.check(tmp_path, "segment") == []
    swapped = np.array([[0, 2.0, 0, 0], [2, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])
    path = put(tmp_path / "labels" / "1.nii", np.ones((5, 5, 5), np.uint8), swapped)
    refused(lambda: data.load(tmp_path, "segment"), path, "11.3 mm off its image", "4 voxels")


def test_channels_first_arrays(tmp_path: Path) -> None:
    for i in range(3):
        put(tmp_path / "images" / f"{i}.npy", RNG.random((2, 5, 6)))
        put(tmp_path / "labels" / f"{i}.png", np.indices((5, 6))[0].astype(np.uint8))
    found = data.load(tmp_path, "segment")
    assert (found.dims, found.channels, len(found.classes)) == (2, 2, 5) and not found.problems()
    assert found.train[0].image.shape == (2, 5, 6)


def test_a_broken_sample_in_a_part(tmp_path: Path) -> None:
    for part in ("train", "test"):
        volumes(tmp_path / part, 3)
    put(tmp_path / "train" / "images" / "case_1.npy", np.ones((6, 5, 4)))
    sound = data.load(tmp_path, "segment", bad="skip")
    # Of the two that are left of three, one validates: the test part does not.
    assert {*sound.train.names, *sound.validation.names} == {"train/case_0", "train/case_2"} and len(sound.skipped) == 1
    assert sound.test is not None and len(sound.test) == 3
