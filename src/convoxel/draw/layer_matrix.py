"""The matrix of a layer: which entries are not zero, which of them are the same weight, and its blocks.

A convolution is a matrix with as many rows as outputs and as many columns as inputs. In 1-D it is constant
along its diagonals (Toeplitz); in 2-D it consists of such blocks, one for each row of the kernel, which
repeat along the diagonals themselves; in 3-D once more. A transposed convolution is the transpose. No value
is needed: entries are drawn by the number of their weight.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from convoxel.draw.caption import EDGE, heading, legend
from convoxel.draw.figure import Figure, beside
from convoxel.draw.letter import text_width
from convoxel.draw.scan import Position, Scan
from convoxel.draw.scene import Box, Line, Look, Point, Shape, Squares, Words
from convoxel.errors import ConfigError

_SHARING = ("shared", "sparse", "dense")
_SAYS = {"shared": "convolution", "sparse": "locally connected", "dense": "fully connected"}
_MOST_ENTRIES, _MOST_LABELS = 60_000, 40
_WIDE, _TALL = 880.0, 640.0
_LOW = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_MOST_SUMS, _MOST_TERMS = 12, 9
_NAMED = 7  # weights with a colour of their own; more take theirs from a ramp


def matrix(
    size: int | Sequence[int],
    kernel: int | Sequence[int] = 3,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] | Sequence[tuple[int, int]] = "none",
    dilation: int | Sequence[int] = 1,
    *,
    kind: str = "correlation",
    output_padding: int | Sequence[int] = 0,
    in_channels: int = 1,
    out_channels: int = 1,
    groups: int = 1,
    sharing: str | Sequence[str] = "shared",
    order: str = "C",
) -> Figure:
    """Return the matrix of a layer, each entry in the colour of its weight.

    Args:
        size: input size of every axis, one to three of them.
        kernel: kernel size, of all axes or of every axis (default 3).
        stride: stride, of all axes or of every axis (default 1).
        padding: a word of ``arithmetic.PADDING_WORDS``, or numbers as ``arithmetic.resolve_padding`` takes.
        dilation: dilation, of all axes or of every axis (default 1).
        kind: "correlation", "convolution" or "transposed".
        output_padding: outputs added at the end, for "transposed".
        in_channels: number of input channels (default 1); the matrix has a block of columns for each.
        out_channels: number of output channels (default 1); the matrix has a block of rows for each.
        groups: number of groups of channels (default 1).
        sharing: "shared" (a convolution), "sparse" (the same entries, each its own weight: locally connected)
            or "dense" (every entry: fully connected); several of them are drawn side by side.
        order: "C", pixels row by row, or "F", column by column.

    Raises:
        ConfigError: an option that is not known, groups that do not divide the channels, or more than 60 000
            entries.
        ShapeError: the kernel does not fit.

    >>> figure = matrix((3, 3), 2, order="F")
    >>> figure.title
    '4 × 9 matrix of a convolution'
    >>> figure.text
    '36 entries, 16 not zero (44 %), 4 weights.'
    """
    scan = Scan.of(size, kernel, stride, padding, dilation, kind=kind, output_padding=output_padding)
    wanted = (sharing,) if isinstance(sharing, str) else tuple(sharing)
    if not wanted or set(wanted) - set(_SHARING):
        raise ConfigError(f"sharing: got {sharing!r}; expected {', '.join(map(repr, _SHARING))}, or several of them.")
    if order not in ("C", "F"):
        raise ConfigError(f"order: got {order!r}; expected 'C' (row by row) or 'F' (column by column).")
    layer = MatrixLayout(scan, in_channels, out_channels, groups, order)
    drawn = [_Sheet(layer, way).figure() for way in wanted]
    name = scan.sentence()
    return drawn[0] if len(drawn) == 1 else beside(drawn, f"{name[0].upper()}{name[1:]}", gap=8)


@dataclass(frozen=True)
class MatrixLayout:
    """The entries of a layer's matrix that are not zero.

    Attributes:
        scan: the layer along its axes.
        inputs: number of input channels.
        outputs: number of output channels.
        groups: number of groups of channels.
        order: "C", pixels row by row, or "F", column by column.
    """

    scan: Scan
    inputs: int
    outputs: int
    groups: int
    order: str = "C"

    def __post_init__(self) -> None:
        inputs, outputs, groups = self.inputs, self.outputs, self.groups
        if min(inputs, outputs, groups) < 1 or inputs % groups or outputs % groups:
            raise ConfigError(f"groups: got {groups}; it must divide in_channels={inputs} and out_channels={outputs}.")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.outputs * math.prod(self.scan.output), self.inputs * math.prod(self.scan.size)

    @property
    def weights(self) -> int:
        """Weights of the convolution."""
        return self.outputs * (self.inputs // self.groups) * math.prod(self.scan.kernel)

    def count(self, sharing: str) -> int:
        """Return the number of entries that are not zero."""
        if sharing == "dense":
            return math.prod(self.shape)
        pairs = self.outputs * (self.inputs // self.groups)
        return pairs * math.prod(sum(len(track.reads(o)) for o in range(track.o)) for track in self.scan.tracks)

    def entries(self) -> list[tuple[int, int, int]]:
        """Return (row, column, number of the weight) of all that is not zero, row by row."""
        scan, fan = self.scan, self.inputs // self.groups
        sizes = scan.output, scan.size, scan.kernel
        rows, columns, taps = map(math.prod, sizes)
        # The number of a position is a sum over the axes, so each axis is read once.
        axes = [
            [(o * row, i * column, w * weight) for o in range(outputs) for w, i in track.reads(o)]
            for track, outputs, row, column, weight in zip(
                scan.tracks, scan.output, *map(self.steps, sizes), strict=True
            )
        ]
        spatial = [tuple(map(sum, zip(*entry, strict=True))) for entry in itertools.product(*axes)]
        return sorted(
            (out * rows + row, (first + near) * columns + column, (out * fan + near) * taps + weight)
            for out in range(self.outputs)
            for first in [out // (self.outputs // self.groups) * fan]
            for near in range(fan)
            for row, column, weight in spatial
        )

    def steps(self, sizes: Position) -> Position:
        """Return by how much a position's number grows along each axis, row by row or column by column."""
        return tuple(math.prod(sizes[axis + 1 :] if self.order == "C" else sizes[:axis]) for axis in range(len(sizes)))

    def number(self, position: Position, sizes: Position) -> int:
        """Return the number of a position, row by row or column by column."""
        return sum(place * step for place, step in zip(position, self.steps(sizes), strict=True))

    def blocks(self) -> list[tuple[int, int]]:
        """Return rows and columns of a block, from the finest blocks to those of a channel."""
        sizes = list(zip(self.scan.output, self.scan.size, strict=True))
        if self.order == "C":
            sizes.reverse()
        found, rows, columns = [], 1, 1
        for o, i in sizes:
            rows, columns = rows * o, columns * i
            found.append((rows, columns))
        return found


