"""The number of inputs that reach each output of a transposed convolution: uneven numbers make checkerboards.

A kernel whose size is a multiple of the stride covers every output equally often, any other one does not (Odena,
Dumoulin & Olah 2016, "Deconvolution and checkerboard artifacts").
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from convoxel.draw.caption import EDGE, heading, legend
from convoxel.draw.figure import Figure, beside
from convoxel.draw.quantity import listed, sizes
from convoxel.draw.scan import Scan, Track
from convoxel.draw.scene import Box, Look, Shape, Words
from convoxel.errors import ConfigError

_MOST_CELLS = 4096
_BAR = 110.0
_WIDE = 520.0
_SLICE = 18.0  # between the slices of a volume


def overlap(
    kernel: int | Sequence[int],
    stride: int = 2,
    padding: str | int | Sequence[tuple[int, int]] = "none",
    *,
    size: int | Sequence[int] = (6, 6),
    dilation: int = 1,
    output_padding: int = 0,
) -> Figure:
    """Return the number of inputs that reach each output of a transposed convolution, as a figure.

    Args:
        kernel: kernel size; several of them are drawn side by side.
        stride: stride (default 2).
        padding: padding, as ``arithmetic.resolve_padding`` takes it (default: none).
        size: input size, one to three axes (default 6 × 6); a volume is shown as its slices.
        dilation: dilation (default 1).
        output_padding: outputs added at the end (default 0).

    Raises:
        ConfigError: more axes, no kernel, or too many outputs.
        ShapeError: the layer does not take the size.

    >>> overlap(3).text, overlap(4).text
    ('Uneven: 1, 2 or 4 inputs reach an output inside.', 'Even: 4 inputs reach every output inside.')
    """
    lengths = (size,) if isinstance(size, int) else tuple(size)
    kernels = (kernel,) if isinstance(kernel, int) else tuple(kernel)
    if not kernels:
        raise ConfigError("overlap: kernel is empty; expected at least one kernel size, such as (3, 4).")
    scans = []
    for k in kernels:
        options = {"kind": "transposed", "output_padding": output_padding}
        scan = Scan.of(lengths, k, stride, padding, dilation, **options)  # type: ignore[arg-type]
        if scan.steps() > _MOST_CELLS:
            raise ConfigError(f"overlap: {scan.steps()} outputs are too many to draw; up to {_MOST_CELLS} are.")
        scans.append(scan)
    # One scale for all: a colour and a height mean the same number everywhere.
    most = max(max(count_reached(scan).values()) for scan in scans)
    drawn = [_figure(scan, most) for scan in scans]
    return drawn[0] if len(drawn) == 1 else beside(drawn, "Overlap of transposed convolutions", gap=8)


def _inside(track: Track) -> list[int]:
    """Return the number of inputs that reach each output of a period, away from the borders."""
    span = track.d * (track.k - 1) + 1
    far = Track(2 * span + 2, track.k, track.s, (0, 0), track.d, 0, True)
    return [len(far.reads(track.s * span + phase)) for phase in range(track.s)]


def count_reached(scan: Scan) -> dict[tuple[int, ...], int]:
    """Return the number of inputs that reach each output."""
    return {output: len(scan.reads(output)) for output in scan.outputs()}


def say_evenness(scan: Scan) -> str:
    """Return in words how many inputs reach an output that no border is near."""
    inside = sorted({math.prod(parts) for parts in itertools.product(*map(_inside, scan.tracks))})
    if len(inside) == 1:
        return f"Even: {inside[0]} input{'s reach' if inside[0] != 1 else ' reaches'} every output inside."
    return f"Uneven: {listed(list(map(str, inside)), 'or')} inputs reach an output inside."


def _figure(scan: Scan, most: int) -> Figure:
    counts, text = count_reached(scan), say_evenness(scan)
    title = f"Kernel {sizes(scan.kernel)}, stride {scan.tracks[0].s}"
    shapes, width, top = heading(title, [f"{sizes(scan.size)} → {sizes(scan.output)}", text])
    draw = _bars if len(scan.tracks) == 1 else _cells
    shapes += draw(scan, counts, most, top + 6)
    grid = _Grid.of(scan)
    right = EDGE + grid.width + EDGE
    bottom = top + 6 + (_BAR + 20 if len(scan.tracks) == 1 else grid.height)
    entries = [(Look(fill=_role(n, most)), f"{n}") for n in sorted(set(counts.values()))]
    entries = [(look, f"{word} input" + ("" if word == "1" else "s")) for look, word in entries]
    told, least, end = legend(entries[:8], bottom + 14, max(width, right))
    return Figure(title, text, max(width, right, least), end + EDGE - 8, (*shapes, *told))


class _Grid(NamedTuple):
    """The places of the outputs: slices of a volume beside each other, as many as fit, then below."""

    cell: float
    rows: int
    columns: int
    slices: int
    across: int

    @classmethod
    def of(cls, scan: Scan) -> _Grid:
        """Lay out the outputs of ``scan``."""
        slices, rows, columns = (*(1,) * (3 - len(scan.output)), *scan.output)
        cell = min(30.0, _WIDE / max(rows, columns)) if slices == 1 else min(22.0, _WIDE / (2 * columns))
        across = min(slices, max(1, int((_WIDE + _SLICE) // (columns * cell + _SLICE))))
        return cls(cell, rows, columns, slices, across)

    @property
    def width(self) -> float:
        """Of all slices that are beside each other."""
        return self.across * (self.columns * self.cell + _SLICE) - _SLICE

    @property
    def height(self) -> float:
        """Of all rows of slices."""
        return -(-self.slices // self.across) * (self.rows * self.cell + _SLICE) - _SLICE

    def spot(self, output: tuple[int, ...], top: float) -> tuple[float, float]:
        """Return the corner of an output's cell."""
        number, row, column = (*(0,) * (3 - len(output)), *output)
        below, beside = divmod(number, self.across)
        left = EDGE + beside * (self.columns * self.cell + _SLICE)
        return left + column * self.cell, top + below * (self.rows * self.cell + _SLICE) + row * self.cell


def _role(number: int, most: int) -> str:
    return "grid" if number == 0 else f"ramp:{round((number - 1) / max(most - 1, 1), 2):g}"


def _cells(scan: Scan, counts: dict[tuple[int, ...], int], most: int, top: float) -> Iterator[Shape]:
    grid = _Grid.of(scan)
    side = grid.cell - (2 if grid.cell > 12 else 0)
    for output, number in counts.items():
        x, y = grid.spot(output, top)
        role = _role(number, most)
        fact = {"output": ",".join(map(str, output)), "reached": str(number)}
        yield Box(x, y, side, side, 3, look=Look(fill=role), data=fact)
        if grid.cell >= 20:
            look = Look(fill=f"on:{role}", size=12, align="middle")
            yield Words(x + side / 2, y + side / 2 + 4.3, str(number), look=look)


def _bars(scan: Scan, counts: dict[tuple[int, ...], int], most: int, top: float) -> Iterator[Shape]:
    cell = _Grid.of(scan).cell
    side = cell - (3 if cell > 12 else 0)
    for (place,), number in counts.items():
        tall = _BAR * number / max(most, 1)
        x, y = EDGE + place * cell, top + _BAR - tall
        role = _role(number, most)
        fact = {"output": str(place), "reached": str(number)}
        yield Box(x, y, side, max(tall, 1.0), 2, look=Look(fill=role), data=fact)
        if cell >= 18:
            look = Look(fill="soft", size=11, align="middle")
            yield Words(x + side / 2, top + _BAR + 15, str(number), look=look)
