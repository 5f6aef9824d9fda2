"""Steps of training on Convoxel's engine: operators of PyTorch's library, with gradients.

``convoxel::convolve`` computes a convolution or a transposed one, and is its own gradient with respect to the input,
of the other kind; ``convoxel::weight_gradient`` computes the gradient of the weights. ``convoxel::normalise`` and
``convoxel::normalise_gradient`` normalise each sample or the whole batch. Results have channels last in memory, as the
engine computes; operands of that layout are not copied. ``EngineOperators`` is a mode in which PyTorch's functions, and
so the layers of any network, run through them where the engine is faster. Results do not depend on the number of
threads.
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
from convoxel.native.single_run import SingleRun, borrow_weights, whole_view

__all__ = ["EngineOperators"]

# What the engine does faster than PyTorch 2.13, measured on 2 cores with AVX-512. Of volumes: whatever is so much work
# that it pays to call it. Of planes, which PyTorch computes better: kernels of Winograd's algorithms with so many
# channels, on so many positions that it pays to prepare the weights in every step.
_LEAST_MACS = 2e7
_PLANAR_CHANNELS, _PLANAR_POSITIONS, _PLANAR_MACS = 16, 2048, 1.5e8
# The least tensor that it pays to normalise, by its axes.
_LEAST_NUMBERS = {4: 1_000_000, 5: 50_000}


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
    plan, result = SingleRun(3, torch.get_num_threads()), _channels_last(found)
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
    plan = SingleRun(2, torch.get_num_threads())
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


@torch.library.custom_op("convoxel::normalise", mutates_args=(), device_types="cpu")
def normalise(x: Tensor, weight: Tensor, bias: Tensor, eps: float, whole: bool) -> tuple[Tensor, Tensor]:
    """Return x minus its mean, over its standard deviation, per channel, then * weight + bias; and the statistics.

    Args:
        x: (n, c, *spatial) of 1 to 3 spatial axes.
        weight, bias: (c,).
        eps: what is added to the variance.
        whole: take the statistics of the batch, as batch normalisation does; False: those of each sample.

    The statistics are (n or 1, 3, c): mean, what its rounding took away, 1 / sqrt(variance + eps).
    """
    found, statistics = _empty(x, x.shape), _statistics(x, whole)
    source, result, numbers = _samples(x, whole), _samples(found, whole), _vectors(statistics)
    plan = SingleRun(3, torch.get_num_threads())
    views = whole_view(1, source), whole_view(2, numbers), whole_view(3, result)
    plan.statistics(views[0], views[1], eps)
    plan.normalise_by(*views, _floats(weight), _floats(bias))
    plan.run(source, numbers, result)
    return found, statistics


@normalise.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, eps: float, whole: bool) -> tuple[Tensor, Tensor]:
    return _empty(x, x.shape), _statistics(x, whole)


@torch.library.custom_op("convoxel::normalise_gradient", mutates_args=(), device_types="cpu")
def normalise_gradient(
    x: Tensor, gradient: Tensor, statistics: Tensor, weight: Tensor, bias: Tensor, slope: float, whole: bool
) -> tuple[Tensor, Tensor]:
    """Return the gradients of ``normalise`` with respect to x, and to weight and bias as (2, c).

    Args:
        x, weight, bias, whole: as of ``normalise``.
        gradient: that of the result, behind an activation that multiplies what is not positive by ``slope``.
        statistics: what ``normalise`` returned.
        slope: 0 behind a ReLU, 1 without an activation.
    """
    found, sums = _empty(x, x.shape), x.new_empty((2, x.shape[1]))
    arrays = [_samples(x, whole), _samples(gradient, whole), _vectors(statistics), _samples(found, whole)]
    arrays.append(sums.numpy().reshape(1, -1))
    plan = SingleRun(len(arrays), torch.get_num_threads())
    source, back, numbers, result, totals = (whole_view(index, array) for index, array in enumerate(arrays, 1))
    plan.normalise_gradient(source, back, numbers, result, totals, _floats(weight), _floats(bias), slope)
    plan.run(*arrays)
    return found, sums


@normalise_gradient.register_fake
def _(
    x: Tensor, gradient: Tensor, statistics: Tensor, weight: Tensor, bias: Tensor, slope: float, whole: bool
) -> tuple[Tensor, Tensor]:
    return _empty(x, x.shape), x.new_empty((2, x.shape[1]))


def _statistics(x: Tensor, whole: bool) -> Tensor:
    return x.new_empty((1 if whole else x.shape[0], 3, x.shape[1]))


def _samples(x: Tensor, whole: bool) -> Floats:
    """Return (n, *spatial, c), or (1, n, positions, c) where all samples are one."""
    found = _channels_last(x)
    return found.reshape(1, found.shape[0], -1, found.shape[-1]) if whole else found


def _vectors(statistics: Tensor) -> Floats:
    found: Floats = statistics.numpy().reshape(statistics.shape[0], -1)
    return found


def _keep_normalised(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, bias, _, ctx.whole = inputs
    ctx.save_for_backward(x, weight, bias, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.slope = 1.0  # of an activation behind it; see EngineOperators


def _differentiate_norm(ctx: Any, gradient: Tensor | None, _: object) -> tuple[Tensor | None, ...]:
    if gradient is None:
        return None, None, None, None, None
    x, weight, bias, statistics = ctx.saved_tensors
    of_x, sums = normalise_gradient(x, gradient, statistics, weight, bias, ctx.slope, ctx.whole)
    return of_x, sums[0], sums[1], None, None


normalise.register_autograd(_differentiate_norm, setup_context=_keep_normalised)


class EngineOperators(TorchFunctionMode):
    """A mode in which PyTorch's functions run on the engine, where it is faster; gradients are recorded as ever.

    It takes float32 on the CPU: convolutions of volumes, of one group; those of planes with kernels of 3 and without
    stride and dilation; and normalisation of both by their own statistics. All where layers are large enough. Whether
    it takes a layer follows from sizes alone.

    A ReLU or leaky ReLU that changes a normalised tensor in place, as the next function of all, is not recorded as a
    function of its own: the gradient of the normalisation includes it, in the same pass over memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self._normalised: Tensor | None = None  # the result of the function before

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        given = dict(kwargs or {})
        before, self._normalised = self._normalised, None
        slope = _slope_in_place(func, args, given) if before is not None and args and args[0] is before else None
        if before is not None and slope is not None:
            before.grad_fn.slope = slope  # type: ignore[union-attr]
            with torch.no_grad():
                functional.leaky_relu_(before, slope) if slope else torch.relu_(before)
            return before
        replace = _REPLACEMENTS.get(func)
        found = None if replace is None else replace(*args, **given)
        if found is None:
            return func(*args, **given)
        if replace in (_instance_norm, _batch_norm) and found.grad_fn is not None:
            self._normalised = found
        return found


