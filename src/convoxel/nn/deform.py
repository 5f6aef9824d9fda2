"""A convolution whose kernel elements move with the input."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from convoxel.nn.convolution import Conv, Padding
from convoxel.nn.functional.deform import deform_conv
from convoxel.nn.layer import check_dims, sizes_of

__all__ = ["DeformConv"]

Sizes = int | Sequence[int]


class DeformConv(nn.Module):
    """A deformable convolution that finds its own offsets (Dai et al. 2017), and weights of elements (Zhu et al. 2019).

    y(o) = Σₘ K(m) · x(s o + d m − p + Δ(o, m)) · μ(o, m). A convolution of the same window, called ``offset``, gives
    the shifts Δ, and with ``modulated`` one called ``mask`` gives 2 σ(·) as the weights μ; both start at 0, so the
    layer starts as a plain convolution with the parameters ``weight`` and ``bias`` of ``torch.nn``.

    Args:
        dims: spatial axes, 1, 2 or 3.
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: an int or one for each axis.
        stride: an int or one for each axis.
        padding: as of :func:`convoxel.nn.Conv`.
        dilation: an int or one for each axis.
        groups: of channels.
        offset_groups: how many groups of input channels move by themselves.
        modulated: whether kernel elements are weighted too (v2).
        bias: whether each output channel has a constant.

    Takes ``(n, in_channels, *spatial)``. The engine computes the offsets; the gathering runs in PyTorch.

    Raises:
        ConfigError: ``dims`` or ``padding`` is unknown.

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
        super().__init__()
        self.dims, self.kernel_size = check_dims(dims), sizes_of(dims, kernel_size)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.stride, self.padding, self.dilation = sizes_of(dims, stride), padding, sizes_of(dims, dilation)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *self.kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        # PyTorch's start of a convolution: uniform within ±1 / √(products behind one output).
        limit = 1.0 / math.sqrt(in_channels // groups * math.prod(self.kernel_size))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -limit, limit)
        elements = offset_groups * math.prod(self.kernel_size)
        self.offset = self._guide(elements * dims)
        self.mask = self._guide(elements) if modulated else None

    def _guide(self, outputs: int) -> nn.Module:
        made = Conv(
            self.dims,
            self.in_channels,
            outputs,
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )
        for parameter in made.parameters():
            nn.init.zeros_(parameter)
        return made

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(n, out_channels, *output_size)``."""
        mask = None if self.mask is None else 2.0 * torch.sigmoid(self.mask(x))
        window = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}
        return deform_conv(x, self.offset(x), self.weight, self.bias, mask=mask, **window)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        """Return what the layer was made with."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding!r}, dilation={self.dilation}, groups={self.groups}"
        )
