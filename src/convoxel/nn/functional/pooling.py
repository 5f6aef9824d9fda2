"""Pooling: the largest or the mean of each window, of a grid of cells, of everything; and blurred down-sampling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from convoxel.arithmetic.window import pool_size, resolve_padding, span
from convoxel.errors import ConfigError, ShapeError
from convoxel.nn.functional.batch import as_batch, check_sizes, count_axes
from convoxel.nn.functional.border import pad
from convoxel.nn.functional.convolve import Padding, Sizes
from convoxel.nn.functional.separable import separable

__all__ = [
    "adaptive_average_pool",
    "adaptive_max_pool",
    "average_pool",
    "blur_pool",
    "global_average_pool",
    "global_max_pool",
    "max_pool",
]

Pair = tuple[int, int]

_MAX: tuple[Callable[..., tuple[Tensor, Tensor]], ...] = (
    F.max_pool1d_with_indices,
    F.max_pool2d_with_indices,
    F.max_pool3d_with_indices,
)
_MAX_ONLY: tuple[Callable[..., Tensor], ...] = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
_AVERAGE: tuple[Callable[..., Tensor], ...] = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
_ADAPTIVE_AVERAGE: tuple[Callable[..., Tensor], ...] = (
    F.adaptive_avg_pool1d,
    F.adaptive_avg_pool2d,
    F.adaptive_avg_pool3d,
)
_ADAPTIVE_MAX: tuple[Callable[..., tuple[Tensor, Tensor]], ...] = (
    F.adaptive_max_pool1d_with_indices,
    F.adaptive_max_pool2d_with_indices,
    F.adaptive_max_pool3d_with_indices,
)


class _Windows:
    """Where the windows of a pooling lie along every axis."""

    def __init__(
        self,
        name: str,
        size: Sequence[int],
        kernel_size: Sizes,
        stride: Sizes | None,
        padding: Padding,
        dilation: Sizes,
        ceil: bool,
    ) -> None:
        dims = len(size)
        self.size = tuple(size)
        self.kernel = check_sizes(name, "kernel_size", kernel_size, dims)
        self.stride = self.kernel if stride is None else check_sizes(name, "stride", stride, dims)
        self.dilation = check_sizes(name, "dilation", dilation, dims)
        self.pairs = resolve_padding(padding, self.kernel, self.stride, self.dilation, self.size)
        for pair, k, d in zip(self.pairs, self.kernel, self.dilation, strict=True):
            if max(pair) >= span(k, d):
                raise ConfigError(
                    f"{name}: padding {pair} reaches the kernel's span {span(k, d)}, so that a window would hold "
                    "nothing but padding. Use less padding."
                )
        try:
            self.output = tuple(
                pool_size(i, k, s, p, d, ceil)
                for i, k, s, p, d in zip(self.size, self.kernel, self.stride, self.pairs, self.dilation, strict=True)
            )
        except ShapeError as fault:
            raise ShapeError(f"{name}: {fault}") from None

    def reach(self) -> list[Pair]:
        """The padding with which the windows end where the padded input does."""
        return [
            (before, (o - 1) * s + span(k, d) - i - before)
            for o, s, k, d, i, (before, _) in zip(
                self.output, self.stride, self.kernel, self.dilation, self.size, self.pairs, strict=True
            )
        ]

    def alike(self, least: int = 2) -> bool:
        """Whether PyTorch takes the padding: the same on both sides, at most a ``least``-th of the kernel."""
        return all(0 <= b == a <= k // least for (b, a), k in zip(self.pairs, self.kernel, strict=True))

    def counts(self, axis: int, inside: bool) -> list[int]:
        """How many elements each window has along an axis: of the input, or of the input with its padding."""
        (before, after), size = self.pairs[axis], self.size[axis]
        low, high = (0, size) if inside else (-before, size + after)
        places = (
            range(o * self.stride[axis] - before, o * self.stride[axis] - before + self.span(axis), self.dilation[axis])
            for o in range(self.output[axis])
        )
        return [sum(low <= place < high for place in window) for window in places]

    def span(self, axis: int) -> int:
        """Elements that a window covers along an axis."""
        return span(self.kernel[axis], self.dilation[axis])


def max_pool(
    x: Tensor,
    kernel_size: Sizes,
    *,
    stride: Sizes | None = None,
    padding: Padding = 0,
    dilation: Sizes = 1,
    ceil: bool = False,
    return_indices: bool = False,
    dims: int | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Return the largest value of each window, y(o) = max_m x(s o + d m − p); padding never wins, NaN does.

    Args:
        x: ``(n, c, *spatial)``, or ``(c, *spatial)`` with ``dims``.
        kernel_size: an int or one for each axis.
        stride: an int or one for each axis; ``kernel_size`` unless given.
        padding: as of :func:`correlate`, smaller than the kernel's span.
        dilation: an int or one for each axis.
        ceil: whether a last window may hang over the end (:func:`convoxel.arithmetic.pool_size`).
        return_indices: whether to return also where each value lay in ``x.flatten(-dims)``, as :func:`unpool` takes.
        dims: spatial axes; all but two of x unless given.

    Returns:
        ``(n, c, *output)``, or that and int64 indices of the same shape. A dilated window may still see nothing but
        padding; its value is −∞.

    Raises:
        ShapeError: x has a wrong number of axes or is too small. ConfigError: padding reaches the span, or an
            argument is unknown.

    >>> x = torch.tensor([[12, 20, 30, 0], [8, 12, 2, 0], [34, 70, 37, 4], [112, 100, 25, 12.0]])
    >>> max_pool(x[None, None], 2)[0, 0].tolist()
    [[20.0, 30.0], [112.0, 37.0]]
    """
    axes = count_axes(x, dims, "max_pool")
    batch, batched = as_batch(x, axes)
    windows = _Windows("max_pool", batch.shape[2:], kernel_size, stride, padding, dilation, ceil)
    plain = windows.alike()
    pads = [before for before, _ in windows.pairs] if plain else [0] * axes
    if not plain:
        batch = pad(batch, windows.reach(), "constant", -math.inf)
    arguments = (batch, windows.kernel, windows.stride, pads, windows.dilation, ceil and plain)
    if not return_indices:
        y = _MAX_ONLY[axes - 1](*arguments)
        return y if batched else y[0]
    y, index = _MAX[axes - 1](*arguments)
    if not plain:
        index = _move(index, tuple(batch.shape[2:]), windows)
    return (y, index) if batched else (y[0], index[0])


