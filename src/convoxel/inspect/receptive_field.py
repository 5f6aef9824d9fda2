"""The part of the image that a tensor sees: one exact receptive field an image axis, carried along by every operator.

A tensor's axis shows positions of one image axis, of several (after a flatten), or of none (batch, channels). Some
operators see *every* position of an image axis: global pooling, a fully connected layer, instance normalisation. Such
axes are remembered as ``whole``, beside the local field, which stays that of the last feature map. Operators without a
rule make the field unknown rather than wrong.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from convoxel.arithmetic import Field, ResizeLike, join, through
from convoxel.fork import cached_property
from convoxel.graph.ir.size import Shape
from convoxel.graph.operators.reads import Aligned, Along, Reads, Unknown
from convoxel.inspect.record import Record
from convoxel.inspect.row import Reach

FEATURES = -1
"""Stands for values that are no positions of an image axis: images of a batch, channels."""

_BEHIND = "the receptive field is not known from here on"


class Factor(NamedTuple):
    """The meaning of a tensor's axis: ``size`` positions of an image axis, or other values (``FEATURES``)."""

    image: int
    size: int


@dataclass(frozen=True)
class TensorField:
    """The part of the image that the values of one tensor see.

    Attributes:
        axes: for each axis of the tensor what it runs over, the slowest first: several behind a flatten.
        fields: for each image axis, the field; of an axis that was summed over, the field before that.
        whole: image axes of which every position has an influence.
        known: whether every operator on the way had a rule.
    """

    axes: tuple[tuple[Factor, ...], ...]
    fields: Mapping[int, Field]
    whole: frozenset[int] = frozenset()
    known: bool = True

    @classmethod
    def of_input(cls, shape: Sequence[int]) -> TensorField:
        """Return the field of an input (n, c, *spatial): every position sees itself."""
        axes = tuple((Factor(axis - 2 if axis > 1 else FEATURES, size),) for axis, size in enumerate(shape))
        return cls(axes, {axis: Field.window() for axis in range(len(shape) - 2)})

    def image(self, axis: int) -> int | None:
        """Return the image axis that the tensor's ``axis`` is; None if it is none, or several values merged."""
        factors = [factor for factor in self.axes[axis] if factor.image != FEATURES or factor.size > 1]
        return factors[0].image if len(factors) == 1 and factors[0].image != FEATURES else None

    @cached_property
    def _images(self) -> tuple[frozenset[int], ...]:
        return tuple(frozenset(each.image for each in factors if each.image != FEATURES) for factors in self.axes)

    def images(self, axis: int) -> frozenset[int]:
        """Return the image axes whose positions the tensor's ``axis`` runs over."""
        return self._images[axis]

    def place(self, image: int) -> int | None:
        """Return the first of the tensor's axes that runs over positions of an image axis."""
        return next((axis for axis, images in enumerate(self._images) if image in images), None)

    @cached_property
    def is_clear(self) -> bool:
        """True if the fields tell all: they are known, and no axis mixes positions with other values.

        Values between the positions would give such an axis another stride.
        """
        found: list[int] = []
        for axis in range(len(self.axes)):
            images = self.images(axis)
            found += images - self.whole
            if axis > 1 and images and any(f.image == FEATURES and f.size > 1 for f in self.axes[axis]):
                return False
        return self.known and len(set(found)) == len(found)

    def resized(self, shape: Shape) -> TensorField:
        """Return the field of a tensor of ``shape`` whose axes run over the same."""
        axes = tuple(
            factors if _size(factors) == size else (Factor(_main(factors), size),)
            for factors, size in zip(self.axes, shape, strict=True)
        )
        return self if axes == self.axes else dataclasses.replace(self, axes=axes)

    @cached_property
    def reach(self) -> Reach | None:
        """The fields of the image axes as a row shows them; None where they do not tell all."""
        if not self.is_clear or not self.fields:
            return None
        fields = [self.fields[axis] for axis in sorted(self.fields)]
        return Reach(
            size=tuple(each.size for each in fields),
            stride=tuple(each.stride for each in fields),
            offset=tuple(each.offset for each in fields),
            whole=tuple(axis in self.whole for axis in sorted(self.fields)),
        )


