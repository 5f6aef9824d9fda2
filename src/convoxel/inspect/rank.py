"""The separability of kernels into smaller ones: singular values, ranks, errors, and savings.

``factorisation`` holds the schemes. A network is not changed here; ``convoxel.nn.separate`` does that.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from convoxel.arithmetic.argument import whole
from convoxel.arithmetic.window import conv_size
from convoxel.errors import ConfigError
from convoxel.files.values import JsonObject
from convoxel.inspect.factorisation import SCHEMES, Factor, Factorisation, canonical, factorise, tucker
from convoxel.inspect.model_call import evaluating

# Rounding of float32 weights hides smaller shares of the norm.
_TOLERANCE = 1e-6
_MOST_RUNS, _MOST_S = 10**6, 3600.0  # of a measurement
_ERRORS = (0.05, 0.1, 0.2, 0.4)
ConvLayer = nn.Conv1d | nn.Conv2d | nn.Conv3d
_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

Shape = tuple[int, ...]
Measure = Callable[[nn.Module, Shape], float]


@dataclass(frozen=True)
class Spectrum:
    """The singular values of one unfolding of a kernel.

    Attributes:
        mode: name of the unfolding: ``"rows × columns"`` of a 2-D kernel, ``"depth"``, ``"out"``, …
        values: singular values, largest first.
    """

    mode: str
    values: tuple[float, ...]

    def rank(self, tolerance: float = _TOLERANCE) -> int:
        """Return how many singular values are above ``tolerance`` times the largest."""
        largest = max(self.values, default=0.0)
        return sum(value > tolerance * largest for value in self.values)

    def error(self, rank: int) -> float:
        """Return the Frobenius distance to the nearest matrix of ``rank``: the root of Σ s² over what is discarded.

        (Eckart & Young 1936.)

        >>> Spectrum("out", (4.0, 3.0)).error(1)
        3.0
        """
        return math.sqrt(sum(value * value for value in self.values[rank:]))


@dataclass(frozen=True)
class KernelSeparability:
    """The result of :func:`separability` for a single kernel of 1, 2 or 3 axes.

    Attributes:
        kernel: the kernel in float64.
        spectra: singular values; in 2-D of the matrix, in 3-D of each axis against the other two.
        tolerance: singular values below this share of the largest count as 0.
    """

    kernel: Tensor
    spectra: tuple[Spectrum, ...]
    tolerance: float

    @property
    def ranks(self) -> tuple[int, ...]:
        """The rank of each unfolding; in 3-D the multilinear rank."""
        return tuple(spectrum.rank(self.tolerance) for spectrum in self.spectra)

    @property
    def separable(self) -> bool:
        """True if the kernel is an outer product of one vector for each axis."""
        return max(self.ranks, default=1) <= 1

    def freedom(self, rank: int | None = None) -> int:
        """Return the number of weights of a sum of ``rank`` outer products, ∑ₐ kₐ for each, or of the kernel for None.

        The scale of each vector counts: a 3×3 kernel has 9 weights, one of rank 1 has 6.
        """
        return math.prod(self.kernel.shape) if rank is None else rank * sum(self.kernel.shape)

    def best(self, rank: int | Sequence[int]) -> Tensor:
        """Return the nearest kernel of ``rank``.

        Args:
            rank: terms of a sum of outer products: in 2-D by singular value decomposition, in 3-D by alternating
                least squares (CP). In 3-D also one rank for each axis (Tucker).
        """
        if not isinstance(rank, int):
            return tucker(self.kernel, rank)
        if self.kernel.ndim == 3:
            return canonical(self.kernel, rank)
        matrix = self.kernel if self.kernel.ndim == 2 else self.kernel[None]
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        product: Tensor = (left[:, :rank] * values[:rank]) @ right[:rank]
        return product.reshape(self.kernel.shape)

    def error(self, rank: int | Sequence[int]) -> float:
        """Return the Frobenius distance ‖K − best(rank)‖."""
        return float((self.kernel - self.best(rank)).norm())

    def vectors(self) -> tuple[Tensor, ...]:
        """Return one vector an axis whose outer product is the nearest separable kernel.

        All have the same norm; the first carries the sign.

        >>> u, v = separability([[1, 0, -1], [2, 0, -2], [1, 0, -1]]).vectors()
        >>> [round(float(x), 6) + 0.0 for x in u / u[0]], [round(float(x), 6) + 0.0 for x in v / v[0]]
        ([1.0, 2.0, 1.0], [1.0, 0.0, -1.0])
        """
        near = self.best(1)
        size = float(near.norm())
        found = []
        for mode in range(near.ndim):
            matrix = near.movedim(mode, 0).reshape(near.shape[mode], -1)
            column = matrix[:, int(matrix.square().sum(0).argmax())]
            found.append(column / (column.norm() or 1.0) * size ** (1 / near.ndim))
        product = found[0]
        for vector in found[1:]:
            product = product[..., None] * vector
        sign = -1.0 if float((product * near).sum()) < 0 else 1.0
        return (found[0] * sign, *found[1:])

    def to_dict(self) -> JsonObject:
        """Return the figures as JSON knows them."""
        return {
            "shape": list(self.kernel.shape),
            "ranks": list(self.ranks),
            "separable": self.separable,
            "weights": self.freedom(),
            "weights_rank_1": self.freedom(1),
            "spectra": [asdict(spectrum) for spectrum in self.spectra],
        }


@dataclass(frozen=True)
class Alternative:
    """One way to write a layer as smaller convolutions, and its cost.

    Attributes:
        scheme: a key of ``SCHEMES``.
        ranks: channels between the factors.
        error: ‖W − Ŵ‖ / ‖W‖.
        params: weights of the factors, bias included.
        macs: multiply–accumulates for one input; None where the input's size is not known.
        time_s: measured time in seconds; None without a measurement.
    """

    scheme: str
    ranks: tuple[int, ...]
    error: float
    params: int
    macs: int | None
    time_s: float | None


@dataclass(frozen=True)
class LayerSeparability:
    """The result of :func:`separability` for a convolution.

    Attributes:
        name: name of the layer in its network.
        shape: shape of its weights, (out, in, *kernel).
        spectra: singular values of the unfoldings that schemes cut: output channels, input channels, space.
        params, macs, time_s: cost of the layer as it is.
        alternatives: smaller convolutions by scheme and error.
    """

    name: str
    shape: tuple[int, ...]
    spectra: tuple[Spectrum, ...]
    params: int
    macs: int | None
    time_s: float | None
    alternatives: tuple[Alternative, ...]

    def to_dict(self) -> JsonObject:
        """Return the figures as JSON knows them."""
        return asdict(self)


@dataclass(frozen=True)
class ModelSeparability:
    """The result of :func:`separability` for a network: one row for each convolution that could be separated."""

    rows: tuple[LayerSeparability, ...]

    def to_dict(self) -> JsonObject:
        """Return the figures as JSON knows them."""
        return {"layers": [row.to_dict() for row in self.rows]}

    def __str__(self) -> str:
        lines = [f"{'layer':24} {'weights':18} {'scheme':10} {'ranks':>10} {'error':>6} {'MACs':>6} {'time':>6}"]
        for row in self.rows:
            shape = "×".join(map(str, row.shape))
            for place, other in enumerate(row.alternatives):
                macs = f"{other.macs / row.macs:.2f}" if other.macs is not None and row.macs else "–"
                spent = f"{other.time_s / row.time_s:.2f}" if other.time_s is not None and row.time_s else "–"
                first = (row.name, shape) if place == 0 else ("", "")
                ranks = ",".join(map(str, other.ranks))
                lines.append(f"{first[0]:24} {first[1]:18} {other.scheme:10} {ranks:>10} {other.error:6.3f} "
                             f"{macs:>6} {spent:>6}")  # fmt: skip
        return "\n".join(lines)


def separability(
    subject: Any,
    *,
    tolerance: float = _TOLERANCE,
    shape: Sequence[int] | None = None,
    errors: Sequence[float] = _ERRORS,
    measure: Measure | None = None,
) -> Any:
    """Return how separable a kernel, a convolution, or every convolution of a network is.

    A 2-D kernel is K = u vᵀ, and I * K = (I * u) * v, if and only if its matrix has rank 1, which the singular
    value decomposition tells; in 3-D if each of the three unfoldings has rank 1 (higher-order SVD, De Lathauwer et
    al. 2000).

    Args:
        subject: a kernel of 1 to 3 axes (array, tensor, nested list), a convolution without groups, or a network.
        tolerance: singular values below this share of the largest count as 0 (default 1e-6).
        shape: input shape (n, channels, *spatial) of the layer or network (default None: no multiply–accumulates).
        errors: relative errors at which alternatives of a layer are listed (default 0.05, 0.1, 0.2, 0.4).
        measure: function (module, input shape) → seconds, such as :func:`time_engine`; needs ``shape`` (default None).

    Returns:
        :class:`KernelSeparability`, :class:`LayerSeparability` or :class:`ModelSeparability`.

    Raises:
        ConfigError: ``subject`` is none of these, or ``measure`` is given without ``shape``.

    >>> sobel = separability([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    >>> sobel.separable, sobel.ranks, sobel.freedom(), sobel.freedom(1)
    (True, (1,), 9, 6)
    """
    if measure is not None and shape is None:
        raise ConfigError("shape: not given, but measure needs an input. Give shape=(n, channels, *spatial).")
    if isinstance(subject, nn.Module):
        if isinstance(subject, _CONV):
            if subject.groups != 1:
                raise ConfigError(f"separability: the layer has groups={subject.groups}; expected one without groups.")
            return _of_layer("", subject, None if shape is None else tuple(shape), tolerance, errors, measure)
        shapes = input_shapes(subject, shape)
        return ModelSeparability(
            tuple(
                _of_layer(name, layer, shapes.get(name), tolerance, errors, measure)
                for name, layer in subject.named_modules()
                if isinstance(layer, _CONV) and layer.groups == 1 and (shape is None or name in shapes)
            )
        )
    try:
        kernel = torch.as_tensor(subject).detach().double()
    except (TypeError, ValueError, RuntimeError):
        raise ConfigError(
            f"separability: subject is a {type(subject).__name__}; expected a kernel of numbers, a convolution or a "
            "network."
        ) from None
    if not 1 <= kernel.ndim <= 3 or not kernel.numel():
        raise ConfigError(
            f"separability: the kernel has shape {tuple(kernel.shape)}; expected 1 to 3 axes. For the weights of a "
            "layer give the layer, or one kernel: weight[o, i]."
        )
    return KernelSeparability(kernel, _spectra_of_kernel(kernel), tolerance)


def _spectra_of_kernel(kernel: Tensor) -> tuple[Spectrum, ...]:
    if kernel.ndim < 3:
        matrix = kernel.reshape(-1, kernel.shape[-1])
        return (_spectrum("rows × columns" if kernel.ndim == 2 else "row", matrix),)
    modes = ("depth", "height", "width")
    return tuple(_spectrum(mode, kernel.movedim(axis, 0).flatten(1)) for axis, mode in enumerate(modes))


def _spectrum(mode: str, matrix: Tensor) -> Spectrum:
    return Spectrum(mode, tuple(torch.linalg.svdvals(matrix).tolist()))


# ---- layers ----------------------------------------------------------------------------------------------


def _of_layer(
    name: str, layer: ConvLayer, shape: Shape | None, tolerance: float, errors: Sequence[float], measure: Measure | None
) -> LayerSeparability:
    weight = layer.weight.detach().double()
    spectra = [_spectrum("out", weight.flatten(1)), _spectrum("in", weight.transpose(0, 1).flatten(1))]
    wide = [axis for axis, size in enumerate(weight.shape[2:]) if size > 1]
    if len(wide) > 1:
        # The first wide axis with the inputs against the others with the outputs: where `spatial` cuts first.
        rows = weight.transpose(0, 1).movedim(2 + wide[0], 1).flatten(0, 1)
        spectra.append(_spectrum("space", rows.flatten(1)))
    bias = 0 if layer.bias is None else layer.out_channels
    found: list[Alternative] = []
    for scheme in SCHEMES:
        seen: set[tuple[int, ...]] = set()
        for error in sorted(errors):
            made = factorise(weight, scheme, max(error, tolerance))
            if made is None or made.ranks in seen:
                continue
            seen.add(made.ranks)
            layers = factor_layers(layer, made)
            macs = None if shape is None else count_macs(layers, shape)
            spent = None if measure is None or shape is None else measure(layers, shape)
            found.append(Alternative(scheme, made.ranks, made.error, made.params + bias, macs, spent))
    return LayerSeparability(
        name=name,
        shape=tuple(weight.shape),
        spectra=tuple(spectra),
        params=weight.numel() + bias,
        macs=None if shape is None else count_macs(nn.Sequential(layer), shape),
        time_s=None if measure is None or shape is None else measure(layer, shape),
        alternatives=tuple(found),
    )


def factor_layers(layer: ConvLayer, made: Factorisation) -> nn.Sequential:
    """Return the convolutions that replace ``layer``: the factor of an axis has its stride, padding and dilation.

    Composition is exact at the border too, as no factor but the last has a bias: what is padded with zeros stays
    zero.

    >>> layer = nn.Conv2d(4, 8, 3, stride=2, padding=1)
    >>> found = factor_layers(layer, factorise(layer.weight, "spatial", 0.0))
    >>> x = torch.rand(1, 4, 9, 9)
    >>> torch.allclose(found(x), layer(x), atol=1e-5)
    True
    """
    last = len(made.factors) - 1
    layers = nn.Sequential(
        *(_factor_layer(layer, factor, place == last and layer.bias is not None)
          for place, factor in enumerate(made.factors))
    )  # fmt: skip
    for hook in layer._forward_pre_hooks.values():  # dropout of whole networks acts on the inputs of layers
        layers.register_forward_pre_hook(hook)
    for after in layer._forward_hooks.values():  # and shortcuts are added to their outputs
        layers.register_forward_hook(after)
    return layers.train(layer.training)


def _factor_layer(layer: ConvLayer, factor: Factor, bias: bool) -> nn.Module:
    dims = factor.weight.ndim - 2

    def own(values: Sequence[int], other: int) -> tuple[int, ...]:
        return tuple(values[axis] if axis in factor.axes else other for axis in range(dims))

    outputs, inputs, *kernel = factor.weight.shape
    made = _CONV[dims - 1](
        inputs * factor.groups,
        outputs,
        tuple(kernel),  # type: ignore[arg-type]
        stride=own(layer.stride, 1),  # type: ignore[arg-type]
        padding=layer.padding if isinstance(layer.padding, str) else own(layer.padding, 0),  # type: ignore[arg-type]
        dilation=own(layer.dilation, 1),  # type: ignore[arg-type]
        groups=factor.groups,
        bias=bias,
        padding_mode=layer.padding_mode,
    ).to(layer.weight.device, layer.weight.dtype)
    with torch.no_grad():
        made.weight.copy_(factor.weight)
        if bias and made.bias is not None and layer.bias is not None:
            made.bias.copy_(layer.bias)
    return made.train(layer.training)


def count_macs(layers: nn.Sequential, shape: Sequence[int]) -> int:
    """Return the multiply–accumulates of convolutions one after the other on an input of ``shape``.

    >>> count_macs(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1)), (1, 1, 8, 8))
    2304
    """
    total, sizes = 0, list(shape[2:])
    for layer in layers:
        conv: Any = layer
        if conv.padding != "same":  # which keeps the size
            pads = (0,) * len(sizes) if isinstance(conv.padding, str) else conv.padding
            sizes = [
                conv_size(i, k, s, p, d)
                for i, k, s, p, d in zip(sizes, conv.kernel_size, conv.stride, pads, conv.dilation, strict=True)
            ]
        total += shape[0] * math.prod(sizes) * conv.weight.numel()
    return total


def input_shapes(model: nn.Module, shape: Sequence[int] | None) -> dict[str, tuple[int, ...]]:
    """Return the shape that each convolution sees when the network sees ``shape``; layers that do not run are left out.

    >>> input_shapes(nn.Sequential(nn.Conv1d(1, 4, 3), nn.Conv1d(4, 1, 1)), (1, 1, 8))
    {'0': (1, 1, 8), '1': (1, 4, 6)}
    """
    if shape is None:
        return {}
    shapes: dict[str, tuple[int, ...]] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: shapes.__setitem__(name, tuple(inputs[0].shape)))
        for name, layer in model.named_modules()
        if isinstance(layer, _CONV)
    ]
    parameter = next(model.parameters())
    try:
        with evaluating(model), torch.no_grad():
            model(torch.zeros(tuple(shape), dtype=parameter.dtype, device=parameter.device))
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


# ---- time ------------------------------------------------------------------------------------------------


def time_engine(module: nn.Module, shape: Sequence[int], *, runs: int = 7, budget_s: float = 0.2) -> float:
    """Return the seconds that a module takes on our engine: the least of several runs.

    Other work on the machine only ever adds time, so the least is nearest to the truth.

    Args:
        module: a module that :func:`convoxel.compile` takes.
        shape: shape of its input.
        runs: smallest number of timed runs; two runs precede them (default 7).
        budget_s: smallest time of all timed runs in seconds (default 0.2).

    >>> time_engine(nn.Conv2d(1, 1, 3), (1, 1, 8, 8), budget_s=0.0) > 0
    True
    """
    from convoxel.graph.compile import compile as compile_model

    x = torch.randn(tuple(shape), generator=torch.Generator().manual_seed(0)).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        program = compile_model(module, x)
    return least_time(lambda: program(x), runs, budget_s)


def least_time(call: Callable[[], object], runs: int, budget_s: float) -> float:
    """Return the least time in seconds of at least ``runs`` calls that take ``budget_s`` together, after two others."""
    runs = whole("runs", runs, 1, _MOST_RUNS)
    if not 0 <= budget_s <= _MOST_S:
        raise ConfigError(f"budget_s is {budget_s}, but it must be at least 0 and at most {_MOST_S} seconds.")
    times: list[float] = []
    while len(times) < runs + 2 or sum(times[2:]) < budget_s:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times[2:])
