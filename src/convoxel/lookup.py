"""A network by the word that people have for it: a name of the zoo, the folder of a trained run, or a file.

Python and the command line find networks here; ``convoxel.describe`` is among them. PyTorch is not imported before a
network needs it. Absent on purpose: parsing of text, and anything that a network is then used for.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from convoxel.arithmetic.image import broadcast_sizes, join_axes
from convoxel.errors import ConfigError, ShapeError
from convoxel.files.fault import few

if TYPE_CHECKING:
    from torch import nn

    from convoxel import models
    from convoxel.arithmetic import Graph, Inputs
    from convoxel.files.values import JsonObject, Options
    from convoxel.graph.ir.size import Shape
    from convoxel.inspect import Summary
    from convoxel.inspect.axis_graph import AxisGraph
    from convoxel.inspect.record import Model, Source
    from convoxel.inspect.valid_sizes import Accepts, ValidSizes


def describe(
    model: Model, *input_shapes: Sequence[int], object_size: int | Sequence[int] | None = None, **options: Any
) -> Summary:
    """Return what every step of ``model`` does, costs and sees, for inputs of the given shapes.

    Nothing is computed and no memory taken: the network is read on shapes alone, in evaluation mode, and stays as it
    is. MACs are those of the direct algorithm, of layers with weights and matrix products (1 MAC = 2 FLOPs).
    Receptive fields are exact, through branches, skips, transposed convolutions and resizes, away from the
    image's borders (Araujo, Norris & Sim 2019, extended to axes that grow finer).

    Args:
        model: a PyTorch module, a name of ``convoxel.models.names()``, the folder of a run, an ``.onnx`` or ``.cvx``
            file, a compiled program, or a graph.
        *input_shapes: shape of each input (n, c, *spatial). A zoo network shows a usual one unless told, a file its
            own where they are fixed; dims and in_channels of a zoo network follow from the shape.
        object_size: size of the objects to be found, along every image axis: a smaller field is warned of.
        **options: options of a zoo network, as ``models.build`` takes them: dims, in_channels, num_classes, width, …

    Returns:
        A summary that prints as a table, has ``to_dict()`` and ``to_csv()``, and shows itself in notebooks.

    Raises:
        ConfigError: the name or an option is not known, or a shape is missing or malformed.
        ShapeError: the network does not accept the shape, and says which it would.
        GraphError: the network cannot run without data, or the file cannot be read.
        UnsupportedError: the file has operators that Convoxel does not know, or sizes that depend on values.

    >>> summary = describe("resnet18", (1, 3, 224, 224))
    >>> summary.params, summary.macs, summary.field.size
    (11689512, 1814073344, (435, 435))
    >>> summary = describe("unet", dims=3, levels=2)
    >>> summary.input_shapes, summary.field.size, str(summary.sizes)
    (((1, 1, 64, 64, 64),), (44, 44, 44), 'multiples of 4')
    """
    from convoxel.inspect.describe import checked_shapes, summarise

    source, shapes, name = open_network(model, checked_shapes(input_shapes), options)
    return summarise(source, shapes, name, object_size)


def open_network(
    model: Model, shapes: Sequence[Shape] = (), options: Options | None = None
) -> tuple[Source, tuple[Shape, ...], str]:
    """Return the network that ``model`` stands for, the shapes to show it for (() if unknown), and its name."""
    if isinstance(model, str) and not is_file(model):
        found = find_network(model, shapes, options)
        return found.open(), found.shapes, found.name
    if options:
        raise ConfigError(
            f"describe: {next(iter(options))}= came with a network that is built already; "
            "options are for names of convoxel.models.names()."
        )
    from convoxel.inspect.record import open_source

    source = open_source(model)
    return source, tuple(shapes) or source.usual(), source.name


def is_file(word: str) -> bool:
    """Return True if a word means the file of a network, and neither a name nor the folder of a run."""
    return word.endswith((".onnx", ".cvx")) and not is_run(word)


def is_run(word: str | Path) -> bool:
    """Return True if a word is the folder of a training run."""
    return _exists(Path(word) / "checkpoints") and Path(word).is_dir()


def _exists(path: str | Path) -> bool:
    """Return True if there is such a file or folder; a word that no file can be called is none."""
    with contextlib.suppress(OSError, ValueError):
        return Path(path).exists()
    return False


@dataclass(frozen=True, eq=False)
class GivenNetwork:
    """A network of this process that has a word, as names of the zoo are, for as long as this object lives.

    Attributes:
        word: its word.
        module: the network, in evaluation mode.
        shape: shape (n, channels, *spatial) of its input.
    """

    word: str
    module: nn.Module
    shape: Shape

    @classmethod
    def of(cls, module: nn.Module, shape: Shape) -> GivenNetwork:
        """Give a word to a copy of a module, which stays as it is."""
        import copy

        found = cls(f"{type(module).__name__}-{next(_NUMBERS)}", copy.deepcopy(module).eval(), shape)
        _GIVEN[found.word] = found
        return found


_GIVEN: WeakValueDictionary[str, GivenNetwork] = WeakValueDictionary()
_NUMBERS = itertools.count(1)


def is_given(word: str) -> bool:
    """Return True if a word stands for a network of this process, which no command can name."""
    return word in _GIVEN


def is_name(word: str) -> bool:
    """Return True if a word is a name of the zoo, or of a network of this process, and no path."""
    from convoxel import models

    return is_given(word) or word in models.names()


@dataclass(frozen=True)
class NamedNetwork:
    """A network and the inputs to look at it with.

    Attributes:
        name: the name to show.
        source: the module in eval mode; of a file, its path.
        shapes: the shape (n, channels, *spatial) of each input.
        without_data: whether the module has shapes alone, so that it can be read without copying it (default False).
        geometry: orientation and spacing of a run's images, in words; empty for other networks.
    """

    name: str
    source: nn.Module | Path
    shapes: tuple[Shape, ...]
    without_data: bool = False
    geometry: str = ""

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

    def open(self) -> Source:
        """Return the network to be read on shapes alone."""
        from convoxel.inspect.record import open_source

        return open_source(self.source, own=self.without_data)

    def describe(self, object_size: int | Sequence[int] | None = None) -> Summary:
        """Return what every step does, costs and sees; see :func:`convoxel.describe`."""
        from convoxel.inspect.describe import summarise

        return summarise(self.open(), self.shapes, self.name, object_size)


def find_network(
    word: str,
    shapes: Sequence[Shape] = (),
    options: Options | None = None,
    *,
    weights: bool = False,
    weights_from: str | Path | None = None,
) -> NamedNetwork:
    """Return the network that ``word`` stands for.

    Args:
        word: a name of ``convoxel.models.names()``, the folder of a run, or an ``.onnx`` or ``.cvx`` file. Names of the
            zoo come first.
        shapes: shape of each input (default: a usual one, that of the run, or the one that the file fixes).
        options: options of a network of the zoo.
        weights: whether the network will be computed; without, it takes no memory.
        weights_from: file of weights for a network of the zoo, as of :func:`convoxel.models.load_weights` (default
            none: the weights that training starts from).

    Raises:
        ConfigError: the word is none of these, or shape or options do not fit; weights came with a network that has
            its own, or lack some of the network's.
        DataError: the file of weights is missing or broken.
        CheckpointError: the weights do not fit the network.
    """
    given = dict(options or {})
    if not is_file(word):  # which needs no PyTorch
        from convoxel import models

        if word in models.names():
            return _from_zoo(word, _only(shapes, word), given, weights, weights_from)
    fixed = next((f"{name}={value}" for name, value in given.items()), None)
    if (kept := _GIVEN.get(word)) is not None:
        if fixed is not None or weights_from is not None:
            raise ConfigError(f"set: {fixed or weights_from} given, but {word} is a network that is built already.")
        return NamedNetwork(word, kept.module, (_only(shapes, word) or kept.shape,))
    kind = "a file" if is_file(word) else "a run"
    if fixed is not None and (is_file(word) or is_run(word)):
        raise ConfigError(f"set: {fixed!r} given, but the network of {kind} is fixed. Leave --set out.")
    if weights_from is not None and (is_file(word) or is_run(word)):
        raise ConfigError(
            f"weights: {weights_from} given, but {kind} has weights of its own; expected a name of `convoxel models`. "
            "Leave --weights out."
        )
    if is_file(word):
        return _from_file(Path(word), tuple(shapes))
    if is_run(word):
        return _from_run(word, _only(shapes, word))
    if _exists(word):
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


def _from_zoo(
    name: str, shape: Shape | None, options: JsonObject, weights: bool, weights_from: str | Path | None
) -> NamedNetwork:
    import torch

    from convoxel import models

    entry = models.entry(name)
    if shape and not 3 <= len(shape) <= 5:
        raise ConfigError(
            f"shape: {shape} has {len(shape)} axes, but {name} takes (n, channels, *spatial) with 1, 2 or 3 spatial "
            "axes, such as (1, 3, 224, 224)."
        )
    dims = options.pop("dims", len(shape) - 2 if shape else 2)
    if dims not in (1, 2, 3):
        raise ConfigError(f"set: dims is {dims!r}; expected 1, 2 or 3.")
    channels = options.pop("in_channels", shape[1] if shape else entry.default("in_channels"))
    with contextlib.ExitStack() as stack:
        if not weights:
            from convoxel.graph.read.functions import shapes_only

            stack.enter_context(torch.device("meta"))
            stack.enter_context(shapes_only())
        module = models.build(name, dims=dims, in_channels=channels, **options)
    if weights and weights_from is not None:
        report = models.load_weights(module, weights_from)
        if report.fresh:
            raise ConfigError(
                f"weights: {report.file} has none for {few(report.fresh)} of {name}, which would stay random; expected "
                "all. Build the network that they belong to, for example with --set num_classes=4."
            )
    usual = (1, channels, *(entry.size[dims - 1],) * dims)
    return NamedNetwork(name, module.eval(), (shape or usual,), without_data=not weights)


def _from_run(word: str, shape: Shape | None) -> NamedNetwork:
    from convoxel.train import load_model

    run = load_model(word)
    name, geometry = f"{run.config.model} of {word}", str(run.data.rule)
    return NamedNetwork(name, run.network, (shape or run.input_shape,), geometry=geometry)


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
    from convoxel.inspect.valid_sizes import find_sizes

    source, shapes = network.open(), network.shapes
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


_MULTIPLES = (2, 4, 8, 16, 32, 64, 128)


def fit_input(word: str, network: NamedNetwork) -> tuple[Shape, tuple[int, ...]]:
    """Return the shape of an input that a network takes and that holds an image, and where the image begins in it.

    An image of a size that the network does not take is padded behind its end; where the network has one size alone,
    a larger image is cut to its middle, so that it begins before the input does (a negative place).

    Args:
        word: name, run folder or file of the network.
        network: the network, found for the shape of the image.

    Raises:
        ConfigError: the network takes another number of axes.
        ShapeError: the network takes no size that is near.
    """
    source, shape = network.open(), network.shape
    size, axes, usual = shape[2:], len(shape) - 2, source.usual()
    if usual and len(usual[0]) != len(shape):
        raise ConfigError(
            f"image: it has {axes} axes, but {network.name} takes {len(usual[0]) - 2}. Choose an image of that kind."
        )
    fixed = usual[0][1] if usual else shape[1]
    trials = [size, *(tuple(-(-side // step) * step for side in size) for step in _MULTIPLES)]
    trials += [tuple(usual[0][2:])] if usual else []
    trials += [(side,) * axes for side in range(max(size), max(size) + _MULTIPLES[-1])]
    for channels in dict.fromkeys((shape[1], fixed, 1, 3)):
        for trial in trials:
            if source.accepts([(1, channels, *trial)]) is not None:
                best = _smallest(replace(network, shapes=((1, channels, *trial),)), word, size)
                return (1, channels, *best), _cut_in_middle(best, size)
    source.record([shape])  # raises with the sizes that the network takes
    raise AssertionError(word)


def _smallest(network: NamedNetwork, word: str, size: tuple[int, ...]) -> tuple[int, ...]:
    """Return the smallest size that holds ``size``, of a network shown for one that it takes."""
    one = network.shape[2:]
    if one == size:
        return one
    try:
        known = open_sizes(network, word)
    except ConfigError:  # its axes cannot be followed
        return one
    best = tuple(each.nearest(side)[-1] for each, side in zip(known.valid.sizes, size, strict=True))
    return best if known.accepts([(*network.shape[:2], *best)]) is not None else one


def _cut_in_middle(given: Sequence[int], size: Sequence[int]) -> tuple[int, ...]:
    """Return the place of an image's first voxel in an input that begins with it, or that is smaller."""
    return tuple((side - own) // 2 if side < own else 0 for side, own in zip(given, size, strict=True))
