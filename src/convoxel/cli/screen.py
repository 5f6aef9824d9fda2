"""Output of the commands: tables for people, one JSON object for programs."""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

# Pipes and files have no width; 120 columns hold every table of ours uncut.
_PLAIN_WIDTH = 120


class Screen(Console):
    """The console for people: stdout, or stderr where stdout carries the JSON object."""

    def __init__(self, json: bool = False) -> None:
        stream = sys.stderr if json else sys.stdout
        width = None if stream.isatty() or "COLUMNS" in os.environ else _PLAIN_WIDTH
        super().__init__(file=stream, width=width, highlight=False)

    def say(self, text: str = "", style: str = "") -> None:
        """Print a line as it is: no markup in paths, no line breaks that a pipe did not ask for."""
        self.print(Text(text, style=style), soft_wrap=True)

    def table(self, headings: str, rows: Iterable[Sequence[object]]) -> None:
        """Print a table; ``headings`` are separated by ``|``, those that start with ``>`` are right-aligned."""
        drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for heading in headings.split("|"):
            right = heading.startswith(">")
            drawn.add_column(heading.lstrip(">"), justify="right" if right else "left", overflow="fold")
        for row in rows:
            drawn.add_row(*(Text(str(cell)) for cell in row))
        self.print(drawn)


def emit(value: object) -> None:
    """Print ``value`` as one JSON object on stdout; numbers that JSON does not know become null."""
    sys.stdout.write(json.dumps(_plain(value), indent=2, ensure_ascii=False) + "\n")


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Fraction):
        return value.numerator if value.denominator == 1 else float(value)
    return str(value) if isinstance(value, Path) else value


def number(value: float | None, digits: int = 4) -> str:
    """Return a figure with fixed digits, or a dash where there is none.

    >>> number(0.91234), number(None)
    ('0.9123', '–')
    """
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def by_class(scores: Mapping[str, float | None]) -> str:
    """Return the figures of two or three classes in brackets, since a mean hides one that is not found.

    >>> by_class({"grey": 0.8512, "white": None}), by_class({"front": 0.5})
    (' (grey 0.8512, white –)', '')
    """
    if not 2 <= len(scores) <= 3:
        return ""
    return f" ({', '.join(f'{name} {number(value)}' for name, value in scores.items())})"


def milliseconds(seconds: float | None, digits: int = 2) -> str:
    """Return seconds as milliseconds with fixed digits, or a dash where there are none.

    >>> milliseconds(0.0123), milliseconds(None)
    ('12.30', '–')
    """
    return number(None if seconds is None else 1e3 * seconds, digits)


def percent(share: float, digits: int = 0) -> str:
    """Return a share in percent.

    >>> percent(0.5), percent(0.1234, 1)
    ('50 %', '12.3 %')
    """
    return f"{100 * share:.{digits}f} %"


def plural(count: int, word: str) -> str:
    """Return a count with its word.

    >>> plural(1, "thread"), plural(2, "thread")
    ('1 thread', '2 threads')
    """
    return f"{count} {word}{'' if count == 1 else 's'}"


def times(sizes: Iterable[object], sign: str = "×") -> str:
    """Return sizes as people write them.

    >>> times((1, 3, 224, 224))
    '1×3×224×224'
    """
    return sign.join(map(str, sizes))


def ensemble_words(members: Sequence[Any]) -> str:
    """Return the networks of an ensemble and the axes along which images are mirrored; empty where there is neither.

    >>> ensemble_words([{"run": "a", "step": 9, "mirrored": ["lr"]}, {"run": "b", "step": 8, "mirrored": ["lr"]}])
    'Ensemble of 2 networks: a (step 9), b (step 8); images mirrored along lr.'
    """
    axes = {", ".join(member["mirrored"]) or "none" for member in members}
    mirrored = "" if axes == {"none"} else f"images mirrored along {', '.join(axes)}."
    if len(members) < 2:
        return mirrored.capitalize()
    own = [f", mirrored along {', '.join(m['mirrored']) or 'none'}" if len(axes) > 1 else "" for m in members]
    told = ", ".join(f"{m['run']} (step {m['step']}{words})" for m, words in zip(members, own, strict=True))
    return f"Ensemble of {len(members)} networks: {told}" + (f"; {mirrored}" if mirrored and len(axes) == 1 else ".")


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
