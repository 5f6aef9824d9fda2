"""Class folders, and what holds for every data set: cache, statistics, fingerprint, arguments."""

from __future__ import annotations

import shutil
import unicodedata
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


def pictures(folder: Path, count: int = 6) -> Path:
    """A small class folder: three classes of different size."""
    for c, name in enumerate(("ant", "bee", "cow")):
        for i in range(count * (c + 1)):
            put(folder / name / f"{i:03d}.png", RNG.integers(0, 256, (8, 8, 3), np.uint8))
    return folder


def volumes(folder: Path, count: int = 5, ending: str = ".nii.gz") -> Path:
    """A small segmentation folder: three classes in every label."""
    for i in range(count):
        label = RNG.integers(0, 3, (6, 5, 4)).astype(np.uint8)
        label[0, 0, :3] = 0, 1, 2
        put(folder / "images" / f"case_{i}{ending}", RNG.random((6, 5, 4)).astype(np.float32))
        put(folder / "labels" / f"case_{i}{ending}", label)
    return folder


def test_class_folder_is_divided_in_proportion(tmp_path: Path) -> None:
    found = data.load(pictures(tmp_path), "classify", validation=0.25, seed=3)
    assert found.classes == ("ant", "bee", "cow") and (found.dims, found.channels) == (2, 3)
    assert len(found.train) == 27 and len(found.validation) == 9
    assert [found.validation.labels.count(c) for c in range(3)] == [2, 3, 4]  # a quarter of 6, 12 and 18
    assert not set(found.train.names) & set(found.validation.names)
    sample = found.train[0]
    assert sample.name == found.train.names[0] and sample.label == 0 and sample.image.shape == (3, 8, 8)
    again = data.load(tmp_path, "classify", validation=0.25, seed=3)
    assert again.train.names == found.train.names and again.fingerprint == found.fingerprint
    other = data.load(tmp_path, "classify", validation=0.25, seed=4)
    assert other.validation.names != found.validation.names and other.fingerprint == found.fingerprint
    assert len(data.load(tmp_path, "classify", validation=3).validation) == 3


def test_names_of_classes_are_what_folders_are_called(tmp_path: Path) -> None:
    """Other systems write the letters of a folder's name decomposed; a line feed is shown as two letters."""
    names = ("=1+1", "a; b", "line\nfeed", "none", "M\u00fcll")
    for form, folder in (("NFC", tmp_path / "a"), ("NFD", tmp_path / "b")):
        for name in names:
            for i in range(2):
                picture = RNG.integers(0, 256, (8, 8), np.uint8)
                put(folder / unicodedata.normalize(form, name) / f"{i}.png", picture)
    known = data.load(tmp_path / "a", "classify", validation=0.5).classes
    assert sorted(known) == sorted(("=1+1", "a; b", "line\\nfeed", "none", "M\u00fcll"))
    found = data.load(tmp_path / "b", "classify", whole=True, classes=known)
    assert found.classes == known and [known[int(str(label))] for label in found.split("all").labels] == [
        sample.name.rpartition("/")[0].replace("u\u0308", "\u00fc") for sample in found.split("all")
    ]
    rows = "".join(f"{name}/{i}.png,{name.replace('u', 'u')}\n" for name in ("none", "M\u00fcll") for i in range(2))
    (tmp_path / "a" / "labels.csv").write_text("file,class\n" + unicodedata.normalize("NFC", rows))
    assert data.load(tmp_path / "a", "classify", validation=0.5).classes == ("M\u00fcll", "none")


@pytest.mark.parametrize("names", [["none", "a"], ["a; b", "a"], ["a|b", "a"], ["", "a"], ["u\u0308", "\u00fc"]])
def test_names_that_could_mean_several_classes_are_refused(tmp_path: Path, names: list[str]) -> None:
    images, held = RNG.integers(0, 256, (8, 8, 8)).astype(np.uint8), np.arange(16).reshape(8, 2) // 3 % 2
    np.savez(tmp_path / "a.npz", images=images, labels=held, classes=np.array(names))
    refused(lambda: data.load(tmp_path / "a.npz", "classify"), "a", "class")
    if names[0] in ("none", "a; b"):  # of images of one class each, every name is one
        np.savez(tmp_path / "a.npz", images=images, labels=held[:, 0], classes=np.array(names))
        assert data.load(tmp_path / "a.npz", "classify").classes == tuple(names)


def test_class_folder_with_parts(tmp_path: Path) -> None:
    pictures(tmp_path / "train", 2)
    pictures(tmp_path / "test", 1)
    found = data.load(tmp_path, "classify")
    # A test part that chose the checkpoint would test nothing, so the training part is cut.
    assert found.test is not None and (len(found.train), len(found.validation), len(found.test)) == (10, 2, 6)
    assert found.test.names[0] == "test/ant/000.png" and all(n.startswith("train/") for n in found.validation.names)
    assert found.rule == "2 of the training part validate, of every class in proportion, drawn by seed 0"
    former = data.load(tmp_path, "classify", validation="test")  # runs of earlier versions
    assert (len(former.train), len(former.validation), former.test) == (12, 6, None)
    held = data.load(tmp_path, "classify", validation=0.5)
    assert held.test is not None and (len(held.train), len(held.validation), len(held.test)) == (6, 6, 6)
    assert all(name.startswith("train/") for name in held.validation.names)
    pictures(tmp_path / "val", 1)
    with pytest.raises(ConfigError, match="validation part of 6"):
        data.load(tmp_path, "classify", validation=0.5)
    found = data.load(tmp_path, "classify")
    assert found.test is not None and found.validation.names[0] == "validation/ant/000.png"
    put(tmp_path / "test" / "dog" / "a.png", np.zeros((8, 8, 3), np.uint8))
    refused(
        lambda: data.load(tmp_path, "classify"),
        tmp_path / "test" / "dog",
        "does not occur in training",
        "ant, bee, cow",
    )


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("train", "plane"):
        for i in range(3):
            put(tmp_path / name / f"{i}.png", np.full((4, 4), i, np.uint8))
    assert data.load(tmp_path, "classify").classes == ("plane", "train")


