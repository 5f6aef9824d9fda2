"""Train, evaluate and predict through the command line, and how they refuse."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convoxel.cli import main
from convoxel.cli.progress import Meter
from convoxel.cli.screen import Screen
from convoxel.train import Progress
from tests.support.refusal import refused_command

FAST = ["--epochs", "2", "--threads", "1", "--batch-size", "128", "--set", "width=0.0625", "--set", "tensorboard=false"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained classifier of digits, and beside it what training printed."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        assert main(["train", "classify", "--data", "digits", "--output", str(folder), *FAST]) == 0
    (folder.parent / "shown.txt").write_text(shown.getvalue())
    return folder


def test_train_reports(run: Path) -> None:
    shown = (run.parent / "shown.txt").read_text()
    assert "Best on the validation part: accuracy 0." in shown and f"The run lies in {run}" in shown
    assert f"Report: {run / 'report.html'}" in shown and f"convoxel predict {run} --input" in shown
    assert (run / "report.html").stat().st_size > 1000


def test_train_json_is_one_object(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    capsys.readouterr()
    assert main(["train", "--resume", str(run), "--json"]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert found["run"] == str(run) and 0 < found["best_metric"] <= 1 and set(found["per_class"]) == set("0123456789")
    assert Path(found["report"]).is_file() and "evaluating" in shown.err


def test_train_refuses(capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path) -> None:
    new = ["train", "classify", "--data", "digits", "--output", tmp_path / "new"]
    cases: list[tuple[list[Any], str]] = [
        (["train"], "not given: segment, classify or regress, --data DIR, --output RUN"),
        (["train", "classify", "--data", "digits"], "not given: --output RUN"),
        (["train", "paint", *new[2:]], "task='paint'"),
        (["train", "clasify", *new[2:]], "did you mean 'classify'?"),
        ([*new[:5], run], "exists and is not empty"),
        ([*new, "--force"], "force: given without --resume"),
        ([*new, "--levels", 99], "levels=99"),
        ([*new, "--patch", "a,b"], "patch: got 'a,b'"),
        ([*new, "--validation", "some"], "validation: got 'some'"),
        ([*new, "--minutes", 1, "--epochs", 1], "give minutes or epochs, not both"),
        ([*new, "--set", "optimizer=sgd"], "did you mean 'optimiser'?"),
        ([*new, "--set", "optimiser"], "expected name=value"),
        ([*new, "--model", "vgg"], "there is no model 'vgg'; did you mean"),
        ([*new, "--model", "resnet19"], "there is no model 'resnet19'; did you mean 'resnet18'?"),
        ([*new, "--model", "unet"], "model: 'unet' is made to segment, but the task is 'classify'"),
        ([*new, "--config", tmp_path / "none.yaml"], "none.yaml: cannot be opened"),
        (["train", "classify", "--data", tmp_path / "none", "--output", tmp_path / "new"], "no such folder"),
        (["train", "--resume", tmp_path], "holds no run"),
        (["train", "--resume", run, "--output", tmp_path], "output:"),
        (["train", "--resume", run, "--seed", 3], "seed: 0 → 3"),
    ]
    for words, part in cases:
        capsys.readouterr()
        assert part in refused_command(capsys, *words)
    assert not (tmp_path / "new").exists()


def test_flags_go_before_the_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("task: classify\ndata: digits\nminutes: 3\nwidth: 0.0625\nbatch_size: 256\ntensorboard: false\n")
    folder = tmp_path / "run"
    words = ["train", "--config", str(file), "--output", str(folder), "--epochs", "1", "--batch-size", "128"]
    assert main([*words, "--threads", "1", "--validation", "0.5", "--patch", "8x8"]) == 0
    import yaml

    stored = yaml.safe_load((folder / "config.yaml").read_text())
    assert (stored["epochs"], stored["minutes"], stored["batch_size"]) == (1, None, 128)
    assert (stored["validation"], stored["patch"]) == (0.5, [8, 8])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_says_how_to_go_on(
    number: signal.Signals,
    code: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "my run"

    def interrupt(self: Meter, moment: Progress) -> None:
        if moment.step == 3 and moment.phase == "train":
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(Meter, "__call__", interrupt)
        words = ["train", "classify", "--data", "digits", "--output", str(folder), *FAST]
        assert main(words) == code
    shown = capsys.readouterr().out
    again = f"convoxel train --resume '{folder}'"
    assert "Stopped after 3 steps; a checkpoint was saved" in shown and f"Go on with: {again}" in shown
    assert f"Report so far: {folder / 'report.html'}" in shown and (folder / "report.html").is_file()
    if number == signal.SIGINT:
        assert main(["train", "--resume", str(folder)]) == 0
        assert "24 steps" in capsys.readouterr().out


def test_evaluate(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(run), "--json", "--threads", "1"]) == 0
    ours = json.loads(capsys.readouterr().out)
    assert main(["evaluate", str(run), "--engine", "torch", "--split", "validation"]) == 0
    shown = capsys.readouterr().out
    assert ours["engine"] == "convoxel" and ours["count"] == 359 and len(ours["samples"]) == 359
    assert f"accuracy {ours['metric']:.4f}" in shown and "engine torch" in shown
    assert re.search(rf"accuracy +{ours['metric']:.4f}   0\.\d+ … [01]\.\d+", shown)
    assert ours["figures"]["accuracy"]["value"] == ours["metric"] and "Intervals over 359 images: BCa" in shown
    assert "not a training run" in refused_command(capsys, "evaluate", run / "checkpoints")
    assert f"the run {run / 'none'} does not exist" in refused_command(capsys, "evaluate", run / "none")
    assert f"data: {run / 'none'}: there is no such folder" in refused_command(
        capsys, "evaluate", run, "--data", run / "none"
    )


def test_evaluate_refuses_other_classes(capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path) -> None:
    for name in "012345678x":
        (tmp_path / name).mkdir()
        for index in range(2):
            Image.fromarray(np.full((8, 8), index, np.uint8)).save(tmp_path / name / f"{index}.png")
    line = refused_command(capsys, "evaluate", run, "--data", tmp_path)
    assert "x: a class that does not occur in training; expected 0, 1, 2" in line
    (tmp_path / "x/0.png").unlink()
    (tmp_path / "x/1.png").unlink()
    (tmp_path / "x").rmdir()
    table = tmp_path / "cases.csv"
    words = ["evaluate", run, "--data", tmp_path, "--metrics", "accuracy,auc", "--csv", table, "--threads", 1]
    page = tmp_path / "page.html"
    assert main([*map(str, words), "--report", str(page)]) == 0  # no picture of a 9
    assert f"measured on {tmp_path.name} (all)" in page.read_text() and "data:image/png;base64," in page.read_text()
    shown = capsys.readouterr().out
    assert re.search(r"\n9 +0 +–", shown) and f"Table: {table}" in shown and "(all, 18 images)" in shown
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 18 and {row["class"] for row in rows} == set("012345678") and "p_9" in rows[0]
    assert all(abs(sum(float(row[f"p_{name}"]) for name in "0123456789") - 1) < 1e-5 for row in rows)


def test_evaluate_refuses_before_it_computes(capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path) -> None:
    assert main(["evaluate", "--metrics", "list"]) == 0
    listed = capsys.readouterr().out
    assert all(re.search(rf"^(segment|classify) +{name} ", listed, re.MULTILINE) for name in ("hd95", "nsd@1mm", "ece"))
    assert "did you mean 'auc'" in refused_command(capsys, "evaluate", run, "--metrics", "acu").lower()
    assert "csv: 'x.txt' ends in '.txt'; expected .csv" in refused_command(capsys, "evaluate", run, "--csv", "x.txt")
    assert "csv: the folder of" in refused_command(capsys, "evaluate", run, "--csv", tmp_path / "no" / "x.csv")
    assert "report: 'x.txt' ends in '.txt'; expected .html" in refused_command(
        capsys, "evaluate", run, "--report", "x.txt"
    )
    assert "bootstrap: got -2" in refused_command(capsys, "evaluate", run, "--bootstrap", "-2")


def test_predict(capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for index in range(3):
        Image.fromarray(np.full((8, 8), index, np.uint8)).save(tmp_path / "images" / f"{index}.png")
    table = tmp_path / "out" / "classes.csv"
    words = ["predict", str(run), "--input", str(tmp_path / "images"), "--output", str(table)]
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == [str(table)]
    assert main([*words, "--engine", "torch"]) == 0
    assert f"Wrote {table} in" in capsys.readouterr().out
    with table.open() as file:
        assert [row["file"] for row in csv.DictReader(file)] == ["0.png", "1.png", "2.png"]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG")
    assert "broken.png" in refused_command(capsys, "predict", run, "--input", broken, "--output", tmp_path / "o.csv")
    assert "does not exist" in refused_command(capsys, "predict", run, "--input", tmp_path / "no", "--output", table)
    (tmp_path / "images" / "9.png").write_bytes(b"\x89PNG")
    assert main([*words, "--engine", "torch", "--skip-existing", "--part", "1/1", "--json"]) == 3
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert found["images"] == {"done": 0, "skipped": 3, "failed": 1} and "9.png" in shown.err
    assert [failure["file"] for failure in found["failures"]] == ["9.png"]
    assert main(words) == 3 and "3 predicted, 0 done before, 1 failed" in capsys.readouterr().out
    assert "9.png" in refused_command(capsys, *words, "--on-error", "stop")
    assert "part: got '2/1'" in refused_command(capsys, *words, "--part", "2/1")
    assert "on: got 'slurm'" in refused_command(capsys, *words, "--on", "slurm")


def test_segmentation_through_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part in ("images", "labels"):
        (tmp_path / "set" / part).mkdir(parents=True)
    for index in range(5):
        label = np.zeros((16, 16), np.uint8)
        label[4:12, 2 + index : 10 + index] = 1
        label[6:10, 5:9] = 2
        image = (label * 150 + rng.integers(0, 60, label.shape)).astype(np.uint8)
        Image.fromarray(image).save(tmp_path / "set" / "images" / f"{index}.png")
        Image.fromarray(label).save(tmp_path / "set" / "labels" / f"{index}.png")
    folder = tmp_path / "run"
    words = ["train", "segment", "--data", tmp_path / "set", "--output", folder, "--levels", 1, "--width", 4]
    limits = ["--epochs", 1, "--set", "steps_per_epoch=4", "--set", "tensorboard=false", "--threads", 1]
    assert main([str(word) for word in (*words, *limits, "--validation", 2)]) == 0
    shown = capsys.readouterr().out
    assert shown.index("mirroring      axis 1: left–right, the width") < shown.index("training   ")  # before all steps
    assert re.search(r"Best on the validation part: Dice 0\.\d+ \(class 1 [\d.]+, class 2 [\d.]+\)", shown)
    assert main(["evaluate", str(folder), "--json"]) == 0
    values = [sample["metric"] for sample in json.loads(capsys.readouterr().out)["samples"]]
    assert main(["evaluate", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "Intervals over 2 images: BCa bootstrap" in shown and re.search(r"\niou +class 2 +0\.\d{4}", shown)
    table = tmp_path / "cases.csv"
    assert (
        main(["evaluate", str(folder), "--metrics", "dice,hd95,volume", "--csv", str(table), "--bootstrap", "0"]) == 0
    )
    rows = [line.split(",") for line in table.read_text().splitlines()]
    assert rows[0][:5] == ["image", "subject", "class", "labelled_voxels", "predicted_voxels"]
    assert rows[0][5:] == ["dice", "hd95 (voxels)", "volume (voxels)"] and [row[0] for row in rows[1:]] == [*"3344"]
    assert "Intervals" not in capsys.readouterr().out
    assert "Lowest:" in shown and re.search(r"mean Dice [\d.]+ \(class 1 [\d.]+, class 2 [\d.]+\)", shown)
    assert f"Images: {np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}, quartiles" in shown
    labels = tmp_path / "labels"
    assert main(["predict", str(folder), "--input", str(tmp_path / "set"), "--output", str(labels)]) == 0
    assert f"5 files in {labels}" in capsys.readouterr().out and len(list(labels.glob("*.png"))) == 5
    assert main(["describe", str(folder)]) == 0 and main(["compile", str(folder), "--threads", "1"]) == 0
    assert f"unet of {folder}" in capsys.readouterr().out


def test_reading_is_announced_only_if_it_takes_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert main(["train", "classify", "--data", str(tmp_path / "none"), "--output", str(tmp_path / "new")]) == 2
    assert capsys.readouterr().out == ""
    monkeypatch.setattr("convoxel.cli.progress._PATIENCE_S", 0.01)
    with Meter(Screen()) as meter:
        meter(Progress(phase="prepare"))
        time.sleep(0.3)
    assert capsys.readouterr().out == "reading data    0 %\n"


def test_a_run_without_its_configuration_file_is_resumed(
    capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    (folder / "config.yaml").unlink()
    assert main(["train", "--resume", str(folder), "--json"]) == 0
    assert (folder / "config.yaml").read_text().startswith("task: classify")
    for path in (folder / "checkpoints").glob("*.safetensors"):
        path.write_bytes(b"damaged")
    capsys.readouterr()
    line = refused_command(capsys, "train", "--resume", folder)
    assert "holds no whole checkpoint" in line and "Start anew with another --output" in line


def test_many_broken_samples_make_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for part in ("images", "labels"):
        (tmp_path / "set" / part).mkdir(parents=True)
    for index in range(5):
        image = np.full((8, 8), np.nan if index else 1.0, np.float32)
        np.save(tmp_path / "set/images" / f"{index}.npy", image)
        np.save(tmp_path / "set/labels" / f"{index}.npy", np.eye(8, dtype=np.uint8))
    line = refused_command(capsys, "train", "segment", "--data", tmp_path / "set", "--output", tmp_path / "new")
    assert "data: 4 samples cannot be used: " in line and "… and 1 more. `convoxel data check` lists all" in line
    assert ".." not in line and "64 values are NaN" in line and not (tmp_path / "new").exists()
