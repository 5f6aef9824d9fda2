"""Operators restricted to a part of their result: what they read for it, and the node that computes just that part.

A *box* is a range of every axis of a tensor. The rule of a row takes the box that is asked for and returns the box that
it makes (perhaps a larger one), a box of each operand, and what changes about the node so that it makes the box from
those. The numbers have the bits that the whole result has there. Padding is therefore never moved: a window that
reaches beyond the image sees the layer's own padding, a window inside the image sees real neighbours.

Most rules follow from ``reads``; ``restrict`` is the rule of an operator whose attributes change, or whose sums are
taken in an order that depends on where a tensor begins. Positions of Winograd's tiles count from the first output, so
such a convolution is given a *grain*: its box begins at multiples of it, and all that its last tiles read comes along.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from convoxel.arithmetic import Adaptive
from convoxel.errors import UnsupportedError
from convoxel.files.values import Options
from convoxel.graph.ir.size import Shape
from convoxel.graph.operators.reads import Aligned, Along, Applied, ReadsRule
from convoxel.native.index_table import AxisTable, Taps


class Span(NamedTuple):
    """The positions ``first`` … ``stop`` − 1 of an axis. ``reader`` names the step that reads the whole axis, if one
    does."""

    first: int
    stop: int
    reader: str = ""

    @property
    def length(self) -> int:
        """The number of positions."""
        return self.stop - self.first

    def has(self, other: Span) -> bool:
        """Return whether all positions of ``other`` are among these."""
        return self.first <= other.first and other.stop <= self.stop

    def join(self, other: Span) -> Span:
        """Return the range that covers both."""
        return Span(min(self.first, other.first), max(self.stop, other.stop), self.reader or other.reader)

    def rounded(self, grain: int, size: int) -> Span:
        """Return the range with both ends moved outwards to multiples of ``grain``, or to the axis's end.

        >>> Span(5, 9).rounded(4, 10)
        Span(first=4, stop=10, reader='')
        """
        return self._replace(first=self.first // grain * grain, stop=min(size, -(-self.stop // grain) * grain))


Box = tuple[Span, ...]


def full_box(shape: Shape, reader: str = "") -> Box:
    """Return the box of a whole tensor; ``reader`` is noted on axes of more than one position."""
    return tuple(Span(0, size, reader if size > 1 else "") for size in shape)


@dataclass(frozen=True)
class Request:
    """A part of an operator's result.

    Attributes:
        applied: the operator applied to the whole tensors.
        box: the part that is asked for.
        grain: of each of the last axes, the number of positions that are computed together (default 1).
        memo: tables of the whole axes, kept for the next part of the same node.
    """

    applied: Applied
    box: Box
    grain: tuple[int, ...] = ()
    memo: list[Taps] = field(default_factory=list)

    @property
    def out(self) -> Shape:
        """The shape of the whole result."""
        return self.applied.outputs[0]

    def grains(self, axes: int) -> tuple[int, ...]:
        """Return the grain of each of the last ``axes`` axes."""
        return (1,) * (axes - len(self.grain)) + self.grain[max(len(self.grain) - axes, 0) :]


@dataclass(frozen=True)
class Restricted:
    """An operator restricted to a box.

    Attributes:
        box: the part of the result that it makes; it covers what was asked for.
        inputs: the part of each operand that it takes, None for a whole constant.
        attributes: those that change.
        operator: the operator that makes the part, where it is another one.
    """

    box: Box
    inputs: tuple[Box | None, ...]
    attributes: Options = field(default_factory=dict)
    operator: str = ""


RestrictRule = Callable[[Request], Restricted]


def refuse_part(reason: str) -> RestrictRule:
    """Return the rule of an operator that cannot make a part of its result with the same bits, and why."""

    def rule(request: Request) -> Restricted:
        raise UnsupportedError(reason)

    return rule


# ---- rules that follow from what an operator reads


def by_reads(reads: ReadsRule) -> RestrictRule:
    """Return the rule of an operator that keeps its attributes: it reads the same positions, or all of an axis."""

    def rule(request: Request) -> Restricted:
        found = reads(request.applied)
        if isinstance(found, Aligned):
            return _aligned(request, found)
        moved = (
            {axis for axis, layer in found.layers.items() if layer != Adaptive(1)} if isinstance(found, Along) else {0}
        )
        if moved:
            raise UnsupportedError("reads positions of its input that no rule knows")
        assert isinstance(found, Along)
        return _along(request, found)

    return rule


def _along(request: Request, reads: Along) -> Restricted:
    applied = request.applied
    whole = reads.whole | set(reads.layers)
    read = tuple(
        Span(0, size, applied.node.name if size > 1 else "") if axis in whole else span
        for axis, (size, span) in enumerate(zip(applied.x, request.box, strict=True))
    )
    # Statistics of all positions change each of them, so the whole result is as easily made as a part.
    box = tuple(
        each if axis in whole and size == each.length else span
        for axis, (size, each, span) in enumerate(zip(request.out, read, request.box, strict=True))
    )
    return Restricted(box, (read, *(_beside(box, request.out, shape) for shape in applied.inputs[1:])))


def _beside(box: Box, result: Shape, shape: Shape | None) -> Box | None:
    """Return the part of an operand that is stretched along its axes of size 1; None for one that is a plain list."""
    if shape is None or len(shape) != len(result):
        return None
    return tuple(Span(0, 1) if size == 1 else span for size, span in zip(shape, box, strict=True))


def _aligned(request: Request, reads: Aligned) -> Restricted:
    applied, name = request.applied, request.applied.node.name
    box = tuple(
        Span(0, size, name if size > 1 else "") if label == reads.mixed and axis != 1 else
        Span(0, size, span.reader) if label == reads.mixed else span
        for axis, (label, size, span) in enumerate(zip(reads.result, request.out, request.box, strict=True))
    )  # fmt: skip
    kept: dict[Hashable, Span] = dict(zip(reads.result, box, strict=True))

    def part(shape: Shape | None, labels: Sequence[Hashable]) -> Box | None:
        if shape is None:
            return None
        spans = []
        for size, label in zip(shape, labels, strict=True):
            span = kept.get(label)
            if span is None or label == reads.mixed:
                spans.append(Span(0, size, (name if span is None else span.reader) if size > 1 else ""))
            else:
                spans.append(Span(0, 1) if size == 1 else span)
        return tuple(spans)

    return Restricted(box, tuple(part(*each) for each in zip(applied.inputs, reads.operands, strict=True)))


# ---- windows and tables


def need_engine(request: Request) -> None:
    """Raise if NumPy adds up fractions for the operator: the order of its sums depends on the whole tensor's shape."""
    node = request.applied.node
    if not node.native and node.outputs[0].dtype.startswith("float"):
        raise UnsupportedError("runs in NumPy, whose order of sums depends on the size of the tensor")


