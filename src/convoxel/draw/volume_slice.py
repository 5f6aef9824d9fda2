"""Slices of a volume, turned the way anatomists look at them.

A NIfTI affine says where each voxel lies in the patient (x to the right, y to the front, z upwards). From
it this module finds, for any order and direction of the stored axes, the coronal, sagittal and axial slice
with the head upwards (axial: the nose upwards) and the patient's right side on the left of the picture, as
radiologists look at it. The letters on the edges say so. Oblique volumes are shown along the nearest axes;
nothing is interpolated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convoxel.errors import ConfigError, ShapeError, check_choice
from convoxel.files.values import Array

# World axis that each plane is perpendicular to, then the world axes of rows and columns. All are shown
# from their positive end: rows start at the top (S) or the front (A), columns at the right (R) or front.
PLANES: dict[str, tuple[int, int, int]] = {"sagittal": (0, 2, 1), "coronal": (1, 2, 0), "axial": (2, 1, 0)}
_LETTERS = (("R", "L"), ("A", "P"), ("S", "I"))  # (positive end, negative end) of each world axis


@dataclass(frozen=True)
class Slice:
    """One slice, ready to draw.

    Attributes:
        pixels: (rows, columns) or (channels, rows, columns); a view, not a copy.
        spacing: size of a pixel (row, column) in mm (1.0 where unknown).
        marks: letters for the top, bottom, left and right edge, or None where the directions are unknown.
        index: the slice's index along the stored axis.
        axes: stored axis that runs down the rows, and the one that runs along the columns.
        reversed: whether each of them runs backwards in the picture.
    """

    pixels: Array
    spacing: tuple[float, float]
    marks: tuple[str, str, str, str] | None
    index: int
    axes: tuple[int, int]
    reversed: tuple[bool, bool]


def oriented_slice(
    volume: Array, affine: Array | None = None, plane: str = "axial", position: float | int | None = None
) -> Slice:
    """Return one slice of ``volume`` with the head (or the nose) upwards.

    Args:
        volume: (a, b, c), or (channels, a, b, c).
        affine: (4, 4) voxel → mm, x right, y front, z up; None: rows and columns as stored, no letters.
        plane: "coronal", "sagittal" or "axial".
        position: index of the slice along the stored axis (int), or the fraction of its length (float in
            0…1, counted from the left, back or bottom of the patient); None: the middle.

    Returns:
        A :class:`Slice`.

    Raises:
        ConfigError: unknown plane, or a position outside the volume.
        ShapeError: the volume has not three spatial axes, or the affine is not 4×4.

    >>> volume = np.arange(24).reshape(2, 3, 4)
    >>> shown = oriented_slice(volume, np.eye(4), "axial", 0)
    >>> shown.pixels.tolist(), shown.marks
    ([[20, 8], [16, 4], [12, 0]], ('A', 'P', 'R', 'L'))
    """
    check_choice("oriented_slice: plane", plane, PLANES)
    if volume.ndim not in (3, 4):
        raise ShapeError(
            f"oriented_slice: volume has shape {volume.shape}; give three spatial axes, with or without channels first."
        )
    first = volume.ndim - 3
    order, forward = _directions(affine)
    across, rows, columns = (order[axis] for axis in PLANES[plane])
    size = volume.shape[first + across]
    index = _index(position, size, forward[across])
    pixels = np.take(volume, index, axis=first + across)
    if rows > columns:
        pixels = np.swapaxes(pixels, -1, -2)
    lies = ((rows, columns), (forward[rows], forward[columns]))
    # Both axes start at the positive end of the world axis: stored forwards means reversed here.
    if forward[rows]:
        pixels = pixels[..., ::-1, :]
    if forward[columns]:
        pixels = pixels[..., :, ::-1]
    _, world_rows, world_columns = PLANES[plane]
    if affine is None:
        return Slice(pixels, (1.0, 1.0), None, index, *lies)
    spacing = np.sqrt((np.asarray(affine, dtype=np.float64)[:3, :3] ** 2).sum(axis=0))
    return Slice(
        pixels,
        (float(spacing[rows]) or 1.0, float(spacing[columns]) or 1.0),
        (*_LETTERS[world_rows], *_LETTERS[world_columns]),
        index,
        *lies,
    )


def plane_axis(affine: Array | None, plane: str) -> int:
    """Return the stored axis (0, 1, 2) that ``plane`` is perpendicular to.

    >>> plane_axis(np.eye(4), "coronal")
    1
    """
    check_choice("plane_axis: plane", plane, PLANES)
    return _directions(affine)[0][PLANES[plane][0]]


def _directions(affine: Array | None) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Return the stored axis of each world axis, and whether each *stored* axis runs along + of its world axis."""
    if affine is None:
        return (0, 1, 2), (True, True, True)
    matrix = np.asarray(affine, dtype=np.float64)
    if matrix.shape != (4, 4):
        raise ShapeError(f"oriented_slice: affine has shape {matrix.shape}; give a 4×4 matrix (voxel → mm).")
    direction = matrix[:3, :3]
    remaining = np.abs(direction / np.maximum(np.sqrt((direction**2).sum(axis=0)), 1e-12))
    order, forward = [0, 0, 0], [True, True, True]
    # The strongest entry first, so that an oblique volume still gets three different axes.
    for _ in range(3):
        world, stored = (int(i) for i in np.unravel_index(np.argmax(remaining), (3, 3)))
        order[world] = stored
        forward[stored] = bool(direction[world, stored] >= 0)
        remaining[world, :] = -1.0
        remaining[:, stored] = -1.0
    return (order[0], order[1], order[2]), (forward[0], forward[1], forward[2])


def _index(position: float | int | None, size: int, forward: bool) -> int:
    if position is None:
        return size // 2
    if isinstance(position, int):
        if not 0 <= position < size:
            raise ConfigError(f"oriented_slice: position is {position}; the volume has slices 0 to {size - 1}.")
        return position
    if not 0.0 <= position <= 1.0:
        raise ConfigError(f"oriented_slice: position is {position}; give an index (int) or a fraction from 0.0 to 1.0.")
    index = min(int(position * size), size - 1)
    return index if forward else size - 1 - index
