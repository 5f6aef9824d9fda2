"""Splits of samples into training and validation, always the same for the same names.

No random generator is used: where chance is wanted, samples are ordered by a hash of seed and name. That order does not
change with NumPy's version, nor does it change for the old samples when new ones are added.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from convoxel.data.data_set import Entry, Parts
from convoxel.data.split_file import read_split
from convoxel.errors import ConfigError, DataError
from convoxel.files.fault import plural

# A count, a fraction, or 20 %; "test": what runs of earlier versions did where a set has no validation part but a test
# part. No new run does, since a part that chose the checkpoint tests nothing.
Validation = int | float | Literal["test"] | None
_FRACTION = 0.2
# Of values to regress; each holds a tenth of the units.
_QUANTILES = 10


@dataclass(frozen=True)
class SplitRule:
    """The rule that splits samples into training and validation. Samples of one subject stay together.

    Attributes:
        validation: a count (int), a fraction (float), 20 % (None), or "test"; of subjects where they are known.
        seed: random seed of the draws (default 0).
        folds: number of equal parts of a cross-validation, one of which validates (default None: one split).
        fold: the part that validates, 0 … folds − 1 (default 0).
        file: file that lists the samples of every part, in place of all others (default None).
        whole: hold nothing out: the source's own parts, or everything in the training part (default False).
    """

    validation: Validation = None
    seed: int = 0
    folds: int | None = None
    fold: int = 0
    file: Path | None = None
    whole: bool = False

    def __post_init__(self) -> None:
        others = [name for name in ("validation", "folds") if getattr(self, name) is not None]
        if len(others) == 2 or (others and self.file is not None):
            names = [*others, *(["split"] if self.file is not None else [])]
            raise ConfigError(f"{' and '.join(names)} are both given; expected one of them. Leave the other out.")
        if self.folds is None and self.fold and self.file is None:
            raise ConfigError(f"fold is {self.fold} without folds; expected both. Give folds=5, for example.")
        if self.folds is not None and not (_is_whole(self.folds) and self.folds >= 2):
            raise ConfigError(f"folds is {self.folds!r}; expected a whole number of at least 2, such as 5.")
        if not _is_whole(self.fold) or not 0 <= self.fold < (self.folds or self.fold + 1):
            most = "" if self.folds is None else f" to {self.folds - 1}"
            raise ConfigError(f"fold is {self.fold!r}; expected a whole number, 0{most}.")

    @property
    def cut(self) -> int | float | None:
        """The share or number of training samples to hold out where the source has no validation part."""
        return None if self.validation == "test" or self.whole else self.validation

    def split(self, parts: Mapping[str, Sequence[Entry]], task: str, broken: Collection[str] = frozenset()) -> Parts:
        """Return the source's own parts, with a validation part cut from training where there is none.

        To segment, the last samples by name validate; to classify, the same proportion of every class; to regress, of
        every quantile of the values. Folds are drawn, of every class or quantile in proportion. A sample of several
        classes counts for the rarest of them. A test part never validates. ``broken`` are the names of samples left out
        before.

        Raises:
            DataError: a part would be empty, or the file does not fit the samples.
            ConfigError: the source has a validation part, and the rule makes another.
        """
        for part, entries in parts.items():
            if not entries:
                noun = f"the {part} part has" if part else "there are"
                raise DataError(
                    f"data: {noun} no usable samples; expected at least 1. Add samples, or remove the part."
                )
        if self.file is not None:
            return read_split(self.file, parts, self.fold, broken)
        train = parts.get("train", parts.get("", ()))
        held, test = parts.get("validation", ()), parts.get("test", ())
        if not self.whole and not parts.keys() & {"", "train"}:
            raise DataError(
                f"data: there is no training part, only {' and '.join(parts)}; expected train. Add it, or move its "
                "samples out of the folders of parts."
            )
        if self.whole:
            return Parts(train, held, test, "nothing is held out")
        if self.validation == "test" and test and not held:
            return Parts(train, test, (), "the test part validates, as in runs of earlier versions")
        if held and (self.cut is not None or self.folds is not None):
            stated = f"validation is {self.cut!r}" if self.folds is None else f"folds is {self.folds}"
            raise ConfigError(
                f"{stated} but the data bring a validation part of {len(held)} samples; "
                "expected no value. Leave it out, or merge the parts into one folder."
            )
        if held:
            return Parts(train, held, test, "the data's own parts")
        chosen, words = self._hold_out(_group(train), task)
        words = words.replace("{whole}", "the training part" if "train" in parts else "the data")
        names = {entry.name for unit in chosen for entry in unit.entries}
        return Parts(
            [e for e in train if e.name not in names], [e for e in train if e.name in names], test, words, drawn=True
        )

    def _hold_out(self, units: list[_Unit], task: str) -> tuple[list[_Unit], str]:
        """Return the units that validate, and the rule in words, where ``{whole}`` stands for all of them."""
        grouped = any(len(unit.entries) > 1 or unit.subject is not None for unit in units)
        noun = "subjects" if grouped else "samples"
        names = [unit.name for unit in units]
        numbers = any(isinstance(entry.label, tuple) for unit in units for entry in unit.entries)

        def some(count: int, verb: str) -> str:
            """Return how many of all validate, in words."""
            return f"{plural(count, 'subject') if grouped else count} of {{whole}} {verb}"

        if self.folds is not None:
            if len(units) < self.folds:
                raise ConfigError(f"folds is {self.folds} with {len(units)} {noun}; expected at most as many folds.")
            # Dealt in turn, so that folds differ by at most one unit in all and in every class.
            strata = _quantiles(units, len(units) // self.folds) if numbers else _strata(units)
            order = sorted(range(len(units)), key=lambda i: (strata[i], _draw(self.seed, names[i])))
            chosen = order[self.fold :: self.folds]
            told = f"fold {self.fold} of {self.folds} (counted from 0) validates, {some(len(chosen), 'drawn by seed')}"
            among = f", among {plural(len(set(strata)), 'quantile')} of the values" if numbers else ""
            return [units[i] for i in sorted(chosen)], f"{told} {self.seed}{among}"
        if task == "segment":
            count = count_validation(len(units), self.cut, noun)
            return units[-count:], f"the last {some(count, 'by name validate')}"
        if numbers:
            count = count_validation(len(units), self.cut, noun)
            strata = _quantiles(units, min(count, len(units) - count))
        else:
            strata = _strata(units)
        drawn = split_stratified(names, strata, self.cut, self.seed)[1]
        if not drawn and grouped:
            # Every stratum has one subject, whose other classes may be others' too: rather one that no class needs.
            count = count_validation(len(units), self.cut, noun)
            order = sorted(range(len(units)), key=lambda i: (_is_needed(units, i), _draw(self.seed, names[i])))
            drawn = sorted(order[:count])
        if not drawn:
            raise DataError(
                f"validation: none of {len(units)} samples can be held out, since each class trains on its only one; "
                "expected a class of at least 2. Add samples, or give a folder validation/."
            )
        several = any(isinstance(entry.label, frozenset) for unit in units for entry in unit.entries)
        share = ", of every class in proportion" + (" (by each one's rarest class)" if several else "")
        if numbers:
            share = f", of {plural(len(set(strata)), 'quantile')} of the values in proportion"
        told = f"{some(len(drawn), 'validate')}{share}, drawn by seed {self.seed}"
        return [units[i] for i in drawn], told


@dataclass(frozen=True)
class _Unit:
    """Samples that stay together: those of a subject, or one of no known subject."""

    name: str
    subject: str | None
    entries: list[Entry]


def _strata(units: Sequence[_Unit]) -> list[int]:
    """Return the class of most of each unit's samples; 0 to segment.

    Where samples have several classes, the rarest of a unit's: common ones spread by themselves, and those with none
    are a stratum of their own, −1.
    """
    held = [frozenset().union(*map(_classes, unit.entries)) for unit in units]
    if any(isinstance(entry.label, frozenset) for unit in units for entry in unit.entries):
        counts = Counter(number for numbers in held for number in numbers)
        return [min(numbers, key=lambda number: (counts[number], number), default=-1) for numbers in held]
    return [Counter(min(_classes(entry), default=0) for entry in unit.entries).most_common(1)[0][0] for unit in units]


def _quantiles(units: Sequence[_Unit], most: int) -> list[int]:
    """Return the quantile of each unit's values: of their means over its samples; of several targets by the mean rank.

    Args:
        units: units of samples with values.
        most: largest number of quantiles; there are no more than ten.
    """
    values = np.array(
        [np.mean([np.array(entry.label, np.float64) for entry in unit.entries], axis=0) for unit in units]
    )
    ranks = np.mean([np.searchsorted(np.sort(column), column) for column in values.T], axis=0)
    order = sorted(range(len(units)), key=lambda i: (ranks[i], units[i].name))
    count = max(1, min(_QUANTILES, most))
    found = [0] * len(units)
    for place, position in enumerate(order):
        found[position] = place * count // len(units)
    return found


def _classes(entry: Entry) -> frozenset[int]:
    label = entry.label
    if isinstance(label, int):
        return frozenset({label})
    return label if isinstance(label, frozenset) else frozenset()


def _group(entries: Sequence[Entry]) -> list[_Unit]:
    """Return the units of samples: in the samples' order, or by name where subjects are known."""
    units: dict[tuple[bool, str], _Unit] = {}
    for entry in entries:
        known = entry.subject is not None
        name = entry.subject if entry.subject is not None else entry.name
        units.setdefault((known, name), _Unit(name, entry.subject, [])).entries.append(entry)
    found = list(units.values())
    known = any(unit.subject is not None for unit in found)
    return sorted(found, key=lambda unit: os.fsencode(unit.name)) if known else found


