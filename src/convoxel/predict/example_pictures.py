"""A few predicted samples, kept as pictures for the report: slices of volumes, other images whole."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from convoxel.data import Sample
from convoxel.data.data_set import IGNORED
from convoxel.data.regions import Regions
from convoxel.files.values import Array
from convoxel.predict.metrics import Row
from convoxel.predict.trained_run import DataFacts

_COUNT = 6
# Of the axes towards the patient's right, front and top: the letters of their high end and of their low end.
_EDGES = ("RL", "AP", "SI")


class _Shown(NamedTuple):
    """A picture: image, label, prediction, its name, its quality, and of a slice the pixel's size and edge letters."""

    image: Array
    label: Array
    prediction: Array
    name: str
    quality: float
    spacing: tuple[float, float] | None = None
    letters: str = ""


class Examples:
    """Collects a few example pictures from samples and their predictions: half of them the worst, the others spread.

    ``arrays()`` returns the content of ``examples.npz``, the worst first: images (k, rows, columns) float32, or
    (k, rows, columns, 3) for colour; segmentation: labels and predictions (k, rows, columns) uint8;
    classification: labels and predictions (k,) class numbers, (k, classes) 0 and 1 where an image may have several;
    names (k,); scores (k,), the metric of the whole image (NaN where nothing is there), or the probability of the class
    given, negative where that is wrong. Smaller pictures are centred among larger ones. Volumes are cut across their
    shortest axis, so that the slices are large, one of the worst where most voxels are wrong; where the file says how
    the patient lies, the head (axial: the nose) is up and the patient's right on the left, and ``marks`` (k, 4) holds
    the letters of the top, bottom, left and right edge.
    ``spacing`` (k, 2): rows, columns.

    Args:
        samples: number of samples that will be offered.
        count: number of pictures (default 6).
        classes: number of classes where an image may have several (default 0: one class, or a label map).
        regions: label values of regions that overlap; pictures then show the last region of a voxel (default none).
    """

    def __init__(self, samples: int, count: int = _COUNT, classes: int = 0, regions: Regions | None = None) -> None:
        self._classes, self._regions = classes, regions
        self._each = max(1, -(-count // max(1, samples)))
        spread = count if samples <= count else count - count // 2
        self._spread = set(np.linspace(0, samples - 1, min(samples, spread)).round().astype(int).tolist())
        self._count, self._hardest = count, count - spread
        self._rows: list[_Shown] = []
        self._worst: list[_Shown] = []

    @classmethod
    def of(cls, samples: int, facts: DataFacts, count: int = _COUNT) -> Examples:
        """Return the collector of pictures for a run with these facts of its data."""
        return cls(samples, count, len(facts.classes) if facts.multi_label else 0, facts.regions)

    def offer(
        self,
        index: int,
        sample: Sample,
        prediction: NDArray[np.uint8] | int | frozenset[int] | tuple[float, ...],
        row: Row,
    ) -> None:
        """Keep sample number ``index`` if it is among the spread ones, or among the worst so far."""
        quality = _quality(row)
        if index in self._spread:
            self._rows += self._draw(sample, prediction, quality, hardest=False)
        elif self._hardest and (len(self._worst) < self._hardest or quality < self._worst[-1].quality):
            shown = self._draw(sample, prediction, quality, hardest=True)
            self._worst = sorted([*self._worst, *shown], key=attrgetter("quality"))[: self._hardest]

    def _draw(
        self,
        sample: Sample,
        prediction: NDArray[np.uint8] | int | frozenset[int] | tuple[float, ...],
        quality: float,
        hardest: bool,
    ) -> Iterator[_Shown]:
        image, label, found = sample.image, self._array(sample.label), self._array(prediction)
        if label.ndim and label.max(initial=0) == IGNORED:  # shown as metrics count it; 256 classes have no such value
            label, found = (np.where(label == IGNORED, np.uint8(0), array) for array in (label, found))
        if self._regions is not None and label.ndim:
            label, found = self._regions.drawn(label), self._regions.drawn(found)
        if label.ndim == 3:
            yield from self._slices(sample, label, found, quality, hardest)
            return
        if image.ndim == 4:  # a classified volume: its middle slice
            image = image[..., image.shape[-1] // 2]
        yield _Shown(_picture(image), label, found, sample.name, quality)

    def _array(self, answer: object) -> Array:
        if isinstance(answer, frozenset):
            return np.isin(np.arange(self._classes), list(answer)).astype(np.uint8)
        if isinstance(answer, tuple):
            return np.array(answer, np.float64)
        return np.asarray(answer)

    def _slices(
        self, sample: Sample, label: Array, prediction: Array, quality: float, hardest: bool
    ) -> Iterator[_Shown]:
        orientation = _orientation(sample.affine)
        volumes = [_upright(array, orientation) for array in (sample.image[0], label, prediction)]
        spacing = _lengths(sample.affine, orientation)
        across = 2 - int(np.argmin(volumes[1].shape[::-1]))  # of equals the last: axial
        down, along = (axis for axis in (2, 1, 0) if axis != across)
        wrong = (volumes[1] != volumes[2]).sum(axis=(down, along))
        levels = [int(wrong.argmax())] if hardest else _levels(np.moveaxis(volumes[1], across, 2), self._each)
        letters = "" if orientation is None else _EDGES[down] + _EDGES[along]
        for level in levels:
            # The first row is the top (or the front), the first column the patient's right (or the front). A copy, so
            # that the volume is not kept.
            image, label, prediction = (np.take(array, level, axis=across).T[::-1, ::-1] for array in volumes)
            size = (float(spacing[down]), float(spacing[along]))
            yield _Shown(image, label, prediction, f"{sample.name}, slice {level}", quality, size, letters)

    def arrays(self) -> dict[str, Array]:
        """Return the arrays of ``examples.npz``; empty if nothing was offered."""
        shown = sorted([*self._rows[: self._count], *self._worst], key=attrgetter("quality"))
        if not shown:
            return {}
        arrays = {
            "images": _stack([each.image for each in shown]).astype(np.float32),
            "labels": _stack([each.label for each in shown]),
            "predictions": _stack([each.prediction for each in shown]),
            "names": np.asarray([each.name for each in shown]),
            "scores": np.asarray([each.quality if math.isfinite(each.quality) else math.nan for each in shown]),
        }
        if all(each.spacing for each in shown):
            arrays["spacing"] = np.asarray([each.spacing for each in shown])
            if all(each.letters for each in shown):
                arrays["marks"] = np.asarray([list(each.letters) for each in shown])
        return arrays


def _quality(row: Row) -> float:
    """Return the metric of an image (none: infinity), its error or the probability of a wrong class (both negative)."""
    if "error" in row:
        return -row["error"]
    if "metric" in row:
        return math.inf if row["metric"] is None else row["metric"]
    return row["probability"] if row["correct"] else -row["probability"]


def _picture(image: Array) -> Array:
    """(channels, *spatial) → (rows, columns) or (rows, columns, 3)."""
    if image.ndim == 2:  # a signal is drawn as one row
        return image[:1]
    return np.moveaxis(image, 0, -1) if image.shape[0] == 3 else image[0]


def _orientation(affine: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    """Number and direction of the stored axis that runs to the patient's right, front and top; None where unknown."""
    if affine is None:
        return None
    from nibabel.orientations import io_orientation

    orientation = np.asarray(io_orientation(affine))
    return None if np.isnan(orientation).any() else orientation


def _upright(array: Array, orientation: NDArray[np.float64] | None) -> Array:
    """The volume with axes towards the patient's right, front and top; as stored where that is unknown."""
    if orientation is None:
        return array
    from nibabel.orientations import apply_orientation

    return np.asarray(apply_orientation(array, orientation))


def _lengths(affine: NDArray[np.float64] | None, orientation: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """The voxel's edges along the axes of the upright volume, in mm; ones where unknown."""
    lengths = np.ones(3)
    if affine is not None and orientation is not None:
        lengths[orientation[:, 0].astype(int)] = np.linalg.norm(np.asarray(affine)[:3, :3], axis=0)
    return lengths


def _levels(label: Array, count: int) -> list[int]:
    """Heights spread over the middle four fifths of the labelled part, or of everything where nothing is labelled."""
    filled = np.flatnonzero((label > 0).any(axis=(0, 1)))
    if filled.size == 0:
        filled = np.arange(label.shape[2])
    places: Iterable[float] = np.linspace(0.1, 0.9, count) if count > 1 else (0.5,)
    return [int(filled[round(place * (filled.size - 1))]) for place in places]


def _stack(pictures: Sequence[Array]) -> Array:
    """Stack pictures, smaller ones centred among zeros."""
    shape = tuple(max(sizes) for sizes in zip(*(p.shape for p in pictures), strict=True))
    result = np.zeros((len(pictures), *shape), pictures[0].dtype)
    if not shape:
        return np.asarray(pictures)
    for row, picture in enumerate(pictures):
        corner = [(have - want) // 2 for have, want in zip(shape, picture.shape, strict=True)]
        box = tuple(slice(c, c + s) for c, s in zip(corner, picture.shape, strict=True))
        result[row][box] = picture
    return result
