"""Which positions of its operands an operator reads, axis by axis: the rule of a row from which others follow.

One statement serves two questions: what the positions of a result see of the image (``inspect.receptive_field``), and
which sizes an axis has (``inspect.axis_graph``). It is one of four: ``Along`` (the axes stay, some pass through a layer
of ``arithmetic``), ``Aligned`` (several operands, or axes in another order), ``Regrouped`` (another shape of the same
numbers) and ``Unknown``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from convoxel.arithmetic import Adaptive, Layer, Pad, Window
from convoxel.graph.ir.graph import Node
from convoxel.graph.ir.size import Shape


@dataclass(frozen=True)
class Applied:
    """An operator applied to shapes.

    Attributes:
        node: the node; every size among its attributes is a number.
        inputs: the shapes of the operands, None where an optional one is absent.
        outputs: the shapes of the results.
    """

    node: Node
    inputs: Sequence[Shape | None]
    outputs: Sequence[Shape]

    @property
    def x(self) -> Shape:
        """The shape of the first operand."""
        shape = self.inputs[0]
        assert shape is not None
        return shape


@dataclass(frozen=True)
class Along:
    """Every axis of the results is that axis of the first operand.

    Attributes:
        layers: what axes pass through on the way; the others are copied position by position.
        whole: axes of which every position has an influence on every position of the result.
    """

    layers: Mapping[int, Layer] = field(default_factory=dict)
    whole: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Aligned:
    """Axes of equal label run side by side, as in Einstein's notation.

    A label that the result lacks is summed over; an axis of one position stands for all positions.

    Attributes:
        operands: the labels of the axes of each operand.
        result: the labels of the axes of the results.
        mixed: a label along which the result's positions are in another order, or one operand's behind another's.
        mixing: the word for that.
    """

    operands: Sequence[Sequence[Hashable]]
    result: Sequence[Hashable]
    mixed: Hashable = None
    mixing: str = "concatenation"


@dataclass(frozen=True)
class Regrouped:
    """The numbers of the first operand, in their order, in another shape."""


@dataclass(frozen=True)
class Unknown:
    """Positions that no rule knows, or that the values decide; ``of`` names what reads them."""

    of: str


Reads = Along | Aligned | Regrouped | Unknown
ReadsRule = Callable[[Applied], Reads]


class Blocks(Window):
    """Windows that do not overlap and fill the axis, which takes whole ones alone."""


class Steps(Window):
    """Every s-th position of a range."""


# ---- rules that several families share


def unchanged(applied: Applied) -> Reads:
    """Every position reads the same one of the first operand."""
    return Along()


def pointwise(applied: Applied) -> Reads:
    """Every position reads the same one of each operand, stretched as in arithmetic."""
    ranks = [len(shape or ()) for shape in applied.inputs]
    rank = len(applied.outputs[0])
    return Aligned([range(rank - each, rank) for each in ranks], range(rank))


def regrouped(applied: Applied) -> Reads:
    """A reshape."""
    return Regrouped()


def unknown(of: str = "") -> ReadsRule:
    """Return the rule of an operator whose results read what their values decide, or in no regular way."""
    return lambda applied: Unknown(of or applied.node.operator)


def over(applied: Applied, axes: Sequence[int], keep: bool | None = None) -> Reads:
    """Positions along ``axes`` read all of them: the axes stay, have one position (``keep``), or go (not ``keep``)."""
    rank = len(applied.x)
    gone = {axis % rank for axis in axes}
    if keep is None or keep:
        return Along({axis: Adaptive(1) for axis in gone} if keep else {}, frozenset(gone))
    return Aligned([range(rank)], [axis for axis in range(rank) if axis not in gone])


def pair(padding: tuple[int, int]) -> int | tuple[int, int]:
    """Return one number for the same padding on both sides.

    >>> pair((1, 1)), pair((0, 1))
    (1, (0, 1))
    """
    before, after = padding
    return before if before == after else (before, after)


def crop(length: int, part: slice, result: int) -> Layer | None:
    """Return the layer that takes ``part`` of an axis; None for all of it, or in reverse.

    >>> print(crop(10, slice(2, None), 8))
    pad-2:0
    """
    begin, _, step = part.indices(length)
    if step == 1:
        return None if result == length else Pad(-begin, result - length + begin)
    return Steps(1, step, (-begin, 0)) if step > 0 else None
