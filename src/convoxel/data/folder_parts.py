"""The parts of a data folder: train/, validation/ and test/ where a folder has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from convoxel.data.data_set import Entry
from convoxel.errors import ConfigError
from convoxel.files.fault import fault

__all__ = ["find_parts", "honour_parts", "subfolders"]

_PARTS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
    "testing": "test",
}

_Entries = tuple[Entry, ...]


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in ``folder`` sorted by name, hidden ones left out."""
    try:
        return sorted((p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")), key=lambda p: p.name)
    except OSError as error:
        raise fault(
            folder, f"cannot be listed ({error.strerror})", "a folder", "Check the path and its rights"
        ) from None


def find_parts(folder: Path) -> dict[str, Path]:
    """Return part → folder; {"": folder} where the folder is not divided.

    A folder counts as divided only if *all* its subfolders are named as parts (and one is train), so a class
    may be called "train".
    """
    found = subfolders(folder)
    parts = {_PARTS.get(p.name.lower(), p.name): p for p in found}
    if "train" in parts and len(parts) == len(found) and parts.keys() <= set(_PARTS.values()):
        return {name: parts[name] for name in ("train", "validation", "test") if name in parts}
    return {"": folder}


def honour_parts(
    chosen: dict[str, _Entries],
    validation: int | float | None,
    divide: Callable[[_Entries], tuple[_Entries, _Entries]],
) -> tuple[_Entries, _Entries, _Entries]:
    """Return (train, validation, test): the source's own parts, else the training part divided by ``divide``.

    A set with train and test only validates on test, unless ``validation`` asks for a part of the training
    samples; the test part then stays unseen.
    """
    train = chosen.get("train", chosen.get("", ()))
    held, test = chosen.get("validation", ()), chosen.get("test", ())
    if not held and test and validation is None:
        held, test = test, ()
    if held and validation is not None:
        raise ConfigError(
            f"validation is {validation!r} but the data bring a validation part of {len(held)} samples; "
            "expected no value. Leave validation out, or merge the parts into one folder."
        )
    if not held:
        train, held = divide(train)
    return train, held, test
