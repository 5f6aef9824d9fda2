"""The files of a prediction: the images that an input names, and the label maps that they get."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from convoxel.data.image_file import list_images
from convoxel.data.image_format import endings, find_format, split_ending
from convoxel.errors import ConfigError, DataError, check_choice
from convoxel.files.fault import shown


def list_inputs(source: Path) -> list[Path]:
    """Return the images that ``source`` names: itself, those in it, or those in its folder ``images``.

    Raises:
        DataError: it is missing, or a folder without images.
    """
    found = find_format(source)
    if not source.exists() and not (found and found.holds and found.holds(source)):  # FOLDER#SERIES exists in it
        raise DataError(f"input: {source} does not exist. Give an image file or a folder of images.")
    if source.is_file() or found is not None:
        return [source]
    folder = source / "images" if (source / "images").is_dir() else source
    files = list_images(folder)
    if not files:
        raise DataError(f"input: {folder} holds no image file. Give a folder of .nii.gz, .png, .npy … files.")
    return files


def name_maps(files: list[Path], source: Path, target: Path, dims: int, ending: str | None) -> list[Path]:
    """Return the label map of each image.

    Args:
        files: images.
        source: what named them.
        target: file or folder to write.
        dims: number of spatial axes of the network.
        ending: that of label maps in a folder (None: by the image's format).

    Raises:
        ConfigError: one file cannot be all maps, two maps would have one name, or the ending is unknown.
    """
    if split_ending(target)[1] and not target.is_dir():
        if files == [source]:
            return [target]
        raise ConfigError(f"output: {target} names one file, but {source} is a folder. Give a folder.")
    if ending is not None:
        check_choice("ending", ending, endings(written=True))
    targets = [target / (split_ending(path)[0] + (ending or _label_ending(path, dims))) for path in files]
    _check_distinct(files, targets)
    return targets


def _label_ending(path: Path, dims: int) -> str:
    """Return the ending of the label map of an image: its own format's where that has a say."""
    found = find_format(path)
    return (found and found.label_ending) or {1: ".npy", 2: ".png", 3: ".nii.gz"}[dims]


def _check_distinct(files: list[Path], targets: list[Path]) -> None:
    """Raise ConfigError where two images would have one label map, or had on a disk that ignores capitals."""
    inputs: dict[str, Path] = {}
    for path, target in zip(files, targets, strict=True):
        first = inputs.setdefault(unicodedata.normalize("NFC", target.name).casefold(), path)
        if first is not path:
            raise ConfigError(
                f"input: {shown(first.name)} and {shown(path.name)} would both be written as {shown(target.name)}; "
                "expected names that differ before their endings, in more than capitals. Rename one of them."
            )
