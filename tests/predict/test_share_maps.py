"""Maps of class shares: rounding, files in the formats of the field, and the label map beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from convoxel.data.geometry import Geometry
from convoxel.errors import ConfigError
from convoxel.predict.case_prediction import MapOptions, predict_case, read_case
from convoxel.predict.clean_up import CleanUp
from convoxel.predict.inference import Predictor, build_predictor
from convoxel.predict.normalisation import Normalisation
from convoxel.predict.share_rounding import round_shares, share_scale
from convoxel.predict.trained_run import DataFacts, TrainedRun
from convoxel.train import TrainConfig


@pytest.mark.parametrize("classes", [2, 3, 40])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float16", "float32"])
def test_rounded_shares_keep_sums_and_the_class(classes: int, kind: str) -> None:
    rng = np.random.default_rng(classes)
    logits = rng.normal(0, rng.choice([0.001, 0.1, 3, 30], (1, 50, 40)), (classes, 50, 40))
    logits[:, :10] = np.round(logits[:, :10])  # equal shares
    shares = np.exp(logits - logits.max(axis=0))
    shares = (shares / shares.sum(axis=0)).astype(np.float32)
    label = (classes - 1 - shares[::-1].argmax(axis=0)).astype(np.uint8)  # the last of the largest: the hard case
    stored = round_shares(shares, label, kind)
    assert stored.dtype == kind and (stored.argmax(axis=0) == label).all()
    scale = share_scale(kind)
    error = np.abs(stored.astype(np.float64) / scale - shares).max()
    if kind.startswith("u"):
        assert (stored.sum(axis=0, dtype=np.int64) == scale).all()
        assert error <= 2.01 / scale
    else:
        assert error <= 2.0 ** (-11 if kind == "float16" else -24) * 3
    assert (round_shares(shares, shares.argmax(axis=0).astype(np.uint8), "uint8").argmax(0) == shares.argmax(0)).all()


def test_shares_that_do_not_exclude_each_other_are_rounded_alone() -> None:
    shares = np.array([[0.5, 0.49999997, 1.0], [0.999, 0.0, 0.001]], np.float32)
    assert round_shares(shares, None, "uint8").tolist() == [[128, 127, 255], [255, 0, 0]]


class Pooled(nn.Module):
    """Scores that change slowly from place to place, so that classes meet in even shares."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1](1, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


CLASSES = ("background", "a", "b")


def a_predictor(dims: int, **options: Any) -> Predictor:
    config = TrainConfig.build(task="segment", data="d", output="o", patch=(8,) * dims)
    facts = DataFacts(CLASSES, dims, 1, Normalisation("sample"), None, "", "drawn", {}, Geometry("ras"))
    return build_predictor(TrainedRun(Pooled(dims).eval(), config, facts, 0), **options)


def stored_image(folder: Path, dims: int) -> Path:
    values = np.random.default_rng(dims).normal(100, 30, (11, 13, 9)[:dims]).clip(0, 255)
    if dims == 3:
        affine = np.diag([-1.5, 1.0, 2.0, 1.0])[[2, 0, 1, 3]]
        path = folder / "image.nii.gz"
        nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), affine), path)
    elif dims == 2:
        path = folder / "image.png"
        Image.fromarray(values.astype(np.uint8)).save(path)
    else:
        path = folder / "image.npy"
        np.save(path, values.astype(np.float32))
    return path


