"""The plan of a run, told before its first step: what it chose, how it mirrors, its budget; and warnings on the way."""

from __future__ import annotations

import itertools
import json
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convoxel.data import Sample
from convoxel.data.geometry import Geometry, Placement
from convoxel.data.resample import AxisSampling
from convoxel.errors import ConfigError
from convoxel.predict.evaluation import evaluate_samples, evaluate_split
from convoxel.train import RunPlan, TrainConfig, fit, load_model, loop, pace, training_run
from convoxel.train.checkpoint import Store
from convoxel.train.label_survey import LabelSurvey
from convoxel.train.mirroring import Mirroring, plan_mirroring
from convoxel.train.training_state import TrainingState
from convoxel.train.watch import LossWatch, watch_classes
from tests.train.test_loop import classify, essence, stop_at

BASIC: dict[str, Any] = {"task": "segment", "data": "folder", "output": "run"}


# ---- mirroring -------------------------------------------------------------------------------------------


def volume(*boxes: tuple[int, int], affine: Any = "eye", size: int = 40, axis: int = 0) -> Sample:
    """A volume whose class k fills the k-th (start, stop) along ``axis``."""
    label = np.zeros((size, 12, 12), np.uint8)
    for number, (start, stop) in enumerate(boxes, 1):
        label[start:stop, 3:9, 3:9] = number
    label = np.ascontiguousarray(np.moveaxis(label, 0, axis))
    return Sample("v", label[None].astype(np.float32), label, np.eye(4) if isinstance(affine, str) else affine)


def mirroring(samples: list[Sample], classes: str = "background a b", **entries: Any) -> Mirroring:
    label = samples[0].label
    dims = samples[0].image.ndim - 1
    survey = LabelSurvey(classes.split(), dims)
    for sample in samples:
        survey.add(sample)
    config = TrainConfig.build(**{**BASIC, "task": "segment" if np.ndim(label) else "classify", **entries})
    return plan_mirroring(config, survey, samples[0].image.shape[0])


MIDDLE = [volume((10, 30), (15, 25))] * 4


@pytest.mark.parametrize(("affine", "axis"), [
    (np.eye(4), 0), (np.diag([-2.0, 1, 3, 1]), 0), (np.eye(4)[:, [1, 0, 2, 3]], 1), (np.eye(4)[:, [1, 2, 0, 3]], 2),
    (np.array([[0.2, 0.1, 0.97, 9], [0.9, 0.3, -0.2, 9], [0.3, -0.95, 0.1, 9], [0, 0, 0, 1]]), 2), (None, 2),
])  # fmt: skip
def test_the_axis_is_left_right_in_the_images_own_orientation(affine: Any, axis: int) -> None:
    samples = [volume((3, 9), (2, 10), affine=affine, size=12)] * 3
    found = mirroring(samples)
    assert found.axes == (axis,)
    assert ("the files state no orientation" in found.reason) == (affine is None)


def test_images_that_lie_differently_are_not_mirrored() -> None:
    turned = volume((10, 30), (15, 25), affine=np.eye(4)[:, [1, 0, 2, 3]])
    assert mirroring([*MIDDLE, turned]) == ((), mirroring([*MIDDLE, turned]).reason)
    assert "lie in different ways" in mirroring([*MIDDLE, turned]).reason
    front = np.eye(4)[:, [1, 2, 0, 3]]  # a plane from front to back: its third axis would be left–right
    plane = Sample("p", np.zeros((1, 8, 8), np.float32), np.ones((8, 8), np.uint8), front)
    assert mirroring([plane], "background a").axes == ()


def sided(order: list[int], size: int = 40) -> list[Sample]:
    """Two boxes on opposite sides; where the order is −1, class 2 lies left."""
    return [volume(*[(4, 12), (28, 36)][::way], size=size) for way in order]


def test_classes_on_opposite_sides_are_not_mirrored() -> None:
    found = mirroring(sided([1] * 6))
    assert found.axes == () and "'a' and 'b' lie on opposite sides in 6 of 6" in found.reason
    assert mirroring(sided([1, 1, 1, 1, -1])).axes == ()  # four of five
    assert mirroring(sided([1, -1, 1, -1, 1, -1])).axes == (0,)  # either side: a mirrored case is a case
    assert mirroring([volume((8, 30), (20, 24))] * 6).axes == (0,)  # one inside the other
    assert mirroring(sided([1] * 6), flip_axes=(1,)) == ((1,), "stated")
    assert mirroring(sided([1] * 6), augment=False).axes == ()


