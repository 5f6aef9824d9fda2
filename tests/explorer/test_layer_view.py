"""The bench's numbers are those of the command line, of the reference and of the matrix."""

from __future__ import annotations

import json
import shlex
from typing import Any

import numpy as np
import pytest

from convoxel import reference
from convoxel.cli import main
from convoxel.errors import ConfigError, ConvoxelError, ShapeError
from convoxel.explorer import layer_view
from convoxel.explorer.session import Session
from convoxel.explorer.view import Query, plain

LAYERS: list[dict[str, str]] = [
    {"size": "7x7", "kernel": "3", "stride": "2", "padding": "same"},
    {"size": "9", "kernel": "4", "padding": "1:2", "dilation": "2"},
    {"size": "6x7", "kernel": "3x2", "stride": "2x1", "padding": "1x0:2", "kind": "convolution"},
    {"size": "4x5x6", "kernel": "3", "padding": "half"},
    {"size": "3x3", "kernel": "3", "stride": "2", "padding": "1", "output_padding": "1", "kind": "transposed"},
    {"size": "4", "kernel": "2", "stride": "3", "padding": "same", "kind": "transposed"},
    {"size": "7x7", "kernel": "2", "padding": "causal"},
    {"size": "8x8", "kernel": "3", "padding": "full"},
    {"size": "9x9", "kernel": "3", "padding": "-1"},
]


def ask(function: Any, **words: str) -> Any:
    """Return what a page would get."""
    return json.loads(json.dumps(plain(function(Session(), Query(tuple(words.items()))))))


