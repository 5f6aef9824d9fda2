"""DICOM from end to end through the command line: series and segmentations in, segmentations of the series out.

Series lie in folders, compressed or as a file of many frames; labels were written by highdicom. What names the patient
stands in every file, and may come out nowhere but in segmentations, in which the standard demands it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.sr.coding import Code

from convoxel import data
from convoxel.cli import main
from convoxel.data.image_file import read_header
from convoxel.data.label_file import read_label
from tests.support.dicom_files import SECRETS, multi_frame, save, series

AWAY = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
TISSUE = Code("85756007", "SCT", "Tissue")


def volume(number: int) -> tuple[Any, Any]:
    """Return slices (slices, rows, columns) of two bright balls in noise, and the label."""
    rng = np.random.default_rng(number)
    places = np.moveaxis(np.indices((8, 14, 16)), 0, -1)
    label = np.zeros((8, 14, 16), np.uint8)
    for kind, column in ((1, 4), (2, 11)):
        label[np.linalg.norm(places - [3 + number % 2, 5 + number, column], axis=-1) < 3] = kind
    return (300 * label.astype(int) + rng.integers(0, 90, label.shape)).astype(np.int16), label


def segment(source: Path, label: Any, path: Path) -> None:
    """Write a segmentation of a series by highdicom, which knows nothing of our own way to do it."""
    files = [source] if source.is_file() else sorted(source.iterdir())
    images = [pydicom.dcmread(file) for file in files]
    images.sort(key=lambda image: float(image.get("ImagePositionPatient", [0, 0, 0])[2]))
    about = highdicom.AlgorithmIdentificationSequence("hand", Code("123109", "DCM", "Artificial Intelligence"), "1")
    names = [
        highdicom.seg.SegmentDescription(number, name, TISSUE, TISSUE, "AUTOMATIC", about)
        for number, name in enumerate(("head", "tail"), 1)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    highdicom.seg.Segmentation(
        images, label, "BINARY", names, uid.generate_uid(), 9, uid.generate_uid(), 1, "m", "m", "1", "1"
    ).save_as(path)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images/ and labels/, and the manifest of the same cases beside a second series."""
    root = tmp_path_factory.mktemp("scans")
    for number, name in enumerate("abcd"):
        slices, label = volume(number)
        own: dict[str, Any] = {"SeriesInstanceUID": f"1.2.3.{number}", "SliceThickness": "2", "SeriesNumber": 3}
        source = root / "set" / "images" / name
        syntax = [None, uid.JPEGLSLossless, uid.RLELossless][number % 3]
        if number < 3:
            series(source, slices, directions=AWAY, origin=(9, 8, 7), syntax=syntax, **own)
        else:
            frames = multi_frame(slices, [(9, 8, 7 + 2 * k) for k in range(len(slices))], AWAY)
            frames.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness = "2"
            for group in frames.PerFrameFunctionalGroupsSequence:
                group.PixelValueTransformationSequence[0].RescaleSlope = "1"
            frames.SeriesInstanceUID = own["SeriesInstanceUID"]
            source = save(frames, source.with_suffix(".dcm"))
        segment(source, label, root / "set" / "labels" / (f"{name}.dcm" if number % 2 else f"{name}/1-1.dcm"))
    return root


