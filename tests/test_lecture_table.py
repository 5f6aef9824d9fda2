"""Every row of the lecture has functions that exist and tests that accept it, and the table says so."""

from __future__ import annotations

import ast
import importlib
import shlex
from collections import Counter
from urllib.parse import parse_qsl, urlsplit

import pytest
import typer

import convoxel
from convoxel.explorer.lecture_steps import STEPS, find_step
from convoxel.explorer.pages import VIEWS
from tests.test_docs import cli, unknown_words
from tools import lecture

SIZES = {"A": 5, "B": 5, "C": 7, "D": 14, "E": 3, "F": 1, "G": 2, "H": 6, "I": 9}


def test_the_table_is_up_to_date() -> None:
    written = lecture.FILE.read_text(encoding="utf-8")
    assert written == lecture.render(), "run: python -m tools.lecture"


def test_every_row_is_there_once() -> None:
    expected = [f"{letter}{number}" for letter, size in SIZES.items() for number in range(1, size + 1)]
    assert [row.id for row in lecture.ROWS] == expected
    assert set(lecture.SECTIONS) == set(SIZES)


def test_every_row_has_tests_named_after_it() -> None:
    known = {row.id for row in lecture.ROWS}
    for row, tests in lecture.find_tests().items():
        assert row in known, f"{tests[0]}: there is no row {row}"
    for row in lecture.ROWS:
        tests = lecture.find_tests()[row.id]
        assert bool(tests) == (not row.missing or bool(row.what)), f"{row.id}: {tests}, missing: {row.missing!r}"
        if row.id[0] in "ABCD" and not row.missing:
            assert any(f"::test_{row.id}_" in test for test in tests), f"{row.id} has no test of its name"


def test_every_test_exists_and_is_named_once() -> None:
    functions: dict[str, Counter[str]] = {}
    for tests in lecture.find_tests().values():
        for test in tests:
            file, _, name = test.partition("::")
            assert file != "?", f"{name} is in no file"
            if file not in functions:
                tree = ast.parse((lecture.ROOT / "tests" / f"{file}.py").read_text(encoding="utf-8"))
                functions[file] = Counter(node.name for node in tree.body if isinstance(node, ast.FunctionDef))
            assert functions[file][name] == 1, f"{test} is there {functions[file][name]} times"


@pytest.mark.parametrize("row", lecture.ROWS, ids=lambda row: row.id)
def test_every_function_and_command_exists(row: lecture.Row) -> None:
    names, _, commands = row.what.partition(" | ")
    for name in names.split():
        module, _, last = name.rpartition(".")
        home = importlib.import_module(f"convoxel.{module}") if module else convoxel
        assert getattr(home, last).__doc__, f"convoxel.{name} has no docstring"
    for command in filter(None, commands.split(", ")):
        from convoxel.cli.application import app

        group = typer.main.get_command(app)
        for word in command.split()[1:]:
            assert word in group.commands, f"there is no command {command!r}"
            group = group.commands[word]


@pytest.mark.parametrize("row", lecture.ROWS, ids=lambda row: row.id)
def test_every_row_has_a_picture_a_command_and_a_live_view(row: lecture.Row) -> None:
    shown = row.pictures()
    assert shown, f"{row.id}: no step of the explorer's lecture names it, and `shown` is empty"
    for picture, command, address in shown:
        assert getattr(convoxel.draw, picture).__doc__, f"draw.{picture} does not exist"
        assert unknown_words(cli(), shlex.split(command)[1:]) == [], command
        link = urlsplit(address)
        assert link.path in {f"/{view.name}" for view in VIEWS}, address
        if link.path == "/lecture":
            find_step(dict(parse_qsl(link.query))["step"])


def test_rows_of_steps_exist() -> None:
    known = {row.id for row in lecture.ROWS}
    assert {row for step in STEPS for row in step.rows.split()} <= known


def test_the_checks_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = lecture.Row("A1", "A wrong row", "nn.functional.convolute")
    with pytest.raises(AttributeError):
        test_every_function_and_command_exists(wrong)
    with pytest.raises(AssertionError, match="there is no command"):
        test_every_function_and_command_exists(lecture.Row("A1", "A wrong row", "compile | convoxel folding"))
    with pytest.raises(AssertionError, match="no step of the explorer"):
        test_every_row_has_a_picture_a_command_and_a_live_view(lecture.Row("A9", "x", "compile"))
    with pytest.raises(AssertionError, match="convoxel draw sums"):
        test_every_row_has_a_picture_a_command_and_a_live_view(
            lecture.Row("A9", "x", "compile", shown="conv | convoxel draw sums | /layer")
        )
    monkeypatch.setattr(lecture, "ROWS", (*lecture.ROWS[:-1], lecture.Row("I9", "x", "train.fit")))
    with pytest.raises(AssertionError, match="I9"):
        test_every_row_has_tests_named_after_it()
    with pytest.raises(AssertionError, match=r"run: python -m tools\.lecture"):
        test_the_table_is_up_to_date()
