"""A network as a graph: its modules with shapes, parameters and receptive fields, and what flows between them.

Networks that go down in resolution and up again are drawn as a U: a row for each resolution, down on the left
and up on the right, with the skips across. All others are drawn in layers from top to bottom, in columns where
they would be too tall.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

from convoxel.draw.caption import EDGE, heading, legend
from convoxel.draw.figure import Figure
from convoxel.draw.layered_layout import layered
from convoxel.draw.letter import fit, text_width
from convoxel.draw.network_difference import Difference, difference
from convoxel.draw.network_heat import Heat, known_heat
from convoxel.draw.network_outline import Model, Node, Outline, Subject, outline, subject
from convoxel.draw.quantity import count, sizes
from convoxel.draw.scene import Box, Group, Look, Point, Shape, Words, arrow, bend, curve
from convoxel.errors import ConfigError, check_choice

_WIDTH, _HEIGHT, _JOIN = 262.0, 60.0, (104.0, 24.0)
_DOWN, _ACROSS = 24.0, 18.0
_SLOPE, _SIDE = 46.0, 56.0  # of a U: indent of each row, and room at its bottom
_ARC = 14.0  # by which the arrow of a shortcut leaves its box
_COLUMN = 980.0  # height at which another column begins
_KINDS = {
    "convolution": ("c7", "convolutions"),
    "transposed_convolution": ("c1", "up-convolution (transposed)"),
    "max_pool": ("c3", "pooling"),
    "average_pool": ("c3", "pooling"),
    "resize": ("c6", "resize"),
    "linear": ("c5", "fully connected"),
    "other": ("faint", "other"),
    "input": ("ink", "input"),
}
_CARD = Look(fill="page", stroke="rule", weight=1.25)
_EDGE = Look(stroke="faint", weight=1.4)
_SKIP = Look(stroke="c6", weight=1.8)
# Beside another network: what is new, what is gone, what is not as it was.
_STATES = {
    "same": (_CARD, _EDGE),
    "changed": (Look(fill="page", stroke="c1", weight=2.5), _EDGE),
    "added": (Look(fill="page", stroke="c3", weight=2.5), Look(stroke="c3", weight=2.2)),
    "removed": (Look(fill="page", stroke="c6", weight=2, dash=(6, 4)), Look(stroke="c6", weight=1.6, dash=(5, 4))),
}
_HEAT, _HOTTEST = "c1", 0.62  # opacity of the largest figure's colour, through which texts are read


def network(
    model: Model,
    shape: Sequence[int] | None = None,
    *,
    depth: int | None = None,
    part: str | None = None,
    heat: str | Heat | None = None,
    against: Model | None = None,
) -> Figure:
    """Return a network as a graph, with the shape, the parameters and the receptive field of every part.

    Args:
        model: a PyTorch module, a name of ``convoxel.models.names()``, an ``.onnx`` or ``.cvx`` file, or a program.
        shape: (n, channels, *spatial) of the input (default: a usual one, for networks of the zoo).
        depth: number of parts of a module's path that make a node (1: the network's own children; default: the
            largest that gives at most 24 nodes).
        part: path of a module, such as "layer1.0", of which alone the graph is (default: the whole network).
        heat: figure that colours the boxes: "params", "macs" or "bytes", or a measured one (default: none).
        against: another network for the same input: the graph shows both, and what ``model`` adds, changes and leaves
            out beside it (default: none).

    Raises:
        ConfigError: the name, the shape, the depth, the part or the heat is wrong.
        ShapeError: the network does not accept the shape.
        GraphError: the network cannot run without data.

    >>> network("resnet18", (1, 3, 64, 64), depth=1).title
    'resnet18 on 1 × 3 × 64 × 64'
    >>> network("resnet18", part="layer2.0").title
    'resnet18, layer2.0 on 64 × 56 × 56'
    """
    of = subject(model, shape)
    if against is not None:
        if part is not None or heat is not None:
            raise ConfigError("against: a graph of two networks has no part and no heat. Leave these out.")
        other = subject(against, of.record.inputs[0])
        return _joint(difference(other, of, depth), other, of)
    found = outline(of, depth, part=part)
    # A block that narrows and widens again, as squeeze and excitation do, is no U.
    placed = place(found, of.size) if part is None else _place_layers(found)
    params = f"{of.record.params if part is None else sum(node.params for node in found.nodes):,}".replace(
        ",", "\u202f"
    )
    said = [f"{params} parameters"]
    if found.nodes[-1].fields and part is None:
        said.append(f"every output: {found.nodes[-1].sees()}")
    title = f"{of.name} on {sizes(of.record.inputs[0])}"
    if part is not None:
        title = f"{of.name}, {part} on {sizes(found.nodes[0].shape[1:])}"
    known = known_heat(heat, of) if isinstance(heat, str) else heat
    marks = [] if known is None else [_Mark(heat=share, note=text) for share, text in known.shares(found.nodes)]
    used = dict.fromkeys(_KINDS[node.kind] for node in found.nodes if not node.joins)
    entries = [(Look(fill=role), word) for role, word in used if word != "input"]
    if known is not None:
        said.append(f"colour: {known.title}")
        most = max(marks, key=lambda mark: mark.heat).note
        entries.append((Look(fill=_HEAT, opacity=_HOTTEST), f"{known.title}: {most or 'none'} at most"))
    notes = [mark.note for mark in marks] or [""] * len(found.nodes)
    text = f"A graph of {len(found.nodes)} parts. " + " ".join(
        f"{node.name}: {', '.join(filter(None, (node.what(), _shape(node), note)))}."
        for node, note in zip(found.nodes, notes, strict=True)
    )
    return _page(title, ", ".join(said), text, placed, found, entries, marks)


def _joint(found: Difference, first: Subject, second: Subject) -> Figure:
    """Return the graph of two networks."""
    joint = found.outline
    placed = place(joint, second.size)
    marks = [
        _Mark(state, line=f"was {before}" if before else "")
        for state, before in zip(found.states, found.before, strict=True)
    ]
    looks = {number: _STATES[state][1] for number, state in enumerate(found.edges) if state != "same"}
    used = [state for state in _STATES if state in found.states]
    words = {"same": "as before", "changed": "changed", "added": "added", "removed": "removed"}
    entries = [(_STATES[state][0], words[state]) for state in used]
    title = f"{second.name} beside {first.name}, on {sizes(second.record.inputs[0])}"
    params = " → ".join(f"{of.record.params:,}".replace(",", "\u202f") for of in (first, second))
    text = f"A graph of both networks; of {len(joint.nodes)} parts, {found.told()}. " + " ".join(
        f"{node.name}: {state}{f', was {before}' if before else ''}."
        for node, state, before in zip(joint.nodes, found.states, found.before, strict=True)
        if state != "same"
    )
    return _page(title, f"{params} parameters; {found.told()}", text, placed, joint, entries, marks, looks)


def _page(
    title: str,
    line: str,
    text: str,
    placed: Placement,
    found: Outline,
    entries: Sequence[tuple[Look, str]],
    marks: Sequence[_Mark],
    looks: Mapping[int, Look] = MappingProxyType({}),
) -> Figure:
    head, wide, top = heading(title, [line])
    shapes, width, height = placed.shapes(found, EDGE, top + 14, marks, looks)
    told, least, bottom = legend(entries, height + 20, max(width, wide))
    return Figure(title, text, max(width, wide, least), bottom + EDGE - 8, (*head, *shapes, *told))


@dataclass(frozen=True)
class _Mark:
    """The look of a box beside its part.

    Attributes:
        state: a word of ``_STATES``, which is its outline.
        heat: share of the largest figure.
        note: figure in place of the parameters; None leaves these.
        line: words in place of the receptive field.
    """

    state: str = "same"
    heat: float = 0.0
    note: str | None = None
    line: str = ""


def place(found: Outline, size: Sequence[int]) -> Placement:
    """Return the places of the nodes of a network whose input has the spatial ``size``: a U, or layers."""
    levels = _levels(found, size)
    return _place_u(found, levels) if levels else _place_layers(found)


class Placement:
    """Nodes with their centres, and edges with the points that they pass.

    Edges leave and reach boxes upright, but for those of ``level``, the skips of a U, and those at its bottom,
    whose last node is ``turn``.
    """

    def __init__(
        self,
        centres: Sequence[Point],
        ways: Sequence[Sequence[Point]],
        level: frozenset[int] = frozenset(),
        turn: int | None = None,
    ) -> None:
        self.centres, self.ways, self.level, self.turn = centres, ways, level, turn

    def shapes(
        self, found: Outline, left: float, top: float, marks: Sequence[_Mark], looks: Mapping[int, Look]
    ) -> tuple[list[Shape], float, float]:
        """Return the picture's shapes, moved by (left, top), its width with its edge, and where it ends."""
        sizes = [node_size(node) for node in found.nodes]
        shapes = [shape for arrow in self.edges(found, looks) for shape in arrow]
        for number, (node, centre, size) in enumerate(zip(found.nodes, self.centres, sizes, strict=True)):
            shapes.append(_draw(node, centre, size, marks[number] if marks else _Mark()))
        rights = [
            x + w / 2 + _ARC * bool(node.merges)
            for (x, _), (w, _), node in zip(self.centres, sizes, found.nodes, strict=True)
        ]
        width = max(rights + [x for way in self.ways for x, _ in way])
        height = max(y + h / 2 for (_, y), (_, h) in zip(self.centres, sizes, strict=True))
        return [Group(tuple(shapes), moves=((left, top),))], left + width + EDGE, top + height

    def edges(self, found: Outline, looks: Mapping[int, Look] = MappingProxyType({})) -> list[list[Shape]]:
        """Return the arrow of every edge, in a look of ``looks`` by its number, or in the usual one."""
        sizes = [node_size(node) for node in found.nodes]
        return [
            self._edge(number, *ends, sizes, looks.get(number, _SKIP if number in self.level else _EDGE))
            for number, ends in enumerate(found.edges)
        ]

    def _edge(self, number: int, start: int, end: int, sizes: Sequence[Point], look: Look) -> list[Shape]:
        (x0, y0), (x1, y1) = self.centres[start], self.centres[end]
        if number in self.level:
            way = bend((x0 + sizes[start][0] / 2, y0), (x1 - sizes[end][0] / 2, y1), upright=False)
            return arrow(way, look)
        if start == self.turn:  # out of the bottom of a U to the right, then up
            return arrow(_corner((x0 + sizes[start][0] / 2, y0), (x1, y1 + sizes[end][1] / 2), (x1, y0)), look)
        if self.turn is not None and x1 - x0 > _WIDTH / 2 and y1 > y0:  # down, then to the right into it
            return arrow(_corner((x0, y0 + sizes[start][1] / 2), (x1 - sizes[end][0] / 2, y1), (x0, y1)), look)
        up = y1 < y0 and not self.ways[number]
        a = (x0, y0 - sizes[start][1] / 2) if up else (x0, y0 + sizes[start][1] / 2)
        b = (x1, y1 + sizes[end][1] / 2) if up else (x1, y1 - sizes[end][1] / 2)
        stops = [a, *self.ways[number], b]
        if self.ways[number] and self.ways[number][0][1] == math.inf:
            return arrow(_around(a, b, stops[1][0]), look)
        points: list[Point] = [a]
        for here, there in pairwise(stops):
            points += [point for point in bend(here, there)[1:] if point != points[-1]]
        # The last piece is upright, so that the head of the arrow is.
        tip = points[-1]
        neck = (tip[0], tip[1] + (8.0 if up else -8.0))
        return arrow((*points[:-1], neck, tip) if len(points) > 2 else points, look)


