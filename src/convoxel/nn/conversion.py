"""Conversions that keep the function: linear layers as convolutions, images as volumes, memory layouts."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from convoxel.errors import ConfigError, ShapeError, check_choice
from convoxel.files.fault import brief
from convoxel.files.values import Array, JsonObject
from convoxel.nn.torch_layers import CONV, ConvLayer, TransposedLayer, average_pool, check_dims, conv, sizes_of

_Weighted = ConvLayer | TransposedLayer | nn.Linear
_Array = TypeVar("_Array", Tensor, Array)


# ---- linear layers and convolutions ----------------------------------------------------------------------


def linear_to_conv(linear: nn.Linear, dims: int, size: int | Sequence[int] = 1) -> nn.Module:
    """Return the convolution that applies ``linear`` to the flattened grid at every position.

    y[o] = Σ_c Σ_j W[o, (c, j)] x[c, j] is a convolution whose kernel is as large as the grid j; for a grid of one
    position it is a 1×1 convolution (Long, Shelhamer & Darrell 2015, arXiv 1411.4038, §3.1).

    Args:
        linear: a layer on c · ∏ size values, flattened from ``(c, *size)``.
        size: size of the grid, an int or one for each axis (default 1).

    Returns:
        ``nn.Conv1d``, 2d or 3d with copies of the weights: ``(n, c, *size)`` → ``(n, out_features, 1, …)``.

    Raises:
        ShapeError: ``linear`` does not take a multiple of the grid's positions.
        ConfigError: ``dims`` or ``size`` does not fit.

    >>> linear, x = nn.Linear(3 * 2 * 2, 5), torch.rand(1, 3, 2, 2)
    >>> torch.allclose(linear_to_conv(linear, 2, 2)(x).flatten(1), linear(x.flatten(1)))
    True
    """
    grid = sizes_of(check_dims(dims), size)
    positions = math.prod(grid)
    if linear.in_features % positions:
        raise ShapeError(
            f"linear_to_conv: linear takes {linear.in_features} values, not a multiple of the {positions} positions "
            f"of size={grid}. Give the size of the feature map that is flattened before it."
        )
    made = conv(dims, linear.in_features // positions, linear.out_features, grid, bias=linear.bias is not None)
    _take_weights(made, linear, linear.weight.reshape(made.weight.shape))
    return made


def conv_to_linear(layer: nn.Module) -> nn.Linear:
    """Return the linear layer that applies ``layer`` to a flattened grid of the kernel's size.

    The inverse of :func:`linear_to_conv`: takes ``(n, in_channels · ∏ kernel_size)``, returns ``(n, out_channels)``.

    Raises:
        ConfigError: ``layer`` is no convolution, or has groups.

    >>> layer = nn.Conv3d(4, 8, 1)
    >>> conv_to_linear(layer).weight.equal(layer.weight.flatten(1))
    True
    """
    if not isinstance(layer, CONV) or layer.groups != 1:
        came = f"a convolution with groups={layer.groups}" if hasattr(layer, "groups") else f"a {type(layer).__name__}"
        raise ConfigError(f"conv_to_linear: layer is {came}; expected a convolution without groups.")
    made = nn.Linear(layer.weight[0].numel(), layer.out_channels, layer.bias is not None)
    _take_weights(made, layer, layer.weight.flatten(1))
    return made


def _take_weights(made: _Weighted, source: _Weighted, weight: Tensor) -> None:
    """Give ``made`` the weights ``weight`` and the bias, device, type and mode of ``source``."""
    made.to(weight.device, weight.dtype)
    with torch.no_grad():
        made.weight.copy_(weight)
        if made.bias is not None and source.bias is not None:
            made.bias.copy_(source.bias)
    made.train(source.training)


class FullyConvolutional(nn.Module):
    """A classifier whose head is a convolution, so that a larger image gives a map of logits.

    See :func:`fully_convolutional`.
    """

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(n, num_classes, *positions)`` of ``x`` ``(n, in_channels, *spatial)``."""
        logits: Tensor = self.head(self.body.features(x)[-1])  # type: ignore[operator]
        return logits


