"""Rows of a summary as data: what a step of a network does, costs and sees."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from convoxel.arithmetic import flops
from convoxel.files.values import JsonObject


def times(sizes: Sequence[int | Fraction]) -> str:
    """Return sizes as people write them."""
    return "×".join(map(str, sizes))


@dataclass(frozen=True)
class Reach:
    """The receptive field of a tensor, an entry an image axis.

    Attributes:
        size: inputs that one position sees, first to last.
        stride: inputs from one position to the next (a fraction on axes finer than the input).
        offset: where the field of position 0 starts; minus the padding that the positions before the input
            took.
        whole: whether, beside this local field, every position of the axis has an influence (global pooling,
            fully-connected layers, normalisation over the image).
    """

    size: tuple[int, ...]
    stride: tuple[int | Fraction, ...]
    offset: tuple[int | Fraction, ...]
    whole: tuple[bool, ...]

    def to_dict(self) -> dict[str, list[Any]]:
        """Return the fields as lists of numbers that JSON knows."""
        return {
            "size": list(self.size),
            "stride": [_number(value) for value in self.stride],
            "offset": [_number(value) for value in self.offset],
            "whole": list(self.whole),
        }

    def __str__(self) -> str:
        """Return for instance ``43/8``, or ``43×35/8×4`` where axes differ; ``+ whole`` where that holds."""
        same = len(set(zip(self.size, self.stride, strict=True))) == 1
        sizes, strides = (self.size[:1], self.stride[:1]) if same else (self.size, self.stride)
        text = times(sizes)
        if any(stride != 1 for stride in strides):
            text += f"/{times(strides)}"
        return f"{text} + whole" if any(self.whole) else text


@dataclass(frozen=True)
class Row:
    """One step of the network, or several in one line.

    Attributes:
        name: the layer's path in the module, or the path and the function.
        operator: the operator of the graph: convolution, average_pool, activation, add, …
        function: the word that says most: which activation, which function of PyTorch, or the operator.
        output_shape: (n, c, *spatial).
        kernel: size of the window, or None.
        params: parameters that no earlier row has used.
        macs: multiply-accumulates (1 MAC = 2 FLOPs).
        activation_bytes: memory that the step's results take; 0 for views and steps in place.
        field: receptive field, or None where it is not known or the step does not depend on an image.
        moved_bytes: operands, weights and results of the step together: what memory must bring and take.
        steps: how many steps the row stands for.
        counted: whether ``macs`` counts all of them; not known of operators that only PyTorch has.
        stays: whether it changes values where they are, so that a table need not list it by itself.
        find_live: finds ``live_bytes``.
    """

    name: str
    operator: str
    function: str
    output_shape: tuple[int, ...]
    kernel: tuple[int, ...] | None
    params: int
    macs: int
    activation_bytes: int
    field: Reach | None
    moved_bytes: int = 0
    steps: int = 1
    counted: bool = True
    stays: bool = False
    find_live: Callable[[], int] = dataclasses.field(default=lambda: 0, repr=False, compare=False)

    @property
    def live_bytes(self) -> int:
        """Activations in use while the step runs; see ``Summary.peak_bytes``."""
        return self.find_live()

    @property
    def intensity(self) -> float:
        """FLOPs for each byte moved: low where memory, not arithmetic, decides the time."""
        return flops(self.macs) / self.moved_bytes if self.moved_bytes else 0.0

    @property
    def word(self) -> str:
        """A name of the row for people."""
        return (self.function or self.operator).replace("_", " ")

    def to_dict(self) -> JsonObject:
        """Return the row as plain lists, numbers and strings."""
        return {
            "name": self.name,
            "operator": self.operator,
            "function": self.function,
            "output_shape": list(self.output_shape),
            "kernel": None if self.kernel is None else list(self.kernel),
            "params": self.params,
            "macs": self.macs,
            "counted": self.counted,
            "activation_bytes": self.activation_bytes,
            "live_bytes": self.live_bytes,
            "moved_bytes": self.moved_bytes,
            "intensity": self.intensity,
            "field": None if self.field is None else self.field.to_dict(),
        }


def merge_rows(rows: Sequence[Row], name: str, operator: str) -> Row:
    """Return one row for several that follow one another."""
    kernels = [row.kernel for row in rows if row.kernel is not None]
    return dataclasses.replace(
        rows[-1],
        name=name,
        operator=operator,
        function="",
        kernel=kernels[0] if len(kernels) == 1 else None,
        params=sum(row.params for row in rows),
        macs=sum(row.macs for row in rows),
        activation_bytes=sum(row.activation_bytes for row in rows),
        field=next((row.field for row in reversed(rows) if row.field is not None), None),
        find_live=lambda: max(row.live_bytes for row in rows),
        moved_bytes=sum(row.moved_bytes for row in rows),
        steps=sum(row.steps for row in rows),
        counted=all(row.counted for row in rows),
        stays=all(row.stays for row in rows),
    )


def _number(value: int | Fraction) -> int | float:
    return int(value) if value == int(value) else float(value)
