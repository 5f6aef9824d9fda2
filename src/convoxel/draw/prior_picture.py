"""A fully connected layer beside the nearest convolution, and the order of a tensor's numbers in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from convoxel.draw.board import CELL, TAP, Board, Frame, Grid
from convoxel.draw.figure import Figure
from convoxel.draw.quantity import percent, sizes
from convoxel.draw.scan import Scan
from convoxel.errors import ConfigError, ShapeError

_MOST = 360


def prior(
    size: int | Sequence[int] = (3, 3),
    kernel: int | Sequence[int] = 2,
    *,
    matrix: ArrayLike | None = None,
    seed: int = 0,
) -> Figure:
    """Return a matrix beside the convolution nearest to it: an "infinitely strong prior" keeps diagonals constant.

    Args:
        size: input size of every axis.
        kernel: kernel size of the convolution (default 2).
        matrix: (outputs, inputs) of the fully connected layer (default: random numbers).
        seed: random seed of the matrix (default 0).

    Raises:
        ConfigError: the matrix would be too large to draw.
        ShapeError: the matrix has another shape, or the kernel does not fit.

    >>> prior((3, 3), 2, matrix=np.ones((4, 9))).text
    'The nearest convolution to the 4 × 9 matrix differs by 74.5 % of its norm.'
    """
    import torch

    from convoxel.nn.functional import project_to_convolution

    scan = Scan.of(size, kernel)
    rows, columns = scan.steps(), int(np.prod(scan.size))
    if rows * columns > _MOST:
        raise ConfigError(f"prior: {rows} × {columns} numbers are too many to read; up to {_MOST} are drawn.")
    whole = np.random.default_rng(seed).integers(-9, 10, (rows, columns)) if matrix is None else np.asarray(matrix)
    if whole.shape != (rows, columns):
        raise ShapeError(f"prior: matrix has shape {whole.shape}; expected {(rows, columns)}.")
    found = project_to_convolution(torch.as_tensor(whole.astype(np.float64)), scan.size, scan.kernel)
    weights = found.weight.numpy().reshape(scan.kernel)
    near = np.zeros((rows, columns))
    marks: dict[tuple[int, ...], str] = {}
    for row, output in enumerate(scan.outputs()):
        for weight, source in scan.reads(output):
            place = row, int(np.ravel_multi_index(source, scan.size))
            near[place] = round(float(weights[weight]), 3) + 0.0
            marks[place] = ""
    grids = [
        Grid(f"fully connected {rows} × {columns}: {rows * columns} weights", whole),
        Grid(f"nearest convolution: {weights.size} weights", near),
    ]
    share = float(np.linalg.norm(whole - near) / (np.linalg.norm(whole) or 1.0))
    text = f"The nearest convolution to the {rows} × {columns} matrix differs by {percent(share)} of its norm."
    lines = ["Every weight becomes the mean of the entries that share it; entries outside of the kernel become zero."]
    board = Board("A convolution is a fully connected layer under an infinitely strong prior", lines, grids)
    entries = [(CELL, "zero, or free"), (TAP, "entries that share weights")]
    return board.figure([Frame(text, (marks, marks))], text, entries=entries)


def layout(channels: int = 3, size: int | Sequence[int] = (2, 3)) -> Figure:
    """Return the numbers of one image in the order of memory: channels first, N C H W, and last, N H W C.

    A number CP stands for channel C, pixel P, both counted from 1.

    Args:
        channels: number of channels (default 3).
        size: size of the image, one or two axes (default 2 × 3).

    Raises:
        ConfigError: there are more axes or numbers than are drawn.

    >>> layout(2, 3).text
    'N C L: 11, 12, 13, 21, 22, 23. N L C: 11, 21, 12, 22, 13, 23.'
    """
    lengths = (size,) if isinstance(size, int) else tuple(size)
    pixels = int(np.prod(lengths))
    if not 1 <= len(lengths) <= 2 or not 1 <= channels <= 9 or not 1 <= pixels <= 9:
        raise ConfigError(f"layout: got {channels} channels of {lengths}; up to 9 of up to 9 pixels are drawn.")
    numbers = 10 * np.arange(1, channels + 1)[:, None] + np.arange(1, pixels + 1)
    axes = ["L"] if len(lengths) == 1 else ["H", "W"]
    first, last = " ".join(["N", "C", *axes]), " ".join(["N", *axes, "C"])
    grids = (
        [Grid(f"channel {n + 1}", numbers[n].reshape(lengths)) for n in range(channels)] if len(lengths) == 2 else []
    )
    orders = [numbers.ravel(), numbers.T.ravel()]
    rows = [Grid(f"{name} in memory", order) for name, order in zip((first, last), orders, strict=True)]
    marks: list[dict[tuple[int, ...], str]] = [
        {place: "" for place in np.ndindex(grid.values.shape) if grid.values[place] // 10 == 1}
        for grid in (*grids, *rows)
    ]
    board = Board(f"{channels} channels of {sizes(lengths)} in memory", [f"{first} (PyTorch) and {last} (TensorFlow)."],
                  [*grids, *rows])  # fmt: skip
    text = ". ".join(f"{name}: {', '.join(map(str, order))}" for name, order in zip((first, last), orders, strict=True))
    says = "numbers of the first channel: together where channels come first, one in each pixel where they come last"
    return board.figure([Frame(says, tuple(marks))], f"{text}.", entries=[(CELL, "numbers"), (TAP, "first channel")])
