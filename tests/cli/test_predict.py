"""Ensembles, mirrored copies, maps of shares and clean-up through the command line, on regions that overlap."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from convoxel.cli import main
from convoxel.train import TrainConfig, fit

NAMES = ("whole", "core")


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two of the three folds of a cross-validation, whose regions overlap."""
    root = tmp_path_factory.mktemp("folds")
    rng = np.random.default_rng(0)
    for part in ("images", "labels"):
        (root / "set" / part).mkdir(parents=True)
    for index in range(6):
        label = np.zeros((16, 16), np.uint8)
        label[3:12, 2 + index : 10 + index] = 1
        label[5:10, 4 + index : 8 + index] = 2
        image = (label * 100 + rng.integers(0, 50, label.shape)).astype(np.uint8)
        Image.fromarray(image).save(root / "set" / "images" / f"{index}.png")
        Image.fromarray(label).save(root / "set" / "labels" / f"{index}.png")
    for fold in (0, 2):
        fit(
            TrainConfig.build(
                task="segment", data=str(root / "set"), output=str(root / "runs" / f"fold_{fold}"), folds=3, fold=fold,
                regions={"whole": [1, 2], "core": [2]}, levels=1, width=4, patch=(8, 8), epochs=1, steps_per_epoch=12,
                learning_rate=0.02, threads=1, tensorboard=False,
            )
        )  # fmt: skip
    return root


def told(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*map(str, words), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def shares_of(path: Path) -> Any:
    with tifffile.TiffFile(path) as file:
        described = file.imagej_metadata
        assert described is not None and described["Labels"] == list(NAMES)
        return file.asarray().astype(np.float64)


def test_an_ensemble_of_folds_writes_maps_and_shares(
    capsys: pytest.CaptureFixture[str], folds: Path, tmp_path: Path
) -> None:
    """The shares are the means of the members', regions apart; each image alone gets the same bytes."""
    runs = [folds / "runs" / f"fold_{fold}" for fold in (0, 2)]
    options = ("--probabilities", "float32", "--mirror", "lr", "--engine", "torch")
    found = told(capsys, "predict", *runs, "--input", folds / "set", "--output", tmp_path / "both", *options)
    assert [(m["run"], m["mirrored"]) for m in found["members"]] == [("fold_0", ["lr"]), ("fold_2", ["lr"])]
    assert found["images"] == {"done": 6, "skipped": 0, "failed": 0} and len(found["files"]) == 12
    assert {"read", "network", "clean-up", "write", "waiting"} <= found["stages"].keys()
    source = folds / "set" / "images" / "3.png"
    for run in runs:
        target = tmp_path / f"{run.name}.png"
        assert len(told(capsys, "predict", run, "--input", source, "--output", target, *options)["members"]) == 1
    alone = [shares_of(tmp_path / f"fold_{fold}_probabilities.tif") for fold in (0, 2)]
    shares = shares_of(tmp_path / "both" / "3_probabilities.tif")
    np.testing.assert_allclose(shares, np.mean(alone, axis=0), atol=1e-6)
    assert np.abs(alone[0] - alone[1]).max() > 1e-3 and (shares.sum(axis=0) > 1.01).any()  # regions overlap
    label = np.asarray(Image.open(tmp_path / "both" / "3.png"))
    np.testing.assert_array_equal(label, np.where(shares[1] > 0.5, 2, shares[0] > 0.5))
    told(capsys, "predict", *runs, "--input", source, "--output", tmp_path / "one.png", *options)
    for name, other in (("one.png", "3.png"), ("one_probabilities.tif", "3_probabilities.tif")):
        assert (tmp_path / name).read_bytes() == (tmp_path / "both" / other).read_bytes()
    told(capsys, "predict", *runs, "--input", source, "--output", tmp_path / "plain.png", *options[:2], *options[4:])
    assert np.abs(shares_of(tmp_path / "plain_probabilities.tif") - shares).max() > 1e-5


@pytest.mark.filterwarnings("always:run. :RuntimeWarning")
def test_a_folder_of_folds_with_one_missing(capsys: pytest.CaptureFixture[str], folds: Path, tmp_path: Path) -> None:
    words = ["predict", folds / "runs", "--input", folds / "set" / "images" / "0.png", "--output", tmp_path / "0.png"]
    assert main([*map(str, words), "--mirror", "0"]) == 0
    shown = capsys.readouterr()
    assert "holds folds 0, 2 of 3; the others are missing" in " ".join((shown.out + shown.err).split())
    members = r"Ensemble of 2 networks: fold_0 \(step \d+\), fold_2 \(step \d+\); images mirrored along "
    assert re.search(members + r"ud\.", shown.out)
    assert main(["evaluate", str(folds / "runs"), "--mirror", "lr", "--bootstrap", "0", "--split", "all"]) == 0
    assert re.search(members + r"lr\.", capsys.readouterr().out)


def test_words_of_the_clean_up(capsys: pytest.CaptureFixture[str], folds: Path, tmp_path: Path) -> None:
    run, source = folds / "runs" / "fold_0", folds / "set" / "images"
    words = ("predict", run, "--input", source / "1.png", "--engine", "torch", "--output")
    plain = told(capsys, *words, tmp_path / "plain.png")
    label = np.asarray(Image.open(tmp_path / "plain.png"))
    assert plain["cleaned"] == {} and label.any() and plain["members"][0]["mirrored"] == []
    found = told(capsys, *words, tmp_path / "clean.png", "--min-volume", "1000", "--fill-holes")
    cleaned = np.asarray(Image.open(tmp_path / "clean.png"))
    assert not cleaned.any()  # 256 pixels hold no component of a thousand
    assert sum(change["removed_voxels"] for change in found["cleaned"].values()) == np.count_nonzero(label)
    assert main([*map(str, words), str(tmp_path / "x.png"), "--keep-largest", "liver"]) == 2
    assert "keep_largest: got 'liver'" in capsys.readouterr().err
