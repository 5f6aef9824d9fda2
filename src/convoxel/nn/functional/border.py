"""Padding of tensors: any number of elements at each side, any border values; negative numbers crop."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from convoxel.arithmetic.window import Pair
from convoxel.errors import ShapeError, check_choice

PADDING_MODES = ("zeros", "constant", "reflect", "replicate", "circular")


def check_mode(padding_mode: str) -> None:
    """Raise ConfigError unless ``padding_mode`` is known."""
    check_choice("padding_mode", padding_mode, PADDING_MODES)


def border_index(size: int, pair: Pair, padding_mode: str) -> NDArray[np.int64]:
    """Return for each element of a padded axis which element of the axis it repeats, −1 where none.

    ``reflect`` mirrors about the outermost element as often as it takes (period 2 (size − 1)), as ``numpy.pad`` does.

    Raises:
        ConfigError: the mode is not known. ShapeError: the axis is empty and there is nothing to repeat.

    >>> border_index(3, (3, 1), "reflect").tolist(), border_index(3, (1, -1), "zeros").tolist()
    ([1, 2, 1, 0, 1, 2, 1], [-1, 0, 1])
    """
    check_mode(padding_mode)
    place = np.arange(-pair[0], size + pair[1])
    if padding_mode in ("zeros", "constant"):
        return np.where((place >= 0) & (place < size), place, -1)
    if size < 1:
        raise ShapeError(f"an empty axis has nothing to repeat with padding_mode={padding_mode!r}. Use 'zeros'.")
    if padding_mode == "circular":
        return place % size
    if padding_mode == "replicate":
        return place.clip(0, size - 1)
    turn = place % max(2 * (size - 1), 1)
    return np.minimum(turn, 2 * (size - 1) - turn)


def pad(x: Tensor, pairs: Sequence[Pair], padding_mode: str = "zeros", value: float = 0.0) -> Tensor:
    """Return ``x`` with ``pairs[a]`` = (before, after) more elements along its last ``len(pairs)`` axes.

    Unlike in PyTorch, every mode takes any number of axes and any width (reflections repeat), and crops where a number
    is negative.

    Args:
        x: any tensor with at least ``len(pairs)`` axes.
        pairs: (before, after) for each of the last axes, in their order.
        padding_mode: ``"zeros"``, ``"constant"`` (``value``), ``"reflect"``, ``"replicate"`` or ``"circular"``.
        value: value outside for ``"constant"`` (default 0).

    Raises:
        ConfigError: ``padding_mode`` is not known.
        ShapeError: an axis is cropped away, or is empty and has nothing to repeat.

    >>> pad(torch.tensor([1.0, 2.0, 3.0]), [(2, 3)], "circular").tolist()
    [2.0, 3.0, 1.0, 2.0, 3.0, 1.0, 2.0, 3.0]
    """
    check_mode(padding_mode)
    for size, (before, after) in zip(x.shape[x.dim() - len(pairs) :], pairs, strict=True):
        if size + before + after < 0:
            raise ShapeError(f"padding ({before}, {after}) crops more than the {size} elements of an axis. Crop less.")
    if padding_mode in ("zeros", "constant"):
        outside = value if padding_mode == "constant" else 0.0
        flat = [side for pair in reversed(pairs) for side in pair]
        for part in ([max(side, 0) for side in flat], [min(side, 0) for side in flat]):
            if any(part):  # first what is added: a crop on one side may reach into it
                x = F.pad(x, part, value=outside)
        return x
    if _native(x, pairs, padding_mode):
        return F.pad(x, [side for pair in reversed(pairs) for side in pair], mode=padding_mode)
    for axis, pair in enumerate(pairs, start=x.dim() - len(pairs)):
        if any(pair):
            index = torch.from_numpy(border_index(x.shape[axis], pair, padding_mode)).to(x.device)
            x = x.index_select(axis, index)
    return x


def _native(x: Tensor, pairs: Sequence[Pair], padding_mode: str) -> bool:
    """Return True if PyTorch pads so: all axes but batch and channels, no crop, each element at most once a side."""
    if x.dim() - len(pairs) not in (1, 2) or len(pairs) > 3 or min(min(pair) for pair in pairs) < 0:
        return False
    most = {"reflect": -1, "circular": 0}.get(padding_mode)
    sizes = x.shape[x.dim() - len(pairs) :]
    return most is None or all(max(pair) <= size + most for size, pair in zip(sizes, pairs, strict=True))
