"""The opening of a source: where its readers report faults, and what they know before they look."""

from __future__ import annotations

from dataclasses import dataclass

from convoxel.data.axes import check_axes
from convoxel.data.regions import Regions
from convoxel.files.fault import ErrorCollector


@dataclass
class Opening(ErrorCollector):
    """The faults of a source, the classes that its samples are for, and how its files are read.

    Attributes:
        classes: names of a network's classes, the background first to segment. Labels then need not hold all of them,
            and whatever else they hold is a fault (default: the classes are those that the source has).
        axes: what the axes of NumPy arrays mean, such as "HWC" (default None: as ``find_axes`` finds).
        rate: rate in Hz to which recordings are resampled, or None to refuse channels of unequal rates (default None).
        resample_labels: a label of another grid than its image's is no fault, but brought onto it (default False).
        ignored: value in label files of voxels that belong to no known class (default None: as the source says).
        regions: regions that the user states, or those of the network (default None: as the source says).
        region_names: names of the background and of the regions that the user states.
    """

    classes: tuple[str, ...] = ()
    axes: str | None = None
    rate: float | None = None
    resample_labels: bool = False
    ignored: int | None = None
    regions: Regions | None = None
    region_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_axes(self.axes)
