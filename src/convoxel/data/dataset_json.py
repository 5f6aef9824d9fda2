"""``dataset.json``: the description beside data sets of nnU-Net and the Medical Segmentation Decathlon.

What it says is text from outside: sizes and types are checked here, and paths stay inside the folder of the file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from convoxel.data.regions import Regions, plan_regions
from convoxel.errors import ConfigError, DataError
from convoxel.files.fault import brief, fault, shown
from convoxel.files.stream import read_text
from convoxel.files.values import JsonObject

NAME = "dataset.json"
_MOST_CLASSES = 256
_MOST_BYTES = 64 * 2**20  # a list of a hundred thousand cases


@dataclass(frozen=True)
class LabelScheme:
    """The meaning of label values, as far as a source says it.

    Attributes:
        names: names of the classes, or of the background and the regions; None: the labels are counted.
        regions: the label values of each region; None where each class has a value of its own.
        ignored: value of voxels that belong to no known class; None where there is none.
    """

    names: tuple[str, ...] | None = None
    regions: Regions | None = None
    ignored: int | None = None

    @property
    def known(self) -> frozenset[int]:
        """The values of classes that have names, or of regions."""
        return frozenset(range(len(self.names or ()))) if self.regions is None else self.regions.known


def read_description(folder: Path) -> JsonObject | None:
    """Return what the folder's ``dataset.json`` holds; None where there is none.

    Raises:
        DataError: it is no JSON object.
    """
    path = folder / NAME
    if not path.exists():
        return None
    text = read_text(path, _MOST_BYTES)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        came, expected = f"this is not JSON ({error})", 'JSON with an entry "labels"'
        raise fault(path, came, expected, "Correct or remove it") from None
    return content if isinstance(content, dict) else {}


def find_description(folder: Path) -> JsonObject:
    """Return what the folder's ``dataset.json`` holds; nothing where there is none, or it cannot be read."""
    try:
        return read_description(folder) or {}
    except DataError:  # whoever opens the folder and needs it says so
        return {}


def label_scheme(path: Path, description: JsonObject) -> LabelScheme:
    """Return what ``dataset.json`` says of label values: classes, or regions and the values written for them.

    Raises:
        DataError: "labels" are neither classes that are numbered 0, 1, 2, … nor regions, or the value to ignore or
            "regions_class_order" is none.
    """
    labels = description.get("labels")
    ignored = _ignored_value(path, labels)
    if isinstance(labels, dict):
        labels = {key: value for key, value in labels.items() if not _is_ignored(key, value)}
        if any(isinstance(value, list) and len(value) > 1 for value in labels.values()):
            return LabelScheme(*_name_regions(path, labels, description.get("regions_class_order")), ignored)
    return LabelScheme(_number_classes(path, labels), None, ignored)


def _name_regions(path: Path, labels: JsonObject, order: object) -> tuple[tuple[str, ...], Regions]:
    """Return the names of the background and the regions, and the regions."""
    empty = [name for name, value in labels.items() if value in (0, [0])]
    stated = {shown(name): value for name, value in labels.items() if name not in empty}
    try:
        if len(empty) != 1 or len(stated) < len(labels) - 1:
            raise ConfigError("labels: expected one background of value 0, and regions of different names")
        if order is not None and not isinstance(order, list):
            raise ConfigError(f"regions_class_order is {brief(order, 40)}; expected a list of label values")
        names, regions = plan_regions(stated, order)
    except ConfigError as error:
        expected = '"labels": {"background": 0, "tumour": [1, 2], "core": 2}, "regions_class_order": [1, 2]'
        raise fault(path, str(error).rstrip("."), expected, "Correct it") from None
    return (shown(empty[0]), *names[1:]), regions


def _number_classes(path: Path, labels: object) -> tuple[str, ...]:
    """Return class names from {"0": "background", …}, {"background": 0, …} or ["background", …].

    Raises:
        DataError: they are not numbered 0, 1, 2, ….
    """
    pairs: dict[int, str] = {}
    if isinstance(labels, list):
        labels = {str(i): name for i, name in enumerate(labels)}
    for key, value in labels.items() if isinstance(labels, dict) else ():
        value = value[0] if isinstance(value, list) and value else value
        number, name = (key, value) if isinstance(value, str) and key.isdecimal() else (value, key)
        if isinstance(number, (str, int)) and str(number)[:4].isdecimal() and int(str(number)[:4]) < _MOST_CLASSES:
            pairs[int(str(number)[:4])] = shown(name)
    complete = isinstance(labels, dict) and len(pairs) == len(labels) and sorted(pairs) == list(range(len(pairs)))
    if not complete or not 2 <= len(pairs) <= _MOST_CLASSES or len(set(pairs.values())) < len(pairs):
        came = '"labels" does not number at least two different classes 0, 1, 2, …'
        raise fault(path, came, 'for example {"0": "background", "1": "lesion"}', "Correct or remove it")
    return tuple(pairs[i] for i in range(len(pairs)))


def _is_ignored(key: object, value: object) -> bool:
    """Return whether an entry of "labels" is the value to ignore, {"ignore": 4}, and no class of this name."""
    return key == "ignore" and not isinstance(value, str)


def _ignored_value(path: Path, labels: object) -> int | None:
    """Return the label value that "labels" say is to be ignored; None where they say nothing.

    Raises:
        DataError: it is no whole number from 1 to 255.
    """
    value = labels.get("ignore") if isinstance(labels, dict) else None
    if value is None or not _is_ignored("ignore", value):
        return None
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _MOST_CLASSES:
        came = f"in labels, the value to ignore is {brief(value, 40)}"
        raise fault(path, came, "a whole number from 1 to 255", "Correct or remove it")
    return value


def path_inside(where: object, folder: Path, text: object) -> Path:
    """Return the path that ``text`` names below ``folder``.

    Raises:
        DataError: it is no text, absolute, or leads out of the folder; the message begins with ``where``.
    """
    mend = "Write it relative to this file's folder, and put the images below that"
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise fault(where, f"{brief(text)} is no path", "the name of a file", mend)
    parts = PurePosixPath(text).parts
    if PurePosixPath(text).is_absolute() or PureWindowsPath(text).drive or ".." in PureWindowsPath(text).parts:
        raise fault(where, f"the path {brief(text)} leads out of the folder", "a path inside", mend)
    return folder.joinpath(*parts)
