"""Values between grid points: sampling grids, regions of interest, deformable convolutions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from convoxel.errors import ShapeError
from convoxel.graph.ir.graph import Node
from convoxel.graph.ir.size import Shape, differ
from convoxel.graph.operators.convolution import convolution_macs
from convoxel.graph.operators.host import Array, Ints, Pairs
from convoxel.graph.operators.index_tables import CUBIC_SHARPNESS
from convoxel.graph.operators.operator import Shapes, row
from convoxel.graph.operators.shape import conv_length, operand


def _grid_sample_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """(n, c, …) at (n, *out, dims) → (n, c, *out)."""
    x, grid = operand(shapes, 0), operand(shapes, 1)
    if differ(grid[-1], len(x) - 2):
        raise ShapeError(f"the grid {grid} has points of {grid[-1]} coordinates, x {x} has {len(x) - 2} spatial axes")
    return [(*x[:2], *grid[1:-1])]


def _affine_grid_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """(n, dims, dims + 1) → (n, *space, dims)."""
    size: Any = tuple(node["size"])
    return [(size[0], *size[2:], len(size) - 2)]


def _region_align_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """(n, c, h, w) with (regions, 4) → (regions, c, *size)."""
    return [(operand(shapes, 1)[0], operand(shapes, 0)[1], *node["size"])]


def _deformable_shape(node: Node, shapes: Shapes) -> list[Shape]:
    """As a convolution; the offsets must lie on its result's grid."""
    x, w, offset = operand(shapes, 0), operand(shapes, 1), operand(shapes, 2)
    spatial = tuple(
        conv_length(*axis) for axis in zip(x[2:], w[2:], node["stride"], node["padding"], node["dilation"], strict=True)
    )
    if any(map(differ, offset[2:], spatial)):
        raise ShapeError(f"the offsets {offset} do not lie on the result's grid {spatial}")
    return [(x[0], w[0], *spatial)]


# ---- on arrays


def bilinear(x: Array, rows: Array, columns: Array) -> Array:
    """Return (c, *points): x (c, h, w) between its points at (rows, columns), 0 outside."""
    grid = np.stack([rows, columns], axis=-1)
    return _interpolated(x, grid, "zeros")


def _interpolated(x: Array, position: Array, outside: str) -> Array:
    """Return (c, *points) for x (c, *space) and positions (*points, dims), linear along every axis."""
    low = np.floor(position)
    fraction = position - low
    result: Any = 0.0
    for corner in itertools.product((0, 1), repeat=position.shape[-1]):
        weight = np.prod(np.where(np.array(corner) == 1, fraction, 1 - fraction), axis=-1)
        result = result + _fetched(x, low + corner, outside) * weight
    return result


def _fetched(x: Array, index: Array, outside: str) -> Array:
    """Return (c, *points), the elements at whole positions; 0 outside unless they were folded before."""
    sizes = np.array(x.shape[1:])
    finite = np.where(np.isfinite(index), index, -1)
    inside = np.all((finite >= 0) & (finite < sizes), axis=-1)
    place = np.clip(finite, 0, sizes - 1).astype(np.int64)
    where: tuple[Any, ...] = (slice(None), *np.moveaxis(place, -1, 0))
    values = x[where]
    return np.where(inside, values, 0.0) if outside == "zeros" else values


def _grid_sample(x: Array, grid: Array, mode: str, padding: str, align_corners: bool) -> Array:
    """Return (n, c, *out): x (n, c, *space) at the points of ``grid`` (n, *out, dims), which run from −1 to 1.

    The grid's last axis lists the last spatial axis first (x, y, z). ``mode`` is ``"nearest"``, ``"linear"`` or
    ``"cubic"``; ``padding``, beyond the borders, ``"zeros"``, ``"border"`` or ``"reflection"``. Jaderberg et al. 2015.
    """
    sizes = np.array(x.shape[2:])
    points = np.flip(grid.astype(np.float64), -1)
    position = (points + 1) / 2 * (sizes - 1) if align_corners else ((points + 1) * sizes - 1) / 2
    results = []
    for image, where in zip(x.astype(np.float64), position, strict=True):
        if mode == "cubic":
            results.append(_cubic(image, where, padding, align_corners))
            continue
        folded = _folded(where, sizes, padding, align_corners)
        results.append(
            _fetched(image, np.rint(folded), padding) if mode == "nearest" else _interpolated(image, folded, padding)
        )
    return np.stack(results) if results else np.zeros((0, x.shape[1], *grid.shape[1:-1]))


