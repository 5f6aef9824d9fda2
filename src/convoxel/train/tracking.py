"""Trackers: records of a run in other tools, beside the files in its folder.

A tracker is a small object that takes figures and files; MLflow and Weights & Biases have one here, TensorBoard's is in
``run_record``. Each works in a thread of its own, in order: training never waits for a tracker, and one that fails, or
hangs, ends with a single warning while training goes on. ``tracking.json`` in the run folder remembers what a run is
called in each tool, so that a resumed run goes on there.

Absent on purpose: choosing what is recorded, and any setting of the tools that their own environment variables hold.
"""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import secrets
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from convoxel.errors import ConfigError, ConvoxelError
from convoxel.files.atomic import write_json
from convoxel.files.stream import read_text
from convoxel.files.values import JsonObject, join_names

TRACKING = "tracking.json"
_PROJECT = "convoxel"
# Seconds for which the end of a run waits for a tracker to send the rest.
_PATIENCE_S = 30.0
_MOST_WAITING, _MOST_SENT = 100_000, 500  # rows of a queue, and of one call


class Figures(NamedTuple):
    """Named figures of a step, and when it was (seconds since 1970)."""

    step: int
    time_s: float
    values: Mapping[str, float]


class Tracker(Protocol):
    """A place where the figures of a run go."""

    def add(self, rows: Sequence[Figures]) -> None:
        """Record figures, the oldest first."""

    def add_file(self, path: Path) -> None:
        """Keep a file with the run."""

    def close(self, whole: bool) -> None:
        """End the record; ``whole`` says whether the run is complete."""


class _MLflow:
    """A run of MLflow, where MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME say."""

    def __init__(self, folder: Path, config: JsonObject) -> None:
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric, self._client = Metric, MlflowClient()
        known = _remembered(folder, "mlflow")
        if known is not None:
            self._run = known
            self._client.update_run(self._run, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        place = experiment.experiment_id if experiment is not None else self._client.create_experiment(name)
        self._run = self._client.create_run(place, run_name=folder.absolute().name).info.run_id
        _remember(folder, "mlflow", self._run)
        params = [Param(key, str(value)[:500]) for key, value in join_names(config).items()]
        for first in range(0, len(params), 100):  # MLflow takes no more at once
            self._client.log_batch(self._run, params=params[first : first + 100])

    def add(self, rows: Sequence[Figures]) -> None:
        metrics = [self._metric(name, value, int(1e3 * row.time_s), row.step)
                   for row in rows for name, value in row.values.items()]  # fmt: skip
        for first in range(0, len(metrics), 1000):
            self._client.log_batch(self._run, metrics=metrics[first : first + 1000])

    def add_file(self, path: Path) -> None:
        self._client.log_artifact(self._run, str(path))

    def close(self, whole: bool) -> None:
        self._client.set_terminated(self._run, "FINISHED" if whole else "KILLED")


class _Wandb:
    """A run of Weights & Biases, in the project WANDB_PROJECT; without a key its files stay here for ``wandb sync``."""

    def __init__(self, folder: Path, config: JsonObject) -> None:
        import wandb  # its types differ from release to release

        module: Any = wandb

        known = _remembered(folder, "wandb")
        name = known or secrets.token_hex(8)
        _remember(folder, "wandb", name)
        mode = os.environ.get("WANDB_MODE") or (None if module.api.api_key else "offline")
        self._module = module
        self._run = module.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            id=name,
            name=folder.absolute().name,
            resume="allow",
            dir=str(folder),
            config=join_names(config),
            mode=mode,
            settings=module.Settings(silent=True, console="off"),
        )
        self._run.define_metric("*", step_metric="step")  # a resumed run may repeat steps, which its own counter cannot

    def add(self, rows: Sequence[Figures]) -> None:
        for row in rows:
            self._run.log({"step": row.step, **row.values})

    def add_file(self, path: Path) -> None:
        artifact = self._module.Artifact(f"{self._run.id}-files", type="run")
        artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def close(self, whole: bool) -> None:
        self._run.finish(exit_code=0 if whole else 1)


class _Kind(NamedTuple):
    """A tool that records runs: its tracker, the module that it needs, and how that is installed."""

    open: Callable[[Path, JsonObject], Tracker]
    module: str
    package: str


