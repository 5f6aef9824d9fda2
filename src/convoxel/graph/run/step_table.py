"""The steps of a planned program, as rows and as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict

from convoxel.graph.ir.size import Shape
from convoxel.graph.run.execution import Execution, HostCall
from convoxel.native.machine import algorithms
from convoxel.native.precision import DIGITS

_UNITS = ("B", "KiB", "MiB", "GiB")


class StepRow(TypedDict):
    """One native step or call of an operator on arrays.

    ``type`` is the precision of the numbers that a convolution multiplies (the lowest one of a block), else ``stored``:
    the type in which the result is stored. ``bytes`` are those of the result.
    """

    name: str
    operator: str
    algorithm: str
    type: str
    stored: str
    shape: tuple[int, ...]
    macs: int
    bytes: int


class ProfileRow(StepRow):
    """A step that was measured."""

    time_s: float
    gflops: float


def step_rows(execution: Execution) -> list[tuple[str, StepRow]]:
    """Return (key into measured times, row) of every native step and call of an operator on arrays, in order."""
    nodes = {node.name: node for node in execution.graph.nodes}
    rows: list[tuple[str, StepRow]] = []
    steps = execution.plan.steps
    precisions = {row["name"]: row["precision"] for row in algorithms()}
    for part in execution.parts:
        if isinstance(part, HostCall):
            node = part.node
            label = node.attributes.get("label")
            shape = execution.shapes[node.outputs[0].name]
            kind, what = ("pytorch", str(label)) if label else ("numpy", node.operator)
            dtype = node.outputs[0].dtype
            rows.append((node.name, _row(node.name, kind, what, dtype, dtype, shape, 0, 4 * math.prod(shape))))
            continue
        for index in range(part.first, part.last):
            step = steps[index]
            found = nodes.get(step["name"])
            shape = execution.shapes[found.outputs[0].name] if found else ()
            macs = execution.macs.get(step["name"], 0)
            used = {precisions[name] for name in step["parts"] or [step["algorithm"]] if name in precisions}
            kind = "int8" if step["integers"] else min(used, key=DIGITS.__getitem__, default=step["element"])
            cells = (step["operator"], step["algorithm"], kind, step["element"])
            rows.append((str(index), _row(step["name"], *cells, shape, macs, step["bytes"])))
    return rows


def _row(
    name: str, operator: str, algorithm: str, kind: str, stored: str, shape: Shape, macs: int, size: int
) -> StepRow:
    return {
        "name": name, "operator": operator, "algorithm": algorithm, "type": kind, "stored": stored, "shape": shape,
        "macs": macs, "bytes": size,
    }  # fmt: skip


def draw_steps(execution: Execution) -> str:
    """Return the steps as text, one a line, below the memory and work of all together."""
    rows = [row for _, row in step_rows(execution)]
    memory, macs = execution.memory, sum(row["macs"] for row in rows)
    lines = [
        f"{execution.graph.name}: {len(rows)} steps, {macs / 1e9:.3f} GMAC",
        f"activations {binary(memory.arena_bytes)} instead of {binary(memory.activation_bytes)}, "
        f"weights {binary(memory.weight_bytes)}",
    ]
    shown = any(row["stored"] == "bfloat16" for row in rows)
    cells = [
        (
            row["name"],
            row["operator"],
            row["algorithm"],
            row["type"],
            *([row["stored"]] if shown else []),
            str(row["shape"] or ""),
            binary(row["bytes"]),
        )
        for row in rows
    ]
    return "\n".join([*lines, *draw_table(cells)])


def draw_table(cells: Sequence[tuple[str, ...]]) -> list[str]:
    """Return rows of text as lines with aligned columns, the last column to the right.

    >>> draw_table([("a", "conv", "8 B"), ("long", "add", "16 B")])
    ['  a     conv   8 B', '  long  add   16 B']
    """
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  " + "  ".join([*map(str.ljust, row[:-1], widths), row[-1].rjust(widths[-1])]).rstrip() for row in cells]


def binary(size: int) -> str:
    """Return a number of bytes in the unit that leaves it below 1024.

    >>> binary(512), binary(43_000_000)
    ('512 B', '41.0 MiB')
    """
    amount, unit = float(size), 0
    while amount >= 1024 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.1f} {_UNITS[unit]}" if unit else f"{size} B"
