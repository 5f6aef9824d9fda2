"""The runs in the folders that the explorer was started with, and how far each has come.

What a page polls must cost next to nothing: a run is read again only when one of its files has changed.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from convoxel.draw.quantity import number
from convoxel.files.lock import is_held
from convoxel.lookup import is_run
from convoxel.report.run_contents import RunFolder, read_run

if TYPE_CHECKING:
    from convoxel.explorer.session import Session
    from convoxel.files.values import JsonObject

_DEEPEST = 4  # folders below one that was named
_MOST_FOLDERS, _MOST_RUNS = 4000, 400
_FRESH_S = 2.0
_FILES = ("metrics.jsonl", "checkpoints/last.json", "evaluation.json", "config.yaml", "examples.npz")


@dataclass(frozen=True)
class KnownRun:
    """A run as it was read.

    Attributes:
        folder: its folder.
        version: changes when one of its files does.
        state: "running", "finished" or "stopped".
        contents: what its files hold.
    """

    folder: Path
    version: str
    state: str
    contents: RunFolder


def find_runs(session: Session) -> list[Path]:
    """Return the folders of runs, in the order of their names; looked up anew every two seconds."""
    now = int(time.monotonic() / _FRESH_S)
    return session.keep(now, lambda: sorted(set(_walk(session))), "runs found", 1)


def _walk(session: Session) -> Iterator[Path]:
    ahead, seen, found = [(root, 0) for root in session.roots if root.is_dir()], 0, 0
    while ahead and seen < _MOST_FOLDERS and found < _MOST_RUNS:
        folder, depth = ahead.pop()
        seen += 1
        if is_run(folder):
            found += 1
            yield folder
        elif depth < _DEEPEST:
            try:
                # Folders behind links may lie elsewhere.
                with os.scandir(folder) as entries:
                    inner = [entry.path for entry in entries
                             if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")]  # fmt: skip
            except OSError:
                continue
            ahead += [(Path(path), depth + 1) for path in inner]


def open_run(session: Session, text: str) -> KnownRun:
    """Return the run of a folder that may be read.

    Raises:
        ForbiddenPath: it lies elsewhere. CheckpointError: it holds no run.
    """
    folder = session.path(text)
    version = _version(folder)
    contents = session.keep((folder, version), lambda: read_run(folder), "runs", 64)
    state = "running" if is_held(folder) else "finished" if contents.finished else "stopped"
    return KnownRun(folder, f"{version}-{state}", state, contents)


def _version(folder: Path) -> str:
    known = hashlib.sha256()
    for name in _FILES:
        try:
            found = (folder / name).stat()
        except OSError:
            continue
        known.update(f"{name} {found.st_mtime_ns} {found.st_size} {found.st_ino}\n".encode())
    return known.hexdigest()[:16]


def list_runs(session: Session) -> list[JsonObject]:
    """Return all runs in a line each; looked at anew every second, however many pages ask."""

    def look() -> list[JsonObject]:
        return [summarise_run(open_run(session, str(folder))) for folder in find_runs(session)]

    return session.keep(int(time.monotonic()), look, "runs listed", 1)


def summarise_run(run: KnownRun) -> JsonObject:
    """Return a run in a line of the list."""
    contents = run.contents
    metric = number(contents.evaluation.get("metric"))
    if metric is None:
        metric = number(contents.best_row.get("metric"))
    return {
        "path": str(run.folder), "name": run.folder.name, "version": run.version, "state": run.state,
        "task": contents.task, "model": str(contents.config.get("model") or ""),
        "data": str(contents.data.get("data_name") or contents.config.get("data") or ""),
        "metric": metric, "metric_name": contents.metric_name, "fraction": contents.fraction,
        "step": number(contents.last.get("step")),
        "written": None if contents.written is None else f"{contents.written:%Y-%m-%d %H:%M}",
    }  # fmt: skip
