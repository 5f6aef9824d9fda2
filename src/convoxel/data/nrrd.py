"""NRRD volumes (.nrrd, or .nhdr with its voxels beside it): the header is checked field by field.

Array axis i is the file's i-th axis of space; an axis of another kind (vector, list, RGB) holds channels. Values stay
as stored: NRRD has no scaling. Lists of data files, text, hexadecimal and bzip2 encodings and complex values are
refused. Only .nrrd is written: one file can appear whole or not at all, two cannot.
"""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoxel.data.image_header import Affine, Header, Spacing
from convoxel.data.voxel_layout import (
    LPS_TO_RAS,
    VoxelLayout,
    parse_numbers,
    parse_sizes,
    patient_affine,
    read_header_text,
    split_sizes,
    steps_to_patient,
)
from convoxel.files.fault import brief, fault
from convoxel.files.stream import GZIP_WRAPPER
from convoxel.files.values import Array

_NAMES = {"i1": "signed char|int8|int8_t", "u1": "uchar|unsigned char|uint8|uint8_t",
          "i2": "short|short int|signed short|signed short int|int16|int16_t",
          "u2": "ushort|unsigned short|unsigned short int|uint16|uint16_t",
          "i4": "int|signed int|int32|int32_t", "u4": "uint|unsigned int|uint32|uint32_t",
          "i8": "longlong|long long|long long int|signed long long|signed long long int|int64|int64_t",
          "u8": "ulonglong|unsigned long long|unsigned long long int|uint64|uint64_t",
          "f4": "float", "f8": "double"}  # fmt: skip
_TYPES = {name: code for code, names in _NAMES.items() for name in names.split("|")}
_WORDS = {np.dtype(code): names.split("|")[-1] for code, names in _NAMES.items()}
_SYNONYMS = {"datafile": "data file", "lineskip": "line skip", "byteskip": "byte skip", "centers": "centerings"}
# A file's space → what turns its axes into right, anterior, superior; the spaces that are no patient's have none.
_SPACES = {
    "right-anterior-superior": np.eye(3), "ras": np.eye(3),
    "left-anterior-superior": np.diag([-1.0, 1, 1]), "las": np.diag([-1.0, 1, 1]),
    "left-posterior-superior": LPS_TO_RAS, "lps": LPS_TO_RAS,
}  # fmt: skip
_OTHER_SPACES = {"scanner-xyz", "3d-right-handed", "3d-left-handed"}
_TO_MM = {"mm": 1.0, "millimeter": 1.0, "millimeters": 1.0, "millimetre": 1.0, "": 1.0, "um": 1e-3, "µm": 1e-3,
          "micron": 1e-3, "microns": 1e-3, "cm": 10.0, "m": 1000.0}  # fmt: skip
_SPATIAL_KINDS = {"domain", "space"}
_COMPLEX_KINDS = {"complex"}
_COPY = "Write the file again with the program that made it"
_VECTOR = r"none|\([^()]*\)"
_KEPT = ("space", "space dimension", "space units", "measurement frame")


@dataclass(frozen=True)
class _Origin:
    """The fields of a header that say where the voxels are: one step an axis of space."""

    fields: tuple[tuple[str, str], ...]
    steps: tuple[str, ...]
    place: str


def read_layout(path: Path) -> VoxelLayout:
    """Return header and voxels' place of an NRRD file; DataError names the first line that cannot be true."""
    content = read_header_text(path)
    fields, end = _parse(path, content)
    axes = parse_sizes(path, "dimension", fields.get("dimension", ""), 1)[0]
    if axes > 5:
        raise fault(path, f"dimension is {axes}", "1 to 4", "Split the file into volumes")
    sizes = parse_sizes(path, "sizes", fields.get("sizes", ""), axes)
    steps = _parse_steps(path, fields, axes)
    channel_axis = _find_channels(path, fields, sizes, steps)
    shape, channels = split_sizes(path, sizes, channel_axis)
    affine, spacing, origin = _check_geometry(path, fields, steps, axes, channel_axis)
    header = Header(shape, channels, spacing and spacing[: len(shape)], affine, origin=origin)
    layout = VoxelLayout(
        header, _check_type(path, fields), sizes, channel_axis, *_check_data(path, fields, content, end)
    )
    layout.check(path)
    return layout


