"""Studies of trials that several workers share: counted exactly, trained once each, and begun again where one died."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convoxel.cli import main
from convoxel.errors import ConfigError, ConvoxelError, DataError, UnsupportedError
from convoxel.search import Budget
from convoxel.search import study as study_module
from convoxel.search.candidate import Candidate
from convoxel.search.study import StudyResult, Watch, run_study
from tests.support.refusal import refused_command

VARY = {"levels": (1, 2, 3, 4), "width": (8, 16, 24)}


def look(number: int) -> Candidate | None:
    """A network with as many parameters as its number says; the third is none."""
    return None if number == 3 else Candidate(
        network="stub", options={"number": number}, fixed={}, shape=(1, 1, 8), params=100 * number, macs=1000 - number,
        memory_bytes=0, field=(),
    )  # fmt: skip


def study(train: Callable[..., Any], **stated: Any) -> StudyResult:
    return run_study(VARY, look, train, **{"name": "stub", "seed": 1, **stated})


def test_without_optuna_its_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UnsupportedError, match=r"needs Optuna.*pip install 'convoxel\[search\]'"):
        study(lambda *_: (0.0, {}))


@pytest.fixture
def optuna() -> Any:
    return pytest.importorskip("optuna")


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_only_what_lies_inside_the_budgets_is_trained_and_once(optuna: Any, sampler: str) -> None:
    trained: list[int] = []

    def train(number: int, candidate: Candidate, watch: Watch) -> tuple[float, dict[str, Any]]:
        assert candidate.params <= 800
        trained.append(number)
        return number / 10, {"steps": number}

    told: list[tuple[int, int]] = []
    found = study(
        train, budget=Budget(max_params=800), sampler=sampler, low=[lambda each: each.macs],
        on_progress=lambda done, total, what: told.append((done, total)),
    )  # fmt: skip
    assert sorted(trained) == [0, 1, 2, 4, 5, 6, 7, 8] and found.complete and found.own == 8
    assert {row.number: (row.quality, row.figures["steps"]) for row in found.trained}[7] == (0.7, 7)
    assert told[0] == (0, 12) and [done for done, _ in told] == list(range(8))
    few = study(train, trials=3, name="few")
    assert few.own == len(few.trained) == 3 and not few.complete


def test_curves_below_the_median_are_stopped(optuna: Any) -> None:
    epochs: list[int] = []

    def train(number: int, candidate: Candidate, watch: Watch) -> tuple[float, dict[str, Any]]:
        for epoch in range(4):
            epochs.append(number)
            watch.report(epoch, 0.1 if len(set(epochs)) > 6 else 0.5 + epoch / 10)
        return 0.8, {}

    found = study(train)
    stopped = [row for row in found.trained if row.stopped]
    assert len(found.trained) == 11 and len(stopped) == 5 and all(row.quality == 0.1 for row in stopped)
    assert all(epochs.count(row.number) == 1 for row in stopped) and len(epochs) == 6 * 4 + 5


def test_a_training_that_fails_is_told_and_not_repeated(optuna: Any) -> None:
    trained: list[int] = []

    def train(number: int, candidate: Candidate, watch: Watch) -> tuple[float, dict[str, Any]]:
        trained.append(number)
        if number == 5:
            raise ConvoxelError("train: the loss is nan")
        return 0.5, {}

    found = study(train)
    assert len(trained) == len(set(trained)) == 11 and len(found.trained) == 10
    assert found.failed == ("number=5: train: the loss is nan",)

    def broken(number: int, candidate: Candidate, watch: Watch) -> tuple[float, dict[str, Any]]:
        raise DataError("data: there is none")

    with pytest.raises(DataError, match="there is none"):
        study(broken, trials=2)
    with pytest.raises(ConfigError, match="none of the combinations that were counted lies inside"):
        study(broken, budget=Budget(max_macs=1))


WORKER = """
import os, sys, time
from pathlib import Path
from tests.search.test_study import study

storage, log, dies = sys.argv[1:]

def train(number, candidate, watch):
    with open(log, "a") as file:
        file.write(f"{os.getpid()} {number} {watch.key} {watch.retried}\\n")
    if dies == "True":
        os._exit(9)
    for _ in range(6000):  # until the other worker trains, too
        if len({line.split()[0] for line in Path(log).read_text().splitlines()}) > 1:
            break
        time.sleep(0.01)
    return number / 10, {}

