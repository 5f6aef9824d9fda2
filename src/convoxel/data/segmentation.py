"""Segmentation folders: images/ and labels/ with equal stems, optionally under train/, validation/ and test/.

    folder/images/case_01.nii.gz      folder/labels/case_01.nii.gz      folder/classes.txt (optional)

Also understood: ``imagesTr``/``labelsTr`` with ``dataset.json``. Hidden files and notes are ignored.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from convoxel.data.channel_files import channel_of, gather_channels, read_channels, read_image_header, whole_case
from convoxel.data.collection import Collection
from convoxel.data.data_set import IGNORED, Entry, Sample, Sources
from convoxel.data.dataset_json import LabelScheme
from convoxel.data.folder_parts import find_parts, subfolders
from convoxel.data.geometry import fit_label
from convoxel.data.image_file import list_images, read_header, with_dims
from convoxel.data.image_format import at_rate, split_ending
from convoxel.data.image_header import GridMatch, Header, agree, compare_grids, describe_reading, sizes
from convoxel.data.label_file import (
    MOST_UNNAMED,
    apply_scheme,
    class_count,
    folder_scheme,
    name_classes,
    read_label,
    read_label_header,
    settle_scheme,
    values_of,
)
from convoxel.data.opening import Opening
from convoxel.files.fault import ErrorCollector, fault, few, plural, shown

_COUNTED = LabelScheme()
_PAIRS = (("images", "labels"), ("imagesTr", "labelsTr"))
_MEND = "Put images into images/ and labels of the same name into labels/"


@dataclass(frozen=True)
class Pair:
    """The files of one sample to segment.

    Attributes:
        part: part of the source that the sample belongs to ("" if it has none).
        name: name of the sample.
        images: its image, as one file or as a file a channel.
        label: its label map.
        subject: the patient or animal, or None.
    """

    part: str
    name: str
    images: tuple[Path, ...]
    label: Path
    subject: str | None = None

    @property
    def image(self) -> Path:
        """The first file of the image."""
        return self.images[0]


def has_pairs(folder: Path) -> bool:
    """Return whether a folder, or its training part, holds a folder of images and one of labels."""
    place = next(iter(find_parts(folder).values()))
    return _find_pair(place) is not None


def _find_pair(folder: Path) -> tuple[Path, Path] | None:
    """Return the folders of images and labels, whose names may be written in capitals."""
    there: dict[str, list[Path]] = {}
    for place in subfolders(folder):
        there.setdefault(place.name.lower(), []).append(place)
    for kinds in _PAIRS:
        found = [there.get(kind.lower(), []) for kind in kinds]
        if all(found):
            for places in found:
                if len(places) > 1 and places[0].name not in kinds:
                    names = " and ".join(shown(place.name) for place in places)
                    raise fault(folder, f"the folders {names} differ in capitals alone", "one of them", "Merge them")
            first, second = (next((p for p in places if p.name in kinds), places[0]) for places in found)
            return first, second
    return None


def open_segmentation(folder: Path, errors: Opening) -> Collection:
    """Return the samples of a segmentation folder; pixels are read later, class numbers are found now."""
    parts, scheme = find_parts(folder), folder_scheme(folder)
    pairs = [pair for part, place in parts.items() for pair in _pair_files(part, place, errors)]
    return open_pairs(folder, pairs, errors, scheme=scheme, parts=tuple(parts))


def open_pairs(
    folder: Path,
    pairs: Sequence[Pair],
    errors: Opening,
    *,
    scheme: LabelScheme = _COUNTED,
    parts: Sequence[str] = (),
    title: str = "",
    notes: Sequence[str] = (),
    sources: Sources = (),
) -> Collection:
    """Return the samples of pairs of images and labels; headers are checked now, pixels are read later.

    Args:
        folder: folder that holds them, for messages.
        pairs: files of each sample.
        errors: where problems are reported.
        scheme: what the source says of label values (default nothing: classes are counted in the labels).
        parts: parts of the source, none of which may be empty (default: those of the pairs).
        title: name of the data set (default: that of the folder).
        notes: what is there and not used (default none).
        sources: further (name, file) of what was read, for the fingerprint (default none).
    """
    scheme = settle_scheme(folder, errors, scheme)
    parts = tuple(parts) or tuple(dict.fromkeys(pair.part for pair in pairs))
    pairs = [replace(p, images=tuple(at_rate(path, errors.rate) for path in p.images)) for p in _once(pairs, errors)]
    headers, assumed, named = _read_headers(pairs, errors, () if scheme.regions else scheme.names or ())
    pairs = [pair for pair in pairs if pair.name in headers]
    if not pairs:
        raise fault(folder, "no usable pair of image and label", "images/NAME and labels/NAME", _MEND)
    dims, channels = agree({p.name: (p.image, headers[p.name]) for p in pairs}, errors)
    ignored = scheme.ignored
    names, scheme = name_classes(folder, scheme, lambda: _count_classes(folder, pairs, errors, ignored), named)
    pairs = [pair for pair in pairs if pair.name not in errors.names]
    form = (dims, channels, scheme, errors.resample_labels)
    entries = {part: [_entry(p, headers[p.name], *form) for p in pairs if p.part == part] for part in parts}
    read = [*sources, *(source for pair in pairs for source in _sources(pair))]
    title = title or shown(folder.resolve().name)
    told = (*assumed, *notes)
    found = Collection(title, "segment", (dims, channels), names, entries, read, told)
    return replace(found, ignored=scheme.ignored, regions=scheme.regions)


def _once(pairs: Sequence[Pair], errors: ErrorCollector) -> list[Pair]:
    """Return the pairs whose files belong to no other pair, and are not image and label at once."""
    owners: dict[Path, str] = {}
    kept = []
    for pair in pairs:
        with errors.collect(pair.name):
            for path in (*pair.images, pair.label):
                owner = owners.setdefault(path, pair.name)
                if owner != pair.name:
                    raise fault(path, f"it belongs to {owner} and to {pair.name}", "a file for each", "Name another")
            if pair.label in pair.images or len(set(pair.images)) < len(pair.images):
                raise fault(pair.label, f"it is two files of {pair.name} at once", "different files", "Name another")
            kept.append(pair)
    return kept


def without_labels(names: Sequence[str]) -> str:
    """Return the note about test images that have no labels.

    >>> without_labels(["test00", "test01"])
    '2 test images have no label and are not used, such as test00'
    """
    some = "1 test image has no label and is" if len(names) == 1 else f"{len(names)} test images have no label and are"
    return f"{some} not used, such as {names[0]}"


def _sources(pair: Pair) -> Iterator[tuple[str, Path]]:
    """Yield the files of a pair by the names that the fingerprint has for them."""
    yield f"{pair.name}/label", pair.label
    for channel, path in enumerate(pair.images):
        yield f"{pair.name}/image" + (f"/{channel}" if channel else ""), path


def _pair_files(part: str, folder: Path, errors: ErrorCollector) -> list[Pair]:
    """Return the images that have a label, sorted by name; each file without its partner is reported."""
    kinds = _find_pair(folder)
    if kinds is None:
        missing = "labels/" if (folder / "images").is_dir() else "images/"
        raise fault(folder, f"there is no folder {missing}", "the folders images/ and labels/", _MEND)
    prefix = f"{part}/" if part else ""
    images, labels = (_by_stem(kind, prefix, errors) for kind in kinds)
    stems = {key: split_ending(path)[0] for key, path in (*labels.items(), *images.items())}
    files = _channel_files(images, labels, prefix, errors)
    stems.update({case: case for case in files})
    files = files or {key: (path,) for key, path in images.items()}
    images = {key: held[0] for key, held in files.items()}
    for here, there, noun, partner, other in (
        (images, labels, "an image", "label", kinds[1].name),
        (labels, images, "a label", "image", kinds[0].name),
    ):
        for key in sorted(here.keys() - there.keys()):
            mend = f"Add its {partner}, or move the {noun.split()[1]} away"
            expected = f"a file {other}/{shown(stems[key])}.*"
            errors.note(prefix + stems[key], fault(here[key], f"{noun} without {partner}", expected, mend))
    if not images and not labels:
        raise fault(kinds[0], "the folder is empty", "at least two images", "Put the images there")
    # by stem, not by file name: the order does not depend on the format
    both = [(os.fsencode(stems[key]), key) for key in images.keys() & labels.keys()]
    return [Pair(part, shown(prefix + os.fsdecode(stem)), files[key], labels[key]) for stem, key in sorted(both)]


def _channel_files(
    images: Mapping[str, Path], labels: Mapping[str, Path], prefix: str, errors: ErrorCollector
) -> dict[str, tuple[Path, ...]]:
    """Return the files of each image where all are channels of images, by names such as CASE_0000, as labels tell.

    Nothing is returned for other images.
    """
    if images.keys() & labels.keys() or not all(map(channel_of, images.values())):
        return {}
    cases = gather_channels(images.values(), errors)
    if not cases.keys() & labels.keys():
        return {}
    count = 1 + max(channel for held in cases.values() for channel in held)
    found = {}
    for case, held in cases.items():
        with errors.collect(prefix + case):
            found[case] = whole_case(case, held, count)
    return found


def _by_stem(folder: Path, prefix: str, errors: ErrorCollector) -> dict[str, Path]:
    """Return the images of a folder by stem, in Unicode's composed form: disks of Macs hold the decomposed one."""
    found: dict[str, Path] = {}
    for path in list_images(folder, errors):
        stem = split_ending(path)[0]
        key = unicodedata.normalize("NFC", stem)
        if key in found:
            came = f"a second file named {shown(stem)} beside {shown(found[key].name)}"
            errors.note(prefix + stem, fault(path, came, "one file a name", "Rename or remove one of the two"))
        else:
            found[key] = path
    return found


