"""Pooling: the largest value or the mean of each window, of a grid of cells or of all positions; blur pooling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from convoxel.arithmetic.argument import truth, whole
from convoxel.arithmetic.window import Pair, pool_size, span
from convoxel.errors import ConfigError, ShapeError
from convoxel.nn.functional.arguments import as_batch, check_sizes, count_axes
from convoxel.nn.functional.border import check_mode, pad
from convoxel.nn.functional.correlation import Padding, Sizes
from convoxel.nn.torch_layers import padding_pairs

_CONV: tuple[Callable[..., Tensor], ...] = (F.conv1d, F.conv2d, F.conv3d)
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


_MOST_TAPS = 1024  # of a blur; beyond, the outer weights are smaller than any number, and the work has no end


@dataclass(frozen=True)
class Window:
    """The window of a pooling, in numbers for each axis. Layers keep one; functions make one at every call.

    Attributes:
        kernel, stride, dilation: numbers of each axis.
        pairs: padding (before, after) of each axis.
        ceil: whether the last window may reach beyond the end.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pairs: tuple[Pair, ...]
    dilation: tuple[int, ...]
    ceil: bool = False

    @classmethod
    def of(
        cls,
        name: str,
        dims: int,
        kernel_size: Sizes,
        stride: Sizes | None,
        padding: Padding,
        dilation: Sizes,
        ceil: bool,
        size: Sequence[int] | None = None,
    ) -> Window:
        """Return the window that the arguments of a pooling describe, checked against the ``size`` of an input.

        Raises:
            ConfigError: an argument is unknown, or the padding is as wide as the kernel's span.
            ShapeError: the padded input is smaller than the kernel's span.
        """
        kernel = check_sizes(name, "kernel_size", kernel_size, dims)
        strides = kernel if stride is None else check_sizes(name, "stride", stride, dims)
        dilations = check_sizes(name, "dilation", dilation, dims)
        pairs = padding_pairs(padding, kernel, strides, dilations, size)
        for pair, k, d in zip(pairs, kernel, dilations, strict=True):
            if max(pair) >= span(k, d):
                raise ConfigError(
                    f"{name}: padding {pair} reaches the kernel's span {span(k, d)}, so that a window would hold "
                    "nothing but padding. Use less padding."
                )
        window = cls(kernel, strides, pairs, dilations, truth(f"{name}: ceil", ceil))
        try:
            if size is not None:
                window.sizes(size)
        except ShapeError as fault:
            raise ShapeError(f"{name}: {fault}") from None
        return window

    def sizes(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the output's size.

        Raises:
            ShapeError: the padded input is smaller than the kernel's span.
        """
        axes = zip(size, self.kernel, self.stride, self.pairs, self.dilation, strict=True)
        return tuple(pool_size(*axis, self.ceil) for axis in axes)

    @property
    def alike(self) -> bool:
        """True if PyTorch's poolings take the padding: the same on both sides, at most half of the kernel."""
        return all(0 <= b == a <= k // 2 for (b, a), k in zip(self.pairs, self.kernel, strict=True))

    @property
    def before(self) -> list[int]:
        """The padding before the first element of each axis."""
        return [pair[0] for pair in self.pairs]

    def reach(self, size: Sequence[int]) -> Sequence[Pair]:
        """Return the padding with which no window reaches beyond the end."""
        if not self.ceil:
            return self.pairs
        axes = zip(self.sizes(size), self.stride, self.kernel, self.dilation, size, self.before, strict=True)
        return [(before, (o - 1) * s + span(k, d) - i - before) for o, s, k, d, i, before in axes]


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
        padding: as for :func:`correlate`, smaller than the kernel's span.
        ceil: whether the last window may reach beyond the end (:func:`convoxel.arithmetic.pool_size`).
        return_indices: whether to return indices into ``x.flatten(-dims)`` too, as :func:`unpool` takes them.

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
    window = Window.of("max_pool", axes, kernel_size, stride, padding, dilation, ceil, batch.shape[2:])
    y, index = find_largest(batch, window, truth("max_pool: return_indices", return_indices))
    if index is None:
        return y if batched else y[0]
    return (y, index) if batched else (y[0], index[0])


def find_largest(x: Tensor, window: Window, indices: bool = False) -> tuple[Tensor, Tensor | None]:
    """Return the largest values of ``(n, c, *spatial)``, with ``indices`` also their indices in ``x.flatten(2)``."""
    axes, size, pads, ceil = x.dim() - 2, tuple(x.shape[2:]), window.before, window.ceil
    if not window.alike:
        x, pads, ceil = pad(x, window.reach(size), "constant", -math.inf), [0] * axes, False
    arguments = (x, window.kernel, window.stride, pads, window.dilation, ceil)
    if not indices:
        return _MAX_ONLY[axes - 1](*arguments), None
    y, index = _MAX[axes - 1](*arguments)
    return y, index if window.alike else _move(index, x.shape[2:], size, window.before)


def _move(index: Tensor, padded: Sequence[int], size: Sequence[int], before: Sequence[int]) -> Tensor:
    """Return flat indices into a padded tensor as flat indices into the tensor itself."""
    places, rest = [], index
    for wide, first in zip(reversed(padded), reversed(before), strict=True):
        places.append(rest % wide - first)
        rest = rest // wide
    flat = torch.zeros_like(index)
    for place, inner in zip(reversed(places), size, strict=True):
        flat = flat * inner + place.clamp(0, inner - 1)
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

    The count includes the padding if asked for, and never what lies beyond the padded end (``ceil``).

    Args:
        padding: as for :func:`correlate`, smaller than the kernel's span.
        count_include_pad: whether padding counts as elements that are 0.
        divisor: number to divide by instead of the count (default None).

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
    divisor = None if divisor is None else whole("average_pool: divisor", divisor)
    if divisor == 0:
        raise ConfigError("average_pool: divisor is 0. Give another number, or None to divide by the count.")
    batch, batched = as_batch(x, axes)
    window = Window.of("average_pool", axes, kernel_size, stride, padding, dilation, ceil, batch.shape[2:])
    counted = truth("average_pool: count_include_pad", count_include_pad)
    y = find_mean(batch, window, batch.new_ones(1, 1, *window.kernel), counted, divisor)
    return y if batched else y[0]


def find_mean(x: Tensor, window: Window, ones: Tensor, count_include_pad: bool, divisor: int | None = None) -> Tensor:
    """Return the means of ``(n, c, *spatial)``; ``ones`` ``(1, 1, *kernel)`` sums where PyTorch's poolings cannot."""
    axes, size = x.dim() - 2, tuple(x.shape[2:])
    # PyTorch refuses an axis shorter than the kernel in 3-D, and knows no divisor in 1-D.
    fits = divisor is None if axes == 1 else axes == 2 or all(i >= k for i, k in zip(size, window.kernel, strict=True))
    if fits and window.alike and max(window.dilation) == 1:
        own = () if axes == 1 else (divisor,)
        return _AVERAGE[axes - 1](x, window.kernel, window.stride, window.before, window.ceil, count_include_pad, *own)
    reach = window.reach(size)
    total = _sum_windows(pad(x, reach), window, ones)
    if divisor is not None:
        return total / divisor
    if count_include_pad and not window.ceil:
        return total / math.prod(window.kernel)
    # The input counts, the padding if asked for, and never what lies beyond the padded end.
    held = pad(torch.ones_like(x[:1, :1]), window.pairs, "constant", float(count_include_pad))
    over = [(0, wide[1] - given[1]) for wide, given in zip(reach, window.pairs, strict=True)]
    return total / _sum_windows(pad(held, over), window, ones)


def _sum_windows(x: Tensor, window: Window, ones: Tensor) -> Tensor:
    """Return the sums of windows; each channel is a separate image, so that one kernel of ones serves all."""
    images = x.flatten(0, 1).unsqueeze(1)
    total = _CONV[x.dim() - 3](images, ones.to(x.device, x.dtype), None, window.stride, 0, window.dilation)
    sums: Tensor = total.squeeze(1).unflatten(0, (-1, x.shape[1]))
    return sums


def adaptive_average_pool(x: Tensor, output_size: Sizes, *, dims: int | None = None) -> Tensor:
    """Return the means over a grid of cells; cell j of o covers ⌊j i / o⌋ … ⌈(j + 1) i / o⌉ − 1.

    Args:
        output_size: cells, an int or one for each axis.

    Returns:
        ``(n, c, *output_size)``.

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
        output_size: cells, an int or one for each axis.
        return_indices: whether to return the index of each value in ``x.flatten(-dims)`` too.

    Returns:
        ``(n, c, *output_size)``, or that and int64 indices.

    >>> adaptive_max_pool(torch.tensor([[[1.0, 3.0, 5.0]]]), 2).tolist()
    [[[3.0, 5.0]]]
    """
    axes = count_axes(x, dims, "adaptive_max_pool")
    y, index = _ADAPTIVE_MAX[axes - 1](x, check_sizes("adaptive_max_pool", "output_size", output_size, axes))
    return (y, index) if truth("adaptive_max_pool: return_indices", return_indices) else y


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
    x: Tensor, kernel_size: int = 3, *, stride: Sizes = 2, padding_mode: str = "reflect", dims: int | None = None
) -> Tensor:
    """Return every ``stride``-th element of x, blurred before with binomial weights (Zhang 2019, arXiv 1904.11486).

    Along each axis w(j) = C(k − 1, j) / 2^(k − 1), which damps frequencies that the stride would fold onto lower ones.

    Args:
        kernel_size: k; 3 is [1, 2, 1] / 4.

    Returns:
        ``(n, c, *⌈spatial / stride⌉)``.

    >>> blur_pool(torch.tensor([[[0.0, 4.0, 0.0, 4.0]]])).tolist()  # the fastest wave becomes its mean
    [[[2.0, 2.0]]]
    """
    axes = count_axes(x, dims, "blur_pool")
    (k,) = check_sizes("blur_pool", "kernel_size", kernel_size, 1)
    strides = check_sizes("blur_pool", "stride", stride, axes)
    check_mode(padding_mode)
    batch, batched = as_batch(x, axes)
    weight = binomial(k, axes).to(x.device, x.dtype).expand(batch.shape[1], 1, *(k,) * axes)
    y = blur(batch, weight, strides, padding_mode)
    return y if batched else y[0]


def binomial(k: int, dims: int) -> Tensor:
    """Return the filter of :func:`blur_pool`, in float64: the outer product of rows of Pascal's triangle, of sum 1.

    >>> binomial(3, 1).tolist(), binomial(2, 2).tolist()
    ([0.25, 0.5, 0.25], [[0.25, 0.25], [0.25, 0.25]])
    """
    if k > _MOST_TAPS:
        raise ConfigError(f"kernel_size is {k}, but a blur has at most {_MOST_TAPS} weights along an axis. Give fewer.")
    row = torch.tensor([math.comb(k - 1, j) / 2 ** (k - 1) for j in range(k)], dtype=torch.float64)
    kernel = row
    for _ in range(dims - 1):
        kernel = kernel[..., None] * row
    return kernel


def blur(x: Tensor, weight: Tensor, stride: Sequence[int], padding_mode: str) -> Tensor:
    """Return ``(n, c, *spatial)`` filtered by ``(c, 1, *kernel)``, its first output centred on the first element."""
    padded = pad(x, [((k - 1) // 2, k // 2) for k in weight.shape[2:]], padding_mode)
    return _CONV[x.dim() - 3](padded, weight, None, stride, 0, 1, x.shape[1])
