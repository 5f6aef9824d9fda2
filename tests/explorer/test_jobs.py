"""Commands that the explorer starts: one after the other, stopped or left at its end, and no word is another's."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from convoxel.cli.child import obey
from convoxel.errors import ConfigError
from convoxel.explorer.jobs import Jobs

# Reads words until its input closes; what it heard is its output, and its exit code says how it ended.
_CHILD = """
import sys
heard, leave = [], False
print("training      34 %  loss 0.31  Dice 0.52", flush=True)
for line in sys.stdin:
    heard.append(line.strip())
    print("heard", line.strip(), flush=True)
    if line.strip() in ("stop", "done"):
        sys.exit(130 if line.strip() == "stop" else 0)
    leave = line.strip() == "leave" or leave and line.strip() != "hold"
sys.exit(0 if leave else 130)
"""


def start(words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen([sys.executable, "-c", _CHILD], stdin=subprocess.PIPE, stdout=output, stderr=output)


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    made = Jobs(start)
    yield made
    made.close()


def until(reached: Callable[[], bool]) -> None:
    """Wait for another process or thread."""
    for _ in range(6000):
        if reached():
            return
        time.sleep(0.01)
    raise AssertionError("it was not reached")


def test_one_runs_and_the_others_wait(jobs: Jobs, tmp_path: Path) -> None:
    first, second = (jobs.add("train", ["train", "--output=x y"], tmp_path / name) for name in "ab")
    assert (first.state, second.state) == ("running", "waiting") and second.process is None
    assert first.command == "convoxel train '--output=x y'"
    with pytest.raises(ConfigError, match="runs or waits"):
        jobs.add("train", ["train"], tmp_path / "b")
    jobs.stop(second.number)
    assert second.state == "stopped"
    third = jobs.add("train", ["train"], tmp_path / "c")
    jobs.stop(first.number)
    assert first.process is not None and first.process.wait() == 130
    until(lambda: third.state != "waiting")
    assert (first.state, third.state) == ("stopped", "running")
    third.send("done")
    until(lambda: third.state != "running")
    assert (third.state, third.code, third.to_dict()["fraction"]) == ("done", 0, 1.0)
    with pytest.raises(ConfigError, match="99"):
        jobs.stop(99)


def test_progress_is_read_from_what_was_printed(jobs: Jobs, tmp_path: Path) -> None:
    job = jobs.add("train", [], tmp_path / "a")
    until(lambda: bool(job.to_dict()["lines"]))
    told = job.to_dict()
    assert (told["fraction"], told["phase"], told["figures"]) == (0.34, "training", "loss 0.31 · Dice 0.52")


@pytest.mark.parametrize(("leave", "code"), [(False, 130), (True, 0)])
def test_the_end_stops_or_leaves_what_runs(tmp_path: Path, leave: bool, code: int) -> None:
    jobs = Jobs(start)
    job, waiting = (jobs.add("train", [], tmp_path / name) for name in "ab")
    jobs.choose(leave)
    said: list[str] = []
    jobs.close(said.append)
    assert job.process is not None and job.process.wait() == code
    assert waiting.process is None and ("goes on" in said[0]) == leave
    with pytest.raises(ConfigError):
        jobs.add("train", [], tmp_path / "c")


def test_a_parent_that_dies_stops_its_child(monkeypatch: pytest.MonkeyPatch) -> None:
    for words, stops in ((b"", 1), (b"stop\n", 2), (b"leave\n", 0), (b"leave\nhold\n", 1), (b"lea", 1)):
        reading, writing = os.pipe()
        os.write(writing, words)
        os.close(writing)
        interrupted: list[int] = []
        monkeypatch.setattr("convoxel.cli.child._thread.interrupt_main", lambda found=interrupted: found.append(1))
        obey(reading)
        os.close(reading)
        assert len(interrupted) == stops, words


def test_a_command_that_cannot_start_says_so(tmp_path: Path) -> None:
    def refuse(words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        raise OSError(12, "Cannot allocate memory")

    jobs = Jobs(refuse)
    job = jobs.add("train", [], tmp_path / "a")
    assert job.state == "failed" and "Cannot allocate memory" in job.to_dict()["lines"][0]
    jobs.close()
