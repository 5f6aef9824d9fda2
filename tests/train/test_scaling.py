"""Quality against scale on real images: trained, compared, drawn; and the search that trains what it found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from convoxel.cli import main
from convoxel.draw.scaling_chart import scaling
from convoxel.errors import ConfigError
from convoxel.train import Progress
from convoxel.train.scaling_study import study_scaling

SHORT = {"steps_per_epoch": 40, "batch_size": 32, "precision": "float32", "validation": 200}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of the commands take two steps."""
    quick = {**SHORT, "steps_per_epoch": 2}
    monkeypatch.setattr("convoxel.train.scaling_study._SETTINGS", quick)


def test_D13_quality_grows_with_scale_on_digits(tmp_path: Path) -> None:
    told: list[tuple[int, str, float]] = []

    def tell(number: int, name: str, progress: Progress) -> None:
        told.append((number, name, progress.fraction))

    widths = [{"width": width, "features_only": False} for width in (0.03125, 0.125)]
    study = study_scaling("digits", "course_vgg", widths, epochs=3, threads=1, settings=SHORT, on_progress=tell)
    small, large = study.rows
    assert (small.name, small.shape, small.steps) == ("width=0.03125", (1, 1, 8, 8), 120)
    assert 0.3 < small.quality + 0.1 < large.quality and small.params < large.params and small.macs < large.macs
    assert {number for number, _, _ in told} == {0, 1} and told[-1][1:] == ("width=0.125", 1.0)
    figure = scaling(study)
    assert figure.title == "course_vgg on digits: accuracy against scale"
    assert figure.svg().count('data-entry="width=0.125"') == 2  # over parameters, and over multiply–adds
    with Image.open(figure.save(tmp_path / "scale.png")) as drawn:
        assert drawn.width > 1000


def test_D13_command_trains_and_draws(capsys: pytest.CaptureFixture[str], tmp_path: Path, short: None) -> None:
    picture = tmp_path / "scale.svg"
    words = ["scale", "resnet18", "--width", "0.0625,0.125", "--compound", "0", "--data", "digits", "--epochs", "1"]
    words += ["--set", "stem=small"]
    assert main([*words, "--threads", "1", "--plot", str(picture), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["rows"]] == ["width=0.0625", "width=0.125", "resnet18"]
    assert found["rows"][2]["params"] > 11e6 and all(0 <= row["quality"] <= 1 for row in found["rows"])
    assert "accuracy against scale" in picture.read_text(encoding="utf-8")


def test_D14_search_trains_what_nobody_beats(capsys: pytest.CaptureFixture[str], tmp_path: Path, short: None) -> None:
    picture = tmp_path / "front.svg"
    words = ["search", "course_vgg", "--shape", "1,1,8,8", "--vary", "width=0.03125,0.0625", "--max-parameters", "1M"]
    assert main([*words, "--data", "digits", "--epochs", "1", "--threads", "1", "--plot", str(picture)]) == 0
    shown = capsys.readouterr().out
    assert "quality" in shown and "Best of them: convoxel describe course_vgg" in shown
    assert "quality" in picture.read_text(encoding="utf-8")


def test_what_cannot_be_trained_at_is_refused() -> None:
    with pytest.raises(ConfigError, match="variants: got none"):
        study_scaling("digits", "resnet18", [])
    with pytest.raises(ConfigError, match="scale: 'size' cannot be trained at; resnet18 has width"):
        study_scaling("digits", "resnet18", [{"size": 16}])
