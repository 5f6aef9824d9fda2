"""The images that a run was measured on: lists of them, and pictures of image, label, prediction and what is wrong.

Labels and predictions are transparent pictures that the page lays over the image. A case is predicted when it is asked
for, as the run's closing evaluation predicted it, and nothing is written.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from convoxel.data.bundled import BUNDLED
from convoxel.data.data_set import IGNORED, Sample
from convoxel.draw.image_overlay import filled_box, grey_window, layers, overlay_legend, png
from convoxel.draw.quantity import figure, number, percent
from convoxel.draw.volume_slice import PLANES, oriented_slice, plane_axis
from convoxel.errors import ConfigError, DataError
from convoxel.explorer.run_list import KnownRun
from convoxel.report.run_contents import Record, mapping, mappings

if TYPE_CHECKING:
    from PIL.Image import Image

    from convoxel.data import DataSet
    from convoxel.explorer.session import Session
    from convoxel.files.values import Array, JsonObject
    from convoxel.predict.inference import Predictor

_HEIGHT = 420
_SMALL = 132
_MOST_ROWS = 2000
_LARGEST_BYTES = 512 * 2**20
_STRIP = 48  # rows that a signal is shown as


@dataclass(frozen=True)
class Case:
    """A labelled image with what the network finds in it.

    Attributes:
        sample: the image.
        label: its label map with overlapping regions as their last one; None of a classification.
        prediction: likewise.
        window: the values shown as black and white.
        words: what was found, in words.
    """

    sample: Sample
    label: Array | None
    prediction: Array | None
    window: tuple[float, float]
    words: str


# ---- lists of cases -----------------------------------------------------------------------------------------


def list_cases(run: KnownRun, cell: tuple[int, int] | None = None) -> JsonObject:
    """Return the images of the evaluation, the worst first; with ``cell`` those of a cell of the confusion matrix.

    The worst are those with the lowest Dice, the most confident mistakes, or the largest errors.
    """
    contents = run.contents
    samples = mappings(contents.evaluation.get("samples"))
    told = ""
    if cell is not None:
        samples, told = _in_cell(run, samples, cell)
    else:
        samples = sorted(samples, key=_badness)
    graded = list(mapping(contents.evaluation.get("per_class")))[:6]
    rows = [_row(sample, contents.task, graded) for sample in samples[:_MOST_ROWS]]
    columns: list[JsonObject] = [{"name": "name", "title": "image"}]
    if contents.task == "segment":
        columns.append({"name": "metric", "title": "mean Dice", "number": True})
        columns += [
            {"name": f"d:{name}", "title": name, "number": True} for name in (graded if len(graded) > 1 else [])
        ]
    elif contents.task == "classify":
        columns += [{"name": "label", "title": "is"}, {"name": "predicted", "title": "was taken for"},
                    {"name": "probability", "title": "confidence", "number": True}]  # fmt: skip
    else:
        columns.append({"name": "error", "title": "error in deviations", "number": True})
    if cell is not None and contents.task == "segment":
        columns.insert(1, {"name": "count", "title": "voxels here", "number": True})
    return {"columns": columns, "rows": rows, "told": told, "count": len(samples)}


def _badness(sample: Record) -> tuple[float, float]:
    """Return what orders samples: the worst have the least."""
    if "correct" in sample:  # mistakes first, of them the most confident
        sure = number(sample.get("probability")) or 0.0
        return (0.0, -sure) if sample["correct"] is False else (1.0, sure)
    if "error" in sample:
        return (0.0, -(number(sample["error"]) or 0.0))
    metric = number(sample.get("metric"))
    return (0.0, metric) if metric is not None else (1.0, 0.0)


def _row(sample: Record, task: str, graded: Sequence[str]) -> JsonObject:
    cells: JsonObject = {"name": str(sample.get("name"))}
    values: JsonObject = {}
    if task == "segment":
        dice = mapping(sample.get("dice"))
        found = {"metric": number(sample.get("metric"))} | {f"d:{name}": number(dice.get(name)) for name in graded}
        cells |= {name: figure(value) for name, value in found.items()}
        values |= {name: -1.0 if value is None else value for name, value in found.items()}
        if (count := number(sample.get("_count"))) is not None:
            cells["count"], values["count"] = f"{count:,.0f}", count
    elif task == "classify":
        sure = number(sample.get("probability"))
        cells |= {"label": sample.get("label"), "predicted": sample.get("predicted"), "probability": percent(sure)}
        values["probability"] = sure
        values["wrong"] = sample.get("correct") is False
    else:
        cells["error"], values["error"] = figure(number(sample.get("error"))), number(sample.get("error"))
    return {"cells": cells, "values": values, "mark": "wrong" if values.get("wrong") else ""}


def _in_cell(run: KnownRun, samples: list[Record], cell: tuple[int, int]) -> tuple[list[Record], str]:
    """Return the samples of a cell, those with the most of it first, and the cell in words."""
    row, column = cell
    names = run.contents.classes
    if not (0 <= row < len(names) and 0 <= column < len(names)):
        raise ConfigError(f"cell: got {row},{column}; expected two numbers of classes, 0 to {len(names) - 1}.")
    told = f"{names[row]}, predicted as {names[column]}"
    if run.contents.task == "classify":
        chosen = [s for s in samples if (s.get("label"), s.get("predicted")) == (names[row], names[column])]
        return sorted(chosen, key=lambda s: -(number(s.get("probability")) or 0.0)), told
    counted = []
    for sample in samples:
        matrix = sample.get("confusion")
        if not isinstance(matrix, list) or len(matrix) != len(names):
            return sorted(samples, key=_badness), (
                f"{told}: the evaluation of this run does not say in which images; all are shown, the worst first. "
                f"`convoxel evaluate` counts them."
            )
        count = number(mapping({"value": matrix[row][column]}).get("value")) or 0.0
        if count:
            counted.append({**sample, "_count": count})
    return sorted(counted, key=lambda s: -(number(s["_count"]) or 0.0)), told


# ---- pictures of a case -------------------------------------------------------------------------------------


def examples(run: KnownRun) -> JsonObject:
    """Return the example pictures that the run kept, the worst first, as layers."""
    kept = run.contents.examples
    if not kept:
        return {"legend": [], "pictures": []}
    images, labels, predictions, names = (kept[name] for name in ("images", "labels", "predictions", "names"))
    classes, flat = run.contents.classes, labels.ndim < 3
    box = (slice(None), slice(None)) if flat else filled_box(images, labels, predictions)
    spacing = kept.get("spacing")
    pictures = []
    for index, image in enumerate(images):
        size = (1.0, 1.0) if spacing is None else (float(spacing[index, 0]), float(spacing[index, 1]))
        maps = () if flat else (labels[index][box], predictions[index][box])
        drawn = _encode(layers(image[box], *maps, spacing=size, height=_SMALL))
        words = str(names[index])
        if flat and labels.ndim == 1 and run.contents.task == "classify":
            words += f": {_name(classes, labels[index])}, predicted as {_name(classes, predictions[index])}"
        score = kept.get("scores")
        value = None if score is None or score.ndim != 1 else number(float(score[index]))
        told = "" if value is None or flat else f"{run.contents.metric_name} {figure(value)}"
        pictures.append({"name": str(names[index]).partition(", slice ")[0], "words": words, "told": told, **drawn})
    legend = [] if flat else overlay_legend(classes, labels, predictions)
    return {"legend": legend, "pictures": pictures}


def _name(classes: Sequence[str], value: object) -> str:
    index = int(str(value))
    return classes[index] if 0 <= index < len(classes) else f"class {index}"


def open_case(session: Session, run: KnownRun, name: str) -> Case:
    """Return a labelled image of the run's data with what its network finds in it.

    Raises:
        ForbiddenPath: the data lie elsewhere than in the folders that may be read.
        DataError: there is no such image, or it is too large to be shown.
    """
    return session.keep((run.folder, run.version, name), lambda: _predict(session, run, name), "cases", 4)


def _data(session: Session, run: KnownRun) -> DataSet:
    from convoxel.train.run_folder import load_data, load_members

    def load() -> DataSet:
        config = next(iter(load_members(run.folder).values())).config
        if config.data in BUNDLED:
            return load_data(config, run=run.folder)
        return load_data(config.model_copy(update={"data": str(session.path(config.data))}), run=run.folder)

    return session.keep((run.folder, str(run.contents.data.get("fingerprint"))), load, "data", 4)


def _predictor(session: Session, run: KnownRun) -> Predictor:
    from convoxel.train.run_folder import load_predictor

    step = run.contents.best.get("step")
    # PyTorch computes, as in the closing evaluation; a compiled program would be kept in the folder of the run.
    return session.keep((run.folder, step), lambda: load_predictor(run.folder, engine="torch", device="cpu"), "nets", 3)


def find_sample(session: Session, run: KnownRun, name: str) -> Sample:
    """Return a labelled image of the run's data; errors as of :func:`open_case`."""
    dataset = _data(session, run)
    for part in ("validation", "test", "train"):
        try:
            split = dataset.split(part)
        except DataError:
            continue
        if name in split.names:
            entry = split.entries[split.names.index(name)]
            if 4 * int(np.prod(entry.shape)) > _LARGEST_BYTES:
                raise DataError(f"case: {name} is larger than {_LARGEST_BYTES >> 20} MiB. See it with another viewer.")
            sample = entry.read()
            if sample.source is not None and str(run.contents.config.get("data")) not in BUNDLED:
                session.path(str(sample.source))
            return sample
    raise DataError(f"case: {name} is none of the run's images. Choose one of the list.")


