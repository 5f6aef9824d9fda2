"""PyTorch functions on shapes alone: what the frequent ones return, without asking PyTorch.

On the ``meta`` device PyTorch takes up to 2 ms to infer the shape of a batch normalisation or an activation, and its
first convolution, concatenation or filling with noise imports 800 modules, which takes a second and 70 MiB. Here
shapes follow from ``arithmetic`` in microseconds. Whatever is not plainly of this kind is left to PyTorch, which also
finds what does not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from convoxel.arithmetic import conv_size, pool_size, transposed_size
from convoxel.inspect.vocabulary import classify

__all__ = ["run_function", "shapes_only"]

Shape = tuple[int, ...]

_UNARY = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish", "hardsigmoid"),
    *("hardtanh", "sigmoid", "tanh", "softplus"),
)
_FILLS = ("normal_", "uniform_", "trunc_normal_", "fill_", "zero_", "copy_")
_BINARY = ("add", "iadd", "radd", "mul", "imul", "rmul", "sub", "isub")


def run_function(function: Callable[..., Any], arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """Return ``function(*arguments, **options)`` for tensors without data, at once where the shape is plain."""
    name = getattr(function, "__name__", "")
    bare = name.strip("_")
    first = arguments[0] if arguments else None
    if "out" in options:
        return function(*arguments, **options)
    if isinstance(first, Tensor) and first.is_meta:
        keeps = (
            bare in _UNARY
            or name in _FILLS
            or (bare in _BINARY and _spreads(arguments))
            or (bare == "batch_norm" and _normalises(arguments, options))
        )
        if keeps:
            in_place = name.endswith("_") and (not name.startswith("__") or name.startswith("__i"))
            return first if in_place or options.get("inplace") else _fresh(first, first.shape)
    rule = _RULES.get(name)
    shape = rule(function, arguments, options) if rule else ()
    if shape:
        return _fresh(first if isinstance(first, Tensor) else arguments[0][0], shape)
    return function(*arguments, **options)


def _fresh(x: Tensor, sizes: Sequence[int]) -> Tensor:
    # torch.empty_like would spend its time on strides.
    return torch.empty(sizes, dtype=x.dtype, device="meta")


def _pooled(function: Any, arguments: Sequence[Any], options: Mapping[str, Any]) -> Shape:
    """Return the shape behind adaptive pooling, or () where PyTorch should tell."""
    if len(arguments) < 2 or not arguments[0].is_meta:
        return ()
    x, size = arguments[:2]
    dims = int(function.__name__[-2])
    sizes = (size,) * dims if isinstance(size, int) else tuple(size)
    plain = len(sizes) == dims and x.dim() > dims and all(isinstance(s, int) and s > 0 for s in sizes)
    return (*x.shape[: x.dim() - dims], *sizes) if plain and x.numel() > 0 else ()


def _convolved(function: Any, arguments: Sequence[Any], options: Mapping[str, Any]) -> Shape:
    """Return the shape behind a convolution or transposed convolution, or () where PyTorch should tell."""
    if len(arguments) < 2 or not all(isinstance(t, Tensor) and t.is_meta for t in arguments[:2]):
        return ()
    x, weight = arguments[:2]
    operator, attributes = classify(function, arguments, options, None)
    groups, transposed = attributes["groups"], operator == "transposed_convolution"
    expected, made = (
        (weight.shape[0], weight.shape[1] * groups) if transposed else (weight.shape[1] * groups, weight.shape[0])
    )
    if x.dim() != weight.dim() or made % groups or x.dtype != weight.dtype:
        return ()
    if x.shape[1] != expected:  # without data PyTorch lets a transposed convolution of other channels pass
        raise RuntimeError(f"{function.__name__} expected {expected} channels, but got {x.shape[1]}")
    words = ("stride", "padding", "dilation", *(("output_padding",) if transposed else ()))
    columns = (x.shape[2:], attributes["kernel"], *(attributes[word] for word in words))
    try:
        sizes = [(transposed_size if transposed else conv_size)(*axis) for axis in zip(*columns, strict=True)]
    except ValueError:
        return ()
    return (x.shape[0], made, *sizes) if min(sizes) > 0 and x.numel() > 0 else ()


def _windowed(function: Any, arguments: Sequence[Any], options: Mapping[str, Any]) -> Shape:
    """Return the shape behind pooling, or () where PyTorch should tell."""
    if len(arguments) < 2 or not arguments[0].is_meta or options.get("return_indices"):
        return ()
    x = arguments[0]
    _, attributes = classify(function, arguments, options, None)
    kernel, ceil = attributes["kernel"], attributes["ceil"]
    if x.dim() != len(kernel) + 2 or x.numel() == 0:
        return ()
    columns = (x.shape[2:], kernel, attributes["stride"], attributes["padding"], attributes["dilation"])
    try:
        sizes = [pool_size(*axis, ceil) for axis in zip(*columns, strict=True)]
    except ValueError:
        return ()
    fits = all(2 * before <= k for k, (before, _) in zip(kernel, attributes["padding"], strict=True))
    return (*x.shape[:2], *sizes) if fits and min(sizes) > 0 else ()


def _multiplied(function: Any, arguments: Sequence[Any], options: Mapping[str, Any]) -> Shape:
    """Return the shape behind a fully-connected layer, or () where PyTorch should tell."""
    if len(arguments) < 2 or not all(isinstance(t, Tensor) and t.is_meta for t in arguments[:2]):
        return ()
    x, weight = arguments[:2]
    fits = x.dim() > 1 and weight.dim() == 2 and x.shape[-1] == weight.shape[1] and x.dtype == weight.dtype
    return (*x.shape[:-1], weight.shape[0]) if fits else ()


def _concatenated(function: Any, arguments: Sequence[Any], options: Mapping[str, Any]) -> Shape:
    """Return the shape of a concatenation, or () where PyTorch should tell."""
    parts = list(arguments[0]) if arguments and isinstance(arguments[0], list | tuple) else []
    axis = arguments[1] if len(arguments) > 1 else options.get("dim", 0)
    first = parts[0] if parts else None
    if not isinstance(first, Tensor) or not isinstance(axis, int) or not -first.dim() <= axis < first.dim():
        return ()
    axis %= first.dim()
    for part in parts:
        if not part.is_meta or part.dtype != first.dtype or part.dim() != first.dim():
            return ()
        if part.shape[:axis] != first.shape[:axis] or part.shape[axis + 1 :] != first.shape[axis + 1 :]:
            return ()
    return (*first.shape[:axis], sum(part.shape[axis] for part in parts), *first.shape[axis + 1 :])


def _spreads(arguments: Sequence[Any]) -> bool:
    """Whether the second operand is stretched to the first's shape, of the same type."""
    if len(arguments) < 2:
        return False
    x, y = arguments[:2]
    if isinstance(y, int | float):
        return bool(x.is_floating_point())
    if not isinstance(y, Tensor) or y.dtype != x.dtype or y.dim() > x.dim():
        return False
    return all(b in (1, a) for a, b in zip(reversed(x.shape), reversed(y.shape), strict=False))


