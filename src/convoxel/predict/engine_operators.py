"""Steps of training on Convoxel's engine: operators of PyTorch's library, with gradients.

``convoxel::convolve`` computes a convolution or a transposed one, and is its own gradient with respect to the input,
of the other kind; ``convoxel::weight_gradient`` computes the gradient of the weights. ``convoxel::instance_norm`` and
``convoxel::instance_norm_gradient`` normalise. Results have channels last in memory, as the engine computes; operands
of that layout are not copied. ``EngineOperators`` is a mode in which PyTorch's functions, and so the layers of any
network, run through them where the engine is faster. Results do not depend on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from convoxel.arithmetic.window import conv_size, transposed_size
from convoxel.native.plan import Floats, Triple
from convoxel.native.single_step import SingleStep, borrow_weights, whole_view

__all__ = ["EngineOperators"]

# The least work of a convolution for which it pays to call the engine.
_LEAST_MACS = 2e7
# PyTorch normalises samples of channels-last volumes with channels first, between two copies.
_LEAST_NUMBERS = 50_000


class Window(NamedTuple):
    """The window of a layer, with a number for each spatial axis; padding is the same at both ends."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]


@torch.library.custom_op("convoxel::convolve", mutates_args=(), device_types="cpu")
def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int], dilation: list[int],
    output_padding: list[int], transposed: bool,
) -> Tensor:  # fmt: skip
    """Return the convolution of ``x`` (n, c, *spatial) with ``weight``, or the transposed one, in float32.

    Args:
        x: input of 1 to 3 spatial axes.
        weight: (out_channels, in_channels, *kernel); transposed: (in_channels, out_channels, *kernel).
        bias: (out_channels,) or None.
        stride, padding, dilation, output_padding: a number for each axis, as of PyTorch's layers.
        transposed: compute the transposed convolution.
    """
    if not transposed or not all(step == 1 for step in stride):
        return _convolve(x, weight, bias, Window(stride, padding, dilation), output_padding, transposed)
    # Without a stride, the transposed convolution is a convolution by the kernel turned round.
    reach = [d * (k - 1) - p for d, k, p in zip(dilation, weight.shape[2:], padding, strict=True)]
    window = Window(stride, reach, dilation)
    return _convolve(x, weight.transpose(0, 1), bias, window, output_padding, False, turned=True)


@convolve.register_fake
def _(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int], dilation: list[int],
    output_padding: list[int], transposed: bool,
) -> Tensor:  # fmt: skip
    size = _out_size(x, weight, Window(stride, padding, dilation), output_padding, transposed)
    return _empty(x, (x.shape[0], weight.shape[1 if transposed else 0], *size))


@torch.library.custom_op("convoxel::weight_gradient", mutates_args=(), device_types="cpu")
def weight_gradient(
    x: Tensor, gradient: Tensor, kernel: list[int], stride: list[int], padding: list[int], dilation: list[int]
) -> Tensor:
    """Return the gradient (out_channels, in_channels, *kernel) of a convolution's weights, in float32.

    Args:
        x: what the convolution read, (n, in_channels, *spatial).
        gradient: the gradient of its result, (n, out_channels, *spatial).
        kernel, stride, padding, dilation: a number for each axis.
    """
    source, back = _channels_last(x), _channels_last(gradient)
    found = _empty(x, (gradient.shape[1], x.shape[1], *kernel))
    plan, result = SingleStep(3, torch.get_num_threads()), _channels_last(found)
    plan.weight_gradient(
        whole_view(1, source), whole_view(2, back), whole_view(3, result),
        stride=_triple(stride, 1), dilation=_triple(dilation, 1), padding_low=_triple(padding, 0),
    )  # fmt: skip
    plan.run(source, back, result)
    return found


