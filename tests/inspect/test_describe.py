"""Tables of shapes and costs against published figures and against counting by hand."""

from __future__ import annotations

import csv
import io
import json
import resource
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from convoxel import models
from convoxel.errors import ConfigError, DataError, GraphError, ShapeError
from convoxel.lookup import describe


@pytest.mark.parametrize("name, params, gmacs, field", [
    ("resnet18", 11_689_512, 1.814, 435), ("resnet34", 21_797_672, 3.664, 899),
    ("resnet50", 25_557_032, 4.089, 427),
    ("resnet101", 44_549_160, 7.801, 971), ("resnet152", 60_192_808, 11.514, 1451),
])  # fmt: skip
def test_published_figures(name: str, params: int, gmacs: float, field: int) -> None:
    summary = describe(name, (1, 3, 224, 224))
    assert summary.params == params == sum(row.params for row in summary.rows)
    assert round(summary.macs / 1e9, 3) == gmacs
    assert summary.field is not None
    assert summary.field.size == (field, field) and summary.field.stride == (32, 32)
    assert summary.field.whole == (True, True)
    assert summary.remarks == ()


def test_paper_unet_macs() -> None:
    with torch.device("meta"):
        net = models.unet(2, 1, 2, width=64, norm="none", padding="none")
    summary = describe(net, (1, 1, 572, 572))
    assert summary.output_shapes == ((1, 2, 388, 388),)
    assert summary.macs == 150_428_424_448
    assert summary.field is not None and summary.field.whole == (False, False)


@pytest.mark.parametrize("layer, shape, macs", [
    (nn.ConvTranspose3d(64, 32, 2, 2), (1, 64, 16, 16, 16), 67_108_864),
    (nn.ConvTranspose2d(3, 1, 2, 2), (1, 3, 2, 2), 48),
    (nn.ConvTranspose2d(32, 32, 3, 2, groups=32), (1, 32, 16, 16), 73_728),
    (nn.Conv2d(3, 64, 7, 2, 3), (2, 3, 224, 224), 2 * 118_013_952),
    (nn.Conv1d(4, 6, 3, groups=2), (1, 4, 10), 6 * 8 * 2 * 3),
    (nn.Linear(8, 5), (4, 3, 8), 4 * 3 * 8 * 5),
])  # fmt: skip
def test_macs_of_one_layer(layer: nn.Module, shape: tuple[int, ...], macs: int) -> None:
    summary = describe(nn.Sequential(layer), shape)
    (row,) = summary.rows
    assert row.macs == summary.macs == macs
    assert row.output_shape == tuple(layer(torch.zeros(shape)).shape)
    assert row.params == sum(p.numel() for p in layer.parameters())


@pytest.mark.parametrize("name", [
    "alexnet", "vgg11_bn", "googlenet", "inception_v3", "resnet50", "densenet121", "mobilenet_v1", "mobilenet_v3_small",
    "efficientnet_b7", "unet", "unet_ronneberger", "unet_cicek", "unet_resnet18",
])  # fmt: skip
def test_macs_are_those_of_pytorchs_own_counter(name: str) -> None:
    summary = describe(name)
    with torch.device("meta"):
        net, x = models.build(name).eval(), torch.empty(summary.input_shapes[0])
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(x)
    assert 2 * summary.macs == counter.get_total_flops()


def test_rows_name_the_layers() -> None:
    rows = {row.name: row for row in describe(models.unet(2, 1, 2, levels=1, width=4), (1, 1, 16, 16)).rows}
    assert rows["encoder.0.conv1"].kernel == (3, 3)
    assert rows["encoder.0.norm1"].operator == "batch_norm"
    assert rows["encoder.0.act1"].function == "relu"
    assert rows["up.0"].operator == "transposed_convolution"
    assert rows["cat"].operator == "concat" and rows["cat"].output_shape == (1, 8, 16, 16)
    repeated = [row.name for row in describe("resnet18", (1, 3, 64, 64)).rows]
    assert {"layer1.0.add", "layer1.0.relu", "layer1.0.relu:2"} <= set(repeated)
    assert len(set(repeated)) == len(repeated)


