"""Settings of a training as options: every entry of a configuration and every option of a network is one word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from convoxel.cli import main
from convoxel.cli import train as train_command
from convoxel.train import TrainConfig

pytestmark = pytest.mark.smoke


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """The configurations that the command makes, of which none is trained."""
    found: list[TrainConfig] = []

    def stop(config: TrainConfig, *_: Any, **__: Any) -> None:
        found.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr(train_command, "run_training", stop)
    return found


def configure(made: list[TrainConfig], *words: str) -> TrainConfig:
    assert main(["train", "segment", "--data", "set", "--output", "run", *words]) == 130
    return made[-1]


@pytest.mark.parametrize(
    ("words", "entries"),
    [
        (["--weight-decay", "1e-3", "--momentum=0.99", "--optimiser", "sgd"],
         {"weight_decay": 1e-3, "momentum": 0.99, "optimiser": "sgd"}),
        (["--ema", "0.99", "--accumulate", "4", "--patience", "3"], {"ema": 0.99, "accumulate": 4, "patience": 3}),
        (["--deterministic", "--clip", "null"], {"deterministic": True, "clip": None}),
        (["--dilation", "2", "--padding", "reflect", "--norm", "instance", "--block=residual"],
         {"model_options": {"dilation": 2, "padding": "reflect", "norm": "instance", "block": "residual"}}),
        (["--dropout", "0.2", "--dropout-where", "all", "--width", "8"],
         {"model_options": {"dropout": 0.2, "dropout_where": "all"}, "width": 8.0}),
        (["--dilation.encoder.*", "2"], {"model_options": {"dilation": {"encoder": {"*": 2}}}}),
        (["--rates.encoder.*", "0.1"], {"rates": {"encoder.*": 0.1}}),
        (["--set", "levels=2", "--schedule", "poly"], {"levels": 2, "schedule": "poly"}),
    ],
)  # fmt: skip
def test_settings_are_options(made: list[TrainConfig], words: list[str], entries: dict[str, Any]) -> None:
    config = configure(made, *words)
    assert {name: getattr(config, name) for name in entries} == entries


def test_changes_of_samples_are_options(made: list[TrainConfig]) -> None:
    found = configure(made, "--augment.rotate", "15", "--augment.scale", "0.9,1.1", "--augment.shift", "5").augment
    assert (found.rotate, found.scale, found.shift, found.level) == (15, (0.9, 1.1), 5, "light")
    assert configure(made, "--augment", "strong").augment.level == "strong"


def test_words_may_stand_before_the_task(made: list[TrainConfig]) -> None:
    words = ["--ema", "0.9", "--width=4", "segment", "--data", "set", "--output", "run"]
    assert main(["train", *words]) == 130 and (made[-1].task, made[-1].ema, made[-1].width) == ("segment", 0.9, 4)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--wieght-decay", "1"], "no such option: --wieght-decay; did you mean --weight-decay?"),
        (["--droput", "1"], "no such option: --droput; did you mean --dropout?"),
        (["--ema"], "--ema needs a value"),
        (["--ema", "--width", "4"], "--ema needs a value"),
        (["--augment.rotat", "3"], "there is no entry 'augment.rotat'; did you mean 'augment.rotate'?"),
        (["--augment.scale", "1.1,0.9"], "give the least value first"),
        (["--augment", "much"], "augment.level='much'"),
        (["--accumulate", "0"], "accumulate=0"),
    ],
)
def test_wrong_settings_are_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], told: str
) -> None:
    assert main(["train", "segment", "--data", str(tmp_path), "--output", str(tmp_path / "run"), *words]) == 2
    assert told in capsys.readouterr().err
