"""Metrics of one class in one segmented image: overlap, distances between surfaces, volume.

Rules for what is not there, stated wherever figures are printed:

* Neither labelled nor predicted: a ratio 0/0 is undefined (NaN here, null in JSON, empty in CSV); no mean has it.
* One of both empty: overlaps and NSD are 0, and a distance is the image's diagonal, the longest distance in it.
* Any other ratio 0/0 (sensitivity without anything labelled, precision without anything predicted) is undefined.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache, cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from convoxel.errors import ConfigError
from convoxel.predict.metric import Metric
from convoxel.predict.surface_distance import Elements, Floats, border_distances, surface_elements

Labels: TypeAlias = NDArray[np.unsignedinteger[Any]] | NDArray[np.signedinteger[Any]]
Box: TypeAlias = tuple[slice, ...]

#: The rules above in the words of reports.
EMPTY_RULE = (
    "Where a class is neither labelled nor predicted, a ratio is undefined and left out of the mean; where it is only "
    "one of both, overlaps are 0 and a distance is the image's diagonal."
)


class ClassOverlap:
    """One class of one image: where it is labelled and where it was predicted.

    Args:
        maps: label and prediction, class numbers (*spatial).
        number: number of the class.
        boxes: returns the box around each class in either map, by class number.
        counts: confusion matrix of the image; row = true class, column = predicted class.
        spacing: distance between voxels along each axis in mm; None if unknown, then distances are in voxels.
    """

    def __init__(
        self,
        maps: tuple[Labels, Labels],
        number: int,
        boxes: Callable[[], Sequence[Box]],
        counts: NDArray[np.int64],
        spacing: Sequence[float] | None,
    ) -> None:
        self._maps, self._number, self._boxes, self._spacing = maps, number, boxes, spacing
        self.hits = int(counts[number, number])
        self.labelled, self.predicted = int(counts[number].sum()), int(counts[:, number].sum())
        self.voxels = int(counts.sum())

    @property
    def misses(self) -> int:
        """Voxels that are labelled and not predicted."""
        return self.labelled - self.hits

    @property
    def alarms(self) -> int:
        """Voxels that are predicted and not labelled."""
        return self.predicted - self.hits

    @property
    def rejections(self) -> int:
        """Voxels that are neither labelled nor predicted."""
        return self.voxels - self.labelled - self.alarms

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance between voxels along each axis: in mm, or 1 voxel."""
        return tuple(self._spacing or (1.0,) * self._maps[0].ndim)

    @property
    def diagonal(self) -> float:
        """The longest distance between two voxels of the image."""
        return math.hypot(*((n - 1) * step for n, step in zip(self._maps[0].shape, self.spacing, strict=True)))

    def volume(self, voxels: int) -> float:
        """Return the volume of a number of voxels: in ml (3-D), mm² (2-D), mm (1-D), or voxels."""
        if self._spacing is None:
            return float(voxels)
        return voxels * math.prod(self.spacing) / (1000.0 if len(self.spacing) == 3 else 1.0)

    @cached_property
    def borders(self) -> tuple[Floats, Floats]:
        """Distances of the label's border voxels to the prediction's, and the reverse."""
        return border_distances(*self._masks, self.spacing)

    @cached_property
    def elements(self) -> tuple[Elements, Elements]:
        """Surface elements of the label and of the prediction."""
        return surface_elements(*self._masks, self.spacing)

    def elements_in_voxels(self) -> tuple[Elements, Elements]:
        """Return the same on a grid of unit spacing."""
        return surface_elements(*self._masks, (1.0,) * len(self.spacing))

    @cached_property
    def _masks(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Masks of label and prediction in the box around both."""
        label, prediction = self._maps
        box = self._boxes()[self._number]
        return label[box] == self._number, prediction[box] == self._number


OverlapMetric: TypeAlias = Metric[Callable[[ClassOverlap], float]]


def ratio(part: float, whole: float) -> float:
    """Return part / whole; NaN for 0 / 0."""
    return part / whole if whole else math.nan


def _distance(measure: Callable[[ClassOverlap], float]) -> Callable[[ClassOverlap], float]:
    """Return the measure with the rules for an empty side."""

    def measured(overlap: ClassOverlap) -> float:
        if overlap.labelled and overlap.predicted:
            return measure(overlap)
        return overlap.diagonal if overlap.labelled or overlap.predicted else math.nan

    return measured


def _hausdorff(percent: float) -> Callable[[ClassOverlap], float]:
    return _distance(lambda overlap: max(float(np.percentile(side, percent)) for side in overlap.borders))


def _mean_distance(overlap: ClassOverlap) -> float:
    return float(np.concatenate(overlap.borders).mean())


def _surface_dice(tolerance: float, voxels: bool) -> Callable[[ClassOverlap], float]:
    limit = tolerance * (1 + 1e-9)  # three steps of 0.1 mm are within 0.3 mm, however floats round

    def measured(overlap: ClassOverlap) -> float:
        if not (overlap.labelled and overlap.predicted):
            return 0.0 if overlap.labelled or overlap.predicted else math.nan
        sides = overlap.elements_in_voxels() if voxels else overlap.elements
        near = sum(float(side.areas[side.distances <= limit].sum()) for side in sides)
        return near / sum(float(side.areas.sum()) for side in sides)

    return measured


def _hausdorff_metric(percent: float) -> OverlapMetric:
    words = "the largest distance between the two borders"
    if percent < 100:
        words = f"the larger of both directions' {percent:g} % quantiles of the distances between the two borders"
    source = "Huttenlocher et al. 1993, doi:10.1109/34.232073"
    return Metric(f"hd{percent:g}" if percent < 100 else "hd", words, source, _hausdorff(percent), "lower", "length")


def _surface_dice_metric(tolerance: float, unit: str) -> OverlapMetric:
    words = f"normalised surface distance: the share of both surfaces within {tolerance:g} {unit} of the other"
    measure = _surface_dice(tolerance, unit == "voxels")
    return Metric(f"nsd@{tolerance:g}{unit}", words, "Nikolov et al. 2021, doi:10.2196/26151", measure)


_TAHA = "Taha and Hanbury 2015, doi:10.1186/s12880-015-0068-x"

#: Metrics of segmentations by name; beside these, "hd90" or any percentage, and "nsd@2mm" or "nsd@1voxels".
OVERLAP_METRICS: tuple[OverlapMetric, ...] = (
    Metric(
        "dice", "2 |A∩B| / (|A| + |B|)", "Dice 1945, doi:10.2307/1932409",
        lambda o: ratio(2 * o.hits, o.labelled + o.predicted),
    ),
    Metric("iou", "|A∩B| / |A∪B|", "Jaccard 1912", lambda o: ratio(o.hits, o.labelled + o.alarms)),
    Metric("sensitivity", "share of the labelled voxels that is predicted (recall)", _TAHA,
           lambda o: ratio(o.hits, o.labelled)),
    Metric("specificity", "share of the voxels outside the label that is not predicted", _TAHA,
           lambda o: ratio(o.rejections, o.voxels - o.labelled)),
    Metric("precision", "share of the predicted voxels that is labelled", _TAHA, lambda o: ratio(o.hits, o.predicted)),
    _hausdorff_metric(100.0),
    _hausdorff_metric(95.0),
    Metric("assd", "mean distance between the two borders, both directions together",
           "Heimann et al. 2009, doi:10.1109/TMI.2009.2013851", _distance(_mean_distance), "lower", "length"),
    _surface_dice_metric(1.0, "mm"),
    Metric("volume", "volume of the prediction", "", lambda o: o.volume(o.predicted), "", "volume"),
    Metric("true_volume", "volume of the label", "", lambda o: o.volume(o.labelled), "", "volume"),
    Metric("volume_error", "volume of the prediction less that of the label", "",
           lambda o: o.volume(o.predicted) - o.volume(o.labelled), "near 0", "volume"),
    Metric("volume_similarity", "1 − ||A| − |B|| / (|A| + |B|)", _TAHA,
           lambda o: 1 - ratio(abs(o.labelled - o.predicted), o.labelled + o.predicted)),
)  # fmt: skip

_BY_NAME = {metric.name: metric for metric in OVERLAP_METRICS}


def find_overlap_metric(name: str) -> OverlapMetric | None:
    """Return the metric of a name; None where there is none.

    Raises:
        ConfigError: a percentage or a tolerance is out of range, or a tolerance has no unit.

    >>> find_overlap_metric("nsd@2.5mm").name, find_overlap_metric("hd90").name, find_overlap_metric("auc")
    ('nsd@2.5mm', 'hd90', None)
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    if match := re.fullmatch(r"hd(\d{1,3}(?:\.\d{1,6})?)", name):
        percent = float(match[1])
        if not 0 < percent <= 100:
            raise ConfigError(f"metrics: got {name!r}; expected a percentage above 0 and up to 100, such as hd95.")
        return _hausdorff_metric(percent)
    if name.partition("@")[0] == "nsd":
        match = re.fullmatch(r"nsd@(\d{1,6}(?:\.\d{1,6})?)(mm|vox|voxels?)", name)
        if match is None or not float(match[1]):
            raise ConfigError(
                f"metrics: got {name!r}; expected a tolerance above 0 with its unit, such as nsd@1mm, or nsd@1voxels."
            )
        return _surface_dice_metric(float(match[1]), "mm" if match[2] == "mm" else "voxels")
    return None


def overlaps(
    label: Labels,
    prediction: Labels,
    counts: NDArray[np.int64],
    spacing: Sequence[float] | None,
    numbers: Sequence[int],
) -> Iterator[ClassOverlap]:
    """Yield the overlap of each class of an image, one after the other: only one's masks are in memory.

    Args:
        label, prediction: class numbers (*spatial).
        counts: confusion matrix of the image.
        spacing: distance between voxels along each axis in mm; None if unknown.
        numbers: the classes.
    """

    @cache
    def boxes() -> list[Box]:
        return _enclose_classes(label, prediction, len(counts))

    for number in numbers:
        yield ClassOverlap((label, prediction), number, boxes, counts, spacing)


def _enclose_classes(label: Labels, prediction: Labels, classes: int) -> list[Box]:
    """Return the box around each class in either map, from one pass over both; an empty box where it is in neither."""
    from scipy.ndimage import find_objects

    # find_objects leaves out the number 0, so every number is one higher for it.
    found = [find_objects(np.add(values, 1, dtype=np.uint16), classes) for values in (label, prediction)]
    return [_join(*pair) for pair in zip(*found, strict=True)]


def _join(first: Box | None, second: Box | None) -> Box:
    """Return the smallest box around two."""
    if first is None or second is None:
        return first or second or ()
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(first, second, strict=True))
