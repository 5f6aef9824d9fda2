"""Up-sampling: resizing, pixel shuffle, and up-sampling with weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from convoxel.errors import ConfigError, check_choice
from convoxel.nn.functional.resize import RESIZE_MODES, resize
from convoxel.nn.functional.shuffle import pixel_shuffle
from convoxel.nn.padded_convolution import Conv, ConvTranspose
from convoxel.nn.pooling_layers import Unpool
from convoxel.nn.torch_layers import Sizes, check_dims, norm, sizes_of


def Norm(kind: str, dims: int, channels: int, *, eps: float = 1e-5, momentum: float = 0.1) -> nn.Module:
    """Return the normalisation called ``kind``, a key of ``NORMS``; an identity for ``"none"``.

    PyTorch's own layers under their names; see :func:`convoxel.nn.norm`, which returns None for ``"none"``.

    >>> Norm("none", 2, 4), Norm("group", 3, 16).num_groups
    (Identity(), 8)
    """
    made = norm(kind, dims, channels, eps=eps, momentum=momentum)
    return nn.Identity() if made is None else made


class Resize(nn.Module):
    """Images of another size by interpolation, up or down.

    Args:
        scale: factor, one for all axes or one for each; or give ``size``.
        size: wanted size, an int or one for each axis.
        mode: ``"nearest"``, ``"nearest-exact"``, ``"linear"``, ``"cubic"``, ``"area"`` or ``"spline"`` (a B-spline
            through all pixels).
        align_corners: whether the centres of the corner pixels stay in place (linear and cubic); by default pixels
            are areas and borders stay in place.
        antialias: whether kernels widen when the image shrinks, so that no pixel is skipped (linear and cubic).
        order: order of the spline, 0 to 5 (default 3).

    Takes ``(n, c, *spatial)``.

    Raises:
        ConfigError: ``mode`` is unknown, or not one of ``scale`` and ``size`` is given.

    >>> import torch
    >>> Resize(1, 2)(torch.tensor([[[0.0, 4.0]]])).tolist()
    [[[0.0, 1.0, 3.0, 4.0]]]
    """

    MODES = RESIZE_MODES

    def __init__(
        self,
        dims: int,
        scale: float | Sequence[float] | None = None,
        *,
        size: Sizes | None = None,
        mode: str = "linear",
        align_corners: bool = False,
        antialias: bool = False,
        order: int = 3,
    ) -> None:
        super().__init__()
        self.dims = check_dims(dims)
        check_choice("mode", mode, self.MODES)
        if (scale is None) == (size is None):
            raise ConfigError("Resize: give one of scale and size.")
        self.scale = None if scale is None else _factors(dims, scale)
        self.size = None if size is None else sizes_of(dims, size)
        self.mode, self.align_corners, self.antialias, self.order = mode, align_corners, antialias, order

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` at its new size."""
        return resize(
            x,
            self.size,
            scale=self.scale,
            mode=self.mode,
            order=self.order,
            align_corners=self.align_corners,
            antialias=self.antialias,
            dims=self.dims,
        )

    def extra_repr(self) -> str:
        """Return the arguments that the layer was made with."""
        what = f"size={self.size}" if self.scale is None else f"scale={self.scale}"
        return f"{what}, mode={self.mode!r}, align_corners={self.align_corners}"


def _factors(dims: int, scale: float | Sequence[float]) -> list[float]:
    found = [float(scale)] * dims if isinstance(scale, (int, float)) else [float(factor) for factor in scale]
    if len(found) != dims or min(found) <= 0:
        raise ConfigError(f"scale is {scale!r}, but dims={dims} needs one factor above 0, or {dims}.")
    return found


