"""An image with its label, its prediction and their difference: separate panels, or one picture of all.

Classes are drawn as a translucent fill with a full-colour contour, so that the image underneath stays
readable; label pixels are enlarged without smoothing, because the picture must show what the arrays say.
This module computes no figure: captions come from the caller.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from convoxel.draw.caption import EDGE, TITLE, legend
from convoxel.draw.figure import Figure
from convoxel.draw.letter import text_width
from convoxel.draw.scene import Look, Shape, Words
from convoxel.draw.theme import CLASS_COLOURS, ERROR_COLOURS, class_colour, colour
from convoxel.errors import ConfigError, DataError, ShapeError
from convoxel.files.atomic import write_bytes
from convoxel.files.values import Array
from convoxel.lazy import LazyModule

if TYPE_CHECKING:
    from PIL import Image
else:
    Image = LazyModule("PIL.Image")

Pixels = npt.NDArray[np.uint8]

_FILL = 0.4  # opacity of a class's fill: below 0.3 thin structures vanish, above 0.45 the grey texture does
_SHADE = 0.8  # brightness of the image under the classes: on tissue shown as white the fills would look pale
_DIM = 0.55  # brightness of the image under the difference, so that the errors stand out


_CAPTION, _NOTE = Look(fill="ink", size=14, align="middle"), Look(fill="faint", size=12, align="middle")
_GAP = 10  # between panels
_WRONG = {
    "missed": "missed (predicted as background)",
    "extra": "extra (labelled as background)",
    "confused": "one class for another",
}


def overlay(
    image: Array,
    label: Array | None = None,
    prediction: Array | None = None,
    *,
    classes: Sequence[str] = (),
    spacing: tuple[float, float] = (1.0, 1.0),
    marks: tuple[str, str, str, str] | None = None,
    captions: dict[str, str] | None = None,
    title: str = "",
    panel_height: int = 300,
    window: tuple[float, float] | None = None,
    crop: bool = False,
) -> Image.Image:
    """Return one picture: image | label | prediction | difference, as far as they are given.

    Args:
        image: (rows, columns), (1 or 3, rows, columns) or (rows, columns, 3); any number type.
        label: (rows, columns) of whole numbers, 0 = background; masks of 0 and 255 count as 0 and 1; or None.
        prediction: like label; or None.
        classes: the names, background first; they make the legend.
        spacing: size of a pixel (row, column), so that the picture has the body's proportions.
        marks: letters for the top, bottom, left and right edge of the first panel.
        captions: a second line under a panel, by its name ("image", "label", "prediction", "difference").
        title: a line above the panels.
        panel_height: wanted height of a panel in pixels; wide panels are limited to twice that width.
        window: the grey values shown as black and white; None: :func:`grey_window` of the image.
        crop: leave out empty borders, as :func:`filled_box` finds them.

    Returns:
        A PIL image in RGB.

    Raises:
        ShapeError: the image is not two-dimensional, or a label's size differs from the image's.

    >>> picture = overlay(np.zeros((20, 30)), np.ones((20, 30), np.uint8), classes=("back", "cell"))
    >>> picture.mode, picture.width > picture.height
    ('RGB', True)
    """
    if crop:
        image, label, prediction = _crop(image, label, prediction)
    pictures = panels(image, label, prediction, spacing=spacing, height=panel_height, window=window)
    given = [_classes(np.asarray(a)) for a in (label, prediction) if a is not None]
    entries = [(Look(fill=role), words) for role, words in overlay_legend(classes, *given)]
    return _compose(pictures, captions or {}, marks, entries, title)


def save_overlay(path: str | os.PathLike[str], image: Array, *arguments: Any, **options: Any) -> Path:
    """Write the picture of :func:`overlay` (same arguments) as a PNG file, whole or not at all; return its path.

    Raises:
        ConfigError: the name does not end in .png.
        DataError: the file cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise ConfigError(f"save_overlay: path is {target.name!r}; pictures are written as PNG, so end it in .png.")
    return write_bytes(target, png(overlay(image, *arguments, **options)))


def panels(
    image: Array,
    label: Array | None = None,
    prediction: Array | None = None,
    *,
    spacing: tuple[float, float] = (1.0, 1.0),
    height: int = 300,
    window: tuple[float, float] | None = None,
) -> dict[str, Image.Image]:
    """Return the pictures "image", "label", "prediction" and "difference" (those that are given), all of one size.

    Arguments and errors as for :func:`overlay`; ``height`` is the wanted height in pixels.

    >>> list(panels(np.zeros((4, 4)), np.ones((4, 4), np.uint8)))
    ['image', 'label']
    """
    grey, enlarged = _enlarged(image, label, prediction, spacing, height, window)
    pictures = {"image": grey}
    pictures.update((name, paint(grey, labels)) for name, labels in enlarged.items())
    if len(enlarged) == 2:
        pictures["difference"] = difference(grey, enlarged["label"], enlarged["prediction"])
    return pictures


