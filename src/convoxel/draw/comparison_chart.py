"""Networks side by side: a table's figures as bars, and quality against cost, as SVG text or as a picture.

What the networks cost, see and reach was measured by others.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from convoxel.draw.figure import Figure
from convoxel.draw.letter import fit, text_width
from convoxel.draw.pareto_chart import SCATTER, Entry, scatter
from convoxel.draw.quantity import count, duration
from convoxel.draw.shape import Box, Disc, Look, Shape, Words
from convoxel.errors import ConfigError

__all__ = ["Contender", "comparison", "comparison_picture", "save_comparison"]

_ROW, _PANEL, _GAP, _EDGE = 26.0, 178.0, 22.0, 14.0
_TOP = 58.0
_NAME = 280.0  # room for a name; a longer one loses its middle


@dataclass(frozen=True)
class Contender:
    """One network of a comparison.

    Attributes:
        name: what to call it.
        shape: input (n, channels, *spatial) that the figures are for.
        params: parameters.
        macs: multiply-accumulates.
        field: receptive field by axis; empty if unknown.
        whole: whether every output sees the whole image beside that, by global pooling for instance.
        latency_s: time of one run on our engine; None if not measured.
        metric_name: "Dice" or "accuracy"; empty without a training run.
        metric: that, on the validation part.
        per_class: the same for each class.
        train_s: training time.
        steps: optimiser steps.
    """

    name: str
    shape: tuple[int, ...]
    params: int
    macs: int
    field: tuple[int, ...] = ()
    whole: bool = False
    latency_s: float | None = None
    metric_name: str = ""
    metric: float | None = None
    per_class: dict[str, float | None] = dataclasses.field(default_factory=dict)
    train_s: float | None = None
    steps: int | None = None

    @property
    def reach(self) -> float | None:
        """The widest receptive field; None if it is unknown."""
        return float(max(self.field)) if self.field else None

    @property
    def sight(self) -> str:
        """The receptive field in words."""
        size = " × ".join(map(str, self.field)) if len(set(self.field)) != 1 else str(self.field[0])
        return f"{size or '–'} + whole" if self.whole else size or "–"


class _Measure(NamedTuple):
    """A panel: which figure, how it is written, and whether it is a share that is best near 1."""

    title: str
    value: Callable[[Contender], float | None]
    text: Callable[[float], str]
    share: bool = False


_TITLE = Look(fill="ink", size=14, bold=True)
_HEADING = Look(fill="ink", size=12, bold=True)
_LABEL = Look(fill="ink", size=12)
_VALUE = Look(fill="soft", size=12)
_TICK = Look(fill="faint", size=11, align="middle")
_TRACK = Look(fill="grid")
_BAR = Look(fill="c7")
_DOT = Look(fill="c5")


def _measures(rows: Sequence[Contender]) -> list[_Measure]:
    """The panels that have a figure for at least one row."""
    quality = next((row.metric_name for row in rows if row.metric_name), "metric")
    known = [
        _Measure("parameters", lambda row: float(row.params), count),
        _Measure("multiply–adds", lambda row: float(row.macs), count),
        _Measure("receptive field (pixels)", lambda row: row.reach, lambda value: f"{value:.0f}"),
        _Measure("time of one run", lambda row: row.latency_s, _short_time),
        _Measure(quality, lambda row: row.metric, lambda value: f"{value:.3f}", share=True),
        _Measure("training time", lambda row: row.train_s, duration),
    ]
    return [measure for measure in known if any(measure.value(row) is not None for row in rows)]


def _short_time(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else duration(seconds)


def _compose(rows: Sequence[Contender]) -> Figure:
    if not rows:
        raise ConfigError("comparison: rows is empty; a comparison needs at least one network.")
    names = [fit(row.name, _NAME) for row in rows]
    left = _EDGE + max(text_width(name) for name in names) + 16
    measures = _measures(rows)
    shapes: list[Shape] = [Words(_EDGE, 24, _heading(rows), look=_TITLE)]
    for index, name in enumerate(names):
        shapes.append(Words(_EDGE, _TOP + (index + 0.5) * _ROW + 4, name, look=_LABEL, note=rows[index].name))
    for place, measure in enumerate(measures):
        shapes += _draw_panel(rows, measure, left + place * (_PANEL + _GAP))
    width = left + len(measures) * (_PANEL + _GAP) - _GAP + _EDGE
    width = max(width, text_width(_heading(rows), 14, bold=True) + 2 * _EDGE)
    height = _TOP + len(rows) * _ROW + 26
    scored = [Entry(row.name, row.macs, row.metric) for row in rows if row.metric is not None]
    if len(scored) > 1:
        quality = next(row.metric_name for row in rows if row.metric is not None) or "metric"
        shapes.append(Words(left, height + 22, f"{quality} over multiply–adds", look=_HEADING))
        drawn, begin, height = scatter(scored, x="multiply–adds", y=quality, corner=(left, height + 40))
        shapes += drawn
        width, height = max(width, begin + SCATTER + 24 + _EDGE), height + _EDGE
    told = "; ".join(f"{row.name}: {count(row.params)} parameters, {count(row.macs)} multiply–adds" for row in rows)
    return Figure(_heading(rows), told, width, height, tuple(shapes))


def _heading(rows: Sequence[Contender]) -> str:
    """Say what the figures are for, as far as it is one thing."""
    shapes = {row.shape for row in rows}
    if len(shapes) > 1:
        return f"{len(rows)} networks, each on its own input"
    return f"{len(rows)} network{'s' if len(rows) > 1 else ''} on an input of {' × '.join(map(str, rows[0].shape))}"


def _draw_panel(rows: Sequence[Contender], measure: _Measure, left: float) -> list[Shape]:
    """Bars from zero; a share is a dot between a floor below all of them and 1."""
    values = [measure.value(row) for row in rows]
    known = [value for value in values if value is not None]
    room = _PANEL - 76.0  # the text after the longest bar
    low, high = (_floor(min(known)), 1.0) if measure.share else (0.0, max(known) or 1.0)
    shapes: list[Shape] = [Words(left, _TOP - 10, measure.title, look=_HEADING)]
    if measure.share:
        bottom = _TOP + len(rows) * _ROW
        shapes += [Box(left + share * room - 0.5, _TOP, 1, bottom - _TOP, look=_TRACK) for share in (0, 0.5, 1)]
        for share in (0.0, 1.0):
            shapes.append(Words(left + share * room, bottom + 15, f"{low + share * (high - low):g}", look=_TICK))
    for index, value in enumerate(values):
        middle = _TOP + (index + 0.5) * _ROW
        if value is None:
            shapes.append(Words(left, middle + 4, "–", look=_VALUE))
            continue
        end = left + room * (value - low) / (high - low)
        if measure.share:
            shapes.append(Disc(end, middle, 5, look=_DOT))
            end = max(end, left + room)
        else:
            fact = {"bar": measure.title}
            shapes.append(Box(left, middle - 6, max(end - left, 1.5), 12, 1.5, look=_BAR, data=fact))
        beside = end + (11 if measure.share else 7)
        shapes.append(Words(beside, middle + 4, measure.text(value), look=_VALUE))
    return shapes


def _floor(value: float) -> float:
    return next(floor for floor in (0.9, 0.8, 0.5, 0.0, -math.inf) if value >= floor)


def comparison(rows: Sequence[Contender]) -> str:
    """Return the figure as SVG text that stands alone; it follows the reader's light or dark setting.

    Args:
        rows: the networks, in the order of the picture.

    Raises:
        ConfigError: there is no row.

    >>> small, large = Contender("small", (1, 1, 8, 8), 100, 6400), Contender("large", (1, 1, 8, 8), 400, 25600)
    >>> comparison([small, large])[:4]
    '<svg'
    """
    return _compose(rows).svg()


def comparison_picture(rows: Sequence[Contender]) -> Image.Image:
    """Return the figure as a picture on white, two pixels a unit.

    Args:
        rows: the networks, in the order of the picture.

    Raises:
        ConfigError: there is no row.

    >>> comparison_picture([Contender("small", (1, 1, 8, 8), 100, 6400)]).mode
    'RGB'
    """
    return _compose(rows).picture()


def save_comparison(rows: Sequence[Contender], path: str | Path) -> tuple[Path, Path]:
    """Write the figure as SVG and as PNG beside each other, and return both paths.

    Args:
        rows: the networks, in the order of the picture.
        path: file to write; its ending, if .svg or .png, is replaced.

    Raises:
        ConfigError: there is no row, or the files cannot be written.
    """
    place = Path(path)
    stem = place.with_suffix("") if place.suffix in (".svg", ".png") else place
    files = (stem.with_name(f"{stem.name}.svg"), stem.with_name(f"{stem.name}.png"))
    figure = _compose(rows)
    for file in files:
        figure.save(file)
    return files
