"""Layers beside other engines: the list, the exact results, one layer measured, the summary and its picture."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from convoxel import ConfigError, UnsupportedError, native, reference
from convoxel.bench import clock, exact, layer_bench, peer
from convoxel.bench.layer_bench import LayerResult
from convoxel.bench.layer_list import KINDS, Layer, parse_layer, read_layers, select_layers
from convoxel.bench.plot import plot_results
from convoxel.bench.summary_table import summarise
from convoxel.cli import main
from convoxel.native import calibration

# One of every kind, small.
LAYERS = [
    parse_layer(line)
    for line in (
        "a 1 6x20 4 k5 s2",
        "a 1 6x9 4 k3 s2 p1 t",
        "a 2 3x9 8 k3",
        "a 2 8x9x7 12 k1x7",
        "a 2 8x9x7 12 k3x5 p0x2 s2x1 d1x2",
        "b 2 8x9 8 k7 g8",
        "b 2 8x6 12 k3 g4 s2",
        "b 2 64x1 40 k1",
        "b 2 8x5 4 k4 s2 p1 t",
        "b 2 8x5 12 k3 s2 p1 d2 g4 t",
        "c 3 4x6 6 k3",
        "c 3 4x4 6 k2 s2 t",
        "c 3 4x7 4 k3 s2 g4",
    )
]
IDS = [" ".join(str(layer).split()[1:]) for layer in LAYERS]


def data(layer: Layer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((1, layer.in_channels, *layer.size), np.float32)
    return x, rng.standard_normal(layer.weight_shape, np.float32), rng.standard_normal(layer.out_channels, np.float32)


def whole_result(layer: Layer, x: np.ndarray, w: np.ndarray, bias: np.ndarray) -> np.ndarray:
    pads = [(p, p) for p in layer.padding]
    if layer.transposed:
        zeros = (0,) * layer.dims
        return reference.conv_transpose(x, w, bias, layer.stride, pads, zeros, layer.dilation, layer.groups)
    return reference.conv(x, w, bias, layer.stride, pads, layer.dilation, layer.groups)


# ---- the list --------------------------------------------------------------------------------------------


@pytest.mark.smoke
def test_the_list_holds_every_net_and_kind_once() -> None:
    layers = read_layers()
    nets = {layer.net for layer in layers}
    assert {
        "alexnet", "vgg16", "googlenet", "inception3", "resnet18", "resnet50", "densenet121", "mobilenet2",
        "efficientb0", "unet2d", "unet3d",
    } <= nets  # fmt: skip
    assert {layer.kind for layer in layers} == set(KINDS)
    texts = [str(layer) for layer in layers]
    assert sorted(set(texts)) == sorted(texts)
    quick = select_layers(layers)
    assert 60 <= len(quick) <= 80 and {layer.kind for layer in quick} == set(KINDS)


def test_the_list_agrees_with_the_networks_of_the_zoo() -> None:
    """Each convolution of our own ResNet-50 stands in the list, and the other way round."""
    import torch

    from convoxel import models

    net = models.build("resnet50", dims=2, in_channels=3, num_classes=1000).eval()
    seen = set()

    def note(module: Any, inputs: Any, output: Any) -> None:
        spec = (inputs[0].shape[1], inputs[0].shape[2], module.out_channels, module.kernel_size[0], module.stride[0])
        seen.add((*spec, module.groups, module.padding[0]))

    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(note)
    with torch.device("meta"):
        net.to("meta")(torch.empty(1, 3, 224, 224))
    listed = {
        (a.in_channels, a.size[0], a.out_channels, a.kernel[0], a.stride[0], a.groups, a.padding[0])
        for a in read_layers()
        if a.net == "resnet50" or (a.net == "resnet18" and a.in_channels == 3)
        if not a.fully_connected
    }
    assert seen == listed


@pytest.mark.smoke
def test_a_line_is_a_layer() -> None:
    layer = parse_layer("inception3 2 128x17x19 192 k1x7 s1x2 quick")
    assert (layer.size, layer.kernel, layer.stride, layer.padding) == ((17, 19), (1, 7), (1, 2), (0, 3))
    assert layer.out_size == (17, 10) and layer.quick and layer.dims == 2
    assert layer.gflop == 2 * 17 * 10 * 7 * 128 * 192 / 1e9
    assert str(layer) == "inception3  2-D 128x17x19 -> 192  k1x7 s1x2"
    up = parse_layer("unet3d 3 64x32 32 k2 s2 t")
    assert up.out_size == (64, 64, 64) and up.weight_shape == (64, 32, 2, 2, 2) and up.padding == (0, 0, 0)
    assert up.gflop == 2 * 32**3 * 8 * 64 * 32 / 1e9
    assert parse_layer("a 1 4x10 4 k3 d4").padding == (4,)
    for line in ("a 2 4x9 4 k3 p0", "a 2 4x9 4 k4 s2 p1 t", "a 1 4x10 4 k5 p3 d2 g2"):
        assert str(parse_layer(line)).endswith(line.split(" 4 ")[1])


KIND_OF = {
    "1-D": "a 1 3x9 8 k3",
    "transposed": "a 3 8x9 8 k2 s2 t",
    "fully connected": "a 2 3x1 8 k1",
    "first layers": "a 2 3x9 8 k7 s2",
    "depthwise 2-D": "a 2 8x9 8 k3 s2 g8",
    "depthwise 3-D": "a 3 8x9 8 k3 g8",
    "strided": "a 2 8x9 8 k1 s2",
    "1x1": "a 2 8x9 8 k1",
    "3x3 s1": "a 2 8x9 8 k3",
    "3x3x3": "a 3 8x9 8 k3",
    "large kernels": "a 2 8x9 8 k7",
    "other": "a 2 8x9 8 k1x7",
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_has_a_kind(kind: str) -> None:
    assert parse_layer(KIND_OF[kind]).kind == kind


@pytest.mark.parametrize(
    "line",
    ["vgg16 2 3x224 64", "vgg16 2 3x224 64 s2", "vgg16 2 3x224 k3", "vgg16 4 3x224 64 k3", "vgg16 2 3 64 k3",
     "vgg16 2 3x2x2x2 64 k3", "vgg16 2 3x224 64 k3x3x3", "vgg16 2 3x224 64 k3 z9", "vgg16 2 3x224 64 k3 g", "a"],
)  # fmt: skip
def test_a_line_that_is_no_layer_is_refused(line: str) -> None:
    with pytest.raises(ConfigError, match=r"layers: got '.*'; expected: net dims channelsxsize out_channels kN"):
        parse_layer(line)


@pytest.mark.parametrize("line", ["a 2 6x9 8 k3 g4", "a 2 8x2 8 k5 p0", "a 2 0x9 8 k3", "a 2 8x9 8 k3 s0"])
def test_a_layer_that_is_no_convolution_is_refused(line: str) -> None:
    with pytest.raises(ConfigError, match="is no convolution: numbers must be at least 1, g must divide"):
        parse_layer(line)


def test_lists_and_choices_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    with pytest.raises(ConfigError, match=r"mine.txt cannot be read \(No such file"):
        read_layers(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"cannot be read \(it is no text\)"):
        read_layers(path)
    path.write_text("# nothing\n\n")
    with pytest.raises(ConfigError, match="holds no layer"):
        read_layers(path)
    path.write_text("# mine\na 2 8x9 8 k3\na 2 8x9 8 k\n")
    with pytest.raises(ConfigError, match=r"mine.txt, line 3: layers: got 'a 2 8x9 8 k'"):
        read_layers(path)
    path.write_text("a 2 8x9 8 k3\na 2 8x9 8 k1 quick\nb 3 8x9 8 k1\n")
    layers = read_layers(path)
    chosen = {
        (): ["a k1"],
        ("b",): ["b k1"],  # none of them is quick: all
        ("a",): ["a k1"],
    }
    for nets, expected in chosen.items():
        assert [f"{a.net} k{a.kernel[0]}" for a in select_layers(layers, nets)] == expected
    assert len(select_layers(layers, all_lines=True)) == 3
    assert select_layers(layers, dims=[3]) == layers[2:]
    with pytest.raises(ConfigError, match="nets: got 'c'; expected some of a, b"):
        select_layers(layers, ["c"])
    with pytest.raises(ConfigError, match="dims: got 1; these layers have 2"):
        select_layers(layers, ["a"], [1])


# ---- exact results -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", LAYERS, ids=IDS)
def test_exact_results_at_some_outputs_are_those_of_the_whole(layer: Layer) -> None:
    x, w, bias = data(layer)
    whole = whole_result(layer, x, w, bias)
    assert whole.shape == (1, layer.out_channels, *layer.out_size)
    pixels = np.stack(np.unravel_index(np.arange(math.prod(layer.out_size)), layer.out_size), axis=1)
    channels = np.arange(layer.out_channels)[::-2]
    found = exact.exact_values(layer, x, w, bias, pixels, channels)
    np.testing.assert_allclose(found.reshape(-1, *layer.out_size), whole[0, channels], rtol=1e-12, atol=1e-12)


def test_errors_are_seen_wherever_the_layer_is_large() -> None:
    layer = parse_layer("a 2 4x90x80 300 k3")
    pixels, channels = exact.sample_outputs(layer)
    assert pixels.shape == (256, 2) and channels.shape == (256,) and len(set(channels)) == 256
    assert {(0, 0), (89, 79)} <= set(map(tuple, pixels.tolist()))
    x, w, bias = data(layer)
    y = whole_result(layer, x, w, bias).astype(np.float32)
    assert exact.relative_error(layer, x, w, bias, y) < 1e-7
    assert exact.relative_error(layer, x, w, bias, np.roll(y, 1, axis=3)) > 0.5, "a shift of one pixel"
    assert exact.relative_error(layer, x, w, bias, np.roll(y, 1, axis=1)) > 0.5, "a shift of one channel"
    y[0, :, 89, 79] += 9
    assert exact.relative_error(layer, x, w, bias, y) > 0.01, "one wrong pixel, at the end"
    y[...] = np.nan
    assert math.isnan(exact.relative_error(layer, x, w, bias, y))


# ---- one layer -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", LAYERS, ids=IDS)
def test_all_contenders_run_the_same_layer(layer: Layer) -> None:
    x, w, bias = data(layer)
    w /= np.float32(layer.fan_in**0.5)
    whole = whole_result(layer, x, w, bias)
    runs = peer.prepare_peers(layer, x, w, bias, 1)
    if peer.missing_peers() == []:
        assert {"pytorch", "onnxruntime", "openvino"} <= set(runs)
    for name, run in runs.items():
        np.testing.assert_allclose(np.asarray(run()), whole, atol=1e-5, err_msg=name)
    _, plan = layer_bench._plan(layer, w, bias, 1, "auto")
    y = np.full((1, *layer.out_size, layer.out_channels), np.nan, np.float32)
    plan.run([np.ascontiguousarray(np.moveaxis(x, 1, -1)), y])
    np.testing.assert_allclose(np.moveaxis(y, -1, 1), whole, atol=1e-4)


def test_a_result_holds_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_bench, "prepare_peers", lambda *_: {"one": lambda: None})
    layer = parse_layer("a 2 16x12 24 k3")
    result = layer_bench.measure_layer(layer, 1, rounds=1, every_algorithm=True)
    assert {"convoxel", "indirect", "winograd(2)", "one"} <= set(result.times) and "depthwise" not in result.times
    assert result.peers == ("one",) and result.best_peer == "one" and result.ratio is not None
    assert 0 < result.l2_error < 1e-5 and result.ceiling > 1e9
    assert result.algorithm in {row["name"] for row in native.algorithms()}
    assert result.largest_bytes >= 4 * 12 * 12 * 24
    row = json.loads(json.dumps(result.to_dict()))
    assert row["ratio"] == row["ms"]["one"] / row["ms"]["convoxel"]
    assert row["ceiling_share"] == pytest.approx(row["gflops"] / row["ceiling_gflops"])
    assert row["workspace_share"] == result.workspace_bytes / result.largest_bytes
    assert row["times"]["one"]["min_s"] <= row["times"]["one"]["median_s"] <= row["times"]["one"]["max_s"]


def test_contenders_take_turns() -> None:
    log: list[str] = []
    times = clock.interleave({name: lambda name=name: log.append(name) for name in "abc"}, rounds=4, pause_s=0)
    assert log[:3] == ["a", "b", "c"] and len(log) == 3 + 4 * 9
    turns = [log[i : i + 3] for i in range(3, len(log), 3)]
    assert all(len(set(turn)) == 1 for turn in turns), "two untimed runs and a timed one"
    rounds = [[turn[0] for turn in turns[i : i + 3]] for i in range(0, 12, 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds) and len(set(map(tuple, rounds))) > 1
    assert set(times) == {"a", "b", "c"} and all(t["min_s"] <= t["median_s"] <= t["max_s"] for t in times.values())


def test_absent_peers_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    peer.lacking.cache_clear()
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    try:
        assert {"openvino", "onnxruntime"} <= set(peer.missing_peers())
        layer = LAYERS[2]
        assert set(peer.prepare_peers(layer, *data(layer), 1)) == {"pytorch", "pytorch-cl"}
    finally:
        peer.lacking.cache_clear()


def result(line: str, ratio: float | None, error: float = 1e-7) -> LayerResult:
    times = {"convoxel": {"median_s": 2.0, "min_s": 1.0, "max_s": 3.0}}
    if ratio is not None:
        times |= {"x": {"median_s": 2 * ratio}, "y": {"median_s": 2 * ratio + 1}}
    return LayerResult(
        layer=parse_layer(line), algorithm="indirect", times=times, peers=tuple(times)[1:], ceiling=5e9, l2_error=error,
        workspace_bytes=300, largest_bytes=100,
    )  # fmt: skip


def test_a_summary_is_the_geometric_mean() -> None:
    summary = summarise([
        result("a 2 8x9 8 k3", 4.0), result("a 2 8x9 8 k1", 1.0, 3e-6), result("b 2 9x9 8 k1", 0.25),
        result("b 2 9x9 9 k1", 0.5), result("c 2 8x8 8 k3", None),
    ])  # fmt: skip
    assert [(mean.name, mean.ratio, mean.smallest, mean.count) for mean in summary.nets] == [
        ("a", pytest.approx(2), 1, 2),
        ("b", pytest.approx(8**-0.5), 0.25, 2),
    ]
    assert {mean.name: mean.count for mean in summary.kinds} == {"3x3 s1": 1, "1x1": 3}
    assert [slow.ratio for slow in summary.slower] == [0.25, 0.5]
    assert (summary.largest_error, summary.largest_workspace_share, summary.ceiling) == (3e-6, 3, 5e9)
    assert json.loads(json.dumps(summary.to_dict()))["slower"][0]["ratio"] == 0.25


def test_a_picture_shows_every_layer_once(tmp_path: Path) -> None:
    lines = [layer for layer in read_layers() if layer.net in ("googlenet", "inception3", "unet3d")]
    results = [result(f"{a.net} {a.dims} {a.in_channels}x{a.size[0]} {a.out_channels} k3", 1.5) for a in lines]
    plot_results([*results, result("slow 2 8x9 8 k3", 0.5), result("none 2 8x9 8 k3", None)], tmp_path / "a.svg", "All")
    text = (tmp_path / "a.svg").read_text()
    ElementTree.fromstring(text)
    assert text.count(">1.50<") == len(lines) == text.count('data-ratio="1.50"') and text.count(">0.50<") == 1
    for heading in ("googlenet   1.50×", "inception3, continued", "slow   0.50×", "All"):
        assert f">{heading}<" in text
    assert "none" not in text.replace("fill:none", "")
    plot_results(results[:2], tmp_path / "a.png", "Two")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ConfigError, match="no ratios to draw"):
        plot_results([result("none 2 8x9 8 k3", None)], tmp_path / "a.png", "None")


# ---- the commands ----------------------------------------------------------------------------------------


@pytest.fixture
def short_list(tmp_path: Path) -> Path:
    path = tmp_path / "layers.txt"
    path.write_text("a 2 8x9 8 k3\nb 3 8x5 8 k1\nb 1 8x64 8 k3\n")
    return path


def test_bench_layers_measures_and_writes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, short_list: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_bench, "prepare_peers", lambda *_: {"pytorch": lambda: sum(range(100)), "openvino": list})
    words = ["bench", "layers", "--file", str(short_list), "--rounds", "1", "--threads", "1"]
    assert main([*words, "--json", str(tmp_path / "a.json"), "--plot", str(tmp_path / "a.svg")]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0].split()[:3] == ["layer", "GFLOP", "algorithm"]
    assert lines[1].startswith("a           2-D       8x9 -> 8    k3") and "x!" in lines[1]
    assert "geometric mean" in shown.out and "A peer was faster in 3 layers:" in shown.out
    written = json.loads((tmp_path / "a.json").read_text())
    assert len(written["rows"]) == 3 and written["threads"] == written["rounds"] == 1
    assert written["machine"]["processor"] and written["machine"]["caches"] == native.caches()
    assert set(written["summary"]["nets"]) == {"a", "b"} and (tmp_path / "a.svg").exists()
    assert main([*words, "b", "--dims", "1,2", "--algorithms"]) == 0
    only = [line for line in capsys.readouterr().out.splitlines() if " -> " in line and "x!" in line]
    assert len(only) == 1 and only[0].startswith("b           1-D") and "indirect" in only[0].split("ours")[1]


def test_bench_layers_without_peers(
    capsys: pytest.CaptureFixture[str], short_list: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_bench, "prepare_peers", lambda *_: {})
    monkeypatch.setattr(peer, "missing_peers", lambda: ["torch", "openvino"])
    assert main(["bench", "layers", "--file", str(short_list), "--nets", "a", "--rounds", "1"]) == 0
    shown = capsys.readouterr()
    assert "without torch, openvino, which are not installed" in shown.err
    assert "–" in shown.out and "geometric mean" not in shown.out and "Ceiling" in shown.out


def test_bench_layers_refuses_before_it_measures(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, short_list: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object) -> LayerResult:
        raise AssertionError("measured")

    monkeypatch.setattr(layer_bench, "measure_layer", never)
    cases = {
        ("--nets", "vgg17"): "nets: got 'vgg17'; expected some of",
        ("--dims", "4"): "dims: got '4'; expected whole numbers from 1 to 3",
        ("--file", str(short_list), "--nets", "a", "--dims", "3"): "these layers have 2",
        ("--file", str(tmp_path / "none")): "cannot be read",
        ("--plot", str(tmp_path / "a.pdf")): "ends in .png or .svg",
        ("--plot", str(tmp_path / "no" / "a.png")): "there is no folder",
        ("--json", str(tmp_path / "no" / "a.json")): "there is no folder",
        ("--threads", "0"): "--threads",
    }
    for words, part in cases.items():
        assert main(["bench", "layers", *words]) == 2
        line = capsys.readouterr().err
        assert part in line and line.count("\n") == 1, line
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    assert main(["bench", "layers", "--plot", str(tmp_path / "a.png")]) == 2
    assert "needs resvg, which is not installed" in capsys.readouterr().err


def test_bench_tile(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from convoxel.bench import register_tile as tile

    monkeypatch.setattr(tile, "PRODUCTS", ((64, 16, 32),))
    monkeypatch.setattr(tile, "_LEAST_MACS", 1)
    words = ["bench", "tile", "--rounds", "2", "--threads", "1"]
    assert main([*words, "--isa", "portable", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["m"], row["k"], row["n"]) == (64, 16, 32) and row["share_min"] <= row["share"] <= row["share_max"]
    assert main(words) == 0 and "64×16×32" in capsys.readouterr().out
    assert main([*words, "--isa", "mmx"]) == 2
    assert f"isa: got 'mmx'; this processor offers {native.instruction_sets()[0]}" in capsys.readouterr().err


def test_the_scripts_are_the_commands() -> None:
    folder = Path(__file__).resolve().parents[2] / "bench"
    for name in ("layers", "tile"):
        code = [sys.executable, str(folder / f"{name}.py"), "--help"]
        done = subprocess.run(code, capture_output=True, text=True, check=True)
        assert f"Example: convoxel bench {name}" in done.stdout


def test_help_of_bench_imports_nothing_heavy() -> None:
    code = (
        "import sys; from convoxel.cli import main; main(['bench', 'layers', '--help']); "
        "sys.exit(str({'torch', 'numpy', 'matplotlib'} & set(sys.modules) or 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() in ("", "0"), done.stderr


def test_an_algorithm_is_found_for_every_layer_of_the_list() -> None:
    for layer in select_layers(read_layers(), dims=[1]):
        candidates = layer_bench.find_candidates(layer, 1)
        assert candidates == sorted(candidates, key=lambda each: each[1]) and math.isfinite(candidates[-1][1])
    with pytest.raises(UnsupportedError):
        layer_bench._plan(LAYERS[2], *data(LAYERS[2])[1:], 1, "phases")


# ---- what the machine offers, and tuning at the command line ------------------------------------------------


def test_info_shows_machine_choices_and_cache(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVOXEL_CACHE", str(tmp_path))
    assert main(["info", "--json", "--threads", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bandwidth_bytes_per_s"] > 1e8 and found["caches"] == native.caches()
    assert found["tuning"] == {"folder": str(tmp_path), "winners": 0, "winners_here": 0}
    assert len(found["choices"]) >= 12
    for row in found["choices"]:
        assert row["algorithm"] == row["candidates"][0]["name"] and row["candidates"][0]["cost"] == 1
    assert {row["name"]: row["algorithm"] for row in found["choices"]}["3×3 depthwise"] == "depthwise"
    assert main(["info"]) == 0
    shown = capsys.readouterr().out
    for part in ("Ceiling", "GB/s", "Caches", "Calibration", f"{tmp_path}: 0 winners", "chosen by cost", "3×3×3, deep"):
        assert part in shown
    quiet = calibration.Calibration(calibration.Rates(2.0, 0.5), calibration.Rates(0.03, 0.04), time.time() - 7300)
    monkeypatch.setattr(calibration, "measure_calibration", lambda: quiet)
    assert main(["info", "--recalibrate"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "cache 2.00×, from memory 0.50×" in shown and "measured 2 hours ago, spread 4 %" in shown
    monkeypatch.setattr(calibration, "measure_calibration", lambda: quiet._replace(busy=True))
    assert main(["info", "--recalibrate", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["calibration"]
    assert found["measured"] and found["cache"] == 2.0 and found["busy"]["rates"]["memory"] == 0.5
    monkeypatch.setenv("CONVOXEL_CACHE", "")
    assert main(["info"]) == 0 and "off, because CONVOXEL_CACHE is empty" in capsys.readouterr().out


def test_compile_tunes_and_tells(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVOXEL_CACHE", str(tmp_path))
    monkeypatch.setattr("convoxel.cli.progress._LINE_S", 0.0)
    words = ["compile", "unet", "--shape", "1,1,16,16", "--set", "levels=1", "--set", "width=8", "--threads", "1"]
    assert main([*words, "--tune"]) == 0
    shown = capsys.readouterr()
    assert "tuning 1 of " in shown.err and "left: conv 1x3x3" in shown.err
    assert (tmp_path / "tuning.json").exists()
    assert main([*words, "--tune"]) == 0
    assert "tuning" not in capsys.readouterr().err, "everything is remembered"
