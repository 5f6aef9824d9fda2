"""The geometry of a run: chosen from headers, stated, kept in its folder, and the same when it goes on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from convoxel import data
from convoxel.cli import main
from convoxel.data import DataSet, Sample, Split
from convoxel.data.data_set import Entry
from convoxel.data.geometry import Geometry
from convoxel.errors import ConfigError
from convoxel.predict.inference import Predictor
from convoxel.predict.sliding_window import tile_starts
from convoxel.train import TrainConfig, evaluate, fit, load_model, pace
from convoxel.train.geometry_plan import geometry_of, plan_geometry
from convoxel.train.label_survey import LabelSurvey
from convoxel.train.mirroring import plan_mirroring
from tests.predict.test_geometry import Identity, predictor

LPS = np.diag([-2.0, -1.0, 1.0, 1.0])


def config(**entries: Any) -> TrainConfig:
    return TrainConfig.build(**{"task": "segment", "data": "d", "output": "o", **entries})


def headers(*images: tuple[Sequence[float] | None, NDArray[np.float64] | None]) -> DataSet:
    """A data set of which only headers are looked at."""
    entries = tuple(
        Entry(
            "a",
            (20, 30, 40),
            None if spacing is None else tuple(spacing),
            lambda: Sample("a", np.zeros(1)),
            None,
            affine,
        )
        for spacing, affine in images
    )
    return DataSet("drawn", "segment", 3, 1, ("background", "thing"), Split(entries), Split(entries[:1]))


def test_spacing_and_orientation_are_read_from_texts_lists_and_numbers() -> None:
    for given, wanted in (
        ("1,1,3", (1, 1, 3)), ("1 × 1 × 2.5", (1, 1, 2.5)), ([0.5, 2], (0.5, 2)), (1.5, (1.5,)), ("keep", "keep"),
        (None, None),
    ):  # fmt: skip
        assert config(spacing=given).spacing == wanted
    assert config().override(["spacing=[1, 1, 3]"]) == config().override(["spacing=1,1,3"]) == config(spacing=(1, 1, 3))
    stored = config(spacing=(1, 1, 3), orientation="ras")
    assert TrainConfig.build(**stored.to_dict()) == stored
    for wrong in ("", "1,-1", "0", "nan", "inf,1", "1,2,3,4", "median", [], [None], {"x": 1}, True and "yes"):
        with pytest.raises(ConfigError, match=r"spacing=.*such as 1,1,3, or keep"):
            config(spacing=wrong)
    with pytest.raises(ConfigError, match="orientation='las'"):
        config(orientation="las")


def test_a_run_takes_the_axes_of_the_patient_and_the_median_spacing() -> None:
    found = plan_geometry(config(), headers((None, LPS), (None, LPS[:, [2, 0, 1, 3]]), ((9, 9, 9), None)))
    assert found.geometry == Geometry("ras", (2, 1, 1)) and geometry_of(found.config) == found.geometry
    assert (found.config.orientation, found.config.spacing) == ("ras", (2, 1, 1))
    assert "2 of 3 training images are turned, 1 resampled" in found.reason
    assert plan_geometry(config(task="classify"), headers((None, LPS))).geometry == Geometry("ras")
    assert plan_geometry(config(), headers(((1, 2, 3), None))).geometry == Geometry("keep", (1, 2, 3))
    nothing = plan_geometry(config(), headers((None, None)))
    assert nothing.geometry == Geometry() and (nothing.config.orientation, nothing.config.spacing) == ("keep", "keep")


def test_what_is_stated_stays_and_is_checked() -> None:
    set_ = headers((None, LPS))
    assert plan_geometry(config(spacing="keep", orientation="keep"), set_).geometry == Geometry()
    assert plan_geometry(config(spacing=1.5, task="classify"), set_).geometry == Geometry("ras", (1.5,) * 3)
    assert plan_geometry(config(orientation="keep"), set_).geometry == Geometry("keep", (2, 1, 1))
    for entries, data_set, words in (
        ({"orientation": "ras"}, headers((None, None)), "orientation: 'ras' given"),
        ({"spacing": (1, 1, 1)}, headers((None, None)), "spacing: 1 × 1 × 1 mm given"),
        ({"spacing": (1, 1)}, set_, "spacing: got 2 distances"),
    ):
        with pytest.raises(ConfigError, match=words):
            plan_geometry(config(**entries), data_set)
    assert geometry_of(config()) is None  # of a version that knew no geometry


def write(folder: Path, count: int = 6) -> Path:
    """Volumes with a thing on the patient's left or right, stored in many ways and at two spacings."""
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for number in range(count):
        spacing = 1.0 if number % 3 else 2.0
        label = np.zeros([int(side / spacing) for side in (16, 20, 12)], np.uint8)
        label[: len(label) // 2 if number % 2 else None, 2:6, 3:] = 1
        affine = np.diag([spacing, spacing, spacing, 1])
        order, flips = rng.permutation(3), rng.integers(0, 2, 3)
        moved, other = label.transpose(order), affine[:, [*order, 3]].copy()
        for axis in np.flatnonzero(flips):
            moved = np.flip(moved, axis)
            other[:3, 3] += other[:3, axis] * (moved.shape[axis] - 1)
            other[:3, axis] *= -1
        image = (moved * 100 + rng.normal(0, 3, moved.shape)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(image, other), folder / f"images/{number}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(moved), other), folder / f"labels/{number}.nii.gz")
    return folder


def test_sets_that_are_stored_in_many_ways_are_mirrored_from_left_to_right(tmp_path: Path) -> None:
    stored = data.load(write(tmp_path / "data"), "segment", validation=2)
    for rule, axes in ((Geometry(), ()), (Geometry("ras"), (0,))):
        survey = LabelSurvey(stored.classes, 3)
        rule.training_data(stored).train.problems(survey.add)
        assert plan_mirroring(config(), survey, 1).axes == axes


def test_a_run_keeps_its_geometry_and_goes_on_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    wanted = config(
        data=str(write(tmp_path / "data")), output=str(run), levels=1, width=2, patch=(8, 8, 8), batch_size=2, epochs=1,
        steps_per_epoch=2, validation=2, threads=1, tensorboard=False, spacing=(1, 1, 2),
    )  # fmt: skip
    fit(wanted)
    loaded = load_model(run)
    assert (loaded.config.spacing, loaded.config.orientation) == ((1, 1, 2), "ras")
    assert loaded.data.geometry == Geometry("ras", (1, 1, 2)) and loaded.data.spacing_mm == pytest.approx((1, 1, 2))
    plan = json.loads((run / "plan.json").read_text())
    assert plan["geometry"].startswith("axes towards right, front and top (RAS+), 1 × 1 × 2 mm: stated; ")
    assert "4 resampled" in plan["geometry"]
    with np.load(run / "examples.npz") as examples:  # pictures of the files' own grids
        assert len(examples["images"]) > 0
    fit(config(data=wanted.data, output=str(run), epochs=2), resume=True, force=True)
    again = load_model(run, "last")
    assert again.step == 4 and again.data.geometry == loaded.data.geometry
    whole = evaluate(run, engine="torch", split="all")
    assert whole["count"] == 6
    sizes = [np.prod(shape) for shape in data.load(wanted.data, "segment", validation=2).split("all").shapes]
    assert np.sum(whole["confusion"]) == sum(sizes)  # measured on the files' own grids
    assert main(["describe", str(run)]) == 0
    assert "Images: axes towards right, front and top (RAS+), 1 × 1 × 2 mm" in capsys.readouterr().out


@pytest.mark.parametrize(("spacing", "factor"), [((1.0, 2.0, 1.0), 0), ((0.5, 1.0, 2.0), 1)])
def test_the_way_back_to_the_own_grid_counts_in_the_time_of_validations(
    monkeypatch: pytest.MonkeyPatch, spacing: tuple[float, ...], factor: int
) -> None:
    """By a clock that advances for each voxel: 1 s on the network's grid, 2 s for what returns from it."""
    rule, clock = Geometry("keep", (1.0, 2.0, 1.0)), [0.0]
    facts = dataclasses.replace(predictor(rule).run.data, geometry=rule)
    made = TrainConfig.build(
        task="segment", data="d", output="o", patch=(8, 8, 8), overlap=0.5, prediction={"tile": "patch"}
    )
    image = np.zeros((1, 40, 24, 12), np.float32)
    sample = Sample("a", image, np.zeros(image.shape[1:], np.uint8), None, spacing)
    part = Split(tuple(Entry("a", image.shape[1:], spacing, lambda: sample) for _ in range(3)))

    def evaluate_tiles(model: Predictor, samples: Sequence[Sample]) -> None:
        for each in samples:
            place = rule.place_sample(each)
            assert max(place.shape) <= 8  # a tile, no more
            clock[0] += np.prod(place.shape) + 2 * each.image.size * place.resamples

    monkeypatch.setattr(pace, "_measure_step", lambda *_: 0.0)
    monkeypatch.setattr(pace, "now", lambda: clock[0])
    monkeypatch.setattr(pace, "evaluate_samples", evaluate_tiles)
    found = pace.measure_pace(made, DataSet("d", "segment", 3, 1, facts.classes, part, part), facts, Identity(3))
    voxels, back = (3 * np.prod(shape) for shape in (rule.place_sample(sample).shape, image.shape))
    assert found.validation_s >= voxels + 2 * back * factor * 0.9  # tiles overlap
    tiles = 3 * 8**3 * np.prod([len(tile_starts(side, 8, 0.5)) for side in rule.place_sample(sample).shape])
    assert found.evaluation_s == pytest.approx(tiles + 2 * back * factor, rel=0.05)