_KINDS = {"mlflow": _Kind(_MLflow, "mlflow", "mlflow"), "wandb": _Kind(_Wandb, "wandb", "wandb")}


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that are not installed.

    Raises:
        ConfigError: one is not; the message says how to install it.
    """
    for name in names:
        reason = _missing(name)
        if reason is not None:
            raise ConfigError(f"track: got {name!r}, but it is {reason}, or leave it out.")


def _missing(name: str) -> str | None:
    if name not in _KINDS or importlib.util.find_spec(_KINDS[name].module) is not None:
        return None
    return f"not installed; expected its package. pip install {_KINDS[name].package}"


class TrackerThread:
    """A tracker that is called in a thread, in the order of the calls; it is told once if it fails.

    Args:
        name: "mlflow" or "wandb".
        folder: the run folder.
        config: configuration of the run.
    """

    def __init__(self, name: str, folder: Path, config: JsonObject) -> None:
        self.name, self._told, self._fault, self._whole = name, False, _missing(name), False
        self._queue: queue.Queue[Figures | Path | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, args=(folder, config), daemon=True, name=f"convoxel-{name}")
        if self._fault is None:
            self._thread.start()
        self._tell()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Record figures of a step."""
        self._put(Figures(step, time.time(), dict(values)))

    def add_file(self, path: Path) -> None:
        """Keep a file with the run."""
        self._put(path)

    def close(self, whole: bool = True) -> None:
        """Wait for what was given to be recorded, half a minute at most."""
        self._whole = whole
        if self._thread.ident is not None:
            self._queue.put(None)
            self._thread.join(_PATIENCE_S)
            if self._thread.is_alive():
                self._fault = f"it did not take the rest within {_PATIENCE_S:g} s"
        self._tell()

    def _put(self, item: Figures | Path) -> None:
        self._tell()
        if self._fault is None:
            self._queue.put(item)
            if self._queue.qsize() > _MOST_WAITING:
                self._fault = f"{_MOST_WAITING} steps wait for it"

    def _tell(self) -> None:
        if self._fault is not None and not self._told:
            self._told = True
            warnings.warn(f"track: {self.name} records no more of this run: {self._fault}. The run itself goes on.",
                          RuntimeWarning, stacklevel=4)  # fmt: skip

    def _work(self, folder: Path, config: JsonObject) -> None:
        try:
            tracker = _KINDS[self.name].open(folder, config)
            while True:
                rows, last = self._take()
                if rows:
                    tracker.add(rows)
                if last is None:
                    return tracker.close(self._whole)
                if isinstance(last, Path):
                    tracker.add_file(last)
        except BaseException as error:  # of any tool; SystemExit, too
            self._fault = f"{type(error).__name__}: {' '.join(str(error).split())[:300] or 'no reason given'}".rstrip(
                "."
            )

    def _take(self) -> tuple[list[Figures], Figures | Path | None]:
        """Return the rows that wait, and what follows them: a file, or None at the end."""
        rows: list[Figures] = []
        item = self._queue.get()
        while isinstance(item, Figures):
            rows.append(item)
            if len(rows) >= _MOST_SENT or self._queue.empty():
                break
            item = self._queue.get()
        return rows, item


def send_files(folder: Path, names: Sequence[str], paths: Sequence[Path]) -> None:
    """Send files of a run to its trackers, after it has ended.

    Args:
        folder: the run folder.
        names: trackers, such as "mlflow"; those that the run is not known to are left out.
        paths: files; those that do not exist are left out.
    """
    for name in names:
        if name in _KINDS and _remembered(folder, name) is not None:
            thread = TrackerThread(name, folder, {})
            for path in filter(Path.is_file, paths):
                thread.add_file(path)
            thread.close()


_lock = threading.Lock()


def _read(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_text(folder / TRACKING))
    except (ConvoxelError, OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _remembered(folder: Path, name: str) -> str | None:
    found = _read(folder).get(name)
    return found if isinstance(found, str) and found else None


def _remember(folder: Path, name: str, run: str) -> None:
    with _lock:
        write_json(folder / TRACKING, {**_read(folder), name: run})
