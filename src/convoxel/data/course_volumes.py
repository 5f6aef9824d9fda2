"""NumPy volumes in one folder: image_train00.npy with label_train00.npy, and image_test00.npy, all (D, H, W).

Test images without labels are not used, which a note says.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from convoxel.data.collection import Collection
from convoxel.data.opening import Opening
from convoxel.data.segmentation import Pair, open_pairs, without_labels
from convoxel.files.fault import fault, shown

_NAME = re.compile(r"(image|label)_(train|val|validation|test)(\d+)\.npy", re.IGNORECASE)
_PARTS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


def has_volumes(folder: Path) -> bool:
    """Return whether a folder holds volumes that are named so."""
    with os.scandir(folder) as found:
        return any((match := _NAME.fullmatch(item.name)) and match[1].lower() == "image" for item in found)


def open_volumes(folder: Path, errors: Opening) -> Collection:
    """Return the samples of a folder of volumes."""
    files: dict[tuple[str, str], dict[str, Path]] = {}
    for path in sorted(folder.iterdir(), key=lambda path: os.fsencode(path.name)):
        match = _NAME.fullmatch(path.name)
        if match is not None:
            kind, part = match[1].lower(), match[2].lower()
            held = files.setdefault((_PARTS[part], f"{part}{match[3]}"), {})
            if kind in held:
                came = f"a second file of this name beside {shown(held[kind].name)}"
                errors.note(path.name, fault(path, came, "one file a name", "Rename or remove one of the two"))
            held.setdefault(kind, path)
    pairs, unlabelled = [], []
    for (part, name), held in files.items():
        if len(held) == 2:
            pairs.append(Pair(part, name, (held["image"],), held["label"]))
        elif part == "test" and "image" in held:
            unlabelled.append(name)
        else:
            (kind, path), other = next(iter(held.items())), "image" if "label" in held else "label"
            expected = f"a file {other}_{name}.npy"
            errors.note(
                name, fault(path, f"{kind} without {other}", expected, f"Add the {other}, or move the {kind} away")
            )
    notes = [without_labels(unlabelled)] if unlabelled else []
    return open_pairs(folder, pairs, errors, notes=notes)
