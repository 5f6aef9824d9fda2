"""Curves and reports: complete, honest about what is missing, self-contained, safe against names from outside."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convoxel.draw import curves
from convoxel.draw.figure import Figure
from convoxel.draw.scene import Look, Words
from convoxel.draw.training_curves import Curve, charts, line_chart
from convoxel.errors import CheckpointError, ConfigError
from convoxel.report import read_run, render_report, write_report
from convoxel.report.results import headline
from tests.support.drawing import SVG, check_texts, parsed
from tests.support.written_run import classified, history, segmented

EVIL = '<script>alert("x")</script>&\'"'


class Page(HTMLParser):
    """Checks the nesting, gathers elements and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("img", "input", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words += data


def read(run: Path) -> Page:
    path = write_report(run)
    assert path == run / "report.html" and not list(run.glob(".*"))
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in {name for name, _ in page.elements}
    for name, attributes in page.elements:
        for key in ("src", "href"):
            value = attributes.get(key) or "#"
            assert value.startswith(("#", "data:image/png;base64,")), (name, value[:60])
        assert name != "link" and not any(key.startswith("on") for key in attributes)
        if name == "img":
            assert attributes["alt"]
        if name == "svg":
            assert attributes.get("aria-label") or attributes["aria-labelledby"]
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {a["href"] for n, a in page.elements if n == "a"}
    assert targets <= {f"#{name}" for name in ids}
    return page


def test_report_of_a_segmentation(tmp_path: Path) -> None:
    page = read(segmented(tmp_path / "my run"))
    images = [a for name, a in page.elements if name == "img"]
    assert len(images) == 2 * 4 and "where prediction and label differ" in str(images[3]["alt"])
    for words in ("0.912", "on 3 held-out images", "step 30", "of 50 taken", "2 min 30 s", "44³", "1.23\u00a0k",
                  "95.0 %", "73.1 %", "0.800 – 0.900", "the hardest first", "shortest axis", "8 × 8 × 8", "max pool",
                  f"convoxel train --resume '{tmp_path}/my run' --minutes 6 --force", "Note.",
                  "A 3-D U-Net that segments"):  # fmt: skip
        assert words in page.words, words
    assert "not finished" not in page.words and "In words" not in page.words
    label = np.zeros((20, 16), int)
    label[5:12, 5:9] = 1
    dice = 2 * (label & np.roll(label, 1, 0)).sum() / (2 * label.sum())
    assert f"grey {dice:.3f}" in page.words


def test_report_of_what_was_chosen_and_went_wrong(tmp_path: Path) -> None:
    """The plan in words, warnings at the top, and both classes beside their mean, which hides one that is not found."""
    run = segmented(tmp_path / "run")
    evaluation = json.loads((run / "evaluation.json").read_text())
    evaluation |= {"metric": 0.45, "per_class": {"grey": 0.9, "white": 0.0}, "warnings": [f"train: {EVIL}"]}
    evaluation["samples"] = [{"name": str(i), "metric": i / 4, "dice": {"grey": i / 4}} for i in range(5)]
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    (run / "plan.json").write_text(json.dumps({"mirroring": f"none: {EVIL} lies left", "seed": "0"}))
    page = read(run)
    assert f"none: {EVIL} lies left" in page.words and f"train: {EVIL}" in page.words and "In words" in page.words
    cards = [(card.name, card.value) for card in headline(read_run(run))][:3]
    assert cards == [("mean Dice", "0.450"), ("grey", "0.900"), ("white", "0.000")]
    assert headline(read_run(run))[0].note == "on 3 held-out images, half of them 0.250 – 0.750"
    one = classified(tmp_path / "one", ["cat", "dog", "owl"])
    assert [card.name for card in headline(read_run(one))][1] == "best checkpoint"
    assert headline(read_run(one))[0].note.endswith("interval 9.5 % – 90.5 %")  # Wilson's of one of two


def test_report_of_a_classification(tmp_path: Path) -> None:
    page = read(classified(tmp_path / "run", ["cat", "dog", "owl"]))
    for words in ("97.0 %", "✗ dog, is cat (70.0\u00a0% sure)", "✓ dog (> 99.9\u00a0% sure)",
                  "1 of 2 images were not recognised", "75.0 %", "A VGG that classifies", "cat, dog and owl",
                  "--epochs 8 --force", "classes.csv"):  # fmt: skip
        assert words in page.words, words
    assert page.words.index("✗ dog") < page.words.index("✓ dog")
    cells = [a["title"] for n, a in page.elements if n == "td" and "title" in a]
    assert "cat predicted as dog: 3 of 12 (25.0 %)" in cells


def measured(run: Path, **more: Any) -> Path:
    """Give a run's evaluation what later versions write: every metric with its interval, and curves."""
    path = run / "evaluation.json"
    evaluation = json.loads(path.read_text())
    per_class = {name: {"value": 0.8, "interval": [0.7, 0.9], "images": 3} for name in evaluation["per_class"]}
    entry = {"unit": "", "better": "higher", "words": "as defined", "value": 0.8, "interval": [0.75, 0.85],
             "per_class": per_class}  # fmt: skip
    figures = {"dice": entry, "hd95": {**entry, "unit": "mm", "better": "lower", "value": 2.5, "interval": None},
               "auc": entry, "ap": entry, "ece": {**entry, "value": 0.05, "per_class": {}}}  # fmt: skip
    drawn = {"replicates": 2000, "method": "by bootstrap", "subjects": 3}
    path.write_text(
        json.dumps({**evaluation, "figures": figures, "resampling": drawn, "empty_rule": f"Rule {EVIL}.", **more})
    )
    return run


def test_every_metric_is_shown_with_its_interval_and_unit(tmp_path: Path) -> None:
    run = measured(segmented(tmp_path / "run"))
    arrays = read_run(run).examples
    np.savez(run / "examples.npz", **arrays, scores=np.array([0.25, np.nan]))  # type: ignore[arg-type]
    page = read(run)
    for words in ("All metrics", "0.800 (0.750 – 0.850)", "0.800 (0.700 – 0.900)", "hd95 (mm)", "2.500", "lower",
                  "Intervals: by bootstrap, over 3 subjects.", f"Rule {EVIL}.", "interval 0.750 – 0.850",
                  "The worst come first.", "mean Dice of the whole image 0.250. Dice in this picture"):  # fmt: skip
        assert words in page.words, words
    assert page.words.count("of the whole image") == 1  # nothing is there in the other


def test_a_page_of_other_images_says_so_and_leaves_the_runs_own(tmp_path: Path) -> None:
    run = measured(segmented(tmp_path / "run"))
    evaluation = {**json.loads((run / "evaluation.json").read_text()), "data": f"other {EVIL}", "split": "all"}
    evaluation["samples"] = tuple(evaluation["samples"])  # as Python has them, before any JSON
    examples = read_run(run).examples
    path = write_report(run, tmp_path / "other.html", evaluation=evaluation, examples=examples)
    page = Page(path.read_text())
    for words in (f"measured on other {EVIL} (all).", f"Images of other {EVIL} (all), as the best", "on 3 images",
                  f"with the best checkpoint on other {EVIL} (all). Recall"):  # fmt: skip
        assert words in page.words, words
    assert "held-out" not in page.words.lower() and not (run / "report.html").exists()
    bare = Page(write_report(run, tmp_path / "bare.html", evaluation=evaluation).read_text())
    assert "There are no example predictions yet" in bare.words


def test_curves_of_a_classification_are_drawn(tmp_path: Path) -> None:
    steps = [[0.0, 0.0], [0.1, 0.8], [1.0, 1.0]]
    bins = [{"confidence": 0.6, "accuracy": 0.5, "images": 4}, {"confidence": 7, "accuracy": 1}]
    curves = {
        "roc": {"cat": steps, "dog": steps, EVIL: [[0.0, 2.0], [1.0, 1.0]]},
        "precision_recall": {"cat": steps},
        "calibration": bins,
    }
    page = read(measured(classified(tmp_path / "run", ["cat", "dog"]), curves=curves))
    for words in ("ROC curves", "cat, area 0.800", "cat, average 0.800", "Calibration, expected error 0.050"):
        assert words in page.words, words
    lines = [a for name, a in page.elements if name == "polyline" and len((a.get("points") or "").split()) == 3]
    assert len(lines) == 3  # two ROC curves, one of precision: what is no curve is left out
    assert "Precision and recall" not in read(classified(tmp_path / "older", ["cat", "dog"])).words


def test_many_classes_become_a_list_of_confusions(tmp_path: Path) -> None:
    page = read(classified(tmp_path / "run", [f"kind {i}" for i in range(40)]))
    assert "The most frequent of 1 kinds of confusion among 40 classes" in page.words
    assert "into 40 classes" in page.words


def test_names_from_outside_are_escaped(tmp_path: Path) -> None:
    read(segmented(tmp_path / "a", (EVIL, "b"), EVIL))
    assert EVIL not in (tmp_path / "a/report.html").read_text()
    read(classified(tmp_path / "b", [EVIL, "b", "c"]))
    run = segmented(tmp_path / "c")
    (run / "config.yaml").write_text(json.dumps({"task": "segment", "data": EVIL, "model": EVIL, EVIL: EVIL}))
    assert EVIL in read(run).words
    figure = Figure(EVIL, EVIL, 9, 9, (Words(0, 0, EVIL, note=EVIL, data={"name": EVIL}),))
    assert len(list(parsed(figure).iter())) == 7 and EVIL not in figure.html()


def test_interrupted_run_says_what_is_missing(tmp_path: Path) -> None:
    run = segmented(tmp_path / "run")
    for name in ("evaluation.json", "examples.npz", "describe.json"):
        (run / name).unlink()
    body = {"step": 37, "fraction": 0.37, "data": {"classes": ["background", "grey", "white"]}}
    (run / "checkpoints/last.json").write_text(json.dumps({"body": body}))
    page = read(run)
    for words in ("This run has not finished: its last checkpoint is of step 37, 37.0 % of the way. Still missing: the "
                  "closing evaluation, the example predictions and the network's table.", "--resume",
                  "There are no example predictions yet", "best validation so far", "0.900"):  # fmt: skip
        assert words in page.words, words
    assert "Confusion" not in page.words


def test_run_before_its_first_validation(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("task: classify\ndata: digits\n")
    (tmp_path / "metrics.jsonl").write_text("")
    page = read(tmp_path)
    for words in ("no training step has been recorded", "no curve to draw", "no best checkpoint yet"):
        assert words in page.words, words


def test_resumed_run_with_figures_of_an_older_checkpoint(tmp_path: Path) -> None:
    run = segmented(tmp_path / "run")
    rows = [*history(["grey", "white"]), {**history([])[0], "step": 70, "metric": 0.95}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "are of step 30; training has since reached a better checkpoint at step 70" in read(run).words


def test_damaged_files_are_named_and_never_stop_the_report(tmp_path: Path) -> None:
    run = segmented(tmp_path / "run")
    (run / "evaluation.json").write_text("[1, 2]")
    (run / "describe.json").write_bytes(b"\xff\xfe")
    (run / "examples.npz").write_bytes(b"PK nothing")
    (run / "metrics.jsonl").write_text('{"step": 1, "metric": NaN, "time_s": "x"}\nhalf a li\n{}\n')
    (run / "config.yaml").write_text("a: [")
    (run / "checkpoints/last.json").write_text("{")
    page = read(run)
    for words in ("evaluation.json holds no JSON object", "describe.json could not be read (not UTF-8 text)",
                  "examples.npz could not be read", "metrics.jsonl: 1 of 3 lines", "config.yaml holds no entries",
                  "checkpoints/last.json holds no JSON object"):  # fmt: skip
        assert words in page.words, words


def test_an_example_of_nan_is_shown_empty(tmp_path: Path) -> None:
    run = segmented(tmp_path / "run")
    arrays = read_run(run).examples
    arrays["images"][0] = np.nan
    np.savez(run / "examples.npz", **arrays)  # type: ignore[arg-type]
    assert len([name for name, _ in read(run).elements if name == "img"]) == 8


def test_examples_tell_spacing_and_letters(tmp_path: Path) -> None:
    run = segmented(tmp_path / "run")
    arrays = read_run(run).examples
    arrays |= {"spacing": np.array([[3.0, 1.0]] * 2), "marks": np.array([list("APRL")] * 2)}
    np.savez(run / "examples.npz", **arrays)  # type: ignore[arg-type]
    page = read(run)
    image = next(a for name, a in page.elements if name == "img")
    assert int(image["height"] or 0) > 3 * int(image["width"] or 0)
    assert [a.get("class") for name, a in page.elements if name == "i"] == ["t", "b", "l", "r"] * 2


@pytest.mark.parametrize("change", ["missing", "count", "shape", "kind"])
def test_examples_that_do_not_fit_are_left_out(tmp_path: Path, change: str) -> None:
    run = segmented(tmp_path / "run")
    arrays = read_run(run).examples
    assert arrays
    arrays = {
        "missing": {k: v for k, v in arrays.items() if k != "names"},
        "count": {**arrays, "names": arrays["names"][:1]},
        "shape": {**arrays, "labels": arrays["labels"][:, 1:]},
        "kind": {**arrays, "labels": arrays["labels"].astype(str)},
    }[change]
    np.savez(run / "examples.npz", **arrays)  # type: ignore[arg-type]
    assert "does not hold images, labels, predictions and names" in read(run).words


@pytest.mark.parametrize("task", ["segment", "classify"])
def test_wrong_types_in_json_do_no_harm(tmp_path: Path, task: str) -> None:
    run = segmented(tmp_path / "run") if task == "segment" else classified(tmp_path / "run", ["a", "b"])
    measured(
        run, curves={"roc": {"a": [[0, 0], [1, 1]]}, "calibration": [{"confidence": 1, "accuracy": 1, "images": 1}]}
    )
    if task == "segment":
        (run / "examples.npz").unlink()  # its pictures take long, and no JSON changes them
    for name in ("evaluation.json", "describe.json"):
        found = json.loads((run / name).read_text()) if (run / name).exists() else {}
        for key in found:
            for value in (None, "x", 3, [], {}, [[None]], [{"a": None}]):
                (run / name).write_text(json.dumps({**found, key: value}))
                Page(render_report(read_run(run)))
        if found:
            (run / name).write_text(json.dumps(found))


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere is no folder; give the folder"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"holds no run \(none of config.yaml.*give the folder"):
        write_report(tmp_path)
    with pytest.raises(ConfigError, match=r"metrics is empty; a run has curves after its first validation"):
        curves([])
    with pytest.raises(ConfigError, match=r"over is 'epoch', but it can be 'time' or 'step'"):
        curves(history([]), over="epoch")


def test_curves_show_every_point() -> None:
    for over in ("time", "step"):
        figure = curves(history(["a", "b"]), over=over, metric_name="mean Dice")
        svg = parsed(figure)
        notes = [e.text or "" for e in svg.iter(f"{SVG}title")][1:]
        assert len(notes) == 5 * 7 and any("step 30" in note and "mean Dice 0.900" in note for note in notes)
        texts = [e.text for e in svg.iter(f"{SVG}text")]
        assert {"Loss", "Mean Dice on the validation part", "Learning rate", "best 0.900"} <= set(texts)
        assert check_texts(figure) > 40


RATE = Look(stroke="c3", weight=2)


def points(lines: list[Curve], **options: bool) -> list[tuple[float, ...]]:
    """The places of the curve's points on its chart: of the last line with more than two points."""
    figure = line_chart("T", lines, "x", **options)
    assert check_texts(figure) > 4
    drawn = [e.attrib["points"].split() for e in parsed(figure).iter(f"{SVG}polyline")]
    return [tuple(map(float, pair.split(","))) for pair in drawn[-1]]


def test_chart_places_points_and_chooses_the_axis() -> None:
    (x0, y0), (x1, y1), (x2, y2) = points([Curve("", [(0.0, 0.1), (5.0, 1.0), (10.0, 10.0)], RATE)], logarithmic=True)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2) and y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert 0 < y2 < y0 < 290 and 0 < x0 < x2 < 480
    exploded = [Curve("", [(0.0, 0.7), (5.0, 1.1e20), (10.0, 1.7e40)], RATE)]  # 0.7, and √(0.7 · 1.7e40)
    (_, y0), (_, y1), (_, y2) = points(exploded, logarithmic=True)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.5) and 0 < y2 < y0 < 290
    assert points([Curve("", [(0.0, 1e-45), (5.0, 1.0), (10.0, 3.4e38)], RATE)], logarithmic=True)
    assert "nan" not in line_chart("T", [Curve("", [(0.0, 0.0)], RATE)], "x").svg()
    (_, high), (_, low) = points([Curve("", [(0.0, 0.95), (1.0, 0.94)], RATE)], share=True)
    assert 0 < low - high < 3  # shares stand between 0 and 1: a hundredth is a hundredth of the axis


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1.0, 1e6])
def test_chart_stays_inside_its_frame(scale: float) -> None:
    rng = np.random.default_rng(1)
    for share in (False, True):
        line = Curve("a", [(scale * i, scale * float(v)) for i, v in enumerate(rng.random(50))], RATE)
        for logarithmic in (False, True):
            for x, y in points([line], share=share, logarithmic=logarithmic):
                assert 50 <= x <= 467 and 36 <= y <= 249, (scale, share, logarithmic, x, y)


def test_hundred_classes_make_one_legend_entry() -> None:
    drawn = charts(history([f"c{i}" for i in range(100)]))
    assert drawn[1].svg().count(">single classes<") == 1


@pytest.mark.smoke
def test_import_is_light() -> None:
    code = (
        "import sys, convoxel.draw, convoxel.report; "
        "heavy = {'torch', 'onnx', 'monai', 'matplotlib', 'nibabel', 'scipy', 'pydantic'} & set(sys.modules); "
        "sys.exit(f'import convoxel.draw brought {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
