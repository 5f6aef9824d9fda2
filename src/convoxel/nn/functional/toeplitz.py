"""The structure of a convolution's matrix: constant along its diagonals, on every level of its blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from torch import Tensor

from convoxel.annotation import fits
from convoxel.errors import ConfigError, ShapeError, check_choice
from convoxel.files.fault import brief
from convoxel.nn.functional.arguments import axes_of, check_sizes
from convoxel.nn.functional.correlation import Sizes
from convoxel.nn.functional.matrix import Array, Matrix, check_matrix

_LEVELS = ("", "", "doubly block ", "triply block ")


@dataclass(frozen=True)
class ToeplitzStructure:
    """The result of :func:`toeplitz_structure`.

    Attributes:
        kind: ``"Toeplitz"``, ``"circulant"`` (its diagonals go on at the other side), or ``"none"``.
        levels: spatial axes; a matrix of two is a Toeplitz matrix of Toeplitz matrices.
        blocks: channels (out, in), each pair with a structure of its own.
        diagonals: how many diagonals are not zero.
        reach: for each axis the lowest and highest q − s p of those, the width of the band.
        deviation: largest difference between two elements of a diagonal.
    """

    kind: str
    levels: int
    blocks: tuple[int, int]
    diagonals: int
    reach: tuple[tuple[int, int], ...]
    deviation: float

    def __bool__(self) -> bool:
        return self.kind != "none"

    def __str__(self) -> str:
        many = f"{self.blocks[0]}×{self.blocks[1]} blocks, each " if self.blocks != (1, 1) else ""
        if not self:
            return f"not Toeplitz: elements of one diagonal differ by up to {self.deviation:.3g}"
        bands = ", ".join(f"{low} … {high}" for low, high in self.reach)
        return f"{many}{_LEVELS[self.levels]}{self.kind}: {self.diagonals} diagonals, offsets {bands}"


def toeplitz_structure(
    matrix: Matrix, size: Sizes, output_size: Sizes, *, stride: Sizes = 1, order: str = "row", tolerance: float = 0.0
) -> ToeplitzStructure:
    """Return the structure of ``matrix``: whether it is constant along diagonals, its blocks and its diagonals.

    M[(o, p), (c, q)] may depend on o, c and q − s p alone; circulant: on that modulo the size of the axis. A matrix
    of a convolution is Toeplitz for one spatial axis, doubly block Toeplitz for two.

    Args:
        matrix: ``(o · ∏output_size, c · ∏size)``, sparse (SciPy) or dense (NumPy or PyTorch).
        size: spatial size of the input, one for each axis (an int for 1-D).
        output_size: spatial size of the output, likewise.
        stride: s, by which diagonals move to the right for each row (default 1).
        order: order of the elements, ``"row"`` (default) or ``"column"``.
        tolerance: largest difference of the elements of a diagonal (default 0).

    Raises:
        ShapeError: the matrix is not made of blocks of these sizes. ConfigError: an argument is unknown.

    >>> print(toeplitz_structure(np.array([[1, 2, 0, 0], [0, 1, 2, 0], [0, 0, 1, 2]]), 4, 3))
    Toeplitz: 2 diagonals, offsets 0 … 1
    >>> print(toeplitz_structure(np.array([[1, 2], [3, 4]]), 2, 2))
    not Toeplitz: elements of one diagonal differ by up to 3
    """
    from scipy import sparse

    name = "toeplitz_structure"
    check_matrix(name, matrix)
    check_choice(f"{name}: order", order, ("row", "column"))
    if not (fits(tolerance, float) and tolerance >= 0):
        raise ConfigError(f"{name}: tolerance is {brief(tolerance)}, but it must be a number of at least 0.")
    dims = axes_of(name, "size", size)
    sizes, outputs = check_sizes(name, "size", size, dims), check_sizes(name, "output_size", output_size, dims)
    strides = check_sizes(name, "stride", stride, dims)
    if isinstance(matrix, Tensor):
        matrix = matrix.detach().cpu().to_dense().numpy()
    entries = sparse.coo_array(matrix)
    entries.sum_duplicates()
    blocks = entries.shape[0] // math.prod(outputs), entries.shape[1] // math.prod(sizes)
    if entries.shape != (blocks[0] * math.prod(outputs), blocks[1] * math.prod(sizes)) or 0 in blocks:
        raise ShapeError(
            f"{name}: the matrix is {entries.shape}, which is not made of blocks of "
            f"{math.prod(outputs)}×{math.prod(sizes)} (output_size {outputs}, size {sizes}). Give the sizes "
            "it was made for."
        )
    flag: Literal["C", "F"] = "C" if order == "row" else "F"
    o, *p = np.unravel_index(entries.row, (blocks[0], *outputs), order=flag)
    c, *q = np.unravel_index(entries.col, (blocks[1], *sizes), order=flag)
    steps = [b - s * a for a, b, s in zip(p, q, strides, strict=True)]
    found = []
    for kind in ("Toeplitz", "circulant"):
        deviation, (diagonals, reach) = _deviation(
            entries.data, (o, c), steps, sizes, outputs, strides, kind == "circulant"
        )
        found.append(ToeplitzStructure(kind, dims, blocks, diagonals, tuple(reach), deviation))
    plain, ring = found
    # Every circulant matrix is a Toeplitz matrix; it is called circulant where diagonals do go on at the other side.
    if ring.deviation <= tolerance and (ring.diagonals < plain.diagonals or plain.deviation > tolerance):
        return ring
    return plain if plain.deviation <= tolerance else replace(plain, kind="none")


def _deviation(
    values: Array,
    channels: tuple[Array, Array],
    steps: Sequence[Array],
    sizes: Sequence[int],
    outputs: Sequence[int],
    strides: Sequence[int],
    wraps: bool,
) -> tuple[float, tuple[int, list[tuple[int, int]]]]:
    """Return the largest difference within a diagonal, the number of diagonals and the range of their offsets."""
    steps = [step % i if wraps else step for step, i in zip(steps, sizes, strict=True)]
    keys = np.stack([*channels, *steps], axis=1)[values != 0]
    values = values[values != 0]
    if not len(values):
        return 0.0, (0, [(0, 0)] * len(sizes))
    diagonals, which = np.unique(keys, axis=0, return_inverse=True)
    which = which.reshape(-1)
    low, high = np.full(len(diagonals), np.inf), np.full(len(diagonals), -np.inf)
    np.minimum.at(low, which, values)
    np.maximum.at(high, which, values)
    # A diagonal that is longer than its stored elements holds zeros too.
    length = np.ones(len(diagonals), np.int64)
    for axis, (i, o, s) in enumerate(zip(sizes, outputs, strides, strict=True)):
        column = np.arange(i)[None] - s * np.arange(o)[:, None]
        offset, count = np.unique(column % i if wraps else column, return_counts=True)
        length *= count[np.searchsorted(offset, diagonals[:, 2 + axis])]
    holes = np.bincount(which, minlength=len(diagonals)) < length
    low, high = np.where(holes, np.minimum(low, 0), low), np.where(holes, np.maximum(high, 0), high)
    reach = [(int(column.min()), int(column.max())) for column in diagonals[:, 2:].T]
    distinct = np.unique(diagonals[:, 2:], axis=0)
    return float((high - low).max()), (len(distinct), reach)
