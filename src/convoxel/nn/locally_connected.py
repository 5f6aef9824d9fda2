"""A layer that reads neighbourhoods as a convolution does but shares no weights between positions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from convoxel.arithmetic.window import conv_size
from convoxel.errors import ShapeError
from convoxel.nn.initialisation import start_uniform
from convoxel.nn.torch_layers import check_dims, sizes_of


class LocallyConnected(nn.Module):
    """A convolution without parameter sharing: each output position has its own kernel.

    y[o, p] = b[o, p] + Σ_{c, j} K[o, c, p, j] · x[c, p·s + j − padding]. Between a convolution, which has one K for
    all p, and a fully-connected layer, which sees all of x from every p. It is the only layer that holds spatial
    sizes, since it has as many kernels as positions.

    Args:
        input_size: spatial size of the input, an int or one for each axis.
        stride: input pixels from one output to the next (default 1).
        padding: zeros on both sides of every axis (default 0).
        bias: whether every output has a bias of its own (default True).

    Takes ``(n, in_channels, *input_size)``, returns ``(n, out_channels, *output_size)``.

    Raises:
        ShapeError: the kernel does not fit into ``input_size``, or an input has another size.
        ConfigError: ``dims`` is not 1, 2 or 3.

    >>> layer = LocallyConnected(2, 1, 1, input_size=3, kernel_size=2, bias=False)
    >>> layer.weight.shape, sum(p.numel() for p in layer.parameters())
    (torch.Size([1, 1, 2, 2, 2, 2]), 16)
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        input_size: int | Sequence[int],
        kernel_size: int | Sequence[int],
        *,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.dims = check_dims(dims)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.input_size, self.kernel_size = sizes_of(dims, input_size), sizes_of(dims, kernel_size)
        self.stride, self.padding = sizes_of(dims, stride), sizes_of(dims, padding)
        self.output_size = tuple(
            conv_size(size, kernel, stride, padding)
            for size, kernel, stride, padding in zip(
                self.input_size, self.kernel_size, self.stride, self.padding, strict=True
            )
        )
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *self.output_size, *self.kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels, *self.output_size)) if bias else None
        start_uniform(self, in_channels * math.prod(self.kernel_size))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(n, out_channels, *output_size)``."""
        expected = (self.in_channels, *self.input_size)
        if tuple(x.shape[1:]) != expected:
            raise ShapeError(
                f"LocallyConnected: x is {tuple(x.shape)}, but the layer was made for (n, "
                f"{', '.join(map(str, expected))}). Resize x, or make the layer with another input_size."
            )
        both = [pad for pad in reversed(self.padding) for _ in range(2)]
        x = nn.functional.pad(x, both)
        for axis, (kernel, stride) in enumerate(zip(self.kernel_size, self.stride, strict=True)):
            x = x.unfold(2 + axis, kernel, stride)
        y = self._products(x)
        return y if self.bias is None else y + self.bias

    def _products(self, windows: Tensor) -> Tensor:
        """Return the sums of products over channels and kernel; ``windows`` is (n, c, *positions, *kernel)."""
        positions, kernel = "pqr"[: self.dims], "xyz"[: self.dims]
        return torch.einsum(f"nc{positions}{kernel},oc{positions}{kernel}->no{positions}", windows, self.weight)

    def extra_repr(self) -> str:
        """Return the arguments that the layer was made with."""
        return (
            f"{self.in_channels}, {self.out_channels}, input_size={self.input_size}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, bias={self.bias is not None}"
        )
