"""The names of the networks, and how to build one by name.

A new network is one more row of ``_ENTRIES``.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from convoxel.errors import ConfigError
from convoxel.models.network import Network
from convoxel.models.resnet import resnet18, resnet34, resnet50, resnet101, resnet152
from convoxel.models.unet import unet
from convoxel.models.vgg import course_vgg

__all__ = ["Entry", "build", "entry", "names"]


class Entry(NamedTuple):
    """One network of the zoo.

    Attributes:
        build: function of ``(dims, in_channels, num_classes, **options)``.
        task: ``"classify"`` or ``"segment"``.
        size: a usual spatial size along each axis, by ``dims``: what ``describe`` shows unless told.
        paper: where the network comes from.
    """

    build: Callable[..., Network]
    task: str
    size: tuple[int, int, int]
    paper: str

    @property
    def options(self) -> dict[str, Any]:
        """The options of ``build`` beside dims, in_channels and num_classes, with their defaults."""
        parameters = inspect.signature(self.build).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def default(self, name: str) -> Any:
        """The default of ``in_channels`` or ``num_classes``."""
        return inspect.signature(self.build).parameters[name].default


_VGG = "Simonyan & Zisserman 2015, arXiv 1409.1556"
_RESNET = "He et al. 2016, arXiv 1512.03385"
_UNET = "Ronneberger et al. 2015, arXiv 1505.04597; Çiçek et al. 2016, arXiv 1606.06650"

_ENTRIES: dict[str, Entry] = {
    "course_vgg": Entry(course_vgg, "classify", (224, 224, 64), _VGG),
    "resnet18": Entry(resnet18, "classify", (224, 224, 64), _RESNET),
    "resnet34": Entry(resnet34, "classify", (224, 224, 64), _RESNET),
    "resnet50": Entry(resnet50, "classify", (224, 224, 64), _RESNET),
    "resnet101": Entry(resnet101, "classify", (224, 224, 64), _RESNET),
    "resnet152": Entry(resnet152, "classify", (224, 224, 64), _RESNET),
    "unet": Entry(unet, "segment", (256, 256, 64), _UNET),
}


def names(task: str | None = None) -> tuple[str, ...]:
    """Return the names that ``build`` knows, of all networks or of those for one ``task``.

    Raises:
        ConfigError: ``task`` is not known.

    >>> names("segment")
    ('unet',)
    """
    tasks = sorted({row.task for row in _ENTRIES.values()})
    if task is not None and task not in tasks:
        raise ConfigError(f"task is {task!r}, but it can be {' or '.join(map(repr, tasks))}.")
    return tuple(name for name, row in _ENTRIES.items() if task in (None, row.task))


def entry(name: str) -> Entry:
    """Return the zoo's row for ``name``.

    Raises:
        ConfigError: no network has this name; the message names the nearest one.

    >>> entry("unet").task
    'segment'
    """
    if name not in _ENTRIES:
        raise ConfigError(f"there is no model {name!r}{_nearest(name, _ENTRIES)} Known models: {', '.join(_ENTRIES)}.")
    return _ENTRIES[name]


def build(
    name: str, dims: int = 2, in_channels: int | None = None, num_classes: int | None = None, **options: Any
) -> Network:
    """Return the network called ``name`` with fresh weights.

    Args:
        name: one of ``names()``.
        dims: spatial axes, 1, 2 or 3.
        in_channels: channels of the input (unless given: as published).
        num_classes: classes (unless given: as published).
        **options: the network's own, such as ``width`` or, for ``"unet"``, ``levels``; see
            ``entry(name).options``.

    Returns:
        A module from ``(n, in_channels, *spatial)`` to logits, with the attributes ``dims, in_channels,
        num_classes, input_multiple``.

    Raises:
        ConfigError: a name or option is not known (the message names the nearest), or a value is out of
            range.

    >>> build("resnet18", dims=3, in_channels=1, num_classes=2, width=0.25).dims
    3
    """
    row = entry(name)
    known = row.options
    for option in options:
        if option not in known:
            raise ConfigError(
                f"model {name!r} has no option {option!r}{_nearest(option, known)} Its options: {', '.join(known)}."
            )
    given = {"in_channels": in_channels, "num_classes": num_classes}
    return row.build(dims, **{key: value for key, value in given.items() if value is not None}, **options)


def _nearest(name: object, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(name).lower().replace("-", "").replace("_", ""), known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else "."
