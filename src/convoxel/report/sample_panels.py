"""The report's example predictions: pictures of a few held-out samples, with captions in words."""

from __future__ import annotations

import base64
from typing import NamedTuple

import numpy as np
from PIL import Image

from convoxel.draw.image_overlay import filled_box, overlay_legend, panels, png
from convoxel.draw.quantity import figure, number, percent
from convoxel.files.values import Array
from convoxel.report.run_contents import RunFolder, mappings

_HEIGHT = 300  # pixels of a drawn panel: sharp on a dense screen, some 60 kB
_TILE = 192
_NARROW = 1.15  # narrower pictures than this stand two examples abreast
_LIMIT = 24
_PANELS = {
    "image": ("image", "the image"),
    "label": ("label", "the image with its label"),
    "prediction": ("prediction", "the image with the prediction"),
    "difference": ("where they differ", "where prediction and label differ"),
}


class Picture(NamedTuple):
    """An image of data: PNG in base 64, what it shows in words, its size, a caption, and letters on its edges."""

    data: str
    shows: str
    width: int
    height: int
    caption: str = ""
    marks: tuple[tuple[str, str], ...] = ()  # (edge, letter)


class Sample(NamedTuple):
    """A segmented image: its name, its figures in words, its pictures."""

    name: str
    scores: str
    pictures: list[Picture]


class Tile(NamedTuple):
    """A classified image: its picture, the class that it was given and the true one, and how sure the network was."""

    name: str
    picture: Picture
    found: str
    true: str
    right: bool
    confidence: str


class Examples(NamedTuple):
    """All examples of a run: samples with a legend of (colour, words), or tiles."""

    words: str
    legend: list[tuple[str, str]]
    samples: list[Sample]
    tiles: list[Tile]
    narrow: bool = False


def prepare_examples(run: RunFolder) -> Examples | None:
    """Return the examples of a run; None if it holds none."""
    if not run.examples:
        return None
    images, labels, predictions = (run.examples[name] for name in ("images", "labels", "predictions"))
    which = f"Images of {run.elsewhere}" if run.elsewhere else "Held-out images that took no part in training"
    if labels.ndim < 3:
        found = f"{'values' if run.task == 'regress' else 'classes'} that the best checkpoint finds"
        if labels.ndim == 1:
            found = "class that the best checkpoint gives them"
        words = f"{which}, with the {found}; {'the worst' if run.task == 'regress' else 'wrong ones'} come first."
        return Examples(words, [], [], _tiles(run))
    words = f"{which}, as the best checkpoint sees them. "
    if "scores" in run.examples:
        words += "The worst come first. "
    if any(", slice " in str(name) for name in run.examples["names"]):
        words += "Slices across the volume's shortest axis."
        if "marks" in run.examples:
            words += " Letters on the edges: right, left, anterior, posterior, superior, inferior."
    box = filled_box(images, labels, predictions)
    rows, columns = images[0][box].shape[:2]
    if images.shape[1:3] != (rows, columns):
        words += " Empty borders are cut off."
    tall, wide = _spacing(run, 0)
    shown = [_segmented(run, index, box) for index in range(min(len(images), _LIMIT))]
    return Examples(
        words, overlay_legend(run.classes, labels, predictions), shown, [], columns * wide < _NARROW * rows * tall
    )


def _name(run: RunFolder, index: int) -> str:
    return run.classes[index] if index < len(run.classes) else f"class {index}"


def _names(run: RunFolder, answer: Array) -> str:
    """Return the name of a class number, those of the classes that an image has, or its values."""
    if run.task == "regress":
        return "; ".join(f"{value:.4g}" for value in np.atleast_1d(answer))
    if not answer.ndim:
        return _name(run, int(answer))
    return "; ".join(_name(run, int(index)) for index in np.flatnonzero(answer)) or "none"


