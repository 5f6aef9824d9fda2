"""Linearity of an operator, f(u + v) = f(u) + f(v) and f(a u) = a f(u), checked on numbers, and the steps that lack it.

Convolution, average pooling and interpolation are linear; with a bias they are affine; rectifiers, max pooling and
products of two values are neither. Every step of a network is checked by itself, on the values that reach it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from convoxel.errors import ShapeError
from convoxel.files.values import JsonObject, Options
from convoxel.graph.read.functions import tensors_in
from convoxel.graph.read.recorder import Paths
from convoxel.inspect.model_call import evaluating, given_tensor, tensor_of

_TOLERANCE = 1e-5  # float32 sums of a thousand terms err by 1e-6 of their size; a rectifier by a tenth and more
_FACTOR = -1.7  # no power of 2, which rounding would not notice, and negative, which rectifiers do


@dataclass(frozen=True)
class Break:
    """A step that is not linear.

    Attributes:
        name: the layer's path, or the path and the function.
        function: name of the PyTorch function.
        error: relative error of additivity and homogeneity of f(x) − f(0); of an affine step the size of f(0).
        affine: True if only a constant is added.
    """

    name: str
    function: str
    error: float
    affine: bool


@dataclass(frozen=True)
class Linearity:
    """The result of ``linearity``.

    Attributes:
        linear: True if both equations hold.
        affine: True if they hold for f(x) − f(0).
        additivity: relative error of f(u + v) = f(u) + f(v).
        homogeneity: relative error of f(a u) = a f(u).
        offset: size of f(0) relative to that of f(u).
        breaks: steps that are not linear, in running order.
    """

    linear: bool
    affine: bool
    additivity: float
    homogeneity: float
    offset: float
    breaks: tuple[Break, ...]

    def to_dict(self) -> JsonObject:
        """Return everything as plain lists and numbers."""
        return {**vars(self), "breaks": [asdict(entry) for entry in self.breaks]}

    def __str__(self) -> str:
        """Return one line for the operator and one for each step that is not linear."""
        kind = "linear" if self.linear else "affine: linear but for a constant" if self.affine else "not linear"
        errors = f"additivity {self.additivity:.1e}, homogeneity {self.homogeneity:.1e}, f(0) {self.offset:.1e}"
        lines = [f"{kind} ({errors})"]
        for entry in self.breaks:
            how = "adds a constant" if entry.affine else f"is not linear, error {entry.error:.1e}"
            lines.append(f"  {entry.name} ({entry.function}) {how}")
        return "\n".join(lines)


def linearity(
    model: Callable[[Any], Any],
    x: ArrayLike | Tensor,
    y: ArrayLike | Tensor | None = None,
    *,
    tolerance: float = _TOLERANCE,
    seed: int = 0,
) -> Linearity:
    """Return whether ``model`` is linear around inputs like ``x``, and which of its steps are not.

    f is linear if f(u + v) = f(u) + f(v) and f(a u) = a f(u). A step that breaks an equation on these numbers is proved
    not to be linear; one that does not may still break it on others.

    Args:
        model: a PyTorch module, which runs in eval mode and stays as it is, or any function of a tensor.
        x: an input (n, c, *spatial), array or tensor; noise of both signs finds most breaks.
        y: a second input (default None: noise of the same size as ``x``).
        tolerance: largest relative error that counts as rounding (default 1e-5).
        seed: random seed of the noise (default 0).

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
    u = given_tensor(x).detach()
    u = u if u.is_floating_point() else u.float()
    v = _noise_like(u, seed) if y is None else given_tensor(y).detach().to(u.dtype)
    if u.shape != v.shape:
        raise ShapeError(f"linearity: x has shape {tuple(u.shape)} but y {tuple(v.shape)}; expected equal shapes.")
    watch = _Watch(u, tolerance, seed)
    with evaluating(model), torch.no_grad():
        sums = _check(lambda t: tensor_of("linearity", model(t)), [u], [v])
        with watch.paths.of(model) if isinstance(model, nn.Module) else nullcontext(), watch:
            model(u)
    linear, affine = max(sums.additivity, sums.homogeneity) <= tolerance, sums.affine <= tolerance
    return Linearity(linear, affine, sums.additivity, sums.homogeneity, sums.offset, tuple(watch.breaks))


class _Errors(NamedTuple):
    """Errors of f relative to its size; ``affine``: the larger one of f(x) − f(0)."""

    additivity: float
    homogeneity: float
    affine: float
    offset: float


def _check(function: Callable[..., Tensor], u: Sequence[Tensor], v: Sequence[Tensor]) -> _Errors:
    """Return the errors of a function of one or several tensors, taken together as one vector."""
    at_u, at_v = function(*(t.clone() for t in u)), function(*(t.clone() for t in v))
    at_sum = function(*(a + b for a, b in zip(u, v, strict=True)))
    at_multiple = function(*(_FACTOR * a for a in u))
    at_zero = function(*(torch.zeros_like(a) for a in u))
    scale = max(_norm(at_u), _norm(at_v), _norm(at_sum), torch.finfo(torch.float32).tiny)
    sums, multiples = at_sum - at_u - at_v, at_multiple - _FACTOR * at_u
    affine = max(_norm(sums + at_zero), _norm((at_multiple - at_zero) - _FACTOR * (at_u - at_zero)))
    return _Errors(_norm(sums) / scale, _norm(multiples) / scale, affine / scale, _norm(at_zero) / scale)


def _norm(value: Tensor) -> float:
    return float(value.double().norm())


def _noise_like(x: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    size = float(x.double().square().mean().sqrt()) or 1.0
    return torch.randn(x.shape, generator=generator, dtype=x.dtype) * size


class _Watch(TorchFunctionMode):
    """A check of every PyTorch function by itself, on operands like those that reach it."""

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
            self._judge(name, func, args, options, dict(operands))
            for tensor in made:
                self._alive.append(tensor)
                self._dependent.add(id(tensor))
        return result

    def _judge(
        self, name: str, func: Callable[..., Any], args: Sequence[Any], options: Options, operands: Mapping[int, Tensor]
    ) -> None:
        def function(*tensors: Tensor) -> Tensor:
            given = dict(zip(operands, tensors, strict=True))
            made = tensors_in(func(*_replaced(args, given), **_replaced(options, given)))
            return torch.cat([t.reshape(-1).double() for t in made if t.is_floating_point()])

        u = list(operands.values())
        errors = _check(function, u, [_noise_like(t, self._seed + number) for number, t in enumerate(u, start=1)])
        if max(errors.additivity, errors.homogeneity) <= self._tolerance:
            return
        affine = errors.affine <= self._tolerance
        self.breaks.append(Break(self.paths.name(name), name, errors.offset if affine else errors.affine, affine))


def _replaced(value: Any, given: Mapping[int, Tensor]) -> Any:
    """Return nested arguments with other tensors in the places of some."""
    if isinstance(value, Tensor):
        return given.get(id(value), value)
    if isinstance(value, dict):
        return {key: _replaced(element, given) for key, element in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_replaced(element, given) for element in value)
    return value
