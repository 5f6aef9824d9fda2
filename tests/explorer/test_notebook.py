"""Views in a notebook: pages that stand alone, answers of the kernel, and what is shown without one."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

import numpy as np
import pytest
import torch
from torch import nn

from convoxel.errors import ConfigError
from convoxel.explorer.image_frame import open_frame
from convoxel.explorer.notebook import show
from convoxel.explorer.view import Query


def test_a_page_stands_alone() -> None:
    page = show("resnet18", shape="1,3,64,64").page()
    assert not re.findall(r'(?:src|href)="(?:/|https?:)', page)
    assert 'data-state="net=resnet18&amp;shape=1%2C3%2C64%2C64"' in page and 'data-live=""' in page
    assert show("resnet18").page("fields") != page


def test_the_kernel_answers_as_the_explorer_does() -> None:
    shown = show("resnet18")
    answer, content = shown.answer("network/describe", [["net", "resnet18"], ["shape", "1,3,64,64"]])
    assert answer["answer"]["total"]["params"] == 11689512 and content == b""
    assert shown.answer("image/slice", [["image", "pattern-2d"], ["plane", "picture"]])[1].startswith(b"\x89PNG")
    assert "error" in shown.answer("network/describe", [["net", "/etc/passwd"]])[0]
    assert "error" in shown.answer("network/measure", [["net", "resnet18"]])[0]  # a question changes nothing


def test_layers_and_networks_without_a_kernel() -> None:
    assert "11,689,512" in show("resnet18", shape="1,3,64,64")._repr_html_()
    layer = show("k3s2p1")
    assert layer.view.name == "layer" and layer.state == "kind=correlation&kernel=3&stride=2&padding=1"
    assert layer._repr_html_().startswith("<div><svg")
    assert "text/html" in layer._repr_mimebundle_()


LAYERS = [
    nn.Conv2d(3, 8, 5, stride=2, padding=1, groups=1), nn.Conv1d(4, 4, 3, dilation=4, groups=2, bias=False),
    nn.Conv3d(1, 2, (1, 3, 3), padding="same", padding_mode="reflect"), nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    nn.ConvTranspose2d(2, 1, 3, stride=2, padding=1, output_padding=1), nn.AvgPool1d(2, count_include_pad=False),
]  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_layers_of_pytorch_are_shown_as_layers(layer: nn.Module) -> None:
    shown = show(layer)
    words = parse_qsl(shown.state)
    told = shown.answer("layer/describe", words)[0]["answer"]
    channels = getattr(layer, "in_channels", 1)
    with torch.no_grad():
        y = layer(torch.zeros(1, channels, *told["size"]))
    assert told["output"] == list(y.shape[2:])
    facts = {fact["name"]: fact["value"] for fact in told["facts"]}
    assert facts.get("parameters", 0) == sum(each.numel() for each in layer.parameters())
    assert shown._repr_html_().startswith("<div><svg")


def test_modules_are_shown_as_they_are() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)).train()
    shown = show(net, shape=(1, 1, 224, 224))
    word = dict(parse_qsl(shown.state))["net"]
    told = shown.answer("network/describe", [["net", word]])[0]["answer"]
    assert told["total"]["params"] == sum(each.numel() for each in net.parameters()) and told["controls"] == []
    assert "cx.describe(net, (1, 1, 224, 224))" in told["copies"][0]["text"] and len(told["copies"]) == 1
    assert f"{told['total']['params']}" in shown._repr_html_()
    assert shown.answer("network/compare", [["net", word], ["a.net", word]])[0]["answer"]["same"]
    field = shown.answer("fields/unit", [["net", word], ["image", "pattern-2d"], ["layer", "3"]])[0]["answer"]
    assert "sees" in str(field) and word not in str(field["copies"])
    page = {"net": word, "image": "pattern-2d", "layer": "0", "channel": "2"}
    maps = shown.answer("inside/maps", [*page.items()])[0]["answer"]
    frame = open_frame(shown.session, Query(tuple(page.items())))
    with torch.no_grad():
        y = net[0](torch.from_numpy(frame.cut((0, 0), frame.size)))
    assert maps["largest"] == pytest.approx(y[0].flatten(1).max(dim=1).values.tolist(), rel=1e-4)
    assert net.training and not any(each.grad is not None for each in net.parameters())
    del shown, frame  # a word lives as long as what is shown
    assert "error" in show("resnet18").answer("network/describe", [["net", word]])[0]


def test_mistakes_are_told() -> None:
    with pytest.raises(ConfigError, match="shape"):
        show(nn.Sequential(nn.Conv2d(1, 1, 1)))
    with pytest.raises(ConfigError, match="subject"):
        show(np.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="view"):
        show("resnet18", view="fieldz")
    with pytest.raises(ConfigError, match="resnet"):
        show("resnet19")
