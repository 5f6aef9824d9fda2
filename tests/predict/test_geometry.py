"""Orientation and spacing in prediction and evaluation, with a network that says what it sees."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from numpy.typing import NDArray
from torch import nn

from convoxel import data
from convoxel.data import Sample, Split
from convoxel.data.data_set import Cache, Entry
from convoxel.data.geometry import Geometry
from convoxel.errors import DataError
from convoxel.predict.evaluation import evaluate_samples
from convoxel.predict.file_prediction import predict_files
from convoxel.predict.inference import Predictor, build_predictor
from convoxel.predict.normalisation import Normalisation
from convoxel.predict.trained_run import DataFacts, TrainedRun
from convoxel.train import TrainConfig

CLASSES = ("background", "a", "b", "c")


class Identity(nn.Module):
    """The class whose number is nearest to a voxel's value; of a whole image, the place of its largest value."""

    def __init__(self, dims: int, classify: bool = False) -> None:
        super().__init__()
        self.numbers = torch.arange(4.0).reshape(-1, *(1 for _ in range(dims)))
        self.classify = classify

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.classify:
            planes = ((1, 3, 4), (1, 2, 4), (1, 2, 3))
            return torch.stack([x.amax(dim=others).argmax(1) for others in planes], 1).float()
        return -torch.square(x - self.numbers)


def predictor(geometry: Geometry | None, dims: int = 3, task: str = "segment", **options: Any) -> Predictor:
    config = TrainConfig.build(task=task, data="d", output="o", **options)
    facts = DataFacts(CLASSES, dims, 1, Normalisation("dataset", (0.0,), (1.0,)), None, "", "drawn", {}, geometry)
    return build_predictor(TrainedRun(Identity(dims, task == "classify").eval(), config, facts, 0))


def drawn_affine(rng: np.random.Generator, spacing: Sequence[float], degrees: float) -> NDArray[np.float64]:
    """Axes in any order and direction, tilted, anywhere."""
    order = rng.permutation(3)
    axes = np.eye(3)[:, order] * rng.choice([-1.0, 1.0], 3)
    (vector,) = rng.normal(size=(1, 3))
    vector *= np.radians(degrees) / np.linalg.norm(vector)
    cross = np.cross(np.eye(3), vector)
    angle = np.linalg.norm(vector)
    turn = np.eye(3) + np.sin(angle) / angle * cross + (1 - np.cos(angle)) / angle**2 * cross @ cross
    affine = np.eye(4)
    affine[:3, :3] = turn @ axes * spacing
    affine[:3, 3] = rng.uniform(-100, 100, 3)
    return affine


def test_labels_pass_through_files_and_a_network_bit_by_bit_on_200_drawn_grids(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for number in range(200):
        shape = tuple(int(side) for side in rng.integers(2, 9, 3))
        label = rng.integers(0, 4, shape).astype(rng.choice(["u1", "i2", "f4"]))
        affine = drawn_affine(rng, rng.uniform(0.3, 4, 3), rng.uniform(0.1, 40))
        image = nibabel.Nifti1Image(label, affine)
        if number % 4 == 0:
            image.header.set_slope_inter(1.0, 0.0)
        nibabel.save(image, tmp_path / "in" / f"{number:03d}.nii{'.gz' * (number % 2)}")
    predict_files(predictor(Geometry("ras")), tmp_path / "in", tmp_path / "out")
    for path in sorted((tmp_path / "in").iterdir()):
        given = nibabel.load(path)
        target = tmp_path / "out" / f"{path.name.partition('.')[0]}.nii.gz"
        found = nibabel.load(target)
        np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(given.dataobj))
        np.testing.assert_array_equal(found.affine, given.affine)
        ours, theirs = (SimpleITK.ReadImage(str(each)) for each in (target, path))
        assert ours.GetSize() == theirs.GetSize()
        for name in ("GetOrigin", "GetSpacing", "GetDirection"):
            np.testing.assert_allclose(getattr(ours, name)(), getattr(theirs, name)(), rtol=1e-5, atol=1e-5)


def ball(shape: Sequence[int], affine: NDArray[np.float64], radius: float = 8.0) -> NDArray[np.uint8]:
    """Class 1 within ``radius`` mm of the origin, class 3 in its half towards the front."""
    place = np.tensordot(affine[:3, :3], np.indices(shape), 1) + affine[:3, 3].reshape(3, 1, 1, 1)
    inside = np.linalg.norm(place, axis=0) < radius
    return np.where(inside, np.where(place[1] > 0, 3, 1), 0).astype(np.uint8)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 0.5, 3.0), (2.0, 1.4, 0.7)])
def test_what_a_network_finds_at_its_spacing_returns_to_its_place(spacing: tuple[float, ...]) -> None:
    rng = np.random.default_rng(1)
    seen = predictor(Geometry("ras", (1.0, 1.0, 1.0)), patch=(16, 16, 16))
    for _ in range(4):
        affine = drawn_affine(rng, spacing, 10)
        shape = [int(24 / side) + 2 for side in spacing]
        affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2 + rng.uniform(-1, 1, 3)
        label = ball(shape, affine)
        # Class numbers are interpolated here as values, so borders between 0 and 3 pass through 1 and 2: one class.
        sample = Sample("a", (label > 0).astype(np.float32)[None], (label > 0).astype(np.uint8), affine)
        found = seen.label_map(sample)
        assert found.shape == label.shape
        assert 2 * ((found == 1) & (label > 0)).sum() / ((found == 1).sum() + (label > 0).sum()) > 0.95
        np.testing.assert_array_equal(seen.logits(sample).argmax(axis=0), found)
        tally = evaluate_samples(seen, [sample])
        assert tally.counts.sum() == label.size and tally.counts[1, 1] == ((found == 1) & (label > 0)).sum()


