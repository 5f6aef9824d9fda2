"""The table that ``describe`` returns: printed by rich, shown by notebooks, given as a dict."""

from __future__ import annotations

import html
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

__all__ = ["Reach", "Row", "Summary"]

# Operators of many functions: the function says more.
_NAMED = frozenset({"activation", "combine", "normalise", "reshape", "unknown"})
# Steps that a table need not list by themselves: they follow another step and keep its shape.
_FOLDED = frozenset({"batch_norm", "normalise", "activation", "identity", "reshape", "softmax"})


@dataclass(frozen=True)
class Reach:
    """The receptive field of a tensor, an entry an image axis.

    Attributes:
        size: inputs that one position sees, first to last.
        stride: inputs from one position to the next (a fraction on axes finer than the input).
        offset: where the field of position 0 starts; minus the padding that the positions before the input
            took.
        whole: whether, beside this local field, every position of the axis has an influence (global pooling,
            fully-connected layers, normalisation over the image).
    """

    size: tuple[int, ...]
    stride: tuple[int | Fraction, ...]
    offset: tuple[int | Fraction, ...]
    whole: tuple[bool, ...]

    def to_dict(self) -> dict[str, list[Any]]:
        """Return the fields as lists of numbers that JSON knows."""
        return {
            "size": list(self.size),
            "stride": [_number(value) for value in self.stride],
            "offset": [_number(value) for value in self.offset],
            "whole": list(self.whole),
        }

    def __str__(self) -> str:
        """Return for instance ``43/8``, or ``43×35/8×4`` where axes differ; ``+ whole`` where that holds."""
        same = len(set(zip(self.size, self.stride, strict=True))) == 1
        sizes, strides = (self.size[:1], self.stride[:1]) if same else (self.size, self.stride)
        text = _times(sizes)
        if any(stride != 1 for stride in strides):
            text += f"/{_times(strides)}"
        return f"{text} + whole" if any(self.whole) else text


