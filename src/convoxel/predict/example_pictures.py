"""A few predicted samples, kept as pictures for the report: slices of volumes, other images whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from convoxel.data import Sample
from convoxel.files.values import Array

_COUNT = 6
# Of the axes towards the patient's right, front and top: the letters of their high end and of their low end.
_EDGES = ("RL", "AP", "SI")


class Examples:
    """Collects up to six example pictures from samples and their predictions.

    ``arrays()`` returns the content of ``examples.npz``: images (k, rows, columns) float32, or
    (k, rows, columns, 3) for colour; segmentation: labels and predictions (k, rows, columns) uint8;
    classification: labels and predictions (k,) class numbers; names (k,). Smaller pictures are centred
    among larger ones. Volumes are cut across their shortest axis, so that the slices are large; where the
    file says how the patient lies, the head (axial: the nose) is up and the patient's right on the left, and
    ``marks`` (k, 4) holds the letters of the top, bottom, left and right edge. ``spacing`` (k, 2): rows, columns.
    """

    def __init__(self, samples: int, count: int = _COUNT) -> None:
        self._each = max(1, -(-count // max(1, samples)))
        self._taken = set(np.linspace(0, samples - 1, min(samples, count)).round().astype(int).tolist())
        self._count = count
        self._rows: list[tuple[Array, Array, Array, str]] = []
        self._looks: list[tuple[tuple[float, float], str]] = []  # spacing and edge letters of each slice

    def offer(self, index: int, sample: Sample, prediction: NDArray[np.uint8] | int) -> None:
        """Keep sample number ``index`` if it is among the chosen."""
        if index not in self._taken or len(self._rows) >= self._count:
            return
        image, label, found = sample.image, np.asarray(sample.label), np.asarray(prediction)
        if label.ndim == 3:
            self._offer_volume(sample, image[0], label, found)
            return
        if label.ndim == 0 and image.ndim == 4:  # a classified volume: its middle slice
            image = image[..., image.shape[-1] // 2]
        self._rows.append((_picture(image), label, found, sample.name))

    def _offer_volume(self, sample: Sample, image: Array, label: Array, prediction: Array) -> None:
        orientation = _orientation(sample.affine)
        image, label, prediction = (_upright(array, orientation) for array in (image, label, prediction))
        spacing = _lengths(sample.affine, orientation)
        across = 2 - int(np.argmin(label.shape[::-1]))  # of equals the last: axial
        down, along = (axis for axis in (2, 1, 0) if axis != across)
        for level in _levels(np.moveaxis(label, across, 2), self._each):
            # The first row is the top (or the front), the first column the patient's right (or the front).
            planes = (np.take(array, level, axis=across).T[::-1, ::-1] for array in (image, label, prediction))
            self._rows.append((*planes, f"{sample.name}, slice {level}"))
            letters = "" if orientation is None else _EDGES[down] + _EDGES[along]
            self._looks.append(((float(spacing[down]), float(spacing[along])), letters))

    def arrays(self) -> dict[str, Array]:
        """Return the arrays of ``examples.npz``; empty if nothing was offered."""
        if not self._rows:
            return {}
        images, labels, predictions, names = zip(*self._rows[: self._count], strict=True)
        arrays = {
            "images": _stack(images).astype(np.float32),
            "labels": _stack(labels),
            "predictions": _stack(predictions),
            "names": np.asarray(names),
        }
        if len(self._looks) == len(self._rows):
            looks = self._looks[: self._count]
            arrays["spacing"] = np.asarray([spacing for spacing, _ in looks])
            if all(letters for _, letters in looks):
                arrays["marks"] = np.asarray([list(letters) for _, letters in looks])
        return arrays


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
