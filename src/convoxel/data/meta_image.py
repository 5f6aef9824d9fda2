"""MetaImage volumes (.mha, or .mhd with its voxels beside it): the header is checked line by line.

Array axis i is file axis i. Values stay as stored: MetaImage has no scaling. Lists of slice files, values as text and
array types are refused. Only .mha is written: one file can appear whole or not at all, two cannot.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoxel.data.image_header import Header
from convoxel.data.voxel_layout import (
    VoxelLayout,
    parse_numbers,
    parse_sizes,
    patient_affine,
    read_header_text,
    split_sizes,
    steps_to_patient,
)
from convoxel.files.fault import brief, fault
from convoxel.files.stream import ZLIB_WRAPPER
from convoxel.files.values import Array

_TYPES = {"MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
          "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8",
          "MET_FLOAT": "f4", "MET_DOUBLE": "f8"}  # fmt: skip
_WORDS = {np.dtype(code): word for word, code in reversed(_TYPES.items())}  # MET_INT rather than MET_LONG
_SYNONYMS = {"Position": "Offset", "Origin": "Offset", "Orientation": "TransformMatrix", "Rotation": "TransformMatrix",
             "ElementByteOrderMSB": "BinaryDataByteOrderMSB"}  # fmt: skip
_GEOMETRY = ("TransformMatrix", "Offset", "CenterOfRotation", "AnatomicalOrientation", "ElementSpacing")
_COPY = "Write the file again with the program that made it"
_LENGTH_TOLERANCE = 1e-3  # of a direction, which should be 1 long


@dataclass(frozen=True)
class _Origin:
    """The lines of a header that say where the voxels are, and their number of axes."""

    axes: int
    lines: tuple[tuple[str, str], ...]


def read_layout(path: Path) -> VoxelLayout:
    """Return header and voxels' place of a MetaImage; DataError names the first line that cannot be true."""
    fields, end = _parse(path, read_header_text(path))
    axes = parse_sizes(path, "NDims", fields.get("NDims", ""), 1)[0]
    if not 1 <= axes <= 4:
        raise fault(path, f"NDims is {axes}", "1 to 4", "Split the file into volumes")
    sizes = parse_sizes(path, "DimSize", fields.get("DimSize", ""), axes)
    dtype = _check_type(path, fields)
    inner = parse_sizes(path, "ElementNumberOfChannels", fields.get("ElementNumberOfChannels", "1"), 1)[0]
    channel_axis = None
    if inner > 1:
        sizes, channel_axis = (inner, *sizes), 0
    elif axes == 4:  # as in NIfTI, the fourth axis holds channels
        channel_axis = 3
    shape, channels = split_sizes(path, sizes, channel_axis)
    affine, spacing = _check_geometry(path, fields, axes)
    origin = _Origin(axes, tuple((key, fields[key]) for key in _GEOMETRY if key in fields))
    header = Header(shape, channels, spacing[: len(shape)], affine, origin=origin if axes < 4 else None)
    packed = _flag(path, fields, "CompressedData")
    location = fields["ElementDataFile"]
    start = _header_size(path, fields) or (end if location == "LOCAL" else 0)
    if packed and start < 0:
        raise fault(path, "HeaderSize is -1 with compressed data", "0 or more", _COPY)
    wrapper = ZLIB_WRAPPER if packed else None
    beside = None if location == "LOCAL" else location
    layout = VoxelLayout(header, dtype, sizes, channel_axis, start, 0, wrapper, beside)
    layout.check(path)
    return layout


def _parse(path: Path, content: bytes) -> tuple[dict[str, str], int]:
    """Return the header's fields, and the byte after it: the line ElementDataFile is its last."""
    fields: dict[str, str] = {}
    place = 0
    while (stop := content.find(b"\n", place)) >= 0:
        line = content[place:stop].decode("latin-1")
        place = stop + 1
        key, equals, value = line.partition("=")
        key, value = key.strip(), value.strip()
        if not equals or not key.isascii() or not key.isprintable():
            if line.strip():
                break
            continue
        key = _SYNONYMS.get(key, key)
        if fields.setdefault(key, value) != value:
            raise fault(path, f"two different lines say {brief(key)}", "each line once", _COPY)
        if key == "ElementDataFile":
            _check_kind(path, fields)
            return fields, place
    came = "this is not a MetaImage header, or a truncated one: no line ElementDataFile"
    raise fault(path, came, "lines 'Key = value', the last one ElementDataFile", _COPY)


def _check_kind(path: Path, fields: dict[str, str]) -> None:
    kind = fields.get("ObjectType", "Image")
    if kind != "Image":
        raise fault(path, f"ObjectType is {brief(kind)}", "'Image'", "Give the image, not another object")
    if not _flag(path, fields, "BinaryData", missing=True):
        raise fault(path, "the values are written as text (BinaryData = False)", "binary values", _COPY)
    location = fields["ElementDataFile"]
    if location.split(" ")[0] in ("LIST", "") or "%" in location:
        came = f"ElementDataFile is {brief(location)}, a list of slice files"
        raise fault(path, came, "LOCAL, or one file", "Join the slices to one .mha")
    for key in ("ElementToIntensityFunctionSlope", "ElementToIntensityFunctionOffset"):
        if key in fields:
            mend = "Apply the scaling and write the volume again without it"
            raise fault(path, f"the values are scaled by {key}", "values as they are", mend)


