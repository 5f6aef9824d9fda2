"""A network by the word that people have for it: a name of the zoo, the folder of a trained run, or a file.

Python and the command line find networks here. Nothing heavy is imported before a network is asked for. Absent on
purpose: parsing of text, and anything that a network is then used for.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from convoxel.arithmetic.image import broadcast_sizes, join_axes
from convoxel.errors import ConfigError, ShapeError

if TYPE_CHECKING:
    from torch import nn

    from convoxel import models
    from convoxel.arithmetic import Graph, Inputs
    from convoxel.files.values import JsonObject, Options
    from convoxel.inspect import Summary
    from convoxel.inspect.axis_graph import AxisGraph
    from convoxel.inspect.valid_sizes import Accepts, ValidSizes

__all__ = ["NamedNetwork", "NetworkSizes", "find_models", "find_network", "is_file", "is_run", "open_sizes"]

Shape = tuple[int, ...]


def is_file(word: str) -> bool:
    """Return True if a word means the file of a network, and neither a name nor the folder of a run."""
    return word.endswith((".onnx", ".cvx")) and not is_run(word)


def is_run(word: str | Path) -> bool:
    """Return True if a word is the folder of a training run."""
    return (Path(word) / "checkpoints").is_dir()


@dataclass(frozen=True)
class NamedNetwork:
    """A network and the inputs to look at it with.

    Attributes:
        name: the name to show.
        source: the module in eval mode; of a file, its path.
        shapes: the shape (n, channels, *spatial) of each input.
    """

    name: str
    source: nn.Module | Path
    shapes: tuple[Shape, ...]

    @property
    def module(self) -> nn.Module:
        """The PyTorch module.

        Raises:
            ConfigError: the network is that of a file.
        """
        if isinstance(self.source, Path):
            raise ConfigError(
                f"network: {self.source} is a file, which has no gradients. Give a run, or a name of the zoo."
            )
        return self.source

    @property
    def shape(self) -> Shape:
        """The shape of the first input."""
        return self.shapes[0]

    def describe(self, object_size: int | Sequence[int] | None = None) -> Summary:
        """Return what every step does, costs and sees; see :func:`convoxel.describe`."""
        from convoxel.inspect.describe import describe

        return dataclasses.replace(describe(self.source, *self.shapes, object_size=object_size), name=self.name)


def find_network(
    word: str,
    shapes: Sequence[Shape] = (),
    options: Options | None = None,
    *,
    weights: bool = False,
) -> NamedNetwork:
    """Return the network that ``word`` stands for.

    Args:
        word: a name of ``convoxel.models.names()``, the folder of a run, or an ``.onnx`` or ``.cvx`` file. Names of the
            zoo come first.
        shapes: shape of each input (default: a usual one, that of the run, or the one that the file fixes).
        options: options of a network of the zoo.
        weights: whether the network will be computed; without, it takes no memory.

    Raises:
        ConfigError: the word is none of these, or shape or options do not fit.
    """
    from convoxel import models

    given = dict(options or {})
    if word in models.names():
        return _from_zoo(word, _only(shapes, word), given, weights)
    fixed = next((f"{name}={value}" for name, value in given.items()), None)
    kind = "a file" if is_file(word) else "a run"
    if fixed is not None and (is_file(word) or is_run(word)):
        raise ConfigError(f"set: {fixed!r} given, but the network of {kind} is fixed. Leave --set out.")
    if is_file(word):
        return _from_file(Path(word), tuple(shapes))
    if is_run(word):
        return _from_run(word, _only(shapes, word))
    if Path(word).exists():
        raise ConfigError(
            f"network: {word} is not a training run (it has no checkpoints folder). "
            "Give the folder that `convoxel train --output` named, or a name of `convoxel models`."
        )
    models.entry(word)  # raises with the nearest name
    raise AssertionError(word)


def _only(shapes: Sequence[Shape], word: str) -> Shape | None:
    if len(shapes) > 1:
        raise ConfigError(f"shape: {len(shapes)} given, but {word} has one input. Give --shape once.")
    return shapes[0] if shapes else None


def _from_zoo(name: str, shape: Shape | None, options: JsonObject, weights: bool) -> NamedNetwork:
    import torch

    from convoxel import models

    entry = models.entry(name)
    dims = options.pop("dims", len(shape) - 2 if shape else 2)
    if dims not in (1, 2, 3):
        raise ConfigError(f"set: dims is {dims!r}; expected 1, 2 or 3.")
    channels = options.pop("in_channels", shape[1] if shape else entry.default("in_channels"))
    with contextlib.nullcontext() if weights else torch.device("meta"):
        module = models.build(name, dims=dims, in_channels=channels, **options)
    return NamedNetwork(name, module.eval(), (shape or (1, channels, *(entry.size[dims - 1],) * dims),))


def _from_run(word: str, shape: Shape | None) -> NamedNetwork:
    from convoxel.train import load_model

    run = load_model(word)
    return NamedNetwork(f"{run.config.model} of {word}", run.network, (shape or run.input_shape,))


def _from_file(path: Path, shapes: tuple[Shape, ...]) -> NamedNetwork:
    from convoxel.inspect.record import open_source

    if shapes:
        return NamedNetwork(path.name, path, shapes)
    source = open_source(path)
    if not source.usual():
        raise ConfigError(
            f"shape: {path} takes {source.signature}, and leaves sizes open. "
            "Say which with --shape, such as --shape 1,3,224,224; once for each input."
        )
    return NamedNetwork(source.name, path, source.usual())


# ---- the sizes that a network takes ------------------------------------------------------------------------


@dataclass(frozen=True)
class NetworkSizes:
    """The image sizes that a network takes, and what becomes of them.

    Attributes:
        name: the network.
        accepts: returns the shapes that come out of given ones, or None.
        shapes: shapes of inputs that it takes.
        axes: the network along each axis of the image; None where it cannot be followed.
        valid: the sizes that it takes.
    """

    name: str
    accepts: Accepts
    shapes: tuple[Shape, ...]
    axes: tuple[AxisGraph, ...] | None
    valid: ValidSizes

    def run(self, size: Sequence[int]) -> tuple[Shape, tuple[Shape, ...]]:
        """Return the shape of the first input for an image of this size, and the shapes that come out.

        Raises:
            ShapeError: the network does not take it; the message names the nearest sizes.
        """
        first, *more = self.shapes
        spatial = broadcast_sizes("size", size, len(first) - 2)
        shape = (*first[:2], *spatial)
        others = [(*each[:2], *spatial) if each[2:] == first[2:] else each for each in more]
        results = self.accepts((shape, *others))
        if results is None:
            near = [" or ".join(map(str, known.nearest(i))) for known, i in zip(self.valid.sizes, spatial, strict=True)]
            raise ShapeError(
                f"size: {self.name} does not take {join_axes(spatial, full=True)}, but: {self.valid}. "
                f"The nearest: {join_axes(near)}."
            )
        return shape, results

    @property
    def inputs(self) -> tuple[Inputs, ...]:
        """The sizes along each axis with the equation of what comes out.

        Raises:
            ConfigError: the output has no axes of the image whose size follows from the input's.
        """
        found = self.valid.inputs
        if found is None:
            results = self.accepts(self.shapes) or ((),)
            raise ConfigError(
                f"output: {self.name} makes {join_axes(results[0], full=True)} of "
                f"{join_axes(self.shapes[0], full=True)}; no output along the image's axes follows from the size. "
                "Leave the output out."
            )
        return found

    @property
    def graphs(self) -> tuple[Graph, ...]:
        """The network along each axis.

        Raises:
            ConfigError: some axis cannot be followed through the network.
        """
        if self.axes is None or self.valid.inputs is None:
            raise ConfigError(
                f"tile: {self.name} cannot be tiled: its output has no image axes that can be followed. "
                "Tile the part of it that has them."
            )
        return tuple(axis.graph for axis in self.axes)


def open_sizes(network: NamedNetwork, word: str) -> NetworkSizes:
    """Return the sizes that a network takes, solved from its layers and confirmed by the network on shapes alone.

    Raises:
        ConfigError: its input has no axes of an image.
    """
    from convoxel.inspect.axis_graph import follow_axes
    from convoxel.inspect.record import open_source
    from convoxel.inspect.valid_sizes import find_sizes

    source, shapes = open_source(network.source), network.shapes
    axes = follow_axes(source.record(shapes))
    valid = find_sizes(source.accepts, shapes, axes)
    if valid is None:
        raise ConfigError(f"network: {word} takes {join_axes(shapes[0], full=True)}, which has no image axes.")
    return NetworkSizes(word, source.accepts, shapes, axes, valid)


# ---- the zoo -----------------------------------------------------------------------------------------------


def find_models(pattern: str = "*", task: str | None = None) -> list[models.Info]:
    """Return the networks of the zoo with their figures, counted where none are recorded.

    Raises:
        ConfigError: no network has this name or pattern, or the one of this name is for another task.
    """
    from convoxel import models

    known = models.names(pattern, task)
    if not known and set("*?[") & set(pattern):
        raise ConfigError(f"models: no network is called {pattern!r}. `convoxel models` lists all.")
    if not known:  # unknown, which names the nearest, or for the other task
        made_for = models.entry(pattern).task
        raise ConfigError(f"task: {pattern!r} is made to {made_for}. Leave --task out, or give a pattern.")
    return [_counted(models.info(name)) for name in known]


def _counted(row: models.Info) -> models.Info:
    if row.params is not None:
        return row
    summary = find_network(row.name, [(1, *row.shape)]).describe()
    field = max((int(size) for size in summary.field.size), default=None) if summary.field else None
    return row._replace(params=summary.params, macs=summary.macs, field=field)
