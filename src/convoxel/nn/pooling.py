"""Poolings with every padding, and down-sampling that does not fold high frequencies onto low ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from convoxel.arithmetic.window import resolve_padding
from convoxel.errors import ConfigError
from convoxel.nn.convolution import BORDERS, Padding
from convoxel.nn.layer import check_dims, sizes_of

__all__ = ["AvgPool", "BlurPool", "MaxPool", "Unpool"]

Sizes = int | Sequence[int]

_MAX = (nn.functional.max_pool1d, nn.functional.max_pool2d, nn.functional.max_pool3d)
_CONV = (nn.functional.conv1d, nn.functional.conv2d, nn.functional.conv3d)
_AVERAGE = (nn.functional.avg_pool1d, nn.functional.avg_pool2d, nn.functional.avg_pool3d)
_UNPOOL = (nn.functional.max_unpool1d, nn.functional.max_unpool2d, nn.functional.max_unpool3d)


class _Pool(nn.Module):
    """The window that poolings have in common."""

    def __init__(
        self, dims: int, kernel_size: Sizes, stride: Sizes | None, padding: Padding, dilation: Sizes, ceil_mode: bool
    ) -> None:
        super().__init__()
        self.dims = check_dims(dims)
        self.kernel_size = sizes_of(dims, kernel_size)
        self.stride = self.kernel_size if stride is None else sizes_of(dims, stride)
        self.dilation = sizes_of(dims, dilation)
        if padding == "same" and max(self.stride) > 1:
            raise ConfigError("padding is 'same', which a pooling with a stride cannot have. Give 'half' or numbers.")
        self.padding = resolve_padding(padding, self.kernel_size, self.stride, self.dilation)
        if min(side for pair in self.padding for side in pair) < 0:
            raise ConfigError(f"padding is {padding!r}, but a pooling pads by at least 0. Crop x itself.")
        self.ceil_mode = ceil_mode

    @property
    def sides(self) -> list[int]:
        """The padding in the order of ``torch.nn.functional.pad``."""
        return [side for pair in reversed(self.padding) for side in pair]

    @property
    def symmetric(self) -> bool:
        """Whether PyTorch's own pooling can pad so: alike on both sides, by half a kernel at most."""
        pairs = zip(self.padding, self.kernel_size, strict=True)
        return all(before == after <= kernel // 2 for (before, after), kernel in pairs)

    def extra_repr(self) -> str:
        """Return what the layer was made with."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool(_Pool):
    """The largest value of each window; what is padded never wins.

    Args:
        dims: spatial axes, 1, 2 or 3.
        kernel_size: an int or one for each axis.
        stride: the kernel's size unless given.
        padding: an int, one for each axis, a pair (before, after) for each axis, or ``"none"``, ``"half"``, ``"full"``,
            ``"causal"``.
        dilation: an int or one for each axis.
        ceil_mode: whether the last window may hang over the end.
        return_indices: also return where each maximum was, as :class:`Unpool` takes it.

    Takes ``(n, c, *spatial)``.

    Raises:
        ConfigError: an argument is unknown, or indices are asked for with asymmetric padding.

    >>> x = torch.tensor([[12.0, 20, 30, 0], [8, 12, 2, 0], [34, 70, 37, 4], [112, 100, 25, 12]])
    >>> MaxPool(2, 2)(x[None, None])[0, 0].tolist()
    [[20.0, 30.0], [112.0, 37.0]]
    """

    def __init__(
        self,
        dims: int,
        kernel_size: Sizes,
        *,
        stride: Sizes | None = None,
        padding: Padding = 0,
        dilation: Sizes = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> None:
        super().__init__(dims, kernel_size, stride, padding, dilation, ceil_mode)
        self.return_indices = return_indices
        if return_indices and not self.symmetric:
            raise ConfigError(
                f"padding is {padding!r}, with which indices would count padded pixels. Give the same on both sides."
            )

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the maxima, with ``return_indices`` their places too."""
        pads = tuple(before for before, _ in self.padding)
        if not self.symmetric:
            x, pads = nn.functional.pad(x, self.sides, value=-math.inf), (0,) * self.dims
        window = (self.kernel_size, self.stride, pads, self.dilation, self.ceil_mode)
        found: Tensor | tuple[Tensor, Tensor] = _MAX[self.dims - 1](x, *window, return_indices=self.return_indices)
        return found


class AvgPool(_Pool):
    """The mean of each window, dilated and padded as wanted.

    Args:
        dims: spatial axes, 1, 2 or 3.
        kernel_size: an int or one for each axis.
        stride: the kernel's size unless given.
        padding: as of :class:`MaxPool`.
        dilation: an int or one for each axis; above 1 the pooling is a convolution with equal weights.
        ceil_mode: whether the last window may hang over the end; not with dilation.
        count_include_pad: whether padded zeros count as pixels.

    Takes ``(n, c, *spatial)``.

    Raises:
        ConfigError: an argument is unknown, or ``ceil_mode`` meets dilation or asymmetric padding.

    >>> AvgPool(1, 2, stride=1, dilation=2)(torch.tensor([[[1.0, 2, 3, 6]]])).tolist()
    [[[2.0, 4.0]]]
    >>> AvgPool(1, 2, stride=1, padding=((1, 0),), count_include_pad=False)(torch.tensor([[[1.0, 2, 3]]])).tolist()
    [[[1.0, 1.5, 2.5]]]
    """

    ones: Tensor

    def __init__(
        self,
        dims: int,
        kernel_size: Sizes,
        *,
        stride: Sizes | None = None,
        padding: Padding = 0,
        dilation: Sizes = 1,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(dims, kernel_size, stride, padding, dilation, ceil_mode)
        self.count_include_pad = count_include_pad
        if ceil_mode and (not self.symmetric or max(self.dilation) > 1):
            raise ConfigError("ceil_mode is given with dilation or asymmetric padding. Pad at the end instead.")
        self.register_buffer("ones", torch.ones(1, 1, *self.kernel_size), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the means."""
        if max(self.dilation) > 1 or not (self.symmetric or self.count_include_pad):
            total = self._sum(x)
            if self.count_include_pad:
                return total / math.prod(self.kernel_size)
            return total / self._sum(torch.ones_like(x[:1, :1]))
        pads = tuple(before for before, _ in self.padding)
        if not self.symmetric:
            x, pads = nn.functional.pad(x, self.sides), (0,) * self.dims
        window = (self.kernel_size, self.stride, pads, self.ceil_mode, self.count_include_pad)
        found: Tensor = _AVERAGE[self.dims - 1](x, *window)
        return found

    def _sum(self, x: Tensor) -> Tensor:
        """Sums of windows, each channel as an image of its own: one kernel of ones serves any number of them."""
        images = nn.functional.pad(x.flatten(0, 1).unsqueeze(1), self.sides)
        total: Tensor = _CONV[self.dims - 1](images, self.ones.to(x.dtype), None, self.stride, 0, self.dilation)
        return total.squeeze(1).unflatten(0, (-1, x.shape[1]))


class BlurPool(nn.Module):
    """Down-sampling without aliasing: a binomial low-pass filter, then every stride-th pixel.

    The filter is the outer product of rows of Pascal's triangle (Zhang 2019, arXiv 1904.11486, §3.2): 2 is the box,
    3 is [1, 2, 1] / 4, 5 is [1, 4, 6, 4, 1] / 16. It is a buffer that no state dict holds.

    Args:
        dims: spatial axes, 1, 2 or 3.
        channels: of the input.
        kernel_size: of the filter along every axis, at least 1.
        stride: an int or one for each axis.
        padding_mode: what lies outside: ``"reflect"``, ``"replicate"``, ``"zeros"`` or ``"circular"``.

    Takes ``(n, channels, *spatial)``, returns ⌈size / stride⌉ pixels along each axis.

    Raises:
        ConfigError: an argument is out of range.

    >>> BlurPool(1, 1)(torch.tensor([[[0.0, 4, 0, 4]]])).tolist()  # the highest frequency is gone
    [[[2.0, 2.0]]]
    """

    weight: Tensor

    def __init__(
        self, dims: int, channels: int, kernel_size: int = 3, *, stride: Sizes = 2, padding_mode: str = "reflect"
    ) -> None:
        super().__init__()
        if isinstance(kernel_size, bool) or not isinstance(kernel_size, int) or kernel_size < 1:
            raise ConfigError(f"kernel_size is {kernel_size!r}, but it must be a whole number of at least 1.")
        if padding_mode not in BORDERS:
            raise ConfigError(f"padding_mode is {padding_mode!r}, but it can be {', '.join(map(repr, BORDERS))}.")
        self.dims, self.channels = check_dims(dims), channels
        self.kernel_size, self.stride, self.padding_mode = kernel_size, sizes_of(dims, stride), padding_mode
        row = torch.tensor([math.comb(kernel_size - 1, place) for place in range(kernel_size)], dtype=torch.float64)
        kernel = row / row.sum()
        for _ in range(dims - 1):
            kernel = kernel[..., None] * row / row.sum()
        weight = kernel.float().expand(channels, 1, *kernel.shape).clone()
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the blurred and thinned ``x``."""
        before, after = (self.kernel_size - 1) // 2, self.kernel_size // 2
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        padded = nn.functional.pad(x, (before, after) * self.dims, mode=mode)
        found: Tensor = _CONV[self.dims - 1](padded, self.weight.to(x.dtype), None, self.stride, 0, 1, self.channels)
        return found

    def extra_repr(self) -> str:
        """Return what the layer was made with."""
        return f"{self.channels}, kernel_size={self.kernel_size}, stride={self.stride}"


class Unpool(nn.Module):
    """The way back from a pooling.

    Args:
        dims: spatial axes, 1, 2 or 3.
        kernel_size: of the pooling that is undone.
        stride: of that pooling; its kernel's size unless given.
        mode: ``"max"``: each value goes where its maximum was, zeros elsewhere (takes the indices of a
            :class:`MaxPool`); ``"corner"``: to the first pixel of its window ("bed of nails"); ``"nearest"``: to all
            pixels; ``"average"``: to all, divided by their number, so that sums stay.

    Takes ``(n, c, *spatial)``, for ``"max"`` also the indices. All but ``"max"`` need windows side by side (stride =
    kernel).

    Raises:
        ConfigError: ``mode`` is unknown, or windows overlap.

    >>> Unpool(1, 2, mode="corner")(torch.tensor([[[1.0, 2.0]]])).tolist()
    [[[1.0, 0.0, 2.0, 0.0]]]
    """

    MODES = ("max", "corner", "nearest", "average")

    def __init__(self, dims: int, kernel_size: Sizes, *, stride: Sizes | None = None, mode: str = "max") -> None:
        super().__init__()
        if mode not in self.MODES:
            raise ConfigError(f"mode is {mode!r}, but it can be {', '.join(map(repr, self.MODES))}.")
        self.dims, self.mode = check_dims(dims), mode
        self.kernel_size = sizes_of(dims, kernel_size)
        self.stride = self.kernel_size if stride is None else sizes_of(dims, stride)
        if mode != "max" and self.stride != self.kernel_size:
            raise ConfigError(f"stride is {self.stride}, but {mode!r} needs the kernel's: {self.kernel_size}.")

    def forward(self, x: Tensor, indices: Tensor | None = None, output_size: Sequence[int] | None = None) -> Tensor:
        """Return ``x`` spread out; ``output_size`` where a pooling did not come out even, for ``"max"``."""
        if self.mode == "max":
            if indices is None:
                raise ConfigError("Unpool: mode 'max' needs indices. Take them from MaxPool(…, return_indices=True).")
            wanted = None if output_size is None else list(output_size)
            found: Tensor = _UNPOOL[self.dims - 1](x, indices, list(self.kernel_size), list(self.stride), 0, wanted)
            return found
        if self.mode == "corner":
            for axis, size in enumerate(self.kernel_size, 2):
                x = nn.functional.pad(x.unsqueeze(axis + 1), (0, 0) * (x.dim() - axis - 1) + (0, size - 1))
                x = x.flatten(axis, axis + 1)
            return x
        share = math.prod(self.kernel_size) if self.mode == "average" else 1
        factors = [float(size) for size in self.kernel_size]
        return nn.functional.interpolate(x / share if share > 1 else x, scale_factor=factors, mode="nearest")

    def extra_repr(self) -> str:
        """Return what the layer was made with."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, mode={self.mode!r}"
