"""Statistics of data sets, against sums done by hand."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from convoxel import data
from convoxel.cli import main

RNG = np.random.default_rng(2)


def put(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def test_statistics_of_volumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, labels = [], []
    for i in range(4):
        size, affine = (5 + i, 6, 4), np.diag([-1.0 if i == 3 else 1.0, 2, 3, 1])
        images.append(RNG.normal(50, 9, size).astype(np.float32))
        labels.append((RNG.random(size) < 0.2 * (i > 0)).astype(np.uint8))
        put(tmp_path / "images" / f"{i}.nii.gz", images[i], affine)
        put(tmp_path / "labels" / f"{i}.nii.gz", labels[i], affine)
    found = data.measure_set(data.load(tmp_path, "segment", validation=1))
    train, held = found["parts"]["train"], found["parts"]["validation"]
    assert (train["samples"], held["samples"], train["subjects"], train["broken"]) == (3, 1, None, [])
    assert train["shape"] == {"min": [5, 6, 4], "median": [6, 6, 4], "max": [7, 6, 4]}
    assert train["spacing_mm"]["median"] == [1, 2, 3]
    assert train["orientations"] == {"RAS": 3} and held["orientations"] == {"LAS": 1}
    values = np.concatenate([image.ravel() for image in images[:3]]).astype(np.float64)
    assert np.allclose(train["intensity"]["mean"], values.mean()) and np.allclose(
        train["intensity"]["std"], values.std()
    )
    assert train["intensity"]["min"] == [values.min()] and train["intensity"]["max"] == [values.max()]
    assert np.allclose(train["intensity"]["median"], np.median(values))
    counts = [int(label.sum()) for label in labels]
    row = train["classes"][1]
    assert (row["samples"], row["voxels"]) == (2, sum(counts[:3]))
    assert row["share"] == pytest.approx(sum(counts[:3]) / values.size)
    assert row["volume_ml"]["min"] == pytest.approx(min(counts[1:3]) * 6e-3)
    assert main(["data", "stats", str(tmp_path), "--validation", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found))
    assert main(["data", "stats", str(tmp_path)]) == 0 and "RAS" in capsys.readouterr().out


def test_statistics_of_classes_and_broken_samples(tmp_path: Path) -> None:
    for name, count in (("ant", 4), ("bee", 2)):
        for i in range(count):
            (tmp_path / name).mkdir(exist_ok=True)
            np.save(tmp_path / name / f"{i}.npy", RNG.normal(0, 1, (5, 5)))
    np.save(tmp_path / "ant" / "1.npy", np.full((5, 5), np.nan))
    parts = data.measure_set(data.load(tmp_path, "classify"))["parts"]
    assert sum(row["samples"] for part in parts.values() for row in part["classes"]) == 6
    assert [name for part in parts.values() for name in part["broken"]] == ["ant/1.npy"]
    assert parts["train"]["spacing_mm"] is None and set(parts["train"]["orientations"]) == {"unknown"}
