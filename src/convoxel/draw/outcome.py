"""The report's sections about how well a run does: headline, curves, figures of each class, confusion."""

from __future__ import annotations

import math
from collections.abc import Sequence

from convoxel.draw.folder import RunFolder, mapping
from convoxel.draw.markup import Child, Markup, join, table, tag
from convoxel.draw.quantity import count, duration, figure, number, percent, sizes
from convoxel.draw.training_curves import charts
from convoxel.files.values import JsonObject

__all__ = ["show_classes", "show_confusion", "show_curves", "show_headline"]

_MATRIX = 24  # more classes than this do not fit a page; their confusions are listed instead
_LISTED = 40
_DOTS = 300
_WHOLE = "whole image"


def show_headline(run: RunFolder) -> Markup:
    """Return the large figures at the top."""
    cards: list[tuple[str, Child, str]] = []
    row, evaluation = run.best_row, run.evaluation
    metric = number(evaluation.get("metric")) if evaluation else number(row.get("metric"))
    if metric is not None:
        shown = percent(metric) if run.task == "classify" else figure(metric)
        cards.append((run.metric_name, shown, _basis(run)))
    step = evaluation.get("step", row.get("step"))
    if step is not None:
        last = run.last.get("step", run.metrics[-1].get("step") if run.metrics else None)
        cards.append(("best checkpoint", f"step {step}", f"of {last} taken" if last is not None else ""))
    elapsed = number(run.last.get("elapsed_s")) or (number(run.metrics[-1].get("time_s")) if run.metrics else None)
    if elapsed:
        cards.append(("training time", duration(elapsed), "validation included"))
    total = mapping(run.network.get("total"))
    if (params := number(total.get("params"))) is not None:
        cards.append(("parameters", count(params), f"{count(number(total.get('macs')) or 0)} MACs a patch"))
    field = total.get("field")
    if isinstance(field, list) and field:
        whole = all(total.get("whole") or [False])
        same = len(set(map(str, field))) == 1
        shown = _WHOLE if whole else (f"{field[0]}{'³²'[len(field) == 2] if len(field) > 1 else ''}"
                                             if same else sizes(field))  # fmt: skip
        cards.append(("receptive field", shown, "" if whole else "voxels" if len(field) == 3 else "pixels"))
    items = []
    for index, (name, value, note) in enumerate(cards):
        look = "words" if value == _WHOLE else None
        words = tag("dt", name, tag("small", note) if note else None)
        first = "first" if index == 0 and metric is not None else None
        items.append(tag("div", words, tag("dd", value, class_=look), class_=first))
    return tag("dl", *items, class_="headline") if items else Markup("")


def _basis(run: RunFolder) -> str:
    counted = run.evaluation.get("count")
    if not run.evaluation:
        return "best validation so far"
    return f"on {counted} held-out image{'' if counted == 1 else 's'}" if isinstance(counted, int) else "held out"


def show_curves(run: RunFolder) -> Markup:
    """Return the curves, over time or steps as the reader chooses, and the same numbers as a table."""
    head = tag("h2", "Training")
    if not run.metrics:
        return join([head, tag("p", "No validation has been recorded yet, so there is no curve to draw.")])
    parts: list[Child] = [head]
    parts.append(
        tag(
            "p",
            "Every marker is one validation; point at it for its numbers. The training loss is the mean since the "
            "validation before, with augmentation.",
            " Validations overlap their windows less than the closing evaluation does, so its figures differ a little."
            if run.task == "segment" and run.evaluation
            else None,
        )
    )
    for over, words in (("time", "over time"), ("step", "over steps")):
        name = f"over-{over}"
        parts.append(tag("input", type="radio", name="over", id=name, class_="switch", checked=over == "time"))
        parts.append(tag("label", words, for_=name))
    for over in ("time", "step"):
        drawn = charts(run.metrics, over=over, metric_name=run.metric_name)
        parts.append(
            tag("div", *(tag("div", Markup(each.svg()), class_="card") for each in drawn), class_=f"charts over-{over}")
        )
    columns = ("step", "epoch", "time", "training loss", "validation loss", run.metric_name, "learning rate")
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
    grid = table(columns, rows, numbers=range(len(columns)), caption="All validations", class_="scroll tall")
    parts.append(tag("details", tag("summary", f"All {len(rows)} validations as a table"), grid))
    return join(parts)


def _short(value: object) -> str:
    known = number(value)
    return "–" if known is None else f"{known:.4g}"