def test_grey_pictures_follow_a_colour_set(tmp_path: Path) -> None:
    pictures(tmp_path, 2)
    put(tmp_path / "ant" / "000.png", np.full((8, 8), 9, np.uint8))
    rgba = np.dstack([np.full((8, 8, 3), 7, np.uint8), np.full((8, 8), 255, np.uint8)])
    put(tmp_path / "ant" / "001.png", rgba)
    found = data.load(tmp_path, "classify")
    images = {s.name: s.image for part in (found.train, found.validation) for s in part}
    assert images["ant/000.png"].shape == (3, 8, 8) and (images["ant/000.png"] == 9).all()
    assert (images["ant/001.png"] == 7).all()


def test_broken_class_folders(tmp_path: Path) -> None:
    refused(lambda: data.load(tmp_path, "classify"), tmp_path, "0 class folders")
    (tmp_path / "ant").mkdir()
    refused(lambda: data.load(tmp_path, "classify"), tmp_path, "1 class folder")
    pictures(tmp_path)
    (tmp_path / "dog").mkdir()
    refused(lambda: data.load(tmp_path, "classify"), tmp_path / "dog", "the class folder is empty")
    shutil.rmtree(tmp_path / "dog")
    broken = tmp_path / "ant" / "003.png"
    broken.write_bytes(b"no picture")
    refused(lambda: data.load(tmp_path, "classify"), broken, "no PNG, JPEG or TIFF")
    put(tmp_path / "stray.png", np.zeros((8, 8), np.uint8))
    np.save(tmp_path / "bee" / "x.npy", np.zeros((3, 4, 5, 6)))
    problems = data.check(tmp_path, "classify")
    assert sorted(p.name for p in problems) == ["ant/003.png", "bee/x.npy", "stray.png"]
    sound = data.load(tmp_path, "classify", bad="skip")
    assert len(sound.skipped) == 3 and "ant/003.png" not in sound.train.names + sound.validation.names


def test_fingerprint_sees_every_change(tmp_path: Path) -> None:
    pictures(tmp_path / "a", 2)
    marks = {data.load(tmp_path / "a", "classify").fingerprint}
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    marks.add(data.load(tmp_path / "b", "classify").fingerprint)
    assert len(marks) == 1
    (tmp_path / "b" / "ant" / "000.png").rename(tmp_path / "b" / "ant" / "zzz.png")
    marks.add(data.load(tmp_path / "b", "classify").fingerprint)
    put(tmp_path / "a" / "ant" / "000.png", np.zeros((8, 8, 3), np.uint8))
    marks.add(data.load(tmp_path / "a", "classify").fingerprint)
    (tmp_path / "a" / "ant" / "000.png").unlink()
    found = data.load(tmp_path / "a", "classify")
    marks.add(found.fingerprint)
    assert len(marks) == 4
    again = data.load(tmp_path / "a", "classify")
    (tmp_path / "a" / "ant" / "001.png").unlink()
    refused(lambda: again.fingerprint, tmp_path / "a" / "ant" / "001.png", "Load the data set again")


def test_cache_keeps_what_fits(tmp_path: Path) -> None:
    from convoxel.data.data_set import Cache

    found = data.load(volumes(tmp_path, 5), "segment")
    assert found.train[0] is found.train[0] and found.train[0] is next(iter(found.train))
    with pytest.raises(ValueError, match="read-only"):
        found.train[0].image[0] = 1
    small = data.Split(found.train.entries, Cache(found.train[0].size_bytes * 2))
    assert small[0] is small[0] and small[1] is small[1] and small[2] is not small[2]
    assert small[0] is small[0] and small.cache.used_bytes <= small.cache.limit_bytes
    with pytest.raises(IndexError):
        found.train[99]


def test_intensity(tmp_path: Path) -> None:
    found = data.load(pictures(tmp_path), "classify")
    values = np.stack([s.image for s in found.train]).transpose(1, 0, 2, 3).reshape(3, -1).astype(np.float64)
    assert np.allclose(found.intensity.mean, values.mean(1)) and np.allclose(found.intensity.std, values.std(1))
    assert found.intensity.low == tuple(values.min(1)) and found.intensity.high == tuple(values.max(1))


def test_wrong_arguments(tmp_path: Path) -> None:
    volumes(tmp_path, 3)
    with pytest.raises(ConfigError, match=r"expected 'segment', 'classify' or 'regress'. Did you mean 'segment'"):
        data.load(tmp_path, "segmentation")
    with pytest.raises(ConfigError, match="gap is 3"):
        data.load(tmp_path, "segment", gap=3)
    with pytest.raises(ConfigError, match="'mni152' serve the task 'segment'"):
        data.load("mni152", "classify")
    with pytest.raises(ConfigError, match="bad is 'ignore'"):
        data.load(tmp_path, "segment", bad="ignore")
    with pytest.raises(ConfigError, match="source is 7"):
        data.load(7, "segment")  # type: ignore[arg-type]
    refused(lambda: data.load("a\0b", "segment"), "a\\x00b", "no such folder")
    refused(lambda: data.load("x" * 5000, "segment"), "xxx", "no such folder")
    with pytest.raises(DataError, match=r"Did you mean 'digits'\?$"):
        data.load("digitz", "classify")
