"""NumPy's archives of arrays (.npz), written piece by piece: those of arrays in files need no memory."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convoxel.files.atomic import open_atomic
from convoxel.files.file_array import FileArray
from convoxel.files.values import Array

_PIECE = 16 * 2**20  # bytes that are written at a time
_TIME = (1980, 1, 1, 0, 0, 0)  # the first that a ZIP file knows: equal arrays give equal bytes


def write_archive(path: Path, arrays: Mapping[str, Array | FileArray]) -> None:
    """Write arrays by name, compressed, whole or not at all; ``numpy.load`` reads them.

    Raises:
        DataError: the file cannot be written.
    """
    with open_atomic(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, values in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", _TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as member:
                for piece in _pieces(values):
                    member.write(piece)


def _pieces(values: Array | FileArray) -> Iterator[bytes]:
    """Yield the bytes of a ``.npy`` file in C order."""
    head = io.BytesIO()
    described: dict[str, Any] = {"descr": values.dtype.str, "fortran_order": False, "shape": values.shape}
    np.lib.format.write_array_header_1_0(head, described)
    yield head.getvalue()
    if values.ndim < 2:
        yield np.asarray(values).tobytes()
        return
    step = max(1, _PIECE * values.shape[1] // max(1, values.nbytes // values.shape[0]))
    for number in range(values.shape[0]):
        for first in range(0, values.shape[1], step):
            yield np.ascontiguousarray(values[number : number + 1, first : first + step]).tobytes()
