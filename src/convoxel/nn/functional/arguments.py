"""Checks of arguments: number of axes, sizes for each axis, tensors with or without a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import SymInt, Tensor

from convoxel.annotation import is_expression
from convoxel.arithmetic.argument import as_whole, entries
from convoxel.errors import ConfigError, ShapeError
from convoxel.files.fault import brief
from convoxel.nn.torch_layers import check_dims

_LARGEST = 2**31 - 1  # what PyTorch takes of a stride, a padding or a dilation


def count_axes(x: Tensor, dims: int | None, function: str) -> int:
    """Return the number of spatial axes: ``dims``, or all but two of the axes of ``x``.

    Raises:
        ConfigError: ``dims`` is not 1, 2 or 3. ShapeError: ``x`` has neither ``dims + 1`` nor ``dims + 2`` axes.
    """
    if dims is None and x.dim() not in (3, 4, 5):
        raise ShapeError(
            f"{function}: x has {x.dim()} axes {tuple(x.shape)}; expected (n, c, *spatial) with 1 to 3 spatial axes. "
            "Give dims= if x has no batch."
        )
    axes = x.dim() - 2 if dims is None else check_dims(dims)
    if x.dim() not in (axes + 1, axes + 2):
        raise ShapeError(
            f"{function}: x has {x.dim()} axes {tuple(x.shape)}; expected (n, c, *spatial) or (c, *spatial) with "
            f"{axes} spatial {'axis' if axes == 1 else 'axes'}. Give dims= or reshape x."
        )
    return axes


def as_batch(x: Tensor, dims: int) -> tuple[Tensor, bool]:
    """Return ``x`` as ``(n, c, *spatial)``, and True if it had a batch."""
    return (x, True) if x.dim() == dims + 2 else (x[None], False)


def check_sizes(function: str, name: str, value: int | Sequence[int], dims: int, least: int = 1) -> tuple[int, ...]:
    """Return ``value`` for each axis, whole numbers of at least ``least``.

    Raises:
        ConfigError: another number of entries, or an entry that is no such number.
    """
    given = (value,) * dims if _is_open(value) or as_whole(value) is not None else entries(f"{function}: {name}", value)
    values: tuple[Any, ...] = tuple(entry if _is_open(entry) else as_whole(entry) for entry in given)
    if len(values) != dims or any(entry is None or entry < least or entry > _LARGEST for entry in values):
        raise ConfigError(
            f"{function}: {name} is {brief(value)}, but it must be one whole number of at least {least}, or one for "
            f"each of the {dims} axes."
        )
    return values


def axes_of(function: str, name: str, value: int | Sequence[int]) -> int:
    """Return the number of axes that ``value`` has sizes of, where an int is the size of one axis.

    Raises:
        ConfigError: it is none of these, or layers have no such number of axes.
    """
    return 1 if as_whole(value) is not None else check_dims(len(entries(f"{function}: {name}", value)))


def _is_open(value: object) -> bool:
    """Return True for a size that an export or a description leaves open; as a number it would be fixed."""
    return isinstance(value, SymInt) or is_expression(value)


def check_factor(function: str, channels: int, parts: int, why: str) -> int:
    """Return ``channels // parts``.

    Raises:
        ShapeError: the division leaves a rest.
    """
    if channels % parts:
        raise ShapeError(
            f"{function}: x has {channels} channels, which {why} {parts} does not divide. Give a multiple."
        )
    return channels // parts
