"""Where and how the commands print: tables for people, one JSON object for programs."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["command_line", "console", "duration", "emit", "limit_threads", "number", "say", "table"]

# Pipes and files have no width; 120 columns hold every table of ours uncut.
_PLAIN_WIDTH = 120


def console(json: bool = False) -> Console:
    """Return the console for people: stdout, or stderr where stdout carries the JSON object."""
    stream = sys.stderr if json else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else _PLAIN_WIDTH
    return Console(file=stream, width=width, highlight=False)


def say(screen: Console, text: str = "", style: str = "") -> None:
    """Print a line as it is: no markup in paths, no line breaks that a pipe did not ask for."""
    screen.print(Text(text, style=style), soft_wrap=True)


def table(headings: str, rows: list[tuple[Any, ...]]) -> Table:
    """Return a table; ``headings`` are separated by ``|``, those that start with ``>`` are right-aligned."""
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in headings.split("|"):
        right = heading.startswith(">")
        drawn.add_column(heading.lstrip(">"), justify="right" if right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(str(cell)) for cell in row))
    return drawn


def emit(value: Any) -> None:
    """Print ``value`` as one JSON object on stdout; numbers that JSON does not know become null."""
    sys.stdout.write(json.dumps(_plain(value), indent=2, ensure_ascii=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    return value


def number(value: float | None, digits: int = 4) -> str:
    """Return a figure with fixed digits, or a dash where there is none.

    >>> number(0.91234), number(None)
    ('0.9123', '–')
    """
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def duration(seconds: float | None) -> str:
    """Return a time as people read it.

    >>> duration(3.21), duration(75), duration(4000), duration(None)
    ('3.2 s', '1:15 min', '1:07 h', '–')
    """
    if seconds is None:
        return "–"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02d} h"


def command_line(*words: object) -> str:
    """Return a command that can be pasted into a shell.

    >>> command_line("convoxel", "train", "--resume", "my run")
    "convoxel train --resume 'my run'"
    """
    return shlex.join(str(word) for word in words)


@contextlib.contextmanager
def limit_threads(threads: int | None) -> Iterator[None]:
    """Let our engine and PyTorch use ``threads`` threads inside the block.

    Raises:
        ConfigError: ``threads`` is below 1.
    """
    if threads is None:
        yield
        return
    if threads < 1:
        from convoxel.errors import ConfigError

        raise ConfigError(f"threads: got {threads}; expected at least 1. Leave --threads out to use all.")
    import torch

    engine, framework = os.environ.get("CONVOXEL_THREADS"), torch.get_num_threads()
    os.environ["CONVOXEL_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(framework)
        if engine is None:
            del os.environ["CONVOXEL_THREADS"]
        else:
            os.environ["CONVOXEL_THREADS"] = engine
