"""Drawn files of every format, read by us and by another library.

Run by hand::

    .venv/bin/python -m tools.drawn_files              300 files
    .venv/bin/python -m tools.drawn_files --files 30   fewer

Sizes, types, spacings, directions, scales and compressions are drawn. The values that ours and the other library read
must be equal, and so must the places of volumes, but for the rounding of their decimals in DICOM. A table shows how
many files of each format were compared; the exit code is 1 where one differs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK
from numpy.typing import NDArray

from convoxel import data

Array = NDArray[Any]
Rng = np.random.Generator
#: Values (channels, *spatial) in float64, and the affine in RAS+ mm or None.
Read = tuple[Array, Array | None]
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def _values(rng: Rng, shape: tuple[int, ...], kinds: str = "u1 i1 u2 i2 i4 f4 f8") -> Array:
    kind = np.dtype(str(rng.choice(kinds.split())))
    if kind.kind == "f":
        return rng.normal(0, 100, shape).astype(kind)
    limits = np.iinfo(kind)
    return rng.integers(max(limits.min, -(2**20)), min(limits.max, 2**20), shape).astype(kind)


def _sizes(rng: Rng, dims: int) -> tuple[int, ...]:
    return tuple(int(size) for size in rng.integers(2, 12, dims))


def _affine(rng: Rng) -> Array:
    found = np.eye(4)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0] if rng.random() < 0.5 else np.eye(3)[rng.permutation(3)]
    found[:3, :3] = turn @ np.diag(rng.uniform(0.3, 4, 3) * rng.choice([-1, 1], 3))
    found[:3, 3] = rng.uniform(-200, 200, 3)
    return found


def _nifti(rng: Rng, folder: Path) -> tuple[Path, Read]:
    channels = int(rng.integers(1, 4))
    values, affine = _values(rng, (*_sizes(rng, 3), channels)), _affine(rng)
    kind = nibabel.Nifti1Image if rng.random() < 0.5 else nibabel.Nifti2Image
    image = kind(values[..., 0] if channels == 1 else values, affine)
    if values.dtype.kind != "f" and rng.random() < 0.5:
        image.header.set_slope_inter(float(np.float32(rng.uniform(0.1, 3))), float(np.float32(rng.uniform(-9, 9))))
    path = folder / f"a.nii{'.gz' * int(rng.integers(2))}"
    nibabel.save(image, path)
    found = nibabel.load(path)
    read = np.asarray(found.dataobj, np.float64).reshape(values.shape)
    return path, (np.moveaxis(read, -1, 0), found.affine)


def _itk(ending: str) -> Callable[[Rng, Path], tuple[Path, Read]]:
    def make(rng: Rng, folder: Path) -> tuple[Path, Read]:
        values, affine = _values(rng, _sizes(rng, 3)), _TO_RAS @ _affine(rng)
        image = SimpleITK.GetImageFromArray(values)
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetOrigin(affine[:3, 3].tolist())
        image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
        path = folder / f"a{ending}"
        SimpleITK.WriteImage(image, str(path), bool(rng.integers(2)))
        found = SimpleITK.ReadImage(str(path))
        place = np.eye(4)
        place[:3, :3] = np.array(found.GetDirection()).reshape(3, 3) * np.array(found.GetSpacing())
        place[:3, 3] = found.GetOrigin()
        return path, (SimpleITK.GetArrayFromImage(found).T[None].astype(np.float64), _TO_RAS @ place)

    return make


def _dicom(rng: Rng, folder: Path) -> tuple[Path, Read]:
    from pydicom import uid

    from tests.support.dicom_files import number, series

    syntaxes = [None, uid.ImplicitVRLittleEndian, uid.RLELossless, uid.JPEG2000Lossless, uid.JPEGLSLossless]
    values, turn = (
        _values(rng, (int(rng.integers(3, 6)), 34, 40), "u2 i2"),
        np.linalg.qr(rng.standard_normal((3, 3)))[0],
    )
    slope, intercept = number(rng.uniform(0.5, 3)), number(rng.uniform(-1024, 0))
    path = series(
        folder / "a", values, directions=turn[:2].ravel(), origin=rng.uniform(-99, 99, 3), step=rng.uniform(0.5, 5),
        syntax=syntaxes[int(rng.integers(len(syntaxes)))], PixelSpacing=[number(v) for v in rng.uniform(0.3, 2, 2)],
        RescaleSlope=slope, RescaleIntercept=intercept,
    )  # fmt: skip
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(path)))
    found = reader.Execute()
    place = np.eye(4)
    place[:3, :3] = np.array(found.GetDirection()).reshape(3, 3) * np.array(found.GetSpacing())
    place[:3, 3] = found.GetOrigin()
    scaled = values.astype(np.float64) * float(slope) + float(intercept)  # as pydicom scales; ITK rounds to float32
    np.testing.assert_allclose(SimpleITK.GetArrayFromImage(found), scaled, rtol=1e-5, atol=1e-3)
    return path, (scaled.T[None], _TO_RAS @ place)


def _tiff(rng: Rng, folder: Path) -> tuple[Path, Read]:
    import tifffile

    values = _values(rng, _sizes(rng, int(rng.integers(2, 4))), "u1 u2 i2 i4 f4 f8")
    packing = str(rng.choice(["none", "zlib", "lzw", "packbits", "zstd", "lzma"]))
    options: dict[str, Any] = {"tile": (16, 16)} if rng.random() < 0.4 else {}
    path = folder / "a.tif"
    tifffile.imwrite(
        path, values, photometric="minisblack", compression=None if packing == "none" else packing, **options
    )
    scale = 257.0 if values.dtype == np.uint16 else 1.0
    return path, ((tifffile.imread(path).reshape(values.shape).astype(np.float32) / np.float32(scale))[None], None)


def _picture(rng: Rng, folder: Path) -> tuple[Path, Read]:
    from PIL import Image

    shape = (*_sizes(rng, 2), *([3] if rng.random() < 0.5 else []))
    values = _values(rng, shape, "u1" if len(shape) == 3 else "u1 u2")
    path = folder / f"a{rng.choice(['.png', '.jpg'] if values.dtype == np.uint8 else ['.png'])}"
    Image.fromarray(values).save(path)
    read = np.asarray(Image.open(path)).astype(np.float32) / np.float32(257 if values.dtype == np.uint16 else 1)
    return path, (np.moveaxis(np.atleast_3d(read), -1, 0), None)


def _numpy(rng: Rng, folder: Path) -> tuple[Path, Read]:
    values = _values(rng, (1, *_sizes(rng, int(rng.integers(2, 4)))))
    path = folder / f"a{rng.choice(['.npy', '.npz'])}"
    (np.save if path.suffix == ".npy" else np.savez_compressed)(path, np.asfortranarray(values))
    found = np.load(path)
    return path, (found if path.suffix == ".npy" else found["arr_0"], None)


def _hdf5(rng: Rng, folder: Path) -> tuple[Path, Read]:
    import h5py

    values = _values(rng, (1, *_sizes(rng, 3)))
    path, packing = folder / "a.h5", rng.choice(["", "gzip", "lzf"])
    options: dict[str, Any] = {"compression": str(packing), "shuffle": True} if packing else {}
    with h5py.File(path, "w") as file:
        file.create_dataset("image", data=values, chunks=tuple(max(1, n // 2) for n in values.shape), **options)
    with h5py.File(path) as file:
        return path, (file["image"][()], None)


def _zarr(rng: Rng, folder: Path) -> tuple[Path, Read]:
    import zarr

    values, path = _values(rng, (1, *_sizes(rng, 3))), folder / "a.zarr"
    chunks = tuple(max(1, n // 2) for n in values.shape)
    form = int(rng.integers(2, 4))
    zarr.create_array(path, shape=values.shape, chunks=chunks, dtype=values.dtype, zarr_format=form)[:] = values
    return path, (np.asarray(zarr.open_array(path, mode="r")[:]), None)


def _edf(rng: Rng, folder: Path) -> tuple[Path, Read]:
    import pyedflib

    path, count = folder / f"a{rng.choice(['.edf', '.bdf'])}", int(rng.integers(1, 4))
    kind, most = (pyedflib.FILETYPE_EDFPLUS, 2**15) if path.suffix == ".edf" else (pyedflib.FILETYPE_BDFPLUS, 2**23)
    with pyedflib.EdfWriter(str(path), count, kind) as writer:
        for channel in range(count):
            header = {"label": f"c{channel}", "dimension": "uV", "sample_frequency": 50, "physical_max": 500.0,
                      "physical_min": -400.0, "digital_max": most - 1, "digital_min": -most, "transducer": "",
                      "prefilter": ""}  # fmt: skip
            writer.setSignalHeader(channel, header)
        writer.writeSamples([rng.uniform(-300, 300, 150) for _ in range(count)])
    with pyedflib.EdfReader(str(path)) as reader:
        return path, (np.array([reader.readSignal(channel) for channel in range(count)]), None)


FORMATS: dict[str, Callable[[Rng, Path], tuple[Path, Read]]] = {
    "NIfTI, nibabel": _nifti, "MetaImage, SimpleITK": _itk(".mha"), "NRRD, SimpleITK": _itk(".nrrd"),
    "DICOM, pydicom and SimpleITK": _dicom, "TIFF, tifffile": _tiff, "PNG and JPEG, Pillow": _picture,
    "NumPy": _numpy, "HDF5, h5py": _hdf5, "Zarr, zarr": _zarr, "EDF and BDF, pyedflib": _edf,
}  # fmt: skip


def compare(name: str, number: int, folder: Path) -> None:
    """Compare the file of this number in a new folder; AssertionError where it differs."""
    folder.mkdir(exist_ok=True)
    path, (values, affine) = FORMATS[name](np.random.default_rng([7, number]), folder)
    sample = data.read_image(path)
    wanted = values.astype(np.float32)
    assert sample.image.shape == wanted.shape, (sample.image.shape, wanted.shape)
    close = name.startswith(("EDF", "TIFF", "PNG"))  # physical units, and 16 bits on the scale of pictures
    np.testing.assert_allclose(sample.image, wanted, rtol=1e-6 if close else 0, atol=1e-3 if name[0] == "E" else 0)
    if affine is not None:
        assert sample.affine is not None
        np.testing.assert_allclose(sample.affine, affine, atol=2e-5 if name[0] in "NM" else 1e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=300)
    names, compared, bad = list(FORMATS), Counter[str](), 0
    for number in range(parser.parse_args().files):
        name = names[number % len(names)]
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries that write
            try:
                compare(name, number, Path(folder))
            except AssertionError as error:
                bad += 1
                print(f"file {number}, {name}: {' '.join(str(error).split())[:300]}")
        compared[name] += 1
    for name, count in compared.items():
        print(f"{name:32} {count}")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