def _move(index: Tensor, padded: Sequence[int], windows: _Windows) -> Tensor:
    """Flat places in a padded tensor, as flat places in the tensor itself."""
    places, rest = [], index
    for size, (before, _) in zip(reversed(padded), reversed(windows.pairs), strict=True):
        places.append(rest % size - before)
        rest = rest // size
    flat = torch.zeros_like(index)
    for place, size in zip(reversed(places), windows.size, strict=True):
        flat = flat * size + place.clamp(0, size - 1)
    return flat


def average_pool(
    x: Tensor,
    kernel_size: Sizes,
    *,
    stride: Sizes | None = None,
    padding: Padding = 0,
    dilation: Sizes = 1,
    ceil: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
    dims: int | None = None,
) -> Tensor:
    """Return the mean of each window, y(o) = Σ_m x(s o + d m − p) / count.

    The count holds the padding, or not; what hangs over the padded end (``ceil``) never counts.

    Args:
        x: ``(n, c, *spatial)``, or ``(c, *spatial)`` with ``dims``.
        kernel_size: an int or one for each axis.
        stride: an int or one for each axis; ``kernel_size`` unless given.
        padding: as of :func:`correlate`, smaller than the kernel's span.
        dilation: an int or one for each axis.
        ceil: whether a last window may hang over the end.
        count_include_pad: whether padding counts as elements that are 0.
        divisor: to divide by instead of the count.
        dims: spatial axes; all but two of x unless given.

    Returns:
        ``(n, c, *output)``. A dilated window that sees nothing but padding is 0 / 0, which is NaN, where padding does
        not count.

    Raises:
        ShapeError: x has a wrong number of axes or is too small. ConfigError: padding reaches the span, the divisor
            is 0, or an argument is unknown.

    >>> average_pool(torch.arange(6.0)[None, None], 2, dilation=2, stride=1).tolist()
    [[[1.0, 2.0, 3.0, 4.0]]]
    """
    axes = count_axes(x, dims, "average_pool")
    if divisor == 0:
        raise ConfigError("average_pool: divisor is 0. Give another number, or None to divide by the count.")
    batch, batched = as_batch(x, axes)
    windows = _Windows("average_pool", batch.shape[2:], kernel_size, stride, padding, dilation, ceil)
    # PyTorch refuses an axis shorter than the kernel in 3-D, and knows no divisor in 1-D.
    fits = all(i >= k for i, k in zip(windows.size, windows.kernel, strict=True)) and (axes > 1 or divisor is None)
    if fits and windows.alike() and max(windows.dilation) == 1:
        pads = [before for before, _ in windows.pairs]
        own = () if axes == 1 else (divisor,)
        y = _AVERAGE[axes - 1](batch, windows.kernel, windows.stride, pads, ceil, count_include_pad, *own)
        return y if batched else y[0]
    y = pad(batch, windows.reach())
    for axis in range(axes):
        y = _sum_windows(y, axis, windows)
        if divisor is None:
            counts = torch.tensor(windows.counts(axis, not count_include_pad), dtype=y.dtype, device=y.device)
            y = y / counts.reshape(-1, *(1,) * (axes - 1 - axis))
    y = y if divisor is None else y / divisor
    return y if batched else y[0]


def _sum_windows(x: Tensor, axis: int, windows: _Windows) -> Tensor:
    """Sums along one axis: a window is the product of its axes, so the axes are summed one after the other."""
    s, d, last = windows.stride[axis], windows.dilation[axis], (windows.output[axis] - 1) * windows.stride[axis] + 1
    front = (slice(None),) * (axis + 2)
    start: tuple[slice, ...] = (*front, slice(0, last, s))
    total = x[start]
    for tap in range(1, windows.kernel[axis]):
        moved: tuple[slice, ...] = (*front, slice(tap * d, tap * d + last, s))
        total = total + x[moved]
    return total


