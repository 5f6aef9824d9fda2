"""Tables as CSV that mean the same to a program and to a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

_FORMULAS = ("=", "+", "-", "@", "\t", "\r")


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Return rows as CSV, lines ending in a line feed; None stays empty.

    A spreadsheet computes a text that begins as a formula does. So such a text, a name of a file or a class, gets an
    apostrophe before it, unless it is a number.

    >>> csv_text([["name", "dice"], ["=1+1", 0.5], ["-1", None]])
    "name,dice\\n'=1+1,0.5\\n-1,\\n"
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: object) -> object:
    if not isinstance(value, str) or not value.startswith(_FORMULAS):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
