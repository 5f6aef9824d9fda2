"""A process of its own for each engine, so that its memory is known and its failure hurts no other engine.

The two sides exchange lines of JSON: the task, then a question for every turn. ``Worker`` is our side; ``serve`` is
what the process runs: ``python -m convoxel.bench.worker``.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from convoxel.bench.engine import ENGINES, Run, Task, first_output
from convoxel.bench.network_list import Network
from convoxel.files.atomic import open_atomic
from convoxel.files.values import Array, JsonObject

_LIMIT_S = 300.0  # for a network to be ready, torch.compile's C++ included


class WorkerFailed(Exception):
    """An engine could not run the network; says why in one line."""


class Worker:
    """An engine at work in its own process.

    Attributes:
        ready_s: from its files, or the module, to the first result.
    """

    def __init__(self, engine: str, task: Task, limit_s: float = _LIMIT_S) -> None:
        self._limit_s = limit_s
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the worker)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "convoxel.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},  # it finds a network's function where we do
        )
        words = {"engine": engine, "network": asdict(task.network), "folder": str(task.folder), "threads": task.threads}
        try:
            self.ready_s = float(self._ask(words)["ready_s"])
        except WorkerFailed:
            self.close()
            raise

    def __call__(self, turn_s: float) -> float:
        """Return the seconds of one input in a turn of back-to-back calls (see ``clock.time_turn``)."""
        return float(self._ask({"turn_s": turn_s})["time_s"])

    def peak_bytes(self) -> int:
        """Return the most memory that the process ever held, beyond that of the imported engine."""
        return int(self._ask("memory")["peak_bytes"])

    def close(self) -> None:
        """End the process."""
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None and not stream.closed:
                with contextlib.suppress(BrokenPipeError):  # a question that a dead process did not read
                    stream.close()
        self._process.kill()
        self._process.wait()

    def _ask(self, question: object) -> JsonObject:
        assert self._process.stdin is not None and self._process.stdout is not None
        late = threading.Event()  # the clock cannot say who ended the process: it may be read before the limit

        def give_up() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(self._limit_s, give_up)
        timer.start()
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if not line:
            raise WorkerFailed(f"no answer within {self._limit_s:.0f} s" if late.is_set() else self._last_words())
        answer: JsonObject = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(answer["error"])
        return answer

    def _last_words(self) -> str:
        """Return what a process that ended without an answer wrote last."""
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"its process ended with {code}{f': {said}' if said else ''}"[:200]


def serve(questions: IO[str], answers: IO[str]) -> None:
    """Run the engine that the first line names, and answer every line."""
    from convoxel.bench.peer import quieten_threads

    quieten_threads()

    def answer(**words: object) -> None:
        answers.write(json.dumps(words) + "\n")
        answers.flush()

    try:
        words = json.loads(questions.readline())
        run, ready_s, before = _prepare(words)
        inputs = ENGINES[words["engine"]].inputs(words["threads"])
        answer(ready_s=ready_s)
        for question in map(json.loads, questions):
            if question == "memory":
                answer(peak_bytes=_resident_bytes("VmHWM") - before)
            else:
                from convoxel.bench.clock import time_turn

                answer(time_s=time_turn(run, question["turn_s"]) / inputs)
    except Exception as error:  # an engine may raise anything; the other side shows it
        said = " ".join(str(error).split())
        answer(error=f"{type(error).__name__}: {said}"[:200])


def _prepare(words: JsonObject) -> tuple[Run, float, int]:
    """Return the call, the seconds up to its first result (which is saved), and the memory before."""
    import numpy as np

    engine = ENGINES[words["engine"]]
    for name in engine.needs:
        importlib.import_module(name)
    given = words["network"]
    task = Task(Network(**{**given, "size": tuple(given["size"])}), Path(words["folder"]), words["threads"])
    before, begun = _resident_bytes("VmRSS"), time.perf_counter()
    run = engine.prepare(task)
    y = first_output(run())
    ready_s = time.perf_counter() - begun
    with open_atomic(task.folder / f"{words['engine']}.npy") as file:
        np.save(file, _array(y))
    return run, ready_s, before


def _array(y: Any) -> Array:
    """Return an array or a tensor as an array; NumPy knows no bfloat16."""
    import numpy as np

    return np.asarray(y.float() if hasattr(y, "float") else y)


def _resident_bytes(field: str) -> int:
    """Return this process's memory, now (``VmRSS``) or at its peak (``VmHWM``); 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    return 1024 * int(found.get(field, "0 kB").split()[0])


if __name__ == "__main__":
    # What engines print must not come between the answers.
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.stdin, channel)
