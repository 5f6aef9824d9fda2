"""DICOM images: values and places are those of pydicom and SimpleITK; what is no even stack is refused by name."""

from __future__ import annotations

import functools
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom import uid

from convoxel import data
from convoxel.data.image_file import list_images, map_image, read_header, read_stored
from convoxel.data.mapped_image import MappedImage
from convoxel.errors import DataError
from convoxel.files.file_array import FileArray
from convoxel.predict.case_files import list_inputs
from tests.support import dicom_files
from tests.support.dicom_files import SECRETS, header_bytes, image, multi_frame, packed, save, series
from tests.support.refusal import refused

RNG = np.random.default_rng(3)
VOLUME = RNG.integers(-900, 900, (4, 34, 40)).astype(np.int16)
_SYNTAXES = (
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.RLELossless,
    uid.JPEG2000Lossless,
    uid.JPEGLSLossless,
    uid.JPEGLosslessSV1,
)


@pytest.mark.parametrize("number", range(14))
def test_a_series_is_what_pydicom_and_simpleitk_read(tmp_path: Path, number: int) -> None:
    rng = np.random.default_rng(number)
    syntax = _SYNTAXES[number % 7]
    dtype = np.dtype(["u2", "i2", "u1"][number % 3] if syntax != uid.JPEGLosslessSV1 else "u2")
    limits = np.iinfo(dtype)
    volume = rng.integers(max(limits.min, -(2**15)), limits.max, (3 + number % 3, 34, 40)).astype(dtype)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    if number % 3 == 0:
        turn = np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3)[:, None]
    slopes = [dicom_files.number(v) for v in rng.uniform(0.5, 3, len(volume))]
    scale = {"RescaleSlope": slopes, "RescaleIntercept": "-1024"} if number % 2 else {}
    spacing = [dicom_files.number(v) for v in rng.uniform(0.3, 2, 2)]
    origin, step = rng.uniform(-99, 99, 3), float(rng.uniform(0.5, 5))
    folder = series(
        tmp_path / "case", volume, directions=turn[:2].ravel(), origin=origin, step=step, syntax=syntax,
        PixelSpacing=spacing, **scale,
    )  # fmt: skip
    sample = data.read_image(folder)
    expected = volume.astype(np.float64)
    if scale:
        expected = expected * np.array(slopes, np.float64)[:, None, None] - 1024
    assert np.array_equal(sample.image[0].T, expected.astype(np.float32)) and sample.image.flags.c_contiguous
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    theirs = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.array(theirs.GetDirection()).reshape(3, 3) * np.array(theirs.GetSpacing())
    affine[:3, 3] = theirs.GetOrigin()
    assert sample.affine is not None and sample.spacing_mm is not None
    assert np.allclose(sample.affine, np.diag([-1, -1, 1, 1]) @ affine, atol=1e-5)
    assert np.allclose(sample.spacing_mm, theirs.GetSpacing(), atol=1e-6)
    if not scale:
        assert np.array_equal(SimpleITK.GetArrayFromImage(theirs), volume)
        assert read_stored(folder, label=True)[1].dtype == dtype
    written = data.read_image(data.write_label(tmp_path / "l.nii.gz", sample.image[0] > 0, like=sample))
    assert written.affine is not None and np.allclose(written.affine, sample.affine, atol=1e-4)


@pytest.mark.parametrize("bits", [2, 7, 8, 11, 12, 16])
def test_lossless_jpeg_of_any_depth(tmp_path: Path, bits: int) -> None:
    pixels = (RNG.integers(0, 2**bits, (34, 40)) * np.linspace(0, 1, 40)).astype(np.uint8 if bits <= 8 else np.uint16)
    stream = imagecodecs.jpeg_encode(pixels, lossless=True, bitspersample=bits, predictor=1 + bits % 7)
    stored = {"BitsStored": bits, "HighBit": bits - 1}
    path = save(packed(image(pixels, **stored), [stream], uid.JPEGLossless), tmp_path / "a.dcm")
    assert np.array_equal(data.read_image(path).image[0], pixels)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of pydicom, which reads these files in the test itself
