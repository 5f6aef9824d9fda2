"""The public function: a network becomes a table of shapes, costs and receptive fields."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from convoxel.arithmetic import conv_macs, linear_macs, transposed_macs
from convoxel.errors import ConfigError, UnsupportedError
from convoxel.inspect.advice import advise
from convoxel.inspect.axis_graph import follow_axes
from convoxel.inspect.memory import live_bytes, saved_bytes
from convoxel.inspect.receptive_field import Sight, look
from convoxel.inspect.step import Step, Trace
from convoxel.inspect.summary import Reach, Row, Summary
from convoxel.inspect.valid_sizes import find_sizes

if TYPE_CHECKING:
    from torch import nn

__all__ = ["describe", "open_source", "summarise"]

Shape = tuple[int, ...]


class _Source(Protocol):
    """A network whose steps can be had for given shapes: a ``ModuleSource`` or a ``GraphSource``."""

    name: str

    def trace(self, shapes: Sequence[Shape]) -> Trace: ...

    def accepts(self, shapes: Sequence[Shape]) -> tuple[Shape, ...] | None: ...


def describe(
    model: nn.Module | str | Path | Any,
    *input_shapes: Sequence[int],
    object_size: int | Sequence[int] | None = None,
    **options: Any,
) -> Summary:
    """Return what every step of ``model`` does, costs and sees, for inputs of the given shapes.

    Nothing is computed and no memory taken: the network runs on shapes alone, in eval mode, and stays as it
    is. MACs are those of the direct algorithm, of layers with weights and matrix products (1 MAC = 2 FLOPs).
    Receptive fields are exact, through branches, skips, transposed convolutions and resizes, away from the
    image's borders (Araujo, Norris & Sim 2019, extended to axes that grow finer).

    Args:
        model: a PyTorch module, a name of ``convoxel.models.names()``, an ``.onnx`` or ``.cvx`` file, or a
            compiled program.
        *input_shapes: shape of each input (n, c, *spatial). A zoo network shows a usual one unless told, a file its
            own where it is fixed; dims and in_channels of a zoo network follow from the shape.
        object_size: how large the objects to be found are, along every image axis: a smaller field is warned of.
        **options: of a zoo network, as ``models.build`` takes them: dims, in_channels, num_classes, width, …

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
    shapes = tuple(_checked(shape) for shape in input_shapes)
    source, shapes, name = open_source(model, shapes, options)
    if not shapes:
        signature = getattr(source, "signature", "(n, channels, *spatial)")
        raise ConfigError(
            f"describe: {name} needs the shape of every input, {signature}. "
            "Give it after the model: describe(model, (1, 3, 224, 224))."
        )
    return summarise(source, shapes, name, object_size)


def _checked(shape: Any) -> Shape:
    try:
        sizes = tuple(int(size) for size in shape)
    except (TypeError, ValueError):
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise ConfigError(
            f"describe: {shape!r} is no input shape; "
            "a shape is a tuple of sizes of at least 1, such as (1, 3, 224, 224)."
        )
    return sizes


def open_source(
    model: Any, shapes: tuple[Shape, ...], options: Mapping[str, Any] | None = None
) -> tuple[_Source, tuple[Shape, ...], str]:
    """Return the network that ``model`` stands for, the shapes to show it for (() if unknown), and its name."""
    is_file = isinstance(model, Path) or (isinstance(model, str) and model.endswith((".onnx", ".cvx")))
    if options and (is_file or not isinstance(model, str)):
        raise ConfigError(
            f"describe: {next(iter(options))}= came with a network that is built already; "
            "options are for names of convoxel.models.names()."
        )
    if is_file or _is_program(model):
        from convoxel.inspect.graph import GraphSource

        source = GraphSource(_read_graph(Path(model)), Path(model).name) if is_file else GraphSource(model.graph)
        return source, shapes or source.usual(), source.name
    name = model if isinstance(model, str) else type(model).__name__
    from_zoo = isinstance(model, str)
    if from_zoo:
        model, shapes = _from_zoo(model, shapes, dict(options or {}))
    from convoxel.inspect.trace import ModuleSource

    return ModuleSource(model, own=from_zoo), shapes, name


def _is_program(model: Any) -> bool:
    from convoxel.graph.ir.graph import Graph

    return isinstance(getattr(model, "graph", None), Graph)


def _read_graph(path: Path) -> Any:
    """Return the graph in a file: of an ONNX file as it is written, before any pass."""
    if path.suffix != ".onnx":
        from convoxel.graph.load import load

        return load(path).graph  # type: ignore[union-attr]  # a saved program is never specialised
    from convoxel.graph.read.onnx import open_model, read
    from convoxel.graph.read.reader import NeedsValue

    try:
        return read(open_model(path))[0]
    except NeedsValue as reason:
        raise UnsupportedError(
            f"describe: sizes in {path.name} depend on the values of {', '.join(sorted(reason.names))}. "
            "Export the network with those values fixed."
        ) from None


