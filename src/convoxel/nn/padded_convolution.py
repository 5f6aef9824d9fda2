"""PyTorch's convolutions with every padding: by word, asymmetric, "same" with a stride, causal, any border."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from convoxel.arithmetic.window import span, transposed_size
from convoxel.errors import ConfigError, ShapeError, check_choice
from convoxel.nn.torch_layers import ConvLayer, Sizes, TransposedLayer, check_dims, padding_pairs, sizes_of

Padding = str | int | Sequence[int] | Sequence[tuple[int, int]]

# Values outside of the input, in PyTorch's words.
BORDERS = ("zeros", "reflect", "replicate", "circular")


class _Window:
    """The numbers of a convolution of ``torch.nn``, one for each axis."""

    dims: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str | tuple[int, ...]
    dilation: tuple[int, ...]


class _Padded(_Window):
    """Additions of the three convolutions to PyTorch's; see :func:`Conv`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Padding = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_choice("padding_mode", padding_mode, BORDERS)
        kernel, strides, dilations = (sizes_of(self.dims, value) for value in (kernel_size, stride, dilation))
        fitted = padding == "same" and max(strides) > 1  # depends on the input's size
        pairs = ((0, 0),) * self.dims if fitted else padding_pairs(padding, kernel, strides, dilations)
        plain = padding_mode == "zeros" and all(before == after >= 0 for before, after in pairs)
        pads = tuple(before for before, _ in pairs) if plain else 0
        channels, window = (in_channels, out_channels), (kernel, strides, pads, dilations)
        super().__init__(*channels, *window, groups, bias, "zeros", device, dtype)  # type: ignore[call-arg]
        # PyTorch pads alike on both sides, with zeros; everything else is padded here.
        self.pairs = None if fitted or plain else pairs
        self.fitted, self.border = fitted, padding_mode

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(n, out_channels, *output_size)`` of ``x`` ``(n, in_channels, *spatial)``."""
        pairs = self._fit(x) if self.fitted else self.pairs
        if pairs is not None:
            mode = "constant" if self.border == "zeros" else self.border
            x = nn.functional.pad(x, [side for pair in reversed(pairs) for side in pair], mode=mode)
        y: Tensor = super().forward(x)  # type: ignore[misc]
        return y

    def _fit(self, x: Tensor) -> Sequence[tuple[int, int]]:
        """Return the padding of "same" with a stride, also where the input's size is a symbol."""
        pairs = []
        for i, k, s, d in zip(x.shape[-self.dims :], self.kernel_size, self.stride, self.dilation, strict=True):
            total = ((i + s - 1) // s - 1) * s + span(k, d) - i
            if span(k, d) < s:  # else the total is at least span − stride, and a maximum would hide that from exports
                total = torch.sym_max(total, 0)
            pairs.append((total // 2, total - total // 2))
        return pairs

    def extra_repr(self) -> str:
        """Return the arguments that the layer was made with."""
        text: str = super().extra_repr()  # type: ignore[misc]
        if self.fitted:
            return f"{text}, padding='same'"
        return text if self.pairs is None else f"{text}, padding={self.pairs}, padding_mode={self.border!r}"


class Conv1d(_Padded, nn.Conv1d):
    """``nn.Conv1d`` with every padding; see :func:`Conv`."""

    dims = 1


class Conv2d(_Padded, nn.Conv2d):
    """``nn.Conv2d`` with every padding; see :func:`Conv`."""

    dims = 2


class Conv3d(_Padded, nn.Conv3d):
    """``nn.Conv3d`` with every padding; see :func:`Conv`."""

    dims = 3


_CONV: tuple[type[Conv1d] | type[Conv2d] | type[Conv3d], ...] = (Conv1d, Conv2d, Conv3d)


def Conv(
    dims: int,
    in_channels: int,
    out_channels: int,
    kernel_size: Sizes,
    *,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    bias: bool = True,
    padding_mode: str = "zeros",
) -> ConvLayer:
    """Return :class:`Conv1d`, ``2d`` or ``3d``: PyTorch's layer, its parameters under its names, with every padding.

    Args:
        padding: an int, one for each axis, a pair (before, after) for each axis (negative numbers crop), or a word:
            ``"none"``, ``"half"``, ``"full"``, ``"same"`` (output ⌈i / s⌉, also with a stride, as TensorFlow pads),
            ``"causal"``; see :func:`convoxel.arithmetic.resolve_padding`.
        padding_mode: values outside of the input: ``"zeros"``, ``"reflect"``, ``"replicate"`` or ``"circular"``.

    Returns:
        An instance of ``nn.Conv1d``, ``2d`` or ``3d``: ``(n, in_channels, *spatial)`` → ``(n, out_channels, *o)``.

    >>> Conv(1, 1, 4, 3, padding="causal", dilation=2)(torch.zeros(1, 1, 8)).shape
    torch.Size([1, 4, 8])
    >>> Conv(3, 1, 4, 3, stride=2, padding="same")(torch.zeros(1, 1, 7, 8, 9)).shape
    torch.Size([1, 4, 4, 4, 5])
    >>> Conv(2, 1, 4, 2, padding=((1, 0), (0, 1)))(torch.zeros(1, 1, 5, 5)).shape
    torch.Size([1, 4, 5, 5])
    """
    return _CONV[check_dims(dims) - 1](
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
    )


class _Reaching(_Window):
    """Additions of the three transposed convolutions to PyTorch's; see :func:`ConvTranspose`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Padding = 0,
        output_padding: Sizes = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Sizes = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        kernel, strides, dilations = (sizes_of(self.dims, value) for value in (kernel_size, stride, dilation))
        if padding == "same":
            raise ConfigError(
                "padding is 'same', which does not say how a transposed convolution is cropped. Give 'half', numbers, "
                "or the wanted size: layer(x, output_size)."
            )
        pairs = padding_pairs(padding, kernel, strides, dilations)
        if min(side for pair in pairs for side in pair) < 0:
            raise ConfigError(f"padding is {padding!r}, but this layer only crops: give at least 0, and pad x.")
        plain = all(before == after for before, after in pairs)
        pads, more = tuple(before for before, _ in pairs) if plain else 0, sizes_of(self.dims, output_padding)
        channels, window = (in_channels, out_channels), (kernel, strides, pads, more)
        super().__init__(*channels, *window, groups, bias, dilations, "zeros", device, dtype)  # type: ignore[call-arg]
        # PyTorch crops alike on both sides; otherwise the whole result is made and cropped here.
        self.pairs = None if plain else pairs

    def forward(self, x: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """Return ``(n, out_channels, *output_size)``; ``output_size`` chooses among the sizes that fit."""
        pairs = self.pairs or ((0, 0),) * self.dims
        wanted = None if output_size is None else tuple(output_size)[-self.dims :]
        whole = None if wanted is None else [size + sum(pair) for size, pair in zip(wanted, pairs, strict=True)]
        try:
            y: Tensor = super().forward(x, whole)  # type: ignore[misc]
        except ValueError:
            if wanted is None:
                raise
            raise ShapeError(self._explain(x, wanted)) from None
        return y if self.pairs is None else nn.functional.pad(y, [-side for pair in reversed(pairs) for side in pair])

    def _explain(self, x: Tensor, wanted: Sequence[int]) -> str:
        ranges = []
        for axis, i in enumerate(x.shape[-self.dims :]):
            pad = int(self.padding[axis]) if self.pairs is None else self.pairs[axis]
            least = transposed_size(i, self.kernel_size[axis], self.stride[axis], pad, self.dilation[axis])
            ranges.append(f"{least} … {least + self.stride[axis] - 1}")
        return (
            f"ConvTranspose: output_size is {tuple(wanted)}, but x of {tuple(x.shape[-self.dims :])} pixels can give "
            f"{', '.join(ranges)} along its axes. Give sizes among these."
        )

    def extra_repr(self) -> str:
        """Return the arguments that the layer was made with."""
        text: str = super().extra_repr()  # type: ignore[misc]
        return text if self.pairs is None else f"{text}, padding={self.pairs}"


class ConvTranspose1d(_Reaching, nn.ConvTranspose1d):
    """``nn.ConvTranspose1d`` with every padding; see :func:`ConvTranspose`."""

    dims = 1


class ConvTranspose2d(_Reaching, nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` with every padding; see :func:`ConvTranspose`."""

    dims = 2


class ConvTranspose3d(_Reaching, nn.ConvTranspose3d):
    """``nn.ConvTranspose3d`` with every padding; see :func:`ConvTranspose`."""

    dims = 3


_CONV_TRANSPOSE: tuple[type[ConvTranspose1d] | type[ConvTranspose2d] | type[ConvTranspose3d], ...] = (
    ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
)  # fmt: skip


def ConvTranspose(
    dims: int,
    in_channels: int,
    out_channels: int,
    kernel_size: Sizes,
    *,
    stride: Sizes = 1,
    padding: Padding = 0,
    output_padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    bias: bool = True,
) -> TransposedLayer:
    """Return :class:`ConvTranspose1d`, ``2d`` or ``3d``: the transpose of the convolution with these numbers.

    Args:
        stride: pixels of the output for each of the input (default 1).
        padding: padding of the convolution that is transposed, so it crops: an int, one for each axis, a pair for each
            axis, or ``"none"``, ``"half"``, ``"full"``, ``"causal"``.
        output_padding: pixels added at the end of every axis, which the convolution does not read (default 0).

    Returns:
        An instance of ``nn.ConvTranspose1d``, ``2d`` or ``3d``, called as ``layer(x)`` or ``layer(x, output_size)``.

    Raises:
        ConfigError: an argument is unknown. ShapeError: no such ``output_size`` is possible.

    >>> ConvTranspose(2, 4, 1, 3, stride=2, padding=((1, 0), (0, 1)))(torch.zeros(1, 4, 4, 4)).shape
    torch.Size([1, 1, 8, 8])
    """
    return _CONV_TRANSPOSE[check_dims(dims) - 1](
        in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation
    )
