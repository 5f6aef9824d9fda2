"""NIfTI volumes (.nii, .nii.gz): the header is checked field by field before any voxel is asked for.

nibabel knows the layout of the header and computes the affine; NumPy reads the voxels with the checked type, shape and
offset. Nothing is resampled or reoriented: array axis i is file axis i.
Header/image pairs (.hdr + .img), complex and RGB volumes are refused.

A header may hold two affines. The sform is taken where its code is above 0, else the qform where its code is, else
voxel sizes alone, with the x axis reversed and the origin in the middle; the last is no orientation, only a guess, and
``Header.oriented`` is then False. nibabel takes the same. A file written on the grid of another keeps both affines with
their codes and units.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoxel.data.image_header import Affine, Header, Spacing
from convoxel.data.mapped_image import MappedImage
from convoxel.errors import UnsupportedError
from convoxel.files.fault import fault
from convoxel.files.file_array import FileArray, inflate_array
from convoxel.files.gzip_stream import gzip_pieces
from convoxel.files.memory import check_memory
from convoxel.files.stream import check_inflation, file_size, inflate, read_bytes
from convoxel.files.values import Array

_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_REFUSED = {0: "unknown", 1: "1-bit", 32: "complex", 1792: "complex", 2048: "complex", 128: "RGB", 2304: "RGBA"}
_TO_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # xyzt_units & 7: unknown, metre, millimetre, micrometre
# What a file on the same grid takes over: geometry and free text, neither timing nor display range nor extensions.
_KEPT = ("dim_info", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y",
         "qoffset_z", "srow_x", "srow_y", "srow_z", "descrip")  # fmt: skip
_LABEL_INTENT = 1002  # "the value at each voxel is an index into some set of labels"
_SHEAR = 1e-4  # of the axes' scalar products: a qform holds rotations alone, in 32 bits
_MOST_NIFTI1 = 32767
_PART = 2**20  # voxels that are scaled at a time
_PIECE = 4 * 2**20  # bytes that are written at a time
_COPY = "Copy the file again from its source, or rewrite it with the program that made it"


def _nibabel() -> ModuleType:
    try:
        import nibabel
    except ImportError as error:
        raise UnsupportedError("NIfTI files need nibabel: pip install 'convoxel[train]'.") from error
    return nibabel


@dataclass(frozen=True, eq=False)
class Origin:
    """Header of a NIfTI file as stored, with its sizes and affine, for files that are written on its grid."""

    raw: bytes
    stored: tuple[int, ...]
    affine: NDArray[np.float64]

    def fits(self, header: Header) -> bool:
        """Return True where the file's grid is the one that ``header`` names."""
        same = [v for v in self.stored[:3] if v > 1] == [v for v in header.shape if v > 1]
        return same and header.affine is not None and np.array_equal(self.affine, header.affine)


@dataclass(frozen=True)
class _Layout:
    """Place and type of the voxels, checked."""

    header: Header
    dtype: np.dtype[Any]
    stored: tuple[int, ...]  # axes as in the file, first one fastest
    offset: int
    slope: float
    intercept: float

    @property
    def end(self) -> int:
        return self.offset + math.prod(self.stored) * self.dtype.itemsize

    def arranged(self, stored: Array) -> Array:
        """Return voxels in file order (x, y, z, t, c), t or c of size 1, as a view (channels, x, y, z)."""
        return np.moveaxis(stored.reshape((*self.header.shape, self.header.channels), order="F"), -1, 0)


def _is_packed(path: Path) -> bool:
    """Return True if the content is gzip, whatever the name says (renamed files are common)."""
    return read_bytes(path, 2) == b"\x1f\x8b"


def read_header(path: Path) -> Header:
    """Return the checked header of a NIfTI file; DataError names the first field that cannot be true."""
    return _read_layout(path).header


