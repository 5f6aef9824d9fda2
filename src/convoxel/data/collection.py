"""Samples of a source before they are split into parts to train and to validate.

A layout (a file beside this one) finds the samples; ``split`` divides them; ``data_set`` holds the result.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from convoxel.data.data_set import Cache, DataSet, Entry, Form, Split
from convoxel.data.regions import Regions
from convoxel.data.split import SplitRule
from convoxel.errors import ConfigError, DataError
from convoxel.files.fault import Problem, brief, fault, shown


@dataclass(frozen=True, eq=False)
class Collection:
    """All samples of a source, in the parts that the source itself has.

    Attributes:
        name: name of the folder or file.
        task: "segment", "classify" or "regress".
        form: number of spatial axes, channels.
        classes: names, class number = position.
        parts: samples of "train", "validation" and "test", or of "" where the source has no parts.
        sources: (name, file) of everything that is read, for the fingerprint.
        notes: what was assumed because files do not say it, and what is there and not used, each without a full stop.
        broken: names of samples that were left out.
        multi_label: whether an image may have several classes, or none.
        cache: memory for the samples.
        ignored: value in label files of voxels that belong to no known class, or None.
        regions: label values of classes that overlap; None where each class has a value of its own.
    """

    name: str
    task: str
    form: Form
    classes: tuple[str, ...]
    parts: Mapping[str, Sequence[Entry]]
    sources: Sequence[tuple[str, Path]]
    notes: tuple[str, ...] = ()
    broken: frozenset[str] = frozenset()
    multi_label: bool = False
    cache: Cache = field(default_factory=Cache, repr=False)
    ignored: int | None = None
    regions: Regions | None = None

    def with_subjects(self, pattern: str | None) -> Collection:
        """Return the collection whose samples' subjects are what ``pattern`` finds in their names.

        Raises:
            ConfigError: the pattern is no regular expression, or does not match every name.
        """
        if pattern is None:
            return self
        try:
            finder = re.compile(pattern)
        except (re.error, TypeError, RecursionError, OverflowError) as error:
            came = f"subject_pattern is {brief(pattern)}, which is no regular expression ({error})"
            raise ConfigError(came + r"; expected one, such as '(patient\d+)_'.") from None
        found = {e.name: finder.search(e.name) for entries in self.parts.values() for e in entries}
        without = [name for name, match in found.items() if not _subject(match)]
        if without:
            raise ConfigError(
                f"subject_pattern is {brief(pattern)}, which finds nothing in {len(without)} of {len(found)} names, "
                f"such as {without[0]!r}; expected the subject (its first group, or the whole match) in each."
            )
        named = {part: tuple(replace(e, subject=_subject(found[e.name])) for e in entries)
                 for part, entries in self.parts.items()}  # fmt: skip
        return replace(self, parts=named)

    def without_broken(self, noted: Sequence[Problem]) -> tuple[Collection, tuple[Problem, ...]]:
        """Return the collection without the samples that cannot be read, and all problems, with those noted before.

        Raises:
            DataError: nothing of a part is whole.
        """
        whole = Split(tuple(e for entries in self.parts.values() for e in entries), self.cache)
        problems = (*noted, *whole.problems())
        broken = frozenset(problem.name for problem in problems)
        kept = {part: tuple(e for e in entries if shown(e.name) not in broken) for part, entries in self.parts.items()}
        for part, entries in self.parts.items():
            if not kept[part]:
                noun = f"the {part} part" if part else "the data"
                raise DataError(
                    f"{self.name}: all {len(entries)} samples of {noun} are broken; expected at least one whole. "
                    f"`convoxel data check` lists them. The first: {problems[0] if problems else 'there is none'}"
                )
        return replace(self, parts=kept, broken=broken), problems

    def split(self, rule: SplitRule) -> DataSet:
        """Return the data set that ``rule`` makes of these samples.

        Raises:
            DataError: two samples or classes have one name, names of several classes an image cannot be told apart, or
                a part would be empty.
        """
        self._check_names()
        counts = Counter(e.name for entries in self.parts.values() for e in entries)
        twice = next((name for name, count in counts.items() if count > 1), None)
        if twice is not None:
            raise fault(
                f"{self.name}: {twice}", f"{counts[twice]} samples of this name", "every name once", "Rename one"
            )
        parts = rule.split(self.parts, self.task, self.broken)
        facts = (self.name, self.task, self.form, self.classes, self.sources, self.notes)
        return DataSet.from_parts(parts, self.cache, *facts, self.multi_label, self.ignored, self.regions)

    def _check_names(self) -> None:
        """Raise DataError where tables and reports could not tell which class a name means."""
        forms = [unicodedata.normalize("NFC", name) for name in self.classes]
        twice = next((name for name in forms if forms.count(name) > 1 or not name.strip()), None)
        if twice is not None:
            came = f"{forms.count(twice)} classes named {twice!r}"
            raise fault(self.name, came, "every class with a name of its own", "Rename one")
        joined = next((name for name in forms if re.search(r"[;|]", name) or name.lower() == "none"), None)
        if self.multi_label and joined is not None:
            mend = "Rename it, and leave the labels of images without a class empty"
            expected = "names without ; and |, which separate several classes, and other than none"
            raise fault(self.name, f"the class {joined!r}", expected, mend)


def _subject(match: re.Match[str] | None) -> str | None:
    """Return the first group of a match that has groups, else the whole; None or "" where nothing was found."""
    return None if match is None else (match[1] if match.re.groups else match[0])
