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