def test_bytes_by_hand() -> None:
    """conv 1 → 4 channels on 8², ReLU in place, pool to 4²; float32."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten())
    summary = describe(net, (1, 1, 8, 8))
    image, conv, pool = 64 * 4, 4 * 64 * 4, 4 * 16 * 4
    assert [row.activation_bytes for row in summary.rows] == [conv, 0, pool, 0]
    assert summary.activation_bytes == conv + pool
    assert summary.peak_bytes == max(image + conv, conv + pool)


def test_skip_keeps_memory_alive() -> None:
    class Skip(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x + 1
            z = torch.sigmoid(torch.sigmoid(y))
            return torch.cat([y, z], 1)

    one = 4 * 10
    summary = describe(Skip(), (1, 1, 10))
    # x and the whole of y and z | the whole, s | the whole, s | the whole: parts are written where the whole lies
    assert [row.live_bytes for row in summary.rows] == [3 * one, 3 * one, 3 * one, 2 * one]
    assert summary.peak_bytes == 3 * one
    assert summary.activation_bytes == 5 * one


def test_the_module_stays_as_it_is() -> None:
    net = models.unet(2, 1, 2, levels=1, width=4).train()
    before = {name: (value.data_ptr(), value.device.type) for name, value in net.state_dict().items()}
    describe(net, (1, 1, 16, 16))
    assert net.training and all(child.training for child in net.modules())
    assert {n: (v.data_ptr(), v.device.type) for n, v in net.state_dict().items()} == before
    assert not any(child._forward_hooks or child._forward_pre_hooks for child in net.modules())


def test_shared_weights_count_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.conv(x))

    summary = describe(Twice(), (1, 2, 8, 8))
    assert summary.params == 38
    assert [row.params for row in summary.rows] == [38, 0]
    assert summary.rows[0].macs == summary.rows[1].macs == 2 * 2 * 9 * 64


def test_dict_is_json() -> None:
    report = json.loads(json.dumps(describe("unet", (1, 1, 16, 16, 16)).to_dict()))
    total = report["total"]
    assert {"params", "macs", "activation_bytes", "peak_bytes", "field"} <= set(total)
    assert total["field"] == [204, 204, 204] and total["stride"] == [1, 1, 1]
    row = report["rows"][0]
    assert row["name"] == "encoder.0.conv1" and row["field"]["size"] == [3, 3, 3]
    assert row["output_shape"] == [1, 32, 16, 16, 16] and row["kernel"] == [3, 3, 3]
    assert total["macs"] == sum(row["macs"] for row in report["rows"])


def test_the_printed_table() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    summary = describe(net, (1, 1, 32, 64))
    text = str(summary)
    assert "Sequential: 1×1×32×64 → 1×4×16×32" in text
    assert "convolution + relu" in text and "max pool" in text
    assert "4/2" in text and "73.7 k" in text and "parameters" in text
    assert repr(summary) == "<Summary Sequential: 1×1×32×64 → 1×4×16×32, 40 parameters, 73.7 k MACs>"
    html = summary._repr_html_()
    assert html.count("<tr>") == 3 and "convolution + relu" in html and "<script" not in html
    page = summary.view().page()
    assert page.startswith("<!doctype html>") and html in page and "color-scheme:light dark" in page


def test_published_transposed_macs_and_options() -> None:
    summary = describe("resnet18", dims=3, in_channels=1, num_classes=2, width=0.25)
    assert summary.input_shapes == ((1, 1, 64, 64, 64),) and summary.output_shapes == ((1, 2),)
    assert describe("unet", (1, 2, 32), levels=2).input_shapes == ((1, 2, 32),)
    with pytest.raises(ConfigError, match="levls"):
        describe("unet", levls=2)
    with pytest.raises(ConfigError, match="levels= came with a network that is built already"):
        describe(nn.Conv1d(1, 1, 3), (1, 1, 8), levels=2)


def test_rows_of_other_depths_and_columns() -> None:
    summary = describe("resnet18", (1, 3, 64, 64))
    top = summary.at_depth(1)
    assert [row.name for row in top][:5] == ["conv1", "bn1", "relu", "maxpool", "layer1"]
    for figure in ("params", "macs", "activation_bytes", "moved_bytes", "steps"):
        assert sum(getattr(row, figure) for row in top) == sum(getattr(row, figure) for row in summary.rows)
    assert max(row.live_bytes for row in top) == summary.peak_bytes
    assert len(summary.at_depth(2)) > len(top) and summary.at_depth(9) == summary.at_depth(4)
    view = summary.view(depth=1, columns=["layer", "live", "offset", "intensity"])
    assert next(view.lines()) == ["conv1", "304 KiB", "-3×-3", "55.2"]
    assert "FLOPs/byte" in view.text() and "kernel" not in view.text()
    with pytest.raises(ConfigError, match="depth is 0; expected at least 1"):
        summary.view(depth=0)
    with pytest.raises(ConfigError, match=r"there is no 'flops'; choose from layer, operator"):
        summary.view(columns=["layer", "flops"])
    with pytest.raises(ConfigError, match=r"none given; choose from layer"):
        summary.view(columns=[])


def test_csv_holds_plain_numbers(tmp_path: Path) -> None:
    summary = describe("unet", (1, 1, 16, 16, 16))
    text = summary.to_csv(tmp_path / "rows.csv")
    assert (tmp_path / "rows.csv").read_text() == text
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == len(summary.rows)
    assert sum(int(row["macs"]) for row in rows) == summary.macs
    assert rows[0]["layer"] == "encoder.0.conv1" and rows[0]["output_shape"] == "1x32x16x16x16"
    assert (rows[-1]["field_size"], rows[-1]["field_stride"], rows[-1]["whole"]) == ("204x204x204", "1x1x1", "no")
    with pytest.raises(DataError, match=r"rows\.csv: its folder does not exist"):
        summary.to_csv(tmp_path / "none" / "rows.csv")


def test_bytes_moved_and_intensity() -> None:
    """conv 1 → 4, 3×3, on 8²: 64 inputs, 40 weights, 256 results; 2 · 9 · 256 FLOPs."""
    (conv, flat) = describe(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Flatten()), (1, 1, 8, 8)).rows
    assert conv.moved_bytes == 4 * (64 + 40 + 256)
    assert conv.intensity == 2 * 9 * 256 / conv.moved_bytes
    assert (flat.moved_bytes, flat.intensity) == (0, 0.0)


def test_no_data_is_allocated_or_read() -> None:
    with torch.device("meta"):
        net = nn.Sequential(nn.Linear(1 << 20, 1 << 20), nn.ReLU())  # 4 TiB
    assert describe(net, (1, 1 << 20)).params == (1 << 40) + (1 << 20)
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    describe("vgg19")  # 548 MiB of weights
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begun < 100 * 1024


@pytest.mark.parametrize("layer, shape", [
    (nn.Conv2d(2, 4, 3, 2, 1, 2, 2), (2, 2, 9, 11)), (nn.Conv1d(1, 2, 3, padding="same"), (1, 1, 9)),
    (nn.ConvTranspose3d(2, 4, 3, 2, 1, 1, 2), (1, 2, 3, 4, 5)), (nn.MaxPool2d(3, 2, 1, ceil_mode=True), (1, 1, 6, 7)),
    (nn.AvgPool1d(3, 2), (1, 1, 8)), (nn.AdaptiveAvgPool2d((1, 3)), (1, 2, 5, 7)), (nn.Linear(4, 3), (2, 5, 4)),
    (nn.AdaptiveAvgPool2d((None, 3)), (1, 2, 5, 7)), (nn.BatchNorm2d(3), (2, 3, 4, 4)), (nn.SiLU(True), (1, 2, 3)),
    (nn.MaxPool1d(2, return_indices=True), (1, 1, 8)), (nn.Conv2d(1, 2, 3), (1, 5, 5)),
    (nn.LPPool2d(2, 2), (1, 1, 8, 8)),
])  # fmt: skip
def test_shapes_without_data_are_pytorchs(layer: nn.Module, shape: tuple[int, ...]) -> None:
    result = layer.eval()(torch.zeros(shape))
    expected = result[0] if isinstance(result, tuple) else result
    assert describe(nn.Sequential(layer), shape).rows[-1].output_shape == tuple(expected.shape)


@pytest.mark.parametrize("layer, shape", [
    (nn.Conv2d(2, 4, 3), (1, 3, 9, 9)), (nn.Conv2d(1, 4, 3), (1, 1, 2, 9)), (nn.BatchNorm1d(3), (1, 2, 8)),
    (nn.ConvTranspose1d(2, 1, 2), (1, 1, 8)), (nn.MaxPool1d(9), (1, 1, 8)), (nn.Linear(4, 2), (1, 5)),
    (nn.MaxPool1d(2, 2, 2), (1, 1, 8)),
])  # fmt: skip
def test_what_pytorch_refuses_is_refused(layer: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises((GraphError, ShapeError), match="does not run without data on inputs of shape"):
        describe(layer, shape)


def test_zoo_networks_by_name() -> None:
    assert describe("course_vgg").input_shapes == ((1, 3, 224, 224),)
    assert describe("unet", (2, 3, 32)).rows[0].output_shape == (2, 32, 32)


@pytest.mark.parametrize("arguments, error, match", [
    (("resnet19",), ConfigError, "did you mean 'resnet1"),
    (("net.onnx", (1, 3, 8, 8)), GraphError, "net.onnx cannot be read"),
    (("unet", (1, 1)), ConfigError, r"\(1, 1\) has 2 axes, but unet takes"),
    (("unet", (1, 1, 0)), ConfigError, r"\(1, 1, 0\) is no input shape"),
    (("unet", 16), ConfigError, "16 is no input shape"),
    ((nn.Conv2d(1, 1, 3),), ConfigError, "Conv2d needs the shape of every input"),
    (("unet", (1, 1, 30, 32)), ShapeError, "height 30 → 16 or 32"),
    ((nn.Conv2d(2, 1, 3), (1, 1, 8, 8)), ShapeError, r"without data on inputs of shape \(1, 1, 8, 8\)"),
])  # fmt: skip
def test_errors_say_how_to_mend(arguments: tuple[object, ...], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        describe(*arguments)  # type: ignore[arg-type]


def test_a_network_that_looks_at_values() -> None:
    class Looks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(GraphError, match="control flow that looks at values"):
        describe(Looks(), (1, 1, 4))


@pytest.mark.parametrize("width, headings", [
    (120, "layer operator output kernel params MACs bytes field/stride"),
    (76, "layer output params MACs bytes field/stride"), (50, "layer params MACs field/stride"),
    (30, "layer field/stride"), (10, "layer field/stride"),
])  # fmt: skip
def test_narrow_terminals_lose_columns_not_letters(width: int, headings: str) -> None:
    file = io.StringIO()
    summary = describe(models.unet(2, 1, 2, levels=1, width=4), (1, 1, 64, 64))
    Console(file=file, width=width, color_system=None).print(summary)
    text = file.getvalue()
    if width > 10:
        assert text.splitlines()[1].split() == headings.split() and "encoder.0.conv1" in text
    missing = len(headings.split()) < 8
    assert missing == ("no room for:" in " ".join(text.split()))
    file.truncate(0)
    Console(file=file, width=width, color_system=None).print(summary.view(columns=["layer", "operator", "live"]))
    assert "no room" not in file.getvalue()