def test_opposite_sides_are_those_of_the_body_not_of_the_file() -> None:
    """The same anatomy, stored from right to left in every second file."""
    away = np.diag([-1.0, 1, 1, 1])
    stored = [volume((4, 12), (28, 36)), volume((28, 36), (4, 12), affine=away)] * 3
    assert mirroring(stored).axes == ()


@pytest.mark.parametrize("sided", [False, True])
def test_mirroring_is_the_same_in_whichever_way_volumes_are_stored(sided: bool) -> None:
    """The image's own affine says which axis runs from left to right, and to which side: 48 ways, one choice."""
    rng = np.random.default_rng(3)
    sizes = np.array((16, 12, 10))
    samples = []
    for number in range(6):
        label = np.zeros(sizes, np.uint8)
        order = (1, 2) if sided or number % 2 else (2, 1)
        label[2:6, 3:9, 3:9], label[10:14, 3:9, 3:9] = order
        image = rng.random((1, *sizes), np.float32)
        samples.append(Sample("v", image, label, np.diag([1.0, 1, 2, 1]), (1.0, 1.0, 2.0)))
    plain = mirroring(samples)
    assert plain.axes == (() if sided else (0,)) and ("opposite sides" in plain.reason) == sided
    for axes in itertools.permutations(range(3)):
        for flips in itertools.product((False, True), repeat=3):
            way = Placement(axes, flips, tuple(AxisSampling(n, n) for n in sizes[list(axes)]))
            stored = [
                replace(
                    sample, image=way.turned(sample.image), label=way.turned(np.asarray(sample.label)),
                    affine=np.asarray(sample.affine) @ way.matrix, spacing_mm=None,
                )
                for sample in samples
            ]  # fmt: skip
            assert mirroring([Geometry("ras").sample(sample) for sample in stored]) == plain
            kept = mirroring(stored)
            assert kept.reason == plain.reason and kept.axes == tuple(axes.index(axis) for axis in plain.axes)


def test_a_guessed_orientation_compares_no_sides() -> None:
    known = sided([1, -1] * 3)
    guessed = [replace(sample, oriented=False) for sample in known]
    assert mirroring(known) == ((0,), "left–right, by the images' orientation")
    assert mirroring(guessed) == ((0,), "left–right, the width, since the files state no orientation")
    both = mirroring([*known, *guessed])
    assert both.axes == () and "6 of 12 files state no orientation" in both.reason


def test_a_class_of_one_side_is_not_mirrored() -> None:
    """A twin on the other side, which is background, would be learnt as the class."""
    assert "'a' lies on the same side" in mirroring([volume((4, 12))] * 5, "background a").reason
    assert mirroring([volume((4, 12)), volume((28, 36))] * 3, "background a").axes == (0,)
    assert mirroring([volume((8, 30))] * 5, "background a").axes == (0,)  # across the middle


@pytest.mark.parametrize(("classes", "mirrored"), [
    ("background left_lung right_lung", False), ("background LeftLung RightLung", False),
    ("background lung.l lung.r", False), ("background LH RH", False), ("background bright upright", True),
    ("background L1 L2", True), ("background R S", True),
])  # fmt: skip
def test_names_that_say_left_or_right_are_not_mirrored(classes: str, mirrored: bool) -> None:
    assert (mirroring(MIDDLE, classes).axes == (0,)) == mirrored


def test_planes_signals_and_classes() -> None:
    plane = Sample("p", np.zeros((1, 8, 9), np.float32), np.ones((8, 9), np.uint8))
    assert mirroring([plane], "background a").axes == (1,)
    signal = Sample("s", np.zeros((1, 9), np.float32), np.ones(9, np.uint8))
    assert mirroring([signal], "background a").axes == ()
    photograph = Sample("c", np.zeros((3, 8, 9), np.float32), 1)
    assert mirroring([photograph], "cat dog").axes == (1,) and "letters" in mirroring([photograph], "cat dog").reason
    assert mirroring([photograph], "left-turn right-turn").axes == ()
    grey = Sample("g", np.zeros((1, 8, 9), np.float32), 1)
    assert mirroring([grey], "cat dog").axes == () and "writing" in mirroring([grey], "cat dog").reason


# ---- the plan --------------------------------------------------------------------------------------------


