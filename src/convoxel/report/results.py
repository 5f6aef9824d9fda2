"""The report's figures of a run: headline, validations, each class, each image, confusion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from convoxel.draw.figure import Figure
from convoxel.draw.quantity import count, duration, figure, number, percent, sizes
from convoxel.draw.scene import Box, Disc, Look, Shape
from convoxel.draw.score_charts import calibration_chart, precision_recall_chart, roc_chart, value_chart
from convoxel.predict.case_statistics import Spread, accuracy_interval, read_cases
from convoxel.report.run_contents import Record, RunFolder, mapping, mappings

_MATRIX = 24  # more classes than this do not fit a page; their confusions are listed instead
_HEADLINED = 3  # more classes than this are in their table alone
_MEASURED = 6  # more classes than this are no columns of the table of all metrics
_LISTED, _IMAGES, _DOTS = 40, 200, 300
_WHOLE = "whole image"


class Card(NamedTuple):
    """A large figure at the top of the page: name, value and a note below."""

    name: str
    value: str
    note: str = ""
    main: bool = False

    @property
    def wordy(self) -> bool:
        """True where the value is words, which are set smaller than figures."""
        return self.value == _WHOLE


class Sheet(NamedTuple):
    """A table.

    Attributes:
        caption: its name.
        head: headings of the columns.
        rows: the cells; the first of each row is the row's heading.
        numbers: the columns that are set to the right (default: none).
        swatches: number of the class colour beside each row's heading (default: none).
        summary: the line that unfolds the table (default: it is open).
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[object]]
    numbers: range = range(0)
    swatches: Sequence[int] = ()
    summary: str = ""


class Cell(NamedTuple):
    """A cell of the confusion matrix, with its shade: background colour, and what it says when pointed at."""

    text: str
    title: str = ""
    hue: str = ""
    depth: float = 0.0


def headline(run: RunFolder) -> list[Card]:
    """Return the large figures at the top."""
    cards: list[Card] = []
    row, evaluation = run.best_row, run.evaluation
    metric = number(evaluation.get("metric") if evaluation else row.get("metric"))
    if metric is not None:
        shown = percent(metric) if run.metric_name == "accuracy" else figure(metric)
        cards.append(Card(run.metric_name, shown, _basis(run), main=True))
        cards += _class_cards(run)
    step, newest = evaluation.get("step", row.get("step")), run.metrics[-1] if run.metrics else {}
    if step is not None:
        last = run.last.get("step", newest.get("step"))
        cards.append(Card("best checkpoint", f"step {step}", f"of {last} taken" if last is not None else ""))
    if elapsed := number(run.last.get("elapsed_s")) or number(newest.get("time_s")):
        cards.append(Card("training time", duration(elapsed), "validation included"))
    total = mapping(run.network.get("total"))
    if (params := number(total.get("params"))) is not None:
        cards.append(Card("parameters", count(params), f"{count(number(total.get('macs')) or 0)} MACs a patch"))
    field = total.get("field")
    if isinstance(field, list) and field:
        power = {1: "", 2: "²", 3: "³"}.get(len(field), "")
        shown = f"{field[0]}{power}" if len(set(map(str, field))) == 1 else sizes(field)
        unit = "voxels" if len(field) == 3 else "pixels"
        whole = isinstance(sees := total.get("whole"), list) and bool(sees) and all(sees)
        cards.append(Card("receptive field", _WHOLE if whole else shown, "" if whole else unit))
    return cards


def _class_cards(run: RunFolder) -> list[Card]:
    """Return the figure of each class of a few: a mean hides one that is not found."""
    source = run.evaluation if run.evaluation else run.best_row
    per_class = mapping(source.get("per_class"))
    if run.task != "segment" or not 2 <= len(per_class) <= _HEADLINED:
        return []
    return [Card(name, figure(number(value)), "Dice") for name, value in per_class.items()]


def figure_table(run: RunFolder) -> tuple[Sheet, list[str]] | None:
    """Return every metric with its interval, for all classes and for each of a few, and what to know about them.

    None where the run has none: before its end, or from an earlier version.
    """
    figures = mapping(run.evaluation.get("figures"))
    if not figures:
        return None
    classes = list(
        dict.fromkeys(name for found in figures.values() for name in mapping(mapping(found).get("per_class")))
    )
    shown = classes if 1 < len(classes) <= _MEASURED else []
    rows = []
    for name, entries in figures.items():
        entry = mapping(entries)
        unit, by_class = str(entry.get("unit") or ""), mapping(entry.get("per_class"))
        cells = [entry, *(mapping(by_class.get(label)) for label in shown)]
        words = f"{name} ({unit})" if unit else name
        rows.append((words, *map(_value, cells), str(entry.get("better") or "–")))
    whole = "mean of the classes" if shown else "value"
    told = [f"{name}: {words}." for name in figures if (words := str(mapping(figures[name]).get("words") or ""))]
    head = ("metric", whole, *shown, "better")
    sheet = Sheet("All metrics with their intervals", head, rows, range(1, len(head) - 1))
    drawn, rule = mapping(run.evaluation.get("resampling")), str(run.evaluation.get("empty_rule") or "")
    method = str(drawn.get("method") or "")
    intervals = f"Intervals: {method}, over {drawn.get('subjects')} subjects." if drawn.get("replicates") else ""
    return sheet, [" ".join(told), " ".join(filter(None, (intervals, rule)))]


