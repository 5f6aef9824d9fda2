"""Feature maps: the results of a network whose positions are places of the image, with their receptive fields."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from convoxel.arithmetic import Field
from convoxel.errors import ConfigError
from convoxel.inspect.receptive_field import TensorField
from convoxel.inspect.record import Record


class FeatureMap(NamedTuple):
    """A result with image axes: its layer, its spatial size, the receptive field along each axis.

    ``whole`` says whether every position sees the whole image beside its field.
    """

    layer: str
    size: tuple[int, ...]
    fields: tuple[Field, ...]
    whole: bool = False

    def place(self, at: Sequence[int] | None) -> tuple[int, ...]:
        """Return a position of the map: ``at``, or the one in the middle.

        Raises:
            ConfigError: it lies outside, or has another number of axes.
        """
        if at is None:
            return tuple(n // 2 for n in self.size)
        place = tuple(int(p) for p in at)
        if len(place) != len(self.size) or any(not 0 <= p < n for p, n in zip(place, self.size, strict=True)):
            last = tuple(n - 1 for n in self.size)
            raise ConfigError(f"at: got {place}; {self.layer} has positions from {(0,) * len(last)} to {last}.")
        return place

    def nearest(self, point: Sequence[float]) -> tuple[int, ...]:
        """Return the position whose field's centre is nearest to a point of the input.

        >>> FeatureMap("pool", (4,), (Field.window(2, stride=2),)).nearest((4.6,))
        (2,)
        """
        found = []
        for want, count, field in zip(point, self.size, self.fields, strict=True):
            rough = round((want - float(field.centre)) / float(field.stride))
            near = range(max(rough - field.period, 0), min(rough + field.period + 1, count)) or (count - 1,)
            seen = {position: field.at(position) for position in (*near, min(max(rough, 0), count - 1))}
            centres = {p: abs(sum(ends) / 2 - want) for p, ends in seen.items() if ends}
            found.append(min(centres, key=centres.__getitem__) if centres else min(max(rough, 0), count - 1))
        return tuple(found)

    def box(self, position: Sequence[int]) -> tuple[tuple[int, int], ...] | None:
        """Return the first and last input that a position sees along each axis; None where it sees none.

        Inputs before 0 or behind the end are padding.
        """
        ends = [field.at(p) for field, p in zip(self.fields, position, strict=True)]
        return None if None in ends else tuple(end for end in ends if end)


def feature_maps(record: Record, fields: Mapping[str, TensorField], layer: str | None = None) -> Iterator[FeatureMap]:
    """Yield the results of ``layer`` (default: of the network) that have image axes, the last one first.

    Args:
        record: a network as it was read.
        fields: receptive field of each value, as ``trace_fields`` returns them.
        layer: path of a layer; those within it count too.
    """
    dims = len(record.inputs[0]) - 2
    for step in reversed(record.steps):
        if not is_within(step.name, layer):
            continue
        seen = fields[step.outputs[0].name]
        axes = {image: axis for axis in range(len(seen.axes)) if (image := seen.image(axis)) is not None}
        if not seen.is_clear or len(axes) < dims:
            continue
        size = tuple(step.shape[axes[image]] for image in range(dims))
        if not (seen.whole and set(size) == {1}):  # a single position that sees everything is no map
            yield FeatureMap(step.name, size, tuple(seen.fields[image] for image in range(dims)), bool(seen.whole))


def is_within(name: str, layer: str | None) -> bool:
    """Return whether a step of this name belongs to a layer, or to the network (None)."""
    return layer is None or name == layer or name.startswith((f"{layer}.", f"{layer}:"))


def alignment(fields: Mapping[str, TensorField], dims: int) -> tuple[int, ...] | None:
    """Return by how many inputs an image may be cut along each axis so that every layer keeps its phase.

    None where a layer's stride is neither whole nor one of a whole number: then no cut keeps it.
    """
    steps = [1] * dims
    for seen in fields.values():
        for axis, field in seen.fields.items():
            stride = Fraction(field.stride)
            if 1 not in (stride.numerator, stride.denominator):
                return None
            steps[axis] = math.lcm(steps[axis], stride.numerator)
    return tuple(steps)
