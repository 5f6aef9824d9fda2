"""Networks and runs side by side: the table's figures, the picture, and what is refused."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from convoxel.bench.clock import interleave
from convoxel.bench.run_quality import compare_quality
from convoxel.bench.seed_groups import group_seeds
from convoxel.cli import main
from convoxel.draw.comparison_chart import Contender, Quality, basis, comparison, save_comparison
from convoxel.draw.letter import text_width
from convoxel.draw.scene import Words
from convoxel.draw.theme import colour
from convoxel.errors import ConfigError
from convoxel.lookup import describe
from convoxel.models import build
from convoxel.predict.case_statistics import Interval
from convoxel.train import TrainConfig, evaluate, fit
from tests.support.refusal import refused_command

REACHED = [
    Quality("Dice", 0.81, {"a": 0.8}, interval=Interval(0.75, 0.87), train_s=60.0, steps=9),
    Quality("Dice", 0.83, {"a": None}, interval=Interval(0.7, 0.95), train_s=61.0, steps=8),
]
ROWS = [
    Contender("unet levels=2", (1, 1, 8, 8), 1000, 64_000, (44, 44), False, 0.002, REACHED[0]),
    Contender("unet <levels=3>", (1, 1, 8, 8), 4000, 99_000, (100, 60), False, 1.5, REACHED[1]),
    Contender("a name that is much too long to be read in a figure", (1, 1, 8, 8), 4000, 99_000),
]


@pytest.fixture(autouse=True)
def short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    brief = functools.partial(interleave, rounds=1, pause_s=0.0)
    monkeypatch.setattr("convoxel.bench.network_comparison.interleave", brief)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs of one step each on the digits."""
    folder = tmp_path_factory.mktemp("runs")
    short = {"task": "classify", "data": "digits", "epochs": 1, "steps_per_epoch": 1, "batch_size": 4, "threads": 1,
             "validation": 60, "tensorboard": False, "width": 0.0625}  # fmt: skip
    for model in ("course_vgg", "resnet18"):
        fit(TrainConfig.build(**short, model=model, output=str(folder / model)))
    return [folder / "course_vgg", folder / "resnet18"]