def _size(factors: Sequence[Factor]) -> int:
    size = 1
    for factor in factors:
        size *= factor.size
    return size


def _main(factors: Sequence[Factor]) -> int:
    return max((factor.image for factor in factors), default=FEATURES)


def trace_fields(record: Record) -> tuple[dict[str, TensorField], list[str]]:
    """Return the field of every value by its name, and remarks on what is misaligned or unknown."""
    inputs = zip(record.graph.inputs, record.inputs, strict=True)
    fields = {value.name: TensorField.of_input(shape) for value, shape in inputs}
    remarks: list[str] = []
    for step in record.steps:
        seen = [fields.get(name) for name in step.node.inputs]
        move = _Move(step.name, seen, step.applied.inputs, remarks)
        for value, shape in zip(step.outputs, step.applied.outputs, strict=False):
            fields[value.name] = move.through(step.reads, shape)
    for name in record.outputs[:1]:
        if fields[name].known and not fields[name].is_clear and name in record.graph.producers:
            remarks.append(_merged(record.graph.producers[name].name))
    return fields, list(dict.fromkeys(remarks))


def _merged(name: str) -> str:
    return f"{name}: an image axis is merged with other values; {_BEHIND}"


class _Move:
    """Fields on their way through one operator."""

    def __init__(
        self, name: str, seen: Sequence[TensorField | None], shapes: Sequence[Shape | None], remarks: list[str]
    ) -> None:
        self.name, self.seen, self.shapes, self.remarks = name, seen, shapes, remarks
        self.known = all(field.known for field in seen if field is not None)

    def remark(self, text: str) -> None:
        """Say something about the operator, unless nothing is known anyway."""
        if self.known:
            self.remarks.append(f"{self.name}: {text}")

    def through(self, reads: Reads, shape: Shape) -> TensorField:
        """Return the field of a result of ``shape``."""
        x = next(field for field in self.seen if field is not None)
        if isinstance(reads, Along) and self.seen[0] is not None and len(x.axes) == len(shape):
            field = self._along(x, reads, shape)
        elif isinstance(reads, Aligned):
            field = self._aligned(reads, shape)
        elif isinstance(reads, Unknown | Along):
            of = reads.of if isinstance(reads, Unknown) else "an operand"
            self.remark(f"no rule for the receptive field of {of}; not known from here on")
            field = _kept(x, shape)
        else:
            field = self._regrouped(x, shape)
        return field if self.known or not field.known else dataclasses.replace(field, known=False)

    def _along(self, x: TensorField, reads: Along, shape: Shape) -> TensorField:
        if not reads.layers and not reads.whole:
            return x.resized(shape)
        fields, known = dict(x.fields), x.known
        whole = x.whole.union(*(x.images(axis) for axis in reads.whole))
        for axis, layer in reads.layers.items():
            if axis in reads.whole or not x.images(axis):
                continue
            image = x.image(axis)
            if image is None:
                self.remarks += [_merged(self.name)] if known and self.known else []
                known = False
                continue
            sizes = (_size(x.axes[axis]), *([shape[axis]] if isinstance(layer, ResizeLike) else []))
            taps = layer.taps(*sizes)[0]
            if taps is not None:
                fields[image] = through(fields[image], taps)
        return dataclasses.replace(x, fields=fields, whole=whole, known=known).resized(shape)

    def _aligned(self, reads: Aligned, shape: Shape) -> TensorField:
        axes: list[tuple[Factor, ...]] = []
        fields: dict[int, Field] = {}
        whole: frozenset[int] = frozenset()
        branches: dict[int, list[Field]] = {}
        known = True
        operands = [(x, labels) for x, labels in zip(self.seen, reads.operands, strict=False) if x is not None]
        for x, labels in operands:
            fields = {**x.fields, **fields}
            summed = [axis for axis, label in enumerate(labels) if label not in reads.result and label != reads.mixed]
            whole |= x.whole.union(*(x.images(axis) for axis in summed))
            if reads.mixed is not None and any(
                x.images(axis) and label == reads.mixed for axis, label in enumerate(labels)
            ):
                self.remark(f"{reads.mixing} along an image axis; {_BEHIND}")
                known = False
        for label, size in zip(reads.result, shape, strict=True):
            factors: tuple[Factor, ...] = (Factor(FEATURES, size),)
            for x, axis in _having(operands, label):
                images = x.images(axis)
                if images and _size(x.axes[axis]) == 1 < size:  # every position of the result sees the same
                    whole |= images
                    continue
                if images and _main(factors) == FEATURES:
                    factors = x.axes[axis]
                elif images and images != {factor.image for factor in factors} - {FEATURES}:
                    known = False
                for image in images:
                    branches.setdefault(image, []).append(x.fields[image])
            axes.append(factors)
        sizes = {factor.image: factor.size for factors in axes for factor in factors}
        for image, found in branches.items():
            fields[image] = self._united(image, found, sizes[image])
        return TensorField(tuple(axes), fields, whole, known).resized(shape)

    def _united(self, image: int, fields: Sequence[Field], size: int) -> Field:
        if len(fields) == 1:
            return fields[0]
        strides = {field.stride for field in fields}
        if len(strides) > 1:
            listed = ", ".join(map(str, sorted(strides)))
            self.remark(f"joins branches of different strides {listed} along axis {image}; they drift apart")
            return join(*fields, size=size)
        centres = {field.centre for field in fields}
        if len(centres) > 1:
            apart = max(centres) - min(centres)
            self.remark(f"joins branches whose centres lie {float(apart):g} apart along axis {image}")
        return join(*fields)

    def _regrouped(self, x: TensorField, shape: Shape) -> TensorField:
        """Follow the values: an axis of the result runs over as many of the operand's factors as it is long."""
        left = [factor for factors in x.axes for factor in factors]
        axes: list[tuple[Factor, ...]] = []
        known = x.known
        for size in shape:
            taken: list[Factor] = []
            while left and _size(taken) < size:
                factor, missing = left.pop(0), size // _size(taken)
                if factor.size > missing and factor.size % missing == 0 and factor.image == FEATURES:
                    left.insert(0, Factor(FEATURES, factor.size // missing))
                    factor = Factor(FEATURES, missing)
                taken.append(factor)
            if _size(taken) != size:
                self.remark(f"an image axis is cut into several; {_BEHIND}")
                return _kept(x, shape)
            axes.append(tuple(taken))
            # Axes of one position belong to what stands before them, or make an axis of their own.
            while left and left[0].size == 1 and not (left[0].image != FEATURES and _keeps_axes(left, axes, shape)):
                axes[-1] += (left.pop(0),)
        if left and axes:
            axes[-1] += tuple(left)
        return dataclasses.replace(x, axes=tuple(axes), known=known)


def _keeps_axes(left: Sequence[Factor], axes: Sequence[Sequence[Factor]], shape: Shape) -> bool:
    """Return True if the next axis of the result is as long as the next factor, so that it may be the same axis."""
    return len(axes) < len(shape) and shape[len(axes)] == left[0].size and len(left) == len(shape) - len(axes)


def _having(
    operands: Sequence[tuple[TensorField, Sequence[Hashable]]], label: Hashable
) -> list[tuple[TensorField, int]]:
    return [(x, axis) for x, labels in operands for axis, each in enumerate(labels) if each == label]


def _kept(x: TensorField, shape: Shape) -> TensorField:
    """Return an unknown field whose axes are taken for those of ``x`` where there are as many."""
    if len(x.axes) == len(shape):
        return dataclasses.replace(x, known=False).resized(shape)
    return TensorField(tuple((Factor(FEATURES, size),) for size in shape), {}, known=False)
