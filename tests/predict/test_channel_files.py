"""Images whose channels are files of their own: how they are found, read, named, kept and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from convoxel import data
from convoxel.data.channel_files import group_channels, map_channels, read_channels
from convoxel.data.mapped_image import MappedImage
from convoxel.errors import DataError
from convoxel.files import file_array
from convoxel.files.fault import ErrorCollector
from convoxel.predict.archive import ArchiveOptions
from convoxel.predict.case_files import find_images
from convoxel.predict.case_manifest import CaseRecord
from convoxel.predict.file_prediction import predict_files
from convoxel.predict.inference import Predictor
from tests.predict.test_archive import AGAIN, SKIP, Bright, states
from tests.support.refusal import refused

SHAPE = (5, 4, 3)


class Larger(Bright):
    """A predictor whose label map is 1 where the second channel is larger than the first."""

    def __init__(self, channels: int = 2, raw: bool = False) -> None:
        super().__init__()
        self.run.data.__dict__.update(dims=3, channels=channels, channel_files=raw)

    def label_map(self, sample: data.Sample, *_: Any) -> Any:
        self._see(sample)
        image = np.asarray(sample.image[:, :, :, :])
        return (image[-1] > image[0]).astype(np.uint8)


def larger(**options: Any) -> Predictor:
    return cast(Predictor, Larger(**options))


def write(path: Path, values: object, shift: float = 0.0, **scaling: float) -> NDArray[Any]:
    """Write a NIfTI file and return its values."""
    array = np.asarray(values)
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[0, 3] = shift
    image = nibabel.Nifti1Image(array, affine)  # type: ignore[attr-defined]
    if scaling:
        image.header.set_slope_inter(scaling["slope"], 0.0)
    nibabel.save(image, path)  # type: ignore[attr-defined]
    return array


def cases(folder: Path, count: int = 3, channels: int = 2) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for case in range(count):
        for channel in range(channels):
            write(folder / f"c{case}_{channel:04d}.nii.gz", rng.integers(0, 99, SHAPE).astype(np.int16))
    return folder


def label(path: Path) -> NDArray[Any]:
    return np.asarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined]


def names(folder: Path, predictor: Predictor) -> list[tuple[str, str, int]]:
    found = find_images(folder, predictor.run.data, ErrorCollector())
    return [(image.name, image.stem, len(image.files)) for image in found]


def test_files_of_one_case_are_one_image(tmp_path: Path) -> None:
    folder = cases(tmp_path / "in")
    told: list[str] = []
    files = predict_files(larger(), folder, tmp_path / "out", archive=AGAIN, on_note=told.append)
    assert [path.name for path in files] == ["c0.nii.gz", "c1.nii.gz", "c2.nii.gz"]
    for path in files:
        first, second = (label(folder / f"{path.name[:2]}_000{channel}.nii.gz") for channel in range(2))
        assert np.array_equal(label(path), second > first)
    assert told == ["3 images of 2 files, one a channel; the first: c0_0000.nii.gz, c0_0001.nii.gz make c0"]
    assert states(tmp_path) == dict.fromkeys(("c0", "c1", "c2"), "done")
    # A channel that changes is a change of the image, whichever it is.
    write(folder / "c1_0001.nii.gz", np.full(SHAPE, 50, np.int16))
    records: list[CaseRecord] = []
    predict_files(larger(), folder, tmp_path / "out", archive=AGAIN, on_case=records.append)
    assert {record.file: record.state for record in records} == {"c0": "skipped", "c1": "done", "c2": "skipped"}


def test_parts_share_out_cases_and_not_files(tmp_path: Path) -> None:
    folder = cases(tmp_path / "in")
    found = [
        predict_files(larger(), folder, tmp_path / "out", archive=ArchiveOptions("skip", part=(number, 2)))
        for number in (1, 2)
    ]
    assert [[path.name for path in part] for part in found] == [["c0.nii.gz", "c2.nii.gz"], ["c1.nii.gz"]]


@pytest.mark.parametrize("named", ["c1_0000.nii.gz", "c1_0001.nii.gz"])
def test_any_file_of_a_case_stands_for_it(tmp_path: Path, named: str) -> None:
    folder = cases(tmp_path / "in")
    (path,) = predict_files(larger(), folder / named, tmp_path / "map.nii.gz")
    first, second = (label(folder / f"c1_000{channel}.nii.gz") for channel in range(2))
    assert path.name == "map.nii.gz" and np.array_equal(label(path), second > first)


def test_a_channel_that_is_missing_or_one_too_many_is_named(tmp_path: Path) -> None:
    folder = cases(tmp_path / "in")
    (folder / "c0_0000.nii.gz").unlink()
    write(folder / "c2_0002.nii.gz", np.zeros(SHAPE, np.int16))
    records: list[CaseRecord] = []
    files = predict_files(larger(), folder, tmp_path / "out", archive=SKIP, on_case=records.append)
    assert [path.name for path in files] == ["c1.nii.gz"]
    reasons = {record.file: record.reason for record in records if record.state == "failed"}
    assert list(reasons) == ["c0", "c2"]
    assert "c0_0000.nii.gz: channel 0000 is missing beside c0_0001.nii.gz" in reasons["c0"]
    assert "c2_0002.nii.gz" in reasons["c2"] and "0000 to 0001" in reasons["c2"]
    refused(lambda: predict_files(larger(), folder, tmp_path / "x"), folder / "c0_0000.nii.gz", "Add the missing file")
    only = folder / "c0_0001.nii.gz"
    refused(lambda: predict_files(larger(), only, tmp_path / "x.nii.gz"), folder / "c0_0000.nii.gz", "c0_0001.nii.gz")
    write(folder / "c1_0001.nii", np.zeros(SHAPE, np.int16))
    twice = "a second file of channel 0001"
    with pytest.raises(DataError, match=twice):
        find_images(folder / "c1_0000.nii.gz", larger().run.data, ErrorCollector())


@pytest.mark.parametrize("wrong", ["size", "place", "channels"])
def test_channels_lie_on_one_grid_and_hold_one_each(tmp_path: Path, wrong: str) -> None:
    folder = cases(tmp_path / "in", 1)
    other = folder / "c0_0001.nii.gz"
    if wrong == "channels":
        write(other, np.zeros((*SHAPE, 2), np.int16))
    else:
        write(other, np.zeros((5, 4, 4) if wrong == "size" else SHAPE, np.int16), 0.6 * (wrong == "place"))
    words = {"size": "5 × 4 × 4", "place": "lies elsewhere", "channels": "2 channels"}
    for read in (read_channels, map_channels):
        refused(lambda read=read: read([folder / "c0_0000.nii.gz", other], 3, 2), other, words[wrong])  # type: ignore[misc]


def test_values_of_files_are_those_of_one_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    files = [tmp_path / f"a_000{channel}.nii" for channel in range(3)]
    for path, scaling in zip(files, ({}, {"slope": 0.5}, {}), strict=True):
        write(path, rng.integers(-99, 99, SHAPE).astype(np.int16), **scaling)
    expected = np.stack([data.read_image(path).image[0] for path in files])
    for most in (2**20, 0):  # in memory, and in a file
        monkeypatch.setattr(file_array, "MOST_IN_MEMORY", most)
        for chosen in ([0, 1, 2], [0, 2]):
            sample = map_channels([files[index] for index in chosen], 3, len(chosen))
            assert isinstance(sample.image, MappedImage) and sample.name == "a"
            assert sample.image.stored.dtype == (np.float32 if 1 in chosen else np.int16)
            assert np.array_equal(sample.image[:, :, :, :], expected[chosen])
            assert np.array_equal(read_channels([files[i] for i in chosen], 3, len(chosen)).image, expected[chosen])


def test_numbers_of_another_meaning_stay(tmp_path: Path) -> None:
    one, raw = larger(channels=1), larger(channels=1, raw=True)
    folder = cases(tmp_path / "a", 2, 1)
    for predictor in (one, raw):  # names that end in 0000 alone are those of nnU-Net, whoever trained the network
        assert names(folder, predictor) == [("c0", "c0", 1), ("c1", "c1", 1)]
        assert names(folder / "c1_0000.nii.gz", predictor) == [("c1", "c1", 1)]
    write(folder / "scan_2021.nii.gz", np.zeros(SHAPE, np.int16))
    assert names(folder, one)[:2] == [(f"c{case}_0000.nii.gz", f"c{case}_0000", 1) for case in range(2)]
    write(folder / "plain.nii.gz", np.zeros(SHAPE, np.int16))
    assert names(folder, raw)[2:] == [(f"{n}.nii.gz", n, 1) for n in ("plain", "scan_2021")]
    write(folder / "c0_0001.nii.gz", np.zeros(SHAPE, np.int16))  # another modality, which must not pass for the first
    refused(lambda: names(folder, raw), folder / "c0_0001.nii.gz", "the channel 0000 alone")
    assert [name for name, _, _ in names(folder / "c0_0000.nii.gz", one)] == ["c0_0000.nii.gz"]  # the first of two
    whole = tmp_path / "b"
    whole.mkdir()
    for number in range(2):  # images of two channels whose names end in numbers
        write(whole / f"f_{number:04d}.nii.gz", np.zeros((*SHAPE, 2), np.int16))
    assert [count for _, _, count in names(whole, larger())] == [1, 1]


def test_frames_are_no_channels_of_colours(tmp_path: Path) -> None:
    from PIL import Image

    for number in range(3):
        Image.fromarray(np.full((4, 5), number, np.uint8)).save(tmp_path / f"frame_{number:04d}.png")
    files = sorted(tmp_path.iterdir())
    for raw, count in ((False, 3), (True, 1)):
        assert len(group_channels(files, 2, 3, raw=raw, errors=ErrorCollector())) == count
    for path in files:
        Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(path)
    assert len(group_channels(files, 2, 3, raw=False, errors=ErrorCollector())) == 3


def test_folders_of_labels_take_channels(tmp_path: Path) -> None:
    cases(tmp_path / "images", 4)
    (tmp_path / "labels").mkdir()
    rng = np.random.default_rng(1)
    for case in range(4):
        write(tmp_path / "labels" / f"c{case}.nii.gz", rng.integers(0, 2, SHAPE).astype(np.uint8))
    dataset = data.load(tmp_path, "segment")
    assert (dataset.channels, len(dataset.train) + len(dataset.validation)) == (2, 4)
    sample = dataset.train[0]
    assert np.array_equal(sample.image[1], label(tmp_path / "images" / f"{sample.name}_0001.nii.gz"))
    (tmp_path / "images" / "c3_0001.nii.gz").unlink()
    refused(lambda: data.load(tmp_path, "segment"), tmp_path / "images" / "c3_0001.nii.gz", "is missing")
