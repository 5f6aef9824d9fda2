"""Types of values that come from files and go into them: JSON objects, options by name, arrays of any element type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

#: A NumPy array of any element type.
Array = NDArray[Any]
#: A JSON object as Python reads it.
JsonObject = dict[str, Any]
#: Values by name that are only read: options of a network, a row of figures.
Options = Mapping[str, Any]


def join_names(entries: Mapping[Any, Any]) -> JsonObject:
    """Return entries within entries as one level, whose names are joined by points.

    >>> join_names({"encoder": {"0": 1, "*": 2}, "head": 3})
    {'encoder.0': 1, 'encoder.*': 2, 'head': 3}
    """
    found: JsonObject = {}
    for name, value in entries.items():
        inner = join_names(value) if isinstance(value, Mapping) else {"": value}
        found.update({f"{name}.{rest}" if rest else str(name): each for rest, each in inner.items()})
    return found