def _flag(path: Path, fields: dict[str, str], key: str, *, missing: bool = False) -> bool:
    value = fields.get(key, str(missing)).lower()
    if value not in ("true", "false", "1", "0", "t", "f"):
        raise fault(path, f"{key} is {brief(fields[key])}", "True or False", _COPY)
    return value[0] in "t1"


def _check_type(path: Path, fields: dict[str, str]) -> np.dtype[Any]:
    word = fields.get("ElementType", "")
    if word not in _TYPES:
        came = f"ElementType is {brief(word)}"
        raise fault(path, came, "one of " + ", ".join(_TYPES), "Convert the volume to MET_FLOAT")
    big = _flag(path, fields, "BinaryDataByteOrderMSB")
    return np.dtype((">" if big else "<") + _TYPES[word])


def _header_size(path: Path, fields: dict[str, str]) -> int:
    text = fields.get("HeaderSize", "0")
    return -1 if text == "-1" else parse_sizes(path, "HeaderSize", text, 1)[0] if text != "0" else 0


def _check_geometry(path: Path, fields: dict[str, str], axes: int) -> tuple[NDArray[np.float64], tuple[float, ...]]:
    """Return the affine in RAS+ mm and the spacing of the axes of space."""
    space = min(axes, 3)
    spacing_text = fields.get("ElementSpacing") or fields.get("ElementSize") or " ".join(["1"] * axes)
    spacing = parse_numbers(path, "ElementSpacing", spacing_text, axes)[:space]
    if min(spacing) <= 0:
        raise fault(path, f"ElementSpacing is {brief(spacing_text)}", "numbers above 0", "Write the spacing again")
    offset = parse_numbers(path, "Offset", fields.get("Offset", " ".join(["0"] * axes)), axes)[:space]
    identity = " ".join(str(int(value)) for value in np.eye(axes).flat)
    matrix = parse_numbers(path, "TransformMatrix", fields.get("TransformMatrix", identity), axes * axes)
    directions = np.array(matrix).reshape(axes, axes).T  # a row of the file is the direction of an axis
    if axes > space and (directions[space:, :space].any() or directions[:space, space:].any()):
        raise fault(path, "the fourth axis is not perpendicular to space", "channels or time there", _COPY)
    directions = directions[:space, :space]
    lengths = np.linalg.norm(directions, axis=0)
    if (np.abs(lengths - 1) > _LENGTH_TOLERANCE).any():
        came = f"the directions of TransformMatrix are {brief([round(float(v), 6) for v in lengths])} long"
        raise fault(path, came, "directions of length 1", "Write the orientation again")
    return patient_affine(path, directions * np.array(spacing), offset), tuple(spacing)


def pack(path: Path, values: Array, header: Header, label: bool) -> bytes:
    """Return the bytes of a .mha file: labels compressed, images not (so that they can be mapped)."""
    if values.dtype.newbyteorder("<") not in _WORDS:
        values = values.astype(np.uint8 if values.dtype == bool else np.float32)
    values = values.astype(values.dtype.newbyteorder("<"), copy=False)
    axes, lines = _geometry_lines(header)
    sizes = (*header.shape, *(1,) * (axes - header.dims))
    content = values.reshape(len(values), *sizes).T.tobytes()  # C order of the reversed axes: channels run fastest
    block = zlib.compress(content, 6) if label else content
    fields = {"ObjectType": "Image", "NDims": str(axes), "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
              "CompressedData": str(label), **({"CompressedDataSize": str(len(block))} if label else {}), **lines,
              "DimSize": " ".join(map(str, sizes)), "ElementType": _WORDS[values.dtype]}  # fmt: skip
    if len(values) > 1:
        fields["ElementNumberOfChannels"] = str(len(values))
    fields["ElementDataFile"] = "LOCAL"
    return "".join(f"{key} = {value}\n" for key, value in fields.items()).encode("latin-1") + block


def _geometry_lines(header: Header) -> tuple[int, dict[str, str]]:
    """Return the number of axes, and the lines about geometry: those of the image's own file, or new ones."""
    if isinstance(header.origin, _Origin) and header.origin.axes >= header.dims:
        return header.origin.axes, dict(header.origin.lines)
    axes = 3 if header.affine is not None else max(header.dims, 2)
    spacing = np.array([*(header.spacing_mm or ()), 1.0, 1.0, 1.0][:axes])
    directions, place = np.eye(axes), np.zeros(axes)
    if header.affine is not None:
        steps, place = steps_to_patient(header.affine)
        lengths = np.linalg.norm(steps, axis=0)
        directions, spacing = steps / lengths, np.where(np.isclose(lengths, spacing, rtol=1e-6), spacing, lengths)
    rows = {"TransformMatrix": directions.T.ravel(), "Offset": place, "ElementSpacing": spacing}
    return axes, {key: " ".join(repr(float(v)) for v in row) for key, row in rows.items()}