def _value(entry: Record) -> str:
    ends = entry.get("interval")
    known = [number(end) for end in ends] if isinstance(ends, list) and len(ends) == 2 else [None]
    value = figure(number(entry.get("value")))
    return value if None in known else f"{value} ({figure(known[0])} – {figure(known[1])})"


def score_charts(run: RunFolder) -> list[Figure]:
    """Return ROC and precision-recall curves and calibration of a classification, the scatter of a regression."""
    if run.task == "regress":
        return _scatters(run)
    curves, figures = mapping(run.evaluation.get("curves")), mapping(run.evaluation.get("figures"))

    def areas(name: str) -> dict[str, float]:
        by_class = mapping(mapping(figures.get(name)).get("per_class"))
        return {
            label: value for label in by_class if (value := number(mapping(by_class[label]).get("value"))) is not None
        }

    found = []
    for key, draw, name in (("roc", roc_chart, "auc"), ("precision_recall", precision_recall_chart, "ap")):
        lines = {label: line for label, points in mapping(curves.get(key)).items() if (line := _points(points))}
        if lines:
            found.append(draw(lines, areas(name)))
    bins = [
        (confidence, accuracy, int(images))
        for row in mappings(curves.get("calibration"))
        if (confidence := _unit(row.get("confidence"))) is not None
        and (accuracy := _unit(row.get("accuracy"))) is not None
        and (images := number(row.get("images"))) is not None
        and images >= 1
    ]
    if bins:
        found.append(calibration_chart(bins, number(mapping(figures.get("ece")).get("value"))))
    return found


def _points(stored: object) -> list[tuple[float, float]]:
    """Return points between 0 and 1; none if any is not."""
    pairs = stored if isinstance(stored, list) else []
    found = [
        (x, y)
        for pair in pairs
        if isinstance(pair, list) and len(pair) == 2
        if (x := _unit(pair[0])) is not None and (y := _unit(pair[1])) is not None
    ]
    return found if len(found) == len(pairs) > 1 else []


def _unit(value: object) -> float | None:
    found = number(value)
    return found if found is not None and 0 <= found <= 1 else None


def _basis(run: RunFolder) -> str:
    counted = run.evaluation.get("count")
    if not run.evaluation:
        return "best validation so far"
    noun = "image" if run.elsewhere else "held-out image"
    words = f"on {counted} {noun}{'' if counted == 1 else 's'}" if isinstance(counted, int) else "held out"
    cases = list(read_cases(mappings(run.evaluation.get("samples"))).values())
    spread = Spread.of([case.value for case in cases])
    key = {"mean AUC": "auc", "R²": "r2"}.get(run.metric_name, "dice")
    ends = mapping(mapping(run.evaluation.get("figures")).get(key)).get("interval")
    if run.metric_name != "accuracy" and isinstance(ends, list) and len(ends) == 2 and None not in map(number, ends):
        words += f", interval {figure(number(ends[0]))} – {figure(number(ends[1]))}"
    if run.task != "classify" and spread is not None and spread.images > 3:
        words += f", half of them {spread.quartile_1:.3f} – {spread.quartile_3:.3f}"
    elif run.metric_name == "accuracy" and (interval := accuracy_interval(cases)) is not None:
        words += f", interval {percent(interval.low)} – {percent(interval.high)}"
    return words


def validation_table(run: RunFolder) -> Sheet:
    """Return the numbers of all curves."""
    head = ("step", "epoch", "time", "training loss", "validation loss", run.metric_name, "learning rate")
    rows = [
        (
            row.get("step", "–"),
            row.get("epoch", "–"),
            duration(number(row.get("time_s")) or 0.0),
            *(_short(row.get(key)) for key in ("train_loss", "validation_loss")),
            figure(number(row.get("metric"))),
            _short(row.get("learning_rate")),
        )
        for row in run.metrics
    ]
    return Sheet("All validations", head, rows, range(len(head)), summary=f"All {len(rows)} validations as a table")


def _short(value: object) -> str:
    known = number(value)
    return "–" if known is None else f"{known:.4g}"


