"""``convoxel draw``: every picture from the command line, and its mistakes."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import convoxel as cx
from convoxel.cli import main
from tests.support.refusal import refused_command


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(capsys: pytest.CaptureFixture[str], line: str) -> str:
    capsys.readouterr()
    assert main(["draw", *line.split()]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("line, name", [
    ("conv --size 5x5 --kernel 3 --stride 2 --padding same", "conv"),
    ("conv --size 6 --kernel 3 --padding 1:0 --numbers --kind convolution", "conv"),
    ("conv --size 3x3x3 --kernel 2 --kind transposed", "conv"),
    ("conv --size 5x5 --padding 1x0 --step 2", "conv"),
    ("conv --size 5x4 --padding 2 --border reflect --numbers", "conv"),
    ("conv --size 4 --kind transposed --stride 2 --view scatter", "conv"),
    ("overlap --kernel 3 --size 3x3x3", "overlap"),
    ("conv --size 5x5 --padding -1:2 --strip 4", "conv"),
    ("matrix --size 3x3 --kernel 2 --sharing all --columns-first", "matrix"),
    ("resize --size 3 --to 5 --mode cubic --matrix --step 2", "resize"),
    ("linearity --operator relu --size 2x3x2", "linearity"),
    ("dynamic --size 9 --temperature 3", "dynamic"),
    ("deform --size 3x3x3 --kernel 2 --padding none --modulated", "deform"),
    ("matrix --size 6 --channels 2x4 --groups 2", "matrix"),
    ("overlap --kernel 3,4 --size 7", "overlap"),
    ("network unet --shape 1,1,32,32 --set levels=2", "network"),
    ("network resnet18 --shape 1,3,32 --depth 1", "network"),
    ("field resnet18 --shape 1,3,64,64 --layer layer2 --at 3x4", "field"),
    ("funnel resnet18 --shape 1,3,64,64 --axis 0 --depth 1", "funnel"),
    ("memory unet --shape 1,1,32,32", "memory"),
    ("pool --x 1,2;3,4 --kernel 2 --kind average", "pool"),
    ("unpool --mode fixed --position 1", "unpool"),
    ("resize --size 3 --to 6 --mode spline", "resize"),
    ("shuffle --size 2", "shuffle"),
    ("deform --size 4x4 --offset 0.5", "deform"),
    ("channels --in 4 --out 4 --way grouped --groups 2", "channels"),
    ("separable --w 1,0;0,1", "separable"),
    ("norm --bound 1", "norm"),
    ("translation --size 6 --layer stride", "translation"),
    ("shifts --most 2", "shifts"),
    ("connections --size 7", "connections"),
    ("neurons", "neurons"),
    ("network resnet18 --shape 1,3,32,32 --part layer1.0", "network"),
])  # fmt: skip
def test_each_picture_is_written(capsys: pytest.CaptureFixture[str], line: str, name: str) -> None:
    shown = run(capsys, line)
    assert shown.splitlines()[-1] == f"written: {name}.svg"
    assert ElementTree.parse(f"{name}.svg").getroot().tag.endswith("svg")


def test_values_come_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(run(capsys, "conv --x 1,2,3;4,5,6;7,8,9 --w 1,0;0,-1 --json"))
    assert found["steps"] == 4 and "≠" not in found["text"]
    assert Path("conv.svg").read_text().count(">−4<") == 4  # 1 − 5, 2 − 6, 4 − 8 and 5 − 9
    found = json.loads(run(capsys, "pool --x 12,20,30,0;8,12,2,0;34,70,37,4;112,100,25,12 --json"))
    assert found["text"].endswith("20, 30, 112, 37.")
    image = Path("photo.png")
    Image.fromarray(np.eye(12, dtype=np.uint8) * 200).save(image)
    assert "12 × 12" in json.loads(run(capsys, f"features {image} --w 1,-1 --json"))["text"]


def test_the_gallery_is_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(run(capsys, "gallery --output all --json"))
    assert len(found["files"]) == len(found["names"]) + 1 and all(Path(file).exists() for file in found["files"])
    page = Path("all/index.html").read_text()
    assert all(f'src="{name}.svg"' in page for name in found["names"])


def test_all_kinds_of_files_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(
        run(capsys, "conv --size 4 --kernel 2 --svg a.svg --png a.png --gif a.gif --html a.html --theme dark --json")
    )
    assert found["files"] == ["a.svg", "a.png", "a.gif", "a.html"] and found["steps"] == found["frames"] == 3
    assert found["title"] == "Correlation, kernel 2, stride 1, no padding"
    with Image.open("a.png") as png, Image.open("a.gif") as gif:
        assert np.asarray(png.convert("RGB"))[0, 0].tolist() == [24, 28, 33] and getattr(gif, "n_frames", 1) == 3
    assert not Path("conv.svg").exists()


def test_a_chain_of_layers_has_a_funnel(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["draw", "funnel", "k3 k3 pool2", "--shape", "12", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "k3 k3 pool2 on 12 inputs"
    assert main(["draw", "funnel", "k3x2"]) == 0


def test_fields_over_an_image_with_their_influence(capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.arange(48 * 64, dtype=np.uint8).reshape(48, 64)).save("photo.png")
    line = "field unet --set levels=1 --image photo.png --effective --at 20,30"
    assert "sees rows" in run(capsys, line) and "of 48 × 64" in capsys.readouterr().out + run(capsys, line)
    text = Path("field.svg").read_text()
    assert text.count("<image") == 2 and "data-influence" in text


def test_an_image_of_any_size_is_padded_to_one_that_the_network_takes(capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.arange(51 * 37, dtype=np.uint16).astype(np.uint8).reshape(51, 37)).save("odd.png")
    for options, size in (("--set levels=3", "56 × 40"), ("--set levels=2 --set padding=none", "52 × 44")):
        line = f"field unet {options} --image odd.png"
        said = run(capsys, line)
        assert f"of {size}" in said and f"The image of 51 × 37 is padded to {size}" in said
    assert "padded" not in run(capsys, "field resnet18 --layer layer1 --image odd.png")


@pytest.mark.parametrize("line, match", [
    ("conv --size 5x", "size: got '5x'; expected whole numbers"),
    ("conv --size 0", "size: got '0'"),
    ("conv --padding most", "'most'"),
    ("conv --padding 1:2:3", "padding: got '1:2:3'"),
    ("conv --padding 1x2x3", "padding"),
    ("conv --kernel 3x3x3", "kernel: got"),
    ("conv --step 10", "step: got 10; this layer has the steps 1 to 9"),
    ("conv --strip 0", "strip: got 0"),
    ("conv --step 1 --strip 2", "step: given together with strip"),
    ("conv --size 99x99", "too many to watch"),
    ("conv --size 2x2 --kernel 3", "axis 0 of 2"),
    ("conv --kind deep", "kind"),
    ("conv --svg a.png", "svg: got a.png; expected a file that ends in .svg"),
    ("conv --svg no/a.svg", "its folder does not exist"),
    ("matrix --channels 3", "channels: got '3'"),
    ("network resnet1", "resnet1"),
    ("network resnet18 --shape 1,3", "shape: got '1,3'"),
    ("network net.onnx --set a=1", "the network of a file is fixed"),
    ("network missing.onnx", "missing.onnx"),
    ("field resnet18 --layer nothing", "no layer 'nothing'"),
    ("field resnet18 --at 1,-2", "at: got '1,-2'"),
    ("field resnet18 --image missing.png", "missing.png"),
    ("field net.onnx --effective", "net.onnx"),
    ("funnel k3x2 --shape 3,3", "a chain of layers takes one size"),
    ("funnel resnet18 --axis 4", "axis: got 4"),
    ("overlap --kernel 3, ", "kernel: got '3,'"),
])  # fmt: skip
def test_mistakes(capsys: pytest.CaptureFixture[str], line: str, match: str) -> None:
    assert match in refused_command(capsys, "draw", *line.split())


def test_files_that_leave_sizes_open_are_told_a_shape(capsys: pytest.CaptureFixture[str]) -> None:
    cx.compile(nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU()), torch.zeros(1, 1, 16)).save("net.cvx")
    refused = refused_command(capsys, "draw", "network", "net.cvx")
    assert "net.cvx takes input (n, 1, w), and leaves sizes open. Say which with --shape" in refused
    assert "written: network.svg" in run(capsys, "network net.cvx --shape 1,1,16")


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("conv", "matrix", "overlap", "network", "field", "funnel", "memory"):
        assert f"Example: convoxel draw {name}" in " ".join(run(capsys, f"{name} --help").split())