def layers(
    image: Array,
    label: Array | None = None,
    prediction: Array | None = None,
    *,
    spacing: tuple[float, float] = (1.0, 1.0),
    height: int = 300,
    window: tuple[float, float] | None = None,
) -> dict[str, Image.Image]:
    """Return the "image", and "label", "prediction" and "difference" as transparent pictures to lie over it.

    Arguments and errors as for :func:`panels`.

    >>> [picture.mode for picture in layers(np.zeros((4, 4)), np.ones((4, 4), np.uint8)).values()]
    ['RGB', 'RGBA']
    """
    grey, there = _enlarged(image, label, prediction, spacing, height, window)
    size, pictures = grey.size, {"image": grey}
    for name, labels in there.items():
        shades = np.array([(0, 0, 0), *(class_colour(index) for index in range(1, int(labels.max(initial=0)) + 1))])
        edge = edges(labels, thickness=max(1, round(size[1] / 150)))
        alpha = np.where(labels > 0, np.where(edge, 255, round(255 * _FILL)), 0)
        pictures[name] = _veil(shades[labels], alpha)
    if len(there) == 2:
        shades, alpha = np.zeros((size[1], size[0], 3)), np.zeros((size[1], size[0]))
        for name, wrong in errors(there["label"], there["prediction"]).items():
            shades[wrong], alpha[wrong] = ERROR_COLOURS[name], 0.85 * 255
        pictures["difference"] = _veil(shades, alpha)
    return pictures


def _enlarged(
    image: Array,
    label: Array | None,
    prediction: Array | None,
    spacing: tuple[float, float],
    height: int,
    window: tuple[float, float] | None,
) -> tuple[Image.Image, dict[str, Array]]:
    """Return the image and those label maps that are given, all of the size of a panel."""
    base = image_pixels(image, window)
    given = {"label": label, "prediction": prediction}
    there = {name: _classes(np.asarray(array)) for name, array in given.items() if array is not None}
    for name, array in there.items():
        if array.shape != base.shape[:2]:
            raise ShapeError(
                f"overlay: {name} has shape {array.shape} but the image has {base.shape[:2]} (rows, columns). "
                f"Give a {name} of the image's size."
            )
    size = _panel_size(base.shape[:2], spacing, height)
    grey = Image.fromarray(base).resize(size, Image.Resampling.BICUBIC)
    return grey, {name: enlarge(array, size) for name, array in there.items()}


def _classes(labels: Array) -> Array:
    """Return class numbers: masks of 0 and 255, as paint programs make them, have one class."""
    found = set(np.unique(labels).tolist())
    return np.minimum(labels, 1) if 255 in found <= {0, 255} else labels


def _veil(shades: Array, alpha: Array) -> Image.Image:
    return Image.fromarray(np.dstack([shades, alpha]).astype(np.uint8))


def paint(picture: Image.Image, labels: Array) -> Image.Image:
    """Return ``picture`` with the classes of ``labels`` (its size, 0 = none) as fills and contours."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32) * _SHADE
    edge = edges(labels, thickness=max(1, round(picture.height / 150)))
    for index in np.unique(labels):
        if index > 0:
            shade = np.asarray(class_colour(int(index)), dtype=np.float32)
            inside = labels == index
            pixels[inside] = pixels[inside] * (1 - _FILL) + shade * _FILL
            pixels[inside & edge] = shade
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


def difference(picture: Image.Image, label: Array, prediction: Array) -> Image.Image:
    """Return ``picture``, dimmed, with missed, extra and confused pixels of the prediction marked."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32) * _DIM
    for name, wrong in errors(label, prediction).items():
        pixels[wrong] = 0.15 * pixels[wrong] + 0.85 * np.asarray(ERROR_COLOURS[name], dtype=np.float32)
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


def grey_window(image: Array) -> tuple[float, float]:
    """Return the values to show as black and white: the 0.5 % and 99.5 % quantiles of the finite pixels.

    >>> low, high = grey_window(np.linspace(0.0, 100.0, 1001))
    >>> round(low, 1), round(high, 1)
    (0.5, 99.5)
    """
    if image.dtype.kind not in "biuf":
        raise DataError(f"overlay: image has the type {image.dtype}; give real numbers.")
    finite = image[np.isfinite(image)]
    finite = finite.astype(np.uint8) if finite.dtype == bool else finite
    if finite.size == 0:
        raise DataError("overlay: image has no finite pixel; give an image with numbers in it.")
    low, high = (float(v) for v in np.quantile(finite, (0.005, 0.995)))
    if high <= low:
        low, high = float(finite.min()), float(finite.max())
    return (low, high) if high > low else (low, low + 1.0)