@pytest.mark.parametrize(
    "name", ["SC_rgb_rle.dcm", "SC_rgb_dcmtk_+eb+cy+n1.dcm", "SC_ybr_full_422_uncompressed.dcm", "SC_rgb_jpeg.dcm",
             "693_J2KI.dcm", "MR_small_bigendian.dcm", "JPGExtended.dcm", "JPEGLSNearLossless_16.dcm"],
)  # fmt: skip
def test_pictures_of_other_programs(name: str) -> None:
    path = dicom_files.test_file(name)
    sample, theirs = data.read_image(path), pydicom.dcmread(path)
    values = theirs.pixel_array * float(theirs.get("RescaleSlope", 1)) + float(theirs.get("RescaleIntercept", 0))
    values = np.moveaxis(values, -1, 0) if values.ndim == 3 else values[None]
    assert np.array_equal(sample.image, values.astype(np.float32)) and sample.affine is None
    if "PixelSpacing" in theirs:
        assert sample.spacing_mm == tuple(map(float, theirs.PixelSpacing))


def test_palettes_become_colours() -> None:
    from pydicom.pixels.processing import apply_color_lut

    path = dicom_files.test_file("examples_palette.dcm")
    theirs = pydicom.dcmread(path)
    colours = apply_color_lut(theirs.pixel_array, theirs)
    assert colours.dtype == np.uint16
    assert np.allclose(data.read_image(path).image, np.moveaxis(colours, -1, 0) / 257, atol=1e-4)


def test_monochrome1_is_inverted_and_said(tmp_path: Path) -> None:
    path = save(
        image(np.array([[0, 1], [9, 255]], np.uint8), PhotometricInterpretation="MONOCHROME1"), tmp_path / "a.dcm"
    )
    assert data.read_image(path).image.tolist() == [[[255, 254], [246, 0]]]
    assert "MONOCHROME1" in read_header(path).note
    signed = save(image(np.array([[0, -1, 7]], np.int16), PhotometricInterpretation="MONOCHROME1"), tmp_path / "b.dcm")
    assert data.read_image(signed).image.tolist() == [[[-1, 0, -8]]]


def test_frames_of_one_file(tmp_path: Path) -> None:
    positions = [(3.0, 4.0, z) for z in (6.0, 0.0, 3.0, 9.0)]
    path = save(multi_frame(VOLUME, positions, spacing=(0.5, 0.75)), tmp_path / "a.dcm")
    sample = data.read_image(path)
    order = [1, 2, 0, 3]
    scaled = VOLUME.astype(np.float32) * np.arange(1, 5, dtype=np.float32)[:, None, None] - 5
    assert np.array_equal(sample.image[0].T, scaled[order])
    assert sample.spacing_mm == (0.75, 0.5, 3.0)
    assert sample.affine is not None and sample.affine[:3, 3].tolist() == [-3.0, -4.0, 0.0]
    refused(lambda: data.read_image(save(multi_frame(VOLUME, positions[:3]), tmp_path / "b.dcm")), tmp_path, "4 frames")
    film = image(VOLUME[0], NumberOfFrames=4)
    film.PixelData = VOLUME.tobytes()
    refused(lambda: data.read_image(save(film, tmp_path / "c.dcm")), tmp_path, "4 frames without a place")