found = study(train, storage=storage)
print(found.own, len(found.trained))
"""


def start(storage: str, log: Path, dies: bool = False) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", WORKER, storage, str(log), str(dies)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_two_workers_share_a_study(optuna: Any, tmp_path: Path, kind: str) -> None:
    storage = f"journal:{tmp_path}/study.log" if kind == "journal" else f"sqlite:///{tmp_path}/study.db"
    workers = [start(storage, tmp_path / "log") for _ in range(2)]
    own = [int(worker.communicate()[0].split()[0]) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0] and min(own) >= 1
    rows = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(int(number) for _, number, *_ in rows) == [0, 1, 2, *range(4, 12)] and sum(own) == 11


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(optuna: Any, tmp_path: Path) -> None:
    storage, log = f"journal:{tmp_path}/study.log", tmp_path / "log"
    worker = start(storage, log, dies=True)
    worker.communicate()
    assert worker.returncode == 9
    _, number, key, _ = log.read_text().split()
    seen: list[tuple[int, str, bool]] = []

    def train(number: int, candidate: Candidate, watch: Watch) -> tuple[float, dict[str, Any]]:
        seen.append((number, watch.key, watch.retried))
        return 0.5, {}

    found = study(train, storage=storage, resume=True)
    assert (int(number), key, True) == seen[0] and len(seen) == 11 and found.trained[-11].retries in (0, 1)
    assert sum(row.retries for row in found.trained) == 1 and len({row.number for row in found.trained}) == 11
    again = study(train, storage=storage)
    assert again.own == 0 and len(again.trained) == 11 and len(seen) == 11, "a study that is whole trains nothing"
    with pytest.raises(ConfigError, match="has no study 'other'"):
        study(train, storage=storage, name="other", resume=True)


def test_a_worker_elsewhere_is_dead_without_signs(optuna: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = f"journal:{tmp_path}/study.log"
    monkeypatch.setattr(study_module, "_POLL_S", 0.0)
    monkeypatch.setattr(study_module, "_worker_name", lambda: "elsewhere 1:1")

    class Gone(BaseException):
        """As a machine that is switched off."""

    def vanish(number: int, candidate: Candidate, watch: Watch) -> tuple[float, dict[str, Any]]:
        raise Gone

    with pytest.raises(Gone):
        study(vanish, storage=storage, trials=1)
    monkeypatch.setattr(study_module, "_DEAD_S", 0.0)
    found = study(lambda number, candidate, watch: (0.5, {}), storage=storage, trials=1)
    assert [row.retries for row in found.trained] == [1]


@pytest.mark.parametrize("stated, match", [
    ({"storage": "study.log"}, "storage: got 'study.log'; expected journal:FILE, sqlite:///FILE"),
    ({"storage": "sqlite:////no/such/folder/study.db"}, "storage: .* cannot be opened"),
    ({"storage": "nothing://here"}, "storage: .* cannot be opened"),
    ({"trials": 0}, "trials: got 0; expected a number above 0"),
    ({"minutes": -1.0}, "minutes: got -1.0; expected a number above 0"),
    ({"sampler": "cma"}, "sampler is 'cma', but it can be 'tpe' or 'nsga2'"),
])  # fmt: skip
def test_refusals(optuna: Any, stated: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        study(lambda *_: (0.0, {}), **stated)


@pytest.mark.slow
def test_D14_the_command_trains_what_a_study_chooses(
    optuna: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = {"steps_per_epoch": 2, "batch_size": 32, "precision": "float32", "validation": 200, "tensorboard": False}
    monkeypatch.setattr("convoxel.train.scaling_study._SETTINGS", quick)
    words = ["search", "course_vgg", "--shape", "1,1,8,8", "--vary", "width=0.03125,0.0625,1"]
    words += ["--max-parameters", "1M", "--data", "digits", "--epochs", "2", "--threads", "1"]
    words += ["--storage", f"journal:{tmp_path}/study.log"]
    assert main([*words, "--output", str(tmp_path / "runs"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["study"]["own"] == 2 and found["study"]["outside"] >= 1 and found["study"]["complete"]
    assert {row["options"]["width"] for row in found["inside"]} == {0.03125, 0.0625}
    assert all(0 <= row["quality"] <= 1 for row in found["inside"]) and len(list((tmp_path / "runs").iterdir())) == 2
    assert main([*words, "--resume"]) == 0
    assert "2 networks trained, 0 of these here" in capsys.readouterr().out
    assert "storage: given without --data" in refused_command(capsys, *words[:6], "--storage", "journal:x")
    assert "resume: given without --storage" in refused_command(capsys, *words[:6], "--data", "digits", "--resume")
    scale = ["scale", "course_vgg", "--width", "0.03125,0.0625", "--data", "digits", "--epochs", "1", "--threads", "1",
             "--storage", f"sqlite:///{tmp_path}/study.db", "--json"]  # fmt: skip
    assert main(scale) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert main(scale) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == rows and len(rows) == 2, "the second time trains nothing"
    assert "storage: expected together with --data" in refused_command(capsys, *scale[:4], "--storage", "journal:x")