def class_table(run: RunFolder) -> Sheet | None:
    """Return the figures of each class; None before the first validation."""
    per_class = mapping(run.evaluation.get("per_class")) or mapping(run.best_row.get("per_class"))
    if not per_class:
        return None
    segment, samples, matrix, names = (
        run.task == "segment",
        mappings(run.evaluation.get("samples")),
        _matrix(run),
        run.classes,
    )
    spread = segment and len(samples) > 1
    by_class = "Dice" if segment else {"mean AUC": "AUC", "R²": "R²"}.get(run.metric_name, "recall")
    head = ["target" if run.task == "regress" else "class", "each image" if spread else "", by_class]
    head += ["lowest – highest"] if spread else []
    if matrix:
        head += ["recall", "precision", "labelled voxels"] if segment else ["precision", "images"]
    levels = mapping(run.evaluation.get("thresholds"))
    head += ["threshold", "of the largest F1", "this F1"] if levels else []
    rows = []
    for place, (label, value) in enumerate(per_class.items()):
        mean = number(value)
        dice = [d for s in samples if (d := number(mapping(s.get("dice")).get(label))) is not None] if segment else []
        row: list[object] = [label, _strip(label, mean, dice, f"c{place % 7 + 1}" if segment else "accent")]
        row.append(percent(mean) if by_class == "recall" else figure(mean))
        if spread:
            row.append(f"{min(dice):.3f} – {max(dice):.3f}" if dice else "–")
        if matrix:
            row += _shares(matrix, names.index(label) if label in names else None, segment)
        if levels:
            level = mapping(levels.get(label))
            row += [figure(number(level.get(key))) for key in ("threshold", "best", "best_f1")]
        rows.append(row)
    swatches = [place % 7 + 1 for place in range(len(rows))] if segment else []
    return Sheet("Figures of each class", head, rows, range(2, len(head)), swatches)


def _shares(matrix: list[list[float]], index: int | None, segment: bool) -> list[str]:
    if index is None or index >= len(matrix):
        return ["–"] * (3 if segment else 2)
    right, truth, found = matrix[index][index], sum(matrix[index]), sum(row[index] for row in matrix)
    recall = percent(right / truth if truth else None)
    precision = percent(right / found if found else None)
    return [recall, precision, f"{truth:,.0f}"] if segment else [precision, f"{truth:,.0f}"]


def _strip(label: str, mean: float | None, dice: Sequence[float], colour: str) -> Figure | str:
    """Return a bar up to the mean, with a dot for each image."""
    if mean is None:
        return "no such image"
    shapes: list[Shape] = [Box(0, 5, 240, 12, 2, look=Look(fill="grid"))]
    shapes.append(Box(0, 5, 240 * min(1.0, max(0.0, mean)), 12, 2, look=Look(fill=colour, opacity=0.6)))
    if len(dice) > 1:
        shapes += [Disc(3 + 234 * value, 11, 2.4, look=Look(fill="ink", opacity=0.5)) for value in dice[:_DOTS]]
    words = f"{label}: {mean:.3f}" + (f" (mean of {len(dice)} images)" if len(dice) > 1 else "")
    return Figure(words, "", 240, 22, tuple(shapes))


def sample_table(run: RunFolder) -> Sheet | str:
    """Return the figures of single images, the hardest first, or a sentence where a table would say no more."""
    samples = mappings(run.evaluation.get("samples"))
    if run.task == "classify":
        return _mistakes(samples)
    if run.task == "regress":
        return _errors(samples)
    if len(samples) < 2:
        return ""
    graded = list(mapping(run.evaluation.get("per_class")))[:8]

    def grade(sample: Record) -> float:
        metric = number(sample.get("metric"))
        return 2.0 if metric is None else metric  # without a figure: last

    rows = [
        (s.get("name"), *map(figure, map(number, (s.get("metric"), *(mapping(s.get("dice")).get(g) for g in graded)))))
        for s in sorted(samples, key=grade)[:_IMAGES]
    ]
    few = len(samples) <= _IMAGES
    words = (
        f"All {len(samples)} images, the hardest first" if few else f"The hardest {_IMAGES} of {len(samples)} images"
    )
    head = ("image", "mean Dice", *graded)
    return Sheet("Dice of each image", head, rows, range(1, len(head)), summary=words)


def _errors(samples: list[Record]) -> Sheet | str:
    """Return true and predicted values, the largest errors first."""
    if not samples:
        return ""
    worst = sorted(samples, key=lambda s: -(number(s.get("error")) or 0.0))[:_IMAGES]
    targets = list(mapping(worst[0].get("truth")))[:8]
    rows = [
        (s.get("name"), *(_short(mapping(s.get(side)).get(target)) for target in targets
                          for side in ("truth", "predicted")), _short(s.get("error")))
        for s in worst
    ]  # fmt: skip
    head = ["image", *(words for target in targets for words in (target, "predicted")), "error in deviations"]
    words = f"All {len(rows)} images" if len(rows) == len(samples) else f"{len(rows)} of {len(samples)} images"
    return Sheet("Values of each image", head, rows, range(1, len(head)), summary=f"{words}, the largest errors first")