def test_everything_chosen_is_told_before_the_first_step_and_stored(tmp_path: Path) -> None:
    told: list[str] = []
    config = classify(tmp_path / "run", epochs=1)
    fit(config, on_plan=lambda plan: told.append(str(plan)), on_progress=lambda p: told.append(f"step {p.step}"))
    (place,) = (index for index, text in enumerate(told) if text.startswith("task"))
    assert told[:place] == ["step 0"]
    plan = told[place]
    for name in ("data", "parts", "network", "input", "batch", "normalisation", "augmentation", "mirroring", "loss",
                 "optimiser", "schedule", "device", "budget", "seed"):  # fmt: skip
        assert re.search(rf"^{name}  ", plan, re.MULTILINE), name
    words = " ".join(plan.split())
    run = load_model(tmp_path / "run")
    params = sum(p.numel() for p in run.network.parameters())
    assert f"{params:,} parameters" in words and "train 1737, validation 60: 60 of the data validate" in words
    assert "8 images, 3 steps" in words and "1 epoch of 3 steps, 3 in all" in words and "mirroring none: " in words
    assert str(RunPlan.read(tmp_path / "run")) == plan
    assert run.data.parts == {"train": 1737, "validation": 60}
    assert json.loads((tmp_path / "run/describe.json").read_text())["total"]["params"] == params
    again: list[RunPlan] = []
    fit(config, resume=True, on_plan=again.append)
    assert str(again[0]) == plan


def test_runs_of_earlier_versions_keep_their_parts(tmp_path: Path) -> None:
    """They validated on the test part, and go on so: the same steps, the same metrics."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 255, (32, 12, 12)).astype(np.uint8), np.arange(24) % 2
    path = tmp_path / "set.npz"
    np.savez(path, train_images=images[:24], train_labels=labels, test_images=images[24:], test_labels=labels[:8])
    entries: dict[str, Any] = {"data": str(path), "validation": None, "batch_size": 4}
    fit(classify(tmp_path / "new", **entries))
    assert load_model(tmp_path / "new").data.parts == {"train": 19, "validation": 5, "test": 8}
    for name, halt in (("whole", None), ("broken", stop_at(4))):
        run = tmp_path / name
        fit(classify(run, **entries), on_progress=stop_at(1))
        store = Store(run)
        found = store.load()
        store.save(found.tensors, {**found.body, "data": {**found.body["data"], "parts": {}}})  # as they wrote it
        fit(classify(run, **entries), resume=True, force=True, on_progress=halt)
        if halt is not None:
            fit(classify(run, **entries), resume=True)
        assert load_model(run).data.parts == {"train": 24, "validation": 8}
    assert essence(tmp_path / "whole") == essence(tmp_path / "broken")
    with pytest.raises(
        ConfigError, match="validation: got 'test', but a part that chooses the checkpoint tests nothing"
    ):
        fit(classify(tmp_path / "never", **{**entries, "validation": "test"}))


# ---- the budget ------------------------------------------------------------------------------------------


class FakeClock:
    """A clock on which only steps and predictions take time: 5 s a step, half a second for each image."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time_s = 0.0
        for module in (loop, pace, training_run):
            monkeypatch.setattr(module, "now", lambda: self.time_s)
        plain_step, plain_trial = loop._step, pace._measure_step

        def step(*arguments: Any) -> float:
            self.time_s += 5.0
            return plain_step(*arguments)

        def trial(*arguments: Any) -> float:
            self.time_s += 10.0
            plain_trial(*arguments)
            return 5.0

        def evaluate(predictor: Any, samples: Any, *rest: Any, **more: Any) -> Any:
            self.time_s += 0.5 * len(samples)
            return evaluate_samples(predictor, samples, *rest, **more)

        def close(predictor: Any, dataset: Any, split: str, *rest: Any) -> Any:
            self.time_s += 0.5 * len(dataset.split(split))
            return evaluate_split(predictor, dataset, split, *rest)

        monkeypatch.setattr(loop, "_step", step)
        monkeypatch.setattr(pace, "_measure_step", trial)
        monkeypatch.setattr(loop, "evaluate_samples", evaluate)
        monkeypatch.setattr(pace, "evaluate_samples", evaluate)
        monkeypatch.setattr(training_run, "evaluate_split", close)


@pytest.mark.parametrize("minutes", [2.0, 6.0])
def test_the_whole_run_keeps_to_its_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: float) -> None:
    """Measuring, training, every validation (30 s) and the closing evaluation (30 s) are counted."""
    clock = FakeClock(monkeypatch)
    result = fit(classify(tmp_path / "run", epochs=None, minutes=minutes, validate_every=None))
    assert clock.time_s == result.seconds <= 60 * minutes
    assert result.seconds > 60 * minutes - 5 - 0.1 * 60 - 6  # a step, the spare tenth, and rounding to epochs
    validations = len(essence(tmp_path / "run")[1])
    assert result.steps == (clock.time_s - 14 - 30 * validations - 30) / 5 and validations >= 1


