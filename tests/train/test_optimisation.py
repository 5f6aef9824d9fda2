"""Updates of the weights: accumulated gradients, rates by layer, frozen layers, mean weights, patience."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from convoxel.errors import ConfigError
from convoxel.train import RunPlan, TrainConfig, fit
from convoxel.train.checkpoint import Store
from convoxel.train.weight_mean import WeightMean

CLASSIFY: dict[str, Any] = {
    "task": "classify", "data": "digits", "model": "course_vgg", "width": 0.1, "batch_size": 8, "steps_per_epoch": 2,
    "epochs": 1, "validation": 40, "threads": 1, "tensorboard": False, "augment": False, "optimiser": "sgd",
    "schedule": "constant", "warmup": 0, "learning_rate": 0.01, "weight_decay": 0, "clip": None,
}  # fmt: skip


def trained(output: Path, **entries: Any) -> dict[str, torch.Tensor]:
    """Return the tensors of a run's last checkpoint."""
    fit(TrainConfig.build(**{**CLASSIFY, "output": str(output), **entries}))
    return Store(output).load().tensors


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Weights and statistics with which all these runs begin."""
    return trained(tmp_path_factory.mktemp("start") / "run", learning_rate=1e-30)


def test_accumulated_batches_are_one_batch(tmp_path: Path) -> None:
    without = {"model": "resnet18", "model_options": {"norm": "group"}, "width": 0.125, "steps_per_epoch": 1}
    whole = trained(tmp_path / "whole", batch_size=16, **without)
    parts = trained(tmp_path / "parts", batch_size=4, accumulate=4, **without)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-6)
    plan = RunPlan.read(tmp_path / "parts")
    assert plan is not None and "the gradients of 4 batches added up for a step" in str(plan)


def test_rates_by_name_slow_and_freeze_layers(tmp_path: Path, start: dict[str, torch.Tensor]) -> None:
    first, second, last = "features.0.weight", "features.3.weight", "classifier.weight"
    once = {"steps_per_epoch": 1}
    plain = trained(tmp_path / "plain", **once)
    slowed = trained(tmp_path / "slowed", **once, rates={"*": 0.5, second: 0.1, "features.0.*": 0})
    moved, found = (
        {name: tensors[f"model.{name}"] - start[f"model.{name}"] for name in (first, second, last)}
        for tensors in (plain, slowed)
    )
    assert moved[first].any() and not found[first].any()
    torch.testing.assert_close(found[second], 0.1 * moved[second], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(found[last], 0.5 * moved[last], rtol=1e-3, atol=1e-6)


def test_frozen_normalisation_keeps_its_statistics(tmp_path: Path, start: dict[str, torch.Tensor]) -> None:
    found = trained(tmp_path / "run", rates={"features.1.*": 0}, steps_per_epoch=1, epochs=2)
    names = [f"model.features.{number}.running_mean" for number in (1, 4)]
    assert not found[names[0]].any() and start[names[0]].any() and found[names[1]].any()


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ({"decoder.*": 0.1}, r"rates: 'decoder.\*' fits nothing in course_vgg; expected patterns such as "),
        ({"*": 0}, "rates: every weight is frozen"),
        ({"head.*": -1}, r"rates.head.\*=-1"),
    ],
)
def test_rates_that_cannot_be_are_refused(tmp_path: Path, rates: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        trained(tmp_path / "run", rates=rates)
    assert not (tmp_path / "run").exists()


def test_the_mean_forgets_its_start_and_then_keeps() -> None:
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2))
    mean, wanted = WeightMean(net, 0.5), net[0].weight.detach().clone()
    for step in range(1, 30):
        with torch.no_grad():
            net[0].weight.copy_(torch.full((2, 2), float(step)))
            net[1].num_batches_tracked.fill_(step)
        mean.update(net, step)
        keep = min(0.5, (1 + step) / (10 + step))
        wanted = keep * wanted + (1 - keep) * step
    torch.testing.assert_close(mean.model[0].weight.detach(), wanted)
    assert mean.model[1].num_batches_tracked == 29 and not mean.model.training


def test_a_run_answers_with_its_mean_weights(tmp_path: Path) -> None:
    tensors = trained(tmp_path / "run", ema=0.9, learning_rate=0.1)
    best = Store(tmp_path / "run").load_best().tensors
    name = "classifier.weight"
    assert torch.equal(best[f"model.{name}"], tensors[f"model.{name}"])
    assert not torch.equal(tensors[f"model.{name}"], tensors[f"trained.{name}"])


def test_patience_ends_a_run_and_says_so(tmp_path: Path) -> None:
    entries = {"learning_rate": 1e-30, "steps_per_epoch": 1, "epochs": 9, "validate_every": 1, "patience": 2}
    config = TrainConfig.build(**{**CLASSIFY, "output": str(tmp_path / "run"), **entries})
    result = fit(config)
    assert result.early and not result.interrupted and result.metrics["count"] == 40
    metrics = [row["metric"] for row in Store(tmp_path / "run").load().body["history"]]
    best = metrics.index(max(metrics))
    assert len(metrics) < 9 and len(metrics) == best + 1 + 2 == result.steps
    again = fit(config, resume=True)
    assert again.early and again.steps == result.steps
