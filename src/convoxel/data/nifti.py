"""NIfTI volumes (.nii, .nii.gz): the header is checked field by field before any voxel is asked for.

nibabel knows the layout of the header and computes the affine; NumPy reads the voxels with the checked type, shape and
offset. Nothing is resampled or reoriented: array axis i is file axis i.
Header/image pairs (.hdr + .img), complex and RGB volumes are refused.
"""

from __future__ import annotations

import gzip
import math
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
from convoxel.files.memory import check_memory
from convoxel.files.stream import check_inflation, file_size, inflate, read_bytes
from convoxel.files.values import Array

_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_REFUSED = {0: "unknown", 1: "1-bit", 32: "complex", 1792: "complex", 2048: "complex", 128: "RGB", 2304: "RGBA"}
_TO_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # xyzt_units & 7: unknown, metre, millimetre, micrometre
_PART = 2**20  # voxels that are scaled at a time
_COPY = "Copy the file again from its source, or rewrite it with the program that made it"


def _nibabel() -> ModuleType:
    try:
        import nibabel
    except ImportError as error:
        raise UnsupportedError("NIfTI files need nibabel: pip install 'convoxel[train]'.") from error
    return nibabel


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
    """Return header and values (channels, *shape): scaled, float32 for images."""
    return read_voxels(path, scaled=not label)


def map_voxels(path: Path) -> tuple[Header, MappedImage] | None:
    """Return header and voxels as ``read_voxels`` does, but left in the file; None if that is compressed."""
    if _is_packed(path):
        return None
    layout = _read_layout(path)
    stored = np.memmap(path, layout.dtype, "r", layout.offset, (math.prod(layout.stored),))
    return layout.header, MappedImage(layout.arranged(stored), layout.slope, layout.intercept)


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
    affine, spacing = _check_geometry(path, fields, raw, version, len(shape))
    layout = _Layout(Header(shape, channels, spacing, affine), dtype, stored, offset, slope, intercept)
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


def _check_geometry(
    path: Path, fields: np.void, raw: bytes, version: int, dims: int
) -> tuple[NDArray[np.float64], tuple[float, ...]]:
    kind = getattr(_nibabel(), f"Nifti{version}Header")
    order = ">" if fields["dim"].dtype.byteorder == ">" else "<"
    units = _TO_MM.get(int(fields["xyzt_units"]) & 7)
    if units is None:
        raise fault(path, f"xyzt_units is {int(fields['xyzt_units'])}", "metre, millimetre or micrometre", _COPY)
    try:
        with np.errstate(all="ignore"):
            head = kind(raw[: 348 if version == 1 else 540], endianness=order, check=False)
            affine = np.array(head.get_best_affine(), np.float64)
    except Exception as error:  # whatever nibabel makes of a false quaternion is a fault of the file
        raise fault(path, f"the orientation cannot be read ({error})", "a valid qform or sform", _COPY) from None
    if not np.isfinite(affine).all():
        raise fault(path, "the affine holds NaN or infinity", "finite numbers", "Write the orientation again")
    affine[:3] *= units
    pixdim = np.abs(np.array(fields["pixdim"][1 : dims + 1], np.float64)) * units
    length = np.linalg.norm(affine[:3, :dims], axis=0)
    if not np.isfinite(pixdim).all():
        raise fault(path, f"pixdim is {pixdim.tolist()}", "finite voxel sizes in mm", "Write the voxel sizes again")
    spacing = np.where(pixdim > 0, pixdim, np.where(length > 0, length, 1.0))
    return affine, tuple(float(v) for v in spacing)


def pack(path: Path, values: Array, header: Header, label: bool) -> bytes:
    """Return the bytes of a NIfTI file; channels become its fourth axis.

    Numbers other than integers of at most 32 bits and float32 are stored as float32.
    """
    if values.dtype.kind not in "iuf" or values.dtype.itemsize == 8 or values.dtype == np.float16:
        values = values.astype(np.float32)  # other programs know no booleans, halves or 64-bit numbers here
    if len(values) == 1:
        voxels = values[0]
    else:
        thick = (*values.shape[1:], 1, 1)[:3]  # channels are the fourth axis, so space must fill three
        voxels = np.moveaxis(values.reshape(len(values), *thick), 0, -1)
    return pack_volume(voxels, header.affine, header.spacing_mm, packed=path.name.lower().endswith(".gz"))


def pack_volume(array: Array, affine: Affine, spacing_mm: Spacing, *, packed: bool) -> bytes:
    """Return the bytes of a NIfTI file; the same arguments give the same bytes (gzip without a time stamp).

    Args:
        array: voxels (*shape), or (x, y, z, channels).
        affine: 4×4 matrix from voxel index to mm, stored as sform and, where it has no shear, as qform (default
            None: diagonal, from ``spacing_mm``).
        spacing_mm: distance between voxels along each axis in mm; None takes it from the affine.
        packed: compress with gzip.
    """
    nibabel = _nibabel()
    if affine is None:
        affine = np.diag([*(spacing_mm or ()), 1.0, 1.0, 1.0, 1.0][:4])
    image = nibabel.Nifti1Image(array, np.asarray(affine, np.float64))
    image.header.set_xyzt_units("mm")
    if spacing_mm is not None:
        zooms = list(image.header.get_zooms())
        zooms[: len(spacing_mm)] = spacing_mm[: len(zooms)]
        image.header.set_zooms(zooms)
    content: bytes = image.to_bytes()
    return gzip.compress(content, 6, mtime=0) if packed else content
