"""Trainings and predictions that the explorer starts: one after the other, each a process of its own.

Each is a command of ``convoxel`` with a list of arguments; no shell sees a word. Two at once would only slow each
other, so the others wait. What a command prints goes into a file that ends with the explorer. When the explorer ends,
the commands stop as by Ctrl-C, a training with a checkpoint, unless the user chose to let them go on.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from convoxel.errors import ConfigError
from convoxel.files.values import JsonObject

_MOST_WAITING = 20
_MOST_KEPT = 50  # of those that ended
_TAIL_BYTES = 16 * 1024
_PATIENCE_S = 60.0
# A line of progress, such as "training      34 %  loss 0.31  Dice 0.52  1:20 left".
_PROGRESS = re.compile(r"([a-z][a-z ]{0,20}?) +(\d{1,3}) %(?:  (.*))?")
_OVER = frozenset({"done", "stopped", "failed"})


@dataclass
class Job:
    """One command.

    Attributes:
        number: its number, from 1.
        kind: "train", "resume" or "predict".
        words: the words after ``convoxel``.
        folder: the folder that it writes.
        state: "waiting", "running", "stopping", "done", "stopped" or "failed".
        code: exit code; None before the end.
        log: file of what it printed.
        reason: why it could not be started.
    """

    number: int
    kind: str
    words: tuple[str, ...]
    folder: Path
    log: Path
    state: str = "waiting"
    code: int | None = None
    reason: str = ""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def command(self) -> str:
        """The same to be typed."""
        return shlex.join(("convoxel", *self.words))

    def to_dict(self) -> JsonObject:
        """Return what a page shows: state, progress, and the last lines that were printed."""
        lines = self._tail()
        phase, share, figures = _read_progress(lines)
        return {
            "number": self.number, "kind": self.kind, "folder": str(self.folder), "name": self.folder.name,
            "state": self.state, "code": self.code, "command": self.command, "lines": lines[-30:],
            "fraction": 1.0 if self.state == "done" else share, "phase": phase, "figures": figures,
        }  # fmt: skip

    def send(self, word: str) -> None:
        """Send a word to the command; one that has ended hears nothing."""
        if self.process is not None and self.process.stdin is not None:
            with contextlib.suppress(OSError, ValueError):
                self.process.stdin.write(word.encode() + b"\n")
                self.process.stdin.flush()

    def _tail(self) -> list[str]:
        if self.reason:
            return [self.reason]
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
                return file.read(_TAIL_BYTES).decode("utf-8", "replace").splitlines()
        except OSError:
            return []


def _read_progress(lines: Sequence[str]) -> tuple[str, float | None, str]:
    """Return the phase, the share that is done and the figures of the last line of progress.

    >>> _read_progress(["reading", "training      34 %  loss 0.31  Dice 0.52", "note: x"])
    ('training', 0.34, 'loss 0.31 · Dice 0.52')
    """
    for line in reversed(lines):
        if found := _PROGRESS.fullmatch(line.strip()):
            return found[1], min(1.0, int(found[2]) / 100), " · ".join((found[3] or "").split("  ")).strip(" ·")
    return "", None, ""


class Jobs:
    """The commands of one explorer.

    Args:
        start: opens the process of some words with a file for its output (default: ``convoxel`` in this Python).
    """

    def __init__(self, start: Callable[[Sequence[str], Path], subprocess.Popen[bytes]] | None = None) -> None:
        self._start = start or _start
        self._lock = threading.Lock()
        self._jobs: list[Job] = []
        self._place: Path | None = None
        self._closed = False
        self.leave = False

    def add(self, kind: str, words: Sequence[str], folder: Path) -> Job:
        """Start a command, or let it wait for those before it.

        Raises:
            ConfigError: another command writes the same folder, or too many wait.
        """
        with self._lock:
            open_jobs = [job for job in self._jobs if job.state not in _OVER]
            if any(job.folder == folder for job in open_jobs):
                raise ConfigError(f"{kind}: a command that writes {folder} runs or waits. Wait for it, or stop it.")
            if len(open_jobs) >= _MOST_WAITING or self._closed:
                raise ConfigError(f"{kind}: {len(open_jobs)} commands run or wait. Wait for them, or stop some.")
            if self._place is None:
                self._place = Path(tempfile.mkdtemp(prefix="convoxel-"))
            number = self._jobs[-1].number + 1 if self._jobs else 1
            job = Job(number, kind, tuple(words), folder, self._place / f"{number}.log")
            self._jobs.append(job)
            for old in [each for each in self._jobs if each.state in _OVER][:-_MOST_KEPT]:
                self._jobs.remove(old)
                old.log.unlink(missing_ok=True)
        self._next()
        return job

    def stop(self, number: int) -> Job:
        """Stop a command as Ctrl-C does: a training saves a checkpoint, and a second time ends it at once.

        Raises:
            ConfigError: there is no such command.
        """
        with self._lock:
            job = next((job for job in self._jobs if job.number == number), None)
            if job is None:
                raise ConfigError(f"job: got {number}; no command of this explorer has that number.")
            if job.state == "waiting":
                job.state = "stopped"
            elif job.state not in _OVER:
                job.state = "stopping"
                job.send("stop")
        return job

    def choose(self, leave: bool) -> None:
        """Choose whether the running commands go on when the explorer ends; those that wait never start then."""
        with self._lock:
            self.leave = leave
            for job in self._jobs:
                job.send("leave" if leave else "hold")

    def of(self, folder: Path) -> Job | None:
        """Return the newest command that writes a folder."""
        with self._lock:
            return next((job for job in reversed(self._jobs) if job.folder == folder), None)

    def list(self) -> list[JsonObject]:
        """Return all commands for a page, the newest first."""
        with self._lock:
            jobs = self._jobs[::-1]
        return [job.to_dict() for job in jobs]

    def close(self, say: Callable[[str], object] = lambda text: None) -> None:
        """End: stop what runs, or leave it, as was chosen."""
        with self._lock:
            self._closed = True
            running = [job for job in self._jobs if job.state in ("running", "stopping")]
            for job in running:
                # Closed, the input says the same to a command that has not heard a word yet.
                job.send("leave" if self.leave else "hold")
                if job.process is not None and job.process.stdin is not None:
                    with contextlib.suppress(OSError):
                        job.process.stdin.close()
            place, leave = self._place, self.leave
        for job in running:
            if leave:
                say(f"{job.command} goes on, as you chose.")
                continue
            say(f"Stopping: {job.command}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                assert job.process is not None
                job.process.wait(_PATIENCE_S)
        if place is not None and not (running and leave):
            shutil.rmtree(place, ignore_errors=True)

    def _next(self) -> None:
        """Start the command that waits longest, if none runs."""
        with self._lock:
            if self._closed or any(job.state in ("running", "stopping") for job in self._jobs):
                return
            job = next((job for job in self._jobs if job.state == "waiting"), None)
            if job is None:
                return
            try:
                job.process = self._start(job.words, job.log)
            except OSError as error:
                job.state = "failed"
                job.reason = f"The command could not be started ({error.strerror or error})."
            else:
                job.state = "running"
                job.send("leave" if self.leave else "hold")
        if job.process is None:
            return self._next()
        threading.Thread(target=self._wait, args=(job,), daemon=True).start()

    def _wait(self, job: Job) -> None:
        assert job.process is not None
        code = job.process.wait()
        with self._lock:
            stopped = job.state == "stopping" or (code in (130, 143) and self._closed)
            job.code, job.state = code, "done" if code == 0 else "stopped" if stopped else "failed"
            if job.process.stdin is not None:
                with contextlib.suppress(OSError):
                    job.process.stdin.close()
        self._next()


def _start(words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    more = {"PYTHONUNBUFFERED": "1", "CONVOXEL_PROGRESS_S": "1"}
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        # A session of its own: Ctrl-C in the terminal is for the explorer, which passes it on as was chosen.
        return subprocess.Popen(
            [sys.executable, "-m", "convoxel.cli.child", *words], stdin=subprocess.PIPE, stdout=output, stderr=output,
            env={**os.environ, **more}, start_new_session=True,
        )  # fmt: skip
    finally:
        os.close(output)
