"""The operators of convolutional networks as functions of PyTorch tensors, each written once for 1, 2 and 3 axes.

Tensors are ``(n, c, *spatial)``, or ``(c, *spatial)`` where a kernel or ``dims`` says how many axes are spatial.
Gradients go through everything, twice. Read in this order:

``border``      padding
``correlation`` convolution, correlation, transposed convolution
``matrix``      each of them as a matrix; ``toeplitz`` finds its structure, ``projection`` the nearest one
``separable``   convolutions in factors
``pooling``     largest value, mean, blur; ``unpool`` the inverses
``resize``      interpolation; ``spline`` the B-splines
``deform``      kernels that move; ``dynamic`` kernels of each sample or position
``shuffle``     channels as pixels
"""

from __future__ import annotations

from convoxel.face import open_face
from convoxel.nn.documentation import FUNCTIONS, complete_docstring
from convoxel.nn.functional.border import PADDING_MODES, pad
from convoxel.nn.functional.correlation import conv_transpose, convolve, correlate
from convoxel.nn.functional.deform import deform_conv
from convoxel.nn.functional.dynamic import dynamic_conv
from convoxel.nn.functional.matrix import convolution_matrix, resize_matrix, transposed_matrix
from convoxel.nn.functional.pooling import (
    adaptive_average_pool,
    adaptive_max_pool,
    average_pool,
    blur_pool,
    global_average_pool,
    global_max_pool,
    max_pool,
)
from convoxel.nn.functional.projection import Projection, project_to_convolution
from convoxel.nn.functional.resize import RESIZE_MODES, resize
from convoxel.nn.functional.separable import depthwise_separable, separable
from convoxel.nn.functional.shuffle import pixel_shuffle, pixel_unshuffle
from convoxel.nn.functional.toeplitz import ToeplitzStructure, toeplitz_structure
from convoxel.nn.functional.unpool import UNPOOL_MODES, unpool

__all__ = [
    "PADDING_MODES",
    "RESIZE_MODES",
    "UNPOOL_MODES",
    "Projection",
    "ToeplitzStructure",
    "adaptive_average_pool",
    "adaptive_max_pool",
    "average_pool",
    "blur_pool",
    "conv_transpose",
    "convolution_matrix",
    "convolve",
    "correlate",
    "deform_conv",
    "depthwise_separable",
    "dynamic_conv",
    "global_average_pool",
    "global_max_pool",
    "max_pool",
    "pad",
    "pixel_shuffle",
    "pixel_unshuffle",
    "project_to_convolution",
    "resize",
    "resize_matrix",
    "separable",
    "toeplitz_structure",
    "transposed_matrix",
    "unpool",
]

for _name in __all__:
    complete_docstring(globals()[_name], FUNCTIONS)

open_face(__name__)
