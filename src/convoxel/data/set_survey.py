"""Facts of a data set that no single sample shows: classes that are missing, subjects and pixels on both sides.

The survey runs while every sample is read to be checked, so it costs no second reading.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from convoxel.data.data_set import IGNORED, Answer, DataSet, Sample, join_names
from convoxel.data.regions import count_classes
from convoxel.files.fault import Problem, fault_message, plural
from convoxel.files.values import Array

_SHOWN = 3


@dataclass(eq=False)
class SetSurvey:
    """Facts of the samples of a data set, gathered sample by sample.

    Attributes:
        dataset: the data set.
        occurrences: part → (classes,) samples of the part that hold the class.
        values: part → values of its samples (regress).
        same: digest of an image's values → (part, name, class) of the samples that have them.
        ignores: whether a label holds voxels to ignore.
    """

    dataset: DataSet
    occurrences: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    values: dict[str, list[tuple[float, ...]]] = field(default_factory=dict)
    same: dict[bytes, list[tuple[str, str, Answer]]] = field(default_factory=dict)
    ignores: bool = False

    def add(self, part: str, sample: Sample) -> None:
        """Take one sample of a part into account."""
        found = self.occurrences.setdefault(part, np.zeros(len(self.dataset.classes), np.int64))
        label = sample.label
        if isinstance(label, np.ndarray):
            found += count_classes(label, len(found), self.dataset.regions) > 0
            ignored = self.dataset.ignored
            self.ignores = self.ignores or (ignored is not None and bool((label == IGNORED).any()))
        elif isinstance(label, tuple):
            self.values.setdefault(part, []).append(label)
        elif isinstance(label, frozenset):
            found[sorted(label)] += 1
        elif label is not None:
            found[label] += 1
        if not _is_uniform(sample.image):
            known = None if isinstance(label, np.ndarray) else label
            self.same.setdefault(_digest(sample.image), []).append((part, sample.name, known))

    def missing(self, part: str) -> list[str]:
        """Return the names of the classes that no sample of a part holds."""
        if self.dataset.task == "regress":
            return []
        counts = self.occurrences.get(part, np.zeros(len(self.dataset.classes), np.int64))
        return [name for name, count in zip(self.dataset.classes, counts, strict=True) if not count]

    def faults(self) -> list[Problem]:
        """Return why nothing can be learnt or chosen with these parts: one class alone, in training or validation."""
        return [
            problem
            for part in ("train", "validation")
            if part in self.occurrences and (problem := self._poverty(part)) is not None
        ]

    def _poverty(self, part: str) -> Problem | None:
        """Return the problem of a part that shows too few classes: foreground is needed, and two classes to train."""
        counts, where = self.occurrences[part], f"{self.dataset.name}, {part} part"
        if self.dataset.task == "segment" and not counts[1:].any():
            came = f"no label of its {plural(len(self.dataset.parts[part]), 'sample')} holds anything but background"
            mend = "Add samples with foreground, or split them otherwise"
            return Problem(part, fault_message(where, came, "at least one class beside the background", mend))
        if self.dataset.task == "regress":
            table = np.array(self.values.get(part, []))
            constant = [name for name, column in zip(self.dataset.classes, table.T, strict=False) if not np.ptp(column)]
            if part == "train" and constant:
                came, mend = f"{constant[0]} is the same for all its samples", "Add samples with other values"
                return Problem(part, fault_message(where, came, "targets that differ", mend))
        elif self.dataset.multi_label:
            if part == "train" and not counts.any():
                came, mend = "no sample of it has a class", "Add samples with classes, or split them otherwise"
                return Problem(part, fault_message(where, came, "at least one class", mend))
        elif self.dataset.task == "classify" and part == "train" and np.count_nonzero(counts) < 2:
            came, mend = "all its samples are of one class", "Add samples of other classes, or split them otherwise"
            return Problem(part, fault_message(where, came, "at least two classes", mend))
        return None

    def leaks(self) -> list[Problem]:
        """Return what is on both sides of a split: subjects, and images whose values are identical."""
        return [*self._subject_leaks(), *(_told(self.dataset, group, "leak") for group in self._groups(across=True))]

    def _subject_leaks(self) -> Iterator[Problem]:
        parts: dict[str, dict[str, str]] = {}
        for part, samples in self.dataset.parts.items():
            for entry in samples.entries:
                if entry.subject is not None:
                    parts.setdefault(entry.subject, {}).setdefault(part, entry.name)
        for subject, places in sorted(parts.items()):
            if len(places) > 1:
                came = "is in " + " and in ".join(f"{part} ({name})" for part, name in places.items())
                where, mend = f"{self.dataset.name}, subject {subject}", "Put all samples of a subject into one part"
                yield Problem(subject, fault_message(where, came, "one part", mend))

    def _groups(self, *, across: bool) -> list[list[tuple[str, str, Answer]]]:
        """Return the groups of identical images that lie in several parts, or in one alone."""
        groups = [group for group in self.same.values() if len(group) > 1]
        return [group for group in groups if (len({part for part, *_ in group}) > 1) == across]

    def warnings(self) -> list[str]:
        """Return in words what training should know: classes and values that do not occur, and leaks."""
        found = []
        if self.dataset.ignored is not None and not self.ignores:
            found.append(
                f"no label of {self.dataset.name} holds the value to ignore, {self.dataset.ignored}. Correct "
                "ignore_label, or leave it out."
            )
        for part, what in (("train", "trained on"), ("validation", "validated")):
            missing = self.missing(part)
            if missing:
                names = ", ".join(map(repr, missing[:5]))
                names += f" and {len(missing) - 5} more" if len(missing) > 5 else ""
                them = "it" if len(missing) == 1 else "they"
                found.append(
                    f"no {part} sample of {self.dataset.name} holds {names}, so {them} cannot be {what}. "
                    "Add such samples, or hold out others."
                )
        leaks = self.leaks()
        more = f" `convoxel data check` lists {len(leaks)} such cases." if len(leaks) > _SHOWN else ""
        return found + ([" ".join(problem.message for problem in leaks[:_SHOWN]) + more] if leaks else [])

    def problems(self) -> list[Problem]:
        """Return everything that is wrong with the set as a set.

        A class that the source's own training part lacks is a problem; one that a drawn split misses is a matter of
        the split, which training says in a warning.
        """
        found = [*self.faults(), *self.leaks()]
        found += [_told(self.dataset, group, "repetition") for group in self._groups(across=False)]
        absent = self.missing("train")
        if not self.dataset.drawn:
            return found + [self._absence(name, "training") for name in absent]
        everywhere = set(absent).intersection(*(self.missing(part) for part in self.dataset.parts))
        return found + [self._absence(name, "") for name in absent if name in everywhere]

    def _absence(self, name: str, part: str) -> Problem:
        came = f"no {part + ' ' if part else ''}sample holds the class {name!r}"
        mend = "Add such samples, or remove the class"
        return Problem(name, fault_message(self.dataset.name, came, "every class in training", mend))


def _told(dataset: DataSet, group: list[tuple[str, str, Answer]], kind: str) -> Problem:
    """Return the problem of samples that hold one image."""
    classes = {known for *_, known in group if known is not None}
    across = kind == "leak"
    names = " and ".join(f"{name} ({part})" if across else name for part, name, _ in group[:_SHOWN])
    more = f" and {len(group) - _SHOWN} more" if len(group) > _SHOWN else ""
    came = f"{names}{more} hold identical pixels"
    if len(classes) > 1:
        words = [
            ", ".join(f"{value:g}" for value in c) if isinstance(c, tuple)
            else join_names(dataset.classes, c if isinstance(c, frozenset) else (c,))
            for c in classes
        ]  # fmt: skip
        noun = "with the values" if dataset.task == "regress" else "in the classes"
        came += f", {noun} {', '.join(sorted(words))}"
    expected = "different images in different parts" if across else "every image once"
    return Problem(group[0][1], fault_message(dataset.name, came, expected, "Remove all but one of them"))


def _is_uniform(image: Array) -> bool:
    """Return whether all values are equal: blank images repeat without being the same picture."""
    values = image.reshape(-1)
    return bool(values[0] == values[-1]) and bool((values == values[0]).all())


def _digest(image: Array) -> bytes:
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()