def test_memory_is_for_slabs_of_scores_and_not_for_all_of_them() -> None:
    """Where one voxel of the network's grid stands for 64 of the image, scores are made for some slices at a time."""
    seen = predictor(Geometry("keep", (4.0, 4.0, 4.0)))
    sample = Sample("a", np.zeros((1, 192, 192, 160), np.float32), None, None, (1.0, 1.0, 1.0))
    parts = [slab.shape for _, slab in seen.slabs(sample)]
    assert sum(shape[1] for shape in parts) == 192 and len(parts) > 4
    assert max(np.prod(shape) for shape in parts) <= 1 << 22


def test_figures_are_taken_on_the_own_grid_against_the_label_as_stored() -> None:
    rng = np.random.default_rng(2)
    samples = []
    for _ in range(12):
        affine = drawn_affine(rng, (1, 2, 3), 5)
        label = rng.integers(0, 4, rng.integers(3, 8, 3)).astype(np.uint8)
        samples.append(Sample("a", label.astype(np.float32)[None], label, affine))
    tally = evaluate_samples(predictor(Geometry("ras")), samples)
    assert tally.metrics()["metric"] == 1.0
    assert tally.counts.sum() == sum(np.size(sample.label) for sample in samples)


def test_classified_volumes_are_turned_too() -> None:
    image = np.zeros((1, 5, 6, 7), np.float32)
    image[0, 1, 2, 4] = 1
    reversed_affine = np.diag([1.0, -1.0, 1.0, 1.0])[:, [2, 1, 0, 3]]
    sample = Sample("a", np.ascontiguousarray(image[:, :, ::-1].transpose(0, 3, 2, 1)), 0, reversed_affine)
    seen = predictor(Geometry("ras"), task="classify", patch=(5, 6, 7))
    assert seen.class_logits([sample, Sample("b", image, 0, np.eye(4))]).tolist() == [[1, 2, 4]] * 2


def save(path: Path, affine: NDArray[np.float64]) -> Path:
    nibabel.save(nibabel.Nifti1Image(np.ones((3, 4, 5), np.float32), affine), path)
    return path


def test_runs_of_earlier_versions_take_images_as_stored_and_say_so_once(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / f"{name}.nii.gz", np.diag([-1.0, 2, 3, 1]))
    old = predictor(None)
    with pytest.warns(RuntimeWarning, match="earlier version") as caught:
        predict_files(old, tmp_path, tmp_path / "out")
    assert len(caught) == 1 and "a.nii.gz" in str(caught[0].message)
    np.save(tmp_path / "c.npy", np.ones((3, 4, 5), np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a file without geometry is as it was
        predict_files(old, tmp_path / "c.npy", tmp_path / "c-out.npy")
    assert dataclasses.asdict(old.run.data)["geometry"] is None and old.run.data.rule == Geometry()


def test_images_without_geometry_are_predicted_as_they_are_and_named(tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.full((3, 4, 5), 2, np.float32))
    save(tmp_path / "good.nii.gz", np.eye(4))
    with pytest.warns(RuntimeWarning, match=r"flat\.npy states no orientation or spacing") as caught:
        predict_files(predictor(Geometry("ras", (1.0, 1.0, 1.0))), tmp_path, tmp_path / "out")
    assert len(caught) == 1 and "good" not in str(caught[0].message)
    assert (np.asarray(nibabel.load(tmp_path / "out" / "flat.nii.gz").dataobj) == 2).all()
    Geometry("keep").warn_of_unknown([("x", None, None)])


def test_labels_of_another_grid_are_refused_or_resampled(tmp_path: Path) -> None:
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    half = np.diag([2.0, 2, 2, 1])
    half[:3, 3] = 0.5
    truth = np.zeros((12, 12, 12), np.uint8)
    truth[4:10, 2:8, 4:8] = 1
    for number in range(3):
        nibabel.save(nibabel.Nifti1Image(truth * 100.0, np.eye(4)), tmp_path / "images" / f"{number}.nii.gz")
        coarse = nibabel.Nifti1Image(truth[::2, ::2, ::2], half)
        label = nibabel.Nifti1Image(truth, np.eye(4)) if number == 0 else coarse
        nibabel.save(label, tmp_path / "labels" / f"{number}.nii.gz")
    with pytest.raises(DataError, match=r"labels/1\.nii\.gz"):
        data.load(tmp_path, "segment")
    found = data.load(tmp_path, "segment", resample_labels=True).split("all")
    for sample in found:
        assert isinstance(sample.label, np.ndarray) and sample.label.shape == truth.shape
        assert (sample.label == truth).mean() > (0.99 if sample.name != "0" else 0.9999)


def test_training_samples_come_onto_the_grid_and_others_stay() -> None:
    cache = Cache()
    sample = Sample("a", np.ones((1, 4, 4, 4), np.float32), np.ones((4, 4, 4), np.uint8), np.diag([-1.0, 2, 1, 1]))
    entries = [Entry("a", (4, 4, 4), (1.0, 2.0, 1.0), lambda: sample, None, sample.affine) for _ in range(2)]
    parts = (Split(tuple(some), cache) for some in (entries[:1], entries[1:]))
    whole = data.DataSet("d", "segment", 3, 1, CLASSES, *parts)
    assert whole.train[0].image.shape == (1, 4, 4, 4) and cache.used_bytes == 64 * 5
    found = Geometry("ras", (1.0, 1.0, 1.0)).training_data(whole)
    assert cache.used_bytes == 0  # the sample as stored is not needed any more
    assert found.train[0].image.shape == (1, 4, 8, 4) and found.validation[0] is sample
    assert found.spacing_mm == (1, 1, 1) and found.train.shapes == ((4, 8, 4),)
    assert Geometry().training_data(whole) is whole
