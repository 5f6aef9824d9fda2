"""The parts of a data folder: train/, validation/ and test/ where a folder has them."""

from __future__ import annotations

from pathlib import Path

from convoxel.files.fault import fault

_PARTS = {"train": "train", "training": "train", "validation": "validation", "val": "validation",
          "valid": "validation", "test": "test", "testing": "test"}  # fmt: skip


def part_of(word: str) -> str | None:
    """Return the part that people call so: train, validation or test; None for another word."""
    return _PARTS.get(word.strip().lower())


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in ``folder`` sorted by name, without hidden ones."""
    try:
        return sorted((p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")), key=lambda p: p.name)
    except OSError as error:
        came = f"cannot be listed ({error.strerror})"
        raise fault(folder, came, "a folder", "Check the path and its rights") from None


def find_parts(folder: Path) -> dict[str, Path]:
    """Return part → folder; {"": folder} where the folder has no parts.

    A folder has parts only if *all* its subfolders are named as parts, and one is train or each holds folders in turn,
    so a class may be called "train" or "test".
    """
    found = subfolders(folder)
    parts = {_PARTS.get(p.name.lower(), p.name): p for p in found}
    if "train" in parts and len(parts) < len(found) and parts.keys() <= set(_PARTS.values()):
        twice = next(p for p in found if p not in parts.values())
        came = f"{twice.name} and {parts[_PARTS[twice.name.lower()]].name} are the same part"
        raise fault(folder, came, "one folder a part", "Merge them, or rename one")
    named = bool(found) and len(parts) == len(found) and parts.keys() <= set(_PARTS.values())
    if named and ("train" in parts or all(subfolders(place) for place in found)):
        return {name: parts[name] for name in ("train", "validation", "test") if name in parts}
    return {"": folder}
