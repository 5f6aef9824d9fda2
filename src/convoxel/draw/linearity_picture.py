"""The matrix of an interpolation, and any operator asked whether it is linear: f(2u + v) beside 2 f(u) + f(v)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from convoxel.draw.board import CELL, DONE, MOST_FRAMES, PADDING, TAP, Board, Frame, Grid, Place, joined, small_numbers
from convoxel.draw.figure import Figure
from convoxel.draw.quantity import sizes, spelled
from convoxel.draw.sampling_picture import given_values, interpolated_sizes, interpolation
from convoxel.errors import ConfigError, check_choice
from convoxel.files.values import Array

_MOST = 400  # numbers of a matrix that are read
_RESIZES = ("nearest", "linear", "cubic", "spline", "area")
# Words of ``linearity``; interpolations double every size.
OPERATORS = (*_RESIZES, "convolution", "bias", "average_pool", "max_pool", "relu")
_NAMES: Mapping[str, str] = {
    **{word: f"{word} interpolation" for word in _RESIZES},
    "convolution": "convolution", "bias": "convolution with a bias", "average_pool": "average pooling",
    "max_pool": "max pooling", "relu": "the rectifier (ReLU)",
}  # fmt: skip


def resize_matrix(
    size: int | Sequence[int] = (2, 2),
    to: int | Sequence[int] = (4, 4),
    *,
    mode: str = "linear",
    order: int = 3,
    align_corners: bool = False,
    x: ArrayLike | None = None,
    step_s: float = 0.9,
) -> Figure:
    """Return an interpolation as a matrix, y = R x, one frame for each row; arguments as of ``draw.resize``.

    Args:
        size: input size of every axis, one to three of them.
        to: wanted size.
        mode: a word of ``nn.functional.RESIZE_MODES`` (default "linear").
        order: order of a spline (default 3); its weights are those after the prefilter.
        align_corners: whether the outermost elements keep their positions (default False).
        x: values of the input, of shape ``size`` (default: small whole numbers).
        step_s: seconds of one frame.

    Raises:
        ConfigError: the mode is not known, or the matrix has more numbers than anyone would read.
        ShapeError: the values have another shape.

    >>> resize_matrix(2, 4, x=[0, 4]).text
    'Interpolation (linear) of 2 to 4 as a matrix of 4 × 2, 6 of 8 entries not zero; every row sums to 1.'
    """
    lengths, wanted = interpolated_sizes(size, to, mode)
    rows, columns = math.prod(wanted), math.prod(lengths)
    if rows * columns > _MOST or rows > MOST_FRAMES:
        raise ConfigError(
            f"resize: the matrix from {sizes(lengths)} to {sizes(wanted)} has {rows} × {columns} numbers; up to "
            f"{_MOST} are read. Give smaller sizes, or leave the matrix out."
        )
    values = given_values("resize", x, lengths)
    matrix, word = interpolation(lengths, wanted, mode, order, align_corners)
    held = np.abs(matrix) > 1e-9
    result = matrix @ values.ravel().astype(np.float64)
    grids = [
        Grid(f"R {rows} × {columns}", np.where(held, _tidy(matrix), np.nan)),
        Grid("x", values.reshape(-1, 1)),
        Grid("y = R x", _tidy(result).reshape(-1, 1), result=True),
    ]
    board = Board(
        f"Interpolation ({word}) as a matrix, {sizes(lengths)} to {sizes(wanted)}",
        ["The weights depend on the places alone, not on the values: interpolation is a linear operation."],
        grids,
        least_pitch=42.0 if rows <= 16 else 34.0,
    )
    frames: list[Frame] = []
    for row, output in enumerate(itertools.product(*map(range, wanted))):
        places = [int(place) for place in np.flatnonzero(held[row])]
        terms = " + ".join(f"{spelled(_short(matrix[row, p]))}·{spelled(values.flat[p])}" for p in places[:9])
        more = " + …" if len(places) > 9 else ""
        marks: tuple[dict[Place, str], ...] = (
            {(row, p): "" for p in places}, {(p, 0): "" for p in places}, {(row, 0): ""}
        )  # fmt: skip
        frames.append(Frame(f"output {joined(output)} = {terms}{more} = {spelled(_short(result[row]))}", marks))
    sums = "every row sums to 1" if np.allclose(matrix.sum(axis=1), 1) else "rows do not all sum to 1"
    text = f"Interpolation ({word}) of {sizes(lengths)} to {sizes(wanted)} as a matrix of {rows} × {columns}, "
    text += f"{int(held.sum())} of {held.size} entries not zero; {sums}."
    entries = [(CELL, "weights, inputs"), (PADDING, "zero"), (TAP, "row of the output"), (DONE, "output")]
    return board.figure(frames, text, entries=entries, step_s=step_s)


def linearity(operator: str = "linear", size: int | Sequence[int] = (4, 4), *, seed: int = 0) -> Figure:
    """Return f(2u + v) beside 2 f(u) + f(v) for two inputs: an operator is linear if they are equal for all.

    The answer is that of :func:`convoxel.inspect.linearity`; the cells that differ prove a "no".

    Args:
        operator: "nearest", "linear", "cubic", "spline" or "area" (interpolation to twice the size), "convolution",
            "bias" (a convolution with one), "average_pool", "max_pool" or "relu".
        size: size of the inputs, of one to three axes.
        seed: random seed of the second input (default 0).

    Raises:
        ConfigError: the operator is not known, or there are more cells than anyone would read.

    >>> linearity("linear", 3).text
    'Linear interpolation is linear: f(2u + v) = 2 f(u) + f(v), here in all 6 numbers.'
    >>> linearity("max_pool", (4, 4)).text
    'Max pooling is not linear: f(2u + v) and 2 f(u) + f(v) differ in 3 of 4 numbers.'
    """
    import torch

    from convoxel import inspect

    check_choice("operator", operator, OPERATORS)
    lengths = (size,) if isinstance(size, int) else tuple(size)
    if not 1 <= len(lengths) <= 3 or min(lengths) < 1:
        raise ConfigError(f"size: got {lengths}; expected one to three sizes of at least 1, such as (4, 4).")
    apply = _operator(operator, lengths)
    u = small_numbers(lengths)
    v = np.random.default_rng(seed).integers(-3, 4, lengths)
    f = {name: _run(apply, each) for name, each in (("u", u), ("v", v), ("sum", 2 * u + v))}
    separate = 2 * f["u"] + f["v"]
    differ = np.abs(f["sum"] - separate) > 1e-9
    report = inspect.linearity(apply, torch.as_tensor(u.astype(np.float64))[None, None] - 1.3)
    name = _NAMES[operator]
    kind = "linear" if report.linear else "affine, linear but for a constant" if report.affine else "not linear"
    told = f"here in all {differ.size} numbers" if not differ.any() else ""
    says = (
        f"f(2u + v) = 2 f(u) + f(v), {told}"
        if told
        else f"f(2u + v) and 2 f(u) + f(v) differ in {int(differ.sum())} of {differ.size} numbers"
    )
    text = f"{name[0].upper()}{name[1:]} is {kind}: {says}."
    answer = "yes" if report.linear else "no"
    grids = [
        Grid("u", u), Grid("v", v), Grid("f(2u + v)", _tidy(f["sum"])), Grid("2 f(u) + f(v)", _tidy(separate)),
    ]  # fmt: skip
    marks = {tuple(int(i) for i in place): "" for place in np.argwhere(differ)}
    board = Board(f"Is {name} a linear operation? {answer.capitalize()}", [f"{says}."], grids)
    sentence = "one input that differs is enough for no; yes holds for all inputs: a matrix computes it"
    entries = [(CELL, "numbers"), *([(TAP, "where they differ")] if marks else [])]
    return board.figure([Frame(sentence, ({}, {}, marks, marks))], text, entries=entries)


def _operator(operator: str, lengths: tuple[int, ...]) -> Callable[[Any], Any]:
    """Return the function of a tensor (1, 1, …) that a word stands for."""
    import torch

    from convoxel.nn import functional

    axes = len(lengths)
    if operator in _RESIZES:
        return lambda x: functional.resize(x, [2 * n for n in lengths], mode=operator)
    if operator in ("convolution", "bias"):
        kernel = torch.arange(1.0, 1 + 2**axes, dtype=torch.float64).reshape(1, 1, *(2,) * axes)
        bias = torch.ones(1, dtype=torch.float64) if operator == "bias" else None
        return lambda x: functional.correlate(
            x, kernel.to(x.dtype), None if bias is None else bias.to(x.dtype), padding="same"
        )
    pools: dict[str, Callable[..., Any]] = {"average_pool": functional.average_pool, "max_pool": functional.max_pool}
    if operator in pools:
        window = [min(2, n) for n in lengths]
        return lambda x: pools[operator](x, window)
    return torch.relu


def _run(apply: Callable[[Any], Any], values: Array) -> Array:
    import torch

    found: Array = apply(torch.as_tensor(values.astype(np.float64))[None, None])[0, 0].numpy()
    return found


def _short(value: float) -> float:
    """Return a number with three digits, without the last bits of its sums."""
    return float(f"{round(float(value), 9):.3g}") + 0.0


def _tidy(values: Array) -> Array:
    """Return numbers with the two decimals that a cell has room for."""
    rounded: Array = np.round(np.asarray(values, np.float64), 2) + 0.0
    return rounded
