"""A network in outline: its modules as nodes with operators, shapes and receptive fields, and the edges between them.

The steps come from ``inspect``, which reads the network without data. Steps of one module become one node, as
far as they follow each other: a module that is called twice is two nodes, so that the outline never has a
cycle. Normalisations and activations belong to the layer before them.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from convoxel.arithmetic import Field
from convoxel.draw.quantity import sizes
from convoxel.errors import ConfigError
from convoxel.graph.ir.size import Shape
from convoxel.graph.operators.reads import Aligned, Along, Regrouped
from convoxel.inspect.feature_map import FeatureMap, feature_maps, is_within
from convoxel.inspect.receptive_field import TensorField, trace_fields
from convoxel.inspect.record import Record, Step
from convoxel.lookup import open_network

if TYPE_CHECKING:
    from torch import nn

_WORDS = {
    "convolution": "convolution", "transposed_convolution": "up-convolution", "linear": "fully connected",
    "max_pool": "max pooling", "average_pool": "average pooling", "adaptive_average_pool": "adaptive pooling",
    "adaptive_max_pool": "adaptive pooling", "resize": "resize", "concat": "concatenate", "reduce": "reduction",
    "batch_norm": "batch norm",
}  # fmt: skip
Model: TypeAlias = "nn.Module | str | Path | Subject"
_FEW = 24  # nodes that a reader can take in at once


@dataclass(frozen=True)
class Subject:
    """A recorded network: its name, its steps, and the receptive field of each value."""

    name: str
    record: Record
    seen: dict[str, TensorField]

    @property
    def size(self) -> tuple[int, ...]:
        """Spatial size of the (first) input."""
        return self.record.inputs[0][2:]

    def map(self, layer: str | None = None) -> FeatureMap:
        """Return the last result of ``layer`` (default: of the network) that has image axes.

        Raises:
            ConfigError: there is no such layer, or none of its results has positions of the image.
        """
        self.check_layer(layer)
        found = next(feature_maps(self.record, self.seen, layer), None)
        if found is not None:
            return found
        raise ConfigError(
            f"layer: {layer or self.name} has no result whose positions are known as places of the image. "
            "Give a layer before its pooling or reshaping."
        )

    def check_layer(self, layer: str | None) -> None:
        """Refuse the path of a layer that the network does not have.

        Raises:
            ConfigError: there is no such layer.
        """
        if not any(is_within(step.name, layer) for step in self.record.steps):
            paths = [step.name.split(".") for step in self.record.steps]
            names = list(dict.fromkeys(".".join(path[:count]) for path in paths for count in range(1, len(path) + 1)))
            near = difflib.get_close_matches(str(layer), names, n=1, cutoff=0.3) or names[-1:]
            raise ConfigError(f"layer: {self.name} has no layer {layer!r}; did you mean {near[0]!r}?")


def subject(model: Model, shape: Sequence[int] | None = None) -> Subject:
    """Return ``model``, recorded without data; arguments as of :func:`convoxel.draw.network`.

    A subject is returned as it is.

    Raises:
        ConfigError: the name is not known, or the shape is missing or malformed.
        ShapeError: the network does not accept the shape.
        GraphError: the network cannot run without data.

    >>> subject("resnet18").size
    (224, 224)
    """
    if isinstance(model, Subject):
        return model
    whole = None if shape is None else tuple(int(n) for n in shape)
    if whole is not None and (not 3 <= len(whole) <= 5 or min(whole) < 1):
        raise ConfigError(f"shape: got {whole}; expected (n, channels, *spatial), such as (1, 3, 224, 224).")
    source, shapes, name = open_network(model, (whole,) if whole else ())
    if not shapes:
        raise ConfigError(f"shape: {name} needs the shape of its input, such as shape=(1, 3, 224, 224).")
    record = source.record(shapes)
    return Subject(name, record, trace_fields(record)[0])


@dataclass(frozen=True)
class Node:
    """A part of a network.

    Attributes:
        name: the module's path, or what the step is.
        steps: in running order; empty for an input.
        shape: shape of the last result.
        fields: receptive field of the last result, an entry for each image axis; empty where it is not known.
        whole: every position sees the whole image beside that.
    """

    name: str
    steps: tuple[Step, ...]
    shape: tuple[int, ...]
    fields: tuple[Field, ...] = ()
    whole: bool = False

    @property
    def params(self) -> int:
        """Parameters of the part."""
        return sum(step.params for step in self.steps)

    @property
    def main(self) -> Step | None:
        """The one step that is not a normalisation or an activation; None if there are several, or none."""
        steps = [step for step in self.steps if not _is_folded(step)]
        return steps[0] if len(steps) == 1 else None

    @property
    def joins(self) -> bool:
        """True where the node does nothing but join branches."""
        return self.main is not None and isinstance(self.main.reads, Aligned) and len(self.main.inputs) > 1

    @property
    def merges(self) -> dict[str, int]:
        """The operators within the node that join branches, and how many there are of each: shortcuts."""
        if self.joins:
            return {}
        return dict(
            Counter(
                step.operator for step in self.steps if isinstance(step.reads, Aligned) and len(set(step.inputs)) > 1
            )
        )

    @property
    def kind(self) -> str:
        """The operator that matters most, "input", or "other"."""
        found = Counter(step.operator for step in self.steps)
        for operator in ("transposed_convolution", "convolution", "linear", "max_pool", "average_pool", "resize"):
            if found[operator]:
                return operator
        if any(isinstance(step.reads, Along) and step.reads.layers and step.reads.whole for step in self.steps):
            return "average_pool"
        return "other" if self.steps else "input"

    def what(self) -> str:
        """Return the operation in words."""
        if not self.steps:
            return "input of the network"
        step = self.main
        if step is not None:
            word = _WORDS.get(step.operator, step.function)
            text = f"{sizes(step.kernel)} {word}" if step.kernel else word
            stride = [window.s for window in step.windows]
            return f"{text}, stride {sizes(stride, short=True)}" if any(s != 1 for s in stride) else text
        found = Counter(step.operator for step in self.steps if not _is_folded(step))
        joins = sum(count for operator, count in self.merges.items() if operator == "add")
        parts = [_counted(found[operator], _WORDS[operator]) for operator in _WORDS if found[operator]][:2]
        parts += [_counted(joins, "shortcut")] * (joins > 0)
        return ", ".join(parts) or _WORDS.get(self.steps[0].operator, self.steps[0].operator)

    def sees(self) -> str:
        """Return its receptive field in words; empty where it is not known."""
        if not self.fields:
            return ""
        strides = [field.stride for field in self.fields]
        text = f"field {sizes([field.size for field in self.fields], short=True)}"
        if any(stride != 1 for stride in strides):
            text += f", stride {sizes(strides, short=True)}"
        return f"{text} + whole" if self.whole else text


@dataclass(frozen=True)
class Outline:
    """Nodes in running order, and edges as pairs of indices: the reader is the second."""

    name: str
    nodes: tuple[Node, ...]
    edges: tuple[tuple[int, int], ...]


def outline(
    of: Subject,
    depth: int | None = None,
    opened: Collection[str] = (),
    closed: Collection[str] = (),
    part: str | None = None,
) -> Outline:
    """Return a network's outline; ``depth`` as of :func:`convoxel.draw.network`.

    Args:
        of: the network.
        depth: number of parts of a module's path that make a node (default: the largest that gives few nodes).
        opened: paths of modules whose parts are nodes all the same.
        closed: paths of modules that are one node all the same.
        part: path of the module that is drawn alone (default: the whole network); paths are then those within it.

    Raises:
        ConfigError: ``depth`` is below 1, or there is no such part.

    >>> found = outline(subject("resnet18"), depth=1)
    >>> [node.name for node in found.nodes]
    ['input', 'conv1', 'maxpool', 'layer1', 'layer2', 'layer3', 'layer4', 'avgpool', 'fc']
    """
    if depth is not None and depth < 1:
        raise ConfigError(f"depth: got {depth}; expected at least 1.")
    if part is not None:
        of.check_layer(part)
    level = usual_depth(of, part) if depth is None else depth
    return _folded(of, level, opened, closed, part)


def usual_depth(of: Subject, part: str | None = None) -> int:
    """Return the largest depth that gives few nodes, at least 1."""
    deepest = max((step.name.count(".") + 1 for step in of.record.steps), default=1)
    levels = range(2, deepest + 1)
    return next((level - 1 for level in levels if len(_folded(of, level, part=part).nodes) > _FEW), deepest)


def _cut(name: str, depth: int, opened: Collection[str], closed: Collection[str]) -> str:
    """Return the path of the node that a step belongs to: the first that is not to be opened."""
    parts = name.partition(":")[0].split(".")
    for count in range(1, len(parts)):
        path = ".".join(parts[:count])
        if path in closed or (count >= depth and path not in opened):
            return path
    return ".".join(parts)


def _folded(
    of: Subject, depth: int, opened: Collection[str] = (), closed: Collection[str] = (), part: str | None = None
) -> Outline:
    record = of.record
    inputs = [value.name for value in record.graph.inputs]
    steps_drawn = [step for step in record.steps if is_within(step.name, part)]
    if part is not None:
        made = {value.name for step in steps_drawn for value in step.outputs}
        inputs = list(dict.fromkeys(source for step in steps_drawn for source in step.inputs if source not in made))
    groups: list[tuple[str, list[Step]]] = [("input", []) for _ in inputs]
    owner = {name: index for index, name in enumerate(inputs)}
    shapes: list[Shape] = [record.shapes[name] for name in inputs]
    for step in steps_drawn:
        name = _cut(step.name if part is None else step.name.removeprefix(f"{part}."), depth, opened, closed)
        sources = {owner[source] for source in step.inputs}
        if name == groups[-1][0] and groups[-1][1]:
            place = len(groups) - 1
        elif _is_folded(step) and len(sources) == 1 and groups[min(sources)][1] and len(step.inputs) == 1:
            place = min(sources)
        else:
            groups.append((name, []))
            shapes.append(())
            place = len(groups) - 1
        groups[place][1].append(step)
        for value in step.outputs:
            owner[value.name] = place
            shapes[place] = record.shapes[value.name]
    edges: dict[tuple[int, int], None] = {}
    for place, (_, steps) in enumerate(groups):
        for step in steps:
            edges.update({(owner[source], place): None for source in step.inputs if owner[source] != place})
    last = {place: of.seen.get(name) for name, place in owner.items()}
    nodes = [
        Node(name, tuple(steps), shape, *_seen(last.get(place)))
        for place, ((name, steps), shape) in enumerate(zip(groups, shapes, strict=True))
    ]
    return Outline(of.name, tuple(_renamed(nodes)), tuple(edges))


def _is_folded(step: Step) -> bool:
    """Return True if a step belongs to the layer before it: it moves no position."""
    return step.stays or isinstance(step.reads, Regrouped)


def _seen(field: TensorField | None) -> tuple[tuple[Field, ...], bool]:
    if field is None or not field.is_clear:
        return (), False
    return tuple(field.fields[axis] for axis in sorted(field.fields)), bool(field.whole)


def _renamed(nodes: Sequence[Node]) -> list[Node]:
    """Number the nodes that have the same name."""
    found: Counter[str] = Counter()
    renamed = []
    for node in nodes:
        found[node.name] += 1
        count = found[node.name]
        renamed.append(node if count == 1 else replace(node, name=f"{node.name}:{count}"))
    return renamed


def _counted(count: int, word: str) -> str:
    plural = word if word.endswith(("ing", "connected", "concatenate", "norm")) else f"{word}s"
    return word if count == 1 else f"{count} {plural}" if plural != word else f"{count} × {word}"