class _Sheet:
    """One matrix as a picture."""

    def __init__(self, layer: MatrixLayout, sharing: str) -> None:
        self.layer, self.sharing = layer, sharing
        self.rows, self.columns = layer.shape
        small = self.rows * self.columns <= 100 * _MOST_ENTRIES  # else nobody counts the entries to the end
        self.entries = layer.count(sharing) if small else 0
        if not small or self.entries > _MOST_ENTRIES:
            raise ConfigError(
                f"matrix: {self.rows} × {self.columns}{f' with {self.entries} entries' * small} is too large to draw; "
                f"up to {_MOST_ENTRIES} entries are. Give a smaller size or fewer channels."
            )
        self.cell = min(34.0, _WIDE / self.columns, _TALL / self.rows)
        self.cell = max(self.cell, 0.5)
        self.labelled = self.cell >= 20 and max(self.rows, self.columns) <= _MOST_LABELS
        gap = 3.0 if self.cell >= 20 else 1.0 if self.cell >= 8 else 0.0
        self.side = self.cell - gap

    def figure(self) -> Figure:
        """Return the picture."""
        free = self.layer.weights if self.sharing == "shared" else self.entries
        share = self.entries / (self.rows * self.columns)
        text = f"{self.rows * self.columns} entries, {self.entries} not zero ({share:.0%}), {free} weights."
        text = text.replace("%", " %")
        article = {"shared": "a convolution", "sparse": "a locally connected layer", "dense": "a fully connected layer"}
        title = f"{self.rows} × {self.columns} matrix of {article[self.sharing]}"
        shapes, width, top = heading(title, [text])
        self.corner: Point = (EDGE + (30 if self.labelled else 0), top + (30 if self.labelled else 8))
        end = self.corner[0] + self.columns * self.cell, self.corner[1] + self.rows * self.cell
        shapes += [*self._ground(), *self._entries(free), *self._lines()]
        if self.labelled:
            shapes += self._labels()
        right, low = end[0] + EDGE, end[1]
        if self.keyed:
            written, right = self._sums(end[0] + 18)
            keys, least, low = self._key(end[1] + 34)
            shapes, right = [*shapes, *written, *keys], max(right, least)
        told, wide, bottom = legend(self._legend(free), low + 18, max(width, right))
        return Figure(title, text, max(width, wide, right), bottom + EDGE - 8, (*shapes, *told))

    @property
    def keyed(self) -> bool:
        """True where there is room for what the numbers of inputs, weights and outputs mean."""
        small = self.rows <= _MOST_SUMS and max(self.layer.scan.size) <= 9
        return self.labelled and self.sharing == "shared" and small and self.layer.inputs == self.layer.outputs == 1

    def _sums(self, left: float) -> tuple[list[Shape], float]:
        """Return each row's product with the inputs, beside it, and the right end of the widest."""
        terms: dict[int, list[str]] = defaultdict(list)
        for row, column, weight in self.layer.entries():
            terms[row].append(f"x{column + 1}k{weight + 1}".translate(_LOW))
        look, shapes, right = Look(fill="ink", size=12), list[Shape](), left
        for row in range(self.rows):
            parts = terms[row]
            more = " + …" if len(parts) > _MOST_TERMS else ""
            text = f"y{row + 1}".translate(_LOW) + f" = {' + '.join(parts[:_MOST_TERMS]) or '0'}{more}"
            shapes.append(Words(left, self._at(row, 0)[1] + self.side / 2 + 4, text, look=look, data={"sum": str(row)}))
            right = max(right, left + text_width(text, 12) + EDGE)
        return shapes, right

    def _key(self, top: float) -> tuple[list[Shape], float, float]:
        """Return the input, the kernel and the output as grids with the names of their cells, where they end."""
        scan, cell = self.layer.scan, 30.0
        shapes, x, bottom = list[Shape](), EDGE, top
        for word, letter, sizes in (
            ("input", "x", scan.size),
            ("kernel", "k", scan.kernel),
            ("output", "y", scan.output),
        ):
            deep, tall, wide = (*(1,) * (3 - len(sizes)), *sizes)
            if deep > 1:
                continue
            shapes.append(Words(x, top, word, look=Look(fill="ink", size=12, bold=True)))
            for place in itertools.product(*map(range, sizes)):
                number = self.layer.number(place, sizes)
                row, column = (*(0,) * (2 - len(place)), *place)
                at = (x + column * cell, top + 8 + row * cell)
                role = self._role(number, self.layer.weights) if letter == "k" else "grid"
                shapes.append(
                    Box(*at, cell - 3, cell - 3, 3, look=Look(fill=role), data={"key": f"{letter}{number + 1}"})
                )
                ink = Look(fill=f"on:{role}" if letter == "k" else "ink", size=11, align="middle")
                text = f"{letter}{number + 1}".translate(_LOW)
                shapes.append(Words(at[0] + cell / 2 - 1.5, at[1] + cell / 2 + 2.5, text, look=ink))
            x += max(wide * cell, text_width(word, 12, bold=True)) + 26
            bottom = max(bottom, top + 8 + tall * cell)
        return shapes, x, bottom

    def _at(self, row: float, column: float) -> Point:
        return self.corner[0] + column * self.cell, self.corner[1] + row * self.cell

    def _ground(self) -> Iterator[Shape]:
        """Yield the zeros: cells where there is room for them, else one area."""
        if self.cell < 8:
            yield Box(*self.corner, self.columns * self.cell, self.rows * self.cell, look=Look(fill="grid"))
            return
        corners = tuple(self._at(row, column) for row in range(self.rows) for column in range(self.columns))
        yield Squares(corners, self.side, look=Look(fill="grid"))

    def _entries(self, free: int) -> Iterator[Shape]:
        """Yield the entries, all of one weight as one shape."""
        places: dict[int, list[tuple[int, int]]] = defaultdict(list)
        if self.sharing == "dense":
            for number in range(self.entries):
                places[number].append(divmod(number, self.columns))
        else:
            for number, (row, column, weight) in enumerate(self.layer.entries()):
                places[weight if self.sharing == "shared" else number].append((row, column))
        if free > 512:  # more colours than anyone tells apart: neighbours share a shape
            merged: dict[int, list[tuple[int, int]]] = defaultdict(list)
            for weight, cells in places.items():
                merged[weight * 256 // free * free // 256].extend(cells)
            places = merged
        letter = "k" if self.sharing == "shared" else "w"
        for weight, cells in sorted(places.items()):
            role = self._role(weight, free)
            corners = tuple(self._at(row, column) for row, column in cells)
            fact = {"weight": str(weight)} if self.sharing == "shared" else {}
            yield Squares(corners, self.side, look=Look(fill=role), data=fact)
            if self.labelled:
                text = f"{letter}{weight + 1}".translate(_LOW)
                size = min(0.4 * self.cell, 1.75 * self.side / len(text))
                look = Look(fill=f"on:{role}", size=size, align="middle")
                for x, y in corners:
                    yield Words(x + self.side / 2, y + self.side / 2 + 0.35 * size, text, look=look)

    def _role(self, weight: int, free: int) -> str:
        """Return the colour of a weight; on the ramp in steps that make few enough looks."""
        if free <= _NAMED:
            return f"c{weight + 1}"
        return f"ramp:{round(weight / max(free - 1, 1), 2):g}"

    def _lines(self) -> Iterator[Shape]:
        """Yield the borders of the blocks, the heavier the larger, and frames around those that hold entries."""
        blocks = self.layer.blocks()
        for level, (rows, columns) in enumerate(blocks):
            if rows * self.cell < 5 or columns * self.cell < 5:
                continue
            last = level == len(blocks) - 1
            inner = level == 0 and (not last or self.layer.inputs == self.layer.outputs == 1)
            look = Look(stroke="soft", weight=0.75 + 0.75 * level, opacity=0.35 if inner else 0.7)
            for row in range(rows, self.rows, rows):
                if last or row % blocks[level + 1][0]:
                    yield self._rule((row, 0), (row, self.columns), look)
            for column in range(columns, self.columns, columns):
                if last or column % blocks[level + 1][1]:
                    yield self._rule((0, column), (self.rows, column), look)
        if len(blocks) > 1 and self.sharing != "dense":
            yield from self._toeplitz(*blocks[0])

    def _toeplitz(self, rows: int, columns: int) -> Iterator[Shape]:
        """Yield a frame around each of the finest blocks that is not empty."""
        if min(rows, columns) * self.cell < 12:
            return
        held = sorted({(row // rows, column // columns) for row, column, _ in self.layer.entries()})
        half = (self.cell - self.side) / 2
        for row, column in held:
            x, y = self._at(row * rows, column * columns)
            frame = (x - half, y - half, columns * self.cell, rows * self.cell)
            yield Box(*frame, 4, look=_BLOCK, data={"block": f"{row},{column}"})

    def _rule(self, start: Point, end: Point, look: Look) -> Line:
        half = (self.cell - self.side) / 2
        a, b = self._at(*start), self._at(*end)
        return Line(((a[0] - half, a[1] - half), (b[0] - half, b[1] - half)), look=look)

    def _labels(self) -> Iterator[Shape]:
        """Yield the names of the inputs above the columns, and of the outputs beside the rows."""
        look = Look(fill="soft", size=11, align="middle")
        for column in range(self.columns):
            x, y = self._at(0, column)
            yield Words(x + self.side / 2, y - 9, f"x{column + 1}".translate(_LOW), look=look)
        for row in range(self.rows):
            x, y = self._at(row, 0)
            yield Words(x - 15, y + self.side / 2 + 4, f"y{row + 1}".translate(_LOW), look=look)

    def _legend(self, free: int) -> list[tuple[Look, str]]:
        entries = [(Look(fill="grid"), "zero")] if self.sharing != "dense" else []
        if self.sharing == "shared":
            if self.labelled:
                pass
            elif free <= _NAMED:
                entries += [(Look(fill=f"c{n + 1}"), f"weight {n + 1}") for n in range(free)]
            else:
                entries += [(Look(fill="ramp:0"), "first weight"), (Look(fill="ramp:1"), f"weight {free}, the last")]
        else:
            entries.append((Look(fill="ramp:0.5"), "every entry a weight of its own"))
        if len(self.layer.blocks()) > 1 and self.sharing == "shared":
            stride = any(track.s > 1 for track in self.layer.scan.tracks)
            line = "column" if self.layer.order == "F" else "row"
            says = f"block of one kernel {line}" + ("" if stride else ", constant along diagonals")
            entries.append((_BLOCK, says))
        return entries


_BLOCK = Look(stroke="soft", weight=1.25)
