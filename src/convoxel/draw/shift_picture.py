"""Translation: a layer of a shifted image beside the shifted output, and the errors of networks, shift by shift."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from convoxel.draw.board import CELL, DONE, NOW, Board, Frame, Grid, small_numbers
from convoxel.draw.caption import EDGE, heading, legend
from convoxel.draw.figure import Figure
from convoxel.draw.letter import text_width
from convoxel.draw.quantity import percent, sizes, spelled
from convoxel.draw.scene import Box, Group, Line, Look, Shape, Words
from convoxel.errors import ConfigError, check_choice
from convoxel.files.values import Array

if TYPE_CHECKING:
    from torch import Tensor, nn

    from convoxel.inspect import Equivariance

LAYERS = ("convolution", "stride", "max_pool", "blur_pool", "global_pool")
_SAYS = {
    "convolution": "convolution, stride 1", "stride": "convolution, stride 2", "max_pool": "max pooling by 2",
    "blur_pool": "blur, then every second", "global_pool": "convolution and global pooling",
}  # fmt: skip


def translation(
    size: int | Sequence[int] = (6, 6),
    layer: str = "convolution",
    *,
    shifts: int = 5,
    x: ArrayLike | None = None,
    step_s: float = 1.2,
) -> Figure:
    """Return a layer of a shifted image beside its shifted output, one frame for each shift along the last axis.

    A convolution gives both alike: it is equivariant. Stride and pooling by 2 do so for even shifts alone, and global
    pooling gives the same for all shifts: it is invariant. Borders are circular, so that they change nothing.

    Args:
        size: input size, one or two axes; even for layers of stride 2.
        layer: "convolution", "stride", "max_pool", "blur_pool" or "global_pool".
        shifts: number of shifts (default 5: 0 to 4).
        x: values of the input, of shape ``size`` (default: a small pattern).
        step_s: seconds of one frame.

    Raises:
        ConfigError: the layer is not known, or there are more axes or shifts than are drawn.

    >>> translation(6, "max_pool", x=[0, 3, 1, 0, 0, 2]).text
    'Max pooling by 2, shifts 0 to 4: error 0, 1, 0, 1, 0.'
    """
    import torch

    from convoxel.draw.sampling_picture import given_values

    check_choice("layer", layer, LAYERS)
    lengths = (size,) if isinstance(size, int) else tuple(size)
    if not 1 <= len(lengths) <= 2 or not 1 <= shifts <= 12:
        raise ConfigError(
            f"translation: got size {lengths} and {shifts} shifts; one or two axes and 1 to 12 are drawn."
        )
    stride = 1 if layer in ("convolution", "global_pool") else 2
    if any(n % stride for n in lengths):
        raise ConfigError(f"size: got {lengths}; expected even numbers, since {_SAYS[layer]} halves them.")
    values = _pattern(lengths) if x is None else given_values("translation", x, lengths).astype(np.float64)
    module = demonstration(layer, len(lengths))

    def result(image: Array) -> Array:
        with torch.no_grad():
            found: Array = module(torch.as_tensor(image, dtype=torch.float64)[None, None])[0, 0].numpy()
        found = found.reshape(1) if found.ndim == 0 else found
        return np.round(found, 6) + 0.0

    still, errors, figures = result(values), [], []
    for shift in range(shifts):
        moved = np.roll(values, shift, -1)
        own = result(moved)
        near = still
        if layer != "global_pool":  # the output moves by shift / stride, rounded to the smaller error
            whole = sorted({shift // stride, -(-shift // stride)})
            near = min((np.roll(still, by, -1) for by in whole), key=lambda y: float(np.abs(y - own).max()))
        error = float(np.abs(own - near).max())
        errors.append(error)
        grids = [
            Grid(f"input shifted by {shift}", moved),
            Grid("its output", own, result=True),
            Grid("output shifted" if layer != "global_pool" else "output", near, result=True),
        ]
        board = Board(f"Translation: {_SAYS[layer]}", [_lesson(layer)], grids)
        differ = {cell: "" for cell in np.ndindex(own.shape) if abs(own[cell] - near[cell]) > 1e-9}
        full = [dict.fromkeys(np.ndindex(grid.values.shape), "") for grid in grids[1:]]
        same = "equal" if not differ else f"{len(differ)} of {own.size} outputs differ, by up to {spelled(error)}"
        figure = board.figure([Frame(f"shift {shift}: {same}", ({}, *full))], "")
        rings: list[Shape] = []
        for cell in differ:
            at = board.spot(1, cell)
            rings.append(Box(*at, board.side, board.side, 4, look=_WRONG, data={"differs": ",".join(map(str, cell))}))
        # Every output is marked, so that it is filled; the rings of marks would say nothing.
        plain = tuple(part for part in figure.shapes if not (isinstance(part, Box) and part.look == NOW))
        figures.append(dataclasses.replace(figure, shapes=(*plain, *rings)))
    name = _SAYS[layer]
    text = f"{name[0].upper()}{name[1:]}, shifts 0 to {shifts - 1}: error {', '.join(map(spelled, errors))}."
    entries = [(CELL, "input"), (DONE, "output"), (_WRONG, "differs")]
    return _film(figures, text, entries, step_s)


_WRONG = Look(stroke="bad", weight=2.5)


def _film(figures: Sequence[Figure], text: str, entries: Sequence[tuple[Look | Group, str]], step_s: float) -> Figure:
    """Return stills of one size as the frames of one figure, with a legend."""
    first = figures[0]
    told, wide, end = legend(entries, first.height - 24, first.width)
    shapes = tuple(Group(figure.shapes, when=(step,)) for step, figure in enumerate(figures))
    width = max(wide, *(figure.width for figure in figures))
    count = len(figures)
    if count == 1:
        return dataclasses.replace(first, text=text, shapes=(*first.shapes, *told), width=width, height=end + EDGE - 8)
    return Figure(first.title, text, width, end + EDGE - 8, (*shapes, *told), count, step_s, min(1, count - 1))


def _pattern(shape: Sequence[int]) -> Array:
    """Return a few bright cells on zeros."""
    found = np.zeros(shape)
    inner = tuple(slice(n // 4, n // 4 + max(2, n // 2)) for n in shape)
    found[inner] = small_numbers(found[inner].shape)
    return found


def _lesson(layer: str) -> str:
    return {
        "convolution": "f(shift x) = shift f(x) for every shift: a convolution is equivariant.",
        "stride": "Every second output is kept, so odd shifts see other values: equivariant to even shifts alone.",
        "max_pool": "The windows stay where they are, so odd shifts fall into other windows.",
        "blur_pool": "Blurred before every second value is kept, an odd shift changes less.",
        "global_pool": "The mean of all positions forgets where they are: invariant.",
    }[layer]


def demonstration(layer: str, dims: int) -> nn.Module:
    """Return the layer of a demonstration, of one channel and in float64, with circular borders."""
    import torch
    from torch import nn

    from convoxel import nn as own

    class Means(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(dim=tuple(range(2, x.dim())))

    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    step = 2 if layer == "stride" else 1
    kernel = conv(1, 1, 3, step, 1, padding_mode="circular", bias=False)
    with torch.no_grad():
        flat = torch.tensor([1.0, 2.0, -1.0])
        weight = flat
        for _ in range(dims - 1):
            weight = weight[..., None] * torch.tensor([0.0, 1.0, 1.0])
        kernel.weight.copy_(weight[None, None])
    parts: dict[str, list[nn.Module]] = {
        "convolution": [kernel], "stride": [kernel], "max_pool": [own.MaxPool(dims, 2)],
        "blur_pool": [own.BlurPool(dims, 1, padding_mode="circular")], "global_pool": [kernel, Means()],
    }  # fmt: skip
    return nn.Sequential(*parts[layer]).double().eval()


def measure_layers(shifts: Iterable[int] = range(1, 9), size: int = 24) -> dict[str, Equivariance]:
    """Return the errors of the layers of :func:`translation` on noise, by their names.

    >>> measure_layers([1, 2], 8)["max pooling by 2"].period
    2
    """
    import torch

    from convoxel.inspect import equivariance

    x = torch.randn(1, 1, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wanted = list(shifts)
    return {
        said: equivariance(demonstration(layer, 2), x, wanted, borders=True, tolerance=1e-9)
        for layer, said in _SAYS.items()
    }


def measure_network(model: nn.Module, shape: Sequence[int], shifts: Iterable[int] = range(1, 9)) -> Equivariance:
    """Return the errors of a network on noise of a shape."""
    import torch

    from convoxel.inspect import equivariance

    return equivariance(model, torch.randn(tuple(shape), generator=torch.Generator().manual_seed(0)), list(shifts))


def shifts(reports: Mapping[str, Equivariance]) -> Figure:
    """Return the errors of equivariance and invariance of networks, shift by shift, as small bars.

    Args:
        reports: what ``inspect.equivariance`` returned, by the name to show.

    Raises:
        ConfigError: there is no report.

    >>> import torch
    >>> from convoxel.inspect import equivariance
    >>> shifts({"pooling": equivariance(torch.nn.MaxPool2d(2), torch.randn(1, 1, 16, 16), range(1, 5))}).title
    'Errors of 1 network under shifts'
    """
    if not reports:
        raise ConfigError("shifts: reports is empty; expected at least one, of inspect.equivariance.")
    many = "s" if len(reports) > 1 else ""
    title = f"Errors of {len(reports)} network{many} under shifts"
    lines = ["Root mean square of f(shift x) − shift f(x), as a share of that of f(x); 0 is equivariant."]
    shapes, width, top = heading(title, lines)
    names = max(text_width(name, 13) for name in reports) + 30
    left, tall, step = EDGE + names, 58.0, 44.0
    y, parts, longest = top + 34, [], 0.0
    most = max(1.0, *(row.error for report in reports.values() for row in report.rows))
    first = next(iter(reports.values()))
    for column, row in enumerate(first.rows):
        word = sizes(list(row.shift), short=True)
        shapes.append(Words(left + (column + 0.5) * step, y - 14, word, look=_MARK))
    shapes.append(Words(EDGE, y - 14, "shift", look=_SOFT))
    for name, report in reports.items():
        shapes.append(Words(EDGE, y + tall - 18, name, look=_NAME))
        told = "no period found" if report.period is None else f"exact every {report.period}"
        told = "exact for every shift" if report.period == 1 else told
        shapes.append(Words(EDGE, y + tall - 2, told, look=_SOFT))
        for column, row in enumerate(report.rows):
            x, high = left + column * step + 8, max((tall - 16) * row.error / most, 1.0)
            fact = {"network": name, "shift": ",".join(map(str, row.shift)), "error": f"{row.error:.6g}"}
            look = _RIGHT if row.exact else _OFF
            shapes.append(Box(x, y + tall - high, step - 16, high, 2, look=look, data=fact))
            says = "0" if row.exact else percent(row.error) if row.error <= 1 else f"{row.error:.2g}"
            shapes.append(Words(x + (step - 16) / 2, y + tall - high - 5, says, look=_MARK))
        longest = max(longest, left + len(report.rows) * step)
        shapes.append(Line(((left, y + tall), (left + len(report.rows) * step, y + tall)), look=_BASE))
        parts.append(f"{name}: {told}, largest error {percent(min(1.0, max(row.error for row in report.rows)))}")
        y += tall + 26
    told_, wide, end = legend([(_OFF, "broken"), (_RIGHT, "exact")], y, max(width, longest))
    return Figure(title, "; ".join(parts) + ".", max(width, longest + EDGE, wide), end + EDGE - 8, (*shapes, *told_))


_NAME, _SOFT = Look(fill="ink", size=13), Look(fill="soft", size=11)
_MARK = Look(fill="soft", size=10.5, align="middle")
_OFF, _RIGHT, _BASE = Look(fill="c5"), Look(fill="c3"), Look(stroke="faint")
