"""Class folders: one folder a class, the class's name being the folder's, optionally under train/ and test/.

    folder/train/cat/001.jpg   folder/train/dog/001.jpg   folder/test/cat/101.jpg …

Classes are numbered in the order of their sorted names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from convoxel.data import image_file
from convoxel.data.data_set import Cache, DataSet, Entry, Sample, Split
from convoxel.data.folder_parts import find_parts, honour_parts, subfolders
from convoxel.data.image_header import Header, agree
from convoxel.data.split import divide_stratified
from convoxel.errors import DataError
from convoxel.files.fault import ErrorCollector, fault, shown

__all__ = ["open_classes"]


@dataclass(frozen=True)
class _File:
    part: str
    name: str
    path: Path
    label: int


def open_classes(folder: Path, validation: int | float | None, seed: int, errors: ErrorCollector) -> DataSet:
    """Return the data set of a class folder; only headers are read now."""
    parts = find_parts(folder)
    first = parts.get("train", folder)
    classes = [p.name for p in subfolders(first)]
    if len(classes) < 2:
        raise fault(
            first,
            f"{len(classes)} class folders",
            "at least two, one a class",
            "Put the images of each class into a folder named after it",
        )
    files = [file for part, place in parts.items() for file in _list_part(part, place, classes, errors)]
    headers: dict[str, Header] = {}
    for file in files:
        try:
            headers[file.name] = image_file.read_header(file.path)
        except DataError as error:
            errors.note(file.name, error)
    if not headers:
        raise fault(folder, "no usable image", "images in one folder a class", "Check that the images can be opened")
    dims, channels = agree({f.name: (f.path, headers[f.name]) for f in files if f.name in headers}, errors)
    usable = [f for f in files if f.name not in errors.names]
    entries = {f.name: _entry(f, headers[f.name], dims, channels) for f in usable}
    chosen = {part: tuple(entries[f.name] for f in usable if f.part == part) for part in parts}

    def divide(found: tuple[Entry, ...]) -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
        labels = [entry.label or 0 for entry in found]
        train, held = divide_stratified([entry.name for entry in found], labels, validation, seed)
        return tuple(found[i] for i in train), tuple(found[i] for i in held)

    train, held, test = honour_parts(chosen, validation, divide)
    cache = Cache()
    return DataSet(
        name=shown(folder.resolve().name),
        task="classify",
        dims=dims,
        channels=channels,
        classes=tuple(map(shown, classes)),
        train=Split(train, cache),
        validation=Split(held, cache),
        test=Split(test, cache) if test else None,
        sources=tuple((f.name, f.path) for f in usable),
    )


def _list_part(part: str, folder: Path, classes: list[str], errors: ErrorCollector) -> list[_File]:
    found = []
    present = subfolders(folder)
    for place in present:
        prefix = f"{part}/{place.name}" if part else place.name
        if place.name not in classes:
            errors.note(
                prefix,
                fault(
                    place,
                    "a class that does not occur in training",
                    ", ".join(map(shown, classes[:8])),
                    "Rename or remove the folder",
                ),
            )
            continue
        images = image_file.list_images(place, errors)
        if not images:
            errors.note(
                prefix,
                fault(
                    place,
                    "the class folder is empty",
                    "at least one image",
                    "Add images of this class, or remove the folder",
                ),
            )
        label = classes.index(place.name)
        found += [_File(part, shown(f"{prefix}/{path.name}"), path, label) for path in images]
    for path in sorted(folder.iterdir()):
        if not path.is_dir() and not image_file.is_clutter(path) and image_file.split_ending(path)[1]:
            errors.note(
                path.name,
                fault(
                    path,
                    "an image outside the class folders",
                    "one folder a class",
                    "Move it into the folder of its class",
                ),
            )
    return found


def _entry(file: _File, header: Header, dims: int, channels: int) -> Entry:
    def read() -> Sample:
        return replace(image_file.read_image(file.path, dims, channels), name=file.name, label=file.label)

    return Entry(file.name, header.shape, header.spacing_mm, read, file.label)
