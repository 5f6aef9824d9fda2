"""The training labels of a data set, looked at once before training: sides and sizes of the classes.

The survey runs while every sample is read to be checked, so it costs no second reading.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from convoxel.data import Sample
from convoxel.data.regions import Regions, count_classes
from convoxel.files.values import Array

_COUNTED = 1 << 20


@dataclass(frozen=True, eq=False)
class Sides:
    """The places of the classes of one training case along its left–right axis; NaN for a class that it lacks.

    Attributes:
        mean: (classes,) centroid of each class from the image's middle towards x, as a share of the image.
        spread: (classes,) standard deviation of its voxels, likewise.
    """

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]


@dataclass(eq=False)
class LabelSurvey:
    """Facts of the training labels of a data set, gathered sample by sample.

    Attributes:
        classes: names, class number = position.
        dims: number of spatial axes.
        regions: label values of classes that overlap (default: none do).
        axes: left–right axis → training images in which it is that; None where an image has none.
        located: training images whose file says how they lie.
        sides: places of the classes in each segmented training case.
        counts: voxels (to segment) or images (to classify) of each class.
        painted: whether masks hold 255 in place of 1.
        ranges: least and largest value of each volume that is segmented.
    """

    classes: Sequence[str]
    dims: int
    regions: Regions | None = None
    axes: Counter[int | None] = field(default_factory=Counter)
    located: int = 0
    sides: list[Sides] = field(default_factory=list)
    counts: NDArray[np.int64] = field(init=False)
    painted: bool = False
    ranges: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = np.zeros(len(self.classes), np.int64)

    def add(self, sample: Sample) -> None:
        """Take one training sample into account."""
        found_axis = left_right(sample.affine, self.dims)
        self.axes[None if found_axis is None else found_axis[0]] += 1
        self.located += sample.stated_affine is not None
        self.painted |= sample.painted
        if isinstance(sample.label, np.ndarray):
            if self.dims == 3:
                self.ranges.append((float(sample.image.min()), float(sample.image.max())))
            self.counts += count_classes(sample.label, len(self.classes), self.regions)
        elif isinstance(sample.label, frozenset):
            self.counts[sorted(sample.label)] += 1
        elif isinstance(sample.label, int):
            self.counts[sample.label] += 1
        if found_axis is not None and isinstance(sample.label, np.ndarray):
            self.sides.append(_find_sides(sample.label, *found_axis, len(self.classes), self.regions))


def left_right(affine: Array | None, dims: int) -> tuple[int, int] | None:
    """Return the axis of an image between left and right, and whether it runs to x (1) or against it (−1).

    Args:
        affine: 4×4 matrix from voxel index to mm, or None. One that the file does not state still says which axis its
            format calls x. Without it the last axis of planes and volumes counts as the width; a signal has no left and
            right.
        dims: number of spatial axes.

    Returns:
        None where no axis of the image is that one.

    >>> left_right(np.eye(4), 3), left_right(np.diag([2, 2, -3, 1.0])[:, [2, 1, 0, 3]], 3), left_right(None, 2)
    ((0, 1), (2, 1), (1, 1))
    """
    if dims == 1:
        return None
    if affine is None:
        return dims - 1, 1
    from nibabel.orientations import io_orientation

    orientation = np.asarray(io_orientation(affine))[:dims]  # NaN where the matrix says nothing
    axes = np.flatnonzero(orientation[:, 0] == 0)
    return (int(axes[0]), int(orientation[axes[0], 1])) if axes.size else None


def _find_sides(label: Array, axis: int, direction: int, classes: int, regions: Regions | None) -> Sides:
    if regions is not None:
        classes = regions.classes.shape[1]
    planes = np.moveaxis(label, axis, 0).reshape(label.shape[axis], -1)
    counts = np.zeros((len(planes), classes))
    # One count for many planes of a picture, few of a volume: the joint numbers stay within some megabytes.
    step = max(1, _COUNTED // max(1, planes.shape[1]))
    for first in range(0, len(planes), step):
        some = np.minimum(planes[first : first + step].astype(np.int64), classes)
        joint = some + np.arange(len(some))[:, None] * (classes + 1)
        found = np.bincount(joint.reshape(-1), minlength=len(some) * (classes + 1))
        counts[first : first + step] = found.reshape(len(some), -1)[:, :classes]
    if regions is not None:
        counts = counts @ regions.classes.T
    place = direction * ((np.arange(len(counts)) + 0.5) / len(counts) - 0.5)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = place @ counts / counts.sum(axis=0)
        variance = place**2 @ counts / counts.sum(axis=0) - mean**2
    return Sides(mean, np.sqrt(np.maximum(variance, 0.0)))
