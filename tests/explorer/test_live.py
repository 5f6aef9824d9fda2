"""Python within exported pages: the same answers from the standard library alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from convoxel.cli import main
from convoxel.errors import ConfigError
from convoxel.explorer import export, layer_view, lecture_view
from convoxel.explorer.live import answer, write_bundle
from convoxel.explorer.session import Session
from convoxel.explorer.view import Query, plain

ASKED: list[tuple[str, list[list[str]]]] = [
    ("layer/describe", [["size", "9x7"], ["kernel", "3"], ["stride", "2"], ["padding", "same"], ["numbers", "1"]]),
    (
        "layer/describe",
        [["kind", "average_pool"], ["size", "5"], ["kernel", "2"], ["numbers", "1"], ["x", "1 2 3 4 5"]],
    ),
    ("layer/matrix", [["size", "4x4"], ["kind", "transposed"], ["stride", "2"]]),
    ("layer/inverse", [["want", "56"], ["size", "112x112"]]),
    ("lecture/step", [["step", "image"], ["size", "6"], ["kernel", "2"], ["kind", "convolution"]]),
    ("lecture/step", [["step", "stack"], ["size", "17"]]),
    ("lecture/step", [["step", "matrix"]]),
    ("lecture/step", [["step", "overlap"], ["stride", "3"]]),
    ("lecture/step", [["step", "depthwise"]]),
    ("layer/describe", [["size", "0"]]),
]


def test_the_archive_answers_without_any_package(tmp_path: Path) -> None:
    """The answers are those of the views, and no module but Python's own is imported."""
    (tmp_path / "convoxel.zip").write_bytes(write_bundle())
    code = f"""
import sys, zipfile
zipfile.ZipFile({str(tmp_path / "convoxel.zip")!r}).extractall({str(tmp_path / "live")!r})
sys.path.insert(0, {str(tmp_path / "live")!r})
from convoxel.explorer.live import answer
import json
print(json.dumps([answer(name, json.dumps(pairs)) for name, pairs in json.loads(sys.stdin.read())]))
assert "numpy" not in sys.modules and "PIL" not in sys.modules
"""
    command = [sys.executable, "-I", "-S", "-c", code]  # without the packages of this machine
    done = subprocess.run(command, input=json.dumps(ASKED), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    views: dict[str, Any] = {"layer": layer_view.VIEW, "lecture": lecture_view.VIEW}
    for (name, pairs), text in zip(ASKED, json.loads(done.stdout), strict=True):
        of, _, function = name.partition("/")
        found = json.loads(text)
        if "error" in found:
            assert "size" in found["error"] and pairs == [["size", "0"]]
            continue
        expected = plain(views[of].answers[function](Session(), Query(tuple(map(tuple, pairs)))))
        expected = json.loads(json.dumps(expected))
        assert {**found, "link": ""} == {**expected, "link": ""}, (name, pairs)


def test_archives_are_alike_and_pictures_that_need_more_say_so() -> None:
    assert write_bundle() == write_bundle()
    assert "error" in json.loads(answer("layer/matrix", '[["kind", "max_pool"]]'))


def test_npm_is_asked_for_only_where_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="npm"):
        export.export(tmp_path / "site", views=(), live=True)
    assert not (tmp_path / "site").exists()
    assert main(["explore", "--live"]) == 2 and "live: given without export" in capsys.readouterr().err
