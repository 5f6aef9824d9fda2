"""NIfTI's geometry: what a file says of its place is read as nibabel reads it, and handed on to files beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from convoxel import data
from convoxel.data.image_file import read_header
from tests.support.refusal import refused

_UNITS = {"unknown": 1.0, "mm": 1.0, "micron": 1e-3, "meter": 1e3}
_FORMS = ("both alike", "both", "qform", "sform", "neither")


def rotation(rng: np.random.Generator, *, oblique: bool) -> np.ndarray[Any, Any]:
    """A signed permutation of axes, and a rotation by up to 20° about each axis."""
    matrix = np.eye(3)[rng.permutation(3)] * rng.choice([-1.0, 1.0], 3)
    for axis in range(3) if oblique else ():
        angle = rng.uniform(-0.35, 0.35)
        turn = np.eye(3)
        others = [i for i in range(3) if i != axis]
        turn[np.ix_(others, others)] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        matrix = turn @ matrix
    return matrix


def drawn_affine(rng: np.random.Generator, spacing: Any) -> np.ndarray[Any, Any]:
    affine = np.eye(4)
    affine[:3, :3] = rotation(rng, oblique=bool(rng.integers(2))) * spacing
    affine[:3, 3] = rng.uniform(-200, 200, 3)
    return affine


def draw(rng: np.random.Generator, path: Path, *, itk: bool = False) -> tuple[np.ndarray[Any, Any], str, str]:
    """Write an image of drawn shape, type, scaling, forms and units; return its stored values, form and unit.

    ITK reads the first version alone, and no picture that is turned out of its plane.
    """
    shape = tuple(int(v) for v in rng.integers(2, 7, 3))
    shape = (shape, shape[:2], (*shape[:2], 1), (*shape, int(rng.integers(2, 4))))[
        rng.choice(4, p=[0.5, 0.1 * (not itk), 0.2, 0.2 + 0.1 * itk])
    ]
    dtype = rng.choice(["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
    kind, endianness = (nibabel.Nifti1Header, nibabel.Nifti2Header)[rng.integers(2 - itk)], rng.choice(["<", ">"])
    header = kind(endianness=endianness)
    array = rng.integers(0, 100, shape).astype(dtype)
    form, unit = str(rng.choice(_FORMS)), str(rng.choice(list(_UNITS)))
    spacing = np.round(rng.uniform(0.4, 4, 3), 2)
    first = drawn_affine(rng, spacing)
    second = drawn_affine(rng, spacing) if form == "both" else first
    header.set_data_shape(shape)
    header.set_data_dtype(np.dtype(dtype).newbyteorder(endianness))
    header.set_zooms((*spacing, 2.5)[: len(shape)])
    header.set_xyzt_units(unit, "sec" if len(shape) == 4 else "unknown")
    if form in ("both alike", "both", "qform"):
        header.set_qform(first, int(rng.integers(1, 5)))
    if form in ("both alike", "both", "sform"):
        header.set_sform(second, int(rng.integers(1, 5)))
    header["descrip"], header["cal_max"], header["toffset"], header["intent_code"] = b"TE=4.6", 80, 3, 3
    slope, inter = ((1, 0), (-0.5, 3.0), (0.25, -7.0), (0, 5))[rng.integers(4)]
    header["scl_slope"], header["scl_inter"], header["vox_offset"] = slope, inter, len(header.binaryblock) + 4
    content = header.binaryblock + bytes(4) + array.astype(array.dtype.newbyteorder(endianness)).tobytes(order="F")
    path.with_suffix("").write_bytes(content) if path.suffix == ".gz" else path.write_bytes(content)
    if path.suffix == ".gz":
        import gzip

        path.write_bytes(gzip.compress(content))
    return array, form, unit


@pytest.mark.parametrize("seed", range(60))
def test_drawn_files_are_read_and_written_as_other_programs_read_them(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path = tmp_path / ("a.nii.gz" if seed % 3 == 0 else "a.nii")
    _, form, unit = draw(rng, path)
    theirs, sample = nibabel.load(path), data.read_image(path)

    values = np.asarray(theirs.dataobj)
    channels = values.shape[3] if values.ndim == 4 else 1
    expected = np.moveaxis(values.reshape(*values.shape[:3], channels)[..., :], -1, 0).astype(np.float32)
    assert np.array_equal(sample.image, expected.reshape(sample.image.shape))
    affine = theirs.affine.copy()
    affine[:3] *= _UNITS[unit]
    assert sample.affine is not None and np.array_equal(sample.affine, affine)
    assert read_header(path).oriented == (form != "neither")
    length = np.linalg.norm(affine[:3, :3], axis=0)[: len(sample.image.shape) - 1]
    assert np.allclose(sample.spacing_mm or (), length, rtol=1e-5)

    label = rng.integers(0, 5, sample.image.shape[1:])
    written = data.write_label(tmp_path / "label.nii.gz", label, like=sample)
    picture = data.write_image(tmp_path / "image.nii", sample.image, like=sample)
    for file in (written, picture):
        ours = nibabel.load(file)
        assert type(ours) is type(theirs) and np.array_equal(ours.affine, theirs.affine)
        for name in ("qform", "sform"):
            (a, code), (b, other) = (getattr(i, f"get_{name}")(coded=True) for i in (theirs, ours))
            assert code == other and (a is None or np.array_equal(a, b))
        assert ours.header.get_zooms()[:3] == theirs.header.get_zooms()[: len(ours.shape)][:3]
        assert ours.header.get_xyzt_units()[0] == theirs.header.get_xyzt_units()[0]
        assert ours.header["descrip"] == theirs.header["descrip"] and ours.shape[:3] == theirs.shape[:3]
        assert ours.header["cal_max"] == 0 and ours.header["toffset"] == 0
        again = data.read_image(file)
        assert again.affine is not None and np.array_equal(again.affine, sample.affine)
        assert again.spacing_mm == sample.spacing_mm
    stored = nibabel.load(written)
    assert stored.get_data_dtype() == np.uint8 and stored.dataobj.slope == 1 and stored.dataobj.inter == 0
    assert np.array_equal(np.asarray(stored.dataobj).reshape(label.shape), label)
    assert np.array_equal(data.read_image(picture).image, sample.image)


@pytest.mark.parametrize("seed", range(60, 100))
def test_itk_finds_a_label_where_it_finds_the_image(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "a.nii.gz"
    rng = np.random.default_rng(seed)
    draw(rng, path, itk=True)
    sample = data.read_image(path)
    data.write_label(tmp_path / "b.nii.gz", np.ones(sample.image.shape[1:]), like=sample)
    image, label = (sitk.ReadImage(str(tmp_path / name)) for name in ("a.nii.gz", "b.nii.gz"))
    dims = label.GetDimension()  # of an image with channels ITK makes a fourth axis
    assert image.GetSize()[:dims] == label.GetSize() and image.GetOrigin()[:dims] == label.GetOrigin()
    assert image.GetSpacing()[:dims] == label.GetSpacing()
    direction = np.array(image.GetDirection()).reshape(image.GetDimension(), -1)[:dims, :dims]
    assert np.array_equal(direction, np.array(label.GetDirection()).reshape(dims, dims))


@pytest.mark.parametrize("seed", range(20))
def test_itk_and_nibabel_read_one_place_from_what_is_written_by_affine(tmp_path: Path, seed: int) -> None:
    """A sample of another format has an affine alone; both programs must find it there."""
    rng = np.random.default_rng(seed)
    affine = drawn_affine(rng, np.round(rng.uniform(0.4, 4, 3), 2))
    data.write_label(tmp_path / "a.nii", np.ones((3, 4, 5)), affine)
    assert np.allclose(nibabel.load(tmp_path / "a.nii").affine, affine, atol=1e-4)
    image = sitk.ReadImage(str(tmp_path / "a.nii"))
    for index in ((0, 0, 0), (2, 3, 4)):
        place = np.array(image.TransformIndexToPhysicalPoint(index)) * (-1, -1, 1)  # ITK's axes are L, P, S
        assert np.allclose(place, (affine @ (*index, 1))[:3], atol=2e-3)


def test_a_sample_on_another_grid_takes_its_affine_alone(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 5, 6), np.float32), np.diag([1.0, 2, 3, 1])), tmp_path / "a.nii")
    import dataclasses

    sample = data.read_image(tmp_path / "a.nii")
    assert sample.affine is not None
    moved = dataclasses.replace(sample, affine=np.diag([-1.0, 2, 3, 1]))
    data.write_label(tmp_path / "b.nii", np.ones((4, 5, 6)), like=moved)
    assert np.array_equal(nibabel.load(tmp_path / "b.nii").affine, np.diag([-1.0, 2, 3, 1]))


def test_affines_that_do_not_span_space_are_refused_and_lacking_axes_are_filled(tmp_path: Path) -> None:
    header = nibabel.Nifti1Header()
    header.set_data_shape((4, 5))
    header.set_data_dtype(np.uint8)
    header.set_sform(np.array([[0, 2.0, 0, 1], [0, 0, 0, 2], [3, 0, 0, 4], [0, 0, 0, 1]]), 1)
    header["vox_offset"], header["scl_slope"] = 352, 1
    path = tmp_path / "flat.nii"
    path.write_bytes(header.binaryblock + bytes(4) + bytes(20))
    affine = data.read_image(path).affine
    assert affine is not None and abs(np.linalg.det(affine[:3, :3])) == pytest.approx(6)
    header.set_data_shape((4, 5, 1))
    header.set_sform(np.array([[1, 2.0, 0, 1], [1, 2, 0, 2], [0, 0, 1, 4], [0, 0, 0, 1]]), 1)
    path.write_bytes(header.binaryblock + bytes(4) + bytes(20))
    refused(lambda: data.read_image(path), path, "do not span space")


def test_large_axes_need_the_second_version(tmp_path: Path) -> None:
    path = data.write_label(tmp_path / "a.nii", np.ones((40000, 1, 2)))
    assert isinstance(nibabel.load(path), nibabel.Nifti2Image) and nibabel.load(path).shape == (40000, 1, 2)


@pytest.mark.parametrize("size", [1e40, 1e200, 1e300])
def test_distances_beyond_measure(tmp_path: Path, size: float) -> None:
    """They are read as they are or refused by name; labels are compared without overflow."""
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    for i in range(2):
        affine = np.diag([size, size, size, 1])
        with np.errstate(over="ignore"):  # nibabel computes zooms that overflow
            nibabel.save(nibabel.Nifti2Image(np.ones((3, 4, 5), np.float32), affine), tmp_path / "images" / f"{i}.nii")
            affine[0, 3] = i * size * 1e3
            label = np.ones((3, 4, 5), np.uint8)
            nibabel.save(nibabel.Nifti2Image(label, affine), tmp_path / "labels" / f"{i}.nii")
    words = "off its image" if size < 1e100 else "pixdim is [inf"
    (problem,) = [p for p in data.check(tmp_path, "segment") if p.name == "1"]
    assert words in problem.message
