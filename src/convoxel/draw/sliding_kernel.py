"""A kernel that slides over its input, output by output: convolutions of every kind, in 1-D, 2-D and 3-D.

The picture is made from a ``Scan``, so the cells under the window are those that the layer reads. A volume is shown as
its slices, side by side, and the window lies on several of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convoxel.draw.caption import EDGE, heading, legend
from convoxel.draw.figure import Figure
from convoxel.draw.quantity import sizes, spelled
from convoxel.draw.scan import Numbers, Position, Scan, Track, correlate
from convoxel.draw.scene import Box, Group, Line, Look, Point, Shape, Words
from convoxel.errors import ConfigError, ShapeError
from convoxel.lazy import LazyModule

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike
else:
    np = LazyModule("numpy")

_MOST_STEPS, _MOST_CELLS = 400, 1600
_GAP = 4.0  # between cells
_SLICE = 18.0  # between slices
_PART = 44.0  # between input, kernel and output

_INPUT = Look(fill="c2", opacity=0.3)
_UNREAD = Look(fill="c2", opacity=0.1)
_PADDING = Look(stroke="faint", dash=(3, 3), opacity=0.55)
_BETWEEN = Look(fill="grid")
_COPY = Look(fill="c2", stroke="faint", dash=(3, 3), opacity=0.18)
_CUT = Look(stroke="c2", opacity=0.3, dash=(2, 3))
_TAP = Look(fill="c1", opacity=0.42)
_WINDOW = Look(stroke="c1", weight=2.5)
_EMPTY = Look(stroke="c3", opacity=0.45)
_DONE = Look(fill="c3", opacity=0.3)
_NOW = Look(stroke="c3", weight=2.5)
_WEDGE = Look(fill="c1", opacity=0.14)


def conv(
    size: int | Sequence[int],
    kernel: int | Sequence[int] = 3,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] | Sequence[tuple[int, int]] = "none",
    dilation: int | Sequence[int] = 1,
    *,
    kind: str = "correlation",
    output_padding: int | Sequence[int] = 0,
    border: str = "zeros",
    view: str = "gather",
    x: ArrayLike | None = None,
    w: ArrayLike | None = None,
    numbers: bool = False,
    step_s: float = 0.9,
) -> Figure:
    """Return the kernel sliding over its input, one frame for each output (Dumoulin & Visin 2016, arXiv 1603.07285).

    Args:
        size: input size of every axis, one to three of them.
        kernel: kernel size, of all axes or of every axis (default 3).
        stride: stride, of all axes or of every axis (default 1).
        padding: a word of ``arithmetic.PADDING_WORDS``, or numbers as ``arithmetic.resolve_padding`` takes.
        dilation: dilation, of all axes or of every axis (default 1).
        kind: "correlation" (what networks compute), "convolution" (the kernel read backwards) or
            "transposed" (drawn as a window over the stretched input).
        output_padding: outputs added at the end, for "transposed".
        border: content of the padding: "zeros", "reflect", "replicate" or "circular".
        view: "gather" (one frame for each output: the inputs that it reads), or for "transposed" also "scatter" (one
            frame for each input: the kernel, times the input, is added to the outputs); default "gather".
        x: values of the input, of shape ``size``; numbers are then shown.
        w: values of the kernel, of shape ``kernel``.
        numbers: show numbers although none are given: small whole ones (default False).
        step_s: seconds of one frame (default 0.9).

    Returns:
        A moving figure; ``still(step)`` and ``strip(steps)`` give frames of it.

    Raises:
        ConfigError: an option that is not known, or more steps or cells than anyone would watch.
        ShapeError: the kernel does not fit, or values have another shape.

    >>> figure = conv((5, 5), 3, stride=2, padding="same")
    >>> figure.frames, figure.title
    (9, 'Correlation, kernel 3 × 3, stride 2, padding 1')
    """
    scan = Scan.of(size, kernel, stride, padding, dilation, kind=kind, output_padding=output_padding, border=border)
    cells = math.prod(track.length + max(track.around[0], 0) + max(track.around[1], 0) for track in scan.tracks)
    if scan.steps() > _MOST_STEPS or cells > _MOST_CELLS:
        raise ConfigError(
            f"conv: {scan.steps()} outputs over {cells} cells are too many to watch; up to {_MOST_STEPS} outputs and "
            f"{_MOST_CELLS} cells are drawn. Give a smaller size, such as {(7,) * len(scan.tracks)}."
        )
    if not step_s > 0:
        raise ConfigError(f"step_s: got {step_s:g}; expected seconds above 0.")
    if view not in ("gather", "scatter") or (view == "scatter" and kind != "transposed"):
        raise ConfigError(f"view: got {view!r} with kind {kind!r}; expected 'gather', or 'scatter' with 'transposed'.")
    values = ScanValues.of(scan, x, w) if numbers or x is not None or w is not None else None
    return (_Scatter.of(scan, values) if view == "scatter" else _Stage(scan, values)).figure(step_s)


@dataclass(frozen=True)
class ScanValues:
    """Numbers of input, kernel and output by their positions."""

    x: Numbers
    w: Numbers
    y: Numbers

    @classmethod
    def of(cls, scan: Scan, x: ArrayLike | Numbers | None, w: ArrayLike | Numbers | None) -> ScanValues:
        """Return given numbers, or small ones, and what the layer makes of them."""
        inputs = _placed("x", x, scan.size, (5, 0, 11))
        weights = _placed("w", w, scan.kernel, (5, 1, 7))
        return cls(inputs, weights, correlate(scan, inputs, weights))


def _placed(name: str, given: ArrayLike | Numbers | None, shape: Position, pattern: tuple[int, int, int]) -> Numbers:
    places = itertools.product(*map(range, shape))
    if given is None:  # small whole numbers, not symmetric: a flipped kernel must show
        step, first, turn = pattern
        return {place: (number * step + first) % turn % 4 for number, place in enumerate(places)}
    if isinstance(given, Mapping):
        return given
    values = np.asarray(given)
    if values.shape != shape or values.dtype.kind not in "iufb":
        raise ShapeError(f"conv: {name} has shape {values.shape} ({values.dtype}); expected numbers shaped {shape}.")
    # Python's numbers: products of narrow ones, such as uint8, would wrap round.
    wide = values.astype(np.float64 if values.dtype.kind == "f" else np.int64)
    return dict(zip(places, wide.ravel().tolist(), strict=True))


def _flat(place: Position, shape: Position) -> int:
    """Return the number of a place, row by row."""
    return sum(p * math.prod(shape[axis + 1 :]) for axis, p in enumerate(place))


class _Stage:
    """The places of input, kernel and output, and what moves between them."""

    names = ("input", "kernel", "output")

    def __init__(self, scan: Scan, values: ScanValues | None, layer: Scan | None = None) -> None:
        self.scan, self.values, self.layer = scan, values, layer or scan
        self.axes = len(scan.tracks)
        # Columns and rows of the canvas, with padding and cropped cells.
        self.low = [min(0, -track.around[0]) for track in scan.tracks]
        self.high = [max(track.length, track.length + track.around[1]) for track in scan.tracks]
        spans = [high - low for low, high in zip(self.low, self.high, strict=True)]
        widest = max(spans[-1], spans[-2] if self.axes > 1 else 0)
        self.pitch = 40.0 if widest <= 9 and self.axes < 3 else 32.0 if widest <= 14 else 24.0
        if layer is not None:  # outputs that are added at the end lie behind those that are written
            self.high = [max(high, track.o) for high, track in zip(self.high, layer.tracks, strict=True)]
            spans = [high - low for low, high in zip(self.low, self.high, strict=True)]
        title = self.layer.sentence()
        self.title = title[0].upper() + title[1:]
        self.head, self.width, self.top = heading(self.title, self._equations())
        self._place(spans)

    def _equations(self) -> list[str]:
        names = ("depth", "height", "width")[3 - self.axes :] if self.axes > 1 else ("length",)
        texts = [f"{track.i} → {track.o}:  {track.equation()}" for track in self.layer.tracks]
        if len(set(texts)) == 1:
            return [texts[0] + (f"  on each of {self.axes} axes" if self.axes > 1 else "")]
        return [f"{name} {text}" for name, text in zip(names, texts, strict=True)]

    def _place(self, spans: Sequence[int]) -> None:
        """Set the corners of the three grids: beside each other for images, below each other otherwise."""
        top = self.top + 22
        wide, tall = self._extent(spans)
        kernel = self._extent(self.scan.kernel)
        output = self._extent(self.scan.output)
        self.canvas: Point = (EDGE, top)
        label = 92.0  # room for a grid's name, however narrow the grid
        if self.axes == 2:
            middle = EDGE + max(wide, label) + _PART
            right = middle + max(kernel[0], label) + _PART
            self.kernel: Point = (middle, top + max(0.0, (tall - kernel[1]) / 2))
            self.output: Point = (right, top + max(0.0, (tall - output[1]) / 2))
            end, bottom = right + max(output[0], label), top + max(tall, kernel[1], output[1])
        else:
            below = top + tall + 58
            self.output = (self._below(wide, output[0]) if self.axes == 1 else EDGE, below)
            self.kernel = (EDGE + max(wide, output[0], label) + _PART, top if self.axes == 1 else below)
            if self.axes == 3:
                self.kernel = (EDGE + max(output[0], label) + _PART, below)
            end = max(EDGE + wide, self.kernel[0] + max(kernel[0], label))
            bottom = max(below + output[1] + (18 if self.axes == 1 else 0), self.kernel[1] + kernel[1])
        self.width = max(self.width, end + EDGE)
        self.bottom = bottom

    def _below(self, wide: float, output: float) -> float:
        """Return where the outputs of a signal begin: under the middle of their windows, if those move by one cell.

        A causal output stands under the last input of its window.
        """
        (track,) = self.scan.tracks
        if track.step > 1:
            return EDGE + max(0.0, (wide - output) / 2)
        reach = track.d * (track.k - 1)
        causal = not track.transposed and reach > 0 and track.p == (reach, 0)
        return EDGE + (track.start(0) + (reach if causal else reach / 2) - self.low[0]) * self.pitch

    def _extent(self, shape: Sequence[int]) -> Point:
        """Return how wide and tall a grid is."""
        deep, tall, wide = (*(1,) * (3 - len(shape)), *shape)
        return deep * wide * self.pitch + (deep - 1) * _SLICE - _GAP, tall * self.pitch - _GAP

    def spot(self, corner: Point, cell: Sequence[int], wide: int) -> Point:
        """Return the upper left corner of a cell; linear in ``cell``, so that differences are moves."""
        deep, tall, across = (*(0,) * (3 - len(cell)), *cell)
        slices = deep * (wide * self.pitch + _SLICE)
        return corner[0] + slices + across * self.pitch, corner[1] + tall * self.pitch

    def on_canvas(self, cell: Sequence[int]) -> Point:
        """Return the corner of a cell of the canvas; its first input is cell 0 of every axis."""
        moved = [c - low for c, low in zip(cell, self.low, strict=True)]
        return self.spot(self.canvas, moved, self.high[-1] - self.low[-1])

    def box(self, at: Point, look: Look, **more: Any) -> Box:
        """Return a cell."""
        side = self.pitch - _GAP
        return Box(*at, side, side, 4, look=look, **more)

    def figure(self, step_s: float) -> Figure:
        """Return the whole picture."""
        scan, shapes = self.scan, list(self.head)
        shapes += self._names()
        if self.axes == 1:
            shapes += self._wedges()
        cells, texts = self._inputs()
        shapes += [*cells, *self._kernel(), *self._outputs(), self._window(), *texts, self._current()]
        told, wide, end = legend(self._legend(), self.bottom + 46, max(self.width, 460.0))
        shapes += [*self._statuses(), *told]
        text = f"{self._sentence()} in {scan.steps()} steps."
        rest = scan.steps() // 2
        return Figure(
            self.title, text, max(self.width, wide), end + EDGE - 8, tuple(shapes), scan.steps(), step_s, rest
        )

    def _sentence(self) -> str:
        shapes = self.scan.size, self.scan.output
        return "The window slides over an input of {} and gives an output of {}".format(*map(sizes, shapes))

    def _names(self) -> Iterator[Shape]:
        """Yield the names of the three grids, above them."""
        look = Look(fill="ink", size=12, bold=True)
        large, small = (self.layer.size, self.layer.output)[:: 1 if self.layer is self.scan else -1]
        corners = (self.canvas, self.kernel, self.output)
        for corner, name, shape in zip(corners, self.names, (large, self.scan.kernel, small), strict=True):
            if self.axes == 1 and corner is self.output:  # above it the wedge ends
                yield Words(corner[0], corner[1] + self.pitch + 14, f"{name} {sizes(shape)}", look=look)
            else:
                yield Words(corner[0], corner[1] - 9, f"{name} {sizes(shape)}", look=look)

    def _inputs(self) -> tuple[list[Shape], list[Shape]]:
        """Return the cells of the canvas, each in the look of its kind, and the numbers on them."""
        tracks = self.scan.tracks
        cells: list[Shape] = []
        texts: list[Shape] = []
        read = [{source for o in range(track.o) for _, source in track.reads(o)} for track in tracks]
        for cell in itertools.product(*(range(a, b) for a, b in zip(self.low, self.high, strict=True))):
            at = self.on_canvas(cell)
            own = list(zip(tracks, cell, strict=True))
            if not all(0 <= c < track.length for track, c in own):
                copied = [track.source(c) for track, c in own]
                copy = tuple(source for source in copied if source is not None)
                whole = len(copy) == self.axes
                more = {"copy": _key(copy)} if whole else {}
                cells.append(self.box(at, _COPY if whole else _PADDING, data={"padding": _key(cell), **more}))
                if self.values is not None:
                    texts.append(self._number(at, self.values.x[copy] if whole else 0, "faint", high=True))
            elif any(c % track.stretch for track, c in own):
                cells.append(self.box(at, _BETWEEN, data={"between": _key(cell)}))
            else:
                place = tuple(c // track.stretch for track, c in own)
                cut = any(track.source(c) is None for track, c in own)
                seen = all(number in known for number, known in zip(place, read, strict=True))
                look = _CUT if cut else _INPUT if seen else _UNREAD
                cells.append(self.box(at, look, data={"input": _key(place)}))
                if self.values is not None:
                    texts.append(self._number(at, self.values.x[place], "ink" if seen else "soft", high=True))
        return cells, texts

    def _number(self, at: Point, value: Any, role: str, *, high: bool = False, **more: Any) -> Words:
        """Return a value in its cell, a little higher where a weight may lie below it."""
        text = spelled(value)
        side = self.pitch - _GAP
        size = min((0.38 if high else 0.42) * self.pitch, 1.45 * side / max(len(text), 1))
        x, y = at[0] + (0.42 if high else 0.5) * side, at[1] + (0.38 if high else 0.5) * side + 0.36 * size
        return Words(x, y, text, look=Look(fill=role, size=size, align="middle"), **more)

    def _weight(self, at: Point, place: Position) -> Words:
        """Return the weight of a slot, in its corner: its value, or else its number."""
        side = self.pitch - _GAP
        if self.values is None:
            text = str(1 + _flat(place, self.scan.kernel))
        else:
            text = f"×{spelled(self.values.w[place])}"
        size = max(8.0, 0.27 * self.pitch)
        look = Look(fill="ink", size=size, bold=True, align="end")
        return Words(at[0] + side - 3, at[1] + side - 3.5, text, look=look)

    def _kernel(self) -> Iterator[Shape]:
        """Yield the kernel as it is stored."""
        for place in itertools.product(*map(range, self.scan.kernel)):
            at = self.spot(self.kernel, place, self.scan.kernel[-1])
            yield self.box(at, _TAP, data={"weight": _key(place)})
            yield self._weight(at, place) if self.values is None else self._number(at, self.values.w[place], "ink")

    def _window(self) -> Group:
        """Return the window, which moves to where each output's inputs are."""
        tracks = self.scan.tracks
        first = self.on_canvas([track.start(0) for track in tracks])
        parts: list[Shape] = []
        for slots in itertools.product(*(range(track.k) for track in tracks)):
            at = self.on_canvas([t.start(0) + t.d * slot for t, slot in zip(tracks, slots, strict=True)])
            weight = tuple(track.weight(slot) for track, slot in zip(tracks, slots, strict=True))
            parts += [self.box(at, _TAP, data={"slot": _key(weight)}), *self._slot(at, weight)]
        flat = tracks[-2:]
        wide = self._extent([track.d * (track.k - 1) + 1 for track in flat])
        for slot in range(tracks[0].k) if self.axes == 3 else (0,):
            corner = [track.start(0) for track in tracks]
            corner[0] += tracks[0].d * slot if self.axes == 3 else 0
            x, y = self.on_canvas(corner)
            parts.append(Box(x - 2, y - 2, wide[0] + 4, wide[1] + 4, 6, look=_WINDOW))
        places = [
            self.on_canvas([track.start(o) for track, o in zip(tracks, output, strict=True)])
            for output in self.scan.outputs()
        ]
        return Group(
            tuple(parts), moves=tuple((x - first[0], y - first[1]) for x, y in places), data={"part": "window"}
        )

    def _slot(self, at: Point, weight: Position) -> list[Shape]:
        """Return what a slot of the window shows of its weight."""
        return [self._weight(at, weight)]

    def _outputs(self) -> Iterator[Shape]:
        """Yield the outputs, which are filled one after the other."""
        steps = self.scan.steps()
        for step, output in enumerate(self.scan.outputs()):
            at = self.spot(self.output, output, self.scan.output[-1])
            since = None if step == 0 else tuple(range(step, steps))
            yield self.box(at, _EMPTY, data={"output": _key(output)})
            yield self.box(at, _DONE, when=since)
            if self.values is not None:
                yield self._number(at, self.values.y[output], "ink", when=since)

    def _current(self) -> Group:
        """Return the frame around the output of the step."""
        wide = self.scan.output[-1]
        places = [self.spot(self.output, output, wide) for output in self.scan.outputs()]
        x, y = places[0]
        side = self.pitch - _GAP
        ring = Box(x - 2, y - 2, side + 4, side + 4, 6, look=_NOW)
        return Group((ring,), moves=tuple((a - x, b - y) for a, b in places), data={"part": "current"})

    def _wedges(self) -> Iterator[Shape]:
        """Yield, for a signal, a wedge between each window and its output."""
        (track,) = self.scan.tracks
        side = self.pitch - _GAP
        for step in range(track.o):
            left, top = self.on_canvas([track.start(step)])
            right = self.on_canvas([track.start(step) + track.d * (track.k - 1)])[0] + side
            x, y = self.spot(self.output, (step,), 1)
            points = ((left, top + side), (right, top + side), (x + side, y), (x, y))
            yield Line(points, closed=True, look=_WEDGE, when=(step,))

    def _statuses(self) -> Iterator[Shape]:
        """Yield a line for each step."""
        look, total = Look(fill="soft", size=12), math.prod(self.scan.kernel)
        for step, place in enumerate(self.scan.outputs()):
            spot = str(place[0]) if self.axes == 1 else f"({_key(place).replace(',', ', ')})"
            says = self._status(place, spot, len(self.scan.reads(place)), total)
            says = f"step {step + 1} of {self.scan.steps()}:  {says}"
            yield Words(EDGE, self.bottom + 30, says, look=look, when=(step,))

    def _status(self, place: Position, spot: str, count: int, total: int) -> str:
        """Say what the step reads: ``count`` of ``total`` weights meet an input."""
        value = "" if self.values is None else f" = {spelled(self.values.y[place])}"
        missed = "" if count == total else f", {total - count} of {total} weights meet no input"
        return f"output {spot}{value}{missed}"

    def _legend(self) -> list[tuple[Look, str]]:
        """Return an entry for each look that occurs in this picture."""
        tracks = self.scan.tracks
        entries = [(_INPUT, "input")]
        if any(before > 0 or after > 0 for before, after in (track.around for track in tracks)):
            border = tracks[0].border
            entries.append((_PADDING, "padding") if border == "zeros" else (_COPY, f"padding: {border}"))
        if any(before < 0 or after < 0 for before, after in (track.around for track in tracks)):
            entries.append((_CUT, "cut off"))
        if any(track.stretch > 1 and track.i > 1 for track in tracks):
            entries.append((_BETWEEN, "zeros between inputs"))
        if any(len({s for o in range(t.o) for _, s in t.reads(o)}) < t.i and min(t.around) >= 0 for t in tracks):
            entries.append((_UNREAD, "never read"))
        what = "weights" if self.values is not None else "weights, numbered"
        return [*entries, (_TAP, what), (_DONE, "computed")]


