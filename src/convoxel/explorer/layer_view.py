"""The arithmetic bench: one layer with its sizes, what each output reads, its matrix, its cost, and inverse questions.

Every number that the page shows is made here; the page only looks up which inputs an output reads, along each axis.
The picture's data are those of ``draw.conv`` (``Scan``), the answers those of ``convoxel size``.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convoxel.arithmetic import (
    PADDING_WORDS,
    Graph,
    Layer,
    Transposed,
    Window,
    conv_macs,
    conv_params,
    pool_size,
    resolve_padding,
    resolve_transposed,
    solve_inputs,
    transposed_macs,
)
from convoxel.arithmetic.image import WindowOptions, describe_sizes, solve_image_inputs, solve_layers
from convoxel.cli.parsing import parse_padding, parse_sizes
from convoxel.draw.layer_matrix import MatrixLayout
from convoxel.draw.overlap_grid import count_reached, say_evenness
from convoxel.draw.quantity import sizes as say
from convoxel.draw.scan import BORDERS, Scan, pooled
from convoxel.draw.sliding_kernel import ScanValues
from convoxel.errors import ConfigError, ShapeError, check_choice
from convoxel.explorer.view import KeptPage, Query, View, vary

if TYPE_CHECKING:
    from convoxel.explorer.session import Session
    from convoxel.files.values import JsonObject

_POOLS = ("max_pool", "average_pool")
_KINDS = ("correlation", "convolution", "transposed", *_POOLS)
_TITLES = {"transposed": "transposed convolution", "max_pool": "max pooling", "average_pool": "average pooling"}
_AXES = ("depth", "height", "width")
_LARGEST = 4096  # along an axis
_MOST_DRAWN = 4096  # cells of the input with its padding, and outputs
_MOST_VALUES = 1024  # inputs or outputs with numbers
_MOST_ENTRIES = 20_000  # of a matrix
_SHOWN = 60  # layers that answer an inverse question


@dataclass(frozen=True)
class Bench:
    """The layer that the page describes, with its numbers along each axis.

    Attributes:
        kind: operation.
        scan: what each output reads; pooling reads as a correlation does.
        padding: padding as it was given.
        channels: channels in and out.
        groups: groups of channels.
        bias: whether a bias is added.
        ceil: whether sizes of a pooling are rounded up.
        count_padding: whether an average counts zeros of the padding.
    """

    kind: str
    scan: Scan
    padding: str | tuple[tuple[int, int], ...]
    channels: tuple[int, int]
    groups: int
    bias: bool
    ceil: bool
    count_padding: bool
    given: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, query: Query) -> Bench:
        """Return the layer that the words describe, which are those of ``convoxel draw conv``.

        Raises:
            ConfigError: a word is not understood.
            ShapeError: the kernel does not fit.
        """
        kind = check_choice("kind", query.text("kind", "correlation"), _KINDS)
        size = parse_sizes("size", query.text("size", "7x7"), most=_LARGEST, count=(1, 3))
        axes = len(size)

        def numbers(name: str, default: str, least: int = 1) -> tuple[int, ...]:
            found = parse_sizes(name, query.text(name, default), least, _LARGEST)
            if len(found) not in (1, axes):
                raise ConfigError(f"{name}: got {say(found)}; expected one number for all axes, or {axes}.")
            return found * axes if len(found) == 1 else found

        kernel, dilation = numbers("kernel", "3"), numbers("dilation", "1")
        stride = numbers("stride", say(kernel) if kind in _POOLS else "1")
        added = numbers("output_padding", "0", 0) if kind == "transposed" else (0,) * axes
        padding = parse_padding(query.text("padding", "none"), axes)
        ceil = query.flag("ceil") and kind in _POOLS
        if kind == "transposed":
            given, missing = resolve_transposed(padding, kernel, stride, dilation)
            pairs, added = given, tuple(a + m for a, m in zip(added, missing, strict=True))
        else:
            given = resolve_padding(padding, kernel, stride, dilation, size)
            if padding == "same" and kind == "convolution":
                given = tuple((after, before) for before, after in given)
            pairs = given
        if ceil:  # a last window over the end, as wide as the rounding needs it
            outputs = map(pool_size, size, kernel, stride, pairs, dilation, (True,) * axes)
            pairs = tuple(
                (before, max(after, s * (o - 1) + d * (k - 1) + 1 - i - before))
                for i, k, s, d, o, (before, after) in zip(size, kernel, stride, dilation, outputs, pairs, strict=True)
            )
        border = check_choice("border", query.text("border", "zeros"), BORDERS)
        of_pool = kind in _POOLS
        scan = Scan.of(
            size, kernel, stride, pairs, dilation, kind="correlation" if of_pool else kind, output_padding=added,
            border="zeros" if of_pool or kind == "transposed" else border,
        )  # fmt: skip
        inputs = query.number("in", 1, most=1 << 20)
        outputs_ = inputs if of_pool else query.number("out", 1, most=1 << 20)
        groups = inputs if of_pool else query.number("groups", 1, most=1 << 20)
        return cls(
            kind, scan, padding, (inputs, outputs_), groups, query.text("bias", "1") == "1" and not of_pool, ceil,
            query.text("count", "1") == "1", given,
        )  # fmt: skip

    @property
    def is_pool(self) -> bool:
        """True for pooling, which has no weights."""
        return self.kind in _POOLS

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layer along each axis, as inverse questions take it."""
        word = self.padding if isinstance(self.padding, str) else None
        if self.kind == "transposed":
            return tuple(
                Transposed(t.k, t.s, word or pair, t.d, 0 if word else t.a)
                for t, pair in zip(self.scan.tracks, self.given, strict=True)
            )
        return tuple(
            Window(t.k, t.s, word or pair, t.d, self.ceil) for t, pair in zip(self.scan.tracks, self.given, strict=True)
        )

    @property
    def params(self) -> int:
        """Parameters."""
        return 0 if self.is_pool else conv_params(*self.channels, self.scan.kernel, self.groups, self.bias)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one input; pooling counts none."""
        if self.is_pool:
            return 0
        count, positions = (
            (transposed_macs, self.scan.size) if self.kind == "transposed" else (conv_macs, self.scan.output)
        )
        return count(positions, *self.channels, self.scan.kernel, self.groups)

    @property
    def matrix(self) -> MatrixLayout:
        """The layer as a matrix."""
        return MatrixLayout(self.scan, *self.channels, self.groups)

    def sentence(self) -> str:
        """Return the layer in one line."""
        text = self.scan.sentence().partition(",")[2]
        rounded = ", rounded up" if self.ceil else ""
        return f"{_TITLES.get(self.kind, self.kind)},{text}{rounded}"


# ---- what the page shows ----------------------------------------------------------------------------------


def describe(session: Session, query: Query) -> JsonObject:
    """Return the layer: sizes with their equations, what each output reads, costs, and the commands to copy."""
    bench = Bench.of(query)
    scan = bench.scan
    drawn = _drawn(scan)
    found: JsonObject = {
        "sentence": _capital(bench.sentence()),
        "kind": bench.kind,
        "size": scan.size,
        "output": scan.output,
        "steps": scan.steps(),
        "axes": [_axis(bench, axis, drawn) for axis in range(len(scan.tracks))],
        "drawn": drawn,
        "reason": ""
        if drawn
        else f"More than {_MOST_DRAWN} cells are too many to watch; the numbers hold all the same.",
        "facts": _facts(bench),
        "accepted": describe_sizes([solve_inputs(Graph.chain(layer)) for layer in bench.layers]),
        "copies": _copies(bench, query),
    }
    if bench.kind == "transposed" and drawn:
        counts = list(count_reached(scan).values())
        found["overlap"] = {"text": say_evenness(scan), "counts": counts, "most": max(counts)}
    if query.flag("numbers") and drawn:
        found["values"] = _values(bench, query)
    return found


def _drawn(scan: Scan) -> bool:
    cells = math.prod(track.length + sum(max(side, 0) for side in track.around) for track in scan.tracks)
    return max(cells, scan.steps()) <= _MOST_DRAWN


def _axis(bench: Bench, axis: int, drawn: bool) -> JsonObject:
    """Return the numbers of one axis, and what each output along it reads: pairs of a weight and an input."""
    track = bench.scan.tracks[axis]
    before, after = bench.given[axis]
    name = _AXES[3 - len(bench.scan.tracks) :][axis] if len(bench.scan.tracks) > 1 else "length"
    found: JsonObject = {
        "name": name, "i": track.i, "o": track.o, "k": track.k, "s": track.s, "p": [before, after], "d": track.d,
        "a": track.a, "span": track.d * (track.k - 1) + 1, "equation": _equation(bench, axis),
    }  # fmt: skip
    if drawn:
        found |= {
            "length": track.length, "around": track.around, "stretch": track.stretch, "step": track.step,
            "reads": [track.reads(o) for o in range(track.o)],
            "slots": [track.weight(slot) for slot in range(track.k)],
            "sources": [track.source(cell) for cell in range(-max(track.around[0], 0),
                                                             track.length + max(track.around[1], 0))],
        }  # fmt: skip
    return found


def _equation(bench: Bench, axis: int) -> str:
    track = dataclasses.replace(bench.scan.tracks[axis], p=bench.given[axis])
    if not bench.ceil:
        return f"o = {track.equation()}"
    p = f"{track.p[0]} + {track.p[1]}" if track.p[0] != track.p[1] else f"2·{track.p[0]}"
    span = track.d * (track.k - 1) + 1
    o = bench.scan.tracks[axis].o
    dropped = -(-(track.i + sum(track.p) - span) // track.s) + 1 - o
    text = f"o = ⌈({track.i} + {p} − {span}) / {track.s}⌉ + 1"
    return f"{text} − 1 = {o}, as the last window would begin in the padding" if dropped else f"{text} = {o}"


def _facts(bench: Bench) -> list[JsonObject]:
    """Return the figures in the order in which the page shows them."""
    inputs, outputs = bench.channels
    kernel = say(bench.scan.kernel)
    facts: list[JsonObject] = [
        _fact("input", math.prod(bench.scan.size) * inputs, f"{inputs} × {say(bench.scan.size)} values"),
        _fact("output", bench.scan.steps() * outputs, f"{outputs} × {say(bench.scan.output)} values"),
    ]
    if bench.is_pool:
        return [*facts, _fact("parameters", 0, "pooling has no weights")]
    layout = bench.matrix
    rows, columns = layout.shape
    sparse = layout.count("shared")
    bias = f" + {outputs} biases" if bench.bias else ""
    return [
        *facts,
        _fact("parameters", bench.params, f"{outputs} × {inputs // bench.groups} × {kernel}{bias}"),
        _fact("MACs", bench.macs, "multiply-accumulates of one image, padding included (FLOPs are twice as many)"),
        _fact("matrix", rows * columns, f"{rows} × {columns} entries; as many weights if fully connected"),
        _fact(
            "not zero", sparse, f"of the matrix: {100 * sparse / (rows * columns):.3g} %; weights if locally connected"
        ),
    ]


def _fact(name: str, value: int, text: str) -> JsonObject:
    return {"name": name, "value": value, "shown": f"{value:,}".replace(",", "\u202f"), "text": text}


def _values(bench: Bench, query: Query) -> JsonObject:
    """Return numbers of input, kernel and output, row by row."""
    scan = bench.scan
    if max(math.prod(scan.size), scan.steps()) > _MOST_VALUES:
        raise ConfigError(f"numbers: up to {_MOST_VALUES} inputs and outputs have numbers. Give a smaller size.")
    x = _numbers("x", query.text("x"), scan.size)
    found = ScanValues.of(scan, x, None if bench.is_pool else _numbers("w", query.text("w"), scan.kernel))
    y = found.y
    if bench.is_pool:
        y = pooled(scan, bench.given, found.x, bench.kind.removesuffix("_pool"), bench.count_padding)
    return {name: list(values.values()) for name, values in (("x", found.x), ("w", found.w), ("y", y))}


def _numbers(name: str, text: str, shape: Sequence[int]) -> dict[tuple[int, ...], float] | None:
    """Return the numbers of a text by their positions in ``shape``, row by row; None for an empty text."""
    words = re.split(r"[\s,;\[\]]+", text.strip(" \t\n,;[]"))
    if words == [""]:
        return None
    try:
        values = [float(word) for word in words]
    except ValueError:
        raise ConfigError(f"{name}: got {text[:40]!r}; expected numbers, such as 1 0 -1.") from None
    if len(values) != math.prod(shape):
        raise ShapeError(
            f"{name}: got {len(values)} numbers; expected {math.prod(shape)}, row by row, for {say(shape)}."
        )
    if not all(map(math.isfinite, values)):
        raise ConfigError(f"{name}: got {text[:40]!r}; expected finite numbers.")
    whole = all(value == round(value) and abs(value) < 1 << 31 for value in values)
    return dict(zip(itertools.product(*map(range, shape)), map(int, values) if whole else values, strict=True))


def matrix(session: Session, query: Query) -> JsonObject:
    """Return the layer as a matrix: every entry that is not zero, and the sizes of its blocks."""
    bench = Bench.of(query)
    if bench.kind == "max_pool":
        raise ConfigError("kind: max pooling is not linear, so no matrix computes it. Take average pooling.")
    if bench.scan.tracks[0].border != "zeros":
        raise ConfigError("border: the matrix is drawn for a border of zeros. Leave the border out.")
    order = check_choice("order", query.text("order", "C"), ("C", "F"))
    layout = dataclasses.replace(bench.matrix, order=order)
    rows, columns = layout.shape
    count = layout.count("shared")
    if count > _MOST_ENTRIES:
        raise ConfigError(
            f"matrix: {rows} × {columns} with {count} entries is too large to draw; up to {_MOST_ENTRIES} are. "
            "Give a smaller size or fewer channels."
        )
    weights = 1 if bench.is_pool else layout.weights
    return {
        "rows": rows, "columns": columns, "weights": weights, "blocks": layout.blocks(),
        "entries": [(r, c, 0 if bench.is_pool else w) for r, c, w in layout.entries()],
        "text": f"{rows} × {columns}, {count} of {rows * columns} entries are not zero, {weights} different.",
        "output": bench.scan.output, "size": bench.scan.size, "order": order,
        "letter": "" if bench.is_pool else "k",
        "share": math.prod(bench.scan.kernel) if bench.count_padding and not bench.ceil else 0,
    }  # fmt: skip


def inverse(session: Session, query: Query) -> JsonObject:
    """Return the inputs of which this layer makes a wanted output, and the layers that make it of this input."""
    bench = Bench.of(query)
    wanted = parse_sizes("want", query.text("want", say(bench.scan.output)), most=_LARGEST, count=(1, 3))
    axes = len(bench.scan.tracks)
    if len(wanted) not in (1, axes):
        raise ConfigError(f"want: got {say(wanted)}; expected one size for all axes, or {axes}.")
    known = [solve_inputs(Graph.chain(layer)) for layer in bench.layers]
    inputs = solve_image_inputs(known, wanted)
    found: JsonObject = {"inputs": str(inputs), "solvable": inputs.solvable, **inputs.to_dict(), "layers": []}
    found["try"] = "x".join(str(each.smallest) for each in inputs.inputs) if inputs.solvable else ""
    if bench.kind != "transposed":
        options = WindowOptions(kernel=range(1, 12), paddings=(None, *(w for w in PADDING_WORDS if w != "none")))
        for each in solve_layers(bench.scan.size, wanted, options):
            rows = [
                {"text": str(w), "kernel": w.k, "stride": w.s, "padding": w.p, "dilation": w.d}
                for w in each.windows[:_SHOWN]
            ]
            found["layers"].append(
                {"input": each.input, "output": each.output, "count": len(each.windows), "equation": each.equation,
                 "rows": rows}
            )  # fmt: skip
    return found


# ---- to copy ----------------------------------------------------------------------------------------------


def _copies(bench: Bench, query: Query) -> list[JsonObject]:
    """Return the same layer as commands and as Python."""
    scan = bench.scan
    word = _notation(bench)
    size = "x".join(map(str, scan.size))
    python = ["import convoxel as cx", ""]
    tracks = scan.tracks
    kernel, stride, dilation, added = (_tuple(getattr(t, name) for t in tracks) for name in "ksda")
    # Of a transposed convolution the word also stands for outputs that are added.
    by_word = isinstance(bench.padding, str) and bench.kind != "transposed"
    padding = repr(bench.padding if by_word else bench.given)
    if bench.kind == "transposed":
        call = f"transposed_sizes({scan.size}, {kernel}, {stride}, {padding}, {dilation}, {added})"
    elif bench.is_pool:
        call = f"pool_sizes({scan.size}, {kernel}, {stride}, {padding}, {dilation}, ceil={bench.ceil})"
    else:
        call = f"conv_sizes({scan.size}, {kernel}, {stride}, {padding}, {dilation})"
    python.append(f"cx.arithmetic.{call}  # {scan.output}")
    copies = [{"name": "Sizes (command)", "text": f"convoxel size output {size} {shlex.quote(word)}"}]
    if not bench.is_pool:
        options = [("size", size), *((name, query.text(name)) for name in ("kernel", "stride", "padding", "dilation"))]
        options += [("output-padding", query.text("output_padding")), ("border", query.text("border"))]
        options += [("kind", bench.kind)]
        usual = {"kernel": "3", "stride": "1", "padding": "none", "dilation": "1", "kind": "correlation"}
        usual |= {"border": "zeros", "output-padding": "0"}
        unusual = [f"--{name} {shlex.quote(text)}" for name, text in options if text and usual.get(name) != text]
        copies.append(
            {"name": "Picture (command)", "text": " ".join(["convoxel draw conv", *unusual, "--svg conv.svg"])}
        )
        more = f", kind={bench.kind!r}" if bench.kind != "correlation" else ""
        more += f", output_padding={added}" if bench.kind == "transposed" else ""
        python.append(f"cx.draw.conv({scan.size}, {kernel}, {stride}, {padding}, {dilation}{more}).save('conv.svg')")
        macs = f"cx.arithmetic.conv_params{(*bench.channels, scan.kernel, bench.groups, bench.bias)}"
        python.append(f"{macs}  # {bench.params}")
    copies.insert(1, {"name": "Python", "text": "\n".join(python)})
    return copies


def _notation(bench: Bench) -> str:
    """Return the layer in the notation of ``convoxel size``."""
    letters = {"transposed": "t", "max_pool": "pool", "average_pool": "pool"}
    tracks = bench.scan.tracks

    def joined(values: Sequence[object]) -> str:
        texts = [str(value) for value in values]
        return texts[0] if len(set(texts)) == 1 else ",".join(texts)

    text = f"{letters.get(bench.kind, 'k')}{joined([t.k for t in tracks])}"
    if bench.is_pool or any(t.s > 1 for t in tracks):
        text += f"s{joined([t.s for t in tracks])}"
    if isinstance(bench.padding, str):
        text += "" if bench.padding == "none" else f"p{bench.padding}"
    elif any(any(pair) for pair in bench.given):
        text += f"p{joined([f'{a}:{b}' if a != b else a for a, b in bench.given])}"
    if any(t.d > 1 for t in tracks):
        text += f"d{joined([t.d for t in tracks])}"
    if any(t.a for t in tracks) and not isinstance(bench.padding, str):
        text += f"a{joined([t.a for t in tracks])}"
    return text + ("c" if bench.ceil else "")


def _tuple(values: Any) -> Any:
    """Return one number where all are alike, else all of them."""
    found = tuple(values)
    return found[0] if len(set(found)) == 1 else found


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


_KEPT_WORDS = (
    ("kind", ("", "transposed")),
    ("kernel", ("1", "2", "", "4", "5")),
    ("stride", ("", "2", "3")),
    ("padding", ("", "half", "full", "same")),
    ("dilation", ("", "2")),
)
_KEPT_POOLS = (("kind", _POOLS), ("kernel", ("2", "")), ("stride", ("", "1", "2")), ("padding", ("", "half")))


def keep_pages(session: Session) -> Iterator[KeptPage]:
    """Yield the page of the bench with the states of its usual fields on an input of 7 × 7."""
    states = [*vary((), _KEPT_WORDS), *vary((), _KEPT_POOLS)]
    questions = [(f"layer/{name}", state) for state in states for name in ("describe", "matrix")]
    yield KeptPage("layer", "Convolution arithmetic", "", questions)


VIEW = View(
    "layer",
    "Layer",
    "Convolution arithmetic: sizes, the moving kernel, the matrix, costs and inverse questions.",
    {"describe": describe, "matrix": matrix, "inverse": inverse},
    kept=keep_pages,
)
