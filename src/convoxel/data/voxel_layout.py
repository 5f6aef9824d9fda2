"""Voxels that lie as one block behind a header of text (MetaImage, NRRD): place and type, and their geometry.

The header's own module says what the header claims; here the claims are held against the file, and the block is read,
inflated or mapped. Geometry comes in the patient's axes of these formats (left, posterior, superior) and leaves as
RAS+ mm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from convoxel.data.image_header import Header
from convoxel.data.mapped_image import MappedImage
from convoxel.files.beside import open_beside
from convoxel.files.fault import brief, fault
from convoxel.files.file_array import FileArray, inflate_array
from convoxel.files.memory import check_memory
from convoxel.files.stream import check_inflation, file_size, inflate, read_bytes
from convoxel.files.values import Array

_COPY = "Copy the file again from its source, or write it anew with the program that made it"
_MOST_HEADER = 2**20  # bytes of text
_MOST_AXIS = 2**31
_MOST_NUMBER = 1e15  # beyond any place in mm, and squares of it are finite
_MOST_MM = 1e6  # a kilometre
_LEAST_VOLUME = 1e-6  # of a voxel whose edges are 1: below it, axes lie in one plane
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class VoxelLayout:
    """Where the voxels are and how they lie.

    Attributes:
        header: the image as it is seen outside.
        dtype: type of a value, with its byte order.
        sizes: of all axes as in the file, the first one fastest.
        channel_axis: which of them holds channels, or None.
        start: byte where the block (or its compressed stream) begins; -1: the block ends with the file.
        skipped: bytes left out at the beginning of the block once it is inflated.
        wrapper: framing of the compressed stream as of ``inflate``, or None where nothing is compressed.
        location: file beside the header that holds the block, or None.
    """

    header: Header
    dtype: np.dtype[Any]
    sizes: tuple[int, ...]
    channel_axis: int | None
    start: int
    skipped: int = 0
    wrapper: int | None = None
    location: str | None = None

    @property
    def count(self) -> int:
        return math.prod(self.sizes)

    @property
    def size_bytes(self) -> int:
        return self.count * self.dtype.itemsize

    def check(self, path: Path) -> None:
        """Raise DataError where the file cannot hold the voxels that its header claims."""
        with self._opened(path) as (where, file):
            self._place(where, file)

    def read(self, path: Path, *, label: bool) -> Array:
        """Return the values (channels, *shape), C-contiguous: float32, or as stored for a label."""
        check_memory(path, self.skipped + self.size_bytes + 4 * self.count)
        with self._opened(path) as (where, file):
            place = self._place(where, file)
            file.seek(place)
            content: bytes | bytearray
            if self.wrapper is None:
                content = file.read(self.size_bytes)
            else:
                end = self.skipped + self.size_bytes
                content = inflate(where, end, whole=True, file=file, wrapper=self.wrapper)
        offset = 0 if self.wrapper is None else self.skipped
        values = self._arranged(np.frombuffer(content, self.dtype, self.count, offset))
        with np.errstate(all="ignore"):  # what overflows becomes infinite, which the check of the values reports
            return np.array(values, self.dtype.newbyteorder("=") if label else np.float32, order="C")

    def map(self, path: Path) -> MappedImage:
        """Return the values left as stored: in the file, or as they are inflated."""
        stored: Array | FileArray
        with self._opened(path) as (where, file):
            place = self._place(where, file)
            if self.wrapper is None:
                stored = FileArray.open(where, self.dtype, place, self.count, file)
            else:
                file.seek(place)
                stored = inflate_array(where, self.skipped, self.count, self.dtype, file, self.wrapper)
        return MappedImage(stored).view(self._arranged)

    def _arranged(self, block: Array) -> Array:
        """Return a view (channels, *shape) of the block."""
        values = block.reshape(self.sizes, order="F")
        if self.channel_axis is not None:
            return np.moveaxis(values, self.channel_axis, 0).reshape(self.header.channels, *self.header.shape)
        return values.reshape(1, *self.header.shape)

    @contextmanager
    def _opened(self, path: Path) -> Iterator[tuple[Path, BinaryIO]]:
        """Yield the file that holds the block, with its name for messages."""
        try:
            if self.location is None:
                with path.open("rb") as file:
                    yield path, file
                return
            beside = open_beside(path, self.location)
            if beside is None:
                came = f"its voxels should be in the file {brief(self.location)}"
                expected = "a regular file in the header's folder, without '..', and no link that leads out of it"
                raise fault(path, came, expected, "Put it beside the header under that name")
            with beside:
                yield path.parent / self.location, beside
        except OSError as error:
            came = f"cannot be read ({error.strerror or error})"
            raise fault(path, came, "a readable file", "Check its rights and the disk") from None

    def _place(self, where: Path, file: BinaryIO) -> int:
        """Return the byte where the block or its stream begins, after the claims are held against the file's size."""
        size = file.seek(0, 2)
        if self.wrapper is not None:
            check_inflation(where, max(size - self.start, 0), self.skipped + self.size_bytes)
            return self.start
        place = size - self.size_bytes if self.start < 0 else self.start + self.skipped
        if place < 0 or place + self.size_bytes > size:
            sizes = " × ".join(map(str, self.sizes))
            came = f"the header claims {self.size_bytes} bytes ({sizes} {self.dtype.name}) but the file has {size}"
            mend = "The file is truncated or its header is false: " + _COPY[0].lower() + _COPY[1:]
            raise fault(where, came, "at least as many bytes as claimed", mend)
        return place


