"""Images, labels and class scores on a grid of another spacing, computed axis by axis.

The middle of an axis stays where it is, and neighbours are exactly the wanted distance apart: sample ``j`` of ``count``
lies at ``(j - (count - 1) / 2) * step + (size - 1) / 2`` of the ``size`` samples that are there. No axis is stretched
to a whole number of voxels, so the place of every voxel is known exactly, and reversed axes give reversed results.

Where a run says so, the outer faces of the image stay in place instead, and its axes are stretched to a whole number of
voxels: then ``step`` is ``size / count``, as in nnU-Net, scikit-image's ``resize`` and PyTorch's ``interpolate``. Or
the first voxel stays in place, and sample ``j`` lies at ``j * step``, as in MONAI.

Images are interpolated by cubic B-splines (Unser 1999), labels class by class, scores of classes linearly. Nothing is
smoothed before it is thinned out. A B-spline of several variables is a product over axes, as linear interpolation is,
so each axis is one pass, with its own order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from convoxel.data.mapped_image import MappedImage, slabs
from convoxel.files.values import Array

NewArray = Callable[[tuple[int, ...], Any], Any]
Floats = NDArray[np.float32]
_PART = 1 << 22  # values that are computed at a time: 16 MiB
_EDGE = 12  # voxels by which an axis goes on for a B-spline: its coefficients forget 0.27 ** 12 = 1e-7 of what follows


class Taps(NamedTuple):
    """The samples that are read for each result along an axis, and their weights; both (taps, results)."""

    source: NDArray[np.intp]
    weight: Floats

    def part(self, first: int, stop: int) -> tuple[int, int, Taps]:
        """Return the range of samples that results ``first`` … ``stop - 1`` read, and their taps within that range."""
        index, weight = self.source[:, first:stop], self.weight[:, first:stop]
        index = np.where(weight == 0, index[:1], index)  # what counts nothing is not read
        low, high = int(index.min()), int(index.max()) + 1
        return low, high, Taps(index - low, weight)


@dataclass(frozen=True)
class AxisSampling:
    """The places along one axis at which samples are wanted.

    Attributes:
        size: samples that are there.
        count: samples that are wanted.
        step: their distance, in samples that are there.
        shift: distance of their middle from the axis's, in samples that are there (default 0).

    >>> AxisSampling(4, 2, 2.0).positions.tolist(), AxisSampling(4, 2, 2.0).reverse.positions.tolist()
    ([0.5, 2.5], [-0.25, 0.25, 0.75, 1.25])
    """

    size: int
    count: int
    step: float = 1.0
    shift: float = 0.0

    @property
    def same(self) -> bool:
        """True where every sample stays as it is."""
        return self.size == self.count and self.step == 1.0

    @property
    def positions(self) -> NDArray[np.float64]:
        """The places (count,), in samples that are there."""
        from_middle = np.arange(self.count, dtype=np.float64) - (self.count - 1) / 2
        return from_middle * self.step + (self.size - 1) / 2 + self.shift

    @property
    def reverse(self) -> AxisSampling:
        """The places of the samples that are there among those that are wanted."""
        return AxisSampling(self.count, self.size, 1.0 / self.step, -self.shift / self.step)

    @classmethod
    def between_faces(cls, size: int, count: int) -> AxisSampling:
        """Return the places of ``count`` samples that share the faces of the ``size`` that are there."""
        return cls(size, count, size / count)

    @classmethod
    def from_first(cls, size: int, count: int, step: float) -> AxisSampling:
        """Return the places of ``count`` samples, the first of which is the first of the ``size`` that are there.

        >>> AxisSampling.from_first(4, 2, 2.0).positions.tolist()
        [0.0, 2.0]
        """
        return cls(size, count, step, (count - 1) / 2 * step - (size - 1) / 2)

    def taps(self, order: int) -> Taps:
        """Return the taps of the nearest sample (0), of linear interpolation (1) or of cubic B-splines (3).

        Beyond its ends an axis continues with its last value, for B-splines as in a mirror at the last sample.
        """
        last = self.size - 1
        if order == 0:
            nearest = np.clip(np.floor(self.positions + 0.5), 0, last).astype(np.intp)
            return Taps(nearest[None], np.ones((1, self.count), np.float32))
        if order == 1:
            place = np.clip(self.positions, 0, last)
            low = np.floor(place).astype(np.intp)
            share = place - low
            return Taps(np.stack([low, np.minimum(low + 1, last)]), np.stack([1 - share, share]).astype(np.float32))
        low = np.floor(self.positions).astype(np.intp)
        t = self.positions - low
        weight = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 3 * (t + t**2 - t**3) + 1, t**3]) / 6
        index = np.stack([low - 1, low, low + 1, low + 2]) % max(1, 2 * last)
        return Taps(np.where(index > last, 2 * last - index, index), weight.astype(np.float32))


def _interpolate(values: Array, axis: int, taps: Taps) -> Floats:
    """Return the weighted sums of ``values`` along an axis, float32."""
    count = taps.source.shape[1]
    shape = (*values.shape[:axis], count, *values.shape[axis + 1 :])
    result = np.empty(shape, np.float32)
    step = max(1, _PART * count // max(1, result.size))
    lead = (slice(None),) * axis
    across = (-1, *(1 for _ in shape[axis + 1 :]))
    for first in range(0, count, step):
        place = (*lead, slice(first, first + step))
        part = result[place]
        part[...] = 0.0
        for index, weight in zip(taps.source, taps.weight, strict=True):
            if weight[first : first + step].any():
                some = np.take(values, index[first : first + step], axis=axis)
                part += some * weight[first : first + step].reshape(across)
    return result


def _pass_order(samplings: Sequence[AxisSampling]) -> list[int]:
    """Return the axes that are resampled, in the order of the passes: those that become shorter come first."""
    axes = [axis for axis, sampling in enumerate(samplings) if not sampling.same]
    return sorted(axes, key=lambda axis: samplings[axis].count / samplings[axis].size)


def _pass_axis(values: Array, axis: int, sampling: AxisSampling, order: int, edge: int = 0) -> Array:
    """Resample one axis of ``values``; for B-splines it goes on for ``edge`` samples before it is mirrored."""
    if order == 3:
        from scipy.ndimage import spline_filter1d

        if edge:
            values = np.pad(values, [(edge, edge) if at == axis else (0, 0) for at in range(values.ndim)], mode="edge")
            # Both ends grow alike, so the middle stays where it is.
            sampling = AxisSampling(sampling.size + 2 * edge, sampling.count, sampling.step, sampling.shift)
        values = spline_filter1d(values, 3, axis, output=np.float32, mode="mirror")
    return _interpolate(values, axis, sampling.taps(order))


def _pass_axes(
    values: Array, first: int, samplings: Sequence[AxisSampling], orders: Sequence[int], edge: int = 0
) -> Array:
    """Resample the axes of ``values`` from number ``first`` on."""
    for axis in _pass_order(samplings):
        values = _pass_axis(values, first + axis, samplings[axis], orders[axis], edge)
    return values


def resample_image(
    image: Floats | MappedImage, samplings: Sequence[AxisSampling], orders: Sequence[int], new: NewArray = np.empty
) -> Any:
    """Return an image (channels, *spatial) on another grid, one channel after the other.

    No value lies outside the channel's range. What surrounds a body stays exactly at the smallest value, where linear
    interpolation would give that value a share above one half: normalisation takes these voxels for air.

    A pass along an axis needs whole lines of that axis and no more, so images that do not fit the memory are resampled
    in blocks of lines, with the same bits.

    Args:
        image: values as stored.
        samplings: places along each axis.
        orders: order of the interpolation along each axis, 1 or 3.
        new: makes the arrays for the result and what lies between two passes, of a shape and float32 (default: in
            memory).
    """
    result = new((len(image), *(sampling.count for sampling in samplings)), np.float32)
    axes = _pass_order(samplings)
    for channel in range(len(image)):
        here = slice(channel, channel + 1)
        low, high = _range(image, here)
        values, source = image, here
        for axis in axes:
            last = axis == axes[-1]
            shape = list(values.shape[1:])
            shape[axis] = samplings[axis].count
            target, place = (result, here) if last else (new((1, *shape), np.float32), slice(0, 1))
            for lines in _line_blocks(values.shape[1:], axis, samplings[axis].count):
                read, written = (source, *lines), (place, *lines)
                block = _pass_axis(values[read][0], axis, samplings[axis], orders[axis])
                if last:
                    np.clip(block, low, high, out=block)
                    block[_air(image, here, low, lines, samplings, axes)] = low
                target[written] = block
            values, source = target, place
    return result


def _range(image: Floats | MappedImage, channel: slice) -> tuple[np.float32, np.float32]:
    """Return the smallest and the largest value of a channel."""
    ends = [(part.min(), part.max()) for part in (slab[channel] for slab in slabs(image))]
    return min(low for low, _ in ends), max(high for _, high in ends)


def _line_blocks(shape: Sequence[int], axis: int, count: int) -> Iterator[tuple[slice, ...]]:
    """Yield boxes that cover an array and hold whole lines along an axis, before it has ``count`` samples and after."""
    across = max((other for other in range(len(shape)) if other != axis), key=lambda other: shape[other], default=axis)
    if across == axis:
        yield (slice(None),)
        return
    rest = math.prod(shape) // (shape[axis] * shape[across]) * max(shape[axis], count)
    step = max(1, _PART // max(1, rest))
    for first in range(0, shape[across], step):
        yield tuple(slice(first, first + step) if other == across else slice(None) for other in range(len(shape)))


def _air(
    image: Floats | MappedImage,
    channel: slice,
    low: np.float32,
    box: Sequence[slice],
    samplings: Sequence[AxisSampling],
    axes: Sequence[int],
) -> NDArray[np.bool_]:
    """Return where, in a box of the result, the smallest value has a share above one half."""
    place, parts = [channel, *box], {}
    for axis in axes:
        first, stop, _ = box[axis].indices(samplings[axis].count)
        begin, end, parts[axis] = samplings[axis].taps(1).part(first, stop)
        place[1 + axis] = slice(begin, end)
    share: Array = (image[tuple(place)][0] == low).astype(np.float32)
    for axis in axes:
        share = _interpolate(share, axis, parts[axis])
    return share > 0.5


def stretch_image(image: Floats, samplings: Sequence[AxisSampling], coarse: int | None = None) -> Floats:
    """Return an image (channels, *spatial) on another grid, one channel after the other, as nnU-Net resamples.

    By cubic B-splines beyond whose ends the last value goes on; no value lies outside the channel's range. Across thick
    slices the nearest slice counts, and no value lies outside the range of its slice.

    Args:
        image: values as stored.
        samplings: places along each axis.
        coarse: axis across which slices are thick, or None.
    """
    result = np.empty((len(image), *(sampling.count for sampling in samplings)), np.float32)
    rest = tuple(axis for axis in range(len(samplings)) if axis != coarse)
    plain = [AxisSampling(s.size, s.size) if axis == coarse else s for axis, s in enumerate(samplings)]
    across = [s if axis == coarse else AxisSampling(s.count, s.count) for axis, s in enumerate(samplings)]
    for channel, values in zip(result, image, strict=True):
        low, high = values.min(axis=rest, keepdims=True), values.max(axis=rest, keepdims=True)
        found = np.clip(_pass_axes(values, 0, plain, (3,) * len(samplings), _EDGE), low, high)
        channel[...] = _pass_axes(found, 0, across, (0,) * len(samplings))
    return result


def stretch_masks(
    label: Array, values: Sequence[int], samplings: Sequence[AxisSampling], coarse: int | None = None
) -> Floats:
    """Return where each of some label values lies, (values, *spatial), on another grid, as nnU-Net resamples labels.

    A voxel has the value whose interpolated mask reaches one half, the largest of several; across thick slices the
    nearest slice counts.

    Args:
        label: label values (*spatial).
        values: those that are asked for.
        samplings: places along each axis.
        coarse: axis across which slices are thick, or None.
    """
    orders = [0 if axis == coarse else 1 for axis in range(len(samplings))]
    found = np.zeros([sampling.count for sampling in samplings], label.dtype)
    for value in np.unique(label):
        mask = _pass_axes(np.asarray(label == value, np.float32), 0, samplings, orders)
        found[mask >= 0.5] = value
    return np.stack([np.asarray(found == value, np.float32) for value in values])


def interpolate_image(image: Floats, samplings: Sequence[AxisSampling]) -> Floats:
    """Return an image (channels, *spatial) on another grid, interpolated linearly, one channel after the other.

    Args:
        image: values as stored.
        samplings: places along each axis.
    """
    result = np.empty((len(image), *(sampling.count for sampling in samplings)), np.float32)
    for channel, values in zip(result, image, strict=True):
        channel[...] = _pass_axes(values, 0, samplings, (1,) * len(samplings))
    return result


def resample_label(label: Array, samplings: Sequence[AxisSampling]) -> Array:
    """Return class numbers (*spatial) on another grid: of each voxel the class whose interpolated mask is largest.

    Of equals the lowest number counts. Memory: the result, and the masks of some slices.
    """
    result = np.empty([sampling.count for sampling in samplings], label.dtype)
    taps = samplings[0].taps(1)
    for first, stop in _parts(samplings, 1):
        low, high, some = taps.part(first, stop)
        piece = label[low:high]
        classes = np.unique(piece)
        best: Array | None = None
        for value in classes:
            mask = (piece == value).astype(np.float32)
            share = _pass_axes(_interpolate(mask, 0, some), 1, samplings[1:], (1,) * (len(samplings) - 1))
            if best is None:
                best, result[first:stop] = share, value
                continue
            wins = share > best
            result[first:stop][wins] = value
            np.maximum(best, share, out=best)
    return result


def resample_slabs(
    slabs: Iterable[tuple[int, Floats]], samplings: Sequence[AxisSampling], orders: Sequence[int] = (1, 1, 1)
) -> Iterator[tuple[int, Floats]]:
    """Yield (first slice, scores (classes, slices, *rest)) on another grid, interpolated, as slabs come in.

    Args:
        slabs: (first slice, scores) along the first axis of space, in order and without a gap. One may be overwritten
            once the next is asked for.
        samplings: places along each axis.
        orders: order of the interpolation along each axis, 1 (default) or 0.
    """
    taps, done, last = samplings[0].taps(orders[0]), 0, samplings[0].size
    inner = orders[1 : len(samplings)]
    tail: Floats | None = None  # the last slice before the slab
    parts: list[tuple[int, int]] = []
    for start, slab in slabs:
        stop = start + slab.shape[1]
        parts = parts or list(_parts(samplings, slab.shape[0]))
        reach = np.where(taps.weight == 0, taps.source[:1], taps.source).max(axis=0)  # the last slice a result reads
        ready = int(np.searchsorted(reach, stop)) if stop < last else samplings[0].count
        for first, end in parts:
            first, end = max(first, done), min(end, ready)
            if first >= end:
                continue
            low, high, some = taps.part(first, end)
            piece = slab[:, max(low - start, 0) : high - start]
            if low < start:
                assert tail is not None and low == start - 1
                piece = np.concatenate([tail, piece], axis=1)
            piece = piece if samplings[0].same else _interpolate(piece, 1, some)
            yield first, _pass_axes(piece, 2, samplings[1:], inner).astype(slab.dtype, copy=False)
        done = max(done, ready)
        tail = slab[:, -1:].copy()


def _parts(samplings: Sequence[AxisSampling], classes: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of slices whose scores, on the larger of the two grids, stay within some megabytes."""
    plane = classes * math.prod(max(sampling.count, sampling.size) for sampling in samplings[1:])
    step = max(1, _PART // max(1, plane))
    for first in range(0, samplings[0].count, step):
        yield first, min(first + step, samplings[0].count)


def match_label(label: Array, matrix: NDArray[np.float64], shape: Sequence[int]) -> Array:
    """Return class numbers (*shape) of a label that lies anywhere else; 0 where it does not reach.

    Each class's mask is interpolated linearly, and the class with the largest share counts. The label reaches up to
    the outer faces of its voxels, half a voxel beyond their middles.

    Args:
        label: class numbers (*spatial).
        matrix: (dims, dims + 1) matrix from the index of the result to that of the label.
        shape: sizes of the result.
    """
    from scipy.ndimage import map_coordinates

    result = np.zeros(shape, label.dtype)
    ends = np.array(label.shape).reshape(-1, *(1 for _ in shape))
    step = max(1, _PART // max(1, math.prod(shape[1:])))
    for first in range(0, shape[0], step):
        part = result[first : first + step]
        index: NDArray[Any] = np.indices(part.shape, np.float64)
        index[0] += first
        place = np.tensordot(matrix[:, :-1], index, 1) + matrix[:, -1].reshape(-1, *(1 for _ in shape))
        # Rounding must not cut off voxels that lie exactly on a face.
        inside = ((place > -0.5 - 1e-6) & (place < ends - 0.5 + 1e-6)).all(axis=0)
        if not inside.any():
            continue
        points = np.clip(place[:, inside], 0, ends.reshape(-1, 1) - 1)
        low, high = np.floor(points.min(axis=1)).astype(int), np.ceil(points.max(axis=1)).astype(int) + 1
        piece = label[tuple(map(slice, low, high))]
        best = np.full(points.shape[1], -1.0, np.float32)
        found = np.zeros(points.shape[1], label.dtype)
        for value in np.unique(piece):
            share = map_coordinates((piece == value).astype(np.float32), points - low[:, None], order=1, mode="nearest")
            wins = share > best
            found[wins], best[wins] = value, share[wins]
        part[inside] = found
    return result
