"""The exceptions that Convoxel raises on purpose.

ConvoxelError
├── ShapeError        a size, rank or channel count that does not fit          (ValueError)
├── UnsupportedError  a correct request that Convoxel cannot serve (yet)       (NotImplementedError)
│   └── MissingPackageError  a package of an extra that is not installed  (ModuleNotFoundError)
├── GraphError        a network that cannot be read as a graph                 (ValueError)
├── DataError         an input file, label or folder that cannot be used       (ValueError)
│   └── WriteError    a result that cannot be written, whatever the input      (ValueError)
├── ConfigError       an option, name or configuration that is wrong           (ValueError)
├── CheckpointError   a saved run that is damaged or belongs to something else (ValueError)
└── AccuracyError     results that differ from the model's by more than rounding (ArithmeticError)

The caller's mistakes are ``ValueError`` too, so code that knows nothing of Convoxel can catch them.
An assertion that fails is a bug of ours. Every message says what came, what was expected and how to
mend it; :func:`check_choice` says it of a word.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

__all__ = [
    "AccuracyError",
    "CheckpointError",
    "ConfigError",
    "ConvoxelError",
    "DataError",
    "GraphError",
    "MissingPackageError",
    "ShapeError",
    "UnsupportedError",
    "WriteError",
    "check_choice",
]

_Value = TypeVar("_Value")


class ConvoxelError(Exception):
    """Base of every exception that Convoxel raises on purpose."""


class ShapeError(ConvoxelError, ValueError):
    """A tensor's rank, size, channel count or data type does not fit the operation."""


class UnsupportedError(ConvoxelError, NotImplementedError):
    """The request is correct but beyond what Convoxel (or the forced algorithm) can do."""


class MissingPackageError(UnsupportedError, ModuleNotFoundError):
    """A package that an extra of Convoxel brings is not installed; code that looks for ``ImportError`` finds it."""


class GraphError(ConvoxelError, ValueError):
    """A network cannot be read, or is inconsistent, as a graph of operators."""


class DataError(ConvoxelError, ValueError):
    """A file, folder, image or label that came from outside cannot be used."""


class WriteError(DataError):
    """A result cannot be written: no room, no right, a disk that fails."""


class ConfigError(ConvoxelError, ValueError):
    """A name, option or configuration value is wrong."""


class CheckpointError(ConvoxelError, ValueError):
    """A saved run is damaged, incomplete or belongs to another configuration or data set."""


class AccuracyError(ConvoxelError, ArithmeticError):
    """A program's results differ from its model's by more than rounding explains."""


def check_choice(name: str, value: _Value, choices: Collection[_Value]) -> _Value:
    """Return ``value`` if it is one of ``choices``.

    Raises:
        ConfigError: it is none of them; the message begins with ``name``, lists them and names the nearest.

    >>> check_choice("up", "linear", ("nearest", "linear"))
    'linear'
    """
    if value in choices:
        return value
    import difflib

    *first, last = map(repr, choices)
    near = difflib.get_close_matches(repr(value), (*first, last), n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ConfigError(f"{name} is {value!r}, but it can be {', '.join(first)}{' or ' if first else ''}{last}.{hint}")
