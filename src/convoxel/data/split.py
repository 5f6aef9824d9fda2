"""Dividing samples into training and validation, always in the same way for the same names.

No random generator is used: where chance is wanted, samples are ordered by a hash of seed and name. That
order does not change with NumPy's version, nor does it for the old samples when new ones are added.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

from convoxel.errors import ConfigError, DataError

__all__ = ["DEFAULT", "count_validation", "divide_last", "divide_stratified"]

DEFAULT = 0.2

_T = TypeVar("_T")


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
        fraction = DEFAULT if validation is None else validation
        if not 0 < fraction < 1:
            raise ConfigError(f"validation is {fraction}; expected a fraction above 0 and below 1, or a whole count.")
        return min(max(round(total * fraction), 1), total - 1)
    if not 1 <= validation < total:
        raise ConfigError(f"validation is {validation} of {total} {noun}; expected 1 to {total - 1}. Choose fewer.")
    return validation


def divide_last(items: Sequence[_T], validation: int | float | None) -> tuple[tuple[_T, ...], tuple[_T, ...]]:
    """Return (training, validation): the last ones by name validate. ``items`` are sorted by name."""
    count = count_validation(len(items), validation)
    return tuple(items[:-count]), tuple(items[-count:])


def divide_stratified(
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
