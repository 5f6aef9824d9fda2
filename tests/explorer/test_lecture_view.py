"""The lecture: every step draws, its command draws the same picture, and its links lead to views."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import typer

from convoxel.cli import main
from convoxel.errors import ConfigError, ConvoxelError
from convoxel.explorer import lecture_view
from convoxel.explorer.layer_view import Bench
from convoxel.explorer.lecture_steps import PICTURES, STEPS, Control, Step, find_step, sections
from convoxel.explorer.pages import VIEWS
from convoxel.explorer.session import Session
from convoxel.explorer.view import Query

# Pictures that read a network or train: each would take seconds.
SLOW = {"network", "block", "memory", "field", "upsampling", "scales", "photograph", "layer_shifts"}
QUICK = [step for step in STEPS if step.picture not in SLOW]


def ask(step: str, **words: str) -> Any:
    return lecture_view.step(Session(), Query((("step", step), *words.items())))


def test_names_are_given_once_and_sections_follow_each_other() -> None:
    assert len({step.name for step in STEPS}) == len(STEPS) > 40
    assert [step for steps in sections().values() for step in steps] == list(STEPS)
    found = lecture_view.path(Session(), Query(()))
    assert [step["name"] for section in found["sections"] for step in section["steps"]] == [s.name for s in STEPS]
    assert {step.picture for step in STEPS} <= set(PICTURES)


@pytest.mark.parametrize("step", QUICK, ids=lambda step: step.name)
def test_the_command_draws_the_picture_of_the_step(
    step: Step, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = ask(step.name)
    words = shlex.split(shown["copies"][0]["text"])
    capsys.readouterr()
    assert words[0] == "convoxel" and main([*words[1:], "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    picture = shown["picture"]
    assert (told["title"], told["text"], told["frames"]) == (picture["title"], picture["text"], picture["frames"])


def test_python_to_copy_draws_the_picture_of_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("signal", "matrix", "pooling", "separable"):
        exec(compile(ask(name)["copies"][1]["text"], name, "exec"), {})
        assert Path(f"{name}.svg").read_text() == find_step(name).draw().svg()


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_commands_and_links_exist(step: Step) -> None:
    from convoxel.cli.application import app

    group: Any = typer.main.get_command(app)
    words = shlex.split(step.command())[1:]
    while getattr(group, "commands", None):
        group = group.commands[words.pop(0)]
    options = {option for parameter in group.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options
    link = urlsplit(step.link())
    assert link.path in ("", *(f"/{view.name}" for view in VIEWS))
    if link.path == "/layer":  # the bench understands the state, and shows the same layer
        bench = Bench.of(Query(tuple(parse_qsl(link.query))))
        if isinstance(step.args.get("size"), tuple):
            assert bench.scan.size == step.args["size"]


@pytest.mark.parametrize("step", [step for step in QUICK if step.controls], ids=lambda step: step.name)
def test_every_control_can_be_moved_to_its_ends(step: Step) -> None:
    for control in step.controls:
        for text in control.words[-1:] or (str(control.least), str(control.most)):
            try:
                found = ask(step.name, **{control.name: text})
            except ConvoxelError as error:  # a kernel larger than the image is told in words
                assert "kernel" in str(error) or "size" in str(error) or "large" in str(error) or "many" in str(error)
                continue
            (shown,) = [each for each in found["controls"] if each["name"] == control.name]
            assert shown["value"] == text


def test_what_a_control_does_not_take_is_refused() -> None:
    for name, words in (("signal", {"size": "99"}), ("signal", {"kind": "sum"}), ("image", {"size": "-1"})):
        with pytest.raises(ConfigError, match="expected"):
            ask(name, **words)
    with pytest.raises(ConfigError, match="there is no step"):
        ask("nothing")
    assert Control("size", "size").text((5, 5)) == "5"


def test_shapes_of_the_page_are_those_of_the_picture() -> None:
    found = ask("pooling")["picture"]
    figure = find_step("pooling").draw()
    words = [shape["words"] for shape in found["shapes"] if "words" in shape]
    assert {"112", "37"} <= set(words) and len(found["shapes"]) == len(figure.shapes)
    looks = found["looks"]
    assert all(len(look["fill"]) == 2 for look in looks if look["fill"])
    json.dumps(found)
