"""The result of ``describe``: rows and totals as data. ``table`` renders them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderResult

from convoxel.errors import ConfigError
from convoxel.files.atomic import write_text
from convoxel.files.values import JsonObject
from convoxel.fork import cached_property
from convoxel.inspect.row import Reach, Row, merge_rows, times
from convoxel.inspect.table import View, bytes_text, count_text
from convoxel.inspect.valid_sizes import ValidSizes

_ADAM_COPIES = 4  # a weight, its gradient, and Adam's two moments


@dataclass(frozen=True)
class Summary:
    """A description of a network, step by step and in total.

    Attributes:
        name: of the network.
        input_shapes: that the figures hold for.
        rows: the steps in running order.
        params: all parameters of the network, each counted once.
        field: receptive field of the (first) output.
        remarks: misaligned branches and steps whose receptive field is not known.
        saved_bytes: activations that training keeps for the backward pass.
        warnings: what a designer should know: fields too small, layers that see nothing new, checkerboards, …
        find_peak: finds ``peak_bytes``; asked once.
        find_sizes: finds which input sizes work; asked once, when ``sizes`` is.
    """

    name: str
    input_shapes: tuple[tuple[int, ...], ...]
    output_shapes: tuple[tuple[int, ...], ...]
    rows: tuple[Row, ...]
    params: int
    field: Reach | None
    remarks: tuple[str, ...] = ()
    saved_bytes: int = 0
    warnings: tuple[str, ...] = ()
    find_peak: Callable[[], int] = dataclasses.field(default=lambda: 0, repr=False, compare=False)
    find_sizes: Callable[[], ValidSizes | None] | None = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all rows."""
        return sum(row.macs for row in self.rows)

    @property
    def uncounted(self) -> tuple[str, ...]:
        """The operators whose multiply-accumulates are not known, and not in ``macs``."""
        return tuple(dict.fromkeys(row.word for row in self.rows if not row.counted))

    @property
    def activation_bytes(self) -> int:
        """Bytes of all results together, as if none were ever freed."""
        return sum(row.activation_bytes for row in self.rows)

    @property
    def training_bytes(self) -> int:
        """Bytes that training needs: what the backward pass keeps, weights, their gradients, Adam's moments.

        All in float32; gradients of activations, which come and go, are not counted.
        """
        return self.saved_bytes + 4 * _ADAM_COPIES * self.params

    @cached_property
    def peak_bytes(self) -> int:
        """The most bytes of activations in use at once in a compiled program, by the plan of its memory.

        The program's passes rewrite the graph and its placement tells which values share memory. Counted are the values
        of its steps, in the arena or in the caller's arrays, each from the step that writes it to the last that reads
        it; copies that only convert the caller's arrays are not counted again.
        """
        return self.find_peak()

    @cached_property
    def sizes(self) -> ValidSizes | None:
        """The input sizes that work; None where the input has no spatial axes."""
        return self.find_sizes() if self.find_sizes else None

    def to_dict(self) -> JsonObject:
        """Return everything as plain lists, numbers and strings (JSON)."""
        reach = self.field.to_dict() if self.field else {"size": [], "stride": [], "offset": [], "whole": []}
        return {
            "name": self.name,
            "input_shapes": [list(shape) for shape in self.input_shapes],
            "output_shapes": [list(shape) for shape in self.output_shapes],
            "total": {
                "params": self.params,
                "macs": self.macs,
                "macs_not_counted": list(self.uncounted),
                "activation_bytes": self.activation_bytes,
                "peak_bytes": self.peak_bytes,
                "saved_bytes": self.saved_bytes,
                "training_bytes": self.training_bytes,
                "field": reach["size"],
                "stride": reach["stride"],
                "offset": reach["offset"],
                "whole": reach["whole"],
            },
            "sizes": self.sizes.to_dict() if self.sizes else None,
            "rows": [row.to_dict() for row in self.rows],
            "remarks": list(self.remarks),
            "warnings": list(self.warnings),
        }

    def to_csv(self, path: str | Path | None = None, depth: int | None = None) -> str:
        """Return a table of raw numbers, one line a step, and write it to ``path`` if given.

        Args:
            path: of a file, which is replaced.
            depth: as in ``view``; every step has its own line unless given.

        Raises:
            DataError: the file cannot be written.

        >>> from convoxel import describe
        >>> print(describe("alexnet").to_csv(depth=1).splitlines()[1])
        features,13 steps,,1x256x6x6,,2469696,655566528,2293248,1376512,15030528,195x195,32x32,-66x-66,no
        """
        text = View(self, self.rows if depth is None else self.at_depth(depth)).csv()
        if path is not None:
            write_text(path, text)
        return text

    def view(self, depth: int | None = None, columns: Sequence[str] | None = None) -> View:
        """Return the table to print, of other rows or columns than usual.

        Args:
            depth: how many parts of a layer's path are told apart: 1 shows a network's top modules. Every layer
                unless given, its norm and activation in the same line.
            columns: names out of ``convoxel.inspect.COLUMNS``, in order.

        Raises:
            ConfigError: ``depth`` is below 1, or a column is not known.

        >>> from convoxel import describe
        >>> view = describe("resnet18").view(depth=1, columns=["layer", "params", "field"])
        >>> list(view.lines())[4]
        ['layer1', '148 k', '43/4']
        """
        return View(self, self.folded() if depth is None else self.at_depth(depth), columns)

    def folded(self) -> tuple[Row, ...]:
        """Return the rows with norms and activations in their layer's."""
        groups: list[list[Row]] = []
        for row in self.rows:
            if groups and row.stays and row.output_shape == groups[-1][-1].output_shape:
                groups[-1].append(row)
            else:
                groups.append([row])
        return tuple(merge_rows(rows, rows[0].name, " + ".join(row.word for row in rows)) for rows in groups)

    def at_depth(self, depth: int) -> tuple[Row, ...]:
        """Return a row for each module at ``depth``, each time that it runs.

        Raises:
            ConfigError: ``depth`` is below 1.
        """
        if depth < 1:
            raise ConfigError(f"depth is {depth}; expected at least 1, which shows a network's top modules.")
        groups: list[tuple[str, list[Row]]] = []
        for row in self.rows:
            name = _shortened(row.name, depth)
            if groups and groups[-1][0] == name:
                groups[-1][1].append(row)
            else:
                groups.append((name, [row]))
        return tuple(
            merge_rows(rows, name, rows[0].word if len(rows) == 1 else f"{len(rows)} steps") for name, rows in groups
        )

    @property
    def title(self) -> str:
        """The network, its inputs and its outputs in one line."""
        inputs, outputs = (", ".join(map(times, shapes)) for shapes in (self.input_shapes, self.output_shapes))
        return f"{self.name}: {inputs} → {outputs}"

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks and warnings."""
        return (*self.remarks, *self.warnings)

    def totals(self) -> list[tuple[str, str]]:
        """Return the totals as (name, figure) to print."""
        whole = ", and beside it the whole image" if self.field and any(self.field.whole) else ""
        field = "not known" if self.field is None else str(self.field).replace(" + whole", whole)
        activations, saved = bytes_text(self.activation_bytes), bytes_text(self.saved_bytes) or "0 B"
        missing = f"; not counted: {', '.join(self.uncounted)}" if self.uncounted else ""
        products = f"{self.macs:,}  ({count_text(self.macs) or 0}; FLOPs are twice as many{missing})"
        lines = [
            ("parameters", f"{self.params:,}"),
            ("multiply-accumulates", products),
            ("activations", f"{activations} in total, {bytes_text(self.peak_bytes)} at the peak"),
            ("training", f"{bytes_text(self.training_bytes)} with Adam, of which {saved} are activations"),
            ("receptive field", field),
        ]
        return [*lines, ("input sizes", str(self.sizes))] if self.sizes else lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the table for rich."""
        yield self.view()

    def __str__(self) -> str:
        """Return the printed table as plain text, 120 characters wide."""
        return self.view().text()

    def __repr__(self) -> str:
        """Return one line: a session that echoes a summary is not flooded, ``print`` shows the table."""
        return f"<Summary {self.title}, {count_text(self.params)} parameters, {count_text(self.macs)} MACs>"

    def _repr_html_(self) -> str:
        """Return the table for notebooks."""
        return self.view().html()


def _shortened(path: str, depth: int) -> str:
    """Return the first parts of a layer's path; PyTorch parts them by dots, ONNX files often by slashes.

    >>> _shortened("layer1.0.conv1", 2), _shortened("/encoder/conv1/Conv", 1)
    ('layer1.0', 'encoder')
    """
    bare = path.strip("/")
    ends = [match.start() for match in re.finditer(r"[./]", bare)]
    return bare[: ends[depth - 1]] if len(ends) >= depth else bare
