"""A layout of directed graphs without cycles, in layers from top to bottom (Sugiyama et al. 1981).

The layer of a node is the length of its longest path from a source. An edge over several layers gets a place in each
of them, so that it goes around nodes; edges from one node share these places, as a bundle. Within a layer, nodes are
ordered by the mean place of their neighbours. Then each layer is put as near to its neighbours as the room between
nodes allows, which is an isotonic regression. Networks are nearly in order from the start and few nodes are drawn, so a
finer method would make no visible difference.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

_SWEEPS = 12
_STRAIGHT = 4.0  # weight of an edge over several layers, which should not zigzag
_BEND, _APART = 6.0, 9.0  # room that a bundle takes in a layer that it passes through, and beside it

Point = tuple[float, float]
Size = tuple[float, float]


@dataclass(frozen=True)
class Layout:
    """The places of nodes and edges.

    Attributes:
        places: the centre of every node.
        ways: for each edge, the points that it passes between its ends: where it leaves the layer of its start, where
            it enters and leaves each layer between, and where it enters that of its end. In a layer it is upright.
        ranks: the layer of every node.
        width: of everything.
        height: of everything.
    """

    places: tuple[Point, ...]
    ways: tuple[tuple[Point, ...], ...]
    ranks: tuple[int, ...]
    width: float
    height: float


def layered(sizes: Sequence[Size], edges: Sequence[tuple[int, int]], *, across: float, down: float) -> Layout:
    """Return a layout of nodes of ``sizes`` (width, height); every edge goes from a lower to a higher number.

    Args:
        sizes: sizes of the nodes, in an order in which no edge goes back.
        edges: pairs of indices.
        across: room between neighbours of a layer.
        down: room between layers.

    >>> found = layered([(20, 10)] * 4, [(0, 1), (0, 2), (1, 3), (2, 3)], across=10, down=10)
    >>> found.ranks, found.places[0]
    ((0, 1, 1, 2), (25.0, 5.0))
    """
    ranks = [0] * len(sizes)
    for start, end in sorted(edges, key=lambda edge: edge[1]):
        ranks[end] = max(ranks[end], ranks[start] + 1)
    widths = [width for width, _ in sizes]
    layers: dict[int, list[int]] = defaultdict(list)
    for node, rank in enumerate(ranks):
        layers[rank].append(node)
    links: dict[tuple[int, int], float] = {}
    passing: dict[tuple[int, int], int] = {}
    chains = []
    for start, end in edges:
        chain = [start]
        for rank in range(ranks[start] + 1, ranks[end]):
            if (start, rank) not in passing:
                passing[start, rank] = len(widths)
                layers[rank].append(len(widths))
                widths.append(_BEND)
            chain.append(passing[start, rank])
        chain.append(end)
        links.update({pair: _STRAIGHT if len(chain) > 2 else 1.0 for pair in pairwise(chain)})
        chains.append(chain)
    joined = [(a, b, weight) for (a, b), weight in links.items()]
    rows = [layers[rank] for rank in sorted(layers)]
    _order(rows, joined)
    xs = _spread(rows, joined, widths, lambda a, b: across if max(a, b) < len(sizes) else _APART)
    bands, y = [], 0.0
    for row in rows:
        tall = max((sizes[node][1] for node in row if node < len(sizes)), default=0.0)
        bands.append((y, y + tall))
        y += tall + down
    left = min(x - widths[node] / 2 for node, x in xs.items())
    right = max(x + widths[node] / 2 for node, x in xs.items())
    level = {node: rank for rank, row in enumerate(rows) for node in row}
    place = {node: (x - left, sum(bands[level[node]]) / 2) for node, x in xs.items()}

    def way(chain: Sequence[int]) -> tuple[Point, ...]:
        ends = [(place[node][0], edge) for node in chain for edge in bands[level[node]]]
        return tuple(ends[1:-1])

    return Layout(
        tuple(place[node] for node in range(len(sizes))), tuple(map(way, chains)), tuple(ranks), right - left, y - down
    )


def _order(rows: list[list[int]], links: Sequence[tuple[int, int, float]]) -> None:
    """Order each layer by the mean place of its neighbours, downwards and upwards in turn."""
    above, below = defaultdict(list), defaultdict(list)
    for a, b, _ in links:
        above[b].append(a)
        below[a].append(b)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        neighbours = above if down else below
        for index in range(1, len(rows)) if down else range(len(rows) - 2, -1, -1):
            beside = {node: place for place, node in enumerate(rows[index - 1 if down else index + 1])}
            own = {node: place for place, node in enumerate(rows[index])}
            means = {
                node: sum(beside[n] for n in neighbours[node]) / len(neighbours[node])
                if neighbours[node]
                else own[node]
                for node in rows[index]
            }
            rows[index].sort(key=lambda node: means[node])


def _spread(
    rows: Sequence[Sequence[int]], links: Sequence[tuple[int, int, float]], widths: Sequence[float],
    room: Callable[[int, int], float],
) -> dict[int, float]:  # fmt: skip
    """Return the x of every node: as near to the mean of its neighbours as its layer allows."""
    pull: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for a, b, weight in links:
        pull[a].append((b, weight))
        pull[b].append((a, weight))
    xs: dict[int, float] = {}
    for row in rows:
        x = -sum(widths[node] + _APART for node in row) / 2
        for node in row:
            xs[node] = x + widths[node] / 2
            x += widths[node] + _APART
    for sweep in range(_SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wanted = []
            for node in row:
                total = sum(weight for _, weight in pull[node])
                wanted.append(sum(xs[n] * weight for n, weight in pull[node]) / total if total else xs[node])
            gaps = [(widths[a] + widths[b]) / 2 + room(a, b) for a, b in pairwise(row)]
            xs.update(zip(row, _apart(wanted, gaps), strict=True))
    return xs


def _apart(wanted: Sequence[float], gaps: Sequence[float]) -> list[float]:
    """Return the places nearest to ``wanted`` (least squares) with at least ``gaps`` between them.

    >>> _apart([0.0, 0.0], [10.0])
    [-5.0, 5.0]
    """
    shift = [0.0]
    for gap in gaps:
        shift.append(shift[-1] + gap)
    blocks: list[tuple[float, int]] = []  # mean and number of neighbours that touch
    for want, offset in zip(wanted, shift, strict=True):
        mean, count = want - offset, 1
        while blocks and blocks[-1][0] > mean:
            other, more = blocks.pop()
            mean, count = (mean * count + other * more) / (count + more), count + more
        blocks.append((mean, count))
    flat = [mean for mean, count in blocks for _ in range(count)]
    return [place + offset for place, offset in zip(flat, shift, strict=True)]
