"""The report's example predictions: pictures of a few held-out samples, with captions in words."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from convoxel.draw.folder import RunFolder, mapping
from convoxel.draw.image_overlay import errors, filled_box, panels, png
from convoxel.draw.markup import Child, Markup, join, tag
from convoxel.draw.quantity import number, percent

__all__ = ["show_examples"]

Array = npt.NDArray[Any]

_HEIGHT = 300  # pixels of a drawn panel: sharp on a dense screen, some 60 kB
_TILE = 192
_NARROW = 1.15  # narrower pictures than this stand two examples abreast
_LIMIT = 24
_WORDS = {"image": "image", "label": "label", "prediction": "prediction", "difference": "where they differ"}
_WRONG = {
    "missed": "missed (predicted as background)",
    "extra": "extra (labelled as background)",
    "confused": "one class for another",
}


def show_examples(run: RunFolder) -> Markup:
    """Return the examples section."""
    head = tag("h2", "Examples")
    if not run.examples:
        return join(
            [head, tag("p", "There are no example predictions yet; they are made when the run comes to its end.")]
        )
    images, labels = run.examples["images"], run.examples["labels"]
    if labels.ndim == 1:
        return join(
            [head, tag("p", "Held-out images, with the class that the best checkpoint gives them."), _tiles(run)]
        )
    sliced = any(", slice " in str(name) for name in run.examples["names"])
    words = "Held-out images that took no part in training, as the best checkpoint sees them. "
    if sliced:
        words += "Slices across the volume's shortest axis."
        if "marks" in run.examples:
            words += " Letters on the edges: right, left, anterior, posterior, superior, inferior."
    box = filled_box(images, labels, run.examples["predictions"])
    if images[0][box].shape != images[0].shape:
        words += " Empty borders are cut off."
    rows, columns = run.examples["images"][0][box].shape[:2]
    narrow = columns * _spacing(run, 0)[1] < _NARROW * rows * _spacing(run, 0)[0]
    shown = [_segmented(run, index, box) for index in range(min(len(images), _LIMIT))]
    return join(
        [head, tag("p", words), _legend(run), tag("div", *shown, class_=f"examples{' narrow' if narrow else ''}")]
    )


def _legend(run: RunFolder) -> Markup:
    """Return what the colours mean: every class but the background, and the kinds of error that occur."""
    labels, predictions = run.examples["labels"], run.examples["predictions"]
    highest = max(int(labels.max()), int(predictions.max()), len(run.classes) - 1)
    entries = [(f"class{(i - 1) % 7 + 1}", _name(run, i)) for i in range(1, highest + 1)]
    entries += [(kind, _WRONG[kind]) for kind, wrong in errors(labels, predictions).items() if wrong.any()]
    return tag("ul", *(tag("li", tag("span", class_=f"swatch {look}"), words) for look, words in entries),
               class_="legend")  # fmt: skip


def _name(run: RunFolder, index: int) -> str:
    return run.classes[index] if index < len(run.classes) else f"class {index}"


def _spacing(run: RunFolder, index: int) -> tuple[float, float]:
    """Return the pixel's size (row, column) where the examples tell it; square pixels otherwise."""
    stored = run.examples.get("spacing")
    if stored is None or stored.ndim != 2 or stored.shape[1] != 2 or not (np.isfinite(stored) & (stored > 0)).all():
        return 1.0, 1.0
    return float(stored[index, 0]), float(stored[index, 1])


def _marks(run: RunFolder, index: int) -> list[Markup]:
    """Return the letters on the edges (top, bottom, left, right) where the examples tell them."""
    stored = run.examples.get("marks")
    if stored is None or stored.ndim != 2 or stored.shape[1] != 4:
        return []
    return [tag("i", letter, class_=place) for letter, place in zip(map(str, stored[index]), "tblr", strict=True)]


def _segmented(run: RunFolder, index: int, box: tuple[slice, slice]) -> Markup:
    image, label, prediction = (run.examples[name][index][box] for name in ("images", "labels", "predictions"))
    name = str(run.examples["names"][index])
    pictures = panels(image, label, prediction, spacing=_spacing(run, index), height=_HEIGHT)
    scores = _dice_words(run, label, prediction)
    told = {
        "image": f"{name}: the image",
        "label": f"{name}: the image with its label",
        "prediction": f"{name}: the image with the prediction",
        "difference": f"{name}: where prediction and label differ; {scores}",
    }
    shown = [
        tag("div", tag("div", _picture(picture, told[kind]), *(_marks(run, index) if kind == "image" else ()),
                       class_="framed"), tag("span", _WORDS[kind]), class_="panel")
        for kind, picture in pictures.items()
    ]  # fmt: skip
    caption = tag("figcaption", tag("b", name), f" — {scores}")
    return tag("figure", tag("div", *shown, class_="panels"), caption, class_="card example")


def _dice_words(run: RunFolder, label: Array, prediction: Array) -> str:
    words = []
    for index in range(1, max(int(label.max()), int(prediction.max())) + 1):
        truth, found = label == index, prediction == index
        size = int(truth.sum()) + int(found.sum())
        if size:
            words.append(f"{_name(run, index)} {2 * int((truth & found).sum()) / size:.3f}")
    wrong = float((label != prediction).mean())
    shown = f"Dice in this picture: {', '.join(words)}; " if words else ""
    return f"{shown}{percent(1.0 - wrong)} of the pixels shown agree"


def _tiles(run: RunFolder) -> Markup:
    images, labels, predictions, names = (run.examples[n] for n in ("images", "labels", "predictions", "names"))
    listed = run.evaluation.get("samples")
    known = {str(mapping(s).get("name")): mapping(s) for s in listed} if isinstance(listed, list) else {}
    # Wrong ones first: they are what the reader can learn from.
    order = np.argsort(labels == predictions, kind="stable")[:_LIMIT]
    return tag("div", *(_tile(run, images[i], int(labels[i]), int(predictions[i]), str(names[i]),
                              number(known.get(str(names[i]), {}).get("probability"))) for i in order),
               class_="tiles")  # fmt: skip


def _tile(run: RunFolder, image: Array, label: int, found: int, name: str, sure: float | None) -> Markup:
    right = label == found
    # Small pictures are enlarged pixel by pixel: smoothing would show what the network never saw.
    drawn = panels(image, height=image.shape[0])["image"]
    factor = _TILE / max(drawn.size)
    size = (max(1, round(drawn.width * factor)), max(1, round(drawn.height * factor)))
    enlarged = drawn.resize(size, Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS)
    words: list[Child] = [tag("span", f"✓ {_name(run, found)}", class_="right")] if right else [
        tag("span", f"✗ {_name(run, found)}", class_="wrong"), f", is {_name(run, label)}"
    ]  # fmt: skip
    if sure is not None:
        words.append(f" ({percent(sure)} sure)")
    alternative = f"{name}: {_name(run, label)}, predicted as {_name(run, found)}"
    return tag("figure", _picture(enlarged, alternative), tag("figcaption", *words, tag("br"), tag("small", name)),
               class_="card")  # fmt: skip


def _picture(picture: Image.Image, alternative: str) -> Markup:
    data = base64.b64encode(png(picture)).decode("ascii")
    return tag("img", src=f"data:image/png;base64,{data}", alt=alternative, width=picture.width, height=picture.height)