def test_a_budget_without_room_for_a_step_is_refused_with_the_least(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = classify(tmp_path / "run", epochs=None, minutes=0.5)
    FakeClock(monkeypatch)
    with pytest.raises(
        ConfigError, match=r"minutes: 0.5 is too short for a single step: .*one step 5 s, a validation 3"
    ) as caught:
        fit(config)
    assert not (tmp_path / "run").exists()
    (least,) = re.findall(r"at least minutes=([\d.]+)", str(caught.value))
    clock = FakeClock(monkeypatch)
    result = fit(classify(tmp_path / "run", epochs=None, minutes=float(least)))
    assert result.steps >= 1 and clock.time_s <= 60 * float(least)


# ---- warnings --------------------------------------------------------------------------------------------


def state() -> TrainingState:
    model = torch.nn.Linear(1, 1)
    return TrainingState(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        torch.amp.GradScaler("cpu", enabled=False),
        step=7,
        fraction=0.6,
    )


def test_a_loss_that_diverges_is_told_once() -> None:
    found, watch = state(), LossWatch()
    falls = [2.0 * 0.98**step for step in range(100)]
    for loss in falls:
        watch.add(found, loss, 0.05)
    with pytest.warns(RuntimeWarning, match=r"the loss diverges.*Lower learning_rate \(it is 0.05\)") as caught:
        for loss in [1.9] * 100:
            watch.add(found, loss, 0.05)
    assert len(caught) == 1 and list(found.warnings) == ["loss"]


def test_a_loss_that_explodes_at_once_is_told() -> None:
    found, watch = state(), LossWatch()
    for loss in (0.7, 9.0, 60.0):
        watch.add(found, loss, 90.0)
    assert not found.warnings  # two steps may be a wave
    with pytest.warns(RuntimeWarning, match=r"diverges: it began at 0.7 and is 6.14e\+03 at step 7.*it is 90\)"):
        watch.add(found, 6143.0, 90.0)


@pytest.mark.parametrize("course", ["falls", "stays", "wavers", "ends low", "begins low"])
def test_a_loss_that_does_not_diverge_is_left_alone(course: str) -> None:
    rng = np.random.default_rng(0)
    noise = rng.lognormal(0, 0.4, 400)
    losses = {
        "falls": 2.0 * 0.99 ** np.arange(400) * noise,
        "stays": 0.7 * noise,
        "wavers": (1.0 + 0.5 * np.sin(np.arange(400) / 9)) * noise,
        "begins low": np.where(np.arange(400) == 0, 0.02, 0.3 * noise),
        "ends low": np.where(np.arange(400) < 40, 2.0, 0.01) * noise**2,
    }[course]
    watch, found = LossWatch(), state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for loss in losses:
            watch.add(found, float(loss), 0.1)


def test_a_network_that_knows_one_class_is_told() -> None:
    one: Any = {"confusion": [[9, 0], [4, 0]]}
    early = state()
    early.fraction = 0.1
    watch_classes(early, one, ["back", "front"])
    assert not early.warnings
    found = state()
    with pytest.warns(RuntimeWarning, match="the network predicts 'back' for everything that validates, at step 7"):
        watch_classes(found, one, ["back", "front"])
    watch_classes(found, one, ["back", "front"])  # once
    both: Any = {"confusion": [[9, 0], [3, 1]]}
    watch_classes(found, both, ["back", "front"])
    assert not found.warnings
    alone: Any = {"confusion": [[9, 0], [0, 0]]}  # nothing else was there to be found
    watch_classes(found, alone, ["back", "front"], done=True)
    assert not found.warnings


def test_classes_that_a_part_lacks_are_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros((6, 16, 16), np.uint8)
    labels[:5, 4:9, 4:9] = 1
    labels[5, 4:9, 4:9] = 2
    path = tmp_path / "set.npz"
    np.savez(path, images=rng.random((6, 16, 16)), labels=labels, classes=np.array(["back", "near", "far"]))
    entries = {
        "task": "segment",
        "data": str(path),
        "model": None,
        "width": 4,
        "levels": 1,
        "validation": 1,
        "epochs": 1,
    }
    with pytest.warns(RuntimeWarning) as caught:
        fit(classify(tmp_path / "run", **entries, batch_size=2, steps_per_epoch=1, validate_every=1))
    texts = [str(warning.message) for warning in caught]
    assert any("no train sample of set holds 'far', so it cannot be trained on" in text for text in texts)
    assert any("no validation sample of set holds 'near', so it cannot be validated" in text for text in texts)
