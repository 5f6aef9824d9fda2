"""Layouts of other programs: nnU-Net, the Decathlon, tables, volumes of NumPy, frames in HDF5."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from convoxel import data
from convoxel.errors import ConfigError, DataError
from tests.support.refusal import refused

RNG = np.random.default_rng(15)
SIZE = (6, 5, 4)
CHANNELS = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "box": 1}, "file_ending": ".nii.gz"}


def volume(path: Path, label: bool = False, size: tuple[int, ...] = SIZE, affine: Any = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = RNG.random(size).astype(np.float32)
    if label:
        values = (values > 0.5).astype(np.uint8)
        values[0, 0, :2] = 0, 1
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 1, 2, 1]) if affine is None else affine), path)
    return path


def cases(folder: Path, count: int = 4, **entries: Any) -> Path:
    """A raw data set of nnU-Net with two channels."""
    for i in range(count):
        for channel in range(2):
            volume(folder / "imagesTr" / f"case_{i:03d}_{channel:04d}.nii.gz")
        volume(folder / "labelsTr" / f"case_{i:03d}.nii.gz", label=True)
    folder.joinpath("dataset.json").write_text(json.dumps({**CHANNELS, "numTraining": count, **entries}))
    return folder


def test_nnunet_cases_have_their_channels_in_order(tmp_path: Path) -> None:
    cases(tmp_path)
    found = data.load(tmp_path, "segment", validation=1)
    assert data.guess_task(tmp_path) == "segment" and (found.dims, found.channels) == (3, 2)
    assert found.classes == ("background", "box") and found.train.names == ("case_000", "case_001", "case_002")
    sample = found.train[1]
    for channel in range(2):
        stored = nibabel.load(tmp_path / "imagesTr" / f"case_001_{channel:04d}.nii.gz").get_fdata()  # type: ignore[attr-defined]
        assert np.array_equal(sample.image[channel], stored.astype(np.float32))
    assert sample.spacing_mm == (1, 1, 2) and data.check(tmp_path, "segment") == []
    refused(lambda: data.load(tmp_path, "classify"), tmp_path, "a data set to segment", "nnU-Net", "task segment")
    before = found.fingerprint
    volume(tmp_path / "imagesTr" / "case_001_0001.nii.gz")
    assert data.load(tmp_path, "segment", validation=1).fingerprint != before


def test_nnunet_values_to_ignore_become_255(tmp_path: Path) -> None:
    cases(tmp_path, labels={"background": 0, "box": 1, "ignore": 2})
    stored = RNG.integers(0, 3, SIZE).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(stored, np.diag([1.0, 1, 2, 1])), tmp_path / "labelsTr/case_000.nii.gz")
    found = data.load(tmp_path, "segment", validation=1)
    assert found.classes == ("background", "box") and found.ignored == 2
    assert np.array_equal(found.train[0].label, np.where(stored == 2, 255, stored))  # type: ignore[arg-type]
    assert set(np.unique(found.train[1].label)) == {0, 1} and data.check(tmp_path, "segment") == []  # type: ignore[arg-type]
    with pytest.raises(DataError, match="ignore_label is 3"):
        data.load(tmp_path, "segment", ignore_label=3)
    with pytest.raises(ConfigError, match="ignore_label: got 3"):
        data.load("mni152", "segment", ignore_label=3)


def test_nnunet_test_cases(tmp_path: Path) -> None:
    cases(tmp_path)
    for i in range(2):
        for channel in range(2):
            volume(tmp_path / "imagesTs" / f"case_{i}_{channel:04d}.nii.gz")
    found = data.load(tmp_path, "segment")
    assert found.test is None and found.notes == ("2 test images have no label and are not used, such as case_0",)
    for i in range(2):
        volume(tmp_path / "labelsTs" / f"case_{i}.nii.gz", label=True)
    found = data.load(tmp_path, "segment")
    assert found.test is not None and found.test.names == ("test/case_0", "test/case_1") and not found.notes
    for kind in ("imagesTr", "labelsTr"):
        shutil.rmtree(tmp_path / kind)
    found = data.load(tmp_path, "segment")  # test cases alone are a set
    assert {*found.train.names, *found.validation.names} == {"case_0", "case_1"} and found.channels == 2


def test_nnunet_cases_of_earlier_versions_and_in_lists(tmp_path: Path) -> None:
    first = cases(tmp_path / "first", 3)
    listed = [{"image": "imagesTr/case_000.nii.gz", "label": "labelsTr/case_000.nii.gz"}]
    names = {"modality": {"0": "T1", "1": "T2"}, "labels": {"0": "background", "1": "box"}}
    (first / "dataset.json").write_text(json.dumps({**names, "training": listed}))
    assert data.load(first, "segment").channels == 2
    held: dict[str, dict[str, Any]] = {
        name: {
            "images": [f"imagesTr/case_{i:03d}_{channel:04d}.nii.gz" for channel in range(2)],
            "label": f"labelsTr/case_{i:03d}.nii.gz",
        }
        for name, i in (("b", 1), ("a", 0))
    }
    (first / "dataset.json").write_text(json.dumps({**CHANNELS, "dataset": held}))
    assert data.load(first, "segment").train.names == ("a",)
    held["a"]["images"] = ["../x.nii.gz", "imagesTr/case_000_0001.nii.gz"]
    (first / "dataset.json").write_text(json.dumps({**CHANNELS, "dataset": held}))
    refused(lambda: data.load(first, "segment"), first / "dataset.json", "leads out of the folder")
    (first / "dataset.json").write_text(json.dumps({**CHANNELS, "dataset": {"\ud800": {"images": ["\ud800"] * 2}}}))
    refused(lambda: data.load(first, "segment"), first / "dataset.json", "is no path")  # half a letter of UTF-16


NNUNET: dict[str, tuple[Callable[[Path], object], str]] = {
    "channel missing": (lambda f: (f / "imagesTr/case_001_0001.nii.gz").unlink(), "channel 0001 is missing"),
    "channel too many": (lambda f: volume(f / "imagesTr/case_001_0002.nii.gz"), "channel 0002 is one too many"),
    "no channel": (lambda f: volume(f / "imagesTr/case_9.nii.gz"), "the name says no channel"),
    "label missing": (lambda f: (f / "labelsTr/case_001.nii.gz").unlink(), "an image without label"),
    "label alone": (lambda f: volume(f / "labelsTr/case_9.nii.gz", label=True), "a label without image"),
    "channel elsewhere": (
        lambda f: volume(f / "imagesTr/case_001_0001.nii.gz", affine=np.diag([1.0, 1, 3, 1])),
        "case_001_0001.nii.gz",
    ),
    "channel of another size": (lambda f: volume(f / "imagesTr/case_001_0001.nii.gz", size=(6, 5, 5)), "6 × 5 × 5"),
    "two channels in a file": (lambda f: volume(f / "imagesTr/case_001_0001.nii.gz", size=(*SIZE, 2)), "2 channels"),
    "another ending": (lambda f: volume(f / "imagesTr/case_001_0001.nii"), "another ending"),
    "count": (lambda f: cases(f, numTraining=5), "numTraining is 5, but 4 cases are there"),
    "regions": (
        lambda f: cases(f, labels={"background": 0, "whole": [1, 2], "core": [0, 2]}),
        "'core' is [0, 2]; expected its label values",
    ),
    "ignore": (lambda f: cases(f, labels={"background": 0, "box": 1, "ignore": "all"}), "does not number"),
    "ignore zero": (lambda f: cases(f, labels={"background": 0, "box": 1, "ignore": 0}), "the value to ignore is 0"),
    "ignore a class": (lambda f: cases(f, labels={"background": 0, "box": 1, "ignore": 1}), "to ignore, 1, is a class"),
    "channel names": (lambda f: cases(f, channel_names={"0": "T1", "2": "T2"}), "channel_names is"),
    "no classes": (lambda f: cases(f, labels=None), "does not number"),
}


@pytest.mark.parametrize("kind", NNUNET)
def test_false_nnunet_cases(tmp_path: Path, kind: str) -> None:
    damage, words = NNUNET[kind]
    damage(cases(tmp_path))
    refused(lambda: data.load(tmp_path, "segment"), tmp_path, words)
    problems = data.check(tmp_path, "segment")
    assert any(words in problem.message for problem in problems) and len(problems) <= 2


def decathlon(folder: Path, count: int = 4, **entries: Any) -> Path:
    listed = []
    for i in range(count):
        volume(folder / "imagesTr" / f"h_{i}.nii.gz")
        volume(folder / "labelsTr" / f"h_{i}.nii.gz", label=True)
        listed.append({"image": f"./imagesTr/h_{i}.nii.gz", "label": f"./labelsTr/h_{i}.nii.gz"})
    found = {"training": listed, "test": ["./imagesTs/h_9.nii.gz"], "labels": {"0": "background", "1": "front"},
             "modality": {"0": "MRI"}, "numTraining": count, **entries}  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(found))
    return folder


def test_decathlon(tmp_path: Path) -> None:
    volume(decathlon(tmp_path) / "imagesTr" / "unlisted.nii.gz")
    found = data.load(tmp_path, "segment")
    assert found.train.names + found.validation.names == ("h_0", "h_1", "h_2", "h_3")
    assert found.classes == ("background", "front") and "1 test image has no label" in found.notes[0]
    assert data.check(tmp_path, "segment") == []


@pytest.mark.parametrize(
    ("item", "word"),
    [
        ({"image": "/etc/passwd", "label": "./labelsTr/h_0.nii.gz"}, "leads out of the folder"),
        ({"image": "./imagesTr/../../a.nii.gz", "label": "./labelsTr/h_0.nii.gz"}, "leads out of the folder"),
        ({"image": "c:\\a.nii.gz", "label": "./labelsTr/h_0.nii.gz"}, "leads out of the folder"),
        ({"image": "./imagesTr/h_0.nii.gz", "label": ["a"]}, "is no path"),
        ({"image": "./imagesTr/h\0_0.nii.gz", "label": "./labelsTr/h_0.nii.gz"}, "is no path"),
        ({"image": "./imagesTr/h_0.nii.gz"}, "the entry is"),
        ("./imagesTr/h_0.nii.gz", "the entry is"),
        ({"image": "./imagesTr/h_1.nii.gz", "label": "./labelsTr/h_1.nii.gz"}, "listed in entry 0 already"),
        ({"image": "./imagesTr/none.nii.gz", "label": "./labelsTr/h_0.nii.gz"}, "No such file"),
    ],
)
def test_false_decathlon_lists(tmp_path: Path, item: Any, word: str) -> None:
    listed = [{"image": f"./imagesTr/h_{i}.nii.gz", "label": f"./labelsTr/h_{i}.nii.gz"} for i in (1, 2, 3)]
    decathlon(tmp_path, training=[*listed, item])
    refused(lambda: data.load(tmp_path, "segment"), tmp_path, word)
    assert any(word in problem.message for problem in data.check(tmp_path, "segment"))


def test_a_file_belongs_to_one_case(tmp_path: Path) -> None:
    listed = [{"image": f"imagesTr/h_{i}.nii.gz", "label": f"labelsTr/h_{min(i, 2)}.nii.gz"} for i in range(4)]
    decathlon(tmp_path, training=listed)
    refused(lambda: data.load(tmp_path, "segment"), tmp_path / "labelsTr/h_2.nii.gz", "belongs to h_2 and to h_3")
    listed[3]["label"] = listed[3]["image"]
    decathlon(tmp_path, training=listed)
    refused(lambda: data.load(tmp_path, "segment"), tmp_path / "imagesTr/h_3.nii.gz", "two files of h_3 at once")


def test_a_description_that_nobody_needs_is_left_alone(tmp_path: Path) -> None:
    pictures(tmp_path)
    (tmp_path / "masks").rename(tmp_path / "other")
    (tmp_path / "dataset.json").write_text("{")
    assert data.load(tmp_path, "classify").classes == ("other", "scans")
    decathlon(tmp_path / "set").joinpath("dataset.json").write_text("{")
    refused(lambda: data.load(tmp_path / "set", "segment"), tmp_path / "set" / "dataset.json", "not JSON")


def pictures(folder: Path, count: int = 8) -> None:
    for i in range(count):
        for kind in ("scans", "masks"):
            path = folder / kind / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = RNG.integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(pixels if kind == "scans" else (pixels > 128).astype(np.uint8)).save(path)


def table(folder: Path, lines: str, name: str = "labels.csv") -> Path:
    pictures(folder)
    (folder / name).write_text(lines, encoding="utf-8-sig")
    return folder


def test_tables_of_other_countries_and_systems(tmp_path: Path) -> None:
    rows = "".join(f"scans/{i}.png;{i},5;p{i}\r" for i in range(8))
    table(tmp_path, f"file;value;subject\r{rows}")
    found = data.load(tmp_path, "regress")
    assert [entry.label for entry in found.train.entries] == [(float(e.name[6]) + 0.5,) for e in found.train.entries]
    table(tmp_path, 'file,value\nscans/0.png,"1,5"\n')
    refused(lambda: data.load(tmp_path, "regress"), tmp_path / "labels.csv", "line 2", "'1,5'")


def test_a_table_of_classes(tmp_path: Path) -> None:
    rows = "".join(f"scans/{i}.png;{'10' if i % 2 else '9'};p{i // 2};note\n" for i in range(8))
    table(tmp_path, f"File;Class;subject;remark\n{rows}\n")
    found = data.load(tmp_path, "classify")
    assert data.guess_task(tmp_path) == "classify" and found.classes == ("9", "10")
    assert found.validation.entries[0].subject in {"p0", "p1", "p2", "p3"} and len(found.validation) == 2
    assert {e.subject for e in found.train.entries} & {e.subject for e in found.validation.entries} == set()
    assert data.check(tmp_path, "classify") == []
    assert data.load(tmp_path / "labels.csv", "classify").fingerprint == found.fingerprint
    refused(lambda: data.load(tmp_path, "segment"), tmp_path, "a data set to classify")
    # Other layouts of the folder stay, and so does a note of that name.
    (tmp_path / "scans").rename(tmp_path / "images")
    (tmp_path / "masks").rename(tmp_path / "labels")
    assert data.load(tmp_path, "segment").train.names[0] == "0"
    (tmp_path / "labels.csv").write_text("value,name\n0,background\n1,cell\n")
    assert data.guess_task(tmp_path) == "segment" and data.check(tmp_path, "segment") == []


def test_a_table_of_label_maps(tmp_path: Path) -> None:
    parts = ["train"] * 4 + ["val"] * 2 + ["Test"] * 2
    rows = "".join(f"scans/{i}.png,{'' if i == 7 else f'masks/{i}.png'},{part}\n" for i, part in enumerate(parts))
    table(tmp_path, f"file,label,split\n{rows}", "any.csv")
    found = data.load(tmp_path / "any.csv", "segment")
    assert (found.name, data.guess_task(tmp_path / "any.csv"), found.classes[1]) == ("any", "segment", "foreground")
    assert (
        found.test is not None and found.test.names == ("scans/6.png",) and found.validation.names[0] == "scans/4.png"
    )
    assert found.notes == ("1 test image has no label and is not used, such as scans/7.png",)
    assert data.check(tmp_path / "any.csv", "segment") == []


TABLES: dict[str, tuple[str, str, str]] = {
    "no file": ("name,class\na,b\n", "line 1", "the columns name, class"),
    "no answer": ("file,split\na,train\n", "line 1", "the columns file, split"),
    "both": ("file,class,label\na,b,c\n", "line 1", "the columns file, class, label"),
    "value": ("file,class,value\na,x,1\n", "line 1", "one of class"),
    "several": ("file,class,labels\na,1,1\n", "line 1", "one of class"),
    "twice": ("file,class,class\na,1,2\n", "line 1", "two columns class"),
    "cells": ("file,class\nscans/0.png,a\nscans/1.png\n", "line 3", "1 cell; expected 2"),
    "empty class": ("file,class\nscans/0.png,a\nscans/1.png,\n", "line 3", "class is empty"),
    "empty file": ("file,class\nscans/0.png,a\n,b\n", "line 3", "is no path"),
    "same file": ("file,class\nscans/0.png,a\n./scans/0.png,b\n", "line 3", "is in line 2 already"),
    "split": ("file,class,split\nscans/0.png,a,train\nscans/1.png,b,dev\n", "line 3", "split is 'dev'"),
    "quotes": ('file,class\nscans/0.png,"a\n', "line 2", "cannot be read"),
    "outside": ("file,class\nscans/0.png,a\n../1.png,b\n", "line 3", "leads out of the folder"),
    "missing": ("file,class\nscans/0.png,a\nscans/1.png,b\nscans/99.png,b\n", "scans/99.png", "No such file"),
    "one class": ("file,class\nscans/0.png,a\nscans/1.png,a\n", "", "1 class in training"),
    "new class": ("file,class,split\nscans/0.png,a,train\nscans/1.png,b,train\nscans/2.png,c,val\n", "line 4", "'c'"),
    "capitals": ("file,class\nscans/0.png,Cat\nscans/1.png,cat\n", "", "Cat and cat are one"),
    "no subject": ("file,class,subject\nscans/0.png,a,p\nscans/1.png,b,\n", "line 3", "subject is empty"),
    "nothing": ("file,class\n", "", "no lines below its first"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_false_tables_name_the_line(tmp_path: Path, kind: str) -> None:
    text, place, words = TABLES[kind]
    table(tmp_path, text)
    where = tmp_path / place if place.startswith("scans") else tmp_path / "labels.csv"
    source = tmp_path / "labels.csv"
    refused(lambda: data.load(source, "classify"), where, words, place)
    assert any(words in problem.message for problem in data.check(source, "classify"))


def test_all_problems_of_a_table_are_found_at_once(tmp_path: Path) -> None:
    lines = "scans/0.png,a\nscans/1.png,b\nscans/2.png\n../x.png,a\nscans/0.png,b\nscans/3.png,a\nscans/4.png,b\n"
    table(tmp_path, "file,class\n" + lines)
    assert len(data.check(tmp_path, "classify")) == 3
    sound = data.load(tmp_path, "classify", bad="skip")  # without the file that has two classes
    assert sorted(sound.train.names + sound.validation.names) == ["scans/1.png", "scans/3.png", "scans/4.png"]


def test_numpy_volumes(tmp_path: Path) -> None:
    for i in range(5):
        np.save(tmp_path / f"image_train{i:02d}.npy", RNG.normal(0, 1, (4, 8, 8)).astype(np.float32))
        np.save(tmp_path / f"label_train{i:02d}.npy", RNG.integers(0, 2, (4, 8, 8)).astype(np.uint8))
        np.save(tmp_path / f"image_test{i:02d}.npy", RNG.normal(0, 1, (4, 8, 8)).astype(np.float32))
    found = data.load(tmp_path, "segment", validation=2)
    assert (found.dims, found.channels) == (3, 1) and found.validation.names == ("train03", "train04")
    assert found.notes[-1] == "5 test images have no label and are not used, such as test00" and found.test is None
    assert "read as DHW" in found.notes[0]
    assert data.check(tmp_path, "segment") == [] and data.guess_task(tmp_path) == "segment"
    (tmp_path / "label_train02.npy").unlink()
    refused(lambda: data.load(tmp_path, "segment"), tmp_path / "image_train02.npy", "image without label")
    np.save(tmp_path / "label_test00.npy", np.ones((4, 8, 8), np.uint8))
    assert len(data.load(tmp_path, "segment", bad="skip").test or ()) == 1


def frames(path: Path, subjects: int = 4, each: int = 3, first: int = 0, **entries: Any) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file["num_subjects"] = np.array([[float(subjects)]])
        for s in range(first, first + subjects):
            file[f"subject{s:06d}_num_frames"] = np.array([[each]])
            for f in range(first, first + each):
                file[f"subject{s:06d}_frame{f:08d}"] = RNG.integers(0, 255, (9, 7)).astype(np.uint8)
                file[f"subject{s:06d}_label{f:08d}"] = np.array([[float(first + (s + f) % 3)]])
        for name, value in entries.items():
            if name in file:
                del file[name]
            if value is not None:
                file[name] = value
    return path


@pytest.mark.parametrize("first", [0, 1])
def test_frames_of_subjects(tmp_path: Path, first: int) -> None:
    path = frames(tmp_path / "f.h5", first=first, num_classes=np.array([[3]]))
    found = data.load(path, "classify", validation=1)
    assert (found.dims, found.channels, found.classes) == (2, 1, tuple(str(first + i) for i in range(3)))
    assert len(found.train) == 9 and len({e.subject for e in found.validation.entries}) == 1
    assert "1 subject of the data validate" in found.rule and data.check(path, "classify") == []
    sample = found.train[1]
    assert sample.image.shape == (1, 9, 7) and sample.image.max() > 1 and isinstance(sample.label, int)
    assert sample.label == found.train.labels[1] and len(found.fingerprint) == 64
    held = [data.load(path, "classify", folds=2, fold=fold).validation.names for fold in range(2)]
    assert len(held[0]) == len(held[1]) == 6 and not set(held[0]) & set(held[1])


def test_frames_with_label_maps(tmp_path: Path) -> None:
    maps = {f"subject{s:06d}_label{f:08d}": RNG.integers(0, 2, (9, 7)).astype(np.uint8)
            for s in range(4) for f in range(3)}  # fmt: skip
    path = frames(tmp_path / "f.hdf5", **maps)
    found = data.load(path, "segment")
    assert data.guess_task(path) == "segment" and found.classes == ("background", "foreground")
    assert np.array_equal(np.asarray(found.train[2].label), maps["subject000000_label00000002"])
    refused(lambda: data.load(path, "classify"), path, "to segment")


def test_frames_have_regions_and_a_value_to_ignore(tmp_path: Path) -> None:
    maps = {f"subject{s:06d}_label{f:08d}": RNG.choice([0, 1, 2, 9], (9, 7)).astype(np.uint8)
            for s in range(4) for f in range(3)}  # fmt: skip
    path = frames(tmp_path / "f.hdf5", **maps)
    stated: dict[str, Any] = {"regions": {"whole": [1, 2], "core": 2}, "ignore_label": 9}
    found = data.load(path, "segment", **stated)
    assert found.classes == ("background", "whole", "core") and found.region_values == {"whole": (1, 2), "core": (2,)}
    held = maps["subject000000_label00000002"]
    assert np.array_equal(np.asarray(found.train[2].label), np.where(held == 9, 255, held))
    assert len(data.load(path, "segment", ignore_label=9).classes) == 3
    assert "unexpected label values 9" in data.check(path, "segment", regions=stated["regions"])[0].message
    frames(path)
    with pytest.raises(ConfigError, match="regions: given for a source without label maps"):
        data.load(path, "classify", regions=stated["regions"])


FRAMES: dict[str, tuple[dict[str, Any], str]] = {
    "subjects": ({"num_subjects": np.array([[5]])}, "it is 5, but 4 subjects have frames"),
    "count": ({"subject000001_num_frames": 4}, "it is 4, but 3 frames of subject000001 are there"),
    "not whole": ({"num_subjects": 4.5}, "it is 4.5"),
    "several": ({"num_subjects": np.arange(4)}, "shape (4,)"),
    "no label": ({"subject000001_label00000001": None}, "a frame without label"),
    "no frame": ({"subject000001_label00000009": 1}, "a label without frame"),
    "shape": ({"subject000001_frame00000001": np.zeros((3, 9, 7))}, "shape (3, 9, 7)"),
    "label": ({"subject000001_label00000001": np.zeros(5)}, "a label of shape (5,)"),
    "half": ({"subject000001_label00000001": 0.5}, "not whole"),
    "classes": ({"num_classes": 2}, "class numbers 0, 1, 2"),
    "gap": ({"subject000001_label00000001": 7}, "class numbers 0, 1, 2, 7"),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_false_frames(tmp_path: Path, kind: str) -> None:
    entries, words = FRAMES[kind]
    path = frames(tmp_path / "f.h5", **entries)
    refused(lambda: data.load(path, "classify"), path, words)
    assert any(words in problem.message for problem in data.check(path, "classify"))


def test_other_hdf5_files(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = 1
    refused(lambda: data.load(tmp_path / "a.h5", "classify"), tmp_path / "a.h5", "it holds x")
    (tmp_path / "b.h5").write_bytes(b"no file")
    refused(lambda: data.load(tmp_path / "b.h5", "classify"), tmp_path / "b.h5", "HDF5")
    assert data.guess_task(tmp_path / "b.h5") == "classify"
