"""Prediction in memory of a tile: peaks counted in bytes, the same numbers as in memory."""

import tracemalloc
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from convoxel.data import mapped_image, nifti, resample
from convoxel.data.image_file import map_image, read_image
from convoxel.data.image_output import write_label
from convoxel.data.mapped_image import MappedImage
from convoxel.data.resample import AxisSampling, resample_image
from convoxel.files import file_array, gzip_stream
from convoxel.files.file_array import FileArray, new_array
from convoxel.predict.normalisation import Normalisation
from convoxel.predict.sliding_window import Tiling, best_classes, blend_parts, blend_slabs, join_slabs, sliding_window
from convoxel.predict.stage_clock import measure_stages, stage, staged

Floats = NDArray[np.float32]


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits as if images of some kilobytes were large."""
    monkeypatch.setattr(file_array, "MOST_IN_MEMORY", 0)
    monkeypatch.setattr(file_array, "_SPAN", 1 << 14)
    monkeypatch.setattr(mapped_image, "_SLAB", 1 << 14)
    monkeypatch.setattr(gzip_stream, "_BLOCK", 1 << 14)
    monkeypatch.setattr(gzip_stream, "_MOST_THREADS", 1)  # each has a state of 270 KB
    monkeypatch.setattr(nifti, "_PIECE", 1 << 14)
    monkeypatch.setattr(resample, "_PART", 1 << 12)


def network(tiles: Floats) -> Floats:
    return np.concatenate([np.sin(tiles), tiles * 0.5, -tiles], axis=1)


def save(path: Path, size: tuple[int, ...], dtype: str) -> None:
    values = np.random.default_rng(0).integers(-90 if dtype == "i2" else 1, 200, size).astype(dtype)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)


def predict(source: Path, target: Path) -> None:
    sample = map_image(source, 3, 1)
    assert isinstance(sample.image, MappedImage)
    statistics = Normalisation("sample").statistics(sample.image)
    label = new_array(sample.image.shape[1:], np.uint8, (2, 1, 0))
    tiling = Tiling((16, 16, 16), 0.25, fill=statistics.floor)
    for box, logits in blend_parts(lambda tiles: network(statistics.normalise(tiles[0])[None]), sample.image, tiling):
        label[box] = best_classes(logits)
    write_label(target, label, like=sample)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(("dtype", "ending"), [("u1", ".nii"), ("i2", ".nii.gz")])
def test_memory_does_not_grow_with_the_image(tmp_path: Path, dtype: str, ending: str) -> None:
    """Peaks from file to file, for 3.4 times as many voxels; the classes are those of the whole image."""
    peaks = []
    for side in (48, 48, 72):  # the first run loads modules
        source, target = tmp_path / f"{side}{ending}", tmp_path / f"{side}-out.nii.gz"
        save(source, (side, side, side), dtype)
        tracemalloc.start()
        try:
            predict(source, target)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[2] <= 1.2 * peaks[1], peaks
    image = read_image(source, 3, 1).image
    statistics = Normalisation("sample").statistics(image)
    wanted = sliding_window(network, statistics.normalise(image), (16, 16, 16), 0.25)
    assert np.array_equal(np.asarray(nibabel.load(target).dataobj), wanted.argmax(axis=0))


@pytest.mark.usefixtures("small_parts")
def test_blending_in_files_has_the_bits_of_blending_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).normal(size=(1, 23, 19, 17)).astype(np.float32)
    tiling = Tiling((8, 6, 5), 0.6)
    found = join_slabs(blend_slabs(network, image, tiling), 23)
    monkeypatch.setattr(file_array, "MOST_IN_MEMORY", 1 << 30)
    assert np.array_equal(found, sliding_window(network, image, (8, 6, 5), 0.6))


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("orders", [(3, 3, 3), (1, 3, 3)])
def test_resampling_in_blocks_has_the_bits_of_resampling_in_memory(
    orders: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(0).integers(0, 9, (2, 21, 26, 17)).astype(np.uint8)
    samplings = [AxisSampling(21, 33, 0.64), AxisSampling(26, 26), AxisSampling(17, 9, 1.8)]
    mapped = resample_image(MappedImage(values), samplings, orders, new_array)
    assert isinstance(mapped, FileArray)
    monkeypatch.setattr(resample, "_PART", 1 << 22)
    assert np.array_equal(mapped[:,], resample_image(values.astype(np.float32), samplings, orders))


def test_counts_give_the_statistics_of_values(tmp_path: Path) -> None:
    for dtype in ("u1", "i2", "u2"):
        values = np.random.default_rng(0).integers(3, 200, (2, 9, 8, 7)).astype(dtype)
        counted = Normalisation("sample").statistics(MappedImage(values, -0.5, 3.0))
        measured = Normalisation("sample").statistics(values.astype(np.float32) * np.float32(-0.5) + 3)
        for name, found in vars(counted).items():
            np.testing.assert_array_equal(found, getattr(measured, name), err_msg=f"{dtype} {name}")
    flat = Normalisation("sample").statistics(MappedImage(np.full((1, 4, 4), 7, np.uint8)))
    assert (flat.mean, flat.std, flat.floor) == (7.0, 1.0, 7.0)


def test_values_that_a_slope_makes_infinite_are_refused(tmp_path: Path) -> None:
    assert MappedImage(np.ones((1, 2, 2), np.int16), 1e30).is_finite()
    assert not MappedImage(np.ones((1, 2, 2), np.int16), 1e35).is_finite()
    assert not MappedImage(np.full((1, 2, 2), np.nan, np.float32)).is_finite()


def test_stages_count_each_second_once() -> None:
    with measure_stages() as clock, stage("blend"):
        assert list(staged("network", (number for number in range(3)))) == [0, 1, 2]
        with stage("prepare"), stage("network"):
            pass
    assert min(clock.seconds[name] for name in ("blend", "network", "prepare")) > 0
    assert clock.seconds["read"] == clock.seconds["write"] == 0
    with stage("read"):  # nobody measures
        pass
