"""Is an operator linear? f(u + v) = f(u) + f(v) and f(a u) = a f(u), checked on numbers; and which step is not.

Convolution, average pooling and interpolation are linear; with a bias they are affine; rectifiers, max pooling and
products of two values are neither. Every step that a network takes is checked by itself, on what it gets there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from convoxel.errors import ConfigError, ShapeError
from convoxel.files.values import JsonObject, Options
from convoxel.graph.read.functions import Paths, tensors_in

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Break", "Linearity", "linearity"]

_TOLERANCE = 1e-5  # float32 sums of a thousand terms err by 1e-6 of their size; a rectifier by a tenth and more
_FACTOR = -1.7  # no power of 2, which rounding would not notice, and negative, which rectifiers do


@dataclass(frozen=True)
class Break:
    """A step that is not linear.

    Attributes:
        name: the layer's path, or the path and the function.
        function: what was called.
        error: relative error of additivity, the value at 0 taken away for ``affine`` ones.
        affine: whether only a constant is added.
    """

    name: str
    function: str
    error: float
    affine: bool


@dataclass(frozen=True)
class Linearity:
    """The result of ``linearity``.

    Attributes:
        linear: whether both equations hold.
        affine: whether they hold for f(x) − f(0).
        additivity: relative error of f(u + v) = f(u) + f(v).
        homogeneity: relative error of f(a u) = a f(u).
        offset: size of f(0) beside f(u).
        breaks: steps that are not linear, in running order; those that only add a constant are marked.
    """

    linear: bool
    affine: bool
    additivity: float
    homogeneity: float
    offset: float
    breaks: tuple[Break, ...]

    def to_dict(self) -> JsonObject:
        """Return everything as plain lists and numbers."""
        return {
            "linear": self.linear,
            "affine": self.affine,
            "additivity": self.additivity,
            "homogeneity": self.homogeneity,
            "offset": self.offset,
            "breaks": [vars(entry) for entry in self.breaks],
        }

    def __str__(self) -> str:
        """Say it in a line for the whole, and one for each step that breaks it."""
        kind = "linear" if self.linear else "affine: linear but for a constant" if self.affine else "not linear"
        lines = [
            f"{kind} (additivity {self.additivity:.1e}, homogeneity {self.homogeneity:.1e}, f(0) {self.offset:.1e})"
        ]
        for entry in self.breaks:
            how = "adds a constant" if entry.affine else f"is not linear, error {entry.error:.1e}"
            lines.append(f"  {entry.name} ({entry.function}) {how}")
        return "\n".join(lines)


def linearity(
    model: Callable[[Any], Any], x: Any, y: Any = None, *, tolerance: float = _TOLERANCE, seed: int = 0
) -> Linearity:
    """Return whether ``model`` is linear around inputs like ``x``, and which of its steps are not.

    f is linear if f(u + v) = f(u) + f(v) and f(a u) = a f(u). Holding on numbers, it may still fail on others, but a
    step that breaks is proved to.

    Args:
        model: a PyTorch module, in eval mode for the time of the check, or any function of a tensor.
        x: an input (n, c, *spatial), array or tensor; noise of both signs finds most.
        y: the second input; noise as large as ``x`` unless given.
        tolerance: relative error that still counts as rounding.
        seed: of the noise.

    Raises:
        ShapeError: ``x`` and ``y`` differ in shape.
        ConfigError: the model returns no tensor.

    >>> import torch
    >>> x = torch.randn(1, 3, 8, 8)
    >>> linearity(torch.nn.Upsample(scale_factor=2, mode="bilinear"), x).linear
    True
    >>> layer = torch.nn.Conv2d(3, 4, 3)
    >>> report = linearity(layer, x)
    >>> report.linear, report.affine
    (False, True)
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.ReLU(), torch.nn.AvgPool2d(2))
    >>> [entry.name for entry in linearity(net, x).breaks]
    ['1']
    """
    u = torch.as_tensor(x).detach()
    u = u if u.is_floating_point() else u.float()
    v = _noise_like(u, seed) if y is None else torch.as_tensor(y).detach().to(u.dtype)
    if u.shape != v.shape:
        raise ShapeError(f"linearity: x has shape {tuple(u.shape)} but y {tuple(v.shape)}; expected equal shapes.")
    module = model if isinstance(model, torch.nn.Module) else None
    modes = [(child, child.training) for child in module.modules()] if module is not None else []
    try:
        for child, _ in modes:
            child.training = False
        with torch.no_grad():
            sums = _check(lambda t: _result(model(t)), [u], [v])
            breaks = _breaks(model, module, u, tolerance, seed)
    finally:
        for child, mode in modes:
            child.training = mode
    linear = max(sums.additivity, sums.homogeneity) <= tolerance
    affine = max(sums.affine_additivity, sums.affine_homogeneity) <= tolerance
    return Linearity(linear, affine, sums.additivity, sums.homogeneity, sums.offset, breaks)


@dataclass(frozen=True)
class _Errors:
    additivity: float
    homogeneity: float
    affine_additivity: float
    affine_homogeneity: float
    offset: float


def _check(function: Callable[..., Tensor], u: Sequence[Tensor], v: Sequence[Tensor]) -> _Errors:
    """Return the errors of a function of one or several tensors, taken together as one vector."""
    at_u, at_v = function(*(t.clone() for t in u)), function(*(t.clone() for t in v))
    at_sum = function(*(a + b for a, b in zip(u, v, strict=True)))
    at_multiple = function(*(_FACTOR * a for a in u))
    at_zero = function(*(torch.zeros_like(a) for a in u))
    scale = max(_norm(at_u), _norm(at_v), _norm(at_sum), torch.finfo(torch.float32).tiny)
    return _Errors(
        additivity=_norm(at_sum - at_u - at_v) / scale,
        homogeneity=_norm(at_multiple - _FACTOR * at_u) / scale,
        affine_additivity=_norm(at_sum - at_u - at_v + at_zero) / scale,
        affine_homogeneity=_norm((at_multiple - at_zero) - _FACTOR * (at_u - at_zero)) / scale,
        offset=_norm(at_zero) / scale,
    )


def _norm(value: Tensor) -> float:
    return float(value.double().norm())


def _result(value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise ConfigError(
            f"linearity: the model returned a {type(value).__name__}, expected a tensor. "
            "Wrap it to return one of its outputs."
        )
    return value if value.is_floating_point() else value.float()


def _noise_like(x: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    size = float(x.double().square().mean().sqrt()) or 1.0
    return torch.randn(x.shape, generator=generator, dtype=x.dtype) * size


def _breaks(
    model: Callable[[Any], Any], module: nn.Module | None, x: Tensor, tolerance: float, seed: int
) -> tuple[Break, ...]:
    watch = _Watch(x, tolerance, seed)
    with watch.paths.of(module) if module is not None else nullcontext(), watch:
        model(x)
    return tuple(watch.breaks)


class _Watch(TorchFunctionMode):
    """Checks every PyTorch function by itself, on operands like those that it gets."""

    def __init__(self, x: Tensor, tolerance: float, seed: int) -> None:
        super().__init__()
        self.paths = Paths()
        self.breaks: list[Break] = []
        self._tolerance, self._seed = tolerance, seed
        self._alive: list[Tensor] = [x]  # an id stays taken only as long as its tensor lives
        self._dependent = {id(x)}

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        read = [t for t in (*tensors_in(args), *tensors_in(options)) if id(t) in self._dependent]
        operands = list({id(t): t.clone() for t in read}.items())
        result = func(*args, **options)
        made = [t for t in tensors_in(result) if t.is_floating_point()]
        if operands and made:
            name = getattr(func, "__name__", str(func)).strip("_")
            self._judge(self.paths.name(name), name, func, args, options, dict(operands))
            for tensor in made:
                self._alive.append(tensor)
                self._dependent.add(id(tensor))
        return result

    def _judge(
        self,
        path: str,
        name: str,
        func: Callable[..., Any],
        args: Sequence[Any],
        options: Options,
        operands: Mapping[int, Tensor],
    ) -> None:
        def function(*tensors: Tensor) -> Tensor:
            given = dict(zip(operands, tensors, strict=True))
            made = tensors_in(func(*_replaced(args, given), **_replaced(options, given)))
            return torch.cat([t.reshape(-1).double() for t in made if t.is_floating_point()])

        u = list(operands.values())
        errors = _check(function, u, [_noise_like(t, self._seed + number) for number, t in enumerate(u, start=1)])
        if max(errors.additivity, errors.homogeneity) <= self._tolerance:
            return
        affine = max(errors.affine_additivity, errors.affine_homogeneity) <= self._tolerance
        error = errors.offset if affine else max(errors.affine_additivity, errors.affine_homogeneity)
        self.breaks.append(Break(path, name, error, affine))


def _replaced(value: Any, given: Mapping[int, Tensor]) -> Any:
    """Return nested arguments with other tensors in the places of some."""
    if isinstance(value, Tensor):
        return given.get(id(value), value)
    if isinstance(value, dict):
        return {key: _replaced(element, given) for key, element in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_replaced(element, given) for element in value)
    return value
