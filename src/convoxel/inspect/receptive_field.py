"""What a tensor sees of the image: one exact receptive field an image axis, carried along by every operator.

A tensor's axis shows positions of one image axis, of several (after a flatten), or of none (batch, channels).
Some operators see *every* position of an image axis: global pooling, a fully-connected layer, instance
normalisation. Such axes are remembered as ``whole``, beside the local field, which stays that of the last
feature map. Operators without a rule make the sight unknown rather than wrong. Knows no framework.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from convoxel.arithmetic import (
    Field,
    compose,
    compose_adaptive,
    compose_resize,
    compose_slice,
    compose_transposed,
    join,
)
from convoxel.inspect.step import Step, Trace

__all__ = ["Sight", "look"]

_FEATURES = -1  # stands, in a tensor's axis, for values that lie between the positions of its image axes


@dataclass(frozen=True)
class Sight:
    """What the values of one tensor see.

    Attributes:
        axes: for each axis of the tensor, the image axes whose positions it runs over; −1 is among them where it
            runs over other values as well, as behind a flatten of channels and positions.
        fields: for each image axis, the field; of an axis that was summed over, the field before that.
        whole: image axes of which every position has an influence.
        known: whether every operator on the way had a rule.
    """

    axes: tuple[tuple[int, ...], ...]
    fields: Mapping[int, Field]
    whole: frozenset[int] = frozenset()
    known: bool = True

    @classmethod
    def of_input(cls, shape: Sequence[int]) -> Sight:
        """Return the sight of an input (n, c, *spatial): every position sees itself."""
        axes = ((), (), *((axis,) for axis in range(len(shape) - 2)))[: len(shape)]
        return cls(axes, {axis: Field.window() for axis in range(len(shape) - 2)})

    def seeing_all(self, axes: Sequence[int]) -> Sight:
        """Return the sight when all positions along the tensor's ``axes`` are combined."""
        image = {image for axis in axes for image in self.axes[axis] if image != _FEATURES}
        return dataclasses.replace(self, whole=self.whole | image)

    def through(self, axis: int, change: Callable[[Field], Field]) -> Sight:
        """Return the sight with the field along ``axis`` changed; a merged axis becomes unknown."""
        image = self.axes[axis]
        if not image:
            return self
        if len(image) > 1:
            return dataclasses.replace(self, known=False)
        return dataclasses.replace(self, fields={**self.fields, image[0]: change(self.fields[image[0]])})


def look(trace: Trace) -> tuple[dict[int, Sight], list[str]]:
    """Return the sight of every value by its key, and remarks on what is misaligned or unknown."""
    sights = {value.key: Sight.of_input(value.shape) for value in trace.inputs}
    remarks: list[str] = []
    for step in trace.steps:
        seen = [sights[value.key] for value in step.inputs]
        if step.operator == "split":
            sights.update(_split(step, seen[0]))
            continue
        rule = _RULES.get(step.operator)
        if rule is None and all(sight.known for sight in seen):
            what = step.attributes.get("function", step.operator)
            remarks.append(f"{step.name}: no rule for the receptive field of {what}; not known from here on")
        for value in step.outputs:
            if rule is None or not all(sight.known for sight in seen):
                sight = Sight(((),) * len(value.shape), {}, known=False)
            else:
                sight = rule(step, seen, remarks)
            if len(sight.axes) != len(value.shape):
                sight = Sight(((),) * len(value.shape), {}, known=False)
            sights[value.key] = sight
    return sights, remarks


Rule = Callable[[Step, Sequence[Sight], list[str]], Sight]


def _window(step: Step, seen: Sequence[Sight], remarks: list[str]) -> Sight:
    attributes = step.attributes
    rule = compose_transposed if step.operator == "transposed_convolution" else compose
    sight = seen[0]
    first = len(sight.axes) - len(attributes["kernel"])
    columns = (attributes[name] for name in ("kernel", "stride", "padding", "dilation"))
    for axis, (k, s, p, d) in enumerate(zip(*columns, strict=True), start=first):
        sight = sight.through(axis, lambda field, k=k, s=s, p=p, d=d: rule(field, k, s, p, d))  # type: ignore[misc]
    return sight


def _dense(step: Step, seen: Sequence[Sight], remarks: list[str]) -> Sight:
    sight = seen[0].seeing_all([-1])
    return dataclasses.replace(sight, axes=(*sight.axes[:-1], ()))


