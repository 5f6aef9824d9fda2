"""Class folders: one folder per class, named as the class, optionally under train/ and test/.

    folder/train/cat/001.jpg   folder/train/dog/001.jpg   folder/test/cat/101.jpg …

Classes are numbered in the order of their sorted names.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from convoxel.data.collection import Collection
from convoxel.data.data_set import Entry, Sample, Sources
from convoxel.data.folder_parts import find_parts, subfolders
from convoxel.data.image_file import is_clutter, list_images, read_header, read_image
from convoxel.data.image_format import at_rate, find_format
from convoxel.data.image_header import Header, agree, describe_reading, with_axes
from convoxel.data.opening import Opening
from convoxel.files.fault import ErrorCollector, fault, shown


@dataclass(frozen=True)
class ClassFile:
    """The file of one sample to classify.

    Attributes:
        part: part of the source that the sample belongs to ("" if it has none).
        name: name of the sample.
        path: its image.
        label: class number, the set of class numbers that the image has, or the values of the targets.
        subject: the patient or animal, or None.
    """

    part: str
    name: str
    path: Path
    label: int | frozenset[int] | tuple[float, ...]
    subject: str | None = None


# Pairs of folders that hold images and their labels, whatever people call them.
_IMAGE_FOLDERS = {"image", "images", "img", "imgs", "imagestr", "scans", "volumes"}
_LABEL_FOLDERS = {"label", "labels", "labelstr", "mask", "masks", "annotation", "annotations", "segmentation",
                  "segmentations", "gt", "groundtruth", "ground_truth", "truth"}  # fmt: skip


def _check_no_labels(folder: Path, names: list[str]) -> None:
    """Raise DataError for two folders of images and labels, which would train as two classes."""
    low = {name.lower() for name in names}
    if len(names) == 2 and low & _IMAGE_FOLDERS and low & _LABEL_FOLDERS:
        came = f"the folders {' and '.join(map(shown, names))} are no classes: this is a data set to segment"
        mend = "Choose the task segment, with the folders named images and labels"
        raise fault(folder, came, "one folder a class, named after it", mend)


def class_name(text: str) -> str:
    """Return the name of a class as it is shown, in Unicode's composed form: other systems write folders decomposed.

    >>> len("u\u0308"), len(class_name("u\u0308"))
    (2, 1)
    """
    return unicodedata.normalize("NFC", shown(text))


def check_distinct(where: Path, names: Sequence[str]) -> None:
    """Raise DataError where two classes have one name but for capitals, or for the form of Unicode."""
    same: dict[str, str] = {}
    for name in names:
        first = same.setdefault(class_name(name).casefold(), name)
        if first != name:
            came = f"the classes {shown(first)} and {shown(name)} are one but for capitals or accents' encoding"
            raise fault(where, came, "classes that differ in more", "Merge them, or rename one")


def open_classes(folder: Path, errors: Opening) -> Collection:
    """Return the samples of a class folder; only headers are read now."""
    parts = find_parts(folder)
    first = next(iter(parts.values()))
    names = [p.name for p in subfolders(first)]
    _check_no_labels(first, names)
    check_distinct(first, names)
    classes = list(errors.classes) or names
    if len(classes) < 2:
        mend = "Put the images of each class into a folder named after it"
        if (folder / "labels.csv").is_file():
            mend += ", or name the columns of labels.csv in its first line: file and class"
        raise fault(first, f"{len(classes)} class folders", "at least two, one a class", mend)
    files = [file for part, place in parts.items() for file in _list_part(part, place, classes, errors)]
    return open_class_files(folder, shown(folder.resolve().name), files, classes, errors, parts=tuple(parts))


def open_class_files(
    where: Path,
    title: str,
    files: Sequence[ClassFile],
    classes: Sequence[str],
    errors: Opening,
    sources: Sources = (),
    parts: Sequence[str] = (),
    multi_label: bool = False,
    task: str = "classify",
) -> Collection:
    """Return the samples of images whose classes are known; only headers are read now.

    Args:
        where: the source, for messages.
        title: name of the data set.
        files: file of each sample.
        classes: names of the classes.
        errors: where problems are reported.
        sources: further (name, file) of what was read, for the fingerprint (default none).
        parts: parts of the source, none of which may be empty (default: those of the files).
        multi_label: an image may have several classes, or none (default False).
        task: "classify" or "regress" (default "classify").
    """
    headers: dict[str, Header] = {}
    files = [replace(file, path=at_rate(file.path, errors.rate)) for file in files]
    for file in files:
        with errors.collect(file.name):
            headers[file.name] = with_axes(file.path, read_header(file.path), errors.axes)
    if not headers:
        raise fault(where, "no usable image", "images of at least two classes", "Check that the images can be opened")
    dims, channels = agree({f.name: (f.path, headers[f.name]) for f in files if f.name in headers}, errors)
    usable = [f for f in files if f.name not in errors.names]
    there = parts or tuple(dict.fromkeys(file.part for file in files))
    entries = {part: [_entry(f, headers[f.name], dims, channels) for f in usable if f.part == part] for part in there}
    read = [*sources, *((f.name, f.path) for f in usable)]
    form, notes = (dims, channels), tuple(describe_reading(headers))
    names = tuple(map(class_name, classes))
    return Collection(title, task, form, names, entries, read, notes, multi_label=multi_label)


def _list_part(part: str, folder: Path, classes: list[str], errors: ErrorCollector) -> list[ClassFile]:
    found = []
    numbers = {class_name(name): number for number, name in enumerate(classes)}
    for place in subfolders(folder):
        prefix = f"{part}/{place.name}" if part else place.name
        label = numbers.get(class_name(place.name))
        if label is None:
            expected = ", ".join(map(shown, classes[:8]))
            came = "a class that does not occur in training"
            errors.note(prefix, fault(place, came, expected, "Rename or remove the folder"))
            continue
        images = list_images(place, errors)
        if not images:
            mend = "Add images of this class, or remove the folder"
            errors.note(prefix, fault(place, "the class folder is empty", "at least one image", mend))
        found += [ClassFile(part, shown(f"{prefix}/{path.name}"), path, label) for path in images]
    for path in sorted(folder.iterdir()):
        if not path.is_dir() and not is_clutter(path) and find_format(path):
            mend = "Move it into the folder of its class"
            errors.note(path.name, fault(path, "an image outside the class folders", "one folder a class", mend))
    return found


def _entry(file: ClassFile, header: Header, dims: int, channels: int) -> Entry:
    def read() -> Sample:
        return replace(read_image(file.path, dims, channels, header.axes or None), name=file.name, label=file.label)

    return Entry(file.name, header.shape, header.spacing_mm, read, file.label, header.stated_affine, file.subject)