class _Axis(NamedTuple):
    """One axis of a part: what is made, what is read, and the padding beyond what is read."""

    made: Span
    read: Span
    padding: tuple[int, int]


def part_of_window(
    span: Span, size: int, out: int, kernel: int, stride: int, low: int, dilation: int, grain: int = 1
) -> _Axis:
    """Return the part of an axis that a window makes, the part of the operand that it reads, and its padding there.

    Args:
        span: the outputs that are asked for.
        size, out: the lengths of the whole operand and the whole result.
        kernel, stride, low, dilation: the window; ``low`` is the padding in front of the whole operand.
        grain: outputs that are computed together from all that their windows read.

    >>> part_of_window(Span(4, 8), 16, 16, 3, 1, 1, 1)
    _Axis(made=Span(first=4, stop=8, reader=''), read=Span(first=3, stop=9, reader=''), padding=(0, 0))
    >>> part_of_window(Span(0, 3), 16, 16, 3, 1, 1, 1, grain=2)
    _Axis(made=Span(first=0, stop=4, reader=''), read=Span(first=0, stop=5, reader=''), padding=(1, 0))
    """
    made = span.rounded(grain, out)
    reach = (kernel - 1) * dilation + 1
    begin = made.first * stride - low
    end = (made.stop - 1) * stride - low + reach
    # The last tile of the whole result may go beyond its end, and reads what exists there.
    last = (-(-made.stop // grain) * grain - 1) * stride - low + reach
    if span.reader:
        read = Span(0, size, span.reader)
    else:
        first = min(max(begin, 0), size - 1)  # windows that lie in the padding take a position that they do not read
        read = Span(first, max(first + 1, min(last, size)))
    return _Axis(made, read, (read.first - begin, end - read.stop))


def part_of_tables(request: Request, rules: Sequence[AxisTable]) -> Restricted:
    """Return the part of an operator that weighs positions of each spatial axis by a table: rows of the tables."""
    need_engine(request)
    if not request.memo:
        sizes = zip(rules, request.applied.x[-len(rules) :], request.out[-len(rules) :], strict=True)
        request.memo.extend(rule.between(size, out) for rule, size, out in sizes)
    tables = request.memo
    lead = len(request.box) - len(tables)
    read, rows = list(request.box[:lead]), []
    for span, size, table in zip(request.box[lead:], request.applied.x[lead:], tables, strict=True):
        source, weight = table.source[span.first : span.stop], table.weight[span.first : span.stop]
        used = source[source >= 0]
        first, stop = (int(used.min()), int(used.max()) + 1) if used.size else (0, 1)
        if span.reader:
            first, stop = 0, size
        read.append(Span(first, stop, span.reader))
        moved = np.where(source >= 0, source - first, -1).astype(np.int32)
        rows.append(Taps(np.ascontiguousarray(moved), np.ascontiguousarray(weight)))
    return Restricted(request.box, (tuple(read),), {"tables": tuple(rows)}, "resample")


def part_of_blocks(span: Span, block: int) -> tuple[Span, Span]:
    """Return the whole blocks of positions that cover a range, and the places of those blocks."""
    first, stop = span.first // block, -(-span.stop // block)
    return Span(first * block, stop * block, span.reader), Span(first, stop, span.reader)


def part_of_groups(request: Request) -> tuple[Box, Box]:
    """Return the parts of result and operand of a reshape: axes that stay are restricted, merged ones are whole.

    Raises:
        UnsupportedError: an axis that is merged or split would have to be restricted.
    """
    before, after, name = request.applied.x, request.out, request.applied.node.name
    made, read = list(full_box(after)), list(full_box(before))
    i = j = 0
    while i < len(before) or j < len(after):
        left, right = [i], [j]
        sizes = [before[i] if i < len(before) else 1, after[j] if j < len(after) else 1]
        i, j = i + 1, j + 1
        while sizes[0] != sizes[1]:
            if sizes[0] < sizes[1]:
                sizes[0] *= before[i]
                left, i = [*left, i], i + 1
            else:
                sizes[1] *= after[j]
                right, j = [*right, j], j + 1
        one = [axis for axis in left if axis < len(before) and before[axis] > 1]
        other = [axis for axis in right if axis < len(after) and after[axis] > 1]
        if len(one) == len(other) == 1:
            read[one[0]] = made[other[0]] = request.box[other[0]]
            continue
        asked = next((request.box[axis].reader for axis in other if request.box[axis].reader), "")
        cut = any(request.box[axis].length < after[axis] for axis in other)
        for axis in one:
            read[axis] = Span(0, before[axis], asked or (name if cut or len(one) > 1 else ""))
        for axis in other:
            made[axis] = Span(0, after[axis], asked)
    return tuple(made), tuple(read)


def lengths(box: Box) -> Shape:
    """Return the number of positions along each axis."""
    return tuple(span.length for span in box)
