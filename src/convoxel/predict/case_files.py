"""The cases of a prediction: the images that an input names, and the files that their results get.

An image is a file, or a file for each channel (``data.channel_files``).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from convoxel.data.channel_files import ImageFiles, are_first_channels, find_channels, group_channels
from convoxel.data.image_file import list_images
from convoxel.data.image_format import endings, find_format, image_parts, split_ending
from convoxel.errors import ConfigError, DataError, check_choice
from convoxel.files.fault import ErrorCollector, Problem, shown
from convoxel.predict.trained_run import DataFacts

_Item = TypeVar("_Item")

#: Endings of tables of classes.
TABLE_ENDINGS = (".csv", ".json")


@dataclass(frozen=True)
class Case:
    """One image of a prediction.

    Attributes:
        image: the files of the image.
        targets: files to write, the label map first; of a table of classes, the table.
    """

    image: ImageFiles
    targets: tuple[Path, ...]

    @property
    def name(self) -> str:
        """Name of the image in manifests and tables: that of its file, or of the case that its files belong to."""
        return self.image.name

    @property
    def path(self) -> Path:
        """The image's first file, which stands for it in messages."""
        return self.image.files[0]

    @property
    def parts(self) -> list[Path]:
        """All files that the image consists of.

        Raises:
            DataError: a file that should say of which others it consists cannot be read.
        """
        return [part for path in self.image.files for part in image_parts(path)]


def list_inputs(source: Path, errors: ErrorCollector | None = None) -> list[Path]:
    """Return the images that ``source`` names: itself, those in it, or those in its folder ``images``.

    What lies among the images and is none is reported to ``errors`` (default: the first such file raises).

    Raises:
        DataError: it is missing, or a folder without images.
    """
    found = find_format(source)
    if not source.exists() and not (found and found.holds and found.holds(source)):  # FOLDER#SERIES exists in it
        raise DataError(f"input: {source} does not exist. Give an image file or a folder of images.")
    if is_one(source):
        return [source]
    folder = _folder(source)
    files = list_images(folder, errors)
    if not files:
        raise DataError(f"input: {folder} holds no image file. Give a folder of .nii.gz, .png, .npy … files.")
    return files


def is_one(source: Path) -> bool:
    """Return whether ``source`` is one image, and no folder of images."""
    return source.is_file() or find_format(source) is not None


def find_images(source: Path, facts: DataFacts, errors: ErrorCollector) -> list[ImageFiles]:
    """Return the images that ``source`` names, for a network whose data these facts describe.

    One file of several channels stands for all of them. Where all names end in ``_0000``, as nnU-Net wants it of images
    of one channel, their results get the names before that ending, as nnU-Net writes them.

    Raises:
        DataError: it is missing, or a folder without images.
    """
    files = list_inputs(source, errors)
    beside = find_channels(source) if files == [source] else files
    raw = facts.channel_files or are_first_channels(beside)
    taken = beside if files != [source] or facts.channels > 1 else files
    found = group_channels(taken, facts.dims, facts.channels, raw=raw, errors=errors)
    if files != [source]:
        return found
    return [image for image in found if source in image.files]


def list_cases(
    source: Path, target: Path, facts: DataFacts, *, maps: bool, ending: str | None = None
) -> tuple[list[Case], list[Problem]]:
    """Return the cases of a prediction, and what lies among the images and is none.

    A folder of results within that of the images is neither.

    Args:
        source: image, or folder of images.
        target: file or folder to write.
        facts: of the data that the network was trained on.
        maps: whether label maps are written, and no table.
        ending: that of label maps in a folder (default: by the image's format).

    Raises:
        DataError: ``source`` is missing, or a folder without images.
        ConfigError: one file cannot be all maps, two maps would have one name, a file to write is an image or a folder,
            or the ending is unknown.
    """
    errors = ErrorCollector(strict=False)
    results = target.resolve()
    images = [
        image
        for image in find_images(source, facts, errors)
        if not any(path != source and results.is_relative_to(path) for path in image.files)
    ]
    problems = [each for each in errors.problems if not results.is_relative_to((_folder(source) / each.name).resolve())]
    if maps:
        targets = _name_maps(images, source, target, facts.dims, ending)
    else:
        table = target if target.suffix.lower() in TABLE_ENDINGS else target / "predictions.csv"
        targets = [table] * len(images)
    taken = {path.resolve() for image in images for path in image.files}
    for path in dict.fromkeys(targets):
        if path.resolve() in taken:
            raise ConfigError(f"output: {path} is an input image. Give another --output.")
        if path.is_dir():
            raise ConfigError(f"output: {path} is a folder, a file is needed there. Give another --output.")
    return [Case(image, (target,)) for image, target in zip(images, targets, strict=True)], problems


def take_part(cases: Sequence[_Item], part: Sequence[int]) -> list[_Item]:
    """Return the cases of one part of several, which are disjoint, together all, and alike in number.

    Args:
        cases: all cases, in the same order for every part.
        part: number of the part, from 1, and number of parts.

    Raises:
        ConfigError: there is no such part.
    """
    number, count = part
    if not 1 <= number <= count:
        raise ConfigError(f"part: got {number}/{count}; expected a number from 1 to the number of parts, such as 3/16.")
    return list(cases[number - 1 :: count])


def _folder(source: Path) -> Path:
    return source / "images" if (source / "images").is_dir() else source


def _name_maps(images: list[ImageFiles], source: Path, target: Path, dims: int, ending: str | None) -> list[Path]:
    if split_ending(target)[1] and not target.is_dir():
        if is_one(source):
            return [target] * len(images)
        raise ConfigError(f"output: {target} names one file, but {source} is a folder. Give a folder.")
    if ending is not None:
        check_choice("ending", ending, endings(written=True))
    targets = [target / (image.stem + (ending or _label_ending(image.files[0], dims))) for image in images]
    _check_distinct(images, targets)
    return targets


def _label_ending(path: Path, dims: int) -> str:
    """Return the ending of the label map of an image: its own format's where that has a say."""
    found = find_format(path)
    return (found and found.label_ending) or {1: ".npy", 2: ".png", 3: ".nii.gz"}[dims]


def _check_distinct(images: list[ImageFiles], targets: list[Path]) -> None:
    """Raise ConfigError where two images would have one label map, or had on a disk that ignores capitals."""
    inputs: dict[str, ImageFiles] = {}
    for image, target in zip(images, targets, strict=True):
        first = inputs.setdefault(unicodedata.normalize("NFC", target.name).casefold(), image)
        if first is not image:
            raise ConfigError(
                f"input: {shown(first.name)} and {shown(image.name)} would both be written as {shown(target.name)}; "
                "expected names that differ before their endings, in more than capitals. Rename one of them."
            )
