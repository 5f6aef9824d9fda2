"""Thresholds of images that may have several classes: the least probability at which each class is there."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np

from convoxel.errors import ConfigError, DataError
from convoxel.files.fault import brief, fault
from convoxel.files.stream import read_text
from convoxel.predict.classification_metric import THRESHOLD, LabelScores, thresholds

#: The word for the thresholds that were best on the validation part of the run.
BEST = "best"
#: A number for all classes, numbers by class, or both as text: "0.3", "cat=0.3,dog=0.6"; or "best".
Threshold = float | str | Mapping[str, float] | None
_EXAMPLE = "a number from 0 to 1, numbers by class such as cat=0.3,dog=0.6, or best"


class ClassThreshold(TypedDict):
    """The threshold of a class.

    Attributes:
        threshold: the one that was used.
        best: the one of the largest F1 on these images; None where no image has the class.
        best_f1: this F1.
    """

    threshold: float
    best: float | None
    best_f1: float | None


def find_best(scores: LabelScores, classes: Sequence[str]) -> dict[str, ClassThreshold]:
    """Return the threshold of each class with the one that would give the largest F1.

    F1 = 2 TP / (2 TP + FP + FN) changes at the probabilities that occur. The threshold lies in the middle between the
    least probability above it and the next one, so that rounding does not decide; of equal F1 the highest is taken.

    Args:
        scores: truth and probabilities of all images.
        classes: names of the classes.
    """
    found: dict[str, ClassThreshold] = {}
    for number, name in enumerate(classes):
        best, best_f1 = None, None
        if scores.counts[number]:
            hits, alarms = (side[0] for side in thresholds(scores, number, np.ones((1, len(scores)))))
            f1 = 2 * hits / (hits + alarms + scores.counts[number])
            place = int(f1.argmax())
            levels = np.append(np.unique(scores.shares[:, number])[::-1], 0.0)
            best, best_f1 = float(levels[place : place + 2].mean()), float(f1[place])
        found[name] = {"threshold": float(scores.thresholds[number]), "best": best, "best_f1": best_f1}
    return found


def plan_thresholds(
    stated: Threshold, classes: Sequence[str], multi_label: bool, find: Callable[[], Mapping[str, float]]
) -> tuple[float, ...] | None:
    """Return the threshold of each class; None where nothing is stated, ½ for each.

    Args:
        stated: thresholds as a user states them.
        classes: names of the classes.
        multi_label: whether an image may have several classes.
        find: returns those of the run's validation part, for "best".

    Raises:
        ConfigError: there is nothing to decide, a class is unknown, or a number lies outside 0 … 1.
        DataError: the run keeps no best ones.
    """
    if stated is None:
        return None
    if not multi_label:
        raise ConfigError(
            f"threshold: got {brief(stated)}, but the run's images do not have several classes; expected none. Leave "
            "it out: an image has the class of the largest probability."
        )
    if stated == BEST:
        named: Mapping[str, object] = find()
    elif isinstance(stated, str) and "=" in stated:
        parts = [part.rpartition("=") for part in stated.split(",")]
        named = {name.strip(): value for name, _, value in parts}
        if len(named) < len(parts):
            raise ConfigError(f"threshold: got {brief(stated)}; expected every class once.")
    else:
        named = stated if isinstance(stated, Mapping) else dict.fromkeys(classes, stated)
    unknown = [name for name in named if name not in classes]
    if unknown:
        raise ConfigError(
            f"threshold: got {brief(unknown[0])}; expected names of classes: {', '.join(classes[:12])}"
            f"{', …' if len(classes) > 12 else ''}."
        )
    return tuple(_number(named.get(name, THRESHOLD), stated) for name in classes)


def _number(value: object, stated: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not 0 <= number <= 1:
        raise ConfigError(f"threshold: got {brief(stated)}; expected {_EXAMPLE}.")
    return number


def read_best(run: Path) -> dict[str, float]:
    """Return the best thresholds that the closing evaluation of a run found on its validation part, by class.

    Raises:
        DataError: there is no such evaluation, or it has none.
    """
    path = run / "evaluation.json"
    mend = f"Run `convoxel evaluate {run}` and state the thresholds that it prints"
    try:
        entries = json.loads(read_text(path))
        found = {name: entry["best"] for name, entry in entries["thresholds"].items() if entry["best"] is not None}
    except (DataError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise fault(path, "holds no thresholds", "those of the validation part", mend) from None
    if not found:
        raise fault(path, "no image of the validation part has a class", "thresholds of classes", mend)
    return found
