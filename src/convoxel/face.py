"""The front door of ``inspect``: networks by the names of the zoo, besides modules, files and programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convoxel.errors import ConfigError
from convoxel.files.values import JsonObject, Options
from convoxel.graph.ir.size import Shape
from convoxel.inspect.describe import checked_shapes, summarise
from convoxel.inspect.record import Source, open_source
from convoxel.inspect.summary import Summary

if TYPE_CHECKING:
    from torch import nn

    from convoxel.inspect.record import Model

__all__ = ["describe", "open_network"]


def describe(
    model: Model, *input_shapes: Sequence[int], object_size: int | Sequence[int] | None = None, **options: Any
) -> Summary:
    """Return what every step of ``model`` does, costs and sees, for inputs of the given shapes.

    Nothing is computed and no memory taken: the network is read on shapes alone, in evaluation mode, and stays as it
    is. MACs are those of the direct algorithm, of layers with weights and matrix products (1 MAC = 2 FLOPs).
    Receptive fields are exact, through branches, skips, transposed convolutions and resizes, away from the
    image's borders (Araujo, Norris & Sim 2019, extended to axes that grow finer).

    Args:
        model: a PyTorch module, a name of ``convoxel.models.names()``, an ``.onnx`` or ``.cvx`` file, a compiled
            program, or a graph.
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
    source, shapes, name = open_network(model, checked_shapes(input_shapes), options)
    return summarise(source, shapes, name, object_size)


def open_network(
    model: Model, shapes: Sequence[Shape] = (), options: Options | None = None
) -> tuple[Source, tuple[Shape, ...], str]:
    """Return the network that ``model`` stands for, the shapes to show it for (() if unknown), and its name."""
    if isinstance(model, str) and not model.endswith((".onnx", ".cvx")):
        network, shapes = _from_zoo(model, tuple(shapes), dict(options or {}))
        return open_source(network, own=True), tuple(shapes), model
    if options:
        raise ConfigError(
            f"describe: {next(iter(options))}= came with a network that is built already; "
            "options are for names of convoxel.models.names()."
        )
    source = open_source(Path(model) if isinstance(model, str) else model)
    return source, tuple(shapes) or source.usual(), source.name


def _from_zoo(name: str, shapes: tuple[Shape, ...], options: JsonObject) -> tuple[nn.Module, tuple[Shape, ...]]:
    """Return the network called ``name``, without weights, and the shape to show it for."""
    import torch

    from convoxel import models
    from convoxel.graph.read.functions import shapes_only

    entry = models.entry(name)
    if shapes and not 3 <= len(shapes[0]) <= 5:
        raise ConfigError(
            f"describe: input shape {shapes[0]} has {len(shapes[0])} axes, but {name} takes "
            "(n, channels, *spatial) with 1, 2 or 3 spatial axes, such as (1, 3, 224, 224)."
        )
    dims = options.pop("dims", len(shapes[0]) - 2 if shapes else 2)
    channels = options.pop("in_channels", shapes[0][1] if shapes else entry.default("in_channels"))
    with torch.device("meta"), shapes_only():
        network = models.build(name, dims=dims, in_channels=channels, **options)
    return network, shapes or ((1, channels, *(entry.size[dims - 1],) * dims),)