def _folded(position: Array, sizes: Array, padding: str, align_corners: bool) -> Array:
    """Return positions moved back inside, as the padding says; ``"zeros"`` leaves them."""
    if padding == "border":
        return np.clip(position, 0, sizes - 1)
    if padding == "reflection":
        low, high = (np.zeros_like(sizes), sizes - 1.0) if align_corners else (sizes * 0 - 0.5, sizes - 0.5)
        span = np.maximum(high - low, 1e-9)
        turned = np.abs(position - low) % (2 * span)
        return np.clip(np.minimum(turned, 2 * span - turned) + low, 0, sizes - 1)
    return position


def _cubic(x: Array, position: Array, padding: str, align_corners: bool) -> Array:
    """Keys' cubic kernel along every axis; each of the taps is folded back by itself."""
    sizes, low = np.array(x.shape[1:]), np.floor(position)
    fraction = position - low
    result: Any = 0.0
    for offset in itertools.product(range(-1, 3), repeat=len(sizes)):
        weight = np.prod(_cubic_kernel(np.abs(fraction - offset)), axis=-1)
        place = low + offset
        inside = place if padding == "zeros" else np.rint(_folded(place, sizes, padding, align_corners))
        result = result + _fetched(x, inside, padding) * weight
    return result


def _cubic_kernel(x: Array) -> Array:
    """Return Keys' cubic convolution kernel at distance ``x`` ≥ 0."""
    a = CUBIC_SHARPNESS
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    return np.where(x <= 1.0, near, np.where(x < 2.0, far, 0.0))


def _affine_grid(theta: Array, size: Ints, align_corners: bool) -> Array:
    """Return the grid (n, *space, dims) of points that the matrices (n, dims, dims + 1) map the output's points to."""
    axes = [
        (2 * np.arange(s) + 1) / s - 1 if not align_corners else np.linspace(-1, 1, s) if s > 1 else -np.ones(1)
        for s in size[2:]
    ]
    points = np.stack([*reversed(np.meshgrid(*axes, indexing="ij")), np.ones(size[2:])], axis=-1)
    return np.einsum("...k,njk->n...j", points, theta.astype(np.float64))


def _region_align(
    x: Array, regions: Array, batch: Array, size: tuple[int, int], ratio: int, scale: float, mode: str, half_pixel: bool
) -> Array:
    """Return (regions, c, *size): every region (x1, y1, x2, y2) of its image sampled on a grid (He et al. 2017)."""
    shift = 0.5 if half_pixel else 0.0
    results = np.zeros((len(regions), x.shape[1], *size))
    for number, (region, image) in enumerate(zip(regions.astype(np.float64), batch, strict=True)):
        x1, y1, x2, y2 = region * scale - shift
        height, width = (y2 - y1, x2 - x1) if half_pixel else (max(y2 - y1, 1.0), max(x2 - x1, 1.0))
        cells = (height / size[0], width / size[1])
        counts = [ratio or max(math.ceil(length), 1) for length in cells]
        axes = [
            begin + (np.arange(out)[:, None] + (np.arange(count)[None, :] + 0.5) / count) * cell
            for begin, out, count, cell in zip((y1, x1), size, counts, cells, strict=True)
        ]
        results[number] = _pooled_region(x[image].astype(np.float64), axes[0], axes[1], mode)
    return results


