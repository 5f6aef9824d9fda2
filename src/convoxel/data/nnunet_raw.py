"""Raw data sets of nnU-Net: imagesTr/CASE_0000.nii.gz (a file a channel), labelsTr/CASE.nii.gz and dataset.json.

Cases of ``imagesTs`` are a test part where ``labelsTs`` has their labels, and are not used otherwise, which a note
says. A folder without ``imagesTr`` is a set of these alone.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from convoxel.data.channel_files import channel_of, gather_channels, whole_case
from convoxel.data.collection import Collection
from convoxel.data.dataset_json import NAME, find_description, label_scheme, path_inside, read_description
from convoxel.data.image_file import list_images
from convoxel.data.image_format import split_ending
from convoxel.data.opening import Opening
from convoxel.data.segmentation import Pair, open_pairs, without_labels
from convoxel.errors import DataError
from convoxel.files.fault import ErrorCollector, brief, fault, plural, shown
from convoxel.files.values import JsonObject


def has_cases(folder: Path) -> bool:
    """Return whether a folder is a raw data set of nnU-Net."""
    found = find_description(folder)
    if isinstance(found.get("dataset"), dict):
        return True
    kinds = _labelled(folder)
    if not kinds:
        return False
    if "channel_names" in found or "file_ending" in found:
        return True
    # Earlier versions say "modality", as the Decathlon does; their files' names tell them apart.
    with os.scandir(folder / f"images{kinds[0]}") as files:
        return any(channel_of(Path(file.name)) for file in files) and not any(
            map(channel_of, (folder / f"labels{kinds[0]}").iterdir())
        )


def _labelled(folder: Path) -> list[str]:
    """Return the parts of a folder that have images and labels: "Tr" and "Ts"."""
    return [kind for kind in ("Tr", "Ts") if all((folder / f"{noun}{kind}").is_dir() for noun in ("images", "labels"))]


def open_cases(folder: Path, errors: Opening) -> Collection:
    """Return the samples of a raw data set of nnU-Net."""
    found = read_description(folder) or {}
    where = folder / NAME
    scheme, channels = label_scheme(where, found), _count_channels(where, found)
    notes: list[str] = []
    if isinstance(found.get("dataset"), dict):
        pairs = list(_listed_cases(folder, found["dataset"], channels, errors))
    elif _labelled(folder) == ["Ts"]:
        pairs = _find_cases(folder, "Ts", "", channels, found.get("file_ending"), errors, notes)
        found = {}  # what it says of the training images is no matter here
    else:
        pairs = _find_cases(folder, "Tr", "", channels, found.get("file_ending"), errors, notes)
        if (folder / "imagesTs").is_dir():
            pairs += _find_cases(folder, "Ts", "test", channels, found.get("file_ending"), errors, notes)
    claimed, count = found.get("numTraining"), sum(pair.part != "test" for pair in pairs)
    if isinstance(claimed, int) and claimed != count and not errors.names:
        mend = "Copy the missing cases again, or correct numTraining"
        errors.note(NAME, fault(where, f"numTraining is {claimed}, but {count} cases are there", f"{count}", mend))
    return open_pairs(folder, pairs, errors, scheme=scheme, notes=notes)


def _count_channels(where: Path, found: JsonObject) -> int:
    names = found.get("channel_names", found.get("modality"))
    if not isinstance(names, dict) or sorted(names) != sorted(map(str, range(len(names)))) or not names:
        came = f"channel_names is {brief(names)}"
        raise fault(where, came, 'for example {"0": "T1", "1": "T2"}', "Name every channel, from 0 on")
    return len(names)


def _find_cases(
    folder: Path, suffix: str, part: str, channels: int, ending: object, errors: ErrorCollector, notes: list[str]
) -> list[Pair]:
    """Return the cases of imagesTr or imagesTs that are whole; everything else there is reported."""
    images = folder / f"images{suffix}"
    there = _of_ending(images, ending, errors)
    for path in (path for path in there if channel_of(path) is None):
        expected = f"a name such as CASE_0000{ending if isinstance(ending, str) else split_ending(path)[1]}"
        errors.note(path.name, fault(path, "the name says no channel", expected, "Rename or remove it"))
    files = gather_channels(there, errors)
    labels = _labels_of(folder / f"labels{suffix}", ending, errors)
    pairs, without = [], []
    for case in sorted(files, key=os.fsencode):
        held, name = files[case], shown(f"{part}/{case}" if part else case)
        try:
            channel_files = whole_case(case, held, channels, "Add or remove files, or correct dataset.json")
        except DataError as error:
            errors.note(name, error)
            continue
        if case in labels:
            pairs.append(Pair(part, name, channel_files, labels[case]))
        elif part == "test":
            without.append(case)
        else:
            came, expected = "an image without label", f"a file labels{suffix}/{shown(case)}.*"
            errors.note(name, fault(channel_files[0], came, expected, "Add its label, or move the image away"))
    for case in sorted(labels.keys() - files.keys(), key=os.fsencode):
        came, expected = "a label without image", f"files images{suffix}/{shown(case)}_0000.* …"
        errors.note(case, fault(labels[case], came, expected, "Add its image, or move the label away"))
    if without:
        notes.append(without_labels([shown(case) for case in without]))
    return pairs


def _of_ending(folder: Path, ending: object, errors: ErrorCollector) -> list[Path]:
    found = list_images(folder, errors)
    if not isinstance(ending, str):
        return found
    kept = [path for path in found if path.name.endswith(ending)]
    for path in found:
        if path not in kept:
            came, mend = "another ending than file_ending in dataset.json", "Convert or remove it"
            errors.note(path.name, fault(path, came, f"a name ending in {shown(ending)}", mend))
    return kept


def _labels_of(folder: Path, ending: object, errors: ErrorCollector) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in _of_ending(folder, ending, errors) if folder.is_dir() else ():
        first = found.setdefault(unicodedata.normalize("NFC", split_ending(path)[0]), path)
        if first is not path:
            came = f"a second label of this case beside {shown(first.name)}"
            errors.note(split_ending(path)[0], fault(path, came, "one label a case", "Remove one of the two"))
    return found


def _listed_cases(folder: Path, cases: JsonObject, channels: int, errors: ErrorCollector) -> Iterator[Pair]:
    """Yield the cases that dataset.json lists: {"CASE": {"images": [paths], "label": path}}."""
    for case in sorted(cases):
        where = f"{folder / NAME}[{shown(case)}]"
        with errors.collect(case):
            held = cases[case]
            images = held.get("images") if isinstance(held, dict) else None
            if not isinstance(images, list) or len(images) != channels:
                came = f"images is {brief(images)}"
                raise fault(where, came, f"a list of {plural(channels, 'path')}", "List one file a channel")
            files = tuple(path_inside(where, folder, text) for text in images)
            yield Pair("", shown(case), files, path_inside(where, folder, held.get("label")))
