"""Statistics of a data set: sizes, spacings, orientations, intensities and classes, for each part."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from convoxel.data.data_set import DataSet, Entry, Sample, Split
from convoxel.data.regions import Regions, count_classes
from convoxel.files.values import JsonObject

_MOST_VALUES = 1 << 14  # of an image and channel, evenly spread, from which quantiles are estimated
_QUANTILES = {"quantile_0.005": 0.005, "median": 0.5, "quantile_0.995": 0.995}


def measure_set(dataset: DataSet) -> JsonObject:
    """Return what a data set holds, part by part, as JSON can hold it; reads every sample once.

    Sizes and spacings are the least, median and largest along each axis. Mean and deviation are over all voxels;
    quantiles are estimated from at most 16 384 values of each image. ``share`` of a class is that of all voxels (of all
    samples, to classify), ``volume_ml`` (``area_mm2`` of pictures) counts the samples that hold it. Samples that cannot
    be read are listed in ``broken``.
    """
    facts = {name: getattr(dataset, name) for name in ("name", "task", "dims", "channels", "rule")}
    parts = {name: _measure_part(dataset, part) for name, part in dataset.parts.items()}
    facts["regions"] = dataset.region_values
    return {**facts, "classes": list(dataset.classes), "notes": list(dataset.notes), "parts": parts}


@dataclass(eq=False)
class _Sums:
    """Sums over the samples of a part."""

    channels: int
    classes: int
    regions: Regions | None = None
    count: int = 0
    values: list[NDArray[np.float64]] = field(
        default_factory=list
    )  # (4, channels): sum, sum of squares, least, largest
    drawn: list[NDArray[np.float32]] = field(default_factory=list)  # (channels, some of the values)
    voxels: list[NDArray[np.int64]] = field(default_factory=list)  # (classes,) of each sample
    sizes: list[float | None] = field(default_factory=list)  # of a voxel of each sample, in mm² or mm³

    def add(self, sample: Sample) -> None:
        flat = sample.image.reshape(self.channels, -1)
        wide = flat.astype(np.float64)
        self.count += flat.shape[1]
        self.values.append(np.stack([wide.sum(1), np.square(wide).sum(1), wide.min(1), wide.max(1)]))
        self.drawn.append(np.array(flat[:, :: max(1, flat.shape[1] // _MOST_VALUES)]))
        if isinstance(sample.label, np.ndarray):
            self.voxels.append(count_classes(sample.label, self.classes, self.regions))
        self.sizes.append(None if sample.spacing_mm is None else math.prod(sample.spacing_mm))


def _measure_part(dataset: DataSet, part: Split) -> JsonObject:
    sums = _Sums(dataset.channels, len(dataset.classes), dataset.regions)
    broken = [problem.name for problem in part.problems(sums.add)]
    subjects = {entry.subject for entry in part.entries} - {None}
    known = [entry.spacing_mm for entry in part.entries if entry.spacing_mm is not None]
    return {
        "samples": len(part),
        "subjects": len(subjects) or None,
        "shape": _range(part.shapes),
        "spacing_mm": _range(known),
        "orientations": dict(Counter(map(_orientation, part.entries)).most_common()),
        "intensity": _intensity(sums) if sums.count else None,
        "classes": _classes(dataset, part, sums),
        "broken": broken,
    }


def _range(rows: Sequence[Sequence[float]]) -> JsonObject | None:
    """Return the least, median and largest of each column."""
    if not rows:
        return None
    table = np.array(rows, np.float64)
    found = {"min": table.min(axis=0), "median": np.median(table, axis=0), "max": table.max(axis=0)}
    return {name: [_plain(value) for value in row] for name, row in found.items()}


def _plain(value: float) -> float | int:
    """Return a whole number as int."""
    return int(value) if float(value).is_integer() else float(value)


def _orientation(entry: Entry) -> str:
    """Return the directions of the axes, such as "RAS": towards the patient's right, front and top."""
    if entry.affine is None:
        return "unknown"
    from nibabel.orientations import aff2axcodes

    return "".join(code or "?" for code in aff2axcodes(entry.affine))


def _intensity(sums: _Sums) -> JsonObject:
    table = np.stack(sums.values)
    mean = table[:, 0].sum(axis=0) / sums.count
    deviation = np.sqrt(np.maximum(table[:, 1].sum(axis=0) / sums.count - mean**2, 0.0))
    drawn = np.concatenate(sums.drawn, axis=1)
    rows = {"mean": mean, "std": deviation, "min": table[:, 2].min(axis=0), "max": table[:, 3].max(axis=0)}
    rows |= {name: np.quantile(drawn, share, axis=1) for name, share in _QUANTILES.items()}
    return {name: [float(value) for value in row] for name, row in rows.items()}


def _classes(dataset: DataSet, part: Split, sums: _Sums) -> list[JsonObject]:
    """Return what is told of each class, or of each target: to regress, the spread of its values."""
    if dataset.task == "regress":
        table = np.array([entry.label for entry in part.entries], np.float64).reshape(len(part), -1)
        return [
            {"name": name, "samples": len(part), "mean": float(column.mean()), "std": float(column.std()),
             "min": float(column.min()), "median": float(np.median(column)), "max": float(column.max())}
            for name, column in zip(dataset.classes, table.T if len(part) else (), strict=False)
        ]  # fmt: skip
    return _count_labels(dataset, part) if dataset.task == "classify" else _count_voxels(dataset, sums)


def _count_labels(dataset: DataSet, part: Split) -> list[JsonObject]:
    counts = Counter(
        number for label in part.labels for number in (label if isinstance(label, frozenset) else (label,))
    )
    return [
        {"name": name, "samples": counts[number], "share": counts[number] / max(len(part), 1)}
        for number, name in enumerate(dataset.classes)
    ]


def _count_voxels(dataset: DataSet, sums: _Sums) -> list[JsonObject]:
    table = np.array(sums.voxels, np.int64).reshape(-1, len(dataset.classes))
    unit = {2: "area_mm2", 3: "volume_ml"}.get(dataset.dims)
    scale = 1e-3 if dataset.dims == 3 else 1.0  # a millilitre is 1000 mm³
    found = []
    for number, name in enumerate(dataset.classes):
        counts, row = table[:, number], JsonObject(name=name)
        held: Iterable[tuple[int, float | None]] = zip(counts.tolist(), sums.sizes, strict=True)
        extents = [[count * size * scale] for count, size in held if count and size is not None]
        limits = _range(extents)
        row |= {"samples": int(np.count_nonzero(counts)), "voxels": int(counts.sum())}
        row |= {"share": float(counts.sum() / max(int(table.sum()) if dataset.regions is None else sums.count, 1))}
        if unit is not None:
            row[unit] = None if limits is None else {key: values[0] for key, values in limits.items()}
        found.append(row)
    return found
