"""The network's page has the figures of the command line, and its graph all of its parts, opened or closed."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import pytest

from convoxel.cli import main
from convoxel.errors import ConfigError, ConvoxelError
from convoxel.explorer import network_view, opened_network
from convoxel.explorer.serving import prepare
from convoxel.explorer.session import ForbiddenPath, Session
from convoxel.explorer.view import Answer, Query, plain
from convoxel.graph.read.module_reader import ModuleReader

Words = list[tuple[str, str]]
NETS: list[Words] = [
    [("net", "resnet18"), ("shape", "1,3,64,64")],
    [("net", "unet"), ("set", "levels=2"), ("set", "width=8"), ("shape", "1,1,32,32,32")],
    [("net", "googlenet"), ("set", "dims=1")],
]


@pytest.fixture(scope="module")
def session() -> Session:
    return Session()


def ask(session: Session, function: Answer, words: Words, *more: tuple[str, str]) -> Any:
    """Return what a page would get."""
    return json.loads(json.dumps(plain(function(session, Query((*words, *more))))))


def printed(capsys: pytest.CaptureFixture[str], words: Words) -> Any:
    """Return what ``convoxel describe --json`` prints of the same network."""
    options = [part for name, value in words[1:] for part in (f"--{name}", value)]
    assert main(["describe", words[0][1], *options, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("words", NETS, ids=str)
def test_figures_are_those_of_describe(session: Session, words: Words, capsys: pytest.CaptureFixture[str]) -> None:
    found, told = ask(session, network_view.describe, words), printed(capsys, words)
    assert found["total"] == told["total"] and found["warnings"] == told["warnings"]
    assert found["remarks"] == told["remarks"] and found["input"] == ",".join(map(str, told["input_shapes"][0]))
    for name in ("params", "macs"):
        assert sum(row["values"][name] for row in found["rows"]) == told["total"][name]
    assert sum(row["values"]["bytes"] for row in found["rows"]) == told["total"]["activation_bytes"]


def test_a_network_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built, recorded = [], []
    find, read = opened_network.find_network, ModuleReader.read
    monkeypatch.setattr(opened_network, "find_network", lambda *words: built.append(words) or find(*words))
    monkeypatch.setattr(ModuleReader, "read", lambda reader, shapes: recorded.append(shapes) or read(reader, shapes))
    session = Session.of(["alexnet"])
    frozen = gc.get_freeze_count()
    prepare(session)  # as at the start, before the page asks
    assert gc.get_freeze_count() > frozen
    gc.unfreeze()
    for words in ([], [("net", "alexnet")]):
        for function in (network_view.graph, network_view.describe):
            ask(session, function, words)
    assert len(built) == 1 and recorded == [((1, 3, 224, 224),)]


def test_a_broken_network_does_not_stop_the_start(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nothing")
    prepare(session := Session.of([str(broken)]))
    gc.unfreeze()
    with pytest.raises(ConvoxelError):
        network_view.graph(session, Query(()))


@pytest.mark.parametrize("words", NETS, ids=str)
def test_every_depth_shows_the_whole_network(session: Session, words: Words) -> None:
    found = ask(session, network_view.describe, words)
    deepest = ask(session, network_view.graph, words)["deepest"]
    counts = []
    for depth in range(1, deepest + 1):
        drawn = ask(session, network_view.graph, words, ("depth", str(depth)))
        nodes = drawn["nodes"]
        counts.append(len(nodes))
        rows = [row for node in nodes for row in node["rows"]]
        assert sorted(set(rows)) == list(range(len(found["rows"])))
        assert sum(node["values"]["params"] for node in nodes) == found["total"]["params"]
        assert max(node["heat"]["params"] for node in nodes) == 1
        assert all(0 <= edge["from"] < edge["to"] < len(nodes) and len(edge["points"]) > 1 for edge in drawn["edges"])
        for node in nodes:
            assert drawn["left"] <= node["x"] and node["x"] + node["width"] <= drawn["width"]
    assert counts == sorted(counts) and counts[-1] > counts[0]
    assert not any(node["opens"] for node in nodes)


def test_a_part_is_opened_and_closed(session: Session) -> None:
    words = NETS[0]

    def names(*more: tuple[str, str]) -> list[str]:
        return [node["name"] for node in ask(session, network_view.graph, words, *more)["nodes"]]

    first = ("depth", "1")
    assert "layer1" in names(first)
    opened = names(first, ("open", "layer1"))
    assert "layer1" not in opened and {"layer1.0", "layer1.1", "layer2"} <= set(opened)
    assert "layer1.0.conv1" in names(first, ("open", "layer1"), ("open", "layer1.0"))
    deep = names(("depth", "2"), ("close", "layer2"))
    assert "layer2" in deep and "layer1.0" in deep and "layer2.0" not in deep


def test_too_many_parts_are_refused(session: Session) -> None:
    words = [("net", "densenet201"), ("shape", "1,3,64,64")]
    assert len(ask(session, network_view.graph, words)["nodes"]) < 30
    with pytest.raises(ConfigError, match=r"depth: .* too many"):
        ask(session, network_view.graph, words, ("depth", "9"))
    block = ask(session, network_view.graph, words, ("open", "features.denseblock1"))
    assert {"features.denseblock1.denselayer1", "features.denseblock2"} <= {node["name"] for node in block["nodes"]}


def test_an_edit_shows_what_it_changes(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = NETS[1], [*NETS[1][:1], ("set", "levels=3"), *NETS[1][2:]]
    found = ask(session, network_view.compare, after, *((f"a.{name}", value) for name, value in before))
    told = [printed(capsys, words)["total"] for words in (before, after)]
    params = next(total for total in found["totals"] if total["name"] == "parameters")
    assert [params["before"], params["after"]] == [f"{each['params']:,}" for each in told]
    assert params["change"] == f"×{told[1]['params'] / told[0]['params']:.3g}"
    assert found["rows"]["encoder.3.conv1"] == "new" and "encoder.0.conv1" not in found["rows"]
    same = ask(session, network_view.compare, before, *((f"a.{name}", value) for name, value in before))
    assert same["same"] and all(total["same"] for total in same["totals"])


def test_options_have_their_values(session: Session) -> None:
    controls = {each["name"]: each for each in ask(session, network_view.describe, NETS[1])["controls"]}
    assert (controls["levels"]["value"], controls["levels"]["default"], controls["dims"]["value"]) == ("2", "4", "3")
    assert controls["norm"]["kind"] == "choice" and "batch" in controls["norm"]["choices"]
    assert controls["up_bias"]["kind"] == "switch"
    for name in ("norm", "levels", "bias"):  # every default can be set as it is written
        ask(session, network_view.describe, [("net", "unet"), ("set", f"{name}={controls[name]['default']}")])


def test_measured_times_join_the_table(session: Session) -> None:
    words = NETS[1]
    found = ask(session, network_view.measure, words)
    rows = ask(session, network_view.describe, words)["rows"]
    names = {rows[int(number)]["cells"]["layer"] for number in found["rows"]}
    assert {"encoder.0.conv1", "pools.0", "head"} <= names
    shown = sum(row["time_s"] for row in found["rows"].values())
    every_step = sum(step["time_s"] for step in found["steps"])
    assert found["time_s"] == pytest.approx(every_step)  # summed in another order
    assert 0 < shown <= every_step * (1 + 1e-9)
    nodes = ask(session, network_view.graph, words)["nodes"]
    assert sum(node["values"]["time"] for node in nodes) == pytest.approx(shown)
    with session.measuring, pytest.raises(ConfigError, match="another network is being measured"):
        ask(session, network_view.measure, words)


def test_files_of_the_session_are_opened_and_no_others(tmp_path: Path) -> None:
    import torch
    from torch import nn

    import convoxel as cx

    files = [tmp_path / "in" / "net.cvx", tmp_path / "out" / "net.cvx"]
    for file in files:
        file.parent.mkdir()
        cx.compile(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()), torch.zeros(1, 1, 8, 8)).save(file)
    session = Session.of([str(files[0].parent)])
    found = ask(session, network_view.describe, [("net", str(files[0])), ("shape", "1,1,8,8")])
    assert found["total"]["params"] == 40 and found["controls"] == []
    for outside in (files[1], tmp_path / "in" / ".." / "out" / "net.cvx", "/etc/passwd", "../out/net.cvx"):
        with pytest.raises(ForbiddenPath):
            ask(session, network_view.describe, [("net", str(outside))])
    opened = ask(session, network_view.catalogue, [])
    assert opened["roots"][0]["kind"] == "folder" and opened["opened"] == []
    assert Session.of([str(files[0])]).networks == (str(files[0]),)


def test_a_failed_network_is_read_again(session: Session) -> None:
    for _ in range(2):
        with pytest.raises(ConfigError, match="levels"):
            ask(session, network_view.describe, [("net", "unet"), ("set", "levels=99")])


def test_errors_are_measured_on_request_and_colour_the_graph(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    session, words = Session(), [("net", "resnet18"), ("shape", "1,3,32,32")]
    assert ask(session, network_view.describe, words)["errors"] is None
    assert ask(session, network_view.graph, words)["nodes"][1]["values"]["error"] is None
    found = ask(session, network_view.errors, words)
    assert ask(session, network_view.progress, words) == {"share": None}
    line = ["draw", "network", "resnet18", "--shape", "1,3,32,32", "--heat", "error", "--svg", str(tmp_path / "a.svg")]
    assert main([*line, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["heat"]["layers"] == pytest.approx(found["layers"], rel=1e-3)
    nodes = ask(session, network_view.graph, words)["nodes"]
    assert max(node["heat"]["error"] for node in nodes) == 1
    assert all(0 < node["values"]["error"] < 1e-4 for node in nodes[1:])
    assert nodes[-1]["shown"]["error"] in told["text"]


def test_two_networks_are_one_graph(session: Session) -> None:
    words = [("net", "unet"), ("set", "levels=3"), ("a.net", "unet"), ("a.set", "levels=2"), ("depth", "2")]
    words += [("shape", "1,1,64,64"), ("a.shape", "1,1,64,64")]
    found = ask(session, network_view.joint, words)
    states = [node["state"] for node in found["nodes"]]
    assert "added" in states and "removed" not in states and found["told"].startswith(f"{states.count('added')} added")
    back = ask(session, network_view.joint, [(f"a.{n}" if n in ("net", "set", "shape") else n.removeprefix("a."), v)
                                             for n, v in words])  # fmt: skip
    names = [node["name"] for node in back["nodes"]]
    assert len(set(names)) == len(names) and sum(name.endswith("(removed)") for name in names) == states.count("added")
