"""Faults of outside files: one sentence each, raised at once or collected for a complete list.

This module knows no file format. It fixes the shape of every message about a file (which file, what came, what was
expected, how to mend it), so that no reader or writer can leave a part out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from convoxel.errors import DataError


def shown(name: object) -> str:
    """Return a file name or other outside text as one printable line (control characters escaped).

    >>> shown("a\\nb.png")
    'a\\\\nb.png'
    """
    text = str(name).encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def brief(value: object, most: int = 80) -> str:
    """Return a value as Python writes it, cut after ``most`` characters: an outside value may be of any length.

    >>> brief([1, "a"]), brief("x" * 100, 8), brief(16**6000)
    ("[1, 'a']", "'xxxxxx…", 'an int that is too long to show')
    """
    try:
        text = repr(value)
    except Exception:  # the value is anything, and so is what it raises: a number of more than 4300 digits does
        return f"an {type(value).__name__} that is too long to show"
    return text if len(text) <= most else f"{text[: most - 1]}…"


def fault_message(where: object, came: str, expected: str, mend: str) -> str:
    """Return the sentence that says what came at ``where``, what was expected and how to mend it."""
    end = "" if mend.endswith(("?", ".")) else "."
    return f"{shown(where)}: {came}; expected {expected}. {mend}{end}"


def fault(where: object, came: str, expected: str, mend: str) -> DataError:
    """Return the DataError with the message of these four parts."""
    return DataError(fault_message(where, came, expected, mend))


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return the count with its noun.

    >>> plural(1, "image"), plural(3, "image"), plural(2, "entry", "entries")
    ('1 image', '3 images', '2 entries')
    """
    return f"{count} {one if count == 1 else (many or one + 's')}"


def few(names: Sequence[object], most: int = 3) -> str:
    """Return the first names as one text, and how many more there are.

    >>> few(["a"]), few(["a", "b", "c", "d", "e"])
    ('a', 'a, b, c and 2 more')
    """
    listed = ", ".join(map(shown, names[:most]))
    return listed if len(names) <= most else f"{listed} and {len(names) - most} more"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a data set: the sample's (or folder's) name and the whole message."""

    name: str
    message: str

    def __str__(self) -> str:
        return self.message


@dataclass
class ErrorCollector:
    """Where readers report faults: a strict collector raises the first one, any other notes them all."""

    strict: bool = True
    problems: list[Problem] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    @contextlib.contextmanager
    def collect(self, name: str) -> Iterator[None]:
        """Report a DataError of the block under ``name``."""
        try:
            yield
        except DataError as error:
            self.note(name, error)

    def note(self, name: str | Path, error: DataError) -> None:
        """Raise ``error`` (strict) or add it under ``name``; the reader then goes on without that sample."""
        if self.strict:
            raise error
        self.problems.append(Problem(shown(name), str(error)))
        self.names.add(shown(name))
