"""Distances between the surfaces of two masks on one grid, in the unit of the grid's spacing.

Two notions of a surface are in use, and published figures depend on the choice, so both are here:

* the **border**: voxels of the mask with a neighbour across a face that is not in the mask, or with a face on the
  image's edge; distances go from centre to centre (MONAI, SimpleITK's contours, Metrics Reloaded). Every border voxel
  counts alike.
* the **surface elements**: what marching cubes lay through each block of 2 × 2 × 2 voxels, weighted by area (Nikolov et
  al. 2021, doi:10.2196/26151). So a face of long voxels counts for its area. Their areas are MONAI's tables.

Nothing here knows classes or files. Memory follows the box around both masks.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from convoxel.files.values import Array

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
# A tree over points takes about as long a point as the distance transform takes for this many voxels.
_TREE_VOXELS = 16


class Elements(NamedTuple):
    """Surface elements of a mask: the distance of each to the other mask's surface, and its area (length in 2-D)."""

    distances: Floats
    areas: Floats


def enclose(masks: Sequence[Mask]) -> tuple[slice, ...]:
    """Return the box around all masks; empty slices where they hold nothing.

    >>> enclose([np.array([0, 1, 0, 0], bool), np.array([0, 0, 1, 0], bool)])
    (slice(1, 3, None),)
    """
    box = []
    for axis in range(masks[0].ndim):
        others = tuple(other for other in range(masks[0].ndim) if other != axis)
        filled = np.flatnonzero(np.logical_or.reduce([mask.any(axis=others) for mask in masks]))
        box.append(slice(int(filled[0]), int(filled[-1]) + 1) if filled.size else slice(0, 0))
    return tuple(box)


def border_distances(truth: Mask, found: Mask, spacing: Sequence[float]) -> tuple[Floats, Floats]:
    """Return the distance from each border voxel of ``truth`` to the border of ``found``, and the reverse.

    Args:
        truth, found: masks (*spatial), neither of them empty.
        spacing: distance between voxels along each axis.

    >>> truth, found = np.array([[1, 1, 0, 0]], bool), np.array([[0, 1, 1, 1]], bool)
    >>> [distances.tolist() for distances in border_distances(truth, found, (1.0, 0.5))]
    [[0.5, 0.0], [0.0, 0.5, 1.0]]
    """
    from scipy.ndimage import binary_erosion

    # What lies outside the box, or outside the image, counts as background.
    box = enclose([truth, found])
    borders = [mask[box] & ~binary_erosion(mask[box]) for mask in (truth, found)]
    return _nearest(borders[0], borders[1], spacing), _nearest(borders[1], borders[0], spacing)


def surface_elements(truth: Mask, found: Mask, spacing: Sequence[float]) -> tuple[Elements, Elements]:
    """Return the surface elements of ``truth`` and of ``found``; arguments as of :func:`border_distances`.

    >>> mask = np.zeros((4, 4), bool)
    >>> mask[1:3, 1:3] = True
    >>> elements, _ = surface_elements(mask, mask, (1.0, 1.0))
    >>> float(elements.areas.sum().round(3)), float(elements.distances.max())
    (6.828, 0.0)
    """
    box = enclose([truth, found])
    table, weights = _element_areas(spacing)
    codes = [_block_codes(mask[box], weights) for mask in (truth, found)]
    surfaces = [(code != 0) & (code != len(table) - 1) for code in codes]
    distances = _nearest(surfaces[0], surfaces[1], spacing), _nearest(surfaces[1], surfaces[0], spacing)
    areas = [table[code[surface]] for code, surface in zip(codes, surfaces, strict=True)]
    return Elements(distances[0], areas[0]), Elements(distances[1], areas[1])


def _nearest(points: Mask, targets: Mask, spacing: Sequence[float]) -> Floats:
    """Return the distance from each point, in the order of the array, to the nearest target."""
    result = np.zeros(int(points.sum()))
    apart = ~targets[points]  # a point that is a target itself is at distance 0
    places = np.argwhere(points)[apart]
    if not len(places):
        return result
    scale = np.asarray(spacing, np.float64)
    if _TREE_VOXELS * (len(places) + int(targets.sum())) < targets.size:
        from scipy.spatial import KDTree

        # Few points in a large box: their number decides, and a stray voxel far away costs nothing.
        tree = KDTree(np.argwhere(targets) * scale, leafsize=32, balanced_tree=False)
        result[apart] = tree.query(places * scale)[0]
    else:
        from scipy.ndimage import distance_transform_edt

        # Places alone, 4 bytes an axis and voxel: distances for the whole box would take five times as much.
        nearest = distance_transform_edt(~targets, spacing, return_distances=False, return_indices=True)
        where = (slice(None), *places.T)
        steps = places - nearest[where].T
        result[apart] = np.sqrt(np.square(steps * scale).sum(axis=1))
    return result


def _element_areas(spacing: Sequence[float]) -> tuple[Floats, NDArray[np.uint8]]:
    """Return the area of the surface in a block of 2 voxels an axis by its code, and each voxel's bit of that code."""
    if len(spacing) == 1:
        return np.array([0.0, 1.0, 1.0, 0.0]), np.array([2, 1], np.uint8)  # a signal's surface are its two ends
    from monai.metrics.utils import get_code_to_measure_table

    table, kernel = get_code_to_measure_table(tuple(map(float, spacing)))
    weights = np.asarray(kernel).reshape((2,) * len(spacing))
    return np.asarray(table, np.float64), weights.astype(np.uint8)


def _block_codes(mask: Mask, weights: NDArray[np.uint8]) -> Array:
    """Return the code of each block of 2 voxels an axis, those across the mask's edge included: one more an axis."""
    padded = np.pad(mask, 1).view(np.uint8)
    codes = np.zeros([size - 1 for size in padded.shape], np.uint8)
    for offset in itertools.product((0, 1), repeat=mask.ndim):
        part = tuple(slice(start, start + size) for start, size in zip(offset, codes.shape, strict=True))
        codes += padded[part] * weights[offset]
    return codes
