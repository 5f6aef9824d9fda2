"""What a file says about its image before a pixel is read, and whether that fits a data set."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convoxel.errors import DataError
from convoxel.files.fault import ErrorCollector, fault

__all__ = ["Header", "agree", "check_dims", "fit_channels"]


@dataclass(frozen=True)
class Header:
    """Shape of an image as the file declares it (checked against the file's size), with its geometry.

    ``shape`` holds the spatial sizes, ``channels`` is 1 or more, ``spacing_mm`` and ``affine`` (4×4, voxel
    index → mm) are None for formats without them. ``colour`` marks pictures, where a grey picture may stand
    for a colour one.
    """

    shape: tuple[int, ...]
    channels: int
    spacing_mm: tuple[float, ...] | None = None
    affine: NDArray[np.float64] | None = None
    colour: bool = False

    @property
    def dims(self) -> int:
        """Number of spatial axes."""
        return len(self.shape)


def check_dims(path: object, header: Header, dims: int | None) -> None:
    """Raise DataError if an image does not have ``dims`` spatial axes."""
    if dims is not None and header.dims != dims:
        sizes = " × ".join(map(str, header.shape))
        raise fault(
            path,
            f"the image is {header.dims}-D ({sizes})",
            f"a {dims}-D image",
            f"Give a {dims}-D image, or use a {header.dims}-D data set and network",
        )


def fit_channels(path: str | Path, header: Header, channels: int | None) -> int:
    """Return how many channels the image will have, given the ``channels`` its data set has.

    A grey picture in a colour set counts as three equal channels. Anything else that differs is a DataError.
    """
    if channels is None or header.channels == channels:
        return header.channels
    if header.colour and header.channels == 1 and channels == 3:
        return 3
    hint = (
        "Convert it to grey"
        if header.colour and channels == 1
        else f"Give every image {channels} channels, or put it into a set of its own"
    )
    came = "1 channel" if header.channels == 1 else f"{header.channels} channels"
    raise fault(path, f"the image has {came}", f"{channels}, as in the rest of the data set", hint)


def agree(images: dict[str, tuple[Path, Header]], errors: ErrorCollector) -> tuple[int, int]:
    """Return the (dims, channels) of a data set: those of most images; every image that differs is noted.

    One colour picture makes it a colour set, since the grey ones can follow and the colour one cannot.
    """
    dims = Counter(header.dims for _, header in images.values()).most_common(1)[0][0]
    same = [header for _, header in images.values() if header.dims == dims]
    colour = any(header.colour and header.channels == 3 for header in same)
    channels = 3 if colour else Counter(header.channels for header in same).most_common(1)[0][0]
    for name, (path, header) in images.items():
        try:
            check_dims(path, header, dims)
            fit_channels(path, header, channels)
        except DataError as error:
            errors.note(name, error)
    return dims, channels
