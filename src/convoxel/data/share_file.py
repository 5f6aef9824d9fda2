"""Files of class shares: a map for each class, in the formats that the field's programs open.

Volumes, and planes whose label map is NIfTI, are 4-D NIfTI, as nibabel, MONAI and ITK-SNAP read it: classes are the
fourth axis, and whole numbers are scaled to 0 … 1 by the header. Other planes are TIFF with a page for each class,
named and scaled as ImageJ does it. Signals, and half floats, which neither of the two knows, are NumPy's ``.npz`` with
the arrays ``shares`` (classes, *spatial), ``scale``, the stored number that stands for 1, and ``classes``, their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from convoxel.data import nifti, tiff
from convoxel.data.data_set import Sample
from convoxel.data.image_format import split_ending
from convoxel.data.image_header import Header
from convoxel.files.array_archive import write_archive
from convoxel.files.atomic import open_atomic
from convoxel.files.file_array import FileArray
from convoxel.files.values import Array


def share_path(label: Path, dims: int, dtype: str) -> Path:
    """Return the file of class shares beside a label map.

    >>> share_path(Path("out/case.mha"), 3, "uint8").as_posix(), share_path(Path("case.png"), 2, "float16").as_posix()
    ('out/case_probabilities.nii.gz', 'case_probabilities.npz')
    """
    stem, own = split_ending(label)
    ending = ".nii.gz" if dims == 3 or (dims == 2 and own.startswith(".nii")) else {1: ".npz", 2: ".tif"}[dims]
    return label.with_name(f"{stem}_probabilities{'.npz' if dtype == 'float16' else ending}")


def share_order(path: Path, dims: int) -> list[int]:
    """Return the axes of (classes, *spatial) in the order of a file, the slowest first."""
    space = range(1, dims + 1)
    return [0, *(reversed(space) if path.name.endswith(".nii.gz") else space)]


def write_shares(path: Path, values: Array | FileArray, scale: int, classes: Sequence[str], like: Sample) -> None:
    """Write a map for each class, whole or not at all.

    Args:
        path: file to write, as :func:`share_path` names it.
        values: stored numbers (classes, *spatial).
        scale: stored number that stands for 1.
        classes: names of the classes.
        like: sample on whose grid they lie.

    Raises:
        DataError: the file cannot be written.
    """
    header = Header(
        values.shape[1:], values.shape[0], like.spacing_mm, like.affine, origin=like.origin, scale=1 / scale
    )
    if path.name.endswith(".npz"):
        named = {"shares": values, "scale": np.array(scale), "classes": np.array(classes, dtype=np.str_)}
        write_archive(path, named)
    elif path.name.endswith(".tif"):
        tiff.write_pages(path, values, header, classes)
    else:
        with open_atomic(path) as file:
            for piece in nifti.pack(path, values, header, False):
                file.write(piece)
