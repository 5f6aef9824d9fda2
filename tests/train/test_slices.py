"""2.5-D: volumes through a network for planes, slice by slice, with neighbouring slices as channels."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from convoxel import models
from convoxel.data import Sample
from convoxel.errors import ConfigError
from convoxel.models.slice_network import SliceNetwork
from convoxel.predict.tile_size import InputSizes, plan_patch, plan_tile
from convoxel.predict.torch_network import input_sizes
from convoxel.train import TrainConfig, evaluate, fit, load_model, predict
from convoxel.train.defaults import plan_run
from convoxel.train.run_folder import load_predictor
from convoxel.train.training_patch import find_centres


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("context", [0, 1, 2])
def test_a_slice_sees_itself_and_its_neighbours(axis: int, context: int) -> None:
    torch.manual_seed(0)
    planar = models.build("unet", dims=2, in_channels=2 * (2 * context + 1), num_classes=3, levels=1, width=4)
    net = SliceNetwork(planar, 2, context, axis).eval()
    size = [8, 10]
    size.insert(axis, 6)
    x = torch.randn(2, 2, *size)
    found = net(x)
    assert isinstance(found, torch.Tensor)
    inner = [side - 2 * context * (k == axis) for k, side in enumerate(size)]
    assert found.shape == (2, 3, *inner) and net.borders[axis] == context and sum(net.borders) == context
    for place in range(6 - 2 * context):
        near = [x.select(2 + axis, place + step) for step in range(2 * context + 1)]
        wanted = planar(torch.cat(near, dim=1))
        torch.testing.assert_close(found.select(2 + axis, place), wanted, rtol=1e-5, atol=1e-5)


def test_sizes_differ_by_axis() -> None:
    planar = models.build("unet", dims=2, in_channels=3, num_classes=2, levels=3, width=4)
    fit_sizes = input_sizes(SliceNetwork(planar, 1, 1, 1))
    assert fit_sizes == InputSizes((8, 1, 8), (8, 3, 8), (0, 1, 0))
    assert plan_patch((20, 7, 33), fit_sizes) == (24, 7, 40)
    assert plan_patch((20, 3, 33), fit_sizes, 150) == (8, 3, 16)
    assert plan_patch((20, 3, 33), fit_sizes, 1) == (8, 3, 8)
    assert plan_tile((20, 5, 33), (16, 3, 16), fit_sizes) == (24, 7, 40)
    with pytest.raises(ConfigError, match="planar has dims=2 and in_channels=3; expected dims=2 and 5"):
        SliceNetwork(planar, 1, 2)
    with pytest.raises(ConfigError, match="axis is 3"):
        SliceNetwork(planar, 1, 1, 3)


def planned(sizes: tuple[int, ...], spacing: tuple[float, ...] | None = None, **entries: object) -> TrainConfig:
    config = TrainConfig.build(task="segment", data="x", output="y", slices=3, **entries)
    return plan_run(config, dims=len(sizes), channels=1, sizes=[sizes] * 3, spacing_mm=spacing).config


def test_slices_lie_across_the_thickest_axis() -> None:
    assert planned((64, 64, 20), (1.0, 3.0, 1.0)).slice_axis == 1
    assert planned((20, 64, 64), (1.0, 1.0, 1.0)).slice_axis == 0  # of equal spacings the shortest axis
    assert planned((64, 64, 64)).slice_axis == 2
    found = planned((300, 280, 20), (1.0, 1.0, 3.0))
    assert found.patch is not None and found.patch[2] == 3 and found.levels == 4 and found.width == 32
    assert planned((64, 64, 20), (1.0, 1.0, 3.0), slice_axis=0).patch == (3, 64, 20)
    for entries, words in (
        ({"slices": 4}, "slices: got 4; expected an odd number"),
        ({"slice_axis": 1}, "slice_axis: given without slices"),
        ({"slices": 3, "task": "classify"}, "slices: given to classify"),
    ):
        with pytest.raises(ConfigError, match=words):
            TrainConfig.build(**{"task": "segment", "data": "x", "output": "y", **entries})
    with pytest.raises(ConfigError, match="slices: 3 given, but the images have 2 axes"):
        planned((64, 64))


def volumes(folder: Path, count: int = 5) -> Path:
    """Bright boxes in thick slices across the second axis; a slice in the middle of one is dark, save in the label."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(4)
    for number in range(count):
        image, label = rng.normal(0, 20, (24, 9, 20)).astype(np.float32), np.zeros((24, 9, 20), np.uint8)
        low = rng.integers(3, 8, 2)
        box = np.s_[low[0] : low[0] + 11, 2:7, low[1] : low[1] + 9]
        label[box] = 1
        image[box] += 100
        image[:, 4] = rng.normal(0, 20, (24, 20))
        affine = np.diag([1.0, 4.0, 1.0, 1.0])
        for name, values in (("images", image), ("labels", label)):
            nibabel.save(nibabel.Nifti1Image(values, affine), folder / name / f"{number}.nii.gz")  # type: ignore[attr-defined]
    return folder