@weight_gradient.register_fake
def _(
    x: Tensor, gradient: Tensor, kernel: list[int], stride: list[int], padding: list[int], dilation: list[int]
) -> Tensor:
    return _empty(x, (gradient.shape[1], x.shape[1], *kernel))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, *numbers = inputs
    ctx.save_for_backward(x, weight)
    ctx.numbers, ctx.has_bias = numbers, bias is not None


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    *numbers, _, transposed = ctx.numbers
    window = Window(*numbers)
    of_x = of_weight = of_bias = None
    if ctx.needs_input_grad[0]:
        # The sizes that the other kind of convolution leaves open are those of x.
        size = _out_size(gradient, weight, window, [0] * len(window.stride), not transposed)
        extra = [0 if transposed else have - made for have, made in zip(x.shape[2:], size, strict=True)]
        of_x = convolve(gradient, weight, None, *window, extra, not transposed)
    if ctx.needs_input_grad[1]:
        operands = (gradient, x) if transposed else (x, gradient)
        of_weight = weight_gradient(*operands, list(weight.shape[2:]), *window)
    if ctx.has_bias and ctx.needs_input_grad[2]:
        of_bias = gradient.sum(dim=(0, *range(2, gradient.dim())))
    return of_x, of_weight, of_bias, None, None, None, None, None


convolve.register_autograd(_differentiate, setup_context=_keep)


def _convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, window: Window, output_padding: list[int], transposed: bool,
    turned: bool = False,
) -> Tensor:  # fmt: skip
    size = _out_size(x, weight, window, output_padding, transposed)
    found = _empty(x, (x.shape[0], weight.shape[1 if transposed else 0], *size))
    source, result = _channels_last(x), _channels_last(found)
    layer = borrow_weights(
        _kernels(weight),
        None if bias is None else _floats(bias),
        stride=_triple(window.stride, 1),
        padding_low=_triple(window.padding, 0),
        dilation=_triple(window.dilation, 1),
        transposed=transposed,
        turned=turned,
    )
    plan = SingleStep(2, torch.get_num_threads())
    plan.convolve(layer, whole_view(1, source), whole_view(2, result))
    plan.run(source, result)
    return found


def _out_size(
    x: Tensor, weight: Tensor, window: Window, output_padding: Sequence[int], transposed: bool
) -> tuple[int, ...]:
    axes = zip(x.shape[2:], weight.shape[2:], *window, output_padding, strict=True)
    if transposed:
        return tuple(transposed_size(i, k, s, (p, p), d, e) for i, k, s, p, d, e in axes)
    return tuple(conv_size(i, k, s, (p, p), d) + e for i, k, s, p, d, e in axes)


