"""The plan of a run: levels by axis, patches in mm, normalisation of CT, memory and minutes; and the file of a plan."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from convoxel import models
from convoxel.cli import main
from convoxel.data import Sample
from convoxel.errors import ConfigError
from convoxel.predict.normalisation import Normalisation
from convoxel.predict.torch_network import input_sizes
from convoxel.train import TrainConfig, fit, load_model, plan_file, step_budget
from convoxel.train.defaults import PlannedRun, plan_run
from convoxel.train.intensity_plan import measure_normalisation, plan_normalisation
from convoxel.train.level_plan import plan_levels
from convoxel.train.step_budget import fit_budget
from tests.train.test_loop import segment, write_volumes

STATED: dict[str, Any] = {"task": "segment", "data": "d", "output": "o", "epochs": 1, "threads": 1}


def planned(size: tuple[int, ...], spacing: tuple[float, ...] | None = None, **entries: Any) -> PlannedRun:
    config = TrainConfig.build(**{**STATED, **entries})
    return plan_run(config, dims=len(size), channels=1, sizes=[size] * 3, spacing_mm=spacing)


@pytest.mark.parametrize("size", [(36, 50, 36), (8, 8, 8), (200, 180, 190), (7, 30, 9), (31, 33, 40)])
def test_axes_that_are_alike_are_pooled_alike(size: tuple[int, ...]) -> None:
    """As before there were plans by axis, whatever the unit."""
    for spacing in (None, (1.0, 1.0, 1.0), (0.3, 0.3, 0.9)):
        found = planned(size, spacing).config
        deepest = max(1, min(3, int(np.log2(max(min(size), 8) / 4))))
        assert (found.levels, found.model_options, found.width) == (deepest, {}, 16)


def test_thick_slices_are_pooled_when_the_others_are_as_coarse() -> None:
    found = plan_levels((24, 320, 320), (3.6, 0.6, 0.6), 3, 4)
    assert found.strides == ((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2))
    assert found.kernels[:3] == ((1, 3, 3), (1, 3, 3), (3, 3, 3)) and found.kernels[-1] == (3, 3, 3)
    assert "axis 0 (3.6 mm beside 0.6 mm) nothing is pooled or mixed before level 2" in found.reason
    for axis in range(3):  # whichever axis is the thick one
        size, spacing = [320] * 3, [0.6] * 3
        size[axis], spacing[axis] = 24, 3.6
        turned = plan_levels(size, tuple(spacing), 3, 4)
        for step, first in zip(turned.strides, found.strides, strict=True):
            assert (step[axis], *step[:axis], *step[axis + 1 :]) == first
    assert plan_levels((24, 48, 48), (3.0, 1.0, 1.0), 3).options == {}
    assert plan_levels((24, 48, 48), (3.1, 1.0, 1.0), 3).kernels[0] == (1, 3, 3)
    one = plan_levels((1, 64, 64), (5.0, 1.0, 1.0), 3)
    assert all(step == (1, 2, 2) for step in one.strides)
    assert plan_levels((3, 4, 5), None, 3).strides == ((2, 2, 2),)  # nothing is long enough: one level, as ever


def test_a_planned_network_of_thick_slices_takes_its_patch_and_trains() -> None:
    run = planned((24, 320, 320), (3.6, 0.6, 0.6))
    config = run.config
    assert config.patch == (12, 64, 80)  # 43 × 38 × 48 mm
    assert "near a cube in mm" in run.reasons["patch"]
    options = {**config.model_options, "levels": config.levels, "width": 2}
    net = models.build("unet", dims=3, in_channels=1, num_classes=2, **options).train()
    assert input_sizes(net).multiple == net.multiples
    sides = tuple(side // 2 if axis else side for axis, side in enumerate(config.patch))
    size = tuple(input_sizes(net).above(side, axis) for axis, side in enumerate(sides))
    assert net(torch.zeros(2, 1, *size)).shape == (2, 2, *size)


def test_the_smallest_size_of_unlike_axes_is_enough_for_instance_normalisation() -> None:
    for norm in ("batch", "instance"):
        options: dict[str, Any] = {"levels": 2, "width": 2, "strides": [(1, 2, 2), (1, 2, 2)], "norm": norm}
        net = models.build("unet", dims=3, in_channels=1, num_classes=2, **options).train()
        sizes = input_sizes(net)
        least = tuple(sizes.of(axis)[0] for axis in range(3))
        assert net(torch.zeros(2, 1, *least)).isfinite().all() and least == ((2 if norm == "instance" else 1), 4, 4)


def test_the_plan_says_how_many_dimensions_and_why() -> None:
    assert (
        planned((24, 64, 64), (3.6, 0.6, 0.6))
        .reasons["slices"]
        .startswith("3-D: the shortest axis of the median image has 24 slices, 3.6 mm apart; slices=3 makes it 2.5-D")
    )
    sliced = planned((24, 64, 64), (3.6, 0.6, 0.6), slices=3)
    assert "slices" not in sliced.reasons and sliced.config.slice_axis == 0 and sliced.config.model_options == {}
    assert "slices" not in planned((64, 64)).reasons


def test_stated_entries_hold_and_say_so() -> None:
    run = planned((24, 320, 320), (3.6, 0.6, 0.6), levels=2, width=4, batch_size=3, normalise="dataset")
    assert (run.config.levels, run.config.model_options, run.config.batch_size) == (2, {}, 3)
    assert {run.reasons[name] for name in ("levels", "width", "batch_size", "normalise")} == {"stated"}
    own = planned((24, 64, 64), (3.6, 0.6, 0.6), model_options={"strides": [2, 2]}, levels=2)
    assert own.config.model_options == {"strides": [2, 2]}


# ---- CT


def test_values_of_hounsfield_units_are_told() -> None:
    config = TrainConfig.build(**STATED)
    ct, reason = plan_normalisation(config, 3, 10, [(-1024.0, 1500.0)] * 9 + [(0.0, 900.0)])
    assert ct == "ct" and "9 of 10 images reach from -1024 to 1500" in reason
    for ranges in (
        [(0.0, 4000.0)] * 10,
        [(-3.0, 3.0)] * 10,
        [(-1024.0, 1500.0)] * 8 + [(0.0, 9.0)] * 2,
        [],
        [(-900.0, 0.0)],
    ):
        assert plan_normalisation(config, 3, 10, ranges)[0] == "sample"
    assert plan_normalisation(config, 2, 10, [(-1024.0, 1500.0)])[0] == "dataset"
    assert plan_normalisation(config.model_copy(update={"normalise": "sample"}), 3, 9, [(-1024.0, 1500.0)]) == (
        "sample",
        "stated",
    )


def write_ct(folder: Path, count: int = 5) -> Path:
    rng = np.random.default_rng(1)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for index in range(count):
        image = rng.normal(-1000, 10, (12, 16, 16))
        image[2:10, 3:13, 3:13] = rng.normal(40, 15, (8, 10, 10))
        image[4:6, 4:6, 4:6] = 2000.0
        label = np.zeros(image.shape, np.uint8)
        label[4:9, 6:12, 6:12] = 1
        affine = np.diag([4.0, 1.0, 1.0, 1.0])
        nibabel.save(nibabel.Nifti1Image(np.round(image).astype(np.int16), affine), folder / f"images/c{index}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label, affine), folder / f"labels/c{index}.nii.gz")
    return folder


def test_ct_is_normalised_by_its_labelled_voxels_in_training_and_prediction(tmp_path: Path) -> None:
    data = write_ct(tmp_path / "data")
    entries = {"levels": None, "width": 2, "patch": None, "epochs": 1, "steps_per_epoch": 2, "validation": 1}
    fit(segment(data, tmp_path / "run", **entries))
    run = load_model(tmp_path / "run")
    found = run.data.normalisation
    values = np.concatenate([
        nibabel.load(data / f"images/c{index}.nii.gz").get_fdata()[4:9, 6:12, 6:12].ravel() for index in range(4)
    ])  # fmt: skip
    assert found.kind == "ct"
    np.testing.assert_allclose(
        [found.mean[0], found.std[0], found.low[0], found.high[0]],
        [values.mean(), values.std(), *np.percentile(values, (0.5, 99.5))],
    )
    assert run.config.model_options["kernels"][0] == [1, 3, 3]
    image = np.array([[[-1000.0, 40.0, 2000.0]]], np.float32)
    given = found.statistics(image).normalise(image)[0, 0]
    expected = (np.clip([-1000.0, 40.0, 2000.0], found.low[0], found.high[0]) - found.mean[0]) / found.std[0]
    np.testing.assert_allclose(given, expected, rtol=1e-5)
    bare: Any = SimpleNamespace(train=[Sample("a", image[None], np.zeros((1, 1, 3), np.uint8))], channels=1)
    with pytest.raises(ConfigError, match="normalise: got 'ct', which measures labelled voxels, but no training image"):
        measure_normalisation(TrainConfig.build(**STATED, normalise="ct"), bare)


def test_facts_of_earlier_versions_cut_nothing_off() -> None:
    image = np.array([[[-9.0, 5.0, 70.0]]], np.float32)
    found = Normalisation("dataset", (5.0,), (2.0,)).statistics(image).normalise(image)
    assert found.tolist() == [[[-7.0, 0.0, 32.5]]]


# ---- memory and minutes


def draft(**entries: Any) -> Any:
    config = TrainConfig.build(**{**STATED, "epochs": None, "minutes": 10, **entries})
    sizes = [(60, 60, 60)] * 4
    return lambda scale: plan_run(config, dims=3, channels=1, sizes=sizes, scale=scale)


SET: Any = SimpleNamespace(dims=3, channels=1, outputs=("a", "b"))


def test_minutes_choose_a_smaller_or_larger_step(monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[float] = []
    monkeypatch.setattr(step_budget, "measure_step", lambda config, dataset: times.pop(0))
    usual = draft()(step_budget.Scale()).config
    times[:] = [0.25]  # 1 920 steps: as usual
    assert fit_budget(draft(), SET).config == usual
    times[:] = [20.0]  # 24 steps
    small = fit_budget(draft(), SET)
    assert small.config.batch_size == 2 < usual.batch_size and "24 steps fit" in small.reasons["minutes"]
    times[:] = [0.001, 0.004, 0.006, 0.02]
    large = fit_budget(draft(), SET)
    assert large.config.width == 32 and large.config.patch != usual.patch
    times[:] = [0.001, 0.1]  # what was thought to fit does not
    assert fit_budget(draft(), SET).config == usual
    times[:] = [0.001, 0.001]
    stated = fit_budget(draft(width=16, batch_size=2, patch=(40, 40, 40)), SET)
    assert (stated.config.width, stated.config.batch_size) == (16, 2) and "minutes" not in stated.reasons
    times[:] = []
    assert fit_budget(draft(minutes=None, epochs=3), SET).config.width == 16  # no clock, nothing is measured


def test_memory_is_that_of_the_network_and_bounds_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    epochs = {"minutes": None, "epochs": 1}
    found = fit_budget(draft(**epochs), SET)
    config = found.config
    net = models.build("unet", dims=3, in_channels=1, num_classes=2, levels=config.levels, width=int(config.width or 0))
    params = 16 * sum(p.numel() for p in net.parameters()) / 2**20
    assert f"{params:.1f} MiB of weights, gradients and moments" in found.reasons["memory"]
    needed = float(found.reasons["memory"].split()[3])
    monkeypatch.setattr(step_budget, "free_memory", lambda: int(needed * 2**20))  # half of it is allowed
    smaller = fit_budget(draft(**epochs), SET)
    assert float(smaller.reasons["memory"].split()[3]) <= needed / 2 < needed
    assert smaller.config.batch_size == 2


def test_a_measured_step_is_one_of_the_network() -> None:
    config = draft(width=2, patch=(8, 8, 8), levels=1, batch_size=2)(step_budget.Scale()).config
    seconds = step_budget.measure_step(config, SET)
    assert 0 < seconds < 60


# ---- the file


def test_a_plan_is_what_training_does_and_can_be_edited(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, path = write_volumes(tmp_path / "data"), tmp_path / "plan.yaml"
    words = ["plan", "segment", "--data", str(data), "--epochs", "1", "--width", "4", "--threads", "1"]
    assert main([*words, "--validation", "2", "--output", str(path), "--json"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    text = path.read_text()
    assert "\n# stated\nwidth: 4.0\n" in text and "\n# 1 level: 10 × 12 × 9 voxels are 5 × 6 × 4.5" in text
    assert "threads: 1" in text and "device" not in text and f"Train it: convoxel train --config {path}" in err
    assert not (tmp_path / "run").exists() and not Path("run").exists()
    planned = TrainConfig.from_yaml(path, output=str(tmp_path / "run"))
    edited = planned.override(["steps_per_epoch=2", "batch_size=2"])
    fit(edited)
    run = load_model(tmp_path / "run").config
    config = TrainConfig.build(**{**told["config"], "output": run.output, "steps_per_epoch": 2, "batch_size": 2})
    assert run == config
    again = plan_file(TrainConfig.from_yaml(path, output="run"))
    assert again.config.to_dict() == told["config"]


def test_a_plan_refuses_what_training_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_volumes(tmp_path / "data", 3)
    assert main(["plan", "segment", "--data", str(data), "--patch", "8,8"]) == 2
    assert "patch: got 2 sizes" in capsys.readouterr().err
    assert main(["plan", "segment"]) == 2 and "--data" in capsys.readouterr().err
