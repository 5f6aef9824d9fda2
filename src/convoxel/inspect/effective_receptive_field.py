"""Effective receptive fields: the gradient of one output position with respect to the image.

The theoretical receptive field holds every input that *can* matter; most of them hardly do. The gradient of a position,
averaged over inputs, falls off like a Gaussian, so the effective field is a fraction of the theoretical one and grows
with the square root of the depth (Luo, Li, Urtasun & Zemel 2016, arXiv 1701.04128).
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from convoxel.errors import ConfigError, ConvoxelError, ShapeError
from convoxel.files.values import JsonObject
from convoxel.inspect.model_call import evaluating, given_tensor
from convoxel.inspect.receptive_field import trace_fields
from convoxel.inspect.record import open_source

_TWO_SIGMA = 0.0455  # 1 − 95.45 %, the threshold of Luo et al.


@dataclass(frozen=True)
class EffectiveField:
    """The result of ``effective_field``.

    Attributes:
        array: (*spatial) mean of |gradient| over inputs and channels, the largest scaled to 1.
        position: position of the output along each axis.
        layer: name of the layer whose output it is; "" for the network's own.
        size: extent from the first to the last input above the threshold along each axis.
        side: side of a cube of as many inputs as lie above the threshold.
        theoretical: size of the theoretical field; () where it is not known.
        threshold: share of the largest value above which an input belongs to the field.
    """

    array: NDArray[np.float64] = field(repr=False)
    position: tuple[int, ...]
    layer: str
    size: tuple[int, ...]
    side: float
    theoretical: tuple[int, ...]
    threshold: float

    @property
    def ratio(self) -> tuple[float, ...]:
        """Effective by theoretical size along each axis."""
        return tuple(a / b for a, b in zip(self.size, self.theoretical, strict=False))

    def to_dict(self) -> JsonObject:
        """Return the numbers, without the array."""
        kept = {name: value for name, value in {**vars(self), "ratio": self.ratio}.items() if name != "array"}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}

    def __str__(self) -> str:
        """Return the sizes in one line."""
        sizes, theory = ("×".join(map(str, values)) for values in (self.size, self.theoretical))
        known = f" of {theory} in theory" if theory else ""
        return f"effective field {sizes}{known}, as many inputs as a side of {self.side:.1f} holds"


def effective_field(
    model: nn.Module,
    x: ArrayLike | Tensor,
    *,
    layer: str | None = None,
    position: Sequence[int] | None = None,
    channel: int | None = None,
    threshold: float = _TWO_SIGMA,
    samples: int = 16,
    seed: int = 0,
) -> EffectiveField:
    """Return how strongly each input position moves one output position: |∂ Σ_c y_c(position) / ∂x|, averaged.

    Args:
        model: a PyTorch module; it runs in eval mode and stays as it is.
        x: images (n, c, *spatial), array or tensor; or such a shape, for ``samples`` images of noise.
        layer: name of the module whose output is examined (default: the network, or the last layer whose output has
            image axes if its own has none).
        position: position in that output (default: the middle).
        channel: channel of it whose value is examined (default: the sum of all).
        threshold: share of the largest gradient above which an input belongs to the field (default 0.0455).
        samples: number of images of noise if ``x`` is a shape (default 16).
        seed: random seed of the noise (default 0).

    Raises:
        ShapeError: ``x`` has no spatial axes, or ``position`` or ``channel`` lies outside the output.
        ConfigError: there is no such layer, or its output is no map of the image.

    >>> import torch
    >>> net = torch.nn.Sequential(*[torch.nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(8)])
    >>> for parameter in net.parameters():
    ...     _ = torch.nn.init.ones_(parameter)
    >>> field = effective_field(net, (1, 1, 33, 33))
    >>> field.theoretical, field.size  # 17 wide, but its rim hardly counts
    ((17, 17), (11, 11))
    """
    images = _images(x, samples, seed)
    shape = (1, *images.shape[1:])
    name = _last_map(model, shape) if layer is None else layer
    total = torch.zeros(images.shape[2:], dtype=torch.float64)
    with evaluating(model):
        for image in images:
            gradient, place = _gradient(model, image[None], name, position, channel)
            total += gradient[0].abs().sum(0).double().cpu()
    array = total.numpy() / max(float(total.max()), np.finfo(np.float64).tiny)
    above = array >= threshold
    size = tuple(int(np.ptp(places)) + 1 for places in above.nonzero()) if above.any() else (0,) * above.ndim
    side = float(np.count_nonzero(above)) ** (1 / above.ndim)
    return EffectiveField(array, place, name, size, side, _theoretical(model, shape, name), threshold)


def _images(x: ArrayLike | Tensor, samples: int, seed: int) -> Tensor:
    if isinstance(x, Sequence) and all(isinstance(size, int) for size in x):
        if samples < 1:
            raise ConfigError(f"effective_field: samples is {samples}; expected at least 1.")
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn((samples, *x[1:]), generator=generator)
    images = given_tensor(x)
    if images.dim() < 3:
        raise ShapeError(
            f"effective_field: x has shape {tuple(images.shape)}, expected (n, c, *spatial). Add the missing axes."
        )
    return images.detach() if images.is_floating_point() else images.float()


def _last_map(model: nn.Module, shape: tuple[int, ...]) -> str:
    """Return the last layer whose output is a map of the image, "" for the network itself."""
    try:
        record = open_source(model).record([shape])
    except ConvoxelError:
        return ""
    fields, _ = trace_fields(record)
    if len(record.outputs) == 1 and len(record.shapes[record.outputs[0]]) == len(shape):
        return ""
    names = {name for name, child in model.named_modules() if name and not child._modules}
    for step in reversed(record.steps):
        seen = fields[step.outputs[0].name]
        if step.name in names and len(step.shape) == len(shape) and seen.is_clear and not seen.whole:
            return step.name
    return ""


def _gradient(
    model: nn.Module, image: Tensor, layer: str, position: Sequence[int] | None, channel: int | None
) -> tuple[Tensor, tuple[int, ...]]:
    """Return the gradient of one position of a layer's output, of a channel or summed over all, and the position."""
    image = image.clone().requires_grad_(True)
    found: list[Any] = []
    handle = _module(model, layer).register_forward_hook(lambda module, inputs, output: found.append(output))
    try:
        with torch.enable_grad():
            model(image)
    finally:
        handle.remove()
    y = found[-1] if found else None  # of a module that runs again, as of its map, the last
    if not isinstance(y, torch.Tensor) or y.dim() != image.dim():
        came = tuple(y.shape) if isinstance(y, torch.Tensor) else type(y).__name__
        raise ConfigError(
            f"effective_field: the output of {layer or 'the network'} is {came}, expected a map of the image. "
            "Name a layer whose output has as many axes as the input."
        )
    place = tuple(size // 2 for size in y.shape[2:]) if position is None else tuple(position)
    if len(place) != y.dim() - 2 or any(not 0 <= p < size for p, size in zip(place, y.shape[2:], strict=False)):
        raise ShapeError(f"effective_field: position {place} does not lie in the output {tuple(y.shape[2:])}.")
    if channel is not None and not 0 <= channel < y.shape[1]:
        raise ShapeError(f"effective_field: channel {channel} does not lie in the output's {y.shape[1]} channels.")
    index: tuple[slice | int, ...] = (slice(None), slice(None) if channel is None else channel, *place)
    (gradient,) = torch.autograd.grad(y[index].sum(), image, allow_unused=True)
    return torch.zeros_like(image) if gradient is None else gradient, place


def _module(model: nn.Module, name: str) -> nn.Module:
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if name not in modules:
        near = difflib.get_close_matches(name, modules, n=1, cutoff=0)
        raise ConfigError(f"effective_field: there is no layer {name!r}; did you mean {near[0]!r}?")
    return modules[name]


def _theoretical(model: nn.Module, shape: tuple[int, ...], layer: str) -> tuple[int, ...]:
    """Return the size of the field by arithmetic, () where it is not known."""
    try:
        record = open_source(model).record([shape])
    except ConvoxelError:
        return ()
    fields, _ = trace_fields(record)
    steps = [step for step in record.steps if step.name == layer or step.name.startswith(f"{layer}.")]
    if layer and not steps:
        return ()
    seen = fields[steps[-1].outputs[0].name if layer else record.outputs[0]]
    return tuple(seen.fields[axis].size for axis in sorted(seen.fields)) if seen.is_clear else ()
