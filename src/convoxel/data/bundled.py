"""Two data sets of installed packages: mni152 (nilearn) and digits (scikit-learn).

Their files are read directly; importing the packages would take seconds.
"""

from __future__ import annotations

import gzip
import importlib.util
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convoxel.data import nifti
from convoxel.data.collection import Collection
from convoxel.data.data_set import Cache, DataSet, Entry, Parts, Sample
from convoxel.data.split import count_validation
from convoxel.errors import ConfigError, UnsupportedError
from convoxel.files.fault import fault

#: name → task
BUNDLED = {"mni152": "segment", "digits": "classify"}


def _package_file(package: str, distribution: str, name: str) -> Path:
    spec = importlib.util.find_spec(package)
    path = Path(spec.origin).parent / "datasets" / "data" / name if spec and spec.origin else None
    if path is None or not path.is_file():
        came = "is not installed" if path is None else f"lacks {name}"
        raise UnsupportedError(f"These data come with {distribution}, which {came}: pip install -U {distribution}.")
    return path


def open_mni152(validation: int | float | None, gap: int) -> DataSet:
    """Return the MNI ICBM152 T1 template (197×233×189 voxels of 1 mm) with background, grey and white matter.

    The class of a voxel is the largest of (1 − g − w, g, w) for the maps g, w of grey and white matter. The
    template is left–right symmetric, so it is split from front to back (axis 1): the front part trains, the back part
    validates.

    Args:
        validation: fraction of the brain's length that validates, or a number of voxels (default 0.2).
        gap: voxels left unused between the parts; a gap of the receptive field keeps them independent.

    Source: Fonov et al. (2011), Unbiased average age-appropriate atlases, NeuroImage 54.
    """
    stem = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
    files = {kind: _package_file("nilearn", "nilearn", stem.format(kind)) for kind in ("t1", "gm", "wm")}
    header, image = nifti.read_voxels(files["t1"])
    grey, white = (nifti.read_voxels(files[kind], scaled=False)[1][0].astype(np.int16) for kind in ("gm", "wm"))
    rest = 255 - grey - white
    label = (np.maximum(grey, white) > rest).astype(np.uint8)
    label += label & (white > grey)
    occupied = np.flatnonzero(image[0].any(axis=(0, 2)))
    first, last = int(occupied[0]), int(occupied[-1]) + 1
    back = count_validation(last - first, validation, "voxels from front to back")
    cut = first + back
    if isinstance(gap, bool) or not isinstance(gap, int) or not 0 <= gap < last - cut:
        raise ConfigError(
            f"gap is {gap!r} with {back} voxels to validate; expected a whole number, 0 to {last - cut - 1}. "
            "Choose a smaller gap or fewer validation voxels."
        )
    size = image.shape[2]

    def part(name: str, start: int, stop: int) -> Entry:
        affine = np.array(header.affine)
        affine[:3, 3] += affine[:3, 1] * start
        pixels, classes = np.ascontiguousarray(image[:, :, start:stop]), np.ascontiguousarray(label[:, start:stop])
        sample = Sample(name, pixels, classes, affine, header.spacing_mm, files["t1"])
        return Entry(name, sample.image.shape[1:], header.spacing_mm, lambda: sample, affine=affine)

    rule = f"the front trains, the back {back} voxels of the head validate, {gap} between them are unused"
    parts = Parts([part("mni152-front", cut + gap, size)], [part("mni152-back", 0, cut)], [], rule)
    classes = ("background", "grey", "white")
    return DataSet.from_parts(parts, Cache(0), "mni152", "segment", (3, 1), classes, files.items())


def open_digits() -> Collection:
    """Return 1797 handwritten digits, 8×8 pixels with values 0…16.

    Source: Alpaydin and Kaynak (1998), Optical recognition of handwritten digits, UCI repository.
    """
    path = _package_file("sklearn", "scikit-learn", "digits.csv.gz")
    try:
        with gzip.open(path, "rt") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.int16, max_rows=2000)
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise fault(path, f"cannot be read ({error})", "1797 rows of numbers", "Install scikit-learn again") from None
    labels = [int(v) for v in table[:, -1]]
    names = [f"{i:04d}" for i in range(len(labels))]

    def reader(name: str, pixels: NDArray[np.int16], label: int) -> Callable[[], Sample]:
        return lambda: Sample(name, pixels.reshape(1, 8, 8).astype(np.float32), label, source=path)

    entries = [Entry(n, (8, 8), None, reader(n, table[i, :64], labels[i]), labels[i]) for i, n in enumerate(names)]
    return Collection("digits", "classify", (2, 1), tuple("0123456789"), {"": entries}, [("digits.csv.gz", path)])
