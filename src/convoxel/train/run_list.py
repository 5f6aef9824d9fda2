"""Runs that a user names: one folder, several, or a folder that holds the folds of a cross-validation."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from convoxel.errors import ConfigError, DataError
from convoxel.files.fault import few
from convoxel.files.stream import read_text
from convoxel.predict.trained_run import TrainedRun
from convoxel.train.config import TrainConfig

#: The file in a run folder that lists the samples of every part.
SPLIT = "split.json"

Runs = str | Path | Sequence[str | Path]


def list_runs(runs: Runs) -> dict[str, Path]:
    """Return the run folders that ``runs`` name, by the shortest names that tell them apart.

    Args:
        runs: a run folder, several, or a folder that holds the runs of all folds.

    Raises:
        ConfigError: no run is named, or one twice.
    """
    found = [run for each in _given(runs) for run in (_folds(each) or [each])]
    if not found:
        raise ConfigError("run: no run is given; expected the folder of a training run, or several.")
    paths = [run.resolve() for run in found]
    twice = [str(run) for run, path in zip(found, paths, strict=True) if paths.count(path) > 1]
    if twice:
        raise ConfigError(f"run: {twice[0]} is given twice; expected each member of an ensemble once.")
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        names = [str(run) for run in found]
    return dict(zip(names, found, strict=True))


def _given(runs: Runs) -> list[Path]:
    return [Path(runs)] if isinstance(runs, (str, os.PathLike)) else list(map(Path, runs))


def _folds(folder: Path) -> list[Path]:
    """Return the runs in a folder that is none itself, ``fold_2`` before ``fold_10``."""
    if not folder.is_dir() or (folder / "checkpoints").is_dir():
        return []
    runs = [each for each in folder.iterdir() if (each / "checkpoints").is_dir()]
    return sorted(runs, key=lambda run: [int(word) if word.isdecimal() else word for word in _words(run.name)])


def _words(name: str) -> list[str]:
    return re.split(r"(\d+)", name)  # texts and numbers take turns, so lists compare


def check_folds(runs: Runs, members: Mapping[str, TrainedRun[TrainConfig]]) -> None:
    """Check that the runs in a folder are folds of one cross-validation; some may be missing, with a warning.

    Raises:
        ConfigError: they are not: a folder of trials is no ensemble.
    """
    paths = list_runs(runs)
    for folder in _given(runs):
        inside = _folds(folder)
        _check_folds(folder, {name: members[name].config for name, path in paths.items() if path in inside})


def _check_folds(folder: Path, configs: Mapping[str, TrainConfig]) -> None:
    numbers, folds = sorted(config.fold for config in configs.values()), {each.folds for each in configs.values()}
    if len(configs) < 2:
        return
    if len(folds) > 1 or None in folds or len(set(numbers)) < len(numbers):
        raise ConfigError(
            f"run: {folder} holds {len(configs)} runs ({few(list(configs))}) that are not the folds of one "
            "cross-validation; expected a run, or a folder of runs with the same folds and a fold of each. "
            "Name the runs that you mean one by one."
        )
    (count,) = folds
    if len(numbers) < (count or 0):
        warnings.warn(
            f"run: {folder} holds folds {', '.join(map(str, numbers))} of {count}; the others are missing. "
            "The ensemble is that of those which are there.",
            RuntimeWarning,
            stacklevel=4,
        )


def find_seen(runs: Mapping[str, Path], names: Iterable[str]) -> dict[str, list[str]]:
    """Return which samples of ``names`` were in the training part of each run, where a run has seen any.

    Runs whose list of samples cannot be read are left out.
    """
    wanted, seen = set(names), {}
    for run, folder in runs.items():
        try:
            parts = json.loads(read_text(folder / SPLIT))["parts"]
            trained = sorted(wanted & set(parts["train"]))
        except (DataError, OSError, ValueError, LookupError, TypeError):
            continue
        if trained:
            seen[run] = trained
    return seen