def _adaptive(step: Step, seen: Sequence[Sight], remarks: list[str]) -> Sight:
    sight = seen[0]
    before, after = step.inputs[0].shape, step.outputs[0].shape
    for axis in range(len(after) - step.attributes["axes"], len(after)):
        i, o = before[axis], after[axis]
        if o == 1:
            sight = sight.seeing_all([axis])
        else:
            sight = sight.through(axis, lambda field, i=i, o=o: compose_adaptive(field, i, o))  # type: ignore[misc]
    return sight


def _resize(step: Step, seen: Sequence[Sight], remarks: list[str]) -> Sight:
    attributes = step.attributes
    sight = seen[0]
    before, after = step.inputs[0].shape, step.outputs[0].shape
    for axis, scale in enumerate(attributes["scale"], start=2):
        i, o = before[axis], after[axis]
        if i == 1:  # every output is a copy of the one input
            sight = sight.seeing_all([axis])
            continue

        def resized(field: Field, i: int = i, o: int = o, scale: float | None = scale) -> Field:
            return compose_resize(field, i, o, attributes["mode"], attributes["align_corners"], scale)

        sight = sight.through(axis, resized)
    return sight


def _blocks(step: Step, seen: Sequence[Sight], remarks: list[str]) -> Sight:
    """Blocks of positions become channels: a window of the block; or channels become blocks: copies of a position."""
    sight = seen[0]
    for axis, b in enumerate(step.attributes["block"], start=len(sight.axes) - len(step.attributes["block"])):
        if step.operator == "space_to_depth":
            sight = sight.through(axis, lambda field, b=b: compose(field, b, b))  # type: ignore[misc]
        else:
            sight = sight.through(axis, lambda field, b=b: compose_resize(field, 1, b, "nearest"))  # type: ignore[misc]
    return sight


def _pad(step: Step, seen: Sequence[Sight], remarks: list[str]) -> Sight:
    sight = seen[0]
    for axis, (before, _) in enumerate(step.attributes["padding"]):
        sight = sight.through(axis, lambda field, start=-before: compose_slice(field, start))  # type: ignore[misc]
    return sight


def _narrow(step: Step, seen: Sequence[Sight], remarks: list[str]) -> Sight:
    sight = seen[0]
    for axis, (start, stride) in step.attributes["slices"].items():
        if stride < 1:
            return dataclasses.replace(sight, known=False)
        sight = sight.through(axis, lambda field, a=start, s=stride: compose_slice(field, a, s))  # type: ignore[misc]
    dropped = step.attributes.get("dropped", ())
    kept = tuple(image for axis, image in enumerate(sight.axes) if axis not in dropped)
    return dataclasses.replace(sight, axes=kept)


def _split(step: Step, sight: Sight) -> dict[int, Sight]:
    sights, start = {}, 0
    axis = step.attributes["axis"]
    for value in step.outputs:
        begin = start
        sights[value.key] = sight.through(axis, lambda field, a=begin: compose_slice(field, a))  # type: ignore[misc]
        start += value.shape[axis]
    return sights


def _pointwise(step: Step, seen: Sequence[Sight], remarks: list[str]) -> Sight:
    return seen[0] if len(seen) == 1 else _join(step, seen, remarks)


def _normalise(step: Step, seen: Sequence[Sight], remarks: list[str]) -> Sight:
    return seen[0].seeing_all(step.attributes["axes"])


def _reduce(step: Step, seen: Sequence[Sight], remarks: list[str]) -> Sight:
    axes = step.attributes["axes"]
    sight = seen[0].seeing_all(axes)
    if step.attributes["keep"]:
        return sight
    return dataclasses.replace(sight, axes=tuple(a for n, a in enumerate(sight.axes) if n not in axes))


def _permute(step: Step, seen: Sequence[Sight], remarks: list[str]) -> Sight:
    return dataclasses.replace(seen[0], axes=tuple(seen[0].axes[axis] for axis in step.attributes["order"]))