def _parse(path: Path, content: bytes) -> tuple[dict[str, str], int]:
    """Return the header's fields, and the byte after the empty line that ends it."""
    if not re.match(rb"NRRD000[1-5]\r?\n", content):
        raise fault(path, "this is not an NRRD file of a known version", "a first line NRRD0001 to NRRD0005", _COPY)
    fields: dict[str, str] = {}
    place = content.index(b"\n") + 1
    while place < len(content):
        stop = content.find(b"\n", place)
        line = content[place : stop if stop >= 0 else None].decode("utf-8", "replace").rstrip("\r")
        place = stop + 1 if stop >= 0 else len(content)
        if not line:
            return fields, place
        key, colon, value = line.partition(":")
        if line.startswith("#") or value.startswith("="):  # a comment; a key of the user's own
            continue
        if not colon:
            raise fault(path, f"a line of the header is {brief(line)}", "'field: value'", _COPY)
        key = key.strip().lower()
        key = _SYNONYMS.get(key, key)
        if fields.setdefault(key, value.strip()) != value.strip():
            raise fault(path, f"two different lines say {brief(key)}", "each field once", _COPY)
    if "data file" in fields:  # a header of its own may end without the empty line
        return fields, place
    raise fault(path, "the header has no end, or the file is truncated", "an empty line after the header", _COPY)


def _check_type(path: Path, fields: dict[str, str]) -> np.dtype[Any]:
    word = " ".join(fields.get("type", "").split()).lower()
    if word not in _TYPES:
        expected = "a whole or real number type (" + ", ".join(sorted(_WORDS.values())) + ")"
        raise fault(path, f"type is {brief(fields.get('type', ''))}", expected, "Convert the volume to float")
    order = fields.get("endian", "").lower()
    if not _TYPES[word].endswith("1") and order not in ("little", "big"):
        raise fault(path, f"endian is {brief(fields.get('endian', ''))}", "'little' or 'big'", _COPY)
    return np.dtype((">" if order == "big" else "<") + _TYPES[word])


def _check_data(
    path: Path, fields: dict[str, str], content: bytes, end: int
) -> tuple[int, int, int | None, str | None]:
    """Return (start, skipped, wrapper, location) of the voxels."""
    encoding = fields.get("encoding", "").lower()
    if encoding not in ("raw", "gzip", "gz"):
        mend = "Write the volume again with encoding gzip"
        raise fault(path, f"encoding is {brief(fields.get('encoding', ''))}", "'raw' or 'gzip'", mend)
    location = fields.get("data file")
    if location is not None and (location.split(" ")[0] in ("LIST", "") or "%" in location):
        came = f"data file is {brief(location)}, a list of slice files"
        raise fault(path, came, "one file", "Join the slices to one .nrrd")
    lines, skipped = (fields.get(key, "0") for key in ("line skip", "byte skip"))
    if lines != "0":
        raise fault(path, f"line skip is {brief(lines)}", "0", "Write the volume again without it")
    if skipped == "-1" and encoding == "raw":
        return -1, 0, None, location
    count = 0 if skipped == "0" else parse_sizes(path, "byte skip", skipped, 1)[0]
    return 0 if location is not None else end, count, None if encoding == "raw" else GZIP_WRAPPER, location


def _parse_steps(path: Path, fields: dict[str, str], axes: int) -> list[NDArray[np.float64] | None] | None:
    """Return the step of each axis (None for an axis that is none of space); None where the file has no steps."""
    if "space directions" not in fields:
        return None
    text = fields["space directions"]
    words = re.findall(_VECTOR, text)
    if len(words) != axes or re.sub(_VECTOR, "", text).strip():
        raise fault(path, f"space directions are {brief(text)}", f"{axes} vectors (or 'none')", _COPY)
    space = _space_size(path, fields)
    return [None if word == "none" else _vector(path, "space directions", word, space) for word in words]


