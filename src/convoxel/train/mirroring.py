"""The axes along which training samples are mirrored, and the reason.

A mirrored sample keeps its label. That is true from left to right where nothing is told apart by side, and wrong along
every other axis of a body or a photograph: what lies above would come to lie below. Where a class belongs to a side,
mirroring teaches that it belongs to either: on two equal blobs, called by their sides, Dice falls from 0.99 to 0.08.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from convoxel.train.config import TrainConfig
from convoxel.train.label_survey import LabelSurvey

# Two classes that keep their order in more than two thirds of the cases are told apart by it; by chance they do so in
# half of them. One class alone says less, since a few organs at random places may share a side: nine of ten cases.
_MOST, _NEARLY_ALL, _FEWEST = 2 / 3, 0.9, 3
_ASIDE = 0.1  # of the image: a middle that is cut out less exactly than that is still a middle
_SIDES = ({"left", "right"}, {"l", "r"}, {"lh", "rh"}, {"lt", "rt"}, {"sin", "dex"}, {"g", "d"}, {"izq", "der"})
# Whole words for sides: of English, Latin, German, French, Spanish, Italian, Portuguese, Dutch.
_PLAIN = re.compile(
    "left|right|sinist(er|ra|rum)|dext(er|ra|rum)|link(s|e[nrms]?)|recht(s|e[nrms])|gauches?|droite?s?|"
    "(izquierd|derech)[oa]s?|sinistr[oaie]|destr[oaie]|(esquerd|direit)[oa]s?"
)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


class Mirroring(NamedTuple):
    """The axes along which samples are mirrored at random, and why these."""

    axes: tuple[int, ...]
    reason: str


def plan_mirroring(config: TrainConfig, survey: LabelSurvey, channels: int) -> Mirroring:
    """Return how training samples are mirrored: as stated, else from left to right where that keeps labels true.

    Args:
        config: configuration; ``flip_axes`` are kept where they are stated.
        survey: facts of the labels.
        channels: channels of the images.
    """
    if config.flip_axes is not None:
        return Mirroring(config.flip_axes, "stated")
    if config.augment.level == "none" or not config.augment.mirrors:
        return Mirroring((), "samples are not changed")
    if survey.dims == 1:
        return Mirroring((), "a signal has no left and right")
    named = _named_by_side(survey.classes)
    if named:
        return Mirroring((), f"classes are told apart by side: {', '.join(map(repr, named))}")
    if config.task != "segment" and (survey.dims != 2 or channels != 3):
        why = (
            "pictures of one channel may show writing" if survey.dims == 2 else "a volume's class may lie in its sides"
        )
        return Mirroring((), f"{why}; state flip_axes where a mirrored image keeps its class")
    axes = sorted(axis for axis in survey.axes if axis is not None)
    if len(survey.axes) != 1 or not axes:
        why = "no axis runs from left to right" if not axes else "the images lie in different ways"
        return Mirroring((), f"{why}, by their orientation; state flip_axes to mirror along stored axes")
    if 0 < survey.located < survey.axes.total():
        why = f"{survey.axes.total() - survey.located} of {survey.axes.total()} files state no orientation"
        return Mirroring((), f"{why}, so sides cannot be compared; state flip_axes to mirror along stored axes")
    reason = _lateral(survey)
    if reason:
        return Mirroring((), reason)
    known = survey.located == survey.axes[axes[0]]
    where = "by the images' orientation" if known else "the width, since the files state no orientation"
    more = "" if config.task == "segment" else "; state flip_axes=[] where classes differ by side, as letters do"
    return Mirroring((axes[0],), f"left–right, {where}{more}")


def _named_by_side(classes: Sequence[str]) -> list[str]:
    """Return the first classes whose names say left or right; a letter does where another class has the other one.

    >>> _named_by_side(["background", "LeftKidney", "kidney right", "bright spot"])
    ['LeftKidney', 'kidney right']
    >>> _named_by_side(["Niere_links", "rein droit", "rechteck", "direction"])
    ['Niere_links', 'rein droit']
    >>> _named_by_side(["lung_L", "lung_R", "L1"]), _named_by_side(["R", "S"])
    (['lung_L', 'lung_R'], [])
    """
    words = [tuple(word.lower() for word in _WORD.findall(name)) for name in classes]
    found = []
    for name, own in zip(classes, words, strict=True):
        swapped = {tuple(_other(word) for word in own)} - {own}
        if any(map(_PLAIN.fullmatch, own)) or swapped & set(words):
            found.append(name)
    return found[:4]


def _other(word: str) -> str:
    return next(((pair - {word}).pop() for pair in _SIDES if word in pair), word)


def _lateral(survey: LabelSurvey) -> str:
    """Return in words which classes the cases' labels tell apart by side; empty if none."""
    for (a, b), order in _orders(survey):
        share = max(np.mean(order > 0), np.mean(order < 0)) if order.size else 0.0
        if share > _MOST:
            names = f"{survey.classes[a]!r} and {survey.classes[b]!r}"
            count = round(share * order.size)
            return f"{names} lie on opposite sides in {count} of {order.size} training cases that hold both"
    for index in range(1, len(survey.classes)):
        cases = [(s.mean[index], s.spread[index]) for s in survey.sides if np.isfinite(s.mean[index])]
        sides = np.array([np.sign(mean) * (abs(mean) > max(spread, _ASIDE)) for mean, spread in cases])
        if sides.size >= _FEWEST and max(np.mean(sides > 0), np.mean(sides < 0)) >= _NEARLY_ALL:
            return f"{survey.classes[index]!r} lies on the same side in nearly all {sides.size} training cases"
    return ""


def _orders(survey: LabelSurvey) -> Iterator[tuple[tuple[int, int], NDArray[np.float64]]]:
    """Yield each pair of classes with their order in each case that has both: −1, 1, or 0 where they overlap."""
    if not survey.sides:
        return
    mean = np.stack([sides.mean for sides in survey.sides])
    spread = np.stack([sides.spread for sides in survey.sides])
    for a, b in itertools.combinations(range(1, len(survey.classes)), 2):
        both = np.isfinite(mean[:, a]) & np.isfinite(mean[:, b])
        apart = mean[both, b] - mean[both, a]
        yield (a, b), np.sign(apart) * (np.abs(apart) > spread[both, a] + spread[both, b])