def read_back(path: Path) -> NDArray[np.float64]:
    """Shares (classes, *spatial) as programs of the field read them."""
    if path.name.endswith(".nii.gz"):
        return np.moveaxis(np.asarray(nibabel.load(path).dataobj, np.float64), -1, 0)
    if path.suffix == ".tif":
        with tifffile.TiffFile(path) as file:
            described = file.imagej_metadata
            assert described is not None and described["Labels"] == list(CLASSES)
            return file.asarray().astype(np.float64) * described["c1"]
    with np.load(path, allow_pickle=False) as archive:
        assert archive["classes"].tolist() == list(CLASSES)
        return archive["shares"].astype(np.float64) / archive["scale"]


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float16", "float32"])
@pytest.mark.filterwarnings("ignore:geometry:RuntimeWarning")
def test_files_hold_the_shares_on_the_grid_of_the_image(tmp_path: Path, dims: int, kind: str) -> None:
    predictor, source = a_predictor(dims), stored_image(tmp_path, dims)
    label_path = tmp_path / f"out{'.nii.gz' if dims == 3 else '.png' if dims == 2 else '.npy'}"
    options = MapOptions(shares=kind)
    options.check(predictor)
    targets = options.targets(label_path, dims)
    result = predict_case(predictor, [source], targets, options)
    assert result.outputs == targets and all(path.is_file() for path in targets)
    sample = read_case(predictor, [source], options)
    logits = predictor.logits(sample).astype(np.float64)
    wanted = np.exp(logits) / np.exp(logits).sum(axis=0)
    found = read_back(targets[1])
    unit = {"uint8": 2.01 / 255, "uint16": 2.01 / 65535, "float16": 1e-3, "float32": 1e-6}[kind]
    np.testing.assert_allclose(found, wanted, atol=unit)
    stored_label = {3: lambda: nibabel.load(label_path).dataobj, 2: lambda: Image.open(label_path)}
    label = np.asarray(stored_label.get(dims, lambda: np.load(label_path))())
    np.testing.assert_array_equal(label, logits.argmax(axis=0))
    np.testing.assert_array_equal(found.argmax(axis=0), label)
    if kind.startswith("u"):
        np.testing.assert_allclose(found.sum(axis=0), 1.0, atol=1e-6)
    if dims == 3 and kind != "float16":
        given, stored = nibabel.load(source), nibabel.load(targets[1])
        np.testing.assert_array_equal(stored.affine, given.affine)
        assert stored.get_data_dtype() == kind and stored.shape == (*given.shape, 3)
    before = targets[1].read_bytes()
    predict_case(predictor, [source], targets, options)
    assert targets[1].read_bytes() == before  # equal shares, equal bytes


def test_large_maps_lie_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor, source = a_predictor(3), stored_image(tmp_path, 3)
    options = MapOptions(shares="uint8")
    paths = [options.targets(tmp_path / f"{name}.nii.gz", 3) for name in ("small", "large")]
    predict_case(predictor, [source], paths[0], options)
    monkeypatch.setattr("convoxel.files.file_array.MOST_IN_MEMORY", 100)
    predict_case(predictor, [source], paths[1], options)
    assert [path.read_bytes() for path in paths[0]] == [path.read_bytes() for path in paths[1]]


def test_clean_up_changes_the_label_map_alone(tmp_path: Path) -> None:
    predictor, source = a_predictor(3), stored_image(tmp_path, 3)
    plain = MapOptions(shares="uint8")
    cleaned = MapOptions(shares="uint8", clean_up=CleanUp.build("a", "b=3"))
    first = predict_case(predictor, [source], plain.targets(tmp_path / "x.nii.gz", 3), plain)
    second = predict_case(predictor, [source], cleaned.targets(tmp_path / "y.nii.gz", 3), cleaned)
    labels = [np.asarray(nibabel.load(result.outputs[0]).dataobj) for result in (first, second)]
    removed = sum(change.removed_voxels for change in second.changes.values())
    assert first.changes == {} and removed == (labels[0] != labels[1]).sum() > 0
    assert first.outputs[1].read_bytes() == second.outputs[1].read_bytes()


def test_what_cannot_be_written_is_refused() -> None:
    predictor = a_predictor(3)
    for options, words in (
        (MapOptions(shares="int8"), "probabilities"),
        (MapOptions(clean_up=CleanUp.build("liver")), "keep_largest: got 'liver'"),
    ):
        with pytest.raises(ConfigError, match=words):
            options.check(predictor)
