"""A contact sheet: small pictures of many samples with their names, label maps laid over them.

A volume is shown by the slice across its shortest axis that holds most labelled voxels, or by its middle slice, turned
as anatomists look at it where the file says how it lies; a signal is shown as a curve.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from convoxel.data import DataSet, Sample
from convoxel.data.data_set import IGNORED
from convoxel.draw.caption import EDGE, heading, legend
from convoxel.draw.figure import Figure
from convoxel.draw.image_overlay import overlay_legend, panels, png
from convoxel.draw.letter import fit
from convoxel.draw.scene import Look, Shape, Words
from convoxel.draw.theme import colour
from convoxel.draw.volume_slice import PLANES, oriented_slice, plane_axis
from convoxel.errors import ConfigError, DataError
from convoxel.files.atomic import write_bytes
from convoxel.files.values import Array
from convoxel.lazy import LazyModule

if TYPE_CHECKING:
    from PIL import Image
else:
    Image = LazyModule("PIL.Image")

_CELL, _COLUMNS, _GAP, _LINES = 168, 6, 12, 34
_NAME, _NOTE = Look(fill="ink", size=12, align="middle"), Look(fill="faint", size=11, align="middle")


def contact_sheet(dataset: DataSet, part: str = "all", count: int = 24) -> Image.Image:
    """Return one picture of samples that are spread evenly over a part of a data set.

    Args:
        dataset: the data set.
        part: "train", "validation", "test" or "all" (default "all").
        count: most samples that are shown (default 24).

    Returns:
        A PIL image in RGB. A sample that cannot be read is named with the reason in place of its picture.

    Raises:
        DataError: the data set has no such part.
        ConfigError: ``count`` is below 1.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ConfigError(f"count is {count!r}; expected a whole number of at least 1.")
    samples = dataset.split(part)
    places = np.unique(np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int))
    told = f"{len(places)} of {len(samples)} samples" if len(places) < len(samples) else f"{len(samples)} samples"
    shapes, wide, top = heading(f"{dataset.name}: {told}" + ("" if part == "all" else f" ({part})"))
    columns = min(_COLUMNS, len(places))
    pictures: list[tuple[Image.Image, tuple[int, int]]] = []
    for place, index in enumerate(places):
        left = EDGE + (place % columns) * (_CELL + _GAP)
        above = top + (place // columns) * (_CELL + _LINES + _GAP)
        entry = samples.entries[int(index)]
        try:
            sample = samples[int(index)]
            if dataset.ignored is not None and isinstance(sample.label, np.ndarray):
                sample = replace(sample, label=np.where(sample.label == IGNORED, np.uint8(0), sample.label))
            if dataset.regions is not None and isinstance(sample.label, np.ndarray):
                sample = replace(sample, label=dataset.regions.drawn(sample.label))
            picture, note = _tile(sample)
            note = dataset.class_of(entry) or note
            corner = (round(left + (_CELL - picture.width) / 2), round(above + (_CELL - picture.height) / 2))
            pictures.append((picture, corner))
        except DataError as error:
            note = str(error).removeprefix(f"{samples.entries[int(index)].name}: ")
        shapes += _caption(left + _CELL / 2, above + _CELL, entry.name, note)
    rows = -(-len(places) // columns)
    below = top + rows * (_CELL + _LINES + _GAP)
    right = max(wide, 2 * EDGE + columns * (_CELL + _GAP) - _GAP)
    entries = overlay_legend(dataset.classes, np.zeros(1, np.uint8)) if dataset.task == "segment" else []
    told_shapes, least, end = legend([(Look(fill=role), words) for role, words in entries], below + 4, right)
    bottom = end + EDGE - 8 if entries else below
    words = Figure(dataset.name, "", max(right, least), bottom, (*shapes, *told_shapes), ground="")
    return _paste(pictures, words.picture("dark", scale=1.0))


def save_contact_sheet(path: str | os.PathLike[str], dataset: DataSet, part: str = "all", count: int = 24) -> Path:
    """Write the picture of :func:`contact_sheet` as a PNG file, whole or not at all, and return its path.

    Raises:
        ConfigError: the name does not end in .png.
        DataError: as for the picture, or the file cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise ConfigError(f"output: {target.name!r} is no name of a PNG file; end it in .png.")
    return write_bytes(target, png(contact_sheet(dataset, part, count)))


def _tile(sample: Sample) -> tuple[Image.Image, str]:
    """Return the picture of a sample, with its label laid over it, and a note about the slice."""
    image, label = sample.image, sample.label if isinstance(sample.label, np.ndarray) else None
    spacing, note = (1.0, 1.0), ""
    if image.ndim == 2:
        image, label = _curve(image[0], label)
    elif image.ndim == 4:
        image, label, spacing, note = _slice(sample, image[0], label)
    else:
        image, spacing = image if len(image) == 3 else image[0], _pair(sample.spacing_mm)
    tall, wide = image.shape[-2] * spacing[0], image.shape[-1] * spacing[1]
    height = max(1, round(min(_CELL, _CELL * tall / wide)))
    drawn = panels(image, label, spacing=spacing, height=height)
    return drawn["image" if label is None else "label"], note


def _pair(spacing_mm: Sequence[float] | None) -> tuple[float, float]:
    return (1.0, 1.0) if spacing_mm is None else (spacing_mm[0], spacing_mm[1])


def _slice(sample: Sample, volume: Array, label: Array | None) -> tuple[Array, Array | None, tuple[float, float], str]:
    across = 2 - int(np.argmin(volume.shape[::-1]))  # of equals the last
    index = volume.shape[across] // 2
    if label is not None and label.any():
        index = int((label > 0).sum(axis=tuple(axis for axis in range(3) if axis != across)).argmax())
    note = f"slice {index} of {volume.shape[across]}"
    affine = sample.affine
    if affine is None or not np.abs(np.linalg.det(affine[:3, :3])) > 0:
        rows, columns = (axis for axis in range(3) if axis != across)
        sides = sample.spacing_mm or (1.0,) * 3
        cut = None if label is None else np.take(label, index, axis=across)
        return np.take(volume, index, axis=across), cut, (sides[rows], sides[columns]), note
    plane = next(name for name in PLANES if plane_axis(affine, name) == across)
    shown = oriented_slice(volume, affine, plane, index)
    cut = None if label is None else oriented_slice(label, affine, plane, index).pixels
    return shown.pixels, cut, shown.spacing, f"{plane}, {note}"


def _curve(signal: Array, label: Array | None) -> tuple[Array, Array | None]:
    """Return a signal as a picture of its least and largest value in each column, and its label likewise."""
    wide, tall = min(_CELL, len(signal)), _CELL // 2
    cuts = np.linspace(0, len(signal), wide + 1).astype(int)[:-1]
    low, high = np.minimum.reduceat(signal, cuts), np.maximum.reduceat(signal, cuts)
    least, range_ = float(signal.min()), max(float(np.ptp(signal)), 1e-12)
    first, last = ((tall - 1) * (1 - (values - least) / range_) for values in (high, low))
    rows = np.arange(tall)[:, None]
    picture = ((rows >= np.floor(first)) & (rows <= np.ceil(last))).astype(np.uint8) * np.uint8(255)
    return picture, None if label is None else np.repeat(np.maximum.reduceat(label, cuts)[None], tall, axis=0)


def _caption(middle: float, top: float, name: str, note: str) -> Sequence[Shape]:
    return (
        Words(middle, top + 15, fit(name, _CELL, 12), look=_NAME),
        Words(middle, top + 29, fit(note, _CELL, 11), look=_NOTE),
    )


def _paste(pictures: Sequence[tuple[Image.Image, tuple[int, int]]], words: Image.Image) -> Image.Image:
    """Return the page: pictures as they are, the words of the figure over them."""
    page = Image.new("RGB", words.size, colour("card", dark=True))
    for picture, corner in pictures:
        page.paste(picture, corner)
    page.paste(words, mask=words)
    return page