def printed(capsys: pytest.CaptureFixture[str], line: list[str]) -> Any:
    """Return the JSON object that a command prints."""
    assert main([*line, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.smoke
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_sizes_are_those_of_the_command_that_it_offers(
    layer: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = ask(layer_view.describe, **layer)
    (command,) = [each["text"] for each in found["copies"] if each["name"] == "Sizes (command)"]
    told = printed(capsys, shlex.split(command)[1:])
    assert (told["input"], told["output"]) == (found["size"], found["output"])
    assert told["accepted"][0]["text"] in found["accepted"]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_python_that_it_offers_gives_the_same_sizes(layer: dict[str, str]) -> None:
    found = ask(layer_view.describe, **layer)
    (text,) = [each["text"] for each in found["copies"] if each["name"] == "Python"]
    (line,) = [line for line in text.splitlines() if "_sizes(" in line]
    call, _, told = line.partition("  # ")
    names: dict[str, Any] = {}
    exec(f"import convoxel as cx\nfound = {call}", names)
    assert list(names["found"]) == found["output"] and told == str(tuple(found["output"]))


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_values_are_the_references(layer: dict[str, str]) -> None:
    found = ask(layer_view.describe, **layer, numbers="1")
    values, axes = found["values"], found["axes"]
    x = np.array(values["x"]).reshape(1, 1, *found["size"])
    w = np.array(values["w"]).reshape(1, 1, *(axis["k"] for axis in axes))
    stride, dilation, pads = ([axis[name] for axis in axes] for name in "sdp")
    if found["kind"] == "transposed":
        y = reference.conv_transpose(x, w, None, stride, pads, [axis["a"] for axis in axes], dilation, 1)
    else:
        flipped = w[(..., *(slice(None, None, -1),) * len(axes))] if found["kind"] == "convolution" else w
        y = reference.conv(x, flipped, None, stride, pads, dilation, 1)
    assert y[0, 0].shape == tuple(found["output"])
    np.testing.assert_array_equal(y.ravel(), values["y"])


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_the_matrix_makes_the_values(layer: dict[str, str]) -> None:
    found = ask(layer_view.describe, **layer, numbers="1")
    for order in "CF":
        told = ask(layer_view.matrix, **layer, order=order)
        w = np.array(found["values"]["w"]).reshape([axis["k"] for axis in found["axes"]]).ravel(order)
        dense = np.zeros((told["rows"], told["columns"]))
        for row, column, weight in told["entries"]:
            dense[row, column] += w[weight]
        x = np.array(found["values"]["x"]).reshape(found["size"]).ravel(order)
        y = np.array(found["values"]["y"]).reshape(found["output"]).ravel(order)
        np.testing.assert_array_equal(dense @ x, y)
    assert len(told["entries"]) == next(f["value"] for f in found["facts"] if f["name"] == "not zero")


def test_the_lectures_pooling() -> None:
    x = "12 20 30 0; 8 12 2 0; 34 70 37 4; 112 100 25 12"
    found = ask(layer_view.describe, kind="max_pool", size="4x4", kernel="2", numbers="1", x=x)
    assert found["values"]["y"] == [20, 30, 112, 37]
    found = ask(layer_view.describe, kind="average_pool", size="4x4", kernel="2", numbers="1", x=x)
    assert found["values"]["y"] == [13, 8, 79, 19.5]


@pytest.mark.parametrize(
    "words",
    [
        {"size": "7", "kernel": "3", "stride": "2", "padding": "1", "ceil": "1"},
        {"size": "8", "kernel": "3", "stride": "2", "padding": "1", "ceil": "1"},
        {"size": "5x6", "kernel": "2", "stride": "2", "ceil": "1"},
        {"size": "5x6", "kernel": "3x2", "stride": "1", "padding": "1"},
        {"size": "4", "kernel": "2", "stride": "3", "ceil": "1"},
        {"size": "7", "kernel": "3", "stride": "3", "padding": "1", "ceil": "1", "count": "0"},
    ],
    ids=str,
)
def test_pooling_is_pytorchs(words: dict[str, str]) -> None:
    import torch
    from torch.nn import functional

    for kind in ("max_pool", "average_pool"):
        found = ask(layer_view.describe, kind=kind, numbers="1", **words)
        axes = found["axes"]
        kernel, stride = [axis["k"] for axis in axes], [axis["s"] for axis in axes]
        pads = [axis["p"][0] for axis in axes]
        name = f"{'max' if kind == 'max_pool' else 'avg'}_pool{len(axes)}d"
        more = {"count_include_pad": words.get("count") != "0"} if kind == "average_pool" else {}
        x = torch.tensor(found["values"]["x"], dtype=torch.float64).reshape(1, 1, *found["size"])
        y = getattr(functional, name)(x, kernel, stride, pads, ceil_mode="ceil" in words, **more)
        np.testing.assert_allclose(y.ravel().numpy(), found["values"]["y"], rtol=1e-12)
        assert list(y.shape[2:]) == found["output"]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_the_picture_is_that_of_draw(layer: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    from convoxel.draw.scan import Scan

    found = ask(layer_view.describe, **layer)
    scan = layer_view.Bench.of(Query(tuple(layer.items()))).scan
    assert isinstance(scan, Scan) and found["steps"] == scan.steps()
    for output in scan.outputs():
        along = [axis["reads"][o] for axis, o in zip(found["axes"], output, strict=True)]
        assert len(scan.reads(output)) == np.prod([len(each) for each in along])


def test_costs_with_channels_and_groups() -> None:
    found = ask(layer_view.describe, size="224x224", kernel="7", stride="2", padding="3", **{"in": "3", "out": "64"})
    values = {fact["name"]: fact["value"] for fact in found["facts"]}
    assert (values["parameters"], values["MACs"]) == (9472, 118013952)
    assert not found["drawn"] and "reads" not in found["axes"][0]
    volume = {"size": "16x16x16", "kernel": "2", "stride": "2", "kind": "transposed", "in": "64", "out": "32"}
    found = ask(layer_view.describe, **volume)
    assert {fact["name"]: fact["value"] for fact in found["facts"]}["MACs"] == 67108864
    with pytest.raises(ConfigError, match="groups"):
        ask(layer_view.describe, **{"in": "3", "groups": "2"})


def test_overlap_counts_the_inputs() -> None:
    found = ask(layer_view.describe, size="4", kernel="3", stride="2", kind="transposed")["overlap"]
    assert found == {
        "text": "Uneven: 1 or 2 inputs reach an output inside.",
        "counts": [1, 1, 2, 1, 2, 1, 2, 1, 1],
        "most": 2,
    }
    even = ask(layer_view.describe, size="4", kernel="4", stride="2", kind="transposed")["overlap"]
    assert even["text"].startswith("Even")


def test_inverse_questions(capsys: pytest.CaptureFixture[str]) -> None:
    found = ask(layer_view.inverse, size="224x224", kernel="7", stride="2", padding="3", want="112")
    told = printed(capsys, ["size", "inputs", "112x112", "k7s2p3"])
    assert found["accepted"] == told["accepted"] and found["try"] == "223x223"
    layers = printed(capsys, ["size", "layers", "224", "112", "--kernel", "1..11"])["axes"][0]["solutions"]
    assert found["layers"][0]["count"] >= len(layers)
    texts = [row["text"] for row in found["layers"][0]["rows"]]
    assert {row["layer"] for row in layers[:20]} <= set(texts)
    nothing = ask(layer_view.inverse, size="7", kernel="3", stride="2", kind="transposed", want="8")
    assert not nothing["solvable"] and "7 and 9" in nothing["inputs"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ({"size": "0"}, ConfigError),
        ({"size": "7x7x7x7"}, ConfigError),
        ({"size": "99999"}, ConfigError),
        ({"kernel": "9"}, ShapeError),
        ({"kernel": "3x3x3"}, ConfigError),
        ({"stride": "-1"}, ConfigError),
        ({"padding": "widest"}, ConfigError),
        ({"kind": "other"}, ConfigError),
        ({"border": "other"}, ConfigError),
        ({"in": "1e3"}, ConfigError),
        ({"groups": "9" * 5000}, ConfigError),
        ({"numbers": "1", "x": "1 2"}, ShapeError),
        ({"numbers": "1", "x": "nan " * 49}, ConfigError),
        ({"numbers": "1", "w": "a b"}, ConfigError),
        ({"size": "64x64", "numbers": "1"}, ConfigError),
    ],
    ids=str,
)
def test_mistakes_are_named(words: dict[str, str], error: type[ConvoxelError]) -> None:
    with pytest.raises(error) as found:
        ask(layer_view.describe, **words)
    name = next(name for name in reversed(words) if name != "numbers")
    assert name in str(found.value) or (name, "numbers" in words) == ("size", True)


def test_matrices_that_are_none_are_refused() -> None:
    for words in ({"kind": "max_pool"}, {"border": "reflect", "padding": "1"}, {"size": "99x99"}, {"order": "K"}):
        with pytest.raises(ConfigError):
            ask(layer_view.matrix, **words)
