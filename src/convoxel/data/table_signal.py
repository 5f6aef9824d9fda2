"""Signals in tables (CSV, TSV): one row a sample, one column a channel.

A first row that is not all numbers names the columns. A column named time (t, timestamp, seconds; "time_ms" or
"time [ms]" in milliseconds) is no channel: it must run in equal steps, which are the distance between samples in
seconds. A column without a name, or named index or sample, that counts the rows is left out. Cells are separated by the
comma, the semicolon (with a decimal comma or point) or the tab.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np

from convoxel.data.image_header import Header
from convoxel.files.fault import brief, fault, shown
from convoxel.files.memory import check_memory
from convoxel.files.stream import file_size, read_bytes
from convoxel.files.values import Array

_MOST_LINE = 2**20
_UNEVEN = 0.01  # by which steps of time may differ: clocks round
_TIMES = {"time", "t", "timestamp", "timestamps", "seconds", "sec"}
_COUNTERS = {"", "index", "sample", "samples", "row", "unnamed: 0"}
_SECONDS = {"s": 1.0, "sec": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
_MEND = "Save the signal as numbers, one row a sample and one column a channel"


def read_header(path: Path) -> Header:
    """Return the header of a signal; the whole table is read for it, since only its rows tell their number."""
    return _read(path)[0]


def read_values(path: Path, label: bool) -> tuple[Header, Array]:
    """Return header and values (channels, samples): float32, or as written for a label."""
    header, table = _read(path)
    with np.errstate(all="ignore"):
        return header, np.ascontiguousarray(table.T, np.float64 if label else np.float32)


def _read(path: Path) -> tuple[Header, Array]:
    """Return the header, and the channels (samples, channels)."""
    check_memory(path, 6 * file_size(path))
    try:
        content = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise fault(path, "the text is not UTF-8", "a table in UTF-8", "Save it as CSV in UTF-8") from None
    text = content.replace("\r\n", "\n").replace("\r", "\n").strip("\n")
    note = "" if content.endswith(("\n", "\r")) else "the last line does not end, as in a file that was cut,"
    first = text.split("\n", 1)[0]
    if not first or len(first) > _MOST_LINE or "\0" in first:
        raise fault(path, "this is no table of numbers", "rows of numbers", _MEND)
    mark = next((mark for mark in ";\t," if mark in first), ",")  # a comma beside semicolons is a decimal one
    cells = [cell.strip().strip('"').strip() for cell in first.split(mark)]
    names = None if all(map(_is_number, cells)) or (mark == ";" and all(map(_is_decimal, cells))) else cells
    body = text[len(first) :] if names else text
    if not body.strip():
        raise fault(path, "a table without rows of numbers", "rows of numbers", _MEND)
    if mark == ";" and "," in body:
        if "." in body:
            came = "a table with points and commas in its numbers"
            raise fault(path, came, "one of them, before the decimals", "Write thousands without a mark")
        body = body.replace(",", ".")
    try:
        table = np.loadtxt(io.StringIO(body), delimiter=mark, ndmin=2, comments=None, quotechar='"')
    except ValueError as error:
        came = f"the table cannot be read ({str(error).rstrip('.')})"
        raise fault(path, came, "a number in every cell, and as many in each row", _MEND) from None
    interval = None
    if names is not None:
        table, interval = _split_time(path, names, table)
    return Header((len(table),), table.shape[1], None if interval is None else (interval,), note=note), table


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _is_decimal(cell: str) -> bool:
    return _is_number(cell.replace(",", "."))


def _split_time(path: Path, names: list[str], table: Array) -> tuple[Array, float | None]:
    """Return the channels, and the distance between samples in seconds if a column tells it."""
    if len(names) != table.shape[1]:
        came = f"{len(names)} names for {table.shape[1]} columns"
        raise fault(path, came, "one name a column", "Correct the first row")
    kept, interval = [], None
    for position, name in enumerate(names):
        column = table[:, position]
        parts = re.fullmatch(r"(.*?)(?:[ _]*[\[(/_ ] *(s|sec|ms|us|µs) *[\])]?)?", name.lower())
        plain, unit = (parts[1].strip(), parts[2] or "s") if parts else (name.lower(), "s")
        if plain in _TIMES and interval is None:
            interval = _interval(path, name, column) * _SECONDS[unit] if len(column) > 1 else None
        elif plain not in _COUNTERS or not np.array_equal(column, column[0] + np.arange(len(column))):
            kept.append(position)
    if not kept:
        expected = "at least one column of a channel"
        raise fault(path, f"the columns {', '.join(map(shown, names[:6]))}", expected, _MEND)
    return table[:, kept], interval


def _interval(path: Path, name: str, times: Array) -> float:
    steps = np.diff(times)
    with np.errstate(all="ignore"):
        middle = (times[-1] - times[0]) / len(steps)
        even = middle > 0 and np.abs(steps - middle).max() <= _UNEVEN * middle
    if not even:
        came = f"steps of {brief(float(steps.min()))} to {brief(float(steps.max()))} in the column {shown(name)}"
        raise fault(path, came, "equal steps of time", "Resample the signal, or leave the column out")
    return float(middle)