def _predict(session: Session, run: KnownRun, name: str) -> Case:
    sample = find_sample(session, run, name)
    predictor = _predictor(session, run)
    facts, contents = predictor.run.data, run.contents
    known = next((s for s in mappings(contents.evaluation.get("samples")) if s.get("name") == name), {})
    if contents.task != "segment":
        words = ""
        if contents.task == "classify" and known:
            words = f"{known.get('label')}, predicted as {known.get('predicted')}"
            words += f" ({percent(number(known.get('probability')))} sure)"
        return Case(sample, None, None, grey_window(sample.image), words)
    found, label = np.asarray(predictor.label_map(sample)), np.asarray(sample.label)
    if len(facts.value_names) <= IGNORED:
        hidden = label == IGNORED
        label, found = (np.where(hidden, np.uint8(0), each) for each in (label, found))
    if facts.regions is not None:
        label, found = facts.regions.drawn(label), facts.regions.drawn(found)
    dice = mapping(known.get("dice"))
    words = ", ".join(f"{label} {figure(number(value))}" for label, value in list(dice.items())[1:7])
    return Case(sample, label, found, grey_window(sample.image), f"Dice: {words}" if words else "")


def describe_case(run: KnownRun, case: Case) -> JsonObject:
    """Return what the page needs to show a case: its planes with their numbers of slices, and the colours."""
    dims = case.sample.image.ndim - 1
    given = [array for array in (case.label, case.prediction) if array is not None]
    planes: list[JsonObject] = []
    wrong = None if len(given) < 2 else given[0] != given[1]
    for plane in PLANES if dims == 3 else ():
        axis = plane_axis(case.sample.stated_affine, plane)
        count = case.sample.image.shape[1 + axis]
        worst = count // 2
        if wrong is not None and wrong.any():
            worst = int(wrong.sum(axis=tuple(other for other in range(3) if other != axis)).argmax())
        planes.append({"name": plane, "count": count, "worst": worst})
    return {
        "name": case.sample.name, "words": case.words, "planes": planes, "channels": len(case.sample.image),
        "shape": " × ".join(map(str, case.sample.image.shape[1:])), "window": case.window,
        "ends": _ends(case.sample.image), "legend": overlay_legend(run.contents.classes, *given),
    }  # fmt: skip


