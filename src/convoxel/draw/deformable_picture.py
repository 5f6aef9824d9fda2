"""A deformable convolution: where its kernel reads, how far from its grid, and what that makes of numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

from convoxel.arithmetic.window import Pair
from convoxel.draw.board import CELL, DONE, PADDING, Board, Frame, Grid, Place, joined
from convoxel.draw.figure import Figure
from convoxel.draw.quantity import sizes, spelled
from convoxel.draw.sampling_picture import given_values
from convoxel.draw.scan import Scan
from convoxel.draw.scene import Box, Disc, Group, Look, Shape, arrow
from convoxel.errors import ConfigError, ShapeError
from convoxel.files.values import Array

_MOST_TAPS = 2500
_HOME = Look(stroke="soft", weight=1.5)
_THERE = Look(fill="c1", stroke="card", weight=1.25)
_WAY = Look(stroke="c1", weight=1.6)


def deform(
    size: int | Sequence[int] = (6, 6),
    kernel: int | Sequence[int] = 3,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] | Sequence[Pair] = "half",
    dilation: int | Sequence[int] = 1,
    *,
    offset: ArrayLike | float = 0.8,
    mask: ArrayLike | bool | None = None,
    seed: int = 0,
    x: ArrayLike | None = None,
    w: ArrayLike | None = None,
    step_s: float = 1.2,
) -> Figure:
    """Return a kernel whose taps leave their grid, one frame for each output (Dai et al. 2017, arXiv 1703.06211).

    Rings mark the grid of the kernel, dots the places that are read; between inputs the value is taken linearly.

    Args:
        size: input size, one to three axes; a dot in a volume lies in the slice that is nearest.
        kernel: kernel size, of all axes or of every axis (default 3).
        stride: stride (default 1).
        padding: padding, a word or numbers (default "half").
        dilation: dilation (default 1).
        offset: offsets of shape (taps × axes, *output) in elements of the input, as ``nn.functional.deform_conv`` takes
            them; or the spread of random ones (default 0.8); 0 shows the plain convolution.
        mask: modulation of shape (taps, *output), which weights each tap (v2, arXiv 1811.11168), or True for a random
            one; dots are as large as their weights (default: none).
        seed: random seed of the offsets and the modulation (default 0).
        x: values of the input, of shape ``size`` (default: small whole numbers).
        w: values of the kernel (default: ones).
        step_s: seconds of one frame.

    Raises:
        ConfigError: more axes or cells than are drawn.
        ShapeError: the kernel does not fit, or values have another shape.

    >>> deform((4, 4), padding="none", offset=0.0, x=np.arange(16).reshape(4, 4)).text
    'A deformable convolution of 4 × 4 numbers, taps moved by up to 0: 45, 54, 81, 90.'
    """
    import torch

    from convoxel.nn import functional

    scan = Scan.of(size, kernel, stride, padding, dilation)
    axes = len(scan.size)
    taps = list(itertools.product(*map(range, scan.kernel)))
    values, weights = given_values("deform", x, scan.size), np.ones(scan.kernel) if w is None else np.asarray(w, float)
    shape = (len(taps) * axes, *scan.output)
    moved = np.asarray(offset, np.float64)
    rng = np.random.default_rng(seed)
    if moved.ndim == 0:
        moved = rng.uniform(-1, 1, shape).round(2) * float(moved)
    if mask is True or mask is False:
        mask = rng.uniform(0, 1, (len(taps), *scan.output)).round(2) if mask else None
    if len(taps) * scan.steps() > _MOST_TAPS:
        raise ConfigError(
            f"deform: {len(taps)} taps of {scan.steps()} outputs are too many to watch; up to {_MOST_TAPS} are drawn. "
            "Give a smaller size or kernel."
        )
    if moved.shape != shape or weights.shape != scan.kernel:
        raise ShapeError(
            f"deform: offset has shape {moved.shape} and w {weights.shape}; expected {shape} and {scan.kernel}."
        )
    if mask is not None and np.shape(mask) != (len(taps), *scan.output):
        raise ShapeError(f"deform: mask has shape {np.shape(mask)}; expected {(len(taps), *scan.output)}.")
    result = functional.deform_conv(
        torch.as_tensor(values.astype(np.float64))[None, None], torch.as_tensor(moved)[None],
        torch.as_tensor(weights)[None, None], stride=[t.s for t in scan.tracks], padding=[t.p for t in scan.tracks],
        dilation=[t.d for t in scan.tracks],
        mask=None if mask is None else torch.as_tensor(np.asarray(mask, float))[None],
    )[0, 0].numpy()  # fmt: skip
    pads = [(max(a, 0), max(b, 0)) for a, b in (track.p for track in scan.tracks)]
    wide = np.pad(values.astype(np.float64), pads, constant_values=np.nan)
    first = tuple(-a for a, _ in pads)
    grids = [
        Grid(f"input {sizes(scan.size)}", wide, first=first),
        Grid(f"output {sizes(scan.output)}", np.round(result, 6) + 0.0, result=True),
    ]
    version = "modulated (v2), " if mask is not None else ""
    title = f"Deformable convolution, {version}kernel {sizes(scan.kernel)}, offsets up to {np.abs(moved).max():.2g}"
    board = Board(title, ["Offsets are made from the input by a convolution of their own, and are learned."], grids)
    frames, over = [], list[Shape]()
    for step, output in enumerate(scan.outputs()):
        far = max(float(np.hypot.reduce([moved[n * axes + a][output] for a in range(axes)])) for n in range(len(taps)))
        says = f"output {joined(output)} = {spelled(round(float(result[output]), 6))}, taps moved by up to {far:.2f}"
        frames.append(Frame(says, ({}, {output: ""})))
        strengths = None if mask is None else np.asarray([each[output] for each in np.asarray(mask, float)])
        over += _taps(board, scan, output, taps, moved, strengths, (step,) if scan.steps() > 1 else None, first)
    entries: list[tuple[Look | Group, str]] = [
        (CELL, "input"), (_swatch(_HOME), "grid of the kernel"), (_swatch(_THERE), "place that is read"),
        (DONE, "output"),
    ]  # fmt: skip
    if any(map(any, pads)):
        entries.insert(1, (PADDING, "padding of zeros"))
    text = f"A deformable convolution of {sizes(scan.size)} numbers, taps moved by up to {np.abs(moved).max():.2g}: "
    text += ", ".join(spelled(round(float(value), 6)) for value in result.ravel()[:36]) + "."
    return board.figure(frames, text, entries=entries, over=over, step_s=step_s)


def _taps(
    board: Board, scan: Scan, output: Place, taps: Sequence[Place], moved: Array, strengths: Array | None,
    when: tuple[int, ...] | None, first: Place,
) -> Iterator[Shape]:  # fmt: skip
    half, axes = board.side / 2, len(output)
    shape = board.grids[0].values.shape
    for number, tap in enumerate(taps):
        home = [t.start(o) + t.d * slot - f for t, o, slot, f in zip(scan.tracks, output, tap, first, strict=True)]
        there = [place + float(moved[number * axes + axis][output]) for axis, place in enumerate(home)]
        near = [min(max(round(there[0]), 0), shape[0] - 1)] if axes == 3 else []  # the slice that is nearest
        low = board.spot(0, (*near, *(0,) * (axes - len(near))))
        high = board.spot(0, (*near, *(n - 1 for n in shape[len(near) :])))
        x0, y0 = (value + half for value in board.spot(0, home))
        x1, y1 = (value + half for value in board.spot(0, (*near, *there[len(near) :])))
        # Places far outside of the picture hold zeros; they are drawn at its edge.
        x1 = min(max(x1, low[0] - 6), high[0] + board.side + 6)
        y1 = min(max(y1, low[1] - 6), high[1] + board.side + 6)
        yield Box(x0 - 7, y0 - 7, 14, 14, 7, look=_HOME, when=when, data={"home": ",".join(map(str, home))})
        if abs(x1 - x0) + abs(y1 - y0) > 9:
            yield Group(tuple(arrow(((x0, y0), (x1, y1)), _WAY, head=5.0)), when=when)
        size = 4.5 if strengths is None else 1.5 + 4.5 * float(min(max(strengths[number], 0.0), 1.0))
        spot = ",".join(f"{place:.3f}" for place in there)
        yield Disc(x1, y1, size, look=_THERE, when=when, data={"tap": spot})


def _swatch(look: Look) -> Group:
    return Group((Box(5, 0, 13, 13, 6.5, look=look),))