class PixelShuffle(nn.Module):
    """Channels become pixels: ``(n, c · ∏s, *spatial)`` → ``(n, c, *spatial · s)`` (Shi et al. 2016, arXiv 1609.05158).

    Channel c · ∏s + j goes to channel c, at position j (row by row) of each block; in 2-D as ``nn.PixelShuffle``.

    Args:
        scale: s, an int or one for each axis.

    Raises:
        ShapeError: the channels are no multiple of ∏s.

    >>> import torch
    >>> PixelShuffle(1, 2)(torch.tensor([[[1.0, 3.0], [2.0, 4.0]]])).tolist()
    [[[1.0, 2.0, 3.0, 4.0]]]
    """

    def __init__(self, dims: int, scale: Sizes) -> None:
        super().__init__()
        self.dims, self.scale = check_dims(dims), sizes_of(dims, scale)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with fewer channels and more pixels."""
        return pixel_shuffle(x, self.scale, dims=self.dims)

    def extra_repr(self) -> str:
        """Return the arguments that the layer was made with."""
        return f"scale={self.scale}"


class Upsample(nn.Sequential):
    """Up-sampling with weights, in one of four ways.

    ``"transposed"``: a transposed convolution. Where the stride does not divide the kernel, neighbouring outputs sum
    different numbers of products, which shows as a checkerboard (Odena, Dumoulin & Olah 2016). ``"resize"``:
    interpolation, then a convolution, which cannot. ``"shuffle"``: a convolution to ∏s times the channels, then
    :class:`PixelShuffle`. ``"unpool"``: each value to the first pixel of its window, zeros elsewhere, then a
    convolution. :func:`convoxel.inspect.upsampling` measures them.

    Args:
        scale: an int or one for each axis.
        kind: ``"transposed"``, ``"resize"``, ``"shuffle"`` or ``"unpool"``.
        kernel_size: 2 · scale for ``"transposed"`` (even overlap), the next odd number from the scale on for
            ``"unpool"`` (no holes), at least 3; else 3. Odd for all but ``"transposed"``.
        mode: interpolation of ``"resize"``, ``"linear"`` (default) or ``"nearest"``.
        bias: whether the convolution has a bias (default True).

    Takes ``(n, in_channels, *spatial)``, returns ``(n, out_channels, *spatial · scale)``.

    Raises:
        ConfigError: ``kind`` is unknown, or a kernel does not bring the size out even.

    >>> import torch
    >>> {Upsample(2, 4, 2, 2, kind)(torch.zeros(1, 4, 5, 6)).shape[2:] for kind in Upsample.KINDS}
    {torch.Size([10, 12])}
    """

    KINDS = ("transposed", "resize", "shuffle", "unpool")

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        scale: Sizes = 2,
        kind: str = "transposed",
        *,
        kernel_size: Sizes | None = None,
        mode: str = "linear",
        bias: bool = True,
    ) -> None:
        check_choice("kind", kind, self.KINDS)
        factors = sizes_of(check_dims(dims), scale)
        kernel = _usual(kind, factors) if kernel_size is None else sizes_of(dims, kernel_size)
        if kind == "transposed":
            super().__init__(_even(dims, in_channels, out_channels, kernel, factors, bias))
            return
        if any(size % 2 == 0 for size in kernel):
            raise ConfigError(f"kernel_size is {kernel}, but kind {kind!r} needs odd sizes, which keep the size.")
        made = out_channels * (math.prod(factors) if kind == "shuffle" else 1)
        conv = Conv(dims, in_channels, made, kernel, padding="same", bias=bias)
        if kind == "shuffle":
            super().__init__(conv, PixelShuffle(dims, factors))
        elif kind == "unpool":
            super().__init__(Unpool(dims, factors, mode="fixed"), conv)
        else:
            super().__init__(Resize(dims, [float(factor) for factor in factors], mode=mode), conv)


def _usual(kind: str, scale: tuple[int, ...]) -> tuple[int, ...]:
    """Return the default kernel of an up-sampling."""
    if kind == "transposed":
        return tuple(2 * factor for factor in scale)
    return tuple(max(3, factor | 1) if kind == "unpool" else 3 for factor in scale)


def _even(
    dims: int, inputs: int, outputs: int, kernel: tuple[int, ...], stride: tuple[int, ...], bias: bool
) -> nn.Module:
    """Return the transposed convolution with exactly stride times as many output pixels: p₁ + p₂ − a = k − s."""
    if any(size < factor for size, factor in zip(kernel, stride, strict=True)):
        raise ConfigError(f"kernel_size is {kernel}, but a stride of {stride} would leave holes. Give at least that.")
    # An odd surplus is made even by one pixel more at the end, which PyTorch calls output_padding.
    spare = [size - factor for size, factor in zip(kernel, stride, strict=True)]
    pads, extra = tuple((rest + 1) // 2 for rest in spare), tuple(rest % 2 for rest in spare)
    return ConvTranspose(dims, inputs, outputs, kernel, stride=stride, padding=pads, output_padding=extra, bias=bias)


def upsamplers(dims: int, in_channels: int, out_channels: int, scale: int = 2) -> dict[str, nn.Module]:
    """Return all ways of up-sampling with weights, by name, for comparison.

    Transposed convolutions with kernels of scale, scale + 1 and 2 · scale; interpolation and a convolution; a pixel
    shuffle; un-pooling and a convolution.

    Args:
        scale: outputs for one input along each axis, at least 2 (default 2).

    >>> list(upsamplers(2, 4, 4))[:2]
    ['transposed, kernel 2', 'transposed, kernel 3']
    """
    if isinstance(scale, bool) or not isinstance(scale, int) or scale < 2:
        raise ConfigError(f"upsamplers: scale is {scale!r}, but it must be a whole number of at least 2.")
    of = partial(Upsample, dims, in_channels, out_channels, scale)
    transposed: dict[str, nn.Module] = {
        f"transposed, kernel {kernel}": of("transposed", kernel_size=kernel) for kernel in (scale, scale + 1, 2 * scale)
    }
    return transposed | {
        "nearest + convolution": of("resize", mode="nearest"),
        "linear + convolution": of("resize", mode="linear"),
        "convolution + pixel shuffle": of("shuffle"),
        "un-pooling + convolution": of("unpool"),
    }