def _normalises(arguments: Sequence[Any], options: Mapping[str, Any]) -> bool:
    """Whether a batch normalisation by running statistics has as many of them as there are channels."""
    names = "input running_mean running_var weight bias training"
    given = {**dict(zip(names.split(), arguments, strict=False)), **options}
    x, mean = given["input"], given.get("running_mean")
    fits = x.dim() > 1 and isinstance(mean, Tensor) and mean.shape == x.shape[1:2]
    return fits and not given.get("training", False)


_RULES: Mapping[str, Callable[[Any, Sequence[Any], Mapping[str, Any]], Shape]] = {
    **{f"adaptive_avg_pool{dims}d": _pooled for dims in (1, 2, 3)},
    **{f"conv{dims}d": _convolved for dims in (1, 2, 3)},
    **{f"conv_transpose{dims}d": _convolved for dims in (1, 2, 3)},
    **{f"{kind}_pool{dims}d": _windowed for kind in ("max", "avg") for dims in (1, 2, 3)},
    "linear": _multiplied,
    **dict.fromkeys(("cat", "concat", "concatenate"), _concatenated),
}


class _Shapes(TorchFunctionMode):
    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run_function(func, args, kwargs or {})


@contextmanager
def shapes_only() -> Iterator[None]:
    """Let modules on the meta device run by ``run_function``, without gradients."""
    with torch.no_grad(), _Shapes():
        yield
