"""Image and label files written whole or not at all; the ending of the name tells the format."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np

from convoxel.data import nifti, picture
from convoxel.data.image_file import split_ending
from convoxel.data.image_header import Affine, Spacing
from convoxel.files.atomic import write_bytes
from convoxel.files.fault import fault
from convoxel.files.values import Array

_ENDINGS = (".nii.gz", ".nii", ".png", ".npy")


def write_image(path: str | os.PathLike[str], array: Array, affine: Affine = None, spacing_mm: Spacing = None) -> Path:
    """Write an image (channels, *spatial) as NIfTI, PNG (values 0…255) or .npy and return the path.

    The file appears whole or not at all. NIfTI stores ``affine`` and ``spacing_mm``; channels become its
    fourth axis, and numbers other than integers of at most 32 bits and float32 are stored as float32.

    Raises:
        DataError: the ending is unknown, the format cannot hold the array, or the disk is full.
    """
    path, array = Path(path), np.asarray(array)
    ending = _check(path, array, array.ndim - 1)
    if ending == ".npy":
        return write_bytes(path, _pack_array(array))
    if ending == ".png":
        if len(array) not in (1, 3) or not (array.min() >= 0 and array.max() <= 255):
            came = f"an image of {len(array)} channels, values {array.min():g} to {array.max():g}"
            expected = "1 or 3 channels of values 0 to 255 for PNG"
            raise fault(path, came, expected, "Scale it, or write .nii.gz or .npy")
        pixels = np.moveaxis(np.rint(array).astype(np.uint8), 0, -1)
        pixels = pixels[..., 0] if len(array) == 1 else np.ascontiguousarray(pixels)
        return write_bytes(path, picture.pack_picture(pixels, palette=False))
    if array.dtype.kind not in "iuf" or array.dtype.itemsize == 8 or array.dtype == np.float16:
        array = array.astype(np.float32)  # other programs know no booleans, halves or 64-bit numbers here
    if len(array) == 1:
        voxels = array[0]
    else:
        thick = (*array.shape[1:], 1, 1)[:3]  # channels are the fourth axis, so space must fill three
        voxels = np.moveaxis(array.reshape(len(array), *thick), 0, -1)
    return write_bytes(path, nifti.pack_volume(voxels, affine, spacing_mm, packed=ending == ".nii.gz"))


def write_label(path: str | os.PathLike[str], array: Array, affine: Affine = None, spacing_mm: Spacing = None) -> Path:
    """Write class numbers (*spatial) as uint8 NIfTI, palette PNG or .npy and return the path.

    The file appears whole or not at all. NIfTI stores the image's ``affine`` and ``spacing_mm``. A PNG shows
    each class in its own colour, and read as a label it gives the class numbers back.

    Raises:
        DataError: as ``write_image``, or a value is no class number 0 … 255.
    """
    path, array = Path(path), np.asarray(array)
    ending = _check(path, array, array.ndim)
    whole = array.dtype.kind != "f" or bool((np.floor(array) == array).all())  # NaN is not equal to itself
    if not (whole and array.min() >= 0 and array.max() <= 255):
        came = f"label values {array.min():g} to {array.max():g}" + ("" if whole else ", not all whole")
        mend = "Give class numbers (the argmax over classes), not scores"
        raise fault(path, came, "class numbers 0, 1, … 255", mend)
    label = np.ascontiguousarray(array, np.uint8)
    if ending == ".npy":
        return write_bytes(path, _pack_array(label))
    if ending == ".png":
        return write_bytes(path, picture.pack_picture(label, palette=True))
    return write_bytes(path, nifti.pack_volume(label, affine, spacing_mm, packed=ending == ".nii.gz"))


def _check(path: Path, array: Array, dims: int) -> str:
    ending = split_ending(path)[1]
    if ending not in _ENDINGS:
        expected = "one of " + ", ".join(_ENDINGS)
        raise fault(path, f"the ending is {path.suffix or 'missing'}", expected, "Name the file accordingly")
    if array.dtype.kind not in "biuf" or array.size == 0:
        came = f"an array of shape {array.shape} and type {array.dtype}"
        raise fault(path, came, "real or whole numbers, at least one", "Give the values as numbers")
    if not 1 <= dims <= 3 or (ending == ".png" and dims != 2):
        expected = "2 for PNG" if ending == ".png" else "1 to 3"
        came = f"{dims} spatial axes (array of shape {array.shape})"
        raise fault(path, came, expected, "Write one image a file, volumes as .nii.gz or .npy")
    return ending


def _pack_array(array: Array) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()
