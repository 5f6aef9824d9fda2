"""Initial weights that keep the variance of activations from layer to layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from convoxel.errors import ConfigError
from convoxel.nn.torch_layers import CONV, CONV_TRANSPOSE


def start_weights(module: nn.Module, *, negative_slope: float = 0.0, linear: Sequence[nn.Module] = ()) -> None:
    """Draw the weights of every convolution, transposed convolution and linear layer inside ``module``.

    Weights come from N(0, 2 / ((1 + a²) n)) (He et al. 2015, arXiv 1502.01852, eqs. 10 and 15; the U-Net
    paper's √(2/N)): n is the number of inputs that feed one output value and a the negative slope of the
    rectifier that follows. Layers in ``linear`` have no rectifier after them and get N(0, 1/n), which keeps
    unit variance there. Biases start at 0; normalisation layers keep PyTorch's scale 1 and shift 0.

    For a transposed convolution n = in_channels / groups × kernel / stride, since only every stride-th kernel
    element meets an output value (PyTorch's own fan-in would take out_channels × kernel).
    """
    for layer in module.modules():
        if isinstance(layer, CONV):
            inputs = float(layer.weight[0].numel())
        elif isinstance(layer, CONV_TRANSPOSE):
            overlap = math.prod(k / s for k, s in zip(layer.kernel_size, layer.stride, strict=True))
            inputs = max(1.0, layer.in_channels / layer.groups * overlap)
        elif isinstance(layer, nn.Linear):
            inputs = float(layer.in_features)
        else:
            continue
        gain = 1.0 if any(layer is plain for plain in linear) else 2.0 / (1.0 + negative_slope**2)
        with torch.no_grad():
            layer.weight.normal_(0.0, math.sqrt(gain / max(inputs, 1.0)))
            if layer.bias is not None:
                layer.bias.zero_()


def start_network(
    module: nn.Module, *, conv: Literal["fan_in", "fan_out"] | float = "fan_out", linear: float | None = None
) -> None:
    """Draw the weights of every convolution and linear layer inside ``module`` as a paper prescribes.

    Biases start at 0; normalisation layers keep scale 1 and shift 0. Nothing is drawn on the meta device.

    Args:
        module: what to start.
        conv: ``"fan_in"`` or ``"fan_out"``: N(0, 2 / n) with n the products behind one output (or before one
            gradient) value, He et al. 2015, eqs. 10 and 14; or the standard deviation.
        linear: the standard deviation; None: uniform ±1/√inputs, PyTorch's own.

    >>> layer = nn.Conv2d(64, 32, 3)
    >>> start_network(layer)
    >>> round(layer.weight.std().item() * math.sqrt(32 * 9 / 2), 1), layer.bias.abs().max().item()
    (1.0, 0.0)
    """
    for layer in module.modules():
        if not isinstance(layer, (*CONV, nn.Linear)) or layer.weight.is_meta:
            continue
        if isinstance(layer, nn.Linear):
            if linear is not None:
                nn.init.normal_(layer.weight, 0.0, linear)
        elif isinstance(conv, str):
            nn.init.kaiming_normal_(layer.weight, mode=conv, nonlinearity="relu")
        else:
            nn.init.normal_(layer.weight, 0.0, conv)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def start_uniform(module: nn.Module, products: int) -> None:
    """Draw all parameters of ``module`` as PyTorch draws those of a convolution: uniformly within ±1 / √products.

    Args:
        module: layer whose parameters are drawn.
        products: number of products behind one output value.
    """
    if products < 1:
        raise ConfigError("a layer needs at least one channel, and a kernel of at least 1 along every axis.")
    limit = 1.0 / math.sqrt(products)
    for parameter in module.parameters():
        nn.init.uniform_(parameter, -limit, limit)
