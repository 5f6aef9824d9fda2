"""Pooling layers with every padding, and un-pooling, computed by :mod:`convoxel.nn.functional`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from convoxel.errors import ConfigError, ShapeError, check_choice
from convoxel.nn.functional.pooling import Window, binomial, blur, find_largest, find_mean
from convoxel.nn.functional.unpool import UNPOOL_MODES, unpool
from convoxel.nn.padded_convolution import BORDERS, Padding
from convoxel.nn.torch_layers import Sizes, check_dims, sizes_of


def _check_axes(layer: nn.Module, dims: int, x: Tensor) -> None:
    """Raise ShapeError where ``x`` has other axes: PyTorch would take one size of a window for both of two axes."""
    if x.dim() != dims + 2:
        raise ShapeError(
            f"{type(layer).__name__}: x has {x.dim()} axes {tuple(x.shape)}; expected {dims + 2}, (n, c, *spatial) "
            f"with {dims} spatial {'axis' if dims == 1 else 'axes'}. Reshape x, or make the layer with other dims."
        )


class _Pool(nn.Module):
    """A pooling layer's window."""

    def __init__(
        self, dims: int, kernel_size: Sizes, stride: Sizes | None, padding: Padding, dilation: Sizes, ceil_mode: bool
    ) -> None:
        super().__init__()
        self.dims = check_dims(dims)
        if padding == "same" and max(sizes_of(dims, kernel_size if stride is None else stride)) > 1:
            raise ConfigError("padding is 'same', which a pooling with a stride cannot have. Give 'half' or numbers.")
        name = type(self).__name__
        self.window = Window.of(name, dims, kernel_size, stride, padding, dilation, ceil_mode)
        if min(side for pair in self.window.pairs for side in pair) < 0:
            raise ConfigError(f"padding is {padding!r}, but a pooling pads by at least 0. Crop x itself.")

    def extra_repr(self) -> str:
        """Return the arguments that the layer was made with."""
        return (
            f"kernel_size={self.window.kernel}, stride={self.window.stride}, padding={self.window.pairs}, "
            f"dilation={self.window.dilation}, ceil_mode={self.window.ceil}"
        )


class MaxPool(_Pool):
    """The largest value of each window; padding is never the largest. See :func:`convoxel.nn.functional.max_pool`.

    Args:
        padding: an int, one for each axis, a pair (before, after) for each axis, or ``"none"``, ``"half"``, ``"full"``,
            ``"causal"``.
        return_indices: whether to return the index of each maximum too, as :class:`Unpool` takes it (default False).

    Takes ``(n, c, *spatial)``.

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

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the maxima, with ``return_indices`` their indices too."""
        _check_axes(self, self.dims, x)
        y, index = find_largest(x, self.window, self.return_indices)
        return y if index is None else (y, index)


class AvgPool(_Pool):
    """The mean of each window, with any dilation and padding. See :func:`convoxel.nn.functional.average_pool`.

    Args:
        padding: as for :class:`MaxPool`.
        dilation: an int or one for each axis; above 1 the pooling is a convolution with equal weights.
        count_include_pad: whether padded zeros count as pixels (default True).

    Takes ``(n, c, *spatial)``.

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
        self.register_buffer("ones", torch.ones(1, 1, *self.window.kernel), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the means."""
        _check_axes(self, self.dims, x)
        return find_mean(x, self.window, self.ones, self.count_include_pad)


class BlurPool(nn.Module):
    """Down-sampling without aliasing: a binomial low-pass filter, then every stride-th pixel.

    The filter is the outer product of rows of Pascal's triangle (Zhang 2019, arXiv 1904.11486, §3.2): 2 is the box,
    3 is [1, 2, 1] / 4, 5 is [1, 4, 6, 4, 1] / 16. It is a buffer that no state dict holds. See
    :func:`convoxel.nn.functional.blur_pool`.

    Args:
        kernel_size: size of the filter along every axis, at least 1 (default 3).
        padding_mode: values outside of the input: ``"reflect"``, ``"replicate"``, ``"zeros"`` or ``"circular"``.

    Takes ``(n, channels, *spatial)``, returns ⌈size / stride⌉ pixels along each axis.

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
        check_choice("padding_mode", padding_mode, BORDERS)
        self.dims, self.channels = check_dims(dims), channels
        self.kernel_size, self.stride, self.padding_mode = kernel_size, sizes_of(dims, stride), padding_mode
        kernel = binomial(kernel_size, dims).float()
        self.register_buffer("weight", kernel.expand(channels, 1, *kernel.shape).clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` blurred and down-sampled."""
        _check_axes(self, self.dims, x)
        return blur(x, self.weight.to(x.dtype), self.stride, self.padding_mode)

    def extra_repr(self) -> str:
        """Return the arguments that the layer was made with."""
        return f"{self.channels}, kernel_size={self.kernel_size}, stride={self.stride}"


class Unpool(nn.Module):
    """The inverse of a pooling; see :func:`convoxel.nn.functional.unpool`.

    Args:
        kernel_size: kernel size of the pooling that is undone.
        stride: stride of that pooling (default: ``kernel_size``).
        mode: ``"indices"``: each value goes where its maximum was, zeros elsewhere (takes the indices of a
            :class:`MaxPool`); ``"fixed"``: to ``position`` in its window ("bed of nails"); ``"nearest"``: to all
            pixels; ``"average"``: to all, divided by their number, so that sums stay.
        position: place in the window for ``"fixed"``, an int or one for each axis (default 0).

    Takes ``(n, c, *spatial)``, for ``"indices"`` also the indices.

    Raises:
        ConfigError: ``mode`` is unknown, or windows overlap for ``"nearest"``.

    >>> Unpool(1, 2, mode="fixed")(torch.tensor([[[1.0, 2.0]]])).tolist()
    [[[1.0, 0.0, 2.0, 0.0]]]
    """

    MODES = UNPOOL_MODES

    def __init__(
        self, dims: int, kernel_size: Sizes, *, stride: Sizes | None = None, mode: str = "indices", position: Sizes = 0
    ) -> None:
        super().__init__()
        check_choice("mode", mode, self.MODES)
        self.dims, self.mode, self.position = check_dims(dims), mode, position
        self.kernel_size = sizes_of(dims, kernel_size)
        self.stride = self.kernel_size if stride is None else sizes_of(dims, stride)
        if mode == "nearest" and self.stride != self.kernel_size:
            raise ConfigError(f"stride is {self.stride}, but {mode!r} needs the kernel's: {self.kernel_size}.")

    def forward(self, x: Tensor, indices: Tensor | None = None, output_size: Sequence[int] | None = None) -> Tensor:
        """Return ``x`` spread out; ``output_size`` where a pooling did not come out even."""
        size = None if output_size is None else tuple(output_size)[-self.dims :]
        own = {"mode": self.mode, "position": self.position, "stride": self.stride, "dims": self.dims}
        return unpool(x, self.kernel_size, indices=indices, output_size=size, **own)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        """Return the arguments that the layer was made with."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, mode={self.mode!r}"
