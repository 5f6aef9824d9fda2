"""Refusals of the command line: one line, the right exit code, no traceback unless asked for."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convoxel.cli import main
from convoxel.errors import ConfigError, ConvoxelError
from tests.support.refusal import refused_command

COMMANDS = ["demo", "train", "evaluate", "predict", "models", "describe", "compare", "compile", "info", "data check",
            "data list", "data stats", "data view", "bench layers", "bench tile", "run"]  # fmt: skip
RUN = "import sys; from convoxel.cli import main; sys.exit(main())"


def raiser(error: BaseException) -> Callable[..., None]:
    def raise_it(*arguments: object, **options: object) -> None:
        raise error

    return raise_it


@pytest.mark.smoke
def test_typing_errors_are_one_line_with_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    cases = [
        (["evalute"], ["no such command 'evalute'", "'evaluate'", "`convoxel --help`"]),
        (["train", "--lvels", "3"], ["no such option: --lvels", "did you mean --levels?", "`convoxel train --help`"]),
        (["--bogus"], ["no such option: --bogus"]),
        (["data", "chek"], ["'chek'", "'check'"]),
        (["evaluate"], ["missing argument", "RUN"]),
        (["predict", "run"], ["missing option", "--input"]),
        (["train", "--levels", "two"], ["'--levels'", "`convoxel train --help`"]),
        (["evaluate", "run", "--engine", "cuda"], ["--engine", "'cuda'", "'torch'"]),
    ]
    for words, parts in cases:
        line = refused_command(capsys, *words)
        assert all(part in line for part in parts), line


@pytest.mark.smoke
def test_bare_command_shows_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    shown = "".join(capsys.readouterr())
    assert all(name.split()[0] in shown for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_json(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"Example: convoxel {command}" in shown and "--json" in shown


@pytest.mark.smoke
def test_help_is_as_wide_as_the_terminal() -> None:
    import typer.main

    from convoxel.cli.application import app

    command: Any = typer.main.get_command(app)
    for name, each in command.commands.items():
        assert all("\n" not in paragraph for paragraph in each.help.split("\n\n")), name


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from convoxel.cli import main; main(['train', '--help']); "
        "heavy = {'torch', 'numpy', 'monai', 'yaml', 'PIL'} & set(sys.modules); "
        "sys.exit(f'help brought {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("convoxel 0.")


def test_wrong_input_is_two_and_a_bug_is_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convoxel.native.build_info", raiser(ConfigError("threads: got\n none.")))
    assert refused_command(capsys, "info") == "convoxel: threads: got none.\n"
    monkeypatch.setattr("convoxel.native.build_info", raiser(RuntimeError("odd")))
    line = refused_command(capsys, "info", code=1)
    assert "this is a bug in Convoxel: RuntimeError: odd" in line and "--traceback" in line
    monkeypatch.setattr("convoxel.native.build_info", raiser(ModuleNotFoundError("no torch", name="torch")))
    assert "this needs torch, which is not installed. Get it: pip install 'convoxel[torch]'." in refused_command(
        capsys, "info"
    )
    monkeypatch.setattr("convoxel.native.build_info", raiser(MemoryError()))
    assert "memory is used up" in refused_command(capsys, "info")
    monkeypatch.setattr("convoxel.native.build_info", raiser(OSError(28, "No space left on device")))
    assert "the output cannot be written: No space left on device. Free some space" in refused_command(capsys, "info")
    monkeypatch.setattr("convoxel.native.build_info", raiser(OSError(5, "Input/output error", "a\nb")))
    assert "a\\nb cannot be read or written: Input/output error. Check the path" in refused_command(capsys, "info")
    monkeypatch.setattr("convoxel.native.build_info", raiser(RuntimeError("Symlink loop from 'a'")))
    assert "Symlink loop from 'a'. Give a path whose links lead to a file" in refused_command(capsys, "info")
    monkeypatch.setattr("convoxel.native.build_info", raiser(KeyboardInterrupt()))
    assert main(["info"]) == 130 and capsys.readouterr().err == ""


@pytest.mark.parametrize("words", [["--traceback", "info"], ["info", "--traceback"]])
def test_traceback_on_request(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convoxel.native.build_info", raiser(ConvoxelError("odd")))
    assert main(words) == 2
    shown = capsys.readouterr().err
    assert "Traceback (most recent call last)" in shown and shown.endswith("convoxel: odd\n")


def test_warnings_are_notes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import warnings

    def warn() -> None:
        warnings.simplefilter("always")
        warnings.warn("two operators\nrun in PyTorch", UserWarning, stacklevel=1)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        raise ConfigError("end.")

    monkeypatch.setattr("convoxel.native.build_info", warn)
    assert main(["info"]) == 2
    assert capsys.readouterr().err == "convoxel: note: two operators run in PyTorch\nconvoxel: end.\n"


@pytest.mark.parametrize(("words", "code", "shown"), [
    (["--version"], 0, "convoxel 0."),
    (["evalute"], 2, "did you mean 'evaluate'"),
    ([], 2, "Usage: convoxel"),
])  # fmt: skip
def test_python_runs_the_package_with_the_same_exit_codes(words: list[str], code: int, shown: str) -> None:
    done = subprocess.run([sys.executable, "-m", "convoxel", *words], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert shown.lower() in (done.stdout + done.stderr).lower()


@pytest.mark.parametrize("words", [["data", "list"], ["data", "list", "digits", "--json"], ["--help"]])
def test_closed_pipe_is_quiet(words: list[str]) -> None:
    """`convoxel data list | true`: the reader is gone before the first line."""
    with subprocess.Popen([sys.executable, "-c", RUN, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as done:
        assert done.stdout is not None and done.stderr is not None
        done.stdout.close()
        assert done.wait() == 141
        assert done.stderr.read() == b""


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
@pytest.mark.parametrize(("streams", "code"), [(">&-", 0), ("2>&-", 0), (">&- 2>&-", 0), (">/dev/full", 2),
                                               (">/dev/full 2>/dev/full", 2)])  # fmt: skip
def test_streams_may_be_closed_or_full(streams: str, code: int) -> None:
    """A closed stream takes nothing, as asked for; a full one cannot say why, but the exit code does."""
    line = f"{shlex.quote(sys.executable)} -c {shlex.quote(RUN)} data list {streams}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == code, done
    assert "bug" not in done.stderr and "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_a_terminal_without_unicode_still_gets_the_answer() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    words = [sys.executable, "-c", RUN, "describe", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0 and "--shape" in done.stdout, done.stderr


def test_thread_count_is_checked_and_given_back(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "threads" in refused_command(capsys, "evaluate", tmp_path, "--threads", 0)
    monkeypatch.delenv("CONVOXEL_THREADS", raising=False)
    refused_command(capsys, "evaluate", tmp_path, "--threads", 1)
    assert "CONVOXEL_THREADS" not in os.environ