def _vector(path: Path, name: str, word: str, size: int) -> NDArray[np.float64]:
    return np.array(parse_numbers(path, name, word.strip("() ").replace(",", " "), size))


def _space_size(path: Path, fields: dict[str, str]) -> int:
    if "space dimension" in fields:
        size = parse_sizes(path, "space dimension", fields["space dimension"], 1)[0]
        if size > 4:
            raise fault(path, f"space dimension is {size}", "1 to 4", "Split the file into volumes")
        return size
    name = fields.get("space", "").lower()
    known = name in _SPACES or name in _OTHER_SPACES
    timed = name.removesuffix("-time") if name.endswith("-time") else name[:-1] if len(name) == 4 else ""
    if not known and timed not in _SPACES and timed not in _OTHER_SPACES:
        expected = "one of " + ", ".join(n for n in (*_SPACES, *_OTHER_SPACES) if len(n) > 3)
        raise fault(path, f"space is {brief(fields.get('space', ''))}", expected, "Write the orientation again")
    return 3 if known else 4


def _find_channels(
    path: Path, fields: dict[str, str], sizes: tuple[int, ...], steps: list[NDArray[np.float64] | None] | None
) -> int | None:
    """Return the axis that holds channels: the one without a step in space, or else the fourth."""
    kinds = fields.get("kinds", "").lower().split() or ["???"] * len(sizes)
    if len(kinds) != len(sizes):
        raise fault(path, f"kinds are {brief(fields['kinds'])}", f"{len(sizes)} words", _COPY)
    if _COMPLEX_KINDS.intersection(kinds):
        raise fault(path, "the values are complex", "real numbers", "Write their magnitude")
    if steps is not None:
        others = [axis for axis, step in enumerate(steps) if step is None]
    else:
        others = [axis for axis, kind in enumerate(kinds) if kind not in (*_SPATIAL_KINDS, "none", "???")]
    if not others and len(sizes) == 4:
        others = [3]
    if len(others) > 1:
        came = f"{len(others)} axes that are none of space (kinds {' '.join(kinds)[:80]})"
        raise fault(path, came, "at most one, of channels", "Split the file into volumes")
    if len(others) == len(sizes):
        raise fault(path, "no axis of space", "one to three", _COPY)
    return others[0] if others else None


def _check_geometry(
    path: Path,
    fields: dict[str, str],
    steps: list[NDArray[np.float64] | None] | None,
    axes: int,
    channel_axis: int | None,
) -> tuple[Affine, Spacing, _Origin | None]:
    """Return affine in RAS+ mm (None where the space is no patient's), spacing of the axes of space, and origin."""
    spatial = [axis for axis in range(axes) if axis != channel_axis]
    if steps is None:
        return None, _check_spacings(path, fields, spatial, axes), None
    space = _space_size(path, fields)
    units = _space_units(path, fields, space)
    matrix = np.array([step for axis, step in enumerate(steps) if step is not None and axis in spatial]).T
    place = np.array(
        _vector(path, "space origin", fields["space origin"], space) if "space origin" in fields else np.zeros(space)
    )
    if space == 4:
        time = None if channel_axis is None else steps[channel_axis]
        if matrix[3].any() or (time is not None and time[:3].any()):
            raise fault(path, "the fourth dimension is not perpendicular to space", "channels or time there", _COPY)
        matrix, place = matrix[:3], place[:3]
    if space < len(spatial):
        raise fault(path, f"{len(spatial)} axes in a space of {space} dimensions", "no more axes than that", _COPY)
    name = fields.get("space", "").lower()
    name = name.removesuffix("-time") if space == 4 else name
    to_ras = _SPACES.get(name[:3] if space == 4 and len(name) == 4 else name)
    affine = patient_affine(path, units * matrix, units * place, np.eye(3) if to_ras is None else to_ras)
    spacing = tuple(float(v) for v in units * np.linalg.norm(matrix, axis=0))
    words = re.findall(_VECTOR, fields["space directions"])
    kept = tuple((key, fields[key]) for key in _KEPT if key in fields)
    origin = (
        _Origin(kept, tuple(words[axis] for axis in spatial), fields.get("space origin", "")) if space < 4 else None
    )
    return None if to_ras is None else affine, spacing, origin