def test_large_series_are_decoded_into_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices of several scales, frames, a picture, colours: the numbers of the whole image, by axis and channel."""
    paths = [
        series(tmp_path / "a", VOLUME, RescaleSlope=[dicom_files.number(1 + 0.3 * k) for k in range(len(VOLUME))]),
        save(multi_frame(VOLUME, [(3.0, 4.0, z) for z in (6.0, 0.0, 3.0, 9.0)]), tmp_path / "b.dcm"),
        save(image(VOLUME[0]), tmp_path / "c.dcm", uid.JPEGLSLossless),
        dicom_files.test_file("SC_rgb_rle.dcm"),
    ]
    for path in paths:
        whole = data.read_image(path)
        with monkeypatch.context() as patch:
            patch.setattr("convoxel.files.file_array.MOST_IN_MEMORY", 100)
            found = map_image(path)
        assert isinstance(found.image, MappedImage) and isinstance(found.image.stored, FileArray)
        assert np.array_equal(found.image[:,], whole.image) and isinstance(map_image(path).image, np.ndarray)
        assert found.affine is None or np.array_equal(found.affine, np.asarray(whole.affine))


def test_stacks_that_are_not_even(tmp_path: Path) -> None:
    volume = RNG.integers(0, 99, (9, 34, 40)).astype(np.uint16)

    def changed(name: str, change: Any) -> Path:
        folder = series(tmp_path / name, volume)
        change({path: pydicom.dcmread(path) for path in folder.iterdir()})
        return folder

    def at(files: Any, k: int) -> Any:
        return next(path for path, found in files.items() if found.ImagePositionPatient[2] == 2 * k)

    def move(files: Any, k: int, position: tuple[float, float, float], **elements: Any) -> None:
        path = at(files, k)
        found = files[path]
        found.ImagePositionPatient = list(position)
        for name, value in elements.items():
            setattr(found, name, value)
        found.save_as(path)

    def tilt(files: Any) -> None:
        for path, found in files.items():
            x, y, z = found.ImagePositionPatient
            found.ImagePositionPatient = [x, y + 0.2 * float(z), z]
            found.save_as(path)

    gap = changed("gap", lambda files: at(files, 3).unlink())
    refused(lambda: read_header(gap), gap, "1 slice is missing", "4 mm apart", "IM0")
    two = changed("two", lambda files: (at(files, 3).unlink(), at(files, 6).unlink()))
    refused(lambda: read_header(two), two, "2 slices are missing")
    double = changed("double", lambda files: move(files, 3, (0, 0, 4)))
    refused(lambda: read_header(double), double, "1 slice lies where another does", "time points")
    uneven = changed("uneven", lambda files: move(files, 3, (0, 0, 6.7)))
    refused(lambda: read_header(uneven), uneven, "1.3 to 2.7 mm apart")
    tilted = changed("tilted", tilt)
    refused(lambda: read_header(tilted), tilted, "tilted gantry", "0.4 mm")
    turned = changed("turned", lambda files: move(files, 3, (0, 0, 6), ImageOrientationPatient=[0, 1, 0, 1, 0, 0]))
    refused(lambda: read_header(turned), turned, "different orientations")
    finer = changed("finer", lambda files: move(files, 3, (0, 0, 6), PixelSpacing=[0.5, 0.5]))
    refused(lambda: read_header(finer), finer, "PixelSpacing is (0.5, 0.5)")
    smaller = series(tmp_path / "smaller", volume)
    save(image(volume[0, :8], (0, 0, 18)), smaller / "z.dcm")
    refused(lambda: read_header(smaller), smaller, "other sizes", "z.dcm")
    cut = series(tmp_path / "cut", volume)
    (cut / "1.2.840.7").write_bytes((cut / "IM0000.dcm").read_bytes()[:100])
    refused(lambda: read_header(cut), cut / "1.2.840.7", "truncated")
    rounded = series(tmp_path / "rounded", volume, step=0.625)
    for path in rounded.iterdir():
        found = pydicom.dcmread(path)
        found.ImagePositionPatient = [0, 0, round(float(found.ImagePositionPatient[2]), 2)]
        found.save_as(path)
    assert np.allclose(read_header(rounded).spacing_mm or (), (1, 1, 0.625), rtol=1e-3)


def test_one_of_several_series_is_chosen(tmp_path: Path) -> None:
    folder = series(tmp_path / "case", VOLUME, SeriesDescription="T1 axial")
    series(folder, VOLUME[:3] + 1, SeriesInstanceUID="1.2.4", SeriesNumber=7, SeriesDescription="T2 axial")
    (folder / "LICENSE").write_text("a viewer's")
    report = image(VOLUME[0], SeriesNumber=9, SeriesInstanceUID="1.2.5", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11")
    del report.Rows, report.Columns, report.PixelData
    save(report, folder / "report.dcm")
    refused(lambda: data.read_image(folder), folder, "2 series", "#1 (T1 axial, 4 images)", "#7 (T2 axial, 3 images)")
    refused(lambda: data.read_image(f"{folder}#5"), folder, "no series 5", "#7")
    assert np.array_equal(data.read_image(f"{folder}#7").image[0].T, VOLUME[:3] + 1)
    assert data.read_image(f"{folder}#1").name == "case#1" and list_inputs(Path(f"{folder}#1")) == [Path(f"{folder}#1")]
    series(folder, VOLUME[:2] + 2, SeriesInstanceUID="1.2.6", SeriesNumber=7)
    refused(
        lambda: data.read_image(f"{folder}#7"), folder, "#7.1 (T2 axial, 3 images)", "#7.2 (no description, 2 images)"
    )
    assert np.array_equal(data.read_image(f"{folder}#7.2").image[0].T, VOLUME[:2] + 2)
    refused(lambda: data.read_image(folder / "report.dcm"), folder / "report.dcm", "no image")
    with pytest.raises(DataError, match="does not exist"):
        list_inputs(tmp_path / "none#1")


def test_folders_are_cases_of_a_data_set(tmp_path: Path) -> None:
    for number, name in enumerate("abcd"):
        folder = series(tmp_path / "images" / f"case.{name}", VOLUME + np.int16(number))
        (tmp_path / "labels").mkdir(exist_ok=True)
        sample = data.read_image(folder)
        data.write_label(tmp_path / "labels" / f"case.{name}.nii.gz", sample.image[0] > 0, like=sample)
    found = data.load(tmp_path, "segment")
    assert found.train.names == ("case.a", "case.b", "case.c") and found.dims == 3
    assert data.check(tmp_path, "segment") == [] and np.array_equal(found.train[0].label, VOLUME.T > 0)
    assert [path.name for path in list_inputs(tmp_path)] == [f"case.{name}" for name in "abcd"]
    assert list_inputs(tmp_path / "images" / "case.a") == [tmp_path / "images" / "case.a"]
    before = found.fingerprint
    slice_ = tmp_path / "images" / "case.a" / "IM0002.dcm"
    slice_.write_bytes(slice_.read_bytes()[:-1] + b"\7")
    assert data.load(tmp_path, "segment").fingerprint != before
    slice_.unlink()
    slice_.with_name("IM0001.dcm").unlink()
    shown = [
        str(data.check(tmp_path, "segment")),
        str(found.to_dict()),
        str(found),
        str(read_header(slice_.parent / "IM0000.dcm")),
    ]
    assert "case.a" in shown[0] and not any(secret in text for secret in SECRETS for text in shown)


def test_pictures_are_files_of_their_own(tmp_path: Path) -> None:
    for name in "ab":
        save(image(VOLUME[0]), tmp_path / f"{name}.dcm")
    assert (
        [path.name for path in list_images(tmp_path)] == ["a.dcm", "b.dcm"] == [p.name for p in list_inputs(tmp_path)]
    )
    assert data.read_image(tmp_path / "a.dcm").image.shape == (1, 34, 40)


def test_slices_without_signal_shrink_a_thousand_fold(tmp_path: Path) -> None:
    empty = np.zeros((2048, 1024), np.uint16)
    for syntax in (uid.JPEGLSLossless, uid.RLELossless, uid.JPEG2000Lossless):
        path = save(image(empty, (0, 0, 0)), tmp_path / "a.dcm", syntax)
        values = data.read_image(path).image
        assert values.shape == (1, *empty.shape) and not values.any(), syntax.name
    assert path.stat().st_size * 4_000 < empty.nbytes


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_deflated_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = dicom_files.test_file("image_dfl.dcm")
    assert np.array_equal(data.read_image(path).image[0], pydicom.dcmread(path).pixel_array)
    plain = save(image(VOLUME[0], (0, 0, 0)), tmp_path / "a.dcm")
    (tmp_path / "b.dcm").write_bytes(_deflated(plain.read_bytes()))
    assert np.array_equal(data.read_image(tmp_path / "b.dcm").image[0], VOLUME[0])
    for bounds in ("files.stream", "data.dicom_file"):
        monkeypatch.setattr(f"convoxel.{bounds}.FREE_BYTES", 2**20)
    empty = save(image(np.zeros((1024, 1024), np.uint8)), tmp_path / "c.dcm")
    (tmp_path / "d.dcm").write_bytes(_deflated(empty.read_bytes()))
    refused(lambda: data.read_image(tmp_path / "d.dcm"), tmp_path / "d.dcm", "inflate", "200-fold")


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian])
def test_files_without_preamble_or_ending(tmp_path: Path, syntax: uid.UID) -> None:
    source = series(tmp_path / "whole", VOLUME, syntax=syntax)
    (tmp_path / "images" / "bare").mkdir(parents=True)
    for number, path in enumerate(sorted(source.iterdir())):
        content = path.read_bytes()
        length = struct.unpack_from("<I", content, 140)[0] + 144
        (tmp_path / "images" / "bare" / f"{number}").write_bytes(content[length:])  # nor the group that says how
    assert list_images(tmp_path / "images") == [tmp_path / "images" / "bare"]
    found, expected = data.read_image(tmp_path / "images" / "bare"), data.read_image(source)
    assert np.array_equal(found.image, expected.image) and np.array_equal(found.affine, expected.affine)  # type: ignore[arg-type]
    (tmp_path / "one").mkdir()
    picture = save(image(VOLUME[0]), tmp_path / "one" / "1.2.840.77")
    assert list_images(tmp_path / "one") == [picture]
    assert np.array_equal(data.read_image(picture).image[0], VOLUME[0])
    for content in (b"\x08\0\x05\0", bytes(200), b"\x08\0\x05\0CS\x02\0ab" * 20, np.arange(99, dtype="<u2").tobytes()):
        picture.write_bytes(content)
        refused(lambda: data.read_image(picture), picture, "no image format")


def test_what_is_no_image_is_refused_by_name(tmp_path: Path) -> None:
    dose = image(VOLUME[0], (0, 0, 0), SOPClassUID="1.2.840.10008.5.1.4.1.1.481.2")
    dose.file_meta.MediaStorageSOPClassUID = dose.SOPClassUID
    path = save(dose, tmp_path / "dose.dcm")
    refused(lambda: data.read_image(path), path, "RT Dose Storage")
    refused(lambda: data.read_image(tmp_path), tmp_path, "")
    many = multi_frame(VOLUME, [(0, 0, k) for k in range(len(VOLUME))])
    many.NumberOfFrames = 5000
    refused(lambda: data.read_image(save(many, tmp_path / "many.dcm")), tmp_path / "many.dcm", "5000 frames", "4096")


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"RescaleSlope": "0"}, "RescaleSlope is 0"),
        ({"BitsStored": 12, "HighBit": 15}, "HighBit is 15 with 12 bits"),
        ({"PhotometricInterpretation": "HSV"}, "'HSV' with 3 samples"),
        ({"PhotometricInterpretation": "MONOCHROME2"}, "with 3 samples"),
    ],
)
def test_values_that_would_be_misread_are_refused(tmp_path: Path, elements: dict[str, Any], words: str) -> None:
    colour = "PhotometricInterpretation" in elements
    pixels = np.zeros((6, 7, 3), np.uint8) if colour else VOLUME[0].astype(np.uint16)
    path = save(image(pixels, **elements), tmp_path / "a.dcm")
    refused(lambda: data.read_image(path), path, words)


def test_files_of_many_frames_in_one_folder_are_several_images(tmp_path: Path) -> None:
    """Beside each other, or beside a folder of slices; one alone, or several of one series, are the folder's image."""
    positions = [(3.0, 4.0, float(z)) for z in range(len(VOLUME))]
    (tmp_path / "images").mkdir()
    for number, name in enumerate("ab"):
        found = multi_frame(VOLUME, positions)
        found.SeriesInstanceUID = f"1.2.3.{number}"
        save(found, tmp_path / "images" / f"{name}.dcm")
        if number == 0:
            assert list_inputs(tmp_path / "images") == [tmp_path / "images"]
    assert [path.name for path in list_inputs(tmp_path / "images")] == ["a.dcm", "b.dcm"]
    (tmp_path / "images" / "b.dcm").unlink()
    series(tmp_path / "images" / "c", VOLUME)
    assert [path.name for path in list_inputs(tmp_path / "images")] == ["a.dcm", "c"]


