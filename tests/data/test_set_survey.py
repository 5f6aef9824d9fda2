"""Sets are checked as sets: names, parts, classes, subjects, identical images."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convoxel import data
from convoxel.data.set_survey import SetSurvey
from convoxel.errors import ConfigError, DataError
from tests.support.refusal import refused

RNG = np.random.default_rng(8)


def picture(path: Path, pixels: Any = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (8, 8), np.uint8) if pixels is None else pixels).save(path)
    return path


def pairs(folder: Path, names: Sequence[str], label: Any = None) -> Path:
    """Pictures with labels of one foreground pixel."""
    for name in names:
        mask = np.zeros((8, 8), np.uint8)
        mask[0, 0] = 1
        picture(folder / "images" / f"{name}.png")
        picture(folder / "labels" / f"{name}.png", mask if label is None else label)
    return folder


def messages(problems: Sequence[data.Problem]) -> str:
    return "\n".join(map(str, problems))


@pytest.mark.parametrize(
    ("images", "labels"), [("images", "labels"), ("Images", "LABELS"), ("imagesTr", "labelsTr"), ("img", "masks")]
)
@pytest.mark.parametrize("part", ["", "train"])
def test_a_segmentation_set_is_no_classification_set(tmp_path: Path, images: str, labels: str, part: str) -> None:
    folder = pairs(tmp_path / part, "abc")
    (folder / "images").rename(folder / "held")
    (folder / "labels").rename(folder / labels)
    (folder / "held").rename(folder / images)
    refused(lambda: data.load(tmp_path, "classify"), tmp_path, "segment")
    assert "segment" in messages(data.check(tmp_path, "classify"))
    if images != "img":
        assert data.guess_task(tmp_path) == "segment" and not data.check(tmp_path, "segment")
    with pytest.raises(DataError, match="no folder images/"):
        data.load(folder / images, "segment")


@pytest.mark.parametrize(("ignored", "told"), [(2, False), (9, True), (None, False)])
def test_a_value_to_ignore_that_occurs_nowhere_is_told(tmp_path: Path, ignored: int | None, told: bool) -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[0, :2] = 1, 2 if ignored == 2 else 0
    dataset = data.load(pairs(tmp_path, "abc", mask), "segment", ignore_label=ignored)
    survey = SetSurvey(dataset)
    assert not dataset.problems(survey.add)
    assert any("holds the value to ignore, 9" in words for words in survey.warnings()) == told


def test_classes_may_be_called_images(tmp_path: Path) -> None:
    for name in ("images", "sketches", "masks"):
        for i in range(3):
            picture(tmp_path / name / f"{i}.png")
    assert data.load(tmp_path, "classify").classes == ("images", "masks", "sketches")


@pytest.mark.parametrize("names", [("Cat", "cat"), ("Müll", "Mu\u0308ll")])
def test_classes_that_differ_in_capitals_alone_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in (*names, "dog"):
        picture(tmp_path / name / "0.png")
        picture(tmp_path / name / "1.png")
    refused(lambda: data.load(tmp_path, "classify"), tmp_path, "are one but for capitals")


@pytest.mark.parametrize("names", [("val", "validation"), ("Train", "train")])
def test_two_folders_of_one_part_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in ("train", *names):
        pairs(tmp_path / name, "ab")
        picture(tmp_path / name / "x.png")
    for task in ("segment", "classify"):
        refused(lambda task=task: data.load(tmp_path, task), tmp_path, "are the same part")  # type: ignore[misc]


def test_unicode_forms_of_a_name_are_one_name(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD"))
    pairs(tmp_path, ["a", "b", composed])
    (tmp_path / "labels" / f"{composed}.png").rename(tmp_path / "labels" / f"{apart}.png")
    found = data.load(tmp_path, "segment")
    assert composed in found.train.names + found.validation.names and not found.problems()
    picture(tmp_path / "images" / f"{apart}.png")
    refused(lambda: data.load(tmp_path, "segment"), tmp_path / "images", "a second file named")


def test_a_part_without_samples_is_refused(tmp_path: Path) -> None:
    for part in ("train", "val"):
        pairs(tmp_path / part, "abc")
    for path in (tmp_path / "val" / "labels").iterdir():
        path.unlink()
    for path in (tmp_path / "val" / "images").iterdir():
        path.write_bytes(b"no picture")
    assert "the validation part has no usable samples" in messages(data.check(tmp_path, "segment"))
    with pytest.raises(DataError, match=r"broken|no usable"):
        data.load(tmp_path, "segment", bad="skip")


def test_skipping_comes_before_the_split(tmp_path: Path) -> None:
    pairs(tmp_path, "abcdef")
    content = (tmp_path / "images" / "f.png").read_bytes()
    (tmp_path / "images" / "f.png").write_bytes(content[:-30])  # what only the pixels show
    found = data.load(tmp_path, "segment", bad="skip", validation=1)
    assert found.validation.names == ("e",) and found.train.names == tuple("abcd") and len(found.skipped) == 1
    with pytest.raises(DataError, match=r"f\.png"):
        list(data.load(tmp_path, "segment", validation=1).validation)


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_part_without_foreground_is_found(tmp_path: Path, part: str) -> None:
    for each in ("train", "val"):
        pairs(tmp_path / each, "abc", np.zeros((8, 8), np.uint8) if each == part else None)
    found = messages(data.check(tmp_path, "segment"))
    assert f"{'train' if part == 'train' else 'validation'} part: no label of its 3 samples" in found


def test_a_class_that_training_lacks_is_found(tmp_path: Path) -> None:
    both = np.zeros((8, 8), np.uint8)
    both[0, :2] = 1, 2
    pairs(tmp_path / "train", "abc")
    pairs(tmp_path / "val", "abc", both)
    assert "no training sample holds the class 'class 2'" in messages(data.check(tmp_path, "segment"))
    # A split that was drawn here may miss a class: that is no fault of the data.
    pairs(tmp_path / "drawn", "abcd")
    picture(tmp_path / "drawn" / "labels" / "d.png", both)
    assert data.check(tmp_path / "drawn", "segment") == []


def test_identical_images_are_found(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for name in ("ant", "bee"):
            for i in range(2):
                picture(tmp_path / part / name / f"{i}.png")
    assert data.check(tmp_path, "classify") == []
    pixels = np.asarray(Image.open(tmp_path / "train" / "ant" / "0.png"))
    np.save(tmp_path / "val" / "bee" / "other.npy", pixels.astype(np.float64))  # another format, the same values
    found = messages(data.check(tmp_path, "classify"))
    assert found.count("\n") == 0 and "train/ant/0.png (train) and validation/bee/other.npy (validation)" in found
    assert "in the classes ant, bee" in found
    picture(tmp_path / "train" / "ant" / "again.png", pixels)
    (tmp_path / "val" / "bee" / "other.npy").unlink()
    assert "train/ant/0.png and train/ant/again.png hold identical pixels" in messages(data.check(tmp_path, "classify"))
    for part in ("train", "val"):  # blank images are no copies of one another
        picture(tmp_path / part / "ant" / "blank.png", np.full((8, 8), 7, np.uint8))
    assert "blank" not in messages(data.check(tmp_path, "classify"))


def scans(folder: Path, subjects: int = 6, each: int = 2) -> Path:
    return pairs(folder, [f"p{s}_t{t}" for s in range(subjects) for t in range(each)])


def test_subjects_stay_together(tmp_path: Path) -> None:
    scans(tmp_path)
    found = data.load(tmp_path, "segment", validation=2, subject_pattern=r"(p\d)_")
    assert found.validation.names == ("p4_t0", "p4_t1", "p5_t0", "p5_t1")
    assert found.rule == "the last 2 subjects of the data by name validate"
    assert data.load(tmp_path, "segment", validation=0.5, subject_pattern=r"p\d").train.names[-1] == "p2_t1"
    seen = []
    for fold in range(3):
        found = data.load(tmp_path, "segment", folds=3, fold=fold, seed=4, subject_pattern=r"p\d")
        inside = {name[:2] for name in found.validation.names}
        assert len(inside) == 2 and not inside & {name[:2] for name in found.train.names}
        seen += found.validation.names
    assert sorted(seen) == sorted(f"p{s}_t{t}" for s in range(6) for t in range(2))
    for pattern in ("(", "x", "()"):
        with pytest.raises(ConfigError, match="subject_pattern is"):
            data.load(tmp_path, "segment", subject_pattern=pattern)


def test_a_subject_in_two_parts_is_found(tmp_path: Path) -> None:
    scans(tmp_path / "train", 3)
    pairs(tmp_path / "val", ["p2_t7", "p9_t0"])
    found = messages(data.check(tmp_path, "segment", subject_pattern=r"/(p\d)"))
    assert "subject p2: is in train (train/p2_t0) and in validation (validation/p2_t7)" in found and "p9" not in found


def test_folds_have_every_class(tmp_path: Path) -> None:
    for name, count in (("ant", 6), ("bee", 9), ("cow", 4)):
        for i in range(count):
            picture(tmp_path / name / f"{i}.png")
    parts = [data.load(tmp_path, "classify", folds=3, fold=fold, seed=1) for fold in range(3)]
    assert sorted(name for part in parts for name in part.validation.names) == sorted(
        parts[0].train.names + parts[0].validation.names
    )
    counts = np.array([[part.validation.labels.count(c) for c in range(3)] for part in parts])
    assert (np.ptp(counts, axis=0) <= 1).all() and np.ptp(counts.sum(axis=1)) <= 1
    again = data.load(tmp_path, "classify", folds=3, fold=1, seed=1)
    assert again.validation.names == parts[1].validation.names
    assert data.load(tmp_path, "classify", folds=3, fold=1, seed=2).validation.names != parts[1].validation.names
    for wrong in ({"folds": 1}, {"folds": 3, "fold": 3}, {"folds": 3, "validation": 2}, {"fold": 1}, {"folds": 50},
                  {"folds": True}, {"folds": 3, "split": "x"}, {"folds": 3, "fold": -1}):  # fmt: skip
        with pytest.raises(ConfigError, match="fold"):
            data.load(tmp_path, "classify", **wrong)  # type: ignore[arg-type]


def test_split_files_are_used_again(tmp_path: Path) -> None:
    from convoxel.data.split_file import write_split

    pairs(tmp_path / "set", "abcdef")
    found = data.load(tmp_path / "set", "segment", folds=3, fold=1)
    write_split(tmp_path / "split.json", found)
    again = data.load(tmp_path / "set", "segment", split=tmp_path / "split.json")
    assert (again.train.names, again.validation.names) == (found.train.names, found.validation.names)
    assert again.notes == () and "split.json" in again.rule
    pairs(tmp_path / "set", "g")
    (note,) = data.load(tmp_path / "set", "segment", split=tmp_path / "split.json").notes
    assert note.startswith("1 sample is not used") and note.endswith("such as g")
    # as nnU-Net writes it
    folds = [{"train": ["a", "b"], "val": ["c"]}, {"train": ["b", "c"], "val": ["a"]}]
    (tmp_path / "folds.json").write_text(json.dumps(folds))
    found = data.load(tmp_path / "set", "segment", split=tmp_path / "folds.json", fold=1)
    assert (found.train.names, found.validation.names) == (("b", "c"), ("a",))
    (tmp_path / "set" / "images" / "b.png").write_bytes(b"no picture")
    assert data.load(tmp_path / "set", "segment", split=tmp_path / "folds.json", bad="skip").train.names == ("a",)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("7", "lists no samples"),
        ('{"parts": {"train": "a"}}', "lists no samples"),
        ('{"train": ["a"], "other": ["b"]}', "lists no samples"),
        ('{"train": ["a", "z"], "val": ["b"]}', "1 of 3 listed samples are not in the data"),
        ('{"train": ["a"], "val": ["a"]}', "'a' is listed in train and in validation"),
        ('{"train": ["a", "a"], "val": ["b"]}', "listed twice"),
        ('{"train": ["a"]}', "no sample to validate"),
    ],
)
def test_false_split_files(tmp_path: Path, text: str, word: str) -> None:
    pairs(tmp_path / "set", "abc")
    (tmp_path / "s.json").write_text(text)
    refused(lambda: data.load(tmp_path / "set", "segment", split=tmp_path / "s.json"), tmp_path / "s.json", word)
    with pytest.raises(ConfigError, match="fold is 2"):
        (tmp_path / "s.json").write_text('[{"train": ["a"], "val": ["b"]}]')
        data.load(tmp_path / "set", "segment", split=tmp_path / "s.json", fold=2)
