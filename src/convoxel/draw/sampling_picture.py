"""Down-sampling and up-sampling with numbers: pooling, un-pooling, interpolation, and channels shuffled into pixels.

The numbers of a result are those of ``nn.functional``; what an output reads, and the weights through which it reads,
come from the same arithmetic. Frames show one output each.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convoxel.arithmetic import pool_size, resolve_padding
from convoxel.arithmetic.window import Pair
from convoxel.draw.board import CELL, DONE, PADDING, TAP, Board, Frame, Grid, Place, joined, small_numbers
from convoxel.draw.figure import Figure
from convoxel.draw.quantity import sizes, spelled
from convoxel.draw.scan import Scan, each_axis, pooled
from convoxel.errors import ConfigError, ShapeError, check_choice
from convoxel.files.values import Array

POOLS = ("max", "average")
Numbers = int | Sequence[int]


def pool(
    size: Numbers = (4, 4),
    kernel: Numbers = 2,
    stride: Numbers | None = None,
    padding: str | int | Sequence[int] | Sequence[Pair] = 0,
    dilation: Numbers = 1,
    *,
    kind: str = "max",
    ceil: bool = False,
    count_include_pad: bool = True,
    x: ArrayLike | None = None,
    step_s: float = 0.9,
) -> Figure:
    """Return a pooling window that moves over numbers, one frame for each output.

    Args:
        size: input size of every axis, one to three of them.
        kernel: kernel size, of all axes or of every axis (default 2).
        stride: stride, of all axes or of every axis (default: the kernel size).
        padding: a word of ``arithmetic.PADDING_WORDS``, or numbers as ``arithmetic.resolve_padding`` takes (default 0).
        dilation: dilation, of all axes or of every axis (default 1).
        kind: "max" or "average".
        ceil: whether a last window may reach beyond the end (default False).
        count_include_pad: whether zeros of the padding count in an average (default True).
        x: values of the input, of shape ``size`` (default: small whole numbers).
        step_s: seconds of one frame.

    Raises:
        ConfigError: an option that is not known, or more cells than anyone would watch.
        ShapeError: the window does not fit, or the values have another shape.

    >>> figure = pool((4, 4), x=[[12, 20, 30, 0], [8, 12, 2, 0], [34, 70, 37, 4], [112, 100, 25, 12]])
    >>> figure.title, figure.frames, figure.text
    ('Max pooling, kernel 2 × 2, stride 2', 4, 'A max pooling of 4 × 4 numbers: 20, 30, 112, 37.')
    """
    check_choice("kind", kind, POOLS)
    scan, given = pool_scan(size, kernel, stride, padding, dilation, ceil)
    values = given_values("pool", x, scan.size)
    by_place = {place: values[place] for place in np.ndindex(scan.size)}
    result = np.array([*pooled(scan, given, by_place, kind, count_include_pad).values()]).reshape(scan.output)
    first = tuple(-max(track.p[0], 0) for track in scan.tracks)
    grids = [
        Grid(f"input {sizes(scan.size)}", _padded(values, [track.p for track in scan.tracks]), first=first),
        Grid(f"output {sizes(scan.output)}", result, result=True),
    ]
    name = {"max": "Max pooling", "average": "Average pooling"}[kind]
    title = f"{name},{scan.sentence().partition(',')[2]}".removesuffix(", no padding")
    title += ", rounded up" if ceil else ""
    board = Board(title, _equations(scan), grids)
    frames = []
    for output in scan.outputs():
        read = [source for _, source in scan.reads(output)]
        window = _window(scan, output, first)
        best = max(read, key=lambda source: values[source], default=None) if kind == "max" else None
        marks = {cell: "max" if best is not None and _shift(best, first) == cell else "" for cell in window}
        terms = ", ".join(spelled(values[source]) for source in read[:16]) + (", …" if len(read) > 16 else "")
        word = "max" if kind == "max" else "mean"
        zeros = len(window) - len(read) if kind == "average" and count_include_pad else 0
        also = f" and {zeros} zero{'s' * (zeros > 1)}" if zeros > 0 else ""
        says = f"output {joined(output)} = {word}({terms}){also} = {spelled(result[output])}"
        frames.append(Frame(says, (marks, {output: ""})))
    entries = [(CELL, "input"), (TAP, "the window"), (DONE, "output")]
    if np.isnan(grids[0].values).any():
        entries.insert(1, (PADDING, "padding"))
    text = f"A{'n' * (kind == 'average')} {name.lower()} of {sizes(scan.size)} numbers: "
    text += ", ".join(spelled(value) for value in result.ravel()[:64]) + "."
    return board.figure(frames, text, entries=entries, step_s=step_s)


def pool_scan(
    size: Numbers,
    kernel: Numbers,
    stride: Numbers | None,
    padding: str | int | Sequence[int] | Sequence[Pair],
    dilation: Numbers = 1,
    ceil: bool = False,
) -> tuple[Scan, tuple[Pair, ...]]:
    """Return the reads of a pooling and its padding as given; rounding up adds padding behind the last window."""
    lengths = (size,) if isinstance(size, int) else tuple(size)
    k, s, d = (
        each_axis(name, value, len(lengths))
        for name, value in (
            ("kernel", kernel),
            ("stride", kernel if stride is None else stride),
            ("dilation", dilation),
        )
    )
    given = resolve_padding(padding, k, s, d, lengths)
    pairs = given
    if ceil:
        outputs = map(pool_size, lengths, k, s, given, d, (True,) * len(lengths))
        pairs = tuple(
            (before, max(after, step * (o - 1) + apart * (wide - 1) + 1 - i - before))
            for i, wide, step, apart, o, (before, after) in zip(lengths, k, s, d, outputs, given, strict=True)
        )
    return Scan.of(lengths, k, s, pairs, d), given


def unpool(
    size: Numbers = (4, 4),
    kernel: Numbers = 2,
    *,
    mode: str = "indices",
    position: Numbers = 0,
    x: ArrayLike | None = None,
    step_s: float = 0.9,
) -> Figure:
    """Return a max pooling and its un-pooling, one frame for each pooled value.

    Args:
        size: input size of every axis, one to three of them; the kernel divides it.
        kernel: kernel size and stride, of all axes or of every axis (default 2).
        mode: "indices" (to the place of the largest value), "fixed" (to one place of the window, zeros elsewhere: "bed
            of nails"), "nearest" (to every place) or "average" (to every place, divided by their number).
        position: place in the window for "fixed" (default 0).
        x: values of the input, of shape ``size`` (default: small whole numbers).
        step_s: seconds of one frame.

    Raises:
        ConfigError: the mode is not known.
        ShapeError: the kernel does not divide the size, or the values have another shape.

    >>> unpool((2, 4), x=[[1, 2, 0, 0], [0, 0, 5, 0]]).text
    'Un-pooled to the place of each largest value: 0, 2, 0, 0, 0, 0, 5, 0.'
    """
    from convoxel.nn import functional

    check_choice("mode", mode, functional.UNPOOL_MODES)
    scan, _ = pool_scan(size, kernel, None, 0)
    if any(track.i % track.k for track in scan.tracks):
        raise ShapeError(f"unpool: size {scan.size} is no multiple of kernel {scan.kernel}. Give multiples.")
    axes, values = len(scan.size), given_values("unpool", x, scan.size)
    places_in_window = each_axis("position", position, axes, 0)
    tensor = _tensor(values)
    pooled, indices = functional.max_pool(tensor, scan.kernel, return_indices=True, dims=axes)
    chosen = indices if mode == "indices" else None
    spread = functional.unpool(pooled, scan.kernel, mode=mode, indices=chosen, position=places_in_window, dims=axes)
    y, small, places = spread[0, 0].numpy(), pooled[0, 0].numpy(), indices[0, 0].numpy()
    grids = [
        Grid(f"input {sizes(scan.size)}", values),
        Grid(f"pooled {sizes(scan.output)}", small, result=True),
        Grid(f"un-pooled {sizes(scan.size)}", y, result=True),
    ]
    says = {
        "indices": "to the place of each largest value",
        "fixed": f"to place {joined(places_in_window)} of each window",
        "nearest": "to every place of each window",
        "average": "to every place of each window, divided by their number",
    }[mode]
    board = Board(f"Max pooling and un-pooling {says}", ["Pooling forgets where it took a value from."], grids)
    frames = []
    for output in scan.outputs():
        window = {source: "" for _, source in scan.reads(output)}
        from_ = tuple(int(i) for i in np.unravel_index(places[output], scan.size))
        told = f"{spelled(small[output])} came from {joined(from_)}"
        back = [place for place in window if y[place] != 0] if mode != "indices" else [from_]
        goes = joined(back[0]) if len(back) == 1 else "every place of its window" if back else "no place"
        frames.append(Frame(f"{told} and goes to {goes}", ({**window, from_: "max"}, {output: ""}, dict(window))))
    entries = [(CELL, "input"), (TAP, "the window"), (DONE, "pooled, un-pooled")]
    text = f"Un-pooled {says}: {', '.join(spelled(value) for value in y.ravel()[:64])}."
    return board.figure(frames, text, entries=entries, step_s=step_s)


def interpolated_sizes(size: Numbers, to: Numbers, mode: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return input size and wanted size of every axis, of an interpolation that is known."""
    from convoxel.nn import functional

    check_choice("mode", mode, functional.RESIZE_MODES)
    lengths = (size,) if isinstance(size, int) else tuple(size)
    return lengths, each_axis("to", to, len(lengths))


def interpolation(
    lengths: Sequence[int], wanted: Sequence[int], mode: str, order: int, align_corners: bool
) -> tuple[NDArray[np.float64], str]:
    """Return the matrix (outputs, inputs) of an interpolation, and its name."""
    from convoxel.nn import functional

    options: dict[str, Any] = {"mode": mode, "order_of_spline": order, "align_corners": align_corners}
    matrix = np.asarray(functional.resize_matrix(lengths, wanted, form="dense", **options), np.float64)
    name = f"spline of order {order}" if mode == "spline" else mode
    return matrix, name + (", corners aligned" if align_corners else "")


def resize(
    size: Numbers = (3, 3),
    to: Numbers = (6, 6),
    *,
    mode: str = "linear",
    order: int = 3,
    align_corners: bool = False,
    x: ArrayLike | None = None,
    step_s: float = 0.9,
) -> Figure:
    """Return an interpolation with its weights, one frame for each output.

    Args:
        size: input size of every axis, one to three of them.
        to: wanted size.
        mode: a word of ``nn.functional.RESIZE_MODES`` (default "linear").
        order: order of a spline (default 3); its weights are those after the prefilter.
        align_corners: whether the outermost elements keep their positions (default False).
        x: values of the input, of shape ``size`` (default: small whole numbers).
        step_s: seconds of one frame.

    Raises:
        ConfigError: the mode is not known, or more cells than anyone would watch.
        ShapeError: the values have another shape.

    >>> resize(2, 4, x=[0, 4]).text
    'Interpolation (linear) of 2 numbers to 4: 0, 1, 3, 4.'
    """
    lengths, wanted = interpolated_sizes(size, to, mode)
    if math.prod(wanted) > 400 or math.prod(lengths) > 400:
        raise ConfigError(f"resize: {sizes(lengths)} to {sizes(wanted)} are too many numbers to watch; up to 400 are.")
    values = given_values("resize", x, lengths)
    matrix, word = interpolation(lengths, wanted, mode, order, align_corners)
    result = (matrix @ values.ravel().astype(np.float64)).reshape(wanted)
    lines = ["Every output is a weighted sum of inputs, so the map is linear: y = R x."]
    grids = [Grid(f"input {sizes(lengths)}", values), Grid(f"output {sizes(wanted)}", result, result=True)]
    board = Board(f"Interpolation ({word}), {sizes(lengths)} to {sizes(wanted)}", lines, grids)
    frames = []
    for row, output in zip(matrix, itertools.product(*map(range, wanted)), strict=True):
        weights = {
            tuple(int(i) for i in np.unravel_index(place, lengths)): float(row[place])
            for place in np.flatnonzero(np.abs(row) > 1e-9)
        }
        largest = sorted(weights, key=lambda place: -abs(weights[place]))[:9]
        terms = " + ".join(f"{_short(weights[p])}·{spelled(values[p])}" for p in sorted(largest))
        more = " + …" if len(weights) > len(largest) else ""
        marks = {place: f"×{_short(weight)}" for place, weight in weights.items()}
        says = f"output {joined(output)} = {terms}{more} = {spelled(_tidy(result[output]))}"
        frames.append(Frame(says, (marks, {output: ""})))
    grids[1] = Grid(grids[1].name, np.vectorize(_tidy)(result), result=True)
    board.grids = grids
    entries = [(CELL, "input"), (TAP, "read, with its weight"), (DONE, "output")]
    text = f"Interpolation ({word}) of {sizes(lengths)} numbers to {sizes(wanted)}: "
    text += ", ".join(spelled(_tidy(value)) for value in result.ravel()[:64]) + "."
    return board.figure(frames, text, entries=entries, step_s=step_s)


def shuffle(size: Numbers = (2, 2), factor: int = 2, *, step_s: float = 0.9) -> Figure:
    """Return up-sampling by a 1 × 1 convolution and a shuffle: every group of channels becomes a block of pixels.

    Args:
        size: size of the channels, one or two axes.
        factor: factor of every axis (default 2).
        step_s: seconds of one frame.

    Raises:
        ConfigError: more axes or cells than are drawn.

    >>> shuffle((2, 2), 2).text
    '4 channels of 2 × 2 become one of 4 × 4: 1, 5, 2, 6, 9, 13, 10, 14, 3, 7, 4, 8, 11, 15, 12, 16.'
    """
    from convoxel.nn import functional

    lengths = (size,) if isinstance(size, int) else tuple(size)
    if len(lengths) > 2 or not 1 <= factor <= 4:
        raise ConfigError(f"shuffle: got size {lengths} and factor {factor}; one or two axes and 1 to 4 are drawn.")
    channels = factor ** len(lengths)
    numbers = np.arange(1.0, 1 + channels * math.prod(lengths)).reshape(channels, *lengths)
    y = functional.pixel_shuffle(_tensor(numbers)[0], factor, dims=len(lengths))[0, 0].numpy()
    grids = [Grid(f"channel {n + 1}", numbers[n]) for n in range(channels)]
    grids.append(Grid(f"one channel {sizes(y.shape)}", y, result=True))
    lines = [f"A 1 × 1 convolution makes {channels} channels of each; the shuffle costs nothing and overlaps nowhere."]
    board = Board(f"Up-sampling by 1 × 1 convolution and shuffle, factor {factor}", lines, grids)
    frames = []
    for place in itertools.product(*map(range, lengths)):
        block = [tuple(p * factor + o for p, o in zip(place, offset, strict=True))
                 for offset in itertools.product(range(factor), repeat=len(lengths))]  # fmt: skip
        says = f"the {channels} channels at {joined(place)} become the block from {joined(block[0])} on"
        frames.append(Frame(says, (*({place: ""},) * channels, dict.fromkeys(block, ""))))
    text = f"{channels} channels of {sizes(lengths)} become one of {sizes(y.shape)}: "
    text += ", ".join(spelled(value) for value in y.ravel()[:64]) + "."
    entries = [(CELL, "channels"), (TAP, "one place"), (DONE, "its block of pixels")]
    return board.figure(frames, text, entries=entries, step_s=step_s)


def given_values(function: str, x: ArrayLike | None, shape: Place) -> Array:
    """Return values of a shape, wide enough to compute with; small whole numbers where there are none.

    Raises:
        ShapeError: they have another shape, or are no numbers.
    """
    if x is None:
        return small_numbers(shape)
    values = np.asarray(x)
    if values.shape != shape or values.dtype.kind not in "iufb":
        raise ShapeError(
            f"{function}: x has shape {values.shape} ({values.dtype}); expected numbers shaped {shape}. "
            "Give values of the size, or a size of the values."
        )
    return values.astype(np.float64 if values.dtype.kind == "f" else np.int64)


def _tensor(values: Array) -> Any:
    """Return numbers as a tensor (1, 1, …) of float64, as ``nn.functional`` takes it."""
    import torch

    return torch.as_tensor(values.astype(np.float64))[None, None]


def _padded(values: Array, pairs: Sequence[Pair]) -> Array:
    """Return the values with NaN around them, or with what a negative padding cuts off left out."""
    wide = np.pad(values.astype(np.float64), [(max(a, 0), max(b, 0)) for a, b in pairs], constant_values=np.nan)
    return wide if np.isnan(wide).any() else values


def _shift(place: Place, first: Place) -> Place:
    return tuple(p - f for p, f in zip(place, first, strict=True))


def _window(scan: Scan, output: Place, first: Place) -> list[Place]:
    """Return the cells of the padded grid that a window covers."""
    spans = [
        [track.start(o) + track.d * slot - f for slot in range(track.k)]
        for track, o, f in zip(scan.tracks, output, first, strict=True)
    ]
    return list(itertools.product(*spans))


def _equations(scan: Scan) -> list[str]:
    texts = [f"{track.i} → {track.o}:  {track.equation()}" for track in scan.tracks]
    if len(set(texts)) == 1:
        return [texts[0] + (f"  on each of {len(texts)} axes" if len(texts) > 1 else "")]
    return texts


def _short(weight: float) -> str:
    return f"{weight:.3g}".replace("-", "−")


def _tidy(value: float) -> float:
    """Return a number without the last bits of its sums."""
    return float(round(float(value), 9)) + 0.0