def told(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> tuple[dict[str, Any], str]:
    capsys.readouterr()
    found = main([*map(str, words), "--json"])
    shown = capsys.readouterr()
    assert found == code, shown
    assert not any(secret in shown.out + shown.err for secret in SECRETS)
    return json.loads(shown.out) if shown.out else {}, shown.err


def test_series_are_checked_trained_on_predicted_and_measured(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, run, out = scans / "set", scans / "run", scans / "out"
    assert told(capsys, "data", "check", source)[0]["problems"] == []
    listed = told(capsys, "data", "list", source)[0]
    assert listed["classes"] == ["background", "head", "tail"]
    fast = [
        "levels=1",
        "width=4",
        "epochs=1",
        "steps_per_epoch=4",
        "batch_size=2",
        "augment=false",
        "learning_rate=0.02",
        "tensorboard=false",
    ]
    words = [word for each in fast for word in ("--set", each)]
    told(capsys, "train", "segment", "--data", source, "--output", run, "--patch", "12,12,8", "--threads", 1, *words)
    (measured,) = told(capsys, "evaluate", run, "--data", source, "--engine", "torch")[0]["samples"]
    assert measured["name"] == "d" and set(measured["dice"]) == {"background", "head", "tail"}

    words = ["--ending", ".seg.dcm", "--engine", "torch"]  # to record and compile takes as long as the rest
    told(capsys, "predict", run, "--input", source / "images", "--output", out, *words)
    for number, name in enumerate("abcd"):
        image = next(source.glob(f"images/{name}*"))
        theirs = highdicom.seg.segread(out / f"{name}.seg.dcm")
        assert [item.SegmentLabel for item in theirs.SegmentSequence] == ["head", "tail"]
        (referred,) = theirs.ReferencedSeriesSequence
        files = [image] if image.is_file() else list(image.iterdir())
        instances = {pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID for file in files}
        assert referred.SeriesInstanceUID == f"1.2.3.{number}"
        assert {item.ReferencedSOPInstanceUID for item in referred.ReferencedInstanceSequence} <= instances
        assert theirs.PatientID == SECRETS[1] and theirs.StudyInstanceUID == "1.2.9"
        header, label = read_label(out / f"{name}.seg.dcm", 3, read_header(image))
        assert header.classes == ("background", "head", "tail")
    truth = volume(3)[1].T  # the last: what evaluation measured is what was written
    dice = [2 * np.sum((label == k) & (truth == k)) / np.sum((label == k) * 1 + (truth == k)) for k in (0, 1, 2)]
    assert np.allclose(dice, list(measured["dice"].values())) and label.any()

    for path in [*run.rglob("*"), scans / "out.manifest.jsonl"]:
        content = path.read_bytes() if path.is_file() else b""
        assert not any(secret.encode() in content for secret in ("Doe^", *SECRETS[1:])), path


def test_a_manifest_chooses_series_and_faults_are_told_by_file(
    scans: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = ["file,label,subject"]
    for number, name in enumerate("abc"):
        slices, label = volume(number)
        folder = series(
            tmp_path / name / "study", slices, directions=AWAY, SeriesInstanceUID=f"1.2.3.{number}", SeriesNumber=3,
            SliceThickness="2",
        )  # fmt: skip
        segment(folder, label, tmp_path / name / "seg.dcm")
        series(folder, slices[:5], SeriesInstanceUID=f"1.2.4.{number}", SeriesNumber=7)
        rows.append(f"{name}/study#3,{name}/seg.dcm,p{number}")
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(rows))
    assert told(capsys, "data", "check", tmp_path)[0]["problems"] == []
    assert len(data.load(tmp_path, "segment").split("all")) == 3
    table.write_text("\n".join(rows).replace("a/study#3", "a/study").replace("b/study#3", "b/study#7"))
    found = {each["name"]: each["message"] for each in told(capsys, "data", "check", tmp_path, code=2)[0]["problems"]}
    assert "2 series" in found["a/study"] and "study#3" in found["a/study"]
    assert "beside its image" in found["b/study#7"]

    nested = tmp_path / "nested"
    (nested / "labels").mkdir(parents=True)
    (tmp_path / "a").rename(tmp_path / "patient")
    (nested / "images").mkdir()
    (tmp_path / "patient" / "seg.dcm").rename(nested / "labels" / "a.dcm")
    (tmp_path / "patient").rename(nested / "images" / "a")
    told_of = told(capsys, "data", "check", nested, code=2)[0]["problems"][0]["message"]
    assert "deeper, in a/study" in told_of and "labels.csv" in told_of
