"""Facts of an image that its file states before a pixel is read, and their fit to a data set."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convoxel.files.fault import ErrorCollector, fault

Affine = NDArray[np.float64] | None  # 4×4 matrix from voxel index to mm
Spacing = tuple[float, ...] | None  # distance between voxels along each axis in mm


@dataclass(frozen=True)
class Header:
    """Shape of an image as the file declares it (checked against the file's size), with its geometry.

    Attributes:
        shape: spatial sizes.
        channels: 1 or more.
        spacing_mm, affine: distance between voxels, and invertible 4×4 matrix from voxel index to mm (RAS+); None for
            formats without.
        colour: True for pictures, of which a grey one may be read in colour.
        oriented: False where the file states no orientation, so that its affine is a guess.
        free_axes: True where the file does not say what its axes mean (NumPy).
        origin: what of the file's own header survives in a file that is written beside it; its format alone knows what
            it holds. None where there is nothing.
    """

    shape: tuple[int, ...]
    channels: int
    spacing_mm: Spacing = None
    affine: Affine = None
    colour: bool = False
    oriented: bool = True
    free_axes: bool = False
    origin: object = None

    @property
    def dims(self) -> int:
        """Number of spatial axes."""
        return len(self.shape)


def check_dims(path: object, header: Header, dims: int | None) -> None:
    """Raise DataError if an image does not have ``dims`` spatial axes."""
    if dims is not None and header.dims != dims:
        came = f"the image is {header.dims}-D ({' × '.join(map(str, header.shape))})"
        mend = f"Give a {dims}-D image, or use a {header.dims}-D data set and network"
        raise fault(path, came, f"a {dims}-D image", mend)


def fit_channels(path: str | Path, header: Header, channels: int | None) -> int:
    """Return the number of channels of an image in a data set whose images have ``channels``.

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
    """Return the (dims, channels) of a data set: those of most images; every image that differs is reported.

    One colour picture makes it a colour set, since grey pictures can be read in colour and not the reverse.
    """
    dims = Counter(header.dims for _, header in images.values()).most_common(1)[0][0]
    same = [header for _, header in images.values() if header.dims == dims]
    colour = any(header.colour and header.channels == 3 for header in same)
    channels = 3 if colour else Counter(header.channels for header in same).most_common(1)[0][0]
    for name, (path, header) in images.items():
        with errors.collect(name):
            check_dims(path, header, dims)
            fit_channels(path, header, channels)
    return dims, channels