@dataclass(frozen=True)
class Row:
    """One step of the network.

    Attributes:
        name: the layer's path in the module, or the path and the function.
        operator: what it is: convolution, max_pool, activation, add, …
        function: the function that was called: conv2d, relu, …
        output_shape: (n, c, *spatial).
        kernel: size of the window, or None.
        params: parameters that no earlier row has used.
        macs: multiply-accumulates (1 MAC = 2 FLOPs).
        activation_bytes: memory that the step's results take; 0 for views and steps in place.
        field: receptive field, or None where it is not known or the step does not depend on an image.
    """

    name: str
    operator: str
    function: str
    output_shape: tuple[int, ...]
    kernel: tuple[int, ...] | None
    params: int
    macs: int
    activation_bytes: int
    field: Reach | None

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain lists, numbers and strings."""
        return {
            "name": self.name,
            "operator": self.operator,
            "function": self.function,
            "output_shape": list(self.output_shape),
            "kernel": None if self.kernel is None else list(self.kernel),
            "params": self.params,
            "macs": self.macs,
            "activation_bytes": self.activation_bytes,
            "field": None if self.field is None else self.field.to_dict(),
        }


@dataclass(frozen=True)
class Summary:
    """What a network is, step by step and in total.

    Attributes:
        name: of the network.
        input_shapes: that the figures hold for.
        rows: the steps in running order.
        params: all parameters of the network.
        peak_bytes: the most activation bytes alive at one step, input included, when every tensor is freed
            after its last use.
        field: receptive field of the (first) output.
        remarks: misaligned branches and steps whose receptive field is not known.
    """

    name: str
    input_shapes: tuple[tuple[int, ...], ...]
    output_shapes: tuple[tuple[int, ...], ...]
    rows: tuple[Row, ...]
    params: int
    peak_bytes: int
    field: Reach | None
    remarks: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all rows."""
        return sum(row.macs for row in self.rows)

    @property
    def activation_bytes(self) -> int:
        """Bytes of all results together, as if none were ever freed."""
        return sum(row.activation_bytes for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain lists, numbers and strings (JSON)."""
        field = self.field.to_dict() if self.field else {"size": [], "stride": [], "offset": [], "whole": []}
        return {
            "name": self.name,
            "input_shapes": [list(shape) for shape in self.input_shapes],
            "output_shapes": [list(shape) for shape in self.output_shapes],
            "total": {
                "params": self.params,
                "macs": self.macs,
                "activation_bytes": self.activation_bytes,
                "peak_bytes": self.peak_bytes,
                "field": field["size"],
                "stride": field["stride"],
                "offset": field["offset"],
                "whole": field["whole"],
            },
            "rows": [row.to_dict() for row in self.rows],
            "remarks": list(self.remarks),
        }

    def lines(self) -> Iterator[tuple[str, str, str, str, str, str, str, str]]:
        """Yield the cells of the printed table; norms and activations share their layer's line."""
        for group in self._groups():
            first, last = group[0], group[-1]
            field = last.field if last.field is not None else first.field
            yield (
                first.name,
                " + ".join(_word(row) for row in group),
                _times(last.output_shape),
                _times(first.kernel) if first.kernel else "",
                _count(sum(row.params for row in group)),
                _count(sum(row.macs for row in group)),
                _bytes(sum(row.activation_bytes for row in group)),
                "" if field is None else str(field),
            )

    def _groups(self) -> list[list[Row]]:
        groups: list[list[Row]] = []
        for row in self.rows:
            if groups and row.operator in _FOLDED and row.output_shape == groups[-1][-1].output_shape:
                groups[-1].append(row)
            else:
                groups.append([row])
        return groups

    def totals(self) -> list[tuple[str, str]]:
        """Return the totals as (what, figure) to print."""
        whole = ", and beside it the whole image" if self.field and any(self.field.whole) else ""
        field = "not known" if self.field is None else str(self.field).replace(" + whole", whole)
        return [
            ("parameters", f"{self.params:,}"),
            ("multiply-accumulates", f"{self.macs:,}  ({_count(self.macs)}; FLOPs are twice as many)"),
            (
                "activations",
                f"{_bytes(self.activation_bytes)} in total, {_bytes(self.peak_bytes)} at the peak",
            ),
            ("receptive field", field),
        ]

    @property
    def title(self) -> str:
        """The network, its inputs and its outputs in one line."""
        inputs, outputs = (", ".join(map(_times, shapes)) for shapes in (self.input_shapes, self.output_shapes))
        return f"{self.name}: {inputs} → {outputs}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the table for rich."""
        table = Table(title=Text(self.title), title_justify="left", title_style="bold", pad_edge=False)
        for heading in _HEADINGS[:4]:
            table.add_column(heading, no_wrap=heading in ("layer", "output"), overflow="fold")
        for heading in _HEADINGS[4:]:
            table.add_column(heading, justify="right")
        for cells in self.lines():
            table.add_row(*map(Text, cells))
        yield table
        width = max(len(what) for what, _ in self.totals())
        for what, figure in self.totals():
            yield Text(f"{what:<{width}}  {figure}")
        for remark in self.remarks:
            yield Text(f"note: {remark}")

    def __str__(self) -> str:
        """Return the printed table as plain text, 120 characters wide."""
        console = Console(file=io.StringIO(), width=120, color_system=None)
        console.print(self)
        file = console.file
        assert isinstance(file, io.StringIO)
        return file.getvalue().rstrip()

    def __repr__(self) -> str:
        """Return one line: a session that echoes a summary is not flooded, ``print`` shows the table."""
        return f"<Summary {self.title}, {_count(self.params)} parameters, {_count(self.macs)} MACs>"

    def _repr_html_(self) -> str:
        """Return the table for notebooks."""

        def row(cells: Sequence[str], tag: str) -> str:
            styles = ["left"] * 4 + ["right"] * 4
            inner = (
                f'<{tag} style="text-align:{style}">{html.escape(cell)}</{tag}>'
                for cell, style in zip(cells, styles, strict=True)
            )
            return f"<tr>{''.join(inner)}</tr>"

        totals = "".join(f"<li>{html.escape(what)}: {html.escape(figure)}</li>" for what, figure in self.totals())
        remarks = "".join(f"<li>note: {html.escape(remark)}</li>" for remark in self.remarks)
        body = "".join(row(cells, "td") for cells in self.lines())
        return (
            f"<table><caption>{html.escape(self.title)}</caption><thead>{row(_HEADINGS, 'th')}</thead>"
            f"<tbody>{body}</tbody></table><ul>{totals}{remarks}</ul>"
        )


_HEADINGS = ("layer", "operator", "output", "kernel", "params", "MACs", "bytes", "field/stride")


def _word(row: Row) -> str:
    word = row.function if row.operator in _NAMED else row.operator
    return word.replace("_", " ")


def _number(value: int | Fraction) -> int | float:
    return int(value) if value == int(value) else float(value)


def _times(sizes: Sequence[int | Fraction]) -> str:
    return "×".join(map(str, sizes))


def _count(value: int) -> str:
    """Return a count with three digits and a decimal prefix, exact below ten thousand.

    >>> _count(9408), _count(118013952)
    ('9,408', '118 M')
    """
    if value < 10_000:
        return f"{value:,}" if value else ""
    return _prefixed(value, 1000.0, ("k", "M", "G", "T", "P"))


def _bytes(value: int) -> str:
    """Return a size with three digits and a binary prefix.

    >>> _bytes(3211264)
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
