"""Tables of shapes and costs against published figures and against counting by hand."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from convoxel import models
from convoxel.errors import ConfigError, GraphError, ShapeError, UnsupportedError
from convoxel.inspect import describe


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
    # x, y | y, s | y, s, z | y, z, cat (two more): the last needs most
    assert summary.peak_bytes == 4 * one
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


def test_zoo_networks_by_name() -> None:
    assert describe("course_vgg").input_shapes == ((1, 3, 224, 224),)
    assert describe("unet", (2, 3, 32)).rows[0].output_shape == (2, 32, 32)


@pytest.mark.parametrize("arguments, error, match", [
    (("resnet19",), ConfigError, "did you mean 'resnet1"),
    (("net.onnx", (1, 3, 8, 8)), UnsupportedError, "'net.onnx' is a file"),
    (("unet", (1, 1)), ConfigError, r"\(1, 1\) has 2 axes, but unet takes"),
    (("unet", (1, 1, 0)), ConfigError, r"\(1, 1, 0\) is no input shape"),
    (("unet", 16), ConfigError, "16 is no input shape"),
    ((nn.Conv2d(1, 1, 3),), ConfigError, "Conv2d needs the shape of every input"),
    (("unet", (1, 1, 30, 32)), ShapeError, "height 30 → 16 or 32"),
    ((nn.Conv2d(2, 1, 3), (1, 1, 8, 8)), GraphError, r"without data on inputs of shape \(1, 1, 8, 8\)"),
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


def test_documented_examples() -> None:
    import doctest
    import importlib

    for name in ("describe", "summary"):
        result = doctest.testmod(importlib.import_module(f"convoxel.inspect.{name}"))
        assert result.failed == 0 and result.attempted > 0