def show_classes(run: RunFolder) -> Markup:
    """Return the figures of each class, and of the single images where there are any."""
    per_class = mapping(run.evaluation.get("per_class")) or mapping(run.best_row.get("per_class"))
    head = tag("h2", "Classes")
    if not per_class:
        return join(
            [head, tag("p", "There are no figures of single classes yet; they come with the first validation.")]
        )
    source = (
        tag("p", "Measured with the best checkpoint on images that took no part in training. Recall is the share of "
                 "the true that was found, precision the share of the found that is true.")
        if run.evaluation
        else tag("p", "Of the best validation so far; the closing evaluation has not been made.")
    )  # fmt: skip
    return join([head, source, _class_table(run, per_class), _sample_table(run)])


def _class_table(run: RunFolder, per_class: JsonObject) -> Markup:
    segment = run.task == "segment"
    samples = _samples(run)
    matrix, names = _matrix(run), run.classes
    name = "Dice" if segment else "recall"
    spread = segment and len(samples) > 1
    head: list[Child] = ["class", "each image" if spread else "", name]
    if spread:
        head.append("lowest – highest")
    if matrix:
        head += ["recall", "precision", "labelled voxels"] if segment else ["precision", "images"]
    rows = []
    for place, (label, value) in enumerate(per_class.items()):
        mean = number(value)
        dice = [d for s in samples if (d := number(mapping(s.get("dice")).get(label))) is not None] if segment else []
        colour = place % 7 + 1 if segment else None
        swatch = tag("span", class_=f"swatch class{colour}") if segment else None
        row: list[Child] = [join([swatch, label]), _strip(label, mean, dice, colour)]
        row.append(figure(mean) if segment else percent(mean))
        if spread:
            row.append(f"{min(dice):.3f} – {max(dice):.3f}" if dice else "–")
        if matrix:
            index = names.index(label) if label in names else None
            row += _shares(matrix, index, segment)
        rows.append(row)
    return table(head, rows, numbers=range(2, len(head)), caption="Figures of each class", class_="scroll tall fit")


def _shares(matrix: list[list[float]], index: int | None, segment: bool) -> list[Child]:
    if index is None or index >= len(matrix):
        return ["–"] * (3 if segment else 2)
    right, truth, found = matrix[index][index], sum(matrix[index]), sum(row[index] for row in matrix)
    recall = percent(right / truth if truth else None)
    precision = percent(right / found if found else None)
    return [recall, precision, f"{truth:,.0f}"] if segment else [precision, f"{truth:,.0f}"]


def _strip(label: str, mean: float | None, dice: Sequence[float], colour: int | None) -> Markup:
    """Return a bar up to the mean, with a dot an image."""
    if mean is None:
        return tag("span", "no such image")
    parts = [tag("rect", x=0, y=5, width=240, height=12, rx=2, class_="track")]
    parts.append(tag("rect", x=0, y=5, width=240 * min(1.0, max(0.0, mean)), height=12, rx=2,
                     class_=f"bar class{colour}" if colour else "bar"))  # fmt: skip
    if len(dice) > 1:
        parts += [tag("circle", cx=3 + 234 * value, cy=11, r=2.4, class_="dot") for value in dice[:_DOTS]]
    words = f"{label}: {mean:.3f}" + (f" (mean of {len(dice)} images)" if len(dice) > 1 else "")
    return tag("svg", *parts, class_="strip", viewBox="0 0 240 22", role="img", aria_label=words)


