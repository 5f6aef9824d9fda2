"""The exact result of a layer at some of its outputs, so that every layer has an error, however large it is.

A sum over the kernel's taps in float64, from the definition, for outputs picked at random. Shares no code with the
engine. The whole result of a layer is in ``convoxel.reference``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from convoxel.bench.layer_list import Layer
from convoxel.native.plan import Floats

_PIXELS, _CHANNELS = 256, 256

Doubles = NDArray[np.float64]
Indices = NDArray[np.int64]


def sample_outputs(layer: Layer, seed: int = 0) -> tuple[Indices, Indices]:
    """Return positions ``(p, dims)``, among them the first and the last one, and channels ``(k,)`` of the output."""
    rng = np.random.default_rng(seed)
    total = math.prod(layer.out_size)
    flat = np.arange(total) if total <= _PIXELS else rng.choice(total, _PIXELS, replace=False)
    flat[0], flat[-1] = 0, total - 1
    count = min(layer.out_channels, _CHANNELS)
    channels = np.sort(rng.choice(layer.out_channels, count, replace=False))
    return np.stack(np.unravel_index(flat, layer.out_size), axis=1), channels


def exact_values(layer: Layer, x: Floats, w: Floats, bias: Floats, pixels: Indices, channels: Indices) -> Doubles:
    """Return the layer's result ``(k, p)`` in float64.

    y[k, o] = bias[k] + Σ_t Σ_c w[k, c, t] · x[c, i(o, t)], where i = o·stride + t·dilation − padding; transposed:
    i = (o + padding − t·dilation) / stride where that is a whole number. Outside of x there are zeros.

    Args:
        layer: the layer.
        x: ``(1, in_channels, *size)``.
        w: ``layer.weight_shape``.
        bias: ``(out_channels,)``.
        pixels, channels: outputs to compute, as ``sample_outputs`` returns them.
    """
    groups = layer.groups
    group, member = np.divmod(channels, layer.out_channels // groups)
    if layer.transposed:
        per_group = w.reshape(groups, layer.in_channels // groups, -1, *layer.kernel)
        rows = np.moveaxis(per_group, 2, 1)[group, member]
    else:
        rows = w[channels]
    total = np.zeros((len(channels), len(pixels))) + bias[channels, None].astype(np.float64)
    for tap in itertools.product(*map(range, layer.kernel)):
        inside = np.ones(len(pixels), bool)
        index = []
        for axis, t in enumerate(tap):
            step, shift = layer.stride[axis], t * layer.dilation[axis] - layer.padding[axis]
            o = pixels[:, axis]
            i, rest = np.divmod(o - shift, step) if layer.transposed else (o * step + shift, np.zeros_like(o))
            inside &= (rest == 0) & (i >= 0) & (i < layer.size[axis])
            index.append(np.clip(i, 0, layer.size[axis] - 1))
        values = np.where(inside, x[0][_behind(1, index)], 0).astype(np.float64)
        taps = rows[_behind(2, tap)].astype(np.float64)
        if groups == 1:
            total += taps @ values
        else:
            total += np.einsum("kc,kcp->kp", taps, values.reshape(groups, -1, len(pixels))[group])
    return total


def relative_error(layer: Layer, x: Floats, w: Floats, bias: Floats, y: Floats) -> float:
    """Return ‖y − exact‖ / ‖exact‖ over the sampled outputs; y is ``(1, out_channels, *out_size)``."""
    pixels, channels = sample_outputs(layer)
    exact = exact_values(layer, x, w, bias, pixels, channels)
    seen = y[0][_behind(1, pixels.T)][channels]
    return float(np.linalg.norm(seen - exact) / np.linalg.norm(exact))


def _behind(axes: int, index: Iterable[int | Indices]) -> tuple[slice | int | Indices, ...]:
    """Return the index of everything on the first axes, and ``index`` on those behind them."""
    return (*[slice(None)] * axes, *index)