def _corner(a: Point, b: Point, corner: Point, radius: float = 18.0) -> tuple[Point, ...]:
    """Return the way from ``a`` to ``b`` round a corner."""
    towards = [
        (
            corner[0] + max(-radius, min(radius, end[0] - corner[0])),
            corner[1] + max(-radius, min(radius, end[1] - corner[1])),
        )
        for end in (a, b)
    ]
    return (a, *curve(towards[0], corner, towards[1], pieces=8), b)


def _around(a: Point, b: Point, x: float) -> tuple[Point, ...]:
    """Return the way from the end of a column to the top of the next, through the gap at ``x``."""
    room = _DOWN / 2
    return (a, (a[0], a[1] + room), (x, a[1] + room), (x, b[1] - room), (b[0], b[1] - room), b)


def node_size(node: Node) -> Point:
    """Return how wide and tall the box of a node is."""
    return _JOIN if node.joins else (_WIDTH, _HEIGHT)


def _shape(node: Node) -> str:
    return sizes(node.shape[1:]) if len(node.shape) > 1 else str(node.shape)


def _draw(node: Node, centre: Point, size: Point, mark: _Mark) -> Group:
    """Return the box of a node."""
    (x, y), (width, height) = centre, size
    left, top = x - width / 2, y - height / 2
    fact = {"node": node.name} | ({"state": mark.state} if mark.state != "same" else {})
    card = _STATES[mark.state][0]
    if node.joins:
        look = Look(fill="card", stroke="faint", weight=1.25) if mark.state == "same" else card
        word = Look(fill="ink", size=11, align="middle")
        pill = Box(left, top, width, height, height / 2, look=look, note=f"{node.name}: {_shape(node)}", data=fact)
        return Group((pill, Words(x, y + 4, fit(node.what(), width - 16, 11), look=word)))
    role, _ = _KINDS[node.kind]
    shape, sees = _shape(node), mark.line or node.sees() or ("" if node.kind == "input" else "field not known")
    params = f"{count(node.params)} params" if node.params else ""
    params = params if mark.note is None else mark.note
    inner = width - 24
    name = fit(node.name, inner - text_width(shape, 11) - 10, 12.5, bold=True)
    sees = fit(sees, inner - text_width(params, 10.5) - 8, 10.5)
    pale = "ink" if mark.heat else "soft"  # what is read through a colour
    soft, bold = Look(fill=pale, size=10.5), Look(fill="ink", size=12.5, bold=True)
    note = "; ".join(filter(None, (node.name, node.what(), shape, params, sees)))
    parts: list[Shape] = [
        Box(left, top, width, height, 7, look=card, note=note, data=fact),
        *_tint(left, top, width, height, mark),
        Box(left + 5, top + 7, 4, height - 14, 2, look=Look(fill=role)),
        Words(left + 15, top + 19, name, look=bold),
        Words(left + width - 9, top + 19, shape, look=Look(fill="ink", size=11, align="end")),
        Words(left + 15, top + 35, fit(node.what(), inner, 10.5), look=soft),
        Words(left + width - 9, top + 51, params, look=Look(fill=pale, size=10.5, align="end")),
        Words(left + 15, top + 51, sees, look=soft),
    ]
    if node.merges:  # a branch within the box that goes around layers
        x0, y0, y1 = left + width, y - 0.3 * height, y + 0.3 * height
        way = curve((x0, y0), (x0 + 16, y0), (x0 + 16, y1), (x0, y1), pieces=12)
        parts += arrow((*way[:-1], (x0 + 6, y1), (x0, y1)), _SKIP, head=5.0, note=node.what())
    return Group(tuple(part for part in parts if not isinstance(part, Words) or part.text))


