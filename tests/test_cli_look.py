"""The commands that only look: models, describe, compile, data, info."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convoxel import models
from convoxel.cli import main


def output(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([str(word) for word in words]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    return json.loads(output(capsys, *words, "--json"))


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([str(word) for word in words]) == 2
    line = capsys.readouterr().err
    assert line.startswith("convoxel: ") and line.count("\n") == 1, line
    return line


def test_models_lists_the_zoo(capsys: pytest.CaptureFixture[str]) -> None:
    assert {row["name"] for row in answer(capsys, "models")["models"]} == set(models.names())
    assert [row["name"] for row in answer(capsys, "models", "--task", "segment")["models"]] == ["unet"]
    assert "levels=4" in output(capsys, "models")


@pytest.mark.smoke
def test_describe_counts(capsys: pytest.CaptureFixture[str]) -> None:
    total = answer(capsys, "describe", "resnet18")["total"]
    assert (total["params"], total["macs"]) == (11_689_512, 1_814_073_344)
    small = answer(capsys, "describe", "unet", "--shape", "1,1,32,32,32", "--set", "levels=2", "--set", "width=16")
    assert small["total"]["field"] == [44, 44, 44] and small["name"] == "unet"
    assert "receptive field" in output(capsys, "describe", "unet", "--set", "dims=1")


def test_describe_refuses(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cases = [
        (["unett"], "did you mean 'unet'"),
        ([tmp_path], "not a training run"),
        (["unet", "--shape", "1,1"], "expected n,channels,*sizes"),
        (["unet", "--shape", "a"], "shape: got 'a'"),
        (["unet", "--set", "levels"], "expected name=value"),
        (["unet", "--set", "levls=3"], "did you mean 'levels'"),
        (["unet", "--set", "dims=5"], "expected 1, 2 or 3"),
        (["unet", "--set", "dims=x"], "set: dims is 'x'; expected 1, 2 or 3"),
        (["unet", "--set", "in_channels=x"], "in_channels is 'x'"),
        (["unet", "--shape", "1,1,7,7"], "multiple of 16"),
    ]
    for words, part in cases:
        assert part in refused(capsys, "describe", *words)


def test_compile_shows_steps_and_memory(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("compile", "unet", "--shape", "1,1,16,16", "--set", "levels=1", "--set", "width=4", "--threads", 1)
    found = answer(capsys, *words)
    assert {"conv", "conv_transpose"} <= {step["operator"] for step in found["steps"]}
    assert found["memory"]["arena_bytes"] > 0 and all(step["time_s"] >= 0 for step in found["steps"])
    resnet = ("compile", "resnet18", "--shape", "1,3,32,32", "--set", "width=0.125", "--threads", 1)
    shown = output(capsys, *resnet, "--algorithm", "indirect")
    assert "GFLOP/s" in shown and "Memory:" in shown and "indirect" in shown and "winograd" not in shown
    assert "expected one of auto" in refused(capsys, "compile", "unet", "--algorithm", "wino")
    assert "threads: got 0; expected at least 1" in refused(capsys, *words[:-1], 0)


def test_info_says_what_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "info", "--threads", 1)
    assert found["threads"] == 1 and found["ceiling_flops"]["1"] > 1e8
    assert {row["name"] for row in found["algorithms"]} >= {"pointwise", "indirect"}
    assert "Ceiling" in output(capsys, "info")
    assert "threads" in refused(capsys, "info", "--threads", 0)


def write_classes(folder: Path) -> Path:
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for index in range(30):
            Image.fromarray(np.full((8, 8), index, np.uint8)).save(folder / name / f"{index}.png")
    return folder


def test_data_lists_and_checks(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert answer(capsys, "data", "list")["bundled"] == [
        {"name": "mni152", "task": "segment"},
        {"name": "digits", "task": "classify"},
    ]
    folder = write_classes(tmp_path / "pets")
    found = answer(capsys, "data", "list", folder)
    assert found["classes"] == ["cat", "dog"] and len(found["parts"]["train"]) == 48
    shown = output(capsys, "data", "list", folder)
    assert "… and 28 more (--all)" in shown and "train 48, validation 12 samples" in shown
    assert "all 60 samples are whole" in output(capsys, "data", "check", folder)
    assert answer(capsys, "data", "check", folder)["problems"] == []


def test_data_check_lists_every_problem(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "pets")
    for index in (3, 4):
        (folder / "cat" / f"{index}.png").write_bytes(b"\x89PNG broken")
    assert main(["data", "check", str(folder)]) == 2
    shown = capsys.readouterr()
    assert shown.out.count("\n") == 2 and "3.png" in shown.out and "4.png" in shown.out
    assert "has 2 problems" in shown.err and shown.err.count("\n") == 1
    assert main(["data", "check", str(folder), "--json"]) == 2
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 2


def test_data_guesses_the_task(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for part in ("images", "labels"):
        for name in ("a", "b"):
            Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / part / f"{name}.png")
    found = answer(capsys, "data", "list", tmp_path)
    assert found["task"] == "segment" and found["dims"] == 2
    assert "no such folder" in refused(capsys, "data", "list", tmp_path / "none")
