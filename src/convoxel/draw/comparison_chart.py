"""Networks side by side: a table's figures as bars, and quality against cost.

What the networks cost, see and reach was measured by others.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from convoxel.draw.bars import HEAD, Measure, draw_bars
from convoxel.draw.figure import Figure
from convoxel.draw.letter import fit, text_width
from convoxel.draw.pareto_chart import SCATTER, Entry, scatter
from convoxel.draw.quantity import count, duration, sizes
from convoxel.draw.scene import Look, Shape, Words
from convoxel.errors import ConfigError
from convoxel.files.values import JsonObject
from convoxel.predict.case_statistics import LEVEL, Difference, Interval, Spread

_ROW, _EDGE, _TOP = 26.0, 14.0, 58.0
_NAME = 280.0  # room for a name; a longer one loses its middle
_TITLE = Look(fill="ink", size=14, bold=True)
_LABEL = Look(fill="ink", size=12)
_SMALL = Look(fill="soft", size=11)


class Measured(NamedTuple):
    """One metric of a run: its unit, its value with the interval, and the mean difference to the best run's."""

    unit: str
    value: float | None
    interval: Interval | None
    difference: Difference | None


@dataclass(frozen=True)
class Quality:
    """The quality that a trained run reached, and on what it was measured.

    Attributes:
        metric_name: "Dice" or "accuracy".
        metric: the metric on the held-out images; None before the first validation.
        per_class: the metric of each class.
        group: letter of the runs that it compares with: same metric, data and images; empty where all do.
        basis: what it was measured on, in words.
        best: whether it is the best of several in its group.
        interval: interval of the metric over images; None of too few.
        spread: values of single images; None where the run has none yet.
        difference: mean difference to the best of its group over the same images; None of the best itself.
        measured: every metric of the evaluation by name, in the order asked for.
        train_s: training time.
        steps: optimiser steps.
    """

    metric_name: str = "Dice"
    metric: float | None = None
    per_class: Mapping[str, object] = dataclasses.field(default_factory=dict)
    group: str = ""
    basis: str = ""
    best: bool = False
    interval: Interval | None = None
    spread: Spread | None = None
    difference: Difference | None = None
    measured: Mapping[str, Measured] = dataclasses.field(default_factory=dict)
    train_s: float | None = None
    steps: int | None = None

    def to_dict(self) -> JsonObject:
        """Return the figures as JSON values."""
        plain = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        difference = _plain(self.difference)
        measured = {
            name: {**each._asdict(), "interval": _plain(each.interval), "difference": _plain(each.difference)}
            for name, each in self.measured.items()
        }
        nested = {"interval": _plain(self.interval), "spread": _plain(self.spread)}
        return {**plain, **nested, "difference": difference, "measured": measured}


def _plain(value: Interval | Difference | Spread | None) -> JsonObject | None:
    """Return a record, and those in it, as JSON values."""
    if value is None:
        return None
    return {name: _plain(item) if isinstance(item, Interval) else item for name, item in value._asdict().items()}


@dataclass(frozen=True)
class Contender:
    """One network of a comparison.

    Attributes:
        name: its name in the picture.
        shape: input (n, channels, *spatial) that the figures are for.
        params: parameters.
        macs: multiply-accumulates for that input.
        field: receptive field by axis; empty if unknown.
        whole: whether every output sees the whole image beside that, by global pooling for instance.
        latency_s: time of one run on our engine; None if not measured.
        quality: what its training reached; None without a training run.
        run: folder of that run; None without one.
    """

    name: str
    shape: tuple[int, ...]
    params: int
    macs: int
    field: tuple[int, ...] = ()
    whole: bool = False
    latency_s: float | None = None
    quality: Quality | None = None
    run: str | None = None

    @property
    def reach(self) -> float | None:
        """The widest receptive field; None if it is unknown."""
        return float(max(self.field)) if self.field else None

    @property
    def sight(self) -> str:
        """The receptive field in words."""
        return sizes(self.field, short=True) + (" + whole" if self.whole else "")

    @property
    def macs_a_pixel(self) -> float:
        """Multiply-accumulates for each pixel or voxel of the input, which compare where inputs differ."""
        return self.macs / math.prod((self.shape[0], *self.shape[2:]))

    def to_dict(self) -> JsonObject:
        """Return the figures as JSON values, those of the quality beside the others."""
        own = {each.name: getattr(self, each.name) for each in dataclasses.fields(self) if each.name != "quality"}
        return {**own, "macs_a_pixel": self.macs_a_pixel, **(self.quality or Quality(metric_name="")).to_dict()}


