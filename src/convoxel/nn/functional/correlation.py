"""Convolution, cross-correlation and transposed convolution of tensors with 1, 2 or 3 spatial axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn import functional as F

from convoxel.arithmetic.argument import whole
from convoxel.arithmetic.window import Pair, conv_size, transposed_size
from convoxel.errors import ConfigError, ShapeError
from convoxel.nn.functional.arguments import as_batch, check_sizes, count_axes
from convoxel.nn.functional.border import check_mode, pad
from convoxel.nn.torch_layers import check_dims, padding_pairs

Sizes = int | Sequence[int]
Padding = str | int | Sequence[int] | Sequence[Pair]

_CONV: tuple[Callable[..., Tensor], ...] = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSED: tuple[Callable[..., Tensor], ...] = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


def correlate(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sizes = 1,
    padding: Padding = "none",
    dilation: Sizes = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    value: float = 0.0,
    dims: int | None = None,
) -> Tensor:
    """Return the cross-correlation that layers of CNNs compute: S(i) = Σ_m I(s i + d m − p) K(m), K not flipped.

    Goodfellow et al. 2016, eq. 9.6; sizes by Dumoulin & Visin 2016 (:func:`convoxel.arithmetic.conv_size`).

    Args:
        x: ``(n, c, *spatial)`` or ``(c, *spatial)``.
        w: ``(o, c / groups, *kernel)``. With ``dims`` axes it is a plain kernel, and so must be x.
        padding: an int, one for each axis, a pair (before, after) for each axis, or ``"none"``, ``"half"``,
            ``"full"``, ``"same"`` or ``"causal"``; see :func:`convoxel.arithmetic.resolve_padding`.
        padding_mode: values outside of x: ``"zeros"``, ``"constant"`` (``value``), ``"reflect"``, ``"replicate"`` or
            ``"circular"``, of any width.
        value: value outside for ``"constant"`` (default 0).
        dims: number of spatial axes (default: all axes of w but two).

    Returns:
        ``(n, o, *output)``, without the axes that x lacks.

    Raises:
        ShapeError: axes, channels or bias do not fit, or the kernel is larger than the padded x.
        ConfigError: an unknown word, or a sequence with a wrong number of entries.

    >>> import torch
    >>> correlate(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 10.0]), dims=1)
    tensor([21., 32.])
    """
    return _correlate("correlate", x, w, bias, stride, padding, dilation, groups, padding_mode, value, dims)


def convolve(
    x: Tensor, w: Tensor, bias: Tensor | None = None, *, stride: Sizes = 1, padding: Padding = "none",
    dilation: Sizes = 1, groups: int = 1, padding_mode: str = "zeros", value: float = 0.0, dims: int | None = None,
) -> Tensor:  # fmt: skip
    """Return the convolution of signal processing: S(i) = Σ_m I(m) K(i − m), a correlation with K flipped.

    Goodfellow et al. 2016, eq. 9.4. All spatial axes of w are flipped, its channels are not. With ``padding="full"``
    it commutes; ``"same"`` puts the odd element before x, as ``scipy.signal.convolve`` does.

    Args, Raises: as for :func:`correlate`.

    Returns:
        ``(n, o, *output)``, without the axes that x lacks.

    >>> import torch
    >>> convolve(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 10.0]), padding="full", dims=1)
    tensor([ 1., 12., 23., 30.])
    """
    axes = _kernel_axes("convolve", w, dims)
    if padding == "same":  # the mirror image of what "same" means where the kernel is not flipped
        kernel, size = w.shape[w.dim() - axes :], x.shape[x.dim() - axes :]
        pairs = padding_pairs("same", kernel, stride, dilation, size)
        padding = tuple((after, before) for before, after in pairs)
    flipped = w.flip(tuple(range(w.dim() - axes, w.dim())))
    return _correlate("convolve", x, flipped, bias, stride, padding, dilation, groups, padding_mode, value, axes)


def conv_transpose(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sizes = 1,
    padding: Padding = "none",
    output_padding: Sizes = 0,
    output_size: Sizes | None = None,
    dilation: Sizes = 1,
    groups: int = 1,
    dims: int | None = None,
) -> Tensor:
    """Return the transpose of a correlation: ⟨correlate(z, w), x⟩ = ⟨z, conv_transpose(x, w)⟩.

    o = s (i − 1) + e + a − p_before − p_after with e = d (k − 1) + 1 (DV 8-14). ``stride``, ``padding`` and
    ``dilation`` are those of the correlation that is transposed, so padding crops.

    Args:
        x: ``(n, c, *spatial)`` or ``(c, *spatial)``.
        w: ``(c, o / groups, *kernel)``, the weights of the correlation.
        padding: as for :func:`correlate`; ``"same"`` with a stride needs ``output_size``.
        output_padding: a, elements after the end that the correlation does not read (default 0).
        output_size: wanted spatial size, instead of ``output_padding``.
        dims: number of spatial axes (default: all axes of w but two).

    Returns:
        ``(n, o, *output)``, without the axes that x lacks.

    Raises:
        ShapeError: axes, channels or bias do not fit; no such ``output_size``; nothing would be left.
        ConfigError: an unknown word, both ``output_padding`` and ``output_size``, or a wrong number of entries.

    >>> import torch
    >>> conv_transpose(torch.ones(1, 1, 3), torch.ones(1, 1, 3), stride=2, padding=1, output_size=6)
    tensor([[[1., 2., 1., 2., 1., 1.]]])
    """
    name = "conv_transpose"
    axes = _kernel_axes(name, w, dims)
    x, w, restore = _plain(name, x, w, axes)
    _check_channels(name, x, w, bias, groups, transposed=True)
    kernel, size = tuple(w.shape[2:]), tuple(x.shape[2:])
    strides, dilations = (check_sizes(name, "stride", stride, axes), check_sizes(name, "dilation", dilation, axes))
    extra = check_sizes(name, "output_padding", output_padding, axes, least=0)
    wanted = None if output_size is None else check_sizes(name, "output_size", output_size, axes)
    if wanted is not None and any(extra):
        raise ConfigError(f"{name}: both output_padding {extra} and output_size {wanted} are given. Give one of them.")
    pairs = padding_pairs(padding, kernel, strides, dilations, wanted)
    window = list(zip(size, kernel, strides, pairs, dilations, strict=True))
    if wanted is None:
        sizes = [transposed_size(i, k, s, p, d, a) for (i, k, s, p, d), a in zip(window, extra, strict=True)]
    else:
        sizes = list(wanted)
        for o, (i, k, s, p, d) in zip(wanted, window, strict=True):
            if conv_size(o, k, s, p, d) != i:
                raise ShapeError(
                    f"{name}: output_size is {wanted}, but a convolution makes {conv_size(o, k, s, p, d)} of {o} "
                    f"elements (k={k}, s={s}, p={p}, d={d}) and x has {i} there. Give a size that it maps onto {i}."
                )
    # Elements that fall beyond the output; PyTorch crops alike on both sides, and the rest is cropped here.
    ends = [(p[0], (i - 1) * s + d * (k - 1) + 1 - o - p[0]) for o, (i, k, s, p, d) in zip(sizes, window, strict=True)]
    crop = [max(min(end), 0) for end in ends]
    y = _TRANSPOSED[axes - 1](x, w, None, strides, crop, 0, groups, dilations)
    y = pad(y, [(c - before, c - after) for c, (before, after) in zip(crop, ends, strict=True)])
    if bias is not None:
        y = y + bias.reshape(-1, *(1,) * axes)
    return y.reshape(y.shape[restore:])


def _correlate(
    name: str,
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    stride: Sizes,
    padding: Padding,
    dilation: Sizes,
    groups: int,
    padding_mode: str,
    value: float,
    dims: int | None,
) -> Tensor:
    check_mode(padding_mode)
    axes = _kernel_axes(name, w, dims)
    x, w, restore = _plain(name, x, w, axes)
    _check_channels(name, x, w, bias, groups)
    kernel, size = tuple(w.shape[2:]), tuple(x.shape[2:])
    strides, dilations = (check_sizes(name, "stride", stride, axes), check_sizes(name, "dilation", dilation, axes))
    pairs = padding_pairs(padding, kernel, strides, dilations, size)
    try:
        for window in zip(size, kernel, strides, pairs, dilations, strict=True):
            conv_size(*window)
    except ShapeError as fault:
        raise ShapeError(f"{name}: {fault}\n  x {tuple(x.shape)}, w {tuple(w.shape)}") from None
    inner: Sequence[int] = (0,) * axes
    if padding_mode == "zeros" and all(before == after >= 0 for before, after in pairs):
        inner = [before for before, _ in pairs]
    else:
        x = pad(x, pairs, padding_mode, value)
    y = _CONV[axes - 1](x, w, bias, strides, inner, dilations, groups)
    return y.reshape(y.shape[restore:])


def _kernel_axes(name: str, w: Tensor, dims: int | None) -> int:
    if dims is not None:
        return check_dims(dims)
    if w.dim() not in (3, 4, 5):
        raise ShapeError(
            f"{name}: w has {w.dim()} axes {tuple(w.shape)}; expected (o, c, *kernel) with 1 to 3 kernel axes. "
            "Give dims= for a plain kernel."
        )
    return w.dim() - 2


def _plain(name: str, x: Tensor, w: Tensor, axes: int) -> tuple[Tensor, Tensor, int]:
    """Return x and w with batch and channels, and the number of these axes that the result loses again."""
    if w.dim() == axes:
        if x.dim() != axes:
            raise ShapeError(
                f"{name}: w is a plain kernel {tuple(w.shape)}, but x is {tuple(x.shape)}. Give both channels."
            )
        return x[None, None], w[None, None], 2
    if w.dim() != axes + 2:
        raise ShapeError(
            f"{name}: w has {w.dim()} axes {tuple(w.shape)}; expected {axes + 2} (two of channels), or {axes} for a "
            "plain kernel."
        )
    count_axes(x, axes, name)
    batch, batched = as_batch(x, axes)
    return batch, w, 0 if batched else 1


def _check_channels(
    name: str, x: Tensor, w: Tensor, bias: Tensor | None, groups: int, transposed: bool = False
) -> None:
    shapes = f"\n  x {tuple(x.shape)}, w {tuple(w.shape)}, groups={groups}"
    if whole(f"{name}: groups", groups, 1) > w.shape[0] or w.shape[0] % groups:
        raise ShapeError(
            f"{name}: groups is {groups}, but it must be at least 1 and divide the {w.shape[0]} kernels of w.{shapes}"
        )
    expected = w.shape[0] if transposed else w.shape[1] * groups
    if x.shape[1] != expected:
        raise ShapeError(
            f"{name}: x has {x.shape[1]} channels but w expects {expected}.{shapes}\n  Give x {expected} channels, or "
            "other weights or groups."
        )
    out = w.shape[1] * groups if transposed else w.shape[0]
    if bias is not None and tuple(bias.shape) != (out,):
        raise ShapeError(
            f"{name}: bias is {tuple(bias.shape)}, but there are {out} output channels. Give ({out},).{shapes}"
        )
    if x.dtype != w.dtype:
        raise ShapeError(f"{name}: x is {x.dtype} but w is {w.dtype}. Convert one: x.to(w.dtype).")