def _tint(left: float, top: float, width: float, height: float, mark: _Mark) -> Iterator[Shape]:
    """Yield the colour of a box's figure, whose root makes small shares seen."""
    if mark.heat > 0:
        look = Look(fill=_HEAT, opacity=round(_HOTTEST * math.sqrt(mark.heat), 3))
        yield Box(left, top, width, height, 7, look=look, data={"heat": f"{mark.heat:.4g}"})


def _place_layers(found: Outline) -> Placement:
    """Return nodes in layers, wrapped into columns at layers that a single edge leads into."""
    sizes = [node_size(node) for node in found.nodes]
    laid = layered(sizes, found.edges, across=_ACROSS, down=_DOWN)
    columns = math.ceil(laid.height / _COLUMN)
    cuts = list(_cuts(found, laid.ranks))
    if columns == 1 or not cuts:
        return Placement(laid.places, laid.ways)
    starts = [0]
    top = {rank: y - _HEIGHT / 2 for rank, (_, y) in zip(laid.ranks, laid.places, strict=True)}
    for column in range(1, columns):
        wanted = laid.height * column / columns
        best = min(cuts, key=lambda rank: abs(top[rank] - wanted))
        if best > starts[-1]:
            starts.append(best)
    step = laid.width + 2 * _DOWN
    part = [sum(rank >= start for start in starts[1:]) for rank in laid.ranks]

    def moved(point: Point, column: int) -> Point:
        return point[0] + column * step, point[1] - top[starts[column]]

    centres = [moved(place, column) for place, column in zip(laid.places, part, strict=True)]
    ways: list[list[Point]] = []
    for (start, end), way in zip(found.edges, laid.ways, strict=True):
        if part[start] == part[end]:
            ways.append([moved(point, part[start]) for point in way])
        else:  # through the gap between the columns; see Placement._edge
            ways.append([(part[end] * step - _DOWN, math.inf)])
    return Placement(centres, ways)