# ---- the header's text ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LayoutReader:
    """The functions by which a format of this kind is read.

    Attributes:
        read_layout: layout of a file; DataError names the first line of its header that cannot be true.
    """

    read_layout: Callable[[Path], VoxelLayout]

    def read_header(self, path: Path) -> Header:
        """Return the checked header of a file."""
        return self.read_layout(path).header

    def read_values(self, path: Path, label: bool) -> tuple[Header, Array]:
        """Return header and values (channels, *shape): float32, or as stored for a label."""
        layout = self.read_layout(path)
        return layout.header, layout.read(path, label=label)

    def map_values(self, path: Path) -> tuple[Header, MappedImage]:
        """Return header and values left as stored, see ``VoxelLayout.map``."""
        layout = self.read_layout(path)
        return layout.header, layout.map(path)

    def list_parts(self, path: Path) -> list[Path]:
        """Return the header's file and the one that holds the voxels."""
        location = self.read_layout(path).location
        return [path] if location is None else [path, path.parent / location]


def read_header_text(path: Path) -> bytes:
    """Return the first bytes of a file, as many as a header of text may have."""
    file_size(path)
    return read_bytes(path, _MOST_HEADER)


def parse_numbers(path: Path, name: str, text: str, count: int | None = None) -> list[float]:
    """Return the finite numbers, separated by spaces, of a header's field; DataError unless there are ``count``."""
    try:
        numbers = [float(word) for word in text.split()]
    except ValueError:
        numbers = [math.nan]  # which no comparison accepts
    if (
        not all(abs(number) <= _MOST_NUMBER for number in numbers)
        or len(numbers) != (count or len(numbers))
        or not numbers
    ):
        expected = "finite numbers" if count is None else f"{count} finite number{'s' * (count > 1)}"
        raise fault(path, f"{name} is {brief(text)}", expected, _COPY)
    return numbers


def parse_sizes(path: Path, name: str, text: str, count: int) -> tuple[int, ...]:
    """Return the sizes of a header's field: ``count`` whole numbers of at least 1."""
    words = text.split()
    if len(words) != count or not all(w.isascii() and w.isdecimal() and len(w) < 11 for w in words):
        sizes = [0]
    else:
        sizes = [int(word) for word in words]
    if not all(1 <= size <= _MOST_AXIS for size in sizes):
        expected = f"{count} whole number{'s' * (count > 1)} of at least 1"
        raise fault(path, f"{name} is {brief(text)}", expected, _COPY)
    return tuple(sizes)


# ---- geometry ------------------------------------------------------------------------------------------------


def patient_affine(
    path: Path,
    steps: NDArray[np.float64],
    origin: Sequence[float] | NDArray[np.float64],
    to_ras: NDArray[np.float64] = LPS_TO_RAS,
) -> NDArray[np.float64]:
    """Return the 4×4 matrix from voxel index to RAS+ mm.

    Args:
        path: file, for messages.
        steps: (space, axes) mm from a voxel to the next along each axis, one column an axis; fewer than three axes or
            dimensions of space are completed by perpendicular ones of 1 mm.
        origin: place of the first voxel's centre in mm.
        to_ras: matrix that turns the file's space into RAS+ (default: from LPS).

    Raises:
        DataError: a step is no step or not finite, or two axes point the same way.
    """
    space, axes = steps.shape
    lengths = np.linalg.norm(steps, axis=0)
    place = np.zeros(3)
    place[:space] = origin
    full = np.zeros((3, 3))
    full[:space, :axes] = steps
    if not (np.isfinite(full).all() and np.isfinite(place).all() and (lengths > 0).all() and lengths.max() < _MOST_MM):
        came = f"the steps between voxels are {brief([round(float(v), 6) for v in lengths])} mm long"
        raise fault(path, came, f"finite steps above 0 and below {_MOST_MM:g} mm", "Write the geometry again")
    full[:, :axes] /= lengths
    if axes < 3:
        # the directions that the axes leave free, in the order of space, so that a plane of x and y gets z
        free = np.linalg.svd(full[:, :axes])[0][:, axes:] if space == 3 else np.eye(3)[:, axes:]
        full[:, axes:] = free
        if np.linalg.det(full) < 0 and space == 3:
            full[:, -1] *= -1
    if abs(np.linalg.det(full)) < _LEAST_VOLUME:
        came = f"the directions of the axes lie in one plane or line ({brief(full[:, :axes].T.round(6).tolist())})"
        raise fault(path, came, "axes that span space", "Write the orientation again")
    full[:, :axes] = steps if space == 3 else np.vstack([steps, np.zeros((3 - space, axes))])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = to_ras @ full, to_ras @ place
    return affine + 0.0  # no negative zeros


def steps_to_patient(affine: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (steps, origin) in LPS mm of a 4×4 matrix from voxel index to RAS+ mm."""
    return LPS_TO_RAS @ affine[:3, :3] + 0.0, LPS_TO_RAS @ affine[:3, 3] + 0.0


def split_sizes(path: Path, sizes: tuple[int, ...], channel_axis: int | None) -> tuple[tuple[int, ...], int]:
    """Return (spatial sizes, channels) of a file's axes; trailing spatial axes of size 1 drop out."""
    space = [size for axis, size in enumerate(sizes) if axis != channel_axis]
    if len(space) > 3:
        came = f"{len(space)} axes of space ({' × '.join(map(str, space))})"
        raise fault(path, came, "at most three, and one of channels", "Split the file into one per time point")
    while len(space) > 1 and space[-1] == 1:
        space.pop()
    return tuple(space), 1 if channel_axis is None else sizes[channel_axis]
