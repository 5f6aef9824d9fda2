"""The blocks of a page, run in order in a folder of its own.

Processes are forked from one server that has imported PyTorch and Convoxel and has run nothing, so that a page, and
every command on it, starts as fresh as in a terminal, and in a millisecond. Commands of ``convoxel`` run in such a
process; other lines of shell run in bash. Tried and not taken: a Jupyter kernel for each page and each command in a
process of its own, which import PyTorch again and again; libraries that test blocks (sybil, mktestdocs,
pytest-examples), which keep no output for the page.
"""

from __future__ import annotations

import ast
import contextlib
import io
import linecache
import multiprocessing
import os
import re
import shlex
import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tools.docs.page import ROOT, Block

__all__ = ["BlockError", "Outcome", "Session"]

#: The width in which commands print their tables, in characters.
COLUMNS = 100
# Imported before anything is forked: what a training, an evaluation or a compilation would import by itself.
_PRELOADED = (
    "convoxel.train.loop", "convoxel.train.run_evaluation", "convoxel.train.run_settings", "convoxel.report.page",
    "convoxel.cli.application", "convoxel.draw", "convoxel.graph.compile", "convoxel.graph.read.functions",
    "convoxel.graph.read.torch", "convoxel.lookup", "monai.transforms", "monai.losses", "monai.inferers",
    "monai.metrics", "torch.utils.tensorboard", "torch._dynamo", "sympy", "scipy.ndimage", "scipy.sparse",
    "sklearn.metrics", "nibabel", "pydicom", "h5py", "zarr", __name__,
)  # fmt: skip
_SETTINGS = {"COLUMNS": str(COLUMNS), "NO_COLOR": "1", "TERM": "dumb", "OMP_NUM_THREADS": "1",
             "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}  # fmt: skip
_NEEDS_BASH = re.compile(r"[|<>;&$`]|^\s*(for|cd|export|source)\b")
# What differs from one build to the next without meaning anything.
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class BlockError(AssertionError):
    """A block that did not end as the page says."""


@dataclass(frozen=True)
class Outcome:
    """The result of a block.

    Attributes:
        text: printed lines.
        pictures: files of pictures that its last value or values showed, with a description in words.
        error: name of the error in which it ended; "" for none.
        trace: where the error arose.
        exit: exit code of the last command.
    """

    text: str = ""
    pictures: tuple[tuple[str, str], ...] = ()
    error: str = ""
    trace: str = ""
    exit: int = 0


class Session:
    """The processes of one page.

    Args:
        name: name of the page, for messages.
        folder: folder in which its blocks run.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        folder.mkdir(parents=True, exist_ok=True)
        examples = folder / "examples"
        if not examples.exists():
            examples.symlink_to(ROOT / "examples")
        self._context = _server(folder.parent)
        self._pipe: Connection | None = None
        self._process: Any = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pipe is not None:
            with contextlib.suppress(OSError):
                self._pipe.send(None)
            self._process.join(30)
            self._process.kill()

    def run(self, block: Block) -> Outcome:
        """Run a block and return its outcome.

        Raises:
            BlockError: it ended otherwise than the page says.
        """
        found = self._run_python(block) if block.language == "python" else self._run_shell(block)
        found = Outcome(self._clean(found.text), found.pictures, found.error, found.trace, found.exit)
        if found.error != block.raises:
            ended = found.error or "no error"
            expected = block.raises or "none"
            raise BlockError(
                f"{self.name}:{block.line}: ended in {ended}, expected {expected}\n{found.text}{found.trace}"
            )
        if found.exit != block.exit:
            raise BlockError(f"{self.name}:{block.line}: exit code {found.exit}, expected {block.exit}\n{found.text}")
        return found

    def _clean(self, text: str) -> str:
        text = _ESCAPES.sub("", text).replace(f"{self.folder}/", "").replace(str(self.folder), ".")
        lines = [line.rpartition("\r")[2].rstrip() for line in text.replace("\r\n", "\n").split("\n")]
        return "\n".join(lines).strip("\n")

    def _run_python(self, block: Block) -> Outcome:
        if self._pipe is None:
            self._pipe, other = self._context.Pipe()
            self._process = self._context.Process(target=_serve, args=(other, str(self.folder)), daemon=True)
            self._process.start()
            other.close()
        self._pipe.send((block.code, f"{self.name}:{block.line}"))
        try:
            found: Outcome = self._pipe.recv()
        except EOFError:
            raise BlockError(f"{self.name}:{block.line}: the process ended") from None
        return found

    def _run_shell(self, block: Block) -> Outcome:
        printed, code = [], 0
        for line in block.code.replace("\\\n", " ").splitlines():
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            words = [] if _NEEDS_BASH.search(line) else shlex.split(line, comments=True)
            if words and words[0] == "convoxel":
                text, code = self._run_command(words[1:])
            else:
                text, code = self._run_bash(line)
            printed.append(text)
            if code and code != block.exit:
                break
        return Outcome("".join(printed), exit=code)

    def _run_command(self, words: list[str]) -> tuple[str, int]:
        log = self.folder / ".printed"
        process = self._context.Process(target=_command, args=(words, str(self.folder), str(log)))
        process.start()
        process.join()
        return log.read_text(encoding="utf-8"), process.exitcode or 0

    def _run_bash(self, line: str) -> tuple[str, int]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", line], cwd=self.folder, capture_output=True, text=True,
            env={**os.environ, **_settings(self.folder.parent), "PATH": path},
        )  # fmt: skip
        return done.stdout + done.stderr, done.returncode


def _settings(root: Path) -> dict[str, str]:
    return {**_SETTINGS, "CONVOXEL_CACHE": str(root / "cache")}


def _server(root: Path) -> Any:
    """Return the context of processes that are forked from a server with everything imported."""
    os.environ |= _settings(root)  # PyTorch asks for the number of threads as it is imported
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    return context


# ---- in the processes of a page ------------------------------------------------------------------------------


def _enter(folder: str) -> None:
    os.chdir(folder)
    os.environ.update(_settings(Path(folder).parent))
    sys.path.insert(0, folder)


def _command(words: list[str], folder: str, log: str) -> None:
    """Run one command of ``convoxel``, whose output goes into a file."""
    _enter(folder)
    with Path(log).open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False, buffering=1)
    from convoxel.cli.application import main

    expanded = [
        each for word in words for each in (sorted(map(str, Path().glob(word))) if "*" in word else []) or [word]
    ]
    code = main(expanded)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _serve(pipe: Connection, folder: str) -> None:
    """Run blocks of Python in one namespace until the pipe says None."""
    _enter(folder)
    names: dict[str, Any] = {"__name__": "__main__"}
    count = 0
    while (asked := pipe.recv()) is not None:
        printed, pictures, error, trace = io.StringIO(), [], "", ""
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                for value in _run(*asked, names):
                    count += _show(value, pictures, f".shown{count}")
            except Exception as caught:
                error, trace = type(caught).__name__, traceback.format_exc()
                print(f"{error}: {caught}")
        pipe.send(Outcome(printed.getvalue(), tuple(pictures), error, trace))


def _run(code: str, name: str, names: dict[str, Any]) -> Iterator[Any]:
    """Run a block, and yield the value of its last line where that is an expression."""
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    tree = ast.parse(code, name)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), names)
    if isinstance(last, ast.Expr):
        yield eval(compile(ast.Expression(last.value), name, "eval"), names)


def _show(value: Any, pictures: list[tuple[str, str]], name: str) -> int:
    """Print a value, or write its picture; return the number of pictures."""
    if value is None:
        return 0
    if hasattr(value, "_repr_svg_"):
        # The theme of a page: the picture follows the colour scheme that the reader chose there.
        Path(f"{name}.svg").write_text(value.svg("page") if hasattr(value, "svg") else value._repr_svg_(), "utf-8")
        pictures.append((f"{name}.svg", f"{getattr(value, 'title', '')}. {getattr(value, 'text', '')}"))
        return 1
    if hasattr(value, "_repr_png_"):
        Path(f"{name}.png").write_bytes(value._repr_png_())
        pictures.append((f"{name}.png", "The picture that the last line returned"))
        return 1
    print(repr(value))
    return 0