def _from_zoo(name: str, shapes: tuple[Shape, ...], options: dict[str, Any]) -> tuple[nn.Module, tuple[Shape, ...]]:
    """Return the network called ``name``, without weights, and the shape to show it for."""
    # The zoo stands above this package and builds on it; it is looked up only when a caller asks by name.
    models = importlib.import_module("convoxel.models")
    torch = importlib.import_module("torch")
    entry = models.entry(name)
    if shapes and not 3 <= len(shapes[0]) <= 5:
        raise ConfigError(
            f"describe: input shape {shapes[0]} has {len(shapes[0])} axes, but {name} takes "
            "(n, channels, *spatial) with 1, 2 or 3 spatial axes, such as (1, 3, 224, 224)."
        )
    dims = options.pop("dims", len(shapes[0]) - 2 if shapes else 2)
    channels = options.pop("in_channels", shapes[0][1] if shapes else entry.default("in_channels"))
    from convoxel.inspect.meta import shapes_only

    with torch.device("meta"), shapes_only():
        network = models.build(name, dims=dims, in_channels=channels, **options)
    return network, shapes or ((1, channels, *(entry.size[dims - 1],) * dims),)


def summarise(
    source: _Source, shapes: Sequence[Shape], name: str = "", object_size: int | Sequence[int] | None = None
) -> Summary:
    """Return the summary of a network that ``open_source`` opened; see :func:`describe`."""
    from convoxel.native.calibration import known_balance

    trace = source.trace(shapes)
    sights, remarks = look(trace)
    alive = live_bytes(trace)
    storages = {value.storage for value in trace.inputs}
    rows = []
    for step, live in zip(trace.steps, alive, strict=True):
        fresh = {v.storage: v.size_bytes for v in step.outputs if v.storage not in storages}
        storages |= fresh.keys()
        rows.append(
            Row(
                name=step.name,
                operator=step.operator,
                function=step.attributes.get("function", ""),
                output_shape=step.outputs[0].shape,
                kernel=step.attributes.get("kernel"),
                params=step.params,
                macs=_macs(step),
                activation_bytes=sum(fresh.values()),
                field=_reach(sights[step.outputs[0].key]),
                live_bytes=live,
                moved_bytes=_moved(step),
            )
        )
    dims = len(shapes[0]) - 2
    objects = (object_size,) * dims if isinstance(object_size, int) else tuple(object_size or ())
    return Summary(
        name=name or source.name,
        input_shapes=tuple(value.shape for value in trace.inputs),
        output_shapes=tuple(value.shape for value in trace.outputs),
        rows=tuple(rows),
        params=trace.params,
        peak_bytes=max(alive, default=0),
        field=_reach(sights[trace.outputs[0].key]) if trace.outputs else None,
        remarks=tuple(remarks),
        saved_bytes=saved_bytes(trace),
        warnings=advise(trace, sights, rows, objects, known_balance(), source.accepts),
        find_sizes=lambda: find_sizes(source.accepts, shapes, follow_axes(trace)),
    )


def _moved(step: Step) -> int:
    """Return the bytes of a step's operands, weights and results; nothing where only a view is made."""
    if {value.storage for value in step.outputs} <= {value.storage for value in step.inputs} and not step.weights:
        return 0
    values = {value.key: value for value in (*step.inputs, *step.outputs)}.values()
    item = step.outputs[0].size_bytes // max(math.prod(step.outputs[0].shape), 1)
    return sum(math.prod(value.shape) * item for value in values) + step.weights * item


def _macs(step: Step) -> int:
    attributes: Mapping[str, Any] = step.attributes
    source, result = step.inputs[0].shape, step.outputs[0].shape
    if step.operator in ("convolution", "transposed_convolution"):
        axes = len(attributes["kernel"])
        batched = len(source) == axes + 2
        channels = (source[-axes - 1], result[-axes - 1])
        count, sizes = (conv_macs, result) if step.operator == "convolution" else (transposed_macs, source)
        batch = source[0] if batched else 1
        return count(sizes[-axes:], *channels, attributes["kernel"], attributes["groups"], batch)
    if step.operator == "dense":
        return linear_macs(source[-1], result[-1], math.prod(result[:-1]))
    if step.operator == "matmul":
        return int(attributes["inner"]) * math.prod(result)
    return int(attributes.get("macs", 0))


def _reach(sight: Sight) -> Reach | None:
    if not sight.known or not sight.fields:
        return None
    fields = [sight.fields[axis] for axis in sorted(sight.fields)]
    return Reach(
        size=tuple(field.size for field in fields),
        stride=tuple(field.stride for field in fields),
        offset=tuple(field.offset for field in fields),
        whole=tuple(axis in sight.whole for axis in sorted(sight.fields)),
    )