def test_volumes_are_trained_and_predicted_by_slices(tmp_path: Path) -> None:
    source = volumes(tmp_path / "set")
    known = {
        "levels": 1,
        "width": 6,
        "epochs": 2,
        "steps_per_epoch": 40,
        "batch_size": 6,
        "validate_every": 2,
        "learning_rate": 0.01,
    }
    fit(TrainConfig.build(task="segment", data=str(source), output=str(tmp_path / "run"), slices=3, validation=1,
                          threads=1, augment=True, tensorboard=False, **known))  # fmt: skip
    run = load_model(tmp_path / "run")
    assert isinstance(run.network, SliceNetwork) and run.config.slice_axis == 1
    assert run.config.patch is not None and run.config.patch[1] == 3
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert (
        plan["slices"] == "a 2-D network sees each slice across axis 1 (4 mm apart) with 1 at either side as channels"
    )
    assert "plane of the slices" in plan["augmentation"]
    found = evaluate(tmp_path / "run", metrics=["dice", "hd95"], replicates=0, engine="torch")
    assert (found["metric"] or 0) > 0.8  # the dark slice included, which its neighbours tell
    truth = np.asarray(nibabel.load(source / "labels" / "4.nii.gz").dataobj)  # type: ignore[attr-defined]
    (path,) = predict(tmp_path / "run", source / "images" / "4.nii.gz", tmp_path / "found.nii.gz")
    label = nibabel.load(path)  # type: ignore[attr-defined]
    assert np.array_equal(label.affine, np.diag([1.0, 4.0, 1.0, 1.0]))  # type: ignore[attr-defined]
    assert np.mean(np.asarray(label.dataobj)[:, 4] == truth[:, 4]) > 0.85  # type: ignore[attr-defined]
    other = Sample("x", np.random.default_rng(1).normal(size=(1, 18, 7, 26)).astype(np.float32))
    ours, theirs = (load_predictor(tmp_path / "run", engine=engine).logits(other) for engine in ("convoxel", "torch"))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_outermost_slices_are_trained_too(tmp_path: Path) -> None:
    from convoxel.predict.normalisation import Normalisation
    from convoxel.predict.trained_run import DataFacts
    from convoxel.train.training_batch import Batches

    label = np.zeros((6, 8, 8), np.uint8)
    label[0], label[5, :4] = 1, 1
    sample = Sample("x", np.arange(6 * 64, dtype=np.float32).reshape(1, 6, 8, 8), label)
    config = TrainConfig.build(task="segment", data="x", output="y", slices=5, slice_axis=0, patch=(5, 8, 8),
                               batch_size=1, augment=False, foreground=1.0)  # fmt: skip
    facts = DataFacts(("a", "b"), 3, 1, Normalisation("dataset", (0.0,), (1.0,)), None, "", "")
    batches = Batches([sample], config, facts)
    seen = {int(batches.batch(step).targets[0, 2].sum()) for step in range(12)}
    assert seen == {64, 32}  # the middle slice is always one with foreground
    assert len(find_centres(label, 2)) == 1
