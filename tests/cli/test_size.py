"""``convoxel size``: every question, in 1-D to 3-D, of layers and of networks, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import convoxel as cx
from convoxel.cli import main
from tests.support.refusal import refused_command


def output(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(["size", *map(str, words)]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    return json.loads(output(capsys, *words, "--json"))


@pytest.mark.smoke
def test_output_of_layers(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "output", 224, "k7s2p3", "pool3s2p1", "k3x4")
    assert [row["size"] for row in found["layers"]] == [[224], [112], [56], [54], [52], [50], [48]]
    assert [row["field"] for row in found["layers"]] == [[1], [7], [11], [19], [27], [35], [43]]
    assert found["layers"][1] == {
        "layer": "k7s2p3", "size": [112], "field": [7], "stride": [2], "offset": [-3], "holes": [0],
    }  # fmt: skip
    assert (found["input"], found["output"], found["stride"], found["offset"]) == ([224], [48], [4], [-5])
    assert found["accepted"][0]["smallest"] == 33 and found["accepted"][0]["text"] == "every size from 33"
    shown = output(capsys, "output", 224, "k7s2p3", "pool3s2p1", "k3x4").splitlines()
    assert shown[0].split() == ["layer", "size", "field", "stride", "offset"]
    assert shown[3].split() == ["k7s2p3", "112", "7", "2", "-3"]
    assert shown[-1] == "Input sizes that fit: every size from 33: o = ⌊(i − 29) / 4⌋"


def test_output_in_three_dimensions(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "output", "224x224x64", "k3,3,1p1,1,0", "pool2,2,1", "t2s2")
    assert found["output"] == [224, 224, 128]
    assert found["field"] == [4, 4, 1] and found["stride"] == [1, 1, 0.5]
    shown = output(capsys, "output", "224x224x64", "k3,3,1p1,1,0", "pool2,2,1", "k3d2")
    assert "112×112×64" in shown and "4×4×1" in shown and "2×2×1" in shown
    assert "axis 0 every size from 10" in shown and "axis 2 every size from 5" in shown
    assert "up to 4 inputs along an axis are skipped" in output(capsys, "output", "32x32", "k3d2x2")
    assert output(capsys, "output", "9x9", "k3") == output(capsys, "output", "9,9", "k3")


def test_input_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    assert output(capsys, "inputs", 56, "k7s2p3", "pool3s2p1") == "Input sizes: 221 … 224: o = ⌊(i + 3) / 4⌋\n"
    assert "every size from 63" in output(
        capsys, "inputs", "k11s4p2", "pool3s2", "k5p2", "pool3s2", "k3p1x3", "pool3s2"
    )
    found = answer(capsys, "inputs", "28x14", "k3s2p1,0")
    assert [axis["exceptions"] for axis in found["accepted"]] == [[55, 56], [29, 30]]
    assert [axis["exceptions"] for axis in answer(capsys, "inputs", "28", "k3s2p1,0")["accepted"]] == [
        [55, 56],
        [57, 58],
    ]
    none = output(capsys, "inputs", 9, "k3", "up2")
    assert none == "No input size gives 9. Outputs near it that some input gives: 8 and 10.\n"
    assert answer(capsys, "inputs", 9, "k3", "up2")["accepted"][0]["text"] == "no size"


def test_layers_for_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    shown = output(capsys, "layers", 224, 112, "--kernel", "1..7", "--stride", 2)
    assert "224 → 112: 7 layers with 111 s + e − 224 ≤ p + p′ ≤ 112 s + e − 225" in shown
    assert "k1s2  k2s2  k3s2p1  k4s2p1  k5s2p2  k6s2p2  k7s2p3" in shown
    found = answer(capsys, "layers", "56x28", "28x28", "--kernel", "3", "--padding", "0..1,same,0:1")
    assert [(axis["input"], axis["output"]) for axis in found["axes"]] == [(56, 28), (28, 28)]
    assert [[row["layer"] for row in axis["solutions"]] for axis in found["axes"]] == [
        ["k3s2psame", "k3s2p0:1", "k3s2p1"], ["k3psame", "k3p1"],
    ]  # fmt: skip
    assert found["axes"][0]["solutions"][0]["padded"] == [0, 1]
    field = answer(capsys, "layers", 28, 28, "--stride", 1, "--field", 9, "--dilation", "1..8")["axes"][0]
    assert [row["layer"] for row in field["solutions"]] == ["k2p4d8", "k3p4d4", "k5p4d2", "k9p4"]
    assert "5 → 9: no layer with" in output(capsys, "layers", 5, 9, "--kernel", 3)
    assert "more (--json lists all" in output(capsys, "layers", 224, 56)


def test_inputs_of_layers(capsys: pytest.CaptureFixture[str]) -> None:
    shown = output(capsys, "sources", 56, "--kernel", 3).splitlines()
    assert shown[0] == "Output 56:"
    assert [line.split(maxsplit=1)[0] for line in shown[3:]] == ["k3", "k3p1", "k3s2", "k3s2p1", "k3s3", "k3s3p1"]
    assert "168 … 170" in shown[7]
    found = answer(capsys, "sources", "56x28", "--kernel", 3, "--stride", 2, "--padding", "same")
    (row,) = found["solutions"]
    assert row["layer"] == "k3s2psame" and [axis["exceptions"] for axis in row["accepted"]] == [[111, 112], [55, 56]]


def test_depth_and_tiles(capsys: pytest.CaptureFixture[str]) -> None:
    shown = output(capsys, "depth", 224, "k3p1x2", "pool2")
    assert shown == "Repetitions for a field of 224: 6 (field 316/64): r = 1 + 5 (2ⁿ − 1) ≥ 224\n"
    assert answer(capsys, "depth", 20, "k3,5")["repeats"] == [10, 5]
    assert "along axis 1: 5 (field 21)" in output(capsys, "depth", 20, "k3,5")
    found = answer(capsys, "tiles", 64, "k3p1x4", "pool2", "--image", 150)
    assert found["tiles"][0] == {"size": 64, "multiple": 2, "advance": 56, "halo": [4, 4], "inside": [2, 30]}
    assert [part["input"] for part in found["parts"][0]] == [[0, 64], [56, 120], [86, 150]]
    shown = output(capsys, "tiles", 64, "k3p1x4", "pool2", "--image", 150)
    assert "a halo of 4 before and 4 after" in shown and "86:150 → out 58:75" in shown


def test_networks(capsys: pytest.CaptureFixture[str]) -> None:
    assert output(capsys, "inputs", "unet_ronneberger").splitlines() == [
        "unet_ronneberger takes 188 + 16 n (n ≥ 0): o = i − 184",
        "smallest: 1×1×188×188 → 1×2×4×4",
    ]
    assert output(capsys, "output", 572, "unet_ronneberger") == "1×1×572×572 → 1×2×388×388\n"
    assert output(capsys, "inputs", 388, "unet_ronneberger") == "Input sizes: 572: o = i − 184\n"
    none = output(capsys, "inputs", 390, "unet_ronneberger", "--set", "dims=1")
    assert none == "No input size gives 390. Outputs near it that some input gives: 388 and 404.\n"
    cicek = answer(capsys, "inputs", "44x44x28", "unet_cicek")
    assert [axis["exceptions"] for axis in cicek["accepted"]] == [[132], [132], [116]]
    uneven = ("unet", "--set", "strides=[(1,2),2]", "--set", "levels=2")
    sizes = answer(capsys, "inputs", *uneven)
    assert (sizes["smallest"], sizes["step"]) == ([2, 4], [2, 4])
    assert answer(capsys, "output", "8x16", *uneven)["output"] == [[1, 2, 8, 16]]
    classes = output(capsys, "inputs", "alexnet").splitlines()
    assert classes == ["alexnet takes 63 and more", "smallest: 1×3×63×63 → 1×1000"]
    tiles = output(capsys, "tiles", 100, "unet", "--set", "levels=2", "--image", 200).splitlines()
    assert len(tiles) == 2 and "a halo of 22 before and 22 after" in tiles[0] and tiles[1].startswith("200 in 3: in 0:")


def test_networks_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(2, 3, 3))
    path = tmp_path / "net.cvx"
    cx.compile(net, torch.zeros(1, 1, 16, 16)).save(path)
    shown = output(capsys, "inputs", path, "--shape", "1,1,16,16")
    assert shown.splitlines() == [f"{path} takes every size from 6: o = ⌊(i − 4) / 2⌋", "smallest: 1×1×6×6 → 1×3×1×1"]
    refused = refused_command(capsys, "size", "inputs", path)
    assert "and leaves sizes open. Say which with --shape, such as --shape 1,3,224,224; once for each" in refused
    refused = refused_command(capsys, "size", "inputs", path, "--set", "levels=2")
    assert "set: 'levels=2' given, but the network of a file is fixed" in refused


def test_branches_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    assert output(capsys, "align", "k1", "k3d2") == "padding (2, 2): before = (2 − 0) / 1\n"
    assert answer(capsys, "align", "k1", "k2")["apart"] == 0.5
    assert "layer is 3" in refused_command(capsys, "size", "align", "k1", "k3", "--layer", 3)


@pytest.mark.parametrize("words, part", [
    ("output 570 unet_ronneberger", "not take 570×570, but: 188, 204, 220, … (188 + 16 n). The nearest: 556 or 572"),
    ("inputs unett", "there is no model 'unett'; did you mean 'unet'?"),
    ("inputs 9 alexnet", "alexnet makes 1×1000 of 1×3×224×224; no output along the image's axes follows"),
    ("tiles 64 alexnet", "alexnet cannot be tiled: its output has no image axes that can be followed"),
    ("tiles 64 unet", "Use tiles of at least 208"),
    ("depth 9 unet", "layer 1 is not understood at the mark"),
    ("output 8x8x8 unet --set dims=2", "size: got 3 sizes, but there are 2 axes. Give one size for each axis"),
    ("output 9 k3 --set levels=2", "--set and --shape belong to a network, but layers are given"),
    ("inputs missing.onnx", "missing.onnx cannot be read (No such file or directory)"),
    ("output 224 k7s2q3 pool3", "layer 1 is not understood at the mark: k7s2»q3« pool3. Expected one of 'p', 'd'."),
    ("output 224 k7 foo3", "k7 »foo«3. Expected a kind of layer: k, pool, t,"),
    ("output 224x224 k3,3,3", "one number, or 2 of them, for 2 axes; got 3"),
    ("output 3 k7", "layer 1 (k7), input size 3: an input of size 3 with padding (0, 0)"),
    ("output 0 k3", "size: got '0'; expected 1 to 3 whole numbers from 1 on"),
    ("output 4x4x4x4 k3", "size: got '4x4x4x4'; expected 1 to 3 whole numbers"),
    ("output 12.5 k3", "size: got '12.5'"),
    ("inputs 9x k3", "output: got '9x'"),
    ("output 224", "missing argument 'LAYER...|NETWORK"),
    ("inputs 9", "output: got 9 alone; expected layers or a network after it"),
    ("sources 9", "missing option '--kernel'"),
    ("layers 9x9 4x4x4", "output: got 3 sizes, but there are 2 axes. Give one size for each axis"),
    ("layers 9 4 --kernel a", "kernel: got 'a'; expected numbers of at least 1, such as 3"),
    ("layers 9 4 --stride 0", "stride: got '0'"),
    ("layers 9 4 --padding smae", "padding: got 'smae'; expected a number, 1:2 (before, after)"),
    ("tiles 16 k3p1x9", "Use tiles of at least"),
    ("tiles 16 k3 --image 9x9x", "image: got '9x9x'"),
    ("depth 9 k1", "target is 9, but the field stays at 1 inputs"),
    ("224 k3", "no such command '224'"),
])  # fmt: skip
def test_refusals(capsys: pytest.CaptureFixture[str], words: str, part: str) -> None:
    assert part in refused_command(capsys, "size", *words.split())


@pytest.mark.parametrize("question", ["output", "inputs", "layers", "sources", "depth", "tiles", "align"])
def test_every_question_has_help_with_an_example(capsys: pytest.CaptureFixture[str], question: str) -> None:
    shown = " ".join(output(capsys, question, "--help").split())
    assert f"Example: convoxel size {question}" in shown and "--json" in shown


def test_layers_need_neither_arrays_nor_networks() -> None:
    code = (
        "import sys; from convoxel.cli import main; main(['size', 'output', '224', 'k7s2p3', 'pool3s2p1']); "
        "sys.exit(str({'torch', 'numpy'} & set(sys.modules) or 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() in ("", "0"), done.stderr
