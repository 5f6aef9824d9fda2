"""Precisions by word: how many binary digits the numbers have that convolutions and linear layers multiply."""

from __future__ import annotations

from collections.abc import Mapping

from convoxel.errors import ConfigError
from convoxel.files.fault import brief

# The fewest digits that an algorithm may multiply; faster ones of more digits run, too. Sums, activations and all other
# steps have float32's 24.
DIGITS: Mapping[str, int] = {"float32": 24, "high": 16, "bfloat16": 8}
PRECISIONS = tuple(DIGITS)


def check_precision(precision: object, where: str = "") -> str:
    """Return ``precision`` if it is one of ``PRECISIONS``; raises ``ConfigError``, which ``where`` begins."""
    if precision == "int8":
        raise ConfigError(
            f"{where}precision is 'int8', expected one of {', '.join(PRECISIONS)}: whole numbers of 8 bits need ranges "
            "that samples fill, so quantise the network (convoxel quantise, convoxel.quantise)"
        )
    if not (isinstance(precision, str) and precision in DIGITS):
        raise ConfigError(f"{where}precision is {brief(precision)}, expected one of {', '.join(PRECISIONS)}")
    return precision


def name_of_digits(digits: int) -> str:
    """Return the highest precision that allows numbers of so many digits.

    >>> name_of_digits(24), name_of_digits(8)
    ('float32', 'bfloat16')
    """
    return next(name for name, least in DIGITS.items() if least <= digits)