# ---- hostile files -------------------------------------------------------------------------------------------


def _sequence(tag: tuple[int, int], content: bytes) -> bytes:
    return struct.pack("<HH2sHI", *tag, b"SQ", 0, len(content)) + content


def _resized(stream: bytes, mark: bytes, rows: int, columns: int) -> bytes:
    place = stream.index(mark) + 5
    return stream[:place] + struct.pack(">HH", rows, columns) + stream[place + 4 :]


def _tiled(stream: bytes, *sizes: int) -> bytes:
    place = stream.index(b"\xff\x4f\xff\x51")
    changed = bytearray(stream)
    struct.pack_into(">II", changed, place + 8, *sizes[:2])
    struct.pack_into(">II", changed, place + 24, *sizes[2:])
    return bytes(changed)


def _deflated(content: bytes) -> bytes:
    """Return a file whose elements are deflated; each piece alike, so that no test keeps what it would inflate to."""
    place = content.index(b"1.2.840.10008.1.2.1\0")
    end = place + 20  # of the last element of the group in front
    length = struct.unpack_from("<I", content, 140)[0] + 144
    meta = content[:place] + b"1.2.840.10008.1.2.1.99" + content[end:length]
    meta = meta[: place - 2] + struct.pack("<H", 22) + meta[place:]
    meta = meta[:140] + struct.pack("<I", length - 144 + 2) + meta[144:]
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    return meta + packer.compress(content[length:]) + packer.flush()