def _cuts(found: Outline, ranks: Sequence[int]) -> Iterator[int]:
    """Yield the layers that a single edge leads into, past no other."""
    for rank in range(1, max(ranks) + 1):
        passing = [edge for edge in found.edges if ranks[edge[0]] < rank <= ranks[edge[1]]]
        if len(passing) == 1 and ranks[passing[0][1]] == rank and ranks.count(rank) == 1:
            yield rank


def _levels(found: Outline, size: Sequence[int]) -> list[int] | None:
    """Return how often each node's resolution was halved, if that rises by two or more and falls again."""
    levels: list[int] = []
    for node in found.nodes:
        spatial = node.shape[2:]
        if len(spatial) != len(size):
            return None
        scale = max(before / after for before, after in zip(size, spatial, strict=True))
        levels.append(max(0, round(math.log2(scale))))
    deepest = levels.index(max(levels))
    after = levels[deepest:]
    rises = all(a <= b for a, b in pairwise(levels[: deepest + 1]))
    falls = all(a >= b for a, b in pairwise(after))
    return levels if rises and falls and max(levels) - levels[-1] >= 2 else None


def _place_u(found: Outline, levels: Sequence[int]) -> Placement:
    """Return nodes as a U: the left arm goes down, the right one up, and each resolution is a row."""
    deepest = max(levels)
    turn = max(i for i, level in enumerate(levels) if level == deepest)
    arms: dict[tuple[bool, int], list[int]] = defaultdict(list)
    for index, level in enumerate(levels):
        arms[index > turn, level].append(index)
    sizes = [node_size(node) for node in found.nodes]

    def tall(nodes: Sequence[int]) -> float:
        return sum(sizes[node][1] for node in nodes) + _DOWN * max(len(nodes) - 1, 0)

    skips = [edge for edge in found.edges if edge[0] <= turn < edge[1] and edge[1] - edge[0] > 1]
    centres: list[Point] = [(0.0, 0.0)] * len(sizes)
    middle = deepest * _SLOPE + _WIDTH + _SIDE
    y = 0.0
    for level in range(deepest + 1):
        # The left arm goes down; the right one goes up, so its last node stands on top.
        left, right = arms[False, level], arms[True, level][::-1]
        heights = {node: sum(sizes[n][1] + _DOWN for n in arm[:place]) + sizes[node][1] / 2
                   for arm in (left, right) for place, node in enumerate(arm)}  # fmt: skip
        # The arms are shifted until the (first) skip of the row is level.
        shift = next((heights[b] - heights[a] for a, b in skips if a in left and b in right), 0.0)
        out = (deepest - level) * _SLOPE + (_WIDTH / 2 + _SIDE if level < deepest else 0.0)
        for nodes, x, lower in ((left, middle - out, max(shift, 0.0)), (right, middle + out, max(-shift, 0.0))):
            for node in nodes:
                centres[node] = (x, y + lower + heights[node])
        y += max(tall(left) + max(shift, 0.0), tall(right) + max(-shift, 0.0)) + 1.5 * _DOWN
    across = frozenset(number for number, edge in enumerate(found.edges) if edge in skips)
    return Placement(centres, [()] * len(found.edges), across, turn)


