"""The texts keep their word: examples run, and every command, path and name that they mention exists."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

import convoxel

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
TEXTS = {"README.md": README, "ARCHITECTURE.md": ARCHITECTURE, "CONTRIBUTING.md": CONTRIBUTING}

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A path that stands for a file to be written, such as models/NAME.py.
_PATTERN = re.compile(r"NAME|…")


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return [body for name, body in _FENCE.findall(text) if name == language]


def spans(text: str) -> list[str]:
    """Yield the texts between backticks outside of fenced blocks."""
    return re.findall(r"`([^`\n]+)`", _FENCE.sub("", text))


def code(text: str) -> list[str]:
    """Lines of shell blocks, and what stands between backticks."""
    return [line for body in blocks(text, "sh") for line in body.splitlines()] + spans(text)


def expected_lines(example: str) -> list[str]:
    """The comments after the ``print`` calls of an example: what it promises to print."""
    return re.findall(r"^ *print\(.*\)  # (.+)$", example, re.MULTILINE)


def section(text: str, title: str) -> str:
    """The part of a text under one heading of the second level."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"there is no section {title!r}"
    return found[1]


@pytest.mark.parametrize("example", blocks(README, "python"))
def test_readme_examples_run_and_print_what_they_say(example: str) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(example, "README.md", "exec"), {"__name__": "__main__"})
    assert expected_lines(example), "an example without a result proves nothing"
    assert printed.getvalue().splitlines() == expected_lines(example)


def make_targets(text: str) -> set[str]:
    """The targets of ``make`` commands in a text; ``make NAME=value target`` counts."""
    lines = [line for line in code(text) if re.match(r"make\b", line)]
    return {word for line in lines for word in line.split()[1:] if "=" not in word}


@pytest.mark.smoke
@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_make_targets_exist(name: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    known = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    wanted = make_targets(TEXTS[name])
    assert {"demo", "test"} <= wanted
    assert wanted <= known, f"{name} names {sorted(wanted - known)}"


@pytest.mark.smoke
def test_every_everyday_target_is_described() -> None:
    listed = re.findall(r"^([a-z0-9-]+):[^#\n]*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(listed) - {"help"} <= make_targets(CONTRIBUTING)


@pytest.mark.smoke
def test_code_map_is_true() -> None:
    """Every package has a line, and every folder that is named exists."""
    named = [span for span in spans(section(ARCHITECTURE, "Code map")) if span.endswith("/")]
    assert [folder for folder in named if not (ROOT / folder).is_dir()] == []
    packages = {f"src/convoxel/{path.parent.name}/" for path in (ROOT / "src/convoxel").glob("*/__init__.py")}
    assert packages <= set(named), "the code map lacks a package"


@pytest.mark.smoke
@pytest.mark.parametrize("name", TEXTS)
def test_paths_from_the_root_and_links_exist(name: str) -> None:
    folders = ("src/", "csrc/", "tests/", "tools/", "bench/", ".ci/")
    wanted = [span for span in spans(TEXTS[name]) if span.startswith(folders) and " " not in span]
    wanted += [link for link in re.findall(r"\]\(([^)#\s]+)", TEXTS[name]) if "://" not in link]
    missing = [path for path in wanted if not _PATTERN.search(path) and not (ROOT / path).exists()]
    assert missing == []


@pytest.mark.parametrize("name", TEXTS)
def test_names_of_the_package_exist(name: str) -> None:
    wrong = []
    for dotted in sorted(set(re.findall(r"\bcx\.((?:\w+\.)*\w+)", TEXTS[name]))):
        found: Any = convoxel
        try:
            for part in dotted.split("."):
                found = getattr(found, part)
        except AttributeError:
            wrong.append(f"cx.{dotted}")
    assert wrong == []


def cli() -> Any:
    """The command line as a click command, or a skip where the package lacks it."""
    if not (ROOT / "src/convoxel/cli/application.py").exists():
        pytest.skip("convoxel.cli is not there yet")
    import typer.main

    return typer.main.get_command(importlib.import_module("convoxel.cli.application").app)


def unknown_words(command: Any, words: list[str]) -> list[str]:
    """The first word that is no subcommand, and every option that the command lacks."""
    words = list(words)
    while getattr(command, "commands", None):
        if not words or words[0].startswith(("-", "…")):
            return []
        name = words.pop(0)
        other = getattr(command, "default", None)  # a group that takes words of another kind, such as networks
        if name not in command.commands and other is None:
            return [name]
        command = command.commands[name if name in command.commands else other]
    known = {option for each in command.params for option in (*each.opts, *getattr(each, "secondary_opts", ()))}
    known.add("--help")
    options = [word.partition("=")[0] for word in words if word.startswith("-")]
    return [name for name in options if name not in known and not is_entry(command, name)]


def is_entry(command: Any, name: str) -> bool:
    """Return whether an undeclared option names an entry of a configuration or an option of a network."""
    from convoxel.cli.open_command import OpenCommand, UsageError, find_entry

    if not isinstance(command, OpenCommand):
        return False
    with contextlib.suppress(UsageError):
        find_entry(name, (), None)
        return True
    return False


@pytest.mark.parametrize("name", TEXTS)
def test_commands_of_the_command_line_exist(name: str) -> None:
    lines = sorted({line for line in code(TEXTS[name]) if re.match(r"convoxel [a-z]", line)})
    command = cli()
    wrong = {line: unknown for line in lines if (unknown := unknown_words(command, line.split()[1:]))}
    assert wrong == {}


def test_the_checks_reject_what_is_wrong() -> None:
    assert make_targets("`make demo`, `make CXX=g++ fly`, make haste") == {"demo", "fly"}
    assert expected_lines("print(f(1))  # 2\nx = 1  # one\n") == ["2"]

    class Command:
        def __init__(self, commands: dict[str, Any], *options: str) -> None:
            self.commands = commands
            self.params = [type("Option", (), {"opts": list(options)})]

    app = Command({"train": Command({"segment": Command({}, "--data")})})
    assert unknown_words(app, ["train", "segment", "--data", "x"]) == []
    assert unknown_words(app, ["train", "segment", "--speed", "9"]) == ["--speed"]
    assert unknown_words(app, ["fly"]) == ["fly"]
