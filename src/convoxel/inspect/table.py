"""Summaries as text: printed by rich, as HTML in notebooks, as CSV for spreadsheets."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple, Protocol

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from convoxel.errors import ConfigError
from convoxel.inspect.row import Row, times

_WIDTH = 120


class Column(NamedTuple):
    """A column: its heading, the text of a row's cell, its alignment (right or left), and what the heading means."""

    heading: str
    cell: Callable[[Row], str]
    right: bool = True
    meaning: str = ""


def count_text(value: int) -> str:
    """Return a count with three digits and a decimal prefix, exact below ten thousand.

    >>> count_text(9408), count_text(118013952)
    ('9,408', '118 M')
    """
    if value < 10_000:
        return f"{value:,}" if value else ""
    return _prefixed(value, 1000.0, ("k", "M", "G", "T", "P"))


def bytes_text(value: int) -> str:
    """Return a size with three digits and a binary prefix.

    >>> bytes_text(3211264)
    '3.06 MiB'
    """
    if value < 1024:
        return f"{value} B" if value else ""
    return _prefixed(value, 1024.0, ("KiB", "MiB", "GiB", "TiB", "PiB"))


def _prefixed(value: float, step: float, prefixes: Sequence[str]) -> str:
    power = 0
    while value >= 999.5 and power < len(prefixes):
        value, power = value / step, power + 1
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {prefixes[power - 1]}"


def _macs_text(row: Row) -> str:
    return count_text(row.macs) + ("" if row.counted else "?")


COLUMNS: Mapping[str, Column] = {
    "layer": Column("layer", lambda row: row.name, False, "path of the layer in the network"),
    "operator": Column("operator", lambda row: row.word, False, "what it does"),
    "output": Column("output", lambda row: times(row.output_shape), False, "shape of the result"),
    "kernel": Column("kernel", lambda row: times(row.kernel) if row.kernel else "", False, "size of the window"),
    "params": Column("params", lambda row: count_text(row.params), meaning="parameters not counted before"),
    "macs": Column("MACs", _macs_text, meaning="multiply-accumulates; ? where not counted"),
    "bytes": Column("bytes", lambda row: bytes_text(row.activation_bytes), meaning="memory of the result"),
    "live": Column("live", lambda row: bytes_text(row.live_bytes), meaning="memory in use while it runs"),
    "intensity": Column(
        "FLOPs/byte", lambda row: f"{row.intensity:.1f}" if row.macs else "", meaning="arithmetic for each byte moved"
    ),
    "field": Column(
        "field/stride", lambda row: str(row.field) if row.field else "", meaning="receptive field and its step"
    ),
    "offset": Column(
        "offset", lambda row: times(row.field.offset) if row.field else "", meaning="where the first field starts"
    ),
}
"""The columns that a table can have, by name."""

_USUAL = ("layer", "operator", "output", "kernel", "params", "macs", "bytes", "field")
# Columns that a narrow terminal leaves out, in this order.
_SPARED = ("operator", "kernel", "bytes", "output", "params", "macs")


class Described(Protocol):
    """A network that a table describes: a ``Summary``."""

    @property
    def title(self) -> str: ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    def totals(self) -> list[tuple[str, str]]: ...


