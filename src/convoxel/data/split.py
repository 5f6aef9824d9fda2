"""Splits of samples into training and validation, always the same for the same names.

No random generator is used: where chance is wanted, samples are ordered by a hash of seed and name. That order does not
change with NumPy's version, nor does it change for the old samples when new ones are added.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from convoxel.data.data_set import Entry, Parts
from convoxel.errors import ConfigError, DataError

# A count, a fraction, or 20 %; "test": what runs of earlier versions did where a set has no validation part but a test
# part. No new run does, since a part that chose the checkpoint tests nothing.
Validation = int | float | Literal["test"] | None
_FRACTION = 0.2


@dataclass(frozen=True)
class SplitRule:
    """The rule that splits samples into training and validation.

    Attributes:
        validation: a count (int), a fraction (float), 20 % (None), or "test".
        seed: random seed of the samples that validate a classification (default 0).
    """

    validation: Validation = None
    seed: int = 0

    @property
    def cut(self) -> int | float | None:
        """The share or number of training samples to hold out where the source has no validation part."""
        return None if self.validation == "test" else self.validation

    def split(self, parts: Mapping[str, Sequence[Entry]], task: str) -> Parts:
        """Return the source's own parts, with a validation part cut from training where there is none.

        To segment, the last samples by name validate; to classify, the same proportion of every class. A test part
        never validates.
        """
        train = parts.get("train", parts.get("", ()))
        held, test = parts.get("validation", ()), parts.get("test", ())
        if self.validation == "test" and test and not held:
            return Parts(train, test, (), "the test part validates, as in runs of earlier versions")
        if held and self.cut is not None:
            raise ConfigError(
                f"validation is {self.cut!r} but the data bring a validation part of {len(held)} samples; "
                "expected no value. Leave validation out, or merge the parts into one folder."
            )
        if held:
            return Parts(train, held, test, "the data's own parts")
        whole = "the training part" if "train" in parts else "the data"
        if task == "segment":
            count = count_validation(len(train), self.cut)
            told = f"the last {count} of {whole} by name validate"
            return Parts(train[:-count], train[-count:], test, told)
        labels = [entry.label or 0 for entry in train]
        first, second = split_stratified([entry.name for entry in train], labels, self.cut, self.seed)
        if not second:
            raise DataError(
                f"validation: none of {len(train)} samples can be held out, since each class trains on its only one; "
                "expected a class of at least 2. Add samples, or give a folder validation/."
            )
        told = f"{len(second)} of {whole} validate, of every class in proportion, drawn by seed {self.seed}"
        return Parts([train[i] for i in first], [train[i] for i in second], test, told)


def count_validation(total: int, validation: int | float | None, noun: str = "samples") -> int:
    """Return how many of ``total`` samples validate: a count (int), a fraction (float), or 20 % (None).

    >>> count_validation(130, 30), count_validation(20, 0.25), count_validation(20, None)
    (30, 5, 4)

    Raises ConfigError if training or validation would be empty.
    """
    if total < 2:
        raise DataError(f"validation: {total} usable {noun}; expected at least 2, to train and to validate. Add some.")
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
