"""A convolution whose kernel is mixed for every sample."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from convoxel.errors import ConfigError
from convoxel.nn.convolution import Padding
from convoxel.nn.functional.dynamic import dynamic_conv
from convoxel.nn.layer import check_dims, sizes_of

__all__ = ["DynamicConv"]

Sizes = int | Sequence[int]


class DynamicConv(nn.Module):
    """A convolution with a kernel of each sample's own: a mixture of a few, by what the sample looks like.

    K = Σₑ αₑ Kₑ with α = softmax(R · mean(x) / T) (Yang et al. 2019, arXiv 1904.04971; Chen et al. 2020, arXiv
    1912.03458). R starts at 0, so that the layer starts as a convolution with the mean of its kernels. It costs one
    convolution for a sample, whatever the number of kernels.

    Args:
        dims: spatial axes, 1, 2 or 3.
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: an int or one for each axis.
        experts: kernels that are mixed.
        temperature: T; large ones mix evenly, which helps at the beginning of training.
        stride: an int or one for each axis.
        padding: as of :func:`convoxel.nn.Conv`.
        dilation: an int or one for each axis.
        groups: of channels.
        bias: whether each kernel comes with constants of the output channels, mixed alike.

    Takes ``(n, in_channels, *spatial)``. The engine has no kernels that change: the layer runs in PyTorch there.

    Raises:
        ConfigError: ``dims``, ``experts`` or ``temperature`` is out of range.

    >>> layer = DynamicConv(2, 4, 8, 3, padding=1)
    >>> layer(torch.zeros(5, 4, 6, 7)).shape, layer.weight.shape
    (torch.Size([5, 8, 6, 7]), torch.Size([4, 8, 4, 3, 3]))
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        *,
        experts: int = 4,
        temperature: float = 1.0,
        stride: Sizes = 1,
        padding: Padding = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if experts < 1 or not 0 < temperature < math.inf:
            raise ConfigError(
                f"DynamicConv: experts is {experts!r} and temperature {temperature!r}; expected at least 1 and a "
                "number above 0."
            )
        self.dims, self.kernel_size = check_dims(dims), sizes_of(dims, kernel_size)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.stride, self.padding, self.dilation = sizes_of(dims, stride), padding, sizes_of(dims, dilation)
        self.temperature = temperature
        self.weight = nn.Parameter(torch.empty(experts, out_channels, in_channels // groups, *self.kernel_size))
        self.bias = nn.Parameter(torch.empty(experts, out_channels)) if bias else None
        # PyTorch's start of a convolution: uniform within ±1 / √(products behind one output).
        limit = 1.0 / math.sqrt(in_channels // groups * math.prod(self.kernel_size))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -limit, limit)
        self.router = nn.Linear(in_channels, experts)
        nn.init.zeros_(self.router.weight)
        nn.init.zeros_(self.router.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(n, out_channels, *output_size)``."""
        shares = torch.softmax(self.router(x.flatten(2).mean(2)) / self.temperature, dim=1)
        weight = torch.tensordot(shares, self.weight, dims=1)
        bias = None if self.bias is None else shares @ self.bias
        return dynamic_conv(
            x,
            weight,
            bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            dims=self.dims,
        )

    def extra_repr(self) -> str:
        """Return what the layer was made with."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"experts={self.weight.shape[0]}, stride={self.stride}, padding={self.padding!r}, "
            f"dilation={self.dilation}, groups={self.groups}"
        )