def read_voxels(path: Path, *, scaled: bool = True) -> tuple[Header, Array]:
    """Return header and voxels (channels, *shape), C-contiguous.

    Args:
        path: .nii or .nii.gz file.
        scaled: apply the header's slope and intercept and convert to float32 (default True). False, for labels, keeps
            the stored type where the header does not scale.

    Raises:
        DataError: the file is missing, damaged, or of a kind that is refused.
    """
    layout = _read_layout(path)
    check_memory(path, layout.end + 4 * math.prod(layout.stored))
    content = inflate(path, layout.end, whole=True) if _is_packed(path) else read_bytes(path, layout.end)
    voxels = layout.arranged(np.frombuffer(content, layout.dtype, math.prod(layout.stored), layout.offset))
    shape = layout.header.shape
    with np.errstate(all="ignore"):  # what overflows becomes infinite, which the check of the values reports
        if (layout.slope, layout.intercept) == (1.0, 0.0):
            return layout.header, np.array(voxels, dtype=np.float32 if scaled else None, order="C")
        if not scaled:
            return layout.header, np.array(voxels * layout.slope + layout.intercept, order="C")
        # Scaling computes in double precision: in parts of a few MiB, along the axis that is slowest in the file.
        values = np.empty(voxels.shape, np.float32)
        step = max(_PART * shape[-1] // voxels.size, 16)  # 16 floats: whole cache lines of the result
        for begin in range(0, shape[-1], step):
            values[..., begin : begin + step] = voxels[..., begin : begin + step] * layout.slope + layout.intercept
        return layout.header, values


def read_values(path: Path, label: bool) -> tuple[Header, Array]:
    """Return header and values (channels, *shape): scaled, float32 for images.

    Class numbers that were stored with a slope and intercept are those that were stored: see ``_restore``.
    """
    header, values = read_voxels(path, scaled=not label)
    return header, _restore(_read_layout(path), values) if label else values


def _restore(layout: _Layout, values: Array) -> Array:
    """Return the whole numbers that ``values`` (stored · slope + intercept) can only have been.

    Programs that keep a label's type while they write floats (nibabel does) spread the floats over all numbers of that
    type: of the classes 0 … 7 in uint8, 1 is stored as 36 and comes back as 36 · 7/255 = 0.988. A whole number lies
    within half a slope of what is stored for it, and slopes below ½ leave every whole number a value of its own.
    """
    if values.dtype.kind != "f" or layout.dtype.kind == "f" or not abs(layout.slope) < 0.5:
        return values
    limits = np.iinfo(layout.dtype)
    ends = sorted((limits.min * layout.slope + layout.intercept, limits.max * layout.slope + layout.intercept))
    # Such programs use the whole range of the type; a slope that a scanner wrote says nothing about rounding.
    filled = any(np.isclose(found, end, rtol=0, atol=abs(layout.slope) / 2)
                 for found, end in zip((values.min(), values.max()), ends, strict=True))  # fmt: skip
    whole = np.rint(values)
    near = np.abs(values - whole).max() <= abs(layout.slope) * (0.5 + 1e-3)
    return whole if filled and near else values


def map_voxels(path: Path) -> tuple[Header, MappedImage]:
    """Return header and voxels as ``read_voxels`` does, but left as stored: in the file, or as they are inflated."""
    layout = _read_layout(path)
    count = math.prod(layout.stored)
    stored = (
        inflate_array(path, layout.offset, count, layout.dtype)
        if _is_packed(path)
        else FileArray.open(path, layout.dtype, layout.offset, count)
    )
    return layout.header, MappedImage(stored, layout.slope, layout.intercept).view(layout.arranged)


def _read_layout(path: Path) -> _Layout:
    size = file_size(path)
    packed = _is_packed(path)
    raw = bytes(inflate(path, 540, whole=False)) if packed else read_bytes(path, 540)
    fields, version = _unpack(path, raw)
    dtype = _check_type(path, fields).newbyteorder(fields["dim"].dtype.byteorder)
    stored = _check_sizes(path, fields)
    offset = _check_offset(path, fields, 348 if version == 1 else 540)
    slope, intercept = _check_scale(path, fields)
    shape, channels = _split_axes(path, stored)
    affine, spacing = _check_geometry(path, fields, len(shape))
    oriented = int(fields["qform_code"]) > 0 or int(fields["sform_code"]) > 0
    origin = Origin(fields.tobytes(), stored, affine)
    header = Header(shape, channels, spacing, affine, oriented=oriented, origin=origin)
    layout = _Layout(header, dtype, stored, offset, slope, intercept)
    if packed:
        check_inflation(path, size, layout.end)
    elif layout.end > size:
        sizes = " × ".join(map(str, stored))
        came = f"the header claims {layout.end} bytes ({sizes} {dtype.name}) but the file has {size}"
        mend = "The file is truncated or its header is false: " + _COPY[0].lower() + _COPY[1:]
        raise fault(path, came, "at least as many bytes as claimed", mend)
    return layout


def _unpack(path: Path, raw: bytes) -> tuple[np.void, int]:
    """Return the header's fields in the file's byte order, and the NIfTI version."""
    for version, size in ((1, 348), (2, 540)):
        layout = getattr(_nibabel(), f"nifti{version}").header_dtype
        for order in "<>":
            if len(raw) < size or int(np.frombuffer(raw, order + "i4", 1)[0]) != size:
                continue
            fields = np.frombuffer(raw[:size], layout.newbyteorder(order))[0]
            magic = fields["magic"].tobytes().rstrip(b"\0")
            if magic == f"n+{version}".encode():
                return fields, version
            if magic[:2] == b"ni":
                came = "header and image are two files (.hdr and .img)"
                raise fault(path, came, "one .nii or .nii.gz file", "Convert the pair to .nii.gz")
            raise fault(path, f"the magic word is {magic!r}", f"'n+{version}'", "Convert the file to NIfTI")
    raise fault(path, "this is not a NIfTI file, or a truncated one", "a header of 348 or 540 bytes", _COPY)


def _check_type(path: Path, fields: np.void) -> np.dtype[Any]:
    code = int(fields["datatype"])
    if code not in _TYPES:
        kind = f" ({_REFUSED[code]})" if code in _REFUSED else ""
        expected = f"a whole or real number type (codes {', '.join(map(str, sorted(_TYPES)))})"
        raise fault(path, f"datatype {code}{kind}", expected, "Convert the volume to float32")
    dtype = np.dtype(_TYPES[code])
    if int(fields["bitpix"]) not in (0, 8 * dtype.itemsize):
        raise fault(path, f"bitpix {int(fields['bitpix'])} with datatype {code}", f"{8 * dtype.itemsize}", _COPY)
    return dtype


def _check_sizes(path: Path, fields: np.void) -> tuple[int, ...]:
    sizes = [int(v) for v in fields["dim"]]
    if not 1 <= sizes[0] <= 7:
        raise fault(path, f"dim[0] (the number of axes) is {sizes[0]}", "1 to 7", _COPY)
    stored = sizes[1 : sizes[0] + 1]
    if min(stored) < 1:
        raise fault(path, f"dim is {stored}", "sizes of at least 1", _COPY)
    return tuple(stored)


def _check_offset(path: Path, fields: np.void, header_size: int) -> int:
    offset = float(fields["vox_offset"])
    if offset == 0:  # written by some programs for "right after the header"
        return header_size + 4
    if not (math.isfinite(offset) and offset == int(offset) and header_size <= offset <= 2**31):
        raise fault(path, f"vox_offset is {offset:g}", f"a whole number from {header_size} on", _COPY)
    return int(offset)


def _check_scale(path: Path, fields: np.void) -> tuple[float, float]:
    slope, intercept = float(fields["scl_slope"]), float(fields["scl_inter"])
    if slope == 0:  # the standard: "not scaled"
        return 1.0, 0.0
    for name, value in (("scl_slope", slope), ("scl_inter", intercept)):
        if not math.isfinite(value):
            raise fault(path, f"{name} is {value}", "a finite number", "Set scl_slope to 1 and scl_inter to 0")
    return slope, intercept


def _split_axes(path: Path, stored: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Return (spatial sizes, channels): axis 4 (time) or 5 (vector) holds channels; trailing 1s drop out."""
    space, rest = list(stored[:3]), [v for v in stored[3:] if v > 1]
    if len(rest) > 1:
        expected = "at most three of space and one of channels"
        raise fault(path, f"{len(stored)} axes {stored}", expected, "Split the file into one per time point")
    while len(space) > 1 and space[-1] == 1:
        space.pop()
    return tuple(space), rest[0] if rest else 1


def _parse(fields: np.void) -> Any:
    """Return nibabel's header of checked fields, in their byte order."""
    kind = getattr(_nibabel(), "Nifti1Header" if fields.nbytes == 348 else "Nifti2Header")
    order = ">" if fields["dim"].dtype.byteorder == ">" else "<"
    return kind(fields.tobytes(), endianness=order, check=False)


def _check_geometry(path: Path, fields: np.void, dims: int) -> tuple[NDArray[np.float64], tuple[float, ...]]:
    """Return affine in mm (invertible) and spacing."""
    units = _TO_MM.get(int(fields["xyzt_units"]) & 7)
    if units is None:
        raise fault(path, f"xyzt_units is {int(fields['xyzt_units'])}", "metre, millimetre or micrometre", _COPY)
    try:
        with np.errstate(all="ignore"):
            affine = np.array(_parse(fields).get_best_affine(), np.float64)
            affine[:3] *= units
    except Exception as error:  # whatever nibabel makes of a false quaternion is a fault of the file
        raise fault(path, f"the orientation cannot be read ({error})", "a valid qform or sform", _COPY) from None
    if not np.isfinite(affine).all():
        raise fault(path, "the affine holds NaN or infinity", "finite numbers", "Write the orientation again")
    pixdim = np.abs(np.array(fields["pixdim"][1 : dims + 1], np.float64)) * units
    if not np.isfinite(pixdim).all():
        raise fault(path, f"pixdim is {pixdim.tolist()}", "finite voxel sizes in mm", "Write the voxel sizes again")
    affine = _filled(path, affine, dims)
    length = np.linalg.norm(affine[:3, :dims], axis=0)
    # pixdim has the rounder numbers; where the two differ, the affine says where the voxels are
    spacing = np.where(np.abs(pixdim - length) <= 1e-3 * length, pixdim, length)
    return affine, tuple(float(v) for v in spacing)


def _filled(path: Path, affine: NDArray[np.float64], dims: int) -> NDArray[np.float64]:
    """Return the affine with directions of 1 mm where those of axes that the image lacks are 0; it is invertible."""
    lacking = [axis for axis in range(dims, 3) if not affine[:3, axis].any()]
    if lacking:
        present = [axis for axis in range(3) if axis not in lacking]
        normals = np.linalg.svd(affine[:3, present], full_matrices=True)[0][:, len(present) :]
        affine[:3, lacking] = normals
    with np.errstate(all="ignore"):  # lengths may be 0 or infinite, and the determinant is then NaN
        length = np.linalg.norm(affine[:3, :3], axis=0)
        volume = abs(np.linalg.det(affine[:3, :3] / length))
    if not (np.isfinite(length).all() and volume >= 1e-6):
        came = f"the axes of the affine {affine[:3, :3].tolist()} do not span space"
        raise fault(path, came, "three independent directions", "Write the orientation again")
    return affine


def _head_like(origin: Origin, version: int) -> Any:
    """Return a new header of nibabel's with the geometry of a file's header."""
    old, new = _parse(_unpack(Path(), origin.raw)[0]), getattr(_nibabel(), f"Nifti{version}Header")(endianness="<")
    for name in _KEPT:
        new[name] = old[name]
    new["pixdim"][:4] = old["pixdim"][:4]
    new["xyzt_units"] = int(old["xyzt_units"]) & 7
    return new


def _head_of(affine: Affine, spacing_mm: Spacing, version: int) -> Any:
    """Return a new header of nibabel's with an affine, as sform and, where that can hold it, as qform."""
    head = getattr(_nibabel(), f"Nifti{version}Header")(endianness="<")
    head.set_xyzt_units("mm")
    matrix = np.diag([*(spacing_mm or ()), 1.0, 1.0, 1.0, 1.0][:4]) if affine is None else np.asarray(affine, float)
    head.set_sform(matrix, 1)
    length = np.linalg.norm(matrix[:3, :3], axis=0)
    head["pixdim"][1:4] = np.where(length > 0, length, 1.0)
    if length.all():
        axes = matrix[:3, :3] / length
        if np.abs(axes.T @ axes - np.eye(3)).max() < _SHEAR:
            head.set_qform(matrix, 1)
    return head


def pack(path: Path, values: Array | FileArray, header: Header, label: bool) -> Iterator[bytes]:
    """Yield the bytes of a NIfTI file; the same arguments give the same bytes (gzip without a time stamp).

    Channels become the fourth axis. Numbers other than integers of at most 32 bits and float32 are stored as float32.
    A file on the grid of another NIfTI file takes over its version and geometry: qform, sform, their codes, units, and
    the number of axes. Elsewhere the affine is stored as sform and, where it has no shear, as qform.
    """
    if values.dtype.kind not in "iuf" or values.dtype.itemsize == 8 or values.dtype == np.float16:
        values = np.asarray(values).astype(np.float32)  # other programs know no booleans, halves or 64-bit numbers here
    origin = header.origin if isinstance(header.origin, Origin) and header.origin.fits(header) else None
    large = max(values.shape) > _MOST_NIFTI1
    version = 2 if large or (origin is not None and len(origin.raw) == 540) else 1
    head = _head_of(header.affine, header.spacing_mm, version) if origin is None else _head_like(origin, version)
    space = values.shape[1:] if origin is None else origin.stored[:3]
    channels, dtype = values.shape[0], values.dtype.newbyteorder("<")
    head.set_data_dtype(dtype)
    head["dim"] = 1
    sizes = space if channels == 1 else (*(*space, 1, 1)[:3], channels)  # channels are the fourth axis
    head["dim"][: len(sizes) + 1] = (len(sizes), *sizes)
    head["scl_slope"], head["scl_inter"] = header.scale, 0
    head["vox_offset"] = len(head.binaryblock) + 4
    if label:
        head["intent_code"] = _LABEL_INTENT
    content = itertools.chain([head.binaryblock + bytes(4)], _voxel_pieces(values, dtype))  # four zeros: no extension
    return gzip_pieces(content) if path.name.lower().endswith(".gz") else content


def _voxel_pieces(values: Array | FileArray, dtype: np.dtype[Any]) -> Iterator[bytes]:
    """Yield voxels (channels, *space) in the file's order, the first axis of space fastest, in pieces of some MiB."""
    size, count = values.shape[-1], math.prod(values.shape[1:])
    step = max(1, _PIECE * size // max(1, count * dtype.itemsize))
    for channel in range(values.shape[0]):
        for first in range(0, size, step):
            place = (slice(channel, channel + 1), *(slice(None),) * (values.ndim - 2), slice(first, first + step))
            yield values[place].astype(dtype, copy=False).tobytes(order="F")
