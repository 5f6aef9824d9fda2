"""OME-Zarr images (0.4 and 0.5) and plain Zarr arrays as images; a folder is one image.

``scan.ome.zarr`` is the image at full resolution, ``scan.ome.zarr/1`` its second level, ``scan.ome.zarr/labels/nuclei``
a label; a level of a label is named in the same way. OME's axes say what is a channel, its scale and units the size of
a voxel, and its translation where the first one lies; how a patient lies it does not say, so the affine is a guess. The
axes of a plain array mean what those of a NumPy file do. Values come as stored. An image with several time points is
refused, and so are several images in one folder (name one of them).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoxel.data.image_header import Affine, Header, Spacing
from convoxel.data.length_unit import unit_in_mm
from convoxel.data.mapped_image import MappedImage
from convoxel.data.numpy_image import array_header
from convoxel.data.voxel_layout import patient_affine
from convoxel.data.zarr_array import ZarrArray, is_array, is_zarr, open_array, read_attributes
from convoxel.files.fault import brief, fault, shown
from convoxel.files.values import Array

_VERSIONS = ("0.4", "0.5")
_AGAIN = "Write it again with an OME-Zarr library"
_MOST_NUMBER = 1e15
Floats = NDArray[np.float64]


def read_header(path: Path) -> Header:
    """Return the checked header of the image in a Zarr folder; no chunk is read, but chunks that lack are noted."""
    image = _open(path)
    return replace(image.header, note=image.array.note)


def read_values(path: Path, label: bool) -> tuple[Header, Array]:
    """Return header and values (channels, *shape): float32, or as stored for a label."""
    image = _open(path)
    stored = _View(image).read()
    with np.errstate(all="ignore"):
        return image.header, np.ascontiguousarray(stored, stored.dtype if label else np.float32)


def map_values(path: Path) -> tuple[Header, MappedImage]:
    """Return header and values that stay in their chunks, which are read when a part is asked for."""
    image = _open(path)
    view: Any = _View(image)
    return image.header, MappedImage(view)


def list_parts(path: Path) -> list[Path]:
    """Return the files of which a Zarr folder consists."""
    return sorted(part for part in path.rglob("*") if part.is_file())


@dataclass(frozen=True)
class _Image:
    """An array with the axes of an image: ``axes`` are those of the array that hold (channels, *shape), and -1 none."""

    array: ZarrArray
    header: Header
    axes: tuple[int, ...]


@dataclass(frozen=True)
class _View:
    """The values (channels, *shape) of an image in chunks; a slice reads the chunks that it needs."""

    image: _Image
    form: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.form or (self.image.header.channels, *self.image.header.shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.image.array.dtype

    def reshape(self, *form: int) -> _View:
        """Return the view with other axes of size 1, or the first axis of an array as channels."""
        if [size for size in form if size > 1] != [size for size in self.shape if size > 1]:
            raise ValueError(f"an image of shape {self.shape} cannot be viewed as {form}")
        return replace(self, form=form)

    def read(self) -> Array:
        return self[:,]

    def __getitem__(self, place: tuple[slice, ...]) -> Array:
        spans = [
            range(size)[span] for span, size in zip((*place, *(slice(None),) * self.ndim), self.shape, strict=False)
        ]
        wide = iter([span for span, size in zip(spans, self.shape, strict=True) if size > 1])
        region = [slice(0, 1)] * self.image.array.ndim
        kept = [axis for axis in self.image.axes if axis >= 0 and self.image.array.shape[axis] > 1]
        for axis in kept:
            span = next(wide)
            region[axis] = slice(span.start, span.stop)
        values = self.image.array.read(tuple(region))
        rest = [axis for axis in range(values.ndim) if axis not in kept]
        return np.transpose(values, (*kept, *rest)).reshape([len(span) for span in spans])


def _open(path: Path) -> _Image:
    if is_array(path):
        found = _find_level(path)
        return _plain(path) if found is None else _ome(*found)
    fields = read_attributes(path)
    if _multiscales(fields) is not None:
        return _ome(path, fields, None)
    if "bioformats2raw.layout" in fields:  # images in numbered folders
        series = sorted(p for p in path.iterdir() if p.name.isdecimal() and is_zarr(p))
        if len(series) == 1:
            return _open(series[0])
        raise fault(path, f"{len(series)} images in one folder", "one", f"Name one of them, such as {path.name}/0")
    arrays = sorted(p.name for p in path.iterdir() if p.is_dir() and is_zarr(p))
    came = f"a Zarr group that is no OME image ({', '.join(map(shown, arrays[:6])) or 'without arrays'})"
    raise fault(path, came, "an OME-Zarr image, or an array", "Name an array in it, as FOLDER.zarr/NAME")


def _plain(path: Path) -> _Image:
    array = open_array(path)
    return _Image(array, array_header(array.shape, array.dtype), (-1, *range(array.ndim)))


# ---- OME ---------------------------------------------------------------------------------------------------


def _multiscales(fields: dict[str, Any]) -> dict[str, Any] | None:
    """Return the first description of an image in the attributes of a group, where 0.5 puts them under "ome"."""
    inner = fields.get("ome")
    found = (inner if isinstance(inner, dict) else fields).get("multiscales")
    return found[0] if isinstance(found, list) and found and isinstance(found[0], dict) else None


def _find_level(path: Path) -> tuple[Path, dict[str, Any], str] | None:
    """Return the OME image to which an array belongs as a level: (its folder, attributes, the level's path)."""
    for parent in list(path.parents)[:3]:
        if not is_zarr(parent):
            continue
        fields = read_attributes(parent)
        image = _multiscales(fields)
        inside = path.relative_to(parent).as_posix()
        if image is not None and inside in [level.get("path") for level in _levels(parent, image)]:
            return parent, fields, inside
    return None


def _levels(path: Path, image: dict[str, Any]) -> list[dict[str, Any]]:
    levels = image.get("datasets")
    if not isinstance(levels, list) or not levels or not all(isinstance(level, dict) for level in levels):
        raise fault(path, f"datasets is {brief(levels)}", "a list of resolution levels", _AGAIN)
    return levels


def _ome(path: Path, fields: dict[str, Any], chosen: str | None) -> _Image:
    image = _multiscales(fields)
    assert image is not None
    inner = fields.get("ome")
    version = (inner if isinstance(inner, dict) else image).get("version", "0.4")
    if not isinstance(version, str) or not version.startswith(_VERSIONS):
        raise fault(path, f"OME-Zarr of version {brief(version)}", " or ".join(_VERSIONS), _AGAIN)
    levels = _levels(path, image)
    level = next((each for each in levels if each.get("path") == chosen), levels[0])
    place = level.get("path")
    if not isinstance(place, str) or PurePosixPath(place).is_absolute() or ".." in PurePosixPath(place).parts:
        raise fault(path, f"a level at {brief(place)}", "a path within the folder", _AGAIN)
    array = open_array(_within(path, place))
    axes = image.get("axes")
    if not isinstance(axes, list) or len(axes) != array.ndim or not all(isinstance(axis, dict) for axis in axes):
        raise fault(path, f"axes are {brief(axes)}", f"a name and a type for each of {array.ndim}", _AGAIN)
    return _arrange(path, array, axes, *_read_place(path, [*_changes(path, level), *_changes(path, image)], array.ndim))


def _within(path: Path, place: str) -> Path:
    found = path / place
    if not found.resolve().is_relative_to(path.resolve()):
        raise fault(found, "a link that leads out of the folder", "a level within it", "Copy the level into the folder")
    return found


def _changes(path: Path, source: dict[str, Any]) -> list[dict[str, Any]]:
    found = source.get("coordinateTransformations", [])
    if not isinstance(found, list) or not all(isinstance(change, dict) for change in found):
        raise fault(path, f"coordinateTransformations is {brief(found)}", "a list of scales and translations", _AGAIN)
    return found


def _read_place(path: Path, changes: list[dict[str, Any]], count: int) -> tuple[Floats, Floats]:
    """Return the step along each axis, and the place of the first voxel, after all changes in their order."""
    scale, place = np.ones(count), np.zeros(count)
    for change in changes:
        kind = change.get("type")
        if kind == "scale":
            factor = _numbers(path, "scale", change.get("scale"), count)
            scale, place = scale * factor, place * factor
        elif kind == "translation":
            place = place + _numbers(path, "translation", change.get("translation"), count)
        elif kind != "identity":
            expected = "scale, translation or identity"
            raise fault(path, f"a coordinate transformation of type {brief(kind)}", expected, _AGAIN)
    return scale, place


def _numbers(path: Path, name: str, value: object, count: int) -> Floats:
    known = isinstance(value, list) and len(value) == count
    numbers = value if isinstance(value, list) and known else [math.nan]
    most = all(isinstance(v, (int, float)) and abs(v) < _MOST_NUMBER for v in numbers)
    if not most or (name == "scale" and min(numbers) <= 0):
        expected = f"{count} numbers above 0" if name == "scale" else f"{count} finite numbers"
        raise fault(path, f"{name} is {brief(value)}", expected, _AGAIN)
    return np.array(numbers, np.float64)


def _arrange(path: Path, array: ZarrArray, axes: list[dict[str, Any]], scale: Floats, place: Floats) -> _Image:
    """Return the image whose axes OME names: of type space, channel or time, the last of size 1."""
    kinds = [axis.get("type") for axis in axes]
    space = [i for i, kind in enumerate(kinds) if kind == "space"]
    channel = [i for i, kind in enumerate(kinds) if kind == "channel"]
    for i, kind in enumerate(kinds):
        if kind not in ("space", "channel") and array.shape[i] > 1:
            name = shown(brief(axes[i].get("name")))
            mend = "Write one image a time point"
            raise fault(path, f"{array.shape[i]} points along the axis {name} of type {brief(kind)}", "one", mend)
    if not 1 <= len(space) <= 3 or len(channel) > 1:
        came = f"axes of the types {brief(kinds)}"
        raise fault(path, came, "one to three of space and at most one of channels", _AGAIN)
    units = [axes[i].get("unit") for i in space]
    sizes = [unit_in_mm(unit) if isinstance(unit, str) else None for unit in units]
    flat = len(space) == 3 and array.shape[space[0]] == 1  # one slice
    spacing: Spacing = None
    affine: Affine = None
    known = [size for size in sizes if size is not None]
    if len(known) == len(space):
        spacing = tuple(float(size * scale[i]) for size, i in zip(known, space, strict=True))[flat:]
        world = _world_axes([axes[i].get("name") for i in space])
        steps, origin = np.zeros((3, len(space))), np.zeros(3)
        for column, (size, i, to) in enumerate(zip(known, space, world, strict=True)):
            steps[to, column], origin[to] = size * scale[i], size * place[i]
        affine = patient_affine(path, steps[:, flat:], origin, np.eye(3))
    space = space[flat:]
    channels = array.shape[channel[0]] if channel else 1
    header = Header(tuple(array.shape[i] for i in space), channels, spacing, affine, oriented=False)
    return _Image(array, header, (channel[0] if channel else -1, *space))


def _world_axes(names: list[object]) -> list[int]:
    """Return which of x, y and z each axis is: by its name, or the last one x where the names are others."""
    low = [name.lower() if isinstance(name, str) else "" for name in names]
    if len(set(low)) == len(low) and set(low) <= set("xyz"):
        return ["xyz".index(name) for name in low]
    return list(reversed(range(len(names))))
