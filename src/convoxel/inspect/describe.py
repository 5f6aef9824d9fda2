"""The public function: a network becomes a table of shapes, costs and receptive fields."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from convoxel.arithmetic.argument import per_axis
from convoxel.errors import ConfigError
from convoxel.graph.ir.size import Shape
from convoxel.inspect.advice import Evidence, advise
from convoxel.inspect.axis_graph import follow_axes
from convoxel.inspect.memory import MemoryPlan, saved_bytes
from convoxel.inspect.receptive_field import TensorField, trace_fields
from convoxel.inspect.record import Record, Source, Step, open_source
from convoxel.inspect.row import Row, merge_rows
from convoxel.inspect.summary import Summary
from convoxel.inspect.valid_sizes import find_sizes

if TYPE_CHECKING:
    from convoxel.inspect.record import Model

__all__ = ["checked_shapes", "describe", "summarise", "summarise_record"]


def describe(model: Model, *input_shapes: Sequence[int], object_size: int | Sequence[int] | None = None) -> Summary:
    """Return what every step of ``model`` does, costs and sees, for inputs of the given shapes.

    Nothing is computed and no memory taken: the network is read on shapes alone, in evaluation mode, and stays as it
    is. MACs are those of the direct algorithm, of layers with weights, recurrent ones included, and of matrix products,
    attention included (1 MAC = 2 FLOPs); operators whose MACs are not known are named (``uncounted``).
    Receptive fields are exact, through branches, skips, transposed convolutions and resizes, away from the
    image's borders (Araujo, Norris & Sim 2019, extended to axes that grow finer).

    Args:
        model: a PyTorch module, an ``.onnx`` or ``.cvx`` file, a compiled program, or a graph.
        *input_shapes: shape of each input (n, c, *spatial); a file shows its own where they are fixed.
        object_size: size of the objects to be found, along every image axis: a smaller field is warned of.

    Returns:
        A summary that prints as a table, has ``to_dict()`` and ``to_csv()``, and shows itself in notebooks.

    Raises:
        ConfigError: ``model`` is no network, or a shape is missing or malformed.
        ShapeError: the network does not accept the shape, and says which it would.
        GraphError: the network cannot run without data, or the file cannot be read.
        UnsupportedError: the file has operators that Convoxel does not know, or sizes that depend on values.

    >>> from torch import nn
    >>> summary = describe(nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2)), (1, 1, 32, 32))
    >>> summary.params, summary.macs, summary.field.size, str(summary.sizes)
    (40, 32400, (4, 4), '4 and more')
    """
    return summarise(open_source(model), checked_shapes(input_shapes), object_size=object_size)


def checked_shapes(shapes: Sequence[object]) -> tuple[Shape, ...]:
    """Return the shapes of inputs as tuples.

    Raises:
        ConfigError: one is no sequence of sizes of at least 1.
    """
    return tuple(map(_checked, shapes))


def _checked(shape: object) -> Shape:
    try:
        sizes = tuple(int(size) for size in shape)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise ConfigError(
            f"describe: {shape!r} is no input shape; "
            "a shape is a tuple of sizes of at least 1, such as (1, 3, 224, 224)."
        )
    return sizes


def summarise(
    source: Source, shapes: Sequence[Shape], name: str = "", object_size: int | Sequence[int] | None = None
) -> Summary:
    """Return the summary of a network that ``open_source`` opened; see :func:`describe`."""
    shapes = tuple(shapes) or source.usual()
    if not shapes:
        raise ConfigError(
            f"describe: {name or source.name} needs the shape of every input, {source.signature}. "
            "Give it after the model: describe(model, (1, 3, 224, 224))."
        )
    record = source.record(shapes)
    return summarise_record(source, record, trace_fields(record), name, object_size)


def summarise_record(
    source: Source,
    record: Record,
    traced: tuple[dict[str, TensorField], Sequence[str]],
    name: str = "",
    object_size: int | Sequence[int] | None = None,
) -> Summary:
    """Return the summary of a network that is recorded, with the receptive fields that ``trace_fields`` returned."""
    from convoxel.native.calibration import known_balance

    fields, remarks = traced
    plan, shapes = MemoryPlan(record), record.inputs
    rows = _rows(record, plan, fields)
    objects = () if object_size is None else per_axis("object_size", object_size, len(shapes[0]) - 2, 1)
    return Summary(
        name=name or source.name,
        input_shapes=record.inputs,
        output_shapes=tuple(record.shapes[output] for output in record.outputs),
        rows=rows,
        params=record.params,
        field=fields[record.outputs[0]].reach if record.outputs else None,
        remarks=tuple(remarks),
        saved_bytes=saved_bytes(record),
        warnings=advise(Evidence(record, fields, rows, objects, known_balance(), source.accepts)),
        find_peak=lambda: plan.peak_bytes,
        find_sizes=lambda: find_sizes(source.accepts, shapes, follow_axes(record, fields)),
    )


def _rows(record: Record, plan: MemoryPlan, fields: dict[str, TensorField]) -> tuple[Row, ...]:
    """Return a row for each call of a function, or for each step where calls are not known."""
    rows: list[Row] = []
    for (name, function), group in group_steps(record):
        parts = [_row(record, plan, number, record.steps[number], fields) for number in group]
        if len(parts) > 1:
            main = max(parts, key=lambda row: row.macs)
            kept = parts[-1].activation_bytes  # PyTorch keeps the last result alone
            whole = merge_rows(parts, name, main.operator)
            parts = [dataclasses.replace(whole, function=function, steps=1, activation_bytes=kept)]
        rows += parts
    return tuple(rows)


def group_steps(record: Record) -> list[tuple[tuple[str, str], list[int]]]:
    """Return the steps that become one row of a summary: the call's name and function, and the steps' numbers."""
    calls = [record.calls.get(step.name, (step.name, "")) for step in record.steps]
    return [(call, list(group)) for call, group in itertools.groupby(range(len(calls)), calls.__getitem__)]


def _row(record: Record, plan: MemoryPlan, number: int, step: Step, fields: dict[str, TensorField]) -> Row:
    fresh = sum(record.bytes_of(v.name) for v in step.outputs if record.storage[v.name] == v.name)
    item = record.bytes_of(step.outputs[0].name) // max(math.prod(step.shape), 1)
    touched = dict.fromkeys((*step.inputs, *(value.name for value in step.outputs)))
    # What is shown in another way, or changed where it lies by the step before it, is not moved.
    numbers = sum(math.prod(record.shapes[name]) for name in touched) + step.weights
    moved = item * numbers if fresh or step.weights else 0
    return Row(
        name=step.name,
        operator=step.operator,
        function=step.function,
        output_shape=step.shape,
        kernel=step.kernel,
        params=step.params,
        macs=step.macs,
        activation_bytes=fresh,
        field=fields[step.outputs[0].name].reach,
        moved_bytes=moved,
        counted=step.counted,
        stays=step.stays,
        find_live=lambda: plan.live_bytes[number],
    )
