"""A kernel as a sum of outer products: its singular values, its best approximations, and a norm that is held."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from convoxel.draw.board import CELL, DONE, TAP, Board, Frame, Grid
from convoxel.draw.figure import Figure
from convoxel.draw.quantity import listed, percent, sizes, spelled
from convoxel.errors import ConfigError, ShapeError
from convoxel.files.values import Array

SOBEL = ((1, 0, -1), (2, 0, -2), (1, 0, -1))
_MOST = 9


def separable(kernel: ArrayLike = SOBEL, rank: int | None = None) -> Figure:
    """Return a 2-D kernel, the vectors of its best outer product, and its approximations by rank.

    K = S₁ u₁ v₁ᵀ + S₂ u₂ v₂ᵀ + …; a kernel of rank 1 is separable, I * K = (I * u) * v (Eckart & Young 1936).

    Args:
        kernel: (rows, columns), up to 9 × 9 (default: Sobel's).
        rank: largest rank that is drawn (default: that of the kernel, at most 3).

    Raises:
        ShapeError: the kernel has other axes, or is too large to draw.
        ConfigError: the rank is below 1.

    >>> separable().text
    'Rank 1: separable, 9 → 6 weights. Singular values 3.46, 0, 0. u = (1, 2, 1), v = (1, 0, −1).'
    """
    from convoxel.inspect import separability

    values = np.asarray(kernel, np.float64)
    if values.ndim != 2 or not 1 <= max(values.shape) <= _MOST:
        raise ShapeError(f"separable: kernel has shape {values.shape}; expected (rows, columns) of up to {_MOST} each.")
    if rank is not None and rank < 1:
        raise ConfigError(f"rank: got {rank}; expected at least 1.")
    found = separability(values)
    (spectrum,) = found.spectra
    own = max(found.ranks)
    shown = min(rank or min(max(own, 1), 3), min(values.shape))
    left, right = (vector.numpy() for vector in found.vectors())
    left, right = _plain(left, right)
    says = f"Rank {own}: " + (
        f"separable, {found.freedom()} → {found.freedom(1)} weights"
        if own <= 1
        else f"not separable; the nearest separable kernel errs by {percent(_share(spectrum.error(1), values))}"
    )
    singular = ", ".join(spelled(round(value, 6) + 0.0) for value in spectrum.values)
    grids = [Grid(f"K {sizes(values.shape)}", values), Grid("u", _tidy(left)[:, None]), Grid("vᵀ", _tidy(right)[None])]
    for terms in range(1, shown + 1):
        near = found.best(terms).numpy()
        error = percent(_share(spectrum.error(terms), values))
        grids.append(Grid(f"rank {terms}: error {error}", _tidy(near)))
    vectors = f"u = ({', '.join(map(spelled, _tidy(left)))}), v = ({', '.join(map(spelled, _tidy(right)))})"
    text = f"{says}. Singular values {singular}. {vectors}."
    title = "Separable kernel: K = u vᵀ" if own <= 1 else f"Kernel of rank {own}, and its best separable ones"
    board = Board(title, [f"{says}.", f"Singular values {singular}."], grids)
    m, n = values.shape
    cost = f"cost at every pixel: {m} × {n} = {m * n} products, as {m} + {n} = {m + n} where it is separable"
    none: tuple[dict[tuple[int, ...], str], ...] = ({},) * len(grids)
    return board.figure([Frame(cost, none)], text, entries=[(CELL, "weights")])


def max_norm(
    kernels: ArrayLike = (((2, 1), (0, 2)), ((1, 0), (0, 1)), ((3, -1), (2, 1))), bound: float = 2.0
) -> Figure:
    """Return kernels before and after a hard constraint: those whose norm is above ``bound`` are scaled down to it.

    Args:
        kernels: (number, rows, columns), up to six.
        bound: largest norm (default 2).

    Raises:
        ShapeError: the kernels have other axes.
        ConfigError: the bound is no number above 0.

    >>> max_norm([[[3.0, 4.0]], [[0.0, 1.0]]], bound=2.5).text
    'Norms 5, 1 become 2.5, 1 under a bound of 2.5.'
    """
    import torch

    from convoxel.nn import MaxNorm, constrain

    values = np.asarray(kernels, np.float64)
    if values.ndim != 3 or not 1 <= len(values) <= 6:
        raise ShapeError(f"max_norm: kernels has shape {values.shape}; expected (1 to 6, rows, columns).")
    layer = torch.nn.Conv2d(1, len(values), values.shape[1:], bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(values)[:, None])
    constrain(layer, [MaxNorm(bound)])
    held = layer.weight.detach()[:, 0].numpy()
    norms = [[float(np.linalg.norm(kernel)) for kernel in each] for each in (values, held)]
    grids = [Grid(f"norm {spelled(round(n, 3))}", kernel) for n, kernel in zip(norms[0], values, strict=True)]
    grids += [
        Grid(f"norm {spelled(round(n, 3))}", np.round(kernel, 3), result=True)
        for n, kernel in zip(norms[1], held, strict=True)
    ]
    words = [", ".join(spelled(round(n, 3)) for n in each) for each in norms]
    lines = [
        "A soft constraint (weight decay) pulls all weights to zero; a hard one acts after each step, where needed."
    ]
    board = Board(f"Norm of each kernel held at {spelled(bound)} or less (MaxNorm)", lines, grids)
    longer = [number for number, n in enumerate(norms[0]) if n > bound]
    marks: list[dict[tuple[int, ...], str]] = [
        dict.fromkeys(np.ndindex(kernel.shape), "") if number in longer else {} for number, kernel in enumerate(values)
    ]
    after = [dict.fromkeys(np.ndindex(kernel.shape), "") for kernel in held]
    many = [f"kernel {number + 1}" for number in longer]
    says = f"{listed(many)} {'are' if len(many) > 1 else 'is'} scaled down" if many else "no kernel is too long"
    text = f"Norms {words[0]} become {words[1]} under a bound of {spelled(bound)}."
    entries = [(CELL, "before"), (TAP, "too long"), (DONE, "after the step")]
    return board.figure([Frame(says, (*marks, *after))], text, entries=entries)


def _share(error: float, values: Array) -> float:
    return round(error / (float(np.linalg.norm(values)) or 1.0), 9) + 0.0


def _plain(left: Array, right: Array) -> tuple[Array, Array]:
    """Return the vectors in such units that the smallest entry of the second is 1."""
    entries = np.abs(right)[np.abs(right) > 1e-9 * (np.abs(right).max() or 1.0)]
    unit = float(entries.min()) if entries.size else 1.0
    sign = -1.0 if left.sum() < 0 else 1.0
    return left * unit * sign, right / unit * sign


def _tidy(values: Array | Sequence[float]) -> Array:
    return np.asarray(np.round(values, 9) + 0.0)