def _ends(image: Array) -> tuple[float, float] | None:
    """Return the least and the largest value between which a window may lie; None for colours."""
    finite = image[np.isfinite(image)] if image.dtype.kind == "f" else image
    coloured = image.ndim == 3 and len(image) == 3
    return None if coloured or not finite.size else (float(finite.min()), float(finite.max()))


def draw_slice(
    case: Case, plane: str, index: int | None, channel: int = 0, window: tuple[float, float] | None = None
) -> JsonObject:
    """Return the layers of a plane of a volume, or of the whole of another image; ``window`` are black and white."""
    image = case.sample.image
    spacing: tuple[float, float] = (1.0, 1.0)
    marks: tuple[str, str, str, str] | None = None
    maps = [case.label, case.prediction]
    cut: Callable[[Array], Array] = lambda array: array  # noqa: E731
    if image.ndim == 4:
        affine = case.sample.stated_affine
        count = image.shape[1 + plane_axis(affine, plane if plane in PLANES else "axial")]
        if index is not None and not 0 <= index < count:
            raise ConfigError(f"slice: got {index}; expected 0 to {count - 1}.")
        shown = oriented_slice(image[channel], affine, plane, index)
        spacing, marks = shown.spacing, shown.marks
        if affine is None and case.sample.spacing_mm is not None:
            spacing = (case.sample.spacing_mm[shown.axes[0]], case.sample.spacing_mm[shown.axes[1]])
        picture = shown.pixels
        cut = lambda array: oriented_slice(array, affine, plane, index).pixels  # noqa: E731
    elif image.ndim == 2:  # a signal
        picture = np.repeat(image[channel][None], _STRIP, axis=0)
        cut = lambda array: np.repeat(array[None], _STRIP, axis=0)  # noqa: E731
    else:
        picture = np.moveaxis(image, 0, -1) if len(image) == 3 else image[channel]
    if window is None:
        window = case.window if picture.dtype != np.uint8 else None
    window = window if picture.ndim == 2 else None
    drawn = layers(
        picture if window else np.clip(picture, 0, 255).astype(np.uint8),
        *(None if each is None else cut(each) for each in maps),
        spacing=spacing, height=_HEIGHT, window=window,
    )  # fmt: skip
    return {**_encode(drawn), "marks": marks}


def _encode(pictures: Mapping[str, Image]) -> JsonObject:
    found: JsonObject = {}
    for name, picture in pictures.items():
        found[name] = f"data:image/png;base64,{base64.b64encode(png(picture)).decode()}"
        found["width"], found["height"] = picture.width, picture.height
    return found
