"""Whole data sets in one .npz: train_images, train_labels, val_images, … (as MedMNIST), or images, labels.

Images are (count, W), (count, H, W) or (count, D, H, W), and may have channels: a last axis of 1, 3 or 4, or whatever
the labels' shape or the option ``axes`` tells; ``axes.find_axes`` has the rule. Labels are class numbers: (count,) or
(count, 1) to classify, or 0 and 1 (count, classes) where an image may have several classes; numbers (count,) or
(count, targets) to regress; (count, *spatial) to segment. An array ``classes`` of strings may name them. Labels are
read at once, images on first use.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from convoxel.data.axes import arrange, find_axes, space_sizes
from convoxel.data.collection import Collection
from convoxel.data.data_set import Cache, Entry, Sample
from convoxel.data.dataset_json import LabelScheme
from convoxel.data.image_file import check_finite
from convoxel.data.label_file import (
    MOST_UNNAMED,
    apply_scheme,
    check_labels,
    class_count,
    name_classes,
    settle_scheme,
    values_of,
)
from convoxel.data.numpy_file import Claims, open_archive, read_member
from convoxel.data.opening import Opening
from convoxel.files.fault import fault, shown
from convoxel.files.values import Array

_KEYS = {"train": "train_", "validation": "val_", "test": "test_"}
_MOST_CLASSES = 65_536


@dataclass(frozen=True)
class _Part:
    """One part of the archive: the key and form of its images, what their axes mean, and their labels."""

    name: str
    key: str
    stored: tuple[int, ...]
    axes: str
    labels: Array
    multi_label: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return space_sizes(self.axes, self.stored)

    @property
    def form(self) -> tuple[int, int]:
        """Number of spatial axes, channels."""
        return len(self.shape), self.stored[self.axes.index("C")] if "C" in self.axes else 1

    def sample_name(self, position: int) -> str:
        return f"{self.name}/{position:06d}" if self.name else f"{position:06d}"


def open_npz_set(path: Path, task: str, errors: Opening) -> Collection:
    """Return the samples in a .npz file."""
    claims = open_archive(path)
    keys = {part: key for part, key in _KEYS.items() if f"{key}images" in claims}
    keys = keys or {"": ""}
    if f"{next(iter(keys.values()))}images" not in claims:
        came = f"it holds the arrays {', '.join(map(shown, sorted(claims)[:8]))}"
        raise fault(path, came, "train_images and train_labels (or images and labels)", "Rename the arrays")
    parts = [_read_part(path, part, key, claims, task, errors.axes) for part, key in keys.items()]
    form, *others = sorted({part.form for part in parts})
    if others:
        came = f"parts of different form (dims, channels): {[form, *others]}"
        raise fault(path, came, "the same in every part", "Save all parts alike")
    several = parts[0].multi_label
    if any(part.multi_label != several for part in parts):
        came = "labels of one class an image in one part, of several in another"
        raise fault(path, came, "the same in every part", "Save all parts alike")
    scheme = LabelScheme()
    if task == "segment":
        classes, scheme = _name_values(path, claims, parts, errors)
    else:
        classes = _name_classes(path, claims, _count_classes(path, task, parts, errors), task, errors.classes)
    entries = {
        part.name: [e for e in _entries(path, part, task, scheme) if e.name not in errors.names] for part in parts
    }
    sources, cache = [(path.name, path)], Cache(0)  # the arrays are in memory already: no second copy in float32
    notes = tuple(
        f"the axes of {part.key}images {(len(part.labels), *part.stored)} are read as N{part.axes}" for part in parts
    )
    if several and all((part.labels.sum(axis=1) == 1).all() for part in parts):
        notes += ("every image has one class, although several may be; class numbers (count,) would exclude others",)
    facts = (shown(path.stem), task, form, classes, entries, sources, notes)
    return Collection(*facts, multi_label=several, cache=cache, ignored=scheme.ignored, regions=scheme.regions)


def _read_part(path: Path, name: str, key: str, claims: dict[str, Claims], task: str, axes: str | None) -> _Part:
    """Return a part with its labels; only the headers of its images are read."""
    images, dtype = claims[f"{key}images"]
    where = f"{path}[{key}labels]"
    if f"{key}labels" not in claims:
        raise fault(path, f"{key}images without {key}labels", "an array of labels", f"Add {key}labels")
    shape = claims[f"{key}labels"][0]
    if task == "regress":
        return _read_values(
            path,
            name,
            key,
            images,
            find_axes(f"{path}[{key}images]", images[1:], dtype, axes=axes, channels_last=True),
            claims,
        )
    several = task == "classify" and len(shape) == 2 and shape[0] == images[0] and shape[1] > 1 and shape != images
    if task == "classify" and not several and math.prod(shape) != images[0]:
        expected = "one class number an image, (count,), or 0 and 1 for each class, (count, classes)"
        mend = "Give the classes of every image, or choose the task segment"
        raise fault(where, f"labels of shape {shape} for {images[0]} images", expected, mend)
    grid = space_sizes(find_axes(where, shape[1:], dtype, channels=1), shape[1:]) if task == "segment" else None
    found = find_axes(f"{path}[{key}images]", images[1:], dtype, axes=axes, grid=grid, channels_last=True)
    if grid is not None and (shape[0] != images[0] or grid != space_sizes(found, images[1:])):
        came, mend = f"labels of shape {shape} for images of shape {images}", "Give one class number a pixel"
        expected = f"{(images[0], *space_sizes(found, images[1:]))}"
        raise fault(where, came, expected, f"{mend}, or choose the task classify")
    stored = read_member(path, f"{key}labels")
    if several:
        if shape[1] > _MOST_CLASSES or not np.isin(stored, (0, 1)).all():
            expected = f"0 and 1 for each of at most {_MOST_CLASSES} classes"
            raise fault(where, f"labels of shape {shape} with other numbers", expected, "Correct the labels")
        return _Part(name, key, images[1:], found, stored.astype(np.uint8), multi_label=True)
    if task == "classify":
        return _Part(name, key, images[1:], found, check_labels(where, stored.reshape(-1), _MOST_CLASSES))
    return _Part(name, key, images[1:], found, check_labels(where, stored.reshape(images[0], *(grid or ()))))


def _read_values(
    path: Path, name: str, key: str, images: tuple[int, ...], axes: str, claims: dict[str, Claims]
) -> _Part:
    """Return a part whose labels are numbers to predict, (count, targets)."""
    shape, dtype = claims[f"{key}labels"]
    where = f"{path}[{key}labels]"
    if not 1 <= len(shape) <= 2 or shape[0] != images[0] or 0 in shape or dtype.kind not in "iufb":
        came, expected = (
            f"labels of shape {shape} and type {dtype}",
            f"({images[0]},) or ({images[0]}, targets) numbers",
        )
        raise fault(where, came, expected, "Give the numbers of every image")
    values = read_member(path, f"{key}labels").astype(np.float64).reshape(images[0], -1)
    if not (np.abs(values) <= 1e30).all():
        raise fault(where, "labels that are not finite", "finite numbers", "Correct the labels")
    return _Part(name, key, images[1:], axes, values)


def _count_classes(path: Path, task: str, parts: list[_Part], errors: Opening) -> int:
    """Return the number of classes: no number is left out, and to classify training shows them all."""
    mend = "Renumber the labels"
    if task == "regress":
        widths = sorted({part.labels.shape[1] for part in parts})
        if len(widths) > 1 or (errors.classes and widths != [len(errors.classes)]):
            expected = f"{len(errors.classes)}, as the network knows" if errors.classes else "the same number"
            raise fault(path, f"labels of {', '.join(map(str, widths))} targets", expected, "Save all parts alike")
        return int(widths[0])
    if parts[0].multi_label:
        widths = sorted({part.labels.shape[1] for part in parts if part.multi_label})
        if len(widths) > 1 or (errors.classes and widths != [len(errors.classes)]):
            expected = f"{len(errors.classes)}, as the network knows" if errors.classes else "the same number"
            raise fault(path, f"labels of {', '.join(map(str, widths))} classes", expected, "Save all parts alike")
        return int(widths[0])
    if errors.classes:
        count = len(errors.classes)
        for part in parts:
            if task == "classify" and part.labels.max(initial=0) >= count:
                came = f"class {part.labels.max()}, which the network does not know"
                raise fault(f"{path}[{part.key}labels]", came, f"0 to {count - 1}", mend)
        return count
    found = [int(v) for v in np.unique(parts[0].labels)]
    count = len(found)
    if found != list(range(count)):
        came = f"{count} different labels from {found[0]} to {found[-1]}"
        raise fault(f"{path}[{parts[0].key}labels]", came, "class numbers 0, 1, 2, … without a gap", mend)
    for part in parts[1:]:
        if part.labels.max() >= count:
            came = f"class {part.labels.max()}, which does not occur in training"
            raise fault(f"{path}[{part.key}labels]", came, f"0 to {count - 1}", mend)
    _check_count(path, count)
    return count


def _check_count(path: Path, count: int) -> None:
    if count < 2:
        raise fault(path, "all labels are 0", "at least two classes", "Check that the labels are the right ones")


def _name_values(
    path: Path, claims: dict[str, Claims], parts: list[_Part], errors: Opening
) -> tuple[tuple[str, ...], LabelScheme]:
    """Return the names of the classes of label maps, or of regions, and what the label values mean."""
    scheme = settle_scheme(path, errors)
    ignored = scheme.ignored

    def held() -> dict[str, frozenset[int]]:
        return {p.sample_name(i): values_of(label, ignored) for p in parts for i, label in enumerate(p.labels)}

    def count() -> int:
        found, complaints = class_count(held())
        for name, came in complaints.items():
            expected = f"class numbers 0, 1, 2, … without a gap, at most {MOST_UNNAMED}"
            errors.note(name, fault(f"{path}[{name}]", came, expected, "Renumber the labels"))
        _check_count(path, found)
        return found

    if scheme.regions is None and "classes" in claims:
        least = len(errors.classes) or 1 + max((max(values, default=0) for values in held().values()), default=0)
        _check_count(path, least)
        scheme = replace(scheme, names=_read_names(path, least))
    return name_classes(path, scheme, count)


def _read_names(path: Path, least: int) -> tuple[str, ...]:
    """Return the names in the array ``classes``."""
    names = tuple(shown(name) for name in read_member(path, "classes").reshape(-1))
    if len(names) < least or len(set(names)) < len(names):
        came = f"{len(set(names))} different names in the array classes"
        raise fault(path, came, f"at least {least}, one a class", "Name every class once")
    return names


def _name_classes(
    path: Path, claims: dict[str, Claims], count: int, task: str, known: tuple[str, ...]
) -> tuple[str, ...]:
    if "classes" in claims:
        return _read_names(path, count)
    if known:
        return known
    if task == "classify":
        return tuple(str(i) for i in range(count))
    return ("value",) if count == 1 else tuple(f"value {i}" for i in range(1, count + 1))


def _entries(path: Path, part: _Part, task: str, scheme: LabelScheme) -> tuple[Entry, ...]:
    @cache
    def images() -> Array:
        return read_member(path, f"{part.key}images")

    def reader(position: int) -> Callable[[], Sample]:
        def read() -> Sample:
            where = f"{path}[{part.key}images][{position}]"
            with np.errstate(all="ignore"):
                stored = images()[position].astype(np.float32)
            pixels = np.ascontiguousarray(arrange(stored, part.axes))
            check_finite(where, pixels)
            label = answers[position]
            if task == "segment":
                label = np.array(apply_scheme(where, part.labels[position], scheme))
            return Sample(part.sample_name(position), pixels, label, source=path)

        return read

    answers: list[Any] = [None] * len(part.labels)
    if part.multi_label:
        answers = [frozenset(map(int, np.flatnonzero(row))) for row in part.labels]
    elif task == "regress":
        answers = [tuple(map(float, row)) for row in part.labels]
    elif task == "classify":
        answers = [int(v) for v in part.labels]
    return tuple(Entry(part.sample_name(i), part.shape, None, reader(i), c) for i, c in enumerate(answers))
