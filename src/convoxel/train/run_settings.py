"""The configuration of a run from all places that state it: single settings, a YAML file, and the run it resumes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from convoxel.errors import CheckpointError, ConfigError
from convoxel.files.stream import read_text
from convoxel.train.checkpoint import Store
from convoxel.train.config import TrainConfig
from convoxel.train.run_folder import load_model

# Limits of a run, of which exactly one holds.
_LENGTHS = ("minutes", "epochs")
_REQUIRED = {"task": "segment, classify or regress", "data": "--data DIR", "output": "--output RUN"}


def configure_run(
    stated: Mapping[str, object],
    assignments: Sequence[str] = (),
    *,
    file: Path | None = None,
    output: Path | None = None,
    resume: Path | None = None,
) -> TrainConfig:
    """Return the configuration that settings, assignments, file and resumed run state together, in this order.

    Args:
        stated: entries of the configuration.
        assignments: ``name=value`` or ``name.inner=value``.
        file: YAML file.
        output: new folder for the run.
        resume: folder of a run to continue; its task and data need not be stated.

    Raises:
        ConfigError: an entry is wrong, missing, or contradicts another. CheckpointError: ``resume`` holds no run.
    """
    if resume is not None and output is not None and output.absolute() != resume.absolute():
        raise ConfigError(
            f"output: {output} given, but --resume {resume} goes on in its own folder. Leave --output out."
        )
    folder = resume or output
    entries = {**stated, **({} if folder is None else {"output": str(folder)})}
    if resume is not None:
        entries = {**_stored(resume), **entries}
    if file is not None:
        # Two limits exclude each other, so a stated one withdraws the other in the file.
        lengths = [f"{name}={entries[name]}" for name in _LENGTHS if name in entries]
        if len(lengths) == 1:
            entries = {name: value for name, value in entries.items() if name not in _LENGTHS}
            return TrainConfig.from_yaml(file, **entries).override([*lengths, *assignments])
        return TrainConfig.from_yaml(file, **entries).override(assignments)
    assigned = {assignment.partition("=")[0].strip() for assignment in assignments}
    missing = [words for name, words in _REQUIRED.items() if name not in entries and name not in assigned]
    if missing:
        raise ConfigError(
            f"config: not given: {', '.join(missing)}. For example: "
            "convoxel train segment --data DIR --minutes 20 --output run"
        )
    # Entries that only assignments state need some value to build the configuration that they then replace.
    stand_ins = {name: "segment" if name == "task" else "unset" for name in assigned & _REQUIRED.keys()}
    return TrainConfig.build(**{**stand_ins, **entries}).override(assignments)


def has_run(folder: str | Path) -> bool:
    """Return whether a folder holds a run that can be resumed: one with a checkpoint."""
    return not Store(Path(folder)).is_empty()


def _stored(run: Path) -> dict[str, object]:
    """Return task and data of a run: what a resumed run must not be asked for again."""
    if not (run / "checkpoints").is_dir() and not (run / "config.yaml").is_file():
        raise CheckpointError(f"resume: {run} holds no run. Give the folder that --output named.")
    try:
        stored = TrainConfig.from_yaml(run / "config.yaml")
    except ConfigError:  # the checkpoint knows it too
        stored = load_model(run, "last").config
    return {"task": stored.task, "data": stored.data}


def started_from(run: Path) -> str | None:
    """Return in words the weights that a run started from; None if they were random or nothing is known."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(read_text(run / "weights.json"))["summary"])
    return None