def _spacing(run: RunFolder, index: int) -> tuple[float, float]:
    """Return the pixel's size (row, column) where the examples tell it; square pixels otherwise."""
    stored = run.examples.get("spacing")
    if stored is None or stored.ndim != 2 or stored.shape[1] != 2 or not (np.isfinite(stored) & (stored > 0)).all():
        return 1.0, 1.0
    return float(stored[index, 0]), float(stored[index, 1])


def _marks(run: RunFolder, index: int) -> tuple[tuple[str, str], ...]:
    """Return the letters on the edges (top, bottom, left, right) where the examples tell them."""
    stored = run.examples.get("marks")
    if stored is None or stored.ndim != 2 or stored.shape[1] != 4:
        return ()
    return tuple(zip("tblr", map(str, stored[index]), strict=True))


def _segmented(run: RunFolder, index: int, box: tuple[slice, slice]) -> Sample:
    image, label, prediction = (run.examples[name][index][box] for name in ("images", "labels", "predictions"))
    name, scores = str(run.examples["names"][index]), _whole_words(run, index) + _dice_words(run, label, prediction)
    pictures = []
    for kind, drawn in panels(image, label, prediction, spacing=_spacing(run, index), height=_HEIGHT).items():
        caption, shows = _PANELS[kind]
        shows = f"{name}: {shows}" + (f"; {scores}" if kind == "difference" else "")
        pictures.append(_picture(drawn, shows, caption, _marks(run, index) if kind == "image" else ()))
    return Sample(name, scores, pictures)


def _whole_words(run: RunFolder, index: int) -> str:
    """Return the metric of the whole image, which a picture shows a part of."""
    stored = run.examples.get("scores")
    value = None if stored is None or stored.ndim != 1 or stored.dtype.kind != "f" else number(float(stored[index]))
    return "" if value is None else f"{run.metric_name} of the whole image {figure(value)}. "


def _dice_words(run: RunFolder, label: Array, prediction: Array) -> str:
    words: list[str] = []
    regions = run.data.get("regions") is not None  # a picture shows one of the regions of a pixel
    for index in () if regions else range(1, max(int(label.max()), int(prediction.max())) + 1):
        truth, found = label == index, prediction == index
        size = int(truth.sum()) + int(found.sum())
        if size:
            words.append(f"{_name(run, index)} {2 * int((truth & found).sum()) / size:.3f}")
    wrong = float((label != prediction).mean())
    shown = f"Dice in this picture: {', '.join(words)}; " if words else ""
    return f"{shown}{percent(1.0 - wrong)} of the pixels shown agree"


def _tiles(run: RunFolder) -> list[Tile]:
    images, labels, predictions, names = (run.examples[n] for n in ("images", "labels", "predictions", "names"))
    known = {str(sample.get("name")): sample for sample in mappings(run.evaluation.get("samples"))}
    tiles = []
    # Wrong ones first: the reader learns most from them.
    right = (labels == predictions).reshape(len(labels), -1).all(axis=1)
    for i in np.argsort(right, kind="stable")[:_LIMIT]:
        name, true, found = str(names[i]), _names(run, labels[i]), _names(run, predictions[i])
        # Small pictures are enlarged pixel by pixel: smoothing would show what the network never saw.
        drawn = panels(images[i], height=images[i].shape[0])["image"]
        factor = _TILE / max(drawn.size)
        size = (max(1, round(drawn.width * factor)), max(1, round(drawn.height * factor)))
        enlarged = drawn.resize(size, Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS)
        picture = _picture(enlarged, f"{name}: {true}, predicted as {found}")
        sure = number(known.get(name, {}).get("probability"))
        confidence = "" if sure is None else f"{percent(sure)} sure"
        tiles.append(Tile(name, picture, found, true, bool(right[i]), confidence))
    return tiles


def _picture(picture: Image.Image, shows: str, caption: str = "", marks: tuple[tuple[str, str], ...] = ()) -> Picture:
    data = base64.b64encode(png(picture)).decode("ascii")
    return Picture(data, shows, picture.width, picture.height, caption, marks)
