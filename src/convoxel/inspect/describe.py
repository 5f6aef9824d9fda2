"""The public function: a network becomes a table of shapes, costs and receptive fields."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convoxel.arithmetic import conv_macs, linear_macs, peak_bytes, transposed_macs
from convoxel.errors import ConfigError, UnsupportedError
from convoxel.inspect.sight import Sight, look
from convoxel.inspect.step import Step, Trace
from convoxel.inspect.summary import Reach, Row, Summary
from convoxel.inspect.trace import trace_module

if TYPE_CHECKING:
    from torch import nn

__all__ = ["describe"]

Shape = Sequence[int]


def describe(model: nn.Module | str, *input_shapes: Shape) -> Summary:
    """Return what every step of ``model`` does, costs and sees, for inputs of the given shapes.

    Nothing is computed and no memory taken: the network runs on shapes alone, in eval mode, and stays as it
    is. MACs are those of the direct algorithm, of layers with weights and matrix products (1 MAC = 2 FLOPs).
    Receptive fields are exact, through branches, skips, transposed convolutions and resizes, away from the
    image's borders (Araujo, Norris & Sim 2019, extended to axes that grow finer).

    Args:
        model: a PyTorch module, or a name of ``convoxel.models.names()``.
        *input_shapes: shape of each input (n, c, *spatial). A zoo network shows a usual one unless told; its
            dims and in_channels follow from the shape.

    Returns:
        A summary that prints as a table, has ``to_dict()``, and shows itself in notebooks.

    Raises:
        ConfigError: the name is not known, or a shape is missing or malformed.
        ShapeError: the network does not accept the shape, and says which it would.
        GraphError: the network cannot run without data.

    >>> summary = describe("resnet18", (1, 3, 224, 224))
    >>> summary.params, summary.macs, summary.field.size
    (11689512, 1814073344, (435, 435))
    >>> describe("unet", (1, 1, 64, 64, 64)).field.size
    (204, 204, 204)
    """
    shapes = tuple(_checked(shape) for shape in input_shapes)
    name = model if isinstance(model, str) else type(model).__name__
    if isinstance(model, str):
        model, shapes = _from_zoo(model, shapes)
    if not shapes:
        raise ConfigError(
            f"describe: {name} needs the shape of every input, (n, channels, *spatial). "
            "Give it after the model: describe(model, (1, 3, 224, 224))."
        )
    return _summary(name, trace_module(model, shapes))


def _checked(shape: Any) -> tuple[int, ...]:
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


def _from_zoo(name: str, shapes: tuple[tuple[int, ...], ...]) -> tuple[nn.Module, tuple[tuple[int, ...], ...]]:
    """Return the network called ``name``, without weights, and the shape to show it for."""
    if name.endswith((".onnx", ".cvx")):
        raise UnsupportedError(
            f"describe: {name!r} is a file; only PyTorch modules and names of the zoo are read so far."
        )
    # The zoo stands above this package and builds on it; it is looked up only when a caller asks by name.
    models = importlib.import_module("convoxel.models")
    torch = importlib.import_module("torch")
    entry = models.entry(name)
    if not shapes:
        shapes = ((1, entry.default("in_channels"), *(entry.size[1],) * 2),)
    if not 3 <= len(shapes[0]) <= 5:
        raise ConfigError(
            f"describe: input shape {shapes[0]} has {len(shapes[0])} axes, but {name} takes "
            "(n, channels, *spatial) with 1, 2 or 3 spatial axes, such as (1, 3, 224, 224)."
        )
    with torch.device("meta"):
        return models.build(name, dims=len(shapes[0]) - 2, in_channels=shapes[0][1]), shapes


def _summary(name: str, trace: Trace) -> Summary:
    sights, remarks = look(trace)
    storages = {value.storage for value in trace.inputs}
    rows = []
    for step in trace.steps:
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
            )
        )
    return Summary(
        name=name,
        input_shapes=tuple(value.shape for value in trace.inputs),
        output_shapes=tuple(value.shape for value in trace.outputs),
        rows=tuple(rows),
        params=trace.params,
        peak_bytes=_peak(trace),
        field=_reach(sights[trace.outputs[0].key]) if trace.outputs else None,
        remarks=tuple(remarks),
    )


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
        return linear_macs(source[-1], result[-1], _product(result[:-1]))
    if step.operator == "matmul":
        return int(attributes["inner"]) * _product(result)
    return 0


def _product(sizes: Sequence[int]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product


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


def _peak(trace: Trace) -> int:
    """Return the most bytes alive at one step, all memory freed after the last step that touches it."""
    sizes: dict[int, int] = {}
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    moments = [
        (-1, trace.inputs),
        *((number, (*step.inputs, *step.outputs)) for number, step in enumerate(trace.steps)),
        (len(trace.steps), trace.outputs),
    ]
    for moment, values in moments:
        for value in values:
            sizes[value.storage] = value.size_bytes
            first.setdefault(value.storage, moment)
            last[value.storage] = moment
    return peak_bytes((size, first[storage], last[storage]) for storage, size in sizes.items())
