"""Images that views look at: they stay in their files, and are cut into the slices and curves that a page paints.

A compressed image is decoded into a file once, and its page asks meanwhile how far that is. Grey values become shades
here, between the two values that the page names, so a page holds no image values.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from convoxel.draw.image_overlay import grey_window
from convoxel.draw.volume_slice import PLANES, oriented_slice, plane_axis
from convoxel.errors import ConfigError, check_choice
from convoxel.explorer.view import Picture, Query, View
from convoxel.files.progress import listening
from convoxel.files.values import Array

if TYPE_CHECKING:
    from convoxel.data import Sample
    from convoxel.explorer.session import Session
    from convoxel.files.values import JsonObject

_PATTERNS = {"pattern-1d": 1, "pattern-2d": 2, "pattern-3d": 3}
_PATTERN_SIZES = {1: 1024, 2: 224, 3: 64}
_MOST_IMAGES, _MOST_LOOKED_AT = 400, 5000
_LOOKED_AT = 9  # slices of which the usual window is taken
_SLAB = 8  # slices that are read at once: where they lie apart in the file, one of them costs as much as all
_SLABS, _MOST_SLAB = 6, 16 * 2**20  # slabs that are kept, and the bytes of the largest
_BINS = 1200  # of a curve


@dataclass(frozen=True)
class Plane:
    """A direction of slices.

    Attributes:
        name: name for people.
        across: stored axis that slices are numbered along; None for a picture.
        axes: stored axes that run down the rows and along the columns.
        reversed: whether each of them runs backwards in the picture.
        spacing: size of a pixel (row, column).
        marks: letters of the top, bottom, left and right edge; () where the directions are not known.
    """

    name: str
    across: int | None
    axes: tuple[int, int]
    reversed: tuple[bool, bool] = (False, False)
    spacing: tuple[float, float] = (1.0, 1.0)
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class OpenedImage:
    """An image, its planes and the values that are shown as black and white.

    Attributes:
        word: path, or the name of a test pattern.
        sample: the image, left in its file where the format allows it.
        planes: directions of slices; one of a picture, none of a signal.
        window: usual values of black and white.
        ends: least and largest value, of the slices that were looked at.
        coloured: whether three channels are red, green and blue.
    """

    word: str
    sample: Sample
    planes: tuple[Plane, ...]
    window: tuple[float, float]
    ends: tuple[float, float]
    coloured: bool
    _slabs: OrderedDict[object, Array] = field(default_factory=OrderedDict, repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    @classmethod
    def of(cls, word: str, sample: Sample) -> OpenedImage:
        """Return a sample as an image to look at."""
        image = sample.image
        values = _values_looked_at(image)
        low, high = grey_window(values)
        coloured = image.ndim == 3 and image.shape[0] == 3
        if coloured and values.min() >= 0 and values.max() <= 255:
            low, high = 0.0, 255.0
        ends = (float(values.min()), float(values.max()))
        return cls(word, sample, _planes(sample), (low, high), ends, coloured)

    @property
    def size(self) -> tuple[int, ...]:
        """Voxels along each axis, as stored."""
        return tuple(self.sample.image.shape[1:])

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.sample.image.shape[0])

    def plane(self, name: str) -> Plane:
        """Return the plane of a name; ConfigError where there is none."""
        known = {plane.name: plane for plane in self.planes}
        return known[check_choice("plane", name, tuple(known))]

    def cut(self, plane: Plane, index: int, channel: int = 0) -> Array:
        """Return (rows, columns) of a channel, or (rows, columns, 3) of a picture in colours, as it is looked at."""
        channels = slice(0, 3) if self.coloured else slice(channel, channel + 1)
        if plane.across is None:
            values = self.sample.image[channels, :, :]
        else:
            values = self._slab(plane.across, index, channels)
        return _turned(values[0] if not self.coloured else np.moveaxis(values, 0, -1), plane)

    def _slab(self, axis: int, index: int, channels: slice) -> Array:
        """Return (channels, rows, columns) of one index of an axis; its neighbours are read along with it."""
        image = self.sample.image
        rest = int(np.prod(self.size)) // self.size[axis] * 4
        count = max(1, min(_SLAB, _MOST_SLAB // rest))
        first = index // count * count
        key = (axis, first, channels.start)
        with self._lock:
            found = self._slabs.get(key)
            if found is None:
                place = [channels, slice(None), slice(None), slice(None)]
                place[1 + axis] = slice(first, first + count)
                found = self._slabs[key] = np.asarray(image[tuple(place)])
            self._slabs.move_to_end(key)
            while len(self._slabs) > _SLABS:
                self._slabs.popitem(last=False)
        taken: Array = np.take(found, index - first, axis=1 + axis)
        return taken

    def value(self, voxel: tuple[int, ...], channel: int = 0) -> list[float]:
        """Return the values of a voxel: of a channel, or of the three of a colour."""
        channels = slice(0, 3) if self.coloured else slice(channel, channel + 1)
        if len(voxel) == 3:
            across = self.planes[0].across or 0
            rest = [place for axis, place in enumerate(voxel) if axis != across]
            found = self._slab(across, voxel[across], channels)[:, rest[0], rest[1]]
        else:
            place = (channels, *(slice(place, place + 1) for place in voxel))
            found = np.asarray(self.sample.image[place]).ravel()
        return [float(each) for each in found]


def _turned(values: Array, plane: Plane) -> Array:
    """Return the values of a slice, whose first two axes are as stored, as they are looked at."""
    if plane.axes[0] > plane.axes[1]:
        values = np.swapaxes(values, 0, 1)
    rows, columns = (slice(None, None, -1) if back else slice(None) for back in plane.reversed)
    return values[rows, columns]


def _planes(sample: Sample) -> tuple[Plane, ...]:
    axes = sample.image.ndim - 1
    spacing = sample.spacing_mm or (1.0,) * axes
    if axes == 1:
        return ()
    if axes == 2:
        return (Plane("picture", None, (0, 1), spacing=(spacing[0], spacing[1])),)
    affine = sample.stated_affine
    if affine is None:
        rest = ((1, 2), (0, 2), (0, 1))
        return tuple(Plane(f"axis {axis}", axis, rest[axis], spacing=(spacing[rest[axis][0]], spacing[rest[axis][1]]))
                     for axis in range(3))  # fmt: skip
    dummy = np.zeros((1, 1, 1))  # how slices lie does not depend on the voxels
    found = []
    for name in reversed(PLANES):
        cut = oriented_slice(dummy, affine, name, 0)
        found.append(Plane(name, plane_axis(affine, name), cut.axes, cut.reversed, cut.spacing, tuple(cut.marks or ())))
    return tuple(found)


def _values_looked_at(image: Array) -> Array:
    """Return values of a few slices all over an image."""
    if image.ndim < 4:
        return np.asarray(image[(slice(None),) * image.ndim])
    # Slices along the last axis lie together in NIfTI files, along the first in others.
    strides = getattr(getattr(image, "stored", image), "strides", (4, 3, 2, 1))
    axis = 1 + max(range(3), key=lambda axis: abs(strides[1 + axis]))
    count = image.shape[axis]
    places = sorted({round((number + 0.5) / _LOOKED_AT * (count - 1)) for number in range(_LOOKED_AT)})
    parts = [image[(slice(None),) * axis + (slice(place, place + 1),)] for place in places]
    return np.concatenate([np.asarray(part).ravel()[:: max(1, part.size >> 18)] for part in parts])


def draw_pattern(dims: int) -> Sample:
    """Return a test pattern: ellipses within each other, and a fine grating, in 1, 2 or 3 dimensions."""
    from convoxel.data import Sample

    size = _PATTERN_SIZES[dims]
    places = np.meshgrid(*[np.linspace(-1, 1, size)] * dims, indexing="ij")
    image = np.zeros((size,) * dims)
    for centre, radius, value in ((0.0, 0.9, 120.0), (0.1, 0.75, -40.0), (-0.35, 0.22, 90.0), (0.4, 0.16, -60.0)):
        distance = sum(((p - centre) / (radius * (1 - 0.12 * axis))) ** 2 for axis, p in enumerate(places))
        image += value * (distance <= 1)
    image += np.where(np.abs(places[-1] - 0.1) < 0.12, 25 * np.sin(24 * np.pi * places[0]), 0)
    return Sample(f"test pattern, {dims}-D", image[None].astype(np.float32))


def image_word(session: Session, query: Query) -> str:
    """Return the word of the image of a page: a path that may be read, or a test pattern.

    Raises:
        ForbiddenPath: it is a path elsewhere.
        ConfigError: there is no such pattern.
    """
    word = query.text("image")
    if not word:
        word = next((each["path"] for each in _listed(session)), "pattern-2d")
    return word if word in _PATTERNS else str(session.path(word))


def open_image(session: Session, query: Query) -> OpenedImage:
    """Return the image of a page, read once."""
    word = image_word(session, query)

    def read() -> OpenedImage:
        if word in _PATTERNS:
            return OpenedImage.of(word, draw_pattern(_PATTERNS[word]))
        from convoxel.data.image_file import map_image

        def hear(done: int, total: int) -> None:
            session.progress[word] = done / max(total, 1)

        try:
            with listening(hear):
                return OpenedImage.of(word, map_image(word))
        finally:
            session.progress.pop(word, None)

    return session.keep(("image", word), read)


def find_place(name: str, text: str, size: tuple[int, ...], default: tuple[int, ...]) -> tuple[int, ...]:
    """Return a position in a grid of ``size`` from numbers separated by commas.

    Raises:
        ConfigError: it lies outside, or has another number of axes.
    """
    if not text:
        return default
    words = text.split(",")
    found = tuple(int(word) if word.strip().isdecimal() and len(word) < 9 else -1 for word in words)
    if len(found) != len(size) or any(not 0 <= place < side for place, side in zip(found, size, strict=True)):
        last = ",".join(str(side - 1) for side in size)
        raise ConfigError(f"{name}: got {text[:40]!r}; expected a position from {','.join('0' * len(size))} to {last}.")
    return found


# ---- answers --------------------------------------------------------------------------------------------------


def images(session: Session, query: Query) -> JsonObject:
    """Return the images in the files and folders of the start, and the test patterns."""
    patterns = [{"path": word, "name": f"test pattern, {dims}-D"} for word, dims in _PATTERNS.items()]
    return {"images": list(_listed(session)), "patterns": patterns}


def _listed(session: Session) -> Iterator[dict[str, str]]:
    """Yield the images of the start; ``name`` begins with the folder that holds it."""
    from convoxel.data.image_format import find_format
    from convoxel.lookup import is_run

    looked_at = found = 0
    for root in session.roots:
        waiting = [root]
        while waiting and found < _MOST_IMAGES:
            path = waiting.pop(0)
            looked_at += 1
            if looked_at > _MOST_LOOKED_AT:
                return
            if find_format(path) is not None:
                found += 1
                yield {"path": str(path), "name": str(path.relative_to(root.parent))}
            elif path.is_dir() and not is_run(path) and len(path.relative_to(root).parts) < 3:
                waiting += [Path(each["path"]) for each in session.entries(str(path))]


def describe(session: Session, query: Query) -> JsonObject:
    """Return sizes, planes and grey values of an image, which is read, or decoded, first."""
    found = open_image(session, query)
    sample = found.sample
    planes = [{"name": plane.name, "across": plane.across, "axes": plane.axes, "reversed": plane.reversed,
               "spacing": plane.spacing, "marks": plane.marks} for plane in found.planes]  # fmt: skip
    unit = "" if sample.spacing_mm is None else f" of {' × '.join(f'{mm:.3g}' for mm in sample.spacing_mm)} mm"
    channels = f"{found.channels} × " if found.channels > 1 else ""
    return {
        "image": found.word, "name": sample.name, "size": found.size, "channels": found.channels, "planes": planes,
        "window": found.window, "ends": found.ends, "coloured": found.coloured,
        "text": f"{sample.name}: {channels}{' × '.join(map(str, found.size))} voxels{unit}, "
                f"values {found.ends[0]:.4g} to {found.ends[1]:.4g}",
    }  # fmt: skip


def progress(session: Session, query: Query) -> JsonObject:
    """Return the share of an image that is decoded; None where nothing is being decoded."""
    share = session.progress.get(image_word(session, query))
    return {"share": share, "text": "" if share is None else f"Decoding: {share:.0%}"}


def shade(session: Session, query: Query) -> Picture:
    """Return a slice as a picture in shades between ``low`` and ``high``."""
    found = open_image(session, query)
    plane = found.plane(query.text("plane", found.planes[0].name if found.planes else ""))
    index = 0 if plane.across is None else query.number("index", 0, 0, found.size[plane.across] - 1)
    values = found.cut(plane, index, query.number("channel", 0, 0, found.channels - 1))
    return png(shaded(values, *find_window(query, found.window)))


def find_window(query: Query, usual: tuple[float, float]) -> tuple[float, float]:
    """Return the values of black and white that a page asks for."""
    ends = []
    for name, default in zip(("low", "high"), usual, strict=True):
        text = query.text(name, repr(default))
        try:
            ends.append(float(text))
        except ValueError:
            ends.append(float("nan"))
        if not abs(ends[-1]) < 1e30:
            raise ConfigError(f"{name}: got {text[:40]!r}; expected a number.")
    return (ends[0], ends[1]) if ends[1] > ends[0] else (ends[0], ends[0] + 1e-6 * max(1.0, abs(ends[0])))


def shaded(values: Array, low: float, high: float) -> Array:
    """Return values as bytes: 0 at ``low`` and below, 255 at ``high`` and above."""
    scaled = (values.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    shades: Array = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return shades


def png(pixels: Array) -> Picture:
    """Return (rows, columns), (rows, columns, 2) of shade and cover, 3 or 4 of colours, as a picture."""
    modes = {2: "LA", 3: "RGB", 4: "RGBA"}
    mode = "L" if pixels.ndim == 2 else modes[pixels.shape[2]]
    buffer = io.BytesIO()
    content = np.ascontiguousarray(pixels)
    Image.frombytes(mode, (pixels.shape[1], pixels.shape[0]), content.tobytes()).save(buffer, "PNG", compress_level=1)
    return Picture(buffer.getvalue())


def curve(session: Session, query: Query) -> JsonObject:
    """Return a signal as least and largest value of each of some hundred stretches."""
    found = open_image(session, query)
    if len(found.size) != 1:
        raise ConfigError(f"image: {found.sample.name} has {len(found.size)} axes; a curve is drawn of one.")
    channel = query.number("channel", 0, 0, found.channels - 1)
    values = np.asarray(found.sample.image[channel : channel + 1, :])[0]
    return {"size": values.size, **stretches(values)}


def stretches(values: Array, bins: int = _BINS) -> JsonObject:
    """Return for each of at most ``bins`` stretches of a curve where it begins, its least and its largest value."""
    edges = np.unique(np.linspace(0, values.size, min(bins, values.size) + 1).astype(int))
    return {
        "starts": edges[:-1].tolist(),
        "least": np.minimum.reduceat(values, edges[:-1]).astype(float).tolist(),
        "largest": np.maximum.reduceat(values, edges[:-1]).astype(float).tolist(),
    }


VIEW = View(
    "image", "", "", {"list": images, "describe": describe, "progress": progress, "slice": shade, "curve": curve}
)
