"""Ways of up-sampling compared: evenness of the overlap, strength of the checkerboard, cost.

Odena, Dumoulin & Olah 2016, "Deconvolution and checkerboard artifacts": a transposed convolution whose stride does not
divide its kernel covers some outputs more often than others. Where each of the s positions between two inputs has its
own weights, random weights make a checkerboard even if the overlap is even. Both are measured: equal weights show the
overlap, initial weights show the rest.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convoxel.errors import ConfigError, ShapeError
from convoxel.files.values import JsonObject
from convoxel.inspect.describe import describe
from convoxel.inspect.rank import time_engine

_CELLS = 9  # inputs of the constant image along an axis: the middle ones are far from the border
_MOST_STARTS = 10_000
_BLOCKS = 4  # inputs of the picture along an axis


@dataclass(frozen=True)
class Upsampling:
    """One way of up-sampling, measured by :func:`upsampling`.

    Attributes:
        name: its name.
        scale: outputs for one input along each axis.
        params: number of parameters.
        macs: multiply-accumulates for the input.
        overlaps: number of inputs counted in each of the ∏scale outputs of an input, row by row: the output for a
            constant image of ones, divided by the input channels, if all weights are 1.
        checkerboard: share of the energy that is checkerboard if all weights are equal.
        checkerboard_start: the same with initial weights, over several starts.
        time_s: time of a run on our engine in seconds; None if not measured.
        response: output for a constant image with equal weights, 4 inputs along each axis, scaled to mean 1.
        response_start: first channel of the output with the weights of the first start.
    """

    name: str
    scale: tuple[int, ...]
    params: int
    macs: int
    overlaps: tuple[float, ...]
    checkerboard: float
    checkerboard_start: float
    time_s: float | None
    response: NDArray[np.float32]
    response_start: NDArray[np.float32]

    @property
    def even(self) -> bool:
        """True if all outputs count equally many inputs."""
        return len(set(self.overlaps)) == 1

    def to_dict(self) -> JsonObject:
        """Return the numbers as JSON holds them."""
        kept = {name: value for name, value in vars(self).items() if not name.startswith("response")}
        return {**kept, "even": self.even}


def upsampling(
    models: Mapping[str, nn.Module], shape: Sequence[int], *, starts: int = 16, seed: int = 0, timed: bool = True
) -> tuple[Upsampling, ...]:
    """Return overlap, checkerboard, parameters, cost and time of each of ``models``.

    For a constant image an ideal up-sampling gives a constant away from the border; differences between the s outputs
    of one input are checkerboard (see :func:`checkerboard`).

    Args:
        models: name → module from ``(n, c, *spatial)`` to ``(n, o, *spatial · scale)``, such as those of
            :func:`convoxel.nn.upsamplers`. They are copied, not changed.
        shape: input shape ``(n, c, *spatial)`` for cost and time.
        starts: number of random starts, by each layer's ``reset_parameters`` (default 16).
        seed: random seed of the starts (default 0).
        timed: measure the time of each on our engine (default True).

    Raises:
        ConfigError: no model, or fewer than one start. ShapeError: an output is no whole multiple of its input.

    >>> double = nn.ConvTranspose1d(1, 1, 3, stride=2, padding=1, output_padding=1)
    >>> found = upsampling({"kernel 3": double}, (1, 1, 8), timed=False)[0]
    >>> found.overlaps, found.even, round(found.checkerboard, 3), found.params
    ((1.0, 2.0), False, 0.1, 4)
    """
    if not models or not 1 <= starts <= _MOST_STARTS:
        raise ConfigError(
            f"upsampling: got {len(models)} models and starts={starts}; expected at least one of each, and at most "
            f"{_MOST_STARTS} starts."
        )
    return tuple(_measure(name, model, tuple(shape), starts, seed, timed) for name, model in models.items())


def checkerboard(y: Tensor, scale: Sequence[int]) -> float:
    """Return the share of the energy of ``y`` that repeats with period ``scale`` and is not constant.

    1 − Σ_c m̄_c² / Σ_c mean_p m²_cp, where m_cp is the mean of channel c over all blocks at place p of a block. By
    Parseval this is the energy at the non-zero multiples of the frequencies 1 / scale, divided by that at all of them.

    Args:
        y: ``(c, *spatial)`` of whole blocks.
        scale: size of a block along each axis.

    Returns:
        0 (no checkerboard, or an image of zeros) to 1 (nothing else).

    Raises:
        ShapeError: ``y`` does not consist of whole blocks.

    >>> round(checkerboard(torch.tensor([[1.0, 2.0, 1.0, 2.0]]), (2,)), 3), checkerboard(torch.ones(3, 4, 4), (2, 2))
    (0.1, 0.0)
    """
    if y.dim() != len(scale) + 1 or any(size % s for size, s in zip(y.shape[1:], scale, strict=False)):
        raise ShapeError(
            f"checkerboard: y is {tuple(y.shape)}; expected (c, *spatial) in blocks of {tuple(scale)}. Crop y."
        )
    parts = [part for size, s in zip(y.shape[1:], scale, strict=True) for part in (size // s, s)]
    blocks = y.double().reshape(y.shape[0], *parts)
    means = blocks.mean(dim=tuple(range(1, 2 * len(scale), 2))).flatten(1)
    total = float(means.square().mean(1).sum())
    return 1.0 - float(means.mean(1).square().sum()) / total if total else 0.0


def _measure(name: str, model: nn.Module, shape: tuple[int, ...], starts: int, seed: int, timed: bool) -> Upsampling:
    model = copy.deepcopy(model).cpu().float().eval()
    scale = _scale(name, model, shape)
    summary = describe(model, shape)
    time_s = time_engine(model, shape) if timed else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        middles = [_middle(_restarted(model), shape[1], scale) for _ in range(starts)]
    # Weighed by energy, as one image with the channels of all starts.
    start_share = checkerboard(torch.cat(middles), scale)
    middle = _middle(_levelled(model), shape[1], scale)
    one: tuple[int | slice, ...] = (0, *(slice(0, s) for s in scale))
    return Upsampling(
        name=name,
        scale=scale,
        params=summary.params,
        macs=summary.macs,
        overlaps=tuple(round(float(value), 4) for value in middle[one].flatten() / shape[1]),
        checkerboard=checkerboard(middle, scale),
        checkerboard_start=start_share,
        time_s=time_s,
        response=(middle[0] / middle[0].mean()).numpy(),
        response_start=middles[0][0].numpy(),
    )


def _scale(name: str, model: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    with torch.no_grad():
        made = tuple(model(torch.zeros(shape)).shape)
    if len(made) != len(shape) or any(o % i or o < i for o, i in zip(made[2:], shape[2:], strict=False)):
        raise ShapeError(
            f"upsampling: {name} makes {made} of {shape}; expected (n, o, *spatial) with whole multiples of the "
            "input's sizes. Pad or crop inside of the module."
        )
    return tuple(o // i for o, i in zip(made[2:], shape[2:], strict=True))


def _levelled(model: nn.Module) -> nn.Module:
    """Return a copy whose weights are all 1 and whose biases are 0, so that its sums count inputs."""
    made = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.fill_(1.0 if parameter.dim() > 1 else 0.0)
    return made


def _restarted(model: nn.Module) -> nn.Module:
    """Return a copy with new initial weights and biases of 0, which would hide the response to a constant image."""
    made = copy.deepcopy(model)
    for layer in made.modules():
        if callable(reset := getattr(layer, "reset_parameters", None)):
            reset()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() == 1:
                parameter.zero_()
    return made


def _middle(model: nn.Module, channels: int, scale: Sequence[int]) -> Tensor:
    """Return the outputs of the middle inputs of a constant image: ``(o, *(4 · scale))``."""
    begin = (_CELLS - _BLOCKS + 1) // 2
    with torch.no_grad():
        y: Tensor = model(torch.ones(1, channels, *(_CELLS,) * len(scale)))[0]
    inner: tuple[slice, ...] = (slice(None), *(slice(begin * s, (begin + _BLOCKS) * s) for s in scale))
    return y[inner]
