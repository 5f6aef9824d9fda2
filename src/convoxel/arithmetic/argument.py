"""Numbers that callers give: checked, and made plain integers.

Whatever counts as a whole number in Python (``operator.index``) is one here, such as NumPy's integers; True and False
are not, since they are mistakes more often than numbers.
"""

from __future__ import annotations

import operator
from typing import Any

from convoxel.annotation import first_entries, is_truth
from convoxel.errors import ConfigError
from convoxel.files.fault import brief

_MOST_ENTRIES = 1000  # for axes, of which there are a few: what goes on for ever ends here
_MOST_BITS = 4096  # sums and products of such numbers can still be shown in a message


def whole(name: str, value: object, least: int | None = None, most: int | None = None) -> int:
    """Return ``value`` as an int.

    Args:
        name: of the argument, for the message.
        value: whatever the caller gave.
        least, most: the smallest and the largest number allowed (default: any).

    Raises:
        ConfigError: it is no whole number, or out of range.

    >>> whole("stride", 2, least=1)
    2
    >>> whole("stride", 1.5, least=1)
    Traceback (most recent call last):
    convoxel.errors.ConfigError: stride is 1.5, but it must be a whole number of at least 1.
    """
    number = as_whole(value)
    if number is not None and number.bit_length() > _MOST_BITS:
        raise ConfigError(f"{name} has more than {_MOST_BITS} bits; give a smaller whole number.")
    if number is None or (least is not None and number < least) or (most is not None and number > most):
        bounds = [f"at {word} {bound}" for word, bound in (("least", least), ("most", most)) if bound is not None]
        told = bounds if number is not None and most is not None and number > most else bounds[:1]
        limits = f" of {' and '.join(told)}" if told else ""
        raise ConfigError(f"{name} is {brief(value)}, but it must be a whole number{limits}.")
    return number


def truth(name: str, value: object) -> bool:
    """Return ``value`` as a bool; NumPy's truth values and the numbers 0 and 1 count, nothing else does.

    Raises:
        ConfigError: it is something else.

    >>> truth("bias", 1)
    True
    >>> truth("bias", "no")
    Traceback (most recent call last):
    convoxel.errors.ConfigError: bias is 'no', but it must be True or False.
    """
    if not is_truth(value):
        raise ConfigError(f"{name} is {brief(value)}, but it must be True or False.")
    return bool(value)


def per_axis(name: str, value: object, axes: int, least: int | None = None, most: int | None = None) -> tuple[int, ...]:
    """Return a whole number for each axis from one for all of them, or from one for each.

    Raises:
        ConfigError: another number of entries, or an entry that is no whole number or out of range.

    >>> per_axis("stride", 2, axes=3), per_axis("stride", (1, 2), axes=2)
    ((2, 2, 2), (1, 2))
    >>> per_axis("stride", (1, 2), axes=3)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    convoxel.errors.ConfigError: stride has 2 entries, but there are 3 axes: (1, 2). Give one whole number, ...
    """
    single = as_whole(value)
    if single is not None:
        return (whole(name, single, least, most),) * axes
    found = entries(name, value)
    if len(found) != axes:
        raise ConfigError(
            f"{name} has {len(found)} entries, but there are {axes} axes: {brief(value)}. "
            "Give one whole number, or one for each axis."
        )
    return tuple(whole(name, entry, least, most) for entry in found)


def entries(name: str, value: Any) -> tuple[Any, ...]:
    """Return the entries of a sequence; text is none.

    Raises:
        ConfigError: it has no entries, or more than any tensor has axes.
    """
    try:
        if isinstance(value, (str, bytes, dict)):
            raise TypeError
        found = first_entries(value, _MOST_ENTRIES + 1)
    except (TypeError, IndexError):  # IndexError: a tensor without axes
        raise ConfigError(f"{name} is {brief(value)}, but it must be a whole number, or one for each axis.") from None
    if len(found) > _MOST_ENTRIES:
        raise ConfigError(f"{name} has more than {_MOST_ENTRIES} entries; expected one for each axis.")
    return found


def as_whole(value: Any) -> int | None:
    """Return ``value`` as an int, or None if it is no whole number."""
    if type(value) is int:
        return value
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor without data
        return None