def _empty(like: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a tensor (n, c, *spatial) with channels last in memory. It is no view: layers change results in place."""
    batch, channels, *size = shape
    order = (batch, *size, channels)
    strides = [math.prod(order[axis + 1 :]) for axis in range(len(order))]
    return like.new_empty_strided((batch, channels, *size), (strides[0], strides[-1], *strides[1:-1]))


def _channels_last(x: Tensor) -> Floats:
    """Return (n, *spatial, c), in the tensor's memory where its channels are last."""
    return _floats(x.movedim(1, -1))


def _floats(x: Tensor) -> Floats:
    found: Floats = x.detach().float().contiguous().numpy()
    return found


def _kernels(weight: Tensor) -> Floats:
    """Return weights with five axes, in the tensor's memory where their taps follow one another."""
    x = weight.detach().float()
    steps, step = x.stride()[2:], x.stride()[-1]
    for length, have in zip(reversed(x.shape[2:]), reversed(steps), strict=True):
        if length > 1 and have != step:
            x = x.contiguous()
            break
        step *= length
    found: Floats = x.reshape(*x.shape[:2], *_triple(x.shape[2:], 1)).numpy()
    return found


def _triple(numbers: Sequence[int], fill: int) -> Triple:
    d, h, w = (fill,) * (3 - len(numbers)) + tuple(numbers)
    return d, h, w


@torch.library.custom_op("convoxel::instance_norm", mutates_args=(), device_types="cpu")
def instance_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Return each sample minus its mean, over its standard deviation, per channel; then * weight + bias.

    Args:
        x: (n, c, *spatial) of 1 to 3 spatial axes.
        weight, bias: (c,).
        eps: what is added to the variance.
    """
    found = _empty(x, x.shape)
    source, result = _channels_last(x), _channels_last(found)
    plan = SingleStep(2, torch.get_num_threads())
    plan.normalise(whole_view(1, source), whole_view(2, result), x.shape[1], _floats(weight), _floats(bias), eps)
    plan.run(source, result)
    return found


@instance_norm.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return _empty(x, x.shape)


@torch.library.custom_op("convoxel::instance_norm_gradient", mutates_args=(), device_types="cpu")
def instance_norm_gradient(x: Tensor, gradient: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return the gradients of ``instance_norm`` with respect to x, and to weight and bias as (2, c)."""
    found, sums = _empty(x, x.shape), x.new_empty((2, x.shape[1]))
    source, back, result = _channels_last(x), _channels_last(gradient), _channels_last(found)
    totals = sums.numpy().reshape(1, -1)
    plan = SingleStep(4, torch.get_num_threads())
    plan.instance_gradient(
        whole_view(1, source), whole_view(2, back), whole_view(3, result),
        whole_view(4, totals), _floats(weight), eps,
    )  # fmt: skip
    plan.run(source, back, result, totals)
    return found, sums


@instance_norm_gradient.register_fake
def _(x: Tensor, gradient: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return _empty(x, x.shape), x.new_empty((2, x.shape[1]))


def _keep_normalised(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, ctx.eps = inputs
    ctx.save_for_backward(x, weight)


def _differentiate_norm(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    of_x, sums = instance_norm_gradient(x, gradient, weight, ctx.eps)
    return of_x, sums[0], sums[1], None


instance_norm.register_autograd(_differentiate_norm, setup_context=_keep_normalised)


class EngineOperators(TorchFunctionMode):
    """A mode in which PyTorch's functions run on the engine, where it is faster; gradients are recorded as ever.

    It takes float32 on the CPU: convolutions of planes and volumes, of one group, and instance normalisation of
    volumes, where layers are large enough. Whether it takes a layer follows from sizes alone.
    """

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        given = dict(kwargs or {})
        replace = _REPLACEMENTS.get(func)
        found = None if replace is None else replace(*args, **given)
        return func(*args, **given) if found is None else found


def _conv(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:  # fmt: skip
    """Return what PyTorch's function of these arguments returns, or None if PyTorch is to compute it."""
    axes = weight.dim() - 2
    if padding == "same":
        reach = [d * (k - 1) for d, k in zip(_each(dilation, axes), weight.shape[2:], strict=True)]
        if any(length % 2 for length in reach):
            return None  # more padding at one end than at the other
        padding = [length // 2 for length in reach]
    elif padding == "valid":
        padding = 0
    numbers = [_each(value, axes) for value in (stride, padding, dilation, 0)]
    return _replace(input, weight, bias, numbers, groups, False)


def _conv_transpose(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor | None:  # fmt: skip
    axes = weight.dim() - 2
    numbers = [_each(value, axes) for value in (stride, padding, dilation, output_padding)]
    return _replace(input, weight, bias, numbers, groups, True)


def _instance_norm(
    input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None, weight: Tensor | None = None,
    bias: Tensor | None = None, use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor | None:  # fmt: skip
    if weight is None or bias is None or running_mean is not None or not use_input_stats or input.dim() != 5:
        return None
    if not _is_float(input, weight, bias) or input.numel() < _LEAST_NUMBERS or input[0, 0].numel() == 1:
        return None
    found: Tensor = instance_norm(input, weight, bias, eps)
    return found


_REPLACEMENTS: Mapping[Callable[..., object], Callable[..., Tensor | None]] = {
    **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d), _conv),
    **dict.fromkeys((torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d), _conv_transpose),
    functional.instance_norm: _instance_norm,
}


def _each(value: Any, axes: int) -> list[int]:
    numbers = [value] if isinstance(value, int) else list(value)
    return numbers * axes if len(numbers) == 1 else numbers


def _is_float(*tensors: Tensor) -> bool:
    return all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)


def _replace(
    x: Tensor, weight: Tensor, bias: Tensor | None, numbers: Sequence[list[int]], groups: int, transposed: bool
) -> Tensor | None:
    """Return a convolution as the engine computes it, or None where PyTorch is expected to be faster."""
    stride, padding, dilation, extra = numbers
    if x.dim() != weight.dim() or x.dim() == 3 or groups != 1 or not _is_float(x, weight):
        return None
    if x.shape[1] != weight.shape[0 if transposed else 1] or min(padding) < 0 or min(*stride, *dilation) < 1:
        return None  # PyTorch says what does not fit
    size = _out_size(x, weight, Window(stride, padding, dilation), extra, transposed)
    if min(size) < 1:
        return None
    positions = x.shape[0] * (math.prod(x.shape[2:]) if transposed else math.prod(size))
    if positions * weight.numel() < _LEAST_MACS:
        return None
    found: Tensor = convolve(x, weight, bias, *numbers, transposed)
    return found
