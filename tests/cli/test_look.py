"""The commands that only look: models, describe, compile, data, info."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import convoxel as cx
from convoxel import models
from convoxel.cli import main
from tests.support.refusal import refused_command


def output(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([str(word) for word in words]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    return json.loads(output(capsys, *words, "--json"))


def test_models_lists_the_zoo(capsys: pytest.CaptureFixture[str]) -> None:
    listed = {row["name"]: row for row in answer(capsys, "models")["models"]}
    assert set(listed) == set(models.names())
    assert all(row["params"] > 1e6 and row["macs"] > 1e7 and row["field"] > 50 for row in listed.values())
    classify = answer(capsys, "models", "--task", "classify")["models"]
    assert {row["name"] for row in classify} == set(models.names(task="classify"))
    shown = output(capsys, "models", "vgg1[69]")
    assert shown.split().count("3") == 2 and "138.358" in shown and "19.632" in shown and "72.38" in shown
    assert "resnet" not in shown


def test_models_shows_one(capsys: pytest.CaptureFixture[str]) -> None:
    shown = output(capsys, "models", "resnet50")
    for part in (
        "25,557,032",
        "4,089,184,256",
        "427 px",
        "76.13 % (torchvision's weights IMAGENET1K_V1",
        "form=v1.5",
        "1512.03385",
    ):
        assert part in shown
    assert "levels=4" in output(capsys, "models", "unet") and "7,762,498" in output(capsys, "models", "unet")
    assert "did you mean 'resnet50'" in refused_command(capsys, "models", "resnet-50")
    assert "no network is called 'z*'" in refused_command(capsys, "models", "z*")
    assert "task: 'resnet50' is made to classify" in refused_command(capsys, "models", "resnet50", "--task", "segment")


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
        assert part in refused_command(capsys, "describe", *words)


def test_compile_shows_steps_and_memory(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("compile", "unet", "--shape", "1,1,16,16", "--set", "levels=1", "--set", "width=4", "--threads", 1)
    found = answer(capsys, *words)
    assert {"conv", "conv_transpose"} <= {step["operator"] for step in found["steps"]}
    assert found["memory"]["arena_bytes"] > 0 and all(step["time_s"] >= 0 for step in found["steps"])
    resnet = ("compile", "resnet18", "--shape", "1,3,32,32", "--set", "width=0.125", "--threads", 1)
    shown = output(capsys, *resnet, "--algorithm", "indirect")
    assert "GFLOP/s" in shown and "Memory:" in shown and "indirect" in shown and "winograd" not in shown
    assert "it can be 'auto'" in refused_command(capsys, "compile", "unet", "--algorithm", "wino")
    assert "threads is 0, expected at least 1" in refused_command(capsys, *words[:-1], 0)


def test_compile_takes_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    options = {"levels": 1, "width": 4, "num_classes": 3}
    net = models.build("unet", dims=2, in_channels=1, **options).eval()
    file, program = tmp_path / "net.pth", tmp_path / "net.cvx"
    torch.save({"state_dict": {f"module.net.{name}": value for name, value in net.state_dict().items()}}, file)
    words = ["compile", "unet", "--shape", "1,1,16,16", "--threads", 1, "--weights", file, "--output", program]
    for name, value in options.items():
        words += ["--set", f"{name}={value}"]
    answer(capsys, *words)
    x = torch.randn(1, 1, 16, 16)
    np.testing.assert_allclose(cx.load(program)(x.numpy()), net(x).detach().numpy(), atol=1e-5)
    assert "head.weight" in refused_command(capsys, *words[:-2])  # a head of another size would stay random
    assert "weights: " in refused_command(capsys, "compile", program, "--weights", file)
    file.write_bytes(b"none")
    assert "net.pth" in refused_command(capsys, *words)


def test_info_says_what_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "info", "--threads", 1)
    assert found["threads"] == 1 and found["ceiling_flops"]["1"] > 1e8
    assert {row["name"] for row in found["algorithms"]} >= {"pointwise", "indirect"}
    assert "Ceiling" in output(capsys, "info")
    assert "threads" in refused_command(capsys, "info", "--threads", 0)


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
    assert "no such folder" in refused_command(capsys, "data", "list", tmp_path / "none")
