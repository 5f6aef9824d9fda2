"""Facts of an image that its file states before a pixel is read, and their fit to a data set."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoxel.data.axes import find_axes, space_sizes
from convoxel.files.fault import ErrorCollector, fault, plural

Affine = NDArray[np.float64] | None  # 4×4 matrix from voxel index to mm
Spacing = tuple[float, ...] | None  # distance between voxels along each axis in mm, between samples of a signal in s

# Share of a voxel by which a label's voxels may lie off its image's: below half a voxel, by which conventions of corner
# and centre differ, and above the noise of a qform, which near half turns reaches 0.1 mm at a distance of 200 mm.
_MOST_SHIFT = 0.25
_MOST_STRETCH = 0.01  # relative difference of two spacings that count as one
_MEND = "Write the label again on its image's grid, or ask for --resample-labels (resample_labels=True)"


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
        classes: names by class number that a label's file gives, "" where it gives none, or should get (default none).
        stored: shape and type of an array whose file does not say what its axes mean (NumPy); None elsewhere.
        axes: what those axes mean, such as "HWC"; "" where that is open, and ``shape`` is then the whole array's.
        note: in words, what the reader did to a picture that is more than grey or RGB, or took for granted (default "",
            nothing).
        origin: what of the file's own header survives in a file that is written beside it; its format alone knows what
            it holds. None where there is nothing.
        scale: value that one stored unit stands for, in a file that is written (default 1; NIfTI and TIFF of shares).
    """

    shape: tuple[int, ...]
    channels: int
    spacing_mm: Spacing = None
    affine: Affine = None
    colour: bool = False
    oriented: bool = True
    classes: tuple[str, ...] = ()
    stored: tuple[tuple[int, ...], np.dtype[Any]] | None = None
    axes: str = ""
    note: str = ""
    origin: object = None
    scale: float = 1.0

    @property
    def stated_affine(self) -> Affine:
        """The affine where the file states one; a guess is None."""
        return self.affine if self.oriented else None

    @property
    def dims(self) -> int:
        """Number of spatial axes."""
        return len(self.shape)


def spacing_unit(dims: int) -> str:
    """Return the unit of ``spacing_mm``: a signal's samples lie seconds apart, everything else millimetres."""
    return "s" if dims == 1 else "mm"


def with_axes(path: object, header: Header, axes: str | None = None, **known: Any) -> Header:
    """Return a header as ``axes`` say or ``find_axes`` finds from what is known; one that is no array's stays as is."""
    if header.stored is None:
        return header
    shape, dtype = header.stored
    found = find_axes(path, shape, dtype, axes=axes, **known)
    channels = shape[found.index("C")] if "C" in found else 1
    return replace(header, shape=space_sizes(found, shape), channels=channels, axes=found)


def describe_reading(headers: Mapping[str, Header]) -> list[str]:
    """Return sentences about what the axes of NumPy images were taken for, and what was done to pictures.

    >>> describe_reading({"a": Header((5, 6), 3, stored=((5, 6, 3), np.dtype("u1")), axes="HWC")})
    ['the axes of 1 NumPy image are read as HWC; the first: a, (5, 6, 3)']
    """
    found: dict[str, list[str]] = {}
    for name, header in headers.items():
        for words in (header.axes, header.note):
            if words:
                found.setdefault(words, []).append(name)
    sentences = []
    for words, names in found.items():
        first, count = headers[names[0]], len(names)
        if first.stored is not None and words == first.axes:
            axes = f"the axes of {plural(count, 'NumPy image')} are read as {words}"
            sentences.append(f"{axes}; the first: {names[0]}, {first.stored[0]}")
        else:
            sentences.append(f"{words} in {plural(count, 'image')}; the first: {names[0]}")
    return sentences


def check_dims(path: object, header: Header, dims: int | None) -> None:
    """Raise DataError if an image does not have ``dims`` spatial axes."""
    if dims is not None and header.dims != dims:
        came = f"the image is {header.dims}-D ({sizes(header)})"
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
        else f"Give every image {plural(channels, 'channel')}, or put it into a set of its own"
    )
    came = "1 channel" if header.channels == 1 else f"{header.channels} channels"
    came += f" ({header.note})" if header.note and header.colour else ""
    raise fault(path, f"the image has {came}", f"{channels}, as in the rest of the data set", hint)