def fully_convolutional(model: nn.Module, size: int | Sequence[int]) -> FullyConvolutional:
    """Return a classification network that runs on larger images than ``size`` and gives logits at many positions.

    On an image of ``size`` the result is that of ``model``. A larger one gives a map: each position has the logits
    of one window, except that windows inside an image see their neighbours where ``model`` saw padding. Linear
    layers become convolutions (:func:`linear_to_conv`); the average over everything becomes an average over as
    many positions as it had at ``size``.

    Args:
        model: a classification network of ``convoxel.models``: ``features(x)`` gives feature maps, ``avgpool``
            follows, then linear layers in ``classifier`` or ``fc``. Not changed; its weights are copied.
        size: spatial size of the images that it was made for, an int or one for each axis.

    Returns:
        A module ``(n, in_channels, *spatial)`` → ``(n, num_classes, *positions)`` in the mode of ``model``.

    Raises:
        ConfigError: ``model`` is built otherwise, or its pooling is no plain average at ``size``.

    >>> from convoxel.models import build
    >>> net = build("vgg11", 2, 1, 5, width=0.125, grid=2).eval()
    >>> wide = fully_convolutional(net, 64)
    >>> wide(torch.zeros(1, 1, 64, 64)).shape, wide(torch.zeros(1, 1, 128, 96)).shape
    (torch.Size([1, 5, 1, 1]), torch.Size([1, 5, 3, 2]))
    """
    head = getattr(model, "classifier", None) or getattr(model, "fc", None)
    pool = getattr(model, "avgpool", None)
    dims = getattr(model, "dims", None)
    if not (hasattr(model, "features") and isinstance(head, nn.Module) and isinstance(pool, nn.Module)) or dims is None:
        raise ConfigError(
            f"fully_convolutional: model is a {type(model).__name__}; expected a classification network of "
            "convoxel.models, with features, avgpool and linear layers in classifier or fc. "
            "Convert other heads with linear_to_conv."
        )
    image = sizes_of(dims, size)
    body = copy.deepcopy(model)
    with torch.no_grad():
        body.eval()
        weight = next(model.parameters())
        blank = weight.new_zeros(1, model.in_channels, *image)  # type: ignore[call-overload]
        grid = tuple(body.features(blank)[-1].shape[2:])  # type: ignore[operator]
        cells = tuple(pool(torch.zeros(1, 1, *grid)).shape[2:])
    layers: list[nn.Module] = []
    if cells != grid:
        if max(cells) > 1:
            raise ConfigError(
                f"fully_convolutional: at size={image} the feature map is {grid}, which avgpool brings to {cells}; "
                f"expected it to stay, or to become one position. Give the size at which it is {cells}."
            )
        layers.append(average_pool(dims, grid, stride=1))
    for layer in head.modules():
        if isinstance(layer, nn.Linear):
            layers.append(linear_to_conv(layer, dims, cells))
            cells = (1,) * dims  # only the first sees the grid
        elif not isinstance(layer, (nn.Flatten, nn.Sequential)):
            layers.append(copy.deepcopy(layer))
    for name in ("classifier", "fc", "avgpool"):
        if hasattr(body, name):
            delattr(body, name)
    return FullyConvolutional(body, nn.Sequential(*layers)).train(model.training)


# ---- images and volumes ----------------------------------------------------------------------------------


