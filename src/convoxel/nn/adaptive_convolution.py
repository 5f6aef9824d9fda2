"""Convolutions whose kernel depends on the input: its elements move, or it is mixed from several for each sample."""

from __future__ import annotations

import math
from typing import TypedDict

import torch
from torch import Tensor, nn

from convoxel.arithmetic.argument import whole
from convoxel.errors import ConfigError
from convoxel.nn.functional.deform import deform_conv
from convoxel.nn.functional.dynamic import dynamic_conv
from convoxel.nn.initialisation import start_uniform
from convoxel.nn.padded_convolution import Conv, Padding
from convoxel.nn.torch_layers import Sizes, check_dims, sizes_of


class _Window(TypedDict):
    stride: tuple[int, ...]
    padding: Padding
    dilation: tuple[int, ...]


class _Convolution(nn.Module):
    """Parameters and window of a convolution: ``weight`` ``(*kernels, out, in / groups, *kernel)``, ``bias``."""

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        window: tuple[Sizes, Padding, Sizes],
        groups: int,
        bias: bool,
        kernels: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.dims, self.kernel_size = check_dims(dims), sizes_of(dims, kernel_size)
        groups = whole("groups", groups, 1)
        if in_channels % groups or out_channels % groups:
            raise ConfigError(
                f"groups is {groups}, but it must divide in_channels {in_channels} and out_channels {out_channels}."
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        stride, padding, dilation = window
        self.window: _Window = {
            "stride": sizes_of(dims, stride), "padding": padding, "dilation": sizes_of(dims, dilation)
        }  # fmt: skip
        self.weight = nn.Parameter(torch.empty(*kernels, out_channels, in_channels // groups, *self.kernel_size))
        self.bias = nn.Parameter(torch.empty(*kernels, out_channels)) if bias else None
        start_uniform(self, in_channels // groups * math.prod(self.kernel_size))

    def extra_repr(self) -> str:
        """Return the arguments that the layer was made with."""
        window = ", ".join(f"{name}={value!r}" for name, value in self.window.items())
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, {window}, groups={self.groups}"
        )


class DeformConv(_Convolution):
    """A deformable convolution that finds its own offsets (Dai et al. 2017), and weights of elements (Zhu et al. 2019).

    y(o) = Σₘ K(m) · x(s o + d m − p + Δ(o, m)) · μ(o, m). A convolution of the same window, called ``offset``, gives
    the shifts Δ, and with ``modulated`` one called ``mask`` gives 2 σ(·) as the weights μ; both start at 0, so the
    layer starts as a plain convolution with the parameters ``weight`` and ``bias`` of ``torch.nn``.

    Args:
        offset_groups: number of groups of input channels with offsets of their own (default 1).
        modulated: whether kernel elements are weighted too, as in v2 (default True).

    Takes ``(n, in_channels, *spatial)``. Compiled programs call PyTorch for the gathering.

    >>> layer, plain = DeformConv(3, 2, 4, 3, padding=1), nn.Conv3d(2, 4, 3, padding=1)
    >>> _ = layer.load_state_dict(plain.state_dict(), strict=False)
    >>> x = torch.rand(1, 2, 4, 5, 6)
    >>> torch.allclose(layer(x), plain(x), atol=1e-5)
    True
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        *,
        stride: Sizes = 1,
        padding: Padding = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        offset_groups: int = 1,
        modulated: bool = True,
        bias: bool = True,
    ) -> None:
        window = stride, padding, dilation
        super().__init__(dims, in_channels, out_channels, kernel_size, window, groups, bias)
        elements = offset_groups * math.prod(self.kernel_size)
        self.offset = self._guide(elements * dims)
        self.mask = self._guide(elements) if modulated else None

    def _guide(self, outputs: int) -> nn.Module:
        made = Conv(self.dims, self.in_channels, outputs, self.kernel_size, **self.window)
        for parameter in made.parameters():
            nn.init.zeros_(parameter)
        return made

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(n, out_channels, *output_size)``."""
        mask = None if self.mask is None else 2.0 * torch.sigmoid(self.mask(x))
        return deform_conv(x, self.offset(x), self.weight, self.bias, mask=mask, groups=self.groups, **self.window)


class DynamicConv(_Convolution):
    """A convolution whose kernel is, for each sample, a mixture of ``experts`` kernels with shares that depend on it.

    K = Σₑ αₑ Kₑ with α = softmax(R · mean(x) / T) (Yang et al. 2019, arXiv 1904.04971; Chen et al. 2020, arXiv
    1912.03458). R starts at 0, so that the layer starts as a convolution with the mean of its kernels. It costs one
    convolution for each sample, with any number of kernels.

    Args:
        experts: number of kernels that are mixed (default 4).
        temperature: T (default 1); large values mix evenly, which helps at the beginning of training.
        bias: whether each kernel has a bias, mixed with the same shares (default True).

    Takes ``(n, in_channels, *spatial)``. The engine has no such kernels: compiled programs call PyTorch for this layer.

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
        if experts < 1 or not 0 < temperature < math.inf:
            raise ConfigError(
                f"DynamicConv: experts is {experts!r} and temperature {temperature!r}; expected at least 1 and a "
                "number above 0."
            )
        window = stride, padding, dilation
        super().__init__(dims, in_channels, out_channels, kernel_size, window, groups, bias, (experts,))
        self.temperature = temperature
        self.router = nn.Linear(in_channels, experts)
        nn.init.zeros_(self.router.weight)
        nn.init.zeros_(self.router.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(n, out_channels, *output_size)``."""
        shares = torch.softmax(self.router(x.flatten(2).mean(2)) / self.temperature, dim=1)
        weight = torch.tensordot(shares, self.weight, dims=1)
        bias = None if self.bias is None else shares @ self.bias
        return dynamic_conv(x, weight, bias, groups=self.groups, dims=self.dims, **self.window)

    def extra_repr(self) -> str:
        """Return the arguments that the layer was made with."""
        return f"{super().extra_repr()}, experts={self.weight.shape[0]}"
