"""The effect of shared weights: trained matrices beside their nearest convolutions, accuracies and costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from convoxel.draw.bars import HEAD, Measure, draw_bars, draw_map
from convoxel.draw.caption import EDGE, heading
from convoxel.draw.figure import Figure
from convoxel.draw.letter import text_width
from convoxel.draw.quantity import count, percent, sizes
from convoxel.draw.scene import Box, Look, Shape, Words

if TYPE_CHECKING:
    from convoxel.train.sharing_study import SharingStudy

_WIDE, _MOST, _GAP = 240.0, 150.0, 30.0
_FRAME = Look(stroke="rule")
_NAME = Look(fill="ink", size=13)
_MEASURES = (
    Measure("trained samples", lambda row: row.train_accuracy, percent, share=True),
    Measure("new samples", lambda row: row.test_accuracy, percent, share=True),
    Measure("new, moved by a pixel", lambda row: row.moved_accuracy, percent, share=True),
    Measure("distance from a convolution", lambda row: row.distance, percent, share=True),
    Measure("parameters", lambda row: float(row.params), count),
    Measure("multiplications", lambda row: float(row.multiplications), count),
    Measure("bytes", lambda row: float(row.size_bytes), count),
)


def sharing(study: SharingStudy) -> Figure:
    """Return a figure with a row for each layer of a study.

    Beside each name stands the trained layer as a matrix, from the first channel to the first, and the convolution
    that is nearest to it; zeros are left white. Bars show accuracies and costs.

    Args:
        study: of :func:`convoxel.train.sharing_study.study_sharing`.

    >>> from convoxel.train.sharing_study import study_sharing
    >>> some = np.random.default_rng(0).random((8, 1, 3, 3), np.float32), np.arange(8) % 2
    >>> sharing(study_sharing(some, some, kernel=2, steps=1, starts=1)).title
    'One map, three priors: trained on 8 samples'
    """
    rows = study.rows
    title = f"One map, three priors: trained on {study.samples} samples"
    shapes, width, top = heading(
        title, [f"Images of {sizes(study.size)}, kernel {sizes(study.kernel)}, {study.channels} channels."]
    )
    left = EDGE + max(text_width(row.kind, 13) for row in rows) + _GAP
    height, columns = rows[0].matrix.shape
    side = min(_WIDE / columns, _MOST / height)
    wide, tall = columns * side, height * side
    middles = [top + 26 + index * (tall + 22) + tall / 2 for index in range(len(rows))]
    begins = [left, left + max(wide, text_width("nearest convolution", 12, bold=True)) + _GAP]
    for begin, word in zip(begins, ("trained matrix", "nearest convolution"), strict=True):
        shapes.append(Words(begin, top + 14, word, look=HEAD))
    for row, middle in zip(rows, middles, strict=True):
        shapes.append(Words(EDGE, middle + 4, row.kind, look=_NAME))
        for begin, matrix in zip(begins, (row.matrix, row.nearest), strict=True):
            most = float(np.abs(matrix).max()) or 1.0
            shapes += draw_map(matrix / (2 * most) + 0.5, (begin, middle - tall / 2), side, hidden=matrix == 0)
            shapes.append(Box(begin, middle - tall / 2, wide, tall, look=_FRAME))
    bars, right = draw_bars(rows, _MEASURES, (begins[1] + (begins[1] - begins[0]), top + 14), middles)
    drawn: list[Shape] = [*shapes, *bars]
    text = "; ".join(f"{row.kind}: {count(row.params)} parameters, {percent(row.test_accuracy)} of new samples right"
                     for row in rows)  # fmt: skip
    return Figure(title, text, max(width, right + EDGE), middles[-1] + tall / 2 + EDGE, tuple(drawn))
