"""Exact numbers about convolutional layers, from the standard library alone: no arrays, no framework.

Read in this order:

``window``     sizes: input, output and padding (Dumoulin & Visin's relationships)
``taps``       the inputs that a layer reads
``size_set``   periodic affine functions of a size, sets of sizes
``field``      receptive fields: the inputs that an output position sees through all layers
``cost``       parameters, multiply-accumulates, bytes
``layer``      layers along one axis, as records
``axis``       a network along one axis, as a graph of them
``notation``   a chain of layers as text
``solve``      the inverse: input sizes, layers, padding, depth
``tile``       inputs in parts whose outputs equal those of the whole
``winograd``   the matrices of F(m, r)

The letters are the papers', per axis: i input size, o output size, k kernel size, s stride, p padding (one
number, or a pair for before and after), d dilation (1: dense), a extra output positions of a transposed
convolution, e = d (k − 1) + 1 the inputs that a kernel spans.
"""

from __future__ import annotations

from convoxel.arithmetic.axis import Graph, Node
from convoxel.arithmetic.cost import (
    OPTIMISERS,
    MatrixCounts,
    conv_macs,
    conv_matrix,
    conv_params,
    flops,
    intensity,
    linear_macs,
    linear_params,
    norm_params,
    peak_bytes,
    size_bytes,
    training_bytes,
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
    misalignment,
    through,
)
from convoxel.arithmetic.layer import (
    Adaptive,
    Crop,
    Exact,
    Join,
    Layer,
    Pad,
    Repeat,
    Resize,
    ResizeLike,
    Transposed,
    Unpool,
    Window,
)
from convoxel.arithmetic.notation import parse_chain, parse_chains
from convoxel.arithmetic.size_set import PeriodicAffine, SizeSet
from convoxel.arithmetic.solve import (
    Alignment,
    Depth,
    Inputs,
    Windows,
    output_equation,
    solve_alignment,
    solve_depth,
    solve_inputs,
    solve_windows,
)
from convoxel.arithmetic.taps import (
    Taps,
    adaptive_taps,
    conv_taps,
    resize_taps,
    slice_taps,
    transposed_taps,
    unpool_taps,
)
from convoxel.arithmetic.tile import Part, Tile, solve_tile
from convoxel.arithmetic.window import (
    PADDING_WORDS,
    conv_size,
    conv_sizes,
    output_padding,
    pool_size,
    pool_sizes,
    resolve_padding,
    resolve_transposed,
    span,
    transposed_padding,
    transposed_size,
    transposed_sizes,
)
from convoxel.face import open_face

__all__ = [
    "OPTIMISERS",
    "PADDING_WORDS",
    "Adaptive",
    "Alignment",
    "Crop",
    "Depth",
    "Exact",
    "Field",
    "Graph",
    "Inputs",
    "Join",
    "Layer",
    "MatrixCounts",
    "Node",
    "Pad",
    "Part",
    "PeriodicAffine",
    "Repeat",
    "Resize",
    "ResizeLike",
    "SizeSet",
    "Taps",
    "Tile",
    "Transposed",
    "Unpool",
    "Window",
    "Windows",
    "adaptive_taps",
    "compose",
    "compose_adaptive",
    "compose_resize",
    "compose_slice",
    "compose_transposed",
    "conv_macs",
    "conv_matrix",
    "conv_params",
    "conv_size",
    "conv_sizes",
    "conv_taps",
    "flops",
    "intensity",
    "join",
    "linear_macs",
    "linear_params",
    "misalignment",
    "norm_params",
    "output_equation",
    "output_padding",
    "parse_chain",
    "parse_chains",
    "peak_bytes",
    "pool_size",
    "pool_sizes",
    "resize_taps",
    "resolve_padding",
    "resolve_transposed",
    "size_bytes",
    "slice_taps",
    "solve_alignment",
    "solve_depth",
    "solve_inputs",
    "solve_tile",
    "solve_windows",
    "span",
    "through",
    "training_bytes",
    "transposed_macs",
    "transposed_padding",
    "transposed_size",
    "transposed_sizes",
    "transposed_taps",
    "unpool_taps",
]

open_face(__name__, early=True)
