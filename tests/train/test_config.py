"""The configuration: what it accepts, what it says about mistakes, and how it compares and plans."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from convoxel.errors import ConfigError
from convoxel.predict.tile_size import InputSizes, plan_patch, plan_tile
from convoxel.train.config import TrainConfig
from convoxel.train.defaults import plan_run
from convoxel.train.optimisation import learning_rate, measure_fraction

pytestmark = pytest.mark.smoke

BASIC: dict[str, Any] = {"task": "segment", "data": "folder", "output": "run"}


def build(**entries: Any) -> TrainConfig:
    return TrainConfig.build(**{**BASIC, **entries})


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"levles": 3}, ["no entry 'levles'", "did you mean 'levels'?"]),
        ({"zzzzzz": 3}, ["no entry 'zzzzzz'", "names: task, data"]),
        ({"levels": 0}, ["levels=0", "greater than or equal to 1"]),
        ({"levels": "many"}, ["levels='many'", "integer"]),
        ({"minutes": 1, "epochs": 2}, ["give minutes or epochs, not both"]),
        ({"minutes": float("nan")}, ["minutes=nan", "finite"]),
        ({"task": "detect"}, ["task='detect'", "'segment', 'classify' or 'regress'"]),
        ({"task": "segmnt"}, ["task='segmnt'", "did you mean 'segment'?"]),
        ({"precision": "bfloat"}, ["precision='bfloat'", "did you mean 'bfloat16'?"]),
        ({"patch": (8, 8, 8, 8)}, ["patch=", "at most 3 items"]),
        ({"flip_axes": (3,)}, ["flip_axes.0=3", "less than or equal to 2"]),
        ({"validation": 1.5}, ["validation=1.5", "between 0 and 1"]),
        ({"validation": 0}, ["validation=0", "at least one sample"]),
        ({"data": None}, ["data=None"]),
    ],
)
def test_config_names_each_mistake_in_one_line(entries: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        build(**entries)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text


def test_config_names_all_mistakes_at_once() -> None:
    with pytest.raises(ConfigError, match=r"levels=0.*; .*batch_size=0"):
        build(levels=0, batch_size=0)


def test_missing_entry_is_named() -> None:
    with pytest.raises(ConfigError, match=r"data is missing; give data=…"):
        TrainConfig.build(task="segment", output="run")


def test_yaml_round_trip(tmp_path: Path) -> None:
    config = build(levels=2, patch=(8, 16, 8), model_options={"norm": "instance"}, learning_rate=1e-3)
    path = tmp_path / "run.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert TrainConfig.from_yaml(path) == config
    assert TrainConfig.from_yaml(path, levels=3, seed=None).levels == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a\n", "must hold `name: value` lines, got list"),
        ("seed: 2001-99-99", "is not YAML"),
        ("model_options: " + "[" * 20_000, "is not YAML"),
        ("a: [", r"is not YAML: line 1: .*\. Expected `name: value` lines\."),
        ("task: segment\n", r"data is missing.*\(in .*run.yaml\)"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_bad_yaml_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=words):
        TrainConfig.from_yaml(path)


def test_missing_yaml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^config: .*none.yaml: .*No such file"):
        TrainConfig.from_yaml(tmp_path / "none.yaml")


def test_override_reads_yaml_values() -> None:
    config = build(minutes=3).override(
        ["epochs=4", "patch=[8, 8, 8]", "learning_rate=1e-4", "model_options.norm=instance", "augment=false"]
    )
    assert (config.epochs, config.minutes, config.patch) == (4, None, (8, 8, 8))
    assert config.learning_rate == pytest.approx(1e-4)
    assert config.model_options == {"norm": "instance"}
    assert not config.augment.changes
    stated = config.override(["augment.rotate=15", "augment.scale=0.9,1.1", "augment.shift=5"])
    assert (stated.augment.level, stated.augment.rotate, stated.augment.scale) == ("none", 15, (0.9, 1.1))
    assert stated.augment.changes and build(augment="strong").augment.level == "strong"
    assert config.override(["rates.encoder.*=0.1", "rates.encoder.0.*=0", "optimiser=adamw"]).rates == {
        "encoder.*": 0.1, "encoder.0.*": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("levels", "expected name=value"),
        ("=3", "expected name=value"),
        ("levels=[", "is not YAML"),
        ("levels.x=1", "has no entries of its own"),
        ("levles=1", "did you mean 'levels'"),
    ],
)
def test_bad_override_is_refused(assignment: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(levels=3).override([assignment])


def test_a_patch_is_read_from_texts_and_lists() -> None:
    for given in ("8,16,24", "8 × 16 × 24", "(8, 16, 24)", [8, 16, 24], "8x16x24"):
        assert build(patch=given).patch == (8, 16, 24)
    for wrong in ("", "eight", "8,-1", "1.5,2", "1,2,3,4", "9" * 100):
        with pytest.raises(ConfigError, match="patch"):
            build(patch=wrong)


def test_difference_counts_only_what_was_stated() -> None:
    stored = plan_run(build(seed=7, epochs=2), dims=3, channels=1, sizes=[(32, 32, 32)]).config
    assert build().difference(stored) == []
    assert build(output="elsewhere", seed=7, epochs=2).difference(stored) == []
    assert build(epochs=3, levels=stored.levels).difference(stored) == ["epochs: 2 → 3"]
    assert build(minutes=3).difference(stored) == ["minutes: unset → 3.0"]
    merged = build(minutes=3).merged(stored)
    assert (merged.minutes, merged.epochs, merged.seed) == (3.0, None, 7)


def test_plan_decides_everything_and_keeps_what_is_stated() -> None:
    sizes = [(36, 50, 36)] * 5
    config = plan_run(
        build(width=8, spacing="keep", orientation="keep"), dims=3, channels=1, sizes=sizes, flip_axes=(2,)
    ).config
    assert (config.model, config.levels, config.width, config.patch) == ("unet", 3, 8, (40, 56, 40))
    assert (config.normalise, config.flip_axes, config.minutes) == ("sample", (2,), 10.0)
    undecided = {name for name, value in config.to_dict().items() if value is None}
    split = {"validation", "folds", "split", "subject_pattern", "axes", "rate"}
    data = {"class_weights", "ignore_label", "regions", "slices", "slice_axis"}
    assert undecided <= {"epochs", "validate_every", "weights", "ema", "patience", *data, *split}
    again = plan_run(config, dims=3, channels=1, sizes=sizes).config
    assert again == config


def test_plan_for_classes() -> None:
    config = plan_run(build(task="classify", epochs=100), dims=2, channels=3, sizes=[(32, 32)] * 50).config
    assert (config.model, config.levels, config.patch, config.flip_axes) == ("course_vgg", None, (32, 32), ())
    assert (config.batch_size, config.steps_per_epoch, config.validate_every) == (32, 2, 4)
    grey = plan_run(build(task="classify"), dims=2, channels=1, sizes=[(8, 8)] * 5).config
    assert grey.flip_axes == () and grey.batch_size == 5


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"patch": (8, 8)}, r"patch: got 2 sizes \(8, 8\), the images have 3 axes; give 3"),
        ({"patch": (8, 12, 8), "levels": 3}, r"patch: 12 is not a multiple of 8.*give 8 or 16"),
        ({"patch": (4, 8, 8), "levels": 3}, r"patch: 4 is not a multiple of 8.*give 8"),
        ({"model": "resnet18", "levels": 2}, r"levels: 2 given, but 'resnet18' has none"),
    ],
)
def test_plan_refuses_what_does_not_fit(entries: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        plan_run(build(**entries), dims=3, channels=1, sizes=[(32, 32, 32)])


def test_plan_refuses_flips_of_missing_axes() -> None:
    with pytest.raises(ConfigError, match=r"flip_axes: \(2,\) given, but the images have axes 0 … 1"):
        plan_run(build(flip_axes=(2,)), dims=2, channels=1, sizes=[(32, 32)])


def test_tile_covers_small_images_and_bounds_large_ones() -> None:
    assert plan_tile((35, 51, 36), (40, 56, 40), InputSizes(8, 8)) == (40, 56, 40)
    assert plan_tile((20, 60, 20), (40, 56, 40), InputSizes(8, 8)) == (24, 64, 24)
    large = plan_tile((512, 512, 512), (40, 40, 40), InputSizes(8, 8))
    assert max(large) <= 96 and all(side % 8 == 0 and side >= 40 for side in large)
    assert plan_patch((5, 5), InputSizes(16, 16), 100) == (16, 16)


def test_schedule_rises_falls_and_ends_low() -> None:
    config = build(epochs=10, steps_per_epoch=10, learning_rate=1.0, warmup=0.1)
    rates = [learning_rate(config, step / 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.05) and rates[10] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.01)
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert learning_rate(config.override(["schedule=constant"]), 0.9) == 1.0
    poly = config.override(["schedule=poly"])
    assert learning_rate(poly, 0.55) == pytest.approx(0.5**0.9) and learning_rate(poly, 1.0) == 0.0


def test_fraction_counts_steps_or_the_clock() -> None:
    assert measure_fraction(build(epochs=2, steps_per_epoch=5), 5, 1e9) == 0.5
    timed = build(minutes=1)
    assert measure_fraction(timed, 5, 30) == 0.5
    assert measure_fraction(timed, 5, 25, reserve_s=10) == 0.5
    assert measure_fraction(timed, 5, 1, reserve_s=60) == 1.0  # nothing is left to train
    assert measure_fraction(timed, 5, 99) == 1.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model_options: {a: &a [1, 1, 1, 1], b: &b [*a, *a, *a, *a], "
         + ", ".join(f"{c}: &{c} [*{b}, *{b}, *{b}, *{b}]" for b, c in pairwise("bcdefghijklmno")) + "}", "aliases"),
        ("model_options: &a {b: *a}", "aliases"),
        ("model_options: {a: 2001-01-01}", "model_options.*a is datetime.date"),
        ("model_options: {a: !!binary /w==}", "model_options.*a is b'"),
        ("model_options: {a: [.nan]}", "model_options.*a is nan"),
        ("model_options: {1: 2}", "model_options"),
        (f"seed: 0x{'f' * 5000}", "seed=an int that is too long to show"),
        (f"seed: {'9' * 5000}", "config:"),
        (f"seed: {'[' * 20000}", "is not YAML"),
        (f"patch: {'x' * 100_000}", "config: patch="),
        ("seed: 2001-99-99", "is not YAML"),
    ],
)  # fmt: skip
def test_odd_values_of_a_file_are_told_in_a_line(tmp_path: Path, text: str, words: str) -> None:
    """Nine levels of aliases stand for a billion values; a number may have more digits than Python writes."""
    path = tmp_path / "a.yaml"
    path.write_text(f"task: segment\ndata: mni152\noutput: x\n{text}\n")
    with pytest.raises(ConfigError, match=words) as caught:
        TrainConfig.from_yaml(path)
    assert len(str(caught.value)) < 2000


def test_a_wrong_entry_is_refused_wherever_it_is_given() -> None:
    for make in (TrainConfig, TrainConfig.build):
        with pytest.raises(ConfigError, match=r"epochs=-1: .*greater than or equal to 1"):
            make(task="classify", data="digits", output="run", epochs=-1)
    with pytest.raises(ConfigError, match="did you mean 'epochs'"):
        TrainConfig(task="classify", data="digits", output="run", epoch=1)
    with pytest.raises(ConfigError, match="data is missing"):
        TrainConfig(task="classify", output="run")


def test_records_are_checked_in_whichever_way_they_are_made() -> None:
    good = {"task": "classify", "data": "digits", "output": "run", "augment": {"rotate": 5}}
    config = TrainConfig.model_validate(good)
    assert config == TrainConfig.build(**good) and config.model_copy(update={"epochs": 3}).epochs == 3
    assert config.model_copy(update={"epochs": 3}).stated() == {**config.stated(), "epochs": 3}
    wrong = {**good, "augment": {"rotate": "far"}}
    for make, told in (
        (lambda: TrainConfig.model_validate(wrong), "augment.rotate='far': input should be a valid number"),
        (lambda: TrainConfig.model_validate_json(json.dumps(wrong)), "augment.rotate='far'"),
        (lambda: TrainConfig.model_validate_json("{"), "invalid JSON"),
        (lambda: TrainConfig.model_validate_strings({"task": "x"}), "task='x'.*data is missing"),
        (lambda: config.model_copy(update={"lerning_rate": 1}), "did you mean 'learning_rate'"),
        (lambda: config.model_copy(update={"epochs": "many"}), "epochs='many'"),
        (lambda: setattr(config, "epochs", 3), "epochs=3: instance is frozen"),
        (lambda: type(config.augment)(rotate=-1), "rotate=-1: .*greater than or equal to 0"),
        (lambda: type(config.augment)(level="stong"), "did you mean 'strong'"),
        (lambda: type(config.prediction)(mean="median"), "mean='median': input should be 'shares' or 'logits'"),
    ):
        with pytest.raises(ConfigError, match=told):
            make()
