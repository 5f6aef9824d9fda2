"""DICOM files for tests, with a patient's name, number and dates that must not come out anywhere."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, JPEGLosslessSV1, generate_uid

SECRETS = ("Doe", "MRN-4711", "19700203", "20210405")
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CT, ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1"


def number(value: float) -> str:
    """Return a number in at most 16 letters, as the format wants it."""
    return format(float(value), ".10g")


def image(pixels: Any, position: Any = None, directions: Any = AXIAL, **elements: Any) -> Dataset:
    """Return a data set with pixels (rows, columns) or (rows, columns, 3), and further elements by keyword."""
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = CT, generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = "1.2.9", "1.2.3", "1.2.77"
    data.PatientName, data.PatientID, data.PatientBirthDate, data.StudyDate = "Doe^Jane", *SECRETS[1:]
    data.PatientSex, data.StudyTime, data.AccessionNumber, data.StudyID, data.ReferringPhysicianName = (
        "F",
        "",
        "",
        "",
        "",
    )
    data.Modality, data.SeriesNumber, data.InstanceNumber = "CT", 1, 1
    if position is not None:
        data.ImagePositionPatient = [number(v) for v in position]
        data.ImageOrientationPatient = [number(v) for v in directions]
    data.PixelSpacing = ["1", "1"]
    data.Rows, data.Columns = pixels.shape[:2]
    data.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    data.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        data.PlanarConfiguration = 0
    data.BitsAllocated = data.BitsStored = 8 * pixels.dtype.itemsize
    data.HighBit, data.PixelRepresentation = data.BitsStored - 1, int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes() + bytes(pixels.nbytes % 2)
    data["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    for name, value in elements.items():
        setattr(data, name, value)
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = (
        data.SOPClassUID,
        data.SOPInstanceUID,
    )
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return data


def packed(data: Dataset, streams: Sequence[bytes], syntax: UID) -> Dataset:
    """Return the data set with compressed streams in place of its pixels."""
    data.PixelData = encapsulate(list(streams))
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    data.file_meta.TransferSyntaxUID = syntax
    return data


def save(data: Dataset, path: Path, syntax: UID | None = None) -> Path:
    """Write a data set, encoded as ``syntax``."""
    order = {"implicit_vr": False, "little_endian": True}
    if syntax == ExplicitVRBigEndian:
        words = np.frombuffer(data.PixelData, f"<u{data.BitsAllocated // 8}")
        data.PixelData = words.astype(words.dtype.newbyteorder(">")).tobytes()
        order["little_endian"] = False
    elif syntax == JPEGLosslessSV1:
        import imagecodecs

        pixels = np.frombuffer(data.PixelData, f"<u{data.BitsAllocated // 8}").reshape(data.Rows, data.Columns)
        packed(data, [imagecodecs.ljpeg_encode(pixels, bitspersample=data.BitsStored)], syntax)
    elif syntax is not None and syntax.is_compressed:
        data.compress(syntax)
    elif syntax is not None:
        order["implicit_vr"] = syntax.is_implicit_VR
    data.file_meta.TransferSyntaxUID = syntax or data.file_meta.TransferSyntaxUID
    data.save_as(path, enforce_file_format=True, **({} if data.file_meta.TransferSyntaxUID.is_compressed else order))
    return path


def series(
    folder: Path,
    volume: Any,
    *,
    directions: Any = AXIAL,
    origin: Any = (0.0, 0.0, 0.0),
    step: float = 2.0,
    syntax: UID | None = None,
    **elements: Any,
) -> Path:
    """Write a folder with the slices of a volume (slices, rows, columns); the files' names are in no order of space.

    Elements that are lists of as many values as there are slices give each slice its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    normal = np.cross(directions[:3], directions[3:])
    first = len(list(folder.iterdir()))
    for file, k in enumerate(np.random.default_rng(len(volume)).permutation(len(volume))):
        own = {name: v[k] if isinstance(v, list) and len(v) == len(volume) else v for name, v in elements.items()}
        data = image(volume[k], np.asarray(origin) + k * step * normal, directions, InstanceNumber=file + 1, **own)
        save(data, folder / f"IM{first + file:04d}.dcm", syntax)
    return folder


def multi_frame(volume: Any, positions: Any, directions: Any = AXIAL, spacing: Any = (1.0, 1.0)) -> Dataset:
    """Return an enhanced image whose frames (frames, rows, columns) lie at ``positions``."""
    data = image(volume[0])
    del data.PixelSpacing
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = ENHANCED_CT
    data.NumberOfFrames, data.PixelData = len(volume), volume.tobytes()
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [number(v) for v in spacing]
    orientation.ImageOrientationPatient = [number(v) for v in directions]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    data.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for k, position in enumerate(positions):
        group, plane, scale = Dataset(), Dataset(), Dataset()
        plane.ImagePositionPatient = [number(v) for v in position]
        scale.RescaleSlope, scale.RescaleIntercept = number(1 + k), "-5"
        group.PlanePositionSequence, group.PixelValueTransformationSequence = [plane], [scale]
        groups.append(group)
    data.PerFrameFunctionalGroupsSequence = groups
    return data


def header_bytes(path: Path) -> bytes:
    """Return the bytes of a file up to its pixels."""
    content = path.read_bytes()
    return content[: content.index(struct.pack("<HH2s", 0x7FE0, 0x10, b"OW"))]


def test_file(name: str) -> Path:
    """Return one of the files that pydicom brings along."""
    return Path(pydicom.__file__).parent / "data" / "test_files" / name
