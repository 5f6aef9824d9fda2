"""NumPy's axes: what is known or stated decides what they mean, and two likely meanings are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convoxel import data
from convoxel.data.axes import check_axes, find_axes
from convoxel.errors import ConfigError
from tests.support.refusal import refused

RNG = np.random.default_rng(17)
FLOATS, BYTES = np.dtype("f4"), np.dtype("u1")


@pytest.mark.parametrize(
    ("shape", "dtype", "known", "axes"),
    [
        ((9,), FLOATS, {}, "W"),
        ((9, 8), FLOATS, {}, "HW"),
        ((9, 8, 7), FLOATS, {}, "DHW"),
        ((9, 8, 1), FLOATS, {}, "HWC"),
        ((1, 9, 8), FLOATS, {}, "CHW"),
        ((9, 8, 7, 1), BYTES, {}, "DHWC"),
        ((9, 1), FLOATS, {}, "WC"),
        ((9, 8, 3), BYTES, {}, "HWC"),
        ((9, 8, 4), BYTES, {}, "HWC"),
        ((9, 8, 3), FLOATS, {"channels_last": True}, "HWC"),
        ((9, 8, 3), FLOATS, {"dims": 2}, "HWC"),
        ((3, 9, 8), FLOATS, {"dims": 2}, "CHW"),
        ((3, 9, 8), FLOATS, {"dims": 3}, "DHW"),
        ((3, 9, 8), FLOATS, {"channels": 3}, "CHW"),
        ((3, 9, 8), FLOATS, {"channels": 1}, "DHW"),
        ((3, 9, 8), FLOATS, {"grid": (9, 8)}, "CHW"),
        ((3, 9, 8), FLOATS, {"grid": (3, 9, 8)}, "DHW"),
        ((9, 8, 3), BYTES, {"grid": (9, 8, 3)}, "DHW"),
        ((12, 9, 8), FLOATS, {"dims": 2, "channels": 12}, "CHW"),
        ((12, 9, 8), FLOATS, {"axes": "CHW"}, "CHW"),
        ((12, 9, 8), FLOATS, {"axes": "NCHW"}, "CHW"),
        ((2, 9, 8, 7), FLOATS, {}, "CDHW"),
        ((9, 8, 7, 2), FLOATS, {}, "DHWC"),
        ((12, 99), FLOATS, {"dims": 1, "channels": 12}, "CW"),
    ],
)
def test_meanings(shape: tuple[int, ...], dtype: Any, known: dict[str, Any], axes: str) -> None:
    assert find_axes("a.npy", shape, dtype, **known) == axes


@pytest.mark.parametrize(
    ("shape", "dtype", "known", "words"),
    [
        ((3, 9, 8), FLOATS, {}, ("(3, 9, 8)", "DHW or CHW", "--axes DHW")),
        ((3, 9, 8), BYTES, {"channels_last": True}, ("DHW or CHW",)),
        ((9, 8, 3), FLOATS, {}, ("DHW or HWC",)),
        ((9, 8, 2), BYTES, {}, ("DHW or HWC",)),
        ((3, 99), FLOATS, {}, ("HW or CW",)),
        ((3, 9, 3), FLOATS, {"dims": 2}, ("CHW or HWC",)),
        ((12, 9, 8), FLOATS, {"dims": 2}, ("CHW or HWC",)),
        ((9, 8, 7, 6), FLOATS, {}, ("CDHW or DHWC",)),
        ((2, 3, 4, 5, 6), FLOATS, {}, ("5 axes",)),
        ((9, 8), FLOATS, {"axes": "CHW"}, ("2 axes", "3 axes, as axes='CHW' states")),
    ],
)
def test_two_likely_meanings_are_refused(
    shape: tuple[int, ...], dtype: Any, known: dict[str, Any], words: tuple[str, ...]
) -> None:
    refused(lambda: find_axes("a.npy", shape, dtype, **known), "a.npy", *words)


@pytest.mark.parametrize("axes", ["", "CN", "XYZ", "WH", "HWN", "CHWC", "C", 3, "hwc"])
def test_words_that_name_no_axes(axes: Any) -> None:
    with pytest.raises(ConfigError, match="axes is"):
        check_axes(axes)


@pytest.mark.parametrize(
    ("axes", "shape"), [("CHW", (3, 9, 8)), ("HWC", (9, 8, 3)), ("DHW", (9, 8, 3)), ("DHWC", (9, 8, 7, 5))]
)
@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_a_file_is_read_as_stated(tmp_path: Path, axes: str, shape: tuple[int, ...], ending: str) -> None:
    from convoxel.data.image_file import map_image

    array = RNG.random(shape).astype(np.float32)
    (np.save if ending == ".npy" else np.savez)(tmp_path / f"a{ending}", array)
    expected = np.moveaxis(array, axes.index("C"), 0) if "C" in axes else array[None]
    image = data.read_image(tmp_path / f"a{ending}", axes=axes).image
    assert np.array_equal(image, expected) and image.flags.c_contiguous
    mapped = map_image(tmp_path / f"a{ending}", axes=axes).image
    assert mapped.shape == expected.shape and np.array_equal(mapped[:, 2:5], expected[:, 2:5])
    refused(lambda: data.read_image(tmp_path / f"a{ending}", axes="W"), tmp_path / f"a{ending}", "1 axes, as axes='W'")


def pairs(root: Path, shape: tuple[int, ...], label: tuple[int, ...], dtype: str = "f4") -> Path:
    for part in ("images", "labels"):
        (root / part).mkdir(parents=True)
    for i in range(3):
        np.save(root / "images" / f"{i}.npy", (RNG.random(shape) * 200).astype(dtype))
        np.save(root / "labels" / f"{i}.npy", RNG.integers(0, 2, label).astype(np.uint8))
    return root


@pytest.mark.parametrize(
    ("shape", "label", "axes", "size"),
    [
        ((3, 9, 8), (9, 8), "CHW", (3, 9, 8)),
        ((9, 8, 3), (9, 8), "HWC", (3, 9, 8)),
        ((9, 8, 12), (9, 8), "HWC", (12, 9, 8)),
        ((9, 8, 1), (9, 8, 1), "HWC", (1, 9, 8)),
        ((9, 8, 1), (9, 8), "HWC", (1, 9, 8)),
        ((9, 8), (1, 9, 8), "HW", (1, 9, 8)),
        ((9, 8, 3), (9, 8, 3), "DHW", (1, 9, 8, 3)),
        ((5, 9, 8, 7), (9, 8, 7), "CDHW", (5, 9, 8, 7)),
        ((9, 8, 7, 5), (1, 9, 8, 7), "DHWC", (5, 9, 8, 7)),
    ],
)
def test_labels_tell_the_axes_of_images(
    tmp_path: Path, shape: tuple[int, ...], label: tuple[int, ...], axes: str, size: tuple[int, ...]
) -> None:
    root = pairs(tmp_path / "set", shape, label)
    found = data.load(root, "segment")
    sample = found.train[0]
    stored = np.load(root / "images" / "0.npy")
    expected = np.moveaxis(stored, axes.index("C"), 0) if "C" in axes else stored[None]
    assert sample.image.shape == size and np.array_equal(sample.image, expected)
    assert isinstance(sample.label, np.ndarray) and sample.label.shape == size[1:]
    assert any(f"read as {axes}" in note for note in found.notes) and data.check(root, "segment") == []


def archive(path: Path, shape: tuple[int, ...], dtype: str = "u1", labels: Any = None) -> Path:
    images, others = (RNG.random((2, 12, *shape)) * 200).astype(dtype)
    labels = np.arange(12) % 2 if labels is None else labels
    np.savez(path, train_images=images, train_labels=labels, val_images=others, val_labels=labels)
    return path


@pytest.mark.parametrize(
    ("shape", "dtype", "axes", "size"),
    [
        ((28, 28, 1), "u1", "HWC", (1, 28, 28)),
        ((28, 28, 3), "f4", "HWC", (3, 28, 28)),
        ((1, 28, 28), "f4", "CHW", (1, 28, 28)),
        ((28, 28), "f4", "HW", (1, 28, 28)),
        ((9, 9, 9), "u1", "DHW", (1, 9, 9, 9)),
        ((9, 9, 9, 1), "u1", "DHWC", (1, 9, 9, 9)),
        ((9, 9, 9, 3), "u1", "DHWC", (3, 9, 9, 9)),
        ((100,), "f4", "W", (1, 100)),
        ((100, 1), "f4", "WC", (1, 100)),
    ],
)
def test_sets_of_arrays(tmp_path: Path, shape: tuple[int, ...], dtype: str, axes: str, size: tuple[int, ...]) -> None:
    path = archive(tmp_path / "a.npz", shape, dtype)
    found = data.load(path, "classify")
    stored = np.load(path)["train_images"][5]
    expected = np.moveaxis(stored, axes.index("C"), 0) if "C" in axes else stored[None]
    assert found.train[5].image.shape == size and np.array_equal(found.train[5].image, expected)
    assert found.train.shapes[5] == size[1:] and found.channels == size[0]
    assert f"N{axes}" in found.notes[0]


def test_sets_of_arrays_that_may_be_two_things(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz", (3, 28, 28))
    refused(lambda: data.load(path, "classify"), path, "DHW or CHW", "--axes")
    for axes, size in (("NCHW", (3, 28, 28)), ("CHW", (3, 28, 28)), ("NDHW", (1, 3, 28, 28))):
        assert data.load(path, "classify", axes=axes).train[0].image.shape == size
        assert data.check(path, "classify", axes=axes) == []
    with pytest.raises(ConfigError, match="axes is 'XYZ'"):
        data.load(path, "classify", axes="XYZ")
    masks = RNG.integers(0, 2, (12, 28, 28, 1))
    found = data.load(archive(tmp_path / "b.npz", (3, 28, 28), "f4", masks), "segment")
    assert found.train[0].image.shape == (3, 28, 28) and np.array_equal(found.train[3].label, masks[3, ..., 0])  # type: ignore[arg-type]


def test_folders_of_arrays_that_may_be_two_things(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(3):
            np.save(tmp_path / name / f"{i}.npy", RNG.random((9, 8, 3)))
    refused(lambda: data.load(tmp_path, "classify"), tmp_path / "a" / "0.npy", "DHW or HWC", "--axes")
    assert len(data.check(tmp_path, "classify")) >= 6
    found = data.load(tmp_path, "classify", axes="HWC")
    assert found.train[0].image.shape == (3, 9, 8) and "HWC" in found.notes[0]
    assert data.check(tmp_path, "classify", axes="HWC") == []