def _pooled_region(image: Array, rows: Array, columns: Array, mode: str) -> Array:
    """Return (c, oh, ow): the mean, or the largest, of the samples at (oh, taps) × (ow, taps)."""
    (h, w), (oh, ty), (ow, tx) = image.shape[1:], rows.shape, columns.shape
    y, x = np.broadcast_arrays(rows.reshape(-1, 1), columns.reshape(1, -1))
    outside = (y < -1) | (y > h) | (x < -1) | (x > w)
    position = np.stack([np.clip(y, 0, h - 1), np.clip(x, 0, w - 1)], axis=-1)
    if mode == "average":
        samples = np.where(outside, 0.0, _interpolated(image, position, "border"))
        return samples.reshape(-1, oh, ty, ow, tx).mean(axis=(2, 4))
    low, fraction = np.floor(position), position - np.floor(position)
    corners = [  # the largest weighted corner, not the largest interpolated value
        _fetched(image, low + corner, "zeros") * np.prod(np.where(np.array(corner) == 1, fraction, 1 - fraction), -1)
        for corner in itertools.product((0, 1), repeat=2)
    ]
    samples = np.where(outside, 0.0, np.max(corners, axis=0))
    return samples.reshape(-1, oh, ty, ow, tx).max(axis=(2, 4))


def _deformable_convolution(
    x: Array,
    weight: Array,
    offset: Array,
    bias: Array | None,
    mask: Array | None,
    stride: Ints,
    padding: Pairs,
    dilation: Ints,
    groups: int,
    offset_groups: int,
) -> Array:
    """Return the convolution whose taps are moved by ``offset`` and weighted by ``mask`` (Dai et al. 2017; Zhu et
    al. 2019).

    x (n, c, h, w), weight (k, c/groups, kh, kw), offset (n, offset_groups · kh · kw · 2, oh, ow) in pairs (y, x),
    mask (n, offset_groups · kh · kw, oh, ow).
    """
    n, c = x.shape[:2]
    kernel, out = weight.shape[2:], offset.shape[2:]
    taps = math.prod(kernel)
    moved = offset.reshape(n, offset_groups, taps, 2, *out)
    weights = None if mask is None else mask.reshape(n, offset_groups, taps, *out)
    rows, columns = ((np.arange(size) * s - low) for size, s, (low, _) in zip(out, stride, padding, strict=True))
    seen = np.empty((n, c, taps, *out), np.float64)
    per = c // offset_groups
    for image, group, tap in itertools.product(range(n), range(offset_groups), range(taps)):
        ky, kx = divmod(tap, kernel[1])
        y = moved[image, group, tap, 0] + (rows + ky * dilation[0])[:, None]
        xs = moved[image, group, tap, 1] + (columns + kx * dilation[1])[None, :]
        part = slice(group * per, (group + 1) * per)
        values = bilinear(x[image, part], y, xs)
        seen[image, part, tap] = values if weights is None else values * weights[image, group, tap]
    return _grouped_product(seen, weight, bias, groups)


def _grouped_product(seen: Array, weight: Array, bias: Array | None, groups: int) -> Array:
    flat = weight.reshape(*weight.shape[:2], -1)
    parts: Sequence[Array] = [
        np.einsum("nctyx,kct->nkyx", part, rows)
        for part, rows in zip(np.split(seen, groups, axis=1), np.split(flat, groups), strict=True)
    ]
    result = np.concatenate(parts, axis=1)
    return result if bias is None else result + bias.reshape(-1, 1, 1)


ROWS = (
    row("affine_grid(theta; size, align_corners=False)", _affine_grid_shape, _affine_grid),
    row(
        "deformable_convolution(x, weight, offset, bias?, mask?; stride, padding, dilation, groups=1, offset_groups=1)",
        _deformable_shape,
        _deformable_convolution,
        macs=convolution_macs,
    ),
    row("grid_sample(x, grid; mode, padding, align_corners)", _grid_sample_shape, _grid_sample),
    row(
        "region_align(x, regions, batch; size, ratio=0, scale=1.0, mode='average', half_pixel=True)",
        _region_align_shape,
        _region_align,
    ),
)