class View:
    """Rows and columns of a summary, ready to be printed."""

    def __init__(self, summary: Described, rows: Sequence[Row], columns: Sequence[str] | None = None) -> None:
        names = _USUAL if columns is None else tuple(columns)
        unknown = [name for name in names if name not in COLUMNS]
        if unknown or not names:
            came = f"there is no {unknown[0]!r}" if unknown else "none given"
            raise ConfigError(f"columns: {came}; choose from {', '.join(COLUMNS)}.")
        self._summary = summary
        self._rows = tuple(rows)
        self._columns = [COLUMNS[name] for name in names]
        self._chosen = columns is not None

    def lines(self) -> Iterator[list[str]]:
        """Yield the cells of every row."""
        for row in self._rows:
            yield [column.cell(row) for column in self._columns]

    def _fitting(self, width: int) -> View:
        """Return the view with as many columns as fit, unless they were chosen."""
        names = [*_USUAL]
        for spared in (None, *_SPARED):
            names = [name for name in names if name != spared]
            view = View(self._summary, self._rows, names)
            columns = zip(*([column.heading for column in view._columns], *view.lines()), strict=True)
            # The operators' names are words, which may stand below each other.
            widths = [min(max(map(len, cells)), 22 if cells[0] == "operator" else width) for cells in columns]
            if self._chosen or sum(widths) + 3 * len(widths) - 2 <= width:
                break
        return self if self._chosen else view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the table for rich, without the columns for which there is no room."""
        view = self._fitting(options.max_width)
        missing = [column.heading for column in self._columns if column not in view._columns]
        table = Table(
            title=Text(self._summary.title),
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            show_edge=False,
        )
        for column in view._columns:
            table.add_column(
                column.heading,
                justify="right" if column.right else "left",
                no_wrap=column.heading in ("layer", "output"),
                overflow="fold",
            )
        for cells in view.lines():
            table.add_row(*map(Text, cells))
        yield table
        if missing:
            yield Text(f"no room for: {', '.join(missing)}", style="dim")
        yield Text()
        totals = self._summary.totals()
        width = max(len(what) for what, _ in totals)
        for what, figure in totals:
            yield Text(f"{what:<{width}}  {figure}")
        for note in self._summary.notes:
            yield Text(f"note: {note}")

    def text(self) -> str:
        """Return the printed table as plain text, 120 characters wide."""
        file = io.StringIO()
        Console(file=file, width=_WIDTH, color_system=None).print(self)
        return "\n".join(line.rstrip() for line in file.getvalue().rstrip().splitlines())

    def html(self) -> str:
        """Return the table as HTML without colours, for notebooks."""

        def row(cells: Sequence[str], tag: str) -> str:
            inner = (
                f'<{tag} style="text-align:{"right" if column.right else "left"}">{html.escape(cell)}</{tag}>'
                for cell, column in zip(cells, self._columns, strict=True)
            )
            return f"<tr>{''.join(inner)}</tr>"

        totals = "".join(
            f"<li>{html.escape(what)}: {html.escape(figure)}</li>" for what, figure in self._summary.totals()
        )
        notes = "".join(f"<li>note: {html.escape(note)}</li>" for note in self._summary.notes)
        body = "".join(row(cells, "td") for cells in self.lines())
        headings = row([column.heading for column in self._columns], "th")
        return (
            f"<table><caption>{html.escape(self._summary.title)}</caption><thead>{headings}</thead>"
            f"<tbody>{body}</tbody></table><ul>{totals}{notes}</ul>"
        )

    def page(self) -> str:
        """Return the table as a whole web page, light or dark as the browser prefers."""
        style = (
            ":root{color-scheme:light dark}body{font:14px/1.4 system-ui,sans-serif;margin:2em}"
            "table{border-collapse:collapse}caption{font-weight:600;text-align:left;padding:.4em}"
            "td,th{padding:.15em .8em;border-bottom:1px solid #8884;font-variant-numeric:tabular-nums}"
            "th{position:sticky;top:0;background:Canvas}"
        )
        title = html.escape(self._summary.title)
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width"><title>{title}</title>'
            f"<style>{style}</style></head><body>{self.html()}</body></html>\n"
        )

    def csv(self) -> str:
        """Return every figure of the rows as plain numbers, sizes as ``7x7``."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_CSV)
        for row in self._rows:
            writer.writerow([cell(row) for cell in _CSV.values()])
        return file.getvalue()


def _plain(sizes: Sequence[int | Fraction] | None) -> str:
    return "x".join(f"{float(size):g}" if isinstance(size, Fraction) else str(size) for size in sizes or ())


_CSV: Mapping[str, Callable[[Row], object]] = {
    "layer": lambda row: row.name,
    "operator": lambda row: row.operator,
    "function": lambda row: row.function,
    "output_shape": lambda row: _plain(row.output_shape),
    "kernel": lambda row: _plain(row.kernel),
    "params": lambda row: row.params,
    "macs": lambda row: row.macs if row.counted else "",
    "activation_bytes": lambda row: row.activation_bytes,
    "live_bytes": lambda row: row.live_bytes,
    "moved_bytes": lambda row: row.moved_bytes,
    "field_size": lambda row: _plain(row.field.size) if row.field else "",
    "field_stride": lambda row: _plain(row.field.stride) if row.field else "",
    "field_offset": lambda row: _plain(row.field.offset) if row.field else "",
    "whole": lambda row: ("yes" if any(row.field.whole) else "no") if row.field else "",
}
