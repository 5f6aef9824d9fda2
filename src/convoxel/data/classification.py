"""Class folders: one folder per class, named as the class, optionally under train/ and test/.

    folder/train/cat/001.jpg   folder/train/dog/001.jpg   folder/test/cat/101.jpg …

Classes are numbered in the order of their sorted names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from convoxel.data.collection import Collection
from convoxel.data.data_set import Entry, Sample
from convoxel.data.folder_parts import find_parts, subfolders
from convoxel.data.image_file import is_clutter, list_images, read_header, read_image
from convoxel.data.image_format import find_format
from convoxel.data.image_header import Header, agree
from convoxel.files.fault import ErrorCollector, fault, shown


@dataclass(frozen=True)
class _File:
    """One image, its class, and the part of the folder that it belongs to ("" if it has none)."""

    part: str
    name: str
    path: Path
    label: int


# Pairs of folders that hold images and their labels, whatever people call them.
_IMAGE_FOLDERS = {"image", "images", "img", "imgs", "imagestr", "scans", "volumes"}
_LABEL_FOLDERS = {"label", "labels", "labelstr", "mask", "masks", "annotation", "annotations", "segmentation",
                  "segmentations", "gt", "groundtruth", "ground_truth", "truth"}  # fmt: skip


def has_classes(folder: Path) -> bool:
    """Return whether a folder holds folders."""
    return folder.is_dir() and bool(subfolders(folder))


def _check_no_labels(folder: Path, names: list[str]) -> None:
    """Raise DataError for two folders of images and labels, which would train as two classes."""
    low = {name.lower() for name in names}
    if len(names) == 2 and low & _IMAGE_FOLDERS and low & _LABEL_FOLDERS:
        came = f"the folders {' and '.join(map(shown, names))} are no classes: this is a data set to segment"
        mend = "Choose the task segment, with the folders named images and labels"
        raise fault(folder, came, "one folder a class, named after it", mend)


def open_classes(folder: Path, errors: ErrorCollector) -> Collection:
    """Return the samples of a class folder; only headers are read now."""
    parts = find_parts(folder)
    first = parts.get("train", folder)
    classes = [p.name for p in subfolders(first)]
    _check_no_labels(first, classes)
    if len(classes) < 2:
        mend = "Put the images of each class into a folder named after it"
        raise fault(first, f"{len(classes)} class folders", "at least two, one a class", mend)
    files = [file for part, place in parts.items() for file in _list_part(part, place, classes, errors)]
    headers: dict[str, Header] = {}
    for file in files:
        with errors.collect(file.name):
            headers[file.name] = read_header(file.path)
    if not headers:
        raise fault(folder, "no usable image", "images in one folder a class", "Check that the images can be opened")
    dims, channels = agree({f.name: (f.path, headers[f.name]) for f in files if f.name in headers}, errors)
    usable = [f for f in files if f.name not in errors.names]
    entries = {part: [_entry(f, headers[f.name], dims, channels) for f in usable if f.part == part] for part in parts}
    sources, title = [(f.name, f.path) for f in usable], shown(folder.resolve().name)
    return Collection(title, "classify", (dims, channels), tuple(map(shown, classes)), entries, sources)


def _list_part(part: str, folder: Path, classes: list[str], errors: ErrorCollector) -> list[_File]:
    found = []
    for place in subfolders(folder):
        prefix = f"{part}/{place.name}" if part else place.name
        if place.name not in classes:
            expected = ", ".join(map(shown, classes[:8]))
            came = "a class that does not occur in training"
            errors.note(prefix, fault(place, came, expected, "Rename or remove the folder"))
            continue
        images = list_images(place, errors)
        if not images:
            mend = "Add images of this class, or remove the folder"
            errors.note(prefix, fault(place, "the class folder is empty", "at least one image", mend))
        label = classes.index(place.name)
        found += [_File(part, shown(f"{prefix}/{path.name}"), path, label) for path in images]
    for path in sorted(folder.iterdir()):
        if not path.is_dir() and not is_clutter(path) and find_format(path):
            mend = "Move it into the folder of its class"
            errors.note(path.name, fault(path, "an image outside the class folders", "one folder a class", mend))
    return found


def _entry(file: _File, header: Header, dims: int, channels: int) -> Entry:
    def read() -> Sample:
        return replace(read_image(file.path, dims, channels), name=file.name, label=file.label)

    return Entry(file.name, header.shape, header.spacing_mm, read, file.label, header.affine)
