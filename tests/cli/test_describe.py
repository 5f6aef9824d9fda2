"""``convoxel describe``: tables, files, options, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from convoxel.cli.application import main


def output(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    code = main(["describe", *map(str, words)])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def network(path: Path) -> Path:
    weight = numpy_helper.from_array(np.ones((2, 1, 3, 3, 3), np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="first")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, "d", "h", "w"])
    graph = helper.make_graph(
        [node], "net", [x], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], [weight]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    text = output(capsys, "unet", "--set", "dims=1", "--set", "levels=2", "--set", "width=4")
    assert "unet: 1×1×256 → 1×2×256" in text and "encoder.0.conv1" in text
    assert "input sizes           multiples of 4" in text and "training" in text
    assert "note: an output sees 44 of 256" in text


def test_depth_and_columns(capsys: pytest.CaptureFixture[str]) -> None:
    text = output(capsys, "resnet18", "--depth", 1, "--columns", "layer, live,field")
    assert "layer4" in text and "layer4.0.conv1" not in text and "live" in text and "operator" not in text


def test_objects(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("unet", "--shape", "1,1,64,64", "--set", "levels=1")
    assert "smaller than the object 40×40" in output(capsys, *words, "--object", 40)
    assert "object" not in output(capsys, *words, "--object", "9x9")


def test_files_of_rows(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = output(capsys, "resnet18", "--depth", 1, "--csv", tmp_path / "a.csv", "--html", tmp_path / "a.html")
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert rows[4]["layer"] == "layer1" and sum(int(row["params"]) for row in rows) == 11_689_512
    page = (tmp_path / "a.html").read_text()
    assert page.startswith("<!doctype html>") and "layer4" in page and f"written: {tmp_path / 'a.csv'}" in text


def test_onnx_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = network(tmp_path / "net.onnx")
    told = json.loads(output(capsys, path, "--shape", "1,1,8,8,8", "--json"))
    assert (told["name"], told["total"]["macs"], told["total"]["field"]) == ("net.onnx", 54 * 216, [3, 3, 3])
    assert (told["sizes"]["smallest"], told["sizes"]["step"]) == ([3, 3, 3], [1, 1, 1])
    assert told["sizes"]["axes"][0] == {
        "exceptions": [],
        "starts": [3],
        "text": "every size from 3",
        "equation": "o = i − 2",
    }
    assert {"live_bytes", "intensity", "moved_bytes"} <= set(told["rows"][0])


def test_refusals(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = network(tmp_path / "net.onnx")
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    cases: list[tuple[list[object], str]] = [
        ([path], f"shape: {path} takes x (n, 1, d, h, w), and leaves sizes open. Say which with --shape"),
        ([path, "--shape", "1,2,8,8,8"], "takes x (n, 1, d, h, w)"),
        ([path, "--shape", "1,1,2,8,8"], "does not accept (1, 1, 2, 8, 8)"),
        ([path, "--shape", "1,1,8,8,8", "--set", "levels=2"], "the network of a file is fixed"),
        ([tmp_path / "none.onnx"], "cannot be read"),
        ([tmp_path / "none.cvx"], "cannot be read"),
        ([tmp_path / "junk.onnx"], "is no ONNX model"),
        (["resnet18", "--columns", "flops"], "there is no 'flops'; choose from layer"),
        (["resnet18", "--depth", 0], "--depth"),
        (["resnet18", "--object", "4x"], "object: got '4x'; expected whole numbers"),
        (["resnet18", "--shape", "1,3,64,64", "--shape", "1,3,64,64"], "resnet18 has one input"),
        (["resnet18", "--csv", tmp_path / "none" / "a.csv"], "its folder does not exist"),
    ]
    for words, part in cases:
        assert main(["describe", *map(str, words)]) == 2
        captured = capsys.readouterr()
        assert part in captured.err and captured.err.count("\n") == 1 and captured.out == "", captured.err
