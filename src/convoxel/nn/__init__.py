"""PyTorch layers written once for 1, 2 and 3 spatial axes, with no tie to the graph or the engine.

``layer``    the layers of ``torch.nn`` chosen by ``dims``; state-dict names stay as they are there
``initial``  starting weights that keep the variance of the activations
"""

from __future__ import annotations

from convoxel.nn.initial import start_network, start_weights
from convoxel.nn.layer import (
    ACTIVATIONS,
    LEAKY_SLOPE,
    NORMS,
    activation,
    adaptive_average_pool,
    average_pool,
    batch_norm,
    check_dims,
    conv,
    conv_transpose,
    global_average_pool,
    group_norm,
    instance_norm,
    max_pool,
    norm,
    resize,
)

__all__ = [
    "ACTIVATIONS",
    "LEAKY_SLOPE",
    "NORMS",
    "activation",
    "adaptive_average_pool",
    "average_pool",
    "batch_norm",
    "check_dims",
    "conv",
    "conv_transpose",
    "global_average_pool",
    "group_norm",
    "instance_norm",
    "max_pool",
    "norm",
    "resize",
    "start_network",
    "start_weights",
]