def _reshape(step: Step, seen: Sequence[Sight], remarks: list[str]) -> Sight:
    """Follow the axes: those whose sizes multiply to the same number belong together."""
    sight = seen[0]
    before, after = step.inputs[0].shape, step.outputs[0].shape
    axes: list[tuple[int, ...]] = []
    known = True
    for source, target in _segments(before, after):
        image = tuple(number for axis in source for number in sight.axes[axis])
        kinds = {bool(sight.axes[axis]) for axis in source if before[axis] > 1}
        if len(kinds) > 1 and _FEATURES not in image:
            image = (*image, _FEATURES)
        large = [axis for axis in target if after[axis] > 1]
        if len(large) > 1 and any(before[axis] > 1 and sight.axes[axis] for axis in source):
            known = False  # an image axis is cut into several
        place = large[0] if large else (target[-1] if target else -1)
        if sight.known and place > 1 and _FEATURES in image:
            # Such an axis is no longer one of the image: its stride depends on what lies between the positions.
            remarks.append(
                f"{step.name}: an image axis is merged with other values; the receptive field is not known from here on"
            )
            known = False
        axes += [image if axis == place else () for axis in target]
    return dataclasses.replace(sight, axes=tuple(axes), known=sight.known and known)


def _segments(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Cut both lists of axes into the finest parts of equal product."""
    parts: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        source, target = [], []
        left = right = 1
        if i < len(before):
            source.append(i)
            left, i = before[i], i + 1
        if j < len(after):
            target.append(j)
            right, j = after[j], j + 1
        while left != right:
            if (left < right and i < len(before)) or j >= len(after):
                source.append(i)
                left, i = left * before[i], i + 1
            else:
                target.append(j)
                right, j = right * after[j], j + 1
        if parts and not (source and target):  # axes of size 1 at the end
            parts[-1][0].extend(source)
            parts[-1][1].extend(target)
        else:
            parts.append((source, target))
    return parts


def _join(step: Step, seen: Sequence[Sight], remarks: list[str]) -> Sight:
    """Unite what the operands see, aligned at the last axis as broadcasting does."""
    shape = step.outputs[0].shape
    along = step.attributes.get("axis", -1) if step.operator == "concat" else -1
    rank = len(shape)
    axes: list[tuple[int, ...]] = [()] * rank
    whole = frozenset().union(*(sight.whole for sight in seen))
    branches: dict[int, list[tuple[Field, int]]] = {}
    fields: dict[int, Field] = {}
    for sight, value in zip(seen, step.inputs, strict=True):
        for image, field in sight.fields.items():
            fields.setdefault(image, field)
        for axis, images in enumerate(sight.axes, start=rank - len(sight.axes)):
            size = value.shape[axis - rank]
            if images and size == 1 and shape[axis] > 1:  # broadcast: every position sees the same
                whole |= frozenset(images) - {_FEATURES}
                continue
            if not axes[axis]:
                axes[axis] = images
            for image in set(images) - {_FEATURES}:
                branches.setdefault(image, []).append((sight.fields[image], shape[axis]))
    known = True
    for image, entries in branches.items():
        united = _united(step.name, image, [field for field, _ in entries], entries[0][1], remarks)
        fields[image] = united
    if along >= 0 and axes[along]:
        remarks.append(f"{step.name}: concatenation along an image axis; the receptive field is not known from here on")
        known = False
    return Sight(tuple(axes), fields, whole, known)


def _united(name: str, image: int, fields: Sequence[Field], size: int, remarks: list[str]) -> Field:
    strides = {field.stride for field in fields}
    if len(strides) > 1:
        listed = ", ".join(map(str, sorted(strides)))
        remarks.append(f"{name}: joins branches of different strides {listed} along axis {image}; they drift apart")
        return join(*fields, size=size)
    centres = {field.centre for field in fields}
    if len(centres) > 1:
        apart = max(centres) - min(centres)
        remarks.append(f"{name}: joins branches whose centres lie {float(apart):g} apart along axis {image}")
    return join(*fields)


_RULES: dict[str, Rule] = {
    "convolution": _window,
    "transposed_convolution": _window,
    "max_pool": _window,
    "average_pool": _window,
    "dense": _dense,
    "adaptive_pool": _adaptive,
    "resize": _resize,
    "depth_to_space": _blocks,
    "space_to_depth": _blocks,
    "pad": _pad,
    "narrow": _narrow,
    "batch_norm": _pointwise,
    "activation": _pointwise,
    "identity": _pointwise,
    "normalise": _normalise,
    "softmax": _normalise,
    "reduce": _reduce,
    "permute": _permute,
    "reshape": _reshape,
    "add": _join,
    "multiply": _join,
    "combine": _join,
    "concat": _join,
}