def _scatters(run: RunFolder) -> list[Figure]:
    """Return predicted over true values of each of the first targets."""
    samples = mappings(run.evaluation.get("samples"))
    found = []
    for target in list(mapping(run.evaluation.get("per_class")))[:_HEADLINED]:
        points = [
            (truth, value, str(s.get("name")))
            for s in samples
            if (truth := number(mapping(s.get("truth")).get(target))) is not None
            and (value := number(mapping(s.get("predicted")).get(target))) is not None
        ]
        if points:
            found.append(value_chart(points, target))
    return found


def _mistakes(samples: list[Record]) -> Sheet | str:
    wrong = [s for s in samples if s.get("correct") is False]
    if not wrong:
        return f"All {len(samples)} images were recognised." if samples else ""
    wrong.sort(key=lambda s: -(number(s.get("probability")) or 0.0))
    rows = [
        (s.get("name"), s.get("label"), s.get("predicted"), percent(number(s.get("probability"))))
        for s in wrong[:_LISTED]
    ]
    more = f"; the {_LISTED} most confident" if len(wrong) > _LISTED else ", the most confident first"
    words = f"{len(wrong)} of {len(samples)} images were not recognised{more}"
    head = ("image", "is", "was taken for", "confidence")
    return Sheet("Images that were not recognised", head, rows, range(3, 4), summary=words)


def _matrix(run: RunFolder) -> list[list[float]]:
    """Return the confusion matrix if it is one: square, of numbers, as large as there are classes."""
    rows, size = run.evaluation.get("confusion"), len(run.classes)
    if not isinstance(rows, list) or len(rows) != size or not size:
        return []
    checked = [[number(v) for v in row] if isinstance(row, list) and len(row) == size else [None] for row in rows]
    if any(value is None or value < 0 for row in checked for value in row):
        return []
    return [[value or 0.0 for value in row] for row in checked]


def confusion(run: RunFolder) -> tuple[str, list[tuple[str, list[Cell]]], Sheet | None] | None:
    """Return a sentence with the rows of the matrix, or with the list of the most frequent confusions of many classes.

    None without an evaluation.
    """
    matrix, names = _matrix(run), run.classes
    if not matrix:
        return None
    segment = run.task == "segment"
    things = ("voxels" if run.data.get("dims") == 3 else "pixels") if segment else "images"
    if len(matrix) > _MATRIX:
        return _pairs(matrix, names, things)
    words = f"Each row shows what the {things} of one true class were predicted as"
    words += ", in per cent of the row. " if segment else ". "
    words += f"Blue is right, orange is wrong; the stronger, the more{'' if segment else ' of the row'}."
    rows = [(name, [_cell(matrix, names, r, c, segment) for c in range(len(matrix))]) for r, name in enumerate(names)]
    return words, rows, None


def _cell(matrix: list[list[float]], names: Sequence[str], row: int, column: int, segment: bool) -> Cell:
    value, total = matrix[row][column], sum(matrix[row])
    if not value:
        return Cell("0" if total else "–")
    share = value / total
    # Rare confusions matter most, so wrong cells are shaded by the root of their share.
    depth = 0.08 + (0.5 * share if row == column else 0.6 * math.sqrt(share))
    hue = "0,114,178" if row == column else "213,94,0"
    title = f"{names[row]} predicted as {names[column]}: {value:,.0f} of {total:,.0f} ({percent(share)})"
    return Cell(percent(share) if segment else f"{value:,.0f}", title, hue, depth)


def _pairs(
    matrix: list[list[float]], names: Sequence[str], things: str
) -> tuple[str, list[tuple[str, list[Cell]]], Sheet | None]:
    found = [
        (value, value / sum(row), names[r], names[c])
        for r, row in enumerate(matrix)
        for c, value in enumerate(row)
        if r != c and value
    ]
    if not found:
        return f"No class was taken for another among {len(matrix)} classes.", [], None
    found.sort(key=lambda item: -item[0])
    rows = [(true, taken, f"{value:,.0f}", percent(share)) for value, share, true, taken in found[:_LISTED]]
    head = ("is", "was taken for", things, f"of the class's {things}")
    words = f"The most frequent of {len(found)} kinds of confusion among {len(matrix)} classes."
    return words, [], Sheet("The most frequent confusions", head, rows, range(2, 4))
