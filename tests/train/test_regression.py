"""Numbers to predict from images: data, scale, losses, figures, tables, report."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn

from convoxel import data
from convoxel.bench.run_quality import compare_quality
from convoxel.cli import main
from convoxel.data import Sample
from convoxel.data.data_set import Entry
from convoxel.data.split import SplitRule
from convoxel.errors import ConfigError
from convoxel.predict.loss_terms import LOSSES, plan_loss, value_loss
from convoxel.predict.regression_metric import VALUE_METRICS, ValueScores
from convoxel.predict.target_scale import TargetScale
from convoxel.report import write_report
from convoxel.train import TrainConfig, evaluate, fit, load_model, predict
from convoxel.train.augment import Augmentation
from convoxel.train.loss import build_loss
from tests.support.refusal import refused


def table(folder: Path, size: tuple[int, ...], values: dict[str, np.ndarray]) -> Path:
    """Images whose brightness follows the first value."""
    folder.mkdir()
    rng = np.random.default_rng(3)
    first = next(iter(values.values()))
    shares = (first - first.min()) / np.ptp(first)
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", *values])
        for number, share in enumerate(shares):
            np.save(folder / f"{number:02d}.npy", (share + 0.1 * rng.random(size)).astype(np.float32))
            writer.writerow([f"{number:02d}.npy", *(float(column[number]) for column in values.values())])
    return folder


VALUES = np.random.default_rng(5).uniform(1000, 1050, 24)


def configure(source: Path, output: Path, **entries: object) -> TrainConfig:
    known = {"epochs": 2, "batch_size": 6, "model": "course_vgg", "width": 0.1, "augment": False, "tensorboard": False}
    return TrainConfig.build(task="regress", data=str(source), output=str(output), threads=1, **(known | entries))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    columns = {"value_age": VALUES, "value_size": VALUES[::-1] / 1e3}
    return table(tmp_path_factory.mktemp("data") / "numbers", (12, 12), columns)


@pytest.fixture(scope="module")
def run(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("run") / "run"
    assert fit(configure(source, output)).metric_name == "R²"
    return output


def test_tables_and_arrays_state_numbers(source: Path, tmp_path: Path) -> None:
    found = data.load(source, "regress")
    assert data.guess_task(source) == "regress" and found.classes == ("age", "size")
    assert {e.name: e.label for e in found.split("all").entries} == {
        f"{i:02d}.npy": (float(VALUES[i]), float(VALUES[::-1][i] / 1e3)) for i in range(24)
    }
    assert data.check(source, "regress") == []
    told = data.measure_set(found)["parts"]["train"]["classes"][0]
    assert told["mean"] == pytest.approx(np.mean([e.label[0] for e in found.train.entries]))
    np.savez(path := tmp_path / "set.npz", images=np.zeros((9, 8, 8), np.uint8), labels=np.arange(9) / 2)

    labels = {e.name: e.label for e in data.load(path, "regress", validation=2).split("all").entries}
    assert labels == {f"{i:06d}": (i / 2,) for i in range(9)}
    np.savez(path, images=np.zeros((9, 8, 8), np.uint8), labels=np.where(np.arange(9) == 3, np.nan, 1.0))
    refused(lambda: data.load(path, "regress"), path, "finite numbers")


def test_false_numbers_are_named(tmp_path: Path) -> None:
    folder = table(tmp_path / "a", (4, 4), {"value": VALUES})
    text = (folder / "labels.csv").read_text()
    (folder / "labels.csv").write_text(text.replace(str(float(VALUES[2])), "tall"))
    refused(lambda: data.load(folder, "regress"), folder, "line 4", "tall", "finite number", "Correct the table")
    refused(lambda: data.load(folder, "classify"), folder, "Choose the task regress")
    same = table(tmp_path / "b", (4, 4), {"value": VALUES, "value_flat": np.full(24, 2.0)})
    assert any("flat is the same" in problem.message for problem in data.check(same, "regress"))


def test_values_are_learnt_in_deviations_of_the_training_part() -> None:
    scale = TargetScale.of([(1.0, 5.0), (3.0, 5.0)])
    assert scale == TargetScale((2.0, 5.0), (1.0, 1.0))
    assert scale.restore(scale.standardise([(7.0, 6.0)])).tolist() == [[7.0, 6.0]]


@pytest.mark.parametrize(("terms", "expected"), list(zip(LOSSES["regress"], (4.625, 1.75, 1.3125), strict=True)))
def test_losses_by_hand(terms: object, expected: float) -> None:
    """Errors of 0.5 and 3: (0.25 + 9) / 2, (0.5 + 3) / 2, (0.125 + 2.5) / 2."""
    error = torch.tensor([[0.5, -3.0]])
    assert build_loss(terms)(error, torch.zeros(1, 2)).item() == pytest.approx(expected)
    assert value_loss(terms, error.double().numpy()[0]) == pytest.approx(expected)


def test_losses_of_other_tasks_are_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mse, mae, huber"):
        configure(source, tmp_path / "run", loss="ce")
    with pytest.raises(ConfigError, match="balanced"):
        plan_loss(configure(source, tmp_path / "run", class_weights="balanced"), ("age",), ())


def test_metrics_equal_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(4)
    truth = rng.normal(1e6, 2, (40, 3))
    found = truth + rng.normal(0, 1, truth.shape)
    expected = {
        "mae": sklearn.mean_absolute_error(truth, found), "r2": sklearn.r2_score(truth, found),
        "rmse": sklearn.root_mean_squared_error(truth, found), "bias": (found - truth).mean(),
        "pearson": np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(truth.T, found.T, strict=True)]),
    }  # fmt: skip
    again = np.bincount(rng.integers(0, 40, 40), minlength=40)
    repeated = ValueScores(np.repeat(truth, again, axis=0), np.repeat(found, again, axis=0))
    for metric in VALUE_METRICS:
        assert metric.of(ValueScores(truth, found), np.ones((1, 40))).mean() == pytest.approx(expected[metric.name])
        weighted = metric.of(ValueScores(truth, found), again[None].astype(float))
        assert weighted == pytest.approx(metric.of(repeated, np.ones((1, 40)))), metric.name
    flat = ValueScores(np.full((5, 1), 0.1), rng.random((5, 1)))
    undefined = {metric.name for metric in VALUE_METRICS if np.isnan(metric.of(flat, np.ones((1, 5)))).all()}
    assert undefined == {"r2", "pearson"}


def test_a_run_is_measured_reported_and_resumed(run: Path, source: Path, tmp_path: Path) -> None:
    facts = load_model(run).data
    labels = [e.label for e in data.load(source, "regress", split=run / "split.json").train.entries]
    assert facts.targets == TargetScale.of(labels)
    closing = json.loads((run / "evaluation.json").read_text())
    assert closing["metric_name"] == "R²" and list(closing["figures"]) == ["mae", "rmse", "r2", "pearson"]
    found = evaluate(run, source, split="all", replicates=50, engine="torch")
    truth, values = (np.array([list(row[s].values()) for row in found["samples"]]) for s in ("truth", "predicted"))
    assert found["metric"] == pytest.approx(sklearn.r2_score(truth, values))
    assert found["loss"] == pytest.approx(np.square((values - truth) / facts.targets.std).mean(), rel=1e-5)
    assert found["figures"]["mae"]["per_class"]["age"]["value"] == pytest.approx(np.abs(values - truth)[:, 0].mean())
    assert "Predicted and true age" in write_report(run).read_text()
    quality = compare_quality([run, run])[0]
    assert quality is not None and quality.metric_name == "R²" and quality.measured["mae"].value is not None
    predict(run, source / "03.npy", tmp_path / "found.csv", engine="torch")
    with (tmp_path / "found.csv").open() as file:
        row = next(csv.DictReader(file))
    expected = next(each["predicted"] for each in found["samples"] if each["name"] == "03.npy")
    assert [float(row[name]) for name in ("age", "size")] == pytest.approx(list(expected.values()), rel=1e-5)
    asked = ["evaluate", str(run), "--engine", "torch", "--bootstrap", "0", "--csv", str(tmp_path / "t.csv")]
    assert main(asked) in (None, 0)
    assert (tmp_path / "t.csv").read_text().splitlines()[0] == "image,subject,age,predicted_age,size,predicted_size"
    assert fit(configure(source, run, epochs=3), resume=True, force=True).steps == 12


@pytest.mark.parametrize("size", [(32,), (8, 9, 8)])
def test_signals_and_volumes(tmp_path: Path, size: tuple[int, ...]) -> None:
    folder = table(tmp_path / "data", size, {"value": VALUES[:8]})
    result = fit(configure(folder, tmp_path / "run", epochs=1, batch_size=3, loss="huber", model="resnet18", width=0.05,
                           axes={1: "W", 3: "DHW"}[len(size)]))  # fmt: skip
    assert np.isfinite(result.metrics["metric"]) and result.metrics["figures"]["mae"]["value"] > 0


def test_intensities_that_values_may_follow_are_not_changed() -> None:
    config = TrainConfig.build(task="regress", data="x", output="y", patch=(16, 16), flip_axes=())
    words = " ".join(Augmentation(config).words)
    assert "noise" in words and "contrast" not in words and "brightness" not in words
    assert "contrast" in " ".join(
        Augmentation(TrainConfig.build(**{**config.to_dict(), "task": "classify", "loss": None})).words
    )


def test_parts_and_folds_hold_every_quantile_of_the_values() -> None:
    rng = np.random.default_rng(3)
    values = rng.permutation(np.exp(np.arange(50) / 5))

    def part(rule: SplitRule, subjects: int | None = None) -> tuple[list[int], str]:
        entries = [
            Entry(f"{i:02d}", (4, 4), None, lambda: Sample("x", np.zeros((1, 4, 4), np.float32)), (float(value),),
                  subject=None if subjects is None else f"s{i % subjects}")
            for i, value in enumerate(values)
        ]  # fmt: skip
        found = rule.split({"": entries}, "regress")
        order = sorted(value for (value,) in (entry.label for entry in entries))  # type: ignore[misc, union-attr]
        return sorted(order.index(entry.label[0]) for entry in found.validation), found.rule  # type: ignore[index]

    held, words = part(SplitRule())
    assert [place // 5 for place in held] == list(range(10))
    assert words == "10 of the data validate, of 10 quantiles of the values in proportion, drawn by seed 0"
    folds = [part(SplitRule(folds=5, fold=fold))[0] for fold in range(5)]
    assert all([place // 5 for place in fold] == list(range(10)) for fold in folds)
    assert sorted(place for fold in folds for place in fold) == list(range(50))
    for count in (1, 2, 30, 49):
        assert len(part(SplitRule(validation=count))[0]) == count
    held, words = part(SplitRule(validation=2), subjects=10)
    assert len(held) == 10 and words.startswith("2 subjects of the data validate, of 2 quantiles of the values")