def same_input(rows: Sequence[Contender]) -> bool:
    """Return whether all figures are for one input, so that costs compare as they are."""
    return len({row.shape for row in rows}) == 1


def _measures(rows: Sequence[Contender]) -> list[Measure]:
    cost = [Measure("multiply–adds", lambda row: float(row.macs), count)]
    if not same_input(rows):
        cost.append(Measure("multiply–adds a pixel", lambda row: row.macs_a_pixel, count))
    return [
        Measure("parameters", lambda row: float(row.params), count),
        *cost,
        Measure("receptive field (pixels)", lambda row: row.reach, "{:.0f}".format),
        Measure("time of one run", lambda row: row.latency_s, _short_time),
        *(_grade(group, name) for group, name in _groups(rows).items()),
        Measure("training time", lambda row: (row.quality or Quality()).train_s, duration),
    ]


def _groups(rows: Sequence[Contender]) -> dict[str, str]:
    """Return the groups of runs that compare, with the heading of each."""
    found: dict[str, str] = {}
    for row in rows:
        if row.quality is not None:
            group = row.quality.group
            found.setdefault(group, f"{row.quality.metric_name}{f' on {group}' if group else ''}")
    return found


def _grade(group: str, heading: str) -> Measure:
    """Return the column of a group: its metrics as dots with their intervals; the rows of others stay empty."""

    def own(row: Contender) -> Quality:
        return row.quality if row.quality is not None and row.quality.group == group else Quality()

    return Measure(
        heading, lambda row: own(row).metric, "{:.3f}".format, grade=True, interval=lambda row: own(row).interval
    )


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
    cost, unit = ("macs", "multiply–adds") if same_input(rows) else ("macs_a_pixel", "multiply–adds a pixel")
    for group, quality in _groups(rows).items():
        scored = [
            Entry(row.name, getattr(row, cost), row.quality.metric, interval=row.quality.interval)
            for row in rows
            if row.quality is not None and row.quality.group == group and row.quality.metric is not None
        ]
        if len(scored) > 1:
            shapes.append(Words(left, height + 22, f"{quality} over {unit}", look=HEAD))
            drawn, begin, height = scatter(scored, x=unit, y=quality, corner=(left, height + 40))
            shapes += drawn
            width, height = max(width, begin + SCATTER + 24 + _EDGE), height + _EDGE
    for line in basis(rows):
        shapes.append(Words(_EDGE, height + 8, line, look=_SMALL))
        width, height = max(width, text_width(line, 11) + 2 * _EDGE), height + 18
    told = "; ".join(f"{row.name}: {count(row.params)} parameters, {count(row.macs)} multiply–adds" for row in rows)
    return Figure(title, told, width, height, tuple(shapes))


def basis(rows: Sequence[Contender]) -> list[str]:
    """Return in words what the qualities were measured on, and what their intervals say."""
    groups: dict[str, dict[str, None]] = {}
    for row in rows:
        if row.quality is not None:
            groups.setdefault(row.quality.group, {})[row.quality.basis] = None
    # Equal images may lie in folders of different names.
    said = {group: "; ".join(words) + " (the same images)" * (len(words) > 1) for group, words in groups.items()}
    lines = [f"Measured on {words}." for words in said.values()]
    if len(lines) > 1:
        within = "; ".join(f"{group}: {words}" for group, words in said.items())
        lines = [f"Other data, images or classes were held out, so qualities compare only within: {within}."]
    if any(row.quality is not None and row.quality.interval is not None for row in rows):
        lines.append(f"Intervals hold {100 * LEVEL:g} % over such images; another seed of training may change more.")
    qualities = [row.quality for row in rows if row.quality is not None]
    differences = [each.difference for each in qualities]
    differences += [each.difference for quality in qualities for each in quality.measured.values()]
    tests = {each.test for each in differences if each is not None}
    if tests & {"Wilcoxon", "McNemar"}:
        lines.append(
            "Differences: r is the rank-biserial correlation, p of Wilcoxon's (right or wrong: McNemar's) test."
        )
    if "bootstrap" in tests:
        lines.append("Of metrics of all images together, r is t / √(t² + n − 1) over n subjects, p of the bootstrap.")
    return lines


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
