"""Commands that a page asks for: a training, its resumption, a prediction, and the two of an exercise.

A page names data, folders and settings. Data and folders must lie where the explorer may read, a new folder gets a
plain name, and of the settings none names a file. What comes out is a list of arguments, in which no word can become
another.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from convoxel.data.bundled import BUNDLED
from convoxel.errors import ConfigError, check_choice
from convoxel.explorer.session import ForbiddenPath
from convoxel.explorer.view import Query
from convoxel.lookup import is_run

if TYPE_CHECKING:
    from convoxel.explorer.jobs import Job
    from convoxel.explorer.session import Session
    from convoxel.files.values import JsonObject

_TASKS = ("segment", "classify", "regress")
_NAME = re.compile(r"[\w][\w .+=-]{0,79}")
# Settings that name files, or that a page states in another way.
_ELSEWHERE = frozenset({"task", "data", "output", "weights", "split", "minutes", "epochs"})
_INNER_ELSEWHERE = frozenset({"prediction.previous"})
_MOST_VALUE = 200


def plan_training(session: Session, query: Query, name: str = "") -> tuple[list[str], Path]:
    """Return the words of ``convoxel train`` and the new folder.

    Raises:
        ForbiddenPath: data or folder lie elsewhere. ConfigError: a word is none.
    """
    task = query.text("task")
    check_choice("task", task, _TASKS)
    folder = new_folder(session, query.text("folder"), name or query.text("name"))
    words = ["train", task, f"--data={find_data(session, query.text('data'), task)}", f"--output={folder}"]
    words += _length(query)
    words += [f"--set={_setting(text)}" for text in query.texts("set")]
    return words, folder


def find_data(session: Session, text: str, task: str) -> str:
    """Return the data of a training: a bundled set of the task, or a file or folder that may be read."""
    return text if BUNDLED.get(text) == task else str(session.path(text))


def new_folder(session: Session, place: str, name: str) -> Path:
    """Return a folder that is not there yet, in one that may be read and is no run.

    Raises:
        ForbiddenPath: the place lies elsewhere. ConfigError: the name is none, or is taken.
    """
    folder = session.path(place)
    if not folder.is_dir() or is_run(folder):
        raise ForbiddenPath(f"folder: {folder} is no folder for new runs. Start the explorer with such a folder.")
    if not _NAME.fullmatch(name) or name != name.strip():
        raise ConfigError(
            f"name: got {name[:80]!r}; expected 1 to 80 letters, digits, spaces and . _ - + =, the first a letter, a "
            "digit or _."
        )
    if (folder / name).exists():
        raise ConfigError(f"name: {name!r} is there already. Give another name.")
    return folder / name


def _length(query: Query) -> list[str]:
    """Return the limit of a training, in minutes or epochs."""
    epochs = query.text("epochs")
    if epochs:
        return [f"--epochs={query.number('epochs', 1, most=100_000)}"]
    text = query.text("minutes", "2")
    if not re.fullmatch(r"\d{1,6}(\.\d{1,4})?", text) or not float(text):
        raise ConfigError(f"minutes: got {text[:40]!r}; expected a number above 0.")
    return [f"--minutes={text}"]


def _setting(text: str) -> str:
    from convoxel.train.config import TrainConfig

    name, equals, value = text.partition("=")
    name = name.strip()
    outer = name.partition(".")[0]
    if not equals or outer not in TrainConfig.model_fields or len(value) > _MOST_VALUE:
        raise ConfigError(f"set: got {text[:60]!r}; expected NAME=VALUE, such as model_options.norm=instance.")
    if outer in _ELSEWHERE or name in _INNER_ELSEWHERE or (outer == name and outer == "prediction"):
        raise ConfigError(f"set: {name} is not set in a page. Type it: convoxel train --help.")
    return f"{name}={value.strip()}"


def start(session: Session, query: Query) -> JsonObject:
    """Start a training, or the two of an exercise; they wait for those before them."""
    jobs: list[Job] = [session.jobs.add("train", words, folder) for words, folder in _plan(session, query)]
    return {"jobs": [job.to_dict() for job in jobs], "runs": [str(job.folder) for job in jobs]}


def plan(session: Session, query: Query) -> JsonObject:
    """Return the commands that the same words would start."""
    return {"commands": [shlex.join(("convoxel", *words)) for words, _ in _plan(session, query)]}


def _plan(session: Session, query: Query) -> list[tuple[list[str], Path]]:
    return plan_pair(session, query) if query.text("word") else [plan_training(session, query)]


def plan_pair(session: Session, query: Query) -> list[tuple[list[str], Path]]:
    """Return two trainings that differ in one word, for an exercise; the runs are called NAME-VALUE.

    Besides the words of one training, ``word`` names the setting, and ``value``, twice, what it is.

    Raises:
        ForbiddenPath: data or folder lie elsewhere. ConfigError: a word is none, or the values do not differ.
    """
    word, values = query.text("word"), query.texts("value")
    if len(values) != 2 or values[0] == values[1]:
        raise ConfigError(f"value: got {', '.join(values)[:80] or 'none'}; expected two that differ.")
    plans = [
        plan_training(session, Query((*query.pairs, ("set", f"{word}={value}"))), _named(query.text("name"), value))
        for value in values
    ]
    if plans[0][1] == plans[1][1]:
        raise ConfigError(f"value: {' and '.join(values)} give one folder. Give values that differ in letters.")
    return plans


def _named(name: str, value: str) -> str:
    return f"{name}-{re.sub(r'[^A-Za-z0-9.+=_-]+', '_', value)[:40]}"


def resume(session: Session, query: Query) -> JsonObject:
    """Go on with a run that was interrupted."""
    run = find_run(session, query)
    return {"job": session.jobs.add("resume", ["train", f"--resume={run}"], run).to_dict()}


def predict(session: Session, query: Query) -> JsonObject:
    """Start the prediction of an image or of a folder of them."""
    run = find_run(session, query)
    source = session.path(query.text("input"))
    folder = new_folder(session, query.text("folder"), query.text("name"))
    words = ["predict", str(run), f"--input={source}", f"--output={folder}"]
    return {"job": session.jobs.add("predict", words, folder).to_dict()}


def find_run(session: Session, query: Query) -> Path:
    """Return the folder of a run that may be read."""
    folder = session.path(query.text("run"))
    if not is_run(folder):
        raise ConfigError(f"run: {folder} is no run. Give the folder of one.")
    return folder


def stop(session: Session, query: Query) -> JsonObject:
    """Stop a command that this explorer started, as Ctrl-C does."""
    return {"job": session.jobs.stop(query.number("number", 0)).to_dict()}


def choose(session: Session, query: Query) -> JsonObject:
    """Choose whether commands go on when the explorer ends."""
    session.jobs.choose(query.flag("leave"))
    return {"leave": session.jobs.leave}


def words_to_change() -> list[JsonObject]:
    """Return the words of the exercises: each with a value of each side, and what it is."""
    return [
        {"word": "model", "title": "the network", "values": []},
        {"word": "levels", "title": "resolution levels", "values": ["2", "3", "1", "4"], "tasks": ["segment"]},
        {"word": "width", "title": "width", "values": ["8", "16", "4", "32"], "tasks": ["segment"]},
        {"word": "model_options.block", "title": "connections", "values": ["plain", "residual"], "tasks": ["segment"]},
        {"word": "model_options.norm", "title": "normalisation", "values": ["batch", "instance", "group", "none"]},
        {"word": "model_options.dropout", "title": "dropout", "values": ["0", "0.2", "0.5"]},
        {"word": "model_options.dilation", "title": "dilation", "values": ["1", "2"]},
        {"word": "model_options.padding", "title": "padding", "values": ["zeros", "reflect", "replicate", "circular"]},
        {"word": "model_options.activation", "title": "activation", "values": ["relu", "leaky_relu", "gelu"]},
        {"word": "augment", "title": "random changes of samples", "values": ["light", "none", "strong"]},
        {"word": "learning_rate", "title": "learning rate", "values": ["0.002", "0.0002", "0.02"]},
        {"word": "optimiser", "title": "optimiser", "values": ["adam", "sgd"]},
        {"word": "schedule", "title": "schedule", "values": ["cosine", "constant"]},
        {"word": "loss", "title": "loss", "values": ["dice_ce", "ce", "dice", "dice_focal"], "tasks": ["segment"]},
        {"word": "weight_decay", "title": "weight decay", "values": ["0.0001", "0", "0.01"]},
        {"word": "seed", "title": "only the seed", "values": ["0", "1"]},
    ]  # fmt: skip