# The blocks of the lecture's networks: a network of the zoo, the usual shape of its input, and the path of the block.
BLOCKS: Mapping[str, tuple[str, tuple[int, ...], str]] = {
    "residual": ("resnet18", (1, 3, 224, 224), "layer1.0"),
    "residual, stride 2": ("resnet18", (1, 3, 224, 224), "layer2.0"),
    "bottleneck": ("resnet50", (1, 3, 224, 224), "layer1.1"),
    "inception": ("googlenet", (1, 3, 224, 224), "inception3a"),
    "dense": ("densenet121", (1, 3, 224, 224), "features.denseblock1"),
    "inverted residual": ("mobilenet_v2", (1, 3, 224, 224), "features.3"),
    "mbconv": ("efficientnet_b0", (1, 3, 224, 224), "features.2.1"),
    "u-net level": ("unet", (1, 1, 256, 256), "encoder.1"),
}


def block(name: str) -> Figure:
    """Return a block of the lecture's networks as a diagram for a slide.

    Args:
        name: "residual", "residual, stride 2", "bottleneck", "inception", "dense", "inverted residual", "mbconv" or
            "u-net level". Blocks of other networks: :func:`network` with ``part``.

    Raises:
        ConfigError: the name is not known.

    >>> block("inception").title
    'googlenet, inception3a on 192 × 28 × 28'
    """
    check_choice("name", name, tuple(BLOCKS))
    model, shape, part = BLOCKS[name]
    return network(model, shape, depth=9, part=part)