def _read_headers(
    pairs: Sequence[Pair], errors: Opening, classes: Sequence[str]
) -> tuple[dict[str, Header], list[str], dict[int, str]]:
    """Return the headers of the images whose label lies on them, what was assumed, and the names that labels give.

    Args:
        pairs: files of each sample.
        errors: where problems are reported.
        classes: names by class number, as far as they are known already.
    """
    headers: dict[str, Header] = {}
    assumed: dict[str, list[str]] = {}
    named: dict[int, tuple[str, Pair]] = {}
    for pair in pairs:
        with errors.collect(pair.name):
            found = read_header(pair.image)
            label = with_dims(pair.label, read_label_header(pair.label, found), None, channels=1)
            _check_names(pair, label, named, classes)
            found = read_image_header(pair.images, axes=errors.axes, grid=label.shape, first=found)
            if label.dims > found.dims:
                # a flat image among volumes: the image or both files may be wrong, so the message names both
                came = f"the image is {found.dims}-D ({sizes(found)}), its label {label.dims}-D ({sizes(label)})"
                raise fault(pair.image, came, "the same axes in both", "Check that the two files belong together")
            label = with_dims(pair.label, label, found.dims)
            note = _match(pair, found, label, resample_labels=errors.resample_labels).note
            headers[pair.name] = found
            if note:
                assumed.setdefault(note, []).append(pair.name)
    notes = [
        f"{plural(len(names), 'label is', 'labels are')} taken to lie on the image, since {note}; the first: {names[0]}"
        for note, names in assumed.items()
    ]
    stated = {number: name for number, (name, _) in named.items()}
    distinct = len({name.casefold() for name in (*stated.values(), "background")}) == len(stated) + 1
    return headers, describe_reading(headers) + notes, stated if distinct else {}