def inflate_kernel(
    kernel: Tensor, size: Sequence[int], how: str = "average", strides: Sequence[int] | None = None
) -> Tensor:
    """Return a kernel with another number of spatial axes; those in front come or go (axes are ordered D, H, W).

    Along a new axis of k pixels, ``"average"`` repeats the kernel k times and divides by k, so that a convolution
    that sees a constant there adds up to what it was (Carreira & Zisserman 2017, arXiv 1705.07750, §2.4);
    ``"centre"`` puts it into the middle and zeros elsewhere, which also holds where the border is padded.

    Args:
        kernel: weights ``(a, b, *old_size)``, of fewer or more axes than ``size``.
        size: new kernel size of every axis; entries of axes that ``kernel`` has are ignored.
        how: ``"average"`` (default) or ``"centre"``.
        strides: strides of a transposed convolution, where each output meets k / stride weights along an axis.
            Such kernels are always averaged, since each output pixel sees only a part of the kernel.

    Returns:
        Weights ``(a, b, *new_size)``.

    Raises:
        ConfigError: ``how`` is another word.

    >>> inflate_kernel(torch.ones(1, 1, 3), (2, 3)).tolist()
    [[[[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]]]
    >>> inflate_kernel(torch.ones(1, 1, 2), (3, 2), "centre").tolist()
    [[[[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]]]
    """
    check_choice("how", how, ("average", "centre"))
    if kernel.ndim < 2 + bool(len(size)):
        raise ShapeError(f"kernel is {tuple(kernel.shape)}, but it must be (outputs, inputs, *kernel_size).")
    if strides is not None and len(strides) != len(size):
        raise ConfigError(f"strides has {len(strides)} entries, but size has {len(size)}. Give one for each axis.")
    while kernel.ndim - 2 < len(size):
        axis = len(size) - (kernel.ndim - 2) - 1
        length = size[axis]
        kernel = kernel.unsqueeze(2)
        if strides is None and how == "centre":
            before = (length - 1) // 2
            kernel = nn.functional.pad(kernel, (0, 0) * (kernel.ndim - 3) + (before, length - 1 - before))
        else:
            share = length if strides is None else length / strides[axis]
            kernel = kernel.expand(*kernel.shape[:2], length, *kernel.shape[3:]) / share
    while kernel.ndim - 2 > len(size):
        if strides is None and how == "centre":
            kernel = kernel.select(2, (kernel.shape[2] - 1) // 2)
        else:
            # Kernels of one network are alike along all axes, so the stride of one that stays serves.
            kernel = kernel.sum(2) / (1 if strides is None else strides[0])
    return kernel


def inflate(model: nn.Module, depth: int | None = None, how: str = "centre") -> nn.Module:
    """Return a copy of a 2-D network as a 3-D one with the same weights: its layers of ``torch.nn`` are replaced.

    A volume that is constant in depth gives in every slice what ``model`` gives for that slice: with ``"centre"``
    or ``depth=1`` everywhere, with ``"average"`` where no depth padding is seen. Kernels of 1 stay 1 in depth.

    Args:
        model: a network of ``Conv2d``, ``ConvTranspose2d``, ``BatchNorm2d``, ``InstanceNorm2d``, poolings,
            ``Dropout2d`` and ``Upsample``, and of layers that do not know the number of axes. For the zoo,
            ``convoxel.models.load_weights`` does the same from a file.
        depth: kernel size, stride, padding and dilation in depth are those of the height; with a number, kernels
            get that depth (odd, for the size to stay), stride 1, and half as padding.
        how: ``"average"`` or ``"centre"``.

    Returns:
        A network ``(n, c, depth, height, width)`` in the mode of ``model``.

    Raises:
        ConfigError: ``how`` or ``depth`` is wrong.

    >>> flat = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    >>> x = torch.rand(1, 1, 8, 8)
    >>> deep = inflate(flat, depth=3)(x.unsqueeze(2).expand(-1, -1, 5, -1, -1))
    >>> deep.shape, torch.allclose(deep[:, :, 2], flat(x), atol=1e-6)
    (torch.Size([1, 4, 5, 4, 4]), True)
    """
    if depth is not None and (isinstance(depth, bool) or not isinstance(depth, int) or depth < 1 or depth % 2 == 0):
        raise ConfigError(f"depth is {depth!r}, but it must be an odd number such as 1 or 3, or None.")
    check_choice("how", how, ("average", "centre"))
    made = copy.deepcopy(model)
    if type(made) in _INFLATED:
        return _inflate_layer(made, depth, how)
    for parent in list(made.modules()):
        if getattr(parent, "dims", None) == 2:
            parent.dims = 3  # type: ignore[assignment]
        for name, layer in list(parent.named_children()):
            if type(layer) in _INFLATED:
                setattr(parent, name, _inflate_layer(layer, depth, how))
    return made


def _inflate_layer(layer: nn.Module, depth: int | None, how: str) -> nn.Module:
    return _INFLATED[type(layer)](layer, depth, how).train(layer.training)


def _deepen(value: Any, in_depth: int | None) -> Any:
    """Return three entries from two (or one for both); depth is as height unless ``in_depth`` says."""
    if isinstance(value, str):
        return value
    both = (value, value) if not isinstance(value, (tuple, list)) else tuple(value)
    return (both[0] if in_depth is None else in_depth, *both)


def _inflate_conv(layer: nn.Conv2d | nn.ConvTranspose2d, depth: int | None, how: str) -> nn.Module:
    transposed = isinstance(layer, nn.ConvTranspose2d)
    in_depth = depth if depth is None or max(layer.kernel_size) > 1 else 1
    one = None if depth is None else 1
    entries: JsonObject = {
        "stride": _deepen(layer.stride, one),
        "padding": _deepen(layer.padding, None if in_depth is None else in_depth // 2),
        "dilation": _deepen(layer.dilation, one),
        "groups": layer.groups,
        "bias": layer.bias is not None,
        "padding_mode": layer.padding_mode,
    }
    if transposed:
        entries["output_padding"] = _deepen(layer.output_padding, None if depth is None else 0)
    kind = nn.ConvTranspose3d if transposed else nn.Conv3d
    kernel = _deepen(layer.kernel_size, in_depth)
    made = kind(layer.in_channels, layer.out_channels, kernel, **entries)
    # A transposed convolution with stride 1 in depth sees whole kernels there, as a plain one does.
    strides = made.stride if transposed and made.stride[0] > 1 else None
    with torch.no_grad():
        _take_weights(made, layer, inflate_kernel(layer.weight, kernel, how, strides))
    return made


def _inflate_norm(layer: nn.BatchNorm2d | nn.InstanceNorm2d, depth: int | None, how: str) -> nn.Module:
    kind: Callable[..., nn.Module] = nn.BatchNorm3d if isinstance(layer, nn.BatchNorm2d) else nn.InstanceNorm3d
    made = kind(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
    made.load_state_dict(layer.state_dict())
    return made


def _inflate_pool(layer: nn.MaxPool2d | nn.AvgPool2d, depth: int | None, how: str) -> nn.Module:
    one = None if depth is None else 1
    kernel, stride = _deepen(layer.kernel_size, one), _deepen(layer.stride, one)
    padding = _deepen(layer.padding, None if depth is None else 0)
    if isinstance(layer, nn.MaxPool2d):
        dilation = _deepen(layer.dilation, one)
        return nn.MaxPool3d(kernel, stride, padding, dilation, layer.return_indices, layer.ceil_mode)
    override = layer.divisor_override
    return nn.AvgPool3d(kernel, stride, padding, layer.ceil_mode, layer.count_include_pad, override)


def _inflate_adaptive(layer: nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d, depth: int | None, how: str) -> nn.Module:
    kind = nn.AdaptiveAvgPool3d if isinstance(layer, nn.AdaptiveAvgPool2d) else nn.AdaptiveMaxPool3d
    return kind(_deepen(layer.output_size, None))


def _inflate_upsample(layer: nn.Upsample, depth: int | None, how: str) -> nn.Module:
    size = None if layer.size is None else _deepen(layer.size, None)
    scale = None if layer.scale_factor is None else _deepen(layer.scale_factor, None if depth is None else 1)
    mode = {"bilinear": "trilinear"}.get(layer.mode, layer.mode)
    return nn.Upsample(size, scale, mode, layer.align_corners)


_INFLATED: dict[type[nn.Module], Callable[[Any, int | None, str], nn.Module]] = {
    nn.Conv2d: _inflate_conv,
    nn.ConvTranspose2d: _inflate_conv,
    nn.BatchNorm2d: _inflate_norm,
    nn.InstanceNorm2d: _inflate_norm,
    nn.MaxPool2d: _inflate_pool,
    nn.AvgPool2d: _inflate_pool,
    nn.AdaptiveAvgPool2d: _inflate_adaptive,
    nn.AdaptiveMaxPool2d: _inflate_adaptive,
    nn.Dropout2d: lambda layer, depth, how: nn.Dropout3d(layer.p, layer.inplace),
    nn.Upsample: _inflate_upsample,
}


# ---- memory layouts --------------------------------------------------------------------------------------

# L is TensorFlow's and PyTorch's letter for the axis of a sequence, W is ours: they are the same axis.
LAYOUTS = ("NCL", "NLC", "NCW", "NWC", "NCHW", "NHWC", "NCDHW", "NDHWC")


def change_layout(x: _Array, source: str, target: str) -> _Array:
    """Return ``x`` with its axes in another order, both named: N batch, C channels, D H W (or L) space.

    No value moves: the result is a view with other strides. PyTorch and our engine take either; the engine computes in
    channels last, so a view of it needs no copy there.

    Args:
        x: a tensor or NumPy array with one axis for each letter of ``source``.
        source: the layout that ``x`` has, one of ``LAYOUTS``.
        target: the layout that is wanted, one of ``LAYOUTS`` with the same letters.

    Returns:
        A view of ``x``.

    Raises:
        ConfigError: a layout is unknown, or the two differ in their axes.
        ShapeError: ``x`` has another number of axes.

    >>> change_layout(torch.zeros(2, 3, 8, 16), "NCHW", "NHWC").shape
    torch.Size([2, 8, 16, 3])
    """
    for name, layout in (("source", source), ("target", target)):
        if layout not in LAYOUTS:
            raise ConfigError(f"{name} is {layout!r}, but layouts are {', '.join(LAYOUTS)}.")
    have, want = source.replace("L", "W"), target.replace("L", "W")
    if sorted(have) != sorted(want):
        raise ConfigError(f"source {source} and target {target} differ in their axes. Give two of the same letters.")
    if not hasattr(x, "ndim"):
        raise ConfigError(f"x is {brief(x)}, but it must be an array or a tensor.")
    if x.ndim != len(have):
        raise ShapeError(f"x is {tuple(x.shape)}, but {source} names {len(have)} axes. Give the layout that x has.")
    order = tuple(have.index(letter) for letter in want)
    return x.permute(order) if isinstance(x, Tensor) else np.transpose(x, order)
