"""Amounts and lists of values as people write them: 1.5M, 64MB, width=0.25,0.5,1."""

from __future__ import annotations

import re
from typing import Any

from convoxel.cli.network import parse_options
from convoxel.errors import ConfigError

__all__ = ["parse_amount", "parse_numbers", "parse_values"]

_POWERS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"ki": 2**10, "mi": 2**20, "gi": 2**30}


def parse_amount(text: str | None, name: str) -> float | None:
    """Return a count or a number of bytes; None for None.

    Raises:
        ConfigError: it is none, or not above 0.

    >>> [parse_amount(text, "max-memory") for text in ("1.5M", "64 MiB", "100kB")]
    [1500000.0, 67108864.0, 100000.0]
    """
    if text is None:
        return None
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:e[0-9]+)?)\s*(|k|m|g|t|ki|mi|gi)b?\s*", text.lower())
    value = float(found[1]) * {**_POWERS, **_BINARY}[found[2]] if found else 0.0
    if value <= 0:
        raise ConfigError(f"{name}: got {text!r}; expected a number above 0, such as 500k, 1.5M or 64MiB.")
    return value


def parse_numbers(text: str | None, name: str) -> tuple[float, ...]:
    """Return numbers above or below 0; () for None.

    Raises:
        ConfigError: one is no number.

    >>> parse_numbers("0.25, 1", "width")
    (0.25, 1.0)
    """
    try:
        return () if text is None else tuple(float(word) for word in re.split(r"[,\s]+", text.strip()))
    except ValueError:
        raise ConfigError(f"{name}: got {text!r}; expected numbers, such as 0.25,0.5,1.") from None


def parse_values(assignments: list[str]) -> dict[str, tuple[Any, ...]]:
    """Return the values that ``name=value,value`` texts list; numbers become numbers.

    Raises:
        ConfigError: an entry has no name, no values, or comes twice.

    >>> parse_values(["levels=2,3", "norm=batch,none"])
    {'levels': (2, 3), 'norm': ('batch', 'none')}
    """
    found: dict[str, tuple[Any, ...]] = {}
    for assignment in assignments:
        name, _, text = (part.strip() for part in assignment.partition("="))
        # A comma within brackets belongs to one value: strides=(1, 2, 2),2.
        words = [word.strip() for word in re.split(r",(?![^(\[]*[)\]])", text)]
        if not name or not all(words):
            raise ConfigError(f"vary: got {assignment!r}; expected name=value,value, such as levels=2,3,4.")
        if name in found:
            raise ConfigError(f"vary: {name} came twice; expected all its values at once: --vary {name}={text},….")
        found[name] = tuple(parse_options([f"{name}={word}"])[name] for word in words)
    return found