def filled_box(images: Array, *labels: Array) -> tuple[slice, slice]:
    """Return the rows and columns outside which all pictures are empty; everything if nothing is filled.

    Empty is what an image shows in its corner (air, or the border that pads small pictures) where no label
    is above 0. One box for all pictures keeps them comparable; a margin keeps outlines free.

    Args:
        images: (pictures, rows, columns) or (pictures, rows, columns, 3).
        labels: (pictures, rows, columns) each.

    >>> picture = np.zeros((1, 50, 50))
    >>> picture[0, 10:20, 30:] = 1.0
    >>> filled_box(picture)
    (slice(8, 22, None), slice(28, 50, None))
    """
    filled: npt.NDArray[np.bool_] = np.zeros(images.shape[1:3], dtype=bool)
    for given in labels:
        filled |= np.any(given > 0, axis=0)
    for image in images:
        grey = image.astype(np.float64).reshape(*image.shape[:2], -1)
        low, high = grey_window(grey)
        with np.errstate(invalid="ignore"):
            filled |= np.any(np.abs(grey - grey[0, 0]) > 0.05 * (high - low), axis=-1)
    if not filled.any():
        return slice(0, filled.shape[0]), slice(0, filled.shape[1])
    box = []
    for axis, size in enumerate(filled.shape):
        places = np.flatnonzero(np.any(filled, axis=1 - axis))
        margin = max(1, size // 25)
        box.append(slice(max(0, int(places[0]) - margin), min(size, int(places[-1]) + 1 + margin)))
    return box[0], box[1]


def png(picture: Image.Image) -> bytes:
    """Return ``picture`` as the bytes of a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def _crop(image: Array, label: Array | None, prediction: Array | None) -> tuple[Array, Array | None, Array | None]:
    """Return the three without their empty borders; a label of another size is left for `panels` to refuse."""
    base = image_pixels(image, None)
    given = [np.asarray(a)[None] for a in (label, prediction) if a is not None and np.shape(a) == base.shape[:2]]
    rows, columns = filled_box(base[None], *given)
    last = np.ndim(image) == 2 or (np.shape(image)[0] in (1, 3) and np.shape(image)[2] not in (1, 3))
    cut = np.asarray(image)[..., rows, columns] if last else np.asarray(image)[rows, columns]
    smaller = [a if a is None or np.shape(a) != base.shape[:2] else np.asarray(a)[rows, columns]
               for a in (label, prediction)]  # fmt: skip
    return cut, smaller[0], smaller[1]


def image_pixels(image: Array, window: tuple[float, float] | None = None) -> Pixels:
    """Return the image as (rows, columns, 3) bytes."""
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[2] not in (1, 3):
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)) or 0 in pixels.shape:
        raise ShapeError(
            f"overlay: image has shape {np.asarray(image).shape}; give (rows, columns), or one or three "
            "channels first or last. Of a volume draw one slice (draw.oriented_slice)."
        )
    if pixels.dtype != np.uint8 or window is not None:
        low, high = window or grey_window(pixels)
        finite = np.nan_to_num(pixels.astype(np.float64), nan=low, posinf=high, neginf=low)
        scaled = (finite - low) / (high - low)
        pixels = np.rint(np.clip(scaled, 0.0, 1.0) * 255.0).astype(np.uint8)
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels


def shrunk(image: Image.Image, most: int = 512) -> Image.Image:
    """Return the image, made smaller where it has more pixels than are shown."""
    if max(image.size) <= most:
        return image
    small = image.copy()
    small.thumbnail((most, most))
    return small


def _panel_size(shape: tuple[int, ...], spacing: tuple[float, float], height: int) -> tuple[int, int]:
    """Return (width, height) of a panel in the body's proportions."""
    tall, wide = shape[0] * spacing[0], shape[1] * spacing[1]
    scale = min(height / tall, 2.0 * height / wide)
    return max(1, round(wide * scale)), max(1, round(tall * scale))


def enlarge(labels: Array, size: tuple[int, int]) -> Array:
    """Return ``labels`` at ``size`` (width, height): the nearest pixel, nothing in between."""
    rows = (np.arange(size[1]) * labels.shape[0]) // size[1]
    columns = (np.arange(size[0]) * labels.shape[1]) // size[0]
    return np.asarray(labels[rows[:, None], columns[None, :]])


def edges(labels: Array, thickness: int) -> npt.NDArray[np.bool_]:
    """Return the pixels with a neighbour of another class within ``thickness`` along an axis."""
    edge = np.zeros(labels.shape, dtype=bool)
    for step in range(1, thickness + 1):
        down = labels[step:] != labels[:-step]
        edge[step:] |= down
        edge[:-step] |= down
        right = labels[:, step:] != labels[:, :-step]
        edge[:, step:] |= right
        edge[:, :-step] |= right
    return edge


def errors(label: Array, prediction: Array) -> dict[str, npt.NDArray[np.bool_]]:
    """Return where the prediction misses a class, adds one, or takes one for another; 0 is the background.

    >>> found = errors(np.array([0, 1, 1, 2]), np.array([0, 0, 1, 1]))
    >>> {name: wrong.tolist() for name, wrong in found.items() if wrong.any()}
    {'missed': [False, True, False, False], 'confused': [False, False, False, True]}
    """
    wrong = label != prediction
    return {
        "missed": wrong & (prediction == 0),
        "extra": wrong & (label == 0),
        "confused": wrong & (label != 0) & (prediction != 0),
    }


def overlay_legend(classes: Sequence[str], *labels: Array) -> list[tuple[str, str]]:
    """Return the colour's role and the words for every class but the background, and for the errors that occur.

    Args:
        classes: the names, background first; a class that occurs without a name gets its number.
        labels: the label, the prediction, or both (only then there are errors); without any the legend is empty.

    >>> overlay_legend(["back", "cell"], np.array([0, 1, 2]), np.array([0, 0, 2]))
    [('class1', 'cell'), ('class2', 'class 2'), ('missed', 'missed (predicted as background)')]
    """
    if not labels:
        return []
    highest = max(len(classes) - 1, *(int(array.max()) for array in labels if array.size))
    entries = [
        (f"class{(index - 1) % len(CLASS_COLOURS) + 1}", classes[index] if index < len(classes) else f"class {index}")
        for index in range(1, highest + 1)
    ]
    if len(labels) == 2:
        entries += [(kind, _WRONG[kind]) for kind, wrong in errors(*labels).items() if wrong.any()]
    return entries


def _compose(
    pictures: Mapping[str, Image.Image],
    notes: Mapping[str, str],
    marks: tuple[str, str, str, str] | None,
    entries: Sequence[tuple[Look, str]],
    title: str,
) -> Image.Image:
    """Return the panels in a row under the title, each with its caption, the legend below.

    The panels are pasted as they are; the renderer of figures paints the words alone, over them.
    """
    shapes: list[Shape] = [Words(EDGE, 24, title, look=TITLE)] if title else []
    places = []
    x, top, tall = int(EDGE), EDGE + (22 if title else 0), max(picture.height for picture in pictures.values())
    below = top + tall
    for index, (name, picture) in enumerate(pictures.items()):
        note = notes.get(name, "")
        # A narrow panel is centred over its caption: the cell is as wide as the wider of the two.
        cell = max(picture.width, math.ceil(text_width(name, 14)), math.ceil(text_width(note, 12)))
        left = x + (cell - picture.width) // 2
        places.append((left, int(top)))
        shapes += [
            Words(x + cell / 2, below + 20, name, look=_CAPTION),
            Words(x + cell / 2, below + 38, note, look=_NOTE),
        ]
        if marks is not None and index == 0:
            shapes += edge_letters(marks, left, top, picture.size)
        x += cell + _GAP
    right = max(x - _GAP, EDGE + text_width(title, 15, bold=True)) + EDGE
    told, least, end = legend(entries, below + 34 + (18 if any(notes.values()) else 0), right)
    bottom = end - 8 + EDGE if entries else end - 21
    words = Figure(title, "", max(right, least), bottom, (*shapes, *told), ground="").picture("dark", scale=1.0)
    page = Image.new("RGB", words.size, colour("card", dark=True))
    for picture, place in zip(pictures.values(), places, strict=True):
        page.paste(picture, place)
    page.paste(words, mask=words)
    return page


def edge_letters(marks: tuple[str, str, str, str], left: float, top: float, size: tuple[int, int]) -> Iterator[Shape]:
    """Yield the letters on the top, bottom, left and right edge of a panel."""
    wide, tall = size
    places = ((wide / 2, 15, "middle"), (wide / 2, tall - 5, "middle"), (5, tall / 2 + 5, "start"),
              (wide - 5, tall / 2 + 5, "end"))  # fmt: skip
    for letter, (x, y, align) in zip(marks, places, strict=True):
        look = Look(fill="ink", stroke="card", weight=3, size=13, align=align)
        yield Words(left + x, top + y, letter, look=look)
