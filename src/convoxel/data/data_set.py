"""Samples, the splits that hold them, and the data set.

Samples are read and checked on first use, and kept in memory while there is room. Nothing here knows a file format;
readers provide entries that can read themselves.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from convoxel.data.image_format import image_parts
from convoxel.data.image_header import Affine, Spacing
from convoxel.data.regions import Regions
from convoxel.errors import DataError
from convoxel.files.content import hash_file
from convoxel.files.fault import Problem, shown
from convoxel.fork import cached_property, renewed_lock

#: What is known of a whole image: the number of its class, those of all classes that it has, its values, or nothing.
Answer: TypeAlias = int | frozenset[int] | tuple[float, ...] | None

#: What label maps hold where nobody said which class it is: such voxels count neither in losses nor in metrics.
IGNORED = 255


@dataclass(frozen=True, eq=False)
class Sample:
    """One image with its label and geometry.

    Attributes:
        name: file name without ending, unique in the data set.
        image: float32 (channels, *spatial), values as stored (pictures: 0…255).
        label: class number, or the set of class numbers that the image has (classify); values of the targets (regress);
            uint8 class numbers (*spatial) (segment), 255 for the value to ignore of data that have one; or None.
        affine: 4×4 matrix from voxel index to mm, or None.
        spacing_mm: distance between voxels along each spatial axis in mm, or None.
        source: the image's file, or None.
        origin: what of that file's own header survives in files written ``like`` this sample, or None.
        oriented: False where the file states no orientation, so that its affine is a guess.
        painted: whether the label's file holds 255 in place of 1, as masks from paint programs do (default False).

    The arrays of a sample that a Split returns are read-only, since they are kept for the next epoch: copy them before
    you change them.
    """

    name: str
    image: NDArray[np.float32]
    label: Answer | NDArray[np.uint8] = None
    affine: Affine = None
    spacing_mm: Spacing = None
    source: Path | None = None
    origin: object = None
    oriented: bool = True
    painted: bool = False

    @property
    def stated_affine(self) -> Affine:
        """The affine where the file states one; a guess is None."""
        return self.affine if self.oriented else None

    @property
    def size_bytes(self) -> int:
        """Memory of image and label."""
        return self.image.nbytes + (self.label.nbytes if isinstance(self.label, np.ndarray) else 0)


@dataclass(frozen=True, eq=False)
class Entry:
    """A sample that can be read: the facts of its header, and the function that reads and checks it.

    Attributes:
        name: name of the sample.
        shape: spatial sizes.
        spacing_mm: distance between voxels along each axis in mm, or None.
        read: returns the sample.
        label: class number, or the set of class numbers that the image has (classify); values of the targets (regress).
        subject: patient, animal …, whose samples are never split; None where nothing is known.
        affine: 4×4 matrix from voxel index to mm; None where the file does not say how the image lies.
    """

    name: str
    shape: tuple[int, ...]
    spacing_mm: Spacing
    read: Callable[[], Sample]
    label: Answer = None
    affine: Affine = None
    subject: str | None = None


class Cache:
    """Memory for samples, shared by the splits of a data set.

    The samples that come first are kept: an epoch visits every sample once, so with a set larger than the bound,
    discarding the oldest would discard each sample just before its next use.
    """

    def __init__(self, limit_bytes: int | None = None) -> None:
        self.limit_bytes = _default_limit() if limit_bytes is None else limit_bytes
        self.used_bytes = 0
        self._samples: dict[int, Sample] = {}
        self._lock = renewed_lock()

    def get(self, entry: Entry) -> Sample:
        """Return the entry's sample, read at most once while there is room."""
        key = id(entry)
        sample = self._samples.get(key)
        if sample is None:
            sample = entry.read()
            sample.image.flags.writeable = False
            if isinstance(sample.label, np.ndarray):
                sample.label.flags.writeable = False
            with self._lock:
                if key not in self._samples and self.used_bytes + sample.size_bytes <= self.limit_bytes:
                    self._samples[key] = sample
                    self.used_bytes += sample.size_bytes
        return sample

    def forget(self, entry: Entry) -> None:
        """Give back the memory of an entry's sample."""
        with self._lock:
            sample = self._samples.pop(id(entry), None)
            self.used_bytes -= 0 if sample is None else sample.size_bytes


