"""Images that may have several classes, or none: data, split, training, figures, tables, report."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import metrics as sklearn

from convoxel import data
from convoxel.bench.run_quality import compare_quality
from convoxel.cli import main
from convoxel.errors import ConfigError, DataError
from convoxel.predict.classification_metric import LABEL_METRICS, LabelScores
from convoxel.predict.label_threshold import find_best
from convoxel.predict.loss_terms import MULTI_LABEL
from convoxel.report import write_report
from convoxel.train import TrainConfig, evaluate, fit, load_model, predict
from convoxel.train.loss import build_loss, measure_loss
from convoxel.train.run_folder import load_predictor
from tests.support.refusal import refused

PLACES = {"top": np.s_[:5, :], "left": np.s_[6:, :5], "corner": np.s_[10:, 10:]}


def picture(rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
    """Noise with some of three bright places."""
    pixels = rng.integers(0, 60, (16, 16)).astype(np.uint8)
    names = [name for name, share in zip(PLACES, (0.5, 0.5, 0.25), strict=True) if rng.random() < share]
    for name in names:
        pixels[PLACES[name]] = 220
    return pixels, names


def table(folder: Path, count: int = 40, rows: Callable[[list[str]], str] = ";".join) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(7)
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "labels", "split"])
        for number in range(count):
            pixels, names = picture(rng)
            Image.fromarray(pixels).save(folder / f"{number:02d}.png")
            writer.writerow([f"{number:02d}.png", rows(names), "test" if number % 8 == 7 else "train"])
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return table(tmp_path_factory.mktemp("data") / "places")


def configure(source: Path, output: Path, **entries: object) -> TrainConfig:
    known = {"epochs": 2, "batch_size": 7, "model": "course_vgg", "width": 0.1, "augment": False, "tensorboard": False}
    return TrainConfig.build(task="classify", data=str(source), output=str(output), threads=1, **(known | entries))


@pytest.fixture(scope="module")
def run(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("run") / "run"
    result = fit(configure(source, output))
    assert result.metric_name == "mean AUC" and result.metrics["metric"] == result.best_metric
    return output


def test_a_table_names_the_classes_of_every_image(source: Path, tmp_path: Path) -> None:
    found = data.load(source, "classify")
    assert found.multi_label and found.classes == ("corner", "left", "top") and data.guess_task(source) == "classify"
    rng = np.random.default_rng(7)
    named = {f"{number:02d}.png": frozenset(map(found.classes.index, picture(rng)[1])) for number in range(40)}
    assert {entry.name: entry.label for entry in found.split("all").entries} == named
    assert frozenset() in named.values() and found.train[0].label == named[found.train[0].name]
    assert data.check(source, "classify") == []
    counts = {row["name"]: row["samples"] for row in data.measure_set(found)["parts"]["test"]["classes"]}
    assert counts == {name: sum(k in e.label for e in found.test.entries) for k, name in enumerate(found.classes)}
    twice = table(tmp_path / "twice", 8, lambda names: ";".join([*names, "top", "top"]))
    refused(lambda: data.load(twice, "classify"), twice / "labels.csv", "every class once")


def test_the_rarest_class_of_an_image_is_its_stratum(source: Path) -> None:
    parts = [data.load(source, "classify", folds=3, fold=fold) for fold in range(3)]
    for number in range(3):
        held = [sum(number in entry.label for entry in part.validation.entries) for part in parts]
        assert min(held) >= 1, "every fold holds every class"
    assert len({name for part in parts for name in part.validation.names}) == 35


def test_columns_of_zeros_and_ones(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 255, (12, 8, 8)).astype(np.uint8)
    labels = rng.integers(0, 2, (12, 3))
    labels[0] = 0
    np.savez(path := tmp_path / "set.npz", train_images=images, train_labels=labels)
    found = data.load(path, "classify", validation=3)
    assert found.multi_label and found.classes == ("0", "1", "2")
    assert {e.name: e.label for e in found.split("all").entries} == {
        f"train/{i:06d}": frozenset(map(int, np.flatnonzero(row))) for i, row in enumerate(labels)
    }
    np.savez(path, train_images=images, train_labels=labels + 1)
    refused(lambda: data.load(path, "classify"), path, "0 and 1 for each")
    np.savez(path, train_images=images, train_labels=labels[:, :1])
    assert not data.load(path, "classify", validation=3).multi_label


def test_metrics_equal_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    own, shares = rng.random((50, 4)) < 0.4, rng.uniform(0.02, 0.98, (50, 4)).round(1).clip(0.02, 0.98)
    found, scores, ones = shares >= 0.5, LabelScores(own, shares), np.ones((1, 50))
    expected = {
        "auc": sklearn.roc_auc_score(own, shares), "ap": sklearn.average_precision_score(own, shares),
        "f1": sklearn.f1_score(own, found, average="macro"),
        "precision": sklearn.precision_score(own, found, average="macro"),
        "sensitivity": sklearn.recall_score(own, found, average="macro"),
        "specificity": sklearn.recall_score(~own, ~found, average="macro"),
        "accuracy": (own == found).mean(), "exact": sklearn.accuracy_score(own, found),
        "brier": np.square(own - shares).mean(),
        "nll": sklearn.log_loss(own.ravel(), shares.ravel()),
    }  # fmt: skip
    for metric in LABEL_METRICS:
        value = metric.of(scores, ones).mean()
        assert value == pytest.approx(expected[metric.name], abs=1e-12), metric.name
    assert {metric.name for metric in LABEL_METRICS} == expected.keys()


def test_the_loss_is_a_binary_cross_entropy() -> None:
    logits, targets = torch.tensor([[2.0, -1.0], [0.0, 3.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    share = torch.sigmoid(logits)
    expected = -torch.log(torch.where(targets > 0, share, 1 - share)).mean()
    assert measure_loss(build_loss(MULTI_LABEL), logits, targets).item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_run_is_measured_reported_and_resumed(run: Path, source: Path, tmp_path: Path) -> None:
    trained = load_model(run)
    assert trained.data.multi_label
    closing = json.loads((run / "evaluation.json").read_text())
    assert closing["metric_name"] == "mean AUC" and closing["confusion"] == []
    assert list(closing["figures"]) == ["auc", "ap", "f1", "precision", "sensitivity", "accuracy"]
    found = evaluate(run, source, split="all", replicates=50, engine="torch")
    own = [[name in row["label"].split("; ") for name in trained.data.classes] for row in found["samples"]]
    shares = [list(row["probabilities"].values()) for row in found["samples"]]
    assert found["metric"] == pytest.approx(sklearn.roc_auc_score(own, shares), abs=1e-4)
    assert found["loss"] == pytest.approx(np.mean(-np.log(np.where(own, shares, 1 - np.array(shares)))), abs=1e-4)
    row = found["samples"][0]
    assert row["correct"] == (row["label"] == row["predicted"])
    assert row["probability"] == pytest.approx(min(max(p, 1 - p) for p in shares[0]))
    text = write_report(run).read_text()
    assert "several of 3 classes" in text and "mean AUC" in text and "of the largest F1" in text
    with np.load(run / "examples.npz") as examples:
        assert examples["labels"].shape == (7, 3)
    (quality, _) = compare_quality([run, run])
    assert quality is not None and quality.metric_name == "mean AUC" and quality.interval is not None
    worse = shutil.copytree(run, tmp_path / "worse")
    rows = [{**each, "probabilities": {name: 1 - p for name, p in each["probabilities"].items()}}
            for each in closing["samples"]]  # fmt: skip
    (worse / "evaluation.json").write_text(json.dumps({**closing, "metric": 1 - closing["metric"], "samples": rows}))
    paired = [quality and quality.difference for quality in compare_quality([run, worse])]
    lower = min(closing["metric"], 1 - closing["metric"])
    assert [each and each.mean for each in paired].count(pytest.approx(2 * lower - 1, abs=1e-6)) == 1
    longer = fit(configure(source, run, epochs=3), resume=True, force=True)
    assert longer.steps == 12 and not longer.interrupted


def test_predictions_name_the_classes_above_one_half(run: Path, source: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(3):
        Image.open(source / f"{number:02d}.png").save(images / f"{number}.png")
    predict(run, images, tmp_path / "found.csv", engine="torch")
    with (tmp_path / "found.csv").open() as file:
        for row in csv.DictReader(file):
            chosen = [name for name in ("corner", "left", "top") if float(row[f"p_{name}"]) >= 0.5]
            assert row["labels"] == ";".join(chosen)
    assert main(["evaluate", str(run), "--engine", "torch", "--bootstrap", "0", "--csv", str(tmp_path / "t.csv")]) in (
        None, 0,
    )  # fmt: skip
    assert (tmp_path / "t.csv").read_text().splitlines()[0].endswith("p_corner,p_left,p_top")


def test_the_best_threshold_has_the_largest_f1_of_all() -> None:
    rng = np.random.default_rng(5)
    own, shares = rng.random((60, 3)) < (0.3, 0.7, 0.0), rng.random((60, 3)).round(1)
    found = find_best(LabelScores(own, shares, (0.2, 0.5, 0.9)), ("a", "b", "c"))
    assert [each["threshold"] for each in found.values()] == [0.2, 0.5, 0.9]
    assert found["c"]["best"] is None and found["c"]["best_f1"] is None
    for column, name in enumerate(("a", "b")):
        levels = np.arange(0, 1.02, 0.01)
        f1 = [sklearn.f1_score(own[:, column], shares[:, column] >= level, zero_division=0) for level in levels]
        best = found[name]["best"]
        assert best is not None and found[name]["best_f1"] == pytest.approx(max(f1))
        assert sklearn.f1_score(own[:, column], shares[:, column] >= best) == pytest.approx(max(f1))


def test_thresholds_decide_which_classes_are_there(
    run: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = json.loads((run / "evaluation.json").read_text())["thresholds"]
    plain = evaluate(run, source, split="all", replicates=0, metrics=["f1", "auc"], engine="torch")
    stated = {"corner": 0.1, "left": 0.9}
    found = evaluate(run, source, split="all", replicates=0, metrics=["f1", "auc"], engine="torch", threshold=stated)
    assert [each["threshold"] for each in (found["thresholds"] or {}).values()] == [0.1, 0.9, 0.5]
    own = np.array([[name in row["label"].split("; ") for name in kept] for row in found["samples"]])
    shares = np.array([list(row["probabilities"].values()) for row in found["samples"]])
    assert found["figures"]["f1"]["value"] == pytest.approx(
        sklearn.f1_score(own, shares >= [0.1, 0.9, 0.5], average="macro")
    )
    assert found["figures"]["auc"] == plain["figures"]["auc"]
    for row in found["samples"]:
        told = [name for name, level in zip(kept, (0.1, 0.9, 0.5), strict=True) if row["probabilities"][name] >= level]
        assert row["predicted"] == "; ".join(told)
    images = source / "00.png"
    for word, levels in (("best", [each["best"] for each in kept.values()]), ("corner=0, left=1", [0, 1, 0.5])):
        out = tmp_path / "out.json"
        assert main(["predict", str(run), "--input", str(images), "--output", str(out), "--engine", "torch",
                     "--threshold", word]) in (None, 0)  # fmt: skip
        row = json.loads(out.read_text())[0]
        told = [name for name, level in zip(kept, levels, strict=True) if row[f"p_{name}"] >= level]
        assert row["labels"] == ";".join(told)
    assert load_predictor(run, engine="torch", threshold=0.3).recipe != load_predictor(run, engine="torch").recipe
    for wrong, words in (("1.5", "'1.5'; expected a number"), ("cat=0.5", "'cat'; expected names"), ("x", "'x'"),
                         ("top=0.1,top=0.2", "once")):  # fmt: skip
        capsys.readouterr()
        assert main(["evaluate", str(run), "--threshold", wrong]) == 2
        assert "threshold: got" in (told := capsys.readouterr().err) and words in told
    twin = shutil.copytree(run, tmp_path / "twin")
    with pytest.raises(ConfigError, match="several runs"):
        evaluate([run, twin], threshold="best")
    (twin / "evaluation.json").unlink()
    with pytest.raises(DataError, match="holds no thresholds"):
        predict(twin, images, tmp_path / "none.csv", threshold="best")


def test_data_of_one_class_an_image_are_refused(run: Path, tmp_path: Path) -> None:
    folder = table(tmp_path / "single", 8, lambda names: (names or ["top"])[0])
    text = (folder / "labels.csv").read_text()
    (folder / "labels.csv").write_text(text.replace("labels", "class"))
    with pytest.raises(DataError, match="any number of classes"):
        evaluate(run, folder, engine="torch")
