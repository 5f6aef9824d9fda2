"""Segmentation folders: images/ and labels/ with equal stems, optionally under train/, validation/ and test/.

    folder/images/case_01.nii.gz      folder/labels/case_01.nii.gz      folder/classes.txt (optional)

Also understood: ``imagesTr``/``labelsTr`` with ``dataset.json``. Hidden files and notes are passed over.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convoxel.data import image_file
from convoxel.data.data_set import Cache, DataSet, Entry, Sample, Split
from convoxel.data.folder_parts import find_parts, honour_parts
from convoxel.data.image_header import Header, agree
from convoxel.data.label_file import MOST_UNNAMED, class_count, class_names, read_label, to_classes, values_of
from convoxel.data.split import divide_last
from convoxel.errors import DataError
from convoxel.files.fault import ErrorCollector, fault, shown

__all__ = ["open_segmentation"]

_PAIRS = (("images", "labels"), ("imagesTr", "labelsTr"))


@dataclass(frozen=True)
class _Pair:
    part: str
    name: str
    image: Path
    label: Path


def open_segmentation(folder: Path, validation: int | float | None, errors: ErrorCollector) -> DataSet:
    """Return the data set of a segmentation folder; pixels are read later, class numbers are found now."""
    parts = find_parts(folder)
    pairs = [pair for part, place in parts.items() for pair in _pair_files(part, place, errors)]
    headers = _read_headers(pairs, errors)
    pairs = [pair for pair in pairs if pair.name in headers]
    if not pairs:
        raise fault(
            folder,
            "no usable pair of image and label",
            "images/NAME and labels/NAME",
            "Put images into images/ and labels of the same name into labels/",
        )
    dims, channels = agree({p.name: (p.image, headers[p.name]) for p in pairs}, errors)
    names = class_names(folder)
    if names is None:
        count = _find_classes(folder, pairs, errors)
        names = ("background", *(f"class {i}" for i in range(1, count))) if count > 2 else ("background", "foreground")
    entries = {
        p.name: _entry(p, headers[p.name], dims, channels, len(names)) for p in pairs if p.name not in errors.names
    }
    chosen = {part: tuple(entries[p.name] for p in pairs if p.part == part and p.name in entries) for part in parts}
    train, held, test = honour_parts(chosen, validation, lambda found: divide_last(found, validation))
    cache = Cache()
    sources = [
        (f"{p.name}/{kind}", path)
        for p in pairs
        if p.name in entries
        for kind, path in (("image", p.image), ("label", p.label))
    ]
    return DataSet(
        name=shown(folder.resolve().name),
        task="segment",
        dims=dims,
        channels=channels,
        classes=names,
        train=Split(train, cache),
        validation=Split(held, cache),
        test=Split(test, cache) if test else None,
        sources=tuple(sources),
    )


def _pair_files(part: str, folder: Path, errors: ErrorCollector) -> list[_Pair]:
    """Return the images that have a label, sorted by name; each one without its partner is noted."""
    for first, second in _PAIRS:
        if (folder / first).is_dir() and (folder / second).is_dir():
            break
    else:
        missing = "labels/" if (folder / "images").is_dir() else "images/"
        raise fault(
            folder,
            f"there is no folder {missing}",
            "the folders images/ and labels/",
            "Put images into images/ and labels of the same name into labels/",
        )
    prefix = f"{part}/" if part else ""
    images, labels = (_by_stem(folder / kind, prefix, errors) for kind in (first, second))
    for stem in sorted(images.keys() - labels.keys()):
        errors.note(
            prefix + stem,
            fault(
                images[stem],
                "an image without label",
                f"a file {second}/{shown(stem)}.*",
                "Add its label, or move the image away",
            ),
        )
    for stem in sorted(labels.keys() - images.keys()):
        errors.note(
            prefix + stem,
            fault(
                labels[stem],
                "a label without image",
                f"a file {first}/{shown(stem)}.*",
                "Add its image, or move the label away",
            ),
        )
    if not images and not labels:
        raise fault(folder / first, "the folder is empty", "at least two images", "Put the images there")
    # by stem, not by file name: the order does not depend on the format
    both = sorted(images.keys() & labels.keys(), key=os.fsencode)
    return [_Pair(part, shown(prefix + stem), images[stem], labels[stem]) for stem in both]


def _by_stem(folder: Path, prefix: str, errors: ErrorCollector) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in image_file.list_images(folder, errors):
        stem = image_file.split_ending(path)[0]
        if stem in found:
            errors.note(
                prefix + stem,
                fault(
                    path,
                    f"a second file named {shown(stem)} beside {shown(found[stem].name)}",
                    "one file a name",
                    "Rename or remove one of the two",
                ),
            )
        else:
            found[stem] = path
    return found


def _read_headers(pairs: list[_Pair], errors: ErrorCollector) -> dict[str, Header]:
    """Return the headers of the images whose label has the same shape and lies in the same place."""
    headers = {}
    for pair in pairs:
        try:
            found, label = image_file.read_header(pair.image), image_file.read_header(pair.label)
            if label.dims == found.dims - 1 and found.affine is None:
                # an array of three axes whose label has two: channels first
                found = image_file.with_dims(pair.image, found, label.dims)
            if label.dims > found.dims:
                # a flat image among volumes: the image is the odd one out, or both are; say both
                raise fault(
                    pair.image,
                    f"the image is {found.dims}-D ({_sizes(found)}), its label {label.dims}-D ({_sizes(label)})",
                    "the same axes in both",
                    "Check that the two files belong together",
                )
            label = image_file.with_dims(pair.label, label, found.dims)
            _check_match(pair, found, label)
        except DataError as error:
            errors.note(pair.name, error)
        else:
            headers[pair.name] = found
    return headers


def _check_match(pair: _Pair, found: Header, label: Header) -> None:
    if label.shape != found.shape:
        raise fault(
            pair.label,
            f"the label is {_sizes(label)}",
            f"{_sizes(found)} as its image",
            "Resample the label onto the image's grid, by nearest neighbour",
        )
    if found.affine is None or label.affine is None or np.array_equal(label.affine, np.eye(4)):
        return  # a label without orientation (the identity is what tools write when they know none)
    last = [s - 1 for s in (*found.shape, 1, 1)[:3]]
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, v) for v in last))], np.float64)
    shift = np.abs(corners @ (found.affine - label.affine).T)[:, :3].max()
    if shift > max(found.spacing_mm or (1.0,)):
        raise fault(
            pair.label,
            f"the label lies {shift:.3g} mm off its image (their affines differ)",
            "the image's affine",
            "Write the label again with the image's affine",
        )


def _sizes(header: Header) -> str:
    return " × ".join(map(str, header.shape))


def _find_classes(folder: Path, pairs: list[_Pair], errors: ErrorCollector) -> int:
    """Return the number of classes found by reading every label."""
    values: dict[str, frozenset[int]] = {}
    where = {pair.name: pair.label for pair in pairs}
    for pair in pairs:
        if pair.name not in errors.names:
            try:
                values[pair.name] = values_of(read_label(pair.label)[1])
            except DataError as error:
                errors.note(pair.name, error)
    count, complaints = class_count(values)
    for name, came in complaints.items():
        errors.note(
            name,
            fault(
                where[name],
                came,
                f"class numbers 0, 1, 2, … without a gap, at most {MOST_UNNAMED} (or 0 and 255 alone)",
                "Renumber the labels, or name every class in classes.txt",
            ),
        )
    if count < 2 and complaints:  # a lenient errors goes on to here
        raise fault(
            folder,
            "no label is usable",
            "class numbers 0, 1, 2, … with 0 as background",
            "Renumber the labels",
        )
    if count < 2:
        raise fault(
            folder,
            "every label is 0 throughout",
            "at least one class beside the background",
            "Check that the labels are the right files",
        )
    return count


def _entry(pair: _Pair, header: Header, dims: int, channels: int, count: int) -> Entry:
    def read() -> Sample:
        sample = image_file.read_image(pair.image, dims, channels)
        label_header, values = read_label(pair.label, dims)
        _check_match(pair, Header(sample.image.shape[1:], channels, sample.spacing_mm, sample.affine), label_header)
        label = np.ascontiguousarray(to_classes(pair.label, values, count))
        return Sample(pair.name, sample.image, label, sample.affine, sample.spacing_mm, pair.image)

    return Entry(pair.name, header.shape, header.spacing_mm, read)