def _hostile(name: str, path: Path) -> tuple[str, ...]:
    """Write one hostile file and return words of its refusal."""
    import imagecodecs

    pixels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    save(image(pixels, (0, 0, 0)), path)
    head = header_bytes(path)
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    implicit = head.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0")
    nested = struct.pack("<HH2sHI", 0x5200, 0x9229, b"SQ", 0, 2**32 - 1) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 2**32 - 1
    )
    contents = {
        "elements": (head + struct.pack("<HH2sH", 0x5000, 0x10, b"LO", 0) * 7000, "more elements"),
        "items": (head + _sequence((0x5200, 0x9230), items * 1000), "more elements"),
        "elements of an item": (
            head + _sequence((0x5200, 0x9230), struct.pack("<HHI", 0xFFFE, 0xE000, 56_000)
                             + struct.pack("<HH2sH", 0x18, 0x10, b"LO", 0) * 7000), "more elements"),
        "nested": (head + nested * 20_000, "cannot be read"),
        "deflated cut": (_deflated(path.read_bytes())[:-20], "cannot be read"),
        "deflated elements": (
            _deflated(head + struct.pack("<HH2sH", 0x5000, 0x10, b"LO", 0) * 7000), "more elements"),
        "long value": (implicit + struct.pack("<HHI", 0x28, 0x30, 10_000_000) + b"1\\" * 5_000_000, "PixelSpacing"),
        "no mark": (bytes(200), "mark DICM"),
    }  # fmt: skip
    if name in contents:
        path.write_bytes(contents[name][0])
        return contents[name][1:]
    j2k = imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k")
    jpeg, jls = imagecodecs.ljpeg_encode(pixels, bitspersample=16), imagecodecs.jpegls_encode(pixels)
    big = {"Rows": 60_000, "Columns": 60_000}
    streams: dict[str, tuple[bytes, uid.UID, dict[str, Any], tuple[str, ...]]] = {
        "JPEG 2000 of 60 000": (_tiled(j2k, 60_000, 60_000, 60_000, 60_000), uid.JPEG2000Lossless, {}, ("60000", "64")),
        "JPEG 2000 of many tiles": (_tiled(j2k, 64, 64, 1, 1), uid.JPEG2000Lossless, {}, ("damaged",)),
        "both of 60 000": (_tiled(j2k, 60_000, 60_000, 60_000, 60_000), uid.JPEG2000Lossless, big, ("MiB",)),
        "JPEG of 60 000": (_resized(jpeg, b"\xff\xc3", 60_000, 60_000), uid.JPEGLosslessSV1, {}, ("damaged",)),
        "JPEG of 65": (_resized(jpeg, b"\xff\xc3", 65, 64), uid.JPEGLosslessSV1, {}, ("(65, 64, 1)",)),
        "JPEG-LS with nothing in it": (
            _resized(jls, b"\xff\xf7", 4000, 4000), uid.JPEGLSLossless, {"Rows": 4000, "Columns": 4000},
            ("cannot be decoded",)),
        "JPEG-LS of 200 MiB": (
            _resized(jls, b"\xff\xf7", 10_000, 10_000)[:-2] + bytes(2000) + b"\xff\xd9", uid.JPEGLSLossless,
            {"Rows": 10_000, "Columns": 10_000}, ("64 MiB",)),
        "JPEG-LS of 618 MiB": (
            _resized(jls, b"\xff\xf7", 18_000, 18_000)[:-2] + bytes(3_600_000) + b"\xff\xd9", uid.JPEGLSLossless,
            {"Rows": 18_000, "Columns": 18_000}, ("64 MiB",)),
        "JPEG-LS cut and closed": (jls[: len(jls) // 2] + b"\xff\xd9", uid.JPEGLSLossless, {}, ("cannot be decoded",)),
        "JPEG cut and closed": (jpeg[: len(jpeg) // 2] + b"\xff\xd9", uid.JPEGLosslessSV1, {}, ("ends too early",)),
        "JPEG cut by a byte": (jpeg[:-3] + b"\xff\xd9", uid.JPEGLosslessSV1, {}, ("ends too early",)),
        "JPEG 2000 cut and closed": (j2k[:-200] + b"\xff\xd9", uid.JPEG2000Lossless, {}, ("damaged or truncated",)),
        "JPEG 2000 without its tile": (
            j2k[: j2k.index(b"\xff\x90")] + b"\xff\xd9", uid.JPEG2000Lossless, {}, ("damaged or truncated",)),
        "JPEG-LS of 70": (_resized(jls, b"\xff\xf7", 64, 70), uid.JPEGLSLossless, {}, ("(64, 70, 1)",)),
        "JPEG cut": (jpeg[:-200], uid.JPEGLosslessSV1, {}, ("truncated",)),
        "JPEG-LS cut": (jls[:-200], uid.JPEGLSLossless, {}, ("truncated",)),
        "JPEG 2000 cut": (j2k[:-200], uid.JPEG2000Lossless, {}, ("truncated",)),
        "RLE of 4000": (struct.pack("<16I", 2, 64, 100, *[0] * 13) + bytes(200), uid.RLELossless,
                          {"Rows": 4000, "Columns": 4000}, ("cannot be decoded",)),
        "video": (jpeg, uid.MPEG4HP41, {}, ("transfer syntax",)),
    }  # fmt: skip
    if name in streams:
        stream, syntax, elements, words = streams[name]
        save(packed(image(pixels, **elements), [stream], syntax), path)
        return words
    elements, word = {
        "rows": ({"Rows": 65_535, "Columns": 65_535}, "claims"),
        "no rows": ({"Rows": 0}, "Rows is 0"),
        "frames": ({"NumberOfFrames": 4000}, "claims"),
        "more frames": ({"NumberOfFrames": "99999999999"}, "NumberOfFrames"),
        "bits": ({"BitsAllocated": 12}, "12 bits"),
        "samples": ({"SamplesPerPixel": 2}, "2 samples"),
        "spacing NaN": ({"PixelSpacing": ["nan", "1"]}, "nan"),
        "spacing 0": ({"PixelSpacing": ["0", "1"]}, "above 0"),
        "one spacing": ({"PixelSpacing": "1"}, "PixelSpacing"),
        "slope": ({"RescaleSlope": "1e400"}, "RescaleSlope"),
        "palette": ({"PhotometricInterpretation": "PALETTE COLOR"}, "cannot be decoded"),
        "unknown colours": ({"PhotometricInterpretation": "CIELAB"}, "CIELAB"),
    }[name]
    save(image(pixels, (0, 0, 0), **elements), path)
    return (word,)


_HOSTILE = (
    "elements|items|elements of an item|nested|deflated cut|deflated elements|long value|no mark|"
    "JPEG 2000 of 60 000|JPEG 2000 of many tiles|both of 60 000|JPEG of 60 000|JPEG of 65|"
    "JPEG-LS with nothing in it|JPEG-LS of 200 MiB|JPEG-LS of 618 MiB|JPEG-LS cut and closed|JPEG-LS of 70|"
    "JPEG cut and closed|JPEG cut by a byte|JPEG 2000 cut and closed|JPEG 2000 without its tile|"
    "JPEG cut|JPEG-LS cut|JPEG 2000 cut|RLE of 4000|video|rows|no rows|frames|more frames|bits|samples|"
    "spacing NaN|spacing 0|one spacing|slope|palette|unknown colours"
)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of pydicom, which writes these files
@pytest.mark.parametrize("name", _HOSTILE.split("|"))
def test_hostile_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("convoxel.data.dicom_file._MOST_READS", 6000)
    path = tmp_path / "a.dcm"
    words = _hostile(name, path)
    tracemalloc.start()
    refused(lambda: data.read_image(path), path, *words)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 2**20


def test_directions_that_are_none(tmp_path: Path) -> None:
    for number, directions in enumerate(((0,) * 6, (1, 0, 0, 1, 0, 0), (2, 0, 0, 0, 1, 0))):
        folder = series(tmp_path / str(number), VOLUME[:1], directions=directions)
        save(image(VOLUME[0], (0, 0, 9), directions), folder / "b.dcm")
        refused(functools.partial(data.read_image, folder), folder, "perpendicular directions")


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_never_gets_out(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path = save(image(VOLUME[0], (0, 0, 0)), tmp_path / "a.dcm", _SYNTAXES[seed % 7] if seed % 7 != 6 else None)
    content = bytearray(path.read_bytes())
    for place in rng.integers(132, len(content) if seed % 2 else 900, rng.integers(1, 12)):
        content[place] = rng.integers(256)
    path.write_bytes(content[: rng.integers(500, 2 * len(content))])
    try:
        assert np.isfinite(data.read_image(path).image).all()
    except DataError as error:
        assert str(path) in str(error) and not any(secret in str(error) for secret in SECRETS)