def _is_needed(units: Sequence[_Unit], position: int) -> bool:
    """Return whether a class occurs in no other unit."""
    others = {c for i, unit in enumerate(units) if i != position for entry in unit.entries for c in _classes(entry)}
    return any(not _classes(entry) <= others for entry in units[position].entries)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def count_validation(total: int, validation: int | float | None, noun: str = "samples") -> int:
    """Return how many of ``total`` samples validate: a count (int), a fraction (float), or 20 % (None).

    >>> count_validation(130, 30), count_validation(20, 0.25), count_validation(20, None)
    (30, 5, 4)

    Raises ConfigError if training or validation would be empty.
    """
    if total < 2:
        have = f"{total} of the {noun} {'is' if total == 1 else 'are'} usable"
        raise DataError(f"validation: {have}; expected at least 2, to train and to validate. Add some.")
    if isinstance(validation, bool) or not isinstance(validation, (int, float, type(None))):
        raise ConfigError(f"validation is {validation!r}; expected a count (such as 30) or a fraction (such as 0.2).")
    if validation is None or isinstance(validation, float):
        fraction = _FRACTION if validation is None else validation
        if not 0 < fraction < 1:
            raise ConfigError(f"validation is {fraction}; expected a fraction above 0 and below 1, or a whole count.")
        return min(max(round(total * fraction), 1), total - 1)
    if not 1 <= validation < total:
        raise ConfigError(f"validation is {validation} of {total} {noun}; expected 1 to {total - 1}. Choose fewer.")
    return validation


def split_stratified(
    names: Sequence[str], labels: Sequence[int], validation: int | float | None, seed: int
) -> tuple[list[int], list[int]]:
    """Return (training, validation) positions, every class in the same proportion, drawn by ``seed``.

    Shares are rounded by the largest remainder, and every class keeps at least one sample to train on.
    """
    count = count_validation(len(names), validation)
    members: dict[int, list[int]] = {}
    for position, label in enumerate(labels):
        members.setdefault(label, []).append(position)
    classes = sorted(members)
    quota = {c: len(members[c]) * count // len(names) for c in classes}
    remainder = sorted(classes, key=lambda c: (-(len(members[c]) * count % len(names)), c))
    for c in remainder[: count - sum(quota.values())]:
        quota[c] += 1
    chosen: set[int] = set()
    for c in classes:
        drawn = sorted(members[c], key=lambda position: _draw(seed, names[position]))
        chosen.update(drawn[: min(quota[c], len(drawn) - 1)])
    return [p for p in range(len(names)) if p not in chosen], sorted(chosen)


def _draw(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogateescape")).digest()