def adaptive_average_pool(x: Tensor, output_size: Sizes, *, dims: int | None = None) -> Tensor:
    """Return the means over a grid of cells; cell j of o covers ⌊j i / o⌋ … ⌈(j + 1) i / o⌉ − 1.

    Args:
        x: ``(n, c, *spatial)``, or ``(c, *spatial)`` with ``dims``.
        output_size: cells, an int or one for each axis.
        dims: spatial axes; all but two of x unless given.

    Returns:
        ``(n, c, *output_size)``.

    Raises:
        ShapeError: x has a wrong number of axes. ConfigError: a size is below 1.

    >>> adaptive_average_pool(torch.tensor([[[1.0, 3.0, 5.0]]]), 2).tolist()
    [[[2.0, 4.0]]]
    """
    axes = count_axes(x, dims, "adaptive_average_pool")
    return _ADAPTIVE_AVERAGE[axes - 1](x, check_sizes("adaptive_average_pool", "output_size", output_size, axes))


def adaptive_max_pool(
    x: Tensor, output_size: Sizes, *, return_indices: bool = False, dims: int | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    """Return the largest values over a grid of cells, those of :func:`adaptive_average_pool`.

    Args:
        x: ``(n, c, *spatial)``, or ``(c, *spatial)`` with ``dims``.
        output_size: cells, an int or one for each axis.
        return_indices: whether to return also where each value lay in ``x.flatten(-dims)``.
        dims: spatial axes; all but two of x unless given.

    Returns:
        ``(n, c, *output_size)``, or that and int64 indices.

    Raises:
        ShapeError: x has a wrong number of axes. ConfigError: a size is below 1.

    >>> adaptive_max_pool(torch.tensor([[[1.0, 3.0, 5.0]]]), 2).tolist()
    [[[3.0, 5.0]]]
    """
    axes = count_axes(x, dims, "adaptive_max_pool")
    y, index = _ADAPTIVE_MAX[axes - 1](x, check_sizes("adaptive_max_pool", "output_size", output_size, axes))
    return (y, index) if return_indices else y


def global_average_pool(x: Tensor, *, dims: int | None = None) -> Tensor:
    """Return the mean over all positions: ``(n, c, *spatial)`` → ``(n, c, 1, …)``.

    Raises:
        ShapeError: x has a wrong number of axes.

    >>> global_average_pool(torch.tensor([[[1.0, 3.0, 5.0]]])).tolist()
    [[[3.0]]]
    """
    axes = count_axes(x, dims, "global_average_pool")
    return x.mean(dim=tuple(range(-axes, 0)), keepdim=True)


def global_max_pool(x: Tensor, *, dims: int | None = None) -> Tensor:
    """Return the largest value over all positions: ``(n, c, *spatial)`` → ``(n, c, 1, …)``.

    Raises:
        ShapeError: x has a wrong number of axes.

    >>> global_max_pool(torch.tensor([[[1.0, 3.0, 5.0]]])).tolist()
    [[[5.0]]]
    """
    axes = count_axes(x, dims, "global_max_pool")
    return x.amax(dim=tuple(range(-axes, 0)), keepdim=True)


def blur_pool(
    x: Tensor,
    kernel_size: int = 3,
    *,
    stride: Sizes = 2,
    padding_mode: str = "reflect",
    dims: int | None = None,
) -> Tensor:
    """Return every ``stride``-th element of x, blurred before with binomial weights (Zhang 2019, arXiv 1904.11486).

    Along each axis w(j) = C(k − 1, j) / 2^(k − 1): what a stride would fold onto lower frequencies is damped first.

    Args:
        x: ``(n, c, *spatial)``, or ``(c, *spatial)`` with ``dims``.
        kernel_size: k; 3 is [1, 2, 1] / 4.
        stride: an int or one for each axis.
        padding_mode: what lies outside; as of :func:`correlate`.
        dims: spatial axes; all but two of x unless given.

    Returns:
        ``(n, c, *⌈spatial / stride⌉)``.

    Raises:
        ShapeError: x has a wrong number of axes. ConfigError: ``kernel_size`` or ``stride`` is below 1.

    >>> blur_pool(torch.tensor([[[0.0, 4.0, 0.0, 4.0]]])).tolist()  # the fastest wave becomes its mean
    [[[2.0, 2.0]]]
    """
    axes = count_axes(x, dims, "blur_pool")
    (k,) = check_sizes("blur_pool", "kernel_size", kernel_size, 1)
    weights = torch.tensor([math.comb(k - 1, j) / 2 ** (k - 1) for j in range(k)], dtype=x.dtype, device=x.device)
    # Centred, so that the first output is the first element with its neighbours, whatever the stride.
    half = ((k - 1) // 2, k // 2)
    return separable(x, [weights] * axes, stride=stride, padding=[half] * axes, padding_mode=padding_mode, dims=axes)
