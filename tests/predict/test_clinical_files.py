"""Prediction of clinical files by a network that marks what is bright: from file to file, on the file's own grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch
from torch import nn

from convoxel import data
from convoxel.data.geometry import Geometry
from convoxel.data.image_file import read_header
from convoxel.data.label_file import read_label
from convoxel.errors import ConfigError, DataError
from convoxel.predict.archive import ArchiveOptions
from convoxel.predict.file_prediction import predict_files
from convoxel.predict.inference import Predictor, build_predictor
from convoxel.predict.normalisation import Normalisation
from convoxel.predict.trained_run import DataFacts, TrainedRun
from convoxel.train import TrainConfig
from tests.data.test_signal import record
from tests.support.dicom_files import SECRETS, series

VOLUME = np.random.default_rng(1).integers(0, 200, (5, 33, 36)).astype(np.int16)


class Bright(nn.Module):
    """Class 1 where an image is above 100."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = x[:, :1]
        return torch.cat([torch.zeros_like(first), first - 100], dim=1)


def bright(dims: int = 3, channels: int = 1, **entries: Any) -> Predictor:
    config = TrainConfig.build(task="segment", data="d", output="o", **entries)
    stored = Normalisation("dataset", (0.0,), (1.0,))
    facts = DataFacts(("background", "bright"), dims, channels, stored, None, "", "drawn", {}, Geometry())
    return build_predictor(TrainedRun(Bright().eval(), config, facts, 0))


def test_a_folder_of_series(tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        series(tmp_path / "in" / name, VOLUME + np.int16(number), origin=(number, 2, 3))
    files = predict_files(bright(), tmp_path / "in", tmp_path / "out")
    assert [path.name for path in files] == ["a.nii.gz", "b.nii.gz"]
    for number, path in enumerate(files):
        found, image = data.read_image(path), read_header(tmp_path / "in" / "ab"[number])
        assert np.array_equal(found.image[0].T, VOLUME + number > 100) and found.affine is not None
        assert np.allclose(found.affine, np.asarray(image.affine), atol=1e-6)
        assert not any(secret.encode() in path.read_bytes() for secret in SECRETS)
    files = predict_files(bright(), tmp_path / "in", tmp_path / "out", ending=".seg.dcm")
    assert [path.name for path in files] == ["a.seg.dcm", "b.seg.dcm"]
    header, values = read_label(files[1], 3, read_header(tmp_path / "in" / "b"))
    assert header.classes == ("background", "bright") and np.array_equal(values.T, VOLUME + 1 > 100)
    with pytest.raises(ConfigError, match="ending"):
        predict_files(bright(), tmp_path / "in", tmp_path / "out", ending=".dcm")


def test_recordings_are_predicted_at_the_rate_of_training(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    slow = np.repeat([0.0, 200.0, 0.0], [100, 200, 100])
    record(tmp_path / "in" / "a.edf", [slow, np.zeros(200)], rates=[100, 50])
    with pytest.raises(DataError, match="--rate"):
        predict_files(bright(1, 2), tmp_path / "in", tmp_path / "out", archive=ArchiveOptions("stop"))
    (path,) = predict_files(bright(1, 2, rate=64), tmp_path / "in", tmp_path / "out")
    label = np.load(path)
    assert (
        path.name == "a.npy" and label.shape == (256,) and abs(label.sum() - 128) <= 2 and label[64:192].mean() > 0.98
    )


def test_a_manifest_names_files_and_no_patients(tmp_path: Path) -> None:
    for number, name in enumerate("abc"):
        series(tmp_path / "in" / name, VOLUME + np.int16(number), origin=(number, 2, 3))
    slices = sorted((tmp_path / "in" / "b").iterdir())
    slices[2].write_bytes(slices[2].read_bytes()[:-100])
    series(tmp_path / "in" / "c", VOLUME[:4], SeriesInstanceUID="1.2.4", SeriesNumber=5)  # a second one
    predict_files(bright(), tmp_path / "in", tmp_path / "out", archive=ArchiveOptions("skip"))
    content = (tmp_path / "out.manifest.jsonl").read_bytes()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.nii.gz"]
    assert content.count(b'"done"') == 1 and content.count(b'"failed"') == 2
    assert not any(secret.encode() in content for secret in SECRETS)


def test_one_series_of_several(tmp_path: Path) -> None:
    folder = series(tmp_path / "case", VOLUME)
    series(folder, VOLUME[:4] + np.int16(1), SeriesInstanceUID="1.2.4", SeriesNumber=5)
    with pytest.raises(DataError, match=r"2 series.*#1.*#5"):
        predict_files(bright(), folder, tmp_path / "out")
    (path,) = predict_files(bright(), tmp_path / "case#5", tmp_path / "out")
    assert path.name == "case#5.nii.gz" and np.array_equal(data.read_image(path).image[0].T, VOLUME[:4] + 1 > 100)


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nrrd", ".nhdr"])
def test_label_maps_keep_the_format_of_their_image(tmp_path: Path, ending: str) -> None:
    image = SimpleITK.GetImageFromArray(VOLUME)
    image.SetDirection(np.linalg.qr(np.random.default_rng(2).standard_normal((3, 3)))[0].ravel().tolist())
    image.SetSpacing((0.5, 0.7, 3.0))
    (tmp_path / "in").mkdir()
    SimpleITK.WriteImage(image, str(tmp_path / "in" / f"a{ending}"))
    (path,) = predict_files(bright(), tmp_path / "in", tmp_path / "out")
    assert path.name == "a" + {".mhd": ".mha", ".nhdr": ".nrrd"}.get(ending, ending)
    found = SimpleITK.ReadImage(str(path))
    assert np.array_equal(SimpleITK.GetArrayFromImage(found), VOLUME > 100)
    for name in ("GetDirection", "GetSpacing", "GetOrigin"):
        assert np.allclose(getattr(found, name)(), getattr(image, name)(), rtol=1e-14, atol=1e-14)