def _slope_in_place(func: Callable[..., object], args: Sequence[Any], given: Mapping[str, Any]) -> float | None:
    """Return what a function multiplies numbers by that are not positive, if it is a ReLU that works in place."""
    if func is torch.relu_:
        return 0.0
    if func is functional.relu and (args[1] if len(args) > 1 else given.get("inplace", False)):
        return 0.0
    if func is functional.leaky_relu and (args[2] if len(args) > 2 else given.get("inplace", False)):
        return float(args[1] if len(args) > 1 else given.get("negative_slope", 0.01))
    return None


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
    if running_mean is not None or not use_input_stats or input[0, 0].numel() == 1:
        return None
    return _normalise(input, weight, bias, eps, False)


def _batch_norm(
    input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor | None:  # fmt: skip
    if not training or input.numel() == input.shape[1]:
        return None
    return _normalise(input, weight, bias, eps, True, running_mean, running_var, momentum)


def _normalise(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, whole: bool, running_mean: Tensor | None = None,
    running_var: Tensor | None = None, momentum: float = 0.1,
) -> Tensor | None:  # fmt: skip
    if weight is None or bias is None or x.numel() < _LEAST_NUMBERS.get(x.dim(), math.inf):
        return None
    if not _is_float(x, weight, bias) or x.shape[1] != len(weight):
        return None
    found, statistics = normalise(x, weight, bias, eps, whole)
    if running_mean is not None and running_var is not None:
        count = x.numel() // x.shape[1]
        with torch.no_grad():
            mean, _, inverse = statistics[0]
            # Where channels are constant, the rounding of the inverse may leave less than nothing.
            variance = (inverse.double().pow(-2) - eps).clamp_(min=0).mul_(count / (count - 1)).float()
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(variance, momentum)
    result: Tensor = found
    return result


_REPLACEMENTS: Mapping[Callable[..., object], Callable[..., Tensor | None]] = {
    **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d), _conv),
    **dict.fromkeys((torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d), _conv_transpose),
    functional.instance_norm: _instance_norm,
    functional.batch_norm: _batch_norm,
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
    if x.dim() == 4:
        kernel = set(weight.shape[2:])
        tiled = kernel <= {1, 3} and 3 in kernel and {*stride, *dilation} == {1} and not any(extra)
        large = positions >= _PLANAR_POSITIONS and positions * weight.numel() >= _PLANAR_MACS
        if not tiled or not large or min(weight.shape[:2]) < _PLANAR_CHANNELS:
            return None
    found: Tensor = convolve(x, weight, bias, *numbers, transposed)
    return found
