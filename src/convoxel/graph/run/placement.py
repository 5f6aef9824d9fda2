"""Values that share memory, for given input sizes: concatenations and crops as views.

Every channels-last value is *fresh* (a native step writes it) or an *alias* (a range or a reshaping of
another value). A fresh value may be placed inside a wider one: the parts of a concatenation are written
straight into their slices of the result, and a result that needs no conversion straight into the caller's
array.

A value has at most one place. Places of fresh values point to values made later, aliases to values made
before them, and an alias is never placed, so following places always ends at a root that owns its memory.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType

from convoxel.graph.ir.graph import CHANNELS_FIRST, CHANNELS_LAST, Graph, Node, follow
from convoxel.graph.ir.size import Shape
from convoxel.graph.operators.table import OPERATORS
from convoxel.graph.operators.view import full, full_axis, narrow_view
from convoxel.graph.run.arena import Block, place_blocks
from convoxel.graph.run.storage import element_of
from convoxel.native import View
from convoxel.native.integer import word_count
from convoxel.native.plan import ELEMENT_BYTES

WORD_BYTES = 4
"""The unit in which the arena is divided: a float32."""


@dataclass(frozen=True)
class _Place:
    """A value's view is ``transform`` of the view of ``parent``."""

    parent: str
    transform: Callable[[View], View]


@dataclass
class Places:
    """The memory of every channels-last value. ``buffers`` numbers the arrays that steps address, from 1.

    ``elements`` are the types of the values that are not float32. Offsets in the arena and its size count words of 4
    bytes.
    """

    shapes: Mapping[str, Shape]
    buffers: dict[str, int]
    elements: Mapping[str, str]
    offsets: dict[str, int] = field(default_factory=dict)
    arena_size: int = 0
    _places: dict[str, _Place] = field(default_factory=dict)
    _views: dict[str, View] = field(default_factory=dict)

    def roots(self) -> Callable[[str], str]:
        """Return the function from a value to the one that owns its memory, once all places are known."""
        return follow({name: place.parent for name, place in self._places.items()})

    def view(self, name: str) -> View:
        """Return the view of the memory in which ``name`` lies, once all places are known."""
        chain = [name]
        while chain[-1] not in self._views and chain[-1] in self._places:
            chain.append(self._places[chain[-1]].parent)
        if chain[-1] not in self._views:
            self._views[chain[-1]] = self._whole(chain[-1])
        for inner, outer in pairwise(reversed(chain)):
            self._views[outer] = self._places[outer].transform(self._views[inner])
        return self._views[name]

    def _whole(self, root: str) -> View:
        buffer, element = self.buffers.get(root, 0), element_of(self.elements, root)
        offset = 0 if buffer else self.offsets[root] * WORD_BYTES // ELEMENT_BYTES[element]
        return View.dense(buffer, offset, full(self.shapes[root]), element)

    def is_placed(self, name: str, inside: str) -> bool:
        """Return whether ``name`` was given a place in ``inside`` itself."""
        return name in self._places and self._places[name].parent == inside

    def fills(self, name: str, whole: str) -> bool:
        """Return whether ``name`` lies in the memory of the array ``whole``, from its beginning."""
        view = self.view(name)
        return view.buffer == self.buffers[whole] and view.offset == 0

    def is_root(self, name: str) -> bool:
        """Return whether ``name`` has no place within another value yet."""
        return name not in self._places


def converts_freely(shape: Shape) -> bool:
    """Return whether channels first and channels last are the same order: one channel, or one position.

    >>> converts_freely((2, 1, 64, 64)), converts_freely((2, 64, 1, 1)), converts_freely((2, 3, 4, 4))
    (True, True, False)
    """
    return len(shape) < 3 or shape[1] == 1 or math.prod(shape[2:]) == 1


def place(
    graph: Graph,
    shapes: Mapping[str, Shape],
    sizes: Mapping[str, int],
    elements: Mapping[str, str] = MappingProxyType({}),
    arrange: Callable[[Mapping[str, Block]], tuple[dict[str, int], int]] = place_blocks,
) -> Places:
    """Return the places of all values of a graph whose layouts are assigned; ``elements`` are as in ``Places``.

    ``arrange`` gives blocks their offsets, and the arena its size.
    """
    places = Places(_stored(graph, shapes), _number_buffers(graph), elements)
    for node in graph.nodes:
        _place_alias(places, node, sizes)
    # From the last concatenation to the first, so that a short one that is part of a long one finds its parts placed.
    for node in reversed(graph.nodes):
        if node.runs("concat"):
            _place_parts(places, graph, node)
    for node in graph.nodes:
        if node.operator == "channels_first" and converts_freely(shapes[node.output.name]):
            source = node.inputs[0]
            while source in graph.producers and graph.producers[source].runs("reshape"):
                source = graph.producers[source].inputs[0]  # moves no numbers either
            if _is_fresh(graph, places, source):
                places._places[source] = _Place(node.output.name, _dense_as(full(shapes[source])))
    places.offsets, places.arena_size = arrange(_lifetimes(graph, places))
    return places