def agree(images: dict[str, tuple[Path, Header]], errors: ErrorCollector) -> tuple[int, int]:
    """Return the (dims, channels) of a data set: those of most images; every image that differs is reported.

    One colour picture makes it a colour set, since grey pictures can be read in colour and not the reverse.
    """
    for name, (path, header) in images.items():
        with errors.collect(name):
            if header.stored is not None and not header.axes:
                with_axes(path, header)  # raises: the axes would be known otherwise
    dims = Counter(header.dims for _, header in images.values()).most_common(1)[0][0]
    same = [header for _, header in images.values() if header.dims == dims]
    colour = any(header.colour and header.channels == 3 for header in same)
    channels = 3 if colour else Counter(header.channels for header in same).most_common(1)[0][0]
    for name, (path, header) in images.items():
        with errors.collect(name):
            check_dims(path, header, dims)
            fit_channels(path, header, channels)
    return dims, channels


@dataclass(frozen=True)
class GridMatch:
    """Comparison of a label's grid with its image's.

    Attributes:
        came, expected, mend: parts of the message about a label on another grid; empty where it is the same.
        note: what was assumed because a file does not say where it lies; empty where both do.
        related: True where both files say where they lie, so that a label on another grid can be brought onto the
            image's.
    """

    came: str = ""
    expected: str = ""
    mend: str = ""
    note: str = ""
    related: bool = False

    @property
    def same(self) -> bool:
        """True where voxel (i, j, k) of the label is voxel (i, j, k) of the image."""
        return not self.came


def compare_grids(image: Header, label: Header) -> GridMatch:
    """Return whether a label has its image's grid: equal sizes, and corners at most a quarter of a voxel apart.

    Distances are measured along each axis of the image, in its own voxels. A label that states no orientation counts as
    lying on its image: a header without one, or the identity matrix, which programs write when they know none. The
    identity is believed where the image has axes along x, y, z and voxels of 1 mm itself, since a shift would hide
    behind it. Where only one of the two has an affine there is nothing to compare.
    """
    placed, note = image.affine is not None and label.affine is not None, _unplaced(image, label)
    related = placed and not note and image.oriented and label.oriented
    if label.shape != image.shape:
        came, expected = f"the label is {sizes(label)}", f"{sizes(image)} as its image"
        return GridMatch(came, expected, _MEND, "", related)
    if not placed:
        return GridMatch()
    with np.errstate(all="ignore"):  # a header may claim any distance; what overflows does not agree
        came, expected = _size_difference(image, label) if note else _place_difference(image, label)
    if not came:
        return GridMatch(note=note, related=related)
    return GridMatch(came, expected, _MEND, "", related)


def _unplaced(image: Header, label: Header) -> str:
    """Return in words which of two files with affines does not say where it lies, "" where both do or both do not."""
    if image.affine is None or label.affine is None:
        return ""
    if np.array_equal(label.affine, np.eye(4)) and not np.allclose(image.affine[:3, :3], np.eye(3), atol=1e-3):
        return "the label's affine is the identity"
    if image.oriented == label.oriented:
        return ""
    return f"the {'image' if label.oriented else 'label'} states no orientation"


def _size_difference(image: Header, label: Header) -> tuple[str, str]:
    """Return (came, expected) of a label whose voxels have other sizes than its image's; all of 1 mm state nothing."""
    assert image.affine is not None and label.affine is not None
    ours, theirs = (np.linalg.norm(affine[:3, : image.dims], axis=0) for affine in (image.affine, label.affine))
    if np.allclose(theirs, 1) or np.allclose(theirs, ours, rtol=_MOST_STRETCH, atol=0):
        return "", ""
    came, expected = (" × ".join(f"{v:g}" for v in values) for values in (theirs, ours))
    return f"the label has voxels of {came} mm", f"{expected} mm as its image"


def _place_difference(image: Header, label: Header) -> tuple[str, str]:
    """Return (came, expected) of a label that lies elsewhere than its image."""
    assert image.affine is not None and label.affine is not None
    last = [s - 1 for s in (*image.shape, 1, 1)[:3]]
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, v) for v in last))], np.float64)
    shifts = (corners @ (label.affine - image.affine).T)[:, :3]
    voxels = np.abs(np.linalg.solve(image.affine[:3, :3], shifts.T)).max(axis=1)
    if voxels.max() <= _MOST_SHIFT:
        return "", ""
    farthest, axis = np.linalg.norm(shifts, axis=1).max(), voxels.argmax()
    came = f"the label lies {farthest:.3g} mm off its image ({voxels[axis]:.3g} voxels along axis {axis})"
    return came, f"the image's affine, to {_MOST_SHIFT} voxels along every axis"


def sizes(header: Header) -> str:
    """Return the sizes of an image in words.

    >>> sizes(Header((4, 5), 1))
    '4 × 5'
    """
    return " × ".join(map(str, header.shape))
