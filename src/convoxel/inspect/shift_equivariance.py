"""Translation equivariance, measured: the output for a translated image compared with the translated output.

A convolution of stride 1 is equivariant; a stride or a pooling window breaks it (Azulay & Weiss 2019, arXiv 1805.12177;
Zhang 2019, arXiv 1904.11486); global pooling makes the output invariant. Borders break it too; outputs that they reach
are left out where the receptive field is known.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from convoxel.arithmetic import Field
from convoxel.errors import ConfigError, ConvoxelError, ShapeError
from convoxel.files.values import JsonObject
from convoxel.inspect.model_call import evaluating, given_tensor, tensor_of
from convoxel.inspect.receptive_field import trace_fields
from convoxel.inspect.record import open_source

_TOLERANCE = 1e-4  # float32 sums of a few thousand terms, in another order at every position


@dataclass(frozen=True)
class ShiftError:
    """The effect of one shift of the input on the output.

    Attributes:
        shift: positions along each image axis.
        output_shift: positions by which the output was shifted for comparison: the shift divided by the network's
            stride, rounded up or down to the smaller error. () where the output has no image axes.
        error: root mean square of f(shift x) − shift f(x), divided by that of f(x).
        invariance: the same of f(shift x) − f(x); 0 where the output does not change.
        positions: number of output positions compared, in each channel.
        exact: True if ``error`` is within the tolerance.
    """

    shift: tuple[int, ...]
    output_shift: tuple[int, ...]
    error: float
    invariance: float
    positions: int
    exact: bool


@dataclass(frozen=True)
class Equivariance:
    """The result of ``equivariance``.

    Attributes:
        rows: one for each shift.
        stride: input positions per output position of the network along each image axis; () where the output has none.
        interior: True if only outputs that no border reaches were compared; False where there are none, or where the
            receptive field is not known.
    """

    rows: tuple[ShiftError, ...]
    stride: tuple[Fraction | int, ...]
    interior: bool

    @property
    def period(self) -> int | None:
        """The smallest p for which every measured shift by multiples of p on all axes is exact; None if there is none.

        A network of stride 1 has period 1, pooling by 2 has period 2, a U-Net with four poolings 16.
        """
        moved = [row for row in self.rows if any(row.shift)]
        for period in range(1, max((abs(s) for row in moved for s in row.shift), default=0) + 1):
            regular = [row for row in moved if all(s % period == 0 for s in row.shift)]
            if regular and all(row.exact for row in regular):
                return period
        return None

    def to_dict(self) -> JsonObject:
        """Return everything as plain lists and numbers."""
        return {
            "stride": [float(s) for s in self.stride],
            "interior": self.interior,
            "period": self.period,
            "rows": [{**vars(row), "shift": [*row.shift], "output_shift": [*row.output_shift]} for row in self.rows],
        }

    def __str__(self) -> str:
        """Return a line for each shift."""
        lines = [
            f"shift {'×'.join(map(str, row.shift)):>9}   equivariance error {row.error:9.2e}   "
            f"invariance error {row.invariance:9.2e}{'' if row.exact else '   broken'}"
            for row in self.rows
        ]
        where = "where no border reaches" if self.interior else "borders included"
        told = "no period found" if self.period is None else f"exact for shifts by multiples of {self.period}"
        return "\n".join([*lines, f"{told} ({where})"])


def equivariance(
    model: Callable[[Any], Any],
    x: ArrayLike | Tensor,
    shifts: Iterable[int | Sequence[int]] = range(1, 9),
    *,
    borders: bool = False,
    tolerance: float = _TOLERANCE,
) -> Equivariance:
    """Return how far f(shift x) is from shift f(x), shift by shift.

    The image is shifted circularly and the output by shift / stride, rounded up or down to the smaller error. Only
    outputs whose receptive field touches neither the image's border nor its seam are compared, if there are any.

    Args:
        model: a PyTorch module of one input and one output, which runs in eval mode and stays as it is; or a program.
        x: images (n, c, *spatial), array or tensor; noise shows most.
        shifts: positions, one number for all axes or one for each (default 1 … 8).
        borders: compare all outputs, which suits a network that pads circularly (default False).
        tolerance: largest relative error that counts as rounding (default 1e-4).

    Raises:
        ShapeError: ``x`` has no spatial axes, or a shift has another number of axes.
        ConfigError: there are no shifts, or the model returns something other than a tensor.

    >>> import torch
    >>> layer = torch.nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular")
    >>> equivariance(layer, torch.randn(1, 1, 16, 16), [1, (3, 5)]).period
    1
    >>> report = equivariance(torch.nn.MaxPool2d(2), torch.randn(1, 1, 32, 32), range(1, 5))
    >>> [row.exact for row in report.rows], report.period
    ([False, True, False, True], 2)
    """
    x = given_tensor(x)
    dims = x.dim() - 2
    if dims < 1:
        raise ShapeError(
            f"equivariance: x has shape {tuple(x.shape)}, expected (n, c, *spatial). Add the missing axes."
        )
    wanted = [_each(shift, dims) for shift in shifts]
    if not wanted:
        raise ConfigError("equivariance: there are no shifts. Give some, such as range(1, 9).")

    def run(x: Tensor) -> Tensor:
        with evaluating(model), torch.no_grad():
            return tensor_of("equivariance", model(x))

    plain = run(x)
    fields = _fields(model, tuple(x.shape), plain.dim())
    spatial = plain.dim() == x.dim()
    stride = tuple(field.stride for field in fields) if fields else _measured_stride(x, plain) if spatial else ()
    margins = fields if fields and not borders and spatial else None
    if margins and not all(_interior(margins, x.shape[2:], plain.shape[2:], shift, stride) for shift in wanted):
        margins = None
    rows = tuple(_compare(run, x, plain, shift, stride, margins, tolerance) for shift in wanted)
    return Equivariance(rows, stride, margins is not None)


def _each(shift: int | Sequence[int], dims: int) -> tuple[int, ...]:
    values = (int(shift),) * dims if isinstance(shift, int) else tuple(int(s) for s in shift)
    if len(values) != dims:
        raise ShapeError(f"equivariance: shift {values} has {len(values)} numbers, but x has {dims} spatial axes.")
    return values


def _fields(model: Any, shape: tuple[int, ...], rank: int) -> list[Field] | None:
    """Return the receptive field along each axis of the output, or None where it is not known or has no end."""
    if rank != len(shape):
        return None
    try:
        record = open_source(model).record([shape])
    except ConvoxelError:
        return None
    if len(record.outputs) != 1:
        return None
    seen = trace_fields(record)[0][record.outputs[0]]
    if not seen.is_clear or len(seen.axes) != rank or len(seen.fields) != rank - 2:
        return None
    if any(seen.image(axis + 2) != axis for axis in range(rank - 2)):
        return None
    return [seen.fields[axis] for axis in range(rank - 2)]


def _measured_stride(x: Tensor, y: Tensor) -> tuple[Fraction | int, ...]:
    """Return input over output positions, where no field tells the stride."""
    return tuple(
        Fraction(round(a / b)) if a >= b else Fraction(1, round(b / a))
        for a, b in zip(x.shape[2:], y.shape[2:], strict=True)
    )


def _interior(
    fields: Sequence[Field], sizes: Sequence[int], outputs: Sequence[int], shift: Sequence[int], stride: Sequence[Any]
) -> list[list[int]]:
    """Return, along each axis, the positions of f(shift x) that see neither border nor seam, nor do their sources.

    Empty if there is an axis without any.
    """
    found = []
    for field, size, count, s, step in zip(fields, sizes, outputs, shift, stride, strict=True):
        moves = {math.floor(Fraction(s) / step), math.ceil(Fraction(s) / step)}
        inside = []
        for position in range(count):
            seen = field.at(position)
            sources = [field.at(position - move) for move in moves]
            clear = seen is not None and seen[0] >= max(0, s) and seen[1] < size + min(0, s)
            reachable = all(0 <= position - move < count for move in moves)
            if clear and reachable and all(seen and seen[0] >= 0 and seen[1] < size for seen in sources):
                inside.append(position)
        if not inside:
            return []
        found.append(inside)
    return found


def _compare(
    run: Callable[[Tensor], Tensor],
    x: Tensor,
    plain: Tensor,
    shift: tuple[int, ...],
    stride: Sequence[Any],
    fields: Sequence[Field] | None,
    tolerance: float,
) -> ShiftError:
    axes = tuple(range(2, x.dim()))
    moved = run(torch.roll(x, shift, axes))
    if not stride:
        error = _relative(moved - plain, plain)
        return ShiftError(shift, (), error, error, 1, error <= tolerance)
    kept = _interior(fields, x.shape[2:], plain.shape[2:], shift, stride) if fields else None
    choices = [
        sorted({math.floor(Fraction(s) / t), math.ceil(Fraction(s) / t)}) for s, t in zip(shift, stride, strict=True)
    ]
    scale = _cut(plain, kept)
    errors = {
        output_shift: _relative(_cut(moved, kept) - _cut(torch.roll(plain, output_shift, axes), kept), scale)
        for output_shift in itertools.product(*choices)
    }
    best = min(errors, key=lambda output_shift: errors[output_shift])
    invariance = _relative(_cut(moved, kept) - scale, scale)
    return ShiftError(shift, best, errors[best], invariance, math.prod(scale.shape[2:]), errors[best] <= tolerance)


def _cut(y: Tensor, kept: list[list[int]] | None) -> Tensor:
    for axis, positions in enumerate(kept or (), start=2):
        y = y.index_select(axis, torch.tensor(positions))
    return y


def _relative(difference: Tensor, reference: Tensor) -> float:
    norm = float(reference.double().square().mean().sqrt())
    error = float(difference.double().square().mean().sqrt())
    return error / norm if norm else error