def _stored(graph: Graph, shapes: Mapping[str, Shape]) -> Mapping[str, Shape]:
    """Return the shapes in floats: those of levels have fewer channels, each of which holds several."""
    levels = [v.name for v in graph.values.values() if v.layout == CHANNELS_LAST and v.dtype == "uint8"]
    return {**shapes, **{name: (shapes[name][0], word_count(shapes[name][1]), *shapes[name][2:]) for name in levels}}


def _number_buffers(graph: Graph) -> dict[str, int]:
    """Number the arrays that native steps read or write: inputs, results, foreign values, constants."""
    names: dict[str, None] = {}
    for node in graph.nodes:
        if node.operator == "channels_last":
            names.setdefault(node.inputs[0])
        elif node.operator == "channels_first":
            names.setdefault(node.output.name)
        elif node.native:
            row = OPERATORS[node.operator]
            for index, name in enumerate(node.inputs):
                if name in graph.constants and not row.operand(index).constant:
                    names.setdefault(name)
    return {name: index for index, name in enumerate(names, start=1)}


def _dense_as(shape: tuple[int, int, int, int, int]) -> Callable[[View], View]:
    return lambda parent: View.dense(parent.buffer, parent.offset, shape, parent.element)


def _place_alias(places: Places, node: Node, sizes: Mapping[str, int]) -> None:
    row, source = OPERATORS[node.operator], node.inputs[0] if node.inputs else ""
    if node.native and row.alias is not None:
        alias, resolved, shape = row.alias, node.resolved(sizes), places.shapes[source]
        places._places[node.output.name] = _Place(source, lambda view: alias(resolved, shape, view))
    elif node.operator == "channels_last" and converts_freely(places.shapes[source]):
        places._places[node.output.name] = _Place(source, _dense_as(full(places.shapes[source])))


def _is_fresh(graph: Graph, places: Places, name: str) -> bool:
    """Return whether a native step writes ``name`` and its place is still free to choose."""
    value, maker = graph.values.get(name), graph.producers.get(name)
    return value is not None and maker is not None and value.layout == CHANNELS_LAST and places.is_root(name)


def _place_parts(places: Places, graph: Graph, node: Node) -> None:
    """Place the parts of a concatenation inside its result, or its result inside a longer one."""
    shape = places.shapes[node.output.name]
    axis, start = full_axis(node["axis"] % len(shape), len(shape)), 0
    if places.is_root(node.output.name) and _place_in_longer(places, graph, node, axis):
        return
    uses = Counter(node.inputs)
    for name in node.inputs:
        length = full(places.shapes[name])[axis]
        same = element_of(places.elements, name) == element_of(places.elements, node.output.name)
        if same and _is_fresh(graph, places, name) and uses[name] == 1:
            places._places[name] = _Place(node.output.name, _slice(axis, start, length))
        start += length


def _slice(axis: int, start: int, length: int) -> Callable[[View], View]:
    return lambda view: narrow_view(view, axis, start, length)


def _place_in_longer(places: Places, graph: Graph, node: Node, axis: int) -> bool:
    """Make the result a view of a longer concatenation that holds the same parts in the same order.

    Densely connected networks join the same features again and again, each time with one more.
    """
    for user in graph.users.get(node.inputs[0], ()):
        count = len(node.inputs)
        if user is node or not user.runs("concat") or user["axis"] != node["axis"] or len(user.inputs) <= count:
            continue
        start = 0
        for index, name in enumerate(user.inputs):
            if name == node.inputs[0] and user.inputs[index : index + count] == node.inputs:
                if element_of(places.elements, user.output.name) != element_of(places.elements, node.output.name):
                    break
                if all(places.is_placed(part, user.output.name) for part in node.inputs):
                    length = full(places.shapes[node.output.name])[axis]
                    places._places[node.output.name] = _Place(user.output.name, _slice(axis, start, length))
                    return True
                break
            start += full(places.shapes[name])[axis]
    return False


def _lifetimes(graph: Graph, places: Places) -> dict[str, Block]:
    """Return, for every root in the arena, its size and the first and last node that touch it."""
    spans: dict[str, tuple[int, int]] = {}
    root_of = places.roots()
    for index, node in enumerate(graph.nodes):
        for name in (*node.inputs, *(value.name for value in node.outputs)):
            value = graph.values.get(name)
            if value is None or value.layout == CHANNELS_FIRST:
                continue
            root = root_of(name)
            spans[root] = (spans.get(root, (index, index))[0], index)
    return {root: Block(_words(places, root), *span) for root, span in spans.items() if root not in places.buffers}


def _words(places: Places, name: str) -> int:
    return -(-math.prod(places.shapes[name]) * ELEMENT_BYTES[element_of(places.elements, name)] // WORD_BYTES)