def output(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


# ---- the command -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["--levels", "1", "2"], ["--levels", "1,2"]])
def test_levels_are_varied_by_one_word(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    shape = (1, 1, 16, 16)
    shown = output(capsys, "compare", "unet", *words, "--shape", "1,1,16,16", "--set", "width=4", "--no-time", "--json")
    found = json.loads(shown)["networks"]
    assert [row["name"] for row in found] == ["unet width=4 levels=1", "unet width=4 levels=2"]
    for row, levels in zip(found, (1, 2), strict=True):
        summary = describe(build("unet", 2, levels=levels, width=4), shape)
        assert (row["params"], row["macs"]) == (summary.params, summary.macs)
        assert tuple(row["field"]) == summary.field.size and tuple(row["shape"]) == shape
        assert row["latency_s"] is None and row["metric"] is None and row["metric_name"] == ""


def test_table_with_times(capsys: pytest.CaptureFixture[str]) -> None:
    shown = output(capsys, "compare", "unet", "resnet18", "--shape", "1,3,32,32", "--set", "levels=1", "--threads", "1")
    assert "unet levels=1" in shown and "11,689,512" in shown and "435 + whole" in shown and "  ms" in shown
    rows = [line.split() for line in shown.splitlines() if line.startswith(("unet", "resnet18 "))]
    assert all(float(row[-1]) > 0 for row in rows) and len(rows) == 2


def test_runs_show_their_quality(capsys: pytest.CaptureFixture[str], runs: list[Path], tmp_path: Path) -> None:
    shown = output(capsys, "compare", *runs, "--output", tmp_path / "figure.png", "--threads", "1")
    assert "accuracy" in shown and "trained" in shown and "course_vgg (course_vgg)" in shown
    assert "Measured on digits, 60 held-out images." in shown and "the best" in shown
    assert f"Figure: {tmp_path / 'figure.svg'} and figure.png" in shown
    with Image.open(tmp_path / "figure.png") as picture:
        assert picture.size[0] > 800
    found = json.loads(output(capsys, "compare", *runs, "--no-time", "--json"))
    for row, run in zip(found["networks"], runs, strict=True):
        evaluation = json.loads((run / "evaluation.json").read_text())
        assert row["metric"] == evaluation["metric"] and row["per_class"] == evaluation["per_class"]
        assert row["metric_name"] == "accuracy" and row["train_s"] > 0 and row["steps"] == 1
        assert row["params"] == json.loads((run / "describe.json").read_text())["total"]["params"]
    assert found["figure"] == []


def test_runs_and_networks_mix(capsys: pytest.CaptureFixture[str], runs: list[Path]) -> None:
    found = json.loads(output(capsys, "compare", runs[0], "resnet18", "--set", "width=0.0625", "--no-time", "--json"))
    first, second = found["networks"]
    assert first["shape"] == [1, 1, 8, 8] and second["shape"] == [1, 3, 224, 224] and second["metric"] is None
    # Each costs what describe says; a pixel of the input makes different inputs comparable.
    for row, word, options in ((first, str(runs[0]), {}), (second, "resnet18", {"width": 0.0625})):
        assert row["macs"] == describe(word, **options).macs
        assert row["macs_a_pixel"] == pytest.approx(row["macs"] / (row["shape"][2] * row["shape"][3]))


def test_images_are_paired_with_those_of_the_best(runs: list[Path]) -> None:
    """Against a count by hand: who is right where, and how sure that difference is."""
    right = [
        {
            sample["name"]: float(sample["correct"])
            for sample in json.loads((run / "evaluation.json").read_text())["samples"]
        }
        for run in runs
    ]
    found = compare_quality([str(run) for run in runs])
    qualities = [quality for quality in found if quality is not None]
    best, other = sorted((0, 1), key=lambda place: -sum(right[place].values()))
    differences = np.array([right[other][name] - right[best][name] for name in right[best]])
    paired = qualities[other].difference
    assert qualities[best].best and qualities[best].difference is None and paired is not None
    assert paired.images == 60 and paired.mean == pytest.approx(differences.mean())
    assert paired.interval is not None and paired.interval.low <= paired.mean <= paired.interval.high
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    if wins + losses:
        assert paired.effect == pytest.approx((wins - losses) / (wins + losses))
        assert paired.p_value == pytest.approx(stats.binomtest(wins, wins + losses).pvalue)
    for quality, values in zip(qualities, right, strict=True):
        count = round(sum(values.values()))
        wilson = stats.binomtest(count, 60).proportion_ci(method="wilson")
        assert quality.interval == pytest.approx((wilson.low, wilson.high)) and quality.group == ""


def rewritten(run: Path, copy: Path, **changes: Any) -> Path:
    """Return a copy of a run whose evaluation or manifest was changed."""
    shutil.copytree(run, copy)
    if "samples" in changes:
        file = copy / "evaluation.json"
        evaluation = json.loads(file.read_text())
        file.write_text(json.dumps({**evaluation, "samples": changes["samples"](evaluation["samples"])}))
    if "fingerprint" in changes:
        for name in ("best", "last"):
            file = copy / "checkpoints" / f"{name}.json"
            manifest = json.loads(file.read_text())
            manifest["body"]["data"]["fingerprint"] = changes["fingerprint"]
            file.write_text(json.dumps(manifest))
    return copy


def test_runs_on_other_data_or_images_are_not_compared(runs: list[Path], tmp_path: Path) -> None:
    elsewhere = rewritten(runs[1], tmp_path / "elsewhere", fingerprint="0" * 64)
    fewer = rewritten(runs[1], tmp_path / "fewer", samples=lambda samples: samples[:50])
    unknown = rewritten(runs[1], tmp_path / "unknown")
    file = unknown / "evaluation.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "metric": None}))
    first, second = compare_quality([runs[0], unknown])
    assert first is not None and second is not None and first.best and not second.best and second.difference is not None
    open_one = rewritten(runs[1], tmp_path / "open")
    (open_one / "evaluation.json").unlink()
    found = compare_quality([*map(str, (runs[0], elsewhere, fewer, open_one, runs[1])), None])
    assert [quality and quality.group for quality in found] == ["A", "B", "C", "D", "A", None]
    assert [quality and quality.difference is not None for quality in found].count(True) == 1  # within A alone
    told = basis([Contender(str(i), (1, 1, 8, 8), 1, 1, quality=quality) for i, quality in enumerate(found)])
    assert "qualities compare only within: A: digits, 60 held-out images; B: digits" in told[0]
    assert "C: digits, 50 held-out images; D: digits, the best validation so far" in told[0]
    moved = [dataclasses.replace(each, group="", basis=f"{name}, 60 held-out images") for each, name in zip(
        [quality for quality in found if quality][:2], ("digits", "copy"), strict=True
    )]  # fmt: skip
    told = basis([Contender(str(i), (1, 1, 8, 8), 1, 1, quality=quality) for i, quality in enumerate(moved)])
    assert told[0] == "Measured on digits, 60 held-out images; copy, 60 held-out images (the same images)."
    texts = [words.text for words in comparison(
        [Contender(str(i), (1, 1, 8, 8), 1, 1, quality=quality) for i, quality in enumerate(found)]
    ).shapes if isinstance(words, Words)]  # fmt: skip
    assert {"accuracy on A", "accuracy on B", "accuracy on C", "accuracy on D"} <= set(texts)
    assert "accuracy on A over multiply–adds" in texts and "accuracy on B over multiply–adds" not in texts


def test_runs_are_measured_on_other_data(
    capsys: pytest.CaptureFixture[str], runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every metric that was asked for, of both runs, paired on the same images."""
    measure = functools.partial(evaluate, engine="torch")  # nothing to compile
    monkeypatch.setattr("convoxel.bench.run_quality.evaluate", measure)
    rng = np.random.default_rng(0)
    for name in "01":
        (tmp_path / "other" / name).mkdir(parents=True)
        for index in range(4):
            pixels = rng.integers(0, 255, (8, 8)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "other" / name / f"{index}.png")
    words = ["compare", *runs, "--data", tmp_path / "other", "--metrics", "accuracy,brier", "--no-time"]
    found = json.loads(output(capsys, *words, "--json"))["networks"]
    for row, run in zip(found, runs, strict=True):
        figures = measure(run, tmp_path / "other", metrics=["accuracy", "brier"])
        assert row["metric"] == figures["metric"] and row["basis"] == "other (all), 8 images"
        assert {name: each["value"] for name, each in row["measured"].items()} == {
            name: pytest.approx(figure["value"]) for name, figure in figures["figures"].items()
        }
    shown = output(capsys, *words)
    assert "Measured on other (all), 8 images." in shown and shown.count("brier") == 2
    assert "metrics: given without data" in refused_command(capsys, "compare", *runs, "--metrics", "auc")
    assert "data: given, but none of unet is a run" in refused_command(capsys, "compare", "unet", "--data", "digits")


def test_names_stay_distinct(capsys: pytest.CaptureFixture[str], runs: list[Path], tmp_path: Path) -> None:
    """Two folders of one name are told apart by what they lie in, and none comes twice."""
    for place in ("first", "second"):
        shutil.copytree(runs[0], tmp_path / place / "run")
    words = [tmp_path / "first" / "run", tmp_path / "second" / "run", runs[1]]
    found = json.loads(output(capsys, "compare", *words, "--no-time", "--json"))["networks"]
    assert [row["name"] for row in found] == [
        "first/run (course_vgg)", "second/run (course_vgg)", "resnet18 (resnet18)"
    ]  # fmt: skip
    assert "comes twice" in refused_command(capsys, "compare", words[0], tmp_path / "second" / ".." / "first" / "run")
    assert "unet comes twice" in refused_command(capsys, "compare", "unet", "unet")


@pytest.mark.parametrize("words, match", [
    (["unett"], "did you mean 'unet'"),
    (["unet", "--levels", "two"], "levels: got 'two'; expected whole numbers"),
    (["3", "--levels", "2"], "compare: no network given"),
    (["resnet18", "--levels", "2", "--no-time"], "none of resnet18 has levels"),
    (["resnet18", "--set", "levels=2", "--no-time"], "set: 'levels=2' given, but none of resnet18 has that option"),
    (["resnet18", "--set", "levels", "--no-time"], "set: got 'levels'; expected name=value"),
    (["unet", "--shape", "1,1"], "shape: got '1,1'"),
    (["unet", "--shape", "1,1,30,32"], "height 30"),
    (["unet", "--shape", "1,1,16,16", "--no-time", "--output", "no/such/folder/figure"], "output: the folder of no"),
])  # fmt: skip
def test_mistakes(capsys: pytest.CaptureFixture[str], words: list[str], match: str) -> None:
    assert match in refused_command(capsys, "compare", *words)


# ---- the figure ------------------------------------------------------------------------------------------


def test_figure_holds_every_figure() -> None:
    root = ElementTree.fromstring(comparison(ROWS).svg())
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    for text in ("unet levels=2", "unet <levels=3>", "a name that is much to…to be read in a figure", "4.00\xa0k",
                 "64.0\xa0k", "2 ms", "1.5 s", "0.810", "0.830", "1 min", "Dice over multiply–adds",
                 "3 networks on an input of 1 × 1 × 8 × 8"):  # fmt: skip
        assert text in texts, (text, texts)
    discs = list(root.iter("{http://www.w3.org/2000/svg}circle"))
    assert len(discs) == 4  # two in the panel, two over the cost
    lines = [element for element in root.iter() if element.get("data-interval")]
    assert len(lines) == 4  # the interval of each


def test_bars_are_as_long_as_their_values() -> None:
    rows = [Contender(str(macs), (1, 1, 8), 10, macs) for macs in (100, 200, 400)]
    root = ElementTree.fromstring(comparison(rows).svg())
    bars = [float(rect.get("width", 0)) for rect in root.iter("{http://www.w3.org/2000/svg}rect")
            if rect.get("data-bar")]  # fmt: skip
    assert bars[3:] == pytest.approx([bars[5] / 4, bars[5] / 2, bars[5]], abs=0.02) and bars[0] == bars[1]


def test_picture_shows_what_the_drawing_shows() -> None:
    picture = np.asarray(comparison(ROWS).picture())
    assert picture[0, 0].tolist() == list(colour("card"))
    for name in ("c7", "c5"):  # bars and dots
        assert (picture == np.array(colour(name), np.uint8)).all(axis=2).sum() > 100


def test_names_of_near_dots_do_not_overlap() -> None:
    near = [Quality("accuracy", 0.7 + i / 1000) for i in range(4)]
    rows = [Contender(f"network number {i}", (1, 1, 8), 10, 1000 + i, quality=near[i]) for i in range(4)]
    root = ElementTree.fromstring(comparison(rows).svg())
    labels = [element for element in root.iter("{http://www.w3.org/2000/svg}text")
              if (element.text or "").startswith("network")][4:]  # fmt: skip
    assert len(labels) == 4
    for one, other in itertools.combinations(labels, 2):
        (x, y), (a, b) = ((float(label.get("x", 0)), float(label.get("y", 0))) for label in (one, other))
        assert abs(y - b) >= 12 or abs(x - a) > text_width("network number 1", 11.5)


def test_costs_far_apart_have_a_logarithmic_axis() -> None:
    rows = [Contender(str(macs), (1, 1, 8), 10, macs, (), False, None, Quality("Dice", 0.5)) for macs in (10**6, 10**9)]
    texts = [
        element.text
        for element in ElementTree.fromstring(comparison(rows).svg()).iter("{http://www.w3.org/2000/svg}text")
    ]
    assert {"1.00\xa0M", "10.0\xa0M", "100\xa0M", "1.00\xa0G"} <= set(texts)


def test_no_axis_turns_noise_into_a_difference() -> None:
    """Qualities of 0.900 and 0.905 stand as near as they are, on axes from 0 to 1."""
    rows = [Contender(str(i), (1, 1, 8), 10, 1000 + i, (), False, None, Quality("Dice", 0.9 + i / 200)) for i in (0, 1)]
    root = ElementTree.fromstring(comparison(rows).svg())
    discs = [[float(d.get(key, 0)) for key in ("cx", "cy")] for d in root.iter("{http://www.w3.org/2000/svg}circle")]
    (first, _), (second, _) = discs[:2]  # in the column
    assert second - first == pytest.approx(92 * 0.005, abs=0.02)
    (_, upper), (_, lower) = discs[2:]  # over the cost
    assert upper - lower == pytest.approx(300 * 0.005, abs=0.02)


def test_figure_refuses(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="comparison: rows is empty"):
        comparison([])
    with pytest.raises(ConfigError, match=r"nowhere.*folder does not exist"):
        save_comparison(ROWS, tmp_path / "nowhere" / "figure.svg")
    assert save_comparison(ROWS, tmp_path / "a.b") == (tmp_path / "a.b.svg", tmp_path / "a.b.png")


def test_effects_are_told_apart_from_seeds(
    capsys: pytest.CaptureFixture[str], runs: list[Path], tmp_path: Path
) -> None:
    again = []
    for seed in (1, 2):
        config = TrainConfig.from_yaml(runs[0] / "config.yaml").model_copy(update={"seed": seed})
        again.append(tmp_path / f"seed{seed}")
        shutil.copytree(runs[0], again[-1])
        (again[-1] / "config.yaml").write_text(config.to_yaml())
    metrics = dict(zip("abcd", (0.5, 0.7, 0.9, 0.4), strict=True))
    folders = [runs[0], *again, runs[1]]
    plain, other = group_seeds({name: (folder, metrics[name]) for name, folder in zip("abcd", folders, strict=True)})
    assert plain.runs == ("a", "b", "c") and plain.mean == pytest.approx(0.7) and other.runs == ("d",)
    assert plain.deviation == pytest.approx(0.2) and other.deviation is None
    assert "model=course_vgg" in plain.changed and "model=resnet18" in other.changed
    assert not any(each.startswith(("seed", "output")) for each in plain.changed)
    shown = output(capsys, "compare", *folders, "--no-time")
    assert "what differs" in shown and "± over seeds" in shown and "model=resnet18" in shown
    assert "the seed alone" in output(capsys, "compare", *folders[:3], "--no-time")
    assert "to tell effects from chance" in output(capsys, "compare", *runs, "--no-time")
