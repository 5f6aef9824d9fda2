"""Files that list the samples of every part, so that other runs and programs can use the same split.

    {"format": "convoxel split 1", "data": …, "rule": …, "parts": {"train": [names], "validation": […], "test": […]}}

The list of folds that nnU-Net writes, ``[{"train": [names], "val": [names]}, …]``, is read as well.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from convoxel.data.data_set import DataSet, Entry, Parts
from convoxel.errors import ConfigError
from convoxel.files.atomic import write_json
from convoxel.files.fault import brief, fault, plural, shown
from convoxel.files.stream import read_text

_FORMAT = "convoxel split 1"
_PARTS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
_MOST_BYTES = 64 * 2**20  # a million names
_EXPECTED = '{"parts": {"train": [names], "validation": [names]}}'
_MEND = "Give the split.json of a run, or correct it"


def write_split(path: Path, dataset: DataSet) -> None:
    """Write the names of the samples of every part of a data set."""
    parts = {name: list(part.names) for name, part in dataset.parts.items()}
    write_json(path, {"format": _FORMAT, "data": dataset.name, "rule": dataset.rule, "parts": parts})


def read_split(
    path: Path, parts: Mapping[str, Sequence[Entry]], fold: int = 0, broken: Collection[str] = frozenset()
) -> Parts:
    """Return the samples of the parts that a file lists, in the order of ``parts``.

    Samples of a test part of their own stay there, unless the file says otherwise; other samples that it does not list
    are not used, and a note says so. Names of ``broken`` samples, which were left out, may be listed.

    Raises:
        DataError: the file is no split, leaves training or validation empty, or lists a sample twice or one that there
            is not.
        ConfigError: ``fold`` is none of the file's folds.
    """
    listed = _read_lists(path, fold)
    place: dict[str, str] = {}
    for part, names in listed.items():
        for name in names:
            if name in place:
                came = (
                    f"{brief(name)} is listed in {place[name]} and in {part}"
                    if place[name] != part
                    else f"{brief(name)} is listed twice"
                )
                raise fault(path, came, "every sample once", _MEND)
            place[name] = part
    entries = [(own, entry) for own, each in parts.items() for entry in each]
    known = {*broken, *(entry.name for _, entry in entries)}
    strangers = [name for name in place if name not in known]
    if strangers:
        came = f"{len(strangers)} of {len(place)} listed samples are not in the data, such as {brief(strangers[0])}"
        raise fault(path, came, "names of samples, as `convoxel data list` shows them", _MEND)
    found: dict[str, list[Entry]] = {"train": [], "validation": [], "test": []}
    unused: list[Entry] = []
    for own, entry in entries:
        target = place.get(entry.name, "test" if own == "test" else None)
        (unused if target is None else found[target]).append(entry)
    for part in ("train", "validation"):
        if not found[part]:
            raise fault(path, f"it lists no sample to {'train' if part == 'train' else 'validate'}", _EXPECTED, _MEND)
    notes: list[str] = []
    if unused:
        left = plural(len(unused), "sample is", "samples are")
        notes = [f"{left} not used, since {shown(path)} does not list them, such as {unused[0].name}"]
    return Parts(found["train"], found["validation"], found["test"], f"as listed in {shown(path)}", tuple(notes), True)


def _read_lists(path: Path, fold: int) -> dict[str, list[str]]:
    text = read_text(path, _MOST_BYTES)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise fault(path, f"this is not JSON ({error})", _EXPECTED, _MEND) from None
    if isinstance(content, list):
        if not 0 <= fold < len(content):
            raise ConfigError(
                f"fold is {fold}, but {shown(path)} has {len(content)} folds; expected 0 to {len(content) - 1}."
            )
        content = content[fold]
    elif fold:
        raise ConfigError(f"fold is {fold}, but {shown(path)} holds one split; expected no value. Leave fold out.")
    lists = content.get("parts", content) if isinstance(content, dict) else None
    if not isinstance(lists, dict) or not all(
        part in _PARTS and isinstance(names, list) and all(isinstance(name, str) for name in names)
        for part, names in lists.items()
    ):
        raise fault(path, "this lists no samples of parts", _EXPECTED, _MEND)
    return {_PARTS[part]: names for part, names in lists.items()}
