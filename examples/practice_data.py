"""Small made data sets of every layout, to try commands on before your own images are at hand.

    python examples/practice_data.py volumes heads          # images/ and labels/ with NIfTI files
    python examples/practice_data.py slices scan            # a folder of DICOM slices
    python examples/practice_data.py photographs shapes     # a folder of PNG files for each class
    python examples/practice_data.py ultrasound fetal.h5    # frames of subjects in one HDF5 file, as the course's
    python examples/practice_data.py prostate prostate      # NumPy volumes, as the course's

The pictures are drawn, not taken: bright ellipsoids, discs and squares in noise. Networks learn them in seconds.
Figures that are measured on them say nothing about medical images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SEED = 0


def draw_volume(
    random: np.random.Generator, shape: tuple[int, ...], classes: int
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Return a noisy volume with one ellipsoid for each class, and its label map."""
    places = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    label = np.zeros(shape, np.uint8)
    for number in range(1, classes + 1):
        centre = random.uniform(-0.25, 0.25, 3) + 0.35 * (2 * (number % 2) - 1)
        radius = random.uniform(0.3, 0.45, 3)
        inside = (((places - centre[:, None, None, None]) / radius[:, None, None, None]) ** 2).sum(0) < 1
        label[inside] = number
    image = 100 + 80 * label + random.normal(0, 15, shape)
    return image.astype(np.int16), label


def write_volumes(folder: Path, cases: int, shape: tuple[int, int, int] = (16, 20, 16)) -> None:
    """Write NIfTI volumes of 1 mm with two classes into ``images`` and ``labels``."""
    import nibabel

    random = np.random.default_rng(SEED)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for case in range(cases):
        image, label = draw_volume(random, shape, 2)
        affine = np.diag([1.0, 1.0, 1.0, 1.0])
        nibabel.save(nibabel.Nifti1Image(image, affine), folder / "images" / f"case{case:02d}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label, affine), folder / "labels" / f"case{case:02d}.nii.gz")
    (folder / "classes.txt").write_text("background\nfront\nback\n")


def write_slices(folder: Path, cases: int) -> None:
    """Write one series of DICOM slices of 1 × 1 × 2 mm."""
    import pydicom
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir(parents=True, exist_ok=True)
    image, _ = draw_volume(np.random.default_rng(SEED), (16, 20, max(cases, 2)), 2)
    study, series, frame = (generate_uid(entropy_srcs=[name]) for name in ("study", "series", "frame"))
    for number in range(image.shape[2]):
        slice_ = pydicom.Dataset()
        slice_.SOPClassUID, slice_.SOPInstanceUID = CTImageStorage, generate_uid(entropy_srcs=[f"slice{number}"])
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID, slice_.FrameOfReferenceUID = study, series, frame
        slice_.Modality, slice_.PatientID, slice_.PatientName = "CT", "practice", "Practice"
        slice_.InstanceNumber, slice_.SliceThickness = number + 1, 2
        slice_.ImagePositionPatient, slice_.ImageOrientationPatient = [0, 0, 2 * number], [1, 0, 0, 0, 1, 0]
        slice_.PixelSpacing, slice_.RescaleSlope, slice_.RescaleIntercept = [1, 1], 1, 0
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 1
        slice_.Rows, slice_.Columns = image.shape[1], image.shape[0]
        slice_.PixelData = np.ascontiguousarray(image[:, :, number].T).astype("<i2").tobytes()
        slice_.file_meta = pydicom.dataset.FileMetaDataset()
        slice_.file_meta.MediaStorageSOPClassUID = CTImageStorage
        slice_.file_meta.MediaStorageSOPInstanceUID = slice_.SOPInstanceUID
        slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slice_.save_as(folder / f"slice{number:03d}.dcm", enforce_file_format=True)


def draw_frame(random: np.random.Generator, kind: int, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a noisy picture of a disc (0), a square (1), a ring (2) or nothing (3)."""
    rows, columns = (
        np.mgrid[: shape[0], : shape[1]] - random.uniform(0.35, 0.65, 2)[:, None, None] * np.array(shape)[:, None, None]
    )
    size = random.uniform(0.15, 0.25) * min(shape)
    far = np.hypot(rows, columns)
    inside = (far < size, np.maximum(abs(rows), abs(columns)) < size, abs(far - size) < 2, np.zeros(shape, bool))[kind]
    return np.clip(60 + 120 * inside + random.normal(0, 20, shape), 0, 255).astype(np.uint8)


def write_photographs(folder: Path, cases: int) -> None:
    """Write PNG files of 32 × 32 pixels into a folder for each of three classes."""
    from PIL import Image

    random = np.random.default_rng(SEED)
    for kind, name in enumerate(("disc", "square", "ring")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for case in range(cases):
            Image.fromarray(draw_frame(random, kind, (32, 32))).save(folder / name / f"{name}{case:02d}.png")


def write_ultrasound(path: Path, cases: int) -> None:
    """Write frames of four classes in the layout of the course's HDF5 file, ``cases`` subjects of 8 frames each."""
    import h5py

    random = np.random.default_rng(SEED)
    frames, shape = 8, (45, 60)
    with h5py.File(path, "w") as file:
        for name, number in (("num_subjects", cases), ("num_classes", 4)):
            file[name] = np.array([[number]])
        file["frame_size"] = np.array([[shape[0]], [shape[1]]])
        for subject in range(cases):
            file[f"subject{subject:06d}_num_frames"] = np.array([[frames]])
            for frame in range(frames):
                kind = (subject + frame) % 4
                file[f"subject{subject:06d}_frame{frame:08d}"] = draw_frame(random, kind, shape)
                file[f"subject{subject:06d}_label{frame:08d}"] = np.array([[kind]])


def write_prostate(folder: Path, cases: int) -> None:
    """Write NumPy volumes (slices, rows, columns) and masks in the layout of the course; two more have no mask."""
    random = np.random.default_rng(SEED)
    folder.mkdir(parents=True, exist_ok=True)
    for case in range(cases + 2):
        image, label = draw_volume(random, (12, 24, 24), 1)
        kind, number = ("train", case) if case < cases else ("test", case - cases)
        np.save(folder / f"image_{kind}{number:02d}.npy", image)
        if kind == "train":
            np.save(folder / f"label_{kind}{number:02d}.npy", label)


LAYOUTS = {
    "volumes": (write_volumes, 10),
    "slices": (write_slices, 12),
    "photographs": (write_photographs, 20),
    "ultrasound": (write_ultrasound, 8),
    "prostate": (write_prostate, 10),
}


def main() -> None:
    """Write the data set that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("layout", choices=LAYOUTS)
    parser.add_argument("output", type=Path, help="folder or file to write")
    parser.add_argument("--cases", type=int, help="number of volumes, slices, pictures a class or subjects")
    chosen = parser.parse_args()
    write, usual = LAYOUTS[chosen.layout]
    write(chosen.output, chosen.cases or usual)


if __name__ == "__main__":
    main()
