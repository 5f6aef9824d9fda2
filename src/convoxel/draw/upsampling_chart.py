"""Ways of up-sampling side by side: their answer to a constant image, and their cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from convoxel.draw.bars import HEAD, Measure, draw_bars, draw_map
from convoxel.draw.caption import EDGE, heading
from convoxel.draw.figure import Figure
from convoxel.draw.letter import text_width
from convoxel.draw.quantity import count, listed, percent, sizes
from convoxel.draw.scene import Look, Shape, Words
from convoxel.errors import ConfigError
from convoxel.files.values import Array

if TYPE_CHECKING:
    from convoxel.inspect.upsampler import Upsampling

_TALL, _MAP, _GAP = 92.0, 76.0, 34.0
_NAME, _SOFT = Look(fill="ink", size=13), Look(fill="soft", size=12)
_MEASURES = (
    Measure("checkerboard, equal weights", lambda row: row.checkerboard, percent, share=True),
    Measure("checkerboard, at the start", lambda row: row.checkerboard_start, percent, share=True),
    Measure("parameters", lambda row: float(row.params), count),
    Measure("multiply–adds", lambda row: float(row.macs), count),
    Measure("time of one run", lambda row: row.time_s, lambda value: f"{1e3 * value:.3g} ms"),
)


def upsampling(rows: Sequence[Upsampling]) -> Figure:
    """Return a figure with a row for each way of up-sampling.

    Two maps show what becomes of a constant image, four inputs along each axis (of volumes a slice): with equal
    weights, and with weights that training may start from. Bars show the share of the checkerboard in either, and what
    each way costs.

    Args:
        rows: of :func:`convoxel.inspect.upsampling`.

    Raises:
        ConfigError: there is no row.

    >>> from convoxel.inspect import upsampling as measure
    >>> from convoxel.nn import upsamplers
    >>> upsampling(measure(upsamplers(1, 2, 2), (1, 2, 8), starts=1, timed=False)).title
    '7 ways of up-sampling by 2'
    """
    if not rows:
        raise ConfigError("upsampling: rows is empty; a comparison needs at least one way of up-sampling.")
    scale = sizes(rows[0].scale, short=True)
    title = f"{len(rows)} way{'s' if len(rows) > 1 else ''} of up-sampling by {scale}"
    shapes, width, top = heading(title, ["A constant image should stay constant; what alternates is checkerboard."])
    names = [(row.name, _products(row)) for row in rows]
    maps = EDGE + max(text_width(text, 13) for pair in names for text in pair) + _GAP
    for place, word in enumerate(("equal weights", "at the start")):
        shapes.append(Words(maps + place * (_MAP + _GAP), top + 14, word, look=HEAD))
    middles = [top + 26 + index * _TALL + _MAP / 2 for index in range(len(rows))]
    for row, (name, products), middle in zip(rows, names, middles, strict=True):
        shapes.append(Words(EDGE, middle - 2, name, look=_NAME))
        shapes.append(Words(EDGE, middle + 16, products, look=_SOFT))
        shapes += _draw_response(row.response / 2, maps, middle)
        shapes += _draw_response(_start_tone(row.response_start), maps + _MAP + _GAP, middle)
    bars, right = draw_bars(rows, _MEASURES, (maps + 2 * (_MAP + _GAP), top + 14), middles)
    text = "; ".join(f"{row.name}: {products}, checkerboard {percent(row.checkerboard)}"
                     for row, (_, products) in zip(rows, names, strict=True))  # fmt: skip
    return Figure(title, text, max(width, right + EDGE), top + 26 + len(rows) * _TALL, (*shapes, *bars))


def _products(row: Upsampling) -> str:
    counts = [f"{value:g}" for value in sorted(set(row.overlaps))]
    return f"{listed(counts, 'or')} product{'' if counts == ['1'] else 's'} an output"


def _start_tone(response: NDArray[np.float32]) -> NDArray[np.float32]:
    """Half for 0; 0 and 1 for the largest number."""
    most = float(np.abs(response).max())
    return response / (2 * most) + 0.5 if most else np.full_like(response, 0.5)


def _draw_response(tone: Array, left: float, middle: float) -> Iterator[Shape]:
    """A response as a map; of a volume the middle slice, of a line a band of equal rows."""
    flat = tone[tone.shape[0] // 2] if tone.ndim == 3 else tone
    rows = np.broadcast_to(flat, (math.ceil(len(flat) / 4), len(flat))) if flat.ndim == 1 else flat
    side = _MAP / max(rows.shape)
    return draw_map(rows, (left, middle - rows.shape[0] * side / 2), side)
