"""Exact tiling along one axis: a large input in parts whose outputs together equal those of the whole.

An output of a tile is right if all positions that it depends on, in any layer, lie within the tile: inputs, and also
the padding of inner layers. Tiles must begin where the pattern of strides repeats, so that every layer of a
tile sees what it sees in the whole, moved. Both follow from taps, with no estimate. Nothing here runs a network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from convoxel.arithmetic.axis import Graph, Node
from convoxel.arithmetic.layer import Pad
from convoxel.arithmetic.solve import solve_inputs
from convoxel.arithmetic.taps import Taps
from convoxel.errors import ShapeError
from convoxel.files.fault import brief

_MOST_TILES = 10**6


@dataclass(frozen=True)
class Part:
    """One tile of a whole.

    Attributes:
        input: range (first, stop) of the whole input that the tile holds.
        output: range (first, stop) of the whole output that the tile gives.
        crop: position of that range in the tile's own output.
    """

    input: tuple[int, int]
    output: tuple[int, int]
    crop: tuple[int, int]

    def __str__(self) -> str:
        return f"in {self.input[0]}:{self.input[1]} → out {self.output[0]}:{self.output[1]}"


@dataclass(frozen=True)
class Tile:
    """A way to cut an axis into tiles so that nothing changes.

    Attributes:
        graph: the network along the axis.
        size: inputs of a tile.
        multiple: inputs of which the beginnings of tiles are multiples.
        stride: inputs from one output to the next.
        shift: first of the inputs that output 0 stands for: as many as the stride, around the centre of its field.
        inside: range (first, stop) of the tile's outputs that are right when both its ends are cuts.
        equation: distance of the beginnings of tiles, in words.
    """

    graph: Graph
    size: int
    multiple: int
    stride: Fraction
    shift: Fraction
    inside: tuple[int, int]
    equation: str

    @property
    def halo(self) -> tuple[Fraction, Fraction]:
        """Inputs before and after those that its right outputs stand for, which a tile needs as well."""
        first, stop = self.inside
        return first * self.stride + self.shift, self.size - stop * self.stride - self.shift

    @property
    def advance(self) -> int:
        """Inputs from the beginning of one tile to that of the next."""
        first, stop = self.inside
        return math.floor((stop - first) * self.stride / self.multiple) * self.multiple

    def cover(self, size: int) -> tuple[Part, ...]:
        """Return tiles that give every output of an input of ``size`` once; the last may be shorter by less than M.

        Raises:
            ShapeError: the network does not take ``size``, or not the last tile's, or pads it differently from a tile;
            or there are more than a million tiles.
        """
        whole = self.graph.size(size)
        if (count := (size - self.size) // self.advance) > _MOST_TILES:
            raise ShapeError(
                f"size is {brief(size)}, or {brief(count)} tiles; expected at most {_MOST_TILES}. Enlarge them."
            )
        parts: list[Part] = []
        begin = done = 0
        while begin + self.size < size:
            shift, end = int(begin / self.stride), self.inside[1]
            parts.append(Part((begin, begin + self.size), (done, shift + end), (done - shift, end)))
            done = shift + end
            begin += self.advance
        # The last tile ends with the whole and begins as early as its size allows.
        begin = max(0, -((self.size - size) // self.multiple) * self.multiple)
        for length in {size - begin, *(part.input[1] - part.input[0] for part in parts)}:
            if _readings(self.graph, length) != _readings(self.graph, size):
                raise ShapeError(
                    f"a tile of {length} is padded differently from the whole of {size}, as the padding of "
                    "some layer depends on the size. Use tiles that differ from the whole by a multiple of "
                    f"{self.multiple}."
                )
        shift = int(begin / self.stride)
        return (*parts, Part((begin, size), (done, whole), (done - shift, whole - shift)))

    def __str__(self) -> str:
        before, after = self.halo
        return f"tiles of {self.size} with a halo of {before} before and {after} after: {self.equation}"


def solve_tile(graph: Graph, size: int) -> Tile:
    """Return the way to cut an input into tiles of ``size`` that together give exactly the output of the whole.

    Tiles begin at multiples of M, the inputs after which the strides of all layers are at the same phase. An output
    of a layer is right if all the positions that it reads are, so errors spread inwards from a tile's ends.

    Args:
        graph: the network along one axis.
        size: inputs of a tile; the network must take it.

    Raises:
        ShapeError: the network does not take ``size``; or a layer depends on where the whole ends (adaptive
            pooling, resizes to a size); or the tile is too small to have any right output.

    >>> from convoxel.arithmetic.notation import parse_chain
    >>> tile = solve_tile(parse_chain("k3p1x4 pool2"), 64)
    >>> print(tile)
    tiles of 64 with a halo of 4 before and 4 after: tiles begin 56 inputs apart, a multiple of 2
    >>> [str(part) for part in tile.cover(150)]
    ['in 0:64 → out 0:30', 'in 56:120 → out 30:58', 'in 86:150 → out 58:75']
    """
    sizes = graph.sizes(size)
    rates, grains = _rates(graph, size)
    multiple = math.lcm(*(grain.denominator for grain in grains))
    _check_independence(graph, size, multiple)
    stride = 1 / rates[-1]
    inside = _inside(graph, sizes)
    advance = math.floor((inside[1] - inside[0]) * stride / multiple) * multiple
    if advance < 1:
        # Behind this size every further input gives its share of outputs.
        far = graph.sizes(size + multiple * (1 << 20))
        first, stop = _inside(graph, far)
        spare = math.floor((stop - first) * stride / multiple) - 1
        raise ShapeError(
            f"tiles of {size} are too small: no right output is left between their wrong ends, as tiles begin at "
            f"multiples of {multiple}. Use tiles of at least {far[0] - spare * multiple}."
        )
    shift = graph.field(size).centre - (stride - 1) / 2
    equation = f"tiles begin {advance} inputs apart, a multiple of {multiple}"
    return Tile(graph, size, multiple, stride, shift, inside, equation)


def _rates(graph: Graph, size: int) -> tuple[list[Fraction], list[Fraction]]:
    """Return the positions per input of every value, and for every reading its steps per input."""
    rates, grains = [Fraction(1)], [Fraction(1)]
    for node, readings in zip(graph.nodes, _readings(graph, size), strict=True):
        found = []
        for value, taps in zip(node.inputs, readings, strict=True):
            if taps is not None and taps.step > 0:
                grains.append(rates[value] / taps.step)
                found.append(grains[-1] * len(taps.phases))
        if len(set(found)) != 1:
            raise _dependent(node)
        rates.append(found[0])
    return rates, grains


def _readings(graph: Graph, size: int) -> tuple[tuple[Taps | None, ...], ...]:
    sizes = graph.sizes(size)
    return tuple(node.layer.taps(*(sizes[value] for value in node.inputs)) for node in graph.nodes)


def _check_independence(graph: Graph, size: int, multiple: int) -> None:
    """Raise ShapeError if some layer reads differently in a larger input."""
    if size + multiple not in solve_inputs(graph).sizes:
        raise ShapeError(
            f"the network takes inputs of {size} but not of {size + multiple}; it cannot be tiled. "
            "Tile the part of it that takes both."
        )
    for node, near, far in zip(graph.nodes, _readings(graph, size), _readings(graph, size + multiple), strict=True):
        if near != far or (isinstance(node.layer, Pad) and node.layer.mode == "circular"):
            raise _dependent(node)


def _dependent(node: Node) -> ShapeError:
    return ShapeError(
        f"{node} depends on where the whole input ends; the network cannot be tiled exactly. "
        "Tile the part of it that does not."
    )


def _inside(graph: Graph, sizes: tuple[int, ...]) -> tuple[int, int]:
    """Return the range of outputs that depend on nothing beyond the ends of a tile."""
    ranges = [(0, sizes[0])]
    for node, own in zip(graph.nodes, sizes[1:], strict=True):
        taps = node.layer.taps(*(sizes[value] for value in node.inputs))
        inner = [read.inside(*ranges[value]) for value, read in zip(node.inputs, taps, strict=True) if read]
        ranges.append((max(0, *(first for first, _ in inner)), min(own, *(stop for _, stop in inner))))
    return ranges[-1]