class _Scatter(_Stage):
    """A transposed convolution, input by input: the kernel lies on the outputs that one input is added to.

    It is the convolution that is turned round, read from its output to its input: the window slides over the outputs.
    """

    names = ("output", "kernel", "input")

    @classmethod
    def of(cls, layer: Scan, values: ScanValues | None) -> _Scatter:
        """Return the stage of a transposed ``layer``."""
        turned = tuple(Track(t.o - t.a, t.k, t.s, t.p, t.d) for t in layer.tracks)
        return cls(Scan(turned, "correlation"), values, layer)

    def _sentence(self) -> str:
        shapes = self.layer.size, self.layer.output
        return "Each input of {} adds the kernel, times its value, to the output of {}".format(*map(sizes, shapes))

    def _inputs(self) -> tuple[list[Shape], list[Shape]]:
        """Return the cells of the output, filled from the step on that first writes them, and their sums."""
        cells: list[Shape] = []
        texts: list[Shape] = []
        steps = self.scan.steps()
        for cell in itertools.product(*(range(a, b) for a, b in zip(self.low, self.high, strict=True))):
            at = self.on_canvas(cell)
            if not all(0 <= c < track.o for c, track in zip(cell, self.layer.tracks, strict=True)):
                cells.append(self.box(at, _CUT, data={"cut": _key(cell)}))
                continue
            cells.append(self.box(at, _EMPTY, data={"output": _key(cell)}))
            written = sorted((_flat(j, self.layer.size), w, j) for w, j in self.layer.reads(cell))
            if written:
                cells.append(self.box(at, _DONE, when=tuple(range(written[0][0], steps))))
            total, ends = 0, [*(step for step, _, _ in written[1:]), steps]
            for (step, weight, source), end in zip(written, ends, strict=False):
                if self.values is not None:
                    product = self.values.x[source] * self.values.w[weight]
                    total = total + product
                    texts.append(self._number(at, total, "ink", high=True, when=tuple(range(step, end))))
                    texts.append(self._added(at, product, step))
        return cells, texts

    def _slot(self, at: Point, weight: Position) -> list[Shape]:
        """Return the number of a weight; of values, the products beside the sums say more."""
        return [] if self.values is not None else super()._slot(at, weight)

    def _added(self, at: Point, product: Any, step: int) -> Words:
        """Return what a step adds to a cell, in its corner."""
        side, text = self.pitch - _GAP, spelled(product)
        text = text if text.startswith("−") else f"+{text}"
        look = Look(fill="ink", size=max(8.0, 0.27 * self.pitch), bold=True, align="end")
        return Words(at[0] + side - 3, at[1] + side - 3.5, text, look=look, when=(step,), data={"added": text})

    def _outputs(self) -> Iterator[Shape]:
        """Yield the inputs."""
        for source in self.scan.outputs():
            at = self.spot(self.output, source, self.scan.output[-1])
            yield self.box(at, _INPUT, data={"input": _key(source)})
            if self.values is not None:
                yield self._number(at, self.values.x[source], "ink")

    def _status(self, place: Position, spot: str, count: int, total: int) -> str:
        """Say what the step writes: ``count`` of ``total`` products fall on an output."""
        value = "" if self.values is None else f" = {spelled(self.values.x[place])}"
        cut = "" if count == total else f", {total - count} of {total} products are cut off"
        return f"input {spot}{value} is added to {count} outputs{cut}"

    def _legend(self) -> list[tuple[Look, str]]:
        """Return an entry for each look that occurs in this picture."""
        entries = [
            (_INPUT, "input"),
            (_TAP, "added now: weight × input" if self.values is not None else "weights, numbered"),
        ]
        if any(max(track.p) > 0 for track in self.scan.tracks):
            entries.append((_CUT, "cut off"))
        return [*entries, (_EMPTY, "nothing yet"), (_DONE, "written")]


def _key(position: Sequence[int]) -> str:
    return ",".join(map(str, position))
