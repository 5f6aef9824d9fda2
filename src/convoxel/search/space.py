"""The networks that a search may choose from: a name of the zoo, and the values of some of its options."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from convoxel.errors import ConfigError
from convoxel.models import entry

# Options of a network by name, and the values that each may have.
Options = Mapping[str, Any]
Choices = Mapping[str, Sequence[Any]]

# Beside the network's options: the image's size along every axis, in pixels.
SIZE = "size"

# Varied by default where a network has the option; counts and factors differ by the type of the default.
_USUAL: Choices = {"levels": (1, 2, 3, 4, 5), "blocks": (1, 2), "kernels": (3, 5)}
_FACTORS = (0.25, 0.5, 0.75, 1.0, 1.5)
_CHANNELS = (8, 16, 24, 32, 48, 64)


def check_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Return ``shape`` if it is that of an input, (n, channels, *spatial).

    Raises:
        ConfigError: it has another number of axes.
    """
    if not 3 <= len(shape) <= 5:
        raise ConfigError(
            f"shape: {tuple(shape)} has {len(shape)} axes; expected (n, channels, *spatial) with 1, 2 or 3 spatial "
            "ones, such as (1, 3, 224, 224)."
        )
    return tuple(shape)


def usual_options(network: str) -> Choices:
    """Return the options of a network that a search varies by default, with their values.

    Args:
        network: a name of ``convoxel.models.names()``.

    Raises:
        ConfigError: no network has this name.

    >>> usual_options("mobilenet_v2")
    {'width': (0.25, 0.5, 0.75, 1.0, 1.5), 'depth': (0.25, 0.5, 0.75, 1.0, 1.5)}
    >>> usual_options("unet_ronneberger")
    {'levels': (1, 2, 3, 4, 5), 'width': (8, 16, 24, 32, 48, 64)}
    """
    known = entry(network).options
    found: dict[str, Sequence[Any]] = {}
    for name, default in known.items():
        if name in _USUAL:
            found[name] = _USUAL[name]
        elif name in ("width", "depth"):
            found[name] = _CHANNELS if isinstance(default, int) else _FACTORS
    return found


@dataclass(frozen=True, kw_only=True)
class Space:
    """Every combination of the values of some options, numbered from 0; the last option changes first.

    Attributes:
        network: a name of ``convoxel.models.names()``.
        shape: input (n, channels, *spatial).
        vary: option → its values; ``size`` stands for the image's size along every axis.
        fixed: options that all networks share.

    Raises:
        ConfigError: an option is not known, has no values or has one twice, or is both varied and fixed.

    >>> space = Space(network="unet", shape=(1, 1, 64, 64), vary={"levels": (2, 3), "width": (8, 16)})
    >>> len(space), space.options(2)
    (4, {'levels': 3, 'width': 8})
    """

    network: str
    shape: tuple[int, ...]
    vary: Choices
    fixed: Options = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = {*entry(self.network).options, "num_classes", SIZE}
        for name in (*self.vary, *self.fixed):
            if name not in known:
                raise ConfigError(
                    f"vary: {self.network} has no option {name!r}; it has {', '.join(sorted(known))}. Choose of these."
                )
        for name, values in self.vary.items():
            if not values or len({repr(value) for value in values}) < len(values):
                raise ConfigError(f"vary: {name} has the values {tuple(values)}; expected at least one, each once.")
            if name in self.fixed:
                raise ConfigError(f"vary: {name} is fixed to {self.fixed[name]!r} as well. Give it once.")
        for size in (*self.vary.get(SIZE, ()), *([self.fixed[SIZE]] if SIZE in self.fixed else ())):
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise ConfigError(f"vary: size is {size!r}; expected whole numbers of pixels, such as 128.")
        check_shape(self.shape)

    def __len__(self) -> int:
        """Return the number of combinations."""
        return count_combinations(self.vary)

    def options(self, number: int) -> Options:
        """Return the varied options of combination ``number``."""
        return {name: self.vary[name][place] for name, place in zip(self.vary, self.places(number), strict=True)}

    def places(self, number: int) -> tuple[int, ...]:
        """Return the place of each option's value in combination ``number``."""
        return combination_places(self.vary, number)

    def number(self, places: Sequence[int]) -> int:
        """Return the combination whose options have the values at ``places``."""
        return combination_number(self.vary, places)


def count_combinations(vary: Choices) -> int:
    """Return the number of combinations of values.

    >>> count_combinations({"levels": (2, 3), "width": (8, 16, 32)})
    6
    """
    return math.prod(len(values) for values in vary.values())


def combination_places(vary: Choices, number: int) -> tuple[int, ...]:
    """Return the place of each option's value in combination ``number``; the last option changes first.

    >>> combination_places({"levels": (2, 3), "width": (8, 16, 32)}, 4)
    (1, 1)
    """
    found = []
    for values in reversed(list(vary.values())):
        number, place = divmod(number, len(values))
        found.append(place)
    return tuple(reversed(found))


def combination_number(vary: Choices, places: Sequence[int]) -> int:
    """Return the number of the combination of the values at ``places``.

    >>> combination_number({"levels": (2, 3), "width": (8, 16, 32)}, (1, 1))
    4
    """
    number = 0
    for values, place in zip(vary.values(), places, strict=True):
        number = number * len(values) + place
    return number
