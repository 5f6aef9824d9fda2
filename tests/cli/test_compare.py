"""Networks and runs side by side: the table's figures, the picture, and what is refused."""

from __future__ import annotations

import functools
import itertools
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convoxel.bench.clock import interleave
from convoxel.cli import main
from convoxel.draw.comparison_chart import Contender, comparison, save_comparison
from convoxel.draw.letter import text_width
from convoxel.draw.theme import colour
from convoxel.errors import ConfigError
from convoxel.lookup import describe
from convoxel.models import build
from convoxel.train import TrainConfig, fit
from tests.support.refusal import refused_command

ROWS = [
    Contender("unet levels=2", (1, 1, 8, 8), 1000, 64_000, (44, 44), False, 0.002, "Dice", 0.81, {"a": 0.8}, 60.0, 9),
    Contender("unet <levels=3>", (1, 1, 8, 8), 4000, 99_000, (100, 60), False, 1.5, "Dice", 0.83, {"a": None}, 61.0, 8),
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
        assert row["latency_s"] is None and row["metric"] is None


def test_table_with_times(capsys: pytest.CaptureFixture[str]) -> None:
    shown = output(capsys, "compare", "unet", "resnet18", "--shape", "1,3,32,32", "--set", "levels=1", "--threads", "1")
    assert "unet levels=1" in shown and "11,689,512" in shown and "435 + whole" in shown and "  ms" in shown
    rows = [line.split() for line in shown.splitlines() if line.startswith(("unet", "resnet18 "))]
    assert all(float(row[-1]) > 0 for row in rows) and len(rows) == 2


def test_runs_show_their_quality(capsys: pytest.CaptureFixture[str], runs: list[Path], tmp_path: Path) -> None:
    shown = output(capsys, "compare", *runs, "--output", tmp_path / "figure.png", "--threads", "1")
    assert "accuracy" in shown and "trained" in shown and "course_vgg (course_vgg)" in shown
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


def test_runs_are_compared_on_an_input_for_all(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:

    from convoxel.bench import network_comparison
    from convoxel.lookup import NamedNetwork

    sizes = {"run2": 12, "run3": 24}

    def choose(target: str, *_: Any, **__: Any) -> NamedNetwork:
        module = build("unet", 1, levels=int(target[-1]), width=2).eval()
        return NamedNetwork(f"unet of {target}", module, ((1, 1, sizes[target]),))

    monkeypatch.setattr(network_comparison, "find_network", choose)
    found = json.loads(output(capsys, "compare", "run2", "run3", "--no-time", "--json"))["networks"]
    assert [row["shape"] for row in found] == [[1, 1, 24]] * 2 and found[0]["name"] == "run2 (unet)"
    sizes.update(run1=6, run2=8, run3=8)
    found = json.loads(output(capsys, "compare", "run1", "run3", "--no-time", "--json"))["networks"]
    assert [row["shape"] for row in found] == [[1, 1, 8]] * 2
    sizes.update(run1=10)
    found = json.loads(output(capsys, "compare", "run1", "run3", "--no-time", "--json"))["networks"]
    assert [row["shape"] for row in found] == [[1, 1, 16]] * 2


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
    rows = [Contender(f"network number {i}", (1, 1, 8), 10, 1000 + i, (), False, None, "accuracy", 0.7 + i / 1000)
            for i in range(4)]  # fmt: skip
    root = ElementTree.fromstring(comparison(rows).svg())
    labels = [element for element in root.iter("{http://www.w3.org/2000/svg}text")
              if (element.text or "").startswith("network")][4:]  # fmt: skip
    assert len(labels) == 4
    for one, other in itertools.combinations(labels, 2):
        (x, y), (a, b) = ((float(label.get("x", 0)), float(label.get("y", 0))) for label in (one, other))
        assert abs(y - b) >= 12 or abs(x - a) > text_width("network number 1", 11.5)


def test_costs_far_apart_have_a_logarithmic_axis() -> None:
    rows = [Contender(str(macs), (1, 1, 8), 10, macs, (), False, None, "Dice", 0.5) for macs in (10**6, 10**9)]
    texts = [
        element.text
        for element in ElementTree.fromstring(comparison(rows).svg()).iter("{http://www.w3.org/2000/svg}text")
    ]
    assert {"1.00\xa0M", "10.0\xa0M", "100\xa0M", "1.00\xa0G"} <= set(texts)


def test_figure_refuses(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="comparison: rows is empty"):
        comparison([])
    with pytest.raises(ConfigError, match=r"nowhere.*folder does not exist"):
        save_comparison(ROWS, tmp_path / "nowhere" / "figure.svg")
    assert save_comparison(ROWS, tmp_path / "a.b") == (tmp_path / "a.b.svg", tmp_path / "a.b.png")
