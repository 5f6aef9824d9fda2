"""Views in a notebook: pages that stand alone, answers of the kernel, and what is shown without one."""

from __future__ import annotations

import re

import pytest

from convoxel.errors import ConfigError
from convoxel.explorer.notebook import show


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


def test_mistakes_are_told() -> None:
    with pytest.raises(ConfigError, match="view"):
        show("resnet18", view="fieldz")
    with pytest.raises(ConfigError, match="resnet"):
        show("resnet19")
