"""Trackers: what they are given, in order; and that none of them ever stops a training."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from convoxel.cli import main
from convoxel.errors import ConfigError
from convoxel.train import TrainConfig, fit, tracking
from convoxel.train.tracking import Figures, TrackerThread, check_trackers, send_files
from tests.support.refusal import refused_command

CLASSIFY: dict[str, Any] = {
    "task": "classify", "data": "digits", "model": "course_vgg", "width": 0.1, "batch_size": 8, "epochs": 2,
    "steps_per_epoch": 2, "validate_every": 1, "validation": 60, "threads": 1, "tensorboard": False, "track": "mlflow",
}  # fmt: skip


class Kept:
    """A tracker that keeps what it is given; it fails, or waits, where it is told to."""

    opened: list[Kept]
    fail_at: str = ""
    gate: threading.Event | None = None

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self._do("open")
        self.config, self.rows, self.files, self.closed = config, list[Figures](), list[str](), list[bool]()
        self.resumed = tracking._remembered(folder, "mlflow")
        tracking._remember(folder, "mlflow", self.resumed or "name")
        self.opened.append(self)

    def _do(self, name: str) -> None:
        if self.gate is not None:
            self.gate.wait()
        if name == self.fail_at:
            raise SystemExit("no server")

    def add(self, rows: Sequence[Figures]) -> None:
        self._do("add")
        self.rows += rows

    def add_file(self, path: Path) -> None:
        self._do("file")
        self.files.append(path.name)

    def close(self, whole: bool) -> None:
        self._do("close")
        self.closed.append(whole)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> type[Kept]:
    made = type("KeptHere", (Kept,), {"opened": []})
    monkeypatch.setitem(tracking._KINDS, "mlflow", tracking._Kind(made, "json", "json"))
    return made


def test_a_run_and_its_resumption_are_one_record(tmp_path: Path, kept: type[Kept]) -> None:
    config = TrainConfig.build(**CLASSIFY, output=str(tmp_path / "run"))

    def stop(progress: Any) -> None:
        if progress.step == 3:
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        fit(config.override(["checkpoint_seconds=1e-9"]), on_progress=stop)
    fit(config, resume=True)
    first, second = kept.opened
    assert first.config["model"] == "course_vgg" and first.resumed is None and second.resumed == "name"
    steps = [[row.step for row in each.rows if "loss/step" in row.values] for each in (first, second)]
    assert steps[0] == [1, 2, 3] and steps[1][-1] == 4 and first.closed == [False] and second.closed == [True]
    validated = [
        (row.step, row.values.keys()) for each in kept.opened for row in each.rows if "loss/train" in row.values
    ]
    assert [step for step, _ in validated] == [2, 4] and validated[0][1] >= {"loss/validation", "metric/mean"}
    assert all(a.time_s <= b.time_s for each in kept.opened for a, b in zip(each.rows, each.rows[1:], strict=False))
    send_files(tmp_path / "run", ["mlflow", "wandb"], [tmp_path / "run/evaluation.json", tmp_path / "run/missing"])
    assert kept.opened[2].files == ["evaluation.json"] and kept.opened[2].resumed == "name"
    assert json.loads((tmp_path / "run/tracking.json").read_text()) == {"mlflow": "name"}


@pytest.mark.parametrize("place", ["open", "add", "close"])
def test_a_tracker_that_fails_warns_once(tmp_path: Path, kept: type[Kept], place: str) -> None:
    kept.fail_at = place
    with pytest.warns(RuntimeWarning, match="track: mlflow records no more of this run: SystemExit: no server") as told:
        thread = TrackerThread("mlflow", tmp_path, {})
        for step in range(3):
            thread.add(step, {"loss": 1.0})
        thread.close()
    assert len(told) == 1


def test_a_tracker_that_hangs_is_left_behind(tmp_path: Path, kept: type[Kept], monkeypatch: pytest.MonkeyPatch) -> None:
    gate = kept.gate = threading.Event()
    monkeypatch.setattr(tracking, "_PATIENCE_S", 0.01)
    monkeypatch.setattr(tracking, "_MOST_WAITING", 5)
    thread = TrackerThread("mlflow", tmp_path, {})
    with pytest.warns(RuntimeWarning, match="track: mlflow records no more of this run: 5 steps wait for it") as told:
        for step in range(9):
            thread.add(step, {"loss": 1.0})
        thread.close()
    assert len(told) == 1
    gate.set()
    thread._thread.join()


def test_a_training_goes_on_without_its_tracker(tmp_path: Path, kept: type[Kept]) -> None:
    kept.fail_at = "add"
    config = TrainConfig.build(**{**CLASSIFY, "epochs": 1}, output=str(tmp_path / "run"))
    with pytest.warns(RuntimeWarning, match="The run itself goes on"):
        assert fit(config).steps == 2


def test_what_is_not_installed_is_refused_by_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(tracking._KINDS, "wandb", tracking._KINDS["wandb"]._replace(module="no_such_module_here"))
    with pytest.raises(ConfigError, match="is not installed; expected its package"):
        check_trackers(["tensorboard", "wandb"])
    run = tmp_path / "run"
    line = refused_command(capsys, "train", "classify", "--data", "digits", "--output", run, "--track", "wandb")
    assert "pip install wandb" in line and not run.exists()
    line = refused_command(capsys, "train", "classify", "--data", "digits", "--output", run, "--track", "comet")
    assert "track" in line and "mlflow" in line


def test_the_command_sends_the_report(tmp_path: Path, kept: type[Kept], capsys: pytest.CaptureFixture[str]) -> None:
    stated = [
        f"--set={name}={value}" for name, value in CLASSIFY.items() if name not in ("task", "data", "track", "epochs")
    ]
    asked = ["--data", "digits", "--output", str(tmp_path / "run"), "--epochs", "1", *stated]
    assert main(["train", "classify", *asked, "--track", "mlflow", "--track-files"]) == 0
    assert kept.opened[-1].files == ["report.html", "evaluation.json", "config.yaml"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_the_tools_themselves(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracking, "_PATIENCE_S", 300.0)
    (tmp_path / "report.html").write_text("report")
    for first in (1, 3):  # the second resumes
        thread = TrackerThread(name, tmp_path, {"model": "unet", "augment": {"level": "light"}})
        for step in (first, first + 1):
            thread.add(step, {"loss/train": 1.0 / step})
        thread.close()
        assert thread._fault is None
    send_files(tmp_path, [name], [tmp_path / "report.html"])
    run = json.loads((tmp_path / "tracking.json").read_text())[name]
    if name == "wandb":
        assert any(run in path.name for path in (tmp_path / "wandb").iterdir())
        return
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    assert [each.step for each in client.get_metric_history(run, "loss/train")] == [1, 2, 3, 4]
    assert client.get_run(run).data.params["augment.level"] == "light"
    assert client.get_run(run).info.status == "FINISHED"
    assert [each.path for each in client.list_artifacts(run)] == ["report.html"]
