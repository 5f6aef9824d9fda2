"""The network that a command is told to look at: one of the zoo, or the one that a run trained."""

from __future__ import annotations

import ast
import contextlib
import re
from pathlib import Path
from typing import Any, NamedTuple

from convoxel.errors import ConfigError

__all__ = ["Choice", "choose_network", "is_file", "open_file", "parse_options", "parse_shape"]


class Choice(NamedTuple):
    """A network and the input to look at it with.

    Attributes:
        model: the module, in eval mode; on the meta device (no memory) if so asked.
        name: what to call it.
        shape: (n, channels, *spatial).
    """

    model: Any
    name: str
    shape: tuple[int, ...]


def choose_network(target: str, shape: str | None, options: list[str] | None, *, weights: bool) -> Choice:
    """Return the network called ``target``.

    Args:
        target: a name of the zoo, or the folder of a run (a folder's name wins over nothing: names of the
            zoo come first).
        shape: input shape in text; a usual one unless given.
        options: ``name=value`` for a network of the zoo.
        weights: whether it will be computed; without, no memory is taken.

    Raises:
        ConfigError: neither, or shape or options do not fit.
    """
    from convoxel import models

    sizes = None if shape is None else parse_shape(shape)
    if target in models.names():
        return _from_zoo(target, sizes, parse_options(options or []), weights)
    if (Path(target) / "checkpoints").is_dir():
        if options:
            raise ConfigError(f"set: {options[0]!r} given, but the network of a run is fixed. Leave --set out.")
        return _from_run(target, sizes)
    if Path(target).exists():
        raise ConfigError(
            f"network: {target} is not a training run (it has no checkpoints folder). "
            "Give the folder that `convoxel train --output` named, or a name of `convoxel models`."
        )
    models.entry(target)  # raises with the nearest name
    raise AssertionError(target)


def is_file(network: str) -> bool:
    """Whether the word means a file of a network, not a name or a run's folder."""
    return network.endswith((".onnx", ".cvx")) and not (Path(network) / "checkpoints").is_dir()


def open_file(network: str, shapes: list[str], options: list[str] | None) -> tuple[Any, tuple[tuple[int, ...], ...]]:
    """Return the network in a file as ``describe`` reads it, and the shapes of its inputs.

    Raises:
        ConfigError: an option came, or the file leaves sizes open and no shape came.
    """
    from convoxel.inspect.describe import open_source

    if options:
        raise ConfigError(f"set: {options[0]!r} given, but the network of a file is fixed. Leave --set out.")
    source, found, _ = open_source(Path(network), tuple(map(parse_shape, shapes)))
    if not found:
        raise ConfigError(
            f"shape: {network} takes {source.signature}, and leaves sizes open. "  # type: ignore[attr-defined]
            "Say which with --shape, such as --shape 1,3,224,224; once for each input."
        )
    return source, found


def _from_zoo(name: str, sizes: tuple[int, ...] | None, options: dict[str, Any], weights: bool) -> Choice:
    import torch

    from convoxel import models

    entry = models.entry(name)
    dims = options.pop("dims", len(sizes) - 2 if sizes else 2)
    if dims not in (1, 2, 3):
        raise ConfigError(f"set: dims is {dims!r}; expected 1, 2 or 3.")
    if sizes is None:
        channels = options.get("in_channels", entry.default("in_channels"))
        sizes = (1, channels, *(entry.size[dims - 1],) * dims)
    given = {"in_channels": sizes[1], **options}
    with contextlib.nullcontext() if weights else torch.device("meta"):
        model = models.build(name, dims=dims, **given)
    return Choice(model.eval(), name, sizes)


def _from_run(target: str, sizes: tuple[int, ...] | None) -> Choice:
    from convoxel.train import load_model

    run = load_model(target)
    return Choice(run.network, f"{run.config.model} of {target}", sizes or run.input_shape)


def parse_shape(text: str) -> tuple[int, ...]:
    """Return a shape from text.

    Raises:
        ConfigError: it is no list of three to five sizes.

    >>> parse_shape("1,3,224,224"), parse_shape("1x1x64x64x64")
    ((1, 3, 224, 224), (1, 1, 64, 64, 64))
    """
    try:
        sizes = tuple(int(word) for word in re.split(r"[,x×\s]+", text.strip("() ")))
    except ValueError:
        sizes = ()
    if not 3 <= len(sizes) <= 5 or min(sizes) < 1:
        raise ConfigError(f"shape: got {text!r}; expected n,channels,*sizes, such as 1,3,224,224.")
    return sizes


def parse_options(assignments: list[str]) -> dict[str, Any]:
    """Return the options that ``name=value`` texts state; numbers become numbers.

    Raises:
        ConfigError: an entry has no name or no ``=``.

    >>> parse_options(["levels=2", "norm=none", "width=0.5", "strides=[(1, 2, 2), 2]"])
    {'levels': 2, 'norm': 'none', 'width': 0.5, 'strides': [(1, 2, 2), 2]}
    """
    found: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals or not name:
            raise ConfigError(f"set: got {assignment!r}; expected name=value, such as levels=2.")
        found[name] = _parse_value(text)
    return found


def _parse_value(text: str) -> Any:
    words = {"true": True, "false": False, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    if text.startswith(("[", "(")):
        with contextlib.suppress(ValueError, SyntaxError):
            return ast.literal_eval(text)
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text
