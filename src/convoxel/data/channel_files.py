"""Images whose channels are files of their own, as nnU-Net names them: CASE_0000.nii.gz, CASE_0001.nii.gz, ….

The files of an image lie on one grid and hold one channel each. An image of one file passes through here unchanged.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from convoxel.data.data_set import Sample
from convoxel.data.image_file import list_images, map_image, read_header, read_image, with_dims
from convoxel.data.image_format import split_ending
from convoxel.data.image_header import Header, compare_grids, sizes
from convoxel.data.mapped_image import MappedImage, slab_places
from convoxel.errors import DataError
from convoxel.files.fault import ErrorCollector, fault, plural, shown
from convoxel.files.file_array import new_array
from convoxel.files.values import Array

_NAME = re.compile(r"(.+)_([0-9]{4})", re.DOTALL)
_SUFFIX = len("_0000")
_MOST_TRIED = 8  # files whose headers are read to learn how many channels a file holds


@dataclass(frozen=True)
class ImageFiles:
    """The files of one image.

    Attributes:
        name: name of the image for people: that of its only file, or the case that its channels belong to.
        stem: name of what is written for it, without an ending.
        files: the image as one file, or as a file a channel.
    """

    name: str
    stem: str
    files: tuple[Path, ...]

    @classmethod
    def one(cls, path: Path) -> ImageFiles:
        """Return an image that is one file."""
        return cls(path.name, split_ending(path)[0], (path,))


def channel_of(path: Path) -> tuple[str, int] | None:
    """Return the case and the channel that a file's name says; None where it says none.

    >>> channel_of(Path("brain_07_0001.nii.gz")), channel_of(Path("brain.nii.gz"))
    (('brain_07', 1), None)
    """
    match = _NAME.fullmatch(split_ending(path)[0])
    return None if match is None else (unicodedata.normalize("NFC", match[1]), int(match[2]))


def are_first_channels(paths: Sequence[Path]) -> bool:
    """Return whether every name ends in ``_0000``: images of one file, whose names are those before the ending.

    A sequence has other numbers too, and its files keep their names.

    >>> [are_first_channels([Path("a_0000.png"), Path(f"b_{number}.png")]) for number in ("0000", "0001")]
    [True, False]
    """
    return all((channel_of(path) or ("", 1))[1] == 0 for path in paths)


def gather_channels(paths: Iterable[Path], errors: ErrorCollector) -> dict[str, dict[int, Path]]:
    """Return the files of each case by channel; those whose names say no channel are left out.

    A second file of a channel is reported to ``errors``.
    """
    cases: dict[str, dict[int, Path]] = {}
    for path in paths:
        said = channel_of(path)
        if said is None:
            continue
        case, channel = said
        held = cases.setdefault(case, {})
        if channel in held:
            came = f"a second file of channel {channel:04d} beside {shown(held[channel].name)}"
            errors.note(case, fault(path, came, "one file a channel", "Remove one of the two"))
        held.setdefault(channel, path)
    return cases


def whole_case(case: str, held: Mapping[int, Path], count: int, mend: str = "") -> tuple[Path, ...]:
    """Return the files of a case in the order of its channels.

    Args:
        case: name of the case.
        held: its files by channel.
        count: number of channels that it must have, from 0000 on.
        mend: what else can be done where a file is missing or one too many.

    Raises:
        DataError: it has other channels; the message names the file.
    """
    wrong = sorted(set(range(count)) ^ held.keys())
    if not wrong:
        return tuple(held[channel] for channel in range(count))
    first = held[min(held)]
    if wrong[0] in held:
        made = "1 file makes" if count == 1 else f"{count} files make"
        where, came = held[wrong[0]], f"channel {wrong[0]:04d} is one too many: {made} an image"
    else:
        where = first.with_name(f"{case}_{wrong[0]:04d}{split_ending(first)[1]}")
        came = f"channel {wrong[0]:04d} is missing beside {shown(first.name)}"
    expected = "the channel 0000 alone" if count == 1 else f"the channels 0000 to {count - 1:04d} of {shown(case)}"
    raise fault(where, came, expected, mend or "Add the missing file, or move away those that are too many")


def group_channels(
    paths: Sequence[Path], dims: int, channels: int, *, raw: bool, errors: ErrorCollector
) -> list[ImageFiles]:
    """Return the images that files make: files are the channels of an image where names and contents say so.

    Names say it by an ending ``_0000``, ``_0001`` …. A network of several channels is given files that hold one each;
    grey pictures for a network of colours stay images of their own. One file ``CASE_0000`` that holds all
    channels is the image CASE where the network's own data were named so (``raw``), else it keeps its name.
    A case with a missing, superfluous or second file is reported to ``errors``, and is left out.

    Args:
        paths: image files, in order.
        dims: number of spatial axes of the network.
        channels: number of its channels.
        raw: whether its training images were named so.
        errors: where problems are reported.
    """
    cases = gather_channels(paths, ErrorCollector(strict=False))
    header = _first_header([path for held in cases.values() for path in held.values()], dims)
    several = header is not None and header.channels == 1 < channels
    if header is not None and several and header.colour and channels == 3:
        several = raw and any(set(held) == {0, 1, 2} for held in cases.values())
    if header is None or not (several or raw):
        return list(map(ImageFiles.one, paths))
    if not several:  # a file is an image; without a channel 0 the number has some other meaning
        cases = {case: held for case, held in cases.items() if 0 in held}
    gather_channels([path for path in paths if (channel_of(path) or ("",))[0] in cases], errors)
    found: list[ImageFiles] = []
    for path in paths:
        case, _ = channel_of(path) or ("", 0)
        if case not in cases:
            found.append(ImageFiles.one(path))
        elif path == next(iter(cases[case].values())) and shown(case) not in errors.names:
            with errors.collect(case):
                files = whole_case(case, cases[case], channels if several else 1)
                found.append(ImageFiles(case, split_ending(files[0])[0][:-_SUFFIX], files))
    return found


def _first_header(paths: Sequence[Path], dims: int) -> Header | None:
    """Return the header of the first file that can be read, as an image of one or more channels."""
    for path in paths[:_MOST_TRIED]:
        with suppress(DataError):
            return with_dims(path, read_header(path), dims)
    return None


def find_channels(path: Path) -> list[Path]:
    """Return the files beside an image that its name says to be of the same case, itself included."""
    said = channel_of(path)
    if said is None:
        return [path]
    beside = list_images(path.parent, ErrorCollector(strict=False))
    return [each for each in beside if each == path or (channel_of(each) or ("", 0))[0] == said[0]]


def describe_channels(images: Sequence[ImageFiles]) -> str:
    """Return in words which files were taken for channels of images; "" where none were.

    >>> files = tuple(Path(f"a_000{channel}.nii.gz") for channel in range(2))
    >>> describe_channels([ImageFiles("a", "a", files)])
    '1 image of 2 files, one a channel; the first: a_0000.nii.gz, a_0001.nii.gz make a'
    """
    several = [image for image in images if len(image.files) > 1]
    if not several:
        return ""
    first = several[0]
    names = ", ".join(shown(path.name) for path in first.files)
    told = f"{plural(len(several), 'image')} of {len(first.files)} files, one a channel"
    return f"{told}; the first: {names} make {shown(first.name)}"


def read_image_header(
    files: Sequence[Path],
    dims: int | None = None,
    channels: int | None = None,
    axes: str | None = None,
    grid: tuple[int, ...] | None = None,
    first: Header | None = None,
) -> Header:
    """Return the header of an image, as ``image_file.with_dims`` reads it.

    ``first`` is the header of the first file, where it has been read already.

    Raises:
        DataError: as :func:`convoxel.data.image_file.read_header`; or files lie on different grids, or hold more than a
            channel each.
    """
    if len(files) == 1:
        return with_dims(files[0], first or read_header(files[0]), dims, channels, axes, grid)
    found = with_dims(files[0], first or read_header(files[0]), dims, 1, axes, grid)
    for path in files:
        header = found if path == files[0] else with_dims(path, read_header(path), dims, 1, axes, grid)
        if not compare_grids(found, header).same:
            here, there = sizes(header), sizes(found)
            came, expected = f"the channel is {here}", there
            if here == there:
                came, expected = "the channel lies elsewhere, or has other voxels", "the same place and spacing"
            raise fault(path, came, f"{expected} as {shown(files[0].name)}", "Resample it onto the grid of the others")
        if header.channels != 1:
            raise fault(path, f"{header.channels} channels", "one channel a file", "Write one file a channel")
    return replace(found, channels=len(files))


def read_channels(files: Sequence[Path], dims: int | None, channels: int | None, axes: str | None = None) -> Sample:
    """Return an image as a Sample whose values are float32; arguments and errors as of ``image_file.read_image``."""
    if len(files) == 1:
        return read_image(files[0], dims, channels, axes)
    read_image_header(files, dims, channels, axes)
    samples = [read_image(path, dims, 1, axes) for path in files]
    return replace(samples[0], name=_case(files), image=np.concatenate([sample.image for sample in samples]))


def map_channels(files: Sequence[Path], dims: int | None, channels: int | None, axes: str | None = None) -> Sample:
    """Return an image as a Sample whose values stay as stored; arguments and errors as of ``image_file.map_image``.

    Those of several files are gathered, in a temporary file where they are large.
    """
    if len(files) == 1:
        return map_image(files[0], dims, channels, axes)
    read_image_header(files, dims, channels, axes)
    samples = [map_image(path, dims, 1, axes) for path in files]
    images = [s.image if isinstance(s.image, MappedImage) else MappedImage(s.image) for s in samples]
    alike = len({(image.stored.dtype, image.slope, image.intercept) for image in images}) == 1
    shape = (len(images), *images[0].shape[1:])
    stored = new_array(shape, images[0].stored.dtype if alike else np.float32, (0, *range(1, len(shape))[::-1]))
    for channel, image in enumerate(images):
        for place in slab_places(image):
            part = (slice(channel, channel + 1), *place[1:])
            stored[part] = image.stored[place] if alike else image[place]
    scaling = {"slope": images[0].slope, "intercept": images[0].intercept} if alike else {}
    whole = cast(Array, MappedImage(stored, **scaling))
    return replace(samples[0], name=_case(files), image=whole)


def _case(files: Sequence[Path]) -> str:
    said = channel_of(files[0])
    return split_ending(files[0])[0] if said is None else said[0]
