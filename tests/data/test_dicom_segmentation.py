"""DICOM segmentations: labels come back on the grid of their series, highdicom reads them, and no false one passes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest

from convoxel import data
from convoxel.data.image_file import read_header
from convoxel.data.label_file import read_label
from convoxel.errors import DataError
from tests.support import dicom_files
from tests.support.dicom_files import SECRETS, multi_frame, save, series
from tests.support.refusal import refused

RNG = np.random.default_rng(5)
VOLUME = RNG.integers(0, 900, (6, 33, 41)).astype(np.int16)
CLASSES = ("background", "liver", "tumour")


def label_of(shape: tuple[int, ...]) -> Any:
    label = np.zeros(shape, np.uint8)
    label[3:9, 4:12, 1], label[9:20, 4:9, 3:5], label[5, 5, 1] = 1, 2, 2
    return label


def written(folder: Path, seed: int = 0) -> tuple[Path, Path, Any]:
    """Return a series, a segmentation of it, and the label that was written."""
    turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))[0]
    source = series(folder / "case", VOLUME, directions=turn[:2].ravel(), origin=(3, 4, 5), step=2.5)
    sample = data.read_image(source)
    label = label_of(sample.image.shape[1:])
    return source, data.write_label(folder / "case.seg.dcm", label, like=sample, classes=CLASSES), label


@pytest.mark.parametrize("seed", range(3))
def test_a_label_comes_back_and_highdicom_reads_it(tmp_path: Path, seed: int) -> None:
    source, path, label = written(tmp_path, seed)
    grid = read_header(source)
    header, values = read_label(path, 3, grid)
    assert np.array_equal(values, label) and header.classes == CLASSES and header.shape == grid.shape
    theirs = highdicom.seg.segread(path)
    assert [item.segment_label for item in theirs.SegmentSequence] == list(CLASSES[1:])
    assert theirs.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "Convoxel"
    volume = theirs.get_volume(combine_segments=True)
    matrix = np.linalg.inv(np.diag([-1, -1, 1, 1]) @ np.array(grid.affine)) @ volume.affine
    places = np.rint(np.argwhere(volume.array) @ matrix[:3, :3].T + matrix[:3, 3]).astype(int)
    again = np.zeros_like(label)
    again[tuple(places.T)] = volume.array[volume.array > 0]
    assert np.array_equal(again, label)
    own = read_header(path)  # without its image: the smallest stack that holds its planes
    assert own.shape == (41, 33, 4) and np.allclose(own.spacing_mm or (), (1, 1, 2.5), atol=1e-5)
    assert np.array_equal(read_label(path)[1], label[:, :, 1:5])
    again_path = data.write_label(tmp_path / "b.seg.dcm", label, like=data.read_image(source), classes=CLASSES)
    assert pydicom.dcmread(again_path).SOPInstanceUID == pydicom.dcmread(path).SOPInstanceUID


def test_frames_of_one_file_are_segmented(tmp_path: Path) -> None:
    positions = [(3.0, 4.0, z) for z in (6.0, 0.0, 3.0, 9.0, 12.0, 15.0)]
    found = multi_frame(VOLUME, positions)
    found.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness = "3"
    source = save(found, tmp_path / "a.dcm")
    sample = data.read_image(source)
    label = label_of(sample.image.shape[1:])
    path = data.write_label(tmp_path / "a.seg.dcm", label, like=sample)
    assert np.array_equal(read_label(path, 3, read_header(source))[1], label)
    assert read_header(path).classes == ("background", "class 1", "class 2")


@pytest.mark.parametrize("position", [None, (1.0, 2.0, 3.0)])
def test_pictures_have_segmentations_too(tmp_path: Path, position: Any) -> None:
    source = save(dicom_files.image(VOLUME[0], position), tmp_path / "a.dcm")
    sample = data.read_image(source)
    label = label_of((33, 41, 6))[..., 1] * (1 + label_of((33, 41, 6))[..., 3])
    path = data.write_label(tmp_path / "a.seg.dcm", label, like=sample, classes=CLASSES)
    assert np.array_equal(read_label(path, 2, read_header(source))[1], label)
    other = read_header(save(dicom_files.image(VOLUME[0, :20], position), tmp_path / "b.dcm"))
    refused(lambda: read_label(path, 2, other), path, "33 × 41", "20 × 41")


def test_a_set_of_series_and_segmentations(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    for number, name in enumerate("abcd"):
        source = series(tmp_path / "images" / name, VOLUME + np.int16(number))
        sample = data.read_image(source)
        label = label_of(sample.image.shape[1:])
        ending = ".seg.dcm" if number % 2 else ".dcm"
        data.write_label(tmp_path / f"{name}.seg.dcm", label, like=sample, classes=CLASSES).rename(
            tmp_path / "labels" / f"{name}{ending}"
        )
    found = data.load(tmp_path, "segment")
    assert data.check(tmp_path, "segment") == [] and found.classes == CLASSES  # as the segments are called
    for read in found.split("all"):
        assert np.array_equal(read.label, label) and read.image.shape[1:] == label.shape
    assert not any(secret in str(found.to_dict()) for secret in SECRETS)
    other = data.write_label(tmp_path / "d.seg.dcm", label, like=sample, classes=("background", "tumour", "liver"))
    other.rename(tmp_path / "labels" / "d.seg.dcm")
    problems = data.check(tmp_path, "segment")
    assert [problem.name for problem in problems] == ["d"] and "segment 1 is 'tumour'" in problems[0].message
    moved = series(tmp_path / "images" / "a2", VOLUME, origin=(0.5, 0, 0)).rename(tmp_path / "moved")
    refused(lambda: read_label(tmp_path / "labels" / "a.dcm", 3, read_header(moved)), tmp_path, "beside its image")
    short = series(tmp_path / "short", VOLUME[:3])
    refused(lambda: read_label(tmp_path / "labels" / "a.dcm", 3, read_header(short)), tmp_path, "beside its image")


def test_segments_that_some_labels_lack(tmp_path: Path) -> None:
    """Class numbers have their names from the labels that name them; a folder with a segmentation alone is a label."""
    names = ("background", "liver", "tumour", "vessel")
    numbers = {"a": (1, 3), "b": (2,), "c": (1, 2, 3), "d": (3,)}
    for name, present in numbers.items():
        source = series(tmp_path / "images" / name, VOLUME + np.int16(ord(name)))
        sample = data.read_image(source)
        label = np.zeros(sample.image.shape[1:], np.uint8)
        for number in present:
            label[number] = number
        written = pydicom.dcmread(data.write_label(tmp_path / "x.seg.dcm", label, like=sample, classes=names))
        written.SegmentSequence = [item for item in written.SegmentSequence if item.SegmentNumber in present]
        (tmp_path / "labels" / name).mkdir(parents=True)
        written.save_as(tmp_path / "labels" / name / "1-1")
        assert read_header(tmp_path / "labels" / name).classes[max(present)] == names[max(present)]
    found = data.load(tmp_path, "segment")
    assert data.check(tmp_path, "segment") == [] and found.classes == names
    assert {read.name: tuple(np.unique(read.label)[1:]) for read in found.split("all")} == numbers
    Path(tmp_path / "classes.txt").write_text("background\nliver\nvessel\ntumour\n")
    problems = data.check(tmp_path, "segment")
    assert set(numbers) <= {problem.name for problem in problems}
    assert "segment 3 is 'vessel'" in problems[0].message and "number 2" in problems[0].message


def test_what_is_no_label_is_refused(tmp_path: Path) -> None:
    source, path, _ = written(tmp_path)
    grid = read_header(source)

    def forged(name: str, change: Any) -> Path:
        found = pydicom.dcmread(path)
        change(found)
        found.save_as(tmp_path / name)
        return tmp_path / name

    def overlap(found: Any) -> None:
        groups = found.PerFrameFunctionalGroupsSequence
        groups[1].PlanePositionSequence = groups[0].PlanePositionSequence
        found.PixelData = b"\xff" * len(found.PixelData)

    def undeclared(found: Any) -> None:
        identification = found.PerFrameFunctionalGroupsSequence[0].SegmentIdentificationSequence
        identification[0].ReferencedSegmentNumber = 9

    def shared(sequence: str, name: str, value: Any) -> Any:
        def change(found: Any) -> None:
            setattr(found.SharedFunctionalGroupsSequence[0][sequence][0], name, value)

        return change

    def numbers(found: Any) -> None:
        found.SegmentationType, found.BitsAllocated, found.BitsStored, found.HighBit = "LABELMAP", 8, 8, 7
        found.PixelData = b"\7" * (found.Rows * found.Columns * int(found.NumberOfFrames))

    def far_apart(found: Any) -> None:
        first = found.PerFrameFunctionalGroupsSequence[0]
        found.NumberOfFrames = 2
        second = copy.deepcopy(first)
        second.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 60_000]
        first.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 0]
        found.PerFrameFunctionalGroupsSequence = [first, second]
        shared("PlaneOrientationSequence", "ImageOrientationPatient", [1, 0, 0, 0, 1, 0])(found)
        for name in ("SliceThickness", "SpacingBetweenSlices"):
            shared("PixelMeasuresSequence", name, 1)(found)
        found.Rows = found.Columns = 128
        found.PixelData = bytes(128 * 128 * 2 // 8)

    def set_to(**elements: Any) -> Any:
        return lambda found: [setattr(found, name, value) for name, value in elements.items()]

    for name, change, word in (
        ("overlap", overlap, "overlap"),
        ("fraction", set_to(SegmentationType="FRACTIONAL"), "FRACTIONAL"),
        ("undeclared", undeclared, "segment 9"),
        ("rows", set_to(Rows=60_000), "claims"),
        ("more", set_to(NumberOfFrames=4000), "claims"),
        ("cut", set_to(PixelData=b"\1\1"), "2 bytes of planes"),
        ("bits", set_to(BitsAllocated=8, BitsStored=8), "8 bits"),
        # every pixel on one voxel, or on every second one
        ("point", shared("PixelMeasuresSequence", "PixelSpacing", ["1e-300", "1"]), "beside its image"),
        ("turn", shared("PlaneOrientationSequence", "ImageOrientationPatient", [0] * 6), "beside its image"),
        ("coarse", shared("PixelMeasuresSequence", "PixelSpacing", [0.001, 0.001]), "beside its image"),
        ("numbers", numbers, "segment 7, which is not declared"),
    ):
        false = forged(f"{name}.dcm", change)
        refused(lambda false=false: read_label(false, 3, grid), false, word)  # type: ignore[misc]
    false = forged("far.dcm", far_apart)  # empty planes in between would be a gigabyte
    refused(lambda: read_label(false), false, "span a volume of 938 MiB")
    target = tmp_path / "x.seg.dcm"
    refused(lambda: data.write_label(target, np.ones((3, 3, 3))), target, "no DICOM series")
    contours = dicom_files.image(VOLUME[0], SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3")
    del contours.Rows, contours.Columns, contours.PixelData
    contours.file_meta.MediaStorageSOPClassUID = contours.SOPClassUID
    refused(lambda: read_header(save(contours, tmp_path / "rt.dcm")), tmp_path / "rt.dcm", "contours (RTSTRUCT)")


@pytest.mark.parametrize("seed", range(20))
def test_random_damage_never_gets_out(tmp_path: Path, seed: int) -> None:
    source, path, label = written(tmp_path)
    rng = np.random.default_rng(seed)
    content = bytearray(path.read_bytes())
    for place in rng.integers(132, len(content), rng.integers(1, 30)):
        content[place] = rng.integers(256)
    path.write_bytes(content[: rng.integers(500, 2 * len(content))])
    try:
        assert read_label(path, 3, read_header(source))[1].shape == label.shape
    except DataError as error:
        assert str(path) in str(error) and not any(secret in str(error) for secret in SECRETS)
