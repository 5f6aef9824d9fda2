"""Runs that differ in more than their seed, apart from those that differ in nothing else: effects beside chance."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from convoxel.files.values import JsonObject, join_names
from convoxel.train.config import TrainConfig

# Entries that are no setting of the network or its training.
_ASIDE = ("seed", "output", "track", "track_files", "tensorboard", "threads", "num_workers", "checkpoint_seconds")


@dataclass(frozen=True)
class SeedGroup:
    """Runs with equal settings, each with a seed of its own.

    Attributes:
        changed: the settings in which groups differ, as ``name=value``.
        runs: names of the runs.
        mean: mean of their metrics.
        deviation: standard deviation over the seeds; None of a single run.
    """

    changed: tuple[str, ...]
    runs: tuple[str, ...]
    mean: float
    deviation: float | None


def group_seeds(runs: Mapping[str, tuple[str | Path, float]]) -> list[SeedGroup]:
    """Return groups of runs that differ in their seeds alone, in the order of their first runs.

    Args:
        runs: name → folder of the run, and its metric.

    Raises:
        ConfigError: the configuration of a run cannot be read.
    """
    settings = {name: _settings(Path(folder)) for name, (folder, _) in runs.items()}
    names = sorted({key for each in settings.values() for key in each})
    varied = [key for key in names if len({repr(each.get(key)) for each in settings.values()}) > 1]
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, each in settings.items():
        groups.setdefault(tuple(f"{key}={each.get(key)}" for key in varied), []).append(name)
    found = []
    for changed, members in groups.items():
        metrics = [runs[name][1] for name in members]
        deviation = statistics.stdev(metrics) if len(metrics) > 1 else None
        found.append(SeedGroup(changed, tuple(members), statistics.fmean(metrics), deviation))
    return found


def _settings(folder: Path) -> JsonObject:
    entries = TrainConfig.from_yaml(folder / "config.yaml").to_dict()
    return join_names({name: value for name, value in entries.items() if name not in _ASIDE})
