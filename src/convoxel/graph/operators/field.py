"""The receptive field of a tensor, and the contract of the rules by which operators change it.

A tensor's axis shows positions of one image axis, of several (after a flatten), or of none (batch, channels). Some
operators see *every* position of an image axis: global pooling, a fully connected layer, instance normalisation. Such
axes are remembered as ``whole``, beside the local field, which stays that of the last feature map.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from convoxel.arithmetic import Field
from convoxel.graph.ir.graph import Node
from convoxel.graph.ir.size import Shape

__all__ = ["FEATURES", "Applied", "FieldRule", "TensorField"]

FEATURES = -1
"""Stands, in a tensor's axis, for values that lie between the positions of its image axes."""


@dataclass(frozen=True)
class TensorField:
    """The part of the image that the values of one tensor depend on.

    Attributes:
        axes: for each axis of the tensor, the image axes whose positions it runs over; ``FEATURES`` is among them where
            it runs over other values as well, as behind a flatten of channels and positions.
        fields: for each image axis, the field; of an axis that was summed over, the field before that.
        whole: image axes of which every position has an influence.
        known: whether every operator on the way had a rule.
    """

    axes: tuple[tuple[int, ...], ...]
    fields: Mapping[int, Field]
    whole: frozenset[int] = frozenset()
    known: bool = True

    @classmethod
    def of_input(cls, shape: Sequence[int]) -> TensorField:
        """Return the field of an input (n, c, *spatial): every position sees itself."""
        axes = ((), (), *((axis,) for axis in range(len(shape) - 2)))[: len(shape)]
        return cls(axes, {axis: Field.window() for axis in range(len(shape) - 2)})

    @classmethod
    def unknown(cls, shape: Sequence[int]) -> TensorField:
        """Return the field of a tensor that some operator without a rule has made."""
        return cls(((),) * len(shape), {}, known=False)

    def seeing_all(self, axes: Sequence[int]) -> TensorField:
        """Return the field when all positions along the tensor's ``axes`` are combined."""
        image = {image for axis in axes for image in self.axes[axis] if image != FEATURES}
        return dataclasses.replace(self, whole=self.whole | image)

    def through(self, axis: int, change: Callable[[Field], Field]) -> TensorField:
        """Return the tensor's field with that along ``axis`` changed; a merged axis becomes unknown."""
        image = self.axes[axis]
        if not image:
            return self
        if len(image) > 1:
            return dataclasses.replace(self, known=False)
        return dataclasses.replace(self, fields={**self.fields, image[0]: change(self.fields[image[0]])})


@dataclass(frozen=True)
class Applied:
    """An operator applied to shapes: what the rules for receptive fields and for sizes along an axis are told.

    Attributes:
        node: the node; every size among its attributes is a number.
        inputs: the shapes of the operands, None where an optional one is absent.
        outputs: the shapes of the results.
    """

    node: Node
    inputs: Sequence[Shape | None]
    outputs: Sequence[Shape]


FieldRule = Callable[[Applied, Sequence[TensorField | None], list[str]], Sequence[TensorField]]
"""The fields of the results, from those of the operands (None for constants and absent ones, known otherwise).

The list takes remarks for people, each beginning with the node's name: on branches that drift apart, say. A rule that
cannot tell returns a field that is not ``known``; it is never wrong.
"""