def _check_names(pair: Pair, label: Header, named: dict[int, tuple[str, Pair]], classes: Sequence[str]) -> None:
    """Raise DataError where a label gives a class number the name of another class, or another one than before."""
    numbers = {name.casefold(): number for number, name in enumerate(classes)}
    for number, name in enumerate(label.classes[1:], 1):
        if not name:
            continue
        meant = numbers.get(name.casefold(), number)
        if meant != number:
            expected = f"number {meant}, as among the classes {few(classes[1:])}"
            raise fault(pair.label, f"segment {number} is {name!r}", expected, "Number the segments as the classes are")
        known, first = named.setdefault(number, (name, pair))
        if known.casefold() != name.casefold():
            came = f"segment {number} is {name!r}, but {known!r} in {shown(first.label.name)}"
            raise fault(pair.label, came, "one meaning of a number in all labels", "Number the segments alike")


def _match(pair: Pair, found: Header, label: Header, *, resample_labels: bool) -> GridMatch:
    """Return how the label lies; DataError where it has another grid and is not to be brought onto its image's."""
    match = compare_grids(found, label)
    if match.same or (resample_labels and match.related):
        return match
    raise fault(pair.label, match.came, match.expected, match.mend)


def _count_classes(folder: Path, pairs: Sequence[Pair], errors: ErrorCollector, ignored: int | None) -> int:
    values: dict[str, frozenset[int]] = {}
    for pair in pairs:
        if pair.name not in errors.names:
            with errors.collect(pair.name):
                values[pair.name] = values_of(read_label(pair.label)[1], ignored)
    count, complaints = class_count(values)
    where = {pair.name: pair.label for pair in pairs}
    for name, came in complaints.items():
        expected = f"class numbers 0, 1, 2, … without a gap, at most {MOST_UNNAMED} (or 0 and 255 alone)"
        mend = "Renumber the labels, or name every class in classes.txt"
        errors.note(name, fault(where[name], came, expected, mend))
    if count < 2 and complaints:  # only where errors are collected
        expected = "class numbers 0, 1, 2, … with 0 as background"
        raise fault(folder, "no label is usable", expected, "Renumber the labels")
    if count < 2:
        expected = "at least one class beside the background"
        raise fault(folder, "every label is 0 throughout", expected, "Check that the labels are the right files")
    return count


def _entry(pair: Pair, header: Header, dims: int, channels: int, scheme: LabelScheme, resample_labels: bool) -> Entry:
    def read() -> Sample:
        sample = read_channels(pair.images, dims, channels, header.axes or None)
        grid = replace(header, shape=sample.image.shape[1:], spacing_mm=sample.spacing_mm, affine=sample.affine)
        label_header, values = read_label(pair.label, dims, grid)
        if not _match(pair, grid, label_header, resample_labels=resample_labels).same:
            values = fit_label(pair.label, values, label_header.affine, grid.shape, grid.affine)
        label = np.ascontiguousarray(apply_scheme(pair.label, values, scheme))
        painted = bool(label.max(initial=0) == 1 and values.max() == IGNORED != scheme.ignored)
        return replace(sample, name=pair.name, label=label, painted=painted)

    return Entry(pair.name, header.shape, header.spacing_mm, read, None, header.stated_affine, pair.subject)
