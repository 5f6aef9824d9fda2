"""``dataset.json``: the description beside data sets of nnU-Net and the Medical Segmentation Decathlon.

What it says is text from outside: sizes and types are checked here, and paths stay inside the folder of the file.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath, PureWindowsPath

from convoxel.errors import DataError
from convoxel.files.fault import brief, fault, shown
from convoxel.files.stream import read_text
from convoxel.files.values import JsonObject

NAME = "dataset.json"
_MOST_CLASSES = 256
_MOST_BYTES = 64 * 2**20  # a list of a hundred thousand cases


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


def number_classes(path: Path, labels: object) -> tuple[str, ...]:
    """Return class names from {"0": "background", …}, {"background": 0, …} or ["background", …].

    Raises:
        DataError: they are not numbered 0, 1, 2, …, or are regions.
    """
    pairs: dict[int, str] = {}
    if isinstance(labels, dict):
        labels = {key: value for key, value in labels.items() if not _is_ignored(key, value)}
    if isinstance(labels, list):
        labels = {str(i): name for i, name in enumerate(labels)}
    for key, value in labels.items() if isinstance(labels, dict) else ():
        if isinstance(value, list) and len(value) != 1:
            came = f"in labels, the class {brief(key)} is a region of several values ({brief(value, 40)})"
            raise fault(
                path, came, "one value a class", "Regions are not supported: number classes that do not overlap"
            )
        value = value[0] if isinstance(value, list) else value
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


def ignored_value(path: Path, labels: object) -> int | None:
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