def _space_units(path: Path, fields: dict[str, str], space: int) -> float:
    """Return mm per unit of the file's space."""
    words = re.findall(r'"([^"]*)"', fields.get("space units", ""))[: min(space, 3)]
    if len(set(words)) > 1 or any(word.strip().lower() not in _TO_MM for word in words):
        expected = "the same unit on all axes: " + ", ".join(word for word in _TO_MM if word)
        raise fault(path, f"space units are {brief(fields['space units'])}", expected, _COPY)
    return _TO_MM[words[0].strip().lower()] if words else 1.0


def _check_spacings(path: Path, fields: dict[str, str], spatial: list[int], axes: int) -> Spacing:
    if "spacings" not in fields:
        return None
    words = fields["spacings"].split()
    if len(words) != axes:
        raise fault(path, f"spacings are {brief(fields['spacings'])}", f"{axes} numbers", _COPY)
    values = parse_numbers(path, "spacings", " ".join(words[axis] for axis in spatial))
    if min(values) <= 0:
        raise fault(path, f"spacings are {brief(fields['spacings'])}", "numbers above 0", "Write the spacing again")
    return tuple(values)


def pack(path: Path, values: Array, header: Header, label: bool) -> bytes:
    """Return the bytes of a .nrrd file: labels compressed, images not (so that they can be mapped)."""
    if values.dtype.newbyteorder("=") not in _WORDS:
        values = values.astype(np.uint8 if values.dtype == bool else np.float32)
    values = values.astype(values.dtype.newbyteorder("<"), copy=False)
    fields, steps = _geometry_fields(header)
    axes = len(steps) or header.dims
    sizes = (*header.shape, *(1,) * (axes - header.dims))
    content = values.reshape(len(values), *sizes).T.tobytes()  # C order of the reversed axes: channels run fastest
    extra = len(values) > 1
    lines = {"type": _WORDS[values.dtype.newbyteorder("=")], "dimension": str(axes + extra),
             **{key: value for key, value in fields.items() if key in ("space", "space dimension")},
             "sizes": " ".join(map(str, [len(values)] * extra + list(sizes)))}  # fmt: skip
    if steps:
        lines["space directions"] = " ".join(["none"] * extra + list(steps))
    if "spacings" in fields:
        lines["spacings"] = "nan " * extra + fields["spacings"]
    lines |= {"kinds": " ".join(["vector"] * extra + ["domain"] * axes), "endian": "little",
              "encoding": "gzip" if label else "raw"}  # fmt: skip
    lines |= {key: value for key, value in fields.items() if key not in lines}
    text = "NRRD0005\n" + "".join(f"{key}: {value}\n" for key, value in lines.items()) + "\n"
    return text.encode() + (gzip.compress(content, 6, mtime=0) if label else content)


def _geometry_fields(header: Header) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the fields about geometry, and the steps: those of the image's own file, or new ones."""
    origin = header.origin
    if isinstance(origin, _Origin) and len(origin.steps) >= header.dims:
        place = {"space origin": origin.place} if origin.place else {}
        return {**dict(origin.fields), **place}, origin.steps
    if header.affine is None:
        known = {} if header.spacing_mm is None else {"spacings": " ".join(map(repr, header.spacing_mm))}
        return known, ()
    steps, first = steps_to_patient(header.affine)
    fields = {"space": "left-posterior-superior", "space origin": _write_vector(first)}
    return fields, tuple(_write_vector(column) for column in steps.T)


def _write_vector(values: NDArray[np.float64]) -> str:
    return "(" + ",".join(repr(float(value)) for value in values) + ")"