def _default_limit() -> int:
    """A quarter of the machine's memory, at most 4 GiB."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        memory = 4 * 2**30
    return min(memory // 4, 4 * 2**30)


@dataclass(frozen=True, eq=False)
class Split:
    """A part of a data set: ``split[i]`` reads, checks and keeps sample i; ``len`` and iteration too."""

    entries: tuple[Entry, ...]
    cache: Cache = field(default_factory=Cache, repr=False)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Sample:
        return self.cache.get(self.entries[index])

    def __iter__(self) -> Iterator[Sample]:
        for index in range(len(self)):
            yield self[index]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the samples, in order."""
        return tuple(entry.name for entry in self.entries)

    @cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Spatial sizes of the samples, in order, without reading them."""
        return tuple(entry.shape for entry in self.entries)

    @cached_property
    def labels(self) -> tuple[Answer, ...]:
        """Class numbers of the samples, or sets of them (classify), without reading them; None for segmentation."""
        return tuple(entry.label for entry in self.entries)

    def problems(self, on_sample: Callable[[Sample], None] | None = None) -> list[Problem]:
        """Read every sample once and return what is wrong with any of them.

        Args:
            on_sample: called with each sample that could be read (default None).
        """
        found = []
        for index, entry in enumerate(self.entries):
            try:
                sample = self[index]
            except DataError as error:
                found.append(Problem(shown(entry.name), str(error)))
            else:
                if on_sample is not None:
                    on_sample(sample)
        return found


def join_names(classes: Sequence[str], numbers: Iterable[int]) -> str:
    """Return the names of some classes in the classes' order; "none" of none.

    >>> join_names(("cat", "dog", "hat"), {2, 0}), join_names(("cat", "dog"), ())
    ('cat; hat', 'none')
    """
    return "; ".join(classes[number] for number in sorted(numbers)) or "none"


class Parts(NamedTuple):
    """The samples of each part, and how they were told apart.

    ``rule`` says it in words, ``notes`` are sentences about samples that are not used, and ``drawn`` is False where the
    source has the parts itself.
    """

    train: Sequence[Entry]
    validation: Sequence[Entry]
    test: Sequence[Entry]
    rule: str
    notes: tuple[str, ...] = ()
    drawn: bool = False


Form = tuple[int, int]  # number of spatial axes, channels
Sources = Iterable[tuple[str, Path]]


@dataclass(frozen=True)
class Intensity:
    """Mean, standard deviation, least and largest value of the training images, per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class DataSet:
    """A checked data set, split for training.

    Attributes:
        name: name of the folder, file or bundled set.
        task: "segment", "classify" or "regress".
        dims: number of spatial axes.
        channels: channels of every image.
        classes: names, class number = position; to regress, names of the targets.
        train, validation: samples to train and to validate.
        test: samples of the source's own test part, else None.
        sources: (name, file) of everything that was read, for the fingerprint.
        skipped: broken samples that were left out (only with ``load(..., bad="skip")``).
        rule: in words, how the samples were split.
        notes: sentences about what was assumed because files do not say it, and about what is there and not used.
        drawn: whether the validation part was cut from the training part here.
        multi_label: whether an image may have several classes, or none (classify).
        ignored: value in label files of voxels that belong to no known class; None where there is none.
        regions: label values of each class but the background, where classes overlap: label maps then hold values, not
            class numbers; None where each class has a number of its own.
    """

    name: str
    task: str
    dims: int
    channels: int
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split | None = None
    sources: tuple[tuple[str, Path], ...] = field(default=(), repr=False)
    skipped: tuple[Problem, ...] = ()
    rule: str = ""
    notes: tuple[str, ...] = ()
    drawn: bool = False
    multi_label: bool = False
    ignored: int | None = None
    regions: Regions | None = None

    @classmethod
    def from_parts(
        cls,
        parts: Parts,
        cache: Cache,
        name: str,
        task: str,
        form: Form,
        classes: Sequence[str],
        sources: Sources,
        notes: tuple[str, ...] = (),
        multi_label: bool = False,
        ignored: int | None = None,
        regions: Regions | None = None,
    ) -> DataSet:
        """Return the data set whose parts have these entries; an empty test part becomes None."""
        train, validation, test = (Split(tuple(entries), cache) for entries in parts[:3])
        facts = (name, task, *form, tuple(classes), train, validation, test if test else None, tuple(sources))
        told = (parts.rule, (*notes, *parts.notes), parts.drawn)
        return cls(*facts, (), *told, multi_label=multi_label, ignored=ignored, regions=regions)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over task, class names, and every file's name, size and content: equal means equal data.

        The folder's place and its split do not count.
        """
        digest = hashlib.sha256(repr(("convoxel data 1", self.task, self.classes)).encode())
        if self.regions is not None:
            digest.update(repr(self.regions.values).encode())
        for name, path in sorted(self.sources, key=lambda item: os.fsencode(item[0])):
            for part in image_parts(path):
                label = name if part == path else f"{name}/{part.name}"
                content = hash_file(part, "Load the data set again")
                digest.update(repr((os.fsencode(label), part.stat().st_size, content)).encode())
        return digest.hexdigest()

    @property
    def parts(self) -> dict[str, Split]:
        """The parts by name: train, validation, and test where the source has it."""
        parts = {"train": self.train, "validation": self.validation}
        return parts if self.test is None else {**parts, "test": self.test}

    @property
    def region_values(self) -> dict[str, tuple[int, ...]] | None:
        """The label values of each region by name; None where classes do not overlap."""
        return None if self.regions is None else dict(zip(self.classes[1:], self.regions.values, strict=True))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what a network finds in these data: the classes; of regions, the regions without the background."""
        return self.classes if self.regions is None else self.classes[1:]

    def class_of(self, entry: Entry) -> str | None:
        """Return a sample's class, its classes ("a; b") or its values in words; None where a label map has them."""
        if isinstance(entry.label, tuple):
            return "; ".join(f"{value:.6g}" for value in entry.label)
        if isinstance(entry.label, frozenset):
            return join_names(self.classes, entry.label)
        return None if entry.label is None else self.classes[entry.label]

    def to_dict(self) -> dict[str, object]:
        """Return everything but the pixels: classes, spacing, fingerprint, and the samples of every part."""
        return {
            **{name: getattr(self, name) for name in ("name", "task", "dims", "channels")},
            "classes": list(self.classes),
            "multi_label": self.multi_label,
            "regions": self.region_values,
            "spacing_mm": self.spacing_mm,
            "fingerprint": self.fingerprint,
            "rule": self.rule,
            "notes": list(self.notes),
            "parts": {name: [self._describe(entry) for entry in part.entries] for name, part in self.parts.items()},
        }

    def _describe(self, entry: Entry) -> dict[str, object]:
        facts = {"name": entry.name, "shape": list(entry.shape), "spacing_mm": entry.spacing_mm}
        return {**facts, "class": self.class_of(entry), "subject": entry.subject}

    @cached_property
    def spacing_mm(self) -> Spacing:
        """Median voxel spacing of the training samples along each axis in mm; None where the format has none."""
        known = [e.spacing_mm for e in self.train.entries if e.spacing_mm is not None]
        return tuple(float(v) for v in np.median(np.array(known), axis=0)) if known else None

    @cached_property
    def intensity(self) -> Intensity:
        """Statistics of the training images, per channel (sums in double precision; reads every one)."""
        count = 0
        total, squares = np.zeros(self.channels), np.zeros(self.channels)
        low, high = np.full(self.channels, np.inf), np.full(self.channels, -np.inf)
        for sample in self.train:
            values = sample.image.reshape(self.channels, -1).astype(np.float64)
            count += values.shape[1]
            total += values.sum(axis=1)
            squares += np.square(values).sum(axis=1)
            low, high = np.minimum(low, values.min(axis=1)), np.maximum(high, values.max(axis=1))
        mean = total / count
        std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
        return Intensity(*(tuple(float(v) for v in row) for row in (mean, std, low, high)))

    def split(self, name: str) -> Split:
        """Return the samples of "train", "validation" or "test", or of "all" of them together.

        Raises:
            DataError: the data set has no such part.
        """
        parts = self.parts
        if name == "all":
            return Split(tuple(entry for part in parts.values() for entry in part.entries), self.train.cache)
        if not parts.get(name):
            there = ", ".join(part for part, samples in parts.items() if samples)
            raise DataError(f"split: {self.name} has no {name} part; it has {there}.")
        return parts[name]

    def problems(self, on_sample: Callable[[str, Sample], None] | None = None) -> list[Problem]:
        """Read every sample once and return what is wrong with any of them.

        Args:
            on_sample: called with the part's name and each sample that could be read (default None).
        """
        found = []
        for part, samples in self.parts.items():
            found += samples.problems(None if on_sample is None else functools.partial(on_sample, part))
        return found
