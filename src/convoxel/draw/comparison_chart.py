"""Networks side by side: a table's figures as bars, and quality against cost.

What the networks cost, see and reach was measured by others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from convoxel.draw.bars import HEAD, Measure, draw_bars
from convoxel.draw.figure import Figure
from convoxel.draw.letter import fit, text_width
from convoxel.draw.pareto_chart import SCATTER, Entry, scatter
from convoxel.draw.quantity import count, duration, sizes
from convoxel.draw.scene import Look, Shape, Words
from convoxel.errors import ConfigError

_ROW, _EDGE, _TOP = 26.0, 14.0, 58.0
_NAME = 280.0  # room for a name; a longer one loses its middle
_TITLE = Look(fill="ink", size=14, bold=True)
_LABEL = Look(fill="ink", size=12)


@dataclass(frozen=True)
class Contender:
    """One network of a comparison.

    Attributes:
        name: its name in the picture.
        shape: input (n, channels, *spatial) that the figures are for.
        params: parameters.
        macs: multiply-accumulates.
        field: receptive field by axis; empty if unknown.
        whole: whether every output sees the whole image beside that, by global pooling for instance.
        latency_s: time of one run on our engine; None if not measured.
        metric_name: "Dice" or "accuracy"; empty without a training run.
        metric: the metric on the validation part.
        per_class: the metric of each class.
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
        return sizes(self.field, short=True) + (" + whole" if self.whole else "")


def _measures(rows: Sequence[Contender]) -> list[Measure]:
    quality = next((row.metric_name for row in rows if row.metric_name), "metric")
    return [
        Measure("parameters", lambda row: float(row.params), count),
        Measure("multiply–adds", lambda row: float(row.macs), count),
        Measure("receptive field (pixels)", lambda row: row.reach, "{:.0f}".format),
        Measure("time of one run", lambda row: row.latency_s, _short_time),
        Measure(quality, lambda row: row.metric, "{:.3f}".format, grade=True),
        Measure("training time", lambda row: row.train_s, duration),
    ]


def _short_time(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else duration(seconds)


def comparison(rows: Sequence[Contender]) -> Figure:
    """Return a figure with a row for each network and, where two of them have a quality, quality over cost.

    Args:
        rows: the networks, in the order of the picture.

    Raises:
        ConfigError: there is no row.

    >>> small, large = Contender("small", (1, 1, 8, 8), 100, 6400), Contender("large", (1, 1, 8, 8), 400, 25600)
    >>> comparison([small, large]).title
    '2 networks on an input of 1 × 1 × 8 × 8'
    """
    if not rows:
        raise ConfigError("comparison: rows is empty; a comparison needs at least one network.")
    title, names = _heading(rows), [fit(row.name, _NAME) for row in rows]
    left = _EDGE + max(text_width(name) for name in names) + 16
    middles = [_TOP + (index + 0.5) * _ROW for index in range(len(rows))]
    shapes: list[Shape] = [Words(_EDGE, 24, title, look=_TITLE)]
    for row, name, middle in zip(rows, names, middles, strict=True):
        shapes.append(Words(_EDGE, middle + 4, name, look=_LABEL, note=row.name))
    bars, right = draw_bars(rows, _measures(rows), (left, _TOP - 10), middles)
    shapes += bars
    width = max(right, text_width(title, 14, bold=True) + _EDGE) + _EDGE
    height = _TOP + len(rows) * _ROW + 26
    scored = [Entry(row.name, row.macs, row.metric) for row in rows if row.metric is not None]
    if len(scored) > 1:
        quality = next(row.metric_name for row in rows if row.metric is not None) or "metric"
        shapes.append(Words(left, height + 22, f"{quality} over multiply–adds", look=HEAD))
        drawn, begin, height = scatter(scored, x="multiply–adds", y=quality, corner=(left, height + 40))
        shapes += drawn
        width, height = max(width, begin + SCATTER + 24 + _EDGE), height + _EDGE
    told = "; ".join(f"{row.name}: {count(row.params)} parameters, {count(row.macs)} multiply–adds" for row in rows)
    return Figure(title, told, width, height, tuple(shapes))


def _heading(rows: Sequence[Contender]) -> str:
    """Say which input the figures are for."""
    if len({row.shape for row in rows}) > 1:
        return f"{len(rows)} networks, each on its own input"
    return f"{len(rows)} network{'s' if len(rows) > 1 else ''} on an input of {sizes(rows[0].shape)}"


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
    figure = comparison(rows)
    for file in files:
        figure.save(file)
    return files
