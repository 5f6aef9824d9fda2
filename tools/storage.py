"""Dice of a run on its own images, stored in other orders, directions, types and spacings.

    python -m tools.storage RUN DATA [--cases 10] [--orders 2]

The last cases by name are stored otherwise by nibabel, or resampled by SimpleITK, and predicted from there. Labels
that come back must lie where their images do, for nibabel and for SimpleITK. A resampled file is judged beside the same
run on that file brought to the run's spacing by SimpleITK, and what it finds mapped back by SimpleITK: like for like
(the same orders of interpolation along each axis, the scores of classes mapped back linearly), and as one does without
thought (B-splines along every axis, label maps mapped back to the nearest voxel). Two more ways, each with one of these
two differences, say which of them costs how much.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK
from numpy.typing import NDArray

from convoxel.data.image_file import list_images, read_image
from convoxel.predict.file_prediction import predict_files
from convoxel.predict.inference import Predictor
from convoxel.predict.metrics import confusion, dice
from convoxel.train.run_folder import load_predictor

Volume = NDArray[np.generic]
Stored = tuple[Volume, Volume, NDArray[np.float64]]  # image, label, affine
# Spacings, and the orders of interpolation that a run takes from there to voxels of 1 mm.
_COARSE = {"2 mm": ((2.0, 2.0, 2.0), (3, 3, 3)), "0.5 mm in the plane, 3 mm across": ((0.5, 0.5, 3.0), (3, 3, 1))}
_SPLINES = (3, 3, 3)
_INTERPOLATORS = {0: SimpleITK.sitkNearestNeighbor, 1: SimpleITK.sitkLinear, 3: SimpleITK.sitkBSpline}


def reorder(case: Stored, axes: Sequence[int], backwards: Sequence[bool]) -> Stored:
    """Return the same anatomy with other axes in file and affine."""
    image, label, affine = case
    affine = affine[:, [*axes, 3]].copy()
    volumes = [volume.transpose(axes) for volume in (image, label)]
    for axis in np.flatnonzero(backwards):
        volumes = [np.flip(volume, axis) for volume in volumes]
        affine[:3, 3] += affine[:3, axis] * (volumes[0].shape[axis] - 1)
        affine[:3, axis] *= -1
    return volumes[0], volumes[1], affine


def tilt(case: Stored, degrees: float) -> Stored:
    """Return the case with its affine turned about the axis towards the head."""
    angle, turn = np.radians(degrees), np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return case[0], case[1], turn @ case[2]


def as_itk(volume: Volume, spacing: Sequence[float], origin: Sequence[float] = (0.0, 0.0, 0.0)) -> SimpleITK.Image:
    """Return a volume as an image of SimpleITK along the axes of the array."""
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(volume.T))
    image.SetSpacing([float(side) for side in spacing])
    image.SetOrigin([float(side) for side in origin])
    return image


def resample(
    image: SimpleITK.Image, spacing: Sequence[float], origin: Sequence[float], size: Sequence[int], order: int
) -> Volume:
    """Return an image of SimpleITK on another grid, its last values beyond its ends."""
    filter = SimpleITK.ResampleImageFilter()
    filter.SetInterpolator(_INTERPOLATORS[order])
    filter.SetOutputSpacing([float(side) for side in spacing])
    filter.SetOutputOrigin([float(side) for side in origin])
    filter.SetSize([int(side) for side in size])
    filter.SetUseNearestNeighborExtrapolator(True)
    return SimpleITK.GetArrayFromImage(filter.Execute(image)).T


def regrid(
    volume: Volume,
    have: Sequence[float],
    want: Sequence[float],
    orders: Sequence[int],
    size: Sequence[int] | None = None,
) -> Volume:
    """Return a volume at another spacing by SimpleITK, its middle in its place; axes of one order are one pass."""
    for order in sorted(set(orders), reverse=True):
        own = order == np.array(orders)
        old, new, shape = np.array(have), np.where(own, want, have), np.array(volume.shape)
        count = np.where(own, np.maximum(1, np.floor(shape * old / new + 0.5)) if size is None else size, shape)
        origin = ((shape - 1) * old - (count - 1) * new) / 2
        volume = resample(as_itk(volume, have), new.tolist(), origin, count.astype(int).tolist(), order)
        have = new.tolist()
    return volume


class Judge:
    """Predictions of files that are stored otherwise."""

    def __init__(self, predictor: Predictor, folder: Path) -> None:
        self.predictor, self.folder, self.count = predictor, folder, 0

    def predict(self, image: Volume, affine: NDArray[np.float64], slope: float = 1.0) -> Volume:
        """Return the label map of an image, which went through files both ways; its grid is checked."""
        source, target = self._files()
        stored = nibabel.Nifti1Image(np.ascontiguousarray(image), affine)
        if slope != 1.0:
            stored = nibabel.Nifti1Image(np.rint(image / slope).astype(np.int16), affine)
            stored.header.set_slope_inter(slope, 0.0)
        nibabel.save(stored, source)
        predict_files(self.predictor, source, target)
        self._check(source, target)
        return np.asarray(nibabel.load(target).dataobj)

    def scores(self, image: Volume, spacing: Sequence[float]) -> Volume:
        """Return the scores (classes, *spatial) of an image that went through a file."""
        source, _ = self._files()
        nibabel.save(nibabel.Nifti1Image(image, np.diag([*spacing, 1.0])), source)
        return self.predictor.logits(read_image(source))

    def _files(self) -> tuple[Path, Path]:
        self.count += 1
        image, label = (self.folder / f"{self.count}-{kind}.nii.gz" for kind in ("image", "label"))
        return image, label

    def _check(self, source: Path, target: Path) -> None:
        given, found = nibabel.load(source), nibabel.load(target)
        assert found.shape == given.shape and found.get_data_dtype() == np.uint8
        for name in ("pixdim", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "xyzt_units"):
            np.testing.assert_array_equal(found.header[name], given.header[name], err_msg=name)
        np.testing.assert_array_equal(found.affine, given.affine)
        ours, theirs = (SimpleITK.ReadImage(str(path)) for path in (target, source))
        assert ours.GetPixelID() == SimpleITK.sitkUInt8
        for method in ("GetSize", "GetOrigin", "GetSpacing", "GetDirection"):
            assert getattr(ours, method)() == getattr(theirs, method)(), method


def mean_dice(truth: Volume, found: Volume, classes: int) -> float:
    """Return the mean Dice of the classes beside the background."""
    return float(np.nanmean(dice(confusion(truth.astype(np.uint8), found.astype(np.uint8), classes))[1:]))


def read_cases(folder: Path, count: int) -> Iterator[Stored]:
    """Yield the last cases by name."""
    for path in list_images(folder / "images")[-count:]:
        image, label = nibabel.load(path), nibabel.load(folder / "labels" / path.name)
        yield np.asarray(image.dataobj, np.float32), np.asarray(label.dataobj), image.affine


def measure(judge: Judge, cases: Sequence[Stored], orders: int, tell: Callable[[str], None]) -> dict[str, object]:
    """Return the mean Dice of each way of storage, with what it is to be compared with."""
    classes = len(judge.predictor.classes)

    def score(name: str, stored: Sequence[Stored], slopes: Sequence[float] | None = None) -> float:
        slopes = slopes or [1.0] * len(stored)
        values = [mean_dice(label, judge.predict(image, affine, slope), classes)
                  for (image, label, affine), slope in zip(stored, slopes, strict=True)]  # fmt: skip
        tell(f"{name:45} {np.mean(values):.4f}")
        return float(np.mean(values))

    found: dict[str, object] = {"as stored": score("as stored", cases)}
    found["one axis reversed"] = score(
        "one axis reversed", [reorder(case, (0, 1, 2), (False, True, False)) for case in cases]
    )
    found["oblique by 10°"] = score("oblique by 10°", [tilt(case, 10) for case in cases])
    slopes = [float(np.abs(image).max()) / 30_000 for image, *_ in cases]
    found["int16 with a slope"] = score("int16 with a slope", cases, slopes)
    few = cases[:orders]
    each = [
        score(f"axes {axes}, backwards {[int(b) for b in back]}", [reorder(case, axes, back) for case in few])
        for axes in itertools.permutations(range(3))
        for back in itertools.product((False, True), repeat=3)
    ]
    found["48 orders"] = {"cases": len(few), "as stored": each[0], "lowest": min(each), "highest": max(each)}
    for name, (spacing, orders) in _COARSE.items():
        found[name] = resampled(judge, cases, spacing, orders)
        tell(f"{name:45} {found[name]}")
    return found


def resampled(
    judge: Judge, cases: Sequence[Stored], spacing: Sequence[float], orders: Sequence[int]
) -> dict[str, float]:
    """Return the mean Dice of resampled files, ours and with SimpleITK around the network in each of its ways."""
    target, classes = judge.predictor.run.data.rule.spacing_mm or (1.0,) * 3, len(judge.predictor.classes)
    found: dict[str, list[float]] = {}
    for image, label, affine in cases:
        own = np.linalg.norm(affine[:3, :3], axis=0)
        coarse, truth = regrid(image, own, spacing, _SPLINES), regrid(label, own, spacing, (0, 0, 0))
        maps = {"ours": judge.predict(coarse, np.diag([*spacing, 1.0]))}
        for inwards, way in {_SPLINES: "splines alone", tuple(orders): "same orders"}.items():
            scores = judge.scores(regrid(coarse, spacing, target, inwards), target)
            back = [regrid(each, target, spacing, (1, 1, 1), coarse.shape) for each in scores]
            maps[f"SimpleITK, {way}, scores back"] = np.argmax(back, axis=0)
            label_map = scores.argmax(0).astype(np.uint8)
            maps[f"SimpleITK, {way}, labels back"] = regrid(label_map, target, spacing, (0, 0, 0), coarse.shape)
        for name, seen in maps.items():
            found.setdefault(name, []).append(mean_dice(truth, seen, classes))
    return {name: float(np.mean(values)) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path, help="folder with images/ and labels/ of NIfTI files")
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--orders", type=int, default=2, help="cases stored in all 48 orders")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        judge = Judge(load_predictor(given.run, engine="torch"), Path(folder))
        found = measure(
            judge, list(read_cases(given.data, given.cases)), given.orders, lambda line: print(line, flush=True)
        )
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