def _samples(run: RunFolder) -> list[JsonObject]:
    listed = run.evaluation.get("samples")
    return [mapping(item) for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []


def _sample_table(run: RunFolder) -> Markup:
    samples = _samples(run)
    if run.task == "classify":
        return _mistakes(samples)
    if len(samples) < 2:
        return Markup("")
    graded = list(mapping(run.evaluation.get("per_class")))[:8]

    def grade(sample: JsonObject) -> float:
        metric = number(sample.get("metric"))
        return 2.0 if metric is None else metric  # without a figure: last

    ordered = sorted(samples, key=grade)
    rows = [
        (s.get("name"), figure(number(s.get("metric"))),
         *(figure(number(mapping(s.get("dice")).get(label))) for label in graded))
        for s in ordered[:200]
    ]  # fmt: skip
    head = ("image", "mean Dice", *graded)
    grid = table(head, rows, numbers=range(1, len(head)), caption="Dice of each image", class_="scroll tall")
    return tag("details", tag("summary", f"All {len(samples)} images, the hardest first" if len(samples) <= 200
                              else f"The hardest 200 of {len(samples)} images"), grid)  # fmt: skip


def _mistakes(samples: list[JsonObject]) -> Markup:
    wrong = [s for s in samples if s.get("correct") is False]
    if not samples:
        return Markup("")
    if not wrong:
        return tag("p", f"All {len(samples)} held-out images were recognised.", class_="text")
    wrong.sort(key=lambda s: -(number(s.get("probability")) or 0.0))
    rows = [
        (s.get("name"), s.get("label"), s.get("predicted"), percent(number(s.get("probability"))))
        for s in wrong[:_LISTED]
    ]
    grid = table(("image", "is", "was taken for", "confidence"), rows, numbers=(3,),
                 caption="Images that were not recognised", class_="scroll tall")  # fmt: skip
    more = f"; the {_LISTED} most confident" if len(wrong) > _LISTED else ", the most confident first"
    words = f"{len(wrong)} of {len(samples)} images were not recognised{more}"
    return tag("details", tag("summary", words), grid)


def _matrix(run: RunFolder) -> list[list[float]]:
    """Return the confusion matrix if it is one: square, of numbers, as large as there are classes."""
    rows = run.evaluation.get("confusion")
    size = len(run.classes)
    if not isinstance(rows, list) or len(rows) != size or not size:
        return []
    checked = [[number(v) for v in row] if isinstance(row, list) and len(row) == size else [None] for row in rows]
    if any(value is None or value < 0 for row in checked for value in row):
        return []
    return [[value or 0.0 for value in row] for row in checked]


def show_confusion(run: RunFolder) -> Markup:
    """Return which class was taken for which; empty without an evaluation."""
    matrix, names = _matrix(run), run.classes
    if not matrix:
        return Markup("")
    head = tag("h2", "Confusion")
    thing = "voxels" if run.task == "segment" and run.data.get("dims") == 3 else "pixels"
    if run.task == "classify":
        thing = "images"
    if len(matrix) > _MATRIX:
        return join([head, _pairs(matrix, names, thing)])
    words = (
        f"Each row shows what the {thing} of one true class were predicted as, in per cent of the row. "
        "Blue is right, orange is wrong; the stronger, the more."
        if run.task == "segment"
        else "Each row shows what the images of one true class were predicted as. Blue is right, orange is wrong; "
        "the stronger, the more of the row."
    )
    rows = [
        [tag("span", name, title=f"true {name}"), *(_cell(matrix, names, r, c, run.task) for c in range(len(matrix)))]
        for r, name in enumerate(names)
    ]
    top = tag("tr", tag("th", "true ↓  predicted →", scope="col"), *(tag("th", name, scope="col") for name in names))
    body = [tag("tr", tag("th", row[0], scope="row"), *row[1:]) for row in rows]
    grid = tag("table", tag("caption", "Confusion of the classes", class_="unseen"), tag("thead", top),
               tag("tbody", *body))  # fmt: skip
    box = tag("div", grid, class_="scroll matrix", role="region", tabindex="0", aria_label="Confusion of the classes")
    return join([head, tag("p", words), box])


def _cell(matrix: list[list[float]], names: Sequence[str], row: int, column: int, task: str) -> Markup:
    value, total = matrix[row][column], sum(matrix[row])
    share = value / total if total else 0.0
    shown = percent(share) if task == "segment" else f"{value:,.0f}"
    if not value:
        return tag("td", "0" if total else "–", class_="none")
    # Rare confusions are what one looks for, so wrong cells are shaded by the root of their share.
    depth = 0.08 + (0.5 * share if row == column else 0.6 * math.sqrt(share))
    hue = "0,114,178" if row == column else "213,94,0"
    title = f"{names[row]} predicted as {names[column]}: {value:,.0f} of {total:,.0f} ({percent(share)})"
    return tag("td", shown, title=title, style=f"background:rgba({hue},{depth:.2f})")


def _pairs(matrix: list[list[float]], names: Sequence[str], thing: str) -> Markup:
    found = [
        (value, value / sum(row), names[r], names[c])
        for r, row in enumerate(matrix)
        for c, value in enumerate(row)
        if r != c and value
    ]
    if not found:
        return tag("p", f"No class was taken for another among {len(matrix)} classes.")
    found.sort(key=lambda item: -item[0])
    rows = [(is_, taken, f"{value:,.0f}", percent(share)) for value, share, is_, taken in found[:_LISTED]]
    grid = table(("is", "was taken for", thing, f"of the class's {thing}"), rows, numbers=(2, 3),
                 caption="The most frequent confusions", class_="scroll tall")  # fmt: skip
    return join([tag("p", f"The most frequent of {len(found)} kinds of confusion among {len(matrix)} classes."), grid])
