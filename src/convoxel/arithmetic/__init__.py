"""Exact numbers about convolutional layers, from the standard library alone: no arrays, no framework.

Read in this order:

``window``  sizes: what goes in, what comes out, which padding (Dumoulin & Visin's relationships)
``field``   receptive fields: which inputs an output position sees
``cost``    parameters, multiply-accumulates, bytes

The letters are the papers', per axis: i input size, o output size, k kernel size, s stride, p padding (one
number, or a pair for before and after), d dilation (1: dense), a extra output rows of a transposed
convolution.
"""

from __future__ import annotations

from convoxel.arithmetic.cost import (
    conv_macs,
    conv_params,
    flops,
    linear_macs,
    linear_params,
    norm_params,
    peak_bytes,
    size_bytes,
    transposed_macs,
)
from convoxel.arithmetic.field import (
    Field,
    compose,
    compose_adaptive,
    compose_resize,
    compose_slice,
    compose_transposed,
    join,
)
from convoxel.arithmetic.window import (
    PADDING_WORDS,
    conv_size,
    output_padding,
    pool_size,
    resolve_padding,
    span,
    transposed_padding,
    transposed_size,
)

__all__ = [
    "PADDING_WORDS",
    "Field",
    "compose",
    "compose_adaptive",
    "compose_resize",
    "compose_slice",
    "compose_transposed",
    "conv_macs",
    "conv_params",
    "conv_size",
    "flops",
    "join",
    "linear_macs",
    "linear_params",
    "norm_params",
    "output_padding",
    "peak_bytes",
    "pool_size",
    "resolve_padding",
    "size_bytes",
    "span",
    "transposed_macs",
    "transposed_padding",
    "transposed_size",
]
